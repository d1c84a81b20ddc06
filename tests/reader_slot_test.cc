#include "shm/reader_slot.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <iostream>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

namespace bidstore {
namespace {

struct TestSlot {
    Published published{};
    ReaderSlot slot{};
    RevokedEntry revoked{};
    TestSlot() { published.visible.store(100); }
    SlotOwner owner() { return SlotOwner{slot, published, revoked}; }
    SlotSighting look() const { return SlotWatcher::look(slot); }
};

TEST(ReaderSlot, BeginAnnouncesWhatIsVisible) {
    TestSlot test;
    SlotOwner owner = test.owner();
    EXPECT_EQ(test.look().word, kSlotIdle);
    EXPECT_EQ(owner.begin(), Csn{100});
    EXPECT_EQ(test.look().word, 100u);
    EXPECT_EQ(test.look().episode, 1u);
    EXPECT_TRUE(owner.valid());
    test.published.visible.store(101);
    EXPECT_EQ(owner.snapshot(), Csn{100}) << "a snapshot stays where it was taken";
    owner.end();
    EXPECT_EQ(test.look().word, kSlotIdle);
    EXPECT_EQ(owner.snapshot(), Csn{});
    EXPECT_EQ(owner.begin(), Csn{101});
    EXPECT_EQ(test.look().episode, 2u);
}

TEST(ReaderSlot, PinAllKeepsWhatItMaySeeAndGivesTheSnapshotBack) {
    TestSlot test;
    SlotOwner owner = test.owner();
    owner.begin();
    owner.pin_all();
    EXPECT_EQ(test.look().word, kSlotPinAll);
    EXPECT_TRUE(test.look().keeps(Csn{90}, Csn{101}, Csn{100}));
    EXPECT_TRUE(test.look().keeps(Csn{150}, Csn{160}, Csn{100})) << "newer ones, too";
    EXPECT_FALSE(test.look().keeps(Csn{90}, Csn{100}, Csn{100})) << "none is below its bound";
    owner.unpin();
    EXPECT_EQ(test.look().word, 100u);
    EXPECT_EQ(test.look().episode, 1u) << "one stay in the slot, one episode";
}

TEST(ReaderSlot, KeepsTheVersionsOfItsSnapshotAndNoOther) {
    const SlotSighting sighting{.word = 100, .episode = 1};
    const Csn bound{100};
    EXPECT_TRUE(sighting.keeps(Csn{100}, Csn{101}, bound));
    EXPECT_TRUE(sighting.keeps(Csn{90}, Csn{101}, bound));
    EXPECT_TRUE(sighting.keeps(Csn{100}, Csn{200}, bound));
    EXPECT_FALSE(sighting.keeps(Csn{90}, Csn{100}, bound)) << "the successor is visible to it";
    EXPECT_FALSE(sighting.keeps(Csn{101}, Csn{200}, bound)) << "too new for it";
}

TEST(ReaderSlot, IdleOrRevokedSlotDoesNotCount) {
    EXPECT_TRUE((SlotSighting{.word = 5, .episode = 3}.counts(2)));
    EXPECT_FALSE((SlotSighting{.word = 5, .episode = 3}.counts(3)));
    EXPECT_FALSE((SlotSighting{.word = kSlotIdle, .episode = 3}.counts(2)));
    EXPECT_TRUE((SlotSighting{.word = kSlotPinAll, .episode = 3}.counts(2)));
    EXPECT_FALSE((SlotSighting{.word = kSlotPinAll, .episode = 3}.counts(3)));
}

TEST(ReaderSlot, RevokedSnapshotIsNeverBelieved) {
    TestSlot test;
    SlotOwner owner = test.owner();
    owner.begin();
    SlotWatcher::revoke(test.revoked, test.look().episode);
    EXPECT_FALSE(owner.valid());
    EXPECT_FALSE(test.look().counts(test.revoked.load()));
    owner.end();
    EXPECT_FALSE(owner.valid()) << "the end of a snapshot does not make it good";
    owner.begin();
    EXPECT_TRUE(owner.valid()) << "the next episode is a new one";
    EXPECT_TRUE(test.look().counts(test.revoked.load()));
}

TEST(ReaderSlot, RevokedEpisodesNeverDecrease) {
    TestSlot test;
    SlotWatcher::revoke(test.revoked, 9);
    SlotWatcher::revoke(test.revoked, 4);
    EXPECT_EQ(test.revoked.load(), 9u);
}

TEST(ReaderSlot, EpisodesOfANewOwnerStartAboveTheRevoked) {
    TestSlot test;
    test.slot.episode.store(5);
    test.slot.word.store(77);
    SlotWatcher::revoke(test.revoked, 40);
    SlotWatcher::prepare(test.slot, test.revoked);
    EXPECT_EQ(test.look().word, kSlotIdle);
    SlotOwner owner = test.owner();
    owner.begin();
    EXPECT_EQ(owner.episode(), 41u);
    EXPECT_TRUE(owner.valid());
}

TEST(ReaderSlot, EpisodesGoOnWhenAnotherThreadTakesTheSlotOver) {
    TestSlot test;
    SlotOwner first = test.owner();
    first.begin();
    first.end();
    first.begin();
    first.end();
    SlotOwner second = test.owner();
    second.begin();
    EXPECT_EQ(second.episode(), 3u);
}

// What stood there meant that no frame is in use, and frames of evicted pages would have gone under
// the next owner.
TEST(ReaderSlot, NextOwnerIsNotTakenToRestAsTheLastOneDid) {
    TestSlot test;
    SlotOwner first = test.owner();
    first.begin();
    first.rest();
    EXPECT_EQ(test.look().looked, kLookedNothing);
    first.end();
    SlotOwner second = test.owner();
    second.begin();
    EXPECT_EQ(test.look().looked, 0u) << "its snapshot alone says when it looked up its frames";
}

TEST(ReaderSlot, PinAllOfALaterEpisodeDoesNotCountAtTheSecondLook) {
    TestSlot test;
    SlotOwner owner = test.owner();
    owner.begin();
    owner.pin_all();
    const SlotSighting first = test.look();
    EXPECT_TRUE(SlotWatcher::look_again(test.slot, first).pins_all());
    owner.unpin();
    const SlotSighting resolved = SlotWatcher::look_again(test.slot, first);
    EXPECT_EQ(resolved.word, 100u) << "the same episode counts with what it shows now";
    owner.end();
    owner.begin();
    EXPECT_FALSE(SlotWatcher::look_again(test.slot, first).counts(0));
}

// ---- the litmus of the announcement -------------------------------------------------------------
//
// One round: the engine makes csn i + 1 visible and scans the slot while the reader begins. It is a
// violation when the reader got snapshot i and the scan would reclaim what i sees. In the variant
// with release and acquire the store of PIN_ALL may wait in the reader's store buffer while it
// loads `visible`: it must be seen to fail, or else this test could not see a failure of ours.
//
// So that it is seen: each thread has a core of its own, both leave the start of a round together,
// and the reader's store buffer is full of stores to lines that the engine's core has just written,
// so that PIN_ALL stands behind them for as long as they take to come over. The file is compiled
// optimized in every build: otherwise the store buffer is full of spilled registers, and the load
// cannot overtake.

struct OrdinaryBegin {
    SlotOwner owner;
    explicit OrdinaryBegin(TestSlot& test) : owner(test.owner()) {}
    std::uint64_t begin() { return owner.begin().value; }
    void end() { owner.end(); }
};

struct ReleaseAcquireBegin {
    TestSlot& test;
    std::uint64_t episode = 0;
    explicit ReleaseAcquireBegin(TestSlot& shared) : test(shared) {}
    std::uint64_t begin() {
        test.slot.episode.store(++episode, std::memory_order_relaxed);
        test.slot.word.store(kSlotPinAll, std::memory_order_release);
        const std::uint64_t snapshot = test.published.visible.load(std::memory_order_acquire);
        test.slot.word.store(snapshot, std::memory_order_release);
        return snapshot;
    }
    void end() { test.slot.word.store(kSlotIdle, std::memory_order_release); }
};

// The first two of the cores that this process may use, or fewer.
std::vector<std::size_t> two_cores() {
    cpu_set_t allowed;
    std::vector<std::size_t> cores;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return cores;
    for (std::size_t core = 0; core < CPU_SETSIZE && cores.size() < 2; ++core) {
        if (CPU_ISSET(core, &allowed)) cores.push_back(core);
    }
    return cores;
}

void run_on(std::size_t core) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(core, &only);
    EXPECT_EQ(pthread_setaffinity_np(pthread_self(), sizeof(only), &only), 0);
}

#define SKIP_WITHOUT_TWO_CORES() \
    if (two_cores().size() < 2)  \
    GTEST_SKIP() << "two threads have to run at the same time, and this process may use one core"

// Two threads meet. They spin, since each has its core; when the other one is off its own for
// long, somebody else may have this one meanwhile.
class Meeting {
  public:
    void meet(std::uint64_t round) {
        arrived_.fetch_add(1, std::memory_order_acq_rel);
        for (int spins = 0; arrived_.load(std::memory_order_acquire) < 2 * round; ++spins) {
            if (spins > 100'000) std::this_thread::yield();
        }
    }

  private:
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> arrived_{0};
};

void spin(std::uint32_t turns) {
    for (std::atomic<std::uint32_t> i{0}; i.load(std::memory_order_relaxed) < turns;) {
        i.fetch_add(1, std::memory_order_relaxed);
    }
}

// Lines that both threads write in turn: whoever writes them next has to fetch them first.
struct ContestedLines {
    struct alignas(kCacheLineBytes) Line {
        std::atomic<std::uint64_t> value{0};
    };
    std::array<Line, 24> lines;
    void write(std::uint64_t value) {
        for (Line& line : lines) line.value.store(value, std::memory_order_relaxed);
    }
};

struct LitmusLimits {
    std::uint64_t rounds = 0;
    std::uint64_t violations = 0;  // as many are enough
    std::chrono::seconds time{0};
};

struct LitmusEnd {
    std::uint64_t rounds = 0;
    std::uint64_t violations = 0;
    std::uint64_t overlaps = 0;  // rounds in which the reader did get the older snapshot
};

// The reader waits so long in each round. The engine's wait is led to the point where it publishes
// just as the reader looks: longer after a round in which it came first, shorter after the others.
constexpr std::uint32_t kReaderDelay = 64;

// What both threads of a litmus see.
struct Litmus {
    TestSlot test;
    Meeting start;
    Meeting finish;
    ContestedLines contested;
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> reclaimed{0};  // newest csn reclaimed
    std::atomic<std::uint32_t> engine_delay{kReaderDelay};             // turns of spin()
    alignas(kCacheLineBytes) std::atomic<bool> stop{false};
};

void run_engine(Litmus& litmus) {
    std::minstd_rand random{1};
    for (std::uint64_t round = 1;; ++round) {
        litmus.contested.write(round);
        litmus.start.meet(round);
        if (litmus.stop.load(std::memory_order_relaxed)) return;
        spin(litmus.engine_delay.load(std::memory_order_relaxed) +
             static_cast<std::uint32_t>(random() % 16));
        litmus.test.published.visible.store(round + 1, std::memory_order_release);
        SlotWatcher::begin_scan();
        const SlotSighting sighting = litmus.test.look();
        // Each round scans once, and each episode is new to it: the bound is the last round's.
        const bool kept =
            sighting.counts(0) && sighting.keeps(Csn{round}, Csn{round + 1}, Csn{round});
        if (!kept) litmus.reclaimed.store(round, std::memory_order_relaxed);
        litmus.finish.meet(round);
    }
}

template <class Begin>
LitmusEnd run_reader(Litmus& litmus, const LitmusLimits& limits) {
    const auto deadline = std::chrono::steady_clock::now() + limits.time;
    Begin reader{litmus.test};
    LitmusEnd end;
    for (std::uint64_t round = 1;; ++round) {
        const bool enough = end.rounds >= limits.rounds || end.violations >= limits.violations ||
                            (round % 256 == 0 && std::chrono::steady_clock::now() > deadline);
        litmus.stop.store(enough, std::memory_order_relaxed);
        litmus.start.meet(round);
        if (enough) return end;
        spin(kReaderDelay);
        litmus.contested.write(~round);
        const std::uint64_t snapshot = reader.begin();
        litmus.finish.meet(round);
        ++end.rounds;
        const std::uint32_t delay = litmus.engine_delay.load(std::memory_order_relaxed);
        if (snapshot == round) {
            ++end.overlaps;
            if (litmus.reclaimed.load(std::memory_order_relaxed) == round) ++end.violations;
            litmus.engine_delay.store(delay - (delay > 0 ? 1 : 0), std::memory_order_relaxed);
        } else {
            litmus.engine_delay.store(delay + 1, std::memory_order_relaxed);
        }
        reader.end();
    }
}

template <class Begin>
LitmusEnd run_litmus(const LitmusLimits& limits) {
    const std::vector<std::size_t> cores = two_cores();
    Litmus litmus;
    litmus.test.published.visible.store(1);
    LitmusEnd end;
    std::thread engine([&] {
        run_on(cores[0]);
        run_engine(litmus);
    });
    std::thread reader([&] {
        run_on(cores[1]);
        end = run_reader<Begin>(litmus, limits);
    });
    engine.join();
    reader.join();
    return end;
}

constexpr std::uint64_t kNeverEnough = ~std::uint64_t{0};

// Sanitizers make a round many times slower.
constexpr bool kSanitized = std::string_view(BIDSTORE_SANITIZE) != "none";
constexpr std::uint64_t kRoundsFewer = kSanitized ? 20 : 1;
// For what they may hide for ever.
constexpr std::chrono::seconds kPatience{kSanitized ? 2 : 20};

TEST(ReaderSlotLitmus, ExchangeNeverMissesAReader) {
    SKIP_WITHOUT_TWO_CORES();
    const LitmusEnd end = run_litmus<OrdinaryBegin>({.rounds = 300'000 / kRoundsFewer,
                                                     .violations = kNeverEnough,
                                                     .time = std::chrono::seconds(20)});
    EXPECT_EQ(end.violations, 0u);
    EXPECT_GT(end.overlaps, 0u) << "the two threads never met in " << end.rounds << " rounds";
}

TEST(ReaderSlotLitmus, ReleaseAndAcquireIsSeenToMissAReader) {
    SKIP_WITHOUT_TWO_CORES();
    const LitmusEnd end = run_litmus<ReleaseAcquireBegin>(
        {.rounds = kNeverEnough, .violations = 1, .time = kPatience});
    if (kSanitized && end.violations == 0) {
        GTEST_SKIP() << "the sanitizer's own work at each access hides the race: the plain builds "
                        "must show it";
    }
    EXPECT_EQ(end.violations, 1u)
        << "the weaker variant did not fail in " << end.rounds << " rounds, of which "
        << end.overlaps << " overlapped: this litmus would not see a failure of ours either";
    std::cout << "the weaker variant failed in round " << end.rounds << ", " << end.overlaps
              << " of them overlapped\n";
}

// ---- the litmus of the revocation ---------------------------------------------------------------
//
// The engine revokes and then overwrites; the reader uses and then asks valid(). What it believes
// must be the old bytes. The other way round it has to be seen to believe new ones.
struct Belief {
    std::uint64_t rounds = 0;
    std::uint64_t believed = 0;
    std::uint64_t wrong = 0;
};

// Ends with the rounds, after kPatience, or with the first wrong belief where that is looked for.
Belief run_revocations(std::uint64_t rounds, bool overwrites_first) {
    const std::vector<std::size_t> cores = two_cores();
    TestSlot test;
    Meeting start;
    Meeting finish;
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> frame{0};
    std::atomic<bool> over{false};  // stored by the reader before the two meet
    std::thread engine([&] {
        run_on(cores[0]);
        std::minstd_rand random{1};
        for (std::uint64_t round = 1; !over; ++round) {
            start.meet(round);
            spin(static_cast<std::uint32_t>(random() % 48));
            if (overwrites_first) frame.store(round, std::memory_order_relaxed);
            SlotWatcher::revoke(test.revoked, round);
            frame.store(round, std::memory_order_relaxed);
            finish.meet(round);
        }
    });
    Belief belief;
    std::thread reader([&] {
        run_on(cores[1]);
        SlotOwner owner = test.owner();
        std::minstd_rand random{2};
        const auto end = std::chrono::steady_clock::now() + kPatience;
        while (!over) {
            const std::uint64_t round = ++belief.rounds;
            owner.begin();
            start.meet(round);
            spin(static_cast<std::uint32_t>(random() % 32));
            const std::uint64_t seen = frame.load(std::memory_order_relaxed);
            if (owner.valid()) {
                ++belief.believed;
                if (seen == round) ++belief.wrong;
            }
            owner.end();
            over = round >= rounds || (overwrites_first && belief.wrong > 0) ||
                   std::chrono::steady_clock::now() > end;
            finish.meet(round);
        }
    });
    engine.join();
    reader.join();
    return belief;
}

TEST(ReaderSlotLitmus, BelievedBytesWereNotYetOverwritten) {
    SKIP_WITHOUT_TWO_CORES();
    const Belief belief = run_revocations(100'000 / kRoundsFewer, false);
    EXPECT_EQ(belief.wrong, 0u);
    EXPECT_GT(belief.believed, 0u) << "the reader was always too late";
}

TEST(ReaderSlotLitmus, RevocationBehindTheOverwriteIsSeenToBeTooLate) {
    SKIP_WITHOUT_TWO_CORES();
    const Belief belief = run_revocations(kNeverEnough, true);
    if (kSanitized && belief.wrong == 0) {
        GTEST_SKIP() << "the sanitizer's own work at each access hides the race: the plain builds "
                        "must show it";
    }
    EXPECT_GT(belief.wrong, 0u) << "in " << belief.rounds << " rounds";
}

}  // namespace
}  // namespace bidstore
