#include "clientlib/import_mapping.h"

#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

namespace bidstore {
namespace {

template <class T>
struct Word {
    std::string_view text;
    T value;
};

constexpr std::array<Word<Decode>, 15> kDecodes{{
    {"text", Decode::kText},
    {"integer", Decode::kInteger},
    {"float", Decode::kFloat},
    {"boolean", Decode::kBoolean},
    {"float_seconds", Decode::kFloatSeconds},
    {"milliseconds", Decode::kMilliseconds},
    {"microseconds", Decode::kMicroseconds},
    {"hex", Decode::kHex},
    {"uuid", Decode::kUuid},
    {"base64", Decode::kBase64},
    {"base64url", Decode::kBase64Url},
    {"host", Decode::kHost},
    {"list", Decode::kList},
    {"json", Decode::kJson},
    {"raw_json", Decode::kRawJson},
}};
constexpr std::array<Word<RowMode>, 3> kModes{
    {{"put", RowMode::kPut}, {"insert", RowMode::kInsert}, {"add", RowMode::kAdd}}};
constexpr std::array<Word<OnMissing>, 4> kOnMissing{{{"error", OnMissing::kError},
                                                     {"default", OnMissing::kDefault},
                                                     {"skip", OnMissing::kSkip},
                                                     {"keep", OnMissing::kKeep}}};
constexpr std::array<Word<Pad>, 2> kPads{{{"left", Pad::kLeft}, {"right", Pad::kRight}}};
constexpr std::array<Word<bool>, 2> kTooLong{{{"error", false}, {"truncate", true}}};

// Reads one file. The first error stays; what is read behind it is not looked at.
class MappingReader {
  public:
    explicit MappingReader(std::string_view origin) : origin_(origin) {}

    Result<Mapping> read(const toml::table& root);

  private:
    void fail(const toml::source_region& at, std::string what);
    void table_block(const toml::table& block, TableMapping& out);
    void column_block(const toml::table& block, ColumnMapping& out);
    bool column_key(std::string_view key, const toml::node& node, ColumnMapping& out);
    bool column_rule(std::string_view key, const toml::node& node, ColumnMapping& out);
    void check(const toml::table& block, const ColumnMapping& column);

    void text(std::string_view key, const toml::node& node, std::string& out);
    void literal(std::string_view key, const toml::node& node, std::optional<std::string>& out);
    void count(std::string_view key, const toml::node& node, std::uint32_t& out);
    void names(std::string_view key, const toml::node& node, std::vector<std::string>& out);
    void add_value(const toml::node& node, ColumnMapping& out);
    void prefix(const toml::node& node, std::string& out);
    template <class T, std::size_t count_of, class Out>
    void word(std::string_view key, const toml::node& node,
              const std::array<Word<T>, count_of>& words, Out& out);

    std::string origin_;
    Failure failure_;
};

void MappingReader::fail(const toml::source_region& at, std::string what) {
    if (failure_.code != Error::kOk) return;
    failure_ = {Error::kInvalid,
                origin_ + ":" + std::to_string(at.begin.line) + ": " + std::move(what)};
}

void MappingReader::text(std::string_view key, const toml::node& node, std::string& out) {
    const auto value = node.value_exact<std::string>();
    if (!value) return fail(node.source(), std::string(key) + " must be a string");
    out = *value;
}

void MappingReader::literal(std::string_view key, const toml::node& node,
                            std::optional<std::string>& out) {
    std::ostringstream written;
    if (const auto value = node.value_exact<std::string>()) {
        written << *value;
    } else if (const auto integer = node.value_exact<std::int64_t>()) {
        written << *integer;
    } else if (const auto number = node.value_exact<double>()) {
        written.precision(std::numeric_limits<double>::max_digits10);
        written << *number;
    } else if (const auto boolean = node.value_exact<bool>()) {
        written << (*boolean ? "true" : "false");
    } else {
        return fail(node.source(), std::string(key) + " must be a string, number or boolean");
    }
    out = written.str();
}

void MappingReader::count(std::string_view key, const toml::node& node, std::uint32_t& out) {
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < 1 || *value > 65535) {
        return fail(node.source(), std::string(key) + " must be a number from 1 to 65535");
    }
    out = static_cast<std::uint32_t>(*value);
}

void MappingReader::names(std::string_view key, const toml::node& node,
                          std::vector<std::string>& out) {
    const toml::array* list = node.as_array();
    if (list == nullptr || !list->is_homogeneous<std::string>()) {
        return fail(node.source(), std::string(key) + " must be a list of column names");
    }
    for (const toml::node& element : *list) out.push_back(*element.value<std::string>());
}

template <class T, std::size_t count_of, class Out>
void MappingReader::word(std::string_view key, const toml::node& node,
                         const std::array<Word<T>, count_of>& words, Out& out) {
    const std::string given = node.value_exact<std::string>().value_or("");
    std::string all;
    for (const Word<T>& candidate : words) {
        if (given == candidate.text) {
            out = candidate.value;
            return;
        }
        all += (all.empty() ? "\"" : ", \"") + std::string(candidate.text) + "\"";
    }
    fail(node.source(), std::string(key) + " must be one of " + all);
}

void MappingReader::add_value(const toml::node& node, ColumnMapping& out) {
    if (const auto constant = node.value_exact<std::int64_t>()) {
        out.add = AddKind::kConstant;
        out.add_constant = *constant;
    } else if (node.value_exact<std::string>() == "value") {
        out.add = AddKind::kValue;
    } else {
        fail(node.source(), "add must be a whole number or \"value\"");
    }
}

void MappingReader::prefix(const toml::node& node, std::string& out) {
    std::string hex;
    text("skip_prefix", node, hex);
    auto bytes = decode_hex(hex);
    if (!bytes) return fail(node.source(), "skip_prefix: " + bytes.failure().what);
    out = *bytes;
}

bool MappingReader::column_key(std::string_view key, const toml::node& node, ColumnMapping& out) {
    if (key == "name") text(key, node, out.name);
    else if (key == "type") text(key, node, out.type);
    else if (key == "path") text(key, node, out.path);
    else if (key == "constant") literal(key, node, out.constant);
    else if (key == "default") literal(key, node, out.fallback);
    else if (key == "decode") word(key, node, kDecodes, out.decode);
    else return column_rule(key, node, out);
    return true;
}

bool MappingReader::column_rule(std::string_view key, const toml::node& node, ColumnMapping& out) {
    if (key == "skip_prefix") prefix(node, out.skip_prefix);
    else if (key == "length") count(key, node, out.length);
    else if (key == "pad") word(key, node, kPads, out.pad);
    else if (key == "on_missing") word(key, node, kOnMissing, out.on_missing);
    else if (key == "max_bytes") count(key, node, out.max_bytes);
    else if (key == "too_long") word(key, node, kTooLong, out.truncate);
    else if (key == "add") add_value(node, out);
    else return false;
    return true;
}

// What the keys of a column mean together.
void MappingReader::check(const toml::table& block, const ColumnMapping& column) {
    if (column.name.empty()) return fail(block.source(), "a column without a name");
    const std::string who = "column " + column.name + ": ";
    const bool raw = column.decode == Decode::kRawJson;
    const bool counted = column.add == AddKind::kConstant;
    const int sources = (column.path.empty() ? 0 : 1) + (column.constant ? 1 : 0) +
                        (raw ? 1 : 0) + (counted ? 1 : 0);
    if (sources == 0) fail(block.source(), who + "needs a path, a constant, or add = 1");
    if (sources > 1) {
        fail(block.source(), who + "path, constant, raw_json and a fixed add exclude each other");
    }
    if (column.truncate && column.max_bytes == 0) {
        fail(block.source(), who + "too_long = \"truncate\" needs max_bytes");
    }
}

void MappingReader::column_block(const toml::table& block, ColumnMapping& out) {
    for (const auto& [key, node] : block) {
        if (!column_key(key.str(), node, out)) {
            fail(key.source(), "unknown key \"" + std::string(key.str()) + "\" of a column");
        }
    }
    check(block, out);
}

void MappingReader::table_block(const toml::table& block, TableMapping& out) {
    const toml::array* columns = nullptr;
    for (const auto& [key, node] : block) {
        const std::string_view name = key.str();
        if (name == "name") text(name, node, out.name);
        else if (name == "mode") word(name, node, kModes, out.mode);
        else if (name == "key") names(name, node, out.key);
        else if (name == "time") text(name, node, out.time);
        else if (name == "time_unit") text(name, node, out.time_unit);
        else if (name == "retain") text(name, node, out.retain);
        else if (name == "columns") columns = node.as_array();
        else fail(key.source(), "unknown key \"" + std::string(name) + "\" of a table");
    }
    if (out.name.empty()) return fail(block.source(), "a table without a name");
    if (columns == nullptr || columns->empty()) {
        return fail(block.source(), "table " + out.name + ": columns must be a list of columns");
    }
    for (const toml::node& node : *columns) {
        const toml::table* column = node.as_table();
        if (column == nullptr) return fail(node.source(), "a column must be { name = ..., ... }");
        column_block(*column, out.columns.emplace_back());
        const bool counts = out.columns.back().add != AddKind::kNone;
        const bool keeps = out.columns.back().on_missing == OnMissing::kKeep;
        if ((counts || keeps) && out.mode != RowMode::kAdd) {
            fail(node.source(), "column " + out.columns.back().name +
                                    ": add and keep need mode = \"add\" of the table");
        }
    }
}

Result<Mapping> MappingReader::read(const toml::table& root) {
    Mapping mapping;
    const toml::array* blocks = nullptr;
    for (const auto& [key, node] : root) {
        if (key.str() == "table" && node.is_array_of_tables()) blocks = node.as_array();
        else fail(key.source(), "unknown key \"" + std::string(key.str()) +
                                    "\"; a mapping file is made of [[table]] blocks");
    }
    if (blocks == nullptr) fail({}, "no [[table]] block");
    if (failure_.code != Error::kOk) return failure_;
    for (const toml::node& node : *blocks) {
        table_block(*node.as_table(), mapping.tables.emplace_back());
    }
    if (failure_.code != Error::kOk) return failure_;
    return mapping;
}

}  // namespace

Result<Mapping> parse_mapping(std::string_view text, std::string_view origin) {
    // The one place of the import where a library throws.
    try {
        return MappingReader(origin).read(toml::parse(text, origin));
    } catch (const toml::parse_error& error) {
        return {Error::kInvalid, std::string(origin) + ":" +
                                     std::to_string(error.source().begin.line) + ": " +
                                     std::string(error.description())};
    }
}

Result<Mapping> load_mapping(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    if (file) text << file.rdbuf();
    if (!file) return {Error::kIoError, path + ": cannot be read: " + std::strerror(errno)};
    return parse_mapping(text.str(), path);
}

Result<Schema> mapping_schema(const TableMapping& table) {
    TableText text{table.name, {}, table.key, table.time, table.time_unit};
    if (table.key.empty()) {
        return {Error::kInvalid, "table " + table.name + ": key = [...] says which columns form "
                                                         "the key; it is missing"};
    }
    for (const ColumnMapping& column : table.columns) {
        auto parsed = parse_column(column.name, column.type);
        if (!parsed) {
            return {Error::kInvalid, "table " + table.name + ": " + parsed.failure().what};
        }
        text.columns.push_back(*parsed);
    }
    return make_schema(text);
}

}  // namespace bidstore
