// The driver of `bench/run.sh compact`: what a compaction costs those who write and read meanwhile.
//
//   --mode fill   a table of small rows and one of large values, --mib MiB together, of which three
//                 quarters are erased again, all over the file
//   --mode run    --threads threads that put rows, each waiting until it is durable, and one that
//                 gets rows at random; without a compaction for --seconds, then beside one, from
//                 its beginning to its end
//
// The table printed has the latencies of both phases side by side, their ratios, and what the
// compaction did. Both phases of a line are of the same run.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "bench/client.h"
#include "bench/measure.h"
#include "bench/numbered_row.h"
#include "clientlib/bidstore.h"
#include "clientlib/compact.h"

namespace bench {

using bidstore::in;

struct Value {
    std::uint64_t id = 0;
    std::string_view body;
};

}  // namespace bench

template <>
struct bidstore::Describe<bench::Value> {
    using Value = bench::Value;
    static constexpr auto table = bidstore::table<Value>("values", keys(column<&Value::id>("id")),
                                                         values(column<&Value::body>("body")));
};

namespace bench {
namespace {

constexpr std::uint64_t kRowBytes = 264;
constexpr std::uint64_t kValueBytes = 64 << 10;
constexpr std::chrono::microseconds kReadPause{100};  // some thousand gets a second

struct Options {
    std::string mode;
    std::string socket;
    std::uint64_t mib = 512;
    std::uint32_t threads = 4;
    double seconds = 5;
    double rate = 5'000;
    std::uint64_t rows() const { return (mib << 20) / 2 / kRowBytes; }
    std::uint64_t values() const { return (mib << 20) / 2 / kValueBytes; }
};

// ---- fill ---------------------------------------------------------------------------------------

template <class Record>
bidstore::Table<Record> make_table(bidstore::Store& store) {
    must(store.create_table<Record>(in(kPatience)));
    return must(store.open<Record>(in(kPatience)));
}

int fill(const Options& options) {
    bidstore::Store store = attach(options.socket, bidstore::Rights::kAdmin);
    const auto rows = make_table<Row>(store);
    const auto values = make_table<Value>(store);
    bidstore::Transaction transaction;
    Row row;
    Value value;
    const std::string body(kValueBytes - 100, 'v');
    value.body = body;
    for (std::uint64_t id = 0; id < options.rows();) {
        transaction.clear();
        for (int i = 0; i < 500 && id < options.rows(); ++i) {
            row.number = id++;
            transaction.put(rows, row);
        }
        must(store.commit(transaction, in(kPatience)));
    }
    for (std::uint64_t id = 0; id < options.values();) {
        transaction.clear();
        for (int i = 0; i < 4 && id < options.values(); ++i) {
            value.id = id++;
            transaction.put(values, value);
        }
        must(store.commit(transaction, in(kPatience)));
    }
    // Three quarters of either go, in pieces of some leaves.
    for (std::uint64_t id = 0; id < options.rows(); id += 400) {
        transaction.clear();
        transaction.erase_range(rows, rows.prefix(id), rows.prefix(id + 300));
        must(store.commit(transaction, in(kPatience)));
    }
    for (std::uint64_t id = 0; id < options.values(); id += 4) {
        transaction.clear();
        transaction.erase_range(values, values.prefix(id), values.prefix(id + 3));
        must(store.commit(transaction, in(kPatience)));
    }
    return EXIT_SUCCESS;
}

// ---- run ----------------------------------------------------------------------------------------

enum Kind : std::size_t { kPut, kGet, kKinds };
constexpr int kPhases = 2;  // without, beside
constexpr int kBetween = kPhases;
constexpr int kStop = kPhases + 1;

struct Common {
    bidstore::Store store;
    bidstore::Table<Row> rows;
    std::uint64_t row_count;
    std::atomic<int> phase{kBetween};
};

using Samples = std::array<std::vector<std::uint32_t>, kPhases>;

template <class Step>
void measure(Common& common, Samples& samples, Step step,
             std::chrono::microseconds pause = std::chrono::microseconds(0)) {
    for (;;) {
        const int phase = common.phase.load(std::memory_order_relaxed);
        if (phase == kStop) return;
        const std::uint64_t start = now_ns();
        step();
        const auto taken = static_cast<std::uint32_t>(now_ns() - start);
        if (phase < kPhases) samples[static_cast<std::size_t>(phase)].push_back(taken);
        if (pause.count() > 0) std::this_thread::sleep_for(pause);
    }
}

// Over rows that stay: the file does not grow.
void write_rows(Common& common, std::uint64_t seed, Samples& samples) {
    Random random(seed);
    bidstore::Transaction transaction;
    Row row;
    measure(common, samples, [&] {
        row.number = random.below(common.row_count / 400) * 400 + 300 + random.below(100);
        transaction.clear();
        transaction.put(common.rows, row);
        must(common.store.commit(transaction, in(kPatience)));
    });
}

// A pause between, so that it leaves the processor to what is measured.
void read_rows(Common& common, Samples& samples) {
    Random random(99);
    bidstore::Reader reader = must(common.store.reader());
    measure(
        common, samples,
        [&] {
            const std::uint64_t id =
                random.below(common.row_count / 400) * 400 + 300 + random.below(99);
            const auto row = common.rows.get(reader, in(kPatience), id);
            if (!row.ok()) fail(row.failure().what);
            if (!row->has_value()) fail("row " + std::to_string(id) + " is lost");
        },
        kReadPause);
}

struct Compacted {
    std::uint64_t pages = 0;
    std::uint64_t looked = 0;
    std::uint64_t given_back = 0;
    std::uint64_t file_bytes = 0;
    double seconds = 0;
};

// As `bidstore compact --online` asks for its steps.
Compacted compact(const Options& options) {
    auto compaction = must(bidstore::Compaction::begin(
        attach_options(options.socket, bidstore::Rights::kAdmin), in(kPatience)));
    const auto pages = static_cast<std::uint32_t>(std::clamp(options.rate / 50, 1.0, 64.0));
    Compacted done;
    const std::uint64_t start = now_ns();
    for (;;) {
        const auto step = must(compaction.step(pages, in(kPatience)));
        done.pages += step.moved;
        done.looked += step.looked;
        done.given_back = step.given_back;
        done.file_bytes = step.file_bytes;
        if (step.state == bidstore::CompactState::kDone) break;
        const double pause = step.state == bidstore::CompactState::kWaiting
                                 ? 0.02
                                 : static_cast<double>(step.moved + step.looked) / options.rate;
        std::this_thread::sleep_for(std::chrono::duration<double>(pause));
    }
    done.seconds = static_cast<double>(now_ns() - start) / 1e9;
    return done;
}

void print_line(const char* name, Samples& samples, double without_s, double beside_s) {
    std::printf("%-12s %10.0f %10.0f", name, static_cast<double>(samples[0].size()) / without_s,
                static_cast<double>(samples[1].size()) / beside_s);
    for (const double share : {0.5, 0.99, 0.999}) {
        const double without = quantile_us(samples[0], share);
        const double beside = quantile_us(samples[1], share);
        std::printf("  %8.1f %8.1f %5.2f", without, beside, beside / without);
    }
    std::printf("\n");
}

int run(const Options& options) {
    bidstore::Store store = attach(options.socket, bidstore::Rights::kAdmin);
    auto rows = must(store.open<Row>(in(kPatience)));
    Common common{std::move(store), std::move(rows), options.rows()};
    std::vector<Samples> put(options.threads);
    Samples get;
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < options.threads; ++i) {
        threads.emplace_back([&common, &samples = put[i], i] { write_rows(common, i, samples); });
    }
    threads.emplace_back([&] { read_rows(common, get); });
    const auto wait = [](double seconds) {
        std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    };
    wait(1);
    common.phase.store(0);
    wait(options.seconds);
    common.phase.store(1);
    const Compacted done = compact(options);
    common.phase.store(kStop);
    for (std::thread& thread : threads) thread.join();
    Samples all;
    for (std::size_t phase = 0; phase < kPhases; ++phase) {
        for (const Samples& each : put) {
            all[phase].insert(all[phase].end(), each[phase].begin(), each[phase].end());
        }
    }
    std::printf("%-12s %10s %10s  %24s  %24s  %24s\n", "", "1/s", "beside", "p50 us, beside, ratio",
                "p99 us, beside, ratio", "p99.9 us, beside, ratio");
    print_line("durable put", all, options.seconds, done.seconds);
    print_line("get", get, options.seconds, done.seconds);
    std::printf(
        "compaction: %llu pages moved, %llu leaves looked at, %.1f MiB given back in %.1f s "
        "(%.0f pages/s); the file has %.1f MiB\n",
        static_cast<unsigned long long>(done.pages), static_cast<unsigned long long>(done.looked),
        static_cast<double>(done.given_back) / (1 << 20), done.seconds,
        static_cast<double>(done.pages) / done.seconds,
        static_cast<double>(done.file_bytes) / (1 << 20));
    return EXIT_SUCCESS;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    bench::Options options;
    CLI::App app("Drives a compaction and what goes on beside it.");
    app.add_option("--mode", options.mode, "fill or run")->required();
    app.add_option("--socket", options.socket, "The daemon's socket")
        ->envname("BIDSTORE_SOCKET")
        ->required();
    app.add_option("--mib", options.mib, "MiB of rows and values");
    app.add_option("--threads", options.threads, "Threads that write");
    app.add_option("--seconds", options.seconds, "Seconds without a compaction");
    app.add_option("--rate", options.rate, "Pages a second");
    CLI11_PARSE(app, argc, argv);
    if (options.mode == "fill") return bench::fill(options);
    if (options.mode == "run") return bench::run(options);
    bench::fail("--mode wants fill or run");
}
