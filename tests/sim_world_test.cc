// A seed is a run: the same to the byte, whatever ran before it in the process.
#include "tests/sim_world.h"

#include <gtest/gtest.h>

namespace bidstore {
namespace {

struct Told {
    std::string finding;
    std::string counts;
    std::uint64_t fingerprint = 0;
};

Told run(std::uint64_t seed, SimMemory* memory, std::uint64_t steps = SimWorld::steps_of(1)) {
    SimWorld world(seed, memory);
    Told told;
    told.finding = world.run(steps);
    told.counts = world.counts().table();
    told.fingerprint = world.fingerprint();
    return told;
}

TEST(SimWorld, SeedGivesTheSameBytesInFreshSegmentsAndInUsedOnes) {
    SimMemory used;
    run(77, &used);
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {  // one of each kind of faults
        const Told fresh = run(seed, nullptr);
        const Told again = run(seed, &used);
        EXPECT_EQ(fresh.finding, "") << "seed " << seed;
        EXPECT_EQ(again.finding, fresh.finding) << "seed " << seed;
        EXPECT_EQ(again.counts, fresh.counts) << "seed " << seed;
        EXPECT_EQ(again.fingerprint, fresh.fingerprint) << "seed " << seed;
    }
}

TEST(SimWorld, OtherSeedsAndStepsGiveOtherBytes) {
    EXPECT_NE(run(2, nullptr).fingerprint, run(12, nullptr).fingerprint);
    EXPECT_NE(run(2, nullptr).fingerprint, run(2, nullptr, 240).fingerprint);
}

}  // namespace
}  // namespace bidstore
