// Reads by the key directory: what it says, whatever it is, changes no answer.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "clientlib/bidstore.h"
#include "clientlib/snapshot.h"
#include "shm/key_directory.h"
#include "tests/fake_daemon.h"
#include "tests/seed.h"

namespace {

struct Event {
    std::uint64_t id = 0;
    std::uint64_t time = 0;
    std::uint64_t amount = 0;
};

}  // namespace

template <>
struct bidstore::Describe<Event> {
    static constexpr auto table = bidstore::table<Event>(
        "events", keys(column<&Event::id>("id")),
        values(column<&Event::time>("time", timestamp), column<&Event::amount>("amount")),
        time_column("time"));
};

namespace bidstore {
namespace {

using namespace std::chrono_literals;

constexpr TableId kEvents{16};
constexpr PageId kRoot{100};
constexpr PageId kMoved{150};  // a page that comes later
constexpr std::uint32_t kLeaves = 8;
constexpr std::uint32_t kRowsPerLeaf = 6;
constexpr std::uint32_t kRows = kLeaves * kRowsPerLeaf;
constexpr std::uint64_t kFirstCsn = 10;

// Events 0 to 47 in eight leaves below one root; the time of each is its id, the amount thrice.
class DirectoryRead : public testing::Test {
  protected:
    void SetUp() override {
        const Result<Schema> schema = Description<Event>::schema();
        ASSERT_TRUE(schema.ok());
        schema_.emplace(*schema);
        put_catalog(kFirstCsn, 0);
        for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
            put_leaf(leaf_page(leaf), kFirstCsn, leaf * kRowsPerLeaf, (leaf + 1) * kRowsPerLeaf);
        }
        put_root(kFirstCsn, 0, {});
        daemon_.publish(kFirstCsn);
        daemon_.start();
        Result<Store> store = Store::attach({.socket = socket_}, in(5s));
        ASSERT_TRUE(store.ok()) << store.failure().what;
        store_.emplace(std::move(*store));
        Result<Table<Event>> table = store_->open<Event>(in(5s));
        ASSERT_TRUE(table.ok()) << table.failure().what;
        table_.emplace(std::move(*table));
        Result<Reader> reader = store_->reader();
        ASSERT_TRUE(reader.ok());
        reader_.emplace(std::move(*reader));
    }

    static PageId leaf_page(std::uint32_t leaf) { return PageId{kRoot.value + 1 + leaf}; }
    void put_catalog(std::uint64_t csn, std::uint32_t flags) {
        daemon_.put_catalog(csn, {{kSessionsTable, PageId{5}, sessions_schema(), kSystemTableFlag},
                                  {kEvents, kRoot, *schema_, flags}});
    }
    // A leaf of the events [first, end).
    void put_leaf(PageId page, std::uint64_t csn, std::uint64_t first, std::uint64_t end,
                  std::uint64_t plus = 0) {
        const LeafLayout layout = LeafLayout::of(*schema_);
        daemon_.put_page(page, csn, kEvents, [&](std::byte* bytes) {
            LeafEdit edit(bytes, layout, *schema_);
            edit.init();
            for (std::uint64_t id = first; id < end; ++id) {
                const EncodedRow<Event> row(Event{id, id + plus, id * 3 + plus});
                edit.insert(static_cast<std::uint32_t>(id - first), row.key().data(), row.value());
            }
        });
    }
    // `more`: a leaf beside the eight, and the first event that it covers.
    void put_root(std::uint64_t csn, std::uint64_t floor,
                  std::optional<std::pair<PageId, std::uint64_t>> more) {
        daemon_.put_page(kRoot, csn, kEvents, [&](std::byte* bytes) {
            const InnerLayout layout = InnerLayout::of(8);
            InnerEdit edit(bytes, layout);
            edit.init(1);
            std::uint32_t at = 0;
            for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
                const std::uint64_t first = leaf * kRowsPerLeaf;
                edit.insert(at++, Key<Event>::from(first).span().data(), leaf_page(leaf));
                if (!more || more->second / kRowsPerLeaf != leaf) continue;
                edit.insert(at++, Key<Event>::from(more->second).span().data(), more->first);
            }
            page_header(bytes).floor = floor;
        });
    }

    void enter(std::uint64_t id, PageId page, std::uint32_t row = 0) {
        writer_.enter(kEvents, Key<Event>::from(id).span().data(), 8, page, row);
        writer_.settle();
    }
    std::optional<std::uint64_t> amount(const Snapshot& snapshot, std::uint64_t id) {
        const auto row = table_->get(snapshot, id);
        EXPECT_TRUE(row.ok()) << row.failure().what;
        if (!row.ok() || !*row) return std::nullopt;
        return (*row)->amount;
    }
    std::optional<std::uint64_t> amount(std::uint64_t id) {
        const Result<Snapshot> snapshot = reader_->snapshot(in(5s));
        EXPECT_TRUE(snapshot.ok());
        return amount(*snapshot, id);
    }
    // Gets of all events and of some that are not there, one by one and together.
    void expect_all_right(const Snapshot& snapshot) {
        std::vector<Key<Event>> keys;
        for (std::uint64_t id = 0; id < kRows + 8; ++id) keys.push_back(table_->key(id));
        std::vector<std::optional<Row<Event>>> rows(keys.size());
        const Status found = table_->peek_many(snapshot, keys, rows);
        ASSERT_TRUE(found.ok()) << found.failure().what;
        for (std::uint64_t id = 0; id < keys.size(); ++id) {
            const bool there = id < kRows;
            const std::optional<std::uint64_t> expected =
                there ? std::optional(id * 3) : std::nullopt;
            EXPECT_EQ(amount(snapshot, id), expected) << id;
            ASSERT_EQ(rows[id].has_value(), there) << id;
            if (there) {
                EXPECT_EQ(rows[id]->get<&Event::amount>(), id * 3);
            }
        }
        EXPECT_TRUE(snapshot.valid());
    }

    TemporaryDirectory directory_;
    std::string socket_ = directory_.file("socket");
    FakeDisk disk_;
    FakeDaemon daemon_{socket_, disk_, {.frame_count = 4096, .directory_bytes = 8192}};
    KeyDirectoryWriter writer_{daemon_.pool().directory(), daemon_.pool().header().bucket_count,
                               daemon_.pool().page_map(), daemon_.pool().header().page_count};
    std::optional<Schema> schema_;
    std::optional<Store> store_;
    std::optional<Table<Event>> table_;
    std::optional<Reader> reader_;
};

// The rest of this file would be idle if nobody looked at the directory: here is a leaf of the
// table that no inner node names, as the engine never leaves one behind.
TEST_F(DirectoryRead, LeadsPastTheTree) {
    put_leaf(kMoved, kFirstCsn, 7, 9, 1000);
    EXPECT_EQ(amount(7), 21u) << "no entry yet, so by the tree";
    enter(7, kMoved, 0);
    EXPECT_EQ(amount(7), 1021u);
    enter(8, kMoved, 5);  // a row number that is wrong: the page is searched
    EXPECT_EQ(amount(8), 1024u);
}

TEST_F(DirectoryRead, AnyEntryGivesTheRightAnswer) {
    const std::uint32_t page_count = daemon_.pool().header().page_count;
    const PageId catalog = FakeDaemon::kCatalogRootPage;
    const std::array<PageId, 8> others{
        PageId{0}, PageId{1},          kRoot,       catalog,
        kMoved,    PageId{page_count}, PageId{~0u}, PageId{page_count - 1}};
    const std::uint64_t seed = seed_of_chance();
    SCOPED_TRACE(seed_text(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 60; ++round) {
        for (std::uint64_t id = 0; id < kRows + 8; ++id) {
            const bool leaf = random() % 2 == 0;
            const PageId page = leaf ? leaf_page(static_cast<std::uint32_t>(random() % kLeaves))
                                     : others[random() % others.size()];
            enter(id, page, static_cast<std::uint32_t>(random()));
        }
        if (round % 3 == 0) {  // and words that no engine ever wrote
            for (std::uint64_t i = 0; i < daemon_.pool().header().bucket_count; ++i) {
                daemon_.pool().directory()[i].entry[random() % kBucketEntries].store(random());
            }
        }
        const Result<Snapshot> snapshot = reader_->snapshot(in(5s));
        ASSERT_TRUE(snapshot.ok());
        expect_all_right(*snapshot);
    }
}

// The second half of leaf 2 goes to a new page. The entries lead there, where an older snapshot has
// no version; and back to the old page, where a newer one finds half of the rows.
TEST_F(DirectoryRead, ASnapshotBeforeASplitGoesByTheTree) {
    for (std::uint64_t id = 0; id < kRows; ++id) {
        enter(id, leaf_page(static_cast<std::uint32_t>(id) / kRowsPerLeaf),
              static_cast<std::uint32_t>(id) % kRowsPerLeaf);
    }
    Result<Reader> other = store_->reader();
    ASSERT_TRUE(other.ok());
    const Result<Snapshot> before = other->snapshot(in(5s));
    ASSERT_TRUE(before.ok());
    expect_all_right(*before);
    put_leaf(leaf_page(2), kFirstCsn + 1, 12, 15);
    put_leaf(kMoved, kFirstCsn + 1, 15, 18);
    put_root(kFirstCsn + 1, 0, std::pair{kMoved, std::uint64_t{15}});
    const auto both_right = [&] {
        expect_all_right(*before);
        const Result<Snapshot> now = reader_->snapshot(in(5s));
        ASSERT_TRUE(now.ok());
        expect_all_right(*now);
    };
    both_right();  // not published yet
    daemon_.publish(kFirstCsn + 1);
    both_right();
    for (std::uint64_t id = 15; id < 18; ++id)
        enter(id, kMoved, static_cast<std::uint32_t>(id - 15));
    both_right();
}

// Retention dropped the leaf unread: it stays in the pool, and the entries lead to it. What is dead
// in it may have been put anew elsewhere.
TEST_F(DirectoryRead, ADeadRowIsNoAnswer) {
    enter(3, leaf_page(0), 3);
    EXPECT_EQ(amount(3), 9u);
    put_root(kFirstCsn + 1, 6, {});  // the floor: events 0 to 5 are dead
    daemon_.publish(kFirstCsn + 1);
    EXPECT_EQ(amount(3), std::nullopt);
    put_leaf(kMoved, kFirstCsn + 2, 3, 4, 100);
    put_root(kFirstCsn + 2, 6, std::pair{kMoved, std::uint64_t{3}});
    daemon_.publish(kFirstCsn + 2);
    EXPECT_EQ(amount(3), 109u);
}

// The engine drops a table by its catalog row; root and leaves go with later batches.
TEST_F(DirectoryRead, ADroppedTableIsGoneThoughItsPagesAreThere) {
    enter(3, leaf_page(0), 3);
    EXPECT_EQ(amount(3), 9u);
    put_catalog(kFirstCsn + 1, kDroppedTableFlag);
    daemon_.versions().drops_table(kFirstCsn + 1);
    daemon_.publish(kFirstCsn + 1);
    const auto row = table_->get(*reader_, in(5s), std::uint64_t{3});
    EXPECT_EQ(row.error(), Error::kNoSuchTable);
}

// A freed page keeps its entries until others take their place.
TEST_F(DirectoryRead, AFreedOrReusedLeafIsNoAnswer) {
    enter(3, leaf_page(0), 3);
    put_leaf(kMoved, kFirstCsn + 1, 0, kRowsPerLeaf, 50);
    put_root(kFirstCsn + 1, 0, std::pair{kMoved, std::uint64_t{0}});
    daemon_.put_page(leaf_page(0), kFirstCsn + 1, kEvents,
                     [](std::byte* bytes) { page_header(bytes).type = PageType::kFree; });
    daemon_.publish(kFirstCsn + 1);
    EXPECT_EQ(amount(3), 59u);
    daemon_.put_page(leaf_page(0), kFirstCsn + 2, TableId{77}, [&](std::byte* bytes) {
        const LeafLayout layout = LeafLayout::of(*schema_);
        LeafEdit edit(bytes, layout, *schema_);
        edit.init();
        const EncodedRow<Event> row(Event{3, 3, 12345});
        edit.insert(0, row.key().data(), row.value());
    });
    daemon_.publish(kFirstCsn + 2);
    EXPECT_EQ(amount(3), 59u) << "another table's leaf by now";
}

// The page is not in the pool: asking for it is the tree's matter, which knows that it is wanted.
TEST_F(DirectoryRead, APageThatIsNotThereIsAskedForByTheTree) {
    enter(3, leaf_page(0), 3);
    enter(4, leaf_page(5), 4);
    daemon_.evict(leaf_page(0));
    daemon_.evict(leaf_page(5));
    EXPECT_EQ(amount(3), 9u);
    EXPECT_EQ(amount(4), 12u);
    EXPECT_EQ(daemon_.pages_requested(), 1u) << "leaf 5 has nothing to do with them";
}

// Rows in place are the caller's until the snapshot ends, whichever way they were found: a get in
// between tells the daemon of no look that would let their frames go.
TEST_F(DirectoryRead, RowsOfPeekManyAreHeldLikeThoseOfTheTree) {
    EXPECT_EQ(amount(40), 120u);  // finds the root
    put_leaf(kMoved, kFirstCsn, 0, kRowsPerLeaf, 1000);  // named by no inner node
    std::vector<Key<Event>> keys;
    for (std::uint32_t id = 0; id < kRowsPerLeaf; ++id) {
        keys.push_back(table_->key(id));
        enter(id, kMoved, id);
    }
    const Result<Snapshot> snapshot = reader_->snapshot(in(5s));
    ASSERT_TRUE(snapshot.ok());
    const SlotOwner& slot = *ReaderState::of(*snapshot).slot;
    daemon_.publish(kFirstCsn + 1);
    EXPECT_EQ(amount(*snapshot, 40), 120u);
    EXPECT_FALSE(slot.behind()) << "no row is out yet";
    std::vector<std::optional<Row<Event>>> rows(keys.size());
    ASSERT_TRUE(table_->peek_many(*snapshot, keys, rows).ok());
    daemon_.publish(kFirstCsn + 2);
    EXPECT_EQ(amount(*snapshot, 40), 120u);
    EXPECT_TRUE(slot.behind());
    for (std::uint64_t id = 0; id < keys.size(); ++id) {
        EXPECT_EQ(rows[id]->get<&Event::amount>(), id * 3 + 1000) << "by the directory";
    }
    EXPECT_TRUE(snapshot->valid());
}

// One wait for the device, not one for each level.
TEST_F(DirectoryRead, TheLeafIsAskedForWithWhatIsMissingOnTheWay) {
    EXPECT_EQ(amount(40), 120u);  // finds the root
    enter(8, leaf_page(1), 2);
    enter(14, PageId{999'999'999}, 2);  // is no page at all
    daemon_.evict(kRoot);
    daemon_.evict(leaf_page(1));
    daemon_.serve_rings(false);
    {
        const Result<Snapshot> late = reader_->snapshot(in(50ms));
        EXPECT_EQ(table_->get(*late, 8).error(), Error::kTimedOut);
        EXPECT_EQ(reader_->pages_asked_for(), 2u);
    }
    daemon_.serve_rings(true);
    EXPECT_EQ(amount(14), 42u);
    EXPECT_EQ(amount(8), 24u);
}

}  // namespace
}  // namespace bidstore
