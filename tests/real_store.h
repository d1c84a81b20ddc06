// What tests against a real daemon share: two small tables, attaching, and looking at statistics.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "clientlib/bidstore.h"
#include "shm/stats.h"
#include "tests/processes.h"

namespace bidstore {

struct Counted {
    std::uint64_t id = 0;
    std::int64_t amount = 0;
    std::uint64_t round = 0;
};

struct Event {
    std::uint64_t time = 0;
    std::uint32_t source = 0;
    std::uint32_t kind = 0;
    std::string_view text;
};

template <>
struct Describe<Counted> {
    static constexpr auto table = bidstore::table<Counted>(
        "counted", keys(column<&Counted::id>("id")),
        values(column<&Counted::amount>("amount"), column<&Counted::round>("round")));
};

template <>
struct Describe<Event> {
    static constexpr auto table = bidstore::table<Event>(
        "events", keys(column<&Event::time>("time", timestamp), column<&Event::source>("source")),
        values(column<&Event::kind>("kind"), column<&Event::text>("text")), time_column("time"));
};

// EXPECT_TRUE(is_ok(result)) shows what failed.
template <class Result>
testing::AssertionResult is_ok(const Result& result) {
    if (result.ok()) return testing::AssertionSuccess();
    return testing::AssertionFailure()
           << error_name(result.error()) << ": " << result.failure().what;
}

inline Deadline soon() { return in(kPatience); }

inline Result<Store> try_attach(const RealDaemon& daemon, Rights rights = Rights::kAdmin) {
    return Store::attach({.socket = daemon.socket(), .rights = rights, .wait_for_daemon = true},
                         soon());
}

// Of something that the test cannot go on without: the exception ends the test, with the reason.
template <class T>
T need(Result<T> result) {
    if (!result.ok()) throw std::runtime_error(result.failure().what);
    return std::move(*result);
}
inline void need(const Status& status) {
    if (!status.ok()) throw std::runtime_error(status.failure().what);
}

inline Store attach(const RealDaemon& daemon, Rights rights = Rights::kAdmin) {
    return need(try_attach(daemon, rights));
}

template <class T>
Table<T> make_table(Store& store) {
    need(store.create_table<T>(soon()));
    return need(store.open<T>(soon()));
}

inline std::uint64_t counter(Store& store, Counter which) {
    return need(store.stats(soon())).counter[static_cast<std::size_t>(which)];
}

// The pool, by one who asks for it and keeps no place; it can be read when the daemon is gone, too.
// Nothing: not let in.
inline std::optional<PoolView> look_at_pool(const RealDaemon& daemon) {
    RawGreeting greeting = greet(daemon.socket(), good_hello(Rights::kReader));
    if (greeting.descriptors.size() != 3) return std::nullopt;
    return need(PoolView::map(std::move(greeting.descriptors[0])));
}

// Whether each frame of the pool is free or has the newest version of a page, soon at least; where
// somebody holds versions, it is not.
inline testing::AssertionResult every_frame_is_accounted_for(const RealDaemon& daemon) {
    std::optional<PoolView> pool;
    // When those who left a moment ago have given up their places.
    if (!eventually([&] { return (pool = look_at_pool(daemon)).has_value(); })) {
        return testing::AssertionFailure() << "not let in";
    }
    const std::uint64_t all = counter_value(pool->stats(), Counter::kFrames);
    std::uint64_t free = 0;
    std::uint64_t resident = 0;
    const auto accounted_for = [&] {
        free = counter_value(pool->stats(), Counter::kFreeFrames);
        resident = 0;
        for (std::uint32_t page = 0; page < pool->page_count(); ++page) {
            resident += (pool->page_map()[page].load() & kFrameMask) != kNoFrame;
        }
        return free + resident == all;
    };
    if (eventually(accounted_for, std::chrono::seconds(10))) return testing::AssertionSuccess();
    return testing::AssertionFailure()
           << "of " << all << " frames " << free << " are free and " << resident << " have a page";
}

// What clients that mean no harm and a device that is well never bring about, whoever is killed or
// stopped; totals of the daemon's whole life.
inline void expect_no_harm(const std::function<std::uint64_t(Counter)>& value) {
    for (const Counter which : {Counter::kHostileEvents, Counter::kClientsDropped,
                                Counter::kCorruptPages, Counter::kPageReadErrors}) {
        EXPECT_EQ(value(which), 0u) << kCounterNames[static_cast<std::size_t>(which)].name;
    }
}

// Until the counter is that, which may take a moment.
inline void expect_counter(Store& store, Counter which, std::uint64_t value) {
    EXPECT_TRUE(eventually([&] { return counter(store, which) == value; }))
        << kCounterNames[static_cast<std::size_t>(which)].name << " is " << counter(store, which);
}

// Once nobody but this store is left, nothing of the others is left either.
inline void expect_rest(Store& store, const RealDaemon& daemon) {
    expect_counter(store, Counter::kClients, 1);
    expect_counter(store, Counter::kHeldVersions, 0);
    expect_counter(store, Counter::kParkedTransactions, 0);
    expect_counter(store, Counter::kSessions, 1);
    expect_counter(store, Counter::kTablesDropping, 0);
    EXPECT_TRUE(every_frame_is_accounted_for(daemon));
    expect_counter(store, Counter::kClients, 1);
    expect_no_harm([&](Counter which) { return counter(store, which); });
}

// The rows between two bounds, in order, under one snapshot; without bounds, all.
template <class T>
Result<std::vector<Copy<T>>> rows_between(const Snapshot& snapshot, const Table<T>& table,
                                          const Prefix<T>& lower, const Prefix<T>& upper) {
    std::vector<Copy<T>> rows;
    auto cursor = table.scan(snapshot, lower, upper);
    while (cursor.next()) {
        auto row = cursor.copy();
        if (!row.ok()) return row.failure();
        rows.push_back(std::move(*row));
    }
    if (Status status = cursor.status(); !status.ok()) return status.failure();
    return rows;
}
template <class T>
std::vector<Copy<T>> all_rows(Store& store, const Table<T>& table) {
    Reader reader = need(store.reader());
    return need(read_once(reader, soon(), [&](const Snapshot& snapshot) {
        return rows_between<T>(snapshot, table, {}, {});
    }));
}
template <class T>
std::vector<Copy<T>> all_rows(Store& store, const Table<T>& table, std::uint64_t from,
                              std::uint64_t to) {
    Reader reader = need(store.reader());
    return need(read_once(reader, soon(), [&](const Snapshot& snapshot) {
        return rows_between<T>(snapshot, table, table.prefix(from), table.prefix(to));
    }));
}

}  // namespace bidstore
