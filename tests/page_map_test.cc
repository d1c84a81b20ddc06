#include "shm/page_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

namespace bidstore {
namespace {

// A real pool segment with its read-only view, and a hand to poke states in.
struct TestPool {
    explicit TestPool(std::uint32_t frames, std::uint32_t pages, std::uint32_t slots = 1)
        : pool(make(frames, pages, slots)), view(map(pool)), slot(slots) {
        pool.header().published.visible.store(10);
    }
    static PoolSegment make(std::uint32_t frames, std::uint32_t pages, std::uint32_t slots) {
        const PoolShape shape{
            .frame_count = frames, .page_count = pages, .slot_count = slots, .instance_id = 1};
        Result<PoolSegment> made = PoolSegment::create(shape, HugePages::kOff, false);
        if (!made) throw std::runtime_error(made.failure().what);
        made->announce();
        return std::move(*made);
    }
    static PoolView map(const PoolSegment& pool) {
        Result<Descriptor> descriptor = pool.open_read_only();
        if (!descriptor) throw std::runtime_error(descriptor.failure().what);
        Result<PoolView> mapped = PoolView::map(std::move(*descriptor));
        if (!mapped) throw std::runtime_error(mapped.failure().what);
        return std::move(*mapped);
    }

    // Words of a frame; word 0 is its csn.
    std::atomic<std::uint64_t>& word(std::uint32_t frame, std::uint32_t index) {
        return reinterpret_cast<std::atomic<std::uint64_t>*>(pool.frame(FrameId{frame}))[index];
    }
    void version(std::uint32_t frame, std::uint64_t csn, std::uint32_t older) {
        word(frame, 0).store(csn);
        pool.descriptors()[frame].older.store(older);
    }
    SlotOwner owner(std::uint32_t index = 0) {
        return SlotOwner{slot[index], view.published(), view.revoked()[index]};
    }
    std::uint32_t frame_of(const PageVersion& version) {
        return static_cast<std::uint32_t>((version.page - view.frame(0)) / kPageBytes);
    }

    PoolSegment pool;
    PoolView view;
    std::vector<ReaderSlot> slot;
};

struct WalkCase {
    std::uint64_t snapshot;
    PageLookup lookup;
    std::uint32_t frame;
};

TEST(PageMap, WalkEndsAtTheNewestVersionTheSnapshotSees) {
    TestPool test{8, 4};
    test.version(5, 9, 3);
    test.version(3, 7, 6);
    test.version(6, 4, kNoFrame);
    test.pool.page_map()[2].store(5);
    const WalkCase cases[] = {
        {10, PageLookup::kFound, 5},    {9, PageLookup::kFound, 5},     {8, PageLookup::kFound, 3},
        {7, PageLookup::kFound, 3},     {6, PageLookup::kFound, 6},     {4, PageLookup::kFound, 6},
        {3, PageLookup::kNoVersion, 0}, {1, PageLookup::kNoVersion, 0},
    };
    for (const WalkCase& each : cases) {
        test.pool.header().published.visible.store(each.snapshot);
        SlotOwner owner = test.owner();
        owner.begin();
        const PageVersion found = version_at(test.view, owner, PageId{2});
        EXPECT_EQ(found.lookup, each.lookup) << each.snapshot;
        if (each.lookup == PageLookup::kFound) {
            EXPECT_EQ(test.frame_of(found), each.frame) << each.snapshot;
        } else {
            EXPECT_EQ(found.page, nullptr) << each.snapshot;
        }
        EXPECT_EQ(test.slot[0].word.load(), each.snapshot) << "an ordinary walk leaves the slot";
        owner.end();
    }
}

TEST(PageMap, PageNotInThePoolIsAbsent) {
    TestPool test{8, 4};
    SlotOwner owner = test.owner();
    owner.begin();
    EXPECT_EQ(version_at(test.view, owner, PageId{1}).lookup, PageLookup::kAbsent);
    owner.end();
}

TEST(PageMap, PageIdBeyondTheMapHasNoVersion) {
    TestPool test{8, 4};
    SlotOwner owner = test.owner();
    owner.begin();
    for (std::uint32_t page : {4u, 5u, 1u << 31, ~0u}) {
        EXPECT_EQ(version_at(test.view, owner, PageId{page}).lookup, PageLookup::kNoVersion)
            << page;
    }
    owner.end();
}

TEST(PageMap, FrameNumberBeyondThePoolIsNotFollowed) {
    TestPool test{8, 4};
    test.pool.page_map()[1].store(8);
    test.version(3, 50, ~0u);
    test.pool.page_map()[2].store(3);
    SlotOwner owner = test.owner();
    owner.begin();
    EXPECT_EQ(version_at(test.view, owner, PageId{1}).lookup, PageLookup::kNoVersion);
    EXPECT_EQ(version_at(test.view, owner, PageId{2}).lookup, PageLookup::kNoVersion);
    owner.end();
}

TEST(PageMap, WalkInACircleEnds) {
    TestPool test{8, 4};
    test.version(3, 50, 4);
    test.version(4, 40, 3);
    test.pool.page_map()[2].store(3);
    SlotOwner owner = test.owner();
    owner.begin();
    EXPECT_EQ(version_at(test.view, owner, PageId{2}).lookup, PageLookup::kNoVersion);
    owner.end();
}

TEST(PageMap, PinnedWalkGivesTheSnapshotBackToTheSlot) {
    TestPool test{8, 4};
    test.version(3, 7, kNoFrame);
    test.pool.page_map()[2].store(3);
    SlotOwner owner = test.owner();
    owner.begin();
    const PageVersion found = page_walk::walk_pinned(test.view, owner, PageId{2});
    EXPECT_EQ(found.lookup, PageLookup::kFound);
    EXPECT_EQ(test.frame_of(found), 3u);
    EXPECT_EQ(test.slot[0].word.load(), 10u);
    owner.end();
}

TEST(PageMap, PinnedWalkOfARevokedSnapshotIsExpired) {
    TestPool test{8, 4};
    test.version(3, 7, kNoFrame);
    test.pool.page_map()[2].store(3);
    SlotOwner owner = test.owner();
    owner.begin();
    SlotWatcher::revoke(test.pool.revoked()[0], owner.episode());
    EXPECT_EQ(page_walk::walk_pinned(test.view, owner, PageId{2}).lookup, PageLookup::kExpired);
    EXPECT_NE(test.slot[0].word.load(), kSlotPinAll);
    owner.end();
}

// ---- an engine that acts in the middle of a walk
// -------------------------------------------------

// The view of a pool that lets `act` run each time a walk looks at a frame: there the engine does
// what it would do at the same moment on its own core.
struct ActingPool {
    const PoolView& view;
    std::function<void()> act;
    const Published& published() const { return view.published(); }
    const PageMapEntry* page_map() const { return view.page_map(); }
    const FrameDescriptor* descriptors() const { return view.descriptors(); }
    const std::byte* frame(std::uint32_t frame) const {
        act();
        return view.frame(frame);
    }
    std::uint32_t frame_count() const { return view.frame_count(); }
    std::uint32_t page_count() const { return view.page_count(); }
};

// Page 2 has one version, of csn 7 in frame 3; a snapshot at 10 is held.
struct DisturbedWalk {
    TestPool test{8, 4};
    SlotOwner owner = test.owner();
    std::vector<std::uint64_t> words;  // the slot's word at each look at a frame

    DisturbedWalk() {
        test.version(3, 7, kNoFrame);
        test.pool.page_map()[2].store(3);
        owner.begin();
    }
    void next_round() { test.pool.header().published.reuse_gen.fetch_add(1); }
    void revoke() { SlotWatcher::revoke(test.pool.revoked()[0], owner.episode()); }
    PageVersion walk(const std::function<void()>& engine) {
        const auto act = [&] {
            words.push_back(test.slot[0].word.load());
            engine();
        };
        return version_at(ActingPool{test.view, act}, owner, PageId{2});
    }
};

TEST(PageMap, DisturbedWalkIsMadeAgainUnderPinAll) {
    DisturbedWalk walk;
    const PageVersion found = walk.walk([&] {
        if (walk.words.size() == 1) walk.next_round();
    });
    EXPECT_EQ(found.lookup, PageLookup::kFound);
    EXPECT_EQ(walk.test.frame_of(found), 3u);
    EXPECT_EQ(walk.words, (std::vector<std::uint64_t>{10, kSlotPinAll}));
    EXPECT_EQ(walk.test.slot[0].word.load(), 10u) << "the snapshot is held again";
    EXPECT_TRUE(walk.owner.valid());
}

TEST(PageMap, WalkDisturbedTwiceStaysUnderPinAll) {
    DisturbedWalk walk;
    const PageVersion found = walk.walk([&] {
        if (walk.words.size() <= 2) walk.next_round();
    });
    EXPECT_EQ(found.lookup, PageLookup::kFound);
    EXPECT_EQ(walk.words, (std::vector<std::uint64_t>{10, kSlotPinAll, kSlotPinAll}));
    EXPECT_EQ(walk.test.slot[0].word.load(), 10u);
}

// What the story is about: the walk stands on a frame that becomes a version of another page.
TEST(PageMap, FrameReusedUnderTheWalkIsNotReturned) {
    DisturbedWalk walk;
    walk.test.version(5, 12, 3);  // newer than the snapshot: the walk passes it
    walk.test.pool.page_map()[2].store(5);
    const PageVersion found = walk.walk([&] {
        if (walk.words.size() != 1) return;
        walk.test.pool.page_map()[2].store(3);  // frame 5 is unlinked
        walk.next_round();
        walk.test.version(5, 6, kNoFrame);  // and reused, with a csn that looks right
    });
    EXPECT_EQ(found.lookup, PageLookup::kFound);
    EXPECT_EQ(walk.test.frame_of(found), 3u);
}

// Rounds that begin after pin_all() keep what the walk may meet, however many there are.
TEST(PageMap, SecondPinnedWalkIsTheLastWhateverTheEngineDoes) {
    DisturbedWalk walk;
    const PageVersion found = walk.walk([&] { walk.next_round(); });
    EXPECT_EQ(found.lookup, PageLookup::kFound);
    EXPECT_EQ(walk.test.frame_of(found), 3u);
    EXPECT_EQ(walk.words, (std::vector<std::uint64_t>{10, kSlotPinAll, kSlotPinAll}));
    EXPECT_EQ(walk.test.slot[0].word.load(), 10u);
    EXPECT_TRUE(walk.owner.valid());
}

// The round whose scan came before pin_all(), and which goes on behind it.
TEST(PageMap, FrameReusedUnderTheFirstPinnedWalkIsNotReturned) {
    DisturbedWalk walk;
    walk.test.version(5, 12, 3);  // newer than the snapshot: the walk passes it
    walk.test.pool.page_map()[2].store(5);
    const PageVersion found = walk.walk([&] {
        if (walk.words.size() == 1) walk.next_round();  // of another page's
        if (walk.words.size() != 3) return;             // two frames in the first walk
        walk.test.pool.page_map()[2].store(3);          // frame 5 is unlinked
        walk.next_round();
        walk.test.version(5, 6, kNoFrame);  // and reused, with a csn that looks right
    });
    EXPECT_EQ(found.lookup, PageLookup::kFound);
    EXPECT_EQ(walk.test.frame_of(found), 3u);
    EXPECT_EQ(walk.words.back(), kSlotPinAll);
}

TEST(PageMap, DisturbedWalkEndsWhenTheSnapshotIsRevoked) {
    DisturbedWalk walk;
    walk.walk([&] {
        walk.next_round();
        if (walk.words.size() == 2) walk.revoke();
    });
    EXPECT_FALSE(walk.owner.valid()) << "whatever it found";
    EXPECT_EQ(walk.words.size(), 3u);
    EXPECT_NE(walk.test.slot[0].word.load(), kSlotPinAll);
}

TEST(PageMap, DisturbedWalkOfARevokedSnapshotIsNotMadeAgain) {
    DisturbedWalk walk;
    walk.revoke();
    const PageVersion found = walk.walk([&] { walk.next_round(); });
    EXPECT_EQ(found.lookup, PageLookup::kExpired);
    EXPECT_EQ(walk.words, (std::vector<std::uint64_t>{10})) << "and never in PIN_ALL";
}

// ---- readers against an engine that publishes, reclaims, evicts and revokes
// ----------------------
//
// A frame's words are derived from (page, csn), so that a reader can tell whether it read the
// version that its snapshot sees: history says which csns changed which page.

constexpr std::uint32_t kTestPages = 4;
constexpr std::uint32_t kTestFrames = 14;
constexpr std::uint32_t kTestReaders = 2;
constexpr std::uint32_t kTestWords = 24;
constexpr std::uint64_t kTestBatchesMin = 20'000;
constexpr std::uint64_t kTestBatchesMax = 2'000'000;
constexpr std::uint64_t kTestSnapshots = 20'000;  // that each reader is to believe

std::uint64_t word_of(std::uint64_t page, std::uint64_t csn, std::uint64_t index) {
    return (page << 56 | csn << 8 | index) * 0x9e3779b97f4a7c15;
}

struct Version {
    std::uint32_t frame;
    std::uint64_t csn;
    std::uint64_t successor;  // csn of the next newer version
};

class MiniEngine {
  public:
    explicit MiniEngine(TestPool& pool) : pool_(pool), history_(kTestBatchesMax + 100) {
        for (std::uint32_t frame = 1; frame < kTestFrames; ++frame) free_.push_back(frame);
        for (std::uint32_t page = 0; page < kTestPages; ++page) change(page);
        publish();
    }

    // Was `page` changed by csn `csn`? Published before the csn is visible.
    bool changed(std::uint32_t page, std::uint64_t csn) const {
        return (history_[csn].load(std::memory_order_relaxed) >> page & 1) != 0;
    }

    // Commits until `enough` says so.
    template <class Enough>
    void run(Enough enough) {
        for (std::uint64_t batch = 0; batch < kTestBatchesMax; ++batch) {
            if (batch >= kTestBatchesMin && enough()) return;
            const std::uint64_t mask = 1 + random_() % ((1u << kTestPages) - 1);
            for (std::uint32_t page = 0; page < kTestPages; ++page) {
                if ((mask >> page & 1) == 0) continue;
                make_room();
                change(page);
            }
            publish();
        }
    }

    std::uint64_t revocations = 0;
    std::uint64_t reclaims = 0;

  private:
    struct Held {
        SlotSighting seen;
        Csn bound;
    };

    // A version of the open batch, linked but not yet in the page map.
    void change(std::uint32_t page) {
        const std::uint32_t frame = free_.back();
        free_.pop_back();
        const std::uint64_t csn = next_;
        pool_.word(frame, 0).store(csn, std::memory_order_relaxed);
        for (std::uint32_t i = 1; i < kTestWords; ++i) {
            pool_.word(frame, i).store(word_of(page, csn, i), std::memory_order_relaxed);
        }
        std::deque<Version>& chain = chains_[page];
        const std::uint32_t older = chain.empty() ? kNoFrame : chain.back().frame;
        pool_.pool.descriptors()[frame].older.store(older, std::memory_order_release);
        if (!chain.empty()) chain.back().successor = csn;
        chain.push_back({frame, csn, 0});
        history_[csn].fetch_or(static_cast<std::uint8_t>(1u << page), std::memory_order_relaxed);
        unpublished_.push_back({page, frame});
    }

    void publish() {
        for (const auto& [page, frame] : unpublished_) {
            pool_.pool.page_map()[page].store(frame, std::memory_order_release);
        }
        unpublished_.clear();
        pool_.pool.header().published.visible.store(next_, std::memory_order_release);
        visible_ = next_++;
    }

    void make_room() {
        for (int tries = 0; free_.empty(); ++tries) {
            if (unpublished_.size() >= kTestPages) break;
            reclaim(tries > 200);
            if (free_.empty()) std::this_thread::yield();
        }
    }

    // One round by interval. `revoke`: readers that are in the way lose their lease first.
    void reclaim(bool revoke) {
        SlotWatcher::begin_scan();
        std::vector<Held> held;
        for (std::uint32_t i = 0; i < kTestReaders; ++i) {
            SlotSighting sighting = SlotWatcher::look(pool_.slot[i]);
            if (sighting.pins_all()) {
                sighting = SlotWatcher::look_again(pool_.slot[i], sighting);
            }
            if (revoke && sighting.counts(revoked_[i])) {
                revoked_[i] = sighting.episode;
                SlotWatcher::revoke(pool_.pool.revoked()[i], sighting.episode);
                ++revocations;
            }
            if (sighting.counts(revoked_[i])) held.push_back({sighting, bound_of(i, sighting)});
        }
        scanned_ = visible_;
        std::vector<std::uint32_t> round;
        for (std::deque<Version>& chain : chains_) unlink(chain, held, round);
        if (round.empty()) return;
        pool_.pool.header().published.reuse_gen.fetch_add(1, std::memory_order_release);
        std::atomic_thread_fence(std::memory_order_release);
        free_.insert(free_.begin(), round.begin(), round.end());
        std::shuffle(free_.begin(), free_.end(), random_);
        reclaims += round.size();
    }

    // What the slot's snapshot is not below, as shm/reader_slot.h has it.
    Csn bound_of(std::uint32_t slot, const SlotSighting& sighting) {
        if (episode_[slot] != sighting.episode) bound_[slot] = Csn{scanned_};
        episode_[slot] = sighting.episode;
        if (!sighting.pins_all()) bound_[slot] = Csn{sighting.word};
        return bound_[slot];
    }

    void unlink(std::deque<Version>& chain, const std::vector<Held>& all,
                std::vector<std::uint32_t>& round) {
        for (std::size_t i = 0; i + 1 < chain.size();) {
            const Version& version = chain[i];
            const auto keeps = [&version](const Held& held) {
                return held.seen.keeps(Csn{version.csn}, Csn{version.successor}, held.bound);
            };
            if (version.successor > visible_ || std::any_of(all.begin(), all.end(), keeps)) {
                ++i;
                continue;
            }
            const std::uint32_t older = i == 0 ? kNoFrame : chain[i - 1].frame;
            pool_.pool.descriptors()[chain[i + 1].frame].older.store(older,
                                                                     std::memory_order_release);
            round.push_back(version.frame);
            chain.erase(chain.begin() + static_cast<std::ptrdiff_t>(i));
        }
    }

    TestPool& pool_;
    std::vector<std::atomic<std::uint8_t>> history_;
    std::deque<Version> chains_[kTestPages];  // oldest first
    std::vector<std::uint32_t> free_;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> unpublished_;
    std::uint64_t revoked_[kTestReaders] = {};
    std::uint64_t episode_[kTestReaders] = {};  // seen last
    Csn bound_[kTestReaders] = {};
    std::uint64_t scanned_ = 0;  // visible at the last scan
    std::uint64_t next_ = 1;
    std::uint64_t visible_ = 0;
    std::minstd_rand random_{7};
};

struct alignas(kCacheLineBytes) ReaderCount {
    std::atomic<std::uint64_t> believed{0};
    std::atomic<std::uint64_t> expired{0};
    std::atomic<std::uint64_t> wrong{0};
};

// What a frame shows as the page's version at `snapshot`: right, or not.
bool is_right(const MiniEngine& engine, const std::byte* bytes, std::uint32_t page,
              std::uint64_t snapshot) {
    const auto* words = reinterpret_cast<const std::atomic<std::uint64_t>*>(bytes);
    const std::uint64_t csn = words[0].load(std::memory_order_relaxed);
    if (csn > snapshot) return false;
    for (std::uint32_t i = 1; i < kTestWords; ++i) {
        if (words[i].load(std::memory_order_relaxed) != word_of(page, csn, i)) return false;
    }
    for (std::uint64_t later = csn + 1; later <= snapshot; ++later) {
        if (engine.changed(page, later)) return false;
    }
    return engine.changed(page, csn);
}

// The engine runs out of frames meanwhile, so that what is read next may be reused already.
void hold_until_revoked(const SlotOwner& owner) {
    for (int i = 0; i < 10'000 && owner.valid(); ++i) std::this_thread::yield();
}

void read_snapshots(TestPool& pool, const MiniEngine& engine, std::uint32_t index,
                    const std::atomic<bool>& stop, ReaderCount& count) {
    SlotOwner owner = pool.owner(index);
    std::minstd_rand random{index + 11};
    while (!stop.load(std::memory_order_relaxed)) {
        const std::uint64_t snapshot = owner.begin().value;
        bool right = true;
        bool expired = false;
        if (random() % 2048 == 0) hold_until_revoked(owner);
        const int reads = 1 + static_cast<int>(random() % 12);
        for (int i = 0; i < reads && right && !expired; ++i) {
            const auto page = static_cast<std::uint32_t>(random() % kTestPages);
            const PageVersion found = version_at(pool.view, owner, PageId{page});
            expired = found.lookup == PageLookup::kExpired;
            right =
                found.lookup == PageLookup::kFound && is_right(engine, found.page, page, snapshot);
            if (random() % 16 == 0) std::this_thread::yield();
        }
        if (!owner.valid()) {
            ++count.expired;
        } else {
            ++count.believed;
            if (!right) ++count.wrong;
        }
        owner.end();
    }
}

TEST(PageMap, ReadersSeeTheirSnapshotWhileFramesAreReused) {
    TestPool pool{kTestFrames, kTestPages, kTestReaders};
    MiniEngine engine{pool};
    std::atomic<bool> stop{false};
    std::vector<ReaderCount> counts(kTestReaders);
    std::vector<std::thread> readers;
    for (std::uint32_t i = 0; i < kTestReaders; ++i) {
        readers.emplace_back([&, i] { read_snapshots(pool, engine, i, stop, counts[i]); });
    }
    engine.run([&counts] {
        return std::all_of(counts.begin(), counts.end(), [](const ReaderCount& count) {
            return count.believed.load(std::memory_order_relaxed) >= kTestSnapshots;
        });
    });
    stop.store(true);
    for (std::thread& reader : readers) reader.join();
    std::uint64_t expired = 0;
    for (const ReaderCount& count : counts) {
        EXPECT_EQ(count.wrong.load(), 0u) << "of " << count.believed.load();
        EXPECT_GT(count.believed.load(), 0u);
        expired += count.expired.load();
    }
    EXPECT_GT(engine.reclaims, kTestBatchesMin) << "frames went round";
    RecordProperty("expired", static_cast<int>(expired));
    RecordProperty("revocations", static_cast<int>(engine.revocations));
}

}  // namespace
}  // namespace bidstore
