// The time seam. The engine reads no other clock.
#pragma once

#include <cstdint>

namespace bidstore {

class Clock {
  public:
    virtual ~Clock() = default;
    // Never goes back; CLOCK_MONOTONIC on a real host, so clients may compare with their own.
    virtual std::uint64_t monotonic_ns() = 0;
    // What the calling thread has run for: no time in which others had its processor. Dear: a
    // system call.
    virtual std::uint64_t thread_ns() = 0;
    // Microseconds since the epoch, for batch times; may jump.
    virtual std::uint64_t wall_us() = 0;
};

// The host's clocks.
class HostClock final : public Clock {
  public:
    std::uint64_t monotonic_ns() override;
    std::uint64_t thread_ns() override;
    std::uint64_t wall_us() override;
};

}  // namespace bidstore
