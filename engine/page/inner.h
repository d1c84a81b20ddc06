// Inner nodes: which child holds a key, found in few cache lines.
//
//   header | samples u64[16] | heads u64[capacity] | tails [capacity] | children u32[capacity]
//
//   heads     the first 8 bytes of key i as a big-endian number (zero padded), stored as a number
//   samples   heads 0, 16, 32, …: two cache lines that lead to the right sixteen heads
//   tails     the other key_bytes - 8 bytes of key i; looked at only where heads are equal
//   children  page ids
//
// Child i covers the keys from key i (inclusive) to key i + 1 (exclusive). Key 0 counts as minus
// infinity, whatever its bytes: the bounds of the whole node are its parent's matter.
//
// Who, trust: as for leaves. count is clamped to capacity; a node of no children is corrupt, which
//             the descent says (engine/page/search.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/page/key.h"
#include "engine/page/page.h"

namespace bidstore {

inline constexpr std::uint32_t kSamples = 16;
inline constexpr std::uint32_t kHeadsPerSample = 16;
inline constexpr std::uint32_t kFanOutMax = kSamples * kHeadsPerSample;
inline constexpr std::uint32_t kSamplesOffset = kPageHeaderBytes;
inline constexpr std::uint32_t kHeadsOffset = kSamplesOffset + 8 * kSamples;

// Where things are in a table's inner nodes. Follows from the key's length alone.
struct InnerLayout {
    std::uint32_t key_bytes = 1;
    std::uint32_t tail_bytes = 0;
    std::uint32_t capacity = 2;  // children; at least 57, at most kFanOutMax
    std::uint32_t tails_offset = 0;
    std::uint32_t children_offset = 0;

    static InnerLayout of(std::uint32_t key_bytes);
};

class InnerView {
  public:
    InnerView(const std::byte* page, const InnerLayout& layout)
        : page_(page), layout_(&layout), count_(clamped_count(page, layout)) {}

    std::uint32_t count() const { return count_; }

    // The child that covers `key`, as an index and as a page. 0 for a node of no children.
    std::uint32_t index_for(const std::byte* key) const;
    PageId child_for(const std::byte* key) const { return child(index_for(key)); }

    // `index` below count().
    PageId child(std::uint32_t index) const {
        return PageId{load_once<std::uint32_t>(page_ + layout_->children_offset + 4 * index)};
    }
    std::uint64_t head(std::uint32_t index) const { return word(kHeadsOffset + 8 * index); }
    const std::byte* tail(std::uint32_t index) const {
        return page_ + layout_->tails_offset + std::size_t{index} * layout_->tail_bytes;
    }
    // Writes key_bytes bytes.
    void copy_key(std::uint32_t index, std::byte* to) const;

  private:
    static std::uint32_t clamped_count(const std::byte* page, const InnerLayout& layout) {
        const std::uint32_t count = load_once<std::uint16_t>(page + offsetof(PageHeader, count));
        return count < layout.capacity ? count : layout.capacity;
    }
    // Heads need no load_once: what is concluded from them is in bounds whatever they are.
    std::uint64_t word(std::uint32_t offset) const {
        std::uint64_t loaded = 0;
        racy_copy(&loaded, page_ + offset, sizeof loaded);
        return loaded;
    }
    std::uint32_t heads_below(std::uint64_t wanted) const;
    std::uint32_t first_above(std::uint32_t from, std::uint64_t head, const std::byte* tail) const;

    const std::byte* page_;
    const InnerLayout* layout_;
    std::uint32_t count_;
};

// How many heads are below `wanted`, head 0 always counted. The samples choose sixteen heads, so
// four cache lines of the 24 that hold heads are touched; the counting loops have no branch that
// depends on the data. The first of the sixteen is below `wanted`, as its sample is (or is head 0).
inline std::uint32_t InnerView::heads_below(std::uint64_t wanted) const {
    const std::uint32_t samples = (count_ + kHeadsPerSample - 1) / kHeadsPerSample;
    std::uint32_t block = 0;
    for (std::uint32_t i = 1; i < samples; ++i) {
        block += word(kSamplesOffset + 8 * i) < wanted ? 1u : 0u;
    }
    const std::uint32_t first = block * kHeadsPerSample;
    const std::uint32_t left = count_ - first;
    const std::uint32_t heads = left < kHeadsPerSample ? left : kHeadsPerSample;
    std::uint32_t below = first + 1;
    for (std::uint32_t i = 1; i < heads; ++i) below += head(first + i) < wanted ? 1u : 0u;
    return below;
}

inline std::uint32_t InnerView::index_for(const std::byte* key) const {
    const std::uint64_t wanted = key_head(key, layout_->key_bytes);
    std::uint32_t above = heads_below(wanted);  // becomes the first child whose key is above
    if (above < count_ && head(above) == wanted) {
        above = layout_->tail_bytes == 0 ? above + 1 : first_above(above, wanted, key + 8);
    }
    return above - 1;
}

}  // namespace bidstore
