// Attaching: who is found behind a socket, who is waited for, and how a refusal is told. The daemon
// is the test's (tests/fake_daemon.h).

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <thread>

#include "clientlib/bidstore.h"
#include "tests/fake_daemon.h"
#include "tests/processes.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

class ClientAttach : public testing::Test {
  protected:
    TemporaryDirectory directory_;
    std::string socket_ = directory_.file("socket");
    FakeDisk disk_;
};

TEST_F(ClientAttach, NobodyThereNamesTheSocket) {
    const auto store = Store::attach({.socket = socket_}, in(5s));
    EXPECT_EQ(store.error(), Error::kDisconnected);
    EXPECT_NE(store.failure().what.find(socket_), std::string::npos);
    EXPECT_EQ(Store::attach({.socket = std::string(200, 's')}, in(1s)).error(), Error::kInvalid);
}

TEST_F(ClientAttach, WaitsForADaemonWhenAsked) {
    EXPECT_EQ(Store::attach({.socket = socket_, .wait_for_daemon = true}, in(30ms)).error(),
              Error::kDisconnected);
    FakeDaemon daemon(socket_, disk_);
    std::thread later([&] {
        std::this_thread::sleep_for(20ms);
        daemon.start();
    });
    const auto store = Store::attach({.socket = socket_, .wait_for_daemon = true}, in(5s));
    later.join();
    EXPECT_TRUE(store.ok()) << store.failure().what;
}

TEST_F(ClientAttach, ARefusalIsPassedOn) {
    FakeDaemon daemon(socket_, disk_, {.refuse = Error::kDenied});
    daemon.start();
    const auto store = Store::attach({.socket = socket_}, in(5s));
    EXPECT_EQ(store.error(), Error::kDenied);
    EXPECT_NE(store.failure().what.find("refused by the test"), std::string::npos);
}

TEST_F(ClientAttach, AnotherLayoutIsNamedWithBothValues) {
    FakeDaemon daemon(socket_, disk_, {.fingerprint_error = 1});
    daemon.start();
    const auto store = Store::attach({.socket = socket_}, in(5s));
    EXPECT_EQ(store.error(), Error::kVersionMismatch);
    const std::string& what = store.failure().what;
    const std::size_t first = what.find("0x");
    ASSERT_NE(first, std::string::npos) << what;
    EXPECT_NE(what.find("0x", first + 1), std::string::npos) << what;
}

TEST_F(ClientAttach, SessionsAreRandomAndKept) {
    FakeDaemon daemon(socket_, disk_);
    daemon.start();
    auto first = Store::attach({.socket = socket_}, in(5s));
    auto second = Store::attach({.socket = socket_}, in(5s));
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_NE(first->session_id(), second->session_id());
    EXPECT_NE(first->session_id(), (std::array<std::uint8_t, 16>{}));
}

// An empty message was taken for a daemon that hung up, and what came with it stayed open.
TEST_F(ClientAttach, AnEmptyWelcomeLeavesNoDescriptorOpen) {
    const Descriptor listener = listen_at(socket_);
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK), 0);
    const Descriptor reads(pipe[0]);
    std::thread daemon([&, writes = Descriptor(pipe[1])] {
        const Descriptor client(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC));
        Hello hello{};
        EXPECT_EQ(::recv(client.number(), &hello, sizeof hello, 0), ssize_t{sizeof hello});
        EXPECT_TRUE(send_descriptors(client, {}, {writes.number()}));
    });
    EXPECT_EQ(Store::attach({.socket = socket_}, in(5s)).error(), Error::kDisconnected);
    daemon.join();
    char byte = 0;
    EXPECT_EQ(::read(reads.number(), &byte, 1), 0) << "somebody has the other end";
}

// The daemon tells a client's end by its socket, which a child had as well.
TEST_F(ClientAttach, AChildThatIsForkedMeanwhileKeepsNoSocket) {
    const Descriptor listener = listen_at(socket_);
    std::thread attaching([&] {
        EXPECT_EQ(Store::attach({.socket = socket_}, in(5s)).error(), Error::kNotBidstore);
    });
    const Descriptor client(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC));
    Hello hello{};
    EXPECT_EQ(::recv(client.number(), &hello, sizeof hello, 0), ssize_t{sizeof hello});
    const Process child = Process::fork([] {
        ::pause();
        return 0;
    });
    EXPECT_EQ(::send(client.number(), "?", 1, MSG_NOSIGNAL), 1);
    attaching.join();
    char byte = 0;
    EXPECT_TRUE(eventually([&] { return ::recv(client.number(), &byte, 1, MSG_DONTWAIT) == 0; }));
}

// "For ever" was the past: the sum overflowed.
TEST_F(ClientAttach, ForEverIsNotThePast) {
    constexpr auto kForEver = std::chrono::nanoseconds::max();
    const auto now = std::chrono::steady_clock::now();
    EXPECT_GT(in(kForEver), now + std::chrono::hours(24 * 365));
    EXPECT_LT(in(std::chrono::nanoseconds::min()), now);
    EXPECT_LT(in(-1min), now);
    EXPECT_GE(in(1s), now + 1s);
    FakeDaemon daemon(socket_, disk_);
    daemon.put_catalog(1, {});
    daemon.publish(1);
    daemon.start();
    auto store = Store::attach({.socket = socket_}, in(kForEver));
    ASSERT_TRUE(store.ok()) << store.failure().what;
    const auto tables = store->tables(in(kForEver));
    EXPECT_TRUE(tables.ok()) << tables.failure().what;
}

// And what is as long ago as can be said was 1,000 s ahead.
TEST_F(ClientAttach, NobodyWaitsForADeadlineOfLongAgo) {
    std::optional<Descriptor> listener(listen_at(socket_));  // accepts nobody
    const std::jthread end([&](const std::stop_token& stop) {
        const Deadline until = in(5s);
        while (!stop.stop_requested() && std::chrono::steady_clock::now() < until) {
            std::this_thread::sleep_for(1ms);
        }
        listener.reset();
    });
    EXPECT_EQ(Store::attach({.socket = socket_}, Deadline::min()).error(), Error::kTimedOut);
}

}  // namespace
}  // namespace bidstore
