// Importing any bytes, as JSON lines or as CSV, plain or compressed, by a mapping that has every
// decoder: each record becomes valid rows or is refused with a reason. Read in blocks, as a bulk
// load does, the same file gives the same rows, from the same lines.
//
// Input: a byte that chooses the form, then the file.
#include <optional>
#include <vector>

#include "clientlib/import.h"
#include "clientlib/import_rows.h"
#include "clientlib/load_lines.h"
#include "tests/fuzz.h"

namespace bidstore {
namespace {

// The names are those of a CSV header, and of members on the first level.
// clang-format off: it takes what is in the literal for code
constexpr std::string_view kMapping = R"toml(
[[table]]
name = "rows"
key = ["time", "id"]
time = "time"
columns = [
    { name = "time", type = "timestamp", path = "time", decode = "milliseconds" },
    { name = "id", type = "fixed(16)", path = "id", decode = "uuid" },
    { name = "seconds", type = "u64", path = "seconds", decode = "float_seconds", default = "1" },
    { name = "micros", type = "u64", path = "micros", decode = "microseconds", default = "1" },
    { name = "small", type = "i8", path = "small", default = "-1" },
    { name = "count", type = "u32", path = "count", decode = "integer", default = "7" },
    { name = "price", type = "f64", path = "price", default = "0.5" },
    { name = "ratio", type = "f32", path = "ratio", decode = "float", default = "0" },
    { name = "flag", type = "u8", path = "flag", decode = "boolean", default = "0" },
    { name = "hash", type = "fixed(8)", path = "hash", decode = "hex", pad = "left" },
    { name = "word", type = "text", path = "word", max_bytes = 40, too_long = "truncate" },
    { name = "host", type = "text", path = "host", decode = "host", default = "" },
    { name = "list", type = "text", path = "list", decode = "list", default = "" },
    { name = "user", type = "bytes", path = "user", decode = "base64url", default = "" },
    { name = "proto", type = "bytes", path = "proto", decode = "base64", default = "" },
]
)toml";

constexpr std::string_view kLineMapping = R"toml(
[[table]]
name = "lines"
key = ["id"]
columns = [
    { name = "id", type = "u64", path = "a.b[1].c", decode = "integer" },
    { name = "part", type = "text", path = "a", decode = "json", default = "" },
    { name = "line", type = "text", decode = "raw_json" },
]
[[table]]
name = "sums"
mode = "add"
key = ["word"]
columns = [
    { name = "word", type = "fixed(12)", path = "word", decode = "text", pad = "right" },
    { name = "seen", type = "i64", add = 1 },
]
)toml";
// clang-format on

struct Plan {
    explicit Plan(std::string_view text) : mapping(must(parse_mapping(text, "fuzz.toml"))) {
        for (const TableMapping& table : mapping.tables) {
            schemas.push_back(must(mapping_schema(table)));
        }
        for (const Schema& schema : schemas) pointers.push_back(&schema);
    }
    Mapping mapping;
    std::vector<Schema> schemas;
    std::vector<const Schema*> pointers;
};

// What came of a file.
struct Outcome {
    std::vector<std::byte> rows;  // as PackedSink takes them
    std::vector<std::uint64_t> lines;
    ImportTotals totals;
    Status done;
};

class CheckingSink final : public RowSink {
  public:
    CheckingSink(const Plan& plan, Outcome& outcome) : plan_(plan), outcome_(outcome) {}
    Status write(const MappedRecord& record) override {
        for (const MappedRow& row : record.rows) {
            const Schema& schema = plan_.schemas.at(row.table);
            CHECK_OP(row.key.size(), ==, schema.key_bytes());
            if (row.mode != RowMode::kAdd) CHECK(schema.valid_value(row.value));
            const auto length = static_cast<std::uint32_t>(row.value.size());
            if (schema.has_variable()) append(std::as_bytes(std::span(&length, 1)));
            append(row.key);
            append(row.value);
            outcome_.lines.push_back(record.line);
        }
        return {};
    }
    Status finish() override { return {}; }

  private:
    void append(std::span<const std::byte> bytes) {
        outcome_.rows.insert(outcome_.rows.end(), bytes.begin(), bytes.end());
    }

    const Plan& plan_;
    Outcome& outcome_;
};

class CollectingSink final : public PackedSink {
  public:
    explicit CollectingSink(Outcome& outcome) : outcome_(outcome) {}
    Status write(std::span<const std::byte> rows, std::span<const std::uint64_t> lines) override {
        outcome_.rows.insert(outcome_.rows.end(), rows.begin(), rows.end());
        outcome_.lines.insert(outcome_.lines.end(), lines.begin(), lines.end());
        return {};
    }

  private:
    Outcome& outcome_;
};

// Nothing: the file cannot even be begun.
std::optional<Outcome> import_all(const Plan& plan, const InputFile& file, SourceFormat format) {
    auto source = open_source(file.path(), format);
    if (!source.ok()) return std::nullopt;
    Result<RowMapper> mapper = RowMapper::make(plan.mapping, plan.pointers, **source);
    if (!mapper.ok()) return std::nullopt;
    RefusalLog refusals = must(RefusalLog::make("skip", "fuzz"));
    Outcome outcome;
    CheckingSink sink(plan, outcome);
    outcome.done = run_import(**source, *mapper, sink, refusals, outcome.totals);
    CHECK(outcome.done.ok() || !outcome.done.failure().what.empty());
    return outcome;
}

void import_blocks(const Plan& plan, const InputFile& file, SourceFormat format, unsigned threads,
                   const std::optional<Outcome>& expected) {
    auto source = open_source(file.path(), format);
    CHECK(source.ok() || !expected);
    if (!source.ok()) return;
    RefusalLog refusals = must(RefusalLog::make("skip", "fuzz"));
    Outcome outcome;
    CollectingSink sink(outcome);
    outcome.done = load_lines(
        {**source, plan.mapping, plan.schemas.front(), sink, refusals, outcome.totals}, threads);
    CHECK(expected || !outcome.done.ok());
    if (!expected) return;
    CHECK(outcome.rows == expected->rows);
    CHECK(outcome.lines == expected->lines);
    CHECK(outcome.done.ok() == expected->done.ok());
    CHECK_OP(outcome.totals.records, ==, expected->totals.records);
    CHECK_OP(outcome.totals.rows, ==, expected->totals.rows);
    CHECK_OP(outcome.totals.refused, ==, expected->totals.refused);
}

}  // namespace
}  // namespace bidstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    static const Plan rows(kMapping);
    static const Plan lines(kLineMapping);
    FuzzInput input(data, size_bytes);
    const auto form = input.take<std::uint8_t>();
    const bool json = form % 2 == 0;
    const InputFile file(input.rest());
    const SourceFormat format = json ? SourceFormat::kJson : SourceFormat::kCsv;
    if (json && form % 4 == 2) {
        import_all(lines, file, format);  // of two tables, one a sum: nothing that is loaded
        return 0;
    }
    const unsigned threads = 1 + form / 4 % 2;
    import_blocks(rows, file, format, threads, import_all(rows, file, format));
    return 0;
}
