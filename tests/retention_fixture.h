// A store with tables whose rows expire, on the simulated disk.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/sim.h"

namespace bidstore {

inline constexpr std::uint64_t kSecondUs = 1'000'000;
inline constexpr std::uint64_t kRetainUs = 64 * kSecondUs;

// By time: the key begins with it. By user: it is a value, and a user's row is written again and
// again.
inline Schema by_time(const char* name = "by_time") {
    auto schema = Schema::make(name,
                               {{"at", ColumnType::kTimestamp, 0},
                                {"n", ColumnType::kU32, 0},
                                {"pad", ColumnType::kFixed, 200}},
                               2, 0);
    CHECK(schema.ok());
    return *schema;
}
inline Schema by_user() {
    auto schema = Schema::make("by_user",
                               {{"user", ColumnType::kU32, 0},
                                {"at", ColumnType::kTimestamp, 0},
                                {"count", ColumnType::kI64, 0},
                                {"text", ColumnType::kText, 0}},
                               1, 1);
    CHECK(schema.ok());
    return *schema;
}

inline SimStoreOptions retention_store(std::uint32_t frames = 2048) {
    SimStoreOptions options = small_store();
    options.frames = frames;
    options.engine.checkpoint_interval_ns = 2'000'000'000;
    return options;
}

using Bytes = std::vector<std::byte>;

class RetentionTest : public ::testing::Test {
  protected:
    void start(const SimStoreOptions& options = retention_store(), std::uint64_t seed = 1) {
        options_ = options;
        SimDiskOptions disk_options;
        disk_options.seed = seed;
        open(std::make_unique<SimDisk>(disk_options), seed);
    }
    void open(std::unique_ptr<SimDisk> disk, std::uint64_t seed) {
        const std::uint64_t wall_us = store ? store->clock.wall_us() : SimClock().wall_us();
        store = std::make_unique<SimStore>(options_, std::move(disk), seed);
        store->clock.set_wall_us(wall_us);
        const Status opened = store->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        client = &store->connect();
    }
    TableId make(const Schema& schema, std::uint64_t retain_us = kRetainUs) {
        const TableAttributes attributes{retain_us, 0};
        const std::string encoded = schema.encode();
        TransactionBytes bytes;
        bytes.operation(OperationKind::kCreateTable, TableId{},
                        std::as_bytes(std::span(&attributes, 1)),
                        std::as_bytes(std::span(encoded)));
        const Answer answer = store->commit(*client, bytes);
        EXPECT_EQ(answer.error, Error::kOk);
        return TableId{static_cast<std::uint32_t>(answer.result[0])};
    }
    Error set_retention(TableId table, std::uint64_t retain_us) {
        const TableAttributes attributes{retain_us, 0};
        TransactionBytes bytes;
        bytes.operation(OperationKind::kSetTable, table, {},
                        std::as_bytes(std::span(&attributes, 1)));
        return store->commit(*client, bytes).error;
    }
    std::uint64_t now_us() { return store->clock.wall_us(); }
    // In steps, with rounds in between, so that everything in the background gets its turn.
    void pass(std::uint64_t seconds) {
        for (std::uint64_t i = 0; i < 2 * seconds; ++i) {
            store->clock.advance_ns(500'000'000);
            store->run_until([] { return false; }, 12);
            store->clock.advance_ns(1'000'000);  // records that nobody waits for are written now
            store->run_until([] { return false; }, 4);
        }
    }
    static Bytes user_key(std::uint64_t user) {
        Bytes key(4);
        encode_key_integer(key.data(), user, 4, false);
        return key;
    }
    static Bytes user_row(std::uint64_t at, std::int64_t count, const std::string& text = "") {
        const Schema schema = by_user();
        RowBuilder builder(schema);
        EXPECT_TRUE(builder.set_unsigned(1, at).ok());
        EXPECT_TRUE(builder.set_signed(2, count).ok());
        EXPECT_TRUE(builder.set_bytes(3, std::as_bytes(std::span(text.data(), text.size()))).ok());
        const auto value = builder.value();
        EXPECT_TRUE(value.ok());
        return {value->begin(), value->end()};
    }
    static Bytes time_key(std::uint64_t at, std::uint64_t n) {
        Bytes key(12);
        encode_key_integer(key.data(), at, 8, false);
        encode_key_integer(key.data() + 8, n, 4, false);
        return key;
    }
    Error one(OperationKind kind, TableId table, const Bytes& key, const Bytes& body = {},
              std::uint8_t flags = 0) {
        TransactionBytes bytes;
        bytes.operation(kind, table, key, body, flags);
        return store->commit(*client, bytes).error;
    }
    Tree& tree(TableId table) { return store->engine->core().storage().catalog->find(table)->tree; }
    std::uint64_t counter(Counter counter) {
        return store->pool->stats().counter[static_cast<std::uint32_t>(counter)].load();
    }
    // Rows of the time table, ten a transaction, `n` of them at this moment.
    void put_now(TableId table, std::uint32_t n) {
        for (std::uint32_t i = 0; i < n;) {
            TransactionBytes bytes;
            for (std::uint32_t end = std::min(n, i + 10); i < end; ++i) {
                keys_.push_back(time_key(now_us(), next_n_++));
                bytes.operation(OperationKind::kPut, table, keys_.back(), Bytes(200, std::byte{7}));
            }
            ASSERT_EQ(store->commit(*client, bytes).error, Error::kOk);
        }
    }

    SimStoreOptions options_;
    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
    std::uint32_t next_n_ = 0;
    std::vector<Bytes> keys_;  // that put_now() put
};

}  // namespace bidstore
