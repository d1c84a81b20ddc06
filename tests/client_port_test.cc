// The hostile border: whatever a client writes into its segment, only its own calls fail. The
// others' work goes on, their rows are right, and the engine lives.
#include "engine/client_port.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "shm/stats.h"
#include "tests/client_fields.h"
#include "tests/numbered_rows.h"
#include "tests/planted_record.h"
#include "tests/sim.h"
#include "tests/sim_rest.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;

Bytes row_of(std::int64_t n) {
    Bytes row(8 + 2);
    std::memcpy(row.data(), &n, sizeof n);
    return row;
}

Bytes joined(Bytes first, const Bytes& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

class ClientPortTest : public ::testing::Test {
  protected:
    void SetUp() override {
        store = std::make_unique<SimStore>(small_store(), std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store->open().ok());
        good = &store->connect();
        table = store->create_table(*good, rows_schema());
    }
    void TearDown() override {
        EXPECT_EQ(store->verify(), "");
        store->engine->core().storage().pool.check_invariants();
        store->disconnect_all();
        EXPECT_EQ(come_to_rest(*store), "");
    }

    // Puts the record where the engine reads next.
    void plant(SimClient& client, const PlantedRecord& record) {
        const std::uint64_t claim = client.segment().ring_control().claim.load();
        const auto position = static_cast<std::uint32_t>(claim);
        const std::uint32_t units = client.segment().ring_bytes() / kRingUnitBytes;
        std::byte* at = client.segment().ring() + std::size_t{position % units} * kRingUnitBytes;
        record.write_to(at);
        const std::size_t needed = sizeof(RecordHeader) + record.payload.size();
        client.segment().ring_control().claim.store((claim & ~std::uint64_t{0xffffffff}) |
                                                    (position + ring_units(needed)));
    }
    bool cut_off(const SimClient& client) {
        return store->clients.cut_off_clients.contains(client.id());
    }
    // The others go on, and the one is let go as the daemon does it.
    void expect_cut_off(SimClient& client, const std::string& what) {
        store->run_until([&] { return cut_off(client); }, 50);
        EXPECT_TRUE(cut_off(client)) << what;
        expect_work_goes_on();
        store->disconnect(client);
    }
    void expect_work_goes_on() {
        TransactionBytes bytes;
        AddBody add{};
        add.column = 1;
        add.delta = 1;
        bytes.add(table, key_of(7), add, kWantResult | kCreate);
        const Answer answer = store->commit(*good, bytes);
        ASSERT_EQ(answer.error, Error::kOk);
        ASSERT_EQ(answer.result_count, 1u);
        EXPECT_EQ(answer.result[0], ++sum_);
    }
    Answer answer_of(SimClient& client, const PlantedRecord& record) {
        plant(client, record);
        const CallSlot& slot = client.segment().calls()[record.call_slot];
        EXPECT_TRUE(
            store->run_until([&] { return is_answered(slot, record.call_generation); }, 500));
        return read_answer(slot);
    }
    std::uint64_t counter(Counter counter) {
        return store->pool->stats().counter[static_cast<std::uint32_t>(counter)].load();
    }
    Bytes put_transaction(std::uint64_t id, std::int64_t n) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, key_of(id), row_of(n));
        return bytes.bytes();
    }

    std::unique_ptr<SimStore> store;
    SimClient* good = nullptr;
    TableId table;

  private:
    std::int64_t sum_ = 0;
};

// Planted without a claim, and none of them answered yet.
TEST_F(ClientPortTest, MoreCallsThanThereAreSlotsAreNotTaken) {
    SimClient& flooding = store->connect();
    const std::uint32_t slots = flooding.segment().call_slot_count();
    PlantedRecord record;
    record.kind = RecordKind::kPageRequest;
    record.payload = bytes_of(std::array<std::uint32_t, 2>{1, 0});
    for (std::uint32_t i = 0; i <= slots; ++i) {
        record.call_slot = i % slots;
        record.call_generation = 1 + i / slots;
        plant(flooding, record);
    }
    ClientPort& port = store->engine->core().port();
    ClientRequest request;
    for (std::uint32_t i = 0; i < slots; ++i) ASSERT_TRUE(port.take(request)) << i;
    EXPECT_FALSE(cut_off(flooding));
    EXPECT_FALSE(port.take(request));
    EXPECT_EQ(store->clients.cut_off_clients[flooding.id()], "more calls than it has call slots");
    expect_work_goes_on();
    store->disconnect(flooding);
}

// One that connects and hangs up without end gave each turn to the first client of all.
TEST_F(ClientPortTest, TurnsGoOnWhenAClientGoes) {
    std::vector<SimClient*> idle;
    std::vector<SimClient*> busy;
    for (int i = 0; i < 3; ++i) {
        busy.push_back(i == 0 ? good : &store->connect());
        for (int j = 0; j < 2; ++j) idle.push_back(&store->connect());
    }
    PlantedRecord record;
    record.kind = RecordKind::kPageRequest;
    record.payload = bytes_of(std::array<std::uint32_t, 2>{1, 0});
    for (SimClient* client : busy) {
        for (record.call_generation = 1; record.call_generation <= 6; ++record.call_generation) {
            plant(*client, record);
        }
    }
    ClientPort& port = store->engine->core().port();
    std::map<std::uint64_t, int> turns;
    for (SimClient* client : idle) {
        ClientRequest request;
        ASSERT_TRUE(port.take(request));
        ++turns[request.from.client_id];
        port.detach(client->id());
    }
    for (SimClient* client : busy) EXPECT_EQ(turns[client->id()], 2) << client->id();
}

TEST_F(ClientPortTest, SessionsGoWithTheirConnections) {
    const auto becomes = [&](std::uint64_t count) {
        return store->run_until([&] { return counter(Counter::kSessions) == count; });
    };
    std::vector<SimClient*> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(&store->connect());
    EXPECT_TRUE(becomes(4));
    store->disconnect(*clients[1]);
    EXPECT_TRUE(becomes(3));
    store->clock.advance_ns(1'000'000'000);
    store->run_until([] { return false; }, 50);
    EXPECT_EQ(counter(Counter::kSessions), 3u);
}

// Threads that sleep on the word of its answers with a bit that is never woken: the engine walked
// past all of them whenever it woke the client, 43 ns each.
TEST_F(ClientPortTest, AClientWithMoreSleepersThanCallsIsCutOff) {
    SimClient& bad = store->connect();
    PlantedRecord record;
    record.kind = RecordKind::kPageRequest;
    record.payload = bytes_of(std::array<std::uint32_t, 2>{1, 0});
    const auto ask = [&](std::uint32_t times) {
        const std::uint64_t before = store->clients.wakes;
        for (; times > 0; --times) {
            bad.segment().ring_control().waiters.store(1);
            ++record.call_generation;
            answer_of(bad, record);
        }
        return store->clients.wakes - before;
    };
    ask(2);
    EXPECT_EQ(ask(1), 1u);
    // An engine that was put aside in each of its wakes, by whoever it woke.
    store->clients.on_wake = [&](std::uint32_t, std::uint32_t) {
        store->clock.put_aside_ns(4'000'000);
        return 1u;
    };
    ask(100);
    EXPECT_FALSE(cut_off(bad));
    // Many threads that it woke.
    store->clients.on_wake = [&](std::uint32_t, std::uint32_t) {
        store->clock.advance_ns(500'000);
        return 64u;
    };
    ask(100);
    EXPECT_FALSE(cut_off(bad));
    // One slow wake among ten.
    int wake = 0;
    store->clients.on_wake = [&](std::uint32_t, std::uint32_t) {
        if (++wake % 10 == 0) store->clock.advance_ns(200'000);
        return 1u;
    };
    ask(100);
    EXPECT_FALSE(cut_off(bad));
    // Sleepers on other words that the kernel keeps in the same list.
    std::uint32_t counted = 0;
    std::uint32_t sleepers = 2 * bad.segment().call_slot_count();
    store->clients.on_wake = [&](std::uint32_t bits, std::uint32_t waiters_max) {
        store->clock.advance_ns(200'000);
        counted += bits == ~0u;
        return bits == ~0u ? std::min(sleepers, waiters_max) : 1u;
    };
    ask(100);
    EXPECT_GT(counted, 5u);
    EXPECT_FALSE(cut_off(bad));
    ++sleepers;
    for (int i = 0; i < 9 && !cut_off(bad); ++i) ask(1);
    store->clients.on_wake = nullptr;
    expect_cut_off(bad, "more sleepers than calls");
}

TEST_F(ClientPortTest, ImpossibleLengthsCutTheClientOff) {
    const std::uint32_t ring = good->segment().ring_bytes();
    for (const std::uint32_t length :
         {1u, 31u, ring_record_bytes_max(ring) + 1, ring, ring + 64, 0x7fffffffu, ~0u}) {
        SimClient& bad = store->connect();
        PlantedRecord record;
        record.length_bytes = length;
        record.payload = put_transaction(1, 1);
        plant(bad, record);
        expect_cut_off(bad, "length " + std::to_string(length));
    }
    EXPECT_TRUE(store->rows(table).size() == 1);
    EXPECT_EQ(store->clients.hostile_clients, 7u);
}

TEST_F(ClientPortTest, RecordBeyondTheRingsEndCutsTheClientOff) {
    SimClient& bad = store->connect();
    const std::uint32_t units = bad.segment().ring_bytes() / kRingUnitBytes;
    // Page requests up to the last unit but one; then a record of three units.
    PlantedRecord small;
    small.kind = RecordKind::kPageRequest;
    small.payload = bytes_of(std::array<std::uint32_t, 2>{1, 0});
    for (std::uint32_t i = 0; i < units - 2; ++i) {
        small.call_generation = i + 1;
        plant(bad, small);
        if (i % 64 == 0) store->run_until([] { return false; }, 4);
    }
    store->run_until([] { return false; }, 200);
    ASSERT_FALSE(cut_off(bad));
    PlantedRecord record;
    record.length_bytes = 3 * kRingUnitBytes;
    plant(bad, record);
    expect_cut_off(bad, "beyond the end");
}

TEST_F(ClientPortTest, UnknownKindsAndMisplacedPaddingCutTheClientOff) {
    for (const std::uint16_t kind : std::array<std::uint16_t, 5>{0, 1, 5, 77, 0xffff}) {
        SimClient& bad = store->connect();
        PlantedRecord record;
        record.kind = static_cast<RecordKind>(kind);
        plant(bad, record);
        expect_cut_off(bad, "kind " + std::to_string(kind));
    }
}

TEST_F(ClientPortTest, CallSlotsOutOfRangeCutTheClientOff) {
    for (const std::uint32_t slot : {64u, 65u, 0x01000000u, ~0u}) {
        SimClient& bad = store->connect();
        PlantedRecord record;
        record.call_slot = slot;
        record.payload = put_transaction(1, 1);
        plant(bad, record);
        expect_cut_off(bad, "call slot " + std::to_string(slot));
    }
    EXPECT_EQ(store->rows(table).size(), 1u);
}

TEST_F(ClientPortTest, MalformedPageRequestsCutTheClientOff) {
    const std::pair<std::uint32_t, std::size_t> cases[] = {
        {0, 0}, {65, 65}, {~0u, 64}, {3, 1}, {64, 63}};
    for (const auto& [count, ids] : cases) {
        SimClient& bad = store->connect();
        PlantedRecord record;
        record.kind = RecordKind::kPageRequest;
        record.payload = bytes_of(count);
        record.payload.resize(4 + 4 * ids);
        plant(bad, record);
        expect_cut_off(bad, std::to_string(count) + " pages");
    }
    for (const std::size_t length : {0u, 1u, 3u}) {
        SimClient& bad = store->connect();
        PlantedRecord record;
        record.kind = RecordKind::kPageRequest;
        record.payload.resize(length);
        plant(bad, record);
        expect_cut_off(bad, std::to_string(length) + " bytes");
    }
}

TEST_F(ClientPortTest, PagesThatAreNotThereAreRefused) {
    SimClient& client = store->connect(Rights::kReader);
    PlantedRecord record;
    record.kind = RecordKind::kPageRequest;
    const std::uint32_t limit = store->pool->header().page_count;
    for (const std::uint32_t page : {0u, 1u, 400u, limit - 1, limit, 0x80000000u, ~0u}) {
        record.payload = bytes_of(std::array<std::uint32_t, 2>{1, page});
        EXPECT_EQ(answer_of(client, record).error, Error::kNoSuchPage) << page;
        ++record.call_generation;
    }
    record.payload = bytes_of(std::array<std::uint32_t, 4>{3, 4, 4, 999});
    const Answer mixed = answer_of(client, record);
    EXPECT_EQ(mixed.error, Error::kNoSuchPage);
    EXPECT_EQ(mixed.failed_operation, 2u);
    EXPECT_FALSE(cut_off(client));
}

TEST_F(ClientPortTest, WriteNumbersThatAreZeroOrSkipCutTheClientOff) {
    const std::pair<std::uint64_t, std::uint64_t> cases[] = {
        {0, 0}, {2, 0}, {2, 1}, {~0ull, 0}, {1ull << 32, 5}, {0, ~0ull}};
    for (const auto& [number, decided] : cases) {
        SimClient& bad = store->connect(Rights::kWriter);
        PlantedRecord record;
        record.write_number = number;
        record.decided_below = decided;
        record.payload = put_transaction(99, 1);
        plant(bad, record);
        expect_cut_off(bad, "number " + std::to_string(number));
    }
    EXPECT_FALSE(store->rows(table).contains(key_of(99)));
}

TEST_F(ClientPortTest, RepeatedWriteNumberIsAnsweredAndNotAppliedAgain) {
    SimClient& client = store->connect(Rights::kWriter);
    PlantedRecord record;
    record.payload = put_transaction(5, 1);
    EXPECT_EQ(answer_of(client, record).error, Error::kOk);
    const auto before = store->rows(table);
    record.payload = put_transaction(5, 2);
    ++record.call_generation;
    EXPECT_EQ(answer_of(client, record).error, Error::kOk);
    EXPECT_EQ(store->rows(table), before);
    // A refused one keeps its refusal.
    record.payload = put_transaction(5, 3);
    record.payload.resize(sizeof(TransactionHeader));
    record.write_number = 2;
    ++record.call_generation;
    EXPECT_EQ(answer_of(client, record).error, Error::kProtocol);
    record.payload = put_transaction(5, 4);
    ++record.call_generation;
    EXPECT_EQ(answer_of(client, record).error, Error::kProtocol);
    EXPECT_EQ(store->rows(table), before);
    EXPECT_FALSE(cut_off(client));
    expect_work_goes_on();
}

TEST_F(ClientPortTest, ClientThatCallsEverythingDecidedHarmsItselfAlone) {
    SimClient& client = store->connect(Rights::kWriter);
    PlantedRecord record;
    record.decided_below = ~0ull;
    for (const std::uint64_t number : {5ull, 6ull, 1ull << 40, 3ull, ~0ull - 1}) {
        record.write_number = number;
        record.payload = put_transaction(number, 1);
        EXPECT_EQ(answer_of(client, record).error, Error::kOk) << number;
        ++record.call_generation;
    }
    EXPECT_FALSE(store->rows(table).contains(key_of(3)));
    expect_work_goes_on();
    auto next = store->disk->power_loss(3);
    SimStore again(small_store(), std::move(next), 2);
    ASSERT_TRUE(again.open().ok());
    EXPECT_EQ(again.rows(table), store->rows(table));
}

// The greatest number and one more was 0, and all numbers were new again: each refusal was
// remembered, until there were more of them than a session can have, and the daemon ended itself. A
// client needed no right but to read.
TEST_F(ClientPortTest, GreatestWriteNumberIsTheLastOfItsSession) {
    SimClient& client = store->connect(Rights::kReader);
    PlantedRecord record;
    for (std::uint32_t i = 0; i <= kUndecidedWritesMax; ++i) {
        record.write_number = record.decided_below = i % 2 == 0 ? ~0ull : 5;
        const Error error = answer_of(client, record).error;
        ASSERT_EQ(error, i % 2 == 0 ? Error::kDenied : Error::kOk) << i;
        ++record.call_generation;
    }
    EXPECT_FALSE(cut_off(client));
    expect_work_goes_on();
}

TEST_F(ClientPortTest, RefusalsOfTheGreatestNumberStayBehindWhatIsApplied) {
    SimClient& client = store->connect(Rights::kWriter);
    PlantedRecord record;
    record.write_number = record.decided_below = ~0ull;
    EXPECT_EQ(answer_of(client, record).error, Error::kProtocol);
    record.write_number = record.decided_below = 5;
    ++record.call_generation;
    EXPECT_EQ(answer_of(client, record).error, Error::kOk);  // decided long ago
    record.write_number = record.decided_below = ~0ull;
    record.payload = put_transaction(1, 1);
    ++record.call_generation;
    EXPECT_EQ(answer_of(client, record).error, Error::kProtocol);  // as it was decided
    EXPECT_TRUE(store->rows(table).empty());
    EXPECT_FALSE(cut_off(client));
    expect_work_goes_on();
}

struct Refusal {
    const char* what;
    Bytes payload;
    Error error;
};

TEST_F(ClientPortTest, MalformedTransactionsAreRefusedAndChangeNothing) {
    expect_work_goes_on();
    const auto operation = [](OperationKind kind, std::uint32_t table_id, std::uint16_t key_bytes,
                              std::uint32_t body_bytes) {
        OperationHeader header{};
        header.kind = kind;
        header.key_bytes = key_bytes;
        header.table_id = table_id;
        header.body_bytes = body_bytes;
        return bytes_of(header);
    };
    const auto one = [](const Bytes& rest) {
        return joined(bytes_of(TransactionHeader{1, Durability::kDurable}), rest);
    };
    const auto many = [](std::uint32_t count, const Bytes& rest) {
        return joined(bytes_of(TransactionHeader{count, Durability::kDurable}), rest);
    };
    const std::uint32_t id = table.value;
    const Bytes key = key_of(7);
    const auto whole = [&](OperationKind kind, const Bytes& body) {
        TransactionBytes bytes;
        bytes.operation(kind, table, key, body);
        return bytes.bytes();
    };
    const auto column = [&](OperationKind kind, std::uint16_t number, std::size_t length) {
        TransactionBytes bytes;
        bytes.columns(kind, table, key, number, Bytes(length));
        return bytes.bytes();
    };
    const auto kind = [](int number) { return static_cast<OperationKind>(number); };
    AddBody to_key{};
    to_key.column = 0;
    AddBody to_text{};
    to_text.column = 2;
    AddBody to_none{};
    to_none.column = 0xffff;
    Bytes lying_column = bytes_of(ColumnValue{1, 0, 0x1fffff});
    lying_column.resize(16);
    Bytes short_wide(8 + 2 + 4);
    short_wide[8] = short_wide[9] = std::byte{0xff};
    Bytes referring(8 + 2 + 16);  // of 16 bytes to page 1
    referring[8] = std::byte{16};
    referring[9] = std::byte{0x80};
    referring[10] = referring[18] = referring[22] = std::byte{1};
    const Refusal refusals[] = {
        {"nothing", {}, Error::kProtocol},
        {"half a header", Bytes(7), Error::kProtocol},
        {"no operation", many(0, {}), Error::kTooLarge},
        {"1025 operations", many(1025, Bytes(64)), Error::kTooLarge},
        {"very many operations", many(~0u, Bytes(64)), Error::kTooLarge},
        {"one operation, none sent", many(1, {}), Error::kProtocol},
        {"half an operation", many(1, Bytes(15)), Error::kProtocol},
        {"two operations, one sent", many(2, joined(operation(kind(14), id, 8, 0), key)),
         Error::kNotFound},
        {"key longer than the rest", one(operation(kind(10), id, 0xffff, 0)), Error::kProtocol},
        {"body longer than the rest", one(joined(operation(kind(10), id, 8, ~0u), key)),
         Error::kProtocol},
        {"lengths that wrap around", one(joined(operation(kind(10), id, 8, ~0u - 23), key)),
         Error::kProtocol},
        {"kind 0", whole(kind(0), {}), Error::kProtocol},
        {"kind 4", whole(kind(4), {}), Error::kProtocol},
        {"kind 19", whole(kind(19), {}), Error::kProtocol},
        {"kind 23", whole(kind(23), {}), Error::kProtocol},
        {"kind 255", whole(kind(255), {}), Error::kProtocol},
        {"table 0", one(joined(operation(kind(10), 0, 8, 0), key)), Error::kNoSuchTable},
        {"the catalog", one(joined(operation(kind(14), 1, 8, 0), key)), Error::kDenied},
        {"the sessions", one(joined(operation(kind(14), 2, 8, 0), key)), Error::kDenied},
        {"dropping the catalog", one(operation(kind(21), 1, 0, 0)), Error::kDenied},
        {"table 15", one(joined(operation(kind(10), 15, 8, 0), key)), Error::kNoSuchTable},
        {"no such table", one(joined(operation(kind(10), ~0u, 8, 0), key)), Error::kNoSuchTable},
        {"no key", one(operation(kind(14), id, 0, 0)), Error::kInvalid},
        {"short key", one(joined(operation(kind(14), id, 7, 0), key)), Error::kInvalid},
        {"long key", one(joined(operation(kind(14), id, 16, 0), joined(key, key))),
         Error::kInvalid},
        {"no row", whole(kind(10), {}), Error::kInvalid},
        {"row of another length", whole(kind(10), Bytes(9)), Error::kInvalid},
        {"row too long", whole(kind(10), Bytes(5000)), Error::kInvalid},
        {"short row in the form of long ones", whole(kind(10), short_wide), Error::kInvalid},
        {"row with a reference", whole(kind(10), referring), Error::kInvalid},
        {"text that ends behind the row", whole(kind(10), Bytes(10, std::byte{1})),
         Error::kInvalid},
        {"short add", whole(kind(13), Bytes(31)), Error::kProtocol},
        {"long add", whole(kind(13), Bytes(40)), Error::kProtocol},
        {"add to the key", whole(kind(13), bytes_of(to_key)), Error::kInvalid},
        {"add to text", whole(kind(13), bytes_of(to_text)), Error::kInvalid},
        {"add to no column", whole(kind(13), bytes_of(to_none)), Error::kInvalid},
        {"update of the key", column(kind(12), 0, 8), Error::kInvalid},
        {"update of no column", column(kind(12), 3, 8), Error::kInvalid},
        {"update of wrong width", column(kind(12), 1, 7), Error::kInvalid},
        {"update that lies about its length", whole(kind(12), lying_column), Error::kInvalid},
        {"half an update", whole(kind(12), Bytes(7)), Error::kInvalid},
        {"equals of no column", column(kind(3), 999, 8), Error::kInvalid},
        {"half an equals", whole(kind(3), Bytes(5)), Error::kInvalid},
        {"upper bound of wrong size", whole(kind(15), Bytes(7)), Error::kInvalid},
        {"table without a schema", whole(kind(20), {}), Error::kInvalid},
        {"table of garbage", whole(kind(20), Bytes(300, std::byte{0x5a})), Error::kInvalid},
    };
    SimClient& client = store->connect(Rights::kAdmin);
    const auto before = store->rows(table);
    PlantedRecord record;
    for (const Refusal& refusal : refusals) {
        record.payload = refusal.payload;
        const Answer answer = answer_of(client, record);
        const bool two = std::string_view(refusal.what).starts_with("two operations");
        // The one that was sent is fine; the one that was not is not.
        EXPECT_EQ(answer.error, two ? Error::kProtocol : refusal.error) << refusal.what;
        EXPECT_EQ(store->rows(table), before) << refusal.what;
        ++record.write_number;
        ++record.call_generation;
    }
    EXPECT_FALSE(cut_off(client));
    expect_work_goes_on();
}

TEST_F(ClientPortTest, TooManyResultsAreRefused) {
    AddBody add{};
    add.column = 1;
    add.delta = 1;
    TransactionBytes bytes;
    for (std::uint32_t i = 0; i <= kCallResults; ++i) {
        bytes.add(table, key_of(i), add, kWantResult | kCreate);
    }
    EXPECT_EQ(store->commit(*good, bytes).error, Error::kTooLarge);
    EXPECT_TRUE(store->rows(table).empty());
}

TEST_F(ClientPortTest, RightsAreThoseOfTheConnection) {
    SimClient& reader = store->connect(Rights::kReader);
    SimClient& writer = store->connect(Rights::kWriter);
    // What the segment says of rights is the client's word.
    reader.segment().header().rights = static_cast<std::uint32_t>(Rights::kAdmin);
    writer.segment().header().rights = static_cast<std::uint32_t>(Rights::kAdmin);
    TransactionBytes put;
    put.operation(OperationKind::kPut, table, key_of(1), row_of(1));
    TransactionBytes check;
    check.operation(OperationKind::kCheckAbsent, table, key_of(1), {});
    const std::string schema =
        Schema::make("other", {{"id", ColumnType::kU64, 0}, {"n", ColumnType::kI64, 0}}, 1)
            ->encode();
    TransactionBytes create;
    create.operation(OperationKind::kCreateTable, TableId{}, {},
                     std::as_bytes(std::span(schema.data(), schema.size())));
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, table, {}, {});
    for (const TransactionBytes* denied : {&put, &check, &create, &drop}) {
        EXPECT_EQ(store->commit(reader, *denied).error, Error::kDenied);
    }
    EXPECT_EQ(store->commit(writer, create).error, Error::kDenied);
    EXPECT_EQ(store->commit(writer, drop).error, Error::kDenied);
    EXPECT_TRUE(store->rows(table).empty());
    EXPECT_EQ(store->commit(writer, put).error, Error::kOk);
    EXPECT_EQ(store->commit(*good, create).error, Error::kOk);
    EXPECT_EQ(store->commit(*good, create).error, Error::kTableExists);
    const PageId root = store->engine->core().storage().catalog->find(table)->tree.root();
    const auto token = reader.request_pages({&root, 1});
    std::optional<Answer> answer;
    store->run_until([&] { return (answer = reader.answer(*token)).has_value(); });
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->error, Error::kOk);
}

// Their transactions were evaluated, each in the turn of a writer, and refused then.
TEST_F(ClientPortTest, TransactionsOfReadersAreNotLookedAt) {
    SimClient& reader = store->connect(Rights::kReader);
    PlantedRecord record;
    for (const std::size_t bytes : {0u, 7u, 5'000u}) {
        record.payload.assign(bytes, std::byte{0xff});
        EXPECT_EQ(answer_of(reader, record).error, Error::kDenied);
        ++record.write_number;
        ++record.call_generation;
    }
    EXPECT_FALSE(cut_off(reader));
}

// One bit or byte of a good transaction at a time.
TEST_F(ClientPortTest, DamagedTransactionsAreAppliedWholeOrRefused) {
    SimClient& client = store->connect(Rights::kWriter);
    AddBody add{};
    add.column = 1;
    add.delta = 3;
    PlantedRecord record;
    std::mt19937_64 random(11);
    for (int round = 0; round < 1500; ++round) {
        TransactionBytes bytes;
        const auto key = [&] { return key_of(1'000'000 + random() % 20); };
        bytes.operation(OperationKind::kPut, table, key(), row_of(5));
        bytes.add(table, key(), add, kWantResult | kCreate);
        bytes.columns(OperationKind::kUpdate, table, key(), 2, Bytes(9));
        bytes.operation(OperationKind::kDelete, table, key(), {}, kIfPresent);
        record.payload = bytes.bytes();
        for (std::uint64_t i = 0; i <= random() % 3; ++i) {
            std::byte& byte = record.payload[random() % record.payload.size()];
            byte = random() % 2 ? static_cast<std::byte>(random())
                                : byte ^ static_cast<std::byte>(1u << random() % 8);
        }
        if (random() % 8 == 0) record.payload.resize(random() % record.payload.size());
        const Answer answer = answer_of(client, record);
        EXPECT_LT(static_cast<std::uint32_t>(answer.error), kErrorCount);
        record.decided_below = ++record.write_number;
        ++record.call_generation;
        record.call_slot = static_cast<std::uint32_t>(random() % 64);
        ASSERT_FALSE(HasFailure()) << "round " << round;
    }
    EXPECT_FALSE(cut_off(client));
    for (const auto& [key, value] : store->rows(table)) {
        EXPECT_TRUE(rows_schema().valid_value(value));
    }
    expect_work_goes_on();
}

// Nonsense anywhere in the segment, between any two rounds.
TEST_F(ClientPortTest, NonsenseInEveryFieldOfTheSegmentHarmsNobodyElse) {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::mt19937_64 random(seed);
        SimClient& bad = store->connect(Rights::kWriter);
        ClientSegment& segment = bad.segment();
        std::byte* const end = segment.base() + segment.header().segment_bytes;
        for (int step = 0; step < 40 && !HasFailure(); ++step) {
            if (!cut_off(bad) && step % 3 == 0) {
                PlantedRecord record;
                record.write_number = static_cast<std::uint64_t>(step) / 3 + 1;
                record.payload = put_transaction(1000 + random() % 5, 1);
                if (step < 20) plant(bad, record);
            }
            std::byte* const areas[] = {
                segment.base(), static_cast<std::byte*>(static_cast<void*>(segment.slots())),
                static_cast<std::byte*>(static_cast<void*>(&segment.ring_control())),
                segment.ring(), static_cast<std::byte*>(static_cast<void*>(segment.calls()))};
            std::byte* at = areas[random() % 5] + 8 * (random() % 48);
            if (random() % 8 == 0) at = segment.base() + 8 * (random() % 4096);
            if (random() % 4 == 0) {  // where the engine reads next, as long as claim is right
                const std::uint64_t units = segment.ring_bytes() / kRingUnitBytes;
                const auto claim = segment.ring_control().claim.load() & 0xffffffff;
                at = segment.ring() + claim % units * kRingUnitBytes + 8 * (random() % 4);
            }
            const std::uint64_t values[] = {0, 1, ~0ull, random(), random() % 4096, 1ull << 63};
            const std::uint64_t value = values[random() % 6];
            if (at + sizeof value <= end) std::memcpy(at, &value, sizeof value);
            expect_work_goes_on();
        }
        store->disconnect(bad);
        expect_work_goes_on();
    }
    EXPECT_GT(store->clients.hostile_clients, 5u);
    EXPECT_FALSE(cut_off(*good));
}

// All of a segment is in the list of fields, or is what records carry.
TEST_F(ClientPortTest, EveryByteOfTheSegmentIsKnown) {
    ClientSegment& segment = store->connect().segment();
    const auto parts = parts_of(segment);
    EXPECT_EQ(parts.size(), client_structs().size());
    std::map<std::byte*, std::byte*> ranges;  // begin, end
    for (const auto& [name, part] : parts) {
        ranges[part.first] = part.first + part.stride_bytes * part.count;
    }
    std::byte* known = segment.base();
    for (const auto& [begin, end] : ranges) {
        EXPECT_GE(begin, known);
        EXPECT_LT(begin - known, std::ptrdiff_t{kPageBytes}) << "what is there?";
        known = end;
    }
    EXPECT_LT(segment.base() + segment.header().segment_bytes - known, std::ptrdiff_t{kPageBytes});
}

// Each field by itself, with each kind of nonsense, while two requests of its owner wait to be
// taken and again when they were; then all fields of all things at once.
TEST_F(ClientPortTest, NonsenseInEachFieldByItselfAndInAllAtOnceHarmsNobodyElse) {
    std::mt19937_64 random(7);
    SimClient& first = store->connect();
    const std::size_t fields = fields_of(first.segment(), 0).size();
    store->disconnect(first);
    for (std::size_t number = 0; number <= fields && !HasFailure(); ++number) {
        for (std::uint32_t kind = 0; kind < static_cast<std::uint32_t>(Nonsense::kCount); ++kind) {
            SimClient& bad = store->connect(Rights::kWriter);
            ClientSegment& segment = bad.segment();
            const auto scribble = [&] {
                const auto nonsense = static_cast<Nonsense>(kind);
                if (number < fields) {
                    return write_nonsense(fields_of(segment, 0)[number], nonsense, random);
                }
                // Of the ring, as far as anything is in it.
                for (std::size_t i = 0; i < segment.call_slot_count(); ++i) {
                    for (const auto& field : fields_of(segment, i)) {
                        write_nonsense(field, nonsense, random);
                    }
                }
            };
            SCOPED_TRACE(number < fields ? fields_of(segment, 0)[number].name : "all");
            SCOPED_TRACE("nonsense " + std::to_string(kind));
            PlantedRecord record;
            record.payload = put_transaction(1000 + number, 1);
            plant(bad, record);
            record.kind = RecordKind::kPageRequest;
            record.payload = bytes_of(PageRequest{.count = 1, .page_id = {5}});
            plant(bad, record);
            scribble();
            expect_work_goes_on();
            if (!cut_off(bad)) scribble();
            expect_work_goes_on();
            store->disconnect(bad);
            expect_work_goes_on();
        }
    }
    EXPECT_GT(store->clients.hostile_clients, 5u);
    EXPECT_FALSE(cut_off(*good));
}

// One that is cut off with work under way: it is let go, whatever was on its way for it.
TEST_F(ClientPortTest, ClientThatLeavesWithCallsUnderWayIsForgotten) {
    for (int round = 0; round < 20; ++round) {
        SimClient& client = store->connect();
        for (int i = 0; i < 10; ++i) {
            const auto token = client.submit(put_transaction(static_cast<std::uint64_t>(i), round));
            ASSERT_TRUE(token.has_value());
        }
        const PageId pages[] = {PageId{4}, PageId{5}, PageId{6}};
        ASSERT_TRUE(client.request_pages(pages).has_value());
        for (int i = 0; i < round % 4; ++i) store->round();
        store->disconnect(client);
        expect_work_goes_on();
    }
    EXPECT_EQ(store->clients.detached_clients.size(), 20u);
}

}  // namespace
}  // namespace bidstore
