// Welcomes that were sent and not read yet, of clients and of connections that are over.
//
// The descriptors in one are in flight until it is read or the peer closes its end of the
// connection, on the account of the daemon's user, who may have as many in flight as open files:
// then nobody is welcomed any more. Only our end of the connection can tell whether they are still
// there, so that of a connection that is over stays open, hung up, until they are not.
//
// A program that uses our library reads its Welcome as soon as it runs, or is gone, and the message
// with it. Many of one user may be about to do so at the same moment, so a client's Welcome counts
// once it is kSlowNs old; with the connection over, it counts at once.
//
// Who:    the server thread.
// Bounds: the server lets none in whose user has kPerUser that count; so a user's are fewer than
//         these and its places together. Those of connections that are over are kOfAll and those of
//         the users who had none.
// Cost:   a look is one system call. An admission looks at kPerUser unread ones of its user at
//         most, and at kOfOthers, in turn; besides, only at such as were read, once each, which are
//         then forgotten.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>

#include "daemon/closer.h"

namespace bidstore {

class UnreadWelcomes {
  public:
    static constexpr std::size_t kPerUser = 16;
    static constexpr std::size_t kOfAll = 1024;  // from then on, of a user who has any
    static constexpr std::size_t kOfOthers = 8;
    // No program of ours waits so long once its Welcome has come.
    static constexpr std::uint64_t kSlowNs = 10'000'000'000;

    // Whether nothing is left of what was sent through the socket.
    using Look = bool(int socket);
    static Look was_read;

    explicit UnreadWelcomes(Closer& closer, std::uint64_t slow_ns = kSlowNs, Look* look = was_read)
        : closer_(closer), slow_ns_(slow_ns), look_(look) {}
    ~UnreadWelcomes();
    UnreadWelcomes(const UnreadWelcomes&) = delete;
    UnreadWelcomes& operator=(const UnreadWelcomes&) = delete;

    // A Welcome was sent through the socket, which stays the caller's, and open until keep().
    void sent(uid_t user, std::uint64_t connection, int socket, std::uint64_t now_ns);
    // The connection is over. Takes the socket over if its Welcome was not read.
    bool keep(uid_t user, std::uint64_t connection, Descriptor& socket);
    // Whether somebody of this user may be sent another one. Closes what was read meanwhile.
    bool admits(uid_t user, std::uint64_t now_ns);
    // Those of connections that are over.
    std::size_t over_count() const { return over_count_; }

  private:
    struct Key {
        uid_t user = 0;
        std::uint64_t connection = 0;
        friend auto operator<=>(const Key&, const Key&) = default;
    };
    struct Sent {
        int socket = -1;
        std::uint64_t since_ns = 0;
        Descriptor kept;  // the same socket, of a connection that is over
    };
    using Place = std::map<Key, Sent>::iterator;
    // Whether it is still unread; forgets it otherwise, and moves on.
    bool stays(Place& at);
    void look_at_others();

    Closer& closer_;
    const std::uint64_t slow_ns_;
    Look* const look_;
    std::map<Key, Sent> sent_;
    Key next_;  // of those that are looked at in turn
    std::size_t over_count_ = 0;
};

}  // namespace bidstore
