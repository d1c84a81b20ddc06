// The catalog's rows, as this library reads them like any other table's.
//
// Who: any thread. The layout is engine/page/catalog_schema.h's; a test holds the two together.
#pragma once

#include <cstdint>
#include <string_view>

#include "clientlib/read.h"
#include "clientlib/row_codec.h"

namespace bidstore {

struct CatalogRow {
    std::uint32_t table_id = 0;
    std::uint32_t root = 0;
    std::uint32_t flags = 0;
    std::uint64_t retain_us = 0;
    std::string_view name;
    std::string_view schema;
};

template <>
struct Describe<CatalogRow> {
    static constexpr auto table = bidstore::table<CatalogRow>(
        "catalog", keys(column<&CatalogRow::table_id>("table_id")),
        values(column<&CatalogRow::root>("root"), column<&CatalogRow::flags>("flags"),
               column<&CatalogRow::retain_us>("retain_us"),
               column<&CatalogRow::name>("name"), column<&CatalogRow::schema>("schema", bytes)));
};

// What finding the catalog itself needs; the same for every store.
const TableInfo& catalog_info();

}  // namespace bidstore
