// The socket: who connects, whether they may, and what they get.
//
//   accept ─► hello ─► asking ─► attaching ─► serving ─► detaching ─► gone
//                │        │          │ the engine refuses      ▲
//                └────────┴──────────┴── refused: Welcome with an error, closed
//
// Who:     the server thread (the daemon's main thread); the engine hears of clients through
//          HostClients alone, and decides.
// Owns:    the listening socket and, per connection: socket, client segment, doorbell, and a block
//          of reader slots. A segment is unmapped, and its slots given to somebody else, only after
//          the engine said that it let go of them.
// Trust:   a connection is hostile until its Hello was checked, and its bytes stay so. Rights are
// the
//          lesser of what was asked for and what the rules grant to the credentials that the
//          kernel vouches for.
// Waits:   a connection that does not finish its handshake in time is closed, and meanwhile, be it
//          for the user database (daemon/user_lookup.h), others are served; one that says
//          anything after it is cut off, and so is one that ever passes descriptors. Nobody waits
//          for a connection to be closed (daemon/closer.h): the peer sees the hangup at once.
//          An engine that lets a handshake run out is sent no other until it says something, or who
//          tries again would take all places.
// Bounds:  clients, those of one user, connections in their handshake, those of one user that say
//          nothing, those that are not closed, and Welcomes that are not read
//          (daemon/unread_welcomes.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "daemon/access.h"
#include "daemon/closer.h"
#include "daemon/host_clients.h"
#include "daemon/log.h"
#include "daemon/unread_welcomes.h"
#include "daemon/user_lookup.h"
#include "engine/clock.h"
#include "shm/segment.h"
#include "shm/stats.h"

namespace bidstore {

struct ServerOptions {
    std::string socket;
    std::uint32_t socket_mode = 0666;
    std::uint32_t max_clients = 64;
    std::uint32_t max_clients_per_user = 0;  // admins have no limit; 0: none for others, either
    std::uint32_t slots_per_client = 128;
    std::uint32_t call_slots_per_client = 512;
    std::uint32_t ring_bytes = 4u << 20;
    std::uint64_t handshake_timeout_ns = 2'000'000'000;
    // With so many connections that are over and not closed nobody new is let in. When one waits
    // for so long, closes hang, and the log says so.
    std::size_t unclosed_max = 1024;
    std::uint64_t slow_close_ns = 1'000'000'000;
    std::uint64_t slow_welcome_ns = UnreadWelcomes::kSlowNs;
    UserLookup::Database user_database = UserLookup::host_database;
};
ServerOptions server_options(const Config& config);

class Server {
  public:
    // Listens from now on. kLocked: another daemon listens on this path; kInvalid or kIoError: the
    // path cannot be a socket. A socket that a dead daemon left behind is removed.
    static Result<std::unique_ptr<Server>> open(const ServerOptions& options, AccessRules rules,
                                                PoolSegment& pool, HostClients& clients);
    // The engine must have stopped: the segments go.
    ~Server();

    // Readable while there is something to do for run_once().
    int descriptor() const { return events_.number(); }
    // So long it may be left alone when that is not readable, at most: deadlines and who waits to
    // be accepted are not seen there.
    std::uint64_t wait_ns(std::uint64_t wait_ns_max);
    // Does what there is to do and waits at most so long for it.
    void run_once(std::uint64_t wait_ns_max);
    // No new connections: the socket's path is gone. Clients stay.
    void stop_accepting();

    // Clients that were welcomed and are still connected.
    std::uint32_t client_count() const { return serving_count_; }
    // These, and connections in their handshake, and clients that the engine has not let go of.
    std::size_t connection_count() const { return connections_.size(); }
    // Connections that are over, and wait to be closed.
    std::size_t unclosed_count() const { return closer_->waiting(); }
    // Connections that are over, and whose Welcome nobody has read.
    std::size_t unread_count() const { return unread_->over_count(); }

  private:
    enum class State : std::uint8_t { kHello, kAsking, kAttaching, kServing, kDetaching };
    static bool in_handshake(State state) { return state <= State::kAttaching; }
    // Nothing was made for it yet: it says nothing, or waits for the user database.
    static bool waits_idly(State state) { return state <= State::kAsking; }
    struct Connection {
        std::uint64_t id = 0;
        State state = State::kHello;
        Descriptor socket;
        std::uint64_t deadline_ns = 0;  // of the handshake
        uid_t user = 0;
        gid_t group = 0;
        pid_t process = 0;
        Rights rights = Rights::kReader;  // asked for; granted once it attaches
        SessionId session;
        std::optional<std::uint32_t> block;  // of reader slots
        std::optional<ClientSegment> segment;
        Descriptor doorbell;
    };

    Server(const ServerOptions& options, AccessRules rules, PoolSegment& pool,
           HostClients& clients);
    Status listen();
    Status watch(int descriptor, std::uint64_t tag);

    void accept_all();
    bool too_many_unclosed();
    void pause_accepting(std::uint64_t pause_ns);
    void keep_few_silent(uid_t user);
    bool make_place();
    void on_readable(Connection& connection);
    void on_descriptors(Connection& connection);
    void on_hello(Connection& connection, const Hello& hello);
    void on_user_answers();
    void admit(Connection& connection);
    // kOk, or why it is refused, or nothing: the user database is asked.
    std::optional<Status> check_rights(const Connection& connection);
    Status check_granted(const Connection& connection, std::optional<Rights> granted) const;
    Status check_places(const Connection& connection, Rights granted) const;
    Status check_unread(const Connection& connection);
    Status prepare(Connection& connection);
    void send_attach(Connection& connection);
    void on_engine_events();
    void on_attached(Connection& connection, const ClientEvent& event);
    Status welcome(Connection& connection);

    void warn(const Connection& connection, const char* who, const std::string& what);
    void refuse(Connection& connection, const Failure& failure);
    // Ends a connection in whatever state it is.
    void close(Connection& connection);
    void hang_up(uid_t user, Descriptor& socket, std::uint64_t connection = 0);
    // Forgets it: what it holds goes back.
    void release(Connection& connection);
    void close_late_handshakes(std::uint64_t now_ns);
    std::optional<std::uint32_t> take_block();

    ServerOptions options_;
    AccessRules rules_;
    PoolSegment& pool_;
    HostClients& clients_;
    HostClock clock_;
    StatsWriter stats_;
    PeerLog log_;
    std::unique_ptr<Closer> closer_;
    std::optional<UnreadWelcomes> unread_;
    std::unique_ptr<UserLookup> users_;
    Descriptor events_;  // epoll
    Descriptor listener_;
    std::uint64_t next_id_;
    bool accept_pending_ = false;        // connections may wait to be accepted
    std::uint64_t accept_pause_ns_ = 0;  // then so long at most, since all places are taken
    std::uint64_t accept_again_ns_ = 0;  // not before, since something else was short
    std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections_;
    std::vector<bool> block_taken_;
    std::uint32_t serving_count_ = 0;
    bool engine_late_ = false;  // it let a handshake run out, and has said nothing since
};

}  // namespace bidstore
