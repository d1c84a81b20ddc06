// Beside the writers and readers of the model: tables that are loaded in bulk, read whole and
// dropped, one after the other, and compactions of the file. Each of them goes on a step in every
// round.
//
// Who: tests/model_test.cc.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "tests/compaction_fixture.h"
#include "tests/load_fixture.h"
#include "tests/model_maker.h"
#include "tests/snapshot_reader.h"

namespace bidstore {

class ModelKeeper {
  public:
    struct Totals {
        std::uint64_t loaded = 0;
        std::uint64_t dropped = 0;
        std::uint64_t compactions = 0;
        std::uint64_t moved = 0;  // pages
    };

    ModelKeeper(Random& random, Totals& totals) : random_(random), totals_(totals) {}

    // A load that the former life did not end is gone; a table that it showed is there.
    void open(SimStore& store, const PoolView& view) {
        store_ = &store;
        view_ = &view;
        loader_ = &store.connect();
        compactor_ = &store.connect();
        load_.reset();
        drop_.reset();
        compaction_.reset();
        if (shown_) compare(20);
    }

    void step() {
        if (load_) {
            go_on_loading();
        } else if (drop_) {
            if (!loader_->answer(*drop_)) return;
            drop_.reset();
            ++totals_.dropped;
        } else if (shown_ && random_() % 30 == 0) {
            if (compare(1)) drop();
        } else if (!shown_ && random_() % 20 == 0) {
            begin_load();
        }
        if (!compaction_ && random_() % 40 == 0) compaction_.emplace(*compactor_, 32);
        if (!compaction_ || !compaction_->advance()) return;
        EXPECT_EQ(compaction_->error(), Error::kOk) << error_name(compaction_->error());
        ++totals_.compactions;
        totals_.moved += compaction_->moved();
        compaction_.reset();
    }

    void begin_load() {
        ++made_;
        schema_.emplace(load_schema("load" + std::to_string(made_), made_ % 2 == 0));
        const auto count = static_cast<std::uint32_t>(200 + random_() % 1'500);
        rows_ = schema_->has_variable() ? make_wide_rows(*schema_, count / 20, 12'000, made_)
                                        : make_load_rows(*schema_, count, made_);
        load_ = std::make_unique<LoadClient>(*loader_, *schema_, rows_);
    }
    void begin_load_if_none_is_there() {
        if (!shown_) begin_load();
    }
    bool idle() const { return !load_ && !drop_ && !compaction_; }

  private:
    void go_on_loading() {
        if (!load_->step()) return;
        EXPECT_EQ(load_->error(), Error::kOk) << error_name(load_->error());
        shown_ = load_->loaded();
        totals_.loaded += shown_;
        load_.reset();
    }

    void drop() {
        TransactionBytes drop;
        drop.operation(OperationKind::kDropTable, table_named(*store_, schema_->name())->id, {},
                       {});
        drop_ = loader_->submit(drop.bytes());
        ASSERT_TRUE(drop_.has_value());
        shown_ = false;
    }

    // All rows, under one snapshot. False: in so many tries its lease ended each time.
    bool compare(int tries) {
        const TableEntry* table = table_named(*store_, schema_->name());
        EXPECT_NE(table, nullptr) << schema_->name();
        if (table == nullptr) return false;
        const TreeShape shape(*schema_, table->id);
        const PageId root = table->tree.root();
        for (int i = 0; i < tries; ++i) {
            SimSnapshot snapshot(*store_, *view_, *loader_, 0);
            auto found = snapshot.range(shape, root, Bytes(16), {}, [] { return true; });
            if (found) found = snapshot.whole(*schema_, std::move(*found));
            EXPECT_EQ(snapshot.trouble(), "");
            if (!found) continue;
            EXPECT_EQ(difference(*found, rows_), "") << schema_->name();
            return true;
        }
        return false;
    }

    Random& random_;
    Totals& totals_;
    SimStore* store_ = nullptr;
    const PoolView* view_ = nullptr;
    SimClient* loader_ = nullptr;
    SimClient* compactor_ = nullptr;
    std::uint32_t made_ = 0;
    std::optional<Schema> schema_;  // of the table that is loaded, shown or dropped
    LoadRows rows_;
    std::unique_ptr<LoadClient> load_;
    bool shown_ = false;
    std::optional<std::uint32_t> drop_;
    std::optional<CompactClient> compaction_;
};

}  // namespace bidstore
