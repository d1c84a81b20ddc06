#include "clientlib/tool_rows.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "clientlib/import.h"
#include "clientlib/tool_output.h"
#include "clientlib/tool_values.h"

namespace bidstore {
namespace {

constexpr std::size_t kScanBlockRows = 256;  // rows copied, checked, then printed
constexpr std::size_t kCellWidth = 48;

// A connection and a table of it: how every command here begins.
struct OpenTable {
    Store store;
    RawTable table;
};

Result<OpenTable> open_table(const ToolOptions& options, const std::string& name, Rights rights) {
    auto store = options.attach(rights);
    if (!store) return store.failure();
    auto table = store->open_raw(name, options.deadline());
    if (!table) return table.failure();
    return OpenTable{std::move(*store), std::move(*table)};
}

struct Bounds {
    std::vector<std::byte> lower;
    std::vector<std::byte> upper;
};

Result<Bounds> bounds_of(const Schema& schema, const RowRange& range) {
    if (!range.prefix.empty()) {
        auto prefix = encode_prefix(schema, range.prefix);
        if (!prefix) return prefix.failure();
        return Bounds{*prefix, prefix_end(*prefix)};
    }
    auto lower = encode_prefix(schema, range.from);
    if (!lower) return lower.failure();
    auto upper = encode_prefix(schema, range.to);
    if (!upper) return upper.failure();
    return Bounds{std::move(*lower), std::move(*upper)};
}

// A little more than a value may have is enough to see that a file is too long.
Result<std::string> file_content(const std::string& path) {
    std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
    if (file == nullptr) return {Error::kIoError, path + ": " + std::strerror(errno)};
    std::string content(std::size_t{kLargeValueBytesMax} + 1, '\0');
    content.resize(std::fread(content.data(), 1, content.size(), file));
    const bool failed = std::ferror(file) != 0;
    if (file != stdin) std::fclose(file);
    if (failed) return {Error::kIoError, path + ": it cannot be read"};
    return content;
}

Status fill_from_files(RowBuilder& row, const Schema& schema, const RowPut& put,
                       std::vector<Assignment>& assignments) {
    auto parsed = parse_assignments(schema, put.files);
    if (!parsed) return parsed.failure();
    for (const Assignment& named : *parsed) {
        const std::string& column = schema.columns()[named.column].name;
        if (!is_variable(schema.columns()[named.column].type)) {
            return {Error::kInvalid, "--file " + column + ": only bytes and text columns"};
        }
        for (const Assignment& other : assignments) {
            if (other.column == named.column) {
                return {Error::kInvalid, "column " + column + " is given twice"};
            }
        }
        auto content = file_content(named.value);
        if (!content) return content.failure();
        const auto bytes = std::as_bytes(std::span(content->data(), content->size()));
        if (Status set = row.set_bytes(named.column, bytes); !set) return set;
        assignments.push_back(named);
    }
    return {};
}

Status fill_row(RowBuilder& row, const Schema& schema, const RowPut& put,
                std::vector<Assignment>& assignments) {
    auto parsed = parse_assignments(schema, put.values);
    if (!parsed) return parsed.failure();
    row.clear();
    std::uint32_t key_columns = 0;
    for (const Assignment& assignment : *parsed) {
        key_columns += assignment.column < schema.key_columns() ? 1 : 0;
        if (Status set = set_value(row, schema, assignment); !set) return set;
    }
    assignments = std::move(*parsed);
    if (Status read = fill_from_files(row, schema, put, assignments); !read) return read;
    if (key_columns == schema.key_columns()) return {};
    return {Error::kInvalid, "all " + std::to_string(schema.key_columns()) +
                                 " key columns must be given; `bidstore table show " +
                                 schema.name() + "` lists them"};
}

Status build_put(RawTransaction& transaction, const RawTable& table, const RowPut& put) {
    const Schema& schema = table.schema();
    RowBuilder row(schema);
    std::vector<Assignment> assignments;
    if (Status filled = fill_row(row, schema, put, assignments); !filled) return filled;
    auto value = row.value();
    if (!value) return value.failure();
    if (put.insert) {
        transaction.insert(table, row.key(), *value);
    } else if (!put.update) {
        transaction.put(table, row.key(), *value);
    }
    if (!put.update) return {};
    for (const Assignment& assignment : assignments) {
        if (assignment.column < schema.key_columns()) continue;
        transaction.update(table, row.key(), assignment.column,
                           column_bytes(schema, assignment.column, row.key().data(), *value));
    }
    if (transaction.empty()) return {Error::kInvalid, "no column to update is given"};
    return {};
}

void print_row(const Schema& schema, const RawCopy& row) {
    TextTable text({"", ""});
    for (std::uint32_t i = 0; i < schema.columns().size(); ++i) {
        text.add({schema.columns()[i].name, value_text(schema, i, row.key, row.value)});
    }
    std::fputs(text.str(false).c_str(), stdout);
}

// Prints rows as they come; the first block decides how wide the columns begin.
class RowPrinter {
  public:
    RowPrinter(const Schema& schema, bool json, bool wide)
        : schema_(schema), json_(json), wide_(wide), text_(header(schema)) {}

    bool print(const std::vector<RawCopy>& rows) {
        std::string out;
        for (const RawCopy& row : rows) {
            if (json_) {
                out += row_json(schema_, row.key, row.value) + "\n";
            } else {
                text_.add(cells(row));
            }
        }
        if (!json_ && !rows.empty()) {
            out = text_.str(!started_);
            text_.clear();
            started_ = true;
        }
        return std::fwrite(out.data(), 1, out.size(), stdout) == out.size();
    }

  private:
    static std::vector<std::string> header(const Schema& schema) {
        std::vector<std::string> names;
        for (const Column& column : schema.columns()) {
            const bool number = is_integer(column.type) || column.type == ColumnType::kF32 ||
                                column.type == ColumnType::kF64;
            names.push_back((number ? ">" : "") + column.name);
        }
        return names;
    }
    std::vector<std::string> cells(const RawCopy& row) const {
        std::vector<std::string> out;
        for (std::uint32_t i = 0; i < schema_.columns().size(); ++i) {
            const std::string text = value_text(schema_, i, row.key, row.value);
            out.push_back(clipped(text, wide_ ? text.size() : kCellWidth));
        }
        return out;
    }

    const Schema& schema_;
    bool json_;
    bool wide_;
    bool started_ = false;
    TextTable text_;
};

// Copies the next rows; narrows the bounds to what is left.
Result<std::vector<RawCopy>> next_block(const RawTable& table, const Snapshot& snapshot,
                                        const RowScan& scan, Bounds& bounds, std::uint64_t left) {
    std::vector<RawCopy> rows;
    ScanOptions options;
    options.reverse = scan.reverse;
    options.limit = std::min<std::uint64_t>(left, kScanBlockRows);
    options.streaming = true;  // rows are copied as they come
    auto cursor = table.scan(snapshot, bounds.lower, bounds.upper, options);
    while (cursor.next()) {
        auto row = cursor.copy();
        if (!row) return row.failure();
        rows.push_back(std::move(*row));
    }
    if (Status status = cursor.status(); !status) return status.failure();
    if (rows.empty()) return rows;
    // Of a whole key, prefix_end is the next possible key; empty when there is none.
    if (scan.reverse) {
        bounds.upper = rows.back().key;
    } else {
        bounds.lower = prefix_end(rows.back().key);
    }
    return rows;
}

void say_newer_snapshot(const char* what) {
    std::fprintf(stderr,
                 "bidstore: the %s took longer than a snapshot may live and goes on behind the "
                 "last row under a newer one\n",
                 what);
}

// Counts up to so many rows from the lower bound on, and moves it behind them. The count is
// believed when its whole block is valid.
Result<std::uint64_t> count_block(const RawTable& table, const Snapshot& snapshot, Bounds& bounds,
                                  bool& done) {
    constexpr std::uint64_t kBlockRows = 100'000;
    std::vector<std::byte> last;
    std::uint64_t rows = 0;
    auto cursor = table.scan(snapshot, bounds.lower, bounds.upper,
                             {.limit = kBlockRows, .streaming = true});
    while (cursor.next()) {
        if (++rows == kBlockRows) last.assign(cursor.row().key.begin(), cursor.row().key.end());
    }
    if (Status status = cursor.status(); !status) return status.failure();
    if (!last.empty()) bounds.lower = prefix_end(last);
    done = rows < kBlockRows || bounds.lower.empty();
    return rows;
}

// Under one snapshot while that lives; then under newer ones, from where the last one came to.
Result<std::uint64_t> count_rows(const ToolOptions& options, OpenTable& open, Bounds bounds) {
    auto reader = open.store.reader();
    if (!reader) return reader.failure();
    std::uint64_t total = 0;
    bool done = false;
    for (bool first = true; !done; first = false) {
        auto snapshot = reader->snapshot(options.deadline());
        if (!snapshot) return snapshot.failure();
        if (!first) say_newer_snapshot("count");
        bool progress = false;
        while (!done) {
            auto rows = count_block(open.table, *snapshot, bounds, done);
            if (!rows && rows.error() == Error::kSnapshotExpired && progress) break;
            if (!rows) return rows.failure();
            total += *rows;
            progress = true;
        }
    }
    return total;
}

// Rows block by block. A snapshot lasts some seconds at most: a longer scan goes on under a newer
// one, and says so.
Status scan_rows(const ToolOptions& options, OpenTable& open, const RowScan& scan, Bounds bounds,
                 RowPrinter& printer) {
    auto reader = open.store.reader();
    if (!reader) return reader.failure();
    std::uint64_t left = scan.limit;
    for (bool first = true; left > 0; first = false) {
        auto snapshot = reader->snapshot(options.deadline());
        if (!snapshot) return snapshot.failure();
        if (!first) say_newer_snapshot("scan");
        bool progress = false;
        while (left > 0) {
            auto rows = next_block(open.table, *snapshot, scan, bounds, left);
            if (!rows && rows.error() == Error::kSnapshotExpired && progress) break;
            if (!rows) return rows.failure();
            if (!printer.print(*rows)) {
                return {Error::kIoError, "standard output: cannot be written"};
            }
            left -= rows->size();
            progress = true;
            const bool last_key = !scan.reverse && bounds.lower.empty();
            if (rows->size() < kScanBlockRows || last_key) return {};
        }
    }
    return {};
}

}  // namespace

int row_put(const ToolOptions& options, const RowPut& put) {
    auto open = open_table(options, put.table, Rights::kWriter);
    if (!open) return options.fail(open.failure());
    RawTransaction transaction;
    if (Status built = build_put(transaction, open->table, put); !built) {
        return options.fail(built.failure());
    }
    auto committed =
        open->store.commit(transaction, options.deadline(),
                           put.relaxed ? Durability::kRelaxed : Durability::kDurable);
    if (!committed) return options.fail(committed.failure());
    if (options.json) {
        JsonLine line;
        std::printf("%s\n", line.number("csn", committed->csn.value).str().c_str());
    }
    return kExitOk;
}

int row_get(const ToolOptions& options, const std::string& table,
            const std::vector<std::string>& key, const std::string& raw) {
    auto open = open_table(options, table, Rights::kReader);
    if (!open) return options.fail(open.failure());
    const Schema& schema = open->table.schema();
    auto encoded = encode_key(schema, key);
    if (!encoded) return options.fail(encoded.failure());
    const int alone = raw.empty() ? -1 : schema.find(raw);
    if (!raw.empty() && alone < 0) {
        return options.fail({Error::kInvalid, "table " + table + " has no column " + raw});
    }
    auto reader = open->store.reader();
    if (!reader) return options.fail(reader.failure());
    auto row = read_once(*reader, options.deadline(), [&](const Snapshot& snapshot) {
        return open->table.get(snapshot, *encoded);
    });
    if (!row) return options.fail(row.failure());
    if (!*row) return options.fail({Error::kNotFound, "no such row in table " + table});
    if (alone >= 0) {
        const auto bytes = column_bytes(schema, static_cast<std::uint32_t>(alone),
                                        (*row)->key.data(), (*row)->value);
        std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    } else if (options.json) {
        std::printf("%s\n", row_json(schema, (*row)->key, (*row)->value).c_str());
    } else {
        print_row(schema, **row);
    }
    return kExitOk;
}

int row_scan(const ToolOptions& options, const RowScan& scan) {
    auto open = open_table(options, scan.table, Rights::kReader);
    if (!open) return options.fail(open.failure());
    auto bounds = bounds_of(open->table.schema(), scan.range);
    if (!bounds) return options.fail(bounds.failure());
    RowPrinter printer(open->table.schema(), options.json, scan.wide);
    Status scanned = scan_rows(options, *open, scan, std::move(*bounds), printer);
    return scanned.ok() ? static_cast<int>(kExitOk) : options.fail(scanned.failure());
}

int row_delete(const ToolOptions& options, const RowDelete& erase) {
    const bool range = !erase.range.from.empty() || !erase.range.to.empty() ||
                       !erase.range.prefix.empty() || erase.all;
    if (range == !erase.key.empty()) {
        return options.fail({Error::kInvalid, "name a row by its key, or rows by --from, --to, "
                                              "--prefix or --all"});
    }
    auto open = open_table(options, erase.table, Rights::kWriter);
    if (!open) return options.fail(open.failure());
    const Schema& schema = open->table.schema();
    RawTransaction transaction;
    if (range) {
        auto bounds = bounds_of(schema, erase.range);
        if (!bounds) return options.fail(bounds.failure());
        transaction.erase_range(open->table, bounds->lower, bounds->upper, true);
    } else {
        auto key = encode_key(schema, erase.key);
        if (!key) return options.fail(key.failure());
        transaction.erase(open->table, *key);
    }
    auto committed = open->store.commit(transaction, options.deadline());
    if (!committed && committed.error() == Error::kNotFound) {
        return options.fail({Error::kNotFound, "no such row in table " + erase.table});
    }
    if (!committed) return options.fail(committed.failure());
    const auto rows = committed->results.empty()
                          ? std::uint64_t{1}
                          : static_cast<std::uint64_t>(committed->results.front());
    JsonLine line;
    if (options.json) std::printf("%s\n", line.number("rows", rows).str().c_str());
    else std::printf("%s row%s deleted\n", grouped(rows).c_str(), rows == 1 ? "" : "s");
    return kExitOk;
}

int row_count(const ToolOptions& options, const std::string& table, const RowRange& range) {
    auto open = open_table(options, table, Rights::kReader);
    if (!open) return options.fail(open.failure());
    auto bounds = bounds_of(open->table.schema(), range);
    if (!bounds) return options.fail(bounds.failure());
    auto count = count_rows(options, *open, std::move(*bounds));
    if (!count) return options.fail(count.failure());
    JsonLine line;
    if (options.json) std::printf("%s\n", line.number("rows", *count).str().c_str());
    else std::printf("%llu\n", static_cast<unsigned long long>(*count));
    return kExitOk;
}

}  // namespace bidstore
