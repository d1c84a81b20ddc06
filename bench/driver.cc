// The workload driver of bench/run.sh: loads rows, and measures reads and writes as a bidder makes
// them, through the public API alone.
//
//   --mode load      fills the table `bench` with --rows rows
//   --mode read      one reader: gets and scans of the newest rows
//   --mode write     --threads writers of single durable rows, then one alone
//   --mode reader    gets and scans for --seconds, between two marker lines on standard error, for
//                    those who count system calls
//   --mode machine   what the bare machine does: a synced write below --directory, a cache miss
//   --mode report    the table of --results, and --json
//
// Each mode appends "name value" lines to the file --results; report reads them. The table `bench`:
// 16 bytes of key (entity, time in µs) and 256 of value, a hundred rows to an entity, all of them
// spread over one hour, round-robin over the entities in the order of time.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "bench/client.h"
#include "bench/machine.h"
#include "bench/measure.h"
#include "bench/rows.h"
#include "clientlib/bidstore.h"
#include "shm/stats.h"

namespace bench {

using bidstore::in;
using bidstore::Snapshot;
using bidstore::Status;
using bidstore::Store;
using Clock = std::chrono::steady_clock;

struct Row {
    std::uint64_t entity = 0;
    std::uint64_t time = 0;
    bidstore::Bytes<256> value;
};

}  // namespace bench

template <>
struct bidstore::Describe<bench::Row> {
    using Row = bench::Row;
    static constexpr auto table = bidstore::table<Row>(
        "bench", keys(column<&Row::entity>("entity"), column<&Row::time>("time", timestamp)),
        values(column<&Row::value>("value")), time_column("time"));
};

namespace bench {
namespace {

constexpr std::uint64_t kSampleEvery = 16;  // one operation of so many is timed by itself
constexpr int kRounds = 5;
constexpr std::size_t kRowsPerTransaction = 8;
constexpr std::size_t kInFlight = 112;

struct Options {
    std::string mode;
    std::string socket;
    std::string directory = ".";
    std::string results;
    std::string json;
    std::uint64_t rows = 10'000'000;
    std::uint32_t threads = 64;
    double seconds = 5;
};

// ---- results ------------------------------------------------------------------------------------

class Results {
  public:
    explicit Results(const std::string& path) : file_(path, std::ios::app) {
        if (!file_) fail("--results " + path + ": cannot be written");
    }
    void add(const std::string& name, double value) { file_ << name << ' ' << value << '\n'; }

  private:
    std::ofstream file_;
};

// ---- the table ----------------------------------------------------------------------------------

using Table = bidstore::Table<Row>;

Shape shape_of(const Options& options) { return {options.rows, Shape::entities_for(options.rows)}; }

void fill(Row& row, std::uint64_t entity, std::uint64_t time, std::uint64_t number) {
    row.entity = entity;
    row.time = time;
    fill_value(row.value.data.data(), number);
}

// ---- load ---------------------------------------------------------------------------------------

void show_progress(std::uint64_t done, std::uint64_t rows, double seconds) {
    const double rate = static_cast<double>(done) / seconds;
    const double left = static_cast<double>(rows - done) / std::max(rate, 1.0);
    std::printf("  loaded %llu of %llu rows, %.0f rows/s, %.0f s left\n",
                static_cast<unsigned long long>(done), static_cast<unsigned long long>(rows), rate,
                left);
    std::fflush(stdout);
}

void load(const Options& options) {
    Store store = attach(options.socket, bidstore::Rights::kAdmin);
    must(store.create_table<Row>(in(kPatience)));
    const Table table = must(store.open<Row>(in(kPatience)));
    const Shape shape = shape_of(options);
    std::deque<bidstore::Pending> in_flight;
    const auto settle = [&] {
        must(in_flight.front().wait(in(kPatience)));
        in_flight.pop_front();
    };
    const Clock::time_point begin = Clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(Clock::now() - begin).count();
    };
    double next_line = 2;
    Row row;
    bidstore::Transaction transaction;
    for (std::uint64_t i = 0; i < options.rows; ++i) {
        fill(row, shape.entity(i), shape.time(i), i);
        transaction.put(table, row);
        const bool full = transaction.operation_count() == kRowsPerTransaction;
        if (!full && i + 1 < options.rows) continue;
        while (in_flight.size() >= kInFlight) settle();
        in_flight.push_back(must(store.submit(transaction, in(kPatience))));
        transaction.clear();
        if (i % 4096 < kRowsPerTransaction && elapsed() >= next_line) {
            show_progress(i, options.rows, elapsed());
            next_line += 5;
        }
    }
    while (!in_flight.empty()) settle();
    show_progress(options.rows, options.rows, elapsed());
    Results results(options.results);
    results.add("rows", static_cast<double>(options.rows));
    results.add("load_rows_per_second", static_cast<double>(options.rows) / elapsed());
    const bidstore::Stats stats = must(store.stats(in(kPatience)));
    results.add("data_file_bytes",
                static_cast<double>(counter(stats, bidstore::Counter::kDataFileBytes)));
}

// ---- reads --------------------------------------------------------------------------------------

// One reading thread. What it sums up is looked at, so that no read can be left out.
struct ReadBench {
    const Table& table;
    bidstore::Reader& reader;
    Shape shape;
    std::uint64_t sum = 0;
    std::vector<bidstore::Key<Row>> many_keys{};
    std::vector<std::optional<bidstore::Row<Row>>> many_rows{kKeysTogether};

    void get(std::uint64_t index, bidstore::Deadline deadline) {
        const Snapshot snapshot = must(reader.snapshot(deadline));
        const auto row = table.peek(snapshot, shape.entity(index), shape.time(index));
        if (!row.ok()) fail(row.failure().what);
        if (!*row) fail("a row that was loaded is not there");
        const std::uint64_t words = sum_of((*row)->raw().value.data());
        if (!snapshot.valid()) fail("a snapshot expired");
        if (words != index * 32) fail("a row has the value of another one");
        sum += words;
    }

    // As many gets under one snapshot, together.
    void multi_get(std::span<const std::uint64_t> indexes, bidstore::Deadline deadline) {
        std::vector<bidstore::Key<Row>>& keys = many_keys;
        keys.clear();
        for (const std::uint64_t index : indexes) {
            keys.push_back(table.key(shape.entity(index), shape.time(index)));
        }
        const Snapshot snapshot = must(reader.snapshot(deadline));
        must(table.peek_many(snapshot, keys, many_rows));
        std::uint64_t words = 0;
        for (std::size_t i = 0; i < indexes.size(); ++i) {
            if (!many_rows[i]) fail("a row that was loaded is not there");
            words += sum_of(many_rows[i]->raw().value.data()) - indexes[i] * 32;
        }
        if (!snapshot.valid()) fail("a snapshot expired");
        if (words != 0) fail("a row has the value of another one");
        sum += words + 1;
    }

    void scan(std::uint64_t entity, bidstore::Deadline deadline) {
        const Snapshot snapshot = must(reader.snapshot(deadline));
        auto cursor = table.newest(snapshot, kScanRows, entity);
        std::uint64_t rows = 0;
        for (; cursor.next(); ++rows) {
            std::uint64_t word = 0;
            std::memcpy(&word, cursor.row().raw().value.data(), sizeof word);
            sum += word + cursor.row().get<&Row::time>();
        }
        must(cursor.status());
        if (rows != std::min(kScanRows, kRowsPerEntity)) fail("a scan did not find its rows");
    }
};

struct Timing {
    double mean_us;
    double p50_us;
    double p99_us;
};

// One operation of kSampleEvery is timed by itself, with the cost of the clock in it; the mean is
// that of all.
template <class Operation>
Timing time_round(std::uint64_t count, Operation operation) {
    std::vector<std::uint32_t> samples;
    samples.reserve(count / kSampleEvery + 1);
    const bidstore::Deadline deadline = in(kPatience);
    const std::uint64_t begin = now_ns();
    for (std::uint64_t i = 0; i < count; ++i) {
        if (i % kSampleEvery != 0) {
            operation(deadline);
            continue;
        }
        const std::uint64_t start = now_ns();
        operation(deadline);
        samples.push_back(static_cast<std::uint32_t>(now_ns() - start));
    }
    const auto total = static_cast<double>(now_ns() - begin);
    return {total / static_cast<double>(count) / 1e3, quantile_us(samples, 0.5),
            quantile_us(samples, 0.99)};
}

// Medians over rounds; a first round warms up.
template <class Operation>
void time_rounds(Results& results, const std::string& name, std::uint64_t count,
                 Operation operation) {
    std::vector<double> mean;
    std::vector<double> p50;
    std::vector<double> p99;
    time_round(count / 2, operation);
    for (int round = 0; round < kRounds; ++round) {
        const Timing timing = time_round(count, operation);
        mean.push_back(timing.mean_us);
        p50.push_back(timing.p50_us);
        p99.push_back(timing.p99_us);
    }
    results.add(name + "_mean_us", median(mean));
    results.add(name + "_p50_us", median(p50));
    results.add(name + "_p99_us", median(p99));
    std::printf("  %-18s p50 %.2f us (rounds %.2f to %.2f), p99 %.2f us\n", name.c_str(),
                median(p50), *std::min_element(p50.begin(), p50.end()),
                *std::max_element(p50.begin(), p50.end()), median(p99));
    std::fflush(stdout);
}

void read(const Options& options) {
    Store store = attach(options.socket, bidstore::Rights::kReader);
    const Table table = must(store.open<Row>(in(kPatience)));
    bidstore::Reader reader = must(store.reader());
    ReadBench bench{table, reader, shape_of(options)};
    Results results(options.results);
    Random random(1);
    const Shape shape = shape_of(options);
    const std::uint64_t recent = options.rows - shape.five_minutes();
    // Each page of the pool costs this process a page fault at its first touch: not part of a get.
    for (std::uint64_t i = 0; i < options.rows; i += 4) bench.get(i, in(kPatience));
    time_rounds(results, "get_recent", 400'000, [&](bidstore::Deadline deadline) {
        bench.get(recent + random.below(options.rows - recent), deadline);
    });
    time_rounds(results, "get_all", 400'000, [&](bidstore::Deadline deadline) {
        bench.get(random.below(options.rows), deadline);
    });
    std::array<std::uint64_t, kKeysTogether> indexes{};
    time_rounds(results, "multiget_32", 40'000, [&](bidstore::Deadline deadline) {
        for (std::uint64_t& index : indexes) index = random.below(options.rows);
        bench.multi_get(indexes, deadline);
    });
    time_rounds(results, "scan_50", 100'000, [&](bidstore::Deadline deadline) {
        bench.scan(random.below(shape.entity_count), deadline);
    });
    std::vector<double> clock;
    for (int round = 0; round < kRounds; ++round) {
        clock.push_back(time_round(100'000, [](bidstore::Deadline) {}).p50_us);
    }
    results.add("clock_us", median(clock));
    std::printf("  (sum of all that was read: %llx)\n", static_cast<unsigned long long>(bench.sum));
}

// A marker that strace shows; nothing between two of them may be another system call.
void mark(std::string_view text) {
    if (::write(STDERR_FILENO, text.data(), text.size()) < 0) fail("standard error is closed");
}

void reader(const Options& options) {
    Store store = attach(options.socket, bidstore::Rights::kReader);
    const Table table = must(store.open<Row>(in(kPatience)));
    bidstore::Reader reader = must(store.reader());
    ReadBench bench{table, reader, shape_of(options)};
    Random random(2);
    const auto step = [&] {
        bench.get(random.below(options.rows), in(kPatience));
        bench.scan(random.below(bench.shape.entity_count), in(kPatience));
    };
    for (int i = 0; i < 1000; ++i) step();
    std::uint64_t steps = 0;
    const Clock::time_point end =
        Clock::now() + std::chrono::milliseconds(static_cast<std::int64_t>(options.seconds * 1e3));
    mark("bench: reading begins\n");
    for (; Clock::now() < end; ++steps) step();
    mark("bench: reading ended\n");
    Results results(options.results);
    results.add("reader_gets", static_cast<double>(steps));
    results.add("reader_scans", static_cast<double>(steps));
}

// ---- writes -------------------------------------------------------------------------------------

// Rows newer than all that were loaded or written before, of random entities.
void write_rows(Store& store, const Table& table, const Shape& shape, std::uint64_t writer,
                Clock::time_point end, std::vector<std::uint32_t>& samples_ns) {
    Random random(writer + 100);
    bidstore::Transaction transaction;
    Row row;
    for (std::uint64_t i = 0;; ++i) {
        const std::uint64_t start = now_ns();
        if (Clock::time_point(std::chrono::nanoseconds(start)) >= end) return;
        fill(row, random.below(shape.entity_count), now_us(), i);
        transaction.clear();
        transaction.put(table, row);
        must(store.commit(transaction, in(kPatience)));
        samples_ns.push_back(static_cast<std::uint32_t>(now_ns() - start));
    }
}

struct Commits {
    double per_second = 0;
    double p50_us = 0;
    double p99_us = 0;
    double per_sync = 0;
};

Commits time_writers(Store& store, const Table& table, const Shape& shape, std::uint32_t threads,
                     std::uint64_t first_writer, double seconds) {
    const bidstore::Stats before = must(store.stats(in(kPatience)));
    std::vector<std::vector<std::uint32_t>> samples(threads);
    const Clock::time_point begin = Clock::now();
    const Clock::time_point end =
        begin + std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1e3));
    {
        std::vector<std::jthread> writers;
        for (std::uint32_t i = 0; i < threads; ++i) {
            samples[i].reserve(1 << 16);
            writers.emplace_back(
                [&, i] { write_rows(store, table, shape, first_writer + i, end, samples[i]); });
        }
    }
    const double elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
    const bidstore::Stats after = must(store.stats(in(kPatience)));
    std::vector<std::uint32_t> all;
    for (const auto& some : samples) all.insert(all.end(), some.begin(), some.end());
    using enum bidstore::Counter;
    const auto grown = [&](bidstore::Counter which) {
        return static_cast<double>(counter(after, which) - counter(before, which));
    };
    return {static_cast<double>(all.size()) / elapsed, quantile_us(all, 0.5),
            quantile_us(all, 0.99), grown(kTransactionsApplied) / std::max(grown(kLogSyncs), 1.0)};
}

void write(const Options& options) {
    Store store = attach(options.socket, bidstore::Rights::kWriter);
    const Table table = must(store.open<Row>(in(kPatience)));
    const Shape shape = shape_of(options);
    Results results(options.results);
    std::uint64_t first_writer = 0;
    const auto run = [&](const std::string& name, std::uint32_t threads, double seconds) {
        const Commits commits = time_writers(store, table, shape, threads, first_writer, seconds);
        first_writer += threads;
        results.add(name + "_per_second", commits.per_second);
        results.add(name + "_p50_us", commits.p50_us);
        results.add(name + "_p99_us", commits.p99_us);
        results.add(name + "_per_sync", commits.per_sync);
        std::printf("  %2u writers: %.0f commits/s, p50 %.0f us, p99 %.0f us, %.1f a sync\n",
                    threads, commits.per_second, commits.p50_us, commits.p99_us, commits.per_sync);
        std::fflush(stdout);
    };
    time_writers(store, table, shape, options.threads, 900, 0.5);  // warms up
    run("commits", options.threads, options.seconds);
    run("lone", 1, std::min(options.seconds, 3.0));
}

// ---- the bare machine ---------------------------------------------------------------------------

void machine(const Options& options) {
    std::vector<std::uint32_t> writes = synced_writes_ns(options.directory);
    const double miss = dependent_miss_ns(false, spread_bytes(options.rows));
    const double huge_miss = dependent_miss_ns(true, spread_bytes(options.rows));
    Results results(options.results);
    results.add("sync_p50_us", quantile_us(writes, 0.5));
    results.add("sync_p99_us", quantile_us(writes, 0.99));
    results.add("small_page_miss_ns", miss);
    if (huge_miss > 0) results.add("huge_page_miss_ns", huge_miss);
    std::printf("  4 KiB with RWF_DSYNC: p50 %.0f us, p99 %.0f us; dependent miss %.0f ns\n",
                quantile_us(writes, 0.5), quantile_us(writes, 0.99), miss);
    if (huge_miss > 0) std::printf("  dependent miss on huge pages %.0f ns\n", huge_miss);
}

// ---- report -------------------------------------------------------------------------------------

using Values = std::map<std::string, double>;

Values read_results(const std::string& path) {
    std::ifstream file(path);
    Values values;
    std::string name;
    double value = 0;
    while (file >> name >> value) values[name] = value;
    if (values.empty()) fail("--results " + path + ": nothing in it");
    return values;
}

// A measured value beside its target: a bound from above, or from below for rates.
bool line(const char* what, double value, const char* unit, double target, bool at_least) {
    const bool met = at_least ? value >= target : value <= target;
    std::printf("%-44s %12.2f %-10s %s %-9g %s\n", what, value, unit,
                at_least ? "at least" : "at most ", target, met ? "met" : "MISSED");
    return met;
}
void line(const char* what, double value, const char* unit) {
    std::printf("%-44s %12.2f %-10s\n", what, value, unit);
}

bool print_table(Values values) {
    const bool huge = values["pool_huge_percent"] >= 100 && values["huge_page_miss_ns"] > 0;
    const double miss_ns = values[huge ? "huge_page_miss_ns" : "small_page_miss_ns"];
    std::printf("\n%-44s %12s %-10s %s\n", "first look", "measured", "", "target");
    bool met = line("get, newest five minutes, p50", values["get_recent_p50_us"], "us", 0.8, false);
    line("get, newest five minutes, p99", values["get_recent_p99_us"], "us");
    line("get, all rows, p50", values["get_all_p50_us"], "us");
    met &= line("  in dependent misses", values["get_all_p50_us"] * 1e3 / miss_ns, "", 2.5, false);
    line("get, all rows, p99", values["get_all_p99_us"], "us");
    met &= line("multi_get of 32 keys of all rows, p50 a key",
                values["multiget_32_p50_us"] / kKeysTogether * 1e3, "ns", 120, false);
    met &= line("scan of the newest 50 rows, p50", values["scan_50_p50_us"], "us", 2.1, false);
    line("scan of the newest 50 rows, p99", values["scan_50_p99_us"], "us");
    met &= line("durable commits, 64 writers", values["commits_per_second"], "1/s", 60'000, true);
    line("  p50", values["commits_p50_us"], "us");
    line("  p99", values["commits_p99_us"], "us");
    line("  writes a sync", values["commits_per_sync"], "");
    line("durable commit, a lone writer, p50", values["lone_p50_us"], "us");
    met &= line("system calls in a second of reads", values["reader_system_calls"], "", 0, false);
    line("  gets in that second", values["reader_gets"], "");
    line("load, 8 rows a transaction", values["load_rows_per_second"], "rows/s");
    std::printf("\n%-44s %12s\n", "the bare machine in this run", "measured");
    line("4 KiB written with RWF_DSYNC, p50", values["sync_p50_us"], "us");
    line("pool on huge pages", values["pool_huge_percent"], "%");
    line(huge ? "dependent cache miss, huge pages" : "dependent cache miss, 4 KiB pages", miss_ns,
         "ns");
    line("reading the clock (in each timed operation)", values["clock_us"] * 1e3, "ns");
    std::printf("\n%-44s\n", "ratios");
    line("lone commit, in bare synced writes", values["lone_p50_us"] / values["sync_p50_us"], "");
    line("commits in the time of a bare synced write",
         values["commits_per_second"] * values["sync_p50_us"] / 1e6, "");
    return met;
}

void write_json(const Values& values, const std::string& path) {
    std::ofstream file(path);
    const char* before = "{\n";
    for (const auto& [name, value] : values) {
        file << before << "  \"" << name << "\": " << value;
        before = ",\n";
    }
    file << "\n}\n";
    if (!file.flush()) fail("--json " + path + ": cannot be written");
}

void report(const Options& options) {
    const Values values = read_results(options.results);
    print_table(values);
    if (!options.json.empty()) write_json(values, options.json);
}

int run(const Options& options) {
    const std::map<std::string, void (*)(const Options&)> modes = {
        {"load", load},     {"read", read},       {"write", write},
        {"reader", reader}, {"machine", machine}, {"report", report}};
    modes.at(options.mode)(options);
    return EXIT_SUCCESS;
}

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app(
        "Measures a bidstored that runs, through the client library. See bench/README.md.");
    app.add_option("--mode", options.mode)
        ->required()
        ->check(CLI::IsMember({"load", "read", "write", "reader", "machine", "report"}));
    app.add_option("--socket", options.socket, "of the daemon")->envname("BIDSTORE_SOCKET");
    app.add_option("--results", options.results, "file for the values measured")->required();
    app.add_option("--directory", options.directory, "where machine writes");
    app.add_option("--json", options.json, "where report writes all values");
    app.add_option("--rows", options.rows)->check(CLI::Range(1'000ull, 1'000'000'000ull));
    app.add_option("--threads", options.threads)->check(CLI::Range(1, 400));
    app.add_option("--seconds", options.seconds)->check(CLI::Range(0.1, 3600.0));
    CLI11_PARSE(app, argument_count, arguments);
    return bench::run(options);
}
