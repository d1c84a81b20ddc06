// Binary rows: a file of a header and rows as the engine takes them, for `bidstore load`.
//
//   offset  bytes
//        0      8  magic "BIDROWS1"
//        8      4  version, 1
//       12      4  flags: 1 = the keys rise from row to row
//       16      4  bytes of a key
//       20      4  bytes of a value; of its fixed columns when others have variable length
//       24      8  number of rows
//       32      8  fingerprint of the schema: rows_fingerprint()
//       40      8  bytes of all rows; 0 when they have a fixed size, which tells it
//       48     16  zeros
//       64      …  the rows, one after another
//
// A row is its key and its value, as engine/page/schema.h lays them out. Where the table has
// variable-length columns the value's length, four bytes, stands in front of the key, and the value
// is whole (engine/page/row.h, narrow or wide): large values are in their row. Little-endian.
//
// Who:    one thread per reader. Errors name the file, the row and what to do.
// Bounds: a row is at most kTransactionBytesMax; a file's rows are read through 512 KiB, or as much
//         as the longest one has.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/page/schema.h"
#include "shm/error.h"
#include "shm/segment.h"

namespace bidstore {

inline constexpr std::uint64_t kRowsMagic = 0x3153574f52444942;  // "BIDROWS1"
inline constexpr std::uint32_t kRowsVersion = 1;
inline constexpr std::uint32_t kRowsSorted = 1;

struct RowsHeader {
    std::uint64_t magic;
    std::uint32_t version;
    std::uint32_t flags;
    std::uint32_t key_bytes;
    std::uint32_t value_bytes;
    std::uint64_t rows;
    std::uint64_t schema_fingerprint;
    std::uint64_t rows_bytes;
    std::uint8_t reserved[16];
};
static_assert(sizeof(RowsHeader) == 64);

// FNV-1a, 64 bits, of Schema::encode() with the table named "rows": columns, key, time column.
Result<std::uint64_t> rows_fingerprint(const Schema& schema);
// The header for so many rows of the table. rows_bytes: of all of them, where they have no fixed
// size; not looked at otherwise.
Result<RowsHeader> rows_header(const Schema& schema, std::uint64_t rows, bool sorted,
                               std::uint64_t rows_bytes = 0);

// A row as the file has it.
struct PackedRow {
    std::span<const std::byte> key;
    std::span<const std::byte> value;
};

// The first of whole rows of the table that lie one after another; takes it off.
PackedRow take_row(const Schema& schema, std::span<const std::byte>& rows);

class RowsFile {
  public:
    // Whether the file begins like one of binary rows. One that cannot be read does not, and a pipe
    // neither: what was read of it to find out would be gone.
    static bool looks_like_one(const std::string& path);
    // kSchemaMismatch when it was made for other columns; kInvalid when it is cut short.
    static Result<RowsFile> open(const std::string& path, const Schema& schema);

    const RowsHeader& header() const { return header_; }
    bool has_variable() const { return schema_.has_variable(); }
    // The next rows, whole ones, packed; empty at the end. Valid until the next call. kInvalid: the
    // file ends early or late, or a row has a wrong length or value.
    Result<std::span<const std::byte>> next();
    std::uint64_t rows_read() const { return rows_read_; }
    std::uint64_t bytes_read() const { return bytes_total_ - unread_; }
    std::uint64_t bytes_total() const { return bytes_total_; }  // of all rows
    // Of these, their keys and values.
    std::uint64_t row_bytes_total() const {
        const std::uint64_t lengths = has_variable() ? header_.rows * sizeof(std::uint32_t) : 0;
        return bytes_total_ - std::min(bytes_total_, lengths);
    }

  private:
    RowsFile(std::string path, Descriptor descriptor, const Schema& schema);
    Status check_header();
    Status check_length();
    Status fill();
    Status split(std::size_t& wanted);
    Failure wrong_row(const std::string& what) const;
    std::size_t row_bytes() const { return header_.key_bytes + header_.value_bytes; }

    std::string path_;
    Descriptor descriptor_;
    Schema schema_;
    RowsHeader header_{};
    std::uint64_t rows_read_ = 0;
    std::uint64_t bytes_total_ = 0;
    std::uint64_t unread_ = 0;       // of these
    std::vector<std::byte> buffer_;  // [0, given_) given out, [given_, end_) read
    std::size_t given_ = 0;
    std::size_t end_ = 0;
};

}  // namespace bidstore
