// The handshake, both directions: any bytes as a hello at the daemon's server, any bytes as the
// welcome at the client library, and any bytes in the heads of the segments that come with it.
//
// Input: a byte that chooses; then the message, or the head.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include "clientlib/attach.h"
#include "daemon/server.h"
#include "tests/fuzz.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

// The daemon's server with an engine that takes every client.
class Daemon {
  public:
    Daemon() {
        char name[] = "/tmp/bidstore_fuzz_XXXXXX";
        CHECK(::mkdtemp(name) != nullptr);
        directory() = name;
        std::atexit([] { std::filesystem::remove_all(directory()); });
        options_.socket = directory() + "/bidstore.sock";
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
        Config config;
        config.admins = {std::to_string(::geteuid())};
        server_ =
            must(Server::open(options_, must(AccessRules::resolve(config)), *pool_, *clients_));
    }
    void greet(std::span<const std::byte> hello) {
        Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        options_.socket.copy(address.sun_path, sizeof address.sun_path - 1);
        const void* general = &address;
        CHECK(::connect(socket.number(), static_cast<const sockaddr*>(general), sizeof address) ==
              0);
        ::send(socket.number(), hello.data(), hello.size(), MSG_NOSIGNAL);
        turn();
        const std::uint32_t welcomed = server_->client_count();
        Hello whole{};
        const auto known = hello.first(std::min(hello.size(), sizeof whole));
        std::ranges::copy(known, std::as_writable_bytes(std::span(&whole, 1)).begin());
        const bool right = hello.size() == sizeof whole && whole.magic == kHelloMagic &&
                           whole.abi_version == kAbiVersion &&
                           whole.fingerprint == kLayoutFingerprint && whole.rights >= 1 &&
                           whole.rights <= 3;
        CHECK_OP(welcomed, ==, right ? 1u : 0u);
        socket = Descriptor();
        for (int i = 0; i < 20 && server_->connection_count() > 0; ++i) turn();
        CHECK_OP(server_->connection_count(), ==, 0u);
    }
    Descriptor pool() { return must(pool_->open_read_only()); }

  private:
    static std::string& directory() {
        static std::string path;
        return path;
    }
    void turn() {
        for (int i = 0; i < 3; ++i) {
            server_->run_once(0);
            ClientCommand command;
            while (clients_->take(command)) {
                if (command.kind == ClientCommand::Kind::kAttach) {
                    clients_->attached(command.client_id, Error::kOk, 41);
                } else {
                    clients_->detached(command.client_id);
                }
            }
        }
        server_->run_once(0);
    }

    ServerOptions options_;
    std::optional<PoolSegment> pool_;
    std::unique_ptr<HostClients> clients_;
    std::unique_ptr<Server> server_;
};

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
std::uint64_t touch(const T* from, std::size_t count) {
    if (count == 0) return 0;
    const void* first = from;
    const void* last = from + count - 1;
    return static_cast<std::uint64_t>(*static_cast<const unsigned char*>(first)) +
           *static_cast<const unsigned char*>(last);
}

// What was mapped lies within the segment, from its first to its last part.
void map_pool(Descriptor segment) {
    const Result<PoolView> pool = PoolView::map(std::move(segment));
    if (!pool.ok()) {
        CHECK(!pool.failure().what.empty());
        return;
    }
    touch(pool->page_map(), pool->page_count());
    touch(pool->descriptors(), pool->frame_count());
    touch(pool->revoked(), pool->slot_count());
    touch(pool->directory(), pool->bucket_count());
    touch(&pool->stats(), 1);
    if (pool->frame_count() > 0) touch(pool->frame(pool->frame_count() - 1), kPageBytes);
}

void map_client(Descriptor segment) {
    Result<ClientSegment> client = ClientSegment::map(std::move(segment));
    if (!client.ok()) {
        CHECK(!client.failure().what.empty());
        return;
    }
    touch(client->slots(), client->slot_count());
    touch(client->marks(), client->slot_count());
    touch(&client->ring_control(), 1);
    touch(client->ring(), client->ring_bytes());
    touch(client->calls(), client->call_slot_count());
}

// A head that is right but for what the input says: pairs of a byte's place and its value.
std::vector<std::byte> changed_head(const Descriptor& right, std::size_t bytes, FuzzInput& input) {
    std::vector<std::byte> head(bytes);
    CHECK(::pread(right.number(), head.data(), head.size(), 0) ==
          static_cast<ssize_t>(head.size()));
    for (int i = 0; i < 16 && !input.empty(); ++i) {
        const auto place = input.take<std::uint16_t>() % head.size();
        const auto value = input.take_bytes(1 + input.take<std::uint8_t>() % 8);
        for (std::size_t at = 0; at < value.size() && place + at < head.size(); ++at) {
            head[place + at] = value[at];
        }
    }
    return head;
}

std::uint32_t size_of(const Descriptor& segment) {
    return static_cast<std::uint32_t>(::lseek(segment.number(), 0, SEEK_END));
}

const Descriptor& right_client() {
    static const ClientSegment segment = [] {
        ClientShape shape;
        shape.slot_count = 2;
        shape.call_slot_count = 32;
        shape.instance_id = 7;
        ClientSegment made = must(ClientSegment::create(shape));
        made.announce(41);
        return made;
    }();
    static const Descriptor descriptor(::dup(segment.descriptor()));
    return descriptor;
}

}  // namespace
}  // namespace bidstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    static Daemon* const daemon = new Daemon;
    static const Descriptor right_pool = daemon->pool();
    FuzzInput input(data, size_bytes);
    const auto choice = input.take<std::uint8_t>();
    const auto size = choice & 64 ? size_of(right_pool) : 4096 + input.take<std::uint16_t>() * 16u;
    switch (choice % 4) {
        case 0:
            daemon->greet(input.rest());
            break;
        case 1: {  // a hello that is right but for some bytes
            Hello hello{kHelloMagic, kAbiVersion, 2, kLayoutFingerprint, {}};
            void* at = &hello;
            const auto place = input.take<std::uint8_t>() % sizeof hello;
            const auto changed = input.take_bytes(sizeof hello - place);
            std::copy(changed.begin(), changed.end(), static_cast<std::byte*>(at) + place);
            daemon->greet(std::as_bytes(std::span(&hello, 1)));
            break;
        }
        case 2:
            map_pool(
                segment_of(changed_head(right_pool, sizeof(PoolHeader), input), size, choice & 32));
            break;
        case 3:
            map_client(segment_of(changed_head(right_client(), sizeof(ClientHeader), input),
                                  choice & 64 ? size_of(right_client()) : size, choice & 32));
            break;
    }
    return 0;
}
