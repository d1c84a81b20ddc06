// Schemas: the columns of a table, how keys and rows are laid out, and their checks.
//
// A table has 1 to kColumnsMax columns. The first `key_columns` of them form the primary key.
//
//   key    the key columns one after another, each in its order-preserving form: unsigned integers
//          and timestamps big-endian; signed integers big-endian with the sign bit flipped; floats
//          are not allowed; fixed bytes as they are. 1 to 64 bytes, compared as bytes.
//   value  the fixed-width value columns packed in order, little-endian, without padding; then, if
//          there are variable-length columns (all of them come after all fixed ones), one u16 per
//          such column: the end of its bytes, counted from the first byte behind these u16s; then
//          the bytes (of a row that fits a page; engine/page/row.h has the form of longer ones).
//          Example, u32 price, text url "ab", bytes raw "xyz":
//              price:4 | 02 00 | 05 00 | a b x y z
//
// Who:    client library, tool and engine. Read-only after construction; any thread.
// Errors: kInvalid or kSchemaMismatch with a message that names the column.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/page/page.h"
#include "shm/error.h"

namespace bidstore {

inline constexpr std::uint32_t kKeyBytesMax = 64;
inline constexpr std::uint32_t kColumnsMax = 256;
inline constexpr std::uint32_t kNameBytesMax = 64;
// What a leaf keeps of one row, key and value, fits a page: of a variable-length row, less its slot
// of 4 bytes. Longer rows keep their longest columns in extents (engine/page/row.h).
inline constexpr std::uint32_t kRowBytesMax = kPayloadBytes - 8;
// Of one variable-length column.
inline constexpr std::uint32_t kLargeValueBytesMax = 1u << 20;

enum class ColumnType : std::uint8_t {
    kU8 = 1,
    kU16 = 2,
    kU32 = 3,
    kU64 = 4,
    kI8 = 5,
    kI16 = 6,
    kI32 = 7,
    kI64 = 8,
    kF32 = 9,
    kF64 = 10,
    kFixed = 11,      // width_bytes bytes, 1 to 2,048
    kTimestamp = 12,  // u64 since the epoch, in the schema's time unit
    kBytes = 13,      // variable-length bytes
    kText = 14,       // variable-length UTF-8
};
std::string_view column_type_name(ColumnType type);  // "u8" … "fixed", "timestamp", "bytes", "text"
bool is_variable(ColumnType type);
bool is_integer(ColumnType type);  // what add works on; timestamps are not
constexpr bool is_signed(ColumnType type) {
    return type >= ColumnType::kI8 && type <= ColumnType::kI64;
}
constexpr bool is_float(ColumnType type) {
    return type == ColumnType::kF32 || type == ColumnType::kF64;
}
// Whether its values are byte strings, of one length or of any.
constexpr bool holds_bytes(ColumnType type) {
    return type == ColumnType::kFixed || type == ColumnType::kBytes || type == ColumnType::kText;
}

enum class TimeUnit : std::uint8_t { kMicroseconds = 0, kNanoseconds = 1 };
constexpr std::uint64_t ticks_per_second(TimeUnit unit) {
    return unit == TimeUnit::kMicroseconds ? 1'000'000 : 1'000'000'000;
}

struct Column {
    std::string name;  // [a-z][a-z0-9_]*, at most kNameBytesMax
    ColumnType type = ColumnType::kU8;
    std::uint16_t width_bytes = 0;  // of kFixed; given by the type for the others; 0 if variable

    friend bool operator==(const Column&, const Column&) = default;
};

inline constexpr std::uint16_t kNoTimeColumn = 0xffff;

class Schema {
  public:
    // Checks everything that the text above demands. `name` is the table's.
    static Result<Schema> make(std::string name, std::vector<Column> columns,
                               std::uint16_t key_columns, std::uint16_t time_column = kNoTimeColumn,
                               TimeUnit time_unit = TimeUnit::kMicroseconds);

    // A byte string for the catalog and the log; decode checks like make.
    std::string encode() const;
    static Result<Schema> decode(std::span<const std::byte> bytes);

    const std::string& name() const { return name_; }
    const std::vector<Column>& columns() const { return columns_; }
    std::uint16_t key_columns() const { return key_columns_; }
    std::uint16_t time_column() const { return time_column_; }
    TimeUnit time_unit() const { return time_unit_; }

    std::uint32_t key_bytes() const { return key_bytes_; }
    std::uint32_t fixed_bytes() const { return fixed_bytes_; }  // of the fixed value columns
    std::uint32_t variable_columns() const { return variable_columns_; }
    bool has_variable() const { return variable_columns_ > 0; }
    // Offset of a fixed column: in the key if it is a key column, else in the value.
    std::uint32_t offset_bytes(std::uint32_t column) const { return offsets_[column]; }
    // Index among the variable-length columns.
    std::uint32_t variable_index(std::uint32_t column) const { return offsets_[column]; }
    // Index of the column of that name, or -1.
    int find(std::string_view column) const;

    // Whether `value` is a well-formed whole value of this schema (engine/page/row.h): length, ends
    // in order, no column above kLargeValueBytesMax, and a way to store it in a page and extents.
    bool valid_value(std::span<const std::byte> value) const;
    // The row's time (schema's unit), 0 without a time column.
    std::uint64_t time_of(const std::byte* key, std::span<const std::byte> value) const;
    // Whether the row is still there for readers: its time is not below the table's floor.
    bool live(const std::byte* key, std::span<const std::byte> value, std::uint64_t floor) const {
        return floor == 0 || time_of(key, value) >= floor;
    }

    // The first difference that matters to a program compiled for `expected`, in words that name
    // the column, or an empty string.
    std::string difference(const Schema& expected) const;

  private:
    Schema() = default;
    std::string name_;
    std::vector<Column> columns_;
    std::vector<std::uint32_t> offsets_;
    std::uint16_t key_columns_ = 0;
    std::uint16_t time_column_ = kNoTimeColumn;
    TimeUnit time_unit_ = TimeUnit::kMicroseconds;
    std::uint32_t key_bytes_ = 0;
    std::uint32_t fixed_bytes_ = 0;
    std::uint32_t variable_columns_ = 0;
};

// ---- columns in encoded keys and values ----

// Integers of any width in their key form (big-endian, sign flipped) and back; width_bytes 1 to 8.
void encode_key_integer(std::byte* to, std::uint64_t bits, std::uint32_t width_bytes,
                        bool is_signed);
std::uint64_t decode_key_integer(const std::byte* from, std::uint32_t width_bytes, bool is_signed);

// The bytes of a column in a key/value pair, as stored (a key integer stays big-endian). Clamped to
// the value's length: garbage gives an empty or short span, never one outside `value`. Empty for a
// column that is only referred to.
std::span<const std::byte> column_bytes(const Schema& schema, std::uint32_t column,
                                        const std::byte* key, std::span<const std::byte> value);

// An integer or timestamp column as 64 bits (sign-extended for signed types), key or value.
std::uint64_t column_integer(const Schema& schema, std::uint32_t column, const std::byte* key,
                             std::span<const std::byte> value);

// Puts a row together column by column, checking types and widths; for raw tables and the tool.
class RowBuilder {
  public:
    explicit RowBuilder(const Schema& schema);
    void clear();  // all columns zero or empty
    // Numbers: kOutOfRange when the value does not fit the column. Names the column in errors.
    Status set_unsigned(std::uint32_t column, std::uint64_t value);
    Status set_signed(std::uint32_t column, std::int64_t value);
    Status set_float(std::uint32_t column, double value);
    // Fixed bytes (exactly the width), bytes and text.
    Status set_bytes(std::uint32_t column, std::span<const std::byte> value);
    // The encoded key, valid until the next call.
    std::span<const std::byte> key() const { return key_; }
    // Lays the value out, whole; kTooLarge when a column exceeds kLargeValueBytesMax, or fixed
    // columns and references to all others exceed kRowBytesMax. Valid until the next call.
    Result<std::span<const std::byte>> value();

  private:
    const Schema& schema_;
    std::vector<std::byte> key_;
    std::vector<std::byte> fixed_;
    std::vector<std::vector<std::byte>> variable_;
    std::vector<std::byte> value_;
};

}  // namespace bidstore
