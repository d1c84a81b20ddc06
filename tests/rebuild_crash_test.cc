// Rebuilds that are cut off, at every write: done again, they lose no more than at once. Journals
// that are damaged. Files with anything damaged at random.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <random>

#include "tests/rebuild_fixture.h"

namespace bidstore {
namespace {

using Kind = RebuildNote::Kind;

class RebuildCrash : public RebuildFixture {
  protected:
    // The steps of a rebuild that change anything.
    static std::vector<std::uint64_t> writes_of(const SimDisk& disk) {
        std::vector<std::uint64_t> writes;
        const auto whole = disk.clone(7);
        whole->observe([&](std::uint64_t step, SimStep kind) {
            const bool changes = kind == SimStep::kSubmitWrite || kind == SimStep::kSubmitSync ||
                                 kind == SimStep::kResize;
            if (changes) writes.push_back(step);
        });
        EXPECT_TRUE(rebuild(*whole).status.ok());
        return writes;
    }
    // Of files that were rebuilt; as the daemon finds them.
    static RebuildRows rows_in(const SimDisk& disk) {
        SimStore store(rebuild_store(), disk.clone(4), 4);
        store.clock.set_wall_us(made().wall_us);
        const Status opened = store.open();
        EXPECT_TRUE(opened.ok()) << opened.failure().what;
        return opened ? rows_of(store) : RebuildRows{};
    }
    // A rebuild is cut off at each of these, and done again.
    static void expect_rows_behind_each(const std::vector<std::uint64_t>& writes,
                                        const SimDisk& disk,
                                        const std::function<RebuildRows(const SimDisk&)>& rows,
                                        const RebuildRows& expected) {
        for (const std::uint64_t step : writes) {
            SCOPED_TRACE("crash at step " + std::to_string(step));
            const auto cut_off = disk.clone(7);
            cut_off->crash_at(step);
            EXPECT_FALSE(rebuild(*cut_off).status.ok());
            const auto next =
                step % 3 == 0 ? cut_off->process_crash(step) : cut_off->power_loss(step);
            const Rebuilt again = rebuild(*next);
            ASSERT_TRUE(again.status.ok()) << again.status.failure().what;
            EXPECT_TRUE(rows(*next) == expected) << again.all();
            if (HasFailure()) break;
        }
    }
};

// Metadata, directory, an inner node, a leaf, a large value, a superblock copy; and a log of which
// some records are of lost rows.
TEST_F(RebuildCrash, EveryWriteMayBeTheLast) {
    std::vector<PageId> pages{directory_page(0), meta_page(1), level(kRowTable, 1)[0],
                              leaf_of(1'200), made().extents[1]};
    const auto disk = damaged(pages, made().logged.get());
    disk->flip(StoreFile::kData, kPageBytes + 60);
    const std::vector<std::uint64_t> writes = writes_of(*disk);
    const auto whole = disk->clone(7);
    const Rebuilt at_once = rebuild(*whole);
    ASSERT_TRUE(at_once.status.ok()) << at_once.status.failure().what;
    const std::size_t lost = check(*whole, at_once, made().logged_rows);
    ASSERT_GT(lost, 3u);
    ASSERT_TRUE(at_once.says("is left out")) << at_once.all();
    ASSERT_GT(writes.size(), 20u);
    RecordProperty("writes", static_cast<int>(writes.size()));
    const RebuildRows expected = rows_in(*whole);
    expect_rows_behind_each(writes, *disk, rows_in, expected);
}

// The last leaf of a catalog of several is lost, and the log has records of its tables.
TEST_F(RebuildCrash, LostTablesStayLostAndNoMore) {
    const ManyTables& many = many_tables();
    const auto disk = damaged({many.leaves.back()}, many.logged.get());
    const auto all_rows_in = [](const SimDisk& files) {
        SimStore store(rebuild_store(), files.clone(4), 4);
        store.clock.set_wall_us(made().wall_us);
        const Status opened = store.open();
        EXPECT_TRUE(opened.ok()) << opened.failure().what;
        if (!opened) return RebuildRows{};
        EXPECT_GT(store.create_table(store.connect(), timed_schema("next")).value,
                  kLateTable.value);
        EXPECT_EQ(store.verify(), "");
        return rows_of_all(store);
    };
    const auto whole = disk->clone(7);
    ASSERT_TRUE(rebuild(*whole).status.ok());
    const RebuildRows expected = all_rows_in(*whole);
    ASSERT_LT(expected.size(), many.logged_rows.size());
    ASSERT_GT(expected.size(), made().rows.size());
    const std::vector<std::uint64_t> writes = writes_of(*disk);
    ASSERT_GT(writes.size(), 10u);
    expect_rows_behind_each(writes, *disk, all_rows_in, expected);
}

// The log is made as long again at the last: before, whoever comes next is told again.
TEST_F(RebuildCrash, ShortLogStaysShortToTheLast) {
    const auto disk = damaged({leaf_of(1'200)}, made().logged.get());
    const std::uint64_t bytes = *disk->size_bytes(StoreFile::kLog);
    const std::uint64_t cut = superblock_of(*disk).log_position % bytes + 3 * kBlockBytes;
    ASSERT_LT(cut, bytes);
    ASSERT_TRUE(disk->resize(StoreFile::kLog, cut).ok());
    std::size_t short_still = 0;
    for (const std::uint64_t step : writes_of(*disk)) {
        SCOPED_TRACE("crash at step " + std::to_string(step));
        const auto cut_off = disk->clone(7);
        cut_off->crash_at(step);
        EXPECT_FALSE(rebuild(*cut_off).status.ok());
        const auto next = cut_off->process_crash(step);
        const bool is_short = *next->size_bytes(StoreFile::kLog) < bytes;
        short_still += is_short;
        const Rebuilt again = rebuild(*next);
        ASSERT_TRUE(again.status.ok()) << again.status.failure().what;
        EXPECT_EQ(again.says("made as long again"), is_short) << again.all();
        EXPECT_TRUE(is_short || !again.says("its rows are lost")) << again.all();
        if (HasFailure()) break;
    }
    EXPECT_GT(short_still, 5u);
}

// Copy 0 is written first. Torn, it leaves the other one, which must not be an older one.
TEST_F(RebuildCrash, OlderSuperblockCopyIsMendedFirst) {
    const auto disk = damaged({leaf_of(1'200)}, made().logged.get());
    const auto old = made().disk->peek(StoreFile::kData, 0, kBlockBytes);
    disk->poke(StoreFile::kData, kBlockBytes, old.data(), kBlockBytes);
    const auto newest = disk->peek(StoreFile::kData, 0, kBlockBytes);
    ASSERT_TRUE(newest != old);
    std::size_t changed = 0;
    for (const std::uint64_t step : writes_of(*disk)) {
        const auto cut_off = disk->clone(7);
        cut_off->crash_at(step);
        EXPECT_FALSE(rebuild(*cut_off).status.ok());
        const auto next = cut_off->process_crash(step);
        if (next->peek(StoreFile::kData, 0, kBlockBytes) == newest) continue;
        ++changed;
        EXPECT_TRUE(next->peek(StoreFile::kData, kBlockBytes, kBlockBytes) != old)
            << "crash at step " << step;
    }
    EXPECT_GT(changed, 0u);
}

class RebuildJournalTest : public RebuildCrash {
  protected:
    // The files of a daemon that crashed when its final checkpoint was named, and nothing of it in
    // its place.
    static std::unique_ptr<SimDisk> named() {
        for (std::uint64_t ahead = 1;; ahead += 2) {
            SimStore store(rebuild_store(), made().logged->clone(6), 6);
            store.clock.set_wall_us(made().wall_us);
            CHECK(store.open().ok());
            const std::uint64_t begin = store.disk->steps();
            store.disk->crash_at(begin + ahead);
            CHECK(!store.stop());
            auto disk = store.disk->power_loss(1);
            if (superblock_of(*disk).journal_pages > 0) return disk;
        }
    }
    static std::uint64_t first_image(const Superblock& superblock) {
        return journal_header_blocks(superblock.journal_pages) * kBlockBytes;
    }
};

TEST_F(RebuildJournalTest, IsUsedAsFarAsItIsThere) {
    const auto disk = named();
    const Superblock superblock = superblock_of(*disk);
    ASSERT_GT(superblock.journal_pages, 3u);
    const auto whole = disk->clone(1);
    const Rebuilt sound = rebuild(*whole);
    EXPECT_TRUE(sound.notes.empty()) << sound.all();
    EXPECT_EQ(check(*whole, sound, made().logged_rows), 0u);
    // Its list: images say themselves whose they are.
    const auto listless = disk->clone(1);
    listless->flip(StoreFile::kJournal, 20);
    const Rebuilt unlisted = rebuild(*listless);
    EXPECT_TRUE(unlisted.says("list is lost")) << unlisted.all();
    EXPECT_EQ(check(*listless, unlisted, made().logged_rows), 0u);
    // Each image: of leaves, of metadata, of the directory.
    for (std::uint32_t image = 0; image < superblock.journal_pages; ++image) {
        const auto damaged_one = disk->clone(1);
        damaged_one->flip(StoreFile::kJournal,
                          first_image(superblock) + image * kPageBytes + 1'000);
        const Rebuilt found = rebuild(*damaged_one);
        ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
        EXPECT_TRUE(found.says("the journal's image of page")) << found.all();
        EXPECT_LE(compare(rows_in(*damaged_one), found, made().logged_rows), 30u)
            << "more than a leaf has";
        if (HasFailure()) break;
    }
}

// Nothing but the journal's list knows that the page in its place is an older one.
TEST_F(RebuildJournalTest, PageOfALostImageIsLostAlsoWithoutMetadata) {
    const auto disk = named();
    const Superblock superblock = superblock_of(*disk);
    for (std::uint32_t image = 0; image < superblock.journal_pages; ++image) {
        const std::uint64_t at = first_image(superblock) + image * kPageBytes;
        const auto bytes = disk->peek(StoreFile::kJournal, at, kPageBytes);
        const PageHeader& header = page_header(bytes.data());
        if (header.table_id == kRowTable.value || header.type == PageType::kMeta ||
            header.type == PageType::kDirectory) {
            disk->flip(StoreFile::kJournal, at + 1'000);
        }
    }
    const Rebuilt found = rebuild(*disk);
    ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
    EXPECT_LE(compare(rows_in(*disk), found, made().logged_rows), 90u)
        << "leaves of rows 40 to 59 and 1,200";
    EXPECT_EQ(verify(*disk), "");
}

// The list is lost as well: the old metadata in their places are told by pages that are newer.
TEST_F(RebuildJournalTest, OldMetadataAreToldByTheirPages) {
    const auto disk = named();
    const Superblock superblock = superblock_of(*disk);
    disk->flip(StoreFile::kJournal, 20);
    for (std::uint32_t image = 0; image < superblock.journal_pages; ++image) {
        const std::uint64_t at = first_image(superblock) + image * kPageBytes;
        const auto bytes = disk->peek(StoreFile::kJournal, at, kPageBytes);
        const PageType type = page_header(bytes.data()).type;
        if (type == PageType::kMeta || type == PageType::kDirectory) {
            disk->flip(StoreFile::kJournal, at + 1'000);
        }
    }
    const Rebuilt found = rebuild(*disk);
    ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
    EXPECT_EQ(compare(rows_in(*disk), found, made().logged_rows), 0u) << found.all();
    EXPECT_TRUE(found.says("older than a page of its chunk")) << found.all();
}

// All that the last checkpoint changed is as it was before, and whole: no page can tell.
TEST_F(RebuildJournalTest, LostImagesWithoutTheListAreSaid) {
    const auto disk = named();
    const Superblock superblock = superblock_of(*disk);
    const std::uint64_t bytes =
        first_image(superblock) + std::uint64_t{superblock.journal_pages} * kPageBytes;
    const std::vector<std::byte> zeros(bytes);
    disk->poke(StoreFile::kJournal, 0, zeros.data(), zeros.size());
    const Rebuilt found = rebuild(*disk);
    ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
    EXPECT_TRUE(rows_in(*disk) != made().logged_rows) << "or nothing was tested";
    EXPECT_EQ(found.count(Kind::kPerhaps), 1u) << found.all();
    EXPECT_TRUE(found.covers(Kind::kPerhaps, kRowTable.value, row_key(50)));
    EXPECT_EQ(found.report.lost, 1u);
    EXPECT_TRUE(found.says("rows of all tables may be lost")) << found.all();
}

// An image of an older journal, in a journal without its list, over a place that has a newer page.
TEST_F(RebuildJournalTest, OlderImagesWithoutTheListAreNotTaken) {
    const auto disk = named();
    const Superblock superblock = superblock_of(*disk);
    std::map<std::uint32_t, std::vector<std::byte>> images;
    for (std::uint32_t image = 0; image < superblock.journal_pages; ++image) {
        const std::uint64_t at = first_image(superblock) + image * kPageBytes;
        const auto bytes = disk->peek(StoreFile::kJournal, at, kPageBytes);
        const PageHeader& header = page_header(bytes.data());
        if (header.type != PageType::kLeaf || header.table_id != kRowTable.value) continue;
        const std::uint64_t place = header.page_id * std::uint64_t{kPageBytes};
        const auto old = disk->peek(StoreFile::kData, place, kPageBytes);
        if (page_header(old.data()).page_id != header.page_id) continue;  // it is a new leaf
        disk->poke(StoreFile::kData, place, bytes.data(), kPageBytes);
        disk->poke(StoreFile::kJournal, at, old.data(), kPageBytes);
        images[header.page_id] = bytes;
    }
    ASSERT_GT(images.size(), 2u);
    disk->flip(StoreFile::kJournal, 20);
    const Rebuilt found = rebuild(*disk);
    ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
    EXPECT_EQ(compare(rows_in(*disk), found, made().logged_rows), 0u) << found.all();
    EXPECT_EQ(found.count(Kind::kPerhaps), 1u) << found.all();
}

TEST_F(RebuildCrash, AnythingDamagedAtRandom) {
    std::size_t refused = 0;
    for (std::uint64_t seed = 1; seed <= 14; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::mt19937_64 random(seed);
        const SimDisk& from = seed % 2 == 0 ? *made().disk : *made().logged;
        const auto disk = from.clone(seed);
        const std::uint64_t bytes = *disk->size_bytes(StoreFile::kData);
        for (std::uint64_t i = 0; i < 1 + seed; ++i) {
            disk->flip(StoreFile::kData, 2 * kPageBytes + random() % (bytes - 2 * kPageBytes),
                       static_cast<unsigned>(random() % 8));
        }
        const Rebuilt found = rebuild(*disk);
        refused += !found.status.ok();
        if (!found.status.ok()) continue;
        EXPECT_EQ(verify(*disk), "") << found.all();
        compare(rows_in(*disk), found, seed % 2 == 0 ? made().rows : made().logged_rows);
        if (HasFailure()) break;
    }
    EXPECT_LT(refused, 4u) << "the catalog is one page of a thousand";
}

// A lost root took the floor along: rows that were dead stay away.
TEST_F(RebuildCrash, LostRootOfATableWithRetentionHasAFloor) {
    SimStore store(rebuild_store(), made().disk->clone(8), 8);
    store.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    // Half an hour, and half of an hour more: the first rows are dead, others are not.
    for (int i = 0; i < 61; ++i) {
        store.clock.advance_ns(60'000'000'000);
        if (i == 30) put_timed_rows(store, client, 100, 140);
        store.run_until([] { return false; }, 5);
    }
    ASSERT_TRUE(store.stop());
    SimStore before(rebuild_store(), store.disk->clone(9), 9);
    before.clock.set_wall_us(store.clock.wall_us());
    ASSERT_TRUE(before.open().ok());
    const RebuildRows rows = rows_of(before);
    const auto expired =
        std::count_if(made().rows.begin(), made().rows.end(), [&](const auto& row) {
            return row.first.first == kTimedTable.value && !rows.contains(row.first);
        });
    ASSERT_GT(expired, 20);
    const PageId root = before.engine->core().storage().catalog->find(kTimedTable)->tree.root();
    const auto disk = damaged({root}, store.disk.get());
    const Rebuilt found = rebuild(*disk);
    ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
    EXPECT_EQ(verify(*disk), "");
    const auto root_page = disk->peek(StoreFile::kData, root.value * kPageBytes, kPageBytes);
    EXPECT_GT(page_header(root_page.data()).floor, 0u);
    EXPECT_EQ(found.count(Kind::kLost), 0u) << found.all();
    SimStore after(rebuild_store(), disk->clone(4), 4);
    after.clock.set_wall_us(store.clock.wall_us());
    ASSERT_TRUE(after.open().ok());
    compare(rows_of(after), found, rows);
    EXPECT_TRUE(found.covers(Kind::kUnproven, kTimedTable.value, row_key(1))) << found.all();
}

// The clock was set back: the log has a floor below the one that is made anew. The daemon would
// refuse it at each start.
TEST_F(RebuildCrash, LoggedFloorBelowTheOneMadeAnewHasNoEffect) {
    constexpr TableId kOther{kTimedTable.value + 1};
    constexpr std::uint64_t kMinuteUs = 60'000'000;
    SimStore store(rebuild_store(), made().disk->clone(8), 8);
    store.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    create_timed(store, client, timed_schema("other"));
    put_timed(store, client, 1, 100, kOther);
    const std::uint64_t newest_us = store.clock.wall_us();
    ASSERT_TRUE(store.stop());
    SimStore back(rebuild_store(), store.disk->clone(9), 9);
    back.clock.set_wall_us(newest_us - 80 * kMinuteUs);
    ASSERT_TRUE(back.open().ok());
    SimClient& writer = back.connect();
    put_timed(back, writer, 2, 100, kOther);
    back.clock.set_wall_us(newest_us - 10 * kMinuteUs);
    back.run_until([] { return false; }, 20);
    put_timed(back, writer, 3, 100, kOther);
    Tree& tree = back.engine->core().storage().catalog->find(kOther)->tree;
    ASSERT_GT(tree.floor(), 0u) << "or nothing is tested";
    ASSERT_LT(tree.floor(), newest_us - 60 * kMinuteUs);
    const PageId root = tree.root();
    back.disk->crash_now();
    const auto disk = damaged({root}, back.disk->power_loss(1).get());
    const Rebuilt found = rebuild(*disk);
    ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
    EXPECT_TRUE(found.says("a floor that falls")) << found.all();
    EXPECT_EQ(found.count(Kind::kLost), 1u) << found.all();
    EXPECT_EQ(verify(*disk), "") << "nor is it met again";
    EXPECT_TRUE(rebuild(*disk).notes.empty());
}

}  // namespace
}  // namespace bidstore
