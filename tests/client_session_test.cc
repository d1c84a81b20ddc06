// Writing through the client library: encoding, answers, back-pressure, and daemons that come and
// go while writes are under way. The daemon is the test's (tests/fake_daemon.h).

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <future>
#include <set>
#include <string>
#include <vector>

#include "clientlib/load.h"
#include "tests/processes.h"
#include "tests/session_fixture.h"

namespace bidstore {
namespace {

TEST_F(ClientSession, OperationsAreEncodedAsTheMessageSays) {
    Transaction transaction;
    transaction.require_present(*table_, table_->key(1u))
        .require_equals<&Budget::name>(*table_, table_->key(1u), "abc")
        .put(*table_, {.who = 2, .left = -1, .spent = 3, .name = "xy"})
        .update(*table_, table_->key(3u), set<&Budget::spent>(9), set<&Budget::name>("q"))
        .add<&Budget::left>(*table_, table_->key(4u), -5,
                            {.floor = 0, .create = true, .want_result = true})
        .erase(*table_, table_->key(5u), true)
        .erase_range(*table_, table_->prefix(6u), table_->prefix(), true);
    ASSERT_TRUE(transaction.status().ok()) << transaction.status().failure().what;
    EXPECT_EQ(transaction.result_count(), 2u);
    const auto operations = operations_of(transaction.bytes());
    ASSERT_EQ(operations.size(), 7u);
    const OperationKind kinds[] = {
        OperationKind::kCheckPresent, OperationKind::kCheckEquals, OperationKind::kPut,
        OperationKind::kUpdate,       OperationKind::kAdd,         OperationKind::kDelete,
        OperationKind::kDeleteRange};
    for (std::size_t i = 0; i < 7; ++i) {
        EXPECT_EQ(operations[i].header.kind, kinds[i]) << i;
        EXPECT_EQ(operations[i].header.table_id, kBudgets.value) << i;
        EXPECT_EQ(operations[i].key.back(), std::byte(i < 2 ? 1 : i)) << i;
    }
    ColumnValue first{};
    std::memcpy(&first, operations[1].body.data(), sizeof first);
    EXPECT_EQ(first.column, 3);
    EXPECT_EQ(first.value_bytes, 3);
    EXPECT_EQ(operations[1].body.size(), sizeof first + 8);
    EXPECT_EQ(operations[2].body.size(), 8u + 4 + 2 + 2);
    // Two columns, each with its header and its bytes padded to 8.
    EXPECT_EQ(operations[3].body.size(), 2 * (sizeof first + 8));
    AddBody add{};
    ASSERT_EQ(operations[4].body.size(), sizeof add);
    std::memcpy(&add, operations[4].body.data(), sizeof add);
    EXPECT_EQ(add.delta, -5);
    EXPECT_EQ(add.has_floor, 1);
    EXPECT_EQ(add.has_ceiling, 0);
    EXPECT_EQ(operations[4].header.flags, kCreate | kWantResult);
    EXPECT_EQ(operations[5].header.flags, kIfPresent);
    EXPECT_TRUE(operations[6].body.empty());
}

TEST_F(ClientSession, MistakesInBuildingComeBackFromCommit) {
    Transaction transaction = spend(1);
    transaction.put(table_->raw(), std::array<std::byte, 3>{}, {});
    transaction.add<&Budget::left>(*table_, table_->key(7u), 1);
    const auto refused = store_->commit(transaction, in(5s));
    EXPECT_EQ(refused.error(), Error::kInvalid);
    EXPECT_NE(refused.failure().what.find("operation 1"), std::string::npos)
        << refused.failure().what;
    EXPECT_EQ(store_->commit(Transaction{}, in(5s)).error(), Error::kInvalid);

    Transaction large;
    const std::string name(300'000, 'n');
    for (int i = 0; i < 4; ++i) {
        large.put(*table_, {.who = 1, .left = 0, .spent = 0, .name = name});
    }
    EXPECT_EQ(store_->commit(large, in(5s)).error(), Error::kTooLarge);
    EXPECT_TRUE(spent().empty());
    EXPECT_TRUE(store_->commit(spend(2), in(5s)).ok());
    EXPECT_EQ(spent(), (std::vector<std::int64_t>{2}));
}

TEST_F(ClientSession, CommitGivesCsnAndResults) {
    daemon_->judge([](std::uint64_t, std::span<const std::byte>) {
        Answer answer;
        answer.csn = 77;
        answer.result_count = 2;
        answer.result[0] = -5;
        answer.result[1] = 6;
        return answer;
    });
    const auto done = store_->commit(spend(1), in(5s));
    ASSERT_TRUE(done.ok()) << done.failure().what;
    EXPECT_EQ(done->csn, Csn{77});
    EXPECT_EQ(done->results, (std::vector<std::int64_t>{-5, 6}));
}

TEST_F(ClientSession, AFailureNamesTheOperation) {
    daemon_->judge([](std::uint64_t, std::span<const std::byte>) {
        Answer answer;
        answer.error = Error::kBelowFloor;
        answer.failed_operation = 1;
        return answer;
    });
    Transaction transaction;
    transaction.require_present(*table_, table_->key(7u));
    transaction.add<&Budget::left>(*table_, table_->key(7u), -1, {.floor = 0});
    const auto refused = store_->commit(transaction, in(5s));
    EXPECT_EQ(refused.error(), Error::kBelowFloor);
    EXPECT_EQ(refused.failure().what,
              "operation 1 (add to budgets): the sum would be below the floor");
}

// "Too large" said neither what nor what to do.
TEST_F(ClientSession, ATooLargeTransactionIsToldItsLimitAndTheRemedy) {
    const std::pair<std::uint32_t, const char*> limits[] = {
        {kLimitPool, "pool_bytes"},
        {kLimitJournal, "journal_bytes"},
        {kLimitLog, "log_segment_bytes"}};
    for (const auto& [limit, setting] : limits) {
        daemon_->judge([which = limit](std::uint64_t, std::span<const std::byte>) {
            Answer answer;
            answer.error = Error::kTooLarge;
            answer.failed_operation = which;
            return answer;
        });
        const auto refused = store_->commit(spend(1), in(5s));
        EXPECT_EQ(refused.error(), Error::kTooLarge);
        EXPECT_NE(refused.failure().what.find("split it"), std::string::npos);
        EXPECT_NE(refused.failure().what.find(setting), std::string::npos)
            << refused.failure().what;
    }
}

TEST_F(ClientSession, ManyThreadsShareTheRing) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([this, t] {
            for (int i = 0; i < 50; ++i) {
                const auto done = store_->commit(spend(t * 1000 + i), in(20s));
                EXPECT_TRUE(done.ok()) << done.failure().what;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    const auto amounts = spent();
    EXPECT_EQ(amounts.size(), 400u);
    EXPECT_EQ(std::set(amounts.begin(), amounts.end()).size(), 400u);
}

// 16 call slots: the writes that find none wait, then say so; nothing is lost or sent twice.
TEST_F(ClientSession, FullCallSlotsAreBackPressure) {
    daemon_->serve_rings(false);
    std::vector<Pending> pending;
    for (std::int64_t i = 1; i <= 16; ++i) {
        auto sent = store_->submit(spend(i), in(5s));
        ASSERT_TRUE(sent.ok()) << sent.failure().what;
        EXPECT_FALSE(sent->done());
        pending.push_back(std::move(*sent));
    }
    EXPECT_EQ(store_->submit(spend(100), in(30ms)).error(), Error::kBusy);
    daemon_->serve_rings(true);
    EXPECT_TRUE(store_->commit(spend(17), in(5s)).ok());
    for (Pending& write : pending) EXPECT_TRUE(write.wait(in(5s)).ok());
    EXPECT_EQ(spent(), up_to(17));
}

// More call slots than the daemon remembers answers: the oldest answer has to come first.
TEST_F(ClientSession, UndecidedWritesAreBoundedWhateverTheCallSlots) {
    daemon_->stop();
    daemon_ = make_daemon({.call_slots = 2048});
    daemon_->start();
    attach();
    daemon_->serve_rings(false);
    std::vector<Pending> pending;
    for (std::uint32_t i = 0; i < kUndecidedWritesMax; ++i) {
        auto sent = store_->submit(spend(1), in(5s));
        ASSERT_TRUE(sent.ok()) << sent.failure().what;
        pending.push_back(std::move(*sent));
    }
    EXPECT_EQ(store_->submit(spend(1), in(30ms)).error(), Error::kBusy);
    daemon_->serve_rings(true);
    EXPECT_TRUE(store_->commit(spend(17), in(5s)).ok());
    for (Pending& write : pending) EXPECT_TRUE(write.wait(in(5s)).ok());
    EXPECT_EQ(spent().size(), kUndecidedWritesMax + 1u);
}

// Long records in a ring that nobody reads: the ring is full before the call slots are.
TEST_F(ClientSession, AFullRingIsBackPressure) {
    daemon_->stop();
    daemon_ = make_daemon({.call_slots = 256});
    daemon_->start();
    attach();
    daemon_->serve_rings(false);
    const std::string name(3900, 'n');
    Transaction large;
    for (int i = 0; i < 15; ++i) {
        large.put(*table_, {.who = 1, .left = 0, .spent = 0, .name = name});
    }
    std::vector<Pending> pending;
    for (;;) {
        auto sent = store_->submit(large, in(20ms));
        if (!sent.ok()) {
            EXPECT_EQ(sent.error(), Error::kBusy);
            break;
        }
        pending.push_back(std::move(*sent));
    }
    EXPECT_GT(pending.size(), 10u);
    EXPECT_LT(pending.size(), 40u);
    daemon_->serve_rings(true);
    for (Pending& write : pending) EXPECT_TRUE(write.wait(in(5s)).ok());
}

TEST_F(ClientSession, ALateAnswerIsNotLost) {
    daemon_->serve_rings(false);
    auto sent = store_->submit(spend(1), in(5s));
    ASSERT_TRUE(sent.ok());
    const auto late = sent->wait(in(30ms));
    EXPECT_EQ(late.error(), Error::kTimedOut);
    daemon_->serve_rings(true);
    EXPECT_TRUE(sent->wait(in(5s)).ok());
    EXPECT_TRUE(sent->done());
    EXPECT_EQ(spent(), up_to(1));
}

// The first daemon applies the writes and dies before it answers; the second has seen none of the
// last ones: each is applied once, in order, and everyone gets an answer.
TEST_F(ClientSession, WritesWithoutAnswerAreAppliedOnceByTheNextDaemon) {
    ASSERT_TRUE(store_->commit(spend(1), in(5s)).ok());
    daemon_->swallow_answers(true);
    std::vector<Pending> pending;
    for (std::int64_t i = 2; i <= 5; ++i) {
        auto sent = store_->submit(spend(i), in(5s));
        ASSERT_TRUE(sent.ok());
        pending.push_back(std::move(*sent));
    }
    while (spent().size() < 5) std::this_thread::sleep_for(1ms);
    daemon_->serve_rings(false);
    std::this_thread::sleep_for(5ms);
    for (std::int64_t i = 6; i <= 9; ++i) {
        auto sent = store_->submit(spend(i), in(5s));
        ASSERT_TRUE(sent.ok());
        pending.push_back(std::move(*sent));
    }
    restart_daemon();
    for (std::size_t i = pending.size(); i-- > 0;) {
        const auto done = pending[i].wait(in(5s));
        ASSERT_TRUE(done.ok()) << done.failure().what;
        // The new daemon knows of the first four only that they were applied.
        EXPECT_EQ(done->csn == Csn{}, i < 4) << i;
    }
    EXPECT_EQ(spent(), up_to(9));
    EXPECT_EQ(store_->reconnects(), 1u);
    EXPECT_TRUE(store_->commit(spend(10), in(5s)).ok());
    EXPECT_EQ(spent(), up_to(10));
}

// Nobody waits for them: they are kept all the same, and go in before any new write.
TEST_F(ClientSession, AbandonedWritesGoInBeforeNewOnes) {
    daemon_->serve_rings(false);
    for (std::int64_t i = 1; i <= 3; ++i) ASSERT_TRUE(store_->submit(spend(i), in(5s)).ok());
    EXPECT_EQ(store_->commit(spend(4), in(20ms)).error(), Error::kTimedOut);
    restart_daemon();
    EXPECT_TRUE(store_->commit(spend(5), in(5s)).ok());
    EXPECT_EQ(spent(), up_to(5));
}

// A daemon on its way out refuses: that is no answer, and the next daemon gets the write.
TEST_F(ClientSession, ARefusalOfAStoppingDaemonIsNoAnswer) {
    for (const Error farewell : {Error::kStopping, Error::kFenced}) {
        daemon_->judge([farewell](std::uint64_t, std::span<const std::byte>) {
            Answer answer;
            answer.error = farewell;
            return answer;
        });
        const std::size_t before = spent().size();
        auto writer = std::async(std::launch::async,
                                 [this] { return store_->commit(spend(1), in(20s)); });
        EXPECT_EQ(writer.wait_for(50ms), std::future_status::timeout);
        restart_daemon();
        const auto done = writer.get();
        EXPECT_TRUE(done.ok()) << done.failure().what;
        EXPECT_EQ(spent().size(), before + 1);
    }
}

// A refused write behind one without an answer: its number is needed, it itself must not be applied
// after its caller was told that it was refused.
TEST_F(ClientSession, ARefusedWriteIsNotAppliedLater) {
    daemon_->judge([](std::uint64_t number, std::span<const std::byte>) {
        Answer answer;
        answer.error = number == 1 ? Error::kTimedOut : Error::kPrecondition;
        return answer;
    });
    auto first = store_->submit(spend(1), in(5s));
    ASSERT_TRUE(first.ok());
    EXPECT_EQ(store_->commit(spend(2), in(5s)).error(), Error::kPrecondition);
    auto third = store_->submit(spend(3), in(5s));
    ASSERT_TRUE(third.ok());
    while (!third->done()) std::this_thread::sleep_for(1ms);
    daemon_->stop();
    disk_.decided = 0;  // the crash took all of it
    daemon_ = make_daemon();
    daemon_->judge([](std::uint64_t, std::span<const std::byte> bytes) {
        Answer answer;
        OperationHeader operation{};
        std::memcpy(&operation, bytes.data() + sizeof(TransactionHeader), sizeof operation);
        if (operation.table_id != kBudgets.value) answer.error = Error::kNoSuchTable;
        return answer;
    });
    daemon_->start();
    EXPECT_TRUE(first->wait(in(5s)).ok());
    EXPECT_TRUE(store_->commit(spend(4), in(5s)).ok());
    EXPECT_EQ(third->wait(in(5s)).error(), Error::kPrecondition);
    EXPECT_EQ(spent(), (std::vector<std::int64_t>{1, 4}));
}

// More writes were kept than there are call slots: 2 to 40 were answered, and gave theirs back,
// behind 1, whose answer went with the daemon. The next daemon gets them bit by bit. When the
// answer to 1 came, the client let go of them all, those too that it had not sent yet, and from
// then on it and the ring counted differently: the new write had a number in the ring for which the
// daemon said "applied".
TEST_F(ClientSession, WritesKeptBeyondTheCallSlotsAllTakeTheirNumbers) {
    for (const bool lost : {false, true}) {
        SCOPED_TRACE(lost ? "the crash took them" : "they had landed");
        const std::uint64_t before = decided();
        daemon_->judge([before](std::uint64_t number, std::span<const std::byte>) {
            Answer answer;
            if (number == before + 1) answer.error = Error::kTimedOut;  // no answer
            return answer;
        });
        auto first = store_->submit(spend(1), in(5s));
        ASSERT_TRUE(first.ok());
        for (std::int64_t i = 2; i <= 40; ++i) {
            ASSERT_TRUE(store_->commit(spend(i), in(5s), Durability::kRelaxed).ok());
        }
        daemon_->stop();
        if (lost) disk_.decided = before;
        disk_.applied.clear();
        daemon_ = make_daemon();
        daemon_->serve_rings(false);
        daemon_->start();
        auto next = std::async(std::launch::async,
                               [this] { return store_->commit(spend(41), in(20s)); });
        const std::uint64_t reconnects = lost ? 2 : 1;
        EXPECT_TRUE(eventually([&] { return store_->reconnects() == reconnects; }));
        daemon_->serve_rings(true);
        const auto done = next.get();
        ASSERT_TRUE(done.ok()) << done.failure().what;
        EXPECT_NE(done->csn, Csn{});
        EXPECT_TRUE(first->wait(in(5s)).ok());
        EXPECT_TRUE(store_->commit(spend(42), in(5s)).ok());
        const std::vector<std::int64_t> expected =
            lost ? up_to(42) : std::vector<std::int64_t>{41, 42};
        EXPECT_EQ(spent(), expected);
    }
}

// A large relaxed write was answered, behind one that was not; the daemon comes back with a ring
// that cannot carry it. Sent again as it was it ended the bidder.
TEST_F(ClientSession, AnAnsweredWriteThatTheNewRingCannotCarryTakesItsNumber) {
    daemon_->stop();
    start_daemon({.ring_bytes = 4u << 20});
    attach();
    daemon_->judge([](std::uint64_t number, std::span<const std::byte>) {
        Answer answer;
        if (number == 1) answer.error = Error::kTimedOut;
        return answer;
    });
    auto first = store_->submit(spend(1), in(5s));
    ASSERT_TRUE(first.ok());
    Transaction large;
    const std::string name(3900, 'n');
    for (int i = 0; i < 200; ++i) {
        large.put(*table_, {.who = 1, .left = 0, .spent = 0, .name = name});
    }
    ASSERT_TRUE(store_->commit(large, in(5s), Durability::kRelaxed).ok());
    daemon_->stop();
    start_daemon();
    EXPECT_TRUE(first->wait(in(5s)).ok());
    EXPECT_TRUE(store_->commit(spend(3), in(5s)).ok());
    EXPECT_EQ(decided(), 3u);
    EXPECT_EQ(spent(), (std::vector<std::int64_t>{3}));
}

// A daemon on its way out refuses one write: another thread's look at the answers must not send it
// again on the same connection, whose ring has gone on.
TEST_F(ClientSession, NothingIsSentAgainToADaemonThatSaidFarewell) {
    std::atomic<int> judged = 0;
    daemon_->judge([&](std::uint64_t, std::span<const std::byte>) {
        Answer answer;
        answer.error = Error::kStopping;
        ++judged;
        return answer;
    });
    daemon_->serve_rings(false);
    auto first = store_->submit(spend(1), in(5s));
    auto second = store_->submit(spend(2), in(5s));
    ASSERT_TRUE(first.ok() && second.ok());
    daemon_->serve_rings(true);
    // Nobody looks at the answers before the next submit does.
    ASSERT_TRUE(eventually([&] { return judged > 0; }));
    daemon_->serve_rings(false);
    EXPECT_FALSE(store_->submit(spend(3), in(20ms)).ok());
    restart_daemon();
    EXPECT_TRUE(first->wait(in(5s)).ok());
    EXPECT_TRUE(second->wait(in(5s)).ok());
    EXPECT_EQ(spent(), up_to(2));
}

// Kills at random moments under many writers: every write that was answered is there once, and
// every one was answered.
TEST_F(ClientSession, RandomKillsLoseAndRepeatNothing) {
    std::atomic<bool> stop = false;
    std::atomic<std::int64_t> next = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            while (!stop) {
                const auto done = store_->commit(spend(++next), in(20s));
                EXPECT_TRUE(done.ok()) << done.failure().what;
            }
        });
    }
    for (int kill = 0; kill < 5; ++kill) {
        std::this_thread::sleep_for(30ms);
        if (kill % 2 == 0) daemon_->swallow_answers(true);
        std::this_thread::sleep_for(5ms);
        restart_daemon();
        // On a busy host nobody might come to it before it is gone again.
        EXPECT_TRUE(eventually([&] { return store_->reconnects() == kill + 1u; }));
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    auto amounts = spent();
    std::sort(amounts.begin(), amounts.end());
    EXPECT_EQ(amounts, up_to(next));
    EXPECT_EQ(store_->reconnects(), 5u);
}

TEST_F(ClientSession, ReadersMoveToTheNextDaemon) {
    Result<Reader> reader = store_->reader();
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ((*table_->get(*reader, in(5s), 7u))->left, 1);
    Result<Snapshot> held = reader->snapshot(in(5s));
    ASSERT_TRUE(held.ok());
    restart_daemon();
    ASSERT_TRUE(store_->commit(spend(1), in(5s)).ok());
    // The writer moved the store on: the old snapshot ends, and the next one is of the new pool.
    EXPECT_FALSE(held->valid());
    EXPECT_EQ(table_->get(*held, 7u).error(), Error::kSnapshotExpired);
    held->end();
    const auto row = table_->get(*reader, in(5s), 7u);
    ASSERT_TRUE(row.ok()) << row.failure().what;
    EXPECT_EQ((*row)->left, 2);
}

// No write in sight: the heartbeat tells, within a bounded time. Of a daemon whose clock is ahead,
// in another time namespace, it never looked late.
TEST_F(ClientSession, AReaderNoticesTheNewDaemonByItself) {
    for (const std::chrono::nanoseconds ahead : {0h, 1h}) {
        daemon_->stop();
        start_daemon({.clock_ahead_ns = static_cast<std::uint64_t>(ahead.count())});
        attach();
        Result<Reader> reader = store_->reader();
        ASSERT_TRUE(reader.ok());
        EXPECT_EQ((*table_->get(*reader, in(5s), 7u))->left, starts_);
        restart_daemon();
        EXPECT_TRUE(eventually([&] {
            const auto row = table_->get(*reader, in(5s), 7u);
            EXPECT_TRUE(row.ok()) << row.failure().what;
            return row.ok() && (*row)->left == starts_;
        })) << "ahead by " << ahead.count();
    }
}

// The daemon was started on another directory: rows, ids and write numbers of the one before mean
// nothing there.
TEST_F(ClientSession, AnotherStoreBehindTheSocketIsNamedAndNotUsed) {
    Result<Reader> reader = store_->reader();
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ((*table_->get(*reader, in(5s), 7u))->left, 1);
    daemon_->serve_rings(false);
    auto under_way = store_->submit(spend(1), in(5s));
    ASSERT_TRUE(under_way.ok());
    daemon_->stop();
    start_daemon({.file = 2});
    EXPECT_EQ(under_way->wait(in(5s)).error(), Error::kUnknownOutcome);
    const auto refused = store_->commit(spend(2), in(5s));
    EXPECT_EQ(refused.error(), Error::kNotBidstore);
    EXPECT_NE(refused.failure().what.find("another store"), std::string::npos)
        << refused.failure().what;
    EXPECT_EQ(reader->snapshot(in(5s)).error(), Error::kNotBidstore);
    EXPECT_EQ(spent(), std::vector<std::int64_t>{});
    // The one of before is back.
    restart_daemon();
    EXPECT_TRUE(store_->commit(spend(2), in(5s)).ok());
    EXPECT_EQ((*table_->get(*reader, in(5s), 7u))->left, 3);
    EXPECT_EQ(spent(), up_to(2));
}

// An older copy of the file was put back, in which the table's id went to another table.
TEST_F(ClientSession, ATableThatIsAnotherOneInThePoolOfANewDaemonIsNotRead) {
    Result<Reader> reader = store_->reader();
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ((*table_->get(*reader, in(5s), 7u))->left, 1);
    const auto with = [](const char* name, const char* column) {
        return Schema::make(name, {{"who", ColumnType::kU64, 0}, {column, ColumnType::kU64, 0}}, 1);
    };
    const struct {
        Result<Schema> schema;
        Error error;
        const char* says;
    } others[] = {{with("frequency", "seen"), Error::kNoSuchTable, "frequency"},
                  {with("budgets", "seen"), Error::kSchemaMismatch, "seen"}};
    for (const auto& other : others) {
        daemon_->stop();
        daemon_ = make_daemon({}, other.schema);
        daemon_->start();
        // Moves the store on; the write itself is this daemon's to refuse.
        ASSERT_TRUE(store_->commit(spend(1), in(5s)).ok());
        const auto row = table_->get(*reader, in(5s), 7u);
        EXPECT_EQ(row.error(), other.error);
        EXPECT_NE(row.failure().what.find(other.says), std::string::npos) << row.failure().what;
        const auto table = store_->open_raw(other.schema->name(), in(5s));
        ASSERT_TRUE(table.ok()) << table.failure().what;
        EXPECT_EQ(table->schema().columns().back().name, "seen");
    }
    restart_daemon();
    ASSERT_TRUE(store_->commit(spend(1), in(5s)).ok());
    const auto row = table_->get(*reader, in(5s), 7u);
    ASSERT_TRUE(row.ok()) << row.failure().what;
    EXPECT_EQ((*row)->left, starts_);
}

// A new daemon with fewer call slots dies, too, before all that was kept is with it. Who waited for
// a write that was still unsent napped until its own deadline, with the third daemon there.
TEST_F(ClientSession, AnUnsentWriteFindsTheDaemonAfterNext) {
    daemon_->serve_rings(false);
    std::vector<Pending> pending;
    for (std::int64_t i = 1; i <= 8; ++i) {
        auto sent = store_->submit(spend(i), in(5s));
        ASSERT_TRUE(sent.ok());
        pending.push_back(std::move(*sent));
    }
    daemon_->stop();
    daemon_ = make_daemon({.call_slots = 4});
    daemon_->serve_rings(false);
    daemon_->start();
    auto waiter = std::async(std::launch::async, [&] { return pending[7].wait(in(kPatience)); });
    EXPECT_TRUE(eventually([&] { return store_->reconnects() == 1; }));
    restart_daemon();
    const auto done = waiter.get();
    EXPECT_TRUE(done.ok()) << done.failure().what;
    for (Pending& write : pending) EXPECT_TRUE(write.wait(in(5s)).ok());
    EXPECT_EQ(spent(), up_to(8));
}

// The batch that shows the table may have landed when the daemon goes away: "nothing was loaded:
// load again" was wrong then, and so was "the load was refused".
TEST_F(ClientSession, TheEndOfALoadThatGotNoAnswerIsUnknown) {
    const auto schema = Schema::make("fresh", {{"id", ColumnType::kU64, 0}}, 1);
    enum class End : std::uint8_t { kHangup, kDeadline, kFence, kAnswered };
    for (const End end : {End::kHangup, End::kDeadline, End::kFence, End::kAnswered}) {
        SCOPED_TRACE(static_cast<int>(end));
        const bool silent = end == End::kHangup || end == End::kDeadline;
        daemon_->answer_load(LoadStep::kFinish, silent              ? Error::kTimedOut
                                                : end == End::kFence ? Error::kUnknownOutcome
                                                                     : Error::kOk);
        auto load = TableLoad::begin({.socket = socket_}, *schema, in(5s));
        ASSERT_TRUE(load.ok()) << load.failure().what;
        const std::array<std::byte, 8> key{};
        ASSERT_TRUE(load->add(key, {}, in(5s)).ok());
        auto finished = std::async(std::launch::async, [&] {
            return load->finish(in(end == End::kDeadline ? 50ms : 20s));
        });
        if (end == End::kHangup) {
            EXPECT_EQ(finished.wait_for(50ms), std::future_status::timeout);
            restart_daemon();
        }
        const Status status = finished.get();
        const bool known = end == End::kAnswered;
        EXPECT_EQ(status.error(), known                   ? Error::kOk
                                  : end == End::kDeadline ? Error::kTimedOut
                                                          : Error::kUnknownOutcome);
        if (!known) {
            EXPECT_NE(status.failure().what.find("look whether"), std::string::npos)
                << status.failure().what;
        }
    }
    // Before the end nothing can have been loaded.
    auto load = TableLoad::begin({.socket = socket_}, *schema, in(5s));
    ASSERT_TRUE(load.ok()) << load.failure().what;
    daemon_->answer_load(LoadStep::kRows, Error::kFenced);
    const std::array<std::byte, 8> key{};
    ASSERT_TRUE(load->add(key, {}, in(5s)).ok());
    EXPECT_EQ(load->finish(in(5s)).error(), Error::kDisconnected);
}

TEST_F(ClientSession, WithoutADaemonCallsEndAtTheirDeadline) {
    Result<Reader> reader = store_->reader();
    ASSERT_TRUE(reader.ok());
    auto sent = store_->submit(spend(1), in(5s));
    ASSERT_TRUE(sent.ok() && sent->wait(in(5s)).ok());
    daemon_->serve_rings(false);
    sent = store_->submit(spend(2), in(5s));
    ASSERT_TRUE(sent.ok());
    daemon_->stop();
    EXPECT_EQ(sent->wait(in(50ms)).error(), Error::kTimedOut);
    EXPECT_EQ(store_->submit(spend(3), in(50ms)).error(), Error::kDisconnected);
    EXPECT_EQ(reader->snapshot(in(50ms)).error(), Error::kDisconnected);
    start_daemon();
    EXPECT_TRUE(sent->wait(in(5s)).ok());
    EXPECT_TRUE(reader->snapshot(in(5s)).ok());
    EXPECT_EQ(spent(), up_to(2));
}

// What a fork handler of others maps in a child before the library's runs: this one is registered
// ahead of main().
struct MappedByOthers {
    struct Range {
        void* begin;
        std::size_t bytes;
    };
    static inline std::vector<Range> wanted;
    static inline std::vector<Range> mapped;
    static inline const int registered = pthread_atfork(nullptr, nullptr, [] {
        for (const Range& range : wanted) {
            const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
            void* at = ::mmap(range.begin, range.bytes, PROT_READ, flags, -1, 0);
            if (at != MAP_FAILED) mapped.push_back({at, range.bytes});
        }
    });
};

// All mappings of client segments: the library's, and those of the daemon in this process.
std::vector<MappedByOthers::Range> client_segments() {
    std::vector<MappedByOthers::Range> found;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        if (line.find("memfd:bidstore-client") == std::string::npos) continue;
        char* end = nullptr;
        const auto from = std::strtoull(line.c_str(), &end, 16);
        const auto to = std::strtoull(end + 1, nullptr, 16);
        // An address that the kernel named.
        found.push_back({reinterpret_cast<void*>(from), to - from});
    }
    return found;
}

// A thread sanitizer's thread had its stack there, and lost it.
TEST_F(ClientSession, AChildUnmapsNothingOfOthers) {
    MappedByOthers::wanted = client_segments();
    const pid_t child = ::fork();
    if (child == 0) {
        store_.reset();
        int wrong = MappedByOthers::mapped.empty() ? 1 : 0;
        for (const MappedByOthers::Range& range : MappedByOthers::mapped) {
            if (::msync(range.begin, range.bytes, MS_ASYNC) != 0) wrong |= 2;
        }
        ::_exit(wrong);
    }
    MappedByOthers::wanted.clear();
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_TRUE(store_->commit(spend(5), in(5s)).ok());
}

TEST_F(ClientSession, AChildAttachesAnewAndTheParentGoesOn) {
    const pid_t child = ::fork();
    if (child == 0) {
        int wrong = 0;
        wrong += store_->commit(spend(1), in(1s)).error() != Error::kInvalid ? 1 : 0;
        {
            auto anew = Store::attach({.socket = socket_, .rights = Rights::kWriter}, in(5s));
            wrong += anew.ok() ? 0 : 2;
            // The parent's store goes, and takes nothing of the new one with it.
            store_.reset();
            auto reader = anew->reader();
            const auto row = table_->get(*reader, in(5s), 7u);
            wrong += row.ok() && *row && (*row)->left == 1 ? 0 : 4;
        }
        ::_exit(wrong);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_TRUE(store_->commit(spend(5), in(5s)).ok());
}

}  // namespace
}  // namespace bidstore
