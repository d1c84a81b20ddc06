// The superblock: sealing, checking, and writing both copies one after the other.
//
// Order: copy 0 is durable before copy 1 is begun, so one valid copy exists at every moment; what a
//        superblock permits (reuse of log, journal, places) begins only after both are durable.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/aligned_buffer.h"
#include "engine/disk.h"
#include "engine/format.h"
#include "shm/error.h"

namespace bidstore {

void seal_superblock(Superblock& superblock);
// Magic, version and CRC fit.
bool superblock_valid(const Superblock& superblock);
// Magic and CRC fit, the version is not ours: magic, version and CRC stay where they are in all
// versions. A wrong version without a fitting CRC is damage.
bool superblock_of_other_version(const Superblock& superblock);
// What of a valid one no daemon writes, in words, or nullptr: the CRC shows rot, but not a program
// that writes one of its own. Whether the files are as long as it says is another question.
const char* superblock_fault(const Superblock& superblock);
// What is wrong with the older of two valid copies, in words, or nothing: that it is further behind
// than the one write that may be under way, or was cut off. Were the newer one damaged, a start
// would take it.
std::string stale_copy(const std::array<std::uint64_t, kSuperblockCopies>& sequences);

// Who:  the engine thread; one write at a time.
class SuperblockWriter {
  public:
    explicit SuperblockWriter(Disk& disk);
    // Gives the content the next sequence, seals it and writes copy 0, then copy 1. `done` runs
    // from Disk::poll() with what came of it.
    void write(Superblock& superblock, std::function<void(const Status& written)> done);
    bool busy() const { return busy_; }

  private:
    void submit(std::uint32_t copy);
    void on_written();

    Disk& disk_;
    AlignedBuffer buffer_{kBlockBytes};
    DiskRequest request_;
    std::uint32_t copy_ = 0;
    bool busy_ = false;
    std::function<void(const Status&)> done_;
};

}  // namespace bidstore
