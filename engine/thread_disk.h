// The disk seam by pread and pwrite in a few threads, for hosts that forbid io_uring.
//
// Who: one thread uses it, as with every Disk; the workers only touch requests that are in flight.
// End: destroyed with requests in flight it waits for those that have begun, drops the others, and
//      runs no completion.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/disk.h"
#include "engine/file_set.h"
#include "shm/error.h"

namespace bidstore {

class ThreadDisk {
  public:
    // thread_count: requests in progress at once, 1 to 64.
    static Result<std::unique_ptr<Disk>> open(FileSet files, std::uint32_t thread_count = 4);
};

}  // namespace bidstore
