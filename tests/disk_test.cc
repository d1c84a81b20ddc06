// The contract of the disk seam, held against every disk there is, also where the kernel transfers
// less than asked; and what is true of the real ones.
#include "engine/disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/clock.h"
#include "engine/file_set.h"
#include "engine/request_queue.h"
#include "engine/thread_disk.h"
#include "engine/uring_disk.h"
#include "tests/disk_fixture.h"

namespace bidstore {
namespace {

using Kind = DiskRequest::Kind;

TEST_P(DiskContract, WhatWasWrittenIsReadInEachFile) {
    for (const StoreFile file : {StoreFile::kData, StoreFile::kLog, StoreFile::kJournal}) {
        grow(file, 64 * kPageBytes);
        AlignedBuffer out(3 * kPageBytes);
        AlignedBuffer in(3 * kPageBytes);
        fill(out, static_cast<unsigned>(file) + 1);
        Request write(Kind::kWrite, file, 5 * kPageBytes, out.data(), 3 * kPageBytes);
        EXPECT_EQ(run(write), 3 * kPageBytes);
        Request read(Kind::kRead, file, 5 * kPageBytes, in.data(), 3 * kPageBytes);
        EXPECT_EQ(run(read), 3 * kPageBytes);
        EXPECT_TRUE(same(out, in)) << store_file_name(file);
    }
}

TEST_P(DiskContract, DurableWriteAndSyncSucceed) {
    grow(StoreFile::kLog, 16 * kPageBytes);
    AlignedBuffer out(kPageBytes);
    AlignedBuffer in(kPageBytes);
    fill(out, 3);
    Request write(Kind::kWrite, StoreFile::kLog, kPageBytes, out.data(), kPageBytes);
    write.durable = true;
    EXPECT_EQ(run(write), kPageBytes);
    Request sync(Kind::kSync, StoreFile::kLog, 0, nullptr, 0);
    EXPECT_EQ(run(sync), 0);
    Request read(Kind::kRead, StoreFile::kLog, kPageBytes, in.data(), kPageBytes);
    EXPECT_EQ(run(read), kPageBytes);
    EXPECT_TRUE(same(out, in));
}

TEST_P(DiskContract, ReadPastTheEndSaysSo) {
    grow(StoreFile::kData, 4 * kPageBytes);
    AlignedBuffer in(4 * kPageBytes);
    Request behind(Kind::kRead, StoreFile::kData, 8 * kPageBytes, in.data(), kPageBytes);
    EXPECT_EQ(run(behind), -ENODATA);
    Request across(Kind::kRead, StoreFile::kData, 2 * kPageBytes, in.data(), 4 * kPageBytes);
    EXPECT_EQ(run(across), -ENODATA);
    Request last(Kind::kRead, StoreFile::kData, 3 * kPageBytes, in.data(), kPageBytes);
    EXPECT_EQ(run(last), kPageBytes);
}

TEST_P(DiskContract, GrowthReadsAsZerosAndKeepsWhatWasThere) {
    grow(StoreFile::kData, kPageBytes);
    AlignedBuffer out(kPageBytes);
    fill(out, 9);
    Request write(Kind::kWrite, StoreFile::kData, 0, out.data(), kPageBytes);
    EXPECT_EQ(run(write), kPageBytes);
    grow(StoreFile::kData, 700 * kPageBytes);  // more than one piece of zeros
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), 700 * kPageBytes);
    AlignedBuffer in(kPageBytes);
    Request first(Kind::kRead, StoreFile::kData, 0, in.data(), kPageBytes);
    EXPECT_EQ(run(first), kPageBytes);
    EXPECT_TRUE(same(out, in));
    const AlignedBuffer zeros(kPageBytes);
    for (const std::uint64_t page : {1u, 255u, 256u, 257u, 699u}) {
        Request read(Kind::kRead, StoreFile::kData, page * kPageBytes, in.data(), kPageBytes);
        EXPECT_EQ(run(read), kPageBytes);
        EXPECT_TRUE(same(zeros, in)) << page;
    }
}

TEST_P(DiskContract, GrowthBesideOtherRequestsMakesTheFileLonger) {
    grow(StoreFile::kData, 4 * kPageBytes);
    AlignedBuffer out(4 * kPageBytes);
    AlignedBuffer in(4 * kPageBytes);
    AlignedBuffer zeros(64 * kPageBytes);
    fill(out, 21);
    Request write(Kind::kWrite, StoreFile::kData, 0, out.data(), 4 * kPageBytes);
    // Over the end, and without an end of its own in sight: as growth goes on after a crash.
    Request first(Kind::kGrow, StoreFile::kData, 4 * kPageBytes, zeros.data(), 64 * kPageBytes);
    disk_->submit(write);
    disk_->submit(first);
    EXPECT_EQ(finish(first), 64 * kPageBytes);
    EXPECT_EQ(finish(write), 4 * kPageBytes);
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), 68 * kPageBytes);
    Request over(Kind::kGrow, StoreFile::kData, 60 * kPageBytes, zeros.data(), 64 * kPageBytes);
    EXPECT_EQ(run(over), 64 * kPageBytes);
    Request sync(Kind::kSync, StoreFile::kData, 0, nullptr, 0);
    EXPECT_EQ(run(sync), 0);
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), 124 * kPageBytes);
    Request read(Kind::kRead, StoreFile::kData, 0, in.data(), 4 * kPageBytes);
    EXPECT_EQ(run(read), 4 * kPageBytes);
    EXPECT_TRUE(same(out, in));
    Request added(Kind::kRead, StoreFile::kData, 120 * kPageBytes, in.data(), 4 * kPageBytes);
    EXPECT_EQ(run(added), 4 * kPageBytes);
    EXPECT_TRUE(same(AlignedBuffer(4 * kPageBytes), in));
}

TEST_P(DiskContract, CutFileEndsThereAndGrowsWithZeros) {
    grow(StoreFile::kJournal, 8 * kPageBytes);
    AlignedBuffer out(8 * kPageBytes);
    fill(out, 1);
    Request write(Kind::kWrite, StoreFile::kJournal, 0, out.data(), 8 * kPageBytes);
    EXPECT_EQ(run(write), 8 * kPageBytes);
    grow(StoreFile::kJournal, 2 * kPageBytes);
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kJournal), 2 * kPageBytes);
    grow(StoreFile::kJournal, 4 * kPageBytes);
    AlignedBuffer in(kPageBytes);
    Request read(Kind::kRead, StoreFile::kJournal, 3 * kPageBytes, in.data(), kPageBytes);
    EXPECT_EQ(run(read), kPageBytes);
    EXPECT_TRUE(same(AlignedBuffer(kPageBytes), in));
}

TEST_P(DiskContract, CutBesideOtherRequestsEndsTheFileThere) {
    grow(StoreFile::kData, 64 * kPageBytes);
    AlignedBuffer out(8 * kPageBytes);
    AlignedBuffer in(8 * kPageBytes);
    fill(out, 4);
    for (const std::uint64_t page : {0u, 56u}) {
        Request write(Kind::kWrite, StoreFile::kData, page * kPageBytes, out.data(),
                      8 * kPageBytes);
        EXPECT_EQ(run(write), 8 * kPageBytes);
    }
    // Twice, for one must leave the next as it was itself.
    for (const std::uint64_t pages : {40u, 16u}) {
        Request cut(Kind::kCut, StoreFile::kData, pages * kPageBytes, nullptr, 0);
        Request read(Kind::kRead, StoreFile::kData, 0, in.data(), 8 * kPageBytes);
        disk_->submit(cut);
        disk_->submit(read);
        EXPECT_EQ(finish(read), 8 * kPageBytes);
        EXPECT_EQ(finish(cut), 0);
        EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), pages * kPageBytes);
        EXPECT_TRUE(same(out, in));
    }
    Request sync(Kind::kSync, StoreFile::kData, 0, nullptr, 0);
    EXPECT_EQ(run(sync), 0);
    Request gone(Kind::kRead, StoreFile::kData, 56 * kPageBytes, in.data(), 8 * kPageBytes);
    EXPECT_EQ(run(gone), -ENODATA);
    // What was cut off does not come back.
    grow(StoreFile::kData, 64 * kPageBytes);
    EXPECT_EQ(run(gone), 8 * kPageBytes);
    EXPECT_TRUE(same(AlignedBuffer(8 * kPageBytes), in));
}

TEST_P(DiskContract, HoleIsToldOfUntilAGrowthHasFilledIt) {
    constexpr std::uint32_t kPages = 64;
    grow(StoreFile::kData, 2 * kPages * kPageBytes);
    const auto backed = [&](std::uint64_t first, std::uint64_t pages) {
        const auto told = disk_->backed(StoreFile::kData, first * kPageBytes, pages * kPageBytes);
        EXPECT_TRUE(told.ok());
        return told.ok() && *told;
    };
    EXPECT_TRUE(backed(0, 2 * kPages));
    EXPECT_FALSE(backed(kPages, 2 * kPages)) << "the file ends before that";
    Request hole(Kind::kPunch, StoreFile::kData, 0, nullptr, kPages * kPageBytes);
    const std::int64_t punched = run(hole);
    if (punched == -EOPNOTSUPP) GTEST_SKIP() << "this file system has no holes";
    EXPECT_EQ(punched, kPages * kPageBytes);
    EXPECT_FALSE(backed(0, kPages));
    EXPECT_FALSE(backed(0, 2 * kPages));
    EXPECT_TRUE(backed(kPages, kPages));
    AlignedBuffer zeros(kPages * kPageBytes);
    Request half(Kind::kGrow, StoreFile::kData, 0, zeros.data(), kPages / 2 * kPageBytes);
    EXPECT_EQ(run(half), kPages / 2 * kPageBytes);
    EXPECT_FALSE(backed(0, kPages));
    Request whole(Kind::kGrow, StoreFile::kData, 0, zeros.data(), kPages * kPageBytes);
    EXPECT_EQ(run(whole), kPages * kPageBytes);
    Request sync(Kind::kSync, StoreFile::kData, 0, nullptr, 0);
    EXPECT_EQ(run(sync), 0);
    EXPECT_TRUE(backed(0, 2 * kPages));
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), 2 * kPages * kPageBytes);
}

TEST_P(DiskContract, ExtendedFileIsLongerAndNeverShorter) {
    grow(StoreFile::kData, 4 * kPageBytes);
    AlignedBuffer out(4 * kPageBytes);
    AlignedBuffer in(4 * kPageBytes);
    fill(out, 6);
    Request write(Kind::kWrite, StoreFile::kData, 0, out.data(), 4 * kPageBytes);
    EXPECT_EQ(run(write), 4 * kPageBytes);
    Request longer(Kind::kExtend, StoreFile::kData, 4 * kPageBytes, nullptr, 8 * kPageBytes);
    EXPECT_EQ(run(longer), 8 * kPageBytes);
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), 12 * kPageBytes);
    Request within(Kind::kExtend, StoreFile::kData, 2 * kPageBytes, nullptr, 6 * kPageBytes);
    EXPECT_EQ(run(within), 6 * kPageBytes);
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), 12 * kPageBytes);
    Request old(Kind::kRead, StoreFile::kData, 0, in.data(), 4 * kPageBytes);
    EXPECT_EQ(run(old), 4 * kPageBytes);
    EXPECT_TRUE(same(out, in));
    Request added(Kind::kRead, StoreFile::kData, 8 * kPageBytes, in.data(), 4 * kPageBytes);
    EXPECT_EQ(run(added), 4 * kPageBytes);
    EXPECT_TRUE(same(AlignedBuffer(4 * kPageBytes), in));
}

TEST_P(DiskContract, HoleReadsAsZerosAndTheFileKeepsItsSize) {
    grow(StoreFile::kData, 64 * kPageBytes);
    AlignedBuffer out(64 * kPageBytes);
    AlignedBuffer in(kPageBytes);
    fill(out, 5);
    Request write(Kind::kWrite, StoreFile::kData, 0, out.data(), 64 * kPageBytes);
    EXPECT_EQ(run(write), 64 * kPageBytes);
    Request hole(Kind::kPunch, StoreFile::kData, 8 * kPageBytes, nullptr, 40 * kPageBytes);
    const std::int64_t punched = run(hole);
    if (punched == -EOPNOTSUPP) GTEST_SKIP() << "this file system has no holes";
    EXPECT_EQ(punched, 40 * kPageBytes);
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), 64 * kPageBytes);
    for (const std::uint64_t page : {7u, 8u, 47u, 48u}) {
        const bool gone = page >= 8 && page < 48;
        Request read(Kind::kRead, StoreFile::kData, page * kPageBytes, in.data(), kPageBytes);
        EXPECT_EQ(run(read), kPageBytes);
        const AlignedBuffer zeros(kPageBytes);
        const std::byte* expected = gone ? zeros.data() : out.data() + page * kPageBytes;
        EXPECT_EQ(std::memcmp(in.data(), expected, kPageBytes), 0) << page;
    }
}

TEST_P(DiskContract, ManyRequestsAreInFlightAtOnce) {
    constexpr std::uint32_t kCount = 300;  // more than any queue here holds
    grow(StoreFile::kData, kCount * kPageBytes);
    AlignedBuffer out(kCount * kPageBytes);
    AlignedBuffer in(kCount * kPageBytes);
    fill(out, 77);
    for (const Kind kind : {Kind::kWrite, Kind::kRead}) {
        AlignedBuffer& buffer = kind == Kind::kWrite ? out : in;
        std::vector<std::unique_ptr<Request>> requests;
        for (std::uint32_t i = 0; i < kCount; ++i) {
            const std::uint64_t at = std::uint64_t{i * 7 % kCount} * kPageBytes;
            requests.push_back(std::make_unique<Request>(kind, StoreFile::kData, at,
                                                         buffer.data() + at, kPageBytes));
            requests.back()->durable = i % 64 == 0;
            disk_->submit(*requests.back());
            EXPECT_TRUE(requests.back()->in_flight);
        }
        EXPECT_EQ(disk_->in_flight(), kCount);
        int completions = 0;
        while (disk_->in_flight() > 0) completions += disk_->poll(kSecondNs);
        EXPECT_EQ(completions, static_cast<int>(kCount));
        for (const auto& request : requests) {
            EXPECT_EQ(request->result, kPageBytes);
            EXPECT_EQ(request->completions, 1);
        }
    }
    EXPECT_TRUE(same(out, in));
}

TEST_P(DiskContract, PollThatDoesNotWaitStillMakesProgress) {
    grow(StoreFile::kData, kPageBytes);
    AlignedBuffer in(kPageBytes);
    Request read(Kind::kRead, StoreFile::kData, 0, in.data(), kPageBytes);
    EXPECT_EQ(disk_->poll(0), 0);
    disk_->submit(read);
    while (read.in_flight) disk_->poll(0);
    EXPECT_EQ(read.result, kPageBytes);
    EXPECT_EQ(disk_->poll(0), 0);
}

TEST_P(DiskContract, CompletionMaySubmitTheSameRequestAgain) {
    grow(StoreFile::kLog, 16 * kPageBytes);
    AlignedBuffer out(kPageBytes);
    fill(out, 5);
    Request write(Kind::kWrite, StoreFile::kLog, 0, out.data(), kPageBytes);
    write.durable = true;
    int rounds = 0;
    write.then = [&] {
        EXPECT_EQ(write.result, kPageBytes);
        write.offset_bytes += kPageBytes;
        if (++rounds < 10) disk_->submit(write);
    };
    disk_->submit(write);
    while (disk_->in_flight() > 0) disk_->poll(kSecondNs);
    EXPECT_EQ(rounds, 10);
}

TEST_P(DiskContract, LargestTransferIsOneRequest) {
    grow(StoreFile::kData, kMaxTransferBytes);
    AlignedBuffer out(kMaxTransferBytes);
    AlignedBuffer in(kMaxTransferBytes);
    fill(out, 31);
    Request write(Kind::kWrite, StoreFile::kData, 0, out.data(), kMaxTransferBytes);
    EXPECT_EQ(run(write), kMaxTransferBytes);
    Request read(Kind::kRead, StoreFile::kData, 0, in.data(), kMaxTransferBytes);
    EXPECT_EQ(run(read), kMaxTransferBytes);
    EXPECT_TRUE(same(out, in));
}

TEST_P(DiskContract, BufferOfAWriteIsNotTouched) {
    grow(StoreFile::kData, 32 * kPageBytes);
    AlignedBuffer out(32 * kPageBytes);
    AlignedBuffer copy(32 * kPageBytes);
    fill(out, 13);
    fill(copy, 13);
    Request write(Kind::kWrite, StoreFile::kData, 0, out.data(), 32 * kPageBytes);
    EXPECT_EQ(run(write), 32 * kPageBytes);
    EXPECT_TRUE(same(out, copy));
}

TEST_P(DiskContract, SleepEndsByItself) {
    EXPECT_EQ(disk_->poll(2'000'000), 0);
    EXPECT_EQ(disk_->in_flight(), 0u);
}

TEST_P(DiskContract, WakeDescriptorEndsTheSleepAsLongAsItIsReadable) {
    const int wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ASSERT_GE(wake, 0);
    disk_->set_wake_descriptor(wake);
    std::uint64_t count = 1;
    ASSERT_EQ(::write(wake, &count, sizeof count), static_cast<ssize_t>(sizeof count));
    HostClock clock;
    const std::uint64_t start_ns = clock.monotonic_ns();
    EXPECT_EQ(disk_->poll(60 * kSecondNs), 0);
    EXPECT_EQ(disk_->poll(60 * kSecondNs), 0);
    // Only a wait that was not cut short takes a minute, on the slowest host.
    EXPECT_LT(clock.monotonic_ns() - start_ns, 50 * kSecondNs);
    EXPECT_LT(sim_clock_.monotonic_ns(), 50 * kSecondNs);
    ASSERT_EQ(::read(wake, &count, sizeof count), static_cast<ssize_t>(sizeof count));
    disk_->poll(1'000'000);
    disk_->set_wake_descriptor(-1);
    disk_->poll(1'000'000);
    ::close(wake);
    disk_->poll(1'000'000);
}

INSTANTIATE_TEST_SUITE_P(All, DiskContract,
                         testing::Values(Half::kUring, Half::kUringBuffered, Half::kUringShort,
                                         Half::kThreads, Half::kThreadsShort, Half::kSimulated,
                                         Half::kFailpoint),
                         half_name);

// ---- transfers that the kernel makes shorter

class ShortTransfer : public DiskContract {};

INSTANTIATE_TEST_SUITE_P(All, ShortTransfer,
                         testing::Values(Half::kUringShort, Half::kThreadsShort), half_name);

TEST_P(ShortTransfer, IsGoneOnWithUntilAllOfItIsDone) {
    constexpr std::uint32_t kCount = 40;
    constexpr std::uint32_t kPages = 16;
    grow(StoreFile::kLog, kCount * kPages * kPageBytes);
    AlignedBuffer out(kCount * kPages * kPageBytes);
    AlignedBuffer in(kCount * kPages * kPageBytes);
    fill(out, 19);
    if (GetParam() == Half::kUringShort) {
        static_cast<void>(disk_->register_memory(in.data(), in.size_bytes()));
    }
    const std::uint64_t before = ShortTransfers::made();
    for (const Kind kind : {Kind::kWrite, Kind::kRead}) {
        AlignedBuffer& buffer = kind == Kind::kWrite ? out : in;
        std::deque<Request> requests;
        for (std::uint32_t i = 0; i < kCount; ++i) {
            const std::uint64_t at = i * kPages * kPageBytes;
            requests.emplace_back(kind, StoreFile::kLog, at, buffer.data() + at,
                                  kPages * kPageBytes);
            requests.back().durable = i % 4 == 0;
            disk_->submit(requests.back());
        }
        while (disk_->in_flight() > 0) disk_->poll(kSecondNs);
        for (const Request& request : requests) {
            EXPECT_EQ(request.result, kPages * kPageBytes);
            EXPECT_EQ(request.completions, 1);
        }
    }
    EXPECT_GT(ShortTransfers::made(), before + 2 * kCount);
    EXPECT_TRUE(same(out, in));
    disk_.reset();
    const std::string log = read_whole_file(directory_.file("log"));
    EXPECT_EQ(std::memcmp(log.data(), out.data(), out.size_bytes()), 0);
}

// A limit within the write: the kernel itself writes what is before it, and refuses the rest.
TEST_P(ShortTransfer, ThatCannotGoOnIsAFailureOfTheWhole) {
    grow(StoreFile::kLog, 16 * kPageBytes);
    AlignedBuffer out(16 * kPageBytes);
    fill(out, 23);
    ShortTransfers::set_unit(0);
    disk_.reset();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        const rlimit limit{5 * kPageBytes, 5 * kPageBytes};
        const bool limited = ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
        if (!limited || ::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) ::_exit(1);
        disk_ = open();
        Request write(Kind::kWrite, StoreFile::kLog, 0, out.data(), 16 * kPageBytes);
        ::_exit(run(write) == -EFBIG ? 0 : 2);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    const std::string log = read_whole_file(directory_.file("log"));
    EXPECT_EQ(std::memcmp(log.data(), out.data(), 5 * kPageBytes), 0);
    EXPECT_EQ(log.substr(5 * kPageBytes), std::string(11 * kPageBytes, '\0'));
}

// A file that something else made shorter, within a page: direct reads cannot go on from there.
TEST_P(ShortTransfer, AtAnEndWithinAPageSaysThatTheFileEnds) {
    grow(StoreFile::kData, 8 * kPageBytes);
    AlignedBuffer in(4 * kPageBytes);
    for (const std::uint64_t within : {100u, 512u, 4'000u}) {
        ASSERT_EQ(::truncate(directory_.file("data").c_str(),
                             static_cast<off_t>(2 * kPageBytes + within)),
                  0);
        Request across(Kind::kRead, StoreFile::kData, 0, in.data(), 4 * kPageBytes);
        EXPECT_EQ(run(across), -ENODATA) << within;
    }
}

// ---- the real disks alone

class RealDisk : public DiskContract {};

INSTANTIATE_TEST_SUITE_P(All, RealDisk,
                         testing::Values(Half::kUring, Half::kUringBuffered, Half::kThreads),
                         half_name);

TEST_P(RealDisk, DoorbellRungWhileItSleepsEndsTheSleep) {
    const int wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ASSERT_GE(wake, 0);
    disk_->set_wake_descriptor(wake);
    HostClock clock;
    const std::uint64_t start_ns = clock.monotonic_ns();
    for (int round = 0; round < 3; ++round) {
        std::thread ringer([wake] {
            const std::uint64_t one = 1;
            CHECK(::write(wake, &one, sizeof one) == sizeof one);
        });
        disk_->poll(60 * kSecondNs);
        ringer.join();
        std::uint64_t count = 0;
        static_cast<void>(!::read(wake, &count, sizeof count));
    }
    EXPECT_LT(clock.monotonic_ns() - start_ns, 50 * kSecondNs);
    disk_->set_wake_descriptor(-1);
    disk_->poll(0);
    ::close(wake);
}

// A file that is long enough may have holes all the same: a cut that was cut off itself leaves
// them.
TEST_P(RealDisk, ExtendedFileHasItsBlocksWhereItHadHoles) {
    constexpr std::uint64_t kBytes = 1u << 20;
    grow(StoreFile::kData, 2 * kBytes);
    const auto taken = [&] {
        struct stat facts {};
        EXPECT_EQ(::stat(disk_->path(StoreFile::kData).c_str(), &facts), 0);
        return static_cast<std::uint64_t>(facts.st_blocks) * 512;
    };
    ASSERT_GE(taken(), 2 * kBytes);
    Request hole(Kind::kPunch, StoreFile::kData, kBytes, nullptr, kBytes);
    if (run(hole) == -EOPNOTSUPP) GTEST_SKIP() << "this file system has no holes";
    EXPECT_LT(taken(), 2 * kBytes);
    Request filled(Kind::kExtend, StoreFile::kData, kBytes, nullptr, kBytes);
    EXPECT_EQ(run(filled), static_cast<std::int64_t>(kBytes));
    EXPECT_GE(taken(), 2 * kBytes);
    EXPECT_EQ(*disk_->size_bytes(StoreFile::kData), 2 * kBytes);
}

TEST_P(RealDisk, ErrorsKeepTheirNumber) {
    AlignedBuffer out(kPageBytes);
    Request write(Kind::kWrite, StoreFile::kData, std::uint64_t{1} << 62, out.data(), kPageBytes);
    const std::int64_t result = run(write);
    EXPECT_TRUE(result == -EFBIG || result == -EINVAL) << result;
    const Failure failure = io_failure(*disk_, write);
    EXPECT_EQ(failure.code, Error::kIoError);
    EXPECT_NE(failure.what.find(directory_.path() + "/data"), std::string::npos) << failure.what;
    EXPECT_NE(failure.what.find("errno"), std::string::npos) << failure.what;
}

// What waits for the first of them goes on before the last one was looked at.
TEST_P(RealDisk, BurstOfReadsIsHandedOutSomeAtATime) {
    constexpr std::uint32_t kBurst = 5 * DoneRequests::kReadsTogether;
    grow(StoreFile::kData, kBurst * kPageBytes);
    AlignedBuffer bytes(kBurst * kPageBytes);
    std::deque<Request> requests;
    for (std::uint32_t i = 0; i < kBurst; ++i) {
        requests.emplace_back(Kind::kRead, StoreFile::kData, i * kPageBytes,
                              bytes.data() + i * kPageBytes, kPageBytes);
        disk_->submit(requests.back());
    }
    int run = 0;
    for (int polls = 0; disk_->in_flight() > 0 && polls < 100; ++polls) {
        const int some = disk_->poll(kSecondNs);
        EXPECT_LE(some, DoneRequests::kReadsTogether);
        run += some;
        // The others have ended, too.
        if (polls == 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    EXPECT_EQ(run, static_cast<int>(kBurst));
}

TEST_P(RealDisk, MayBeOpenedByOneThreadAndUsedByAnother) {
    std::thread user([this] {
        AlignedBuffer in(kPageBytes);
        Request read(Kind::kRead, StoreFile::kData, 0, in.data(), kPageBytes);
        EXPECT_EQ(run(read), -ENODATA);
        disk_.reset();
    });
    user.join();
}

TEST_P(RealDisk, DestroyedWithRequestsInFlightItWaitsForTheDevice) {
    constexpr std::uint32_t kCount = 64;
    grow(StoreFile::kData, kCount * kPageBytes);
    AlignedBuffer out(kCount * kPageBytes);
    std::vector<std::unique_ptr<Request>> requests;
    for (std::uint32_t i = 0; i < kCount; ++i) {
        const std::uint64_t at = std::uint64_t{i} * kPageBytes;
        requests.push_back(std::make_unique<Request>(Kind::kWrite, StoreFile::kData, at,
                                                     out.data() + at, kPageBytes));
        requests.back()->durable = true;
        disk_->submit(*requests.back());
    }
    disk_.reset();
    for (const auto& request : requests) {
        EXPECT_EQ(request->completions, 0);
        EXPECT_FALSE(request->in_flight);
    }
}

TEST_P(RealDisk, StoreHasOneOwner) {
    FileSet::Options impatient;
    impatient.lock_wait_ms = 0;
    const Result<FileSet> second = FileSet::open(directory_.path(), impatient);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error(), Error::kLocked);
    EXPECT_NE(second.failure().what.find(directory_.path() + "/data"), std::string::npos);
    disk_.reset();
    EXPECT_TRUE(FileSet::open(directory_.path(), impatient).ok());
}

// It was refused without a word, and every page read cost more from then on.
TEST(UringMemory, ThatMayNotBeLockedIsSaidWithTheRemedy) {
    if (const Status usable = UringDisk::probe(); !usable) GTEST_SKIP() << usable.failure().what;
    const WorkDirectory directory;
    Result<FileSet> files = FileSet::open(directory.path(), FileSet::Options{});
    ASSERT_TRUE(files.ok());
    AlignedBuffer memory(16u << 20);
    enum : int { kSaid, kOpen, kTaken, kSilent, kLimit };
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        // The limit is not for root.
        const rlimit small{64u << 10, 64u << 10};
        if (::setrlimit(RLIMIT_MEMLOCK, &small) != 0) ::_exit(kLimit);
        if (::geteuid() == 0 && ::setuid(65'534) != 0) ::_exit(kLimit);
        auto disk = UringDisk::open(std::move(*files), 16);
        if (!disk.ok()) ::_exit(kOpen);
        const auto known = (*disk)->register_memory(memory.data(), memory.size_bytes());
        if (known.ok()) ::_exit(*known ? kTaken : kSilent);
        ::_exit(known.failure().what.find("RLIMIT_MEMLOCK") != std::string::npos ? kSaid : kSilent);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), kSaid);
}

// ---- one operation at a time

// Takes requests and never answers.
class HungDisk final : public Disk {
  public:
    explicit HungDisk(SimClock& clock) : clock_(clock) {}
    void submit(DiskRequest& request) override {
        request.in_flight = true;
        held_ = &request;
    }
    int poll(std::uint64_t timeout_ns) override {
        clock_.advance_ns(timeout_ns);
        return 0;
    }
    std::uint32_t in_flight() const override { return held_ ? 1 : 0; }
    void set_wake_descriptor(int) override {}
    Result<std::uint64_t> size_bytes(StoreFile) override { return std::uint64_t{0}; }
    Status resize(StoreFile, std::uint64_t) override { return {}; }
    Result<bool> backed(StoreFile, std::uint64_t, std::uint64_t) override { return true; }
    std::string path(StoreFile) const override { return "hung"; }

  private:
    // The device has it for good, so it is given away for good: known to the leak checker.
    static inline DiskRequest* held_ = nullptr;
    SimClock& clock_;
};

TEST(BlockingIo, HungDeviceIsAnErrorAndNotAHang) {
    SimClock clock;
    HungDisk disk(clock);
    AlignedBuffer buffer(kPageBytes);
    BlockingIo io(disk, clock);
    const Status read = io.read(StoreFile::kLog, 0, buffer.data(), kPageBytes);
    EXPECT_EQ(read.error(), Error::kIoError);
    EXPECT_NE(read.failure().what.find("hung"), std::string::npos);
    EXPECT_TRUE(io.stuck());
    EXPECT_EQ(disk.in_flight(), 1u);
    EXPECT_EQ(io.sync(StoreFile::kLog).error(), Error::kIoError);
}

TEST(BlockingIo, TransfersOfAnySizeAndFailuresWithTheirPlace) {
    SimClock clock;
    SimDiskOptions options;
    options.clock = &clock;
    SimDisk disk(options);
    ASSERT_TRUE(disk.resize(StoreFile::kJournal, 2 * std::uint64_t{kMaxTransferBytes}).ok());
    BlockingIo io(disk, clock);
    AlignedBuffer out(kMaxTransferBytes + 2 * kPageBytes);
    AlignedBuffer in(kMaxTransferBytes + 2 * kPageBytes);
    fill(out, 4);
    const StoreFile file = StoreFile::kJournal;
    ASSERT_TRUE(io.write(file, kPageBytes, out.data(), out.size_bytes(), false).ok());
    ASSERT_TRUE(io.sync(file).ok());
    ASSERT_TRUE(io.read(file, kPageBytes, in.data(), in.size_bytes()).ok());
    EXPECT_TRUE(same(out, in));
    disk.fail_at(disk.steps() + 1, ENOSPC);
    const Status full = io.write(StoreFile::kJournal, 8192, out.data(), kPageBytes, true);
    EXPECT_EQ(full.error(), Error::kNoSpace);
    EXPECT_NE(full.failure().what.find("offset 8192"), std::string::npos) << full.failure().what;
    EXPECT_EQ(io.read(StoreFile::kData, 0, in.data(), kPageBytes).error(), Error::kIoError);
}

}  // namespace
}  // namespace bidstore
