// Mapping files: which part of a log line becomes which column of which table.
//
// A mapping file is TOML, one [[table]] block per table that a line feeds, in the order in which
// they are written:
//
//   [[table]]
//   name = "users"
//   mode = "add"                 # "put" (default; replaces), "insert" (must not exist), "add"
//   key = ["id"]                 # these four only for `table create --schema` and
//   time = "last_seen"           # `--create`; there, every column names its type
//   time_unit = "us"             # or "ns"
//   retain = "72h"               # rows older than this go away
//   columns = [
//     { name = "id", type = "fixed(16)", path = "userIds.xchg", decode = "base64url",
//       skip_prefix = "08011210", pad = "right", on_missing = "skip" },
//     { name = "requests", type = "u64", add = 1 },
//   ]
//
// (TOML wants each { } on one line.) A column has, besides its name:
//
//   path         JSON member: "userIds.xchg", "spots[0].formats"; CSV: the name in the header
//   constant     instead of path: a value written as the log would write it
//   decode       see import_decode.h; by default what fits the column's type
//   skip_prefix  hex: decoded bytes that begin so lose these bytes
//   length       how many bytes must be left then; by default the width of a fixed(N) column
//   pad          "left" or "right": shorter values are filled with zero bytes instead of refused
//   on_missing   "error" (default for key columns), "default" (default for the others), "skip"
//                (no row of this table for the line), "keep" (mode "add": leave the column as it
//                is; the default there). JSON null and an empty CSV field count as missing.
//   default      taken when missing, written as the log would write it; else zero or empty
//   max_bytes    of a bytes or text column
//   too_long     "error" (default) or "truncate"
//   add          mode "add": a number, or "value" for the decoded value, to add to the column
//
// Mode "add" creates the row when it is not there, adds to its counters and sets its other columns
// in one transaction. Reading the same log again gives the same rows with "put", refuses the rows
// with "insert", and counts everything a second time with "add".
//
// Errors: kInvalid, naming file, line and key; keys that are not known are refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "clientlib/import_decode.h"
#include "clientlib/import_schema.h"
#include "shm/error.h"

namespace bidstore {

enum class RowMode : std::uint8_t { kPut, kInsert, kAdd };
enum class OnMissing : std::uint8_t { kUnsaid, kError, kDefault, kSkip, kKeep };
enum class Pad : std::uint8_t { kNone, kLeft, kRight };
enum class AddKind : std::uint8_t { kNone, kConstant, kValue };

struct ColumnMapping {
    std::string name;
    std::string type;  // empty: as the table has it
    std::string path;  // empty: constant, raw_json or add
    std::optional<std::string> constant;
    std::optional<std::string> fallback;  // "default"
    std::optional<Decode> decode;
    std::string skip_prefix;  // bytes
    std::uint32_t length = 0;
    Pad pad = Pad::kNone;
    OnMissing on_missing = OnMissing::kUnsaid;
    std::uint32_t max_bytes = 0;  // 0: no limit but the row's
    bool truncate = false;
    AddKind add = AddKind::kNone;
    std::int64_t add_constant = 0;
};

struct TableMapping {
    std::string name;
    RowMode mode = RowMode::kPut;
    std::vector<std::string> key;
    std::string time;
    std::string time_unit;
    std::string retain;
    std::vector<ColumnMapping> columns;
};

struct Mapping {
    std::vector<TableMapping> tables;
};

// `origin` names the text in errors.
Result<Mapping> parse_mapping(std::string_view text, std::string_view origin);
// kIoError when the file cannot be read.
Result<Mapping> load_mapping(const std::string& path);

// The schema that the block describes, for making the table.
Result<Schema> mapping_schema(const TableMapping& table);

}  // namespace bidstore
