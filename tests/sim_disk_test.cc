// The simulated disk does what its fault model says, and no more: crash tests are worth what it is.
#include "tests/sim_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"

namespace bidstore {
namespace {

using Kind = DiskRequest::Kind;

struct Write {
    AlignedBuffer buffer{kPageBytes};
    DiskRequest request;

    Write(std::uint64_t page, char fill, bool durable = false) {
        std::memset(buffer.data(), fill, kPageBytes);
        request.kind = Kind::kWrite;
        request.offset_bytes = page * kPageBytes;
        request.length_bytes = kPageBytes;
        request.buffer = buffer.data();
        request.durable = durable;
        request.completed = [](DiskRequest&, void*) {};
    }
};

class SimDiskTest : public testing::Test {
  protected:
    SimDiskTest() : disk_(options()), io_(disk_, clock_) {
        EXPECT_TRUE(disk_.resize(StoreFile::kData, 16 * kPageBytes).ok());
        put(0, 'a');
        EXPECT_TRUE(io_.sync(StoreFile::kData).ok());
    }
    SimDiskOptions options() {
        SimDiskOptions options;
        options.clock = &clock_;
        return options;
    }
    void put(std::uint64_t page, char fill, bool durable = false) {
        Write write(page, fill, durable);
        EXPECT_TRUE(io_.write(StoreFile::kData, page * kPageBytes, write.buffer.data(), kPageBytes,
                              durable)
                        .ok());
    }
    // One letter per sector of the page; '.' for zeros, '?' for a sector that is not of one letter.
    static std::string page(const SimDisk& disk, std::uint64_t number) {
        const std::vector<std::byte> bytes = disk.peek(StoreFile::kData, number * kPageBytes, 4096);
        std::string text;
        for (std::size_t at = 0; at < bytes.size(); at += kSectorBytes) {
            char letter = static_cast<char>(bytes[at]);
            for (std::size_t i = 0; i < kSectorBytes; ++i) {
                if (bytes[at + i] != bytes[at]) letter = '?';
            }
            text += letter == '\0' ? '.' : letter;
        }
        return text;
    }
    std::set<std::string> outcomes(const SimDisk& disk, std::uint64_t number) const {
        std::set<std::string> all;
        for (std::uint64_t seed = 0; seed < 500; ++seed) {
            all.insert(page(*disk.power_loss(seed), number));
        }
        return all;
    }

    SimClock clock_;
    SimDisk disk_;
    BlockingIo io_;
};

TEST_F(SimDiskTest, UnsyncedWriteIsKeptDroppedOrTornAtSectors) {
    put(0, 'b');
    EXPECT_EQ(page(disk_, 0), "bbbbbbbb");
    const std::set<std::string> all = outcomes(disk_, 0);
    EXPECT_TRUE(all.contains("aaaaaaaa"));
    EXPECT_TRUE(all.contains("bbbbbbbb"));
    EXPECT_GT(all.size(), 20u);
    for (const std::string& each : all) {
        EXPECT_EQ(each.find_first_not_of("ab"), std::string::npos) << each;
    }
}

TEST_F(SimDiskTest, SectorMayKeepAnyValueWrittenSinceTheLastSync) {
    put(0, 'b');
    put(0, 'c');
    const std::set<std::string> all = outcomes(disk_, 0);
    EXPECT_TRUE(all.contains("aaaaaaaa"));
    EXPECT_TRUE(all.contains("bbbbbbbb"));
    EXPECT_TRUE(all.contains("cccccccc"));
}

TEST_F(SimDiskTest, LaterWriteMayArriveWithoutTheEarlierOne) {
    put(1, 'x');
    put(2, 'y');
    bool seen = false;
    for (std::uint64_t seed = 0; seed < 500; ++seed) {
        const auto disk = disk_.power_loss(seed);
        seen |= page(*disk, 1) == "........" && page(*disk, 2) == "yyyyyyyy";
    }
    EXPECT_TRUE(seen);
}

TEST_F(SimDiskTest, SyncedAndDurableWritesSurvive) {
    put(1, 'x');
    ASSERT_TRUE(io_.sync(StoreFile::kData).ok());
    put(2, 'y', true);
    EXPECT_EQ(disk_.unsynced_sectors(), 0u);
    EXPECT_EQ(outcomes(disk_, 1), std::set<std::string>{"xxxxxxxx"});
    EXPECT_EQ(outcomes(disk_, 2), std::set<std::string>{"yyyyyyyy"});
}

TEST_F(SimDiskTest, SyncOfOneFileSyncsNoOther) {
    put(1, 'x');
    ASSERT_TRUE(io_.sync(StoreFile::kLog).ok());
    EXPECT_EQ(disk_.unsynced_sectors(), 8u);
}

TEST_F(SimDiskTest, SyncCoversWhatHadCompletedWhenItWasSubmitted) {
    SimDiskOptions in_order = options();
    in_order.reorder = false;
    SimDisk disk(in_order);
    ASSERT_TRUE(disk.resize(StoreFile::kData, 4 * kPageBytes).ok());
    Write before(0, 'b');
    disk.submit(before.request);
    disk.poll(0);
    Write meanwhile(1, 'm');
    disk.submit(meanwhile.request);
    DiskRequest sync;
    sync.kind = Kind::kSync;
    sync.completed = [](DiskRequest&, void*) {};
    disk.submit(sync);
    disk.poll(0);
    ASSERT_EQ(disk.in_flight(), 0u);
    EXPECT_EQ(outcomes(disk, 0), std::set<std::string>{"bbbbbbbb"});
    EXPECT_GT(outcomes(disk, 1).size(), 10u);
}

TEST_F(SimDiskTest, DurableWriteInFlightMayBeTorn) {
    Write write(0, 'b', true);
    disk_.submit(write.request);
    disk_.crash_now();
    EXPECT_GT(outcomes(disk_, 0).size(), 20u);
    while (disk_.in_flight() > 0) disk_.poll(1);
    EXPECT_EQ(write.request.result, -EIO);
    EXPECT_GT(outcomes(disk_, 0).size(), 20u);  // what came after the crash changed nothing
}

TEST_F(SimDiskTest, ProcessCrashKeepsTheCacheUnsynced) {
    put(0, 'b');
    const auto next = disk_.process_crash(7);
    EXPECT_EQ(page(*next, 0), "bbbbbbbb");
    EXPECT_EQ(next->unsynced_sectors(), 8u);
    EXPECT_TRUE(outcomes(*next, 0).contains("aaaaaaaa"));
}

TEST_F(SimDiskTest, CrashAtAStepHappensBeforeItsEffect) {
    Write write(0, 'b', true);
    disk_.crash_at(disk_.steps() + 2);  // 1: submit, 2: completion
    disk_.submit(write.request);
    while (disk_.in_flight() > 0) disk_.poll(1);
    EXPECT_TRUE(disk_.crashed());
    EXPECT_EQ(write.request.result, -EIO);
    EXPECT_TRUE(outcomes(disk_, 0).contains("aaaaaaaa"));
    EXPECT_TRUE(outcomes(disk_, 0).contains("bbbbbbbb"));
    EXPECT_EQ(disk_.resize(StoreFile::kData, kPageBytes).error(), Error::kIoError);
}

TEST_F(SimDiskTest, FailedWriteMayHaveHappenedInPart) {
    disk_.fail_at(disk_.steps() + 1, EIO);
    Write write(0, 'b');
    disk_.submit(write.request);
    while (disk_.in_flight() > 0) disk_.poll(1);
    EXPECT_EQ(write.request.result, -EIO);
    EXPECT_EQ(page(disk_, 0).find_first_not_of("ab"), std::string::npos);
}

// A page cache that could not write a page may keep it as if it had.
TEST_F(SimDiskTest, PageCacheMayTakeWhatItCouldNotWriteForClean) {
    for (const bool sync_fails : {true, false}) {
        std::set<bool> forgot;
        for (std::uint64_t seed = 1; seed <= 60; ++seed) {
            SimDiskOptions with_cache = options();
            with_cache.seed = seed;
            with_cache.page_cache = true;
            SimDisk disk(with_cache);
            ASSERT_TRUE(disk.resize(StoreFile::kData, kPageBytes).ok());
            BlockingIo io(disk, clock_);
            Write write(0, 'b');
            disk.fail_at(disk.steps() + (sync_fails ? 3 : 1), EIO);
            const bool written =
                io.write(StoreFile::kData, 0, write.buffer.data(), kPageBytes, false).ok();
            EXPECT_EQ(written, sync_fails);
            const bool synced = io.sync(StoreFile::kData).ok();
            EXPECT_EQ(synced, !sync_fails);
            if (page(disk, 0) != "bbbbbbbb") continue;  // of a failed write, a part

            const auto next = disk.process_crash(7);
            EXPECT_EQ(page(*next, 0), "bbbbbbbb");
            BlockingIo next_io(*next, clock_);
            EXPECT_TRUE(next_io.sync(StoreFile::kData).ok());
            EXPECT_EQ(page(*next, 0), "bbbbbbbb");
            EXPECT_EQ(outcomes(*next, 0).contains("........"), disk.taken_for_clean() == 1);
            forgot.insert(disk.taken_for_clean() == 1);
            // Written again, it is as any other.
            EXPECT_TRUE(
                next_io.write(StoreFile::kData, 0, write.buffer.data(), kPageBytes, false).ok());
            EXPECT_TRUE(next_io.sync(StoreFile::kData).ok());
            EXPECT_EQ(outcomes(*next, 0), std::set<std::string>{"bbbbbbbb"});
        }
        EXPECT_EQ(forgot.size(), 2u);
    }
}

TEST_F(SimDiskTest, LostAndMisdirectedWritesReportSuccess) {
    disk_.lose_at(disk_.steps() + 1);
    put(0, 'b', true);
    EXPECT_EQ(page(disk_, 0), "aaaaaaaa");
    disk_.misdirect_at(disk_.steps() + 1, 5 * kPageBytes);
    put(0, 'c', true);
    EXPECT_EQ(page(disk_, 0), "aaaaaaaa");
    EXPECT_EQ(page(disk_, 5), "cccccccc");
}

TEST_F(SimDiskTest, BitsRotInCacheAndOnDisk) {
    put(0, 'b');
    disk_.flip(StoreFile::kData, 100, 3);
    EXPECT_EQ(page(disk_, 0), "?bbbbbbb");
    for (const std::string& each : outcomes(disk_, 0)) EXPECT_EQ(each[0], '?');
}

TEST_F(SimDiskTest, BadRangeFailsReadsUntilCleared) {
    disk_.bad_range(StoreFile::kData, 100, 1, EIO);
    AlignedBuffer in(kPageBytes);
    EXPECT_EQ(io_.read(StoreFile::kData, 0, in.data(), kPageBytes).error(), Error::kIoError);
    EXPECT_TRUE(io_.read(StoreFile::kData, kPageBytes, in.data(), kPageBytes).ok());
    disk_.clear_bad_ranges();
    EXPECT_TRUE(io_.read(StoreFile::kData, 0, in.data(), kPageBytes).ok());
}

TEST_F(SimDiskTest, FullDiskLeavesTheFileAsItWas) {
    disk_.set_capacity_bytes(20 * kPageBytes);
    EXPECT_EQ(disk_.resize(StoreFile::kLog, 8 * kPageBytes).error(), Error::kNoSpace);
    EXPECT_EQ(*disk_.size_bytes(StoreFile::kLog), 0u);
    EXPECT_TRUE(disk_.resize(StoreFile::kLog, 4 * kPageBytes).ok());
}

TEST_F(SimDiskTest, ResizeCutOffLeavesASizeBetween) {
    std::set<std::uint64_t> sizes;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        const auto disk = disk_.clone(seed);
        disk->crash_at(2);
        EXPECT_FALSE(disk->resize(StoreFile::kData, 20 * kPageBytes).ok());
        sizes.insert(*disk->power_loss(seed)->size_bytes(StoreFile::kData) / kPageBytes);
    }
    EXPECT_EQ(sizes, (std::set<std::uint64_t>{16, 17, 18, 19, 20}));
}

TEST_F(SimDiskTest, GrowthIsDurableWithTheNextSyncAndNotBefore) {
    Write zeros(16, 0);
    zeros.request.kind = Kind::kGrow;
    disk_.submit(zeros.request);
    while (disk_.in_flight() > 0) disk_.poll(1);
    EXPECT_EQ(*disk_.size_bytes(StoreFile::kData), 17 * kPageBytes);
    std::set<std::uint64_t> sizes;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        sizes.insert(*disk_.power_loss(seed)->size_bytes(StoreFile::kData) / kPageBytes);
    }
    EXPECT_EQ(sizes, (std::set<std::uint64_t>{16, 17}));
    EXPECT_TRUE(io_.sync(StoreFile::kData).ok());
    EXPECT_EQ(*disk_.power_loss(1)->size_bytes(StoreFile::kData), 17 * kPageBytes);
}

TEST_F(SimDiskTest, GrowthOnAFullDiskTakesWhatThereIsAndFails) {
    disk_.set_capacity_bytes(17 * kPageBytes);
    AlignedBuffer zeros(4 * kPageBytes);
    Write write(16, 0);
    write.request.kind = Kind::kGrow;
    write.request.buffer = zeros.data();
    write.request.length_bytes = 4 * kPageBytes;
    disk_.submit(write.request);
    while (disk_.in_flight() > 0) disk_.poll(1);
    EXPECT_EQ(write.request.result, -ENOSPC);
    EXPECT_EQ(*disk_.size_bytes(StoreFile::kData), 17 * kPageBytes);
}

// As what a real disk makes of a short transfer: parts, with other operations in between.
TEST_F(SimDiskTest, TransferInPartsIsWholeInTheEndAndAPrefixBefore) {
    disk_.transfer_in_parts(1);
    put(1, 'b', true);
    put(2, 'c');
    EXPECT_EQ(page(disk_, 1), "bbbbbbbb");
    EXPECT_EQ(page(disk_, 2), "cccccccc");
    AlignedBuffer in(2 * kPageBytes);
    ASSERT_TRUE(io_.read(StoreFile::kData, kPageBytes, in.data(), 2 * kPageBytes).ok());
    EXPECT_EQ(std::memcmp(in.data(), disk_.peek(StoreFile::kData, kPageBytes, 8'192).data(), 8'192),
              0);
    std::uint64_t before = disk_.parts();
    EXPECT_GT(before, 2u);
    std::set<std::string> found;
    for (int i = 0; i < 30; ++i) {
        put(3, '.', true);
        Write write(3, 'd', true);
        disk_.submit(write.request);
        before = disk_.parts();
        while (write.request.in_flight && disk_.parts() == before) disk_.poll(1);
        // A durable part is there after power loss; of the rest, any sectors.
        const std::string now = page(disk_, 3);
        const std::size_t part = now.find_first_not_of('d');
        EXPECT_EQ(now.find('d', part), std::string::npos) << now;
        EXPECT_EQ(page(*disk_.power_loss(static_cast<std::uint64_t>(i)), 3).substr(0, part),
                  now.substr(0, part));
        found.insert(now);
        while (write.request.in_flight) disk_.poll(1);
        EXPECT_EQ(page(disk_, 3), "dddddddd");
        EXPECT_EQ(write.request.result, kPageBytes);
    }
    EXPECT_GT(found.size(), 3u);
}

TEST_F(SimDiskTest, SameSeedGivesTheSameRun) {
    const auto trace = [](std::uint64_t seed) {
        SimClock clock;
        SimDiskOptions options;
        options.seed = seed;
        options.clock = &clock;
        SimDisk disk(options);
        EXPECT_TRUE(disk.resize(StoreFile::kData, 16 * kPageBytes).ok());
        std::vector<std::unique_ptr<Write>> writes;
        std::vector<std::uint64_t> order;
        for (std::uint64_t i = 0; i < 16; ++i) {
            writes.push_back(std::make_unique<Write>(i, 'w'));
            writes.back()->request.context = &order;
            writes.back()->request.completed = [](DiskRequest& request, void* context) {
                static_cast<std::vector<std::uint64_t>*>(context)->push_back(request.offset_bytes);
            };
            disk.submit(writes.back()->request);
        }
        while (disk.in_flight() > 0) disk.poll(0);
        order.push_back(clock.monotonic_ns());
        return order;
    };
    EXPECT_EQ(trace(5), trace(5));
    EXPECT_NE(trace(5), trace(6));
}

TEST_F(SimDiskTest, ChangedBufferOfAWriteInFlightIsCaught) {
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    EXPECT_DEATH(
        {
            Write write(0, 'b');
            disk_.submit(write.request);
            std::memset(write.buffer.data(), 'x', 1);
            while (disk_.in_flight() > 0) disk_.poll(1);
        },
        "CHECK failed");
}

}  // namespace
}  // namespace bidstore
