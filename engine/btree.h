// One table's B+tree, over the newest versions of its pages.
//
// Who:    the engine thread. A Tree is made on the spot from what the catalog knows.
// Owns:   nothing; pages and schema outlive it.
// Misses: a call that meets a page that is not resident changes nothing and names the page in
//         `missing`; the engine reads it and calls again. A page that is not what its parent says
//         comes back in `corrupt`, with nothing changed either.
// Room:   frames_needed() for a row, range_cost() for a range say how many page versions a change
//         may make; they are secured before the change.
// Dead:   rows below the floor, which the root carries (retention), are not found and not counted;
//         they go when their leaf does, when it is split, or with a range.
// Values: rows are as leaves store them (engine/page/row.h). A row that is replaced or erased takes
//         the extents that it referred to with it, but for those that the new row refers to as
//         well. A dead row's stay: Space::free_dead_extents() finds them.
// Rules:  the root keeps its page id for life: a full root moves its content down into a new page,
//         a root of one child takes that child's content. Empty leaves are freed; nodes less than
//         kUnderfullPercent full merge with a resident neighbour under the same parent when both
//         fill at most kMergedPercent of one. check_tree() (engine/tree_check.h) holds all of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/page/schema.h"
#include "engine/page/search.h"
#include "engine/pages.h"

namespace bidstore {

inline constexpr std::uint32_t kUnderfullPercent = 40;
inline constexpr std::uint32_t kMergedPercent = 90;
inline constexpr std::uint32_t kDensePercent = 70;

// What stood in the way, if anything.
struct TreeAccess {
    PageId missing;
    PageId corrupt;
    bool ok() const { return !missing && !corrupt; }
};

struct Lookup : TreeAccess {
    bool found = false;
    PageId leaf;                            // that has the row, or would get it
    const std::byte* leaf_bytes = nullptr;  // until the tree is changed
    std::span<const std::byte> value;       // in the page: until the tree is changed
};

struct MutableLookup : TreeAccess {
    bool found = false;
    std::span<std::byte> value;  // in the open batch's version: until the tree is changed
};

struct Change : TreeAccess {
    bool found = false;  // put: replaced a row; erase: there was one
};

struct RangeCost : TreeAccess {
    std::uint64_t rows = 0;  // range_cost: dead ones too; erase_range: live ones
    std::uint64_t pages = 0;
    std::uint64_t value_runs = 0;  // of the extents that go with the rows
};

// A step of retention, or of dropping a table: one inner node above leaves.
struct LeafDrop : TreeAccess {
    std::uint32_t leaves = 0;  // that left the tree
    std::uint32_t chunks = 0;  // that they were in, at most
    bool kept = false;         // a leaf of this node is not wholly dead
    bool end = false;          // no node behind this one
    // Leaves of this node, some, of which only the page itself knows its times.
    std::vector<PageId> ask;
    std::array<std::byte, kKeyBytesMax> next{};  // lower bound of the next node
};

class LeafEdit;

// A row's time as metadata keeps the newest of pages and extents (engine/format.h); kNewestUnknown
// without a time column. And whether such a time says that all rows are below the floor.
std::uint32_t newest_of_row(const Schema& schema, const std::byte* key,
                            std::span<const std::byte> value);
bool newest_below(const Schema& schema, std::uint32_t newest, std::uint64_t floor);

class Tree {
  public:
    Tree(Pages& pages, const Schema& schema, TableId table, PageId root)
        : pages_(&pages), schema_(&schema), shape_(schema, table), root_(root) {}

    // Makes a freshly allocated page (type kLeaf) the root of an empty tree.
    static void init_root(std::byte* page, const Schema& schema);

    // Keys have the schema's length everywhere; values are sound (stored_value_fault) and do not
    // lie in pages of this tree.
    Lookup get(const std::byte* key) const;
    // Changes value bytes of a row in place. A time column among them must not be changed this way:
    // the leaf's time bounds would not follow. Writes one page.
    MutableLookup mutable_value(const std::byte* key);
    // The leaf that covers a key, which nobody looks at; or the inner node on the way to it that is
    // missing. Neither: the root is the leaf, or the tree is damaged. Of kKeysTogether keys at
    // most, whose searches go down level by level together, so that their waits overlap.
    struct Ahead {
        PageId leaf;
        PageId missing;
    };
    static constexpr std::uint32_t kKeysTogether = 16;
    void leaves_for(std::span<const std::byte* const> keys, std::span<Ahead> found) const;
    // `leaf`: the one that get(key) named, when nothing was put or erased since; spares the way.
    Change put(const std::byte* key, std::span<const std::byte> value, PageId leaf = {});
    Change erase(const std::byte* key);

    // The rows with lo <= key < hi; nullptr is no bound.
    // Counts rows, and the page versions that erase_range would make. Stops as soon as there are
    // more than row_limit rows: `rows` is above row_limit then, and no more than that is known.
    RangeCost range_cost(const std::byte* lo, const std::byte* hi, std::uint64_t row_limit) const;
    // Whether the leaves beside those of lo and hi are resident: they take over what those covered
    // when those are emptied and freed. hi nullptr: no bound. Not looked at when lo's leaf has more
    // than `rows` rows, which is more than the caller will erase.
    TreeAccess beside(const std::byte* lo, const std::byte* hi, std::uint64_t rows) const;
    // Erases them. `pages` is not filled in.
    RangeCost erase_range(const std::byte* lo, const std::byte* hi);

    // Calls visit(key, value) -> bool for the rows in order, dead ones too, until it returns false.
    // On a missing page it ends with rows visited: start again behind the last.
    template <class Visit>
    TreeAccess visit_range(const std::byte* lo, const std::byte* hi, Visit visit) const;
    // Calls visit(PageId) for each page of the tree, root included; leaves need not be resident.
    // Nothing is visited when an inner node is missing. For dropping a table.
    template <class Visit>
    TreeAccess visit_pages(Visit visit) const;

    // The most page versions that one put or erase can make (engine/room_estimate.h counts what
    // many can). The depth is the root's; the highest possible when the root is not resident.
    std::uint32_t frames_needed() const;
    // Levels, leaves included; kDepthMax when the root is not resident.
    std::uint32_t depth() const;
    // The pages on the way to a key, root first, leaf last. All of them are resident.
    struct Way {
        struct Step {
            PageId page;
            std::uint32_t children = 0;  // of an inner node
        };
        std::uint32_t depth = 0;
        std::array<Step, kDepthMax + 1> step;
    };
    Way way_to(const std::byte* key) const;

    // ---- retention ----
    // Rows whose time is below it are dead. The root is resident, or it counts as 0.
    std::uint64_t floor() const;
    void set_floor(std::uint64_t floor);
    // Whether nothing is in the tree, and the least time that may be in it; 0 when not known.
    bool empty() const;
    std::uint64_t least_time() const;
    // Takes leaves that are wholly dead out of the node that covers `from` (nullptr: the first
    // one) and drops them, `limit` at most. They need not be resident: their newest time is known.
    // A root that is a leaf loses its rows instead, when all are dead.
    LeafDrop drop_leaves(const std::byte* from, std::uint32_t limit);

    // ---- dropping a table, leaves unread ----
    // Whether the inner nodes above the first leaf are resident, as drop_first_leaves() wants them.
    TreeAccess first_leaves() const { return path_above_leaves(nullptr); }
    // Takes the first leaves out, whatever they hold: `limit` at most, and of one inner node. `ask`
    // has the node that comes next, unless it is resident. end: the root is the only page left.
    LeafDrop drop_first_leaves(std::uint32_t limit);

    // ---- compaction ----
    // Where a page other than the root hangs. The page is resident. `corrupt` is the page itself
    // when no way leads to it.
    struct Place : TreeAccess {
        PageId page;
        PageId parent;
        std::uint32_t index = 0;  // of the page among the parent's children
    };
    Place place_of(PageId page) const;
    // Moves the page to another place in the file, near its neighbours; or, when its left neighbour
    // is resident and has room for it, its content over there. At most kMoveRoom page versions.
    void move_page(const Place& place);
    // Neighbouring leaves, from the one that covers `from` (nullptr: the first) on, that together
    // fill kMergedPercent of a page at most; `looks` pairs are looked at. Of each inner node some
    // leaves are looked at first, and the rest only if these are not kDensePercent full on average:
    // so a table that is dense is not read to find out.
    struct SparseLeaves : TreeAccess {
        static constexpr std::uint32_t kAheadMost = 8;
        bool found = false;
        bool end = false;          // no leaf behind
        PageId parent;             // of the two
        std::uint32_t index = 0;   // of the left one there
        std::uint32_t looked = 0;  // leaves
        std::uint32_t ahead_count = 0;
        std::array<PageId, kAheadMost> ahead{};      // that are missing next
        std::array<std::byte, kKeyBytesMax> next{};  // where to go on
    };
    SparseLeaves find_sparse(const std::byte* from, std::uint32_t looks) const;
    // What was found, and not changed since: the two become one. As much room as erasing a row.
    // False: nothing was done, since keys are not where the parent's say.
    bool merge_leaves(const SparseLeaves& found);

    const TreeShape& shape() const { return shape_; }
    TableId table() const { return shape_.table; }
    PageId root() const { return root_; }

  private:
    struct Step {
        PageId page;
        std::uint32_t index;  // of the child on the way; 0 in the leaf
    };
    struct Path : TreeAccess {
        std::uint32_t depth = 0;
        std::array<Step, kDepthMax + 1> step;
        Step& leaf() { return step[depth - 1]; }
    };
    struct Erasure {
        std::uint64_t rows;
        bool empty;
    };

    const std::byte* newest(PageId page) const { return pages_->newest(page); }
    void replace_values(const std::byte* key, std::span<const std::byte> old,
                        std::span<const std::byte> kept);
    void release_rows(const LeafView& rows, std::uint32_t first, std::uint32_t last);
    void enter_rows(PageId page, std::uint32_t first, std::uint32_t last) const;
    void enter_leaf(PageId page) const { enter_rows(page, 0, count(page)); }
    void leave_rows(PageId page, std::uint32_t first, std::uint32_t last) const;
    std::span<const std::byte> key_span(const std::byte* key) const {
        return {key, shape_.leaf.key_bytes};
    }
    std::uint64_t runs_in(const LeafView& rows, std::uint32_t first, std::uint32_t last) const;
    const std::byte* resident(PageId page) const;  // newest, of which absence was ruled out
    auto source() const {
        return [pages = pages_](PageId page) { return pages->newest(page); };
    }
    InnerView inner(PageId page) const { return InnerView(resident(page), shape_.inner); }
    LeafView leaf(PageId page) const { return LeafView(resident(page), shape_.leaf); }
    std::uint32_t level(PageId page) const { return page_header(resident(page)).level; }
    std::uint32_t count(PageId page) const { return page_header(resident(page)).count; }

    Path path_to(const std::byte* key) const;
    Landing check_inner_nodes(PageId page, int level) const;

    void insert_split(Path& path, std::uint32_t row, const std::byte* key,
                      std::span<const std::byte> value);
    PageId new_leaf(PageId near);
    void insert_child(Path& path, std::uint32_t at, const std::byte* key, PageId child);
    PageId split_inner(PageId page, std::uint32_t index, const std::byte* key, PageId child,
                       std::byte* right_key);
    void push_down_root(Path& path);
    void copy_content(PageId from, PageId to);

    void remove_child(Path& path, std::uint32_t at);
    void rebalance(Path& path);
    void merge_with_neighbour(const Path& path, std::uint32_t at);
    bool lie_in_order(PageId parent, std::uint32_t left_index) const;
    bool try_merge(PageId parent, std::uint32_t left_index);
    std::uint32_t fullness_percent(PageId page) const;
    void collapse_root();

    TreeAccess key_in(PageId page, std::byte* key) const;
    bool is_leaf(PageId page, SparseLeaves& found) const;
    bool looks_dense(const InnerView& node, SparseLeaves& found) const;

    bool live(const LeafView& rows, std::uint32_t row, std::uint64_t floor) const {
        return schema_->live(rows.key(row), rows.value(row), floor);
    }
    std::uint32_t live_rows(const LeafView& rows, std::uint32_t first, std::uint32_t last) const;
    void purge(LeafEdit& leaf, std::uint64_t floor);
    bool wholly_dead(PageId page, std::uint64_t floor) const;
    Path path_above_leaves(const std::byte* from) const;
    void find_next_node(const Path& path, LeafDrop& drop) const;

    void add_range_cost(PageId page, int level, const std::byte* lo, const std::byte* hi,
                        std::uint64_t row_limit, RangeCost& cost) const;
    struct Children {
        std::uint32_t first;
        std::uint32_t last;
        bool first_whole;
        bool last_whole;
    };
    Children children_in(const InnerView& node, const std::byte* lo, const std::byte* hi) const;
    Erasure erase_in(PageId page, const std::byte* lo, const std::byte* hi);
    Erasure erase_in_leaf(PageId page, const std::byte* lo, const std::byte* hi);
    std::uint64_t free_subtree(PageId page);
    void tidy(const std::byte* key);

    Pages* pages_;
    const Schema* schema_;
    TreeShape shape_;
    PageId root_;
};

template <class Visit>
TreeAccess Tree::visit_range(const std::byte* lo, const std::byte* hi, Visit visit) const {
    PathCursor cursor(shape_, root_, source());
    Landing landing = lo != nullptr ? cursor.seek(lo) : cursor.seek_first();
    for (bool first = true; landing.state == Landed::kLeaf; landing = cursor.next_leaf()) {
        const LeafView rows = cursor.leaf();
        cursor.prefetch(true);
        std::uint32_t row = first && lo != nullptr ? rows.lower_bound(lo) : 0;
        first = false;
        for (; row < rows.count(); ++row) {
            const std::byte* key = rows.key(row);
            if (hi != nullptr && compare_keys(key, hi, shape_.leaf.key_bytes) >= 0) return {};
            if (!visit(key, rows.value(row))) return {};
        }
    }
    TreeAccess access;
    if (landing.state == Landed::kMissing) access.missing = landing.page;
    if (landing.state == Landed::kCorrupt) access.corrupt = landing.page;
    return access;
}

template <class Visit>
TreeAccess Tree::visit_pages(Visit visit) const {
    const Landing landing = check_inner_nodes(root_, -1);
    TreeAccess access;
    if (landing.state == Landed::kMissing) access.missing = landing.page;
    if (landing.state == Landed::kCorrupt) access.corrupt = landing.page;
    if (!access.ok()) return access;
    auto walk = [&](auto& self, PageId page, std::uint32_t level) -> void {
        for (std::uint32_t i = 0; level > 0 && i < count(page); ++i) {
            self(self, inner(page).child(i), level - 1);
        }
        visit(page);
    };
    walk(walk, root_, level(root_));
    return access;
}

}  // namespace bidstore
