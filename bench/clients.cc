// The driver of `bench/run.sh clients`: what clients cost each other, and what the daemon costs
// when nobody asks anything of it.
//
//   --mode fill   a table of --rows rows
//   --mode run    1. readers  1, 2, 4, 8 and 16 processes of one thread, gets of rows at random:
//                             of all together, and the one that got least
//                 2. idle     the daemon's processor time: nobody attached, 16 clients attached
//                             that do nothing, one that reads all the time
//                 3. writers  4 threads, each putting rows and waiting for each, durably: alone;
//                             beside a reader that stands in the middle of a scan; beside one that
//                             scans the whole table under one snapshot, and, for comparison, beside
//                             a process that takes as much of the processors and reads nothing
//
// All settings of a part run in turn, --rounds times; the table has medians.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "bench/client.h"
#include "bench/cpu_time.h"
#include "bench/measure.h"
#include "bench/numbered_row.h"
#include "bench/rows.h"
#include "clientlib/bidstore.h"

namespace bench {
namespace {

using bidstore::in;
using Rows = bidstore::Table<Row>;

constexpr std::uint32_t kProcessesMax = 16;
constexpr std::uint32_t kReaders[] = {1, 2, 4, 8, 16};
constexpr std::uint32_t kWriters = 4;
constexpr double kWarmUpSeconds = 0.5;

struct Options {
    std::string mode;
    std::string socket;
    pid_t daemon = 0;
    std::uint64_t rows = 2'000'000;
    double seconds = 1;
    std::uint32_t rounds = 3;
};

// Shared by the processes of a run.
struct Control {
    alignas(64) std::atomic<std::uint32_t> ready{0};
    alignas(64) std::atomic<bool> stop{false};
    struct alignas(64) Count {
        std::atomic<std::uint64_t> done{0};
    };
    std::array<Count, kProcessesMax> counts;
};

void sleep_for(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// ---- processes ----------------------------------------------------------------------------------

// Processes that work until this ends, each with a connection of its own.
class Processes {
  public:
    using Work = std::function<void(Control& control, std::uint32_t index)>;

    Processes(std::uint32_t count, const Work& work) {
        void* memory = ::mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) fail("no memory for the counts");
        control_ = new (memory) Control;
        std::fflush(stdout);
        for (std::uint32_t i = 0; i < count; ++i) start(i, work);
        const std::uint64_t end = now_ns() + 60'000'000'000;
        while (control_->ready.load() < count) {
            if (now_ns() > end) fail("the processes do not begin");
            sleep_for(0.002);
        }
    }
    Processes(const Processes&) = delete;
    Processes& operator=(const Processes&) = delete;
    ~Processes() {
        control_->stop.store(true);
        for (const pid_t process : processes_) {
            int status = 0;
            ::waitpid(process, &status, 0);
            if (status != 0) fail("a process of the measurement failed");
        }
        ::munmap(control_, sizeof(Control));
    }

    std::vector<std::uint64_t> counts() const {
        std::vector<std::uint64_t> counts;
        for (std::size_t i = 0; i < processes_.size(); ++i) {
            counts.push_back(control_->counts[i].done.load(std::memory_order_relaxed));
        }
        return counts;
    }

  private:
    void start(std::uint32_t index, const Work& work) {
        const pid_t process = ::fork();
        if (process < 0) fail("fork failed");
        if (process > 0) {
            processes_.push_back(process);
            return;
        }
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        work(*control_, index);
        ::_exit(EXIT_SUCCESS);
    }

    Control* control_ = nullptr;
    std::vector<pid_t> processes_;
};

// What a process does.
Processes::Work idle(const Options& options) {
    return [&options](Control& control, std::uint32_t) {
        const bidstore::Store store = attach(options.socket, bidstore::Rights::kReader);
        control.ready.fetch_add(1);
        while (!control.stop.load()) sleep_for(0.01);
    };
}

Processes::Work gets(const Options& options) {
    return [&options](Control& control, std::uint32_t index) {
        bidstore::Store store = attach(options.socket, bidstore::Rights::kReader);
        const Rows rows = must(store.open<Row>(in(kPatience)));
        bidstore::Reader reader = must(store.reader());
        Random random(index + 1);
        std::uint64_t sum = 0;
        // Every page is mapped before what counts.
        for (std::uint64_t i = 0; i < options.rows; i += 8) {
            const auto row = must(rows.get(reader, in(kPatience), i));
            sum += row ? row->number : 0;
        }
        control.ready.fetch_add(1);
        std::uint64_t done = 0;
        while (!control.stop.load(std::memory_order_relaxed)) {
            const bidstore::Deadline deadline = in(kPatience);
            for (int i = 0; i < 256; ++i, ++done) {
                const bidstore::Snapshot snapshot = must(reader.snapshot(deadline));
                const auto row = must(rows.peek(snapshot, random.below(options.rows)));
                if (!row) fail("a row is lost");
                sum += sum_of(row->raw().value.data());
                if (!snapshot.valid()) fail("a snapshot expired");
            }
            control.counts[index].done.store(done, std::memory_order_relaxed);
        }
        if (sum == 1) std::puts("");  // so that no read can be left out
    };
}

// Stands where it is after half of the table, its snapshot held, until the lease is nearly over;
// or goes on to the end and begins again.
Processes::Work scans(const Options& options, bool stands) {
    return [&options, stands](Control& control, std::uint32_t index) {
        bidstore::Store store = attach(options.socket, bidstore::Rights::kReader);
        const Rows rows = must(store.open<Row>(in(kPatience)));
        bidstore::Reader reader = must(store.reader());
        const auto stopped = [&] { return control.stop.load(std::memory_order_relaxed); };
        std::uint64_t sum = 0;
        bool first = true;
        while (!stopped()) {
            const bidstore::Snapshot snapshot = must(reader.snapshot(in(kPatience)));
            const std::uint64_t end = now_ns() + 4'000'000'000;  // the lease is 5 s
            while (!stopped() && now_ns() < end) {
                auto cursor = rows.scan(snapshot);
                for (std::uint64_t seen = 0; cursor.next(); ++seen) {
                    sum += sum_of(cursor.row().raw().value.data());
                    if (seen % 4096 == 0 && stopped()) break;
                    if (!stands || seen != options.rows / 2) continue;
                    if (std::exchange(first, false)) control.ready.fetch_add(1);
                    while (!stopped() && now_ns() < end) sleep_for(0.01);
                    break;
                }
                must(cursor.status());
                if (std::exchange(first, false)) control.ready.fetch_add(1);
            }
            control.counts[index].done.fetch_add(1);
        }
        if (sum == 1) std::puts("");
    };
}

Processes::Work spins() {
    return [](Control& control, std::uint32_t) {
        control.ready.fetch_add(1);
        while (!control.stop.load(std::memory_order_relaxed)) {
        }
    };
}

// ---- the parts ----------------------------------------------------------------------------------

// Processor time of the daemon meanwhile, in percent of one core.
double daemon_percent(const Options& options, double seconds) {
    const std::uint64_t cpu = cpu_ns_of(options.daemon);
    const std::uint64_t begin = now_ns();
    sleep_for(seconds);
    return 100 * static_cast<double>(cpu_ns_of(options.daemon) - cpu) /
           static_cast<double>(now_ns() - begin);
}

void measure_readers(const Options& options) {
    std::array<std::vector<double>, std::size(kReaders)> totals;
    std::array<std::vector<double>, std::size(kReaders)> least;
    for (std::uint32_t round = 0; round < options.rounds; ++round) {
        for (std::size_t i = 0; i < std::size(kReaders); ++i) {
            const Processes readers(kReaders[i], gets(options));
            sleep_for(kWarmUpSeconds);
            const auto before = readers.counts();
            const std::uint64_t begin = now_ns();
            sleep_for(options.seconds);
            const auto after = readers.counts();
            const double seconds = static_cast<double>(now_ns() - begin) / 1e9;
            double total = 0;
            double slowest = 1e30;
            for (std::size_t reader = 0; reader < before.size(); ++reader) {
                const auto done = static_cast<double>(after[reader] - before[reader]) / seconds;
                total += done;
                slowest = std::min(slowest, done);
            }
            totals[i].push_back(total);
            least[i].push_back(slowest * kReaders[i] / total);
        }
    }
    const auto cores = std::max(1u, std::thread::hardware_concurrency());
    std::printf("\n%-28s %12s %10s %14s\n", "reader processes", "gets/s", "span", "least's share");
    double full = 0;
    for (std::size_t i = 0; i < std::size(kReaders); ++i) {
        const double total = median(totals[i]);
        const auto [low, high] = std::minmax_element(totals[i].begin(), totals[i].end());
        std::printf("%-28u %12.0f %9.0f%% %14.2f", kReaders[i], total, 100 * (*high - *low) / total,
                    median(least[i]));
        if (kReaders[i] > cores && full > 0) {
            std::printf("   %.2f of %u processes (target: 0.95)", total / full, cores);
        }
        std::printf("\n");
        if (kReaders[i] == cores) full = total;
    }
}

void measure_idle(const Options& options) {
    struct Case {
        const char* name;
        std::uint32_t processes;
        Processes::Work work;
        std::vector<double> percent;
    };
    std::array<Case, 3> cases = {{{"nobody attached", 0, idle(options), {}},
                                  {"16 clients attached, idle", kProcessesMax, idle(options), {}},
                                  {"one client that reads", 1, gets(options), {}}}};
    for (std::uint32_t round = 0; round < options.rounds; ++round) {
        for (Case& each : cases) {
            const Processes clients(each.processes, each.work);
            sleep_for(kWarmUpSeconds);
            each.percent.push_back(daemon_percent(options, options.seconds));
        }
    }
    std::printf("\n%-28s %12s   (target: 1)\n", "the daemon meanwhile", "% of a core");
    for (const Case& each : cases) std::printf("%-28s %12.2f\n", each.name, median(each.percent));
}

// Durable puts of rows at random, by threads that wait for each.
struct Written {
    double a_second = 0;
    double p50_us = 0;
    double p99_us = 0;
};

Written write_rows(bidstore::Store& store, const Options& options) {
    const Rows rows = must(store.open<Row>(in(kPatience)));
    std::atomic<bool> counts{false};
    std::atomic<bool> stop{false};
    std::array<std::vector<std::uint32_t>, kWriters> samples;
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < kWriters; ++i) {
        threads.emplace_back([&, i] {
            Random random(i + 1);
            bidstore::Transaction transaction;
            Row row;
            while (!stop.load(std::memory_order_relaxed)) {
                row.number = random.below(options.rows);
                fill_value(row.value.data.data(), row.number);
                transaction.clear();
                transaction.put(rows, row);
                const std::uint64_t begin = now_ns();
                must(store.commit(transaction, in(kPatience)));
                if (!counts.load(std::memory_order_relaxed)) continue;
                samples[i].push_back(static_cast<std::uint32_t>(now_ns() - begin));
            }
        });
    }
    sleep_for(kWarmUpSeconds);
    counts.store(true);
    sleep_for(options.seconds);
    counts.store(false);
    stop.store(true);
    for (std::thread& thread : threads) thread.join();
    std::vector<std::uint32_t> all;
    for (const auto& some : samples) all.insert(all.end(), some.begin(), some.end());
    return {static_cast<double>(all.size()) / options.seconds, quantile_us(all, 0.5),
            quantile_us(all, 0.99)};
}

void measure_writers(const Options& options) {
    struct Case {
        const char* name;
        std::uint32_t processes;
        Processes::Work work;
        int beside;  // the case that it is compared with; -1: none
        std::vector<double> a_second;
        std::vector<double> p50_us;
        std::vector<double> p99_us;
    };
    std::array<Case, 4> cases = {{
        {"alone", 0, spins(), -1, {}, {}, {}},
        {"a scan that stands", 1, scans(options, true), 0, {}, {}, {}},
        {"a process that spins", 1, spins(), -1, {}, {}, {}},
        {"a scan that goes on", 1, scans(options, false), 2, {}, {}, {}},
    }};
    for (std::uint32_t round = 0; round < options.rounds; ++round) {
        for (Case& each : cases) {
            const Processes beside(each.processes, each.work);
            // Behind the fork: a child must not have this connection.
            bidstore::Store store = attach(options.socket, bidstore::Rights::kWriter);
            const Written written = write_rows(store, options);
            each.a_second.push_back(written.a_second);
            each.p50_us.push_back(written.p50_us);
            each.p99_us.push_back(written.p99_us);
        }
    }
    std::printf("\n%-28s %12s %10s %10s\n", "4 durable writers beside", "puts/s", "p50 us",
                "p99 us");
    for (const Case& each : cases) {
        std::printf("%-28s %12.0f %10.0f %10.0f", each.name, median(each.a_second),
                    median(each.p50_us), median(each.p99_us));
        if (each.beside >= 0) {
            const Case& other = cases[static_cast<std::size_t>(each.beside)];
            std::vector<double> ratios;
            for (std::size_t i = 0; i < each.a_second.size(); ++i) {
                ratios.push_back(each.a_second[i] / other.a_second[i]);
            }
            std::printf("   %.2f of \"%s\" (target: 0.95)", median(ratios), other.name);
        }
        std::printf("\n");
    }
}

int fill(const Options& options) {
    bidstore::Store store = attach(options.socket, bidstore::Rights::kAdmin);
    must(store.create_table<Row>(in(kPatience)));
    const Rows rows = must(store.open<Row>(in(kPatience)));
    bidstore::Transaction transaction;
    Row row;
    for (std::uint64_t number = 0; number < options.rows;) {
        transaction.clear();
        for (int i = 0; i < 500 && number < options.rows; ++i) {
            row.number = number;
            fill_value(row.value.data.data(), number++);
            transaction.put(rows, row);
        }
        must(store.commit(transaction, in(kPatience)));
    }
    // The checkpoint of it is no part of what is measured.
    while (counter(store, bidstore::Counter::kChangedPages) > 0 ||
           counter(store, bidstore::Counter::kCheckpointStep) > 0) {
        sleep_for(0.1);
    }
    return EXIT_SUCCESS;
}

int run(const Options& options) {
    if (options.daemon == 0) fail("--daemon is missing");
    measure_idle(options);
    measure_readers(options);
    measure_writers(options);
    return EXIT_SUCCESS;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    bench::Options options;
    CLI::App app("Measures what clients cost each other.");
    app.add_option("--mode", options.mode, "fill or run")->required();
    app.add_option("--socket", options.socket, "The daemon's socket")
        ->envname("BIDSTORE_SOCKET")
        ->required();
    app.add_option("--daemon", options.daemon, "The daemon's process");
    app.add_option("--rows", options.rows, "Rows of the table");
    app.add_option("--seconds", options.seconds, "Of each setting, behind half a second");
    app.add_option("--rounds", options.rounds, "Over all settings");
    CLI11_PARSE(app, argc, argv);
    if (options.mode == "fill") return bench::fill(options);
    if (options.mode == "run") return bench::run(options);
    bench::fail("--mode wants fill or run");
}
