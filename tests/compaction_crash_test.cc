// Power loss and process death at every disk operation of a compaction with commits beside it.
// After each: every acknowledged row is there and nothing else, the verifier finds no page lost and
// none in use twice, and a new compaction brings the file to its length.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/compaction_fixture.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 7'000;
constexpr std::uint32_t kCommits = 30;
constexpr std::uint64_t kWholeFile = 3 * kChunkBytes;  // at least, before it

SimStoreOptions crash_store() {
    SimStoreOptions options = small_store();
    options.frames = 1'500;
    options.engine.checkpoint_interval_ns = 20'000'000;
    return options;
}

struct Life {
    CompactionRows rows;      // acknowledged
    CompactionRows unsure;    // written, without an answer
    bool done = false;
    std::uint64_t file_bytes = 0;
    std::uint64_t steps = 0;
    std::unique_ptr<SimDisk> power;
    std::unique_ptr<SimDisk> process;
};

// A store that was stopped, with holes all over its file.
std::unique_ptr<SimDisk> full_of_holes(CompactionRows& rows) {
    SimDiskOptions options;
    options.seed = 11;
    SimStore store(crash_store(), std::make_unique<SimDisk>(options), 11);
    CHECK(store.open().ok());
    SimClient& client = store.connect();
    const TableId table = store.create_table(client, compaction_schema());
    put_rows(store, client, table, 0, kRows, rows);
    for (std::uint32_t i = 0; i < kRows; i += 200) {
        CHECK(erase_rows(store, client, table, i, i + 170, rows) == Error::kOk);
    }
    CHECK(store.stop());
    CHECK_OP(data_bytes(store), >=, kWholeFile);
    return store.disk->clone(11);
}

// From that disk, with a crash at `step` (0: none).
Life live(const SimDisk& from, const CompactionRows& rows, std::uint64_t step) {
    SimStore store(crash_store(), from.clone(11), 11);
    Life life;
    life.rows = rows;
    if (step != 0) store.disk->crash_at(step);
    const auto run = [&] {
        if (!store.open().ok()) return;
        SimClient& client = store.connect();
        SimClient& writer = store.connect();
        if (store.disk->crashed()) return;
        CompactClient compaction(client);
        std::optional<std::uint32_t> token;
        std::uint32_t commits = 0;
        while (!store.disk->crashed() && !(compaction.done() && !token)) {
            if (!token && commits < kCommits && !compaction.done()) {
                const std::uint32_t id = ++commits * 131 % kRows;
                TransactionBytes put;
                put.operation(OperationKind::kPut, kFirstUserTable, row_key(id), row_value(id, 9));
                token = writer.submit(put.bytes());
                life.unsure[row_key(id)] = row_value(id, 9);
            }
            store.clock.advance_ns(500'000);
            compaction.advance();
            if (store.round() == EngineRound::kFenced) break;
            if (!token) continue;
            const auto answer = writer.answer(*token);
            if (!answer) continue;
            if (answer->error == Error::kOk) life.rows.insert_or_assign(
                life.unsure.begin()->first, life.unsure.begin()->second);
            if (answer->error == Error::kOk) life.unsure.clear();
            token.reset();
        }
        life.done = compaction.done() && compaction.error() == Error::kOk;
        if (!store.disk->crashed()) life.file_bytes = data_bytes(store);
    };
    run();
    life.steps = store.disk->steps();
    life.power = store.disk->power_loss(step);
    life.process = store.disk->process_crash(step);
    return life;
}

void check(std::unique_ptr<SimDisk> disk, const Life& life, std::uint64_t file_bytes) {
    SimStore store(crash_store(), std::move(disk), 5);
    const Status opened = store.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    EXPECT_EQ(store.verify(), "");
    CompactionRows found = store.rows(kFirstUserTable);
    for (const auto& [key, value] : life.unsure) {
        const auto row = found.find(key);
        const auto before = life.rows.find(key);
        const bool as_before = before == life.rows.end() ? row == found.end()
                                                         : row != found.end() &&
                                                               row->second == before->second;
        EXPECT_TRUE(as_before || (row != found.end() && row->second == value));
        found.erase(key);
    }
    CompactionRows expected = life.rows;
    for (const auto& [key, value] : life.unsure) expected.erase(key);
    EXPECT_EQ(found, expected);
    SimClient& client = store.connect();
    CompactClient again(client);
    EXPECT_TRUE(store.run_until([&] {
        store.clock.advance_ns(1'000'000);
        return again.advance();
    }));
    EXPECT_EQ(again.error(), Error::kOk);
    EXPECT_LE(data_bytes(store), file_bytes);
    EXPECT_EQ(store.verify(), "");
}

std::uint64_t stride() {
    const char* set = std::getenv("BIDSTORE_CRASH_STRIDE");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
}

TEST(CompactionCrash, EveryDiskStepLosesNothing) {
    CompactionRows rows;
    const auto disk = full_of_holes(rows);
    const Life whole = live(*disk, rows, 0);
    ASSERT_TRUE(whole.done);
    ASSERT_LT(whole.file_bytes, kWholeFile);
    RecordProperty("steps", static_cast<int>(whole.steps));
    std::uint32_t not_done = 0;
    for (std::uint64_t step = 1; step <= whole.steps; step += stride()) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " +
                     std::to_string(whole.steps));
        Life life = live(*disk, rows, step);
        not_done += !life.done;
        check(std::move(life.power), life, whole.file_bytes);
        check(std::move(life.process), life, whole.file_bytes);
        if (::testing::Test::HasFailure()) break;
    }
    EXPECT_GT(not_done, 10u);
}

}  // namespace
}  // namespace bidstore
