#include "engine/page/leaf.h"

#include "engine/page/schema.h"

namespace bidstore {

LeafLayout LeafLayout::fixed(std::uint32_t key_bytes, std::uint32_t value_bytes) {
    // Up to 7 bytes of padding behind the keys; kRowBytesMax leaves room for them with one row.
    static_assert(kRowBytesMax + 7 <= kPayloadBytes);
    auto fits = [&](std::uint64_t rows) {
        return align_up(rows * key_bytes, 8) + rows * value_bytes <= kPayloadBytes;
    };
    std::uint32_t capacity =
        static_cast<std::uint32_t>(kPayloadBytes / (std::size_t{key_bytes} + value_bytes));
    while (capacity > 1 && !fits(capacity)) --capacity;
    CHECK(fits(capacity));
    LeafLayout layout;
    layout.key_bytes = key_bytes;
    layout.value_bytes = value_bytes;
    layout.capacity = capacity;
    layout.values_offset = static_cast<std::uint32_t>(
        kPageHeaderBytes + align_up(std::uint64_t{capacity} * key_bytes, 8));
    return layout;
}

LeafLayout LeafLayout::variable_length(std::uint32_t key_bytes) {
    LeafLayout layout;
    layout.key_bytes = key_bytes;
    layout.capacity = static_cast<std::uint32_t>(kPayloadBytes / (kSlotBytes + key_bytes));
    layout.variable = true;
    return layout;
}

LeafLayout LeafLayout::of(const Schema& schema) {
    if (schema.has_variable()) return variable_length(schema.key_bytes());
    return fixed(schema.key_bytes(), schema.fixed_bytes());
}

}  // namespace bidstore
