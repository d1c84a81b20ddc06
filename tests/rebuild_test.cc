// Stores with something lost in them, of every kind, rebuilt: what is said to be lost is all that
// is lost, all rules hold, and the daemon serves.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "engine/dry_disk.h"
#include "engine/page/catalog_schema.h"
#include "tests/rebuild_fixture.h"
#include "tests/sealing.h"

namespace bidstore {
namespace {

using Kind = RebuildNote::Kind;

class RebuildTest : public RebuildFixture {
  protected:
    // Rebuilds it, and returns how many rows are lost.
    std::size_t lost_with(SimDisk& disk, const RebuildRows& rows) {
        rebuilt = rebuild(disk);
        return check(disk, rebuilt, rows);
    }
    std::size_t lost_with(const std::vector<PageId>& pages) {
        auto disk = damaged(pages);
        EXPECT_NE(verify(*disk), "");
        return lost_with(*disk, made().rows);
    }
    std::vector<PageId> all_metadata() const {
        std::vector<PageId> pages{directory_page(0)};
        for (std::uint32_t chunk = 0; chunk < superblock_of(*made().disk).chunk_count; ++chunk) {
            pages.push_back(meta_page(chunk));
        }
        return pages;
    }

    Rebuilt rebuilt;
};

TEST_F(RebuildTest, SoundStoreStaysAsItIs) {
    const auto disk = made().disk->clone(1);
    EXPECT_EQ(lost_with(*disk, made().rows), 0u);
    EXPECT_TRUE(rebuilt.notes.empty()) << rebuilt.all();
    EXPECT_EQ(rebuilt.report.images, 0u);
    const auto bytes = *disk->size_bytes(StoreFile::kData) - kSuperblockCopies * kPageBytes;
    EXPECT_TRUE(disk->peek(StoreFile::kData, kSuperblockCopies * kPageBytes, bytes) ==
                made().disk->peek(StoreFile::kData, kSuperblockCopies * kPageBytes, bytes));
}

TEST_F(RebuildTest, LostLeafCostsItsKeysAndNoMore) {
    const auto leaves = level(kRowTable, 0);
    ASSERT_GT(leaves.size(), 256u);
    ASSERT_EQ(level(kRowTable, 2).size(), 1u);
    for (const std::size_t which : {std::size_t{0}, leaves.size() / 2, leaves.size() - 1}) {
        const std::size_t lost = lost_with({leaves[which]});
        EXPECT_GE(lost, 3u);
        EXPECT_LE(lost, 8u) << "rows that a leaf can hold";
        ASSERT_EQ(rebuilt.count(Kind::kLost), 1u) << rebuilt.all();
        EXPECT_EQ(rebuilt.notes.size(), 1u) << rebuilt.all();
        const RebuildNote& note = rebuilt.notes[0];
        EXPECT_EQ(note.table, kRowTable);
        EXPECT_TRUE(rebuilt.says("table 16 (rows), page " + std::to_string(leaves[which].value)));
        EXPECT_EQ(note.keys.low.empty(), which == 0);
        EXPECT_EQ(note.keys.high.empty(), which == leaves.size() - 1);
    }
}

TEST_F(RebuildTest, LostInnerNodeCostsNothing) {
    for (const TableId table : {kRowTable, kValueTable, kTimedTable}) {
        for (const std::uint32_t height : {1u, 2u}) {
            for (const PageId page : level(table, height)) {
                EXPECT_EQ(lost_with({page}), 0u);
                EXPECT_EQ(rebuilt.count(Kind::kRestored), 1u) << rebuilt.all();
                const bool floor = table == kTimedTable && page == made().roots.at(table.value);
                EXPECT_EQ(rebuilt.count(Kind::kUnproven), floor ? 1u : 0u) << rebuilt.all();
                EXPECT_EQ(rebuilt.notes.size(), floor ? 2u : 1u) << rebuilt.all();
            }
        }
    }
}

TEST_F(RebuildTest, AllInnerNodesAtOnceCostNothing) {
    std::vector<PageId> pages;
    for (const TableId table : {kRowTable, kValueTable, kTimedTable}) {
        for (const PageId page : level(table, 1)) pages.push_back(page);
        for (const PageId page : level(table, 2)) pages.push_back(page);
    }
    ASSERT_GE(pages.size(), 5u);
    EXPECT_EQ(lost_with(pages), 0u);
}

TEST_F(RebuildTest, LostMetadataCostNothing) {
    for (const PageId page : all_metadata()) {
        EXPECT_EQ(lost_with({page}), 0u);
        EXPECT_EQ(rebuilt.notes.size(), 1u) << rebuilt.all();
    }
    EXPECT_EQ(lost_with(all_metadata()), 0u);
    EXPECT_EQ(rebuilt.count(Kind::kRestored), all_metadata().size());
}

TEST_F(RebuildTest, LostPageOfALargeValueCostsItsRow) {
    ASSERT_GT(made().extents.size(), 60u);
    for (const std::size_t which : {std::size_t{1}, made().extents.size() - 1}) {
        EXPECT_EQ(lost_with({made().extents[which]}), 1u);
        EXPECT_EQ(rebuilt.count(Kind::kLost), 1u) << rebuilt.all();
        EXPECT_TRUE(rebuilt.says("large value")) << rebuilt.all();
    }
    std::vector<PageId> pages = all_metadata();
    pages.push_back(made().extents[1]);
    EXPECT_EQ(lost_with(pages), 1u) << "told by the row's own checksum";
    // All of them: whole leaves lose all that they have.
    const std::size_t lost = lost_with(made().extents);
    EXPECT_EQ(lost, (kRebuildValues + 2) / 3 + 9);
}

TEST_F(RebuildTest, LostRootsOfOneLeaf) {
    EXPECT_EQ(lost_with({made().roots.at(kSessionsTable.value)}), 0u);
    EXPECT_EQ(rebuilt.count(Kind::kLost), 1u) << "sessions are no user's rows";
    auto disk = damaged({kCatalogRootPage});
    const auto before = disk->peek(StoreFile::kData, 0, *disk->size_bytes(StoreFile::kData));
    rebuilt = rebuild(*disk);
    EXPECT_EQ(rebuilt.status.error(), Error::kCorruption);
    EXPECT_NE(rebuilt.status.failure().what.find("restore a backup"), std::string::npos);
    EXPECT_TRUE(disk->peek(StoreFile::kData, 0, before.size()) == before) << "nothing was written";
}

// The root of a catalog of many tables says nothing that its leaves do not have.
TEST_F(RebuildTest, LostCatalogRootAboveLeavesCostsNothing) {
    const ManyTables& many = many_tables();
    const auto disk = damaged({kCatalogRootPage}, many.disk.get());
    EXPECT_EQ(lost_with(*disk, made().rows), 0u) << rebuilt.all();
    EXPECT_EQ(rebuilt.count(Kind::kRestored), 1u) << rebuilt.all();
    const PageId row_leaf = level(kRowTable, 0)[7];
    const auto leaf_too = damaged({kCatalogRootPage, row_leaf}, many.disk.get());
    EXPECT_GE(lost_with(*leaf_too, made().rows), 3u) << rebuilt.all();
    // Rows of the catalog are gone, or may be, and nobody knows which.
    for (const PageId leaf : many.leaves) {
        rebuilt = rebuild(*damaged({kCatalogRootPage, leaf}, many.disk.get()));
        EXPECT_EQ(rebuilt.status.error(), Error::kCorruption);
    }
    rebuilt = rebuild(*damaged(many.leaves, many.disk.get()));
    EXPECT_EQ(rebuilt.status.error(), Error::kCorruption) << "no table is left";
    std::vector<PageId> lost = all_metadata();
    lost.push_back(kCatalogRootPage);
    rebuilt = rebuild(*damaged(lost, many.disk.get()));
    EXPECT_EQ(rebuilt.status.error(), Error::kCorruption) << "its leaves may be old ones";
}

class RebuildCatalogTest : public RebuildTest {
  protected:
    // The tables of the lost leaf are gone, and said; all else is as before, and the ids that were
    // in use are not given out again.
    void check_without(const SimDisk& disk, std::size_t leaf, bool logged = false) {
        ASSERT_TRUE(rebuilt.status.ok()) << rebuilt.status.failure().what;
        EXPECT_EQ(verify(*disk.clone(3)), "") << rebuilt.all();
        SimStore store(rebuild_store(), disk.clone(4), 4);
        store.clock.set_wall_us(made().wall_us);
        const Status opened = store.open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        const bool same = leaf > 0 && gone(leaf, kWideTable.value) && !logged;
        EXPECT_TRUE(!same || extent_pages(store) == made().extents.size());
        RebuildRows rows = logged ? many.logged_rows : many.rows;
        std::erase_if(rows, [&](const auto& row) { return gone(leaf, row.first.first); });
        EXPECT_TRUE(rows_of_all(store) == rows) << rebuilt.all();
        EXPECT_TRUE(store.rows(kSessionsTable) == (logged ? many.logged_sessions : many.sessions));
        SimClient& client = store.connect();
        const TableId next = store.create_table(client, compaction_schema("next"));
        EXPECT_GT(next.value, (logged ? kLateTable : kLastDropped).value);
        CompactionRows written;
        put_rows(store, client, next, 0, 300, written);
        EXPECT_EQ(store.rows(next).size(), 300u);
        EXPECT_EQ(store.verify(), "");
        EXPECT_TRUE(store.stop());
        EXPECT_EQ(verify(*store.disk->clone(3)), "");
    }
    static std::size_t extent_pages(const SimStore& store) {
        const Space& space = store.engine->core().storage().space;
        std::size_t found = 0;
        for (PageId page{0}; page.value < space.chunk_count() * kChunkPages; ++page.value) {
            found += space.is_extent(page);
        }
        return found;
    }
    bool gone(std::size_t leaf, std::uint32_t id) const {
        const std::vector<std::uint32_t>& ids = many.ids[leaf];
        return std::find(ids.begin(), ids.end(), id) != ids.end();
    }
    std::string lost_text(std::size_t leaf, std::uint32_t id, const std::string& pages) const {
        return "table id " + std::to_string(id) + ", " + pages +
               ": its name and columns are lost with page " +
               std::to_string(many.leaves[leaf].value) + " of the catalog";
    }

    const ManyTables& many = many_tables();
};

TEST_F(RebuildCatalogTest, LostLeafCostsItsTablesAlone) {
    for (std::size_t leaf = 0; leaf < many.leaves.size(); ++leaf) {
        SCOPED_TRACE("leaf " + std::to_string(leaf));
        const auto disk = damaged({many.leaves[leaf]}, many.disk.get());
        const auto bytes = *disk->size_bytes(StoreFile::kData);
        const auto before = disk->peek(StoreFile::kData, 0, bytes);
        DryDisk over(*disk);
        const std::string dry = rebuild(over).all();
        EXPECT_TRUE(disk->peek(StoreFile::kData, 0, bytes) == before);
        rebuilt = rebuild(*disk);
        EXPECT_EQ(dry, rebuilt.all());
        EXPECT_EQ(rebuilt.count(Kind::kLost), many.ids[leaf].size() + 1) << rebuilt.all();
        EXPECT_EQ(rebuilt.count(Kind::kRestored), leaf == 0 ? 1u : 0u) << "the sessions' row";
        EXPECT_EQ(rebuilt.count(Kind::kFreed), 0u) << rebuilt.all();
        for (const std::uint32_t id : many.ids[leaf]) {
            EXPECT_TRUE(rebuilt.covers(Kind::kLost, id, row_key(1))) << id;
            if (id < kFirstSmall.value) continue;  // of hundreds of pages
            const bool wide = id == kWideTable.value;
            EXPECT_TRUE(rebuilt.says(lost_text(leaf, id, wide ? "4 pages" : "1 page")))
                << rebuilt.all();
        }
        check_without(*disk, leaf);
    }
}

// A page that is in use is nobody's own while metadata tell; without them those of freed pages.
TEST_F(RebuildCatalogTest, LostLeafAndMetadata) {
    for (std::size_t leaf = 0; leaf < many.leaves.size(); ++leaf) {
        SCOPED_TRACE("leaf " + std::to_string(leaf));
        std::vector<PageId> lost = all_metadata();
        lost.push_back(many.leaves[leaf]);
        const auto disk = damaged(lost, many.disk.get());
        rebuilt = rebuild(*disk);
        EXPECT_TRUE(rebuilt.says("some may have been free before")) << rebuilt.all();
        check_without(*disk, leaf);
    }
}

TEST_F(RebuildCatalogTest, LostLeafAndTheRootOfTheSessions) {
    const auto disk = damaged({many.leaves[0], kSessionsRootPage}, many.disk.get());
    rebuilt = rebuild(*disk);
    ASSERT_TRUE(rebuilt.status.ok()) << rebuilt.status.failure().what;
    EXPECT_EQ(verify(*disk->clone(3)), "") << rebuilt.all();
    SimStore store(rebuild_store(), disk->clone(4), 4);
    store.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(store.open().ok());
    EXPECT_TRUE(store.rows(kSessionsTable).empty()) << "or they had more than a leaf";
    EXPECT_EQ(store.verify(), "");
    EXPECT_TRUE(store.stop());
}

TEST_F(RebuildCatalogTest, RecordsOfLostTablesHaveNoEffect) {
    for (std::size_t leaf = 1; leaf < many.leaves.size(); ++leaf) {
        SCOPED_TRACE("leaf " + std::to_string(leaf));
        const auto disk = damaged({many.leaves[leaf]}, many.logged.get());
        rebuilt = rebuild(*disk);
        for (const std::uint32_t id : many.ids[leaf]) {
            EXPECT_TRUE(rebuilt.says("record of table " + std::to_string(id) + " with csn"))
                << rebuilt.all();
        }
        check_without(*disk, leaf, true);
    }
}

// Each of these tables has a leaf of the catalog for itself, half of which is free. The row that
// keeps ids from use has its leaf behind one of them, and ids far from it: one leaf of both would
// have more ids than the next loss of the last leaf allows for.
TEST_F(RebuildCatalogTest, SecondLossGivesNoIdOutAgainEither) {
    std::vector<Column> columns = {{"id", ColumnType::kU32, 0}};
    for (int i = 0; i < 70; ++i) {
        columns.push_back({"named_at_length_" + std::to_string(10'000'000'000 + i),
                           ColumnType::kU64, 0});
    }
    SimStore first(rebuild_store(), many.disk->clone(4), 4);
    first.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(first.open().ok());
    for (int i = 0; i < 12; ++i) {
        const auto broad = Schema::make("broad" + std::to_string(i), columns, 1);
        ASSERT_TRUE(broad.ok());
        first.create_table(first.connect(), *broad);
    }
    ASSERT_TRUE(first.stop());
    const auto disk = damaged({catalog_of(*first.disk).leaves.back()}, first.disk.get());
    ASSERT_TRUE(rebuild(*disk).status.ok());
    SimStore second(rebuild_store(), disk->clone(5), 5);
    second.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(second.open().ok());
    const TableId last = drop_new_tables(second, second.connect(), 2);
    CompactClient compaction(second.connect());
    ASSERT_TRUE(compact(second, compaction, 20'000));
    EXPECT_EQ(second.verify(), "");
    ASSERT_TRUE(second.stop());
    const auto again = damaged({catalog_of(*second.disk).leaves.back()}, second.disk.get());
    rebuilt = rebuild(*again);
    ASSERT_TRUE(rebuilt.status.ok()) << rebuilt.status.failure().what;
    SimStore third(rebuild_store(), again->clone(6), 6);
    third.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(third.open().ok());
    EXPECT_GT(third.create_table(third.connect(), compaction_schema("next")).value, last.value);
}

TEST_F(RebuildTest, LostSuperblockCopyIsMadeAnew) {
    for (const PageId copy : {PageId{0}, PageId{1}}) {
        auto disk = made().disk->clone(1);
        disk->flip(StoreFile::kData, copy.value * kPageBytes + 60);
        EXPECT_EQ(lost_with(*disk, made().rows), 0u);
        EXPECT_TRUE(rebuilt.says("superblock copy"));
    }
    auto both = made().disk->clone(1);
    both->flip(StoreFile::kData, 60);
    both->flip(StoreFile::kData, kPageBytes + 60);
    rebuilt = rebuild(*both);
    EXPECT_EQ(rebuilt.status.error(), Error::kCorruption);
}

// Below a lost inner node it is not known which keys a lost leaf had: those of the gap, perhaps.
TEST_F(RebuildTest, LostLeafBelowALostNodeCostsItsRowsAlone) {
    const std::vector<PageId> leaves = level(kRowTable, 0);
    const std::size_t lost = lost_with({level(kRowTable, 1)[0], leaves[20]});
    EXPECT_GE(lost, 3u);
    EXPECT_LE(lost, 8u);
    EXPECT_EQ(rebuilt.count(Kind::kPerhaps), 1u) << rebuilt.all();
    EXPECT_TRUE(rebuilt.says("page " + std::to_string(leaves[20].value)));
}

// The places of freed leaves hold what they had, with a CRC that fits.
TEST_F(RebuildTest, FreedLeavesStayAwayWhileAnythingTells) {
    SimStore store(rebuild_store(), made().disk->clone(5), 5);
    store.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(store.open().ok());
    CompactionRows rows;
    for (const auto& [key, value] : made().rows) {
        if (key.first == kRowTable.value) rows[key.second] = value;
    }
    ASSERT_EQ(erase_rows(store, store.connect(), kRowTable, 1'500, 1'700, rows), Error::kOk);
    ASSERT_TRUE(store.stop());
    RebuildRows expected = made().rows;
    std::erase_if(expected, [&](const auto& row) {
        return row.first.first == kRowTable.value && !rows.contains(row.first.second);
    });
    const std::vector<PageId> nodes = level(kRowTable, 1);
    std::vector<PageId> inner = nodes;
    inner.push_back(made().roots.at(kRowTable.value));
    const auto without_nodes = damaged(inner, store.disk.get());
    EXPECT_EQ(lost_with(*without_nodes, expected), 0u) << "metadata tell";
    const auto without_metadata = damaged(all_metadata(), store.disk.get());
    EXPECT_EQ(lost_with(*without_metadata, expected), 0u) << "inner nodes tell";
    // Nothing tells: they come up, and it is said so.
    std::vector<PageId> both = all_metadata();
    both.insert(both.end(), inner.begin(), inner.end());
    const auto without_both = damaged(both, store.disk.get());
    EXPECT_EQ(lost_with(*without_both, expected), 0u);
    EXPECT_GT(rebuilt.count(Kind::kUnproven), 500u);
    EXPECT_TRUE(rebuilt.covers(Kind::kUnproven, kRowTable.value, row_key(1'600)));
}

// With nothing left that tells, the newest of two leaves that have the same keys.
TEST_F(RebuildTest, NewestOfTwoUnprovenLeavesIsTaken) {
    const Changed changed = with_new_rows();
    const RebuildRows& rows = changed.rows;
    std::vector<PageId> lost = all_metadata();
    for (const PageId page : level(kRowTable, 1)) lost.push_back(page);
    const auto disk = damaged(lost, changed.disk.get());
    // As if the leaf had been somewhere else before: behind all pages in use, and in front of them.
    std::set<std::uint32_t> used;
    for (const auto& [table, pages] : made().pages) {
        for (const PageId page : pages) used.insert(page.value);
    }
    for (const PageId page : made().extents) used.insert(page.value);
    const std::uint64_t bytes = *disk->size_bytes(StoreFile::kData);
    std::vector<std::uint32_t> places{static_cast<std::uint32_t>(bytes / kPageBytes - 1)};
    for (std::uint32_t page = 4; places.size() < 2; ++page) {
        if (!used.contains(page) && page != meta_page(chunk_of(PageId{page})).value) {
            places.push_back(page);
        }
    }
    auto old = made().disk->peek(StoreFile::kData, leaf_of(1'200).value * kPageBytes, kPageBytes);
    for (const std::uint32_t place : places) {
        page_header(old.data()).page_id = place;
        seal_page(old.data());
        disk->poke(StoreFile::kData, place * kPageBytes, old.data(), kPageBytes);
    }
    EXPECT_EQ(lost_with(*disk, rows), 0u) << rebuilt.all();
    for (const std::uint32_t place : places) {
        EXPECT_TRUE(rebuilt.says("page " + std::to_string(place) +
                                 ": nothing is left that proves that it is in use, and another"))
            << rebuilt.all();
    }
    EXPECT_TRUE(rebuilt.covers(Kind::kPerhaps, kRowTable.value, row_key(1'200)));
}

// Below a lost node nobody refers to it: only its metadata know that there was a leaf.
TEST_F(RebuildTest, ProvenLeafThatCannotBeUsedIsSaidToBeLost) {
    const Schema schema = compaction_schema();
    const TreeShape shape(schema, kRowTable);
    const PageId node = level(kRowTable, 1)[0];
    const auto inner = made().disk->peek(StoreFile::kData, node.value * kPageBytes, kPageBytes);
    const InnerView children(inner.data(), shape.inner);
    const PageId leaf = children.child(children.count() - 1);
    for (const bool breaks_a_rule : {true, false}) {
        const auto disk = damaged({node});
        auto bytes = disk->peek(StoreFile::kData, leaf.value * kPageBytes, kPageBytes);
        const LeafView rows(bytes.data(), shape.leaf);
        ASSERT_GE(rows.count(), 3u);
        // The keys descend; or the last one is beyond what the node had.
        const std::uint32_t row = breaks_a_rule ? 0 : rows.count() - 1;
        std::byte* const key = bytes.data() + (rows.key(row) - bytes.data());
        std::fill(key, key + shape.leaf.key_bytes, std::byte{0xfe});
        disk->poke(StoreFile::kData, leaf.value * kPageBytes, bytes.data(), kPageBytes);
        seal_up(*disk, leaf);
        const std::size_t lost = lost_with(*disk, made().rows);
        EXPECT_GE(lost, 3u) << rebuilt.all();
        EXPECT_LE(lost, 8u) << rebuilt.all();
        EXPECT_TRUE(rebuilt.says("page " + std::to_string(leaf.value) + ": ")) << rebuilt.all();
    }
}

// Under right checksums: metadata that no chunk can have are made anew, as lost ones are.
TEST_F(RebuildTest, MetadataThatMakeNoSenseAreMadeAnew) {
    const PageId meta = meta_page(chunk_of(made().extents[0]));
    for (const std::size_t field : {offsetof(ChunkMeta, extent_owner), offsetof(ChunkMeta, used)}) {
        const auto disk = made().disk->clone(1);
        const std::byte none[4] = {};
        disk->poke(StoreFile::kData, meta.value * kPageBytes + kPageHeaderBytes + field, none,
                   sizeof none);
        seal_up(*disk, meta);
        EXPECT_EQ(lost_with(*disk, made().rows), 0u) << rebuilt.all();
        EXPECT_TRUE(rebuilt.says("page " + std::to_string(meta.value))) << rebuilt.all();
    }
}

TEST_F(RebuildTest, RootThatCanBeNoneIsRefused) {
    for (const std::uint32_t root : {1u, meta_page(1).value, directory_page(0).value, ~0u}) {
        const auto disk = made().disk->clone(1);
        auto page = disk->peek(StoreFile::kData, kCatalogRootPage.value * kPageBytes, kPageBytes);
        std::memcpy(page.data() + catalog_row(page.data(), kRowTable), &root, sizeof root);
        disk->poke(StoreFile::kData, kCatalogRootPage.value * kPageBytes, page.data(), kPageBytes);
        seal_up(*disk, kCatalogRootPage);
        rebuilt = rebuild(*disk);
        EXPECT_EQ(rebuilt.status.error(), Error::kCorruption) << root;
        EXPECT_NE(rebuilt.status.failure().what.find("can be no page of a tree"),
                  std::string::npos);
    }
}

TEST_F(RebuildTest, UnreadablePagesAreLostPages) {
    auto disk = made().disk->clone(1);
    const auto spoil = [&](PageId page) {
        disk->bad_range(StoreFile::kData, page.value * kPageBytes, kPageBytes, EIO);
    };
    spoil(level(kRowTable, 0)[7]);
    spoil(level(kRowTable, 1)[1]);
    spoil(made().extents[1]);
    const std::size_t lost = lost_with(*disk, made().rows);
    EXPECT_GE(lost, 4u);
    EXPECT_LE(lost, 9u);
    // A sector that stays bad after it was written to is one for the operator.
    spoil(meta_page(1));
    rebuilt = rebuild(*disk);
    EXPECT_EQ(rebuilt.status.error(), Error::kIoError);
    disk->clear_bad_ranges();
    EXPECT_EQ(rebuild(*disk).notes.size(), 0u);
    EXPECT_EQ(verify(*disk), "");
}

// One read of the plan, whichever it is: what it found is lost with a word, or nothing is written.
TEST_F(RebuildTest, ReadThatFailsOnceIsNoDamage) {
    const auto disk = damaged({level(kRowTable, 1)[0]});
    const std::vector<PageId> wide = level(kValueTable, 0);
    const std::vector<PageId>& extents = made().extents;
    std::vector<std::uint64_t> reads;
    std::set<std::uint64_t> of_extents;  // of these
    std::uint64_t number = 0;
    const auto whole = disk->clone(7);
    bool planned = false;
    whole->observe([&](std::uint64_t step, SimStep kind) {
        planned = planned || kind == SimStep::kSubmitWrite;
        if (planned || kind != SimStep::kSubmitRead) return;
        if (whole->submitting()->file != StoreFile::kData) return;
        const PageId page{
            static_cast<std::uint32_t>(whole->submitting()->offset_bytes / kPageBytes)};
        const bool of_values = std::find(wide.begin(), wide.end(), page) != wide.end();
        const bool of_extent = std::find(extents.begin(), extents.end(), page) != extents.end();
        if (of_extent && step % 7 == 0) of_extents.insert(step);
        if (of_values || of_extents.contains(step) || ++number % 97 == 0) reads.push_back(step);
    });
    ASSERT_TRUE(rebuild(*whole).status.ok());
    std::size_t refused = 0;
    for (const std::uint64_t step : reads) {
        SCOPED_TRACE("read at step " + std::to_string(step));
        const auto failing = disk->clone(7);
        failing->fail_at(step, EIO);
        rebuilt = rebuild(*failing);
        refused += rebuilt.status.error() == Error::kIoError;
        EXPECT_TRUE(!rebuilt.status || !of_extents.contains(step)) << rebuilt.all();
        if (rebuilt.status) check(*failing, rebuilt, made().rows);
        if (HasFailure()) break;
    }
    EXPECT_GT(refused, wide.size());
    EXPECT_GT(of_extents.size(), 3u);
}

// Never answers one read.
class HungDisk final : public Disk {
  public:
    HungDisk(SimDisk& below, SimClock& clock, std::uint64_t offset_bytes)
        : below_(below), clock_(clock), offset_bytes_(offset_bytes) {}
    void submit(DiskRequest& request) override {
        hung_ =
            hung_ || (request.file == StoreFile::kData && request.offset_bytes == offset_bytes_);
        EXPECT_FALSE(hung_ && request.kind != DiskRequest::Kind::kRead) << "of what it did not see";
        if (!hung_) below_.submit(request);
    }
    int poll(std::uint64_t timeout_ns) override {
        if (hung_) clock_.advance_ns(timeout_ns);
        return below_.poll(timeout_ns);
    }
    std::uint32_t in_flight() const override { return below_.in_flight(); }
    void set_wake_descriptor(int) override {}
    Result<std::uint64_t> size_bytes(StoreFile file) override { return below_.size_bytes(file); }
    Status resize(StoreFile file, std::uint64_t bytes) override {
        return below_.resize(file, bytes);
    }
    Result<bool> backed(StoreFile file, std::uint64_t at, std::uint64_t bytes) override {
        return below_.backed(file, at, bytes);
    }
    std::string path(StoreFile file) const override { return below_.path(file); }

  private:
    SimDisk& below_;
    SimClock& clock_;
    const std::uint64_t offset_bytes_;
    bool hung_ = false;
};

// All later reads fail at once: that is no store of empty tables.
TEST_F(RebuildTest, DeviceThatHangsEndsIt) {
    const auto disk = made().disk->clone(1);
    SimClock clock;
    HungDisk hung(*disk, clock, kChunkBytes);  // the second chunk
    rebuilt = rebuild(hung, clock);
    EXPECT_EQ(rebuilt.status.error(), Error::kIoError);
    EXPECT_NE(rebuilt.status.failure().what.find("look at the device"), std::string::npos);
    EXPECT_TRUE(rebuilt.notes.empty()) << rebuilt.all();
}

TEST_F(RebuildTest, DryRunSaysTheSameAndChangesNothing) {
    std::vector<PageId> pages = all_metadata();
    pages.push_back(level(kRowTable, 1)[0]);
    pages.push_back(level(kRowTable, 0)[200]);
    auto disk = damaged(pages);
    const std::uint64_t bytes = *disk->size_bytes(StoreFile::kData);
    const auto before = disk->peek(StoreFile::kData, 0, bytes);
    Rebuilt dry;
    {
        DryDisk over(*disk);
        dry = rebuild(over);
    }
    EXPECT_TRUE(disk->peek(StoreFile::kData, 0, bytes) == before);
    lost_with(*disk, made().rows);
    EXPECT_EQ(dry.all(), rebuilt.all());
    EXPECT_EQ(dry.report.images, rebuilt.report.images);
}

// What is lost between the dry run and the one that writes nobody agreed to.
TEST_F(RebuildTest, WhatNobodyAgreedToIsNotWritten) {
    const auto disk = damaged({level(kRowTable, 0)[7]});
    RebuildAgreed agreed;
    {
        DryDisk over(*disk);
        const Rebuilt dry = rebuild(over);
        agreed = {dry.notes, dry.report.images};
    }
    const std::uint64_t bytes = *disk->size_bytes(StoreFile::kData);
    const auto before = disk->peek(StoreFile::kData, 0, bytes);
    SimClock clock;
    for (const PageId page : {level(kRowTable, 0)[20], made().extents[1], meta_page(1)}) {
        disk->bad_range(StoreFile::kData, page.value * kPageBytes, kPageBytes, EIO);
        rebuilt = rebuild(*disk, clock, &agreed);
        EXPECT_EQ(rebuilt.status.error(), Error::kIoError);
        EXPECT_NE(rebuilt.status.failure().what.find("not what the dry run found"),
                  std::string::npos);
        EXPECT_TRUE(disk->peek(StoreFile::kData, 0, bytes) == before);
        disk->clear_bad_ranges();
    }
    agreed.images -= 1;
    EXPECT_EQ(rebuild(*disk, clock, &agreed).status.error(), Error::kIoError);
    EXPECT_TRUE(disk->peek(StoreFile::kData, 0, bytes) == before);
    agreed.images += 1;
    rebuilt = rebuild(*disk, clock, &agreed);
    EXPECT_GT(check(*disk, rebuilt, made().rows), 2u);
}

// A batch that could be read when it was asked about is not there any more.
TEST_F(RebuildTest, LogThatNobodyAgreedToLoseEndsIt) {
    const auto disk = made().logged->clone(1);
    RebuildAgreed agreed;
    {
        DryDisk over(*disk);
        const Rebuilt dry = rebuild(over);
        ASSERT_TRUE(dry.status.ok()) << dry.status.failure().what;
        agreed = {dry.notes, dry.report.images};
    }
    const std::uint64_t ring = *disk->size_bytes(StoreFile::kLog);
    const std::uint64_t batch = (superblock_of(*disk).log_position + 60) % ring;
    disk->flip(StoreFile::kLog, batch);
    SimClock clock;
    rebuilt = rebuild(*disk, clock, &agreed);
    EXPECT_EQ(rebuilt.status.error(), Error::kIoError);
    EXPECT_NE(verify(*disk), "") << "the log is as it was";
    disk->flip(StoreFile::kLog, batch);
    EXPECT_EQ(lost_with(*disk, made().logged_rows), 0u);
}

// Its retention was taken away, and the floor with the root: what expired may be back.
TEST_F(RebuildTest, LostFloorOfATableWithoutRetentionIsSaid) {
    SimStore store(rebuild_store(), made().disk->clone(5), 5);
    store.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(store.open().ok());
    const TableAttributes none{};
    TransactionBytes off;
    off.operation(OperationKind::kSetTable, kTimedTable, {}, std::as_bytes(std::span(&none, 1)));
    ASSERT_EQ(store.commit(store.connect(Rights::kAdmin), off).error, Error::kOk);
    ASSERT_TRUE(store.stop());
    const auto disk = damaged({made().roots.at(kTimedTable.value)}, store.disk.get());
    rebuilt = rebuild(*disk);
    ASSERT_TRUE(rebuilt.status.ok()) << rebuilt.status.failure().what;
    EXPECT_TRUE(rebuilt.covers(Kind::kUnproven, kTimedTable.value, row_key(1))) << rebuilt.all();
    EXPECT_TRUE(rebuilt.says("none is taken")) << rebuilt.all();
}

// A write that the device lost: the place holds an older image, right in itself.
TEST_F(RebuildTest, OlderImagesAreNotTaken) {
    const Changed changed = with_new_rows();
    const RebuildRows& rows = changed.rows;
    const PageId leaf = leaf_of(1'200);
    for (const bool node_too : {false, true}) {
        const auto disk =
            damaged(node_too ? level(kRowTable, 1) : std::vector<PageId>{}, changed.disk.get());
        const auto old = made().disk->peek(StoreFile::kData, leaf.value * kPageBytes, kPageBytes);
        disk->poke(StoreFile::kData, leaf.value * kPageBytes, old.data(), kPageBytes);
        const std::size_t lost = lost_with(*disk, rows);
        EXPECT_GE(lost, 3u) << rebuilt.all();
        EXPECT_LE(lost, 8u) << rebuilt.all();
    }
}

// Retention would take the leaf for older than it is, and drop it.
TEST_F(RebuildTest, TimesThatAreTooOldAreMended) {
    auto schema = Schema::make(
        "plain", {{"id", ColumnType::kU32, 0}, {"at", ColumnType::kTimestamp, 0}}, 1, 1);
    ASSERT_TRUE(schema.ok());
    SimStore store(rebuild_store(), made().disk->clone(5), 5);
    store.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    const TableId plain = store.create_table(client, *schema);
    RowBuilder row(*schema);
    ASSERT_TRUE(row.set_unsigned(1, store.clock.wall_us()).ok());
    TransactionBytes put;
    put.operation(OperationKind::kPut, plain, row_key(1), *row.value());
    ASSERT_EQ(store.commit(client, put).error, Error::kOk);
    ASSERT_TRUE(store.stop());
    // It has no retention, which would drop the leaf at once.
    SimStore again(rebuild_store(), store.disk->clone(6), 6);
    again.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(again.open().ok());
    Space& space = again.engine->core().storage().space;
    const PageId leaf = again.engine->core().storage().catalog->find(plain)->tree.root();
    ASSERT_GT(space.newest_known(leaf), 1u);
    Commit& commit = again.engine->core().commit();
    ASSERT_TRUE(commit.open());
    space.settle_page(leaf, space.known_crc(leaf), 1);
    space.writable(meta_page(chunk_of(leaf)));
    commit.touch();
    again.run_until([&] { return commit.quiet(); });
    ASSERT_TRUE(again.stop());
    EXPECT_NE(verify(*again.disk->clone(1)), "");
    EXPECT_EQ(lost_with(*again.disk, made().rows), 0u);
    EXPECT_EQ(rebuilt.count(Kind::kLost), 0u) << rebuilt.all();
    EXPECT_GT(rebuilt.report.images, 0u);
}

TEST_F(RebuildTest, PagesThatNobodyHasAreFreeAgain) {
    SimStore store(rebuild_store(), made().disk->clone(5), 5);
    store.clock.set_wall_us(made().wall_us);
    ASSERT_TRUE(store.open().ok());
    Commit& commit = store.engine->core().commit();
    Space& space = store.engine->core().storage().space;
    ASSERT_TRUE(commit.open());
    ASSERT_TRUE(space.secure(4));
    const PageId page = space.allocate(PageType::kLeaf, kRowTable, PageId{9});
    commit.touch();
    store.run_until([&] { return commit.quiet(); });
    ASSERT_TRUE(store.stop());
    EXPECT_NE(verify(*store.disk->clone(1)), "");
    EXPECT_EQ(lost_with(*store.disk, made().rows), 0u);
    EXPECT_EQ(rebuilt.count(Kind::kFreed), 1u) << rebuilt.all();
    EXPECT_TRUE(rebuilt.says("page " + std::to_string(page.value) + " is allocated"));
}

// ---- the log ----

TEST_F(RebuildTest, LogIsReplayedOverWhatIsLeft) {
    const auto whole = made().logged->clone(1);
    EXPECT_EQ(lost_with(*whole, made().logged_rows), 0u);
    EXPECT_TRUE(rebuilt.notes.empty()) << rebuilt.all();
    EXPECT_GT(rebuilt.report.verified.batches, 3u);
    std::vector<PageId> pages = all_metadata();
    pages.push_back(level(kRowTable, 1)[0]);
    const auto disk = damaged(pages, made().logged.get());
    EXPECT_EQ(lost_with(*disk, made().logged_rows), 0u) << rebuilt.all();
}

// Row 1,200 is erased by the log, and is lost before.
TEST_F(RebuildTest, RecordsOfLostRowsHaveNoEffect) {
    const auto disk = damaged({leaf_of(1'200)}, made().logged.get());
    lost_with(*disk, made().logged_rows);
    EXPECT_EQ(rebuilt.count(Kind::kLost), 2u) << rebuilt.all();
    EXPECT_TRUE(rebuilt.says("is left out")) << rebuilt.all();
}

TEST_F(RebuildTest, DamagedLogEndsThere) {
    const Superblock superblock = superblock_of(*made().logged);
    const std::uint64_t ring = superblock.log_segment_bytes * superblock.log_segment_count;
    for (const std::uint64_t batch : {0u, 2u}) {
        auto disk = made().logged->clone(1);
        // Each batch of these takes some blocks; the first one begins where the superblock says.
        disk->flip(StoreFile::kLog,
                   (superblock.log_position + batch * 3 * kBlockBytes + 60) % ring);
        ASSERT_NE(verify(*disk), "");
        rebuilt = rebuild(*disk);
        ASSERT_TRUE(rebuilt.status.ok()) << rebuilt.status.failure().what;
        EXPECT_TRUE(rebuilt.says("the log ends there")) << rebuilt.all();
        EXPECT_EQ(verify(*disk), "");
        SimStore store(rebuild_store(), disk->clone(4), 4);
        store.clock.set_wall_us(made().wall_us);
        ASSERT_TRUE(store.open().ok());
        const RebuildRows found = rows_of(store);
        for (const auto& [key, value] : found) {
            const auto then = made().rows.find(key);
            const auto later = made().logged_rows.find(key);
            EXPECT_TRUE((then != made().rows.end() && then->second == value) ||
                        (later != made().logged_rows.end() && later->second == value));
        }
        EXPECT_GE(found.size(), made().rows.size() - 1);
        EXPECT_TRUE(serves(store));
    }
}

// What was cut off may have been batches: zeros look like the log's end.
TEST_F(RebuildTest, ShortLogIsSaidToBeLost) {
    auto disk = made().logged->clone(1);
    const std::uint64_t bytes = *disk->size_bytes(StoreFile::kLog);
    const Superblock superblock = superblock_of(*disk);
    const std::uint64_t cut = superblock.log_position % bytes + 3 * kBlockBytes;
    ASSERT_LT(cut, bytes);
    ASSERT_TRUE(disk->resize(StoreFile::kLog, cut).ok());
    rebuilt = rebuild(*disk);
    ASSERT_TRUE(rebuilt.status.ok()) << rebuilt.status.failure().what;
    EXPECT_GE(rebuilt.count(Kind::kLost), 1u) << rebuilt.all();
    EXPECT_TRUE(rebuilt.says("made as long again, with zeros: what it had there")) << rebuilt.all();
    EXPECT_EQ(*disk->size_bytes(StoreFile::kLog), bytes);
    EXPECT_EQ(verify(*disk), "");
}

// Of a journal that nothing names nothing is lost.
TEST_F(RebuildTest, ShortJournalThatNothingNamesCostsNothing) {
    auto disk = made().disk->clone(1);
    ASSERT_TRUE(disk->resize(StoreFile::kJournal, kBlockBytes).ok());
    EXPECT_EQ(lost_with(*disk, made().rows), 0u);
    EXPECT_EQ(rebuilt.count(Kind::kRestored), 1u) << rebuilt.all();
    EXPECT_EQ(rebuilt.notes.size(), 1u) << rebuilt.all();
}

TEST_F(RebuildTest, UnreadableLogIsOneForTheOperator) {
    const auto disk = made().logged->clone(1);
    const Superblock superblock = superblock_of(*disk);
    const std::uint64_t bytes = *disk->size_bytes(StoreFile::kLog);
    disk->bad_range(StoreFile::kLog, superblock.log_position % bytes, kBlockBytes, EIO);
    rebuilt = rebuild(*disk);
    ASSERT_EQ(rebuilt.status.error(), Error::kIoError);
    const std::string& what = rebuilt.status.failure().what;
    EXPECT_NE(what.find("sim:/log"), std::string::npos) << what;
    EXPECT_NE(what.find("copy the directory to another device"), std::string::npos) << what;
    disk->clear_bad_ranges();
    EXPECT_EQ(lost_with(*disk, made().logged_rows), 0u);
}

TEST_F(RebuildTest, ShortFileIsMadeWhole) {
    auto disk = made().disk->clone(1);
    const Superblock superblock = superblock_of(*disk);
    ASSERT_GE(superblock.chunk_count, 2u);
    ASSERT_TRUE(disk->resize(StoreFile::kData, (superblock.chunk_count - 1) * kChunkBytes).ok());
    rebuilt = rebuild(*disk);
    ASSERT_TRUE(rebuilt.status.ok()) << rebuilt.status.failure().what;
    EXPECT_GT(check(*disk, rebuilt, made().rows), 0u);
    EXPECT_TRUE(rebuilt.says("made as long again")) << rebuilt.all();
}

}  // namespace
}  // namespace bidstore
