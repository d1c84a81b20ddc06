// The import without a store: sources, rows, the real logs. Rows go to a sink that collects them.
// Decoders and mapping files have import_decode_test.cc.

#include "clientlib/import.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <tuple>

#include "clientlib/bidlog.h"
#include "clientlib/import_csv.h"

namespace bidstore {
namespace {

namespace fs = std::filesystem;

class TemporaryDirectory {
  public:
    TemporaryDirectory() {
        std::string pattern = (fs::temp_directory_path() / "bidstore-import-XXXXXX").string();
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        path_ = pattern;
    }
    ~TemporaryDirectory() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    std::string file(const std::string& name, const std::string& content) const {
        std::ofstream(path_ / name, std::ios::binary) << content;
        return (path_ / name).string();
    }
    std::string path(const std::string& name) const { return (path_ / name).string(); }

  private:
    fs::path path_;
};

std::string hex(std::string_view bytes) {
    std::ostringstream out;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        out << "0123456789abcdef"[byte >> 4] << "0123456789abcdef"[byte & 15];
    }
    return out.str();
}

std::string text_of(std::span<const std::byte> bytes) {
    std::string out;
    for (const std::byte byte : bytes) out += static_cast<char>(byte);
    return out;
}

std::string read_all(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream out;
    out << file.rdbuf();
    return out.str();
}

void write_gzip(const std::string& path, const std::string& content) {
    gzFile file = gzopen(path.c_str(), "wb");
    ASSERT_NE(file, nullptr);
    gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
    gzclose(file);
}

// A row as a test looks at it: columns by name, as stored; what was added apart.
struct SeenRow {
    std::uint64_t line = 0;
    RowMode mode = RowMode::kPut;
    std::string key;
    std::map<std::string, std::string> columns;
    std::map<std::string, std::int64_t> adds;
};

class CollectingSink final : public RowSink {
  public:
    explicit CollectingSink(const std::vector<Schema>& schemas) : schemas_(schemas) {
        rows.resize(schemas.size());
    }
    Status write(const MappedRecord& record) override {
        for (const MappedRow& row : record.rows) rows[row.table].push_back(seen(row, record.line));
        return {};
    }
    Status finish() override {
        finished = true;
        return at_end;
    }
    std::vector<std::vector<SeenRow>> rows;  // by table
    bool finished = false;
    Status at_end;

  private:
    SeenRow seen(const MappedRow& row, std::uint64_t line) const {
        const Schema& schema = schemas_[row.table];
        SeenRow out{line, row.mode, text_of(row.key), {}, {}};
        for (std::uint32_t i = 0; i < schema.columns().size(); ++i) {
            if (i >= schema.key_columns() && row.mode == RowMode::kAdd) break;
            out.columns[schema.columns()[i].name] =
                text_of(column_bytes(schema, i, row.key.data(), row.value));
        }
        for (const ColumnChange& change : row.changes) {
            const std::string& name = schema.columns()[change.column].name;
            if (change.is_add) out.adds[name] = change.delta;
            else out.columns[name] = text_of(change.bytes);
        }
        return out;
    }
    const std::vector<Schema>& schemas_;
};

struct Outcome {
    Status status;
    ImportTotals totals;
    std::vector<std::vector<SeenRow>> rows;
    std::vector<std::string> examples;
    bool finished = false;
};

// Imports into tables that are as the mapping describes them.
Outcome import_with(const Mapping& mapping, const std::string& path, const std::string& errors,
                    SourceFormat format = SourceFormat::kByName) {
    Outcome outcome;
    std::vector<Schema> schemas;
    for (const TableMapping& table : mapping.tables) {
        auto schema = mapping_schema(table);
        EXPECT_TRUE(schema.ok()) << schema.failure().what;
        if (!schema) return outcome;
        schemas.push_back(*schema);
    }
    std::vector<const Schema*> pointers;
    for (const Schema& schema : schemas) pointers.push_back(&schema);
    auto refusals = RefusalLog::make(errors, fs::path(path).filename().string());
    auto source = open_source(path, format);
    if (!source || !refusals) {
        outcome.status = source.ok() ? refusals.failure() : source.failure();
        return outcome;
    }
    auto mapper = RowMapper::make(mapping, pointers, **source);
    if (!mapper) {
        outcome.status = mapper.failure();
        return outcome;
    }
    CollectingSink sink(schemas);
    outcome.status = run_import(**source, *mapper, sink, *refusals, outcome.totals);
    outcome.rows = std::move(sink.rows);
    outcome.finished = sink.finished;
    outcome.examples = refusals->examples();
    return outcome;
}

Outcome import_text(const std::string& mapping_text, const std::string& path,
                    const std::string& errors = "stop",
                    SourceFormat format = SourceFormat::kByName) {
    auto mapping = parse_mapping(mapping_text, "test.toml");
    if (!mapping) {
        Outcome outcome;
        outcome.status = mapping.failure();
        return outcome;
    }
    return import_with(*mapping, path, errors, format);
}

TEST(Mapping, ColumnsMustFitTheTable) {
    const TemporaryDirectory directory;
    const std::string log = directory.file("a.jsonl", "{}\n");
    const auto bind = [&](const std::string& columns, const std::string& mode = "put") {
        return import_text("[[table]]\nname = 't'\nmode = '" + mode +
                               "'\nkey = ['k']\ncolumns = [ " + columns + " ]",
                           log)
            .status.failure()
            .what;
    };
    EXPECT_NE(bind("{ name = 'k', type = 'fixed(4)', path = 'k' }").find("column k: needs decode"),
              std::string::npos);
    EXPECT_NE(bind("{ name = 'k', type = 'u32', path = 'k', decode = 'hex' }")
                  .find("column k: its decoder does not give a u32"),
              std::string::npos);
    EXPECT_NE(bind("{ name = 'k', type = 'u32', path = 'k..x' }").find("path \"k..x\""),
              std::string::npos);
    EXPECT_NE(bind("{ name = 'k', type = 'u32', path = 'k' }", "add").find("at least one column"),
              std::string::npos);
    EXPECT_NE(bind("{ name = 'k', type = 'u32', path = 'k' }, "
                   "{ name = 'n', type = 'text', add = 1 }",
                   "add")
                  .find("column n: add works on integer columns"),
              std::string::npos);
}

// ---- sources ------------------------------------------------------------------------------------

constexpr const char* kSimple = R"toml(
[[table]]
name = "t"
key = ["k"]
columns = [
    { name = "k", type = "u32", path = "k" },
    { name = "s", type = "text", path = "s" },
    { name = "n", type = "i16", path = "n", default = -1 },
]
)toml";

TEST(Json, PathsReachMembersElementsAndWholeParts) {
    const TemporaryDirectory directory;
    const std::string log = directory.file(
        "a.jsonl",
        R"({"k":7,"o":{"list":["x","y",3],"deep":[{"z":"\u00e9"}],"t":true,"nil":null}})" "\r\n");
    const Outcome outcome = import_text(R"toml(
[[table]]
name = "t"
key = ["k"]
columns = [
    { name = "k", type = "u32", path = "k" },
    { name = "list", type = "text", path = "o.list", decode = "list" },
    { name = "deep", type = "text", path = "o.deep[0].z" },
    { name = "part", type = "text", path = "o.deep", decode = "json" },
    { name = "third", type = "i8", path = "o.list[2]" },
    { name = "flag", type = "u8", path = "o.t", decode = "boolean" },
    { name = "gone", type = "text", path = "o.list[9]", default = "none" },
    { name = "nil", type = "text", path = "o.nil.deeper", default = "nil" },
    { name = "fixed", type = "text", constant = "c" },
    { name = "line", type = "text", decode = "raw_json" },
]
)toml",
                                        log);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    ASSERT_EQ(outcome.rows[0].size(), 1u);
    auto columns = outcome.rows[0][0].columns;
    EXPECT_EQ(columns["list"], "x,y,3");
    EXPECT_EQ(columns["deep"], "\xc3\xa9");
    EXPECT_EQ(columns["part"], R"([{"z":"\u00e9"}])");
    EXPECT_EQ(columns["third"], "\x03");
    EXPECT_EQ(columns["flag"], "\x01");
    EXPECT_EQ(columns["gone"], "none");
    EXPECT_EQ(columns["nil"], "nil");
    EXPECT_EQ(columns["fixed"], "c");
    EXPECT_TRUE(columns["line"].starts_with("{\"k\":7") && columns["line"].ends_with("}}"));
}

TEST(Json, BadLinesAreNamedAndPassedOver) {
    const TemporaryDirectory directory;
    const std::string log = directory.file("a.jsonl",
                                           "{\"k\":1,\"s\":\"a\"}\n"
                                           "{\"k\":2,\"s\":\"b\",}\n"  // a comma too many
                                           "\n"
                                           "{\"s\":\"c\"}\n"
                                           "{\"k\":4,\"s\":[]}\n"
                                           "{\"k\":5,\"n\":40000}\n"
                                           "[1]\n"
                                           "{\"k\":6,\"s\":\"\xff\"}\n"
                                           "{\"k\":7,\"x\":{\"deep\":\"\\q\"}}\n"
                                           "{\"k\":8}");
    const Outcome outcome = import_text(kSimple, log, directory.path("bad.jsonl"));
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    EXPECT_EQ(outcome.totals.records, 9u);
    EXPECT_EQ(outcome.totals.refused, 7u);
    ASSERT_EQ(outcome.rows[0].size(), 2u);
    EXPECT_EQ(outcome.rows[0][0].line, 1u);
    EXPECT_EQ(outcome.rows[0][1].line, 10u);
    EXPECT_EQ(outcome.rows[0][1].columns.at("n"), "\xff\xff");
    const std::string bad = read_all(directory.path("bad.jsonl"));
    EXPECT_NE(bad.find("# a.jsonl:2: not JSON"), std::string::npos) << bad;
    EXPECT_NE(bad.find("# a.jsonl:4: column k: \"k\" is missing\n{\"s\":\"c\"}\n"),
              std::string::npos);
    EXPECT_NE(bad.find("# a.jsonl:5: column s: is an array"), std::string::npos);
    EXPECT_NE(bad.find("# a.jsonl:6: "), std::string::npos);
    EXPECT_NE(bad.find("# a.jsonl:7: not a JSON object"), std::string::npos);
    EXPECT_NE(bad.find("# a.jsonl:8: not JSON"), std::string::npos);
    EXPECT_NE(bad.find("# a.jsonl:9: not JSON"), std::string::npos);
    // The file of refused lines can be read again: its comments are passed over.
    const Outcome again = import_text(kSimple, directory.path("bad.jsonl"), "skip");
    EXPECT_EQ(again.totals.records, 7u);
}

TEST(Json, StopsAtTheFirstBadLineAndKeepsWhatWasBefore) {
    const TemporaryDirectory directory;
    const std::string log = directory.file("a.jsonl", "{\"k\":1}\n{\"k\":\"x\"}\n{\"k\":3}\n");
    const Outcome outcome = import_text(kSimple, log);
    EXPECT_EQ(outcome.status.error(), Error::kInvalid);
    EXPECT_TRUE(outcome.status.failure().what.starts_with("a.jsonl:2: column k: not an integer"))
        << outcome.status.failure().what;
    EXPECT_EQ(outcome.rows[0].size(), 1u);
    EXPECT_TRUE(outcome.finished);
}

// That lines before the bad one were lost, too, was not said.
TEST(Json, SaysAlsoThatWhatWasBeforeABadLineIsNotWritten) {
    const TemporaryDirectory directory;
    const std::string log = directory.file("a.jsonl", "{\"k\":1}\n{\"k\":\"x\"}\n");
    const auto mapping = parse_mapping(kSimple, "test.toml");
    ASSERT_TRUE(mapping.ok());
    const std::vector<Schema> schemas{*mapping_schema(mapping->tables[0])};
    auto source = open_source(log, SourceFormat::kByName);
    ASSERT_TRUE(source.ok());
    const Schema* pointers[] = {&schemas[0]};
    auto mapper = RowMapper::make(*mapping, pointers, **source);
    auto refusals = RefusalLog::make("stop", "a.jsonl");
    ASSERT_TRUE(mapper.ok() && refusals.ok());
    CollectingSink sink(schemas);
    sink.at_end = {Error::kNoSpace, "lines 1 to 1: no space"};
    ImportTotals totals;
    const Status status = run_import(**source, *mapper, sink, *refusals, totals);
    EXPECT_EQ(status.error(), Error::kInvalid);
    EXPECT_TRUE(status.failure().what.starts_with("a.jsonl:2: column k: not an integer"));
    EXPECT_TRUE(status.failure().what.ends_with("not all is written: lines 1 to 1: no space"))
        << status.failure().what;
}

// A forgotten quote among lines without any: each line was once looked at from the quote on.
TEST(Csv, RecordIsWholeWhenAQuoteClosesItOrItIsTooLong) {
    std::string text = "a,b\n\"open";
    const std::size_t first = 4;
    while (text.size() < 500'000) text += "\n0123456789";
    EXPECT_EQ(whole_csv_records(text + "\n"), first);
    const std::string closed = text + "\nend\",7\n";
    EXPECT_EQ(whole_csv_records(closed), closed.size());
    EXPECT_EQ(whole_csv_records(closed + "\"next\n"), closed.size());
    while (text.size() < first + (1u << 20)) text += "\n0123456789";
    text += "\n";
    EXPECT_EQ(whole_csv_records(text), text.size()) << "longer than a record may be";
    EXPECT_EQ(whole_csv_records(text + "c\n\"open\n"), text.size() + 2);
}

TEST(Csv, QuotesHoldCommasLineEndsAndQuotes) {
    std::vector<std::string_view> fields;
    std::string room;
    EXPECT_EQ(scan_csv("a,\"b,c\",\"d\"\"e\",\"f\ng\",", fields, room), CsvScan::kComplete);
    EXPECT_EQ(fields, (std::vector<std::string_view>{"a", "b,c", "d\"e", "f\ng", ""}));
    EXPECT_EQ(scan_csv("\"open", fields, room), CsvScan::kOpen);
    EXPECT_EQ(scan_csv("\"open\"\"", fields, room), CsvScan::kOpen);
    EXPECT_EQ(scan_csv("a\"b", fields, room), CsvScan::kStray);
    EXPECT_EQ(scan_csv("\"a\"b", fields, room), CsvScan::kStray);
    EXPECT_EQ(scan_csv("", fields, room), CsvScan::kComplete);
    EXPECT_EQ(fields.size(), 1u);
}

TEST(Csv, RowsComeByTheHeaderAndBadRecordsAreNamed) {
    const TemporaryDirectory directory;
    const std::string log = directory.file("a.csv",
                                           "\xef\xbb\xbfk,other,s,n\r\n"
                                           "1,x,\"a\r\nb\",5\r\n"
                                           "2,x,y\r\n"
                                           "3,x,\"a \"\"q\"\"\",\r\n"
                                           "4,x,a\"b,1\r\n"
                                           "5,x,\"never closed,1\r\n");
    const Outcome outcome = import_text(kSimple, log, directory.path("bad.csv"));
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    ASSERT_EQ(outcome.rows[0].size(), 2u);
    EXPECT_EQ(outcome.rows[0][0].columns.at("s"), "a\r\nb");
    EXPECT_EQ(outcome.rows[0][0].line, 2u);
    EXPECT_EQ(outcome.rows[0][1].columns.at("s"), "a \"q\"");
    EXPECT_EQ(outcome.rows[0][1].columns.at("n"), "\xff\xff");  // an empty field is missing
    EXPECT_EQ(outcome.totals.refused, 3u);
    const std::string bad = read_all(directory.path("bad.csv"));
    EXPECT_NE(bad.find("k,other,s,n\n# refused: a.csv:4: 3 fields where the header has 4\n2,x,y\n"),
              std::string::npos)
        << bad;
    EXPECT_NE(bad.find("# refused: a.csv:6: a quote inside a field"), std::string::npos);
    EXPECT_NE(bad.find("# refused: a.csv:7: a quoted field is not closed"), std::string::npos);
}

// The reasons were taken for records, and refused in their turn. They quote what they are about.
TEST(Csv, RefusedRecordsCanBePutRightAndReadAgain) {
    const TemporaryDirectory directory;
    const std::string mapping = R"(
[[table]]
name = "t"
key = ["k"]
columns = [ { name = "k", type = "u32", path = "k" }, { name = "s", type = "text", path = "s" } ]
)";
    const std::string log = directory.file("a.csv", "k,s\n\"x,\n\"\"\",a\n1,# b\n# 2,c\n");
    const Outcome first = import_text(mapping, log, directory.path("bad.csv"));
    ASSERT_TRUE(first.status.ok()) << first.status.failure().what;
    EXPECT_EQ(first.totals.refused, 2u);
    std::string bad = read_all(directory.path("bad.csv"));
    for (const std::string wrong : {"\"x,\n\"\"\",a\n", "# 2,c\n"}) {
        ASSERT_NE(bad.find("\n" + wrong), std::string::npos) << bad;
        bad.replace(bad.find("\n" + wrong) + 1, wrong.size(), "7,\"put\nright\"\n");
    }
    const Outcome again = import_text(mapping, directory.file("right.csv", bad));
    ASSERT_TRUE(again.status.ok()) << again.status.failure().what << "\n" << bad;
    EXPECT_EQ(again.totals.records, 2u);
    EXPECT_EQ(again.rows[0].at(0).columns.at("s"), "put\nright");
    // In any other file such a line is a record, and not lost.
    EXPECT_EQ(import_text(mapping, directory.file("b.csv", "k,s\n# 2,c\n"), "skip").totals.refused,
              1u);
}

TEST(Csv, AColumnThatIsNotInTheHeaderIsAnErrorAtOnce) {
    const TemporaryDirectory directory;
    const Outcome outcome = import_text(kSimple, directory.file("a.csv", "k,n\n1,2\n"));
    EXPECT_NE(outcome.status.failure().what.find("column s: no column \"s\" in the header: k,n"),
              std::string::npos)
        << outcome.status.failure().what;
    EXPECT_FALSE(import_text(kSimple, directory.file("b.csv", "")).status.ok());
}

TEST(Lines, GzipIsReadAndACutOneIsAnError) {
    const TemporaryDirectory directory;
    std::string content;
    for (int i = 0; i < 5000; ++i) {
        content += "{\"k\":" + std::to_string(i) + ",\"s\":\"" + std::to_string(i * 7919) + "\"}\n";
    }
    write_gzip(directory.path("a.jsonl.gz"), content);
    const Outcome whole = import_text(kSimple, directory.path("a.jsonl.gz"));
    ASSERT_TRUE(whole.status.ok()) << whole.status.failure().what;
    EXPECT_EQ(whole.rows[0].size(), 5000u);
    EXPECT_EQ(whole.totals.bytes_read, fs::file_size(directory.path("a.jsonl.gz")));

    const std::string stored = read_all(directory.path("a.jsonl.gz"));
    const std::string cut_path =
        directory.file("cut.jsonl.gz", stored.substr(0, stored.size() - 20));
    const Outcome cut = import_text(kSimple, cut_path, "skip");
    EXPECT_EQ(cut.status.error(), Error::kCorruption) << cut.status.failure().what;
    EXPECT_TRUE(cut.finished);

    std::string rotten = stored;
    rotten[rotten.size() / 2] = static_cast<char>(rotten[rotten.size() / 2] ^ 0x55);
    const Outcome rot = import_text(kSimple, directory.file("rot.jsonl.gz", rotten), "skip");
    EXPECT_EQ(rot.status.error(), Error::kCorruption) << rot.status.failure().what;
}

// Of a log of many members all that stood behind a damaged head was left out, and the rest was
// said to be all of it.
TEST(Lines, GzipMayHaveManyMembersAndNothingElseBehindThemButZeros) {
    const TemporaryDirectory directory;
    std::string members;
    for (int i = 0; i < 3; ++i) {
        write_gzip(directory.path("one.gz"), "{\"k\":" + std::to_string(i) + "}\n");
        members += read_all(directory.path("one.gz"));
    }
    const std::size_t member = members.size() / 3;
    const auto import = [&](const std::string& content) {
        return import_text(kSimple, directory.file("a.jsonl.gz", content), "skip");
    };
    EXPECT_EQ(import(members).rows[0].size(), 3u);
    const Outcome padded = import(members + std::string(300'000, '\0'));
    EXPECT_TRUE(padded.status.ok()) << padded.status.failure().what;
    EXPECT_EQ(padded.rows[0].size(), 3u);
    std::string damaged = members;
    damaged[member] ^= 1;
    const std::string one(1, '\x1f');
    for (const auto& [content, rows, offset] :
         {std::tuple(damaged, 1u, member), std::tuple(members + "x", 3u, members.size()),
          std::tuple(members + one, 3u, members.size()),
          std::tuple(members + std::string(9, '\0') + members, 3u, members.size() + 9)}) {
        const Outcome outcome = import(content);
        EXPECT_EQ(outcome.status.error(), Error::kCorruption) << offset;
        EXPECT_EQ(outcome.rows[0].size(), rows);
        if (outcome.status.ok()) continue;
        const std::string& what = outcome.status.failure().what;
        EXPECT_NE(what.find("a.jsonl.gz: cannot be read on behind line " + std::to_string(rows)),
                  std::string::npos) << what;
        EXPECT_NE(what.find("byte " + std::to_string(offset) + " of the file"), std::string::npos)
            << what;
    }
}

TEST(Lines, FilesThatCannotBeReadAreNamed) {
    const TemporaryDirectory directory;
    const Outcome missing = import_text(kSimple, directory.path("none.jsonl"));
    EXPECT_EQ(missing.status.error(), Error::kIoError);
    EXPECT_NE(missing.status.failure().what.find("none.jsonl"), std::string::npos);
    EXPECT_EQ(import_text(kSimple, directory.path(".")).status.error(), Error::kIoError);
}

TEST(Lines, ALineBeyondTheLimitIsRefusedAndTheNextOneRead) {
    const TemporaryDirectory directory;
    const std::string log = directory.file(
        "a.jsonl", "{\"k\":1}\n" + std::string(kLineBytesMax + 1, ' ') + "\n{\"k\":3}\n");
    const Outcome outcome = import_text(kSimple, log, "skip");
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    EXPECT_EQ(outcome.rows[0].size(), 2u);
    EXPECT_EQ(outcome.rows[0][1].line, 3u);
    EXPECT_NE(outcome.examples.at(0).find("a.jsonl:2: line longer"), std::string::npos);
}

// ---- rows ---------------------------------------------------------------------------------------

TEST(Rows, PrefixPadLengthAndLimitShapeBytes) {
    const TemporaryDirectory directory;
    const std::string log =
        directory.file("a.jsonl",
                       "{\"k\":\"aabb01020304\",\"t\":\"a\xc3\xa9z\"}\n"  // prefix goes
                       "{\"k\":\"0102\",\"t\":\"abc\"}\n"                  // padded
                       "{\"k\":\"0102030405\",\"t\":\"\"}\n"              // too long
                       "{\"k\":\"aabb\",\"t\":\"ab\"}\n");                 // nothing but the prefix
    const Outcome outcome = import_text(R"toml(
[[table]]
name = "t"
key = ["k"]
columns = [
{ name = "k", type = "fixed(4)", path = "k", decode = "hex", skip_prefix = "aabb", pad = "left" },
    { name = "t", type = "text", path = "t", max_bytes = 2, too_long = "truncate" },
]
)toml",
                                        log, "skip");
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    ASSERT_EQ(outcome.rows[0].size(), 3u);
    EXPECT_EQ(hex(outcome.rows[0][0].key), "01020304");
    EXPECT_EQ(outcome.rows[0][0].columns.at("t"), "a");  // no half character
    EXPECT_EQ(hex(outcome.rows[0][1].key), "00000102");
    EXPECT_EQ(outcome.rows[0][1].columns.at("t"), "ab");
    EXPECT_EQ(hex(outcome.rows[0][2].key), "00000000");
    EXPECT_EQ(outcome.examples.at(0), "a.jsonl:3: column k: has 5 bytes where 4 are wanted");
}

TEST(Rows, ModeAddCountsSetsAndKeeps) {
    const TemporaryDirectory directory;
    const std::string log = directory.file("a.jsonl",
                                           "{\"id\":1,\"price\":-5,\"host\":\"x\"}\n"
                                           "{\"id\":1,\"price\":7}\n"
                                           "{\"price\":7}\n");
    const Outcome outcome = import_text(R"toml(
[[table]]
name = "t"
mode = "add"
key = ["id"]
columns = [
    { name = "id", type = "u32", path = "id", on_missing = "skip" },
    { name = "host", type = "text", path = "host" },
    { name = "seen", type = "u64", add = 1 },
    { name = "spent", type = "i64", path = "price", add = "value" },
]
)toml",
                                        log);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    ASSERT_EQ(outcome.rows[0].size(), 2u);
    const SeenRow& first = outcome.rows[0][0];
    EXPECT_EQ(first.mode, RowMode::kAdd);
    EXPECT_EQ(first.adds, (std::map<std::string, std::int64_t>{{"seen", 1}, {"spent", -5}}));
    EXPECT_EQ(first.columns.at("host"), "x");
    EXPECT_EQ(outcome.rows[0][1].columns.count("host"), 0u);  // missing: kept
}

TEST(Rows, ATextBeyondTheLimitOfAValueIsRefusedByName) {
    const TemporaryDirectory directory;
    const auto line = [](std::size_t length) {
        return "{\"k\":1,\"s\":\"" + std::string(length, 'x') + "\"}\n";
    };
    const std::string fits = directory.file("fits.jsonl", line(5000));
    EXPECT_TRUE(import_text(kSimple, fits).status.ok());
    const std::string log = directory.file("a.jsonl", line(kLargeValueBytesMax + 1));
    const Outcome outcome = import_text(kSimple, log);
    EXPECT_FALSE(outcome.status.ok());
    EXPECT_TRUE(outcome.status.failure().what.starts_with("a.jsonl:1: "));
}

TEST(Progress, ShowsRowsRateAndWhatIsLeft) {
    ImportTotals totals;
    totals.rows = 1234567;
    totals.bytes_read = 250;
    totals.bytes_total = 1000;
    EXPECT_EQ(progress_line(totals, 10), "1,234,567 rows, 123,456 rows/s, 25 %, 0:30 left");
    totals.bytes_total = 0;
    totals.refused = 2;
    EXPECT_EQ(progress_line(totals, 10), "1,234,567 rows, 123,456 rows/s, 2 refused");
}

// ---- the generator ------------------------------------------------------------------------------

Mapping project_mapping(const std::string& name) {
    auto loaded = load_mapping(
        (fs::path(BIDSTORE_SOURCE_DIR) / "clientlib" / "mappings" / (name + ".toml")).string());
    EXPECT_TRUE(loaded.ok()) << loaded.failure().what;
    return loaded.ok() ? *loaded : Mapping{};
}

std::string generated(std::uint64_t seed, int rows) {
    BidLogOptions options;
    options.seed = seed;
    BidLog log(options);
    std::string text;
    for (int i = 0; i < rows; ++i) text.append(log.next()).append("\n");
    return text;
}

TEST(BidLog, TheSameSeedGivesTheSameLog) {
    EXPECT_EQ(generated(7, 200), generated(7, 200));
    EXPECT_NE(generated(7, 200), generated(8, 200));
}

// The shares are those of the captured log; the bounds are wide enough for any seed.
TEST(BidLog, HasTheShapeOfTheCapturedLog) {
    const TemporaryDirectory directory;
    constexpr std::size_t kRows = 10'000;
    const Outcome outcome =
        import_with(project_mapping("bidreq-20120111"),
                    directory.file("a.jsonl", generated(1, kRows)), "stop");
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    ASSERT_EQ(outcome.rows[0].size(), kRows);

    const std::string none(16, '\0');
    std::set<std::string> auctions;
    std::map<std::string, std::size_t> users;
    std::map<std::string, std::size_t> exchanges;
    std::map<std::size_t, std::size_t> id_lengths;
    std::vector<std::size_t> lengths;
    std::string newest;
    std::size_t late = 0, without_user = 0, without_url = 0;
    for (const SeenRow& row : outcome.rows[0]) {
        const std::string& request = row.columns.at("request");
        auctions.insert(row.columns.at("auction"));
        ++exchanges[row.columns.at("exchange")];
        const std::size_t id = request.find("\"id\":\"") + 6;
        ++id_lengths[request.find('"', id) - id];
        lengths.push_back(request.size());
        late += row.columns.at("time") < newest ? 1 : 0;
        newest = std::max(newest, row.columns.at("time"));
        const std::string& user = row.columns.at("user");
        if (user == none) ++without_user;
        else ++users[user];
        without_url += row.columns.at("url").empty() ? 1 : 0;
    }
    const auto share = [](std::size_t part) {
        return static_cast<double>(part) / static_cast<double>(kRows);
    };
    EXPECT_EQ(auctions.size(), kRows);
    EXPECT_NEAR(share(exchanges["dblclk_adx"]), 0.549, 0.03);
    EXPECT_NEAR(share(id_lengths[35]), 0.056, 0.015);
    EXPECT_GT(id_lengths[34], 0u);
    EXPECT_NEAR(share(without_user), 0.0375, 0.01);
    EXPECT_NEAR(share(without_url), 0.034, 0.01);
    EXPECT_NEAR(share(late), 0.43, 0.1);
    EXPECT_NEAR(share(users.size()), 0.9, 0.04);
    std::size_t hottest = 0;
    for (const auto& [user, count] : users) hottest = std::max(hottest, count);
    EXPECT_NEAR(share(hottest), 0.0248, 0.008);
    std::sort(lengths.begin(), lengths.end());
    EXPECT_NEAR(static_cast<double>(lengths[kRows / 2]), 930, 100);
    EXPECT_GT(lengths.front(), 400u);
    EXPECT_LT(lengths.back(), 1'900u);
}

// ---- the real logs ------------------------------------------------------------------------------

// The captured logs are not part of the project; they lie beside it where they are at hand.
class RealLogs : public testing::Test {
  protected:
    void SetUp() override {
        data_ = fs::path(BIDSTORE_SOURCE_DIR) / ".." / "shared" / "data";
        if (!fs::exists(data_)) GTEST_SKIP() << "no captured logs in " << data_;
    }
    std::string log(const std::string& name) const { return (data_ / name).string(); }
    fs::path data_;
};

TEST_F(RealLogs, TwentyThousandRequestsImportCompletely) {
    const Outcome outcome =
        import_with(project_mapping("bidreq-20120111"), log("bidreq-20120111.jsonl.gz"), "stop");
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    EXPECT_EQ(outcome.totals.records, 20'000u);
    ASSERT_EQ(outcome.rows[0].size(), 20'000u);

    std::set<std::string> keys, auctions, users, opted_out;
    std::size_t without_user = 0, hot = 0, without_url = 0;
    const std::string none(16, '\0');
    for (const SeenRow& row : outcome.rows[0]) {
        keys.insert(row.key);
        auctions.insert(row.columns.at("auction"));
        const std::string& user = row.columns.at("user");
        without_user += user == none ? 1 : 0;
        hot += user.ends_with(std::string(8, '\0')) && user != none ? 1 : 0;
        without_url += row.columns.at("url").empty() ? 1 : 0;
    }
    EXPECT_EQ(keys.size(), 20'000u);
    EXPECT_EQ(auctions.size(), 20'000u);  // also after the dropped zeros are back
    EXPECT_EQ(without_user, 750u);
    EXPECT_EQ(hot, 497u);
    EXPECT_EQ(without_url, 679u);
    EXPECT_EQ(hex(*keys.begin()).substr(0, 16), "0004b63550173cc5");  // 1326240000.064709
    EXPECT_EQ(hex(*keys.rbegin()).substr(0, 16), "0004b635520355a6");  // 1326240032.314790

    ASSERT_EQ(outcome.rows[1].size(), 19'250u);
    std::map<std::string, std::int64_t> requests;
    std::set<std::string> hosts;
    for (const SeenRow& row : outcome.rows[1]) {
        requests[row.key] += row.adds.at("requests");
        if (row.columns.count("last_host") != 0) hosts.insert(row.columns.at("last_host"));
    }
    EXPECT_EQ(requests.size(), 17'423u);
    std::int64_t most = 0, once = 0;
    for (const auto& [user, count] : requests) {
        most = std::max(most, count);
        once += count == 1 ? 1 : 0;
    }
    EXPECT_EQ(most, 497);
    EXPECT_EQ(once, 16'291);
}

TEST_F(RealLogs, ThousandAppRequestsImportCompletely) {
    const Outcome outcome =
        import_with(project_mapping("adx-app-20161130"), log("adx-app-20161130.jsonl.gz"), "stop");
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.failure().what;
    ASSERT_EQ(outcome.rows[0].size(), 1'000u);
    std::set<std::string> ids, apps;
    std::size_t with_user = 0;
    for (const SeenRow& row : outcome.rows[0]) {
        ids.insert(row.columns.at("id"));
        apps.insert(row.columns.at("app_id"));
        const std::string& protobuf = row.columns.at("protobuf");
        EXPECT_GE(protobuf.size(), 612u);
        EXPECT_LE(protobuf.size(), 1267u);
        with_user += protobuf.find("CAESE") != std::string::npos ? 1 : 0;
    }
    EXPECT_EQ(ids.size(), 1'000u);
    EXPECT_EQ(apps.size(), 6u);
    EXPECT_EQ(with_user, 992u);
}

TEST_F(RealLogs, MalformedSamplesAreRefusedLineByLine) {
    const TemporaryDirectory directory;
    std::size_t files = 0;
    for (const auto& entry : fs::directory_iterator(data_ / "openrtb-samples" / "malformed")) {
        ++files;
        const std::string path = entry.path().string();
        const Outcome lines =
            import_with(project_mapping("bidreq-20120111"), path, "skip", SourceFormat::kJson);
        ASSERT_TRUE(lines.status.ok()) << lines.status.failure().what;
        EXPECT_GT(lines.totals.records, 20u);
        EXPECT_EQ(lines.totals.refused, lines.totals.records) << path;
        EXPECT_EQ(lines.totals.rows, 0u);

        // The same as one line: refused for what is wrong with it.
        std::string flat = read_all(path);
        for (char& c : flat) c = c == '\n' || c == '\r' ? ' ' : c;
        const Outcome whole = import_with(project_mapping("bidreq-20120111"),
                                          directory.file("flat.jsonl", flat + "\n"), "stop");
        EXPECT_NE(whole.status.failure().what.find("flat.jsonl:1: not JSON"), std::string::npos)
            << path << ": " << whole.status.failure().what;
    }
    EXPECT_EQ(files, 3u);
}

}  // namespace
}  // namespace bidstore
