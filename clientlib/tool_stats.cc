#include "clientlib/tool_stats.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <thread>

#include "clientlib/import.h"
#include "clientlib/tool_output.h"
#include "shm/stats.h"

namespace bidstore {
namespace {

// What a daemon of a newer build counts beyond our names is left out.
std::uint32_t named_counters(const Stats& stats) {
    return std::min(stats.counter_count, static_cast<std::uint32_t>(kCounterNames.size()));
}
std::uint32_t named_histograms(const Stats& stats) {
    return std::min(stats.histogram_count, static_cast<std::uint32_t>(kHistogramNames.size()));
}

// Nanoseconds as people read them; other histograms are plain numbers.
std::string quantity(std::string_view name, double value) {
    std::array<char, 32> text{};
    if (!name.ends_with("_ns")) {
        std::snprintf(text.data(), text.size(), "%.1f", value);
    } else if (value < 1e3) {
        std::snprintf(text.data(), text.size(), "%.0f ns", value);
    } else if (value < 1e6) {
        std::snprintf(text.data(), text.size(), "%.1f us", value / 1e3);
    } else if (value < 1e9) {
        std::snprintf(text.data(), text.size(), "%.1f ms", value / 1e6);
    } else {
        std::snprintf(text.data(), text.size(), "%.2f s", value / 1e9);
    }
    return text.data();
}

double mean_of(const Stats::Histogram& histogram) {
    if (histogram.count == 0) return 0;
    return static_cast<double>(histogram.sum) / static_cast<double>(histogram.count);
}

std::string histogram_json(const Stats::Histogram& histogram) {
    const auto whole = [](double value) { return static_cast<std::uint64_t>(std::llround(value)); };
    JsonLine line;
    line.number("count", histogram.count).number("sum", histogram.sum);
    line.number("mean", whole(mean_of(histogram)));
    line.number("p50", whole(bucket_quantile(histogram.bucket, 0.5)));
    line.number("p99", whole(bucket_quantile(histogram.bucket, 0.99)));
    return line.str();
}

std::string stats_json(const Stats& stats) {
    JsonLine counters;
    for (std::uint32_t i = 0; i < named_counters(stats); ++i) {
        counters.number(kCounterNames[i].name, stats.counter[i]);
    }
    JsonLine histograms;
    for (std::uint32_t i = 0; i < named_histograms(stats); ++i) {
        histograms.raw(kHistogramNames[i], histogram_json(stats.histogram[i]));
    }
    JsonLine line;
    line.text("mode", mode_name(stats.mode)).number("visible_csn", stats.visible_csn);
    line.number("heartbeat_age_ns", stats.heartbeat_age_ns);
    line.raw("counters", counters.str()).raw("histograms", histograms.str());
    return line.str();
}

// Totals also as a rate, when there is an earlier look of the same daemon to compare with.
std::string counters_text(const Stats& stats, const Stats* earlier, double seconds) {
    TextTable text({"counter", ">value", earlier != nullptr ? ">per second" : "", "meaning"});
    for (std::uint32_t i = 0; i < named_counters(stats); ++i) {
        const CounterName& name = kCounterNames[i];
        std::string rate;
        if (earlier != nullptr && name.kind == CounterKind::kTotal && seconds > 0) {
            const auto more = static_cast<double>(stats.counter[i] - earlier->counter[i]);
            rate = grouped(static_cast<std::uint64_t>(std::llround(more / seconds)));
        }
        text.add({std::string(name.name), grouped(stats.counter[i]), rate,
                  std::string(name.help)});
    }
    return text.str(true);
}

std::string histograms_text(const Stats& stats) {
    TextTable text({"distribution", ">count", ">mean", ">p50", ">p99"});
    for (std::uint32_t i = 0; i < named_histograms(stats); ++i) {
        const Stats::Histogram& histogram = stats.histogram[i];
        const std::string_view name = kHistogramNames[i];
        text.add({std::string(name), grouped(histogram.count), quantity(name, mean_of(histogram)),
                  quantity(name, bucket_quantile(histogram.bucket, 0.5)),
                  quantity(name, bucket_quantile(histogram.bucket, 0.99))});
    }
    return text.str(true);
}

void print_stats(const ToolOptions& options, const Stats& stats, const Stats* earlier,
                 double seconds) {
    if (options.json) {
        std::printf("%s\n", stats_json(stats).c_str());
    } else {
        std::printf("mode %s, csn %s, engine seen %s ago\n\n%s\n%s",
                    std::string(mode_name(stats.mode)).c_str(), grouped(stats.visible_csn).c_str(),
                    quantity("_ns", static_cast<double>(stats.heartbeat_age_ns)).c_str(),
                    counters_text(stats, earlier, seconds).c_str(),
                    histograms_text(stats).c_str());
    }
    std::fflush(stdout);
}

}  // namespace

std::string_view mode_name(EngineMode mode) {
    switch (mode) {
        case EngineMode::kStarting: return "starting";
        case EngineMode::kServing: return "serving";
        case EngineMode::kReadOnly: return "read-only";
        case EngineMode::kStopping: return "stopping";
        case EngineMode::kFenced: return "fenced";
    }
    return "unknown";
}

double bucket_quantile(std::span<const std::uint64_t> buckets, double share) {
    std::uint64_t count = 0;
    for (const std::uint64_t bucket : buckets) count += bucket;
    if (count == 0) return 0;
    const double wanted = share * static_cast<double>(count);
    double below = 0;
    for (std::uint32_t i = 0; i < buckets.size(); ++i) {
        const auto here = static_cast<double>(buckets[i]);
        if (here > 0 && below + here >= wanted) {
            const auto first = static_cast<double>(histogram_bucket_first(i));
            const auto last = i + 1 < buckets.size()
                                  ? static_cast<double>(histogram_bucket_first(i + 1))
                                  : first * 1.25;
            return first + (last - first) * (wanted - below) / here;
        }
        below += here;
    }
    return 0;
}

int show_stats(const ToolOptions& options, double watch_seconds) {
    auto store = options.attach(Rights::kReader);
    if (!store) return options.fail(store.failure());
    auto stats = store->stats(options.deadline());
    if (!stats) return options.fail(stats.failure());
    print_stats(options, *stats, nullptr, 0);
    auto seen = std::chrono::steady_clock::now();
    while (watch_seconds > 0 && std::ferror(stdout) == 0) {
        std::this_thread::sleep_for(std::chrono::duration<double>(watch_seconds));
        auto next = store->stats(options.deadline());
        if (!next) return options.fail(next.failure());
        const auto now = std::chrono::steady_clock::now();
        // A daemon that was started again counts from zero.
        const bool same = next->instance_id == stats->instance_id;
        if (!options.json) std::printf("\n");
        print_stats(options, *next, same ? &*stats : nullptr,
                    std::chrono::duration<double>(now - seen).count());
        stats = next;
        seen = now;
    }
    return kExitOk;
}

}  // namespace bidstore
