// Bulk loading: a new table with all of its rows, or none, past the log.
//
//   begin ──► add, add, ... (keys rise) ──► finish      the table is there, durable, for everybody
//        └──────────── destroyed, process or daemon gone ──► nothing is left
//
// A daemon that goes away while finish() waits may have shown the table already, whole, in its log:
// kUnknownOutcome then, as for a write without an answer; so may one that has not answered at the
// deadline (kTimedOut). Look whether the table is there.
//
// It has a connection of its own, whose end ends the load. A table of that name must not be there,
// or be empty and of the same schema: the new one replaces it, and who had it open opens it again.
// Rows are packed and go to the daemon as ring records; it checks them and builds the pages.
//
// Who:    one thread per load; rights kAdmin.
// Room:   what the daemon cannot place any more fails the load at that row's record, not at
//         finish(): kNoSpace when no page is left, kTooLarge when the rows that came touch more
//         chunks than may be attached at once. How many rows come it is not told.
// Pauses: whoever sends nothing for ten minutes is given up as soon as others need what the load
//         keeps: its name, one of four places, pages (kTimedOut). Rows that add() only packs are
//         not sent. Who sorts first, or waits for long, calls keep_alive() meanwhile.
// Errors: kTableExists, kSchemaMismatch, kBusy, kDenied, kNoSpace, kPrecondition (keys that do not
//         rise, with the row's number), kTooLarge, kTimedOut, kDisconnected; of finish() also
//         kUnknownOutcome. After one of them nothing but destroying it makes sense, and nothing is
//         loaded but as said above.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "clientlib/bidstore.h"
#include "engine/page/schema.h"
#include "shm/error.h"

namespace bidstore {

class Connection;

class TableLoad {
  public:
    // The table's name is the schema's. AttachOptions::rights is not looked at.
    static Result<TableLoad> begin(const AttachOptions& options, const Schema& schema,
                                   Deadline deadline);
    TableLoad(TableLoad&&) noexcept;
    TableLoad& operator=(TableLoad&&) noexcept;
    ~TableLoad();

    // The key is above that of the row before. Deadlines are for room to send.
    Status add(std::span<const std::byte> key, std::span<const std::byte> value,
               Deadline deadline);
    // Rows of a schema without variable-length columns: key, value, one after another.
    Status add_packed(std::span<const std::byte> rows, Deadline deadline);
    // Rows are still to come: called at least each few minutes by whoever pauses for longer than
    // ten of them. It does not wait for the answer; the next call does that. Errors as add().
    Status keep_alive(Deadline deadline);
    // Waits until the table is there. kUnknownOutcome, kTimedOut: it may be there, or come.
    Status finish(Deadline deadline);

    std::uint64_t rows() const { return rows_; }
    // As many as the largest file has that max_data_bytes and pool_bytes allow: for callers that
    // know how many rows come, and would rather be refused before they send them.
    std::uint64_t file_pages_max() const;

  private:
    struct Sent;
    explicit TableLoad(std::shared_ptr<Connection> connection, const Schema& schema);
    Status send(std::span<const std::byte> record, std::uint64_t rows, Deadline deadline);
    Status send_packed(Deadline deadline);
    Status collect();
    Status wait_for_oldest(Deadline deadline);
    Failure failure(Error error, std::uint64_t row) const;
    Failure gone(bool while_finished) const;

    std::shared_ptr<Connection> connection_;
    std::string name_;
    bool variable_ = false;
    std::size_t row_bytes_ = 0;      // of fixed rows
    std::size_t record_bytes_ = 0;   // as much as a record takes
    std::size_t row_bytes_max_ = 0;  // or one that has a single row
    std::vector<std::byte> packed_;  // a LoadRequest and rows, not sent yet
    std::uint64_t packed_rows_ = 0;
    std::uint64_t rows_ = 0;  // sent, and packed_rows_
    bool finishing_ = false;  // the daemon was asked to show the table
    std::deque<Sent> sent_;   // without an answer, oldest first
};

}  // namespace bidstore
