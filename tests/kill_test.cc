// SIGKILL and SIGSTOP of clients at any moment: nothing acknowledged is lost, every write counts
// once, and the others go on. (Of the daemon: kill_campaign_test.cc; inside chosen phases:
// client_phase_test.cc; of readers: stopped_reader_test.cc.)
//
// Moments are random; the seed is part of a failure.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <thread>

#include "tests/real_store.h"
#include "tests/seed.h"
#include "tests/shared_memory.h"
#include "tests/undisturbed.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kShared = 1'000'000;  // id of the counter that all writers add to
constexpr int kKills = 8;
constexpr std::uint32_t kInFlight = 4;  // of a writer's writes: one waits, the rest fly

// Seen by the test and by what it forked.
struct Shared {
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> acknowledged{0};
    std::atomic<std::uint64_t> looks{0};
};

// The numbers of the writes that were acknowledged to one writer, kept outside of the store. Each
// is one write(2), so what is in it survives the writer, too.
class AckJournal {
  public:
    explicit AckJournal(const std::string& path)
        : descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {}
    void note(std::uint64_t number) const {
        if (::write(descriptor_.number(), &number, sizeof number) != sizeof number) ::abort();
    }
    static std::vector<std::uint64_t> read(const std::string& path) {
        const std::string bytes = read_whole_file(path);
        std::vector<std::uint64_t> numbers(bytes.size() / sizeof(std::uint64_t));
        std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(std::uint64_t));
        return numbers;
    }

  private:
    Descriptor descriptor_;
};

// The write with number n of a writer: a row of its own, its counter, and the one of all.
Transaction numbered_write(const Table<Counted>& counters, const Table<Event>& events,
                           std::uint32_t writer, std::uint64_t number) {
    Transaction transaction;
    const std::string text = "write " + std::to_string(number) + std::string(number % 200, '.');
    transaction.insert(events, {.time = number, .source = writer, .kind = 1, .text = text});
    transaction.add<&Counted::amount>(counters, counters.key(writer), 1, {.create = true});
    transaction.add<&Counted::amount>(counters, counters.key(kShared), 1, {.create = true});
    return transaction;
}

// Writes until told to stop; every write must be acknowledged in the end. Says why not.
std::string write_on(Store& store, Shared& shared, const std::string& journal_path,
                     std::uint32_t writer) {
    const AckJournal journal(journal_path);
    const auto counters = need(store.open<Counted>(soon()));
    const auto events = need(store.open<Event>(soon()));
    std::deque<std::pair<std::uint64_t, Pending>> flying;
    const auto settle = [&](std::size_t left) -> std::string {
        while (flying.size() > left) {
            const auto result = flying.front().second.wait(soon());
            if (!result.ok()) return result.failure().what;
            journal.note(flying.front().first);
            ++shared.acknowledged;
            flying.pop_front();
        }
        return "";
    };
    for (std::uint64_t number = 0; !shared.stop; ++number) {
        const Transaction write = numbered_write(counters, events, writer, number);
        auto pending = store.submit(write, soon());
        if (!pending.ok()) return pending.failure().what;
        flying.emplace_back(number, std::move(*pending));
        if (std::string why = settle(kInFlight); !why.empty()) return why;
    }
    return settle(0);
}

// A process with two writers on one store.
int writer_process(const std::string& socket, Shared& shared, const std::string& journals,
                   std::uint32_t first_writer) {
    Store store = need(Store::attach(
        {.socket = socket, .rights = Rights::kWriter, .wait_for_daemon = true}, soon()));
    std::array<std::string, 2> failures;
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] {
            const std::uint32_t writer = first_writer + i;
            failures[i] = write_on(store, shared, journals + std::to_string(writer), writer);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& failure : failures) {
        if (!failure.empty()) ::dprintf(2, "a writer gave up: %s\n", failure.c_str());
    }
    return failures[0].empty() && failures[1].empty() ? 0 : 1;
}

class Kill : public testing::Test {
  protected:
    Kill() : seed_(seed_of_chance()), random_(seed_), trace_(__FILE__, __LINE__, seed()) {}

    std::string seed() const { return seed_text(seed_); }
    std::chrono::milliseconds some_time(int least_ms, int most_ms) {
        return std::chrono::milliseconds(
            std::uniform_int_distribution<int>(least_ms, most_ms)(random_));
    }
    void begin(const std::vector<std::string>& settings) {
        for (const std::string& setting : settings) daemon_.set(setting);
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        make_table<Counted>(*store_);
        make_table<Event>(*store_);
    }
    std::string journals() const { return directory_.file("journal-"); }
    // The daemon's side of a failure.
    void TearDown() override {
        if (HasFailure()) std::printf("the daemon says:\n%s\n", daemon_.log().c_str());
    }
    // What the writers from `first` on, who are all that wrote, were told is there; what they were
    // not told is there whole or not at all, and the counter that they share has missed nobody.
    void expect_what_was_told(std::uint32_t first, std::uint32_t end) {
        const auto counters = need(store_->open<Counted>(soon()));
        const auto events = need(store_->open<Event>(soon()));
        Reader reader = need(store_->reader());
        const Snapshot snapshot = need(reader.snapshot(soon()));
        std::map<std::uint64_t, std::int64_t> rows;
        for (const auto& event : need(rows_between<Event>(snapshot, events, {}, {}))) {
            ++rows[event.source];
        }
        std::map<std::uint64_t, std::int64_t> counted;
        for (const Counted& row : need(rows_between<Counted>(
                 snapshot, counters, counters.prefix(first), counters.prefix(end)))) {
            counted[row.id] = row.amount;
        }
        std::int64_t all = 0;
        for (std::uint32_t writer = first; writer < end; ++writer) {
            all += counted[writer];
            EXPECT_EQ(rows[writer], counted[writer]) << "writer " << writer;
            const auto told = AckJournal::read(journals() + std::to_string(writer));
            EXPECT_LE(told.size(), static_cast<std::size_t>(counted[writer]))
                << "writer " << writer;
        }
        const auto shared = need(counters.get(snapshot, kShared));
        EXPECT_EQ(shared ? shared->amount : 0, all) << "the counter of all writers";
    }

    std::uint64_t seed_;
    std::mt19937_64 random_;
    testing::ScopedTrace trace_;
    WorkDirectory directory_;
    SharedMemory<Shared> shared_;
    RealDaemon daemon_;
    std::optional<Store> store_;
};

// ---- clients are killed -------------------------------------------------------------------------

// Sees all of one round in all rows, or nothing; a snapshot that expired does not count.
int read_on(const std::string& socket, Shared& shared) {
    Store store = need(Store::attach({.socket = socket}, soon()));
    Reader reader = need(store.reader());
    const auto counters = need(store.open<Counted>(soon()));
    while (!shared.stop) {
        auto snapshot = reader.snapshot(soon());
        if (!snapshot.ok()) return 2;
        const auto rows = rows_between<Counted>(*snapshot, counters, counters.prefix(0u),
                                                counters.prefix(kRoundRows));
        if (!rows.ok() && rows.error() == Error::kSnapshotExpired) continue;
        if (!rows.ok()) return 3;
        if (!snapshot->valid()) continue;
        for (const Counted& row : *rows) {
            if (row.round != rows->front().round) return 4;
            if (row.amount != static_cast<std::int64_t>(row.id + row.round)) return 5;
        }
        ++shared.looks;
    }
    return 0;
}

TEST_F(Kill, ClientsKilledWhileTheyWriteAndReadLeaveNothingBehind) {
    // Fewer places than clients that are killed: one that did not come back would be missed.
    begin({"max_clients=6"});
    {
        Undisturbed undisturbed(*store_);
        for (int round = 0; round < kKills; ++round) {
            SharedMemory<Shared> nobody_stops;
            Process writer = Process::fork([&] {
                return writer_process(daemon_.socket(), *nobody_stops, journals(),
                                      static_cast<std::uint32_t>(100 + 2 * round));
            });
            Process reader =
                Process::fork([&] { return read_on(daemon_.socket(), *nobody_stops); });
            ASSERT_TRUE(eventually(
                [&] { return nobody_stops->acknowledged > 0 && nobody_stops->looks > 0; }));
            std::this_thread::sleep_for(some_time(0, 100));
            EXPECT_TRUE(writer.running() && reader.running())
                << writer.wait(0ms).value_or(-1) << " " << reader.wait(0ms).value_or(-1);
            writer.kill();
            reader.kill();
            ASSERT_TRUE(eventually([&] { return counter(*store_, Counter::kClients) == 1; }));
        }
        EXPECT_GT(undisturbed.rounds(), 10u);
    }
    expect_rest(*store_, daemon_);
    expect_what_was_told(100, 100 + 2 * kKills);
}

// ---- clients are stopped ------------------------------------------------------------------------

TEST_F(Kill, StoppedWriterHoldsUpNobodyAndGoesOn) {
    begin({});
    Process writer =
        Process::fork([&] { return writer_process(daemon_.socket(), *shared_, journals(), 100); });
    ASSERT_TRUE(eventually([&] { return shared_->acknowledged > 10; }));
    for (int i = 0; i < 10; ++i) {
        writer.signal(SIGSTOP);
        Undisturbed undisturbed(*store_);
        EXPECT_TRUE(eventually([&] { return undisturbed.rounds() > 5; }));
        undisturbed.end();
        const std::uint64_t before = shared_->acknowledged;
        writer.signal(SIGCONT);
        ASSERT_TRUE(eventually([&] { return shared_->acknowledged > before + 10; }));
        std::this_thread::sleep_for(some_time(0, 5));
    }
    shared_->stop = true;
    EXPECT_EQ(writer.wait(), 0);
    expect_rest(*store_, daemon_);
    expect_what_was_told(100, 102);
}

}  // namespace
}  // namespace bidstore
