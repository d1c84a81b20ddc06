// Misses as the client library sees them: what is asked for, how it waits, what comes back.

#include <algorithm>
#include <array>
#include <thread>
#include <vector>

#include "clientlib/snapshot.h"
#include "shm/message.h"
#include "tests/client_fixture.h"

namespace bidstore {
namespace {

class ClientMisses : public ClientFixture {};

// A scan that waited kept what was evicted during the wait, when nothing had become visible before
// it: in a small pool that was the frame it waited for, and the snapshot was revoked.
TEST_F(ClientMisses, WhoeverWaitsKeepsNoFrame) {
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
    std::jthread getting([&] { EXPECT_EQ(table.get(now, 1, 7).error(), Error::kTimedOut); });
    std::this_thread::sleep_for(50ms);
    EXPECT_FALSE(daemon_.somebody_rests());
    getting.join();
    daemon_.serve_rings(true);
}

TEST_F(ClientMisses, AMissIsBroughtIn) {
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
TEST_F(ClientMisses, UseOfAWatchedPageIsMarkedButNotTheOneItWasAskedFor) {
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

TEST_F(ClientMisses, MultiGetAsksForAllMissesAtOnce) {
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

TEST_F(ClientMisses, MultiGetKeepsAtMostSoManyPagesUnderWay) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 0).ok());  // finds the root
    std::vector<Key<Item>> keys;
    for (std::uint32_t i = 0; i < 100; ++i) keys.push_back(table.key(i / 10, i % 10));
    for (const std::size_t most : {1u, 3u, 64u}) {
        for (std::uint32_t leaf = 0; leaf < 20; ++leaf) daemon_.evict(leaf_page(kItemsRoot, leaf));
        daemon_.serve_rings(false);
        std::uint64_t before = own->pages_asked_for();
        Snapshot late = snapshot(*own, in(50ms));
        EXPECT_EQ(table.multi_get(late, keys, most).error(), Error::kTimedOut);
        EXPECT_EQ(own->pages_asked_for() - before, std::min<std::size_t>(most, 20));
        late.end();
        before = own->pages_asked_for();
        daemon_.serve_rings(true);
        const Snapshot now = snapshot(*own);
        const auto rows = table.multi_get(now, keys, most);
        ASSERT_TRUE(rows.ok()) << rows.failure().what;
        for (std::uint32_t i = 0; i < 100; ++i) EXPECT_EQ((*rows)[i]->amount, i * 3);
        EXPECT_LE(own->pages_asked_for() - before, 20u);
    }
    const Snapshot now = snapshot(*own);
    EXPECT_EQ(table.multi_get(now, keys, 0).error(), Error::kInvalid);
}

// It used to hold every row in its page until the last one came: with many keys, beside the
// evictions of its own misses, the engine revoked the snapshot for the frames that it held.
TEST_F(ClientMisses, MultiGetKeepsNoFrameOfTheRowsItHasCopied) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 0).ok());
    daemon_.evict(leaf_page(kItemsRoot, 3));
    const std::vector<Key<Item>> keys = {table.key(0, 0), table.key(1, 7)};
    daemon_.serve_rings(false);
    std::jthread getting([&] {
        const Snapshot now = snapshot(*own, in(20s));
        const auto rows = table.multi_get(now, keys);
        ASSERT_TRUE(rows.ok()) << rows.failure().what;
        EXPECT_EQ((*rows)[0]->amount, 0u);
        EXPECT_EQ((*rows)[1]->amount, 51u);
    });
    const auto end = std::chrono::steady_clock::now() + 5s;
    while (!daemon_.somebody_rests() && std::chrono::steady_clock::now() < end) {
        std::this_thread::yield();
    }
    EXPECT_TRUE(daemon_.somebody_rests());
    daemon_.serve_rings(true);
}

// Evicted pages are kept for a snapshot until it is told of again: gets that all hit must tell,
// too.
TEST_F(ClientMisses, GetsThatHitKeepNoFrame) {
    const Table<Item> table = items();
    const auto own = reader();
    const Snapshot now = snapshot(*own, in(20s));
    ASSERT_TRUE(table.get(now, 0, 0).ok());
    const std::vector<Key<Item>> keys = {table.key(0, 0), table.key(1, 7)};
    const SlotOwner& slot = *ReaderState::of(now).slot;
    for (std::uint64_t csn = 100; csn < 103; ++csn) {
        daemon_.publish(csn);
        EXPECT_TRUE(slot.behind());
        if (csn % 2 == 0) {
            ASSERT_TRUE(table.get(now, 0, 0).ok());
        } else {
            ASSERT_TRUE(table.multi_get(now, keys).ok());
        }
        EXPECT_FALSE(slot.behind());
    }
    // Neither do gets that find no row, of either kind of table.
    const Result<Table<Note>> notes = store_->open<Note>(in(5s));
    ASSERT_TRUE(notes.ok());
    ASSERT_TRUE(notes->get(now, 0).ok());  // finds the root
    for (std::uint64_t csn = 103; csn < 105; ++csn) {
        daemon_.publish(csn);
        EXPECT_TRUE(slot.behind());
        const Key<Note> absent = Key<Note>::from(std::uint64_t{1});
        const bool there = csn % 2 == 0 ? notes->raw().get(now, absent.span())->has_value()
                                        : table.get(now, 99, 0)->has_value();
        EXPECT_FALSE(there);
        EXPECT_FALSE(slot.behind()) << csn;
    }
    // A row in its page is the caller's until the snapshot ends.
    ASSERT_TRUE(table.peek(now, 0, 0).ok());
    daemon_.publish(105);
    ASSERT_TRUE(table.get(now, 0, 0).ok());
    EXPECT_TRUE(slot.behind());
}

// A scan that gives its rows as copies has none out: its leaf, and the way there, are its own all
// the same, also from other reads of the same reader.
TEST_F(ClientMisses, AScanKeepsTheFramesThatItStandsOn) {
    const Table<Item> table = items();
    const auto own = reader();
    const Snapshot now = snapshot(*own, in(20s));
    ASSERT_TRUE(table.get(now, 0, 0).ok());
    const SlotOwner& slot = *ReaderState::of(now).slot;
    daemon_.publish(100);
    {
        auto cursor = table.scan(now, {}, {}, {.streaming = true});
        ASSERT_TRUE(cursor.next());
        EXPECT_FALSE(slot.behind());
        daemon_.publish(101);
        ASSERT_TRUE(table.get(now, 9, 9).ok());
        EXPECT_TRUE(slot.behind());
    }
    ASSERT_TRUE(table.get(now, 9, 9).ok());
    EXPECT_FALSE(slot.behind()) << "nobody stands anywhere";
}

// A root that has gone is noticed with pages under way that the daemon says it does not know.
TEST_F(ClientMisses, MultiGetFindsTheRootAgainWithPagesUnderWay) {
    const Table<Item> table = items();
    const auto own = reader();
    ASSERT_TRUE(table.get(*own, in(5s), 0, 0).ok());
    std::vector<Key<Item>> keys;
    for (std::uint32_t i = 0; i < 100; i += 5) keys.push_back(table.key(i / 10, i % 10));
    const PageId moved{400};
    put_items(moved, kFirstCsn + 1, 100);
    daemon_.put_catalog(kFirstCsn + 1, {{kItems, moved, *Description<Item>::schema()}});
    daemon_.publish(kFirstCsn + 1);
    for (std::uint32_t leaf = 0; leaf < 20; ++leaf) {
        daemon_.evict(leaf_page(kItemsRoot, leaf));
        const std::lock_guard hold(disk_.lock);
        disk_.pages.erase(leaf_page(kItemsRoot, leaf).value);
    }
    const Snapshot now = snapshot(*own);
    const auto rows = table.multi_get(now, keys, 4);
    ASSERT_TRUE(rows.ok()) << rows.failure().what;
    for (std::uint32_t i = 0; i < 20; ++i) EXPECT_EQ((*rows)[i]->amount, i * 15);
}

// The records of one read used to wait for each other: those posted kept the call slots that the
// next ones needed, and were not looked at before all were posted.
TEST_F(ClientMisses, MoreMissesThanCallSlotsHoldAreAskedForAsAnswersCome) {
    const Table<Item> table = items();
    const auto own = reader();
    const Snapshot now = snapshot(*own);
    constexpr std::size_t kRecords = 3 * FakeDaemon::Options{}.call_slots;
    const std::vector<PageId> pages(kRecords * kPagesPerRequest, leaf_page(kItemsRoot, 3));
    const std::uint32_t before = daemon_.page_requests();
    const Status came = request_pages(ReaderState::of(now), table.raw().info(), pages, nullptr);
    EXPECT_TRUE(came.ok()) << came.failure().what;
    EXPECT_EQ(daemon_.page_requests(), before + kRecords);
    const std::vector<PageId> unknown(pages.size(), PageId{999});
    EXPECT_EQ(request_pages(ReaderState::of(now), table.raw().info(), unknown, nullptr).error(),
              Error::kNoSuchPage);
}

TEST_F(ClientMisses, PrefetchAsksForWhatIsMissingOnceAndReadsFindItThere) {
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

// Which pages are missing was read from frames that may be anyone's by then.
TEST_F(ClientMisses, PrefetchAsksForNothingWhenItsLeaseIsOver) {
    const Table<Item> table = items();
    const auto own = reader();
    daemon_.evict(leaf_page(kItemsRoot, 3));
    const Snapshot now = snapshot(*own);
    ASSERT_TRUE(table.get(now, 0, 0).ok());  // finds the root
    daemon_.revoke_all();
    EXPECT_EQ(table.prefetch(now, std::array{table.key(1, 7)}).error(), Error::kSnapshotExpired);
    EXPECT_EQ(own->pages_asked_for(), 0u);
}

// ---- large values -------------------------------------------------------------------------------

constexpr std::uint32_t kValuePages = 16;

class LargeMisses : public ClientMisses {
  protected:
    // Notes whose bodies are of 64 KiB, and on the disk alone.
    void SetUp() override {
        ClientMisses::SetUp();
        const Schema schema = *Description<Note>::schema();
        daemon_.put_page(kNotesRoot, kFirstCsn + 1, kNotes, [&](std::byte* page) {
            const LeafLayout layout = LeafLayout::of(schema);
            LeafEdit edit(page, layout, schema);
            edit.init();
            for (std::uint32_t i = 0; i < kNoteCount; ++i) insert(edit, schema, i);
        });
        daemon_.publish(kFirstCsn + 1);
    }
    static void insert(LeafEdit& edit, const Schema& schema, std::uint32_t i) {
        const auto reference = stored_reference(body(i), PageId{first_page(i)});
        const std::uint32_t size = i;
        const ColumnContent contents[] = {{std::as_bytes(std::span("title", 5)), false},
                                          {reference, true}};
        std::vector<std::byte> row(row_value_bytes(schema, contents));
        write_row_value(row.data(), schema, std::as_bytes(std::span(&size, 1)), contents);
        edit.insert(i, Key<Note>::from(std::uint64_t{i}).span().data(), row);
    }
    static std::uint32_t first_page(std::uint32_t i) { return 500 + i * kValuePages; }
    static std::string body(std::uint32_t i) {
        return std::string(kValuePages * kPageBytes, static_cast<char>('a' + i));
    }
    void take_values_out() {
        for (std::uint32_t i = 0; i < kNoteCount; ++i) {
            const std::string value = body(i);
            for (std::uint32_t page = 0; page < kValuePages; ++page) {
                daemon_.versions().map(PageId{first_page(i) + page}, kNoFrame);
                const std::lock_guard hold(disk_.lock);
                std::memcpy(disk_.pages[first_page(i) + page].data(), value.data(), kPageBytes);
            }
        }
    }
    Table<Note> notes() {
        Result<Table<Note>> table = store_->open<Note>(in(5s));
        EXPECT_TRUE(table.ok()) << table.failure().what;
        return std::move(*table);
    }
    std::vector<Key<Note>> keys() const {
        std::vector<Key<Note>> all;
        for (std::uint64_t i = 0; i < kNoteCount; ++i) all.push_back(Key<Note>::from(i));
        return all;
    }
    static constexpr std::uint32_t kNoteCount = 16;
};

// They used to be fetched one value after another, with a wait for each.
TEST_F(LargeMisses, MultiGetAsksForThoseOfManyRowsTogether) {
    const Table<Note> table = notes();
    const auto own = reader();
    for (const std::size_t most : {1u, 20u, 64u}) {
        SCOPED_TRACE(most);
        take_values_out();
        ASSERT_TRUE(table.peek(snapshot(*own), 0).ok());  // finds the root
        daemon_.serve_rings(false);
        const std::uint64_t before = own->pages_asked_for();
        Snapshot late = snapshot(*own, in(50ms));
        EXPECT_EQ(table.multi_get(late, keys(), most).error(), Error::kTimedOut);
        const std::uint64_t values = (most + kValuePages - 1) / kValuePages;
        EXPECT_EQ(own->pages_asked_for() - before, values * kValuePages);
        late.end();
        daemon_.serve_rings(true);
        const Snapshot now = snapshot(*own);
        const auto rows = table.multi_get(now, keys(), most);
        ASSERT_TRUE(rows.ok()) << rows.failure().what;
        for (std::uint32_t i = 0; i < kNoteCount; ++i) EXPECT_TRUE((*rows)[i]->body == body(i));
        EXPECT_EQ(own->pages_asked_for() - before, kNoteCount * kValuePages);
    }
}

TEST_F(LargeMisses, PrefetchAsksForThoseOfRowsWhoseLeafIsThere) {
    const Table<Note> table = notes();
    const auto own = reader();
    take_values_out();
    const Snapshot now = snapshot(*own);
    ASSERT_TRUE(table.peek(now, 0).ok());  // finds the root
    ASSERT_TRUE(table.prefetch(now, keys()).ok());
    EXPECT_EQ(own->pages_asked_for(), kNoteCount * kValuePages);
    // A request is looked at whole before the next one: one more, and the pages are there.
    ASSERT_TRUE(request_pages(ReaderState::of(now), table.raw().info(),
                              std::array{leaf_page(kItemsRoot, 1)}, nullptr)
                    .ok());
    const auto rows = table.multi_get(now, keys());
    ASSERT_TRUE(rows.ok()) << rows.failure().what;
    for (std::uint32_t i = 0; i < kNoteCount; ++i) EXPECT_TRUE((*rows)[i]->body == body(i));
    EXPECT_EQ(own->pages_asked_for(), kNoteCount * kValuePages + 1);
}

TEST_F(ClientMisses, AScanReadsAhead) {
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

TEST_F(ClientMisses, AMissWaitsUntilTheDeadlineAndNoLonger) {
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
TEST_F(ClientMisses, CallSlotsOfGivenUpWaitsComeBack) {
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

}  // namespace
}  // namespace bidstore
