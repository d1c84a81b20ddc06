// Pages of any bytes under a reader: descents, alone and many at once, cursors in both directions,
// searches in leaves and inner nodes, also with a guess where the row is, rows and references.
// Nothing leads outside a page, everything ends: a descent, a seek or a move asks for no more than
// kDepthMax pages, and each move is one onward. Where the pages hold still, the ways to a row
// agree.
//
// They need not hold still: frames may be reused under a reader whose lease is gone. Then words of
// the pages change whenever the reader turns from one thing to another, a page id means another
// page each time, or both. What is read is anything then, but still within the pages.
//
// Input: the shape (key length, value length or none: variable rows), how many pages, a key, the
// changes if there are any, then the bytes of the pages, each behind the other; a page id means the
// page of that number modulo their count, and one in 16 is not resident. The bits that the shape
// and the count leave say how still the pages are, how many keys are looked for, and the guess.
#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

#include "engine/page/inner.h"
#include "engine/page/leaf.h"
#include "engine/page/row.h"
#include "engine/page/search.h"
#include "engine/page/search_many.h"
#include "tests/fuzz.h"

namespace bidstore {
namespace {

constexpr TableId kTable{16};
constexpr std::uint32_t kPagesMax = 4;
constexpr std::uint32_t kStepsMax = 200;  // of a walk: a few pages may be a tree of many leaves

struct Free {
    void operator()(std::byte* page) const { std::free(page); }
};
using Page = std::unique_ptr<std::byte, Free>;

// Each in a piece of memory of its own, so that a byte beyond it is noticed.
Page make_page(std::span<const std::byte> bytes) {
    Page page(static_cast<std::byte*>(std::aligned_alloc(64, kPageBytes)));
    std::memset(page.get(), 0, kPageBytes);
    std::copy(bytes.begin(), bytes.end(), page.get());
    return page;
}

// What the reader reads in, while the input says what becomes of it.
class Pages {
  public:
    enum Unrest : std::uint32_t { kStill = 0, kChanging = 1, kMoving = 2 };  // the last two add up

    Pages(std::uint32_t unrest, FuzzInput& input) : unrest_(unrest) {
        if ((unrest_ & kChanging) == 0) return;
        for (Change& change : changes_)
            change = {input.take<std::uint16_t>(), input.take<std::uint16_t>()};
    }
    std::byte* add(std::span<const std::byte> bytes) {
        pages_.push_back(make_page(bytes));
        return pages_.back().get();
    }
    const std::byte* first() const { return pages_.front().get(); }
    bool still() const { return unrest_ == kStill; }

    // From here on at most so many pages are asked for.
    void allow(std::size_t pages) { left_ = pages; }
    const std::byte* look_up(PageId page) {
        CHECK_OP(left_, >, 0u);
        --left_;
        turn();
        if (page.value % 16 == 15) return nullptr;
        const std::size_t further = (unrest_ & kMoving) != 0 ? turns_ : 0;
        return pages_[(page.value + further) % pages_.size()].get();
    }
    // The reader has done something, and does something else.
    void turn() {
        ++turns_;
        if ((unrest_ & kChanging) == 0) return;
        const Change& change = changes_[turns_ % changes_.size()];
        std::byte* page = pages_[change.place / kPageBytes % pages_.size()].get();
        std::memcpy(page + change.place % kPageBytes / 2 * 2, &change.word, sizeof change.word);
    }

  private:
    struct Change {
        std::uint16_t place;  // the page's number, and a place in it
        std::uint16_t word;
    };
    std::uint32_t unrest_;
    std::vector<Page> pages_;
    std::array<Change, 8> changes_{};  // in turn: two of one place are a word that goes to and fro
    std::size_t turns_ = 0;
    std::size_t left_ = 0;
};

struct Source {
    Pages* pages;
    const std::byte* operator()(PageId page) const { return pages->look_up(page); }
    void prefetch_entry(PageId) const { pages->turn(); }
    void prefetch(PageId) const { pages->turn(); }
};

std::uint64_t sum_of(std::span<const std::byte> bytes) {
    std::uint64_t sum = 0;
    for (const std::byte byte : bytes) sum += static_cast<std::uint8_t>(byte);
    return sum;
}

const Schema& rows_schema() {
    static const Schema schema = *Schema::make("rows",
                                               {{"id", ColumnType::kU64, 0},
                                                {"n", ColumnType::kI64, 0},
                                                {"t", ColumnType::kText, 0},
                                                {"b", ColumnType::kBytes, 0}},
                                               1);
    return schema;
}

void look_at_value(std::span<const std::byte> value) {
    std::uint64_t sum = sum_of(value);
    const Schema& schema = rows_schema();
    const bool whole = row_value_fault(schema, value) == nullptr;
    const bool stored = stored_value_fault(schema, value) == nullptr;
    const RowView row(schema, value);
    for (std::uint32_t i = 0; i < row.count(); ++i) sum += sum_of(row.content(i).bytes);
    row.each_reference([&](std::uint32_t, const ValueReference& reference) {
        CHECK_OP(reference.run_count, <=, kValueRunsMax);
        std::uint64_t pages = 0;
        for (const ExtentRun& run : reference.all_runs()) pages += run.pages;
        CHECK_OP(pages, ==, extent_pages(reference.length_bytes));
    });
    know(sum + whole + stored + row.exact() + row.has_references());
}

void find_in_leaf(Pages& pages, const LeafView& leaf, const TreeShape& shape, const std::byte* key,
                  std::uint32_t guess) {
    pages.turn();
    const int found = leaf.find(key);
    CHECK_OP(found, <, static_cast<int>(leaf.count()));
    pages.turn();
    CHECK_OP(leaf.lower_bound(key), <=, leaf.count());
    const auto at = static_cast<std::uint32_t>(found);  // of none: a guess beyond all rows
    for (const std::uint32_t row : {guess, at}) {
        pages.turn();
        const int near = leaf.find_near(key, row);
        CHECK_OP(near, <, static_cast<int>(leaf.count()));
        if (!pages.still()) continue;
        // Rows without order may have a key twice, and where no search by halves comes.
        if (near != static_cast<int>(row)) CHECK_OP(near, ==, found);
        if (near < 0) continue;
        const std::byte* there = leaf.key(static_cast<std::uint32_t>(near));
        CHECK(std::memcmp(there, key, shape.leaf.key_bytes) == 0);
    }
    if (found >= 0) look_at_value(leaf.value(at));
}

// All that a reader does with a leaf.
void look_at_leaf(Pages& pages, const LeafView& leaf, const TreeShape& shape, const std::byte* key,
                  std::uint32_t guess) {
    find_in_leaf(pages, leaf, shape, key, guess);
    for (std::uint32_t row = 0; row < leaf.count(); ++row) {
        pages.turn();
        know(sum_of(std::span(leaf.key(row), shape.leaf.key_bytes)));
        look_at_value(leaf.value(row));
        if (!pages.still()) continue;
        CHECK_OP(leaf.find_near(leaf.key(row), row), ==, static_cast<int>(row));
    }
}

void look_at_node(Pages& pages, const std::byte* page, const TreeShape& shape,
                  const std::byte* key) {
    const InnerView node(page, shape.inner);
    if (node.count() == 0) return;
    CHECK_OP(node.index_for(key), <, node.count());
    // A search in two halves, with what comes between them.
    for (int i = 0; i < (pages.still() ? 1 : 8); ++i) {
        const InnerView before(page, shape.inner);
        if (before.count() == 0) return;
        const InnerView::Blocks blocks = before.aim(key);
        pages.turn();
        const InnerView after(page, shape.inner);
        if (after.count() == 0) return;
        const std::uint32_t index = after.index_for(key, blocks);
        CHECK_OP(index, <, after.count());
        know(after.child(index).value);
        if (pages.still()) CHECK_OP(index, ==, node.index_for(key));
    }
    std::byte copy[kKeyBytesMax];
    for (std::uint32_t i = 0; i < node.count(); ++i) {
        pages.turn();
        node.copy_key(i, copy);
        know(node.child_for(copy).value);
    }
}

// Descents for many keys: the one wanted, those where a child of the root begins, and some beside.
void descend_together(Pages& pages, const TreeShape& shape, const std::byte* key,
                      std::uint32_t count, std::uint32_t guess) {
    std::array<std::array<std::byte, kKeyBytesMax>, kDescentsTogether> keys{};
    std::array<Descent, kDescentsTogether> all;
    const std::span descents = std::span(all).first(count);
    const InnerView root(pages.first(), shape.inner);
    for (std::uint32_t i = 0; i < count; ++i) {
        std::copy_n(key, shape.leaf.key_bytes, keys[i].begin());
        if (i % 2 == 1 && root.count() > 0) root.copy_key(i * 7 % root.count(), keys[i].data());
        if (i % 2 == 0) keys[i][i % shape.leaf.key_bytes] ^= std::byte(i);
        descents[i].key = keys[i].data();
    }
    pages.allow(1 + std::size_t{count} * kDepthMax);
    descend_many(shape, PageId{0}, descents, Source{&pages});
    for (const Descent& descent : descents) {
        const Landing& landing = descent.landing;
        CHECK((landing.bytes != nullptr) == (landing.state == Landed::kLeaf));
        if (landing.state == Landed::kLeaf) {
            find_in_leaf(pages, LeafView(landing.bytes, shape.leaf), shape, descent.key, guess);
        }
        if (!pages.still()) continue;
        pages.allow(kDepthMax);
        const Landing alone = descend(shape, PageId{0}, descent.key, Source{&pages});
        CHECK(landing.state == alone.state);
        CHECK(landing.page == alone.page);
        CHECK(landing.bytes == alone.bytes);
        if (alone.state == Landed::kLeaf) CHECK_OP(landing.floor, ==, alone.floor);
    }
}

using Way = std::vector<std::uint32_t>;  // the child that is gone on with, root first

Way way_of(const PathCursor<Source>& cursor) {
    Way way;
    for (std::uint32_t i = 0; i < cursor.depth(); ++i) way.push_back(cursor.step(i).index);
    return way;
}

void walk(Pages& pages, const TreeShape& shape, const std::byte* key, std::uint32_t guess) {
    PathCursor cursor(shape, PageId{0}, Source{&pages});
    for (const bool forward : {true, false}) {
        const auto leaves = PathCursor<Source>::kLeavesAheadMax;
        const PathCursor<Source>::Ahead ahead{forward, leaves, forward ? nullptr : key};
        pages.allow(kDepthMax);
        Landing landing =
            key[0] == std::byte{0} ? cursor.seek_first(ahead) : cursor.seek(key, ahead);
        pages.allow(kDepthMax);
        if (key[0] == std::byte{1}) landing = cursor.seek_last(ahead);
        CHECK_OP(cursor.sought_ahead(), <=, leaves);
        for (std::uint32_t step = 0; step < kStepsMax && landing.state == Landed::kLeaf; ++step) {
            CHECK_OP(cursor.depth(), <=, kDepthMax);
            if (step < 4) look_at_leaf(pages, cursor.leaf(), shape, key, guess);
            pages.allow(kDepthMax);
            PageId next[8];
            const std::uint32_t count = cursor.upcoming(forward, next, key);
            CHECK_OP(count, <=, 8u);
            cursor.prefetch(forward);
            std::byte between[kKeyBytesMax];
            cursor.boundary(forward, between);
            const Way before = way_of(cursor);
            landing = forward ? cursor.next_leaf() : cursor.previous_leaf();
            if (landing.state != Landed::kLeaf) break;
            // Ways are finite and in an order, so a walk that only goes on comes to its end.
            const Way after = way_of(cursor);
            CHECK(after.size() == before.size());
            CHECK(forward ? before < after : after < before);
        }
    }
}

}  // namespace
}  // namespace bidstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    FuzzInput input(data, size_bytes);
    const auto first = input.take<std::uint8_t>();
    const auto second = input.take<std::uint16_t>();
    const auto third = input.take<std::uint8_t>();
    const std::uint32_t key_bytes = 1 + first % kKeyBytesMax;
    const std::uint32_t value_bytes = second % 2048;
    const std::uint32_t page_count = 1 + third % kPagesMax;
    const std::uint32_t unrest = first / kKeyBytesMax;
    const std::uint32_t key_count = 1 + second / 2048;
    const std::uint32_t guess = third / kPagesMax * 33u;  // up to the most rows that a page has
    std::byte key[kKeyBytesMax] = {};
    const auto key_content = input.take_bytes(key_bytes);
    std::copy(key_content.begin(), key_content.end(), key);
    const TreeShape shape(value_bytes == 0 ? LeafLayout::variable_length(key_bytes)
                                           : LeafLayout::fixed(key_bytes, value_bytes),
                          kTable);
    Pages pages(unrest, input);
    for (std::uint32_t i = 0; i < page_count; ++i) {
        // What is asked before anything else is in a page, so that the rest is reached.
        std::byte* page = pages.add(input.take_bytes(kPageBytes));
        std::memcpy(page + offsetof(PageHeader, table_id), &kTable.value, sizeof kTable.value);
        look_at_node(pages, page, shape, key);
        look_at_leaf(pages, LeafView(page, shape.leaf), shape, key, guess);
    }
    pages.allow(kDepthMax);
    descend(shape, PageId{0}, key, Source{&pages});
    descend_together(pages, shape, key, key_count, guess);
    walk(pages, shape, key, guess);
    return 0;
}
