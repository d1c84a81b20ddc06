// The audit: is everything that was acknowledged in the store, and do the counters say what the
// rows say? Works on what the processes wrote outside the store, and on one snapshot of it.

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "clientlib/example_bidder.h"
#include "clientlib/example_report.h"

namespace example {
namespace {

using bidstore::in;
using bidstore::Result;
using bidstore::Snapshot;
using bidstore::Status;
using WinKey = std::pair<std::uint32_t, std::uint64_t>;  // bidder, number

// What the journals say.
struct Journals {
    std::map<WinKey, Win> acknowledged;
    std::set<WinKey> unknown;
    std::vector<std::pair<std::uint64_t, Id>> requests;
    Measurements measured;
};

// What the audit found; every number here has to be zero for the audit to pass.
struct Findings {
    std::uint64_t lost_wins = 0;         // acknowledged, and not there or not the same
    std::uint64_t lost_requests = 0;
    std::uint64_t stray_wins = 0;        // there, but nobody ever heard of them
    std::uint64_t wrong_users = 0;       // counters that are not what the rows say
    std::uint64_t wrong_advertisers = 0;
    std::uint64_t below_zero = 0;

    std::uint64_t lost() const { return lost_wins + lost_requests; }
    bool pass() const {
        return lost() + stray_wins + wrong_users + wrong_advertisers + below_zero == 0;
    }
};

struct Counted {
    std::uint64_t requests = 0;
    std::uint64_t wins = 0;
    std::int64_t spent = 0;
};

// Everything in the store, worked out from one snapshot.
struct Audited {
    Findings findings;
    std::uint64_t bids = 0;
    std::uint64_t users = 0;
    std::uint64_t wins = 0;
    std::uint64_t unknown_applied = 0;
    std::uint64_t advertisers = 0;
    std::uint64_t exhausted = 0;
};

void read_journal(const std::filesystem::path& path, Journals& journals) {
    std::ifstream file(path);
    const std::string name = path.stem().string();
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string mark, id;
        std::uint64_t first = 0;
        words >> mark >> first >> id;
        if (!name.starts_with("bidder-")) {
            journals.requests.emplace_back(first, parse_hex(id));
            continue;
        }
        Win win;
        win.bidder = static_cast<std::uint32_t>(std::stoul(name.substr(7)));
        win.number = first;
        win.user = parse_hex(id);
        words >> win.advertiser >> win.price;
        if (mark == "+") journals.acknowledged[{win.bidder, win.number}] = win;
        else journals.unknown.insert({win.bidder, win.number});
    }
}

Journals read_journals(const std::string& directory) {
    Journals journals;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        if (entry.path().extension() == ".journal") read_journal(entry.path(), journals);
        if (entry.path().extension() == ".result") journals.measured.merge(entry.path().string());
    }
    return journals;
}

// The tables, and what was counted so far.
struct Auditor {
    Tables tables;
    const Journals& journals;
    Audited audited{};
    std::map<Id, Counted> by_user{};
    std::map<std::uint32_t, Counted> by_advertiser{};

    Status count_bids(const Snapshot& snapshot);
    Status count_wins(const Snapshot& snapshot);
    Status check_requests(const Snapshot& snapshot);
    Status check_users(const Snapshot& snapshot);
    Status check_advertisers(const Snapshot& snapshot);
};

Status Auditor::count_bids(const Snapshot& snapshot) {
    auto cursor = tables.bids.scan(snapshot);
    while (cursor.next()) {
        ++audited.bids;
        const Id user = cursor.row().get<&Bid::user>();
        if (user != Id{}) ++by_user[user].requests;
    }
    return cursor.status();
}

Status Auditor::count_wins(const Snapshot& snapshot) {
    std::uint64_t found = 0;
    auto cursor = tables.wins.scan(snapshot);
    while (cursor.next()) {
        const Win win = cursor.row().copy();
        ++audited.wins;
        ++by_user[win.user].wins;
        ++by_advertiser[win.advertiser].wins;
        by_advertiser[win.advertiser].spent += win.price;
        const WinKey key{win.bidder, win.number};
        const auto told = journals.acknowledged.find(key);
        if (told == journals.acknowledged.end()) {
            ++(journals.unknown.count(key) != 0 ? audited.unknown_applied
                                                : audited.findings.stray_wins);
            continue;
        }
        const Win& said = told->second;
        const bool same = said.user == win.user && said.advertiser == win.advertiser &&
                          said.price == win.price;
        found += same ? 1 : 0;
    }
    audited.findings.lost_wins = journals.acknowledged.size() - found;
    return cursor.status();
}

Status Auditor::check_requests(const Snapshot& snapshot) {
    for (const auto& [time, auction] : journals.requests) {
        auto row = tables.bids.peek(snapshot, time, auction);
        if (!row) return row.failure();
        audited.findings.lost_requests += *row ? 0 : 1;
    }
    return {};
}

Status Auditor::check_users(const Snapshot& snapshot) {
    std::uint64_t seen = 0;
    auto cursor = tables.users.scan(snapshot);
    while (cursor.next()) {
        ++audited.users;
        const auto counted = by_user.find(cursor.row().get<&User::id>());
        const Counted expected = counted == by_user.end() ? Counted{} : counted->second;
        seen += counted == by_user.end() ? 0 : 1;
        const bool same = cursor.row().get<&User::requests>() == expected.requests &&
                          cursor.row().get<&User::wins>() == expected.wins;
        audited.findings.wrong_users += same ? 0 : 1;
    }
    audited.findings.wrong_users += by_user.size() - seen;  // rows that ought to be there
    return cursor.status();
}

Status Auditor::check_advertisers(const Snapshot& snapshot) {
    std::uint64_t seen = 0;
    auto cursor = tables.advertisers.scan(snapshot);
    while (cursor.next()) {
        const Advertiser row = cursor.row().copy();
        ++audited.advertisers;
        audited.exhausted += row.budget < 420 ? 1 : 0;  // the highest price
        audited.findings.below_zero += row.budget < 0 ? 1 : 0;
        const auto counted = by_advertiser.find(row.id);
        const Counted expected = counted == by_advertiser.end() ? Counted{} : counted->second;
        seen += counted == by_advertiser.end() ? 0 : 1;
        const bool same = row.budget == row.initial - expected.spent && row.wins == expected.wins;
        audited.findings.wrong_advertisers += same ? 0 : 1;
    }
    audited.findings.wrong_advertisers += by_advertiser.size() - seen;
    return cursor.status();
}

Result<Audited> audit_at(Auditor auditor, const Snapshot& snapshot) {
    using Step = Status (Auditor::*)(const Snapshot&);
    for (Step step : {&Auditor::count_bids, &Auditor::count_wins, &Auditor::check_requests,
                      &Auditor::check_users, &Auditor::check_advertisers}) {
        if (Status done = (auditor.*step)(snapshot); !done.ok()) return done.failure();
    }
    if (!snapshot.valid()) {
        return {bidstore::Error::kSnapshotExpired,
                "the audit took longer than a snapshot may live"};
    }
    return auditor.audited;
}

Result<Audited> audit_store(const Options& options, const Journals& journals) {
    auto store = attach(options, bidstore::Rights::kReader);
    if (!store) return store.failure();
    auto reader = store->reader();
    if (!reader) return reader.failure();
    auto tables = open_tables(*store);
    if (!tables) return tables.failure();
    return bidstore::read_once(*reader, in(kPatience), [&](const Snapshot& snapshot) {
        return audit_at(Auditor{*tables, journals}, snapshot);
    });
}

void print_latency(const char* name, const Measurements& measured, const char* key) {
    const auto found = measured.latencies.find(key);
    if (found == measured.latencies.end()) return;
    std::printf("  %-22s p50 %10.1f us   p99 %10.1f us   (%" PRIu64 ")\n", name,
                found->second.quantile_us(0.5), found->second.quantile_us(0.99),
                found->second.count());
}

void print_measurements(const Measurements& measured, std::size_t bidders) {
    const auto number = [&](const char* name) {
        const auto found = measured.numbers.find(name);
        return found == measured.numbers.end() ? 0.0 : found->second;
    };
    // The bidders ran side by side, so the mean of their times is the time of all.
    const double seconds =
        bidders > 0 ? number("bidder_seconds") / static_cast<double>(bidders) : 0;
    const double auctions = number("auctions");
    const double commits = number("wins") + number("ingested");
    std::printf("auctions             %.0f in %.1f s by %zu bidders: %.0f a second\n", auctions,
                seconds, bidders, seconds > 0 ? auctions / seconds : 0);
    std::printf("last 30 seconds      %.0f rows at each auction, on average\n",
                auctions > 0 ? number("rows_scanned") / auctions : 0);
    print_latency("get of a user", measured, "get_ns");
    print_latency("scan of 30 s", measured, "scan_ns");
    print_latency("commit of a win", measured, "commit_ns");
    print_latency("commit of a request", measured, "ingest_ns");
    std::printf("durable commits      %.0f: %.0f a second, daemon restarts included\n", commits,
                seconds > 0 ? commits / seconds : 0);
    std::printf("wins                 %.0f, %.0f bids refused because the budget was too small\n",
                number("wins"), number("refused_by_floor"));
    std::printf("reconnections        %.0f by the bidders themselves\n", number("reconnects"));
}

void print_audit(const Journals& journals, const Audited& audited) {
    const Findings& findings = audited.findings;
    std::printf("rows                 bids %" PRIu64 ", users %" PRIu64 ", wins %" PRIu64
                ", advertisers %" PRIu64 " (%" PRIu64 " nearly or wholly spent)\n\n",
                audited.bids, audited.users, audited.wins, audited.advertisers, audited.exhausted);
    std::printf("audit\n");
    std::printf("  acknowledged wins %zu, missing or changed %" PRIu64 "\n",
                journals.acknowledged.size(), findings.lost_wins);
    std::printf("  acknowledged requests %zu, missing %" PRIu64 "\n", journals.requests.size(),
                findings.lost_requests);
    std::printf("  wins without an answer %zu (%" PRIu64 " of them applied), wins out of nowhere %"
                PRIu64 "\n",
                journals.unknown.size(), audited.unknown_applied, findings.stray_wins);
    std::printf("  users whose counters are off %" PRIu64 " of %" PRIu64 "\n",
                findings.wrong_users, audited.users);
    std::printf("  advertisers whose budget or counter is off %" PRIu64 ", below zero %" PRIu64
                ", of %" PRIu64 "\n",
                findings.wrong_advertisers, findings.below_zero, audited.advertisers);
    std::printf("acknowledged writes lost: %" PRIu64 "\n", findings.lost());
    std::printf("audit %s\n", findings.pass() ? "passed" : "FAILED");
}

}  // namespace

int audit(const Options& options) {
    const Journals journals = read_journals(options.directory);
    auto audited = audit_store(options, journals);
    if (!audited) return fail(audited.failure());
    std::set<std::uint32_t> bidders;
    for (const auto& [key, win] : journals.acknowledged) bidders.insert(key.first);
    print_measurements(journals.measured, bidders.size());
    print_audit(journals, *audited);
    // An audit of nothing proves nothing.
    const bool anything = !journals.acknowledged.empty() && !journals.requests.empty();
    if (!anything) {
        return fail({bidstore::Error::kNotFound, "no journals in " + options.directory});
    }
    return audited->findings.pass() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace example
