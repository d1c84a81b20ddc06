#include "clientlib/tool_space.h"

#include <cmath>
#include <cstdio>
#include <vector>

#include "clientlib/import.h"
#include "clientlib/space_report.h"
#include "clientlib/tool_output.h"
#include "shm/stats.h"

namespace bidstore {
namespace {

std::string percent(double share) { return std::to_string(std::lround(share * 100)) + " %"; }

std::string decimals(double number) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f", number);
    return text;
}

std::string share_json(double share) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", share);
    return text;
}

std::string table_json(const TableSpace& table) {
    JsonLine line;
    line.text("name", table.name).number("id", table.id).number("pages", table.pages());
    line.number("leaves", table.leaves).number("inner_nodes", table.inner_nodes);
    line.number("depth", table.depth).number("leaves_seen", table.leaves_seen);
    line.number("rows_seen", table.rows_seen).raw("fullness", share_json(table.fullness()));
    line.raw("in_order", share_json(table.in_order_share()));
    const ExtentSpace& extents = table.extents;
    line.number("extent_pages", extents.pages).number("extent_runs", extents.runs);
    line.number("extents_seen", extents.seen).number("extent_runs_seen", extents.runs_seen);
    line.number("extent_pages_seen", extents.pages_seen);
    line.number("extent_bytes_seen", extents.bytes_seen);
    return line.str();
}

void print_json(const FileSpace& file, std::uint64_t quarantined_and_free,
                const std::vector<TableSpace>& tables, const ExtentSpace& left) {
    std::string list;
    for (const TableSpace& table : tables) {
        list.append(list.empty() ? "" : ",").append(table_json(table));
    }
    JsonLine line;
    line.number("chunks", file.chunks).number("used_pages", file.used_pages);
    line.number("free_pages", file.free_pages).number("free_runs", file.free_runs);
    line.number("longest_run", file.longest_run).number("empty_chunks", file.empty_chunks);
    line.number("empty_at_end", file.empty_at_end);
    line.number("large_value_pages", file.large_value_pages);
    line.number("other_extent_pages", left.pages);
    line.number("free_pages_counted", quarantined_and_free).raw("tables", "[" + list + "]");
    std::printf("%s\n", line.str().c_str());
}

double share_seen(const TableSpace& table) {
    if (table.leaves == 0) return 0;
    return static_cast<double>(table.leaves_seen) / static_cast<double>(table.leaves);
}

// How many extents there are, and how full they are, only rows tell: those in leaves that are seen.
void print_extents(const std::vector<TableSpace>& tables) {
    TextTable text({"large values of", ">extents seen", ">pages", ">MiB", ">runs", ">runs each",
                    ">full", ">bytes free within", ">seen"});
    bool any = false;
    for (const TableSpace& table : tables) {
        const ExtentSpace& extents = table.extents;
        if (extents.pages == 0 && extents.seen == 0) continue;
        any = true;
        const bool seen = extents.seen > 0;
        text.add({table.name, grouped(extents.seen), grouped(extents.pages),
                  grouped(extents.pages / 256), grouped(extents.runs),
                  seen ? decimals(extents.runs_each()) : "?",
                  seen ? percent(extents.fullness()) : "?",
                  seen ? grouped(extents.free_bytes_seen()) : "?", percent(share_seen(table))});
    }
    if (any) std::printf("\n%s", text.str(true).c_str());
}

void print_file(const FileSpace& file, const ExtentSpace& left) {
    const std::uint64_t pages = file.used_pages + file.free_pages;
    const double used =
        pages == 0 ? 0 : static_cast<double>(file.used_pages) / static_cast<double>(pages);
    std::printf("data file  %s chunks of 2 MiB, %s MiB\n", grouped(file.chunks).c_str(),
                grouped(2 * file.chunks).c_str());
    std::printf("in use     %s pages, %s\n", grouped(file.used_pages).c_str(),
                percent(used).c_str());
    std::printf("free       %s pages in %s runs, the longest of %s pages\n",
                grouped(file.free_pages).c_str(), grouped(file.free_runs).c_str(),
                grouped(file.longest_run).c_str());
    std::printf("           %s of them in runs that take any large value whole\n",
                grouped(file.large_value_pages).c_str());
    std::printf("empty      %s chunks, %s of them at the end\n", grouped(file.empty_chunks).c_str(),
                grouped(file.empty_at_end).c_str());
    // The file system knows, and a client does not see the file.
    if (file.empty_chunks > file.empty_at_end) {
        std::printf(
            "           those that a compaction made holes of count here: du shows what the "
            "file takes\n");
    }
    if (left.pages > 0) {
        std::printf("leaving    %s pages of large values of tables that are dropped or loaded\n",
                    grouped(left.pages).c_str());
    }
    std::printf("\n");
}

void print_tables(const std::vector<TableSpace>& tables) {
    TextTable text({"table", ">id", ">pages", ">MiB", ">leaves", ">inner", ">levels", ">full",
                    ">in order", ">seen"});
    for (const TableSpace& table : tables) {
        text.add({table.name, std::to_string(table.id), grouped(table.pages()),
                  grouped(table.pages() / 256), grouped(table.leaves), grouped(table.inner_nodes),
                  std::to_string(table.depth),
                  table.leaves_seen == 0 ? "?" : percent(table.fullness()),
                  percent(table.in_order_share()), percent(share_seen(table))});
    }
    std::fputs(text.str(true).c_str(), stdout);
}

}  // namespace

int show_space(const ToolOptions& options) {
    auto store = options.attach(Rights::kReader);
    if (!store) return options.fail(store.failure());
    auto stats = store->stats(options.deadline());
    if (!stats) return options.fail(stats.failure());
    auto reader = store->reader();
    if (!reader) return options.fail(reader.failure());
    const auto counter = [&](Counter which) {
        return stats->counter[static_cast<std::uint32_t>(which)];
    };
    auto file = file_space(*reader, options.deadline());
    if (!file) return options.fail(file.failure());
    auto tables = all_table_space(*store, *reader, options.deadline());
    if (!tables) return options.fail(tables.failure());
    const ExtentSpace left = add_extents(*file, *tables);
    if (options.json) {
        print_json(*file, counter(Counter::kFreePages), *tables, left);
    } else {
        print_file(*file, left);
        print_tables(*tables);
        print_extents(*tables);
    }
    return kExitOk;
}

}  // namespace bidstore
