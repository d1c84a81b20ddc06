// Time that moves only when it is told to, so that a run depends on its seed alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/clock.h"

namespace bidstore {

class SimClock final : public Clock {
  public:
    static constexpr std::uint64_t kBeginUs = 1'700'000'000'000'000;

    explicit SimClock(std::uint64_t start_ns = 1'000'000'000) : now_ns_(start_ns) {}

    std::uint64_t monotonic_ns() override { return now_ns_; }
    std::uint64_t thread_ns() override { return now_ns_ - put_aside_ns_; }
    std::uint64_t wall_us() override { return wall_us_; }

    void advance_ns(std::uint64_t by_ns) {
        now_ns_ += by_ns;
        wall_rest_ns_ += by_ns;
        wall_us_ += wall_rest_ns_ / 1000;
        wall_rest_ns_ %= 1000;
        wall_most_us_ = std::max(wall_most_us_, wall_us_);
    }
    // The one thread there is did not run for so long.
    void put_aside_ns(std::uint64_t by_ns) {
        advance_ns(by_ns);
        put_aside_ns_ += by_ns;
    }
    // The wall clock may jump, in both directions.
    void set_wall_us(std::uint64_t wall_us) {
        wall_us_ = wall_us;
        wall_most_us_ = std::max(wall_most_us_, wall_us_);
    }
    // What it showed at most, ever.
    std::uint64_t wall_most_us() const { return wall_most_us_; }

  private:
    std::uint64_t now_ns_;
    std::uint64_t put_aside_ns_ = 0;
    std::uint64_t wall_us_ = kBeginUs;
    std::uint64_t wall_most_us_ = kBeginUs;
    std::uint64_t wall_rest_ns_ = 0;
};

}  // namespace bidstore
