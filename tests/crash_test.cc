// Power loss and process death at every disk operation of a workload, recoveries included.
//
// One client sends numbered transactions (tests/numbered.h): after a crash the store holds the
// first so many of them, and at least as many as were acknowledged. The four promises:
//   1 every acknowledged transaction is there      2 every other is there whole or not at all
//   3 the verifier finds nothing                   4 recovery run again finds the same content
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/numbered.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

using namespace numbered;

// A slice of 1: each round copies one page for the checkpoint, and commits go on in between.
SimStoreOptions crash_store(std::uint32_t checkpoint_slice = 16) {
    SimStoreOptions options = small_store();
    options.engine.checkpoint_slice = checkpoint_slice;
    options.frames = 700;
    options.memory = SimMemory::of_process();
    options.engine.checkpoint_interval_ns = 100'000;  // some rounds: many checkpoints
    return options;
}

// Opens what a crash left and checks the promises; returns the marker.
std::uint64_t check_recovered(std::unique_ptr<SimDisk> disk, const Workload& workload,
                              const Life& life, std::unique_ptr<SimStore>* keep = nullptr) {
    auto again = disk->clone(7);
    auto store = std::make_unique<SimStore>(crash_store(), std::move(disk), 5);
    const Status opened = store->open();
    if (!opened.ok()) {
        ADD_FAILURE() << opened.failure().what;
        return 0;
    }
    EXPECT_EQ(store->verify(), "");
    const Content found = read_content(*store, kFixed, kVariable);
    EXPECT_GE(found.marker, life.acknowledged) << "an acknowledged transaction is missing";
    EXPECT_LE(found.marker, life.submitted);
    const Content expected = content_after(workload, found.marker);
    EXPECT_EQ(found.fixed, expected.fixed);
    EXPECT_EQ(found.variable, expected.variable);
    if (keep != nullptr) {
        *keep = std::move(store);
        return found.marker;
    }
    SimStore second(crash_store(), std::move(again), 6);
    EXPECT_TRUE(second.open().ok());
    const Content twice = read_content(second, kFixed, kVariable);
    EXPECT_EQ(twice.fixed, found.fixed);
    EXPECT_EQ(twice.variable, found.variable);
    return found.marker;
}

struct Outcome {
    Life life;
    std::unique_ptr<SimDisk> power;
    std::unique_ptr<SimDisk> process;
    std::uint64_t steps = 0;
    std::uint64_t growth_pieces = 0;  // submitted
    std::uint32_t chunks = 0;         // that pages were taken from, at the end
    bool tables_made = false;
};

// As a load would that never ends: the workload is small, and the file is to grow all the same.
void hold_most_pages(Space& space) {
    constexpr std::uint64_t kLeft = 60;
    while (space.available() > kLeft) {
        space.reserve(static_cast<std::uint32_t>(space.available() - kLeft), 1);
    }
}

// The workload from new files, with a crash at `step` (0: none).
Outcome crash_run(std::uint64_t seed, std::uint64_t transactions, std::uint64_t step,
                  std::uint32_t checkpoint_slice = 16) {
    SimDiskOptions options;
    options.seed = seed;
    SimStore store(crash_store(checkpoint_slice), std::make_unique<SimDisk>(options), seed);
    if (step != 0) store.disk->crash_at(step);
    Outcome outcome;
    store.disk->observe([&](std::uint64_t, SimStep) {
        const DiskRequest* request = store.disk->submitting();
        outcome.growth_pieces += request != nullptr && request->kind == DiskRequest::Kind::kGrow;
    });
    if (store.open().ok()) {
        SimClient& client = store.connect();
        const auto make = [&](const Schema& schema) {
            const std::string encoded = schema.encode();
            TransactionBytes bytes;
            bytes.operation(OperationKind::kCreateTable, TableId{}, {},
                            std::as_bytes(std::span(encoded.data(), encoded.size())));
            return store.commit(client, bytes).error == Error::kOk;
        };
        outcome.tables_made = make(fixed_schema()) && make(variable_schema());
        if (outcome.tables_made) {
            const Workload workload(seed, kFixed, kVariable);
            Space& space = store.engine->core().storage().space;
            hold_most_pages(space);
            outcome.life = run(store, client, workload, {}, 1, transactions);
            outcome.chunks = space.chunk_count();
            if (step == 0) store.stop();
        }
    }
    outcome.steps = store.disk->steps();
    outcome.power = store.disk->power_loss(seed + step);
    outcome.process = store.disk->process_crash(seed + step);
    return outcome;
}

std::uint64_t stride() {
    const char* set = std::getenv("BIDSTORE_CRASH_STRIDE");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
}

void crash_at_every_step(std::uint64_t seed, std::uint64_t transactions,
                         std::uint32_t checkpoint_slice) {
    const Outcome whole = crash_run(seed, transactions, 0, checkpoint_slice);
    ASSERT_EQ(whole.life.acknowledged, transactions);
    ASSERT_GT(whole.steps, 300u);
    ASSERT_GE(whole.growth_pieces, 8u) << "the file grows by a chunk at least";
    ASSERT_GE(whole.chunks, 2u) << "and pages are taken from it";
    std::uint64_t recovered = 0;
    for (std::uint64_t step = 1; step <= whole.steps; step += stride()) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " +
                     std::to_string(whole.steps) + ", seed " + std::to_string(seed));
        Outcome crashed = crash_run(seed, transactions, step, checkpoint_slice);
        if (!crashed.tables_made) continue;  // OpeningCanBeCutOffAnywhere has these
        const Workload workload(seed, kFixed, kVariable);
        check_recovered(std::move(crashed.power), workload, crashed.life);
        check_recovered(std::move(crashed.process), workload, crashed.life);
        ++recovered;
        if (::testing::Test::HasFailure()) break;
    }
    EXPECT_GT(recovered, whole.steps / stride() / 2);
}

TEST(Crash, EveryDiskStepKeepsThePromises) { crash_at_every_step(1, 200, 16); }

TEST(Crash, EveryDiskStepWithCommitsBetweenTheSlicesOfCheckpointsKeepsThePromises) {
    crash_at_every_step(3, 150, 1);
}

TEST(Crash, OpeningCanBeCutOffAnywhere) {
    for (std::uint64_t step = 1; step < 200; ++step) {
        SCOPED_TRACE("crash at step " + std::to_string(step));
        Outcome crashed = crash_run(2, 1, step);
        for (auto* disk : {&crashed.power, &crashed.process}) {
            SimStore store(crash_store(), std::move(*disk), 5);
            const Status opened = store.open();
            ASSERT_TRUE(opened.ok()) << opened.failure().what;
            EXPECT_EQ(store.verify(), "");
        }
        if (crashed.life.acknowledged == 1) break;
    }
}

// Crash, recover, crash in the recovery, recover, work on, crash: three lives deep, by seed.
TEST(Crash, RecoveriesCrashToo) {
    for (std::uint64_t seed = 10; seed < 40; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::mt19937_64 random(seed);
        const Workload workload(seed, kFixed, kVariable);
        Outcome first = crash_run(seed, 40, 150 + random() % 300);
        if (!first.tables_made) continue;
        auto disk = random() % 2 ? std::move(first.power) : std::move(first.process);
        for (int attempt = 0; attempt < 2; ++attempt) {
            SimStore cut(crash_store(), std::move(disk), seed);
            cut.disk->crash_at(1 + random() % 40);
            static_cast<void>(cut.open());
            disk =
                random() % 2 ? cut.disk->power_loss(random()) : cut.disk->process_crash(random());
        }
        std::unique_ptr<SimStore> store;
        const std::uint64_t marker = check_recovered(std::move(disk), workload, first.life, &store);
        if (HasFailure()) break;
        Content content = content_after(workload, marker);
        SimClient& client = store->connect();
        store->disk->crash_at(store->disk->steps() + 20 + random() % 200);
        const Life life = run(*store, client, workload, content, marker + 1, marker + 40);
        check_recovered(store->disk->power_loss(random()), workload, life);
        if (HasFailure()) break;
    }
}

}  // namespace
}  // namespace bidstore
