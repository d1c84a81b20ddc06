// Builds a table's tree from below out of rows in rising order: leaves full, then the inner nodes
// above them, each page once and complete.
//
//   rows ──► leaf under construction ──full──► complete page ──placed──► a child of the level above
//                                                   ▲                            │ full
//                                                   └────────────────────────────┘
//
// A page is complete when the next row (or child) no longer fits, or at the end. Its id is given
// later, when its place is known: placed() seals the image and only then names it to its parent.
// The highest node of the tree is never given away: it becomes the content of the table's root,
// whose id was fixed when the table was made.
//
// Who:    the engine thread (engine/bulk_load.h), one builder per load.
// Trust:  rows are a client's bytes that hold still; order, length and form are checked here.
// Room:   the caller gives pages to build in; take() asks for at most pages_per_take() of them. It
//         puts large columns into extents, too, for which take() asks row by row.
// Source: bottom-up building as every B+tree bulk load does it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/large_rows.h"
#include "engine/leaf_edit.h"
#include "engine/page/search.h"
#include "shm/error.h"

namespace bidstore {

// What the pages of a load carry in their headers.
struct LoadIdentity {
    TableId table;
    std::uint64_t file_uuid = 0;
    Csn csn;  // of a checkpoint that is finished already: at or below every later one's
};

// Where the pages of a load come from.
struct LoadRoom {
    // kPageBytes to build in; the page before it is complete then.
    std::function<std::byte*()> next_page;
    // Extents for all large columns of a row, which put_value() then uses in their order. False:
    // not now.
    std::function<bool(std::span<const ExtentNeed> needs)> reserve;
    PutValue put_value;
};

// How far a record was taken.
struct LoadProgress {
    std::uint32_t row = 0;
    std::size_t bytes = 0;
};

class LoadBuilder {
  public:
    LoadBuilder(const Schema& schema, const LoadIdentity& identity, LoadRoom room);

    // Takes the rows (LoadRequest, shm/message.h) from `progress` on: all of them, or those before
    // one that is bad (kInvalid) or has to wait for extents (kBusy: again from there). kProtocol:
    // `packed` does not have `rows` rows.
    Error take(std::span<const std::byte> packed, std::uint64_t rows, LoadProgress& progress);

    // The complete page goes to `id`: sets its header, csn and crc included, and makes it a child.
    // Pages are placed in the order in which next_page gave them out.
    void placed(std::byte* page, PageId id);

    // No more rows: the last leaf is complete, unless it is the only one, which stays here.
    void end_rows();
    // Completes the highest node so far when there are several of its level; false when the one
    // that is left is the root. All complete pages are placed before.
    bool end_level();
    // Content for the table's root page, whose header's id, csn and uuid stay.
    void fill_root(std::byte* root) const;

    std::uint64_t rows() const { return rows_; }
    std::uint32_t checksum() const { return checksum_; }
    std::uint64_t leaves() const { return leaves_; }
    // The most pages that take() may ask for: rows of which no two fit a leaf, and the inner nodes
    // that became complete before.
    static constexpr std::uint32_t pages_per_take(std::size_t packed_bytes) {
        return static_cast<std::uint32_t>(packed_bytes / (kPayloadBytes / 2)) + 32;
    }

  private:
    struct Level {
        AlignedBuffer node{kPageBytes};
        std::uint64_t completed = 0;
    };

    Error take_fixed(std::span<const std::byte> packed, std::uint64_t rows, std::uint32_t& bad_row);
    Error take_variable(std::span<const std::byte> packed, std::uint64_t rows,
                        LoadProgress& progress);
    Error take_row(const std::byte* key, std::span<const std::byte> value);
    bool rises(const std::byte* key) const;
    void remember(const std::byte* key);
    void begin_leaf();
    void add_child(std::uint32_t level, const std::byte* key, PageId child);
    void complete_node(Level& level);
    void start_page(std::byte* page, PageType type) const;

    const Schema schema_;
    const TreeShape shape_;
    const LoadIdentity identity_;
    const LoadRoom room_;
    std::byte* leaf_ = nullptr;                   // under construction; nullptr: no row came yet
    AlignedBuffer only_leaf_;                     // of a table whose rows fit its root
    std::vector<std::unique_ptr<Level>> levels_;  // from the leaves' parents up
    std::vector<std::unique_ptr<AlignedBuffer>> ready_;  // complete inner nodes, oldest first
    std::vector<ExtentNeed> extents_needed_;             // of one row
    std::array<std::byte, kKeyBytesMax> last_key_{};
    std::uint64_t rows_ = 0;
    std::uint64_t leaves_ = 0;  // begun
    std::uint32_t checksum_ = 0;
};

}  // namespace bidstore
