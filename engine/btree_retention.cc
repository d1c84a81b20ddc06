// Retention in a tree: dead rows are not seen, and leaves that hold nothing else leave it; and the
// leaves of a table that is dropped, which leave it in the same way.
#include <algorithm>
#include <vector>

#include "engine/btree.h"
#include "engine/inner_edit.h"
#include "engine/leaf_edit.h"

namespace bidstore {

namespace {

constexpr std::size_t kAskedMost = 16;  // of a node: they are read at once

}  // namespace

std::uint32_t newest_of_row(const Schema& schema, const std::byte* key,
                            std::span<const std::byte> value) {
    if (schema.time_column() == kNoTimeColumn) return kNewestUnknown;
    const std::uint64_t newest = schema.time_of(key, value) >> leaf_time_shift(schema);
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(newest, kNewestUnknown));
}

bool newest_below(const Schema& schema, std::uint32_t newest, std::uint64_t floor) {
    if (newest == kNewestUnknown) return false;
    return std::uint64_t{newest} + 1 <= floor >> leaf_time_shift(schema);
}

std::uint64_t Tree::floor() const {
    const std::byte* root = newest(root_);
    return root == nullptr ? 0 : page_header(root).floor;
}

void Tree::set_floor(std::uint64_t floor) { page_header(pages_->writable(root_)).floor = floor; }

bool Tree::empty() const { return level(root_) == 0 && count(root_) == 0; }

std::uint64_t Tree::least_time() const { return level(root_) == 0 ? leaf(root_).time_min() : 0; }

std::uint32_t Tree::live_rows(const LeafView& rows, std::uint32_t first, std::uint32_t last) const {
    const std::uint64_t floor = this->floor();
    if (floor == 0 || rows.time_min() >= floor) return last - first;
    std::uint32_t live_count = 0;
    for (std::uint32_t row = first; row < last; ++row) live_count += live(rows, row, floor);
    return live_count;
}

// Erases the dead rows of a leaf, run by run from its end.
void Tree::purge(LeafEdit& leaf, std::uint64_t floor) {
    for (std::uint32_t end = leaf.count(); end > 0;) {
        std::uint32_t first = end;
        while (first > 0 && !live(leaf.view(), first - 1, floor)) --first;
        if (first < end) leaf.erase(first, end);
        end = first == 0 ? 0 : first - 1;
    }
    leaf.refresh_times();
}

// The newest version knows best; of a page that is not in the pool, what its chunk remembers: that
// every time in it is below newest + 1, in units of 2^time_shift.
bool Tree::wholly_dead(PageId page, std::uint64_t floor) const {
    if (const std::byte* bytes = newest(page)) {
        return tree_level(bytes, shape_.table) == 0 && page_header(bytes).time_max < floor;
    }
    const std::uint32_t newest = pages_->newest_known(page);
    return newest_below(*schema_, newest, floor);
}

// Down to the inner node above the leaf that covers `from`; its step has the child's index.
Tree::Path Tree::path_above_leaves(const std::byte* from) const {
    Path path;
    PageId page = root_;
    for (int level = -1;;) {
        const std::byte* bytes = newest(page);
        if (bytes == nullptr) {
            path.missing = page;
            return path;
        }
        const int found = tree_level(bytes, shape_.table);
        const InnerView node(bytes, shape_.inner);
        if (found < 0 || (level >= 0 && found != level) || (found > 0 && node.count() == 0)) {
            path.corrupt = page;
            return path;
        }
        if (found == 0) return path;  // a root that is a leaf
        const std::uint32_t index = from == nullptr ? 0 : node.index_for(from);
        path.step[path.depth++] = {page, index};
        if (found == 1) return path;
        page = node.child(index);
        level = found - 1;
    }
}

void Tree::find_next_node(const Path& path, LeafDrop& drop) const {
    drop.end = true;
    for (std::uint32_t at = path.depth - 1; at-- > 0;) {
        const InnerView node = inner(path.step[at].page);
        if (path.step[at].index + 1 >= node.count()) continue;
        node.copy_key(path.step[at].index + 1, drop.next.data());
        drop.end = false;
        return;
    }
}

// 1. Which children are dead is known before anything is changed.
// 2. They leave the node from its end, so that indexes stay what they are; a neighbour takes over
//    what they covered.
// 3. A node without children leaves its parent; one that is too empty merges with a neighbour.
LeafDrop Tree::drop_leaves(const std::byte* from, std::uint32_t limit) {
    Path path = path_above_leaves(from);
    LeafDrop drop;
    static_cast<TreeAccess&>(drop) = path;
    if (!drop.ok()) return drop;
    const std::uint64_t floor = this->floor();
    if (path.depth == 0) {
        drop.end = true;
        const LeafView rows = leaf(root_);
        drop.kept = !rows.empty() && rows.time_max() >= floor;
        if (rows.empty() || drop.kept) return drop;
        LeafEdit(pages_->writable(root_), shape_.leaf, *schema_).init();
        return drop;
    }
    find_next_node(path, drop);
    const Step& step = path.step[path.depth - 1];
    const InnerView node = inner(step.page);
    std::vector<std::uint32_t> dead;
    for (std::uint32_t i = 0; i < node.count(); ++i) {
        if (dead.size() < limit && wholly_dead(node.child(i), floor)) {
            dead.push_back(i);
        } else {
            drop.kept = true;
            const PageId child = node.child(i);
            const bool unknown = pages_->newest_known(child) == kNewestUnknown;
            const bool more = drop.ask.size() < kAskedMost;
            if (more && unknown && newest(child) == nullptr) drop.ask.push_back(child);
        }
    }
    drop.leaves = static_cast<std::uint32_t>(dead.size());
    if (dead.empty()) return drop;
    for (std::size_t i = 0; i < dead.size(); ++i) {
        const PageId leaf = node.child(dead[i]);
        if (i == 0 || chunk_of(leaf) != chunk_of(node.child(dead[i - 1]))) ++drop.chunks;
        pages_->drop(leaf);
    }
    if (dead.size() == node.count()) {
        // The last of them goes the way of any emptied leaf.
        for (std::uint32_t left = node.count(); left > 1; --left) {
            InnerEdit(pages_->writable(step.page), shape_.inner).erase(left - 1, left);
        }
        path.step[path.depth - 1].index = 0;
        remove_child(path, path.depth - 1);
    } else {
        InnerEdit edit(pages_->writable(step.page), shape_.inner);
        for (std::size_t i = dead.size(); i-- > 0;) edit.erase(dead[i], dead[i] + 1);
    }
    for (std::uint32_t at = path.depth - 1; at > 0 && at < path.depth; --at) {
        merge_with_neighbour(path, at);
    }
    collapse_root();
    return drop;
}

// Without merging: what is left goes with the next steps.
LeafDrop Tree::drop_first_leaves(std::uint32_t limit) {
    Path path = path_above_leaves(nullptr);
    LeafDrop drop;
    static_cast<TreeAccess&>(drop) = path;
    if (!drop.ok()) return drop;
    drop.end = path.depth == 0;
    if (drop.end) return drop;
    const Step& step = path.step[path.depth - 1];
    const InnerView node = inner(step.page);
    if (path.depth > 1) {
        const InnerView above = inner(path.step[path.depth - 2].page);
        if (above.count() > 1 && newest(above.child(1)) == nullptr) {
            drop.ask.push_back(above.child(1));
        }
    }
    drop.leaves = std::min(limit, node.count());
    for (std::uint32_t i = 0; i < drop.leaves; ++i) pages_->drop(node.child(i));
    if (drop.leaves < node.count()) {
        InnerEdit(pages_->writable(step.page), shape_.inner).erase(0, drop.leaves);
        return drop;
    }
    if (node.count() > 1) {
        InnerEdit(pages_->writable(step.page), shape_.inner).erase(1, node.count());
    }
    path.step[path.depth - 1].index = 0;
    remove_child(path, path.depth - 1);
    return drop;
}

}  // namespace bidstore
