#include "clientlib/tool_import.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "clientlib/import.h"
#include "clientlib/tool_output.h"
#include "clientlib/tool_sink.h"
#include "clientlib/tool_table.h"

namespace bidstore {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Writes the state of the import over itself, a few times a second.
class ProgressLine {
  public:
    explicit ProgressLine(bool forced) : terminal_(::isatty(STDERR_FILENO) == 1), forced_(forced) {}
    ~ProgressLine() {
        if (shown_ && terminal_) std::fputs("\r\x1b[K", stderr);
    }
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    void show(const std::string& file, const ImportTotals& totals) {
        if ((!terminal_ && !forced_) || totals.records % 64 != 0) return;
        const double elapsed = seconds_since(start_);
        if (elapsed < next_) return;
        next_ = elapsed + (terminal_ ? 0.2 : 2.0);
        shown_ = true;
        std::fprintf(stderr, terminal_ ? "\r%s: %s\x1b[K" : "%s: %s\n", file.c_str(),
                     progress_line(totals, elapsed).c_str());
    }

  private:
    bool terminal_;
    bool forced_;
    bool shown_ = false;
    double next_ = 0.2;
    SteadyClock::time_point start_ = SteadyClock::now();
};

struct Summary {
    ImportTotals totals;
    std::uint64_t rows_written = 0;
    std::uint64_t transactions = 0;
    double seconds = 0;
    std::vector<std::string> examples;
};

// What one run of the command holds together.
struct ImportRun {
    const ToolOptions& options;
    const ImportCommand& command;
    Store& store;
    Mapping mapping;
    std::vector<RawTable> tables;
    SteadyClock::time_point start = SteadyClock::now();

    // The deadline of a wait that begins now: the tool's own, or the end of the whole import.
    Deadline wait_until() const {
        const Deadline usual = options.deadline();
        if (command.deadline_seconds <= 0) return usual;
        const auto whole = std::chrono::duration<double>(command.deadline_seconds);
        return std::min(usual, start + std::chrono::duration_cast<std::chrono::nanoseconds>(whole));
    }
};

SourceFormat format_of(const std::string& name) {
    if (name == "csv") return SourceFormat::kCsv;
    return name == "json" ? SourceFormat::kJson : SourceFormat::kByName;
}

Result<std::vector<RawTable>> open_tables(Store& store, const Mapping& mapping, bool create,
                                          const ToolOptions& options) {
    std::vector<RawTable> tables;
    for (const TableMapping& block : mapping.tables) {
        if (create) {
            auto schema = mapping_schema(block);
            if (!schema) return schema.failure();
            auto made = ensure_table(store, *schema, block.retain, true, options.deadline());
            if (!made) return made.failure();
        }
        auto table = store.open_raw(block.name, options.deadline());
        if (!table && table.error() == Error::kNoSuchTable) {
            return {Error::kNoSuchTable,
                    table.failure().what + "; make it with `bidstore table create`, or import "
                                           "with --create"};
        }
        if (!table) return table.failure();
        tables.push_back(std::move(*table));
    }
    return tables;
}

// Lines that were refused are the log's fault, not the command line's.
Status refused_lines(Status status) {
    if (status.error() != Error::kInvalid) return status;
    return {Error::kPrecondition, status.failure().what};
}

Status import_file(ImportRun& run, const std::string& path, RefusalLog& refusals,
                   Summary& summary) {
    auto source = open_source(path, format_of(run.command.format));
    if (!source) return source.failure();
    std::vector<const Schema*> schemas;
    for (const RawTable& table : run.tables) schemas.push_back(&table.schema());
    auto mapper = RowMapper::make(run.mapping, schemas, **source);
    if (!mapper) return {mapper.error(), run.command.mapping + ": " + mapper.failure().what};
    StoreSink sink(run.store, run.tables, refusals, run.command.in_flight,
                   [&run] { return run.wait_until(); });
    ProgressLine line(run.command.progress);
    ImportTotals totals;
    Status status = run_import(**source, *mapper, sink, refusals, totals,
                               [&](const ImportTotals& now) { line.show(path, now); });
    summary.totals.records += totals.records;
    summary.totals.refused += refusals.count();
    summary.rows_written += sink.rows_written();
    summary.transactions += sink.transactions();
    for (const std::string& example : refusals.examples()) summary.examples.push_back(example);
    return refused_lines(std::move(status));
}

void print_summary(const ToolOptions& options, const ImportCommand& command,
                   const Summary& summary) {
    const double rate = summary.seconds > 0
                            ? static_cast<double>(summary.rows_written) / summary.seconds
                            : 0;
    if (options.json) {
        JsonLine line;
        line.number("records", summary.totals.records).number("rows", summary.rows_written);
        line.number("refused", summary.totals.refused);
        line.number("transactions", summary.transactions);
        line.raw("seconds", std::to_string(summary.seconds));
        line.number("rows_per_second", static_cast<std::uint64_t>(rate));
        std::printf("%s\n", line.str().c_str());
        return;
    }
    std::printf("%s lines read, %s rows written in %s transactions, %s lines refused, %.2f s, "
                "%s rows/s\n",
                grouped(summary.totals.records).c_str(), grouped(summary.rows_written).c_str(),
                grouped(summary.transactions).c_str(), grouped(summary.totals.refused).c_str(),
                summary.seconds, grouped(static_cast<std::uint64_t>(rate)).c_str());
    if (command.errors == "stop") return;  // the one line that was refused is the error itself
    for (const std::string& example : summary.examples) std::printf("  %s\n", example.c_str());
    if (summary.totals.refused > summary.examples.size()) std::printf("  ...\n");
}

}  // namespace

int import_files(const ToolOptions& options, const ImportCommand& command) {
    Status apart = errors_beside_inputs(command.errors, command.files, command.mapping);
    if (!apart) return options.fail(apart.failure());
    auto mapping = load_mapping(command.mapping);
    if (!mapping) return options.fail(mapping.failure());
    auto store = options.attach(command.create ? Rights::kAdmin : Rights::kWriter);
    if (!store) return options.fail(store.failure());
    auto tables = open_tables(*store, *mapping, command.create, options);
    if (!tables) return options.fail(tables.failure());
    ImportRun run{options, command, *store, std::move(*mapping), std::move(*tables)};
    Summary summary;
    Status status;
    for (std::size_t i = 0; i < command.files.size() && status.ok(); ++i) {
        auto refusals = RefusalLog::make(errors_for(command.errors, i), command.files[i]);
        if (!refusals) return options.fail(refusals.failure());
        status = import_file(run, command.files[i], *refusals, summary);
    }
    summary.seconds = seconds_since(run.start);
    print_summary(options, command, summary);
    return status.ok() ? static_cast<int>(kExitOk) : options.fail(status.failure());
}

}  // namespace bidstore
