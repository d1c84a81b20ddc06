// A program outside the tree: builds against the installed library. Without an argument it shows
// that a missing daemon is a clear error; with a socket it makes a table, writes a row and reads it
// back.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "clientlib/bidstore.h"

using namespace std::chrono_literals;

static constexpr auto kPatience = 30s;  // on however busy a machine

struct Visit {
    bidstore::Bytes<16> user;
    std::uint64_t time = 0;
    std::uint32_t count = 0;
    std::string_view host;
};

template <>
struct bidstore::Describe<Visit> {
    static constexpr auto table = bidstore::table<Visit>(
        "visits", keys(column<&Visit::user>("user"), column<&Visit::time>("time", timestamp)),
        values(column<&Visit::count>("count"), column<&Visit::host>("host")), time_column("time"));
};

static int fail(const char* what, const bidstore::Failure& failure) {
    std::fprintf(stderr, "%s: %s\n", what, failure.what.c_str());
    return 1;
}

static int round_trip(const char* socket) {
    auto store = bidstore::Store::attach(
        {.socket = socket, .rights = bidstore::Rights::kAdmin, .wait_for_daemon = true},
        bidstore::in(kPatience));
    if (!store.ok()) return fail("attach", store.failure());
    const auto made = store->create_table<Visit>(bidstore::in(kPatience));
    if (!made.ok() && made.error() != bidstore::Error::kTableExists) {
        return fail("create_table", made.failure());
    }
    auto visits = store->open<Visit>(bidstore::in(kPatience));
    if (!visits.ok()) return fail("open", visits.failure());

    const auto user = bidstore::Bytes<16>::from("0123456789abcdef");
    bidstore::Transaction transaction;
    transaction.put(*visits,
                    {.user = user, .time = 17, .count = 1, .host = "example.org"});
    transaction.add<&Visit::count>(*visits, visits->key(user, 17u), 4);
    const auto committed = store->commit(transaction, bidstore::in(kPatience));
    if (!committed.ok()) return fail("commit", committed.failure());

    auto reader = store->reader();
    if (!reader.ok()) return fail("reader", reader.failure());
    const auto row = visits->get(*reader, bidstore::in(kPatience), user, 17u);
    if (!row.ok()) return fail("get", row.failure());
    const bool right = *row && (*row)->count == 5 && (*row)->host == "example.org";
    std::puts(right ? "written and read back" : "the row is not what was written");
    return right ? 0 : 1;
}

int main(int argc, char** argv) {
    if (argc > 1) return round_trip(argv[1]);
    const auto store = bidstore::Store::attach({.socket = "no-daemon.sock"}, bidstore::in(1s));
    if (store.ok() || store.error() != bidstore::Error::kDisconnected) {
        std::puts("expected to find no daemon");
        return 1;
    }
    std::puts(store.failure().what.c_str());
    return 0;
}
