// The page map, and the walk from a page's newest version to the one that a snapshot sees.
//
// Who:    reading threads, each with its own slot; the engine alone writes what is read here.
// Order:  each load on the way acquires, so a frame found is complete; the check of reuse_gen says
//         whether a frame on the way was reused meanwhile.
// Trust:  a disturbed walk may see nonsense, so frame numbers are clamped and steps are counted.
//
// The first 8 bytes of every frame are the csn of the version in it, an atomic word of its own;
// engine/page/page.h describes the rest, which is nothing to this file.
//
//   page_map[P] -> frame (csn 9) -older-> frame (csn 7) -older-> frame (csn 4) -> none
//
//   A snapshot at 8 reads the version of 7. Its slot keeps that frame; the frames on the way, that
//   of 9 here, are nobody's promise and may be reused while we look at them. Before the engine
//   reuses frames it unlinks them and moves reuse_gen: a walk that began and ended under one value
//   met no reused frame. A walk that was disturbed is made again under PIN_ALL, twice at most, for
//   the second of these needs no check:
//   - Rounds come one after the other: a scan (E2 in shm/reader_slot.h), unlinking, one step of
//     reuse_gen, and only then are frames reused. So at most one round has its scan before
//     pin_all() and its step after it; the step of the round before came before that scan, and is
//     seen by all that is loaded after pin_all().
//   - If the first walk saw reuse_gen move, that was the step of this one round, or of a later one:
//     its unlinking is done, and the second walk, whose first load of reuse_gen acquires, meets
//     none of its frames.
//   - Later rounds saw PIN_ALL, and keep what has a successor above the snapshot, or is evicted
//     above it: every frame that the walk can come to, the one that it ends on included. They
//     unlink older ones, which changes links that the walk does not follow.
#pragma once

#include <cstdint>

#include "shm/atom.h"
#include "shm/base.h"
#include "shm/layout.h"
#include "shm/reader_slot.h"
#include "shm/segment.h"

namespace bidstore {

// The csn word of a frame.
inline const Atom<std::uint64_t>& frame_csn(const std::byte* frame) {
    return *reinterpret_cast<const Atom<std::uint64_t>*>(frame);
}

enum class PageLookup : std::uint32_t {
    kFound,
    kAbsent,     // not in the pool: ask for it
    kNoVersion,  // none at or below the snapshot, or no such page id
    kExpired,    // the lease is gone
};

// All but kExpired is believed only after SlotOwner::valid().
struct PageVersion {
    const std::byte* page = nullptr;  // kFound: kPageBytes
    PageLookup lookup = PageLookup::kAbsent;
    std::uint32_t entry = 0;  // kFound: the page map's; with kWatched, if this use is to be marked
};

namespace page_walk {

struct Step {
    PageVersion version;
    bool disturbed = false;
};

// A search begins right behind the header, in leaves as in inner nodes: those lines come together
// with the header's instead of after it.
[[gnu::always_inline]] inline void prefetch_behind_header(const std::byte* frame) {
    constexpr std::size_t kLines = 4;
    for (std::size_t line = 1; line <= kLines; ++line) {
        prefetch_line(frame + line * kCacheLineBytes);
    }
}

// What a walk fetches of each frame that it comes to.
struct PrefetchBehindHeader {
    [[gnu::always_inline]] void operator()(const std::byte* frame) const {
        prefetch_behind_header(frame);
    }
};
// For a caller that has fetched what it will look at.
struct NoPrefetch {
    void operator()(const std::byte*) const {}
};

// One walk. page is below pool.page_count(). Pool is PoolView; a test puts one in its place that
// lets the engine act between two steps.
template <class Pool, class Prefetch = PrefetchBehindHeader>
[[gnu::always_inline]] inline Step walk(const Pool& pool, PageId page, Csn snapshot,
                                        Prefetch prefetch = {}) {
    const Atom<std::uint64_t>& reuse_gen = pool.published().reuse_gen;
    const std::uint64_t generation = reuse_gen.load(std::memory_order_acquire);
    // Acquire, here and below: the frame's csn and link were written before it was linked to.
    const std::uint32_t entry = pool.page_map()[page.value].load(std::memory_order_acquire);
    std::uint32_t frame = entry & kFrameMask;
    PageVersion version{nullptr, frame == kNoFrame ? PageLookup::kAbsent : PageLookup::kNoVersion};
    // A chain has no more links than the pool has frames; only a disturbed walk could run longer.
    for (std::uint32_t steps = pool.frame_count(); frame != kNoFrame && steps != 0; --steps) {
        if (frame >= pool.frame_count()) [[unlikely]]
            break;
        const std::byte* bytes = pool.frame(frame);
        prefetch(bytes);
        if (frame_csn(bytes).load(std::memory_order_acquire) <= snapshot.value) [[likely]] {
            version = {bytes, PageLookup::kFound, entry};
            break;
        }
        frame = pool.descriptors()[frame].older.load(std::memory_order_acquire);
    }
    // The loads above are done before this look at reuse_gen.
    memory_fence<std::memory_order_acquire>();
    return {version, reuse_gen.load(std::memory_order_relaxed) != generation};
}

// The walks after a disturbed one. Out of line: they are rare, and the read path is short without.
template <class Pool>
[[gnu::noinline]] PageVersion walk_pinned(const Pool& pool, SlotOwner& slot, PageId page) {
    if (!slot.valid()) return {nullptr, PageLookup::kExpired};
    slot.pin_all();
    Step step = walk(pool, page, slot.snapshot());
    // Now no round is left that does not know of the pin: right, whether disturbed or not.
    if (step.disturbed) step = walk(pool, page, slot.snapshot());
    slot.unpin();
    return step.version;
}

}  // namespace page_walk

// The version of `page` that the slot's snapshot sees. The slot holds a snapshot.
template <class Pool, class Prefetch = page_walk::PrefetchBehindHeader>
inline PageVersion version_at(const Pool& pool, SlotOwner& slot, PageId page,
                              Prefetch prefetch = {}) {
    if (page.value >= pool.page_count()) [[unlikely]]
        return {nullptr, PageLookup::kNoVersion};
    const page_walk::Step step = page_walk::walk(pool, page, slot.snapshot(), prefetch);
    if (!step.disturbed) [[likely]]
        return step.version;
    return page_walk::walk_pinned(pool, slot, page);
}

// A page of an extent that the snapshot's row refers to: kFound or kAbsent. Such pages have no csn
// and no versions: they are written once per allocation, and a frame that was found stays the
// reader's until its snapshot ends, or until it lets go of all that it found.
template <class Pool>
inline PageVersion extent_page(const Pool& pool, PageId page) {
    if (page.value >= pool.page_count()) [[unlikely]]
        return {};
    // Acquire: a frame found is complete.
    const std::uint32_t entry = pool.page_map()[page.value].load(std::memory_order_acquire);
    const std::uint32_t frame = entry & kFrameMask;
    if (frame == kNoFrame || frame >= pool.frame_count()) return {};
    return {pool.frame(frame), PageLookup::kFound, entry};
}

// The frame of the page's newest version, or nullptr: for those who prefetch, which may be of a
// version that the snapshot does not see. Nothing that is read there is to be believed.
template <class Pool>
inline const std::byte* newest_hint(const Pool& pool, PageId page) {
    if (page.value >= pool.page_count()) return nullptr;
    const std::uint32_t frame =
        pool.page_map()[page.value].load(std::memory_order_relaxed) & kFrameMask;
    if (frame == kNoFrame || frame >= pool.frame_count()) return nullptr;
    return pool.frame(frame);
}

// Starts to load the beginning of the page's newest version into the processor's cache; waits for
// the page map's entry alone and promises nothing, not even that the snapshot sees this version.
template <class Pool>
[[gnu::always_inline]] inline void prefetch_newest(const Pool& pool, PageId page) {
    const std::byte* bytes = newest_hint(pool, page);
    if (bytes == nullptr) return;
    prefetch_line(bytes);
    page_walk::prefetch_behind_header(bytes);
}

}  // namespace bidstore
