// Whose transactions take long, and when theirs are taken: numbers alone, and the turns that the
// port gives by them. That it is enough is for hostile_share_test to say.
#include "engine/heavy_clients.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/planted_record.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kShortNs = 5'000;

class HeavyClientsTest : public ::testing::Test {
  protected:
    // What one of the client's takes, the engine's thread being put aside for some of it.
    bool takes(HeavyClients::Mark& mark, std::uint64_t ran_ns, std::uint64_t aside_ns = 0) {
        const std::uint64_t began_ns = clock.monotonic_ns();
        heavy.begin(began_ns);
        clock.advance_ns(ran_ns);
        clock.put_aside_ns(aside_ns);
        return heavy.took(mark, began_ns, clock.monotonic_ns());
    }
    bool is_heavy(const HeavyClients::Mark& mark) const {
        return HeavyClients::heavy(mark, clock_now());
    }
    std::uint64_t rest_ns() const { return heavy.rest_ns(clock_now()); }
    std::uint64_t clock_now() const { return const_cast<SimClock&>(clock).monotonic_ns(); }

    SimClock clock;
    HeavyClients heavy{clock};
    HeavyClients::Mark one = heavy.mark(1, 0);
    HeavyClients::Mark other = heavy.mark(2, 0);
};

TEST_F(HeavyClientsTest, WhoseTakeLongIsRememberedForASecond) {
    takes(other, kShortNs);
    EXPECT_FALSE(takes(one, HeavyClients::kHeavyNs));
    EXPECT_FALSE(heavy.any());
    EXPECT_TRUE(takes(one, 2 * HeavyClients::kHeavyNs));
    EXPECT_TRUE(heavy.any());
    EXPECT_TRUE(is_heavy(one));
    EXPECT_FALSE(is_heavy(other));
    clock.advance_ns(HeavyClients::kRememberedNs - 1);
    EXPECT_TRUE(is_heavy(one));
    clock.advance_ns(1);
    EXPECT_FALSE(is_heavy(one));
    heavy.begin(clock.monotonic_ns());
    EXPECT_FALSE(heavy.any());
}

// As under a sanitizer, where a short one takes as long as a long one elsewhere.
TEST_F(HeavyClientsTest, LongIsWhatTakesMuchLongerThanTheShortestClients) {
    for (int i = 0; i < 10; ++i) {
        takes(one, 8 * kMs);
        takes(other, 2 * HeavyClients::kHeavyNs);
    }
    EXPECT_TRUE(is_heavy(one));
    EXPECT_FALSE(is_heavy(other));
    EXPECT_FALSE(takes(other, 3 * HeavyClients::kHeavyNs));
    EXPECT_TRUE(takes(other, HeavyClients::kHeavyNsMost + 1));
    EXPECT_FALSE(is_heavy(other)) << "by a single one";
    for (int i = 0; i < 10; ++i) takes(other, 2 * HeavyClients::kHeavyNsMost);
    EXPECT_TRUE(is_heavy(other));
    for (int i = 0; i < 20; ++i) takes(other, 2 * HeavyClients::kHeavyNs);
    EXPECT_FALSE(is_heavy(other));
    // Who sends short ones for a while is the measure, until nothing of theirs has come for long.
    auto third = heavy.mark(3, clock.monotonic_ns());
    takes(third, kShortNs);
    EXPECT_TRUE(takes(other, 2 * HeavyClients::kHeavyNs));
    clock.advance_ns(HeavyClients::kRememberedNs);
    EXPECT_FALSE(takes(other, 2 * HeavyClients::kHeavyNs));
}

TEST_F(HeavyClientsTest, AThreadThatWasPutAsideMakesNobodyHeavy) {
    EXPECT_FALSE(takes(one, kShortNs, 50 * kMs));
    EXPECT_FALSE(is_heavy(one));
    // Nor does what ran before it, since the clock of the thread was read.
    EXPECT_FALSE(takes(one, HeavyClients::kHeavyNs - kShortNs));
    EXPECT_FALSE(takes(one, kShortNs, 50 * kMs));
    EXPECT_FALSE(is_heavy(one));
    EXPECT_TRUE(takes(one, 2 * HeavyClients::kHeavyNs, 50 * kMs));
}

TEST_F(HeavyClientsTest, RestsTwiceAsLongAsItTookWhereOthersAreAtWork) {
    takes(other, kShortNs);
    takes(one, 3 * kMs);
    EXPECT_EQ(rest_ns(), 6 * kMs);
    clock.advance_ns(kMs);
    EXPECT_EQ(rest_ns(), 5 * kMs);
    clock.advance_ns(5 * kMs);
    EXPECT_EQ(rest_ns(), 0u);
    takes(other, kShortNs);
    // Short ones of theirs count, too, and the time that the thread ran alone does.
    takes(one, kShortNs);
    EXPECT_EQ(rest_ns(), 2 * kShortNs);
    clock.advance_ns(20 * kMs);
    takes(one, kMs);
    EXPECT_EQ(rest_ns(), 0u) << "nothing of the others was taken for long";
    heavy.asked(one, clock.monotonic_ns());
    takes(one, kMs);
    EXPECT_EQ(rest_ns(), 0u);
    heavy.asked(other, clock.monotonic_ns());
    takes(one, kMs);
    EXPECT_EQ(rest_ns(), 2 * kMs);
}

TEST_F(HeavyClientsTest, NobodyRestsWhoIsAlone) {
    for (int i = 0; i < 10; ++i) {
        takes(one, 30 * kMs);
        clock.advance_ns(200 * kMs);
        if (i == 0) continue;
        EXPECT_EQ(rest_ns(), 0u);
    }
}

TEST_F(HeavyClientsTest, ANewConnectionIsAsHeavyAsTheUsersOthers) {
    takes(one, 3 * kMs);
    EXPECT_TRUE(is_heavy(heavy.mark(1, clock.monotonic_ns())));
    EXPECT_FALSE(is_heavy(heavy.mark(2, clock.monotonic_ns())));
    clock.advance_ns(HeavyClients::kRememberedNs);
    EXPECT_FALSE(is_heavy(heavy.mark(1, clock.monotonic_ns())));
}

TEST_F(HeavyClientsTest, TurnsGoToAndFro) {
    takes(one, 3 * kMs);
    EXPECT_FALSE(heavy.their_turn());
    takes(other, kShortNs);
    EXPECT_TRUE(heavy.their_turn());
    takes(one, kShortNs);
    EXPECT_FALSE(heavy.their_turn());
}

// One with very many page requests had all turns, or gave none, until nobody was heavy any more.
TEST_F(HeavyClientsTest, TurnsGoToAndFroByPageRequestsToo) {
    takes(one, 3 * kMs);
    heavy.asked(other, clock.monotonic_ns());
    EXPECT_TRUE(heavy.their_turn());
    heavy.asked(one, clock.monotonic_ns());
    EXPECT_FALSE(heavy.their_turn());
    heavy.asked(other, clock.monotonic_ns());
    EXPECT_TRUE(heavy.their_turn());
}

// ---- by the port --------------------------------------------------------------------------------

class HeavyTurnsTest : public ::testing::Test {
  protected:
    void SetUp() override {
        store = std::make_unique<SimStore>(small_store(), std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store->open().ok());
        for (auto& client : clients) client = &store->connect();
        for (auto& client : clients) {
            for (std::uint32_t i = 0; i < kEach; ++i) {
                const std::array<PageId, 1> page{PageId{i + 1}};
                TransactionBytes bytes;
                ASSERT_TRUE(client->submit(bytes.bytes()));
                ASSERT_TRUE(client->request_pages(page));
            }
        }
    }
    void TearDown() override { store->disconnect_all(); }

    ClientPort& port() { return store->engine->core().port(); }
    // What is taken next, and how long a transaction of its client is to take.
    bool take(std::uint64_t heavy_ns) {
        if (!port().take(request)) return false;
        const std::uint64_t began_ns = store->clock.monotonic_ns();
        port().begin_taking(began_ns);
        const std::uint64_t client = request.from.client_id;
        if (request.kind != RecordKind::kTransaction) {
            port().looked_at(client, began_ns);
            return true;
        }
        store->clock.advance_ns(client == clients[0]->id() ? heavy_ns : kShortNs);
        port().evaluated(client, began_ns, store->clock.monotonic_ns());
        ++taken[client];
        return true;
    }

    static constexpr std::uint32_t kEach = 20;
    std::unique_ptr<SimStore> store;
    std::array<SimClient*, 3> clients{};
    ClientRequest request;
    std::map<std::uint64_t, std::uint32_t> taken;  // transactions, by client
};

// Before there were rests, each had a turn for a turn, and the first one nearly all of the time.
TEST_F(HeavyTurnsTest, OthersAreTakenWhileOneRests) {
    const std::uint64_t begin_ns = store->clock.monotonic_ns();
    while (taken[clients[1]->id()] + taken[clients[2]->id()] < 2 * kEach) {
        ASSERT_TRUE(take(2 * kMs)) << "it is over " << store->clock.monotonic_ns() - begin_ns;
    }
    EXPECT_LE(taken[clients[0]->id()], 2u);
    EXPECT_GT(port().rest_ns(), 0u);
    EXPECT_TRUE(port().rests(clients[0]->id()));
    EXPECT_FALSE(port().rests(clients[1]->id()));
    // Its page requests are none of that.
    std::uint32_t pages = 0;
    while (port().take(request)) pages += request.from.client_id == clients[0]->id();
    EXPECT_GT(pages, 0u);
    EXPECT_EQ(request.kind, RecordKind::kPageRequest);
    EXPECT_FALSE(port().any_news());
    // One of theirs that was waiting already, for a page perhaps, comes before those in rings.
    EXPECT_TRUE(port().rests(clients[0]->id()));
    store->clock.advance_ns(port().rest_ns());
    EXPECT_FALSE(take(2 * kMs));
    port().begin_trying();
    EXPECT_FALSE(port().rests(clients[0]->id()));
    store->clock.advance_ns(port().rest_ns());
    EXPECT_TRUE(port().any_news());
    for (std::uint32_t i = taken[clients[0]->id()]; i < kEach; ++i) {
        ASSERT_TRUE(take(2 * kMs));
        store->clock.advance_ns(port().rest_ns());
    }
    EXPECT_FALSE(port().take(request));
}

}  // namespace
}  // namespace bidstore
