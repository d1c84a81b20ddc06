// Compaction on the simulated disk: the file gets shorter, nothing is lost, and nobody notices.
#include <gtest/gtest.h>

#include "engine/engine_core.h"
#include "tests/compaction_fixture.h"
#include "tests/load_fixture.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 16'000;  // eight in a leaf: two thousand leaves, four chunks

SimStoreOptions compaction_store(std::uint32_t frames = 4'000) {
    SimStoreOptions options = small_store();
    options.frames = frames;
    options.engine.checkpoint_interval_ns = 2'000'000'000;
    return options;
}

class CompactionTest : public ::testing::Test {
  protected:
    void start(const SimStoreOptions& options = compaction_store()) {
        options_ = options;
        SimDiskOptions disk_options;
        disk_options.seed = 3;
        open(std::make_unique<SimDisk>(disk_options));
        table = store->create_table(*client, compaction_schema());
    }
    void open(std::unique_ptr<SimDisk> disk) {
        store = std::make_unique<SimStore>(options_, std::move(disk), 3);
        const Status opened = store->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        client = &store->connect();
    }
    // Rows all over the file, of which one in four stays.
    void fill() {
        put_rows(*store, *client, table, 0, kRows, rows);
        ASSERT_EQ(rows.size(), kRows);
        for (std::uint32_t i = 0; i < kRows; i += 400) {
            ASSERT_EQ(erase_rows(*store, *client, table, i, i + 300, rows), Error::kOk);
        }
        settle();
    }
    // A full store, opened again: the last page in use lies in a chunk that is to be emptied.
    PageId damage_the_last_page() {
        start(compaction_store(700));
        fill();
        EXPECT_TRUE(store->stop());
        PageId last;
        for (PageId page{0}; page.value < space().chunk_count() * kChunkPages; ++page.value) {
            if (space().allocated(page)) last = page;
        }
        open(store->disk->clone(5));
        store->disk->flip(StoreFile::kData, last.value * kPageBytes + 900);
        return last;
    }
    void erase_from(std::uint32_t first) {
        for (; first < kRows; first += 1'000) {
            const std::uint32_t last = std::min(first + 1'000, kRows);
            ASSERT_EQ(erase_rows(*store, *client, table, first, last, rows), Error::kOk);
        }
    }
    void settle() { bidstore::settle(*store); }
    bool compact(CompactClient& compaction, std::uint32_t rounds = 20'000) {
        return bidstore::compact(*store, compaction, rounds);
    }
    Space& space() { return store->engine->core().storage().space; }
    std::uint64_t pages_of(TableId of) {
        const Tree& tree = store->engine->core().storage().catalog->find(of)->tree;
        std::uint64_t pages = 0;
        CHECK(store->engine->core()
                  .storage()
                  .complete([&] { return tree.visit_pages([&](PageId) { ++pages; }); })
                  .ok());
        return pages;
    }
    void expect_sound() {
        EXPECT_EQ(store->rows(table), rows);
        EXPECT_EQ(store->verify(), "");
    }

    SimStoreOptions options_;
    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
    TableId table;
    CompactionRows rows;
};

TEST_F(CompactionTest, FileBecomesAsShortAsItsRowsNeed) {
    start();
    fill();
    const std::uint64_t before = data_bytes(*store);
    ASSERT_GE(before, 5 * kChunkBytes);
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction)) << "left " << compaction.value(CompactResult::kLeft);
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_GT(compaction.moved(), 100u);
    EXPECT_LE(data_bytes(*store), before - 2 * kChunkBytes);
    EXPECT_EQ(data_bytes(*store), compaction.value(CompactResult::kFileBytes));
    EXPECT_EQ(compaction.value(CompactResult::kGivenBack), before - data_bytes(*store));
    expect_sound();
    // And no growth follows at once.
    const std::uint64_t after = data_bytes(*store);
    settle();
    EXPECT_EQ(data_bytes(*store), after);
    ASSERT_TRUE(store->stop());
    open(store->disk->clone(5));
    expect_sound();
    put_rows(*store, *client, table, kRows, 2 * kRows, rows);
    EXPECT_EQ(rows.size(), kRows / 4 + kRows);
    settle();
    expect_sound();
}

TEST_F(CompactionTest, EmptyTailIsCutWithoutMovingAnything) {
    start();
    put_rows(*store, *client, table, 0, kRows, rows);
    erase_from(400);
    settle();
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction));
    EXPECT_LE(data_bytes(*store), 2 * kChunkBytes);
    expect_sound();
}

// Pages that were freed a moment ago wait for a checkpoint, which nothing else asks for.
TEST_F(CompactionTest, WaitsForWhatWasFreedJustBefore) {
    SimStoreOptions options = compaction_store();
    options.engine.checkpoint_interval_ns = 3'000'000'000'000;
    start(options);
    put_rows(*store, *client, table, 0, kRows, rows);
    erase_from(400);
    ASSERT_GT(space().quarantined(), 1'000u);
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction));
    EXPECT_LE(data_bytes(*store), 2 * kChunkBytes);
    expect_sound();
}

// Leaves of eight rows where nineteen fit, none of them free or worth a merge when a row goes: only
// looking at all of them makes room.
TEST_F(CompactionTest, SparseLeavesAreMergedWhereverTheyAre) {
    constexpr std::uint32_t kInLeaf = 19;
    constexpr std::uint32_t kLeaves = 1'500;
    auto schema =
        Schema::make("sparse", {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 200}}, 1);
    ASSERT_TRUE(schema.ok());
    for (const std::uint32_t frames : {4'000u, 700u}) {
        SCOPED_TRACE(std::to_string(frames) + " frames");
        start(compaction_store(frames));
        const TableId sparse = store->create_table(*client, *schema);
        for (std::uint32_t id = 0; id < kInLeaf * kLeaves;) {
            TransactionBytes put;
            for (int i = 0; i < 50 && id < kInLeaf * kLeaves; ++i, ++id) {
                const std::vector<std::byte> pad(200, static_cast<std::byte>(id));
                put.operation(OperationKind::kPut, sparse, row_key(id), pad);
            }
            ASSERT_EQ(store->commit(*client, put).error, Error::kOk);
        }
        for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
            TransactionBytes erase;
            erase.operation(OperationKind::kDeleteRange, sparse, row_key(leaf * kInLeaf + 8),
                            row_key((leaf + 1) * kInLeaf));
            ASSERT_EQ(store->commit(*client, erase).error, Error::kOk);
        }
        settle();
        const std::uint64_t leaves = pages_of(sparse);
        ASSERT_GE(leaves, kLeaves);
        const std::uint64_t file_bytes = data_bytes(*store);
        CompactClient compaction(*client);
        ASSERT_TRUE(compact(compaction));
        EXPECT_EQ(compaction.error(), Error::kOk);
        EXPECT_LE(pages_of(sparse), leaves * 6 / 10);
        EXPECT_LT(data_bytes(*store), file_bytes);
        CompactClient again(*client);
        ASSERT_TRUE(compact(again));
        EXPECT_LE(again.moved(), leaves / 50) << "what is dense is left alone";
        EXPECT_EQ(store->verify(), "");
        ASSERT_TRUE(store->stop());
        options_ = compaction_store();  // all of it fits the pool
        open(store->disk->clone(5));
        EXPECT_EQ(store->rows(sparse).size(), 8 * kLeaves);
    }
}

// Leaves that are less than dense, and whose pairs are too full to merge, however small the steps.
TEST_F(CompactionTest, SmallStepsComeToTheEnd) {
    constexpr std::uint32_t kLeaves = 40;
    auto schema =
        Schema::make("sparse", {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 200}}, 1);
    ASSERT_TRUE(schema.ok());
    start(compaction_store(1'000));
    const TableId sparse = store->create_table(*client, *schema);
    const std::vector<std::byte> pad(200, std::byte{7});
    for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
        TransactionBytes put;
        for (std::uint32_t row = 0; row < 19; ++row) {
            put.operation(OperationKind::kPut, sparse, row_key(leaf * 19 + row), pad);
        }
        ASSERT_EQ(store->commit(*client, put).error, Error::kOk);
    }
    for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
        TransactionBytes erase;
        erase.operation(OperationKind::kDeleteRange, sparse, row_key(leaf * 19 + 12),
                        row_key(leaf * 19 + 19));
        ASSERT_EQ(store->commit(*client, erase).error, Error::kOk);
    }
    settle();
    ASSERT_GE(pages_of(sparse), kLeaves);
    for (const std::uint32_t pages : {1u, 4u}) {
        CompactClient compaction(*client, pages);
        ASSERT_TRUE(compact(compaction)) << pages << " pages a step";
        EXPECT_EQ(compaction.error(), Error::kOk);
    }
}

TEST_F(CompactionTest, DenseLeavesAreNotReadToFindThatOut) {
    start(compaction_store(4'000));
    put_rows(*store, *client, table, 0, 4'000, rows);  // in the order of keys: full leaves
    settle();
    ASSERT_GE(pages_of(table), 400u);
    ASSERT_TRUE(store->stop());
    open(store->disk->clone(5));
    const auto& reads =
        store->pool->stats().counter[static_cast<std::uint32_t>(Counter::kPageReads)];
    const std::uint64_t before = reads.load();
    CompactClient compaction(*client, 1);
    ASSERT_TRUE(compact(compaction));
    EXPECT_LE(reads.load() - before, 20u) << "some leaves of each inner node";
}

TEST_F(CompactionTest, SecondRunFindsNothingToDo) {
    start();
    fill();
    CompactClient first(*client);
    ASSERT_TRUE(compact(first));
    const std::uint64_t writes = store->disk->steps();
    CompactClient second(*client);
    ASSERT_TRUE(compact(second));
    EXPECT_EQ(second.moved(), 0u);
    EXPECT_LE(second.steps(), 4u);
    EXPECT_LE(store->disk->steps(), writes + 4);
}

TEST_F(CompactionTest, PagesOutsideThePoolAreReadAndMoved) {
    start(compaction_store(700));
    fill();
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_GT(compaction.moved(), 100u);
    EXPECT_EQ(store->verify(), "");
    ASSERT_TRUE(store->stop());
    options_ = compaction_store();
    open(store->disk->clone(5));
    expect_sound();
}

TEST_F(CompactionTest, SnapshotHeldAcrossItSeesItsRows) {
    SimStoreOptions options = compaction_store(6'000);
    options.engine.max_snapshot_age_ns = 3'000'000'000'000;
    start(options);
    fill();
    auto descriptor = store->pool->open_read_only();
    ASSERT_TRUE(descriptor.ok());
    auto view = PoolView::map(std::move(*descriptor));
    ASSERT_TRUE(view.ok());
    SimClient& reader = store->connect(Rights::kReader);
    const TreeShape shape(compaction_schema(), table);
    const PageId root = store->engine->core().storage().catalog->find(table)->tree.root();
    const CompactionRows before = rows;
    const std::uint64_t file_bytes = data_bytes(*store);
    CompactClient compaction(*client);
    {
        SimSnapshot snapshot(*store, *view, reader, 0);
        EXPECT_FALSE(compact(compaction, 3'000)) << "the snapshot holds the old places";
        EXPECT_EQ(compaction.state(), CompactState::kWaiting);
        EXPECT_EQ(data_bytes(*store), file_bytes);
        put_rows(*store, *client, table, 0, 100, rows, 1);
        const auto seen = snapshot.backwards(shape, root);
        ASSERT_TRUE(seen.has_value()) << snapshot.trouble();
        EXPECT_EQ(*seen, before);
    }
    ASSERT_TRUE(compact(compaction));
    EXPECT_LT(data_bytes(*store), file_bytes);
    expect_sound();
}

TEST_F(CompactionTest, WritersGoOnAndTheirRowsAreThere) {
    start();
    fill();
    SimClient& writer = store->connect();
    CompactClient compaction(*client, 4);
    std::optional<std::uint32_t> token;
    std::uint32_t written = 0;
    const auto write = [&] {
        if (token && !writer.answer(*token)) return;
        const std::uint32_t id = (written * 7919) % (2 * kRows);
        TransactionBytes put;
        put.operation(OperationKind::kPut, table, row_key(id), row_value(id, 2));
        token = writer.submit(put.bytes());
        rows[row_key(id)] = row_value(id, 2);
        ++written;
    };
    const std::uint64_t before = data_bytes(*store);
    ASSERT_TRUE(store->run_until([&] {
        store->clock.advance_ns(1'000'000);
        if (written < 1'000) write();
        return compaction.advance();
    }));
    ASSERT_TRUE(store->run_until([&] { return writer.answer(*token).has_value(); }));
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_GT(written, 50u);
    EXPECT_LT(data_bytes(*store), before);
    expect_sound();
}

// Chunks go back only between two checkpoints. Beside writers at full speed these follow each other
// without a pause that a step would meet.
TEST_F(CompactionTest, EndsThoughEveryStepMeetsACheckpoint) {
    SimStoreOptions options = compaction_store();
    options.engine.checkpoint_interval_ns = 0;
    start(options);
    fill();
    SimClient& writer = store->connect();
    CompactClient compaction(*client);
    const Checkpointer& checkpointer = *store->engine->core().storage().checkpointer;
    std::optional<std::uint32_t> token;
    std::uint32_t written = 0;
    const std::uint64_t before = data_bytes(*store);
    const bool ended = store->run_until([&] {
        store->clock.advance_ns(1'000'000);
        if (!token || writer.answer(*token)) {
            TransactionBytes put;
            put.operation(OperationKind::kPut, table, row_key(0), row_value(0, ++written));
            rows[row_key(0)] = row_value(0, written);
            token = writer.submit(put.bytes());
        }
        return checkpointer.running() && compaction.advance();
    });
    ASSERT_TRUE(ended) << "left " << compaction.value(CompactResult::kLeft);
    ASSERT_TRUE(store->run_until([&] { return writer.answer(*token).has_value(); }));
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_LE(data_bytes(*store), before - 2 * kChunkBytes);
    expect_sound();
}

TEST_F(CompactionTest, ClientThatGoesAwayLeavesTheStoreAsItWas) {
    start();
    fill();
    SimClient& other = store->connect();
    CompactClient compaction(other);
    ASSERT_TRUE(store->run_until([&] {
        store->clock.advance_ns(1'000'000);
        return compaction.advance() || (compaction.moved() > 4 && space().closed_chunks() > 0);
    }));
    ASSERT_FALSE(compaction.done());
    CompactClient second(*client);
    ASSERT_TRUE(store->run_until([&] { return second.advance(); }));
    EXPECT_EQ(second.error(), Error::kBusy);
    store->disconnect(other);
    EXPECT_EQ(space().closed_chunks(), 0u);
    expect_sound();
    CompactClient again(*client);
    ASSERT_TRUE(compact(again));
    EXPECT_EQ(again.error(), Error::kOk);
    expect_sound();
}

class NearlyFull : public CompactionTest {
  protected:
    NearlyFull() {
        SimStoreOptions options = compaction_store();
        options.pages = 6 * kChunkPages;
        start(options);
        fill();
    }
    // Until it has moved some pages, and more are in the chunks that it closed.
    void compact_in_part(CompactClient& compaction) {
        ASSERT_TRUE(store->run_until([&] {
            store->clock.advance_ns(1'000'000);
            return compaction.advance() || (compaction.moved() > 2 && space().closed_chunks() > 0);
        }));
        ASSERT_GT(space().closed_chunks(), 0u);
    }
};

// Chunks that are being emptied are taken back rather than said to be full, or grown beside.
TEST_F(NearlyFull, WriterInWantOfRoomTakesTheChunksBack) {
    CompactClient compaction(*client, 1);
    compact_in_part(compaction);
    put_rows(*store, *client, table, kRows, kRows + 10'000, rows);
    EXPECT_EQ(rows.size(), kRows / 4 + 10'000);
    EXPECT_EQ(space().closed_chunks(), 0u);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kOk);
    expect_sound();
}

// It was told that there is no room, beside free pages that nobody could use.
TEST_F(NearlyFull, LoadInWantOfRoomTakesTheChunksBack) {
    CompactClient compaction(*client, 1);
    compact_in_part(compaction);
    const Schema schema = load_schema("t", false);
    const LoadRows loaded = make_load_rows(schema, 20'000, 1);  // 1,429 pages
    EXPECT_EQ(run_load(*store, store->connect(), schema, loaded), Error::kOk);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kOk);
    ASSERT_NE(table_named(*store, "t"), nullptr);
    EXPECT_EQ(store->rows(table_named(*store, "t")->id), loaded);
    expect_sound();
}

TEST_F(CompactionTest, ChunkWithARootStays) {
    start();
    put_rows(*store, *client, table, 0, kRows, rows);
    auto late = Schema::make("late", {{"id", ColumnType::kU32, 0}}, 1);
    ASSERT_TRUE(late.ok());
    const TableId last = store->create_table(*client, *late);
    const PageId root = store->engine->core().storage().catalog->find(last)->tree.root();
    ASSERT_GT(chunk_of(root), 1u);
    erase_from(100);
    settle();
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_EQ(compaction.value(CompactResult::kStays), chunk_of(root));
    EXPECT_EQ(compaction.value(CompactResult::kStaysFor), last.value);
    EXPECT_EQ(store->engine->core().storage().catalog->find(last)->tree.root(), root);
    expect_sound();
}

TEST_F(CompactionTest, IsForAdminsAndSensibleSteps) {
    start();
    SimClient& writer = store->connect(Rights::kWriter);
    CompactClient denied(writer);
    ASSERT_TRUE(store->run_until([&] { return denied.advance(); }));
    EXPECT_EQ(denied.error(), Error::kDenied);
    for (const std::uint32_t pages : {0u, kCompactPagesMax + 1}) {
        CompactClient invalid(*client, pages);
        ASSERT_TRUE(store->run_until([&] { return invalid.advance(); }));
        EXPECT_EQ(invalid.error(), Error::kInvalid);
    }
}

// It would wait for the load's end for ever.
TEST_F(CompactionTest, ALoadThatSaysNothingForTenMinutesIsNotWaitedForAnyLonger) {
    start();
    fill();
    SimClient& loader = store->connect();
    const Schema schema = load_schema("t", false);
    const LoadRows sent = make_load_rows(schema, 40, 1);
    const auto step = [&](const LoadBytes& bytes) {
        const auto token = loader.submit_load(bytes.bytes());
        std::optional<Answer> answer;
        store->run_until([&] { return token && (answer = loader.answer(*token)).has_value(); });
        return answer.has_value() ? answer->error : Error::kBusy;
    };
    auto row = sent.begin();
    const auto one_row = [&] {
        LoadBytes rows_step(LoadStep::kRows);
        rows_step.row(false, row->first, row->second);
        ++row;
        return step(rows_step);
    };
    ASSERT_EQ(step(LoadBytes::begin(schema)), Error::kOk);
    const auto wait_minutes = [&](int minutes) {  // with the engine at work meanwhile
        for (int i = 0; i < 2 * minutes; ++i) {
            store->clock.advance_ns(30'000'000'000);
            store->run_until([] { return false; }, 5);
        }
    };
    wait_minutes(60);  // nobody waits for it
    ASSERT_EQ(one_row(), Error::kOk);
    CompactClient compaction(*client);
    for (int i = 0; i < 3; ++i) {  // it may be slow
        EXPECT_FALSE(compact(compaction, 200));
        wait_minutes(9);
        ASSERT_EQ(one_row(), Error::kOk);
    }
    wait_minutes(11);
    EXPECT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_EQ(one_row(), Error::kTimedOut);
    expect_sound();
}

TEST_F(CompactionTest, DamagedPageStopsItByName) {
    const PageId last = damage_the_last_page();
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kCorruption);
    EXPECT_EQ(compaction.last().failed_operation, last.value);
    // The rest of the store goes on.
    put_rows(*store, *client, table, 0, 20, rows);
}

// It kept its turn until its client hung up: everybody else was told kBusy, and the chunks that it
// was about to empty took nothing.
TEST_F(CompactionTest, OneThatADamagedPageStoppedIsOver) {
    const PageId last = damage_the_last_page();
    SimClient& other = store->connect();
    CompactClient compaction(other);
    ASSERT_TRUE(compact(compaction));
    ASSERT_EQ(compaction.error(), Error::kCorruption);
    EXPECT_EQ(space().closed_chunks(), 0u);
    CompactClient second(*client);
    ASSERT_TRUE(compact(second));
    EXPECT_EQ(second.error(), Error::kCorruption);
    EXPECT_EQ(second.last().failed_operation, last.value);
}

}  // namespace
}  // namespace bidstore
