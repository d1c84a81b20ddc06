// Importing any bytes, as JSON lines or as CSV, plain or compressed, by a mapping that has every
// decoder: each record becomes valid rows or is refused with a reason.
//
// Input: a byte that chooses the form, then the file.
#include <vector>

#include "clientlib/import.h"
#include "clientlib/import_csv.h"
#include "clientlib/import_json.h"
#include "clientlib/import_rows.h"
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

class CheckingSink final : public RowSink {
  public:
    explicit CheckingSink(const Plan& plan) : plan_(plan) {}
    Status write(const MappedRecord& record) override {
        for (const MappedRow& row : record.rows) {
            const Schema& schema = plan_.schemas.at(row.table);
            CHECK_OP(row.key.size(), ==, schema.key_bytes());
            if (row.mode != RowMode::kAdd) CHECK(schema.valid_value(row.value));
        }
        return {};
    }
    Status finish() override { return {}; }

  private:
    const Plan& plan_;
};

void import_all(const Plan& plan, const InputFile& file, bool json) {
    Result<LineReader> lines = LineReader::open(file.path());
    if (!lines.ok()) return;
    std::unique_ptr<RecordSource> source;
    if (json) {
        source = make_json_source(std::move(*lines));
    } else {
        auto made = make_csv_source(std::move(*lines), "fuzz.csv");
        if (!made.ok()) return;
        source = std::move(*made);
    }
    Result<RowMapper> mapper = RowMapper::make(plan.mapping, plan.pointers, *source);
    if (!mapper.ok()) return;
    RefusalLog refusals = must(RefusalLog::make("skip", "fuzz"));
    ImportTotals totals;
    CheckingSink sink(plan);
    const Status done = run_import(*source, *mapper, sink, refusals, totals);
    CHECK(done.ok() || !done.failure().what.empty());
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
    import_all(json && form % 4 == 2 ? lines : rows, file, json);
    return 0;
}
