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
    void put(std::uint64_t id, std::uint64_t n) {
        std::vector<std::byte> value(rows_schema().fixed_bytes());
        std::memcpy(value.data(), &n, sizeof n);
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, key_of(id), value);
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

    std::unique_ptr<SimStore> store;
    SimClient* writer = nullptr;
    SimClient* reader = nullptr;
    TableId table;
    std::optional<PoolView> view;
};

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
    EXPECT_GE(retired(), 20u);  // nothing was reclaimed
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

TEST_F(LeaseTest, SlotThatNeverLeavesPinAllStopsReclaimForAMomentOnly) {
    start(small_store());
    announce(*reader, 2, 100, kSlotPinAll);
    for (std::uint64_t n = 0; n < 10; ++n) put(1, n);
    EXPECT_GE(retired(), 18u);
    pass(25 * kMillisecondNs);
    EXPECT_EQ(retired(), 0u);
    EXPECT_GE(view->revoked()[reader->segment().first_slot() + 2].load(), 100u);
}

TEST_F(LeaseTest, SlotsThatTakeTurnsInPinAllStopReclaimForAMomentOnly) {
    start(small_store());
    SlotOwner honest = slot_of(*writer, 0);
    std::uint32_t most = 0;
    std::uint64_t turns = 0;
    for (std::uint64_t ms = 0; ms < 600; ms += 3) {
        const std::uint64_t turn = ms / 15;
        if (turn >= turns) {  // the next one comes before the last one leaves
            announce(*reader, turn % 2, ++turns, kSlotPinAll);
            store->round();
            reader->segment().slots()[(turn + 1) % 2].word.store(kSlotIdle);
        }
        put(1, ms);
        store->clock.advance_ns(3 * kMillisecondNs);
        store->round();
        most = std::max(most, retired());
    }
    EXPECT_GE(most, 40u);   // while it lasts: two versions a commit
    EXPECT_LE(most, 160u);  // of the 400 in all this time
    EXPECT_EQ(counter(Counter::kHostileEvents), 0u);
    honest.begin();
    EXPECT_EQ(read(honest, 1), 597u);
    EXPECT_TRUE(honest.valid());
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
