// What a reader costs that stands still with a snapshot in hand, and what it gets when it goes on.
//
// Writers put rounds over each other, and each byte says of which row and round it is: a frame that
// was used again under a reader shows.

#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/looks.h"
#include "tests/real_store.h"
#include "tests/seed.h"
#include "tests/shared_memory.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kPoolBytes = 16u << 20;
// Of more pages than the smallest pool has frames; 105 of its rows are put over.
constexpr std::uint64_t kSmallPoolBytes = 8u << 20;
constexpr Rounds kLargerThanThePool{40 * kWindow, 80};
// Of one that is over, on a host with much else to do.
constexpr int kLeasesMost = 10;

// ---- processes ----------------------------------------------------------------------------------

constexpr std::size_t kKindsMax = 24;

struct Shared {
    std::atomic<bool> stop{false};
    std::atomic<std::uint32_t> reused{0};  // of what was in hand
    std::array<std::atomic<std::uint64_t>, kKindsMax> right{};
    std::array<std::atomic<std::uint64_t>, kKindsMax> expired{};
};

int complain(const char* what) {
    ::dprintf(2, "the reader: %s\n", what);
    return 1;
}

// Each kind of read, under snapshots of its own, until each was right once.
int read_everything(const Table<Event>& events, Reader& reader) {
    for (const Looks::Kind& kind : Looks::kinds()) {
        for (Error error = Error::kSnapshotExpired; error == Error::kSnapshotExpired;) {
            const Snapshot snapshot = need(reader.snapshot(soon()));
            const auto round = Rounds::under(events, snapshot);
            if (!round) continue;
            Looks looks(events, snapshot, *round);
            error = (looks.*kind.read)();
            if (looks.wrong()) return complain(kind.name);
            if (error != Error::kOk && error != Error::kSnapshotExpired) return complain(kind.name);
        }
    }
    return 0;
}

// Views into the pool and what they showed.
struct InHand {
    std::vector<std::pair<std::string_view, std::string>> views;
    void take(std::string_view view) { views.emplace_back(view, view); }
    void take(const LargeValue& value) {
        for (const auto& span : value.spans()) {
            const void* at = span.data();
            take(std::string_view(static_cast<const char*>(at), span.size()));
        }
    }
};

// Stands still with rows, spans and cursors in hand, and says what it got afterwards.
int stop_with_all_in_hand(const AttachOptions& options, Shared& shared) {
    Store store = need(Store::attach(options, soon()));
    Reader reader = need(store.reader());
    const auto events = need(store.open<Event>(soon()));
    {
        const Snapshot snapshot = need(reader.snapshot(soon()));
        const auto round = Rounds::under(events, snapshot);
        if (!round) return complain("there is no round");
        Looks looks(events, snapshot, *round);
        InHand hand;
        for (std::uint64_t time = 0; time < kWindow; time += 8) {
            const auto row = need(events.peek(snapshot, time, 0u));
            if (is_large(time))
                hand.take(need(row->large<&Event::text>()));
            else
                hand.take(row->get<&Event::text>());
        }
        auto forwards = events.scan(snapshot);
        auto backwards = events.scan(snapshot, {}, {}, {.reverse = true});
        for (std::uint64_t i = 0; i < kWindow / 2; ++i) {
            if (!forwards.next() || !backwards.next()) return complain("a scan ends early");
        }
        if (!snapshot.valid()) return complain("it expired too soon");
        ::raise(SIGSTOP);

        for (const auto& [view, before] : hand.views) shared.reused += view != before;
        if (snapshot.valid()) return complain("valid() after its end");
        if (snapshot.status().error() != Error::kSnapshotExpired) return complain("status()");
        for (auto* cursor : {&forwards, &backwards}) {
            if (cursor->copy().error() != Error::kSnapshotExpired) return complain("Cursor::copy");
            while (cursor->next()) {
            }
            if (cursor->status().error() != Error::kSnapshotExpired) return complain("a cursor");
        }
        for (const Looks::Kind& kind : Looks::kinds()) {
            const Error error = (looks.*kind.read)();
            if (error != Error::kSnapshotExpired) return complain(kind.name);
        }
    }
    return read_everything(events, reader);
}

// Reads in all ways, and may be stopped anywhere.
int read_on(const AttachOptions& options, const Rounds& rounds, Shared& shared) {
    Store store = need(Store::attach(options, soon()));
    Reader reader = need(store.reader());
    const auto events = need(store.open<Event>(soon()));
    std::mt19937_64 random(static_cast<std::uint64_t>(::getpid()));
    while (!shared.stop) {
        const Snapshot snapshot = need(reader.snapshot(soon()));
        const auto round = Rounds::under(events, snapshot);
        if (!round) continue;
        for (Error error = Error::kOk; error == Error::kOk && !shared.stop;) {
            Looks looks(events, snapshot, *round, rounds, random() % (rounds.rows - kWindow + 1));
            const std::size_t at = random() % Looks::kinds().size();
            error = (looks.*Looks::kinds()[at].read)();
            if (looks.wrong()) return complain(Looks::kinds()[at].name);
            if (error == Error::kOk)
                ++shared.right[at];
            else if (error == Error::kSnapshotExpired)
                ++shared.expired[at];
            else
                return complain(Looks::kinds()[at].name);
            if (random() % 4 == 0) break;  // a snapshot of its own for the next ones
        }
    }
    return 0;
}

std::uint64_t sum(const std::array<std::atomic<std::uint64_t>, kKindsMax>& counts) {
    std::uint64_t all = 0;
    for (const auto& count : counts) all += count;
    return all;
}

class StoppedReader : public testing::Test {
  protected:
    void begin(const std::vector<std::string>& settings) {
        daemon_.set("pool_bytes=" + std::to_string(pool_bytes_) + "B");
        daemon_.set("log_segment_bytes=4MiB");
        daemon_.set("max_snapshot_age=" + std::to_string(lease_.count()) + "ms");
        for (const std::string& setting : settings) daemon_.set(setting);
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        events_.emplace(make_table<Event>(*store_));
        write_round();
    }
    void TearDown() override {
        if (HasFailure()) std::printf("the daemon says:\n%s\n", daemon_.log().c_str());
    }
    AttachOptions options() const { return {.socket = daemon_.socket()}; }

    void write_round() { rounds_.write(*store_, *events_, ++round_); }
    void take_every_frame() {
        if (!fillers_) fillers_.emplace(make_table<Filler>(*store_));
        write_fillers(*store_, *fillers_, pool_bytes_);
    }
    std::uint64_t count_of(Counter which) { return counter(*store_, which); }
    void expect_rest() {
        bidstore::expect_rest(*store_, daemon_);
        EXPECT_EQ(count_of(Counter::kCorruptPages), 0u);
    }

    // Two that read everything in all ways.
    void start_readers() {
        ASSERT_LE(Looks::kinds().size(), kKindsMax);
        for (int i = 0; i < 2; ++i) {
            readers_.push_back(
                Process::fork([&] { return read_on(options(), rounds_, *shared_); }));
        }
        for (std::size_t i = 0; i < Looks::kinds().size(); ++i) {
            ASSERT_TRUE(eventually([&] { return shared_->right[i] > 0; }))
                << Looks::kinds()[i].name;
        }
    }
    void stop_one_at_a_time(int times, const std::function<void(int turn)>& meanwhile) {
        const std::uint64_t seed = seed_of_chance();
        SCOPED_TRACE(seed_text(seed));
        std::mt19937_64 random(seed);
        for (int i = 0; i < times; ++i) {
            Process& reader = readers_[random() % readers_.size()];
            reader.signal(SIGSTOP);
            meanwhile(i);
            reader.signal(SIGCONT);
            std::this_thread::sleep_for(std::chrono::milliseconds(random() % 10));
        }
    }
    void write_until_one_is_revoked() {
        const std::uint64_t revoked = count_of(Counter::kRevokedSnapshots);
        // It had a snapshot at that moment, or it had not.
        eventually(
            [&] {
                write_round();
                return count_of(Counter::kRevokedSnapshots) > revoked;
            },
            2 * lease_);
        for (int more = 0; more < 3; ++more) write_round();
    }
    void end_readers() {
        const std::uint64_t right = sum(shared_->right);
        EXPECT_TRUE(eventually([&] { return sum(shared_->right) > right + 20; }));
        shared_->stop = true;
        for (Process& reader : readers_) EXPECT_EQ(reader.wait(), 0);
        expect_rest();
    }

    SharedMemory<Shared> shared_;
    RealDaemon daemon_;
    std::optional<Store> store_;
    std::optional<Table<Event>> events_;
    std::optional<Table<Filler>> fillers_;
    std::vector<Process> readers_;
    std::uint64_t pool_bytes_ = kPoolBytes;
    std::chrono::milliseconds lease_ = 1s;
    Rounds rounds_;
    std::uint32_t round_ = 0;
};

TEST_F(StoppedReader, GetsExpiredFromEveryKindOfReadAndNeverAWrongByte) {
    begin({});
    Process reader = Process::fork([&] { return stop_with_all_in_hand(options(), *shared_); });
    ASSERT_TRUE(reader.wait_until_stopped());
    EXPECT_TRUE(eventually(
        [&] {
            write_round();
            return count_of(Counter::kRevokedSnapshots) >= 1;
        },
        kLeasesMost * lease_))
        << "its lease goes on";
    for (int i = 0; i < 5; ++i) write_round();
    take_every_frame();
    EXPECT_TRUE(eventually([&] { return count_of(Counter::kHeldVersions) == 0; }))
        << "while it stands still";
    reader.signal(SIGCONT);
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_GT(shared_->reused, 10u) << "hardly anything that it had in hand was used again";
    expect_rest();
}

TEST_F(StoppedReader, SeesNoWrongByteWhereverItIsStopped) {
    lease_ = 100ms;
    begin({});
    ASSERT_NO_FATAL_FAILURE(start_readers());
    stop_one_at_a_time(25, [&](int) { write_until_one_is_revoked(); });
    EXPECT_GT(sum(shared_->expired), 5u);
    end_readers();
}

// Nearly all of their time they wait for pages, and the one that goes on takes the frames of the
// other. Some stand still until their lease is over; others find it as it was, with what they had
// looked up evicted, and something else in its frames.
TEST_F(StoppedReader, SeesNoWrongByteWhereverItIsStoppedWhenItsReadsMiss) {
    pool_bytes_ = kSmallPoolBytes;
    lease_ = 500ms;
    rounds_ = kLargerThanThePool;
    begin({});
    ASSERT_NO_FATAL_FAILURE(start_readers());
    const std::uint64_t evicted = count_of(Counter::kEvictions);
    stop_one_at_a_time(16, [&](int turn) {
        if (turn % 4 == 0) return write_until_one_is_revoked();
        write_round();
        take_every_frame();
    });
    EXPECT_GT(count_of(Counter::kEvictions), evicted + kSmallPoolBytes / kPageBytes);
    end_readers();
}

// Long before its lease is over.
TEST_F(StoppedReader, CostsTheOthersNoMoreThanItsBudget) {
    constexpr std::uint64_t kBudgetPages = (1u << 20) / kPageBytes;
    constexpr std::uint64_t kMore = 8'000;  // rows on about 2,000 leaves, all of which it sees
    lease_ = 1h;
    begin({"max_held_bytes=1MiB", "checkpoint_interval=1h"});
    std::uint64_t most = 0;
    std::uint64_t most_in_a_tick = 0;  // the count is as new as the engine's last look
    const auto overwrite = [&](std::uint32_t round, std::uint64_t rows,
                               std::chrono::milliseconds pause) {
        std::uint64_t before = most = most_in_a_tick = 0;
        for (std::uint64_t time = kWindow; time < kWindow + rows; time += 20) {
            Transaction write;
            for (std::uint64_t t = time; t < time + 20; ++t) {
                const std::string text = text_of(0, round);
                write.put(*events_, {.time = t, .source = 0, .kind = round, .text = text});
            }
            need(store_->commit(write, soon()));
            std::this_thread::sleep_for(pause);
            const std::uint64_t now = count_of(Counter::kHeldVersions);
            most = std::max(most, now);
            most_in_a_tick = std::max(most_in_a_tick, now - std::min(now, before));
            before = now;
            if (pause == 0ms) continue;
            EXPECT_TRUE(eventually([&] {
                return count_of(Counter::kHeldVersions) <= kBudgetPages;
            })) << "it is over its budget, and keeps its snapshot";
        }
    };
    const auto stopped_with_a_snapshot = [&] {
        Process reader = Process::fork([&] {
            Store store = need(Store::attach(options(), soon()));
            Reader its = need(store.reader());
            const Snapshot snapshot = need(its.snapshot(soon()));
            ::raise(SIGSTOP);
            return snapshot.valid() ? 1 : 0;
        });
        EXPECT_TRUE(reader.wait_until_stopped());
        return reader;
    };
    const auto expect_revoked = [&](Process& reader, std::uint64_t revoked) {
        EXPECT_TRUE(eventually([&] { return count_of(Counter::kHeldVersions) == 0; }));
        EXPECT_EQ(count_of(Counter::kRevokedSnapshots), revoked);
        reader.signal(SIGCONT);
        EXPECT_EQ(reader.wait(), 0);
    };
    overwrite(1, kMore, 0ms);
    EXPECT_TRUE(eventually([&] { return count_of(Counter::kHeldVersions) == 0; }));
    // The engine counts every hundredth of a second, and ends a snapshot some of these later. What
    // is written before the count shows comes on top: some transactions of six pages each.
    Process reader = stopped_with_a_snapshot();
    overwrite(2, kMore / 4, 12ms);
    EXPECT_GT(most, kBudgetPages / 2) << "it held nothing";
    EXPECT_LT(most, kBudgetPages + kBudgetPages / 4);
    expect_revoked(reader, 1);
    // Without a pause it is what this host can write between some of its looks.
    Process another = stopped_with_a_snapshot();
    overwrite(3, kMore, 0ms);
    std::printf("at most %llu pages were held, and up to %llu were written in a tick\n",
                static_cast<unsigned long long>(most),
                static_cast<unsigned long long>(most_in_a_tick));
    EXPECT_LE(most, 2 * kBudgetPages + 10 * most_in_a_tick);
    expect_revoked(another, 2);
    expect_rest();
}

}  // namespace
}  // namespace bidstore
