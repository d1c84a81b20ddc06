// The ingester: writes requests as they come, several transactions under way at a time.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "clientlib/example_bidder.h"
#include "clientlib/example_report.h"

namespace example {
namespace {

using bidstore::Error;
using bidstore::in;
using bidstore::Status;

constexpr std::size_t kInFlight = 64;
constexpr std::size_t kRequestsMax = 200'000;  // of the log, held in memory

struct Ingester {
    bidstore::Store store;
    bidstore::Table<Bid> bids;
    bidstore::Table<User> users;
    std::vector<bidstore::Copy<Bid>> log;  // in the order of time
    Random random;
    Measurements measured;
};

// A request that was sent and has no answer yet.
struct Sent {
    bidstore::Pending pending;
    std::uint64_t time = 0;
    Id auction;
    std::uint64_t start_ns = 0;
};

std::string_view host_of(std::string_view url) {
    const std::size_t scheme = url.find("://");
    if (scheme != std::string_view::npos) url.remove_prefix(scheme + 3);
    return url.substr(0, url.find_first_of("/?#:"));
}

// The request, and what it changes in its user's row.
bidstore::Transaction transaction_of(const Ingester& ingester, const Bid& bid) {
    bidstore::Transaction transaction;
    transaction.insert(ingester.bids, bid);
    if (bid.user == Id{}) return transaction;
    bidstore::AddOptions create;
    create.create = true;
    const auto user = ingester.users.key(bid.user);
    transaction.add<&User::requests>(ingester.users, user, 1, create);
    transaction.update(ingester.users, user, bidstore::set<&User::last_seen>(bid.time),
                       bidstore::set<&User::last_host>(host_of(bid.url)));
    return transaction;
}

// Waits for the oldest answer, and writes it down.
Status settle(Ingester& ingester, std::deque<Sent>& in_flight, Journal& journal) {
    Sent& oldest = in_flight.front();
    auto committed = oldest.pending.wait(in(kPatience));
    if (!committed) return committed.failure();
    ingester.measured.latencies["ingest_ns"].add(now_ns() - oldest.start_ns);
    ingester.measured.numbers["ingested"] += 1;
    const std::string line = "+ " + std::to_string(oldest.time) + " " + hex(oldest.auction);
    in_flight.pop_front();
    if (journal.line(line)) return {};
    return {Error::kIoError, "the journal cannot be written"};
}

Status send(Ingester& ingester, const Bid& request, std::uint64_t time,
            std::deque<Sent>& in_flight, Journal& journal) {
    Bid bid = request;
    bid.time = time;
    const std::uint64_t high = ingester.random.next();
    const std::uint64_t low = ingester.random.next();
    std::memcpy(bid.auction.data.data(), &high, sizeof(high));
    std::memcpy(bid.auction.data.data() + sizeof(high), &low, sizeof(low));
    const std::uint64_t start = now_ns();
    auto pending = ingester.store.submit(transaction_of(ingester, bid), in(kPatience));
    if (!pending) return pending.failure();
    in_flight.push_back({std::move(*pending), time, bid.auction, start});
    while (!in_flight.empty() &&
           (in_flight.size() > kInFlight || in_flight.front().pending.done())) {
        if (Status settled = settle(ingester, in_flight, journal); !settled.ok()) return settled;
    }
    return {};
}

// The requests that the store holds at the start.
bidstore::Result<std::vector<bidstore::Copy<Bid>>> read_log(bidstore::Store& store,
                                                            const bidstore::Table<Bid>& bids) {
    using Log = std::vector<bidstore::Copy<Bid>>;
    auto reader = store.reader();
    if (!reader) return reader.failure();
    bidstore::ScanOptions first_ones;
    first_ones.limit = kRequestsMax;
    return bidstore::read_once(
        *reader, in(kPatience), [&](const bidstore::Snapshot& snapshot) -> bidstore::Result<Log> {
            Log log;
            auto cursor = bids.scan(snapshot, {}, {}, first_ones);
            while (cursor.next()) log.push_back(cursor.row().copy());
            if (auto status = cursor.status(); !status.ok()) return status.failure();
            return log;
        });
}

bidstore::Result<Ingester> make_ingester(const Options& options) {
    auto store = attach(options, bidstore::Rights::kWriter);
    if (!store) return store.failure();
    auto bids = store->open<Bid>(in(kPatience));
    if (!bids) return bids.failure();
    auto users = store->open<User>(in(kPatience));
    if (!users) return users.failure();
    auto log = read_log(*store, *bids);
    if (!log) return log.failure();
    if (log->empty()) return {Error::kNotFound, "the table bids is empty: import a log first"};
    return Ingester{std::move(*store), *bids, *users, std::move(*log), seeded(), {}};
}

// The whole log as if it had come just now, at once, so that auctions find a full window.
Status catch_up(Ingester& ingester, std::deque<Sent>& in_flight, Journal& journal) {
    const std::uint64_t shift = now_us() - ingester.log.back().time;
    for (const Bid& request : ingester.log) {
        Status sent = send(ingester, request, request.time + shift, in_flight, journal);
        if (!sent.ok()) return sent;
    }
    return {};
}

// The log again and again, at its own pace.
Status follow(Ingester& ingester, const Options& options, std::uint64_t end_us,
              std::deque<Sent>& in_flight, Journal& journal) {
    for (;;) {
        const std::uint64_t begin = now_us();
        for (const Bid& request : ingester.log) {
            const auto after = static_cast<double>(request.time - ingester.log.front().time);
            const std::uint64_t due = begin + static_cast<std::uint64_t>(after / options.speed);
            const std::uint64_t now = now_us();
            if (now >= end_us) return {};
            if (due > now) {
                std::this_thread::sleep_for(std::chrono::microseconds(std::min(due, end_us) - now));
            }
            Status sent = send(ingester, request, now_us(), in_flight, journal);
            if (!sent.ok()) return sent;
        }
    }
}

}  // namespace

int ingest(const Options& options) {
    const std::uint64_t start = now_us();
    const std::uint64_t end = start + static_cast<std::uint64_t>(options.seconds * 1e6);
    auto ingester = make_ingester(options);
    if (!ingester) return fail(ingester.failure());
    const std::string name = options.directory + "/ingester";
    Journal journal(name + ".journal");
    if (!journal.open()) return fail({Error::kIoError, name + ".journal cannot be written"});
    std::deque<Sent> in_flight;
    Status status = catch_up(*ingester, in_flight, journal);
    if (status.ok()) status = follow(*ingester, options, end, in_flight, journal);
    while (status.ok() && !in_flight.empty()) status = settle(*ingester, in_flight, journal);
    ingester->measured.numbers["ingester_seconds"] = static_cast<double>(now_us() - start) / 1e6;
    if (!journal.flush() || !ingester->measured.write(name + ".result")) {
        return fail({Error::kIoError, name + ": journal or result cannot be written"});
    }
    return status.ok() ? EXIT_SUCCESS : fail(status.failure());
}

}  // namespace example
