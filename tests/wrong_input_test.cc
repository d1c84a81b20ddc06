// What the world gets wrong: settings, files, rights, disks. Each is a clear error with the exit
// code of bidstored --help, and never a store that is worse than before.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/format.h"
#include "engine/superblock.h"
#include "tests/real_store.h"

namespace bidstore {
namespace {

namespace fs = std::filesystem;

constexpr ExitStatus kConfig = 1;       // a setting is wrong
constexpr ExitStatus kEnvironment = 2;  // the host is not as needed
constexpr ExitStatus kDamaged = 3;      // the files are damaged
const bool kRoot = ::geteuid() == 0;
const std::string kDaemon = BIDSTORE_BINARY_DIR "/bidstored";

void expect_words(const std::string& text, const std::vector<std::string>& words) {
    for (const std::string& word : words) {
        EXPECT_NE(text.find(word), std::string::npos) << "\"" << word << "\" is missing in:\n"
                                                      << text;
    }
}

void write_file(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
}

std::string error_lines(const RealDaemon& daemon) {
    std::string found;
    std::istringstream lines(daemon.log());
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("<3>")) found += line + "\n";
    }
    return found;
}

// ---- settings -----------------------------------------------------------------------------------

TEST(WrongSetting, IsRefusedByNameValueAndWhatIsAllowed) {
    const struct {
        const char* setting;
        std::vector<std::string> words;
    } cases[] = {
        {"pool_byte=1GiB", {"pool_byte", "\"pool_bytes\""}},
        {"pool_bytes=lots", {"pool_bytes", "lots", "8MiB"}},
        {"pool_bytes=1KiB", {"pool_bytes", "1KiB", "8MiB"}},
        {"pool_bytes=100000001B", {"pool_bytes", "multiple of a page"}},
        {"journal_bytes=30MiB", {"journal_bytes", "half of pool_bytes"}},
        {"log_segment_count=2", {"log_segment_count", "2", "3"}},
        {"group_commit_interval=2s", {"group_commit_interval", "2s", "1s"}},
        {"max_snapshot_age=1", {"max_snapshot_age", "duration"}},
        {"max_clients=0", {"max_clients", "0", "4096"}},
        {"slots_per_client=4096", {"slots_per_client", "65536"}},
        {"disk=floppy", {"disk", "floppy", "io_uring", "threads"}},
        {"readers=[\"nobody-of-that-name\"]", {"readers", "nobody-of-that-name"}},
        {"socket_mode=\"0999\"", {"socket_mode", "octal"}},
        {"engine_cpu=5000", {"engine_cpu", "1023"}},
        {"no-equals-sign", {"key=value"}},
    };
    for (const auto& wrong : cases) {
        SCOPED_TRACE(wrong.setting);
        RealDaemon daemon({wrong.setting});
        EXPECT_EQ(daemon.start_and_fail(), kConfig);
        expect_words(daemon.log(), wrong.words);
        EXPECT_FALSE(fs::exists(daemon.data_directory() + "/data")) << "something was made";
    }
}

TEST(WrongSetting, InAFileIsNamedWithItsLine) {
    const WorkDirectory place;
    const std::string file = place.file("bidstored.toml");
    const auto check = [&](const std::string& content) {
        write_file(file, content);
        return run_to_end({kDaemon, "--config", file, "--check"});
    };
    const Finished unknown = check("directory = \"/nowhere\"\n\nmax_client = 3\n");
    EXPECT_EQ(unknown.status, kConfig);
    expect_words(unknown.output, {file + ":3", "max_client", "\"max_clients\""});
    const Finished impossible = check("pool_bytes = 4\n");
    EXPECT_EQ(impossible.status, kConfig);
    expect_words(impossible.output, {file + ":1", "pool_bytes"});
    const Finished broken = check("pool_bytes = \"4GiB\nmax_clients = 3\n");
    EXPECT_EQ(broken.status, kConfig);
    expect_words(broken.output, {file + ":1", "not valid TOML"});
    EXPECT_EQ(check("max_clients = 3\n").status, 0);
    const Finished missing = run_to_end({kDaemon, "--config", place.file("none"), "--check"});
    EXPECT_EQ(missing.status, kConfig);
    expect_words(missing.output, {place.file("none"), "No such file"});
}

TEST(WrongCommandLine, SaysWhatThereIs) {
    const Finished nothing = run_to_end({kDaemon});
    EXPECT_EQ(nothing.status, kConfig);
    expect_words(nothing.output, {"--config", "--dev"});
    EXPECT_EQ(run_to_end({kDaemon, "--no-such-option"}).status, kConfig);
    const Finished help = run_to_end({kDaemon, "--help"});
    EXPECT_EQ(help.status, 0);
    expect_words(help.output, {"--config", "--dev", "--set", "--check", "Exit codes"});
}

// ---- files --------------------------------------------------------------------------------------

// A store with a row in it, stopped cleanly.
class WrongFile : public testing::Test {
  protected:
    void make_store() {
        ASSERT_TRUE(daemon_.start());
        Store store = attach(daemon_);
        const auto table = make_table<Counted>(store);
        Transaction put;
        put.put(table, {.id = 1, .amount = 42});
        need(store.commit(put, soon()));
        ASSERT_EQ(daemon_.stop(), 0);
    }
    std::string path(const std::string& name) const {
        return daemon_.data_directory() + "/" + name;
    }
    Superblock superblock() const {
        Superblock block{};
        const std::string bytes = read_whole_file(path("data")).substr(0, sizeof block);
        std::memcpy(&block, bytes.data(), bytes.size());
        return block;
    }
    void write_superblocks(const Superblock& block) const {
        std::fstream file(path("data"), std::ios::binary | std::ios::in | std::ios::out);
        for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
            file.seekp(copy * std::streamoff{kBlockBytes});
            file.write(static_cast<const char*>(static_cast<const void*>(&block)), sizeof block);
        }
    }
    // It refuses, says so, and has changed nothing.
    void expect_refused(ExitStatus status, const std::vector<std::string>& words) {
        const std::string before = read_whole_file(path("data"));
        EXPECT_EQ(daemon_.start_and_fail(), status) << daemon_.log();
        expect_words(error_lines(daemon_), words);
        EXPECT_TRUE(before == read_whole_file(path("data"))) << "the file was changed";
    }
    void expect_the_row() {
        ASSERT_TRUE(daemon_.start());
        Store store = attach(daemon_);
        const auto rows = all_rows(store, need(store.open<Counted>(soon())));
        ASSERT_EQ(rows.size(), 1u);
        EXPECT_EQ(rows[0].amount, 42);
    }

    RealDaemon daemon_;
};

TEST_F(WrongFile, ThatIsSomethingElseIsLeftAlone) {
    fs::create_directory(daemon_.data_directory());
    std::string text = "This is somebody's diary.\n";
    while (text.size() < 100'000) text += text;
    write_file(path("data"), text);
    expect_refused(kEnvironment, {path("data"), "not a bidstore data file", "directory"});
}

TEST_F(WrongFile, OfAnotherVersionIsRefusedWithBothVersions) {
    make_store();
    const Superblock right = superblock();
    Superblock other = right;
    other.format_version = 99;
    other.crc = 0;
    other.crc = crc32c(&other, sizeof other);
    ASSERT_TRUE(superblock_of_other_version(other));
    write_superblocks(other);
    expect_refused(kEnvironment, {path("data"), "99", std::to_string(kFormatVersion)});
    write_superblocks(right);
    expect_the_row();
}

TEST_F(WrongFile, WithBothSuperblocksDamagedIsRefused) {
    make_store();
    const Superblock right = superblock();
    Superblock torn = right;
    torn.checkpoint_csn ^= 1;
    write_superblocks(torn);
    expect_refused(kDamaged, {path("data"), "superblock", "backup"});
    write_superblocks(right);
    expect_the_row();
}

TEST_F(WrongFile, ThatIsCutIsRefusedWithBothSizes) {
    make_store();
    for (const char* name : {"data", "log"}) {
        const auto size = fs::file_size(path(name));
        fs::copy_file(path(name), path("kept"), fs::copy_options::overwrite_existing);
        fs::resize_file(path(name), size / 2 / kPageBytes * kPageBytes);
        expect_refused(kDamaged, {path(name), std::to_string(size)});
        fs::copy_file(path("kept"), path(name), fs::copy_options::overwrite_existing);
    }
    expect_the_row();
}

TEST_F(WrongFile, ThatLostItsLogIsRefused) {
    make_store();
    fs::rename(path("log"), path("kept"));
    expect_refused(kDamaged, {path("log"), " 0 bytes"});
    fs::rename(path("kept"), path("log"));
    expect_the_row();
}

// ---- rights -------------------------------------------------------------------------------------

// With the umask of most shells --dev made its data readable for everybody on the host.
TEST(DevDirectory, KeepsItsDataPrivateWhateverTheUmask) {
    const mode_t before = ::umask(0);
    {
        RealDaemon daemon;
        ASSERT_TRUE(daemon.start());
        const auto mode = [](const fs::path& path) {
            return static_cast<unsigned>(fs::status(path).permissions());
        };
        EXPECT_EQ(mode(daemon.data_directory()), 0700u);
        for (const char* name : {"data", "log", "journal"}) {
            EXPECT_EQ(mode(daemon.data_directory() + "/" + name), 0600u) << name;
        }
        ASSERT_EQ(daemon.stop(), 0);
        fs::permissions(daemon.data_directory(), fs::perms(0755));
        ASSERT_TRUE(daemon.start());
        EXPECT_EQ(mode(daemon.data_directory()), 0700u);
    }
    ::umask(before);
}

TEST(WrongRights, DirectoryThatIsNotOursIsNamed) {
    if (!kRoot) GTEST_SKIP() << "needs root, to be another user";
    RealDaemon owner;
    ASSERT_TRUE(owner.start());
    ASSERT_EQ(owner.stop(), 0);
    const WorkDirectory place;
    const std::string output = place.file("output");
    write_file(output, "");
    fs::permissions(output, fs::perms::all);
    Process other = Process::fork([&] {
        if (!become(kNobody)) return 99;
        const int file = ::open(output.c_str(), O_WRONLY | O_APPEND);
        ::dup2(file, 2);
        std::vector<char*> arguments;
        const std::vector<std::string> words = owner.command();
        for (const std::string& word : words) {
            arguments.push_back(const_cast<char*>(word.c_str()));
        }
        arguments.push_back(nullptr);
        ::execv(arguments[0], arguments.data());
        return 98;
    });
    EXPECT_EQ(other.wait(), kEnvironment);
    expect_words(read_whole_file(output), {owner.data_directory() + "/data", "Permission denied"});
}

TEST(WrongPlace, IsNamed) {
    const WorkDirectory place;
    write_file(place.file("file"), "in the way");
    const Finished in_the_way =
        run_to_end({kDaemon, "--dev", place.file("file"), "--set", "pool_bytes=8MiB"});
    EXPECT_EQ(in_the_way.status, kEnvironment);
    expect_words(in_the_way.output, {place.file("file"), "--dev DIR"});
    RealDaemon no_socket({"socket=/no/such/directory/bidstore.sock"});
    EXPECT_EQ(no_socket.start_and_fail(), kEnvironment);
    expect_words(no_socket.log(), {"/no/such/directory/bidstore.sock", "cannot listen"});
    RealDaemon not_a_socket({"socket=" + place.file("file")});
    EXPECT_NE(not_a_socket.start_and_fail(), 0);
    expect_words(not_a_socket.log(), {place.file("file"), "is not a socket"});
    EXPECT_EQ(read_whole_file(place.file("file")), "in the way");
}

// ---- full disks ---------------------------------------------------------------------------------

constexpr std::uint64_t kMiB = 1u << 20;
const std::vector<std::string> kSmall = {"pool_bytes=16MiB", "journal_bytes=4MiB",
                                         "checkpoint_interval=50ms"};

Transaction fill_write(const Table<Event>& table, std::uint64_t number) {
    static const std::string text(1500, 'x');
    Transaction transaction;
    for (std::uint32_t source = 0; source < 4; ++source) {
        transaction.put(table, {.time = number, .source = source, .kind = 7, .text = text});
    }
    return transaction;
}

// Writes until it is refused: how many were taken, and what the refusal says.
std::uint64_t write_until_refused(Store& store, const Table<Event>& table, Failure& refusal) {
    for (std::uint64_t number = 0; number < 20'000; ++number) {
        const auto result = store.commit(fill_write(table, number), soon());
        if (result.ok()) continue;
        refusal = result.failure();
        return number;
    }
    ADD_FAILURE() << "the disk never became full";
    return 0;
}

class FullDisk : public testing::Test {
  protected:
    void SetUp() override {
        if (!kRoot) GTEST_SKIP() << "needs root, to mount a small file system";
        if (!small.mounted()) GTEST_SKIP() << small.why();
    }
    SmallFileSystem small{24 * kMiB};
};

TEST_F(FullDisk, TurnsTheStoreReadOnlyUntilThereIsRoomAgain) {
    RealDaemon daemon(small.path(), kSmall);
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    const auto table = make_table<Event>(store);
    Failure refusal;
    const std::uint64_t taken = write_until_refused(store, table, refusal);
    EXPECT_GT(taken, 100u);
    EXPECT_TRUE(refusal.code == Error::kNoSpace || refusal.code == Error::kReadOnly)
        << error_name(refusal.code) << ": " << refusal.what;
    expect_words(refusal.what, {"full"});
    EXPECT_EQ(need(store.stats(soon())).mode, EngineMode::kReadOnly);
    expect_words(error_lines(daemon), {"read-only", daemon.data_directory() + "/data", "space"});

    // Everything that was taken is read, by old and new readers; deletes are taken, too.
    EXPECT_EQ(all_rows(store, table).size(), 4 * taken);
    Store other = attach(daemon, Rights::kReader);
    EXPECT_EQ(all_rows(other, table).size(), 4 * taken);
    Transaction erase;
    erase.erase(table, table.key(std::uint64_t{0}, 0u));
    EXPECT_TRUE(is_ok(store.commit(erase, soon())));

    small.resize(80 * kMiB);
    EXPECT_TRUE(eventually([&] { return store.commit(fill_write(table, taken), soon()).ok(); }));
    EXPECT_EQ(need(store.stats(soon())).mode, EngineMode::kServing);
    EXPECT_TRUE(daemon.logged("there is room again")) << daemon.log();
    EXPECT_EQ(all_rows(store, table).size(), 4 * taken + 3);
    EXPECT_EQ(daemon.stop(), 0);
    ASSERT_TRUE(daemon.start());
    EXPECT_EQ(all_rows(store, table).size(), 4 * taken + 3);
}

TEST_F(FullDisk, KilledAndStartedAgainServesReads) {
    RealDaemon daemon(small.path(), kSmall);
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    const auto table = make_table<Event>(store);
    Failure refusal;
    const std::uint64_t taken = write_until_refused(store, table, refusal);
    daemon.kill();
    ASSERT_TRUE(daemon.start());
    need(store.stats(soon()));
    EXPECT_EQ(all_rows(store, table).size(), 4 * taken);
    EXPECT_FALSE(store.commit(fill_write(table, 1'000'000), soon()).ok());
    EXPECT_EQ(daemon.stop(), 0);
}

TEST(FullStore, ConfiguredLimitIsNamedWithItsSetting) {
    RealDaemon daemon({"pool_bytes=16MiB", "max_data_bytes=8MiB"});
    ASSERT_TRUE(daemon.start());
    Store store = attach(daemon);
    const auto table = make_table<Event>(store);
    Failure refusal;
    const std::uint64_t taken = write_until_refused(store, table, refusal);
    EXPECT_GT(taken, 100u);
    expect_words(error_lines(daemon), {"read-only", "max_data_bytes"});
    EXPECT_EQ(all_rows(store, table).size(), 4 * taken);
}

TEST_F(FullDisk, WithoutRoomForANewStoreNamesFileAndReason) {
    small.resize(3 * kMiB);
    RealDaemon daemon(small.path(), kSmall);
    EXPECT_EQ(daemon.start_and_fail(), kEnvironment);
    expect_words(error_lines(daemon), {daemon.data_directory() + "/log", "No space left"});
    // With room, the attempt that was cut off is in nobody's way.
    small.resize(40 * kMiB);
    ASSERT_TRUE(daemon.start());
    EXPECT_TRUE(daemon.logged("new store")) << daemon.log();
}

}  // namespace
}  // namespace bidstore
