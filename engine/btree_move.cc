// Moving pages of a tree to other places in the file, for compaction.
//
// Nobody is in the way: it is a change like any other, to the parent and two pages of the open
// batch. Snapshots below it go by the old parent to the old page, whose place is not used again
// before they are gone (engine/space.h, quarantine).
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
