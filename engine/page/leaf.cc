#include "engine/page/leaf.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/page/schema.h"

namespace bidstore {
namespace {

// Bytes of a page that rows have taken.
class TakenBytes {
  public:
    // False: some of them are another row's.
    bool take(std::uint32_t offset, std::uint32_t length) {
        for (std::uint32_t at = offset, end = offset + length; at < end;) {
            const std::uint32_t in_word = std::min(64 - at % 64, end - at);
            const std::uint64_t ones = ~std::uint64_t{0} >> (64 - in_word) << (at % 64);
            if ((words_[at / 64] & ones) != 0) return false;
            words_[at / 64] |= ones;
            at += in_word;
        }
        return true;
    }

  private:
    std::array<std::uint64_t, kPageBytes / 64> words_{};
};

}  // namespace

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

std::uint8_t leaf_time_shift(const Schema& schema) {
    if (schema.time_column() == kNoTimeColumn) return 0;
    const bool nanoseconds = schema.time_unit() == TimeUnit::kNanoseconds;
    return nanoseconds ? kTimeShiftNanoseconds : kTimeShiftMicroseconds;
}

const char* leaf_layout_fault(const std::byte* page, const LeafLayout& layout) {
    const PageHeader& header = page_header(page);
    if (header.count > layout.capacity) return "a leaf has too many rows";
    if (!layout.variable) return nullptr;
    const auto slots_end =
        static_cast<std::uint32_t>(kPageHeaderBytes) + kSlotBytes * header.count;
    if (header.free_offset < slots_end || header.free_offset > kPageBytes) {
        return "a leaf's free offset is inside its slots or outside the page";
    }
    std::uint32_t live_bytes = 0;
    TakenBytes taken;
    for (std::uint32_t row = 0; row < header.count; ++row) {
        std::uint32_t slot = 0;
        std::memcpy(&slot, page + kPageHeaderBytes + std::size_t{row} * kSlotBytes, sizeof slot);
        const std::uint32_t offset = slot & 0xffff;
        const std::uint32_t length = slot >> 16;
        if (offset < header.free_offset || offset + length > kPageBytes ||
            length < layout.key_bytes) {
            return "a slot points outside the row content";
        }
        if (!taken.take(offset, length)) return "two rows overlap";
        live_bytes += length;
    }
    return live_bytes == header.live_bytes ? nullptr : "a leaf's live bytes are not its rows'";
}

}  // namespace bidstore
