// The trap on hot paths: it catches, and the paths that are declared hot do without malloc.
#include "shm/hot_path.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/client_fixture.h"
#include "tests/sim.h"

namespace bidstore {

void* kept = nullptr;  // known outside: the compiler cannot leave out what is stored here

namespace {

#ifdef NDEBUG
#define NEEDS_THE_TRAP() GTEST_SKIP() << "a build with NDEBUG has no trap"
#else
#define NEEDS_THE_TRAP() GTEST_FLAG_SET(death_test_style, "threadsafe")

void on_hot_path(const std::function<void()>& what) {
    const HotPath hot("planted");
    what();
}

std::uint64_t mallocs_left() { return hot_path_state.mallocs_left; }
#endif

TEST(HotPath, TrapCatchesWhateverAllocates) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    const auto caught = "malloc of [0-9]+ bytes on the hot path \"planted\"";
    EXPECT_DEATH(on_hot_path([] { kept = std::malloc(100); }), caught);
    EXPECT_DEATH(on_hot_path([] { kept = std::calloc(10, 10); }), caught);
    EXPECT_DEATH(on_hot_path([] { kept = std::realloc(nullptr, 100); }), caught);
    EXPECT_DEATH(on_hot_path([] { kept = std::aligned_alloc(64, 128); }), caught);
    EXPECT_DEATH(on_hot_path([] { kept = new int(3); }), caught);
    EXPECT_DEATH(on_hot_path([] { kept = std::make_shared<std::string>(100, 'x').get(); }), caught);
    void* place = nullptr;
    EXPECT_DEATH(on_hot_path([&] { kept = ::posix_memalign(&place, 64, 128) ? nullptr : place; }),
                 caught);
#endif
}

TEST(HotPath, NamesTheInnermostAndTheOuterOneAgain) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    const auto nest = [](bool inside) {
        const HotPath outer("outer");
        {
            const HotPath inner("inner");
            if (inside) kept = std::malloc(1);
        }
        kept = std::malloc(1);
    };
    EXPECT_DEATH(nest(true), "on the hot path \"inner\"");
    EXPECT_DEATH(nest(false), "on the hot path \"outer\"");
#endif
}

TEST(HotPath, AllocatesBeforeBehindAndWhereItIsLeft) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    std::free(std::malloc(1));
    const std::uint64_t before = mallocs_left();
    {
        const HotPath hot("planted");
        const ColdPath cold;
        kept = std::malloc(1);
        std::free(kept);
    }
    EXPECT_EQ(mallocs_left(), before + 1) << "counted where a path was left";
    {
        const ColdPath cold;
        kept = std::malloc(1);
        std::free(kept);
    }
    kept = std::malloc(1);
    std::free(kept);
    EXPECT_EQ(mallocs_left(), before + 1) << "and nowhere else";
#endif
}

TEST(HotPath, FreesWhatSomebodyElseAllocated) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    auto given = std::make_unique<std::string>(100, 'x');
    const HotPath hot("planted");
    given.reset();
#endif
}

TEST(HotPath, HoldsItsOwnThreadAlone) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    std::thread other;
    const auto allocate = [] {
        kept = std::malloc(1);
        std::free(kept);
    };
    {
        const HotPath hot("planted");
        const ColdPath cold;
        other = std::thread(allocate);
    }
    other.join();
#endif
}

TEST(HotPath, KeptVectorGrowsOffThePathAndThenNoMore) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    std::vector<int> numbers;
    const auto fill = [&] {
        const HotPath hot("planted");
        numbers.clear();
        for (int i = 0; i < 1'000; ++i) kept_push(numbers, i);
    };
    fill();
    const std::uint64_t before = mallocs_left();
    EXPECT_GT(before, 0u);
    fill();
    EXPECT_EQ(mallocs_left(), before);
    EXPECT_EQ(numbers.size(), 1'000u);
    EXPECT_EQ(numbers.back(), 999);
#endif
}

// ---- what is declared hot ----
// The trap holds them to it in every debug test. Kept memory may grow there, though: not for ever.

#ifndef NDEBUG
constexpr int kRoundsToWarm = 1'000;

// How many times `round` left a hot path to allocate, after it had been made some times.
std::uint64_t growth_of(const std::function<void()>& round) {
    for (int i = 0; i < kRoundsToWarm; ++i) round();
    const std::uint64_t before = mallocs_left();
    for (int i = 0; i < kRoundsToWarm; ++i) round();
    return mallocs_left() - before;
}
#endif

TEST(HotPath, EngineAllocatesNothingForWritesOnceItIsWarm) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    SimStore store(small_store(), std::make_unique<SimDisk>(SimDiskOptions{}), 1);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    const auto schema =
        Schema::make("counters", {{"id", ColumnType::kU64, 0}, {"wins", ColumnType::kI64, 0}}, 1);
    ASSERT_TRUE(schema.ok());
    const TableId table = store.create_table(client, *schema);
    const std::array<std::byte, 8> value{};
    std::uint64_t number = 0;
    const auto round = [&] {
        std::array<std::byte, 8> key;
        encode_key_integer(key.data(), number++ % 100, 8, false);
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, key, value);
        AddBody add{};
        add.column = 1;
        add.delta = 1;
        bytes.add(table, key, add);
        bytes.operation(OperationKind::kDelete, table, key, {});
        bytes.operation(OperationKind::kInsert, table, key, value);
        EXPECT_EQ(store.commit(client, bytes).error, Error::kOk);
    };
    EXPECT_EQ(growth_of(round), 0u);
#endif
}

class HotReads : public ClientFixture {};

TEST_F(HotReads, AllocateNothingOnceTheReaderIsWarm) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    const Table<Item> table = items();
    const auto own = reader();
    const std::array<Key<Item>, 4> keys = {table.key(0u, 1u), table.key(3u, 3u), table.key(9u, 9u),
                                           table.key(1u, 77u)};
    std::array<std::optional<Row<Item>>, 4> rows;
    const auto round = [&] {
        const Snapshot now = snapshot(*own);
        EXPECT_TRUE(*table.get(now, 3u, 3u));
        EXPECT_TRUE(*table.peek(now, 4u, 4u));
        EXPECT_TRUE(table.peek_many(now, keys, rows).ok());
        EXPECT_TRUE(rows[2] && !rows[3]);
        auto forward = table.scan(now, table.prefix(2u), table.prefix(7u));
        std::uint32_t count = 0;
        while (forward.next()) ++count;
        auto back = table.newest(now, 7);
        while (back.next()) ++count;
        EXPECT_EQ(count, 57u);
        EXPECT_TRUE(now.valid());
    };
    EXPECT_EQ(growth_of(round), 0u);
#endif
}

TEST_F(HotReads, WritesAllocateNothingOnceAsManyWereUnderWay) {
    NEEDS_THE_TRAP();
#ifndef NDEBUG
    Result<Store> attached = Store::attach({.socket = socket_, .rights = Rights::kWriter}, in(5s));
    ASSERT_TRUE(attached.ok()) << attached.failure().what;
    Store& store = *attached;
    const Table<Item> table = items();
    Transaction transaction;
    const auto round = [&] {
        std::array<std::optional<Pending>, 3> under_way;
        for (std::uint32_t i = 0; i < under_way.size(); ++i) {
            transaction.clear();
            transaction.put(table, item(i)).update(table, table.key(1u, i), set<&Item::amount>(i));
            Result<Pending> sent = store.submit(transaction, in(5s));
            ASSERT_TRUE(sent.ok()) << sent.failure().what;
            under_way[i].emplace(std::move(*sent));
        }
        // Out of order: a write is spare when both the store and its caller are through with it.
        under_way[1].reset();
        EXPECT_TRUE(under_way[2]->wait(in(5s)).ok());
        EXPECT_TRUE(under_way[0]->wait(in(5s)).ok());
    };
    EXPECT_EQ(growth_of(round), 0u);
#endif
}

}  // namespace
}  // namespace bidstore
