#include "engine/extent_map.h"

#include <algorithm>

namespace bidstore {

bool ExtentMap::any() const { return owners() > 0; }

std::uint32_t ExtentMap::owners() const {
    const auto taken = std::count_if(std::begin(meta_->extent_owner),
                                     std::end(meta_->extent_owner),
                                     [](std::uint32_t owner) { return owner != 0; });
    return static_cast<std::uint32_t>(taken);
}

bool ExtentMap::owns(TableId table) const {
    const auto* end = std::end(meta_->extent_owner);
    return std::find(std::begin(meta_->extent_owner), end, table.value) != end;
}

std::uint32_t ExtentMap::run_pages(std::uint32_t index) const {
    std::uint32_t pages = 1;
    while (index + pages < kChunkPages && mark(index + pages) == kExtentGoesOn) ++pages;
    return pages;
}

const char* ExtentMap::fault() const {
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        if (!in_extent(i)) continue;
        const bool used = (meta_->used[i / 64] >> (i % 64)) & 1;
        if (!used) return "a page of a large value is not in use";
        if (first_of_run(i) && owner(i).value == 0) return "a large value is no table's";
        const bool follows = i > 0 && in_extent(i - 1);
        if (!first_of_run(i) && !follows) return "a large value goes on that has not begun";
    }
    return nullptr;
}

void ExtentMapEdit::set(std::uint32_t index, std::uint32_t mark) {
    const std::uint32_t shift = 4 * (index % 2);
    const std::uint32_t others = meta_.extent[index / 2] & ~(15u << shift);
    meta_.extent[index / 2] = static_cast<std::uint8_t>(others | mark << shift);
}

void ExtentMapEdit::take(TableId table, std::uint32_t index, std::uint32_t pages) {
    auto* const begin = std::begin(meta_.extent_owner);
    auto* const end = std::end(meta_.extent_owner);
    auto* place = std::find(begin, end, table.value);
    if (place == end) place = std::find(begin, end, 0u);
    CHECK(place != end);  // the caller asked
    *place = table.value;
    set(index, static_cast<std::uint32_t>(place - begin) + 1);
    for (std::uint32_t i = 1; i < pages; ++i) set(index + i, kExtentGoesOn);
}

void ExtentMapEdit::give_back(std::uint32_t index) {
    const ExtentMap map(meta_);
    CHECK(map.first_of_run(index));
    const TableId table = map.owner(index);
    const std::uint32_t pages = map.run_pages(index);
    for (std::uint32_t i = 0; i < pages; ++i) set(index + i, 0);
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        if (map.first_of_run(i) && map.owner(i) == table) return;
    }
    std::replace(std::begin(meta_.extent_owner), std::end(meta_.extent_owner), table.value, 0u);
}

}  // namespace bidstore
