// The verifier over files at rest: every kind of damage is planted, and found by its name; the
// files stay as they are.
#include "engine/verify_files.h"

#include <gtest/gtest.h>

#include "engine/engine_core.h"
#include "engine/inner_edit.h"
#include "engine/superblock.h"
#include "tests/compaction_fixture.h"
#include "tests/sealing.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 3'000;

class VerifyTest : public ::testing::Test {
  protected:
    void SetUp() override {
        options_ = small_store();
        options_.frames = 1'500;
        open(std::make_unique<SimDisk>());
        table = store->create_table(*client, compaction_schema());
        put_rows(*store, *client, table, 0, kRows, rows);
    }
    void open(std::unique_ptr<SimDisk> disk) {
        store = std::make_unique<SimStore>(options_, std::move(disk), 3);
        ASSERT_TRUE(store->open().ok());
        client = &store->connect();
    }
    // After a clean stop.
    SimDisk& at_rest() {
        EXPECT_TRUE(store->stop());
        return *store->disk;
    }
    // What the verifier says of these files, rule by rule; and that they are as before.
    std::vector<BrokenRule> verify(SimDisk& disk) {
        PoolSegment pool = verifier_pool(1'500, 64 * kChunkPages);
        const std::uint64_t bytes = *disk.size_bytes(StoreFile::kData);
        const auto before = disk.peek(StoreFile::kData, 0, bytes);
        const auto log = disk.peek(StoreFile::kLog, 0, 3u << 20);
        std::vector<BrokenRule> rules;
        EngineOptions options = options_.engine;
        options.random = [] { return std::uint64_t{1}; };
        SimClock clock;
        auto report = verify_files(disk, clock, pool, options,
                                   [&](const BrokenRule& rule) { rules.push_back(rule); });
        failure_ = report ? Failure{} : report.failure();
        if (report) {
            report_ = *report;
            const VerifyTotals& totals = report_.totals;
            EXPECT_EQ(totals.broken_data + totals.broken_space + totals.unread, rules.size());
        }
        EXPECT_TRUE(disk.peek(StoreFile::kData, 0, bytes) == before);
        EXPECT_TRUE(disk.peek(StoreFile::kLog, 0, 3u << 20) == log);
        return rules;
    }
    void expect_one(SimDisk& disk, Damage damage, const std::vector<std::string>& words) {
        const auto rules = verify(disk);
        ASSERT_EQ(rules.size(), 1u) << (rules.empty() ? "" : rules[1].what);
        EXPECT_EQ(rules[0].damage, damage) << rules[0].what;
        for (const std::string& word : words) {
            EXPECT_NE(rules[0].what.find(word), std::string::npos) << rules[0].what;
        }
    }
    std::string named(PageId page) const {
        return "table " + std::to_string(table.value) + " (rows), page " +
               std::to_string(page.value);
    }
    // Each of these is what a rule says from its first word on, and all are data's.
    void expect_all(SimDisk& disk, const std::vector<std::string>& words) {
        std::string all;
        const auto rules = verify(disk);
        for (const BrokenRule& rule : rules) all += rule.what + "\n";
        EXPECT_EQ(rules.size(), words.size()) << all;
        for (const std::string& word : words) {
            EXPECT_NE(("\n" + all).find("\n" + word), std::string::npos) << word << "\n" << all;
        }
        for (const BrokenRule& rule : rules) EXPECT_EQ(rule.damage, Damage::kData) << rule.what;
    }
    Storage& storage() { return store->engine->core().storage(); }
    Tree& tree() { return storage().catalog->find(table)->tree; }
    std::vector<PageId> leaves() {
        std::vector<PageId> pages;
        EXPECT_TRUE(tree().visit_pages([&](PageId page) { pages.push_back(page); }).ok());
        std::erase_if(pages, [&](PageId page) {
            return page_header(storage().pool.newest_of(page)).level > 0;
        });
        return pages;
    }
    // A leaf in the middle and the inner node above it.
    Tree::Way way() { return tree().way_to(row_key(kRows / 2).data()); }
    PageId leaf() {
        const Tree::Way found = way();
        return found.step[found.depth - 1].page;
    }
    // Changes pages behind the engine's back, but in a batch of its own, so that all checksums
    // are right.
    void plant(const std::function<void()>& change) {
        Commit& commit = store->engine->core().commit();
        ASSERT_TRUE(commit.open());
        ASSERT_TRUE(storage().space.secure(4));
        change();
        commit.touch();
        store->run_until([&] { return commit.quiet(); });
    }
    std::byte* writable(PageId page) { return storage().space.writable(page); }

    SimStoreOptions options_;
    std::unique_ptr<SimStore> store;
    SimClient* client = nullptr;
    TableId table;
    CompactionRows rows;
    FilesReport report_;
    Failure failure_;
};

TEST_F(VerifyTest, SoundStoreHasNothingToSayOf) {
    SimDisk& disk = at_rest();
    EXPECT_TRUE(verify(disk).empty());
    EXPECT_EQ(report_.totals.rows, kRows + 2 + 1) << "and those of the catalog and a session";
    EXPECT_EQ(report_.totals.tables, 3u);
    EXPECT_EQ(report_.batches, 0u);
}

// What is only in the log so far is verified with it.
TEST_F(VerifyTest, LogIsReplayedFirst) {
    const auto disk = store->disk->power_loss(2);
    EXPECT_TRUE(verify(*disk).empty());
    EXPECT_GT(report_.batches, 10u);
    EXPECT_EQ(report_.totals.rows, kRows + 3);
}

TEST_F(VerifyTest, FlippedBitsAreFoundInEveryKindOfPage) {
    const Tree::Way found = way();
    const PageId leaf_page = found.step[found.depth - 1].page;
    const std::string name = "table " + std::to_string(table.value) + " (rows), page ";
    SimDisk& disk = at_rest();
    const auto flipped = [&](PageId page, std::uint64_t at = 1'000) {
        auto damaged = disk.clone(1);
        damaged->flip(StoreFile::kData, page.value * kPageBytes + at);
        return damaged;
    };
    expect_one(*flipped(leaf_page), Damage::kData, {name + std::to_string(leaf_page.value), "CRC"});
    expect_one(*flipped(found.step[0].page), Damage::kData,
               {name + std::to_string(found.step[0].page.value)});
    expect_one(*flipped(kCatalogRootPage), Damage::kData, {"catalog", "page 4"});
    expect_one(*flipped(meta_page(0)), Damage::kData, {"metadata of chunk 0"});
    expect_one(*flipped(directory_page(0)), Damage::kData, {"chunk directory"});
    expect_one(*flipped(PageId{0}, 50), Damage::kSpace, {"superblock copy 0"});
    expect_one(*flipped(PageId{1}, 50), Damage::kSpace, {"superblock copy 1"});
    auto both = flipped(PageId{0}, 50);
    both->flip(StoreFile::kData, kPageBytes + 50);
    expect_one(*both, Damage::kData, {"both superblock copies are damaged"});
    EXPECT_TRUE(verify(*flipped(PageId{storage().space.chunk_count() * kChunkPages - 1})).empty())
        << "a free page is nobody's";
}

// One write apart a crash leaves them. Of more the device lost the older one's, and had the newer
// one been damaged, a start would have taken a checkpoint of long ago for the newest.
TEST_F(VerifyTest, StaleSuperblockCopyIsTold) {
    const SimDisk& sound = at_rest();
    for (const std::uint32_t copy : {0u, 1u}) {
        const auto disk = sound.clone(2);
        Superblock older = superblock_of(*disk, copy);
        const auto put = [&] {
            older.sequence -= 1;
            seal_superblock(older);
            disk->poke(StoreFile::kData, copy * std::uint64_t{kBlockBytes}, &older, sizeof older);
        };
        put();
        EXPECT_TRUE(verify(*disk).empty());
        put();
        expect_one(*disk, Damage::kSpace,
                   {"superblock copy " + std::to_string(copy) + " is 2 writes older"});
    }
}

// Recovery ends at the first of them.
TEST_F(VerifyTest, EveryBrokenRuleIsToldAlsoWhenMetadataAreLost) {
    const Tree::Way found = way();
    const std::string name = "table " + std::to_string(table.value) + " (rows), page ";
    SimDisk& disk = at_rest();
    std::vector<std::string> expected{"chunk directory, page 3: "};
    disk.flip(StoreFile::kData, 3 * kPageBytes + 1'000);
    disk.flip(StoreFile::kData, meta_page(0).value * kPageBytes + 1'000);
    expected.push_back("metadata of chunk 0, page 2: ");
    const PageId leaf_page = found.step[found.depth - 1].page;
    disk.flip(StoreFile::kData, leaf_page.value * kPageBytes + 1'000);
    expected.push_back(name + std::to_string(leaf_page.value) + ": ");
    const auto rules = verify(disk);
    ASSERT_EQ(rules.size(), expected.size());
    for (std::size_t i = 0; i < rules.size(); ++i) {
        EXPECT_EQ(rules[i].damage, Damage::kData);
        EXPECT_TRUE(rules[i].what.starts_with(expected[i])) << rules[i].what;
    }
}

TEST_F(VerifyTest, EveryDamagedLeafIsNamed) {
    std::vector<PageId> leaves;
    for (const std::uint32_t id : {100u, 900u, 2'500u}) {
        const Tree::Way found = tree().way_to(row_key(id).data());
        leaves.push_back(found.step[found.depth - 1].page);
    }
    SimDisk& disk = at_rest();
    for (const PageId page : leaves) disk.flip(StoreFile::kData, page.value * kPageBytes + 99);
    const auto rules = verify(disk);
    ASSERT_EQ(rules.size(), leaves.size());
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        const std::string name = "page " + std::to_string(leaves[i].value) + ":";
        EXPECT_NE(rules[i].what.find(name), std::string::npos) << rules[i].what;
    }
}

// An older image of the page in its place: right in itself, but not what its chunk remembers.
TEST_F(VerifyTest, LostAndMisplacedWritesAreFound) {
    const PageId page = leaf();
    ASSERT_TRUE(store->stop());
    const auto old = store->disk->peek(StoreFile::kData, page.value * kPageBytes, kPageBytes);
    open(store->disk->clone(3));
    put_rows(*store, *client, table, kRows / 2 - 8, kRows / 2 + 8, rows, 1);
    SimDisk& disk = at_rest();
    disk.poke(StoreFile::kData, page.value * kPageBytes, old.data(), kPageBytes);
    expect_one(disk, Damage::kData,
               {"not the one its chunk remembers", std::to_string(page.value)});
    const PageId other{page.value + 1};
    const auto stray = disk.peek(StoreFile::kData, other.value * kPageBytes, kPageBytes);
    disk.poke(StoreFile::kData, page.value * kPageBytes, stray.data(), kPageBytes);
    expect_one(disk, Damage::kData, {"page " + std::to_string(page.value) + ":"});
}

TEST_F(VerifyTest, UnreadablePageIsNamedWithTheDevicesWord) {
    const PageId page = leaf();
    SimDisk& disk = at_rest();
    disk.bad_range(StoreFile::kData, page.value * kPageBytes, kPageBytes, EIO);
    expect_one(disk, Damage::kUnread, {named(page) + ": reading ", "Input/output"});
}

TEST_F(VerifyTest, LeakedPageIsSpaceAlone) {
    PageId leaked;
    plant([&] { leaked = storage().space.allocate(PageType::kLeaf, table, PageId{9}); });
    expect_one(at_rest(), Damage::kSpace,
               {named(leaked) + " is allocated, but nothing refers to it"});
}

TEST_F(VerifyTest, PageThatIsUsedTwiceIsFound) {
    const Tree::Way found = way();
    const PageId parent = found.step[found.depth - 2].page;
    plant([&] {
        InnerEdit edit(writable(parent), tree().shape().inner);
        edit.set_child(1, edit.view().child(2));
    });
    const auto rules = verify(at_rest());
    bool twice = false;
    for (const BrokenRule& rule : rules) {
        twice |= rule.what.find("twice") != std::string::npos;
    }
    EXPECT_TRUE(twice);
}

TEST_F(VerifyTest, ReferenceToAPageThatCanBeNoTreesIsFound) {
    const Tree::Way found = way();
    const PageId parent = found.step[found.depth - 2].page;
    plant([&] { InnerEdit(writable(parent), tree().shape().inner).set_child(1, meta_page(0)); });
    const std::string name = named(meta_page(0));
    expect_all(at_rest(), {name + " cannot be part of a tree", name + ": type, table or level"});
}

TEST_F(VerifyTest, PageOfTwoTablesIsFound) {
    const TableId other = store->create_table(*client, [] {
        auto schema = Schema::make(
            "other", {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 500}}, 1);
        CHECK(schema.ok());
        return *schema;
    }());
    CompactionRows ignored;
    put_rows(*store, *client, other, 0, 400, ignored);
    Tree& thief = storage().catalog->find(other)->tree;
    const PageId stolen = leaf();
    plant([&] {
        InnerEdit edit(writable(thief.root()), thief.shape().inner);
        edit.set_child(1, stolen);
    });
    bool found = false;
    for (const BrokenRule& rule : verify(at_rest())) {
        found |= rule.what.find("belongs to tables") != std::string::npos &&
                 rule.what.find(std::to_string(stolen.value)) != std::string::npos;
    }
    EXPECT_TRUE(found);
}

TEST_F(VerifyTest, FreePageInATreeIsFound) {
    const PageId page = leaf();
    plant([&] {
        std::byte* meta = writable(meta_page(chunk_of(page)));
        const std::uint32_t at = page.value % kChunkPages;
        meta[kPageHeaderBytes + at / 8] &= ~(std::byte{1} << (at % 8));
    });
    bool found = false;
    for (const BrokenRule& rule : verify(at_rest())) {
        found |= rule.what.find("page " + std::to_string(page.value)) != std::string::npos;
    }
    EXPECT_TRUE(found);
}

// Free, and its rows written over one day, is worse than lost: with one lost leaf nobody said so.
TEST_F(VerifyTest, FreePageInATreeIsFoundBesideALostOne) {
    const PageId page = leaf();
    const Tree::Way first = tree().way_to(row_key(100).data());
    const PageId lost = first.step[first.depth - 1].page;
    plant([&] {
        storage().space.allocate(PageType::kLeaf, table, PageId{9});  // which nobody refers to
        std::byte* meta = writable(meta_page(chunk_of(page)));
        const std::uint32_t at = page.value % kChunkPages;
        meta[kPageHeaderBytes + at / 8] &= ~(std::byte{1} << (at % 8));
    });
    SimDisk& disk = at_rest();
    disk.flip(StoreFile::kData, lost.value * kPageBytes + 99);
    bool unallocated = false;
    bool rotten = false;
    for (const BrokenRule& rule : verify(disk)) {
        EXPECT_EQ(rule.damage, Damage::kData) << rule.what << ": it may be of the lost one's";
        unallocated |= rule.what == "table " + std::to_string(table.value) + " (rows), page " +
                                        std::to_string(page.value) +
                                        ": is part of a tree, but not allocated";
        rotten |= rule.what.find("page " + std::to_string(lost.value) + ":") != std::string::npos;
    }
    EXPECT_TRUE(unallocated);
    EXPECT_TRUE(rotten);
}

// Nothing below a broken node was read: what was lost there was told by the next --verify, when the
// node was mended.
TEST_F(VerifyTest, DamageBelowABrokenNodeIsFound) {
    const Tree::Way first = tree().way_to(row_key(100).data());
    const PageId node = first.step[first.depth - 2].page;
    const PageId rotten = first.step[first.depth - 1].page;
    const PageId lost = leaf();
    ASSERT_TRUE(store->stop());
    const auto old = store->disk->peek(StoreFile::kData, lost.value * kPageBytes, kPageBytes);
    open(store->disk->clone(3));
    put_rows(*store, *client, table, kRows / 2 - 8, kRows / 2 + 8, rows, 1);
    SimDisk& disk = at_rest();
    disk.flip(StoreFile::kData, node.value * kPageBytes + 99);
    disk.flip(StoreFile::kData, rotten.value * kPageBytes + 99);
    disk.poke(StoreFile::kData, lost.value * kPageBytes, old.data(), kPageBytes);
    expect_all(disk, {named(node) + ": ", "perhaps " + named(rotten) + ": its CRC does not fit",
                      named(lost) + ": its checksum is not the one its chunk remembers"});
    disk.flip(StoreFile::kData, rotten.value * kPageBytes + 99);
    disk.flip(StoreFile::kData, rotten.value * kPageBytes + 9);  // of its id
    expect_all(disk, {named(node) + ": ", "page " + std::to_string(rotten.value) + ": ",
                      named(lost) + ": "});
}

TEST_F(VerifyTest, DamageBelowABrokenNodeIsCountedBehindTheFirstHundred) {
    std::vector<PageId> leaves;
    PageId root;
    ASSERT_TRUE(tree().visit_pages([&](PageId page) { leaves.push_back(page); }).ok());
    root = tree().root();
    std::erase(leaves, root);
    ASSERT_GT(leaves.size(), 130u);
    SimDisk& disk = at_rest();
    disk.flip(StoreFile::kData, root.value * kPageBytes + 99);
    for (std::size_t i = 0; i < 130; ++i) {
        disk.flip(StoreFile::kData, leaves[i].value * kPageBytes + 99);
    }
    const auto rules = verify(disk);
    ASSERT_EQ(rules.size(), 102u);
    EXPECT_TRUE(rules[0].what.starts_with(named(root) + ": ")) << rules[0].what;
    EXPECT_EQ(rules[101].what, "and 30 more pages in use that are damaged, not told here");
    EXPECT_GT(report_.totals.pages, leaves.size());
}

// It ended at the hundredth, as if that were the last.
TEST_F(VerifyTest, DamageBehindTheFirstHundredIsCounted) {
    const std::vector<PageId> leaves = this->leaves();
    ASSERT_GT(leaves.size(), 140u);
    SimDisk& disk = at_rest();
    std::uint64_t lost = 0;
    for (std::size_t i = 0; i < 130; ++i) {
        const std::uint64_t at = leaves[i].value * kPageBytes;
        lost += page_header(disk.peek(StoreFile::kData, at, kPageBytes).data()).count;
        disk.flip(StoreFile::kData, at + 99);
    }
    const auto rules = verify(disk);
    ASSERT_EQ(rules.size(), 101u);
    EXPECT_EQ(rules[100].damage, Damage::kData);
    EXPECT_EQ(rules[100].what, "table " + std::to_string(table.value) +
                                   " (rows): and 30 more that are broken, not told here");
    EXPECT_EQ(report_.totals.rows, kRows + 3 - lost) << "and what is behind them is looked at";
}

TEST_F(VerifyTest, UnreadPagesHideNoDamageBehindTheFirstHundred) {
    const std::vector<PageId> leaves = this->leaves();
    ASSERT_GT(leaves.size(), 140u);
    SimDisk& disk = at_rest();
    for (std::size_t i = 0; i < 130; ++i) {
        disk.bad_range(StoreFile::kData, leaves[i].value * kPageBytes, kPageBytes, EIO);
    }
    auto rules = verify(disk);
    ASSERT_EQ(rules.size(), 101u);
    EXPECT_EQ(report_.totals.unread, 101u);
    EXPECT_EQ(rules[100].what, "and 30 more reads failed");
    disk.flip(StoreFile::kData, leaves[140].value * kPageBytes + 99);
    rules = verify(disk);
    ASSERT_EQ(rules.size(), 102u);
    EXPECT_EQ(report_.totals.broken_data, 1u);
    EXPECT_EQ(rules[100].damage, Damage::kData);
    EXPECT_EQ(rules[100].what, "table " + std::to_string(table.value) +
                                   " (rows): and 1 more that are broken, not told here");
}

TEST_F(VerifyTest, RowsInTheWrongOrderAreFound) {
    const PageId page = leaf();
    plant([&] { writable(page)[kPageHeaderBytes] ^= std::byte{0x80}; });  // of the first key
    expect_one(at_rest(), Damage::kData, {"page " + std::to_string(page.value) + ":"});
}

TEST_F(VerifyTest, DamagedLogIsSaidWithItsPlace) {
    auto disk = store->disk->power_loss(2);
    // A batch in the middle, behind which others say that it was durable.
    const std::uint64_t start = storage().superblock.log_position;
    disk->flip(StoreFile::kLog, (start + 24 * kPageBytes) % (3u << 20) + 300);
    const auto rules = verify(*disk);
    ASSERT_EQ(rules.size(), 1u);
    EXPECT_EQ(rules[0].damage, Damage::kData);
    EXPECT_NE(rules[0].what.find("log"), std::string::npos) << rules[0].what;
}

TEST_F(VerifyTest, FilesThatAreNoStoreAreRefused) {
    SimDisk blank;
    EXPECT_TRUE(verify(blank).empty());
    EXPECT_EQ(failure_.code, Error::kNotBidstore) << failure_.what;
    SimDisk other;
    ASSERT_TRUE(other.resize(StoreFile::kData, 1u << 20).ok());
    const std::string text(kPageBytes, 'x');
    other.poke(StoreFile::kData, 0, text.data(), text.size());
    other.poke(StoreFile::kData, kPageBytes, text.data(), text.size());
    EXPECT_TRUE(verify(other).empty());
    EXPECT_EQ(failure_.code, Error::kNotBidstore) << failure_.what;
}

// With a table of rows that carry times, most of them with a large value.
class VerifyTimes : public VerifyTest {
  protected:
    void SetUp() override {
        VerifyTest::SetUp();
        auto schema = Schema::make("timed",
                                   {{"id", ColumnType::kU32, 0},
                                    {"at", ColumnType::kTimestamp, 0},
                                    {"text", ColumnType::kBytes, 0}},
                                   1, 1);
        ASSERT_TRUE(schema.ok());
        timed_ = store->create_table(*client, *schema);
        for (std::uint32_t id = 0; id < 40; ++id) {
            RowBuilder row(*schema);
            ASSERT_TRUE(row.set_unsigned(1, store->clock.wall_us()).ok());
            ASSERT_TRUE(row.set_bytes(2, std::vector<std::byte>(id == 7 ? 9'000 : 300)).ok());
            const auto value = row.value();
            ASSERT_TRUE(value.ok());
            TransactionBytes put;
            put.operation(OperationKind::kPut, timed_, row_key(id), *value);
            ASSERT_EQ(store->commit(*client, put).error, Error::kOk);
        }
        restart();  // all of it is in the file
    }
    void restart() {
        ASSERT_TRUE(store->stop());
        open(store->disk->clone(4));
    }
    PageId timed_leaf() {
        const Tree::Way found = timed().way_to(row_key(7).data());
        return found.step[found.depth - 1].page;
    }
    Tree& timed() { return storage().catalog->find(timed_)->tree; }
    void bring_in_all() {
        ASSERT_TRUE(storage()
                        .complete([&] {
                            return timed().visit_range(nullptr, nullptr,
                                                       [](auto*, auto) { return true; });
                        })
                        .ok());
    }
    TableId timed_;
};

TEST_F(VerifyTimes, FlippedBitsAreFoundInLargeValuesAndLeavesOfRowsOfAnyLength) {
    bring_in_all();
    const PageId leaf_page = timed_leaf();
    PageId first{1};
    const std::uint32_t end = storage().space.chunk_count() * kChunkPages;
    while (first.value < end && !storage().space.is_extent(first)) ++first.value;
    ASSERT_LT(first.value, end);
    SimDisk& disk = at_rest();
    EXPECT_TRUE(verify(disk).empty());
    const std::string name = "table " + std::to_string(timed_.value) + " (timed), ";
    // The second half of a leaf has contents of rows, the first one ends and keys.
    for (const std::uint64_t at : {100u, 3'000u}) {
        auto damaged = disk.clone(1);
        damaged->flip(StoreFile::kData, leaf_page.value * kPageBytes + at);
        expect_one(*damaged, Damage::kData,
                   {name + "page " + std::to_string(leaf_page.value), "CRC"});
    }
    // 9,000 bytes: two pages and a part.
    for (std::uint32_t page = 0; page < 3; ++page) {
        auto damaged = disk.clone(1);
        damaged->flip(StoreFile::kData, (first.value + page) * kPageBytes + 500);
        expect_one(*damaged, Damage::kData,
                   {"key 00000007", "page " + std::to_string(first.value + page)});
    }
}

// What only a lost leaf refers to.
TEST_F(VerifyTimes, LargeValueBelowABrokenLeafIsLookedAt) {
    bring_in_all();
    const PageId lost = timed_leaf();
    PageId first{1};
    const std::uint32_t end = storage().space.chunk_count() * kChunkPages;
    while (first.value < end && !storage().space.is_extent(first)) ++first.value;
    ASSERT_LT(first.value, end);
    SimDisk& disk = at_rest();
    disk.flip(StoreFile::kData, lost.value * kPageBytes + 100);
    disk.flip(StoreFile::kData, (first.value + 1) * kPageBytes + 500);
    const std::string name = "table " + std::to_string(timed_.value) + " (timed), page ";
    expect_all(disk, {name + std::to_string(lost.value) + ": ",
                      name + std::to_string(first.value + 1) +
                          ": its checksum is not the one its chunk remembers"});
}

// Retention would have dropped the leaf with its rows alive, and verify said that all was well.
TEST_F(VerifyTimes, LeafThatItsChunkTakesForOlderIsFound) {
    bring_in_all();
    const PageId page = timed_leaf();
    Space& space = storage().space;
    const std::uint32_t newest = space.newest_known(page);
    ASSERT_GT(newest, 1u);
    EXPECT_EQ(store->verify(), "");
    plant([&] {
        space.settle_page(page, space.known_crc(page), newest - 1);
        writable(meta_page(chunk_of(page)));
    });
    EXPECT_NE(store->verify().find("older"), std::string::npos);
    expect_one(at_rest(), Damage::kData,
               {"table " + std::to_string(timed_.value) + " (timed), page " +
                    std::to_string(page.value) + ":",
                "rows are older than they are"});
}

// A crash may leave such ones; they are no broken rule, but said, and of files at rest nobody did.
TEST_F(VerifyTimes, PagesThatRetentionGivesBackLaterAreCounted) {
    bring_in_all();
    const std::vector<std::byte> value(2 * kPageBytes);
    const ExtentNeed need{timed_, 2};
    plant([&] {
        timed().set_floor(1);
        const std::uint32_t newest = storage().space.newest_known(timed_leaf());
        ASSERT_TRUE(storage().space.reserve_extents({&need, 1}, kServingRunsMax));
        storage().space.allocate_extent(timed_, value, newest);
    });
    EXPECT_TRUE(verify(at_rest()).empty());
    EXPECT_EQ(report_.totals.early_pages, 2u);
}

TEST_F(VerifyTimes, LargeValueThatItsChunkTakesForOlderIsFound) {
    bring_in_all();
    Space& space = storage().space;
    PageId first{1};
    const std::uint32_t end = space.chunk_count() * kChunkPages;
    while (first.value < end && !space.is_extent(first)) ++first.value;
    ASSERT_EQ(space.extent_owners(chunk_of(first)), std::vector{timed_});
    const auto bytes = store->disk->peek(StoreFile::kData, first.value * kPageBytes, kPageBytes);
    plant([&] {
        space.written_extent(first, bytes.data(), true, 1);
        writable(meta_page(chunk_of(first)));
    });
    expect_one(at_rest(), Damage::kData,
               {"key 00000007", "older than its row", "page " + std::to_string(first.value)});
}

}  // namespace
}  // namespace bidstore
