#include "shm/key_directory.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace bidstore {
namespace {

constexpr TableId kTable{16};
constexpr std::uint32_t kPages = 1024;

// Both sides of a directory of its own, over a page map of its own.
struct TestDirectory {
    explicit TestDirectory(std::uint64_t buckets)
        : bucket(buckets),
          page_map(kPages),
          writer(bucket.data(), buckets, page_map.data(), kPages),
          reader(bucket.data(), buckets) {}

    static std::array<std::byte, 64> key(std::uint64_t number) {
        std::array<std::byte, 64> bytes{};
        std::memcpy(bytes.data(), &number, sizeof number);
        return bytes;
    }
    void enter(std::uint64_t number, PageId leaf, std::uint32_t row = 0, std::size_t size = 16,
               TableId table = kTable) {
        writer.enter(table, key(number).data(), size, leaf, row);
    }
    void forget(std::uint64_t number, PageId leaf) {
        writer.forget(kTable, key(number).data(), 16, leaf);
    }
    RowHint find(std::uint64_t number, std::size_t size = 16, TableId table = kTable) {
        writer.settle();
        const auto bytes = key(number);
        return reader.find(reader.aim(table, bytes.data(), size));
    }

    std::vector<DirectoryBucket> bucket;
    std::vector<PageMapEntry> page_map;
    KeyDirectoryWriter writer;
    KeyDirectory reader;
};

TEST(KeyDirectory, LeadsToWhatWasEnteredForKeysOfEveryLength) {
    TestDirectory test(1024);
    for (const std::size_t size : {1u, 2u, 4u, 8u, 9u, 15u, 16u, 17u, 33u, 64u}) {
        for (std::uint64_t number = 0; number < 100; ++number) {
            test.enter(number, PageId{static_cast<std::uint32_t>(number + size)},
                       static_cast<std::uint32_t>(number), size);
        }
    }
    for (const std::size_t size : {1u, 2u, 4u, 8u, 9u, 15u, 16u, 17u, 33u, 64u}) {
        for (std::uint64_t number = 0; number < 100; ++number) {
            const RowHint hint = test.find(number, size);
            EXPECT_EQ(hint.leaf.value, number + size) << size;
            EXPECT_EQ(hint.row, number) << size;
        }
    }
    EXPECT_FALSE(test.find(100).leaf) << "a key that nobody entered";
}

TEST(KeyDirectory, KeepsTheSameKeyOfTwoTablesApart) {
    TestDirectory test(64);
    test.enter(7, PageId{1}, 0, 16, TableId{16});
    test.enter(7, PageId{2}, 0, 16, TableId{17});
    EXPECT_EQ(test.find(7, 16, TableId{16}).leaf, PageId{1});
    EXPECT_EQ(test.find(7, 16, TableId{17}).leaf, PageId{2});
    EXPECT_FALSE(test.find(7, 16, TableId{18}).leaf);
}

TEST(KeyDirectory, ARowThatMovesTakesItsEntryAlong) {
    TestDirectory test(64);
    test.enter(7, PageId{1}, 3);
    test.enter(7, PageId{2}, 300);
    EXPECT_EQ(test.find(7).leaf, PageId{2});
    EXPECT_EQ(test.find(7).row, 300u % 256);
    EXPECT_EQ(test.writer.entered(), 1u);
}

TEST(KeyDirectory, ForgetsARowThatLeftButNotOneThatMovedOn) {
    TestDirectory test(64);
    test.enter(7, PageId{1});
    test.enter(7, PageId{2});
    test.forget(7, PageId{1});
    EXPECT_EQ(test.find(7).leaf, PageId{2});
    test.forget(7, PageId{2});
    EXPECT_FALSE(test.find(7).leaf);
    EXPECT_EQ(test.writer.entered(), 0u);
    test.forget(8, PageId{2});  // never was there
    EXPECT_EQ(test.writer.entered(), 0u);
}

// At six of ten places in use nearly every key finds one; only full pairs of buckets displace.
TEST(KeyDirectory, AtASensibleFillNearlyAllKeysAreFound) {
    constexpr std::uint64_t kBuckets = 1024;
    TestDirectory test(kBuckets);
    constexpr std::uint64_t kKeys = kBuckets * kBucketEntries * 6 / 10;
    for (std::uint64_t i = 0; i < kKeys; ++i) test.enter(i, PageId{1});
    std::uint64_t found = 0;
    for (std::uint64_t i = 0; i < kKeys; ++i) found += test.find(i).leaf == PageId{1};
    EXPECT_GE(found, kKeys * 99 / 100);
    EXPECT_EQ(found, kKeys - test.writer.displaced());
    EXPECT_EQ(test.writer.entered(), found);
}

// A batch that ends brings the lines of what was told so far, and writes nothing of it.
TEST(KeyDirectory, LosesNoNewsWhereverLinesAreFetched) {
    for (std::uint64_t before = 0; before < 64; ++before) {
        TestDirectory test(1024);
        std::uint64_t key = 0;
        const auto tell = [&](std::uint64_t count) {
            for (const std::uint64_t end = key + count; key < end; ++key) {
                test.enter(key, PageId{1});
            }
        };
        tell(before);
        test.writer.fetch();
        tell(40);
        test.writer.settle();
        EXPECT_EQ(test.writer.entered(), before + 40) << before;
    }
}

TEST(KeyDirectory, TooFewPlacesKeepTheNewestKeys) {
    TestDirectory test(2);
    for (std::uint64_t i = 0; i < 1000; ++i) {
        test.enter(i, PageId{1});
        EXPECT_EQ(test.find(i).leaf, PageId{1}) << i;
    }
    EXPECT_EQ(test.writer.entered(), 2 * kBucketEntries);
    EXPECT_EQ(test.writer.displaced(), 1000 - 2 * kBucketEntries);
}

// Half of the entries lead to a page that is in the pool: these stay, whatever comes.
TEST(KeyDirectory, DisplacesEntriesOfPagesThatAreNotInThePool) {
    TestDirectory test(2);
    test.page_map[1].store(5);
    for (std::uint64_t i = 0; i < 2 * kBucketEntries; ++i)
        test.enter(i, PageId{1u + static_cast<std::uint32_t>(i % 2)});
    test.writer.settle();
    for (std::uint64_t i = 0; i < 8; ++i) {
        test.enter(1000 + i, PageId{1});
        test.writer.settle();
    }
    std::uint32_t kept = 0;
    for (std::uint64_t i = 0; i < 2 * kBucketEntries; i += 2)
        kept += test.find(i).leaf == PageId{1};
    EXPECT_GE(kept, kBucketEntries * 3 / 4) << "a search looks at a few places only";
}

// Any bytes in the directory: the reader gets some hint or none, the writer goes on.
TEST(KeyDirectory, GarbageIsAHintAsGoodAsAny) {
    TestDirectory test(8);
    std::mt19937_64 random(1);
    for (int round = 0; round < 200; ++round) {
        for (DirectoryBucket& bucket : test.bucket) {
            for (auto& entry : bucket.entry) entry.store(random() << (random() % 64));
        }
        for (std::uint64_t i = 0; i < 50; ++i) {
            (void)test.find(i);
            test.enter(i, PageId{static_cast<std::uint32_t>(i + 1)}, 9);
            EXPECT_EQ(test.find(i).leaf.value, i + 1);
            if (i % 3 == 0) test.forget(i, PageId{static_cast<std::uint32_t>(i + 1)});
        }
        test.writer.settle();
    }
}

// One word is one entry: a reader beside the writer sees the old place or the new one.
TEST(KeyDirectory, AReaderBesideTheWriterNeverSeesAMixture) {
    TestDirectory test(2);
    test.enter(7, PageId{1}, 1);
    test.writer.settle();
    std::atomic<bool> stop{false};
    std::thread reader([&] {
        const auto bytes = TestDirectory::key(7);
        while (!stop) {
            const RowHint hint = test.reader.find(test.reader.aim(kTable, bytes.data(), 16));
            EXPECT_EQ(hint.leaf.value, hint.row);
            EXPECT_TRUE(hint.leaf);
        }
    });
    for (std::uint32_t i = 0; i < 200'000; ++i) {
        test.enter(7, PageId{1 + i % 200}, 1 + i % 200);
        test.writer.settle();
    }
    stop = true;
    reader.join();
}

}  // namespace
}  // namespace bidstore
