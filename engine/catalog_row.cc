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

bool may_retain(const Schema& schema, std::uint64_t retain_us) {
    const bool has_times = schema.time_column() != kNoTimeColumn;
    return retain_us == 0 || (has_times && retain_us <= kRetainMaxUs);
}

const char* catalog_row_fault(const CatalogRowView& row, const Schema& schema) {
    const bool sessions = row.id() == kSessionsTable;
    const bool system = row.flags() & kSystemTableFlag;
    if (sessions != system) return "it is the system's by its mark or its id alone";
    if (sessions && schema.encode() != sessions_schema().encode()) {
        return "it has not the columns of sessions";
    }
    return may_retain(schema, row.retain_us()) ? nullptr : "it has an impossible retention";
}

}  // namespace bidstore
