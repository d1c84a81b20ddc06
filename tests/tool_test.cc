// The tool, the import and the demo as a user meets them: the real programs against a real daemon
// in a temporary directory.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "clientlib/load_rows.h"

extern char** environ;

namespace bidstore {
namespace {

namespace fs = std::filesystem;

const fs::path kBinaries = BIDSTORE_BINARY_DIR;
const fs::path kSource = BIDSTORE_SOURCE_DIR;

struct Ran {
    int code = -1;
    std::string out;
    std::string err;
};

std::string read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

pid_t start(const std::vector<std::string>& command, const fs::path& out, const fs::path& err) {
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&files, 1, out.c_str(), flags, 0600);
    posix_spawn_file_actions_addopen(&files, 2, err.c_str(), flags, 0600);
    pid_t pid = -1;
    const int error = posix_spawn(&pid, arguments[0], &files, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    EXPECT_EQ(error, 0) << command[0];
    return error == 0 ? pid : -1;
}

int wait_for(pid_t pid) {
    int status = 0;
    if (pid < 0 || ::waitpid(pid, &status, 0) != pid) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// A directory below the usual place for large temporary files, gone at the end. Not /tmp, which may
// be a file system without direct I/O.
class Directory {
  public:
    Directory() {
        std::string pattern = "/var/tmp/bidstore-tool-XXXXXX";
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        path_ = pattern;
    }
    ~Directory() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;
    fs::path operator/(const std::string& name) const { return path_ / name; }
    fs::path file(const std::string& name, const std::string& content) const {
        std::ofstream(path_ / name, std::ios::binary) << content;
        return path_ / name;
    }

  private:
    fs::path path_;
};

class Tool : public testing::Test {
  protected:
    void SetUp() override {
        for (const char* name : {"bidstored", "bidstore", "bidstore-genlog", "bidstore-bidder"}) {
            ASSERT_TRUE(fs::exists(kBinaries / name)) << name << " is not built in " << kBinaries;
        }
    }
    void TearDown() override {
        if (daemon_ <= 0) return;
        ::kill(daemon_, SIGTERM);
        EXPECT_EQ(wait_for(daemon_), 0) << read_file(directory_ / "daemon.err");
    }

    std::string socket() const { return (directory_ / "store" / "bidstore.sock").string(); }

    void start_daemon() {
        daemon_ = start({(kBinaries / "bidstored").string(), "--dev",
                         (directory_ / "store").string(), "--set", "pool_bytes=64MiB"},
                        directory_ / "daemon.out", directory_ / "daemon.err");
        for (int i = 0; i < 1000 && tool({"stats"}).code != 0; ++i) {
            ASSERT_EQ(::waitpid(daemon_, nullptr, WNOHANG), 0)
                << read_file(directory_ / "daemon.err");
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    }

    Ran run(std::vector<std::string> command) {
        Ran ran;
        ran.code = wait_for(start(command, directory_ / "out", directory_ / "err"));
        ran.out = read_file(directory_ / "out");
        ran.err = read_file(directory_ / "err");
        return ran;
    }
    Ran tool(const std::vector<std::string>& arguments) {
        std::vector<std::string> command{(kBinaries / "bidstore").string(), "--socket", socket()};
        command.insert(command.end(), arguments.begin(), arguments.end());
        return run(std::move(command));
    }
    Ran bidder(const std::vector<std::string>& arguments) {
        std::vector<std::string> command{(kBinaries / "bidstore-bidder").string(), "--socket",
                                         socket(), "--directory", (directory_ / "").string()};
        command.insert(command.end(), arguments.begin(), arguments.end());
        return run(std::move(command));
    }
    // Its output, when the command succeeds.
    std::string good(const std::vector<std::string>& arguments) {
        const Ran ran = tool(arguments);
        EXPECT_EQ(ran.code, 0) << arguments[0] << ": " << ran.err;
        return ran.out;
    }
    std::string mapping() const {
        return (kSource / "clientlib" / "mappings" / "bidreq-20120111.toml").string();
    }
    std::string generate(int rows) {
        const std::string path = (directory_ / "log.jsonl.gz").string();
        EXPECT_EQ(run({(kBinaries / "bidstore-genlog").string(), "--rows", std::to_string(rows),
                       path})
                      .code,
                  0);
        return path;
    }

    Directory directory_;
    pid_t daemon_ = -1;
};

TEST_F(Tool, RowsAreWrittenReadScannedCountedAndDeleted) {
    start_daemon();
    good({"table", "create", "t", "--column", "k:u32", "--column", "n:i64", "--column", "s:text",
          "--key", "k"});
    for (const char* k : {"k=1", "k=2", "k=3"}) good({"put", "t", k, "n=-5", "s=hello"});
    EXPECT_EQ(good({"get", "t", "k=2", "--json"}), "{\"k\":2,\"n\":-5,\"s\":\"hello\"}\n");
    EXPECT_EQ(good({"get", "t", "k=2"}), "k  2\nn  -5\ns  hello\n");
    EXPECT_EQ(good({"count", "t"}), "3\n");
    EXPECT_EQ(good({"scan", "t", "--from", "k=2", "--json"}),
              "{\"k\":2,\"n\":-5,\"s\":\"hello\"}\n{\"k\":3,\"n\":-5,\"s\":\"hello\"}\n");
    EXPECT_EQ(good({"scan", "t", "--reverse", "--limit", "1"}), "k   n  s\n3  -5  hello\n");
    good({"put", "t", "k=2", "n=9", "--update"});
    EXPECT_EQ(good({"get", "t", "k=2", "--json"}), "{\"k\":2,\"n\":9,\"s\":\"hello\"}\n");
    EXPECT_EQ(good({"delete", "t", "k=1"}), "1 row deleted\n");
    EXPECT_EQ(good({"delete", "t", "--from", "k=2", "--json"}), "{\"rows\":2}\n");
    EXPECT_EQ(good({"count", "t", "--json"}), "{\"rows\":0}\n");
    EXPECT_NE(good({"table", "list"}).find("t"), std::string::npos);
    EXPECT_NE(good({"table", "show", "t", "--json"}).find("\"key\":[\"k\"]"), std::string::npos);
    good({"table", "drop", "t"});
    EXPECT_EQ(tool({"count", "t"}).code, 1);
}

// A file of binary rows for the table that the next test makes.
std::string packed_rows(const std::vector<std::uint64_t>& keys) {
    const auto schema = Schema::make(
        "t",
        {{"k", ColumnType::kU64, 0}, {"n", ColumnType::kU64, 0}, {"p", ColumnType::kFixed, 90}}, 1);
    EXPECT_TRUE(schema.ok());
    const auto header = rows_header(*schema, keys.size(), false);
    EXPECT_TRUE(header.ok());
    std::string file(sizeof *header, '\0');
    std::memcpy(file.data(), &*header, sizeof *header);
    for (std::uint64_t i = 0; i < keys.size(); ++i) {
        std::byte key[8];
        encode_key_integer(key, keys[i], 8, false);
        file.append(static_cast<const char*>(static_cast<const void*>(key)), sizeof key);
        file.append(static_cast<const char*>(static_cast<const void*>(&i)), sizeof i);
        file.append(90, 'p');
    }
    return file;
}

TEST_F(Tool, LoadsAreWholeOrNotAtAll) {
    start_daemon();
    std::vector<std::uint64_t> keys(30'000);
    for (std::uint64_t i = 0; i < keys.size(); ++i) keys[i] = i;
    const std::string sorted = directory_.file("sorted.rows", packed_rows(keys));
    std::reverse(keys.begin(), keys.begin() + 20'000);
    const std::string mixed = directory_.file("mixed.rows", packed_rows(keys));
    keys = {5, 7, 5};
    const std::string twice = directory_.file("twice.rows", packed_rows(keys));
    const auto make = [&] {
        good({"table", "create", "t", "--column", "k:u64", "--column", "n:u64", "--column",
              "p:fixed(90)", "--key", "k"});
    };
    EXPECT_EQ(tool({"load", "t", sorted}).code, 1);  // no such table
    make();
    EXPECT_EQ(tool({"load", "t", mixed, "--sorted"}).code, 4);
    const Ran refused = tool({"load", "t", twice});
    EXPECT_EQ(refused.code, 4);
    EXPECT_NE(refused.err.find("0000000000000005"), std::string::npos) << refused.err;
    EXPECT_EQ(good({"count", "t"}), "0\n");
    // 3 MiB of rows through 1 MiB of memory: runs are merged.
    EXPECT_NE(good({"load", "t", mixed, "--memory", "1", "--json"}).find("\"rows\":30000"),
              std::string::npos);
    EXPECT_EQ(good({"count", "t"}), "30000\n");
    EXPECT_EQ(good({"scan", "t", "--limit", "1", "--json"}).substr(0, 16),
              "{\"k\":0,\"n\":19999");
    const Ran again = tool({"load", "t", sorted, "--sorted"});
    EXPECT_EQ(again.code, 4);
    EXPECT_NE(again.err.find("bidstore import"), std::string::npos) << again.err;
    good({"table", "drop", "t"});
    make();
    good({"load", "t", sorted, "--sorted"});
    EXPECT_EQ(good({"count", "t"}), "30000\n");
    good({"table", "drop", "t"});
    make();
    good({"load", "t", twice, "--last-wins"});
    EXPECT_EQ(good({"get", "t", "k=5", "--json"}).substr(0, 13), "{\"k\":5,\"n\":2,");
    const std::string log = generate(500);
    const std::string lines = good({"load", "bids", log, "--mapping", mapping(), "--create"});
    EXPECT_NE(lines.find("500 rows loaded into bids"), std::string::npos) << lines;
}

// The retention of the mapping was left out without a word, and the rows lived for ever.
TEST_F(Tool, ALoadThatMakesItsTableGivesItTheRetentionOfTheMapping) {
    start_daemon();
    const std::string map =
        directory_
            .file("m.toml",
                  "[[table]]\nname = 't'\nmode = 'put'\nkey = ['at']\ntime = 'at'\n"
                  "retain = '72h'\ncolumns = [ { name = 'at', type = 'timestamp', path = 'at', "
                  "decode = 'microseconds' } ]\n")
            .string();
    const std::uint64_t now = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(
            std::chrono::system_clock::now().time_since_epoch())
            .count());
    const std::string good_log = directory_.file("a.csv", "at\n" + std::to_string(now) + "\n");
    const std::string bad_log = directory_.file("bad.csv", "at\nx\n");
    const std::string retained = "\"retain_us\":259200000000";
    EXPECT_EQ(tool({"load", "t", bad_log, "--mapping", map, "--create"}).code, 4);
    good({"load", "t", good_log, "--mapping", map, "--create"});
    EXPECT_NE(good({"table", "show", "t", "--json"}).find(retained), std::string::npos);
    EXPECT_EQ(good({"count", "t"}), "1\n");
}

TEST_F(Tool, LargeValuesComeFromFilesAndGoOutAsTheyAre) {
    start_daemon();
    good({"table", "create", "t", "--column", "k:u32", "--column", "n:i64", "--column", "s:text",
          "--column", "b:bytes", "--key", "k"});
    std::string content(std::size_t{1} << 20, 'x');
    for (std::size_t i = 0; i < content.size(); ++i)
        content[i] = static_cast<char>('a' + i / 97 % 26);
    const std::string path = directory_.file("content", content).string();
    good({"put", "t", "k=1", "--file", "b=" + path, "n=4"});
    EXPECT_EQ(good({"get", "t", "k=1", "--raw", "b"}), content);
    good({"put", "t", "k=1", "--update", "--file", "s=" + path});
    EXPECT_EQ(good({"get", "t", "k=1", "--raw", "s"}), content);
    EXPECT_EQ(good({"get", "t", "k=1", "--raw", "b"}), content);
    good({"put", "t", "k=2", "s=short"});
    const std::string json = good({"scan", "t", "--json"});
    EXPECT_NE(json.find("\"s\":\"" + content + "\""), std::string::npos);
    EXPECT_NE(json.find("\"s\":\"short\""), std::string::npos);
    EXPECT_LT(good({"scan", "t"}).size(), 1'000u);  // cut for people
    const std::string longer = directory_.file("longer", content + "x").string();
    const Ran ran = tool({"put", "t", "k=3", "--file", "s=" + longer});
    EXPECT_NE(ran.code, 0);
    EXPECT_NE(ran.err.find("column \"s\" has at most 1048576 bytes"), std::string::npos) << ran.err;
}

// What did not fit into the stream's buffer went out at once, and its failure was not looked at.
TEST_F(Tool, OutputThatCannotBeWrittenIsAnError) {
    start_daemon();
    good({"table", "create", "t", "--column", "k:u32", "--column", "b:bytes", "--key", "k"});
    const std::string path = directory_.file("content", std::string(1u << 20, 'x')).string();
    good({"put", "t", "k=1", "--file", "b=" + path});
    const std::vector<std::vector<std::string>> commands{{"get", "t", "k=1", "--raw", "b"},
                                                         {"get", "t", "k=1"},
                                                         {"get", "t", "k=1", "--json"},
                                                         {"scan", "t", "--wide"},
                                                         {"count", "t"}};
    for (std::vector<std::string> command : commands) {
        command.insert(command.begin(), {(kBinaries / "bidstore").string(), "--socket", socket()});
        const int code = wait_for(start(command, "/dev/full", directory_ / "err"));
        EXPECT_EQ(code, 5) << command[3] << " " << command.back();
        EXPECT_EQ(read_file(directory_ / "err"),
                  "bidstore: standard output: cannot be written\n");
    }
}

TEST_F(Tool, ExitCodesSayWhatWentWrong) {
    EXPECT_EQ(tool({"--timeout", "0.2", "count", "t"}).code, 3);  // no daemon
    start_daemon();
    good({"table", "create", "t", "--column", "k:u32", "--key", "k"});
    EXPECT_EQ(tool({"get", "t", "k=1"}).code, 1);
    EXPECT_EQ(tool({"delete", "t", "k=1"}).code, 1);
    EXPECT_EQ(tool({"count", "nothing"}).code, 1);
    EXPECT_EQ(tool({"get", "t", "x=1"}).code, 2);
    const Ran misspelt = tool({"frobnicate"});
    EXPECT_EQ(misspelt.code, 2);
    EXPECT_NE(misspelt.err.find("\"frobnicate\""), std::string::npos) << misspelt.err;
    const Ran below = tool({"--timeout", "-1", "count", "t"});
    EXPECT_EQ(below.code, 2);
    EXPECT_NE(below.err.find("\"-1\" is not a number of seconds above 0"), std::string::npos)
        << below.err;
    EXPECT_EQ(tool({"put", "t", "k=4294967296"}).code, 4);
    EXPECT_EQ(tool({"table", "create", "t", "--column", "k:u32", "--key", "k"}).code, 4);
    good({"put", "t", "k=1", "--insert"});
    const Ran twice = tool({"--json", "put", "t", "k=1", "--insert"});
    EXPECT_EQ(twice.code, 4);
    EXPECT_EQ(twice.out, "");
    EXPECT_NE(twice.err.find("{\"error\":\"Exists\""), std::string::npos) << twice.err;
    EXPECT_EQ(tool({"--help"}).code, 0);
    // Of a shell variable that is not set: it meant no bound.
    good({"put", "t", "k=2"});
    for (const char* option : {"--from", "--to", "--prefix"}) {
        const Ran empty = tool({"delete", "t", option, ""});
        EXPECT_EQ(empty.code, 2) << option;
        EXPECT_NE(empty.err.find("a bound is empty"), std::string::npos) << empty.err;
    }
    EXPECT_EQ(tool({"delete", "t", "--from", "k=1", "--to", ""}).code, 2);
    EXPECT_EQ(tool({"delete", "t", "--from=k=1", "--to="}).code, 2);
    EXPECT_EQ(good({"count", "t"}), "2\n");
}

TEST_F(Tool, ImportTakesALogAndNamesItsBadLines) {
    start_daemon();
    const std::string log = generate(3000);
    const std::string first = good({"import", "--create", "--mapping", mapping(), log});
    EXPECT_NE(first.find("3,000 lines read"), std::string::npos) << first;
    EXPECT_EQ(good({"count", "bids"}), "3000\n");

    const std::string bad =
        directory_.file("bad.jsonl", "{\"timestamp\":1,\"id\":\"x\"}\n{,}\n").string();
    const Ran stopped = tool({"import", "--mapping", mapping(), bad});
    EXPECT_EQ(stopped.code, 4);
    EXPECT_NE(stopped.err.find("bad.jsonl:1: column auction: not a uuid: \"x\""),
              std::string::npos)
        << stopped.err;
    const std::string refused = (directory_ / "refused.jsonl").string();
    good({"import", "--mapping", mapping(), "--errors", refused, bad});
    EXPECT_NE(read_file(refused).find("bad.jsonl:2: not JSON"), std::string::npos);
    EXPECT_EQ(good({"count", "bids"}), "3000\n");
}

// It was opened for writing, and so emptied, before it was read.
TEST_F(Tool, TheFileForRefusedLinesIsNoneOfThoseThatAreRead) {
    start_daemon();
    const std::string map =
        directory_
            .file("m.toml",
                  "[[table]]\nname = 't'\nkey = ['k']\n"
                  "columns = [ { name = 'k', type = 'u32', path = 'k' } ]\n")
            .string();
    const std::string first = directory_.file("a.jsonl", "{\"k\":1}\n").string();
    const std::string second = directory_.file("b.jsonl.2", "{\"k\":2}\n").string();
    const std::string link = (directory_ / "b.jsonl").string();
    fs::create_symlink(first, link);
    for (const char* command : {"import", "load"}) {
        for (const std::string& errors : {first, link, map}) {
            std::vector<std::string> words{command};
            if (words.front() == "load") words.push_back("t");
            for (const std::string& word : {std::string("--create"), std::string("--mapping"), map,
                                            std::string("--errors"), errors, first, second}) {
                words.push_back(word);
            }
            const Ran ran = tool(words);
            EXPECT_EQ(ran.code, 2) << ran.err;
            EXPECT_NE(ran.err.find("name another file"), std::string::npos) << ran.err;
        }
    }
    // The second input's refused lines would go to it.
    EXPECT_EQ(tool({"import", "--create", "--mapping", map, "--format", "json", "--errors", link,
                    map, second})
                  .code,
              2);
    EXPECT_EQ(read_file(first), "{\"k\":1}\n");
    EXPECT_EQ(read_file(second), "{\"k\":2}\n");
    EXPECT_NE(read_file(map), "");
}

// Mode "insert" finds rows that are there: their transaction is refused as a whole, and tried again
// line by line so that the others get in.
TEST_F(Tool, ImportRefusesSingleRowsThatAreThereAlready) {
    start_daemon();
    const std::string map =
        directory_
            .file("m.toml",
                  "[[table]]\nname = 't'\nmode = 'insert'\nkey = ['k']\n"
                  "columns = [ { name = 'k', type = 'u32', path = 'k' } ]\n")
            .string();
    const std::string log =
        directory_.file("a.csv", "k\n1\n2\n1\n3\n").string();
    const std::string summary =
        good({"import", "--create", "--mapping", map, "--errors", "skip", "--json", log});
    EXPECT_NE(summary.find("\"records\":4,\"rows\":3,\"refused\":1"), std::string::npos) << summary;
    EXPECT_EQ(good({"count", "t"}), "3\n");
    EXPECT_EQ(tool({"import", "--mapping", map, log}).code, 4);
}

// A transaction with a refused line was sent again, line by line, after later ones were applied: an
// older value came to lie over a newer one.
TEST_F(Tool, ImportWritesTheRowsOfAKeyInTheirOrderWhenALineIsRefused) {
    start_daemon();
    const std::string map =
        directory_
            .file("m.toml",
                  "[[table]]\nname = 'once'\nmode = 'insert'\nkey = ['k']\n"
                  "columns = [ { name = 'k', type = 'u32', path = 'k' } ]\n"
                  "[[table]]\nname = 'last'\nkey = ['id']\ncolumns = [\n"
                  "{ name = 'id', type = 'u32', path = 'id' },\n"
                  "{ name = 'v', type = 'u32', path = 'v' } ]\n")
            .string();
    std::string log = "k,id,v\n1,7,0\n";
    for (int i = 1; i <= 3000; ++i) {  // several transactions; k = 1 is there twice
        log += std::to_string(i) + "," + (i % 400 == 1 ? "7" : std::to_string(1000 + i)) + "," +
               std::to_string(i) + "\n";
    }
    const std::string summary = good({"import", "--create", "--mapping", map, "--errors", "skip",
                                      "--json", directory_.file("a.csv", log).string()});
    EXPECT_NE(summary.find("\"refused\":1,"), std::string::npos) << summary;
    EXPECT_EQ(good({"get", "last", "id=7", "--json"}), "{\"id\":7,\"v\":2801}\n");
}

// The captured logs lie beside the project where they are at hand.
TEST_F(Tool, RealLogsImportCompletely) {
    const fs::path data = kSource / ".." / "shared" / "data";
    if (!fs::exists(data)) GTEST_SKIP() << "no captured logs in " << data;
    start_daemon();
    good({"import", "--create", "--mapping", mapping(), data / "bidreq-20120111.jsonl.gz"});
    EXPECT_EQ(good({"count", "bids"}), "20000\n");
    EXPECT_EQ(good({"count", "users"}), "17423\n");
    // The shared id of all who opted out.
    EXPECT_NE(good({"get", "users", "id=56813692eb85574e0000000000000000", "--json"})
                  .find("\"requests\":497,"),
              std::string::npos);
    const fs::path adx = kSource / "clientlib" / "mappings" / "adx-app-20161130.toml";
    good({"import", "--create", "--mapping", adx, data / "adx-app-20161130.jsonl.gz"});
    EXPECT_EQ(good({"count", "app_bids"}), "1000\n");
}

TEST_F(Tool, AuditPassesAndFindsEveryKindOfTampering) {
    start_daemon();
    good({"import", "--create", "--mapping", mapping(), generate(500)});
    ASSERT_EQ(bidder({"prepare"}).code, 0);
    ASSERT_EQ(bidder({"ingest", "--seconds", "0.5"}).code, 0);
    const Ran bid = bidder({"bid", "--seconds", "1"});
    ASSERT_EQ(bid.code, 0) << bid.err;
    const Ran audit = bidder({"audit"});
    EXPECT_EQ(audit.code, 0) << audit.out << audit.err;
    EXPECT_NE(audit.out.find("acknowledged writes lost: 0"), std::string::npos) << audit.out;

    good({"put", "advertisers", "id=0", "budget=-1", "--update"});
    const Ran budget = bidder({"audit"});
    EXPECT_EQ(budget.code, 1);
    EXPECT_NE(budget.out.find("below zero 1"), std::string::npos) << budget.out;

    good({"delete", "wins", "bidder=1", "number=1"});
    const Ran lost = bidder({"audit"});
    EXPECT_EQ(lost.code, 1);
    EXPECT_NE(lost.out.find("acknowledged writes lost: 1"), std::string::npos) << lost.out;

    good({"put", "wins", "bidder=9", "number=1"});
    EXPECT_NE(bidder({"audit"}).out.find("wins out of nowhere 1"), std::string::npos);
}

// The whole demo, short: both deaths of the daemon included.
TEST_F(Tool, DemoPassesItsAudit) {
    const Ran demo = run({"/bin/bash", (kSource / "daemon" / "demo.sh").string(), "--binaries",
                          kBinaries.string(), "--seconds", "6"});
    EXPECT_EQ(demo.code, 0) << demo.out << demo.err;
    EXPECT_NE(demo.out.find("acknowledged writes lost: 0"), std::string::npos) << demo.out;
    EXPECT_NE(demo.out.find("audit passed"), std::string::npos);
}

}  // namespace
}  // namespace bidstore
