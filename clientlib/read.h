// Reading encoded rows: what tools use as it is, and what the typed Table<T> of bidstore.h stands
// on.
//
// Who:    RawTable is read-only and may be shared by threads; everything taken from a Snapshot
//         belongs to the one thread that holds it.
// Errors: kSnapshotExpired, kTimedOut (a page did not come before the snapshot's deadline),
//         kNoSuchTable, kCorruption, kIoError, kDisconnected, kInvalid.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/page/schema.h"
#include "shm/error.h"

namespace bidstore {

// Every call that can wait ends at one. Bidders have one per auction: pass it down.
using Deadline = std::chrono::steady_clock::time_point;

class Reader;
class Snapshot;
class StoreState;
struct ReaderState;
struct TreeShape;

// A file's uuid in two words, which cost nothing to compare where a read begins.
struct FileUuid {
    std::uint64_t words[2]{};
    bool operator==(const FileUuid&) const = default;
};

// What the catalog says of a table. Never changes: a table that is dropped and made again is
// another table with another id.
struct TableInfo {
    TableId id;
    std::uint32_t index = 0;  // of this store, dense: where readers keep the table's root
    FileUuid file;            // whose table it is: another one has another under the id
    bool system = false;      // the catalog and the sessions: hidden from lists
    Schema schema;
    std::shared_ptr<const TreeShape> shape;  // engine/page/search.h
};

// A row in its page. Check snapshot.valid() after use: until it says yes, the bytes may be anything
// (but the spans never lead out of the page). The value is as the leaf stores it: a large column is
// empty to column_bytes(); clientlib/large_value.h reads it, and makes the row whole. The row ends
// with the snapshot that it was read under, and does not notice: a newer one of the same Reader
// does not protect its bytes, and its valid() is not about them.
struct RawRow {
    std::span<const std::byte> key;
    std::span<const std::byte> value;
    ReaderState* reader = nullptr;     // whose snapshot it was read under
    const TableInfo* table = nullptr;  // of the store, which outlives it
};

// A row of one's own, whole (engine/page/row.h).
struct RawCopy {
    std::vector<std::byte> key;
    std::vector<std::byte> value;
};

struct ScanOptions {
    std::uint64_t limit = ~std::uint64_t{0};  // rows
    bool reverse = false;                     // from the upper bound down
    // A row is the caller's until the next next() or copy() only, not until the snapshot ends;
    // behind a copy(), row() has it as before. The scan then lets go of the pages it came through,
    // and may read more of them than the pool holds. Without, those that are evicted meanwhile are
    // kept for it, and more than max_held_bytes of them cost the client its oldest snapshot; so do
    // they when other rows of the snapshot are held in place (peek, cursors that are not streaming,
    // large values that are not copied).
    bool streaming = false;
};

// Rows between two bounds, in key order or against it. Lives as long as its snapshot, at most.
//
//   while (cursor.next()) use(cursor.row());
//   if (auto status = cursor.status(); !status.ok()) forget everything;
//
// What was read is to be believed only after status() is ok, which looks at snapshot.valid().
// Leaves are read ahead; large values are not, since whether they are wanted shows only when one is
// looked at: multi_get() and prefetch() ask for those of many rows together.
class RawCursor {
  public:
    RawCursor(RawCursor&&) noexcept;
    RawCursor& operator=(RawCursor&&) noexcept;
    ~RawCursor();

    // Goes to the first or next row; false at the end and after a failure.
    bool next() {
        if (run_.rows == 0 || *run_.held != run_.snapshot) [[unlikely]]
            return next_run();
        --run_.rows;
        row_.key = {row_.key.data() + run_.key_step, row_.key.size()};
        row_.value = {row_.value.data() + run_.value_step, row_.value.size()};
        return true;
    }
    const RawRow& row() const { return row_; }
    // The row with its large values, checked. A streaming scan that waits for them holds nothing.
    Result<RawCopy> copy();
    // Ok while the scan got to where it is (or to its end) and the snapshot was valid all along.
    Status status() const;

    struct State;
    struct DeleteState {
        void operator()(State* state) const;
    };
    using StatePointer = std::unique_ptr<State, DeleteState>;

  private:
    friend class RawTable;
    // Rows behind row_ that need no look at anything but themselves: of its leaf, of one size, side
    // by side, within bounds and limit, all alive. So most rows cost a few instructions.
    struct Run {
        std::uint32_t rows = 0;
        std::ptrdiff_t key_step = 0;
        std::ptrdiff_t value_step = 0;
        std::uint64_t snapshot = 0;           // the number of the scan's, as long as
        const std::uint64_t* held = nullptr;  // the reader holds it
    };

    explicit RawCursor(StatePointer state);
    bool next_run();
    StatePointer state_;
    RawRow row_;
    Run run_;
};

// Of one call that reads many rows, unless it says otherwise: enough for a fast device.
inline constexpr std::size_t kPagesUnderWay = 64;

// Reads of one table by encoded keys. A row that the table's retention has expired in the snapshot
// is not there, in any of them. Bounds are key prefixes of 0 to key_bytes bytes, lower
// inclusive, upper exclusive; an empty one is no bound.
class RawTable {
  public:
    TableId id() const { return info_->id; }
    const std::string& name() const { return info_->schema.name(); }
    const Schema& schema() const { return info_->schema; }
    const TableInfo& info() const { return *info_; }
    // How long rows live, by their time; 0: for ever. As it was when this handle was opened.
    std::uint64_t retain_us() const { return retain_us_; }

    // The value's size when the row is there; its bytes are copied into `value`, which has room
    // for kRowBytesMax bytes (or, of a table without variable columns, for its fixed bytes). What
    // `value` holds without success means nothing. No allocation. kTooLarge: a row with large
    // values, which get() copies.
    Result<std::optional<std::uint32_t>> read(const Snapshot& snapshot,
                                              std::span<const std::byte> key,
                                              std::span<std::byte> value) const;
    Result<std::optional<RawCopy>> get(const Snapshot& snapshot,
                                       std::span<const std::byte> key) const;
    // In place: check snapshot.valid() after use.
    Result<std::optional<RawRow>> peek(const Snapshot& snapshot,
                                       std::span<const std::byte> key) const;
    // As peek, for many keys, whose searches overlap: a fraction of the time of one after the
    // other. One entry of `rows`, which has room for them, a key, in order; nothing in it means
    // anything after a failure. Pages that are not in the pool are asked for together, at most so
    // many under way at a time, and the next ones as these come. Allocates only then.
    Status peek_many(const Snapshot& snapshot, std::span<const std::span<const std::byte>> keys,
                     std::span<std::optional<RawRow>> rows,
                     std::size_t pages_under_way = kPagesUnderWay) const;
    // Copies of them, whole: of pages of large values as many again are under way, or those of one
    // row.
    Result<std::vector<std::optional<RawCopy>>> multi_get(
        const Snapshot& snapshot, std::span<const std::span<const std::byte>> keys,
        std::size_t pages_under_way = kPagesUnderWay) const;
    // Asks for the pages of these keys that are not in the pool, and waits for none of them: reads
    // of the keys that follow find them there or on their way. A hint, and no read: of a part of
    // the tree that is cold itself only the next level is asked for, and without room in the ring
    // nothing. The large values of rows whose leaf is there are asked for, too: as they come, until
    // it is 1,024 pages or a sixteenth of the pool. Waits only for the table's root, the first
    // time.
    Status prefetch(const Snapshot& snapshot,
                    std::span<const std::span<const std::byte>> keys) const;
    RawCursor scan(const Snapshot& snapshot, std::span<const std::byte> lower,
                   std::span<const std::byte> upper, ScanOptions options = {}) const;
    // The last n rows whose key begins with `prefix`, last one first.
    RawCursor newest(const Snapshot& snapshot, std::uint64_t n,
                     std::span<const std::byte> prefix) const;
    Result<std::uint64_t> count(const Snapshot& snapshot, std::span<const std::byte> lower,
                                std::span<const std::byte> upper) const;

    explicit RawTable(std::shared_ptr<const TableInfo> info, std::uint64_t retain_us = 0)
        : info_(std::move(info)), retain_us_(retain_us) {}

  private:
    RawCursor start_scan(const Snapshot& snapshot, std::size_t bound_bytes,
                         const ScanOptions& options) const;

    std::shared_ptr<const TableInfo> info_;
    std::uint64_t retain_us_ = 0;
};

// The smallest byte string above everything that begins with `prefix`: empty when there is none.
std::vector<std::byte> prefix_end(std::span<const std::byte> prefix);

}  // namespace bidstore
