#include "shm/stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace bidstore {
namespace {

TEST(Stats, NamesAreUniqueWords) {
    std::set<std::string_view> names;
    for (const CounterName& each : kCounterNames) {
        EXPECT_TRUE(names.insert(each.name).second) << each.name;
        EXPECT_FALSE(each.help.empty()) << each.name;
        for (char letter : each.name) {
            EXPECT_TRUE((letter >= 'a' && letter <= 'z') || letter == '_') << each.name;
        }
    }
    for (std::string_view name : kHistogramNames) EXPECT_TRUE(names.insert(name).second) << name;
}

TEST(Stats, CountersAreAddedToSubtractedFromAndSet) {
    auto page = std::make_unique<StatsPage>();
    StatsWriter writer{*page};
    writer.add(Counter::kBatches);
    writer.add(Counter::kBatches, 41);
    writer.set(Counter::kFrames, 5);
    writer.subtract(Counter::kFrames, 2);
    EXPECT_EQ(counter_value(*page, Counter::kBatches), 42u);
    EXPECT_EQ(counter_value(*page, Counter::kFrames), 3u);
    EXPECT_EQ(counter_value(*page, Counter::kLogBytes), 0u);
}

#ifndef NDEBUG
// Two threads wrote clients and clients_dropped, so that a client that was cut off counted twice.
TEST(StatsDeathTest, ACounterHasOneWriter) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    auto page = std::make_unique<StatsPage>();
    StatsWriter engine{*page};
    StatsWriter server{*page, StatsThread::kServer};
    server.add(Counter::kClientsDropped);
    engine.add(Counter::kBatches);
    EXPECT_EQ(counter_value(*page, Counter::kClientsDropped), 1u);
    EXPECT_DEATH(engine.add(Counter::kClientsDropped), "writer");
    EXPECT_DEATH(engine.set(Counter::kClients, 1), "writer");
    EXPECT_DEATH(server.add(Counter::kBatches), "writer");
}
#endif

TEST(Stats, EveryValueLiesInItsBucket) {
    const auto check = [](std::uint64_t value) {
        const std::uint32_t bucket = histogram_bucket(value);
        ASSERT_LT(bucket, kHistogramBuckets);
        EXPECT_LE(histogram_bucket_first(bucket), value);
        if (bucket + 1 < kHistogramBuckets && value >= 4) {
            EXPECT_LT(value, histogram_bucket_first(bucket + 1));
        }
    };
    for (std::uint64_t value = 0; value < 5000; ++value) check(value);
    for (int power = 2; power < 64; ++power) {
        const std::uint64_t value = std::uint64_t{1} << power;
        for (std::uint64_t each : {value - 1, value, value + 1, value + value / 4,
                                   value + value / 4 - 1, value + value / 2}) {
            check(each);
        }
    }
    check(~std::uint64_t{0});
}

TEST(Stats, BucketsRiseWithTheirValues) {
    for (std::uint32_t bucket = 1; bucket < kHistogramBuckets; ++bucket) {
        EXPECT_GE(histogram_bucket_first(bucket), histogram_bucket_first(bucket - 1)) << bucket;
    }
    for (std::uint64_t value = 1; value < 100'000; ++value) {
        EXPECT_GE(histogram_bucket(value), histogram_bucket(value - 1)) << value;
    }
}

TEST(Stats, QuantileOfNothingIsZero) {
    auto page = std::make_unique<StatsPage>();
    EXPECT_EQ(histogram_quantile(page->histogram[0], 0.5), 0u);
    EXPECT_EQ(histogram_mean(page->histogram[0]), 0.0);
}

TEST(Stats, QuantileIsCloseToThatOfTheValues) {
    auto page = std::make_unique<StatsPage>();
    StatsWriter writer{*page};
    std::mt19937_64 random{1};
    std::lognormal_distribution<double> latency{11.0, 1.0};
    std::vector<std::uint64_t> values;
    for (int i = 0; i < 100'000; ++i) {
        values.push_back(static_cast<std::uint64_t>(latency(random)));
        writer.record(HistogramKind::kCommitNs, values.back());
    }
    std::sort(values.begin(), values.end());
    const Histogram& histogram = histogram_of(*page, HistogramKind::kCommitNs);
    EXPECT_EQ(histogram.count.load(), values.size());
    for (double share : {0.01, 0.1, 0.5, 0.9, 0.99, 0.999}) {
        const auto exact = static_cast<double>(
            values[static_cast<std::size_t>(share * static_cast<double>(values.size()))]);
        const auto found = static_cast<double>(histogram_quantile(histogram, share));
        EXPECT_NEAR(found, exact, exact * 0.13) << share;
    }
}

TEST(Stats, QuantileOfOneValueIsWithinItsBucket) {
    for (std::uint64_t value : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3},
                                std::uint64_t{1000}, ~std::uint64_t{0}}) {
        auto page = std::make_unique<StatsPage>();
        StatsWriter{*page}.record(HistogramKind::kPageReadNs, value);
        const Histogram& histogram = histogram_of(*page, HistogramKind::kPageReadNs);
        for (double share : {-1.0, 0.0, 0.5, 1.0, 2.0}) {
            const std::uint64_t found = histogram_quantile(histogram, share);
            EXPECT_EQ(histogram_bucket(found), histogram_bucket(value)) << value << " " << share;
        }
    }
}

TEST(Stats, BatchTransactionsCanBeReadAsAMean) {
    auto page = std::make_unique<StatsPage>();
    StatsWriter writer{*page};
    for (std::uint64_t size : {1, 2, 9}) writer.record(HistogramKind::kBatchTransactions, size);
    EXPECT_DOUBLE_EQ(histogram_mean(histogram_of(*page, HistogramKind::kBatchTransactions)), 4.0);
}

}  // namespace
}  // namespace bidstore
