// Bulk loads of rows that no page has room for: their long columns are in extents afterwards, like
// those of rows that transactions put, and whatever goes wrong leaves none of them behind.
#include <gtest/gtest.h>

#include "engine/extent_map.h"
#include "tests/load_fixture.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

SimStoreOptions wide_store() {
    SimStoreOptions options = small_store();
    options.frames = 16'384;
    options.engine.log_segment_bytes = 4u << 20;
    options.engine.journal_bytes = 8u << 20;
    return options;
}

class LoadExtents : public BulkLoadTest {
  protected:
    LoadExtents() : LoadExtents(SimDiskOptions{}) {}
    explicit LoadExtents(const SimDiskOptions& disk) : BulkLoadTest(wide_store(), disk) {
        client_ = &connect();
    }
    SimClient& connect() { return store_.connect(Rights::kAdmin, std::nullopt, 64, 4u << 20); }
    ExtentMap extents(std::uint32_t chunk) {
        return ExtentMap(chunk_meta(store_.engine->core().storage().pool.newest(meta_page(chunk))));
    }
    TableId load(const std::string& name, const LoadRows& rows) {
        EXPECT_EQ(run_load(store_, *client_, load_schema(name, true), rows), Error::kOk);
        return table_named(store_, name)->id;
    }
    // A table of its own with one large value.
    TableId put_large(const std::string& name, std::size_t bytes) {
        const TableId table = store_.create_table(*client_, load_schema(name, true));
        const LoadRows rows = make_wide_rows(load_schema(name, true), 1, bytes, 1);
        TransactionBytes put;
        put.operation(OperationKind::kPut, table, rows.begin()->first, rows.begin()->second);
        EXPECT_EQ(store_.commit(*client_, put).error, Error::kOk);
        return table;
    }
};

TEST_F(LoadExtents, RowsOfAnyLengthArrive) {
    std::size_t large = 0;
    for (const auto& [count, longest] : {std::pair{1u, 5'000ul},
                                         {1u, 1ul << 20},
                                         {400u, 9'000ul},
                                         {60u, 1ul << 20},
                                         {2'000u, 40'000ul}}) {
        const std::string name = "t" + std::to_string(count) + "_" + std::to_string(longest);
        SCOPED_TRACE(name);
        const LoadRows rows = make_wide_rows(load_schema(name, true), count, longest, count);
        const TableId table = load(name, rows);
        EXPECT_EQ(store_.rows(table), rows);
        large += report(*table_named(store_, name)).large_values;
    }
    EXPECT_GT(large, 500u);
    EXPECT_EQ(store_.verify(), "");
    EXPECT_EQ(unused_pages(), space().available() + space().quarantined());
    // On the disk, too.
    SimStore again(wide_store(), store_.disk->power_loss(4), 4);
    ASSERT_TRUE(again.open().ok());
    EXPECT_EQ(again.verify(), "");
    const LoadRows rows = make_wide_rows(load_schema("t", true), 2'000, 40'000, 2'000);
    EXPECT_EQ(again.rows(table_named(again, "t2000_40000")->id), rows);
}

TEST_F(LoadExtents, LoadedValuesAreReplacedAndDeletedLikeOthers) {
    LoadRows rows = make_wide_rows(load_schema("t", true), 100, 100'000, 1);
    const TableId table = load("t", rows);
    const LoadRows more = make_wide_rows(load_schema("t", true), 100, 100'000, 2);
    auto value = more.begin();
    for (auto row = rows.begin(); row != rows.end(); ++value) {
        TransactionBytes change;
        change.operation(OperationKind::kPut, table, row->first, value->second);
        row->second = value->second;
        ++row;
        if (row != rows.end()) {
            change.operation(OperationKind::kDelete, table, row->first, {});
            row = rows.erase(row);
        }
        ASSERT_EQ(store_.commit(*client_, change).error, Error::kOk);
    }
    EXPECT_EQ(store_.rows(table), rows);
    EXPECT_EQ(store_.verify(), "");
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, table, {}, {});
    ASSERT_EQ(store_.commit(*client_, drop).error, Error::kOk);
    for (std::uint32_t second = 0; second < 400; ++second) {
        store_.clock.advance_ns(1'000'000'000);
        store_.run_until([] { return false; }, 20);
    }
    settle();
    EXPECT_EQ(store_.verify(), "");
    EXPECT_EQ(unused_pages(), space().available() + space().quarantined());
    for (std::uint32_t chunk = 0; chunk < space().chunk_count(); ++chunk) {
        EXPECT_FALSE(extents(chunk).any()) << chunk;
    }
}

// Retention goes by what the metadata says, also after a restart has read it from there.
TEST_F(LoadExtents, ExtentsHaveTheTimesOfTheirRows) {
    const Schema schema = load_schema("t", true);
    const LoadRows rows = make_wide_rows(schema, 200, 30'000, 3);
    const TableId table = load("t", rows);
    const auto check = [&](SimStore& store, std::uint32_t shift) {
        Storage& storage = store.engine->core().storage();
        const TableEntry* entry = storage.catalog->find(table);
        std::size_t seen = 0;
        const Status whole = storage.complete([&] {
            return entry->tree.visit_range(
                nullptr, nullptr, [&](const std::byte* key, std::span<const std::byte> value) {
                    const std::uint32_t newest = newest_of_row(schema, key, value);
                    RowView(schema, value).each_reference([&](auto, const ValueReference& found) {
                        for (const ExtentRun& run : found.all_runs()) {
                            const auto kept = storage.space.extent_newest(PageId{run.first});
                            EXPECT_EQ(kept >> shift, std::max(newest, 1u) >> shift);
                            ++seen;
                        }
                    });
                    return true;
                });
        });
        ASSERT_TRUE(whole.ok());
        EXPECT_GT(seen, 100u);
    };
    check(store_, 0);
    ASSERT_TRUE(store_.stop());
    SimStore again(wide_store(), store_.disk->power_loss(7), 7);
    ASSERT_TRUE(again.open().ok());
    check(again, kExtentNewestShift);
}

TEST_F(LoadExtents, TwoLoadsAndLargePutsGoOnTogether) {
    SimClient& other = connect();
    SimClient& writer = connect();
    const Schema first = load_schema("a", true);
    const Schema second = load_schema("b", true);
    const TableId beside = store_.create_table(writer, load_schema("c", true));
    const LoadRows rows_a = make_wide_rows(first, 150, 200'000, 1);
    const LoadRows rows_b = make_wide_rows(second, 700, 20'000, 2);
    const LoadRows puts = make_wide_rows(first, 400, 100'000, 3);
    LoadClient load_a(*client_, first, rows_a);
    LoadClient load_b(other, second, rows_b);
    auto put = puts.begin();
    while (!(load_a.step() & load_b.step())) {
        ASSERT_NE(put, puts.end());
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, beside, put->first, put->second);
        ASSERT_EQ(store_.commit(writer, bytes).error, Error::kOk);
        ++put;
    }
    EXPECT_TRUE(load_a.loaded() && load_b.loaded());
    EXPECT_GT(std::distance(puts.begin(), put), 10);
    EXPECT_EQ(store_.rows(table_named(store_, "a")->id), rows_a);
    EXPECT_EQ(store_.rows(table_named(store_, "b")->id), rows_b);
    EXPECT_EQ(store_.rows(beside), LoadRows(puts.begin(), put));
    EXPECT_EQ(store_.verify(), "");
}

// A chunk has places for 14 tables with extents. A load keeps the last one of a chunk with pages of
// its own, whoever comes meanwhile.
TEST_F(LoadExtents, AChunkHasAPlaceForTheTableThatIsLoaded) {
    for (int i = 0; i < 12; ++i) put_large("before" + std::to_string(i), 5'000);
    EXPECT_EQ(extents(0).owners(), 12u);
    const Schema schema = load_schema("t", true);
    const LoadRows rows = make_wide_rows(schema, 60, 12'000, 1);
    SimClient& other = connect();
    LoadClient load(other, schema, rows);
    ASSERT_TRUE(store_.run_until([&] {
        load.step();
        return load.answered() > 2;
    }));
    for (int i = 0; i < 3; ++i) put_large("beside" + std::to_string(i), 5'000);
    ASSERT_TRUE(store_.run_until([&] { return load.step(); }));
    EXPECT_TRUE(load.loaded());
    EXPECT_EQ(store_.rows(table_named(store_, "t")->id), rows);
    EXPECT_LE(extents(0).owners(), kExtentOwners);
    EXPECT_EQ(store_.verify(), "");
}

TEST_F(LoadExtents, ReservedExtentsComeBackWhenTheClientDies) {
    const Schema schema = load_schema("t", true);
    const LoadRows rows = make_wide_rows(schema, 300, 300'000, 1);
    const std::size_t steps = LoadClient(*client_, schema, rows).steps();
    for (std::size_t answered = 1; answered < steps; answered += steps / 7) {
        SCOPED_TRACE(answered);
        SimClient& client = connect();
        LoadClient load(client, schema, rows);
        ASSERT_TRUE(store_.run_until([&] {
            load.step();
            return load.answered() >= answered;
        }));
        store_.disconnect(client);
        expect_gone("t");
    }
}

TEST_F(LoadExtents, AWriteThatFailsEndsTheLoadAlone) {
    const Schema schema = load_schema("t", true);
    const LoadRows rows = make_wide_rows(schema, 300, 300'000, 1);
    {  // makes the file large enough, so that nothing but the load writes afterwards
        SimClient& client = connect();
        LoadClient load(client, schema, rows);
        ASSERT_TRUE(store_.run_until([&] {
            load.step();
            return load.answered() + 2 >= load.steps();
        }));
        store_.disconnect(client);
        expect_gone("t");
    }
    for (const int failing : {1, 7, 20}) {
        SimClient& client = connect();
        LoadClient load(client, schema, rows);
        int writes = 0;
        store_.disk->observe([&](std::uint64_t step, SimStep kind) {
            if (kind != SimStep::kSubmitWrite || load.answered() < 2) return;
            if (++writes == failing) store_.disk->fail_at(step, EIO);
        });
        ASSERT_TRUE(store_.run_until([&] { return load.step(); }));
        EXPECT_GE(writes, failing);
        EXPECT_EQ(load.error(), Error::kIoError);
        store_.disk->observe({});
        store_.disconnect(client);
        expect_gone("t");
    }
    EXPECT_EQ(run_load(store_, *client_, schema, rows), Error::kOk);
}

TEST_F(LoadExtents, WrongWideRowsAreRefused) {
    const Schema schema = load_schema("t", true);
    const LoadRows rows = make_wide_rows(schema, 1, 60'000, 1);
    const auto& [key, value] = *rows.begin();
    std::vector<std::byte> reference = value;  // says that its text is a reference
    reference[schema.fixed_bytes() + 2 + 3] |= std::byte{0x80};
    std::vector<std::byte> beyond = value;  // its text ends behind the value
    beyond[schema.fixed_bytes() + 2 + 2] = std::byte{0xff};
    for (const auto& wrong : {reference, beyond}) {
        SimClient& client = connect();
        ASSERT_EQ(step(client, LoadBytes::begin(schema)).error, Error::kOk);
        EXPECT_EQ(step(client, LoadBytes(LoadStep::kRows).row(true, key, wrong)).error,
                  Error::kInvalid);
        store_.disconnect(client);
        expect_gone("t");
    }
    // Two rows to a step that long are not what the engine has buffers for.
    SimClient& hostile = connect();
    ASSERT_EQ(step(hostile, LoadBytes::begin(schema)).error, Error::kOk);
    LoadBytes long_step(LoadStep::kRows);
    for (const auto& each : make_wide_rows(schema, 20, 100'000, 2)) {
        long_step.row(true, each.first, each.second);
    }
    ASSERT_GT(long_step.size(), kLoadBytesMax);
    hostile.submit_load(long_step.bytes());
    EXPECT_TRUE(store_.run_until([&] { return store_.clients.hostile_clients == 1; }));
    store_.disconnect(hostile);
    expect_gone("t");
}

class LoadExtentsOnAFullDisk : public LoadExtents {
  protected:
    static SimDiskOptions disk() {
        SimDiskOptions options;
        options.capacity_bytes = (12u << 20) + (8u << 20) + 6 * kChunkBytes;
        return options;
    }
    LoadExtentsOnAFullDisk() : LoadExtents(disk()) {}
};

TEST_F(LoadExtentsOnAFullDisk, WhatDoesNotFitIsRefusedAndWhatFitsFits) {
    const Schema schema = load_schema("t", true);
    EXPECT_EQ(run_load(store_, *client_, schema, make_wide_rows(schema, 200, 1u << 20, 1)),
              Error::kNoSpace);
    store_.disconnect(*client_);
    client_ = &connect();
    expect_gone("t");
    // About 2,000 pages of 3,000, in values of all sizes.
    const LoadRows rows = make_wide_rows(schema, 65, 1u << 20, 2);
    EXPECT_EQ(run_load(store_, *client_, schema, rows), Error::kOk);
    EXPECT_EQ(store_.rows(table_named(store_, "t")->id), rows);
    put_large("u", 20'000);
    EXPECT_EQ(store_.verify(), "");
}

class SmallJournal : public BulkLoadTest {
  protected:
    static SimStoreOptions options() {
        SimStoreOptions options = small_store();
        options.engine.journal_bytes = 256u << 10;
        return options;
    }
    SmallJournal() : BulkLoadTest(options(), {}) {}
    // `count` rows of 15 pages each.
    static LoadRows rows(const Schema& schema, std::uint32_t count) {
        LoadRows rows;
        RowBuilder builder(schema);
        const std::vector<std::byte> text(60'000, std::byte{'x'});
        CHECK(builder.set_bytes(2, text).ok());
        const auto value = builder.value();
        CHECK(value.ok());
        const std::vector<std::byte> row(value->begin(), value->end());
        for (std::uint32_t i = 0; i < count; ++i) {
            std::vector<std::byte> key(16);
            encode_key_integer(key.data(), i, 4, false);
            rows.emplace(key, row);
        }
        return rows;
    }
    // Two loads that end on the way leave free pages in more chunks than one may touch.
    void leave_free_chunks() {
        SimClient& first = store_.connect();
        SimClient& second = store_.connect();
        LoadClient a(first, load_schema("a", true), rows(load_schema("a", true), kFits));
        LoadClient b(second, load_schema("b", true), rows(load_schema("b", true), kFits));
        const auto nearly_done = [](LoadClient& load) {  // the last step is not sent yet
            return load.answered() + 64 > load.steps() || load.step();
        };
        ASSERT_TRUE(store_.run_until([&] { return nearly_done(a); }));
        ASSERT_TRUE(store_.run_until([&] { return nearly_done(b); }));
        ASSERT_EQ(a.error(), Error::kOk);
        ASSERT_EQ(b.error(), Error::kOk);
        store_.disconnect(first);
        store_.disconnect(second);
        ASSERT_TRUE(all_free()) << space().available();
    }
    bool all_free() {
        return store_.run_until([&] { return space().available() > 16 * 500; });
    }
    static constexpr std::uint32_t kFits = 34 * 12;  // 34 rows to a chunk
};

// Only a load that asked for pages was told; in a file with enough of them all rows came first.
TEST_F(SmallJournal, RowsThatTouchTooManyChunksAreRefusedAsTheyCome) {
    leave_free_chunks();
    const std::uint32_t chunks = space().chunk_count();
    const Schema schema = load_schema("c", true);
    LoadClient load(*client_, schema, rows(schema, 34 * 17));
    ASSERT_TRUE(store_.run_until([&] { return load.step(); }));
    EXPECT_EQ(load.error(), Error::kTooLarge);
    EXPECT_LT(load.answered(), load.steps());
    EXPECT_EQ(space().chunk_count(), chunks);
    store_.disconnect(*client_);
    client_ = &store_.connect();
    EXPECT_TRUE(all_free()) << space().available();
    EXPECT_EQ(store_.verify(), "");
    EXPECT_EQ(run_load(store_, *client_, schema, rows(schema, kFits)), Error::kOk);
}

// What attaching takes was counted without the directory, which is for every chunk of the file: at
// the limit all rows came, and finish() was refused.
TEST_F(SmallJournal, NoLoadIsRefusedAfterItsLastRow) {
    leave_free_chunks();
    bool refused = false;
    for (std::uint32_t count = kFits; !refused; count += 17) {
        ASSERT_LT(count, 34u * 17);
        SCOPED_TRACE(count);
        const Schema schema = load_schema("c" + std::to_string(count), true);
        ASSERT_EQ(step(LoadBytes::begin(schema)).error, Error::kOk);
        for (const auto& [key, value] : rows(schema, count)) {
            const Answer answer = step(LoadBytes(LoadStep::kRows).row(true, key, value));
            refused = answer.error != Error::kOk;
            if (!refused) continue;
            EXPECT_EQ(answer.error, Error::kTooLarge);
            break;
        }
        if (refused) continue;
        ASSERT_EQ(step(LoadBytes(LoadStep::kFinish, count)).error, Error::kOk);
        TransactionBytes drop;
        drop.operation(OperationKind::kDropTable, table_named(store_, schema.name())->id, {}, {});
        ASSERT_EQ(store_.commit(*client_, drop).error, Error::kOk);
        settle();
        for (int i = 0; i < 100 && space().available() <= 16 * 500; ++i) {
            store_.clock.advance_ns(1'000'000'000);  // for the sweep, and a checkpoint
            store_.run_until([] { return false; }, 100);
        }
    }
}

}  // namespace
}  // namespace bidstore
