// Latencies by their size: buckets that are 1/32 of their octave wide, so that a quantile is at
// most 3 % off, whatever it is. A plain array: it may lie in memory that processes share.
//
// Who: one thread adds; anybody reads afterwards.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace bench {

class Histogram {
  public:
    void add(std::uint64_t value) { ++counts_[bucket_of(value)]; }
    void add(const Histogram& other) {
        for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    }
    std::uint64_t count() const {
        std::uint64_t sum = 0;
        for (const std::uint64_t some : counts_) sum += some;
        return sum;
    }
    // The middle of the bucket below whose end `share` of all values lie; 0 when there are none.
    double quantile(double share) const {
        const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(count()));
        std::uint64_t below = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            below += counts_[i];
            if (below > wanted) return middle_of(i);
        }
        return 0;
    }

  private:
    static constexpr unsigned kSubBits = 5;
    static constexpr std::uint64_t kSub = 1u << kSubBits;
    static constexpr std::size_t kOctaves = 40;  // values of 2^44 and more share the last bucket

    static std::size_t bucket_of(std::uint64_t value) {
        if (value < kSub) return value;
        const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kSubBits;
        const std::size_t bucket = (shift + 1) * kSub + ((value >> shift) - kSub);
        return bucket < kOctaves * kSub ? bucket : kOctaves * kSub - 1;
    }
    static double middle_of(std::size_t bucket) {
        if (bucket < kSub) return static_cast<double>(bucket);
        const std::uint64_t shift = bucket / kSub - 1;
        const std::uint64_t low = (kSub + bucket % kSub) << shift;
        return static_cast<double>(low) + static_cast<double>(std::uint64_t{1} << shift) / 2;
    }

    std::array<std::uint64_t, kOctaves * kSub> counts_{};
};

}  // namespace bench
