// The tables that describe the others: the catalog and the sessions.
//
// They are ordinary tables with fixed ids. The catalog's root page is in the pool's header; the
// roots of all other tables, the sessions among them, are in the catalog's rows.
//
// Who: the engine writes their rows; clients read them as they read any table.
#pragma once

#include <cstdint>

#include "engine/page/schema.h"

namespace bidstore {

inline constexpr TableId kCatalogTable{1};
inline constexpr TableId kSessionsTable{2};
inline constexpr TableId kFirstUserTable{16};  // ids below are the system's
inline constexpr TableId kLastTable{~0u - 1};
constexpr bool is_table_id(TableId id) { return id.value != 0 && id <= kLastTable; }

// Bits of the catalog's column `flags`.
inline constexpr std::uint32_t kSystemTableFlag = 1;   // hidden, written by the engine alone
inline constexpr std::uint32_t kDroppedTableFlag = 2;  // gone; the row keeps its id from use
inline constexpr std::uint32_t kHiddenTableFlag = 4;   // being loaded: nobody's yet

// Columns of the catalog, by index.
enum CatalogColumn : std::uint16_t {
    kCatalogTableId = 0,  // key
    kCatalogRoot = 1,     // page id; the same for life within one daemon's instance
    kCatalogFlags = 2,
    kCatalogRetain = 3,  // microseconds that rows live, by their time; 0: for ever
    kCatalogName = 4,
    kCatalogSchema = 5,  // Schema::encode()
};

// Columns of the sessions, by index.
enum SessionsColumn : std::uint16_t {
    kSessionsSession = 0,  // key: the session id
    kSessionsNumber = 1,   // newest write number applied
    kSessionsSeen = 2,     // wall clock of that write, microseconds
    kSessionsUid = 3,      // user of the client
    kSessionsRefused = 4,  // recent writes that were refused (engine/sessions.h)
};

// A schema that is part of the program: a mistake in it is ours.
inline const Schema& checked_schema(const Result<Schema>& schema) {
    CHECK(schema.ok());
    return *schema;
}

inline const Schema& catalog_schema() {
    static const Result<Schema> schema = Schema::make("catalog",
                                                      {{"table_id", ColumnType::kU32, 0},
                                                       {"root", ColumnType::kU32, 0},
                                                       {"flags", ColumnType::kU32, 0},
                                                       {"retain_us", ColumnType::kU64, 0},
                                                       {"name", ColumnType::kText, 0},
                                                       {"schema", ColumnType::kBytes, 0}},
                                                      1);
    return checked_schema(schema);
}

inline const Schema& sessions_schema() {
    static const Result<Schema> schema = Schema::make("sessions",
                                                      {{"session", ColumnType::kFixed, 16},
                                                       {"number", ColumnType::kU64, 0},
                                                       {"seen", ColumnType::kTimestamp, 0},
                                                       {"uid", ColumnType::kU32, 0},
                                                       {"refused", ColumnType::kBytes, 0}},
                                                      1);
    return checked_schema(schema);
}

}  // namespace bidstore
