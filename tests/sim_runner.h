// Runs seeds of the simulation, each in a process that may die of it, and finds the shortest run
// that still fails.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tests/sim_world.h"

namespace bidstore {

struct SimPlan {
    std::uint64_t first_seed = 1;
    std::uint64_t seeds = 1;  // 0: until `seconds` are over
    std::optional<std::uint64_t> steps;  // of a run, instead of what the seed says
    SimWorld::OnStep on_step;  // of the tests of this: called in the process of the run
    std::uint64_t seconds = 0;  // 0: all seeds, however long it takes
    bool shrink = true;
    bool progress = false;  // a line every ten seconds
};

struct SimResult {
    std::uint64_t seeds = 0;
    SimCounts counts;
    bool failed = false;
    std::uint64_t seed = 0;   // that failed
    std::uint64_t steps = 0;  // of a run that fails
    bool shortest = false;    // all shorter ones were tried, and hold
    std::string finding;
};

SimResult run_simulation(const SimPlan& plan);

}  // namespace bidstore
