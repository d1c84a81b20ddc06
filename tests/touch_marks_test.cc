// Readers tell the engine what they use, by marks in their own segments, and the pool keeps it.
#include "shm/touch_marks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>

#include "engine/page/search.h"
#include "shm/page_map.h"
#include "shm/stats.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

// ---- marker and watcher by themselves ----

class MarksTest : public ::testing::Test {
  protected:
    std::vector<std::uint32_t> take(std::uint32_t most = kTouchMarks) {
        std::vector<std::uint32_t> pages(most);
        pages.resize(TouchWatcher::take(*marks, seen, pages));
        return pages;
    }
    std::unique_ptr<TouchMarks> marks = std::make_unique<TouchMarks>();
    std::uint32_t seen = 0;
};

TEST_F(MarksTest, OneUseIn16IsMarked) {
    TouchMarker marker(*marks);
    std::uint32_t marked = 0;
    for (int i = 0; i < 160'000; ++i) {
        marker.note(PageId{7}, 0);
        marked += static_cast<std::uint32_t>(take().size());
    }
    EXPECT_NEAR(marked, 10'000, 500);
}

// A reader whose uses have a rhythm: each page of it has its chance.
TEST_F(MarksTest, NoRhythmHidesAPage) {
    TouchMarker marker(*marks);
    std::array<std::uint32_t, 16> marked{};
    for (std::uint32_t i = 0; i < 160'000; ++i) {
        marker.note(PageId{i % 16}, 0);
        for (const std::uint32_t page : take()) ++marked[page];
    }
    for (const std::uint32_t count : marked) EXPECT_NEAR(count, 625, 200);
}

TEST_F(MarksTest, EachUseOfAWatchedPageIsMarked) {
    TouchMarker marker(*marks);
    for (std::uint32_t page = 100; page < 110; ++page) marker.note(PageId{page}, kWatched);
    EXPECT_EQ(take().size(), 10u);
}

TEST_F(MarksTest, WatchedPageThatIsUsedOverAndOverLeavesRoomForOthers) {
    TouchMarker marker(*marks);
    marker.note(PageId{5}, kWatched);
    for (int i = 0; i < 800; ++i) marker.note(PageId{6}, kWatched);
    const std::vector<std::uint32_t> pages = take();
    EXPECT_EQ(pages.back(), 5u);
    EXPECT_NEAR(static_cast<double>(pages.size()), 52, 25);  // the sample, and the first
}

TEST_F(MarksTest, UseThatAPageWasBroughtInForIsNotMarked) {
    TouchMarker marker(*marks);
    const std::array<PageId, 2> asked{PageId{5}, PageId{6}};
    marker.asked_for(asked);
    marker.note(PageId{5}, kWatched);
    marker.note(PageId{9}, kWatched);
    marker.note(PageId{5}, kWatched);
    marker.note(PageId{6}, kWatched);
    EXPECT_EQ(take(), (std::vector<std::uint32_t>{5, 9}));  // newest first
    EXPECT_TRUE(take().empty());
}

// A reader that keeps the device's queue full: each page is used 64 questions later.
TEST_F(MarksTest, ManyPagesUnderWayAreRarelyTakenForPagesUsedAgain) {
    constexpr std::uint32_t kUnderWay = 64;
    constexpr std::uint32_t kUses = 10'000;
    TouchMarker marker(*marks);
    std::mt19937 random(3);
    std::deque<PageId> under_way;
    std::uint32_t marked = 0;
    for (std::uint32_t i = 0; i < kUses; ++i) {
        under_way.push_back(PageId{static_cast<std::uint32_t>(random() % 1'000'000)});
        marker.asked_for({&under_way.back(), 1});
        if (under_way.size() <= kUnderWay) continue;
        marker.note(under_way.front(), kWatched);
        under_way.pop_front();
        marked += static_cast<std::uint32_t>(take().size());
    }
    EXPECT_LT(marked, kUses / 12);
}

TEST_F(MarksTest, NewestMarksAreTakenAndTheOthersPassedOver) {
    TouchMarker marker(*marks);
    for (std::uint32_t page = 1; page <= 1'000; ++page) marker.note(PageId{page}, kWatched);
    EXPECT_EQ(take(3), (std::vector<std::uint32_t>{1'000, 999, 998}));
    EXPECT_TRUE(take().empty());
    for (std::uint32_t page = 1; page <= 1'000; ++page) marker.note(PageId{page}, kWatched);
    EXPECT_EQ(take().size(), kTouchMarks);
}

TEST_F(MarksTest, AnyCountThatAClientWritesGivesABoundedNumberOfMarks) {
    for (const std::uint32_t written : {1u, 5'000u, ~0u, 0u, 1u << 31, 77u}) {
        marks->written.store(written);
        EXPECT_LE(take().size(), kTouchMarks);
        EXPECT_EQ(seen, written);
        EXPECT_TRUE(take().empty());
    }
}

// ---- a store whose table is larger than its pool ----

constexpr std::uint64_t kRows = 24'000;
constexpr std::uint64_t kRecentRows = 2'700;  // the first ones of a table with times

Schema rows_schema() {
    auto schema =
        Schema::make("rows", {{"id", ColumnType::kU64, 0}, {"text", ColumnType::kText, 0}}, 1);
    CHECK(schema.ok());
    return *schema;
}

Schema timed_schema() {
    auto schema = Schema::make("rows",
                               {{"id", ColumnType::kU64, 0},
                                {"at", ColumnType::kTimestamp, 0},
                                {"text", ColumnType::kText, 0}},
                               1, 1);
    CHECK(schema.ok());
    return *schema;
}

std::vector<std::byte> key_of(std::uint64_t id) {
    std::vector<std::byte> key(8);
    encode_key_integer(key.data(), id, 8, false);
    return key;
}

// Reads as the client library does: each page through its map entry, marked in the slot's marks,
// asked for when it is away.
class MarkingReader {
  public:
    MarkingReader(SimStore& store, const PoolView& view, SimClient& client)
        : store_(store),
          view_(view),
          client_(client),
          slot_(client.segment().slots()[0], view.published(),
                view.revoked()[client.segment().first_slot()]),
          marker_(client.segment().marks()[0]) {}

    // The page as the newest snapshot sees it; counts when it was away.
    const std::byte* use(PageId page) {
        for (int tries = 0; tries < 10; ++tries) {
            const PageVersion version = version_at(view_, slot_, page);
            if (version.lookup == PageLookup::kFound) {
                marker_.note(page, version.entry);
                return version.page;
            }
            EXPECT_EQ(version.lookup, PageLookup::kAbsent);
            ++misses;
            bring_in(page);
        }
        ADD_FAILURE() << "page " << page.value << " does not come";
        return nullptr;
    }
    // The leaf that has the row.
    PageId find(const TreeShape& shape, PageId root, std::uint64_t id) {
        slot_.begin();
        const Landing landing =
            descend(shape, root, key_of(id).data(), [this](PageId page) { return use(page); });
        EXPECT_EQ(landing.state, Landed::kLeaf);
        EXPECT_TRUE(slot_.valid());
        slot_.end();
        return landing.page;
    }
    // Each under a snapshot of its own, as a scan of more than the pool holds has to.
    void use_all(std::span<const PageId> pages) {
        for (const PageId page : pages) {
            slot_.begin();
            use(page);
            slot_.end();
        }
    }
    std::uint64_t misses = 0;

  private:
    void bring_in(PageId page) {
        const std::array<PageId, 1> pages{page};
        marker_.asked_for(pages);
        const auto token = client_.request_pages(pages);
        ASSERT_TRUE(token.has_value());
        std::optional<Answer> answer;
        store_.run_until([&] { return (answer = client_.answer(*token)).has_value(); });
        ASSERT_TRUE(answer.has_value());
        ASSERT_EQ(answer->error, Error::kOk);
    }
    SimStore& store_;
    const PoolView& view_;
    SimClient& client_;
    SlotOwner slot_;
    TouchMarker marker_;
};

class TouchedPool : public ::testing::Test {
  protected:
    void SetUp() override { start(rows_schema(), 0.5); }
    // 700 frames, a table of twice as many leaves.
    void start(const Schema& schema, double recent_share) {
        SimStoreOptions options = small_store();
        options.frames = 700;
        options.engine.pin_recent_share = recent_share;
        store = std::make_unique<SimStore>(options, std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store->open().ok());
        client = &store->connect();
        table = store->create_table(*client, schema);
        fill(schema);
        auto descriptor = store->pool->open_read_only();
        ASSERT_TRUE(descriptor.ok());
        auto mapped = PoolView::map(std::move(*descriptor));
        ASSERT_TRUE(mapped.ok());
        view.emplace(std::move(*mapped));
        TableEntry* entry = store->engine->core().storage().catalog->find(table);
        shape.emplace(entry->schema, table);
        root = entry->tree.root();
    }
    void TearDown() override {
        store->engine->core().storage().pool.check_invariants();
        EXPECT_EQ(store->verify(), "");
    }
    void fill(const Schema& schema) {
        RowBuilder builder(schema);
        const std::uint64_t now_us = store->clock.wall_us();
        const std::string text(200, 'x');
        for (std::uint64_t id = 0; id < kRows;) {
            TransactionBytes bytes;
            for (int i = 0; i < 10; ++i, ++id) {
                ASSERT_TRUE(builder.set_unsigned(0, id).ok());
                const bool timed = schema.time_column() != kNoTimeColumn;
                const std::uint64_t age_us = id < kRecentRows ? 0 : 3'600'000'000;
                if (timed) {
                    ASSERT_TRUE(builder.set_unsigned(1, now_us + 30'000'000 - age_us).ok());
                }
                ASSERT_TRUE(builder.set_bytes(timed ? 2 : 1, std::as_bytes(std::span(text))).ok());
                const auto value = builder.value();
                ASSERT_TRUE(value.ok());
                bytes.operation(OperationKind::kPut, table, key_of(id), *value);
            }
            ASSERT_EQ(store->commit(*client, bytes).error, Error::kOk);
        }
        checkpoint_all();
    }
    // What a checkpoint has yet to write cannot go, and these tests are about what may.
    void checkpoint_all() {
        Storage& storage = store->engine->core().storage();
        const Csn filled{storage.pool.visible()};
        const auto covered = [&] {
            store->clock.advance_ns(1'000'000);
            return storage.checkpointer->covered() >= filled;
        };
        ASSERT_TRUE(store->run_until(covered, 200'000));
    }
    // The leaves of the table in order.
    std::vector<PageId> all_leaves() {
        SimClient& other = store->connect();
        MarkingReader finder = reader(other);
        std::vector<PageId> leaves;
        for (std::uint64_t id = 0; id < kRows; id += 5) {
            const PageId leaf = finder.find(*shape, root, id);
            if (leaves.empty() || leaves.back() != leaf) leaves.push_back(leaf);
        }
        store->disconnect(other);
        return leaves;
    }
    MarkingReader reader(SimClient& of) { return MarkingReader(*store, *view, of); }
    std::uint64_t away(std::span<const PageId> pages) {
        const Pool& pool = store->engine->core().storage().pool;
        return static_cast<std::uint64_t>(std::count_if(
            pages.begin(), pages.end(), [&](PageId page) { return !pool.resident(page); }));
    }
    std::uint64_t counter(Counter which) {
        return store->pool->stats().counter[static_cast<std::size_t>(which)].load();
    }
    bool watched(PageId page) {
        return (store->pool->page_map()[page.value].load() & kWatched) != 0;
    }
    void some_rounds() {
        // Marks are gathered some times a second, also when nothing is evicted.
        for (int tick = 0; tick < 3; ++tick) {
            store->clock.advance_ns(20'000'000);
            store->run_until([] { return false; }, 20);
        }
    }

    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
    TableId table;
    PageId root;
    std::optional<PoolView> view;
    std::optional<TreeShape> shape;
};

TEST_F(TouchedPool, HotPagesStayDuringAFullScan) {
    const std::vector<PageId> leaves = all_leaves();
    MarkingReader scanner = reader(*client);
    ASSERT_GT(leaves.size(), 1'200u);
    MarkingReader user = reader(store->connect());
    const std::span<const PageId> hot(leaves.data() + 100, 250);
    for (int round = 0; round < 4; ++round) {
        user.use_all(hot);
        some_rounds();
    }
    user.misses = 0;
    std::uint32_t steps = 0;
    for (int scan = 0; scan < 3; ++scan) {
        // One hot page is used for each leaf that the scan reads.
        for (const PageId& leaf : leaves) {
            scanner.use_all({&leaf, 1});
            user.use_all(hot.subspan(++steps % hot.size(), 1));
        }
    }
    EXPECT_LE(user.misses, steps / 100);  // a point
    EXPECT_LE(away(hot), hot.size() / 50);
    EXPECT_GT(scanner.misses, leaves.size());
}

TEST_F(TouchedPool, WhatReadersMarkStaysAndTheRestGoes) {
    const std::vector<PageId> leaves = all_leaves();
    MarkingReader scanner = reader(*client);
    const std::span<const PageId> marked(leaves.data(), 100);
    const std::span<const PageId> unmarked(leaves.data() + 100, 100);
    MarkingReader user = reader(store->connect());
    user.use_all(marked);  // these come in
    user.use_all(unmarked);
    user.use_all(marked);  // and these are used again
    some_rounds();
    scanner.use_all(std::span(leaves).subspan(300, 800));
    EXPECT_LE(away(marked), 2u);
    // Nearly: a few went so shortly before that the policy remembers them, and what comes back
    // then counts as wanted.
    EXPECT_GE(away(unmarked), 85u);
}

TEST_F(TouchedPool, NoClientCrowdsOutTheMarksOfTheOthers) {
    const std::vector<PageId> leaves = all_leaves();
    SimClient& greedy = store->connect();
    SimClient& modest = store->connect();
    MarkingReader user = reader(modest);
    const std::span<const PageId> pages(leaves.data() + 200, 60);
    user.use_all(pages);
    some_rounds();
    const auto all_marked = [&] {  // in every slot of its segment, before each round
        for (std::uint32_t slot = 0; slot < greedy.segment().slot_count(); ++slot) {
            TouchMarks& marks = greedy.segment().marks()[slot];
            for (auto& mark : marks.page) mark.store(leaves[slot].value);
            marks.written.store(marks.written.load() + kTouchMarks);
        }
    };
    user.use_all(pages);
    for (int tick = 0; tick < 3; ++tick) {
        all_marked();
        some_rounds();
    }
    for (const PageId page : pages) EXPECT_FALSE(watched(page));
    EXPECT_TRUE(store->clients.cut_off_clients.empty());
}

// Each gathering has the modest client's marks in it, whoever is asked first.
TEST(TouchFairness, EachClientHasItsPartOfEveryGathering) {
    SimStore store(small_store(), std::make_unique<SimDisk>(), 1);
    ASSERT_TRUE(store.open().ok());
    SimClient& greedy = store.connect();
    SimClient& modest = store.connect();
    TouchMarks& few = modest.segment().marks()[0];
    std::array<std::uint32_t, 512> gathered;
    for (int round = 0; round < 6; ++round) {
        for (std::uint32_t slot = 0; slot < greedy.segment().slot_count(); ++slot) {
            TouchMarks& marks = greedy.segment().marks()[slot];
            for (auto& mark : marks.page) mark.store(1'000);
            marks.written.store(marks.written.load() + kTouchMarks);
        }
        for (std::uint32_t i = 0; i < 60; ++i) few.page[(few.written + i) % kTouchMarks] = 2'000;
        few.written.store(few.written.load() + 60);
        const std::uint32_t count = store.engine->core().port().take_touches(gathered);
        EXPECT_EQ(std::count(gathered.begin(), gathered.begin() + count, 2'000u), 60);
        EXPECT_EQ(count, 60u + gathered.size() / 2);
    }
}

TEST_F(TouchedPool, NonsenseInMarksChangesNothing) {
    const std::vector<PageId> leaves = all_leaves();
    MarkingReader scanner = reader(*client);
    SimClient& hostile = store->connect();
    std::mt19937 random(9);
    for (int round = 0; round < 100; ++round) {
        for (std::uint32_t slot = 0; slot < hostile.segment().slot_count(); ++slot) {
            TouchMarks& marks = hostile.segment().marks()[slot];
            marks.written.store(static_cast<std::uint32_t>(random()));
            for (auto& mark : marks.page) {
                const auto any = static_cast<std::uint32_t>(random());
                mark.store(random() % 2 == 0 ? any : any % 4'096);
            }
        }
        scanner.use_all(std::span(leaves).subspan(random() % 1'000, 20));
        some_rounds();
    }
    store->engine->core().storage().pool.check_invariants();
    EXPECT_EQ(all_leaves(), leaves);
}

// Leaves are used again and again, by their numbers; nobody uses the nodes above them.
TEST_F(TouchedPool, InnerNodesStayWhileLeavesComeAndGo) {
    const std::vector<PageId> leaves = all_leaves();
    const Pool& pool = store->engine->core().storage().pool;
    std::vector<PageId> inner;
    for (std::uint32_t id = 0; id < pool.page_count(); ++id) {
        const std::byte* page = pool.version_at(PageId{id}, Csn{pool.visible()});
        if (page != nullptr && page_header(page).type == PageType::kInner) {
            inner.push_back(PageId{id});
        }
    }
    ASSERT_GT(inner.size(), 1u);
    MarkingReader scanner = reader(*client);
    for (int round = 0; round < 3; ++round) {
        const auto half = std::span(leaves).subspan(round % 2 == 0 ? 0 : 650, 650);
        for (int again = 0; again < 2; ++again) {
            scanner.use_all(half);
            some_rounds();
        }
    }
    EXPECT_EQ(away(inner), 0u);
    EXPECT_GT(away(leaves), leaves.size() / 3);
}

TEST_F(TouchedPool, AFloodOfMarksIsABoundedAmountOfWork) {
    const std::vector<PageId> leaves = all_leaves();
    constexpr std::uint64_t kMarksPerGathering = 512;  // at most once in each round here
    SimClient& hostile = store->connect();
    for (int round = 0; round < 50; ++round) {
        for (std::uint32_t slot = 0; slot < hostile.segment().slot_count(); ++slot) {
            TouchMarks& marks = hostile.segment().marks()[slot];
            for (auto& mark : marks.page) mark.store(leaves[slot].value);
            marks.written.store(marks.written.load() + 1'000'000);
        }
        const std::uint64_t before = counter(Counter::kMarksGathered);
        store->clock.advance_ns(20'000'000);
        store->round();
        EXPECT_GT(counter(Counter::kMarksGathered), before);
        EXPECT_LE(counter(Counter::kMarksGathered), before + kMarksPerGathering);
    }
}

// ---- tables with a time column ----

class TimedPool : public TouchedPool {
  protected:
    void SetUp() override {}
    // Rows of the first leaves are young, the others an hour old; nobody uses any leaf twice.
    std::uint64_t recent_leaves_left(double share) {
        start(timed_schema(), share);
        const std::vector<PageId> leaves = all_leaves();
        const std::uint64_t recent = leaves.size() * kRecentRows / kRows;
        const std::span<const PageId> young(leaves.data(), recent - 1);
        MarkingReader scanner = reader(*client);
        scanner.use_all(std::span(leaves).subspan(recent));  // all_leaves() is forgotten
        scanner.use_all(young);
        for (int scan = 0; scan < 2; ++scan) scanner.use_all(std::span(leaves).subspan(recent));
        const std::uint64_t left = young.size() - away(young);
        store->clock.advance_ns(600'000'000'000);
        // They are old now, and go when others want their place: a scan alone does not.
        for (int round = 0; round < 10; ++round) {
            scanner.use_all(std::span(leaves).subspan(recent, 650));
            some_rounds();
        }
        EXPECT_LE(young.size() - away(young), 20u);
        return left;
    }
};

TEST_F(TimedPool, RecentLeavesStayUntouched) {
    EXPECT_GE(recent_leaves_left(0.5), 140u);  // of 149
}

TEST_F(TimedPool, RecentLeavesTakeNoMoreThanTheirShare) {
    const std::uint64_t left = recent_leaves_left(0.1);  // 70 frames
    EXPECT_GE(left, 60u);
    EXPECT_LE(left, 80u);
}

TEST_F(TimedPool, WithoutAShareRecentLeavesGoLikeOthers) { EXPECT_LE(recent_leaves_left(0), 10u); }

}  // namespace
}  // namespace bidstore
