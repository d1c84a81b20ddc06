// A store to be damaged and rebuilt: three tables, one of rows of a fixed size on a tree of three
// levels, one with large values, one whose rows expire; and what must come of it.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/catalog_row.h"
#include "engine/rebuild.h"
#include "engine/verify_files.h"
#include "tests/compaction_fixture.h"

namespace bidstore {

inline constexpr TableId kRowTable{kFirstUserTable.value};
inline constexpr TableId kValueTable{kFirstUserTable.value + 1};
inline constexpr TableId kTimedTable{kFirstUserTable.value + 2};
inline constexpr std::uint32_t kRebuildRows = 4'800;
inline constexpr std::uint32_t kRebuildValues = 40;

using RebuildRows = std::map<std::pair<std::uint32_t, std::vector<std::byte>>,
                             std::vector<std::byte>>;  // by table and key

inline SimStoreOptions rebuild_store() {
    SimStoreOptions options = small_store();
    options.frames = 1'500;
    options.pages = 8 * kChunkPages;
    options.engine.checkpoint_interval_ns = 1ull << 60;  // at a stop alone
    return options;
}

inline Schema timed_schema(const std::string& name = "timed") {
    auto schema = Schema::make(name,
                               {{"id", ColumnType::kU32, 0},
                                {"at", ColumnType::kTimestamp, 0},
                                {"text", ColumnType::kBytes, 0}},
                               1, 1);
    CHECK(schema.ok());
    return *schema;
}

// What one rebuild said.
struct Rebuilt {
    Status status;
    RebuildReport report;
    std::vector<RebuildNote> notes;

    std::size_t count(RebuildNote::Kind kind) const {
        std::size_t found = 0;
        for (const RebuildNote& note : notes) found += note.kind == kind;
        return found;
    }
    bool says(const std::string& words) const {
        for (const RebuildNote& note : notes) {
            if ((note.what + "; " + note.outcome).find(words) != std::string::npos) return true;
        }
        return false;
    }
    // Whether the row may be gone, or one that was erased before may be back, as it was said.
    bool may_lose(std::uint32_t table, const std::vector<std::byte>& key) const {
        return covers(RebuildNote::Kind::kLost, table, key) ||
               covers(RebuildNote::Kind::kPerhaps, table, key);
    }
    bool covers(RebuildNote::Kind kind, std::uint32_t table,
                const std::vector<std::byte>& key) const {
        for (const RebuildNote& note : notes) {
            const bool all = kind == RebuildNote::Kind::kPerhaps && !note.table;
            if (note.kind != kind || (note.table.value != table && !all)) continue;
            if (key >= note.keys.low && (note.keys.high.empty() || key < note.keys.high))
                return true;
        }
        return false;
    }
    std::string all() const {
        std::string text;
        for (const RebuildNote& note : notes) text += note.what + "; " + note.outcome + "\n";
        return text;
    }
};

class RebuildFixture : public ::testing::Test {
  protected:
    struct Made {
        std::unique_ptr<SimDisk> disk;    // stopped
        std::unique_ptr<SimDisk> logged;  // the same, cut off with changes in the log alone
        RebuildRows rows;
        RebuildRows logged_rows;
        std::uint64_t wall_us = 0;
        std::map<std::uint32_t, std::vector<PageId>> pages;  // by table: root last
        std::map<std::uint32_t, PageId> roots;
        std::vector<PageId> extents;  // pages of large values
    };

    // Made once for all tests.
    static const Made& made() {
        static const Made store = make();
        return store;
    }

    // The store with some rows changed since, stopped.
    struct Changed {
        std::unique_ptr<SimDisk> disk;
        RebuildRows rows;
    };
    static Changed with_new_rows() {
        SimStore store(rebuild_store(), made().disk->clone(5), 5);
        store.clock.set_wall_us(made().wall_us);
        CHECK(store.open().ok());
        CompactionRows written;
        put_rows(store, store.connect(), kRowTable, 1'190, 1'210, written, 3);
        CHECK(store.stop());
        Changed changed{store.disk->clone(5), made().rows};
        for (const auto& [key, value] : written) changed.rows[{kRowTable.value, key}] = value;
        return changed;
    }

    struct CatalogLeaves {
        std::vector<PageId> leaves;
        std::vector<std::vector<std::uint32_t>> ids;  // by leaf: of its tables, but the sessions
    };
    // The store with so many more tables that the catalog has several leaves: each with a row, the
    // last one with a large value. Two behind it are dropped: nothing but their ids is left.
    struct ManyTables : CatalogLeaves {
        std::unique_ptr<SimDisk> disk;    // stopped
        std::unique_ptr<SimDisk> logged;  // the same, cut off with one more row of each in the log
        RebuildRows rows;
        RebuildRows logged_rows;
        std::map<std::vector<std::byte>, std::vector<std::byte>> sessions;
        std::map<std::vector<std::byte>, std::vector<std::byte>> logged_sessions;
    };
    static constexpr TableId kFirstSmall{kTimedTable.value + 1};
    static constexpr TableId kWideTable{kFirstSmall.value + 150};
    static constexpr TableId kLastDropped{kWideTable.value + 2};
    static constexpr TableId kLateTable{kLastDropped.value + 1};  // which the log alone has

    static const ManyTables& many_tables() {
        static const ManyTables tables = make_many_tables();
        return tables;
    }
    static RebuildRows rows_of_all(SimStore& store) {
        RebuildRows rows;
        for (TableId table = kFirstUserTable; table.value <= kLateTable.value; ++table.value) {
            for (auto& [key, value] : store.rows(table)) rows[{table.value, key}] = value;
        }
        return rows;
    }

    static PoolSegment pool() { return verifier_pool(1'500, 8 * kChunkPages); }
    static EngineOptions engine_options() {
        EngineOptions options = rebuild_store().engine;
        options.random = [number = std::uint64_t{77}]() mutable { return ++number * 0x9e3779b9; };
        return options;
    }

    static Rebuilt rebuild(Disk& disk) {
        SimClock clock;
        return rebuild(disk, clock);
    }
    static Rebuilt rebuild(Disk& disk, SimClock& clock, const RebuildAgreed* agreed = nullptr) {
        Rebuilt found;
        PoolSegment segment = pool();
        const EngineOptions options = engine_options();
        std::string broken;
        auto report = rebuild_files(
            disk, clock, segment, options,
            [&](const RebuildNote& note) { found.notes.push_back(note); },
            [&](const BrokenRule& rule) { broken += rule.what + "\n"; }, nullptr, agreed);
        if (report) found.report = *report;
        if (!report) found.status = report.failure();
        EXPECT_EQ(broken, "") << found.all();
        return found;
    }

    static std::string verify(Disk& disk) {
        PoolSegment segment = pool();
        SimClock clock;
        std::string broken;
        const auto report =
            verify_files(disk, clock, segment, engine_options(),
                         [&](const BrokenRule& rule) { broken += rule.what + "\n"; });
        return report ? broken : report.failure().what;
    }

    // All rules hold; the daemon serves; rows are as before but for those that are said to be lost,
    // which are as before or not there. Returns how many are not.
    static std::size_t check(const SimDisk& disk, const Rebuilt& rebuilt, const RebuildRows& rows) {
        EXPECT_TRUE(rebuilt.status.ok()) << rebuilt.status.failure().what;
        if (!rebuilt.status) return 0;
        EXPECT_EQ(verify(*disk.clone(3)), "") << rebuilt.all();
        SimStore store(rebuild_store(), disk.clone(4), 4);
        store.clock.set_wall_us(made().wall_us);
        const Status opened = store.open();
        EXPECT_TRUE(opened.ok()) << opened.failure().what;
        if (!opened) return 0;
        const std::size_t lost = compare(rows_of(store), rebuilt, rows);
        EXPECT_TRUE(serves(store));
        return lost;
    }
    static std::size_t compare(const RebuildRows& found, const Rebuilt& rebuilt,
                               const RebuildRows& rows) {
        const auto name = [](const auto& key) {
            return "table " + std::to_string(key.first) + ", key " + hex_of(key.second.data(), 4);
        };
        std::size_t lost = 0;
        for (const auto& [key, value] : rows) {
            const auto there = found.find(key);
            if (there != found.end()) {
                EXPECT_TRUE(there->second == value) << name(key) << " is another one";
                continue;
            }
            ++lost;
            EXPECT_TRUE(rebuilt.may_lose(key.first, key.second))
                << name(key) << " is lost without a word\n"
                << rebuilt.all();
        }
        for (const auto& [key, value] : found) {
            const bool said = rebuilt.covers(RebuildNote::Kind::kUnproven, key.first, key.second);
            EXPECT_TRUE(said || rows.contains(key)) << name(key) << " came up";
        }
        return lost;
    }
    static bool serves(SimStore& store) {
        SimClient& client = store.connect();
        CompactionRows written;
        put_rows(store, client, kRowTable, 10'000, 10'040, written);
        EXPECT_EQ(written.size(), 40u);
        EXPECT_EQ(store.verify(), "");
        return store.stop();
    }
    static RebuildRows rows_of(SimStore& store) {
        RebuildRows rows;
        for (const TableId table : {kRowTable, kValueTable, kTimedTable}) {
            for (auto& [key, value] : store.rows(table)) rows[{table.value, key}] = value;
        }
        return rows;
    }

    // The newest copy.
    static Superblock superblock_of(const SimDisk& disk) {
        Superblock newest{};
        for (std::uint64_t copy = 0; copy < kSuperblockCopies; ++copy) {
            Superblock found{};
            const auto bytes = disk.peek(StoreFile::kData, copy * kBlockBytes, kBlockBytes);
            std::memcpy(&found, bytes.data(), sizeof found);
            if (found.sequence > newest.sequence) newest = found;
        }
        return newest;
    }

    // A copy of the files, with all bits of something in the middle of these pages flipped.
    static std::unique_ptr<SimDisk> damaged(const std::vector<PageId>& pages,
                                            const SimDisk* from = nullptr) {
        auto disk = (from != nullptr ? from : made().disk.get())->clone(1);
        for (const PageId page : pages) {
            disk->flip(StoreFile::kData, page.value * kPageBytes + 1'500);
        }
        return disk;
    }
    // Of the pages of a table, those of that level; from the checkpoint's file.
    static std::vector<PageId> level(TableId table, std::uint32_t wanted) {
        std::vector<PageId> found;
        for (const PageId page : made().pages.at(table.value)) {
            const auto bytes =
                made().disk->peek(StoreFile::kData, page.value * kPageBytes, kPageBytes);
            if (page_header(bytes.data()).level == wanted) found.push_back(page);
        }
        return found;
    }

    // The leaf of the checkpoint's file that has the row.
    static PageId leaf_of(std::uint32_t id) {
        const Schema schema = compaction_schema();
        const TreeShape shape(schema, kRowTable);
        for (const PageId page : level(kRowTable, 0)) {
            const auto bytes =
                made().disk->peek(StoreFile::kData, page.value * kPageBytes, kPageBytes);
            if (LeafView(bytes.data(), shape.leaf).find(row_key(id).data()) >= 0) return page;
        }
        return PageId{};
    }
    static void put_timed(SimStore& store, SimClient& client, std::uint32_t id, std::size_t length,
                          TableId table = kTimedTable) {
        const Schema schema = timed_schema();
        RowBuilder row(schema);
        CHECK(row.set_unsigned(1, store.clock.wall_us()).ok());
        CHECK(row.set_bytes(2, std::vector<std::byte>(length, std::byte(id))).ok());
        TransactionBytes put;
        put.operation(OperationKind::kPut, table, row_key(id), *row.value());
        CHECK(store.commit(client, put).error == Error::kOk);
    }
    static void create_timed(SimStore& store, SimClient& client, const Schema& timed) {
        const TableAttributes attributes{3'600'000'000, 0};  // an hour
        const std::string schema = timed.encode();
        TransactionBytes create;
        create.operation(OperationKind::kCreateTable, TableId{},
                         std::as_bytes(std::span(&attributes, 1)),
                         std::as_bytes(std::span(schema)));
        CHECK(store.commit(client, create).error == Error::kOk);
    }
    static void put_timed_rows(SimStore& store, SimClient& client, std::uint32_t first,
                               std::uint32_t last) {
        for (std::uint32_t id = first; id < last; ++id) {
            put_timed(store, client, id, id % 7 == 0 ? 9'000 : 300);
        }
    }
    // Tables that come and go; the id of the last one.
    static TableId drop_new_tables(SimStore& store, SimClient& client, int count) {
        TableId last;
        for (int i = 0; i < count; ++i) {
            last = store.create_table(client, small_schema("gone"));
            TransactionBytes drop;
            drop.operation(OperationKind::kDropTable, last, {}, {});
            CHECK(store.commit(client, drop).error == Error::kOk);
            const auto& counters = store.pool->stats().counter;
            const auto& dropping = counters[static_cast<std::uint32_t>(Counter::kTablesDropping)];
            Catalog& catalog = *store.engine->core().storage().catalog;
            const auto gone = [&] { return catalog.dropping().empty() && dropping.load() == 0; };
            CHECK(store.run_until(gone));
        }
        return last;
    }

    static CatalogLeaves catalog_of(const SimDisk& disk) {
        CatalogLeaves found;
        const TreeShape shape(catalog_schema(), kCatalogTable);
        const auto page = [&](PageId id) {
            return disk.peek(StoreFile::kData, id.value * kPageBytes, kPageBytes);
        };
        const auto root = page(kCatalogRootPage);
        CHECK(page_header(root.data()).level == 1);
        const InnerView children(root.data(), shape.inner);
        for (std::uint32_t child = 0; child < children.count(); ++child) {
            found.leaves.push_back(children.child(child));
            found.ids.emplace_back();
            const auto leaf = page(children.child(child));
            const LeafView rows(leaf.data(), shape.leaf);
            for (std::uint32_t row = 0; row < rows.count(); ++row) {
                const CatalogRowView table(rows.key(row), rows.value(row));
                if (table.id() == kSessionsTable || !table.has_tree()) continue;
                found.ids.back().push_back(table.id().value);
            }
        }
        CHECK(found.leaves.size() >= 3);
        return found;
    }

  private:
    static void put_value(SimStore& store, SimClient& client, std::uint32_t id,
                          std::uint32_t round) {
        TransactionBytes put;
        put.operation(OperationKind::kPut, kValueTable, row_key(id),
                      wide_row(id, round, id % 3 == 0 ? 9'000 + 100 * id : 300));
        CHECK(store.commit(client, put).error == Error::kOk);
    }

    static Schema small_schema(const std::string& name) {
        auto schema =
            Schema::make(name, {{"id", ColumnType::kU32, 0}, {"at", ColumnType::kU64, 0}}, 1);
        CHECK(schema.ok());
        return *schema;
    }
    static void put_small(SimStore& store, SimClient& client, TableId table, std::uint32_t id) {
        const Schema schema = small_schema("any");
        RowBuilder row(schema);
        CHECK(row.set_unsigned(1, 1'000 + table.value).ok());
        TransactionBytes put;
        put.operation(OperationKind::kPut, table, row_key(id), *row.value());
        CHECK(store.commit(client, put).error == Error::kOk);
    }
    static ManyTables make_many_tables() {
        ManyTables many;
        SimStore store(rebuild_store(), made().disk->clone(5), 5);
        store.clock.set_wall_us(made().wall_us);
        CHECK(store.open().ok());
        SimClient& client = store.connect();
        for (TableId table = kFirstSmall; table < kWideTable; ++table.value) {
            const Schema schema = small_schema("table" + std::to_string(table.value));
            CHECK(store.create_table(client, schema) == table);
            put_small(store, client, table, 1);
        }
        CHECK(store.create_table(client, timed_schema("wide")) == kWideTable);
        put_timed(store, client, 1, 9'000, kWideTable);
        CHECK(drop_new_tables(store, client, 2) == kLastDropped);
        CHECK(store.leave_sessions(3, kRowTable, row_key(99'999)));
        CHECK(store.stop());
        many.disk = store.disk->clone(5);
        static_cast<CatalogLeaves&>(many) = catalog_of(*many.disk);
        SimStore again(rebuild_store(), many.disk->clone(6), 6);
        again.clock.set_wall_us(made().wall_us);
        CHECK(again.open().ok());
        many.rows = rows_of_all(again);
        many.sessions = again.rows(kSessionsTable);
        SimClient& writer = again.connect();
        for (TableId table = kFirstSmall; table < kWideTable; ++table.value) {
            put_small(again, writer, table, 2);
        }
        put_timed(again, writer, 2, 9'000, kWideTable);
        const TableId late = again.create_table(writer, small_schema("late"));
        CHECK(late == kLateTable);
        put_small(again, writer, late, 1);
        many.logged_rows = rows_of_all(again);
        many.logged_sessions = again.rows(kSessionsTable);
        again.disk->crash_now();
        many.logged = again.disk->power_loss(1);
        return many;
    }

    static Made make() {
        Made made;
        SimStore store(rebuild_store(), std::make_unique<SimDisk>(), 1);
        CHECK(store.open().ok());
        SimClient& client = store.connect();
        CHECK(store.create_table(client, compaction_schema()) == kRowTable);
        CHECK(store.create_table(client, value_schema()) == kValueTable);
        create_timed(store, client, timed_schema());
        CompactionRows rows;
        put_rows(store, client, kRowTable, 0, kRebuildRows, rows);
        // Leaves that are freed, and whose places keep what they had.
        CHECK(erase_rows(store, client, kRowTable, 700, 900, rows) == Error::kOk);
        for (std::uint32_t id = 0; id < kRebuildValues; ++id) put_value(store, client, id, 0);
        put_timed_rows(store, client, 0, 60);
        CHECK(store.stop());
        made.disk = store.disk->clone(1);
        SimStore again(rebuild_store(), made.disk->clone(2), 2);
        again.clock.set_wall_us(store.clock.wall_us());
        CHECK(again.open().ok());
        made.rows = rows_of(again);
        for (const TableId table :
             {kCatalogTable, kSessionsTable, kRowTable, kValueTable, kTimedTable}) {
            Tree& tree = again.engine->core().storage().catalog->find(table)->tree;
            made.roots[table.value] = tree.root();
            for (int tries = 0; made.pages[table.value].empty() && tries < 2'000; ++tries) {
                std::vector<PageId> pages;
                const TreeAccess access =
                    tree.visit_pages([&](PageId page) { pages.push_back(page); });
                if (access.missing) {
                    CHECK(again.engine->core().storage().bring_in(access.missing).ok());
                } else {
                    made.pages[table.value] = pages;
                }
            }
        }
        const Space& space = again.engine->core().storage().space;
        for (PageId page{0}; page.value < space.chunk_count() * kChunkPages; ++page.value) {
            if (space.is_extent(page)) made.extents.push_back(page);
        }
        // What the log alone has: new rows, changed ones, and some that are erased.
        SimClient& writer = again.connect();
        CompactionRows later;
        put_rows(again, writer, kRowTable, 40, 60, later, 5);
        put_rows(again, writer, kRowTable, 5'000, 5'040, later, 5);
        for (const std::uint32_t id : {3u, 4u, 5u}) put_value(again, writer, id, 2);
        TransactionBytes erase;
        erase.operation(OperationKind::kDelete, kRowTable, row_key(1'200), {});
        CHECK(again.commit(writer, erase).error == Error::kOk);
        made.logged_rows = rows_of(again);
        made.wall_us = again.clock.wall_us();
        again.disk->crash_now();
        made.logged = again.disk->power_loss(1);
        return made;
    }
};

}  // namespace bidstore
