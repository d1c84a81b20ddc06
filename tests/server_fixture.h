// The server with a stand-in for the engine, and clients by hand.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "daemon/server.h"
#include "tests/processes.h"

namespace bidstore {

inline std::uint64_t now_ns() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(std::chrono::nanoseconds{now}.count());
}

// Answers attach and detach from a thread of its own, as the engine does, and keeps what it saw.
class EngineStandIn {
  public:
    explicit EngineStandIn(HostClients& clients) : clients_(clients) {
        thread_ = std::thread([this] { run(); });
    }
    ~EngineStandIn() {
        held_up = false;
        clients_.send({.kind = ClientCommand::Kind::kStop, .session = {}, .segment = {}});
        thread_.join();
    }
    std::vector<ClientCommand> seen() {
        const std::lock_guard lock(mutex_);
        return seen_;
    }
    // Set before clients connect.
    Error answer = Error::kOk;
    bool silent = false;
    // Meanwhile it takes no command.
    std::atomic<bool> held_up{false};

  private:
    void run() {
        for (;;) {
            pollfd bell{.fd = clients_.wake_descriptor(), .events = POLLIN, .revents = 0};
            poll(&bell, 1, 1000);
            if (held_up) {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
                continue;
            }
            clients_.drain_doorbell();
            ClientCommand command;
            while (clients_.take(command)) {
                if (command.kind == ClientCommand::Kind::kStop) return;
                on_command(command);
            }
        }
    }
    void on_command(const ClientCommand& command) {
        {
            const std::lock_guard lock(mutex_);
            seen_.push_back(command);
        }
        if (command.kind == ClientCommand::Kind::kDetach) clients_.detached(command.client_id);
        if (command.kind == ClientCommand::Kind::kAttach && !silent) {
            clients_.attached(command.client_id, answer, 41);
        }
    }
    HostClients& clients_;
    std::mutex mutex_;
    std::vector<ClientCommand> seen_;
    std::thread thread_;
};

Hello good_hello() {
    Hello hello{};
    hello.magic = kHelloMagic;
    hello.abi_version = kAbiVersion;
    hello.fingerprint = kLayoutFingerprint;
    hello.rights = static_cast<std::uint32_t>(Rights::kWriter);
    return hello;
}

// What a client got back.
struct Greeting {
    bool arrived = false;
    Welcome welcome{};
    std::vector<Descriptor> descriptors;
    Error error() const { return static_cast<Error>(welcome.error); }
};

// A client by hand: a socket, and what it sends.
class RawClient {
  public:
    explicit RawClient(const std::string& path)
        : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        const void* general = &address;
        connected =
            connect(socket_.number(), static_cast<const sockaddr*>(general), sizeof address) == 0;
    }
    void send_bytes(const void* bytes, std::size_t length) {
        EXPECT_EQ(::send(socket_.number(), bytes, length, MSG_NOSIGNAL),
                  static_cast<ssize_t>(length));
    }
    void send(const Hello& hello) { send_bytes(&hello, sizeof hello); }
    // With a message of one byte, which no hello is.
    void pass(const std::vector<int>& numbers) {
        EXPECT_TRUE(send_descriptors(socket_, std::vector<std::byte>(1), numbers));
    }
    bool readable() const {
        pollfd entry{.fd = socket_.number(), .events = POLLIN, .revents = 0};
        return poll(&entry, 1, 0) == 1;
    }
    Greeting receive() {
        Greeting answer;
        iovec part{.iov_base = &answer.welcome, .iov_len = sizeof answer.welcome};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)];
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        answer.arrived = recvmsg(socket_.number(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) ==
                         static_cast<ssize_t>(sizeof answer.welcome);
        if (!answer.arrived) return answer;  // nothing was written to `control`
        for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
             header = CMSG_NXTHDR(&message, header)) {
            const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (std::size_t i = 0; i < count; ++i) {
                int number = -1;
                std::memcpy(&number, CMSG_DATA(header) + i * sizeof(int), sizeof number);
                answer.descriptors.emplace_back(number);
            }
        }
        return answer;
    }
    void hang_up() { socket_ = Descriptor(); }
    bool connected = false;

  private:
    Descriptor socket_;
};

class ServerTest : public testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/bidstore_server_XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        directory_ = name;
        options_.socket = directory_ + "/bidstore.sock";
        options_.socket_mode = 0600;
        options_.max_clients = 3;
        options_.slots_per_client = 4;
        options_.call_slots_per_client = 32;
        options_.handshake_timeout_ns = 10'000'000'000;
        config_.admins = {std::to_string(geteuid())};
    }
    void TearDown() override {
        engine_.reset();
        server_.reset();
        std::filesystem::remove_all(directory_);
    }
    void start() {
        PoolShape shape;
        shape.frame_count = 8;
        shape.page_count = 64;
        shape.slot_count = options_.max_clients * options_.slots_per_client;
        shape.instance_id = 7;
        auto pool = PoolSegment::create(shape, HugePages::kOff, true);
        ASSERT_TRUE(pool.ok()) << pool.failure().what;
        pool_.emplace(std::move(*pool));
        pool_->announce();
        auto clients = HostClients::create();
        ASSERT_TRUE(clients.ok());
        clients_ = std::move(*clients);
        auto opened = open_server();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        server_ = std::move(*opened);
        engine_ = std::make_unique<EngineStandIn>(*clients_);
    }
    Result<std::unique_ptr<Server>> open_server() {
        auto rules = AccessRules::resolve(config_);
        if (!rules) return rules.failure();
        return Server::open(options_, *rules, *pool_, *clients_);
    }
    // Runs the server until the condition holds; false when it does not within a generous time.
    bool run_until(const std::function<bool()>& condition) {
        for (int round = 0; round < 2000; ++round) {
            if (condition()) return true;
            server_->run_once(5'000'000);
        }
        return condition();
    }
    Greeting answer_to(RawClient& client) {
        EXPECT_TRUE(run_until([&] { return client.readable(); }));
        return client.receive();
    }
    Greeting handshake(RawClient& client, const Hello& hello) {
        client.send(hello);
        return answer_to(client);
    }
    std::size_t commands_seen(ClientCommand::Kind kind) {
        std::size_t count = 0;
        for (const ClientCommand& command : engine_->seen()) count += command.kind == kind;
        return count;
    }

    std::string directory_;
    ServerOptions options_;
    Config config_;
    std::optional<PoolSegment> pool_;
    std::unique_ptr<HostClients> clients_;
    std::unique_ptr<Server> server_;
    std::unique_ptr<EngineStandIn> engine_;
};

}  // namespace bidstore
