// What a client puts into its ring: page requests and transactions, as bytes.
//
// A transaction is a TransactionHeader and its operations, one after another, each an
// OperationHeader, then key_bytes of key, then body_bytes of body, padded with zeros to 8 bytes.
// Keys are encoded (compared as bytes), rows are row values as engine/page/schema.h lays them out.
//
// Who: clients write them, the engine copies a record out of the ring before it looks at it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "shm/base.h"

namespace bidstore {

// Header and operations: a large value and what goes with it. A ring may carry less
// (RingProducer::payload_bytes_max).
inline constexpr std::uint32_t kTransactionBytesMax = (1u << 20) + (64u << 10);
inline constexpr std::uint32_t kOperationsMax = 1024;             // per transaction
inline constexpr std::uint32_t kPagesPerRequest = 64;
// Writes of a session from the oldest without a confirmed answer (RecordHeader::decided_below) to
// the newest: a session's row remembers how each of them was refused.
inline constexpr std::uint32_t kUndecidedWritesMax = 960;

// Asks for pages to be brought into the pool; answered when all of them are there, or with the
// first error (failed_operation = index of the page).
struct PageRequest {
    std::uint32_t count;                      // 1 to kPagesPerRequest
    std::uint32_t page_id[kPagesPerRequest];  // count of them are sent
};
static_assert(sizeof(PageRequest) == 4 + 4 * kPagesPerRequest);

enum class Durability : std::uint32_t {
    kDurable = 0,  // answered when on disk
    kRelaxed = 1,  // answered when accepted; visible and durable with its batch
};

struct TransactionHeader {
    std::uint32_t operation_count;  // 1 to kOperationsMax
    Durability durability;
};
static_assert(sizeof(TransactionHeader) == 8);

enum class OperationKind : std::uint8_t {
    // Preconditions: the transaction applies only if all hold (in order, seeing its own effects).
    kCheckPresent = 1,
    kCheckAbsent = 2,
    kCheckEquals = 3,  // body: ColumnValue; the row is there and the column has these bytes
    // Rows.
    kPut = 10,          // body: row value; replaces
    kInsert = 11,       // body: row value; kExists if the key is there
    kUpdate = 12,       // body: ColumnValue, one after another; kNotFound if the row is not there
    kAdd = 13,          // body: AddBody; kNotFound if not there, unless kCreate
    kDelete = 14,       // kNotFound if not there, unless kIfPresent
    kDeleteRange = 15,  // key: lower bound, inclusive; body: upper bound, exclusive (may be empty:
                        // no bound); result: rows deleted
    // Tables; rights kAdmin.
    kCreateTable = 20,  // key: TableAttributes, or nothing; body: encoded schema
                        // (engine/page/schema.h); result: table id
    kDropTable = 21,
    kSetTable = 22,  // body: TableAttributes
};

enum OperationFlags : std::uint8_t {
    kWantResult = 1,  // the answer carries the value after kAdd, or the count of kDeleteRange
    kCreate = 2,      // kAdd: a missing row starts as zeros and empty variable-length columns
    kIfPresent = 4,   // kDelete: a missing row is fine
};

struct OperationHeader {
    OperationKind kind;
    std::uint8_t flags;
    std::uint16_t key_bytes;
    std::uint32_t table_id;
    std::uint32_t body_bytes;
    std::uint32_t reserved;
};
static_assert(sizeof(OperationHeader) == 16);

// A value column and its new (or expected) content, padded with zeros to 8 bytes.
struct ColumnValue {
    std::uint16_t column;  // index into Schema::columns
    std::uint16_t reserved;
    std::uint32_t value_bytes;
    // value_bytes of content follow
};
static_assert(sizeof(ColumnValue) == 8);

// Integer columns only. The sum must fit the column's type (kOutOfRange) and, where flagged, lie
// within [floor, ceiling]. For u64 columns the values are read as unsigned.
struct AddBody {
    std::uint16_t column;
    std::uint8_t has_floor;
    std::uint8_t has_ceiling;
    std::uint32_t reserved;
    std::int64_t delta;
    std::int64_t floor;
    std::int64_t ceiling;
};
static_assert(sizeof(AddBody) == 32);

// ---- bulk load; rights kAdmin, one at a time on a connection ----

// A load is kBegin, any number of kRows, kFinish. The table appears, with all rows, when kFinish is
// answered with kOk, and otherwise not at all: a load ends with its connection. Every step has an
// answer of its own; after a step that failed, those behind it fail with the same error. One that
// no kRows came for in ten minutes is given up as soon as others need what it keeps: kTimedOut.
enum class LoadStep : std::uint32_t {
    kBegin = 1,   // behind the LoadRequest: encoded schema. No table of that name may be there but
                  // an empty one of the same schema, which the new one replaces
    kRows = 2,    // behind it: `rows` rows in rising order of their keys, which also rise from one
                  // kRows to the next; failed_operation = index of the row. None and nothing behind
                  // it is a sign of life: rows are still to come, after a pause
    kFinish = 3,  // `rows`: of all kRows together
};

// Rows of a schema without variable-length columns are key and value, one after another, packed.
// Otherwise a u32 with the value's length stands in front of each key.
struct LoadRequest {
    LoadStep step;
    std::uint32_t reserved;
    std::uint64_t rows;
};
static_assert(sizeof(LoadRequest) == 16);
// Of a step, LoadRequest included; kTransactionBytesMax if it has one row alone.
inline constexpr std::uint32_t kLoadBytesMax = 128u << 10;
constexpr std::uint32_t load_bytes_max(const LoadRequest& request) {
    const bool one_row = request.step == LoadStep::kRows && request.rows == 1;
    return one_row ? kTransactionBytesMax : kLoadBytesMax;
}

// ---- compaction; rights kAdmin, one client at a time ----

// Asks for one step of a compaction, which moves at most `pages` pages out of the last chunks of
// the file, or finds out what it has to wait for. The client asks again until kDone, at a pace of
// its choice; what was done stays done when it stops asking. Another client may begin when its
// connection ends, or when it has asked for nothing for ten minutes: then its next step is told
// kTimedOut, and begins nothing.
struct CompactRequest {
    std::uint32_t pages;  // 1 to kCompactPagesMax
    std::uint32_t reserved;
};
static_assert(sizeof(CompactRequest) == 8);
inline constexpr std::uint32_t kCompactPagesMax = 64;

enum class CompactState : std::uint32_t {
    kMoving = 1,   // ask again
    kWaiting = 2,  // ask again after a while: a checkpoint, snapshots or another change come first
    kDone = 3,     // the file is as short as it can be
};

// kCorruption or kIoError: failed_operation is the id of a page that cannot be read, or that no
// tree leads to.

// Results of an answer, in this order.
enum class CompactResult : std::uint32_t {
    kState,      // CompactState
    kMoved,      // pages, by this step
    kLeft,       // pages to move out of the chunks that are being emptied
    kGivenBack,  // bytes, by the file system's leave, since the connection's first step
    kFileBytes,  // length of the data file
    kStays,      // the chunk with a root that ends the file then; -1: there is none
    kStaysFor,   // id of the table whose root is in it
    kLooked,     // leaves, by this step, for neighbours that fit into one page
};
inline constexpr std::uint32_t kCompactResults = 8;

// What can be changed of a table.
struct TableAttributes {
    // Rows older than this, by the table's time column, are dead and go away; 0: kept for ever.
    std::uint64_t retain_us;
    std::uint64_t reserved;
};
static_assert(sizeof(TableAttributes) == 16);

static_assert(std::is_trivially_copyable_v<OperationHeader> &&
              std::is_trivially_copyable_v<AddBody>);

}  // namespace bidstore
