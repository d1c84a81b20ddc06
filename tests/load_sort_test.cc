// Sorting for bulk loads: with and without runs, the same rows come out, in order, once.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>

#include "clientlib/load_sort.h"

namespace bidstore {
namespace {

using Rows = std::map<std::vector<std::byte>, std::vector<std::byte>>;

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t length, int values) {
    std::vector<std::byte> bytes(length);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random() % values);
    return bytes;
}

Status add_all(RowSorter& sorter, std::uint32_t key_bytes, int values, std::uint32_t count,
               Rows& rows) {
    std::mt19937_64 random(key_bytes);
    for (std::uint32_t i = 0; i < count; ++i) {
        const auto key = random_bytes(random, key_bytes, values);
        const std::vector<std::byte> value(random() % 300, static_cast<std::byte>(random()));
        rows[key] = value;
        if (Status added = sorter.add(key, value); !added) return added;
    }
    return {};
}

// A load whose rows are sorted says meanwhile that more come: nowhere may that take long in one go.
TEST(RowSorter, SaysThatItIsAtWorkWhileItGivesNoRows) {
    int calls = 0;
    RowSorter sorter(8, 4u << 20, "/var/tmp", true, [&] {
        ++calls;
        return Status{};
    });
    const std::vector<std::byte> value(400);
    const auto add = [&](std::uint32_t count) {
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::vector<std::byte> key(8);  // one for all: the last row alone is given
            ASSERT_TRUE(sorter.add(key, value).ok());
        }
    };
    add(5'000);
    EXPECT_EQ(calls, 0);
    while (sorter.runs() == 0) add(1);
    EXPECT_GE(calls, 2 + 2) << "around sorting, and while some MiB are written";
    add(50'000);
    const int before = calls;
    int rows = 0;
    const Status drained = sorter.drain([&](auto, auto) {
        ++rows;
        return Status{};
    });
    EXPECT_TRUE(drained.ok());
    EXPECT_EQ(rows, 1);
    EXPECT_GE(calls - before, 2 + 50'000 / 10'000) << "while rows are left out";
}

// In memory alone, too; and who says no ends it.
TEST(RowSorter, EndsWithWhatItIsToldMeanwhile) {
    for (const std::uint64_t memory : {64u << 20, 1u << 20}) {
        SCOPED_TRACE(memory);
        bool refuse = false;
        RowSorter sorter(8, memory, "/var/tmp", true, [&]() -> Status {
            return refuse ? Status(Error::kTimedOut, "given up") : Status{};
        });
        Rows rows;
        ASSERT_TRUE(add_all(sorter, 8, 256, 20'000, rows).ok());
        refuse = true;
        const Status drained = sorter.drain([](auto, auto) { return Status{}; });
        EXPECT_EQ(drained.error(), Error::kTimedOut);
    }
}

TEST(RowSorter, GivesTheLastRowOfEachKeyInOrder) {
    for (const std::uint32_t key_bytes : {3u, 11u}) {
        for (const std::uint64_t memory : {64u << 20, 1u << 20}) {
            SCOPED_TRACE(std::to_string(key_bytes) + " bytes, memory " + std::to_string(memory));
            RowSorter sorter(key_bytes, memory, "/var/tmp", true);
            Rows rows;
            ASSERT_TRUE(add_all(sorter, key_bytes, key_bytes < 8 ? 256 : 4, 20'000, rows).ok());
            EXPECT_EQ(sorter.runs() > 2, memory == 1u << 20);
            auto expected = rows.begin();
            const Status drained = sorter.drain([&](auto key, auto value) -> Status {
                if (expected == rows.end() ||
                    !std::equal(key.begin(), key.end(), expected->first.begin()) ||
                    !std::equal(value.begin(), value.end(), expected->second.begin(),
                                expected->second.end())) {
                    return {Error::kCorruption, "another row was expected"};
                }
                ++expected;
                return {};
            });
            EXPECT_TRUE(drained.ok()) << drained.failure().what;
            EXPECT_EQ(expected, rows.end());
        }
    }
}

TEST(RowSorter, NamesAKeyThatIsThereTwice) {
    for (const std::uint32_t between : {0u, 20'000u}) {  // in one run, in two
        RowSorter sorter(16, 1u << 20, "/var/tmp", false);
        Rows rows;
        const std::vector<std::byte> key(16, std::byte{0xab});
        ASSERT_TRUE(sorter.add(key, key).ok());
        ASSERT_TRUE(add_all(sorter, 16, 256, between, rows).ok());
        ASSERT_TRUE(sorter.add(key, key).ok());
        const Status drained = sorter.drain([](auto, auto) { return Status(); });
        EXPECT_EQ(drained.error(), Error::kExists);
        EXPECT_NE(drained.failure().what.find("abababab"), std::string::npos);
    }
}

// It was said to name another directory, which does not help.
TEST(RowSorter, NamesTheMemoryWhenThereAreMoreRunsThanFilesMayBeOpen) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    rlimit few = before;
    few.rlim_cur = 12;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    RowSorter sorter(16, 1u << 20, "/var/tmp", false);
    Rows rows;
    const Status added = add_all(sorter, 16, 256, 100'000, rows);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_EQ(added.error(), Error::kTooLarge);
    EXPECT_NE(added.failure().what.find("--memory"), std::string::npos);
    EXPECT_EQ(added.failure().what.find("--temp-dir"), std::string::npos);
}

TEST(RowSorter, SaysThatTheDirectoryIsNotThere) {
    RowSorter sorter(16, 1u << 20, "/var/tmp/no-such-directory", false);
    Rows rows;
    const Status added = add_all(sorter, 16, 256, 20'000, rows);
    EXPECT_EQ(added.error(), Error::kIoError);
    EXPECT_NE(added.failure().what.find("--temp-dir"), std::string::npos);
}

// The newest file of this process without a name.
int unnamed_file() {
    int newest = -1;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code ignored;
        const std::string file = std::filesystem::read_symlink(entry.path(), ignored);
        const bool ours = file.starts_with("/var/tmp/#") && file.ends_with(" (deleted)");
        if (ours) newest = std::max(newest, std::stoi(entry.path().filename()));
    }
    return newest;
}

// The end of the file was taken for the end of the run, and the load said that all was well.
TEST(RowSorter, AFileThatEndsTooEarlyIsAnError) {
    for (const off_t missing : {off_t{1}, off_t{300'000}, off_t{-1}}) {  // -1: all of it
        RowSorter sorter(16, 1u << 20, "/var/tmp", true);
        Rows rows;
        ASSERT_TRUE(add_all(sorter, 16, 256, 20'000, rows).ok());
        const int descriptor = unnamed_file();
        ASSERT_GE(descriptor, 0);
        const off_t size = ::lseek(descriptor, 0, SEEK_END);
        ASSERT_GT(size, 300'000);
        ASSERT_EQ(::ftruncate(descriptor, missing < 0 ? 0 : size - missing), 0);
        ASSERT_EQ(::lseek(descriptor, 0, SEEK_SET), 0);
        const Status drained = sorter.drain([](auto, auto) { return Status(); });
        EXPECT_EQ(drained.error(), Error::kIoError) << missing;
        if (drained.ok()) continue;
        EXPECT_NE(drained.failure().what.find("the end is missing of a temporary file in /var/tmp"),
                  std::string::npos)
            << drained.failure().what;
    }
}

// Length and number of the rows were all that was looked at; a length of gigabytes was allocated.
TEST(RowSorter, AFileThatGivesBackOtherBytesIsAnError) {
    struct Damage {
        off_t at;
        unsigned char byte;
    };
    for (const Damage& damage : {Damage{400'000, 0x01}, Damage{3, 0x7f}}) {  // 3: of a length
        RowSorter sorter(16, 1u << 20, "/var/tmp", true);
        Rows rows;
        ASSERT_TRUE(add_all(sorter, 16, 256, 20'000, rows).ok());
        const int descriptor = unnamed_file();
        unsigned char byte = 0;
        ASSERT_EQ(::pread(descriptor, &byte, 1, damage.at), 1);
        byte ^= damage.byte;
        ASSERT_EQ(::pwrite(descriptor, &byte, 1, damage.at), 1);
        const Status drained = sorter.drain([](auto, auto) { return Status(); });
        EXPECT_EQ(drained.error(), Error::kIoError) << damage.at;
        if (drained.ok()) continue;
        EXPECT_NE(drained.failure().what.find("other bytes came back than were written, out of a "
                                              "temporary file in /var/tmp"),
                  std::string::npos)
            << drained.failure().what;
    }
}

}  // namespace
}  // namespace bidstore
