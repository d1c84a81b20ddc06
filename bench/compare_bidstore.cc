// bidstore, as it is used: the daemon in its own process, clients in theirs.
#include <signal.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/client.h"
#include "bench/compare_engine.h"
#include "clientlib/bidstore.h"

namespace bench {

using bidstore::in;
using bidstore::Snapshot;
using bidstore::Store;

struct ComparedRow {
    std::uint64_t entity = 0;
    std::uint64_t time = 0;
    bidstore::Bytes<kValueBytes> value;
};

struct ComparedCounter {
    std::uint64_t number = 0;
    std::int64_t count = 0;
};

}  // namespace bench

template <>
struct bidstore::Describe<bench::ComparedRow> {
    using Row = bench::ComparedRow;
    static constexpr auto table = bidstore::table<Row>(
        "rows", keys(column<&Row::entity>("entity"), column<&Row::time>("time", timestamp)),
        values(column<&Row::value>("value")), time_column("time"));
};

template <>
struct bidstore::Describe<bench::ComparedCounter> {
    using Row = bench::ComparedCounter;
    static constexpr auto table = bidstore::table<Row>(
        "counters", keys(column<&Row::number>("number")), values(column<&Row::count>("count")));
};

namespace bench {
namespace {

constexpr std::uint32_t kRowsPerLoadTransaction = 64;
constexpr std::size_t kLoadsInFlight = 32;

using Rows = bidstore::Table<ComparedRow>;
using Counters = bidstore::Table<ComparedCounter>;

class BidstoreSession : public Session {
  public:
    BidstoreSession(Store& store, const SessionOptions& options)
        : store_(store),
          rows_(must(store.open<ComparedRow>(in(kPatience)))),
          counters_(must(store.open<ComparedCounter>(in(kPatience)))),
          reader_(must(store.reader())),
          durability_(options.sync ? bidstore::Durability::kDurable
                                   : bidstore::Durability::kRelaxed),
          depth_(options.depth) {}

    Found get(const RowKey& key) override {
        const Snapshot snapshot = must(reader_.snapshot(deadline()));
        const auto row = rows_.peek(snapshot, key.entity, key.time);
        if (!row.ok()) fail(row.failure().what);
        if (!*row) return {};
        const Found found{1, sum_of((*row)->raw().value.data())};
        if (!snapshot.valid()) fail("a snapshot expired");
        return found;
    }

    Found multi_get(std::span<const RowKey> keys) override {
        keys_.clear();
        for (const RowKey& key : keys) keys_.push_back(rows_.key(key.entity, key.time));
        found_.resize(keys.size());
        const Snapshot snapshot = must(reader_.snapshot(deadline()));
        must(rows_.peek_many(snapshot, keys_, found_));
        Found all;
        for (const auto& row : found_) {
            if (!row) continue;
            ++all.rows;
            all.sum += sum_of(row->raw().value.data());
        }
        if (!snapshot.valid()) fail("a snapshot expired");
        return all;
    }

    Found scan_newest(std::uint64_t entity, std::uint64_t limit) override {
        const Snapshot snapshot = must(reader_.snapshot(deadline()));
        return sum_rows(rows_.newest(snapshot, limit, entity));
    }

    Found scan_from(const RowKey& key, std::uint64_t limit) override {
        const Snapshot snapshot = must(reader_.snapshot(deadline()));
        return sum_rows(
            rows_.scan(snapshot, rows_.prefix(key.entity, key.time), {}, {.limit = limit}));
    }

    std::uint64_t counter(std::uint64_t number) override {
        const auto row = must(counters_.get(reader_, in(kPatience), number));
        if (!row) fail("a counter is not there");
        return static_cast<std::uint64_t>(row->count);
    }

    void submit(const Write& write) override {
        transaction_.clear();
        if (write.kind == Write::Kind::kAdd) {
            transaction_.add<&ComparedCounter::count>(counters_, counters_.key(write.key.entity),
                                                      static_cast<std::int64_t>(write.word),
                                                      {.create = true});
        } else {
            row_.entity = write.key.entity;
            row_.time = write.key.time;
            fill_value(row_.value.data.data(), write.word);
            transaction_.put(rows_, row_);
        }
        if (depth_ == 1) {
            must(store_.commit(transaction_, deadline(), durability_));
            ++acknowledged_;
            return;
        }
        if (under_way_.size() >= depth_) settle_one();
        under_way_.push_back(must(store_.submit(transaction_, deadline(), durability_)));
    }

    std::size_t acknowledged(bool wait) override {
        if (wait && acknowledged_ == 0 && !under_way_.empty()) settle_one();
        while (!under_way_.empty() && under_way_.front().done()) settle_one();
        return std::exchange(acknowledged_, 0);
    }

  private:
    void settle_one() {
        must(under_way_.front().wait(in(kPatience)));
        under_way_.pop_front();
        ++acknowledged_;
    }

    static Found sum_rows(bidstore::Cursor<ComparedRow> cursor) {
        Found found;
        for (; cursor.next(); ++found.rows) {
            std::uint64_t word = 0;
            std::memcpy(&word, cursor.row().raw().value.data(), sizeof word);
            found.sum += word + cursor.row().get<&ComparedRow::time>();
        }
        must(cursor.status());
        return found;
    }

    // A bidder has the deadline of its auction, and asks no clock for each read: one of so many.
    bidstore::Deadline deadline() {
        if (deadline_uses_++ % 4096 == 0) deadline_ = in(kPatience);
        return deadline_;
    }

    Store& store_;
    Rows rows_;
    Counters counters_;
    bidstore::Reader reader_;
    bidstore::Durability durability_;
    std::uint32_t depth_;
    std::uint64_t deadline_uses_ = 0;
    bidstore::Deadline deadline_{};
    std::vector<bidstore::Key<ComparedRow>> keys_;
    std::vector<std::optional<bidstore::Row<ComparedRow>>> found_;
    bidstore::Transaction transaction_;
    ComparedRow row_;
    std::deque<bidstore::Pending> under_way_;
    std::size_t acknowledged_ = 0;
};

class Bidstore : public Engine {
  public:
    explicit Bidstore(const EngineOptions& options)
        : Engine(options), socket_(options.directory + "/bidstore.sock") {}
    ~Bidstore() override {
        store_.reset();
        if (daemon_ > 0) end_server(daemon_);
    }

    void start() override {
        const std::uint64_t pool = options().memory_bytes >> 20;
        const std::uint64_t disk = options().disk_bytes >> 20;
        const auto setting = [](const char* name, std::uint64_t mib) {
            return std::string(name) + "=" + std::to_string(mib) + "MiB";
        };
        const std::string log = options().directory + "/daemon.log";
        const bool small = options().shape.small();
        daemon_ = start_server(
            {options().binaries + "/bidstored", "--dev", options().directory, "--set",
             setting("pool_bytes", pool), "--set", setting("max_data_bytes", disk), "--set",
             setting("journal_bytes", std::min<std::uint64_t>(pool / 2, 2048)), "--set",
             setting("log_segment_bytes", small ? 8 : 64), "--set",
             std::string("log_segment_count=") + (small ? "8" : "32"), "--set", "huge_pages=try"},
            log);
        const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
        while (!std::filesystem::exists(socket_)) {
            if (std::chrono::steady_clock::now() > end || ::kill(daemon_, 0) != 0) {
                fail("bidstored does not listen; see " + log);
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        connect();
        must(store_->create_table<ComparedRow>(in(kPatience)));
        must(store_->create_table<ComparedCounter>(in(kPatience)));
        disconnect();
    }

    std::vector<pid_t> servers() const override { return {daemon_}; }
    bool many_processes() const override { return true; }
    void connect() override { store_.emplace(attach(socket_, bidstore::Rights::kAdmin)); }
    void disconnect() override { store_.reset(); }
    std::unique_ptr<Session> session(const SessionOptions& options) override {
        return std::make_unique<BidstoreSession>(*store_, options);
    }

    // Some rows a transaction, many under way: what an ingesting client does.
    void load() override {
        const Shape& shape = options().shape;
        const Rows rows = must(store_->open<ComparedRow>(in(kPatience)));
        const Counters counters = must(store_->open<ComparedCounter>(in(kPatience)));
        std::deque<bidstore::Pending> under_way;
        bidstore::Transaction transaction;
        const auto send = [&] {
            if (under_way.size() >= kLoadsInFlight) {
                must(under_way.front().wait(in(kPatience)));
                under_way.pop_front();
            }
            under_way.push_back(must(store_->submit(transaction, in(kPatience))));
            transaction.clear();
        };
        ComparedRow row;
        for (std::uint64_t i = 0; i < shape.rows; ++i) {
            row.entity = shape.entity(i);
            row.time = shape.time(i);
            fill_value(row.value.data.data(), i);
            transaction.put(rows, row);
            if (transaction.operation_count() == kRowsPerLoadTransaction) send();
        }
        for (std::uint64_t i = 0; i < kCounters; ++i) {
            transaction.put(counters, {.number = i, .count = 0});
            if (transaction.operation_count() == kRowsPerLoadTransaction) send();
        }
        if (!transaction.empty()) send();
        for (auto& pending : under_way) must(pending.wait(in(kPatience)));
    }

    // Its checkpoint: what came in is in its place in the data file, as it is in the others'
    // tables.
    void settle() override {
        const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
        const auto counter = [](const bidstore::Stats& stats, bidstore::Counter which) {
            return stats.counter[static_cast<std::size_t>(which)];
        };
        for (;;) {
            const bidstore::Stats stats = must(store_->stats(in(kPatience)));
            const std::uint64_t changed = counter(stats, bidstore::Counter::kChangedPages);
            const std::uint64_t step = counter(stats, bidstore::Counter::kCheckpointStep);
            if (changed == 0 && step == 0) return;
            if (std::chrono::steady_clock::now() > end) fail("no checkpoint comes to its end");
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
    }

  private:
    std::string socket_;
    pid_t daemon_ = 0;
    std::optional<Store> store_;
};

}  // namespace

std::unique_ptr<Engine> make_bidstore(const EngineOptions& options) {
    return std::make_unique<Bidstore>(options);
}

}  // namespace bench
