// Room secured before a change: what a transaction may take in pool, journal and file, what does
// not fit, and that nobody is held for ever. A debug build checks after each transaction that it
// took no more page versions and no more new pages than were secured.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>

#include "tests/compaction_fixture.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;

// 16 bytes of key and 256 of value.
Schema fixed_schema() {
    auto schema = Schema::make(
        "fixed", {{"id", ColumnType::kFixed, 16}, {"value", ColumnType::kFixed, 256}}, 1);
    CHECK(schema.ok());
    return *schema;
}

// As the bids of a log: time and auction, and some text.
Schema bids_schema() {
    auto schema = Schema::make("bids",
                               {{"time", ColumnType::kTimestamp, 0},
                                {"auction", ColumnType::kFixed, 16},
                                {"json", ColumnType::kText, 0}},
                               2, 0);
    CHECK(schema.ok());
    return *schema;
}

Bytes key_of(std::uint64_t id, std::size_t size = 16) {
    Bytes key(size);
    encode_key_integer(key.data(), id, 8, false);
    return key;
}

Bytes text_row(std::size_t length) {
    Bytes row(2 + length, std::byte{'j'});
    const auto end = static_cast<std::uint16_t>(length);
    std::memcpy(row.data(), &end, sizeof end);
    return row;
}

class RoomTest : public ::testing::Test {
  protected:
    void start(std::uint32_t frames, std::uint64_t journal_bytes) {
        SimStoreOptions options = small_store();
        options.frames = frames;
        options.engine.journal_bytes = journal_bytes;
        options.engine.log_segment_bytes = 4u << 20;
        start(options);
    }
    void start(const SimStoreOptions& options) {
        store = std::make_unique<SimStore>(options, std::make_unique<SimDisk>(), 1);
        const Status opened = store->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        client = &store->connect();
    }
    void TearDown() override {
        store->engine->core().storage().pool.check_invariants();
        EXPECT_EQ(store->verify(), "");
    }
    Answer commit(const TransactionBytes& bytes) { return store->commit(*client, bytes); }
    Error put(TableId table, std::uint64_t id, const Bytes& row, std::size_t key_bytes = 16) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, key_of(id, key_bytes), row);
        return commit(bytes).error;
    }
    Answer erase_range(TableId table, std::uint64_t from, std::uint64_t to) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kDeleteRange, table, key_of(from), key_of(to), kWantResult);
        return commit(bytes);
    }

    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
};

// Each operation counted with a whole cascade of splits, twice: 8 MiB of pool refused 20 puts.
TEST_F(RoomTest, AFullTransactionFitsAPoolOfAMebibyte) {
    for (const std::uint64_t pool_mib : {1, 8, 64}) {
        const auto frames = static_cast<std::uint32_t>(pool_mib * 256);
        start(frames, std::max<std::uint64_t>(pool_mib * 256 / 4, 64) * kPageBytes);
        const TableId fixed = store->create_table(*client, fixed_schema());
        const TableId bids = store->create_table(*client, bids_schema());
        const Bytes value(256, std::byte{7});
        std::mt19937_64 random(pool_mib);
        for (int i = 0; i < 300; ++i) ASSERT_EQ(put(fixed, random(), value), Error::kOk);
        for (std::uint64_t i = 0; i < 50; ++i) {
            ASSERT_EQ(put(bids, i, text_row(1400), 24), Error::kOk);
        }
        // As many rows as a transaction's 64 KiB hold.
        std::array<int, 3> fit{};
        for (int kind = 0; kind < 3; ++kind) {
            int count = kind == 2 ? 44 : 224;
            for (; count > 0; count = count * 9 / 10) {
                TransactionBytes bytes;
                for (int i = 0; i < count; ++i) {
                    const auto id = static_cast<std::uint64_t>(1000 + i);
                    if (kind == 0) {
                        bytes.operation(OperationKind::kPut, fixed, key_of(random()), value);
                    } else if (kind == 1) {
                        bytes.operation(OperationKind::kPut, fixed, key_of(~0ull - 1000 + id),
                                        value);
                    } else {
                        bytes.operation(OperationKind::kPut, bids, key_of(id, 24), text_row(1400));
                    }
                }
                const Answer answer = commit(bytes);
                if (answer.error == Error::kOk) break;
                ASSERT_EQ(answer.error, Error::kTooLarge);
            }
            fit[static_cast<std::size_t>(kind)] = count;
        }
        std::printf(
            "pool %2llu MiB, journal a quarter: %3d puts of 272 bytes anywhere, %3d in "
            "order, %2d bids of 1.4 KB in order\n",
            static_cast<unsigned long long>(pool_mib), fit[0], fit[1], fit[2]);
        EXPECT_GE(fit[0], pool_mib == 1 ? 10 : 200);
        EXPECT_GE(fit[1], pool_mib == 1 ? 10 : 200);
        EXPECT_GE(fit[2], pool_mib == 1 ? 8 : 40);
    }
}

// The worst orders for splits, and everything mixed: the checks of the debug build are the test.
TEST_F(RoomTest, NoOrderOfChangesTakesMoreThanWasSecured) {
    start(4096, 8u << 20);
    const TableId fixed = store->create_table(*client, fixed_schema());
    const TableId bids = store->create_table(*client, bids_schema());
    std::mt19937_64 random(5);
    const Bytes value(256, std::byte{7});
    for (int round = 0; round < 400; ++round) {
        TransactionBytes bytes;
        const std::uint64_t base = random() % 100'000;
        const int style = round % 5;
        for (std::uint64_t i = 0; i < 1 + random() % 60; ++i) {
            // Downwards behind a full leaf every row splits it again.
            const std::uint64_t id = style == 0   ? base * 1000 + 999 - i
                                     : style == 1 ? base * 1000 + i
                                                  : random() % 100'000;
            const bool erase = style == 4 || (style == 3 && random() % 3 == 0);
            const bool in_bids = random() % 2 == 0;
            const TableId table = in_bids ? bids : fixed;
            const Bytes key = key_of(id, in_bids ? 24 : 16);
            if (erase) {
                bytes.operation(OperationKind::kDelete, table, key, {}, kIfPresent);
            } else if (in_bids) {
                bytes.operation(OperationKind::kPut, table, key, text_row(random() % 3900));
            } else {
                bytes.operation(OperationKind::kPut, table, key, value);
            }
            if (bytes.bytes().size() > 56'000) break;
        }
        if (style == 3) {
            bytes.operation(OperationKind::kDeleteRange, fixed, key_of(base), key_of(base + 50));
        }
        const Error error = commit(bytes).error;
        ASSERT_TRUE(error == Error::kOk || error == Error::kTooLarge) << error_name(error);
        if (round % 100 == 99) {
            ASSERT_EQ(store->verify(), "") << round;
        }
    }
}

// The engine reloaded what it had evicted, for ever.
TEST_F(RoomTest, ARangeLargerThanThePoolIsRefusedAndSmallerOnesAreErased) {
    start(256, 1u << 20);
    const TableId fixed = store->create_table(*client, fixed_schema());
    const Bytes value(256, std::byte{7});
    constexpr std::uint64_t kRows = 8000;  // about 570 leaves
    for (std::uint64_t id = 0; id < kRows; ++id) ASSERT_EQ(put(fixed, id, value), Error::kOk);
    const Answer all = erase_range(fixed, 0, kRows);
    EXPECT_EQ(all.error, Error::kTooLarge);
    EXPECT_EQ(all.failed_operation, kLimitPool);
    // Reading too much at one time is no different.
    TransactionBytes checks;
    for (std::uint64_t id = 0; id < kRows; id += 8) {
        checks.operation(OperationKind::kCheckPresent, fixed, key_of(id), {});
    }
    EXPECT_EQ(commit(checks).error, Error::kTooLarge);
    std::int64_t erased = 0;
    for (std::uint64_t id = 0; id < kRows; id += 400) {
        const Answer part = erase_range(fixed, id, id + 400);
        ASSERT_EQ(part.error, Error::kOk) << id;
        erased += part.result[0];
    }
    EXPECT_EQ(erased, static_cast<std::int64_t>(kRows));
}

// Metadata of many chunks beside a small journal: writers waited for room that no checkpoint gave.
TEST_F(RoomTest, AJournalSmallerThanTheMetadataOfTheFileHoldsNobody) {
    SimStoreOptions options = small_store();
    options.pages = 600 * 512;
    options.frames = 8192;
    options.engine.journal_bytes = 256u << 10;  // 64 pages
    options.engine.log_segment_bytes = 8u << 20;
    start(options);
    const TableId fixed = store->create_table(*client, fixed_schema());
    Engine::Core& core = store->engine->core();
    while (core.storage().space.chunk_count() < 500) {
        ASSERT_TRUE(store->run_until(
            [&] { return !core.storage().space.growth().running() && core.commit().open(); }));
        const std::uint64_t available = core.storage().space.available();
        ASSERT_TRUE(core.storage().secure_space(static_cast<std::uint32_t>(available) + 1).ok());
        core.commit().touch();
        core.commit().hurry();
        store->run_until([] { return false; }, 20);
    }
    const Bytes value(256, std::byte{7});
    std::mt19937_64 random(1);
    for (int i = 0; i < 500; ++i) ASSERT_EQ(put(fixed, random(), value), Error::kOk) << i;
    // What alone needs more than half of the journal is told so.
    TransactionBytes wide;
    for (int i = 0; i < 200; ++i) {
        wide.operation(OperationKind::kPut, fixed, key_of(random()), value);
    }
    const Answer answer = commit(wide);
    EXPECT_EQ(answer.error, Error::kTooLarge);
    EXPECT_EQ(answer.failed_operation, kLimitJournal);
}

// Metadata pages stay in the pool: a file that would fill it with them does not grow.
TEST_F(RoomTest, GrowthEndsBeforeMetadataFillThePool) {
    SimStoreOptions options = small_store();
    options.frames = 256;
    options.pages = 600 * 512;
    options.engine.journal_bytes = 1u << 20;
    start(options);
    const TableId fixed = store->create_table(*client, fixed_schema());
    Engine::Core& core = store->engine->core();
    Status grown;
    for (int i = 0; grown.ok() && i < 400; ++i) {
        ASSERT_TRUE(store->run_until([&] {
            return core.storage().pool.free_frames() > 40 &&
                   !core.storage().space.growth().running() && core.commit().open();
        }));
        const std::uint64_t available = core.storage().space.available();
        grown = core.storage().secure_space(static_cast<std::uint32_t>(available) + 1);
        core.commit().touch();
        core.commit().hurry();
        store->run_until([] { return false; }, 200);
    }
    EXPECT_EQ(grown.error(), Error::kNoSpace);
    EXPECT_NE(grown.failure().what.find("pool_bytes"), std::string::npos) << grown.failure().what;
    EXPECT_EQ(core.storage().space.chunk_count(), 128u);
    EXPECT_EQ(put(fixed, 1, Bytes(256)), Error::kOk);

    // What fitted beside the metadata fits again when it is replayed.
    TransactionBytes many;
    for (std::uint64_t id = 0; id < 20; ++id) {
        many.operation(OperationKind::kPut, fixed, key_of(id), Bytes(256));
    }
    ASSERT_EQ(commit(many).error, Error::kOk);
    store = std::make_unique<SimStore>(options, store->disk->power_loss(7), 2);
    const Status opened = store->open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
}

// A chunk has extents of 14 tables at most: more chunks were taken than frames were secured for.
TEST_F(RoomTest, LargeValuesOfManyTablesTakeAsManyChunksAsWereSecured) {
    SimStoreOptions options = small_store();
    options.engine.log_segment_bytes = 4u << 20;
    start(options);
    auto schema =
        Schema::make("wide0", {{"id", ColumnType::kFixed, 16}, {"text", ColumnType::kText, 0}}, 1);
    ASSERT_TRUE(schema.ok());
    std::vector<TableId> tables;
    for (int i = 0; i < 60; ++i) {
        schema = Schema::make("wide" + std::to_string(i),
                              {{"id", ColumnType::kFixed, 16}, {"text", ColumnType::kBytes, 0}}, 1);
        tables.push_back(store->create_table(*client, *schema));
    }
    Space& space = store->engine->core().storage().space;
    space.growth().start(8);
    ASSERT_TRUE(store->run_until([&] { return space.growth().chunks() == 8; }));
    TransactionBytes bytes;
    RowBuilder row(*schema);
    ASSERT_TRUE(row.set_bytes(1, Bytes(5'000, std::byte{3})).ok());
    const auto value = row.value();
    ASSERT_TRUE(value.ok());
    for (const TableId table : tables) {
        bytes.operation(OperationKind::kPut, table, key_of(1), {value->begin(), value->end()});
    }
    const std::uint32_t before = space.chunk_count();
    ASSERT_EQ(commit(bytes).error, Error::kOk);
    EXPECT_GE(space.chunk_count() - before, 3u);
}

// Pages enough are free, in too many pieces, and another client frees some all the time: that is
// waited for some times, and not for ever.
TEST_F(RoomTest, LargeValueThatFindsNoPlaceInAFullFileIsRefusedBesideOthersThatFreePages) {
    SimStoreOptions options = small_store();
    options.pages = 6 * kChunkPages;
    options.frames = 4'000;
    options.engine.log_segment_bytes = 4u << 20;
    options.engine.journal_bytes = 8u << 20;
    start(options);
    const TableId table = store->create_table(*client, value_schema());
    const auto put = [&](std::uint32_t id, std::size_t length) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, row_key(id), wide_row(id, 0, length));
        return commit(bytes).error;
    };
    std::uint32_t rows = 0;
    while (put(rows, 8'000) == Error::kOk) ++rows;
    ASSERT_GE(rows, 1'000u);
    for (std::uint32_t id = 0; id < rows; id += 2) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kDelete, table, row_key(id), {});
        ASSERT_EQ(commit(bytes).error, Error::kOk);
    }
    settle(*store);
    SimClient& wide = store->connect();
    TransactionBytes bytes;
    bytes.operation(OperationKind::kPut, table, row_key(rows), wide_row(rows, 0, 400'000));
    const auto token = wide.submit(bytes.bytes());
    ASSERT_TRUE(token.has_value());
    std::optional<Answer> answer;
    for (std::uint32_t i = 0; i < 300 && !answer; ++i) {
        ASSERT_EQ(put(1, 8'000), Error::kOk) << i;  // frees as much as it takes
        answer = wide.answer(*token);
    }
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->error, Error::kNoSpace);
}

}  // namespace
}  // namespace bidstore
