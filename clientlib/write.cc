// Writes: transactions as bytes, and what their answers mean.

#include "clientlib/write.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "clientlib/session.h"
#include "engine/page/row.h"
#include "shm/hot_path.h"

namespace bidstore {
namespace {

template <class T>
void append_object(std::vector<std::byte>& to, const T& object) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::size_t at = to.size();
    to.resize(at + sizeof object);
    std::memcpy(to.data() + at, &object, sizeof object);
}

void append_padded(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
    to.insert(to.end(), bytes.begin(), bytes.end());
    to.resize(align_up(to.size(), 8));
}

// A column and its content, as they follow an operation, in place of what `body` had.
void column_value(std::vector<std::byte>& body, std::uint32_t column,
                  std::span<const std::byte> value) {
    body.clear();
    kept_reserve(body, sizeof(ColumnValue) + value.size() + 8);
    append_object(body, ColumnValue{static_cast<std::uint16_t>(column), 0,
                                    static_cast<std::uint32_t>(value.size())});
    append_padded(body, value);
}

std::string_view kind_name(OperationKind kind) {
    switch (kind) {
        case OperationKind::kCheckPresent: return "require_present in";
        case OperationKind::kCheckAbsent: return "require_absent in";
        case OperationKind::kCheckEquals: return "require_equals in";
        case OperationKind::kPut: return "put into";
        case OperationKind::kInsert: return "insert into";
        case OperationKind::kUpdate: return "update of";
        case OperationKind::kAdd: return "add to";
        case OperationKind::kDelete: return "erase from";
        case OperationKind::kDeleteRange: return "erase_range from";
        case OperationKind::kCreateTable: return "create_table";
        case OperationKind::kDropTable: return "drop_table of";
        case OperationKind::kSetTable: return "set_table of";
    }
    return "operation on";
}

std::string_view meaning(Error error) {
    switch (error) {
        case Error::kNotFound: return "no such row";
        case Error::kExists: return "the row is there already";
        case Error::kPrecondition: return "the precondition does not hold";
        case Error::kBelowFloor: return "the sum would be below the floor";
        case Error::kAboveCeiling: return "the sum would be above the ceiling";
        case Error::kOutOfRange: return "the value does not fit the column's type";
        case Error::kBusy: return "the daemon has no room for it now: try again";
        case Error::kDenied: return "this connection does not have the rights: attach with more, "
                                    "and see the daemon's config";
        case Error::kTooLarge: return "too large: split the transaction";
        case Error::kNoSuchTable: return "the table is not there: open it again";
        case Error::kTableExists: return "a table of that name is there";
        case Error::kNoSpace:
            return "the data file is full (the file system, or max_data_bytes: the daemon's log "
                   "says which): make room, or delete rows; reads go on";
        case Error::kReadOnly: return "the store accepts no writes now (disk full?): see the "
                                      "daemon's log";
        default: return error_name(error);
    }
}

// Of a transaction as a whole, which is within the limits of the interface.
std::string_view too_large(std::uint32_t limit) {
    switch (limit) {
        case kLimitPool:
            return "it reads or changes more pages than two fifths of the pool hold: split it (a "
                   "range into smaller ones), or raise pool_bytes in the daemon's config";
        case kLimitJournal:
            return "its pages may fill more than half of the checkpoint's journal: split it, or "
                   "raise journal_bytes in the daemon's config";
        case kLimitLog:
            return "its records fill more than half of what a batch of the log takes: split it, "
                   "or raise log_segment_bytes in the daemon's config";
        default:
            return "it has more operations or asks for more results than a transaction may: split "
                   "it";
    }
}

// Of one operation.
std::string_view too_large(OperationKind kind) {
    switch (kind) {
        case OperationKind::kDeleteRange:
            return "the ranges of this transaction have more than 200000 rows: erase smaller ones";
        case OperationKind::kCreateTable:
            return "the schema does not fit a row of the catalog: fewer columns, or shorter names";
        case OperationKind::kUpdate:
        case OperationKind::kAdd:
            return "the rows that this transaction changes have more than 16 MiB, each counted as "
                   "often as it is changed: split it";
        default:
            return "too large: split the transaction";
    }
}

// The header of operation `index` in a transaction that this library encoded.
OperationHeader operation_at(std::span<const std::byte> bytes, std::uint32_t index) {
    std::size_t offset = sizeof(TransactionHeader);
    OperationHeader operation{};
    for (std::uint32_t i = 0; offset + sizeof operation <= bytes.size(); ++i) {
        std::memcpy(&operation, bytes.data() + offset, sizeof operation);
        if (i == index) break;
        offset += align_up(sizeof operation + operation.key_bytes + operation.body_bytes, 8);
    }
    return operation;
}

}  // namespace

// ---- building -----------------------------------------------------------------------------------

RawTransaction::RawTransaction() { clear(); }

RawTransaction::RawTransaction(RawTransaction&& other) noexcept : RawTransaction() { swap(other); }

RawTransaction& RawTransaction::operator=(RawTransaction&& other) noexcept {
    if (this == &other) return *this;
    swap(other);
    other.clear();
    return *this;
}

void RawTransaction::swap(RawTransaction& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(body_, other.body_);
    std::swap(last_update_, other.last_update_);
    std::swap(result_count_, other.result_count_);
    std::swap(file_, other.file_);
    std::swap(status_, other.status_);
}

void RawTransaction::clear() {
    bytes_.clear();
    append_object(bytes_, TransactionHeader{0, Durability::kDurable});
    last_update_ = 0;
    result_count_ = 0;
    file_.reset();
    status_ = {};
}

std::uint32_t RawTransaction::operation_count() const {
    std::uint32_t count = 0;
    std::memcpy(&count, bytes_.data() + offsetof(TransactionHeader, operation_count),
                sizeof count);
    return count;
}

void RawTransaction::fail(Error code, std::string what) {
    if (!status_.ok()) return;
    status_ = {code, "operation " + std::to_string(operation_count()) + ": " + std::move(what)};
}

void RawTransaction::append(OperationKind kind, std::uint8_t flags, TableId table,
                            std::span<const std::byte> key, std::span<const std::byte> body) {
    if (!status_.ok()) return;
    const HotPath hot("an operation of a transaction");
    const std::size_t size = align_up(sizeof(OperationHeader) + key.size() + body.size(), 8);
    if (bytes_.size() + size > kTransactionBytesMax) {
        const ColdPath cold;
        return fail(Error::kTooLarge, "a transaction has at most " +
                                          std::to_string(kTransactionBytesMax) +
                                          " bytes: make several");
    }
    const std::uint32_t count = operation_count() + 1;
    if (count > kOperationsMax) {
        const ColdPath cold;
        return fail(Error::kTooLarge, "a transaction has at most " +
                                          std::to_string(kOperationsMax) +
                                          " operations: make several");
    }
    if ((flags & kWantResult) != 0 && ++result_count_ > kCallResults) {
        const ColdPath cold;
        return fail(Error::kTooLarge,
                    "a transaction gives at most " + std::to_string(kCallResults) + " results");
    }
    kept_reserve(bytes_, size + 8);
    std::memcpy(bytes_.data() + offsetof(TransactionHeader, operation_count), &count, sizeof count);
    last_update_ = kind == OperationKind::kUpdate ? bytes_.size() : 0;
    append_object(bytes_, OperationHeader{kind, flags, static_cast<std::uint16_t>(key.size()),
                                          table.value, static_cast<std::uint32_t>(body.size()),
                                          0});
    bytes_.insert(bytes_.end(), key.begin(), key.end());
    append_padded(bytes_, body);
}

bool RawTransaction::table_fits(const RawTable& table) {
    const FileUuid& file = table.info().file;
    if (!file_) file_ = file;
    if (*file_ == file) return true;
    fail(Error::kInvalid, "table " + table.name() +
                              " was opened on another store than the tables before it: make a "
                              "transaction for each store");
    return false;
}

bool RawTransaction::key_fits(const RawTable& table, std::span<const std::byte> key) {
    if (!table_fits(table)) return false;
    if (key.size() == table.schema().key_bytes()) return true;
    fail(Error::kInvalid, "a key of table " + table.name() + " has " +
                              std::to_string(table.schema().key_bytes()) + " bytes, not " +
                              std::to_string(key.size()));
    return false;
}

bool RawTransaction::value_fits(const RawTable& table, std::span<const std::byte> value) {
    if (table.schema().valid_value(value)) return true;
    fail(Error::kInvalid, "these " + std::to_string(value.size()) +
                              " bytes are no row value of table " + table.name());
    return false;
}

bool RawTransaction::column_fits(const RawTable& table, std::uint32_t column,
                                 std::span<const std::byte> value) {
    const Schema& schema = table.schema();
    if (column < schema.key_columns() || column >= schema.columns().size()) {
        fail(Error::kInvalid, "column " + std::to_string(column) + " of table " + table.name() +
                                  " is no value column");
        return false;
    }
    const Column& described = schema.columns()[column];
    const bool variable = is_variable(described.type);
    if (variable ? value.size() <= kLargeValueBytesMax : value.size() == described.width_bytes) {
        return true;
    }
    fail(variable ? Error::kTooLarge : Error::kInvalid,
         "column " + described.name + " of table " + table.name() + " does not take " +
             std::to_string(value.size()) + " bytes" +
             (variable ? "; a value has at most " + std::to_string(kLargeValueBytesMax) : ""));
    return false;
}

void RawTransaction::require_present(const RawTable& table, std::span<const std::byte> key) {
    if (key_fits(table, key)) append(OperationKind::kCheckPresent, 0, table.id(), key, {});
}

void RawTransaction::require_absent(const RawTable& table, std::span<const std::byte> key) {
    if (key_fits(table, key)) append(OperationKind::kCheckAbsent, 0, table.id(), key, {});
}

void RawTransaction::require_equals(const RawTable& table, std::span<const std::byte> key,
                                    std::uint32_t column, std::span<const std::byte> value) {
    if (!key_fits(table, key) || !column_fits(table, column, value)) return;
    column_value(body_, column, value);
    append(OperationKind::kCheckEquals, 0, table.id(), key, body_);
}

void RawTransaction::put(const RawTable& table, std::span<const std::byte> key,
                         std::span<const std::byte> value) {
    if (!key_fits(table, key) || !value_fits(table, value)) return;
    append(OperationKind::kPut, 0, table.id(), key, value);
}

void RawTransaction::insert(const RawTable& table, std::span<const std::byte> key,
                            std::span<const std::byte> value) {
    if (!key_fits(table, key) || !value_fits(table, value)) return;
    append(OperationKind::kInsert, 0, table.id(), key, value);
}

// Whether the newest operation is an update of this row, which another column may join.
bool RawTransaction::updates_same_row(const RawTable& table,
                                      std::span<const std::byte> key) const {
    if (last_update_ == 0 || !status_.ok()) return false;
    OperationHeader last{};
    std::memcpy(&last, bytes_.data() + last_update_, sizeof last);
    return last.table_id == table.id().value && last.key_bytes == key.size() &&
           std::memcmp(bytes_.data() + last_update_ + sizeof last, key.data(), key.size()) == 0;
}

void RawTransaction::update(const RawTable& table, std::span<const std::byte> key,
                            std::uint32_t column, std::span<const std::byte> value) {
    if (!key_fits(table, key) || !column_fits(table, column, value)) return;
    column_value(body_, column, value);
    if (!updates_same_row(table, key)) {
        return append(OperationKind::kUpdate, 0, table.id(), key, body_);
    }
    if (bytes_.size() + body_.size() + 8 > kTransactionBytesMax) {
        return fail(Error::kTooLarge,
                    "a transaction has at most " + std::to_string(kTransactionBytesMax) + " bytes");
    }
    OperationHeader last{};
    std::memcpy(&last, bytes_.data() + last_update_, sizeof last);
    // The body so far ends where the operation does, less the padding behind it.
    bytes_.resize(last_update_ + sizeof last + last.key_bytes + last.body_bytes);
    last.body_bytes += static_cast<std::uint32_t>(body_.size());
    std::memcpy(bytes_.data() + last_update_, &last, sizeof last);
    kept_reserve(bytes_, body_.size() + 8);
    append_padded(bytes_, body_);
}

void RawTransaction::add(const RawTable& table, std::span<const std::byte> key,
                         std::uint32_t column, std::int64_t delta, const AddOptions& options) {
    const Schema& schema = table.schema();
    if (!key_fits(table, key)) return;
    if (column < schema.key_columns() || column >= schema.columns().size() ||
        !is_integer(schema.columns()[column].type)) {
        return fail(Error::kInvalid, "column " + std::to_string(column) + " of table " +
                                         table.name() + " is no integer value column");
    }
    AddBody body{};
    body.column = static_cast<std::uint16_t>(column);
    body.has_floor = options.floor ? 1 : 0;
    body.has_ceiling = options.ceiling ? 1 : 0;
    body.delta = delta;
    body.floor = options.floor.value_or(0);
    body.ceiling = options.ceiling.value_or(0);
    const int flags = (options.create ? kCreate : 0) | (options.want_result ? kWantResult : 0);
    append(OperationKind::kAdd, static_cast<std::uint8_t>(flags), table.id(), key,
           std::as_bytes(std::span(&body, 1)));
}

void RawTransaction::erase(const RawTable& table, std::span<const std::byte> key,
                           bool if_present) {
    if (!key_fits(table, key)) return;
    append(OperationKind::kDelete, if_present ? kIfPresent : 0, table.id(), key, {});
}

void RawTransaction::erase_range(const RawTable& table, std::span<const std::byte> lower,
                                 std::span<const std::byte> upper, bool want_result) {
    if (!table_fits(table)) return;
    const std::size_t key_bytes = table.schema().key_bytes();
    if (lower.size() > key_bytes || upper.size() > key_bytes) {
        return fail(Error::kInvalid, "a bound of table " + table.name() + " has at most " +
                                         std::to_string(key_bytes) + " bytes");
    }
    // Zeros behind a prefix make it the least key that begins with it, as in scans.
    std::array<std::byte, kKeyBytesMax> from{};
    std::copy(lower.begin(), lower.end(), from.begin());
    std::array<std::byte, kKeyBytesMax> to{};
    std::copy(upper.begin(), upper.end(), to.begin());
    append(OperationKind::kDeleteRange, want_result ? kWantResult : 0, table.id(),
           std::span(from).first(key_bytes), std::span(to).first(upper.empty() ? 0 : key_bytes));
}

void RawTransaction::create_table(const Schema& schema, const TableAttributes& attributes) {
    const std::string encoded = schema.encode();
    append(OperationKind::kCreateTable, 0, TableId{}, std::as_bytes(std::span(&attributes, 1)),
           std::as_bytes(std::span(encoded)));
}

void RawTransaction::set_table(TableId table, const TableAttributes& attributes) {
    append(OperationKind::kSetTable, 0, table, {}, std::as_bytes(std::span(&attributes, 1)));
}

void RawTransaction::drop_table(TableId table) {
    append(OperationKind::kDropTable, 0, table, {}, {});
}

Transaction& Transaction::too_large(const RawTable& table) {
    fail(Error::kTooLarge, "a row of table " + table.name() + ": a variable-length column has at " +
                               "most " + std::to_string(kLargeValueBytesMax) +
                               " bytes, and a row not so many of them that " +
                               std::to_string(kReferenceBytesMax) + " bytes for each exceed " +
                               std::to_string(kRowBytesMax));
    return *this;
}

// ---- answers ------------------------------------------------------------------------------------

Result<Committed> StoreState::outcome(const KeptWrite& write) {
    const Answer& answer = write.answer;
    if (answer.error == Error::kOk) {
        return Committed{Csn{answer.csn}, {answer.result, answer.result + answer.result_count}};
    }
    if (answer.error == Error::kUnknownOutcome) {  // by StoreState::send_unsent
        return {answer.error,
                "write " + std::to_string(write.number) +
                    " had no answer when the daemon went away, and may have been applied: the "
                    "one that came back cannot be asked, since its ring does not carry the " +
                    std::to_string(write.bytes.size()) +
                    " bytes; raise its ring_bytes to what they were"};
    }
    std::string why(meaning(answer.error));
    const bool too_much = answer.error == Error::kTooLarge;
    if (answer.failed_operation >= kOperationsMax) {
        if (too_much) why = too_large(answer.failed_operation);
        return {answer.error, "transaction refused: " + why};
    }
    const OperationHeader operation = operation_at(write.bytes, answer.failed_operation);
    if (too_much) why = too_large(operation.kind);
    const bool has_table = operation.kind != OperationKind::kCreateTable;
    return {answer.error,
            "operation " + std::to_string(answer.failed_operation) + " (" +
                std::string(kind_name(operation.kind)) +
                (has_table ? " " + table_name(TableId{operation.table_id}) : std::string()) +
                "): " + why};
}

Pending::Pending(std::shared_ptr<StoreState> store, std::shared_ptr<KeptWrite> write)
    : store_(std::move(store)), write_(std::move(write)) {}
Pending::Pending(Pending&&) noexcept = default;
Pending& Pending::operator=(Pending&& other) noexcept {
    std::swap(store_, other.store_);
    std::swap(write_, other.write_);
    return *this;
}
Pending::~Pending() {
    if (write_) store_->give_back(std::move(write_));
}

Result<Committed> Pending::wait(Deadline deadline) { return store_->wait(*write_, deadline); }
bool Pending::done() const { return store_->done(*write_); }

}  // namespace bidstore
