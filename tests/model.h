// What tables and transactions should do, told a second time and simply: rows in maps, a
// transaction as changes on top of them, and every value that a row ever had with its place in the
// serial order.
//
// Who: tests/model_test.cc, tests/sim_oracle.h. Shares no code with the engine but the schemas.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/page/schema.h"
#include "shm/call_slot.h"
#include "shm/message.h"

namespace bidstore {

using Bytes = std::vector<std::byte>;

inline constexpr std::uint32_t kTables = 4;
inline constexpr std::uint32_t kOrder = 3;     // the table with the witness
inline constexpr std::uint32_t kRetained = 2;  // one that may have a retention

// ---- tables -------------------------------------------------------------------------------------

inline Schema made(Result<Schema> schema) {
    CHECK(schema.ok());
    return *schema;
}

inline const std::array<Schema, kTables>& schemas() {
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

inline Bytes key_of(std::uint32_t table, std::uint32_t id) {
    Bytes key(schemas()[table].key_bytes());
    if (table == 1) encode_key_integer(key.data(), id % 3, 2, false);
    encode_key_integer(key.data() + (table == 1 ? 2 : 0), id, 4, false);
    return key;
}

// The parts of a row value, as engine/page/row.h lays them out: narrow, or wide when they do not
// fit a page.
struct Parts {
    Bytes fixed;
    std::vector<Bytes> variable;
};

inline std::size_t narrow_bytes(const Schema& schema, const std::vector<Bytes>& variable) {
    std::size_t bytes = schema.key_bytes() + schema.fixed_bytes() + 2 * variable.size();
    for (const Bytes& part : variable) bytes += part.size();
    return bytes;
}

// Nothing when the ends fall, lead outside, or leave bytes over.
inline std::optional<Parts> try_split(const Schema& schema, const Bytes& value) {
    const std::size_t fixed = schema.fixed_bytes();
    const std::uint32_t columns = schema.variable_columns();
    if (value.size() < fixed + 2 * columns) return std::nullopt;
    Parts parts;
    parts.fixed.assign(value.begin(), value.begin() + static_cast<std::ptrdiff_t>(fixed));
    const bool wide =
        columns > 0 && value[fixed] == std::byte{0xff} && value[fixed + 1] == std::byte{0xff};
    const std::size_t width = wide ? 4 : 2;
    const std::size_t ends = fixed + (wide ? 2 : 0);
    const std::size_t content = ends + width * columns;
    std::size_t begin = 0;
    for (std::uint32_t i = 0; i < columns; ++i) {
        if (content > value.size()) return std::nullopt;
        std::uint32_t end = 0;
        std::memcpy(&end, value.data() + ends + width * i, width);
        if (end < begin || end > value.size() - content) return std::nullopt;
        parts.variable.emplace_back(value.begin() + static_cast<std::ptrdiff_t>(content + begin),
                                    value.begin() + static_cast<std::ptrdiff_t>(content + end));
        begin = end;
    }
    if (content + begin != value.size()) return std::nullopt;
    const bool fits = narrow_bytes(schema, parts.variable) <= kRowBytesMax;
    return fits == wide ? std::nullopt : std::optional<Parts>(std::move(parts));
}

inline Parts split(const Schema& schema, const Bytes& value) {
    auto parts = try_split(schema, value);
    CHECK(parts.has_value());
    return std::move(*parts);
}

inline Bytes join(const Schema& schema, const Parts& parts) {
    const bool wide = narrow_bytes(schema, parts.variable) > kRowBytesMax;
    Bytes value = parts.fixed;
    if (wide) value.insert(value.end(), 2, std::byte{0xff});
    std::uint32_t end = 0;
    for (const Bytes& part : parts.variable) {
        end += static_cast<std::uint32_t>(part.size());
        for (int i = 0; i < (wide ? 4 : 2); ++i) {
            value.push_back(static_cast<std::byte>(end >> (8 * i)));
        }
    }
    for (const Bytes& part : parts.variable) value.insert(value.end(), part.begin(), part.end());
    return value;
}

inline bool well_formed(const Schema& schema, const Bytes& value) {
    return try_split(schema, value).has_value();
}

inline std::string hex(const Bytes& bytes) {
    std::string text;
    for (const std::byte byte : bytes) {
        constexpr char kDigits[] = "0123456789abcdef";
        text += kDigits[std::to_integer<unsigned>(byte) >> 4];
        text += kDigits[std::to_integer<unsigned>(byte) & 15];
    }
    return text;
}

// The first row that is not the same, or an empty string.
inline std::string difference(const std::map<Bytes, Bytes>& found,
                              const std::map<Bytes, Bytes>& wanted) {
    for (const auto& [key, value] : found) {
        const auto same = wanted.find(key);
        if (same == wanted.end()) return "row " + hex(key) + " should not be there";
        if (same->second != value) {
            const auto at =
                std::mismatch(value.begin(), value.end(), same->second.begin(), same->second.end());
            const auto from = [&](const Bytes& bytes, Bytes::const_iterator begin) {
                const auto left = std::min<std::ptrdiff_t>(bytes.end() - begin, 24);
                return std::to_string(bytes.size()) + " bytes with " + hex({begin, begin + left});
            };
            return "row " + hex(key) + " has " + from(value, at.first) + " at " +
                   std::to_string(at.first - value.begin()) + ", and should have " +
                   from(same->second, at.second);
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
    using Range =
        std::function<std::vector<Bytes>(std::uint32_t table, const Bytes& from, const Bytes& to)>;

    using Floors = std::array<std::uint64_t, kTables>;

    Evaluation(Find find, Range range, const Floors& floors)
        : find_(std::move(find)), range_(std::move(range)), floors_(floors) {}

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
        if (changed == changes_[operation.table].end()) {
            return find_(operation.table, operation.key);
        }
        return alive(operation.table, *changed) ? changed->second : std::nullopt;
    }
    bool alive(std::uint32_t table, const Rows::value_type& row) const {
        return row.second && schemas()[table].live(row.first.data(), *row.second, floors_[table]);
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
        const auto from =
            parts.fixed.begin() + static_cast<std::ptrdiff_t>(schema.offset_bytes(column));
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
        const Bytes value = join(schema, parts);
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
        for (const auto& row : changes_[operation.table]) {
            const bool below = operation.body.empty() || row.first < operation.body;
            const bool within = row.first >= operation.key && below;
            if (within && alive(operation.table, row)) keys.insert(row.first);
        }
        std::int64_t count = 0;
        for (const Bytes& key : keys) {
            const auto changed = changes_[operation.table].find(key);
            const bool known = changed != changes_[operation.table].end();
            if (known && !alive(operation.table, *changed)) continue;
            changes_[operation.table][key] = std::nullopt;
            ++count;
        }
        if (operation.flags & kWantResult) results.push_back(count);
        return Error::kOk;
    }

    Find find_;
    Range range_;
    Floors floors_;
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
        if (value && !schemas()[table].live(key.data(), *value, floors_[table]))
            return std::nullopt;
        return value;
    }
    // Rows of this table with a time below it are dead from the first place on. No time of another
    // row may ever come to lie below the table's floor: where it is just now is not known here.
    void bury_below(std::uint32_t table, std::uint64_t floor) { floors_[table] = floor; }
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
            },
            floors_);
    }
    // Without a csn: of the batch of the place before or behind it, or one between.
    void apply(const Evaluation& evaluation, std::optional<std::uint64_t> csn) {
        ++newest_;
        csns_.push_back(csn.value_or(newest_csn()));
        csn_told_.push_back(csn.has_value());
        for (std::uint32_t table = 0; table < kTables; ++table) {
            for (const auto& [key, value] : evaluation.changes()[table]) {
                rows_[table][key].emplace_back(newest_, value);
            }
        }
    }
    // Forgets everything behind `place`: a crash took it back.
    void truncate(std::int64_t place) {
        for (auto& table : rows_) {
            for (auto row = table.begin(); row != table.end();) {
                auto& values = row->second;
                while (!values.empty() && values.back().first > place) values.pop_back();
                row = values.empty() ? table.erase(row) : std::next(row);
            }
        }
        newest_ = std::min(newest_, place);
        csns_.resize(static_cast<std::size_t>(newest_));
        csn_told_.resize(csns_.size());
    }
    std::int64_t newest() const { return newest_; }
    std::uint64_t newest_csn() const { return csns_.empty() ? 0 : csns_.back(); }
    // The last place that is for certain in none of the newest so many batches.
    std::int64_t place_before_batches(std::uint32_t batches) const {
        auto end = csns_.end();
        for (; batches > 0 && end != csns_.begin(); --batches) {
            end = std::lower_bound(csns_.begin(), end, *(end - 1));
            while (end != csns_.begin() && !csn_told_[end - csns_.begin() - 1]) --end;
        }
        return end - csns_.begin();
    }
    // The last place in the order that a snapshot of csn sees.
    std::int64_t place_of(std::uint64_t csn) const {
        return std::upper_bound(csns_.begin(), csns_.end(), csn) - csns_.begin();
    }

  private:
    std::array<std::map<Bytes, std::vector<std::pair<std::int64_t, std::optional<Bytes>>>>, kTables>
        rows_;
    Evaluation::Floors floors_{};
    std::vector<std::uint64_t> csns_;  // of places 1, 2, ...
    std::vector<bool> csn_told_;       // of the same; else it is the one of the place before
    std::int64_t newest_ = 0;
};

}  // namespace bidstore
