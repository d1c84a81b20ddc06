// Extents in a chunk's metadata: which pages in use belong to extents, where their runs begin, and
// whose they are. So retention, and whoever counts space, need neither the rows nor the pages.
//
//   extent[page]         0: no page of an extent    1 to 14: the first page of a run, of the table
//   (four bits a page)   15: goes on with the run         extent_owner[that - 1]
//
// A run ends before the first page that is not 15; it never leaves its chunk.
//
// Who:   the engine thread, on a metadata page that holds still; edit() on a page that it writes.
// Bound: 14 tables have extents in one chunk at most; the next one finds another chunk.
#pragma once

#include <cstdint>

#include "engine/format.h"
#include "engine/page/page.h"

namespace bidstore {

inline const ChunkMeta& chunk_meta(const std::byte* page) {
    return *static_cast<const ChunkMeta*>(static_cast<const void*>(page + kPageHeaderBytes));
}
inline ChunkMeta& chunk_meta(std::byte* page) {
    return *static_cast<ChunkMeta*>(static_cast<void*>(page + kPageHeaderBytes));
}

class ExtentMap {
  public:
    explicit ExtentMap(const ChunkMeta& meta) : meta_(&meta) {}

    bool any() const;  // of the chunk's pages belongs to an extent
    bool in_extent(std::uint32_t index) const { return mark(index) != 0; }
    bool first_of_run(std::uint32_t index) const {
        return mark(index) != 0 && mark(index) != kExtentGoesOn;
    }
    // Of the run that begins at `index`.
    TableId owner(std::uint32_t index) const {
        return TableId{meta_->extent_owner[mark(index) - 1]};
    }
    std::uint32_t run_pages(std::uint32_t index) const;
    // Whether a run of the table begins at `index` that has so many pages.
    bool has_run(TableId table, std::uint32_t index, std::uint32_t pages) const {
        return first_of_run(index) && owner(index) == table && run_pages(index) == pages;
    }
    // What is wrong with it, and with which pages are in use, in words, or nullptr.
    const char* fault() const;
    // Whether the table has a place among the owners.
    bool owns(TableId table) const;
    std::uint32_t owners() const;  // how many tables do

  private:
    std::uint8_t mark(std::uint32_t index) const {
        return static_cast<std::uint8_t>(meta_->extent[index / 2] >> (4 * (index % 2)) & 15);
    }

    const ChunkMeta* meta_;
};

class ExtentMapEdit {
  public:
    explicit ExtentMapEdit(ChunkMeta& meta) : meta_(meta) {}
    // A run of the table, which owns(), or there are owners() to spare.
    void take(TableId table, std::uint32_t index, std::uint32_t pages);
    // The run that begins at `index`. A table's last one takes its place among the owners along.
    void give_back(std::uint32_t index);

  private:
    void set(std::uint32_t index, std::uint32_t mark);

    ChunkMeta& meta_;
};

}  // namespace bidstore
