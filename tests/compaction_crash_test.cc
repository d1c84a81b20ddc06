// Power loss and process death at every disk operation of a compaction with commits beside it: of
// rows, of large values, and with a root at the end of the file, before which chunks are punched.
// After each: every acknowledged row is there and nothing else, the verifier finds no page lost and
// none in use twice, and a new compaction brings the file to its length.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/compaction_fixture.h"
#include "tests/one_request.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 3'000;
constexpr std::uint32_t kValues = 120;
constexpr std::uint32_t kCommits = 30;
constexpr TableId kRowTable = kFirstUserTable;
constexpr TableId kValueTable{kFirstUserTable.value + 1};
constexpr TableId kLateTable{kFirstUserTable.value + 2};  // its root is at the end
constexpr std::uint64_t kWholeFile = 3 * kChunkBytes;     // at least, before it

SimStoreOptions crash_store(std::uint32_t frames = 4'000) {
    SimStoreOptions options = small_store();
    options.frames = frames;  // all rows fit it, for those who look at them at once
    options.engine.log_segment_bytes = 4u << 20;
    options.engine.checkpoint_interval_ns = 20'000'000;
    return options;
}

// Rows of all tables; the key begins with the table's id.
using AllRows = std::map<std::pair<std::uint32_t, std::vector<std::byte>>, std::vector<std::byte>>;

struct Life {
    AllRows rows;    // acknowledged
    AllRows unsure;  // written, without an answer
    bool done = false;
    std::uint64_t holes = 0;
    std::uint64_t file_bytes = 0;
    std::uint64_t steps = 0;
    std::unique_ptr<SimDisk> power;
    std::unique_ptr<SimDisk> process;
};

std::size_t length_of(std::uint32_t id) { return 5'000 + (id * 7'919) % 90'000; }

AllRows all_rows(SimStore& store) {
    AllRows all;
    for (const TableId table : {kRowTable, kValueTable, kLateTable}) {
        for (auto& [key, value] : store.rows(table)) all[{table.value, key}] = std::move(value);
    }
    return all;
}

// A store that was stopped, with holes all over its file and a root at the end of it.
std::unique_ptr<SimDisk> full_of_holes(AllRows& rows) {
    SimDiskOptions options;
    options.seed = 11;
    SimStore store(crash_store(), std::make_unique<SimDisk>(options), 11);
    CHECK(store.open().ok());
    SimClient& client = store.connect();
    CHECK(store.create_table(client, compaction_schema()) == kRowTable);
    CHECK(store.create_table(client, value_schema()) == kValueTable);
    CompactionRows written;
    put_rows(store, client, kRowTable, 0, kRows, written);
    for (std::uint32_t id = 0; id < kValues; ++id) {
        TransactionBytes put;
        put.operation(OperationKind::kPut, kValueTable, row_key(id),
                      wide_row(id, 0, length_of(id)));
        CHECK(store.commit(client, put).error == Error::kOk);
    }
    CHECK(create_late_table(store, client, value_schema("late")) == kLateTable);
    for (std::uint32_t i = 0; i < kRows; i += 200) {
        CHECK(erase_rows(store, client, kRowTable, i, i + 170, written) == Error::kOk);
    }
    for (std::uint32_t id = 0; id < kValues; ++id) {
        if (id % 4 == 1) continue;
        TransactionBytes erase;
        erase.operation(OperationKind::kDelete, kValueTable, row_key(id), {});
        CHECK(store.commit(client, erase).error == Error::kOk);
    }
    CHECK(store.stop());
    CHECK_OP(data_bytes(store), >=, kWholeFile);
    rows = all_rows(store);
    return store.disk->clone(11);
}

// One after the other to the tables: small rows, and large values, also of those that move.
std::pair<TableId, std::vector<std::byte>> commit_number(std::uint32_t number, std::uint32_t& id) {
    if (number % 3 == 0) {
        id = 1 + 4 * (number % (kValues / 4));
        return {kValueTable, wide_row(id, number, number % 2 == 0 ? 20'000 : 100)};
    }
    id = number * 131 % kRows;
    return {kRowTable, row_value(id, 9)};
}

// From that disk, with a crash at `step` (0: none).
Life live(const SimDisk& from, const AllRows& rows, std::uint64_t step) {
    SimStore store(crash_store(1'000), from.clone(11), 11);
    Life life;
    life.rows = rows;
    if (step != 0) store.disk->crash_at(step);
    const auto run = [&] {
        if (!store.open().ok()) return;
        SimClient& client = store.connect();
        SimClient& writer = store.connect();
        if (store.disk->crashed()) return;
        CompactClient compaction(client);
        OneRequest put_beside(writer);
        std::uint32_t commits = 0;
        while (!store.disk->crashed() && !(compaction.done() && !put_beside.on_its_way())) {
            if (!put_beside.on_its_way() && commits < kCommits && !compaction.done()) {
                std::uint32_t id = 0;
                const auto [table, value] = commit_number(++commits, id);
                TransactionBytes put;
                put.operation(OperationKind::kPut, table, row_key(id), value);
                put_beside.submit(put.bytes());
                life.unsure[{table.value, row_key(id)}] = value;
            }
            store.clock.advance_ns(500'000);
            compaction.advance();
            if (store.round() == EngineRound::kFenced) break;
            const auto answer = put_beside.answer();
            if (!answer || answer->error != Error::kOk) continue;
            life.rows.insert_or_assign(life.unsure.begin()->first, life.unsure.begin()->second);
            life.unsure.clear();
        }
        life.done = compaction.done() && compaction.error() == Error::kOk;
        if (!store.disk->crashed()) life.file_bytes = data_bytes(store);
        life.holes = store.disk->holes(StoreFile::kData);
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
    AllRows found = all_rows(store);
    for (const auto& [key, value] : life.unsure) {
        const auto row = found.find(key);
        const auto before = life.rows.find(key);
        const bool as_before = before == life.rows.end()
                                   ? row == found.end()
                                   : row != found.end() && row->second == before->second;
        EXPECT_TRUE(as_before || (row != found.end() && row->second == value));
        found.erase(key);
    }
    AllRows expected = life.rows;
    for (const auto& [key, value] : life.unsure) expected.erase(key);
    EXPECT_TRUE(found == expected);
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

// So many tests share the steps, for they run side by side.
constexpr std::uint64_t kParts = 4;

std::uint64_t stride() {
    const char* set = std::getenv("BIDSTORE_CRASH_STRIDE");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
}

class CompactionCrash : public ::testing::TestWithParam<std::uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Parts, CompactionCrash, ::testing::Range(std::uint64_t{0}, kParts));

TEST_P(CompactionCrash, EveryDiskStepLosesNothing) {
    AllRows rows;
    const auto disk = full_of_holes(rows);
    const Life whole = live(*disk, rows, 0);
    ASSERT_TRUE(whole.done);
    ASSERT_GE(whole.holes, 510u) << "nothing was punched";
    RecordProperty("steps", static_cast<int>(whole.steps));
    std::uint32_t not_done = 0;
    for (std::uint64_t step = 1 + GetParam(); step <= whole.steps; step += kParts * stride()) {
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
