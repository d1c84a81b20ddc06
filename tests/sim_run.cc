// The simulation as a program: a range of seeds, or one. Exit code 1 when a seed fails, with the
// seed and the shortest run that still fails as its last line.
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "tests/sim_runner.h"

int main(int argc, char** argv) {
    bidstore::SimPlan plan;
    CLI::App app{"Engine, disk, clock and clients in one thread, by seed (tests/README.md)"};
    app.add_option("--seed", plan.first_seed, "the first seed")->capture_default_str();
    app.add_option("--seeds", plan.seeds, "how many; 0: as many as fit --seconds")
        ->capture_default_str();
    app.add_option("--seconds", plan.seconds, "stop after this time; 0: after all seeds")
        ->capture_default_str();
    app.add_option("--steps", plan.steps, "steps of a run; else 250, of every 49th seed 4,000");
    app.add_flag("--progress", plan.progress, "a line every ten seconds");
    bool no_shrink = false;
    app.add_flag("--no-shrink", no_shrink, "do not look for the shortest run that fails");
    CLI11_PARSE(app, argc, argv);
    if (plan.seeds == 0 && plan.seconds == 0) {
        std::fprintf(stderr, "sim_run: --seeds 0 needs --seconds\n");
        return 2;
    }
    plan.shrink = !no_shrink;
    // The buffers of a store come and go with its lives: the kernel would map and zero each anew.
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);

    const bidstore::SimResult result = bidstore::run_simulation(plan);
    std::printf("%s%llu seeds\n", result.counts.table().c_str(),
                static_cast<unsigned long long>(result.seeds));
    if (!result.failed) return 0;
    std::printf("seed %llu fails: %s\n", static_cast<unsigned long long>(result.seed),
                result.finding.c_str());
    std::printf("again%s: sim_run --seed %llu --steps %llu\n",
                result.shortest ? "" : " (not all shorter runs were tried)",
                static_cast<unsigned long long>(result.seed),
                static_cast<unsigned long long>(result.steps));
    return 1;
}
