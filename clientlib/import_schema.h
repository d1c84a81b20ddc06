// Schemas written as text: "auction:fixed(16)", and the order that a table needs.
//
// Who:    the tool's `table create` and the mapping files of the import.
// Errors: kInvalid, naming the column and what would be right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/page/schema.h"
#include "shm/error.h"

namespace bidstore {

// A table as a person writes it: columns in any order, the key by names.
struct TableText {
    std::string name;
    std::vector<Column> columns;
    std::vector<std::string> key;  // in key order
    std::string time;              // name of the time column, or empty
    std::string time_unit;         // "us" (or empty) or "ns"
};

// "u8" ... "i64", "f32", "f64", "fixed(16)", "timestamp", "bytes", "text".
Result<Column> parse_column(std::string_view name, std::string_view type);
// "name:type".
Result<Column> parse_column(std::string_view name_and_type);
// The type as parse_column reads it.
std::string type_text(const Column& column);

// "72h", "30min", "90s", "250ms", "14d"; "off": 0, which keeps rows for ever. In microseconds.
Result<std::uint64_t> parse_retention(std::string_view text);
// As parse_retention reads it.
std::string retention_text(std::uint64_t retain_us);

// "a,b" to its parts.
std::vector<std::string> split_names(std::string_view text);

// Puts the columns into the order that the page format needs (key columns in key order, then
// fixed-width ones, then variable-length ones, otherwise as given) and makes the schema.
Result<Schema> make_schema(const TableText& table);

}  // namespace bidstore
