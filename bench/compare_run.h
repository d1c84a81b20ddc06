// One engine's part of a comparison: loads it, proves that it gives back what was loaded, and runs
// the settings one after another. In a process of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/compare_workload.h"

namespace bench {

struct Setting {
    const Workload* workload = nullptr;
    bool sync = false;
    std::uint32_t threads = 1;
    std::uint32_t depth = 1;
    std::uint32_t processes = 1;  // that the threads are spread over, where an engine allows it
};

struct RunOptions {
    std::string engine;
    std::string directory;  // of its own, empty
    std::string binaries;
    std::string results;
    std::uint64_t rows = 0;
    std::uint64_t entities = 0;
    std::uint32_t repeat = 1;
    double seconds = 1;
    std::vector<Setting> settings;
};

enum class Kind : std::uint32_t { kGet, kScan, kWrite };
inline constexpr std::size_t kKinds = 3;
inline constexpr double kQuantiles[] = {0.5, 0.99, 0.999};
inline constexpr std::size_t kQuantileCount = 3;

// What one repetition of a setting gave.
struct Measured {
    double ops_per_s = 0;
    double cpu_ns_per_op = 0;
    double quantile_ns[kKinds][kQuantileCount] = {};  // 0: there was no such operation
};

// One line of the results: a setting of an engine.
struct Result {
    std::string engine;
    std::string workload;
    Setting setting;
    std::uint64_t rows = 0;
    std::uint64_t resident_bytes = 0;
    std::uint64_t disk_bytes = 0;
    std::uint64_t checksum = 0;
    std::uint64_t not_yet = 0;  // gets of rows that were on their way
    double load_seconds = 0;
    double raw_sync_ns = 0;  // the machine's, right before this engine
    std::vector<Measured> repeats;
};

void run_engine(const RunOptions& options);
// Appended to and read from the file `results`.
void write_result(const std::string& path, const Result& result);
std::vector<Result> read_results(const std::string& path);

const std::vector<std::string>& engine_names();

}  // namespace bench
