#include "clientlib/tool_sink.h"

#define XXH_INLINE_ALL  // header only
#include <xxhash.h>

#include <algorithm>
#include <utility>

namespace bidstore {
namespace {

// A transaction goes out before it could grow beyond its limits.
constexpr std::size_t kBytesPerTransaction = 48u << 10;
constexpr std::uint32_t kOperationsPerTransaction = 900;
static_assert(kBytesPerTransaction + 4 * kPageBytes <= kTransactionBytesMax);
// Keys that are remembered before those of settled transactions are forgotten.
constexpr std::size_t kKeysKept = 64u << 10;

struct KeptChange {
    std::uint16_t column = 0;
    bool is_add = false;
    std::int64_t delta = 0;
    std::vector<std::byte> bytes;
};

struct KeptRow {
    std::uint32_t table = 0;
    RowMode mode = RowMode::kPut;
    std::vector<std::byte> key;
    std::vector<std::byte> value;
    std::vector<KeptChange> changes;
};

KeptRow keep(const MappedRow& row) {
    KeptRow kept{row.table, row.mode, {row.key.begin(), row.key.end()},
                 {row.value.begin(), row.value.end()}, {}};
    for (const ColumnChange& change : row.changes) {
        kept.changes.push_back({change.column, change.is_add, change.delta,
                                {change.bytes.begin(), change.bytes.end()}});
    }
    return kept;
}

// Whether an error is about what a row says, so that the other rows may pass.
bool is_the_rows_own(Error error) {
    return error == Error::kExists || error == Error::kOutOfRange || error == Error::kTooLarge ||
           error == Error::kInvalid || error == Error::kNotFound ||
           error == Error::kBelowFloor || error == Error::kAboveCeiling;
}

}  // namespace

struct StoreSink::Record {
    std::uint64_t line = 0;
    std::string text;
    std::vector<KeptRow> rows;
};

struct StoreSink::Sent {
    Pending pending;
    std::vector<Record> records;
};

StoreSink::StoreSink(Store& store, std::vector<RawTable> tables, RefusalLog& refusals,
                     std::uint32_t in_flight, std::function<Deadline()> wait_until)
    : store_(store),
      tables_(std::move(tables)),
      refusals_(refusals),
      in_flight_max_(in_flight),
      wait_until_(std::move(wait_until)),
      operations_max_(kOperationsPerTransaction) {}
StoreSink::~StoreSink() = default;

void StoreSink::append(RawTransaction& transaction, const Record& record) const {
    for (const KeptRow& row : record.rows) {
        const RawTable& table = tables_[row.table];
        if (row.mode == RowMode::kPut) transaction.put(table, row.key, row.value);
        if (row.mode == RowMode::kInsert) transaction.insert(table, row.key, row.value);
        for (const KeptChange& change : row.changes) {
            AddOptions create;
            create.create = true;
            if (change.is_add) {
                transaction.add(table, row.key, change.column, change.delta, create);
            } else {
                transaction.update(table, row.key, change.column, change.bytes);
            }
        }
    }
}

Status StoreSink::write(const MappedRecord& record) {
    if (record.rows.empty()) return {};
    Record kept{record.line, std::string(record.text), {}};
    for (const MappedRow& row : record.rows) {
        kept.rows.push_back(keep(row));
        open_keys_.push_back(XXH3_64bits_withSeed(row.key.data(), row.key.size(), row.table));
    }
    append(open_, kept);
    open_records_.push_back(std::move(kept));
    const bool full = open_.bytes().size() >= kBytesPerTransaction ||
                      open_.operation_count() >= operations_max_;
    return full ? send() : Status();
}

Status StoreSink::settle_same_keys() {
    std::uint64_t before = 0;  // all with lower numbers
    for (const std::uint64_t key : open_keys_) {
        auto& newest = newest_of_key_.try_emplace(key, sent_).first->second;
        const std::uint64_t number = std::exchange(newest, sent_);
        if (number != sent_) before = std::max(before, number + 1);
    }
    while (settled_ < before) {
        if (Status settled = settle_oldest(); !settled) return settled;
    }
    open_keys_.clear();
    if (newest_of_key_.size() > kKeysKept) {
        std::erase_if(newest_of_key_, [this](const auto& key) { return key.second < settled_; });
    }
    return {};
}

Status StoreSink::send() {
    if (Status settled = settle_same_keys(); !settled) return settled;
    while (in_flight_.size() >= in_flight_max_) {
        if (Status settled = settle_oldest(); !settled) return settled;
    }
    auto pending = store_.submit(open_, wait_until_());
    if (!pending) return pending.failure();
    in_flight_.push_back({std::move(*pending), std::move(open_records_)});
    ++sent_;
    open_records_.clear();
    open_.clear();
    return {};
}

Status StoreSink::settle_oldest() {
    Sent& oldest = in_flight_.front();
    auto committed = oldest.pending.wait(wait_until_());
    ++transactions_;
    Status status;
    if (committed.ok()) {
        for (const Record& record : oldest.records) rows_written_ += record.rows.size();
    } else if (is_the_rows_own(committed.error())) {
        status = retry(oldest.records);
    } else {
        status = {committed.error(),
                  "lines " + std::to_string(oldest.records.front().line) + " to " +
                      std::to_string(oldest.records.back().line) + ": " +
                      committed.failure().what};
    }
    in_flight_.pop_front();
    ++settled_;
    return status;
}

// All of the records in a transaction of their own, or, when that is refused, each half in one.
Status StoreSink::retry(std::span<const Record> records) {
    RawTransaction transaction;
    for (const Record& record : records) append(transaction, record);
    auto committed = store_.commit(transaction, wait_until_());
    ++transactions_;
    if (committed.ok()) {
        for (const Record& record : records) rows_written_ += record.rows.size();
        return {};
    }
    if (!is_the_rows_own(committed.error())) return committed.failure();
    const Record& first = records.front();
    if (records.size() == 1) {
        return refusals_.refuse(first.line, first.text, committed.failure(), {});
    }
    if (committed.error() == Error::kTooLarge) {
        operations_max_ = std::min(operations_max_, transaction.operation_count() / 2);
    }
    const std::size_t half = records.size() / 2;
    if (Status lower = retry(records.first(half)); !lower) return lower;
    return retry(records.subspan(half));
}

Status StoreSink::finish() {
    if (!open_.empty()) {
        if (Status sent = send(); !sent) return sent;
    }
    while (!in_flight_.empty()) {
        if (Status settled = settle_oldest(); !settled) return settled;
    }
    return {};
}

}  // namespace bidstore
