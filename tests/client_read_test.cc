// Reading through the client library, from pages that the test laid into a pool by hand.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <map>
#include <optional>
#include <random>
#include <thread>

#include "clientlib/bidstore.h"
#include "clientlib/snapshot.h"
#include "tests/fake_daemon.h"

namespace {

struct Item {
    std::uint32_t group = 0;
    std::uint32_t number = 0;
    std::uint64_t amount = 0;
};

struct Note {
    std::uint64_t id = 0;
    std::uint32_t size = 0;
    std::string_view title;
    std::string_view body;
};

// As Item, but for the type of a column.
struct WrongItem {
    std::uint32_t group = 0;
    std::uint32_t number = 0;
    std::int32_t amount = 0;
};

}  // namespace

template <>
struct bidstore::Describe<Item> {
    static constexpr auto table = bidstore::table<Item>(
        "items", keys(column<&Item::group>("group"), column<&Item::number>("number")),
        values(column<&Item::amount>("amount")));
};
template <>
struct bidstore::Describe<WrongItem> {
    static constexpr auto table = bidstore::table<WrongItem>(
        "items", keys(column<&WrongItem::group>("group"), column<&WrongItem::number>("number")),
        values(column<&WrongItem::amount>("amount")));
};
template <>
struct bidstore::Describe<Note> {
    static constexpr auto table = bidstore::table<Note>(
        "notes", keys(column<&Note::id>("id")),
        values(column<&Note::size>("size"), column<&Note::title>("title"),
               column<&Note::body>("body", bytes)));
};

namespace bidstore {
namespace {

using namespace std::chrono_literals;

constexpr TableId kItems{16};
constexpr TableId kNotes{17};
constexpr PageId kItemsRoot{100};
constexpr PageId kNotesRoot{90};
constexpr std::uint32_t kRowsPerLeaf = 5;
constexpr std::uint32_t kLeavesPerNode = 4;
constexpr std::uint64_t kFirstCsn = 10;

Item item(std::uint32_t i) { return {i / 10, i % 10, i * 3}; }

class ClientRead : public testing::Test {
  protected:
    void SetUp() override {
        const Result<Schema> items = Description<Item>::schema();
        const Result<Schema> notes = Description<Note>::schema();
        ASSERT_TRUE(items.ok() && notes.ok());
        daemon_.put_catalog(kFirstCsn,
                            {{kSessionsTable, PageId{5}, sessions_schema(), kSystemTableFlag},
                             {kItems, kItemsRoot, *items},
                             {kNotes, kNotesRoot, *notes}});
        put_items(kItemsRoot, kFirstCsn, 100);
        put_notes(kFirstCsn);
        daemon_.publish(kFirstCsn);
        daemon_.start();
        Result<Store> store = Store::attach({.socket = socket_}, in(5s));
        ASSERT_TRUE(store.ok()) << store.failure().what;
        store_.emplace(std::move(*store));
    }

    std::unique_ptr<Reader> reader() {
        Result<Reader> made = store_->reader();
        EXPECT_TRUE(made.ok()) << made.failure().what;
        return std::make_unique<Reader>(std::move(*made));
    }
    Snapshot snapshot(Reader& reader, Deadline deadline = in(5s)) {
        Result<Snapshot> made = reader.snapshot(deadline);
        EXPECT_TRUE(made.ok()) << made.failure().what;
        return std::move(*made);
    }
    Table<Item> items() {
        Result<Table<Item>> table = store_->open<Item>(in(5s));
        EXPECT_TRUE(table.ok()) << table.failure().what;
        return std::move(*table);
    }

    PageId leaf_page(PageId root, std::uint32_t leaf) const {
        return PageId{root.value + 100 + leaf};
    }
    PageId node_page(PageId root, std::uint32_t node) const {
        return PageId{root.value + 1 + node};
    }

    // A leaf of items [first, first + kRowsPerLeaf), amounts raised by `plus`.
    void put_item_leaf(PageId root, std::uint32_t leaf, std::uint64_t csn,
                       std::uint64_t plus = 0) {
        const Result<Schema> schema = Description<Item>::schema();
        const LeafLayout layout = LeafLayout::of(*schema);
        daemon_.put_page(leaf_page(root, leaf), csn, kItems, [&](std::byte* page) {
            LeafEdit edit(page, layout, *schema);
            edit.init();
            for (std::uint32_t i = 0; i < kRowsPerLeaf; ++i) {
                Item row = item(leaf * kRowsPerLeaf + i);
                row.amount += plus;
                const EncodedRow<Item> encoded(row);
                edit.insert(i, encoded.key().data(), encoded.value());
            }
        });
    }

    // A tree of three levels: root, inner nodes, leaves.
    void put_items(PageId root, std::uint64_t csn, std::uint32_t rows) {
        const InnerLayout layout = InnerLayout::of(8);
        const std::uint32_t leaves = rows / kRowsPerLeaf;
        const auto first_key = [&](std::uint32_t leaf) {
            return Key<Item>::of(item(leaf * kRowsPerLeaf));
        };
        const std::uint32_t nodes = leaves / kLeavesPerNode;
        for (std::uint32_t i = 0; i < leaves; ++i) put_item_leaf(root, i, csn);
        for (std::uint32_t node = 0; node < nodes; ++node) {
            daemon_.put_page(node_page(root, node), csn, kItems, [&](std::byte* page) {
                InnerEdit edit(page, layout);
                edit.init(1);
                for (std::uint32_t i = 0; i < kLeavesPerNode; ++i) {
                    const std::uint32_t leaf = node * kLeavesPerNode + i;
                    edit.insert(i, first_key(leaf).span().data(), leaf_page(root, leaf));
                }
            });
        }
        daemon_.put_page(root, csn, kItems, [&](std::byte* page) {
            InnerEdit edit(page, layout);
            edit.init(2);
            for (std::uint32_t node = 0; node < nodes; ++node) {
                edit.insert(node, first_key(node * kLeavesPerNode).span().data(),
                            node_page(root, node));
            }
        });
    }

    void put_notes(std::uint64_t csn) {
        const Result<Schema> schema = Description<Note>::schema();
        const LeafLayout layout = LeafLayout::of(*schema);
        daemon_.put_page(kNotesRoot, csn, kNotes, [&](std::byte* page) {
            LeafEdit edit(page, layout, *schema);
            edit.init();
            for (std::uint32_t i = 0; i < 8; ++i) {
                const std::string title = "title " + std::to_string(i);
                const std::string body(i * 10, static_cast<char>('a' + i));
                const EncodedRow<Note> encoded(Note{i * 2, i, title, body});
                edit.insert(i, encoded.key().data(), encoded.value());
            }
        });
    }

    TemporaryDirectory directory_;
    std::string socket_ = directory_.file("socket");
    FakeDisk disk_;
    FakeDaemon daemon_{socket_, disk_, {.frame_count = 8192}};  // reloads take new ones
    std::optional<Store> store_;
};

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
    const unsigned seed = std::random_device{}();
    std::mt19937 random(seed);
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
        Cursor<Item> cursor = table.scan(now, bound(low_parts, low), bound(high_parts, high),
                                         options);
        while (cursor.next()) got.push_back(cursor.row().get<&Item::amount>());
        ASSERT_TRUE(cursor.status().ok()) << cursor.status().failure().what;
        ASSERT_EQ(got, expected) << "seed " << seed << ", round " << round;
        const auto count = table.count(now, bound(low_parts, low), bound(high_parts, high));
        ASSERT_TRUE(count.ok());
        ASSERT_EQ(*count, rows) << "seed " << seed << ", round " << round;
    }
}

// Pages go and commits come between any two rows: the scan lets go of its frames at misses and goes
// on where it was.
TEST_F(ClientRead, StreamingScansGoOnWhereTheyLetGo) {
    const Table<Item> table = items();
    const auto own = reader();
    const unsigned seed = std::random_device{}();
    std::mt19937 random(seed);
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
        ASSERT_EQ(got, expected) << "seed " << seed << ", round " << round;
        const auto count = table.count(now);
        ASSERT_TRUE(count.ok()) << count.failure().what;
        ASSERT_EQ(*count, 100u);
    }
}

// A scan that waited kept what was evicted during the wait, when nothing had become visible before
// it: in a small pool that was the frame it waited for, and the snapshot was revoked.
TEST_F(ClientRead, WhoeverWaitsKeepsNoFrame) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 0).ok());
    daemon_.evict(leaf_page(kItemsRoot, 2));
    const auto rests = [&] {
        const auto end = std::chrono::steady_clock::now() + 5s;
        while (!daemon_.somebody_rests() && std::chrono::steady_clock::now() < end) {
            std::this_thread::yield();
        }
        return daemon_.somebody_rests();
    };
    daemon_.serve_rings(false);
    std::jthread counting([&] {
        const auto rows = table.count(*own, in(10s));
        EXPECT_TRUE(rows.ok() && *rows == 100);
    });
    EXPECT_TRUE(rests());
    daemon_.serve_rings(true);
    counting.join();
    while (daemon_.somebody_rests()) std::this_thread::yield();

    // With a row in the caller's hands it must not.
    daemon_.evict(leaf_page(kItemsRoot, 3));
    daemon_.serve_rings(false);
    const Snapshot now = snapshot(*own, in(200ms));
    ASSERT_TRUE(table.peek(now, 0, 0).ok());
    std::jthread getting([&] {
        EXPECT_EQ(table.get(now, 1, 7).error(), Error::kTimedOut);
    });
    std::this_thread::sleep_for(50ms);
    EXPECT_FALSE(daemon_.somebody_rests());
    getting.join();
    daemon_.serve_rings(true);
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

TEST_F(ClientRead, AMissIsBroughtIn) {
    const Table<Item> table = items();
    const auto own = reader();
    daemon_.evict(leaf_page(kItemsRoot, 3));
    daemon_.evict(node_page(kItemsRoot, 0));
    const auto row = table.get(*own, in(5s), 1, 7);
    ASSERT_TRUE(row.ok()) << row.failure().what;
    EXPECT_EQ((*row)->amount, 51u);
    EXPECT_EQ(daemon_.pages_requested(), 2u);
    EXPECT_EQ(own->pages_asked_for(), 2u);
}

// The engine evicts by what it is told: readers mark in their own segment what it wants to know.
TEST_F(ClientRead, UseOfAWatchedPageIsMarkedButNotTheOneItWasAskedFor) {
    const Table<Item> table = items();
    const auto own = reader();
    const Snapshot now = snapshot(*own);
    ReaderState& state = ReaderState::of(now);
    const TouchMarks& marks = state.connection->segment().marks()[state.slot_number];
    const PageId leaf = leaf_page(kItemsRoot, 3);
    std::uint32_t seen = marks.written.load();
    const auto marked = [&] {
        std::vector<std::uint32_t> pages(kTouchMarks);
        pages.resize(TouchWatcher::take(marks, seen, pages));
        return std::count(pages.begin(), pages.end(), leaf.value);
    };
    daemon_.versions().watch(leaf, true);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(table.get(now, 1, 7).ok());
    EXPECT_GE(marked(), 1);
    daemon_.versions().watch(leaf, false);
    for (int i = 0; i < 3'200; ++i) {
        ASSERT_TRUE(table.get(now, 1, 7).ok());
        if (i % 800 == 799) {
            const auto sampled = marked();  // the newest 128 marks hold about half of the 50
            EXPECT_GT(sampled, 10);
            EXPECT_LE(sampled, 110);
        }
    }
    daemon_.evict(leaf);
    ASSERT_TRUE(table.get(now, 1, 7).ok());
    EXPECT_EQ(marked(), 0);
}

TEST_F(ClientRead, MultiGetAsksForAllMissesAtOnce) {
    const Table<Item> table = items();
    const auto own = reader();
    for (std::uint32_t leaf = 0; leaf < 20; leaf += 2) daemon_.evict(leaf_page(kItemsRoot, leaf));
    const Snapshot now = snapshot(*own);
    ASSERT_TRUE(table.get(now, 0, 5).ok());  // finds the root
    std::vector<Key<Item>> keys;
    for (std::uint32_t i = 0; i < 110; ++i) keys.push_back(table.key(i / 10, i % 10));
    const std::uint32_t before = daemon_.page_requests();
    const auto rows = table.multi_get(now, keys);
    ASSERT_TRUE(rows.ok()) << rows.failure().what;
    ASSERT_EQ(rows->size(), 110u);
    for (std::uint32_t i = 0; i < 110; ++i) {
        ASSERT_EQ((*rows)[i].has_value(), i < 100) << i;
        if (i < 100) {
            EXPECT_EQ((*rows)[i]->amount, i * 3);
        }
    }
    EXPECT_EQ(daemon_.page_requests(), before + 1);
    EXPECT_EQ(daemon_.pages_requested(), 10u);
}

// The records of one read used to wait for each other: those posted kept the call slots that the
// next ones needed, and were not looked at before all were posted.
TEST_F(ClientRead, MoreMissesThanCallSlotsHoldAreAskedForAsAnswersCome) {
    const Table<Item> table = items();
    const auto own = reader();
    const Snapshot now = snapshot(*own);
    constexpr std::size_t kRecords = 3 * FakeDaemon::Options{}.call_slots;
    const std::vector<PageId> pages(kRecords * kPagesPerRequest, leaf_page(kItemsRoot, 3));
    const std::uint32_t before = daemon_.page_requests();
    const Status came =
        request_pages(ReaderState::of(now), table.raw().info(), pages, nullptr);
    EXPECT_TRUE(came.ok()) << came.failure().what;
    EXPECT_EQ(daemon_.page_requests(), before + kRecords);
    const std::vector<PageId> unknown(pages.size(), PageId{999});
    EXPECT_EQ(request_pages(ReaderState::of(now), table.raw().info(), unknown, nullptr).error(),
              Error::kNoSuchPage);
}

TEST_F(ClientRead, PrefetchAsksForWhatIsMissingOnceAndReadsFindItThere) {
    const Table<Item> table = items();
    const auto own = reader();
    for (std::uint32_t leaf = 0; leaf < 20; leaf += 2) daemon_.evict(leaf_page(kItemsRoot, leaf));
    std::vector<Key<Item>> keys;
    for (std::uint32_t i = 0; i < 100; i += 5) keys.push_back(table.key(i / 10, i % 10));
    Snapshot now = snapshot(*own);
    ASSERT_TRUE(table.get(now, 0, 5).ok());  // finds the root
    const std::uint32_t before = daemon_.page_requests();
    ASSERT_TRUE(table.prefetch(now, keys).ok());
    // A request is looked at whole before the next one: one more, and the pages are there.
    ASSERT_TRUE(request_pages(ReaderState::of(now), table.raw().info(),
                              std::array{leaf_page(kItemsRoot, 1)}, nullptr)
                    .ok());
    EXPECT_EQ(daemon_.pages_requested(), 10u + 1u);
    ASSERT_TRUE(table.prefetch(now, keys).ok());  // nothing to ask for any more
    const auto rows = table.multi_get(now, keys);
    ASSERT_TRUE(rows.ok()) << rows.failure().what;
    for (std::uint32_t i = 0; i < 20; ++i) EXPECT_EQ((*rows)[i]->amount, i * 15);
    EXPECT_EQ(daemon_.page_requests(), before + 2);
    now.end();
    EXPECT_EQ(table.prefetch(now, keys).error(), Error::kInvalid);
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

TEST_F(ClientRead, AScanReadsAhead) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 0).ok());
    for (std::uint32_t leaf = 1; leaf < 4; ++leaf) daemon_.evict(leaf_page(kItemsRoot, leaf));
    const auto rows = table.count(*own, in(5s));
    ASSERT_TRUE(rows.ok()) << rows.failure().what;
    EXPECT_EQ(*rows, 100u);
    EXPECT_EQ(daemon_.page_requests(), 1u);
    EXPECT_EQ(daemon_.pages_requested(), 3u);
    EXPECT_EQ(own->pages_asked_for(), 3u);
}

TEST_F(ClientRead, AMissWaitsUntilTheDeadlineAndNoLonger) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 0).ok());
    daemon_.evict(leaf_page(kItemsRoot, 3));
    daemon_.serve_rings(false);
    const auto late = table.get(*own, in(50ms), 1, 7);
    EXPECT_EQ(late.error(), Error::kTimedOut);
    daemon_.serve_rings(true);
    const auto row = table.get(*own, in(5s), 1, 7);
    ASSERT_TRUE(row.ok()) << row.failure().what;
    EXPECT_TRUE(row->has_value());
}

// More waits given up than there are call slots: the slots come back with the late answers.
TEST_F(ClientRead, CallSlotsOfGivenUpWaitsComeBack) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 0).ok());
    for (int round = 0; round < 3; ++round) {
        for (std::uint32_t leaf = 4; leaf < 20; ++leaf) daemon_.evict(leaf_page(kItemsRoot, leaf));
        daemon_.serve_rings(false);
        for (std::uint32_t leaf = 4; leaf < 20; ++leaf) {
            const std::uint32_t i = leaf * kRowsPerLeaf;
            EXPECT_EQ(table.get(*own, in(1ms), i / 10, i % 10).error(), Error::kTimedOut);
        }
        daemon_.serve_rings(true);
        EXPECT_EQ(*table.count(*own, in(5s)), 100u);
    }
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
    daemon_.put_page(kItemsRoot, kFirstCsn + 2, TableId{99}, [](std::byte* page) {
        page_header(page).type = PageType::kFree;
    });
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
    ASSERT_TRUE(table.get(*own, in(5s), 0, 3).ok());
    daemon_.put_page(kItemsRoot, kFirstCsn + 1, TableId{0}, [](std::byte* page) {
        page_header(page).type = PageType::kFree;
    });
    // Its row stays, so that the id is not used again.
    daemon_.put_catalog(kFirstCsn + 1,
                        {{kItems, kItemsRoot, *Description<Item>::schema(), kDroppedTableFlag}});
    daemon_.publish(kFirstCsn + 1);
    const auto gone = table.get(*own, in(5s), 0, 3);
    EXPECT_EQ(gone.error(), Error::kNoSuchTable);
    EXPECT_NE(gone.failure().what.find("items"), std::string::npos);
    EXPECT_EQ(store_->open<Item>(in(5s)).error(), Error::kNoSuchTable);
    EXPECT_TRUE(store_->tables(in(5s))->empty());
}

TEST_F(ClientRead, AWrongPageInTheTreeIsCorruption) {
    const Table<Item> table = items();
    const auto own = reader();
    daemon_.put_page(leaf_page(kItemsRoot, 0), kFirstCsn + 1, kNotes, [](std::byte* page) {
        page_header(page).type = PageType::kLeaf;
    });
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
    for (const std::string& what :
         {one.failure().what, many.failure().what, rows.failure().what}) {
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
    const unsigned seed = std::random_device{}();
    std::mt19937 random(seed);
    SCOPED_TRACE("seed " + std::to_string(seed));
    const PageId targets[] = {kItemsRoot, node_page(kItemsRoot, 2), leaf_page(kItemsRoot, 9),
                              kNotesRoot};
    for (int round = 0; round < 400; ++round) {
        const PageId target = targets[random() % std::size(targets)];
        std::byte* page =
            daemon_.pool().frame(FrameId{daemon_.versions().mapped(target)});
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
