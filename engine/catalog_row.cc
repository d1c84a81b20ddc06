#include "engine/catalog_row.h"

#include <string>

namespace bidstore {

Result<Schema> CatalogRowView::schema() const {
    Result<Schema> schema =
        Schema::decode(column_bytes(catalog_schema(), kCatalogSchema, key_, value_));
    if (schema) return schema;
    return {Error::kCorruption, "catalog: schema of table " + std::to_string(id().value) + ": " +
                                    schema.failure().what};
}

}  // namespace bidstore
