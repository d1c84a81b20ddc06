#include "engine/clock.h"

#include <ctime>

#include "shm/base.h"

namespace bidstore {

namespace {

std::uint64_t read_ns(clockid_t clock) {
    timespec time{};
    const int failed = ::clock_gettime(clock, &time);
    CHECK(failed == 0);  // these clocks exist on every Linux
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace

std::uint64_t HostClock::monotonic_ns() { return read_ns(CLOCK_MONOTONIC); }

std::uint64_t HostClock::thread_ns() { return read_ns(CLOCK_THREAD_CPUTIME_ID); }

std::uint64_t HostClock::wall_us() { return read_ns(CLOCK_REALTIME) / 1000; }

}  // namespace bidstore
