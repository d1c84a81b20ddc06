// Handles where they do not belong, or where nothing is left of them: tables of another store,
// transactions that were moved from.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/client_fixture.h"

namespace {

// Its rows look like items, and mean something else.
struct Visit {
    std::uint64_t id = 0;
    std::uint64_t count = 0;
};

}  // namespace

template <>
struct bidstore::Describe<Visit> {
    static constexpr auto table = bidstore::table<Visit>(
        "visits", keys(column<&Visit::id>("id")), values(column<&Visit::count>("count")));
};

namespace bidstore {
namespace {

constexpr TableId kVisits = kItems;  // ids are given once in a file, not once in the world

// Beside the store of the fixture: another daemon, on another file.
class ClientHandles : public ClientFixture {
  protected:
    void SetUp() override {
        ClientFixture::SetUp();
        const Result<Schema> schema = Description<Visit>::schema();
        ASSERT_TRUE(schema.ok());
        const LeafLayout layout = LeafLayout::of(*schema);
        other_daemon_.put_catalog(1, {{kVisits, PageId{90}, *schema}});
        other_daemon_.put_page(PageId{90}, 1, kVisits, [&](std::byte* page) {
            LeafEdit edit(page, layout, *schema);
            edit.init();
            for (std::uint32_t i = 0; i < 8; ++i) {
                const EncodedRow<Visit> encoded(Visit{i, 1000 + i});
                edit.insert(i, encoded.key().data(), encoded.value());
            }
        });
        other_daemon_.publish(1);
        other_daemon_.start();
        Result<Store> other = attach(other_socket_);
        ASSERT_TRUE(other.ok()) << other.failure().what;
        other_.emplace(std::move(*other));
        Result<Table<Visit>> visits = other_->open<Visit>(in(5s));
        ASSERT_TRUE(visits.ok()) << visits.failure().what;
        visits_.emplace(std::move(*visits));
        Result<Reader> reader = other_->reader();
        ASSERT_TRUE(reader.ok());
        other_reader_.emplace(std::move(*reader));
    }

    static Result<Store> attach(const std::string& socket) {
        return Store::attach({.socket = socket, .rights = Rights::kWriter}, in(5s));
    }
    std::size_t applied(FakeDisk& disk) {
        const std::lock_guard hold(disk.lock);
        return disk.applied.size();
    }

    std::string other_socket_ = directory_.file("other");
    FakeDisk other_disk_;
    FakeDaemon other_daemon_{other_socket_, other_disk_, {.file = 2}};
    std::optional<Store> other_;
    std::optional<Table<Visit>> visits_;
    std::optional<Reader> other_reader_;
};

void expect_foreign(const Status& status) {
    EXPECT_EQ(status.error(), Error::kInvalid);
    if (status.ok()) return;
    EXPECT_NE(status.failure().what.find("another store"), std::string::npos)
        << status.failure().what;
}
template <class T>
void expect_foreign(const Result<T>& result) {
    expect_foreign(result.ok() ? Status{} : Status{result.failure()});
}

// A program attached anew, to a daemon on another file, and kept a table of before. Its id and its
// place among the store's tables were another table's there, and a read gave rows of that one.
TEST_F(ClientHandles, ATableOfAnotherFileIsNotRead) {
    const Table<Item> table = items();
    const Snapshot now = snapshot(*other_reader_);
    const auto visit = visits_->get(now, 3);  // finds the root
    ASSERT_TRUE(visit.ok()) << visit.failure().what;
    ASSERT_TRUE(visit->has_value());
    EXPECT_EQ((*visit)->count, 1003u);
    expect_foreign(table.get(now, 0, 3));
    expect_foreign(table.raw().get(now, table.key(0, 3).span()));
    expect_foreign(table.peek(now, 0, 3));
    const std::vector<Key<Item>> keys = {table.key(0, 3)};
    std::vector<std::optional<Row<Item>>> rows(1);
    expect_foreign(table.peek_many(now, keys, rows));
    expect_foreign(table.multi_get(now, keys));
    expect_foreign(table.prefetch(now, keys));
    expect_foreign(table.count(now));
    auto cursor = table.scan(now);
    EXPECT_FALSE(cursor.next());
    expect_foreign(cursor.status());
    auto newest = table.newest(now, 1);
    EXPECT_FALSE(newest.next());
    expect_foreign(newest.status());
    EXPECT_NE(cursor.status().failure().what.find("table items"), std::string::npos);
    EXPECT_TRUE(now.valid());
    EXPECT_EQ(*visits_->count(now), 8u);
}

TEST_F(ClientHandles, AnotherStoreOfTheSameFileReadsAndWritesTheTable) {
    const Table<Item> table = items();
    Result<Store> again = attach(socket_);
    ASSERT_TRUE(again.ok());
    store_.emplace(std::move(*again));
    const auto own = reader();
    EXPECT_EQ((*table.get(*own, in(5s), 0, 3))->amount, 9u);
    EXPECT_EQ(*table.count(*own, in(5s)), 100u);
    Transaction transaction;
    transaction.erase(table, table.key(0, 3));
    EXPECT_TRUE(store_->commit(transaction, in(5s)).ok());
}

TEST_F(ClientHandles, ATransactionGoesToTheFileOfItsTablesAlone) {
    const Table<Item> table = items();
    Transaction transaction;
    transaction.put(table, {0, 3, 1});
    expect_foreign(other_->commit(transaction, in(5s)));
    expect_foreign(other_->submit(transaction, in(5s)));
    transaction.clear();
    transaction.erase_range(table, {}, {});
    expect_foreign(other_->commit(transaction, in(5s)));
    EXPECT_TRUE(store_->commit(transaction, in(5s)).ok());
    transaction.clear();
    transaction.put(*visits_, {1, 1}).put(table, {0, 3, 1});
    expect_foreign(other_->commit(transaction, in(5s)));
    expect_foreign(store_->commit(transaction, in(5s)));
    EXPECT_EQ(applied(other_disk_), 0u);
    transaction.clear();
    transaction.put(*visits_, {1, 1});
    EXPECT_TRUE(other_->commit(transaction, in(5s)).ok());
    EXPECT_EQ(applied(other_disk_), 1u);
    EXPECT_EQ(applied(disk_), 1u);
}

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
