// `bidstore load` by real processes: wrong files, full disks, and kills in the middle. Whatever
// happens, the table has all rows or none, and every page of the file is accounted for.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "clientlib/load_rows.h"
#include "clientlib/space_report.h"
#include "tests/load_rows_fixture.h"
#include "tests/real_store.h"

namespace bidstore {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kRowBytes = 200;
constexpr std::uint64_t kRows = 200'000;  // 40 MB

Schema rows_schema() {
    auto schema = Schema::make(
        "t", {{"k", ColumnType::kU64, 0}, {"pad", ColumnType::kFixed, kRowBytes - 8}}, 1);
    CHECK(schema.ok());
    return *schema;
}

// Row i of the file has the key key_of(i); the last `missing` bytes are not there.
template <class KeyOf>
std::string rows_file(std::uint64_t rows, KeyOf key_of, std::size_t missing = 0) {
    const auto header = rows_header(rows_schema(), rows, true);
    CHECK(header.ok());
    std::string file(sizeof *header + rows * kRowBytes, 'p');
    std::memcpy(file.data(), &*header, sizeof *header);
    for (std::uint64_t i = 0; i < rows; ++i) {
        std::byte key[8];
        encode_key_integer(key, key_of(i), 8, false);
        std::memcpy(&file[sizeof *header + i * kRowBytes], key, sizeof key);
    }
    file.resize(file.size() - missing);
    return file;
}

std::string rising(std::uint64_t rows, std::size_t missing = 0) {
    return rows_file(rows, [](std::uint64_t i) { return i; }, missing);
}

class LoadProcesses : public testing::Test {
  protected:
    void TearDown() override {
        if (!daemon_ || !daemon_->running()) return;
        EXPECT_EQ(daemon_->stop(), 0) << daemon_->log();
    }
    void start(std::optional<std::string> directory = std::nullopt) {
        const std::vector<std::string> settings{"pool_bytes=64MiB", "max_data_bytes=1GiB"};
        if (directory) daemon_.emplace(*directory, settings);
        else daemon_.emplace(settings);
        ASSERT_TRUE(daemon_->start());
        make_table();
    }
    void make_table() {
        const Finished made = tool({"table", "create", "t", "--column", "k:u64", "--column",
                                    "pad:fixed(192)", "--key", "k"});
        ASSERT_EQ(made.status, 0) << made.output;
    }
    void make_events() {
        Store store = attach(*daemon_);
        bidstore::make_table<Event>(store);
    }
    std::vector<std::string> command(const std::vector<std::string>& arguments) {
        std::vector<std::string> words{std::string(BIDSTORE_BINARY_DIR) + "/bidstore", "--socket",
                                       daemon_->socket()};
        words.insert(words.end(), arguments.begin(), arguments.end());
        return words;
    }
    Finished tool(const std::vector<std::string>& arguments) {
        return run_to_end(command(arguments));
    }
    std::string write_file(const std::string& name, const std::string& content) {
        std::ofstream(work_.file(name), std::ios::binary) << content;
        return work_.file(name);
    }
    // Tables and metadata are the pages in use, and all others may be used, at once or soon.
    void expect_every_page_accounted_for() {
        Store store = attach(*daemon_);
        Reader reader = need(store.reader());
        std::string found;
        const auto accounted = [&] {
            const FileSpace file = need(file_space(reader, soon()));
            std::uint64_t pages = 2 + file.chunks + (file.chunks + 127) / 128;
            auto tables = need(all_table_space(store, reader, soon()));
            pages += add_extents(file, tables).pages;
            for (const TableSpace& each : tables) pages += each.pages();
            const std::uint64_t free = counter(store, Counter::kFreePages);
            found = std::to_string(file.used_pages) + " pages in use, " + std::to_string(pages) +
                    " of tables; " + std::to_string(file.free_pages) + " free, " +
                    std::to_string(free) + " counted";
            return file.used_pages == pages && file.free_pages == free;
        };
        EXPECT_TRUE(eventually(accounted)) << found;
    }
    void expect_nothing_loaded() {
        EXPECT_EQ(tool({"count", "t"}).output, "0\n");
        expect_every_page_accounted_for();
    }
    // A load whose input stops in the middle: its pages are on the way to the disk. The other half
    // comes with go_on().
    Process load_half(const std::string& table, const std::string& rows) {
        const std::string pipe = work_.file("pipe");
        EXPECT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
        writer_ = Process::fork([&] {
            const auto half = static_cast<std::streamsize>(rows.size() / 2);
            std::ofstream out(pipe, std::ios::binary);
            out.write(rows.data(), half).flush();
            if (!eventually([&] { return fs::exists(work_.file("go_on")); })) return 1;
            out.write(rows.data() + half, static_cast<std::streamsize>(rows.size()) - half).flush();
            ::pause();
            return 0;
        });
        Process load = Process::run(command({"load", table, pipe, "--format", "rows", "--sorted"}),
                                    work_.file("load.log"));
        const std::string data = daemon_->data_directory() + "/data";
        EXPECT_TRUE(eventually([&] { return fs::file_size(data) > (8u << 20); }))
            << read_whole_file(work_.file("load.log"));
        return load;
    }
    void go_on() { write_file("go_on", ""); }

    WorkDirectory work_;
    std::optional<RealDaemon> daemon_;
    Process writer_;
};

TEST_F(LoadProcesses, AClientKilledInTheMiddleLeavesNothing) {
    start();
    Process load = load_half("t", rising(kRows));
    load.kill();
    expect_nothing_loaded();
    EXPECT_EQ(tool({"load", "t", write_file("rows", rising(1000)), "--sorted"}).status, 0);
    EXPECT_EQ(tool({"count", "t"}).output, "1000\n");
    expect_every_page_accounted_for();
}

TEST_F(LoadProcesses, ADaemonKilledInTheMiddleLeavesNothing) {
    start();
    Process load = load_half("t", rising(kRows));
    daemon_->kill();
    go_on();  // what it waits for is the daemon then, wherever it was
    EXPECT_EQ(load.wait().value_or(-1), 3) << read_whole_file(work_.file("load.log"));
    ASSERT_TRUE(daemon_->start());
    expect_nothing_loaded();
    EXPECT_EQ(tool({"load", "t", write_file("rows", rising(1000)), "--sorted"}).status, 0);
    EXPECT_EQ(tool({"count", "t"}).output, "1000\n");
}

TEST_F(LoadProcesses, FilesThatAreNotWhatTheyClaimAreRefused) {
    start();
    struct Case {
        std::string name;
        std::string content;
        std::string words;
    };
    const std::string one = rising(1'000);
    const Case cases[] = {
        {"short", rising(1'000, 100), "promises"},
        {"header", one.substr(0, 40), "not a file of binary rows"},
        {"long", one + "x", "promises"},
        {"falls", rows_file(1'000, [](auto i) { return i == 700 ? 3 : i; }), "row 701 "},
        {"twice", rows_file(1'000, [](auto i) { return i == 700 ? 699 : i; }), "row 701 "},
    };
    for (const Case& bad : cases) {
        SCOPED_TRACE(bad.name);
        const Finished ran =
            tool({"load", "t", write_file(bad.name, bad.content), "--sorted", "--format", "rows"});
        EXPECT_TRUE(ran.status == 2 || ran.status == 4) << ran.status;
        EXPECT_NE(ran.output.find(bad.words), std::string::npos) << ran.output;
        expect_nothing_loaded();
    }
    // Without the claim a row that falls is sorted in, but no key may be there twice.
    EXPECT_EQ(tool({"load", "t", work_.file("twice")}).status, 4);
    expect_nothing_loaded();
}

// Of a pipe nobody knows the length beforehand.
TEST_F(LoadProcesses, APipeThatEndsEarlyLoadsNothing) {
    start();
    const std::string pipe = work_.file("pipe");
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    writer_ = Process::fork([&] {
        std::ofstream(pipe, std::ios::binary) << rising(20'000, 100);
        return 0;
    });
    const Finished ran = tool({"load", "t", pipe, "--format", "rows", "--sorted"});
    EXPECT_EQ(ran.status, 2);
    EXPECT_NE(ran.output.find("ends after 3999900 of 4000000 bytes"), std::string::npos)
        << ran.output;
    expect_nothing_loaded();
}

// To find out whether they were binary rows, the first bytes used to be taken from the pipe, and it
// was opened twice: the first line was lost, or the second open hung.
TEST_F(LoadProcesses, LinesFromAPipeAreAllLoadedWithoutAFormat) {
    start();
    const std::string pipe = work_.file("pipe");
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    const std::string mapping = write_file(
        "lines.toml", "[[table]]\nname = \"lines\"\nmode = \"put\"\nkey = [\"k\"]\n"
                      "columns = [{ name = \"k\", type = \"u64\", path = \"k\" }]\n");
    writer_ = Process::fork([&] {
        std::ofstream(pipe, std::ios::binary) << "{\"k\":1}\n{\"k\":2}\n{\"k\":3}\n";
        return 0;
    });
    Process load = Process::run(command({"load", "lines", pipe, "--mapping", mapping, "--create",
                                         "--errors", "skip", "--json"}),
                                work_.file("load.log"));
    EXPECT_EQ(load.wait().value_or(-1), 0) << read_whole_file(work_.file("load.log"));
    EXPECT_EQ(tool({"count", "lines"}).output, "3\n");
    EXPECT_EQ(writer_.wait().value_or(-1), 0);
}

TEST_F(LoadProcesses, ProgressIsShownWithoutATerminalWhenAskedFor) {
    start();
    const std::string pipe = work_.file("pipe");
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    const std::string rows = rising(20'000);
    for (const bool asked : {false, true}) {
        SCOPED_TRACE(asked);
        writer_ = Process::fork([&] {
            std::ofstream out(pipe, std::ios::binary);
            out.write(rows.data(), static_cast<std::streamsize>(rows.size() / 2)).flush();
            std::this_thread::sleep_for(std::chrono::milliseconds(500));
            out.write(rows.data() + rows.size() / 2,
                      static_cast<std::streamsize>(rows.size() - rows.size() / 2));
            return 0;
        });
        std::vector<std::string> words{"load", "t", pipe, "--format", "rows", "--sorted"};
        if (asked) words.push_back("--progress");
        const Finished ran = tool(words);
        EXPECT_EQ(ran.status, 0) << ran.output;
        EXPECT_EQ(ran.output.find(pipe + ": ") != std::string::npos, asked) << ran.output;
        EXPECT_EQ(tool({"count", "t"}).output, "20000\n");
        EXPECT_EQ(tool({"table", "drop", "t"}).status, 0);
        make_table();
    }
}

TEST_F(LoadProcesses, AFullDiskRefusesTheLoadAndServesOn) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to mount a small file system";
    // Log and journal of a --dev store, and what it begins with, leave some of it.
    SmallFileSystem small(std::uint64_t{400} << 20);
    if (!small.mounted()) GTEST_SKIP() << small.why();
    start(small.path());
    const std::uint64_t used = fs::space(small.path()).capacity - fs::space(small.path()).available;
    small.resize(used + (std::uint64_t{12} << 20));
    const std::string rows = write_file("rows", rising(kRows));
    const Finished ran = tool({"load", "t", rows, "--sorted"});
    EXPECT_EQ(ran.status, 5) << ran.output;
    EXPECT_NE(ran.output.find("no room"), std::string::npos) << ran.output;
    expect_nothing_loaded();
    EXPECT_EQ(tool({"put", "t", "k=1"}).status, 0);
    EXPECT_EQ(tool({"delete", "t", "k=1"}).status, 0);
    small.resize(std::uint64_t{400} << 20);
    EXPECT_EQ(tool({"load", "t", rows, "--sorted"}).status, 0);
    EXPECT_EQ(tool({"count", "t"}).output, std::to_string(kRows) + "\n");
    expect_every_page_accounted_for();
    EXPECT_EQ(daemon_->stop(), 0) << daemon_->log();
}

// All rows were sorted, sent and placed before it was told.
TEST_F(LoadProcesses, RowsThatCannotFitAreRefusedBeforeTheyAreSent) {
    daemon_.emplace(std::vector<std::string>{"pool_bytes=64MiB", "max_data_bytes=16MiB"});
    ASSERT_TRUE(daemon_->start());
    make_table();
    const auto expect_refused = [&](const std::vector<std::string>& words) {
        const Finished ran = tool(words);
        EXPECT_EQ(ran.status, 5) << ran.output;
        EXPECT_NE(ran.output.find("pages at least, and of the largest file"), std::string::npos)
            << ran.output;
    };
    const std::string many = write_file("many", rising(100'000));  // 20 MB
    expect_refused({"load", "t", many, "--sorted"});
    expect_refused({"load", "t", many});
    const std::string half = write_file("half", rising(50'000));
    const auto behind = [](std::uint64_t i) { return 50'000 + i; };
    const std::string rest = write_file("rest", rows_file(50'000, behind));
    expect_refused({"load", "t", half, rest, "--sorted"});
    // Lines, of which nobody knows how many come: as soon as there are too many.
    const std::string pipe = work_.file("pipe");
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    const std::string mapping =
        write_file("lines.toml",
                   "[[table]]\nname = \"t\"\nmode = \"put\"\nkey = [\"k\"]\n"
                   "columns = [{ name = \"k\", type = \"u64\", path = \"k\" },\n"
                   "{ name = \"pad\", type = \"fixed(192)\", path = \"p\", decode = \"text\" }]\n");
    writer_ = Process::fork([&] {
        std::ofstream lines(pipe, std::ios::binary);
        const std::string pad(192, 'p');
        for (std::uint64_t i = 0; i < 1'000'000 && lines; ++i) {
            lines << "{\"k\":" << i << ",\"p\":\"" << pad << "\"}\n";
        }
        return 0;
    });
    expect_refused({"load", "t", pipe, "--mapping", mapping});
    expect_nothing_loaded();
    // As many bytes, but half of the rows replace the others.
    const auto twice = [](std::uint64_t i) { return i / 2; };
    const std::string doubles = write_file("doubles", rows_file(100'000, twice));
    const Finished ran = tool({"load", "t", doubles, "--last-wins"});
    EXPECT_EQ(ran.status, 0) << ran.output;
    EXPECT_EQ(tool({"count", "t"}).output, "50000\n");
}

// A load right behind a drop, in a file that has room for one of the two.
TEST_F(LoadProcesses, TableIsDroppedAndLoadedAgainInASmallFile) {
    daemon_.emplace(std::vector<std::string>{"pool_bytes=64MiB", "max_data_bytes=16MiB"});
    ASSERT_TRUE(daemon_->start());
    const std::string rows = write_file("rows", rising(45'000));  // 9 MB
    for (int i = 0; i < 3; ++i) {
        make_table();
        const Finished ran = tool({"load", "t", rows, "--sorted"});
        ASSERT_EQ(ran.status, 0) << ran.output;
        EXPECT_EQ(tool({"count", "t"}).output, "45000\n");
        ASSERT_EQ(tool({"table", "drop", "t"}).status, 0);
    }
}

// As many runs as the usual limit of open files allows are some 250 GB.
TEST_F(LoadProcesses, MoreRunsAreSortedThanTheSoftLimitOfOpenFiles) {
    start();
    const auto falling = [](std::uint64_t i) { return 150'000 - i; };
    const std::string rows = write_file("rows", rows_file(150'000, falling));  // 30 MB
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    rlimit few = before;
    few.rlim_cur = 24;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    const Finished ran = tool({"load", "t", rows, "--memory", "1", "--json"});
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_EQ(ran.status, 0) << ran.output;
    EXPECT_NE(ran.output.find("\"runs\":3"), std::string::npos) << "some thirty: " << ran.output;
    EXPECT_EQ(tool({"count", "t"}).output, "150000\n");
}

TEST_F(LoadProcesses, AFullDirectoryForSortingNamesItAndLoadsNothing) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to mount a small file system";
    SmallFileSystem small(std::uint64_t{4} << 20);
    if (!small.mounted()) GTEST_SKIP() << small.why();
    start();
    const std::string rows =
        write_file("rows", rows_file(50'000, [](std::uint64_t i) { return 50'000 - i; }));
    const Finished ran = tool({"load", "t", rows, "--memory", "1", "--temp-dir", small.path()});
    EXPECT_EQ(ran.status, 5) << ran.output;
    EXPECT_NE(ran.output.find(small.path()), std::string::npos) << ran.output;
    EXPECT_NE(ran.output.find("--temp-dir"), std::string::npos) << ran.output;
    expect_nothing_loaded();
}

// ---- rows of any length -------------------------------------------------------------------------

const std::vector<std::size_t> kLengths{0, 30, 300, 3'000, 4'050, 20, 25'000, 100, 300'000, 5};

std::vector<std::uint64_t> times(std::uint64_t count, bool rise) {
    std::vector<std::uint64_t> all(count);
    for (std::uint64_t i = 0; i < count; ++i) all[i] = rise ? i : count - 1 - i;
    return all;
}

void expect_events(const RealDaemon& daemon, std::uint64_t count) {
    Store store = attach(daemon);
    const auto table = need(store.open<Event>(soon()));
    const auto rows = all_rows(store, table);
    ASSERT_EQ(rows.size(), count);
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::string text(kLengths[i % kLengths.size()], static_cast<char>('a' + i % 26));
        ASSERT_EQ(rows[i].time, i);
        ASSERT_EQ(rows[i].kind, 9u);
        ASSERT_TRUE(rows[i].text == text) << i;
    }
}

TEST_F(LoadProcesses, RowsOfAnyLengthAreLoadedSortedOrNot) {
    start();
    make_events();
    const std::string sorted = write_file("sorted", events_file(times(600, true), kLengths));
    const std::string falling = write_file("falling", events_file(times(600, false), kLengths));
    const Finished wrong = tool({"load", "events", falling, "--sorted"});
    EXPECT_EQ(wrong.status, 4) << wrong.output;
    EXPECT_NE(wrong.output.find("without --sorted"), std::string::npos) << wrong.output;
    EXPECT_EQ(tool({"count", "events"}).output, "0\n");
    const Finished one = tool({"load", "events", sorted, "--sorted"});
    EXPECT_EQ(one.status, 0) << one.output;
    expect_events(*daemon_, 600);
    expect_every_page_accounted_for();
    // 20 MB through 1 MiB of memory: runs, whose longest rows do not fit a read.
    EXPECT_EQ(tool({"table", "drop", "events"}).status, 0);
    make_events();
    const Finished other = tool({"load", "events", falling, "--memory", "1", "--json"});
    EXPECT_EQ(other.status, 0) << other.output;
    EXPECT_EQ(other.output.find("\"runs\":0,"), std::string::npos) << other.output;
    expect_events(*daemon_, 600);
    expect_every_page_accounted_for();
}

TEST_F(LoadProcesses, WrongRowsOfAnyLengthLoadNothing) {
    start();
    make_events();
    std::string bad = events_file(times(600, true), kLengths);
    const std::uint32_t length = 0xffff'ffff;
    std::memcpy(&bad[bad.size() - (4 + 12 + 4 + 2 + 5)], &length, sizeof length);
    const std::string pipe = work_.file("pipe");
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    for (const bool whole : {true, false}) {
        SCOPED_TRACE(whole);
        writer_ = Process::fork([&] {
            std::ofstream(pipe, std::ios::binary) << bad.substr(0, bad.size() / (whole ? 1 : 2));
            return 0;
        });
        const Finished ran = tool({"load", "events", pipe, "--format", "rows", "--sorted"});
        EXPECT_EQ(ran.status, 2) << ran.output;
        const char* words = whole ? "row 600 of 600 has a value of 4294967295" : "ends after ";
        EXPECT_NE(ran.output.find(words), std::string::npos) << ran.output;
        EXPECT_EQ(tool({"count", "events"}).output, "0\n");
    }
    expect_every_page_accounted_for();
}

TEST_F(LoadProcesses, ADaemonKilledInTheMiddleOfLongRowsLeavesNothing) {
    start();
    make_events();
    const std::string rows = events_file(times(1'000, true), kLengths);
    Process load = load_half("events", rows);
    daemon_->kill();
    go_on();
    EXPECT_EQ(load.wait().value_or(-1), 3) << read_whole_file(work_.file("load.log"));
    ASSERT_TRUE(daemon_->start());
    EXPECT_EQ(tool({"count", "events"}).output, "0\n");
    expect_every_page_accounted_for();
    EXPECT_EQ(tool({"load", "events", write_file("rows", rows), "--sorted"}).status, 0);
    expect_events(*daemon_, 1'000);
}

}  // namespace
}  // namespace bidstore
