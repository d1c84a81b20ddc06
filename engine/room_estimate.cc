#include "engine/room_estimate.h"

#include <algorithm>

#include "engine/leaf_edit.h"
#include "shm/hot_path.h"

namespace bidstore {
namespace {

constexpr std::size_t kNodesAtFirst = 1024;

std::uint32_t row_cost(const LeafLayout& layout, std::size_t value_bytes) {
    if (!layout.variable) return 1;
    return kSlotBytes + layout.key_bytes + static_cast<std::uint32_t>(value_bytes);
}

std::uint32_t leaf_free(const std::byte* leaf, const LeafLayout& layout) {
    const PageHeader& header = page_header(leaf);
    if (!layout.variable)
        return layout.capacity - std::min<std::uint32_t>(header.count, layout.capacity);
    const std::uint32_t used = header.live_bytes + kSlotBytes * header.count;
    return static_cast<std::uint32_t>(kPayloadBytes) -
           std::min(used, static_cast<std::uint32_t>(kPayloadBytes));
}

bool underfull(std::uint32_t used, std::uint32_t space) {
    return 100 * used / space < kUnderfullPercent;
}

}  // namespace

RoomEstimate::RoomEstimate() : nodes_(kNodesAtFirst) {}

void RoomEstimate::reset() {
    accounts_.clear();
    beside_ = {};
    in_use_ = 0;
    if (++stamp_ != 0) return;
    std::fill(nodes_.begin(), nodes_.end(), Node{});
    stamp_ = 1;
}

RoomEstimate::Account& RoomEstimate::account(const Tree& tree) {
    for (Account& known : accounts_) {
        if (known.root == tree.root()) return known;
    }
    kept_push(accounts_, Account{});
    Account& made = accounts_.back();
    made.root = tree.root();
    made.depth = tree.depth();
    return made;
}

RoomEstimate::Node& RoomEstimate::node(PageId page, bool& first) {
    if (2 * (in_use_ + 1) > nodes_.size()) grow_table();
    const std::size_t mask = nodes_.size() - 1;
    std::size_t at = (page.value * std::size_t{0x9e3779b1}) & mask;
    while (nodes_[at].stamp == stamp_ && nodes_[at].page != page.value) at = (at + 1) & mask;
    Node& found = nodes_[at];
    first = found.stamp != stamp_;
    if (first) {
        found = Node{};
        found.page = page.value;
        found.stamp = stamp_;
        ++in_use_;
    }
    return found;
}

// For the few transactions with very many pages; the table keeps its size afterwards.
void RoomEstimate::grow_table() {
    const ColdPath cold;
    std::vector<Node> old(2 * nodes_.size());
    old.swap(nodes_);
    const std::size_t mask = nodes_.size() - 1;
    for (const Node& moved : old) {
        if (moved.stamp != stamp_) continue;
        std::size_t at = (moved.page * std::size_t{0x9e3779b1}) & mask;
        while (nodes_[at].stamp == stamp_) at = (at + 1) & mask;
        nodes_[at] = moved;
    }
}

// ---- puts ----

void RoomEstimate::put(const Tree& tree, const std::byte* key, std::size_t value_bytes,
                       const Lookup& stored) {
    const LeafLayout& layout = tree.shape().leaf;
    Account& account = this->account(tree);
    ++account.puts;
    bool first = false;
    Node& leaf = node(stored.leaf, first);
    if (first) {
        leaf.free = leaf_free(stored.leaf_bytes, layout);
        ++account.put.changed;
    }
    std::uint32_t growth = row_cost(layout, value_bytes);
    if (stored.found) growth -= std::min(growth, row_cost(layout, stored.value.size()));
    if (!leaf.over && growth <= leaf.free) {
        leaf.free -= growth;
        return;
    }
    // A row that does not grow may meet a leaf without the room that it had: after others did not
    // fit, all that come count.
    leaf.over = true;
    const Tree::Way way = tree.way_to(key);
    const std::uint32_t leaves = layout.variable ? 2 : 1;
    account.put.fresh += leaves;
    for (std::uint32_t i = 0; i < leaves; ++i) {
        if (way.depth == 1) {
            add_above(account, tree, 0);
        } else {
            add_child(account, tree, way, way.depth - 2);
        }
    }
}

void RoomEstimate::add_child(Account& account, const Tree& tree, const Tree::Way& way,
                             std::uint32_t at) {
    bool first = false;
    Node& parent = node(way.step[at].page, first);
    const std::uint32_t capacity = tree.shape().inner.capacity;
    if (first) {
        parent.free = capacity - std::min(capacity, way.step[at].children);
        ++account.put.changed;
    }
    if (parent.free > 0) {
        --parent.free;
        return;
    }
    ++account.put.fresh;
    if (at == 0) {
        add_above(account, tree, 0);
    } else {
        add_child(account, tree, way, at - 1);
    }
}

// A child more for the root that is to come `height` levels above the one there is now.
void RoomEstimate::add_above(Account& account, const Tree& tree, std::uint32_t height) {
    CHECK_OP(height, <, kDepthMax);
    if (height == account.above_count) {
        // It begins with what was the root's content, and this child.
        ++account.put.fresh;
        account.above[account.above_count++] = tree.shape().inner.capacity - 2;
        return;
    }
    if (account.above[height] > 0) {
        --account.above[height];
        return;
    }
    ++account.put.fresh;
    add_above(account, tree, height + 1);
}

// ---- erasures ----

void RoomEstimate::erase(const Tree& tree, const std::byte* key, const Lookup& stored) {
    const TreeShape& shape = tree.shape();
    Account& account = this->account(tree);
    ++account.erasures;
    bool first = false;
    Node& leaf = node(stored.leaf, first);
    const LeafLayout& layout = shape.leaf;
    if (first) {
        leaf.used_bytes = leaf_used_bytes(LeafView(stored.leaf_bytes, layout), layout);
        ++account.erased_from;
        ++account.erased_leaves;
    }
    const std::uint32_t row =
        layout.variable ? row_cost(layout, stored.found ? stored.value.size() : kRowBytesMax)
                        : layout.key_bytes + layout.value_bytes;
    leaf.used_bytes -= std::min(leaf.used_bytes, row);
    const Tree::Way way = tree.way_to(key);
    account.merges |= way.depth > 1 && underfull(leaf.used_bytes, leaf_space_bytes(layout));
    for (std::uint32_t i = 0; i + 1 < way.depth; ++i) {
        node(way.step[i].page, first);
        if (first) ++account.erased_from;
        const std::uint32_t children = way.step[i].children;
        account.merges |= i == 0 ? children < 2 : underfull(children, shape.inner.capacity);
    }
}

void RoomEstimate::erase_range(const Tree& tree, const RangeCost& cost) {
    Account& account = this->account(tree);
    ++account.ranges;
    account.range_pages += cost.pages;
    beside_.value_runs += cost.value_runs;
}

// ---- sums ----

Room RoomEstimate::of(const Account& account) {
    if (account.erasures == 0 && account.ranges == 0) return account.put;
    const std::uint64_t depth = account.depth;
    if (account.puts == 0 && account.ranges == 0) {
        if (!account.merges) return {account.erased_leaves, 0, 0, 0, 0};
        return {account.erased_from + account.erasures * (depth - 1), 0, account.erasures * depth};
    }
    if (account.puts == 0 && account.erasures == 0 && account.ranges == 1) {
        const std::uint64_t pages = account.range_pages + 4 * depth;
        return {pages, 0, pages};
    }
    const std::uint64_t higher = depth + 2;
    const std::uint64_t erased =
        account.range_pages + 4 * higher * account.ranges + 2 * higher * account.erasures;
    return {erased + higher * account.puts, (2 * higher + 1) * account.puts, erased};
}

Room RoomEstimate::total() const {
    Room sum = beside_;
    for (const Account& account : accounts_) sum += of(account);
    return sum;
}

}  // namespace bidstore
