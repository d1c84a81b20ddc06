// From a record to rows: applies a mapping to one record after another.
//
// Who:    one thread. The source, and the schemas that were passed, outlive the mapper.
// Owns:   the encoded rows of the current record: spans are valid until the next map().
// Errors: make(): kInvalid when mapping, schema and source do not fit. map(): kInvalid naming the
//         column and the reason; the record gives no row at all then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "clientlib/import_mapping.h"
#include "clientlib/import_source.h"
#include "engine/page/schema.h"
#include "shm/error.h"

namespace bidstore {

// Of a row in mode "add".
struct ColumnChange {
    std::uint16_t column = 0;
    bool is_add = false;
    std::int64_t delta = 0;            // of an add
    std::span<const std::byte> bytes;  // else what the column is set to, as stored
};

struct MappedRow {
    std::uint32_t table = 0;  // index into the mapping's tables
    RowMode mode = RowMode::kPut;
    std::span<const std::byte> key;
    std::span<const std::byte> value;         // not in mode kAdd
    std::span<const ColumnChange> changes{};  // in mode kAdd: adds first
};

class RowMapper {
  public:
    // `schemas`: one per table of the mapping, in its order.
    static Result<RowMapper> make(const Mapping& mapping, std::span<const Schema* const> schemas,
                                  RecordSource& source);
    RowMapper(RowMapper&&) noexcept;
    RowMapper& operator=(RowMapper&&) noexcept;
    ~RowMapper();

    // The rows of the source's current record, in the order of the mapping's tables; fewer than
    // there are tables when on_missing = "skip" left some out.
    Result<std::span<const MappedRow>> map();

  private:
    class TableRows;
    explicit RowMapper(std::vector<std::unique_ptr<TableRows>> tables);
    std::vector<std::unique_ptr<TableRows>> tables_;
    std::vector<MappedRow> rows_;
};

}  // namespace bidstore
