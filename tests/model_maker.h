// Random transactions for the model's tables (tests/model.h), and their bytes.
#pragma once

#include <random>
#include <utility>

#include "tests/model.h"
#include "tests/sim.h"

namespace bidstore {

using Random = std::mt19937_64;

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
    // A time below this is of long ago, any other far ahead, beyond what metadata can say: no floor
    // comes between them.
    static constexpr std::uint64_t kLongAgo = 1'000;

    // One row in each table; of id 0 one with a time of long ago.
    std::vector<Operation> rows(std::uint32_t id) {
        std::vector<Operation> operations(3);
        for (std::uint32_t table = 0; table < 3; ++table) {
            operations[table].table = table;
            operations[table].key = key_of(table, id);
            operations[table].body = row(schemas()[table], id == 0);
        }
        return with_witness(std::move(operations));
    }
    Bytes some_key(std::uint32_t table) {
        return key_of(table, static_cast<std::uint32_t>(pick(keys_)));
    }
    std::uint64_t pick(std::uint64_t below) { return random_() % below; }

  private:
    Bytes long_ago() {
        Bytes bytes(8);
        const std::uint64_t at = 1 + pick(kLongAgo - 1);
        std::memcpy(bytes.data(), &at, sizeof at);
        return bytes;
    }

    Bytes filler(std::size_t length) {
        Bytes bytes(length);
        const std::uint64_t first = pick(26);
        // Each page's worth is another one, so that pages cannot be taken for each other.
        for (std::size_t i = 0; i < length; ++i) {
            bytes[i] = static_cast<std::byte>('a' + (first + i / 1'000) % 26);
        }
        return bytes;
    }

    Bytes row(const Schema& schema, bool old = false) {
        Parts parts;
        parts.fixed = filler(schema.fixed_bytes());
        const std::uint32_t time = schema.time_column();
        if (time != kNoTimeColumn && (old || pick(6) == 0)) {
            const Bytes at = long_ago();
            std::copy(at.begin(), at.end(),
                      parts.fixed.begin() + static_cast<std::ptrdiff_t>(schema.offset_bytes(time)));
        }
        // Mostly short rows; some that fill most of a page, some with large values.
        for (std::uint32_t i = 0; i < schema.variable_columns(); ++i) {
            const std::uint64_t size = pick(30) == 0  ? pick(20'000)
                                       : pick(8) == 0 ? pick(1900)
                                                      : pick(300);
            parts.variable.push_back(filler(size));
        }
        return join(schema, parts);
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
                if (schema.has_variable() && pick(3) == 0) {
                    operation.column = static_cast<std::uint16_t>(schema.columns().size() - 1);
                    operation.content = filler(pick(5'000));
                }
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
        operation.content = filler(is_variable(column.type) ? pick(pick(8) == 0 ? 12'000 : 900)
                                                            : column.width_bytes);
        if (operation.column == schema.time_column() && pick(2) == 0)
            operation.content = long_ago();
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
        const auto from =
            static_cast<std::uint32_t>(decode_key_integer(operation.key.data(), 4, false));
        operation.body = key_of(operation.table, from + static_cast<std::uint32_t>(pick(50)));
        if (pick(20) == 0) std::swap(operation.key, operation.body);  // an empty range
    }

    Random& random_;
    std::uint32_t keys_;
};

inline TransactionBytes encode(const std::vector<Operation>& operations,
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

}  // namespace bidstore
