#include "engine/executor.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory_resource>

#include "engine/large_rows.h"
#include "shm/hot_path.h"

#define XXH_INLINE_ALL  // header only
#include <xxhash.h>

namespace bidstore {
namespace {

// More rows in the ranges of one transaction take too long for one round of the engine.
constexpr std::uint64_t kRangeRowsMax = 200'000;

// Each change of a row keeps it whole until the transaction is applied. So much is enough for as
// many changes of rows of one page as a transaction has.
constexpr std::size_t kChangedBytesMax = 16u << 20;
static_assert(kChangedBytesMax >= 2 * std::size_t{kOperationsMax} * kPageBytes);

template <class T>
T load(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

std::uint64_t padded(std::uint64_t bytes) { return align_up(bytes, 8); }

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

int compare(std::span<const std::byte> a, std::span<const std::byte> b) {
    return std::memcmp(a.data(), b.data(), std::min(a.size(), b.size()));
}

}  // namespace

// ---- rows ----

std::span<const std::byte> patched_row(const Schema& schema, std::span<const std::byte> old,
                                       std::span<const std::byte> columns, Arena& arena) {
    std::byte* fixed = arena.take(schema.fixed_bytes());
    std::copy_n(old.begin(), schema.fixed_bytes(), fixed);
    std::array<std::byte, 1024> here;  // for all but the widest rows
    std::pmr::monotonic_buffer_resource memory(here.data(), here.size(), kept_memory());
    std::pmr::vector<ColumnContent> variable(schema.variable_columns(), &memory);
    const RowView before(schema, old);
    for (std::uint32_t i = 0; i < variable.size(); ++i) variable[i] = before.content(i);
    const bool fits = each_column(columns, [&](std::uint16_t column, auto content) {
        if (column < schema.key_columns() || column >= schema.columns().size()) return false;
        const Column& described = schema.columns()[column];
        if (is_variable(described.type)) {
            variable[schema.variable_index(column)] = {content, false};
            return content.size() <= kLargeValueBytesMax;
        }
        if (content.size() != described.width_bytes) return false;
        std::copy(content.begin(), content.end(), fixed + schema.offset_bytes(column));
        return true;
    });
    if (!fits) return {};
    const std::uint64_t length = row_value_bytes(schema, variable);
    std::byte* row = arena.take(length);
    write_row_value(row, schema, {fixed, schema.fixed_bytes()}, variable);
    return {row, length};
}

Result<std::uint64_t> added(ColumnType type, std::uint64_t old_bits, std::int64_t delta) {
    const auto width = static_cast<std::uint32_t>(
        1u << ((static_cast<std::uint32_t>(type) - 1) % 4));  // bytes: u8 … u64, i8 … i64
    __extension__ using Wide = __int128;
    const Wide old = is_signed(type) ? static_cast<Wide>(static_cast<std::int64_t>(old_bits))
                                     : static_cast<Wide>(old_bits);
    const Wide sum = old + delta;
    const Wide one = 1;
    const Wide low = is_signed(type) ? -(one << (8 * width - 1)) : 0;
    const Wide high = (one << (8 * width - (is_signed(type) ? 1 : 0))) - 1;
    if (sum < low || sum > high) {
        const ColdPath cold;
        return {Error::kOutOfRange, "sum does not fit the column"};
    }
    return static_cast<std::uint64_t>(sum);
}

std::span<const std::byte> with_integer(const Schema& schema, std::uint32_t column,
                                        std::span<const std::byte> old, std::uint64_t bits,
                                        Arena& arena) {
    std::byte* row = arena.take(old.size());
    std::copy(old.begin(), old.end(), row);
    std::memcpy(row + schema.offset_bytes(column), &bits, schema.columns()[column].width_bytes);
    return {row, old.size()};
}

// ---- evaluate ----

struct Executor::Operation {
    OperationHeader header;
    TableEntry* table = nullptr;
    std::span<const std::byte> key;
    std::span<const std::byte> body;
    bool wants_result() const { return header.flags & kWantResult; }
};

Effect Executor::row_effect(RecordType type, const Operation& operation,
                            std::span<const std::byte> body, std::span<const std::byte> value) {
    Effect effect;
    effect.type = type;
    effect.table = operation.table;
    effect.key = operation.key;
    effect.body = body;
    effect.value = value;
    return effect;
}

Executor::State Executor::refuse(Error error) {
    error_ = error;
    failed_operation_ = operation_;
    return State::kRefused;
}

Executor::State Executor::need(PageId page) {
    missing_ = page;
    return State::kMissing;
}

Executor::State Executor::evaluate(std::span<const std::byte> payload, Rights rights) {
    arena_.reset();
    effects_.clear();
    results_.clear();
    ranges_.clear();
    chain_.clear();
    for (const std::uint32_t bucket : used_buckets_) heads_[bucket] = -1;
    used_buckets_.clear();
    room_.reset();
    extents_needed_.clear();
    only_deletes_ = true;
    range_rows_ = 0;
    log_bytes_ = 0;
    operation_ = 0;
    operation_count_ = 0;
    if (payload.size() < sizeof(TransactionHeader)) return refuse(Error::kProtocol);
    if (payload.size() > kTransactionBytesMax) return refuse(Error::kTooLarge);
    const auto header = load<TransactionHeader>(payload.data());
    durability_ = header.durability;
    operation_count_ = header.operation_count;
    if (header.operation_count == 0 || header.operation_count > kOperationsMax) {
        return refuse(Error::kTooLarge);
    }
    payload = payload.subspan(sizeof header);
    for (; operation_ < header.operation_count; ++operation_) {
        if (payload.size() < sizeof(OperationHeader)) return refuse(Error::kProtocol);
        Operation operation;
        operation.header = load<OperationHeader>(payload.data());
        const std::uint64_t whole = padded(sizeof(OperationHeader) + operation.header.key_bytes +
                                           std::uint64_t{operation.header.body_bytes});
        if (whole > payload.size()) return refuse(Error::kProtocol);
        operation.key = payload.subspan(sizeof(OperationHeader), operation.header.key_bytes);
        operation.body = payload.subspan(sizeof(OperationHeader) + operation.header.key_bytes,
                                         operation.header.body_bytes);
        payload = payload.subspan(whole);
        const bool table_operation = operation.header.kind >= OperationKind::kCreateTable;
        if (rights < (table_operation ? Rights::kAdmin : Rights::kWriter)) {
            return refuse(Error::kDenied);
        }
        if (const State state = run(operation); state != State::kReady) return state;
        if (arena_.taken_bytes() > kChangedBytesMax) return refuse(Error::kTooLarge);
    }
    if (results_.size() > kCallResults) return refuse(Error::kTooLarge);
    return State::kReady;
}

Executor::State Executor::run(const Operation& wanted) {
    Operation operation = wanted;
    if (operation.header.kind == OperationKind::kCreateTable) return create_table(operation);
    operation.table = catalog_.find(TableId{operation.header.table_id});
    if (operation.table == nullptr || operation.table->hidden()) {
        return refuse(Error::kNoSuchTable);
    }
    if (operation.table->system()) return refuse(Error::kDenied);
    if (operation.header.kind == OperationKind::kDropTable) return drop_table(operation);
    if (operation.header.kind == OperationKind::kSetTable) return set_table(operation);
    if (operation.key.size() != operation.table->schema.key_bytes()) {
        return refuse(Error::kInvalid);
    }
    switch (operation.header.kind) {
        case OperationKind::kCheckPresent:
        case OperationKind::kCheckAbsent:
        case OperationKind::kCheckEquals:
            return check(operation);
        case OperationKind::kPut:
        case OperationKind::kInsert:
            return put(operation);
        case OperationKind::kUpdate:
            return update(operation);
        case OperationKind::kAdd:
            return add(operation);
        case OperationKind::kDelete:
            return erase(operation);
        case OperationKind::kDeleteRange:
            return erase_range(operation);
        case OperationKind::kCreateTable:
        case OperationKind::kDropTable:
        case OperationKind::kSetTable:
            break;
    }
    return refuse(Error::kProtocol);
}

// Whether an earlier effect of this transaction decides about the row.
bool Executor::from_overlay(const Operation& operation, Row& row) const {
    const std::uint64_t hash =
        XXH3_64bits_withSeed(operation.key.data(), operation.key.size(), operation.table->id.value);
    std::int32_t decided = -1;
    std::int32_t next = -1;
    for (std::int32_t i = heads_[hash % kBuckets]; i >= 0 && decided < 0; i = next) {
        const auto at = static_cast<std::uint32_t>(i);
        const Effect& effect = effects_[at];
        next = chain_[at];
        if (effect.table == operation.table && same(effect.key, operation.key)) decided = i;
    }
    for (const std::uint32_t range : ranges_) {
        const Effect& effect = effects_[range];
        if (effect.table != operation.table || static_cast<std::int32_t>(range) < decided) continue;
        if (compare(operation.key, effect.key) < 0) continue;
        if (effect.body.empty() || compare(operation.key, effect.body) < 0) {
            decided = static_cast<std::int32_t>(range);
        }
    }
    if (decided < 0) return false;
    const Effect& effect = effects_[static_cast<std::uint32_t>(decided)];
    row.found = effect.type != RecordType::kDeleteRow && effect.type != RecordType::kDeleteRange;
    row.value = effect.value;
    return true;
}

// kReady with the row as this transaction would see it now.
Executor::State Executor::look_up(const Operation& operation, Row& row, Lookup& stored) {
    stored = operation.table->tree.get(operation.key.data());
    if (stored.missing) return need(stored.missing);
    if (stored.corrupt) return refuse(Error::kCorruption);
    if (from_overlay(operation, row)) {
        // What this transaction wrote may be dead, too.
        row.found = row.found && operation.table->schema.live(operation.key.data(), row.value,
                                                              operation.table->tree.floor());
        return State::kReady;
    }
    row = {stored.found, stored.value};
    return State::kReady;
}

// An erased row may be its leaf's last one; what follows in this transaction then falls to a leaf
// beside it, and has to find that in the pool.
Executor::State Executor::look_beside(const Operation& operation, const std::byte* hi,
                                      std::uint64_t rows) {
    if (operation_ + 1 == operation_count_) return State::kReady;
    const TreeAccess beside = operation.table->tree.beside(operation.key.data(), hi, rows);
    if (beside.missing) return need(beside.missing);
    return beside.corrupt ? refuse(Error::kCorruption) : State::kReady;
}

void Executor::index(std::uint32_t effect) {
    const Effect& indexed = effects_[effect];
    const std::uint64_t hash =
        XXH3_64bits_withSeed(indexed.key.data(), indexed.key.size(), indexed.table->id.value);
    const auto bucket = static_cast<std::uint32_t>(hash % kBuckets);
    if (heads_[bucket] < 0) kept_push(used_buckets_, bucket);
    kept_reserve(chain_, effects_.size() - chain_.size());
    chain_.resize(effects_.size(), -1);
    chain_[effect] = heads_[bucket];
    heads_[bucket] = static_cast<std::int32_t>(effect);
}

void Executor::push(Effect effect) {
    effect.operation = operation_;
    effect.table_id = effect.table != nullptr ? effect.table->id : effect.table_id;
    log_bytes_ += Wal::record_bytes(effect.key.size(), effect.body.size());
    kept_push(effects_, effect);
    const auto added_at = static_cast<std::uint32_t>(effects_.size() - 1);
    if (effect.type == RecordType::kDeleteRange) {
        kept_push(ranges_, added_at);
    } else if (effect.table != nullptr && effect.type != RecordType::kDropTable) {
        index(added_at);
    }
}

// An effect on one row, of which `stored` says where it is now.
void Executor::change(const Effect& effect, const Lookup& stored) {
    push(effect);
    const Tree& tree = effect.table->tree;
    if (effect.type == RecordType::kDeleteRow) {
        room_.erase(tree, effect.key.data(), stored);
        return;
    }
    only_deletes_ = false;
    const Schema& schema = effect.table->schema;
    const std::size_t before = extents_needed_.size();
    append_extents(schema, effect.table->id, effect.value, extents_needed_);
    for (std::size_t i = before; i < extents_needed_.size(); ++i) {
        // What this transaction puts it may also replace.
        room_.add({0, 0, 0, extents_needed_[i].pages, 2 * kValueRunsMax});
    }
    room_.put(tree, effect.key.data(), stored_bytes_at_most(schema, effect.value), stored);
    if (effects_.size() == 1) effects_.back().leaf = stored.leaf;
}

Executor::State Executor::check(const Operation& operation) {
    Row row;
    Lookup stored;
    if (const State state = look_up(operation, row, stored); state != State::kReady) return state;
    if (operation.header.kind == OperationKind::kCheckPresent) {
        return row.found ? State::kReady : refuse(Error::kPrecondition);
    }
    if (operation.header.kind == OperationKind::kCheckAbsent) {
        return row.found ? refuse(Error::kPrecondition) : State::kReady;
    }
    if (!row.found) return refuse(Error::kPrecondition);
    const Schema& schema = operation.table->schema;
    bool equal = true;
    State state = State::kReady;
    const bool fits = each_column(operation.body, [&](std::uint16_t column, auto expected) {
        if (column >= schema.columns().size()) return false;
        if (state == State::kReady && equal) {
            state = compare_column(operation, column, row, expected, equal);
        }
        return true;
    });
    if (!fits) return refuse(Error::kInvalid);
    if (state != State::kReady) return state;
    return equal ? State::kReady : refuse(Error::kPrecondition);
}

Executor::State Executor::compare_column(const Operation& operation, std::uint32_t column,
                                         const Row& row, std::span<const std::byte> expected,
                                         bool& equal) {
    const Schema& schema = operation.table->schema;
    if (is_variable(schema.columns()[column].type)) {
        const ColumnContent content =
            RowView(schema, row.value).content(schema.variable_index(column));
        if (content.is_reference) {
            const auto reference = ValueReference::load(content.bytes);
            if (!reference || !catalog_.pages().has_extent(operation.table->id, *reference)) {
                return refuse(Error::kCorruption);
            }
            const ValueComparison compared = equals_large(catalog_.pages(), *reference, expected);
            if (compared.missing) return need(compared.missing);
            equal = compared.equal;
            return State::kReady;
        }
    }
    equal = same(column_bytes(schema, column, operation.key.data(), row.value), expected);
    return State::kReady;
}

// The extents of a row that is replaced or erased are freed, or get the time that it has now.
void Executor::count_runs(const Operation& operation, const Row& row) {
    if (!row.found) return;
    room_.add({0, 0, 0, 0, value_runs(operation.table->schema, row.value)});
}

Executor::State Executor::put(const Operation& operation) {
    Row row;
    Lookup stored;
    if (const State state = look_up(operation, row, stored); state != State::kReady) return state;
    if (operation.header.kind == OperationKind::kInsert && row.found) {
        return refuse(Error::kExists);
    }
    if (!operation.table->schema.valid_value(operation.body)) return refuse(Error::kInvalid);
    count_runs(operation, row);
    change(row_effect(RecordType::kPutRow, operation, operation.body, operation.body), stored);
    return State::kReady;
}

Executor::State Executor::update(const Operation& operation) {
    Row row;
    Lookup stored;
    if (const State state = look_up(operation, row, stored); state != State::kReady) return state;
    if (!row.found) return refuse(Error::kNotFound);
    const auto value = patched_row(operation.table->schema, row.value, operation.body, arena_);
    if (value.empty() || row_value_fault(operation.table->schema, value) != nullptr) {
        return refuse(Error::kInvalid);
    }
    count_runs(operation, row);
    change(row_effect(RecordType::kUpdateColumns, operation, operation.body, value), stored);
    return State::kReady;
}

Executor::State Executor::add(const Operation& operation) {
    if (operation.body.size() != sizeof(AddBody)) return refuse(Error::kProtocol);
    const auto body = load<AddBody>(operation.body.data());
    const Schema& schema = operation.table->schema;
    if (body.column < schema.key_columns() || body.column >= schema.columns().size() ||
        !is_integer(schema.columns()[body.column].type)) {
        return refuse(Error::kInvalid);
    }
    Row row;
    Lookup stored;
    if (const State state = look_up(operation, row, stored); state != State::kReady) return state;
    if (!row.found) {
        if (!(operation.header.flags & kCreate)) return refuse(Error::kNotFound);
        // Zeros are a valid row: every variable-length column ends at 0.
        const std::size_t length = schema.fixed_bytes() + 2 * schema.variable_columns();
        std::byte* zeros = arena_.take(length);
        std::memset(zeros, 0, length);
        row.value = {zeros, length};
    }
    const ColumnType type = schema.columns()[body.column].type;
    const std::uint64_t old = column_integer(schema, body.column, operation.key.data(), row.value);
    const Result<std::uint64_t> sum = added(type, old, body.delta);
    if (!sum) return refuse(sum.error());
    const auto below = [&](std::uint64_t a, std::int64_t b) {
        return type == ColumnType::kU64 ? a < static_cast<std::uint64_t>(b)
                                        : static_cast<std::int64_t>(a) < b;
    };
    const auto above = [&](std::uint64_t a, std::int64_t b) {
        return type == ColumnType::kU64 ? a > static_cast<std::uint64_t>(b)
                                        : static_cast<std::int64_t>(a) > b;
    };
    if (body.has_floor && below(*sum, body.floor)) return refuse(Error::kBelowFloor);
    if (body.has_ceiling && above(*sum, body.ceiling)) return refuse(Error::kAboveCeiling);
    const auto value = with_integer(schema, body.column, row.value, *sum, arena_);
    const LoggedAdd logged{body.column, 0, 0, body.delta, static_cast<std::int64_t>(*sum)};
    // A row that is made is logged whole: replay of an add finds the old value.
    const auto logged_bytes = arena_.copy(std::as_bytes(std::span(&logged, 1)));
    const bool made = !row.found;
    count_runs(operation, row);  // its time may be what is added to
    change(row_effect(made ? RecordType::kPutRow : RecordType::kAddColumn, operation,
                      made ? value : logged_bytes, value),
           stored);
    if (operation.wants_result()) kept_push(results_, static_cast<std::int64_t>(*sum));
    return State::kReady;
}

Executor::State Executor::erase(const Operation& operation) {
    Row row;
    Lookup stored;
    if (const State state = look_up(operation, row, stored); state != State::kReady) return state;
    if (!row.found) {
        return operation.header.flags & kIfPresent ? State::kReady : refuse(Error::kNotFound);
    }
    // A row that was put before may have split the leaf, a range have taken most of it: then it has
    // fewer rows than it had.
    const bool as_it_was = only_deletes_ && ranges_.empty();
    if (const State state = look_beside(operation, operation.key.data(),
                                        as_it_was ? operation_count_ : ~std::uint64_t{0});
        state != State::kReady) {
        return state;
    }
    count_runs(operation, row);
    change(row_effect(RecordType::kDeleteRow, operation, {}, {}), stored);
    return State::kReady;
}

Executor::State Executor::erase_range(const Operation& operation) {
    const Tree& tree = operation.table->tree;
    if (!operation.body.empty() && operation.body.size() != operation.key.size()) {
        return refuse(Error::kInvalid);
    }
    const RangeCost cost =
        tree.range_cost(operation.key.data(), key_bound(operation.body), kRangeRowsMax);
    if (cost.missing) return need(cost.missing);
    if (cost.corrupt) return refuse(Error::kCorruption);
    range_rows_ += cost.rows;
    if (range_rows_ > kRangeRowsMax) return refuse(Error::kTooLarge);
    if (const State state = look_beside(operation, key_bound(operation.body), ~std::uint64_t{0});
        state != State::kReady) {
        return state;
    }
    Effect effect = row_effect(RecordType::kDeleteRange, operation, operation.body, {});
    if (operation.wants_result()) {
        effect.result = static_cast<std::int32_t>(results_.size());
        kept_push(results_, 0);
    }
    push(effect);
    // Rows that this transaction put before may lie in the range: their pages are counted there.
    room_.erase_range(tree, cost);
    return State::kReady;
}

Executor::State Executor::create_table(const Operation& operation) {
    const ColdPath cold;
    Result<Schema> schema = Schema::decode(operation.body);
    if (!schema) return refuse(Error::kInvalid);
    if (operation_count_ != 1) return refuse(Error::kInvalid);  // one table, alone
    if (catalog_.find(std::string_view(schema->name())) != nullptr) {
        return refuse(Error::kTableExists);
    }
    if (catalog_row_bytes(*schema) > kRowBytesMax) return refuse(Error::kTooLarge);
    // The row of the catalog will be the last one: its place has to be resident.
    const TableId id = catalog_.next_id();
    if (id > kLastTable) return refuse(Error::kTooLarge);
    std::byte key[4];
    encode_key_integer(key, id.value, 4, false);
    const Lookup place = catalog_.catalog().tree.get(key);
    if (place.missing) return need(place.missing);
    if (place.corrupt) return refuse(Error::kCorruption);
    TableAttributes attributes{};
    if (!attributes_of(operation.key, *schema, attributes)) return refuse(Error::kInvalid);
    Effect effect;
    effect.type = RecordType::kCreateTable;
    effect.table_id = id;
    effect.key = operation.key;
    effect.body = operation.body;
    push(effect);
    only_deletes_ = false;
    room_.add({0, 1, 0});  // its root
    room_.put(catalog_.catalog().tree, key, catalog_row_bytes(*schema), place);
    results_.push_back(id.value);
    return State::kReady;
}

Executor::State Executor::set_table(const Operation& operation) {
    TableAttributes attributes{};
    if (operation_count_ != 1 || operation.body.empty() ||
        !attributes_of(operation.body, operation.table->schema, attributes)) {
        return refuse(Error::kInvalid);
    }
    std::byte key[4];
    encode_key_integer(key, operation.table->id.value, 4, false);
    const Lookup place = catalog_.catalog().tree.get(key);
    if (place.missing) return need(place.missing);
    if (place.corrupt) return refuse(Error::kCorruption);
    Effect effect;
    effect.type = RecordType::kSetTable;
    effect.table_id = operation.table->id;
    effect.body = operation.body;
    push(effect);
    only_deletes_ = false;
    room_.put(catalog_.catalog().tree, key, place.value.size(), place);
    return State::kReady;
}

Executor::State Executor::drop_table(const Operation& operation) {
    if (operation_count_ != 1) return refuse(Error::kInvalid);
    std::byte key[4];
    encode_key_integer(key, operation.table->id.value, 4, false);
    const Lookup place = catalog_.catalog().tree.get(key);
    if (place.missing) return need(place.missing);
    if (place.corrupt) return refuse(Error::kCorruption);
    Effect effect;
    effect.type = RecordType::kDropTable;
    effect.table = operation.table;
    push(effect);
    only_deletes_ = false;
    room_.put(catalog_.catalog().tree, key, place.value.size(), place);
    return State::kReady;
}

// ---- apply ----

std::uint64_t apply_effect(const Effect& effect, Catalog& catalog) {
    switch (effect.type) {
        case RecordType::kPutRow:
        case RecordType::kUpdateColumns:
        case RecordType::kAddColumn:
        case RecordType::kSession:
            CHECK(put_row(effect.table->tree, catalog.pages(), effect.table->schema,
                          effect.key.data(), effect.value, effect.leaf)
                      .ok());
            return 0;
        case RecordType::kDeleteRow:
        case RecordType::kExpireSession: {
            const Change change = effect.table->tree.erase(effect.key.data());
            CHECK(change.ok());
            return change.found ? 1 : 0;
        }
        case RecordType::kDeleteRange: {
            const RangeCost erased =
                effect.table->tree.erase_range(effect.key.data(), key_bound(effect.body));
            CHECK(erased.ok());
            return erased.rows;
        }
        case RecordType::kCreateTable: {
            const ColdPath cold;
            const Result<Schema> schema = Schema::decode(effect.body);
            CHECK(schema.ok());
            TableAttributes attributes{};
            CHECK(attributes_of(effect.key, *schema, attributes));
            catalog.create(effect.table_id, *schema, 0, attributes.retain_us);
            return 0;
        }
        case RecordType::kSetTable: {
            const ColdPath cold;
            catalog.set_retention(effect.table_id,
                                  load<TableAttributes>(effect.body.data()).retain_us);
            return 0;
        }
        case RecordType::kMoveFloor:
            effect.table->tree.set_floor(load<std::uint64_t>(effect.body.data()));
            return 0;
        case RecordType::kDropTable: {
            const ColdPath cold;
            catalog.drop(effect.table_id);
            return 0;
        }
        case RecordType::kBeginLoad: {
            const Result<Schema> schema = Schema::decode(effect.body);
            CHECK(schema.ok());
            TableAttributes attributes{};
            CHECK(attributes_of(effect.key, *schema, attributes));
            catalog.create(effect.table_id, *schema, kHiddenTableFlag, attributes.retain_us);
            return 0;
        }
        case RecordType::kFinishLoad:
            catalog.show(effect.table_id);
            return 0;
    }
    return 0;
}

EffectCounts Executor::apply(Wal& wal) {
    EffectCounts counts;
    for (const Effect& effect : effects_) {
        wal.append(effect.type, effect.table_id, effect.key, effect.body);
        const std::uint64_t erased = apply_effect(effect, catalog_);
        counts.rows_deleted += erased;
        counts.rows_put += effect.type <= RecordType::kAddColumn;
        if (effect.result >= 0) {
            results_[static_cast<std::size_t>(effect.result)] = static_cast<std::int64_t>(erased);
        }
    }
    return counts;
}

}  // namespace bidstore
