// Pages of any bytes under a reader: the descent, cursors in both directions, searches in leaves
// and inner nodes, rows and references. Nothing leads outside a page, everything ends: a descent, a
// seek or a move asks for no more than kDepthMax pages, and each move is one onward.
//
// Input: the shape (key length, value length or none: variable rows), how many pages, a key, then
// the bytes of the pages, each behind the other; a page id means the page of that number modulo
// their count, and one in 16 is not resident.
#include <cstdlib>
#include <memory>
#include <vector>

#include "engine/page/inner.h"
#include "engine/page/leaf.h"
#include "engine/page/row.h"
#include "engine/page/search.h"
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

struct Source {
    const std::vector<Page>* pages;
    std::uint32_t* asked;  // since somebody set it to 0
    const std::byte* operator()(PageId page) const {
        ++*asked;
        CHECK_OP(*asked, <=, kDepthMax);
        if (page.value % 16 == 15) return nullptr;
        return (*pages)[page.value % pages->size()].get();
    }
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

std::uint64_t look_at_value(std::span<const std::byte> value) {
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
    return sum + whole + stored + row.exact() + row.has_references();
}

// All that a reader does with a leaf.
std::uint64_t look_at_leaf(const LeafView& leaf, const TreeShape& shape, const std::byte* key) {
    std::uint64_t sum = 0;
    const int found = leaf.find(key);
    CHECK_OP(found, <, static_cast<int>(leaf.count()));
    CHECK_OP(leaf.lower_bound(key), <=, leaf.count());
    for (std::uint32_t row = 0; row < leaf.count(); ++row) {
        sum += sum_of(std::span(leaf.key(row), shape.leaf.key_bytes));
        sum += look_at_value(leaf.value(row));
    }
    return sum;
}

void look_at_node(const InnerView& node, const std::byte* key) {
    if (node.count() == 0) return;
    CHECK_OP(node.index_for(key), <, node.count());
    std::byte copy[kKeyBytesMax];
    for (std::uint32_t i = 0; i < node.count(); ++i) {
        node.copy_key(i, copy);
        node.child_for(copy);
    }
}

using Way = std::vector<std::uint32_t>;  // the child that is gone on with, root first

Way way_of(const PathCursor<Source>& cursor) {
    Way way;
    for (std::uint32_t i = 0; i < cursor.depth(); ++i) way.push_back(cursor.step(i).index);
    return way;
}

void walk(const TreeShape& shape, const Source& source, const std::byte* key) {
    PathCursor cursor(shape, PageId{0}, source);
    for (const bool forward : {true, false}) {
        *source.asked = 0;
        Landing landing = key[0] == std::byte{0} ? cursor.seek_first() : cursor.seek(key);
        *source.asked = 0;
        if (key[0] == std::byte{1}) landing = cursor.seek_last();
        for (std::uint32_t step = 0; step < kStepsMax && landing.state == Landed::kLeaf; ++step) {
            CHECK_OP(cursor.depth(), <=, kDepthMax);
            if (step < 4) look_at_leaf(cursor.leaf(), shape, key);
            *source.asked = 0;
            PageId ahead[8];
            const std::uint32_t count = cursor.upcoming(forward, ahead, key);
            CHECK_OP(count, <=, 8u);
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
    const std::uint32_t key_bytes = 1 + input.take<std::uint8_t>() % kKeyBytesMax;
    const std::uint32_t value_bytes = input.take<std::uint16_t>() % 2048;
    const std::uint32_t page_count = 1 + input.take<std::uint8_t>() % kPagesMax;
    std::byte key[kKeyBytesMax] = {};
    const auto key_content = input.take_bytes(key_bytes);
    std::copy(key_content.begin(), key_content.end(), key);
    const TreeShape shape(value_bytes == 0 ? LeafLayout::variable_length(key_bytes)
                                           : LeafLayout::fixed(key_bytes, value_bytes),
                          kTable);
    std::vector<Page> pages;
    for (std::uint32_t i = 0; i < page_count; ++i) {
        pages.push_back(make_page(input.take_bytes(kPageBytes)));
        // What is asked before anything else is in a page, so that the rest is reached.
        std::byte* page = pages.back().get();
        std::memcpy(page + offsetof(PageHeader, table_id), &kTable.value, sizeof kTable.value);
        look_at_node(InnerView(page, shape.inner), key);
        look_at_leaf(LeafView(page, shape.leaf), shape, key);
    }
    std::uint32_t asked = 0;
    const Source source{&pages, &asked};
    descend(shape, PageId{0}, key, source);
    walk(shape, source, key);
    return 0;
}
