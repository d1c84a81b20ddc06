// The disk that ends its process, or fails: what it leaves of the operation, and what the process
// knew by then. That it keeps the contract of a disk otherwise is in disk_test.cc.

#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/clock.h"
#include "engine/file_set.h"
#include "engine/thread_disk.h"
#include "tests/failpoint_disk.h"
#include "tests/processes.h"
#include "tests/shared_memory.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kPages = 4;
constexpr std::uint32_t kBytes = kPages * kPageBytes;

struct Shared {
    std::atomic<int> submitted{0};
    std::atomic<int> completed{0};
    std::atomic<int> rounds{0};  // begun after a completion
};

class FailpointDiskTest : public testing::Test {
  protected:
    std::unique_ptr<Disk> open() const {
        auto files = FileSet::open(directory_.path(), {});
        CHECK(files.ok());
        auto disk = ThreadDisk::open(std::move(*files));
        CHECK(disk.ok());
        return std::make_unique<FailpointDisk>(std::move(*disk), directory_.path());
    }
    void write_line(const char* name, const std::string& text) const {
        std::ofstream(directory_.file(name)) << text << '\n';
    }
    // Writes of all ones to a log of zeros, until it is killed or has made so many.
    int write_on(int writes) {
        const std::unique_ptr<Disk> disk = open();
        if (!disk->resize(StoreFile::kLog, kBytes).ok()) return 1;
        AlignedBuffer ones(kBytes);
        std::memset(ones.data(), 1, kBytes);
        for (; shared_->submitted < writes;) {
            DiskRequest request;
            request.kind = DiskRequest::Kind::kWrite;
            request.file = StoreFile::kLog;
            request.length_bytes = kBytes;
            request.buffer = ones.data();
            request.context = &*shared_;
            request.completed = [](DiskRequest&, void* shared) {
                ++static_cast<Shared*>(shared)->completed;
            };
            ++shared_->submitted;
            disk->submit(request);
            while (request.in_flight) disk->poll(1'000'000);
            ++shared_->rounds;
            disk->poll(0);
        }
        return 0;
    }
    // Pages of the log that were written; whoever has it open may go on.
    int pages_written() const {
        const std::string log = read_whole_file(log_path_);
        int pages = 0;
        for (std::uint32_t page = 0; page < kPages; ++page) {
            pages += log.substr(page * kPageBytes, kPageBytes) == std::string(kPageBytes, 1);
        }
        return pages;
    }
    void expect_end_at(const std::string& failpoint) {
        write_line("failpoint", failpoint);
        Process process = Process::fork([this] { return write_on(5); });
        EXPECT_EQ(process.wait(), 128 + SIGKILL) << failpoint;
    }

    WorkDirectory directory_;
    std::string log_path_ = open()->path(StoreFile::kLog);
    SharedMemory<Shared> shared_;
};

TEST_F(FailpointDiskTest, NothingIsDoneBefore) {
    expect_end_at("log-write 1 before");
    EXPECT_EQ(pages_written(), 0);
    EXPECT_EQ(shared_->completed, 0);
}

TEST_F(FailpointDiskTest, HalfOfAWriteIsDone) {
    expect_end_at("any 2 half");  // the first is the log that is made
    EXPECT_EQ(pages_written(), 2);
    EXPECT_EQ(shared_->completed, 0);
}

TEST_F(FailpointDiskTest, DoneIsNotTaken) {
    expect_end_at("log-write 1 done");
    EXPECT_EQ(pages_written(), 4);
    EXPECT_EQ(shared_->completed, 0);
}

TEST_F(FailpointDiskTest, TakenIsNotFollowedByARound) {
    expect_end_at("log-write 3 taken");
    EXPECT_EQ(pages_written(), 4);
    EXPECT_EQ(shared_->completed, 3);
    EXPECT_EQ(shared_->rounds, 2);
}

TEST_F(FailpointDiskTest, TheRoundIsItsLast) {
    expect_end_at("log-write 3 round");
    EXPECT_EQ(shared_->completed, 3);
    EXPECT_EQ(shared_->rounds, 3);
    EXPECT_EQ(shared_->submitted, 3);
}

TEST_F(FailpointDiskTest, OtherStepsAreNotCounted) {
    write_line("failpoint", "journal-write 1 before");
    Process process = Process::fork([this] { return write_on(5); });
    EXPECT_EQ(process.wait(), 0);
    EXPECT_EQ(shared_->completed, 5);
}

TEST_F(FailpointDiskTest, WhatIsToFailDoesNothingUntilTheDeviceIsWell) {
    const std::unique_ptr<Disk> disk = open();
    ASSERT_TRUE(disk->resize(StoreFile::kLog, kBytes).ok());
    HostClock clock;
    BlockingIo io(*disk, clock);
    AlignedBuffer ones(kBytes);
    std::memset(ones.data(), 1, kBytes);
    write_line("fail", "log-write 5");
    const Status failed = io.write(StoreFile::kLog, 0, ones.data(), kBytes, true);
    EXPECT_NE(failed.failure().what.find("errno 5"), std::string::npos) << failed.failure().what;
    EXPECT_EQ(pages_written(), 0);
    EXPECT_TRUE(io.sync(StoreFile::kLog).ok());
    std::filesystem::remove(directory_.file("fail"));
    EXPECT_TRUE(io.write(StoreFile::kLog, 0, ones.data(), kBytes, true).ok());
    EXPECT_EQ(pages_written(), 4);
}

TEST_F(FailpointDiskTest, OnlyTheOneThatIsToFailDoes) {
    const std::unique_ptr<Disk> disk = open();
    ASSERT_TRUE(disk->resize(StoreFile::kLog, kBytes).ok());
    HostClock clock;
    BlockingIo io(*disk, clock);
    AlignedBuffer ones(kBytes);
    std::memset(ones.data(), 1, kBytes);
    for (const std::uint32_t nth : {2u, 3u}) {
        write_line("fail", "log-write 5 " + std::to_string(nth));
        EXPECT_FALSE(std::filesystem::exists(directory_.file("failed")));
        for (std::uint32_t i = 1; i <= 4; ++i) {
            EXPECT_TRUE(io.sync(StoreFile::kLog).ok());
            const Status written = io.write(StoreFile::kLog, 0, ones.data(), kBytes, true);
            EXPECT_EQ(written.ok(), i != nth) << i;
            EXPECT_EQ(std::filesystem::exists(directory_.file("failed")), i >= nth) << i;
        }
        std::filesystem::remove(directory_.file("failed"));
    }
}

TEST_F(FailpointDiskTest, WhatIsHeldIsDoneWhenItIsLetGo) {
    write_line("hold", "log-write");
    Process process = Process::fork([this] { return write_on(1); });
    EXPECT_TRUE(eventually([&] { return std::filesystem::exists(directory_.file("held")); }));
    EXPECT_EQ(pages_written(), 0);
    EXPECT_TRUE(process.running());
    std::filesystem::remove(directory_.file("hold"));
    EXPECT_EQ(process.wait(), 0);
    EXPECT_EQ(pages_written(), 4);
}

}  // namespace
}  // namespace bidstore
