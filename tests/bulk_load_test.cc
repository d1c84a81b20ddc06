// Bulk loads through the engine: all rows or none, nothing of the file lost, nobody else disturbed.
#include <gtest/gtest.h>

#include "tests/load_fixture.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

TEST_F(BulkLoadTest, AllRowsAreThereWithTheLastAnswer) {
    for (const bool variable : {false, true}) {
        for (const std::uint32_t count : {0u, 1u, 14u, 15u, 28u, 29u, 3'000u}) {
            const std::string name = "t" + std::to_string(variable) + "_" + std::to_string(count);
            SCOPED_TRACE(name);
            const Schema schema = load_schema(name, variable);
            const LoadRows rows = make_load_rows(schema, count, count);
            ASSERT_EQ(run_load(store_, *client_, schema, rows), Error::kOk);
            ASSERT_NE(table_named(store_, name), nullptr);
            EXPECT_EQ(store_.rows(table_named(store_, name)->id), rows);
        }
    }
    EXPECT_EQ(store_.verify(), "");
    EXPECT_EQ(unused_pages(), space().available() + space().quarantined());
}

// What was set and acknowledged while the load was under way is not undone by its end.
TEST_F(BulkLoadTest, RetentionSetDuringTheLoadHoldsForTheLoadedTable) {
    const Schema schema = load_schema("kept", false);
    const TableId empty = store_.create_table(*client_, schema);
    const auto retain = [&](std::uint64_t retain_us) {
        const TableAttributes attributes{retain_us, 0};
        TransactionBytes bytes;
        bytes.operation(OperationKind::kSetTable, empty, {},
                        std::as_bytes(std::span(&attributes, 1)));
        EXPECT_EQ(store_.commit(*client_, bytes).error, Error::kOk);
    };
    retain(kRetainMaxUs);
    const LoadRows rows = make_load_rows(schema, 100, 1);
    SimClient& loader = store_.connect();
    LoadClient load(loader, schema, rows);
    ASSERT_FALSE(load.step());
    ASSERT_TRUE(store_.run_until([&] { return load.step() || load.answered() > 0; }));
    retain(0);
    ASSERT_TRUE(store_.run_until([&] { return load.step(); }));
    ASSERT_TRUE(load.loaded());
    ASSERT_NE(table_named(store_, "kept")->id, empty);
    EXPECT_EQ(table_named(store_, "kept")->retain_us, 0u);
    // The log says the same.
    SimStore again(small_store(), store_.disk->power_loss(4), 4);
    ASSERT_TRUE(again.open().ok());
    ASSERT_NE(table_named(again, "kept"), nullptr);
    EXPECT_EQ(table_named(again, "kept")->retain_us, 0u);
    EXPECT_EQ(again.rows(table_named(again, "kept")->id), rows);
}

// Where the operator gave clients large rings, a record can hold more rows than a load has buffers
// for.
TEST_F(BulkLoadTest, ARecordThatNoBufferWasKeptForCostsItsClientTheConnection) {
    SimClient& hostile = store_.connect(Rights::kAdmin, std::nullopt, 64, 64u << 20);
    const Schema schema = load_schema("large", false);
    ASSERT_EQ(step(hostile, LoadBytes::begin(schema)).error, Error::kOk);
    LoadBytes rows(LoadStep::kRows);
    for (const auto& [key, value] : make_load_rows(schema, 20'000, 1)) rows.row(false, key, value);
    ASSERT_TRUE(hostile.submit_load(rows.bytes()).has_value());
    store_.run_until([&] { return store_.clients.cut_off_clients.contains(hostile.id()); }, 500);
    EXPECT_EQ(store_.clients.hostile_clients, 1u);
    store_.disconnect(hostile);
    expect_gone("large");
}

TEST_F(BulkLoadTest, LeavesAreFull) {
    const Schema schema = load_schema("full", false);
    ASSERT_EQ(run_load(store_, *client_, schema, make_load_rows(schema, 14'000, 1)), Error::kOk);
    const TreeReport tree = report(*table_named(store_, "full"));
    EXPECT_EQ(tree.broken, "");
    EXPECT_EQ(tree.rows, 14'000u);
    EXPECT_EQ(tree.leaves, 14'000u / LeafLayout::of(schema).capacity +
                               (14'000u % LeafLayout::of(schema).capacity != 0 ? 1 : 0));
}

class LargePool : public BulkLoadTest {
  protected:
    static SimStoreOptions options() {
        SimStoreOptions options = small_store();
        options.frames = 8'192;
        return options;
    }
    LargePool() : BulkLoadTest(options(), {}) {}
};

// Keys of 64 bytes: 57 children to a node, so a few thousand leaves have three levels above them.
TEST_F(LargePool, DeepTreesAreWhole) {
    for (const std::uint32_t count : {57u, 58u, 57u * 57, 57u * 57 + 1}) {
        SCOPED_TRACE(count);
        const std::string name = "deep" + std::to_string(count);
        const auto schema = Schema::make(
            name, {{"id", ColumnType::kFixed, 64}, {"pad", ColumnType::kFixed, 2'000}}, 1);
        ASSERT_TRUE(schema.ok());
        LoadRows rows;
        for (std::uint32_t i = 0; i < count; ++i) {
            std::vector<std::byte> key(64);
            encode_key_integer(key.data(), i, 4, false);
            rows[key] = std::vector<std::byte>(2'000, static_cast<std::byte>(i));
        }
        ASSERT_EQ(run_load(store_, *client_, *schema, rows), Error::kOk);
        EXPECT_EQ(store_.rows(table_named(store_, name)->id), rows);
    }
    EXPECT_EQ(store_.verify(), "");
}

TEST_F(BulkLoadTest, LoadedTablesAreTablesLikeOthers) {
    const Schema schema = load_schema("t", false);
    LoadRows rows = make_load_rows(schema, 2'000, 1);
    ASSERT_EQ(run_load(store_, *client_, schema, rows), Error::kOk);
    const TableId table = table_named(store_, "t")->id;
    const LoadRows more = make_load_rows(schema, 300, 2);
    for (const auto& [key, value] : more) {
        TransactionBytes put;
        put.operation(OperationKind::kPut, table, key, value);
        put.operation(OperationKind::kDelete, table, rows.begin()->first, {});
        ASSERT_EQ(store_.commit(*client_, put).error, Error::kOk);
        rows.erase(rows.begin());
        rows[key] = value;
    }
    EXPECT_EQ(store_.rows(table), rows);
    ASSERT_TRUE(store_.stop());
    SimStore again(small_store(), store_.disk->clone(5), 4);
    ASSERT_TRUE(again.open().ok());
    EXPECT_EQ(again.rows(table), rows);
    EXPECT_EQ(again.verify(), "");
}

TEST_F(BulkLoadTest, ReplacesAnEmptyTableAndRefusesOthers) {
    const Schema schema = load_schema("t", false);
    const LoadRows rows = make_load_rows(schema, 500, 1);
    const TableId old = store_.create_table(*client_, schema);
    EXPECT_EQ(step(LoadBytes::begin(load_schema("t", true))).error, Error::kSchemaMismatch);
    EXPECT_EQ(step(LoadBytes::begin(catalog_schema())).error, Error::kDenied);
    ASSERT_EQ(run_load(store_, *client_, schema, rows), Error::kOk);
    EXPECT_NE(table_named(store_, "t")->id, old);
    EXPECT_EQ(store_.rows(table_named(store_, "t")->id), rows);
    EXPECT_EQ(step(LoadBytes::begin(schema)).error, Error::kTableExists);
    settle();
    EXPECT_EQ(store_.verify(), "");
}

// A row that came into the empty table while its load was under way is not lost.
TEST_F(BulkLoadTest, FindsOutAtTheEndThatTheTableIsNoLongerEmpty) {
    const Schema schema = load_schema("t", false);
    const LoadRows rows = make_load_rows(schema, 500, 1);
    const TableId old = store_.create_table(*client_, schema);
    SimClient& other = store_.connect();
    LoadClient load(*client_, schema, rows);
    ASSERT_TRUE(store_.run_until([&] {
        load.step();
        return load.answered() > 2;
    }));
    TransactionBytes put;
    put.operation(OperationKind::kPut, old, rows.begin()->first, rows.begin()->second);
    ASSERT_EQ(store_.commit(other, put).error, Error::kOk);
    ASSERT_TRUE(store_.run_until([&] { return load.step(); }));
    EXPECT_EQ(load.error(), Error::kTableExists);
    settle();
    EXPECT_EQ(table_named(store_, "t")->id, old);
    EXPECT_EQ(store_.rows(old).size(), 1u);
    EXPECT_EQ(store_.verify(), "");
}

TEST_F(BulkLoadTest, NobodyTouchesAHiddenTable) {
    const Schema schema = load_schema("t", false);
    const LoadRows rows = make_load_rows(schema, 2, 1);
    ASSERT_EQ(step(LoadBytes::begin(schema)).error, Error::kOk);
    const TableId hidden{kFirstUserTable};
    TransactionBytes put;
    put.operation(OperationKind::kPut, hidden, rows.begin()->first, rows.begin()->second);
    EXPECT_EQ(store_.commit(*client_, put).error, Error::kNoSuchTable);
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, hidden, {}, {});
    EXPECT_EQ(store_.commit(*client_, drop).error, Error::kNoSuchTable);
    SimClient& writer = store_.connect(Rights::kWriter);
    EXPECT_EQ(step(writer, LoadBytes::begin(load_schema("u", false))).error, Error::kDenied);
}

// Whatever the bytes are: refused, and the pages that were reserved for the good ones come back.
TEST_F(BulkLoadTest, HostileRowsAreRefused) {
    const LoadRows fixed = make_load_rows(load_schema("f", false), 600, 1);
    const LoadRows variable = make_load_rows(load_schema("v", true), 600, 1);
    const auto good = [&](bool is_variable, std::size_t count) {
        LoadBytes bytes(LoadStep::kRows);
        for (const auto& [key, value] : is_variable ? variable : fixed) {
            if (count-- == 0) break;
            bytes.row(is_variable, key, value);
        }
        return bytes;
    };
    const auto of = [&](bool is_variable, std::size_t index) {
        return *std::next((is_variable ? variable : fixed).begin(),
                          static_cast<std::ptrdiff_t>(index));
    };
    struct Case {
        std::string what;
        bool variable;
        Error error;
        std::function<LoadBytes()> make;
    };
    const std::vector<Case> cases{
        {"a row that is not counted", false, Error::kProtocol,
         [&] {
             LoadBytes b(LoadStep::kRows);
             b.append(std::string(272, 'x').data(), 272);
             return b;
         }},
        {"a row of any length that is not counted", true, Error::kProtocol,
         [&] {
             LoadBytes b(LoadStep::kRows);
             b.append(std::string(272, 'x').data(), 272);
             return b;
         }},
        {"rows without bytes", false, Error::kProtocol,
         [&] { return LoadBytes(LoadStep::kRows, 1); }},
        {"a row cut short", false, Error::kProtocol,
         [&] {
             auto b = good(false, 3);
             b.append("x", 1);
             return b;
         }},
        {"more rows than bytes", false, Error::kProtocol,
         [&] {
             LoadBytes b(LoadStep::kRows, 7);
             b.row(false, of(false, 0).first, of(false, 0).second);
             return b;
         }},
        {"the same key twice", false, Error::kInvalid,
         [&] {
             auto b = good(false, 3);
             b.row(false, of(false, 2).first, of(false, 2).second);
             return b;
         }},
        {"a key below the one before", false, Error::kInvalid,
         [&] {
             auto b = good(false, 300);
             b.row(false, of(false, 7).first, of(false, 7).second);
             return b;
         }},
        {"a length beyond the record", true, Error::kProtocol,
         [&] {
             auto b = good(true, 3);
             const std::uint32_t length = 1u << 31;
             b.append(&length, 4);
             b.append(of(true, 4).first.data(), 16);
             LoadBytes all(LoadStep::kRows, 4);
             const auto bytes = b.bytes();
             all.append(bytes.data() + sizeof(LoadRequest), bytes.size() - sizeof(LoadRequest));
             return all;
         }},
        {"a value that is none", true, Error::kInvalid,
         [&] {
             auto b = good(true, 3);
             b.row(true, of(true, 4).first, std::vector<std::byte>(9, std::byte{255}));
             return b;
         }},
        {"zeros of the length of a page", true, Error::kInvalid,
         [&] {
             auto b = good(true, 3);
             b.row(true, of(true, 4).first, std::vector<std::byte>(kRowBytesMax, std::byte{0}));
             return b;
         }},
        {"bytes behind the rows", true, Error::kProtocol,
         [&] {
             auto b = good(true, 3);
             b.append("xyz", 3);
             return b;
         }},
        {"no bytes for a key", true, Error::kProtocol,
         [&] {
             LoadBytes b(LoadStep::kRows, 1);
             b.append("12345", 5);
             return b;
         }},
    };
    for (const Case& bad : cases) {
        SCOPED_TRACE(bad.what);
        SimClient& client = store_.connect();
        ASSERT_EQ(step(client, LoadBytes::begin(load_schema("h", bad.variable))).error, Error::kOk);
        EXPECT_EQ(step(client, bad.make()).error, bad.error);
        // What follows is refused for the same reason, the end too.
        EXPECT_EQ(step(client, good(bad.variable, 2)).error, bad.error);
        EXPECT_EQ(step(client, LoadBytes(LoadStep::kFinish, 2)).error, bad.error);
        EXPECT_TRUE(store_.clients.cut_off_clients.empty());
        expect_gone("h");
    }
    // Steps that no program of ours sends end the connection.
    SimClient& odd = store_.connect();
    odd.submit_load(LoadBytes(static_cast<LoadStep>(9)).bytes());
    EXPECT_TRUE(store_.run_until([&] { return store_.clients.cut_off_clients.size() == 1; }));
    SimClient& small = store_.connect();
    small.submit_load(std::vector<std::byte>(7));
    EXPECT_TRUE(store_.run_until([&] { return store_.clients.cut_off_clients.size() == 2; }));
}

TEST_F(BulkLoadTest, StepsOutOfOrderAreRefused) {
    const Schema schema = load_schema("t", false);
    const LoadRows rows = make_load_rows(schema, 5, 1);
    LoadBytes packed(LoadStep::kRows);
    for (const auto& [key, value] : rows) packed.row(false, key, value);
    EXPECT_EQ(step(packed).error, Error::kInvalid);
    EXPECT_EQ(step(LoadBytes(LoadStep::kFinish, 0)).error, Error::kInvalid);
    ASSERT_EQ(step(LoadBytes::begin(schema)).error, Error::kOk);
    EXPECT_EQ(step(LoadBytes::begin(schema)).error, Error::kBusy);
    EXPECT_EQ(step(packed).error, Error::kOk);
    EXPECT_EQ(step(LoadBytes(LoadStep::kFinish, 4)).error, Error::kProtocol);
    expect_gone("t");
    // The connection may load again.
    EXPECT_EQ(run_load(store_, *client_, schema, rows), Error::kOk);
}

TEST_F(BulkLoadTest, ReservedPagesComeBackWhenTheClientDies) {
    const Schema schema = load_schema("t", false);
    const LoadRows rows = make_load_rows(schema, 9'000, 1);
    for (const std::size_t answered : {1u, 3u, 20u, 60u, 100u, 122u, 123u}) {
        SCOPED_TRACE(answered);
        SimClient& client = store_.connect();
        LoadClient load(client, schema, rows);
        ASSERT_TRUE(store_.run_until([&] {
            load.step();
            return load.answered() >= answered;
        }));
        store_.disconnect(client);
        expect_gone("t");
    }
}

TEST_F(BulkLoadTest, CopiesMadeAheadAreTakenOrGivenBack) {
    Pool& pool = store_.engine->core().storage().pool;
    settle();
    const std::uint32_t free = pool.free_frames();
    pool.copy_ahead(meta_page(0));
    pool.copy_ahead(meta_page(0));
    EXPECT_EQ(pool.free_frames(), free - 1);
    pool.forget_copies();
    EXPECT_EQ(pool.free_frames(), free);
    // Taken by the first who changes the page, and what it held is still there.
    pool.copy_ahead(meta_page(0));
    const Schema schema = load_schema("t", false);
    ASSERT_EQ(run_load(store_, *client_, schema, make_load_rows(schema, 9'000, 1)), Error::kOk);
    settle();
    pool.forget_copies();
    pool.check_invariants();
    EXPECT_EQ(unused_pages(), space().available() + space().quarantined());
    EXPECT_EQ(store_.verify(), "");
}

TEST_F(BulkLoadTest, TwoLoadsAtOnceBothArrive) {
    SimClient& other = store_.connect();
    const Schema first = load_schema("a", false);
    const Schema second = load_schema("b", true);
    const LoadRows rows_a = make_load_rows(first, 5'000, 1);
    const LoadRows rows_b = make_load_rows(second, 4'000, 2);
    LoadClient load_a(*client_, first, rows_a);
    LoadClient load_b(other, second, rows_b);
    ASSERT_TRUE(store_.run_until([&] { return load_a.step() & load_b.step(); }));
    EXPECT_TRUE(load_a.loaded() && load_b.loaded());
    EXPECT_EQ(store_.rows(table_named(store_, "a")->id), rows_a);
    EXPECT_EQ(store_.rows(table_named(store_, "b")->id), rows_b);
    EXPECT_EQ(store_.verify(), "");
}

TEST_F(BulkLoadTest, OneNameIsLoadedOnceAtATime) {
    SimClient& other = store_.connect();
    const Schema schema = load_schema("t", false);
    ASSERT_EQ(step(LoadBytes::begin(schema)).error, Error::kOk);
    EXPECT_EQ(step(other, LoadBytes::begin(schema)).error, Error::kBusy);
    store_.disconnect(*client_);
    settle();
    EXPECT_EQ(step(other, LoadBytes::begin(schema)).error, Error::kOk);
}

TEST_F(BulkLoadTest, CommitsGoOnBeside) {
    const Schema schema = load_schema("t", false);
    const TableId table = store_.create_table(*client_, load_schema("u", false));
    const LoadRows rows = make_load_rows(schema, 9'000, 1);
    SimClient& other = store_.connect();
    LoadClient load(other, schema, rows);
    std::uint32_t commits = 0;
    for (auto row = rows.begin(); !load.step(); ++row) {
        ASSERT_NE(row, rows.end());
        TransactionBytes put;
        put.operation(OperationKind::kPut, table, row->first, row->second);
        ASSERT_EQ(store_.commit(*client_, put).error, Error::kOk);
        ++commits;
    }
    EXPECT_TRUE(load.loaded());
    EXPECT_GT(commits, 10u);
    EXPECT_EQ(store_.rows(table).size(), commits);
    EXPECT_EQ(store_.rows(table_named(store_, "t")->id), rows);
}

TEST_F(BulkLoadTest, AStopInTheMiddleLeavesNothing) {
    const Schema schema = load_schema("t", false);
    const LoadRows rows = make_load_rows(schema, 9'000, 1);
    LoadClient load(*client_, schema, rows);
    ASSERT_TRUE(store_.run_until([&] {
        load.step();
        return load.answered() >= 60;
    }));
    ASSERT_TRUE(store_.stop());
    SimStore again(small_store(), store_.disk->clone(5), 4);
    ASSERT_TRUE(again.open().ok());
    EXPECT_TRUE(again.run_until([&] { return unfinished_tables(again) == 0; }));
    EXPECT_EQ(table_named(again, "t"), nullptr);
    EXPECT_EQ(again.verify(), "");
}

TEST_F(BulkLoadTest, AWriteThatFailsEndsTheLoadAlone) {
    const Schema schema = load_schema("t", false);
    const LoadRows rows = make_load_rows(schema, 4'000, 1);
    LoadClient load(*client_, schema, rows);
    bool planted = false;
    store_.disk->observe([&](std::uint64_t step, SimStep kind) {
        if (kind != SimStep::kSubmitWrite || load.answered() < 5 || planted) return;
        planted = true;  // nothing but the load writes now
        store_.disk->fail_at(step, EIO);
    });
    ASSERT_TRUE(store_.run_until([&] { return load.step(); }));
    EXPECT_TRUE(planted);
    EXPECT_EQ(load.error(), Error::kIoError);
    store_.disconnect(*client_);
    SimClient& other = store_.connect();
    expect_gone("t");
    EXPECT_EQ(run_load(store_, other, schema, rows), Error::kOk);
}

class FullDisk : public BulkLoadTest {
  protected:
    static SimDiskOptions disk() {
        SimDiskOptions options;
        options.capacity_bytes = (3u << 20) + (4u << 20) + 3 * kChunkBytes;
        return options;
    }
    FullDisk() : BulkLoadTest(small_store(), disk()) {}
};

// It took what there was down to the pages that no write may touch, then one checkpoint after the
// other, for what the writers beside it had freed; and they were refused meanwhile.
TEST_F(FullDisk, ALoadThatDoesNotFitLeavesRoomToTheWritersBesideIt) {
    const Schema schema = load_schema("t", false);
    const TableId table = store_.create_table(*client_, load_schema("u", false));
    const LoadRows rows = make_load_rows(schema, 25'000, 1);
    SimClient& other = store_.connect();
    LoadClient load(other, schema, rows);
    const auto checkpoints = [&] {
        return store_.engine->core().storage().checkpointer->totals().finished;
    };
    std::uint64_t full_at = 0;
    std::uint32_t commits = 0;
    for (auto row = rows.begin(); !load.step(); ++commits) {
        TransactionBytes put;
        TransactionBytes erase;
        for (int i = 0; i < 150; ++i, ++row) {
            if (row == rows.end()) row = rows.begin();
            put.operation(OperationKind::kPut, table, row->first, row->second);
            erase.operation(OperationKind::kDelete, table, row->first, {});
        }
        ASSERT_EQ(store_.commit(*client_, put).error, Error::kOk) << commits;
        ASSERT_EQ(store_.commit(*client_, erase).error, Error::kOk) << commits;
        const Space& space = store_.engine->core().storage().space;
        if (full_at == 0 && space.in_reach() < space.growth_mark() + 200) full_at = checkpoints();
        ASSERT_LT(commits, 3'000u);
    }
    EXPECT_EQ(load.error(), Error::kNoSpace);
    EXPECT_GT(full_at, 0u);
    EXPECT_LE(checkpoints(), full_at + 4);
    store_.disconnect(other);
    expect_gone("t");
    EXPECT_EQ(store_.verify(), "");
}

// What a delete had freed was a snapshot's for some seconds more, and the load was refused.
TEST_F(FullDisk, ALoadWaitsForThePagesThatASnapshotHolds) {
    const Schema schema = load_schema("t", false);
    const TableId table = store_.create_table(*client_, load_schema("u", false));
    const LoadRows old = make_load_rows(schema, 8'000, 1);  // 572 pages
    for (auto row = old.begin(); row != old.end();) {
        TransactionBytes put;
        for (int i = 0; i < 150 && row != old.end(); ++i, ++row) {
            put.operation(OperationKind::kPut, table, row->first, row->second);
        }
        ASSERT_EQ(store_.commit(*client_, put).error, Error::kOk);
    }
    SimClient& reader = store_.connect(Rights::kReader);
    auto descriptor = store_.pool->open_read_only();
    ASSERT_TRUE(descriptor.ok());
    const auto view = PoolView::map(std::move(*descriptor));
    ASSERT_TRUE(view.ok());
    const SimSnapshot snapshot(store_, *view, reader, 0);
    for (int first = 0; first < 256; first += 16) {
        std::vector<std::byte> from(16);
        std::vector<std::byte> to(16, std::byte{255});
        from[0] = static_cast<std::byte>(first);
        to[0] = static_cast<std::byte>(first + 15);
        TransactionBytes erase;
        erase.operation(OperationKind::kDeleteRange, table, from, to);
        ASSERT_EQ(store_.commit(*client_, erase).error, Error::kOk);
    }
    ASSERT_GT(space().quarantined(), 500u);
    const LoadRows rows = make_load_rows(schema, 15'000, 2);  // 1,072 pages of 1,530
    LoadClient load(store_.connect(), schema, rows);
    std::uint64_t waited_ns = 0;
    while (!load.step() && waited_ns < 10'000'000'000) {
        store_.round();
        store_.clock.advance_ns(100'000);
        waited_ns += 100'000;
    }
    EXPECT_EQ(load.error(), Error::kOk);
    EXPECT_FALSE(snapshot.valid());
    EXPECT_EQ(store_.verify(), "");
}

TEST_F(FullDisk, RefusesTheLoadAndServesOn) {
    const Schema schema = load_schema("t", false);
    EXPECT_EQ(run_load(store_, *client_, schema, make_load_rows(schema, 25'000, 1)),
              Error::kNoSpace);
    store_.disconnect(*client_);
    client_ = &store_.connect();
    expect_gone("t");
    const TableId table = store_.create_table(*client_, load_schema("u", false));
    TransactionBytes put;
    const LoadRows rows = make_load_rows(schema, 15'000, 2);
    put.operation(OperationKind::kPut, table, rows.begin()->first, rows.begin()->second);
    EXPECT_EQ(store_.commit(*client_, put).error, Error::kOk);
    // What fits, fits: 1,072 pages of 1,530.
    EXPECT_EQ(run_load(store_, *client_, schema, rows), Error::kOk);
    EXPECT_EQ(store_.verify(), "");
}

}  // namespace
}  // namespace bidstore
