// A client that writes through the library, to a table of one row, and the daemon of the test
// (tests/fake_daemon.h) that it is attached to: stopped, started anew, told what to answer.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clientlib/bidstore.h"
#include "tests/fake_daemon.h"

struct Budget {
    std::uint64_t who = 0;
    std::int64_t left = 0;
    std::uint32_t spent = 0;
    std::string_view name;
};

template <>
struct bidstore::Describe<Budget> {
    static constexpr auto table = bidstore::table<Budget>(
        "budgets", keys(column<&Budget::who>("who")),
        values(column<&Budget::left>("left"), column<&Budget::spent>("spent"),
               column<&Budget::name>("name")));
};

namespace bidstore {

using namespace std::chrono_literals;

inline constexpr TableId kBudgets{16};
inline constexpr PageId kBudgetsRoot{90};

struct Operation {
    OperationHeader header;
    std::vector<std::byte> key;
    std::vector<std::byte> body;
};

inline std::vector<Operation> operations_of(std::span<const std::byte> bytes) {
    TransactionHeader transaction{};
    std::memcpy(&transaction, bytes.data(), sizeof transaction);
    std::vector<Operation> operations;
    std::size_t at = sizeof transaction;
    for (std::uint32_t i = 0; i < transaction.operation_count; ++i) {
        Operation operation{};
        std::memcpy(&operation.header, bytes.data() + at, sizeof operation.header);
        const auto key = bytes.subspan(at + sizeof operation.header, operation.header.key_bytes);
        const auto body = bytes.subspan(at + sizeof operation.header + key.size(),
                                        operation.header.body_bytes);
        operation.key.assign(key.begin(), key.end());
        operation.body.assign(body.begin(), body.end());
        operations.push_back(std::move(operation));
        at += align_up(sizeof(OperationHeader) + key.size() + body.size(), 8);
    }
    EXPECT_EQ(at, bytes.size());
    return operations;
}

class ClientSession : public testing::Test {
  protected:
    void SetUp() override {
        start_daemon();
        attach();
    }

    std::unique_ptr<FakeDaemon> make_daemon(FakeDaemon::Options options = {}) {
        return make_daemon(options, Description<Budget>::schema());
    }
    std::unique_ptr<FakeDaemon> make_daemon(FakeDaemon::Options options, Result<Schema> schema) {
        auto daemon = std::make_unique<FakeDaemon>(socket_, disk_, options);
        const LeafLayout layout = LeafLayout::of(*schema);
        daemon->put_catalog(1, {{kBudgets, kBudgetsRoot, *schema}});
        daemon->put_page(kBudgetsRoot, 1, kBudgets, [&](std::byte* page) {
            LeafEdit edit(page, layout, *schema);
            edit.init();
            const EncodedRow<Budget> row(Budget{7, ++starts_, 0, "seven"});
            edit.insert(0, row.key().data(), row.value());
        });
        daemon->publish(1);
        return daemon;
    }
    void start_daemon(FakeDaemon::Options options = {}) {
        daemon_ = make_daemon(options);
        daemon_->start();
    }
    // A kill and a new start.
    void restart_daemon() {
        daemon_->stop();
        start_daemon();
    }
    void attach() {
        Result<Store> store = Store::attach({.socket = socket_, .rights = Rights::kWriter}, in(5s));
        ASSERT_TRUE(store.ok()) << store.failure().what;
        store_.emplace(std::move(*store));
        Result<Table<Budget>> table = store_->open<Budget>(in(5s));
        ASSERT_TRUE(table.ok()) << table.failure().what;
        table_.emplace(std::move(*table));
    }
    // A transaction that can be told from others.
    Transaction spend(std::int64_t amount) {
        Transaction transaction;
        transaction.add<&Budget::left>(*table_, table_->key(7u), -amount, {.floor = 0});
        return transaction;
    }
    // The amounts of the applied transactions made by spend(), in order.
    std::vector<std::int64_t> spent() {
        const std::lock_guard hold(disk_.lock);
        std::vector<std::int64_t> amounts;
        for (const FakeDisk::Write& write : disk_.applied) {
            for (const Operation& operation : operations_of(write.bytes)) {
                AddBody body{};
                if (operation.body.size() != sizeof body) continue;
                std::memcpy(&body, operation.body.data(), sizeof body);
                amounts.push_back(-body.delta);
            }
        }
        return amounts;
    }
    // The newest number that a daemon decided.
    std::uint64_t decided() {
        const std::lock_guard hold(disk_.lock);
        return disk_.decided;
    }
    std::vector<std::int64_t> up_to(std::int64_t last) {
        std::vector<std::int64_t> all;
        for (std::int64_t i = 1; i <= last; ++i) all.push_back(i);
        return all;
    }

    TemporaryDirectory directory_;
    std::string socket_ = directory_.file("socket");
    FakeDisk disk_;
    std::int64_t starts_ = 0;
    std::unique_ptr<FakeDaemon> daemon_;
    std::optional<Store> store_;
    std::optional<Table<Budget>> table_;
};

}  // namespace bidstore
