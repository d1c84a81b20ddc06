// What recovery reads and writes many pieces of: the journal's images and their places, the chunk
// directory, the chunks' metadata. Many requests are under way while one piece is looked at.
//
// Who:      the engine thread, before it serves.
// Owns:     the buffers. Where a device does not answer they are kept for good: it may still touch
//           them.
// Bounds:   PieceReader: at_once pieces of bytes_max. PlaceWriter: the buffers of a LoadWriter.
// Deadline: kIoError when the piece that is waited for, or any of the writes, is not answered for
//           BlockingIo::kDeadlineNs. What is under way at the end is waited for once more, unless
//           the device is known to be stuck.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/clock.h"
#include "engine/disk.h"
#include "engine/load_writer.h"
#include "shm/error.h"

namespace bidstore {

// Pieces of a file, given out in their order.
class PieceReader {
  public:
    struct Piece {
        std::uint64_t offset_bytes = 0;
        std::uint32_t length_bytes = 0;
    };
    struct Pieces {
        StoreFile file = StoreFile::kData;
        std::uint64_t count = 0;
        std::uint32_t at_once = 0;    // reads under way
        std::uint32_t bytes_max = 0;  // of a piece, at most kMaxTransferBytes
        std::function<Piece(std::uint64_t index)> at;
    };
    PieceReader(Disk& disk, Clock& clock, Pieces pieces);
    ~PieceReader();
    PieceReader(const PieceReader&) = delete;
    PieceReader& operator=(const PieceReader&) = delete;

    // The next one, until the next call. One that cannot be read does not keep those behind it from
    // being asked for, unless the reader is stuck().
    Result<const std::byte*> next();

    // The device does not answer: nothing more can be read here.
    bool stuck() const { return stuck_; }

  private:
    struct Transfer {
        DiskRequest request;
        AlignedBuffer buffer;
    };
    void send_reads();

    Disk& disk_;
    Clock& clock_;
    const Pieces pieces_;
    std::vector<std::unique_ptr<Transfer>> transfers_;  // used in turn
    std::uint64_t sent_ = 0;
    std::uint64_t next_ = 0;
    bool stuck_ = false;
};

// Pages to their places in the data file, in any order; neighbours that come one after the other
// with one write. No page is put twice.
class PlaceWriter {
  public:
    PlaceWriter(Disk& disk, Clock& clock);
    ~PlaceWriter();
    PlaceWriter(const PlaceWriter&) = delete;
    PlaceWriter& operator=(const PlaceWriter&) = delete;

    // The failure of any page so far: nothing more is written then.
    Status put(PageId page, const std::byte* image);
    // Waits for all of them; also after a failure, which it gives again.
    Status finish();
    // The device does not answer: writes may still come to their places, at any time.
    bool stuck() const { return stuck_; }

  private:
    // In one piece, so that it can be left to a device that comes back when all else is gone.
    struct Writes {
        explicit Writes(Disk& disk);
        LoadWriter writer;
        std::uint64_t completed = 0;
        Status status;
    };
    void send();
    Status wait_until(const std::function<bool()>& done);

    Disk& disk_;
    Clock& clock_;
    std::unique_ptr<Writes> writes_;
    LoadWriter::Buffer* buffer_ = nullptr;  // being filled
    std::vector<PageId> pages_;             // in it
    bool stuck_ = false;
};

}  // namespace bidstore
