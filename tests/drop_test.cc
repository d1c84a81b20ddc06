// Dropping tables of fixed-size rows: by metadata, without reading leaves; older snapshots read on;
// a crash at any step leaves no page lost and none in use twice.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <random>

#include "tests/load_fixture.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 9'000;  // 643 leaves, 4 inner nodes and the root

SimStoreOptions drop_store() {
    SimStoreOptions options = small_store();
    options.frames = 400;  // fewer than leaves
    options.engine.checkpoint_interval_ns = 400'000;
    return options;
}

TransactionBytes drop_of(TableId table) {
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, table, {}, {});
    return drop;
}

bool all_dropped(SimStore& store) {
    return store.engine->core().storage().catalog->dropping().empty();
}

std::ptrdiff_t told_of_drops(const SimStore& store) {
    return std::count_if(
        store.log_lines.begin(), store.log_lines.end(),
        [](const std::string& line) { return line.find("dropped tables") != line.npos; });
}

// Every page that the newest bitmaps do not have is available or on its way there.
void expect_no_page_lost(SimStore& store) {
    Storage& storage = store.engine->core().storage();
    std::uint64_t unused = 0;
    for (std::uint32_t chunk = 0; chunk < storage.space.chunk_count(); ++chunk) {
        const auto* bits = meta_bitmap(storage.pool.newest(meta_page(chunk)));
        for (std::uint32_t i = 0; i < kChunkPages / 64; ++i) {
            unused += static_cast<std::uint64_t>(__builtin_popcountll(~bits[i]));
        }
    }
    EXPECT_EQ(unused, storage.space.available() + storage.space.quarantined());
    EXPECT_EQ(store.verify(), "");
}

class DropTest : public ::testing::Test {
  protected:
    explicit DropTest(SimStoreOptions options = drop_store())
        : store_(options, std::make_unique<SimDisk>(), 3), schema_(load_schema("t", false)) {
        EXPECT_TRUE(store_.open().ok());
        client_ = &store_.connect();
        rows_ = make_load_rows(schema_, kRows, 1);
        EXPECT_EQ(run_load(store_, *client_, schema_, rows_), Error::kOk);
        table_ = table_named(store_, "t")->id;
    }
    std::uint64_t page_reads() {
        return store_.pool->stats().counter[static_cast<std::uint32_t>(Counter::kPageReads)].load();
    }
    std::uint64_t quarantined() { return store_.engine->core().storage().space.quarantined(); }
    // A table that stays, and what writers beside a drop take their keys from.
    void load_another() {
        const Schema schema = load_schema("u", false);
        other_rows_ = make_load_rows(schema, kRows, 2);
        ASSERT_EQ(run_load(store_, *client_, schema, other_rows_), Error::kOk);
        other_ = table_named(store_, "u")->id;
        for (const auto& [key, value] : other_rows_) other_keys_.push_back(key);
    }
    const std::vector<std::byte>& some_key() { return other_keys_[random_() % other_keys_.size()]; }

    SimStore store_;
    Schema schema_;
    SimClient* client_ = nullptr;
    LoadRows rows_;
    TableId table_;
    LoadRows other_rows_;
    TableId other_;
    std::vector<std::vector<std::byte>> other_keys_;
    std::mt19937_64 random_{1};
};

// Clients that each write the next transaction when the last one was answered.
class BusyWriters {
  public:
    BusyWriters(SimStore& store, std::size_t count,
                std::function<void(TransactionBytes&)> transaction)
        : transaction_(std::move(transaction)), writers_(count) {
        for (auto& writer : writers_) writer.first = &store.connect();
    }
    void go_on() {
        for (auto& [client, token] : writers_) {
            const auto answer = token ? client->answer(*token) : std::nullopt;
            if (token && !answer) continue;
            written_ += answer && answer->error == Error::kOk;
            TransactionBytes bytes;
            transaction_(bytes);
            token = client->submit(bytes.bytes());
        }
    }
    std::uint64_t written() const { return written_; }

  private:
    std::function<void(TransactionBytes&)> transaction_;
    std::vector<std::pair<SimClient*, std::optional<std::uint32_t>>> writers_;
    std::uint64_t written_ = 0;
};

TEST_F(DropTest, LeavesAreNotReadAndAllPagesComeBack) {
    const std::uint64_t reads = page_reads();
    const std::uint64_t available = store_.engine->core().storage().space.available();
    ASSERT_EQ(store_.commit(*client_, drop_of(table_)).error, Error::kOk);
    ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
    EXPECT_LT(page_reads() - reads, 12u) << "inner nodes, the root and the catalog alone";
    EXPECT_GE(quarantined(), kRows / 14);
    store_.clock.advance_ns(1'000'000);
    ASSERT_TRUE(store_.run_until([&] { return quarantined() == 0; }));
    EXPECT_GE(store_.engine->core().storage().space.available(), available + kRows / 14);
    expect_no_page_lost(store_);
    // What came back serves again.
    EXPECT_EQ(run_load(store_, *client_, schema_, rows_), Error::kOk);
    EXPECT_EQ(store_.verify(), "");
}

// Dropped tables stayed in memory for ever, and each round went through them.
TEST_F(DropTest, TablesThatAreGoneAreNotGoneThroughAndTheirIdsNotUsedAgain) {
    const auto catalog = [&]() -> Catalog& { return *store_.engine->core().storage().catalog; };
    const std::size_t before = catalog().tables_with_pages();
    TableId last = table_;
    for (std::uint32_t i = 0; i < 20; ++i) {
        const TableId made = store_.create_table(*client_, load_schema("u", false));
        EXPECT_GT(made, last);
        last = made;
        ASSERT_EQ(store_.commit(*client_, drop_of(made)).error, Error::kOk);
    }
    ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
    EXPECT_EQ(catalog().tables_with_pages(), before);
    EXPECT_EQ(catalog().find(last), nullptr);
    ASSERT_TRUE(store_.stop());
    SimStore again(drop_store(), store_.disk->clone(4), 5);
    ASSERT_TRUE(again.open().ok());
    EXPECT_EQ(again.engine->core().storage().catalog->tables_with_pages(), before);
    EXPECT_GT(again.create_table(again.connect(), load_schema("u", false)), last);
    EXPECT_EQ(again.verify(), "");
}

TEST_F(DropTest, RowsThatChangedMeanwhileGoAsWell) {
    SimClient& other = store_.connect();
    std::uint32_t row_number = 0;
    for (const auto& [key, value] : rows_) {
        if (row_number++ % 50 != 0) continue;
        TransactionBytes put;
        put.operation(OperationKind::kPut, table_, key, value);
        ASSERT_EQ(store_.commit(other, put).error, Error::kOk);
    }
    ASSERT_EQ(store_.commit(*client_, drop_of(table_)).error, Error::kOk);
    ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
    store_.clock.advance_ns(1'000'000);
    ASSERT_TRUE(store_.run_until([&] { return quarantined() == 0; }));
    store_.engine->core().storage().pool.check_invariants();
    expect_no_page_lost(store_);
}

// Readers with a root of their own went by it while the tree was taken apart: some rows were there,
// others were not.
TEST_F(DropTest, NoRootIsGoodThatWasSeenBeforeTheDrop) {
    const Published& published = store_.pool->header().published;
    EXPECT_EQ(published.dropped.load(), 0u);
    const std::uint64_t before = published.visible.load();
    const auto answer = store_.commit(*client_, drop_of(table_));
    ASSERT_EQ(answer.error, Error::kOk);
    EXPECT_FALSE(all_dropped(store_)) << "its pages go later";
    EXPECT_EQ(published.dropped.load(), answer.csn);
    EXPECT_GT(published.dropped.load(), before);
    EXPECT_LE(published.dropped.load(), published.visible.load());
    ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
    EXPECT_EQ(published.dropped.load(), answer.csn);
}

// A file of many chunks, each of whose metadata a step may change.
class SmallJournal : public DropTest {
  protected:
    static SimStoreOptions options(std::uint64_t journal_bytes) {
        SimStoreOptions options = drop_store();
        options.frames = 4'000;
        options.engine.journal_bytes = journal_bytes;
        return options;
    }
    explicit SmallJournal(std::uint64_t journal_bytes = 500u << 10)
        : DropTest(options(journal_bytes)) {
        const Schema big = load_schema("big", true);
        for (std::uint32_t part = 0; part < 110; ++part) {
            const TableId table =
                part == 0 ? store_.create_table(*client_, big) : table_named(store_, "big")->id;
            RowBuilder builder(big);
            std::vector<std::byte> key(16, static_cast<std::byte>(part));
            EXPECT_TRUE(builder.set_bytes(0, key).ok());
            EXPECT_TRUE(builder.set_bytes(2, std::vector<std::byte>(480'000)).ok());
            TransactionBytes put;
            put.operation(OperationKind::kPut, table, key, *builder.value());
            EXPECT_EQ(store_.commit(*client_, put).error, Error::kOk);
        }
        EXPECT_GT(store_.engine->core().storage().space.chunk_count(), 25u);
    }
};

// A step was as large as the pool allowed, and more than the journal did: it was refused without a
// word, again and again.
TEST_F(SmallJournal, PagesOfADroppedTableComeBack) {
    ASSERT_EQ(store_.commit(*client_, drop_of(table_)).error, Error::kOk);
    ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
    EXPECT_EQ(told_of_drops(store_), 0);
    store_.clock.advance_ns(1'000'000);
    ASSERT_TRUE(store_.run_until([&] { return quarantined() == 0; }));
    expect_no_page_lost(store_);
}

// Drops and writers take places of a short journal. Those that a checkpoint had set free went to
// the drop, and when drops gave way they did so for as long as writers were slowed.
TEST_F(SmallJournal, DropsAndSlowedWritersBothGoOn) {
    ASSERT_NO_FATAL_FAILURE(load_another());
    BusyWriters writers(store_, 3, [&](TransactionBytes& puts) {
        for (int i = 0; i < 10; ++i) {
            const auto& key = some_key();
            puts.operation(OperationKind::kPut, other_, key, other_rows_.at(key));
        }
    });
    const auto write_on = [&] {
        writers.go_on();
        store_.clock.advance_ns(100'000);
    };
    const auto writes_of = [&](std::uint32_t rounds) {
        const std::uint64_t before = writers.written();
        for (std::uint32_t i = 0; i < rounds; ++i) {
            write_on();
            store_.round();
        }
        return writers.written() - before;
    };
    writes_of(500);
    const std::uint64_t alone = writes_of(1'500);
    ASSERT_TRUE(client_->submit(drop_of(table_).bytes()).has_value());
    EXPECT_GT(writes_of(1'500), alone / 2);
    EXPECT_TRUE(store_.run_until([&] {
        write_on();
        return table_named(store_, "t") == nullptr && all_dropped(store_);
    }));
}

class LeastJournal : public DropTest {
  protected:
    static SimStoreOptions options() {
        SimStoreOptions options = drop_store();
        options.engine.journal_bytes = 120u << 10;
        return options;
    }
    LeastJournal() : DropTest(options()) {}
};

TEST_F(LeastJournal, IsNamedOnceWhenNoStepFits) {
    ASSERT_EQ(store_.commit(*client_, drop_of(table_)).error, Error::kOk);
    const TableId other = store_.create_table(*client_, load_schema("u", false));
    ASSERT_EQ(store_.commit(*client_, drop_of(other)).error, Error::kOk);
    store_.run_until([] { return false; }, 500);
    EXPECT_FALSE(all_dropped(store_));
    EXPECT_EQ(told_of_drops(store_), 1);
    // What the line tells to do helps.
    ASSERT_TRUE(store_.stop());
    SimStore again(drop_store(), store_.disk->clone(4), 5);
    ASSERT_TRUE(again.open().ok());
    ASSERT_TRUE(again.run_until([&] { return all_dropped(again); }));
    EXPECT_EQ(told_of_drops(again), 0);
    expect_no_page_lost(again);
}

// In a file that has room for one of two.
class FullFile : public DropTest {
  protected:
    static SimStoreOptions options() {
        SimStoreOptions options = drop_store();
        options.pages = 3 * kChunkPages;
        options.engine.journal_bytes = 200u << 10;  // so that a drop takes many steps
        options.engine.checkpoint_interval_ns = 3'600'000'000'000;
        return options;
    }
    FullFile() : DropTest(options()) {}
};

TEST_F(FullFile, ALoadWaitsForThePagesOfDroppedTables) {
    const Schema other = load_schema("u", false);
    const LoadRows rows = make_load_rows(other, kRows, 2);
    ASSERT_EQ(run_load(store_, *client_, other, rows), Error::kNoSpace);
    SimClient& second = store_.connect();
    LoadClient load(second, other, rows);
    ASSERT_TRUE(store_.run_until([&] { return load.step() || load.answered() > 100; }));
    ASSERT_EQ(load.error(), Error::kOk);
    ASSERT_TRUE(client_->submit(drop_of(table_).bytes()).has_value());
    ASSERT_TRUE(store_.run_until([&] { return load.step(); }));
    EXPECT_EQ(load.error(), Error::kOk);
    EXPECT_TRUE(all_dropped(store_));
    expect_no_page_lost(store_);
}

// What a dropped table had in extents is found some time after its leaves, and was not waited for.
class FullOfValues : public DropTest {
  protected:
    static SimStoreOptions options() {
        SimStoreOptions options = drop_store();
        options.frames = 1'000;
        options.pages = 3 * kChunkPages;
        return options;
    }
    FullOfValues() : DropTest(options()) {}
    std::uint64_t tables_dropping() {
        return store_.pool->stats()
            .counter[static_cast<std::uint32_t>(Counter::kTablesDropping)]
            .load();
    }
};

TEST_F(FullOfValues, ALoadWaitsForTheLargeValuesOfDroppedTables) {
    const Schema big = load_schema("big", true);
    const TableId table = store_.create_table(*client_, big);
    RowBuilder builder(big);
    for (std::uint32_t part = 0; part < 6; ++part) {
        std::vector<std::byte> key(16, static_cast<std::byte>(part));
        ASSERT_TRUE(builder.set_bytes(0, key).ok());
        ASSERT_TRUE(builder.set_bytes(2, std::vector<std::byte>(480'000)).ok());
        TransactionBytes put;
        put.operation(OperationKind::kPut, table, key, *builder.value());
        ASSERT_EQ(store_.commit(*client_, put).error, Error::kOk);
    }
    const Schema other = load_schema("u", false);
    const LoadRows rows = make_load_rows(other, 4'000, 2);
    ASSERT_EQ(run_load(store_, *client_, other, rows), Error::kNoSpace);
    ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
    ASSERT_EQ(store_.commit(*client_, drop_of(table)).error, Error::kOk);
    ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
    EXPECT_EQ(run_load(store_, *client_, other, rows), Error::kOk);
    store_.clock.advance_ns(1'000'000);
    ASSERT_TRUE(store_.run_until([&] { return tables_dropping() == 0; }));
    expect_no_page_lost(store_);
}

// The pages of dropped tables never come: their list may have none.
class StandingDrop : public DropTest {
  protected:
    static SimStoreOptions options() {
        SimStoreOptions options = drop_store();
        options.pages = 3 * kChunkPages;
        options.engine.quarantine_pages_max = 0;
        return options;
    }
    StandingDrop() : DropTest(options()) {}
};

// It waited for ever.
TEST_F(StandingDrop, ALoadWaitsForItSomeTimeAndNamesIt) {
    ASSERT_EQ(store_.commit(*client_, drop_of(table_)).error, Error::kOk);
    const Schema other = load_schema("u", false);
    LoadClient load(*client_, other, make_load_rows(other, kRows, 2));
    EXPECT_FALSE(store_.run_until([&] { return load.step(); }, 5'000));
    store_.clock.advance_ns(59'000'000'000);
    EXPECT_FALSE(store_.run_until([&] { return load.step(); }, 1'000));
    store_.clock.advance_ns(1'000'000'000);
    ASSERT_TRUE(store_.run_until([&] { return load.step(); }, 5'000));
    EXPECT_EQ(load.error(), Error::kNoSpace);
    EXPECT_FALSE(all_dropped(store_));
    EXPECT_EQ(told_of_drops(store_), 1);
}

class LongLease : public DropTest {
  protected:
    static SimStoreOptions options() {
        SimStoreOptions options = drop_store();
        options.engine.max_snapshot_age_ns = 3'000'000'000'000;
        return options;
    }
    LongLease() : DropTest(options()) {}
};

TEST_F(LongLease, ASnapshotFromBeforeReadsTheTableToItsEnd) {
    auto descriptor = store_.pool->open_read_only();
    ASSERT_TRUE(descriptor.ok());
    auto view = PoolView::map(std::move(*descriptor));
    ASSERT_TRUE(view.ok());
    SimClient& reader = store_.connect(Rights::kReader);
    const TreeShape shape(schema_, table_);
    const PageId root = table_named(store_, "t")->tree.root();
    {
        SimSnapshot snapshot(store_, *view, reader, 0);
        ASSERT_EQ(store_.commit(*client_, drop_of(table_)).error, Error::kOk);
        ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
        std::uint32_t row_number = 0;
        for (const auto& [key, value] : rows_) {
            if (row_number++ % 300 != 0) continue;
            const auto seen = snapshot.get(shape, root, key);
            ASSERT_TRUE(seen.has_value()) << snapshot.trouble();
            ASSERT_TRUE(seen->has_value());
            EXPECT_EQ(**seen, value);
        }
        EXPECT_GT(snapshot.misses(), 20u);
        EXPECT_GE(quarantined(), kRows / 14) << "what a snapshot needs is not used again";
    }
    store_.clock.advance_ns(1'000'000);
    ASSERT_TRUE(store_.run_until([&] { return quarantined() == 0; }));
    expect_no_page_lost(store_);
}

// It was read, and told of, in a tight loop, and no table behind it was dropped any more.
TEST_F(DropTest, APageThatCannotBeReadHoldsBackItsTableAlone) {
    const Schema other_schema = load_schema("u", false);
    ASSERT_EQ(run_load(store_, *client_, other_schema, make_load_rows(other_schema, 3'000, 2)),
              Error::kOk);
    Storage& storage = store_.engine->core().storage();
    const PageId root = table_named(store_, "t")->tree.root();
    ASSERT_TRUE(storage.bring_in(root).ok());
    const TreeShape shape(schema_, table_);
    const PageId bad = InnerView(storage.pool.newest(root), shape.inner).child(0);
    ASSERT_FALSE(storage.pool.resident(bad));
    store_.disk->bad_range(StoreFile::kData, bad.value * kPageBytes, kPageBytes, EIO);
    const std::uint64_t reads = page_reads();
    const std::uint64_t began_ns = store_.clock.monotonic_ns();
    ASSERT_EQ(store_.commit(*client_, drop_of(table_)).error, Error::kOk);
    ASSERT_EQ(store_.commit(*client_, drop_of(table_named(store_, "u")->id)).error, Error::kOk);
    const auto dropping = [&] { return storage.catalog->dropping().size(); };
    ASSERT_TRUE(store_.run_until([&] { return dropping() == 1; }));
    for (int round = 0; round < 2'000; ++round) store_.round();
    const std::uint64_t tries = 1 + (store_.clock.monotonic_ns() - began_ns) / 100'000'000;
    EXPECT_LE(page_reads() - reads, tries + 12);
    EXPECT_EQ(std::count_if(store_.log_lines.begin(), store_.log_lines.end(),
                            [&](const std::string& line) {
                                return line.find(std::to_string(bad.value * kPageBytes)) !=
                                       std::string::npos;
                            }),
              1);
    store_.disk->clear_bad_ranges();
    store_.clock.advance_ns(100'000'000);
    ASSERT_TRUE(store_.run_until([&] { return dropping() == 0; }));
    expect_no_page_lost(store_);
}

// One bit said of all of them that they were stuck, and stayed while drops gave way to others: a
// load was refused though the pages of a table that was dropped meanwhile were on their way.
TEST_F(DropTest, OneThatIsStuckSaysNothingOfTheNext) {
    const Schema other = load_schema("u", false);
    const LoadRows rows = make_load_rows(other, kRows, 2);
    ASSERT_EQ(run_load(store_, *client_, other, rows), Error::kOk);
    const TableId next = store_.create_table(*client_, load_schema("v", false));
    Engine::Core& core = store_.engine->core();
    const PageId root = table_named(store_, "t")->tree.root();
    ASSERT_TRUE(core.storage().bring_in(root).ok());
    const TreeShape shape(schema_, table_);
    const PageId bad = InnerView(core.storage().pool.newest(root), shape.inner).child(0);
    ASSERT_FALSE(core.storage().pool.resident(bad));
    store_.disk->bad_range(StoreFile::kData, bad.value * kPageBytes, kPageBytes, EIO);
    EXPECT_FALSE(core.pages_to_come());
    ASSERT_EQ(store_.commit(*client_, drop_of(table_)).error, Error::kOk);
    ASSERT_TRUE(store_.run_until([&] { return !core.pages_to_come(); }));
    EXPECT_EQ(core.storage().catalog->dropping().size(), 1u);
    // Somebody waits for a page.
    store_.disk->hold_back(StoreFile::kData);
    TransactionBytes looks;
    for (std::uint32_t i = 0; i < 60; ++i) {
        auto absent = std::next(rows.begin(), i * 100)->first;
        absent.back() ^= std::byte{0x80};
        looks.operation(OperationKind::kDelete, table_named(store_, "u")->id, absent, {},
                        kIfPresent);
    }
    ASSERT_TRUE(client_->submit(looks.bytes()).has_value());
    SimClient& second = store_.connect();
    ASSERT_EQ(store_.commit(second, drop_of(next)).error, Error::kOk);
    EXPECT_EQ(core.storage().catalog->dropping().size(), 2u);
    EXPECT_TRUE(core.pages_to_come());
    store_.disk->release();
    store_.disk->clear_bad_ranges();
    store_.clock.advance_ns(100'000'000);
    ASSERT_TRUE(store_.run_until([&] { return all_dropped(store_); }));
    EXPECT_FALSE(core.pages_to_come());
}

// Drops gave way to everybody who waited for a page, and somebody always did.
TEST_F(DropTest, GoOnBesideMissesWithoutAPause) {
    ASSERT_NO_FATAL_FAILURE(load_another());  // more leaves than frames
    BusyWriters writers(store_, 4, [&](TransactionBytes& looks) {
        for (int i = 0; i < 60; ++i) {  // one miss after the other, and nothing changes
            auto absent = some_key();
            absent.back() ^= std::byte{0x80};
            looks.operation(OperationKind::kDelete, other_, absent, {}, kIfPresent);
        }
    });
    store_.disk->serve_one_by_one(store_.clock, 1'000'000);
    ASSERT_TRUE(store_.run_until([&] {
        writers.go_on();
        return writers.written() > 4;
    }));
    ASSERT_TRUE(client_->submit(drop_of(table_).bytes()).has_value());
    const bool dropped = store_.run_until(
        [&] {
            writers.go_on();
            store_.clock.advance_ns(1'000'000);
            return table_named(store_, "t") == nullptr && all_dropped(store_);
        },
        12'000);
    EXPECT_TRUE(dropped);
    EXPECT_GT(writers.written(), 50u) << "nor do they come first";
}

// A table is loaded and dropped; power or process go at a step of the drop.
std::unique_ptr<SimDisk> cut_off_drop(std::uint64_t seed, std::uint64_t step, bool power,
                                      std::uint64_t& steps) {
    SimDiskOptions disk;
    disk.seed = seed;
    SimStore store(drop_store(), std::make_unique<SimDisk>(disk), seed);
    CHECK(store.open().ok());
    SimClient& client = store.connect();
    const Schema schema = load_schema("t", false);
    CHECK(run_load(store, client, schema, make_load_rows(schema, 3'000, seed)) == Error::kOk);
    const std::uint64_t before = store.disk->steps();
    if (step != 0) store.disk->crash_at(before + step);
    client.submit(drop_of(table_named(store, "t")->id).bytes());
    store.run_until([&] {
        store.clock.advance_ns(20'000);
        return store.disk->crashed() || (table_named(store, "t") == nullptr && all_dropped(store) &&
                                         store.engine->core().storage().space.quarantined() == 0);
    });
    steps = store.disk->steps() - before;
    return power ? store.disk->power_loss(step) : store.disk->process_crash(step);
}

TEST(DropCrash, EveryDiskStepOfADropLeaksNothing) {
    std::uint64_t steps = 0;
    cut_off_drop(7, 0, true, steps);
    ASSERT_GT(steps, 10u);
    for (std::uint64_t step = 1; step <= steps && !::testing::Test::HasFailure(); ++step) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " + std::to_string(steps));
        for (const bool power : {true, false}) {
            std::uint64_t ignored = 0;
            SimStore store(drop_store(), cut_off_drop(7, step, power, ignored), 5);
            const Status opened = store.open();
            ASSERT_TRUE(opened.ok()) << opened.failure().what;
            EXPECT_EQ(store.verify(), "");
            ASSERT_TRUE(store.run_until([&] { return all_dropped(store); }));
            expect_no_page_lost(store);
        }
    }
}

}  // namespace
}  // namespace bidstore
