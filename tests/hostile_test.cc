// A real daemon, two honest clients that check every answer, and beside them clients that mean harm
// (tests/hostile_client.h): the daemon lives, no answer is wrong, the honest ones go on, and who
// broke a rule was dropped, with a reason.
//
// BIDSTORE_HOSTILE=SECONDS goes on for longer than some seconds; BIDSTORE_HOSTILE_SEED=N repeats
// what the hostile ones of seed N do. A failure names the seed, and what was done last.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <sstream>
#include <thread>

#include "tests/hostile_client.h"
#include "tests/real_store.h"
#include "tests/shared_memory.h"

namespace bidstore {

// What the hostile ones may write.
struct Prey {
    std::uint64_t id = 0;
    std::int64_t n = 0;
    std::string_view t;
};

template <>
struct Describe<Prey> {
    static constexpr auto table =
        bidstore::table<Prey>("prey", keys(column<&Prey::id>("id")),
                              values(column<&Prey::n>("n"), column<&Prey::t>("t")));
};

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kHostileProcesses = 2;
constexpr std::uint64_t kFillers = 12'000;  // more of them than the pool has room for
constexpr std::uint64_t kRowsOfOne = 64;    // of the counted table, to each honest client
constexpr auto kSilenceMax = kPatience;     // of an honest client, on however busy a machine

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::string filler_text(std::uint64_t number) {
    return std::string(600 + number % 200, static_cast<char>('a' + number % 26));
}

// Seen by the test and by the processes that it forked.
struct Shared {
    std::atomic<bool> harm{false};
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> lives[kHostileProcesses]{};
};

// Moves amounts between rows of its own, so that their sum stays 0 in every snapshot, remembers
// what it was answered, and reads it back; and reads rows that nobody changes.
class HonestClient {
  public:
    HonestClient(const RealDaemon& daemon, std::uint64_t number, std::uint64_t seed)
        : store_(attach(daemon, Rights::kWriter)),
          reader_(need(store_.reader())),
          counted_(need(store_.open<Counted>(soon()))),
          events_(need(store_.open<Event>(soon()))),
          first_(number * kRowsOfOne),
          random_(seed) {}

    // Until told to stop. What was wrong; empty when nothing was.
    std::string run(const std::atomic<bool>& stop) {
        while (!stop && wrong_.empty()) {
            write();
            if (wrong_.empty()) read_own();
            if (wrong_.empty()) read_all();
            ++rounds_;
        }
        if (store_.reconnects() != 0) wrong_ += "; it lost its connection";
        return wrong_;
    }
    std::uint64_t rounds() const { return rounds_; }
    std::array<std::uint8_t, 16> session() const { return store_.session_id(); }

  private:
    template <class Result>
    bool holds(const Result& result, const char* what) {
        if (!result.ok()) wrong_ = std::string(what) + ": " + result.failure().what;
        return result.ok();
    }
    void expect(bool right, const std::string& what) {
        if (!right) wrong_ = what;
    }
    std::uint64_t any_row() { return first_ + random_() % kRowsOfOne; }

    void write() {
        const std::uint64_t from = any_row();
        const std::uint64_t to = any_row();
        const auto amount = static_cast<std::int64_t>(random_() % 1000);
        Transaction move;
        move.add<&Counted::amount>(counted_, counted_.key(from), -amount, {.create = true});
        move.add<&Counted::amount>(counted_, counted_.key(to), amount, {.create = true});
        if (!holds(store_.commit(move, in(kSilenceMax)), "write")) return;
        amounts_[from] -= amount;
        amounts_[to] += amount;
    }
    void read_own() {
        const std::uint64_t id = any_row();
        const auto row = counted_.get(reader_, in(kSilenceMax), id);
        if (!holds(row, "read")) return;
        const std::int64_t amount = *row ? (*row)->amount : 0;
        const auto known = amounts_.find(id);
        expect(amount == (known == amounts_.end() ? 0 : known->second),
               "a row of its own is not what it wrote last");
        const std::uint64_t number = random_() % kFillers;
        const auto filler = events_.get(reader_, in(kSilenceMax), number, 0u);
        if (!holds(filler, "read of a row that nobody changes")) return;
        expect(filler->has_value(), "a row that nobody changes is gone");
        if (*filler) expect((*filler)->text == filler_text(number), "nobody changes that row");
    }
    void read_all() {
        const auto rows = read_once(reader_, in(kSilenceMax), [&](const Snapshot& snapshot) {
            return rows_between<Counted>(snapshot, counted_, {}, {});
        });
        if (!holds(rows, "scan")) return;
        std::int64_t sum = 0;
        for (const auto& row : *rows) sum += row.amount;
        expect(sum == 0, "a snapshot with a part of a transaction");
    }

    Store store_;
    Reader reader_;
    Table<Counted> counted_;
    Table<Event> events_;
    std::uint64_t first_;
    std::mt19937_64 random_;
    std::map<std::uint64_t, std::int64_t> amounts_;
    std::string wrong_;
    std::atomic<std::uint64_t> rounds_{0};
};

class Hostile : public testing::Test {
  protected:
    Hostile()
        : seed_(from_environment("BIDSTORE_HOSTILE_SEED", std::random_device{}())),
          trace_(__FILE__, __LINE__, "BIDSTORE_HOSTILE_SEED=" + std::to_string(seed_)) {}

    void begin() {
        for (const char* setting :
             {"pool_bytes=8MiB", "max_clients=12", "handshake_timeout=300ms",
              "socket_mode=\"0666\"", "writers=[\"nobody\"]", "readers=[\"nobody\"]"}) {
            daemon_.set(setting);
        }
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        const auto events = make_table<Event>(*store_);
        const auto counted = make_table<Counted>(*store_);
        const auto prey = make_table<Prey>(*store_);
        for (std::uint64_t number = 0; number < kFillers;) {
            Transaction fill;
            std::vector<std::string> texts;
            for (int i = 0; i < 40; ++i) texts.push_back(filler_text(number + texts.size()));
            for (const std::string& text : texts) {
                fill.put(events, {.time = number++, .source = 0, .kind = 0, .text = text});
            }
            need(store_->commit(fill, soon()));
        }
        target_.socket = daemon_.socket();
        target_.own = prey.raw().id();
        target_.spared = {events.raw().id().value, counted.raw().id().value};
        target_.other_user = ::geteuid() == 0;
        for (std::uint64_t i = 0; i < 2; ++i) {
            honest_.push_back(std::make_unique<HonestClient>(daemon_, i, seed_ + i));
        }
        target_.session = honest_[0]->session();
    }
    // Before this process has threads.
    void fork_hostile() {
        for (std::uint32_t i = 0; i < kHostileProcesses; ++i) {
            hostile_.push_back(Process::fork([this, i] {
                if (target_.other_user && !become(kNobody)) return 2;
                eventually([this] { return shared_->harm || shared_->stop; }, kPatience);
                HostileClient client(target_, seed_ + i);
                for (std::uint64_t life = 0; !shared_->stop; shared_->lives[i] = ++life) {
                    const std::string wrong = client.live(life);
                    if (wrong.empty()) continue;
                    ::dprintf(2, "the daemon allowed: %s\n", wrong.c_str());
                    return 1;
                }
                return 0;
            }));
        }
    }
    // Goes on for so long, and fails when an honest client does not.
    void watch(std::chrono::milliseconds length) {
        const auto end = Clock::now() + length;
        std::vector<std::uint64_t> seen(honest_.size(), 0);
        std::vector<Clock::time_point> moved(honest_.size(), Clock::now());
        while (Clock::now() < end && !HasFailure()) {
            std::this_thread::sleep_for(20ms);
            ASSERT_TRUE(daemon_.running());
            for (Process& process : hostile_) ASSERT_TRUE(process.running());
            for (std::size_t i = 0; i < honest_.size(); ++i) {
                const bool moves =
                    honest_[i]->rounds() != std::exchange(seen[i], honest_[i]->rounds());
                if (moves) moved[i] = Clock::now();
                const auto still = Clock::now() - moved[i];
                ASSERT_LT(still, kSilenceMax) << "honest client " << i;
                if (still <= longest_) continue;
                longest_ = still;
                beside_ = last_lives();
            }
        }
    }
    std::uint64_t rounds() const { return honest_[0]->rounds() + honest_[1]->rounds(); }
    void report(std::uint64_t alone, std::uint64_t beside) const {
        const auto longest = std::chrono::duration_cast<std::chrono::milliseconds>(longest_);
        std::printf(
            "seed %llu; honest rounds a second: %llu alone, %llu beside the hostile ones, "
            "the longest of %lld ms beside\n%s",
            static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(alone),
            static_cast<unsigned long long>(beside), static_cast<long long>(longest.count()),
            beside_.c_str());
    }
    std::string last_lives() const {
        std::ostringstream text;
        for (std::uint32_t i = 0; i < kHostileProcesses; ++i) {
            const std::uint64_t life = shared_->lives[i];
            text << "hostile process " << i << " in life " << life << ": "
                 << HostileClient::name_of(seed_ + i, life) << "\n";
        }
        return text.str();
    }
    void TearDown() override {
        if (!HasFailure()) return;
        const std::string log = daemon_.log();
        std::printf("%sthe daemon says:\n%s\n", last_lives().c_str(),
                    log.substr(log.size() - std::min<std::size_t>(log.size(), 12'000)).c_str());
    }

    Clock::duration longest_{};  // that an honest client stood still, and what was done then
    std::string beside_;
    std::uint64_t seed_;
    testing::ScopedTrace trace_;
    SharedMemory<Shared> shared_;
    RealDaemon daemon_;
    HostileTarget target_;
    std::optional<Store> store_;
    std::vector<std::unique_ptr<HonestClient>> honest_;
    std::vector<Process> hostile_;
};

TEST_F(Hostile, ClientsHarmNobodyButThemselves) {
    begin();
    fork_hostile();
    std::atomic<bool> stop{false};
    std::array<std::string, 2> wrong;
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] { wrong[i] = honest_[i]->run(stop); });
    }
    constexpr auto kAlone = 1s;
    const std::chrono::seconds length(from_environment("BIDSTORE_HOSTILE", 8));
    watch(kAlone);
    const std::uint64_t alone = rounds();
    shared_->harm = true;
    watch(length);
    const std::uint64_t beside = rounds() - alone;
    shared_->stop = true;
    for (Process& process : hostile_) EXPECT_EQ(process.wait(), 0);
    stop = true;
    for (std::thread& thread : threads) thread.join();
    for (const std::string& what : wrong) EXPECT_EQ(what, "");
    if (HasFailure()) return;

    // Each of them is gone without a trace, and it was told why.
    const auto rests = [&](Counter which, std::uint64_t value) {
        return eventually([&] { return counter(*store_, which) == value; });
    };
    EXPECT_TRUE(rests(Counter::kClients, 3)) << counter(*store_, Counter::kClients);
    EXPECT_TRUE(rests(Counter::kHeldVersions, 0)) << counter(*store_, Counter::kHeldVersions);
    EXPECT_TRUE(rests(Counter::kParkedTransactions, 0));
    EXPECT_GT(counter(*store_, Counter::kHostileEvents), 5u);
    EXPECT_GT(counter(*store_, Counter::kClientsDropped), 5u);
    EXPECT_GT(counter(*store_, Counter::kClientsRefused), 5u);
    EXPECT_TRUE(daemon_.logged(") cut off: ")) << daemon_.log();
    report(alone, beside / static_cast<std::uint64_t>(length.count()));
    honest_.clear();
    store_.reset();
    EXPECT_EQ(daemon_.stop(), 0);
    std::vector<std::string> verify = daemon_.command();
    verify.push_back("--verify");
    const Finished verified = run_to_end(verify);
    EXPECT_EQ(verified.status, 0) << verified.output;
}

}  // namespace
}  // namespace bidstore
