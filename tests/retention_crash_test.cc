// Power loss and process death at every disk operation while rows expire, those with large values
// among them. After each: rows that are alive by the recovered floor are there, whole, nothing else
// is, no page is lost and none in use twice; and in the end all pages of the values are free.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <vector>

#include "tests/sim.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;
using Rows = std::map<Bytes, Bytes>;

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kRetainUs = 16'000'000;
constexpr std::uint32_t kSecondsBefore = 24;
constexpr std::uint32_t kSeconds = 16;
constexpr std::uint32_t kUsers = 20;         // a second
constexpr std::uint32_t kReplacedAfter = 9;  // seconds, while they are alive
// From the file an extent's time is known to 256 units alone, and one that no row has is an early
// one when all of these are above the floor. They end in this second: what is replaced between
// it and its end would be one if it was not freed.
constexpr std::uint32_t kEdgeSecond = 20;
constexpr std::uint64_t kKnownToUs = 1u << (kTimeShiftMicroseconds + kExtentNewestShift);

Schema by_user() {
    auto schema = Schema::make("by_user",
                               {{"user", ColumnType::kU32, 0},
                                {"at", ColumnType::kTimestamp, 0},
                                {"pad", ColumnType::kFixed, 400},
                                {"body", ColumnType::kBytes, 0}},
                               1, 1);
    CHECK(schema.ok());
    return *schema;
}

Bytes user_key(std::uint32_t user) {
    Bytes key(4);
    encode_key_integer(key.data(), user, 4, false);
    return key;
}

Bytes user_row(std::uint64_t at, std::size_t body_bytes) {
    static const Schema schema = by_user();
    RowBuilder builder(schema);
    CHECK(builder.set_unsigned(1, at).ok());
    const Bytes pad(400, static_cast<std::byte>(at));
    CHECK(builder.set_bytes(2, pad).ok());
    std::mt19937_64 random(at);
    Bytes body(body_bytes);
    for (std::byte& byte : body) byte = static_cast<std::byte>(random());
    CHECK(builder.set_bytes(3, body).ok());
    const auto value = builder.value();
    CHECK(value.ok());
    return {value->begin(), value->end()};
}

std::uint32_t first_user(std::uint32_t second) { return second * 7919 % 64 * 100; }

// Beyond a page: two to five of them.
std::size_t body_bytes(std::uint32_t second) { return 5'000 + second * 7919 % 15'000; }

SimStoreOptions expiring_store() {
    SimStoreOptions options = small_store();
    options.frames = 700;
    options.memory = SimMemory::of_process();
    options.engine.checkpoint_interval_ns = 2 * kSecondNs;
    return options;
}

// A second's worth of users, next to each other, the first of them with a large value, in one
// transaction. Every other second replaces such a value of a former one. Then the second passes.
// `unsure`: written, without an answer.
void one_second(SimStore& store, SimClient& client, std::uint32_t second, Rows& rows,
                Rows& unsure) {
    const std::uint64_t at = store.clock.wall_us();
    Rows written;
    for (std::uint32_t i = 0; i < kUsers; ++i) {
        written[user_key(first_user(second) + i)] = user_row(at, i == 0 ? body_bytes(second) : 0);
    }
    if (second % 2 == 1 && second > kReplacedAfter) {
        const std::uint32_t former = second - kReplacedAfter;
        written[user_key(first_user(former))] = user_row(at, body_bytes(second + 1));
    }
    TransactionBytes bytes;
    for (const auto& [key, row] : written) {
        bytes.operation(OperationKind::kPut, kFirstUserTable, key, row);
    }
    const bool acknowledged = store.commit(client, bytes).error == Error::kOk;
    for (const auto& [key, row] : written) (acknowledged ? rows : unsure)[key] = row;
    for (int i = 0; i < 2; ++i) {
        store.clock.advance_ns(kSecondNs / 2);
        store.run_until([] { return false; }, 12);
    }
}

bool any_extents(SimStore& store) {
    const Space& space = store.engine->core().storage().space;
    for (std::uint32_t chunk = 0; chunk < space.chunk_count(); ++chunk) {
        if (space.has_extents(chunk)) return true;
    }
    return false;
}

struct Life {
    Rows rows;  // acknowledged
    Rows unsure;
    std::uint64_t steps = 0;
    std::uint64_t expired = 0;
    std::uint64_t wall_us = 0;
    std::unique_ptr<SimDisk> power;
    std::unique_ptr<SimDisk> process;
};

Life live(const SimDisk& from, const Rows& rows, std::uint64_t wall_us, std::uint64_t step) {
    SimStore store(expiring_store(), from.clone(7), 7);
    store.clock.set_wall_us(wall_us);
    Life life;
    life.rows = rows;
    if (step != 0) store.disk->crash_at(step);
    if (store.open().ok()) {
        SimClient& client = store.connect();
        for (std::uint32_t i = 0; i < kSeconds && !store.disk->crashed(); ++i) {
            one_second(store, client, kSecondsBefore + i, life.rows, life.unsure);
        }
    }
    life.steps = store.disk->steps();
    const auto counter = static_cast<std::uint32_t>(Counter::kPagesExpired);
    life.expired = store.pool->stats().counter[counter].load();
    life.wall_us = store.clock.wall_us();
    life.power = store.disk->power_loss(step);
    life.process = store.disk->process_crash(step);
    return life;
}

bool holds(const Rows& rows, const Bytes& key, const Bytes& row) {
    const auto found = rows.find(key);
    return found != rows.end() && found->second == row;
}

void check(std::unique_ptr<SimDisk> disk, const Life& life) {
    SimStore store(expiring_store(), std::move(disk), 5);
    store.clock.set_wall_us(life.wall_us);
    const Status opened = store.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    EXPECT_EQ(store.verify(), "");
    EXPECT_EQ(store.early_pages(), 0u);
    const Rows found = store.rows(kFirstUserTable);  // which brings the root in
    const Tree& tree = store.engine->core().storage().catalog->find(kFirstUserTable)->tree;
    const std::uint64_t floor = tree.floor();
    EXPECT_LE(floor, life.wall_us - kRetainUs);
    const Schema schema = by_user();
    std::size_t alive = 0;
    for (const auto& [key, row] : life.rows) {
        if (!schema.live(key.data(), row, floor)) continue;
        ++alive;
        EXPECT_TRUE(found.contains(key));
    }
    EXPECT_GT(alive, 0u);
    for (const auto& [key, row] : found) {
        EXPECT_TRUE(schema.live(key.data(), row, floor));
        EXPECT_TRUE(holds(life.rows, key, row) || holds(life.unsure, key, row));
    }
    // It goes on: all of it expires, and the pages come back.
    for (int i = 0; i < 40; ++i) {
        store.clock.advance_ns(kSecondNs);
        store.run_until([] { return false; }, 20);
    }
    EXPECT_EQ(store.rows(kFirstUserTable).size(), 0u);
    EXPECT_FALSE(any_extents(store));
    EXPECT_EQ(store.verify(), "");
}

std::uint64_t stride() {
    const char* set = std::getenv("BIDSTORE_CRASH_STRIDE");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
}

TEST(RetentionCrash, EveryDiskStepKeepsLiveRowsAndLeaksNothing) {
    Rows rows;
    Rows unsure;
    SimDiskOptions options;
    options.seed = 7;
    SimStore store(expiring_store(), std::make_unique<SimDisk>(options), 7);
    const std::uint64_t edge_us = (store.clock.wall_us() / kKnownToUs + 1) * kKnownToUs;
    store.clock.set_wall_us(edge_us - kEdgeSecond * kSecondNs / 1'000);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    const TableAttributes attributes{kRetainUs, 0};
    const std::string encoded = by_user().encode();
    TransactionBytes make;
    make.operation(OperationKind::kCreateTable, TableId{},
                   std::as_bytes(std::span(&attributes, 1)),
                   std::as_bytes(std::span(encoded)));
    ASSERT_EQ(store.commit(client, make).error, Error::kOk);
    for (std::uint32_t i = 0; i < kSecondsBefore; ++i) {
        one_second(store, client, i, rows, unsure);
    }
    ASSERT_TRUE(unsure.empty());
    ASSERT_TRUE(any_extents(store));
    ASSERT_TRUE(store.stop());
    const std::uint64_t wall_us = store.clock.wall_us();
    const auto disk = store.disk->clone(7);

    const Life whole = live(*disk, rows, wall_us, 0);
    ASSERT_GT(whole.expired, 10u);
    RecordProperty("steps", static_cast<int>(whole.steps));
    for (std::uint64_t step = 1; step <= whole.steps; step += stride()) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " +
                     std::to_string(whole.steps));
        Life life = live(*disk, rows, wall_us, step);
        check(std::move(life.power), life);
        check(std::move(life.process), life);
        if (::testing::Test::HasFailure()) break;
    }
}

}  // namespace
}  // namespace bidstore
