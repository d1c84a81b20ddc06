#include "clientlib/tool_load.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>

#include "clientlib/import.h"
#include "clientlib/load.h"
#include "clientlib/load_lines.h"
#include "clientlib/load_rows.h"
#include "clientlib/load_sort.h"
#include "clientlib/space_report.h"
#include "clientlib/tool_output.h"
#include "clientlib/tool_table.h"
#include "shm/stats.h"

namespace bidstore {
namespace {

using SteadyClock = std::chrono::steady_clock;

// One run of the command: rows from all inputs, sorted or as they come, into one load.
class LoadRun final : public PackedSink {
  public:
    LoadRun(const ToolOptions& options, const LoadCommand& command, const Schema& schema,
            TableLoad load)
        : options_(options),
          command_(command),
          schema_(schema),
          load_(std::move(load)),
          terminal_(::isatty(STDERR_FILENO) == 1) {
        if (!command.sorted) {
            sorter_.emplace(schema.key_bytes(), command.memory_mib << 20, temp_dir(),
                            command.last_wins, [this] { return say_alive(); });
        }
    }

    Status read(const std::string& path, const Mapping& mapping, const std::string& errors);
    Status read_rows(const std::string& path);
    // What waits in the sorter goes to the load; then the table appears.
    Status end();
    void print_summary() const;

    // ---- PackedSink ----
    Status write(std::span<const std::byte> rows, std::span<const std::uint64_t> lines) override {
        const std::uint64_t before = taken_;
        Status taken = take(rows);
        if (taken) return {};
        // The row that could not be taken; its own fault or that of the load.
        const std::uint64_t line = lines[std::min(taken_ - before, lines.size() - 1)];
        return {taken.error(), "line " + std::to_string(line) + ": " + taken.failure().what};
    }

  private:
    std::string temp_dir() const {
        if (!command_.temp_dir.empty()) return command_.temp_dir;
        const char* set = std::getenv("TMPDIR");
        return set != nullptr && *set != '\0' ? set : "/var/tmp";
    }
    // Packed rows; taken_ counts those in front of one that could not be.
    Status take(std::span<const std::byte> rows) {
        if (Status alive = say_alive(); !alive) return alive;
        if (!sorter_ && !schema_.has_variable()) {
            const std::uint64_t before = load_.rows();
            Status sent = load_.add_packed(rows, options_.deadline());
            taken_ += load_.rows() - before;
            bytes_ += rows.size();
            return sent;
        }
        for (; !rows.empty(); ++taken_) {
            const PackedRow row = take_row(schema_, rows);
            bytes_ += row.key.size() + row.value.size();
            if (sorter_) {
                if (Status room = look_for_room(bytes_); !room) return room;
            }
            Status taken = sorter_ ? sorter_->add(row.key, row.value) : add(row.key, row.value);
            if (!taken) return taken;
        }
        return {};
    }
    // Called wherever the run goes on without sending rows: while it reads, maps and sorts, and
    // while it waits for room. Reading that blocks is none of these: a load that waits for its own
    // input is silent, and makes way for others when that takes ten minutes.
    Status say_alive() {
        const auto now = SteadyClock::now();
        if (alive_ && now >= next_sign_) {
            next_sign_ = now + command_.sign_of_life;
            alive_ = load_.keep_alive(options_.deadline());
        }
        return alive_;
    }
    // kNoSpace when all rows that are known of have so many bytes that they cannot fit, told before
    // they are sorted, sent and placed. A row takes its length at least, unless a later one may
    // replace it. Waits, for as long as the command may, while dropped tables have pages left.
    Status look_for_room(std::uint64_t bytes);
    // Of the largest file that there may be.
    struct FreePages {
        std::uint64_t pages = 0;    // in use by nobody now
        bool more_to_come = false;  // those of tables that are dropped
    };
    Result<FreePages> free_pages() const;
    // Looks at the clock for some rows together.
    Status add(std::span<const std::byte> key, std::span<const std::byte> value) {
        if (load_.rows() % kRowsPerDeadline == 0) deadline_ = options_.deadline();
        return load_.add(key, value, deadline_);
    }
    unsigned threads() const {
        const unsigned wanted =
            command_.threads > 0 ? command_.threads : std::thread::hardware_concurrency();
        return std::clamp(wanted, 1u, kLoadThreadsMax);
    }
    void show(const ImportTotals& totals, const std::string& what);
    void clear_line() const {
        if (shown_ && terminal_) std::fputs("\r\x1b[K", stderr);
    }

    const ToolOptions& options_;
    const LoadCommand& command_;
    const Schema& schema_;
    TableLoad load_;
    std::optional<RowSorter> sorter_;
    const bool terminal_;
    static constexpr std::uint64_t kRowsPerDeadline = 64;
    static constexpr std::chrono::milliseconds kFreePagesPause{50};
    Deadline deadline_{};
    SteadyClock::time_point next_sign_ = SteadyClock::now() + command_.sign_of_life;
    Status alive_;  // of the last sign
    bool shown_ = false;
    double next_shown_ = 0.2;
    std::uint64_t taken_ = 0;
    std::uint64_t bytes_ = 0;       // of the rows that came, keys and values
    std::uint64_t free_pages_ = 0;  // when they were last counted
    std::uint64_t read_ = 0;
    std::uint64_t refused_ = 0;
    std::uint64_t runs_ = 0;
    std::vector<std::string> examples_;
    SteadyClock::time_point start_ = SteadyClock::now();
};

Status LoadRun::look_for_room(std::uint64_t bytes) {
    const std::uint64_t pages = bytes / kPageBytes;
    if (command_.last_wins || pages <= free_pages_) return {};
    const Deadline deadline = options_.deadline();
    bool more_to_come = false;
    for (bool said = false;; said = true) {
        auto free = free_pages();
        if (!free) return free.failure();
        free_pages_ = free->pages;
        if (pages <= free_pages_) return {};
        more_to_come = free->more_to_come;
        if (!more_to_come || SteadyClock::now() >= deadline) break;
        if (!said) {
            clear_line();
            std::fprintf(stderr, "bidstore: %s: waiting for the pages of dropped tables\n",
                         command_.table.c_str());
        }
        if (Status alive = say_alive(); !alive) return alive;
        std::this_thread::sleep_for(kFreePagesPause);
    }
    return {Error::kNoSpace,
            command_.table + ": rows of " + grouped(bytes) + " bytes take " + grouped(pages) +
                " pages at least, and of the largest file that max_data_bytes and pool_bytes allow "
                "no more than " +
                grouped(free_pages_) + " are free" +
                (more_to_come ? ", while dropped tables have pages left (tables_dropping in "
                                "`bidstore stats`): nothing was loaded; load again later"
                              : ": nothing was loaded; free some, or raise these")};
}

Result<LoadRun::FreePages> LoadRun::free_pages() const {
    auto store = options_.attach(Rights::kAdmin);
    if (!store) return store.failure();
    auto stats = store->stats(options_.deadline());
    if (!stats) return stats.failure();
    auto reader = store->reader();
    if (!reader) return reader.failure();
    auto file = file_space(*reader, options_.deadline());
    if (!file) return file.failure();
    const auto dropping = static_cast<std::uint32_t>(Counter::kTablesDropping);
    return FreePages{load_.file_pages_max() - std::min(load_.file_pages_max(), file->used_pages),
                     stats->counter[dropping] > 0};
}

void LoadRun::show(const ImportTotals& totals, const std::string& what) {
    if (!terminal_ && !command_.progress) return;
    const double elapsed = seconds_since(start_);
    if (elapsed < next_shown_) return;
    next_shown_ = elapsed + (terminal_ ? 0.2 : 2.0);
    shown_ = true;
    std::fprintf(stderr, terminal_ ? "\r%s: %s\x1b[K" : "%s: %s\n", what.c_str(),
                 progress_line(totals, elapsed).c_str());
}

Status LoadRun::read(const std::string& path, const Mapping& mapping, const std::string& errors) {
    const SourceFormat format = command_.format == "csv"    ? SourceFormat::kCsv
                                : command_.format == "json" ? SourceFormat::kJson
                                                            : SourceFormat::kByName;
    auto source = open_source(path, format);
    if (!source) return source.failure();
    // Looked at before there is a file for refused lines; each thread makes its own.
    const Schema* schemas[] = {&schema_};
    auto mapper = RowMapper::make(mapping, schemas, **source);
    if (!mapper) return {mapper.error(), command_.mapping + ": " + mapper.failure().what};
    auto refusals = RefusalLog::make(errors, path);
    if (!refusals) return refusals.failure();
    ImportTotals totals;
    const LineLoad lines{
        **source, mapping, schema_, *this, *refusals, totals, [&](const ImportTotals& now) {
            show(now, path);
            static_cast<void>(say_alive());  // take() or end() says why it failed
        }};
    Status status = load_lines(lines, threads());
    read_ += totals.rows;
    refused_ += totals.refused;
    for (const std::string& example : refusals->examples()) examples_.push_back(example);
    // Lines that were refused are the log's fault, not the command line's.
    if (status.error() != Error::kInvalid) return status;
    return {Error::kPrecondition, status.failure().what};
}

Status LoadRun::read_rows(const std::string& path) {
    auto file = RowsFile::open(path, schema_);
    if (!file) return file.failure();
    ImportTotals totals;
    totals.bytes_total = file->bytes_total();
    if (Status room = look_for_room(bytes_ + file->row_bytes_total()); !room) return room;
    for (;;) {
        auto rows = file->next();
        if (!rows) return rows.failure();
        if (rows->empty()) break;
        if (Status taken = take(*rows); !taken) return taken;
        totals.rows = file->rows_read();
        totals.bytes_read = file->bytes_read();
        show(totals, path);
    }
    read_ += file->rows_read();
    return {};
}

Status LoadRun::end() {
    Status sorted = say_alive();
    if (sorter_ && sorted) {
        runs_ = sorter_->runs();
        ImportTotals totals;
        totals.bytes_total = read_;
        sorted = sorter_->drain([&](auto key, auto value) {
            totals.bytes_read = totals.rows = load_.rows();
            if (totals.rows % 1024 == 0) show(totals, "loading");
            return add(key, value);
        });
    }
    // Sync, checkpoint: as long as they take; a daemon that goes away is noticed.
    if (sorted) sorted = load_.finish(in(std::chrono::hours(24)));
    clear_line();
    return sorted;
}

void LoadRun::print_summary() const {
    const double seconds = seconds_since(start_);
    const auto rate =
        static_cast<std::uint64_t>(seconds > 0 ? static_cast<double>(load_.rows()) / seconds : 0);
    if (options_.json) {
        JsonLine line;
        line.text("table", command_.table).number("rows", load_.rows()).number("read", read_);
        line.number("refused", refused_).number("runs", runs_);
        line.raw("seconds", std::to_string(seconds)).number("rows_per_second", rate);
        std::printf("%s\n", line.str().c_str());
        return;
    }
    std::printf("%s rows loaded into %s, %s read, %s lines refused, %.2f s, %s rows/s\n",
                grouped(load_.rows()).c_str(), command_.table.c_str(), grouped(read_).c_str(),
                grouped(refused_).c_str(), seconds, grouped(rate).c_str());
    for (const std::string& example : examples_) std::printf("  %s\n", example.c_str());
}

// The block of the mapping that is the table's.
Result<Mapping> block_of(const LoadCommand& command) {
    auto whole = load_mapping(command.mapping);
    if (!whole) return whole.failure();
    Mapping one;
    for (const TableMapping& block : whole->tables) {
        if (block.name == command.table) one.tables.push_back(block);
    }
    if (one.tables.size() != 1) {
        return {Error::kInvalid, command.mapping + ": has no one block for table " + command.table};
    }
    if (one.tables.front().mode == RowMode::kAdd) {
        return {Error::kInvalid, command.mapping +
                                     ": mode \"add\" changes rows, and a load makes "
                                     "them: use `bidstore import`"};
    }
    return one;
}

bool is_rows(const LoadCommand& command, const std::string& path) {
    if (!command.format.empty()) return command.format == "rows";
    return path != "-" && RowsFile::looks_like_one(path);
}

// Of the table that is there, else, with --create, of the one that the mapping describes. That one
// is made here, empty: a load goes on with the retention of the table that it replaces, and has no
// other way to get one.
Result<Schema> schema_of(const ToolOptions& options, const LoadCommand& command,
                         const Mapping& mapping) {
    auto store = options.attach(Rights::kAdmin);
    if (!store) return store.failure();
    auto table = store->open_raw(command.table, options.deadline());
    if (table) return table->schema();
    if (table.error() != Error::kNoSuchTable) return table.failure();
    if (command.create && !mapping.tables.empty()) {
        const TableMapping& block = mapping.tables.front();
        auto schema = mapping_schema(block);
        if (!schema) return schema.failure();
        auto made = ensure_table(*store, *schema, block.retain, true, options.deadline());
        if (!made) return made.failure();
        return schema;
    }
    return {Error::kNoSuchTable, table.failure().what +
                                     "; make it with `bidstore table create`, "
                                     "or load with --mapping and --create"};
}

// Of files that are open at a time: sorting has one for each run. The soft limit is there for
// programs that use select(), which this one does not.
void raise_file_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int load_files(const ToolOptions& options, const LoadCommand& command) {
    Status apart = errors_beside_inputs(command.errors, command.files, command.mapping);
    if (!apart) return options.fail(apart.failure());
    Mapping mapping;
    const bool all_rows = std::all_of(command.files.begin(), command.files.end(),
                                      [&](const auto& path) { return is_rows(command, path); });
    if (!command.mapping.empty()) {
        auto block = block_of(command);
        if (!block) return options.fail(block.failure());
        mapping = std::move(*block);
    } else if (!all_rows) {
        return options.fail({Error::kInvalid,
                             "JSON lines and CSV need --mapping: which part of a "
                             "line goes where"});
    }
    auto schema = schema_of(options, command, mapping);
    if (!schema) return options.fail(schema.failure());
    AttachOptions attach;
    attach.socket = options.socket;
    auto load = TableLoad::begin(attach, *schema, options.deadline());
    if (!load) return options.fail(load.failure());
    if (!command.sorted) raise_file_limit();
    LoadRun run(options, command, *schema, std::move(*load));
    Status status;
    for (std::size_t i = 0; i < command.files.size() && status.ok(); ++i) {
        const std::string& path = command.files[i];
        status = is_rows(command, path) ? run.read_rows(path)
                                        : run.read(path, mapping, errors_for(command.errors, i));
    }
    if (status) status = run.end();
    if (!status) return options.fail(status.failure());
    run.print_summary();
    return kExitOk;
}

}  // namespace bidstore
