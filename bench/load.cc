// The driver of `bench/run.sh load`: makes what is loaded, times the loads, prints the table.
//
//   --mode sorted | shuffled | json | csv    writes --rows rows to --file (- is standard output)
//   --mode parse     the bare parser (simdjson, one document a line) over --file, from memory
//   --mode time      runs the command behind --, and appends "name rows seconds cpu_seconds" to
//                    the file --results; the processor time is the command's, and that of the
//                    process --daemon meanwhile
//   --mode report    the table of --results
//
// Rows of JSON lines and CSV: the key in 32 hexadecimal digits, the value in base64.
#include <simdjson.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/cpu_time.h"
#include "bench/load_input.h"
#include "bench/measure.h"
#include "clientlib/load_rows.h"

namespace bench {
namespace {

struct Options {
    std::string mode;
    std::string file;
    std::string results;
    std::string name;
    std::uint64_t rows = 10'000'000;
    int daemon = 0;
    std::vector<std::string> command;
};

// ---- making -------------------------------------------------------------------------------------

class Output {
  public:
    explicit Output(const std::string& path)
        : path_(path), file_(path == "-" ? stdout : std::fopen(path.c_str(), "wb")) {
        if (file_ == nullptr) fail(path + ": cannot be written");
        std::setvbuf(file_, nullptr, _IOFBF, std::size_t{1} << 20);
    }
    void write(const void* bytes, std::size_t length) {
        if (std::fwrite(bytes, 1, length, file_) != length) fail(path_ + ": cannot be written");
    }
    void end() {
        if (std::fclose(file_) != 0) fail(path_ + ": cannot be written");
    }

  private:
    std::string path_;
    std::FILE* file_;
};

bidstore::Schema load_schema() {
    using bidstore::ColumnType;
    auto schema = bidstore::Schema::make(
        "load", {{"key", ColumnType::kFixed, kLoadKeyBytes},
                 {"value", ColumnType::kFixed, kLoadValueBytes}}, 1);
    if (!schema.ok()) fail(schema.failure().what);
    return *schema;
}

// Every number below `rows` once, in an order that jumps through all of them: numbers of as many
// bits as `rows` has are permuted, and those that are none of the rows left out.
std::uint64_t shuffled(std::uint64_t number, std::uint64_t rows) {
    const int bits = 64 - __builtin_clzll(std::max<std::uint64_t>(rows - 1, 3));
    const std::uint64_t mask = ~std::uint64_t{0} >> (64 - bits);
    do {
        for (int round = 0; round < 3; ++round) {
            number = (number * 0x9e3779b97f4a7c15 + 1) & mask;
            number ^= number >> (bits / 2);
        }
    } while (number >= rows);
    return number;
}

void make_rows(const Options& options) {
    const bool sorted = options.mode == "sorted";
    auto header = bidstore::rows_header(load_schema(), options.rows, sorted);
    if (!header.ok()) fail(header.failure().what);
    Output out(options.file);
    out.write(&*header, sizeof *header);
    std::byte row[kLoadRowBytes];
    for (std::uint64_t i = 0; i < options.rows; ++i) {
        make_load_row(sorted ? i : shuffled(i, options.rows), row);
        out.write(row, sizeof row);
    }
    out.end();
}

void append_hex(const std::byte* bytes, std::size_t length, std::string& text) {
    static constexpr char kDigits[] = "0123456789abcdef";
    for (std::size_t i = 0; i < length; ++i) {
        const auto byte = static_cast<unsigned>(bytes[i]);
        text += {kDigits[byte >> 4], kDigits[byte & 15]};
    }
}

void append_base64(const std::byte* bytes, std::size_t length, std::string& text) {
    static constexpr char kDigits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (std::size_t i = 0; i < length; i += 3) {
        std::uint32_t word = 0;
        for (std::size_t byte = 0; byte < 3; ++byte) {
            const bool there = i + byte < length;
            word = word << 8 | (there ? static_cast<std::uint32_t>(bytes[i + byte]) : 0);
        }
        for (std::size_t digit = 0; digit < 4; ++digit) {
            const bool padding = i + digit > length;
            text += padding ? '=' : kDigits[word >> (18 - 6 * digit) & 63];
        }
    }
}

void make_lines(const Options& options) {
    const bool json = options.mode == "json";
    Output out(options.file);
    if (!json) out.write("key,value\n", 10);
    std::byte row[kLoadRowBytes];
    std::string line;
    for (std::uint64_t i = 0; i < options.rows; ++i) {
        make_load_row(i, row);
        line = json ? "{\"key\":\"" : "";
        append_hex(row, kLoadKeyBytes, line);
        line += json ? "\",\"value\":\"" : ",";
        append_base64(row + kLoadKeyBytes, kLoadValueBytes, line);
        line += json ? "\"}\n" : "\n";
        out.write(line.data(), line.size());
    }
    out.end();
}

// ---- timing -------------------------------------------------------------------------------------

void note(const Options& options, double seconds, double cpu_seconds) {
    std::ofstream file(options.results, std::ios::app);
    file << options.name << ' ' << options.rows << ' ' << seconds << ' ' << cpu_seconds << '\n';
    if (!file.flush()) fail("--results " + options.results + ": cannot be written");
}

double seconds_of(const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

void time_command(const Options& options) {
    std::vector<char*> words;
    for (const std::string& word : options.command) words.push_back(const_cast<char*>(word.data()));
    words.push_back(nullptr);
    if (options.command.empty()) fail("--mode time wants a command behind --");
    const std::uint64_t daemon_before = cpu_ns_of(options.daemon);
    const std::uint64_t begin = now_ns();
    const pid_t child = ::fork();
    if (child == 0) {
        ::execvp(words[0], words.data());
        ::_exit(127);
    }
    int status = 0;
    rusage usage{};
    if (child < 0 || ::wait4(child, &status, 0, &usage) != child) fail("the command did not run");
    const double seconds = static_cast<double>(now_ns() - begin) / 1e9;
    if (status != 0) fail(options.command[0] + " failed");
    note(options, seconds,
         seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime) +
             static_cast<double>(cpu_ns_of(options.daemon) - daemon_before) / 1e9);
}

// What is read is summed up, so that nothing is left out: both strings of every line, as a load
// has to look at them.
void parse(const Options& options) {
    const simdjson::padded_string text = [&] {
        auto loaded = simdjson::padded_string::load(options.file);
        if (loaded.error()) fail(options.file + ": cannot be read");
        return std::move(loaded.value());
    }();
    simdjson::dom::parser parser;
    std::uint64_t rows = 0, bytes = 0;
    rusage before{}, after{};
    ::getrusage(RUSAGE_SELF, &before);
    const std::uint64_t begin = now_ns();
    simdjson::dom::document_stream lines;
    if (parser.parse_many(text).get(lines)) fail("the parser did not begin");
    for (auto line : lines) {
        std::string_view key, value;
        if (line["key"].get(key) || line["value"].get(value)) fail("a line is not as it was made");
        bytes += key.size() + value.size();
        ++rows;
    }
    const double seconds = static_cast<double>(now_ns() - begin) / 1e9;
    ::getrusage(RUSAGE_SELF, &after);
    if (rows != options.rows || bytes == 0) fail("the parser found " + std::to_string(rows));
    note(options, seconds, seconds_of(after.ru_utime) + seconds_of(after.ru_stime) -
                               seconds_of(before.ru_utime) - seconds_of(before.ru_stime));
}

// ---- report -------------------------------------------------------------------------------------

struct Series {
    double rows = 0;
    std::vector<double> seconds, cpu_seconds;
};

// By how much faster `one` is than `other`, row for row: the median over rounds side by side.
double ahead(const Series& one, const Series& other) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < std::min(one.seconds.size(), other.seconds.size()); ++i) {
        ratios.push_back(other.seconds[i] / other.rows / (one.seconds[i] / one.rows));
    }
    return median(ratios);
}

void print_ratios(std::map<std::string, Series>& found) {
    const Series& ours = found["sorted"];
    double rocksdb = 0;  // beside its fastest way
    for (const auto& [name, series] : found) {
        if (!name.starts_with("rocksdb") || ours.seconds.empty()) continue;
        const double ratio = ahead(ours, series);
        if (rocksdb == 0 || ratio < rocksdb) rocksdb = ratio;
    }
    constexpr double kRowsPerSecond = 4e6;
    const double rate = ours.rows / std::max(median(ours.seconds), 1e-9);
    std::printf("\nsorted: %.2f of the device; %.2f of RocksDB's fastest (%s); "
                "%.1f M rows/s (target 4: %s)\n",
                ahead(ours, found["device"]), rocksdb, rocksdb > 1 ? "ahead" : "BEHIND",
                rate / 1e6, rate >= kRowsPerSecond ? "met" : "MISSED");
    const double parser = ahead(found["json"], found["parser"]);
    std::printf("json:   %.2f of the parser alone, which has one thread (target 1: %s)\n", parser,
                parser >= 1 ? "met" : "MISSED");
}

void report(const Options& options) {
    std::ifstream file(options.results);
    std::map<std::string, Series> found;
    std::vector<std::string> names;
    std::string name;
    double rows = 0, seconds = 0, cpu_seconds = 0;
    while (file >> name >> rows >> seconds >> cpu_seconds) {
        if (!found.contains(name)) names.push_back(name);
        Series& series = found[name];
        series.rows = rows;
        series.seconds.push_back(seconds);
        series.cpu_seconds.push_back(cpu_seconds);
    }
    if (names.empty()) fail("--results " + options.results + ": nothing in it");
    std::printf("\n%-18s %7s %9s %11s %8s %7s   %s\n", "", "rounds", "seconds", "rows/s", "MB/s",
                "CPU s", "least to most seconds");
    for (const std::string& one : names) {
        const Series& series = found[one];
        const double middle = median(series.seconds);
        const auto [least, most] =
            std::minmax_element(series.seconds.begin(), series.seconds.end());
        std::printf("%-18s %7zu %9.2f %11.0f %8.0f %7.2f   %.2f to %.2f\n", one.c_str(),
                    series.seconds.size(), middle, series.rows / middle,
                    series.rows * kLoadRowBytes / middle / 1e6, median(series.cpu_seconds), *least,
                    *most);
    }
    print_ratios(found);
}

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app("Makes and times bulk loads. See bench/README.md.");
    app.add_option("--mode", options.mode)
        ->required()
        ->check(CLI::IsMember({"sorted", "shuffled", "json", "csv", "parse", "time", "report"}));
    app.add_option("--file", options.file, "what is written or parsed");
    app.add_option("--results", options.results, "file for the values measured");
    app.add_option("--name", options.name, "of the measurement");
    app.add_option("--rows", options.rows)->check(CLI::Range(1'000ull, 1'000'000'000ull));
    app.add_option("--daemon", options.daemon, "process id of the daemon, for its CPU time");
    app.add_option("command", options.command, "what is timed");
    CLI11_PARSE(app, argument_count, arguments);
    if (options.mode == "sorted" || options.mode == "shuffled") bench::make_rows(options);
    else if (options.mode == "json" || options.mode == "csv") bench::make_lines(options);
    else if (options.mode == "parse") bench::parse(options);
    else if (options.mode == "time") bench::time_command(options);
    else bench::report(options);
    return EXIT_SUCCESS;
}
