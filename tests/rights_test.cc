// Who may ask for what: each call that a record can carry, asked for by a reader, by a writer and
// by an admin. A kind of call that is new does not compile here until it is said who may ask for it
// and how that is done.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/load_fixture.h"
#include "tests/numbered_rows.h"
#include "tests/planted_record.h"
#include "tests/sim.h"
#include "tests/sim_rest.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;
using enum OperationKind;

constexpr std::uint64_t kThere = 1;  // a row that is there
constexpr std::uint64_t kFar = 1'000'000;
constexpr std::uint32_t kValuesMax = 256;  // which kinds of calls have names is found out
constexpr Rights kAllRights[] = {Rights::kReader, Rights::kWriter, Rights::kAdmin};

const char* name_of(Rights rights) {
    switch (rights) {
        case Rights::kReader:
            return "a reader";
        case Rights::kWriter:
            return "a writer";
        case Rights::kAdmin:
            return "an admin";
    }
    return "who?";
}

Bytes bytes_of_schema(const std::string& name) {
    const std::string encoded = load_schema(name, false).encode();
    const auto bytes = std::as_bytes(std::span(encoded.data(), encoded.size()));
    return {bytes.begin(), bytes.end()};
}

// Asked for by its owner as often as it likes; the answer is kOk for who has the rights.
struct Call {
    std::string name;
    Rights least;
    std::function<std::optional<std::uint32_t>(SimClient&)> submit;
};

class RightsTest : public ::testing::Test {
  protected:
    void SetUp() override {
        store = std::make_unique<SimStore>(small_store(), std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store->open().ok());
        SimClient& maker = store->connect();
        rows = store->create_table(maker, rows_schema());
        kept = store->create_table(maker, load_schema("kept", false));
        dropped = store->create_table(maker, load_schema("dropped", false));
        ASSERT_EQ(store->commit(maker, row_operation(kPut, kThere, Bytes(10))).error, Error::kOk);
    }
    void TearDown() override {
        EXPECT_EQ(store->verify(), "");
        store->engine->core().storage().pool.check_invariants();
        store->disconnect_all();
        EXPECT_EQ(come_to_rest(*store), "");
    }

    TransactionBytes row_operation(OperationKind kind, std::uint64_t id, const Bytes& body,
                                   std::uint8_t flags = 0) const {
        TransactionBytes bytes;
        return bytes.operation(kind, rows, key_of(id), body, flags);
    }
    TransactionBytes column_operation(OperationKind kind, std::uint64_t id) const {
        TransactionBytes bytes;
        return bytes.columns(kind, rows, key_of(id), 2, {});
    }
    TransactionBytes add_operation() const {
        AddBody add{};
        add.column = 1;
        add.delta = 1;
        TransactionBytes bytes;
        return bytes.add(rows, key_of(kThere), add);
    }
    static TransactionBytes table_operation(OperationKind kind, TableId table, const Bytes& body) {
        TransactionBytes bytes;
        return bytes.operation(kind, table, {}, body);
    }

    // One that its owner is allowed finds what it wants. Nothing: the value has no name. Without a
    // default, so that the compiler asks for each kind that is new.
    std::optional<TransactionBytes> transaction_of(OperationKind kind) {
        switch (kind) {
            case kCheckPresent:
                return row_operation(kind, kThere, {});
            case kCheckAbsent:
                return row_operation(kind, kFar, {});
            case kCheckEquals:
                return column_operation(kind, kThere);
            case kPut:
                return row_operation(kind, kThere + 1, Bytes(10));
            case kInsert:
                return row_operation(kind, kThere + ++inserted, Bytes(10));
            case kUpdate:
                return column_operation(kind, kThere);
            case kAdd:
                return add_operation();
            case kDelete:
                return row_operation(kind, kFar, {}, kIfPresent);
            case kDeleteRange:
                return row_operation(kind, kFar, {});
            case kCreateTable:
                return table_operation(kind, TableId{}, bytes_of_schema("made"));
            case kDropTable:
                return table_operation(kind, dropped, {});
            case kSetTable:
                return table_operation(kind, kept, bytes_of(TableAttributes{kRetainUs, 0}));
        }
        return std::nullopt;
    }
    static std::optional<Rights> least_for(OperationKind kind) {
        switch (kind) {
            case kCheckPresent:
            case kCheckAbsent:
            case kCheckEquals:
            case kPut:
            case kInsert:
            case kUpdate:
            case kAdd:
            case kDelete:
            case kDeleteRange:
                return Rights::kWriter;
            case kCreateTable:
            case kDropTable:
            case kSetTable:
                return Rights::kAdmin;
        }
        return std::nullopt;
    }
    static std::optional<Bytes> load_of(LoadStep step) {
        switch (step) {
            case LoadStep::kBegin:
                return LoadBytes::begin(load_schema("loaded", false)).bytes();
            case LoadStep::kRows:
                return LoadBytes(step).bytes();
            case LoadStep::kFinish:
                return LoadBytes(step).bytes();
        }
        return std::nullopt;
    }

    std::vector<Call> transactions() {
        std::vector<Call> calls;
        for (std::uint32_t value = 0; value < kValuesMax; ++value) {
            const auto kind = static_cast<OperationKind>(value);
            const auto bytes = transaction_of(kind);
            if (!bytes) continue;
            calls.push_back({"operation " + std::to_string(value), *least_for(kind),
                             [bytes](SimClient& client) { return client.submit(bytes->bytes()); }});
        }
        return calls;
    }
    static std::vector<Call> loads() {
        std::vector<Call> calls;
        for (std::uint32_t value = 0; value < kValuesMax; ++value) {
            const auto bytes = load_of(static_cast<LoadStep>(value));
            if (!bytes) continue;
            calls.push_back({"load step " + std::to_string(value), Rights::kAdmin,
                             [bytes](SimClient& client) { return client.submit_load(*bytes); }});
        }
        return calls;
    }
    std::vector<Call> calls_of(RecordKind kind) {
        const PageId root = store->engine->core().storage().catalog->find(rows)->tree.root();
        switch (kind) {
            case RecordKind::kPadding:
            case RecordKind::kAborted:
                return {};  // they ask for nothing
            case RecordKind::kPageRequest:
                return {{"pages", Rights::kReader, [root](SimClient& client) {
                             return client.request_pages({&root, 1});
                         }}};
            case RecordKind::kTransaction:
                return transactions();
            case RecordKind::kLoad:
                return loads();
            case RecordKind::kCompact:
                return {{"compaction", Rights::kAdmin,
                         [](SimClient& client) { return client.submit_compact(1); }}};
        }
        return {};
    }
    std::vector<Call> all_calls() {
        std::vector<Call> all;
        for (std::uint32_t value = 0; value < kValuesMax; ++value) {
            const auto calls = calls_of(static_cast<RecordKind>(value));
            all.insert(all.end(), calls.begin(), calls.end());
        }
        return all;
    }

    // What its segment says of its rights is the client's word.
    SimClient& connect(Rights rights, std::optional<SessionId> session = std::nullopt) {
        SimClient& client = store->connect(rights, session);
        client.segment().header().rights = static_cast<std::uint32_t>(Rights::kAdmin);
        return client;
    }
    std::string answer_to(SimClient& client, const Call& call) {
        const auto token = call.submit(client);
        if (!token) return "no room";
        std::optional<Answer> answer;
        store->run_until([&] { return (answer = client.answer(*token)).has_value(); }, 500);
        return answer ? std::string(error_name(answer->error)) : "no answer";
    }
    void expect_answers(SimClient& client, Rights rights) {
        for (const Call& call : all_calls()) {
            const char* const expected = rights < call.least ? "Denied" : "Ok";
            EXPECT_EQ(answer_to(client, call), expected) << call.name << " by " << name_of(rights);
        }
        EXPECT_FALSE(store->clients.cut_off_clients.contains(client.id())) << name_of(rights);
    }
    void expect_tables_as_they_were() {
        Catalog& catalog = *store->engine->core().storage().catalog;
        EXPECT_NE(catalog.find(dropped), nullptr);
        EXPECT_EQ(catalog.find(std::string_view("made")), nullptr);
        EXPECT_EQ(catalog.find(std::string_view("loaded")), nullptr);
        ASSERT_NE(catalog.find(kept), nullptr);
        EXPECT_EQ(catalog.find(kept)->retain_us, 0u);
    }

    static constexpr std::uint64_t kRetainUs = 3'600'000'000;
    std::unique_ptr<SimStore> store;
    TableId rows;
    TableId kept;
    TableId dropped;
    std::uint64_t inserted = 1;
};

// The numbers say that the walk over the values found all that have names.
TEST_F(RightsTest, AllCallsAreKnown) {
    std::map<Rights, int> count;
    for (const Call& call : all_calls()) ++count[call.least];
    EXPECT_EQ(count[Rights::kReader], 1);
    EXPECT_EQ(count[Rights::kWriter], 9);
    EXPECT_EQ(count[Rights::kAdmin], 7);
}

TEST_F(RightsTest, EachCallIsForThoseAloneWhoHaveTheRights) {
    const auto before = store->rows(rows);
    expect_answers(connect(Rights::kReader), Rights::kReader);
    EXPECT_EQ(store->rows(rows), before);
    expect_answers(connect(Rights::kWriter), Rights::kWriter);
    EXPECT_NE(store->rows(rows), before);
    expect_tables_as_they_were();
    expect_answers(connect(Rights::kAdmin), Rights::kAdmin);
    Catalog& catalog = *store->engine->core().storage().catalog;
    EXPECT_EQ(catalog.find(dropped), nullptr);
    EXPECT_NE(catalog.find(std::string_view("made")), nullptr);
    EXPECT_NE(catalog.find(std::string_view("loaded")), nullptr);
    EXPECT_EQ(catalog.find(kept)->retain_us, kRetainUs);
}

// A session outlives its connections, and takes no rights along.
TEST_F(RightsTest, SessionOfAnAdminDoesNotKeepItsRights) {
    for (const Rights rights : {Rights::kReader, Rights::kWriter}) {
        SimClient& admin = connect(Rights::kAdmin);
        const SessionId session = admin.session();
        ASSERT_EQ(store->commit(admin, row_operation(kPut, kThere, Bytes(10))).error, Error::kOk);
        store->disconnect(admin);
        expect_answers(connect(rights, session), rights);
        expect_tables_as_they_were();
    }
}

// Each operation is looked at, not the first one alone.
TEST_F(RightsTest, WhatStandsBehindAWriteIsDeniedToo) {
    SimClient& writer = connect(Rights::kWriter);
    const auto before = store->rows(rows);
    for (const OperationKind kind : {kCreateTable, kDropTable, kSetTable}) {
        TransactionBytes bytes = row_operation(kPut, kFar, Bytes(10));
        const Bytes body = kind == kCreateTable ? bytes_of_schema("made")
                                                : bytes_of(TableAttributes{kRetainUs, 0});
        bytes.operation(kind, kind == kDropTable ? dropped : kept, {}, body);
        const Answer answer = store->commit(writer, bytes);
        EXPECT_EQ(answer.error, Error::kDenied) << static_cast<int>(kind);
        EXPECT_EQ(answer.failed_operation, 1u) << static_cast<int>(kind);
    }
    EXPECT_EQ(store->rows(rows), before);
    expect_tables_as_they_were();
}

// An engine that is older than its client: what it has no name for changes nothing.
TEST_F(RightsTest, OperationsWithoutANameAreForNobody) {
    const auto before = store->rows(rows);
    for (const Rights rights : kAllRights) {
        SimClient& client = connect(rights);
        for (std::uint32_t value = 0; value < kValuesMax; ++value) {
            const auto kind = static_cast<OperationKind>(value);
            if (least_for(kind)) continue;
            const Answer answer = store->commit(client, row_operation(kind, kThere, Bytes(10)));
            const Rights least = kind < kCreateTable ? Rights::kWriter : Rights::kAdmin;
            EXPECT_EQ(answer.error, rights < least ? Error::kDenied : Error::kProtocol)
                << value << " by " << name_of(rights);
        }
    }
    EXPECT_EQ(store->rows(rows), before);
    expect_tables_as_they_were();
}

}  // namespace
}  // namespace bidstore
