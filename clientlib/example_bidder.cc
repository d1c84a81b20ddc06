// bidstore-bidder: an example of a bidder and of the process that feeds it, and the audit that
// proves that nothing was lost. daemon/demo.sh runs it; read bid_once() first.

#include "clientlib/example_bidder.h"

#include <algorithm>
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "clientlib/example_report.h"

namespace example {
namespace {

using bidstore::Error;
using bidstore::in;

constexpr std::uint64_t kWindowUs = 30'000'000;  // "the last 30 seconds"
constexpr std::size_t kSampleMax = 50'000;       // requests that the auctions are drawn from

// What a bidder holds for its whole life.
struct Bidder {
    bidstore::Store store;
    bidstore::Reader reader;
    Tables tables;
    Options options;
    Random random;
    std::vector<Id> sample;     // users of earlier requests, as often as they came
    std::uint64_t number = 0;   // of the newest win
    Measurements measured;
};

// What the store knows that a price depends on.
struct Knowledge {
    std::uint64_t wins = 0;        // of this user so far
    std::uint64_t recent = 0;      // requests of the last 30 seconds
    std::uint64_t same_user = 0;   // those of them that came from this user
};

// Looks up the user and the last 30 seconds, both under one snapshot and in place.
bidstore::Result<Knowledge> look(Bidder& bidder, const bidstore::Snapshot& snapshot,
                                 const Id& user) {
    Knowledge known;
    const std::uint64_t start = now_ns();
    auto row = bidder.tables.users.peek(snapshot, user);
    if (!row) return row.failure();
    if (*row) known.wins = (*row)->get<&User::wins>();
    const std::uint64_t got = now_ns();

    const auto& bids = bidder.tables.bids;
    auto recent = bids.scan(snapshot, bids.prefix(now_us() - kWindowUs));
    while (recent.next()) {
        ++known.recent;
        known.same_user += recent.row().get<&Bid::user>() == user ? 1 : 0;
    }
    // Only now, when the snapshot proves to have held all along, are the numbers worth anything.
    if (auto status = recent.status(); !status.ok()) return status.failure();
    bidder.measured.latencies["get_ns"].add(got - start);
    bidder.measured.latencies["scan_ns"].add(now_ns() - got);
    return known;
}

// The win and all that it changes, all or nothing. kBelowFloor: the advertiser has not enough left.
bidstore::Result<bidstore::Committed> win(Bidder& bidder, const Win& won) {
    bidstore::AddOptions create;
    create.create = true;
    bidstore::AddOptions not_below_zero;
    not_below_zero.floor = 0;
    const auto user = bidder.tables.users.key(won.user);
    const auto advertiser = bidder.tables.advertisers.key(won.advertiser);
    bidstore::Transaction transaction;
    transaction.add<&User::wins>(bidder.tables.users, user, 1, create);
    transaction.add<&Advertiser::budget>(bidder.tables.advertisers, advertiser,
                                         -static_cast<std::int64_t>(won.price), not_below_zero);
    transaction.add<&Advertiser::wins>(bidder.tables.advertisers, advertiser, 1);
    transaction.insert(bidder.tables.wins, won);
    return bidder.store.commit(transaction, in(kPatience));
}

std::string journal_line(const char* mark, const Win& won) {
    return std::string(mark) + " " + std::to_string(won.number) + " " + hex(won.user) + " " +
           std::to_string(won.advertiser) + " " + std::to_string(won.price);
}

bidstore::Status settle(Bidder& bidder, const Id& user, std::uint32_t price, Journal& journal) {
    Win won;
    won.bidder = bidder.options.bidder;
    won.number = bidder.number + 1;
    won.time = now_us();
    won.user = user;
    won.advertiser = static_cast<std::uint32_t>(bidder.random.below(bidder.options.advertisers));
    won.price = price;
    const std::uint64_t start = now_ns();
    auto committed = win(bidder, won);
    const Error error = committed.error();
    if (error == Error::kBelowFloor) {
        bidder.measured.numbers["refused_by_floor"] += 1;
        return {};
    }
    // Without an answer the win may still be applied: its number must not be used again.
    const bool unknown = error == Error::kTimedOut || error == Error::kUnknownOutcome;
    if (!committed.ok() && !unknown) return committed.failure();
    bidder.number = won.number;
    bidder.measured.numbers[unknown ? "wins_unknown" : "wins"] += 1;
    bidder.measured.latencies["commit_ns"].add(now_ns() - start);
    if (journal.line(journal_line(unknown ? "?" : "+", won))) return {};
    return {Error::kIoError, "the journal cannot be written"};
}

// One auction: look, decide, and write down what was won.
bidstore::Status bid_once(Bidder& bidder, Journal& journal) {
    const Id user = bidder.sample[bidder.random.below(bidder.sample.size())];
    auto known = bidstore::read_once(
        bidder.reader, in(kPatience),
        [&](const bidstore::Snapshot& snapshot) { return look(bidder, snapshot, user); });
    if (!known) return known.failure();
    bidder.measured.numbers["auctions"] += 1;
    bidder.measured.numbers["rows_scanned"] += static_cast<double>(known->recent);
    // A made-up market: users who were shown little are worth more, and one bid in three wins.
    const std::uint64_t seen = known->wins + known->same_user;
    const auto price = static_cast<std::uint32_t>(20 + bidder.random.below(400) / (1 + seen / 8));
    if (bidder.random.below(3) != 0) return {};
    return settle(bidder, user, price, journal);
}

// The users of the newest requests.
bidstore::Result<std::vector<Id>> draw_sample(Bidder& bidder) {
    return bidstore::read_once(
        bidder.reader, in(kPatience),
        [&](const bidstore::Snapshot& snapshot) -> bidstore::Result<std::vector<Id>> {
            std::vector<Id> users;
            auto newest = bidder.tables.bids.newest(snapshot, kSampleMax);
            while (newest.next()) {
                const Id user = newest.row().get<&Bid::user>();
                if (user != Id{}) users.push_back(user);
            }
            if (auto status = newest.status(); !status.ok()) return status.failure();
            return users;
        });
}

bidstore::Result<Bidder> make_bidder(const Options& options) {
    auto store = attach(options, bidstore::Rights::kWriter);
    if (!store) return store.failure();
    auto reader = store->reader();
    if (!reader) return reader.failure();
    auto tables = open_tables(*store);
    if (!tables) return tables.failure();
    return Bidder{std::move(*store), std::move(*reader), *tables, options, seeded(), {}, 0, {}};
}

}  // namespace

int bid(const Options& options) {
    auto bidder = make_bidder(options);
    if (!bidder) return fail(bidder.failure());
    auto sample = draw_sample(*bidder);
    if (!sample) return fail(sample.failure());
    if (sample->empty()) return fail({Error::kNotFound, "no row of the table bids has a user"});
    bidder->sample = std::move(*sample);

    const std::string name = options.directory + "/bidder-" + std::to_string(options.bidder);
    Journal journal(name + ".journal");
    if (!journal.open()) return fail({Error::kIoError, name + ".journal cannot be written"});
    const std::uint64_t start = now_ns();
    bidstore::Status status;
    while (status.ok() && static_cast<double>(now_ns() - start) < options.seconds * 1e9) {
        status = bid_once(*bidder, journal);
    }
    bidder->measured.numbers["bidder_seconds"] = static_cast<double>(now_ns() - start) / 1e9;
    bidder->measured.numbers["reconnects"] = static_cast<double>(bidder->store.reconnects());
    if (!journal.flush() || !bidder->measured.write(name + ".result")) {
        return fail({Error::kIoError, name + ": journal or result cannot be written"});
    }
    return status.ok() ? EXIT_SUCCESS : fail(status.failure());
}

int prepare(const Options& options) {
    auto store = attach(options, bidstore::Rights::kAdmin);
    if (!store) return fail(store.failure());
    auto made = store->create_table<Advertiser>(in(kPatience));
    if (made.ok()) made = store->create_table<Win>(in(kPatience));
    if (!made.ok()) return fail(made.failure());
    auto advertisers = store->open<Advertiser>(in(kPatience));
    if (!advertisers) return fail(advertisers.failure());
    bidstore::Transaction transaction;
    for (std::uint32_t i = 0; i < options.advertisers; ++i) {
        Advertiser row;
        row.id = i;
        // From a handful of wins to more than a run can spend, so that both cases are seen.
        row.initial = row.budget = 1'000ll << (i % 12);
        transaction.insert(*advertisers, row);
    }
    auto committed = store->commit(transaction, in(kPatience));
    if (!committed) return fail(committed.failure());
    std::printf("%u advertisers\n", options.advertisers);
    return EXIT_SUCCESS;
}

int fail(const bidstore::Failure& failure) {
    std::fprintf(stderr, "bidstore-bidder: %s: %s\n",
                 std::string(bidstore::error_name(failure.code)).c_str(), failure.what.c_str());
    return EXIT_FAILURE;
}

bidstore::Result<bidstore::Store> attach(const Options& options, bidstore::Rights rights) {
    bidstore::AttachOptions attach_options;
    attach_options.socket = options.socket;
    attach_options.rights = rights;
    attach_options.wait_for_daemon = true;
    return bidstore::Store::attach(attach_options, in(kPatience));
}

bidstore::Result<Tables> open_tables(bidstore::Store& store) {
    auto bids = store.open<Bid>(in(kPatience));
    if (!bids) return bids.failure();
    auto users = store.open<User>(in(kPatience));
    if (!users) return users.failure();
    auto advertisers = store.open<Advertiser>(in(kPatience));
    if (!advertisers) return advertisers.failure();
    auto wins = store.open<Win>(in(kPatience));
    if (!wins) return wins.failure();
    return Tables{*bids, *users, *advertisers, *wins};
}

std::uint64_t now_us() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

std::uint64_t now_ns() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

std::uint64_t Random::next() {
    std::uint64_t mixed = (state += 0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
}

Random seeded() {
    std::random_device device;
    return Random{std::uint64_t{device()} << 32 | device()};
}

}  // namespace example

int main(int argc, char** argv) {
    CLI::App app{"An example of a bidder on bidstore. daemon/demo.sh runs all of its modes.",
                 "bidstore-bidder"};
    example::Options options;
    const char* socket = std::getenv("BIDSTORE_SOCKET");
    options.socket = socket != nullptr ? socket : "/run/bidstore/bidstore.sock";
    int code = EXIT_SUCCESS;
    app.add_option("--socket", options.socket, "The daemon's socket (or $BIDSTORE_SOCKET)");
    app.add_option("--directory", options.directory, "Where journals and measurements go")
        ->check(CLI::ExistingDirectory);
    app.require_subcommand(1);
    app.fallthrough();
    CLI::App* prepare = app.add_subcommand("prepare", "Make advertisers with budgets, and wins");
    CLI::App* bid = app.add_subcommand("bid", "Hold auctions");
    CLI::App* ingest = app.add_subcommand(
        "ingest", "Write the requests of the table bids again, as if they came now");
    CLI::App* audit = app.add_subcommand(
        "audit", "Compare the store with the journals, and counters with the rows they count");
    for (CLI::App* mode : {prepare, bid}) {
        mode->add_option("--advertisers", options.advertisers, "How many there are")
            ->check(CLI::Range(1u, 1000u));
    }
    for (CLI::App* mode : {bid, ingest}) {
        mode->add_option("--seconds", options.seconds, "How long")->check(CLI::PositiveNumber);
    }
    bid->add_option("--bidder", options.bidder, "The number of this bidder");
    ingest->add_option("--speed", options.speed, "How much faster than the log came")
        ->check(CLI::PositiveNumber);
    prepare->callback([&] { code = example::prepare(options); });
    bid->callback([&] { code = example::bid(options); });
    ingest->callback([&] { code = example::ingest(options); });
    audit->callback([&] { code = example::audit(options); });
    CLI11_PARSE(app, argc, argv);
    return code;
}
