// The checkpoint: moves the data file from one consistent state to the next, while commits go on.
//
// The recipe (design of the log and the journal in FORMAT.md), with what a crash after each step
// finds:
//
//   1 direct    images of pages that are free in the last checkpoint go to their places; sync
//               crash: nobody refers to them, the old checkpoint stands
//   2 journal   all other images, the metadata of touched chunks and their directory pages go to
//               the journal, then its header; sync
//               crash: not named by the superblock, so ignored
//   3 name      the superblock of C, which names the journal, both copies: the commit point
//               crash: recovery copies the journal into place
//   4 places    the journal's images go to their places; sync
//               crash: the same
//   5 close     the superblock names no journal
//               only now is the checkpoint finished: log and journal may be reused, frames evicted
//
// The checkpointer is a reader: csn() is a held snapshot from start() to the end, without a lease.
// What it writes is in the pool, since changed pages are not evicted: there is nothing to read
// ahead.
//
// All of it is done in small pieces: pump() does no more than it is told to, and says by progress()
// how far the whole is, so that the engine can pace it (engine/checkpoint_pace.h) between commits.
//
// Who:    the engine thread alone; I/O completes in Disk::poll().
// Errors: any failed read, write or sync is final: failure() says what, and the engine fences.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/disk.h"
#include "engine/format.h"
#include "engine/pool.h"
#include "engine/space.h"
#include "engine/superblock.h"

namespace bidstore {

// What a checkpoint is of: a published csn and the log behind it.
struct CheckpointTarget {
    Csn csn;
    std::uint64_t log_position = 0;  // replay would start here
    std::uint64_t time_us = 0;       // of the newest batch, 0 if unknown
    std::uint32_t log_crc = 0;       // of the batch before
    Csn durable;                     // newest durable csn
};

// The chunk directory: an entry a chunk, and the CRC of each directory page.
struct ChunkDirectory {
    std::vector<DirectoryEntry> entries;
    std::vector<std::uint32_t> page_crcs;
};

struct CheckpointTotals {
    std::uint64_t finished = 0;
    std::uint64_t pages = 0;          // images written, without metadata
    std::uint64_t journal_pages = 0;  // images that went through the journal
};

// What one pump() may do. A unit of work is about what it costs to copy a page and to sum it up,
// 1 to 2 µs.
struct CheckpointSlice {
    std::uint32_t work = ~0u;
    std::uint32_t writes_in_flight = 8;  // of images, at most kTransfers
    // False: another sync of the data file is under way. The kernel tells a lost write to one sync,
    // so what this one says of the checkpoint's writes counts when that one has said so, too.
    bool may_name = true;
};

class Checkpointer {
  public:
    // `superblock` is the current one, kept up to date; `directory` the chunk directory as it is on
    // disk.
    Checkpointer(Pool& pool, Space& space, Disk& disk, Superblock& superblock,
                 ChunkDirectory directory);

    bool running() const { return phase_ != Phase::kIdle; }
    // Of the recipe above, 1 to 5; 0 when none runs.
    std::uint32_t recipe_step() const;
    // The snapshot it holds; only while running.
    Csn csn() const { return target_.csn; }
    // Newest csn that a finished checkpoint covers.
    Csn covered() const { return covered_; }

    // Where recovery would start the log: both superblock copies on disk say so. The log before it
    // may be reused.
    std::uint64_t log_start() const { return log_start_; }

    // Begins, at the newest published csn; not while running.
    void start(const CheckpointTarget& target);
    // Goes on; true when something was done.
    bool pump(const CheckpointSlice& slice);
    // Image writes that are done, and all that there will be (a guess, never too low by much, until
    // all images are found). Only while running.
    std::uint64_t images_written() const { return images_written_; }
    std::uint64_t images_expected() const;
    // How far it is, 0 to 1, by the time that its writes take: a write of a single page costs the
    // device nearly as much as one of many.
    double progress() const;

    // Places of the journal that a checkpoint may take of the pages changed so far and `pages`
    // further ones, of which the last checkpoint knows `known`; and of these alone. Chunks whose
    // pages change, and the directory above them, count once each.
    std::uint64_t journal_use(std::uint64_t known, std::uint64_t pages) const;
    std::uint64_t journal_need(std::uint64_t known, std::uint64_t pages) const;
    std::uint64_t journal_capacity() const;

    const std::string& failure() const { return failure_; }
    // That is why: what changed has no room in the journal, and nothing was written.
    bool journal_too_short() const { return journal_images_ > journal_capacity(); }
    const CheckpointTotals& totals() const { return totals_; }
    SuperblockWriter& superblock_writer() { return writer_; }

  private:
    enum class Phase : std::uint8_t {
        kIdle,           // start() ──► kCollect
        kCollect,        // finds the images ──► kDirect
        kDirect,         // images to free places ──► kDirectSync
        kDirectSync,     // ──► kJournal
        kJournal,        // images ──► kCompose
        kCompose,        // metadata and directory, which need all CRCs ──► kJournalRest
        kJournalRest,    // these ──► kJournalList
        kJournalList,    // makes header and list ──► kJournalHeader
        kJournalHeader,  // writes them ──► kJournalSync
        kJournalSync,    // ──► kName
        kName,           // both superblock copies ──► kPlaces
        kPlaces,         // ──► kPlacesSync
        kPlacesSync,     // ──► kClose
        kClose,          // both superblock copies ──► kSettle
        kSettle,         // space and pool learn of it ──► kIdle, finished
    };
    struct Image {
        std::uint32_t page = 0;
        std::uint32_t crc = 0;
        const std::byte* source = nullptr;  // a frame held by csn(), or a composed page
        std::uint32_t newest = 0;           // time in it, as metadata keeps it
        bool extent = false;                // no header: its CRC is that of its bytes
    };
    struct Transfer {
        DiskRequest request;
        AlignedBuffer buffer{kTransferPages * kPageBytes};
        Checkpointer* owner = nullptr;
    };
    static constexpr std::uint32_t kTransferPages = 32;
    static constexpr std::uint32_t kTransfers = 8;

    bool collect();
    void take(PageId page);
    void enter_chunk(std::uint32_t chunk);
    void collected();
    Status lengthen_journal();
    bool compose();
    void compose_chunk(std::uint32_t chunk);
    void compose_directory(std::uint32_t group);
    const Image* image_of(PageId page);
    std::byte* composed_page(PageId page, PageType type);
    bool submit_images(std::vector<Image>& images, StoreFile file, bool in_place);
    bool make_list();
    void end_list();
    bool submit_list();
    void submit_sync(StoreFile file);
    void submit_single();
    void submit_superblock();
    void sum_up(Image& image, std::byte* page) const;
    Transfer* idle_transfer();
    void on_completed(DiskRequest& request);
    void enter(Phase phase);
    std::uint64_t writes_expected() const;
    bool spend(std::uint32_t work);
    bool step();
    bool settle();
    void finish();

    Pool& pool_;
    Space& space_;
    Disk& disk_;
    Superblock& superblock_;
    SuperblockWriter writer_;
    ChunkDirectory directory_;
    std::uint64_t log_start_;
    Phase phase_ = Phase::kIdle;
    CheckpointTarget target_;
    Csn covered_;
    std::uint32_t chunks_ = 0;  // that exist at csn()
    bool unsynced_ = false;     // pages were written past it: Space::wrote_past_checkpoint()
    CheckpointSlice slice_;     // what is left of it
    std::vector<Image> direct_;
    std::vector<Image> journaled_;  // of the tree's pages first, then composed ones; both by page
    std::vector<std::uint32_t> touched_;  // chunks, ascending
    std::vector<std::uint32_t> touched_groups_;
    std::uint64_t journal_data_ = 0;    // of journaled_, those that are not composed
    std::uint64_t journal_images_ = 0;  // the journal's list will have so many entries
    std::uint32_t journal_list_crc_ = 0;
    std::uint32_t directory_root_ = 0;  // Superblock::directory_crc to be
    std::uint64_t images_written_ = 0;
    std::uint64_t writes_done_ = 0;  // of images
    std::uint64_t direct_runs_ = 0;  // of neighbours, in direct_ and in journaled_
    std::uint64_t journal_runs_ = 0;
    std::vector<AlignedBuffer> composed_;    // kept from one checkpoint to the next
    std::size_t composed_count_ = 0;         // of these, in use
    std::size_t cursor_ = 0;                 // in what the phase goes through
    std::uint64_t word_ = 0;                 // kCollect: pages left of the word before the cursor
    const std::byte* chunk_meta_ = nullptr;  // kCollect: of touched_.back(), at csn()
    std::size_t direct_cursor_ = 0;          // kCompose: images before it lie in earlier chunks
    std::size_t journal_cursor_ = 0;
    std::uint32_t in_flight_ = 0;
    std::vector<std::unique_ptr<Transfer>> transfers_;
    AlignedBuffer list_;  // the journal's header and list
    DiskRequest single_;  // pieces of that, and syncs
    std::string failure_;
    CheckpointTotals totals_;
};

}  // namespace bidstore
