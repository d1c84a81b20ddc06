// Who must not be disturbed by what others do: a thread that writes rounds into the table
// "counted".
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "tests/real_store.h"

namespace bidstore {

inline constexpr std::uint64_t kRoundRows = 40;  // ids from 0

// All rows of one round, in one transaction.
inline Transaction write_round(const Table<Counted>& counters, std::uint64_t round) {
    Transaction transaction;
    for (std::uint64_t id = 0; id < kRoundRows; ++id) {
        transaction.put(
            counters, {.id = id, .amount = static_cast<std::int64_t>(id + round), .round = round});
    }
    return transaction;
}

class Undisturbed {
  public:
    explicit Undisturbed(Store& store)
        : store_(store), counters_(need(store.open<Counted>(soon()))) {
        thread_ = std::thread([this] {
            while (!stop_) {
                const auto began = std::chrono::steady_clock::now();
                const auto result = store_.commit(write_round(counters_, rounds_ + 1), soon());
                EXPECT_TRUE(is_ok(result));
                slowest_ = std::max(slowest_, std::chrono::steady_clock::now() - began);
                ++rounds_;
            }
        });
    }
    ~Undisturbed() { end(); }
    void end() {
        stop_ = true;
        if (thread_.joinable()) thread_.join();
        EXPECT_LT(slowest_, std::chrono::seconds(10)) << "others were held up";
    }
    std::uint64_t rounds() const { return rounds_; }

  private:
    Store& store_;
    Table<Counted> counters_;
    std::atomic<bool> stop_{false};
    std::atomic<std::uint64_t> rounds_{0};
    std::chrono::steady_clock::duration slowest_{0};
    std::thread thread_;
};

}  // namespace bidstore
