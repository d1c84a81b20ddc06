// Reading through the client library, from pages that the test laid into a pool by hand.

#include <sys/wait.h>

#include <map>
#include <random>
#include <thread>

#include "clientlib/snapshot.h"
#include "tests/client_fixture.h"
#include "tests/seed.h"

namespace bidstore {
namespace {

class ClientRead : public ClientFixture {};

TEST_F(ClientRead, OpensTablesThroughTheCatalog) {
    EXPECT_EQ(items().raw().id(), kItems);
    Result<std::vector<RawTable>> listed = store_->tables(in(5s));
    ASSERT_TRUE(listed.ok()) << listed.failure().what;
    ASSERT_EQ(listed->size(), 2u);
    EXPECT_EQ((*listed)[0].name(), "items");
    EXPECT_EQ((*listed)[1].name(), "notes");
    EXPECT_EQ(store_->tables(in(5s), true)->size(), 3u);
    EXPECT_EQ(store_->open_raw("nothing", in(5s)).error(), Error::kNoSuchTable);
}

TEST_F(ClientRead, SchemaMismatchNamesTheColumn) {
    const auto wrong = store_->open<WrongItem>(in(5s));
    EXPECT_EQ(wrong.error(), Error::kSchemaMismatch);
    EXPECT_NE(wrong.failure().what.find("amount"), std::string::npos) << wrong.failure().what;
}

TEST_F(ClientRead, GetFindsEveryRowAndNoOther) {
    const Table<Item> table = items();
    const auto own = reader();
    const Snapshot now = snapshot(*own);
    for (std::uint32_t i = 0; i < 100; ++i) {
        const auto row = table.get(now, i / 10, i % 10);
        ASSERT_TRUE(row.ok()) << row.failure().what;
        ASSERT_TRUE(row->has_value()) << i;
        EXPECT_EQ((*row)->amount, i * 3);
        EXPECT_EQ((*row)->number, i % 10);
    }
    for (std::uint32_t i = 0; i < 20; ++i) {
        const auto row = table.get(now, i, 10 + i);
        ASSERT_TRUE(row.ok()) << row.failure().what;
        EXPECT_FALSE(row->has_value());
    }
}

TEST_F(ClientRead, RowsOfVariableLengthAreCopiedWithTheirText) {
    const auto notes = store_->open<Note>(in(5s));
    ASSERT_TRUE(notes.ok()) << notes.failure().what;
    const auto own = reader();
    Result<std::optional<Copy<Note>>> row = notes->get(*own, in(5s), 6u);
    ASSERT_TRUE(row.ok()) << row.failure().what;
    ASSERT_TRUE(row->has_value());
    const Copy<Note> kept = std::move(**row);
    EXPECT_EQ(kept.title, "title 3");
    EXPECT_EQ(kept.body, std::string(30, 'd'));
    EXPECT_EQ(kept.size, 3u);

    const Snapshot now = snapshot(*own);
    Copy<Note> again;
    ASSERT_TRUE(notes->get_into(again, now, 8u).ok());
    EXPECT_EQ(again.title, "title 4");
    const auto absent = notes->get_into(again, now, 9u);
    ASSERT_TRUE(absent.ok());
    EXPECT_FALSE(*absent);

    const auto place = notes->peek(now, 10u);
    ASSERT_TRUE(place.ok() && *place);
    EXPECT_EQ((*place)->get<&Note::title>(), "title 5");
    EXPECT_EQ((*place)->copy().body, std::string(50, 'f'));
    EXPECT_TRUE(now.valid());
}

TEST_F(ClientRead, ASnapshotKeepsItsVersions) {
    const Table<Item> table = items();
    const auto first = reader();
    const auto second = reader();
    const Snapshot before = snapshot(*first);
    EXPECT_EQ(before.csn(), Csn{kFirstCsn});
    EXPECT_EQ((*table.get(before, 0, 3))->amount, 9u);

    put_item_leaf(kItemsRoot, 0, kFirstCsn + 1, 1000);
    put_item_leaf(kItemsRoot, 0, kFirstCsn + 2, 2000);
    // Not yet published: nobody sees it.
    EXPECT_EQ((*table.get(*second, in(5s), 0, 3))->amount, 9u);
    daemon_.publish(kFirstCsn + 1);
    EXPECT_EQ((*table.get(*second, in(5s), 0, 3))->amount, 1009u);
    daemon_.publish(kFirstCsn + 2);
    EXPECT_EQ((*table.get(*second, in(5s), 0, 3))->amount, 2009u);

    EXPECT_EQ((*table.get(before, 0, 3))->amount, 9u);
    EXPECT_TRUE(before.valid());
}

// Random bounds, both directions, with and without limit, against a map.
TEST_F(ClientRead, ScansAgreeWithAModel) {
    const Table<Item> table = items();
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> model;
    for (std::uint32_t i = 0; i < 100; ++i) model[{i / 10, i % 10}] = i * 3;
    const auto own = reader();
    const Snapshot now = snapshot(*own);
    const std::uint64_t seed = seed_of_chance();
    std::mt19937_64 random(seed);
    for (int round = 0; round < 500; ++round) {
        std::uint32_t low[2] = {static_cast<std::uint32_t>(random() % 12),
                                static_cast<std::uint32_t>(random() % 12)};
        std::uint32_t high[2] = {static_cast<std::uint32_t>(random() % 12),
                                 static_cast<std::uint32_t>(random() % 12)};
        const auto low_parts = static_cast<unsigned>(random() % 3);
        const auto high_parts = static_cast<unsigned>(random() % 3);
        ScanOptions options;
        options.reverse = random() % 2 == 0;
        if (random() % 2 == 0) options.limit = random() % 30;
        const auto bound = [&](unsigned parts, const std::uint32_t* of) {
            if (parts == 0) return table.prefix();
            return parts == 1 ? table.prefix(of[0]) : table.prefix(of[0], of[1]);
        };
        auto from = low_parts == 0 ? model.begin()
                                   : model.lower_bound({low[0], low_parts == 2 ? low[1] : 0});
        auto to = high_parts == 0 ? model.end()
                                  : model.lower_bound({high[0], high_parts == 2 ? high[1] : 0});
        std::vector<std::uint64_t> expected;
        if (low_parts == 0 || high_parts == 0 || from == model.end() || to == model.end() ||
            from->first < to->first) {
            for (auto at = from; at != to && at != model.end(); ++at) {
                expected.push_back(at->second);
            }
        }
        const std::uint64_t rows = expected.size();
        if (options.reverse) std::reverse(expected.begin(), expected.end());
        if (expected.size() > options.limit) expected.resize(options.limit);

        std::vector<std::uint64_t> got;
        Cursor<Item> cursor =
            table.scan(now, bound(low_parts, low), bound(high_parts, high), options);
        while (cursor.next()) got.push_back(cursor.row().get<&Item::amount>());
        ASSERT_TRUE(cursor.status().ok()) << cursor.status().failure().what;
        ASSERT_EQ(got, expected) << seed_text(seed) << ", round " << round;
        const auto count = table.count(now, bound(low_parts, low), bound(high_parts, high));
        ASSERT_TRUE(count.ok());
        ASSERT_EQ(*count, rows) << seed_text(seed) << ", round " << round;
    }
}

// Pages go and commits come between any two rows: the scan lets go of its frames at misses and goes
// on where it was.
TEST_F(ClientRead, StreamingScansGoOnWhereTheyLetGo) {
    const Table<Item> table = items();
    const auto own = reader();
    const std::uint64_t seed = seed_of_chance();
    std::mt19937_64 random(seed);
    std::uint64_t csn = kFirstCsn;
    for (int round = 0; round < 40; ++round) {
        const Snapshot now = snapshot(*own);
        const auto low = static_cast<std::uint32_t>(random() % 100);
        const auto high = low + static_cast<std::uint32_t>(random() % (100 - low + 1));
        ScanOptions options;
        options.streaming = true;
        options.reverse = random() % 2 == 0;
        Cursor<Item> cursor = table.scan(now, table.prefix(low / 10, low % 10),
                                         table.prefix(high / 10, high % 10), options);
        std::vector<std::uint64_t> got;
        std::vector<std::uint64_t> expected;
        while (cursor.next()) {
            got.push_back(cursor.row().get<&Item::amount>());
            if (random() % 3 == 0) daemon_.publish(++csn);
            const auto number = static_cast<std::uint32_t>(random() % 20);
            const PageId page = random() % 8 == 0 ? node_page(kItemsRoot, number % 5)
                                                  : leaf_page(kItemsRoot, number);
            if (daemon_.versions().mapped(page) != kNoFrame) daemon_.evict(page);
            // Another read under the same snapshot waits for a page in the middle of the scan.
            if (random() % 4 == 0) {
                ASSERT_TRUE(table.get(now, 3, 3).ok());
            }
        }
        ASSERT_TRUE(cursor.status().ok()) << cursor.status().failure().what;
        for (std::uint32_t i = low; i < high; ++i) expected.push_back(i * 3);
        if (options.reverse) std::reverse(expected.begin(), expected.end());
        ASSERT_EQ(got, expected) << seed_text(seed) << ", round " << round;
        const auto count = table.count(now);
        ASSERT_TRUE(count.ok()) << count.failure().what;
        ASSERT_EQ(*count, 100u);
    }
}

TEST_F(ClientRead, NewestGivesTheLastRowsOfAPrefix) {
    const Table<Item> table = items();
    const auto own = reader();
    const Snapshot now = snapshot(*own);
    std::vector<std::uint32_t> numbers;
    Cursor<Item> cursor = table.newest(now, 3, 4);
    while (cursor.next()) {
        const auto row = cursor.copy();
        ASSERT_TRUE(row.ok());
        EXPECT_EQ(row->group, 4u);
        numbers.push_back(row->number);
    }
    EXPECT_TRUE(cursor.status().ok());
    EXPECT_EQ(numbers, (std::vector<std::uint32_t>{9, 8, 7}));
    EXPECT_FALSE(table.newest(now, 3, 77).next());
    Cursor<Item> last = table.newest(now, 1);
    ASSERT_TRUE(last.next());
    EXPECT_EQ(last.row().get<&Item::amount>(), 297u);
}

TEST_F(ClientRead, PrefixEndIsAboveThePrefixAlone) {
    const auto make = [](std::initializer_list<int> values) {
        std::vector<std::byte> bytes;
        for (int value : values) bytes.push_back(static_cast<std::byte>(value));
        return bytes;
    };
    EXPECT_EQ(prefix_end(make({1, 2})), make({1, 3}));
    EXPECT_EQ(prefix_end(make({1, 255})), make({2}));
    EXPECT_EQ(prefix_end(make({255, 255})), make({}));
}

TEST_F(ClientRead, PeekManyFindsWhatPeekFindsInAnyOrder) {
    const Table<Item> table = items();
    const auto own = reader();
    std::mt19937 random(12);
    const Snapshot now = snapshot(*own);
    for (std::size_t count = 0; count < 150; ++count) {
        // Keys that are there and some that are not, the same one more than once.
        std::vector<Key<Item>> keys;
        for (std::size_t i = 0; i < count; ++i) {
            const auto number = static_cast<std::uint32_t>(random() % 144);
            keys.push_back(table.key(number / 12, number % 12));
        }
        std::vector<std::optional<Row<Item>>> rows(count);
        ASSERT_TRUE(table.peek_many(now, keys, rows).ok());
        for (std::size_t i = 0; i < count; ++i) {
            const auto alone = table.peek(now, keys[i]);
            ASSERT_TRUE(alone.ok());
            ASSERT_EQ(rows[i].has_value(), alone->has_value()) << count << " keys, number " << i;
            if (!rows[i]) continue;
            EXPECT_EQ(rows[i]->raw().value.data(), (*alone)->raw().value.data());
            EXPECT_EQ(rows[i]->raw().key.data(), (*alone)->raw().key.data());
        }
    }
    std::vector<Key<Item>> keys(3, table.key(0, 3));
    std::vector<std::optional<Row<Item>>> rows(2);
    EXPECT_EQ(table.peek_many(now, keys, rows).error(), Error::kInvalid);
}

TEST_F(ClientRead, ARevokedSnapshotIsNeverBelieved) {
    const Table<Item> table = items();
    const auto own = reader();
    const Snapshot now = snapshot(*own);
    const auto place = table.peek(now, 0, 3);
    ASSERT_TRUE(place.ok() && *place);
    Cursor<Item> cursor = table.scan(now);
    ASSERT_TRUE(cursor.next());
    daemon_.revoke_all();
    EXPECT_FALSE(now.valid());
    EXPECT_EQ(table.get(now, 0, 3).error(), Error::kSnapshotExpired);
    EXPECT_EQ(table.get(now, 50, 3).error(), Error::kSnapshotExpired);
    EXPECT_EQ(table.peek(now, 50, 3).error(), Error::kSnapshotExpired);
    EXPECT_EQ(table.count(now).error(), Error::kSnapshotExpired);
    EXPECT_EQ(table.multi_get(now, std::array{table.key(0, 3)}).error(), Error::kSnapshotExpired);
    while (cursor.next()) {
    }
    EXPECT_EQ(cursor.status().error(), Error::kSnapshotExpired);
    EXPECT_EQ(cursor.copy().error(), Error::kSnapshotExpired);
}

TEST_F(ClientRead, ACallWithASnapshotOfItsOwnBeginsAgain) {
    const Table<Item> table = items();
    const auto own = reader();
    int tries = 0;
    const auto row = read_once(*own, in(5s), [&](const Snapshot& now) {
        if (++tries < 3) daemon_.revoke_all();
        return table.get(now, 0, 3);
    });
    ASSERT_TRUE(row.ok()) << row.failure().what;
    EXPECT_EQ((*row)->amount, 9u);
    EXPECT_EQ(tries, 3);
}

TEST_F(ClientRead, OneSnapshotIsLiveAtATime) {
    const auto own = reader();
    Snapshot now = snapshot(*own);
    EXPECT_EQ(own->snapshot(in(1s)).error(), Error::kInvalid);
    Snapshot moved = std::move(now);
    EXPECT_TRUE(moved.valid());
    EXPECT_FALSE(now.valid());
    moved.end();
    EXPECT_EQ(items().get(moved, 0, 3).error(), Error::kInvalid);
    EXPECT_TRUE(own->snapshot(in(1s)).ok());
}

TEST_F(ClientRead, ACursorEndsWithItsSnapshot) {
    const Table<Item> table = items();
    const auto own = reader();
    Snapshot now = snapshot(*own);
    Cursor<Item> cursor = table.scan(now);
    ASSERT_TRUE(cursor.next());
    now.end();
    EXPECT_FALSE(cursor.next());
    EXPECT_EQ(cursor.status().error(), Error::kInvalid);
    const Snapshot next = snapshot(*own);
    EXPECT_FALSE(cursor.next());
}

TEST_F(ClientRead, ReaderSlotsRunOutAndComeBack) {
    items();  // the store's own reader takes one
    std::vector<std::unique_ptr<Reader>> readers;
    for (int i = 0; i < 7; ++i) readers.push_back(reader());
    EXPECT_EQ(store_->reader().error(), Error::kBusy);
    readers.pop_back();
    EXPECT_TRUE(store_->reader().ok());
}

// A table that was dropped and made again elsewhere: the root seen earlier is another table's now.
TEST_F(ClientRead, AStaleRootLeadsBackToTheCatalog) {
    const Table<Item> table = items();
    const auto own = reader();
    const auto other = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 3).ok());
    ASSERT_TRUE(table.get(*other, in(5s), 0, 3).ok());
    const PageId moved{400};
    put_items(moved, kFirstCsn + 1, 100);
    put_item_leaf(moved, 0, kFirstCsn + 2, 5000);
    daemon_.put_page(kItemsRoot, kFirstCsn + 2, TableId{99},
                     [](std::byte* page) { page_header(page).type = PageType::kFree; });
    daemon_.put_catalog(kFirstCsn + 2, {{kItems, moved, *Description<Item>::schema()}});
    daemon_.publish(kFirstCsn + 2);
    const auto row = table.get(*own, in(5s), 0, 3);
    ASSERT_TRUE(row.ok()) << row.failure().what;
    EXPECT_EQ((*row)->amount, 5009u);
    // All keys of a multi_get meet the old root; it is found again once.
    std::vector<Key<Item>> keys;
    for (std::uint32_t i = 0; i < 100; ++i) keys.push_back(table.key(i / 10, i % 10));
    const auto rows = table.multi_get(*other, in(5s), keys);
    ASSERT_TRUE(rows.ok()) << rows.failure().what;
    for (const auto& one : *rows) EXPECT_TRUE(one.has_value());
}

TEST_F(ClientRead, ADroppedTableIsNamed) {
    const Table<Item> table = items();
    const auto own = reader();
    const auto before = reader();
    const Snapshot whole = snapshot(*before);
    ASSERT_TRUE(table.get(*own, in(5s), 0, 3).ok());
    // Its row stays, so that the id is not used again; its pages go later.
    daemon_.put_catalog(kFirstCsn + 1,
                        {{kItems, kItemsRoot, *Description<Item>::schema(), kDroppedTableFlag}});
    daemon_.versions().drops_table(kFirstCsn + 1);
    EXPECT_TRUE(table.get(*own, in(5s), 0, 3).ok()) << "not visible yet";
    EXPECT_TRUE(table.get(*own, in(5s), 0, 3).ok());
    daemon_.publish(kFirstCsn + 1);
    EXPECT_TRUE(table.get(whole, 0, 3).ok());
    const auto gone = table.get(*own, in(5s), 0, 3);
    EXPECT_EQ(gone.error(), Error::kNoSuchTable);
    EXPECT_NE(gone.failure().what.find("items"), std::string::npos);
    EXPECT_EQ(store_->open<Item>(in(5s)).error(), Error::kNoSuchTable);
    EXPECT_TRUE(store_->tables(in(5s))->empty());
}

TEST_F(ClientRead, AWrongPageInTheTreeIsCorruption) {
    const Table<Item> table = items();
    const auto own = reader();
    daemon_.put_page(leaf_page(kItemsRoot, 0), kFirstCsn + 1, kNotes,
                     [](std::byte* page) { page_header(page).type = PageType::kLeaf; });
    daemon_.publish(kFirstCsn + 1);
    const auto broken = table.get(*own, in(5s), 0, 3);
    EXPECT_EQ(broken.error(), Error::kCorruption);
    EXPECT_NE(broken.failure().what.find("items"), std::string::npos);
    // The rest of the table goes on.
    EXPECT_TRUE(table.get(*own, in(5s), 5, 3).ok());
}

TEST_F(ClientRead, APageThatTheDaemonDoesNotKnowIsCorruption) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 3).ok());
    daemon_.versions().map(leaf_page(kItemsRoot, 0), kNoFrame);
    EXPECT_EQ(table.get(*own, in(5s), 0, 3).error(), Error::kCorruption);
}

// Whoever is told of a page wants to know what was in it: leaf 1 holds items 5 to 9 of group 0.
TEST_F(ClientRead, ABadPageIsNamedWithTableAndKeyRange) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 3).ok());
    daemon_.versions().map(leaf_page(kItemsRoot, 1), kNoFrame);
    const std::string page = "page " + std::to_string(leaf_page(kItemsRoot, 1).value);
    const std::string range = "keys from 0x0000000000000005 up to 0x0000000100000000 (exclusive)";
    const auto one = table.get(*own, in(5s), 0, 7);
    ASSERT_EQ(one.error(), Error::kCorruption);
    const std::vector<Key<Item>> keys{table.key(9, 1), table.key(0, 6)};
    const auto many = table.multi_get(*own, in(5s), keys);
    ASSERT_EQ(many.error(), Error::kCorruption);
    const auto rows = table.count(*own, in(5s));
    ASSERT_EQ(rows.error(), Error::kCorruption);
    for (const std::string& what : {one.failure().what, many.failure().what, rows.failure().what}) {
        EXPECT_NE(what.find("table items: " + page + ", " + range), std::string::npos) << what;
    }
    // The others go on.
    EXPECT_TRUE(table.get(*own, in(5s), 0, 3).ok());
    EXPECT_TRUE(table.get(*own, in(5s), 1, 0).ok());
}

// What a reader without a lease may see: any bytes at all. Wrong answers are fine, faults are not.
TEST_F(ClientRead, GarbageInPagesEndsEveryRead) {
    const Table<Item> table = items();
    const auto notes = store_->open<Note>(in(5s));
    ASSERT_TRUE(notes.ok());
    const auto own = reader();
    const std::uint64_t seed = seed_of_chance();
    std::mt19937_64 random(seed);
    SCOPED_TRACE(seed_text(seed));
    const PageId targets[] = {kItemsRoot, node_page(kItemsRoot, 2), leaf_page(kItemsRoot, 9),
                              kNotesRoot};
    for (int round = 0; round < 400; ++round) {
        const PageId target = targets[random() % std::size(targets)];
        std::byte* page = daemon_.pool().frame(FrameId{daemon_.versions().mapped(target)});
        std::array<std::byte, kPageBytes> saved;
        std::memcpy(saved.data(), page, kPageBytes);
        // Type, level and table stay right in most rounds, so that the rest is looked at.
        const std::size_t from = random() % 4 == 0 ? 8 : 64;
        for (std::size_t i = from; i < kPageBytes; ++i) page[i] = static_cast<std::byte>(random());
        page_header(page).count = static_cast<std::uint16_t>(random());
        Deadline deadline = in(2ms);
        {
            const Snapshot now = snapshot(*own, deadline);
            for (std::uint32_t i = 0; i < 100; i += 7) (void)table.get(now, i / 10, i % 10);
            std::uint64_t limit = 10'000;
            for (Cursor<Item> cursor = table.scan(now); limit-- != 0 && cursor.next();) {
                (void)cursor.row().get<&Item::amount>();
            }
            limit = 10'000;
            Cursor<Note> cursor = notes->scan(now, {}, {}, {.limit = 10'000, .reverse = true});
            while (limit-- != 0 && cursor.next()) (void)cursor.row().copy();
            for (std::uint32_t i = 0; i < 8; ++i) (void)notes->get(now, i);
        }
        std::memcpy(page, saved.data(), kPageBytes);
    }
    EXPECT_EQ(*table.count(*own, in(5s)), 100u);
}

TEST_F(ClientRead, AForkedChildIsRefusedAndHarmsNothing) {
    const Table<Item> table = items();
    const auto own = reader();
    Snapshot now = snapshot(*own);
    const pid_t child = ::fork();
    if (child == 0) {
        int wrong = 0;
        wrong += now.valid() ? 1 : 0;
        wrong += table.get(now, 0, 3).error() != Error::kInvalid ? 2 : 0;
        wrong += store_->reader().error() != Error::kInvalid ? 4 : 0;
        wrong += store_->open<Item>(in(1s)).error() != Error::kInvalid ? 8 : 0;
        now.end();
        wrong += own->snapshot(in(1s)).error() != Error::kInvalid ? 16 : 0;
        Transaction transaction;
        transaction.erase(table, table.key(0, 3));
        wrong += store_->commit(transaction, in(1s)).error() != Error::kInvalid ? 32 : 0;
        store_.reset();
        ::_exit(wrong);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_TRUE(now.valid());
    EXPECT_EQ((*table.get(now, 0, 3))->amount, 9u);
}

TEST_F(ClientRead, StatsAreCopied) {
    const auto stats = store_->stats(in(5s));
    ASSERT_TRUE(stats.ok());
    EXPECT_EQ(stats->visible_csn, kFirstCsn);
    EXPECT_EQ(stats->mode, EngineMode::kServing);
    EXPECT_NE(stats->instance_id, 0u);
}

}  // namespace
}  // namespace bidstore
