// Connections that are over, and whose Welcome the peer has not read.
//
// The descriptors in it are in flight for as long as the peer keeps its end of the connection, on
// the account of the daemon's user, who may have as many in flight as open files: then nobody is
// welcomed any more. Only our end of the connection can tell whether they are still there, so it
// stays open, hung up, until they are not.
//
// Who:    the server thread.
// Bounds: the server lets none in whose user has more of them than admits() allows. A program that
//         uses our library has none: it reads its Welcome, or is gone, and with it the message.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <vector>

#include "daemon/closer.h"

namespace bidstore {

class UnreadWelcomes {
  public:
    static constexpr std::size_t kPerUser = 16;
    static constexpr std::size_t kOfAll = 1024;  // from then on, of a user who has any

    explicit UnreadWelcomes(Closer& closer) : closer_(closer) {}
    ~UnreadWelcomes();
    UnreadWelcomes(const UnreadWelcomes&) = delete;
    UnreadWelcomes& operator=(const UnreadWelcomes&) = delete;

    // Takes the socket over if it was sent something that its peer has not read.
    bool keep(uid_t user, Descriptor& socket);
    // Whether somebody of this user may be sent another one. Closes what was read meanwhile.
    bool admits(uid_t user);
    std::size_t count() const { return kept_.size(); }

  private:
    struct Kept {
        uid_t user;
        Descriptor socket;
    };
    void close_read();

    Closer& closer_;
    std::vector<Kept> kept_;
};

}  // namespace bidstore
