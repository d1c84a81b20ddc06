// Binary rows: a file of a header and rows of fixed size, for `bidstore load`.
//
//   offset  bytes
//        0      8  magic "BIDROWS1"
//        8      4  version, 1
//       12      4  flags: 1 = the keys rise from row to row
//       16      4  bytes of a key
//       20      4  bytes of a value
//       24      8  number of rows
//       32      8  fingerprint of the schema: rows_fingerprint()
//       40     24  zeros
//       64      …  the rows: key, value, one after another, as engine/page/schema.h lays them out
//
// Little-endian. Tables with variable-length columns have no such file.
//
// Who:    one thread per reader. Errors name the file and what to do.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/page/schema.h"
#include "shm/error.h"

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
    std::uint8_t reserved[24];
};
static_assert(sizeof(RowsHeader) == 64);

// FNV-1a, 64 bits, of Schema::encode() with the table named "rows": columns, key, time column.
Result<std::uint64_t> rows_fingerprint(const Schema& schema);
// The header for so many rows of the table.
Result<RowsHeader> rows_header(const Schema& schema, std::uint64_t rows, bool sorted);

class RowsFile {
  public:
    // Whether the file begins like one of binary rows. A file that cannot be read does not.
    static bool looks_like_one(const std::string& path);
    // kSchemaMismatch when it was made for other columns; kInvalid when it is cut short.
    static Result<RowsFile> open(const std::string& path, const Schema& schema);
    RowsFile(RowsFile&&) noexcept;
    RowsFile& operator=(RowsFile&&) noexcept;
    ~RowsFile();

    const RowsHeader& header() const { return header_; }
    std::size_t row_bytes() const { return header_.key_bytes + header_.value_bytes; }
    // The next rows, packed; empty at the end. Valid until the next call.
    Result<std::span<const std::byte>> next();
    std::uint64_t rows_read() const { return rows_read_; }

  private:
    RowsFile(std::string path, int descriptor, const RowsHeader& header);
    std::string path_;
    int descriptor_ = -1;
    RowsHeader header_{};
    std::uint64_t rows_read_ = 0;
    std::vector<std::byte> buffer_;
};

}  // namespace bidstore
