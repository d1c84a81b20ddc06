// Rows whose large columns lie in extents: from the form that a transaction or a log record has
// (engine/page/row.h) to the row in its leaf, and what that takes.
//
// Who:    the engine thread; executor and recovery.
// Room:   append_extents() says which extents it needs; Space::reserve_extents() has them
//         before put_row(). Extents that the row's old value had go with it (Tree::put).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/btree.h"
#include "engine/format.h"
#include "engine/pages.h"

namespace bidstore {

// Adds the extents that putting this row takes; none for most rows.
void append_extents(const Schema& schema, TableId table, std::span<const std::byte> value,
                    std::vector<ExtentNeed>& needs);
// Pages of extents that replaying a record with this body may take: a row that no longer fits its
// page with the columns that the record brings may send out others, too.
std::uint64_t extent_pages_at_most(const Schema& schema, RecordType type,
                                   std::span<const std::byte> body);
// What the leaf keeps of the row, at most.
std::size_t stored_bytes_at_most(const Schema& schema, std::span<const std::byte> value);
// Of the extents that a row refers to.
std::uint32_t value_runs(const Schema& schema, std::span<const std::byte> value);

// The value as a leaf keeps it, in `to` (kRowBytesMax bytes): each large column of a row that is
// sound and wide goes where `put_value` says, in their order, and a reference stands in its place.
using PutValue =
    std::function<ValueReference(std::span<const std::byte> value, std::uint32_t newest)>;
std::span<const std::byte> store_wide_row(const Schema& schema, const std::byte* key,
                                          std::span<const std::byte> value,
                                          const PutValue& put_value, std::span<std::byte> to);
// Puts a row that row_value_fault() finds sound, its large columns into extents. `leaf`: as in
// Tree::put().
Change put_row(Tree& tree, Pages& pages, const Schema& schema, const std::byte* key,
               std::span<const std::byte> value, PageId leaf = {});

// The row as it is stored, in `to`, but for the reference `from`, which is `moved` instead; empty
// when it has no such reference.
std::span<const std::byte> moved_row(const Schema& schema, std::span<const std::byte> stored,
                                     const ValueReference& from, const ValueReference& moved,
                                     std::span<std::byte> to);

// Whether a large value is these bytes. A page of it that is not resident is named in `missing`.
struct ValueComparison : TreeAccess {
    bool equal = false;
};
ValueComparison equals_large(Pages& pages, const ValueReference& reference,
                             std::span<const std::byte> expected);

}  // namespace bidstore
