// One bulk load: rows come in, full pages go straight to reserved places of the data file, past log
// and pool, and so do the extents of rows that no page has room for (engine/bulk_load_extents.cc).
// What makes them the table's is the Core's part (engine/engine_loads.cc):
//
//   kRows     rows come; pages are built, placed, written
//   kEnding   no more rows: the inner nodes up to the root follow, and the last writes
//   kSync     the data file
//   kAttach   one batch: the pages come under the hidden root and into the bitmap
//   kCover    a checkpoint at or above that batch
//   kShow     the logged record: the table is everybody's
//   kFailed   writes under way end, then the reserved pages go back, and the buffers; whoever owns
//             it forgets it when its client knows
//             crash, or the client's end, before kShow is durable: a hidden table, which is dropped
//
// Who:     the engine thread; writes complete in Disk::poll().
// Owns:    its buffers and, until attach(), the reserved pages. It must be quiet() when it goes.
// Bounds:  the memory of LoadWriter; pump() seals at most kSealedPerPump buffers, so that
//          a round of the engine stays short.
// Errors:  a failed write fails the load. Its pages are synced by the checkpoint that the table is
//          shown after, and by nobody else: the kernel tells a lost write to one sync.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/client_port.h"
#include "engine/disk.h"
#include "engine/load_builder.h"
#include "engine/load_writer.h"
#include "engine/space.h"

namespace bidstore {

class BulkLoad {
  public:
    enum class State : std::uint8_t {
        kRows,    // ──► kEnding
        kEnding,  // ──► kAttach
        kAttach,  // ──► kCover
        kCover,   // ──► kShow
        kShow,    // ──► kDone
        kDone,
        kFailed,  // from any of them but kDone
    };
    static constexpr std::uint32_t kSealedPerPump = 2;

    BulkLoad(const CallAddress& client, const Schema& schema, const LoadIdentity& identity,
             Space& space, Disk& disk);

    State state() const { return state_; }
    std::uint64_t client_id() const { return client_.client_id; }
    TableId table() const { return table_; }
    const std::string& name() const { return name_; }
    const LoadBuilder& builder() const { return builder_; }

    // When its client sent something the last time, or could not.
    void heard(std::uint64_t now_ns) { heard_ns_ = now_ns; }
    std::uint64_t heard_ns() const { return heard_ns_; }

    // ---- kRows ----
    // Whether take() may be called: there are buffers for one record more.
    bool ready() const;
    // Nothing but the client holds it up.
    bool waits_for_rows() const { return ready() && !needs_pages_; }
    // kBusy: extents of a row have to wait for pages or buffers. The same record comes again then,
    // and goes on where it stopped.
    Error take(std::span<const std::byte> packed, std::uint64_t rows, std::uint32_t& bad_row);
    // No more rows; `from` waits for the end.
    void finish(const CallAddress& from);

    // ---- kRows to kSync ----
    // Places and writes what is complete, and moves on. True when something was done.
    bool pump();
    // Pages of the file that it may reserve before it needs more.
    std::uint64_t pages_left() const;
    // pump() stands still: it needs pages of the file.
    bool needs_pages() const { return needs_pages_; }
    // Since when it has waited for what others free; 0: it does not.
    void set_waits_since(std::uint64_t now_ns) { waits_since_ns_ = now_ns; }
    std::uint64_t waits_since_ns() const { return waits_since_ns_; }
    // There are none in big runs, and no more will come: take what there is in small ones.
    void make_do() { at_least_ = 1; }
    bool made_do() const { return at_least_ == 1; }
    // Growth was asked for chunks, and it took none since.
    void set_extended(bool extended) { extended_ = extended; }
    bool extended() const { return extended_; }
    // What comes back with a checkpoint of this csn is the last that it waits for; 0: not said yet.
    void set_last_chance(Csn csn) { last_chance_ = csn; }
    Csn last_chance() const { return last_chance_; }
    // How many chunks the reserved pages touch: so many page versions has attach().
    std::uint32_t chunks() const { return chunks_; }

    // ---- kAttach and on ----
    // A load of many gigabytes has its bitmaps copied ahead, some in each round, so that the round
    // of attach() stays short. False: `most` were done, and there are more.
    bool copy_bitmaps_ahead(std::uint32_t most);
    // In the open batch, for which room was secured; `root` is the root's version in it.
    void attach(std::byte* root, Csn batch);
    Csn attached() const { return attached_; }
    void covered() { state_ = State::kShow; }
    void shown() { state_ = State::kDone; }
    // finish() was called, and its call has no answer yet.
    bool finishing() const { return finishing_ && !abandoned_ && state_ != State::kDone; }
    const CallAddress& client() const { return client_; }

    // ---- failing ----
    void fail(Error error);
    Error error() const { return error_; }
    // A write failed, for the log: what, where and why, once. Empty otherwise.
    std::string take_trouble() { return std::exchange(trouble_, {}); }
    // Nobody waits for an answer of it any more.
    void abandon();
    bool abandoned() const { return abandoned_; }
    // No write is under way, and of a failed load what was reserved went back.
    bool quiet() const { return in_flight() == 0; }
    // It failed, and keeps nothing but its error for a client that has not heard of it.
    bool over() const { return state_ == State::kFailed && quiet(); }
    // Of one that is over; not out of a write's completion, whose request lies in them.
    void release_buffers();
    bool has_buffers() const { return !writer_.released(); }

  private:
    using Buffer = LoadWriter::Buffer;
    std::byte* next_page();
    std::uint32_t in_flight() const { return writer_.in_flight(); }
    std::uint64_t pages_to_leave() const;
    void touch(std::uint32_t chunk);
    bool reserve();
    bool seal(Buffer& buffer);
    bool pump_end();
    void on_written(const DiskRequest& done);
    void give_back();

    // ---- engine/bulk_load_extents.cc ----
    bool reserve_extents(std::span<const ExtentNeed> needs);
    ValueReference put_value(std::span<const std::byte> value, std::uint32_t newest);
    std::byte* extent_page(PageId page);
    void write_extents();
    void attach_extents();
    void give_back_extents();

    CallAddress client_;
    const TableId table_;
    const std::string name_;
    Space& space_;
    Disk& disk_;
    LoadWriter writer_;
    LoadBuilder builder_;
    State state_ = State::kRows;
    std::uint64_t heard_ns_ = 0;
    LoadProgress progress_;  // in the record that take() did not get to the end of
    Buffer* filling_ = nullptr;
    std::deque<Buffer*> full_;                        // oldest first: placed in this order
    std::vector<PageRun> runs_;                       // reserved, all of them
    PageRun rest_;                                    // of the newest, not placed yet
    std::deque<std::vector<ExtentRun>> next_values_;  // reserved for the row that is to be put
    std::vector<PageRun> extent_runs_;   // reserved for extents, all of them; neighbours are joined
    Buffer* extents_ = nullptr;          // being filled with pages of extents
    std::vector<PageId> extent_places_;  // of its pages
    bool row_needs_pages_ = false;
    std::uint32_t chunks_ = 0;
    std::vector<bool> touched_;        // by chunk
    std::uint32_t copied_chunks_ = 0;  // the chunks before had their bitmaps copied ahead
    std::uint32_t at_least_ = kBigRun;
    Csn last_chance_;
    std::uint64_t waits_since_ns_ = 0;
    bool extended_ = false;
    bool needs_pages_ = false;
    Csn attached_;
    Error error_ = Error::kOk;
    bool finishing_ = false;
    std::string trouble_;
    bool abandoned_ = false;

    static constexpr std::uint32_t kBigRun = kChunkPages / 2;
    static constexpr std::uint32_t kBuffersForLeaves = 2;  // of one record
    static constexpr std::uint64_t kLeave = 128;  // pages that commits find, besides growth's mark
};

}  // namespace bidstore
