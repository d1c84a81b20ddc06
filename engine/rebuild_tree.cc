#include "engine/rebuild_tree.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <utility>

#include "engine/inner_edit.h"
#include "engine/leaf_edit.h"
#include "engine/space.h"
#include "engine/tree_check.h"
#include "shm/version_writer.h"

namespace bidstore {
namespace {

using Child = std::pair<KeyBytes, PageId>;

}  // namespace

KeyBytes key_after(KeyBytes key) {
    for (std::size_t i = key.size(); i > 0; --i) {
        key[i - 1] = static_cast<std::byte>(std::to_integer<unsigned>(key[i - 1]) + 1);
        if (key[i - 1] != std::byte{0}) return key;
    }
    return {};
}

TableSalvage::TableSalvage(Survey& survey, const Schema& schema, TableId table, PageId root,
                           Owners owners)
    : survey_(survey),
      schema_(schema),
      shape_(schema_, table),
      root_(root),
      owners_(std::move(owners)) {}

void TableSalvage::run() {
    walk(root_, -1, {});
    if (!gaps().empty()) adopt_orphans();
}

std::vector<LostPage> TableSalvage::gaps() const {
    std::vector<LostPage> found;
    for (const LostPage& page : lost_) {
        if (page.level > 0 || page.root) found.push_back(page);
    }
    return found;
}

// ---- down from the root ----

void TableSalvage::lose(PageId page, int level, const KeySpan& keys, std::string why) {
    root_lost_ = root_lost_ || level < 0;
    lost_.push_back(
        {page, static_cast<std::uint32_t>(std::max(level, 0)), level < 0, keys, std::move(why)});
}

// `level`: what the parent says; -1 for the root, which may be of any.
void TableSalvage::walk(PageId page, int level, const KeySpan& keys) {
    if (page.value >= survey_.page_count() || Space::fixed(page)) {
        return lose(page, level, keys, "no page of a tree can be there");
    }
    if (!owners_.free(page)) return lose(page, level, keys, "something else has it, too");
    const std::byte* bytes = survey_.page(page);
    if (bytes == nullptr) return lose(page, level, keys, "it is not the page of the checkpoint");
    const int own = tree_level(bytes, shape_.table);
    if (own < 0 || (level >= 0 && own != level)) {
        return lose(page, level, keys, "type, table or level is not what its parent says");
    }
    if (own == 0) return take_leaf(page, bytes, keys);
    const std::vector<std::byte> copy(bytes, bytes + kPageBytes);
    const char* const fault =
        inner_node_fault(copy.data(), shape_.inner, key_bound(keys.low), key_bound(keys.high));
    if (fault != nullptr) return lose(page, level, keys, fault);
    if (level < 0) floor_ = floor_of(copy.data());
    owners_.take(page);
    inner_nodes_.push_back(page);
    const InnerView node(copy.data(), shape_.inner);
    KeySpan child = {keys.low, {}};
    for (std::uint32_t i = 0; i < node.count(); ++i) {
        child.high = keys.high;
        if (i + 1 < node.count()) {
            child.high.resize(shape_.leaf.key_bytes);
            node.copy_key(i + 1, child.high.data());
        }
        walk(node.child(i), own - 1, child);
        child.low = child.high;
    }
}

bool TableSalvage::within(const KeySpan& keys, const KeyBytes& first, const KeyBytes& last) const {
    return (keys.low.empty() || compare(first, keys.low) >= 0) &&
           (keys.high.empty() || compare(last, keys.high) < 0);
}

void TableSalvage::take_leaf(PageId page, const std::byte* bytes, const KeySpan& keys) {
    const bool root = page == root_;
    const std::string fault = leaf_fault(schema_, shape_.table, page, bytes, key_bound(keys.low),
                                         key_bound(keys.high), root);
    if (!fault.empty()) return lose(page, root ? -1 : 0, keys, fault);
    if (root) floor_ = floor_of(bytes);
    const LeafView rows(bytes, shape_.leaf);
    if (rows.empty()) return owners_.take(page);
    const KeyBytes first = key_of(rows.key(0));
    const KeyBytes last = key_of(rows.key(rows.count() - 1));
    if (walking_orphans_) {
        orphans_.push_back({{page, first, true, last}, survey_.fact(page).csn});
        return;
    }
    owners_.take(page);
    leaves_.push_back({page, first, true, {}});
}

// ---- orphans ----

const LostPage* TableSalvage::gap_of(const std::vector<LostPage>& gaps, const KeyBytes& key) const {
    const auto found = std::find_if(
        gaps.begin(), gaps.end(), [&](const LostPage& gap) { return within(gap.keys, key, key); });
    return found == gaps.end() ? nullptr : &*found;
}

void TableSalvage::adopt_orphans() {
    const std::vector<LostPage> found = gaps();
    walking_orphans_ = true;
    walk_orphans(found);
    walking_orphans_ = false;
    find_orphans(found);
    take_orphans();
    std::sort(leaves_.begin(), leaves_.end(), [&](const FoundLeaf& left, const FoundLeaf& right) {
        return compare(left.first, right.first) < 0;
    });
}

// Down from proven inner nodes that nobody refers to, the highest ones first.
void TableSalvage::walk_orphans(const std::vector<LostPage>& gaps) {
    std::vector<PageId> nodes;
    for (PageId page{0}; page.value < survey_.page_count(); ++page.value) {
        const PageFact& fact = survey_.fact(page);
        if (fact.type != PageType::kInner || fact.table != shape_.table.value) continue;
        if (fact.proof == Proof::kRemembered) nodes.push_back(page);
    }
    std::stable_sort(nodes.begin(), nodes.end(), [&](PageId left, PageId right) {
        return survey_.fact(left).level > survey_.fact(right).level;
    });
    for (const PageId page : nodes) {
        const std::byte* bytes = owners_.free(page) ? survey_.page(page) : nullptr;
        if (bytes == nullptr) continue;
        const InnerView node(bytes, shape_.inner);
        if (node.count() == 0) continue;
        KeyBytes key(shape_.leaf.key_bytes);
        node.copy_key(std::min(node.count() - 1, 1u), key.data());  // key 0 may be any
        const LostPage* const gap = gap_of(gaps, key);
        if (gap != nullptr) walk(page, survey_.fact(page).level, gap->keys);
    }
}

// All other leaves of the table with keys in a gap.
void TableSalvage::find_orphans(const std::vector<LostPage>& gaps) {
    std::vector<PageId> walked;
    for (const Orphan& orphan : orphans_) walked.push_back(orphan.leaf.page);
    std::sort(walked.begin(), walked.end());
    for (PageId page{0}; page.value < survey_.page_count(); ++page.value) {
        const PageFact& fact = survey_.fact(page);
        if (fact.type != PageType::kLeaf || fact.table != shape_.table.value) continue;
        if (fact.level != 0 || !owners_.free(page)) continue;
        if (std::binary_search(walked.begin(), walked.end(), page)) continue;
        look_at_orphan(page, fact, gaps);
    }
}

// One that is proven, and cannot be used where it has keys of a gap, is lost.
void TableSalvage::look_at_orphan(PageId page, const PageFact& fact,
                                  const std::vector<LostPage>& gaps) {
    const bool proven = fact.proof == Proof::kRemembered;
    const std::byte* const bytes = survey_.page(page);
    if (bytes == nullptr) return;
    const std::string fault =
        leaf_fault(schema_, shape_.table, page, bytes, nullptr, nullptr, true);
    if (!fault.empty()) {  // what keys it has is as little known
        for (const LostPage& gap : gaps) {
            if (proven) lose(page, 0, gap.keys, fault);
        }
        return;
    }
    const LeafView rows(bytes, shape_.leaf);
    if (rows.empty()) return;
    const KeyBytes first = key_of(rows.key(0));
    const KeyBytes last = key_of(rows.key(rows.count() - 1));
    for (const LostPage& gap : gaps) {
        if (within(gap.keys, first, last)) {
            orphans_.push_back({{page, first, proven, last}, fact.csn});
            return;
        }
    }
    const KeySpan keys{first, key_after(last)};
    const bool touches = std::any_of(gaps.begin(), gaps.end(), [&](const LostPage& gap) {
        return (gap.keys.high.empty() || compare(first, gap.keys.high) < 0) &&
               (gap.keys.low.empty() || compare(last, gap.keys.low) >= 0);
    });
    if (proven && touches) lose(page, 0, keys, "it has keys of several inner nodes");
}

// Proven ones before others, then the newest before older ones.
void TableSalvage::take_orphans() {
    std::stable_sort(orphans_.begin(), orphans_.end(), [](const Orphan& left, const Orphan& right) {
        if (left.leaf.proven != right.leaf.proven) return left.leaf.proven;
        return left.csn > right.csn;
    });
    const auto below = [this](const KeyBytes& left, const KeyBytes& right) {
        return compare_keys(left.data(), right.data(), shape_.leaf.key_bytes) < 0;
    };
    std::map<KeyBytes, KeyBytes, decltype(below)> taken(below);  // first and last key
    for (const Orphan& orphan : orphans_) {
        const auto next = taken.lower_bound(orphan.leaf.first);
        const bool apart =
            (next == taken.end() || below(orphan.leaf.last, next->first)) &&
            (next == taken.begin() || below(std::prev(next)->second, orphan.leaf.first));
        if (apart && owners_.free(orphan.leaf.page)) {
            taken.emplace(orphan.leaf.first, orphan.leaf.last);
            owners_.take(orphan.leaf.page);
            leaves_.push_back(orphan.leaf);
        } else if (orphan.leaf.proven) {
            lose(orphan.leaf.page, 0, {orphan.leaf.first, key_after(orphan.leaf.last)},
                 "another leaf has some of its keys, too");
        } else if (!apart) {
            left_out_.push_back(orphan.leaf);
        }
    }
    orphans_.clear();
}

// ---- the tree made anew ----

void TableSalvage::start_page(std::byte* bytes, PageId page, Csn csn) const {
    PageHeader& header = page_header(bytes);
    VersionWriter::stamp(bytes, csn.value);
    header.page_id = page.value;
    header.file_uuid = survey_.file_uuid();
    header.table_id = shape_.table.value;
    if (page == root_) header.floor = floor_;
}

// A tree of one leaf is its root; of no leaf, an empty one.
void TableSalvage::fill_root_leaf(const Pages& pages, Csn csn) const {
    std::vector<std::byte> from;
    if (!leaves_.empty()) {
        const std::byte* const bytes = pages.leaf(leaves_[0].page);
        from.assign(bytes, bytes + kPageBytes);
        if (leaves_[0].page != root_) pages.give_back(leaves_[0].page);
    }
    std::byte* const root = pages.image(root_);
    if (from.empty()) {
        LeafEdit(root, shape_.leaf, schema_).init();
    } else {
        std::memcpy(root, from.data(), kPageBytes);
    }
    start_page(root, root_, csn);
}

void TableSalvage::build(const Pages& pages, Csn csn) const {
    if (leaves_.size() <= 1) return fill_root_leaf(pages, csn);
    std::vector<Child> children;
    for (const FoundLeaf& leaf : leaves_) children.emplace_back(leaf.first, leaf.page);
    const auto fill = [&](PageId page, std::uint32_t level, std::size_t first, std::size_t last) {
        std::byte* const bytes = pages.image(page);
        start_page(bytes, page, csn);
        InnerEdit node(bytes, shape_.inner);
        node.init(level);
        for (std::size_t i = first; i < last; ++i) {
            node.insert(node.count(), children[i].first.data(), children[i].second);
        }
    };
    std::uint32_t level = 1;
    for (; children.size() > shape_.inner.capacity; ++level) {
        const std::size_t nodes = (children.size() - 1) / shape_.inner.capacity + 1;
        std::vector<Child> above;
        for (std::size_t i = 0; i < nodes; ++i) {
            const std::size_t first = children.size() * i / nodes;
            const PageId page = pages.take();
            fill(page, level, first, children.size() * (i + 1) / nodes);
            above.emplace_back(children[first].first, page);
        }
        children = std::move(above);
    }
    fill(root_, level, 0, children.size());
}

}  // namespace bidstore
