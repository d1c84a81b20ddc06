// The driver of `bench/run.sh recover`: fills a log for a recovery to replay, through the public
// API alone.
//
//   --mode load    makes the tables and loads --rows profiles, past the log
//   --mode write   --clients clients, each with --in-flight transactions under way, write until the
//                  daemon has written --log-mib MiB of log since it started
//
// What they write (--shape), rows of 16 + 256 bytes:
//   rows           transactions of one new row each, at the head of time
//   updates        transactions of one profile each, any of them, which is put whole
//   columns        the same, but eight bytes of it are updated
//   adds           transactions of one add each to one of 1000 counters
//   transactions   four operations each: an add to a counter, another to the counter of a profile,
//                  an update of a column of that profile, a new row at the head of time
//   values         transactions of one new row each, with a value of 4 to 60 KiB
#include <CLI/CLI.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "bench/measure.h"
#include "clientlib/bidstore.h"
#include "clientlib/load.h"
#include "shm/stats.h"

namespace bench {

using bidstore::in;
using bidstore::Store;
using bidstore::Transaction;

struct Event {
    std::uint64_t time = 0;
    std::uint64_t number = 0;
    bidstore::Bytes<256> value;
};
struct Profile {
    std::uint64_t high = 0;  // of its number, mixed, so that neighbours are strangers
    std::uint64_t number = 0;
    std::int64_t spent = 0;
    std::uint64_t seen = 0;
    bidstore::Bytes<240> value;
};
struct Picture {
    std::uint64_t number = 0;
    std::string_view content;
};
struct Budget {
    std::uint64_t number = 0;
    std::uint64_t kind = 0;
    std::int64_t spent = 0;
    bidstore::Bytes<248> value;
};

}  // namespace bench

template <>
struct bidstore::Describe<bench::Event> {
    using Row = bench::Event;
    static constexpr auto table = bidstore::table<Row>(
        "events", keys(column<&Row::time>("time", timestamp), column<&Row::number>("number")),
        values(column<&Row::value>("value")), time_column("time"));
};
template <>
struct bidstore::Describe<bench::Profile> {
    using Row = bench::Profile;
    static constexpr auto table = bidstore::table<Row>(
        "profiles", keys(column<&Row::high>("high"), column<&Row::number>("number")),
        values(column<&Row::spent>("spent"), column<&Row::seen>("seen"),
               column<&Row::value>("value")));
};
template <>
struct bidstore::Describe<bench::Picture> {
    using Row = bench::Picture;
    static constexpr auto table = bidstore::table<Row>(
        "pictures", keys(column<&Row::number>("number")), values(column<&Row::content>("content")));
};
template <>
struct bidstore::Describe<bench::Budget> {
    using Row = bench::Budget;
    static constexpr auto table = bidstore::table<Row>(
        "budgets", keys(column<&Row::number>("number"), column<&Row::kind>("kind")),
        values(column<&Row::spent>("spent"), column<&Row::value>("value")));
};

namespace bench {
namespace {

constexpr std::uint64_t kBudgets = 1000;
constexpr std::uint64_t kPictureBytesMax = 60 << 10;
constexpr auto kPatience = std::chrono::seconds(60);

struct Options {
    std::string mode;
    std::string socket;
    std::string shape;
    std::uint64_t rows = 2'000'000;
    std::uint64_t log_mib = 1024;
    std::uint32_t clients = 4;
    std::uint32_t in_flight = 64;
};

template <class T>
T must(bidstore::Result<T> result) {
    if (!result.ok()) fail(result.failure().what);
    return std::move(*result);
}
void must(const bidstore::Status& status) {
    if (!status.ok()) fail(status.failure().what);
}

bidstore::AttachOptions attach_options(const Options& options) {
    bidstore::AttachOptions attach;
    attach.socket = options.socket;
    attach.rights = bidstore::Rights::kAdmin;
    attach.wait_for_daemon = true;
    return attach;
}

// Profiles lie in the order of their numbers.
std::uint64_t high_of(std::uint64_t number) { return number >> 4; }

// ---- load ---------------------------------------------------------------------------------------

void load(const Options& options) {
    Store store = must(Store::attach(attach_options(options), in(kPatience)));
    must(store.create_table<Event>(in(kPatience)));
    must(store.create_table<Budget>(in(kPatience)));
    must(store.create_table<Picture>(in(kPatience)));
    const auto budgets = must(store.open<Budget>(in(kPatience)));
    Transaction transaction;
    for (std::uint64_t number = 0; number < kBudgets; ++number) {
        transaction.put(budgets, Budget{number, 0, 0, {}});
        if (transaction.operation_count() < 100 && number + 1 < kBudgets) continue;
        must(store.commit(transaction, in(kPatience)));
        transaction.clear();
    }
    const bidstore::Schema schema = must(bidstore::Description<Profile>::schema());
    bidstore::TableLoad loading =
        must(bidstore::TableLoad::begin(attach_options(options), schema, in(kPatience)));
    for (std::uint64_t number = 0; number < options.rows; ++number) {
        const bidstore::EncodedRow<Profile> encoded(Profile{high_of(number), number, 0, 0, {}});
        must(loading.add(encoded.key(), encoded.value(), in(kPatience)));
    }
    must(loading.finish(in(std::chrono::minutes(10))));
}

// ---- write --------------------------------------------------------------------------------------

struct Common {
    const Options& options;
    std::uint64_t first_time = now_us();
    std::atomic<std::uint64_t> next_row{0};
    std::atomic<std::uint64_t> applied{0};
    std::atomic<bool> stop{false};
};

// One client: a thread with a connection of its own.
class Writer {
  public:
    Writer(Common& common, std::uint64_t seed)
        : common_(common),
          store_(must(Store::attach(attach_options(common.options), in(kPatience)))),
          events_(must(store_.open<Event>(in(kPatience)))),
          profiles_(must(store_.open<Profile>(in(kPatience)))),
          budgets_(must(store_.open<Budget>(in(kPatience)))),
          pictures_(must(store_.open<Picture>(in(kPatience)))),
          random_(seed) {}

    void run() {
        std::deque<bidstore::Pending> in_flight;
        std::uint64_t applied = 0;
        Transaction transaction;
        while (!common_.stop.load(std::memory_order_relaxed)) {
            if (in_flight.size() >= common_.options.in_flight) {
                must(in_flight.front().wait(in(kPatience)));
                in_flight.pop_front();
                ++applied;
            }
            fill(transaction);
            in_flight.push_back(must(store_.submit(transaction, in(kPatience))));
            transaction.clear();
        }
        for (auto& pending : in_flight) must(pending.wait(in(kPatience)));
        common_.applied += applied + in_flight.size();
    }

  private:
    void fill(Transaction& transaction) {
        const std::string& shape = common_.options.shape;
        if (shape == "rows") return new_row(transaction);
        if (shape == "adds") return add(transaction);
        if (shape == "values") return new_picture(transaction);
        const std::uint64_t number = random_.below(common_.options.rows);
        if (shape == "updates") {
            Profile profile{high_of(number), number, 0, now_us(), {}};
            std::memcpy(profile.value.data.data(), &profile.seen, sizeof profile.seen);
            transaction.put(profiles_, profile);
            return;
        }
        const auto key = bidstore::Key<Profile>::from(high_of(number), number);
        if (shape == "transactions") {
            add(transaction);
            transaction.add<&Profile::spent>(profiles_, key, 1);
            new_row(transaction);
        }
        transaction.update(profiles_, key, bidstore::set<&Profile::seen>(now_us()));
    }
    void new_row(Transaction& transaction) {
        Event event{};
        event.number = common_.next_row.fetch_add(1, std::memory_order_relaxed);
        event.time = common_.first_time + event.number;
        std::memcpy(event.value.data.data(), &event.number, sizeof event.number);
        transaction.put(events_, event);
    }
    void new_picture(Transaction& transaction) {
        const std::uint64_t number = common_.next_row.fetch_add(1, std::memory_order_relaxed);
        const std::uint64_t bytes = 4'096 + random_.below(kPictureBytesMax - 4'096);
        std::memcpy(content_.data(), &number, sizeof number);
        transaction.put(pictures_, Picture{number, std::string_view(content_).substr(0, bytes)});
    }
    void add(Transaction& transaction) {
        const auto key = bidstore::Key<Budget>::from(random_.below(kBudgets), std::uint64_t{0});
        transaction.add<&Budget::spent>(budgets_, key, 1);
    }

    Common& common_;
    Store store_;
    bidstore::Table<Event> events_;
    bidstore::Table<Profile> profiles_;
    bidstore::Table<Budget> budgets_;
    bidstore::Table<Picture> pictures_;
    std::string content_ = std::string(kPictureBytesMax, 'x');
    Random random_;
};

std::uint64_t log_bytes(Store& store) {
    return must(store.stats(in(kPatience)))
        .counter[static_cast<std::size_t>(bidstore::Counter::kLogBytes)];
}

void write(const Options& options) {
    Common common{.options = options};
    Store store = must(Store::attach(attach_options(options), in(kPatience)));
    const std::uint64_t begin = now_ns();
    {
        std::vector<std::jthread> writers;
        for (std::uint32_t i = 0; i < options.clients; ++i) {
            writers.emplace_back([&common, i] { Writer(common, i + 1).run(); });
        }
        while (log_bytes(store) >> 20 < options.log_mib) {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
        common.stop = true;
    }
    const double seconds = static_cast<double>(now_ns() - begin) / 1e9;
    const auto applied = static_cast<double>(common.applied.load());
    std::printf("  %.0f transactions in %.1f s, %.0f /s, %.0f bytes of log each\n", applied,
                seconds, applied / seconds, static_cast<double>(log_bytes(store)) / applied);
}

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app("Fills the log of a bidstored that runs. See bench/README.md.");
    app.add_option("--mode", options.mode)->required()->check(CLI::IsMember({"load", "write"}));
    app.add_option("--shape", options.shape)
        ->check(CLI::IsMember({"rows", "updates", "columns", "adds", "transactions", "values"}));
    app.add_option("--socket", options.socket, "of the daemon")->envname("BIDSTORE_SOCKET");
    app.add_option("--rows", options.rows)->check(CLI::Range(1'000ull, 1'000'000'000ull));
    app.add_option("--log-mib", options.log_mib)->check(CLI::Range(1ull, 1'000'000ull));
    app.add_option("--clients", options.clients)->check(CLI::Range(1u, 16u));
    app.add_option("--in-flight", options.in_flight)->check(CLI::Range(1u, 1024u));
    CLI11_PARSE(app, argument_count, arguments);
    if (options.mode == "load")
        bench::load(options);
    else
        bench::write(options);
    return EXIT_SUCCESS;
}
