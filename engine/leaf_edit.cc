#include "engine/leaf_edit.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace bidstore {

namespace {

// How many bytes longer the prefix shared with the row before must be than the one shared with the
// row behind for the new row to end a run. Random keys practically never get there.
constexpr std::uint32_t kRunPrefixBytes = 3;

}  // namespace

void LeafEdit::init() {
    PageHeader& header = this->header();
    header.type = PageType::kLeaf;
    header.level = 0;
    header.count = 0;
    header.free_offset = layout_->variable ? static_cast<std::uint16_t>(kPageBytes) : 0;
    header.live_bytes = 0;
    header.time_shift = leaf_time_shift(*schema_);
    header.time_min = 0;
    header.time_max = 0;
}

std::uint32_t LeafEdit::row_bytes(std::size_t value_bytes) const {
    return layout_->key_bytes + static_cast<std::uint32_t>(value_bytes);
}

std::uint32_t LeafEdit::gap_bytes() const {
    return header().free_offset - static_cast<std::uint32_t>(kPageHeaderBytes) -
           kSlotBytes * header().count;
}

bool LeafEdit::fits(std::size_t value_bytes) const {
    if (!layout_->variable) return count() < layout_->capacity;
    const std::size_t needed =
        header().live_bytes + std::size_t{kSlotBytes} * (count() + 1) + row_bytes(value_bytes);
    return needed <= kPayloadBytes;
}

bool LeafEdit::fits_replacing(std::uint32_t row, std::size_t value_bytes) const {
    if (!layout_->variable) return true;
    const std::size_t others = header().live_bytes - view().place(row).length_bytes;
    return others + std::size_t{kSlotBytes} * count() + row_bytes(value_bytes) <= kPayloadBytes;
}

void LeafEdit::insert(std::uint32_t row, const std::byte* key, std::span<const std::byte> value) {
    CHECK_OP(row, <=, count());
    CHECK(fits(value.size()));
    widen_times(key, value);
    if (layout_->variable) {
        insert_variable(row, key, value);
    } else {
        insert_fixed(row, key, value);
    }
}

void LeafEdit::insert_fixed(std::uint32_t row, const std::byte* key,
                            std::span<const std::byte> value) {
    const std::size_t behind = count() - row;
    std::byte* keys = page_ + kPageHeaderBytes + std::size_t{row} * layout_->key_bytes;
    std::byte* values = page_ + layout_->values_offset + std::size_t{row} * layout_->value_bytes;
    std::memmove(keys + layout_->key_bytes, keys, behind * layout_->key_bytes);
    std::memmove(values + layout_->value_bytes, values, behind * layout_->value_bytes);
    std::memcpy(keys, key, layout_->key_bytes);
    if (!value.empty()) std::memcpy(values, value.data(), layout_->value_bytes);
    header().count = static_cast<std::uint16_t>(count() + 1);
}

void LeafEdit::append_packed(const std::byte* rows, std::uint32_t count) {
    const std::uint32_t old = this->count();
    CHECK(!layout_->variable);
    CHECK_OP(old + count, <=, layout_->capacity);
    const std::size_t key_bytes = layout_->key_bytes;
    const std::size_t value_bytes = layout_->value_bytes;
    std::byte* keys = page_ + kPageHeaderBytes + old * key_bytes;
    std::byte* values = page_ + layout_->values_offset + old * value_bytes;
    header().count = static_cast<std::uint16_t>(old + count);
    for (std::uint32_t i = 0; i < count; ++i, rows += key_bytes + value_bytes) {
        std::memcpy(keys + i * key_bytes, rows, key_bytes);
        std::memcpy(values + i * value_bytes, rows + key_bytes, value_bytes);
    }
    if (schema_->time_column() != kNoTimeColumn) refresh_times();
}

void LeafEdit::insert_variable(std::uint32_t row, const std::byte* key,
                               std::span<const std::byte> value) {
    const std::uint32_t length = row_bytes(value.size());
    if (gap_bytes() < kSlotBytes + length) compact();
    std::byte* slot = page_ + kPageHeaderBytes + std::size_t{row} * kSlotBytes;
    std::memmove(slot + kSlotBytes, slot, std::size_t{count() - row} * kSlotBytes);
    PageHeader& header = this->header();
    header.count = static_cast<std::uint16_t>(header.count + 1);
    header.free_offset = static_cast<std::uint16_t>(header.free_offset - length);
    header.live_bytes = static_cast<std::uint16_t>(header.live_bytes + length);
    set_slot(row, header.free_offset, length);
    std::byte* content = page_ + header.free_offset;
    std::memcpy(content, key, layout_->key_bytes);
    if (!value.empty()) std::memcpy(content + layout_->key_bytes, value.data(), value.size());
}

void LeafEdit::set_slot(std::uint32_t row, std::uint32_t offset, std::uint32_t length_bytes) {
    const std::uint32_t slot = offset | length_bytes << 16;
    std::memcpy(page_ + kPageHeaderBytes + std::size_t{row} * kSlotBytes, &slot, sizeof slot);
}

// Moves all row content to the page's end, without the holes that erased rows left.
void LeafEdit::compact() {
    std::array<std::byte, kPageBytes> old;
    std::memcpy(old.data(), page_, kPageBytes);
    const LeafView rows(old.data(), *layout_);
    std::uint32_t offset = kPageBytes;
    for (std::uint32_t row = 0; row < rows.count(); ++row) {
        const RowPlace at = rows.place(row);
        CHECK_OP(offset, >=, at.length_bytes);
        offset -= at.length_bytes;
        std::memcpy(page_ + offset, old.data() + at.offset, at.length_bytes);
        set_slot(row, offset, at.length_bytes);
    }
    header().free_offset = static_cast<std::uint16_t>(offset);
}

void LeafEdit::replace(std::uint32_t row, std::span<const std::byte> value) {
    CHECK_OP(row, <, count());
    CHECK(fits_replacing(row, value.size()));
    std::array<std::byte, kKeyBytesMax> key;
    std::memcpy(key.data(), view().key(row), layout_->key_bytes);
    const std::span<const std::byte> old = view().value(row);
    if (old.size() != value.size()) {
        const std::uint64_t time_min = header().time_min;
        const std::uint64_t time_max = header().time_max;
        erase(row, row + 1);
        if (count() > 0) {
            header().time_min = time_min;
            header().time_max = time_max;
        }
        return insert(row, key.data(), value);
    }
    // `value` may be this very row, changed in place.
    std::byte* place = page_ + (old.data() - page_);
    if (!value.empty()) std::memmove(place, value.data(), value.size());
    widen_times(key.data(), value);
}

void LeafEdit::erase(std::uint32_t first, std::uint32_t last) {
    CHECK_OP(first, <=, last);
    CHECK_OP(last, <=, count());
    PageHeader& header = this->header();
    const std::size_t behind = header.count - last;
    auto close = [&](std::byte* rows, std::size_t width) {
        std::memmove(rows + first * width, rows + last * width, behind * width);
    };
    if (layout_->variable) {
        const LeafView rows = view();
        std::uint32_t erased = 0;
        for (std::uint32_t row = first; row < last; ++row) erased += rows.place(row).length_bytes;
        header.live_bytes = static_cast<std::uint16_t>(header.live_bytes - erased);
        close(page_ + kPageHeaderBytes, kSlotBytes);
    } else {
        close(page_ + kPageHeaderBytes, layout_->key_bytes);
        close(page_ + layout_->values_offset, layout_->value_bytes);
    }
    header.count = static_cast<std::uint16_t>(header.count - (last - first));
    if (header.count == 0) init();
}

void LeafEdit::append(const LeafView& from, std::uint32_t first, std::uint32_t last) {
    for (std::uint32_t row = first; row < last; ++row) {
        insert(count(), from.key(row), from.value(row));
    }
}

void LeafEdit::widen_times(const std::byte* key, std::span<const std::byte> value) {
    if (schema_->time_column() == kNoTimeColumn) return;
    const std::uint64_t time = schema_->time_of(key, value);
    PageHeader& header = this->header();
    const bool first = header.count == 0;
    header.time_min = first ? time : std::min(header.time_min, time);
    header.time_max = first ? time : std::max(header.time_max, time);
}

void LeafEdit::refresh_times() {
    if (schema_->time_column() == kNoTimeColumn || count() == 0) return;
    const LeafView rows = view();
    PageHeader& header = this->header();
    header.time_min = ~std::uint64_t{0};
    header.time_max = 0;
    for (std::uint32_t row = 0; row < rows.count(); ++row)
        widen_times(rows.key(row), rows.value(row));
}

// ---- fullness and splits ----

namespace {

std::uint32_t cost_of(const LeafLayout& layout, std::size_t value_bytes) {
    const std::uint32_t row = layout.key_bytes + static_cast<std::uint32_t>(value_bytes);
    return layout.variable ? row + kSlotBytes : row;
}

bool ends_run(const LeafView& leaf, const LeafLayout& layout, std::uint32_t row,
              const std::byte* key) {
    // The run has to reach back over a part of the leaf: its next rows will come here too.
    const std::uint32_t reach = leaf.count() / 4 + 1;
    if (row < reach || row >= leaf.count()) return false;
    const std::uint32_t behind = shared_prefix(key, leaf.key(row), layout.key_bytes);
    const std::uint32_t before = shared_prefix(key, leaf.key(row - reach), layout.key_bytes);
    return before >= behind + kRunPrefixBytes;
}

}  // namespace

std::uint32_t leaf_space_bytes(const LeafLayout& layout) {
    if (layout.variable) return kPayloadBytes;
    return layout.capacity * (layout.key_bytes + layout.value_bytes);
}

std::uint32_t leaf_used_bytes(const LeafView& leaf, const LeafLayout& layout) {
    if (!layout.variable) return leaf.count() * (layout.key_bytes + layout.value_bytes);
    std::uint32_t used = 0;
    for (std::uint32_t row = 0; row < leaf.count(); ++row) {
        used += leaf.place(row).length_bytes + kSlotBytes;
    }
    return used;
}

LeafSplit plan_split(const LeafView& leaf, const LeafLayout& layout, std::uint32_t row,
                     const std::byte* key, std::size_t value_bytes) {
    using Place = LeafSplit::Place;
    const std::uint32_t space = leaf_space_bytes(layout);
    const std::uint32_t added = cost_of(layout, value_bytes);
    const std::uint32_t count = leaf.count();
    // A row at an end goes alone: ordered data, in either direction, fill their leaves.
    if (row == count) return {count, Place::kRight};
    if (row == 0) return {0, Place::kLeft};

    // Weighs each cut of the rows with the new one among them; `cut` rows of these stay left.
    const bool run = ends_run(leaf, layout, row, key);
    const std::uint32_t total = leaf_used_bytes(leaf, layout) + added;
    LeafSplit best{row, Place::kBetween};
    std::uint32_t best_larger = ~0u;
    std::uint32_t left = 0;
    for (std::uint32_t cut = 1; cut <= count; ++cut) {
        const std::uint32_t last = cut - 1;  // the row that comes to the left side with this cut
        if (last == row)
            left += added;
        else
            left += cost_of(layout, leaf.value(last < row ? last : last - 1).size());
        const std::uint32_t larger = std::max(left, total - left);
        if (larger > space) continue;
        const LeafSplit split =
            cut <= row ? LeafSplit{cut, Place::kRight} : LeafSplit{cut - 1, Place::kLeft};
        if (run && last == row) return split;
        if (larger < best_larger) {
            best = split;
            best_larger = larger;
        }
    }
    return best;
}

}  // namespace bidstore
