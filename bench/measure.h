// What the benchmarks measure with: clocks, numbers at random, medians and quantiles.
//
// Who: the benchmarks alone. A failure ends the program with its message.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace bench {

[[noreturn]] inline void fail(const std::string& what) {
    std::fprintf(stderr, "bench: %s\n", what.c_str());
    std::exit(EXIT_FAILURE);
}

inline std::uint64_t now_ns() {
    return static_cast<std::uint64_t>(
        std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

// By the wall clock, as bidders stamp their rows.
inline std::uint64_t now_us() {
    const auto since = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::microseconds(std::chrono::duration_cast<std::chrono::microseconds>(since))
            .count());
}

// xorshift: a nanosecond a number, and the same numbers in each run.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
    std::uint64_t below(std::uint64_t bound) {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return (state_ >> 11) % bound;
    }

  private:
    std::uint64_t state_;
};

// Of an even number the mean of the two in the middle.
inline double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    if (values.size() % 2 == 1) return values[middle];
    return (values[middle - 1] + values[middle]) / 2;
}

// The value below which `share` of the samples lie, in µs. Sorts them.
inline double quantile_us(std::vector<std::uint32_t>& samples_ns, double share) {
    if (samples_ns.empty()) return 0;
    std::sort(samples_ns.begin(), samples_ns.end());
    const auto last = static_cast<double>(samples_ns.size() - 1);
    return samples_ns[static_cast<std::size_t>(share * last)] / 1e3;
}

}  // namespace bench
