// `bidstore compact --online` against a real daemon: the file gets shorter on the file system.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "clientlib/compact.h"
#include "tests/real_store.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kRows = 60'000;

std::uint64_t blocks_bytes(const RealDaemon& daemon) {
    struct stat facts {};
    EXPECT_EQ(::stat((daemon.data_directory() + "/data").c_str(), &facts), 0);
    return static_cast<std::uint64_t>(facts.st_blocks) * 512;
}

std::vector<std::string> tool(const RealDaemon& daemon, std::vector<std::string> words) {
    std::vector<std::string> command{std::string(BIDSTORE_BINARY_DIR) + "/bidstore", "--socket",
                                     daemon.socket()};
    command.insert(command.end(), words.begin(), words.end());
    return command;
}

// Of many rows a quarter stays, all over the file.
Table<Event> full_of_holes(Store& store) {
    const Table<Event> table = make_table<Event>(store);
    const std::string text(150, 'x');
    for (std::uint64_t at = 0; at < kRows;) {
        Transaction rows;
        for (int i = 0; i < 100; ++i, ++at) {
            rows.put(table, {.time = at, .source = 1, .kind = 2, .text = text});
        }
        need(store.commit(rows, soon()));
    }
    for (std::uint64_t at = 0; at < kRows; at += 400) {
        Transaction erase;
        erase.erase_range(table, table.prefix(at), table.prefix(at + 300));
        need(store.commit(erase, soon()));
    }
    return table;
}

TEST(CompactTool, FileIsShorterAndItsRowsAreThere) {
    RealDaemon daemon({"pool_bytes=64MiB"});
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    const Table<Event> table = full_of_holes(store);
    const std::uint64_t before = blocks_bytes(daemon);
    const Finished ran =
        run_to_end(tool(daemon, {"compact", "--online", "--rate", "100000", "--progress"}));
    EXPECT_EQ(ran.status, 0) << ran.output;
    EXPECT_NE(ran.output.find(" given back"), std::string::npos) << ran.output;
    EXPECT_LE(blocks_bytes(daemon), before / 2);
    EXPECT_EQ(all_rows(store, table).size(), kRows / 4);
    const Finished again = run_to_end(tool(daemon, {"compact", "--online", "--json"}));
    EXPECT_EQ(again.status, 0) << again.output;
    EXPECT_NE(again.output.find("\"given_back\":0"), std::string::npos) << again.output;
    ASSERT_EQ(daemon.stop(), 0);
    ASSERT_TRUE(daemon.start());
    EXPECT_EQ(all_rows(store, table).size(), kRows / 4);
}

TEST(CompactTool, KilledToolLeavesAStoreThatGoesOn) {
    RealDaemon daemon({"pool_bytes=64MiB"});
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    const Table<Event> table = full_of_holes(store);
    const std::uint64_t before = blocks_bytes(daemon);
    Process slow = Process::run(tool(daemon, {"compact", "--online", "--rate", "200"}),
                                daemon.directory() + "/tool.log");
    while (counter(store, Counter::kPagesMoved) < 20 && slow.running()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    slow.kill();
    EXPECT_EQ(all_rows(store, table).size(), kRows / 4);
    Transaction row;
    row.put(table, {.time = 1, .source = 1, .kind = 2, .text = "new"});
    need(store.commit(row, soon()));
    // The connection's end is noticed within a moment.
    Finished ran;
    for (int i = 0; i < 100 && ran.status != 0; ++i) {
        ran = run_to_end(tool(daemon, {"compact", "--online", "--rate", "100000"}));
    }
    EXPECT_EQ(ran.status, 0) << ran.output;
    EXPECT_LE(blocks_bytes(daemon), before / 2);
    EXPECT_EQ(all_rows(store, table).size(), kRows / 4 + 1);
}

TEST(CompactTool, EndsAtItsDeadline) {
    RealDaemon daemon({"pool_bytes=64MiB"});
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    full_of_holes(store);
    const Finished ran = run_to_end(tool(
        daemon, {"compact", "--online", "--rate", "20", "--deadline", "0.5", "--json"}));
    EXPECT_EQ(ran.status, 3) << ran.output;
    EXPECT_NE(ran.output.find("\"done\":false"), std::string::npos) << ran.output;
}

TEST(CompactTool, NeedsAnAdmin) {
    const std::string caller = std::to_string(::geteuid());
    RealDaemon daemon({"admins=[\"65534\"]", "writers=[\"" + caller + "\"]"});
    ASSERT_TRUE(daemon.start());
    const Finished offline = run_to_end(tool(daemon, {"compact"}));
    EXPECT_EQ(offline.status, 2) << "without --online: " << offline.output;
    const Finished ran = run_to_end(tool(daemon, {"compact", "--online"}));
    EXPECT_EQ(ran.status, 4) << ran.output;
    EXPECT_NE(ran.output.find("admins"), std::string::npos) << ran.output;
    EXPECT_EQ(daemon.stop(), 0);
}

}  // namespace
}  // namespace bidstore
