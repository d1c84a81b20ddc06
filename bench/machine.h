// What the bare machine does: a chain of cache misses, a synced write.
//
// Who: the benchmarks alone, while nothing else of theirs runs.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "bench/measure.h"

namespace bench {

// Memory that reads of so many rows of the workloads are spread over: a chain over less of it would
// find its addresses in the processor's cache of them, which gets do not.
inline std::size_t spread_bytes(std::uint64_t rows) {
    constexpr std::size_t kLeast = std::size_t{512} << 20;
    constexpr std::size_t kMost = std::size_t{4} << 30;
    std::size_t bytes = kLeast;
    while (bytes < kMost && bytes < rows * 400) bytes *= 2;  // leaves are not quite full
    return bytes;
}

// A chain of loads, each of another line, each waiting for the one before, at random over so many
// bytes (a power of two, 512 MiB or more): in memory on small pages or on reserved huge ones. 0:
// there are not enough of these.
inline double dependent_miss_ns(bool huge, std::size_t bytes) {
    constexpr std::size_t kWordsPerLine = 64 / sizeof(std::uint64_t);
    constexpr std::size_t kLines = (std::size_t{512} << 20) / 64;  // more than caches hold
    constexpr std::size_t kLoads = 4'000'000;
    constexpr std::size_t kStretch = 1'000;
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0), -1, 0);
    if (memory == MAP_FAILED && huge) return 0;
    if (memory == MAP_FAILED) fail("no memory for " + std::to_string(bytes >> 20) + " MiB");
    if (!huge) ::madvise(memory, bytes, MADV_NOHUGEPAGE);
    auto* words = static_cast<std::uint64_t*>(memory);
    std::vector<std::uint32_t> order(kLines);
    std::iota(order.begin(), order.end(), 0u);
    Random random(3);
    for (std::size_t i = kLines - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
    // Of each part of the memory one line, any of those it has.
    const std::size_t part = bytes / 64 / kLines;
    const auto word_of = [&](std::size_t i) {
        const std::uint64_t line = order[i] * part + order[i] * std::uint64_t{0x9e3779b1} % part;
        return line * kWordsPerLine;
    };
    for (std::size_t i = 0; i < kLines; ++i) words[word_of(i)] = word_of((i + 1) % kLines);
    // The median of short stretches: what others do meanwhile disturbs some of them.
    std::vector<double> stretches;
    std::uint64_t at = word_of(0);
    for (std::size_t i = 0; i < kLoads / kStretch; ++i) {
        const std::uint64_t begin = now_ns();
        for (std::size_t load = 0; load < kStretch; ++load) at = words[at];
        stretches.push_back(static_cast<double>(now_ns() - begin) / kStretch);
    }
    ::munmap(memory, bytes);
    return at == ~std::uint64_t{0} ? 0 : median(stretches);
}

inline constexpr int kSyncedWrites = 4000;

// One 4 KiB write at a time, synced by RWF_DSYNC, over a file that is there already.
inline std::vector<std::uint32_t> synced_writes_ns(const std::string& directory,
                                                   int writes = kSyncedWrites) {
    constexpr std::size_t kBlock = 4096;
    constexpr off_t kFileBytes = 16 << 20;
    const std::string path = directory + "/bench-sync";
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
    if (file < 0) fail(path + ": " + std::strerror(errno));
    ::unlink(path.c_str());
    alignas(kBlock) static std::array<char, kBlock> block{};
    const iovec part{block.data(), block.size()};
    for (off_t at = 0; at < kFileBytes; at += kBlock) {
        if (::pwritev2(file, &part, 1, at, 0) != kBlock) fail(path + ": " + std::strerror(errno));
    }
    ::fsync(file);
    std::vector<std::uint32_t> samples;
    for (int i = 0; i < writes; ++i) {
        const std::uint64_t start = now_ns();
        if (::pwritev2(file, &part, 1, i * off_t{kBlock} % kFileBytes, RWF_DSYNC) != kBlock) {
            fail(path + ": " + std::strerror(errno));
        }
        samples.push_back(static_cast<std::uint32_t>(now_ns() - start));
    }
    ::close(file);
    return samples;
}

}  // namespace bench
