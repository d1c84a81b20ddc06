// Leaves: rows in key order, read in place.
//
//   fixed-size rows      header | keys [capacity] | pad to 8 | values [capacity]
//                        dense: row i is keys[i], values[i], for i < header.count
//   variable-length rows header | slots {u16 offset, u16 length} [count] -> … <- row content
//                        a row's content is its key, then its value; offset counts from the page's
//                        start; header.free_offset is the lowest byte in use, header.live_bytes the
//                        sum of all lengths (less than the bytes behind free_offset when rows have
//                        been erased or replaced)
//
// Who:    any reader of a published page; views are made on the spot and thrown away.
// Trust:  the page may be reused under a reader without a lease. Counts, offsets and lengths are
//         loaded once and clamped: everything stays inside the page, whatever its bytes are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/page/key.h"
#include "engine/page/page.h"

namespace bidstore {

class Schema;

// Where things are in a table's leaves. Follows from the schema alone.
struct LeafLayout {
    std::uint32_t key_bytes = 1;
    std::uint32_t value_bytes = 0;    // fixed-size rows; else 0
    std::uint32_t capacity = 1;       // the most rows that a leaf can hold, of any length
    std::uint32_t values_offset = 0;  // fixed-size rows: of values[0], from the page's start
    bool variable = false;

    static LeafLayout of(const Schema& schema);
    static LeafLayout fixed(std::uint32_t key_bytes, std::uint32_t value_bytes);
    static LeafLayout variable_length(std::uint32_t key_bytes);
};

inline constexpr std::uint32_t kSlotBytes = 4;

// Where a variable-length row lies: inside the page, and not shorter than its key.
struct RowPlace {
    std::uint32_t offset;
    std::uint32_t length_bytes;
};

class LeafView {
  public:
    LeafView(const std::byte* page, const LeafLayout& layout)
        : page_(page), layout_(&layout), count_(clamped_count(page, layout)) {}

    std::uint32_t count() const { return count_; }
    bool empty() const { return count_ == 0; }

    // key_bytes bytes; `row` below count().
    const std::byte* key(std::uint32_t row) const;
    std::span<const std::byte> value(std::uint32_t row) const;

    // The first row whose key is not below `key`, or count().
    std::uint32_t lower_bound(const std::byte* key) const;
    // The row with this key, or -1.
    int find(const std::byte* key) const;
    // The same, for a caller who thinks that it is row `guess`.
    int find_near(const std::byte* key, std::uint32_t guess) const;

    // Inclusive bounds of the rows' times; 0, 0 when there is no time column or no row.
    std::uint64_t time_min() const { return load(offsetof(PageHeader, time_min)); }
    std::uint64_t time_max() const { return load(offsetof(PageHeader, time_max)); }

    // Of a variable-length row.
    RowPlace place(std::uint32_t row) const;

  private:
    static std::uint32_t clamped_count(const std::byte* page, const LeafLayout& layout) {
        const std::uint32_t count = load_once<std::uint16_t>(page + offsetof(PageHeader, count));
        return count < layout.capacity ? count : layout.capacity;
    }
    std::uint64_t load(std::size_t offset) const {
        return load_once<std::uint64_t>(page_ + offset);
    }
    // Of fixed-size rows with keys of so many bytes.
    std::uint32_t lower_bound_8(const std::byte* key) const;
    std::uint32_t lower_bound_16(const std::byte* key) const;

    const std::byte* page_;
    const LeafLayout* layout_;
    std::uint32_t count_;
};

// PageHeader::time_shift of the table's leaves.
std::uint8_t leaf_time_shift(const Schema& schema);

// What is wrong with where a leaf has its rows, in words, or nullptr. Who changes a leaf takes
// header and slots as they stand, and so would write beside the page.
const char* leaf_layout_fault(const std::byte* page, const LeafLayout& layout);

inline RowPlace LeafView::place(std::uint32_t row) const {
    const std::byte* slot = page_ + kPageHeaderBytes + std::size_t{row} * kSlotBytes;
    const std::uint32_t word = load_once<std::uint32_t>(slot);
    const std::uint32_t offset_max = static_cast<std::uint32_t>(kPageBytes) - layout_->key_bytes;
    std::uint32_t offset = word & 0xffff;
    std::uint32_t length = word >> 16;
    if (offset > offset_max) offset = offset_max;
    const std::uint32_t length_max = static_cast<std::uint32_t>(kPageBytes) - offset;
    if (length > length_max) length = length_max;
    if (length < layout_->key_bytes) length = layout_->key_bytes;
    return {offset, length};
}

inline const std::byte* LeafView::key(std::uint32_t row) const {
    if (layout_->variable) return page_ + place(row).offset;
    return page_ + kPageHeaderBytes + std::size_t{row} * layout_->key_bytes;
}

inline std::span<const std::byte> LeafView::value(std::uint32_t row) const {
    if (!layout_->variable) {
        return {page_ + layout_->values_offset + std::size_t{row} * layout_->value_bytes,
                layout_->value_bytes};
    }
    const RowPlace at = place(row);
    return {page_ + at.offset + layout_->key_bytes, at.length_bytes - layout_->key_bytes};
}

inline std::uint32_t LeafView::lower_bound_8(const std::byte* key) const {
    const std::byte* keys = page_ + kPageHeaderBytes;
    const std::uint64_t wanted = load_big_endian(key);
    return first_not_less(count_, [&](std::uint32_t row) {
        return load_big_endian(keys + std::size_t{row} * 8) < wanted;
    });
}

inline std::uint32_t LeafView::lower_bound_16(const std::byte* key) const {
    const std::byte* keys = page_ + kPageHeaderBytes;
    const std::uint64_t wanted = load_big_endian(key);
    const std::uint64_t wanted_tail = load_big_endian(key + 8);
    return first_not_less(count_, [&](std::uint32_t row) {
        const std::byte* at = keys + std::size_t{row} * 16;
        const std::uint64_t head = load_big_endian(at);
        const std::uint64_t tail = load_big_endian(at + 8);
        // Without short circuits: a mispredicted branch costs more than the second compare.
        return static_cast<bool>(
            static_cast<unsigned>(head < wanted) |
            (static_cast<unsigned>(head == wanted) & static_cast<unsigned>(tail < wanted_tail)));
    });
}

inline std::uint32_t LeafView::lower_bound(const std::byte* key) const {
    if (!layout_->variable && layout_->key_bytes == 16) return lower_bound_16(key);
    if (!layout_->variable && layout_->key_bytes == 8) return lower_bound_8(key);
    return first_not_less(count_, [&](std::uint32_t row) {
        return compare_keys(this->key(row), key, layout_->key_bytes) < 0;
    });
}

inline int LeafView::find(const std::byte* key) const {
    const std::uint32_t row = lower_bound(key);
    if (row == count_) return -1;
    return keys_equal(this->key(row), key, layout_->key_bytes) ? static_cast<int>(row) : -1;
}

inline int LeafView::find_near(const std::byte* key, std::uint32_t guess) const {
    if (guess < count_ && keys_equal(this->key(guess), key, layout_->key_bytes)) [[likely]]
        return static_cast<int>(guess);
    return find(key);
}

}  // namespace bidstore
