// What a failing seed is said to be: the shortest of its runs that still fails, and it does.
#include "tests/sim_runner.h"

#include <gtest/gtest.h>

#include <csignal>

namespace bidstore {
namespace {

constexpr std::uint64_t kSeed = 3;

SimPlan dying_in_step(std::uint64_t last) {
    SimPlan plan;
    plan.first_seed = kSeed;
    plan.steps = 10;
    plan.on_step = [last](std::uint64_t begun) {
        if (begun == last) std::raise(SIGKILL);
    };
    return plan;
}

TEST(SimRunner, SaysTheShortestRunThatFails) {
    for (const std::uint64_t last : {1, 6}) {
        SimPlan plan = dying_in_step(last);
        const SimResult found = run_simulation(plan);
        EXPECT_TRUE(found.failed);
        EXPECT_EQ(found.seed, kSeed);
        EXPECT_EQ(found.steps, last);
        EXPECT_TRUE(found.shortest);
        EXPECT_NE(found.finding.find("(signal 9)"), std::string::npos) << found.finding;
        plan.shrink = false;
        plan.steps = found.steps;
        EXPECT_TRUE(run_simulation(plan).failed);
        plan.steps = found.steps - 1;
        EXPECT_FALSE(run_simulation(plan).failed);
    }
}

TEST(SimRunner, SaysThatShorterRunsWereNotLookedAt) {
    SimPlan plan = dying_in_step(6);
    plan.shrink = false;
    const SimResult found = run_simulation(plan);
    EXPECT_TRUE(found.failed);
    EXPECT_EQ(found.steps, 6u);
    EXPECT_FALSE(found.shortest);
}

}  // namespace
}  // namespace bidstore
