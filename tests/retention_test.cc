// Retention on the simulated disk: expired rows are never seen, live ones never lost, whatever the
// key; their pages go without being read, and the file stays at its steady size.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tests/retention_fixture.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

TEST_F(RetentionTest, ExpiredRowIsNotThereForAnyOperation) {
    start();
    const TableId table = make(by_user());
    const std::uint64_t old = now_us() - kRetainUs + 10 * kSecondUs;
    ASSERT_EQ(one(OperationKind::kPut, table, user_key(1), user_row(old, 5)), Error::kOk);
    ASSERT_EQ(one(OperationKind::kPut, table, user_key(2), user_row(now_us(), 6)), Error::kOk);
    EXPECT_EQ(one(OperationKind::kCheckPresent, table, user_key(1)), Error::kOk);
    pass(8);
    EXPECT_EQ(store->rows(table).size(), 2u) << "not before its time";
    pass(4);
    EXPECT_EQ(store->rows(table).size(), 1u);
    EXPECT_TRUE(store->rows(table).contains(user_key(2)));
    EXPECT_EQ(one(OperationKind::kCheckPresent, table, user_key(1)), Error::kPrecondition);
    EXPECT_EQ(one(OperationKind::kCheckAbsent, table, user_key(1)), Error::kOk);
    EXPECT_EQ(one(OperationKind::kDelete, table, user_key(1)), Error::kNotFound);
    AddBody body{};
    body.column = 2;
    body.delta = 1;
    TransactionBytes add;
    add.add(table, user_key(1), body);
    EXPECT_EQ(store->commit(*client, add).error, Error::kNotFound);
    TransactionBytes range;
    range.operation(OperationKind::kDeleteRange, table, user_key(0), user_key(9), kWantResult);
    const Answer deleted = store->commit(*client, range);
    ASSERT_EQ(deleted.error, Error::kOk);
    EXPECT_EQ(deleted.result[0], 1) << "the dead row is not counted";
    EXPECT_EQ(store->verify(), "");
}

TEST_F(RetentionTest, ExpiredRowMayBeMadeAgain) {
    start();
    const TableId table = make(by_user());
    ASSERT_EQ(one(OperationKind::kPut, table, user_key(1), user_row(now_us(), 5)), Error::kOk);
    ASSERT_EQ(one(OperationKind::kPut, table, user_key(2), user_row(now_us() + kRetainUs, 5)),
              Error::kOk);
    EXPECT_EQ(one(OperationKind::kInsert, table, user_key(1), user_row(now_us(), 6)),
              Error::kExists);
    pass(70);
    const Bytes again = user_row(now_us(), 7);
    EXPECT_EQ(one(OperationKind::kInsert, table, user_key(1), again), Error::kOk);
    EXPECT_EQ(store->rows(table).at(user_key(1)), again);
    // A row that is older than the retention when it is written is gone at once.
    EXPECT_EQ(one(OperationKind::kPut, table, user_key(1), user_row(5, 8)), Error::kOk);
    EXPECT_EQ(store->rows(table).size(), 1u);
    EXPECT_EQ(one(OperationKind::kCheckAbsent, table, user_key(1)), Error::kOk);
}

TEST_F(RetentionTest, FloorNeverFallsWhateverTheClockDoes) {
    start();
    const TableId table = make(by_user());
    ASSERT_EQ(one(OperationKind::kPut, table, user_key(1), user_row(now_us(), 5)), Error::kOk);
    ASSERT_EQ(one(OperationKind::kPut, table, user_key(2), user_row(~0ull, 5)), Error::kOk);
    pass(70);
    const std::uint64_t floor = tree(table).floor();
    ASSERT_EQ(store->rows(table).size(), 1u);
    store->clock.set_wall_us(now_us() - 1000 * kSecondUs);
    pass(5);
    EXPECT_EQ(tree(table).floor(), floor);
    ASSERT_EQ(set_retention(table, 1000 * kRetainUs), Error::kOk);
    pass(5);
    EXPECT_EQ(tree(table).floor(), floor) << "a longer retention brings nothing back";
    ASSERT_EQ(set_retention(table, 0), Error::kOk);
    store->clock.set_wall_us(now_us() + 5000 * kSecondUs);
    pass(5);
    EXPECT_EQ(tree(table).floor(), floor) << "retention is off";
    // Replay takes floors from the log, not from a clock.
    store->clock.set_wall_us(1);
    open(store->disk->power_loss(3), 9);
    EXPECT_EQ(store->rows(table).size(), 1u);
    EXPECT_EQ(tree(table).floor(), floor);
}

TEST_F(RetentionTest, NeedsATimeColumnAndAPossibleTime) {
    start();
    auto timeless = Schema::make("t", {{"id", ColumnType::kU32, 0}}, 1);
    ASSERT_TRUE(timeless.ok());
    const TableId table = store->create_table(*client, *timeless);
    EXPECT_EQ(set_retention(table, 5), Error::kInvalid);
    EXPECT_EQ(set_retention(table, 0), Error::kOk);
    const TableId timed = make(by_user(), 0);
    EXPECT_EQ(set_retention(timed, ~0ull), Error::kInvalid);
    EXPECT_EQ(set_retention(timed, kRetainUs), Error::kOk);
    ASSERT_TRUE(store->stop());
    open(store->disk->clone(2), 2);
    EXPECT_EQ(store->engine->core().storage().catalog->find(timed)->retain_us, kRetainUs);
}

// Data written and dropped 40 times over: the file is as large as after the first.
TEST_F(RetentionTest, FileStaysAtItsSteadySizeForKeysThatBeginWithTheTime) {
    start(retention_store(600));
    const TableId table = make(by_time());
    std::uint32_t steady = 0;
    for (std::uint32_t second = 0; second < 40 * 64; ++second) {
        put_now(table, 50);
        store->clock.advance_ns(1'000'000'000);
        store->run_until([] { return false; }, 4);
        if (second == 3 * 64) steady = store->engine->core().storage().space.chunk_count();
    }
    const std::uint64_t rows = store->rows(table).size();
    EXPECT_GE(rows, 50u * 63);
    EXPECT_LE(rows, 50u * 66);
    EXPECT_LE(store->engine->core().storage().space.chunk_count(), steady);
    EXPECT_GT(counter(Counter::kPagesExpired), 39u * 50 * 64 / 20);
    EXPECT_EQ(store->verify(), "");
    ASSERT_TRUE(store->stop());
    open(store->disk->clone(2), 2);
    EXPECT_EQ(store->verify(), "");
}

// A small table, so that a thousand times its steady size is little: had a page of two hundred been
// lost on the way, the file would not be what it was.
TEST_F(RetentionTest, ThousandTimesItsSizeWrittenAndDroppedLeaveTheFileAsItWas) {
    start(retention_store(600));
    constexpr std::uint64_t kShortUs = 4 * kSecondUs;
    const TableId table = make(by_time(), kShortUs);
    std::uint32_t steady_chunks = 0;
    std::uint64_t steady_rows = 0;
    std::uint64_t written = 0;
    for (std::uint32_t second = 0; written < 1'000 * std::max<std::uint64_t>(steady_rows, 1);
         ++second) {
        put_now(table, 20);
        written += 20;
        store->clock.advance_ns(1'000'000'000);
        store->run_until([] { return false; }, 6);
        if (second != 40) continue;
        steady_chunks = store->engine->core().storage().space.chunk_count();
        steady_rows = store->rows(table).size();
    }
    const Space& space = store->engine->core().storage().space;
    EXPECT_GE(steady_rows, 60u);
    EXPECT_GE(written, 60'000u);
    EXPECT_LE(store->rows(table).size(), steady_rows + 40);
    EXPECT_EQ(space.chunk_count(), steady_chunks);
    EXPECT_GT(counter(Counter::kPagesExpired), 2'500u) << "several times what the file holds";
    EXPECT_EQ(store->verify(), "");
    pass(20);
    EXPECT_TRUE(tree(table).empty());
    EXPECT_GT(space.available() + space.quarantined(), 500u * steady_chunks);
    EXPECT_EQ(store->verify(), "");
}

// Three chunks of live data at any time: a drop in some thousands that loses its page shows.
TEST_F(RetentionTest, ThousandTimesSeveralChunksWrittenAndDroppedLeaveTheFileAsItWas) {
    const char* set = std::getenv("BIDSTORE_RETENTION_TURNS");
    const std::uint64_t turns = set != nullptr ? std::strtoull(set, nullptr, 10) : 1'000;
    start(retention_store(4096));
    auto wide = Schema::make("wide",
                             {{"at", ColumnType::kTimestamp, 0},
                              {"n", ColumnType::kU32, 0},
                              {"pad", ColumnType::kFixed, 1'900}},  // two in a leaf
                             2, 0);
    ASSERT_TRUE(wide.ok());
    const TableId table = make(*wide, 4 * kSecondUs);
    const Space& space = store->engine->core().storage().space;
    const Bytes value(1'900, std::byte{7});
    constexpr std::uint64_t kInSecond = 1'200;
    std::uint32_t steady_chunks = 0;
    std::uint64_t live = 0;
    std::uint64_t written = 0;
    for (std::uint64_t second = 0; live == 0 || written < turns * live; ++second) {
        for (std::uint64_t i = 0; i < kInSecond; i += 100) {
            TransactionBytes bytes;
            for (std::uint64_t n = i; n < i + 100; ++n) {
                bytes.operation(OperationKind::kPut, table, time_key(now_us(), n), value);
            }
            ASSERT_EQ(store->commit(*client, bytes).error, Error::kOk);
        }
        written += kInSecond;
        for (int i = 0; i < 20; ++i) {
            store->clock.advance_ns(50'000'000);
            store->run_until([] { return false; }, 2);
        }
        if (second != 40) continue;
        steady_chunks = space.chunk_count();
        live = store->rows(table).size();
    }
    EXPECT_GE(live / 2, 3u * kChunkPages);
    EXPECT_LE(store->rows(table).size(), live + kInSecond);
    EXPECT_EQ(space.chunk_count(), steady_chunks);
    EXPECT_GT(counter(Counter::kPagesExpired), (turns - 2) * live / 2);
    EXPECT_EQ(store->verify(), "");
    pass(20);
    EXPECT_TRUE(tree(table).empty());
    EXPECT_GT(space.available() + space.quarantined(), 500u * steady_chunks);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(RetentionTest, TablesWithNothingToDropWriteNothing) {
    start();
    make(by_time());
    const TableId alive = make(by_user());
    ASSERT_EQ(one(OperationKind::kPut, alive, user_key(1), user_row(~0ull, 5)), Error::kOk);
    pass(5);
    const std::uint64_t writes = counter(Counter::kLogWrites);
    const std::uint64_t checkpoints = counter(Counter::kCheckpoints);
    pass(100);
    EXPECT_EQ(counter(Counter::kLogWrites), writes);
    EXPECT_EQ(counter(Counter::kCheckpoints), checkpoints);
    EXPECT_EQ(counter(Counter::kFloorsMoved), 0u);
}

TEST_F(RetentionTest, FileStaysAtItsSteadySizeForKeysThatDoNot) {
    start(retention_store(800));
    const TableId table = make(by_user());
    std::mt19937_64 random(1);
    std::uint32_t steady = 0;
    const std::string text(300, 'x');
    for (std::uint32_t second = 0; second < 12 * 64; ++second) {
        // New users all the time, in no order, and old ones now and then.
        for (std::uint32_t i = 0; i < 4; ++i) {
            TransactionBytes bytes;
            for (std::uint32_t j = 0; j < 8; ++j) {
                bytes.operation(OperationKind::kPut, table,
                                user_key(static_cast<std::uint32_t>(random())),
                                user_row(now_us(), 1, text));
            }
            ASSERT_EQ(store->commit(*client, bytes).error, Error::kOk);
        }
        store->clock.advance_ns(1'000'000'000);
        store->run_until([] { return false; }, 6);
        if (second == 4 * 64) steady = store->engine->core().storage().space.chunk_count();
    }
    const std::uint64_t rows = store->rows(table).size();
    EXPECT_GE(rows, 32u * 63);
    EXPECT_LE(rows, 32u * 66);
    EXPECT_LE(store->engine->core().storage().space.chunk_count(), steady + 1);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(RetentionTest, ExpiredPagesAreDroppedWithoutBeingRead) {
    start(retention_store(700));
    const TableId table = make(by_time());
    for (std::uint32_t second = 0; second < 20; ++second) {
        put_now(table, 1500);
        pass(1);
    }
    store->run_until([] { return false; }, 200);
    const std::uint64_t reads = counter(Counter::kPageReads);
    const std::uint64_t expired = counter(Counter::kPagesExpired);
    pass(80);
    EXPECT_EQ(store->rows(table).size(), 0u);
    EXPECT_GT(counter(Counter::kPagesExpired) - expired, 1500u);
    EXPECT_LT(counter(Counter::kPageReads) - reads, 60u) << "inner nodes and the root alone";
    EXPECT_TRUE(tree(table).empty());
    EXPECT_EQ(store->verify(), "");
}

// In a chunk with leaves that are more than 194 days newer its metadata do not tell how old a leaf
// is.
TEST_F(RetentionTest, LeavesMuchOlderThanTheNewestOfTheirChunkAreReadAndDropped) {
    constexpr std::uint64_t kDayUs = 86'400 * kSecondUs;
    start();
    const TableId table = make(by_user(), 300 * kDayUs);
    const std::uint64_t old = now_us() - 290 * kDayUs;
    const std::string text(300, 'x');
    const std::uint64_t each = 200;
    for (std::uint64_t user = 0; user < 2 * each; ++user) {
        const std::uint64_t at = user < each ? old : now_us();
        ASSERT_EQ(one(OperationKind::kPut, table, user_key(user), user_row(at, 1, text)),
                  Error::kOk);
    }
    ASSERT_TRUE(store->stop());
    open(store->disk->power_loss(7), 1);  // what is newest in a leaf is what the file says
    pass(2);
    store->clock.set_wall_us(now_us() + 20 * kDayUs);
    for (int hour = 0; hour < 40; ++hour) {
        store->clock.advance_ns(3'600'000'000'000);
        store->run_until([] { return false; }, 40);
    }
    const std::uint64_t expired = counter(Counter::kPagesExpired);
    EXPECT_GE(expired, each * 300 / kPageBytes / 2);
    EXPECT_GE(counter(Counter::kPageReads) + 2, expired)
        << "each was asked but for those that were in the pool";
    EXPECT_EQ(store->rows(table).size(), each);
    EXPECT_EQ(store->verify(), "");
}

// One of a node was read in each walk, and gone from the pool by the next: then it was read again,
// and those behind it never.
TEST_F(RetentionTest, LeavesThatAreReadForTheirAgeAreDroppedAlsoWhenTheyDoNotStayInThePool) {
    constexpr std::uint64_t kDayUs = 86'400 * kSecondUs;
    SimStoreOptions options = retention_store(120);
    options.pages = 8 * kChunkPages;
    start(options);
    const TableId table = make(by_user(), 300 * kDayUs);
    const TableId other = store->create_table(*client, by_time());
    const std::string text(300, 'x');
    constexpr std::uint64_t kEach = 600;
    for (std::uint64_t user = 0; user < 2 * kEach; ++user) {
        const std::uint64_t at = user < kEach ? now_us() - 290 * kDayUs : now_us();
        ASSERT_EQ(one(OperationKind::kPut, table, user_key(user), user_row(at, 1, text)),
                  Error::kOk);
    }
    put_now(other, 2'500);
    ASSERT_TRUE(store->stop());
    open(store->disk->power_loss(7), 1);
    store->clock.set_wall_us(now_us() + 20 * kDayUs);
    const auto rows_of = [&](TableId which) {
        store->engine->core().storage().recovering = true;  // makes room for what is read now
        const std::size_t count = store->rows(which).size();
        store->engine->core().storage().recovering = false;
        return count;
    };
    for (int hour = 0; hour < 8; ++hour) {
        ASSERT_EQ(rows_of(other), 2'500u);
        store->clock.advance_ns(3'600'000'000'000);
        store->run_until([] { return false; }, 40);
    }
    EXPECT_GE(counter(Counter::kPagesExpired), kEach * 300 / kPageBytes / 2);
    EXPECT_EQ(rows_of(table), kEach);
}

// However much expires at once: 64 leaves a millisecond, so that commits go on.
TEST_F(RetentionTest, LeavesGoAtABoundedRate) {
    start();
    const TableId table = make(by_time());
    put_now(table, 12'000);
    const std::uint64_t leaves = 12'000 * 212 / kPageBytes;
    pass(50);
    const std::uint64_t before = counter(Counter::kPagesExpired);
    ASSERT_EQ(before, 0u);
    store->clock.advance_ns((kRetainUs - 49 * kSecondUs) * 1'000);
    std::uint64_t seen = 0;
    const std::uint64_t began_ns = store->clock.monotonic_ns();
    while (seen < leaves && store->clock.monotonic_ns() - began_ns < 10'000'000'000) {
        const std::uint64_t from_ns = store->clock.monotonic_ns();
        store->run_until([] { return false; }, 1);
        const std::uint64_t now = counter(Counter::kPagesExpired);
        const std::uint64_t steps = (store->clock.monotonic_ns() - from_ns) / 1'000'000 + 1;
        ASSERT_LE(now - seen, 64 * steps);
        seen = now;
        const std::uint64_t all_steps = (store->clock.monotonic_ns() - began_ns) / 1'000'000 + 1;
        ASSERT_LE(seen, 64 * all_steps);
    }
    EXPECT_GE(seen, leaves);
}

// A snapshot from before goes on reading what was dropped, from the pool and from the file, until
// its lease ends; pages are not used again before that.
TEST_F(RetentionTest, SnapshotReadsItsRowsAfterTheyWereDropped) {
    SimStoreOptions options = retention_store(700);
    options.engine.max_snapshot_age_ns = 3'000'000'000'000;
    start(options);
    const TableId table = make(by_time());
    put_now(table, 20'000);  // more than the pool holds
    store->run_until([] { return false; }, 200);
    auto descriptor = store->pool->open_read_only();
    ASSERT_TRUE(descriptor.ok());
    auto view = PoolView::map(std::move(*descriptor));
    ASSERT_TRUE(view.ok());
    SimClient& reader = store->connect(Rights::kReader);
    const TreeShape shape(by_time(), table);
    const PageId root = tree(table).root();
    {
        SimSnapshot snapshot(*store, *view, reader, 0);
        pass(80);
        ASSERT_EQ(store->rows(table).size(), 0u);
        snapshot.rest();  // what the writes need may be evicted without waiting for it
        put_now(table, 200);
        snapshot.resume();
        for (std::uint32_t i = 0; i < 40; ++i) {  // from all over: some were evicted
            const auto seen = snapshot.get(shape, root, keys_[500 * i]);
            ASSERT_TRUE(seen.has_value()) << snapshot.trouble();
            EXPECT_TRUE(seen->has_value());
        }
        EXPECT_GT(snapshot.misses(), 4u);
        // One from after the drop, on the other hand, does not find them.
        EXPECT_EQ(one(OperationKind::kCheckPresent, table, keys_[0]), Error::kPrecondition);
    }
    pass(6);
    EXPECT_EQ(store->rows(table).size(), 200u);
    EXPECT_LT(store->engine->core().storage().space.quarantined(), 100u);
    EXPECT_EQ(store->verify(), "");
}

// A leaf that changed after the last checkpoint and was dropped before the next one is in the file
// as it was before the change, if at all: for the snapshots that see it, it stays in the pool.
TEST_F(RetentionTest, SnapshotReadsWhatChangedBetweenTheLastCheckpointAndTheDrop) {
    SimStoreOptions options = retention_store(400);
    options.engine.max_snapshot_age_ns = 3'000'000'000'000;
    options.engine.checkpoint_interval_ns = 100'000'000'000;
    start(options);
    const TableId table = make(by_user(), 20 * kSecondUs);
    const TableId other = make(by_time(), 0);
    const std::uint64_t at = now_us() + 110 * kSecondUs;
    const auto put = [&](std::uint64_t user, std::int64_t count) {
        const Bytes row = user_row(at, count, std::string(300, 'x'));
        ASSERT_EQ(one(OperationKind::kPut, table, user_key(user), row), Error::kOk);
    };
    for (std::uint64_t user = 0; user < 200; user += 2) put(user, 1);
    pass(105);
    Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    const Csn before = checkpointer.covered();
    ASSERT_EQ(store->rows(table).size(), 100u);
    for (std::uint64_t user = 0; user < 200; ++user) put(user, 2);
    auto descriptor = store->pool->open_read_only();
    ASSERT_TRUE(descriptor.ok());
    auto view = PoolView::map(std::move(*descriptor));
    ASSERT_TRUE(view.ok());
    SimClient& reader = store->connect(Rights::kReader);
    const PageId root = tree(table).root();
    SimSnapshot snapshot(*store, *view, reader, 0);
    pass(40);
    ASSERT_EQ(store->rows(table).size(), 0u);
    ASSERT_TRUE(tree(table).empty());
    ASSERT_EQ(checkpointer.covered(), before) << "no checkpoint between change and drop";
    pass(80);
    ASSERT_GT(checkpointer.covered(), before);
    snapshot.rest();
    put_now(other, 12'000);  // what can be evicted is
    snapshot.resume();
    for (std::uint64_t user = 0; user < 200; ++user) {
        const auto seen = snapshot.get(TreeShape(by_user(), table), root, user_key(user));
        ASSERT_TRUE(seen.has_value()) << snapshot.trouble();
        ASSERT_TRUE(seen->has_value()) << "user " << user;
        EXPECT_EQ(**seen, user_row(at, 2, std::string(300, 'x')));
    }
}

// They were served again until a floor found its way into the log.
TEST_F(RetentionTest, RowsThatExpiredWhileTheStoreWasDownAreNotThereAtItsStart) {
    start();
    const TableId times = make(by_time());
    const TableId users = make(by_user());
    put_now(times, 50);
    ASSERT_EQ(one(OperationKind::kPut, users, user_key(1), user_row(now_us(), 1)), Error::kOk);
    auto disk = store->disk->power_loss(3);
    const std::uint64_t wall_us = now_us() + 2 * kRetainUs;
    SimStore again(options_, std::move(disk), 3);
    again.clock.set_wall_us(wall_us);
    const Status opened = again.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    Pool& pool = again.engine->core().storage().pool;
    for (const TableId table : {times, users}) {
        const PageId root = again.engine->core().storage().catalog->find(table)->tree.root();
        const std::byte* seen = pool.version_at(root, Csn{pool.visible()});
        ASSERT_NE(seen, nullptr);
        EXPECT_GE(page_header(seen).floor, wall_us - kRetainUs);
    }
    EXPECT_EQ(again.verify(), "");
}

// While a snapshot keeps what was dropped, the list of it grows no longer than it may.
TEST_F(RetentionTest, LeavesWaitWhileVeryManyFreedPagesAreKept) {
    constexpr std::uint64_t kStep = 64 + 8;  // of leaves, with the nodes above
    SimStoreOptions options = retention_store(700);
    options.engine.max_snapshot_age_ns = 3'000'000'000'000;
    options.engine.quarantine_pages_max = 200;
    start(options);
    const TableId table = make(by_time());
    put_now(table, 12'000);
    auto descriptor = store->pool->open_read_only();
    ASSERT_TRUE(descriptor.ok());
    auto view = PoolView::map(std::move(*descriptor));
    ASSERT_TRUE(view.ok());
    SimClient& reader = store->connect(Rights::kReader);
    const Space& space = store->engine->core().storage().space;
    {
        SimSnapshot snapshot(*store, *view, reader, 0);
        pass(80);
        EXPECT_GE(space.quarantined(), options.engine.quarantine_pages_max);
        EXPECT_LE(space.quarantined(), options.engine.quarantine_pages_max + kStep);
        EXPECT_FALSE(tree(table).empty());
    }
    pass(20);
    EXPECT_TRUE(tree(table).empty());
    EXPECT_EQ(store->verify(), "");
}

}  // namespace
}  // namespace bidstore
