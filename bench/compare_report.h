// What a comparison found: tables for people, JSON for programs.
#pragma once

#include <string>
#include <vector>

#include "bench/compare_run.h"

namespace bench {

// What the bare machine did in the same run. 0: not measured.
struct Machine {
    double miss_ns = 0;
    double huge_miss_ns = 0;
    double tick_ns = 0;  // reading the counter that operations are timed by
    double sync_p50_ns = 0;
    double sync_p99_ns = 0;
};

// `rows`: of the workloads that it is to be compared with.
Machine measure_machine(const std::string& directory, std::uint64_t rows);
void print_machine(const Machine& machine);
// One table for each setting, its engines in their order; ratios are to the best peer.
void print_report(const std::vector<Result>& results, const Machine& machine);
void write_json(const std::vector<Result>& results, const Machine& machine,
                const std::string& path);

}  // namespace bench
