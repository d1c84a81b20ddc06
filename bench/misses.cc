// The driver of `bench/run.sh misses`: random reads of a table several times as large as the pool,
// through the public API alone.
//
//   --mode load      fills a table with rows of 8 + 256 bytes, in the order of keys
//   --mode gets      --depth threads, each gets one row after another
//   --mode ahead     one thread that gets one row after another, and prefetches the next --depth
//   --mode batches   one thread, multi_get of --depth keys after another
//   --mode many      one thread, multi_get of very many keys, --depth pages under way
//   --mode report    the table of --results, where bench/run.sh put the device's own figures, too
//
// Each measuring mode appends one line "name depth reads_per_second engine_us client_us p50_us
// p99_us" to the file --results. What counts as a read is a page that the engine read from the
// device, by its counter page_reads; CPU time is that of the process --daemon and of this one,
// divided by these reads.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/client.h"
#include "bench/cpu_time.h"
#include "bench/measure.h"
#include "bench/numbered_row.h"
#include "clientlib/bidstore.h"
#include "shm/stats.h"

namespace bench {

using bidstore::in;
using bidstore::Snapshot;
using bidstore::Store;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t kRowsPerTransaction = 128;
constexpr std::size_t kInFlight = 32;
constexpr std::uint32_t kKeysTogether = 8;  // asked for ahead
constexpr std::uint32_t kManyKeys = 64;     // for each page under way

struct Options {
    std::string mode;
    std::string socket;
    std::string results;
    std::uint64_t rows = 4'000'000;
    std::uint32_t depth = 1;
    double seconds = 2;
    int daemon = 0;
};

using Table = bidstore::Table<Row>;

void load(const Options& options) {
    Store store = attach(options.socket, bidstore::Rights::kAdmin);
    if (const auto made = store.create_table<Row>(in(kPatience)); !made.ok()) {
        fail(made.failure().what);
    }
    const Table table = must(store.open<Row>(in(kPatience)));
    std::deque<bidstore::Pending> in_flight;
    const auto settle = [&] {
        must(in_flight.front().wait(in(kPatience)));
        in_flight.pop_front();
    };
    Row row;
    bidstore::Transaction transaction;
    for (std::uint64_t i = 0; i < options.rows; ++i) {
        row.number = i;
        std::memcpy(row.value.data.data(), &i, sizeof i);
        transaction.put(table, row);
        if (transaction.operation_count() < kRowsPerTransaction && i + 1 < options.rows) continue;
        while (in_flight.size() >= kInFlight) settle();
        in_flight.push_back(must(store.submit(transaction, in(kPatience))));
        transaction.clear();
    }
    while (!in_flight.empty()) settle();
}

// ---- measuring ----------------------------------------------------------------------------------

void check(const Row& row, std::uint64_t number) {
    std::uint64_t word = 0;
    std::memcpy(&word, row.value.data.data(), sizeof word);
    if (row.number != number || word != number) fail("a row has the value of another one");
}

// One thread that has the pages of the next keys asked for, some at a time, while it gets the keys
// before them: so many reads are under way all the time. A sample is the time from the one to the
// other's end.
void read_ahead(const Table& table, bidstore::Reader& reader, const Options& options,
                std::uint64_t seed, const std::atomic<bool>& stop,
                std::vector<std::uint32_t>& samples) {
    struct Some {
        std::uint64_t asked_ns = 0;
        std::vector<std::uint64_t> numbers;
    };
    const std::uint32_t together = std::clamp(options.depth / 8, 1u, kKeysTogether);
    Random random(seed);
    std::deque<Some> under_way;
    std::vector<bidstore::Key<Row>> wanted;
    while (!stop.load(std::memory_order_relaxed)) {
        const Snapshot snapshot = must(reader.snapshot(in(kPatience)));
        while (under_way.size() < options.depth / together) {
            wanted.clear();
            Some next{now_ns(), {}};
            for (std::uint32_t i = 0; i < together; ++i) {
                next.numbers.push_back(random.below(options.rows));
                wanted.push_back(bidstore::Key<Row>::from(next.numbers.back()));
            }
            const bidstore::Status asked = table.prefetch(snapshot, wanted);
            if (!asked.ok()) fail(asked.failure().what);
            under_way.push_back(std::move(next));
        }
        for (const std::uint64_t number : under_way.front().numbers) {
            const auto row = must(table.get(snapshot, number));
            if (!row) fail("a row that was loaded is not there");
            check(*row, number);
        }
        samples.push_back(static_cast<std::uint32_t>(now_ns() - under_way.front().asked_ns));
        under_way.pop_front();
    }
}

// One thread's reads until the end; each call's time goes to `samples`.
void read_rows(const Table& table, bidstore::Reader& reader, const Options& options,
               std::uint64_t seed, std::uint32_t keys, const std::atomic<bool>& stop,
               std::vector<std::uint32_t>& samples) {
    Random random(seed);
    std::vector<bidstore::Key<Row>> wanted;
    std::vector<std::uint64_t> numbers(keys);
    while (!stop.load(std::memory_order_relaxed)) {
        const std::uint64_t start = now_ns();
        wanted.clear();
        for (std::uint32_t i = 0; i < keys; ++i) {
            numbers[i] = random.below(options.rows);
            wanted.push_back(bidstore::Key<Row>::from(numbers[i]));
        }
        const Snapshot snapshot = must(reader.snapshot(in(kPatience)));
        if (keys == 1) {
            const auto row = must(table.get(snapshot, numbers[0]));
            if (!row) fail("a row that was loaded is not there");
            check(*row, numbers[0]);
        } else {
            const auto rows = must(table.multi_get(snapshot, wanted, options.depth));
            for (std::uint32_t i = 0; i < keys; ++i) {
                if (!rows[i]) fail("a row that was loaded is not there");
                check(*rows[i], numbers[i]);
            }
        }
        samples.push_back(static_cast<std::uint32_t>(now_ns() - start));
    }
}

// The reads under way at once, --depth of them, are shared by so many threads.
std::uint32_t threads_of(const Options& options) {
    return options.mode == "gets" ? options.depth : 1;
}

void measure(const Options& options) {
    const std::uint32_t threads = threads_of(options);
    const std::uint32_t keys =
        options.mode == "many" ? options.depth * kManyKeys : options.depth / threads;
    Store store = attach(options.socket, bidstore::Rights::kReader);
    const Table table = must(store.open<Row>(in(kPatience)));
    std::vector<bidstore::Reader> readers;
    for (std::uint32_t i = 0; i < threads; ++i) readers.push_back(must(store.reader()));
    std::vector<std::vector<std::uint32_t>> samples(threads);
    std::atomic<bool> stop{false};
    std::uint64_t reads = 0, engine_ns = 0, client_ns = 0;
    double elapsed = 0;
    {
        const std::uint64_t seed = now_ns();
        std::vector<std::jthread> running;
        for (std::uint32_t i = 0; i < threads; ++i) {
            running.emplace_back([&, i] {
                if (options.mode == "ahead") {
                    read_ahead(table, readers[i], options, seed + i, stop, samples[i]);
                } else {
                    read_rows(table, readers[i], options, seed + i, keys, stop, samples[i]);
                }
            });
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(300));  // warms up
        const std::uint64_t reads_before = counter(store, bidstore::Counter::kPageReads);
        const std::uint64_t engine_before = cpu_ns_of(options.daemon);
        const std::uint64_t client_before = own_cpu_ns();
        const std::uint64_t begin = now_ns();
        std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
        reads = counter(store, bidstore::Counter::kPageReads) - reads_before;
        elapsed = static_cast<double>(now_ns() - begin) / 1e9;
        engine_ns = cpu_ns_of(options.daemon) - engine_before;
        client_ns = own_cpu_ns() - client_before;
        stop = true;
    }
    std::vector<std::uint32_t> all;
    for (const auto& some : samples) all.insert(all.end(), some.begin(), some.end());
    const auto per_read = [&](std::uint64_t ns) {
        const auto count = static_cast<double>(std::max<std::uint64_t>(reads, 1));
        return static_cast<double>(ns) / 1e3 / count;
    };
    std::ofstream file(options.results, std::ios::app);
    const double rate = static_cast<double>(reads) / elapsed;
    file << options.mode << ' ' << options.depth << ' ' << rate << ' ' << per_read(engine_ns) << ' '
         << per_read(client_ns) << ' ' << quantile_us(all, 0.5) << ' ' << quantile_us(all, 0.99)
         << '\n';
    if (!file.flush()) fail("--results " + options.results + ": cannot be written");
}

// ---- report -------------------------------------------------------------------------------------

// Of one name and depth, the rounds in their order.
struct Series {
    std::vector<double> rate, engine_us, client_us, p50_us, p99_us;
};

// The median of the ratios of rounds that ran side by side.
double paired(const std::vector<double>& ours, const std::vector<double>& device) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < std::min(ours.size(), device.size()); ++i) {
        ratios.push_back(ours[i] / std::max(device[i], 1.0));
    }
    return median(ratios);
}

void report(const Options& options) {
    constexpr double kTarget = 0.9;
    std::ifstream file(options.results);
    std::map<std::uint32_t, std::map<std::string, Series>> by_depth;
    std::string name;
    std::uint32_t depth = 0;
    double rate = 0, engine = 0, client = 0, p50 = 0, p99 = 0;
    while (file >> name >> depth >> rate >> engine >> client >> p50 >> p99) {
        Series& series = by_depth[depth][name];
        series.rate.push_back(rate);
        series.engine_us.push_back(engine);
        series.client_us.push_back(client);
        series.p50_us.push_back(p50);
        series.p99_us.push_back(p99);
    }
    if (by_depth.empty()) fail("--results " + options.results + ": nothing in it");
    std::printf("\n%5s  %-11s %10s %8s %12s %12s %9s %9s\n", "depth", "", "reads/s", "of fio",
                "engine us", "client us", "p50 us", "p99 us");
    // Who keeps the depth with one thread, who needs a thread for each read (and a wake of it), and
    // who waits for the last of a burst: each beside fio told to do the same.
    const std::pair<const char*, const char*> rows[] = {
        {"fio", "fio"},   {"ahead", "fio"},           {"fio-threads", "fio-threads"},
        {"many", "fio"},  {"gets", "fio-threads"},    {"fio-burst", "fio-burst"},
        {"batches", "fio-burst"}};
    for (auto& [at, series] : by_depth) {
        for (const auto& [what, beside] : rows) {
            const Series& mine = series[what];
            if (mine.rate.empty()) continue;
            const double share = paired(mine.rate, series[beside].rate);
            const bool ours = std::strcmp(what, beside) != 0;
            std::printf("%5u  %-11s %10.0f %7.0f%% %12.2f %12.2f %9.0f %9.0f %s\n", at, what,
                        median(mine.rate), 100 * share, median(mine.engine_us),
                        median(mine.client_us), median(mine.p50_us), median(mine.p99_us),
                        !ours ? "" : share >= kTarget ? "met" : "MISSED");
        }
    }
    std::printf("\ntarget: 90 %% of fio's reads at the same depth, made the same way; us of "
                "processor\ntime per page read; p50 and p99 of a call (of a page read, for fio). "
                "Medians over rounds.\n");
}

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app("Reads what is not in the pool of a bidstored that runs. See bench/README.md.");
    app.add_option("--mode", options.mode)
        ->required()
        ->check(CLI::IsMember({"load", "gets", "ahead", "batches", "many", "report"}));
    app.add_option("--socket", options.socket, "of the daemon")->envname("BIDSTORE_SOCKET");
    app.add_option("--results", options.results, "file for the values measured")->required();
    app.add_option("--rows", options.rows)->check(CLI::Range(1'000ull, 1'000'000'000ull));
    app.add_option("--depth", options.depth)->check(CLI::Range(1, 128));
    app.add_option("--seconds", options.seconds)->check(CLI::Range(0.1, 3600.0));
    app.add_option("--daemon", options.daemon, "process id of the daemon, for its CPU time");
    CLI11_PARSE(app, argument_count, arguments);
    if (options.mode == "load") bench::load(options);
    else if (options.mode == "report") bench::report(options);
    else bench::measure(options);
    return EXIT_SUCCESS;
}
