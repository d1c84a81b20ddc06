// Compaction of a file with large values in it and with roots at its end: values move, chunks in
// the middle give their blocks back where they stand, and take them again before they are used.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>

#include "engine/engine_core.h"
#include "tests/compaction_fixture.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::uint32_t kValues = 320;

SimStoreOptions values_store() {
    SimStoreOptions options = small_store();
    options.frames = 6'000;
    options.engine.log_segment_bytes = 4u << 20;
    options.engine.journal_bytes = 8u << 20;
    options.engine.checkpoint_interval_ns = 2'000'000'000;
    return options;
}

// Mostly of some pages, now and then of hundreds.
std::size_t length_of(std::uint32_t id) {
    return id % 40 == 7 ? 400'000 + id : 5'000 + (id * 7'919) % 60'000;
}

class CompactionValues : public ::testing::Test {
  protected:
    void start(const SimStoreOptions& options = values_store()) {
        options_ = options;
        SimDiskOptions disk_options;
        disk_options.seed = 3;
        open(std::make_unique<SimDisk>(disk_options));
        values = store->create_table(*client, value_schema());
    }
    void open(std::unique_ptr<SimDisk> disk) {
        view.reset();
        store = std::make_unique<SimStore>(options_, std::move(disk), 3);
        const Status opened = store->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        auto descriptor = store->pool->open_read_only();
        ASSERT_TRUE(descriptor.ok());
        auto mapped = PoolView::map(std::move(*descriptor));
        ASSERT_TRUE(mapped.ok());
        view.emplace(std::move(*mapped));
        client = &store->connect();
    }
    void put(std::uint32_t id, std::uint32_t round = 0) {
        TransactionBytes bytes;
        const Bytes row = wide_row(id, round, length_of(id));
        bytes.operation(OperationKind::kPut, values, row_key(id), row);
        ASSERT_EQ(store->commit(*client, bytes).error, Error::kOk) << id;
        rows[row_key(id)] = row;
    }
    void erase(std::uint32_t id) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kDelete, values, row_key(id), {});
        ASSERT_EQ(store->commit(*client, bytes).error, Error::kOk) << id;
        rows.erase(row_key(id));
    }
    // Of which one in five stays, all over the file.
    void fill() {
        for (std::uint32_t id = 0; id < kValues; ++id) ASSERT_NO_FATAL_FAILURE(put(id));
        for (std::uint32_t id = 0; id < kValues; ++id) {
            if (id % 5 == 2) continue;
            ASSERT_NO_FATAL_FAILURE(erase(id));
        }
        settle();
    }
    // A file that ends with a table's root, and chunks before that which gave their blocks back.
    void make_holes() {
        for (std::uint32_t id = 0; id < kValues; ++id) put(id);
        late_table();
        for (std::uint32_t id = 0; id < kValues; ++id) {
            if (id % 5 != 2) erase(id);
        }
        settle();
        CompactClient compaction(*client);
        ASSERT_TRUE(compact(compaction));
    }
    TableId late_table() {
        auto schema = Schema::make("late", {{"id", ColumnType::kU32, 0}}, 1);
        CHECK(schema.ok());
        return create_late_table(*store, *client, *schema);
    }
    void settle() { bidstore::settle(*store); }
    bool compact(CompactClient& compaction, std::uint32_t rounds = 40'000) {
        return bidstore::compact(*store, compaction, rounds);
    }
    Space& space() { return store->engine->core().storage().space; }
    Catalog& catalog() { return *store->engine->core().storage().catalog; }
    void expect_sound() {
        EXPECT_EQ(store->rows(values), rows);
        EXPECT_EQ(store->verify(), "");
    }
    void reopen() {
        ASSERT_TRUE(store->stop());
        open(store->disk->clone(5));
    }

    SimStoreOptions options_;
    std::unique_ptr<SimStore> store;
    std::optional<PoolView> view;
    SimClient* client = nullptr;
    TableId values;
    CompactionRows rows;
};

TEST_F(CompactionValues, MoveToTheFrontAndTheFileIsCut) {
    for (const std::uint32_t frames : {6'000u, 900u}) {
        SCOPED_TRACE(frames == 6'000 ? "all in the pool" : "most outside the pool");
        rows.clear();
        SimStoreOptions options = values_store();
        options.frames = frames;
        start(options);
        fill();
        reopen();  // nothing of a value is in the pool
        const std::uint64_t before = data_bytes(*store);
        ASSERT_GE(before, 6 * kChunkBytes);
        CompactClient compaction(*client);
        ASSERT_TRUE(compact(compaction)) << "left " << compaction.value(CompactResult::kLeft);
        EXPECT_EQ(compaction.error(), Error::kOk);
        EXPECT_LE(data_bytes(*store), before / 2);
        EXPECT_EQ(compaction.value(CompactResult::kGivenBack), before - data_bytes(*store));
        options_.frames = 6'000;  // to look at all of them
        reopen();
        expect_sound();
        for (std::uint32_t id = 0; id < 20; ++id) put(id, 1);
        settle();
        expect_sound();
    }
}

TEST_F(CompactionValues, SnapshotHeldAcrossItReadsTheOldPlaces) {
    SimStoreOptions options = values_store();
    options.engine.max_snapshot_age_ns = 3'000'000'000'000;
    start(options);
    fill();
    const TreeShape shape(value_schema(), values);
    const PageId root = catalog().find(values)->tree.root();
    SimClient& reader = store->connect(Rights::kReader);
    const CompactionRows before = rows;
    const std::uint64_t file_bytes = data_bytes(*store);
    CompactClient compaction(*client);
    {
        SimSnapshot snapshot(*store, *view, reader, 0);
        EXPECT_FALSE(compact(compaction, 4'000)) << "the snapshot holds the old places";
        EXPECT_GT(compaction.moved(), 0u);
        EXPECT_EQ(data_bytes(*store), file_bytes);
        for (std::uint32_t id = 2; id < kValues; id += 5) put(id, 1);
        settle();
        const auto stored = snapshot.backwards(shape, root);
        ASSERT_TRUE(stored.has_value()) << snapshot.trouble();
        const auto seen = snapshot.whole(value_schema(), *stored);
        ASSERT_TRUE(seen.has_value()) << snapshot.trouble();
        EXPECT_EQ(*seen, before);
    }
    ASSERT_TRUE(compact(compaction));
    EXPECT_LT(data_bytes(*store), file_bytes);
    expect_sound();
}

// In more pieces a value has a longer reference, for which a row that fills its page has no room.
TEST_F(CompactionValues, ValuesOfRowsThatFillTheirPagesStayWhereTheyAre) {
    constexpr std::uint32_t kFull = 8;
    start();
    auto schema = Schema::make("full",
                               {{"id", ColumnType::kU32, 0},
                                {"body", ColumnType::kBytes, 0},
                                {"rest", ColumnType::kBytes, 0}},
                               1);
    fill();
    const TableId full = store->create_table(*client, *schema);
    for (std::uint32_t id = 0; id < kFull; ++id) {
        RowBuilder builder(*schema);
        ASSERT_TRUE(builder.set_bytes(1, Bytes(390'000 + id, std::byte{1})).ok());
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, full, row_key(id), *builder.value());
        ASSERT_EQ(store->commit(*client, bytes).error, Error::kOk);
        const Lookup stored = catalog().find(full)->tree.get(row_key(id).data());
        ASSERT_TRUE(stored.found);
        const std::size_t rest = kRowBytesMax - schema->key_bytes() - stored.value.size();
        TransactionBytes fills;
        fills.columns(OperationKind::kUpdate, full, row_key(id), 2, Bytes(rest, std::byte{2}));
        ASSERT_EQ(store->commit(*client, fills).error, Error::kOk);
    }
    settle();
    const auto before = store->rows(full);
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_EQ(store->rows(full), before);
    expect_sound();
}

// Replaced, erased and put anew while the same values are being copied.
TEST_F(CompactionValues, WritersChangeTheValuesThatMove) {
    start();
    fill();
    SimClient& writer = store->connect();
    CompactClient compaction(*client);
    std::mt19937 random(5);
    std::optional<std::uint32_t> token;
    std::uint32_t written = 0;
    const auto write = [&] {
        if (token && !writer.answer(*token)) return;
        const std::uint32_t id = 2 + 5 * static_cast<std::uint32_t>(random() % (kValues / 5));
        TransactionBytes bytes;
        if (++written % 4 == 0) {
            bytes.operation(OperationKind::kDelete, values, row_key(id), {}, kIfPresent);
            rows.erase(row_key(id));
        } else {
            const Bytes row = wide_row(id, written, written % 8 == 1 ? 100 : 30'000);
            bytes.operation(OperationKind::kPut, values, row_key(id), row);
            rows[row_key(id)] = row;
        }
        token = writer.submit(bytes.bytes());
    };
    ASSERT_TRUE(store->run_until(
        [&] {
            store->clock.advance_ns(200'000);
            if (written < 300) write();
            return compaction.advance();
        },
        60'000));
    ASSERT_TRUE(store->run_until([&] { return writer.answer(*token).has_value(); }));
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_GT(written, 40u);
    settle();
    expect_sound();
    reopen();
    expect_sound();
}

// The client may go at any moment of a copy: what was reserved for it comes back.
TEST_F(CompactionValues, ClientThatGoesAwayLeavesNothingReserved) {
    start();
    fill();
    for (std::uint32_t rounds = 1; rounds < 300; rounds += 7) {
        SimClient& other = store->connect();
        CompactClient compaction(other);
        store->run_until([&] { return compaction.advance(); }, rounds);
        store->disconnect(other);
        ASSERT_TRUE(store->run_until([&] { return store->engine->core().extent_move_is_over(); }));
    }
    settle();
    expect_sound();
    std::uint64_t used = 0;
    for (std::uint32_t chunk = 0; chunk < space().chunk_count(); ++chunk) {
        used += space().used_in(chunk);
    }
    std::uint64_t fixed = 0;
    for (std::uint32_t page = 0; page < space().chunk_count() * kChunkPages; ++page) {
        fixed += Space::fixed(PageId{page});
    }
    ASSERT_EQ(space().punched_chunks(), 0u);
    EXPECT_EQ(space().available() + space().quarantined() + used + fixed,
              space().chunk_count() * kChunkPages);
}

TEST_F(CompactionValues, DamagedValueStopsItByNameAndTheRestGoesOn) {
    start();
    fill();
    PageId last;
    for (PageId page{0}; page.value < space().chunk_count() * kChunkPages; ++page.value) {
        if (space().allocated(page) && space().is_extent(page)) last = page;
    }
    reopen();
    store->disk->flip(StoreFile::kData, last.value * kPageBytes + 900);
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kCorruption);
    EXPECT_EQ(compaction.last().failed_operation, last.value);
    put(1, 4);
}

// A device that refuses once damages nothing: the value stays where it was.
TEST_F(CompactionValues, RefusedReadOrWriteOfACopyIsNoDamage) {
    start();
    fill();
    ASSERT_TRUE(store->stop());
    const auto before = store->disk->clone(5);
    std::uint32_t refused = 0;
    for (std::uint64_t step = 1; step <= 24; ++step) {
        SCOPED_TRACE(step);
        open(before->clone(step));
        store->disk->fail_at(store->disk->steps() + step, EIO);
        CompactClient compaction(*client);
        static_cast<void>(compact(compaction));
        if (!store->engine->fence_reason().empty() || compaction.error() == Error::kOk) continue;
        ++refused;
        EXPECT_EQ(compaction.error(), Error::kIoError);
        const auto told = std::count_if(store->log_lines.begin(), store->log_lines.end(),
                                        [](const std::string& line) {
                                            return line.find("errno 5") != std::string::npos &&
                                                   line.find(" at ") != std::string::npos;
                                        });
        EXPECT_GE(told, 1);
        settle();  // a read that failed is remembered for a moment
        CompactClient again(*client);
        ASSERT_TRUE(compact(again));
        EXPECT_EQ(again.error(), Error::kOk);
        expect_sound();
    }
    EXPECT_GE(refused, 3u);
}

// ---- chunks in the middle

TEST_F(CompactionValues, ChunksBeforeARootGiveTheirBlocksBackWhereTheyStand) {
    start();
    for (std::uint32_t id = 0; id < kValues; ++id) put(id);
    const TableId late = late_table();
    for (std::uint32_t id = 0; id < kValues; ++id) {
        if (id % 5 != 2) erase(id);
    }
    settle();
    const std::uint32_t chunks = space().chunk_count();
    ASSERT_GE(chunks, 6u);
    const std::uint64_t before = data_bytes(*store);
    CompactClient compaction(*client);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kOk);
    EXPECT_EQ(compaction.value(CompactResult::kStaysFor), late.value);
    EXPECT_GE(space().punched_chunks(), 2u);
    EXPECT_GE(store->disk->holes(StoreFile::kData), 2u * 510);
    EXPECT_EQ(compaction.value(CompactResult::kGivenBack),
              store->disk->holes(StoreFile::kData) * kPageBytes + before - data_bytes(*store));
    expect_sound();
    CompactClient again(*client);
    ASSERT_TRUE(compact(again));
    EXPECT_EQ(again.moved(), 0u);
    EXPECT_EQ(again.value(CompactResult::kGivenBack), 0u);
    // They are found again at the start, and filled before anything is put there: the simulated
    // disk refuses a write into a hole.
    const std::uint64_t holes = store->disk->holes(StoreFile::kData);
    const std::uint32_t punched = space().punched_chunks();
    reopen();
    EXPECT_EQ(space().punched_chunks(), punched);
    expect_sound();
    const std::uint64_t length = data_bytes(*store);
    for (std::uint32_t id = 0; id < kValues; ++id) put(id, 1);
    settle();
    EXPECT_LT(store->disk->holes(StoreFile::kData), holes);
    EXPECT_LE(data_bytes(*store), length + 3 * kChunkBytes) << "holes are taken first";
    expect_sound();
}

TEST_F(CompactionValues, HolesAtTheEndAreCutWithIt) {
    start();
    for (std::uint32_t id = 0; id < kValues; ++id) put(id);
    const TableId late = late_table();
    for (std::uint32_t id = 0; id < kValues; ++id) {
        if (id % 5 != 2) erase(id);
    }
    settle();
    CompactClient first(*client);
    ASSERT_TRUE(compact(first));
    ASSERT_GE(space().punched_chunks(), 2u);
    const std::uint64_t before = data_bytes(*store);
    const std::uint64_t holes = store->disk->holes(StoreFile::kData) * kPageBytes;
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, late, {}, {});
    ASSERT_EQ(store->commit(*client, drop).error, Error::kOk);
    settle();
    CompactClient second(*client);
    ASSERT_TRUE(compact(second));
    EXPECT_LT(data_bytes(*store), before);
    EXPECT_GE(second.value(CompactResult::kGivenBack) + holes, before - data_bytes(*store));
    expect_sound();
    for (std::uint32_t id = 0; id < kValues; ++id) put(id, 1);
    settle();
    expect_sound();
    reopen();
    expect_sound();
}

// A recovery tried no more than to fill the hole, and refused to start.
TEST_F(CompactionValues, RecoveryOnAFullFileSystemTakesWhatWasGrownBefore) {
    start();
    make_holes();
    ASSERT_TRUE(store->stop());
    // The file got longer, the process died, and others took all that was left.
    auto disk = store->disk->clone(7);
    const std::uint64_t size_bytes = *disk->size_bytes(StoreFile::kData);
    ASSERT_TRUE(disk->resize(StoreFile::kData, size_bytes + 2 * kChunkBytes).ok());
    disk->set_capacity_bytes(0);
    SimStore full(options_, std::move(disk), 3);
    ASSERT_TRUE(full.open().ok());
    Storage& storage = full.engine->core().storage();
    ASSERT_GE(storage.space.punched_chunks(), 1u);
    storage.pool.begin_batch(Csn{storage.pool.visible() + 1});
    const auto wanted = static_cast<std::uint32_t>(storage.space.in_reach() + 100);
    const Status secured = storage.secure_space(wanted);
    EXPECT_TRUE(secured.ok()) << secured.failure().what;
}

// Holes that were retired, but not cut yet, were taken back into use: a frame each, and no page.
TEST_F(CompactionValues, RetiredHolesAreLeftAloneByWhoWantsPages) {
    start();
    for (std::uint32_t id = 0; id < kValues; ++id) put(id);
    for (std::uint32_t id = 0; id < kValues; ++id) erase(id);
    settle();
    ASSERT_TRUE(store->stop());
    SimStore again(options_, store->disk->clone(7), 3);
    ASSERT_TRUE(again.open().ok());
    Storage& storage = again.engine->core().storage();
    Space& space = storage.space;
    const std::uint32_t end = space.chunk_count();
    ASSERT_GT(end, 4u);
    const auto retire = [&] {
        ASSERT_TRUE(space.retire_last_chunk(storage.checkpointer->covered()));
        storage.evict({meta_page(space.chunk_count())}, Csn{storage.pool.visible()});
        storage.reclaim({}, Storage::kAll);
    };
    for (const std::uint32_t chunk : {end - 3, end - 1}) {
        ASSERT_TRUE(space.punch_chunk(chunk));
        while (space.growth().running()) again.disk->poll(1'000'000);
        Status punched;
        ASSERT_TRUE(space.take_growth(punched));
    }
    for (int i = 0; i < 3; ++i) retire();  // one with its blocks between two holes
    storage.pool.begin_batch(Csn{storage.pool.visible() + 1});
    const auto one_chunk = static_cast<std::uint32_t>(space.available() + 1);
    EXPECT_EQ(space.new_chunk_frames(one_chunk, 0), 2u);
    EXPECT_TRUE(space.secure(one_chunk));
    EXPECT_EQ(space.chunk_count(), end - 1);
    EXPECT_FALSE(space.secure(static_cast<std::uint32_t>(space.in_reach() + 1)));
    EXPECT_EQ(space.chunk_count(), end - 1);
}

// A full file system is met when a hole is filled, and nowhere else.
TEST_F(CompactionValues, FullFileSystemIsSaidBeforeAHoleIsUsed) {
    start();
    make_holes();
    ASSERT_GE(space().punched_chunks(), 2u);
    store->disk->set_capacity_bytes(0);
    Error refused = Error::kOk;
    for (std::uint32_t id = kValues; id < 3 * kValues && refused == Error::kOk; ++id) {
        TransactionBytes bytes;
        const Bytes row = wide_row(id, 0, 30'000);
        bytes.operation(OperationKind::kPut, values, row_key(id), row);
        refused = store->commit(*client, bytes).error;
        if (refused == Error::kOk) rows[row_key(id)] = row;
    }
    EXPECT_EQ(refused, Error::kNoSpace);
    EXPECT_EQ(store->engine->fence_reason(), "");
    expect_sound();
    store->disk->set_capacity_bytes(1ull << 40);
    store->clock.advance_ns(2'000'000'000);
    settle();
    put(5 * kValues);
    expect_sound();
}

// ---- clients that ask for no step any more (engine/engine_silence.cc) ----

class StoppedCompaction : public CompactionValues {
  protected:
    void wait_minutes(int minutes) {
        for (int i = 0; i < minutes * 60; ++i) {
            store->clock.advance_ns(1'000'000'000);
            for (int round = 0; round < 5; ++round) store->round();
        }
    }
    // Up to an answer in the middle of a value: the next piece of it is under way.
    void compact_into_a_value(CompactClient& compaction) {
        const auto copying = [&] {
            store->clock.advance_ns(1'000'000);
            const std::uint32_t steps = compaction.steps();
            if (compaction.advance()) return true;
            return compaction.steps() > steps && store->disk->in_flight() > 0 &&
                   !store->engine->core().extent_move_is_over();
        };
        ASSERT_TRUE(store->run_until(copying, 40'000));
        ASSERT_FALSE(compaction.done());
    }
    Error first_answer(SimClient& admin) {
        CompactClient compaction(admin);
        EXPECT_TRUE(store->run_until([&] { return compaction.advance() || compaction.steps(); }));
        return compaction.error();
    }
    // What the device holds up for longer than a client may be silent goes on afterwards.
    void expect_it_is_waited_for(CompactClient& compaction, SimClient& rival) {
        wait_minutes(11);
        EXPECT_EQ(first_answer(rival), Error::kBusy);
        store->disk->release();
        ASSERT_TRUE(compact(compaction));
        EXPECT_EQ(compaction.error(), Error::kOk);
        expect_sound();
    }
    std::ptrdiff_t said(const std::string& words) {
        return std::count_if(
            store->log_lines.begin(), store->log_lines.end(),
            [&](const std::string& line) { return line.find(words) != std::string::npos; });
    }
};

// Its client waits for the answer, and the engine for the device.
TEST_F(StoppedCompaction, AStepThatWaitsForAPageIsNoSilence) {
    start();
    fill();
    reopen();
    SimClient& second = store->connect();
    settle();
    store->disk->hold_back(StoreFile::kData);
    CompactClient compaction(*client);
    store->run_until([&] { return compaction.advance(); }, 100);
    ASSERT_EQ(compaction.steps(), 0u);
    expect_it_is_waited_for(compaction, second);
}

TEST_F(StoppedCompaction, APieceThatIsUnderWayIsNotTakenFromIt) {
    start();
    fill();
    SimClient& second = store->connect();
    CompactClient compaction(*client);
    ASSERT_NO_FATAL_FAILURE(compact_into_a_value(compaction));
    store->disk->hold_back(StoreFile::kData);
    expect_it_is_waited_for(compaction, second);
}

// The pages of the copy are the last that there are.
TEST_F(StoppedCompaction, ItMakesWayForAWriterThatFindsNoRoomBesideItsCopy) {
    start();
    fill();
    CompactClient compaction(*client);
    ASSERT_NO_FATAL_FAILURE(compact_into_a_value(compaction));
    wait_minutes(11);
    store->disk->set_capacity_bytes(0);  // no file grows any more
    SimClient& writer = store->connect(Rights::kWriter);
    const auto put_new = [&](std::uint32_t id) {
        TransactionBytes bytes;
        const Bytes row = wide_row(id, 0, 60'000);
        bytes.operation(OperationKind::kPut, values, row_key(id), row);
        const Error error = store->commit(writer, bytes).error;
        if (error == Error::kOk) rows[row_key(id)] = row;
        return error;
    };
    std::uint32_t id = kValues;
    while (said("compaction is given up") == 0 && put_new(id) == Error::kOk) {
        ASSERT_LT(++id, 10 * kValues);
    }
    EXPECT_EQ(said("others find no room beside the value that it copies"), 1);
    EXPECT_EQ(put_new(id), Error::kOk);
    ASSERT_TRUE(compact(compaction));
    EXPECT_EQ(compaction.error(), Error::kTimedOut);
    expect_sound();
}

}  // namespace
}  // namespace bidstore
