// bidstore: the command-line tool. Only the command line is here; each noun has its tool_*.cc.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "clientlib/load_lines.h"
#include "clientlib/tool_compact.h"
#include "clientlib/tool_import.h"
#include "clientlib/tool_load.h"
#include "clientlib/tool_options.h"
#include "clientlib/tool_rows.h"
#include "clientlib/tool_space.h"
#include "clientlib/tool_stats.h"
#include "clientlib/tool_table.h"

namespace bidstore {
namespace {

constexpr const char* kFooter = R"help(
Examples:
  bidstore table create bids --column time:timestamp --column auction:'fixed(16)' \
      --column price:u32 --column url:text --key time,auction --time time
  bidstore put bids time=now auction=22451750-35b6-4001-15e8-a82bbc185161 price=120 url=http://a.b
  bidstore scan bids --from time=now-30s --limit 10
  bidstore get users id=954c7a0069733319baf9c27e2b65322e --json
  bidstore import --create --mapping bidreq-20120111.toml bidreq-20120111.jsonl.gz
  bidstore load --create --mapping users.toml users users.jsonl.gz
  bidstore stats --watch 1

Column types: u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 timestamp fixed(N) bytes text

Values: integers and floats in decimal; timestamps as 2012-01-11T00:00:00.064709Z, now, now-30s
(us ms s m h d) or a number; fixed and bytes in hex, or text:abc, a uuid for fixed(16); text as is.

Exit codes:
  0  done
  1  no such row or table
  2  the command line or a mapping file makes no sense
  3  the daemon cannot be reached, or did not answer in time
  4  refused: rights, schema, a precondition, a limit, or lines that are not as the mapping says
  5  I/O error or corruption)help";

// More seconds would not fit the clock.
const CLI::Validator kSeconds(
    [](const std::string& word) {
        constexpr double kSecondsMax = 1e9;
        double seconds = 0;
        const bool number = CLI::detail::lexical_cast(word, seconds);
        if (number && seconds > 0 && seconds <= kSecondsMax) return std::string();
        return "\"" + word + "\" is not a number of seconds above 0, at most 1000000000";
    },
    "", "seconds");

// An empty one, of a shell variable that is not set, would mean no bound at all.
const CLI::Validator kBound(
    [](const std::string& word) {
        return word.empty() ? std::string("a bound is empty: leave the option out for no bound")
                            : std::string();
    },
    "", "bound");

constexpr const char* kLongReads = R"help(
What it sees: one snapshot, all of a transaction or none of it, for as long as the daemon lets a
snapshot live (max_snapshot_age, 5 s by default), however large the table is. A longer run goes on
behind its last row under a newer snapshot, and says so on standard error: each row then is as it
was at some moment of the run, one that was there all the time is met exactly once, and a
transaction may be seen in part.)help";

// Where a command leaves what it wants to run; called after the command line was read whole.
using Action = std::function<int()>;

void add_table_commands(CLI::App& app, const ToolOptions& options, Action& action) {
    CLI::App* table = app.add_subcommand("table", "Make, list, show, change and drop tables");
    table->require_subcommand(1);

    auto create = std::make_shared<TableCreate>();
    CLI::App* make = table->add_subcommand("create", "Make a table");
    make->add_option("NAME", create->name, "Its name; with --schema: only this table of the file");
    make->add_option("--column", create->columns, "name:type, once for each column")
        ->type_name("NAME:TYPE")->expected(1)->take_all();
    make->add_option("--key", create->key, "The key columns, in order: a,b")->type_name("NAMES");
    make->add_option("--time", create->time, "The time column")->type_name("NAME");
    make->add_option("--time-unit", create->time_unit, "us (default) or ns")
        ->check(CLI::IsMember({"us", "ns"}));
    make->add_option("--retain", create->retain, "Rows older than this go away: 72h, 14d")
        ->type_name("TIME");
    make->add_option("--schema", create->schema_file, "Take it from a mapping file (TOML)")
        ->type_name("FILE")->excludes("--column")->excludes("--key");
    make->add_flag("--if-missing", create->if_missing, "A table that is there and fits is fine");
    make->callback([&action, &options, create] {
        if (create->schema_file.empty() && (create->name.empty() || create->columns.empty())) {
            throw CLI::ValidationError("table create",
                                       "NAME and --column, or --schema, are needed");
        }
        action = [&options, create] { return table_create(options, *create); };
    });

    auto with_system = std::make_shared<bool>(false);
    CLI::App* list = table->add_subcommand("list", "List the tables");
    list->add_flag("--system", *with_system, "Also the store's own");
    list->callback([&action, &options, with_system] {
        action = [&options, with_system] { return table_list(options, *with_system); };
    });

    auto name = std::make_shared<std::string>();
    CLI::App* show = table->add_subcommand("show", "Show a table's columns");
    show->add_option("NAME", *name)->required();
    show->callback([&action, &options, name] {
        action = [&options, name] { return table_show(options, *name); };
    });
    auto retain = std::make_shared<std::string>();
    CLI::App* set = table->add_subcommand("set", "Change a table's retention");
    set->add_option("NAME", *name)->required();
    set->add_option("--retain", *retain, "Rows older than this go away: 72h, 14d; off: none does")
        ->type_name("TIME")->required();
    set->callback([&action, &options, name, retain] {
        action = [&options, name, retain] { return table_set(options, *name, *retain); };
    });
    CLI::App* drop = table->add_subcommand("drop", "Drop a table with all its rows");
    drop->add_option("NAME", *name)->required();
    drop->callback([&action, &options, name] {
        action = [&options, name] { return table_drop(options, *name); };
    });
}

void add_range(CLI::App* command, RowRange& range) {
    command->add_option("--from", range.from, "Lower bound, inclusive: a=1,b=2 (first key columns)")
        ->check(kBound)->type_name("BOUND");
    command->add_option("--to", range.to, "Upper bound, exclusive")
        ->check(kBound)->type_name("BOUND");
    command->add_option("--prefix", range.prefix, "Rows whose key begins so")
        ->check(kBound)->type_name("BOUND")->excludes("--from")->excludes("--to");
}

void add_write_commands(CLI::App& app, const ToolOptions& options, Action& action) {
    auto put = std::make_shared<RowPut>();
    CLI::App* command =
        app.add_subcommand("put", "Write a row; columns not named are zero or empty");
    command->add_option("TABLE", put->table)->required();
    command->add_option("VALUES", put->values, "column=value ...")->required();
    command
        ->add_option("--file", put->files,
                     "column=PATH: a file's bytes, up to 1 MiB; - is "
                     "standard input")
        ->type_name("COLUMN=PATH")
        ->allow_extra_args(false);
    CLI::Option* insert =
        command->add_flag("--insert", put->insert, "The row must not be there yet");
    command->add_flag("--update", put->update, "The row must be there; change only these columns")
        ->excludes(insert);
    command->add_flag("--relaxed", put->relaxed, "Answer before it is on disk");
    command->callback([&action, &options, put] {
        action = [&options, put] { return row_put(options, *put); };
    });

    auto erase = std::make_shared<RowDelete>();
    CLI::App* remove = app.add_subcommand("delete", "Delete a row, or the rows of a range");
    remove->add_option("TABLE", erase->table)->required();
    remove->add_option("KEY", erase->key, "column=value ... for all key columns");
    add_range(remove, erase->range);
    remove->add_flag("--all", erase->all, "All rows of the table");
    remove->callback([&action, &options, erase] {
        action = [&options, erase] { return row_delete(options, *erase); };
    });
}

void add_read_commands(CLI::App& app, const ToolOptions& options, Action& action) {
    auto wanted = std::make_shared<RowPut>();
    CLI::App* get = app.add_subcommand("get", "Show one row");
    get->add_option("TABLE", wanted->table)->required();
    get->add_option("KEY", wanted->values, "column=value ... for all key columns")->required();
    auto raw = std::make_shared<std::string>();
    get->add_option("--raw", *raw, "Print this column's bytes alone, as they are")
        ->type_name("COLUMN");
    get->callback([&action, &options, wanted, raw] {
        action = [&options, wanted, raw] {
            return row_get(options, wanted->table, wanted->values, *raw);
        };
    });

    auto scan = std::make_shared<RowScan>();
    CLI::App* rows = app.add_subcommand("scan", "Show rows in key order");
    rows->footer(kLongReads);
    rows->add_option("TABLE", scan->table)->required();
    add_range(rows, scan->range);
    rows->add_flag("--reverse", scan->reverse, "From the upper bound down");
    rows->add_option("--limit", scan->limit, "At most so many rows")->type_name("ROWS");
    rows->add_flag("--wide", scan->wide, "Do not cut long values");
    rows->callback([&action, &options, scan] {
        action = [&options, scan] { return row_scan(options, *scan); };
    });

    auto counted = std::make_shared<RowScan>();
    CLI::App* count = app.add_subcommand("count", "Count rows");
    count->footer(kLongReads);
    count->add_option("TABLE", counted->table)->required();
    add_range(count, counted->range);
    count->callback([&action, &options, counted] {
        action = [&options, counted] { return row_count(options, counted->table, counted->range); };
    });
}

void add_import_command(CLI::App& app, const ToolOptions& options, Action& action) {
    auto command = std::make_shared<ImportCommand>();
    CLI::App* import = app.add_subcommand(
        "import", "Read logs (JSON lines or CSV, plain or gzip) into tables.\n"
                  "An import that was cut short may be run again: rows written with mode \"put\"\n"
                  "are the same then. Counters of mode \"add\" count every line twice.");
    import->add_option("FILES", command->files, "Logs; - is standard input")->required();
    import->add_option("--mapping", command->mapping, "Which part of a line goes where (TOML)")
        ->required()->type_name("FILE");
    import->add_flag("--create", command->create, "Make tables that are missing");
    import->add_option("--format", command->format, "json or csv; by default by the file's name")
        ->check(CLI::IsMember({"json", "csv"}));
    import->add_option("--errors", command->errors,
                       "What to do with bad lines: stop, skip, or a file to write them to")
        ->type_name("stop|skip|FILE")->capture_default_str();
    import->add_flag("--progress", command->progress, "Show progress also without a terminal");
    import->add_option("--in-flight", command->in_flight,
                       "Transactions under way at a time; one with a row of another waits for it,\n"
                       "so that the rows of a key are written in the order of their lines")
        ->check(CLI::Range(1u, 64u))->capture_default_str();
    import->add_option("--deadline", command->deadline_seconds,
                       "Seconds for the whole import (--timeout is for each answer)")
        ->check(kSeconds)->type_name("SECONDS");
    import->callback([&action, &options, command] {
        action = [&options, command] { return import_files(options, *command); };
    });
}

void add_load_command(CLI::App& app, const ToolOptions& options, Action& action) {
    auto command = std::make_shared<LoadCommand>();
    CLI::App* load = app.add_subcommand(
        "load", "Fill a new or empty table with many rows at once, past the log: binary rows\n"
                "(clientlib/load_rows.h), JSON lines or CSV. All rows appear together at the end,\n"
                "or none of them. An empty table is replaced: programs open it again.");
    load->add_option("TABLE", command->table)->required();
    load->add_option("FILES", command->files, "Inputs; - is standard input (JSON lines, CSV)")
        ->required();
    load->add_option("--mapping", command->mapping, "Which part of a line goes where (TOML)")
        ->type_name("FILE");
    load->add_flag("--create", command->create,
                   "Make the table, when it is missing, as the mapping describes it; it stays\n"
                   "there, empty, when the load fails");
    load->add_option("--format", command->format, "rows, json or csv; by default by the file,\n"
                     "and by its name alone where it is a pipe: never rows")
        ->check(CLI::IsMember({"rows", "json", "csv"}));
    load->add_flag("--sorted", command->sorted,
                   "Keys rise through all files: load as they come, without sorting");
    load->add_flag("--last-wins", command->last_wins,
                   "Of rows with the same key, load the last (default: an error)");
    load->add_option("--threads", command->threads,
                     "Threads that read JSON lines and CSV (default: as many as there are cores)")
        ->check(CLI::Range(1u, kLoadThreadsMax));
    load->add_option("--memory", command->memory_mib, "MiB of memory for sorting")
        ->check(CLI::Range(1u, 1u << 20))->capture_default_str();
    load->add_option("--temp-dir", command->temp_dir,
                     "Where sorting keeps what is more (default $TMPDIR or /var/tmp)")
        ->type_name("DIR");
    load->add_option("--errors", command->errors,
                     "What to do with bad lines: stop, skip, or a file to write them to")
        ->type_name("stop|skip|FILE")->capture_default_str();
    load->add_flag("--progress", command->progress, "Show progress also without a terminal");
    load->callback([&action, &options, command] {
        if (command->sorted && command->last_wins) {
            throw CLI::ValidationError("load", "--last-wins needs sorting: leave out --sorted");
        }
        action = [&options, command] { return load_files(options, *command); };
    });
}

void add_stats_command(CLI::App& app, const ToolOptions& options, Action& action) {
    auto watch = std::make_shared<double>(0);
    CLI::App* stats = app.add_subcommand("stats", "Show the daemon's counters and latencies");
    stats->add_option("--watch", *watch, "Again and again, so many seconds apart")
        ->check(kSeconds)->type_name("SECONDS");
    stats->callback([&action, &options, watch] {
        action = [&options, watch] { return show_stats(options, *watch); };
    });
}

void add_space_command(CLI::App& app, const ToolOptions& options, Action& action) {
    CLI::App* space = app.add_subcommand(
        "space", "Show where the space of the data file is: tables, fullness, free pages.\n"
                 "Fullness is that of the leaves in the pool; leaves in order lie right behind\n"
                 "their predecessor in the file.");
    space->callback([&action, &options] { action = [&options] { return show_space(options); }; });
}

constexpr const char* kCompactFooter = R"help(
Leaves that are little filled join their neighbours. Then pages and large values of the last chunks
(2 MiB each) move to free places further in front, and the file is cut behind what is left in use;
some room stays, so that the next writes need not make the file grow at once. Readers and writers go
on; the space comes back when the snapshots that see the old places have ended (max_snapshot_age).
A chunk with a table's root in it stays. Free chunks before it become holes in the file: du tells
what it takes, ls its length.
Ended by a signal, its deadline or with the daemon, it leaves nothing half done.)help";

void add_compact_command(CLI::App& app, const ToolOptions& options, Action& action) {
    auto command = std::make_shared<CompactCommand>();
    CLI::App* compact = app.add_subcommand(
        "compact", "Give free space of the data file back to the file system");
    compact->footer(kCompactFooter);
    compact->add_flag("--online", command->online, "While the daemon serves: the only way")
        ->required();
    compact->add_option("--rate", command->pages_per_second, "Pages to move in a second at most")
        ->check(CLI::Range(1.0, 1e6))->type_name("PAGES")->capture_default_str();
    compact->add_option("--deadline", command->deadline_seconds,
                        "Seconds for the whole of it (--timeout is for each answer)")
        ->check(kSeconds)->type_name("SECONDS");
    compact->add_flag("--progress", command->progress, "Show progress also without a terminal");
    compact->callback([&action, &options, command] {
        action = [&options, command] { return compact_store(options, *command); };
    });
}

int run(int argc, char** argv) {
    CLI::App app{"Looks into a bidstore and changes it.", "bidstore"};
    ToolOptions options;
    const char* socket = std::getenv("BIDSTORE_SOCKET");
    options.socket = socket != nullptr ? socket : "/run/bidstore/bidstore.sock";
    app.add_option("--socket", options.socket, "The daemon's socket (or $BIDSTORE_SOCKET)")
        ->type_name("PATH")->capture_default_str();
    app.add_flag("--json", options.json, "One JSON object per line, for programs");
    app.add_option("--timeout", options.timeout_seconds, "How long to wait for an answer")
        ->check(kSeconds)->type_name("SECONDS")->capture_default_str();
    app.set_version_flag("--version", "bidstore " BIDSTORE_VERSION);
    app.require_subcommand(1);
    app.fallthrough();  // --json and the others may stand behind the command too
    app.footer(kFooter);
    Action action;
    add_table_commands(app, options, action);
    add_write_commands(app, options, action);
    add_read_commands(app, options, action);
    add_import_command(app, options, action);
    add_load_command(app, options, action);
    add_stats_command(app, options, action);
    add_space_command(app, options, action);
    add_compact_command(app, options, action);
    try {
        app.parse(argc, argv);
    } catch (const CLI::RequiredError& error) {
        // What is missing may be there, but misspelt.
        const std::vector<std::string> unknown = app.remaining(true);
        if (unknown.empty()) return app.exit(error), kExitUsage;
        std::fprintf(stderr, "bidstore: no command or option \"%s\": see bidstore --help\n",
                     unknown.front().c_str());
        return kExitUsage;
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? kExitOk : kExitUsage;
    }
    const int code = action();
    // What is long went out before, and its failure is remembered in the stream alone.
    const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    if (written || code != kExitOk) return code;
    std::fprintf(stderr, "bidstore: standard output: cannot be written\n");
    return kExitIo;
}

}  // namespace
}  // namespace bidstore

int main(int argc, char** argv) { return bidstore::run(argc, argv); }
