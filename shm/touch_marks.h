// Touch marks: how the engine hears which pages are read, although readers cannot write the pool.
//
// Who:    a reading thread marks in the TouchMarks of its own reader slot (TouchMarker); the engine
//         thread gathers (TouchWatcher).
// Order:  `written` after the mark (release), so a mark that counts is whole. Marks are advisory:
//         one that is overwritten before it was gathered is lost, and missed by nobody.
// Trust:  `written` and the marks are the client's words: any value gives at most kTouchMarks page
//         numbers, which the engine checks before it uses them.
//
// Not every use is marked. One in 16, at random, tells which pages are used most, at next to no
// cost. A page whose map entry says kWatched is about to lose its place, or has not earned one: its
// use is marked for certain, unless it is among the newest marks anyway, until the engine heard of
// it and takes the bit away.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "shm/base.h"
#include "shm/layout.h"

namespace bidstore {

// A reading thread's side. Process-local, one thread at a time.
class TouchMarker {
  public:
    explicit TouchMarker(TouchMarks& marks)
        : marks_(&marks),
          // Nobody else writes it.
          written_(marks.written.load(std::memory_order_relaxed)) {
        asked_.fill(kNoPage);
    }

    // Of each use of a page; `entry`: of the page map, by which it was found.
    [[gnu::always_inline]] void note(PageId page, std::uint32_t entry) {
        // The sign says both: that the count ran below 0, or that the page is watched.
        static_assert(kWatched == 1u << 31);
        if (static_cast<std::int32_t>(--until_sample_ | entry) < 0) [[unlikely]]
            mark(page);
    }
    // These pages were asked for. The use that each of them was brought in for is not marked: a
    // page shows that it is worth its place by the next one.
    void asked_for(std::span<const PageId> pages) {
        for (const PageId page : pages) asked_[page.value % kAskedMax] = page.value;
    }

  private:
    static constexpr std::uint32_t kSampleMean = 16;
    static constexpr std::uint32_t kAskedMax = 1024;  // many more than are under way
    static constexpr std::uint32_t kLately = 4;
    static constexpr std::uint32_t kNoPage = ~0u;

    [[gnu::noinline]] void mark(PageId page) {
        const bool sampled = until_sample_ == ~0u;
        if (sampled) until_sample_ = next_interval();
        if (was_asked_for(page)) return;
        if (!sampled && was_marked_lately(page)) return;
        marks_->page[written_ % kTouchMarks].store(page.value, std::memory_order_relaxed);
        // Release: the engine that sees the count sees the mark.
        marks_->written.store(++written_, std::memory_order_release);
    }
    // 0 to 30 by chance, so that no rhythm of the reader hides a page from the sample. A linear
    // congruential generator; the upper bits are the good ones.
    std::uint32_t next_interval() {
        random_ = random_ * 747796405 + 2891336453;
        constexpr std::uint64_t kIntervals = 2 * kSampleMean - 1;
        return static_cast<std::uint32_t>((random_ * kIntervals) >> 32);
    }
    // A watched page that is used over and over until the engine comes by would leave no room for
    // the marks of others.
    bool was_marked_lately(PageId page) const {
        for (std::uint32_t back = 1; back <= kLately; ++back) {
            const auto& mark = marks_->page[(written_ - back) % kTouchMarks];
            if (mark.load(std::memory_order_relaxed) == page.value) return true;  // our own store
        }
        return false;
    }
    // Once: its next use counts. A page that another one displaced is marked a use too early.
    bool was_asked_for(PageId page) {
        std::uint32_t& asked = asked_[page.value % kAskedMax];
        if (asked != page.value) return false;
        asked = kNoPage;
        return true;
    }

    TouchMarks* marks_;
    std::uint32_t written_;
    std::uint32_t until_sample_ = kSampleMean;  // uses that the sample leaves out
    std::uint32_t random_ = 0x9e3779b9;
    std::array<std::uint32_t, kAskedMax> asked_;  // by page number
};

// The engine's side. Engine thread only.
class TouchWatcher {
  public:
    // Copies the newest marks made since `seen`, at most as many as there is room for, and returns
    // how many. Older ones are passed over. `seen` is the engine's own count.
    static std::uint32_t take(const TouchMarks& marks, std::uint32_t& seen,
                              std::span<std::uint32_t> room) {
        // Acquire: the marks that it counts are there.
        const std::uint32_t written = marks.written.load(std::memory_order_acquire);
        const std::uint32_t count =
            std::min({written - seen, kTouchMarks, static_cast<std::uint32_t>(room.size())});
        for (std::uint32_t i = 0; i < count; ++i) {
            room[i] = marks.page[(written - 1 - i) % kTouchMarks].load(std::memory_order_relaxed);
        }
        seen = written;
        return count;
    }
};

}  // namespace bidstore
