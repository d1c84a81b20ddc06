// How many sessions of one user are remembered: the oldest go, and nobody else's.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/page/catalog_schema.h"
#include "engine/session_bound.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kMax = 64;
constexpr std::uint64_t kSecondUs = 1'000'000;
constexpr std::uint64_t kNowUs = 1'700'000'000 * kSecondUs;
constexpr std::uint64_t kPauseNs = 600'000'000'000;

struct Row {
    std::uint32_t uid;
    std::uint64_t seen_us;
};

// What one walk leaves of the rows.
std::vector<Row> walk(SessionBound& bound, const std::vector<Row>& rows) {
    std::vector<Row> left;
    bound.begin_walk(kNowUs);
    for (const Row& row : rows) {
        if (bound.goes(row.uid, row.seen_us)) {
            bound.gone(row.uid, row.seen_us);
        } else {
            bound.stays(row.uid, row.seen_us);
            left.push_back(row);
        }
    }
    bound.end_walk();
    return left;
}

TEST(SessionBound, TheOldestOfAUserWhoHasTooManyGo) {
    SessionBound bound(kMax);
    std::vector<Row> rows;
    for (std::uint32_t i = 0; i < 1'000; ++i) rows.push_back({1, kNowUs - i * kSecondUs});
    for (std::uint32_t i = 0; i < kMax + kMax / 8; ++i) rows.push_back({2, kNowUs - i * 100});
    EXPECT_EQ(walk(bound, rows).size(), rows.size());  // it counts
    ASSERT_EQ(bound.plans().size(), 1u);
    EXPECT_EQ(bound.plans().at(1).rows, 1'000 - kMax);
    EXPECT_TRUE(bound.walk_is_due());
    const std::vector<Row> left = walk(bound, rows);
    EXPECT_FALSE(bound.walk_is_due());
    EXPECT_EQ(left.size(), kMax + kMax + kMax / 8);
    for (const Row& row : left) {
        // One of about the age of the youngest that goes may be there in place of another.
        EXPECT_GE(row.seen_us, kNowUs - 2 * kMax * kSecondUs);
    }
    EXPECT_EQ(walk(bound, left).size(), left.size());
}

TEST(SessionBound, AnyTimeIsAnAge) {
    SessionBound bound(1);
    std::vector<Row> rows{{1, 0}, {1, ~0ull}, {1, kNowUs}, {1, kNowUs - 1}, {1, kNowUs + 1}};
    EXPECT_EQ(walk(bound, rows).size(), rows.size());
    EXPECT_EQ(walk(bound, rows).size(), 1u);
}

TEST(SessionBound, AWalkIsDueWhenAnEighthIsNew) {
    SessionBound bound(kMax);
    for (std::uint32_t i = 0; i < kMax / 8; ++i) bound.made();
    EXPECT_FALSE(bound.walk_is_due());
    bound.made();
    EXPECT_TRUE(bound.walk_is_due());
    walk(bound, {});
    EXPECT_FALSE(bound.walk_is_due());
}

// The same in a store.
class SessionRows : public testing::Test {
  protected:
    void SetUp() override {
        options_.engine.session_rows_max = kMax;
        open(std::make_unique<SimDisk>());
        auto schema = Schema::make("rows", {{"id", ColumnType::kU32, 0}}, 1);
        ASSERT_TRUE(schema.ok());
        table_ = store_->create_table(store_->connect(), *schema);
    }
    void open(std::unique_ptr<SimDisk> disk) {
        const std::uint64_t now_us = store_ ? store_->clock.wall_us() : SimClock::kBeginUs;
        store_.reset();
        store_.emplace(options_, std::move(disk), 1);
        store_->clock.set_wall_us(now_us);
        const Status opened = store_->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
    }
    std::size_t rows() { return store_->rows(kSessionsTable).size(); }
    void leave_sessions(std::uint32_t count) {
        ASSERT_TRUE(store_->leave_sessions(count, table_, key_));
    }
    bool remembered(std::uint32_t uid, const SessionId& session) {
        const auto key = std::as_bytes(std::span(session.bytes));
        const auto all = store_->rows(kSessionsTable);
        const auto row = all.find({key.begin(), key.end()});
        return row != all.end() &&
               column_integer(sessions_schema(), kSessionsUid, key.data(), row->second) == uid;
    }
    void wait(std::uint64_t ns) {
        store_->clock.advance_ns(ns);
        store_->run_until([] { return false; }, 200);
    }

    SimStoreOptions options_ = small_store();
    std::optional<SimStore> store_;
    TableId table_;
    std::array<std::byte, 4> key_{};
};

TEST_F(SessionRows, StayWithinTheBoundAndThoseOfClientsThatAreThere) {
    const SessionId kept{{1}};
    SimClient& attached = store_->connect(Rights::kWriter, kept);
    TransactionBytes nothing;
    nothing.operation(OperationKind::kCheckAbsent, table_, key_, {});
    ASSERT_EQ(store_->commit(attached, nothing).error, Error::kOk);
    wait(kSecondUs * 1'000);
    leave_sessions(5 * kMax);
    EXPECT_GT(rows(), 5 * kMax);  // clients of the life before might come back
    wait(kPauseNs);
    EXPECT_LE(rows(), kMax + 2);
    EXPECT_TRUE(remembered(0, kept));  // the oldest, but it is in use
    EXPECT_EQ(store_->commit(attached, nothing).error, Error::kOk);
    EXPECT_TRUE(std::ranges::any_of(store_->log_lines, [](const std::string& line) {
        return line.find("user 0 has more than 64 sessions") != std::string::npos;
    }));
    // From now on the bound is kept as they come.
    for (int i = 0; i < 10; ++i) {
        leave_sessions(kMax / 2);
        wait(1'000'000);
        EXPECT_LE(rows(), kMax + kMax / 8 + kMax / 2 + 2);
    }
}

TEST_F(SessionRows, ARestartCountsThemAnew) {
    leave_sessions(5 * kMax);
    const std::size_t before = rows();
    open(store_->disk->power_loss(7));
    EXPECT_EQ(rows(), before);
    wait(1);  // from here on clients may come back
    wait(kPauseNs / 2);
    const SessionId young{{9}};
    SimClient& client = store_->connect(Rights::kWriter, young);
    TransactionBytes nothing;
    nothing.operation(OperationKind::kCheckAbsent, table_, key_, {});
    ASSERT_EQ(store_->commit(client, nothing).error, Error::kOk);
    store_->disconnect(client);
    wait(kPauseNs / 6);
    EXPECT_EQ(rows(), before + 1);
    wait(kPauseNs / 2);
    EXPECT_LE(rows(), kMax + 1);
    EXPECT_TRUE(remembered(0, young));
    ASSERT_TRUE(store_->stop());
    EXPECT_EQ(store_->verify(), "");
}

}  // namespace
}  // namespace bidstore
