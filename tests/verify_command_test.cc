// `bidstored --verify` as an operator meets it: files of a real daemon, exit codes, messages.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "daemon/verify_command.h"
#include "tests/real_store.h"

namespace bidstore {
namespace {

Finished verify(const RealDaemon& daemon, const std::vector<std::string>& options = {}) {
    std::vector<std::string> command = daemon.command();
    command.push_back("--verify");
    command.insert(command.end(), options.begin(), options.end());
    return run_to_end(command);
}
Finished rebuild(const RealDaemon& daemon, const std::vector<std::string>& options = {}) {
    std::vector<std::string> all{"--rebuild"};
    all.insert(all.end(), options.begin(), options.end());
    return verify(daemon, all);
}

bool says(const Finished& ran, const std::string& words) {
    return ran.output.find(words) != std::string::npos;
}

void fill(Store& store) {
    const Table<Event> table = make_table<Event>(store);
    for (std::uint64_t at = 0; at < 5'000;) {
        Transaction rows;
        for (int i = 0; i < 100; ++i, ++at) {
            rows.put(table, {.time = at, .source = 1, .kind = 2, .text = "some text of a row"});
        }
        need(store.commit(rows, soon()));
    }
}

void flip(const RealDaemon& daemon, std::uint64_t offset) {
    std::fstream file(daemon.data_directory() + "/data",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 1));
}

// A record may need more pages at once than verify begins with: verify ended with a word on the
// pool, though the daemon would have started.
TEST(VerifyCommand, TakesAsMuchPoolAsReplayNeeds) {
    const std::vector<std::string> settings{"pool_bytes=128MiB", "journal_bytes=64MiB",
                                            "max_data_bytes=256MiB"};
    RealDaemon daemon(settings);
    ASSERT_TRUE(daemon.start());
    {
        Store store = attach(daemon);
        const Table<Event> table = make_table<Event>(store);
        const std::string text(1'500, 'x');
        for (std::uint64_t at = 0; at < 8'000;) {  // 4,000 leaves: 16 MiB
            Transaction rows;
            for (int i = 0; i < 100; ++i, ++at) rows.put(table, {at, 1, 2, text});
            need(store.commit(rows, soon()));
        }
    }
    ASSERT_EQ(daemon.stop(), 0);
    ASSERT_TRUE(daemon.start());
    {
        Store store = attach(daemon);
        const Table<Event> table = need(store.open<Event>(soon()));
        Transaction all;
        all.erase_range(table, {}, {});
        need(store.commit(all, soon()));
    }
    daemon.kill();
    auto config = dev_config(daemon.directory(), settings);
    ASSERT_TRUE(config.ok()) << config.failure().what;
    EXPECT_EQ(run_verify(*config, 6u << 20), ExitCode::kClean);
    flip(daemon, 2 * 4096 + 1'000);  // metadata of chunk 0
    EXPECT_EQ(run_rebuild(*config, {.dry_run = true}, 6u << 20), ExitCode::kSpaceLost)
        << "the second attempt has the same to do";
    EXPECT_EQ(run_verify(*config, 6u << 20), ExitCode::kFenced) << "nothing was changed";
    EXPECT_EQ(run_rebuild(*config, {}, 6u << 20), ExitCode::kClean);
    config->pool_bytes = 6u << 20;  // what the daemon had was more
    EXPECT_EQ(run_verify(*config, 6u << 20), ExitCode::kEnvironment);
    ASSERT_TRUE(daemon.start());
    ASSERT_EQ(daemon.stop(), 0);
}

TEST(VerifyCommand, SaysSoundOrWhatIsDamagedAndExitsByIt) {
    RealDaemon daemon({"pool_bytes=64MiB"});
    EXPECT_EQ(verify(daemon).status, 2) << "nothing there yet";
    EXPECT_FALSE(std::filesystem::exists(daemon.data_directory() + "/data"));
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    fill(store);
    const Finished locked = verify(daemon);
    EXPECT_EQ(locked.status, 2) << locked.output;
    EXPECT_TRUE(says(locked, "in use by another daemon")) << locked.output;
    daemon.kill();
    const Finished crashed = verify(daemon);
    EXPECT_EQ(crashed.status, 0) << crashed.output;
    EXPECT_TRUE(says(crashed, "sound")) << crashed.output;
    ASSERT_TRUE(daemon.start());
    ASSERT_EQ(daemon.stop(), 0);
    const Finished sound = verify(daemon);
    EXPECT_EQ(sound.status, 0) << sound.output;
    EXPECT_TRUE(says(sound, " 0 batches behind the checkpoint; sound")) << sound.output;

    flip(daemon, 70);  // of a superblock copy
    const Finished copy = verify(daemon);
    EXPECT_EQ(copy.status, 4) << copy.output;
    EXPECT_TRUE(says(copy, "superblock copy 0")) << copy.output;
    flip(daemon, 70);
    flip(daemon, 30 * 4096 + 1'000);  // of a leaf
    const Finished leaf = verify(daemon);
    EXPECT_EQ(leaf.status, 3) << leaf.output;
    EXPECT_TRUE(says(leaf, "damaged: table ")) << leaf.output;
    EXPECT_TRUE(says(leaf, "page 30:")) << leaf.output;
    EXPECT_TRUE(says(leaf, "DAMAGED")) << leaf.output;
}

// It was told as damage, with the exit code of lost rows, or, of a superblock copy, of lost space.
TEST(VerifyCommand, ReadThatFailsIsNoDamageAndLeavesNothingSound) {
    RealDaemon daemon({"pool_bytes=64MiB"});
    ASSERT_TRUE(daemon.start());
    {
        Store store = attach(daemon);
        fill(store);
    }
    ASSERT_EQ(daemon.stop(), 0);
    const auto verify_failing = [&](const std::string& fail, bool online = false) {
        std::ofstream(daemon.directory() + "/fail") << fail << '\n';
        std::vector<std::string> command = daemon.command();
        command[0] = BIDSTORE_BUILD_DIR "/tests/failpoint_daemon";
        command.emplace_back("--verify");
        if (online) command.emplace_back("--online");
        return run_to_end(command);
    };
    const auto expect_unread = [&](const Finished& ran, const std::string& words) {
        EXPECT_EQ(ran.status, 2) << ran.output;
        EXPECT_TRUE(says(ran, "unread: ") && says(ran, words + " at offset ")) << ran.output;
        EXPECT_TRUE(says(ran, "(errno 5)") && says(ran, "; READS FAILED")) << ran.output;
        EXPECT_FALSE(says(ran, "sound") || says(ran, "damaged") || says(ran, "space: "))
            << ran.output;
    };
    const std::string data = "reading " + daemon.data_directory() + "/data";
    expect_unread(verify_failing("page-read 5 1"), "unread: superblock copy 0: " + data);
    for (const char* nth : {"3", "7", "60"}) {
        expect_unread(verify_failing(std::string("page-read 5 ") + nth), data);
    }
    expect_unread(verify_failing("page-read 5"), data);
    expect_unread(verify_failing("log-read 5"), "reading " + daemon.data_directory() + "/log");
    EXPECT_EQ(verify_failing("page-read 5 1000000").status, 0) << "none of them failed";

    flip(daemon, 30 * 4096 + 1'000);  // a leaf
    const Finished both = verify_failing("page-read 5 1");
    EXPECT_EQ(both.status, 3) << both.output;
    EXPECT_TRUE(says(both, "unread: superblock copy 0: ")) << both.output;
    EXPECT_TRUE(says(both, "page 30: ") && says(both, "DAMAGED")) << both.output;
    flip(daemon, 30 * 4096 + 1'000);

    std::filesystem::remove(daemon.directory() + "/fail");
    ASSERT_TRUE(daemon.start());
    for (const char* nth : {"1", "6", "30"}) {
        expect_unread(verify_failing(std::string("page-read 5 ") + nth, true), data);
    }
    const Finished none = verify_failing("page-read 5", true);
    EXPECT_EQ(none.status, 2) << none.output;
    EXPECT_TRUE(says(none, data) && says(none, "(errno 5)")) << none.output;
    EXPECT_EQ(daemon.stop(), 0);
}

// Beside a daemon that serves, whose last checkpoint it looks at.
TEST(VerifyCommand, LooksBesideTheDaemon) {
    RealDaemon daemon({"pool_bytes=64MiB"});
    ASSERT_TRUE(daemon.start());
    Store first = attach(daemon);
    fill(first);
    // Behind them 7 chunks and more, each 2 s at the lowest rate.
    const Table<Event> table = need(first.open<Event>(soon()));
    const std::string text(3'000, 'x');
    for (std::uint64_t at = 10'000; at < 15'000;) {
        Transaction rows;
        for (int i = 0; i < 100; ++i, ++at) rows.put(table, {at, 1, 2, text});
        need(first.commit(rows, soon()));
    }
    ASSERT_EQ(daemon.stop(), 0);
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    const Finished sound = verify(daemon, {"--online"});
    EXPECT_EQ(sound.status, 0) << sound.output;
    EXPECT_TRUE(says(sound, "3 tables, ")) << sound.output;
    EXPECT_TRUE(says(sound, "; sound")) << sound.output;
    flip(daemon, 30 * 4096 + 1'000);  // a leaf that nobody read
    const Finished leaf = verify(daemon, {"--online", "--rate", "1000"});
    EXPECT_EQ(leaf.status, 3) << leaf.output;
    EXPECT_TRUE(says(leaf, "damaged: table 16 (events), page 30: ")) << leaf.output;
    // Of what others leave it, 1 s may be too little to come to the leaf.
    const char* const too_early = "the deadline came before all was verified";
    Finished cut;
    for (const char* seconds : {"1", "10"}) {
        cut = verify(daemon, {"--online", "--rate", "1", "--deadline", seconds});
        EXPECT_TRUE(says(cut, too_early)) << cut.output;
        if (cut.status == 3) break;
    }
    EXPECT_EQ(cut.status, 3) << "it had come to the leaf by then: " << cut.output;
    flip(daemon, 30 * 4096 + 1'000);
    cut = verify(daemon, {"--online", "--rate", "1", "--deadline", "1"});
    EXPECT_EQ(cut.status, 2) << cut.output;
    EXPECT_TRUE(says(cut, too_early)) << cut.output;
    EXPECT_EQ(verify(daemon, {"--online", "--rebuild"}).status, 1) << "of these one";
    EXPECT_EQ(daemon.stop(), 0);
}

// Rows and large values come and go, and checkpoints come into its steps.
TEST(VerifyCommand, TakesNoWriterBesideItForDamage) {
    RealDaemon daemon({"pool_bytes=64MiB", "checkpoint_interval=100ms"});
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    const Table<Event> table = make_table<Event>(store);
    std::atomic<bool> end{false};
    std::atomic<std::uint64_t> turns{0};
    std::uint64_t failed = 0;
    std::thread writer([&] {
        const std::string text(30'000, 'x');
        for (std::uint64_t turn = 0; !end; turn = ++turns) {
            const std::uint64_t from = turn * 377 % 800 * 20;
            Transaction rows;
            for (std::uint64_t i = 0; i < 20; ++i) {
                const std::size_t length = i == 0 ? 9'000 + turn * 131 % 20'000 : 40;
                rows.put(table, {from + i, 1, 2, std::string_view(text).substr(0, length)});
            }
            failed += !store.commit(rows, soon()).ok();
            if (turn % 4 != 0) continue;
            Transaction range;
            range.erase_range(table, table.prefix(from / 2), table.prefix(from / 2 + 100));
            failed += !store.commit(range, soon()).ok();
        }
    });
    EXPECT_TRUE(eventually([&] { return turns > 300; }));
    bool came = false;
    for (int run = 0; run < 4; ++run) {
        const Finished sound = verify(daemon, {"--online", "--rate", "20"});
        EXPECT_EQ(sound.status, 0) << sound.output;
        EXPECT_TRUE(says(sound, "; sound")) << sound.output;
        came = came || !says(sound, "; 0 checkpoints came meanwhile");
    }
    EXPECT_TRUE(came) << "or nothing was tested";
    end = true;
    writer.join();
    EXPECT_EQ(failed, 0u);
    EXPECT_EQ(daemon.stop(), 0);
    EXPECT_EQ(verify(daemon).status, 0);
}

// Of one thread: its nice value, and whether it has the idle class of the device.
struct Priority {
    long nice = 0;
    bool idle_device = false;
};
std::vector<Priority> priorities_of(pid_t process) {
    constexpr int kOfThread = 1;
    constexpr int kClassShift = 13;
    constexpr int kIdleClass = 3;
    std::vector<Priority> priorities;
    std::error_code gone;
    const std::string tasks = "/proc/" + std::to_string(process) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks, gone)) {
        const std::string stat = read_whole_file(task.path() / "stat");
        const std::size_t name_end = stat.rfind(')');
        if (name_end == std::string::npos) continue;  // it ended just now
        std::istringstream fields(stat.substr(name_end + 1));
        std::string field;
        for (int i = 0; i < 16; ++i) fields >> field;  // those before nice, see proc(5)
        Priority priority;
        fields >> priority.nice;
        const int thread = std::stoi(task.path().filename());
        priority.idle_device =
            ::syscall(SYS_ioprio_get, kOfThread, thread) >> kClassShift == kIdleClass;
        priorities.push_back(priority);
    }
    return priorities;
}

TEST(VerifyCommand, OnlineTakesWhatOthersLeaveInEachOfItsThreads) {
    RealDaemon daemon({"disk=threads"});  // which makes threads for both
    ASSERT_TRUE(daemon.start());
    {
        Store store = attach(daemon);
        fill(store);
    }
    ASSERT_EQ(daemon.stop(), 0);
    ASSERT_TRUE(daemon.start());
    std::vector<std::string> command = daemon.command();
    for (const char* word : {"--verify", "--online", "--rate", "1", "--deadline", "20"}) {
        command.emplace_back(word);
    }
    Process verify = Process::run(command, daemon.directory() + "/verify");
    std::vector<Priority> seen;
    const bool all = eventually([&] {
        seen = priorities_of(verify.pid());
        return seen.size() > 1 && std::all_of(seen.begin(), seen.end(), [](const Priority& of) {
                   return of.nice == 19 && of.idle_device;
               });
    });
    for (const Priority& of : seen) {
        EXPECT_TRUE(all) << "nice " << of.nice << (of.idle_device ? ", idle device" : "");
    }
    EXPECT_TRUE(all) << seen.size() << " threads";
    for (const Priority& of : priorities_of(daemon.pid())) EXPECT_FALSE(of.idle_device);
    verify.kill();
}

// Metadata and an inner node cost nothing; a leaf costs its rows, which somebody has to accept.
TEST(VerifyCommand, RebuildsAndAsksBeforeRowsGo) {
    RealDaemon daemon({"pool_bytes=64MiB"});
    ASSERT_TRUE(daemon.start());
    {
        Store store = attach(daemon);
        fill(store);
    }
    EXPECT_EQ(rebuild(daemon).status, 2) << "the daemon runs";
    ASSERT_EQ(daemon.stop(), 0);
    const Finished nothing = rebuild(daemon);
    EXPECT_EQ(nothing.status, 0) << nothing.output;
    EXPECT_TRUE(says(nothing, "nothing to rebuild")) << nothing.output;

    flip(daemon, 2 * 4096 + 1'000);  // metadata of chunk 0
    EXPECT_EQ(verify(daemon).status, 3);
    const Finished dry = rebuild(daemon, {"--dry-run"});
    EXPECT_EQ(dry.status, 4) << dry.output;
    EXPECT_TRUE(says(dry, "restored: metadata of chunk 0, page 2")) << dry.output;
    EXPECT_EQ(verify(daemon).status, 3) << "nothing was changed";
    EXPECT_EQ(rebuild(daemon).status, 0);
    EXPECT_EQ(verify(daemon).status, 0);

    flip(daemon, 30 * 4096 + 1'000);  // a leaf
    const Finished asks = rebuild(daemon);
    EXPECT_EQ(asks.status, 3) << asks.output;
    EXPECT_TRUE(says(asks, "lost: table 16 (events), page 30: ")) << asks.output;
    EXPECT_TRUE(says(asks, "keys from ")) << asks.output;
    EXPECT_TRUE(says(asks, "--accept-loss")) << asks.output;
    EXPECT_EQ(verify(daemon).status, 3) << "nothing was changed";
    const Finished accepted = rebuild(daemon, {"--accept-loss"});
    EXPECT_EQ(accepted.status, 0) << accepted.output;
    EXPECT_EQ(verify(daemon).status, 0);
    ASSERT_TRUE(daemon.start());
    {
        Store store = attach(daemon);
        const Table<Event> table = need(store.open<Event>(soon()));
        Reader reader = need(store.reader());
        const std::uint64_t rows = need(table.count(reader, soon()));
        EXPECT_LT(rows, 5'000u);
        EXPECT_GT(rows, 4'800u) << "a leaf has a hundred";
    }
    ASSERT_EQ(daemon.stop(), 0);
    EXPECT_EQ(verify(daemon).status, 0);
}

}  // namespace
}  // namespace bidstore
