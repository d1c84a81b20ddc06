// Power loss and process death at every disk operation of a bulk load with commits beside it. After
// each: the loaded table is there whole or not at all, and there if the load was acknowledged;
// every acknowledged commit is there; the verifier finds no page lost and none in use twice.
#include <gtest/gtest.h>

#include "tests/load_fixture.h"
#include "tests/one_request.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kCommits = 40;
constexpr std::uint64_t kHourNs = 3'600'000'000'000;

SimStoreOptions crash_store() {
    SimStoreOptions options = small_store();
    options.frames = 700;
    options.memory = SimMemory::of_process();
    options.engine.checkpoint_interval_ns = 400'000;
    return options;
}

struct Outcome {
    bool loaded = false;
    std::uint32_t commits = 0;  // acknowledged
    std::unique_ptr<SimDisk> power;
    std::unique_ptr<SimDisk> process;
    std::uint64_t steps = 0;
};

// The load from new files, a commit at a time beside it, with a crash at `step` (0: none).
Outcome crash_run(const Schema& schema, const LoadRows& rows, const LoadRows& beside,
                  std::uint64_t step) {
    SimDiskOptions options;
    options.seed = 11;
    SimStore store(crash_store(), std::make_unique<SimDisk>(options), 11);
    if (step != 0) store.disk->crash_at(step);
    Outcome outcome;
    const auto run = [&] {
        if (!store.open().ok()) return;
        SimClient& client = store.connect();
        SimClient& other = store.connect();
        if (store.disk->crashed()) return;
        const std::string encoded = load_schema("beside", false).encode();
        TransactionBytes make;
        make.operation(OperationKind::kCreateTable, TableId{}, {},
                       std::as_bytes(std::span(encoded.data(), encoded.size())));
        if (store.commit(other, make).error != Error::kOk) return;
        LoadClient load(client, schema, rows);
        auto row = beside.begin();
        OneRequest put_beside(other);
        bool done = false;
        while (!done && !store.disk->crashed()) {
            if (!put_beside.on_its_way() && row != beside.end()) {
                TransactionBytes put;
                put.operation(OperationKind::kPut, kFirstUserTable, row->first, row->second);
                if (put_beside.submit(put.bytes())) ++row;
            }
            done = load.step() && !put_beside.on_its_way();
            if (store.round() == EngineRound::kFenced) break;
            const auto answer = put_beside.answer();
            if (answer && answer->error == Error::kOk) ++outcome.commits;
        }
        outcome.loaded = load.loaded();
    };
    run();
    outcome.steps = store.disk->steps();
    outcome.power = store.disk->power_loss(step);
    outcome.process = store.disk->process_crash(step);
    return outcome;
}

void check(std::unique_ptr<SimDisk> disk, const Outcome& life, const LoadRows& rows,
           const LoadRows& beside) {
    SimStore store(crash_store(), std::move(disk), 5);
    const Status opened = store.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    EXPECT_EQ(store.verify(), "");
    const TableEntry* table = table_named(store, "loaded");
    if (life.loaded) {
        ASSERT_NE(table, nullptr) << "an acknowledged load is gone";
    }
    if (table != nullptr) {
        EXPECT_EQ(store.rows(table->id), rows);
    }
    const TableEntry* other = table_named(store, "beside");
    const LoadRows found = other != nullptr ? store.rows(other->id) : LoadRows{};
    EXPECT_GE(found.size(), life.commits) << "an acknowledged commit is missing";
    auto expected = beside.begin();
    for (const auto& row : found) EXPECT_EQ(row, *expected++);
    // What is left of the load goes, and the store works on.
    EXPECT_TRUE(store.run_until([&] { return unfinished_tables(store) == 0; }));
    SimClient& client = store.connect();
    EXPECT_EQ(run_load(store, client, load_schema("again", true),
                       make_load_rows(load_schema("again", true), 100, 1)),
              Error::kOk);
    EXPECT_EQ(store.verify(), "");
}

std::uint64_t stride() {
    const char* set = std::getenv("BIDSTORE_CRASH_STRIDE");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
}

TEST(BulkLoadCrash, EveryDiskStepLeavesAllOrNothing) {
    const Schema schema = load_schema("loaded", false);
    const LoadRows rows = make_load_rows(schema, 9'000, 1);  // 643 leaves: the file has to grow
    const LoadRows beside = make_load_rows(load_schema("beside", false), kCommits, 2);
    const Outcome whole = crash_run(schema, rows, beside, 0);
    ASSERT_TRUE(whole.loaded);
    ASSERT_GT(whole.commits, 5u);
    RecordProperty("steps", static_cast<int>(whole.steps));
    std::uint32_t loaded = 0;
    std::uint32_t not_loaded = 0;
    for (std::uint64_t step = 1; step <= whole.steps; step += stride()) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " +
                     std::to_string(whole.steps));
        Outcome crashed = crash_run(schema, rows, beside, step);
        check(std::move(crashed.power), crashed, rows, beside);
        check(std::move(crashed.process), crashed, rows, beside);
        ++(crashed.loaded ? loaded : not_loaded);
        if (HasFailure()) break;
    }
    EXPECT_GT(not_loaded, 10u);
}

// The same with values in extents of their own beside the leaves.
TEST(BulkLoadCrash, EveryDiskStepLeavesAllOrNothingOfExtents) {
    const Schema schema = load_schema("loaded", true);
    const LoadRows rows = make_wide_rows(schema, 45, 200'000, 1);  // 1.2 MB: the file has to grow
    const LoadRows beside = make_load_rows(load_schema("beside", false), kCommits, 2);
    const Outcome whole = crash_run(schema, rows, beside, 0);
    ASSERT_TRUE(whole.loaded);
    RecordProperty("steps", static_cast<int>(whole.steps));
    std::uint32_t not_loaded = 0;
    for (std::uint64_t step = 1; step <= whole.steps; step += stride()) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " +
                     std::to_string(whole.steps));
        Outcome crashed = crash_run(schema, rows, beside, step);
        check(std::move(crashed.power), crashed, rows, beside);
        check(std::move(crashed.process), crashed, rows, beside);
        not_loaded += crashed.loaded ? 0 : 1;
        if (HasFailure()) break;
    }
    EXPECT_GT(not_loaded, 10u);
}

// A load into space that a dropped table left, with nothing beside it: the checkpoint that covers
// it writes no page of its own to a free place and makes the file no longer, so nobody but the load
// itself syncs what it wrote before a superblock counts on it.
std::unique_ptr<SimDisk> load_into_freed_space(std::uint64_t step, std::uint64_t& steps,
                                               bool& loaded) {
    SimDiskOptions disk;
    disk.seed = 13;
    SimStoreOptions options = small_store();  // checkpoints when they are asked for
    options.frames = 700;
    SimStore store(options, std::make_unique<SimDisk>(disk), 13);
    CHECK(store.open().ok());
    SimClient& client = store.connect();
    const Schema old = load_schema("old", false);
    CHECK(run_load(store, client, old, make_load_rows(old, 5'000, 1)) == Error::kOk);
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, table_named(store, "old")->id, {}, {});
    CHECK(store.commit(client, drop).error == Error::kOk);
    const Space& space = store.engine->core().storage().space;
    for (std::uint32_t second = 0; second < 200; ++second) {
        store.clock.advance_ns(1'000'000'000);
        store.run_until([&] { return unfinished_tables(store) + space.quarantined() == 0; }, 50);
    }
    CHECK(unfinished_tables(store) + space.quarantined() == 0);
    const std::uint64_t before = store.disk->steps();
    const std::uint32_t chunks = space.chunk_count();
    if (step != 0) store.disk->crash_at(before + step);
    const Schema schema = load_schema("loaded", false);
    const LoadRows rows = make_load_rows(schema, 2'500, 2);
    const auto send = [&](const LoadBytes& bytes) {
        const auto token = client.submit_load(bytes.bytes());
        std::optional<Answer> answer;
        store.run_until([&] {
            answer = token ? client.answer(*token) : std::nullopt;
            return answer || store.disk->crashed();
        });
        return answer && answer->error == Error::kOk;
    };
    loaded = send(LoadBytes::begin(schema));
    // The hidden table's root is known from now on, and has its place.
    const Checkpointer& checkpointer = *store.engine->core().storage().checkpointer;
    const Csn begun{store.engine->core().storage().pool.visible()};
    store.run_until([&] {
        store.clock.advance_ns(1'000'000'000);
        return checkpointer.covered() >= begun || store.disk->crashed();
    });
    for (auto row = rows.begin(); loaded && row != rows.end();) {
        LoadBytes packed(LoadStep::kRows);
        for (int i = 0; i < 70 && row != rows.end(); ++i, ++row) {
            packed.row(false, row->first, row->second);
        }
        loaded = send(packed);
    }
    loaded = loaded && send(LoadBytes(LoadStep::kFinish, rows.size()));
    CHECK(step != 0 || (loaded && space.chunk_count() == chunks));
    steps = store.disk->steps() - before;
    return store.disk->power_loss(step);
}

TEST(BulkLoadCrash, ALoadIntoFreedSpaceIsOnDiskBeforeASuperblockCountsOnIt) {
    std::uint64_t steps = 0;
    bool loaded = false;
    load_into_freed_space(0, steps, loaded);
    for (std::uint64_t step = 1; step <= steps && !::testing::Test::HasFailure(); ++step) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " + std::to_string(steps));
        std::uint64_t ignored = 0;
        SimStoreOptions options = small_store();
        SimStore store(options, load_into_freed_space(step, ignored, loaded), 5);
        const Status opened = store.open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        EXPECT_EQ(store.verify(), "");
        EXPECT_TRUE(!loaded || table_named(store, "loaded") != nullptr);
        EXPECT_TRUE(store.run_until([&] { return unfinished_tables(store) == 0; }));
    }
}

// Rounds until the load is attached, with a checkpoint that begins `at`; its client dies then, and
// the store is stopped short when the next checkpoint has the attach.
std::uint32_t die_behind_the_attach(SimStore& store, const Schema& schema, const LoadRows& rows,
                                    std::uint32_t at) {
    SimClient& client = store.connect();
    LoadClient load(client, schema, rows);
    Storage& storage = store.engine->core().storage();
    const auto attached = [&] {
        const auto tables = storage.catalog->all();
        return std::any_of(tables.begin(), tables.end(), [](const TableEntry* table) {
            return table->hidden() && !table->tree.empty();
        });
    };
    std::uint32_t rounds = 0;
    for (; !attached() && rounds < 100'000; ++rounds) {
        if (rounds == at) store.clock.advance_ns(kHourNs);
        load.step();
        store.round();
    }
    const Csn attach{storage.pool.visible() + 1};
    for (; Csn{storage.pool.visible()} < attach; ++rounds) store.round();
    store.round();  // asks for the checkpoint
    store.disconnect(client);
    EXPECT_TRUE(store.run_until([&] { return storage.checkpointer->covered() >= attach; }));
    return rounds;
}

// A load was attached while a checkpoint ran, and its client died then: its pages go, and the next
// checkpoint still has some of them. That one remembered 0 as the checksum of an inner node that
// was freed meanwhile, and after a crash the drop ended there for good.
TEST(BulkLoadCrash, PagesThatGoWhileTheAttachIsCoveredAreKnownByTheirChecksum) {
    const Schema schema = load_schema("t", false);
    const LoadRows rows = make_load_rows(schema, 9'000, 1);
    SimStoreOptions options = small_store();
    options.frames = 1'200;
    options.engine.checkpoint_interval_ns = kHourNs;
    std::uint32_t all = 0;
    for (std::uint32_t before = 0; before < 80 && !testing::Test::HasFailure(); ++before) {
        SCOPED_TRACE(before);
        SimStore store(options, std::make_unique<SimDisk>(SimDiskOptions{}), 3);
        ASSERT_TRUE(store.open().ok());
        const std::uint32_t rounds = die_behind_the_attach(store, schema, rows, all - before);
        if (before == 0) all = rounds;
        SimStore again(options, store.disk->power_loss(before), 4);
        ASSERT_TRUE(again.open().ok());
        EXPECT_TRUE(again.run_until([&] { return unfinished_tables(again) == 0; }));
        EXPECT_EQ(again.verify(), "");
    }
}

}  // namespace
}  // namespace bidstore
