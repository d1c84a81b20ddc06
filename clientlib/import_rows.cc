#include "clientlib/import_rows.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "clientlib/import_decode.h"
#include "clientlib/import_json.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kNoPath = ~std::uint32_t{0};

std::span<const std::byte> as_bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

bool gives_time(Decode decode) {
    return decode == Decode::kFloatSeconds || decode == Decode::kMilliseconds ||
           decode == Decode::kMicroseconds;
}
bool gives_bytes(Decode decode) { return decode == Decode::kText || decode >= Decode::kHex; }

// Whether what `decode` gives can go into a column of `type`.
bool fits(Decode decode, ColumnType type) {
    if (holds_bytes(type)) return gives_bytes(decode);
    if (is_float(type)) return decode == Decode::kFloat;
    if (gives_time(decode)) return type == ColumnType::kTimestamp || type == ColumnType::kU64;
    return decode == Decode::kInteger || decode == Decode::kBoolean;
}

std::optional<Decode> usual_decode(ColumnType type) {
    if (is_variable(type)) return Decode::kText;
    if (is_float(type)) return Decode::kFloat;
    if (is_integer(type)) return Decode::kInteger;
    return std::nullopt;  // a time's unit and the form of fixed bytes have to be said
}

FieldForm form_of(Decode decode) {
    if (decode == Decode::kList) return FieldForm::kList;
    return decode == Decode::kJson ? FieldForm::kJson : FieldForm::kScalar;
}

// A column of a mapping, bound to the schema and the source.
struct BoundColumn {
    ColumnMapping mapping;
    Column column;
    std::uint32_t index = 0;  // in the schema
    std::uint32_t path = kNoPath;
    Decode decode = Decode::kText;
    OnMissing on_missing = OnMissing::kDefault;
};

// Cuts `text` to at most `length` bytes without leaving part of a UTF-8 character.
std::string_view cut_text(std::string_view text, std::size_t length) {
    while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;
    return text.substr(0, length);
}

// The bytes that `text` stands for: `text` itself, or decoded into `scratch`.
Status decode_bytes(Decode decode, std::string_view text, std::string& scratch,
                    std::string_view& bytes) {
    switch (decode) {
        case Decode::kHex:
            return decode_hex(text, scratch, bytes);
        case Decode::kBase64:
            return decode_base64(text, Base64Alphabet::kStandard, scratch, bytes);
        case Decode::kBase64Url:
            return decode_base64(text, Base64Alphabet::kUrl, scratch, bytes);
        case Decode::kUuid: {
            auto uuid = decode_uuid(text);
            if (!uuid) return uuid.failure();
            scratch = std::move(*uuid);
            bytes = scratch;
            return {};
        }
        case Decode::kHost:
            scratch = decode_host(text);
            bytes = scratch;
            return {};
        case Decode::kText:
        case Decode::kList:
        case Decode::kJson:
        case Decode::kRawJson:
            bytes = text;
            return {};
        case Decode::kInteger:
        case Decode::kFloat:
        case Decode::kBoolean:
        case Decode::kFloatSeconds:
        case Decode::kMilliseconds:
        case Decode::kMicroseconds:
            CHECK(!"a decoder that gives no bytes");  // fits() refused it
    }
    return {};
}

// skip_prefix, length, pad, max_bytes. `bytes` may lie in `scratch`.
Status shape_bytes(const BoundColumn& bound, std::string_view& bytes, std::string& scratch) {
    const ColumnMapping& rule = bound.mapping;
    if (!rule.skip_prefix.empty() && bytes.starts_with(rule.skip_prefix)) {
        bytes.remove_prefix(rule.skip_prefix.size());
    }
    const std::size_t length = rule.length != 0 ? rule.length : bound.column.width_bytes;
    if (length != 0 && bytes.size() < length && rule.pad != Pad::kNone) {
        std::string padded(bytes);
        padded.insert(rule.pad == Pad::kLeft ? 0 : padded.size(), length - padded.size(), '\0');
        scratch = std::move(padded);
        bytes = scratch;
    }
    if (length != 0 && bytes.size() != length) {
        return {Error::kInvalid, "has " + std::to_string(bytes.size()) + " bytes where " +
                                     std::to_string(length) + " are wanted"};
    }
    if (rule.max_bytes == 0 || bytes.size() <= rule.max_bytes) return {};
    if (!rule.truncate) {
        return {Error::kInvalid, "has " + std::to_string(bytes.size()) + " bytes, max_bytes is " +
                                     std::to_string(rule.max_bytes)};
    }
    const bool text = bound.column.type == ColumnType::kText;
    bytes = text ? cut_text(bytes, rule.max_bytes) : bytes.substr(0, rule.max_bytes);
    return {};
}

Result<std::uint64_t> decode_time(Decode decode, std::string_view text, TimeUnit unit) {
    if (decode == Decode::kFloatSeconds) return decode_seconds(text, unit);
    const std::uint64_t per_second = decode == Decode::kMilliseconds ? 1'000 : 1'000'000;
    return decode_ticks(text, per_second, unit);
}

std::string_view boolean_digit(std::string_view text) {
    if (text == "true") return "1";
    if (text == "false") return "0";
    return text == "0" || text == "1" ? text : std::string_view("?");
}

Status set_number(RowBuilder& row, const BoundColumn& bound, std::string_view text, TimeUnit unit) {
    if (bound.decode == Decode::kFloat) {
        auto value = decode_float(text);
        return value ? row.set_float(bound.index, *value) : Status(value.failure());
    }
    if (gives_time(bound.decode)) {
        auto value = decode_time(bound.decode, text, unit);
        return value ? row.set_unsigned(bound.index, *value) : Status(value.failure());
    }
    std::string_view digits = text;
    if (bound.decode == Decode::kBoolean) digits = boolean_digit(text);
    if (digits == "?") {
        return {Error::kInvalid, "not true or false: " + in_quotes(text)};
    }
    if (is_signed(bound.column.type)) {
        auto value = decode_signed(digits);
        return value ? row.set_signed(bound.index, *value) : Status(value.failure());
    }
    auto value = decode_unsigned(digits);
    return value ? row.set_unsigned(bound.index, *value) : Status(value.failure());
}

Status set_column(RowBuilder& row, const BoundColumn& bound, std::string_view text, TimeUnit unit,
                  std::string& scratch) {
    if (!gives_bytes(bound.decode)) return set_number(row, bound, text, unit);
    std::string_view bytes;
    Status decoded = decode_bytes(bound.decode, text, scratch, bytes);
    if (!decoded) return decoded;
    if (Status shaped = shape_bytes(bound, bytes, scratch); !shaped) return shaped;
    if (bound.column.type == ColumnType::kText && !valid_utf8(bytes)) {
        return {Error::kInvalid, "not UTF-8"};
    }
    return row.set_bytes(bound.index, as_bytes(bytes));
}

// Row builders name the column themselves; everything else gets it here.
Failure naming(const BoundColumn& bound, const Failure& failure) {
    if (failure.what.starts_with("column ")) return failure;
    return {failure.code, "column " + bound.column.name + ": " + failure.what};
}

}  // namespace

// One [[table]] block at work.
class RowMapper::TableRows {
  public:
    TableRows(const TableMapping& mapping, const Schema& schema, RecordSource& source,
              std::uint32_t table)
        : mapping_(mapping), schema_(schema), source_(source), table_(table), row_(schema) {}

    Status bind();
    // `there`: whether the record has a row for this table.
    Status map(MappedRow& row, bool& there);

  private:
    enum class Filled : std::uint8_t { kSet, kSkipRow, kKeep };

    Result<BoundColumn> bind_column(const ColumnMapping& mapping);
    Status bind_missing(BoundColumn& bound);
    Status check_column(const BoundColumn& bound);
    Status fill(const BoundColumn& bound, Filled& filled);
    Status find(const BoundColumn& bound, Field& field);
    Status finish(MappedRow& row);
    Status change(const BoundColumn& bound, std::span<const std::byte> value);
    bool in_key(const BoundColumn& bound) const { return bound.index < schema_.key_columns(); }

    TableMapping mapping_;
    const Schema& schema_;
    RecordSource& source_;
    std::uint32_t table_;
    RowBuilder row_;
    std::string scratch_;  // of the column that is being filled
    std::vector<BoundColumn> columns_;
    std::vector<const BoundColumn*> filled_;
    std::vector<ColumnChange> changes_;
};

Status RowMapper::TableRows::bind_missing(BoundColumn& bound) {
    const bool adds = mapping_.mode == RowMode::kAdd;
    OnMissing rule = bound.mapping.on_missing;
    if (rule == OnMissing::kUnsaid && bound.mapping.fallback) rule = OnMissing::kDefault;
    if (rule == OnMissing::kUnsaid && in_key(bound)) rule = OnMissing::kError;
    if (rule == OnMissing::kUnsaid) rule = adds ? OnMissing::kKeep : OnMissing::kDefault;
    if (rule == OnMissing::kKeep && in_key(bound)) {
        return {Error::kInvalid, "on_missing = \"keep\" cannot be used for a key column"};
    }
    bound.on_missing = rule;
    return {};
}

Status RowMapper::TableRows::check_column(const BoundColumn& bound) {
    if (bound.mapping.add != AddKind::kNone && (in_key(bound) || !is_integer(bound.column.type))) {
        return {Error::kInvalid, "add works on integer columns outside the key; this is " +
                                     type_text(bound.column) +
                                     (in_key(bound) ? " in the key" : "")};
    }
    if (bound.mapping.add == AddKind::kValue && bound.column.type == ColumnType::kU64) {
        return {Error::kInvalid, "add = \"value\" needs a signed or a narrower column than u64"};
    }
    if (!fits(bound.decode, bound.column.type)) {
        return {Error::kInvalid, "its decoder does not give a " + type_text(bound.column)};
    }
    if (!bound.mapping.type.empty()) {
        auto wanted = parse_column(bound.mapping.name, bound.mapping.type);
        if (!wanted) return wanted.failure();
        if (*wanted != bound.column) {
            return {Error::kSchemaMismatch, "is " + bound.mapping.type + " in the mapping and " +
                                                type_text(bound.column) + " in the table"};
        }
    }
    return {};
}

Result<BoundColumn> RowMapper::TableRows::bind_column(const ColumnMapping& mapping) {
    BoundColumn bound;
    bound.mapping = mapping;
    const int index = schema_.find(mapping.name);
    if (index < 0) return {Error::kInvalid, "the table has no such column"};
    bound.index = static_cast<std::uint32_t>(index);
    bound.column = schema_.columns()[bound.index];
    const auto usual = usual_decode(bound.column.type);
    if (!mapping.decode && !usual) {
        return {Error::kInvalid, "needs decode = ..., a " + type_text(bound.column) +
                                     " can be written in several ways"};
    }
    bound.decode = mapping.decode ? *mapping.decode : *usual;
    if (Status missing = bind_missing(bound); !missing) return missing.failure();
    if (Status checked = check_column(bound); !checked) return checked.failure();
    if (!mapping.path.empty()) {
        auto path = source_.resolve(mapping.path);
        if (!path) return path.failure();
        bound.path = *path;
    }
    return bound;
}

Status RowMapper::TableRows::bind() {
    std::vector<bool> seen(schema_.columns().size());
    for (const ColumnMapping& mapping : mapping_.columns) {
        const std::string who = "table " + mapping_.name + ": column " + mapping.name + ": ";
        auto bound = bind_column(mapping);
        if (!bound) return {bound.error(), who + bound.failure().what};
        if (seen[bound->index]) return {Error::kInvalid, who + "is mapped twice"};
        seen[bound->index] = true;
        columns_.push_back(std::move(*bound));
    }
    for (std::uint32_t i = 0; i < schema_.key_columns(); ++i) {
        if (!seen[i]) {
            return {Error::kInvalid, "table " + mapping_.name + ": key column " +
                                         schema_.columns()[i].name + " is not mapped"};
        }
    }
    // Adds come first, because they make the row that the others change.
    std::stable_partition(columns_.begin(), columns_.end(), [](const BoundColumn& bound) {
        return bound.mapping.add != AddKind::kNone;
    });
    const bool adds = !columns_.empty() && columns_.front().mapping.add != AddKind::kNone;
    if (mapping_.mode == RowMode::kAdd && !adds) {
        return {Error::kInvalid,
                "table " + mapping_.name + ": mode \"add\" needs at least one column with add"};
    }
    return {};
}

Status RowMapper::TableRows::find(const BoundColumn& bound, Field& field) {
    if (bound.path != kNoPath) return source_.find(bound.path, form_of(bound.decode), field);
    field.missing = false;
    field.text = bound.decode == Decode::kRawJson ? source_.text() : *bound.mapping.constant;
    return {};
}

Status RowMapper::TableRows::fill(const BoundColumn& bound, Filled& filled) {
    filled = Filled::kSet;
    if (bound.mapping.add == AddKind::kConstant) return {};
    Field field;
    if (Status found = find(bound, field); !found) return naming(bound, found.failure());
    if (field.missing) {
        if (bound.on_missing == OnMissing::kSkip) filled = Filled::kSkipRow;
        if (bound.on_missing == OnMissing::kKeep) filled = Filled::kKeep;
        if (bound.on_missing == OnMissing::kError) {
            return naming(bound, {Error::kInvalid, "\"" + bound.mapping.path + "\" is missing"});
        }
        // Without one it is zero or empty, as clear() left it.
        if (filled != Filled::kSet || !bound.mapping.fallback) return {};
        field.text = *bound.mapping.fallback;
    }
    Status set = set_column(row_, bound, field.text, schema_.time_unit(), scratch_);
    return set.ok() ? set : naming(bound, set.failure());
}

Status RowMapper::TableRows::change(const BoundColumn& bound, std::span<const std::byte> value) {
    ColumnChange made;
    made.column = static_cast<std::uint16_t>(bound.index);
    made.is_add = bound.mapping.add != AddKind::kNone;
    if (bound.mapping.add == AddKind::kConstant) made.delta = bound.mapping.add_constant;
    if (bound.mapping.add == AddKind::kValue) {
        made.delta = static_cast<std::int64_t>(
            column_integer(schema_, bound.index, row_.key().data(), value));
    }
    if (!made.is_add) made.bytes = column_bytes(schema_, bound.index, row_.key().data(), value);
    changes_.push_back(made);
    return {};
}

Status RowMapper::TableRows::finish(MappedRow& row) {
    auto value = row_.value();
    if (!value) return {Error::kInvalid, "table " + mapping_.name + ": " + value.failure().what};
    row = {table_, mapping_.mode, row_.key(), *value, {}};
    if (mapping_.mode != RowMode::kAdd) return {};
    for (const BoundColumn* bound : filled_) {
        if (in_key(*bound)) continue;
        if (Status made = change(*bound, *value); !made) return made;
    }
    row.value = {};
    row.changes = changes_;
    return {};
}

Status RowMapper::TableRows::map(MappedRow& row, bool& there) {
    row_.clear();
    filled_.clear();
    changes_.clear();
    there = false;
    for (const BoundColumn& bound : columns_) {
        Filled filled{};
        if (Status done = fill(bound, filled); !done) return done;
        if (filled == Filled::kSkipRow) return {};
        if (filled == Filled::kSet) filled_.push_back(&bound);
    }
    there = true;
    return finish(row);
}

RowMapper::RowMapper(std::vector<std::unique_ptr<TableRows>> tables) : tables_(std::move(tables)) {}
RowMapper::RowMapper(RowMapper&&) noexcept = default;
RowMapper& RowMapper::operator=(RowMapper&&) noexcept = default;
RowMapper::~RowMapper() = default;

Result<RowMapper> RowMapper::make(const Mapping& mapping, std::span<const Schema* const> schemas,
                                  RecordSource& source) {
    CHECK_OP(mapping.tables.size(), ==, schemas.size());
    std::vector<std::unique_ptr<TableRows>> tables;
    for (std::size_t i = 0; i < schemas.size(); ++i) {
        tables.push_back(std::make_unique<TableRows>(mapping.tables[i], *schemas[i], source,
                                                     static_cast<std::uint32_t>(i)));
        if (Status bound = tables.back()->bind(); !bound) return bound.failure();
    }
    return RowMapper(std::move(tables));
}

Result<std::span<const MappedRow>> RowMapper::map() {
    rows_.clear();
    for (const auto& table : tables_) {
        bool there = false;
        if (Status mapped = table->map(rows_.emplace_back(), there); !mapped) {
            return mapped.failure();
        }
        if (!there) rows_.pop_back();
    }
    return std::span<const MappedRow>(rows_);
}

}  // namespace bidstore
