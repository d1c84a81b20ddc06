#include "clientlib/attach.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <thread>

#include "shm/doorbell.h"
#include "shm/hot_path.h"

namespace bidstore {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kRetryInterval = std::chrono::milliseconds(5);
// Of a page that it could not read the daemon says so again without a read, for as long.
constexpr auto kReadAgainInterval = std::chrono::milliseconds(100);
constexpr auto kWaitSlice = std::chrono::milliseconds(20);
constexpr int kDescriptorCount = 3;

// ---- fork ---------------------------------------------------------------------------------------

// Connections of this process, so that a child can close its copies: the daemon knows the end of a
// client by its socket, which a copy would keep open. The one global state of the library:
// pthread_atfork passes no argument.
struct ForkWatch {
    std::mutex lock;
    std::vector<Connection*> connections;
    std::vector<int> sockets;  // of attempts, which are no connection's yet
    // Of a child: not inherited. Where they were mapped is free in it, or the place of what another
    // library's fork handler mapped, such as a thread's stack; so nothing ever unmaps them.
    std::vector<ClientSegment> lost;
};

ForkWatch& fork_watch() {
    // Never destroyed: a fork may come after the destructors of statics.
    static ForkWatch* const watch = [] {
        auto* made = new ForkWatch;
        pthread_atfork([] { fork_watch().lock.lock(); }, [] { fork_watch().lock.unlock(); },
                       [] {
                           ForkWatch& child = fork_watch();
                           ++fork_count;
                           for (Connection* connection : child.connections) {
                               child.lost.push_back(connection->close_in_child());
                           }
                           for (const int socket : child.sockets) ::close(socket);
                           child.sockets.clear();
                           child.lock.unlock();
                       });
        return made;
    }();
    return *watch;
}

// ---- messages of errors -------------------------------------------------------------------------

std::string at_socket(const AttachOptions& options) { return "bidstored at " + options.socket; }

std::string hex(std::uint64_t value) {
    char text[16];
    const auto end = std::to_chars(text, text + sizeof text, value, 16).ptr;
    return "0x" + std::string(text, end);
}

Failure system_failure(const AttachOptions& options, const char* call, int error) {
    return {Error::kDisconnected, at_socket(options) + ": " + call + ": " + std::strerror(error)};
}

Failure connect_failure(const AttachOptions& options, int error) {
    if (error == EACCES || error == EPERM) {
        return {Error::kDenied, at_socket(options) +
                                    ": connect: permission denied; run as a user or group that the "
                                    "socket is open to"};
    }
    if (error == EAGAIN) {
        return {Error::kBusy, at_socket(options) + ": too many programs are attaching just now"};
    }
    Failure failure = system_failure(options, "connect", error);
    if (error == ENOENT || error == ECONNREFUSED) {
        failure.what += "; is the daemon running, and is this its socket?";
    }
    return failure;
}

// ---- one attempt --------------------------------------------------------------------------------

int milliseconds_until(Deadline deadline) {
    const auto now = Clock::now();
    if (deadline <= now) return 0;  // the way back to one of long ago overflows
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - now);
    return static_cast<int>(std::min<std::int64_t>(left.count(), 1'000'000));
}

// Whether the socket has one of `events` before the deadline.
bool poll_until(int socket, short events, Deadline deadline) {
    for (;;) {
        pollfd wait{socket, events, 0};
        const int ready = ::poll(&wait, 1, milliseconds_until(deadline));
        if (ready >= 0 || errno != EINTR) return ready > 0;
    }
}

// The socket of an attempt, which is the connection's if it comes to one: at no moment does a
// forked child keep it.
class AttemptSocket {
  public:
    AttemptSocket() {
        const std::lock_guard hold(watch_.lock);
        constexpr int kType = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
        descriptor = Descriptor{::socket(AF_UNIX, kType, 0)};
        number_ = descriptor.number();
        if (descriptor) watch_.sockets.push_back(number_);
    }
    ~AttemptSocket() {
        const std::lock_guard hold(watch_.lock);
        std::erase(watch_.sockets, number_);
        descriptor = Descriptor();
    }
    AttemptSocket(const AttemptSocket&) = delete;
    AttemptSocket& operator=(const AttemptSocket&) = delete;

    Descriptor descriptor;

  private:
    ForkWatch& watch_ = fork_watch();
    int number_ = -1;
};

Status connect_socket(const AttachOptions& options, int socket) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (options.socket.empty() || options.socket.size() >= sizeof(address.sun_path)) {
        return {Error::kInvalid, "socket path \"" + options.socket + "\": 1 to " +
                                     std::to_string(sizeof(address.sun_path) - 1) +
                                     " bytes are possible"};
    }
    std::memcpy(address.sun_path, options.socket.data(), options.socket.size());
    if (::connect(socket, static_cast<const sockaddr*>(static_cast<void*>(&address)),
                  sizeof address) != 0) {
        return connect_failure(options, errno);
    }
    return {};
}

Status send_hello(const AttachOptions& options, const SessionBytes& session, int socket) {
    Hello hello{};
    hello.magic = kHelloMagic;
    hello.abi_version = kAbiVersion;
    hello.rights = static_cast<std::uint32_t>(options.rights);
    hello.fingerprint = kLayoutFingerprint;
    std::copy(session.begin(), session.end(), hello.session_id);
    const ssize_t sent = ::send(socket, &hello, sizeof hello, MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(sizeof hello)) return {};
    return system_failure(options, "send", errno);
}

struct Received {
    Welcome welcome{};
    std::array<Descriptor, kDescriptorCount> descriptors;
    int descriptor_count = 0;
};

// Takes all descriptors of the message, so that none is left open whatever came.
void take_descriptors(msghdr& message, Received& received) {
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
            Descriptor descriptor{number};
            if (received.descriptor_count == kDescriptorCount) continue;
            received.descriptors[static_cast<std::size_t>(received.descriptor_count++)] =
                std::move(descriptor);
        }
    }
}

Result<Received> receive_welcome(const AttachOptions& options, int socket, Deadline deadline) {
    if (!poll_until(socket, POLLIN, deadline)) {
        return {Error::kTimedOut, at_socket(options) + " did not answer before the deadline"};
    }
    Received received;
    iovec part{&received.welcome, sizeof received.welcome};
    alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorCount * sizeof(int))];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (got < 0) return system_failure(options, "recvmsg", errno);
    take_descriptors(message, received);  // an empty message may have some, too
    if (got == 0) {
        return {Error::kDisconnected, at_socket(options) + " hung up during the greeting"};
    }
    if (got != static_cast<ssize_t>(sizeof received.welcome) ||
        received.welcome.magic != kHelloMagic) {
        return {Error::kNotBidstore, at_socket(options) + ": what answers is not bidstored"};
    }
    return received;
}

Status check_version(const AttachOptions& options, const Welcome& welcome) {
    if (welcome.abi_version == kAbiVersion && welcome.fingerprint == kLayoutFingerprint) return {};
    return {Error::kVersionMismatch,
            at_socket(options) + " has ABI version " + std::to_string(welcome.abi_version) +
                ", layout " + hex(welcome.fingerprint) + "; this program has version " +
                std::to_string(kAbiVersion) + ", layout " + hex(kLayoutFingerprint) +
                ": install daemon and clients of the same release"};
}

Status check_welcome(const AttachOptions& options, const Received& received) {
    const Welcome& welcome = received.welcome;
    // A daemon of another version says so in its error too, but only the two values explain it.
    if (Status version = check_version(options, welcome); !version.ok()) return version;
    if (welcome.error != 0) {
        const std::size_t length = ::strnlen(welcome.message, sizeof welcome.message);
        const auto code =
            welcome.error < kErrorCount ? static_cast<Error>(welcome.error) : Error::kProtocol;
        return {code, at_socket(options) + ": " + std::string(welcome.message, length)};
    }
    if (received.descriptor_count == kDescriptorCount) return {};
    return {Error::kProtocol, at_socket(options) + " sent " +
                                  std::to_string(received.descriptor_count) +
                                  " of 3 descriptors; is this process's limit of open files "
                                  "(ulimit -n) too low?"};
}

// Takes the socket only where all goes well: else it is the attempt's to close.
Result<std::shared_ptr<Connection>> map_segments(const AttachOptions& options, Received& received,
                                                 Descriptor& socket) {
    Result<PoolView> pool = PoolView::map(std::move(received.descriptors[0]));
    if (!pool.ok()) return pool.failure();
    Result<ClientSegment> segment = ClientSegment::map(std::move(received.descriptors[1]));
    if (!segment.ok()) return segment.failure();
    const std::uint64_t last_slot = std::uint64_t{segment->first_slot()} + segment->slot_count();
    if (segment->header().instance_id != pool->header().instance_id ||
        last_slot > pool->slot_count() ||
        std::memcmp(segment->header().session_id, received.welcome.session_id, 16) != 0) {
        return {Error::kProtocol, at_socket(options) +
                                      " handed out segments that do not belong together; "
                                      "restart the daemon"};
    }
    return std::make_shared<Connection>(std::move(*pool), std::move(*segment),
                                        std::move(received.descriptors[2]), std::move(socket));
}

Result<std::shared_ptr<Connection>> connect_once(const AttachOptions& options,
                                                 const SessionBytes& session, Deadline deadline) {
    AttemptSocket socket;
    if (!socket.descriptor) return system_failure(options, "socket", errno);
    const int number = socket.descriptor.number();
    if (Status connected = connect_socket(options, number); !connected.ok()) {
        return connected.failure();
    }
    if (Status sent = send_hello(options, session, number); !sent.ok()) return sent.failure();
    Result<Received> received = receive_welcome(options, number, deadline);
    if (!received.ok()) return received.failure();
    if (Status fits = check_welcome(options, *received); !fits.ok()) return fits.failure();
    return map_segments(options, *received, socket.descriptor);
}

}  // namespace

unsigned fork_count = 0;

Failure forked_failure() {
    const ColdPath cold;
    return {Error::kInvalid, "attached before fork: a child process attaches its own store"};
}

bool passes(Error refusal) {
    return refusal == Error::kDisconnected || refusal == Error::kStopping ||
           refusal == Error::kFenced || refusal == Error::kBusy ||
           refusal == Error::kTooManyClients || refusal == Error::kIoError;
}

std::uint64_t to_ns(Deadline deadline) {
    const auto since = std::chrono::nanoseconds(deadline.time_since_epoch()).count();
    return since > 0 ? static_cast<std::uint64_t>(since) : 0;
}

Result<std::shared_ptr<Connection>> connect_to_daemon(const AttachOptions& options,
                                                      const SessionBytes& session, bool retry,
                                                      Deadline deadline) {
    const bool anew = session == SessionBytes{};
    for (;;) {
        Result<std::shared_ptr<Connection>> made = connect_once(options, session, deadline);
        // Who had a place before waits for one: others came back more quickly.
        const bool wanted = retry && passes(made.error()) &&
                            !(anew && made.error() == Error::kTooManyClients);
        if (made.ok() || !(wanted || made.error() == Error::kBusy)) return made;
        const auto pause = made.error() == Error::kIoError ? kReadAgainInterval : kRetryInterval;
        std::this_thread::sleep_until(std::min<Deadline>(deadline, Clock::now() + pause));
        if (Clock::now() >= deadline) return made;
    }
}

Connection::Connection(PoolView pool, ClientSegment segment, Descriptor doorbell, Descriptor socket)
    : pool_(std::move(pool)),
      segment_(std::move(segment)),
      doorbell_(std::move(doorbell)),
      socket_(std::move(socket)),
      ring_(segment_.ring_control(), segment_.ring(), segment_.ring_bytes()),
      instance_id_(pool_.header().instance_id),
      generations_(segment_.call_slot_count(), 0) {
    // The first ones lie at the back, from where they are taken.
    for (std::uint32_t i = segment_.slot_count(); i > 0; --i) free_reader_slots_.push_back(i - 1);
    for (std::uint32_t i = segment_.call_slot_count(); i > 0; --i) free_calls_.push_back(i - 1);
    forgotten_.reserve(segment_.call_slot_count());
    ForkWatch& watch = fork_watch();
    const std::lock_guard hold(watch.lock);
    watch.connections.push_back(this);
}

Connection::~Connection() {
    ForkWatch& watch = fork_watch();
    const std::lock_guard hold(watch.lock);
    std::erase(watch.connections, this);
    socket_ = Descriptor();
}

bool Connection::hung_up() const { return wait_for_hangup(Clock::now()); }

bool Connection::wait_for_hangup(Deadline deadline) const {
    // After the greeting the daemon sends nothing, so its end is all there is to wait for.
    // POLLHUP and POLLERR are reported unasked.
    return poll_until(socket_.number(), POLLRDHUP, deadline);
}

std::optional<std::uint32_t> Connection::claim_reader_slot() {
    const std::lock_guard hold(lock_);
    if (free_reader_slots_.empty()) return std::nullopt;
    const std::uint32_t slot = free_reader_slots_.back();
    free_reader_slots_.pop_back();
    return slot;
}

void Connection::release_reader_slot(std::uint32_t slot) {
    const std::lock_guard hold(lock_);
    free_reader_slots_.push_back(slot);
}

std::optional<Call> Connection::claim_call() {
    const std::lock_guard hold(lock_);
    if (free_calls_.empty()) collect_forgotten();
    if (free_calls_.empty()) return std::nullopt;
    const std::uint32_t slot = free_calls_.back();
    free_calls_.pop_back();
    if (++generations_[slot] == 0) ++generations_[slot];
    return Call{slot, generations_[slot]};
}

void Connection::release_call(const Call& call) {
    const std::lock_guard hold(lock_);
    free_calls_.push_back(call.slot);
}

void Connection::forget_call(const Call& call) {
    const std::lock_guard hold(lock_);
    forgotten_.push_back(call);
}

void Connection::collect_forgotten() {
    std::erase_if(forgotten_, [this](const Call& call) {
        if (!answered(call)) return false;
        free_calls_.push_back(call.slot);
        return true;
    });
}

bool Connection::answered(const Call& call) {
    return is_answered(segment_.calls()[call.slot], call.generation);
}

Answer Connection::answer(const Call& call) {
    return read_answer(segment_.calls()[call.slot], call.generation);
}

bool Connection::wait_slice(std::span<const AwaitedCall> calls, Deadline deadline) {
    const Deadline until = std::min<Deadline>(deadline, Clock::now() + kWaitSlice);
    return wait_for_answer(segment_.ring_control(), calls, to_ns(until));
}

bool Connection::post(RecordKind kind, std::span<const std::byte> payload, const Call& call,
                      std::uint64_t write_number, std::uint64_t decided_below) {
    ClaimRequest request;
    request.kind = kind;
    request.payload_bytes = static_cast<std::uint32_t>(payload.size());
    request.call_slot = call.slot;
    request.call_generation = call.generation;
    request.number_reference = write_number;
    request.decided_below = decided_below;
    const RingClaim claim = ring_.try_claim(request);
    if (!claim) return false;
    if (kind == RecordKind::kTransaction) CHECK_OP(claim.write_number, ==, write_number);
    std::memcpy(claim.payload, payload.data(), payload.size());
    ring_.commit(claim);
    ring_if_sleeping(pool_.header().engine, doorbell_.number());
    return true;
}

ClientSegment Connection::close_in_child() {
    if (const int socket = socket_.release(); socket >= 0) ::close(socket);
    if (const int doorbell = doorbell_.release(); doorbell >= 0) ::close(doorbell);
    if (const int memory = segment_.descriptor(); memory >= 0) ::close(memory);
    return std::move(segment_);
}

}  // namespace bidstore
