#include "tests/sim_runner.h"

#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "tests/shared_memory.h"

namespace bidstore {
namespace {

using Clock = std::chrono::steady_clock;
// A seed takes a fraction of a second, a long one some. Other processes may leave little of a
// processor to this one, so its own time counts; the clock is for one that waits.
constexpr int kHangSeconds = 120;
constexpr int kHangSecondsOfClock = 600;
constexpr std::chrono::minutes kShrinkMax{5};

// What parent and child share: the child may die at any moment.
struct Shared {
    std::uint64_t seed;
    std::uint64_t steps;  // begun: a run of so many fails
    std::uint64_t seeds;
    SimCounts counts;
    char finding[2048];
};

// While one lives a process that hangs is ended by SIGPROF or SIGALRM.
class HangWatch {
  public:
    HangWatch() { set(kHangSeconds, kHangSecondsOfClock); }
    ~HangWatch() { set(0, 0); }
    HangWatch(const HangWatch&) = delete;
    HangWatch& operator=(const HangWatch&) = delete;

  private:
    static void set(int seconds, int seconds_of_clock) {
        const itimerval own{.it_interval = {}, .it_value = {.tv_sec = seconds, .tv_usec = 0}};
        const itimerval all{.it_interval = {},
                            .it_value = {.tv_sec = seconds_of_clock, .tv_usec = 0}};
        CHECK(::setitimer(ITIMER_PROF, &own, nullptr) == 0);
        CHECK(::setitimer(ITIMER_REAL, &all, nullptr) == 0);
    }
};

void run_seed(SharedMemory<Shared>& shared, SimMemory& memory, std::uint64_t seed,
              std::uint64_t steps, const SimWorld::OnStep& on_step) {
    const HangWatch watch;
    shared->seed = seed;
    shared->steps = 0;
    SimWorld world(seed, &memory);
    const std::string finding = world.run(steps, [&](std::uint64_t begun) {
        shared->steps = begun;
        if (on_step) on_step(begun);
    });
    ++shared->seeds;
    shared->counts.add(world.counts());
    if (finding.empty()) return;
    const std::string text = finding + " (" + world.describe() + ")";
    std::snprintf(shared->finding, sizeof shared->finding, "%s", text.c_str());
}

// True when it failed; the page says how.
bool in_child(SharedMemory<Shared>& shared, bool quiet, const auto& work) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (quiet && std::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(3);
        work();
        std::fflush(nullptr);
        ::_exit(shared->finding[0] != 0 ? 1 : 0);
    }
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return false;
    if (shared->finding[0] != 0) return true;
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    const bool hung = signal == SIGPROF || signal == SIGALRM;
    std::snprintf(shared->finding, sizeof shared->finding, "%s (signal %d)",
                  hung ? "it hangs" : "it died, of a broken rule said above", signal);
    return true;
}

bool fails(const SimPlan& plan, std::uint64_t seed, std::uint64_t steps, std::string& finding) {
    SharedMemory<Shared> shared;
    const bool failed = in_child(shared, true, [&] {
        SimMemory memory;
        run_seed(shared, memory, seed, steps, plan.on_step);
    });
    if (failed) finding = shared->finding;
    return failed;
}

// From short to long: the shortest that fails, not just a shorter one. Of a long run not all are
// tried.
void shrink(const SimPlan& plan, SimResult& result) {
    const Clock::time_point end = Clock::now() + kShrinkMax;
    std::string finding;
    for (std::uint64_t steps = 0; steps < result.steps; ++steps) {
        if (Clock::now() > end) return;
        if (!fails(plan, result.seed, steps, finding)) continue;
        result.steps = steps;
        result.finding = finding;
        break;
    }
    result.shortest = true;
}

void run_seeds(SharedMemory<Shared>& shared, const SimPlan& plan) {
    const Clock::time_point began = Clock::now();
    Clock::time_point told = began;
    SimMemory memory;
    const std::uint64_t first = plan.first_seed + shared->seeds;
    for (std::uint64_t seed = first; plan.seeds == 0 || seed < plan.first_seed + plan.seeds;
         ++seed) {
        const auto now = Clock::now();
        if (plan.seconds != 0 && now - began > std::chrono::seconds(plan.seconds)) return;
        if (plan.progress && now - told > std::chrono::seconds(10)) {
            told = now;
            const double seconds = std::chrono::duration<double>(now - began).count();
            std::printf("%llu seeds in %.0f s, the next is %llu\n",
                        static_cast<unsigned long long>(shared->seeds), seconds,
                        static_cast<unsigned long long>(seed));
            std::fflush(stdout);
        }
        run_seed(shared, memory, seed, plan.steps.value_or(SimWorld::steps_of(seed)),
                 plan.on_step);
        if (shared->finding[0] != 0) return;
    }
}

}  // namespace

SimResult run_simulation(const SimPlan& plan) {
    SharedMemory<Shared> shared;
    SimResult result;
    result.failed = in_child(shared, false, [&] { run_seeds(shared, plan); });
    result.seeds = shared->seeds;
    result.counts = shared->counts;
    if (!result.failed) return result;
    result.seed = shared->seed;
    result.steps = shared->steps;
    result.finding = shared->finding;
    if (plan.shrink) {
        std::printf("seed %llu fails with %llu steps, and is looked at for fewer\n",
                    static_cast<unsigned long long>(result.seed),
                    static_cast<unsigned long long>(result.steps));
        std::fflush(stdout);
        shrink(plan, result);
    }
    return result;
}

}  // namespace bidstore
