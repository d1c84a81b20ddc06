// The handshake, both directions: any bytes as a hello at the daemon's server, alone or as one of
// several messages, with descriptors, from users of any rights, with an engine that refuses; any
// bytes as the welcome at the client library, with any descriptors, and any bytes in the heads of
// the segments that come with it. Only who may is let in, and the server keeps nothing of anybody;
// the library ends with segments that belong together or an error that says whose fault it is, and
// keeps no descriptor that it does not use.
//
// Input: a byte that chooses; then the message, or the head, or a plan of what comes with a welcome
// and what is wrong with it, or of what is said to the server.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "clientlib/attach.h"
#include "daemon/server.h"
#include "shm/doorbell.h"
#include "tests/fuzz.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

// Of the sockets; goes with the process.
const std::string& directory() {
    static const auto* const path = [] {
        char name[] = "/tmp/bidstore_fuzz_XXXXXX";
        CHECK(::mkdtemp(name) != nullptr);
        std::atexit([] { std::filesystem::remove_all(directory()); });
        return new std::string(name);
    }();
    return *path;
}

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
}
const sockaddr* general(const sockaddr_un& address) {
    const void* any = &address;
    return static_cast<const sockaddr*>(any);
}

int open_descriptors() {
    int count = 0;
    for (int number = 0; number < 128; ++number) count += ::fcntl(number, F_GETFD) != -1;
    return count;
}

// Some are closed by threads of the daemon, a moment later, or many where the host is busy.
bool closed_to(int count) {
    for (int i = 0; i < 10'000 && open_descriptors() > count; ++i) std::this_thread::sleep_for(1ms);
    return open_descriptors() <= count;
}

// As one message of a connection to the daemon.
struct Message {
    std::vector<std::byte> bytes;
    std::size_t descriptors = 0;
};
constexpr std::size_t kPassedMax = 3;

Descriptor any_descriptor() { return Descriptor(::open("/dev/null", O_RDWR | O_CLOEXEC)); }

// Without waiting, and perhaps in vain: who listens may have hung up.
void send_to(int socket, std::span<const std::byte> bytes, std::span<const Descriptor> passed) {
    std::vector<std::byte> copy(bytes.begin(), bytes.end());
    iovec part{copy.data(), copy.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(kPassedMax * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!passed.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(passed.size() * sizeof(int));
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(passed.size() * sizeof(int));
        for (std::size_t i = 0; i < passed.size(); ++i) {
            const int number = passed[i].number();
            std::memcpy(CMSG_DATA(header) + i * sizeof number, &number, sizeof number);
        }
    }
    (void)::sendmsg(socket, &message, MSG_NOSIGNAL);
}

// The daemon's server, with an engine that takes or refuses clients. `lists`: which of the lists
// of readers (1), writers (2) and admins (4) name this user.
class Daemon {
  public:
    static constexpr std::uint8_t kAdmins = 4;

    explicit Daemon(std::uint8_t lists)
        : granted_(lists & kAdmins ? 3 : lists & 2 ? 2 : lists & 1 ? 1 : 0) {
        options_.socket = directory() + "/bidstore" + std::to_string(lists) + ".sock";
        options_.socket_mode = 0600;
        options_.max_clients = 4;
        options_.slots_per_client = 2;
        options_.call_slots_per_client = 32;
        options_.ring_bytes = 1u << 20;
        options_.handshake_timeout_ns = 10'000'000'000;
        PoolShape shape;
        shape.frame_count = 8;
        shape.page_count = 64;
        shape.slot_count = options_.max_clients * options_.slots_per_client;
        shape.instance_id = 7;
        pool_.emplace(must(PoolSegment::create(shape, HugePages::kOff, false)));
        pool_->announce();
        clients_ = must(HostClients::create());
        const std::vector<std::string> us{std::to_string(::geteuid())};
        Config config;
        config.readers = lists & 1 ? us : std::vector<std::string>{};
        config.writers = lists & 2 ? us : std::vector<std::string>{};
        config.admins = lists & kAdmins ? us : std::vector<std::string>{};
        server_ =
            must(Server::open(options_, must(AccessRules::resolve(config)), *pool_, *clients_));
    }
    void greet(std::span<const std::byte> hello) {
        talk({{{hello.begin(), hello.end()}}}, Error::kOk);
    }
    // `engine`: what it says to a client.
    void talk(const std::vector<Message>& messages, Error engine) {
        const int before = open_descriptors();
        Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        const sockaddr_un address = address_of(options_.socket);
        CHECK(::connect(socket.number(), general(address), sizeof address) == 0);
        engine_ = engine;
        for (const Message& message : messages) {
            std::vector<Descriptor> passed(message.descriptors);
            for (Descriptor& one : passed) one = any_descriptor();
            send_to(socket.number(), message.bytes, passed);
            turn();
            // Of who leaves its welcome unread the server keeps its end until somebody else comes
            // (daemon/unread_welcomes.h).
            std::array<std::byte, 2 * sizeof(Welcome)> answer;
            (void)::recv(socket.number(), answer.data(), answer.size(), 0);
        }
        turn();
        const std::uint32_t welcomed = server_->client_count();
        // What comes behind a hello cuts the client off again.
        const bool right = !messages.empty() && may_enter(messages.front());
        CHECK_OP(welcomed, <=, right ? 1u : 0u);
        if (messages.size() == 1) CHECK_OP(welcomed, ==, right ? 1u : 0u);
        socket = Descriptor();
        for (int i = 0; i < 20 && server_->connection_count() > 0; ++i) turn();
        CHECK_OP(server_->connection_count(), ==, 0u);
        CHECK(closed_to(before));
    }
    Descriptor pool() { return must(pool_->open_read_only()); }

  private:
    bool may_enter(const Message& message) const {
        Hello hello{};
        if (message.bytes.size() != sizeof hello || message.descriptors > 0) return false;
        std::memcpy(&hello, message.bytes.data(), sizeof hello);
        return engine_ == Error::kOk && hello.magic == kHelloMagic &&
               hello.abi_version == kAbiVersion && hello.fingerprint == kLayoutFingerprint &&
               hello.rights >= 1 && hello.rights <= granted_;
    }
    void turn() {
        for (int i = 0; i < 3; ++i) {
            server_->run_once(0);
            ClientCommand command;
            while (clients_->take(command)) {
                if (command.kind == ClientCommand::Kind::kAttach) {
                    CHECK(static_cast<std::uint32_t>(command.rights) <= granted_);
                    clients_->attached(command.client_id, engine_, 41);
                } else {
                    clients_->detached(command.client_id);
                }
            }
        }
        server_->run_once(0);
    }

    const std::uint32_t granted_;
    Error engine_ = Error::kOk;
    ServerOptions options_;
    std::optional<PoolSegment> pool_;
    std::unique_ptr<HostClients> clients_;
    std::unique_ptr<Server> server_;
};

Daemon& daemon_with(std::uint8_t lists) {
    static std::array<Daemon*, 8> daemons{};
    Daemon*& daemon = daemons[lists % daemons.size()];
    if (daemon == nullptr) daemon = new Daemon(lists % daemons.size());
    return *daemon;
}

Hello right_hello(std::uint32_t rights) {
    return {kHelloMagic, kAbiVersion, rights, kLayoutFingerprint, {}};
}

// Right but for some bytes.
Hello changed_hello(FuzzInput& input) {
    Hello hello = right_hello(2);
    void* at = &hello;
    const auto place = input.take<std::uint8_t>() % sizeof hello;
    const auto changed = input.take_bytes(sizeof hello - place);
    std::copy(changed.begin(), changed.end(), static_cast<std::byte*>(at) + place);
    return hello;
}

Message message_of(FuzzInput& input) {
    const auto kind = input.take<std::uint8_t>();
    Message message;
    message.descriptors = kind / 32 % (kPassedMax + 1);
    const auto say = [&](std::span<const std::byte> bytes) {
        message.bytes.assign(bytes.begin(), bytes.end());
    };
    const auto say_hello = [&](Hello hello) { say(std::as_bytes(std::span(&hello, 1))); };
    switch (kind % 4) {
        case 0:
            say_hello(right_hello(1 + kind / 4 % 3));
            break;
        case 1: {
            const auto length = input.take<std::uint8_t>();
            FuzzInput bytes = input.part(length);
            say_hello(changed_hello(bytes));
            break;
        }
        case 2:
            say(input.take_bytes(input.take<std::uint8_t>()));
            break;
        default:
            break;  // an empty one
    }
    return message;
}

// Several messages, to a daemon of any lists.
void talk(FuzzInput& input) {
    constexpr std::array kEngineSays{Error::kOk, Error::kOk, Error::kDenied, Error::kStopping};
    constexpr std::size_t kMessagesMax = 5;
    Daemon& daemon = daemon_with(input.take<std::uint8_t>());
    const auto how = input.take<std::uint8_t>();
    std::vector<Message> messages(how / 8 % (kMessagesMax + 1));
    for (Message& message : messages) message = message_of(input);
    daemon.talk(messages, kEngineSays[how % kEngineSays.size()]);
}

// A segment whose first bytes are the input's, of a size that is in the input, too.
Descriptor segment_of(std::span<const std::byte> head, std::uint32_t size_bytes, bool sealed) {
    Descriptor memfd(::memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    CHECK(::ftruncate(memfd.number(), size_bytes) == 0);
    CHECK(::pwrite(memfd.number(), head.data(), std::min<std::size_t>(head.size(), size_bytes),
                   0) >= 0);
    if (sealed) ::fcntl(memfd.number(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return memfd;
}

template <class T>
void touch(const T* from, std::size_t count) {
    if (count == 0) return;
    const void* first = from;
    const void* last = from + count - 1;
    know(*static_cast<const unsigned char*>(first));
    know(*static_cast<const unsigned char*>(last));
}

// What was mapped lies within the segment, from its first to its last part.
void touch_all(const PoolView& pool) {
    touch(pool.page_map(), pool.page_count());
    touch(pool.descriptors(), pool.frame_count());
    touch(pool.revoked(), pool.slot_count());
    touch(pool.directory(), pool.bucket_count());
    touch(&pool.stats(), 1);
    if (pool.frame_count() > 0) touch(pool.frame(pool.frame_count() - 1), kPageBytes);
}

void touch_all(ClientSegment& client) {
    touch(client.slots(), client.slot_count());
    touch(client.marks(), client.slot_count());
    touch(&client.ring_control(), 1);
    touch(client.ring(), client.ring_bytes());
    touch(client.calls(), client.call_slot_count());
}

template <class Segment>
void map(Descriptor descriptor) {
    Result<Segment> segment = Segment::map(std::move(descriptor));
    if (!segment.ok()) {
        CHECK(!segment.failure().what.empty());
        return;
    }
    touch_all(*segment);
}

// Changes what is right to what the input says: pairs of a byte's place and its value.
void change(std::span<std::byte> bytes, FuzzInput& input, int most) {
    for (int i = 0; i < most && !input.empty(); ++i) {
        const auto place = input.take<std::uint16_t>() % bytes.size();
        const auto value = input.take_bytes(1 + input.take<std::uint8_t>() % 8);
        for (std::size_t at = 0; at < value.size() && place + at < bytes.size(); ++at) {
            bytes[place + at] = value[at];
        }
    }
}

constexpr int kChangesMax = 16;

std::vector<std::byte> changed_head(const Descriptor& right, std::size_t bytes, FuzzInput& input,
                                    int most = kChangesMax) {
    std::vector<std::byte> head(bytes);
    CHECK(::pread(right.number(), head.data(), head.size(), 0) ==
          static_cast<ssize_t>(head.size()));
    change(head, input, most);
    return head;
}

std::uint32_t size_of(const Descriptor& segment) {
    return static_cast<std::uint32_t>(::lseek(segment.number(), 0, SEEK_END));
}

constexpr SessionBytes kSession{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3};

const Descriptor& right_client() {
    static const ClientSegment segment = [] {
        ClientShape shape;
        shape.slot_count = 2;
        shape.call_slot_count = 32;
        shape.instance_id = 7;
        std::ranges::copy(kSession, shape.session_id);
        ClientSegment made = must(ClientSegment::create(shape));
        made.announce(41);
        return made;
    }();
    static const Descriptor descriptor(::dup(segment.descriptor()));
    return descriptor;
}

// ---- the library attaches ----

Welcome right_welcome() {
    Welcome welcome{};
    welcome.magic = kHelloMagic;
    welcome.abi_version = kAbiVersion;
    welcome.fingerprint = kLayoutFingerprint;
    std::ranges::copy(kSession, welcome.session_id);
    return welcome;
}

// Who is found where the library looks for the daemon: says what it was told to, and hangs up. Whom
// that makes come again it refuses.
class Peer {
  public:
    static constexpr std::size_t kDescriptorsMax = 5;

    Peer() : listener_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
        const sockaddr_un address = address_of(path());
        CHECK(::bind(listener_.number(), general(address), sizeof address) == 0);
        CHECK(::listen(listener_.number(), 4) == 0);
        std::thread([this] {
            for (;;)
                serve(Descriptor(::accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC)));
        }).detach();
    }
    static std::string path() { return directory() + "/peer.sock"; }

    // To the next one. Both stay what they are until hung_up().
    void prepare(std::span<const std::byte> message, std::span<const Descriptor> descriptors) {
        const std::lock_guard hold(lock_);
        message_ = message;
        descriptors_ = descriptors;
    }
    // After an answer came: its socket is closed.
    void hung_up() {
        std::unique_lock hold(lock_);
        CHECK(changed_.wait_for(hold, 10s, [this] { return !serving_; }));
    }

  private:
    void serve(Descriptor socket) {
        std::unique_lock hold(lock_);
        serving_ = true;
        Hello hello{};
        CHECK(::recv(socket.number(), &hello, sizeof hello, 0) == sizeof hello);
        CHECK_OP(hello.magic, ==, kHelloMagic);
        say(socket);
        Welcome refusal = right_welcome();
        refusal.error = static_cast<std::uint32_t>(Error::kStopping);
        refusal_ = refusal;
        message_ = std::as_bytes(std::span(&refusal_, 1));
        descriptors_ = {};
        socket = Descriptor();
        serving_ = false;
        changed_.notify_one();
    }
    void say(const Descriptor& socket) const {
        std::array<std::byte, sizeof(Welcome) * 2> copy;
        std::ranges::copy(message_, copy.begin());
        iovec part{copy.data(), message_.size()};
        alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (!descriptors_.empty()) {
            message.msg_control = control;
            message.msg_controllen = CMSG_SPACE(descriptors_.size() * sizeof(int));
            cmsghdr* header = CMSG_FIRSTHDR(&message);
            header->cmsg_level = SOL_SOCKET;
            header->cmsg_type = SCM_RIGHTS;
            header->cmsg_len = CMSG_LEN(descriptors_.size() * sizeof(int));
            for (std::size_t i = 0; i < descriptors_.size(); ++i) {
                const int number = descriptors_[i].number();
                std::memcpy(CMSG_DATA(header) + i * sizeof number, &number, sizeof number);
            }
        }
        CHECK(::sendmsg(socket.number(), &message, MSG_NOSIGNAL) ==
              static_cast<ssize_t>(message_.size()));
    }

    Descriptor listener_;
    std::mutex lock_;
    std::condition_variable changed_;
    bool serving_ = false;
    std::span<const std::byte> message_;
    std::span<const Descriptor> descriptors_;
    Welcome refusal_;
};

Descriptor duplicate(const Descriptor& of) { return Descriptor(::dup(of.number())); }

// What is sent at this place: the right one where the input says nothing.
Descriptor descriptor_at(std::size_t place, const Descriptor& pool, FuzzInput& input) {
    static const Descriptor doorbell = must(make_doorbell());
    constexpr int kChangesOfOne = 3;
    const auto kind = input.take<std::uint8_t>();
    switch (kind % 8) {
        case 0:
            return duplicate(place == 0 ? pool : place == 1 ? right_client() : doorbell);
        case 1:
            return duplicate(pool);
        case 2:
            return duplicate(right_client());
        case 3:
            return duplicate(doorbell);
        case 4:
            return segment_of(changed_head(pool, sizeof(PoolHeader), input, kChangesOfOne),
                              size_of(pool), true);
        case 5:
            return segment_of(
                changed_head(right_client(), sizeof(ClientHeader), input, kChangesOfOne),
                size_of(right_client()), true);
        case 6:
            return segment_of({}, input.take<std::uint16_t>(), (kind & 8) != 0);
        default:
            return Descriptor(::open("/dev/null", O_RDWR | O_CLOEXEC));
    }
}

// What a bidder does with it, and what it may take for granted.
void use(Connection& connection, const Welcome& welcome) {
    const PoolView& pool = connection.pool();
    ClientSegment& segment = connection.segment();
    touch_all(pool);
    touch_all(segment);
    CHECK_OP(connection.instance_id(), ==, segment.header().instance_id);
    CHECK(std::ranges::equal(welcome.session_id, segment.header().session_id));
    const auto slot = connection.claim_reader_slot();
    CHECK(slot.has_value() == (segment.slot_count() > 0));
    if (slot) CHECK_OP(std::uint64_t{segment.first_slot()} + *slot, <, pool.slot_count());
    const auto call = connection.claim_call();
    CHECK(call.has_value() == (segment.call_slot_count() > 0));
    if (call) connection.answered(*call);
    CHECK(connection.alive());
    CHECK(connection.hung_up());
}

void attach(Peer& peer, const Descriptor& pool, FuzzInput& input) {
    Welcome welcome = right_welcome();
    const std::size_t count = (3 + input.take<std::uint8_t>()) % (Peer::kDescriptorsMax + 1);
    const auto length = input.take<std::uint16_t>();
    std::vector<Descriptor> descriptors;
    for (std::size_t i = 0; i < count; ++i) {
        descriptors.push_back(descriptor_at(i, pool, input));
    }
    change(std::as_writable_bytes(std::span(&welcome, 1)), input, kChangesMax);
    std::array<std::byte, 2 * sizeof welcome> message{};
    std::ranges::copy(std::as_bytes(std::span(&welcome, 1)), message.begin());
    peer.prepare(std::span(message).first(length == 0 ? sizeof welcome : length % message.size()),
                 descriptors);
    const AttachOptions options{.socket = Peer::path()};
    const int before = open_descriptors();
    {
        const auto made = connect_to_daemon(options, {}, false, in(10s));
        peer.hung_up();
        if (made.ok()) {
            use(**made, welcome);
        } else {
            const Failure& failure = made.failure();
            CHECK_OP(static_cast<std::uint32_t>(failure.code), <, kErrorCount);
            CHECK(failure.what.starts_with("bidstored at " + options.socket) ||
                  failure.what.starts_with("pool segment: ") ||
                  failure.what.starts_with("client segment: "));
        }
    }
    CHECK(closed_to(before));
}

}  // namespace
}  // namespace bidstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    Daemon& daemon = daemon_with(Daemon::kAdmins);
    static const Descriptor right_pool = daemon.pool();
    FuzzInput input(data, size_bytes);
    const auto choice = input.take<std::uint8_t>();
    if (choice & 128) {
        static Peer* const peer = new Peer;
        attach(*peer, right_pool, input);
        return 0;
    }
    const auto size = choice & 64 ? size_of(right_pool) : 4096 + input.take<std::uint16_t>() * 16u;
    switch (choice % 4) {
        case 0:
            if (choice & 4) {
                talk(input);
            } else {
                daemon.greet(input.rest());
            }
            break;
        case 1: {
            const Hello hello = changed_hello(input);
            daemon.greet(std::as_bytes(std::span(&hello, 1)));
            break;
        }
        case 2:
            map<PoolView>(
                segment_of(changed_head(right_pool, sizeof(PoolHeader), input), size, choice & 32));
            break;
        case 3:
            map<ClientSegment>(segment_of(changed_head(right_client(), sizeof(ClientHeader), input),
                                          choice & 64 ? size_of(right_client()) : size,
                                          choice & 32));
            break;
    }
    return 0;
}
