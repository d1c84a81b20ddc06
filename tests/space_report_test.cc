// `bidstore space`: every page of the file is accounted for, while the store is in use.
#include "clientlib/space_report.h"

#include <gtest/gtest.h>

#include "tests/real_store.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kDirectoryGroup = 128;

void fill(Store& store, const Table<Event>& table, std::uint64_t from, std::uint64_t to,
          std::uint64_t stride) {
    for (std::uint64_t at = from; at < to;) {
        Transaction rows;
        for (int i = 0; i < 100 && at < to; ++i, at += stride) {
            rows.put(table, {.time = at, .source = 1, .kind = 2, .text = "a row of some length"});
        }
        need(store.commit(rows, soon()));
    }
}

// The tree's height and the way its rows came in do not matter: tables and metadata together are
// what the bitmaps say is in use.
TEST(SpaceReport, TablesAndMetadataAreThePagesInUse) {
    RealDaemon daemon({"pool_bytes=64MiB"});
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    Reader reader = need(store.reader());
    const auto table = make_table<Event>(store);
    const auto look = [&] {
        const FileSpace file = need(file_space(reader, soon()));
        const std::uint64_t groups = (file.chunks + kDirectoryGroup - 1) / kDirectoryGroup;
        std::uint64_t pages = 2 + file.chunks + groups;
        for (const TableSpace& each : need(all_table_space(store, reader, soon()))) {
            pages += each.pages();
        }
        EXPECT_EQ(file.used_pages, pages);
        EXPECT_EQ(file.used_pages + file.free_pages, file.chunks * 512);
        return file;
    };
    const FileSpace empty = look();
    EXPECT_EQ(empty.chunks, 1u);
    EXPECT_EQ(empty.free_runs, 1u);

    fill(store, table, 0, 40'000, 1);
    const FileSpace file = look();
    const TableSpace ordered = need(table_space(reader, table.raw(), soon()));
    EXPECT_EQ(ordered.depth, 3u);
    EXPECT_EQ(ordered.rows_seen, 40'000u);
    EXPECT_EQ(ordered.leaves_seen, ordered.leaves);
    EXPECT_GT(ordered.fullness(), 0.95);
    EXPECT_GT(ordered.in_order_share(), 0.9);
    EXPECT_GT(file.used_pages, empty.used_pages + ordered.leaves);

    // Two rows of three go: the leaves that are left are merged, but no longer neighbours.
    for (std::uint64_t at = 0; at < 40'000; at += 30) {
        Transaction erase;
        erase.erase_range(table, table.prefix(at), table.prefix(at + 20));
        need(store.commit(erase, soon()));
    }
    const FileSpace after = look();
    const TableSpace sparse = need(table_space(reader, table.raw(), soon()));
    EXPECT_EQ(sparse.rows_seen, 13'330u);
    EXPECT_LT(sparse.leaves, ordered.leaves);
    EXPECT_LT(sparse.in_order_share(), ordered.in_order_share());
    EXPECT_GT(after.free_runs, file.free_runs);
}

// Large values are counted by their runs, each table's own, and leave with their rows.
TEST(SpaceReport, LargeValuesAreCountedForTheirTables) {
    RealDaemon daemon({"pool_bytes=64MiB", "log_segment_bytes=4MiB"});
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    Reader reader = need(store.reader());
    const auto table = make_table<Event>(store);
    constexpr std::uint64_t kBytes = 300'000, kPages = 74;
    const std::string text(kBytes, 'x');
    constexpr std::uint64_t kValues = 20;
    for (std::uint64_t at = 0; at < kValues; ++at) {
        Transaction row;
        row.put(table, {.time = at, .source = 1, .kind = 2, .text = text});
        need(store.commit(row, soon()));
    }
    const auto look = [&](std::uint64_t values) {
        const FileSpace file = need(file_space(reader, soon()));
        auto tables = need(all_table_space(store, reader, soon()));
        EXPECT_EQ(add_extents(file, tables).pages, 0u);
        std::uint64_t pages =
            2 + file.chunks + (file.chunks + kDirectoryGroup - 1) / kDirectoryGroup;
        for (const TableSpace& each : tables) {
            pages += each.pages();
            const bool ours = each.name == table.raw().name();
            const ExtentSpace& extents = each.extents;
            EXPECT_EQ(extents.pages, ours ? kPages * values : 0) << each.name;
            EXPECT_GE(extents.runs, ours ? values : 0);
            // All of its leaves are resident: rows and metadata tell the same.
            EXPECT_EQ(extents.seen, ours ? values : 0);
            EXPECT_EQ(extents.runs_seen, extents.runs);
            EXPECT_EQ(extents.pages_seen, extents.pages);
            EXPECT_EQ(extents.bytes_seen, ours ? kBytes * values : 0);
            if (!ours) continue;
            EXPECT_EQ(extents.free_bytes_seen(), (kPages * kPageBytes - kBytes) * values);
            EXPECT_NEAR(extents.fullness(), 0.9898, 0.0001);
            EXPECT_GE(extents.runs_each(), 1);
        }
        EXPECT_EQ(file.used_pages, pages);
        EXPECT_LE(file.large_value_pages, file.free_pages);
    };
    look(kValues);
    Transaction erase;
    erase.erase_range(table, table.prefix(std::uint64_t{3}), table.prefix(std::uint64_t{13}));
    need(store.commit(erase, soon()));
    look(kValues - 10);
}

TEST(SpaceReport, DoesNotBringLeavesIntoThePool) {
    RealDaemon daemon({"pool_bytes=8MiB"});
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    Reader reader = need(store.reader());
    const auto table = make_table<Event>(store);
    fill(store, table, 0, 300'000, 1);
    const std::uint64_t reads = counter(store, Counter::kPageReads);
    const TableSpace space = need(table_space(reader, table.raw(), soon()));
    EXPECT_GT(space.leaves, 2'000u);
    EXPECT_LT(space.leaves_seen, space.leaves);
    EXPECT_LT(counter(store, Counter::kPageReads) - reads, 2 * space.inner_nodes + 10);
}

}  // namespace
}  // namespace bidstore
