// What a recovery says while it is at work, and what it tells of itself afterwards.
#include "engine/recovery.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr TableId kRows{16};
using Rows = std::map<std::vector<std::byte>, std::vector<std::byte>>;

Schema rows_schema() {
    auto schema = Schema::make(
        "rows",
        {{"id", ColumnType::kU32, 0}, {"n", ColumnType::kI64, 0}, {"pad", ColumnType::kFixed, 256}},
        1);
    EXPECT_TRUE(schema.ok());
    return *schema;
}

std::vector<std::byte> key_of(std::uint64_t id) {
    std::vector<std::byte> key(4);
    encode_key_integer(key.data(), id, 4, false);
    return key;
}

SimStoreOptions recovery_store() {
    SimStoreOptions options = small_store();
    options.engine.checkpoint_interval_ns = 3'600'000'000'000;
    return options;
}

// A store that was written to since its last checkpoint, as its process left it.
std::unique_ptr<SimDisk> crashed_store(std::uint32_t commits) {
    SimStore store(recovery_store(), std::make_unique<SimDisk>(), 1);
    EXPECT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    EXPECT_EQ(store.create_table(client, rows_schema()), kRows);
    for (std::uint32_t id = 0; id < commits; ++id) {
        const std::vector<std::byte> value(rows_schema().fixed_bytes(), std::byte{7});
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, kRows, key_of(id), value);
        EXPECT_EQ(store.commit(client, bytes).error, Error::kOk);
    }
    return store.disk->process_crash(2);
}

TEST(Recovery, LongOneTellsEverySecondHowFarItIs) {
    std::vector<std::string> told;
    std::vector<std::uint64_t> told_ns;
    SimStoreOptions options = recovery_store();
    SimClock* clock = nullptr;
    options.engine.progress = [&](const std::string& state) {
        told.push_back(state);
        told_ns.push_back(clock->monotonic_ns());
    };
    SimStore store(options, crashed_store(100), 3);
    clock = &store.clock;
    // A slow device.
    store.disk->observe([&](std::uint64_t, SimStep kind) {
        if (kind == SimStep::kSubmitRead) clock->advance_ns(300'000'000);
    });
    const std::uint64_t began_ns = clock->monotonic_ns();
    ASSERT_TRUE(store.open().ok());
    ASSERT_GE(told.size(), 2u);
    std::uint64_t last_ns = began_ns;
    for (std::size_t i = 0; i < told.size(); ++i) {
        EXPECT_GE(told_ns[i] - last_ns, 1'000'000'000u);
        EXPECT_LT(told_ns[i] - last_ns, 3'000'000'000u) << told[i];
        EXPECT_EQ(std::count(store.log_lines.begin(), store.log_lines.end(), told[i]), 1)
            << told[i];
        last_ns = told_ns[i];
    }
    EXPECT_NE(told.back().find("recovery: "), std::string::npos);
    EXPECT_NE(told.back().find("MiB of log replayed"), std::string::npos) << told.back();
}

// A failed write left a whole batch in the page cache, which took it for clean: recovery found it,
// its syncs wrote nothing, and the next superblock called it durable. With the power it was gone,
// and the store was refused for a log that does not reach what was called durable.
TEST(Recovery, BatchOfAFailedWriteIsDurableBeforeItIsCalledSo) {
    int kept = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        SimDiskOptions disk;
        disk.seed = seed;
        disk.page_cache = true;
        SimStore store(recovery_store(), std::make_unique<SimDisk>(disk), 1);
        ASSERT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        ASSERT_EQ(store.create_table(client, rows_schema()), kRows);
        store.disk->observe([&](std::uint64_t step, SimStep kind) {
            if (kind == SimStep::kSubmitWrite) store.disk->fail_at(step, EIO);
        });
        TransactionBytes bytes;
        const std::vector<std::byte> value(rows_schema().fixed_bytes(), std::byte{7});
        bytes.operation(OperationKind::kPut, kRows, key_of(1), value);
        EXPECT_NE(store.commit(client, bytes).error, Error::kOk);
        if (store.disk->taken_for_clean() == 0) continue;

        SimStore next(recovery_store(), store.disk->process_crash(2), 3);
        ASSERT_TRUE(next.open().ok());
        const Rows rows = next.rows(kRows);
        kept += rows.size() == 1;
        const auto nothing = [](StoreFile, std::uint64_t) { return false; };
        SimStore last(recovery_store(), next.disk->power_loss(4, nothing), 5);
        const Status opened = last.open();
        ASSERT_TRUE(opened.ok()) << "seed " << seed << ": " << opened.failure().what;
        EXPECT_EQ(last.rows(kRows), rows) << "seed " << seed;
    }
    EXPECT_GT(kept, 0);
}

TEST(Recovery, ShortOneIsQuiet) {
    SimStoreOptions options = recovery_store();
    options.engine.progress = [](const std::string& state) { ADD_FAILURE() << state; };
    SimStore store(options, crashed_store(10), 3);
    ASSERT_TRUE(store.open().ok());
}

TEST(Recovery, ItsTimesAddUpToTheWhole) {
    SimStore store(recovery_store(), crashed_store(100), 3);
    store.disk->observe([&](std::uint64_t, SimStep) { store.clock.advance_ns(1'000'000); });
    ASSERT_TRUE(store.open().ok());
    const Engine::Recovery& recovery = store.engine->recovery();
    const RecoveryTimes& times = recovery.times;
    EXPECT_GE(recovery.records, 100u);
    EXPECT_GT(times.files_ns, 0u);
    EXPECT_GT(times.metadata_ns, 0u);
    EXPECT_GT(times.read_ns, 0u);
    EXPECT_GT(times.end_ns, 0u);
    EXPECT_EQ(times.files_ns + times.journal_ns + times.metadata_ns + times.read_ns +
                  times.replay_ns + times.checkpoints_ns + times.rest_ns + times.end_ns,
              recovery.elapsed_ns);
}

// A store with a file of so many chunks, nearly all of them free.
std::unique_ptr<SimDisk> empty_chunks(std::uint32_t chunks) {
    SimStoreOptions options = recovery_store();
    options.frames = 400;
    SimStore store(options, std::make_unique<SimDisk>(), 1);
    EXPECT_TRUE(store.open().ok());
    Storage& storage = store.engine->core().storage();
    Commit& commit = store.engine->core().commit();
    Space& space = storage.space;
    while (space.chunk_count() < chunks && !testing::Test::HasFailure()) {
        const auto may_grow = [&] { return !space.growth().running() && commit.open(); };
        EXPECT_TRUE(store.run_until(may_grow));
        const auto pages = static_cast<std::uint32_t>(space.available() + 1);
        EXPECT_TRUE(storage.secure_space(pages).ok());
        commit.touch();
        commit.hurry();
        EXPECT_TRUE(store.run_until([&] { return commit.quiet(); }));
    }
    EXPECT_TRUE(store.stop());
    EXPECT_EQ(space.chunk_count(), chunks);
    return store.disk->clone(2);
}

// It aborted in the middle of reading them, for want of a frame.
TEST(Recovery, PoolThatIsTooSmallForTheChunksIsRefusedByItsSetting) {
    constexpr std::uint32_t kChunks = 24;
    auto disk = empty_chunks(kChunks);
    SimStoreOptions options = recovery_store();
    for (const std::uint32_t frames : {kChunks - 2, 2 * kChunks - 1}) {
        options.frames = frames;
        SimStore store(options, disk->clone(3), 3);
        const Status opened = store.open();
        ASSERT_FALSE(opened.ok());
        EXPECT_EQ(opened.error(), Error::kInvalid);
        const std::string least = std::to_string(2 * kChunks * kPageBytes);
        EXPECT_NE(opened.failure().what.find("set pool_bytes to " + least), std::string::npos)
            << opened.failure().what;
    }
    options.frames = 2 * kChunks;
    SimStore store(options, disk->clone(3), 3);
    const Status opened = store.open();
    EXPECT_TRUE(opened.ok()) << opened.failure().what;
}

// What a batch might take at worst was more than a pool ever has free that holds the metadata of a
// large file, too: every start refused a log that serving had accepted.
TEST(Recovery, ABatchIsRefusedForWhatItTakesNotForWhatItMight) {
    auto schema = Schema::make(
        "texts",
        {{"id", ColumnType::kU32, 0}, {"a", ColumnType::kText, 0}, {"b", ColumnType::kText, 0}}, 1);
    ASSERT_TRUE(schema.ok());
    SimStoreOptions options = recovery_store();
    options.frames = 400;
    SimStore store(options, empty_chunks(24), 1);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    const TableId texts = store.create_table(client, *schema);
    const std::vector<std::byte> text(8, std::byte{'x'});
    RowBuilder row(*schema);
    TransactionBytes puts;
    TransactionBytes updates;
    for (std::uint32_t id = 0; id < 60; ++id) {
        ASSERT_TRUE(row.set_unsigned(0, id).ok());
        ASSERT_TRUE(row.set_bytes(1, text).ok());
        ASSERT_TRUE(row.set_bytes(2, text).ok());
        puts.operation(OperationKind::kPut, texts, key_of(id), *row.value());
        updates.columns(OperationKind::kUpdate, texts, key_of(id), 2, std::span(text).first(4));
    }
    ASSERT_EQ(store.commit(client, puts).error, Error::kOk);
    ASSERT_EQ(store.commit(client, updates).error, Error::kOk);
    const Rows expected = store.rows(texts);
    options.frames = 80;  // the metadata of chunks takes 24 of them
    SimStore small(options, store.disk->process_crash(3), 2);
    const Status opened = small.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    EXPECT_EQ(small.rows(texts), expected);
    EXPECT_EQ(small.verify(), "");
}

// ---- replay ahead of what it changes ----

constexpr std::uint32_t kManyRows = 5'000;  // so many leaves that their tree has three levels

TransactionBytes puts(std::uint32_t first, std::uint32_t count, std::uint32_t step, char content) {
    TransactionBytes bytes;
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::vector<std::byte> value(rows_schema().fixed_bytes(),
                                           static_cast<std::byte>(content));
        bytes.operation(OperationKind::kPut, kRows, key_of((first + i * step) % kManyRows), value);
    }
    return bytes;
}

// Many rows in a checkpoint, and changes of rows all over them in the log: puts, adds, updates of
// a column, deletions, of many rows at once, too.
std::unique_ptr<SimDisk> scattered_changes(Rows& expected) {
    SimStoreOptions options = recovery_store();
    SimStore store(options, std::make_unique<SimDisk>(), 1);
    EXPECT_TRUE(store.open().ok());
    SimClient* client = &store.connect();
    EXPECT_EQ(store.create_table(*client, rows_schema()), kRows);
    for (std::uint32_t first = 0; first < kManyRows; first += 50) {
        EXPECT_EQ(store.commit(*client, puts(first, 50, 1, 0)).error, Error::kOk);
    }
    EXPECT_TRUE(store.stop());
    SimStore again(options, store.disk->clone(2), 2);
    EXPECT_TRUE(again.open().ok());
    client = &again.connect();
    for (std::uint32_t i = 0; i < 60; ++i) {
        TransactionBytes bytes = puts(i * 83, 8, 601, static_cast<char>(i));
        AddBody body{};
        body.column = 1;
        body.delta = i;
        bytes.add(kRows, key_of(i * 79 % kManyRows), body);
        const std::vector<std::byte> pad(256, std::byte{9});
        bytes.columns(OperationKind::kUpdate, kRows, key_of(i * 71 % kManyRows), 2, pad);
        bytes.operation(OperationKind::kDelete, kRows, key_of(i * 67 + 1), {}, kIfPresent);
        if (i == 30) {  // later puts find other leaves than those of the checkpoint
            bytes.operation(OperationKind::kDeleteRange, kRows, key_of(1'000), key_of(1'300));
        }
        EXPECT_EQ(again.commit(*client, bytes).error, Error::kOk);
    }
    expected = again.rows(kRows);
    return again.disk->process_crash(3);
}

TEST(Recovery, PagesOfRecordsAheadComeManyAtATime) {
    Rows expected;
    auto disk = scattered_changes(expected);
    for (const std::uint32_t frames : {2048u, 500u}) {  // all fits; the pages crowd each other out
        SimStoreOptions options = recovery_store();
        options.frames = frames;
        SimStore store(options, disk->clone(4), 5);
        std::uint32_t most = 0;
        store.disk->observe(
            [&](std::uint64_t, SimStep) { most = std::max(most, store.disk->in_flight()); });
        const Status opened = store.open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        EXPECT_GT(most, 16u) << frames;
        EXPECT_EQ(store.rows(kRows), expected) << frames;
        EXPECT_EQ(store.verify(), "") << frames;
    }
}

// Leaves without room, more of them than a pool of 4,096 frames holds, and a log that splits many
// of them, and puts large values, in large batches.
std::unique_ptr<SimDisk> full_leaves(SimStoreOptions options, Rows& expected) {
    constexpr std::uint32_t kDense = 24'000;
    SimStore store(options, std::make_unique<SimDisk>(), 1);
    EXPECT_TRUE(store.open().ok());
    SimClient* client = &store.connect();
    const auto schema =
        Schema::make("rows", {{"id", ColumnType::kU32, 0}, {"text", ColumnType::kText, 0}}, 1);
    EXPECT_EQ(store.create_table(*client, *schema), kRows);
    const auto put = [&](TransactionBytes& bytes, std::uint32_t id, std::size_t length) {
        const std::string text(length, static_cast<char>('a' + id % 26));
        RowBuilder row(*schema);
        EXPECT_TRUE(row.set_bytes(1, std::as_bytes(std::span(text.data(), text.size()))).ok());
        bytes.operation(OperationKind::kPut, kRows, key_of(id), *row.value());
    };
    for (std::uint32_t first = 0; first < kDense; first += 48) {
        TransactionBytes bytes;
        for (std::uint32_t i = 0; i < 48; ++i) put(bytes, 2 * (first + i), 1'300);
        EXPECT_EQ(store.commit(*client, bytes).error, Error::kOk);
    }
    EXPECT_TRUE(store.stop());
    options.engine.group_commit_interval_ns = 5'000'000;
    options.engine.group_commit_bytes = options.engine.log_segment_bytes / 2;
    SimStore again(options, store.disk->clone(2), 2);
    EXPECT_TRUE(again.open().ok());
    client = &again.connect(Rights::kAdmin, std::nullopt, 64, 16u << 20);
    std::mt19937 random(6);
    const auto odd = [&] { return static_cast<std::uint32_t>(random() % kDense * 2 + 1); };
    for (std::uint32_t batch = 0; batch < 5; ++batch) {
        std::vector<std::uint32_t> tokens;
        for (std::uint32_t i = 0; i < 20; ++i) {
            TransactionBytes bytes;
            for (std::uint32_t row = 0; row < 48; ++row) put(bytes, odd(), 1'300);
            if (i % 10 == 9) put(bytes, odd(), 1'000'000);
            tokens.push_back(client->submit(bytes.bytes()).value());
        }
        for (const std::uint32_t token : tokens) {
            std::optional<Answer> answer;
            EXPECT_TRUE(
                again.run_until([&] { return (answer = client->answer(token)).has_value(); }));
            EXPECT_EQ(answer->error, Error::kOk);
        }
    }
    expected = again.rows(kRows);
    return again.disk->process_crash(3);
}

// Reads ahead took the frames that were secured for a record while it waited for a page of its own:
// its large value was refused for a pool "too small".
TEST(Recovery, ReadsAheadLeaveTheFramesThatARecordNeeds) {
    SimStoreOptions roomy = recovery_store();
    roomy.frames = 16'384;
    roomy.engine.log_segment_bytes = 16u << 20;
    roomy.engine.journal_bytes = 64u << 20;
    Rows expected;
    auto disk = full_leaves(roomy, expected);
    SimStoreOptions options = roomy;
    options.frames = 4'096;
    SimStore store(options, disk->clone(4), 5);
    store.disk->set_slowness(1'000);  // so many reads are under way that others wait
    store.disk->serve_newest_first();
    const Status opened = store.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    ASSERT_TRUE(store.stop());
    SimStore again(roomy, store.disk->clone(6), 7);
    ASSERT_TRUE(again.open().ok());
    EXPECT_EQ(again.rows(kRows), expected);
}

// Pages that changed stay in the pool until a checkpoint has them. What is read ahead must not wait
// for their frames, and the checkpoint has to come before nothing else is left.
TEST(Recovery, MoreChangedPagesThanThePoolHoldsCostCheckpointsInBetween) {
    Rows expected;
    auto disk = scattered_changes(expected);
    for (const std::uint32_t frames : {300u, 250u}) {
        SimStoreOptions options = recovery_store();
        options.frames = frames;
        SimStore store(options, disk->clone(4), 5);
        const Status opened = store.open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        EXPECT_GT(store.engine->recovery().checkpoints, 1u) << frames;
        ASSERT_TRUE(store.stop());
        SimStore roomy(recovery_store(), store.disk->clone(6), 7);
        ASSERT_TRUE(roomy.open().ok());
        EXPECT_EQ(roomy.rows(kRows), expected) << frames;
        EXPECT_EQ(roomy.verify(), "") << frames;
    }
}

// Requests and buffers belong to the engine that was to be: the device must not write there when it
// is gone.
TEST(Recovery, FailedOneLeavesNoRequestBehind) {
    Rows expected;
    auto disk = scattered_changes(expected);
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
        SimStore store(recovery_store(), disk->clone(seed), 5);
        const std::uint64_t middle = *store.disk->size_bytes(StoreFile::kData) / 3;
        store.disk->bad_range(StoreFile::kData, middle, middle, EIO);
        std::uint32_t most = 0;
        store.disk->observe(
            [&](std::uint64_t, SimStep) { most = std::max(most, store.disk->in_flight()); });
        const Status opened = store.open();
        EXPECT_EQ(opened.error(), Error::kIoError);
        EXPECT_GT(most, 16u);
        EXPECT_EQ(store.disk->in_flight(), 0u);
    }
}

TEST(Recovery, TwiceGivesTheSameBytes) {
    Rows expected;
    auto disk = scattered_changes(expected);
    std::vector<std::byte> first;
    for (const std::uint64_t seed : {4u, 40u}) {  // completions come in another order
        SimStore store(recovery_store(), disk->clone(seed), 5);
        ASSERT_TRUE(store.open().ok());
        ASSERT_TRUE(store.stop());
        const auto pages =
            *store.disk->size_bytes(StoreFile::kData) - kSuperblockCopies * kPageBytes;
        const auto bytes =
            store.disk->peek(StoreFile::kData, kSuperblockCopies * kPageBytes, pages);
        if (first.empty()) first = bytes;
        EXPECT_TRUE(bytes == first);
    }
}

// Steps all over a recovery; crash_test goes through every one of smaller ones.
TEST(Recovery, CutOffWhileItReadsAheadItCanBeDoneAgain) {
    Rows expected;
    auto disk = scattered_changes(expected);
    SimStoreOptions options = recovery_store();
    options.frames = 500;
    std::uint64_t steps = 0;
    {
        SimStore whole(options, disk->clone(1), 5);
        ASSERT_TRUE(whole.open().ok());
        steps = whole.disk->steps();
    }
    for (std::uint64_t step = 5; step < steps; step += steps / 12) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " + std::to_string(steps));
        SimStore cut(options, disk->clone(1), 5);
        cut.disk->crash_at(step);
        ASSERT_FALSE(cut.open().ok());
        const bool power = step % 2 == 0;
        SimStore store(options, power ? cut.disk->power_loss(step) : cut.disk->process_crash(step),
                       7);
        const Status opened = store.open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        ASSERT_EQ(store.rows(kRows), expected);
    }
}

// ---- a checkpoint in between, behind one that a crash cut off ----

constexpr std::uint32_t kFewRows = 900;

// A row in each leaf.
Error change_leaves(SimStore& store, SimClient& client, std::uint32_t first, char content) {
    TransactionBytes bytes;
    const std::vector<std::byte> value(rows_schema().fixed_bytes(),
                                       static_cast<std::byte>(content));
    for (std::uint32_t id = first; id < kFewRows; id += 12) {
        bytes.operation(OperationKind::kPut, kRows, key_of(id), value);
    }
    return store.commit(client, bytes).error;
}

// A crash when the superblock names the journal, with much in the log behind that checkpoint.
std::unique_ptr<SimDisk> named_journal(Rows& expected) {
    SimStoreOptions options = recovery_store();
    options.engine.checkpoint_slice = 1;
    SimStore store(options, std::make_unique<SimDisk>(), 1);
    EXPECT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    EXPECT_EQ(store.create_table(client, rows_schema()), kRows);
    const auto checkpoint_is_at = [&](std::uint32_t step) {
        return store.run_until(
            [&] { return store.engine->core().storage().checkpointer->recipe_step() == step; });
    };
    for (std::uint32_t first = 0; first < 12; ++first) {
        EXPECT_EQ(change_leaves(store, client, first, 1), Error::kOk);
    }
    store.clock.advance_ns(options.engine.checkpoint_interval_ns);
    EXPECT_TRUE(checkpoint_is_at(1));
    EXPECT_TRUE(checkpoint_is_at(0));
    EXPECT_EQ(change_leaves(store, client, 0, 2), Error::kOk);
    store.clock.advance_ns(options.engine.checkpoint_interval_ns);
    EXPECT_TRUE(checkpoint_is_at(1));
    for (std::uint32_t first = 1; first < 6; ++first) {
        EXPECT_EQ(change_leaves(store, client, first, 3), Error::kOk);
    }
    EXPECT_TRUE(checkpoint_is_at(4));
    expected = store.rows(kRows);
    return store.disk->power_loss(3);
}

// It wrote over the journal that the superblock still named. After a second crash, or an error, the
// store had neither that journal nor one of its own, and no start came through.
TEST(Recovery, CheckpointInBetweenOverwritesNoJournalThatIsNamed) {
    Rows expected;
    auto disk = named_journal(expected);
    SimStoreOptions options = recovery_store();
    options.frames = 150;
    options.pages = 4 * kChunkPages;
    std::set<std::uint64_t> cuts;  // before, and in the middle of, what is not just a read
    {
        SimStore whole(options, disk->clone(1), 5);
        whole.disk->observe([&](std::uint64_t step, SimStep kind) {
            const DiskRequest* request = whole.disk->submitting();
            if (kind != SimStep::kSubmitWrite && kind != SimStep::kSubmitSync) return;
            const bool image = kind == SimStep::kSubmitWrite && request->file == StoreFile::kData &&
                               request->offset_bytes >= kSuperblockCopies * kPageBytes;
            if (!image || step % 4 == 0) cuts.insert({step, step + 1});
        });
        const Status opened = whole.open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        ASSERT_GT(whole.engine->recovery().checkpoints, 0u);
        whole.disk->observe({});
        ASSERT_EQ(whole.rows(kRows), expected);
    }
    ASSERT_GT(cuts.size(), 50u);
    for (const std::uint64_t step : cuts) {
        SCOPED_TRACE("crash at step " + std::to_string(step));
        SimStore cut(options, disk->clone(1), 5);
        cut.disk->crash_at(step);
        ASSERT_FALSE(cut.open().ok());
        for (const bool power : {false, true}) {
            SimStore store(options,
                           power ? cut.disk->power_loss(step) : cut.disk->process_crash(step), 7);
            const Status opened = store.open();
            ASSERT_TRUE(opened.ok()) << opened.failure().what;
            ASSERT_EQ(store.rows(kRows), expected);
        }
    }
}

// What a checkpoint tells of its newest batch was nothing in replay, and at a stop after a start
// that nobody wrote to: a rebuild, which has no other clock, took the floors from an older one.
TEST(Recovery, CheckpointsTellTheTimeOfTheNewestBatchThatWasReplayed) {
    constexpr std::uint64_t kLateUs = 5'000'000'000'000'000;
    std::unique_ptr<SimDisk> disk;
    {
        SimStore store(recovery_store(), crashed_store(1), 3);
        ASSERT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        for (std::uint32_t batch = 0; batch < 60; ++batch) {
            if (batch == 59) store.clock.set_wall_us(kLateUs);
            TransactionBytes bytes;
            for (std::uint32_t row = 0; row < 20; ++row) {
                bytes.operation(OperationKind::kPut, kRows, key_of(20 * batch + row),
                                std::vector<std::byte>(rows_schema().fixed_bytes()));
            }
            ASSERT_EQ(store.commit(client, bytes).error, Error::kOk);
        }
        disk = store.disk->process_crash(4);
    }
    const auto newest_us = [](SimStore& store) {
        return store.engine->core().storage().superblock.newest_time_us;
    };
    SimStore small([] {
        SimStoreOptions options = recovery_store();
        options.frames = 80;
        return options;
    }(), disk->clone(5), 5);
    ASSERT_LT(small.clock.wall_us(), kLateUs);
    ASSERT_TRUE(small.open().ok());
    ASSERT_GT(small.engine->recovery().checkpoints, 0u);
    EXPECT_GE(newest_us(small), SimClock().wall_us()) << "of a batch before the last";

    SimStore again(recovery_store(), std::move(disk), 5);
    ASSERT_TRUE(again.open().ok());
    ASSERT_TRUE(again.stop());
    EXPECT_GE(newest_us(again), kLateUs);
    EXPECT_LT(newest_us(again), kLateUs + 1'000'000);
}

}  // namespace
}  // namespace bidstore
