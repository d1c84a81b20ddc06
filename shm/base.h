// The smallest common ground: checks, typed ids, alignment, pinned layouts.
//
// Who: everything. Nothing here allocates, throws or calls the system but the failing CHECK.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace bidstore {

// A rule of our own was broken: says which, where and with what operands, then aborts. Recovery is
// the safe path, so CHECK stays on in every build. Its arguments have no side effects. What the
// world (a device) or a peer (a client) may do wrong is never CHECKed: that is a Result.
[[noreturn]] inline void check_failed(const char* what, const char* file, int line,
                                      unsigned long long left, unsigned long long right) {
    std::fprintf(stderr, "<2>CHECK failed: %s at %s:%d (%llu, %llu)\n", what, file, line, left,
                 right);
    std::abort();
}

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) [[unlikely]]                                          \
            ::bidstore::check_failed(#condition, __FILE__, __LINE__, 0, 0);     \
    } while (false)

// CHECK_OP(a, <=, b): as CHECK, and prints both operands (integers).
#define CHECK_OP(left, op, right)                                                         \
    do {                                                                                  \
        if (!((left)op(right))) [[unlikely]]                                              \
            ::bidstore::check_failed(#left " " #op " " #right, __FILE__, __LINE__,        \
                                     static_cast<unsigned long long>(left),               \
                                     static_cast<unsigned long long>(right));             \
    } while (false)

// For loops and per-key checks: debug builds only.
#ifdef NDEBUG
#define DCHECK(condition) \
    do {                  \
    } while (false)
#else
#define DCHECK(condition) CHECK(condition)
#endif

// Pins a field of a shared or stored struct to its place.
#define PIN_FIELD(Type, field, offset_bytes, size_bytes)                     \
    static_assert(offsetof(Type, field) == (offset_bytes) &&                 \
                      sizeof(Type::field) == (size_bytes),                   \
                  #Type "." #field " moved: bump the version, update the document")

template <class Tag, class Rep>
struct Id {
    Rep value = 0;
    friend constexpr auto operator<=>(const Id&, const Id&) = default;
    constexpr explicit operator bool() const { return value != 0; }
};

// Place in the file: value * kPageBytes is the offset. 0 is a superblock copy, so it means "none".
using PageId = Id<struct PageIdTag, std::uint32_t>;
// Place in the pool. 0 is never used, so it means "none".
using FrameId = Id<struct FrameIdTag, std::uint32_t>;
// Commit sequence number: the order in which batches become visible. 0 is never published.
using Csn = Id<struct CsnTag, std::uint64_t>;
// Never reused during the life of a file. 0 means "none".
using TableId = Id<struct TableIdTag, std::uint32_t>;

inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kCacheLineBytes = 64;

// Starts to bring the line at `address` into the processor's cache; never faults, whatever the
// address. A function that does nothing but prefetch has to be always_inline, as this one: g++ 12
// takes it for one without effect and leaves out the calls.
[[gnu::always_inline]] inline void prefetch_line(const void* address) {
    __builtin_prefetch(address);
}
// All lines that hold the bytes; length_bytes is not 0.
[[gnu::always_inline]] inline void prefetch_bytes(const std::byte* from, std::size_t length_bytes) {
    for (std::size_t at = 0; at < length_bytes; at += kCacheLineBytes) prefetch_line(from + at);
    prefetch_line(from + length_bytes - 1);
}

// `to` is a power of two.
constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t to) {
    return (value + to - 1) & ~(to - 1);
}
constexpr bool is_power_of_two(std::uint64_t value) { return value && !(value & (value - 1)); }

}  // namespace bidstore
