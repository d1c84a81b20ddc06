// The page: 4,096 bytes, a header of 64, and what clients may know of it.
//
// Who:    a client reads published pages in place; the engine alone writes, and only to frames that
//         no reader can reach yet.
// Trust:  a reader whose lease is gone may look at a frame that is being reused. So every count,
//         offset and id is loaded once and clamped, and what follows from it is believed only
//         after Snapshot::valid(). Garbage gives a wrong answer, never a fault or an endless loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "shm/atom.h"
#include "shm/base.h"

namespace bidstore {

inline constexpr std::size_t kPageHeaderBytes = 64;
inline constexpr std::size_t kPayloadBytes = kPageBytes - kPageHeaderBytes;

enum class PageType : std::uint8_t {
    kNone = 0,
    kFree = 1,  // freed: no content; the id waits for its quarantine
    kLeaf = 2,
    kInner = 3,
    kMeta = 4,       // a chunk's metadata (engine/format.h)
    kDirectory = 5,  // part of the chunk directory (engine/format.h)
};

struct PageHeader {
    Atom<std::uint64_t> csn;  // of the batch that made this version; readers acquire it
    std::uint32_t page_id;
    std::uint32_t crc;          // CRC-32C of the page with this field as zero; set when the
                                // image is written to the file, meaningless in the pool
    std::uint64_t file_uuid;    // first 8 bytes of the file's uuid
    std::uint16_t count;        // leaf: rows; inner: children
    std::uint16_t free_offset;  // variable leaf: lowest byte in use by row content
    PageType type;
    std::uint8_t level;        // 0 for a leaf, one more per inner level
    std::uint16_t live_bytes;  // variable leaf: bytes of row content in use
    std::uint32_t table_id;
    std::uint8_t time_shift;  // leaf of a table with a time column: a time shifted right by this is
                              // in units of about a second (kTimeShift...); else 0
    std::uint8_t reserved0[3];
    std::uint64_t time_min;  // leaf of a table with a time column: bounds, inclusive, of the
    std::uint64_t time_max;  // times in it (may be wider than the rows left); 0, 0 if empty
    std::uint64_t floor;     // root of a table with retention: rows whose time is below are dead
};
PIN_FIELD(PageHeader, csn, 0, 8);
PIN_FIELD(PageHeader, page_id, 8, 4);
PIN_FIELD(PageHeader, crc, 12, 4);
PIN_FIELD(PageHeader, file_uuid, 16, 8);
PIN_FIELD(PageHeader, count, 24, 2);
PIN_FIELD(PageHeader, free_offset, 26, 2);
PIN_FIELD(PageHeader, type, 28, 1);
PIN_FIELD(PageHeader, level, 29, 1);
PIN_FIELD(PageHeader, live_bytes, 30, 2);
PIN_FIELD(PageHeader, table_id, 32, 4);
PIN_FIELD(PageHeader, time_shift, 36, 1);
PIN_FIELD(PageHeader, reserved0, 37, 3);
PIN_FIELD(PageHeader, time_min, 40, 8);
PIN_FIELD(PageHeader, time_max, 48, 8);
PIN_FIELD(PageHeader, floor, 56, 8);
static_assert(sizeof(PageHeader) == kPageHeaderBytes);
static_assert(std::is_standard_layout_v<PageHeader>);

// PageHeader::time_shift: 2^20 microseconds are 1.05 s, 2^30 nanoseconds 1.07 s.
inline constexpr std::uint8_t kTimeShiftMicroseconds = 20;
inline constexpr std::uint8_t kTimeShiftNanoseconds = 30;

// A read-only page. Constant bytes that may be reused under a reader whose lease is gone.
inline const PageHeader& page_header(const std::byte* page) {
    return *reinterpret_cast<const PageHeader*>(page);
}
// The engine's, for frames that no reader can reach.
inline PageHeader& page_header(std::byte* page) { return *reinterpret_cast<PageHeader*>(page); }

// CRC-32C (Castagnoli, as iSCSI: initial and final inversion) of any bytes; chains through `seed`.
std::uint32_t crc32c(const void* bytes, std::size_t length_bytes, std::uint32_t seed = 0);

// The page's CRC with its crc field taken as zero.
std::uint32_t page_crc(const std::byte* page);

// Sets header.crc. For images on their way to the file.
void seal_page(std::byte* page);

// What is wrong with a page read from the file, in words, or nullptr: crc, id, uuid, csn range.
const char* page_fault(const std::byte* page, PageId expected_id, std::uint64_t file_uuid,
                       Csn newest_csn);

// Copies bytes that may be reused while they are copied: the one place where that happens.
// Sound, because the copy is believed only after Snapshot::valid(), whose acquire fence orders
// these loads before its look at `revoked`, and because the bytes are plain data: any mixture of
// old and new ones is just a wrong copy. The thread sanitizer is told not to look here.
#if defined(__clang__) || defined(__GNUC__)
__attribute__((no_sanitize("thread")))
#endif
inline void
racy_copy(void* to, const void* from, std::size_t length_bytes) {
    std::memcpy(to, from, length_bytes);
}

// Loads an integer of such bytes exactly once: the compiler may not look a second time, so what was
// clamped stays clamped. `from` is aligned for T.
template <class T>
#if defined(__clang__) || defined(__GNUC__)
__attribute__((no_sanitize("thread")))
#endif
inline T
load_once(const std::byte* from) {
    return __atomic_load_n(reinterpret_cast<const T*>(from), __ATOMIC_RELAXED);
}

}  // namespace bidstore
