// Large values in a simulated store: written, read in place under snapshots, replaced, deleted, and
// found damaged; nothing leaks, nothing belongs to two rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <random>

#include "engine/extent_map.h"
#include "shm/stats.h"
#include "tests/sim.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;

Schema document_schema() {
    auto schema = Schema::make("documents",
                               {{"id", ColumnType::kU32, 0},
                                {"n", ColumnType::kI64, 0},
                                {"title", ColumnType::kText, 0},
                                {"body", ColumnType::kBytes, 0}},
                               1);
    CHECK(schema.ok());
    return *schema;
}
constexpr std::uint16_t kCount = 1;
constexpr std::uint16_t kTitle = 2;
constexpr std::uint16_t kBody = 3;

Bytes key_of(std::uint32_t id) {
    Bytes key(4);
    encode_key_integer(key.data(), id, 4, false);
    return key;
}

// Bytes that say which value and which page of it they are.
Bytes content(std::uint32_t seed, std::size_t length) {
    std::mt19937_64 random(seed);
    Bytes bytes(length);
    for (std::size_t i = 0; i < length; i += 8) {
        const std::uint64_t word = random();
        std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, length - i));
    }
    return bytes;
}

Bytes row_of(std::int64_t n, const Bytes& title, const Bytes& body) {
    const Schema schema = document_schema();
    RowBuilder builder(schema);
    CHECK(builder.set_signed(kCount, n).ok());
    CHECK(builder.set_bytes(kTitle, title).ok());
    CHECK(builder.set_bytes(kBody, body).ok());
    const auto value = builder.value();
    CHECK(value.ok());
    return {value->begin(), value->end()};
}

Bytes column(const Bytes& whole, std::uint32_t index) {
    const auto bytes = column_bytes(document_schema(), index, nullptr, whole);
    return {bytes.begin(), bytes.end()};
}

SimStoreOptions large_store() {
    SimStoreOptions options = small_store();
    options.frames = 4096;
    options.engine.log_segment_bytes = 4u << 20;
    options.engine.journal_bytes = 8u << 20;
    return options;
}

class LargeValue : public testing::Test {
  protected:
    void start(const SimStoreOptions& options) {
        options_ = options;
        open(std::make_unique<SimDisk>());
        documents_ = store_->create_table(*client_, document_schema());
    }
    void open(std::unique_ptr<SimDisk> disk) {
        view_.reset();
        store_ = std::make_unique<SimStore>(options_, std::move(disk), 1);
        const Status opened = store_->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        auto descriptor = store_->pool->open_read_only();
        ASSERT_TRUE(descriptor.ok());
        auto view = PoolView::map(std::move(*descriptor));
        ASSERT_TRUE(view.ok());
        view_.emplace(std::move(*view));
        client_ = &store_->connect();
    }
    Storage& storage() { return store_->engine->core().storage(); }
    Error put(std::uint32_t id, const Bytes& value) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, documents_, key_of(id), value);
        return store_->commit(*client_, bytes).error;
    }
    Error update(std::uint32_t id, std::uint16_t column, const Bytes& value) {
        TransactionBytes bytes;
        bytes.columns(OperationKind::kUpdate, documents_, key_of(id), column, value);
        return store_->commit(*client_, bytes).error;
    }
    Error erase(std::uint32_t id) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kDelete, documents_, key_of(id), {});
        return store_->commit(*client_, bytes).error;
    }
    Bytes row(std::uint32_t id) { return store_->rows(documents_)[key_of(id)]; }
    // Rounds until a checkpoint covers everything and freed pages are available again.
    void settle() {
        const auto finished = [&] { return storage().checkpointer->totals().finished; };
        for (int i = 0; i < 3; ++i) {
            const std::uint64_t before = finished();
            TransactionBytes bytes;
            bytes.operation(OperationKind::kPut, documents_, key_of(~0u), row_of(i, {}, {}));
            ASSERT_EQ(store_->commit(*client_, bytes).error, Error::kOk);
            store_->clock.advance_ns(options_.engine.checkpoint_interval_ns);
            ASSERT_TRUE(store_->run_until([&] { return finished() > before; }));
        }
        store_->run_until([&] { return storage().space.quarantined() == 0; });
    }
    PageId root() { return storage().catalog->find(documents_)->tree.root(); }
    std::optional<Bytes> read(SimSnapshot& snapshot, std::uint32_t id) {
        const TreeShape shape(document_schema(), documents_);
        const auto stored = snapshot.get(shape, root(), key_of(id));
        EXPECT_EQ(snapshot.trouble(), "");
        if (!stored || !*stored) return std::nullopt;
        const auto whole = snapshot.whole(document_schema(), **stored);
        EXPECT_EQ(snapshot.trouble(), "");
        return whole;
    }
    ValueReference reference_of(std::uint32_t id) {
        std::optional<ValueReference> found;
        EXPECT_TRUE(storage()
                        .complete([&] {
                            const Lookup lookup =
                                storage().catalog->find(documents_)->tree.get(key_of(id).data());
                            RowView(document_schema(), lookup.value)
                                .each_reference([&](std::uint32_t, const ValueReference& each) {
                                    found = each;
                                });
                            return lookup;
                        })
                        .ok());
        CHECK(found.has_value());
        return *found;
    }

    SimStoreOptions options_;
    std::unique_ptr<SimStore> store_;
    std::optional<PoolView> view_;
    SimClient* client_ = nullptr;
    TableId documents_;
};

TEST_F(LargeValue, OfAnySizeComesBackAndGoesWithItsRow) {
    start(large_store());
    settle();
    const std::uint64_t free_before = storage().space.available();
    const std::uint32_t chunks_before = storage().space.chunk_count();
    std::uint32_t id = 0;
    for (const std::size_t size : {4'000u, 4'010u, 4'096u, 4'097u, 8'192u, 70'000u, 500'000u}) {
        const Bytes value = row_of(7, content(1, 40), content(id, size));
        ASSERT_EQ(put(id, value), Error::kOk) << size;
        EXPECT_EQ(row(id), value) << size;
        ++id;
    }
    EXPECT_EQ(store_->verify(), "");
    while (id > 0) ASSERT_EQ(erase(--id), Error::kOk);
    settle();
    EXPECT_EQ(store_->verify(), "");
    const std::uint64_t grown = storage().space.chunk_count() - chunks_before;
    EXPECT_EQ(storage().space.available(), free_before + grown * (kChunkPages - 1));
}

TEST_F(LargeValue, OfTheLargestSizeSurvivesPowerLossAndRestart) {
    start(large_store());
    // The ring of a simulated client carries less: two halves come in two columns.
    const Bytes half = content(5, 400'000);
    ASSERT_EQ(put(1, row_of(1, half, {})), Error::kOk);
    ASSERT_EQ(update(1, kBody, content(6, 500'000)), Error::kOk);
    open(store_->disk->power_loss(3));  // from the log
    EXPECT_EQ(column(row(1), kTitle), half);
    EXPECT_EQ(column(row(1), kBody), content(6, 500'000));
    EXPECT_EQ(store_->verify(), "");
    settle();
    open(store_->disk->power_loss(4));  // from the data file
    EXPECT_EQ(column(row(1), kTitle), half);
    EXPECT_EQ(column(row(1), kBody), content(6, 500'000));
    EXPECT_EQ(store_->verify(), "");
}

TEST_F(LargeValue, StaysWhereItIsWhileOtherColumnsChange) {
    start(large_store());
    ASSERT_EQ(put(1, row_of(1, content(1, 10), content(2, 100'000))), Error::kOk);
    const ValueReference before = reference_of(1);
    AddBody add{};
    add.column = kCount;
    add.delta = 41;
    TransactionBytes bytes;
    bytes.add(documents_, key_of(1), add);
    ASSERT_EQ(store_->commit(*client_, bytes).error, Error::kOk);
    ASSERT_EQ(update(1, kTitle, content(3, 300)), Error::kOk);
    EXPECT_EQ(reference_of(1).runs, before.runs);
    EXPECT_EQ(row(1), row_of(42, content(3, 300), content(2, 100'000)));
    // A title that is too long for the page goes out beside it; a short one comes back.
    ASSERT_EQ(update(1, kTitle, content(4, 5'000)), Error::kOk);
    EXPECT_EQ(row(1), row_of(42, content(4, 5'000), content(2, 100'000)));
    ASSERT_EQ(update(1, kTitle, {}), Error::kOk);
    EXPECT_EQ(reference_of(1).runs, before.runs);
    ASSERT_EQ(update(1, kBody, content(9, 60)), Error::kOk);
    EXPECT_EQ(row(1), row_of(42, {}, content(9, 60)));
    settle();
    EXPECT_EQ(store_->verify(), "");
}

TEST_F(LargeValue, IsChangedSeveralTimesInOneTransaction) {
    start(large_store());
    ASSERT_EQ(put(1, row_of(1, {}, content(1, 20'000))), Error::kOk);
    TransactionBytes bytes;
    bytes.operation(OperationKind::kPut, documents_, key_of(1), row_of(2, {}, content(2, 30'000)));
    bytes.columns(OperationKind::kUpdate, documents_, key_of(1), kTitle, content(3, 6'000));
    bytes.columns(OperationKind::kCheckEquals, documents_, key_of(1), kBody, content(2, 30'000));
    bytes.operation(OperationKind::kDelete, documents_, key_of(1), {});
    bytes.operation(OperationKind::kPut, documents_, key_of(1), row_of(4, {}, content(5, 9'000)));
    bytes.columns(OperationKind::kUpdate, documents_, key_of(1), kTitle, content(6, 8'000));
    ASSERT_EQ(store_->commit(*client_, bytes).error, Error::kOk);
    EXPECT_EQ(row(1), row_of(4, content(6, 8'000), content(5, 9'000)));
    settle();
    EXPECT_EQ(store_->verify(), "");
    open(store_->disk->power_loss(3));
    EXPECT_EQ(row(1), row_of(4, content(6, 8'000), content(5, 9'000)));
    EXPECT_EQ(store_->verify(), "");
}

TEST_F(LargeValue, IsComparedByItsBytesAlsoWhenItIsNotInThePool) {
    start(large_store());
    const Bytes value = content(1, 50'000);
    ASSERT_EQ(put(1, row_of(1, {}, value)), Error::kOk);
    settle();
    open(store_->disk->power_loss(3));
    const auto check = [&](const Bytes& expected) {
        TransactionBytes bytes;
        bytes.columns(OperationKind::kCheckEquals, documents_, key_of(1), kBody, expected);
        return store_->commit(*client_, bytes).error;
    };
    EXPECT_EQ(check(value), Error::kOk);
    Bytes other = value;
    other[30'000] ^= std::byte{1};
    EXPECT_EQ(check(other), Error::kPrecondition);
    EXPECT_EQ(check(content(1, 49'999)), Error::kPrecondition);
    EXPECT_EQ(check({}), Error::kPrecondition);
}

TEST_F(LargeValue, GoesWithRangesAndTables) {
    start(large_store());
    settle();
    for (std::uint32_t id = 0; id < 40; ++id) {
        ASSERT_EQ(put(id, row_of(1, {}, content(id, 5'000 + 1'000 * id))), Error::kOk);
    }
    TransactionBytes bytes;
    bytes.operation(OperationKind::kDeleteRange, documents_, key_of(5), key_of(35));
    ASSERT_EQ(store_->commit(*client_, bytes).error, Error::kOk);
    EXPECT_EQ(store_->verify(), "");
    EXPECT_EQ(row(4), row_of(1, {}, content(4, 9'000)));
    EXPECT_EQ(row(35), row_of(1, {}, content(35, 40'000)));
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, documents_, {}, {});
    ASSERT_EQ(store_->commit(*client_, drop).error, Error::kOk);
    ASSERT_TRUE(store_->run_until([&] { return storage().catalog->dropping().empty(); }));
    EXPECT_EQ(store_->verify(), "");
    EXPECT_TRUE(store_->run_until([&] { return !storage().space.has_extents(0); }));
    EXPECT_EQ(store_->verify(), "");
}

// The old value stays readable for the snapshot: from the pool while it was never written, from the
// file after it was evicted.
TEST_F(LargeValue, ReplacedUnderASnapshotIsStillReadByIt) {
    for (const bool written : {false, true}) {
        SCOPED_TRACE(written ? "in the file" : "in the pool alone");
        SimStoreOptions options = large_store();
        options.engine.max_snapshot_age_ns = 3'600'000'000'000;
        options.frames = 1'000;
        start(options);
        const Bytes old = row_of(1, {}, content(1, 200'000));
        ASSERT_EQ(put(1, old), Error::kOk);
        if (written) settle();
        SimSnapshot snapshot(*store_, *view_, *client_, 0);
        ASSERT_EQ(put(1, row_of(2, {}, content(2, 200'000))), Error::kOk);
        ASSERT_EQ(put(1, row_of(3, {}, content(3, 100))), Error::kOk);
        settle();
        // Other rows drive out what may go.
        for (std::uint32_t id = 10; id < 260; ++id) {
            ASSERT_EQ(put(id, row_of(1, {}, content(id, 20'000))), Error::kOk);
        }
        settle();
        ASSERT_TRUE(snapshot.valid());
        EXPECT_EQ(read(snapshot, 1), old);
        EXPECT_TRUE(!written || snapshot.misses() > 0);
        EXPECT_GT(storage().space.quarantined(), 0u);
        EXPECT_EQ(store_->verify(), "");
    }
}

// Values that came and went between two checkpoints kept their frames until the oldest snapshot
// ended, though it was older than all of them.
TEST_F(LargeValue, IsNotKeptInThePoolForASnapshotThatCannotSeeIt) {
    SimStoreOptions options = large_store();
    options.engine.max_snapshot_age_ns = 3'600'000'000'000;
    options.engine.checkpoint_interval_ns = 3'600'000'000'000;
    options.engine.log_segment_count = 16;
    start(options);
    constexpr std::size_t kLength = 400'000;  // 98 pages
    ASSERT_EQ(put(1, row_of(1, {}, content(1, 9'000))), Error::kOk);
    const Pool& pool = storage().pool;
    const std::uint64_t checkpoints = storage().checkpointer->totals().finished;
    {
        SimSnapshot oldest(*store_, *view_, *client_, 0);
        ASSERT_EQ(put(1, row_of(2, {}, content(2, kLength))), Error::kOk);
        SimSnapshot second(*store_, *view_, *client_, 1);
        const std::uint32_t before = pool.free_frames();
        for (std::uint32_t n = 3; n < 25; ++n) {
            ASSERT_EQ(put(1, row_of(n, {}, content(n, kLength))), Error::kOk);
        }
        for (int i = 0; i < 20; ++i) {
            store_->clock.advance_ns(10'000'000);
            store_->round();
        }
        ASSERT_EQ(storage().checkpointer->totals().finished, checkpoints);
        EXPECT_GT(pool.free_frames() + 2 * 98 + 40, before);
        EXPECT_GE(pool.retired(), 98u) << "counted as held";
        pool.check_invariants();
        EXPECT_EQ(read(oldest, 1), row_of(1, {}, content(1, 9'000)));
        EXPECT_EQ(read(second, 1), row_of(2, {}, content(2, kLength)));
        EXPECT_TRUE(oldest.valid());
        EXPECT_TRUE(second.valid());
    }
    EXPECT_EQ(row(1), row_of(24, {}, content(24, kLength)));
    settle();
    EXPECT_EQ(storage().space.quarantined(), 0u);
    pool.check_invariants();
    EXPECT_EQ(store_->verify(), "");
}

TEST_F(LargeValue, LiesInNeighbouringFramesWhenThereAreSome) {
    start(large_store());
    ASSERT_EQ(put(1, row_of(1, {}, content(1, 300'000))), Error::kOk);
    const ValueReference reference = reference_of(1);
    ASSERT_EQ(reference.run_count, 1u);
    const auto in_order = [&] {
        const std::byte* first = extent_page(*view_, PageId{reference.runs[0].first}).page;
        for (std::uint32_t i = 1; i < reference.runs[0].pages; ++i) {
            const PageId page{reference.runs[0].first + i};
            if (extent_page(*view_, page).page != first + i * kPageBytes) return false;
        }
        return first != nullptr;
    };
    EXPECT_TRUE(in_order());
    settle();
    open(store_->disk->power_loss(3));
    SimSnapshot snapshot(*store_, *view_, *client_, 0);
    ASSERT_TRUE(read(snapshot, 1).has_value());
    EXPECT_TRUE(in_order()) << "page by page, as this reader asks";
}

TEST_F(LargeValue, FindsItsPlaceInSeveralRuns) {
    SimStoreOptions options = large_store();
    options.pages = 2 * kChunkPages;
    start(options);
    // Fills the file with small extents, then frees every other one.
    std::uint32_t count = 0;
    while (put(count, row_of(1, {}, content(count, 20'000))) == Error::kOk) ++count;
    ASSERT_GT(count, 20u);
    for (std::uint32_t id = 0; id < count; id += 2) ASSERT_EQ(erase(id), Error::kOk);
    settle();
    ASSERT_EQ(put(1'000, row_of(1, {}, content(7, 320'000))), Error::kOk);
    EXPECT_GT(reference_of(1'000).run_count, 1u);
    EXPECT_EQ(row(1'000), row_of(1, {}, content(7, 320'000)));
    EXPECT_EQ(store_->verify(), "");
    // In more pieces than a reference has room for: refused, with nothing taken.
    const std::uint64_t available = storage().space.available();
    EXPECT_EQ(put(1'001, row_of(1, {}, content(8, 500'000))), Error::kNoSpace);
    EXPECT_EQ(storage().space.available(), available);
    EXPECT_EQ(store_->verify(), "");
}

TEST_F(LargeValue, DamagedInTheFileIsNamedAndTheRestGoesOn) {
    start(large_store());
    ASSERT_EQ(put(1, row_of(1, {}, content(1, 30'000))), Error::kOk);
    ASSERT_EQ(put(2, row_of(1, {}, content(2, 30'000))), Error::kOk);
    settle();
    const std::uint32_t damaged = reference_of(1).runs[0].first + 3;
    auto disk = store_->disk->clone(5);
    disk->flip(StoreFile::kData, std::uint64_t{damaged} * kPageBytes + 77, 2);
    open(std::move(disk));
    const std::string broken = store_->verify();
    EXPECT_NE(broken.find("(documents)"), std::string::npos) << broken;
    EXPECT_NE(broken.find("key 00000001"), std::string::npos) << broken;
    EXPECT_NE(broken.find("page " + std::to_string(damaged)), std::string::npos) << broken;
    const auto token = client_->request_pages(std::array{PageId{damaged}});
    std::optional<Answer> answer;
    store_->run_until([&] { return (answer = client_->answer(*token)).has_value(); });
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->error, Error::kCorruption);
    SimSnapshot snapshot(*store_, *view_, *client_, 0);
    EXPECT_EQ(read(snapshot, 2), row_of(1, {}, content(2, 30'000)));
}

TEST_F(LargeValue, EverySingleBitCounts) {
    start(large_store());
    ASSERT_EQ(put(1, row_of(1, {}, content(1, 30'000))), Error::kOk);
    settle();
    const ExtentRun run = reference_of(1).runs[0];
    open(store_->disk->clone(5));
    std::mt19937_64 random(3);
    const auto request = [&](PageId page) {
        const auto token = client_->request_pages(std::array{page});
        std::optional<Answer> answer;
        store_->run_until([&] { return (answer = client_->answer(*token)).has_value(); });
        return answer ? answer->error : Error::kTimedOut;
    };
    for (int i = 0; i < 100; ++i) {
        store_->clock.advance_ns(FailedReads::kRememberedNs);
        const PageId page{run.first + static_cast<std::uint32_t>(random() % run.pages)};
        const std::uint64_t offset = page.value * kPageBytes + random() % kPageBytes;
        store_->disk->flip(StoreFile::kData, offset, i % 8);
        ASSERT_EQ(request(page), Error::kCorruption) << "offset " << offset;
        store_->disk->flip(StoreFile::kData, offset, i % 8);
    }
    store_->clock.advance_ns(FailedReads::kRememberedNs);
    EXPECT_EQ(request(PageId{run.first}), Error::kOk);
}

// What the chunk's metadata says of an extent is what frees it: it has to be what the row says.
TEST_F(LargeValue, VerifyFindsAMapThatSaysOtherThanTheRow) {
    start(large_store());
    ASSERT_EQ(put(1, row_of(1, {}, content(1, 30'000))), Error::kOk);
    ASSERT_EQ(put(2, row_of(1, {}, content(2, 30'000))), Error::kOk);
    settle();
    const ExtentRun run = reference_of(1).runs[0];
    const std::uint32_t index = run.first % kChunkPages;
    const auto plant = [&](const std::function<void(ChunkMeta&)>& change) {
        ASSERT_TRUE(store_->run_until([&] { return store_->engine->core().commit().open(); }));
        change(chunk_meta(storage().space.writable(meta_page(chunk_of(PageId{run.first})))));
        EXPECT_NE(store_->verify().find("key 00000001"), std::string::npos) << store_->verify();
    };
    ASSERT_EQ(store_->verify(), "");
    plant([&](ChunkMeta& meta) {  // it ends early, and another one begins there
        meta.extent[(index + 4) / 2] &= static_cast<std::uint8_t>((index + 4) % 2 ? 0x1f : 0xf1);
    });
    start(large_store());
    ASSERT_EQ(put(1, row_of(1, {}, content(1, 30'000))), Error::kOk);
    settle();
    ASSERT_EQ(reference_of(1).runs[0], run);
    plant([&](ChunkMeta& meta) {  // it is another table's
        for (std::uint32_t& owner : meta.extent_owner) owner += owner == documents_.value;
    });
}

TEST_F(LargeValue, TooLargeForThePoolIsRefusedAndNothingChanges) {
    SimStoreOptions options = large_store();
    options.frames = 600;
    start(options);
    EXPECT_EQ(put(1, row_of(1, {}, content(1, 500'000))), Error::kOk);
    options.frames = 300;
    start(options);
    EXPECT_EQ(put(1, row_of(1, {}, content(1, 500'000))), Error::kTooLarge);
    EXPECT_TRUE(store_->rows(documents_).empty());
    EXPECT_EQ(store_->verify(), "");
}

// Each change of a row of 500 KB keeps a whole row until the end, where the room for all of them is
// asked for: a thousand small ones made GBs of a request of one.
TEST_F(LargeValue, ChangedTooOftenInOneTransactionIsRefusedAtTheChangeThatIsTooMuch) {
    start(large_store());
    client_ = &store_->connect(Rights::kAdmin, std::nullopt, 64, 4u << 20);
    AddBody one{};
    one.column = kCount;
    one.delta = 1;
    TransactionBytes bytes;
    bytes.operation(OperationKind::kPut, documents_, key_of(1), row_of(1, {}, content(1, 500'000)));
    for (int i = 0; i < 500; ++i) {
        bytes.columns(OperationKind::kUpdate, documents_, key_of(1), kTitle, content(2, 8));
        bytes.add(documents_, key_of(1), one);
    }
    const Answer answer = store_->commit(*client_, bytes);
    EXPECT_EQ(answer.error, Error::kTooLarge);
    EXPECT_EQ(answer.failed_operation, (16u << 20) / 500'000 + 1);
    EXPECT_TRUE(store_->rows(documents_).empty());
}

TEST_F(LargeValue, TransactionLongerThanTheLimitIsRefusedWhateverTheRingCarries) {
    start(large_store());
    client_ = &store_->connect(Rights::kAdmin, std::nullopt, 64, 4u << 20);
    TransactionBytes bytes;
    for (int i = 0; i < 3; ++i) {
        bytes.operation(OperationKind::kPut, documents_, key_of(1),
                        row_of(1, {}, content(1, 400'000)));
    }
    EXPECT_EQ(store_->commit(*client_, bytes).error, Error::kTooLarge);
    EXPECT_TRUE(store_->rows(documents_).empty());
}

TEST(Arena, KeepsFewMebibytesWhateverSizesAreTaken) {
    Arena arena;
    for (std::size_t bytes = 300u << 10; bytes < 310u << 10; bytes += 1u << 10) {
        for (int i = 0; i < 20; ++i) arena.take(bytes);
        EXPECT_GT(arena.taken_bytes(), 5u << 20);
        arena.reset();
        EXPECT_LE(arena.held_bytes(), Arena::kKeptBytes);
    }
}

TEST_F(LargeValue, HasOneWholeFormAndNoOther) {
    const Schema schema = document_schema();
    const Bytes narrow = row_of(1, content(1, 100), content(2, 3'000));
    EXPECT_TRUE(schema.valid_value(narrow));
    const Bytes wide = row_of(1, content(1, 100), content(2, 5'000));
    EXPECT_TRUE(schema.valid_value(wide));
    for (const std::size_t cut : {1u, 100u, 5'000u}) {
        EXPECT_FALSE(schema.valid_value(std::span(wide).first(wide.size() - cut))) << cut;
    }
    // A short row in the wide form, a reference in a client's row, ends that fall.
    Bytes short_wide(8 + 2 + 8, std::byte{0});
    short_wide[8] = short_wide[9] = std::byte{0xff};
    EXPECT_FALSE(schema.valid_value(short_wide));
    Bytes referring = wide;
    referring[8 + 2 + 7] |= std::byte{0x80};
    EXPECT_FALSE(schema.valid_value(referring));
    Bytes falling = wide;
    falling[8 + 2 + 2] = std::byte{1};  // the title ends behind the body
    EXPECT_FALSE(schema.valid_value(falling));
    std::mt19937_64 random(1);
    for (int i = 0; i < 20'000; ++i) {
        Bytes garbage = wide;
        for (int k = 0; k < 4; ++k) garbage[8 + random() % 12] = static_cast<std::byte>(random());
        garbage.resize(random() % garbage.size());
        for (std::uint32_t index = 1; index < 4; ++index) {
            const auto bytes = column_bytes(schema, index, nullptr, garbage);
            if (bytes.empty()) continue;
            EXPECT_GE(bytes.data(), garbage.data());
            EXPECT_LE(bytes.data() + bytes.size(), garbage.data() + garbage.size());
        }
    }
}

}  // namespace
}  // namespace bidstore
