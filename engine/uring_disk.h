// The real disk: io_uring. The only file that knows the kernel's interface is uring_disk.cc.
//
// Who:    open() may run on any thread; the first call after it binds the ring to its thread,
//         which then makes every call.
// End:    destroyed (on the thread that used it) with requests in flight it waits for those that
//         the kernel has, drops the others, and runs no completion.
// Errors: open() is kUnsupported where the host forbids io_uring; the message names the remedy.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/disk.h"
#include "engine/file_set.h"
#include "shm/error.h"

namespace bidstore {

inline constexpr std::uint32_t kDiskQueueDepth = 128;

class UringDisk {
  public:
    // queue_depth: requests that the kernel holds at once, 1 to 4096; more wait here.
    static Result<std::unique_ptr<Disk>> open(FileSet files,
                                              std::uint32_t queue_depth = kDiskQueueDepth);

    // Whether this host lets this process use io_uring: ok, or kUnsupported with the reason.
    static Status probe();
};

}  // namespace bidstore
