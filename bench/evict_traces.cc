#include "bench/evict_traces.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <unordered_map>
#include <utility>

#include "bench/measure.h"
#include "clientlib/bidlog.h"
#include "clientlib/import_lines.h"

namespace bench {
namespace {

using bidstore::Error;
using bidstore::LineReader;
using bidstore::Result;

constexpr std::uint32_t kFanout = 150;  // children of an inner node that was split
constexpr std::uint32_t kHourMs = 3'600'000;

// The inner nodes above leaves that are numbered in the order of their keys, or made later.
class TreeOfPages {
  public:
    TreeOfPages(Trace& trace, std::uint32_t leaves) : trace_(trace) {
        trace_.inner.resize(leaves, false);
        trace_.newest_ms.resize(leaves, 0);
        for (std::uint32_t count = leaves; count > 1;) {
            count = (count + kFanout - 1) / kFanout;
            levels_.push_back(static_cast<std::uint32_t>(trace_.inner.size()));
            for (std::uint32_t i = 0; i < count; ++i) add_page(true);
        }
    }
    // A leaf made by a split of `beside`, or at the end of the key order.
    std::uint32_t add_leaf(std::uint32_t beside) {
        const std::uint32_t leaf = add_page(false);
        beside_[leaf] = place(beside);
        return leaf;
    }
    // The way from the root to the leaf.
    void read_path(std::uint32_t leaf, AccessKind kind, std::uint32_t now_ms) {
        for (std::size_t level = levels_.size(); level > 0; --level) {
            std::uint32_t node = place(leaf);
            for (std::size_t i = 0; i < level; ++i) node /= kFanout;
            const bool write = kind == AccessKind::kWrite || kind == AccessKind::kBorn;
            access(levels_[level - 1] + node, write ? AccessKind::kWrite : AccessKind::kRead,
                   now_ms);
        }
        access(leaf, kind, now_ms);
    }
    void access(std::uint32_t page, AccessKind kind, std::uint32_t now_ms) {
        trace_.pages.push_back(page);
        trace_.kinds.push_back(kind);
        trace_.now_ms.push_back(now_ms);
    }

  private:
    std::uint32_t add_page(bool inner) {
        trace_.inner.push_back(inner);
        trace_.newest_ms.push_back(0);
        return static_cast<std::uint32_t>(trace_.inner.size() - 1);
    }
    std::uint32_t place(std::uint32_t leaf) const {
        const auto found = beside_.find(leaf);
        return found == beside_.end() ? leaf : found->second;
    }
    Trace& trace_;
    std::vector<std::uint32_t> levels_;  // first page of each, from the leaves' parents up
    std::unordered_map<std::uint32_t, std::uint32_t> beside_;
};

// Rows of the seed workload, in one order or the other.
class SeedRows {
  public:
    static constexpr std::uint32_t kRowsPerLeaf = 14;
    static constexpr std::uint32_t kRowsPerEntity = 100;

    SeedRows(const SeedOptions& options, Trace& trace)
        : options_(options),
          trace_(trace),
          tree_(trace, options.leaves),
          base_rows_(options.leaves * kRowsPerLeaf),
          entities_(base_rows_ / kRowsPerEntity),
          rows_(base_rows_) {
        if (options.by_entity) made_.resize(entities_);
        for (std::uint32_t row = 0; row < rows_; ++row) stamp(leaf_of(row), row);
    }
    std::uint32_t rows() const { return rows_; }
    // Rows come one after another in time; an hour has base_rows_.
    std::uint32_t time_ms(std::uint32_t row) const {
        return static_cast<std::uint32_t>(std::uint64_t{row} * kHourMs / base_rows_);
    }
    std::uint32_t rows_of_ms(std::uint32_t span_ms) const {
        return static_cast<std::uint32_t>(std::uint64_t{span_ms} * base_rows_ / kHourMs);
    }
    void get(std::uint32_t row, bool hot) {
        tree_.read_path(leaf_of(row), hot ? AccessKind::kHotRead : AccessKind::kRead, now_ms());
    }
    // 50 rows from `row` back: of its entity, or of all.
    void scan(std::uint32_t row) {
        std::uint32_t last = ~0u;
        const std::uint32_t step = options_.by_entity ? entities_ : 1;
        for (std::uint32_t i = 0; i < 50 && row < rows_; ++i, row -= step) {
            const std::uint32_t leaf = leaf_of(row);
            if (last == ~0u) {
                tree_.read_path(leaf, AccessKind::kRead, now_ms());
            } else if (leaf != last) {
                tree_.access(leaf, AccessKind::kRead, now_ms());
            }
            last = leaf;
        }
    }
    void insert() {
        const std::uint32_t row = rows_++;
        const std::size_t pages = trace_.inner.size();
        const std::uint32_t leaf = leaf_for_new(row);
        stamp(leaf, row);
        const bool born = trace_.inner.size() != pages;
        tree_.read_path(leaf, born ? AccessKind::kBorn : AccessKind::kWrite, now_ms());
    }
    void scan_leaf(std::uint32_t leaf) { tree_.access(leaf, AccessKind::kScan, now_ms()); }

  private:
    std::uint32_t now_ms() const { return time_ms(rows_); }
    void stamp(std::uint32_t leaf, std::uint32_t row) { trace_.newest_ms[leaf] = time_ms(row); }
    std::uint32_t leaf_of(std::uint32_t row) const {
        if (!options_.by_entity) {
            if (row < base_rows_) return row / kRowsPerLeaf;
            return made_at_head_[(row - base_rows_) / kRowsPerLeaf];
        }
        const std::uint32_t entity = row % entities_;
        const std::uint32_t nth = row / entities_;
        if (nth < kRowsPerEntity) return (entity * kRowsPerEntity + nth) / kRowsPerLeaf;
        return made_[entity][(nth - kRowsPerEntity) / kRowsPerLeaf];
    }
    std::uint32_t leaf_for_new(std::uint32_t row) {
        if (!options_.by_entity) {
            const std::uint32_t nth = (row - base_rows_) / kRowsPerLeaf;
            if (nth == made_at_head_.size()) {
                made_at_head_.push_back(tree_.add_leaf(options_.leaves - 1));
            }
        } else {
            const std::uint32_t entity = row % entities_;
            const std::uint32_t nth = (row / entities_ - kRowsPerEntity) / kRowsPerLeaf;
            const std::uint32_t beside = (entity + 1) * kRowsPerEntity / kRowsPerLeaf - 1;
            if (nth == made_[entity].size()) made_[entity].push_back(tree_.add_leaf(beside));
        }
        return leaf_of(row);
    }

    SeedOptions options_;
    Trace& trace_;
    TreeOfPages tree_;
    std::uint32_t base_rows_;
    std::uint32_t entities_;
    std::uint32_t rows_;
    std::vector<std::uint32_t> made_at_head_;
    std::vector<std::vector<std::uint32_t>> made_;  // by entity
};

// Numbers from 0 with the frequencies of a Zipf distribution, spread over all pages.
class Zipf {
  public:
    Zipf(std::uint32_t pages, double skew) : sums_(pages) {
        double sum = 0;
        for (std::uint32_t i = 0; i < pages; ++i) sums_[i] = sum += 1 / std::pow(i + 1, skew);
    }
    std::uint32_t next(Random& random) const {
        const double at = static_cast<double>(random.below(1u << 30)) / (1u << 30) * sums_.back();
        const auto rank = std::upper_bound(sums_.begin(), sums_.end(), at) - sums_.begin();
        return static_cast<std::uint32_t>(rank) % static_cast<std::uint32_t>(sums_.size());
    }

  private:
    std::vector<double> sums_;
};

constexpr std::uint32_t kGeneralPages = 100'000;
constexpr std::uint32_t kGeneralAccesses = 2'000'000;

Trace general(const char* name, const char* what,
              const std::function<std::uint32_t(std::uint32_t access)>& page) {
    Trace trace;
    trace.name = name;
    trace.what = what;
    for (std::uint32_t i = 0; i < kGeneralAccesses; ++i) trace.pages.push_back(page(i));
    trace.page_count = *std::max_element(trace.pages.begin(), trace.pages.end()) + 1;
    trace.data_pages = trace.page_count;
    return trace;
}

// Gives each thing that is named by a text a number, in the order of their names: the order in
// which a table would have them.
class Names {
  public:
    void add(const std::string& name) { numbers_[name] = 0; }
    void number() {
        std::uint32_t next = 0;
        for (auto& [name, number] : numbers_) number = next++;
    }
    std::uint32_t of(const std::string& name) const { return numbers_.at(name); }
    std::uint32_t size() const { return static_cast<std::uint32_t>(numbers_.size()); }

  private:
    std::map<std::string, std::uint32_t> numbers_;
};

struct Request {
    std::string user;
    std::string cap;  // user and site
};

std::string site_of(std::string_view url) {
    const std::size_t host = url.find("//");
    if (host == std::string_view::npos) return {};
    url.remove_prefix(host + 2);
    return std::string(url.substr(0, url.find('/')));
}

Result<std::vector<Request>> requests_of(const std::function<Result<bool>(std::string&)>& next) {
    std::vector<Request> requests;
    simdjson::dom::parser parser;
    std::string line;
    for (;;) {
        const Result<bool> more = next(line);
        if (!more.ok()) return more.failure();
        if (!*more) return requests;
        simdjson::dom::element request;
        if (parser.parse(line).get(request) != simdjson::SUCCESS) continue;
        std::string_view user;
        std::string_view url;
        if (request.at_pointer("/userIds/xchg").get(user) != simdjson::SUCCESS) user = {};
        if (request["url"].get(url) != simdjson::SUCCESS) url = {};
        requests.push_back({std::string(user), std::string(user) + " " + site_of(url)});
    }
}

constexpr std::uint32_t kMadeUpRequests = 20'000;

}  // namespace

Trace seed_trace(const SeedOptions& options) {
    Trace trace;
    trace.name = options.by_entity ? "seed, by entity" : "seed";
    trace.what = "87 % of point reads in the newest 5 minutes of an hour, 15 % scans, 5 % inserts";
    SeedRows rows(options, trace);
    trace.data_pages = static_cast<std::uint32_t>(trace.inner.size());
    Random random(1);
    const std::uint32_t hot_rows = rows.rows_of_ms(300'000);
    const std::uint32_t scan_rows = rows.rows_of_ms(30'000);
    const std::uint32_t warm = options.operations / 2;
    for (std::uint32_t operation = 0; operation < options.operations; ++operation) {
        if (operation == warm) trace.counted_from = trace.pages.size();
        const std::uint64_t die = random.below(100);
        if (die < 80) {
            const bool hot = random.below(100) < 87;
            const std::uint64_t back = random.below(hot ? hot_rows : rows.rows());
            rows.get(rows.rows() - 1 - static_cast<std::uint32_t>(back), hot);
        } else if (die < 95) {
            rows.scan(rows.rows() - 1 - static_cast<std::uint32_t>(random.below(scan_rows)));
        } else {
            rows.insert();
        }
        const std::uint32_t scanned = operation - warm;
        if (options.scan && operation >= warm && scanned < options.leaves) rows.scan_leaf(scanned);
    }
    trace.page_count = static_cast<std::uint32_t>(trace.inner.size());
    return trace;
}

std::vector<Trace> general_traces() {
    std::vector<Trace> traces;
    Random random(2);
    const Zipf flat(kGeneralPages, 0.7);
    const Zipf steep(kGeneralPages, 1.0);
    traces.push_back(general("zipf 0.7", "skew 0.7, 100,000 pages",
                             [&](std::uint32_t) { return flat.next(random); }));
    traces.push_back(general("zipf 1.0", "skew 1.0, 100,000 pages",
                             [&](std::uint32_t) { return steep.next(random); }));
    traces.push_back(general("uniform", "every page as often as any other", [&](std::uint32_t) {
        return static_cast<std::uint32_t>(random.below(kGeneralPages));
    }));
    traces.push_back(general("loop", "100,000 pages in the same order, again and again",
                             [&](std::uint32_t i) { return i % kGeneralPages; }));
    traces.push_back(general("zipf and scans", "skew 1.0; every other access scans all pages",
                             [&](std::uint32_t i) {
                                 return i % 2 ? i / 2 % kGeneralPages : steep.next(random);
                             }));
    traces.push_back(general("moving zipf", "skew 1.0; what is hot moves on by a page in 20",
                             [&](std::uint32_t i) {
                                 return (steep.next(random) + i / 20) % kGeneralPages;
                             }));
    traces.push_back(general("recency", "7 in 10 again what was used lately, the rest any page",
                             [&, last = std::vector<std::uint32_t>{}](std::uint32_t) mutable {
                                 const std::uint32_t back = flat.next(random);
                                 const bool again = random.below(10) < 7 && back < last.size();
                                 const auto any =
                                     static_cast<std::uint32_t>(random.below(kGeneralPages));
                                 last.push_back(again ? last[last.size() - 1 - back] : any);
                                 return last.back();
                             }));
    return traces;
}

Result<Trace> bid_log_trace(const std::string& path) {
    Result<std::vector<Request>> requests = std::vector<Request>{};
    if (path.empty()) {
        bidstore::BidLog log(bidstore::BidLogOptions{});
        std::uint32_t made = 0;
        requests = requests_of([&](std::string& line) -> Result<bool> {
            if (made++ == kMadeUpRequests) return false;
            line = log.next();
            return true;
        });
    } else {
        Result<LineReader> reader = LineReader::open(path);
        if (!reader.ok()) return reader.failure();
        requests = requests_of([&](std::string& line) {
            std::string_view read;
            Result<bool> more = reader->next(read);
            line = read;
            return more;
        });
    }
    if (!requests.ok()) return requests.failure();
    if (requests->empty()) {
        return {Error::kInvalid, path + ": no bid request in it (one JSON object per line)"};
    }
    Names users;
    Names caps;
    for (const Request& request : *requests) users.add(request.user), caps.add(request.cap);
    users.number();
    caps.number();
    // Profiles of 930 bytes, 4 to a leaf; caps of 48, 80 to a leaf; auctions of 930, in time.
    const auto leaves = [](std::uint32_t rows, std::uint32_t per) { return rows / per + 1; };
    Trace trace;
    trace.name = path.empty() ? "bid log (made up)" : "bid log";
    trace.what = "user's profile, cap of user and site, and the auction noted, per request";
    const std::uint32_t first_cap = leaves(users.size(), 4);
    const std::uint32_t first_auction = first_cap + leaves(caps.size(), 80);
    for (std::uint32_t i = 0; i < requests->size(); ++i) {
        const Request& request = (*requests)[i];
        const auto access = [&](std::uint32_t page, AccessKind kind) {
            trace.pages.push_back(page);
            trace.kinds.push_back(kind);
        };
        if (!request.user.empty()) {
            access(users.of(request.user) / 4, AccessKind::kRead);
            access(first_cap + caps.of(request.cap) / 80, AccessKind::kRead);
            access(first_cap + caps.of(request.cap) / 80, AccessKind::kWrite);
        }
        access(first_auction + i / 4, i % 4 == 0 ? AccessKind::kBorn : AccessKind::kWrite);
    }
    trace.page_count = first_auction + static_cast<std::uint32_t>(requests->size() / 4) + 1;
    trace.data_pages = trace.page_count;
    return trace;
}

Result<Trace> file_trace(const std::string& path) {
    Result<LineReader> reader = LineReader::open(path);
    if (!reader.ok()) return reader.failure();
    Trace trace;
    trace.name = path.substr(path.rfind('/') + 1);
    trace.what = "page numbers of a file";
    std::unordered_map<std::uint64_t, std::uint32_t> numbers;
    std::string_view line;
    for (;;) {
        const Result<bool> more = reader->next(line);
        if (!more.ok()) return more.failure();
        if (!*more) break;
        // Blanks around the number, and the end of a line as other systems write it.
        line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
        line = line.substr(0, line.find_last_not_of(" \t\r") + 1);
        if (line.empty()) continue;
        std::uint64_t page = 0;
        const auto parsed = std::from_chars(line.data(), line.data() + line.size(), page);
        if (parsed.ec != std::errc{} || parsed.ptr != line.data() + line.size()) {
            return {Error::kInvalid, path + ":" + std::to_string(reader->line()) +
                                         ": wants one page number a line, not \"" +
                                         std::string(line) + "\""};
        }
        const auto next = static_cast<std::uint32_t>(numbers.size());
        trace.pages.push_back(numbers.emplace(page, next).first->second);
    }
    if (trace.pages.empty()) return {Error::kInvalid, path + ": no page number in it"};
    trace.page_count = trace.data_pages = static_cast<std::uint32_t>(numbers.size());
    return trace;
}

}  // namespace bench
