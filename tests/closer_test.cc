// Who waits for what when closes take long.
#include "daemon/closer.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "tests/processes.h"

namespace bidstore {
namespace {

// Two ends of a connection: what is passed through `ours` is closed with `theirs`.
struct Ends {
    Ends() {
        int pair[2] = {-1, -1};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        ours = Descriptor(pair[0]);
        theirs = Descriptor(pair[1]);
    }
    void pass(Descriptor descriptor) {
        EXPECT_TRUE(send_descriptors(ours, std::vector<std::byte>(1), {descriptor.number()}));
    }
    bool closed() const {
        pollfd entry{.fd = ours.number(), .events = 0, .revents = 0};
        return poll(&entry, 1, 0) == 1 && (entry.revents & POLLHUP) != 0;
    }
    Descriptor ours;
    Descriptor theirs;
};

class CloserTest : public testing::Test {
  protected:
    void SetUp() override {
        auto started = Closer::start();
        ASSERT_TRUE(started.ok()) << started.failure().what;
        closer_ = std::move(*started);
    }
    // Hands over connections that something is in whose close lingers.
    void close_slowly(uid_t user, std::size_t count) {
        const std::size_t first = slow_.size();
        for (std::size_t i = 0; i < count; ++i) {
            Lingering& made = lingering_.emplace_back(std::chrono::seconds(600));
            slow_.emplace_back().pass(std::move(made.connection));
        }
        for (std::size_t i = first; i < slow_.size(); ++i) {
            closer_->close(user, std::move(slow_[i].theirs));
        }
    }

    std::unique_ptr<Closer> closer_;
    std::vector<Lingering> lingering_;
    std::vector<Ends> slow_;
};

TEST_F(CloserTest, WhatLingersIsEndedAndTheNextOneIsClosed) {
    close_slowly(1, 3);
    Ends last;
    closer_->close(1, std::move(last.theirs));
    EXPECT_TRUE(eventually([&] { return last.closed(); }));
    EXPECT_TRUE(eventually([&] { return closer_->waiting() == 0; }));
}

// In turn, no more than the last of them would wait: once is enough, and this thread may be put
// aside until all are closed.
TEST_F(CloserTest, AUserDoesNotWaitForTheClosesOfAnother) {
    std::size_t waiting = 0;
    for (int attempt = 0; attempt < 20 && waiting <= 1; ++attempt) {
        close_slowly(1, 150);
        Ends other;
        closer_->close(2, std::move(other.theirs));
        ASSERT_TRUE(eventually([&] { return other.closed(); }));
        waiting = closer_->waiting();
        ASSERT_TRUE(eventually([&] { return closer_->waiting() == 0; }));
        slow_.clear();
        lingering_.clear();
    }
    EXPECT_GT(waiting, 1u);
}

TEST_F(CloserTest, TellsSinceWhenTheOldestWaits) {
    const std::uint64_t before_ns = HostClock().monotonic_ns();
    close_slowly(1, 20);
    const std::uint64_t handed_ns = HostClock().monotonic_ns();
    std::uint64_t last_ns = before_ns;
    EXPECT_TRUE(eventually([&] {
        const std::uint64_t oldest_ns = closer_->oldest_ns();
        EXPECT_GE(oldest_ns, std::exchange(last_ns, oldest_ns));
        return closer_->waiting() == 0;
    }));
    EXPECT_GE(closer_->oldest_ns(), handed_ns);
}

TEST_F(CloserTest, ItsEndWaitsForNothingAndLosesNothing) {
    close_slowly(1, 20);
    Ends last;
    closer_->close(1, std::move(last.theirs));
    closer_.reset();
    EXPECT_TRUE(eventually([&] { return last.closed(); }));
}

}  // namespace
}  // namespace bidstore
