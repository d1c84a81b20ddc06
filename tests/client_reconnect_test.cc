// Programs that do nothing but write, and daemons that come back: with another ring, with fewer call
// slots, or to refuse at first. Nobody but the writer looks whether the daemon is there.

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/processes.h"
#include "tests/session_fixture.h"

namespace bidstore {
namespace {

class ClientReconnect : public ClientSession {
  protected:
    void start_anew(FakeDaemon::Options options) {
        daemon_->stop();
        start_daemon(options);
    }
    // About 800 KB, more than a ring of 1 MiB carries.
    Transaction large() {
        Transaction transaction;
        const std::string name(3900, 'n');
        for (int i = 0; i < 200; ++i) {
            transaction.put(*table_, {.who = 1, .left = 0, .spent = 0, .name = name});
        }
        return transaction;
    }
    // spend(1), spend(2), ... without waiting for their answers.
    std::vector<Pending> submit_up_to(std::int64_t last) {
        std::vector<Pending> pending;
        for (std::int64_t i = 1; i <= last; ++i) {
            auto sent = store_->submit(spend(i), in(5s));
            EXPECT_TRUE(sent.ok()) << sent.failure().what;
            if (sent.ok()) pending.push_back(std::move(*sent));
        }
        return pending;
    }
};

// The ring was asked before the wait for room, and not the one that the write went to: this ended
// the bidder.
TEST_F(ClientReconnect, AWriteThatWaitedIsRefusedWhereTheNextRingCannotCarryIt) {
    start_anew({.ring_bytes = 4u << 20});
    attach();
    daemon_->serve_rings(false);
    std::vector<Pending> pending = submit_up_to(16);  // all call slots
    auto late = std::async(std::launch::async, [&] { return store_->commit(large(), in(20s)); });
    EXPECT_EQ(late.wait_for(50ms), std::future_status::timeout);
    restart_daemon();
    const auto refused = late.get();
    EXPECT_EQ(refused.error(), Error::kTooLarge);
    EXPECT_NE(refused.failure().what.find("ring_bytes"), std::string::npos)
        << refused.failure().what;
    for (Pending& write : pending) EXPECT_TRUE(write.wait(in(5s)).ok());
    EXPECT_TRUE(store_->commit(spend(17), in(5s)).ok());
    EXPECT_EQ(spent(), up_to(17));
}

// The remedy that the refusal names: it was judged by the ring of a daemon that was no more, and
// nothing ever looked whether there was another one.
TEST_F(ClientReconnect, AWriterAloneFindsTheLargerRing) {
    EXPECT_EQ(store_->commit(large(), in(5s)).error(), Error::kTooLarge);
    start_anew({.ring_bytes = 4u << 20});
    const auto done = store_->commit(large(), in(5s));
    EXPECT_TRUE(done.ok()) << done.failure().what;
    EXPECT_EQ(store_->reconnects(), 1u);
}

}  // namespace
}  // namespace bidstore
