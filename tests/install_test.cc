// What `cmake --install` makes is whole: daemon, tool and library work from there, and a program
// outside of the tree builds against it, with CMake and with pkg-config.

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/processes.h"

namespace bidstore {
namespace {

namespace fs = std::filesystem;

const std::string kProgram = BIDSTORE_SOURCE_DIR "/tests/out_of_tree";

// Runs it; a failure shows what it said.
std::string must_run(const std::vector<std::string>& command) {
    const Finished finished = run_to_end(command);
    std::string line;
    for (const std::string& word : command) line += word + " ";
    EXPECT_EQ(finished.status, 0) << line << "\n" << finished.output;
    return finished.output;
}

// A staged installation, as packages are made: below a root of its own.
class Install : public testing::Test {
  protected:
    void SetUp() override {
        if (std::string(BIDSTORE_SANITIZE) != "none") {
            GTEST_SKIP() << "a program outside would have to link the sanitizer's libraries, too";
        }
        must_run({"/usr/bin/env", "DESTDIR=" + root(), "cmake", "--install", BIDSTORE_BUILD_DIR});
        for (const auto& entry : fs::recursive_directory_iterator(root())) {
            if (entry.path().filename() == "bidstore.pc") package_ = entry.path().parent_path();
            if (entry.path().filename() == "bidstored" && entry.is_regular_file()) {
                programs_ = entry.path().parent_path();
            }
        }
        ASSERT_FALSE(package_.empty() || programs_.empty()) << "not all was installed";
    }
    std::string root() const { return place_.file("root"); }
    std::string program(const std::string& name) const { return (programs_ / name).string(); }

    // Makes a table in an installed daemon's store, writes and reads back.
    void expect_round_trip(const std::string& built) {
        const std::string directory = place_.file("store-" + fs::path(built).filename().string());
        const std::string socket = directory + "/bidstore.sock";
        Process daemon = Process::run({program("bidstored"), "--dev", directory, "--set",
                                       "pool_bytes=16MiB", "--set", "log_segment_bytes=1MiB"},
                                      place_.file("daemon.log"));
        EXPECT_NE(must_run({built, socket}).find("written and read back"), std::string::npos);
        const std::string rows =
            must_run({program("bidstore"), "--socket", socket, "count", "visits"});
        EXPECT_NE(rows.find('1'), std::string::npos) << rows;
        daemon.signal(SIGTERM);
        EXPECT_EQ(daemon.wait(), 0) << read_whole_file(place_.file("daemon.log"));
    }

    WorkDirectory place_;
    fs::path package_;
    fs::path programs_;
};

TEST_F(Install, ProgramBuildsWithFindPackageAndTalksToTheInstalledDaemon) {
    const std::string build = place_.file("with-cmake");
    const std::string prefix = programs_.parent_path().string();
    must_run(
        {"/usr/bin/env", "cmake", "-S", kProgram, "-B", build, "-DCMAKE_PREFIX_PATH=" + prefix});
    must_run({"/usr/bin/env", "cmake", "--build", build});
    const std::string said = must_run({build + "/bidder"});
    EXPECT_NE(said.find("is the daemon running"), std::string::npos) << said;
    expect_round_trip(build + "/bidder");
}

TEST_F(Install, ProgramBuildsWithPkgConfigAndTalksToTheInstalledDaemon) {
    const std::string build = place_.file("with-pkg-config");
    fs::create_directory(build);
    for (const char* name : {"Makefile", "program.cc"}) {
        fs::copy_file(kProgram + "/" + name, build + "/" + name);
    }
    must_run({"/usr/bin/env", "PKG_CONFIG_SYSROOT_DIR=" + root(),
              "PKG_CONFIG_PATH=" + package_.string(), "make", "-C", build, "bidder"});
    expect_round_trip(build + "/bidder");
}

TEST_F(Install, ExampleConfigIsThereAndRight) {
    for (const auto& entry : fs::recursive_directory_iterator(root())) {
        if (entry.path().filename() != "bidstored.toml") continue;
        const std::string said =
            must_run({program("bidstored"), "--config", entry.path().string(), "--check"});
        EXPECT_NE(said.find("the settings are right"), std::string::npos) << said;
        return;
    }
    FAIL() << "no bidstored.toml was installed";
}

// The configuration was to be edited where none was installed, and the unit started a program that
// the default prefix does not put there.
TEST_F(Install, StepsForAHostNameWhatIsInstalled) {
    const std::string readme = read_whole_file(BIDSTORE_SOURCE_DIR "/README.md");
    EXPECT_NE(readme.find("-DCMAKE_INSTALL_PREFIX=/usr "), std::string::npos);
    const fs::path prefix = programs_.parent_path();
    for (const std::string file : {"share/doc/bidstore/bidstored.toml", "bin/bidstored"}) {
        EXPECT_TRUE(fs::exists(prefix / file)) << file;
        EXPECT_NE(readme.find("/usr/" + file), std::string::npos) << file;
    }
    for (const char* kind : {"sysusers", "tmpfiles"}) {
        EXPECT_TRUE(fs::exists(prefix / "lib" / (std::string(kind) + ".d") / "bidstore.conf"));
        EXPECT_NE(readme.find("systemd-" + std::string(kind)), std::string::npos);
    }
    const std::string unit =
        read_whole_file((prefix / "lib/systemd/system/bidstored.service").string());
    EXPECT_NE(unit.find("ExecStart=/usr/bin/bidstored "), std::string::npos);
}

}  // namespace
}  // namespace bidstore
