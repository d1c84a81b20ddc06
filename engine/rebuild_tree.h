// One table of a damaged file: which of its leaves are there, in the order of their keys, and new
// inner nodes above them. A step of a rebuild (engine/rebuild.h).
//
// The walk down from the root finds what the tree refers to. Where an inner node is lost, what is
// below it has nobody who refers to it: an orphan. Orphans are taken when they are leaves of this
// table whose keys lie in such a gap,
//   1. that are proven (engine/rebuild_survey.h), or that a proven inner node refers to;
//   2. then those with nothing but a CRC of their own, the newest first, each where no leaf has its
//      keys yet. These may be leaves that were freed: nothing is left that could tell.
//
// Who:    a rebuild, one table after another.
// Errors: what is lost is said by the keys that it had, as far as what refers to it is there.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/page/search.h"
#include "engine/rebuild_survey.h"

namespace bidstore {

using KeyBytes = std::vector<std::byte>;

// Keys from `low` on and below `high`; empty: no bound.
struct KeySpan {
    KeyBytes low;
    KeyBytes high;
};

// The key behind this one; empty: there is none.
KeyBytes key_after(KeyBytes key);

struct LostPage {
    PageId page;
    std::uint32_t level = 0;  // 0: a leaf
    bool root = false;        // its level is not known
    KeySpan keys;
    std::string why;
};

struct FoundLeaf {
    PageId page;
    KeyBytes first;
    bool proven = true;
    KeyBytes last;  // of an orphan
};

class TableSalvage {
  public:
    // A page belongs to one table, once.
    struct Owners {
        std::function<bool(PageId page)> free;
        std::function<void(PageId page)> take;
    };

    TableSalvage(Survey& survey, const Schema& schema, TableId table, PageId root, Owners owners);

    void run();

    TableId table() const { return shape_.table; }
    const Schema& schema() const { return schema_; }
    const TreeShape& shape() const { return shape_; }
    PageId root() const { return root_; }
    // What is lost: leaves, each with its keys; and inner nodes, whose keys are gaps.
    const std::vector<LostPage>& lost() const { return lost_; }
    // The inner nodes among them.
    std::vector<LostPage> gaps() const;
    bool root_lost() const { return root_lost_; }
    std::uint64_t floor() const { return floor_; }
    void set_floor(std::uint64_t floor) { floor_ = floor; }
    // In the order of keys. The root itself, when it is the only one.
    std::vector<FoundLeaf>& leaves() { return leaves_; }
    const std::vector<FoundLeaf>& leaves() const { return leaves_; }
    // Leaves that nothing proves, with keys that another one has: one of them was freed.
    const std::vector<FoundLeaf>& left_out() const { return left_out_; }
    // That were there; free for others once the tree is made anew.
    const std::vector<PageId>& inner_nodes() const { return inner_nodes_; }

    // New inner nodes above the leaves, and the root, as images: a page's id, and its bytes. Leaves
    // that are `edited` are taken from there. The leaf that becomes the root is given back.
    struct Pages {
        std::function<PageId()> take;
        std::function<void(PageId page)> give_back;
        std::function<std::byte*(PageId page)> image;       // to be filled: zeros
        std::function<const std::byte*(PageId page)> leaf;  // as it is to be
    };
    void build(const Pages& pages, Csn csn) const;
    // The header of one, but for its type; `bytes` are zeros, or a page of the table.
    void start_page(std::byte* bytes, PageId page, Csn csn) const;

  private:
    struct Orphan {
        FoundLeaf leaf;
        std::uint64_t csn = 0;
    };

    void walk(PageId page, int level, const KeySpan& keys);
    void lose(PageId page, int level, const KeySpan& keys, std::string why);
    void take_leaf(PageId page, const std::byte* bytes, const KeySpan& keys);
    void adopt_orphans();
    void walk_orphans(const std::vector<LostPage>& gaps);
    void find_orphans(const std::vector<LostPage>& gaps);
    void take_orphans();
    void look_at_orphan(PageId page, const PageFact& fact, const std::vector<LostPage>& gaps);
    const LostPage* gap_of(const std::vector<LostPage>& gaps, const KeyBytes& key) const;
    bool within(const KeySpan& keys, const KeyBytes& first, const KeyBytes& last) const;
    int compare(const KeyBytes& left, const KeyBytes& right) const {
        return compare_keys(left.data(), right.data(), shape_.leaf.key_bytes);
    }
    KeyBytes key_of(const std::byte* key) const { return {key, key + shape_.leaf.key_bytes}; }
    void fill_root_leaf(const Pages& pages, Csn csn) const;

    Survey& survey_;
    const Schema schema_;
    const TreeShape shape_;
    const PageId root_;
    const Owners owners_;
    bool root_lost_ = false;
    std::uint64_t floor_ = 0;
    std::vector<LostPage> lost_;
    std::vector<FoundLeaf> leaves_;
    std::vector<FoundLeaf> left_out_;
    std::vector<PageId> inner_nodes_;
    std::vector<Orphan> orphans_;
    bool walking_orphans_ = false;  // leaves go there, not to leaves_
};

}  // namespace bidstore
