// Clients that are killed, or stopped, inside every phase of what a client does: the others go on,
// a transaction is there whole or not at all, one that is continued goes on where it was, and all
// that was held comes back.
//
// A client gets into its phase by stopping itself there; where it has to wait for the daemon, the
// daemon's disk keeps it waiting (FailpointDisk).

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "clientlib/attach.h"
#include "clientlib/snapshot.h"
#include "tests/looks.h"
#include "tests/real_store.h"
#include "tests/undisturbed.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kEvents = 2000;    // about 150 leaves
constexpr std::uint64_t kFirstOwn = 1000;  // ids in "counted" of the client's transaction
constexpr std::uint64_t kOwnRows = 20;

std::string text_of(std::uint64_t time) {
    return std::string(300, static_cast<char>(time % 95 + 32));
}

Transaction own_transaction(const Table<Counted>& counted) {
    Transaction write;
    for (std::uint64_t id = kFirstOwn; id < kFirstOwn + kOwnRows; ++id) {
        write.add<&Counted::amount>(counted, counted.key(id), 1, {.create = true});
    }
    return write;
}

enum class Where { kStopsItself, kWaitsForPage, kWaitsForLog };

// What a client does until it is stopped in it, and then: 0, or what was wrong.
using Body = std::function<int(const AttachOptions& options)>;

class ClientPhase : public testing::Test {
  protected:
    void SetUp() override {
        begin([&](const Table<Event>& events) {
            for (std::uint64_t time = 0; time < kEvents;) {
                Transaction rows;
                for (int i = 0; i < 100; ++i, ++time) {
                    const std::string text = text_of(time);
                    rows.put(events, {.time = time, .source = 0, .kind = 0, .text = text});
                }
                need(store_->commit(rows, soon()));
            }
        });
    }
    void begin(const std::function<void(const Table<Event>&)>& fill) {
        daemon_.run_as("failpoint_daemon");
        // Hardly more places than are taken at once: one that did not come back would be missed.
        for (const char* setting : {"max_clients=3", "ring_bytes=1MiB"}) daemon_.set(setting);
        daemon_.set("max_snapshot_age=" + std::to_string(lease_.count()) + "ms");
        ASSERT_TRUE(daemon_.start());
        store_.emplace(attach(daemon_));
        make_table<Counted>(*store_);
        fill(make_table<Event>(*store_));
        empty_the_pool();
    }
    // From here on the pages of events come from the file.
    void empty_the_pool() {
        EXPECT_EQ(daemon_.stop(), 0);
        ASSERT_TRUE(daemon_.start());
        need(store_->commit(write_round(need(store_->open<Counted>(soon())), 0), soon()));
        need(store_->open<Event>(soon()));
    }
    void TearDown() override {
        if (HasFailure()) {
            std::printf("the daemon says:\n%s\n%s", daemon_.log().c_str(),
                        daemon_.threads().c_str());
        }
    }

    void hold(const char* step) const {
        std::filesystem::remove(daemon_.directory() + "/held");
        std::ofstream(daemon_.directory() + "/hold") << step;
    }
    void let_go() const { std::filesystem::remove(daemon_.directory() + "/hold"); }
    bool holds() const { return std::filesystem::exists(daemon_.directory() + "/held"); }

    void expect_others_go_on() {
        Undisturbed undisturbed(*store_);
        EXPECT_TRUE(eventually([&] { return undisturbed.rounds() > 5; }));
        undisturbed.end();
    }
    // How often the client's transaction was applied, as a whole.
    std::int64_t times_applied() {
        const auto counted = need(store_->open<Counted>(soon()));
        const auto rows = all_rows(*store_, counted, kFirstOwn, kFirstOwn + kOwnRows);
        if (rows.empty()) return 0;
        EXPECT_EQ(rows.size(), kOwnRows) << "half of a transaction";
        for (const Counted& row : rows) EXPECT_EQ(row.amount, rows[0].amount);
        return rows[0].amount;
    }

    // Of a row whose page no client before this one has read.
    std::uint64_t fresh_time() const { return clients_ * kEvents / 8; }

    Process enter(Where where, const Body& body) {
        ++clients_;
        if (where == Where::kWaitsForPage) hold("page-read");
        if (where == Where::kWaitsForLog) hold("log-write");
        Process client = Process::fork(
            [&] { return body({.socket = daemon_.socket(), .rights = Rights::kWriter}); });
        if (where == Where::kStopsItself) {
            EXPECT_TRUE(client.wait_until_stopped());
        } else {
            EXPECT_TRUE(eventually([&] { return holds() || !client.running(); }));
            EXPECT_TRUE(client.running());
        }
        return client;
    }

    void expect_nothing_left_when_killed(Where where, const Body& body) {
        Process client = enter(where, body);
        client.kill();
        if (where == Where::kWaitsForLog) let_go();  // which all wait for
        expect_others_go_on();
        let_go();
        expect_rest(*store_, daemon_);
    }
    void expect_it_goes_on_when_continued(Where where, const Body& body) {
        const std::uint64_t revoked = counter(*store_, Counter::kRevokedSnapshots);
        Process client = enter(where, body);
        if (where != Where::kStopsItself) client.signal(SIGSTOP);
        EXPECT_TRUE(client.wait_until_stopped());
        if (where == Where::kWaitsForLog) let_go();
        expect_others_go_on();
        let_go();
        if (holds_a_snapshot_) {
            EXPECT_TRUE(
                eventually([&] { return counter(*store_, Counter::kRevokedSnapshots) > revoked; }));
        }
        // It stands still, and nothing is kept for it.
        EXPECT_TRUE(eventually([&] { return counter(*store_, Counter::kHeldVersions) == 0; }));
        client.signal(SIGCONT);
        EXPECT_EQ(client.wait(), 0);
        expect_rest(*store_, daemon_);
    }
    // Twice each: what the first left would be in the way of the second.
    void expect_no_harm(Where where, const Body& body) {
        for (int i = 0; i < 2 && !HasFailure(); ++i) {
            SCOPED_TRACE("time " + std::to_string(i));
            expect_nothing_left_when_killed(where, body);
            expect_it_goes_on_when_continued(where, body);
        }
    }

    RealDaemon daemon_;
    std::optional<Store> store_;
    std::chrono::milliseconds lease_ = 200ms;
    bool holds_a_snapshot_ = true;
    std::uint64_t clients_ = 0;  // that were started
};

// More than the ring holds goes through it, so no part of it is stuck.
int fill_the_ring(Store& store) {
    const auto counted = need(store.open<Counted>(soon()));
    const auto events = need(store.open<Event>(soon()));
    const std::string text(20'000, 'x');
    for (int i = 0; i < 80; ++i) {
        Transaction write;
        write.put(events, {.time = kEvents, .source = 1, .kind = 0, .text = text});
        if (!store.commit(write, soon()).ok()) return 90;
    }
    Transaction erase;
    erase.erase(events, events.key(kEvents, 1u));
    return store.commit(erase, soon()).ok() ? 0 : 91;
}

// ---- reading ------------------------------------------------------------------------------------

// The slot of a reader that speaks the protocol of shm/reader_slot.h by itself.
struct BareReader {
    explicit BareReader(const AttachOptions& options)
        : connection(need(connect_to_daemon(options, {}, false, soon()))),
          number(*connection->claim_reader_slot()),
          slot(connection->segment().slots()[number], connection->pool().published(),
               connection->pool().revoked()[connection->segment().first_slot() + number]) {}
    std::shared_ptr<Connection> connection;
    std::uint32_t number;
    SlotOwner slot;
};

TEST_F(ClientPhase, Announced) {
    expect_no_harm(Where::kStopsItself, [](const AttachOptions& options) {
        BareReader reader(options);
        reader.slot.begin();
        ::raise(SIGSTOP);
        if (reader.slot.valid()) return 1;
        reader.slot.end();
        reader.slot.begin();
        return reader.slot.valid() ? 0 : 2;
    });
}

// Between the two stores of an announcement, or in the second try of a walk.
TEST_F(ClientPhase, InPinAll) {
    expect_no_harm(Where::kStopsItself, [](const AttachOptions& options) {
        BareReader reader(options);
        reader.slot.begin();
        reader.slot.pin_all();
        ::raise(SIGSTOP);
        reader.slot.unpin();
        return reader.slot.valid() ? 1 : 0;
    });
}

TEST_F(ClientPhase, Walking) {
    expect_no_harm(Where::kStopsItself, [](const AttachOptions& options) {
        Store store = need(Store::attach(options, soon()));
        Reader reader = need(store.reader());
        const auto counted = need(store.open<Counted>(soon()));
        const Snapshot snapshot = need(reader.snapshot(soon()));
        auto cursor = counted.scan(snapshot);
        for (std::uint64_t i = 0; i < kRoundRows / 2; ++i) {
            if (!cursor.next()) return 1;
        }
        ::raise(SIGSTOP);
        while (cursor.next()) {
        }
        return cursor.status().error() == Error::kSnapshotExpired ? 0 : 2;
    });
}

TEST_F(ClientPhase, WaitingForAPage) {
    expect_no_harm(Where::kWaitsForPage, [this](const AttachOptions& options) {
        Store store = need(Store::attach(options, soon()));
        Reader reader = need(store.reader());
        const auto events = need(store.open<Event>(soon()));
        {
            const Snapshot snapshot = need(reader.snapshot(soon()));
            const auto row = events.get(snapshot, fresh_time(), 0u);
            if (row.error() != Error::kSnapshotExpired) return 1;
        }
        const auto row = need(events.get(reader, soon(), fresh_time(), 0u));
        return row && row->text == text_of(fresh_time()) ? 0 : 2;
    });
}

// Every kind of read, in front of its first missing page behind some that are there.
class EachReadPhase : public ClientPhase, public testing::WithParamInterface<std::size_t> {
  protected:
    void SetUp() override {
        begin([&](const Table<Event>& events) { Rounds{}.write(*store_, events, 1); });
        warm();
    }
    // Large values whose leaves are there and whose pages are not: of a copy of a peeked row, of
    // spans, and the first that scans backwards come to.
    static constexpr std::array<std::uint64_t, 3> kValuesInTheFile = {125, 146, kWindow - 1};
    static_assert(std::ranges::all_of(kValuesInTheFile, is_large));
    // What is read before: where scans begin, and some of what multi_get looks for. The rest, with
    // all that a get looks for, is in the file.
    static bool is_warm(std::uint64_t time) {
        for (const std::uint64_t large : kValuesInTheFile) {
            if (time == large) return false;
            if (time + 1 == large || time == large + 1) return true;
        }
        return time < 20 || (time >= 60 && time < 90) || (time >= 150 && time < 170) ||
               time > kWindow - 5;
    }
    void warm() {
        Reader reader = need(store_->reader());
        const auto events = need(store_->open<Event>(soon()));
        for (std::uint64_t time = 0; time < kWindow; ++time) {
            if (!is_warm(time)) continue;
            EXPECT_TRUE(need(events.get(reader, soon(), time, 0u)));
        }
    }
    // 0 when it gives the error, or else everything as it was written.
    int look(const Table<Event>& events, const Snapshot& snapshot, Error expected) const {
        Looks looks(events, snapshot, 1);
        const Error error = (looks.*Looks::kinds()[GetParam()].read)();
        if (error != expected) return static_cast<int>(error);
        return looks.wrong() ? 100 : 0;
    }
    // Prefetch waits for nothing: it is stopped behind it.
    bool only_asks() const {
        return std::string_view(Looks::kinds()[GetParam()].name) == "prefetch";
    }
    Where where() const { return only_asks() ? Where::kStopsItself : Where::kWaitsForPage; }
    int look_twice(const AttachOptions& options, Error first) const {
        Store store = need(Store::attach(options, soon()));
        Reader reader = need(store.reader());
        const auto events = need(store.open<Event>(soon()));
        {
            const Snapshot snapshot = need(reader.snapshot(soon()));
            if (only_asks()) {
                if (const int wrong = look(events, snapshot, Error::kOk); wrong != 0) return wrong;
                ::raise(SIGSTOP);
            }
            if (const int wrong = look(events, snapshot, first); wrong != 0) return wrong;
        }
        constexpr int kExpired = static_cast<int>(Error::kSnapshotExpired);
        int wrong = kExpired;
        for (const Deadline end = soon(); wrong == kExpired && Deadline::clock::now() < end;) {
            wrong = look(events, need(reader.snapshot(end)), Error::kOk);
        }
        return wrong;
    }
};

TEST_P(EachReadPhase, WaitingForAPage) {
    const Body body = [this](const AttachOptions& options) {
        return look_twice(options, Error::kSnapshotExpired);
    };
    expect_nothing_left_when_killed(where(), body);
    empty_the_pool();
    warm();
    expect_it_goes_on_when_continued(where(), body);
}

// With a lease that lasts. Everything goes out of the pool while it stands still: what it has
// looked up stays its own, or it looks it up once more.
class EachPatientReadPhase : public EachReadPhase {
  protected:
    EachPatientReadPhase() {
        daemon_.set("pool_bytes=" + std::to_string(kPoolBytes) + "B");
        lease_ = 1h;
    }
    static constexpr std::uint64_t kPoolBytes = 8u << 20;
};

TEST_P(EachPatientReadPhase, WaitingForAPage) {
    const auto fillers = make_table<Filler>(*store_);
    Process client = enter(
        where(), [this](const AttachOptions& options) { return look_twice(options, Error::kOk); });
    client.signal(SIGSTOP);
    EXPECT_TRUE(client.wait_until_stopped());
    const std::uint64_t evicted = counter(*store_, Counter::kEvictions);
    write_fillers(*store_, fillers, kPoolBytes);
    EXPECT_GT(counter(*store_, Counter::kEvictions), evicted);
    let_go();
    client.signal(SIGCONT);
    EXPECT_EQ(client.wait(), 0);
    EXPECT_EQ(counter(*store_, Counter::kRevokedSnapshots), 0u);
    expect_rest(*store_, daemon_);
}

std::string name_of(const testing::TestParamInfo<std::size_t>& each) {
    std::string name = Looks::kinds()[each.param].name;
    std::replace(name.begin(), name.end(), ' ', '_');
    return name;
}
const auto kEachRead = testing::Range(std::size_t{0}, Looks::kinds().size());
INSTANTIATE_TEST_SUITE_P(Reads, EachReadPhase, kEachRead, name_of);
INSTANTIATE_TEST_SUITE_P(Reads, EachPatientReadPhase, kEachRead, name_of);

// ---- writing ------------------------------------------------------------------------------------

// Half of the record is written; what is claimed behind it waits for it.
TEST_F(ClientPhase, RingClaimedAndNotCommitted) {
    holds_a_snapshot_ = false;
    const auto body = [](const AttachOptions& options) {
        Store store = need(Store::attach(options, soon()));
        const Transaction write = own_transaction(need(store.open<Counted>(soon())));
        const std::span<const std::byte> bytes = write.bytes();
        const auto connection = need(connect_to_daemon(options, {}, false, soon()));
        const Call first = *connection->claim_call();
        const Call second = *connection->claim_call();
        ClaimRequest request;
        request.payload_bytes = static_cast<std::uint32_t>(bytes.size());
        request.call_slot = first.slot;
        request.call_generation = first.generation;
        const RingClaim claim = connection->ring().try_claim(request);
        std::memcpy(claim.payload, bytes.data(), bytes.size() / 2);
        const bool posted = connection->post(RecordKind::kTransaction, bytes, second, 2, 0);
        ::raise(SIGSTOP);
        if (!claim || !posted || connection->answered(first) || connection->answered(second)) {
            return 1;
        }
        std::memcpy(claim.payload, bytes.data(), bytes.size());
        connection->ring().commit(claim);
        const Call third = *connection->claim_call();  // whose post() rings
        if (!connection->post(RecordKind::kTransaction, bytes, third, 3, 0)) return 2;
        for (const Call& call : {first, second, third}) {
            if (!eventually([&] { return connection->answered(call); })) return 3;
            if (connection->answer(call).error != Error::kOk) return 4;
        }
        return fill_the_ring(store);
    };
    for (std::int64_t applied = 0; applied < 6 && !HasFailure(); applied += 3) {
        expect_nothing_left_when_killed(Where::kStopsItself, body);
        EXPECT_EQ(times_applied(), applied);
        expect_it_goes_on_when_continued(Where::kStopsItself, body);
        EXPECT_EQ(times_applied(), applied + 3);
    }
}

class WritePhase : public ClientPhase {
  protected:
    // Body commits the client's transaction, and is stopped in it.
    void expect_whole_or_not_at_all(Where where, const Body& body) {
        holds_a_snapshot_ = false;
        expect_nothing_left_when_killed(where, body);
        const std::int64_t now = times_applied();
        EXPECT_TRUE(now == applied_ || now == applied_ + 1) << now - applied_ << " times";
        expect_it_goes_on_when_continued(where, body);
        EXPECT_EQ(times_applied(), now + 1);
        applied_ = now + 1;
    }
    std::int64_t applied_ = 0;
};

// The transaction is in a batch that is on its way to the log.
TEST_F(WritePhase, WaitingForACall) {
    const auto body = [](const AttachOptions& options) {
        Store store = need(Store::attach(options, soon()));
        const auto counted = need(store.open<Counted>(soon()));
        if (!store.commit(own_transaction(counted), soon()).ok()) return 1;
        return fill_the_ring(store);
    };
    for (int i = 0; i < 2 && !HasFailure(); ++i) {
        expect_whole_or_not_at_all(Where::kWaitsForLog, body);
    }
}

// The transaction is parked until a page that it needs has been read.
TEST_F(WritePhase, WaitingForACallThatNeedsAPage) {
    const auto body = [this](const AttachOptions& options) {
        Store store = need(Store::attach(options, soon()));
        const auto events = need(store.open<Event>(soon()));
        Transaction write = own_transaction(need(store.open<Counted>(soon())));
        write.update(events, events.key(fresh_time(), 0u), set<&Event::kind>(1));
        return store.commit(write, soon()).ok() ? fill_the_ring(store) : 1;
    };
    for (int i = 0; i < 2 && !HasFailure(); ++i) {
        expect_whole_or_not_at_all(Where::kWaitsForPage, body);
    }
}

}  // namespace
}  // namespace bidstore
