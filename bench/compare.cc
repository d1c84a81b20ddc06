// bidstore-bench: workloads of bidders on bidstore and on what could be used instead, side by side.
//
//   bidstore-bench mix get write:sync=1:threads=64 --rows 1000000 --engines bidstore,lmdb
//
// Each argument is a workload (compare_workload.h), with its own sync, threads, depth or processes
// behind colons where they differ from the options. Each engine gets a process and a directory of
// its own, is loaded there once, looked through, and runs all settings, one engine after the other.
// All of it is gone at the end, also after a failure or a signal. bench/README.md has the rest.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "bench/compare_report.h"
#include "bench/compare_run.h"
#include "bench/measure.h"

namespace bench {
namespace {

constexpr std::uint32_t kThreadsMax = 400;
constexpr std::uint32_t kDepthMax = 128;
constexpr auto kEnginePatience = std::chrono::hours(1);
std::atomic<int> signalled{0};  // lock-free: a handler may write it
static_assert(std::atomic<int>::is_always_lock_free);

struct Options {
    std::vector<std::string> workloads;
    std::vector<std::string> engines = engine_names();
    std::uint64_t rows = 10'000'000;
    std::uint64_t entities = 100'000;
    bool sync = false;
    std::uint32_t threads = 4;
    std::uint32_t depth = 0;
    std::uint32_t processes = 1;
    std::uint32_t repeat = 3;
    double seconds = 5;
    bool no_machine = false;
    std::string json;
    std::string directory;
    // What the driver tells the process of one engine.
    std::string runner;
    std::string results;
};

std::uint32_t number_in(const std::string& text, std::uint32_t least, std::uint32_t most,
                        const std::string& whole) {
    std::uint32_t number = 0;
    const char* end = text.data() + text.size();
    const auto [at, code] = std::from_chars(text.data(), end, number);
    if (code != std::errc{} || at != end || number < least || number > most) {
        fail(whole + ": \"" + text + "\" is no number from " + std::to_string(least) + " to " +
             std::to_string(most));
    }
    return number;
}

void change(Setting& setting, const std::string& part, const std::string& whole, bool& has_depth) {
    const std::size_t equals = part.find('=');
    const std::string name = part.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
    if (name == "sync") {
        setting.sync = number_in(value, 0, 1, whole) == 1;
    } else if (name == "threads") {
        setting.threads = number_in(value, 1, kThreadsMax, whole);
    } else if (name == "depth") {
        setting.depth = number_in(value, 1, kDepthMax, whole);
        has_depth = true;
    } else if (name == "processes") {
        setting.processes = number_in(value, 1, kThreadsMax, whole);
    } else {
        fail(whole + ": \"" + name + "\" is none of sync, threads, depth, processes");
    }
}

// "mix:sync=1:threads=8"
Setting parse_setting(const std::string& whole, const Options& options) {
    const std::size_t colon = whole.find(':');
    Setting setting{find_workload(whole.substr(0, colon)), options.sync, options.threads,
                    options.depth, options.processes};
    if (setting.workload == nullptr) {
        std::string names;
        for (const Workload& workload : kWorkloads) names += " " + std::string(workload.name);
        fail("unknown workload \"" + whole.substr(0, colon) + "\"; there is:" + names);
    }
    bool has_depth = options.depth > 0;
    for (std::size_t at = colon; at != std::string::npos;) {
        const std::size_t next = whole.find(':', at + 1);
        change(setting, whole.substr(at + 1, next - at - 1), whole, has_depth);
        at = next;
    }
    // Who does not ask for the disk does not wait for each write either.
    if (!has_depth) setting.depth = setting.sync ? 1 : 32;
    return setting;
}

std::string program_path() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

RunOptions run_options(const Options& options) {
    RunOptions run;
    run.engine = options.runner;
    run.directory = options.directory;
    run.binaries = std::filesystem::path(program_path()).parent_path().string();
    run.results = options.results;
    run.rows = options.rows;
    run.entities = std::min(options.entities, options.rows);
    run.repeat = options.repeat;
    run.seconds = options.seconds;
    for (const std::string& workload : options.workloads) {
        run.settings.push_back(parse_setting(workload, options));
    }
    return run;
}

// ---- the processes of the engines ---------------------------------------------------------------

void on_signal(int number) { signalled = number; }

void catch_signals() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
}

// This program again, told to run one engine. It dies with this process, and its servers with it.
pid_t start_runner(const std::vector<std::string>& arguments) {
    std::fflush(stdout);
    const pid_t parent = ::getpid();
    const pid_t runner = ::fork();
    if (runner != 0) return runner;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    // Heaps on pages of 2 MiB, for every engine that has its rows there.
    ::setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 1);
    std::vector<char*> words;
    for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    ::execv("/proc/self/exe", words.data());
    ::_exit(127);
}

// Whether it ended well. A signal to this process ends it at once.
bool wait_for(pid_t runner) {
    const auto end = std::chrono::steady_clock::now() + kEnginePatience;
    for (;;) {
        int status = 0;
        if (::waitpid(runner, &status, WNOHANG) == runner) return status == 0;
        if (signalled != 0 || std::chrono::steady_clock::now() > end) {
            ::kill(runner, SIGKILL);
            ::waitpid(runner, &status, 0);
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
}

class WorkDirectory {
  public:
    explicit WorkDirectory(const std::string& parent) : path_(parent + "/bidstore-bench.XXXXXX") {
        if (::mkdtemp(path_.data()) == nullptr) fail(parent + ": no directory can be made there");
    }
    WorkDirectory(const WorkDirectory&) = delete;
    WorkDirectory& operator=(const WorkDirectory&) = delete;
    ~WorkDirectory() { remove(path_); }

    std::string make(const std::string& name) const {
        const std::string path = path_ + "/" + name;
        std::filesystem::create_directory(path);
        return path;
    }
    // A server that was killed may still make a file for a moment.
    static void remove(const std::string& path) {
        std::error_code failed;
        for (int i = 0; i < 100; ++i) {
            std::filesystem::remove_all(path, failed);
            if (!failed && !std::filesystem::exists(path, failed)) return;
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
        std::fprintf(stderr, "bench: %s could not be removed\n", path.c_str());
    }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

int compare(const Options& options) {
    for (const std::string& workload : options.workloads) parse_setting(workload, options);
    catch_signals();
    const char* temporary = std::getenv("TMPDIR");
    const std::string parent = !options.directory.empty() ? options.directory
                               : temporary != nullptr     ? temporary
                                                          : "/var/tmp";
    const WorkDirectory work(parent);
    Machine machine;
    if (!options.no_machine) {
        machine = measure_machine(work.path(), options.rows);
        print_machine(machine);
    }
    const std::string results_path = work.path() + "/results";
    bool failed = false;
    for (const std::string& engine : options.engines) {
        if (signalled != 0) break;
        std::printf("%s\n", engine.c_str());
        const std::string directory = work.make(engine);
        std::vector<std::string> arguments = {"bidstore-bench"};
        arguments.insert(arguments.end(), options.workloads.begin(), options.workloads.end());
        const auto pass = [&](const std::string& name, const std::string& value) {
            arguments.push_back(name + "=" + value);
        };
        pass("--runner", engine);
        pass("--results", results_path);
        pass("--directory", directory);
        pass("--rows", std::to_string(options.rows));
        pass("--entities", std::to_string(options.entities));
        pass("--sync", options.sync ? "1" : "0");
        pass("--threads", std::to_string(options.threads));
        if (options.depth > 0) pass("--depth", std::to_string(options.depth));
        pass("--processes", std::to_string(options.processes));
        pass("--repeat", std::to_string(options.repeat));
        pass("--seconds", std::to_string(options.seconds));
        if (!wait_for(start_runner(arguments))) {
            std::fprintf(stderr, "bench: %s was not measured to its end\n", engine.c_str());
            failed = true;
        }
        WorkDirectory::remove(directory);
    }
    const std::vector<Result> results = read_results(results_path);
    if (!results.empty()) print_report(results, machine);
    if (!options.json.empty()) write_json(results, machine, options.json);
    if (signalled != 0) return 128 + signalled;
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app("Measures bidstore beside other stores. See bench/README.md.");
    app.add_option("workloads", options.workloads,
                   "mix, get, multiget, scan, write, count, ycsb-a to ycsb-f; e.g. "
                   "mix:sync=1:threads=8")
        ->required();
    app.add_option("--engines", options.engines, "of all that there are, by default")
        ->delimiter(',')
        ->check(CLI::IsMember(bench::engine_names()));
    app.add_option("--rows", options.rows)->check(CLI::Range(1'000ull, 1'000'000'000ull));
    app.add_option("--entities", options.entities)->check(CLI::Range(1ull, 1'000'000'000ull));
    app.add_option("--sync", options.sync, "1: a write is acknowledged when it is on disk");
    app.add_option("--threads", options.threads)->check(CLI::Range(1u, bench::kThreadsMax));
    app.add_option("--depth", options.depth,
                   "writes under way of each thread (1 with --sync 1, 32 without)")
        ->check(CLI::Range(1u, bench::kDepthMax));
    app.add_option("--processes", options.processes, "that the threads are spread over")
        ->check(CLI::Range(1u, bench::kThreadsMax));
    app.add_option("--repeat", options.repeat)->check(CLI::Range(1, 9));
    app.add_option("--seconds", options.seconds, "of each repetition; half of it to warm up")
        ->check(CLI::Range(0.05, 3600.0));
    app.add_option("--json", options.json, "file for one object per engine and setting");
    app.add_option("--directory", options.directory,
                   "where stores are made, in a directory of their own ($TMPDIR, /var/tmp)");
    app.add_flag("--no-machine", options.no_machine, "do not measure the bare machine");
    app.add_option("--runner", options.runner)->group("");
    app.add_option("--results", options.results)->group("");
    CLI11_PARSE(app, argument_count, arguments);
    if (options.runner.empty()) return bench::compare(options);
    bench::run_engine(bench::run_options(options));
    return EXIT_SUCCESS;
}
