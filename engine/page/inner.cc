#include "engine/page/inner.h"

#include "engine/page/schema.h"

namespace bidstore {

InnerLayout InnerLayout::of(std::uint32_t key_bytes) {
    CHECK(key_bytes >= 1);
    CHECK(key_bytes <= kKeyBytesMax);
    InnerLayout layout;
    layout.key_bytes = key_bytes;
    layout.tail_bytes = key_bytes > 8 ? key_bytes - 8 : 0;
    auto children_offset = [&](std::uint32_t children) {
        return static_cast<std::uint32_t>(
            align_up(kHeadsOffset + std::uint64_t{children} * (8 + layout.tail_bytes), 4));
    };
    std::uint32_t capacity = kFanOutMax;
    while (children_offset(capacity) + 4 * capacity > kPageBytes) --capacity;
    layout.capacity = capacity;
    layout.tails_offset = kHeadsOffset + 8 * capacity;
    layout.children_offset = children_offset(capacity);
    return layout;
}

void InnerView::copy_key(std::uint32_t index, std::byte* to) const {
    const std::uint64_t head = __builtin_bswap64(this->head(index));
    const std::uint32_t head_bytes = layout_->key_bytes - layout_->tail_bytes;
    std::memcpy(to, &head, head_bytes);
    racy_copy(to + head_bytes, tail(index), layout_->tail_bytes);
}

// Among the keys [from, to), which share the head: the first whose tail is above, or `to`. Such
// runs are short with good keys and the rule with a constant prefix, so the search is binary.
std::uint32_t InnerView::first_above(std::uint32_t from, std::uint32_t to,
                                     const std::byte* tail) const {
    if (layout_->tail_bytes == 8) {
        const std::uint64_t wanted = load_big_endian(tail);
        return from + first_not_less(to - from, [&](std::uint32_t i) {
                   return load_big_endian(this->tail(from + i)) <= wanted;
               });
    }
    return from + first_not_less(to - from, [&](std::uint32_t i) {
               return compare_keys(this->tail(from + i), tail, layout_->tail_bytes) <= 0;
           });
}

}  // namespace bidstore
