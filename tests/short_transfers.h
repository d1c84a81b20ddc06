// The kernel transfers less than asked: every read and write that this program asks for directly or
// through a ring is made shorter on its way to the kernel, which then does what it is told. So the
// answers are its own, and real short ones.
//
// Who:    a test program that includes this, once: it defines functions that libc and liburing
//         have, in their place.
// Errors: of the direct calls some end with EINTR, having done nothing.
#pragma once

#include <dlfcn.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

namespace bidstore {

class ShortTransfers {
  public:
    // Lengths are multiples of `unit_bytes` from now on; 0: as asked.
    static void set_unit(std::uint32_t unit_bytes) { unit_bytes_ = unit_bytes; }
    static std::uint64_t made() { return made_; }

    // What is asked of the kernel in place of so much.
    static std::uint64_t shorter(std::uint64_t length_bytes) {
        const std::uint64_t unit = unit_bytes_;
        if (unit == 0 || length_bytes <= unit) return length_bytes;
        const std::uint64_t units = (length_bytes + unit - 1) / unit;
        // Any part of it, and near its ends more often.
        const std::uint64_t number = ++asked_ * 0x9e37'79b9'7f4a'7c15ull >> 32;
        const std::uint64_t part = number % 4 == 0   ? 1
                                   : number % 4 == 1 ? units - 1
                                                     : 1 + number / 4 % units;
        const std::uint64_t bytes = std::min(part * unit, length_bytes);
        made_ += bytes < length_bytes;
        return bytes;
    }
    static bool interrupts() { return unit_bytes_ != 0 && ++asked_ % 5 == 0; }

    static void shorten(io_uring* ring) {
        for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; ++at) {
            io_uring_sqe& entry = ring->sq.sqes[at & ring->sq.ring_mask];
            const bool transfers = entry.opcode == IORING_OP_READ ||
                                   entry.opcode == IORING_OP_READ_FIXED ||
                                   entry.opcode == IORING_OP_WRITE;
            if (transfers) entry.len = static_cast<std::uint32_t>(shorter(entry.len));
        }
    }

  private:
    static inline std::atomic<std::uint32_t> unit_bytes_{0};
    static inline std::atomic<std::uint64_t> asked_{0};
    static inline std::atomic<std::uint64_t> made_{0};
};

// The function of that name that the program would have without this.
template <class Function>
Function real_function(const char* name) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace bidstore

extern "C" {

inline ssize_t shortened_vector(long call, int file, const iovec* parts, off_t offset, int flags) {
    using bidstore::ShortTransfers;
    if (ShortTransfers::interrupts()) {
        errno = EINTR;
        return -1;
    }
    const iovec part{parts->iov_base, ShortTransfers::shorter(parts->iov_len)};
    return ::syscall(call, file, &part, 1, offset, 0, flags);
}

ssize_t preadv2(int file, const iovec* parts, int, off_t offset, int flags) {
    return shortened_vector(SYS_preadv2, file, parts, offset, flags);
}
ssize_t pwritev2(int file, const iovec* parts, int, off_t offset, int flags) {
    return shortened_vector(SYS_pwritev2, file, parts, offset, flags);
}

int io_uring_submit(io_uring* ring) {
    static const auto real = bidstore::real_function<int (*)(io_uring*)>("io_uring_submit");
    bidstore::ShortTransfers::shorten(ring);
    return real(ring);
}
int io_uring_submit_and_wait_timeout(io_uring* ring, io_uring_cqe** entry, unsigned count,
                                     __kernel_timespec* timeout, sigset_t* signals) {
    static const auto real =
        bidstore::real_function<int (*)(io_uring*, io_uring_cqe**, unsigned, __kernel_timespec*,
                                        sigset_t*)>("io_uring_submit_and_wait_timeout");
    bidstore::ShortTransfers::shorten(ring);
    return real(ring, entry, count, timeout, signals);
}
}
