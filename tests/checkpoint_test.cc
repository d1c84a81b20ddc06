// Checkpoints that nobody notices: a round does no more for one than its slice, commits go on
// between the slices, and what it holds or sets free is found a part at a time.
#include "engine/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/sim.h"

namespace bidstore {
namespace {

Schema rows_schema() {
    auto schema =
        Schema::make("rows", {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 1200}}, 1);
    CHECK(schema.ok());
    return *schema;
}

std::vector<std::byte> key_of(std::uint64_t id) {
    std::vector<std::byte> key(4);
    encode_key_integer(key.data(), id, 4, false);
    return key;
}

class CheckpointTest : public ::testing::Test {
  protected:
    void start(const SimStoreOptions& options, std::uint64_t seed = 1) {
        SimDiskOptions disk_options;
        disk_options.seed = seed;
        store = std::make_unique<SimStore>(options, std::make_unique<SimDisk>(disk_options), seed);
        ASSERT_TRUE(store->open().ok());
        client = &store->connect();
        table = store->create_table(*client, rows_schema());
    }
    static constexpr std::uint64_t kIntervalNs = 20'000'000'000;
    // Checkpoints begin when the test lets the interval pass.
    static SimStoreOptions quiet_store(std::uint32_t slice) {
        SimStoreOptions options = small_store();
        options.frames = 8'000;
        options.engine.log_segment_bytes = 8u << 20;
        options.engine.log_segment_count = 8;
        options.engine.journal_bytes = 16u << 20;
        options.engine.checkpoint_interval_ns = kIntervalNs;
        options.engine.checkpoint_slice = slice;
        return options;
    }
    Error put(std::uint64_t id, std::uint64_t n, std::uint64_t rows = 1, std::uint64_t step = 1) {
        TransactionBytes bytes;
        const std::vector<std::byte> value(1200, static_cast<std::byte>(n));
        for (std::uint64_t i = 0; i < rows; ++i) {
            bytes.operation(OperationKind::kPut, table, key_of(id + i * step), value);
        }
        return store->commit(*client, bytes).error;
    }
    Engine::Core& core() { return store->engine->core(); }
    Checkpointer& checkpointer() { return *core().storage().checkpointer; }
    void begin_checkpoint() {
        store->clock.advance_ns(kIntervalNs + 1);
        ASSERT_TRUE(store->run_until([&] { return checkpointer().running(); }));
    }

    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
    TableId table;
};

TEST_F(CheckpointTest, RoundCopiesNoMorePagesThanItsSlice) {
    constexpr std::uint32_t kSlice = 4;
    start(quiet_store(kSlice));
    for (std::uint64_t id = 0; id < 600; ++id) ASSERT_EQ(put(id, 1), Error::kOk);
    begin_checkpoint();
    std::uint64_t submitted = 0;
    store->disk->observe(
        [&](std::uint64_t, SimStep kind) { submitted += kind == SimStep::kSubmitWrite; });
    std::uint64_t rounds = 0;
    while (checkpointer().running()) {
        const std::uint64_t before = checkpointer().images_written();
        submitted = 0;
        ASSERT_EQ(store->round() == EngineRound::kFenced, false);
        ++rounds;
        // Two writes were in flight at most, each of one slice at most.
        EXPECT_LE(submitted, 3u);
        if (checkpointer().running()) {
            EXPECT_LE(checkpointer().images_written() - before, 2 * kSlice);
        }
    }
    EXPECT_GT(rounds, checkpointer().totals().pages / kSlice);
    store->disk->observe({});
    EXPECT_EQ(store->verify(), "");
}

// The kernel tells a lost write to one sync: here to a load's or a growth's, say.
TEST_F(CheckpointTest, NamesNothingWhileAnotherSyncMayTellOfItsLostWrites) {
    start(quiet_store(16));
    ASSERT_EQ(put(1, 1, 100), Error::kOk);
    begin_checkpoint();
    std::vector<std::uint32_t> steps;
    store->disk->observe([&](std::uint64_t, SimStep kind) {
        if (kind != SimStep::kSubmitWrite) return;
        const DiskRequest& request = *store->disk->submitting();
        const bool superblock = request.file == StoreFile::kData && request.offset_bytes == 0;
        if (superblock) steps.push_back(checkpointer().recipe_step());
    });
    CheckpointSlice held;
    held.may_name = false;
    const auto goes_no_further = [&](std::uint32_t step) {
        for (int i = 0; i < 3'000; ++i) {
            checkpointer().pump(held);
            store->disk->poll(0);
        }
        EXPECT_EQ(checkpointer().recipe_step(), step);
    };
    goes_no_further(2);
    EXPECT_TRUE(steps.empty());
    while (checkpointer().recipe_step() < 4) {
        checkpointer().pump({});
        store->disk->poll(0);
    }
    goes_no_further(4);
    EXPECT_EQ(steps.size(), 1u);
    ASSERT_TRUE(store->run_until([&] { return !checkpointer().running(); }));
    EXPECT_EQ(steps.size(), 2u);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(CheckpointTest, CommitsGoOnBetweenTheSlicesAndNoneOfThemIsInIt) {
    start(quiet_store(1));
    constexpr std::uint64_t kRows = 600;
    for (std::uint64_t id = 0; id < kRows; ++id) ASSERT_EQ(put(id, 1), Error::kOk);
    begin_checkpoint();
    std::uint64_t commits = 0;
    while (checkpointer().running()) {
        ASSERT_EQ(put(commits * 7 % kRows, 2), Error::kOk);
        ++commits;
    }
    EXPECT_GT(commits, 50u);
    // Power goes before the next checkpoint: the log has what came after this one.
    auto disk = store->disk->power_loss(5);
    store = std::make_unique<SimStore>(quiet_store(1), std::move(disk), 2);
    ASSERT_TRUE(store->open().ok());
    EXPECT_EQ(store->engine->recovery().batches >= commits, true);
    const auto rows = store->rows(table);
    ASSERT_EQ(rows.size(), kRows);
    std::uint64_t changed = 0;
    for (const auto& [key, value] : rows) changed += value[0] == std::byte{2};
    EXPECT_EQ(changed, std::min(commits, kRows));
    EXPECT_EQ(store->verify(), "");
}

// Counted in pages it was half-way when the journal was written, a tenth of the time gone: writers
// were let in fast, and then slowed to a crawl while page after page went to its place.
TEST_F(CheckpointTest, ProgressFollowsTheTimeThatItsWritesTake) {
    start(quiet_store(16));
    constexpr std::uint64_t kRows = 2'400;
    for (std::uint64_t id = 0; id < kRows; ++id) ASSERT_EQ(put(id, 1), Error::kOk);
    begin_checkpoint();
    store->clock.advance_ns(kIntervalNs);
    ASSERT_TRUE(store->run_until([&] { return !checkpointer().running(); }));
    // No two of these pages are neighbours.
    for (std::uint64_t id = 0; id < kRows; id += 9) ASSERT_EQ(put(id, 2), Error::kOk);
    begin_checkpoint();
    store->clock.advance_ns(kIntervalNs);  // it is late, and does not rest
    store->disk->serve_one_by_one(store->clock, 100'000);
    const std::uint64_t began_ns = store->clock.monotonic_ns();
    std::vector<std::pair<std::uint64_t, double>> seen;
    while (checkpointer().running()) {
        ASSERT_EQ(store->round() == EngineRound::kFenced, false);
        if (checkpointer().recipe_step() == 0 || checkpointer().images_written() == 0) continue;
        seen.emplace_back(store->clock.monotonic_ns() - began_ns, checkpointer().progress());
    }
    ASSERT_GT(seen.size(), 100u);
    for (const auto& [at_ns, progress] : seen) {
        const double share = static_cast<double>(at_ns) / static_cast<double>(seen.back().first);
        EXPECT_NEAR(progress, share, 0.15);
    }
}

// The whole list of them was gone through at every tick, and at the end of each checkpoint.
TEST_F(CheckpointTest, VersionsThatItHeldComeBackAPartInEachRound) {
    start(quiet_store(1));
    constexpr std::uint64_t kRows = 2'400;
    for (std::uint64_t id = 0; id < kRows; ++id) ASSERT_EQ(put(id, 1), Error::kOk);
    begin_checkpoint();
    for (std::uint64_t id = 0; id < kRows; id += 120) ASSERT_EQ(put(id, 2, 40, 3), Error::kOk);
    ASSERT_TRUE(checkpointer().running());
    Pool& pool = core().storage().pool;
    EXPECT_GT(pool.kept(), 700u);
    std::uint32_t most = 0;
    while (checkpointer().running() || pool.kept() > 0) {
        const std::uint32_t before = pool.kept();
        ASSERT_EQ(store->round() == EngineRound::kFenced, false);
        if (before > pool.kept()) most = std::max(most, before - pool.kept());
    }
    EXPECT_LE(most, 2 * 512u);  // of the tick, and of the sweep
    pool.check_invariants();
    EXPECT_EQ(store->verify(), "");
}

// It was one write, however long, and a disk takes no more than 8 MiB in one: with more than a
// million images the daemon aborted here, and at every start again.
TEST_F(CheckpointTest, LongJournalListIsWrittenInPieces) {
    constexpr std::uint64_t kRows = 7'000;  // more pages than two pieces have entries
    SimStoreOptions options = quiet_store(64);
    options.frames = 10'000;
    options.engine.journal_bytes = 32u << 20;
    start(options);
    for (std::uint64_t id = 0; id < kRows; id += 100) ASSERT_EQ(put(id, 1, 100), Error::kOk);
    begin_checkpoint();
    ASSERT_TRUE(store->run_until([&] { return !checkpointer().running(); }, 200'000));
    for (std::uint64_t id = 0; id < kRows; id += 100) ASSERT_EQ(put(id, 2, 100), Error::kOk);
    std::uint64_t list_writes = 0;
    std::uint32_t longest = 0;
    store->disk->observe([&](std::uint64_t, SimStep kind) {
        const DiskRequest* request = store->disk->submitting();
        if (kind != SimStep::kSubmitWrite || request->file != StoreFile::kJournal) return;
        longest = std::max(longest, request->length_bytes);
        list_writes += request->offset_bytes < 5 * std::uint64_t{kPageBytes};
    });
    const std::uint64_t through_journal = checkpointer().totals().journal_pages;
    begin_checkpoint();
    // Named, and not yet in its place: the next start reads the list.
    ASSERT_TRUE(store->run_until([&] { return checkpointer().recipe_step() == 4; }, 200'000));
    ASSERT_GT(checkpointer().totals().journal_pages - through_journal, 2'100u);
    EXPECT_EQ(list_writes, 2u);
    EXPECT_LE(longest, 32 * kPageBytes);
    store->disk->observe({});
    auto disk = store->disk->power_loss(5);
    store = std::make_unique<SimStore>(options, std::move(disk), 2);
    ASSERT_TRUE(store->open().ok());
    const auto rows = store->rows(table);
    ASSERT_EQ(rows.size(), kRows);
    for (const auto& [key, value] : rows) ASSERT_EQ(value[0], std::byte{2});
    EXPECT_EQ(store->verify(), "");
}

}  // namespace
}  // namespace bidstore
