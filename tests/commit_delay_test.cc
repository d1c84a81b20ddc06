// Batches that are kept back for writers who were just answered: as numbers alone, and with clients
// that write one row after the other.
#include "engine/commit_delay.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kWriteNs = 80'000;
constexpr std::uint64_t kNowNs = 1'000'000;

TEST(CommitDelay, WhoIsAloneIsNotKept) {
    CommitDelay delay;
    EXPECT_EQ(delay.until_ns(0), 0u);
    delay.answered(1, 0, kWriteNs, kNowNs);
    EXPECT_EQ(delay.until_ns(0), 0u);
    delay.answered(0, 5, kWriteNs, kNowNs);  // relaxed writes were published: nobody comes back
    EXPECT_EQ(delay.until_ns(5), 0u);
}

TEST(CommitDelay, LastsUntilAllAreThereOrHalfALogWriteIsOver) {
    CommitDelay delay;
    delay.answered(3, 2, kWriteNs, kNowNs);
    EXPECT_EQ(delay.until_ns(2), kNowNs + kWriteNs / 2);
    EXPECT_EQ(delay.until_ns(4), kNowNs + kWriteNs / 2);
    EXPECT_EQ(delay.until_ns(5), 0u);
    delay.went_out(5);
    EXPECT_EQ(delay.until_ns(0), 0u);
}

TEST(CommitDelay, IsShortOnASlowDevice) {
    CommitDelay delay;
    delay.answered(3, 2, 10'000'000, kNowNs);
    EXPECT_EQ(delay.until_ns(2), kNowNs + CommitDelay::kMostNs);
}

// Of batches that nobody comes back for: how many of 1,000 are kept back.
TEST(CommitDelay, IsGivenUpWhereNobodyComesBackAndTriedAgainNowAndThen) {
    CommitDelay delay;
    std::vector<int> kept;
    for (int batch = 0; batch < 1'000; ++batch) {
        delay.answered(4, 1, kWriteNs, kNowNs);
        if (delay.until_ns(1) != 0) kept.push_back(batch);
        delay.went_out(1);
    }
    EXPECT_GE(kept.size(), 1'000 / (CommitDelay::kWithoutDelayMost + 1));
    EXPECT_LE(kept.size(), 25u);
    EXPECT_GT(kept.back(), 900);
    // They do come now: from the next trial on each batch has the delay.
    int without = 0;
    for (int batch = 0; batch < 200; ++batch) {
        delay.answered(4, 1, kWriteNs, kNowNs);
        without += delay.until_ns(1) == 0;
        delay.went_out(4);
    }
    EXPECT_LE(without, static_cast<int>(CommitDelay::kWithoutDelayMost));
}

// ---- clients in a loop ----

class ClosedLoop {
  public:
    ClosedLoop() {
        EXPECT_TRUE(store_.open().ok());
        for (int i = 0; i < kClients; ++i) clients_.push_back({&store_.connect(), {}, 0});
        auto schema =
            Schema::make("rows", {{"id", ColumnType::kU64, 0}, {"n", ColumnType::kU64, 0}}, 1);
        table_ = store_.create_table(*clients_.front().client, *schema);
        store_.disk->serve_one_by_one(store_.clock, 200'000);
    }

    // Writers in a batch, on average.
    double run() {
        const std::uint64_t batches = counter(Counter::kBatches);
        const std::uint64_t applied = counter(Counter::kTransactionsApplied);
        // They begin one after the other, so that a batch begins with one of them.
        for (std::size_t i = 0; i < clients_.size(); ++i) {
            clients_[i].free_ns = store_.clock.monotonic_ns() + 40'000 * i;
        }
        for (int round = 0; round < 20'000; ++round) {
            for (Client& client : clients_) step(client);
            store_.round();
        }
        return static_cast<double>(counter(Counter::kTransactionsApplied) - applied) /
               static_cast<double>(counter(Counter::kBatches) - batches);
    }

    static constexpr int kClients = 8;

  private:
    struct Client {
        SimClient* client;
        std::optional<std::uint32_t> token;
        std::uint64_t free_ns;
    };
    void step(Client& client) {
        const std::uint64_t now_ns = store_.clock.monotonic_ns();
        if (client.token) {
            const auto answer = client.client->answer(*client.token);
            if (!answer) return;
            EXPECT_EQ(answer->error, Error::kOk);
            client.token.reset();
            client.free_ns = now_ns + 30'000;
        }
        if (now_ns < client.free_ns) return;
        std::vector<std::byte> key(8);
        encode_key_integer(key.data(), ++rows_, 8, false);
        const std::vector<std::byte> value(8);
        TransactionBytes put;
        put.operation(OperationKind::kPut, table_, key, value);
        client.token = client.client->submit(put.bytes());
        EXPECT_TRUE(client.token.has_value());
    }
    std::uint64_t counter(Counter counter) {
        return store_.pool->stats().counter[static_cast<std::uint32_t>(counter)].load();
    }

    SimStore store_{small_store(), std::make_unique<SimDisk>(SimDiskOptions{}), 1};
    TableId table_;
    std::vector<Client> clients_;
    std::uint64_t rows_ = 0;
};

TEST(CommitDelay, WritersWhoWaitForEachWriteGetIntoOneBatch) {
    EXPECT_GT(ClosedLoop().run(), 0.9 * ClosedLoop::kClients);
}

}  // namespace
}  // namespace bidstore
