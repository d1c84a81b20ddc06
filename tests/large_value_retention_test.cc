// Retention of rows with large values: their extents go by metadata, whatever became of the rows,
// and never those of a row that is alive.
#include <gtest/gtest.h>

#include <random>

#include "engine/extent_map.h"
#include "engine/verify_files.h"
#include "shm/stats.h"
#include "tests/sim.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kSecondUs = 1'000'000;
constexpr std::uint64_t kRetainUs = 64 * kSecondUs;
constexpr std::uint16_t kAt = 1;
constexpr std::uint16_t kBody = 2;

Schema visits() {
    auto schema = Schema::make("visits",
                               {{"user", ColumnType::kU32, 0},
                                {"at", ColumnType::kTimestamp, 0},
                                {"body", ColumnType::kBytes, 0}},
                               1, 1);
    CHECK(schema.ok());
    return *schema;
}

Bytes key_of(std::uint32_t user) {
    Bytes key(4);
    encode_key_integer(key.data(), user, 4, false);
    return key;
}

Bytes content(std::uint32_t seed, std::size_t length) {
    std::mt19937_64 random(seed);
    Bytes bytes(length);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
}

Bytes row_of(std::uint64_t at, const Bytes& body) {
    const Schema schema = visits();
    RowBuilder builder(schema);
    CHECK(builder.set_unsigned(kAt, at).ok());
    CHECK(builder.set_bytes(kBody, body).ok());
    const auto value = builder.value();
    CHECK(value.ok());
    return {value->begin(), value->end()};
}

class LargeValueRetention : public testing::Test {
  protected:
    void start() {
        options_ = small_store();
        options_.frames = 2048;
        options_.engine.log_segment_bytes = 4u << 20;
        options_.engine.journal_bytes = 8u << 20;
        options_.engine.checkpoint_interval_ns = 2'000'000'000;
        options_.engine.max_snapshot_age_ns = 3'600'000'000'000;
        open(std::make_unique<SimDisk>());
        const TableAttributes attributes{kRetainUs, 0};
        const std::string schema = visits().encode();
        TransactionBytes bytes;
        bytes.operation(OperationKind::kCreateTable, TableId{},
                        std::as_bytes(std::span(&attributes, 1)), std::as_bytes(std::span(schema)));
        const Answer answer = store_->commit(*client_, bytes);
        ASSERT_EQ(answer.error, Error::kOk);
        table_ = TableId{static_cast<std::uint32_t>(answer.result[0])};
    }
    void open(std::unique_ptr<SimDisk> disk) {
        const std::uint64_t wall_us = store_ ? store_->clock.wall_us() : SimClock().wall_us();
        store_ = std::make_unique<SimStore>(options_, std::move(disk), 1);
        store_->clock.set_wall_us(wall_us);
        const Status opened = store_->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        client_ = &store_->connect();
    }
    void restart() {
        ASSERT_TRUE(store_->stop());
        open(store_->disk->power_loss(7));
    }
    std::uint64_t now_us() { return store_->clock.wall_us(); }
    void pass(std::uint64_t seconds) {
        for (std::uint64_t i = 0; i < 2 * seconds; ++i) {
            store_->clock.advance_ns(500'000'000);
            store_->run_until([] { return false; }, 12);
        }
    }
    void put(std::uint32_t user, const Bytes& body) { put_at(user, now_us(), body); }
    void put_at(std::uint32_t user, std::uint64_t at, const Bytes& body) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table_, key_of(user), row_of(at, body));
        ASSERT_EQ(store_->commit(*client_, bytes).error, Error::kOk);
    }
    Error touch(std::uint32_t user) {
        const std::uint64_t at = now_us();
        const auto word = std::as_bytes(std::span(&at, 1));
        TransactionBytes bytes;
        bytes.columns(OperationKind::kUpdate, table_, key_of(user), kAt,
                      Bytes(word.begin(), word.end()));
        return store_->commit(*client_, bytes).error;
    }
    Bytes body(std::uint32_t user) {
        const Bytes row = store_->rows(table_)[key_of(user)];
        if (row.empty()) return {};
        const auto bytes = column_bytes(visits(), kBody, nullptr, row);
        return {bytes.begin(), bytes.end()};
    }
    Storage& storage() { return store_->engine->core().storage(); }
    std::uint64_t counter(Counter counter) {
        return store_->pool->stats().counter[static_cast<std::uint32_t>(counter)].load();
    }
    // What the verifier says of files that no daemon uses: in its pool is what recovery brought in.
    std::string verify_at_rest(SimDisk& disk) {
        PoolSegment pool = verifier_pool(options_.frames, 64 * kChunkPages);
        EngineOptions options = options_.engine;
        options.random = [] { return std::uint64_t{1}; };
        std::string rules;
        const auto report =
            verify_files(disk, store_->clock, pool, options,
                         [&](const BrokenRule& rule) { rules.append(rule.what).append("\n"); });
        EXPECT_TRUE(report.ok()) << report.failure().what;
        return rules;
    }
    std::uint32_t runs() {
        std::uint32_t count = 0;
        for (std::uint32_t chunk = 0; chunk < storage().space.chunk_count(); ++chunk) {
            const ExtentMap map(chunk_meta(storage().pool.newest_of(meta_page(chunk))));
            for (std::uint32_t i = 0; i < kChunkPages; ++i) count += map.first_of_run(i);
        }
        return count;
    }

    SimStoreOptions options_;
    std::unique_ptr<SimStore> store_;
    SimClient* client_ = nullptr;
    TableId table_;
};

TEST_F(LargeValueRetention, ExpiredOnesGoUnreadAndLiveOnesStay) {
    start();
    for (std::uint32_t user = 0; user < 30; ++user) put(user, content(user, 20'000));
    pass(40);
    // Now rows of both ages share leaves.
    for (std::uint32_t user = 0; user < 30; user += 3) put(user, content(100 + user, 9'000));
    EXPECT_EQ(runs(), 30u);
    const std::uint64_t read_before = counter(Counter::kPageReads);
    pass(40);
    EXPECT_EQ(runs(), 10u);
    EXPECT_EQ(counter(Counter::kPageReads), read_before);
    EXPECT_EQ(store_->verify(), "");
    for (std::uint32_t user = 0; user < 30; ++user) {
        EXPECT_EQ(body(user), user % 3 == 0 ? content(100 + user, 9'000) : Bytes{});
    }
    // Over dead rows: what they refer to is gone already, and perhaps somebody else's.
    for (std::uint32_t user = 0; user < 30; ++user) put(user, content(200 + user, 30'000));
    EXPECT_EQ(store_->verify(), "");
    for (std::uint32_t user = 0; user < 30; ++user) {
        EXPECT_EQ(body(user), content(200 + user, 30'000));
    }
    pass(80);
    EXPECT_EQ(runs(), 0u);
    EXPECT_EQ(store_->verify(), "");
}

// A table without a retention was not looked at: what was dead when it was taken away stayed in the
// file for good.
TEST_F(LargeValueRetention, WhatIsDeadGoesAlsoWhenTheRetentionIsTakenAway) {
    start();
    for (std::uint32_t user = 0; user < 30; ++user) put(user, content(user, 20'000));
    for (std::uint32_t user = 30; user < 400; ++user) put(user, content(user, 500));
    pass(4);
    ASSERT_EQ(runs(), 30u);
    store_->clock.advance_ns(600 * kSecondUs * 1'000);
    const std::uint64_t floors = counter(Counter::kFloorsMoved);
    ASSERT_TRUE(store_->run_until([&] { return counter(Counter::kFloorsMoved) > floors; }));
    const TableAttributes none{};
    TransactionBytes off;
    off.operation(OperationKind::kSetTable, table_, {}, std::as_bytes(std::span(&none, 1)));
    ASSERT_EQ(store_->commit(*client_, off).error, Error::kOk);
    // Floor and attribute are in the log, and of what was dropped since nothing is in the file.
    open(store_->disk->power_loss(7));
    pass(40);
    EXPECT_EQ(runs(), 0u);
    EXPECT_TRUE(storage().catalog->find(table_)->tree.empty());
    EXPECT_GT(counter(Counter::kPagesExpired), 30u * 5 + 370 * 500 / kPageBytes);
    EXPECT_EQ(store_->rows(table_).size(), 0u);
    put(1'000, content(1, 20'000));
    EXPECT_EQ(body(1'000), content(1, 20'000));
    EXPECT_EQ(store_->verify(), "");
}

TEST_F(LargeValueRetention, TheTimeOfTheRowIsThatOfItsExtent) {
    start();
    put(1, content(1, 50'000));
    put(2, content(2, 50'000));
    for (int i = 0; i < 5; ++i) {
        pass(30);
        ASSERT_EQ(touch(1), Error::kOk);
        if (i == 2) restart();
    }
    EXPECT_EQ(body(1), content(1, 50'000));
    EXPECT_EQ(body(2), Bytes{});
    EXPECT_EQ(store_->verify(), "");
    pass(80);
    EXPECT_EQ(body(1), Bytes{});
    pass(300);  // after a restart, times are known to some minutes
    EXPECT_EQ(runs(), 0u);
    EXPECT_EQ(store_->verify(), "");
}

// An extent kept the greatest time that its row ever had: one beyond what metadata can say, for
// good, so that it was not freed when the row had expired.
TEST_F(LargeValueRetention, TimeThatGoesBackTakesTheExtentAlong) {
    start();
    put_at(1, ~std::uint64_t{0}, content(1, 50'000));
    put_at(2, ~std::uint64_t{0}, content(2, 50'000));
    put(3, content(3, 50'000));
    pass(10);  // with a checkpoint, which says so
    ASSERT_EQ(touch(1), Error::kOk);
    ASSERT_EQ(touch(2), Error::kOk);
    EXPECT_EQ(store_->verify(), "");
    for (int i = 0; i < 6; ++i) {
        pass(30);
        ASSERT_EQ(touch(3), Error::kOk);  // a live row stays in the table
        if (i > 0) continue;
        EXPECT_EQ(storage().space.lowered(), 2u);  // each once, when its chunk was composed
        restart();
    }
    EXPECT_EQ(body(1), Bytes{});
    EXPECT_EQ(body(3), content(3, 50'000));
    for (int i = 0; i < 10; ++i) {  // after a restart, times are known to some minutes
        pass(30);
        ASSERT_EQ(touch(3), Error::kOk);
    }
    EXPECT_EQ(runs(), 1u);
    EXPECT_EQ(store_->verify(), "");
}

TEST_F(LargeValueRetention, DroppedTableTakesAllItsExtentsAlong) {
    start();
    for (std::uint32_t user = 0; user < 20; ++user) put(user, content(user, 12'000));
    pass(50);
    for (std::uint32_t user = 0; user < 5; ++user) put(user, content(user, 15'000));
    pass(16);  // the others are dead now
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, table_, {}, {});
    ASSERT_EQ(store_->commit(*client_, drop).error, Error::kOk);
    pass(20);
    EXPECT_TRUE(storage().catalog->dropping().empty());
    EXPECT_EQ(runs(), 0u);
    EXPECT_EQ(store_->verify(), "");
}

// The verifier took the floor from a root in the pool, and 0 where it was not there: extents that
// wait for their sweep were called leaked then.
TEST_F(LargeValueRetention, ExtentsThatWaitForTheirSweepAreNotLeaked) {
    start();
    put(1, content(1, 20'000));
    pass(40);
    restart();  // from the file their times come back rounded up
    put(2, content(2, 100));
    pass(40);
    EXPECT_EQ(body(1), Bytes{});
    EXPECT_EQ(runs(), 1u);
    ASSERT_TRUE(store_->stop());
    // Not opened for service, which moves the floor and so brings the root in.
    const auto disk = store_->disk->power_loss(7);
    EXPECT_EQ(verify_at_rest(*disk), "");
}

// Any extent of a table with a floor passed for one that waits for its sweep: a value that was
// replaced and never freed was not told of.
TEST_F(LargeValueRetention, ExtentThatNoRowHasIsEarlyUnlessItMayBeDead) {
    constexpr std::uint64_t kKnownToUs = 1u << (kTimeShiftMicroseconds + kExtentNewestShift);
    start();
    put(1, content(1, 20'000));
    const std::uint64_t edge = (now_us() / kKnownToUs + 2) * kKnownToUs;
    store_->clock.set_wall_us(edge - 20 * kSecondUs);
    put(2, content(2, 100));
    pass(30);
    ASSERT_NE(storage().catalog->find(table_)->tree.floor(), 0u);
    ASSERT_LT(storage().catalog->find(table_)->tree.floor(), edge - kSecondUs);
    const auto leave = [&](std::uint64_t at) {
        Commit& commit = store_->engine->core().commit();
        ASSERT_TRUE(commit.open());
        const std::vector<ExtentNeed> need{{table_, 2}};
        ASSERT_TRUE(storage().secure_space(8, need).ok());
        const auto newest = newest_of_row(visits(), key_of(9).data(), row_of(at, {}));
        storage().space.allocate_extent(table_, content(9, 2 * kPageBytes), newest);
        commit.touch();
        store_->run_until([&] { return commit.quiet(); });
    };
    leave(edge - 1);  // from the same 256 units as the floor: it may be of a row that died
    EXPECT_EQ(store_->early_pages(), 0u);
    leave(edge);
    EXPECT_EQ(store_->early_pages(), 2u);
    restart();
    EXPECT_EQ(store_->early_pages(), 2u);
    EXPECT_EQ(store_->verify(), "");  // a crash may leave such, so no rule is broken
    put(3, content(3, 100));
    pass(58);
    EXPECT_GT(runs(), 0u);
    EXPECT_EQ(store_->early_pages(), 0u);  // it waits for its sweep now
    for (int i = 0; i < 12 && runs() > 0; ++i) {
        put(3, content(3, 100));
        pass(30);
    }
    EXPECT_EQ(runs(), 0u);
}

TEST_F(LargeValueRetention, FileStaysAtItsSizeHoweverMuchPassesThrough) {
    start();
    std::uint32_t chunks = 0;
    for (std::uint32_t round = 0; round < 24; ++round) {
        for (std::uint32_t user = 0; user < 12; ++user) {
            put(round * 12 + user, content(user, 40'000));
        }
        pass(20);
        if (round == 8) chunks = storage().space.chunk_count();
    }
    EXPECT_LE(storage().space.chunk_count(), chunks + 1);
    EXPECT_EQ(store_->verify(), "");
}

// Of the row, and of its value after the pages were freed.
TEST_F(LargeValueRetention, SnapshotFromBeforeReadsTheValueOfARowThatExpired) {
    start();
    put(1, content(1, 100'000));
    auto descriptor = store_->pool->open_read_only();
    ASSERT_TRUE(descriptor.ok());
    auto view = PoolView::map(std::move(*descriptor));
    ASSERT_TRUE(view.ok());
    SimSnapshot snapshot(*store_, *view, *client_, 0);
    pass(100);
    EXPECT_EQ(body(1), Bytes{});
    EXPECT_EQ(runs(), 0u);
    const TreeShape shape(visits(), table_);
    const PageId root = storage().catalog->find(table_)->tree.root();
    const auto stored = snapshot.get(shape, root, key_of(1));
    ASSERT_TRUE(stored && *stored) << snapshot.trouble();
    const auto whole = snapshot.whole(visits(), **stored);
    ASSERT_TRUE(whole) << snapshot.trouble();
    ASSERT_TRUE(snapshot.valid());
    const auto bytes = column_bytes(visits(), kBody, nullptr, *whole);
    EXPECT_EQ(Bytes(bytes.begin(), bytes.end()), content(1, 100'000));
}

}  // namespace
}  // namespace bidstore
