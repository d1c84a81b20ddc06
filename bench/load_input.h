// The rows that `bench/run.sh load` loads: 16 bytes of key, 256 of value, made from their number.
//
// Who: the benchmarks alone; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bench {

inline constexpr std::size_t kLoadKeyBytes = 16;
inline constexpr std::size_t kLoadValueBytes = 256;
inline constexpr std::size_t kLoadRowBytes = kLoadKeyBytes + kLoadValueBytes;

inline std::uint64_t mixed(std::uint64_t number) {
    number = (number ^ (number >> 31)) * 0x9e3779b97f4a7c15;
    return number ^ (number >> 29);
}

// Keys rise with the number: it comes first, big-endian, and bits that look random behind it. The
// value does not repeat, so that no compression would help anybody.
inline void make_load_row(std::uint64_t number, std::byte* row) {
    const std::uint64_t head = __builtin_bswap64(number * 1'000);
    std::uint64_t word = mixed(number + 1);
    std::memcpy(row, &head, sizeof head);
    std::memcpy(row + sizeof head, &word, sizeof word);
    for (std::size_t at = kLoadKeyBytes; at < kLoadRowBytes; at += sizeof word) {
        word = mixed(word + at);
        std::memcpy(row + at, &word, sizeof word);
    }
}

}  // namespace bench
