#include "clientlib/load.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "clientlib/attach.h"
#include "engine/page/chunk.h"
#include "shm/message.h"

namespace bidstore {
namespace {

constexpr std::size_t kRecordBytes = 120u << 10;  // as far as the ring allows

std::vector<std::byte> step_bytes(LoadStep step, std::uint64_t rows) {
    const LoadRequest request{step, 0, rows};
    std::vector<std::byte> bytes(sizeof request);
    std::memcpy(bytes.data(), &request, sizeof request);
    return bytes;
}

}  // namespace

struct TableLoad::Sent {
    Call call;
    std::uint64_t first_row = 0;
};

TableLoad::TableLoad(std::shared_ptr<Connection> connection, const Schema& schema)
    : connection_(std::move(connection)),
      name_(schema.name()),
      variable_(schema.has_variable()),
      row_bytes_(schema.key_bytes() + schema.fixed_bytes()) {
    const std::size_t most = connection_->ring().payload_bytes_max();
    record_bytes_ = std::min(most, kRecordBytes);
    row_bytes_max_ = std::min<std::size_t>(most, kTransactionBytesMax);
    packed_ = step_bytes(LoadStep::kRows, 0);
}
TableLoad::TableLoad(TableLoad&&) noexcept = default;
TableLoad& TableLoad::operator=(TableLoad&&) noexcept = default;
TableLoad::~TableLoad() = default;

Result<TableLoad> TableLoad::begin(const AttachOptions& options, const Schema& schema,
                                   Deadline deadline) {
    AttachOptions as_admin = options;
    as_admin.rights = Rights::kAdmin;
    auto connection =
        connect_to_daemon(as_admin, SessionBytes{}, options.wait_for_daemon, deadline);
    if (!connection.ok()) return connection.failure();
    TableLoad load(std::move(*connection), schema);
    const std::string encoded = schema.encode();
    std::vector<std::byte> record = step_bytes(LoadStep::kBegin, 0);
    const auto bytes = std::as_bytes(std::span(encoded.data(), encoded.size()));
    record.insert(record.end(), bytes.begin(), bytes.end());
    if (Status sent = load.send(record, 0, deadline); !sent) return sent.failure();
    while (!load.sent_.empty()) {
        if (Status waited = load.wait_for_oldest(deadline); !waited) return waited.failure();
    }
    return load;
}

// ---- rows ---------------------------------------------------------------------------------------

Status TableLoad::add(std::span<const std::byte> key, std::span<const std::byte> value,
                      Deadline deadline) {
    const std::size_t length = key.size() + value.size() + (variable_ ? sizeof(std::uint32_t) : 0);
    // A row with large values goes alone when it fills a record, and may then be longer.
    if (length + sizeof(LoadRequest) > row_bytes_max_) {
        return {Error::kTooLarge, "row " + std::to_string(rows_ + 1) + " has " +
                                      std::to_string(length) + " bytes, more than the " +
                                      std::to_string(row_bytes_max_) +
                                      " that this ring carries: raise ring_bytes"};
    }
    if (packed_.size() + length > record_bytes_) {
        if (Status sent = send_packed(deadline); !sent) return sent;
    }
    if (variable_) {
        const auto value_bytes = static_cast<std::uint32_t>(value.size());
        const auto bytes = std::as_bytes(std::span(&value_bytes, 1));
        packed_.insert(packed_.end(), bytes.begin(), bytes.end());
    }
    packed_.insert(packed_.end(), key.begin(), key.end());
    packed_.insert(packed_.end(), value.begin(), value.end());
    ++packed_rows_;
    ++rows_;
    return {};
}

Status TableLoad::add_packed(std::span<const std::byte> rows, Deadline deadline) {
    if (variable_ || rows.size() % row_bytes_ != 0) {
        return {Error::kInvalid, name_ + ": not packed rows of " + std::to_string(row_bytes_) +
                                     " bytes each"};
    }
    while (!rows.empty()) {
        const std::size_t room = (record_bytes_ - packed_.size()) / row_bytes_ * row_bytes_;
        const auto part = rows.first(std::min(room, rows.size()));
        packed_.insert(packed_.end(), part.begin(), part.end());
        packed_rows_ += part.size() / row_bytes_;
        rows_ += part.size() / row_bytes_;
        rows = rows.subspan(part.size());
        if (rows.empty()) break;
        if (Status sent = send_packed(deadline); !sent) return sent;
    }
    return {};
}

// While answers are due it is the daemon that holds the load up, and nobody calls that silence.
Status TableLoad::keep_alive(Deadline deadline) {
    if (Status collected = collect(); !collected) return collected;
    if (sent_.empty()) return send(step_bytes(LoadStep::kRows, 0), 0, deadline);
    if (!connection_->hung_up()) return {};
    if (Status collected = collect(); !collected) return collected;
    return gone(false);
}

std::uint64_t TableLoad::file_pages_max() const {
    const PoolHeader& pool = connection_->pool().header();
    // The chunks' metadata, a frame each, may fill half of the pool.
    const std::uint64_t of_pool = std::uint64_t{pool.frame_count / 2} * kChunkPages;
    return std::min<std::uint64_t>(pool.page_count, of_pool);
}

Status TableLoad::send_packed(Deadline deadline) {
    if (packed_rows_ == 0) return {};
    const LoadRequest request{LoadStep::kRows, 0, packed_rows_};
    std::memcpy(packed_.data(), &request, sizeof request);
    Status sent = send(packed_, packed_rows_, deadline);
    packed_.resize(sizeof request);
    packed_rows_ = 0;
    return sent;
}

Status TableLoad::finish(Deadline deadline) {
    if (Status sent = send_packed(deadline); !sent) return sent;
    if (Status sent = send(step_bytes(LoadStep::kFinish, rows_), 0, deadline); !sent) return sent;
    finishing_ = true;
    while (!sent_.empty()) {
        if (Status waited = wait_for_oldest(deadline); !waited) return waited;
    }
    return {};
}

// ---- records and answers ------------------------------------------------------------------------

Status TableLoad::send(std::span<const std::byte> record, std::uint64_t rows, Deadline deadline) {
    for (;;) {
        if (Status collected = collect(); !collected) return collected;
        const std::optional<Call> call = connection_->claim_call();
        if (call && connection_->post(RecordKind::kLoad, record, *call, 0, 0)) {
            sent_.push_back({*call, rows_ - rows});
            return {};
        }
        if (call) connection_->release_call(*call);
        if (Status waited = wait_for_oldest(deadline); !waited) return waited;
    }
}

// Takes the answers that are there.
Status TableLoad::collect() {
    while (!sent_.empty() && connection_->answered(sent_.front().call)) {
        const Sent sent = sent_.front();
        const Answer answer = connection_->answer(sent.call);
        connection_->release_call(sent.call);
        sent_.pop_front();
        if (answer.error == Error::kOk) continue;
        const bool of_finish = finishing_ && sent_.empty();
        if (answer.error == Error::kStopping || answer.error == Error::kFenced ||
            answer.error == Error::kUnknownOutcome) {
            return gone(of_finish);
        }
        const bool of_a_row = answer.failed_operation != kNoOperation;
        return failure(answer.error, of_a_row ? sent.first_row + answer.failed_operation + 1 : 0);
    }
    return {};
}

Status TableLoad::wait_for_oldest(Deadline deadline) {
    if (sent_.empty()) return {Error::kBusy, name_ + ": no room in the ring of this process"};
    if (connection_->wait_slice(sent_.front().call, deadline)) return collect();
    if (connection_->hung_up()) {
        // What it said before it went counts.
        if (Status collected = collect(); !collected) return collected;
        return sent_.empty() && finishing_ ? Status{} : Status(gone(finishing_));
    }
    if (std::chrono::steady_clock::now() < deadline) return {};
    return {Error::kTimedOut, name_ + ": the load had no answer before the deadline; " +
                                  (finishing_ ? "the table may still come: look whether it is there"
                                              : "nothing is loaded once this process ends")};
}

// The daemon went away, or will not say any more what became of the load.
Failure TableLoad::gone(bool while_finished) const {
    if (while_finished) {
        return {Error::kUnknownOutcome,
                name_ + ": the daemon went away while the load was finished: look whether the "
                        "table is there, whole; if it is not, load again"};
    }
    return {Error::kDisconnected,
            name_ + ": the daemon ended the connection; nothing was loaded: load again"};
}

// `row`: counted from 1; 0: none.
Failure TableLoad::failure(Error error, std::uint64_t row) const {
    const std::string who = name_ + ": ";
    const std::string at = row == 0 ? "a row" : "row " + std::to_string(row);
    switch (error) {
        case Error::kTableExists:
            return {error, who + "the table has rows, and a load makes a new table or fills an "
                                 "empty one: use `bidstore import` to add rows to it"};
        case Error::kSchemaMismatch:
            return {error, who + "the table that is there has other columns: drop it, or load "
                                 "into another one"};
        case Error::kBusy:
            return {error, who + "it is being loaded already, or as many loads are under way as "
                                 "there may be: try again later (one that no rows came for in ten "
                                 "minutes is given up then)"};
        case Error::kDenied:
            return {error, who + "loading needs the rights of an admin, and a table of users"};
        case Error::kNoSpace:
            return {error, who + "there is no room: nothing was loaded; free some, or raise "
                                 "max_data_bytes"};
        case Error::kInvalid:
            return {Error::kPrecondition,
                    who + at + " is not above the one before, or is not of this table; rows that "
                               "are not in order are loaded without --sorted"};
        case Error::kTimedOut:
            return {error, who + "no rows came for ten minutes, while writers, a compaction or "
                                 "another load waited for what this one keeps: nothing was "
                                 "loaded; load from a file, or when rows come without a pause"};
        case Error::kTooLarge:
            return {error, who + "its rows touch more chunks than pool_bytes and journal_bytes "
                                 "have room for: raise them"};
        default:
            return {error, who + "the load was refused: " + std::string(error_name(error))};
    }
}

}  // namespace bidstore
