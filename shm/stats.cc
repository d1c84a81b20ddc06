#include "shm/stats.h"

#include <algorithm>

namespace bidstore {
namespace {

// Within a bucket values are taken to lie evenly.
std::uint64_t interpolate(std::uint32_t bucket, double part) {
    const std::uint64_t first = histogram_bucket_first(bucket);
    const std::uint64_t last = bucket + 1 < kHistogramBuckets
                                   ? std::max(first, histogram_bucket_first(bucket + 1) - 1)
                                   : ~std::uint64_t{0};
    const std::uint64_t width = last - first;
    const double offset = static_cast<double>(width) * part;
    return first + std::min(width, static_cast<std::uint64_t>(offset));
}

}  // namespace

std::uint64_t histogram_quantile(const Histogram& histogram, double share) {
    // Counted here: `count` is another word, and may be ahead of the buckets or behind them.
    std::array<std::uint64_t, kHistogramBuckets> buckets;
    std::uint64_t total = 0;
    for (std::uint32_t i = 0; i < kHistogramBuckets; ++i) {
        buckets[i] = histogram.bucket[i].load(std::memory_order_relaxed);
        total += buckets[i];
    }
    const double wanted = std::clamp(share, 0.0, 1.0) * static_cast<double>(total);
    double below = 0;
    std::uint64_t found = 0;
    for (std::uint32_t i = 0; i < kHistogramBuckets; ++i) {
        if (buckets[i] == 0) continue;
        const auto here = static_cast<double>(buckets[i]);
        found = interpolate(i, std::min(1.0, (wanted - below) / here));
        if (below + here >= wanted) break;
        below += here;
    }
    return found;
}

double histogram_mean(const Histogram& histogram) {
    const std::uint64_t count = histogram.count.load(std::memory_order_relaxed);
    if (count == 0) return 0;
    const std::uint64_t sum = histogram.sum.load(std::memory_order_relaxed);
    return static_cast<double>(sum) / static_cast<double>(count);
}

}  // namespace bidstore
