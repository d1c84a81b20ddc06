// The engine on the simulated disk: operations, transactions, sessions, restarts.
#include "engine/engine.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <cstring>
#include <limits>

#include "engine/superblock.h"
#include "shm/doorbell.h"
#include "shm/reader_slot.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

Schema users_schema() {
    auto schema = Schema::make("users",
                               {{"id", ColumnType::kU64, 0},
                                {"wins", ColumnType::kI32, 0},
                                {"seen", ColumnType::kTimestamp, 0},
                                {"host", ColumnType::kText, 0}},
                               1, 2);
    EXPECT_TRUE(schema.ok());
    return *schema;
}

std::vector<std::byte> key_of(std::uint64_t id) {
    std::vector<std::byte> key(8);
    encode_key_integer(key.data(), id, 8, false);
    return key;
}

std::vector<std::byte> row_of(const Schema& schema, std::uint64_t id, std::int64_t wins,
                              const std::string& host) {
    RowBuilder builder(schema);
    EXPECT_TRUE(builder.set_unsigned(0, id).ok());
    EXPECT_TRUE(builder.set_signed(1, wins).ok());
    EXPECT_TRUE(builder.set_unsigned(2, 1000 + id).ok());
    EXPECT_TRUE(builder.set_bytes(3, std::as_bytes(std::span(host.data(), host.size()))).ok());
    const auto value = builder.value();
    EXPECT_TRUE(value.ok());
    return {value->begin(), value->end()};
}

class EngineTest : public ::testing::Test {
  protected:
    void start(SimStoreOptions options = small_store(), std::uint64_t seed = 1) {
        options_ = options;
        SimDiskOptions disk_options;
        disk_options.seed = seed;
        store = std::make_unique<SimStore>(options, std::make_unique<SimDisk>(disk_options), seed);
        const Status opened = store->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        client = &store->connect();
        users = store->create_table(*client, users_schema());
    }
    // A new process on what the disk holds; `power` cuts it first. The wall clock may have stepped.
    void restart(bool power, std::uint64_t wall_step_us = 0) {
        auto next = power ? store->disk->power_loss(99) : store->disk->process_crash(99);
        const std::uint64_t now = store->clock.monotonic_ns();
        store = std::make_unique<SimStore>(options_, std::move(next), 77);
        store->clock.advance_ns(now);
        store->clock.set_wall_us(store->clock.wall_us() + wall_step_us);
        const Status opened = store->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        client = &store->connect();
    }
    Error put(std::uint64_t id, std::int64_t wins, const std::string& host = "a.example") {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, users, key_of(id),
                        row_of(users_schema(), id, wins, host));
        return store->commit(*client, bytes).error;
    }
    TransactionBytes adds_one() const {
        AddBody plus{};
        plus.column = 1;
        plus.delta = 1;
        return TransactionBytes().add(users, key_of(1), plus, kWantResult | kCreate);
    }
    Answer add(std::uint64_t id, std::int64_t delta, std::uint8_t flags = kWantResult,
               std::optional<std::int64_t> floor = std::nullopt) {
        AddBody body{};
        body.column = 1;
        body.delta = delta;
        body.has_floor = floor.has_value();
        body.floor = floor.value_or(0);
        TransactionBytes bytes;
        bytes.add(users, key_of(id), body, flags);
        return store->commit(*client, bytes);
    }
    // A client of another user asks for a session that is not its own.
    void expect_denied(std::uint64_t client_id, SessionId session) {
        SimClient thief(client_id, 200, session, Rights::kWriter);
        ClientCommand command = thief.attach_command();
        command.uid = 4711;
        store->clients.commands.push_back(command);
        ASSERT_TRUE(
            store->run_until([&] { return store->clients.attach_answers.contains(client_id); }));
        EXPECT_EQ(store->clients.attach_answers.at(client_id).first, Error::kDenied);
    }

    SimStoreOptions options_;
    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
    TableId users;
};

TEST_F(EngineTest, RowsOutliveACleanStopAndAPowerLoss) {
    start();
    for (std::uint64_t id = 0; id < 500; ++id) ASSERT_EQ(put(id, 1), Error::kOk);
    const auto before = store->rows(users);
    EXPECT_EQ(before.size(), 500u);
    EXPECT_EQ(store->verify(), "");
    restart(true);
    EXPECT_EQ(store->rows(users), before);
    EXPECT_EQ(store->verify(), "");
    EXPECT_GT(store->engine->recovery().batches, 0u);
    ASSERT_TRUE(store->stop());
    restart(false);
    EXPECT_TRUE(store->engine->recovery().clean);
    EXPECT_EQ(store->rows(users), before);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(EngineTest, EachOperationRefusesWhatItShould) {
    start();
    const Schema schema = users_schema();
    ASSERT_EQ(put(1, 5), Error::kOk);
    TransactionBytes insert;
    insert.operation(OperationKind::kInsert, users, key_of(1), row_of(schema, 1, 0, ""));
    EXPECT_EQ(store->commit(*client, insert).error, Error::kExists);
    TransactionBytes erase;
    erase.operation(OperationKind::kDelete, users, key_of(2), {});
    EXPECT_EQ(store->commit(*client, erase).error, Error::kNotFound);
    TransactionBytes erase_if;
    erase_if.operation(OperationKind::kDelete, users, key_of(2), {}, kIfPresent);
    EXPECT_EQ(store->commit(*client, erase_if).error, Error::kOk);
    EXPECT_EQ(add(2, 1).error, Error::kNotFound);
    EXPECT_EQ(add(1, -6, kWantResult, 0).error, Error::kBelowFloor);
    EXPECT_EQ(add(1, std::numeric_limits<std::int32_t>::max()).error, Error::kOutOfRange);
    const Answer added = add(1, -5, kWantResult, 0);
    EXPECT_EQ(added.error, Error::kOk);
    ASSERT_EQ(added.result_count, 1u);
    EXPECT_EQ(added.result[0], 0);
    const Answer created = add(7, 3, kWantResult | kCreate);
    EXPECT_EQ(created.error, Error::kOk);
    EXPECT_EQ(created.result[0], 3);
    TransactionBytes absent;
    absent.operation(OperationKind::kCheckAbsent, users, key_of(1), {});
    EXPECT_EQ(store->commit(*client, absent).error, Error::kPrecondition);
    TransactionBytes no_table;
    no_table.operation(OperationKind::kPut, TableId{999}, key_of(1), {});
    EXPECT_EQ(store->commit(*client, no_table).error, Error::kNoSuchTable);
    TransactionBytes system_table;
    system_table.operation(OperationKind::kDelete, TableId{1}, key_of(1), {});
    EXPECT_EQ(store->commit(*client, system_table).error, Error::kDenied);
    TransactionBytes bad_row;
    bad_row.operation(OperationKind::kPut, users, key_of(1), key_of(1));
    EXPECT_EQ(store->commit(*client, bad_row).error, Error::kInvalid);
}

TEST_F(EngineTest, TransactionIsAllOrNothingAndSeesItself) {
    start();
    const Schema schema = users_schema();
    AddBody plus{};
    plus.column = 1;
    plus.delta = 2;
    TransactionBytes both;
    both.operation(OperationKind::kInsert, users, key_of(1), row_of(schema, 1, 10, "x"));
    both.add(users, key_of(1), plus);
    both.operation(OperationKind::kDelete, users, key_of(1), {});
    both.operation(OperationKind::kCheckAbsent, users, key_of(1), {});
    both.operation(OperationKind::kInsert, users, key_of(1), row_of(schema, 1, 20, "y"));
    both.add(users, key_of(1), plus);
    const Answer answer = store->commit(*client, both);
    ASSERT_EQ(answer.error, Error::kOk) << answer.failed_operation;
    ASSERT_EQ(answer.result_count, 2u);
    EXPECT_EQ(answer.result[0], 12);
    EXPECT_EQ(answer.result[1], 22);
    const auto before = store->rows(users);
    TransactionBytes half;
    half.operation(OperationKind::kPut, users, key_of(2), row_of(schema, 2, 1, "z"));
    half.operation(OperationKind::kInsert, users, key_of(1), row_of(schema, 1, 1, "z"));
    const Answer refused = store->commit(*client, half);
    EXPECT_EQ(refused.error, Error::kExists);
    EXPECT_EQ(refused.failed_operation, 1u);
    EXPECT_EQ(store->rows(users), before);
}

TEST_F(EngineTest, RangeDeletesReturnTheirCountAndGiveSpaceBack) {
    start();
    for (std::uint64_t id = 0; id < 2000; ++id) ASSERT_EQ(put(id, 1), Error::kOk);
    TransactionBytes range;
    range.operation(OperationKind::kDeleteRange, users, key_of(100), key_of(1900), kWantResult);
    const Answer answer = store->commit(*client, range);
    ASSERT_EQ(answer.error, Error::kOk);
    EXPECT_EQ(answer.result[0], 1800);
    EXPECT_EQ(store->rows(users).size(), 200u);
    EXPECT_EQ(store->verify(), "");
    restart(true);
    EXPECT_EQ(store->rows(users).size(), 200u);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(EngineTest, WriteSentAgainAfterACrashIsAppliedOnce) {
    start();
    SessionId session;
    session.bytes[0] = 42;
    SimClient* writer = &store->connect(Rights::kWriter, session);
    const TransactionBytes add_one = adds_one();
    ASSERT_EQ(store->commit(*writer, add_one).error, Error::kOk);
    TransactionBytes refused;
    refused.operation(OperationKind::kCheckPresent, users, key_of(999), {});
    // Two more in one batch; the answers never arrive.
    const auto second = writer->submit(refused.bytes());
    const auto third = writer->submit(add_one.bytes());
    ASSERT_TRUE(second && third);
    ASSERT_TRUE(store->run_until([&] { return writer->answer(*third).has_value(); }));
    restart(true);
    writer = &store->connect(Rights::kWriter, session);
    EXPECT_EQ(writer->last_number(), 3u);
    // As if only the first answer had come: 2 and 3 are sent again.
    SimClient* again = writer;
    init_ring(again->segment().ring_control(), 1);
    again->welcomed(1);
    again->set_decided_below(2);
    EXPECT_EQ(store->commit(*again, refused).error, Error::kPrecondition);
    EXPECT_EQ(store->commit(*again, add_one).error, Error::kOk);
    const auto rows = store->rows(users);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(column_integer(users_schema(), 1, nullptr, rows.begin()->second), 2u);
}

// The clock of the host was behind, and stepped over a session's age before the daemon was back:
// the session was forgotten in the first rounds, before its client could come, and the write that
// it sent again was applied again.
TEST_F(EngineTest, SessionOutlivesAStepOfTheWallClockUntilItsClientCanBeBack) {
    start();
    SessionId session;
    session.bytes[0] = 42;
    SimClient* writer = &store->connect(Rights::kWriter, session);
    const TransactionBytes add_one = adds_one();
    ASSERT_EQ(store->commit(*writer, add_one).error, Error::kOk);
    const std::uint64_t eight_days_us = 8ull * 86'400'000'000;
    restart(true, eight_days_us);
    store->run_until([] { return false; }, 200);
    writer = &store->connect(Rights::kWriter, session);
    EXPECT_EQ(writer->last_number(), 1u);
    init_ring(writer->segment().ring_control(), 0);
    writer->welcomed(0);
    EXPECT_EQ(store->commit(*writer, add_one).error, Error::kOk);
    EXPECT_EQ(column_integer(users_schema(), 1, nullptr, store->rows(users).begin()->second), 1u);
    // It stays while its client is there, and goes when nobody came in ten minutes.
    const auto pass = [&] {
        store->clock.set_wall_us(store->clock.wall_us() + eight_days_us);
        for (int i = 0; i < 2; ++i) {
            store->clock.advance_ns(601'000'000'000);
            store->run_until([] { return false; }, 200);
        }
    };
    pass();
    store->disconnect(*writer);
    writer = &store->connect(Rights::kWriter, session);
    EXPECT_EQ(writer->last_number(), 1u);
    store->disconnect(*writer);
    pass();
    writer = &store->connect(Rights::kWriter, session);
    EXPECT_EQ(writer->last_number(), 0u);
}

// A session forgot refusals beyond its 448th, which a client with more call slots got to hear as
// "applied" when it sent them again after a crash.
TEST_F(EngineTest, EveryRefusedWriteOfAFullWindowIsRefusedAgainAfterACrash) {
    start();
    SessionId session;
    session.bytes[0] = 43;
    SimClient* writer = &store->connect(Rights::kWriter, session, 1024);
    const TransactionBytes add_one = adds_one();
    TransactionBytes refused;  // by its second operation
    refused.operation(OperationKind::kCheckAbsent, users, key_of(998), {});
    refused.operation(OperationKind::kCheckPresent, users, key_of(999), {});
    // No answer is confirmed: all but the last are refused, and the last, applied, stores that.
    const auto send_all = [&] {
        writer->set_decided_below(1);
        std::vector<std::uint32_t> tokens;
        for (std::uint32_t i = 1; i < kUndecidedWritesMax; ++i) {
            const auto token = writer->submit(refused.bytes());
            ASSERT_TRUE(token.has_value()) << i;
            tokens.push_back(*token);
        }
        tokens.push_back(writer->submit(add_one.bytes()).value());
        for (std::uint32_t i = 0; i < tokens.size(); ++i) {
            std::optional<Answer> answer;
            ASSERT_TRUE(
                store->run_until([&] { return (answer = writer->answer(tokens[i])).has_value(); }));
            const bool last = i + 1 == tokens.size();
            ASSERT_EQ(answer->error, last ? Error::kOk : Error::kPrecondition) << i;
            ASSERT_EQ(answer->failed_operation, last ? kNoOperation : 1u) << i;
        }
    };
    send_all();
    restart(true);
    writer = &store->connect(Rights::kWriter, session, 1024);
    ASSERT_EQ(writer->last_number(), kUndecidedWritesMax);
    init_ring(writer->segment().ring_control(), 0);
    writer->welcomed(0);
    send_all();
    EXPECT_EQ(column_integer(users_schema(), 1, nullptr, store->rows(users).begin()->second), 1u);
    // Further than the row reaches: only once answers are confirmed.
    writer->submit(refused.bytes());
    ASSERT_TRUE(
        store->run_until([&] { return store->clients.cut_off_clients.contains(writer->id()); }));
}

TEST_F(EngineTest, DroppedTableGivesItsPagesBackAndItsIdIsNotUsedAgain) {
    start();
    for (std::uint64_t id = 0; id < 1000; ++id) ASSERT_EQ(put(id, 1), Error::kOk);
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, users, {}, {});
    ASSERT_EQ(store->commit(*client, drop).error, Error::kOk);
    EXPECT_EQ(put(1, 1), Error::kNoSuchTable);
    ASSERT_TRUE(store->run_until(
        [&] { return store->engine->core().storage().catalog->dropping().empty(); }));
    EXPECT_EQ(store->verify(), "");
    const TableId again = store->create_table(*client, users_schema());
    EXPECT_GT(again.value, users.value);
    restart(true);
    EXPECT_EQ(store->verify(), "");
    users = again;
    EXPECT_EQ(put(1, 1), Error::kOk);
}

TEST_F(EngineTest, SmallPoolServesADataSetLargerThanItself) {
    SimStoreOptions options = small_store();
    options.frames = 400;
    start(options, 3);
    const std::string host(300, 'h');
    for (std::uint64_t id = 0; id < 6000; ++id) {
        ASSERT_EQ(put(id * 7919 % 6000, 1, host), Error::kOk) << id;
    }
    EXPECT_GT(store->engine->core().storage().space.chunk_count(), 1u);
    std::uint64_t seen = 0;
    for (std::uint64_t id = 0; id < 6000; ++id) {
        const Answer answer = add(id, 1);
        ASSERT_EQ(answer.error, Error::kOk) << id;
        seen += static_cast<std::uint64_t>(answer.result[0]);
    }
    EXPECT_EQ(seen, 12'000u);
    store->engine->core().storage().pool.check_invariants();
    ASSERT_TRUE(store->stop());
    EXPECT_EQ(store->verify(), "");
}

TEST_F(EngineTest, LogIsRecycledOverManyLaps) {
    start();
    const std::string host(800, 'h');
    for (std::uint64_t i = 0; i < 8000; ++i) ASSERT_EQ(put(i % 50, 1, host), Error::kOk) << i;
    EXPECT_GT(store->engine->core().commit().published_end().position, 3u * (3u << 20));
    const auto before = store->rows(users);
    restart(true);
    EXPECT_EQ(store->rows(users), before);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(EngineTest, FullFileRefusesWritesAndServesAgainWhenThereIsRoom) {
    SimStoreOptions options = small_store();
    options.pages = 2 * 512;
    start(options, 5);
    const std::string host(3000, 'h');
    std::uint64_t id = 0;
    Error error = Error::kOk;
    for (; id < 3000 && error == Error::kOk; ++id) error = put(id, 1, host);
    ASSERT_EQ(error, Error::kNoSpace);
    const auto rows = store->rows(users);
    EXPECT_EQ(rows.size(), id - 1);
    TransactionBytes range;
    range.operation(OperationKind::kDeleteRange, users, key_of(0), key_of(100), kWantResult);
    Answer freed = store->commit(*client, range);
    store->clock.advance_ns(2'000'000'000);
    if (freed.error != Error::kOk) freed = store->commit(*client, range);
    EXPECT_EQ(freed.error, Error::kOk);
    store->clock.advance_ns(40'000'000'000);
    store->run_until([] { return false; }, 2000);
    EXPECT_EQ(put(id, 1, host), Error::kOk);
    EXPECT_EQ(store->verify(), "");
}

TEST_F(EngineTest, FailedLogWriteFencesAndAnswersUnknown) {
    start();
    ASSERT_EQ(put(1, 1), Error::kOk);
    store->disk->observe([this](std::uint64_t step, SimStep kind) {
        if (kind == SimStep::kSubmitWrite) store->disk->fail_at(step, EIO);
    });
    EXPECT_EQ(put(2, 1), Error::kUnknownOutcome);
    EXPECT_EQ(store->round(), EngineRound::kFenced);
    EXPECT_NE(store->engine->fence_reason().find("log"), std::string::npos);
    restart(false);
    EXPECT_GE(store->rows(users).size(), 1u);
    EXPECT_EQ(store->verify(), "");
}

// What came in the round that learned of the failure was refused with what only the lost batch
// said.
TEST_F(EngineTest, NothingOfABatchThatFailedIsAnsweredInTheSameRound) {
    start();
    ASSERT_EQ(put(1, 1), Error::kOk);
    store->disk->hold_back(StoreFile::kLog);
    const auto row = row_of(users_schema(), 2, 1, "a.example");
    TransactionBytes relaxed(Durability::kRelaxed);
    relaxed.operation(OperationKind::kInsert, users, key_of(2), row);
    TransactionBytes durable;
    durable.operation(OperationKind::kInsert, users, key_of(2), row);
    const auto lost = client->submit(durable.bytes());
    ASSERT_TRUE(store->run_until([&] { return store->engine->core().commit().in_flight(); }));
    std::vector<std::optional<std::uint32_t>> tokens{lost};
    store->disk->observe([&](std::uint64_t step, SimStep kind) {
        if (kind != SimStep::kComplete) return;
        store->disk->fail_at(step, EIO);
        for (const auto& late : {durable, relaxed}) tokens.push_back(client->submit(late.bytes()));
    });
    store->disk->release();
    while (store->engine->fence_reason().empty()) store->round();
    ASSERT_EQ(tokens.size(), 3u);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        ASSERT_TRUE(tokens[i]);
        const auto answer = client->answer(*tokens[i]);
        // What came late is not taken any more.
        EXPECT_EQ(answer.has_value(), i == 0);
        if (answer) {
            EXPECT_EQ(answer->error, Error::kUnknownOutcome);
        }
    }
}

// The log's failure may be that of the checkpoint's writes, which the same completions call well.
TEST_F(EngineTest, NothingIsWrittenBehindAFailureInTheSameRound) {
    SimStoreOptions options = small_store();
    options.engine.checkpoint_interval_ns = 1'000'000;
    options.engine.checkpoint_slice = 1;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        start(options, seed);
        bool failed = false;
        std::uint64_t behind = 0;
        store->disk->observe([&](std::uint64_t step, SimStep kind) {
            const bool running = store->engine->core().storage().checkpointer->running();
            if (kind == SimStep::kComplete && !failed && running &&
                store->engine->core().commit().in_flight()) {
                failed = true;
                store->disk->fail_at(step, EIO);
            }
            behind += failed && kind == SimStep::kSubmitWrite;
        });
        std::uint64_t id = 0;
        while (store->engine->fence_reason().empty() && id < 2'000) put(++id % 64, 1);
        EXPECT_TRUE(failed) << seed;
        EXPECT_EQ(behind, 0u) << seed;
    }
}

// Requests and buffers of an engine that is destroyed are freed, and the device goes on.
TEST_F(EngineTest, EndsWhenTheDeviceIsDone) {
    SimStoreOptions options = small_store();
    options.engine.checkpoint_interval_ns = 1'000'000;
    options.engine.checkpoint_slice = 1;
    start(options);
    for (std::uint64_t id = 0; id < 500; ++id) ASSERT_EQ(put(id, 1), Error::kOk);
    ASSERT_TRUE(store->run_until([&] { return store->disk->in_flight() > 2; }));
    Engine::end(std::move(store->engine));
    EXPECT_EQ(store->disk->in_flight(), 0u);
}

// A leaf that was split, or lost its dead rows, by one operation was emptied by the next, and the
// leaf beside it, which takes its keys over, was not in the pool: the daemon died, again and again.
TEST_F(EngineTest, ALeafThatATransactionSplitsAndEmptiesHasItsNeighbourInThePool) {
    start();
    auto schema =
        Schema::make("rows", {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 280}}, 1);
    const TableId rows = store->create_table(*client, *schema);
    const auto key = [](std::uint32_t id) {
        std::vector<std::byte> bytes(4);
        encode_key_integer(bytes.data(), id, 4, false);
        return bytes;
    };
    const std::vector<std::byte> row(280, std::byte{7});
    const auto commit = [&](std::initializer_list<std::pair<OperationKind, std::uint32_t>> what) {
        TransactionBytes bytes;
        for (const auto& [kind, id] : what) {
            const bool put = kind == OperationKind::kPut;
            bytes.operation(kind, rows, key(id), put ? row : std::vector<std::byte>{});
        }
        return store->commit(*client, bytes).error;
    };
    for (std::uint32_t id = 1; id <= 120; ++id) {
        ASSERT_EQ(commit({{OperationKind::kPut, 10 * id}}), Error::kOk);
    }
    const auto leaf_of = [&](std::uint32_t id) {
        return store->engine->core().storage().catalog->find(rows)->tree.get(key(id).data()).leaf;
    };
    std::vector<std::uint32_t> firsts;
    for (std::uint32_t id = 2; id < 115; ++id) {
        if (leaf_of(10 * id) != leaf_of(10 * id - 10)) firsts.push_back(id);
    }
    ASSERT_GT(firsts.size(), 3u);
    // Before all other rows of a full leaf: the put has a leaf to itself then.
    for (const std::uint32_t id : firsts) {
        ASSERT_EQ(commit({{OperationKind::kDelete, 10 * id}}), Error::kOk);
        ASSERT_EQ(commit({{OperationKind::kPut, 10 * id + 15}}), Error::kOk);
        ASSERT_TRUE(store->stop());
        restart(false);  // with a pool that is empty
        const std::uint32_t alone = 10 * id + 1;
        ASSERT_EQ(commit({{OperationKind::kPut, alone},
                          {OperationKind::kDelete, alone},
                          {OperationKind::kPut, alone}}),
                  Error::kOk);
        ASSERT_EQ(commit({{OperationKind::kDelete, alone},
                          {OperationKind::kDelete, 10 * id + 15},
                          {OperationKind::kPut, 10 * id}}),
                  Error::kOk);
    }
    EXPECT_EQ(store->rows(rows).size(), 120u);
    EXPECT_EQ(store->verify(), "");
}

// The CRCs of directory pages that a checkpoint did not touch were taken for zeros after a restart,
// and the next start called the directory corrupt: with more than one directory page, that is.
TEST_F(EngineTest, DirectoryOfManyChunksSurvivesCheckpointsThatTouchOneGroup) {
    SimStoreOptions options = small_store();
    options.pages = 256 * 512;
    options.frames = 4096;
    start(options);
    Engine::Core& core = store->engine->core();
    ASSERT_TRUE(store->run_until([&] { return core.commit().open(); }));
    ASSERT_TRUE(core.storage().secure_space(130 * 512).ok());
    core.commit().touch();
    ASSERT_EQ(put(1, 1), Error::kOk);
    for (std::uint64_t life = 2; life < 5; ++life) {
        ASSERT_TRUE(store->stop());
        restart(false);
        ASSERT_GT(store->engine->core().storage().space.chunk_count(), 128u);
        ASSERT_EQ(put(life, 1), Error::kOk);
    }
    EXPECT_EQ(store->verify(), "");
}

// Replay asked for more free pages than serving had left, so a full store did not open any more.
TEST_F(EngineTest, FullStoreDeletesAndOpensAfterACrash) {
    SimStoreOptions options = small_store();
    options.pages = 512;
    options.frames = 4096;
    options.engine.log_segment_bytes = 4u << 20;
    start(options);
    const std::string host(3000, 'h');
    std::uint64_t id = 0;
    while (put(id, 1, host) == Error::kOk) ++id;
    TransactionBytes erase;
    erase.operation(OperationKind::kDelete, users, key_of(0), {});
    EXPECT_EQ(store->commit(*client, erase).error, Error::kOk);
    restart(true);
    EXPECT_EQ(store->rows(users).size(), id - 1);
    EXPECT_EQ(store->verify(), "");
}

// Pages that a running checkpoint makes known need a place in the next journal when they change
// meanwhile; they were not counted, and the next checkpoint found its journal too small.
TEST_F(EngineTest, PagesChangedDuringACheckpointFitTheNextJournal) {
    SimStoreOptions options = small_store();
    options.frames = 20'000;
    options.engine.log_segment_bytes = 8u << 20;
    options.engine.log_segment_count = 8;
    options.engine.journal_bytes = 2u << 20;
    options.engine.checkpoint_interval_ns = 3'600'000'000'000;
    start(options);
    const std::string host(3000, 'h');
    constexpr std::uint64_t kRows = 2000;
    for (std::uint64_t id = 0; id < kRows; ++id) ASSERT_EQ(put(id, 1, host), Error::kOk);
    Engine::Core& core = store->engine->core();
    const LogPoint end = core.commit().published_end();
    Checkpointer& checkpointer = *core.storage().checkpointer;
    const std::uint64_t finished = checkpointer.totals().finished;
    checkpointer.start({Csn{core.storage().pool.visible()}, end.position, 0, end.previous_crc,
                        core.commit().durable()});
    for (std::uint64_t id = 0; checkpointer.totals().finished == finished; ++id) {
        ASSERT_EQ(put(id % kRows, 2, host), Error::kOk);
    }
    EXPECT_LE(core.storage().space.known_changed(), checkpointer.journal_capacity());
    ASSERT_TRUE(store->stop());
    EXPECT_EQ(store->verify(), "");
}

// The log was reused as soon as the new superblock was on its way, not when it had arrived.
TEST_F(EngineTest, LogIsNotReusedBeforeTheSuperblockOnDiskAllowsIt) {
    SimStoreOptions options = small_store();
    options.frames = 20'000;
    start(options, 4);
    const std::string host(3000, 'h');
    std::vector<std::uint32_t> waiting;
    std::uint64_t id = 0;
    for (int round = 0; round < 1500; ++round) {
        while (waiting.size() < 30) {
            TransactionBytes bytes;
            for (int i = 0; i < 4; ++i, id = (id + 1) % 2000) {
                bytes.operation(OperationKind::kPut, users, key_of(id),
                                row_of(users_schema(), id, 1, host));
            }
            const auto token = client->submit(bytes.bytes());
            if (!token) break;
            waiting.push_back(*token);
        }
        store->round();
        std::erase_if(waiting, [&](auto token) { return client->answer(token).has_value(); });
        Superblock durable{};
        for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
            Superblock found{};
            const auto bytes = store->disk->peek(StoreFile::kData, copy * 4096ull, sizeof found);
            std::memcpy(&found, bytes.data(), sizeof found);
            if (superblock_valid(found) && found.sequence > durable.sequence) durable = found;
        }
        const Wal& wal = store->engine->core().commit().wal();
        ASSERT_LE(wal.end().position, wal.shape().limit(durable.log_position)) << round;
    }
}

// A client that was cut off may live on; no snapshot that it takes afterwards may look valid.
TEST_F(EngineTest, DetachedClientNeverHasAValidSnapshotAgain) {
    start();
    SimClient& other = store->connect(Rights::kReader);
    PoolSegment& pool = *store->pool;
    SlotOwner slot(other.segment().slots()[0], pool.header().published,
                   pool.revoked()[other.segment().first_slot()]);
    slot.begin();
    EXPECT_TRUE(slot.valid());
    slot.end();
    store->disconnect(other);
    for (int i = 0; i < 3; ++i) {
        slot.begin();
        EXPECT_FALSE(slot.valid());
        slot.end();
    }
}

// One transaction more than a batch takes aborted the daemon instead of waiting for the next batch.
TEST_F(EngineTest, MoreTransactionsThanABatchTakesWaitForTheNext) {
    SimStoreOptions options = small_store();
    options.frames = 20'000;
    options.engine.log_segment_bytes = 4u << 20;
    options.engine.journal_bytes = 32u << 20;
    start(options);
    const std::string host(3500, 'h');
    std::vector<std::uint32_t> waiting;
    std::uint64_t applied = 0;
    for (std::uint64_t id = 0; id < 2000 || !waiting.empty();) {
        while (id < 2000 && waiting.size() < 20) {
            TransactionBytes bytes;
            for (int i = 0; i < 10; ++i, ++id) {
                bytes.operation(OperationKind::kPut, users, key_of(id),
                                row_of(users_schema(), id, 1, host));
            }
            const auto token = client->submit(bytes.bytes());
            if (!token) break;
            waiting.push_back(*token);
        }
        store->round();
        std::erase_if(waiting, [&](auto token) {
            const auto answer = client->answer(token);
            applied += answer && answer->error == Error::kOk;
            return answer.has_value();
        });
    }
    EXPECT_EQ(applied, 200u);
}

TEST_F(EngineTest, RelaxedWritesAreGatheredUntilSomebodyWaits) {
    start();
    const auto log_writes = [&] {
        return counter_value(store->pool->stats(), Counter::kLogWrites);
    };
    const auto put_relaxed = [&](std::uint64_t id) {
        TransactionBytes bytes(Durability::kRelaxed);
        bytes.operation(OperationKind::kPut, users, key_of(id),
                        row_of(users_schema(), id, 1, "a.example"));
        return store->commit(*client, bytes).error;
    };
    const std::uint64_t before = log_writes();
    for (std::uint64_t id = 0; id < 5; ++id) ASSERT_EQ(put_relaxed(id), Error::kOk);
    EXPECT_EQ(log_writes(), before);
    ASSERT_EQ(put(5, 1), Error::kOk);
    EXPECT_EQ(log_writes(), before + 1);
    const std::uint64_t began_ns = store->clock.monotonic_ns();
    ASSERT_EQ(put_relaxed(6), Error::kOk);
    ASSERT_TRUE(store->run_until([&] { return log_writes() > before + 1; }));
    EXPECT_GE(store->clock.monotonic_ns() - began_ns, 450'000u);
    EXPECT_LE(store->clock.monotonic_ns() - began_ns, 600'000u);
}

// One that stays rung would end all sleeps that follow, and nobody would notice but the processor.
TEST_F(EngineTest, ADoorbellEndsOneSleepAndIsEmptied) {
    start();
    Result<Descriptor> bell = make_doorbell();
    ASSERT_TRUE(bell.ok());
    store->clients.bell = bell->number();
    const Commit& commit = store->engine->core().commit();
    const auto rings_on = [&] {
        ring_doorbell(bell->number());
        for (int i = 0, idle = 0; i < 200 && idle < 3; ++i) {
            idle += store->round() == EngineRound::kIdle;
        }
        pollfd rung{bell->number(), POLLIN, 0};
        return poll(&rung, 1, 0) == 1;
    };
    const auto submit = [&](std::uint64_t id, Durability durability) {
        TransactionBytes bytes(durability);
        bytes.operation(OperationKind::kPut, users, key_of(id),
                        row_of(users_schema(), id, 1, "a.example"));
        return client->submit(bytes.bytes());
    };
    store->run_until([] { return false; }, 100);
    ASSERT_TRUE(commit.quiet());
    EXPECT_FALSE(rings_on()) << "with nothing to do";
    ASSERT_TRUE(commit.quiet()) << "a log write empties it, too";

    ASSERT_TRUE(submit(1, Durability::kRelaxed).has_value());
    ASSERT_TRUE(store->run_until([&] { return commit.gathers(); }));
    EXPECT_FALSE(rings_on()) << "while relaxed writes are gathered";
    ASSERT_TRUE(commit.gathers());

    ASSERT_TRUE(store->run_until([&] { return commit.quiet(); }));
    store->disk->hold_back(StoreFile::kLog);
    const auto durable = submit(2, Durability::kDurable);
    ASSERT_TRUE(durable.has_value());
    ASSERT_TRUE(store->run_until([&] { return commit.in_flight(); }));
    EXPECT_FALSE(rings_on()) << "behind a log write";
    ASSERT_TRUE(commit.in_flight());
    store->disk->release();
    ASSERT_TRUE(store->run_until([&] { return client->answer(*durable).has_value(); }));
}

TEST_F(EngineTest, ADeviceThatDoesNotAnswerIsNamedOnce) {
    start();
    const auto named = [&](const std::string& what) {
        return std::count_if(store->log_lines.begin(), store->log_lines.end(),
                             [&](const auto& line) { return line.find(what) != line.npos; });
    };
    const auto rounds = [&](int seconds) {
        for (int i = 0; i < seconds * 10; ++i) {
            store->clock.advance_ns(100'000'000);
            store->round();
        }
    };
    rounds(60);  // nothing is asked of it
    store->disk->serve_one_by_one(store->clock, 20'000'000'000);
    TransactionBytes bytes;
    bytes.operation(OperationKind::kPut, users, key_of(1), row_of(users_schema(), 1, 1, "a"));
    const auto call = client->submit(bytes.bytes());
    rounds(4);
    EXPECT_EQ(named("has answered none"), 0);
    rounds(12);
    EXPECT_EQ(named("has answered none"), 1);
    EXPECT_EQ(named("answers again"), 0);
    rounds(30);
    EXPECT_GE(named("answers again"), 1);
    EXPECT_TRUE(client->answer(*call).has_value());
}

TEST_F(EngineTest, SessionBelongsToItsUser) {
    start();
    SessionId session;
    session.bytes[3] = 9;
    SimClient& owner = store->connect(Rights::kWriter, session);
    TransactionBytes bytes;
    bytes.operation(OperationKind::kPut, users, key_of(1), row_of(users_schema(), 1, 1, "a"));
    ASSERT_EQ(store->commit(owner, bytes).error, Error::kOk);
    for (const bool connected : {true, false}) {
        expect_denied(1000 + connected, session);
        if (connected) store->disconnect(owner);
    }
    EXPECT_TRUE(store->clients.cut_off_clients.empty());
}

// It has no row before something was applied.
TEST_F(EngineTest, SessionOfOneThatJustLeftBelongsToItsUser) {
    start();
    SessionId session;
    session.bytes[3] = 9;
    store->disconnect(store->connect(Rights::kWriter, session));
    expect_denied(1000, session);
}

}  // namespace
}  // namespace bidstore
