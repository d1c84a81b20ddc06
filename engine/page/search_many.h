// Finding many rows at once: descents that go down level by level together, so that while one waits
// for memory the others work.
//
// A lone descent is a chain of cache misses: page map, the node's first lines, the heads that the
// samples choose, and so on, each address known only when the line before is there. Here each step
// is made for all keys before the next step of any, and each begins the next one's fetch:
//
//     look at the version, choose the block   -> heads, tails, children
//     choose the child                        -> its entry of the page map
//     look at the entry                       -> the first lines of the child
//
// Interleaving of descents as in "Interleaving with Coroutines" (Psaropoulos et al., VLDB 2017),
// but by levels: all leaves of a tree are equally deep.
//
// Source: as in engine/page/search.h; source.prefetch_entry(page) and source.prefetch(page) fetch
//         what a call with that page will look at, and wait for nothing else.
// Who, trust: as in engine/page/search.h. Nothing allocates.
#pragma once

#include <cstddef>
#include <span>

#include "engine/page/search.h"

namespace bidstore {

// As many as the processor can have lines on their way, and not more than its first cache holds.
inline constexpr std::size_t kDescentsTogether = 32;

// One of them. The caller sets the key; the landing is what descend() would have returned.
struct Descent {
    const std::byte* key = nullptr;
    Landing landing;
    InnerView::Blocks blocks;  // while under way
};

namespace search_many {

// The descent is on its way to landing.page, of `level`: looks at it, and aims in an inner node.
template <class Source>
void arrive(const TreeShape& shape, Descent& descent, int level, Source& source) {
    Landing& at = descent.landing;
    at.bytes = source(at.page);
    if (at.bytes == nullptr) {
        at.state = Landed::kMissing;
        return;
    }
    const InnerView node(at.bytes, shape.inner);
    const bool fits = tree_level(at.bytes, shape.table) == level;
    if (!fits || (level > 0 && node.count() == 0)) {
        at = {Landed::kCorrupt, at.page, nullptr};
    } else if (level > 0) {
        descent.blocks = node.aim(descent.key);
    }
}

}  // namespace search_many

// Descends for all keys. At most kDescentsTogether are worth their while.
template <class Source>
void descend_many(const TreeShape& shape, PageId root, std::span<Descent> descents,
                  Source&& source) {
    const std::byte* top = source(root);
    int level = top != nullptr ? tree_level(top, shape.table) : 0;
    // kLeaf until something else is found out on the way.
    const std::uint64_t floor = top != nullptr ? floor_of(top) : 0;
    for (Descent& descent : descents) descent.landing = {Landed::kLeaf, root, nullptr, floor};
    for (; level >= 0; --level) {
        for (Descent& descent : descents) {
            if (descent.landing.state != Landed::kLeaf) continue;
            search_many::arrive(shape, descent, level, source);
        }
        if (level == 0) return;
        for (Descent& descent : descents) {
            Landing& at = descent.landing;
            if (at.state != Landed::kLeaf) continue;
            const InnerView node(at.bytes, shape.inner);
            // A count that fell to 0 under a dead lease must not lead outside the node.
            if (node.count() == 0) {
                at = {Landed::kCorrupt, at.page, nullptr};
                continue;
            }
            at.page = node.child(node.index_for(descent.key, descent.blocks));
            source.prefetch_entry(at.page);
        }
        for (Descent& descent : descents) {
            if (descent.landing.state == Landed::kLeaf) source.prefetch(descent.landing.page);
        }
    }
    for (Descent& descent : descents) descent.landing.state = Landed::kCorrupt;  // the root is
}

}  // namespace bidstore
