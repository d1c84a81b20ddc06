// What each harm costs the others, and what the daemon says of who does it: a client that means
// harm in one way alone (tests/hostile_client.h), and an honest one beside it that checks each
// answer. It is compared with the same beside a process that means no harm and uses as much of a
// processor.
//
// BIDSTORE_HOSTILE_SEED=N repeats what the hostile ones of seed N do.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <regex>
#include <sstream>
#include <thread>

#include "tests/honest_client.h"
#include "tests/hostile_client.h"
#include "tests/shared_memory.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Harm = HostileClient::Harm;

constexpr auto kPause = 2s;  // that a round may take (tests/README.md)
// Windows beside the hostile process, each with one beside the other process next to it, since the
// machine may have other work to do: that changes both alike. The median of the pairs counts, so
// that neither one good window nor one bad one decides; where it says no, longer windows are added
// to those that there are.
constexpr int kPairs = 5;
constexpr int kSeries = 3;
constexpr auto kWindow = 100ms;  // twice as long in each further series
constexpr int kPausesMax = 1;    // windows with a longer one than kPause
// A window without the harm that shows fewer rounds has nothing to compare with: where processor or
// device stand still for a while, it and its pair say nothing, and are repeated.
constexpr std::uint64_t kRounds = 20;
constexpr Clock::duration kLongest = 3s;  // of a window that waits for them
constexpr int kRepeats = 10;
constexpr int kMoreLives = 40;  // of a harm that is noticed by chance
// What anyone may be told who connects again and again where much goes on.
constexpr auto kOfABusyHost =
    "refused: (max_clients|the engine is busy|no hello came in time)|not welcomed: ";
constexpr uid_t kFirstUser = 61'000;  // each harm has a user: the log has so many lines for each

// Seen by the test and by the processes that it forked.
struct Shared {
    Progress honest;
    HostileClient::Deeds deeds;
    std::array<std::uint8_t, 16> session{};
    std::atomic<bool> attached{false};
    std::atomic<bool> stop{false};  // the honest client
    std::atomic<bool> began{false};
    std::atomic<bool> over{false};
    std::atomic<double> share{0};  // of a processor that the process used
};

double seconds(const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

// Used by this process and its children so far, in seconds.
double processor_time() {
    double sum = 0;
    for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
        rusage used{};
        ::getrusage(who, &used);
        sum += seconds(used.ru_utime) + seconds(used.ru_stime);
    }
    return sum;
}

double since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

Clock::duration duration(double seconds) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// What an honest client came to in some windows.
struct Measured {
    double rounds = 0;
    double seconds = 0;
    std::chrono::nanoseconds longest{0};
    double rate() const { return rounds / seconds; }
    Clock::duration length() const { return duration(seconds); }
    void add(const Measured& other) {
        rounds += other.rounds;
        seconds += other.seconds;
        longest = std::max(longest, other.longest);
    }
};

class HostileShare : public testing::Test {
  protected:
    HostileShare()
        : seed_([] {
              const char* text = std::getenv("BIDSTORE_HOSTILE_SEED");
              return text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
          }()),
          trace_(__FILE__, __LINE__, "BIDSTORE_HOSTILE_SEED=" + std::to_string(seed_)) {}

    void begin() {
        for (const char* setting : kSettingsForHarm) daemon_.set(setting);
        std::string users;
        for (std::size_t i = 0; i < HostileClient::harms().size(); ++i) {
            users += (i == 0 ? "" : ", ") + std::to_string(kFirstUser + i);
        }
        daemon_.set("writers=[" + users + "]");
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        target_ = make_store_for_harm(daemon_, *store_);
        honest_ = Process::fork([this] {
            HonestClient client(daemon_, 0, seed_, shared_->honest);
            shared_->session = client.session();
            shared_->attached = true;
            const std::string wrong = client.run(shared_->stop);
            if (wrong.empty()) return 0;
            ::dprintf(2, "the honest client: %s\n", wrong.c_str());
            return 1;
        });
        if (!eventually([&] { return shared_->attached.load(); })) {
            throw std::runtime_error("no honest client");
        }
        target_.session = shared_->session;
    }

    // A process that does so until the window is over, and tells which share of a processor it
    // took.
    Process beside(const std::function<std::string()>& again, std::optional<uid_t> user) {
        shared_->began = false;
        shared_->over = false;
        return Process::fork([this, &again, user] {
            if (user && !become(*user)) return 2;
            const double before = processor_time();
            const auto begin = Clock::now();
            shared_->began = true;
            std::string wrong;
            while (!shared_->over && wrong.empty()) wrong = again();
            shared_->share = (processor_time() - before) / since(begin);
            if (wrong.empty()) return 0;
            ::dprintf(2, "what the daemon did: %s\n", wrong.c_str());
            return 1;
        });
    }
    Process harm_of(std::size_t number) {
        const Harm& harm = HostileClient::harms()[number];
        const auto client =
            std::make_shared<HostileClient>(target_, seed_ + number, shared_->deeds);
        const auto again = [this, client, &harm] { return client->live(life_of_process_++, harm); };
        life_of_process_ = 1000 * ++processes_;
        return beside(again, static_cast<uid_t>(kFirstUser + number));
    }
    Process harmless(double share) {
        const auto begin = Clock::now();
        const double before = processor_time();
        return beside(
            [=] {
                if (processor_time() - before >= share * since(begin)) {
                    std::this_thread::sleep_for(100us);
                }
                return std::string();
            },
            std::nullopt);
    }
    // One window: what the honest client comes to while the process is at work, until the first
    // round that began when it was not any more. It goes on until there are so many rounds, within
    // bounds.
    void measure(Process process, Clock::duration length, std::uint64_t rounds,
                 Measured& measured) {
        ASSERT_TRUE(eventually([&] { return shared_->began.load(); }));
        shared_->honest.longest_ns = 0;
        const auto begin = Clock::now();
        const std::uint64_t before = shared_->honest.rounds;
        std::this_thread::sleep_for(length);
        while (shared_->honest.rounds < before + rounds && Clock::now() < begin + kLongest) {
            std::this_thread::sleep_for(1ms);
        }
        shared_->over = true;
        EXPECT_EQ(process.wait(), 0);
        const std::uint64_t after = shared_->honest.rounds;
        measured.seconds += since(begin);
        measured.rounds += static_cast<double>(after - before);
        EXPECT_TRUE(eventually([&] { return shared_->honest.rounds > after; }))
            << "the honest client stands still";
        const std::chrono::nanoseconds longest(shared_->honest.longest_ns.load());
        measured.longest = std::max(measured.longest, longest);
        ASSERT_TRUE(daemon_.running());
        ASSERT_TRUE(honest_.running());
    }
    void measure_harm(std::size_t number, Clock::duration length, Measured& measured) {
        measure(harm_of(number), length, 0, measured);
    }
    void measure_in_its_place(Clock::duration length, Measured& measured) {
        measure(harmless(shared_->share), length, kRounds, measured);
    }
    void expect_share(std::size_t number) {
        const double share = HostileClient::harms()[number].share;
        std::vector<double> shares;
        Measured harmed;  // of all windows
        Measured control;
        int pauses = 0;
        int repeats = 0;
        Clock::duration needed{0};  // for so many rounds
        for (int series = 0; series < kSeries && !HasFailure(); ++series) {
            for (int pair = 0; pair < kPairs && !HasFailure(); ++pair) {
                Measured beside_harm;
                Measured in_its_place;
                const auto length = std::max<Clock::duration>(kWindow * (1 << series), needed);
                // In turns which comes first, so that what grows or fades favours neither.
                const bool harm_first = pair % 2 == 0;
                if (!harm_first) measure_in_its_place(length, in_its_place);
                measure_harm(number, std::max(length, in_its_place.length()), beside_harm);
                // A pause may be the machine's own, if the honest client meets one in either
                // window: for as long it is given the chance to.
                const bool paused = beside_harm.longest > kPause;
                if (harm_first || paused) {
                    measure_in_its_place(paused ? beside_harm.length() : length, in_its_place);
                }
                harmed.add(beside_harm);
                control.add(in_its_place);
                if (in_its_place.rounds < kRounds) {
                    ASSERT_LE(++repeats, kRepeats) << "without the harm there are too few rounds";
                    --pair;
                    continue;
                }
                needed = std::min(duration(kRounds / in_its_place.rate()), kLongest);
                pauses += paused && in_its_place.longest <= kPause;
                shares.push_back(beside_harm.rate() / in_its_place.rate());
            }
            if (median(shares) >= share) break;
        }
        std::printf(
            "%-26s %6.0f rounds a second, %6.0f in its place, median of %zu shares %4.2f; "
            "longest %4.0f ms, %4.0f; done %llu times\n",
            HostileClient::harms()[number].name, harmed.rate(), control.rate(), shares.size(),
            median(shares), ms(harmed.longest), ms(control.longest),
            static_cast<unsigned long long>(shared_->deeds.of(HostileClient::harms()[number])));
        EXPECT_GE(median(shares), share);
        EXPECT_LE(pauses, kPausesMax) << "of " << shares.size() << " windows";
    }
    static double median(std::vector<double> values) {
        if (values.empty()) return 0;
        const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
        std::nth_element(values.begin(), middle, values.end());
        return *middle;
    }
    static double ms(Clock::duration time) {
        return std::chrono::duration<double, std::milli>(time).count();
    }
    std::uint64_t value(Counter which) { return counter(*store_, which); }
    // What the log says of the harm's user.
    std::vector<std::string> lines_of(std::size_t number) const {
        const std::string user = "(user " + std::to_string(kFirstUser + number) + ") ";
        std::vector<std::string> lines;
        std::istringstream log(daemon_.log());
        for (std::string line; std::getline(log, line);) {
            if (const auto at = line.find(user); at != std::string::npos) {
                lines.push_back(line.substr(at + user.size()));
            }
        }
        return lines;
    }

    bool log_says(std::size_t number, const char* reason) const {
        const std::vector<std::string> lines = lines_of(number);
        return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
            return std::regex_search(line, std::regex(reason));
        });
    }

    std::uint64_t seed_;
    testing::ScopedTrace trace_;
    SharedMemory<Shared> shared_;
    RealDaemon daemon_;
    HostileTarget target_;
    std::optional<Store> store_;
    Process honest_;
    std::uint64_t processes_ = 0;
    std::uint64_t life_of_process_ = 0;
};

TEST_F(HostileShare, EachHarmIsAnsweredAndLeavesTheOthersTheirPart) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to be another user for each harm";
    begin();
    for (std::size_t i = 0; i < HostileClient::harms().size() && !HasFailure(); ++i) {
        const Harm& harm = HostileClient::harms()[i];
        SCOPED_TRACE(harm.name);
        const std::uint64_t before = harm.counter ? value(*harm.counter) : 0;
        expect_share(i);
        const auto noticed = [&] {
            return !harm.counter || (value(*harm.counter) > before &&
                                     (harm.reason == nullptr || log_says(i, harm.reason)));
        };
        // Whoever never was let in leaves the others all that they had.
        const auto done = [&] { return shared_->deeds.of(harm) > 0; };
        Measured unused;
        for (int more = 0; more < kMoreLives && !(noticed() && done()); ++more) {
            measure_harm(i, kWindow, unused);
        }
        EXPECT_TRUE(noticed()) << "counted: " << value(*harm.counter) - before;
        EXPECT_TRUE(done()) << "it never came to do its harm";
        for (const std::string& line : lines_of(i)) {
            if (std::regex_search(line, std::regex(kOfABusyHost))) continue;
            EXPECT_TRUE(harm.reason != nullptr && std::regex_search(line, std::regex(harm.reason)))
                << "the log says: " << line;
        }
    }
    shared_->stop = true;
    EXPECT_EQ(honest_.wait(), 0);
}

}  // namespace
}  // namespace bidstore
