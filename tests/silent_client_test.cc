// Clients that are stopped in the middle of a load or a compaction: beyond ten minutes they cost
// the others nothing; those that pause and are in nobody's way go on.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/engine_core.h"
#include "tests/compaction_fixture.h"
#include "tests/load_fixture.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 12'000;

class SilentClient : public BulkLoadTest {
  protected:
    static SimStoreOptions options() {
        SimStoreOptions options = small_store();
        options.frames = 4'000;
        options.engine.checkpoint_interval_ns = 2'000'000'000;
        return options;
    }
    explicit SilentClient(const SimDiskOptions& disk = {}) : BulkLoadTest(options(), disk) {}

    // With the engine at work meanwhile.
    void wait_minutes(int minutes) {
        for (int i = 0; i < minutes * 60; ++i) {
            store_.clock.advance_ns(1'000'000'000);
            for (int round = 0; round < 5; ++round) store_.round();
        }
    }
    // Rows all over the file, of which one in four stays.
    void fill() {
        table_ = store_.create_table(*client_, compaction_schema());
        put_rows(store_, *client_, table_, 0, kRows, rows_);
        ASSERT_EQ(rows_.size(), kRows);
        for (std::uint32_t i = 0; i < kRows; i += 400) {
            ASSERT_EQ(erase_rows(store_, *client_, table_, i, i + 300, rows_), Error::kOk);
        }
        bidstore::settle(store_);
    }
    bool until(CompactClient& compaction, const std::function<bool()>& done) {
        return store_.run_until([&] {
            store_.clock.advance_ns(1'000'000);
            return compaction.advance() || done();
        });
    }
    // Until it has chunks that it empties; then it is stopped.
    void compact_in_part(CompactClient& compaction) {
        const auto halfway = [&] { return compaction.moved() > 2 && space().closed_chunks() > 0; };
        ASSERT_TRUE(until(compaction, halfway));
        ASSERT_GT(space().closed_chunks(), 0u);
        const std::uint32_t steps = compaction.steps();
        ASSERT_TRUE(until(compaction, [&] { return compaction.steps() > steps; }));
    }
    Error run(CompactClient& compaction) {
        EXPECT_TRUE(until(compaction, [] { return false; }));
        return compaction.error();
    }
    const BulkLoad& load_of(const SimClient& client) {
        const auto& loads = store_.engine->core().loads();
        const auto found = std::find_if(loads.begin(), loads.end(), [&](const auto& load) {
            return load->client_id() == client.id();
        });
        CHECK(found != loads.end());
        return **found;
    }
    Error begin(SimClient& client, const std::string& name) {
        return step(client, LoadBytes::begin(load_schema(name, false))).error;
    }
    // All of them, each record with its answer.
    Error send(SimClient& client, const LoadRows& rows) {
        LoadBytes packed(LoadStep::kRows);
        for (auto row = rows.begin(); row != rows.end();) {
            packed.row(false, row->first, row->second);
            if (++row != rows.end() && packed.size() < 20'000) continue;
            if (const Error error = step(client, packed).error; error != Error::kOk) return error;
            packed = LoadBytes(LoadStep::kRows);
        }
        return Error::kOk;
    }
    static LoadRows some_rows(std::uint32_t count, std::uint64_t seed) {
        return make_load_rows(load_schema("t", false), count, seed);
    }
    static LoadRows last_row() {
        LoadRows row = some_rows(1, 9);
        auto only = row.extract(row.begin());
        std::fill(only.key().begin(), only.key().end(), std::byte{255});
        row.insert(std::move(only));
        return row;
    }
    std::size_t said(const std::string& words) {
        const auto& lines = store_.log_lines;
        return static_cast<std::size_t>(std::count_if(
            lines.begin(), lines.end(),
            [&](const std::string& line) { return line.find(words) != std::string::npos; }));
    }
    void expect_sound() {
        settle();
        store_.run_until(
            [&] { return unused_pages() == space().available() + space().quarantined(); });
        EXPECT_EQ(unused_pages(), space().available() + space().quarantined());
        EXPECT_EQ(store_.verify(), "");
    }

    TableId table_;
    CompactionRows rows_;
};

// Every other one was told kBusy for as long as its process was there.
TEST_F(SilentClient, AStoppedCompactionMakesWayForAnotherOne) {
    fill();
    CompactClient stopped(store_.connect(), 1);
    compact_in_part(stopped);
    wait_minutes(9);
    CompactClient early(*client_);
    EXPECT_EQ(run(early), Error::kBusy);
    wait_minutes(2);
    CompactClient second(*client_, 1);
    ASSERT_NO_FATAL_FAILURE(compact_in_part(second));
    // It goes on, and the second one's turn stays the second one's.
    EXPECT_EQ(run(stopped), Error::kTimedOut);
    EXPECT_GT(space().closed_chunks(), 0u);
    EXPECT_EQ(run(second), Error::kOk);
    EXPECT_EQ(second.state(), CompactState::kDone);
    EXPECT_EQ(said("compaction is given up"), 1u);
    EXPECT_TRUE(store_.rows(table_) == rows_);
    expect_sound();
}

TEST_F(SilentClient, WhoWasToldMayCompactAnew) {
    fill();
    SimClient& admin = store_.connect();
    CompactClient stopped(admin, 1);
    compact_in_part(stopped);
    wait_minutes(11);
    CompactClient second(*client_);
    ASSERT_EQ(run(second), Error::kOk);
    ASSERT_EQ(run(stopped), Error::kTimedOut);
    CompactClient again(admin);
    EXPECT_EQ(run(again), Error::kOk);
    EXPECT_EQ(again.state(), CompactState::kDone);
}

TEST_F(SilentClient, ACompactionThatIsInNobodysWayGoesOn) {
    fill();
    CompactClient paused(store_.connect(), 1);
    compact_in_part(paused);
    wait_minutes(30);
    EXPECT_GT(space().closed_chunks(), 0u);
    EXPECT_EQ(run(paused), Error::kOk);
    EXPECT_TRUE(store_.rows(table_) == rows_);
    expect_sound();
}

// Nobody compacts while the compaction is stopped: the load was given up for nothing.
TEST_F(SilentClient, AStoppedCompactionWaitsForNoLoad) {
    fill();
    CompactClient stopped(store_.connect(), 1);
    compact_in_part(stopped);
    SimClient& loader = store_.connect();
    ASSERT_EQ(begin(loader, "t"), Error::kOk);
    ASSERT_EQ(send(loader, some_rows(100, 1)), Error::kOk);
    wait_minutes(11);
    EXPECT_EQ(send(loader, last_row()), Error::kOk);
    EXPECT_EQ(step(loader, LoadBytes(LoadStep::kFinish, 101)).error, Error::kOk);
    EXPECT_EQ(run(stopped), Error::kOk);
    expect_sound();
}

TEST_F(SilentClient, AStoppedLoadMakesWayForAnotherOneOfItsName) {
    SimClient& stopped = store_.connect();
    ASSERT_EQ(begin(stopped, "t"), Error::kOk);
    ASSERT_EQ(send(stopped, some_rows(3'000, 1)), Error::kOk);
    wait_minutes(9);
    EXPECT_EQ(begin(*client_, "t"), Error::kBusy);
    wait_minutes(2);
    EXPECT_EQ(begin(*client_, "t"), Error::kOk);
    // It goes on, and does not get in between.
    EXPECT_EQ(send(stopped, last_row()), Error::kTimedOut);
    const LoadRows rows = some_rows(2'000, 2);
    EXPECT_EQ(send(*client_, rows), Error::kOk);
    EXPECT_EQ(step(stopped, LoadBytes(LoadStep::kFinish, 3'001)).error, Error::kTimedOut);
    ASSERT_EQ(step(*client_, LoadBytes(LoadStep::kFinish, rows.size())).error, Error::kOk);
    EXPECT_EQ(said("load of t is given up"), 1u);
    EXPECT_TRUE(store_.rows(table_named(store_, "t")->id) == rows);
    expect_sound();
}

// As one does that sorts its rows before it sends the first of them.
TEST_F(SilentClient, ALoadThatGivesSignsOfLifeStays) {
    for (const bool variable : {false, true}) {
        SCOPED_TRACE(variable ? "values of any length" : "fixed rows");
        const Schema schema = load_schema(variable ? "v" : "f", variable);
        SimClient& sorts = store_.connect();
        ASSERT_EQ(step(sorts, LoadBytes::begin(schema)).error, Error::kOk);
        for (int i = 0; i < 10; ++i) {
            wait_minutes(3);
            EXPECT_EQ(step(sorts, LoadBytes(LoadStep::kRows)).error, Error::kOk);
            EXPECT_EQ(begin(*client_, schema.name()), Error::kBusy);
        }
        LoadBytes packed(LoadStep::kRows);
        const LoadRows rows = make_load_rows(schema, 50, 1);
        for (const auto& [key, value] : rows) packed.row(variable, key, value);
        EXPECT_EQ(step(sorts, packed).error, Error::kOk);
        EXPECT_EQ(step(sorts, LoadBytes(LoadStep::kRows)).error, Error::kOk);
        EXPECT_EQ(step(sorts, LoadBytes(LoadStep::kFinish, rows.size())).error, Error::kOk);
        EXPECT_TRUE(store_.rows(table_named(store_, schema.name())->id) == rows);
    }
    EXPECT_EQ(said("is given up"), 0u);
}

// It is told what became of the load, and outside of one it means nothing.
TEST_F(SilentClient, ASignOfLifeBeginsNothingAndSavesNothing) {
    SimClient& loader = store_.connect();
    EXPECT_EQ(step(loader, LoadBytes(LoadStep::kRows)).error, Error::kInvalid);
    ASSERT_EQ(begin(loader, "t"), Error::kOk);
    wait_minutes(11);
    ASSERT_EQ(begin(*client_, "t"), Error::kOk);
    EXPECT_EQ(step(loader, LoadBytes(LoadStep::kRows)).error, Error::kTimedOut);
}

// What was written for it is on its way still, and comes back to nobody before that.
TEST_F(SilentClient, ALoadWithWritesUnderWayStays) {
    fill();  // pages that are free without growth
    SimClient& loader = store_.connect();
    ASSERT_EQ(begin(loader, "t"), Error::kOk);
    store_.disk->hold_back(StoreFile::kData);
    ASSERT_EQ(send(loader, some_rows(3'000, 1)), Error::kOk);
    wait_minutes(11);
    ASSERT_TRUE(load_of(loader).waits_for_rows());
    ASSERT_FALSE(load_of(loader).quiet());
    EXPECT_EQ(begin(*client_, "t"), Error::kBusy);
    store_.disk->release();
    EXPECT_EQ(send(loader, last_row()), Error::kOk);
    EXPECT_EQ(step(loader, LoadBytes(LoadStep::kFinish, 3'001)).error, Error::kOk);
    expect_sound();
}

// Its client has sent what there was room for, and was not let go on for eleven minutes.
TEST_F(SilentClient, ALoadThatTheDeviceHeldUpIsNotSilent) {
    SimClient& loader = store_.connect();
    ASSERT_EQ(begin(loader, "t"), Error::kOk);
    store_.disk->hold_back(StoreFile::kData);
    const LoadRows rows = some_rows(20'000, 1);
    auto next = rows.begin();
    std::uint32_t sent = 0;
    while (load_of(loader).ready()) {
        LoadBytes packed(LoadStep::kRows);
        for (; next != rows.end() && packed.size() < 20'000; ++next, ++sent) {
            packed.row(false, next->first, next->second);
        }
        ASSERT_NE(next, rows.end());
        ASSERT_EQ(step(loader, packed).error, Error::kOk);
        for (int round = 0; round < 5; ++round) store_.round();
    }
    wait_minutes(11);
    store_.disk->release();
    ASSERT_TRUE(store_.run_until([&] { return load_of(loader).quiet(); }));
    ASSERT_TRUE(load_of(loader).waits_for_rows());
    EXPECT_EQ(begin(*client_, "t"), Error::kBusy);
    EXPECT_EQ(send(loader, last_row()), Error::kOk);
    EXPECT_EQ(step(loader, LoadBytes(LoadStep::kFinish, sent + 1)).error, Error::kOk);
    expect_sound();
}

// The daemon and all of its clients were frozen, and the clock went on: whose next step comes first
// after that says nothing about the others.
TEST_F(SilentClient, TimeInWhichTheEngineStoodStillIsNobodysSilence) {
    fill();
    SimClient& loader = store_.connect();
    ASSERT_EQ(begin(loader, "t"), Error::kOk);
    ASSERT_EQ(send(loader, some_rows(1'000, 1)), Error::kOk);
    wait_minutes(1);
    store_.clock.advance_ns(660'000'000'000);
    EXPECT_EQ(begin(*client_, "t"), Error::kBusy);
    EXPECT_EQ(send(loader, last_row()), Error::kOk);
    EXPECT_EQ(step(loader, LoadBytes(LoadStep::kFinish, 1'001)).error, Error::kOk);

    CompactClient frozen(store_.connect(), 1);
    compact_in_part(frozen);
    store_.clock.advance_ns(660'000'000'000);
    CompactClient second(*client_);
    EXPECT_EQ(run(second), Error::kBusy);
    // From there on time counts as ever.
    wait_minutes(11);
    CompactClient third(*client_);
    EXPECT_EQ(run(third), Error::kOk);
    EXPECT_EQ(run(frozen), Error::kTimedOut);
    expect_sound();
}

// The round took its time before, and looks at the clock in the middle.
TEST_F(SilentClient, NorIsItWhenARoundWasUnderWay) {
    SimClient& frozen = store_.connect();
    SimClient& other = store_.connect();
    ASSERT_EQ(begin(frozen, "t"), Error::kOk);
    ASSERT_EQ(begin(other, "u"), Error::kOk);
    bool stands_still = false;
    store_.disk->observe([&](std::uint64_t, SimStep kind) {
        if (!stands_still || kind != SimStep::kSubmitWrite) return;
        stands_still = false;
        store_.clock.advance_ns(660'000'000'000);
    });
    LoadRows rows = some_rows(3'000, 1);
    while (!rows.empty()) {
        LoadRows next;
        while (!rows.empty() && next.size() < 60) next.insert(rows.extract(rows.begin()));
        ASSERT_EQ(send(other, next), Error::kOk);
        stands_still = true;  // where it writes pages of the other load
        EXPECT_EQ(begin(*client_, "t"), Error::kBusy);
    }
    EXPECT_EQ(send(frozen, last_row()), Error::kOk);
}

// Its client may be stopped for days.
TEST_F(SilentClient, ALoadThatWasGivenUpKeepsNoBuffers) {
    SimClient& stopped = store_.connect();
    ASSERT_EQ(begin(stopped, "t"), Error::kOk);
    ASSERT_EQ(send(stopped, some_rows(3'000, 1)), Error::kOk);
    wait_minutes(11);
    EXPECT_TRUE(load_of(stopped).has_buffers());
    ASSERT_EQ(begin(*client_, "t"), Error::kOk);
    wait_minutes(1);
    EXPECT_FALSE(load_of(stopped).has_buffers());
    EXPECT_TRUE(load_of(*client_).has_buffers());
    EXPECT_EQ(send(stopped, last_row()), Error::kTimedOut);
}

// One that would be refused for its own sake is in want of nothing.
TEST_F(SilentClient, AStoppedLoadStaysForOneThatCannotBegin) {
    SimClient& stopped = store_.connect();
    store_.create_table(*client_, load_schema("t", false));
    ASSERT_EQ(begin(stopped, "t"), Error::kOk);
    wait_minutes(11);
    EXPECT_EQ(step(LoadBytes::begin(load_schema("t", true))).error, Error::kSchemaMismatch);
    EXPECT_EQ(send(stopped, last_row()), Error::kOk);
}

// The one that has been silent for longest makes way, not the others; and one that is over, whose
// client is stopped and never told, takes no place.
TEST_F(SilentClient, AsManyStoppedLoadsAsThereMayBeMakeWayOneByOne) {
    std::vector<SimClient*> stopped;
    for (const char* name : {"a", "b", "c", "d"}) {
        stopped.push_back(&store_.connect());
        ASSERT_EQ(begin(*stopped.back(), name), Error::kOk);
        ASSERT_EQ(send(*stopped.back(), some_rows(200, 1)), Error::kOk);
        wait_minutes(1);
    }
    wait_minutes(5);
    EXPECT_EQ(begin(*client_, "e"), Error::kBusy);
    wait_minutes(5);
    for (const char* name : {"e", "f"}) EXPECT_EQ(begin(store_.connect(), name), Error::kOk);
    EXPECT_EQ(send(*stopped[2], last_row()), Error::kOk);
    EXPECT_EQ(begin(store_.connect(), "g"), Error::kOk);  // for d
    EXPECT_EQ(begin(store_.connect(), "h"), Error::kBusy);
    EXPECT_EQ(step(*stopped[2], LoadBytes(LoadStep::kFinish, 201)).error, Error::kOk);
    EXPECT_EQ(begin(store_.connect(), "h"), Error::kOk);
    for (const std::size_t i : {0u, 1u, 3u}) {
        EXPECT_EQ(send(*stopped[i], last_row()), Error::kTimedOut);
    }
    EXPECT_EQ(said("is given up"), 3u);
    ASSERT_NE(table_named(store_, "c"), nullptr);
    EXPECT_EQ(store_.verify(), "");
}

class SilentInAFullFile : public SilentClient {
  protected:
    static SimDiskOptions disk() {
        SimDiskOptions options;
        options.capacity_bytes = (3u << 20) + (4u << 20) + 3 * kChunkBytes;  // 1,530 pages
        return options;
    }
    SilentInAFullFile() : SilentClient(disk()) {}

    SimClient& load_and_stop(std::uint32_t rows) {
        SimClient& stopped = store_.connect();
        EXPECT_EQ(begin(stopped, "stopped"), Error::kOk);
        EXPECT_EQ(send(stopped, some_rows(rows, 1)), Error::kOk);
        return stopped;
    }
    EngineMode mode() { return store_.pool->header().engine.mode.load(); }
};

// The mode stayed kServing, and so the pages reserved.
TEST_F(SilentInAFullFile, AStoppedLoadMakesWayForOneThatFindsNoRoom) {
    SimClient& stopped = load_and_stop(8'000);  // 572 pages
    const Schema schema = load_schema("t", false);
    const LoadRows rows = some_rows(15'000, 2);  // 1,072
    SimClient& early = store_.connect();
    EXPECT_EQ(run_load(store_, early, schema, rows), Error::kNoSpace);
    store_.disconnect(early);
    wait_minutes(11);
    EXPECT_EQ(mode(), EngineMode::kServing);
    ASSERT_EQ(run_load(store_, *client_, schema, rows), Error::kOk);
    EXPECT_EQ(send(stopped, last_row()), Error::kTimedOut);
    EXPECT_TRUE(store_.rows(table_named(store_, "t")->id) == rows);
    expect_sound();
}

// It was told kNoSpace, for a row that is larger than what a load leaves; all others were served.
TEST_F(SilentInAFullFile, AStoppedLoadMakesWayForAWriterThatFindsNoRoom) {
    const TableId table = store_.create_table(*client_, value_schema());
    SimClient& stopped = load_and_stop(14'000);  // 1,000 pages
    SimClient& writer = store_.connect(Rights::kWriter);
    const auto put = [&](std::uint32_t id, std::size_t length) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, row_key(id), wide_row(id, 1, length));
        return store_.commit(writer, bytes).error;
    };
    for (std::uint32_t id = 0; space().in_reach() > 130; ++id) {
        ASSERT_EQ(put(id, 40'000), Error::kOk);
        ASSERT_LT(id, 100u);
    }
    EXPECT_EQ(put(100, 450'000), Error::kNoSpace);  // 110 pages, and some are left behind
    EXPECT_EQ(mode(), EngineMode::kServing);
    EXPECT_EQ(send(stopped, last_row()), Error::kOk);
    wait_minutes(11);
    EXPECT_EQ(put(100, 450'000), Error::kOk);
    EXPECT_EQ(step(stopped, LoadBytes(LoadStep::kFinish, 14'001)).error, Error::kTimedOut);
    expect_sound();
}

// Nobody tries any more, once the store says that it takes no writes.
TEST_F(SilentInAFullFile, AStoppedLoadMakesWayForAStoreThatIsReadOnly) {
    const TableId table = store_.create_table(*client_, value_schema());
    SimClient& stopped = load_and_stop(14'000);  // 1,000 pages
    SimClient& writer = store_.connect(Rights::kWriter);
    const auto put = [&](std::uint32_t id) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, row_key(id), wide_row(id, 1, 40'000));
        return store_.commit(writer, bytes).error;
    };
    std::uint32_t id = 0;
    while (put(id) == Error::kOk) ASSERT_LT(++id, 100u);
    ASSERT_EQ(mode(), EngineMode::kReadOnly);
    wait_minutes(9);
    EXPECT_EQ(mode(), EngineMode::kReadOnly);
    wait_minutes(2);
    EXPECT_EQ(mode(), EngineMode::kServing);
    EXPECT_EQ(said("load of stopped is given up"), 1u);
    EXPECT_EQ(put(id), Error::kOk);
    EXPECT_EQ(send(stopped, last_row()), Error::kTimedOut);
    expect_sound();
}

// Pages that it has none of are no help.
TEST_F(SilentInAFullFile, AStoppedLoadWithoutPagesIsNotInTheWayOfWriters) {
    SimClient& stopped = load_and_stop(0);
    wait_minutes(11);
    EXPECT_EQ(run_load(store_, *client_, load_schema("t", false), some_rows(25'000, 2)),
              Error::kNoSpace);
    EXPECT_EQ(send(stopped, last_row()), Error::kOk);
}

}  // namespace
}  // namespace bidstore
