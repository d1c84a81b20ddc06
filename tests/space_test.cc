// Where pages come from: near their neighbours, so that a table's leaves are read in the order in
// which they lie; and what it costs in a large file to find some, and to take chunks into use.
#include "engine/space.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

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
    static constexpr std::uint32_t kChunks = 1'200;

    static SimStoreOptions options() {
        SimStoreOptions options = small_store();
        options.frames = 4'096;
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
    std::vector<PageRun> reserve_all() {
        std::vector<PageRun> all;
        for (;;) {
            const PageRun run = space().reserve(kChunkPages, 1);
            if (run.count == 0) return all;
            all.push_back(run);
        }
    }

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

// 32 single pages of each chunk are free, four of which are no value of 16: each placing looked at
// the bitmaps of all chunks, up to four times, on the engine's thread.
TEST_F(LargeFileTest, PlacingAValuePassesByChunksThatHaveNoRunForIt) {
    constexpr ExtentNeed kNeed{TableId{100}, 16};
    const auto looks = [&](auto place) {
        const std::uint64_t before = space().run_looks();
        place();
        return space().run_looks() - before;
    };
    const std::vector<PageRun> all = reserve_all();
    ASSERT_EQ(space().available(), 0u);
    for (const PageRun& run : all) {
        if (run.count < kChunkPages / 2) continue;
        for (std::uint32_t i = 0; i < 32; ++i) space().give_back({{run.first.value + i * 8}, 1});
    }
    ASSERT_GE(space().available(), 32u * (kChunks - 4));
    for (int i = 0; i < 3; ++i) {
        const std::uint64_t vain = looks(
            [&] { EXPECT_FALSE(space().reserve_extents(std::span(&kNeed, 1), kServingRunsMax)); });
        EXPECT_LE(vain, 8u);
    }

    // Pages that complete a run, behind all the others; it lies across two words of the bitmap.
    const auto far_run = std::find_if(all.begin(), all.end(), [](const PageRun& run) {
        return chunk_of(run.first) == kChunks - 3 && run.count > kChunkPages / 2;
    });
    ASSERT_NE(far_run, all.end());
    const std::uint32_t base = chunk_of(far_run->first) * kChunkPages;
    const std::uint32_t from = (far_run->first.value - base + 127) / 64 * 64 + base - 8;
    for (std::uint32_t page = from; page < from + 16; ++page) {
        if ((page - far_run->first.value) % 8 != 0) space().give_back({{page}, 1});
    }
    const std::uint64_t behind = looks([&] {
        const std::vector<ExtentRun> runs = space().reserve_runs(kNeed);
        ASSERT_EQ(runs.size(), 1u);
        EXPECT_EQ(runs[0].pages, kNeed.pages);
        EXPECT_EQ(chunk_of(PageId{runs[0].first}), kChunks - 3);
        space().give_back({{runs[0].first}, runs[0].pages});
    });
    EXPECT_LE(behind, 2u);

    // Parts of it, in four chunks that are not neighbours.
    const std::vector<ExtentRun> taken = space().reserve_runs(kNeed);
    ASSERT_EQ(taken.size(), 1u);
    std::vector<std::uint32_t> parts;
    for (std::size_t i = 20; parts.size() < 4; i += 130) {
        const std::uint32_t first = all[i].first.value + 40;
        for (std::uint32_t page = first; page < first + 4; ++page) {
            if ((page - all[i].first.value) % 8 != 0) space().give_back({{page}, 1});
        }
        parts.push_back(chunk_of(PageId{first}));
    }
    const std::uint64_t in_parts = looks([&] {
        std::vector<std::uint32_t> found;
        for (const ExtentRun& run : space().reserve_runs(kNeed)) {
            EXPECT_EQ(run.pages, 4u);
            found.push_back(chunk_of(PageId{run.first}));
            space().give_back({{run.first}, run.pages});
        }
        std::sort(found.begin(), found.end());
        EXPECT_EQ(found, parts);
    });
    EXPECT_LE(in_parts, 16u);
    space().end_extents(kNeed.table);
}

// The bounds of very many chunks are those of runs that leaves took: the looks that found so came
// out of a limit, and what lay behind them was refused.
TEST_F(LargeFileTest, PartsBehindManyChunksWhoseRunsWereTakenAreFound) {
    constexpr ExtentNeed kNeed{TableId{100}, 20};
    constexpr std::uint32_t kTaken = 16;
    constexpr std::uint32_t kSingle = 14;  // fewer, so that each chunk loses its run alone
    std::vector<std::uint32_t> firsts;
    for (const PageRun& run : reserve_all()) {
        if (run.count < kChunkPages / 2) continue;
        firsts.push_back(run.first.value);
        space().give_back({run.first, kTaken});
        for (std::uint32_t i = 0; i < kSingle; ++i) {
            space().give_back({{run.first.value + 40 + i * 8}, 1});
        }
    }
    ASSERT_GT(firsts.size(), 1'100u);
    for (std::size_t i = 0; i < firsts.size(); ++i) {
        ASSERT_EQ(space().reserve(kTaken, kTaken).count, kTaken);
    }
    const std::uint32_t longer = firsts[firsts.size() - 2];
    const std::uint32_t shorter = firsts.back();
    space().give_back({{longer}, 12});
    space().give_back({{shorter}, 8});
    const std::vector<ExtentRun> runs = space().reserve_runs(kNeed);
    ASSERT_EQ(runs.size(), 2u);
    EXPECT_EQ(runs[0].first, longer);
    EXPECT_EQ(runs[0].pages, 12u);
    EXPECT_EQ(runs[1].first, shorter);
    space().end_extents(kNeed.table);
}

// Pages come and go in any order: what fits in one run gets one, and nothing is refused that four
// runs would do for.
TEST_F(LargeFileTest, WhatFitsIsFound) {
    constexpr TableId kTable{100};
    std::vector<std::uint32_t> held;
    for (const PageRun& run : reserve_all()) {
        const std::uint32_t chunk = chunk_of(run.first);
        if (chunk % 75 != 7) continue;  // eight are enough to look through
        for (std::uint32_t i = 0; i < run.count; ++i) held.push_back(run.first.value + i);
    }
    std::map<std::uint32_t, bool> is_free;  // in the order of pages
    for (const std::uint32_t page : held) is_free[page] = false;
    const auto longest_runs = [&] {
        std::vector<std::uint32_t> lengths(4, 0);
        std::uint32_t length = 0;
        std::uint32_t last = 0;
        for (const auto& [page, free] : is_free) {
            const bool goes_on = page == last + 1 && page % kChunkPages != 0 && length > 0;
            if (!goes_on || !free) {
                if (length > 0) lengths.push_back(length);
                length = 0;
            }
            if (free) ++length;
            last = page;
        }
        lengths.push_back(length);
        std::sort(lengths.rbegin(), lengths.rend());
        return lengths;
    };
    std::mt19937_64 random(7);
    std::array<std::uint32_t, kServingRunsMax + 1> by_runs{};
    for (int step = 0; step < 3'000; ++step) {
        const std::uint32_t want = 1 + static_cast<std::uint32_t>(random() % (1u << random() % 7));
        if (random() % 2 == 0) {
            const std::size_t at = random() % held.size();
            const std::size_t end = std::min<std::size_t>(held.size(), at + want);
            for (std::size_t i = at; i < end; ++i) {
                space().give_back({PageId{held[i]}, 1});
                is_free[held[i]] = true;
            }
            const auto first = held.begin() + static_cast<std::ptrdiff_t>(at);
            held.erase(first, held.begin() + static_cast<std::ptrdiff_t>(end));
            if (held.empty()) break;
            continue;
        }
        const std::vector<std::uint32_t> longest = longest_runs();
        const std::vector<ExtentRun> runs = space().reserve_runs({kTable, want});
        ++by_runs[runs.size()];
        if (longest[0] >= want) {
            ASSERT_EQ(runs.size(), 1u) << "step " << step << ": " << want;
        } else if (std::accumulate(longest.begin(), longest.begin() + 4, 0u) >= want) {
            ASSERT_GE(runs.size(), 2u) << "step " << step << ": " << want;
        } else {
            ASSERT_TRUE(runs.empty());
        }
        for (const ExtentRun& run : runs) {
            for (std::uint32_t page = run.first; page < run.first + run.pages; ++page) {
                ASSERT_TRUE(std::exchange(is_free.at(page), false)) << page;
                held.push_back(page);
            }
        }
    }
    EXPECT_GT(*std::min_element(by_runs.begin(), by_runs.end()), 10u);
    space().end_extents(kTable);
}

}  // namespace
}  // namespace bidstore
