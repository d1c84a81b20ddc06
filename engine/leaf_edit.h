// The writing side of leaves (read engine/page/leaf.h first).
//
// Who:   the engine thread, on a version that no reader can reach yet.
// Owns:  nothing; page, layout and schema outlive the editor, which is made on the spot.
// Rules: a leaf that is written to keeps count, free_offset, live_bytes, time_min and time_max
//        right. The time bounds are widened by inserts, made exact when rows move between leaves,
//        and left alone by erasures until the leaf is empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/page/leaf.h"
#include "engine/page/schema.h"

namespace bidstore {

class LeafEdit {
  public:
    LeafEdit(std::byte* page, const LeafLayout& layout, const Schema& schema)
        : page_(page), layout_(&layout), schema_(&schema) {}

    // Makes the page an empty leaf; csn, page id, uuid and table id of its header stay.
    void init();

    LeafView view() const { return LeafView(page_, *layout_); }
    std::uint32_t count() const { return page_header(page_).count; }

    // Whether one more row with a value of that size fits (perhaps after moving the others).
    bool fits(std::size_t value_bytes) const;
    // Whether the row's value may become one of that size.
    bool fits_replacing(std::uint32_t row, std::size_t value_bytes) const;

    // The row becomes row number `row`; it fits and belongs there.
    void insert(std::uint32_t row, const std::byte* key, std::span<const std::byte> value);
    // Rows of fixed size behind the last one: key and value, one after another, packed. They fit,
    // and are in order.
    void append_packed(const std::byte* rows, std::uint32_t count);
    // `value` does not lie in this page, unless it has the length of the old one.
    void replace(std::uint32_t row, std::span<const std::byte> value);
    // Erases rows [first, last).
    void erase(std::uint32_t first, std::uint32_t last);
    // Takes rows [first, last) of another leaf behind the last of this one; they fit.
    void append(const LeafView& from, std::uint32_t first, std::uint32_t last);
    // Makes the time bounds those of the rows that are there.
    void refresh_times();

  private:
    std::uint32_t row_bytes(std::size_t value_bytes) const;
    std::uint32_t gap_bytes() const;  // between slots and row content
    void insert_fixed(std::uint32_t row, const std::byte* key, std::span<const std::byte> value);
    void insert_variable(std::uint32_t row, const std::byte* key, std::span<const std::byte> value);
    void set_slot(std::uint32_t row, std::uint32_t offset, std::uint32_t length_bytes);
    void compact();
    void widen_times(const std::byte* key, std::span<const std::byte> value);
    PageHeader& header() { return page_header(page_); }
    const PageHeader& header() const { return page_header(page_); }

    std::byte* page_;
    const LeafLayout* layout_;
    const Schema* schema_;
};

// How full a leaf is: bytes of rows and slots in use, and how many there can be.
std::uint32_t leaf_used_bytes(const LeafView& leaf, const LeafLayout& layout);
std::uint32_t leaf_space_bytes(const LeafLayout& layout);

// How a full leaf makes room for a new row at index `row`: rows from first_right on go to a new
// leaf, and the new row goes behind the rows that stay, or into that leaf, or (long rows only) into
// a leaf of its own between the two.
struct LeafSplit {
    enum class Place : std::uint8_t { kLeft, kRight, kBetween };
    std::uint32_t first_right;
    Place place;
};

// At the leaf's end the new row alone goes right, at its beginning the new row alone stays left. At
// the end of a run (rows that share a longer prefix with the new row than its successor does: one
// entity's rows in time order) the leaf is cut behind it. So data in order, above all of time, fill
// their pages. Elsewhere both sides get equal bytes.
LeafSplit plan_split(const LeafView& leaf, const LeafLayout& layout, std::uint32_t row,
                     const std::byte* key, std::size_t value_bytes);

}  // namespace bidstore
