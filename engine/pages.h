// What a tree needs of the store of page versions beneath it.
//
// Who:    the engine thread; the pool implements it, tests have a small one of their own.
// Owns:   every pointer it returns stays valid while the batch is open, whatever else is asked for.
// Errors: none. Room for what a change may write is secured before the change begins
//         (Tree::frames_needed, Tree::range_cost), so that nothing here can fail half way.
#pragma once

#include <cstddef>
#include <span>

#include "engine/format.h"
#include "engine/page/page.h"
#include "engine/page/row.h"
#include "shm/base.h"

namespace bidstore {

// An extent that is to come.
struct ExtentNeed {
    TableId table;
    std::uint32_t pages = 0;
    friend bool operator==(const ExtentNeed&, const ExtentNeed&) = default;
};

class Pages {
  public:
    virtual ~Pages() = default;

    // The newest version of the page, unpublished ones counted; nullptr when it is not resident.
    virtual const std::byte* newest(PageId page) = 0;
    // The open batch's own version of the page, copied from the newest at the first call. The page
    // must be resident.
    virtual std::byte* writable(PageId page) = 0;
    // A new page in the open batch: zeros behind a header with csn, page id, uuid, type and table.
    // Its place in the file is sought near `near`. header.page_id says which it is.
    virtual PageId allocate(PageType type, TableId table, PageId near) = 0;
    // Frees the page in the open batch: its newest version is of type kFree from now on.
    virtual void free(PageId page) = 0;
    // Frees a leaf in the open batch without a look at it: it need not be resident, and gets no
    // version. Snapshots below the batch go on reading it; above, all of its rows are dead.
    virtual void drop(PageId page) { free(page); }
    // A table is dropped in the open batch: readers of it, who may have seen the root, do not go by
    // that any more. Its pages go afterwards, a few in each batch.
    virtual void table_dropped() {}
    // The newest time in a leaf that is not resident, as metadata keeps it (engine/format.h).
    virtual std::uint32_t newest_known(PageId) const { return kNewestUnknown; }
    // The row with this key is row number `row` of the leaf from now on, in the open batch's
    // version of it or in one that came from the file; and it is gone from there. For the key
    // directory, which may take either or leave it.
    virtual void row_entered(TableId, std::span<const std::byte> /*key*/, PageId /*leaf*/,
                             std::uint32_t /*row*/) {}
    virtual void row_left(TableId, std::span<const std::byte> /*key*/, PageId /*leaf*/) {}
    // Puts a large value into an extent of its own in the open batch; its pages were secured.
    // `newest`: of its row, as metadata keeps it; kNewestUnknown without a time column.
    virtual ValueReference allocate_extent(TableId table, std::span<const std::byte> value,
                                           std::uint32_t newest) = 0;
    // Whether metadata have the reference's runs as extents of the table. A row of a file that
    // somebody wrote may say what it likes.
    virtual bool has_extent(TableId, const ValueReference&) const { return true; }
    // The extent's row has this time now: its metadata says so in the open batch.
    virtual void stamp_extent(const ValueReference& reference, std::uint32_t newest) = 0;
    // Frees an extent in the open batch; its pages need not be resident. Snapshots below the batch
    // go on reading them.
    virtual void free_extent(const ValueReference& reference) = 0;
};

}  // namespace bidstore
