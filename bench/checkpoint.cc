// The driver of `bench/run.sh checkpoint`: durable commits while checkpoints come and go, through
// the public API alone.
//
//   --mode load   fills a table with --rows rows of 8 + 256 bytes
//   --mode run    for --seconds, puts random ones of these rows anew, one to a transaction, durably
//
// With --rate it is an open loop: commit number n is due at n / rate and its latency counts from
// then, whether it could be sent or not, so that a stall is felt by all that it holds up. Without,
// as many as calls may be under way are, all the time. One thread sends, and sleeps until the next
// commit is due or an answer comes, as a bidder would: on a machine of two cores one that never
// sleeps takes the time of the kernel's own threads, which a synced write needs. A commit counts as
// made during a checkpoint when one ran at its beginning or at its end, by the daemon's counter
// checkpoint_step, read every half millisecond.
#include <sys/prctl.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "bench/client.h"
#include "bench/measure.h"
#include "bench/numbered_row.h"
#include "clientlib/bidstore.h"
#include "shm/stats.h"

namespace bench {

using bidstore::Store;

namespace {

constexpr std::uint64_t kLookNs = 500'000;
constexpr std::size_t kSteps = 6;           // of the checkpoint's recipe, and none
constexpr std::size_t kInFlightMost = 480;  // calls of a client, and of undecided writes

struct Options {
    std::string mode;
    std::string socket;
    std::uint64_t rows = 1'000'000;
    std::uint64_t rate = 0;  // 0: as fast as it goes
    double warm = 1;
    double seconds = 20;
};

using Table = bidstore::Table<Row>;

void fill(Row& row, std::uint64_t number, std::uint64_t round) {
    row.number = number;
    std::memcpy(row.value.data.data(), &number, sizeof number);
    std::memcpy(row.value.data.data() + sizeof number, &round, sizeof round);
}

// What was seen of the daemon, and of the commits, by the step of the checkpoint under way.
struct Seen {
    std::array<std::vector<std::uint32_t>, kSteps> latency_ns;
    std::array<std::uint64_t, kSteps> time_ns{};
    std::uint64_t stall_ns[2] = {};  // the longest time without an answer: without a checkpoint,
                                     // and with one
    std::uint64_t log_behind_most = 0;
    std::uint64_t checkpoints = 0;
    std::uint64_t checkpoint_pages = 0;
    std::uint64_t slowed_ns = 0;
    std::uint64_t log_bytes = 0;
    double seconds = 0;
};

class Writer {
  public:
    Writer(Store& store, const Table& table, const Options& options)
        : store_(store), table_(table), options_(options), random_(now_ns()) {}

    Seen run() {
        const std::uint64_t begin = now_ns();
        const std::uint64_t end = begin + static_cast<std::uint64_t>(options_.seconds * 1e9);
        const double gap_ns = options_.rate > 0 ? 1e9 / static_cast<double>(options_.rate) : 0;
        look(begin);
        last_answer_ns_ = begin;
        const bidstore::Stats first = must(store_.stats(bidstore::in(kPatience)));
        for (std::uint64_t n = 0;; ++n) {
            const std::uint64_t due =
                begin + static_cast<std::uint64_t>(static_cast<double>(n) * gap_ns);
            std::uint64_t now = settle();
            while (now < due || in_flight_.size() >= kInFlightMost) {
                sleep(now < due ? due : now + kLookNs);
                now = settle();
            }
            if (now >= end) break;
            send(n, options_.rate > 0 ? due : now);
        }
        while (!in_flight_.empty()) {
            sleep(now_ns() + kLookNs);
            settle();
        }
        const bidstore::Stats last = must(store_.stats(bidstore::in(kPatience)));
        const auto grown = [&](bidstore::Counter which) {
            return counter(last, which) - counter(first, which);
        };
        seen_.checkpoints = grown(bidstore::Counter::kCheckpoints);
        seen_.checkpoint_pages = grown(bidstore::Counter::kCheckpointPages);
        seen_.slowed_ns = grown(bidstore::Counter::kWritersSlowedNs);
        seen_.log_bytes = grown(bidstore::Counter::kLogBytes);
        seen_.seconds = static_cast<double>(now_ns() - begin) / 1e9;
        return std::move(seen_);
    }

  private:
    struct Commit {
        bidstore::Pending pending;
        std::uint64_t due_ns;
        std::size_t step;  // when it was sent
    };

    void send(std::uint64_t n, std::uint64_t due_ns) {
        fill(row_, random_.below(options_.rows), n);
        transaction_.clear();
        transaction_.put(table_, row_);
        in_flight_.push_back(
            {must(store_.submit(transaction_, bidstore::in(kPatience))), due_ns, step_});
    }

    // Until then, or until the oldest commit is answered.
    void sleep(std::uint64_t until_ns) {
        const std::chrono::steady_clock::time_point until{std::chrono::nanoseconds(until_ns)};
        if (in_flight_.empty()) return std::this_thread::sleep_until(until);
        static_cast<void>(in_flight_.front().pending.wait(until));
    }

    // Takes the answers that are there; the time by which they were.
    std::uint64_t settle() {
        const std::uint64_t now = now_ns();
        if (now - last_look_ns_ >= kLookNs) look(now);
        bool any = false;
        while (!in_flight_.empty() && in_flight_.front().pending.done()) {
            Commit& commit = in_flight_.front();
            must(commit.pending.wait(bidstore::in(kPatience)));
            const std::size_t step = step_ != 0 ? step_ : commit.step;
            seen_.latency_ns[step].push_back(static_cast<std::uint32_t>(now - commit.due_ns));
            in_flight_.pop_front();
            any = true;
        }
        if (any || in_flight_.empty()) {
            std::uint64_t& longest = seen_.stall_ns[step_ != 0];
            longest = std::max(longest, now - last_answer_ns_);
            last_answer_ns_ = now;
        }
        return now;
    }

    void look(std::uint64_t now) {
        const bidstore::Stats stats = must(store_.stats(bidstore::in(kPatience)));
        if (last_look_ns_ != 0) seen_.time_ns[step_] += now - last_look_ns_;
        last_look_ns_ = now;
        step_ = counter(stats, bidstore::Counter::kCheckpointStep);
        seen_.log_behind_most =
            std::max(seen_.log_behind_most, counter(stats, bidstore::Counter::kLogBehindBytes));
    }

    Store& store_;
    const Table& table_;
    const Options& options_;
    Random random_;
    Row row_;
    bidstore::Transaction transaction_;
    std::deque<Commit> in_flight_;
    std::size_t step_ = 0;
    std::uint64_t last_look_ns_ = 0;
    std::uint64_t last_answer_ns_ = 0;
    Seen seen_;
};

// ---- what is printed ----------------------------------------------------------------------------

double line(const char* name, std::vector<std::uint32_t>& latency_ns, std::uint64_t time_ns) {
    const double seconds = static_cast<double>(time_ns) / 1e9;
    const auto commits = static_cast<double>(latency_ns.size());
    const double p999 = quantile_us(latency_ns, 0.999);
    std::printf("%-34s %8.2f %10.0f %10.0f %10.0f %10.0f %10.0f\n", name, seconds,
                seconds > 0 ? commits / seconds : 0, quantile_us(latency_ns, 0.5),
                quantile_us(latency_ns, 0.99), p999, quantile_us(latency_ns, 1));
    return p999;
}

void print(Seen seen, const Options& options) {
    static constexpr const char* kNames[kSteps] = {"without a checkpoint", "  1 to new places",
                                                   "  2 to the journal",   "  3 the commit point",
                                                   "  4 to their places",  "  5 the end"};
    std::printf("\n%-34s %8s %10s %10s %10s %10s %10s\n", "durable commits", "seconds", "1/s",
                "p50 us", "p99 us", "p99.9 us", "most us");
    std::vector<std::uint32_t> during;
    std::uint64_t during_ns = 0;
    for (std::size_t step = 1; step < kSteps; ++step) {
        const auto& some = seen.latency_ns[step];
        during.insert(during.end(), some.begin(), some.end());
        during_ns += seen.time_ns[step];
    }
    const double without = line(kNames[0], seen.latency_ns[0], seen.time_ns[0]);
    const double with = line("during one", during, during_ns);
    for (std::size_t step = 1; step < kSteps; ++step) {
        line(kNames[step], seen.latency_ns[step], seen.time_ns[step]);
    }
    constexpr double kTimesMost = 3;  // at a rate; at full speed there may be no time without one
    const double times = without > 0 ? with / without : 0;
    std::printf("p99.9 during / without: %.2f", times);
    if (options.rate > 0) {
        std::printf(" (target at most %.0f: %s)", kTimesMost,
                    times > 0 && times <= kTimesMost ? "met" : "MISSED");
    }
    std::printf("\n");
    std::printf(
        "longest time without an answer: %.2f ms without a checkpoint, %.2f ms during one\n",
        static_cast<double>(seen.stall_ns[0]) / 1e6, static_cast<double>(seen.stall_ns[1]) / 1e6);
    const double mib = 1 << 20;
    std::printf(
        "%llu checkpoints of %.0f pages, log %.1f MiB/s, behind the checkpoint at most "
        "%.0f MiB; writers slowed %.1f %% of the time\n",
        static_cast<unsigned long long>(seen.checkpoints),
        static_cast<double>(seen.checkpoint_pages) /
            static_cast<double>(std::max<std::uint64_t>(seen.checkpoints, 1)),
        static_cast<double>(seen.log_bytes) / mib / seen.seconds,
        static_cast<double>(seen.log_behind_most) / mib,
        static_cast<double>(seen.slowed_ns) / 1e7 / seen.seconds);
}

int load(const Options& options) {
    Store store = attach(options.socket, bidstore::Rights::kAdmin);
    must(store.create_table<Row>(bidstore::in(kPatience)));
    const Table table = must(store.open<Row>(bidstore::in(kPatience)));
    std::deque<bidstore::Pending> in_flight;
    const auto settle = [&] {
        must(in_flight.front().wait(bidstore::in(kPatience)));
        in_flight.pop_front();
    };
    Row row;
    bidstore::Transaction transaction;
    for (std::uint64_t i = 0; i < options.rows; ++i) {
        fill(row, i, 0);
        transaction.put(table, row);
        if (transaction.operation_count() < 128 && i + 1 < options.rows) continue;
        while (in_flight.size() >= 32) settle();
        in_flight.push_back(must(store.submit(transaction, bidstore::in(kPatience))));
        transaction.clear();
    }
    while (!in_flight.empty()) settle();
    return EXIT_SUCCESS;
}

int run(const Options& options) {
    ::prctl(PR_SET_TIMERSLACK, 1);  // a commit is due when it is, not 50 us later
    Store store = attach(options.socket, bidstore::Rights::kWriter);
    const Table table = must(store.open<Row>(bidstore::in(kPatience)));
    Options warm = options;
    warm.seconds = options.warm;
    static_cast<void>(Writer(store, table, warm).run());
    print(Writer(store, table, options).run(), options);
    return EXIT_SUCCESS;
}

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app("Durable commits beside checkpoints, against a bidstored that runs.");
    app.add_option("--mode", options.mode)->required()->check(CLI::IsMember({"load", "run"}));
    app.add_option("--socket", options.socket, "of the daemon")->envname("BIDSTORE_SOCKET");
    app.add_option("--rows", options.rows)->check(CLI::Range(1'000ull, 1'000'000'000ull));
    app.add_option("--rate", options.rate, "commits a second, 0: as many as it takes")
        ->check(CLI::Range(0ull, 1'000'000ull));
    app.add_option("--warm", options.warm, "seconds before")->check(CLI::Range(0.1, 3600.0));
    app.add_option("--seconds", options.seconds)->check(CLI::Range(0.1, 3600.0));
    CLI11_PARSE(app, argument_count, arguments);
    return options.mode == "load" ? bench::load(options) : bench::run(options);
}
