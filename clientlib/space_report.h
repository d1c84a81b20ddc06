// Where the space of a store is: pages in use and free, from the metadata of its chunks; and per
// table pages and fullness, from a walk over the inner nodes.
//
// Disturbs nobody: metadata is always in the pool, inner nodes are few and brought in where they
// are missing, and leaves are looked at only where they are resident. Snapshots are short; so the
// numbers of a store that is being written to are of moments that lie close together, not of one.
//
// Who:    any thread with a Reader of its own.
// Errors: those of reading (clientlib/read.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clientlib/bidstore.h"

namespace bidstore {

struct FileSpace {
    std::uint64_t chunks = 0;
    std::uint64_t used_pages = 0;   // metadata included
    std::uint64_t free_pages = 0;   // those included that wait until they may be used again
    std::uint64_t free_runs = 0;    // free neighbours, within a chunk
    std::uint64_t longest_run = 0;  // pages
    std::uint64_t empty_chunks = 0;
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

    std::uint64_t pages() const { return inner_nodes + leaves; }
    double fullness() const;       // 0 to 1; 0 when no leaf was seen
    double in_order_share() const;  // 0 to 1
};

// `chunks`: as the daemon counts them (Counter::kChunks).
Result<FileSpace> file_space(Reader& reader, std::uint64_t chunks, Deadline deadline);
Result<TableSpace> table_space(Reader& reader, const RawTable& table, Deadline deadline);
// All tables, the catalog and the store's other own ones first.
Result<std::vector<TableSpace>> all_table_space(Store& store, Reader& reader, Deadline deadline);

}  // namespace bidstore
