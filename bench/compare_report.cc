#include "bench/compare_report.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iomanip>
#include <thread>

#include "bench/machine.h"
#include "bench/measure.h"
#include "bench/tick_clock.h"

namespace bench {
namespace {

constexpr const char* kKindNames[kKinds] = {"get", "scan", "write"};
constexpr const char* kQuantileNames[kQuantileCount] = {"p50", "p99", "p999"};

template <class Value>
double median_of(const Result& result, Value value) {
    std::vector<double> values;
    for (const Measured& measured : result.repeats) values.push_back(value(measured));
    return median(values);
}

double rate(const Result& result) {
    return median_of(result, [](const Measured& measured) { return measured.ops_per_s; });
}
double cpu_ns(const Result& result) {
    return median_of(result, [](const Measured& measured) { return measured.cpu_ns_per_op; });
}
double quantile_ns(const Result& result, std::size_t kind, std::size_t quantile) {
    return median_of(
        result, [&](const Measured& measured) { return measured.quantile_ns[kind][quantile]; });
}

struct Range {
    double least = 0;
    double most = 0;
};
Range rates(const Result& result) {
    Range range{result.repeats.front().ops_per_s, 0};
    for (const Measured& measured : result.repeats) {
        range.least = std::min(range.least, measured.ops_per_s);
        range.most = std::max(range.most, measured.ops_per_s);
    }
    return range;
}

// Threads over processes are the engine's affair: the same setting otherwise.
bool same_setting(const Result& left, const Result& right) {
    return left.workload == right.workload && left.rows == right.rows &&
           left.setting.sync == right.setting.sync &&
           left.setting.threads == right.setting.threads &&
           left.setting.depth == right.setting.depth;
}

bool is_peer(const Result& result) { return result.engine != "bidstore"; }

double best_peer(const std::vector<Result>& results, const Result& setting) {
    double best = 0;
    for (const Result& result : results) {
        if (is_peer(result) && same_setting(result, setting)) best = std::max(best, rate(result));
    }
    return best;
}

std::string microseconds(double ns) {
    char text[32];
    std::snprintf(text, sizeof text, ns < 100'000 ? "%.2f" : "%.0f", ns / 1e3);
    return text;
}

void print_line(const Result& result, double best) {
    const Range range = rates(result);
    const double middle = rate(result);
    std::printf("%-11s %10.0f %4.0f%% %7s %9.0f", result.engine.c_str(), middle,
                middle > 0 ? 100 * (range.most - range.least) / middle : 0,
                best > 0 ? (std::to_string(middle / best).substr(0, 5) + "x").c_str() : "-",
                cpu_ns(result));
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        std::string text;
        for (std::size_t i = 0; i < kQuantileCount; ++i) {
            text += (i > 0 ? " / " : "") + microseconds(quantile_ns(result, kind, i));
        }
        const bool none = quantile_ns(result, kind, 0) == 0;
        std::printf("  %-25s", none ? "-" : text.c_str());
    }
    std::printf(" %8llu %8llu\n", static_cast<unsigned long long>(result.resident_bytes >> 20),
                static_cast<unsigned long long>(result.disk_bytes >> 20));
}

void print_setting(const std::vector<Result>& results, const Result& first) {
    const Setting& setting = first.setting;
    std::printf("\n%s --sync %d --threads %u --depth %u, %llu rows\n", first.workload.c_str(),
                setting.sync ? 1 : 0, setting.threads, setting.depth,
                static_cast<unsigned long long>(first.rows));
    std::printf("%-11s %10s %5s %7s %9s  %-25s  %-25s  %-25s %8s %8s\n", "", "ops/s", "+-",
                "of best", "CPU ns/op", "get p50/p99/p99.9 us", "scan p50/p99/p99.9 us",
                "write p50/p99/p99.9 us", "res MiB", "disk MiB");
    const double best = best_peer(results, first);
    for (const Result& result : results) {
        if (same_setting(result, first)) print_line(result, best);
    }
    for (const Result& result : results) {
        if (!same_setting(result, first) || result.not_yet == 0) continue;
        std::printf("(%s: %llu rows were read for that were on their way still)\n",
                    result.engine.c_str(), static_cast<unsigned long long>(result.not_yet));
    }
}

// ---- targets ------------------------------------------------------------------------------------

// What bidstore is to reach on two cores with 10 million rows, all in memory.
struct Target {
    const char* what;
    const char* workload;
    bool sync;
    std::uint32_t threads;
    std::uint32_t depth;
    double (*value)(const Result& result, const Machine& machine, double best);
    double bound;
    bool at_least;
};

double rate_of(const Result& result, const Machine&, double) { return rate(result); }
double of_best(const Result& result, const Machine&, double best) {
    return best > 0 ? rate(result) / best : 0;
}
template <std::size_t kKind, std::size_t kQuantile>
double us_of(const Result& result, const Machine&, double) {
    return quantile_ns(result, kKind, kQuantile) / 1e3;
}
double ns_per_key(const Result& result, const Machine&, double) {
    return 1e9 / (rate(result) * static_cast<double>(kKeysTogether));
}
// The pool lies on huge pages when they are reserved.
double in_misses(const Result& result, const Machine& machine, double) {
    const double miss = machine.huge_miss_ns > 0 ? machine.huge_miss_ns : machine.miss_ns;
    return miss > 0 ? quantile_ns(result, 0, 0) / miss : 0;
}
double in_syncs(const Result& result, const Machine&, double) {
    return quantile_ns(result, 2, 0) / result.raw_sync_ns;
}

constexpr Target kTargets[] = {
    {"ops/s", "mix", false, 4, 32, rate_of, 2'000'000, true},
    {"times the best peer", "mix", false, 4, 32, of_best, 3.5, true},
    {"ops/s", "mix", true, 4, 32, rate_of, 1'900'000, true},
    {"ops/s", "mix", true, 8, 1, rate_of, 650'000, true},
    {"times the best peer", "mix", true, 8, 1, of_best, 4, true},
    {"ops/s", "mix", true, 32, 1, rate_of, 1'200'000, true},
    {"get p50, us", "mix", false, 4, 32, us_of<0, 0>, 0.8, false},
    {"get p99, us", "mix", false, 4, 32, us_of<0, 1>, 3, false},
    {"scan p50, us", "mix", false, 4, 32, us_of<1, 0>, 2.1, false},
    {"get p50, dependent misses", "get", false, 1, 32, in_misses, 2.5, false},
    {"ns a key", "multiget", false, 1, 32, ns_per_key, 120, false},
    {"durable rows/s", "write", true, 64, 1, rate_of, 100'000, true},
    {"durable rows/s", "write", true, 4, 32, rate_of, 300'000, true},
    {"write p50, raw synced writes", "write", true, 1, 1, in_syncs, 1.3, false},
    {"durable adds/s", "count", true, 4, 32, rate_of, 400'000, true},
};

void print_targets(const std::vector<Result>& results, const Machine& machine) {
    bool begun = false;
    for (const Target& target : kTargets) {
        for (const Result& result : results) {
            const Setting& setting = result.setting;
            if (is_peer(result) || result.workload != target.workload ||
                setting.sync != target.sync || setting.threads != target.threads ||
                setting.depth != target.depth) {
                continue;
            }
            const double value = target.value(result, machine, best_peer(results, result));
            if (value == 0) continue;  // nothing to compare with
            if (!begun) {
                std::printf("\nbidstore's targets (for 2 cores, 10 million rows on huge pages)\n");
            }
            begun = true;
            const bool met = target.at_least ? value >= target.bound : value <= target.bound;
            std::printf("  %-9s sync %d, %2u threads, depth %2u: %-28s %12.2f, %s %g: %s\n",
                        target.workload, target.sync ? 1 : 0, target.threads, target.depth,
                        target.what, value, target.at_least ? "at least" : "at most", target.bound,
                        met ? "met" : "MISSED");
        }
    }
}

void print_checks(const std::vector<Result>& results) {
    bool equal = true;
    for (const Result& result : results) {
        equal = equal && (result.rows != results.front().rows ||
                          result.checksum == results.front().checksum);
    }
    if (!equal) fail("the engines do not have the same rows: their sums differ");
    std::printf(
        "\nAll engines gave back the same rows (sum %016llx). \"+-\" is the span of all "
        "repetitions,\n\"of best\" the ratio to the best peer, CPU that of all processes "
        "involved; a get of multiget is a\nkey's share of its call.\n",
        static_cast<unsigned long long>(results.front().checksum));
}

class JsonObject {
  public:
    explicit JsonObject(std::ofstream& file) : file_(file) { file_ << std::setprecision(12); }
    void add(const std::string& name, double value) { begin(name) << value; }
    void add(const std::string& name, const std::string& value) {
        begin(name) << '"' << value << '"';
    }
    void add_or_null(const std::string& name, double value) {
        if (value > 0)
            add(name, value);
        else
            begin(name) << "null";
    }

  private:
    std::ofstream& begin(const std::string& name) {
        file_ << (first_ ? "" : ", ") << '"' << name << "\": ";
        first_ = false;
        return file_;
    }
    std::ofstream& file_;
    bool first_ = true;
};

void write_object(std::ofstream& file, const Result& result, const Machine& machine, double best) {
    JsonObject object(file);
    object.add("engine", result.engine);
    object.add("workload", result.workload);
    object.add("sync", result.setting.sync ? 1 : 0);
    object.add("threads", result.setting.threads);
    object.add("depth", result.setting.depth);
    object.add("processes", result.setting.processes);
    object.add("rows", static_cast<double>(result.rows));
    object.add("ops_per_s", rate(result));
    object.add("ops_per_s_least", rates(result).least);
    object.add("ops_per_s_most", rates(result).most);
    object.add("repeats", static_cast<double>(result.repeats.size()));
    object.add_or_null("of_best_peer", best > 0 ? rate(result) / best : 0);
    object.add("cpu_ns_per_op", cpu_ns(result));
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        for (std::size_t i = 0; i < kQuantileCount; ++i) {
            const std::string name = kKindNames[kind];
            object.add_or_null(name + "_" + kQuantileNames[i] + "_ns",
                               quantile_ns(result, kind, i));
        }
    }
    object.add("resident_bytes", static_cast<double>(result.resident_bytes));
    object.add("disk_bytes", static_cast<double>(result.disk_bytes));
    object.add("load_seconds", result.load_seconds);
    object.add("rows_on_their_way", static_cast<double>(result.not_yet));
    object.add("checksum", std::to_string(result.checksum));
    object.add("raw_sync_p50_ns", result.raw_sync_ns);
    object.add_or_null("miss_ns", machine.miss_ns);
    object.add_or_null("huge_miss_ns", machine.huge_miss_ns);
}

double measure_tick_ns() {
    constexpr int kReads = 1'000'000;
    std::uint64_t sum = 0;
    const std::uint64_t begin = now_ns();
    for (int i = 0; i < kReads; ++i) sum += now_ticks() & 1;
    const auto taken = static_cast<double>(now_ns() - begin);
    return sum > kReads ? 0 : taken / kReads;
}

std::string first_line(const std::string& path, const std::string& prefix) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with(prefix)) continue;
        const std::size_t colon = prefix.empty() ? std::string::npos : line.find(": ");
        return colon == std::string::npos ? line : line.substr(colon + 2);
    }
    return "?";
}

}  // namespace

Machine measure_machine(const std::string& directory, std::uint64_t rows) {
    Machine machine;
    std::vector<std::uint32_t> writes = synced_writes_ns(directory);
    machine.sync_p50_ns = quantile_us(writes, 0.5) * 1e3;
    machine.sync_p99_ns = quantile_us(writes, 0.99) * 1e3;
    machine.miss_ns = dependent_miss_ns(false, spread_bytes(rows));
    machine.huge_miss_ns = dependent_miss_ns(true, spread_bytes(rows));
    machine.tick_ns = measure_tick_ns();
    return machine;
}

void print_machine(const Machine& machine) {
    std::printf("the machine: %u cores, %s, %s; Linux %s; shared memory on huge pages: %s\n",
                std::thread::hardware_concurrency(),
                first_line("/proc/cpuinfo", "model name").c_str(),
                first_line("/proc/meminfo", "MemTotal").c_str(),
                first_line("/proc/sys/kernel/osrelease", "").c_str(),
                first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "").c_str());
    std::printf(
        "  4 KiB written with RWF_DSYNC: p50 %.0f us, p99 %.0f us; dependent miss %.0f ns, "
        "on huge pages %.0f ns; timing an operation %.0f ns\n",
        machine.sync_p50_ns / 1e3, machine.sync_p99_ns / 1e3, machine.miss_ns, machine.huge_miss_ns,
        machine.tick_ns);
    std::fflush(stdout);
}

void print_report(const std::vector<Result>& results, const Machine& machine) {
    std::vector<const Result*> settings;
    for (const Result& result : results) {
        const bool seen = std::any_of(settings.begin(), settings.end(), [&](const Result* other) {
            return same_setting(result, *other);
        });
        if (!seen) settings.push_back(&result);
    }
    std::printf("\n");
    print_machine(machine);
    for (const Result* setting : settings) print_setting(results, *setting);
    print_targets(results, machine);
    print_checks(results);
}

void write_json(const std::vector<Result>& results, const Machine& machine,
                const std::string& path) {
    std::ofstream file(path);
    const char* before = "[\n  {";
    for (const Result& result : results) {
        file << before;
        write_object(file, result, machine, best_peer(results, result));
        before = "},\n  {";
    }
    file << "}\n]\n";
    if (!file.flush()) fail("--json " + path + ": cannot be written");
}

}  // namespace bench
