// `bidstore put | get | scan | delete | count`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clientlib/tool_options.h"

namespace bidstore {

struct RowPut {
    std::string table;
    std::vector<std::string> values;  // "column=value"
    std::vector<std::string> files;   // "column=path": the file's bytes as they are
    bool insert = false;              // the row must not be there
    bool update = false;              // it must be there; only the columns that are named change
    bool relaxed = false;
};

// Which rows: bounds as "a=1,b=2", the first key columns.
struct RowRange {
    std::string from;    // inclusive
    std::string to;      // exclusive
    std::string prefix;  // instead of the two
};

struct RowScan {
    std::string table;
    RowRange range;
    bool reverse = false;
    bool wide = false;  // long values are not cut
    std::uint64_t limit = ~std::uint64_t{0};
};

struct RowDelete {
    std::string table;
    std::vector<std::string> key;  // "column=value", or none and a range
    RowRange range;
    bool all = false;
};

int row_put(const ToolOptions& options, const RowPut& put);
// `raw`: a column whose bytes alone are printed, as they are; empty: all columns.
int row_get(const ToolOptions& options, const std::string& table,
            const std::vector<std::string>& key, const std::string& raw = {});
int row_scan(const ToolOptions& options, const RowScan& scan);
int row_delete(const ToolOptions& options, const RowDelete& erase);
int row_count(const ToolOptions& options, const std::string& table, const RowRange& range);

}  // namespace bidstore
