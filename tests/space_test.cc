// Where pages come from: near their neighbours, so that a table's leaves are read in the order in
// which they lie; and what it costs in a large file to find some, and to take chunks into use.
#include "engine/space.h"

#include <gtest/gtest.h>

#include "shm/hot_path.h"
#include "tests/compaction_fixture.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kInLeaf = 8;
constexpr std::uint32_t kLeaves = 1'200;  // more than two chunks for each table

// Of a table's leaves, in the order of their keys, those that lie right behind the one before.
double in_order_share(SimStore& store, TableId table) {
    Storage& storage = store.engine->core().storage();
    PageId last;
    std::uint32_t leaves = 0;
    std::uint32_t in_order = 0;
    const auto visit = [&](PageId page) {
        if (page_header(storage.pool.newest(page)).type != PageType::kLeaf) return;
        in_order += ++leaves > 1 && page.value == last.value + 1;
        last = page;
    };
    CHECK(storage.catalog->find(table)->tree.visit_pages(visit).ok());
    EXPECT_EQ(leaves, kLeaves);
    return static_cast<double>(in_order) / (leaves - 1);
}

// Every other leaf of two tables goes; then both get their rows back, in turn. Taken from anywhere,
// the pages of one would lie between those of the other.
TEST(Space, TablesFilledInTurnTakeTheFreePagesAmongTheirOwn) {
    SimStoreOptions options = small_store();
    options.frames = 4'000;
    options.engine.checkpoint_interval_ns = 2'000'000'000;
    SimDiskOptions disk;
    disk.seed = 5;
    SimStore store(options, std::make_unique<SimDisk>(disk), 5);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    struct Filled {
        const char* name;
        TableId table;
        CompactionRows rows;
    };
    Filled both[] = {{"left", {}, {}}, {"right", {}, {}}};
    for (Filled& one : both) {
        one.table = store.create_table(client, compaction_schema(one.name));
        put_rows(store, client, one.table, 0, kLeaves * kInLeaf, one.rows);
    }
    for (Filled& one : both) {
        ASSERT_GT(in_order_share(store, one.table), 0.95);
        for (std::uint32_t leaf = 1; leaf < kLeaves; leaf += 2) {
            const std::uint32_t first = leaf * kInLeaf;
            ASSERT_EQ(erase_rows(store, client, one.table, first, first + kInLeaf, one.rows),
                      Error::kOk);
        }
    }
    for (int i = 0; i < 10; ++i) settle(store);
    ASSERT_EQ(store.engine->core().storage().space.quarantined(), 0u);
    for (std::uint32_t leaf = 1; leaf < kLeaves; leaf += 2) {
        for (Filled& one : both) {
            const std::uint32_t first = leaf * kInLeaf;
            put_rows(store, client, one.table, first, first + kInLeaf, one.rows);
        }
    }
    for (const Filled& one : both) {
        EXPECT_GT(in_order_share(store, one.table), 0.4) << "none, with pages from anywhere";
        EXPECT_EQ(store.rows(one.table), one.rows);
    }
    EXPECT_EQ(store.verify(), "");
}

// A file of many chunks, taken into use at once; the open batch has their metadata.
class LargeFileTest : public ::testing::Test {
  protected:
    static constexpr std::uint32_t kChunks = 600;

    static SimStoreOptions options() {
        SimStoreOptions options = small_store();
        options.frames = 2'048;
        options.pages = kChunks * kChunkPages;
        options.engine.journal_bytes = 8u << 20;
        return options;
    }
    void SetUp() override {
        ASSERT_TRUE(store.open().ok());
        const auto ready = [&] {
            if (space().growth().idle()) space().extend(kChunks);
            return space().growth().chunks() == kChunks && store.engine->core().commit().open();
        };
        ASSERT_TRUE(store.run_until(ready));
        const HotPath hot("chunks are taken into use");  // no table is copied to a larger place
        space().take_chunks(kChunks);
    }
    void TearDown() override {
        store.engine->core().commit().touch();
        settle(store);
        EXPECT_EQ(store.verify(), "");
    }
    Space& space() { return store.engine->core().storage().space; }

    SimStore store{options(), std::make_unique<SimDisk>(), 5};
};

// The tables of each page are there for the largest file: else they are copied to a place of twice
// the size when a chunk is taken into use, in the middle of a transaction.
TEST_F(LargeFileTest, ChunksAreTakenIntoUseWithoutMemory) {
#ifdef NDEBUG
    GTEST_SKIP() << "a build with NDEBUG has no trap";
#endif
    EXPECT_EQ(space().chunk_count(), kChunks);
}

}  // namespace
}  // namespace bidstore
