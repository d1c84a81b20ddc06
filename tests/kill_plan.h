// Where the lives of a kill campaign are to end: at each step of FailpointDisk, at each moment of
// it, in turn, and which of these were reached.
//
// Who:    the test alone.
// Order:  all of them in an order of chance, then all again, so that none is left to luck. One that
//         did not come in time is looked for nearer to the beginning of a life the next time, and
//         for longer.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/failpoint_disk.h"

namespace bidstore {

class KillPlan {
  public:
    explicit KillPlan(std::mt19937_64& random) : random_(random) {}

    Failpoint next();
    // How long a life that serves may go on before its failpoint is given up.
    std::chrono::milliseconds patience(const Failpoint& failpoint) const;
    void reached(const Failpoint& failpoint);
    void missed(const Failpoint& failpoint);

    std::size_t steps_reached() const;
    // A line for each step, with how often each of its moments was reached.
    std::string table() const;
    // What was not; empty: each step was reached at each moment.
    std::string never() const;

  private:
    struct Place {
        std::uint64_t times = 0;   // that it was reached
        std::uint64_t missed = 0;  // since it was reached
    };
    static constexpr std::size_t kSteps = kDiskStepNames.size();
    static constexpr std::size_t kMoments = kDiskMomentNames.size();

    static std::size_t place_of(const Failpoint& failpoint) {
        return static_cast<std::size_t>(failpoint.step) * kMoments +
               static_cast<std::size_t>(failpoint.moment);
    }

    std::mt19937_64& random_;
    std::array<Place, kSteps * kMoments> places_{};
    std::vector<Failpoint> left_;  // of this turn
};

}  // namespace bidstore
