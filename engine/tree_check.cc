#include "engine/tree_check.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/btree.h"
#include "engine/leaf_edit.h"

namespace bidstore {

namespace {

using Key = std::array<std::byte, kKeyBytesMax>;

constexpr const char* kMissing = "the page is not there";

const char* times_fault(const LeafView& rows, const Schema& schema) {
    const bool none = schema.time_column() == kNoTimeColumn || rows.empty();
    if (none && (rows.time_min() != 0 || rows.time_max() != 0)) {
        return "a leaf without times has time bounds";
    }
    for (std::uint32_t row = 0; !none && row < rows.count(); ++row) {
        const std::uint64_t time = schema.time_of(rows.key(row), rows.value(row));
        if (time < rows.time_min() || time > rows.time_max()) {
            return "a row's time is outside the leaf's time bounds";
        }
    }
    return nullptr;
}

const char* content_fault(const std::byte* page, const Schema& schema, const LeafLayout& layout) {
    if (const char* fault = leaf_layout_fault(page, layout)) return fault;
    const std::uint8_t shift = page_header(page).time_shift;  // 0: whoever made it did not say
    if (shift != 0 && shift != leaf_time_shift(schema)) return "a leaf's times have another unit";
    const LeafView rows(page, layout);
    for (std::uint32_t row = 0; row < rows.count(); ++row) {
        if (row > 0 && compare_keys(rows.key(row - 1), rows.key(row), layout.key_bytes) >= 0) {
            return "keys of a leaf do not rise";
        }
        if (!layout.variable) continue;
        if (const char* fault = stored_value_fault(schema, rows.value(row))) return fault;
    }
    return times_fault(rows, schema);
}

class Checker {
  public:
    Checker(const Schema& schema, TableId table,
            const std::function<const std::byte*(PageId)>& source,
            const std::function<void(PageId)>& visit, const ValueCheck& values)
        : schema_(schema), shape_(schema, table), source_(source), visit_(visit), values_(values) {}

    TreeReport run(PageId root) {
        const std::byte* bytes = source_(root);
        if (bytes == nullptr) {
            // Asked for again it may come, and have another level than was thought.
            if (visit_) visit_(root);
            broken(root, kMissing, true);
            report_.depth = 1;
            return std::move(report_);
        }
        const int level = tree_level(bytes, shape_.table);
        floor_ = page_header(bytes).floor;
        report_.depth = level < 0 ? 0 : static_cast<std::uint32_t>(level) + 1;
        check_page(root, level < 0 ? 0 : level, nullptr, nullptr, true);
        return std::move(report_);
    }

    std::string run_leaf(PageId page, const std::byte* lo, const std::byte* hi, bool root,
                         std::uint64_t floor) {
        floor_ = floor;
        check_page(page, 0, lo, hi, root);
        return std::move(report_.broken);
    }

  private:
    bool broken(PageId page, std::string what, bool missing = false) {
        if (report_.broken.empty()) {
            report_.broken = what;
            report_.page = page;
        }
        if (report_.all.size() < TreeReport::kBrokenMost) {
            report_.all.push_back({page, std::move(what), missing});
        } else {
            ++report_.more;
        }
        return false;
    }
    int compare(const std::byte* left, const std::byte* right) const {
        return compare_keys(left, right, shape_.leaf.key_bytes);
    }

    // Keys of the page are at or above lo and below hi; nullptr is no bound.
    bool check_page(PageId page, int level, const std::byte* lo, const std::byte* hi, bool root);
    bool check_inner(PageId page, const std::byte* source, int level, const std::byte* lo,
                     const std::byte* hi);
    bool check_leaf(PageId page, const std::byte* bytes, const std::byte* lo, const std::byte* hi,
                    bool root);
    bool check_values(PageId page, const std::byte* key, std::span<const std::byte> value);

    const Schema& schema_;
    const TreeShape shape_;
    const std::function<const std::byte*(PageId)>& source_;
    const std::function<void(PageId)>& visit_;
    const ValueCheck& values_;
    std::uint64_t floor_ = 0;
    std::unordered_set<std::uint32_t> seen_;
    TreeReport report_;
};

bool Checker::check_page(PageId page, int level, const std::byte* lo, const std::byte* hi,
                         bool root) {
    if (!seen_.insert(page.value).second) return broken(page, "the page is in the tree twice");
    if (visit_) visit_(page);
    const std::byte* bytes = source_(page);
    if (bytes == nullptr) return broken(page, kMissing, true);
    if (page_header(bytes).page_id != page.value) return broken(page, "it carries another page id");
    if (tree_level(bytes, shape_.table) != level) {
        return broken(page, "type, table or level is not what its parent says");
    }
    return level > 0 ? check_inner(page, bytes, level, lo, hi)
                     : check_leaf(page, bytes, lo, hi, root);
}

bool Checker::check_inner(PageId page, const std::byte* source, int level, const std::byte* lo,
                          const std::byte* hi) {
    ++report_.inner_nodes;
    // Its children are read while it is still needed.
    const std::vector<std::byte> copy(source, source + kPageBytes);
    const std::byte* bytes = copy.data();
    const InnerView node(bytes, shape_.inner);
    const std::uint32_t count = page_header(bytes).count;
    if (const char* fault = inner_node_fault(bytes, shape_.inner, lo, hi)) {
        return broken(page, fault);
    }
    std::vector<Key> keys(count);
    for (std::uint32_t i = 0; i < count; ++i) node.copy_key(i, keys[i].data());
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::byte* child_lo = i == 0 ? lo : keys[i].data();
        const std::byte* child_hi = i + 1 == count ? hi : keys[i + 1].data();
        check_page(node.child(i), level - 1, child_lo, child_hi, false);
    }
    return true;
}

bool Checker::check_leaf(PageId page, const std::byte* bytes, const std::byte* lo,
                         const std::byte* hi, bool root) {
    const LeafView rows(bytes, shape_.leaf);
    const std::uint32_t count = page_header(bytes).count;
    if (count == 0 && !root) return broken(page, "an empty leaf was not freed");
    if (const char* fault = content_fault(bytes, schema_, shape_.leaf)) return broken(page, fault);
    for (std::uint32_t row = 0; row < count; ++row) {
        const std::byte* key = rows.key(row);
        if ((lo != nullptr && compare(key, lo) < 0) || (hi != nullptr && compare(key, hi) >= 0)) {
            return broken(page, "a row is outside the leaf's fences");
        }
        if (!check_values(page, key, rows.value(row))) return false;
    }
    ++report_.leaves;
    report_.rows += count;
    report_.used_bytes += leaf_used_bytes(rows, shape_.leaf);
    report_.space_bytes += leaf_space_bytes(shape_.leaf);
    return true;
}

// What it has in extents.
bool Checker::check_values(PageId page, const std::byte* key, std::span<const std::byte> value) {
    if (!schema_.live(key, value, floor_)) return true;  // its references lead nowhere
    std::string fault;
    const std::uint32_t newest = newest_of_row(schema_, key, value);
    RowView(schema_, value).each_reference([&](std::uint32_t, const ValueReference& reference) {
        ++report_.large_values;
        if (values_ && fault.empty()) fault = values_(key, reference, newest);
    });
    return fault.empty() || broken(page, fault);
}

}  // namespace

const char* tree_page_fault(const std::byte* page, const Schema& schema, const TreeShape& shape) {
    const int level = tree_level(page, shape.table);
    if (level < 0) return "its type is no tree's, or its level is another type's";
    return level > 0 ? inner_node_fault(page, shape.inner, nullptr, nullptr)
                     : content_fault(page, schema, shape.leaf);
}

std::string leaf_fault(const Schema& schema, TableId table, PageId page, const std::byte* bytes,
                       const std::byte* lo, const std::byte* hi, bool root,
                       const ValueCheck& values, std::uint64_t floor) {
    const std::function<const std::byte*(PageId)> itself = [&](PageId) { return bytes; };
    return Checker(schema, table, itself, nullptr, values).run_leaf(page, lo, hi, root, floor);
}

const char* inner_node_fault(const std::byte* page, const InnerLayout& layout, const std::byte* lo,
                             const std::byte* hi) {
    const InnerView node(page, layout);
    const std::uint32_t count = page_header(page).count;
    if (count == 0) return "an inner node has no children";
    if (count > layout.capacity) return "an inner node has too many children";
    const std::uint32_t key_bytes = layout.key_bytes;
    Key before;
    Key key;
    for (std::uint32_t i = 0; i < count; ++i) {
        node.copy_key(i, key.data());
        std::uint64_t sample = 0;
        std::memcpy(&sample, page + kSamplesOffset + 8 * (i / kHeadsPerSample), sizeof sample);
        if (i % kHeadsPerSample == 0 && sample != node.head(i)) {
            return "a sample is not the head it stands for";
        }
        if (i > 1 && compare_keys(before.data(), key.data(), key_bytes) >= 0) {
            return "keys of an inner node do not rise";
        }
        if (i > 0 && ((lo != nullptr && compare_keys(key.data(), lo, key_bytes) <= 0) ||
                      (hi != nullptr && compare_keys(key.data(), hi, key_bytes) >= 0))) {
            return "a key of an inner node is outside its fences";
        }
        before = key;
    }
    return nullptr;
}

TreeReport check_tree(const Schema& schema, TableId table, PageId root,
                      const std::function<const std::byte*(PageId)>& source,
                      const std::function<void(PageId)>& visit, const ValueCheck& values) {
    return Checker(schema, table, source, visit, values).run(root);
}

}  // namespace bidstore
