// The data file grows beside the commits: ahead of need, durable before use, and a full file system
// is met at every piece of it.
#include "engine/growth.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "tests/load_fixture.h"
#include "tests/one_request.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kPieceBytes = 256u << 10;
constexpr std::uint32_t kRows = 8;  // of a transaction

Schema rows_schema() {
    auto schema =
        Schema::make("rows", {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 1200}}, 1);
    CHECK(schema.ok());
    return *schema;
}

class GrowthTest : public ::testing::Test {
  protected:
    void start(std::uint64_t seed = 1, int full_error = ENOSPC) {
        SimDiskOptions disk_options;
        disk_options.seed = seed;
        disk_options.full_error = full_error;
        store = std::make_unique<SimStore>(shape(), std::make_unique<SimDisk>(disk_options), seed);
        ASSERT_TRUE(store->open().ok());
        client = &store->connect();
        table = store->create_table(*client, rows_schema());
    }
    static SimStoreOptions shape() {
        SimStoreOptions options = small_store();
        options.engine.checkpoint_interval_ns = 3'000'000;
        return options;
    }
    // Transaction number n: kRows rows of its own.
    TransactionBytes rows(std::uint32_t number) const {
        TransactionBytes bytes;
        for (std::uint32_t i = 0; i < kRows; ++i) {
            std::vector<std::byte> key(4);
            encode_key_integer(key.data(), number * kRows + i, 4, false);
            const std::vector<std::byte> value(1200, static_cast<std::byte>(number));
            bytes.operation(OperationKind::kPut, table, key, value);
        }
        return bytes;
    }
    std::uint32_t stored(SimStore& in) const {
        const std::size_t found = in.rows(table).size();
        EXPECT_EQ(found % kRows, 0u);
        return static_cast<std::uint32_t>(found / kRows);
    }
    Error put(std::uint32_t id) { return store->commit(*client, rows(id)).error; }
    Space& space() { return store->engine->core().storage().space; }
    std::uint64_t file_bytes() { return *store->disk->size_bytes(StoreFile::kData); }
    // Puts rows until one is refused; the number of the first that is not there.
    std::uint32_t put_until_refused(std::uint32_t id, Error& refusal) {
        for (refusal = Error::kOk; refusal == Error::kOk; ++id) refusal = put(id);
        return id - 1;
    }
    void set_room(std::uint64_t data_bytes) {
        store->disk->set_capacity_bytes(data_bytes + *store->disk->size_bytes(StoreFile::kLog) +
                                        *store->disk->size_bytes(StoreFile::kJournal));
    }

    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
    TableId table;
};

TEST_F(GrowthTest, FileGrowsAheadOfNeedWithoutASynchronousResize) {
    start();
    std::uint64_t resizes = 0;
    store->disk->observe([&](std::uint64_t, SimStep kind) { resizes += kind == SimStep::kResize; });
    std::uint32_t id = 0;
    std::uint64_t during = 0;  // commits that were answered while the file was growing
    for (; id < 500; ++id) {
        const bool grows = space().growth().running();
        ASSERT_EQ(put(id), Error::kOk) << id;
        during += grows && space().growth().running();
        ASSERT_GE(file_bytes(), space().chunk_count() * kChunkBytes);
        ASSERT_GE(space().growth().chunks(), space().chunk_count());
    }
    EXPECT_GT(space().chunk_count(), 2u);
    EXPECT_GT(during, 5u) << "commits went on meanwhile";
    EXPECT_EQ(resizes, 0u);
    EXPECT_EQ(store->verify(), "");
}

// Somebody who writes faster than the device zeroes waits for it, and nobody else does.
TEST_F(GrowthTest, OnlyATrueShortageWaitsForGrowth) {
    start();
    Growth& growth = space().growth();
    SimClient& other = store->connect();
    ASSERT_TRUE(store->run_until([&] { return store->engine->core().commit().open(); }));
    while (space().available() > 40) space().allocate(PageType::kLeaf, TableId{99}, PageId{0});
    ASSERT_EQ(growth.chunks(), 1u);
    const auto token = client->submit(rows(1).bytes());
    ASSERT_TRUE(token.has_value());
    std::vector<std::byte> key(4);
    TransactionBytes nothing;
    nothing.operation(OperationKind::kDelete, table, key, {}, kIfPresent);
    EXPECT_EQ(store->commit(other, nothing).error, Error::kOk);
    EXPECT_TRUE(growth.running());
    EXPECT_FALSE(client->answer(*token).has_value());
    std::optional<Answer> answer;
    EXPECT_TRUE(store->run_until([&] { return (answer = client->answer(*token)).has_value(); }));
    EXPECT_EQ(answer->error, Error::kOk);
    EXPECT_GT(growth.chunks(), 1u);
}

// What is refused opens a batch and leaves it empty: the log is as idle as without it, and the last
// batch is called durable all the same.
TEST_F(GrowthTest, ARefusedWriteDoesNotKeepTheLogFromGoingIdle) {
    start();
    set_room(3 * kChunkBytes);
    Error refusal = Error::kOk;
    std::uint32_t id = put_until_refused(0, refusal);
    ASSERT_EQ(refusal, Error::kNoSpace);
    TransactionBytes last;
    std::vector<std::byte> key(4);
    last.operation(OperationKind::kDelete, table, key, {});
    ASSERT_EQ(store->commit(*client, last).error, Error::kOk);
    ASSERT_EQ(put(id), Error::kNoSpace);
    const auto writes = [&] {
        return store->pool->stats()
            .counter[static_cast<std::size_t>(Counter::kLogWrites)]
            .load();
    };
    const std::uint64_t before = writes();
    for (int i = 0; i < 20; ++i) {
        store->clock.advance_ns(10'000'000);
        store->round();
    }
    EXPECT_EQ(writes(), before + 1);
}

// A stop ends the growth early, which is no full file: the write goes to the next daemon.
TEST_F(GrowthTest, StopWhileAWriteWaitsForGrowthDoesNotRefuseIt) {
    start();
    ASSERT_TRUE(store->run_until([&] { return store->engine->core().commit().open(); }));
    while (space().available() > 40) space().allocate(PageType::kLeaf, TableId{99}, PageId{0});
    const auto token = client->submit(rows(1).bytes());
    ASSERT_TRUE(token.has_value());
    ASSERT_TRUE(store->run_until([&] { return space().growth().running(); }));
    EXPECT_TRUE(store->stop());
    EXPECT_FALSE(client->answer(*token).has_value());
}

TEST_F(GrowthTest, FullFileSystemAtEveryStepRefusesClearlyAndServesAgainByItself) {
    for (std::uint64_t pieces = 0; pieces <= 2 * kChunkBytes / kPieceBytes; ++pieces) {
        SCOPED_TRACE("room for " + std::to_string(pieces) + " pieces");
        start(pieces + 1);
        set_room(file_bytes() + pieces * kPieceBytes + (pieces % 3) * kPageBytes);
        Error refusal = Error::kOk;
        const std::uint32_t taken = put_until_refused(0, refusal);
        EXPECT_EQ(refusal, Error::kNoSpace);
        EXPECT_GT(taken, 100u);
        EXPECT_EQ(store->pool->header().engine.mode.load(), EngineMode::kReadOnly);
        EXPECT_TRUE(std::any_of(store->log_lines.begin(), store->log_lines.end(), [](auto& line) {
            return line.find("read-only: growing sim:/data") != std::string::npos;
        }));
        EXPECT_EQ(stored(*store), taken) << "reads go on";
        EXPECT_EQ(store->verify(), "");
        // Whole chunks that fitted are in use, and none beyond.
        EXPECT_EQ(space().growth().chunks(), 1 + pieces * kPieceBytes / kChunkBytes);

        // A crash meanwhile changes nothing of that.
        auto left = pieces % 2 ? store->disk->power_loss(pieces) : store->disk->process_crash(1);
        SimStore after(shape(), std::move(left), pieces);
        const Status opened = after.open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        EXPECT_EQ(stored(after), taken);
        EXPECT_EQ(after.verify(), "");

        store->disk->set_capacity_bytes(1ull << 40);
        EXPECT_TRUE(store->run_until([&] {
            store->clock.advance_ns(1'000'000);
            return store->pool->header().engine.mode.load() == EngineMode::kServing;
        })) << "nobody has to write for that";
        EXPECT_EQ(put(taken), Error::kOk);
        EXPECT_EQ(store->verify(), "");
        if (HasFailure()) return;
    }
}

// A limit on the size of files (ulimit -f) used to fence.
TEST_F(GrowthTest, FileThatMayNotGrowIsAFullOne) {
    start(1, EFBIG);
    set_room(file_bytes() + 3 * kPieceBytes);
    Error refusal = Error::kOk;
    const std::uint32_t taken = put_until_refused(0, refusal);
    EXPECT_EQ(refusal, Error::kNoSpace);
    EXPECT_EQ(store->pool->header().engine.mode.load(), EngineMode::kReadOnly);
    EXPECT_EQ(stored(*store), taken);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(GrowthTest, FailureOtherThanAFullFileSystemFences) {
    start();
    store->disk->observe([this](std::uint64_t step, SimStep kind) {
        if (kind == SimStep::kComplete && space().growth().running()) {
            store->disk->fail_at(step, EIO);
        }
    });
    Error error = Error::kOk;
    for (std::uint32_t id = 0; id < 300 && error == Error::kOk; ++id) error = put(id);
    EXPECT_NE(error, Error::kOk);
    EXPECT_EQ(store->round(), EngineRound::kFenced);
}

std::uint64_t stride() {
    const char* set = std::getenv("BIDSTORE_CRASH_STRIDE");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
}

// Power is lost, or the process dies, at each disk operation while the file grows by several
// chunks.
TEST_F(GrowthTest, CrashAtEveryStepOfGrowthLosesNothingAndLeaksNothing) {
    start();
    constexpr std::uint32_t kTransactions = 110;
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    store->disk->observe([&](std::uint64_t step, SimStep) {
        if (!space().growth().running()) return;
        if (first == 0) first = step;
        last = step;
    });
    for (std::uint32_t id = 0; id < kTransactions; ++id) ASSERT_EQ(put(id), Error::kOk);
    ASSERT_GT(first, 0u);
    for (std::uint64_t step = first; step <= last; step += stride()) {
        SCOPED_TRACE("crash at step " + std::to_string(step));
        start();
        store->disk->crash_at(step);
        std::uint32_t taken = 0;
        while (taken < kTransactions && put(taken) == Error::kOk) ++taken;
        for (const bool power : {true, false}) {
            SimStore after(shape(),
                           power ? store->disk->power_loss(step) : store->disk->process_crash(step),
                           step);
            const Status opened = after.open();
            ASSERT_TRUE(opened.ok()) << opened.failure().what;
            EXPECT_EQ(after.verify(), "");
            const std::uint32_t found = stored(after);
            EXPECT_GE(found, taken);
            EXPECT_LE(found, taken + 1);
        }
        if (HasFailure()) return;
    }
}

// ---- what bulk loads ask for

// A load made the file longer on the engine's thread, and all commits and misses stood still.
TEST_F(GrowthTest, BulkLoadIsGivenChunksBesideTheCommits) {
    start();
    std::uint64_t resizes = 0;
    std::uint64_t extended = 0;
    store->disk->observe([&](std::uint64_t, SimStep kind) {
        resizes += kind == SimStep::kResize;
        const DiskRequest* request = store->disk->submitting();
        extended += request != nullptr && request->kind == DiskRequest::Kind::kExtend;
    });
    const Schema schema = load_schema("loaded", false);
    const LoadRows loaded = make_load_rows(schema, 15'000, 1);  // 1,072 pages
    LoadClient load(store->connect(), schema, loaded);
    std::uint32_t during = 0;  // rounds that ended while the file was growing
    std::uint32_t commits = 0;
    OneRequest put_beside(*client);
    while (!load.step()) {
        if (!put_beside.on_its_way()) put_beside.submit(rows(commits % 20).bytes());
        ASSERT_NE(store->round(), EngineRound::kFenced);
        during += space().growth().running();
        ASSERT_GE(file_bytes(), space().growth().chunks() * kChunkBytes);
        const auto answer = put_beside.answer();
        if (!answer) continue;
        ASSERT_EQ(answer->error, Error::kOk);
        ++commits;
    }
    EXPECT_TRUE(load.loaded());
    EXPECT_GT(during, 0u) << "everybody else went on meanwhile";
    EXPECT_GT(commits, 10u);
    EXPECT_GE(extended, 2u);
    EXPECT_EQ(resizes, 0u);
    EXPECT_EQ(store->rows(table_named(*store, "loaded")->id), loaded);
    EXPECT_EQ(store->verify(), "");
}

// Else the device would have nothing to write while the file is extended.
TEST_F(GrowthTest, ALargeBulkLoadAsksForChunksBeforeItNeedsThem) {
    start();
    std::uint32_t ahead = 0;
    store->disk->observe([&](std::uint64_t, SimStep) {
        const DiskRequest* request = store->disk->submitting();
        if (request == nullptr || request->kind != DiskRequest::Kind::kExtend) return;
        ahead += space().in_reach() > space().growth_mark() + kChunkPages / 4;
    });
    const Schema schema = load_schema("loaded", false);
    const LoadRows loaded = make_load_rows(schema, 200'000, 1);  // 14,286 pages in 29 chunks
    LoadClient load(store->connect(), schema, loaded);
    ASSERT_TRUE(store->run_until([&] { return load.step(); }, 200'000));
    EXPECT_TRUE(load.loaded());
    EXPECT_GE(ahead, 2u);
    EXPECT_LE(space().growth().chunks(), 29 + 29 / 4 + 3) << "no more than that ahead";
    EXPECT_EQ(store->verify(), "");
}

TEST_F(GrowthTest, BulkLoadTakesWhatANearlyFullFileSystemHasAndNamesIt) {
    const Schema schema = load_schema("loaded", false);
    const LoadRows loaded = make_load_rows(schema, 60'000, 1);  // 4,286 pages
    for (const std::uint64_t chunks : {1u, 2u, 6u}) {
        SCOPED_TRACE("room for " + std::to_string(chunks) + " chunks");
        start(chunks);
        set_room((1 + chunks) * kChunkBytes + 3 * kPageBytes);
        LoadClient load(store->connect(), schema, loaded);
        ASSERT_TRUE(store->run_until([&] { return load.step(); }));
        EXPECT_EQ(load.error(), Error::kNoSpace);
        EXPECT_EQ(space().growth().chunks(), 1 + chunks);
        const auto& lines = store->log_lines;
        EXPECT_TRUE(std::any_of(lines.begin(), lines.end(), [](auto& line) {
            return line.find("load of loaded finds no room: growing sim:/data") !=
                   std::string::npos;
        }));
        EXPECT_EQ(put(1), Error::kOk);
        EXPECT_EQ(store->verify(), "");
        // At once, not when growth has had its rest.
        store->disk->set_capacity_bytes(1ull << 40);
        EXPECT_EQ(run_load(*store, store->connect(), schema, loaded), Error::kOk);
        if (HasFailure()) return;
    }
}

// Asked for many chunks at once: down to the last whole one.
TEST(Growth, ExtendsANearlyFullFileSystemByWhatItHas) {
    for (std::uint32_t room = 0; room <= 13; ++room) {
        SCOPED_TRACE("room for " + std::to_string(room) + " chunks");
        SimDiskOptions options;
        options.seed = room + 1;
        options.capacity_bytes = (2 + room) * kChunkBytes + 5 * kPageBytes;
        SimDisk disk(options);
        ASSERT_TRUE(disk.resize(StoreFile::kData, 2 * kChunkBytes).ok());
        Growth growth(disk);
        growth.set_chunks(2);
        growth.extend(14);
        while (growth.running()) disk.poll(1'000'000);
        Status extended;
        ASSERT_TRUE(growth.take_result(extended));
        EXPECT_EQ(extended.error(), room < 12 ? Error::kNoSpace : Error::kOk);
        EXPECT_EQ(growth.chunks(), 2 + std::min(room, 12u));
    }
}

TEST_F(GrowthTest, BulkLoadTakesZerosWhereTheFileSystemPromisesNoRoom) {
    start();
    std::uint64_t zeros = 0;
    store->disk->observe([&](std::uint64_t step, SimStep) {
        const DiskRequest* request = store->disk->submitting();
        if (request == nullptr) return;
        const bool extends = request->kind == DiskRequest::Kind::kExtend;
        if (extends) store->disk->fail_at(step, EOPNOTSUPP);
        zeros += request->kind == DiskRequest::Kind::kGrow;
    });
    const Schema schema = load_schema("loaded", false);
    const LoadRows loaded = make_load_rows(schema, 9'000, 1);  // 643 pages
    EXPECT_EQ(run_load(*store, store->connect(), schema, loaded), Error::kOk);
    EXPECT_GE(zeros, kChunkBytes / kPieceBytes);
    EXPECT_EQ(store->rows(table_named(*store, "loaded")->id), loaded);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(GrowthTest, BulkLoadThatMeetsAnotherFailureOfGrowthFences) {
    start();
    store->disk->observe([this](std::uint64_t step, SimStep) {
        const DiskRequest* request = store->disk->submitting();
        const bool extends = request != nullptr && request->kind == DiskRequest::Kind::kExtend;
        if (extends) store->disk->fail_at(step, EIO);
    });
    const Schema schema = load_schema("loaded", false);
    LoadClient load(store->connect(), schema, make_load_rows(schema, 9'000, 1));
    EXPECT_TRUE(store->run_until([&] {
        load.step();
        return store->round() == EngineRound::kFenced;
    }));
    EXPECT_FALSE(load.loaded());
}

// One transaction that was too large for what was left made the store read-only for all.
TEST_F(GrowthTest, AStoreThatTakesSmallWritesIsServing) {
    start();
    set_room(3 * kChunkBytes);
    std::uint32_t id = 0;
    while (space().in_reach() > 150) ASSERT_EQ(put(id++), Error::kOk);
    TransactionBytes large;  // of 400 pages
    const std::vector<std::byte> value(1200, std::byte{9});
    for (std::uint32_t i = 0; i < 400; ++i) {
        std::vector<std::byte> key(4);
        encode_key_integer(key.data(), 1'000'000 + i, 4, false);
        large.operation(OperationKind::kPut, table, key, value);
    }
    ASSERT_EQ(store->commit(*client, large).error, Error::kNoSpace);
    EXPECT_EQ(store->pool->header().engine.mode.load(), EngineMode::kServing);
    EXPECT_EQ(put(id++), Error::kOk);
    Error refusal = Error::kOk;
    put_until_refused(id, refusal);
    EXPECT_EQ(refusal, Error::kNoSpace);
    EXPECT_EQ(store->pool->header().engine.mode.load(), EngineMode::kReadOnly);
}

// Once a store was read-only a write was refused although what a delete had freed was about to come
// back with the next checkpoint.
TEST_F(GrowthTest, WhatADeleteFreedServesTheNextWriteOfAFullStore) {
    start();
    set_room(3 * kChunkBytes);
    Error refusal = Error::kOk;
    const std::uint32_t id = put_until_refused(0, refusal);
    ASSERT_EQ(refusal, Error::kNoSpace);
    ASSERT_EQ(store->pool->header().engine.mode.load(), EngineMode::kReadOnly);
    TransactionBytes erase;
    std::vector<std::byte> from(4);
    std::vector<std::byte> to(4);
    encode_key_integer(from.data(), 0, 4, false);
    encode_key_integer(to.data(), 300, 4, false);
    erase.operation(OperationKind::kDeleteRange, table, from, to);
    ASSERT_EQ(store->commit(*client, erase).error, Error::kOk);
    ASSERT_GT(space().quarantined(), 50u);
    EXPECT_EQ(put(id), Error::kOk);
    EXPECT_EQ(store->pool->header().engine.mode.load(), EngineMode::kServing);
    EXPECT_EQ(store->verify(), "");
}

}  // namespace
}  // namespace bidstore
