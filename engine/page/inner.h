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

    // The same in two halves, so that the misses of many searches overlap: the sixteen heads where
    // a search ends, which are fetched with their tails and children; then the search itself. Both
    // of a node that has children.
    struct Blocks {
        std::uint32_t below = 0;      // holds the last head below the one wanted
        std::uint32_t not_above = 0;  // holds the last head not above it; at least `below`
    };
    Blocks aim(const std::byte* key) const;
    std::uint32_t index_for(const std::byte* key, const Blocks& blocks) const;

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
    Blocks blocks_for(std::uint64_t wanted) const;
    void prefetch_block(std::uint32_t block) const;
    // How many heads fulfil `counts`, those before `block` and its first one included.
    template <class Counts>
    std::uint32_t count_heads(std::uint32_t block, Counts counts) const;
    std::uint32_t first_above(std::uint32_t from, std::uint32_t to, const std::byte* tail) const;

    const std::byte* page_;
    const InnerLayout* layout_;
    std::uint32_t count_;
};

// The last of up to sixteen numbers, in order, that fulfils `counts`; number 0 counts whatever it
// is. Four steps without a branch: how often a loop runs would be guessed wrong at many a node.
template <class Counts>
inline std::uint32_t last_of_sixteen(std::uint32_t numbers, Counts counts) {
    std::uint32_t last = 0;
    for (std::uint32_t step : {8u, 4u, 2u, 1u}) {
        const std::uint32_t probe = last + step;
        const auto there = static_cast<unsigned>(probe < numbers);
        last += step * (there & static_cast<unsigned>(counts(probe)));
    }
    return last;
}
static_assert(kSamples == 16 && kHeadsPerSample == 16);

inline InnerView::Blocks InnerView::blocks_for(std::uint64_t wanted) const {
    const std::uint32_t samples = (count_ + kHeadsPerSample - 1) / kHeadsPerSample;
    const auto sample = [this](std::uint32_t i) { return word(kSamplesOffset + 8 * i); };
    return {last_of_sixteen(samples, [&](std::uint32_t i) { return sample(i) < wanted; }),
            last_of_sixteen(samples, [&](std::uint32_t i) { return sample(i) <= wanted; })};
}

// What a search may look at once it knows the block, all on its way at the same time: without this
// heads, tails and children are three misses, one after another.
[[gnu::always_inline]] inline void InnerView::prefetch_block(std::uint32_t block) const {
    const std::uint32_t first = block * kHeadsPerSample;
    prefetch_bytes(page_ + kHeadsOffset + 8 * first, 8 * kHeadsPerSample);
    prefetch_bytes(page_ + layout_->children_offset + 4 * first, 4 * kHeadsPerSample);
    if (layout_->tail_bytes != 8) return;
    prefetch_bytes(page_ + layout_->tails_offset + 8 * first, 8 * kHeadsPerSample);
}

template <class Counts>
inline std::uint32_t InnerView::count_heads(std::uint32_t block, Counts counts) const {
    const std::uint32_t first = block * kHeadsPerSample;
    return first + 1 + last_of_sixteen(count_ - first, [&](std::uint32_t i) {
               return counts(head(first + i));
           });
}

inline InnerView::Blocks InnerView::aim(const std::byte* key) const {
    const Blocks blocks = blocks_for(key_head(key, layout_->key_bytes));
    prefetch_block(blocks.below);
    if (blocks.not_above != blocks.below) prefetch_block(blocks.not_above);
    return blocks;
}

// The samples choose the sixteen heads where those below `wanted` end, and the sixteen where those
// equal to it end: mostly the same. So a search waits for samples, then for one block or two of
// heads with their tails and children. No branch depends on the data.
inline std::uint32_t InnerView::index_for(const std::byte* key, const Blocks& blocks) const {
    const std::uint64_t wanted = key_head(key, layout_->key_bytes);
    // From `equal` to `above` the heads are equal to the one wanted; then they are above it.
    const std::uint32_t equal =
        count_heads(blocks.below, [wanted](std::uint64_t head) { return head < wanted; });
    std::uint32_t above =
        count_heads(blocks.not_above, [wanted](std::uint64_t head) { return head <= wanted; });
    // Blocks of another count (under a dead lease) must not lead outside the node, nor to tails
    // beyond the page.
    above = above <= count_ ? above : count_;
    if (above > equal && layout_->tail_bytes != 0) above = first_above(equal, above, key + 8);
    return above - 1;
}

inline std::uint32_t InnerView::index_for(const std::byte* key) const {
    return count_ == 0 ? 0 : index_for(key, aim(key));
}

}  // namespace bidstore
