// The whole path: the client library against a real daemon on a real disk.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <thread>

#include "tests/real_store.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// The same columns in a second table, for what spans tables.
struct Mirror {
    std::uint64_t id = 0;
    std::int64_t amount = 0;
    std::uint64_t round = 0;
};

// As Event, but for one column's type.
struct OtherEvent {
    std::uint64_t time = 0;
    std::uint32_t source = 0;
    std::uint64_t kind = 0;
    std::string_view text;
};

}  // namespace

template <>
struct Describe<Mirror> {
    static constexpr auto table = bidstore::table<Mirror>(
        "mirror", keys(column<&Mirror::id>("id")),
        values(column<&Mirror::amount>("amount"), column<&Mirror::round>("round")));
};

template <>
struct Describe<OtherEvent> {
    static constexpr auto table = bidstore::table<OtherEvent>(
        "events",
        keys(column<&OtherEvent::time>("time", timestamp), column<&OtherEvent::source>("source")),
        values(column<&OtherEvent::kind>("kind"), column<&OtherEvent::text>("text")),
        time_column("time"));
};

namespace {

std::string event_text(std::uint64_t time, std::size_t length_bytes) {
    std::string text = "event " + std::to_string(time) + " ";
    while (text.size() < length_bytes) text += static_cast<char>('a' + (time + text.size()) % 26);
    return text;
}

// A daemon, a store as admin, and both tables.
class EndToEnd : public testing::Test {
  protected:
    void begin(std::vector<std::string> settings = {}) {
        for (std::string& setting : settings) daemon_.set(setting);
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        reader_.emplace(need(store_->reader()));
    }
    Result<Committed> commit(const Transaction& transaction) {
        return store_->commit(transaction, soon());
    }

    RealDaemon daemon_;
    std::optional<Store> store_;
    std::optional<Reader> reader_;
};

// ---- operations ---------------------------------------------------------------------------------

TEST_F(EndToEnd, ExpiredRowsAreGoneForEveryReadAndWrite) {
    begin();
    const auto table = make_table<Event>(*store_);
    const auto now_us = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(
            std::chrono::system_clock::now().time_since_epoch())
            .count());
    const std::uint64_t hour_us = 3'600'000'000;
    Transaction rows;
    for (std::uint32_t i = 0; i < 40; ++i) {
        rows.put(table, {.time = now_us - hour_us + i, .source = i, .kind = 1, .text = "old"});
        rows.put(table, {.time = now_us + hour_us + i, .source = i, .kind = 1, .text = "new"});
    }
    ASSERT_TRUE(is_ok(commit(rows)));
    const Key<Event> old = table.key(now_us - hour_us, 0u);
    const Key<Event> alive = table.key(now_us + hour_us, 0u);
    Snapshot before = need(reader_->snapshot(soon()));
    EXPECT_EQ(need(table.count(before)), 80u);
    EXPECT_EQ(store_->set_table("events", {~0ull, 0}, soon()).error(), Error::kInvalid);
    ASSERT_TRUE(is_ok(store_->set_table("events", {60'000'000, 0}, soon())));
    Reader other = need(store_->reader());
    EXPECT_TRUE(eventually([&] { return need(table.count(other, soon())) == 40; }));
    if (const auto again = table.count(before); again.ok()) {
        EXPECT_EQ(*again, 80u) << "a snapshot stays as it is";
    }
    before.end();

    const Snapshot after = need(reader_->snapshot(soon()));
    EXPECT_FALSE(need(table.get(after, now_us - hour_us, 0u)).has_value());
    EXPECT_TRUE(need(table.get(after, now_us + hour_us, 0u)).has_value());
    const std::vector<Key<Event>> keys{old, alive};
    const auto many = need(table.multi_get(after, keys));
    EXPECT_FALSE(many[0].has_value());
    EXPECT_TRUE(many[1].has_value());
    std::uint64_t seen = 0;
    for (const bool reverse : {false, true}) {
        auto cursor = table.scan(after, {}, {}, {.limit = 50, .reverse = reverse});
        while (cursor.next()) seen += cursor.row().get<&Event::time>() > now_us;
        EXPECT_TRUE(is_ok(cursor.status()));
    }
    EXPECT_EQ(seen, 80u);
    EXPECT_FALSE(table.newest(after, 1, now_us - hour_us).next());
    Transaction check;
    check.require_absent(table, old);
    check.require_present(table, alive);
    EXPECT_TRUE(is_ok(commit(check)));
    EXPECT_EQ(need(store_->open_raw("events", soon())).retain_us(), 60'000'000u);
}

TEST_F(EndToEnd, RowsArePutInsertedUpdatedAddedToAndErased) {
    begin({"max_snapshot_age=60s"});  // a commit may take longer than the 5 s that are usual
    const auto table = make_table<Counted>(*store_);
    Transaction first;
    first.insert(table, {.id = 7, .amount = -3, .round = 1});
    first.put(table, {.id = 8, .amount = 5, .round = 1});
    first.update(table, table.key(7u), set<&Counted::round>(9));
    first.add<&Counted::amount>(table, table.key(7u), 10, {.want_result = true});
    first.add<&Counted::amount>(table, table.key(9u), 2, {.create = true, .want_result = true});
    const Committed committed = need(commit(first));
    EXPECT_EQ(committed.results, (std::vector<std::int64_t>{7, 2}));

    const Snapshot snapshot = need(reader_->snapshot(soon()));
    EXPECT_GE(snapshot.csn(), committed.csn);  // what was acknowledged is seen
    const auto seven = need(table.get(snapshot, 7u));
    ASSERT_TRUE(seven);
    EXPECT_EQ(seven->amount, 7);
    EXPECT_EQ(seven->round, 9u);
    EXPECT_FALSE(need(table.get(snapshot, 10u)));
    EXPECT_EQ(need(table.count(snapshot)), 3u);

    Transaction second;
    second.erase(table, table.key(7u));
    second.erase(table, table.key(100u), true);
    second.erase_range(table, table.prefix(8u), table.prefix(9u), true);
    EXPECT_EQ(need(commit(second)).results, (std::vector<std::int64_t>{1}));
    // The snapshot is what it was.
    EXPECT_EQ(need(table.count(snapshot)), 3u);
    EXPECT_EQ(need(table.get(snapshot, 8u))->amount, 5);
    EXPECT_TRUE(snapshot.valid());
    const auto left = all_rows(*store_, table);
    ASSERT_EQ(left.size(), 1u);
    EXPECT_EQ(left[0].id, 9u);
}

TEST_F(EndToEnd, RefusedTransactionsChangeNothing) {
    begin();
    const auto table = make_table<Counted>(*store_);
    Transaction base;
    base.put(table, {.id = 1, .amount = 10, .round = 4});
    need(commit(base));
    const auto refused = [&](Error expected, auto build) {
        Transaction transaction;
        transaction.put(table, {.id = 2});  // must not stay
        build(transaction);
        const auto result = commit(transaction);
        ASSERT_EQ(result.error(), expected);
        EXPECT_NE(result.failure().what.find("counted"), std::string::npos);
    };
    const auto key = table.key(1u);
    const auto none = table.key(3u);
    refused(Error::kExists, [&](Transaction& t) { t.insert(table, {.id = 1}); });
    refused(Error::kNotFound, [&](Transaction& t) { t.erase(table, none); });
    refused(Error::kNotFound, [&](Transaction& t) { t.add<&Counted::amount>(table, none, 1); });
    refused(Error::kNotFound,
            [&](Transaction& t) { t.update(table, none, set<&Counted::round>(1)); });
    refused(Error::kPrecondition, [&](Transaction& t) { t.require_absent(table, key); });
    refused(Error::kPrecondition, [&](Transaction& t) { t.require_present(table, none); });
    refused(Error::kPrecondition,
            [&](Transaction& t) { t.require_equals<&Counted::round>(table, key, 5); });
    refused(Error::kBelowFloor,
            [&](Transaction& t) { t.add<&Counted::amount>(table, key, -11, {.floor = 0}); });
    refused(Error::kAboveCeiling,
            [&](Transaction& t) { t.add<&Counted::amount>(table, key, 1, {.ceiling = 10}); });
    refused(Error::kOutOfRange, [&](Transaction& t) {
        t.add<&Counted::amount>(table, key, std::numeric_limits<std::int64_t>::max());
    });
    const auto rows = all_rows(*store_, table);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].amount, 10);

    Transaction holds;
    holds.require_present(table, key).require_absent(table, none);
    holds.require_equals<&Counted::round>(table, key, 4);
    holds.add<&Counted::amount>(table, key, -10, {.floor = 0});
    need(commit(holds));
    EXPECT_EQ(all_rows(*store_, table)[0].amount, 0);
}

TEST_F(EndToEnd, ScansGoBothWaysBetweenBoundsWithLimits) {
    begin();
    const auto table = make_table<Event>(*store_);
    constexpr std::uint64_t kTimes = 400;
    for (std::uint64_t time = 0; time < kTimes; time += 20) {
        Transaction transaction;
        for (std::uint64_t t = time; t < time + 20; ++t) {
            const std::string text = event_text(t, t % 300);
            transaction.put(table, {.time = t, .source = 1, .kind = 0, .text = text});
            transaction.put(table, {.time = t, .source = 2, .kind = 1, .text = text});
        }
        need(commit(transaction));
    }
    const Snapshot snapshot = need(reader_->snapshot(soon()));
    const auto times = [&](Cursor<Event> cursor) {
        std::vector<std::uint64_t> found;
        while (cursor.next()) {
            const auto row = need(cursor.copy());
            EXPECT_EQ(row.text, event_text(row.time, row.time % 300));
            found.push_back(row.time * 10 + row.source);
        }
        EXPECT_TRUE(is_ok(cursor.status()));
        return found;
    };
    using Found = std::vector<std::uint64_t>;
    const auto at = [&](std::uint64_t time) { return table.prefix(time); };
    EXPECT_EQ(times(table.scan(snapshot, at(100), at(102))), (Found{1001, 1002, 1011, 1012}));
    EXPECT_EQ(times(table.scan(snapshot, at(100), at(200), {.limit = 3, .reverse = true})),
              (Found{1992, 1991, 1982}));
    EXPECT_EQ(times(table.scan(snapshot, at(399), {})), (Found{3991, 3992}));
    EXPECT_EQ(times(table.scan(snapshot, {}, {}, {.limit = 2})), (Found{1, 2}));
    EXPECT_EQ(times(table.scan(snapshot)).size(), 2 * kTimes);
    EXPECT_EQ(times(table.scan(snapshot, {}, {}, {.reverse = true})).front(), 3992u);
    EXPECT_EQ(times(table.newest(snapshot, 3)), (Found{3992, 3991, 3982}));
    EXPECT_EQ(times(table.newest(snapshot, 5, std::uint64_t{7})), (Found{72, 71}));
    EXPECT_EQ(need(table.count(snapshot, at(10), at(20))), 20u);
    const std::vector<Key<Event>> keys = {table.key(std::uint64_t{5}, 1u),
                                          table.key(std::uint64_t{5}, 3u),
                                          table.key(std::uint64_t{399}, 2u)};
    const auto rows = need(table.multi_get(snapshot, keys));
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[0]->text, event_text(5, 5));
    EXPECT_FALSE(rows[1]);
    EXPECT_EQ(rows[2]->kind, 1u);
}

TEST_F(EndToEnd, SubmittedAndRelaxedWritesAllArrive) {
    begin();
    const auto table = make_table<Counted>(*store_);
    constexpr int kWrites = 1000;  // more than there are call slots
    std::vector<Pending> pending;
    Transaction add;
    add.add<&Counted::amount>(table, table.key(1u), 1, {.create = true});
    for (int i = 0; i < kWrites; ++i) {
        const auto durability = i % 2 == 0 ? Durability::kDurable : Durability::kRelaxed;
        pending.push_back(need(store_->submit(add, soon(), durability)));
    }
    for (Pending& write : pending) EXPECT_TRUE(is_ok(write.wait(soon())));
    for (Pending& write : pending) EXPECT_TRUE(write.done());
    // A durable write is behind all those before it.
    EXPECT_TRUE(is_ok(commit(add)));
    EXPECT_EQ(all_rows(*store_, table)[0].amount, kWrites + 1);
}

TEST_F(EndToEnd, TablesAreMadeOnceFoundAndDropped) {
    begin();
    make_table<Counted>(*store_);
    make_table<Event>(*store_);
    EXPECT_EQ(store_->create_table<Event>(soon()).error(), Error::kTableExists);
    EXPECT_EQ(need(store_->tables(soon())).size(), 2u);
    const auto other = store_->open<OtherEvent>(soon());
    ASSERT_EQ(other.error(), Error::kSchemaMismatch);
    EXPECT_NE(other.failure().what.find("kind"), std::string::npos) << other.failure().what;
    EXPECT_EQ(store_->open<Mirror>(soon()).error(), Error::kNoSuchTable);
    need(store_->drop_table("events", soon()));
    EXPECT_EQ(store_->open<Event>(soon()).error(), Error::kNoSuchTable);
    // The name is free again, for another table.
    make_table<OtherEvent>(*store_);
}

// The leaves of a dropped table go in many batches, and its root with the last: a reader that knew
// the root found the rows whose leaves were still there, and no others, and called both true.
TEST_F(EndToEnd, ADroppedTableIsThereAsAWholeOrNotAtAll) {
    begin({"max_snapshot_age=60s"});
    const auto table = make_table<Event>(*store_);
    constexpr std::uint64_t kRows = 3'000;  // a leaf each
    const std::string text = event_text(1, 3'000);
    for (std::uint64_t time = 0; time < kRows; time += 100) {
        Transaction rows;
        for (std::uint64_t t = time; t < time + 100; ++t) {
            rows.put(table, {.time = t, .source = 1, .kind = 0, .text = text});
        }
        need(commit(rows));
    }
    const std::vector<Key<Event>> keys = {table.key(std::uint64_t{0}, 1u), table.key(kRows / 2, 1u),
                                          table.key(kRows - 1, 1u)};
    // All of it, nothing of it, or a lease that ended.
    const auto look = [&](Reader& reader) {
        const Snapshot snapshot = need(reader.snapshot(soon()));
        const auto rows = table.multi_get(snapshot, keys);
        const auto first = table.get(snapshot, std::uint64_t{0}, 1u);
        const auto last = table.get(snapshot, kRows - 1, 1u);
        const auto count = table.count(snapshot);
        const std::array errors{rows.error(), first.error(), last.error(), count.error()};
        if (std::ranges::count(errors, Error::kSnapshotExpired) > 0) return Error::kSnapshotExpired;
        for (const Error error : errors) EXPECT_EQ(error, errors[0]);
        for (std::size_t i = 0; rows.ok() && i < keys.size(); ++i) EXPECT_TRUE((*rows)[i]) << i;
        EXPECT_EQ(first.ok() && *first, errors[0] == Error::kOk);
        EXPECT_EQ(last.ok() && *last, errors[0] == Error::kOk);
        EXPECT_EQ(count.ok() ? *count : kRows, kRows);
        return errors[0];
    };
    EXPECT_TRUE(eventually([&] { return look(*reader_) == Error::kOk; }));
    Reader old = need(store_->reader());
    const Snapshot before = need(old.snapshot(soon()));
    std::thread watcher([&] {
        for (int gone = 0; gone < 50 && !HasFailure();) {
            gone += look(*reader_) == Error::kNoSuchTable;
        }
    });
    EXPECT_TRUE(is_ok(store_->drop_table("events", soon())));
    Reader after = need(store_->reader());
    EXPECT_TRUE(eventually([&] { return look(after) != Error::kSnapshotExpired; }));
    EXPECT_EQ(look(after), Error::kNoSuchTable);
    watcher.join();
    const auto count = table.count(before);
    EXPECT_EQ(count.ok() ? *count : kRows, kRows);
}

// ---- snapshots ----------------------------------------------------------------------------------

constexpr std::uint64_t kPairs = 150;
constexpr std::int64_t kEach = 1000;

// What a reader looks at again and again: nothing is ever half there, or older than before.
class PairReader {
  public:
    explicit PairReader(const RealDaemon& daemon)
        : store_(attach(daemon, Rights::kReader)),
          reader_(need(store_.reader())),
          left_(need(store_.open<Counted>(soon()))),
          right_(need(store_.open<Mirror>(soon()))) {}

    // One snapshot, looked at from all sides; an empty text, or what is wrong with it.
    std::string look() {
        auto snapshot = reader_.snapshot(soon());
        if (!snapshot.ok()) return "snapshot: " + snapshot.failure().what;
        std::int64_t sum = 0;
        std::uint64_t round = 0;
        std::uint64_t rows = 0;
        const std::string scans = scan_both(*snapshot, sum, round, rows);
        const std::string single = one_pair(*snapshot);
        if (!snapshot->valid()) return "";  // nothing seen under it is to be believed
        if (!scans.empty() || !single.empty()) return scans + single;
        if (rows != 2 * kPairs) return std::to_string(rows) + " rows";
        if (sum != std::int64_t{kPairs} * 2 * kEach) return "sum " + std::to_string(sum);
        if (round < last_round_) return "went back to round " + std::to_string(round);
        if (snapshot->csn() < last_csn_) return "csn went back";
        last_round_ = round;
        last_csn_ = snapshot->csn();
        ++looks_;
        return "";
    }
    std::uint64_t looks() const { return looks_; }

  private:
    std::string scan_both(const Snapshot& snapshot, std::int64_t& sum, std::uint64_t& round,
                          std::uint64_t& rows) {
        const bool reverse = looks_ % 2 == 1;
        auto left = left_.scan(snapshot, {}, {}, {.reverse = reverse});
        while (left.next()) {
            sum += left.row().get<&Counted::amount>();
            round = std::max(round, left.row().get<&Counted::round>());
            ++rows;
        }
        auto right = right_.scan(snapshot, {}, {}, {.reverse = !reverse});
        while (right.next()) {
            sum += right.row().get<&Mirror::amount>();
            ++rows;
        }
        for (const Status& status : {left.status(), right.status()}) {
            if (!status.ok() && status.error() != Error::kSnapshotExpired) {
                return "scan: " + status.failure().what;
            }
        }
        return "";
    }

    // The two rows of a pair were last changed by the same transaction.
    std::string one_pair(const Snapshot& snapshot) {
        const std::uint64_t id = looks_ * 31 % kPairs;
        const auto left = left_.get(snapshot, id);
        const auto right = right_.get(snapshot, id);
        if (!left.ok() || !right.ok()) {
            const auto error = left.ok() ? right.error() : left.error();
            return error == Error::kSnapshotExpired ? "" : std::string(error_name(error));
        }
        if (!*left || !*right) return "a row is missing";
        if ((*left)->round != (*right)->round) return "half of a transaction";
        return "";
    }

    Store store_;
    Reader reader_;
    Table<Counted> left_;
    Table<Mirror> right_;
    std::uint64_t last_round_ = 0;
    Csn last_csn_{0};
    std::uint64_t looks_ = 0;
};

void fill_pairs(Store& store, const Table<Counted>& left, const Table<Mirror>& right) {
    for (std::uint64_t id = 0; id < kPairs; ++id) {
        Transaction fill;
        fill.put(left, {.id = id, .amount = kEach, .round = 0});
        fill.put(right, {.id = id, .amount = kEach, .round = 0});
        need(store.commit(fill, soon()));
    }
}

// Moves an amount from the left row of a pair to the right one of another, and stamps all four.
Transaction move_between(const Table<Counted>& left, const Table<Mirror>& right,
                         std::uint64_t round, std::mt19937_64& random) {
    const std::uint64_t from = random() % kPairs;
    const std::uint64_t to = random() % kPairs;
    const auto amount = static_cast<std::int64_t>(random() % 100);
    Transaction move;
    move.add<&Counted::amount>(left, left.key(from), -amount);
    move.add<&Mirror::amount>(right, right.key(to), amount);
    for (const std::uint64_t id : {from, to}) {
        move.update(left, left.key(id), set<&Counted::round>(round));
        move.update(right, right.key(id), set<&Mirror::round>(round));
    }
    return move;
}

TEST_F(EndToEnd, NoSnapshotSeesATransactionInHalvesOrGoesBackInTime) {
    begin();
    const auto left = make_table<Counted>(*store_);
    const auto right = make_table<Mirror>(*store_);
    fill_pairs(*store_, left, right);
    std::atomic<bool> over{false};
    std::atomic<std::uint64_t> looks{0};
    std::vector<std::thread> threads;
    std::vector<std::string> wrong(3);
    for (std::string& place : wrong) {
        threads.emplace_back([&] {
            PairReader reader(daemon_);
            while (!over && place.empty()) {
                const std::uint64_t before = reader.looks();
                place = reader.look();
                looks += reader.looks() - before;
            }
        });
    }
    std::mt19937_64 random(1);
    const auto began = Clock::now();
    std::uint64_t round = 0;
    bool failed = false;
    const auto enough = [&] {
        const auto time = Clock::now() - began;
        return time >= kPatience || (time >= 3s && round > 100 && looks > 30);
    };
    while (!failed && !enough()) {
        std::vector<Pending> pending;
        for (int i = 0; i < 8; ++i) {
            const Transaction move = move_between(left, right, ++round, random);
            pending.push_back(need(store_->submit(move, soon())));
        }
        for (Pending& write : pending) failed = failed || !is_ok(write.wait(soon()));
    }
    over = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_FALSE(failed);
    for (const std::string& text : wrong) EXPECT_EQ(text, "");
    EXPECT_GT(looks, 30u);
    EXPECT_GT(round, 100u);
}

// ---- more data than memory ----------------------------------------------------------------------

TEST_F(EndToEnd, DataLargerThanThePoolIsReadFromTheFileWhileItChanges) {
    begin({"pool_bytes=8MiB"});
    const auto table = make_table<Event>(*store_);
    constexpr std::uint64_t kRows = 12'000;  // about 16 MiB
    constexpr std::size_t kTextBytes = 1200;
    std::vector<Pending> pending;
    for (std::uint64_t time = 0; time < kRows; time += 4) {
        Transaction transaction;
        for (std::uint64_t t = time; t < time + 4; ++t) {
            const std::string text = event_text(t, kTextBytes);
            transaction.put(table, {.time = t, .source = 0, .kind = 1, .text = text});
        }
        pending.push_back(need(store_->submit(transaction, soon())));
    }
    for (Pending& write : pending) ASSERT_TRUE(is_ok(write.wait(soon())));

    std::atomic<bool> over{false};
    std::thread writer([&] {
        std::mt19937_64 random(2);
        while (!over) {
            Transaction change;
            const std::uint64_t time = random() % kRows;
            change.add<&Event::kind>(table, table.key(time, 0u), 1);
            EXPECT_TRUE(is_ok(store_->commit(change, soon())));
        }
    });
    std::mt19937_64 random(3);
    for (int i = 0; i < 300; ++i) {
        const std::uint64_t time = random() % kRows;
        const auto row = need(table.get(*reader_, soon(), time, 0u));
        EXPECT_TRUE(row && row->text == event_text(time, kTextBytes)) << time;
    }
    for (int i = 0; i < 20; ++i) {
        std::vector<Key<Event>> keys;
        for (int k = 0; k < 50; ++k) keys.push_back(table.key(random() % kRows, 0u));
        const auto rows = need(table.multi_get(*reader_, soon(), keys));
        for (const auto& row : rows)
            EXPECT_TRUE(row && row->text == event_text(row->time, kTextBytes));
    }
    over = true;
    writer.join();
    // In pieces: what a snapshot has read stays in the pool for as long as it is held.
    constexpr std::uint64_t kPiece = 1000;
    for (std::uint64_t from = 0; from < kRows; from += kPiece) {
        const auto rows = all_rows(*store_, table, from, from + kPiece);
        ASSERT_EQ(rows.size(), kPiece);
        for (std::uint64_t i = 0; i < kPiece; ++i) {
            EXPECT_EQ(rows[i].time, from + i);
            EXPECT_EQ(rows[i].text, event_text(from + i, kTextBytes));
        }
    }
    EXPECT_GT(counter(*store_, Counter::kEvictions), 0u);
    EXPECT_GT(counter(*store_, Counter::kPageReads), 1000u);
    EXPECT_EQ(counter(*store_, Counter::kCorruptPages), 0u);
}

// ---- a daemon that stops, and one that is stopped -----------------------------------------------

TEST_F(EndToEnd, CallsEndAtTheirDeadlineWhileTheDaemonStandsStill) {
    begin();
    const auto table = make_table<Counted>(*store_);
    Transaction add;
    add.add<&Counted::amount>(table, table.key(1u), 1, {.create = true});
    need(commit(add));
    daemon_.pause();
    const auto began = Clock::now();
    EXPECT_EQ(store_->commit(add, in(150ms)).error(), Error::kTimedOut);
    EXPECT_EQ(Store::attach({.socket = daemon_.socket()}, in(150ms)).error(), Error::kTimedOut);
    // What is in the pool is read without it.
    EXPECT_EQ(need(table.get(*reader_, in(150ms), 1u))->amount, 1);
    EXPECT_LT(Clock::now() - began, 5s);
    daemon_.resume();
    // The write that had no answer is applied, once.
    EXPECT_TRUE(is_ok(commit(add)));
    EXPECT_EQ(need(table.get(*reader_, soon(), 1u))->amount, 3);
}

TEST_F(EndToEnd, CallsEndAtTheirDeadlineWhileThereIsNoDaemon) {
    begin();
    const auto table = make_table<Counted>(*store_);
    Transaction add;
    add.add<&Counted::amount>(table, table.key(1u), 1, {.create = true});
    need(commit(add));
    daemon_.kill();
    const auto began = Clock::now();
    const Error write = store_->commit(add, in(150ms)).error();
    EXPECT_TRUE(write == Error::kTimedOut || write == Error::kDisconnected) << error_name(write);
    EXPECT_EQ(reader_->snapshot(in(150ms)).error(), Error::kDisconnected);
    EXPECT_EQ(Store::attach({.socket = daemon_.socket()}, in(150ms)).error(), Error::kDisconnected);
    EXPECT_LT(Clock::now() - began, 5s);
    const std::int64_t expected = write == Error::kTimedOut ? 3 : 2;
    ASSERT_TRUE(daemon_.start());
    EXPECT_TRUE(is_ok(commit(add)));
    EXPECT_EQ(need(table.get(*reader_, soon(), 1u))->amount, expected);
    EXPECT_EQ(store_->reconnects(), 1u);
}

TEST_F(EndToEnd, CleanStopLeavesNothingToReplay) {
    begin();
    const auto table = make_table<Counted>(*store_);
    for (std::uint64_t id = 0; id < 500; ++id) {
        Transaction transaction;
        transaction.put(table, {.id = id, .amount = 1, .round = 2});
        need(store_->submit(transaction, soon(), Durability::kRelaxed));
    }
    Transaction last;
    last.put(table, {.id = 500, .amount = 1, .round = 2});
    need(commit(last));
    EXPECT_EQ(daemon_.stop(), 0);
    EXPECT_TRUE(daemon_.logged("final checkpoint on disk")) << daemon_.log();
    ASSERT_TRUE(daemon_.start());
    EXPECT_TRUE(daemon_.logged(": 0 batches")) << daemon_.log();
    EXPECT_TRUE(daemon_.logged("(clean stop)")) << daemon_.log();
    EXPECT_EQ(all_rows(*store_, table).size(), 501u);
    EXPECT_EQ(counter(*store_, Counter::kRecoveryBatches), 0u);
}

TEST_F(EndToEnd, SecondDaemonOnTheSameFilesIsRefused) {
    begin();
    RealDaemon second(daemon_.directory(), {"socket=" + daemon_.directory() + "/second.sock"});
    EXPECT_EQ(second.start_and_fail(), 2);
    EXPECT_TRUE(second.logged("in use by another daemon")) << second.log();
    // On the first one's socket, with files of its own.
    WorkDirectory elsewhere;
    RealDaemon third(elsewhere.path(), {"socket=" + daemon_.socket()});
    EXPECT_EQ(third.start_and_fail(), 2);
    EXPECT_TRUE(third.logged("another daemon listens there")) << third.log();
    make_table<Counted>(*store_);  // the first one did not notice
}

}  // namespace
}  // namespace bidstore
