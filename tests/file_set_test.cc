// The three files of a store: made, locked, grown.
#include "engine/file_set.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <string>

#include "tests/processes.h"
#include "tests/shared_memory.h"

namespace bidstore {
namespace {

// A daemon that was killed keeps its locks for as long as the kernel completes what it had under
// way. On a busy device that took longer than the daemon after it waited, which then said that
// another one runs, and ended.
TEST(FileSet, LockOfAProcessThatEndedIsWaitedFor) {
    std::error_code unknown;
    if (std::filesystem::read_symlink("/proc/self/ns/pid", unknown) != "pid:[4026531836]") {
        GTEST_SKIP() << "in a pid namespace the kernel does not name processes that ended";
    }
    const WorkDirectory directory;
    SharedMemory<std::atomic<bool>> release;
    // What holds its files open beyond its end is a copy of it here.
    Process owner = Process::fork([&] {
        const Result<FileSet> files = FileSet::open(directory.path(), FileSet::Options{});
        if (!files.ok()) return 1;
        if (::fork() == 0) {
            eventually([&] { return release->load(); });
            ::_exit(0);
        }
        return 0;
    });
    ASSERT_EQ(owner.wait(), 0);
    FileSet::Options options;
    options.lock_wait_ms = 0;
    options.dead_lock_wait_ms = 0;
    const Result<FileSet> impatient = FileSet::open(directory.path(), options);
    ASSERT_EQ(impatient.error(), Error::kLocked);
    EXPECT_NE(impatient.failure().what.find("which ended"), std::string::npos)
        << impatient.failure().what;
    std::string said;
    options.dead_lock_wait_ms = 30'000;
    options.log = [&](int, const std::string& line) {
        said += line;
        *release = true;
    };
    EXPECT_TRUE(FileSet::open(directory.path(), options).ok());
    EXPECT_NE(said.find("waits for it"), std::string::npos) << said;
}

TEST(FileSet, MissingDirectoryIsNamed) {
    const Result<FileSet> files = FileSet::open("/nonexistent/store", {});
    ASSERT_FALSE(files.ok());
    EXPECT_EQ(files.error(), Error::kIoError);
    EXPECT_NE(files.failure().what.find("/nonexistent/store/data"), std::string::npos);
}

TEST(FileSet, NewFilesAreEmptyAndPrivate) {
    const WorkDirectory directory;
    const Result<FileSet> files = FileSet::open(directory.path(), {});
    ASSERT_TRUE(files.ok());
    for (const StoreFile file : {StoreFile::kData, StoreFile::kLog, StoreFile::kJournal}) {
        EXPECT_EQ(*files->size_bytes(file), 0u);
        struct stat facts {};
        ASSERT_EQ(::stat(files->path(file).c_str(), &facts), 0);
        EXPECT_EQ(facts.st_mode & 07u, 0u);
    }
}

TEST(FileSet, GrowthIsWrittenAndNotJustReserved) {
    const WorkDirectory directory;
    const Result<FileSet> files = FileSet::open(directory.path(), {});
    ASSERT_TRUE(files.ok());
    ASSERT_TRUE(files->resize(StoreFile::kLog, 3u << 20).ok());
    struct stat facts {};
    ASSERT_EQ(::stat(files->path(StoreFile::kLog).c_str(), &facts), 0);
    EXPECT_GE(facts.st_blocks * 512, 3 << 20);
}

TEST(FileSet, SizeThatIsNoWholeBlockGrowsAndKeepsItsBytes) {
    const WorkDirectory directory;
    const std::string path = directory.path() + "/data";
    const int plain = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(plain, 0);
    ASSERT_EQ(::write(plain, "hello", 5), 5);
    const Result<FileSet> files = FileSet::open(directory.path(), {});
    ASSERT_TRUE(files.ok());
    const Status grown = files->resize(StoreFile::kData, 4 * kPageBytes);
    ASSERT_TRUE(grown.ok()) << grown.failure().what;
    char bytes[6] = {};
    EXPECT_EQ(::pread(plain, bytes, 6, 0), 6);
    EXPECT_EQ(std::memcmp(bytes, "hello\0", 6), 0);
    ::close(plain);
}

// In a process of its own, with a file system of its own that is full at once.
TEST(FileSet, FullDeviceLeavesTheFileAsItWas) {
    const WorkDirectory directory;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        constexpr int kCannot = 77;
        if (::unshare(CLONE_NEWNS) != 0) ::_exit(kCannot);
        if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) ::_exit(kCannot);
        if (::mount("none", directory.path().c_str(), "tmpfs", 0, "size=1m") != 0) {
            ::_exit(kCannot);
        }
        const Result<FileSet> files = FileSet::open(directory.path(), {});
        if (!files.ok()) ::_exit(1);
        if (!files->resize(StoreFile::kData, 4 * kPageBytes).ok()) ::_exit(2);
        const Status grown = files->resize(StoreFile::kData, 8u << 20);
        if (grown.error() != Error::kNoSpace) ::_exit(3);
        const std::string& what = grown.failure().what;
        if (what.find(directory.path() + "/data") == what.npos) ::_exit(6);
        if (what.find("(errno 28)") == what.npos) ::_exit(7);
        if (*files->size_bytes(StoreFile::kData) != 4 * kPageBytes) ::_exit(4);
        if (!files->resize(StoreFile::kJournal, 64 * kPageBytes).ok()) ::_exit(5);
        ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "this user may not mount a file system";
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace bidstore
