// Where chunks and their metadata pages lie: what clients may know of the file's geometry.
//
// Who: anybody; engine/format.h has what is in these pages, all but the bitmap of pages in use,
//      which comes first.
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

}  // namespace bidstore
