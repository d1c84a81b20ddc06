// Where the space of a store is: pages in use and free, and those of large values by table, from
// the metadata of its chunks; and per table pages and fullness, from a walk over the inner nodes.
//
// Disturbs nobody: metadata is always in the pool, inner nodes are few and brought in where they
// are missing, and leaves are looked at only where they are resident. So are the rows that say how
// long large values are; what pages and runs they take, the metadata knows of all. Snapshots are
// short; so the numbers of a store that is being written to are of moments that lie close together,
// not of one.
//
// Who:    any thread with a Reader of its own.
// Errors: those of reading (clientlib/read.h).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "clientlib/bidstore.h"

namespace bidstore {

// Extents of one table. A large value has one: a run of pages, or a few where it found no long one.
struct ExtentSpace {
    std::uint64_t runs = 0;
    std::uint64_t pages = 0;
    // Of those that rows in resident leaves refer to.
    std::uint64_t seen = 0;
    std::uint64_t runs_seen = 0;
    std::uint64_t pages_seen = 0;
    std::uint64_t bytes_seen = 0;  // of the values; the rest of their pages is free within

    std::uint64_t free_bytes_seen() const;
    double fullness() const;   // 0 to 1; 0 when none was seen
    double runs_each() const;  // 1 when no extent is in pieces; 0 when none was seen
};

struct FileSpace {
    std::uint64_t chunks = 0;
    std::uint64_t used_pages = 0;         // metadata included
    std::uint64_t free_pages = 0;         // those included that wait until they may be used again
    std::uint64_t free_runs = 0;          // free neighbours, within a chunk
    std::uint64_t longest_run = 0;        // pages
    std::uint64_t large_value_pages = 0;  // free ones in runs that take any large value whole
    std::map<std::uint32_t, ExtentSpace> extents;  // by table id, dropped tables included
    std::uint64_t empty_chunks = 0;                // holes that a compaction made included
    std::uint64_t empty_at_end = 0;  // of these, without a chunk in use behind them
};

struct TableSpace {
    std::string name;
    std::uint32_t id = 0;
    std::uint32_t depth = 0;  // levels, leaves included
    std::uint64_t inner_nodes = 0;
    std::uint64_t leaves = 0;
    std::uint64_t leaves_seen = 0;  // resident ones: fullness and rows are theirs
    std::uint64_t rows_seen = 0;    // dead ones included
    std::uint64_t used_bytes = 0;   // of leaves_seen
    std::uint64_t space_bytes = 0;
    std::uint64_t in_order = 0;  // leaves that lie right behind their predecessor in the file
    ExtentSpace extents;         // pages and runs from add_extents()

    std::uint64_t pages() const { return inner_nodes + leaves + extents.pages; }
    double fullness() const;        // 0 to 1; 0 when no leaf was seen
    double in_order_share() const;  // 0 to 1
};

Result<FileSpace> file_space(Reader& reader, Deadline deadline);
Result<TableSpace> table_space(Reader& reader, const RawTable& table, Deadline deadline);
// All tables, the catalog and the store's other own ones first.
Result<std::vector<TableSpace>> all_table_space(Store& store, Reader& reader, Deadline deadline);
// Gives each table its extents. Those left belong to tables that are gone, or not there yet.
ExtentSpace add_extents(const FileSpace& file, std::vector<TableSpace>& tables);

}  // namespace bidstore
