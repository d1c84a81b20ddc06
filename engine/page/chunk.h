// Where chunks and their metadata pages lie: what clients may know of the file's geometry.
//
// Who: anybody; engine/format.h has what is in these pages, of which clients may know the bitmap of
//      pages in use, which comes first, and the map of extents (engine/extent_map.h explains it).
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/page/page.h"
#include "shm/base.h"

namespace bidstore {

inline constexpr std::uint32_t kSuperblockCopies = 2;

inline constexpr std::uint32_t kChunkPages = 512;
inline constexpr std::uint64_t kChunkBytes = std::uint64_t{kChunkPages} * kPageBytes;
inline constexpr std::uint32_t kDirectoryChunks = 128;  // chunks per directory page

// The metadata page of a chunk, and the directory page at the first chunk of a group of 128.
constexpr PageId meta_page(std::uint32_t chunk) {
    return PageId{chunk * kChunkPages + (chunk == 0 ? kSuperblockCopies : 0)};
}
constexpr PageId directory_page(std::uint32_t group) {
    return PageId{meta_page(group * kDirectoryChunks).value + 1};
}
constexpr std::uint32_t chunk_of(PageId page) { return page.value / kChunkPages; }

// 64 pages of a chunk, from number 64 * word on: bit set, the page is in use.
inline std::uint64_t used_word(const std::byte* meta, std::uint32_t word) {
    return load_once<std::uint64_t>(meta + kPageHeaderBytes + 8 * std::size_t{word});
}

inline constexpr std::uint32_t kExtentOwners = 14;
inline constexpr std::uint32_t kExtentGoesOn = 15;  // 1 to kExtentOwners: a run begins
inline constexpr std::size_t kExtentOwnersOffset = kPageHeaderBytes + 3652;
inline constexpr std::size_t kExtentsOffset = kPageHeaderBytes + 3708;

// 0: the page belongs to no extent; kExtentGoesOn; or its run's owner is that one.
inline std::uint32_t extent_mark(const std::byte* meta, std::uint32_t index) {
    const auto two = load_once<std::uint8_t>(meta + kExtentsOffset + index / 2);
    return two >> (4 * (index % 2)) & 15u;
}
// The table id of mark 1 to kExtentOwners.
inline std::uint32_t extent_owner(const std::byte* meta, std::uint32_t mark) {
    return load_once<std::uint32_t>(meta + kExtentOwnersOffset + 4 * std::size_t{mark - 1});
}

}  // namespace bidstore
