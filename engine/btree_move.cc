// Moving pages of a tree to other places in the file, and merging sparse leaves, for compaction.
//
// Nobody is in the way: it is a change like any other, to the parent and two pages of the open
// batch. Snapshots below it go by the old parent to the old page, whose place is not used again
// before they are gone (engine/space.h, quarantine).
#include <algorithm>
#include <cstring>

#include "engine/btree.h"
#include "engine/inner_edit.h"

namespace bidstore {

// A key that the page covers leads to it: a row of a leaf, the second key of an inner node (the
// first counts as minus infinity); of a node with one child, whatever that covers.
TreeAccess Tree::key_in(PageId page, std::byte* key) const {
    for (int level = -1;;) {
        const std::byte* bytes = newest(page);
        if (bytes == nullptr) return {page, {}};
        const int found = tree_level(bytes, shape_.table);
        if (found < 0 || (level >= 0 && found != level)) return {{}, page};
        if (found == 0) {
            const LeafView rows(bytes, shape_.leaf);
            if (rows.empty()) return {{}, page};
            std::memcpy(key, rows.key(0), shape_.leaf.key_bytes);
            return {};
        }
        const InnerView node(bytes, shape_.inner);
        if (node.count() == 0) return {{}, page};
        if (node.count() > 1) {
            node.copy_key(1, key);
            return {};
        }
        page = node.child(0);
        level = found - 1;
    }
}

Tree::Place Tree::place_of(PageId page) const {
    Place place;
    place.page = page;
    std::array<std::byte, kKeyBytesMax> key{};
    static_cast<TreeAccess&>(place) = key_in(page, key.data());
    if (!place.ok()) return place;
    place.parent = root_;
    for (int level = -1;;) {
        const std::byte* bytes = newest(place.parent);
        if (bytes == nullptr) {
            place.missing = place.parent;
            return place;
        }
        const int found = tree_level(bytes, shape_.table);
        const InnerView node(bytes, shape_.inner);
        if (found < 1 || (level >= 0 && found != level) || node.count() == 0) {
            place.corrupt = found == 0 ? page : place.parent;
            return place;
        }
        place.index = node.index_for(key.data());
        const PageId child = node.child(place.index);
        if (child == page) return place;
        place.parent = child;
        level = found - 1;
    }
}

// Resident, and what its parent says; else `found` says which it is.
bool Tree::is_leaf(PageId page, SparseLeaves& found) const {
    const std::byte* bytes = newest(page);
    if (bytes == nullptr) found.missing = page;
    if (bytes != nullptr && tree_level(bytes, shape_.table) != 0) found.corrupt = page;
    return found.ok();
}

bool Tree::looks_dense(const InnerView& node, SparseLeaves& found) const {
    constexpr std::uint32_t kLooks = 4;
    const std::uint32_t samples = std::min(kLooks, node.count());
    std::uint32_t percent = 0;
    for (std::uint32_t i = 0; i < samples; ++i) {
        const PageId page = node.child(i * node.count() / samples);
        if (!is_leaf(page, found)) return false;
        percent += fullness_percent(page);
        ++found.looked;
    }
    return percent >= kDensePercent * samples;
}

Tree::SparseLeaves Tree::find_sparse(const std::byte* from, std::uint32_t looks) const {
    SparseLeaves found;
    const Path path = path_above_leaves(from);
    static_cast<TreeAccess&>(found) = path;
    if (from != nullptr) std::memcpy(found.next.data(), from, shape_.leaf.key_bytes);
    if (!found.ok()) return found;
    found.end = path.depth == 0;
    if (found.end) return found;
    const Step& step = path.step[path.depth - 1];
    const InnerView node = inner(step.page);
    const bool dense = step.index == 0 && looks_dense(node, found);
    found.parent = step.page;
    std::uint32_t pairs = 0;  // samples do not count: a step of any size goes on
    for (std::uint32_t i = step.index; !dense && found.ok() && i + 1 < node.count(); ++i) {
        if (i > 0) node.copy_key(i, found.next.data());
        if (pairs++ >= looks) return found;
        found.index = i;
        const bool there = is_leaf(node.child(i), found) && is_leaf(node.child(i + 1), found);
        if (!there) break;
        ++found.looked;
        const std::uint32_t percent =
            fullness_percent(node.child(i)) + fullness_percent(node.child(i + 1));
        found.found = percent <= kMergedPercent;
        if (found.found) return found;
    }
    if (found.ok()) {
        LeafDrop behind;
        find_next_node(path, behind);
        found.end = behind.end;
        found.next = behind.next;
        return found;
    }
    // Pairs are looked at one after the other; samples may be all that is ever read of this node.
    for (std::uint32_t i = found.index; pairs > 0 && found.missing && i < node.count(); ++i) {
        if (found.ahead_count == SparseLeaves::kAheadMost) break;
        if (newest(node.child(i)) == nullptr) found.ahead[found.ahead_count++] = node.child(i);
    }
    return found;
}

bool Tree::merge_leaves(const SparseLeaves& found) {
    const Path path = path_above_leaves(found.next.data());
    if (!path.ok() || path.step[path.depth - 1].page != found.parent) return false;
    if (!try_merge(found.parent, found.index)) return false;
    for (std::uint32_t at = path.depth - 1; at > 0; --at) merge_with_neighbour(path, at);
    collapse_root();
    return true;
}

void Tree::move_page(const Place& place) {
    const InnerView parent = inner(place.parent);
    const PageId left = place.index > 0 ? parent.child(place.index - 1) : PageId{};
    if (left && parent.count() > 2 && try_merge(place.parent, place.index - 1)) return;
    const PageId right =
        place.index + 1 < parent.count() ? parent.child(place.index + 1) : place.parent;
    const PageType type = page_header(resident(place.page)).type;
    const PageId moved = pages_->allocate(type, shape_.table, left ? left : right);
    copy_content(place.page, moved);
    InnerEdit(pages_->writable(place.parent), shape_.inner).set_child(place.index, moved);
    pages_->free(place.page);
}

}  // namespace bidstore
