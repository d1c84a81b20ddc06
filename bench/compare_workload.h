// The workloads by name: what an operation is, and of which row.
//
// Who: each thread of a run has a Chooser of its own; the numbers are the same in each run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>

#include "bench/measure.h"
#include "bench/rows.h"

namespace bench {

enum class Operation {
    kGet,
    kMultiGet,
    kScanNewest,  // the newest kScanRows rows of an entity
    kScanFrom,    // 1 to 100 rows from a row on
    kInsert,      // a row at the head of time
    kUpdate,      // another value for a row
    kReadModifyWrite,
    kAdd,
};

enum class Choice {
    kUniform,
    kRecent,  // 87 % uniform over the newest five minutes, 13 % over everything
    kZipf,    // YCSB's: exponent 0.99, popular rows spread over all
    kLatest,  // YCSB's: the same, by age
};

// Percentages of its operations; what is left of 100 is `rest`.
struct Workload {
    std::string_view name;
    Choice choice;
    unsigned gets;
    unsigned scans;
    Operation scan;
    Operation rest;
};

inline constexpr Workload kWorkloads[] = {
    {"mix", Choice::kRecent, 80, 15, Operation::kScanNewest, Operation::kInsert},
    {"get", Choice::kUniform, 100, 0, Operation::kScanNewest, Operation::kGet},
    {"multiget", Choice::kUniform, 0, 0, Operation::kScanNewest, Operation::kMultiGet},
    {"scan", Choice::kUniform, 0, 100, Operation::kScanNewest, Operation::kScanNewest},
    {"write", Choice::kUniform, 0, 0, Operation::kScanNewest, Operation::kInsert},
    {"count", Choice::kUniform, 0, 0, Operation::kScanNewest, Operation::kAdd},
    {"ycsb-a", Choice::kZipf, 50, 0, Operation::kScanFrom, Operation::kUpdate},
    {"ycsb-b", Choice::kZipf, 95, 0, Operation::kScanFrom, Operation::kUpdate},
    {"ycsb-c", Choice::kZipf, 100, 0, Operation::kScanFrom, Operation::kGet},
    {"ycsb-d", Choice::kLatest, 95, 0, Operation::kScanFrom, Operation::kInsert},
    {"ycsb-e", Choice::kZipf, 0, 95, Operation::kScanFrom, Operation::kInsert},
    {"ycsb-f", Choice::kZipf, 50, 0, Operation::kScanFrom, Operation::kReadModifyWrite},
};

// Whether it has such operations.
inline bool has_gets(const Workload& workload) {
    return workload.gets > 0 || workload.rest == Operation::kGet ||
           workload.rest == Operation::kMultiGet;
}
inline bool has_scans(const Workload& workload) { return workload.scans > 0; }
inline bool has_writes(const Workload& workload) {
    return workload.rest == Operation::kInsert || workload.rest == Operation::kUpdate ||
           workload.rest == Operation::kReadModifyWrite || workload.rest == Operation::kAdd;
}

inline const Workload* find_workload(std::string_view name) {
    for (const Workload& workload : kWorkloads) {
        if (workload.name == name) return &workload;
    }
    return nullptr;
}

// Ranks below `count`, 0 the most frequent: Gray et al., "Quickly generating billion-record
// synthetic databases". The sum of the series beyond its first terms is taken as an integral.
class Zipf {
  public:
    explicit Zipf(std::uint64_t count) : count_(static_cast<double>(count)) {
        zeta_ = zeta(count);
        eta_ = (1 - std::pow(2 / count_, 1 - kExponent)) / (1 - zeta(2) / zeta_);
    }
    std::uint64_t rank(Random& random) const {
        const double u = static_cast<double>(random.below(1ull << 52)) / (1ull << 52);
        const double scaled = u * zeta_;
        if (scaled < 1) return 0;
        if (scaled < 1 + std::pow(0.5, kExponent)) return 1;
        const double rank = count_ * std::pow(eta_ * u - eta_ + 1, 1 / (1 - kExponent));
        return std::min(static_cast<std::uint64_t>(rank), static_cast<std::uint64_t>(count_) - 1);
    }

  private:
    static constexpr double kExponent = 0.99;
    static double zeta(std::uint64_t count) {
        const std::uint64_t terms = std::min<std::uint64_t>(count, 100'000);
        double sum = 0;
        for (std::uint64_t i = 1; i <= terms; ++i) {
            sum += std::pow(static_cast<double>(i), -kExponent);
        }
        const auto power = [](std::uint64_t at) {
            return std::pow(static_cast<double>(at) + 0.5, 1 - kExponent) / (1 - kExponent);
        };
        return sum + power(count) - power(terms);
    }
    double count_;
    double zeta_;
    double eta_;
};

class Chooser {
  public:
    Chooser(const Workload& workload, const Shape& shape, std::uint64_t seed)
        : workload_(workload), shape_(shape), random_(seed) {
        const bool zipf = workload.choice == Choice::kZipf || workload.choice == Choice::kLatest;
        if (zipf) zipf_.emplace(shape.rows);
    }

    Operation operation() {
        const std::uint64_t die = random_.below(100);
        if (die < workload_.gets) return Operation::kGet;
        if (die < workload_.gets + workload_.scans) return workload_.scan;
        return workload_.rest;
    }

    // The number of a row that is there when `head` rows are.
    std::uint64_t row(std::uint64_t head) {
        switch (workload_.choice) {
            case Choice::kUniform:
                return random_.below(head);
            case Choice::kRecent: {
                const bool recent = random_.below(100) < 87;
                return head - 1 - random_.below(recent ? shape_.five_minutes() : head);
            }
            case Choice::kLatest:
                return head - 1 - zipf_->rank(random_);
            case Choice::kZipf:
                break;
        }
        return mixed(zipf_->rank(random_)) % shape_.rows;
    }

    std::uint64_t entity() { return random_.below(shape_.entity_count); }
    std::uint64_t below(std::uint64_t bound) { return random_.below(bound); }

  private:
    static std::uint64_t mixed(std::uint64_t number) {
        number = (number ^ (number >> 31)) * 0x9e3779b97f4a7c15;
        return number ^ (number >> 29);
    }
    const Workload& workload_;
    const Shape& shape_;
    Random random_;
    std::optional<Zipf> zipf_;
};

}  // namespace bench
