// The driver of `bench/run.sh seed`: the seed workload against a daemon that runs, through the
// public API alone.
//
//   --mode load    fills the table `seed` with --rows rows of 16 + 256 bytes, past the log
//   --mode run     the workload: --warm seconds that nobody looks at, then --seconds that count;
//                  with --full-scan once more --seconds, while one thread scans the whole table
//
// The table is one hour of rows in the order of time (time in µs, entity): 80 % of the operations
// are gets, 87 % of them of the newest twelfth of the rows (five minutes) and the rest of any; 15 %
// are scans of 50 rows back from one of the newest 30 seconds; 5 % put a new row at the head and
// wait until it is durable. Five minutes are counted in rows, as in bench/evict_replay: what is
// written makes the table's clock go on, however fast that is.
//
// Page accesses are those of the replay: each level of the tree for a get and a put, and for a scan
// the further leaves as well. A miss is a page that a reader had to ask the daemon for.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/client.h"
#include "bench/measure.h"
#include "bench/rows.h"
#include "clientlib/bidstore.h"
#include "clientlib/load.h"
#include "clientlib/space_report.h"
#include "shm/stats.h"

namespace bench {

using bidstore::in;
using bidstore::Snapshot;
using bidstore::Store;

struct Row {
    std::uint64_t time = 0;
    std::uint64_t entity = 0;
    bidstore::Bytes<256> value;
};

}  // namespace bench

template <>
struct bidstore::Describe<bench::Row> {
    using Row = bench::Row;
    static constexpr auto table = bidstore::table<Row>(
        "seed", keys(column<&Row::time>("time", timestamp), column<&Row::entity>("entity")),
        values(column<&Row::value>("value")), time_column("time"));
};

namespace bench {
namespace {

struct Options {
    std::string mode;
    std::string socket;
    std::uint64_t rows = 4'000'000;
    std::uint32_t threads = 16;
    double warm = 20;
    double seconds = 20;
    bool full_scan = false;
};

using Table = bidstore::Table<Row>;

void fill(Row& row, const Shape& shape, std::uint64_t number) {
    row.time = shape.time(number);
    row.entity = shape.entity(number);
    fill_value(row.value.data.data(), number);
}

// ---- load ---------------------------------------------------------------------------------------

int load(const Options& options) {
    const bidstore::Schema schema = must(bidstore::Description<Row>::schema());
    bidstore::TableLoad loading = must(bidstore::TableLoad::begin(
        attach_options(options.socket, bidstore::Rights::kAdmin), schema, in(kPatience)));
    const Shape shape{options.rows, Shape::entities_for(options.rows), now_us() - kHourUs};
    const std::uint64_t begin = now_ns();
    const auto elapsed = [&] { return static_cast<double>(now_ns() - begin) / 1e9; };
    double next_line = 10;
    Row row;
    for (std::uint64_t number = 0; number < options.rows; ++number) {
        fill(row, shape, number);
        const bidstore::EncodedRow<Row> encoded(row);
        must(loading.add(encoded.key(), encoded.value(), in(kPatience)));
        if (number % 65'536 != 0 || elapsed() < next_line) continue;
        std::printf("  loaded %llu of %llu rows\n", static_cast<unsigned long long>(number),
                    static_cast<unsigned long long>(options.rows));
        std::fflush(stdout);
        next_line += 10;
    }
    must(loading.finish(in(std::chrono::minutes(10))));
    const double taken = elapsed();
    std::printf("  %.1f s, %.0f rows/s\n", taken, static_cast<double>(options.rows) / taken);
    return EXIT_SUCCESS;
}

// ---- the workload -------------------------------------------------------------------------------

enum Kind : std::size_t { kHotGet, kOtherGet, kScan, kPut, kKinds };

// What one thread did in one phase.
struct Tally {
    std::array<std::uint64_t, kKinds> operations{};
    std::array<std::uint64_t, kKinds> misses{};
    std::array<std::vector<std::uint32_t>, kKinds> samples_ns;

    void add(const Tally& other) {
        for (std::size_t kind = 0; kind < kKinds; ++kind) {
            operations[kind] += other.operations[kind];
            misses[kind] += other.misses[kind];
            samples_ns[kind].insert(samples_ns[kind].end(), other.samples_ns[kind].begin(),
                                    other.samples_ns[kind].end());
        }
    }
};

// What the threads share.
struct Common {
    Store store;
    Table table;
    Shape shape;
    std::atomic<std::uint64_t> next_row{0};
    std::atomic<int> phase{0};  // 0: warming up; below kStop: what the tallies are counted by
};
constexpr int kPhases = 3;
constexpr int kStop = kPhases;

class Bidder {
  public:
    Bidder(Common& common, std::uint64_t seed)
        : common_(common), reader_(must(common.store.reader())), random_(seed) {}

    void run() {
        for (;;) {
            const int phase = common_.phase.load(std::memory_order_relaxed);
            if (phase == kStop) return;
            const std::uint64_t die = random_.below(100);
            const Kind kind = die >= 95                  ? kPut
                              : die >= 80                ? kScan
                              : random_.below(100) < 87 ? kHotGet
                                                         : kOtherGet;
            const std::uint64_t misses = reader_.pages_asked_for();
            const std::uint64_t start = now_ns();
            step(kind);
            Tally& tally = tallies[static_cast<std::size_t>(phase)];
            ++tally.operations[kind];
            tally.misses[kind] += reader_.pages_asked_for() - misses;
            tally.samples_ns[kind].push_back(static_cast<std::uint32_t>(now_ns() - start));
        }
    }

    std::array<Tally, kPhases> tallies;

  private:
    void step(Kind kind) {
        const std::uint64_t rows = common_.next_row.load(std::memory_order_relaxed);
        const auto back = [&](std::uint64_t span) {
            return rows - 1 - random_.below(std::min(span, rows));
        };
        switch (kind) {
            case kHotGet: return get(back(common_.shape.five_minutes()));
            case kOtherGet: return get(back(rows));
            case kScan: return scan(back(common_.shape.half_a_minute()));
            default: return put();
        }
    }

    // A row of the newest few may be on its way still: another thread took its number.
    void get(std::uint64_t number) {
        const bidstore::Deadline deadline = in(kPatience);
        while (!find(number, deadline)) {
            if (std::chrono::steady_clock::now() > deadline) fail("a row is not there");
            std::this_thread::yield();
        }
    }
    bool find(std::uint64_t number, bidstore::Deadline deadline) {
        const std::uint64_t time = common_.shape.time(number);
        const std::uint64_t entity = common_.shape.entity(number);
        return must(bidstore::read_once(
            reader_, deadline, [&](const Snapshot& snapshot) -> bidstore::Result<bool> {
                const auto row = common_.table.peek(snapshot, time, entity);
                if (!row.ok()) return row.failure();
                const std::uint64_t words = *row ? sum_of((*row)->raw().value.data()) : 0;
                if (!snapshot.valid()) return expired();
                if (*row && words != number * kValueWords) fail("a row has another one's value");
                return row->has_value();
            }));
    }

    // 50 rows back from this one.
    void scan(std::uint64_t number) {
        const auto above = common_.table.prefix(common_.shape.time(number) + 1);
        must(bidstore::read_once(
            reader_, in(kPatience), [&](const Snapshot& snapshot) -> bidstore::Result<bool> {
                auto cursor = common_.table.scan(snapshot, {}, above,
                                                 {.limit = kScanRows, .reverse = true});
                while (cursor.next()) sum_ += cursor.row().get<&Row::time>();
                if (const auto status = cursor.status(); !status.ok()) return status.failure();
                return true;
            }));
    }

    void put() {
        const std::uint64_t number = common_.next_row.fetch_add(1, std::memory_order_relaxed);
        fill(row_, common_.shape, number);
        transaction_.clear();
        transaction_.put(common_.table, row_);
        must(common_.store.commit(transaction_, in(kPatience)));
    }

    static bidstore::Failure expired() {
        return {bidstore::Error::kSnapshotExpired, "the snapshot expired"};
    }

    Common& common_;
    bidstore::Reader reader_;
    Random random_;
    bidstore::Transaction transaction_;
    Row row_;
    std::uint64_t sum_ = 0;  // so that no read can be left out
};

// The whole table from its beginning, again and again, in the pieces that a snapshot can live for.
void scan_all(Common& common, std::uint64_t& rows_scanned) {
    bidstore::Reader reader = must(common.store.reader());
    std::uint64_t next_time = 0;
    constexpr std::uint64_t kPiece = 20'000;
    while (common.phase.load(std::memory_order_relaxed) != kStop) {
        const std::uint64_t piece = must(bidstore::read_once(
            reader, in(kPatience),
            [&](const Snapshot& snapshot) -> bidstore::Result<std::uint64_t> {
                std::uint64_t rows = 0;
                std::uint64_t time = 0;
                auto cursor = common.table.scan(snapshot, common.table.prefix(next_time), {},
                                                {.limit = kPiece, .streaming = true});
                for (; cursor.next(); ++rows) time = cursor.row().get<&Row::time>();
                if (const auto status = cursor.status(); !status.ok()) return status.failure();
                if (rows > 0) next_time = time + 1;
                return rows;
            }));
        rows_scanned += piece;
        if (piece < kPiece) next_time = 0;
    }
}

// ---- what is printed ----------------------------------------------------------------------------

struct Accesses {
    double point;  // of a get or a put
    double scan;
};

double percent(std::uint64_t misses, double accesses) {
    return accesses > 0 ? 100 * (1 - static_cast<double>(misses) / accesses) : 100;
}

void print_phase(const char* name, Tally& tally, const Accesses& accesses, double seconds) {
    static constexpr const char* kNames[kKinds] = {"get, newest 5 minutes", "get, any row",
                                                   "scan of 50 rows", "durable put"};
    std::printf("\n%s\n%-24s %10s %12s %9s %10s %10s\n", name, "", "1/s", "misses/s", "hits %",
                "p50 us", "p99 us");
    double all_accesses = 0;
    std::uint64_t all = 0;
    std::uint64_t misses = 0;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        const auto operations = static_cast<double>(tally.operations[kind]);
        const double touched = operations * (kind == kScan ? accesses.scan : accesses.point);
        all_accesses += touched;
        all += tally.operations[kind];
        misses += tally.misses[kind];
        std::printf("%-24s %10.0f %12.0f %9.3f %10.2f %10.2f\n", kNames[kind],
                    operations / seconds, static_cast<double>(tally.misses[kind]) / seconds,
                    percent(tally.misses[kind], touched), quantile_us(tally.samples_ns[kind], 0.5),
                    quantile_us(tally.samples_ns[kind], 0.99));
    }
    std::printf("%-24s %10.0f %12.0f %9.3f\n", "all", static_cast<double>(all) / seconds,
                static_cast<double>(misses) / seconds, percent(misses, all_accesses));
    std::fflush(stdout);
}

// Where the table's clock stands, by its newest row.
Shape find_shape(Store& store, const Table& table, std::uint64_t rows, std::uint64_t& next_row) {
    bidstore::Reader reader = must(store.reader());
    const Snapshot snapshot = must(reader.snapshot(in(kPatience)));
    auto cursor = table.newest(snapshot, 1);
    if (!cursor.next()) fail("the table is empty: --mode load first");
    const bidstore::Copy<Row> newest = must(cursor.copy());
    std::uint64_t number = 0;
    std::memcpy(&number, newest.value.data.data(), sizeof number);
    next_row = number + 1;
    return {rows, Shape::entities_for(rows), newest.time - number * kHourUs / rows};
}

Accesses find_accesses(Store& store, const Table& table, std::uint64_t rows) {
    bidstore::Reader reader = must(store.reader());
    const bidstore::TableSpace space =
        must(bidstore::table_space(reader, table.raw(), in(kPatience)));
    const double depth = space.depth;
    const double rows_per_leaf = static_cast<double>(rows) / static_cast<double>(space.leaves);
    std::printf("%llu leaves, %llu inner nodes, %u levels\n",
                static_cast<unsigned long long>(space.leaves),
                static_cast<unsigned long long>(space.inner_nodes), space.depth);
    return {depth, depth + static_cast<double>(kScanRows - 1) / rows_per_leaf};
}

int run(const Options& options) {
    Store store = attach(options.socket, bidstore::Rights::kWriter);
    const Table table = must(store.open<Row>(in(kPatience)));
    std::uint64_t next_row = 0;
    const Shape shape = find_shape(store, table, options.rows, next_row);
    const Accesses accesses = find_accesses(store, table, next_row);
    Common common{std::move(store), table, shape};
    common.next_row = next_row;
    std::vector<Bidder> bidders;
    bidders.reserve(options.threads);
    for (std::uint32_t i = 0; i < options.threads; ++i) bidders.emplace_back(common, i + now_ns());
    const auto pass = [](double seconds) {
        std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    };
    std::array<double, kPhases> seconds{};
    std::array<std::uint64_t, kPhases> page_reads{};
    std::uint64_t rows_scanned = 0;
    {
        std::vector<std::jthread> threads;
        for (Bidder& bidder : bidders) threads.emplace_back([&bidder] { bidder.run(); });
        for (int phase = 0; phase < (options.full_scan ? kPhases : kPhases - 1); ++phase) {
            const auto at = static_cast<std::size_t>(phase);
            common.phase.store(phase, std::memory_order_relaxed);
            if (phase == 2) threads.emplace_back([&] { scan_all(common, rows_scanned); });
            const std::uint64_t begin = now_ns();
            const std::uint64_t before = counter(common.store, bidstore::Counter::kPageReads);
            pass(phase == 0 ? options.warm : options.seconds);
            page_reads[at] = counter(common.store, bidstore::Counter::kPageReads) - before;
            seconds[at] = static_cast<double>(now_ns() - begin) / 1e9;
        }
        common.phase.store(kStop, std::memory_order_relaxed);
    }
    const char* names[kPhases] = {"warming up", "the workload", "beside a scan of the whole table"};
    for (std::size_t phase = 0; phase < kPhases; ++phase) {
        if (seconds[phase] == 0) continue;
        Tally all;
        for (const Bidder& bidder : bidders) all.add(bidder.tallies[phase]);
        print_phase(names[phase], all, accesses, seconds[phase]);
        std::printf("pages read from the device: %.0f 1/s\n",
                    static_cast<double>(page_reads[phase]) / seconds[phase]);
        if (phase == 2) {
            std::printf("rows scanned: %.0f 1/s\n",
                        static_cast<double>(rows_scanned) / seconds[phase]);
        }
    }
    return EXIT_SUCCESS;
}

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app("The seed workload against a bidstored that runs. See bench/README.md.");
    app.add_option("--mode", options.mode)->required()->check(CLI::IsMember({"load", "run"}));
    app.add_option("--socket", options.socket, "of the daemon")->envname("BIDSTORE_SOCKET");
    app.add_option("--rows", options.rows, "that load made, or is to make")
        ->check(CLI::Range(1'000ull, 1'000'000'000ull));
    app.add_option("--threads", options.threads)->check(CLI::Range(1, 120));
    app.add_option("--warm", options.warm, "seconds")->check(CLI::Range(0.1, 3600.0));
    app.add_option("--seconds", options.seconds)->check(CLI::Range(0.1, 3600.0));
    app.add_flag("--full-scan", options.full_scan, "measure once more beside a scan of it all");
    CLI11_PARSE(app, argument_count, arguments);
    return options.mode == "load" ? bench::load(options) : bench::run(options);
}
