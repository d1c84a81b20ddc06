#include "shm/doorbell.h"

#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace bidstore {

Result<Descriptor> make_doorbell() {
    Descriptor doorbell{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (!doorbell) {
        return {Error::kIoError, std::string("doorbell: eventfd: ") + std::strerror(errno) +
                                     "; raise LimitNOFILE if too many files are open"};
    }
    return doorbell;
}

void ring_doorbell(int descriptor) {
    const std::uint64_t one = 1;
    // EAGAIN: the doorbell has been rung 2^64 - 2 times and not heard, so it is loud enough. Any
    // other failure means that the descriptor is gone, with the connection.
    [[maybe_unused]] const ssize_t written = write(descriptor, &one, sizeof one);
}

void drain_doorbell(int descriptor) {
    std::uint64_t rings = 0;
    iovec target{&rings, sizeof rings};
    // Not by O_NONBLOCK, which the client can take off the shared descriptor.
    [[maybe_unused]] const ssize_t got = preadv2(descriptor, &target, 1, -1, RWF_NOWAIT);
}

}  // namespace bidstore
