// The size of the checkpoint journal of a store that is there: a start makes it longer where the
// setting is more than it has.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/rebuild.h"
#include "tests/numbered.h"
#include "tests/planted_superblock.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

using namespace numbered;

constexpr std::uint64_t kSmall = 1u << 20;
constexpr std::uint64_t kLarge = 4u << 20;
constexpr std::uint64_t kCommits = 60;

SimStoreOptions journal_store(std::uint64_t journal_bytes) {
    SimStoreOptions options = small_store();
    options.frames = 700;
    options.pages = 16 * kChunkPages;
    options.engine.journal_bytes = journal_bytes;
    options.engine.checkpoint_slice = 1;  // commits go on in between
    options.engine.checkpoint_interval_ns = 3'600'000'000'000;
    return options;
}

std::uint64_t file_bytes(SimDisk& disk) { return *disk.size_bytes(StoreFile::kJournal); }

std::ptrdiff_t told(const SimStore& store, const std::string& words) {
    return std::count_if(store.log_lines.begin(), store.log_lines.end(),
                         [&](const std::string& line) { return line.find(words) != line.npos; });
}

// A store with a small journal that its superblock names, and a log behind that.
std::unique_ptr<SimDisk> crashed_store(Content& content) {
    SimStore store(journal_store(kSmall), std::make_unique<SimDisk>(), 1);
    EXPECT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    EXPECT_EQ(store.create_table(client, fixed_schema()), kFixed);
    EXPECT_EQ(store.create_table(client, variable_schema()), kVariable);
    const Workload workload(1, kFixed, kVariable);
    EXPECT_EQ(run(store, client, workload, {}, 1, kCommits).acknowledged, kCommits);
    content = content_after(workload, kCommits);
    const Checkpointer& checkpointer = *store.engine->core().storage().checkpointer;
    store.clock.advance_ns(3'600'000'000'000);
    EXPECT_TRUE(store.run_until([&] { return checkpointer.recipe_step() == 3; }));
    EXPECT_EQ(store.commit(client, workload.make(kCommits + 1, content)).error, Error::kOk);
    auto disk = store.disk->process_crash(2);
    EXPECT_GT(superblock_on(*disk, 0).journal_pages, 0u);
    EXPECT_EQ(file_bytes(*disk), kSmall);
    return disk;
}

void expect_content(SimStore& store, const Content& content) {
    const Content found = read_content(store, kFixed, kVariable);
    EXPECT_EQ(found.marker, content.marker);
    EXPECT_TRUE(found.fixed == content.fixed);
    EXPECT_TRUE(found.variable == content.variable);
    EXPECT_EQ(store.verify(), "");
}

// Rows that fill more than half a page each: leaves of their own.
constexpr std::uint32_t kWide = 2'000'000;
constexpr std::uint32_t kWideRows = 200;

TransactionBytes put_wide_rows(std::uint32_t from, std::uint32_t to) {
    const Schema schema = variable_schema();
    TransactionBytes bytes;
    for (std::uint32_t id = kWide + from; id < kWide + to; ++id) {
        RowBuilder builder(schema);
        CHECK(builder.set_unsigned(0, id).ok());
        CHECK(builder.set_bytes(2, std::vector<std::byte>(3'000)).ok());
        bytes.operation(OperationKind::kPut, kVariable, key_of(id), *builder.value());
    }
    return bytes;
}

TransactionBytes erase_wide_rows() {
    TransactionBytes bytes;
    bytes.operation(OperationKind::kDeleteRange, kVariable, key_of(kWide),
                    key_of(kWide + kWideRows));
    return bytes;
}

// A message told to raise it, and it stayed what it was at the first start.
TEST(JournalSize, ARaisedSettingCountsFromTheNextStart) {
    Content content;
    SimStore small(journal_store(kSmall), crashed_store(content), 3);
    ASSERT_TRUE(small.open().ok());
    SimClient& client = small.connect();
    for (std::uint32_t from = 0; from < kWideRows; from += 50) {
        ASSERT_EQ(small.commit(client, put_wide_rows(from, from + 50)).error, Error::kOk);
    }
    const Answer refused = small.commit(client, erase_wide_rows());
    EXPECT_EQ(refused.error, Error::kTooLarge);
    EXPECT_EQ(refused.failed_operation, kLimitJournal);
    ASSERT_TRUE(small.stop());

    SimStore large(journal_store(kLarge), small.disk->clone(4), 5);
    ASSERT_TRUE(large.open().ok());
    EXPECT_EQ(told(large, "it was made longer"), 1);
    EXPECT_EQ(large.commit(large.connect(), erase_wide_rows()).error, Error::kOk);
    expect_content(large, content);
    ASSERT_TRUE(large.stop());
    EXPECT_EQ(file_bytes(*large.disk), kLarge);
    EXPECT_EQ(superblock_on(*large.disk, 0).journal_bytes, kLarge);
    EXPECT_EQ(superblock_on(*large.disk, 1).journal_bytes, kLarge);

    // A lower one does not make it shorter, and the one that it has is no news.
    for (const std::uint64_t setting : {kSmall, kLarge}) {
        SimStore again(journal_store(setting), large.disk->clone(6), 7);
        ASSERT_TRUE(again.open().ok());
        EXPECT_EQ(told(again, "it was made longer"), 0);
        EXPECT_EQ(told(again, "it is not made shorter"), setting == kSmall);
        EXPECT_EQ(again.engine->core().storage().superblock.journal_bytes, kLarge);
        EXPECT_EQ(file_bytes(*again.disk), kLarge);
    }
}

// What is put in place, the file, the superblock copies and what follows, cut off anywhere.
TEST(JournalSize, RaisingItCanBeCutOffAnywhere) {
    Content content;
    const auto disk = crashed_store(content);
    std::uint64_t steps = 0;
    {
        SimStore whole(journal_store(kLarge), disk->clone(3), 5);
        ASSERT_TRUE(whole.open().ok());
        steps = whole.disk->steps();
    }
    std::uint64_t longer_than_named = 0;
    std::uint64_t copies_differ = 0;
    for (std::uint64_t step = 1; step <= steps; ++step) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " + std::to_string(steps));
        SimStore cut(journal_store(kLarge), disk->clone(3), 5);
        cut.disk->crash_at(step);
        EXPECT_FALSE(cut.open().ok());
        for (const bool power : {true, false}) {
            const auto left = power ? cut.disk->power_loss(step) : cut.disk->process_crash(step);
            const std::uint64_t first = superblock_on(*left, 0).journal_bytes;
            const std::uint64_t second = superblock_on(*left, 1).journal_bytes;
            ASSERT_GE(file_bytes(*left), std::max(first, second));
            longer_than_named += file_bytes(*left) > first;
            copies_differ += first != second;
            for (const std::uint64_t setting : {kSmall, kLarge}) {
                if (setting == kSmall && !power) continue;
                SimStore again(journal_store(setting), left->clone(step), 6);
                const Status opened = again.open();
                ASSERT_TRUE(opened.ok()) << opened.failure().what;
                expect_content(again, content);
                if (setting == kSmall) continue;
                EXPECT_EQ(again.engine->core().storage().superblock.journal_bytes, kLarge);
                EXPECT_EQ(file_bytes(*again.disk), kLarge);
                ASSERT_TRUE(again.stop());
            }
        }
        if (HasFailure()) break;
    }
    EXPECT_GT(longer_than_named, 0u);
    EXPECT_GT(copies_differ, 0u);
}

TEST(JournalSize, AFullFileSystemLeavesItAsItIs) {
    Content content;
    auto disk = crashed_store(content);
    std::uint64_t used = 0;
    for (const StoreFile file : {StoreFile::kData, StoreFile::kLog, StoreFile::kJournal}) {
        used += *disk->size_bytes(file);
    }
    disk->set_capacity_bytes(used + (512u << 10));
    SimStore store(journal_store(kLarge), std::move(disk), 3);
    const Status opened = store.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    EXPECT_EQ(told(store, "for want of room"), 1);
    EXPECT_EQ(file_bytes(*store.disk), kSmall);
    EXPECT_EQ(store.engine->core().storage().superblock.journal_bytes, kSmall);
    expect_content(store, content);
    ASSERT_TRUE(store.stop());
}

// The setting is what a daemon would be given, or a default.
TEST(JournalSize, IsTheSuperblocksForARebuild) {
    Content content;
    const auto disk = crashed_store(content);
    SimClock clock;
    PoolSegment pool = verifier_pool(1'000, 64 * kChunkPages);
    EngineOptions options = journal_store(kLarge).engine;
    options.random = [] { return std::uint64_t{1}; };
    const auto report = rebuild_files(
        *disk, clock, pool, options, [](const RebuildNote&) {}, [](const BrokenRule&) {}, nullptr,
        nullptr);
    ASSERT_TRUE(report.ok()) << report.failure().what;
    EXPECT_EQ(file_bytes(*disk), kSmall);
    EXPECT_EQ(superblock_on(*disk, 0).journal_bytes, kSmall);
}

// The checkpoint in replay failed, and every start with it.
TEST(JournalSize, OneThatIsTooShortForReplayIsMadeLonger) {
    constexpr std::uint64_t kShort = 13 * kPageBytes;
    SimStore store(journal_store(kLarge), std::make_unique<SimDisk>(), 1);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    ASSERT_EQ(store.create_table(client, fixed_schema()), kFixed);
    ASSERT_EQ(store.create_table(client, variable_schema()), kVariable);
    ASSERT_EQ(store.commit(client, put_wide_rows(0, 40)).error, Error::kOk);
    const Checkpointer& checkpointer = *store.engine->core().storage().checkpointer;
    const std::uint64_t finished = checkpointer.totals().finished;
    store.clock.advance_ns(3'600'000'000'000);
    ASSERT_TRUE(store.run_until([&] { return checkpointer.totals().finished > finished; }));
    ASSERT_EQ(store.commit(client, put_wide_rows(0, 40)).error, Error::kOk);
    ASSERT_EQ(store.commit(client, put_wide_rows(40, 41)).error, Error::kOk);
    const auto disk = store.disk->process_crash(2);
    plant_journal_bytes(*disk, kShort);
    ASSERT_TRUE(disk->resize(StoreFile::kJournal, kShort).ok());

    for (const bool full : {true, false}) {
        SCOPED_TRACE(full);
        SimStore small(journal_store(kShort), disk->clone(3), 5);
        if (full) small.disk->set_capacity_bytes(0);
        const Status opened = small.open();
        if (full) {
            EXPECT_EQ(opened.error(), Error::kTooLarge);
            EXPECT_NE(opened.failure().what.find("need a longer journal"), std::string::npos)
                << opened.failure().what;
            EXPECT_NE(opened.failure().what.find("no space left"), std::string::npos);
            continue;
        }
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        EXPECT_EQ(small.rows(kVariable).size(), 41u);
        EXPECT_GT(file_bytes(*small.disk), kShort);
        EXPECT_EQ(superblock_on(*small.disk, 0).journal_bytes, file_bytes(*small.disk));
        EXPECT_EQ(small.verify(), "");
        ASSERT_TRUE(small.stop());
    }
}

}  // namespace
}  // namespace bidstore
