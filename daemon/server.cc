#include "daemon/server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "daemon/greeting.h"
#include "shm/doorbell.h"

namespace bidstore {
namespace {

// Tags of the epoll set; connections are numbered above them.
constexpr std::uint64_t kListenerTag = 0;
constexpr std::uint64_t kEngineTag = 1;
constexpr std::uint64_t kUsersTag = 2;
constexpr std::uint64_t kFirstConnection = 3;
// Connections in their handshake besides the clients. Where these are all taken, one that has said
// nothing for a while makes place for the next: clients say hello as soon as they are connected.
constexpr std::size_t kHandshakesMax = 64;
constexpr std::uint64_t kHelloGraceNs = 20'000'000;
// So many of one user at a time may say nothing: clients that say hello are between two calls.
constexpr std::size_t kSilentPerUser = kHandshakesMax / 2;
constexpr std::uint64_t kAcceptPauseNs = 100'000'000;  // while the host is short of something
constexpr std::uint64_t kClosingPauseNs = 1'000'000;   // while many are just being closed
constexpr std::uint32_t kAcceptsPerRound = 64;         // then the others have their turn
constexpr std::uint32_t kAdminPart = 16;               // one in so many places is kept for admins
constexpr auto kEngineLate = "the engine is busy: try again";  // clients do, until their deadline

std::string error_text() { return std::strerror(errno); }

const char* rights_name(Rights rights) {
    if (rights == Rights::kAdmin) return "admin";
    return rights == Rights::kWriter ? "writer" : "reader";
}

// The kernel's socket calls take the general address type; both begin alike by design.
struct SocketAddress {
    explicit SocketAddress(const std::string& path) {
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
    }
    const sockaddr* general() const {
        return static_cast<const sockaddr*>(static_cast<const void*>(&address));
    }
    sockaddr_un address{};
};

// Removes a socket that nobody listens on.
Status remove_stale_socket(const std::string& path) {
    struct stat found {};
    if (lstat(path.c_str(), &found) != 0) return {};
    if (!S_ISSOCK(found.st_mode)) {
        return {Error::kInvalid, path +
                                     ": is there and is not a socket: move it away, or name "
                                     "another path in the setting \"socket\""};
    }
    const Descriptor probe(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const SocketAddress address(path);
    if (connect(probe.number(), address.general(), sizeof address.address) == 0 ||
        errno != ECONNREFUSED) {
        return {Error::kLocked, path +
                                    ": another daemon listens there: stop it, or name another "
                                    "path in the setting \"socket\""};
    }
    unlink(path.c_str());
    return {};
}

// By its peer, for what it sends at least.
bool hung_up(int socket) {
    pollfd look{.fd = socket, .events = POLLRDHUP, .revents = 0};
    return poll(&look, 1, 0) == 1;
}

AttachedSegment shape_of(ClientSegment& segment) {
    AttachedSegment shape;
    const auto offset = [&](const void* at) {
        return static_cast<std::uint64_t>(static_cast<const std::byte*>(at) - segment.base());
    };
    shape.base = segment.base();
    shape.first_slot = segment.first_slot();
    shape.slot_count = segment.slot_count();
    shape.call_slot_count = segment.call_slot_count();
    shape.ring_bytes = segment.ring_bytes();
    shape.slots_offset = offset(segment.slots());
    shape.marks_offset = offset(segment.marks());
    shape.ring_control_offset = offset(&segment.ring_control());
    shape.ring_offset = offset(segment.ring());
    shape.calls_offset = offset(segment.calls());
    return shape;
}

}  // namespace

ServerOptions server_options(const Config& config) {
    return {.socket = config.socket,
            .socket_mode = config.socket_mode,
            .max_clients = config.max_clients,
            .max_clients_per_user = config.max_clients_per_user,
            .slots_per_client = config.slots_per_client,
            .call_slots_per_client = config.call_slots_per_client,
            .ring_bytes = static_cast<std::uint32_t>(config.ring_bytes),
            .handshake_timeout_ns = config.handshake_timeout_ns};
}

// ---- start and stop -----------------------------------------------------------------------------

Server::Server(const ServerOptions& options, AccessRules rules, PoolSegment& pool,
               HostClients& clients)
    : options_(options),
      rules_(std::move(rules)),
      pool_(pool),
      clients_(clients),
      stats_(pool.stats(), StatsThread::kServer),
      next_id_(kFirstConnection),
      block_taken_(options.max_clients, false) {}

Result<std::unique_ptr<Server>> Server::open(const ServerOptions& options, AccessRules rules,
                                             PoolSegment& pool, HostClients& clients) {
    std::unique_ptr<Server> server(new Server(options, std::move(rules), pool, clients));
    server->events_ = Descriptor(epoll_create1(EPOLL_CLOEXEC));
    if (!server->events_) return {Error::kIoError, "server (epoll): " + error_text()};
    Result<std::unique_ptr<Closer>> closer = Closer::start();
    if (!closer) return closer.failure();
    server->closer_ = std::move(*closer);
    server->unread_.emplace(*server->closer_, options.slow_welcome_ns);
    auto users = UserLookup::start(options.user_database, options.handshake_timeout_ns);
    if (!users) return users.failure();
    server->users_ = std::move(*users);
    if (Status status = server->watch(server->users_->descriptor(), kUsersTag); !status) {
        return status.failure();
    }
    if (Status status = server->listen(); !status) return status.failure();
    Status status = server->watch(clients.event_descriptor(), kEngineTag);
    if (!status) return status.failure();
    return server;
}

Server::~Server() {
    stop_accepting();
    for (auto& [id, connection] : connections_) {
        if (connection->doorbell) clients_.remove_doorbell(connection->doorbell.number());
        if (connection->socket) hang_up(connection->user, connection->socket);
    }
}

Status Server::listen() {
    if (Status status = remove_stale_socket(options_.socket); !status) return status;
    Descriptor listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const SocketAddress address(options_.socket);
    if (!listener || bind(listener.number(), address.general(), sizeof address.address) != 0) {
        return {Error::kIoError,
                options_.socket + ": cannot listen there: " + error_text() +
                    " (its directory must exist and be writable by the daemon's user)"};
    }
    listener_ = std::move(listener);
    if (chmod(options_.socket.c_str(), options_.socket_mode) != 0 ||
        ::listen(listener_.number(), SOMAXCONN) != 0) {
        return {Error::kIoError, options_.socket + ": cannot listen there: " + error_text()};
    }
    return watch(listener_.number(), kListenerTag);
}

Status Server::watch(int descriptor, std::uint64_t tag) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP;
    // Connections that wait to be accepted are told once, since not all may be accepted at once.
    if (tag == kListenerTag) event.events |= EPOLLET;
    event.data.u64 = tag;
    if (epoll_ctl(events_.number(), EPOLL_CTL_ADD, descriptor, &event) == 0) return {};
    return {Error::kIoError, "server (epoll): " + error_text()};
}

void Server::stop_accepting() {
    if (!listener_) return;
    // The path goes first: who connects now is told "no such file" and not left waiting.
    unlink(options_.socket.c_str());
    hang_up(geteuid(), listener_);  // and with it, who was not accepted yet
    accept_pending_ = false;
}

// ---- the loop -----------------------------------------------------------------------------------

std::uint64_t Server::wait_ns(std::uint64_t wait_ns_max) {
    const std::uint64_t now = clock_.monotonic_ns();
    const auto until = [&](std::uint64_t time_ns) { return time_ns > now ? time_ns - now : 0; };
    std::uint64_t wait_ns = wait_ns_max;
    if (accept_pending_) {
        wait_ns = std::min(wait_ns, std::max(accept_pause_ns_, until(accept_again_ns_)));
    }
    for (const auto& [id, connection] : connections_) {
        if (!in_handshake(connection->state)) continue;
        wait_ns = std::min(wait_ns, until(connection->deadline_ns));
    }
    return wait_ns;
}

void Server::run_once(std::uint64_t wait_ns_max) {
    epoll_event events[64];
    const std::uint64_t wait_ms = (wait_ns(wait_ns_max) + 999'999) / 1'000'000;
    const int count = epoll_wait(events_.number(), events, 64,
                                 static_cast<int>(std::min<std::uint64_t>(wait_ms, 60'000)));
    for (int i = 0; i < count; ++i) {
        const std::uint64_t tag = events[i].data.u64;
        if (tag == kListenerTag) accept_pending_ = true;
        if (tag == kEngineTag) on_engine_events();
        if (tag == kUsersTag) on_user_answers();
        // An earlier event of this round may have ended the connection.
        const auto found = connections_.find(tag);
        if (found != connections_.end()) on_readable(*found->second);
    }
    close_late_handshakes(clock_.monotonic_ns());
    if (accept_pending_) accept_all();
}

// Accepts what waits, unless the daemon is full or the host short of something: then what is left
// waits for a later round.
void Server::accept_all() {
    if (clock_.monotonic_ns() < accept_again_ns_) return;
    for (std::uint32_t accepts = 0; listener_ && accepts < kAcceptsPerRound; ++accepts) {
        if (too_many_unclosed()) return;
        const bool full = connections_.size() >= options_.max_clients + kHandshakesMax;
        const bool taken = full && !make_place();
        accept_pause_ns_ = taken ? kHelloGraceNs : 0;
        if (taken) return;
        Descriptor accepted(
            accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!accepted) {
            if (errno == ECONNABORTED || errno == EINTR) continue;
            accept_pending_ = errno != EAGAIN;
            if (!accept_pending_) return;
            log_line(kLogWarning, "a connection waits: " + error_text() +
                                      " (more open files may be allowed by LimitNOFILE)");
            return pause_accepting(kAcceptPauseNs);
        }
        ucred peer{};
        socklen_t bytes = sizeof peer;
        const bool known =
            getsockopt(accepted.number(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0;
        keep_few_silent(peer.uid);
        auto connection = std::make_unique<Connection>();
        connection->id = next_id_++;
        connection->deadline_ns = clock_.monotonic_ns() + options_.handshake_timeout_ns;
        connection->user = peer.uid;
        connection->group = peer.gid;
        connection->process = peer.pid;
        if (!known || !watch(accepted.number(), connection->id)) {
            hang_up(peer.uid, accepted);
            continue;
        }
        connection->socket = std::move(accepted);
        connections_.emplace(connection->id, std::move(connection));
    }
}

// As long as it is so they would only become more. That many may be just on their way, where
// somebody comes and goes quickly: then there is nothing to tell.
bool Server::too_many_unclosed() {
    if (closer_->waiting() < options_.unclosed_max) return false;
    const std::uint64_t since_ns = closer_->oldest_ns();
    if (clock_.monotonic_ns() - since_ns < options_.slow_close_ns) {
        pause_accepting(kClosingPauseNs);
        return true;
    }
    log_line(kLogWarning,
             "a connection waits: " + std::to_string(options_.unclosed_max) +
                 " connections that are over cannot be closed, since what their clients passed "
                 "through them hangs: files of a file system that does not answer, perhaps");
    pause_accepting(kAcceptPauseNs);
    return true;
}

void Server::pause_accepting(std::uint64_t pause_ns) {
    accept_pause_ns_ = 0;
    accept_again_ns_ = clock_.monotonic_ns() + pause_ns;
}

// Before another one of this user: with many that say nothing the oldest of them goes at once, so
// that who makes them without end fills no places, and they go as fast as they come.
void Server::keep_few_silent(uid_t user) {
    Connection* oldest = nullptr;
    std::size_t silent = 0;
    for (const auto& [id, connection] : connections_) {
        if (connection->state != State::kHello || connection->user != user) continue;
        ++silent;
        if (oldest == nullptr || id < oldest->id) oldest = connection.get();
    }
    if (silent < kSilentPerUser) return;
    // This thread may not have come to what it says.
    pollfd look{.fd = oldest->socket.number(), .events = POLLIN, .revents = 0};
    if (poll(&look, 1, 0) == 1) return on_readable(*oldest);
    refuse(*oldest, {Error::kBusy, "no hello came, and others of user " + std::to_string(user) +
                                       " wait for its place"});
}

// Ends the oldest connection that is silent, or waits for the user database, of the user that has
// most of them. False: none is so for long enough.
bool Server::make_place() {
    std::unordered_map<uid_t, std::size_t> silent;
    for (const auto& [id, connection] : connections_) {
        if (waits_idly(connection->state)) ++silent[connection->user];
    }
    Connection* chosen = nullptr;
    for (const auto& [id, connection] : connections_) {
        if (!waits_idly(connection->state)) continue;
        if (chosen != nullptr) {
            const std::size_t its = silent[connection->user];
            const std::size_t most = silent[chosen->user];
            if (its < most || (its == most && connection->id > chosen->id)) continue;
        }
        chosen = connection.get();
    }
    if (chosen == nullptr) return false;
    const std::uint64_t begin_ns = chosen->deadline_ns - options_.handshake_timeout_ns;
    if (clock_.monotonic_ns() - begin_ns < kHelloGraceNs) return false;
    const std::string why =
        chosen->state == State::kHello ? "no hello came" : UserLookup::late(chosen->user);
    refuse(*chosen, {Error::kTimedOut, why + ", and others wait for its place"});
    return true;
}

void Server::on_readable(Connection& connection) {
    if (connection.state == State::kDetaching) return;
    Hello hello{};
    iovec part{.iov_base = &hello, .iov_len = sizeof hello};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    // Looked at, not taken: if there are descriptors with it, taking it would make this thread the
    // one that closes them. They have nowhere to go (MSG_CTRUNC).
    const ssize_t got =
        recvmsg(connection.socket.number(), &message, MSG_DONTWAIT | MSG_TRUNC | MSG_PEEK);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got >= 0 && (message.msg_flags & MSG_CTRUNC) != 0) return on_descriptors(connection);
    // A message may be empty; the end of the connection looks like one.
    if (got < 0 || (got == 0 && hung_up(connection.socket.number()))) return close(connection);
    recv(connection.socket.number(), &hello, sizeof hello, MSG_DONTWAIT);
    if (connection.state != State::kHello) {
        warn(connection, "client", "cut off: it sent bytes after its handshake");
        stats_.add(Counter::kClientsDropped);
        return close(connection);
    }
    if (got != static_cast<ssize_t>(sizeof hello)) {
        return refuse(connection,
                      {Error::kProtocol, "hello has " + std::to_string(got) + " bytes, not " +
                                             std::to_string(sizeof hello) +
                                             ": the program is not of this version of bidstore"});
    }
    // Who waited but a moment comes back, and would wait for what is made for nobody.
    pollfd look{.fd = connection.socket.number(), .events = 0, .revents = 0};
    if (poll(&look, 1, 0) == 1 && (look.revents & POLLHUP) != 0) return close(connection);
    on_hello(connection, hello);
}

// Nothing of ours passes any to the daemon.
void Server::on_descriptors(Connection& connection) {
    if (connection.state == State::kHello) {
        return refuse(connection, {Error::kProtocol, "it passes descriptors, and none are taken"});
    }
    warn(connection, "client", "cut off: it passes descriptors, and none are taken");
    stats_.add(Counter::kClientsDropped);
    close(connection);
}

void Server::close_late_handshakes(std::uint64_t now) {
    std::vector<Connection*> late;
    for (const auto& [id, connection] : connections_) {
        if (!in_handshake(connection->state) || connection->deadline_ns > now) continue;
        late.push_back(connection.get());
    }
    for (Connection* connection : late) {
        Failure why{Error::kTimedOut, "no hello came in time"};
        if (connection->state == State::kAsking) why.what = UserLookup::late(connection->user);
        engine_late_ = engine_late_ || connection->state == State::kAttaching;
        if (connection->state == State::kAttaching) why = {Error::kBusy, kEngineLate};
        refuse(*connection, why);
    }
}

// ---- handshake ----------------------------------------------------------------------------------

// By its credentials alone where they are enough: the user database may hang.
std::optional<Status> Server::check_rights(const Connection& connection) {
    const auto known = rules_.by_credentials(connection.user, connection.group);
    Status enough = check_granted(connection, known.rights);
    if (enough || !known.groups_may_give_more) return enough;
    auto groups = users_->groups_of(connection.user);
    if (!groups) return std::nullopt;
    if (!groups->ok()) return groups->failure();
    (*groups)->push_back(connection.group);
    return check_granted(connection, rules_.granted(connection.user, **groups));
}

Status Server::check_granted(const Connection& connection, std::optional<Rights> granted) const {
    if (granted && *granted >= connection.rights) return check_places(connection, *granted);
    const std::string asked = rights_name(connection.rights);
    return {Error::kDenied, "user " + std::to_string(connection.user) + " may not be " + asked +
                                ": add it to \"" + asked + "s\" in the daemon's config"};
}

Status Server::check_unread(const Connection& connection) {
    if (unread_->admits(connection.user, clock_.monotonic_ns())) return {};
    return {Error::kTooManyClients,
            "user " + std::to_string(connection.user) +
                " has connections whose welcome, with its descriptors, it has not read, slow ones "
                "or such as are over: close or end what holds them"};
}

// No user has more places than it may, and only those who may administer the last ones.
Status Server::check_places(const Connection& connection, Rights granted) const {
    std::uint32_t taken = 0;
    std::uint32_t own = 0;
    for (const auto& [id, other] : connections_) {
        if (!other->block) continue;
        ++taken;
        own += other->user == connection.user && other->state != State::kDetaching;
    }
    if (granted == Rights::kAdmin) return {};
    if (options_.max_clients_per_user != 0 && own >= options_.max_clients_per_user) {
        return {Error::kTooManyClients,
                "max_clients_per_user = " + std::to_string(options_.max_clients_per_user) +
                    " of user " + std::to_string(connection.user) +
                    " are connected: raise it in the daemon's config"};
    }
    const std::uint32_t kept = options_.max_clients / kAdminPart;
    if (kept == 0 || taken < options_.max_clients - kept) return {};
    return {Error::kTooManyClients, "max_clients = " + std::to_string(options_.max_clients) +
                                        ", less the " + std::to_string(kept) +
                                        " that are kept for admins, are connected: raise it in "
                                        "the daemon's config"};
}

void Server::on_hello(Connection& connection, const Hello& hello) {
    if (Status status = check_hello(hello); !status) return refuse(connection, status.failure());
    connection.rights = static_cast<Rights>(hello.rights);
    std::memcpy(connection.session.bytes, hello.session_id, sizeof connection.session.bytes);
    connection.state = State::kAsking;
    admit(connection);
}

void Server::on_user_answers() {
    users_->clear_descriptor();
    std::vector<Connection*> asking;
    for (const auto& [id, connection] : connections_) {
        if (connection->state == State::kAsking) asking.push_back(connection.get());
    }
    for (Connection* connection : asking) admit(*connection);
}

// Lets it in or refuses it, unless it is still to be asked who its user is.
void Server::admit(Connection& connection) {
    std::optional<Status> allowed = check_rights(connection);
    if (!allowed) return;
    if (*allowed) allowed = check_unread(connection);
    if (!*allowed) return refuse(connection, allowed->failure());
    if (!listener_) return refuse(connection, {Error::kStopping, "the daemon is stopping"});
    if (connection.session == SessionId{} &&
        getrandom(connection.session.bytes, sizeof connection.session.bytes, 0) !=
            static_cast<ssize_t>(sizeof connection.session.bytes)) {
        return refuse(connection, {Error::kIoError, "no random numbers for a session"});
    }
    if (Status status = prepare(connection); !status) return refuse(connection, status.failure());
    send_attach(connection);
}

// Makes what a client gets; what was made until something fails goes with the connection.
Status Server::prepare(Connection& connection) {
    if (engine_late_) return {Error::kBusy, kEngineLate};
    connection.block = take_block();
    if (!connection.block) {
        return {Error::kTooManyClients, "max_clients = " + std::to_string(options_.max_clients) +
                                            " are connected: raise it in the daemon's config"};
    }
    ClientShape shape;
    shape.slot_count = options_.slots_per_client;
    shape.call_slot_count = options_.call_slots_per_client;
    shape.ring_bytes = options_.ring_bytes;
    shape.first_slot = *connection.block * options_.slots_per_client;
    shape.rights = connection.rights;
    std::memcpy(shape.session_id, connection.session.bytes, sizeof shape.session_id);
    shape.instance_id = pool_.header().instance_id;
    Result<ClientSegment> segment = ClientSegment::create(shape);
    if (!segment) return segment.failure();
    connection.segment.emplace(std::move(*segment));
    Result<Descriptor> doorbell = make_doorbell();
    if (!doorbell) return doorbell.failure();
    if (Status status = clients_.add_doorbell(doorbell->number()); !status) return status;
    connection.doorbell = std::move(*doorbell);
    return {};
}

void Server::send_attach(Connection& connection) {
    ClientCommand command;
    command.kind = ClientCommand::Kind::kAttach;
    command.client_id = connection.id;
    command.rights = connection.rights;
    command.uid = connection.user;
    command.session = connection.session;
    command.segment = shape_of(*connection.segment);
    connection.state = State::kAttaching;
    clients_.send(command);
}

std::optional<std::uint32_t> Server::take_block() {
    const auto free = std::find(block_taken_.begin(), block_taken_.end(), false);
    if (free == block_taken_.end()) return std::nullopt;
    *free = true;
    return static_cast<std::uint32_t>(free - block_taken_.begin());
}

void Server::on_engine_events() {
    clients_.clear_event_descriptor();
    engine_late_ = false;
    ClientEvent event;
    while (clients_.take_event(event)) {
        const auto found = connections_.find(event.client_id);
        if (found == connections_.end()) continue;
        Connection& connection = *found->second;
        switch (event.kind) {
            case ClientEvent::Kind::kAttached:
                on_attached(connection, event);
                break;
            case ClientEvent::Kind::kDetached:
                release(connection);
                break;
            case ClientEvent::Kind::kCutOff:
                warn(connection, "client", "cut off: " + event.reason);
                if (event.why == CutOff::kHostile) stats_.add(Counter::kClientsDropped);
                close(connection);
                break;
        }
    }
}

void Server::on_attached(Connection& connection, const ClientEvent& event) {
    if (event.error != Error::kOk) {
        // The engine holds nothing of a client that it did not take.
        const bool hung_up = connection.state == State::kDetaching;
        connection.state = State::kHello;
        if (hung_up) return release(connection);
        return refuse(connection, {event.error, "the engine refuses the client: " +
                                                    std::string(error_name(event.error))});
    }
    if (connection.state != State::kAttaching) return;  // it hung up; kDetach is on its way
    connection.segment->announce(event.last_number);
    connection.state = State::kServing;
    stats_.set(Counter::kClients, ++serving_count_);
    Status status = welcome(connection);
    if (status) return;
    warn(connection, "client", "not welcomed: " + status.failure().what);
    close(connection);
}

Status Server::welcome(Connection& connection) {
    Result<Descriptor> pool = pool_.open_read_only();
    if (!pool) return pool.failure();
    const Welcome welcome = make_welcome(Error::kOk, connection.session, "");
    if (send_welcome(
            connection.socket.number(), welcome,
            {pool->number(), connection.segment->descriptor(), connection.doorbell.number()})) {
        unread_->sent(connection.user, connection.id, connection.socket.number(),
                      clock_.monotonic_ns());
        return {};
    }
    return {Error::kIoError, error_text()};
}

// ---- ends ---------------------------------------------------------------------------------------

void Server::warn(const Connection& connection, const char* who, const std::string& what) {
    log_.warn(connection.user,
              std::string(who) + " " + std::to_string(connection.process) + " (user " +
                  std::to_string(connection.user) + ") " + what,
              clock_.monotonic_ns());
}

void Server::refuse(Connection& connection, const Failure& failure) {
    stats_.add(Counter::kClientsRefused);
    warn(connection, "connection of process", "refused: " + failure.what);
    send_welcome(connection.socket.number(),
                 make_welcome(failure.code, connection.session, failure.what), {});
    close(connection);
}

void Server::close(Connection& connection) {
    if (connection.state == State::kDetaching) return;
    const bool welcomed = connection.state == State::kServing;
    hang_up(connection.user, connection.socket, connection.id);
    if (welcomed) stats_.set(Counter::kClients, --serving_count_);
    if (waits_idly(connection.state)) return release(connection);
    ClientCommand command;
    command.kind = ClientCommand::Kind::kDetach;
    command.client_id = connection.id;
    connection.state = State::kDetaching;
    clients_.send(command);
}

// The peer sees the end of it now; what is behind it is another thread's to wait for.
void Server::hang_up(uid_t user, Descriptor& socket, std::uint64_t connection) {
    epoll_ctl(events_.number(), EPOLL_CTL_DEL, socket.number(), nullptr);
    shutdown(socket.number(), SHUT_RDWR);
    if (unread_->keep(user, connection, socket)) return;
    closer_->close(user, std::move(socket));
}

void Server::release(Connection& connection) {
    if (connection.state == State::kServing) stats_.set(Counter::kClients, --serving_count_);
    if (connection.doorbell) clients_.remove_doorbell(connection.doorbell.number());
    if (connection.block) block_taken_[*connection.block] = false;
    // It was brought in on the daemon's account, and the client may keep it.
    if (connection.segment) connection.segment->give_back();
    connections_.erase(connection.id);
}

}  // namespace bidstore
