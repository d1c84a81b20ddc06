#include "engine/page/schema.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/page/row.h"

namespace bidstore {

namespace {

constexpr std::uint8_t kEncodingVersion = 1;
constexpr std::uint32_t kFixedWidthMax = 2048;
constexpr std::uint32_t kEndBytes = 2;  // per variable-length column: where its bytes end

// Width of the types that have one of their own; 0 for kFixed and variable-length ones.
std::uint32_t natural_width(ColumnType type) {
    switch (type) {
        case ColumnType::kU8:
        case ColumnType::kI8:
            return 1;
        case ColumnType::kU16:
        case ColumnType::kI16:
            return 2;
        case ColumnType::kU32:
        case ColumnType::kI32:
        case ColumnType::kF32:
            return 4;
        case ColumnType::kU64:
        case ColumnType::kI64:
        case ColumnType::kF64:
        case ColumnType::kTimestamp:
            return 8;
        case ColumnType::kFixed:
        case ColumnType::kBytes:
        case ColumnType::kText:
            return 0;
    }
    return 0;
}

bool known(ColumnType type) { return !column_type_name(type).empty(); }

bool valid_name(std::string_view name) {
    auto inner = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    };
    if (name.empty() || name.size() > kNameBytesMax) return false;
    return name[0] >= 'a' && name[0] <= 'z' && std::all_of(name.begin(), name.end(), inner);
}

// Names come from files and networks: what is printed of them is short and printable.
std::string quoted(std::string_view name) {
    std::string text = "\"";
    for (char c : name.substr(0, kNameBytesMax)) text += c >= ' ' && c <= '~' ? c : '?';
    return text + "\"";
}

Failure invalid(std::string what) { return Failure{Error::kInvalid, std::move(what)}; }

std::string name_rule(std::string_view what, std::string_view name) {
    return std::string(what) + " " + quoted(name) +
           ": a name is a-z, 0-9 and _, begins with a letter and has 1 to " +
           std::to_string(kNameBytesMax) + " characters";
}

// Fills in the width of a column whose type has one, and checks the column by itself.
Status settle_column(Column& column) {
    if (!valid_name(column.name)) return invalid(name_rule("column", column.name));
    const std::string who = "column " + quoted(column.name);
    if (!known(column.type)) return invalid(who + " has an unknown type");
    if (column.type == ColumnType::kFixed) {
        if (column.width_bytes >= 1 && column.width_bytes <= kFixedWidthMax) return {};
        return invalid(who + ": fixed bytes are 1 to 2048 wide, not " +
                       std::to_string(column.width_bytes));
    }
    const std::uint32_t width = natural_width(column.type);
    if (column.width_bytes != 0 && column.width_bytes != width) {
        return invalid(who + ": " + std::string(column_type_name(column.type)) + " is " +
                       std::to_string(width) + " bytes wide, not " +
                       std::to_string(column.width_bytes));
    }
    column.width_bytes = static_cast<std::uint16_t>(width);
    return {};
}

Status check_unique(const std::vector<Column>& columns) {
    std::vector<std::string_view> names;
    for (const Column& column : columns) names.push_back(column.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice == names.end()) return {};
    return invalid("column " + quoted(*twice) + " is there twice");
}

// Key columns first, all of fixed width and no floats; variable-length columns last.
Status check_order(const std::vector<Column>& columns, std::uint32_t key_columns) {
    bool variable_seen = false;
    for (std::uint32_t i = 0; i < columns.size(); ++i) {
        const Column& column = columns[i];
        const std::string who = "column " + quoted(column.name);
        if (i < key_columns && (is_float(column.type) || is_variable(column.type))) {
            return invalid(who + ": " + std::string(column_type_name(column.type)) +
                           " cannot be part of a key");
        }
        if (variable_seen && !is_variable(column.type)) {
            return invalid(who + " has a fixed width: put it before the bytes and text columns");
        }
        variable_seen = variable_seen || is_variable(column.type);
    }
    return {};
}

Status check_time_column(const std::vector<Column>& columns, std::uint32_t time_column) {
    if (time_column == kNoTimeColumn) return {};
    if (time_column >= columns.size()) return invalid("the time column is not one of the columns");
    const ColumnType type = columns[time_column].type;
    if (type == ColumnType::kTimestamp || type == ColumnType::kU64) return {};
    return invalid("column " + quoted(columns[time_column].name) +
                   ": the time column is a timestamp or u64, not " +
                   std::string(column_type_name(type)));
}

void append_integer(std::string& to, std::uint64_t value, std::uint32_t bytes) {
    for (std::uint32_t i = 0; i < bytes; ++i) to += static_cast<char>(value >> (8 * i));
}

void append_name(std::string& to, const std::string& name) {
    append_integer(to, name.size(), 1);
    to += name;
}

// Takes an encoding apart; past the end everything is zero and ok() false.
class Reader {
  public:
    explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
    std::uint64_t integer(std::uint32_t bytes) {
        const auto part = take(bytes);
        std::uint64_t value = 0;
        for (std::size_t i = part.size(); i-- > 0;)
            value = value << 8 | std::to_integer<unsigned>(part[i]);
        return value;
    }
    std::uint16_t u16() { return static_cast<std::uint16_t>(integer(2)); }
    std::string name() {
        const auto part = take(integer(1));
        std::string text(part.size(), '\0');
        if (!part.empty()) std::memcpy(text.data(), part.data(), part.size());
        return text;
    }
    bool ok() const { return ok_; }
    bool at_end() const { return bytes_.empty(); }

  private:
    std::span<const std::byte> take(std::uint64_t bytes) {
        if (bytes > bytes_.size()) {
            ok_ = false;
            bytes_ = {};
            return {};
        }
        const auto part = bytes_.first(static_cast<std::size_t>(bytes));
        bytes_ = bytes_.subspan(static_cast<std::size_t>(bytes));
        return part;
    }
    std::span<const std::byte> bytes_;
    bool ok_ = true;
};

std::uint64_t load_little_endian(const std::byte* from, std::size_t width_bytes) {
    std::uint64_t bits = 0;
    racy_copy(&bits, from, std::min<std::size_t>(width_bytes, 8));
    return bits;
}

std::uint64_t sign_extended(std::uint64_t bits, std::uint32_t width_bytes) {
    const std::uint32_t shift = 64 - 8 * width_bytes;
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(bits << shift) >> shift);
}

std::string describe(const Column& column) {
    const std::string type(column_type_name(column.type));
    if (column.type != ColumnType::kFixed) return type;
    return type + "(" + std::to_string(column.width_bytes) + ")";
}

std::string time_column_name(const Schema& schema) {
    if (schema.time_column() == kNoTimeColumn) return "none";
    return quoted(schema.columns()[schema.time_column()].name);
}

}  // namespace

std::string_view column_type_name(ColumnType type) {
    switch (type) {
        case ColumnType::kU8:
            return "u8";
        case ColumnType::kU16:
            return "u16";
        case ColumnType::kU32:
            return "u32";
        case ColumnType::kU64:
            return "u64";
        case ColumnType::kI8:
            return "i8";
        case ColumnType::kI16:
            return "i16";
        case ColumnType::kI32:
            return "i32";
        case ColumnType::kI64:
            return "i64";
        case ColumnType::kF32:
            return "f32";
        case ColumnType::kF64:
            return "f64";
        case ColumnType::kFixed:
            return "fixed";
        case ColumnType::kTimestamp:
            return "timestamp";
        case ColumnType::kBytes:
            return "bytes";
        case ColumnType::kText:
            return "text";
    }
    return "";
}

bool is_variable(ColumnType type) {
    return type == ColumnType::kBytes || type == ColumnType::kText;
}

bool is_integer(ColumnType type) { return type >= ColumnType::kU8 && type <= ColumnType::kI64; }

// ---- Schema -------------------------------------------------------------------------------------

Result<Schema> Schema::make(std::string name, std::vector<Column> columns,
                            std::uint16_t key_columns, std::uint16_t time_column,
                            TimeUnit time_unit) {
    if (!valid_name(name)) return invalid(name_rule("table", name));
    const std::string table = "table " + quoted(name) + ": ";
    auto refused = [&](const Status& status) { return invalid(table + status.failure().what); };
    if (columns.empty() || columns.size() > kColumnsMax) {
        return invalid(table + "a table has 1 to " + std::to_string(kColumnsMax) +
                       " columns, not " + std::to_string(columns.size()));
    }
    if (key_columns < 1 || key_columns > columns.size()) {
        return invalid(table + "the key is 1 or more of the first columns, not " +
                       std::to_string(key_columns) + " of " + std::to_string(columns.size()));
    }
    if (time_unit != TimeUnit::kMicroseconds && time_unit != TimeUnit::kNanoseconds) {
        return invalid(table + "unknown time unit");
    }
    for (Column& column : columns) {
        if (const Status status = settle_column(column); !status.ok()) return refused(status);
    }
    if (const Status status = check_unique(columns); !status.ok()) return refused(status);
    if (const Status status = check_order(columns, key_columns); !status.ok()) {
        return refused(status);
    }
    if (const Status status = check_time_column(columns, time_column); !status.ok()) {
        return refused(status);
    }

    Schema schema;
    for (std::uint32_t i = 0; i < columns.size(); ++i) {
        std::uint32_t& used = i < key_columns ? schema.key_bytes_ : schema.fixed_bytes_;
        const bool variable = is_variable(columns[i].type);
        schema.offsets_.push_back(variable ? schema.variable_columns_++ : used);
        if (!variable) used += columns[i].width_bytes;
    }
    if (schema.key_bytes_ > kKeyBytesMax) {
        return invalid(table + "its key has " + std::to_string(schema.key_bytes_) +
                       " bytes; a key has at most " + std::to_string(kKeyBytesMax));
    }
    const std::uint32_t least =
        schema.key_bytes_ + schema.fixed_bytes_ + kEndBytes * schema.variable_columns_;
    if (least > kRowBytesMax) {
        return invalid(table + "its rows have at least " + std::to_string(least) +
                       " bytes; a row has at most " + std::to_string(kRowBytesMax));
    }
    schema.name_ = std::move(name);
    schema.columns_ = std::move(columns);
    schema.key_columns_ = key_columns;
    schema.time_column_ = time_column;
    schema.time_unit_ = time_unit;
    return schema;
}

// version u8 | name | time unit u8 | key columns u16 | time column u16 | column count u16, then per
// column: type u8 | width u16 | name. A name is its length as u8, then its bytes.
std::string Schema::encode() const {
    std::string bytes;
    append_integer(bytes, kEncodingVersion, 1);
    append_name(bytes, name_);
    append_integer(bytes, static_cast<std::uint64_t>(time_unit_), 1);
    append_integer(bytes, key_columns_, 2);
    append_integer(bytes, time_column_, 2);
    append_integer(bytes, columns_.size(), 2);
    for (const Column& column : columns_) {
        append_integer(bytes, static_cast<std::uint64_t>(column.type), 1);
        append_integer(bytes, column.width_bytes, 2);
        append_name(bytes, column.name);
    }
    return bytes;
}

Result<Schema> Schema::decode(std::span<const std::byte> bytes) {
    Reader reader(bytes);
    const std::uint64_t version = reader.integer(1);
    if (reader.ok() && version != kEncodingVersion) {
        return invalid("encoded schema of version " + std::to_string(version) +
                       "; this build reads version " + std::to_string(kEncodingVersion));
    }
    std::string name = reader.name();
    const auto unit = static_cast<TimeUnit>(reader.integer(1));
    const std::uint16_t key_columns = reader.u16();
    const std::uint16_t time_column = reader.u16();
    const std::uint16_t count = reader.u16();
    std::vector<Column> columns;
    for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
        Column column;
        column.type = static_cast<ColumnType>(reader.integer(1));
        column.width_bytes = reader.u16();
        column.name = reader.name();
        columns.push_back(std::move(column));
    }
    if (!reader.ok()) return invalid("encoded schema: it is cut short");
    if (!reader.at_end()) return invalid("encoded schema: bytes are left behind its end");
    return make(std::move(name), std::move(columns), key_columns, time_column, unit);
}

int Schema::find(std::string_view column) const {
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        if (columns_[i].name == column) return static_cast<int>(i);
    }
    return -1;
}

bool Schema::valid_value(std::span<const std::byte> value) const {
    if (row_value_fault(*this, value) != nullptr) return false;
    const RowView row(*this, value);
    if (row.has_references()) return false;
    // One form for one row: what fits a page is narrow, and what is narrow fits a page.
    const std::uint64_t narrow = fixed_bytes_ + std::uint64_t{kEndBytes} * variable_columns_;
    std::uint64_t contents = 0;
    for (std::uint32_t i = 0; i < row.count(); ++i) contents += row.content(i).bytes.size();
    return row.wide() == (key_bytes_ + narrow + contents > kRowBytesMax);
}

std::uint64_t Schema::time_of(const std::byte* key, std::span<const std::byte> value) const {
    if (time_column_ == kNoTimeColumn) return 0;
    return column_integer(*this, time_column_, key, value);
}

std::string Schema::difference(const Schema& expected) const {
    const std::size_t shared = std::min(columns_.size(), expected.columns_.size());
    for (std::size_t i = 0; i < shared; ++i) {
        const Column& here = columns_[i];
        const Column& there = expected.columns_[i];
        const std::string place = "column " + std::to_string(i + 1);
        if (here.name != there.name) {
            return place + " is " + quoted(here.name) + " in the table, " + quoted(there.name) +
                   " in the program";
        }
        if (here != there) {
            return place + " " + quoted(here.name) + " is " + describe(here) + " in the table, " +
                   describe(there) + " in the program";
        }
    }
    if (columns_.size() != expected.columns_.size()) {
        const bool more = columns_.size() > shared;
        const Column& extra = more ? columns_[shared] : expected.columns_[shared];
        return "column " + std::to_string(shared + 1) + " " + quoted(extra.name) +
               " is only in the " + (more ? "table" : "program");
    }
    if (key_columns_ != expected.key_columns_) {
        const std::uint32_t first = std::min(key_columns_, expected.key_columns_);
        const bool here = key_columns_ > expected.key_columns_;
        return "column " + std::to_string(first + 1) + " " + quoted(columns_[first].name) +
               " is part of the key only in the " + (here ? "table" : "program");
    }
    if (time_column_ != expected.time_column_) {
        return "the time column is " + time_column_name(*this) + " in the table, " +
               time_column_name(expected) + " in the program";
    }
    if (time_unit_ != expected.time_unit_) {
        const bool micro = time_unit_ == TimeUnit::kMicroseconds;
        return std::string("times are ") + (micro ? "microseconds" : "nanoseconds") +
               " in the table, " + (micro ? "nanoseconds" : "microseconds") + " in the program";
    }
    return "";
}

// ---- columns in encoded keys and values ---------------------------------------------------------

void encode_key_integer(std::byte* to, std::uint64_t bits, std::uint32_t width_bytes,
                        bool is_signed) {
    if (is_signed) bits ^= std::uint64_t{1} << (8 * width_bytes - 1);
    for (std::uint32_t i = 0; i < width_bytes; ++i) {
        to[i] = static_cast<std::byte>(bits >> (8 * (width_bytes - 1 - i)));
    }
}

std::uint64_t decode_key_integer(const std::byte* from, std::uint32_t width_bytes, bool is_signed) {
    std::uint64_t bits = 0;
    racy_copy(&bits, from, std::min<std::size_t>(width_bytes, 8));
    bits = __builtin_bswap64(bits) >> (64 - 8 * width_bytes);
    if (!is_signed) return bits;
    return sign_extended(bits ^ std::uint64_t{1} << (8 * width_bytes - 1), width_bytes);
}

std::span<const std::byte> column_bytes(const Schema& schema, std::uint32_t column,
                                        const std::byte* key, std::span<const std::byte> value) {
    const Column& described = schema.columns()[column];
    const std::size_t offset = schema.offset_bytes(column);
    if (column < schema.key_columns()) return {key + offset, described.width_bytes};
    if (!is_variable(described.type)) {
        const auto from = value.subspan(std::min(offset, value.size()));
        return from.first(std::min<std::size_t>(described.width_bytes, from.size()));
    }
    const ColumnContent content = RowView(schema, value).content(schema.variable_index(column));
    return content.is_reference ? std::span<const std::byte>() : content.bytes;
}

std::uint64_t column_integer(const Schema& schema, std::uint32_t column, const std::byte* key,
                             std::span<const std::byte> value) {
    const Column& described = schema.columns()[column];
    const bool negative = is_signed(described.type);
    const auto bytes = column_bytes(schema, column, key, value);
    if (bytes.empty() || bytes.size() < described.width_bytes) return 0;
    const auto width = static_cast<std::uint32_t>(std::min<std::size_t>(bytes.size(), 8));
    if (column < schema.key_columns() && described.type != ColumnType::kFixed) {
        return decode_key_integer(bytes.data(), width, negative);
    }
    const std::uint64_t bits = load_little_endian(bytes.data(), width);
    return negative ? sign_extended(bits, width) : bits;
}

// ---- RowBuilder ---------------------------------------------------------------------------------

namespace {

// Where a fixed column lies in the encodings under construction.
std::byte* place_of(const Schema& schema, std::uint32_t column, std::vector<std::byte>& key,
                    std::vector<std::byte>& fixed) {
    std::vector<std::byte>& part = column < schema.key_columns() ? key : fixed;
    return part.data() + schema.offset_bytes(column);
}

void store_integer(std::byte* to, std::uint64_t bits, const Column& column, bool in_key) {
    if (in_key) return encode_key_integer(to, bits, column.width_bytes, is_signed(column.type));
    std::memcpy(to, &bits, column.width_bytes);
}

Failure wrong_type(const Column& column, std::string_view given) {
    return invalid("column " + quoted(column.name) + " is " + describe(column) + ", not " +
                   std::string(given));
}

template <class Number>
Failure out_of_range(const Column& column, Number value) {
    return Failure{Error::kOutOfRange, "column " + quoted(column.name) + ": " +
                                           std::to_string(value) + " does not fit " +
                                           describe(column)};
}

}  // namespace

RowBuilder::RowBuilder(const Schema& schema)
    : schema_(schema),
      key_(schema.key_bytes()),
      fixed_(schema.fixed_bytes()),
      variable_(schema.variable_columns()) {
    clear();
}

void RowBuilder::clear() {
    std::fill(fixed_.begin(), fixed_.end(), std::byte{0});
    for (auto& bytes : variable_) bytes.clear();
    std::fill(key_.begin(), key_.end(), std::byte{0});
    // The zero of a signed integer in a key is not all zero bits.
    for (std::uint32_t i = 0; i < schema_.key_columns(); ++i) {
        const Column& column = schema_.columns()[i];
        if (is_signed(column.type)) {
            store_integer(place_of(schema_, i, key_, fixed_), 0, column, true);
        }
    }
}

Status RowBuilder::set_unsigned(std::uint32_t column, std::uint64_t value) {
    const Column& described = schema_.columns()[column];
    if (!is_integer(described.type) && described.type != ColumnType::kTimestamp) {
        return wrong_type(described, "an integer");
    }
    const std::uint32_t bits = 8u * described.width_bytes - (is_signed(described.type) ? 1 : 0);
    if (bits < 64 && value >> bits != 0) return out_of_range(described, value);
    store_integer(place_of(schema_, column, key_, fixed_), value, described,
                  column < schema_.key_columns());
    return {};
}

Status RowBuilder::set_signed(std::uint32_t column, std::int64_t value) {
    if (value >= 0) return set_unsigned(column, static_cast<std::uint64_t>(value));
    const Column& described = schema_.columns()[column];
    if (!is_integer(described.type) && described.type != ColumnType::kTimestamp) {
        return wrong_type(described, "an integer");
    }
    const std::int64_t least =
        -1 - static_cast<std::int64_t>((std::uint64_t{1} << (8 * described.width_bytes - 1)) - 1);
    if (!is_signed(described.type) || value < least) return out_of_range(described, value);
    store_integer(place_of(schema_, column, key_, fixed_), static_cast<std::uint64_t>(value),
                  described, column < schema_.key_columns());
    return {};
}

Status RowBuilder::set_float(std::uint32_t column, double value) {
    const Column& described = schema_.columns()[column];
    if (!is_float(described.type)) return wrong_type(described, "a float");
    std::byte* to = place_of(schema_, column, key_, fixed_);
    if (described.type == ColumnType::kF64) {
        std::memcpy(to, &value, sizeof value);
        return {};
    }
    if (std::isfinite(value) && std::abs(value) > std::numeric_limits<float>::max()) {
        return out_of_range(described, value);
    }
    const auto narrow = static_cast<float>(value);
    std::memcpy(to, &narrow, sizeof narrow);
    return {};
}

Status RowBuilder::set_bytes(std::uint32_t column, std::span<const std::byte> value) {
    const Column& described = schema_.columns()[column];
    if (is_variable(described.type)) {
        if (value.size() > kLargeValueBytesMax) {
            return {Error::kTooLarge, "column " + quoted(described.name) + " has at most " +
                                          std::to_string(kLargeValueBytesMax) + " bytes, not " +
                                          std::to_string(value.size())};
        }
        variable_[schema_.variable_index(column)].assign(value.begin(), value.end());
        return {};
    }
    if (described.type != ColumnType::kFixed) return wrong_type(described, "bytes");
    if (value.size() != described.width_bytes) {
        return invalid("column " + quoted(described.name) + " has " +
                       std::to_string(described.width_bytes) + " bytes, not " +
                       std::to_string(value.size()));
    }
    std::memcpy(place_of(schema_, column, key_, fixed_), value.data(), value.size());
    return {};
}

Result<std::span<const std::byte>> RowBuilder::value() {
    // Fixed columns fit a page: Schema::make() saw to it.
    if (variable_.empty()) return std::span<const std::byte>(fixed_);
    std::vector<ColumnContent> contents;
    for (const auto& bytes : variable_) contents.push_back({bytes, false});
    value_.resize(row_value_bytes(schema_, contents));
    write_row_value(value_.data(), schema_, fixed_, contents);
    const RowView row(schema_, value_);
    if (row.wide() && !plan_row(schema_, row).fits) {
        return Failure{Error::kTooLarge,
                       "row for table " + quoted(schema_.name()) + ": its key, fixed columns and " +
                           std::to_string(kReferenceBytesMax) + " bytes for each of its large " +
                           "ones exceed the " + std::to_string(kRowBytesMax) + " of a page"};
    }
    return std::span<const std::byte>(value_);
}

}  // namespace bidstore
