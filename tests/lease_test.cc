// Leases: how long a snapshot is honoured, what it keeps meanwhile, and what ends it.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <thread>
#include <vector>

#include "engine/client_port.h"
#include "engine/page/search.h"
#include "shm/reader_slot.h"
#include "shm/stats.h"
#include "tests/sim.h"
#include "tests/snapshot_view.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kMillisecondNs = 1'000'000;

Schema rows_schema() {
    auto schema = Schema::make("rows",
                               {{"id", ColumnType::kU64, 0},
                                {"n", ColumnType::kU64, 0},
                                {"pad", ColumnType::kFixed, 1000}},
                               1);
    CHECK(schema.ok());
    return *schema;
}

std::array<std::byte, 8> key_of(std::uint64_t id) {
    std::array<std::byte, 8> key{};
    encode_key_integer(key.data(), id, 8, false);
    return key;
}

// Its pool is smaller than what is written, and leases and budgets never end.
SimStoreOptions starving_store() {
    SimStoreOptions options = small_store();
    options.frames = 256;
    options.engine.max_snapshot_age_ns = 3'600'000 * kMillisecondNs;
    options.engine.max_held_bytes = 1u << 30;
    return options;
}
constexpr std::uint64_t kSlowNs = 3 * kMillisecondNs;  // an operation of the device

class LeaseTest : public ::testing::Test {
  protected:
    void start(const SimStoreOptions& options) {
        store = std::make_unique<SimStore>(options, std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store->open().ok());
        writer = &store->connect();
        reader = &store->connect(Rights::kReader);
        table = store->create_table(*writer, rows_schema());
        auto descriptor = store->pool->open_read_only();
        ASSERT_TRUE(descriptor.ok());
        auto mapped = PoolView::map(std::move(*descriptor));
        ASSERT_TRUE(mapped.ok());
        view.emplace(std::move(*mapped));
    }
    void put(std::uint64_t id, std::uint64_t n) { put_many(id, 1, n); }
    // `rows` of them from `id` on, in one transaction.
    void put_many(std::uint64_t id, std::uint64_t rows, std::uint64_t n) {
        std::vector<std::byte> value(rows_schema().fixed_bytes());
        std::memcpy(value.data(), &n, sizeof n);
        TransactionBytes bytes;
        for (; rows > 0; --rows, ++id) {
            bytes.operation(OperationKind::kPut, table, key_of(id), value);
        }
        ASSERT_EQ(store->commit(*writer, bytes).error, Error::kOk);
    }
    SlotOwner slot_of(SimClient& client, std::uint32_t slot) {
        return SlotOwner(client.segment().slots()[slot], view->published(),
                         view->revoked()[client.segment().first_slot() + slot]);
    }
    // n of a row as the slot's snapshot sees it; all pages are in the pool.
    std::uint64_t read(SlotOwner& slot, std::uint64_t id) {
        const TreeShape shape(rows_schema(), table);
        const PageId root = store->engine->core().storage().catalog->find(table)->tree.root();
        const Landing landing = descend(shape, root, key_of(id).data(), [&](PageId page) {
            return see_page(*view, slot, page).page;
        });
        if (landing.state != Landed::kLeaf) return ~0ull;
        const LeafView rows(landing.bytes, shape.leaf);
        const int row = rows.find(key_of(id).data());
        if (row < 0) return ~0ull;
        std::uint64_t n = 0;
        std::memcpy(&n, rows.value(static_cast<std::uint32_t>(row)).data(), sizeof n);
        return n;
    }
    // Long enough for everything that happens a few times a second.
    void pass(std::uint64_t by_ns) {
        store->clock.advance_ns(by_ns);
        for (int i = 0; i < 5; ++i) {
            store->round();
            store->clock.advance_ns(11 * kMillisecondNs);
        }
        store->run_until([] { return false; }, 20);
    }
    std::uint32_t retired() { return store->engine->core().storage().pool.retired(); }
    std::uint64_t counter(Counter counter) {
        return view->stats().counter[static_cast<std::uint32_t>(counter)].load();
    }
    bool cut_off(const SimClient& client) {
        return store->clients.cut_off_clients.contains(client.id());
    }
    // As a client would that does not keep to SlotOwner.
    void announce(SimClient& client, std::uint32_t slot, std::uint64_t episode,
                  std::uint64_t word) {
        client.segment().slots()[slot].episode.store(episode);
        client.segment().slots()[slot].word.store(word);
    }
    std::uint64_t visible() { return view->published().visible.load(); }
    std::uint64_t checkpoints() {
        return store->engine->core().storage().checkpointer->totals().finished;
    }

    std::unique_ptr<SimStore> store;
    SimClient* writer = nullptr;
    SimClient* reader = nullptr;
    TableId table;
    std::optional<PoolView> view;
};

TEST(HeldSnapshots, ThoseOfPinnedSlotsMayBeAnywhereFromTheirBoundOn) {
    HeldSnapshots held;
    held.pinned_from = 10;
    EXPECT_FALSE(held.empty());
    EXPECT_TRUE(held.any_below(11));
    EXPECT_FALSE(held.any_below(10));
    EXPECT_TRUE(held.any_in(1, 11));
    EXPECT_TRUE(held.any_in(20, 21));
    EXPECT_FALSE(held.any_in(1, 10));
    EXPECT_TRUE(held.any_reading(1, 11));
    EXPECT_FALSE(held.any_reading(1, 10));
    held.csns = {4};
    held.looked = {7};
    EXPECT_TRUE(held.any_below(5));
    EXPECT_TRUE(held.any_in(4, 5));
    EXPECT_TRUE(held.any_reading(7, 8));
    EXPECT_FALSE(held.any_reading(4, 5));
    held.clear();
    EXPECT_TRUE(held.empty());
    EXPECT_FALSE(held.any_below(100));
    EXPECT_FALSE(held.any_in(1, 100));
}

TEST_F(LeaseTest, OldSnapshotIsRevokedAndItsVersionsAreReclaimed) {
    start(small_store());
    put(1, 10);
    SlotOwner slot = slot_of(*reader, 0);
    slot.begin();
    for (std::uint64_t n = 11; n < 30; ++n) put(1, n);
    pass(4'000 * kMillisecondNs);
    EXPECT_EQ(read(slot, 1), 10u);
    EXPECT_TRUE(slot.valid());
    EXPECT_GT(retired(), 0u);
    pass(1'200 * kMillisecondNs);
    EXPECT_FALSE(slot.valid());
    EXPECT_EQ(retired(), 0u);
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 1u);
    EXPECT_EQ(counter(Counter::kHostileEvents), 0u);
    slot.end();
    slot.begin();
    EXPECT_EQ(read(slot, 1), 29u);
    EXPECT_TRUE(slot.valid());
    slot.end();
    EXPECT_FALSE(cut_off(*reader));
}

TEST_F(LeaseTest, SnapshotKeepsTheVersionsThatItSeesAndNoOthers) {
    start(small_store());
    put(1, 10);
    pass(0);
    ASSERT_EQ(retired(), 0u);
    SlotOwner first = slot_of(*reader, 0);
    SlotOwner second = slot_of(*reader, 1);
    first.begin();
    for (std::uint64_t n = 11; n <= 40; ++n) put(1, n);
    second.begin();
    for (std::uint64_t n = 41; n <= 70; ++n) put(1, n);
    pass(0);
    // Each commit makes a version of the row's leaf and of the sessions' leaf: two per snapshot.
    EXPECT_EQ(retired(), 4u);
    EXPECT_EQ(read(first, 1), 10u);
    EXPECT_EQ(read(second, 1), 40u);
    EXPECT_TRUE(first.valid() && second.valid());
    first.end();
    pass(0);
    EXPECT_EQ(retired(), 2u);
    EXPECT_EQ(read(second, 1), 40u);
    second.end();
    pass(0);
    EXPECT_EQ(retired(), 0u);
}

TEST_F(LeaseTest, TwoSnapshotsOfOneCsnKeepItsVersionsUntilBothEnd) {
    start(small_store());
    put(1, 10);
    SlotOwner first = slot_of(*reader, 0);
    SlotOwner second = slot_of(*writer, 3);
    first.begin();
    second.begin();
    for (std::uint64_t n = 11; n <= 20; ++n) put(1, n);
    first.end();
    pass(0);
    EXPECT_EQ(retired(), 2u);
    EXPECT_EQ(read(second, 1), 10u);
    EXPECT_TRUE(second.valid());
    second.end();
    pass(0);
    EXPECT_EQ(retired(), 0u);
}

TEST_F(LeaseTest, SnapshotThatHoldsTooMuchIsRevokedBeforeItsTime) {
    SimStoreOptions options = small_store();
    options.engine.max_held_bytes = 40 * kPageBytes;
    start(options);
    for (std::uint64_t id = 0; id < 300; ++id) put(id, 1);  // three rows a leaf
    SlotOwner old = slot_of(*reader, 0);
    SlotOwner young = slot_of(*reader, 1);
    old.begin();
    for (std::uint64_t id = 0; id < 90; ++id) put(id, 2);
    young.begin();
    EXPECT_TRUE(old.valid());
    for (std::uint64_t id = 100; id < 200; ++id) put(id, 2);
    // What a checkpoint under way may hold is not put down to readers.
    const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    EXPECT_TRUE(store->run_until([&] { return !checkpointer.running(); }));
    pass(0);
    EXPECT_FALSE(old.valid());
    EXPECT_TRUE(young.valid());
    EXPECT_EQ(read(young, 150), 1u);
    EXPECT_EQ(counter(Counter::kHostileEvents), 0u);
    EXPECT_LE(retired(), 41u);
}

// The engine took it after 20 ms without a frame, though all that it held was one: what filled the
// pool were pages that a checkpoint had not written yet, as the device was slow.
TEST_F(LeaseTest, SnapshotOutlivesACheckpointThatGivesMoreFramesBack) {
    start(starving_store());
    for (std::uint64_t id = 0; id < 300; ++id) put(id, 1);
    SlotOwner old = slot_of(*reader, 0);
    old.begin();
    old.rest();  // it waits for a page, say: of what it looked up it keeps nothing
    put(0, 2);
    store->disk->serve_one_by_one(store->clock, kSlowNs);
    for (std::uint64_t id = 300; id < 3000; id += 30) put_many(id, 30, 1);
    EXPECT_GT(checkpoints(), 2u);
    EXPECT_TRUE(old.valid());
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 0u);
}

TEST_F(LeaseTest, SnapshotThatHoldsMostOfThePoolPaysBeforeItsTime) {
    start(starving_store());
    for (std::uint64_t id = 0; id < 1000; ++id) put(id, 1);
    SlotOwner old = slot_of(*reader, 0);
    old.begin();
    store->disk->serve_one_by_one(store->clock, kSlowNs);
    for (std::uint64_t id = 0; id < 1000 && old.valid(); ++id) put(id, 2);
    // Where a checkpoint is under way: the pages that it writes stay for the versions below them.
    EXPECT_FALSE(old.valid());
    EXPECT_TRUE(store->engine->core().storage().checkpointer->running());
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 1u);
}

// The oldest snapshot of all used to pay for what others held, however little it held itself.
TEST_F(LeaseTest, WhoHoldsMostPaysAndNotTheOldestOfAnotherClient) {
    SimStoreOptions options = small_store();
    options.engine.max_held_bytes = 72 * kPageBytes;  // what three such snapshots keep, not four
    start(options);
    for (std::uint64_t id = 0; id < 60; ++id) put(id, 1);  // three rows a leaf
    SlotOwner modest = slot_of(*writer, 0);
    modest.begin();
    std::vector<SlotOwner> greedy;
    greedy.reserve(4);
    for (std::uint32_t slot = 0; slot < 4; ++slot) {
        for (std::uint64_t id = 0; id < 60; ++id) put(id, slot + 2);
        greedy.push_back(slot_of(*reader, slot));
        greedy.back().begin();
    }
    for (std::uint64_t id = 0; id < 60; ++id) put(id, 8);
    const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    EXPECT_TRUE(store->run_until([&] { return !checkpointer.running(); }));
    pass(0);
    EXPECT_TRUE(modest.valid());
    EXPECT_EQ(read(modest, 7), 1u);
    EXPECT_FALSE(greedy.front().valid()) << "its oldest";
    EXPECT_TRUE(greedy[1].valid()) << "what the others keep is less than the limit";
    EXPECT_EQ(read(greedy.back(), 7), 5u);
    EXPECT_EQ(counter(Counter::kHostileEvents), 0u);
}

// Many together may hold more than one may: only frames that are needed are taken from them.
TEST_F(LeaseTest, ClientsBelowTheirBudgetsKeepTheirSnapshots) {
    SimStoreOptions options = small_store();
    options.engine.max_held_bytes = 40 * kPageBytes;
    start(options);
    for (std::uint64_t id = 0; id < 60; ++id) put(id, 1);
    std::vector<SlotOwner> slots;
    slots.reserve(4);
    for (std::uint64_t n = 0; n < 4; ++n) {
        slots.push_back(slot_of(store->connect(Rights::kReader), 0));
        slots.back().begin();
        for (std::uint64_t id = 0; id < 60; ++id) put(id, n + 2);
    }
    const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    EXPECT_TRUE(store->run_until([&] { return !checkpointer.running(); }));
    pass(0);
    EXPECT_GT(retired(), 41u);
    for (const SlotOwner& slot : slots) EXPECT_TRUE(slot.valid());
}

TEST_F(LeaseTest, PinAllIsForAMomentOnly) {
    start(small_store());
    put(1, 10);
    SlotOwner slot = slot_of(*reader, 0);
    slot.begin();
    store->round();
    slot.pin_all();
    for (std::uint64_t n = 11; n <= 20; ++n) put(1, n);
    EXPECT_GE(retired(), 20u);  // all of them are newer than the snapshot
    slot.unpin();
    pass(0);
    EXPECT_TRUE(slot.valid());
    EXPECT_EQ(read(slot, 1), 10u);
    EXPECT_EQ(retired(), 2u);
    slot.pin_all();
    put(1, 21);
    pass(25 * kMillisecondNs);
    EXPECT_FALSE(slot.valid());
    EXPECT_EQ(retired(), 0u);
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 1u);
}

TEST_F(LeaseTest, SlotThatNeverLeavesPinAllKeepsWhatIsNewForAMomentOnly) {
    start(small_store());
    announce(*reader, 2, 100, kSlotPinAll);
    for (std::uint64_t n = 0; n < 10; ++n) put(1, n);
    EXPECT_GE(retired(), 18u);
    pass(25 * kMillisecondNs);
    EXPECT_EQ(retired(), 0u);
    EXPECT_GE(view->revoked()[reader->segment().first_slot() + 2].load(), 100u);
}

// They used to stop all reclaim, and after a while each lost the snapshot that it was to begin.
TEST_F(LeaseTest, SlotsThatTakeTurnsInPinAllStopNoReclaimAndLoseNothing) {
    start(small_store());
    SlotOwner honest = slot_of(*writer, 0);
    SimClient* const clients[] = {reader, &store->connect(Rights::kReader)};
    std::uint32_t most = 0;
    for (std::uint64_t turn = 1; turn <= 400; ++turn) {
        SimClient& next = *clients[turn % 2];
        announce(next, 0, turn, kSlotPinAll);  // before the last one leaves
        clients[(turn + 1) % 2]->segment().slots()[0].word.store(kSlotIdle);
        put(1, turn);
        if (turn % 20 == 0) store->clock.advance_ns(10 * kMillisecondNs);
        store->round();
        most = std::max(most, retired());
    }
    EXPECT_GE(most, 2u) << "what was replaced since the last scan but one: two versions a commit";
    EXPECT_LE(most, 8u);
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 0u);
    EXPECT_EQ(counter(Counter::kHostileEvents), 0u);
    honest.begin();
    EXPECT_EQ(read(honest, 1), 400u);
    EXPECT_TRUE(honest.valid());
}

// A reader that is put aside between R1 and R3 for some commits, and goes on.
TEST_F(LeaseTest, SnapshotThatBeginsSlowlyHasItsVersions) {
    SimStoreOptions options = small_store();
    options.engine.max_pin_all_ns = 1'000 * kMillisecondNs;
    start(options);
    for (std::uint64_t n = 1; n <= 10; ++n) put(1, n);
    pass(0);
    ASSERT_EQ(retired(), 0u);
    const std::uint64_t before = visible();
    announce(*reader, 0, 1, kSlotPinAll);  // R1, R2
    for (std::uint64_t n = 11; n <= 15; ++n) put(1, n);
    pass(0);
    EXPECT_EQ(retired(), 10u);
    announce(*reader, 0, 1, before);  // R3
    for (std::uint64_t n = 16; n <= 20; ++n) put(1, n);
    pass(0);
    EXPECT_EQ(retired(), 2u);
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 0u);
    EXPECT_EQ(counter(Counter::kHostileEvents), 0u);
}

TEST_F(LeaseTest, PinOfAWalkKeepsWhatIsNewerThanItsSnapshotAndNothingOlder) {
    SimStoreOptions options = small_store();
    options.engine.max_pin_all_ns = 1'000 * kMillisecondNs;
    start(options);
    put(1, 10);
    SlotOwner old = slot_of(*writer, 0);
    old.begin();
    for (std::uint64_t n = 11; n <= 20; ++n) put(1, n);
    SlotOwner walker = slot_of(*reader, 0);
    walker.begin();
    for (std::uint64_t n = 21; n <= 25; ++n) put(1, n);
    pass(0);
    EXPECT_EQ(retired(), 2u + 2u);
    walker.pin_all();
    for (std::uint64_t n = 26; n <= 30; ++n) put(1, n);
    pass(0);
    EXPECT_EQ(retired(), 2u + 2u + 10u);
    EXPECT_EQ(read(old, 1), 10u);
    old.end();
    pass(0);
    EXPECT_EQ(retired(), 2u + 10u);
    walker.unpin();
    pass(0);
    EXPECT_EQ(retired(), 2u);
    EXPECT_EQ(read(walker, 1), 20u);
    EXPECT_TRUE(walker.valid());
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 0u);
}

TEST_F(LeaseTest, WhatAPinnedSlotKeepsIsPutDownToItsClient) {
    SimStoreOptions options = small_store();
    options.engine.max_pin_all_ns = 4'000 * kMillisecondNs;
    options.engine.max_held_bytes = 40 * kPageBytes;
    start(options);
    put(1, 10);
    SlotOwner modest = slot_of(*writer, 0);
    SlotOwner walker = slot_of(*reader, 0);
    modest.begin();
    walker.begin();
    pass(0);
    walker.pin_all();
    for (std::uint64_t n = 11; n <= 40; ++n) put(1, n);
    const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    EXPECT_TRUE(store->run_until([&] { return !checkpointer.running(); }));
    pass(0);
    EXPECT_FALSE(walker.valid());
    EXPECT_EQ(retired(), 2u);
    EXPECT_TRUE(modest.valid());
    EXPECT_EQ(read(modest, 1), 10u);
}

// With one snapshot in all of them, no slot is in PIN_ALL for long, and one always is.
TEST_F(LeaseTest, SlotsOfOneSnapshotThatTakeTurnsInPinAllGoTogether) {
    constexpr std::uint32_t kPagesMost = 40;
    constexpr std::uint32_t kPutsATick = 10;
    SimStoreOptions options = small_store();
    options.engine.max_held_bytes = kPagesMost * kPageBytes;
    start(options);
    put(1, 1);
    const std::uint64_t before = visible();
    const std::uint32_t slots = reader->segment().slot_count();
    ASSERT_GE(slots, 4u);
    for (std::uint32_t slot = 0; slot < slots; ++slot) announce(*reader, slot, 1, before);
    pass(0);
    std::uint32_t most = 0;
    for (std::uint64_t turn = 0; turn < 100; ++turn) {
        reader->segment().slots()[turn % slots].word.store(kSlotPinAll);
        reader->segment().slots()[(turn + slots - 1) % slots].word.store(before);
        for (std::uint64_t n = 0; n < kPutsATick; ++n) put(1, kPutsATick * turn + n);
        store->clock.advance_ns(10 * kMillisecondNs);
        store->round();
        most = std::max(most, retired());
    }
    EXPECT_GT(most, kPagesMost);
    EXPECT_LE(most, kPagesMost + 45) << "two ticks of a writer that replaces two pages a commit";
    EXPECT_LE(retired(), 2 * kPutsATick);
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), slots);
}

// Pages whose rows were deleted below a beginning snapshot may still be read by it.
TEST_F(LeaseTest, QuarantineEndsForSlotsInPinAllByTheirBound) {
    SimStoreOptions options = small_store();
    options.engine.max_pin_all_ns = 200'000 * kMillisecondNs;
    options.engine.max_snapshot_age_ns = options.engine.max_pin_all_ns;
    options.engine.checkpoint_interval_ns = 100 * kMillisecondNs;
    start(options);
    for (std::uint64_t id = 0; id < 300; ++id) put(id, 1);  // three rows a leaf
    pass(2'000 * kMillisecondNs);
    const Space& space = store->engine->core().storage().space;
    ASSERT_EQ(space.quarantined(), 0u);
    announce(*reader, 0, 1, kSlotPinAll);
    TransactionBytes erase;
    erase.operation(OperationKind::kDeleteRange, table, key_of(0), key_of(300));
    ASSERT_EQ(store->commit(*writer, erase).error, Error::kOk);
    pass(2'000 * kMillisecondNs);
    const auto freed = space.quarantined();
    EXPECT_GT(freed, 50u);
    announce(*reader, 0, 2, kSlotPinAll);  // is not below what is visible now
    pass(2'000 * kMillisecondNs);
    EXPECT_EQ(space.quarantined(), 0u);
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 0u);
}

TEST_F(LeaseTest, ImpossibleWordsAreCountedAndCutOffAfterAFew) {
    start(small_store());
    put(1, 10);
    pass(0);
    SlotOwner honest = slot_of(*writer, 0);
    honest.begin();
    const std::uint64_t words[] = {visible() + 1, 1, kSlotPinAll - 1, visible() - 1};
    std::uint64_t episode = 10;
    std::uint64_t events = 0;
    for (const std::uint64_t word : words) {
        EXPECT_FALSE(cut_off(*reader));
        announce(*reader, 1, ++episode, word);
        pass(0);
        EXPECT_GE(counter(Counter::kHostileEvents), ++events);
        EXPECT_EQ(view->revoked()[reader->segment().first_slot() + 1].load(), episode);
    }
    EXPECT_TRUE(cut_off(*reader));
    EXPECT_NE(store->clients.cut_off_clients.at(reader->id()).find("snapshot"), std::string::npos);
    EXPECT_TRUE(honest.valid());
    EXPECT_FALSE(cut_off(*writer));
    put(1, 11);
    EXPECT_EQ(read(honest, 1), 10u);
}

TEST_F(LeaseTest, WordThatChangesWithinItsEpisodeIsImpossible) {
    start(small_store());
    put(1, 10);
    SlotOwner slot = slot_of(*reader, 0);
    slot.begin();
    pass(0);
    ASSERT_TRUE(slot.valid());
    put(1, 11);
    announce(*reader, 0, slot.episode(), visible());
    pass(0);
    EXPECT_FALSE(slot.valid());
    EXPECT_EQ(counter(Counter::kHostileEvents), 1u);
}

TEST_F(LeaseTest, OldCsnAfterPinAllIsImpossibleToo) {
    start(small_store());
    put(1, 10);
    put(1, 11);
    pass(0);
    announce(*reader, 0, 50, kSlotPinAll);
    store->round();
    put(1, 12);  // its publication scans the slots
    announce(*reader, 0, 50, 2);
    pass(0);
    EXPECT_EQ(counter(Counter::kHostileEvents), 1u);
    EXPECT_EQ(view->revoked()[reader->segment().first_slot()].load(), 50u);
}

TEST_F(LeaseTest, DetachRevokesAllThatTheClientHeld) {
    start(small_store());
    put(1, 10);
    std::vector<SlotOwner> slots;
    for (std::uint32_t i = 0; i < reader->segment().slot_count(); ++i) {
        slots.push_back(slot_of(*reader, i));
        slots.back().begin();
    }
    SlotOwner other = slot_of(*writer, 0);
    other.begin();
    put(1, 11);
    for (const SlotOwner& slot : slots) EXPECT_TRUE(slot.valid());
    store->disconnect(*reader);
    for (const SlotOwner& slot : slots) EXPECT_FALSE(slot.valid());
    EXPECT_TRUE(other.valid());
    other.end();
    put(1, 12);
    pass(0);
    EXPECT_EQ(retired(), 0u);
    ASSERT_EQ(store->clients.detached_clients.size(), 1u);
}

// Cut off, and the daemon goes on. A thread of that process that takes a slot over only now began
// above all that the detach had revoked, in a slot that no scan looks at any more: it believed what
// it read in frames that had been used again.
TEST_F(LeaseTest, OwnerThatComesAfterTheDetachIsNeverBelieved) {
    start(small_store());
    put(1, 10);
    SlotOwner used = slot_of(*reader, 0);
    used.begin();
    used.end();
    store->disconnect(*reader);
    ASSERT_EQ(store->clients.detached_clients.size(), 1u);
    SlotOwner late = slot_of(*reader, 0);
    SlotOwner fresh = slot_of(*reader, 1);
    for (SlotOwner* owner : {&late, &fresh}) {
        owner->begin();
        for (std::uint64_t n = 11; n < 15; ++n) put(1, n);
        pass(0);
        EXPECT_EQ(retired(), 0u) << "nothing is kept for it";
        EXPECT_FALSE(owner->valid());
        owner->end();
    }
}

TEST_F(LeaseTest, NextOwnerOfASlotBeginsAboveWhatIsDead) {
    start(small_store());
    put(1, 10);
    SlotOwner dead = slot_of(*reader, 0);
    for (int i = 0; i < 5; ++i) {
        dead.begin();
        dead.end();
    }
    dead.begin();
    announce(*reader, 1, ~0ull, visible());  // would leave no number for those who come
    store->round();
    store->disconnect(*reader);
    ASSERT_FALSE(dead.valid());
    SessionId session;
    session.bytes[0] = 9;
    SimClient next(1000, reader->segment().first_slot(), session, Rights::kReader);
    store->clients.commands.push_back(next.attach_command());
    ASSERT_TRUE(store->run_until([&] { return store->clients.attach_answers.contains(1000); }));
    for (std::uint32_t i = 0; i < 2; ++i) {
        SlotOwner owner = slot_of(next, i);
        owner.begin();
        if (i == 0) {
            EXPECT_GT(owner.episode(), dead.episode());
        }
        put(1, 11);
        pass(0);
        EXPECT_TRUE(owner.valid());
        EXPECT_FALSE(dead.valid());
        owner.end();
    }
    store->disconnect(next);
}

// A hostile number must not use up the episodes of those who come, so what was revoked of an
// episode ended 2^40 above what was dead: a reader with more behind it than that (some days of
// nothing but short snapshots) believed a snapshot that had ended, and read frames of others.
TEST_F(LeaseTest, ReaderWithAnyNumberOfEpisodesBehindItLosesItsSnapshot) {
    start(small_store());
    put(1, 10);
    std::uint64_t episodes = (std::uint64_t{1} << 42) + 7;
    for (const bool detached : {false, true}) {
        store->clock.advance_ns(2 * episodes);
        reader->segment().slots()[0].episode.store(episodes);  // as it is after so many
        episodes += episodes;
        SlotOwner slot = slot_of(*reader, 0);
        slot.begin();
        pass(0);
        EXPECT_TRUE(slot.valid());
        if (detached) store->disconnect(*reader);
        if (!detached) pass(5'200 * kMillisecondNs);
        EXPECT_FALSE(slot.valid());
        slot.end();
    }
    EXPECT_EQ(counter(Counter::kHostileEvents), 0u);
}

// One that could not be revoked kept what it held, whatever its budget, and was found to be the
// greediest for ever, which let the others be greedy.
TEST_F(LeaseTest, EpisodeThatNoReaderCanHaveReachedHoldsNothingAndIsCutOff) {
    SimStoreOptions options = small_store();
    options.engine.max_held_bytes = 40 * kPageBytes;
    for (const std::uint64_t episode : {std::uint64_t{1} << 41, ~std::uint64_t{0}}) {
        start(options);
        put(1, 10);
        pass(0);
        announce(*reader, 1, episode, visible());
        EXPECT_TRUE(store->run_until([&] { return cut_off(*reader); }));
        EXPECT_NE(store->clients.cut_off_clients.at(reader->id()).find("episode"),
                  std::string::npos);
        for (std::uint64_t id = 0; id < 300; ++id) put(id, 1);
        const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
        EXPECT_TRUE(store->run_until([&] { return !checkpointer.running(); }));
        pass(0);
        EXPECT_EQ(retired(), 0u) << "before it is let go";
        store->disconnect(*reader);
        const std::uint64_t revoked = view->revoked()[reader->segment().first_slot() + 1].load();
        EXPECT_LT(revoked, std::uint64_t{1} << 35) << "those who come need numbers, too";
        put(1, 11);
    }
}

// A scan loads word and episode one after the other, and the reader does not wait in between. Its
// snapshots last for some scans each, so an old word beside a new episode would look impossible.
TEST_F(LeaseTest, HastyReaderIsNeverTakenForHostile) {
    start(small_store());
    SimClients seam;
    StatsWriter stats(store->pool->stats());
    ClientPort port(seam, *store->pool, store->clock, stats,
                    {5'000 * kMillisecondNs, 5'000 * kMillisecondNs});
    port.attach(reader->attach_command(), 0);
    std::atomic<std::uint64_t>& newest = store->pool->header().published.visible;
    std::atomic<bool> done{false};
    std::thread hasty([&] {
        SlotOwner slot = slot_of(*reader, 0);
        for (std::uint64_t i = 0; i < 400'000; ++i) {
            const std::uint64_t begun = slot.begin().value;
            // Some scans long at the most; a reader that waits for ever would end the test.
            for (std::uint64_t spins = 0; spins < 200 && newest.load() < begun + i % 4; ++spins) {
            }
            slot.end();
        }
        done.store(true);
    });
    while (!done.load()) {
        newest.store(newest.load() + 1);
        port.scan();
    }
    hasty.join();
    EXPECT_EQ(counter(Counter::kHostileEvents), 0u);
    EXPECT_TRUE(seam.cut_off_clients.empty());
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 0u);
}

}  // namespace
}  // namespace bidstore
