// Every struct that two processes touch at the same time: sizes, offsets, the ABI version and the
// layout fingerprint. The rules (who writes what, in which order, what a crash leaves) are in
// ABI.md; the offsets are here and nowhere else. No pointers, only offsets and indexes: each
// process maps a segment where it likes.
//
//   pool segment (daemon writes, clients map it read-only)
//     PoolHeader | page map u32[page_count] | FrameDescriptor[frame_count] | revoked
//     u64[slot_count] | StatsPage | DirectoryBucket[bucket_count] | frames, kPageBytes each
//   client segment (one per client process; the client may write all of it, the daemon trusts none)
//     ClientHeader | ReaderSlot[slot_count] | TouchMarks[slot_count] | RingControl | ring bytes |
//     CallSlot[call_slot_count]
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "shm/atom.h"
#include "shm/base.h"

namespace bidstore {

// Changes when the meaning of a field changes; the fingerprint below changes by itself.
inline constexpr std::uint32_t kAbiVersion = 1;

inline constexpr std::uint64_t kPoolMagic = 0x314c4f4f50444942;    // "BIDPOOL1"
inline constexpr std::uint64_t kClientMagic = 0x31544e4c43444942;  // "BIDCLNT1"

// ---- pool segment ----

// What the engine is doing, for clients and for people. Moves down the list, never up, but for
// kServing <-> kReadOnly.
enum class EngineMode : std::uint32_t {
    kStarting = 0,  // segment made, recovery under way
    kServing = 1,   // reads and writes
    kReadOnly = 2,  // reads only: the disk is full, or the operator asked for it
    kStopping = 3,  // final checkpoint under way
    kFenced = 4,    // the log failed: pending writes get kUnknownOutcome, the process exits
};

// One line, written at each publication.
struct alignas(kCacheLineBytes) Published {
    Atom<std::uint64_t> visible;    // csn of the newest published batch
    Atom<std::uint64_t> reuse_gen;  // one more before frames of a reclaim round are reused
    Atom<std::uint64_t> dropped;    // csn of the newest batch that dropped a table
    std::uint8_t reserved[40];
};
PIN_FIELD(Published, visible, 0, 8);
PIN_FIELD(Published, reuse_gen, 8, 8);
PIN_FIELD(Published, dropped, 16, 8);
PIN_FIELD(Published, reserved, 24, 40);

// One line, written when the engine goes to sleep, wakes, and a few times a second.
struct alignas(kCacheLineBytes) EngineState {
    Atom<std::uint64_t> heartbeat_ns;  // CLOCK_MONOTONIC of the engine's last round
    Atom<std::uint32_t> sleeping;      // 1: ring the doorbell after a ring has news
    Atom<EngineMode> mode;
    std::uint8_t reserved[48];
};
PIN_FIELD(EngineState, heartbeat_ns, 0, 8);
PIN_FIELD(EngineState, sleeping, 8, 4);
PIN_FIELD(EngineState, mode, 12, 4);
PIN_FIELD(EngineState, reserved, 16, 48);

struct alignas(kCacheLineBytes) PoolHeader {
    Atom<std::uint64_t> magic;  // kPoolMagic, written last (release)
    std::uint32_t abi_version;
    std::uint32_t page_bytes;
    std::uint64_t fingerprint;  // kLayoutFingerprint of the daemon's build
    std::uint64_t segment_bytes;
    std::uint64_t instance_id;  // random, new with each start of a daemon; never 0
    std::uint8_t file_uuid[16];
    std::uint32_t frame_count;   // frame 0 is never used
    std::uint32_t page_count;    // entries of the page map: the largest file, in pages
    std::uint32_t slot_count;    // reader slots of all clients together
    std::uint32_t catalog_root;  // page id of the catalog's root
    std::uint64_t page_map_offset;
    std::uint64_t descriptors_offset;
    std::uint64_t revoked_offset;
    std::uint64_t stats_offset;
    std::uint64_t frames_offset;
    std::uint64_t max_snapshot_age_ns;  // lease of a snapshot
    std::uint64_t directory_offset;
    std::uint64_t bucket_count;  // of the key directory; even
    std::uint64_t reserved[7];
    Published published;
    EngineState engine;
};
PIN_FIELD(PoolHeader, magic, 0, 8);
PIN_FIELD(PoolHeader, abi_version, 8, 4);
PIN_FIELD(PoolHeader, page_bytes, 12, 4);
PIN_FIELD(PoolHeader, fingerprint, 16, 8);
PIN_FIELD(PoolHeader, segment_bytes, 24, 8);
PIN_FIELD(PoolHeader, instance_id, 32, 8);
PIN_FIELD(PoolHeader, file_uuid, 40, 16);
PIN_FIELD(PoolHeader, frame_count, 56, 4);
PIN_FIELD(PoolHeader, page_count, 60, 4);
PIN_FIELD(PoolHeader, slot_count, 64, 4);
PIN_FIELD(PoolHeader, catalog_root, 68, 4);
PIN_FIELD(PoolHeader, page_map_offset, 72, 8);
PIN_FIELD(PoolHeader, descriptors_offset, 80, 8);
PIN_FIELD(PoolHeader, revoked_offset, 88, 8);
PIN_FIELD(PoolHeader, stats_offset, 96, 8);
PIN_FIELD(PoolHeader, frames_offset, 104, 8);
PIN_FIELD(PoolHeader, max_snapshot_age_ns, 112, 8);
PIN_FIELD(PoolHeader, directory_offset, 120, 8);
PIN_FIELD(PoolHeader, bucket_count, 128, 8);
PIN_FIELD(PoolHeader, reserved, 136, 56);
PIN_FIELD(PoolHeader, published, 192, 64);
PIN_FIELD(PoolHeader, engine, 256, 64);
static_assert(sizeof(PoolHeader) == 320);

// Page map entry: the frame of a page's newest published version, or kNoFrame when the page is not
// in the pool; and kWatched, when a client's next use of the page is to be marked for certain.
using PageMapEntry = Atom<std::uint32_t>;
inline constexpr std::uint32_t kNoFrame = 0;
inline constexpr std::uint32_t kWatched = 1u << 31;
inline constexpr std::uint32_t kFrameMask = kWatched - 1;

struct FrameDescriptor {
    Atom<std::uint32_t> older;  // frame of the next older version of the same page, or none
};
PIN_FIELD(FrameDescriptor, older, 0, 4);

// Per slot: the newest dead episode; never decreases while the pool lives.
using RevokedEntry = Atom<std::uint64_t>;

// Key directory: where keys were last seen, advisory. An entry is 0 for none, or, from its lowest
// bit up: 32 bits of leaf page id, 8 of row number (modulo 256), 24 of tag (shm/key_directory.h).
inline constexpr std::uint32_t kBucketEntries = 8;
struct alignas(kCacheLineBytes) DirectoryBucket {
    Atom<std::uint64_t> entry[kBucketEntries];
};
PIN_FIELD(DirectoryBucket, entry, 0, 64);
static_assert(sizeof(DirectoryBucket) == kCacheLineBytes);

// ---- stats page ----

inline constexpr std::uint32_t kStatsVersion = 1;
inline constexpr std::uint32_t kCounterCount = 128;  // the names are in shm/stats.h
inline constexpr std::uint32_t kHistogramCount = 8;
inline constexpr std::uint32_t kHistogramBuckets = 256;  // 64 powers of two, 4 steps each

struct Histogram {
    Atom<std::uint64_t> count;
    Atom<std::uint64_t> sum;
    Atom<std::uint64_t> bucket[kHistogramBuckets];
};
PIN_FIELD(Histogram, count, 0, 8);
PIN_FIELD(Histogram, sum, 8, 8);
PIN_FIELD(Histogram, bucket, 16, 2048);

struct alignas(kCacheLineBytes) StatsPage {
    std::uint32_t stats_version;
    std::uint32_t counter_count;    // how many of counter[] have a name
    std::uint32_t histogram_count;  // how many of histogram[] have a name
    std::uint32_t reserved[13];
    Atom<std::uint64_t> counter[kCounterCount];
    Histogram histogram[kHistogramCount];
};
PIN_FIELD(StatsPage, stats_version, 0, 4);
PIN_FIELD(StatsPage, counter_count, 4, 4);
PIN_FIELD(StatsPage, histogram_count, 8, 4);
PIN_FIELD(StatsPage, reserved, 12, 52);
PIN_FIELD(StatsPage, counter, 64, 1024);
PIN_FIELD(StatsPage, histogram, 1088, 16512);

// ---- client segment ----

// Where a reading thread announces its snapshot. One line per slot, so readers share none.
struct alignas(kCacheLineBytes) ReaderSlot {
    Atom<std::uint64_t> word;     // kSlotIdle, kSlotPinAll, else the csn held
    Atom<std::uint64_t> episode;  // one more at each begin; starts above revoked[slot]
    Atom<std::uint64_t> looked;   // every frame in use was looked up when this was visible
    std::uint8_t reserved[40];
};
PIN_FIELD(ReaderSlot, word, 0, 8);
PIN_FIELD(ReaderSlot, episode, 8, 8);
PIN_FIELD(ReaderSlot, looked, 16, 8);
PIN_FIELD(ReaderSlot, reserved, 24, 40);
inline constexpr std::uint64_t kSlotIdle = 0;
inline constexpr std::uint64_t kSlotPinAll = ~std::uint64_t{0};

// Which pages the owner of the reader slot of the same number has used: the newest ones, each at
// its number modulo kTouchMarks. Page numbers, advisory.
inline constexpr std::uint32_t kTouchMarks = 128;
struct alignas(kCacheLineBytes) TouchMarks {
    Atom<std::uint32_t> written;  // marks made so far, modulo 2^32; written last (release)
    std::uint8_t reserved[60];
    Atom<std::uint32_t> page[kTouchMarks];
};
PIN_FIELD(TouchMarks, written, 0, 4);
PIN_FIELD(TouchMarks, reserved, 4, 60);
PIN_FIELD(TouchMarks, page, 64, 512);

// Ring positions count units; a record starts on a unit and never wraps.
inline constexpr std::uint32_t kRingUnitBytes = 64;

struct RingControl {
    // Low half: units claimed, modulo 2^32. High half: writes claimed, modulo 2^32. One word, so
    // that the order of write numbers is the order of the ring.
    alignas(kCacheLineBytes) Atom<std::uint64_t> claim;
    std::uint8_t reserved0[56];
    // Units consumed, modulo 2^32. The engine writes it and keeps its own copy.
    alignas(kCacheLineBytes) Atom<std::uint32_t> head;
    std::uint8_t reserved1[60];
    // Answers given (futex of the waiting threads; bit of a call slot: index % 32).
    alignas(kCacheLineBytes) Atom<std::uint32_t> answered;
    Atom<std::uint32_t> waiters;  // threads that sleep on it; 0: the engine need not wake
    std::uint8_t reserved2[56];
};
PIN_FIELD(RingControl, claim, 0, 8);
PIN_FIELD(RingControl, head, 64, 4);
PIN_FIELD(RingControl, answered, 128, 4);
PIN_FIELD(RingControl, waiters, 132, 4);
static_assert(sizeof(RingControl) == 192);

enum class RecordKind : std::uint16_t {
    kPadding = 1,      // filler up to the end of the ring
    kPageRequest = 2,  // PageRequest
    kTransaction = 3,  // TransactionHeader and its operations (shm/message.h)
    kAborted = 4,      // claimed and given up by its producer; skipped
    kLoad = 5,         // LoadRequest and what follows it (shm/message.h)
    kCompact = 6,      // CompactRequest (shm/message.h)
};

// In front of each record in the ring, at a unit's start.
struct RecordHeader {
    Atom<std::uint32_t> length_bytes;  // header included; 0 until committed (release)
    RecordKind kind;
    std::uint16_t reserved;
    std::uint32_t call_slot;        // where the answer goes
    std::uint32_t call_generation;  // comes back in the answer
    std::uint64_t write_number;     // kTransaction: dense per session, from 1; else 0
    std::uint64_t decided_below;    // all writes of the session with smaller numbers were answered
};
PIN_FIELD(RecordHeader, length_bytes, 0, 4);
PIN_FIELD(RecordHeader, kind, 4, 2);
PIN_FIELD(RecordHeader, reserved, 6, 2);
PIN_FIELD(RecordHeader, call_slot, 8, 4);
PIN_FIELD(RecordHeader, call_generation, 12, 4);
PIN_FIELD(RecordHeader, write_number, 16, 8);
PIN_FIELD(RecordHeader, decided_below, 24, 8);
static_assert(sizeof(RecordHeader) == 32);

inline constexpr std::uint32_t kCallResults = 29;

// Where one call's answer comes back. The client fills generation when it claims the slot; the
// engine writes the rest and then state (release).
struct alignas(kCacheLineBytes) CallSlot {
    Atom<std::uint32_t> answered_generation;  // generation of the newest answer; the state
    std::uint32_t error;                      // Error
    std::uint64_t csn;                        // of the batch, for an applied transaction
    std::uint32_t failed_operation;           // index of the operation that failed, or ~0
    std::uint32_t result_count;
    std::int64_t result[kCallResults];  // of each operation that was asked for one, in order
};
PIN_FIELD(CallSlot, answered_generation, 0, 4);
PIN_FIELD(CallSlot, error, 4, 4);
PIN_FIELD(CallSlot, csn, 8, 8);
PIN_FIELD(CallSlot, failed_operation, 16, 4);
PIN_FIELD(CallSlot, result_count, 20, 4);
PIN_FIELD(CallSlot, result, 24, 232);
static_assert(sizeof(CallSlot) == 256);

enum class Rights : std::uint32_t {
    kReader = 1,  // reads, page requests
    kWriter = 2,  // and transactions on rows
    kAdmin = 3,   // and tables
};

struct alignas(kCacheLineBytes) ClientHeader {
    Atom<std::uint64_t> magic;  // kClientMagic, written last (release)
    std::uint32_t abi_version;
    std::uint32_t first_slot;  // this segment's slot i is slot first_slot + i of the pool
    std::uint64_t fingerprint;
    std::uint64_t segment_bytes;
    std::uint64_t instance_id;  // of the daemon that made it
    std::uint8_t session_id[16];
    std::uint32_t slot_count;
    std::uint32_t call_slot_count;
    std::uint32_t ring_bytes;  // power of two
    std::uint32_t rights;      // Rights
    std::uint64_t slots_offset;
    std::uint64_t ring_control_offset;
    std::uint64_t ring_offset;
    std::uint64_t calls_offset;
    std::uint64_t last_number;  // newest write number of the session that was decided
    std::uint64_t marks_offset;
    std::uint64_t reserved[1];
};
PIN_FIELD(ClientHeader, magic, 0, 8);
PIN_FIELD(ClientHeader, abi_version, 8, 4);
PIN_FIELD(ClientHeader, first_slot, 12, 4);
PIN_FIELD(ClientHeader, fingerprint, 16, 8);
PIN_FIELD(ClientHeader, segment_bytes, 24, 8);
PIN_FIELD(ClientHeader, instance_id, 32, 8);
PIN_FIELD(ClientHeader, session_id, 40, 16);
PIN_FIELD(ClientHeader, slot_count, 56, 4);
PIN_FIELD(ClientHeader, call_slot_count, 60, 4);
PIN_FIELD(ClientHeader, ring_bytes, 64, 4);
PIN_FIELD(ClientHeader, rights, 68, 4);
PIN_FIELD(ClientHeader, slots_offset, 72, 8);
PIN_FIELD(ClientHeader, ring_control_offset, 80, 8);
PIN_FIELD(ClientHeader, ring_offset, 88, 8);
PIN_FIELD(ClientHeader, calls_offset, 96, 8);
PIN_FIELD(ClientHeader, last_number, 104, 8);
PIN_FIELD(ClientHeader, marks_offset, 112, 8);
PIN_FIELD(ClientHeader, reserved, 120, 8);
static_assert(sizeof(ClientHeader) == 128);

// ---- handshake messages (SOCK_SEQPACKET) ----

inline constexpr std::uint64_t kHelloMagic = 0x314f4c4548444942;  // "BIDHELO1"

// Client to daemon, first and only message.
struct Hello {
    std::uint64_t magic;
    std::uint32_t abi_version;
    std::uint32_t rights;  // Rights asked for
    std::uint64_t fingerprint;
    std::uint8_t session_id[16];  // zeros: make a new session
};
static_assert(sizeof(Hello) == 40);

// Daemon to client, with three descriptors when error is kOk: pool segment (read-only), client
// segment, doorbell (eventfd). The connection then stays open: its end is the client's end.
struct Welcome {
    std::uint64_t magic;
    std::uint32_t abi_version;
    std::uint32_t error;  // Error
    std::uint64_t fingerprint;
    std::uint8_t session_id[16];
    char message[216];  // why not, for people; ends with 0
};
static_assert(sizeof(Welcome) == 256);

// ---- fingerprint ----

// FNV-1a over all sizes and offsets: two builds that lay a shared struct out differently differ.
consteval std::uint64_t layout_fingerprint() {
    constexpr std::array<std::uint64_t, 33> facts{sizeof(PoolHeader),
                                                  offsetof(PoolHeader, published),
                                                  offsetof(Published, dropped),
                                                  offsetof(PoolHeader, engine),
                                                  offsetof(PoolHeader, frames_offset),
                                                  sizeof(FrameDescriptor),
                                                  sizeof(PageMapEntry),
                                                  sizeof(RevokedEntry),
                                                  offsetof(PoolHeader, directory_offset),
                                                  sizeof(DirectoryBucket),
                                                  sizeof(StatsPage),
                                                  offsetof(StatsPage, histogram),
                                                  kCounterCount,
                                                  kHistogramCount,
                                                  kHistogramBuckets,
                                                  sizeof(ReaderSlot),
                                                  offsetof(ReaderSlot, episode),
                                                  offsetof(ReaderSlot, looked),
                                                  sizeof(TouchMarks),
                                                  kWatched,
                                                  sizeof(RingControl),
                                                  offsetof(RingControl, head),
                                                  offsetof(RingControl, answered),
                                                  kRingUnitBytes,
                                                  sizeof(RecordHeader),
                                                  offsetof(RecordHeader, write_number),
                                                  sizeof(CallSlot),
                                                  offsetof(CallSlot, result),
                                                  sizeof(ClientHeader),
                                                  offsetof(ClientHeader, last_number),
                                                  offsetof(ClientHeader, marks_offset),
                                                  sizeof(Hello) + sizeof(Welcome),
                                                  kPageBytes};
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::uint64_t fact : facts) hash = (hash ^ fact) * 0x100000001b3;
    return hash ^ kAbiVersion;
}
inline constexpr std::uint64_t kLayoutFingerprint = layout_fingerprint();

static_assert(Atom<std::uint64_t>::is_always_lock_free);
static_assert(Atom<std::uint32_t>::is_always_lock_free);
static_assert(std::is_standard_layout_v<PoolHeader> && std::is_standard_layout_v<StatsPage> &&
              std::is_standard_layout_v<DirectoryBucket> && std::is_standard_layout_v<ReaderSlot> &&
              std::is_standard_layout_v<TouchMarks> && std::is_standard_layout_v<RingControl> &&
              std::is_standard_layout_v<RecordHeader> && std::is_standard_layout_v<CallSlot> &&
              std::is_standard_layout_v<ClientHeader>);

}  // namespace bidstore
