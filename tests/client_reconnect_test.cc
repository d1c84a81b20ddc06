// Programs that do nothing but write, and daemons that come back: with another ring, with fewer
// call slots, or to refuse at first. Nobody but the writer looks whether the daemon is there.

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

// The dead daemon's ring has room, and nobody waits for an answer: the write was never applied.
TEST_F(ClientReconnect, OneWriteAWhileAfterTheDaemonDiedGoesToTheNextOne) {
    for (const std::chrono::nanoseconds ahead : {0h, 1h}) {
        start_anew({.clock_ahead_ns = static_cast<std::uint64_t>(ahead.count())});
        attach();
        {
            const std::lock_guard hold(disk_.lock);
            disk_.applied.clear();
        }
        ASSERT_TRUE(store_->commit(spend(1), in(5s)).ok());
        restart_daemon();
        std::this_thread::sleep_for(200ms);
        // The clock of the dead one may be ahead of ours: then only that it stands still tells.
        std::int64_t last = 1;
        if (ahead != 0h) {
            ASSERT_TRUE(store_->submit(spend(++last), in(5s)).ok());
        }
        std::this_thread::sleep_for(600ms);
        ASSERT_TRUE(store_->submit(spend(++last), in(5s)).ok());
        EXPECT_TRUE(eventually([&] { return spent() == up_to(last); }))
            << "ahead by " << ahead.count() << ": " << spent().size();
    }
}

// Its heart beats on, but it let go of this client.
TEST_F(ClientReconnect, WritesThatNobodyWaitsForOutliveACutOff) {
    start_anew({.call_slots = 512});
    attach();
    daemon_->cut_off_all();
    std::int64_t last = 0;
    EXPECT_TRUE(eventually([&] {
        const auto sent = store_->submit(spend(++last), in(5s));
        EXPECT_TRUE(sent.ok()) << sent.failure().what;
        std::this_thread::sleep_for(10ms);
        return store_->reconnects() == 1 || last > 400;
    }));
    EXPECT_TRUE(eventually([&] { return spent() == up_to(last); })) << spent().size();
}

// Whoever polls connects to nothing, but others go by what it sees.
TEST_F(ClientReconnect, PollingNoticesThatTheDaemonDied) {
    Result<Reader> reader = store_->reader();
    ASSERT_TRUE(reader.ok());
    Result<Snapshot> held = reader->snapshot(in(60s));
    ASSERT_TRUE(held.ok());
    daemon_->serve_rings(false);
    std::vector<Pending> pending = submit_up_to(1);
    EXPECT_FALSE(pending[0].done());
    restart_daemon();
    EXPECT_TRUE(eventually([&] {
        EXPECT_FALSE(pending[0].done());
        return !held->valid();
    }));
    EXPECT_TRUE(pending[0].wait(in(5s)).ok());
    EXPECT_EQ(spent(), up_to(1));
}

// More writes were kept than the new connection has call slots: what was left waited for somebody
// who submits or waits.
TEST_F(ClientReconnect, PollingSendsWhatTheNewConnectionHadNoRoomFor) {
    daemon_->serve_rings(false);
    std::vector<Pending> pending = submit_up_to(16);
    start_anew({.call_slots = 4});
    EXPECT_TRUE(pending[0].wait(in(5s)).ok());
    EXPECT_TRUE(eventually([&] { return pending[15].done(); }));
    for (Pending& write : pending) EXPECT_TRUE(write.wait(in(5s)).ok());
    EXPECT_EQ(spent(), up_to(16));
}

// It goes, all its places are taken by those that were quicker, or a read of what it has of the
// session failed: that passes, and the write is under way until then.
TEST_F(ClientReconnect, AWriteUnderWayOutlivesARefusalThatPasses) {
    for (const Error refusal : {Error::kBusy, Error::kStopping, Error::kFenced,
                                Error::kTooManyClients, Error::kIoError}) {
        SCOPED_TRACE(error_name(refusal));
        {
            const std::lock_guard hold(disk_.lock);
            disk_.applied.clear();
        }
        daemon_->serve_rings(false);
        std::vector<Pending> pending = submit_up_to(1);
        start_anew({.refuse = refusal});
        EXPECT_EQ(pending[0].wait(in(50ms)).error(), Error::kTimedOut);
        auto waiter =
            std::async(std::launch::async, [&] { return pending[0].wait(in(kPatience)); });
        EXPECT_EQ(waiter.wait_for(50ms), std::future_status::timeout);
        restart_daemon();
        const auto done = waiter.get();
        EXPECT_TRUE(done.ok()) << done.failure().what;
        EXPECT_EQ(spent(), up_to(1));
    }
}

// Nobody refused it: "transaction refused" was said of one that may have been applied.
TEST_F(ClientReconnect, AKeptWriteThatTheNextRingCannotCarryIsSaidToBeUnknown) {
    start_anew({.ring_bytes = 4u << 20});
    attach();
    daemon_->serve_rings(false);
    auto sent = store_->submit(large(), in(5s));
    ASSERT_TRUE(sent.ok());
    restart_daemon();
    const auto unknown = sent->wait(in(5s));
    EXPECT_EQ(unknown.error(), Error::kUnknownOutcome);
    const std::string& what = unknown.failure().what;
    EXPECT_EQ(what.find("refused"), std::string::npos) << what;
    EXPECT_NE(what.find("may have been applied"), std::string::npos) << what;
    EXPECT_NE(what.find("ring_bytes"), std::string::npos) << what;
}

// A loop around a call with a short deadline connected without a pause.
TEST_F(ClientReconnect, AnAbsentDaemonIsWaitedForUntilAShortDeadlineToo) {
    daemon_->stop();
    EXPECT_EQ(store_->commit(spend(1), in(50ms)).error(), Error::kTimedOut);
    for (const auto patience : {1ms, 3ms, 5ms}) {
        const Deadline deadline = in(patience);
        EXPECT_EQ(store_->submit(spend(2), deadline).error(), Error::kDisconnected);
        EXPECT_GE(std::chrono::steady_clock::now(), deadline) << patience.count() << " ms";
    }
}

}  // namespace
}  // namespace bidstore
