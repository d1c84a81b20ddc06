#include "clientlib/import_schema.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace bidstore {
namespace {

constexpr std::array kPlainTypes{
    ColumnType::kU8,  ColumnType::kU16, ColumnType::kU32,       ColumnType::kU64,
    ColumnType::kI8,  ColumnType::kI16, ColumnType::kI32,       ColumnType::kI64,
    ColumnType::kF32, ColumnType::kF64, ColumnType::kTimestamp, ColumnType::kBytes,
    ColumnType::kText};

std::uint16_t plain_width(ColumnType type) {
    switch (type) {
        case ColumnType::kU8:
        case ColumnType::kI8: return 1;
        case ColumnType::kU16:
        case ColumnType::kI16: return 2;
        case ColumnType::kU32:
        case ColumnType::kI32:
        case ColumnType::kF32: return 4;
        case ColumnType::kU64:
        case ColumnType::kI64:
        case ColumnType::kF64:
        case ColumnType::kTimestamp: return 8;
        case ColumnType::kFixed:
        case ColumnType::kBytes:
        case ColumnType::kText: return 0;
    }
    return 0;
}

// The 16 of "fixed(16)", or 0.
std::uint16_t fixed_width(std::string_view type) {
    if (!type.starts_with("fixed(") || !type.ends_with(")")) return 0;
    type.remove_prefix(6);
    type.remove_suffix(1);
    std::uint16_t width = 0;
    const auto [end, error] = std::from_chars(type.data(), type.data() + type.size(), width);
    return error == std::errc() && end == type.data() + type.size() ? width : std::uint16_t{0};
}

const Column* find_column(const TableText& table, const std::string& name) {
    for (const Column& column : table.columns) {
        if (column.name == name) return &column;
    }
    return nullptr;
}

bool in_key(const TableText& table, const Column& column) {
    return std::find(table.key.begin(), table.key.end(), column.name) != table.key.end();
}

}  // namespace

Result<Column> parse_column(std::string_view name, std::string_view type) {
    for (const ColumnType plain : kPlainTypes) {
        if (type == column_type_name(plain)) {
            return Column{std::string(name), plain, plain_width(plain)};
        }
    }
    if (const std::uint16_t width = fixed_width(type); width > 0) {
        return Column{std::string(name), ColumnType::kFixed, width};
    }
    return {Error::kInvalid, "column " + std::string(name) + ": no type \"" + std::string(type) +
                                 "\"; there are u8 to u64, i8 to i64, f32, f64, timestamp, "
                                 "fixed(N), bytes, text"};
}

Result<Column> parse_column(std::string_view name_and_type) {
    const std::size_t colon = name_and_type.find(':');
    if (colon == std::string_view::npos) {
        return {Error::kInvalid, "column \"" + std::string(name_and_type) +
                                     "\": write it as name:type, for example price:u32"};
    }
    return parse_column(name_and_type.substr(0, colon), name_and_type.substr(colon + 1));
}

std::string type_text(const Column& column) {
    std::string text(column_type_name(column.type));
    if (column.type != ColumnType::kFixed) return text;
    text.append("(").append(std::to_string(column.width_bytes)).append(")");
    return text;
}

std::vector<std::string> split_names(std::string_view text) {
    std::vector<std::string> names;
    while (!text.empty()) {
        const std::size_t comma = std::min(text.find(','), text.size());
        names.emplace_back(text.substr(0, comma));
        text.remove_prefix(std::min(comma + 1, text.size()));
    }
    return names;
}

Result<Schema> make_schema(const TableText& table) {
    std::vector<Column> ordered;
    for (const std::string& name : table.key) {
        const Column* column = find_column(table, name);
        if (column == nullptr) {
            return {Error::kInvalid, "key column " + name + " is not among the columns"};
        }
        ordered.push_back(*column);
    }
    for (const bool variable : {false, true}) {
        for (const Column& column : table.columns) {
            if (in_key(table, column)) continue;
            if (is_variable(column.type) == variable) ordered.push_back(column);
        }
    }
    std::uint16_t time = kNoTimeColumn;
    for (std::size_t i = 0; i < ordered.size(); ++i) {
        if (!table.time.empty() && ordered[i].name == table.time) {
            time = static_cast<std::uint16_t>(i);
        }
    }
    if (!table.time.empty() && time == kNoTimeColumn) {
        return {Error::kInvalid, "time column " + table.time + " is not among the columns"};
    }
    if (!table.time_unit.empty() && table.time_unit != "us" && table.time_unit != "ns") {
        return {Error::kInvalid, "time unit \"" + table.time_unit + "\": write us or ns"};
    }
    const TimeUnit unit =
        table.time_unit == "ns" ? TimeUnit::kNanoseconds : TimeUnit::kMicroseconds;
    return Schema::make(table.name, std::move(ordered),
                        static_cast<std::uint16_t>(table.key.size()), time, unit);
}

namespace {

struct RetentionUnit {
    std::string_view name;
    std::uint64_t us;
};
constexpr RetentionUnit kRetentionUnits[] = {{"d", 86'400'000'000},
                                             {"h", 3'600'000'000},
                                             {"min", 60'000'000},
                                             {"s", 1'000'000},
                                             {"ms", 1'000},
                                             {"us", 1}};

}  // namespace

Result<std::uint64_t> parse_retention(std::string_view text) {
    if (text == "off" || text.empty()) return std::uint64_t{0};
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
    for (const RetentionUnit& known : kRetentionUnits) {
        std::uint64_t us = 0;
        if (error != std::errc{} || unit != known.name || number == 0) continue;
        if (!__builtin_mul_overflow(number, known.us, &us)) return us;
    }
    return {Error::kInvalid, "retention \"" + std::string(text) +
                                 "\": write a number with d, h, min, s, ms or us, as in 72h, or "
                                 "off"};
}

std::string retention_text(std::uint64_t retain_us) {
    if (retain_us == 0) return "off";
    for (const RetentionUnit& unit : kRetentionUnits) {
        const bool whole = retain_us % unit.us == 0;
        if (whole) return std::to_string(retain_us / unit.us) + std::string(unit.name);
    }
    return "";
}

}  // namespace bidstore
