#include <fstream>
#include <iomanip>
#include <string>
#include <utility>
#include <vector>

#include "bench/compare_run.h"
#include "bench/measure.h"

namespace bench {

void write_result(const std::string& path, const Result& result) {
    std::ofstream file(path, std::ios::app);
    const Setting& setting = result.setting;
    file << std::setprecision(12) << result.engine << ' ' << result.workload << ' ' << setting.sync
         << ' ' << setting.threads << ' ' << setting.depth << ' ' << setting.processes << ' '
         << result.rows << ' ' << result.resident_bytes << ' ' << result.disk_bytes << ' '
         << result.checksum << ' ' << result.not_yet << ' ' << result.load_seconds << ' '
         << result.raw_sync_ns << ' ' << result.repeats.size();
    for (const Measured& measured : result.repeats) {
        file << ' ' << measured.ops_per_s << ' ' << measured.cpu_ns_per_op;
        for (const auto& kind : measured.quantile_ns) {
            for (const double quantile : kind) file << ' ' << quantile;
        }
    }
    file << '\n';
    if (!file.flush()) fail("--results " + path + ": cannot be written");
}

std::vector<Result> read_results(const std::string& path) {
    std::ifstream file(path);
    std::vector<Result> results;
    for (;;) {
        Result result;
        Setting& setting = result.setting;
        std::size_t repeats = 0;
        if (!(file >> result.engine >> result.workload >> setting.sync >> setting.threads >>
              setting.depth >> setting.processes >> result.rows >> result.resident_bytes >>
              result.disk_bytes >> result.checksum >> result.not_yet >> result.load_seconds >>
              result.raw_sync_ns >> repeats)) {
            return results;
        }
        setting.workload = find_workload(result.workload);
        for (std::size_t i = 0; i < repeats; ++i) {
            Measured measured;
            file >> measured.ops_per_s >> measured.cpu_ns_per_op;
            for (auto& kind : measured.quantile_ns) {
                for (double& quantile : kind) file >> quantile;
            }
            result.repeats.push_back(measured);
        }
        if (!file) fail(path + ": is cut short");
        results.push_back(std::move(result));
    }
}

}  // namespace bench
