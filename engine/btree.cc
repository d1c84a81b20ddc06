#include "engine/btree.h"

#include <algorithm>
#include <cstring>

#include "engine/inner_edit.h"
#include "engine/leaf_edit.h"

namespace bidstore {

namespace {

using Key = std::array<std::byte, kKeyBytesMax>;

constexpr std::size_t kAimBytes = 192;  // of an inner node: header and samples

void note(TreeAccess& access, const Landing& landing) {
    if (landing.state == Landed::kMissing) access.missing = landing.page;
    if (landing.state == Landed::kCorrupt) access.corrupt = landing.page;
}

// The lowest key above `key`, which is not the highest one.
void key_behind(const std::byte* key, std::uint32_t key_bytes, std::byte* behind) {
    std::memcpy(behind, key, key_bytes);
    std::uint32_t at = key_bytes;
    do {
        CHECK_OP(at, >, 0u);
        --at;
        behind[at] = static_cast<std::byte>(static_cast<unsigned>(behind[at]) + 1);
    } while (behind[at] == std::byte{0});
}

}  // namespace

void Tree::init_root(std::byte* page, const Schema& schema) {
    LeafEdit(page, LeafLayout::of(schema), schema).init();
}

const std::byte* Tree::resident(PageId page) const {
    const std::byte* bytes = newest(page);
    CHECK(bytes != nullptr);  // the way here was checked before anything was changed
    return bytes;
}

std::uint32_t Tree::depth() const {
    const std::byte* root = newest(root_);
    const int level = root == nullptr ? -1 : tree_level(root, shape_.table);
    return level < 0 ? kDepthMax : static_cast<std::uint32_t>(level) + 1;
}

std::uint32_t Tree::frames_needed() const {
    // put: three leaves (a long row between two), so two new children for their parent, which may
    // split for each, and so on; one page more for the content of a full root. erase is cheaper:
    // per level a node and the neighbour it merges with.
    return 3 * depth() + 1;
}

Tree::Way Tree::way_to(const std::byte* key) const {
    Way way;
    PathCursor cursor(shape_, root_, source());
    CHECK(cursor.seek(key).state == Landed::kLeaf);
    way.depth = cursor.depth();
    for (std::uint32_t i = 0; i < way.depth; ++i) {
        const bool is_inner = i + 1 < way.depth;
        way.step[i] = {cursor.step(i).page,
                       is_inner ? page_header(cursor.step(i).bytes).count : 0u};
    }
    return way;
}

// ---- reading ----

Lookup Tree::get(const std::byte* key) const {
    Lookup lookup;
    const Landing landing = descend(shape_, root_, key, source());
    note(lookup, landing);
    if (!lookup.ok()) return lookup;
    const LeafView rows(landing.bytes, shape_.leaf);
    const int row = rows.find(key);
    lookup.leaf = landing.page;
    lookup.leaf_bytes = landing.bytes;
    lookup.found = row >= 0 && live(rows, static_cast<std::uint32_t>(row), landing.floor);
    if (lookup.found) lookup.value = rows.value(static_cast<std::uint32_t>(row));
    return lookup;
}

MutableLookup Tree::mutable_value(const std::byte* key) {
    MutableLookup lookup;
    const Landing landing = descend(shape_, root_, key, source());
    note(lookup, landing);
    if (!lookup.ok()) return lookup;
    const LeafView rows(landing.bytes, shape_.leaf);
    const int row = rows.find(key);
    lookup.found = row >= 0 && live(rows, static_cast<std::uint32_t>(row), landing.floor);
    if (!lookup.found) return lookup;
    std::byte* page = pages_->writable(landing.page);
    const auto value = LeafView(page, shape_.leaf).value(static_cast<std::uint32_t>(row));
    lookup.value = {page + (value.data() - page), value.size()};
    return lookup;
}

void Tree::leaves_for(std::span<const std::byte* const> keys, std::span<Ahead> found) const {
    CHECK_OP(keys.size(), <=, kKeysTogether);
    const std::byte* const root = newest(root_);
    std::fill(found.begin(), found.end(), Ahead{{}, root == nullptr ? root_ : PageId{}});
    if (root == nullptr) return;
    std::array<const std::byte*, kKeysTogether> nodes;  // nullptr: its search has ended
    nodes.fill(root);
    std::array<InnerView::Blocks, kKeysTogether> blocks;
    for (int level = tree_level(root, shape_.table); level > 0; --level) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            if (nodes[i] == nullptr) continue;
            const InnerView node(nodes[i], shape_.inner);
            if (tree_level(nodes[i], shape_.table) != level || node.count() == 0) {
                nodes[i] = nullptr;
            } else {
                blocks[i] = node.aim(keys[i]);
            }
        }
        for (std::size_t i = 0; i < keys.size(); ++i) {
            if (nodes[i] == nullptr) continue;
            const InnerView node(nodes[i], shape_.inner);
            const PageId child = node.child(node.index_for(keys[i], blocks[i]));
            if (level == 1) {
                found[i].leaf = child;
                continue;
            }
            nodes[i] = newest(child);
            if (nodes[i] == nullptr) {
                found[i].missing = child;
            } else {
                prefetch_bytes(nodes[i], kAimBytes);
            }
        }
    }
}

Tree::Path Tree::path_to(const std::byte* key) const {
    Path path;
    PathCursor cursor(shape_, root_, source());
    note(path, cursor.seek(key));
    path.depth = cursor.depth();
    for (std::uint32_t i = 0; i < path.depth; ++i) {
        path.step[i] = {cursor.step(i).page, cursor.step(i).index};
    }
    return path;
}

// ---- put ----

// 1. The whole way down is resident; nothing is changed before that is known.
// 2. A row that is there is replaced in its place when it fits.
// 3. A new row, or one that grew, goes into the leaf, or the leaf is split.
// 4. Each split gives the parent one more child, which may split it in turn, up to the root.
Change Tree::put(const std::byte* key, std::span<const std::byte> value, PageId leaf) {
    Path path;
    if (!leaf) path = path_to(key);
    Change change;
    static_cast<TreeAccess&>(change) = path;
    if (!path.ok()) return change;
    const PageId page = leaf ? leaf : path.leaf().page;
    LeafEdit edit(pages_->writable(page), shape_.leaf, *schema_);
    if (const std::uint64_t floor = this->floor(); floor > edit.view().time_min()) {
        if (!edit.fits(value.size())) purge(edit, floor);
    }
    const std::uint32_t row = edit.view().lower_bound(key);
    change.found =
        row < edit.count() && keys_equal(edit.view().key(row), key, shape_.leaf.key_bytes);
    if (change.found) {
        replace_values(key, edit.view().value(row), value);
        if (edit.fits_replacing(row, value.size())) {
            edit.replace(row, value);
            return change;
        }
        edit.erase(row, row + 1);
    }
    if (edit.fits(value.size())) {
        edit.insert(row, key, value);
        pages_->row_entered(shape_.table, key_span(key), page, row);
    } else {
        if (leaf) path = path_to(key);
        CHECK(path.ok());
        insert_split(path, row, key, value);
    }
    return change;
}

// Frees the extents that `old` refers to and `kept` does not, and gives those that stay the time
// that the row has now. Short rows pass by in a few compares. A dead row's references may lead to
// what is somebody else's by now: they are not followed, and nor are those that metadata do not
// have as the table's.
void Tree::replace_values(const std::byte* key, std::span<const std::byte> old,
                          std::span<const std::byte> kept) {
    if (!schema_->has_variable()) return;
    const RowView old_row(*schema_, old);
    if (!old_row.has_references() || !schema_->live(key, old, floor())) return;
    old_row.each_reference([&](std::uint32_t, const ValueReference& reference) {
        if (!pages_->has_extent(shape_.table, reference)) return;
        bool stays = false;
        RowView(*schema_, kept).each_reference([&](std::uint32_t, const ValueReference& other) {
            stays = stays || reference.runs[0] == other.runs[0];
        });
        if (stays) {
            pages_->stamp_extent(reference, newest_of_row(*schema_, key, kept));
        } else {
            pages_->free_extent(reference);
        }
    });
}

void Tree::release_rows(const LeafView& rows, std::uint32_t first, std::uint32_t last) {
    for (std::uint32_t row = first; schema_->has_variable() && row < last; ++row) {
        replace_values(rows.key(row), rows.value(row), {});
    }
}

std::uint64_t Tree::runs_in(const LeafView& rows, std::uint32_t first, std::uint32_t last) const {
    std::uint64_t runs = 0;
    for (std::uint32_t row = first; schema_->has_variable() && row < last; ++row) {
        RowView(*schema_, rows.value(row))
            .each_reference([&](std::uint32_t, const ValueReference& reference) {
                runs += reference.run_count;
            });
    }
    return runs;
}

PageId Tree::new_leaf(PageId near) {
    const PageId page = pages_->allocate(PageType::kLeaf, shape_.table, near);
    LeafEdit(pages_->writable(page), shape_.leaf, *schema_).init();
    return page;
}

void Tree::insert_split(Path& path, std::uint32_t row, const std::byte* key,
                        std::span<const std::byte> value) {
    if (path.depth == 1) push_down_root(path);
    const PageId left_page = path.leaf().page;
    LeafEdit left(pages_->writable(left_page), shape_.leaf, *schema_);
    const LeafSplit split = plan_split(left.view(), shape_.leaf, row, key, value.size());

    const PageId right_page = new_leaf(left_page);
    LeafEdit right(pages_->writable(right_page), shape_.leaf, *schema_);
    right.append(left.view(), split.first_right, left.count());
    left.erase(split.first_right, left.count());
    left.refresh_times();
    if (split.place == LeafSplit::Place::kLeft) left.insert(row, key, value);
    if (split.place == LeafSplit::Place::kRight) right.insert(row - split.first_right, key, value);
    if (split.place == LeafSplit::Place::kLeft) enter_rows(left_page, row, row + 1);
    enter_leaf(right_page);

    Key bound;
    std::memcpy(bound.data(), right.view().key(0), shape_.leaf.key_bytes);
    // A row that goes right alone takes all keys behind the left leaf with it: the next lower ones
    // would meet the same full leaf, and split it for each.
    const bool alone = split.place == LeafSplit::Place::kRight && right.count() == 1;
    if (alone) key_behind(left.view().key(left.count() - 1), shape_.leaf.key_bytes, bound.data());
    insert_child(path, path.depth - 2, bound.data(), right_page);
    if (split.place != LeafSplit::Place::kBetween) return;

    const PageId between_page = new_leaf(left_page);
    LeafEdit(pages_->writable(between_page), shape_.leaf, *schema_).insert(0, key, value);
    enter_leaf(between_page);
    // The parent may have been split since; the way to `key` still ends on the left leaf.
    Path again = path_to(key);
    CHECK(again.ok());
    insert_child(again, again.depth - 2, key, between_page);
}

// Puts the new right neighbour of the child on the way into the node path.step[at].
void Tree::insert_child(Path& path, std::uint32_t at, const std::byte* key, PageId child) {
    if (count(path.step[at].page) < shape_.inner.capacity) {
        InnerEdit node(pages_->writable(path.step[at].page), shape_.inner);
        return node.insert(path.step[at].index + 1, key, child);
    }
    if (at == 0) {
        push_down_root(path);
        at = 1;
    }
    Key bound;
    const PageId right =
        split_inner(path.step[at].page, path.step[at].index + 1, key, child, bound.data());
    insert_child(path, at - 1, bound.data(), right);
}

// Splits a full node while it takes a child at `index`; returns the new right one and its bound.
PageId Tree::split_inner(PageId page, std::uint32_t index, const std::byte* key, PageId child,
                         std::byte* right_key) {
    InnerEdit left(pages_->writable(page), shape_.inner);
    const PageId right_page = pages_->allocate(PageType::kInner, shape_.table, page);
    InnerEdit right(pages_->writable(right_page), shape_.inner);
    right.init(level(page));
    // At the end the new child goes right with its left neighbour alone, as in leaves: ordered data
    // fill their nodes. The neighbour goes with it because it may split again, for lower keys.
    const std::uint32_t cut = index == left.count() ? left.count() - 1 : left.count() / 2;
    left.view().copy_key(cut, right_key);
    right.append(left.view(), cut, nullptr);
    left.erase(cut, left.count());
    if (index <= cut) {
        left.insert(index, key, child);
    } else {
        right.insert(index - cut, key, child);
    }
    return right_page;
}

// Moves the root's content into a new page below it, and the path with it.
void Tree::push_down_root(Path& path) {
    const std::uint32_t root_level = level(root_);
    CHECK_OP(root_level + 1, <, kDepthMax);
    const PageType type = root_level == 0 ? PageType::kLeaf : PageType::kInner;
    const PageId below = pages_->allocate(type, shape_.table, root_);
    copy_content(root_, below);
    InnerEdit root(pages_->writable(root_), shape_.inner);
    root.init(root_level + 1);
    const Key lowest{};
    root.insert(0, lowest.data(), below);
    for (std::uint32_t i = path.depth; i > 0; --i) path.step[i] = path.step[i - 1];
    ++path.depth;
    path.step[0] = {root_, 0};
    path.step[1].page = below;
}

// Everything but what belongs to the page itself: csn, id, CRC, uuid, table.
void Tree::copy_content(PageId from, PageId to) {
    std::byte* target = pages_->writable(to);
    const std::byte* content = resident(from);
    const PageHeader& old = page_header(content);
    PageHeader& header = page_header(target);
    header.count = old.count;
    header.free_offset = old.free_offset;
    header.type = old.type;
    header.level = old.level;
    header.live_bytes = old.live_bytes;
    header.time_shift = old.time_shift;
    header.time_min = old.time_min;
    header.time_max = old.time_max;
    std::memcpy(target + kPageHeaderBytes, content + kPageHeaderBytes, kPayloadBytes);
    if (header.level == 0) enter_leaf(to);
}

// ---- key directory ----

void Tree::enter_rows(PageId page, std::uint32_t first, std::uint32_t last) const {
    const LeafView rows = leaf(page);
    for (std::uint32_t row = first; row < last; ++row) {
        pages_->row_entered(shape_.table, key_span(rows.key(row)), page, row);
    }
}

void Tree::leave_rows(PageId page, std::uint32_t first, std::uint32_t last) const {
    const LeafView rows = leaf(page);
    for (std::uint32_t row = first; row < last; ++row) {
        pages_->row_left(shape_.table, key_span(rows.key(row)), page);
    }
}

// ---- erase ----

Change Tree::erase(const std::byte* key) {
    Path path = path_to(key);
    Change change;
    static_cast<TreeAccess&>(change) = path;
    if (!path.ok()) return change;
    const PageId page = path.leaf().page;
    const int found = leaf(page).find(key);
    change.found = found >= 0;
    if (!change.found) return change;
    const auto erased = static_cast<std::uint32_t>(found);
    release_rows(leaf(page), erased, erased + 1);
    leave_rows(page, erased, erased + 1);
    if (path.depth > 1 && count(page) == 1) {
        pages_->free(page);
        remove_child(path, path.depth - 2);
    } else {
        LeafEdit(pages_->writable(page), shape_.leaf, *schema_).erase(erased, erased + 1);
    }
    rebalance(path);
    return change;
}

// Takes the freed child on the way out of path.step[at]; a node without children goes as well. The
// path ends on what is left.
void Tree::remove_child(Path& path, std::uint32_t at) {
    const Step& step = path.step[at];
    path.depth = at + 1;
    if (count(step.page) > 1) {
        InnerEdit(pages_->writable(step.page), shape_.inner).erase(step.index, step.index + 1);
        return;
    }
    if (at == 0) {
        LeafEdit(pages_->writable(root_), shape_.leaf, *schema_).init();
        return;
    }
    pages_->free(step.page);
    remove_child(path, at - 1);
}

// ---- ranges ----

// Whether all inner nodes of a subtree are there and what they should be. level -1: whatever the
// page says, for the root.
Landing Tree::check_inner_nodes(PageId page, int level) const {
    if (level == 0) return {Landed::kLeaf, page, nullptr};
    const std::byte* bytes = newest(page);
    if (bytes == nullptr) return {Landed::kMissing, page, nullptr};
    const int found = tree_level(bytes, shape_.table);
    if (found < 0 || (level >= 0 && found != level)) return {Landed::kCorrupt, page, nullptr};
    if (found == 0) return {Landed::kLeaf, page, bytes};
    const InnerView node(bytes, shape_.inner);
    if (node.count() == 0) return {Landed::kCorrupt, page, nullptr};
    for (std::uint32_t i = 0; i < node.count(); ++i) {
        const Landing landing = check_inner_nodes(node.child(i), found - 1);
        if (landing.state != Landed::kLeaf) return landing;
    }
    return {Landed::kLeaf, page, bytes};
}

// The children that may hold keys in [lo, hi), and whether the outer two lie wholly inside.
Tree::Children Tree::children_in(const InnerView& node, const std::byte* lo,
                                 const std::byte* hi) const {
    Key key;
    Children in{0, node.count() - 1, lo == nullptr, hi == nullptr};
    if (lo != nullptr) {
        in.first = node.index_for(lo);
        node.copy_key(in.first, key.data());
        // Key 0 means minus infinity, so it equals no bound.
        in.first_whole = in.first > 0 && keys_equal(key.data(), lo, shape_.leaf.key_bytes);
    }
    if (hi != nullptr) {
        in.last = node.index_for(hi);
        node.copy_key(in.last, key.data());
        // A child that begins at hi holds nothing below it.
        if (in.last > in.first && keys_equal(key.data(), hi, shape_.leaf.key_bytes)) {
            --in.last;
            in.last_whole = true;
        }
    }
    return in;
}

RangeCost Tree::range_cost(const std::byte* lo, const std::byte* hi,
                           std::uint64_t row_limit) const {
    RangeCost cost;
    add_range_cost(root_, -1, lo, hi, row_limit, cost);
    // Both ends may merge with a neighbour on every level, and the root take its child's content.
    if (cost.ok()) cost.pages += frames_needed() * 2;
    return cost;
}

void Tree::add_range_cost(PageId page, int level, const std::byte* lo, const std::byte* hi,
                          std::uint64_t row_limit, RangeCost& cost) const {
    const std::byte* bytes = newest(page);
    if (bytes == nullptr) return note(cost, {Landed::kMissing, page, nullptr});
    const int found = tree_level(bytes, shape_.table);
    if (found < 0 || (level >= 0 && found != level)) {
        return note(cost, {Landed::kCorrupt, page, nullptr});
    }
    ++cost.pages;
    if (found == 0) {
        const LeafView rows(bytes, shape_.leaf);
        const std::uint32_t first = lo == nullptr ? 0 : rows.lower_bound(lo);
        const std::uint32_t last = hi == nullptr ? rows.count() : rows.lower_bound(hi);
        cost.rows += last > first ? last - first : 0;
        cost.value_runs += runs_in(rows, first, last);
        return;
    }
    const InnerView node(bytes, shape_.inner);
    if (node.count() == 0) return note(cost, {Landed::kCorrupt, page, nullptr});
    const Children in = children_in(node, lo, hi);
    for (std::uint32_t i = in.first; i <= in.last; ++i) {
        const bool whole_below = i > in.first || in.first_whole;
        const bool whole_above = i < in.last || in.last_whole;
        add_range_cost(node.child(i), found - 1, whole_below ? nullptr : lo,
                       whole_above ? nullptr : hi, row_limit, cost);
        if (!cost.ok() || cost.rows > row_limit) return;
    }
}

TreeAccess Tree::beside(const std::byte* lo, const std::byte* hi, std::uint64_t rows) const {
    TreeAccess access;
    PathCursor cursor(shape_, root_, source());
    note(access, cursor.seek(lo));
    if (!access.ok() || cursor.leaf().count() > rows) return access;
    note(access, cursor.previous_leaf());
    if (!access.ok() || hi == nullptr) return access;
    note(access, cursor.seek(hi));
    if (access.ok()) note(access, cursor.next_leaf());
    return access;
}

// The range is looked through first, so that a missing page is met before anything is changed.
RangeCost Tree::erase_range(const std::byte* lo, const std::byte* hi) {
    RangeCost done;
    const RangeCost cost = range_cost(lo, hi, ~std::uint64_t{0});
    static_cast<TreeAccess&>(done) = cost;
    if (!cost.ok() || cost.rows == 0) return done;
    const Erasure erasure = erase_in(root_, lo, hi);
    if (erasure.empty) LeafEdit(pages_->writable(root_), shape_.leaf, *schema_).init();
    done.rows = erasure.rows;
    if (lo != nullptr) tidy(lo);
    if (hi != nullptr) tidy(hi);
    collapse_root();
    return done;
}

Tree::Erasure Tree::erase_in(PageId page, const std::byte* lo, const std::byte* hi) {
    if (level(page) == 0) return erase_in_leaf(page, lo, hi);
    // The node itself changes only after its children, so the view is good until then.
    const InnerView node = inner(page);
    if (node.count() == 0) return {0, true};  // freed: it is below another node, too
    const Children in = children_in(node, lo, hi);
    Erasure erasure{0, false};
    std::uint32_t gone_first = in.last + 1;
    std::uint32_t gone = 0;
    for (std::uint32_t i = in.first; i <= in.last; ++i) {
        const bool whole_below = i > in.first || in.first_whole;
        const bool whole_above = i < in.last || in.last_whole;
        const PageId child = node.child(i);
        if (whole_below && whole_above) {
            erasure.rows += free_subtree(child);
        } else {
            const Erasure part =
                erase_in(child, whole_below ? nullptr : lo, whole_above ? nullptr : hi);
            erasure.rows += part.rows;
            if (!part.empty) continue;
            pages_->free(child);
        }
        // Only the outer two can stay, so what goes is one run.
        if (gone++ == 0) gone_first = i;
    }
    if (gone == 0) return erasure;
    erasure.empty = gone == node.count();
    if (!erasure.empty) {
        InnerEdit(pages_->writable(page), shape_.inner).erase(gone_first, gone_first + gone);
    }
    return erasure;
}

Tree::Erasure Tree::erase_in_leaf(PageId page, const std::byte* lo, const std::byte* hi) {
    const LeafView rows = leaf(page);
    const std::uint32_t first = lo == nullptr ? 0 : rows.lower_bound(lo);
    const std::uint32_t last = hi == nullptr ? rows.count() : rows.lower_bound(hi);
    if (first >= last) return {0, rows.empty()};
    const std::uint32_t live = live_rows(rows, first, last);
    release_rows(rows, first, last);
    leave_rows(page, first, last);
    if (last - first == rows.count()) return {live, true};
    LeafEdit(pages_->writable(page), shape_.leaf, *schema_).erase(first, last);
    return {live, false};
}

// Frees a subtree, root included; returns the rows that were in it.
std::uint64_t Tree::free_subtree(PageId page) {
    std::uint64_t rows = level(page) == 0 ? live_rows(leaf(page), 0, count(page)) : 0;
    if (level(page) == 0) release_rows(leaf(page), 0, count(page));
    if (level(page) == 0) leave_rows(page, 0, count(page));
    if (level(page) > 0) {
        const InnerView node = inner(page);
        for (std::uint32_t i = 0; i < node.count(); ++i) rows += free_subtree(node.child(i));
    }
    pages_->free(page);
    return rows;
}

}  // namespace bidstore
