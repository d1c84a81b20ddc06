// Which pages leave the pool: queues of frames, two hands that walk them, and a memory of pages
// that left. Pure bookkeeping, so that a pool and bench/evict_replay can run the very same code.
//
//             admit                    hand: touched                      hand: recent
//    miss ───────────► probation ─────────────────────► main ───────────────────────► recent
//      │                   │ hand: untouched    ▲        │ hand: no credit left ▲        │
//      │                   ▼                    │        ▼                      └────────┘
//      │                 gone ── remembered     │       gone               no longer recent
//      └──── of a page that is remembered ──────┘
//
//   probation  a tenth of the pool, where new pages show whether they are asked for twice. A scan
//              of a table goes through here and costs the others nothing.
//   main       pages that were. Each touch is a credit, each passing of the hand takes one, a page
//              without goes. Inner nodes are here from the start, with credit for several rounds:
//              they outlive leaves, while they are less than half of the pool.
//   recent     leaves whose newest row is younger than pin_recent, found by a hand: kept without
//              any touch, as long as they are at most `recent_share` of the pool.
//
// What main's hand spares either goes to the back (best where the hot set moves on) or stays where
// it is, so that the hand is soon among the newest ones (best where it does not). Which is better
// is measured: a sixteenth of the pages, by a hash of their numbers, is always treated in the one
// way, a sixteenth in the other, and the rest in the way of those with fewer misses.
//
// Probation, main and memory are those of S3-FIFO (Yang et al., SOSP 2023), the hand that does not
// move what it spares that of SIEVE (Zhang et al., NSDI 2024), the duel that of DIP (Qureshi et
// al., ISCA 2007); credit per kind of node, recent pages and pages that cannot go are ours.
//
// A page without credit is *watched*: its first use has to be told for certain, since one more or
// less decides whether it stays. Of the others the policy needs to hear only now and then. So the
// pages that are used most cost their readers nothing.
//
// Who:    one thread: the engine's (engine/pool.h), or bench/evict_replay.
// Owns:   its arrays, 32 bytes a frame, allocated once. It has neither clock nor I/O; what it must
//         know of a page it asks.
// Errors: a frame admitted twice, or unknown, is our own mistake (CHECK).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "shm/base.h"

namespace bidstore {

class Eviction {
  public:
    // What a hand must know of a page that it comes to.
    struct Look {
        bool may_go = true;    // not changed, not in use: it can be evicted now
        bool touched = false;  // since the last look, besides what touch() told
        bool inner = false;    // an inner node
        bool recent = false;   // a leaf whose newest row is younger than pin_recent
    };

    // Frames are numbered 1 to frame_count.
    explicit Eviction(std::uint32_t frame_count);
    // Of the pool, at most, kept for being recent: 0 to 0.9. Half, when nothing is said.
    void set_recent_share(double share) {
        recent_max_ = static_cast<std::uint32_t>(share * frame_count_);
    }

    // A page came into the frame: read for somebody, or new.
    void admit(std::uint32_t frame, PageId page, bool inner);
    // It was used again. True: it was watched, and is not any more.
    bool touch(std::uint32_t frame) {
        Entry& entry = entries_[frame];
        const bool was_watched = entry.credit == 0;
        if (entry.credit < entry.credit_max) ++entry.credit;
        return was_watched;
    }
    bool watched(std::uint32_t frame) const { return entries_[frame].credit == 0; }
    // The page's newest version is in another frame now.
    void replace(std::uint32_t frame, std::uint32_t by);
    // The page is gone for another reason than choose(): nobody asks for it again.
    void leave(std::uint32_t frame);
    bool holds(std::uint32_t frame) const { return entries_[frame].place != Place::kNone; }

    // Takes up to `count` frames out of the queues and appends them to `chosen`; the caller evicts
    // them. Passes `looks_max` frames at most, so it may find fewer. `pages` knows the pages:
    //   Look look(std::uint32_t frame);                 // asked once for each that a hand passes
    //   void comes(std::uint32_t frame);                // it may be looked at next; 0: none
    //   void watch(std::uint32_t frame, bool watched);  // whether it is from now on
    template <class Pages>
    void choose(std::uint32_t count, std::uint64_t looks_max, Pages& pages,
                std::vector<std::uint32_t>& chosen);

    // How many pages the hands should take out in a round, when so many frames are free, fewer than
    // `low`, which is the number to keep free: the less there are, the more. A round stays short,
    // and no more is taken out than is needed soon.
    static std::uint32_t step(std::uint32_t free, std::uint32_t low) {
        DCHECK(free < low);
        return std::clamp((low - free) / 4, std::min(low, kStepLeast), kStepMost);
    }
    static constexpr std::uint32_t kStepLeast = 16;
    static constexpr std::uint32_t kStepMost = 1024;

    struct Sizes {
        std::uint32_t probation = 0;
        std::uint32_t main = 0;
        std::uint32_t recent = 0;
        std::uint32_t inner = 0;  // of all of them
    };
    Sizes sizes() const;
    void check_invariants() const;

  private:
    enum class Place : std::uint8_t { kNone, kProbation, kMain, kRecent };
    struct Entry {
        std::uint32_t page = 0;
        std::uint32_t ahead = 0;   // towards the hand; 0: none
        std::uint32_t behind = 0;  // towards the newest; 0: none
        Place place = Place::kNone;
        std::uint8_t credit = 0;
        std::uint8_t credit_max = 0;
        bool inner = false;
    };
    struct Queue {
        std::uint32_t front = 0;
        std::uint32_t back = 0;
        std::uint32_t size = 0;
        std::uint32_t hand = 0;   // where it goes on; 0: at the front
        std::uint64_t spared = 0;  // by the hand since a page last went, see choose()
    };
    // How pages of main are treated, by a hash of their numbers.
    enum class Group : std::uint8_t { kMoving, kStaying, kFollowing };
    static constexpr std::uint32_t kGroups = 3;
    // A page that left and when, counted in pages that left.
    struct Memory {
        std::uint32_t page = 0;
        std::uint32_t left_at = 0;
    };
    static constexpr std::uint8_t kLeafCredit = 3;
    static constexpr std::uint8_t kInnerCredit = 12;
    static constexpr std::uint32_t kMemoryWays = 4;
    static constexpr std::uint32_t kDuelPart = 16;  // of the pages, in each of the two groups
    static constexpr std::int32_t kDuelMax = 256;
    // The recent ones came in the order of time, roughly: behind some that stay, all do.
    static constexpr std::uint32_t kStayedMax = 4;

    static Group group_of(PageId page);
    Queue& queue_of(Place place, PageId page);
    Queue& queue_of(const Entry& entry) { return queue_of(entry.place, PageId{entry.page}); }
    bool stays_in_place(Group group) const;
    void push(std::uint32_t frame, Place place);
    void unlink(std::uint32_t frame);
    void move(std::uint32_t frame, Place place) {
        unlink(frame);
        push(frame, place);
    }
    void remember(PageId page);
    bool recall(PageId page);
    Memory* memory_of(PageId page);
    bool inner_protected() const { return inner_count_ <= frame_count_ / 2; }
    // What the hand does with a frame; true: it goes.
    bool pass(std::uint32_t frame, const Look& look);
    void set_inner(Entry& entry, bool inner);
    void go(std::uint32_t frame);
    std::uint32_t main_size() const;
    std::uint32_t next_frame() const;
    std::uint32_t next_of_main() const;
    void spare(std::uint32_t frame);
    template <class Pages>
    std::uint64_t pass_recent(std::uint64_t looks_max, Pages& pages);

    std::uint32_t frame_count_;
    std::uint32_t probation_share_;  // in frames
    std::uint32_t recent_max_ = 0;   // in frames
    std::vector<Entry> entries_;     // by frame
    Queue probation_;
    Queue main_[kGroups];
    Queue recent_;
    std::int32_t duel_ = 0;  // above 0: pages that move to the back have fewer misses
    std::uint32_t inner_count_ = 0;
    std::vector<Memory> memory_;
    std::uint32_t memory_mask_ = 0;
    std::uint32_t memory_span_ = 0;
    std::uint32_t left_ = 0;
};

// The oldest of the recent ones: still recent, or main's again. Returns the looks taken.
template <class Pages>
std::uint64_t Eviction::pass_recent(std::uint64_t looks_max, Pages& pages) {
    std::uint64_t looks = 0;
    std::uint32_t stayed = 0;
    while (looks < looks_max && recent_.size > 0 && stayed < kStayedMax) {
        const std::uint32_t frame = recent_.front;
        ++looks;
        const bool stays = pages.look(frame).recent && recent_.size <= recent_max_;
        move(frame, stays ? Place::kRecent : Place::kMain);
        stayed += stays;
    }
    return looks;
}

template <class Pages>
void Eviction::choose(std::uint32_t count, std::uint64_t looks_max, Pages& pages,
                      std::vector<std::uint32_t>& chosen) {
    const std::size_t enough = chosen.size() + count;
    // However often a hand went round in vain, the others come before it for one round alone.
    for (Queue& queue : main_) queue.spared = std::min<std::uint64_t>(queue.spared, queue.size);
    std::uint64_t looks = pass_recent(looks_max / 2, pages);
    for (; looks < looks_max && chosen.size() < enough; ++looks) {
        const std::uint32_t frame = next_frame();
        if (frame == 0) return;
        pages.comes(entries_[frame].behind);
        const bool was_watched = watched(frame);
        if (pass(frame, pages.look(frame))) {
            go(frame);
            chosen.push_back(frame);
        } else if (watched(frame) != was_watched) {
            pages.watch(frame, !was_watched);
        }
    }
}

}  // namespace bidstore
