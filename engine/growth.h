// Growth of the data file ahead of need, beside the commit path.
//
//   idle ──start──► zeroing, piece by piece ──► syncing ──► idle, chunks() has risen
//                        │ the file system is full
//                        └──► what is whole so far is synced and kept; kNoSpace is told
//
//   idle ──cut──► punching, piece by piece ──► idle, the file is shorter; chunks() fell at once
//
// A chunk counts only when it is zeroed and synced with the file's new size, so no page of a chunk
// that could be lost is ever used. Pieces are small and go one at a time: the log's writes share
// the device. What a crash or a full file system leaves behind the last counted chunk is free, and
// is written over by the next growth.
//
// Who:    the engine thread alone; I/O completes in Disk::poll().
// Errors: kNoSpace may be tried again later; anything else is final, since a device that fails to
//         grow a file may have failed other writes, too.
#pragma once

#include <cstdint>

#include "engine/aligned_buffer.h"
#include "engine/disk.h"
#include "engine/format.h"
#include "shm/error.h"

namespace bidstore {

class Growth {
  public:
    explicit Growth(Disk& disk) : disk_(disk) {}

    // Chunks of the file that may be used: zeroed once, durable.
    std::uint32_t chunks() const { return chunks_; }
    // The file is known to have so many (open, or a cut): not while running.
    void set_chunks(std::uint32_t chunks);

    bool running() const { return phase_ != Phase::kIdle; }
    // Begins to grow the file to so many chunks; not while running.
    void start(std::uint32_t to_chunks);
    // Begins to give back what the file of `file_bytes` has behind so many chunks, at most
    // chunks(): these are nobody's from now on. No checkpoint on disk knows one of them. Not while
    // running.
    void cut(std::uint32_t to_chunks, std::uint64_t file_bytes);
    // Ends a growth after the piece under way; whole chunks are kept.
    void wind_down() { target_ = 0; }
    // Whether a growth or cut came to its end since the last call, and how.
    bool take_result(Status& status);

  private:
    enum class Phase : std::uint8_t {
        kIdle,     // start() ──► kZeroing
        kZeroing,  // ──► kSyncing, or kIdle when no chunk is whole
        kSyncing,  // ──► kIdle
        kPunching,  // cut() ──► kIdle
    };
    static constexpr std::uint32_t kPieceBytes = 256u << 10;
    static_assert(kChunkBytes % kPieceBytes == 0);

    static constexpr std::uint32_t kHoleBytes = static_cast<std::uint32_t>(kChunkBytes);

    void write_piece();
    void punch_piece();
    void on_punched();
    void sync();
    void on_completed();
    void finish();

    Disk& disk_;
    Phase phase_ = Phase::kIdle;
    std::uint32_t chunks_ = 0;
    std::uint32_t target_ = 0;
    std::uint64_t zeroed_bytes_ = 0;  // of the file, the chunks before counted
    std::uint64_t end_bytes_ = 0;     // of a file that is being cut: not punched so far
    AlignedBuffer zeros_;
    DiskRequest request_;
    Status status_;
    bool result_ = false;
};

}  // namespace bidstore
