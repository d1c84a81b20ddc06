// Behind a failure that fences the engine nothing changes a file any more, whatever was under way:
// completions that come later, while the engine ends, would submit the next request of their
// recipe. Each recipe is caught at its first request, which the device keeps until the log has
// failed; and with both under way at once, in many orders.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/compaction_fixture.h"
#include "tests/load_fixture.h"

namespace bidstore {
namespace {

using Kind = DiskRequest::Kind;

enum class Ends : std::uint8_t {
    kHeld,    // fenced by the log, while the device keeps the recipe's request
    kBeside,  // by the log, while it may complete at any time
    kUndone,  // by Engine::end(), with nothing failed
};

class Fence : public ::testing::Test {
  protected:
    // One life that ends at the recipe's first request; `found` knows it.
    void open(const SimStoreOptions& shape, std::unique_ptr<SimDisk> disk, Ends ends,
              std::function<bool(const DiskRequest& request)> found) {
        ends_ = ends;
        found_ = std::move(found);
        met_ = over_ = false;
        late_.clear();
        shape_ = shape;
        store_ = std::make_unique<SimStore>(shape, std::move(disk), 3);
        ASSERT_TRUE(store_->open().ok());
        client_ = &store_->connect();
        const TableEntry* known = table_named(*store_, "rows");
        table_ = known != nullptr ? known->id : store_->create_table(*client_, compaction_schema());
        put(1);  // so that its pages are in the pool
        store_->disk->observe([this](std::uint64_t step, SimStep kind) { look(step, kind); });
    }
    void put(std::uint32_t id) {
        CompactionRows rows;
        put_rows(*store_, *client_, table_, id, id + 1, rows);
    }
    // `work` again and again until the recipe has begun; then the end.
    void run(const std::function<void()>& work) {
        for (int i = 0; !met_ && i < 20'000; ++i) {
            work();
            if (!met_) store_->round();
        }
        ASSERT_TRUE(met_);
        if (ends_ != Ends::kUndone) {
            put(1);
            ASSERT_EQ(store_->round(), EngineRound::kFenced);
            EXPECT_NE(store_->engine->fence_reason().find("log"), std::string::npos)
                << store_->engine->fence_reason();
        }
        over_ = true;
        store_->disk->release();
        Engine::end(std::move(store_->engine));
        EXPECT_EQ(store_->disk->in_flight(), 0u);
        EXPECT_EQ(late_, std::vector<std::string>());
        SimStore after(shape_, store_->disk->process_crash(3), 3);
        const Status opened = after.open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        EXPECT_EQ(after.verify(), "");
    }
    bool moves_extent() const {
        return store_->engine && !store_->engine->core().extent_move_is_over();
    }

    SimStoreOptions shape_;
    std::unique_ptr<SimStore> store_;
    SimClient* client_ = nullptr;
    TableId table_;

  private:
    // The parts know it before the engine does.
    bool failed() const {
        if (over_) return true;
        Engine::Core& core = store_->engine->core();
        return core.commit().failed() || !core.storage().checkpointer->failure().empty() ||
               core.storage().space.growth().failed();
    }
    void look(std::uint64_t step, SimStep kind) {
        if (store_->disk->submitting() == nullptr) return;
        const DiskRequest& request = *store_->disk->submitting();
        if (request.kind != Kind::kRead && failed()) {
            late_.push_back(std::to_string(static_cast<unsigned>(request.kind)) + " of " +
                            store_->disk->path(request.file) + " at " +
                            std::to_string(request.offset_bytes));
        }
        if (!met_ && found_(request)) {
            met_ = true;
            if (ends_ != Ends::kBeside) store_->disk->hold_back(StoreFile::kData);
        }
        const bool logs = request.file == StoreFile::kLog && kind == SimStep::kSubmitWrite;
        if (met_ && logs && ends_ != Ends::kUndone) store_->disk->fail_at(step, EIO);
    }

    Ends ends_ = Ends::kHeld;
    std::function<bool(const DiskRequest& request)> found_;
    bool met_ = false;
    bool over_ = false;
    std::vector<std::string> late_;  // what should not have been submitted
};

// How often, with another seed of the disk each time.
void each_end(const std::function<void(Ends ends, std::uint64_t seed)>& life) {
    for (const Ends ends : {Ends::kHeld, Ends::kBeside, Ends::kUndone}) {
        const std::uint64_t seeds = ends == Ends::kBeside ? 20 : 2;
        for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
            SCOPED_TRACE("end " + std::to_string(static_cast<unsigned>(ends)) + " seed " +
                         std::to_string(seed));
            life(ends, seed);
            if (::testing::Test::HasFailure()) return;
        }
    }
}

std::unique_ptr<SimDisk> new_disk(std::uint64_t seed) {
    SimDiskOptions options;
    options.seed = seed;
    return std::make_unique<SimDisk>(options);
}

bool begins_superblock(const DiskRequest& request) {
    return request.kind == Kind::kWrite && request.file == StoreFile::kData &&
           request.offset_bytes == 0;
}

TEST_F(Fence, KeepsTheSecondCopyOfASuperblock) {
    SimStoreOptions shape = small_store();
    shape.engine.checkpoint_interval_ns = 100'000;
    each_end([&](Ends ends, std::uint64_t seed) {
        open(shape, new_disk(seed), ends, begins_superblock);
        std::uint32_t id = 0;
        run([&] { put(++id % 64); });
    });
}

// Images, syncs and the journal.
TEST_F(Fence, KeepsTheStepsOfACheckpoint) {
    SimStoreOptions shape = small_store();
    shape.engine.checkpoint_interval_ns = 100'000;
    for (const StoreFile file : {StoreFile::kData, StoreFile::kJournal}) {
        each_end([&](Ends ends, std::uint64_t seed) {
            open(shape, new_disk(seed), ends, [file](const DiskRequest& request) {
                return request.kind == Kind::kSync && request.file == file;
            });
            std::uint32_t id = 0;
            run([&] { put(++id % 64); });
        });
    }
}

TEST_F(Fence, KeepsTheNextPieceOfAGrowth) {
    SimStoreOptions shape = small_store();
    shape.engine.checkpoint_interval_ns = 3'600'000'000'000;
    each_end([&](Ends ends, std::uint64_t seed) {
        open(shape, new_disk(seed), ends,
             [](const DiskRequest& request) { return request.kind == Kind::kGrow; });
        std::uint32_t id = 0;
        run([&] { put(++id); });
    });
}

TEST_F(Fence, KeepsTheWritesOfALoad) {
    SimStoreOptions shape = small_store();
    shape.engine.checkpoint_interval_ns = 3'600'000'000'000;
    const Schema schema = load_schema("loaded", true);
    LoadRows rows = make_load_rows(schema, 2'000, 3);
    rows.merge(make_wide_rows(schema, 20, 60'000, 4));
    for (const Kind kind : {Kind::kWrite, Kind::kExtend}) {
        each_end([&](Ends ends, std::uint64_t seed) {
            open(shape, new_disk(seed), ends, [kind](const DiskRequest& request) {
                return request.kind == kind && request.file == StoreFile::kData;
            });
            SimClient& loader = store_->connect();
            LoadClient load(loader, schema, rows);
            run([&] { load.step(); });
        });
    }
}

// Large values behind free room, in a file that ends with nothing.
class FenceCompaction : public Fence {
  protected:
    FenceCompaction() {
        shape_ = small_store();
        shape_.frames = 6'000;
        shape_.engine.log_segment_bytes = 4u << 20;
        shape_.engine.journal_bytes = 8u << 20;
        shape_.engine.checkpoint_interval_ns = 2'000'000'000;
        SimStore store(shape_, new_disk(3), 3);
        CHECK(store.open().ok());
        SimClient& client = store.connect();
        const TableId values = store.create_table(client, value_schema());
        store.create_table(client, compaction_schema());
        for (const bool puts : {true, false}) {
            for (std::uint32_t id = 0; id < kValues; ++id) {
                if (!puts && id % 5 == 2) continue;
                TransactionBytes bytes;
                if (puts) {
                    bytes.operation(OperationKind::kPut, values, row_key(id),
                                    wide_row(id, 0, 5'000 + (id * 7'919) % 60'000));
                } else {
                    bytes.operation(OperationKind::kDelete, values, row_key(id), {});
                }
                CHECK(store.commit(client, bytes).error == Error::kOk);
            }
        }
        settle(store);
        CHECK(store.stop());
        before_ = store.disk->clone(5);
    }
    void compact(const std::function<bool(const DiskRequest& request)>& found) {
        const SimStoreOptions shape = shape_;
        each_end([&](Ends ends, std::uint64_t seed) {
            open(shape, before_->clone(seed), ends, found);
            SimClient& other = store_->connect();
            CompactClient compaction(other);
            run([&] {
                store_->clock.advance_ns(1'000'000);
                compaction.advance();
            });
        });
    }

  private:
    static constexpr std::uint32_t kValues = 160;
    std::unique_ptr<SimDisk> before_;
};

TEST_F(FenceCompaction, KeepsTheCopyOfAnExtent) {
    compact([this](const DiskRequest& request) {
        return request.kind == Kind::kRead && moves_extent();
    });
}

TEST_F(FenceCompaction, KeepsTheCutOfTheFile) {
    compact([](const DiskRequest& request) { return request.kind == Kind::kPunch; });
}

TEST_F(FenceCompaction, KeepsTheSyncBehindACut) {
    compact([](const DiskRequest& request) { return request.kind == Kind::kCut; });
}

}  // namespace
}  // namespace bidstore
