// Pool and file together: the parts that recovery builds and the engine runs.
//
// Who:    the engine thread alone.
// Owns:   its parts; disk, clock and segment outlive it.
#pragma once

#include <boost/circular_buffer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/catalog.h"
#include "engine/checkpoint.h"
#include "engine/clock.h"
#include "engine/disk.h"
#include "engine/page_loader.h"
#include "engine/pool.h"
#include "engine/space.h"
#include "shm/segment.h"
#include "shm/stats.h"

namespace bidstore {

class Storage {
  public:
    // `loaded` hears of every page that came, or could not come, into the pool.
    Storage(Disk& disk, Clock& clock, PoolSegment& segment, StatsWriter& stats,
            PageLoader::Done loaded);

    // The superblock and the chunk directory of the file are known: the rest may follow.
    void adopt(const Superblock& superblock, ChunkDirectory directory);

    Disk& disk;
    Clock& clock;
    PoolSegment& segment;
    StatsWriter& stats;
    Superblock superblock{};
    Pool pool;
    Space space;
    PageLoader loader;
    std::unique_ptr<Checkpointer> checkpointer;  // after adopt()
    std::unique_ptr<Catalog> catalog;            // after adopt()

    // Leaves whose newest row is younger than this are kept in the pool by preference.
    std::uint64_t pin_recent_us = 60'000'000;
    // Whether the leaf has such a row. Rows from the future count only when they are near.
    bool recent(const PageHeader& leaf) const;

    // No reader is there yet: pages may be evicted whenever a frame is wanted.
    bool recovering = true;
    // Frames that bring_in() leaves free: somebody secured them for a change to come.
    std::uint32_t reserved_frames = 0;
    // Called again and again while checkpoint() is at work.
    std::function<void()> at_work = [] {};

    // ---- waiting, for recovery and verify alone; never on the commit path ----
    // Brings one page in. kTooLarge: no frame is left, and nobody else is there to give one up.
    Status bring_in(PageId page);
    // Brings in whatever `attempt` (returning a TreeAccess) misses, until it needs nothing more.
    // kTooLarge: that is more at once than the pool holds.
    template <class Attempt>
    Status complete(Attempt attempt);
    // A whole checkpoint.
    Status checkpoint(const CheckpointTarget& target);

    // Space::reserve_extents() and Space::secure(), waiting for growth where that is needed.
    Status secure_space(std::uint32_t pages, std::span<const ExtentNeed> extents = {});

    // While recovering: waits for what growth was asked to do, and says what came of it.
    Status await_growth();
    // While recovering: makes at least so many frames free, as far as cold pages go.
    void make_frames(std::uint64_t frames);
    // Drops these pages out of the pool at `csn`, the next publication (Pool::evict).
    void evict(const std::vector<PageId>& pages, Csn csn);
    // The key directory shall lead to the rows of the resident page, if it is a leaf, some time.
    void enter_rows_later(PageId page);
    // Has the key directory lead to the rows of leaves that are to be entered, of so many; until
    // then readers go by the tree. False: there are none.
    bool enter_rows(std::uint32_t leaves);
    static constexpr std::uint32_t kAll = ~0u;
    // Frees the versions that nobody in `held` needs (Pool::reclaim).
    void reclaim(const HeldSnapshots& held, std::uint32_t kept_looks);
    // Up to `most` pages whose quarantine is over after that reclaim() go back to the available
    // ones; `csn` is asked for the next publication when there are any. Returns how many.
    template <class NextCsn>
    std::size_t end_quarantine(const HeldSnapshots& held, std::size_t most, NextCsn csn);

  private:
    bool is_resident_leaf(PageId page) const;
    const char* content_fault(const std::byte* page) const;
    const char* children_fault(const InnerView& node, TableId table) const;
    void came(PageId page);
    void enter_rows_of(PageId page);
    bool grow(std::uint64_t pages, Status& grown);
    static constexpr std::uint64_t kWaitNs = 30'000'000'000;
    static constexpr std::size_t kLeavesWaiting = 128;  // a burst of the device, at most
    boost::circular_buffer<PageId> leaves_to_enter_;    // the oldest first; some may be gone
    PageId awaited_;  // by bring_in()
    Status awaited_failure_;
    PageLoader::Done loaded_;
};

template <class NextCsn>
std::size_t Storage::end_quarantine(const HeldSnapshots& held, std::size_t most, NextCsn csn) {
    const auto in_use = [this](PageId page) {
        return loader.on_its_way(page) || pool.has_older(page) || pool.retiring(page);
    };
    const auto pages = space.leaving_quarantine(held, checkpointer->covered(), most, in_use);
    if (pages.empty()) return 0;
    const Csn at = csn();
    for (const PageId page : pages) {
        if (pool.resident(page)) pool.evict(page, at);
        space.make_available(page);
    }
    return pages.size();
}

template <class Attempt>
Status Storage::complete(Attempt attempt) {
    // When twice as many pages came as there are frames, each costs one that is needed as well.
    for (std::uint64_t brought = 0; brought <= 2 * std::uint64_t{pool.frame_count()}; ++brought) {
        const TreeAccess access = attempt();
        if (access.corrupt) {
            return {Error::kCorruption, "page " + std::to_string(access.corrupt.value) +
                                            " is not the page that its parent names"};
        }
        if (!access.missing) return {};
        if (Status come = bring_in(access.missing); !come) return come;
    }
    return {Error::kTooLarge, "more pages are needed at once than the " +
                                  std::to_string(pool.frame_count()) +
                                  " frames of the pool hold: raise pool_bytes"};
}

}  // namespace bidstore
