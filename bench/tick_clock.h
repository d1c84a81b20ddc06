// Time in ticks of the processor's counter: reading it costs a third of reading a clock, so every
// operation can be timed.
//
// Who: the benchmarks alone, any thread. The counter is the same on all cores (constant_tsc).
#pragma once

#include <x86intrin.h>

#include <chrono>
#include <cstdint>
#include <thread>

#include "bench/measure.h"

namespace bench {

inline std::uint64_t now_ticks() { return __rdtsc(); }

inline double measure_ns_per_tick() {
    const std::uint64_t ns = now_ns();
    const std::uint64_t ticks = now_ticks();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return static_cast<double>(now_ns() - ns) / static_cast<double>(now_ticks() - ticks);
}

}  // namespace bench
