// Which keys a page holds, for messages about a page that cannot be read: told by the inner nodes
// above it.

#include <algorithm>
#include <array>

#include "clientlib/snapshot.h"

namespace bidstore {
namespace {

struct Fences {
    std::array<std::byte, kKeyBytesMax> lower{};  // inclusive
    std::array<std::byte, kKeyBytesMax> upper{};  // exclusive
    bool has_lower = false;
    bool has_upper = false;
};

class RangeSearch {
  public:
    RangeSearch(const TreeShape& shape, const PageSource& source, PageId wanted,
                const std::byte* near)
        : shape_(shape), source_(source), wanted_(wanted), near_(near) {}

    // Looks through the resident inner nodes below `page`, those near the key first. Levels fall,
    // so it ends whatever the pages hold, and the budget ends it soon.
    bool below(PageId page, int level, const Fences& fences) {
        if (budget_ == 0) return false;
        --budget_;
        const std::byte* bytes = source_(page);
        if (bytes == nullptr) return false;
        const int found = tree_level(bytes, shape_.table);
        if (found <= 0 || (level >= 0 && found != level)) return false;
        const InnerView node(bytes, shape_.inner);
        const std::uint32_t count = node.count();
        for (std::uint32_t i = 0; i < count; ++i) {
            if (node.child(i) != wanted_) continue;
            range_ = narrowed(fences, node, i);
            return true;
        }
        if (found == 1 || count == 0) return false;
        const std::uint32_t middle = node.index_for(near_);
        for (std::uint32_t step = 0; step < count; ++step) {
            for (const bool right : {true, false}) {
                if (step == 0 && !right) continue;
                if (right ? middle + step >= count : middle < step) continue;
                const std::uint32_t i = right ? middle + step : middle - step;
                if (below(node.child(i), found - 1, narrowed(fences, node, i))) return true;
            }
        }
        return false;
    }
    const Fences& range() const { return range_; }

  private:
    static Fences narrowed(Fences fences, const InnerView& node, std::uint32_t i) {
        if (i > 0) {
            node.copy_key(i, fences.lower.data());
            fences.has_lower = true;
        }
        if (i + 1 < node.count()) {
            node.copy_key(i + 1, fences.upper.data());
            fences.has_upper = true;
        }
        return fences;
    }

    const TreeShape& shape_;
    const PageSource& source_;
    PageId wanted_;
    const std::byte* near_;
    std::uint32_t budget_ = 10'000;  // nodes to look at: some milliseconds
    Fences range_;
};

std::string hex(const std::array<std::byte, kKeyBytesMax>& key, std::uint32_t key_bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string text = "0x";
    for (std::uint32_t i = 0; i < key_bytes; ++i) {
        const auto byte = std::to_integer<unsigned>(key[i]);
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

}  // namespace

std::string key_range_text(ReaderState& state, const TableInfo& table, PageId page,
                           const std::byte* near) {
    const PageId root = state.root(table);
    if (page == root) return "all keys";
    PageLookup last = PageLookup::kFound;
    const PageSource source(state, last);
    constexpr std::array<std::byte, kKeyBytesMax> kLeast{};
    RangeSearch search(*table.shape, source, page, near == nullptr ? kLeast.data() : near);
    const bool found = search.below(root, -1, Fences{});
    if (!found || !state.valid()) return "keys not known (pages above it are not in the pool)";
    const Fences& range = search.range();
    const std::uint32_t key_bytes = table.shape->leaf.key_bytes;
    const std::string lower = range.has_lower ? hex(range.lower, key_bytes) : "the first";
    const std::string upper =
        range.has_upper ? hex(range.upper, key_bytes) + " (exclusive)" : "the last";
    return "keys from " + lower + " up to " + upper;
}

}  // namespace bidstore
