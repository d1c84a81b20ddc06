// How much room the row changes of one transaction may take at most: page versions, new pages,
// freed pages. Counted while the transaction is evaluated, before anything is changed.
//
// Why it is a bound, for a tree that is only put to: rows that fall to the same leaf before the
// transaction fall to that leaf and those split off from it ever after, its family.
//   leaf   The first rows that fit its free space split nothing. Each later one splits one leaf of
//          the family at most, into two, or three when rows have variable length.
//   inner  Each new leaf gives a child to the family of the leaf's parent. The first that fit the
//          parent's free places split nothing; each later one splits one node, and gives a child
//          to the family of the parent's parent.
//   root   One that is full moves down a level: one page more, and a new root with places left.
// So pages changed are the leaves, and the inner nodes that get a child; the others are new.
// Replacing a row counts with the bytes that it grows by.
//
// A tree that is only erased from: a leaf that stays above kUnderfullPercent whatever is erased,
// under inner nodes that are above it, changes alone. Otherwise each erasure may merge a node with
// a neighbour on every level below the root.
// A tree that is both put to and erased from, or has a range erased: each operation for itself at
// its worst, in a tree two levels higher, for so much it may grow meanwhile.
//
// Who:    the engine thread; one object, used for one transaction after the other.
// Cost:   a look into a hash table for each row; a descent for a row that splits, or is erased.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/btree.h"

namespace bidstore {

// What a change may take.
struct Room {
    std::uint64_t changed = 0;  // pages that exist and get a new version
    std::uint64_t fresh = 0;    // new pages
    std::uint64_t freed = 0;    // of both
    std::uint64_t extent_pages = 0;  // new pages of large values: they never need the journal
    std::uint64_t value_runs = 0;    // of extents taken or freed: each may change chunk metadata

    Room& operator+=(const Room& other) {
        changed += other.changed;
        fresh += other.fresh;
        freed += other.freed;
        extent_pages += other.extent_pages;
        value_runs += other.value_runs;
        return *this;
    }
};

class RoomEstimate {
  public:
    RoomEstimate();

    void reset();
    // The row with this key is put or erased; `stored` is what tree.get(key) found, in the tree as
    // it is before the transaction, with all of its way resident.
    void put(const Tree& tree, const std::byte* key, std::size_t value_bytes, const Lookup& stored);
    void erase(const Tree& tree, const std::byte* key, const Lookup& stored);
    // A range is erased; `cost` is what tree.range_cost() found.
    void erase_range(const Tree& tree, const RangeCost& cost);
    // Pages beside the trees.
    void add(const Room& room) { beside_ += room; }

    Room total() const;

  private:
    // A page of a tree as it is before the transaction.
    struct Node {
        std::uint32_t page = 0;
        std::uint32_t stamp = 0;       // the transaction that it belongs to
        std::uint32_t free = 0;        // bytes (leaf, rows of variable length), rows or children
        std::uint32_t used_bytes = 0;  // leaf: what stays when all erasures are done
        bool over = false;             // leaf: a row did not fit
    };
    struct Account {
        PageId root;
        std::uint32_t depth = 0;
        std::uint64_t puts = 0;
        std::uint64_t erasures = 0;
        std::uint64_t ranges = 0;
        std::uint64_t range_pages = 0;
        Room put;
        std::uint64_t erased_from = 0;  // distinct pages on the ways of erasures
        std::uint64_t erased_leaves = 0;
        bool merges = false;
        // Free places of the roots that are to come above the one there is.
        std::array<std::uint32_t, kDepthMax> above{};
        std::uint32_t above_count = 0;
    };

    Account& account(const Tree& tree);
    Node& node(PageId page, bool& first);
    void grow_table();
    void add_child(Account& account, const Tree& tree, const Tree::Way& way, std::uint32_t at);
    void add_above(Account& account, const Tree& tree, std::uint32_t height);
    static Room of(const Account& account);

    std::vector<Node> nodes_;  // open addressing, a power of two, at most half full
    std::uint32_t in_use_ = 0;
    std::uint32_t stamp_ = 0;
    std::vector<Account> accounts_;
    Room beside_;
};

}  // namespace bidstore
