// The sink of the tool's import: rows into the store, many to a transaction, several transactions
// under way at a time.
//
// Who:    one thread.
// Order:  transactions are sent in the order of the rows, and the engine applies them so. The rows
//         of a refused one are sent again after others that were under way by then, so two that
//         have a row's key in common are never under way together: the later one waits.
// Memory: at most `in_flight` transactions of kTransactionBytesMax, and the lines they came from.
// Errors: what a single row did wrong (kExists, kOutOfRange, ...) goes to the RefusalLog with its
//         line, after its transaction was tried again in halves; everything else is final.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "clientlib/bidstore.h"
#include "clientlib/import.h"
#include "clientlib/tool_options.h"

namespace bidstore {

class StoreSink final : public RowSink {
  public:
    // `wait_until` gives the deadline of a wait that begins now.
    StoreSink(Store& store, std::vector<RawTable> tables, RefusalLog& refusals,
              std::uint32_t in_flight, std::function<Deadline()> wait_until);
    ~StoreSink() override;

    Status write(const MappedRecord& record) override;
    Status finish() override;

    std::uint64_t rows_written() const { return rows_written_; }
    std::uint64_t transactions() const { return transactions_; }

  private:
    struct Record;
    struct Sent;

    void append(RawTransaction& transaction, const Record& record) const;
    Status send();
    // Waits for those under way that have a key of the open transaction.
    Status settle_same_keys();
    Status settle_oldest();
    Status retry(std::span<const Record> records);

    Store& store_;
    std::vector<RawTable> tables_;
    RefusalLog& refusals_;
    std::uint32_t in_flight_max_;
    std::function<Deadline()> wait_until_;
    // How many operations go into a transaction: fewer after the store called one too large.
    std::uint32_t operations_max_;
    RawTransaction open_;
    std::vector<Record> open_records_;
    std::vector<std::uint64_t> open_keys_;  // hashes: two keys with one hash count as the same
    std::deque<Sent> in_flight_;
    std::uint64_t sent_ = 0;  // transactions; the oldest under way has number settled_
    std::uint64_t settled_ = 0;
    std::unordered_map<std::uint64_t, std::uint64_t> newest_of_key_;  // the one that sent it last
    std::uint64_t rows_written_ = 0;
    std::uint64_t transactions_ = 0;
};

}  // namespace bidstore
