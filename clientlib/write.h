// Transactions as bytes: what tools use as it is, and what the typed Transaction of bidstore.h
// stands on.
//
// Who:    one thread at a time builds; building does no I/O. A built transaction may be committed
//         any number of times, each time as a new write.
// Errors: a building step that makes no sense is remembered and comes back from commit().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "clientlib/read.h"
#include "shm/error.h"
#include "shm/message.h"

namespace bidstore {

struct AddOptions {
    // A sum beyond them is refused, with kBelowFloor or kAboveCeiling, and nothing is done.
    std::optional<std::int64_t> floor = std::nullopt;
    std::optional<std::int64_t> ceiling = std::nullopt;
    // A missing row starts as zeros and empty columns. In a table with a retention whose time is
    // not part of the key it is dead at once, for all readers: put the row first, with its time.
    bool create = false;
    bool want_result = false;  // Committed::results gets the value after the add
};

// Preconditions and operations, applied all or not at all, in order; each sees those before it.
class RawTransaction {
  public:
    RawTransaction();
    // What was moved from is empty.
    RawTransaction(RawTransaction&& other) noexcept;
    RawTransaction& operator=(RawTransaction&& other) noexcept;
    RawTransaction(const RawTransaction&) = default;
    RawTransaction& operator=(const RawTransaction&) = default;

    // The row must be there, must not be there, must have these bytes in that column.
    void require_present(const RawTable& table, std::span<const std::byte> key);
    void require_absent(const RawTable& table, std::span<const std::byte> key);
    void require_equals(const RawTable& table, std::span<const std::byte> key,
                        std::uint32_t column, std::span<const std::byte> value);

    void put(const RawTable& table, std::span<const std::byte> key,
             std::span<const std::byte> value);
    void insert(const RawTable& table, std::span<const std::byte> key,
                std::span<const std::byte> value);
    // One value column of a row that is there. Calls for the same row one after another join.
    void update(const RawTable& table, std::span<const std::byte> key, std::uint32_t column,
                std::span<const std::byte> value);
    void add(const RawTable& table, std::span<const std::byte> key, std::uint32_t column,
             std::int64_t delta, const AddOptions& options = {});
    void erase(const RawTable& table, std::span<const std::byte> key, bool if_present = false);
    // Lower inclusive, upper exclusive, empty: no bound. want_result: the number of rows deleted.
    void erase_range(const RawTable& table, std::span<const std::byte> lower,
                     std::span<const std::byte> upper, bool want_result = false);

    // Rights kAdmin, each alone in its transaction. create_table's result: the table's id.
    void create_table(const Schema& schema, const TableAttributes& attributes = {});
    void set_table(TableId table, const TableAttributes& attributes);
    void drop_table(TableId table);

    std::uint32_t operation_count() const;
    std::uint32_t result_count() const { return result_count_; }
    bool empty() const { return operation_count() == 0; }
    // Keeps its memory: what is built again and again in one object allocates nothing.
    void clear();

    // The first mistake made while building, or ok.
    const Status& status() const { return status_; }
    // Whether all tables that it names are of that file.
    bool fits_file(const FileUuid& file) const { return !file_ || *file_ == file; }
    // TransactionHeader and operations (shm/message.h).
    std::span<const std::byte> bytes() const { return bytes_; }

  protected:
    void append(OperationKind kind, std::uint8_t flags, TableId table,
                std::span<const std::byte> key, std::span<const std::byte> body);
    void fail(Error code, std::string what);

  private:
    bool table_fits(const RawTable& table);
    bool key_fits(const RawTable& table, std::span<const std::byte> key);
    bool value_fits(const RawTable& table, std::span<const std::byte> value);
    bool column_fits(const RawTable& table, std::uint32_t column,
                     std::span<const std::byte> value);
    void swap(RawTransaction& other) noexcept;
    bool updates_same_row(const RawTable& table, std::span<const std::byte> key) const;

    std::vector<std::byte> bytes_;
    std::vector<std::byte> body_;  // of the operation that is added, kept for the next one
    std::size_t last_update_ = 0;  // offset of the newest operation when it is an update
    std::uint32_t result_count_ = 0;
    std::optional<FileUuid> file_;  // of the tables so far
    Status status_;
};

// An applied transaction.
struct Committed {
    // Of its batch; a snapshot with csn() at or above it sees it. 0 when the answer was lost with
    // an earlier daemon and the next one knew only that the write had been applied.
    Csn csn;
    // One for each operation that wanted a result, in order. Empty when csn is 0.
    std::vector<std::int64_t> results;
};

struct KeptWrite;

// A write that was submitted and may not have its answer yet. Dropping it does not undo the write.
class Pending {
  public:
    Pending(Pending&&) noexcept;
    Pending& operator=(Pending&&) noexcept;
    ~Pending();

    // Waits for the answer. After kTimedOut the write is still under way: wait() again, or leave
    // it.
    Result<Committed> wait(Deadline deadline);
    // Whether wait() would return at once. No system call while the daemon answers. One that went
    // away is noticed, but nothing here waits for the next one: only reads, submits and wait()
    // connect to it, so who polls should now and then wait for a moment.
    bool done() const;

  private:
    friend class Store;
    Pending(std::shared_ptr<StoreState> store, std::shared_ptr<KeptWrite> write);
    std::shared_ptr<StoreState> store_;
    std::shared_ptr<KeptWrite> write_;
};

}  // namespace bidstore
