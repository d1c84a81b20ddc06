// Finding rows: from a root down to the leaf that covers a key, and on to the leaves beside it.
//
// Works on any source of page versions: a callable `const std::byte* source(PageId)` that returns
// the version to be used, or nullptr when the page is not resident. A client's source walks version
// chains under its snapshot; the engine's gives the newest versions.
//
// Every page is checked before it is used: its type, its table, its level (exactly one less than
// its parent's). Levels end at 0 and kDepthMax bounds the first, so a page of garbage ends a
// descent as kCorrupt, never as an endless one. A reader whose lease is gone may see garbage:
// kMissing and kCorrupt too are believed only after Snapshot::valid().
//
// Who: any thread, each with its own cursor. Nothing allocates.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "engine/page/inner.h"
#include "engine/page/leaf.h"
#include "engine/page/page.h"
#include "engine/page/schema.h"

namespace bidstore {

inline constexpr std::uint32_t kDepthMax = 16;

// What a reader of a table's pages must know. Follows from schema and table id.
struct TreeShape {
    TableId table;
    LeafLayout leaf;
    InnerLayout inner;

    TreeShape(const Schema& schema, TableId table_id)
        : table(table_id), leaf(LeafLayout::of(schema)), inner(InnerLayout::of(leaf.key_bytes)) {}
    TreeShape(const LeafLayout& layout, TableId table_id)
        : table(table_id), leaf(layout), inner(InnerLayout::of(layout.key_bytes)) {}
};

enum class Landed : std::uint8_t {
    kLeaf,     // on a leaf
    kMissing,  // `page` is not resident: bring it in, then call again
    kCorrupt,  // `page` is not what its parent says: corruption (or garbage: see valid())
    kEnd,      // a cursor's: there is no leaf beyond
};

struct Landing {
    Landed state = Landed::kEnd;
    PageId page;                       // the leaf, or the page in the way
    const std::byte* bytes = nullptr;  // of the leaf
    std::uint64_t floor = 0;           // of the table; of a point search's leaf alone
};

// The table's floor, from its root: rows whose time is below it are dead.
inline std::uint64_t floor_of(const std::byte* root) {
    return load_once<std::uint64_t>(root + offsetof(PageHeader, floor));
}

// The level of a page that may be part of the tree, or -1.
inline int tree_level(const std::byte* page, TableId table) {
    const auto type = load_once<std::uint8_t>(page + offsetof(PageHeader, type));
    const auto level = load_once<std::uint8_t>(page + offsetof(PageHeader, level));
    if (load_once<std::uint32_t>(page + offsetof(PageHeader, table_id)) != table.value) return -1;
    if (level >= kDepthMax) return -1;
    const auto expected = level == 0 ? PageType::kLeaf : PageType::kInner;
    return type == static_cast<std::uint8_t>(expected) ? level : -1;
}

// Whether a page reached by a hint (key directory, cached leaf) is a leaf of this table.
inline bool is_leaf_of(const std::byte* page, TableId table) {
    return tree_level(page, table) == 0;
}

// The leaf that covers `key`; one probe of the source per level.
template <class Source>
Landing descend(const TreeShape& shape, PageId root, const std::byte* key, Source&& source) {
    PageId page = root;
    const std::byte* bytes = source(page);
    if (bytes == nullptr) return {Landed::kMissing, page, nullptr};
    int level = tree_level(bytes, shape.table);
    if (level < 0) return {Landed::kCorrupt, page, nullptr};
    const std::uint64_t floor = floor_of(bytes);
    while (level > 0) {
        const InnerView node(bytes, shape.inner);
        if (node.count() == 0) return {Landed::kCorrupt, page, nullptr};
        page = node.child_for(key);
        bytes = source(page);
        if (bytes == nullptr) return {Landed::kMissing, page, nullptr};
        --level;
        if (tree_level(bytes, shape.table) != level) return {Landed::kCorrupt, page, nullptr};
    }
    return {Landed::kLeaf, page, bytes, floor};
}

// A place in the tree, with the way to it, for scans over its leaves.
//
// The cursor keeps the versions it was given: they must stay what they are while it is used (a
// client's snapshot sees to that; in the engine nothing may be changed meanwhile). A call that ends
// on anything but kLeaf leaves the cursor where it was, so that it can be made again once the
// missing page is there; only a seek that fails leaves the cursor nowhere.
template <class Source>
class PathCursor {
  public:
    // Leaves of a scan that are on their way to the cache: of one that does not say how far it
    // goes, and at most.
    static constexpr std::uint32_t kLeavesAhead = 2;
    static constexpr std::uint32_t kLeavesAheadMax = 8;
    struct Step {
        PageId page;
        const std::byte* bytes;
        std::uint32_t index;  // of the child that the way goes on with; 0 in the leaf
    };

    // What a scan goes on to behind the leaf that it begins in.
    struct Ahead {
        bool forward = true;
        std::uint32_t leaves = 0;  // at most kLeavesAheadMax
        // A whole key or nullptr, as for upcoming(); by its first bytes alone, so a leaf too many
        // is possible.
        const std::byte* bound = nullptr;
    };

    PathCursor(const TreeShape& shape, PageId root, Source source)
        : shape_(&shape), root_(root), source_(source) {}

    Landing seek(const std::byte* key, const Ahead& ahead = {}) {
        return seek_by([&](const InnerView& node) { return node.index_for(key); }, ahead);
    }
    Landing seek_first(const Ahead& ahead = {}) {
        return seek_by([](const InnerView&) { return 0u; }, ahead);
    }
    Landing seek_last(const Ahead& ahead = {}) {
        return seek_by([](const InnerView& node) { return node.count() - 1; }, ahead);
    }
    // How many leaves the last seek has on their way to the processor's cache (if its source can do
    // so), beginning with the one next to where it ended.
    std::uint32_t sought_ahead() const { return sought_ahead_; }

    Landing next_leaf() { return move(true); }
    Landing previous_leaf() { return move(false); }

    // After a call that ended on kLeaf.
    LeafView leaf() const { return LeafView(steps_[depth_ - 1].bytes, shape_->leaf); }
    PageId leaf_page() const { return steps_[depth_ - 1].page; }

    // The table's floor; after a seek that ended on kLeaf.
    std::uint64_t floor() const { return floor_of(steps_[0].bytes); }

    // The way, root first; steps()[depth() - 1] is the leaf.
    std::uint32_t depth() const { return depth_; }
    const Step& step(std::uint32_t i) const { return steps_[i]; }

    // The leaves that come next under the same parent, nearest first: what a scan reads ahead. Not
    // those beyond `bound`, a whole key or nullptr: the upper one forward (exclusive), the lower
    // one backward (inclusive).
    std::uint32_t upcoming(bool forward, std::span<PageId> to,
                           const std::byte* bound = nullptr) const;
    // The key between this leaf and the next one in that direction (the first that belongs to the
    // one behind it): from it the way goes on without this leaf. Writes key_bytes bytes; false at
    // the end of the tree.
    bool boundary(bool forward, std::byte* key) const;
    // Starts to load some of them into the processor's cache, if the source can do so without
    // waiting for any of it: those numbered `from` (0: the nearest) to `to`, exclusive.
    [[gnu::always_inline]] void prefetch(bool forward, std::uint32_t from = 0,
                                         std::uint32_t to = kLeavesAhead) const {
        if constexpr (requires { source_.prefetch(PageId{}); }) {
            std::array<PageId, kLeavesAheadMax> next;
            const std::uint32_t wanted = to < kLeavesAheadMax ? to : kLeavesAheadMax;
            const std::uint32_t count = upcoming(forward, std::span(next).first(wanted));
            for (std::uint32_t i = from; i < count; ++i) source_.prefetch_entry(next[i]);
            for (std::uint32_t i = from; i < count; ++i) source_.prefetch(next[i]);
        }
    }

  private:
    template <class Choose>
    Landing seek_by(Choose choose, const Ahead& ahead) {
        depth_ = 0;
        sought_ahead_ = 0;
        const std::byte* bytes = source_(root_);
        if (bytes == nullptr) return {Landed::kMissing, root_, nullptr};
        const int level = tree_level(bytes, shape_->table);
        if (level < 0) return {Landed::kCorrupt, root_, nullptr};
        const Landing landing = fill(steps_, 0, {root_, bytes, 0}, level, choose, ahead);
        if (landing.state == Landed::kLeaf) depth_ = static_cast<std::uint32_t>(level) + 1;
        return landing;
    }
    template <class Choose>
    Landing fill(std::array<Step, kDepthMax>& steps, std::uint32_t at, Step step, int level,
                 Choose choose, const Ahead& ahead = {});
    void prefetch_leaves(const InnerView& node, std::uint32_t index, const Ahead& ahead);
    Landing move(bool forward);
    Landing move_to_sibling(bool forward);
    // The deepest inner step that has a child beyond its index, or -1.
    int turning_step(bool forward) const;
    std::uint32_t children(std::uint32_t i) const {
        return InnerView(steps_[i].bytes, shape_->inner).count();
    }

    const TreeShape* shape_;
    PageId root_;
    Source source_;
    std::uint32_t depth_ = 0;
    std::uint32_t sought_ahead_ = 0;
    std::array<Step, kDepthMax> steps_;
};

// The leaf numbered `index` of a node above leaves, and those that come behind it: all of them at
// once, since each is a miss or two, and the way to the first one waits for nothing else.
template <class Source>
void PathCursor<Source>::prefetch_leaves(const InnerView& node, std::uint32_t index,
                                         const Ahead& ahead) {
    if constexpr (requires { source_.prefetch(PageId{}); }) {
        std::array<PageId, kLeavesAheadMax + 1> pages;
        std::uint32_t count = 0;
        source_.prefetch_entry(pages[count++] = node.child(index));
        const std::uint32_t key_bytes = shape_->inner.key_bytes;
        const std::uint64_t bound = ahead.bound != nullptr ? key_head(ahead.bound, key_bytes) : 0;
        while (count <= ahead.leaves) {
            if (ahead.forward ? index + 1 >= node.count() : index == 0) break;
            const std::uint64_t between = node.head(ahead.forward ? index + 1 : index);
            const bool beyond = ahead.forward ? between > bound : between < bound;
            if (ahead.bound != nullptr && beyond) break;
            index = ahead.forward ? index + 1 : index - 1;
            source_.prefetch_entry(pages[count++] = node.child(index));
        }
        for (std::uint32_t i = 0; i < count; ++i) source_.prefetch(pages[i]);
        sought_ahead_ = count - 1;
    }
}

// Notes `step`, whose page was checked to be of `level`, and goes on down from it to a leaf.
template <class Source>
template <class Choose>
Landing PathCursor<Source>::fill(std::array<Step, kDepthMax>& steps, std::uint32_t at, Step step,
                                 int level, Choose choose, const Ahead& ahead) {
    while (level > 0) {
        const InnerView node(step.bytes, shape_->inner);
        if (node.count() == 0) return {Landed::kCorrupt, step.page, nullptr};
        step.index = choose(node);
        steps[at++] = step;
        if (level == 1 && ahead.leaves != 0) prefetch_leaves(node, step.index, ahead);
        const PageId page = node.child(step.index);
        const std::byte* bytes = source_(page);
        if (bytes == nullptr) return {Landed::kMissing, page, nullptr};
        --level;
        if (tree_level(bytes, shape_->table) != level) return {Landed::kCorrupt, page, nullptr};
        step = {page, bytes, 0};
    }
    steps[at] = step;
    return {Landed::kLeaf, step.page, step.bytes};
}

template <class Source>
int PathCursor<Source>::turning_step(bool forward) const {
    for (int i = static_cast<int>(depth_) - 2; i >= 0; --i) {
        const auto step = static_cast<std::uint32_t>(i);
        if (forward && steps_[step].index + 1 < children(step)) return i;
        if (!forward && steps_[step].index > 0) return i;
    }
    return -1;
}

template <class Source>
Landing PathCursor<Source>::move(bool forward) {
    const int turn = turning_step(forward);
    if (turn < 0) return {Landed::kEnd, PageId{}, nullptr};
    const auto at = static_cast<std::uint32_t>(turn);
    if (at + 2 == depth_) return move_to_sibling(forward);
    Step step = steps_[at];
    step.index = forward ? step.index + 1 : step.index - 1;
    const int level = static_cast<int>(depth_ - 1 - at);

    // Collected apart, so that a missing page leaves the cursor as it was.
    std::array<Step, kDepthMax> steps;
    bool first = true;
    const Landing landing = fill(steps, at, step, level, [&](const InnerView& node) {
        // Within the page, also where the count has fallen since under a dead lease: the last child
        // that is left would lead the walk back.
        if (std::exchange(first, false)) return step.index;
        return forward ? 0u : node.count() - 1;
    });
    if (landing.state != Landed::kLeaf) return landing;
    for (std::uint32_t i = at; i < depth_; ++i) steps_[i] = steps[i];
    return landing;
}

// To the leaf beside this one under the same parent, which has one: as most leaves have.
template <class Source>
Landing PathCursor<Source>::move_to_sibling(bool forward) {
    Step& parent = steps_[depth_ - 2];
    const InnerView node(parent.bytes, shape_->inner);
    const std::uint32_t index = forward ? parent.index + 1 : parent.index - 1;
    // A count that changed under a dead lease must not lead outside the node.
    if (index >= node.count()) return {Landed::kCorrupt, parent.page, nullptr};
    const PageId page = node.child(index);
    const std::byte* bytes = source_(page);
    if (bytes == nullptr) return {Landed::kMissing, page, nullptr};
    if (tree_level(bytes, shape_->table) != 0) return {Landed::kCorrupt, page, nullptr};
    parent.index = index;
    steps_[depth_ - 1] = {page, bytes, 0};
    return {Landed::kLeaf, page, bytes};
}

template <class Source>
bool PathCursor<Source>::boundary(bool forward, std::byte* key) const {
    const int turn = turning_step(forward);
    if (turn < 0) return false;
    const Step& step = steps_[static_cast<std::uint32_t>(turn)];
    const std::uint32_t index = forward ? step.index + 1 : step.index;
    const InnerView node(step.bytes, shape_->inner);
    if (index >= node.count()) return false;  // a count that changed under a dead lease
    node.copy_key(index, key);
    return true;
}

template <class Source>
std::uint32_t PathCursor<Source>::upcoming(bool forward, std::span<PageId> to,
                                           const std::byte* bound) const {
    if (depth_ < 2) return 0;
    const Step& parent = steps_[depth_ - 2];
    const InnerView node(parent.bytes, shape_->inner);
    std::uint32_t filled = 0;
    std::uint32_t index = parent.index;
    while (filled < to.size()) {
        if (forward ? index + 1 >= node.count() : index == 0) break;
        // What lies between this child and the one before it.
        const std::uint32_t between = forward ? index + 1 : index;
        if (bound != nullptr && between < node.count()) {
            std::array<std::byte, kKeyBytesMax> key;
            node.copy_key(between, key.data());
            const int order = std::memcmp(key.data(), bound, shape_->inner.key_bytes);
            if (forward ? order >= 0 : order <= 0) break;
        }
        index = forward ? index + 1 : index - 1;
        // A count that changed under a dead lease must not lead outside the node.
        if (index >= node.count()) break;
        to[filled++] = node.child(index);
    }
    return filled;
}

}  // namespace bidstore
