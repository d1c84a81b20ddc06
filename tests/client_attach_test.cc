// Attaching: who is found behind a socket, who is waited for, and how a refusal is told. The daemon
// is the test's (tests/fake_daemon.h).

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace bidstore
