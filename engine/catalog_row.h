// What a row of the catalog says of its table.
//
// Who:    the catalog when it is loaded, repair and verify on the pages of a checkpoint.
// Errors: a schema that does not decode is kCorruption and names the table; the other columns are
//         numbers of fixed width, and always there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/page/catalog_schema.h"
#include "engine/page/row.h"

namespace bidstore {

class CatalogRowView {
  public:
    // The bytes of the row have to outlive it.
    CatalogRowView(const std::byte* key, std::span<const std::byte> value)
        : key_(key), value_(value) {}

    TableId id() const { return TableId{number(kCatalogTableId)}; }
    PageId root() const { return PageId{number(kCatalogRoot)}; }
    std::uint32_t flags() const { return number(kCatalogFlags); }
    bool dropped() const { return flags() & kDroppedTableFlag; }
    // The catalog's own row has no root; nor has one that only keeps an id from use.
    bool has_tree() const { return id() != kCatalogTable && root(); }
    std::uint64_t retain_us() const {
        return column_integer(catalog_schema(), kCatalogRetain, key_, value_);
    }
    Result<Schema> schema() const;

  private:
    std::uint32_t number(std::uint32_t column) const {
        return static_cast<std::uint32_t>(column_integer(catalog_schema(), column, key_, value_));
    }
    const std::byte* key_;
    std::span<const std::byte> value_;
};

// Hundred years: times of this length fit both time units.
inline constexpr std::uint64_t kRetainMaxUs = 36'525ull * 86'400'000'000;

// Whether rows of such a table may live so long only; 0 is for ever.
bool may_retain(const Schema& schema, std::uint64_t retain_us);

// What is wrong with a row with this schema, apart from where its root is, in words, or nullptr.
const char* catalog_row_fault(const CatalogRowView& row, const Schema& schema);

}  // namespace bidstore
