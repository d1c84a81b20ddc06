// Closes connections where nobody waits for it.
//
// With a connection go the messages that nobody read, and with these the descriptors in them: of
// any kind, nested in one another, and ours is the last hold on them. Such a close takes as long as
// whoever made them likes: a TCP connection lingers, a huge file is freed. So no thread that others
// wait for ends a connection, or takes a message with descriptors out of it: it hangs up
// (shutdown), and the rest is done here.
//
// Who:     the server thread hands over; threads of its own close and do nothing else.
// Waits:   nobody for it, not even the destructor: what is left is closed behind its back, or by
//          the end of the process, which does not linger. A close that lingers is ended by a signal
//          after some milliseconds.
// Fair:    no user has more than one of the threads: what takes long is waited for by other
//          descriptors of the same user, and by others' when so many users do it at once.
// Bounds:  takes all that it is given; who gives stops in time, by waiting().
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "shm/error.h"
#include "shm/segment.h"

namespace bidstore {

class Closer {
  public:
    static constexpr std::size_t kThreads = 4;

    // kIoError: the host gives no thread, or no timer for one.
    static Result<std::unique_ptr<Closer>> start();
    ~Closer();
    Closer(const Closer&) = delete;
    Closer& operator=(const Closer&) = delete;

    // Takes it over; `user` is whose descriptors may be behind it.
    void close(uid_t user, Descriptor descriptor);
    // Those that are not closed yet.
    std::size_t waiting() const;
    // When the one of them that waits for longest was handed over (HostClock); now if there is
    // none.
    std::uint64_t oldest_ns() const;

  private:
    struct State;
    explicit Closer(std::shared_ptr<State> state);
    std::shared_ptr<State> state_;
};

}  // namespace bidstore
