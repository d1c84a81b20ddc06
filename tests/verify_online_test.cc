// The verifier beside a daemon: commits, checkpoints, evictions and a compaction go on between any
// two of its reads. It says nothing of a sound store, and names what is planted.
#include "engine/verify_online.h"

#include <gtest/gtest.h>

#include "engine/engine_core.h"
#include "engine/extent_map.h"
#include "engine/inner_edit.h"
#include "engine/leaf_edit.h"
#include "engine/superblock.h"
#include "engine/unread_places.h"
#include "engine/verify_superblock.h"
#include "shm/stats.h"
#include "tests/load_fixture.h"
#include "tests/rebuild_fixture.h"

namespace bidstore {
namespace {

// What the verifier reads; the daemon goes on before each read.
class SharedDisk final : public Disk {
  public:
    // Its read of this number fails; the daemon's do not.
    SharedDisk(SimDisk& below, std::function<void()> meanwhile, std::uint64_t failing_read = 0)
        : below_(below), meanwhile_(std::move(meanwhile)), failing_read_(failing_read) {}
    void submit(DiskRequest& request) override {
        CHECK(request.kind == DiskRequest::Kind::kRead);
        meanwhile_();
        if (++reads_ == failing_read_) {
            below_.observe([&](std::uint64_t step, SimStep) {
                if (below_.submitting() == &request) below_.fail_at(step, EIO);
            });
        }
        below_.submit(request);
        below_.observe(nullptr);
    }
    std::uint64_t reads() const { return reads_; }
    int poll(std::uint64_t timeout_ns) override { return below_.poll(timeout_ns); }
    std::uint32_t in_flight() const override { return below_.in_flight(); }
    void set_wake_descriptor(int) override {}
    Result<std::uint64_t> size_bytes(StoreFile file) override { return below_.size_bytes(file); }
    Status resize(StoreFile, std::uint64_t) override { return {Error::kInvalid, "it only looks"}; }
    Result<bool> backed(StoreFile, std::uint64_t, std::uint64_t) override { return true; }
    std::string path(StoreFile file) const override { return below_.path(file); }

  private:
    SimDisk& below_;
    std::function<void()> meanwhile_;
    const std::uint64_t failing_read_;
    std::uint64_t reads_ = 0;
};

class VerifyOnline : public RebuildFixture {
  protected:
    void open(std::unique_ptr<SimDisk> disk, std::uint64_t checkpoint_interval_ns) {
        SimStoreOptions options = rebuild_store();
        options.frames = 400;  // less than the file has
        options.engine.checkpoint_interval_ns = checkpoint_interval_ns;
        store_ = std::make_unique<SimStore>(options, std::move(disk), 7);
        store_->clock.set_wall_us(made().wall_us);
        ASSERT_TRUE(store_->open().ok());
        client_ = &store_->connect();
        admin_ = &store_->connect();
        compaction_ = std::make_unique<CompactClient>(*admin_);
        token_.reset();
    }
    // Puts, erases and ranges over the first half of the rows, and all large values.
    TransactionBytes change() {
        TransactionBytes bytes;
        const std::uint32_t id = number_ * 131 % 2'000;
        if (number_ % 9 == 0) {
            bytes.operation(OperationKind::kDeleteRange, kRowTable, row_key(id), row_key(id + 40));
        } else if (number_ % 3 == 0) {
            bytes.operation(OperationKind::kPut, kValueTable, row_key(number_ % 40),
                            wide_row(number_ % 40, number_, number_ % 2 == 0 ? 12'000 : 200));
        } else {
            for (std::uint32_t i = 0; i < 20; ++i) {
                bytes.operation(OperationKind::kPut, kRowTable, row_key(id + i),
                                row_value(id + i, number_));
            }
        }
        ++number_;
        return bytes;
    }
    void go_on() {
        if (!token_) token_ = client_->submit(change().bytes());
        store_->clock.advance_ns(200'000);
        if (compacts_ && compaction_->advance()) compacts_ = false;
        if (beside_) beside_();
        ASSERT_NE(store_->round(), EngineRound::kFenced) << store_->engine->fence_reason();
        if (token_ && client_->answer(*token_)) token_.reset();
    }
    Result<OnlineReport> verify_beside(bool busy) {
        SharedDisk disk(*store_->disk, [&] {
            if (busy) go_on();
        }, failing_read_);
        OnlineOptions options;
        options.deadline_ns = store_->clock.monotonic_ns() + deadline_ns_;
        options.pause = [&](std::uint64_t pause_ns) {
            store_->clock.advance_ns(pause_ns);
            if (at_pause_) at_pause_();
            if (busy) go_on();
        };
        rules_.clear();
        auto report = verify_online(disk, store_->clock, options,
                                    [&](const BrokenRule& rule) { rules_.push_back(rule); });
        reads_ = disk.reads();
        return report;
    }
    void put_superblock(std::uint64_t copy, Superblock superblock) {
        seal_superblock(superblock);
        store_->disk->poke(StoreFile::kData, copy * kBlockBytes, &superblock, sizeof superblock);
    }
    std::string all() const {
        std::string text;
        for (const BrokenRule& rule : rules_) text += rule.what + "\n";
        return text;
    }

    std::unique_ptr<SimStore> store_;
    SimClient* client_ = nullptr;
    SimClient* admin_ = nullptr;
    std::unique_ptr<CompactClient> compaction_;
    bool compacts_ = false;
    std::uint32_t number_ = 1;
    std::optional<std::uint32_t> token_;
    std::uint64_t deadline_ns_ = ~std::uint64_t{0} >> 2;
    std::vector<BrokenRule> rules_;
    std::function<void()> at_pause_;
    std::function<void()> beside_;
    std::uint64_t failing_read_ = 0;
    std::uint64_t reads_ = 0;
};

// A file in which a batch of the engine's own changed pages, so that all checksums are right.
class VerifyOnlinePlanted : public VerifyOnline {
  protected:
    void plant(const std::function<void(Storage&)>& change,
               const std::vector<PageId>& wanted = {}) {
        SimStore store(rebuild_store(), made().disk->clone(5), 6);
        store.clock.set_wall_us(made().wall_us);
        ASSERT_TRUE(store.open().ok());
        Storage& storage = store.engine->core().storage();
        for (const PageId page : wanted) ASSERT_TRUE(storage.bring_in(page).ok());
        commit_in(store, change);
        ASSERT_TRUE(store.stop());
        planted_ = store.disk->clone(5);
    }
    static void commit_in(SimStore& store, const std::function<void(Storage&)>& change) {
        Storage& storage = store.engine->core().storage();
        Commit& commit = store.engine->core().commit();
        ASSERT_TRUE(commit.open());
        ASSERT_TRUE(storage.space.secure(4));
        change(storage);
        commit.touch();
        store.run_until([&] { return commit.quiet(); });
    }
    // What no start would open: in the file of a daemon that runs.
    void plant_beside(const std::function<void(Storage&)>& change) {
        open(made().disk->clone(5), 20'000'000);
        commit_in(*store_, change);
        const Storage& storage = store_->engine->core().storage();
        const Csn newest{storage.pool.visible()};
        ASSERT_TRUE(store_->run_until([&] {
            store_->clock.advance_ns(1'000'000);
            return storage.checkpointer->covered() >= newest && !storage.checkpointer->running();
        }));
    }
    static ChunkMeta& meta_of(Storage& storage, PageId page) {
        return chunk_meta(storage.space.writable(meta_page(chunk_of(page))));
    }
    static void set_free(ChunkMeta& meta, PageId page) {
        const std::uint32_t index = page.value % kChunkPages;
        meta.used[index / 64] &= ~(std::uint64_t{1} << (index % 64));
    }
    // The first run of a large value of the table.
    static PageId first_run(TableId table) {
        for (const PageId page : made().extents) {
            const auto bytes = made().disk->peek(
                StoreFile::kData, meta_page(chunk_of(page)).value * kPageBytes, kPageBytes);
            const ExtentMap map(chunk_meta(bytes.data()));
            const std::uint32_t index = page.value % kChunkPages;
            if (map.first_of_run(index) && map.owner(index) == table) return page;
        }
        return {};
    }
    // Each of these words in a rule of its own, and no other rule.
    void expect(const std::vector<std::string>& words, bool busy = false) {
        ASSERT_NE(planted_, nullptr);
        open(std::move(planted_), busy ? 60'000'000 : 1ull << 60);
        expect_beside(words, busy);
    }
    void expect_beside(const std::vector<std::string>& words, bool busy = false) {
        const auto report = verify_beside(busy);
        ASSERT_TRUE(report.ok()) << report.failure().what;
        ASSERT_EQ(rules_.size(), words.size()) << all();
        EXPECT_EQ(report->totals.broken_data, words.size());
        for (std::size_t i = 0; i < words.size(); ++i) {
            EXPECT_EQ(rules_[i].damage, Damage::kData);
            EXPECT_NE(rules_[i].what.find(words[i]), std::string::npos) << all();
        }
        EXPECT_GE(report->checkpoints, busy ? 3u : 0u);
    }
    static std::string text(PageId page) { return "page " + std::to_string(page.value); }

    std::unique_ptr<SimDisk> planted_;
};

TEST_F(VerifyOnline, TakesNoWriteForDamage) {
    open(made().disk->clone(5), 20'000'000);
    CompactionRows gone;  // whose pages the compaction fills with what lies behind them
    put_rows(*store_, *admin_, kRowTable, 20'000, 32'000, gone);
    for (std::uint32_t from = 20'000; from < 31'600; from += 400) {
        ASSERT_EQ(erase_rows(*store_, *admin_, kRowTable, from, from + 400, gone), Error::kOk);
    }
    compacts_ = true;
    const auto report = verify_beside(true);
    ASSERT_TRUE(report.ok()) << report.failure().what;
    EXPECT_TRUE(rules_.empty()) << all();
    EXPECT_EQ(report->totals.tables, 5u);
    EXPECT_GT(report->totals.pages, 500u);
    EXPECT_GT(report->totals.rows, 2'500u);
    RecordProperty("checkpoints", static_cast<int>(report->checkpoints));
    RecordProperty("again", static_cast<int>(report->again));
    EXPECT_GT(report->checkpoints, 5u) << "or nothing was tested";
    EXPECT_GT(report->again, 2u) << "or none came into a step";
    EXPECT_GT(number_, 200u);
    EXPECT_EQ(compaction_->error(), Error::kOk);
    EXPECT_GT(compaction_->moved(), 0u);
    EXPECT_GT(counter_value(store_->pool->stats(), Counter::kEvictions), 0u);
}

// Loads, with large values; rows that get another time, so that their large values do; others that
// expire.
TEST_F(VerifyOnline, TakesNoLoadAndNoRetentionForDamage) {
    open(made().disk->clone(5), 20'000'000);
    SimClient& writer = store_->connect();
    SimClient& loader = store_->connect();
    std::optional<std::uint32_t> token;
    std::uint32_t turns = 0;
    const auto timed = [&] {
        TransactionBytes bytes;
        const std::uint32_t id = turns % 60;
        std::uint64_t at = store_->clock.wall_us() - (turns % 3 == 0 ? 1'800'000'000ull : 0ull);
        if (turns % 5 == 0) {
            const Schema schema = timed_schema();
            RowBuilder row(schema);
            CHECK(row.set_unsigned(1, at).ok());
            CHECK(row.set_bytes(2, std::vector<std::byte>(turns % 2 == 0 ? 9'000 : 300)).ok());
            bytes.operation(OperationKind::kPut, kTimedTable, row_key(id), *row.value());
        } else {
            bytes.columns(OperationKind::kUpdate, kTimedTable, row_key(id), 1,
                          std::as_bytes(std::span(&at, 1)));
        }
        return bytes;
    };
    put_timed_rows(*store_, *admin_, 100, 200);  // nobody writes these again
    std::unique_ptr<LoadClient> load;
    std::uint32_t loads = 0;
    std::uint32_t loaded = 0;
    beside_ = [&] {
        ++turns;
        if (!token) token = writer.submit(timed().bytes());
        if (token && writer.answer(*token)) token.reset();
        if (turns % 40 == 0) store_->clock.set_wall_us(store_->clock.wall_us() + 300'000'000);
        if (!load && loads < 3) {
            const Schema schema = load_schema("loaded" + std::to_string(++loads), true);
            load = std::make_unique<LoadClient>(loader, schema,
                                                make_wide_rows(schema, 100, 30'000, loads));
        } else if (load && load->step()) {
            EXPECT_TRUE(load->loaded()) << static_cast<int>(load->error());
            ++loaded;
            load.reset();
        }
    };
    for (int round = 0; round < 4; ++round) {
        const auto report = verify_beside(true);
        ASSERT_TRUE(report.ok()) << report.failure().what;
        EXPECT_TRUE(rules_.empty()) << all();
        EXPECT_GT(report->checkpoints, 5u) << "or nothing was tested";
    }
    EXPECT_GT(loaded, 1u);
    EXPECT_GT(counter_value(store_->pool->stats(), Counter::kPagesExpired), 0u);
}

// Said as what it is, and never as damage; in a step that a checkpoint outdates it does not count.
TEST_F(VerifyOnline, AReadThatFailsBesideWritersIsSaidOrDoneAgain) {
    std::uint64_t said = 0;
    std::uint64_t again = 0;
    for (failing_read_ = 1;; failing_read_ += 1 + failing_read_ / 3) {
        SCOPED_TRACE("read " + std::to_string(failing_read_));
        open(made().disk->clone(5), 20'000'000);
        const auto report = verify_beside(true);
        ASSERT_TRUE(report.ok()) << report.failure().what;
        if (reads_ < failing_read_) break;
        for (const BrokenRule& rule : rules_) {
            EXPECT_TRUE(rule.unread()) << rule.what;
            EXPECT_NE(rule.what.find("(errno 5)"), std::string::npos) << rule.what;
        }
        EXPECT_EQ(report->totals.unread, rules_.size());
        EXPECT_LE(rules_.size(), 2u) << all();  // of a chunk's metadata also what they would tell
        said += !rules_.empty();
        again += rules_.empty();
    }
    EXPECT_GT(said, 5u);
    EXPECT_GT(again, 0u);
    EXPECT_TRUE(rules_.empty()) << all();
}

TEST_F(VerifyOnline, CountsWhatIsThere) {
    open(made().disk->clone(5), 1ull << 60);
    const auto report = verify_beside(false);
    ASSERT_TRUE(report.ok()) << report.failure().what;
    EXPECT_TRUE(rules_.empty()) << all();
    std::uint64_t pages = made().extents.size();
    for (const auto& [table, of_table] : made().pages) pages += of_table.size();
    EXPECT_EQ(report->totals.pages, pages);
    EXPECT_EQ(report->totals.rows, made().rows.size() + 4 + 1) << "and catalog and sessions";
}

// In pages that nobody writes meanwhile: rows 2,000 to 4,800, and the table whose rows expire.
TEST_F(VerifyOnline, NamesWhatIsPlantedUnderLoad) {
    const PageId leaf = leaf_of(4'000);
    const PageId timed = level(kTimedTable, 0)[0];
    std::vector<PageId> planted{leaf, timed};
    open(damaged(planted), 60'000'000);
    const auto report = verify_beside(true);
    ASSERT_TRUE(report.ok()) << report.failure().what;
    ASSERT_EQ(rules_.size(), 2u) << all();
    EXPECT_NE(rules_[0].what.find("table 16 (rows), page " + std::to_string(leaf.value) + ": "),
              std::string::npos)
        << all();
    EXPECT_NE(rules_[1].what.find("table 18 (timed), page " + std::to_string(timed.value) + ": "),
              std::string::npos)
        << all();
    EXPECT_EQ(report->totals.broken_data, 2u);
}

TEST_F(VerifyOnline, NamesEveryKindOfPage) {
    const PageId node = level(kRowTable, 1)[1];
    const std::vector<std::pair<PageId, std::string>> kinds{
        {node, "table 16 (rows), page " + std::to_string(node.value) + ": "},
        {made().roots.at(kRowTable.value), "table 16 (rows), page "},
        {made().extents[1], "page " + std::to_string(made().extents[1].value) + ": "},
        {meta_page(1), "metadata of chunk 1, page 512: "},
        {directory_page(0), "chunk directory, page 3: "},
        {PageId{1}, "superblock copy 1"}};
    open(made().disk->clone(5), 1ull << 60);
    for (const auto& [page, words] : kinds) {
        const std::uint64_t at = page.value * kPageBytes + (page.value < 2 ? 60 : 1'500);
        store_->disk->flip(StoreFile::kData, at);
        const auto report = verify_beside(false);
        ASSERT_TRUE(report.ok()) << report.failure().what;
        EXPECT_EQ(rules_.size(), 1u) << words << all();
        EXPECT_NE(all().find(words), std::string::npos) << all();
        store_->disk->flip(StoreFile::kData, at);
    }
    // A write that the device lost: an older image, right in itself.
    const auto old = made().disk->peek(StoreFile::kData, node.value * kPageBytes, kPageBytes);
    auto changed = old;
    page_header(changed.data()).count -= 1;
    seal_page(changed.data());
    store_->disk->poke(StoreFile::kData, node.value * kPageBytes, changed.data(), kPageBytes);
    ASSERT_TRUE(verify_beside(false).ok());
    EXPECT_NE(all().find("not the one its chunk remembers"), std::string::npos) << all();
}

// What no tree comes to any more was told without its table.
TEST_F(VerifyOnlinePlanted, NamesTheTableOfPagesBelowABrokenNode) {
    const PageId node = level(kRowTable, 1)[0];
    const PageId rotten = leaf_of(10);
    const PageId old = leaf_of(20);
    const PageId extent = first_run(kTimedTable);
    open(damaged({node, rotten, extent}), 1ull << 60);
    auto bytes = store_->disk->peek(StoreFile::kData, old.value * kPageBytes, kPageBytes);
    page_header(bytes.data()).count -= 1;  // right in itself, as an older image is
    seal_page(bytes.data());
    store_->disk->poke(StoreFile::kData, old.value * kPageBytes, bytes.data(), kPageBytes);
    ASSERT_TRUE(verify_beside(false).ok());
    EXPECT_EQ(rules_.size(), 4u) << all();
    for (const std::string& words :
         {"table 16 (rows), " + text(node), "perhaps table 16 (rows), " + text(rotten),
          "table 16 (rows), " + text(old), "table 18 (timed), " + text(extent)}) {
        EXPECT_NE(("\n" + all()).find("\n" + words + ": "), std::string::npos) << words << all();
    }
}

// The store would give the page out, and write over its rows, one day; and verify said that all was
// well.
TEST_F(VerifyOnlinePlanted, FreePageInATreeIsFound) {
    const PageId leaf = leaf_of(4'000);
    plant([&](Storage& storage) { set_free(meta_of(storage, leaf), leaf); });
    expect({"table 16 (rows), " + text(leaf) + ": is part of a tree, but not allocated"});
    const PageId node = level(kRowTable, 1)[1];
    plant([&](Storage& storage) { set_free(meta_of(storage, node), node); });
    expect({"table 16 (rows), " + text(node) + ": is part of a tree, but not allocated"});
}

TEST_F(VerifyOnlinePlanted, PageOfALargeValueInATreeIsFound) {
    const PageId leaf = leaf_of(4'000);
    const auto bytes = made().disk->peek(StoreFile::kData, leaf.value * kPageBytes, kPageBytes);
    plant([&](Storage& storage) {
        ExtentMapEdit(meta_of(storage, leaf)).take(kRowTable, leaf.value % kChunkPages, 1);
        storage.space.written_extent(leaf, bytes.data(), true, kNewestUnknown);
    });
    expect({"table 16 (rows), " + text(leaf) + ": is part of a tree, and a large value's"});
}

TEST_F(VerifyOnlinePlanted, PageThatIsUsedTwiceIsFound) {
    const PageId parent = level(kRowTable, 1)[1];
    PageId twice;
    plant(
        [&](Storage& storage) {
            const TreeShape& shape = storage.catalog->find(kRowTable)->tree.shape();
            InnerEdit edit(storage.space.writable(parent), shape.inner);
            twice = edit.view().child(2);
            edit.set_child(1, twice);
        },
        {parent});
    expect({text(twice) + ": a row is outside the leaf's fences"}, true);
}

TEST_F(VerifyOnlinePlanted, PageOfTwoTablesIsFound) {
    const PageId stolen = leaf_of(4'000);
    const PageId root = made().roots.at(kValueTable.value);
    plant(
        [&](Storage& storage) {
            const TreeShape& shape = storage.catalog->find(kValueTable)->tree.shape();
            InnerEdit(storage.space.writable(root), shape.inner).set_child(1, stolen);
        },
        {root});
    expect({"table 17 (values), " + text(stolen) + ": type, table or level is not what"});
}

TEST_F(VerifyOnlinePlanted, RowThatRefersToPagesOfAnotherTableIsFound) {
    const PageId first = first_run(kTimedTable);
    ASSERT_TRUE(first);
    std::uint32_t pages = 0;
    plant([&](Storage& storage) {
        ChunkMeta& meta = meta_of(storage, first);
        const std::uint32_t index = first.value % kChunkPages;
        pages = ExtentMap(meta).run_pages(index);
        ExtentMapEdit(meta).give_back(index);
        ExtentMapEdit(meta).take(kRowTable, index, pages);
    });
    expect({"(timed), page "});
    const std::string count = std::to_string(pages);
    const std::string words = "its chunk has " + count + " pages of table 16 at " + text(first) +
                              ", not " + count + " of its own";
    EXPECT_NE(all().find(words), std::string::npos) << all();
}

TEST_F(VerifyOnlinePlanted, RowThatRefersToFreePagesIsFound) {
    const PageId first = first_run(kTimedTable);
    ASSERT_TRUE(first);
    const PageId second{first.value + 1};
    plant_beside([&](Storage& storage) { set_free(meta_of(storage, second), second); });
    expect_beside({"table 18, " + text(second) + " of an extent is not allocated",
                   text(second) + " of it is not allocated"});
}

TEST_F(VerifyOnlinePlanted, RowThatRefersToFreePagesAloneIsFound) {
    const PageId first = first_run(kTimedTable);
    ASSERT_TRUE(first);
    plant([&](Storage& storage) {
        ChunkMeta& meta = meta_of(storage, first);
        const std::uint32_t index = first.value % kChunkPages;
        for (std::uint32_t i = 0; i < ExtentMap(meta).run_pages(index); ++i) {
            set_free(meta, PageId{first.value + i});
        }
        ExtentMapEdit(meta).give_back(index);
    });
    expect({text(first) + " begins no large value, as its chunk says"});
}

TEST_F(VerifyOnlinePlanted, LeafThatItsChunkTakesForOlderIsFound) {
    const PageId leaf = level(kTimedTable, 0)[0];
    plant([&](Storage& storage) {
        Space& space = storage.space;
        const std::uint32_t newest = space.newest_known(leaf);
        ASSERT_GT(newest, 1u);
        space.settle_page(leaf, space.known_crc(leaf), newest - 1);
        meta_of(storage, leaf);
    });
    expect({"table 18 (timed), " + text(leaf) + ": its chunk says that its rows are older"}, true);
}

TEST_F(VerifyOnlinePlanted, LargeValueThatItsChunkTakesForOlderIsFound) {
    const PageId first = first_run(kTimedTable);
    ASSERT_TRUE(first);
    const auto bytes = made().disk->peek(StoreFile::kData, first.value * kPageBytes, kPageBytes);
    plant([&](Storage& storage) {
        const std::uint32_t newest = storage.space.extent_newest(first);
        storage.space.written_extent(first, bytes.data(), true,
                                     newest - 2 * (1u << kExtentNewestShift));
        meta_of(storage, first);
    });
    expect({"its chunk says that it is older than its row, at " + text(first)}, true);
}

// One of them would have freed it under the other one day, and verify said that all was well.
TEST_F(VerifyOnlinePlanted, LargeValueOfTwoRowsIsFound) {
    const PageId leaf = level(kTimedTable, 0)[0];
    std::string key;
    plant(
        [&](Storage& storage) {
            const Schema schema = timed_schema();
            std::byte* const page = storage.space.writable(leaf);
            LeafEdit edit(page, storage.catalog->find(kTimedTable)->tree.shape().leaf, schema);
            std::vector<std::uint32_t> large;
            for (std::uint32_t row = 0; row < edit.count(); ++row) {
                if (RowView(schema, edit.view().value(row)).has_references()) large.push_back(row);
            }
            ASSERT_GE(large.size(), 2u);
            const auto value = edit.view().value(large[0]);
            edit.replace(large[1], std::vector(value.begin(), value.end()));
            key = hex_of(edit.view().key(large[1]), 4);
        },
        {leaf});
    expect({"table 18 (timed), " + text(leaf) + ": large value of key " + key +
            ": another one has its pages from page "},
           true);
}

// Of a daemon that ended, or was fenced, in the midst of a checkpoint.
TEST_F(VerifyOnline, GivesUpOnACheckpointThatNeverEnds) {
    open(made().disk->clone(5), 1ull << 60);
    Superblock superblock = superblock_of(*store_->disk);
    superblock.journal_pages = 3;
    superblock.sequence += 1;
    seal_superblock(superblock);
    for (std::uint64_t copy = 0; copy < kSuperblockCopies; ++copy) {
        store_->disk->poke(StoreFile::kData, copy * kBlockBytes, &superblock, sizeof superblock);
    }
    int pauses = 0;
    at_pause_ = [&] { CHECK_OP(++pauses, <, 10'000); };
    deadline_ns_ = 90'000'000'000;
    const auto report = verify_beside(false);
    ASSERT_EQ(report.error(), Error::kTimedOut);
    EXPECT_NE(report.failure().what.find("the daemon is gone or fenced"), std::string::npos)
        << report.failure().what;
}

// One copy was read before it was whole, the other after that.
TEST_F(VerifyOnline, TakesNoWriteOfBothCopiesForDamage) {
    open(made().disk->clone(5), 1ull << 60);
    const auto flip = [&] {
        for (std::uint64_t copy = 0; copy < kSuperblockCopies; ++copy) {
            store_->disk->flip(StoreFile::kData, copy * kBlockBytes + 60);
        }
    };
    flip();
    bool whole = false;
    at_pause_ = [&] {
        if (!whole) flip();
        whole = true;
    };
    const auto report = verify_beside(false);
    ASSERT_TRUE(report.ok()) << report.failure().what;
    EXPECT_TRUE(rules_.empty()) << all();
    flip();
    EXPECT_EQ(verify_beside(false).error(), Error::kCorruption);
}

TEST_F(VerifyOnline, NamesAnotherFormatVersion) {
    open(made().disk->clone(5), 1ull << 60);
    Superblock superblock = superblock_of(*store_->disk);
    superblock.format_version += 1;
    superblock.crc = 0;
    superblock.crc = crc32c(&superblock, sizeof superblock);
    for (std::uint64_t copy = 0; copy < kSuperblockCopies; ++copy) {
        store_->disk->poke(StoreFile::kData, copy * kBlockBytes, &superblock, sizeof superblock);
    }
    EXPECT_EQ(verify_beside(false).error(), Error::kVersionMismatch);
}

// A start refuses it, and verify said nothing, or looked for the trees in pages of no tree.
TEST_F(VerifyOnline, NamesAnImpossibleSuperblock) {
    open(made().disk->clone(5), 1ull << 60);
    const Superblock sound = superblock_of(*store_->disk);
    const auto put = [&](const Superblock& superblock) {
        for (const std::uint64_t copy : {0u, 1u}) put_superblock(copy, superblock);
    };
    Superblock log = sound;
    log.log_segment_bytes = 5;
    put(log);
    const auto report = verify_beside(false);
    ASSERT_EQ(report.error(), Error::kCorruption);
    EXPECT_NE(report.failure().what.find("superblock with impossible log_segment_bytes"),
              std::string::npos)
        << report.failure().what;
    Superblock root = sound;
    root.catalog_root = meta_page(0).value;
    put(root);
    EXPECT_EQ(verify_beside(false).error(), Error::kCorruption);
    EXPECT_TRUE(rules_.empty()) << all();
    Superblock time = sound;
    time.newest_time_us = 1ull << 54;
    put(time);
    EXPECT_EQ(verify_beside(false).error(), Error::kCorruption);
    put(sound);
    EXPECT_TRUE(verify_beside(false).ok());
}

// The device lost writes of one copy. Nothing was said, and a start that found the other one
// damaged would have taken a checkpoint of long ago for the newest.
TEST_F(VerifyOnline, NamesASuperblockCopyThatMissesWrites) {
    open(made().disk->clone(5), 1ull << 60);
    const Superblock sound = superblock_of(*store_->disk);
    for (const std::uint64_t copy : {0u, 1u}) {
        for (const std::uint64_t behind : {1u, 2u}) {
            Superblock older = sound;
            older.sequence -= behind;
            put_superblock(copy, older);
            ASSERT_TRUE(verify_beside(false).ok());
            ASSERT_EQ(rules_.size(), behind - 1) << all();
            if (behind == 1) continue;  // its write may be under way
            EXPECT_EQ(rules_[0].damage, Damage::kSpace);
            EXPECT_NE(all().find("superblock copy " + std::to_string(copy) + " is 2 writes older"),
                      std::string::npos)
                << all();
        }
        put_superblock(copy, sound);
    }
}

TEST_F(VerifyOnline, CopiesThatAreWrittenBetweenItsReadsAreNotStale) {
    open(made().disk->clone(5), 1ull << 60);
    Superblock superblock = superblock_of(*store_->disk);
    std::uint32_t reads = 0;
    SharedDisk disk(*store_->disk, [&] {
        ++reads;
        superblock.sequence += 3;
        for (const std::uint64_t copy : {0u, 1u}) put_superblock(copy, superblock);
    });
    UnreadPlaces unread;
    OnlineOptions options;
    SuperblockLook look(disk, store_->clock, options, unread);
    const Status looked =
        look.check_copies([](const BrokenRule& rule) { ADD_FAILURE() << rule.what; });
    EXPECT_TRUE(looked.ok());
    EXPECT_EQ(reads, 3u);
}

TEST_F(VerifyOnline, DoesNotCountTablesThatAreGone) {
    open(made().disk->clone(5), 20'000'000);
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, kValueTable, {}, {});
    const std::uint64_t dropped = superblock_of(*store_->disk).checkpoint_csn;
    ASSERT_EQ(store_->commit(*admin_, drop).error, Error::kOk);
    const auto gone = [&] {
        store_->clock.advance_ns(1'000'000);
        const Superblock superblock = superblock_of(*store_->disk);
        return superblock.checkpoint_csn > dropped && superblock.journal_pages == 0;
    };
    ASSERT_TRUE(store_->run_until(gone, 20'000));
    const auto report = verify_beside(false);
    ASSERT_TRUE(report.ok()) << report.failure().what;
    EXPECT_TRUE(rules_.empty()) << all();
    EXPECT_EQ(report->totals.tables, 4u);
}

// What it knows by then is told.
TEST_F(VerifyOnline, TellsAtTheDeadlineWhatItHasFound) {
    open(made().disk->clone(5), 1ull << 60);
    const PageId leaf = level(kRowTable, 0)[3];
    store_->disk->flip(StoreFile::kData, leaf.value * kPageBytes + 900);
    int pauses = 0;
    at_pause_ = [&] {  // after the directory and all chunks
        if (++pauses == 1 + 2 * static_cast<int>(superblock_of(*store_->disk).chunk_count)) {
            store_->clock.advance_ns(1ull << 62);
        }
    };
    deadline_ns_ = 1ull << 61;
    const auto report = verify_beside(false);
    ASSERT_EQ(report.error(), Error::kTimedOut);
    EXPECT_NE(all().find("page " + std::to_string(leaf.value)), std::string::npos) << all();
}

TEST_F(VerifyOnline, GivesUpAtTheDeadline) {
    open(made().disk->clone(5), 1ull << 60);
    deadline_ns_ = 1'000'000;
    EXPECT_EQ(verify_beside(true).error(), Error::kTimedOut);
}

}  // namespace
}  // namespace bidstore
