// A real daemon, two honest clients that check every answer, a third that attaches again and again,
// and beside them clients that mean harm (tests/hostile_client.h): the daemon lives, no answer is
// wrong, the honest ones go on, and who broke a rule was dropped, with a reason.
//
// BIDSTORE_HOSTILE=SECONDS goes on for longer than some seconds; BIDSTORE_HOSTILE_SEED=N repeats
// what the hostile ones of seed N do. A failure names the seed, and what was done last. A run
// of a minute or longer fails, too, when one of the harms was not done; a shorter one says which.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <sstream>
#include <thread>

#include "tests/honest_client.h"
#include "tests/hostile_client.h"
#include "tests/shared_memory.h"

namespace bidstore {

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kHostileProcesses = 2;
constexpr auto kCampaign = 60s;  // or longer

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Seen by the test and by the processes that it forked.
struct Shared {
    std::atomic<bool> harm{false};
    std::atomic<bool> stop{false};
    HostileClient::Deeds deeds;
    std::atomic<std::uint64_t> lives[kHostileProcesses]{};
};

class Hostile : public testing::Test {
  protected:
    Hostile()
        : seed_(from_environment("BIDSTORE_HOSTILE_SEED", std::random_device{}())),
          trace_(__FILE__, __LINE__, "BIDSTORE_HOSTILE_SEED=" + std::to_string(seed_)) {}

    void begin() {
        for (const char* setting : kSettingsForHarm) daemon_.set(setting);
        daemon_.set("writers=[\"nobody\"]");
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        target_ = make_store_for_harm(daemon_, *store_);
        for (std::uint64_t i = 0; i < 2; ++i) {
            honest_.push_back(std::make_unique<HonestClient>(daemon_, i, seed_ + i, progress_[i]));
        }
        target_.session = honest_[0]->session();
    }
    // Before this process has threads.
    void fork_hostile() {
        for (std::uint32_t i = 0; i < kHostileProcesses; ++i) {
            hostile_.push_back(Process::fork([this, i] {
                if (target_.other_user && !become(kNobody)) return 2;
                eventually([this] { return shared_->harm || shared_->stop; }, kPatience);
                HostileClient client(target_, seed_ + i, shared_->deeds);
                for (std::uint64_t life = 0; !shared_->stop; shared_->lives[i] = ++life) {
                    const std::string wrong = client.live(life);
                    if (wrong.empty()) continue;
                    ::dprintf(2, "what the daemon did: %s\n", wrong.c_str());
                    return 1;
                }
                return 0;
            }));
        }
    }
    // The names of the harms that nobody came to do.
    std::string not_done() const {
        std::string names;
        for (const HostileClient::Harm& harm : HostileClient::harms()) {
            if (shared_->deeds.of(harm) == 0) names += std::string("\n    ") + harm.name;
        }
        return names;
    }
    bool each_harm_was_done() const {
        const std::uint64_t all = HostileClient::harms().size();
        return not_done().empty() &&
               std::all_of(std::begin(shared_->lives), std::end(shared_->lives),
                           [&](const auto& lives) { return lives >= all; });
    }
    // Goes on for so long, and fails when an honest client does not. A slow host does not come
    // through all harms in that time, and says so (expect_harm).
    void watch(std::chrono::milliseconds length) {
        const auto began = Clock::now();
        std::vector<std::uint64_t> seen(progress_.size(), 0);
        std::vector<Clock::time_point> moved(progress_.size(), Clock::now());
        const auto goes_on = [&] {
            const auto passed = Clock::now() - began;
            const bool all_seen = !shared_->harm || each_harm_was_done();
            return passed < length || (!all_seen && passed < kPatience);
        };
        while (goes_on() && !HasFailure()) {
            std::this_thread::sleep_for(20ms);
            ASSERT_TRUE(daemon_.running());
            for (Process& process : hostile_) ASSERT_TRUE(process.running());
            for (std::size_t i = 0; i < progress_.size(); ++i) {
                const bool moves = progress_[i].rounds.load() !=
                                   std::exchange(seen[i], progress_[i].rounds.load());
                if (moves) moved[i] = Clock::now();
                const auto still = Clock::now() - moved[i];
                ASSERT_LT(still, kSilenceMax) << "honest client " << i;
                if (still <= longest_) continue;
                longest_ = still;
                beside_ = last_lives();
            }
        }
    }
    // Attaches anew until told to stop. All places may be taken for a while, by those who may have
    // them, and where harm is done the daemon may be late.
    void come_again(const std::atomic<bool>& stop) {
        while (!stop) {
            const auto began = Clock::now();
            const auto attached = [&] { return try_attach(daemon_, Rights::kReader).ok(); };
            if (eventually([&] { return stop || attached(); })) {
                progress_[2].round(Clock::now() - began);
            }
        }
    }
    // A campaign has the time for each of them, on any host.
    void expect_harm(std::chrono::seconds length) const {
        if (HasFailure()) return;  // it ended early
        const std::string names = not_done();
        if (!names.empty()) std::printf("harms that nobody came to do:%s\n", names.c_str());
        EXPECT_TRUE(names.empty() || length < kCampaign) << "in a campaign:" << names;
    }
    std::uint64_t rounds() const { return progress_[0].rounds + progress_[1].rounds; }
    void report(std::uint64_t alone, std::uint64_t beside) const {
        const auto longest = std::chrono::duration_cast<std::chrono::milliseconds>(longest_);
        std::printf(
            "seed %llu; honest rounds a second: %llu alone, %llu beside the hostile ones, "
            "the longest of %lld ms beside; %llu times attached\n%s",
            static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(alone),
            static_cast<unsigned long long>(beside), static_cast<long long>(longest.count()),
            static_cast<unsigned long long>(progress_[2].rounds), beside_.c_str());
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
    std::array<Progress, 3> progress_;  // the last of who attaches anew
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
    threads.emplace_back([&] { come_again(stop); });
    constexpr auto kAlone = 1s;
    const std::chrono::seconds length(from_environment("BIDSTORE_HOSTILE", 5));
    watch(kAlone);
    const std::uint64_t alone = rounds();
    shared_->harm = true;
    const auto harmed = Clock::now();
    watch(length);
    const std::chrono::duration<double> seconds = Clock::now() - harmed;
    const auto beside = static_cast<double>(rounds() - alone);
    expect_harm(length);
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
    EXPECT_TRUE(rests(Counter::kSessions, 3)) << counter(*store_, Counter::kSessions);
    EXPECT_TRUE(rests(Counter::kTablesDropping, 0)) << counter(*store_, Counter::kTablesDropping);
    EXPECT_TRUE(every_frame_is_accounted_for(daemon_));
    EXPECT_GT(counter(*store_, Counter::kHostileEvents), 5u);
    EXPECT_GT(counter(*store_, Counter::kClientsDropped), 5u);
    EXPECT_GT(counter(*store_, Counter::kClientsRefused), 5u);
    EXPECT_TRUE(daemon_.logged(") cut off: ")) << daemon_.log();
    report(alone, static_cast<std::uint64_t>(beside / seconds.count()));
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
