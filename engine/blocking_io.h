// One file operation at a time, waited for: format, recovery and verify. Never the commit path.
//
// Who:      the engine thread. Other requests that are in flight complete meanwhile, as in any
//           poll().
// Deadline: an operation that has not completed in time is kIoError. The device may still touch its
//           memory then, which is never the caller's: bytes go through a buffer of this class, and
//           that stays allocated for good.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/aligned_buffer.h"
#include "engine/clock.h"
#include "engine/disk.h"
#include "shm/error.h"

namespace bidstore {

// What went wrong with a completed request: kNoSpace for a full device, else kIoError; the message
// names operation, file, offset and errno.
Failure io_failure(const Disk& disk, const DiskRequest& request);

// The same for one that has not completed in time.
Failure io_overdue(const Disk& disk, const DiskRequest& request, std::uint64_t deadline_ns);

class BlockingIo {
  public:
    static constexpr std::uint64_t kDeadlineNs = 30'000'000'000;

    BlockingIo(Disk& disk, Clock& clock, std::uint64_t deadline_ns = kDeadlineNs);
    ~BlockingIo();
    BlockingIo(const BlockingIo&) = delete;
    BlockingIo& operator=(const BlockingIo&) = delete;

    // Any whole number of blocks, also more than kMaxTransferBytes.
    Status read(StoreFile file, std::uint64_t offset_bytes, void* to, std::uint64_t length_bytes);
    Status write(StoreFile file, std::uint64_t offset_bytes, const void* from,
                 std::uint64_t length_bytes, bool durable);
    Status sync(StoreFile file);

    // An operation never came back; nothing more can be done here.
    bool stuck() const { return stuck_; }

  private:
    Status transfer(DiskRequest::Kind kind, StoreFile file, std::uint64_t offset_bytes,
                    std::byte* bytes, std::uint64_t length_bytes, bool durable);
    Status run();

    Disk& disk_;
    Clock& clock_;
    const std::uint64_t deadline_ns_;
    std::unique_ptr<DiskRequest> request_;
    AlignedBuffer buffer_;
    bool stuck_ = false;
};

// Waits for all that is in flight, for as long as it takes: the device may write to its memory
// until then. One that does not answer is told of once, after BlockingIo::kDeadlineNs.
void drain(Disk& disk, Clock& clock,
           const std::function<void(int level, const std::string& line)>& log);

}  // namespace bidstore
