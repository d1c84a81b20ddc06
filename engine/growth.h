// Growth of the data file ahead of need, beside the commit path.
//
//   start  zeros behind the end, piece by piece ──► sync ──► chunks() has risen
//             │ the file system is full
//             └──► what is whole so far is synced and kept; kNoSpace is told
//   extend room behind the end without zeros, piece by piece; chunks() rises with each. For pages
//          that are written whole; where the file system cannot, as start
//   cut    the blocks behind the end to be, piece by piece ──► the cut ──► sync; chunks() fell at
//          once
//   punch  the blocks of a range inside the file
//   fill   zeros into such a range, piece by piece ──► sync
//
// A chunk counts only when it is zeroed and synced with the file's new size, so no page of a chunk
// that could be lost is ever used; or when the file was extended by it, and then whoever makes such
// pages durable syncs the size with them: the first checkpoint with the chunk.
// Pieces go one at a time, and those that are written are small: the log's writes share the device.
// What a crash or a full file system leaves behind the last counted chunk is free, and is written
// over by the next growth.
//
// Who:    the engine thread alone; I/O completes in Disk::poll().
// Errors: kNoSpace may be tried again later; anything else is final, since a device that fails to
//         grow a file may have failed other writes, too.
#pragma once

#include <cstdint>
#include <string>

#include "engine/aligned_buffer.h"
#include "engine/disk.h"
#include "engine/format.h"
#include "shm/error.h"

namespace bidstore {

class Growth {
  public:
    explicit Growth(Disk& disk) : disk_(disk) {}

    // Chunks of the file that may be used.
    std::uint32_t chunks() const { return chunks_; }
    // The file is known to have so many (open, or a cut): not while running.
    void set_chunks(std::uint32_t chunks);

    bool running() const { return phase_ != Phase::kIdle; }
    // The device was told to make the file's pages durable, or failed to, and nobody knows yet.
    bool syncing() const { return phase_ == Phase::kSyncing || (result_ && !status_.ok()); }
    // What was begun last has ended, and its result was taken: something else may begin.
    bool idle() const { return !running() && !result_; }
    // Begins to grow the file to so many chunks; idle before.
    void start(std::uint32_t to_chunks);
    void extend(std::uint32_t to_chunks);
    // Begins to give back what the file of `file_bytes` has behind so many chunks, at most
    // chunks(): these are nobody's from now on. No checkpoint on disk knows one of them. Idle
    // before.
    void cut(std::uint32_t to_chunks, std::uint64_t file_bytes);
    // Begins to give back a range inside the file that is nobody's, at most a chunk; and to make
    // it usable again, which is durable at the end. Idle before.
    void punch(std::uint64_t from_bytes, std::uint64_t to_bytes);
    void fill(std::uint64_t from_bytes, std::uint64_t to_bytes);
    // Ends a growth after the piece under way; whole chunks are kept.
    void wind_down() { target_ = 0; }
    // What ended last failed, and not for want of room: nothing more may be written.
    bool failed() const { return !status_.ok() && status_.error() != Error::kNoSpace; }
    std::string failure() const { return failed() ? "growth: " + status_.failure().what : ""; }
    // Whether something came to its end since the last call, and how. A punch that fails is no
    // error: whatever it did, the range is to be filled before it is used.
    bool take_result(Status& status);
    bool filled() const { return job_ == Job::kFill; }  // that was it
    // False: the file system was asked for a hole, and makes none.
    bool makes_holes() const { return makes_holes_; }

  private:
    enum class Job : std::uint8_t { kGrow, kExtend, kCut, kPunch, kFill };
    enum class Phase : std::uint8_t {
        kIdle,     // start(), extend(), cut(), punch(), fill() ──► kPieces
        kPieces,   // ──► kSyncing, kCutting or kIdle
        kCutting,  // ──► kSyncing
        kSyncing,  // ──► kIdle
    };
    static constexpr std::uint32_t kPieceBytes = 256u << 10;
    static_assert(kChunkBytes % kPieceBytes == 0);

    static constexpr std::uint32_t kHoleBytes = static_cast<std::uint32_t>(kChunkBytes);
    // Each piece waits in the kernel for all direct I/O of the file, and the next ones for it: few
    // and large ones disturb readers and loads less than many small ones.
    static constexpr std::uint32_t kExtendBytes = 128u << 20;
    static_assert(kExtendBytes % kChunkBytes == 0);

    void begin(Job job);
    void next_piece();
    void write_piece();
    void extend_piece();
    std::uint64_t end_of_pieces() const {
        return job_ == Job::kFill ? end_bytes_ : target_ * kChunkBytes;
    }
    void punch_piece();
    void submit(DiskRequest::Kind kind, std::uint64_t offset_bytes, std::uint64_t length_bytes);
    void on_completed();
    void on_piece();
    void on_extended();
    void on_synced();
    void finish();

    Disk& disk_;
    Phase phase_ = Phase::kIdle;
    Job job_ = Job::kGrow;
    std::uint32_t chunks_ = 0;
    std::uint32_t target_ = 0;
    std::uint64_t zeroed_bytes_ = 0;  // of the file: it is zeroed, or extended, from there on
    std::uint64_t extend_bytes_ = 0;  // at once, as long as the file system has so much
    std::uint64_t end_bytes_ = 0;     // of a fill; of a cut or a punch: what is behind has gone
    std::uint64_t keep_bytes_ = 0;    // of a cut or a punch: what stays
    AlignedBuffer zeros_;
    DiskRequest request_;
    Status status_;
    bool result_ = false;
    bool makes_holes_ = true;
};

}  // namespace bidstore
