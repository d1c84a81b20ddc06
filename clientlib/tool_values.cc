#include "clientlib/tool_values.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "clientlib/import_decode.h"
#include "clientlib/import_json.h"
#include "clientlib/import_schema.h"
#include "clientlib/tool_output.h"

namespace bidstore {
namespace {

std::uint64_t wall_us() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

std::string bytes_of(std::span<const std::byte> bytes) {
    std::string out(bytes.size(), '\0');
    if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
}

std::string hex_of(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        out += "0123456789abcdef"[byte >> 4];
        out += "0123456789abcdef"[byte & 15];
    }
    return out;
}

double float_of(ColumnType type, std::span<const std::byte> bytes) {
    float narrow = 0;
    double wide = 0;
    if (type == ColumnType::kF32 && bytes.size() == sizeof(narrow)) {
        std::memcpy(&narrow, bytes.data(), sizeof(narrow));
        return static_cast<double>(narrow);
    }
    if (bytes.size() == sizeof(wide)) std::memcpy(&wide, bytes.data(), sizeof(wide));
    return wide;
}

std::string float_text(ColumnType type, double value) {
    std::array<char, 64> text{};
    const auto end = type == ColumnType::kF32
                         ? std::to_chars(text.data(), text.data() + text.size(),
                                         static_cast<float>(value))
                         : std::to_chars(text.data(), text.data() + text.size(), value);
    return std::string(text.data(), end.ptr);
}

// The bytes that a person wrote for a fixed or bytes column.
Result<std::string> parse_bytes(const Column& column, std::string_view text) {
    if (column.type == ColumnType::kText) {
        if (!valid_utf8(text)) return {Error::kInvalid, "not UTF-8"};
        return std::string(text);
    }
    if (text.starts_with("text:")) return std::string(text.substr(5));
    if (column.type == ColumnType::kFixed && column.width_bytes == 16 &&
        text.find('-') != std::string_view::npos) {
        return decode_uuid(text);
    }
    auto bytes = decode_hex(text);
    if (!bytes) return {Error::kInvalid, bytes.failure().what + "; write hex digits or text:..."};
    return bytes;
}

Status set_parsed(RowBuilder& row, const Schema& schema, const Assignment& assignment) {
    const Column& column = schema.columns()[assignment.column];
    if (holds_bytes(column.type)) {
        auto bytes = parse_bytes(column, assignment.value);
        if (!bytes) return bytes.failure();
        return row.set_bytes(assignment.column,
                             std::as_bytes(std::span(bytes->data(), bytes->size())));
    }
    if (is_float(column.type)) {
        auto value = decode_float(assignment.value);
        return value ? row.set_float(assignment.column, *value) : Status(value.failure());
    }
    if (is_signed(column.type)) {
        auto value = decode_signed(assignment.value);
        return value ? row.set_signed(assignment.column, *value) : Status(value.failure());
    }
    auto value = column.type == ColumnType::kTimestamp
                     ? parse_time(assignment.value, schema.time_unit(), wall_us())
                     : decode_unsigned(assignment.value);
    return value ? row.set_unsigned(assignment.column, *value) : Status(value.failure());
}

// "30s" behind "now-": ticks, or nothing.
bool parse_duration(std::string_view text, TimeUnit unit, std::uint64_t& ticks) {
    struct Suffix {
        std::string_view name;
        std::uint64_t us;
    };
    static constexpr std::array<Suffix, 6> kSuffixes{{{"us", 1},
                                                      {"ms", 1'000},
                                                      {"s", 1'000'000},
                                                      {"m", 60'000'000},
                                                      {"h", 3'600'000'000},
                                                      {"d", 86'400'000'000}}};
    std::uint64_t count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc()) return false;
    const std::string_view name = text.substr(static_cast<std::size_t>(end - text.data()));
    for (const Suffix& suffix : kSuffixes) {
        const std::uint64_t factor = suffix.us * (ticks_per_second(unit) / 1'000'000);
        if (name == suffix.name) return !__builtin_mul_overflow(count, factor, &ticks);
    }
    return false;
}

Failure no_time(std::string_view text) {
    return {Error::kInvalid, "not a time: " + in_quotes(text) +
                                 "; write 2012-01-11T00:00:00.064709Z, now, now-30s or a number"};
}

// Takes the date apart; the rest of the text is the fraction of a second.
bool parse_date(const std::string& text, std::tm& date, std::string_view& fraction) {
    for (const char* form : {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"}) {
        date = {};
        const char* end = ::strptime(text.c_str(), form, &date);
        if (end == nullptr) continue;
        fraction = std::string_view(text).substr(static_cast<std::size_t>(end - text.c_str()));
        if (fraction.ends_with('Z')) fraction.remove_suffix(1);
        if (fraction.empty() || fraction.front() == '.') return true;
    }
    return false;
}

}  // namespace

Result<std::uint64_t> parse_time(std::string_view text, TimeUnit unit, std::uint64_t now_us) {
    const std::uint64_t per_us = ticks_per_second(unit) / 1'000'000;
    if (text.starts_with("now")) {
        const std::uint64_t now = now_us * per_us;
        std::uint64_t back = 0;
        if (text == "now") return now;
        const bool good = text[3] == '-' && parse_duration(text.substr(4), unit, back);
        if (!good || back > now) return no_time(text);
        return now - back;
    }
    if (text.find('-') == std::string_view::npos) return decode_unsigned(text);
    std::tm date{};
    std::string_view fraction;
    const std::string whole(text);
    if (!parse_date(whole, date, fraction)) return no_time(text);
    const std::time_t seconds = ::timegm(&date);
    if (seconds < 0) return no_time(text);
    auto rest = fraction.empty() ? Result<std::uint64_t>(std::uint64_t{0})
                                 : decode_seconds(std::string("0").append(fraction), unit);
    if (!rest) return no_time(text);
    return static_cast<std::uint64_t>(seconds) * ticks_per_second(unit) + *rest;
}

std::string time_text(std::uint64_t ticks, TimeUnit unit) {
    const std::uint64_t per_second = ticks_per_second(unit);
    const auto seconds = static_cast<std::time_t>(ticks / per_second);
    std::tm date{};
    if (::gmtime_r(&seconds, &date) == nullptr) return std::to_string(ticks);
    std::array<char, 64> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &date);
    std::string out = text.data();
    const int digits = unit == TimeUnit::kMicroseconds ? 6 : 9;
    std::snprintf(text.data(), text.size(), ".%0*lluZ", digits,
                  static_cast<unsigned long long>(ticks % per_second));
    return out + text.data();
}

Result<std::vector<Assignment>> parse_assignments(const Schema& schema,
                                                  std::span<const std::string> texts) {
    std::vector<Assignment> assignments;
    for (const std::string& text : texts) {
        const std::size_t equals = text.find('=');
        if (equals == std::string::npos) {
            return {Error::kInvalid, in_quotes(text) + ": write column=value"};
        }
        const std::string name = text.substr(0, equals);
        const int column = schema.find(name);
        if (column < 0) {
            return {Error::kInvalid, "table " + schema.name() + " has no column " + name +
                                         "; `bidstore table show " + schema.name() +
                                         "` lists them"};
        }
        const auto index = static_cast<std::uint32_t>(column);
        for (const Assignment& earlier : assignments) {
            if (earlier.column == index) {
                return {Error::kInvalid, "column " + name + " is given twice"};
            }
        }
        assignments.push_back({index, text.substr(equals + 1)});
    }
    return assignments;
}

Status set_value(RowBuilder& row, const Schema& schema, const Assignment& assignment) {
    Status set = set_parsed(row, schema, assignment);
    if (set.ok() || set.failure().what.starts_with("column ")) return set;
    const Column& column = schema.columns()[assignment.column];
    return {set.error(), "column " + column.name + " (" + type_text(column) + "): " +
                             set.failure().what};
}

Result<std::vector<std::byte>> encode_key(const Schema& schema,
                                          std::span<const std::string> texts) {
    auto assignments = parse_assignments(schema, texts);
    if (!assignments) return assignments.failure();
    RowBuilder row(schema);
    row.clear();
    std::vector<bool> given(schema.columns().size());
    for (const Assignment& assignment : *assignments) {
        if (assignment.column >= schema.key_columns()) {
            return {Error::kInvalid, "column " + schema.columns()[assignment.column].name +
                                         " is not part of the key"};
        }
        given[assignment.column] = true;
        if (Status set = set_value(row, schema, assignment); !set) return set.failure();
    }
    for (std::uint32_t i = 0; i < schema.key_columns(); ++i) {
        if (!given[i]) {
            return {Error::kInvalid, "key column " + schema.columns()[i].name + " is missing"};
        }
    }
    return std::vector<std::byte>(row.key().begin(), row.key().end());
}

Result<std::vector<std::byte>> encode_prefix(const Schema& schema, std::string_view text) {
    const std::vector<std::string> texts = split_names(text);
    auto assignments = parse_assignments(schema, texts);
    if (!assignments) return assignments.failure();
    RowBuilder row(schema);
    row.clear();
    std::uint32_t bytes = 0;
    std::sort(assignments->begin(), assignments->end(),
              [](const Assignment& a, const Assignment& b) { return a.column < b.column; });
    for (std::uint32_t i = 0; i < assignments->size(); ++i) {
        const Assignment& assignment = (*assignments)[i];
        if (assignment.column != i || i >= schema.key_columns()) {
            return {Error::kInvalid, "a bound names the first key columns: " +
                                         in_quotes(schema.columns()[std::min<std::size_t>(
                                             i, schema.key_columns() - 1u)].name) +
                                         " is missing or a column is not in the key"};
        }
        if (Status set = set_value(row, schema, assignment); !set) return set.failure();
        const auto stored = column_bytes(schema, i, row.key().data(), {});
        CHECK_OP(stored.size(), >, 0u);
        bytes = schema.offset_bytes(i) + static_cast<std::uint32_t>(stored.size());
    }
    return std::vector<std::byte>(row.key().begin(), row.key().begin() + bytes);
}

std::string value_text(const Schema& schema, std::uint32_t column, std::span<const std::byte> key,
                       std::span<const std::byte> value) {
    const ColumnType type = schema.columns()[column].type;
    if (type == ColumnType::kTimestamp) {
        return time_text(column_integer(schema, column, key.data(), value), schema.time_unit());
    }
    if (type == ColumnType::kText) return bytes_of(column_bytes(schema, column, key.data(), value));
    if (holds_bytes(type)) {
        return hex_of(bytes_of(column_bytes(schema, column, key.data(), value)));
    }
    return value_json(schema, column, key, value);
}

std::string value_json(const Schema& schema, std::uint32_t column, std::span<const std::byte> key,
                       std::span<const std::byte> value) {
    const ColumnType type = schema.columns()[column].type;
    if (is_float(type)) {
        const double number = float_of(type, column_bytes(schema, column, key.data(), value));
        return std::isfinite(number) ? float_text(type, number) : "null";
    }
    if (holds_bytes(type)) return json_string(value_text(schema, column, key, value));
    const std::uint64_t bits = column_integer(schema, column, key.data(), value);
    return is_signed(type) ? std::to_string(static_cast<std::int64_t>(bits))
                           : std::to_string(bits);
}

std::string row_json(const Schema& schema, std::span<const std::byte> key,
                     std::span<const std::byte> value) {
    JsonLine line;
    for (std::uint32_t i = 0; i < schema.columns().size(); ++i) {
        line.raw(schema.columns()[i].name, value_json(schema, i, key, value));
    }
    return line.str();
}

}  // namespace bidstore
