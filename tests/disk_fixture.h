// Every disk that there is, one at a time, for the tests of their contract.
//
// Who: disk_test.cc.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "engine/aligned_buffer.h"
#include "engine/file_set.h"
#include "engine/thread_disk.h"
#include "engine/uring_disk.h"
#include "tests/failpoint_disk.h"
#include "tests/processes.h"
#include "tests/short_transfers.h"
#include "tests/sim_disk.h"

namespace bidstore {

inline constexpr std::uint64_t kSecondNs = 1'000'000'000;

struct Request : DiskRequest {
    int completions = 0;
    std::function<void()> then;

    Request(Kind what, StoreFile where, std::uint64_t offset, std::byte* bytes,
            std::uint32_t length) {
        kind = what;
        file = where;
        offset_bytes = offset;
        buffer = bytes;
        length_bytes = length;
        context = this;
        completed = [](DiskRequest& request, void* self_context) {
            Request& self = *static_cast<Request*>(self_context);
            EXPECT_EQ(&self, &request);
            EXPECT_FALSE(request.in_flight);
            ++self.completions;
            if (self.then) self.then();
        };
    }
};

inline void fill(AlignedBuffer& buffer, unsigned seed) {
    for (std::size_t i = 0; i < buffer.size_bytes(); ++i) {
        buffer.data()[i] = static_cast<std::byte>(seed + i * 7 + i / 4096);
    }
}

inline bool same(const AlignedBuffer& left, const AlignedBuffer& right) {
    return std::memcmp(left.data(), right.data(), left.size_bytes()) == 0;
}

enum class Half {
    kUring,
    kUringBuffered,
    kUringShort,  // the kernel transfers less than asked
    kThreads,
    kThreadsShort,
    kSimulated,
    kFailpoint
};

inline std::string half_name(const testing::TestParamInfo<Half>& half) {
    switch (half.param) {
        case Half::kUring:
            return "Uring";
        case Half::kUringBuffered:
            return "UringBuffered";
        case Half::kUringShort:
            return "UringShort";
        case Half::kThreadsShort:
            return "ThreadsShort";
        case Half::kThreads:
            return "Threads";
        case Half::kSimulated:
            return "Simulated";
        case Half::kFailpoint:
            return "Failpoint";
    }
    return "";
}

// What direct I/O here is done in: 512 bytes, or whole pages.
inline std::uint32_t direct_unit_bytes(const std::string& path) {
    const Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600));
    AlignedBuffer page(kPageBytes);
    if (!file) return kSectorBytes;  // buffered, in any unit
    EXPECT_EQ(::pwrite(file.number(), page.data(), kPageBytes, 0), ssize_t{kPageBytes});
    const ssize_t read = ::pread(file.number(), page.data(), kSectorBytes, kSectorBytes);
    return read == ssize_t{kSectorBytes} ? kSectorBytes : kPageBytes;
}

class DiskContract : public testing::TestWithParam<Half> {
  protected:
    void SetUp() override {
        if (uring()) {
            if (const Status usable = UringDisk::probe(); !usable) {
                GTEST_SKIP() << usable.failure().what;
            }
        }
        disk_ = open();
        const bool shorter = GetParam() == Half::kUringShort || GetParam() == Half::kThreadsShort;
        if (shorter) ShortTransfers::set_unit(direct_unit_bytes(directory_.file("unit")));
    }
    void TearDown() override { ShortTransfers::set_unit(0); }

    static bool uring() {
        return GetParam() == Half::kUring || GetParam() == Half::kUringBuffered ||
               GetParam() == Half::kUringShort;
    }

    std::unique_ptr<Disk> open() {
        if (GetParam() == Half::kSimulated) {
            SimDiskOptions options;
            options.clock = &sim_clock_;
            return std::make_unique<SimDisk>(options);
        }
        FileSet::Options options;
        options.direct = GetParam() != Half::kUringBuffered;
        Result<FileSet> files = FileSet::open(directory_.path(), options);
        CHECK(files.ok());
        Result<std::unique_ptr<Disk>> disk =
            uring() ? UringDisk::open(std::move(*files), 16) : ThreadDisk::open(std::move(*files));
        CHECK(disk.ok());
        if (GetParam() == Half::kFailpoint) {
            return std::make_unique<FailpointDisk>(std::move(*disk), directory_.path());
        }
        return std::move(*disk);
    }

    // Polls until the request is done; a hang is the test's timeout.
    std::int64_t finish(Request& request) {
        while (request.in_flight) disk_->poll(kSecondNs);
        EXPECT_EQ(request.completions, 1);
        return request.result;
    }
    std::int64_t run(Request& request) {
        request.completions = 0;
        disk_->submit(request);
        return finish(request);
    }
    void grow(StoreFile file, std::uint64_t bytes) {
        const Status grown = disk_->resize(file, bytes);
        ASSERT_TRUE(grown.ok()) << grown.failure().what;
    }

    WorkDirectory directory_;
    SimClock sim_clock_;
    std::unique_ptr<Disk> disk_;
};

}  // namespace bidstore
