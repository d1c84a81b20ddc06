// What unread Welcomes cost: who is let in, and how many are looked at for it.
#include "daemon/unread_welcomes.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <memory>
#include <optional>
#include <set>
#include <utility>

namespace bidstore {
namespace {

std::set<int> read_sockets;
std::size_t looks = 0;

bool looked_up(int socket) {
    ++looks;
    return read_sockets.contains(socket);
}

constexpr std::uint64_t kSlowNs = 1000;
constexpr std::size_t kPerUser = UnreadWelcomes::kPerUser;
constexpr std::size_t kOfOthers = UnreadWelcomes::kOfOthers;

class UnreadWelcomesTest : public testing::Test {
  protected:
    void SetUp() override {
        read_sockets.clear();
        looks = 0;
        auto closer = Closer::start();
        ASSERT_TRUE(closer.ok()) << closer.failure().what;
        closer_ = std::move(*closer);
        unread_.emplace(*closer_, kSlowNs, looked_up);
    }
    // By the number of its connection, and of its socket, which is none: nobody reads from it here.
    int send(uid_t user, std::uint64_t now_ns = 0) {
        const int socket = ++last_;
        unread_->sent(user, static_cast<std::uint64_t>(socket), socket, now_ns);
        return socket;
    }
    bool end(uid_t user, int connection) {
        // A descriptor that is there, and of which nothing is left when it is closed.
        Descriptor socket(memfd_create("over", MFD_CLOEXEC));
        return unread_->keep(user, static_cast<std::uint64_t>(connection), socket);
    }
    std::size_t looks_of_admission(uid_t user, bool admitted) {
        looks = 0;
        EXPECT_EQ(unread_->admits(user, now_ns_), admitted);
        return looks;
    }

    std::unique_ptr<Closer> closer_;
    std::optional<UnreadWelcomes> unread_;
    int last_ = 1000;
    std::uint64_t now_ns_ = 0;
};

TEST_F(UnreadWelcomesTest, AClientsCountsOnceItIsSlow) {
    for (std::size_t i = 0; i < 10 * kPerUser; ++i) {
        send(1);
        EXPECT_TRUE(unread_->admits(1, kSlowNs - 1));
    }
    EXPECT_FALSE(unread_->admits(1, kSlowNs));
    EXPECT_TRUE(unread_->admits(2, kSlowNs));
}

TEST_F(UnreadWelcomesTest, ThatOfAConnectionThatIsOverCountsAtOnceUntilItIsRead) {
    for (std::size_t i = 0; i < kPerUser; ++i) {
        EXPECT_TRUE(unread_->admits(1, 0));
        EXPECT_TRUE(end(1, send(1)));
    }
    EXPECT_FALSE(unread_->admits(1, 0));
    read_sockets.insert(last_);
    EXPECT_TRUE(unread_->admits(1, 0));
    EXPECT_EQ(unread_->over_count(), kPerUser - 1);
    const int read = send(1);
    read_sockets.insert(read);
    EXPECT_FALSE(end(1, read));
    EXPECT_TRUE(unread_->admits(1, 0));
}

TEST_F(UnreadWelcomesTest, OnesOfClientsAndOfEndedConnectionsCountTogether) {
    for (std::size_t i = 0; i < kPerUser; ++i) {
        const int connection = send(1);
        if (i % 2 == 0) end(1, connection);
    }
    EXPECT_TRUE(unread_->admits(1, 0));
    EXPECT_FALSE(unread_->admits(1, kSlowNs));
}

TEST_F(UnreadWelcomesTest, WithManyInAllUsersWhoHaveNoneAreLetIn) {
    for (std::size_t i = 0; i < UnreadWelcomes::kOfAll; ++i) {
        const auto user = static_cast<uid_t>(1 + i / (kPerUser - 1));
        end(user, send(user));
    }
    EXPECT_FALSE(unread_->admits(1, 0));
    EXPECT_TRUE(unread_->admits(1'000'000, 0));
}

// Each admission, and each connection that ended, looked at all that there were, of everybody.
TEST_F(UnreadWelcomesTest, AnAdmissionLooksAtAFewHoweverManyThereAre) {
    for (uid_t user = 1; user <= 60; ++user) {
        for (std::size_t i = 0; i < kPerUser; ++i) end(user, send(user));
    }
    looks = 0;
    const int read = send(99);
    read_sockets.insert(read);
    EXPECT_FALSE(end(99, read));
    EXPECT_EQ(looks, 1u);
    EXPECT_LE(looks_of_admission(1, false), kPerUser + kOfOthers);
    EXPECT_LE(looks_of_admission(99, true), kOfOthers);
    // A user with many clients, all of whom have read theirs.
    for (int i = 0; i < 500; ++i) read_sockets.insert(send(99));
    now_ns_ = kSlowNs;
    EXPECT_LE(looks_of_admission(99, true), 500 + kOfOthers);
    EXPECT_LE(looks_of_admission(99, true), kOfOthers);
}

TEST_F(UnreadWelcomesTest, WhatWasReadIsClosedThoughItsUserDoesNotComeAgain) {
    for (uid_t user = 1; user <= 60; ++user) {
        for (std::size_t i = 0; i < kPerUser; ++i) {
            end(user, send(user));
            if (i % 2 == 0) read_sockets.insert(last_);
        }
    }
    const std::size_t rounds = 60 * kPerUser / kOfOthers;
    for (std::size_t i = 0; i <= rounds; ++i) EXPECT_TRUE(unread_->admits(99, 0));
    EXPECT_EQ(unread_->over_count(), 60 * kPerUser / 2);
}

}  // namespace
}  // namespace bidstore
