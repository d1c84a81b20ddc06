// Transactions: from a client's list of operations to effects, and from effects to trees and log.
//
// Two steps, so that nothing has to be undone:
//   evaluate  reads only: preconditions and operations in order, each seeing those before it
//             through an overlay; ends as ready, refused, or in want of a page
//   apply     changes trees and appends records; room was secured before, so it cannot fail
//
// Effects hold resulting values, never something to decide again: replay applies the same ones.
//
// Who:    the engine thread alone; one evaluation at a time per Executor object.
// Trust:  the payload is a client's word: every length, id and kind is checked here.
// Source: evaluate-then-apply with an overlay is the usual shape of optimistic validation with one
//         writer; there is nothing to validate against because nothing runs between the two.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "engine/arena.h"
#include "engine/catalog.h"
#include "engine/format.h"
#include "engine/room_estimate.h"
#include "engine/wal.h"
#include "shm/layout.h"
#include "shm/message.h"

namespace bidstore {

struct Effect {
    RecordType type = RecordType::kPutRow;
    TableEntry* table = nullptr;  // of row effects
    TableId table_id;
    std::uint32_t operation = 0;      // index of the operation that it comes from
    std::int32_t result = -1;         // index into results to fill in when applied
    std::span<const std::byte> key;   // lower bound of a range
    std::span<const std::byte> body;  // as logged
    // The resulting row of kPutRow, kUpdateColumns and kAddColumn, as put_row() takes it: large
    // columns whole where they are new, as references where they stay.
    std::span<const std::byte> value;
    PageId leaf;  // of the first effect's row, which no other one has moved
};

struct EffectCounts {
    std::uint64_t rows_put = 0;
    std::uint64_t rows_deleted = 0;
};

// Applies one effect to the trees. Pages are resident, room is there. Returns rows deleted.
std::uint64_t apply_effect(const Effect& effect, Catalog& catalog);

class Executor {
  public:
    enum class State : std::uint8_t {
        kReady,    // apply() may follow, once room is secured
        kRefused,  // error(), failed_operation()
        kMissing,  // missing() has to be brought in; evaluate again from the start
    };

    explicit Executor(Catalog& catalog) : catalog_(catalog), heads_(kBuckets, -1) {}

    // `payload` must stay as it is until apply().
    State evaluate(std::span<const std::byte> payload, Rights rights);

    Error error() const { return error_; }
    std::uint32_t failed_operation() const { return failed_operation_; }
    PageId missing() const { return missing_; }
    Durability durability() const { return durability_; }
    std::uint32_t operation_count() const { return operation_count_; }

    // What apply() may need at most; the caller adds what it changes beside.
    RoomEstimate& room() { return room_; }
    // The extents that it takes; room() has the sum of their pages.
    std::span<const ExtentNeed> extents_needed() const { return extents_needed_; }
    // It only takes away: may use the reserve of a full file.
    bool only_deletes() const { return only_deletes_; }
    std::uint32_t log_bytes() const { return log_bytes_; }

    // Changes the trees in the open batch and appends the records; results are complete then.
    EffectCounts apply(Wal& wal);
    const std::vector<std::int64_t>& results() const { return results_; }

  private:
    struct Operation;
    struct Row {
        bool found = false;
        std::span<const std::byte> value;
    };

    static Effect row_effect(RecordType type, const Operation& operation,
                             std::span<const std::byte> body, std::span<const std::byte> value);
    State refuse(Error error);
    State need(PageId page);
    State run(const Operation& operation);
    State check(const Operation& operation);
    State put(const Operation& operation);
    State update(const Operation& operation);
    State add(const Operation& operation);
    State erase(const Operation& operation);
    State erase_range(const Operation& operation);
    State create_table(const Operation& operation);
    State drop_table(const Operation& operation);
    State set_table(const Operation& operation);
    State look_up(const Operation& operation, Row& row, Lookup& stored);
    void change(const Effect& effect, const Lookup& stored);
    State compare_column(const Operation& operation, std::uint32_t column, const Row& row,
                         std::span<const std::byte> expected, bool& equal);
    State look_beside(const Operation& operation, const std::byte* hi, std::uint64_t rows);
    bool from_overlay(const Operation& operation, Row& row) const;
    void count_runs(const Operation& operation, const Row& row);
    void push(Effect effect);
    void index(std::uint32_t effect);

    Catalog& catalog_;
    Arena arena_;
    std::vector<Effect> effects_;
    std::vector<std::int64_t> results_;
    // Overlay: effects on rows by hash of table and key, newest first; ranges one by one.
    static constexpr std::uint32_t kBuckets = 1024;
    std::vector<std::int32_t> heads_;
    std::vector<std::int32_t> chain_;
    std::vector<std::uint32_t> used_buckets_;
    std::vector<std::uint32_t> ranges_;

    Error error_ = Error::kOk;
    std::uint32_t failed_operation_ = 0;
    std::uint32_t operation_ = 0;
    std::uint32_t operation_count_ = 0;
    PageId missing_;
    Durability durability_ = Durability::kDurable;
    RoomEstimate room_;
    std::vector<ExtentNeed> extents_needed_;
    bool only_deletes_ = true;
    std::uint64_t range_rows_ = 0;  // of all delete ranges so far
    std::uint32_t log_bytes_ = 0;
};

// Calls visit(column, content) -> bool for each of a list of ColumnValue (shm/message.h); false
// when it is malformed, or visit() said so.
template <class Visit>
bool each_column(std::span<const std::byte> columns, Visit visit) {
    while (!columns.empty()) {
        if (columns.size() < sizeof(ColumnValue)) return false;
        ColumnValue header;
        std::memcpy(&header, columns.data(), sizeof header);
        const std::uint64_t whole = align_up(sizeof header + header.value_bytes, 8);
        if (whole > columns.size()) return false;
        if (!visit(header.column, columns.subspan(sizeof header, header.value_bytes))) return false;
        columns = columns.subspan(whole);
    }
    return true;
}

// A row with some columns replaced (a list of ColumnValue, shm/message.h), in the arena; `old` and
// the result may refer to large values (put_row). Empty when the list is malformed, names a key
// column, or has a content that is too long.
std::span<const std::byte> patched_row(const Schema& schema, std::span<const std::byte> old,
                                       std::span<const std::byte> columns, Arena& arena);

// old + delta within the column's type; kOutOfRange otherwise.
Result<std::uint64_t> added(ColumnType type, std::uint64_t old_bits, std::int64_t delta);

// A copy of the row with an integer column set to `bits`.
std::span<const std::byte> with_integer(const Schema& schema, std::uint32_t column,
                                        std::span<const std::byte> old, std::uint64_t bits,
                                        Arena& arena);

}  // namespace bidstore
