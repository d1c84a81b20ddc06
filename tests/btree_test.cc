#include "engine/btree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/page/catalog_schema.h"
#include "engine/tree_check.h"

namespace bidstore {
namespace {

constexpr TableId kTable{3};

std::span<const std::byte> as_bytes(const std::string& text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}
const std::byte* at(const std::string& key) { return as_bytes(key).data(); }

std::string as_text(const std::byte* from, std::size_t length) {
    std::string text(length, '\0');
    if (length > 0) std::memcpy(text.data(), from, length);
    return text;
}

struct alignas(kPageBytes) Page {
    std::byte bytes[kPageBytes]{};
};

// Pages as the pool keeps them: a version per batch, older ones immutable. Every batch moves what
// it writes to new memory, so a pointer kept for too long is found by the address sanitizer; pages
// that are not resident are kept aside.
class FakePages final : public Pages {
  public:
    const std::byte* newest(PageId page) override {
        const auto found = resident_.find(page.value);
        return found == resident_.end() ? nullptr : found->second->bytes;
    }
    std::byte* writable(PageId page) override {
        CHECK(resident_.contains(page.value));
        if (!written_.insert(page.value).second) return resident_[page.value]->bytes;
        ++versions_;
        auto copy = std::make_unique<Page>();
        std::memcpy(copy->bytes, resident_[page.value]->bytes, kPageBytes);
        std::swap(copy, resident_[page.value]);
        old_.push_back(std::move(copy));
        return resident_[page.value]->bytes;
    }
    PageId allocate(PageType type, TableId table, PageId) override {
        const std::uint32_t id = next_++;
        auto page = std::make_unique<Page>();
        PageHeader& header = page_header(page->bytes);
        header.page_id = id;
        header.type = type;
        header.table_id = table.value;
        resident_[id] = std::move(page);
        live_.insert(id);
        written_.insert(id);
        ++versions_;
        return PageId{id};
    }
    ValueReference allocate_extent(TableId, std::span<const std::byte> value,
                                   std::uint32_t) override {
        ValueReference reference;
        reference.length_bytes = static_cast<std::uint32_t>(value.size());
        reference.crc = crc32c(value.data(), value.size());
        reference.run_count = 1;
        reference.runs[0] = {next_, extent_pages(reference.length_bytes)};
        next_ += reference.runs[0].pages;
        extents_.insert(reference.runs[0].first);
        return reference;
    }
    void free_extent(const ValueReference& reference) override {
        CHECK(extents_.erase(reference.runs[0].first) == 1);
    }
    void stamp_extent(const ValueReference& reference, std::uint32_t) override {
        CHECK(extents_.contains(reference.runs[0].first));
    }
    const std::set<std::uint32_t>& extents() const { return extents_; }
    void free(PageId page) override {
        CHECK(live_.erase(page.value) == 1);
        page_header(writable(page)).type = PageType::kFree;
    }

    void begin_batch() {
        written_.clear();
        old_.clear();
        versions_ = 0;
    }
    std::uint64_t versions() const { return versions_; }
    const std::set<std::uint32_t>& live() const { return live_; }
    void evict(PageId page) {
        if (auto node = resident_.extract(page.value); !node.empty()) away_.insert(std::move(node));
    }
    void load(PageId page) {
        auto node = away_.extract(page.value);
        CHECK(!node.empty());
        resident_.insert(std::move(node));
    }
    void load_all() { resident_.merge(away_); }

  private:
    std::unordered_map<std::uint32_t, std::unique_ptr<Page>> resident_;
    std::unordered_map<std::uint32_t, std::unique_ptr<Page>> away_;
    std::vector<std::unique_ptr<Page>> old_;  // of the open batch: what readers may still look at
    std::set<std::uint32_t> written_;
    std::set<std::uint32_t> live_;
    std::set<std::uint32_t> extents_;  // first pages of large values
    std::uint32_t next_ = 10;
    std::uint64_t versions_ = 0;
};

Schema make_schema(std::uint32_t key_bytes, std::uint32_t value_bytes, bool variable = false) {
    std::vector<Column> columns{{"k", ColumnType::kFixed, static_cast<std::uint16_t>(key_bytes)}};
    for (std::uint32_t left = value_bytes, i = 0; left > 0; ++i) {
        const std::uint32_t width = std::min(left, 2048u);
        columns.push_back(
            {"v" + std::to_string(i), ColumnType::kFixed, static_cast<std::uint16_t>(width)});
        left -= width;
    }
    if (variable) columns.push_back({"text", ColumnType::kText, 0});
    return *Schema::make("t", columns, 1);
}

struct Fixture {
    explicit Fixture(const Schema& table_schema, TableId table_id = kTable)
        : schema(table_schema),
          table(table_id),
          root(pages.allocate(PageType::kLeaf, table, PageId{})) {
        Tree::init_root(pages.writable(root), schema);
    }
    Tree tree() { return Tree(pages, schema, table, root); }
    TreeReport check() {
        std::set<std::uint32_t> seen;
        TreeReport report = check_tree(
            schema, table, root, [&](PageId page) { return pages.newest(page); },
            [&](PageId page) { seen.insert(page.value); });
        if (report.ok() && seen != pages.live()) report.broken = "a page is allocated in vain";
        return report;
    }
    double fill_percent() {
        const TreeReport report = check();
        EXPECT_EQ(report.broken, "") << "page " << report.page.value;
        return 100.0 * static_cast<double>(report.used_bytes) /
               static_cast<double>(report.space_bytes);
    }
    void put(const std::string& key, const std::string& value) {
        pages.begin_batch();
        ASSERT_TRUE(tree().put(at(key), as_bytes(value)).ok());
    }

    Schema schema;
    TableId table;
    FakePages pages;
    PageId root;
};

std::string big_endian(std::uint64_t value, std::uint32_t bytes = 8) {
    std::string text(bytes, '\0');
    encode_key_integer(std::as_writable_bytes(std::span(text)).data(), value, bytes, false);
    return text;
}

// ---- model --------------------------------------------------------------------------------------

// Random operations against a std::map. Some pages are away, as if evicted; a call that meets one
// must have changed nothing and is made again once the page is there.
class Model {
  public:
    Model(const Schema& schema, unsigned seed, unsigned letters, std::size_t longest)
        : fixture_(schema), random_(seed), letters_(letters), longest_(longest) {}

    void run(int rounds) {
        for (int round = 0; round < rounds; ++round) {
            // Alternates between growing and shrinking.
            const bool growing = round / (rounds / 4 + 1) % 2 == 0;
            fixture_.pages.begin_batch();
            const unsigned dice = pick(100);
            if (dice < (growing ? 60u : 25u))
                put();
            else if (dice < (growing ? 75u : 75u))
                erase();
            else if (dice < 85)
                get();
            else if (dice < 90)
                change_in_place();
            else if (dice < (growing ? 91u : 93u))
                erase_range();
            else
                range();
            if (::testing::Test::HasFatalFailure()) return;
            if (round % 512 == 0) check();
            if (round % 64 == 0) evict_some();
        }
        check();
        erase_everything();
    }

  private:
    unsigned pick(unsigned below) { return static_cast<unsigned>(random_() % below); }
    std::string key() {
        std::string text(fixture_.schema.key_bytes(), '\0');
        // The difference is in the last bytes for some keys, so that heads are equal.
        const std::size_t from = pick(3) == 0 && text.size() > 9 ? text.size() - 4 : 0;
        for (std::size_t i = from; i < text.size(); ++i)
            text[i] = static_cast<char>(pick(letters_));
        return text;
    }
    std::string known_key() {
        const auto found = model_.lower_bound(key());
        return found == model_.end() ? key() : found->first;
    }
    std::string value() {
        std::string text(fixture_.schema.fixed_bytes(), '\0');
        for (char& c : text) c = static_cast<char>(random_());
        if (!fixture_.schema.has_variable()) return text;
        const std::size_t length =
            pick(4) == 0 ? pick(static_cast<unsigned>(longest_ + 1)) : pick(60) % (longest_ + 1);
        text += static_cast<char>(length);
        text += static_cast<char>(length >> 8);
        return text + std::string(length, static_cast<char>('a' + pick(26)));
    }

    // Makes the call until no page is missing; room is as promised.
    template <class Call>
    auto complete(Call call, std::uint64_t room) {
        const Tree tree = fixture_.tree();
        if (room == 0) room = tree.frames_needed();
        for (;;) {
            const std::uint64_t before = fixture_.pages.versions();
            auto result = call();
            EXPECT_FALSE(result.corrupt) << "page " << result.corrupt.value;
            if (!result.missing) {
                EXPECT_LE(fixture_.pages.versions() - before, room);
                return result;
            }
            EXPECT_EQ(fixture_.pages.versions(), before) << "changed although a page is missing";
            fixture_.pages.load(result.missing);
        }
    }

    void put() {
        const std::string key = pick(4) == 0 ? known_key() : this->key();
        const std::string value = this->value();
        Tree tree = fixture_.tree();
        const Change change = complete([&] { return tree.put(at(key), as_bytes(value)); }, 0);
        ASSERT_EQ(change.found, model_.contains(key));
        model_[key] = value;
        get(key);
    }
    void erase() {
        const std::string key = pick(8) == 0 ? this->key() : known_key();
        Tree tree = fixture_.tree();
        const Change change = complete([&] { return tree.erase(at(key)); }, 0);
        ASSERT_EQ(change.found, model_.erase(key) == 1);
    }
    void get() { get(pick(4) == 0 ? key() : known_key()); }
    void get(const std::string& key) {
        const Tree tree = fixture_.tree();
        const Lookup lookup = complete([&] { return tree.get(at(key)); }, 0);
        const auto expected = model_.find(key);
        ASSERT_EQ(lookup.found, expected != model_.end());
        if (!lookup.found) return;
        ASSERT_EQ(as_text(lookup.value.data(), lookup.value.size()), expected->second);
    }
    void change_in_place() {
        const std::string key = known_key();
        Tree tree = fixture_.tree();
        const MutableLookup lookup = complete([&] { return tree.mutable_value(at(key)); }, 1);
        const auto expected = model_.find(key);
        ASSERT_EQ(lookup.found, expected != model_.end());
        if (!lookup.found || fixture_.schema.fixed_bytes() == 0) return;
        lookup.value[0] ^= std::byte{0x55};
        expected->second[0] = static_cast<char>(expected->second[0] ^ 0x55);
    }

    struct Bounds {
        std::string lo, hi;
        bool open_lo, open_hi;
        const std::byte* lo_at() const { return open_lo ? nullptr : at(lo); }
        const std::byte* hi_at() const { return open_hi ? nullptr : at(hi); }
        std::map<std::string, std::string>::iterator first, last;
    };
    // Rows between random bounds; short ranges more often, and sometimes no bound.
    Bounds bounds(bool short_ones) {
        Bounds b;
        b.lo = key();
        b.hi = key();
        if (short_ones) {
            auto end = model_.lower_bound(b.lo);
            for (unsigned i = pick(200); i > 0 && end != model_.end(); --i) ++end;
            if (end != model_.end()) b.hi = end->first;
        }
        if (b.lo > b.hi && pick(8) != 0) std::swap(b.lo, b.hi);
        b.open_lo = pick(40) == 0;
        b.open_hi = pick(40) == 0;
        b.first = b.open_lo ? model_.begin() : model_.lower_bound(b.lo);
        b.last = b.open_hi ? model_.end() : model_.lower_bound(b.hi);
        if (!b.open_lo && !b.open_hi && b.lo > b.hi) b.last = b.first;
        return b;
    }
    void erase_range() {
        Bounds b = bounds(pick(8) != 0);
        Tree tree = fixture_.tree();
        const auto rows = static_cast<std::uint64_t>(std::distance(b.first, b.last));
        const RangeCost cost =
            complete([&] { return tree.range_cost(b.lo_at(), b.hi_at(), ~0ull); }, 0);
        ASSERT_EQ(cost.rows, rows);
        if (rows > 5) {
            const RangeCost limited = tree.range_cost(b.lo_at(), b.hi_at(), rows / 2);
            ASSERT_GT(limited.rows, rows / 2);
        }
        const RangeCost done =
            complete([&] { return tree.erase_range(b.lo_at(), b.hi_at()); }, cost.pages);
        ASSERT_EQ(done.rows, rows);
        model_.erase(b.first, b.last);
        const TreeReport report = checked();
        ASSERT_EQ(report.broken, "") << "page " << report.page.value;
    }
    // Visits rows forward through visit_range and compares the way back through a cursor.
    void range() {
        fixture_.pages.load_all();
        Bounds b = bounds(true);
        const Tree tree = fixture_.tree();
        auto expected = b.first;
        const TreeAccess access =
            tree.visit_range(b.lo_at(), b.hi_at(), [&](const std::byte* key, auto value) {
                if (expected == b.last) return false;
                EXPECT_EQ(as_text(key, fixture_.schema.key_bytes()), expected->first);
                EXPECT_EQ(as_text(value.data(), value.size()), expected->second);
                ++expected;
                return true;
            });
        ASSERT_TRUE(access.ok());
        ASSERT_TRUE(expected == b.last);
        backward(b.hi);
    }
    void backward(const std::string& hi) {
        const Tree tree = fixture_.tree();
        PathCursor cursor(tree.shape(), tree.root(),
                          [&](PageId page) { return fixture_.pages.newest(page); });
        ASSERT_EQ(cursor.seek(at(hi)).state, Landed::kLeaf);
        auto expected = std::make_reverse_iterator(model_.lower_bound(hi));
        std::uint32_t row = cursor.leaf().lower_bound(at(hi));
        for (int steps = 0; steps < 100; ++steps) {
            Landed state = Landed::kLeaf;
            while (row == 0 && (state = cursor.previous_leaf().state) == Landed::kLeaf) {
                row = cursor.leaf().count();
            }
            ASSERT_EQ(state == Landed::kEnd, expected == model_.rend());
            if (state == Landed::kEnd) return;
            const std::byte* key = cursor.leaf().key(--row);
            ASSERT_EQ(as_text(key, fixture_.schema.key_bytes()), expected->first);
            ++expected;
        }
    }

    TreeReport checked() {
        fixture_.pages.load_all();
        return fixture_.check();
    }
    void check() {
        const TreeReport report = checked();
        ASSERT_EQ(report.broken, "") << "page " << report.page.value;
        ASSERT_EQ(report.rows, model_.size());
        std::set<std::uint32_t> pages;
        ASSERT_TRUE(fixture_.tree().visit_pages([&](PageId p) { pages.insert(p.value); }).ok());
        ASSERT_EQ(pages, fixture_.pages.live());
    }
    void evict_some() {
        for (std::uint32_t page : fixture_.pages.live()) {
            if (pick(4) == 0) fixture_.pages.evict(PageId{page});
        }
    }
    void erase_everything() {
        fixture_.pages.load_all();
        for (const auto& [key, value] : model_) {
            fixture_.pages.begin_batch();
            ASSERT_TRUE(fixture_.tree().erase(at(key)).found);
        }
        model_.clear();
        check();
        ASSERT_EQ(fixture_.pages.live().size(), 1u) << "pages were not given back";
        ASSERT_EQ(*fixture_.pages.live().begin(), fixture_.root.value);
    }

    Fixture fixture_;
    std::mt19937 random_;
    unsigned letters_;
    std::size_t longest_;
    std::map<std::string, std::string> model_;
};

struct Shape {
    std::uint32_t key_bytes;
    std::uint32_t value_bytes;
    bool variable;
    unsigned letters;
    int rounds;
};

class TreeModel : public ::testing::TestWithParam<Shape> {};

TEST_P(TreeModel, RandomOperationsMatchAMap) {
    const Shape shape = GetParam();
    const std::size_t longest = kRowBytesMax - shape.key_bytes - shape.value_bytes - 2;
    const Schema schema = make_schema(shape.key_bytes, shape.value_bytes, shape.variable);
    for (unsigned seed = 1; seed <= 2; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Model(schema, seed, shape.letters, longest).run(shape.rounds);
    }
}

constexpr Shape kShapes[] = {
    {1, 0, false, 256, 3000},  {1, 3900, false, 256, 3000}, {4, 100, false, 256, 8000},
    {8, 40, false, 256, 8000}, {16, 256, false, 256, 8000}, {16, 1500, false, 2, 6000},
    {17, 3, false, 2, 8000},   {64, 700, false, 2, 8000},   {64, 3900, false, 3, 4000},
    {1, 0, true, 256, 3000},   {8, 12, true, 256, 6000},    {16, 0, true, 2, 6000},
    {64, 0, true, 3, 6000}};
INSTANTIATE_TEST_SUITE_P(Shapes, TreeModel, ::testing::ValuesIn(kShapes));

// ---- fill and giving back -----------------------------------------------------------------------

TEST(Tree, RowsInOrderFillTheirPages) {
    std::mt19937 random(16);
    for (const bool variable : {false, true}) {
        Fixture fixture(make_schema(8, variable ? 0 : 256, variable));
        for (std::uint64_t i = 0; i < 20000; ++i) {
            const std::size_t length = 50 + random() % 100;
            const std::string text =
                std::string{static_cast<char>(length), '\0'} + std::string(length, 'v');
            fixture.put(big_endian(i), variable ? text : std::string(256, 'v'));
        }
        const double fill = fixture.fill_percent();
        std::printf("in order, %s rows: %.1f %% full\n", variable ? "variable" : "fixed", fill);
        EXPECT_GE(fill, 95.0);
    }
}

// Behind a full leaf, and behind a full inner node: each row that comes below the one before.
TEST(Tree, RowsInDescendingOrderFillTheirPages) {
    const Schema schema = make_schema(64, 900);
    const std::string rest(56, '\xff');  // the next key carries over into the number
    const std::string value(900, 'v');
    const LeafLayout leaf = LeafLayout::of(schema);
    const std::uint64_t children = InnerLayout::of(64).capacity;
    for (const std::uint64_t leaves_before : {std::uint64_t{0}, std::uint64_t{1}, children}) {
        Fixture fixture(schema);
        const std::uint64_t before = leaves_before * leaf.capacity;
        for (std::uint64_t i = 0; i < before; ++i) fixture.put(big_endian(i) + rest, value);
        const std::size_t pages_before = fixture.pages.live().size();
        const std::uint64_t leaves = 4 * children;
        const std::uint64_t top = before + leaves * leaf.capacity;
        for (std::uint64_t i = top; i-- > before;) fixture.put(big_endian(i) + rest, value);
        const std::size_t made = fixture.pages.live().size() - pages_before;
        std::printf("%zu pages for %zu leaves in descending order\n", made,
                    static_cast<std::size_t>(leaves));
        EXPECT_LE(made, leaves + leaves / 10);
        EXPECT_GE(fixture.fill_percent(), 95.0);
    }
}

TEST(Tree, InterleavedRunsOfManyEntitiesFillTheirPages) {
    for (const bool variable : {false, true}) {
        Fixture fixture(make_schema(16, variable ? 0 : 256, variable));
        const std::string value =
            variable ? std::string("\xff\0", 2) + std::string(255, 'v') : std::string(256, 'v');
        std::mt19937_64 random(17);
        std::vector<std::uint64_t> entities(200);
        for (std::uint64_t& entity : entities) entity = random();
        for (std::uint64_t time = 0; time < 30000; ++time) {
            const std::uint64_t entity = entities[random() % entities.size()];
            fixture.put(big_endian(entity) + big_endian(1'700'000'000'000'000 + 1000 * time),
                        value);
        }
        const double fill = fixture.fill_percent();
        std::printf("200 runs, %s rows: %.1f %% full\n", variable ? "variable" : "fixed", fill);
        EXPECT_GE(fill, 85.0);
    }
}

TEST(Tree, RandomRowsFillTwoThirdsOfTheirPages) {
    Fixture fixture(make_schema(16, 256));
    std::mt19937_64 random(18);
    for (int i = 0; i < 20000; ++i) {
        fixture.put(big_endian(random()) + big_endian(random()), std::string(256, 'v'));
    }
    const double fill = fixture.fill_percent();
    std::printf("random rows: %.1f %% full\n", fill);
    EXPECT_GE(fill, 60.0);
}

TEST(Tree, ErasedRangeGivesItsPagesBack) {
    Fixture fixture(make_schema(8, 256));
    for (std::uint64_t i = 0; i < 20000; ++i) fixture.put(big_endian(i), std::string(256, 'v'));
    const std::size_t before = fixture.pages.live().size();
    fixture.pages.begin_batch();
    const std::string lo = big_endian(100);
    const std::string hi = big_endian(19900);
    EXPECT_EQ(fixture.tree().erase_range(at(lo), at(hi)).rows, 19800u);
    EXPECT_EQ(fixture.check().broken, "");
    EXPECT_EQ(fixture.check().rows, 200u);
    EXPECT_LT(fixture.pages.live().size(), before / 50);
    EXPECT_EQ(fixture.tree().erase_range(nullptr, nullptr).rows, 200u);
    EXPECT_EQ(fixture.pages.live().size(), 1u);
}

TEST(Tree, ThinnedOutLeavesMerge) {
    Fixture fixture(make_schema(8, 256));
    for (std::uint64_t i = 0; i < 14000; ++i) fixture.put(big_endian(i), std::string(256, 'v'));
    const std::size_t before = fixture.pages.live().size();
    for (std::uint64_t i = 0; i < 14000; ++i) {
        fixture.pages.begin_batch();
        if (i % 5 == 0) continue;
        ASSERT_TRUE(fixture.tree().erase(at(big_endian(i))).found);
    }
    EXPECT_GE(fixture.fill_percent(), 40.0);
    EXPECT_LT(fixture.pages.live().size(), before / 2);
}

// A page that compaction moves joins its left neighbour where it fits; one of the catalog does not.
TEST(Tree, MovedLeavesOfTheCatalogStayApart) {
    for (const TableId table : {kTable, kCatalogTable}) {
        Fixture fixture(make_schema(8, 256), table);
        const auto key = [](std::uint64_t i) { return big_endian(i * 0x9e3779b97f4a7c15); };
        for (std::uint64_t i = 0; i < 1'000; ++i) fixture.put(key(i), std::string(256, 'v'));
        for (std::uint64_t i = 0; i < 300; ++i) {
            ASSERT_TRUE(fixture.tree().erase(at(key(i))).ok());
        }
        const std::set<std::uint32_t> before = fixture.pages.live();
        for (const std::uint32_t page : before) {
            if (page == fixture.root.value) continue;
            fixture.pages.begin_batch();
            const Tree::Place place = fixture.tree().place_of(PageId{page});
            ASSERT_TRUE(place.ok());
            fixture.tree().move_page(place);
            EXPECT_FALSE(fixture.pages.live().contains(page));
        }
        const bool fewer = fixture.pages.live().size() < before.size();
        EXPECT_EQ(fewer, table != kCatalogTable);
        EXPECT_EQ(fixture.check().broken, "");
        EXPECT_EQ(fixture.check().rows, 700u);
    }
}

TEST(Tree, RootKeepsItsPageIdForLife) {
    Fixture fixture(make_schema(8, 1000));
    for (std::uint64_t i = 0; i < 3000; ++i) {
        fixture.put(big_endian(i * 7919 % 3000), std::string(1000, 'v'));
        ASSERT_TRUE(fixture.pages.live().contains(fixture.root.value));
    }
    EXPECT_EQ(fixture.check().depth, 3u);
    for (std::uint64_t i = 0; i < 3000; ++i) fixture.tree().erase(at(big_endian(i)));
    EXPECT_EQ(fixture.check().depth, 1u);
    EXPECT_EQ(fixture.pages.live(), std::set<std::uint32_t>{fixture.root.value});
}

// ---- misses and corruption ----------------------------------------------------------------------

TEST(Tree, MissingPagesAreNamedAndNothingIsChanged) {
    Fixture fixture(make_schema(8, 256));
    for (std::uint64_t i = 0; i < 5000; ++i) fixture.put(big_endian(i), std::string(256, 'v'));
    for (std::uint32_t page : fixture.pages.live()) fixture.pages.evict(PageId{page});
    fixture.pages.begin_batch();
    Tree tree = fixture.tree();
    const std::string key = big_endian(2500);
    EXPECT_EQ(tree.get(at(key)).missing, fixture.root);
    EXPECT_EQ(tree.put(at(key), as_bytes(std::string(256, 'w'))).missing, fixture.root);
    EXPECT_EQ(tree.frames_needed(), 3 * kDepthMax + 1);
    fixture.pages.load(fixture.root);
    const PageId next = tree.erase(at(key)).missing;
    EXPECT_TRUE(next && next != fixture.root);
    EXPECT_EQ(tree.range_cost(nullptr, nullptr, 10).rows, 0u);
    EXPECT_TRUE(tree.erase_range(nullptr, nullptr).missing);
    EXPECT_EQ(fixture.pages.versions(), 0u);
    EXPECT_FALSE(tree.visit_range(nullptr, nullptr, [](auto, auto) { return true; }).ok());
    fixture.pages.load_all();
    EXPECT_TRUE(tree.get(at(key)).found);
}

TEST(Tree, LeavesOfManyKeysAreThoseThatEachKeyLeadsTo) {
    Fixture fixture(make_schema(8, 200));
    for (std::uint64_t i = 0; i < 20'000; ++i) {
        fixture.put(big_endian(i * 7'919 % 20'011), std::string(200, 'x'));
    }
    ASSERT_EQ(fixture.tree().depth(), 3u);
    std::vector<std::string> keys;
    for (std::uint64_t i = 0; i < Tree::kKeysTogether; ++i) keys.push_back(big_endian(i * 1'301));
    std::vector<const std::byte*> wanted;
    for (const std::string& key : keys) wanted.push_back(at(key));
    std::vector<Tree::Ahead> found(keys.size());
    fixture.tree().leaves_for(wanted, found);
    std::vector<PageId> leaves;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        leaves.push_back(fixture.tree().get(wanted[i]).leaf);
        EXPECT_EQ(found[i].leaf, leaves[i]) << i;
        EXPECT_FALSE(found[i].missing) << i;
    }
    // An inner node that is away is what its keys lead to; the leaves are not looked at.
    const PageId inner = fixture.tree().way_to(wanted[5]).step[1].page;
    fixture.pages.evict(inner);
    for (const PageId leaf : leaves) fixture.pages.evict(leaf);
    fixture.tree().leaves_for(wanted, found);
    EXPECT_EQ(found[5].missing, inner);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        EXPECT_EQ(found[i].leaf, found[i].missing ? PageId{} : leaves[i]) << i;
    }
    fixture.pages.evict(fixture.root);
    fixture.tree().leaves_for(wanted, found);
    EXPECT_EQ(found[15].missing, fixture.root);
}

TEST(Tree, PagesThatAreNotWhatTheirParentSaysAreCorrupt) {
    Fixture fixture(make_schema(8, 256));
    for (std::uint64_t i = 0; i < 100; ++i) fixture.put(big_endian(i), std::string(256, 'v'));
    Tree tree = fixture.tree();
    const std::string key = big_endian(50);
    const Landing leaf = descend(tree.shape(), tree.root(), at(key),
                                 [&](PageId page) { return fixture.pages.newest(page); });
    ASSERT_EQ(leaf.state, Landed::kLeaf);
    PageHeader& header = page_header(fixture.pages.writable(leaf.page));
    header.type = PageType::kFree;
    EXPECT_EQ(tree.get(at(key)).corrupt, leaf.page);
    EXPECT_EQ(tree.put(at(key), as_bytes(std::string(256, 'w'))).corrupt, leaf.page);
    EXPECT_EQ(tree.erase_range(nullptr, nullptr).corrupt, leaf.page);
    header.type = PageType::kLeaf;
    header.table_id = 99;
    EXPECT_EQ(tree.erase(at(key)).corrupt, leaf.page);
    header.table_id = kTable.value;
    EXPECT_EQ(fixture.check().broken, "");
}

TEST(TreeCheck, BrokenRulesAreFoundAndNamed) {
    Fixture fixture(make_schema(8, 0, true));
    const std::string value = std::string("\x64\0", 2) + std::string(100, 'v');
    for (std::uint64_t i = 0; i < 200; ++i) fixture.put(big_endian(i), value);
    Tree tree = fixture.tree();
    const Landing leaf = descend(tree.shape(), tree.root(), at(big_endian(50)),
                                 [&](PageId page) { return fixture.pages.newest(page); });
    std::byte* page = fixture.pages.writable(leaf.page);
    Page kept;
    std::memcpy(kept.bytes, page, kPageBytes);
    const auto expect_broken = [&](const std::string& words) {
        const TreeReport report = fixture.check();
        EXPECT_NE(report.broken.find(words), std::string::npos) << report.broken;
        EXPECT_EQ(report.page, leaf.page);
        std::memcpy(page, kept.bytes, kPageBytes);
    };
    page_header(page).live_bytes += 1;
    expect_broken("live bytes");
    page_header(page).free_offset = 70;
    expect_broken("free offset");
    page_header(page).page_id += 1;
    expect_broken("another page id");
    page_header(page).level = 1;
    expect_broken("level");
    page_header(page).time_max = 1;
    expect_broken("time bounds");
    page_header(page).count = 0;
    expect_broken("empty leaf");
    std::swap_ranges(page + 64, page + 68, page + 68);
    expect_broken("do not rise");
    std::memcpy(page + 64, page + 68, 4);
    expect_broken("overlap");
    page[4096 - 1 - 100] ^= std::byte{1};
    expect_broken("does not fit the schema");
    EXPECT_EQ(fixture.check().broken, "");
}

TEST(Tree, TimeBoundsCoverEveryRowAfterSplitsAndMerges) {
    const Schema schema = *Schema::make("t",
                                        {{"k", ColumnType::kU64, 0},
                                         {"at", ColumnType::kTimestamp, 0},
                                         {"text", ColumnType::kText, 0}},
                                        1, 1);
    Fixture fixture(schema);
    std::mt19937_64 random(19);
    RowBuilder row(schema);
    for (int i = 0; i < 20000; ++i) {
        fixture.pages.begin_batch();
        ASSERT_TRUE(row.set_unsigned(0, random() % 3000).ok());
        ASSERT_TRUE(row.set_unsigned(1, 1 + random() % 1'000'000).ok());
        ASSERT_TRUE(row.set_bytes(2, as_bytes(std::string(random() % 200, 'x'))).ok());
        if (random() % 3 == 0)
            fixture.tree().erase(row.key().data());
        else
            fixture.tree().put(row.key().data(), *row.value());
        if (i % 1000 != 0) continue;
        ASSERT_EQ(fixture.check().broken, "");
    }
    EXPECT_EQ(fixture.check().broken, "");
}

}  // namespace
}  // namespace bidstore
