// The engine's side of page map, version links and published state: every store that readers of the
// pool may see while it happens, each with the order it needs. The reader's side is shm/page_map.h.
//
// Who:    the engine thread alone.
// Owns:   nothing; the segment outlives it.
// Order:  a frame is complete before a link or the page map leads to it (release); all page map
//         entries of a batch are stored before `visible` names the batch (release).
#pragma once

#include <cstdint>
#include <cstring>

#include "shm/atom.h"
#include "shm/layout.h"
#include "shm/segment.h"

namespace bidstore {

class VersionWriter {
  public:
    explicit VersionWriter(PoolSegment& segment)
        : published_(segment.header().published),
          page_map_(segment.page_map()),
          descriptors_(segment.descriptors()) {}

    // The frame of the newest published version of a page.
    std::uint32_t mapped(PageId page) const {
        return page_map_[page.value].load(std::memory_order_relaxed) & kFrameMask;  // our own store
    }
    bool watched(PageId page) const {
        return (page_map_[page.value].load(std::memory_order_relaxed) & kWatched) != 0;
    }
    void map(PageId page, std::uint32_t frame, bool watched = false) {
        page_map_[page.value].store(frame | (watched ? kWatched : 0), std::memory_order_release);
    }
    // The entry leads where it led: to a walk the two stores are one.
    void watch(PageId page, bool watched) { map(page, mapped(page), watched); }

    std::uint32_t older(std::uint32_t frame) const {
        return descriptors_[frame].older.load(std::memory_order_relaxed);  // our own last store
    }
    // Walkers that come to `frame` go on to `older`, whose content is complete.
    void link(std::uint32_t frame, std::uint32_t older) {
        descriptors_[frame].older.store(older, std::memory_order_release);
    }

    // Fills a frame that no link leads to. A stale walker may look at it all the same: the csn word
    // (the first 8 bytes) stays an atomic store, and whatever the walker concludes from it is
    // caught by the reuse generation.
    static void fill(std::byte* frame, std::uint64_t csn, const std::byte* from) {
        csn_word(frame).store(csn, std::memory_order_relaxed);
        if (from != nullptr) {
            std::memcpy(frame + 8, from + 8, kPageBytes - 8);
        } else {
            std::memset(frame + 8, 0, kPageBytes - 8);
        }
    }
    // The same frame, filled ahead with what the page is to begin with, gets its csn.
    static void stamp(std::byte* frame, std::uint64_t csn) {
        csn_word(frame).store(csn, std::memory_order_relaxed);
    }
    // A page of an extent: no header, `bytes` (at most a page) and zeros. The first word is an
    // atomic store for the same reason.
    static void fill_extent(std::byte* frame, const std::byte* from, std::size_t bytes) {
        std::uint64_t first = 0;
        std::memcpy(&first, from, bytes < 8 ? bytes : 8);
        csn_word(frame).store(first, std::memory_order_relaxed);
        if (bytes > 8) std::memcpy(frame + 8, from + 8, bytes - 8);
        const std::size_t end = bytes < 8 ? 8 : bytes;
        std::memset(frame + end, 0, kPageBytes - end);
    }
    static std::uint64_t csn_of(const std::byte* frame) {
        // Our own last store.
        return reinterpret_cast<const Atom<std::uint64_t>*>(frame)->load(std::memory_order_relaxed);
    }

    // Everything that the batch changed is mapped: readers that load this csn see all of it.
    void publish(std::uint64_t csn) { published_.visible.store(csn, std::memory_order_release); }

    // The same of a batch that drops a table; before it becomes visible, so that readers who load
    // its csn know that no root is good that they saw before it.
    void drops_table(std::uint64_t csn) {
        published_.dropped.store(csn, std::memory_order_release);
    }

    // The frames of a reclaim round are unlinked (or unmapped): walks that may have met one of them
    // see the generation move and start again. The fence keeps later stores into those frames
    // behind this store; only after it may any frame of the round be overwritten.
    void next_generation() {
        const std::uint64_t now = published_.reuse_gen.load(std::memory_order_relaxed);
        published_.reuse_gen.store(now + 1, std::memory_order_release);
        memory_fence<std::memory_order_release>();
    }

  private:
    static Atom<std::uint64_t>& csn_word(std::byte* frame) {
        return *reinterpret_cast<Atom<std::uint64_t>*>(frame);
    }

    Published& published_;
    PageMapEntry* page_map_;
    FrameDescriptor* descriptors_;
};

}  // namespace bidstore
