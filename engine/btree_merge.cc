// Merging pages of a tree that have become too empty with their neighbours, and shortening it.
#include <cstring>

#include "engine/btree.h"
#include "engine/inner_edit.h"
#include "engine/leaf_edit.h"
#include "engine/page/catalog_schema.h"

namespace bidstore {

namespace {

using Key = std::array<std::byte, kKeyBytesMax>;

std::uint32_t used_bytes(const std::byte* page, const TreeShape& shape) {
    if (page_header(page).level > 0) return page_header(page).count;
    return leaf_used_bytes(LeafView(page, shape.leaf), shape.leaf);
}

// What used_bytes can reach; children for an inner node, bytes for a leaf.
std::uint32_t space_bytes(const std::byte* page, const TreeShape& shape) {
    if (page_header(page).level > 0) return shape.inner.capacity;
    return leaf_space_bytes(shape.leaf);
}

}  // namespace

// From the end of the path upwards: merges what has become too empty, then shortens the tree.
void Tree::rebalance(Path& path) {
    for (std::uint32_t at = path.depth - 1; at > 0; --at) merge_with_neighbour(path, at);
    collapse_root();
}

std::uint32_t Tree::fullness_percent(PageId page) const {
    const std::byte* bytes = resident(page);
    return 100 * used_bytes(bytes, shape_) / space_bytes(bytes, shape_);
}

void Tree::merge_with_neighbour(const Path& path, std::uint32_t at) {
    if (fullness_percent(path.step[at].page) >= kUnderfullPercent) return;
    const Step& parent = path.step[at - 1];
    if (parent.index > 0 && try_merge(parent.page, parent.index - 1)) return;
    if (parent.index + 1 < count(parent.page)) try_merge(parent.page, parent.index);
}

// Whether the keys of two resident children are on their sides of the parent's key between them. In
// a file that somebody wrote they may not be: one page must not have what is wrong with two.
bool Tree::lie_in_order(PageId parent, std::uint32_t left_index) const {
    const PageId left = inner(parent).child(left_index);
    const PageId right = inner(parent).child(left_index + 1);
    Key bound;
    inner(parent).copy_key(left_index + 1, bound.data());
    const auto below_bound = [&](const std::byte* key) {
        return compare_keys(key, bound.data(), shape_.leaf.key_bytes) < 0;
    };
    if (level(left) == 0) {
        const LeafView rows = leaf(left);
        const bool left_below = rows.empty() || below_bound(rows.key(rows.count() - 1));
        return left_below && (leaf(right).empty() || !below_bound(leaf(right).key(0)));
    }
    Key key;
    const auto is_below = [&](PageId page, std::uint32_t index) {
        inner(page).copy_key(index, key.data());
        return below_bound(key.data());
    };
    // Key 0 counts as minus infinity.
    const bool left_below = count(left) < 2 || is_below(left, count(left) - 1);
    return left_below && (count(right) < 2 || !is_below(right, 1));
}

// Merges child left_index + 1 into child left_index if both are resident and fit together. Leaves
// of the catalog stay apart: a rebuild without one has to know how many ids it can have had.
bool Tree::try_merge(PageId parent, std::uint32_t left_index) {
    const PageId left = inner(parent).child(left_index);
    const PageId right = inner(parent).child(left_index + 1);
    const int expected = static_cast<int>(level(parent)) - 1;
    if (expected == 0 && shape_.table == kCatalogTable) return false;
    for (PageId page : {left, right}) {
        const std::byte* bytes = newest(page);
        if (bytes == nullptr || tree_level(bytes, shape_.table) != expected) return false;
    }
    if (fullness_percent(left) + fullness_percent(right) > kMergedPercent) return false;
    if (!lie_in_order(parent, left_index)) return false;

    std::byte* to = pages_->writable(left);
    if (expected == 0) {
        LeafEdit edit(to, shape_.leaf, *schema_);
        const std::uint32_t first = edit.count();
        edit.append(leaf(right), 0, count(right));
        edit.refresh_times();
        enter_rows(left, first, edit.count());
    } else {
        Key bound;
        inner(parent).copy_key(left_index + 1, bound.data());
        InnerEdit(to, shape_.inner).append(inner(right), 0, bound.data());
    }
    pages_->free(right);
    InnerEdit(pages_->writable(parent), shape_.inner).erase(left_index + 1, left_index + 2);
    return true;
}

void Tree::collapse_root() {
    while (level(root_) > 0 && count(root_) == 1) {
        const PageId child = inner(root_).child(0);
        const std::byte* bytes = newest(child);
        const int expected = static_cast<int>(level(root_)) - 1;
        if (bytes == nullptr || tree_level(bytes, shape_.table) != expected) return;
        copy_content(child, root_);
        pages_->free(child);
    }
}

// Merges along the way to a key at which a range was cut out.
void Tree::tidy(const std::byte* key) {
    Path path = path_to(key);
    if (path.ok()) rebalance(path);
}

}  // namespace bidstore
