// The rows of the workloads: 16 bytes of key (an entity and a time in µs), 256 of value, spread
// over one hour and round-robin over the entities in the order of time.
//
// Who: the benchmarks alone; any thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bench {

inline constexpr std::size_t kValueBytes = 256;
inline constexpr std::size_t kValueWords = kValueBytes / sizeof(std::uint64_t);
inline constexpr std::uint64_t kRowsPerEntity = 100;
inline constexpr std::uint64_t kScanRows = 50;
inline constexpr std::size_t kKeysTogether = 32;  // of a multi_get
inline constexpr std::uint64_t kHourUs = 3'600'000'000;
inline constexpr std::uint64_t kFirstTimeUs = 1'700'000'000'000'000;

// Row `number`, in the order of time.
struct Shape {
    std::uint64_t rows;          // of the hour
    std::uint64_t entity_count;  // 1 or more
    std::uint64_t first_time_us = kFirstTimeUs;

    bool small() const { return rows < 100'000; }  // a test
    static std::uint64_t entities_for(std::uint64_t rows) {
        return std::max<std::uint64_t>(rows / kRowsPerEntity, 1);
    }
    std::uint64_t entity(std::uint64_t number) const { return number % entity_count; }
    // For numbers below five billion: more overflow.
    std::uint64_t time(std::uint64_t number) const {
        return first_time_us + number * kHourUs / rows;
    }
    std::uint64_t five_minutes() const { return std::max<std::uint64_t>(rows / 12, 1); }
    std::uint64_t half_a_minute() const { return std::max<std::uint64_t>(rows / 120, 1); }
};

// Every word of a value is the row's number: a reader can tell whose it is.
inline void fill_value(void* value, std::uint64_t number) {
    for (std::size_t at = 0; at < kValueBytes; at += sizeof number) {
        std::memcpy(static_cast<char*>(value) + at, &number, sizeof number);
    }
}

inline std::uint64_t sum_of(const void* value) {
    std::uint64_t sum = 0;
    for (std::size_t at = 0; at < kValueBytes; at += sizeof sum) {
        std::uint64_t word = 0;
        std::memcpy(&word, static_cast<const char*>(value) + at, sizeof word);
        sum += word;
    }
    return sum;
}

}  // namespace bench
