// A full file system at every step of growth, with large values and with loads: what does not fit
// is refused by name, nothing of it stays behind, reads go on, and what was refused is taken when
// there is room. Ordinary rows: tests/growth_test.cc.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/load_fixture.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kPieceBytes = 256u << 10;  // growth zeroes so much at a time
constexpr std::uint64_t kPieces = 2 * kChunkBytes / kPieceBytes;

SimStoreOptions full_store() {
    SimStoreOptions options = small_store();
    options.frames = 8'192;
    options.engine.log_segment_bytes = 4u << 20;
    options.engine.journal_bytes = 8u << 20;
    options.engine.checkpoint_interval_ns = 3'000'000;
    return options;
}

class FullAtAStep : public ::testing::Test {
  protected:
    void start(std::uint64_t seed) {
        SimDiskOptions disk;
        disk.seed = seed;
        open(std::make_unique<SimDisk>(disk), seed);
    }
    void open(std::unique_ptr<SimDisk> disk, std::uint64_t seed) {
        store_ = std::make_unique<SimStore>(full_store(), std::move(disk), seed);
        const Status opened = store_->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        client_ = &connect();
    }
    SimClient& connect() { return store_->connect(Rights::kAdmin, std::nullopt, 64, 4u << 20); }
    // So many pieces of growth fit, and a part of the next one.
    void leave_room(std::uint64_t pieces) {
        std::uint64_t bytes = pieces * kPieceBytes + pieces % 3 * kPageBytes;
        for (const StoreFile file : {StoreFile::kData, StoreFile::kLog, StoreFile::kJournal}) {
            bytes += *store_->disk->size_bytes(file);
        }
        store_->disk->set_capacity_bytes(bytes);
    }
    void make_room() { store_->disk->set_capacity_bytes(1ull << 40); }
    void pass(std::uint64_t ns) {
        for (int i = 0; i < 10; ++i) {
            store_->clock.advance_ns(ns / 10);
            store_->run_until([] { return false; }, 20);
        }
    }
    Space& space() { return store_->engine->core().storage().space; }
    // Nothing is lost and nothing belongs to two: trees and bitmaps agree, and what no bitmap has
    // is available or about to be.
    void expect_all_accounted_for() {
        EXPECT_EQ(store_->verify(), "");
        std::uint64_t unused = 0;
        for (std::uint32_t chunk = 0; chunk < space().chunk_count(); ++chunk) {
            const auto* bits =
                meta_bitmap(store_->engine->core().storage().pool.newest(meta_page(chunk)));
            for (std::uint32_t i = 0; i < kChunkPages / 64; ++i) {
                unused += static_cast<std::uint64_t>(__builtin_popcountll(~bits[i]));
            }
        }
        EXPECT_EQ(unused, space().available() + space().quarantined());
    }

    std::unique_ptr<SimStore> store_;
    SimClient* client_ = nullptr;
};

TEST_F(FullAtAStep, RefusesLargeValuesAndTakesThemWhenThereIsRoom) {
    const Schema schema = load_schema("t", true);
    for (std::uint64_t pieces = 0; pieces <= kPieces; ++pieces) {
        SCOPED_TRACE("room for " + std::to_string(pieces) + " pieces");
        start(pieces + 1);
        const TableId table = store_->create_table(*client_, schema);
        leave_room(pieces);
        const LoadRows rows = make_wide_rows(schema, 400, 400'000, pieces);
        LoadRows taken;
        const auto put = [&](const LoadRows::value_type& row) {
            TransactionBytes bytes;
            bytes.operation(OperationKind::kPut, table, row.first, row.second);
            return store_->commit(*client_, bytes).error;
        };
        auto refused = rows.end();
        std::uint32_t refusals = 0;
        // Small ones may fit after a large one did not.
        for (auto row = rows.begin(); row != rows.end() && refusals < 20; ++row) {
            const Error error = put(*row);
            if (error == Error::kOk)
                taken.insert(*row);
            else
                EXPECT_EQ(error, Error::kNoSpace);
            refusals += error != Error::kOk;
            if (error != Error::kOk) refused = row;
        }
        ASSERT_NE(refused, rows.end());
        EXPECT_GT(taken.size(), 5u);
        EXPECT_EQ(store_->rows(table), taken) << "reads go on";
        pass(100'000'000);
        expect_all_accounted_for();
        // Of two that could not both be stored, neither is.
        TransactionBytes both;
        both.operation(OperationKind::kDelete, table, taken.begin()->first, {});
        both.operation(OperationKind::kPut, table, refused->first, refused->second);
        std::vector<std::byte> key = refused->first;
        key.back() ^= std::byte{1};
        both.operation(OperationKind::kPut, table, key, refused->second);
        const Error both_error = store_->commit(*client_, both).error;
        EXPECT_TRUE(both_error == Error::kNoSpace || both_error == Error::kOk);
        if (both_error == Error::kNoSpace) {
            EXPECT_EQ(store_->rows(table), taken);
        } else {
            taken = store_->rows(table);
        }
        // A crash meanwhile changes nothing of that.
        {
            SimStore after(full_store(), store_->disk->power_loss(pieces), pieces);
            const Status opened = after.open();
            ASSERT_TRUE(opened.ok()) << opened.failure().what;
            EXPECT_EQ(after.rows(table), taken);
            EXPECT_EQ(after.verify(), "");
        }
        make_room();
        pass(1'500'000'000);  // growth is tried again
        EXPECT_EQ(put(*refused), Error::kOk);
        EXPECT_EQ(store_->pool->header().engine.mode.load(), EngineMode::kServing);
        taken.insert(*refused);
        EXPECT_EQ(store_->rows(table), taken);
        expect_all_accounted_for();
        if (HasFailure()) return;
    }
}

TEST_F(FullAtAStep, RefusesLoadsWholeAndTakesThemWhenThereIsRoom) {
    for (std::uint64_t pieces = 0; pieces <= kPieces; ++pieces) {
        SCOPED_TRACE("room for " + std::to_string(pieces) + " pieces");
        const bool wide = pieces % 2 == 0;
        start(pieces + 1);
        const Schema schema = load_schema("t", wide);
        const Schema beside = load_schema("beside", false);
        const TableId other = store_->create_table(*client_, beside);
        const LoadRows rows = wide ? make_wide_rows(schema, 260, 400'000, pieces)
                                   : make_load_rows(schema, 25'000, pieces);  // 7 MB
        leave_room(pieces);
        SimClient& loader = connect();
        EXPECT_EQ(run_load(*store_, loader, schema, rows), Error::kNoSpace);
        store_->disconnect(loader);
        EXPECT_TRUE(store_->run_until([&] { return unfinished_tables(*store_) == 0; }));
        EXPECT_EQ(table_named(*store_, "t"), nullptr);
        pass(100'000'000);
        expect_all_accounted_for();
        // It left enough for others.
        const LoadRows few = make_load_rows(beside, 50, 3);
        for (const auto& [key, value] : few) {
            TransactionBytes put;
            put.operation(OperationKind::kPut, other, key, value);
            ASSERT_EQ(store_->commit(*client_, put).error, Error::kOk);
        }
        {
            SimStore after(full_store(), store_->disk->power_loss(pieces), pieces);
            const Status opened = after.open();
            ASSERT_TRUE(opened.ok()) << opened.failure().what;
            EXPECT_EQ(after.rows(other), few);
            EXPECT_EQ(after.verify(), "");
        }
        make_room();
        pass(1'500'000'000);
        SimClient& again = connect();
        EXPECT_EQ(run_load(*store_, again, schema, rows), Error::kOk);
        EXPECT_EQ(store_->rows(table_named(*store_, "t")->id), rows);
        EXPECT_EQ(store_->rows(other), few);
        expect_all_accounted_for();
        if (HasFailure()) return;
    }
}

}  // namespace
}  // namespace bidstore
