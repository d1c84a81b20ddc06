// Handles of which nothing is left: transactions that were moved from.

#include <utility>

#include "tests/client_fixture.h"

namespace bidstore {
namespace {

class ClientHandles : public ClientFixture {
  protected:
    std::size_t applied(FakeDisk& disk) {
        const std::lock_guard hold(disk.lock);
        return disk.applied.size();
    }
};

// Its bytes were gone, and whatever came next read at address 0.
TEST_F(ClientHandles, ATransactionThatWasMovedFromIsEmpty) {
    const Table<Item> table = items();
    Transaction used;
    const auto expect_empty = [&] {
        EXPECT_TRUE(used.empty());
        EXPECT_EQ(used.result_count(), 0u);
        EXPECT_TRUE(used.status().ok());
        const auto refused = store_->commit(used, in(5s));
        EXPECT_EQ(refused.error(), Error::kInvalid);
        EXPECT_NE(refused.failure().what.find("without operations"), std::string::npos);
    };
    const auto build = [&] {
        used.add<&Item::amount>(table, table.key(0, 3), 1, {.want_result = true});
        used.update(table, table.key(0, 3), set<&Item::amount>(1));
    };
    build();
    Transaction kept = std::move(used);
    expect_empty();
    used.update(table, table.key(0, 3), set<&Item::amount>(1));
    EXPECT_EQ(used.operation_count(), 1u);
    used = std::move(kept);
    EXPECT_EQ(used.operation_count(), 2u);
    EXPECT_EQ(used.result_count(), 1u);
    used.RawTransaction::put(table.raw(), {}, {});  // a mistake, which goes along
    kept = std::move(used);
    EXPECT_EQ(kept.status().error(), Error::kInvalid);
    expect_empty();
    build();
    EXPECT_TRUE(store_->commit(used, in(5s)).ok());
    const Transaction copy = used;
    EXPECT_TRUE(store_->commit(copy, in(5s)).ok());
    EXPECT_EQ(applied(disk_), 2u);
}

}  // namespace
}  // namespace bidstore
