// The whole engine beside threads that read what it publishes, for the thread sanitizer: batches,
// reclaim, eviction, loads, copies ahead, pages of extents and the key directory in one thread,
// snapshots as a client reads them in others.
//
// Each row follows from its key and the version of its group, and one transaction changes all rows
// of a group: a frame that was reused under a reader, or a state between two transactions, shows in
// the bytes, where the sanitizer does not see it.
//
// Snapshots are never revoked here: a reader whose lease is gone reads beside a writer on purpose
// (engine/page/page.h: racy_copy), and the sanitizer would say so.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/page/search.h"
#include "shm/key_directory.h"
#include "shm/page_map.h"
#include "shm/reader_slot.h"
#include "shm/stats.h"
#include "shm/touch_marks.h"
#include "tests/sim.h"
#include "tests/whole_row.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;

constexpr std::uint32_t kReaders = 3;
constexpr std::uint32_t kGroups = 200;
constexpr std::uint32_t kMembers = 4;  // rows of a group, in each table
constexpr std::uint32_t kTransactions = 800;
constexpr std::uint64_t kSnapshots = 150;  // of each reader, at least
constexpr auto kPatience = 120s;
constexpr std::uint64_t kAnHourNs = 3'600'000'000'000;

// ---- what the rows are ----

std::uint64_t mix(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    std::uint64_t word = a * 0x9e3779b97f4a7c15 ^ b * 0xc2b2ae3d27d4eb4f ^ c * 0x165667b19e3779f9;
    word = (word ^ word >> 31) * 0xd6e8feb86659fd93;
    return word ^ word >> 29;
}

constexpr std::uint32_t kNumbers = 10;
constexpr std::uint16_t kVersion = 1;  // column of both tables
constexpr std::uint16_t kTitle = 2;
constexpr std::uint16_t kBody = 3;

Schema fixed_schema() {
    std::vector<Column> columns{{"id", ColumnType::kU32, 0}, {"version", ColumnType::kU64, 0}};
    for (std::uint32_t i = 0; i < kNumbers; ++i) {
        columns.push_back({"n" + std::to_string(i), ColumnType::kU64, 0});
    }
    auto schema = Schema::make("fixed", columns, 1);
    CHECK(schema.ok());
    return *schema;
}

Schema variable_schema() {
    auto schema = Schema::make("variable",
                               {{"id", ColumnType::kU32, 0},
                                {"version", ColumnType::kU64, 0},
                                {"title", ColumnType::kText, 0},
                                {"body", ColumnType::kBytes, 0}},
                               1);
    CHECK(schema.ok());
    return *schema;
}

Bytes key_of(std::uint32_t id) {
    Bytes key(4);
    encode_key_integer(key.data(), id, 4, false);
    return key;
}

Bytes pattern(std::uint32_t id, std::uint64_t version, std::uint16_t column) {
    const std::uint64_t chance = mix(id, version, column);
    // Every second row of the other table goes to an extent, more often than not.
    const std::uint32_t most = column == kTitle ? 200 : id % 2 == 0 ? 1'000 : 24'000;
    Bytes bytes(chance % most);
    for (std::size_t i = 0; i < bytes.size(); i += 8) {
        const std::uint64_t word = mix(id, version, i);
        std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, bytes.size() - i));
    }
    return bytes;
}

// The first row of a group is always there, and says the version.
bool is_there(std::uint32_t table, std::uint32_t id, std::uint64_t version) {
    if (version == 0) return false;
    return (table == 0 && id % kMembers == 0) || mix(id, version, 100 + table) % 6 != 0;
}

Bytes row_of(const Schema& schema, std::uint32_t table, std::uint32_t id, std::uint64_t version) {
    RowBuilder builder(schema);
    CHECK(builder.set_unsigned(kVersion, version).ok());
    if (table == 0) {
        for (std::uint16_t i = 0; i < kNumbers; ++i) {
            const auto column = static_cast<std::uint16_t>(kVersion + 1 + i);
            CHECK(builder.set_unsigned(column, mix(id, version, i)).ok());
        }
    } else {
        CHECK(builder.set_bytes(kTitle, pattern(id, version, kTitle)).ok());
        CHECK(builder.set_bytes(kBody, pattern(id, version, kBody)).ok());
    }
    const auto value = builder.value();
    CHECK(value.ok());
    return {value->begin(), value->end()};
}

struct Tables {
    Schema schema[2] = {fixed_schema(), variable_schema()};
    TableId id[2];
    PageId root[2];  // for life
    std::optional<TreeShape> shape[2];
};

// ---- a reading thread ----

// What a PoolView shows, at the addresses where the engine writes it: the sanitizer knows memory by
// its address.
class SharedPool {
  public:
    explicit SharedPool(PoolSegment& pool) : pool_(&pool) {}
    const Published& published() const { return pool_->header().published; }
    const PageMapEntry* page_map() const { return pool_->page_map(); }
    const FrameDescriptor* descriptors() const { return pool_->descriptors(); }
    const RevokedEntry* revoked() const { return pool_->revoked(); }
    const std::byte* frame(std::uint32_t frame) const { return pool_->frame(FrameId{frame}); }
    std::uint32_t frame_count() const { return pool_->header().frame_count; }
    std::uint32_t page_count() const { return pool_->header().page_count; }
    KeyDirectory directory() const { return {pool_->directory(), pool_->header().bucket_count}; }

  private:
    PoolSegment* pool_;
};

class ReadingThread {
  public:
    ReadingThread(PoolSegment& pool, SimClient& client, const Tables& tables, std::uint32_t seed)
        : pool_(pool),
          client_(client),
          tables_(tables),
          random_(seed),
          slot_(client.segment().slots()[0], pool_.published(),
                pool_.revoked()[client.segment().first_slot()]),
          touches_(client.segment().marks()[0]) {}

    void start() {
        thread_ = std::thread([this] { run(); });
    }
    void stop() { stop_.store(true, std::memory_order_relaxed); }
    // Relaxed, all of it: nothing that the engine's thread asks may put its work and the reader's
    // in an order that the protocol does not.
    bool ended() const { return ended_.load(std::memory_order_relaxed); }
    std::uint64_t snapshots() const { return snapshots_.load(std::memory_order_relaxed); }
    void join() { thread_.join(); }

    // After join().
    const std::string& trouble() const { return trouble_; }
    std::uint64_t misses() const { return misses_; }
    std::uint64_t by_directory() const { return by_directory_; }
    std::uint64_t extent_pages() const { return extent_pages_; }

  private:
    void run() {
        while (!stop_.load(std::memory_order_relaxed) && trouble_.empty()) {
            slot_.begin();
            const auto group = static_cast<std::uint32_t>(random_() % kGroups);
            if (random_() % 8 == 0) {
                read_all_fixed();
            } else {
                read_group(group);
                if (random_() % 4 == 0 && trouble_.empty()) read_group(group);  // and as before
            }
            if (!slot_.valid() && trouble_.empty()) trouble_ = "the snapshot was revoked";
            slot_.end();
            snapshots_.store(snapshots_.load(std::memory_order_relaxed) + 1,
                             std::memory_order_relaxed);
        }
        ended_.store(true, std::memory_order_relaxed);
    }

    // A version of the snapshot's, or nullptr. Reads all of it where the sanitizer sees it, which
    // load_once() and racy_copy() are hidden from.
    const std::byte* see(PageId page) {
        const PageVersion found = version_at(pool_, slot_, page);
        if (found.page == nullptr) return nullptr;
        touches_.note(page, found.entry);
        std::memcpy(seen_, found.page + 8, kPageBytes - 8);
        return found.page;
    }
    auto source() {
        return [this](PageId page) { return see(page); };
    }

    void read_group(std::uint32_t group) {
        std::optional<std::uint64_t> version;
        for (std::uint32_t table = 0; table < 2; ++table) {
            for (std::uint32_t i = 0; i < kMembers && trouble_.empty(); ++i) {
                const std::uint32_t id = group * kMembers + i;
                const auto row = read(table, id);
                if (!trouble_.empty()) return;
                if (!version) version = row ? version_in(table, id, *row) : 0;
                check(table, id, *version, row);
            }
        }
    }

    std::uint64_t version_in(std::uint32_t table, std::uint32_t id, const Bytes& row) const {
        return column_integer(tables_.schema[table], kVersion, key_of(id).data(), row);
    }

    void check(std::uint32_t table, std::uint32_t id, std::uint64_t version,
               const std::optional<Bytes>& row) {
        const Schema& schema = tables_.schema[table];
        if (!trouble_.empty()) return;
        if (row.has_value() == is_there(table, id, version) &&
            (!row || *row == row_of(schema, table, id, version))) {
            return;
        }
        trouble_ =
            "row " + std::to_string(id) + " of " + std::string(schema.name()) + " is " +
            (row ? "of version " + std::to_string(version_in(table, id, *row)) + ", or of none, "
                 : "not there ") +
            "where its group is of version " + std::to_string(version);
    }

    // The row, whole, by the directory or by the tree.
    std::optional<Bytes> read(std::uint32_t table, std::uint32_t id) {
        std::optional<Bytes> stored;
        if (random_() % 2 == 0) stored = ask_directory(table, key_of(id));
        if (!stored) stored = ask_tree(table, key_of(id));
        if (!stored) return std::nullopt;
        auto whole = whole_row(tables_.schema[table], *stored,
                               [this](PageId page) { return see_extent(page); });
        if (!whole && trouble_.empty()) trouble_ = "row " + std::to_string(id) + " is not sound";
        return whole;
    }

    // As clientlib/directory_probe.h: a row that is there, or nothing, which says nothing.
    std::optional<Bytes> ask_directory(std::uint32_t table, const Bytes& key) {
        const TreeShape& shape = *tables_.shape[table];
        const KeyDirectory directory = pool_.directory();
        const RowHint hint = directory.find(directory.aim(shape.table, key.data(), key.size()));
        if (!hint.leaf) return std::nullopt;
        const std::byte* bytes = see(hint.leaf);
        if (bytes == nullptr || !is_leaf_of(bytes, shape.table)) return std::nullopt;
        const LeafView leaf(bytes, shape.leaf);
        const int row = leaf.find_near(key.data(), hint.row);
        if (row < 0) return std::nullopt;
        ++by_directory_;
        const auto value = leaf.value(static_cast<std::uint32_t>(row));
        return Bytes(value.begin(), value.end());
    }

    std::optional<Bytes> ask_tree(std::uint32_t table, const Bytes& key) {
        const TreeShape& shape = *tables_.shape[table];
        for (;;) {
            const Landing landing = descend(shape, tables_.root[table], key.data(), source());
            if (landing.state == Landed::kMissing) {
                if (!bring_in(landing.page)) return std::nullopt;
                continue;
            }
            if (!is_sound(landing)) return std::nullopt;
            const LeafView leaf(landing.bytes, shape.leaf);
            const int row = leaf.find(key.data());
            if (row < 0) return std::nullopt;
            const auto value = leaf.value(static_cast<std::uint32_t>(row));
            return Bytes(value.begin(), value.end());
        }
    }

    // The whole table of fixed rows, by its leaves.
    void read_all_fixed() {
        const TreeShape& shape = *tables_.shape[0];
        PathCursor cursor(shape, tables_.root[0], source());
        Bytes from = key_of(0);
        std::vector<std::optional<Bytes>> rows(std::size_t{kGroups} * kMembers);
        bool stands = false;
        for (;;) {
            const Landing landing = stands ? cursor.next_leaf() : cursor.seek(from.data());
            if (landing.state == Landed::kEnd) break;
            if (landing.state == Landed::kMissing) {
                // It waits without a frame: from the last row on, again.
                if (!bring_in(landing.page)) return;
                stands = false;
                continue;
            }
            if (!is_sound(landing)) return;
            stands = true;
            const LeafView leaf = cursor.leaf();
            for (std::uint32_t i = 0; i < leaf.count(); ++i) {
                const auto id = static_cast<std::uint32_t>(
                    column_integer(tables_.schema[0], 0, leaf.key(i), leaf.value(i)));
                if (id >= rows.size()) {
                    trouble_ = "a scan found row " + std::to_string(id);
                    return;
                }
                rows[id].emplace(leaf.value(i).begin(), leaf.value(i).end());
                from = key_of(id);
            }
        }
        for (std::uint32_t id = 0; id < rows.size(); ++id) {
            const auto& first = rows[id - id % kMembers];
            check(0, id, first ? version_in(0, id, *first) : 0, rows[id]);
        }
    }

    bool is_sound(const Landing& landing) {
        if (landing.state == Landed::kLeaf) return true;
        trouble_ = "page " + std::to_string(landing.page.value) + " looks corrupt";
        return false;
    }

    const std::byte* see_extent(PageId page) {
        for (;;) {
            const PageVersion found = extent_page(pool_, page);
            if (found.page != nullptr) {
                ++extent_pages_;
                touches_.note(page, found.entry);
                std::memcpy(seen_, found.page + 8, kPageBytes - 8);
                return found.page;
            }
            if (!bring_in(page)) return nullptr;
        }
    }

    // Waits for a page, and uses no frame meanwhile. False: with trouble said.
    bool bring_in(PageId page) {
        const auto token = client_.request_pages({&page, 1});
        CHECK(token.has_value());
        ++misses_;
        slot_.rest();
        std::optional<Answer> answer;
        while (!(answer = client_.answer(*token))) std::this_thread::yield();
        slot_.resume();
        if (answer->error != Error::kOk) {
            trouble_ = "page " + std::to_string(page.value) + ": " +
                       std::string(error_name(answer->error));
        }
        return trouble_.empty();
    }

    const SharedPool pool_;
    SimClient& client_;
    const Tables& tables_;
    std::mt19937_64 random_;
    SlotOwner slot_;
    TouchMarker touches_;
    std::thread thread_;
    std::atomic<bool> stop_ = false;
    std::atomic<bool> ended_ = false;
    std::atomic<std::uint64_t> snapshots_ = 0;
    std::string trouble_;
    std::uint64_t misses_ = 0;
    std::uint64_t by_directory_ = 0;
    std::uint64_t extent_pages_ = 0;
    std::byte seen_[kPageBytes];
};

// ---- the engine's thread ----

class EngineReaders : public testing::Test {
  protected:
    void SetUp() override {
        SimStoreOptions options = small_store();
        options.frames = 640;  // the rows take three times as many
        options.engine.checkpoint_interval_ns = 4'000'000;
        options.engine.max_snapshot_age_ns = kAnHourNs;
        options.engine.max_pin_all_ns = kAnHourNs;
        store_.emplace(options, std::make_unique<SimDisk>(), 1);
        const Status opened = store_->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        writer_ = &store_->connect();
        for (std::uint32_t table = 0; table < 2; ++table) {
            const TableId id = store_->create_table(*writer_, tables_.schema[table]);
            tables_.id[table] = id;
            tables_.root[table] = storage().catalog->find(id)->tree.root();
            tables_.shape[table].emplace(tables_.schema[table], id);
        }
        for (std::uint32_t group = 0; group < kGroups; ++group) {
            ASSERT_EQ(store_->commit(*writer_, next_of(group)).error, Error::kOk);
        }
        for (std::uint32_t i = 0; i < kReaders; ++i) {
            readers_.emplace_back(*store_->pool, store_->connect(Rights::kReader), tables_, i);
        }
    }

    Storage& storage() { return store_->engine->core().storage(); }
    std::uint64_t counter(Counter which) {
        return store_->pool->stats().counter[static_cast<std::size_t>(which)].load();
    }

    // All rows of a group become those of its next version: put, updated or deleted.
    TransactionBytes next_of(std::uint32_t group) {
        const std::uint64_t version = ++versions_[group];
        TransactionBytes bytes;
        for (std::uint32_t table = 0; table < 2; ++table) {
            for (std::uint32_t id = group * kMembers; id < (group + 1) * kMembers; ++id) {
                const bool was_there = is_there(table, id, version - 1);
                if (!is_there(table, id, version)) {
                    if (was_there) {
                        bytes.operation(OperationKind::kDelete, tables_.id[table], key_of(id), {});
                    }
                } else if (table == 1 && was_there && version % 2 == 0) {
                    update(bytes, id, version);
                } else {
                    bytes.operation(OperationKind::kPut, tables_.id[table], key_of(id),
                                    row_of(tables_.schema[table], table, id, version));
                }
            }
        }
        return bytes;
    }
    void update(TransactionBytes& bytes, std::uint32_t id, std::uint64_t version) {
        const auto set = [&](std::uint16_t column, std::span<const std::byte> content) {
            bytes.columns(OperationKind::kUpdate, tables_.id[1], key_of(id), column, content);
        };
        set(kVersion, std::as_bytes(std::span(&version, 1)));
        set(kTitle, pattern(id, version, kTitle));
        set(kBody, pattern(id, version, kBody));
    }

    // A snapshot that lasts through too many transactions would be revoked for what is kept for it.
    bool readers_keep_up() {
        for (std::uint32_t i = 0; i < kReaders; ++i) {
            if (readers_[i].snapshots() != seen_[i]) {
                seen_[i] = readers_[i].snapshots();
                since_[i] = transactions_;
            }
            if (transactions_ - since_[i] >= 4) return false;
        }
        return true;
    }
    bool readers_have_enough() const {
        return std::ranges::all_of(readers_,
                                   [](const auto& one) { return one.snapshots() >= kSnapshots; });
    }
    bool any(bool (ReadingThread::*asked)() const) const {
        return std::ranges::any_of(readers_, [&](const auto& one) { return (one.*asked)(); });
    }
    bool all_ended() const {
        return std::ranges::all_of(readers_, [](const auto& one) { return one.ended(); });
    }

    void take_answers() {
        while (!on_their_way_.empty()) {
            const auto answer = writer_->answer(on_their_way_.front());
            if (!answer) return;
            on_their_way_.pop_front();
            EXPECT_EQ(answer->error, Error::kOk);
        }
    }

    Tables tables_;
    std::optional<SimStore> store_;
    SimClient* writer_ = nullptr;
    std::vector<std::uint64_t> versions_ = std::vector<std::uint64_t>(kGroups, 0);
    std::deque<std::uint32_t> on_their_way_;
    std::deque<ReadingThread> readers_;
    std::uint32_t transactions_ = 0;
    std::array<std::uint64_t, kReaders> seen_{};
    std::array<std::uint32_t, kReaders> since_{};
};

TEST_F(EngineReaders, SnapshotsStayWhatTheyAreBesideTheEngine) {
    std::mt19937_64 random(1);
    const auto until = std::chrono::steady_clock::now() + kPatience;
    for (ReadingThread& reader : readers_) reader.start();
    while (!any(&ReadingThread::ended) && std::chrono::steady_clock::now() < until) {
        const bool enough = transactions_ >= kTransactions;
        if (enough && readers_have_enough()) break;
        if (on_their_way_.size() < 3 && readers_keep_up()) {
            const auto bytes = next_of(static_cast<std::uint32_t>(random() % kGroups)).bytes();
            on_their_way_.push_back(writer_->submit(bytes).value());
            ++transactions_;
        }
        if (store_->round() == EngineRound::kIdle) std::this_thread::yield();
        take_answers();
    }
    for (ReadingThread& reader : readers_) reader.stop();
    while (!all_ended()) store_->round();  // they may wait for pages
    std::uint64_t misses = 0;
    for (ReadingThread& reader : readers_) {
        reader.join();
        EXPECT_EQ(reader.trouble(), "");
        EXPECT_GE(reader.snapshots(), kSnapshots);
        EXPECT_GT(reader.by_directory(), kSnapshots);
        EXPECT_GT(reader.extent_pages(), kSnapshots);
        misses += reader.misses();
    }
    EXPECT_GE(transactions_, kTransactions);
    EXPECT_GT(misses, 100u);
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 0u);
    EXPECT_GT(counter(Counter::kEvictions), 1000u);
    EXPECT_GT(counter(Counter::kReclaimedVersions), 1000u);
    EXPECT_GT(counter(Counter::kCheckpoints), 3u);
    ASSERT_TRUE(store_->run_until([&] { return take_answers(), on_their_way_.empty(); }));
    ASSERT_TRUE(store_->stop());
    EXPECT_EQ(store_->verify(), "");
}

}  // namespace
}  // namespace bidstore
