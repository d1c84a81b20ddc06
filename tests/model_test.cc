// Trees and transactions against a model, by seed: several clients write at once, snapshots are
// held across commits, evictions and checkpoints in a small pool, and are read the way a client
// reads: through the page map, the version chains and the shared search.
//
// The model keeps, for every key, all its values with the place in the serial order from which on
// they hold. That order is told by a witness: each transaction ends with an add of 1 to one shared
// row, and the sum is its place. So transactions of different clients may meet in any order, and
// the model still knows what each must have seen. A refused transaction has no place of its own:
// the same refusal must follow from one of the states that it can have seen.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <set>

#include "engine/page/search.h"
#include "shm/reader_slot.h"
#include "shm/stats.h"
#include "tests/sim.h"
#include "tests/snapshot_view.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;
using Random = std::mt19937_64;

constexpr std::uint32_t kTables = 4;
constexpr std::uint32_t kOrder = 3;  // the table with the witness

// ---- tables -------------------------------------------------------------------------------------

Schema made(Result<Schema> schema) {
    CHECK(schema.ok());
    return *schema;
}

const std::array<Schema, kTables>& schemas() {
    static const std::array<Schema, kTables> all{
        made(Schema::make("numbers",
                          {{"id", ColumnType::kU32, 0},
                           {"count", ColumnType::kI64, 0},
                           {"small", ColumnType::kI8, 0},
                           {"big", ColumnType::kU64, 0},
                           {"pad", ColumnType::kFixed, 60}},
                          1)),
        made(Schema::make("texts",
                          {{"region", ColumnType::kU16, 0},
                           {"id", ColumnType::kU32, 0},
                           {"n", ColumnType::kI32, 0},
                           {"text", ColumnType::kText, 0},
                           {"data", ColumnType::kBytes, 0}},
                          2)),
        made(Schema::make("seen",
                          {{"name", ColumnType::kFixed, 16},
                           {"at", ColumnType::kTimestamp, 0},
                           {"hits", ColumnType::kU16, 0},
                           {"note", ColumnType::kText, 0}},
                          1, 1)),
        made(Schema::make("witness", {{"id", ColumnType::kU32, 0}, {"n", ColumnType::kI64, 0}}, 1)),
    };
    return all;
}

Bytes key_of(std::uint32_t table, std::uint32_t id) {
    Bytes key(schemas()[table].key_bytes());
    if (table == 1) encode_key_integer(key.data(), id % 3, 2, false);
    encode_key_integer(key.data() + (table == 1 ? 2 : 0), id, 4, false);
    return key;
}

// The parts of a row value, as engine/page/schema.h lays them out.
struct Parts {
    Bytes fixed;
    std::vector<Bytes> variable;
};

Parts split(const Schema& schema, const Bytes& value) {
    Parts parts;
    const auto at = [&](std::size_t offset) {
        return value.begin() + static_cast<std::ptrdiff_t>(offset);
    };
    parts.fixed.assign(at(0), at(schema.fixed_bytes()));
    const std::size_t content = schema.fixed_bytes() + 2 * schema.variable_columns();
    std::size_t begin = 0;
    for (std::uint32_t i = 0; i < schema.variable_columns(); ++i) {
        std::uint16_t end = 0;
        std::memcpy(&end, value.data() + schema.fixed_bytes() + 2 * i, sizeof end);
        parts.variable.emplace_back(at(content + begin), at(content + end));
        begin = end;
    }
    return parts;
}

Bytes join(const Parts& parts) {
    Bytes value = parts.fixed;
    std::uint16_t end = 0;
    for (const Bytes& part : parts.variable) {
        end = static_cast<std::uint16_t>(end + part.size());
        value.push_back(static_cast<std::byte>(end & 0xff));
        value.push_back(static_cast<std::byte>(end >> 8));
    }
    for (const Bytes& part : parts.variable) value.insert(value.end(), part.begin(), part.end());
    return value;
}

bool well_formed(const Schema& schema, const Bytes& value) {
    const std::size_t least = schema.fixed_bytes() + 2 * schema.variable_columns();
    if (value.size() < least || value.size() + schema.key_bytes() > kRowBytesMax) return false;
    std::uint16_t last = 0;
    for (std::uint32_t i = 0; i < schema.variable_columns(); ++i) {
        std::uint16_t end = 0;
        std::memcpy(&end, value.data() + schema.fixed_bytes() + 2 * i, sizeof end);
        if (end < last) return false;
        last = end;
    }
    return least + last == value.size();
}

std::string hex(const Bytes& bytes) {
    std::string text;
    for (const std::byte byte : bytes) {
        constexpr char kDigits[] = "0123456789abcdef";
        text += kDigits[std::to_integer<unsigned>(byte) >> 4];
        text += kDigits[std::to_integer<unsigned>(byte) & 15];
    }
    return text;
}

// The first row that is not the same, or an empty string.
std::string difference(const std::map<Bytes, Bytes>& found, const std::map<Bytes, Bytes>& wanted) {
    for (const auto& [key, value] : found) {
        const auto same = wanted.find(key);
        if (same == wanted.end()) return "row " + hex(key) + " should not be there";
        if (same->second != value) {
            return "row " + hex(key) + " is " + hex(value) + ", not " + hex(same->second);
        }
    }
    for (const auto& [key, value] : wanted) {
        if (!found.contains(key)) return "row " + hex(key) + " is missing";
    }
    return "";
}

// ---- operations ---------------------------------------------------------------------------------

struct Operation {
    OperationKind kind = OperationKind::kPut;
    std::uint32_t table = 0;
    Bytes key;
    std::uint8_t flags = 0;
    Bytes body;  // a row, or the upper bound of a range
    std::uint16_t column = 0;
    Bytes content;  // of that column
    AddBody add{};
};

struct Outcome {
    Error error = Error::kOk;
    std::uint32_t failed = kNoOperation;
    std::vector<std::int64_t> results;
};

// What a transaction does to rows, and whether the rows allow it.
class Evaluation {
  public:
    using Rows = std::map<Bytes, std::optional<Bytes>>;
    using Find = std::function<std::optional<Bytes>(std::uint32_t table, const Bytes& key)>;
    using Range = std::function<std::vector<Bytes>(std::uint32_t table, const Bytes& from,
                                                   const Bytes& to)>;

    Evaluation(Find find, Range range) : find_(std::move(find)), range_(std::move(range)) {}

    Outcome run(const std::vector<Operation>& operations) {
        Outcome outcome;
        for (std::uint32_t i = 0; i < operations.size(); ++i) {
            outcome.error = step(operations[i], outcome.results);
            if (outcome.error == Error::kOk) continue;
            outcome.failed = i;
            outcome.results.clear();
            return outcome;
        }
        return outcome;
    }
    const std::array<Rows, kTables>& changes() const { return changes_; }

  private:
    std::optional<Bytes> get(const Operation& operation) const {
        const auto changed = changes_[operation.table].find(operation.key);
        if (changed != changes_[operation.table].end()) return changed->second;
        return find_(operation.table, operation.key);
    }
    void set(const Operation& operation, std::optional<Bytes> value) {
        changes_[operation.table][operation.key] = std::move(value);
    }

    Error step(const Operation& operation, std::vector<std::int64_t>& results) {
        const Schema& schema = schemas()[operation.table];
        if (operation.key.size() != schema.key_bytes()) return Error::kInvalid;
        const std::optional<Bytes> old = get(operation);
        switch (operation.kind) {
            case OperationKind::kCheckPresent:
                return old ? Error::kOk : Error::kPrecondition;
            case OperationKind::kCheckAbsent:
                return old ? Error::kPrecondition : Error::kOk;
            case OperationKind::kCheckEquals:
                if (!old) return Error::kPrecondition;
                return column(schema, operation.column, *old) == operation.content
                           ? Error::kOk
                           : Error::kPrecondition;
            case OperationKind::kInsert:
            case OperationKind::kPut:
                if (operation.kind == OperationKind::kInsert && old) return Error::kExists;
                if (!well_formed(schema, operation.body)) return Error::kInvalid;
                set(operation, operation.body);
                return Error::kOk;
            case OperationKind::kUpdate:
                return old ? update(operation, *old) : Error::kNotFound;
            case OperationKind::kAdd:
                return add(operation, old, results);
            case OperationKind::kDelete:
                if (!old) return operation.flags & kIfPresent ? Error::kOk : Error::kNotFound;
                set(operation, std::nullopt);
                return Error::kOk;
            case OperationKind::kDeleteRange:
                return erase_range(operation, results);
            default:
                return Error::kProtocol;
        }
    }

    static Bytes column(const Schema& schema, std::uint16_t column, const Bytes& value) {
        const Parts parts = split(schema, value);
        if (is_variable(schema.columns()[column].type)) {
            return parts.variable[schema.variable_index(column)];
        }
        const auto from = parts.fixed.begin() +
                          static_cast<std::ptrdiff_t>(schema.offset_bytes(column));
        return {from, from + schema.columns()[column].width_bytes};
    }

    Error update(const Operation& operation, const Bytes& old) {
        const Schema& schema = schemas()[operation.table];
        if (operation.column < schema.key_columns()) return Error::kInvalid;
        if (operation.column >= schema.columns().size()) return Error::kInvalid;
        Parts parts = split(schema, old);
        const Column& described = schema.columns()[operation.column];
        if (is_variable(described.type)) {
            parts.variable[schema.variable_index(operation.column)] = operation.content;
        } else {
            if (operation.content.size() != described.width_bytes) return Error::kInvalid;
            std::copy(operation.content.begin(), operation.content.end(),
                      parts.fixed.begin() +
                          static_cast<std::ptrdiff_t>(schema.offset_bytes(operation.column)));
        }
        const Bytes value = join(parts);
        if (!well_formed(schema, value)) return Error::kInvalid;
        set(operation, value);
        return Error::kOk;
    }

    Error add(const Operation& operation, const std::optional<Bytes>& old,
              std::vector<std::int64_t>& results) {
        const Schema& schema = schemas()[operation.table];
        const AddBody& body = operation.add;
        if (body.column < schema.key_columns() || body.column >= schema.columns().size() ||
            !is_integer(schema.columns()[body.column].type)) {
            return Error::kInvalid;
        }
        if (!old && !(operation.flags & kCreate)) return Error::kNotFound;
        Bytes value = old.value_or(Bytes(schema.fixed_bytes() + 2 * schema.variable_columns()));
        std::byte* place = value.data() + schema.offset_bytes(body.column);
        std::int64_t sum = 0;
        const Error error = sum_of(schema.columns()[body.column].type, place, body, sum);
        if (error != Error::kOk) return error;
        std::memcpy(place, &sum, schema.columns()[body.column].width_bytes);
        set(operation, value);
        if (operation.flags & kWantResult) results.push_back(sum);
        return Error::kOk;
    }

    template <class Number>
    static Error sum_as(const std::byte* place, const AddBody& body, std::int64_t& sum) {
        __extension__ using Wide = __int128;
        Number old{};
        std::memcpy(&old, place, sizeof old);
        const Wide wide = static_cast<Wide>(old) + body.delta;
        const auto bound = [](std::int64_t limit) {
            return sizeof(Number) == 8 && !std::numeric_limits<Number>::is_signed
                       ? static_cast<Wide>(static_cast<std::uint64_t>(limit))
                       : static_cast<Wide>(limit);
        };
        if (wide < std::numeric_limits<Number>::min()) return Error::kOutOfRange;
        if (wide > std::numeric_limits<Number>::max()) return Error::kOutOfRange;
        if (body.has_floor && wide < bound(body.floor)) return Error::kBelowFloor;
        if (body.has_ceiling && wide > bound(body.ceiling)) return Error::kAboveCeiling;
        sum = static_cast<std::int64_t>(wide);
        return Error::kOk;
    }

    static Error sum_of(ColumnType type, const std::byte* place, const AddBody& body,
                        std::int64_t& sum) {
        switch (type) {
            case ColumnType::kI8:
                return sum_as<std::int8_t>(place, body, sum);
            case ColumnType::kU16:
                return sum_as<std::uint16_t>(place, body, sum);
            case ColumnType::kI32:
                return sum_as<std::int32_t>(place, body, sum);
            case ColumnType::kI64:
                return sum_as<std::int64_t>(place, body, sum);
            case ColumnType::kU64:
                return sum_as<std::uint64_t>(place, body, sum);
            default:
                return Error::kInvalid;
        }
    }

    Error erase_range(const Operation& operation, std::vector<std::int64_t>& results) {
        std::set<Bytes> keys;
        for (const Bytes& key : range_(operation.table, operation.key, operation.body)) {
            keys.insert(key);
        }
        for (const auto& [key, value] : changes_[operation.table]) {
            const bool below = operation.body.empty() || key < operation.body;
            if (key >= operation.key && below && value) keys.insert(key);
        }
        std::int64_t count = 0;
        for (const Bytes& key : keys) {
            const auto changed = changes_[operation.table].find(key);
            if (changed != changes_[operation.table].end() && !changed->second) continue;
            changes_[operation.table][key] = std::nullopt;
            ++count;
        }
        if (operation.flags & kWantResult) results.push_back(count);
        return Error::kOk;
    }

    Find find_;
    Range range_;
    std::array<Rows, kTables> changes_;
};

// All values of all keys, by place in the serial order.
class Model {
  public:
    std::optional<Bytes> get(std::uint32_t table, const Bytes& key, std::int64_t place) const {
        const auto found = rows_[table].find(key);
        if (found == rows_[table].end()) return std::nullopt;
        std::optional<Bytes> value;
        for (const auto& [from, then] : found->second) {
            if (from > place) break;
            value = then;
        }
        return value;
    }
    // to empty: no bound.
    std::map<Bytes, Bytes> range(std::uint32_t table, const Bytes& from, const Bytes& to,
                                 std::int64_t place) const {
        std::map<Bytes, Bytes> found;
        for (auto at = rows_[table].lower_bound(from); at != rows_[table].end(); ++at) {
            if (!to.empty() && at->first >= to) break;
            if (const auto value = get(table, at->first, place)) found[at->first] = *value;
        }
        return found;
    }
    Evaluation evaluation(std::int64_t place) const {
        return Evaluation(
            [this, place](std::uint32_t table, const Bytes& key) { return get(table, key, place); },
            [this, place](std::uint32_t table, const Bytes& from, const Bytes& to) {
                std::vector<Bytes> keys;
                for (const auto& [key, value] : range(table, from, to, place)) keys.push_back(key);
                return keys;
            });
    }
    void apply(const Evaluation& evaluation, std::uint64_t csn) {
        ++newest_;
        csns_.push_back(csn);
        for (std::uint32_t table = 0; table < kTables; ++table) {
            for (const auto& [key, value] : evaluation.changes()[table]) {
                rows_[table][key].emplace_back(newest_, value);
            }
        }
    }
    std::int64_t newest() const { return newest_; }
    std::uint64_t newest_csn() const { return csns_.empty() ? 0 : csns_.back(); }
    // The last place in the order that a snapshot of csn sees.
    std::int64_t place_of(std::uint64_t csn) const {
        return std::upper_bound(csns_.begin(), csns_.end(), csn) - csns_.begin();
    }

  private:
    std::array<std::map<Bytes, std::vector<std::pair<std::int64_t, std::optional<Bytes>>>>, kTables>
        rows_;
    std::vector<std::uint64_t> csns_;  // of places 1, 2, ...
    std::int64_t newest_ = 0;
};

// ---- making transactions ------------------------------------------------------------------------

class Maker {
  public:
    Maker(Random& random, std::uint32_t keys) : random_(random), keys_(keys) {}

    std::vector<Operation> transaction() {
        std::vector<Operation> operations;
        const std::uint64_t count = 1 + pick(5);
        while (operations.size() < count) operations.push_back(operation());
        return with_witness(std::move(operations));
    }
    static std::vector<Operation> with_witness(std::vector<Operation> operations) {
        Operation witness;
        witness.kind = OperationKind::kAdd;
        witness.table = kOrder;
        witness.key = key_of(kOrder, 0);
        witness.flags = kWantResult | kCreate;
        witness.add.column = 1;
        witness.add.delta = 1;
        operations.push_back(witness);
        return operations;
    }
    // One row in each table.
    std::vector<Operation> rows(std::uint32_t id) {
        std::vector<Operation> operations(3);
        for (std::uint32_t table = 0; table < 3; ++table) {
            operations[table].table = table;
            operations[table].key = key_of(table, id);
            operations[table].body = row(schemas()[table]);
        }
        return with_witness(std::move(operations));
    }
    Bytes some_key(std::uint32_t table) {
        return key_of(table, static_cast<std::uint32_t>(pick(keys_)));
    }
    std::uint64_t pick(std::uint64_t below) { return random_() % below; }

  private:
    Bytes filler(std::size_t length) {
        return Bytes(length, static_cast<std::byte>('a' + pick(26)));
    }

    Bytes row(const Schema& schema) {
        Parts parts;
        parts.fixed = filler(schema.fixed_bytes());
        // Mostly short rows; some that fill most of a page.
        for (std::uint32_t i = 0; i < schema.variable_columns(); ++i) {
            parts.variable.push_back(filler(pick(8) == 0 ? pick(1900) : pick(300)));
        }
        return join(parts);
    }

    Operation operation() {
        Operation operation;
        operation.table = static_cast<std::uint32_t>(pick(3));
        operation.key = some_key(operation.table);
        const Schema& schema = schemas()[operation.table];
        switch (pick(16)) {
            case 0:
                operation.kind = OperationKind::kCheckPresent;
                // Rarely alone: it is refused about as often as a key is absent.
                if (pick(3) != 0) operation.kind = OperationKind::kPut;
                operation.body = row(schema);
                break;
            case 1:
                operation.kind = OperationKind::kCheckAbsent;
                if (pick(3) != 0) operation.kind = OperationKind::kPut;
                operation.body = row(schema);
                break;
            case 2:
                operation.kind = pick(3) == 0 ? OperationKind::kCheckEquals : OperationKind::kPut;
                operation.column = static_cast<std::uint16_t>(schema.key_columns());
                operation.content = filler(schema.columns()[operation.column].width_bytes);
                operation.body = row(schema);
                break;
            case 3:
                operation.kind = OperationKind::kInsert;
                operation.body = row(schema);
                break;
            case 4:
            case 5:
                make_update(operation, schema);
                break;
            case 6:
            case 7:
            case 8:
                make_add(operation, schema);
                break;
            case 9:
            case 10:
                operation.kind = OperationKind::kDelete;
                operation.flags = pick(4) == 0 ? 0 : static_cast<std::uint8_t>(kIfPresent);
                break;
            case 11:
                make_range(operation);
                break;
            default:
                operation.kind = OperationKind::kPut;
                operation.body = row(schema);
                if (pick(60) == 0) operation.body.pop_back();
                break;
        }
        return operation;
    }

    void make_update(Operation& operation, const Schema& schema) {
        operation.kind = OperationKind::kUpdate;
        const std::uint64_t values = schema.columns().size() - schema.key_columns();
        operation.column = static_cast<std::uint16_t>(schema.key_columns() + pick(values));
        const Column& column = schema.columns()[operation.column];
        operation.content = filler(is_variable(column.type) ? pick(900) : column.width_bytes);
        if (pick(40) == 0) operation.column = 0;  // a key column
        if (pick(40) == 0) operation.content.push_back(std::byte{'x'});
    }

    void make_add(Operation& operation, const Schema& schema) {
        operation.kind = OperationKind::kAdd;
        operation.flags = static_cast<std::uint8_t>((pick(4) != 0 ? kCreate : 0) |
                                                    (pick(2) != 0 ? kWantResult : 0));
        operation.add.column = static_cast<std::uint16_t>(
            schema.key_columns() + (operation.table == 0 ? pick(3) : operation.table == 2));
        if (pick(40) == 0) operation.add.column = 0;
        operation.add.delta = static_cast<std::int64_t>(pick(2000)) - 900;
        if (pick(30) == 0) operation.add.delta = std::numeric_limits<std::int64_t>::max();
        if (pick(30) == 0) operation.add.delta = std::numeric_limits<std::int64_t>::min();
        operation.add.has_floor = pick(8) == 0;
        operation.add.floor = static_cast<std::int64_t>(pick(200)) - 100;
        operation.add.has_ceiling = pick(8) == 0;
        operation.add.ceiling = static_cast<std::int64_t>(pick(2000)) - 100;
    }

    void make_range(Operation& operation) {
        operation.kind = OperationKind::kDeleteRange;
        operation.flags = pick(2) != 0 ? static_cast<std::uint8_t>(kWantResult) : 0;
        if (operation.table == 1) {  // regions come first in its keys
            operation.body = operation.key;
            std::byte& last = operation.body.back();
            last = static_cast<std::byte>(std::min(255u, static_cast<unsigned>(last) + 40u));
            return;
        }
        const auto from = static_cast<std::uint32_t>(decode_key_integer(operation.key.data(), 4,
                                                                        false));
        operation.body = key_of(operation.table, from + static_cast<std::uint32_t>(pick(50)));
        if (pick(20) == 0) std::swap(operation.key, operation.body);  // an empty range
    }

    Random& random_;
    std::uint32_t keys_;
};

TransactionBytes encode(const std::vector<Operation>& operations,
                        const std::array<TableId, kTables>& tables, Durability durability) {
    TransactionBytes bytes(durability);
    for (const Operation& operation : operations) {
        const TableId table = tables[operation.table];
        switch (operation.kind) {
            case OperationKind::kAdd:
                bytes.add(table, operation.key, operation.add, operation.flags);
                break;
            case OperationKind::kUpdate:
            case OperationKind::kCheckEquals:
                bytes.columns(operation.kind, table, operation.key, operation.column,
                              operation.content);
                break;
            default:
                bytes.operation(operation.kind, table, operation.key, operation.body,
                                operation.flags);
                break;
        }
    }
    return bytes;
}

// ---- snapshots ----------------------------------------------------------------------------------

// A snapshot in a slot of a client, read as a client reads.
class Snapshot {
    auto source() {
        return [this](PageId page) { return see_page(view_, slot_, page).page; };
    }

  public:
    Snapshot(SimStore& store, const PoolView& view, SimClient& client, std::uint32_t slot)
        : store_(store),
          view_(view),
          client_(client),
          slot_index_(slot),
          slot_(client.segment().slots()[slot], view.published(),
                view.revoked()[client.segment().first_slot() + slot]) {
        slot_.begin();
    }
    ~Snapshot() { slot_.end(); }
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;

    std::uint64_t csn() const { return slot_.snapshot().value; }
    bool valid() const { return slot_.valid(); }
    const SimClient& client() const { return client_; }
    std::uint32_t slot_index() const { return slot_index_; }
    std::uint64_t misses() const { return misses_; }
    const std::string& trouble() const { return trouble_; }

    // Nothing when the lease ended, or with trouble() said.
    std::optional<std::optional<Bytes>> get(const TreeShape& shape, PageId root, const Bytes& key) {
        for (;;) {
            const Landing landing = descend(shape, root, key.data(), source());
            if (landing.state == Landed::kMissing) {
                if (!bring_in(landing.page)) return std::nullopt;
                continue;
            }
            if (!believe(landing)) return std::nullopt;
            const LeafView rows(landing.bytes, shape.leaf);
            const int row = rows.find(key.data());
            std::optional<Bytes> value;
            if (row >= 0) {
                const auto bytes = rows.value(static_cast<std::uint32_t>(row));
                value.emplace(bytes.begin(), bytes.end());
            }
            if (!valid()) return std::nullopt;
            return std::optional<std::optional<Bytes>>(std::in_place, std::move(value));
        }
    }

    // The rows from `from` on, up to `to` (empty: all), leaf by leaf, as long as `between`, which
    // runs after each, says so.
    std::optional<std::map<Bytes, Bytes>> range(const TreeShape& shape, PageId root,
                                                const Bytes& from, const Bytes& to,
                                                const std::function<bool()>& between) {
        std::map<Bytes, Bytes> found;
        auto cursor = PathCursor(shape, root, source());
        bool begun = false;
        for (;;) {
            const Landing landing = begun ? cursor.next_leaf() : cursor.seek(from.data());
            if (landing.state == Landed::kMissing) {
                if (!bring_in(landing.page)) return std::nullopt;
                continue;
            }
            if (landing.state == Landed::kEnd) break;
            if (!believe(landing)) return std::nullopt;
            begun = true;
            if (!collect(cursor.leaf(), shape, from, to, found) || !between()) break;
        }
        if (!valid()) return std::nullopt;
        return found;
    }

    // All leaves backwards: the rows of the whole table.
    std::optional<std::map<Bytes, Bytes>> backwards(const TreeShape& shape, PageId root) {
        std::map<Bytes, Bytes> found;
        auto cursor = PathCursor(shape, root, source());
        bool begun = false;
        for (;;) {
            const Landing landing = begun ? cursor.previous_leaf() : cursor.seek_last();
            if (landing.state == Landed::kMissing) {
                if (!bring_in(landing.page)) return std::nullopt;
                continue;
            }
            if (landing.state == Landed::kEnd) break;
            if (!believe(landing)) return std::nullopt;
            begun = true;
            collect(cursor.leaf(), shape, {}, {}, found);
        }
        if (!valid()) return std::nullopt;
        return found;
    }

  private:
    static bool collect(const LeafView& rows, const TreeShape& shape, const Bytes& from,
                        const Bytes& to, std::map<Bytes, Bytes>& found) {
        for (std::uint32_t row = 0; row < rows.count(); ++row) {
            const Bytes key(rows.key(row), rows.key(row) + shape.leaf.key_bytes);
            if (key < from) continue;
            if (!to.empty() && key >= to) return false;
            const auto value = rows.value(row);
            found[key] = Bytes(value.begin(), value.end());
        }
        return true;
    }

    bool believe(const Landing& landing) {
        if (landing.state == Landed::kLeaf) return true;
        if (valid()) trouble_ = "page " + std::to_string(landing.page.value) + " looks corrupt";
        return false;
    }

    bool bring_in(PageId page) {
        if (!valid()) return false;
        const SeenPage::State state = see_page(view_, slot_, page).state;
        if (state != SeenPage::State::kAbsent) {
            if (state == SeenPage::State::kFound) return true;
            if (valid()) trouble_ = "page " + std::to_string(page.value) + " has no version";
            return false;
        }
        ++misses_;
        const auto token = client_.request_pages({&page, 1});
        CHECK(token.has_value());
        std::optional<Answer> answer;
        store_.run_until([&] { return (answer = client_.answer(*token)).has_value(); });
        if (!answer) {
            trouble_ = "no answer to a request for page " + std::to_string(page.value);
        } else if (answer->error != Error::kOk && valid()) {
            trouble_ = "page " + std::to_string(page.value) + ": " +
                       std::string(error_name(answer->error));
        }
        return trouble_.empty() && valid();
    }

    SimStore& store_;
    const PoolView& view_;
    SimClient& client_;
    std::uint32_t slot_index_;
    SlotOwner slot_;
    std::uint64_t misses_ = 0;
    std::string trouble_;
};

// ---- the run ------------------------------------------------------------------------------------

struct Totals {
    std::uint64_t applied = 0;
    std::uint64_t refused = 0;
    std::uint64_t reads = 0;
    std::uint64_t misses = 0;
    std::uint64_t expired = 0;
    std::uint64_t evictions = 0;
    std::uint64_t checkpoints = 0;
};

class ModelRun {
  public:
    ModelRun(std::uint64_t seed, Totals& totals) : random_(seed), totals_(totals) {
        options_ = small_store();
        options_.frames = static_cast<std::uint32_t>(400 + random_() % 250);
        const std::uint64_t intervals[] = {100'000, 2'000'000, 30'000'000'000};
        options_.engine.checkpoint_interval_ns = intervals[seed % 3];
        options_.engine.group_commit_interval_ns = seed % 4 == 3 ? 50'000 : 0;
        fprintf(stderr, "DBG frames %u\n", options_.frames);
        keys_ = static_cast<std::uint32_t>(600 + random_() % 900);
        seed_ = seed;
    }

    void run(std::uint32_t moves) {
        SimDiskOptions disk;
        disk.seed = seed_;
        open(std::make_unique<SimDisk>(disk));
        if (testing::Test::HasFatalFailure()) return;
        for (std::uint32_t i = 0; kTables > i; ++i) {
            tables_[i] = store_->create_table(*writers_[0].client, schemas()[i]);
        }
        Maker maker(random_, keys_);
        fill(maker);
        for (std::uint32_t move = 0; move < moves && !failed(); ++move) make_move(maker);
        finish_life();
        fprintf(stderr, "DBG moved clock %lu\n", store_->clock.monotonic_ns());
        if (!failed()) restart();
    }

  private:
    struct Pending {
        std::uint32_t token = 0;
        std::uint64_t number = 0;
        std::vector<Operation> operations;
    };
    struct Done {
        std::vector<Operation> operations;
        Answer answer;
        std::int64_t after = 0;  // refused: behind this place of its own client
    };
    struct Writer {
        SimClient* client = nullptr;
        std::deque<Pending> pending;
        std::vector<Done> refused;    // since its last applied one
        std::int64_t last_place = 0;  // of its last applied one
    };

    bool failed() const { return testing::Test::HasFailure(); }

    void open(std::unique_ptr<SimDisk> disk) {
        store_ = std::make_unique<SimStore>(options_, std::move(disk), seed_);
        const Status opened = store_->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        auto descriptor = store_->pool->open_read_only();
        ASSERT_TRUE(descriptor.ok()) << descriptor.failure().what;
        auto view = PoolView::map(std::move(*descriptor));
        ASSERT_TRUE(view.ok()) << view.failure().what;
        view_.emplace(std::move(*view));
        for (Writer& writer : writers_) {
            writer = Writer{};
            writer.client = &store_->connect();
            writer.last_place = model_.newest();
        }
    }

    // More rows than the pool holds.
    void fill(Maker& maker) {
        for (std::uint32_t id = 0; id < keys_ && !failed(); ++id) {
            Writer& writer = writers_[id % writers_.size()];
            submit(writer, maker.rows(id), Durability::kDurable);
            while (writers_[(id + 1) % writers_.size()].pending.size() >= 8 && !failed()) round();
        }
        settle();
        fprintf(stderr, "DBG filled keys %u clock %lu\n", keys_, store_->clock.monotonic_ns());
    }

    void make_move(Maker& maker) {
        const std::uint64_t choice = random_() % 100;
        if (choice < 50) {
            submit(maker);
        } else if (choice < 58) {
            begin_snapshot();
        } else if (choice < 84) {
            read(maker);
        } else if (choice < 94 && !snapshots_.empty()) {
            end_snapshot(random_() % snapshots_.size());
        } else if (choice == 99) {
            settle();
        }
        round();
    }

    void round() {
        const EngineRound result = store_->round();
        ASSERT_NE(result, EngineRound::kFenced) << store_->engine->fence_reason();
        collect();
    }

    void submit(Maker& maker) {
        Writer& writer = writers_[random_() % writers_.size()];
        if (writer.pending.size() >= 5) return;
        submit(writer, maker.transaction(),
               random_() % 4 == 0 ? Durability::kRelaxed : Durability::kDurable);
    }

    void submit(Writer& writer, std::vector<Operation> operations, Durability durability) {
        Pending pending;
        pending.operations = std::move(operations);
        const std::uint64_t below =
            writer.pending.empty() ? writer.client->last_number() + 1 : writer.pending[0].number;
        writer.client->set_decided_below(below);
        const auto token =
            writer.client->submit(encode(pending.operations, tables_, durability).bytes());
        ASSERT_TRUE(token.has_value());
        pending.token = *token;
        pending.number = writer.client->last_number();
        writer.pending.push_back(std::move(pending));
    }

    // Takes the answers that are there, and lets the model follow as far as the order is known.
    void collect() {
        for (Writer& writer : writers_) {
            for (auto at = writer.pending.begin(); at != writer.pending.end();) {
                const auto answer = writer.client->answer(at->token);
                if (!answer) {
                    ++at;
                    continue;
                }
                take(writer, *at, *answer);
                at = writer.pending.erase(at);
            }
        }
        follow();
    }

    void take(Writer& writer, Pending& pending, const Answer& answer) {
        Done done{std::move(pending.operations), answer, 0};
        if (answer.error != Error::kOk) {
            ++totals_.refused;
            refused_.push_back({&writer - writers_.data(), pending.number, std::move(done)});
            return;
        }
        ASSERT_GE(answer.result_count, 1u);
        const std::int64_t place = answer.result[answer.result_count - 1];
        places_[&writer - writers_.data()][pending.number] = place;
        ASSERT_TRUE(waiting_.emplace(place, std::move(done)).second) << "place taken twice";
    }

    void follow() {
        while (!waiting_.empty() && waiting_.begin()->first == model_.newest() + 1) {
            const Done& done = waiting_.begin()->second;
            Evaluation evaluation = model_.evaluation(model_.newest());
            const Outcome expected = evaluation.run(done.operations);
            EXPECT_EQ(expected.error, Error::kOk)
                << "the model refuses operation " << expected.failed << " of place "
                << model_.newest() + 1 << ": " << error_name(expected.error);
            const std::vector<std::int64_t> results(done.answer.result,
                                                    done.answer.result + done.answer.result_count);
            EXPECT_EQ(results, expected.results) << "place " << model_.newest() + 1;
            EXPECT_GE(done.answer.csn, model_.newest_csn());
            model_.apply(evaluation, done.answer.csn);
            ++totals_.applied;
            waiting_.erase(waiting_.begin());
        }
    }

    // Nothing in flight any more: everything is known, and refusals can be judged.
    void settle() {
        store_->run_until([&] {
            collect();
            return std::all_of(writers_.begin(), writers_.end(),
                               [](const Writer& writer) { return writer.pending.empty(); });
        });
        for (const Writer& writer : writers_) ASSERT_TRUE(writer.pending.empty()) << "no answer";
        ASSERT_TRUE(waiting_.empty()) << "a place of the order is missing";
        for (const Refused& refused : refused_) judge(refused);
        refused_.clear();
    }

    struct Refused {
        std::ptrdiff_t writer;
        std::uint64_t number;
        Done done;
    };

    // Between its client's transactions before and after it there is a state that refuses it so.
    void judge(const Refused& refused) {
        const Answer& answer = refused.done.answer;
        const auto& places = places_[refused.writer];
        const auto after = places.upper_bound(refused.number);
        const std::int64_t high = after == places.end() ? model_.newest() : after->second - 1;
        const std::int64_t low = after == places.begin() ? first_place_ : std::prev(after)->second;
        for (std::int64_t place = low; place <= high; ++place) {
            const Outcome outcome = model_.evaluation(place).run(refused.done.operations);
            if (outcome.error == answer.error && outcome.failed == answer.failed_operation) return;
        }
        // A wide range may need more frames than a small pool has.
        const bool range = std::any_of(
            refused.done.operations.begin(), refused.done.operations.end(),
            [](const Operation& each) { return each.kind == OperationKind::kDeleteRange; });
        if (range && answer.error == Error::kTooLarge) return;
        ADD_FAILURE() << "number " << refused.number << " of writer " << refused.writer
                      << " was refused with " << error_name(answer.error) << " at operation "
                      << answer.failed_operation << ", which no state from " << low << " to "
                      << high << " explains";
    }

    void begin_snapshot() {
        if (snapshots_.size() >= 3) return;
        SimClient& client = *writers_[random_() % writers_.size()].client;
        for (std::uint32_t slot = 0; slot < client.segment().slot_count(); ++slot) {
            const bool used = std::any_of(snapshots_.begin(), snapshots_.end(), [&](const auto& s) {
                return &s->client() == &client && s->slot_index() == slot;
            });
            if (used) continue;
            // All answers up to what is visible are here, so the model knows this csn.
            collect();
            snapshots_.push_back(std::make_unique<Snapshot>(*store_, *view_, client, slot));
            return;
        }
    }

    void end_snapshot(std::size_t index) {
        totals_.misses += snapshots_[index]->misses();
        snapshots_.erase(snapshots_.begin() + static_cast<std::ptrdiff_t>(index));
    }

    void read(Maker& maker) {
        if (snapshots_.empty()) return;
        const std::size_t index = random_() % snapshots_.size();
        Snapshot& snapshot = *snapshots_[index];
        const auto table = static_cast<std::uint32_t>(random_() % 3);
        const bool held = random_() % 3 == 0 ? compare_range(snapshot, maker, table)
                                             : compare_rows(snapshot, maker, table);
        EXPECT_EQ(snapshot.trouble(), "");
        if (held) {
            ++totals_.reads;
        } else {
            ++totals_.expired;
            end_snapshot(index);
        }
    }

    PageId root(std::uint32_t table) {
        return store_->engine->core().storage().catalog->find(tables_[table])->tree.root();
    }

    bool compare_rows(Snapshot& snapshot, Maker& maker, std::uint32_t table) {
        const TreeShape shape(schemas()[table], tables_[table]);
        for (int i = 0; i < 4; ++i) {
            const Bytes key = maker.some_key(table);
            const auto value = snapshot.get(shape, root(table), key);
            collect();
            if (!value) return false;
            EXPECT_EQ(*value, model_.get(table, key, model_.place_of(snapshot.csn())))
                << "table " << table << " at csn " << snapshot.csn();
        }
        return true;
    }

    // Writers go on between the leaves.
    bool compare_range(Snapshot& snapshot, Maker& maker, std::uint32_t table) {
        const TreeShape shape(schemas()[table], tables_[table]);
        const bool whole = random_() % 8 == 0;
        const Bytes from = whole ? key_of(table, 0) : maker.some_key(table);
        Bytes to = whole ? Bytes{} : maker.some_key(table);
        if (!to.empty() && to < from) to = {};
        const auto found =
            whole && random_() % 2 == 0
                ? snapshot.backwards(shape, root(table))
                : snapshot.range(shape, root(table), from, to, [&] {
                      if (random_() % 3 == 0) submit(maker);
                      if (random_() % 2 == 0) round();
                      return true;
                  });
        collect();
        if (!found) return false;
        const auto expected = model_.range(table, from, to, model_.place_of(snapshot.csn()));
        EXPECT_EQ(difference(*found, expected), "")
            << "table " << table << " at csn " << snapshot.csn();
        return true;
    }

    // With nobody writing; some leaves at a time, since a snapshot holds all that it has seen.
    std::map<Bytes, Bytes> all_rows(std::uint32_t table) {
        const TreeShape shape(schemas()[table], tables_[table]);
        std::map<Bytes, Bytes> all;
        for (Bytes from = key_of(table, 0);;) {
            int leaves = 0;
            Snapshot snapshot(*store_, *view_, *writers_[0].client, 0);
            const auto found =
                snapshot.range(shape, root(table), from, {}, [&] { return ++leaves < 20; });
            EXPECT_EQ(snapshot.trouble(), "");
            if (!found) {
                ADD_FAILURE() << "a short snapshot of a quiet store was revoked";
                return all;
            }
            all.insert(found->begin(), found->end());
            if (leaves < 20) return all;
            from = all.rbegin()->first;
        }
    }

    void compare_newest() {
        for (std::uint32_t table = 0; table < kTables; ++table) {
            EXPECT_EQ(difference(all_rows(table), model_.range(table, {}, {}, model_.newest())),
                      "")
                << "table " << table;
        }
        EXPECT_EQ(store_->verify(), "");
        store_->engine->core().storage().pool.check_invariants();
    }

    void finish_life() {
        if (failed()) return;
        settle();
        // What was answered as relaxed is in this one's batch or before it.
        submit(writers_[0], Maker::with_witness({}), Durability::kDurable);
        settle();
        while (!snapshots_.empty()) end_snapshot(0);
        if (failed()) return;
        compare_newest();
        const StatsPage& stats = view_->stats();
        const auto counted = [&](Counter counter) {
            return stats.counter[static_cast<std::uint32_t>(counter)].load();
        };
        totals_.evictions += counted(Counter::kEvictions);
        totals_.checkpoints += counted(Counter::kCheckpoints);
        EXPECT_EQ(counted(Counter::kHostileEvents), 0u);
    }

    // After a clean stop, a power loss or a kill, all of it is there and goes on.
    void restart() {
        std::unique_ptr<SimDisk> disk;
        const std::uint64_t way = seed_ % 3;
        if (way == 0) {
            EXPECT_TRUE(store_->stop());
            disk = store_->disk->clone(seed_);
        } else {
            disk = way == 1 ? store_->disk->power_loss(seed_) : store_->disk->process_crash(seed_);
        }
        places_ = {};
        first_place_ = model_.newest();
        view_.reset();
        open(std::move(disk));
        if (failed()) return;
        compare_newest();
        Maker maker(random_, keys_);
        for (std::uint32_t move = 0; move < 60 && !failed(); ++move) make_move(maker);
        finish_life();
    }

    Random random_;
    Totals& totals_;
    std::uint64_t seed_ = 0;
    std::uint32_t keys_ = 0;
    SimStoreOptions options_;
    std::unique_ptr<SimStore> store_;
    std::optional<PoolView> view_;
    std::array<Writer, 3> writers_;
    std::array<TableId, kTables> tables_{};
    Model model_;
    std::map<std::int64_t, Done> waiting_;  // applied, by place; an earlier place is not known yet
    std::map<std::ptrdiff_t, std::map<std::uint64_t, std::int64_t>> places_;  // by writer, number
    std::int64_t first_place_ = 0;  // where this life began
    std::vector<Refused> refused_;
    std::vector<std::unique_ptr<Snapshot>> snapshots_;
};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* set = std::getenv(name);
    return set != nullptr ? std::strtoull(set, nullptr, 10) : otherwise;
}

TEST(Model, EverySnapshotAndEveryAnswerIsThatOfTheSerialOrder) {
    const std::uint64_t first = from_environment("BIDSTORE_MODEL_SEED", 1);
    const std::uint64_t seeds = from_environment("BIDSTORE_MODEL_SEEDS", 40);
    Totals totals;
    for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        const auto began = std::chrono::steady_clock::now();
        ModelRun(seed, totals).run(2000);
        fprintf(stderr, "DBG seed %lu: %ld ms applied %lu refused %lu reads %lu misses %lu expired %lu evict %lu ckpt %lu\n", seed, std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now()-began).count(), totals.applied, totals.refused, totals.reads, totals.misses, totals.expired, totals.evictions, totals.checkpoints);
        if (HasFailure()) break;
    }
    // It was a test of what it says.
    EXPECT_GT(totals.applied, 200 * seeds);
    EXPECT_GT(totals.refused, 20 * seeds);
    EXPECT_GT(totals.reads, 50 * seeds);
    EXPECT_GT(totals.misses, 10 * seeds);
    EXPECT_GT(totals.evictions, 50 * seeds);
    EXPECT_GT(totals.checkpoints, 3 * seeds);
    EXPECT_LT(totals.expired, totals.reads / 10);
    RecordProperty("applied", static_cast<int>(totals.applied));
    RecordProperty("refused", static_cast<int>(totals.refused));
    RecordProperty("reads", static_cast<int>(totals.reads));
    RecordProperty("misses", static_cast<int>(totals.misses));
    RecordProperty("expired", static_cast<int>(totals.expired));
    RecordProperty("evictions", static_cast<int>(totals.evictions));
}

}  // namespace
}  // namespace bidstore
