// JSON lines and CSV to packed rows for a bulk load, by several threads.
//
//   thread:  read a block ──► map its records to rows ──► wait for its turn ──► give them to the
//   sink
//
// Each thread does all of it for one block at a time, so that a block stays in the cache of its
// core. One reads at a time, and one gives: blocks reach the sink in the order of the file, and the
// totals, refused records and line numbers are those of a single thread.
//
// Who:    the caller, which is one of the threads. The sink, the refusals and `progress` are called
//         by one thread at a time, not always the same.
// Errors: of the sink and of refused records that end the load; the first in the order of the file
//         is the one that is returned, and nothing behind it reaches the sink.
// Bounds: a thread holds one block of text (import_blocks.h) and its rows. Threads have ended when
//         this returns; one that waits for input (a pipe) is waited for.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "clientlib/import.h"
#include "clientlib/import_mapping.h"
#include "clientlib/import_source.h"
#include "engine/page/schema.h"
#include "shm/error.h"

namespace bidstore {

inline constexpr unsigned kLoadThreadsMax = 64;

class PackedSink {
  public:
    virtual ~PackedSink() = default;
    // Rows one after another, as a file of binary rows has them (load_rows.h). `lines`: that of
    // each row. Copies what it keeps. An error names the line, where it is that of a row.
    virtual Status write(std::span<const std::byte> rows, std::span<const std::uint64_t> lines) = 0;
};

struct LineLoad {
    RecordSource& source;
    const Mapping& mapping;  // of one table, of mode put or insert
    const Schema& schema;
    PackedSink& sink;
    RefusalLog& refusals;
    ImportTotals& totals;
    std::function<void(const ImportTotals&)> progress{};  // after every block
};

// Reads to the end. threads: 1 to kLoadThreadsMax; fewer when the system has no more.
// kInvalid when the mapping does not fit; see RowMapper::make().
Status load_lines(const LineLoad& load, unsigned threads);

}  // namespace bidstore
