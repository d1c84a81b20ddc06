// The pace of checkpoints: as numbers alone, and of a store on a disk that is slow.
#include "engine/checkpoint_pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kHourNs = 3'600'000'000'000;

PaceFill fill_of(std::size_t room, double share) {
    PaceFill fill;
    fill.share[room] = share;
    return fill;
}

TEST(CheckpointPace, BeginsWhenAnythingIsNearlyHalfFull) {
    for (std::size_t room = 0; room < PaceFill::kRooms; ++room) {
        EXPECT_FALSE(CheckpointPace::due(fill_of(room, 0.4)));
        EXPECT_TRUE(CheckpointPace::due(fill_of(room, 0.5)));
    }
}

TEST(CheckpointPace, RestsAheadOfItsGoalAndHurriesBehindIt) {
    const CheckpointPace pace(16);
    EXPECT_EQ(pace.slice(0.5, 0.4, false).work, 0u);
    const CheckpointSlice little = pace.slice(0.5, 0.501, false);
    EXPECT_GE(little.work, 16u);
    EXPECT_LE(little.work, 20u);
    EXPECT_EQ(little.writes_in_flight, 2u);
    const CheckpointSlice full = pace.slice(0.5, 0.9, false);
    EXPECT_EQ(full.work, 64u);
    EXPECT_EQ(full.writes_in_flight, CheckpointPace::kWritesMost);
    EXPECT_EQ(pace.slice(0.5, 0.4, true).work, 64u);
}

// Half of the interval by time; and never so slow that nobody would notice it faster.
TEST(CheckpointPace, GoalFollowsTheClockWhenNothingFillsUp) {
    CheckpointPace pace(16);
    pace.begin({}, 1'000, 10'000'000'000);
    EXPECT_NEAR(pace.goal({}, 1'000'000, 1'000), 0, 1e-6);
    EXPECT_NEAR(pace.goal({}, 1'000'000, 2'500'001'000), 0.5, 1e-3);
    EXPECT_EQ(pace.goal({}, 1'000'000, 5'000'001'001), 1);
    EXPECT_EQ(pace.goal({}, 1'000, 500'000'000), 1);
}

// Writers fill each kind of room at their own speed, on a device that could do ten times the work.
// The checkpoint ends with the room kDone full, its writes spread over all that time.
TEST(CheckpointPace, CheckpointOfAFastDeviceIsSpreadOverTheRoomThereIs) {
    for (std::size_t room = 0; room < PaceFill::kRooms; ++room) {
        const double begun = room == PaceFill::kJournal ? 0 : CheckpointPace::kBegin;
        CheckpointPace pace(16);
        PaceFill fill = fill_of(room, begun);
        pace.begin(fill, 0, kHourNs);
        constexpr double kImages = 1'000'000;
        double written = 0;
        double most_in_a_tenth = 0;
        double tenth_began = 0;
        int rounds = 0;
        for (; written < kImages; ++rounds) {
            fill.share[room] += (CheckpointPace::kDone - begun) / 50'000;
            const double progress = written / kImages;
            const double goal = pace.goal(fill, 1'000'000, 0);
            written += pace.slice(progress, goal, false).work * 10;
            EXPECT_EQ(pace.writers(fill, progress), WriterPace{}) << "nobody needs to be slowed";
            if (rounds % 5'000 == 4'999) {
                most_in_a_tenth = std::max(most_in_a_tenth, written - tenth_began);
                tenth_began = written;
            }
            ASSERT_LT(rounds, 60'000);
        }
        EXPECT_NEAR(fill.share[room], CheckpointPace::kDone, 0.01);
        EXPECT_LT(most_in_a_tenth, 0.11 * kImages);
    }
}

TEST(CheckpointPace, WritersAreSlowedWithoutACliff) {
    for (std::size_t room = 0; room < PaceFill::kRooms; ++room) {
        for (const double begun : {0.0, 0.3, 0.6, 0.95}) {
            CheckpointPace pace(16);
            pace.begin(fill_of(room, begun), 0, kHourNs);
            for (const double progress : {0.0, 0.5, 1.0}) {
                std::uint64_t before = 0;
                for (double share = begun; share < 1; share += 0.001) {
                    const WriterPace now = pace.writers(fill_of(room, share), progress);
                    if (now.held) {
                        EXPECT_EQ(now.pause_ns, CheckpointPace::kPauseNsMost);
                        break;
                    }
                    EXPECT_GE(now.pause_ns, before) << share;
                    // Where there was no room when it began, there is nothing to be smooth with.
                    if (begun < 0.9) {
                        EXPECT_LE(now.pause_ns, before + CheckpointPace::kPauseNsMost / 20);
                    }
                    before = now.pause_ns;
                }
                EXPECT_TRUE(pace.writers(fill_of(room, 1), progress).held);
                // The room that a checkpoint has made is there for the writers.
                EXPECT_GE(pace.writers(fill_of(room, 0.8), 0).pause_ns,
                          pace.writers(fill_of(room, 0.8), progress).pause_ns);
            }
        }
    }
}

// The device writes 2 images in the time of a request, and each request fills as much room as 10 of
// them empty: writers want five times what can be had.
TEST(CheckpointPace, WritersFasterThanTheDeviceGetWhatItGivesAtAnEvenRate) {
    CheckpointPace pace(16);
    constexpr double kImages = 200'000;
    constexpr std::uint64_t kRequestNs = 10'000;
    PaceFill fill = fill_of(PaceFill::kJournal, 0.02);
    pace.begin(fill, 0, kHourNs);
    double written = 0;
    std::uint64_t now_ns = 0;
    std::uint64_t let_in_ns = 0;
    std::uint64_t longest_ns = 0;
    std::vector<int> let_in(1, 0);  // in each tenth of the images
    while (written < kImages) {
        now_ns += kRequestNs;
        written += 2;
        const double progress = written / kImages;
        if (progress * 10 >= static_cast<double>(let_in.size())) let_in.push_back(0);
        const WriterPace writers = pace.writers(fill, progress);
        if (writers.held || now_ns - let_in_ns < writers.pause_ns) continue;
        longest_ns = std::max(longest_ns, now_ns - let_in_ns);
        let_in_ns = now_ns;
        const auto requests = writers.pause_ns == 0 ? 1 : WriterPace::kAtOnce;
        fill.share[PaceFill::kJournal] += requests * 10 / kImages;
        let_in.back() += static_cast<int>(requests);
    }
    EXPECT_LT(fill.share[PaceFill::kJournal], 1);
    EXPECT_LE(longest_ns, CheckpointPace::kPauseNsMost);
    for (std::size_t tenth = 2; tenth < 10; ++tenth) {
        EXPECT_GT(let_in[tenth], let_in[3] / 2) << tenth;
        EXPECT_LT(let_in[tenth], let_in[3] * 2) << tenth;
    }
}

// ---- a store on a slow disk ---------------------------------------------------------------------

constexpr std::uint64_t kDiskNs = 200'000;  // an operation

class PacedStoreTest : public ::testing::Test {
  protected:
    void start(const SimStoreOptions& options) {
        store = std::make_unique<SimStore>(options, std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store->open().ok());
        client = &store->connect();
        auto schema = Schema::make(
            "rows", {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 1200}}, 1);
        ASSERT_TRUE(schema.ok());
        table = store->create_table(*client, *schema);
    }
    // Writes rows at random for so many answers, 32 at a time, as fast as they are answered.
    void write(std::uint64_t answers) {
        std::deque<std::uint32_t> waiting;
        const std::vector<std::byte> value(1200, std::byte{7});
        std::uint64_t answered_ns = store->clock.monotonic_ns();
        while (answers > 0) {
            while (waiting.size() < 32) {
                std::vector<std::byte> key(4);
                encode_key_integer(key.data(), random() % rows, 4, false);
                TransactionBytes bytes;
                bytes.operation(OperationKind::kPut, table, key, value);
                const auto token = client->submit(bytes.bytes());
                if (!token) break;
                waiting.push_back(*token);
            }
            ASSERT_EQ(store->round() == EngineRound::kFenced, false);
            log_behind_most = std::max(log_behind_most, log_behind());
            while (!waiting.empty()) {
                const auto answer = client->answer(waiting.front());
                if (!answer) break;
                ASSERT_EQ(answer->error, Error::kOk);
                waiting.pop_front();
                if (answers > 0) --answers;
                longest_ns = std::max(longest_ns, store->clock.monotonic_ns() - answered_ns);
                answered_ns = store->clock.monotonic_ns();
            }
        }
    }
    Engine::Core& core() { return store->engine->core(); }
    std::uint64_t log_behind() {
        return core().commit().wal().replay_bytes(core().storage().checkpointer->log_start());
    }
    std::uint64_t finished() { return core().storage().checkpointer->totals().finished; }
    bool slowed() { return counter_value(store->pool->stats(), Counter::kWritersSlowedNs) > 0; }

    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
    TableId table;
    std::mt19937_64 random{1};
    std::uint64_t rows = 6'000;
    std::uint64_t log_behind_most = 0;
    std::uint64_t longest_ns = 0;
};

SimStoreOptions roomy_store() {
    SimStoreOptions options = small_store();
    options.frames = 16'000;
    options.engine.log_segment_bytes = 4u << 20;
    options.engine.log_segment_count = 16;
    options.engine.journal_bytes = 32u << 20;
    options.engine.checkpoint_interval_ns = kHourNs;
    return options;
}

// All pages of the table are written to the journal and then one by one to their places, which
// takes the device much longer than the writers take to fill the journal again.
TEST_F(PacedStoreTest, WritersOnASlowDiskAreSlowedAndNeverHeldForLong) {
    SimStoreOptions options = roomy_store();
    options.engine.journal_bytes = 4u << 20;
    start(options);
    write(8'000);
    store->disk->serve_one_by_one(store->clock, kDiskNs);
    longest_ns = 0;
    const std::uint64_t before = finished();
    write(24'000);
    EXPECT_GT(finished(), before + 2);
    EXPECT_TRUE(slowed());
    // The writes that may be before the log's own in the device's queue, and the pause: far from
    // the time of a checkpoint's sync and its writes to their places.
    EXPECT_LT(longest_ns,
              2 * CheckpointPace::kPauseNsMost + 4 * CheckpointPace::kWritesMost * kDiskNs);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(PacedStoreTest, LogBehindTheCheckpointNeverExceedsItsLimit) {
    SimStoreOptions options = roomy_store();
    options.engine.recovery_log_bytes = 16u << 20;
    start(options);
    store->disk->serve_one_by_one(store->clock, kDiskNs);
    rows = 600;  // changed again and again: nothing but the log fills up
    write(30'000);
    EXPECT_GT(finished(), 2u);
    EXPECT_LE(log_behind_most, options.engine.recovery_log_bytes);
    EXPECT_GT(log_behind_most, options.engine.recovery_log_bytes * 45 / 100);
    // In time, that is: before anybody had to be held.
    EXPECT_LT(log_behind_most, options.engine.recovery_log_bytes * 90 / 100);
    auto disk = store->disk->power_loss(3);
    store = std::make_unique<SimStore>(options, std::move(disk), 2);
    ASSERT_TRUE(store->open().ok());
    EXPECT_LE(store->engine->recovery().log_bytes, options.engine.recovery_log_bytes);
    EXPECT_EQ(store->verify(), "");
}

}  // namespace
}  // namespace bidstore
