// What the files hold: superblock, chunk metadata, chunk directory, journal, log. Offsets are here
// (and, for the page header, in engine/page/page.h) and nowhere else; the rules are in FORMAT.md.
//
// Three files, all in one directory: data (superblocks, chunks of pages), log, journal.
//
//   data     page_id * 4096 is the offset. A chunk is 512 pages. Chunk 0 begins with the two
//            superblock copies; then, as in every chunk, comes its metadata page; in every 128th
//            chunk the page after that holds the directory entries of 128 chunks.
//   log      segments of equal size, reused as a ring; batches start on 4 KiB blocks.
//   journal  one header of whole blocks, then page images; preallocated.
//
// Little-endian, no padding, reserved bytes zero.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "engine/page/chunk.h"
#include "engine/page/page.h"
#include "shm/base.h"

namespace bidstore {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::uint32_t kBlockBytes = 4096;

// Of its place in the data file.
constexpr std::uint64_t page_offset_bytes(PageId page) {
    return std::uint64_t{page.value} * kPageBytes;
}

// ---- superblock: pages 0 and 1 of the data file ----

inline constexpr std::uint64_t kSuperblockMagic = 0x314b4c4255534942;  // "BISUBLK1"

struct Superblock {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t crc;       // CRC-32C of the whole 4 KiB block with this field as zero
    std::uint64_t sequence;  // one more with each change
    std::uint8_t file_uuid[16];
    std::uint64_t epoch;           // one more with each recovery
    std::uint64_t salt;            // random, new with each epoch
    std::uint64_t checkpoint_csn;  // C: the trees in the file are those of this csn
    std::uint64_t log_position;    // replay starts here
    std::uint64_t durable_csn;     // newest csn known durable; the log must reach it
    std::uint32_t log_crc;         // batch_crc of the batch before log_position
    std::uint32_t chunk_count;     // chunks that the checkpoint knows
    std::uint32_t directory_crc;   // CRC-32C over the crc fields of all directory pages, in order
    std::uint32_t catalog_root;
    std::uint64_t log_segment_bytes;
    std::uint32_t log_segment_count;
    std::uint32_t journal_pages;   // 0: no journal; else the images it holds
    std::uint64_t journal_number;  // must match the journal's header
    std::uint32_t journal_list_crc;
    std::uint32_t reserved0;
    std::uint64_t journal_bytes;   // preallocated size of the journal file
    std::uint64_t newest_time_us;  // of the newest batch that the checkpoint covers
    std::uint8_t reserved[3952];
};
PIN_FIELD(Superblock, crc, 12, 4);
PIN_FIELD(Superblock, sequence, 16, 8);
PIN_FIELD(Superblock, file_uuid, 24, 16);
PIN_FIELD(Superblock, epoch, 40, 8);
PIN_FIELD(Superblock, checkpoint_csn, 56, 8);
PIN_FIELD(Superblock, log_position, 64, 8);
PIN_FIELD(Superblock, durable_csn, 72, 8);
PIN_FIELD(Superblock, log_crc, 80, 4);
PIN_FIELD(Superblock, chunk_count, 84, 4);
PIN_FIELD(Superblock, directory_crc, 88, 4);
PIN_FIELD(Superblock, catalog_root, 92, 4);
PIN_FIELD(Superblock, log_segment_bytes, 96, 8);
PIN_FIELD(Superblock, log_segment_count, 104, 4);
PIN_FIELD(Superblock, journal_pages, 108, 4);
PIN_FIELD(Superblock, journal_number, 112, 8);
PIN_FIELD(Superblock, journal_list_crc, 120, 4);
PIN_FIELD(Superblock, journal_bytes, 128, 8);
PIN_FIELD(Superblock, newest_time_us, 136, 8);
PIN_FIELD(Superblock, reserved, 144, 3952);
static_assert(sizeof(Superblock) == kBlockBytes);

// ---- chunks ----

// Page ids that format makes and that never move.
inline constexpr PageId kCatalogRootPage{4};  // after superblocks 0, 1, metadata 2, directory 3
inline constexpr PageId kSessionsRootPage{5};

// The newest time in a leaf, or of the row that an extent belongs to, as metadata keeps it: the
// time, PageHeader::time_max for a leaf, >> PageHeader::time_shift. What it says of a page is
// "older than newest + 1", so rounding never makes a page seem too old.
inline constexpr std::uint32_t kNewestUnknown = ~std::uint32_t{0};
// In the file a page's newest is its distance to that of its chunk, in three bytes.
inline constexpr std::uint32_t kNewestAgeUnknown = 0xffffff;

// Of an extent the first page of each run has its row's newest time, and by itself: newest over
// 2^kExtentNewestShift, rounded down; nobody could ask the page. kNewestAgeUnknown: no time.
inline constexpr std::uint32_t kExtentNewestShift = 8;

// Behind the page header of a metadata page. Bitmap and extents are versioned like any page; crcs
// and times are filled in by the checkpointer, in the image alone, and belong to that checkpoint.
struct ChunkMeta {
    std::uint64_t used[kChunkPages / 64];  // bit set: the page is allocated (or fixed: this page)
    std::uint32_t page_crc[kChunkPages];   // of allocated pages but metadata and directory; else 0
    std::uint32_t newest;                    // the greatest of its pages'
    std::uint8_t newest_age[kChunkPages][3];  // little-endian; chunk's newest minus the page's, or
                                              // kNewestAgeUnknown: the page itself has to be asked
    std::uint32_t extent_owner[kExtentOwners];  // tables that have extents here; 0: a free place
    std::uint8_t extent[kChunkPages / 2];       // 4 bits a page, low ones first: ExtentMap
    std::uint8_t reserved[kPayloadBytes - 68 - 7 * kChunkPages - 4 * kExtentOwners -
                          kChunkPages / 2];
};
PIN_FIELD(ChunkMeta, page_crc, 64, 2048);
PIN_FIELD(ChunkMeta, newest, 2112, 4);
PIN_FIELD(ChunkMeta, newest_age, 2116, 1536);
PIN_FIELD(ChunkMeta, extent_owner, 3652, 56);
PIN_FIELD(ChunkMeta, extent, 3708, 256);
PIN_FIELD(ChunkMeta, reserved, 3964, 68);
static_assert(sizeof(ChunkMeta) == kPayloadBytes);
static_assert(kExtentOwnersOffset == kPageHeaderBytes + offsetof(ChunkMeta, extent_owner));
static_assert(kExtentsOffset == kPageHeaderBytes + offsetof(ChunkMeta, extent));

// Behind the page header of a directory page: one entry a chunk.
struct DirectoryEntry {
    std::uint32_t meta_crc;     // of the chunk's metadata page
    std::uint32_t free_count;   // free pages in it
    std::uint64_t newest_time;  // ChunkMeta::newest
};
static_assert(sizeof(DirectoryEntry) == 16);
struct DirectoryPage {
    DirectoryEntry entry[kDirectoryChunks];
    std::uint8_t reserved[kPayloadBytes - 16 * kDirectoryChunks];
};
static_assert(sizeof(DirectoryPage) == kPayloadBytes);

// ---- journal ----

inline constexpr std::uint64_t kJournalMagic = 0x314c4e524a444942;  // "BIDJRNL1"

// At offset 0, followed by page_count JournalEntry, padded with zeros to whole blocks; the images
// follow in the order of the list.
struct JournalHeader {
    std::uint64_t magic;
    std::uint64_t number;  // as in the superblock that names it
    std::uint8_t file_uuid[16];
    std::uint64_t checkpoint_csn;
    std::uint32_t page_count;
    std::uint32_t list_crc;  // CRC-32C of header (this field as zero) and entries
};
static_assert(sizeof(JournalHeader) == 48);
struct JournalEntry {
    std::uint32_t page_id;
    std::uint32_t page_crc;  // header.crc of the image
};
static_assert(sizeof(JournalEntry) == 8);

// Blocks that header and list of so many images take.
constexpr std::uint64_t journal_header_blocks(std::uint64_t images) {
    return (sizeof(JournalHeader) + images * sizeof(JournalEntry) + kBlockBytes - 1) / kBlockBytes;
}

// ---- log ----

inline constexpr std::uint64_t kBatchMagic = 0x3148435441424942;  // "BIBATCH1"

// A batch: header, records, zeros to a whole block. Position: bytes since the log began; its place
// in the file is position modulo the size of the log. A batch never crosses a segment's end: the
// next one starts at the end of the last or at the next segment's start.
struct BatchHeader {
    std::uint64_t magic;
    std::uint8_t file_uuid[16];
    std::uint64_t epoch;
    std::uint64_t salt;
    std::uint64_t position;
    std::uint64_t csn;
    std::uint64_t durable_csn;   // newest csn known durable when it was sealed
    std::uint64_t time_us;       // wall clock, never falls from batch to batch
    std::uint32_t length_bytes;  // header and records, without the padding
    std::uint32_t record_count;
    std::uint32_t previous_crc;  // crc of the batch before
    std::uint32_t crc;           // CRC-32C of length_bytes bytes with this field as zero
    std::uint8_t reserved[8];
};
PIN_FIELD(BatchHeader, file_uuid, 8, 16);
PIN_FIELD(BatchHeader, epoch, 24, 8);
PIN_FIELD(BatchHeader, salt, 32, 8);
PIN_FIELD(BatchHeader, position, 40, 8);
PIN_FIELD(BatchHeader, csn, 48, 8);
PIN_FIELD(BatchHeader, durable_csn, 56, 8);
PIN_FIELD(BatchHeader, time_us, 64, 8);
PIN_FIELD(BatchHeader, length_bytes, 72, 4);
PIN_FIELD(BatchHeader, record_count, 76, 4);
PIN_FIELD(BatchHeader, previous_crc, 80, 4);
PIN_FIELD(BatchHeader, crc, 84, 4);
PIN_FIELD(BatchHeader, reserved, 88, 8);
static_assert(sizeof(BatchHeader) == 96);

// Effects, never decisions: replay evaluates no precondition, floor or clock.
enum class RecordType : std::uint16_t {
    kPutRow = 1,         // table, key, value: the row is now this
    kUpdateColumns = 2,  // table, key, ColumnValue (shm/message.h) list
    kAddColumn = 3,      // table, key, LoggedAdd
    kDeleteRow = 4,      // table, key
    kDeleteRange = 5,    // table, key = lower bound, body = upper bound (may be empty)
    kCreateTable = 6,    // table, key = TableAttributes or nothing, body = encoded schema
    kDropTable = 7,      // table
    kSession = 8,        // table, key = session id, body = its row: newest number, refusals
    kExpireSession = 9,  // table, key = session id
    kBeginLoad = 10,     // as kCreateTable: made, but hidden
    kFinishLoad = 11,    // table, body = LoggedLoad: full on disk, and no longer hidden
    kSetTable = 12,      // table, body = TableAttributes (shm/message.h)
    kMoveFloor = 13,     // table, body = the floor, 8 bytes, in the schema's time unit
};

// Then key_bytes of key and body_bytes of body, padded with zeros to 8 bytes.
struct LogRecord {
    std::uint32_t length_bytes;  // this header, key and body, without padding
    RecordType type;
    std::uint16_t key_bytes;
    std::uint32_t table_id;
    std::uint32_t body_bytes;
    std::uint32_t crc;  // CRC-32C of the record with this field as zero
    std::uint32_t reserved;
};
static_assert(sizeof(LogRecord) == 24);

struct LoggedAdd {
    std::uint16_t column;
    std::uint16_t reserved0;
    std::uint32_t reserved1;
    std::int64_t delta;
    std::int64_t result;  // old + delta must give this
};
static_assert(sizeof(LoggedAdd) == 24);

// The log does not hold the rows: a checkpoint before this record does.
struct LoggedLoad {
    std::uint64_t rows;
    std::uint32_t checksum;  // CRC-32C over the crc fields of all leaves, in order; 0: no rows, or
                             // few enough for the root alone
    std::uint32_t reserved;
};
static_assert(sizeof(LoggedLoad) == 16);

static_assert(std::has_unique_object_representations_v<Superblock>);
static_assert(std::has_unique_object_representations_v<ChunkMeta>);
static_assert(std::has_unique_object_representations_v<DirectoryPage>);
static_assert(std::has_unique_object_representations_v<JournalHeader>);
static_assert(std::has_unique_object_representations_v<BatchHeader>);
static_assert(std::has_unique_object_representations_v<LogRecord>);
static_assert(std::has_unique_object_representations_v<LoggedAdd>);
static_assert(std::has_unique_object_representations_v<LoggedLoad>);

}  // namespace bidstore
