// Space: which pages of the file are in use, which may be taken, and what the file is known to
// hold.
//
// The bitmap of a chunk is a page like any other (PageType::kMeta, always in the pool): allocation
// and freeing change the open batch's version of it, so every csn has its own bitmap. Beside it
// stand the facts of the last finished checkpoint: which pages it knows, and their CRCs.
//
// A freed page goes
//     in use ──free──► quarantine ──release──► available ──allocate──► in use
// and leaves the quarantine only when a checkpoint at or above its free csn is finished and no
// snapshot below that csn is left: before that the file, or a reader, may still need its place. A
// slot in PIN_ALL may have any snapshot from its bound on, thus none below the csn when the bound
// is not: at the csn or above the page is free, and no row that is seen refers to an extent there.
//
// A chunk of available pages alone may be given back to the file system, at the end of the file or
// where it stands, and taken into use again:
//     available ──retire, cut──► behind the end ──growth──► available
//     available ──punch──► punched ──fill──► available
//
// A dropped page (retention) goes the same way without a version of type free: until its quarantine
// is over, the file, or the pool where the page changed since the last checkpoint, holds what older
// snapshots see. So do pages of extents (engine/page/row.h), however they are freed.
//
// An extent goes with its row, by free_extent(), or by free_dead_extents() when the row is dead:
// who refers to it is then nobody's question, for such rows' references are never followed.
//
// Who:    the engine thread alone.
// Errors: secure() and reserve_extents() say when there is no room; what takes pages after them
//         cannot fail.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory_resource>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/disk.h"
#include "engine/format.h"
#include "engine/growth.h"
#include "engine/pages.h"
#include "engine/pool.h"
#include "engine/run_bounds.h"
#include "shm/error.h"
#include "shm/hot_path.h"

namespace bidstore {

// Of an extent; replay, which may find the same number of free pages in other places, may take all.
inline constexpr std::uint32_t kServingRunsMax = kValueRunsMax / 2;

// Pages that are neighbours in the file.
struct PageRun {
    PageId first;
    std::uint32_t count = 0;
};

class Space final : public Pages {
  public:
    Space(Pool& pool, Disk& disk);

    // ---- Pages: what the trees work on ----
    const std::byte* newest(PageId page) override { return pool_.newest(page); }
    std::byte* writable(PageId page) override;
    PageId allocate(PageType type, TableId table, PageId near) override;
    void free(PageId page) override;
    void drop(PageId page) override;
    void table_dropped() override { pool_.drop_table(); }
    void row_entered(TableId table, std::span<const std::byte> key, PageId leaf,
                     std::uint32_t row) override {
        pool_.directory().enter(table, key.data(), key.size(), leaf, row);
    }
    void row_left(TableId table, std::span<const std::byte> key, PageId leaf) override {
        pool_.directory().forget(table, key.data(), key.size(), leaf);
    }
    std::uint32_t newest_known(PageId page) const override {
        const bool told = known(page) || bit(loaded_, page);
        return told ? newest_[page.value] : kNewestUnknown;
    }
    // The page came from the file as the last checkpoint has it. What its metadata are too narrow
    // to say of its times is known from now on, also when it is evicted. Not while replay makes
    // checkpoints: what these write must not depend on which pages it had read.
    void learn_newest(PageId page);
    ValueReference allocate_extent(TableId table, std::span<const std::byte> value,
                                   std::uint32_t newest) override;
    bool has_extent(TableId table, const ValueReference& reference) const override;
    void stamp_extent(const ValueReference& reference, std::uint32_t newest) override;
    void free_extent(const ValueReference& reference) override;

    // ---- room ----
    // Makes sure that `pages` allocations of the open batch will find a page, with chunks that
    // growth has made ready; false when these are too few. Needs an open batch and frames for
    // grow_frames() metadata pages.
    bool secure(std::uint32_t pages);
    static constexpr std::uint32_t grow_frames(std::uint64_t pages) {
        return static_cast<std::uint32_t>(pages / (kChunkPages - 2) + 1);
    }
    // Of these, how many secure(pages) would take now, with so many chunks more.
    std::uint64_t new_chunk_frames(std::uint64_t pages, std::uint64_t more_chunks) const;
    // The most chunks: as many as the page map has entries for, and metadata pages, which stay in
    // the pool, may fill no more than half of it.
    std::uint32_t chunks_limit() const { return std::min(page_map_chunks(), pool_chunks()); }
    std::uint32_t page_map_chunks() const { return pool_.page_count() / kChunkPages; }
    std::uint32_t pool_chunks() const { return pool_.frame_count() / 2; }
    std::uint64_t available() const { return available_total_; }
    // With the pages of chunks that are ready, but not taken into use.
    std::uint64_t in_reach() const;
    // Begins to grow, so that `pages` and what comes next are there before they are needed: a chunk
    // that gave its blocks back is filled, else the file gets longer. False: there is enough, or
    // the file is at its limit. Growth is idle.
    bool grow(std::uint64_t pages);
    bool wants_growth(std::uint64_t pages) const { return in_reach() < pages + growth_mark(); }
    // Growth::take_result(), after which a chunk that was filled has its pages available.
    bool take_growth(Status& status);
    bool at_limit() const {
        return growth_.chunks() >= chunks_limit() && punched_count_ + ready_punched_ == 0;
    }
    Growth& growth() { return growth_; }
    const Growth& growth() const { return growth_; }
    std::uint64_t quarantined() const { return quarantine_.size(); }
    std::uint32_t chunk_count() const { return chunk_count_; }

    // ---- extents ----
    // Takes pages for extents of so many pages each out of the available ones, in few runs, with
    // chunks that are ready like secure(). All or nothing; allocate_extent() uses them up in any
    // order, and what it leaves goes back with release_extents(). Serving takes fewer runs at most
    // than replay, which may find the same number of free pages in other places.
    bool reserve_extents(std::span<const ExtentNeed> needs, std::uint32_t runs_max);
    void release_extents();
    // How many bitmaps of chunks were looked at for runs so far.
    std::uint64_t run_looks() const { return run_looks_; }
    // Frees the extents in a chunk of which `dead` says, by their table and newest time, that their
    // rows are dead. A page version when there are any. Returns the pages.
    using DeadExtent = std::function<bool(TableId table, std::uint32_t newest)>;
    std::uint32_t free_dead_extents(std::uint32_t chunk, const DeadExtent& dead);
    bool has_extents(std::uint32_t chunk) const;
    // The tables that have extents in the chunk.
    std::vector<TableId> extent_owners(std::uint32_t chunk) const;
    // An extent that is to be somewhere else (engine/extent_move.h) goes
    //   reserve_copy ──► copied(), page by page, by whoever writes them ──► attach_copy
    // or back by give_back_copy(). Until it is attached its pages are in no bitmap, as those of a
    // bulk load. False: no such runs, as near to the front as there are some.
    bool reserve_copy(const ExtentNeed& need, std::uint32_t runs_max, std::vector<ExtentRun>& runs);
    void give_back_copy(std::span<const ExtentRun> runs);
    void copied(PageId page, std::uint32_t crc);
    // In the open batch: the extent of the table with this newest time. All of it was written; the
    // next checkpoint syncs it.
    void attach_copy(TableId table, std::span<const ExtentRun> runs, std::uint32_t newest);
    // Pages were written that no checkpoint wrote, and are in trees from now on: the next one syncs
    // them, though it may have no image of its own to sync.
    void wrote_past_checkpoint() { wrote_past_checkpoint_ = true; }
    bool take_wrote_past_checkpoint() { return std::exchange(wrote_past_checkpoint_, false); }

    // ---- bulk loads (engine/bulk_load.h) ----
    // A page goes  available ──reserve──► reserved ──attach──► in use, or back by give_back().
    // Reserved pages are in no bitmap: after a crash they are free. The caller alone writes them,
    // and has no write of them under way when it gives them back.
    // Up to `pages` neighbours of one chunk, of a chunk with at least `at_least` available ones.
    // Empty: there is no such run.
    PageRun reserve(std::uint32_t pages, std::uint32_t at_least);
    void give_back(const PageRun& run);
    // What was written to the reserved page's place.
    void written(PageId page, const std::byte* image);
    // Makes attach() of pages of the chunk cheaper (Pool::copy_ahead).
    void copy_bitmap_ahead(std::uint32_t chunk) { pool_.copy_ahead(meta_page(chunk)); }
    void forget_copies() { pool_.forget_copies(); }
    // Puts them into the open batch's bitmap: a page version for each of their chunks.
    void attach(const PageRun& run);
    // The same for extents of a table that is being loaded. The table has a place among the owners
    // of each chunk with such pages from its first reserve_runs() to end_extents().
    // At most kServingRunsMax runs of so many pages together; none when there are no such runs.
    std::vector<ExtentRun> reserve_runs(const ExtentNeed& need);
    // `first`: of a run. `newest`: of its row.
    void written_extent(PageId page, const std::byte* bytes, bool first, std::uint32_t newest);
    void attach_extents(TableId table, const PageRun& run);
    void end_extents(TableId table) { std::erase(loading_, table); }
    // Takes up to so many chunks into use that are ready. Needs an open batch and as many frames.
    void take_chunks(std::uint32_t chunks);
    // Begins to make up to so many new chunks ready without zeros, since their pages are written
    // whole. False: the file is at its limit. Growth is idle.
    bool extend(std::uint32_t chunks);
    // Begins to fill a chunk in use that is punched. False: there is none, or the file system was
    // full the last time. Growth is idle.
    bool fill_punched();
    // So many pages in reach are left to others; with fewer, growth begins.
    std::uint64_t growth_mark() const { return growth_mark(growth_.chunks()); }

    // ---- compaction (engine/engine_compaction.cc) ----
    // A chunk that is closed gives no pages, and its available ones do not count, until reopen().
    // Whoever is in want of room reopens: secure() does, and so do bulk loads.
    void close_chunk(std::uint32_t chunk);
    void open_chunk(std::uint32_t chunk);
    void reopen();
    bool closed(std::uint32_t chunk) const { return chunk < closed_.size() && closed_[chunk]; }
    std::uint32_t closed_chunks() const { return closed_count_; }
    std::uint32_t available_in(std::uint32_t chunk) const { return available_count_[chunk]; }
    // The next page behind `from` that the newest bitmap of the chunk has in use, fixed ones and
    // those of extents not counted; 0: none. Begin with the chunk's first page.
    PageId next_used(std::uint32_t chunk, PageId from) const;
    std::uint32_t used_in(std::uint32_t chunk) const;
    // The last chunk leaves the store when all of it is available, and when its metadata page has
    // nothing but a version that the finished checkpoint covers. That checkpoint knows the chunk
    // still: its place in the file is kept (growth().chunks()) until one does not. The caller drops
    // the metadata page out of the pool. False: not now.
    bool retire_last_chunk(Csn covered);
    // A chunk whose pages are all available, and that the finished checkpoint knows as empty, gives
    // its blocks back where it stands; its metadata page stays, and none of its pages is available
    // before it was filled again: growth takes such chunks first. Growth is idle.
    // False: not now.
    bool punch_chunk(std::uint32_t chunk);
    // Begins to fill the first chunk that is punched, if it comes before `chunk`, for its pages.
    // Growth is idle. Which it is; 0: there is none, or the file system was full the last time.
    std::uint32_t fill_before(std::uint32_t chunk);
    bool fill_refused() const { return fill_refused_; }
    bool punched(std::uint32_t chunk) const { return chunk < punched_.size() && punched_[chunk]; }
    std::uint32_t punched_chunks() const { return punched_count_; }
    // Also of those that are ready.
    bool any_punched() const { return punched_count_ + ready_punched_ > 0; }
    // How many chunks the file should have for so many pages; 0: no more can be had.
    std::uint32_t growth_wanted(std::uint64_t pages) const;
    // What punching a chunk gives back.
    static std::uint64_t hole_bytes(std::uint32_t chunk) {
        return std::uint64_t{usable_pages(chunk)} * kPageBytes;
    }
    // With so many chunks in the file growth would not begin at once again; those in use, and as
    // many of the ready ones as that takes.
    std::uint32_t chunks_worth_keeping() const;
    // Begins to cut the file of `file_bytes` behind so many chunks (Growth::cut).
    void cut(std::uint32_t to_chunks, std::uint64_t file_bytes);

    // ---- quarantine ----
    // Up to `most` pages that may leave it now: the caller drops their free versions out of the
    // pool (a reclaim with the same `held` went before) and then calls make_available(). They leave
    // in order: one that in_use() says is just being read, or has older versions in the pool still,
    // holds back those behind it.
    template <class InUse>
    std::vector<PageId> leaving_quarantine(const HeldSnapshots& held, Csn covered, std::size_t most,
                                           InUse in_use);
    void make_available(PageId page);
    // When the page that waits longest was freed; 0: none waits.
    Csn oldest_quarantined() const {
        return quarantine_.empty() ? Csn{} : quarantine_.front().freed;
    }

    // ---- the last finished checkpoint ----
    bool known(PageId page) const { return bit(known_, page); }
    std::uint32_t known_crc(PageId page) const { return crc_[page.value]; }
    // Whether the newest published bitmap has the page (a request for another one is refused).
    bool allocated(PageId page) const;
    // Whether the page is one of an extent, from its allocation to the end of its quarantine.
    bool is_extent(PageId page) const {
        return chunk_of(page) < chunk_count_ && bit(extent_, page);
    }
    // Whether a snapshot may ask for the page: it is allocated, or was dropped, or freed with its
    // extent, and is still in its place.
    bool readable(PageId page) const {
        if (allocated(page)) return true;
        return chunk_of(page) < chunk_count_ && (bit(dropped_, page) || bit(in_file_, page));
    }
    // Whether the page may be one of a tree: it is readable, and of no extent.
    bool may_be_in_tree(PageId page) const { return readable(page) && !is_extent(page); }
    // Of the run of an extent that begins with this page.
    std::uint32_t extent_newest(PageId first) const {
        const auto lower = lower_.find(first.value);
        return lower != lower_.end() && due(lower->second) ? lower->second.newest
                                                           : newest_[first.value];
    }
    // Whether that is of a row which has a lower time by now: the next checkpoint says so.
    bool extent_lowers(PageId first) const { return lower_.contains(first.value); }
    // The lower time is the extent's if a batch said so that the newest checkpoint has: whoever
    // composes metadata calls it for each extent of the chunk.
    void lower_time(PageId first);
    // How many extents have got a lower time by a checkpoint so far.
    std::uint64_t lowered() const { return lowered_; }
    // The checkpoint's new truth about one chunk and one page.
    void settle_chunk(std::uint32_t chunk, const std::uint64_t* used);
    void settle_page(PageId page, std::uint32_t crc, std::uint32_t newest);
    // The newest time in a page, as metadata keeps it; 0 where there are no times.
    static std::uint32_t newest_in(const std::byte* page);
    // ChunkMeta's times from and to those of its pages, all but those that are not known.
    static void encode_newest(const std::uint32_t* newest, ChunkMeta& meta);
    static void decode_newest(const ChunkMeta& meta, std::uint32_t* newest);
    // Changed pages that each need a place in the next journal: those that the last checkpoint
    // knows; while one is running, those that changed since it began, for it will know them.
    std::uint64_t known_changed() const { return known_changed_; }
    // A checkpoint of everything published begins, or has ended: all its facts are settled.
    void begin_checkpoint() {
        checkpoint_running_ = true;
        known_changed_ = pool_.begin_checkpoint();
        lowers_to_ = Csn{pool_.visible()};
    }
    void end_checkpoint() { checkpoint_running_ = false; }

    // ---- open ----
    // What is wrong with what a chunk's metadata say of fixed pages and extents, or nullptr.
    static const char* chunk_fault(std::uint32_t chunk, const ChunkMeta& meta);
    // A chunk as the checkpoint left it; its metadata page is in the pool already. An empty one is
    // looked at for holes.
    Status adopt_chunk(std::uint32_t chunk, const ChunkMeta& meta);
    // Chunk 0 of a new file: an open batch gets its metadata and the fixed pages' bits.
    void format_first_chunk();

    // Fixed pages of a chunk: superblocks, metadata, directory. Never allocated, never freed.
    static bool fixed(PageId page);

  private:
    static constexpr std::uint32_t kGrowChunksMax = 16;
    static constexpr std::uint32_t kWordsPerChunk = kChunkPages / 64;  // of a bit per page

    static std::uint32_t ahead_chunks(std::uint32_t chunks);
    // Chunks that are ready, and have pages to give.
    std::uint32_t ready_backed() const { return growth_.chunks() - chunk_count_ - ready_punched_; }
    // Its pages that are not fixed ones; these come first.
    static std::uint64_t first_usable_byte(std::uint32_t chunk) {
        return (chunk + std::uint64_t{1}) * kChunkBytes - hole_bytes(chunk);
    }
    std::uint32_t first_punched() const;
    void fill_chunk();
    bool known_empty(std::uint32_t chunk) const;
    void take_all_available(std::uint32_t chunk);
    static std::uint64_t growth_mark(std::uint32_t chunks) {
        return std::uint64_t{ahead_chunks(chunks)} * kChunkPages / 2;
    }
    static std::uint32_t usable_pages(std::uint32_t chunk);
    static bool bit(const std::vector<std::uint64_t>& bits, PageId page) {
        return (bits[page.value / 64] >> (page.value % 64)) & 1;
    }
    static void set_bit(std::uint64_t* words, std::uint32_t index, bool value) {
        const std::uint64_t mask = std::uint64_t{1} << (index % 64);
        words[index / 64] = value ? words[index / 64] | mask : words[index / 64] & ~mask;
    }
    struct ReservedExtent {
        ExtentNeed need;
        std::vector<ExtentRun> runs;
    };

    bool in_use(PageId page) const;  // in the open batch
    void set_used(PageId page, bool used);
    std::uint32_t run_around(PageId page) const;
    bool takes_owner(std::uint32_t chunk, TableId table) const;
    ExtentRun find_run(const ExtentNeed& need, std::uint32_t pages, std::uint32_t from_chunk);
    void take_run(ExtentRun run);
    void return_run(ExtentRun run);
    std::vector<ExtentRun> take_runs(const ExtentNeed& need, std::uint32_t runs_max,
                                     std::uint32_t from_chunk);
    bool reserve_extent(const ExtentNeed& need, std::uint32_t runs_max);
    void set_run(TableId table, ExtentRun run, std::uint32_t newest);
    void free_run(ExtentRun run);
    void add_chunk(std::uint32_t chunk);
    void reserve_tables(std::uint32_t chunks);
    void resize_tables(std::uint32_t chunks);
    bool take_in_chunk(std::uint32_t chunk, std::uint32_t from_word, PageId& page);
    PageId take_near(PageId near);

    Pool& pool_;
    Disk& disk_;
    Growth growth_;
    std::uint32_t chunk_count_ = 0;   // newest
    std::uint32_t hint_chunk_ = 0;    // where the last search found something
    std::uint32_t reserve_hint_ = 0;  // the same, of reserve()
    std::uint32_t extent_hint_ = 0;   // the same, of find_run()
    std::uint64_t available_total_ = 0;
    std::uint64_t known_changed_ = 0;
    bool checkpoint_running_ = false;
    std::vector<std::uint64_t> available_;        // bit per page: may be taken now
    std::vector<std::uint16_t> available_count_;  // per chunk
    RunBounds run_bounds_;                        // of available pages
    std::uint64_t run_looks_ = 0;
    std::vector<bool> closed_;                    // per chunk: being emptied
    std::uint32_t closed_count_ = 0;
    std::vector<bool> punched_;           // per chunk: has holes
    std::uint32_t punched_count_ = 0;     // of those in use
    std::uint32_t ready_punched_ = 0;     // of those that are ready, or were
    std::uint32_t filling_ = 0;           // the chunk that growth fills
    bool fill_refused_ = false;           // the last time
    std::vector<std::uint64_t> known_;    // bit per page: allocated in the last checkpoint
    std::vector<std::uint32_t> crc_;      // per page: header.crc in the last checkpoint,
                                          // or, of a loaded one, in the next
    std::vector<std::uint64_t> loaded_;   // bit per page: written by a bulk load, and not
                                          // known yet
    std::vector<std::uint32_t> newest_;   // per page: newest time in it, like crc_
    struct Lower {
        std::uint32_t newest = 0;
        Csn csn;  // of the batch that said so
    };
    bool due(const Lower& lower) const { return lower.csn <= lowers_to_; }
    std::unordered_map<std::uint32_t, Lower> lower_;  // by first page of a run: stamp_extent()
    Csn lowers_to_;                                   // of the newest checkpoint that began
    std::uint64_t lowered_ = 0;
    std::vector<std::uint64_t> dropped_;  // bit per page: dropped, in quarantine
    std::vector<std::uint64_t> extent_;   // bit per page: is_extent()
    std::vector<std::uint64_t> in_file_;  // bit per page of these: crc_ is that of its place
    std::vector<ReservedExtent> reserved_;
    std::vector<TableId> loading_;  // with extents that are not attached
    std::vector<ReservedExtent> copies_;  // by reserve_copy()
    bool wrote_past_checkpoint_ = false;
    struct Quarantined {
        PageId page;
        Csn freed;
    };
    std::pmr::unsynchronized_pool_resource nodes_{kept_memory()};
    std::pmr::deque<Quarantined> quarantine_{&nodes_};  // ascending by csn
};

template <class InUse>
std::vector<PageId> Space::leaving_quarantine(const HeldSnapshots& held, Csn covered,
                                              std::size_t most, InUse in_use) {
    std::vector<PageId> pages;
    while (!quarantine_.empty() && pages.size() < most) {
        const Quarantined& front = quarantine_.front();
        if (front.freed > covered || held.any_below(front.freed.value)) break;
        if (in_use(front.page)) break;
        pages.push_back(front.page);
        quarantine_.pop_front();
    }
    return pages;
}

// The bitmap in a metadata page's bytes.
const std::uint64_t* meta_bitmap(const std::byte* page);

}  // namespace bidstore
