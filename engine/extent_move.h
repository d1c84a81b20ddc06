// One large value on its way to another place in the file, for compaction: copied past the pool, a
// piece at a time, to pages that nobody knows yet.
//
//   idle ──begin──► copying ──► copied ──end──► idle
//                      └──► failed ──end──► idle
//
// A row refers to the copy only after the last write of it has completed, in a batch; the next
// checkpoint syncs it (Space::attach_copy). The old pages are written once, so they hold still
// while they are copied: until their row goes, or is replaced, and then the copy is for nothing.
//
// Who:    the engine thread; I/O completes in Disk::poll().
// Owns:   the buffer of a piece; from begin() to end() the pages of the copy, unless they were
//         attached. It must be quiet() when it goes.
// Bounds: kPiecePages at a time.
// Errors: failed() with the page that was to be copied, and what was wrong: kCorruption of the
//         page, kIoError of the device, perhaps of its new place. A copy of a value that is a row's
//         no more may fail for nothing, since its pages may have become others.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/disk.h"
#include "engine/page/row.h"
#include "engine/space.h"

namespace bidstore {

class ExtentMove {
  public:
    static constexpr std::uint32_t kPiecePages = 32;

    ExtentMove(Space& space, Pool& pool, Disk& disk);

    bool idle() const { return state_ == State::kIdle; }
    bool quiet() const { return in_flight_ == 0; }
    bool copied() const { return state_ == State::kCopied; }
    bool failed() const { return state_ == State::kFailed && quiet(); }
    const Failure& failure() const { return failure_; }
    PageId bad_page() const { return bad_page_; }

    // The value of the row with this key that `from` refers to. False: there is no place for it,
    // in `runs_max` runs at most. Idle before.
    bool begin(TableId table, std::span<const std::byte> key, const ValueReference& from,
               std::uint32_t runs_max);
    // Starts the next piece, unless one is under way. Pages copied since the last call.
    std::uint32_t pump();
    // What the row is to refer to, once it is copied().
    const ValueReference& to() const { return to_; }
    const ValueReference& from() const { return from_; }
    TableId table() const { return table_; }
    std::span<const std::byte> key() const { return key_; }
    // Quiet before. Gives the pages back that were not attached.
    void end(bool attached);

  private:
    enum class State : std::uint8_t {
        kIdle,     // begin() ──► kReading
        kReading,  // a piece ──► kWriting, kFailed
        kWriting,  // ──► kReading, kCopied, kFailed
        kCopied,   // end() ──► kIdle
        kFailed,   // end() ──► kIdle
    };

    void read_piece();
    void write_piece();
    bool check_piece();
    void submit(DiskRequest::Kind kind, PageId page, std::uint32_t first, std::uint32_t pages);
    void on_completed(const DiskRequest& request);
    void fail(Failure failure, PageId page);
    std::string name_of(PageId page) const;

    Space& space_;
    Pool& pool_;
    Disk& disk_;
    State state_ = State::kIdle;
    TableId table_;
    std::vector<std::byte> key_;
    ValueReference from_;
    ValueReference to_;
    std::vector<ExtentRun> runs_;  // of the copy
    std::uint32_t pages_ = 0;
    std::uint32_t done_ = 0;   // of them, before the piece under way
    std::uint32_t told_ = 0;   // of them, by pump()
    std::uint32_t piece_ = 0;  // pages of the piece under way
    std::uint32_t crc_ = 0;    // of the value's bytes so far
    std::uint32_t in_flight_ = 0;
    AlignedBuffer buffer_{kPiecePages * kPageBytes};
    std::vector<DiskRequest> requests_;  // of the piece, one per run of neighbours
    std::vector<bool> from_file_;        // pages of the piece that were read from the file
    Failure failure_;
    PageId bad_page_;
};

}  // namespace bidstore
