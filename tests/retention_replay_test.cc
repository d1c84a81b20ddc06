// Leaves that expired are dropped without a record. Replay, whose trees are those of the
// checkpoint, has them again, and drops them where the log erases a range.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "tests/planted_superblock.h"
#include "tests/retention_fixture.h"

namespace bidstore {
namespace {

class RetentionReplayTest : public RetentionTest {
  protected:
    // No checkpoint begins unless it is asked for. The table's rows live for 1,000 s.
    TableId start_with_a_short_journal() {
        SimStoreOptions options = retention_store();
        options.engine.journal_bytes = 256u << 10;
        options.engine.checkpoint_interval_ns = 3'600'000'000'000;
        start(options);
        const TableId table = make(by_time(), 1'000 * kSecondUs);
        put_now(table, 6'000);
        return table;
    }
    // What replay has places for was dropped, and the rest is once the disk answers.
    void expect_the_replayable_share(TableId table) {
        const Storage& storage = store->engine->core().storage();
        const std::uint64_t places = storage.checkpointer->journal_capacity() / 4;
        const std::uint64_t leaves_at_once = storage.checkpointer->journal_capacity() / 8;
        const std::uint64_t expired = counter(Counter::kPagesExpired);
        EXPECT_GT(expired, leaves_at_once);
        EXPECT_LE(expired, places * leaves_at_once);
        EXPECT_FALSE(tree(table).empty());
        store->disk->release();
        pass(20);
        EXPECT_TRUE(tree(table).empty());
        EXPECT_EQ(store->verify(), "");
    }
    PageId first_leaf(TableId table) {
        const TreeShape shape(by_time(), table);
        PageId page = tree(table).root();
        for (;;) {
            const std::byte* bytes = store->engine->core().storage().pool.newest(page);
            if (tree_level(bytes, table) == 0) return page;
            page = InnerView(bytes, shape.inner).child(0);
        }
    }
};

// Dropping leaves is not logged. The range that was erased behind it had few pages then, and in
// replay, whose tree is the checkpoint's, more than the pool holds.
TEST_F(RetentionReplayTest, RangeOfLeavesThatWereDroppedSinceTheCheckpointIsErasedInReplay) {
    constexpr std::uint64_t kLongUs = 1'000 * kSecondUs;
    SimStoreOptions options = retention_store(400);
    options.engine.checkpoint_interval_ns = 100'000'000'000;
    start(options);
    const TableId table = make(by_time(), kLongUs);
    put_now(table, 12'000);
    pass(220);
    const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    const Csn covered = checkpointer.covered();
    const std::uint64_t expired = counter(Counter::kPagesExpired);
    store->clock.set_wall_us(now_us() + kLongUs);
    put_now(table, 30);
    ASSERT_TRUE(store->run_until(
        [&] { return counter(Counter::kPagesExpired) - expired > options.frames; }));
    TransactionBytes range;
    range.operation(OperationKind::kDeleteRange, table, time_key(0, 0),
                    time_key(now_us() - kSecondUs, 0));
    ASSERT_EQ(store->commit(*client, range).error, Error::kOk);
    put_now(table, 20);
    ASSERT_EQ(checkpointer.covered(), covered) << "no checkpoint between drop and range";
    ASSERT_NO_FATAL_FAILURE(open(store->disk->power_loss(3), 9));
    EXPECT_EQ(store->rows(table).size(), 50u);
    EXPECT_LT(counter(Counter::kPageReads), 60u) << "dead leaves are not read";
    EXPECT_EQ(store->verify(), "");
}

// The same where dead leaves stand between others, for a key that does not begin with the time.
TEST_F(RetentionReplayTest, RangeOfDeadLeavesBetweenOthersIsErasedInReplay) {
    constexpr std::uint64_t kLongUs = 2'000 * kSecondUs;
    constexpr std::uint64_t kUsers = 14'000;
    SimStoreOptions options = retention_store(400);
    options.engine.checkpoint_interval_ns = 400'000'000'000;
    start(options);
    const TableId table = make(by_user(), kLongUs);
    const auto lives = [](std::uint64_t user) { return user / 40 % 25 == 0; };
    const std::string text(300, 'x');
    const std::uint64_t late = now_us() + 5 * kLongUs;
    for (std::uint64_t user = 0; user < kUsers;) {
        TransactionBytes bytes;
        for (const std::uint64_t end = user + 10; user < end; ++user) {
            bytes.operation(OperationKind::kPut, table, user_key(user),
                            user_row(lives(user) ? late : now_us(), 1, text));
        }
        ASSERT_EQ(store->commit(*client, bytes).error, Error::kOk);
    }
    pass(450);
    const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    const Csn before = checkpointer.covered();
    ASSERT_EQ(one(OperationKind::kPut, table, user_key(0), user_row(late, 1, text)), Error::kOk);
    for (int i = 0; i < 450 && checkpointer.covered() == before; ++i) pass(1);
    const Csn covered = checkpointer.covered();
    store->clock.set_wall_us(now_us() + kLongUs);
    pass(80);  // a walk over the table, and the pause before it
    ASSERT_GT(counter(Counter::kPagesExpired), options.frames);
    TransactionBytes range;
    range.operation(OperationKind::kDeleteRange, table, user_key(0), user_key(kUsers / 4 * 3));
    ASSERT_EQ(store->commit(*client, range).error, Error::kOk);
    ASSERT_EQ(checkpointer.covered(), covered) << "no checkpoint between drop and range";
    ASSERT_NO_FATAL_FAILURE(open(store->disk->power_loss(3), 9));
    std::size_t left = 0;
    for (std::uint64_t user = kUsers / 4 * 3; user < kUsers; ++user) left += lives(user);
    store->engine->core().storage().recovering = true;  // makes room for what is read now
    const auto rows = store->rows(table);
    store->engine->core().storage().recovering = false;
    EXPECT_EQ(rows.size(), left);
    EXPECT_TRUE(std::all_of(rows.begin(), rows.end(), [&](const auto& row) {
        return row.second == user_row(late, 1, text);
    }));
    EXPECT_EQ(store->verify(), "");
}

// Dead leaves for which the journal has no places stay, and go with the range, where the pool holds
// them: the start ended there.
TEST_F(RetentionReplayTest, AShortJournalLeavesDeadLeavesToTheRangeInReplay) {
    constexpr std::uint64_t kLongUs = 1'000 * kSecondUs;
    SimStoreOptions options = retention_store(400);
    options.engine.checkpoint_interval_ns = 100'000'000'000;
    start(options);
    const TableId table = make(by_time(), kLongUs);
    put_now(table, 12'000);
    pass(220);
    store->clock.set_wall_us(now_us() + kLongUs);
    put_now(table, 30);
    ASSERT_TRUE(store->run_until([&] { return counter(Counter::kPagesExpired) > options.frames; }));
    TransactionBytes range;
    range.operation(OperationKind::kDeleteRange, table, time_key(0, 0),
                    time_key(now_us() - kSecondUs, 0));
    ASSERT_EQ(store->commit(*client, range).error, Error::kOk);
    auto disk = store->disk->power_loss(3);
    options_.frames = 2'000;
    options_.engine.journal_bytes = 21 * kPageBytes;
    plant_journal_bytes(*disk, options_.engine.journal_bytes);
    ASSERT_NO_FATAL_FAILURE(open(std::move(disk), 9));
    EXPECT_EQ(store->engine->core().storage().checkpointer->journal_capacity(), 20u);
    EXPECT_GT(counter(Counter::kPageReads), options.frames) << "they are read";
    EXPECT_EQ(store->rows(table).size(), 30u);
    EXPECT_EQ(store->verify(), "");
}

// The metadata did not tell the age of a leaf, and it could not be read: that ended the start,
// though the range that was erased lies elsewhere.
TEST_F(RetentionReplayTest, ADamagedLeafBesideTheRangeDoesNotEndReplay) {
    constexpr std::uint64_t kDayUs = 86'400 * kSecondUs;
    SimStoreOptions options = retention_store();
    options.engine.checkpoint_interval_ns = 3'600'000'000'000;
    start(options);
    const TableId table = make(by_user(), 251 * kDayUs);
    const std::uint64_t old = now_us() - 250 * kDayUs;  // 194 days tell
    const std::string text(300, 'x');
    for (std::uint64_t user = 0; user < 2'000; ++user) {
        const std::uint64_t at = user < 1'000 ? old : now_us();
        ASSERT_EQ(one(OperationKind::kPut, table, user_key(user), user_row(at, 1, text)),
                  Error::kOk);
    }
    const TreeShape shape(by_user(), table);
    const PageId root = tree(table).root();
    const InnerView inner(store->engine->core().storage().pool.newest(root), shape.inner);
    ASSERT_GT(inner.count(), 100u);
    const std::uint64_t bad = inner.child(20).value * kPageBytes;
    ASSERT_TRUE(store->stop());

    auto disk = store->disk->clone(3);
    disk->bad_range(StoreFile::kData, bad, kPageBytes, EIO);
    store->clock.set_wall_us(now_us() + 2 * kDayUs);
    ASSERT_NO_FATAL_FAILURE(open(std::move(disk), 5));
    TransactionBytes range;
    range.operation(OperationKind::kDeleteRange, table, user_key(1'500), user_key(1'510));
    ASSERT_EQ(store->commit(*client, range).error, Error::kOk);
    disk = store->disk->power_loss(4);
    disk->bad_range(StoreFile::kData, bad, kPageBytes, EIO);
    ASSERT_NO_FATAL_FAILURE(open(std::move(disk), 6));
    EXPECT_GE(std::count_if(store->log_lines.begin(), store->log_lines.end(),
                            [&](const std::string& line) {
                                return line.find(std::to_string(bad)) != line.npos;
                            }),
              1)
        << "replay never looked at it";
    store->disk->clear_bad_ranges();
    store->clock.advance_ns(1'000'000'000);
    EXPECT_EQ(store->rows(table).size(), 990u);
    EXPECT_EQ(store->verify(), "");
}

// Two checkpoints' time of drops is a single batch in replay, and took more than a half of the
// journal: what had no place there had to fit the pool.
TEST_F(RetentionReplayTest, LeavesWaitForTheCheckpointThatReplayNeeds) {
    const TableId table = start_with_a_short_journal();
    store->disk->hold_back(StoreFile::kJournal);  // no checkpoint ends
    store->clock.set_wall_us(now_us() + 1'000 * kSecondUs);
    pass(20);
    expect_the_replayable_share(table);
}

// A checkpoint has what is published. The drops of a batch whose log record is on its way counted
// as its own, and were forgotten with its end.
TEST_F(RetentionReplayTest, ACheckpointDoesNotHaveTheLeavesOfABatchOnItsWay) {
    const TableId table = start_with_a_short_journal();
    const std::uint64_t checkpoints = counter(Counter::kCheckpoints);
    store->disk->hold_back(StoreFile::kLog);  // nothing is published
    store->clock.set_wall_us(now_us() + 1'000 * kSecondUs);
    pass(20);
    EXPECT_GT(counter(Counter::kCheckpoints), checkpoints);
    expect_the_replayable_share(table);
}

// The dead leaves of the first tables took all the places that there are, at each checkpoint again.
TEST_F(RetentionReplayTest, TablesTakeTurnsAtTheJournalsPlaces) {
    SimStoreOptions options = retention_store(4096);
    options.engine.journal_bytes = 256u << 10;  // for four steps in a checkpoint
    options.engine.checkpoint_interval_ns = 3'600'000'000'000;
    start(options);
    std::vector<TableId> tables;
    for (const char* name : {"a", "b", "c", "d", "e", "f", "g", "h"}) {
        tables.push_back(make(by_time(name), 1'000 * kSecondUs));
        put_now(tables.back(), 2'000);
    }
    std::vector<PageId> first;
    for (const TableId table : tables) first.push_back(first_leaf(table));
    store->clock.set_wall_us(now_us() + 1'000 * kSecondUs);
    const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    for (int i = 0; i < 4; ++i) {
        store->disk->hold_back(StoreFile::kJournal);  // a slow checkpoint
        pass(1);
        const Csn covered = checkpointer.covered();
        store->disk->release();
        ASSERT_TRUE(store->run_until([&] { return checkpointer.covered() > covered; }));
    }
    EXPECT_FALSE(tree(tables.front()).empty());
    for (std::size_t i = 0; i < tables.size(); ++i) {
        EXPECT_NE(first_leaf(tables[i]), first[i]) << "table " << i;
    }
}

// Leaves that were dropped are back in replay. A batch found all its rows a place in one leaf, and
// changes each of the old ones here: more than the journal had places for, at each start again.
TEST_F(RetentionReplayTest, ABatchOverLeavesThatWereDroppedMakesTheJournalLonger) {
    constexpr std::uint64_t kLongUs = 2'000 * kSecondUs;
    constexpr std::uint32_t kUsers = 6'000;
    constexpr std::uint32_t kStep = 12;  // about a row of each leaf
    for (const bool last : {true, false}) {
        SCOPED_TRACE(last ? "the last batch" : "with another behind it");
        SimStoreOptions options = retention_store();
        options.engine.journal_bytes = 1u << 20;
        options.engine.checkpoint_interval_ns = 400'000'000'000;
        store.reset();
        start(options);
        const TableId table = make(by_user(), kLongUs);
        const std::string text(300, 'x');
        for (std::uint32_t user = 0; user < kUsers; ++user) {
            ASSERT_EQ(one(OperationKind::kPut, table, user_key(user), user_row(now_us(), 1, text)),
                      Error::kOk);
        }
        pass(450);
        const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
        const std::uint64_t places = checkpointer.journal_capacity();
        store->disk->hold_back(StoreFile::kJournal);  // no checkpoint ends
        store->clock.set_wall_us(now_us() + kLongUs);
        pass(80);
        ASSERT_GT(counter(Counter::kPagesExpired), 3 * places / 2);
        std::uint32_t user = 0;
        for (const std::uint32_t rows : {90u, 250u}) {
            TransactionBytes again;
            for (const std::uint32_t end = user + rows * kStep; user < end; user += kStep) {
                again.operation(OperationKind::kPut, table, user_key(user), user_row(now_us(), 2));
            }
            ASSERT_EQ(store->commit(*client, again).error, Error::kOk);
        }
        if (!last) {
            ASSERT_EQ(one(OperationKind::kPut, table, user_key(1), user_row(now_us(), 3)),
                      Error::kOk);
        }
        ASSERT_NO_FATAL_FAILURE(open(store->disk->power_loss(3), 9));
        EXPECT_GT(store->engine->core().storage().checkpointer->journal_capacity(), places);
        pass(450);
        ASSERT_NO_FATAL_FAILURE(open(store->disk->power_loss(4), 10));
        EXPECT_EQ(store->rows(table).size(), last ? 340u : 341u);
        EXPECT_EQ(store->verify(), "");
    }
}

}  // namespace
}  // namespace bidstore
