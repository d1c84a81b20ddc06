// The catalog: which tables there are. The truth is the catalog table in the file; this is its
// image in the engine's memory, changed in the same breath: of the tables that have pages, so that
// what goes through all of them does not go through all that ever were.
//
// Who:    the engine thread alone.
// Ids:    a table id is never used again: the row of a dropped table stays, marked, in the file.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/btree.h"
#include "engine/catalog_row.h"
#include "engine/page/catalog_schema.h"
#include "engine/pages.h"
#include "shm/error.h"
#include "shm/message.h"

namespace bidstore {

struct TableEntry {
    TableId id;
    Schema schema;
    std::uint32_t flags = 0;
    std::uint64_t retain_us = 0;  // 0: rows are kept for ever
    // Its floor stands, if it has one, and nothing in the tree is below it: there is nothing to do
    // for retention (engine/engine_retention.cc).
    bool settled;
    bool drop_stuck = false;  // dropped, and the last step of that found something in its way
    Tree tree;
    TableEntry(Pages& pages, TableId table, Schema table_schema, std::uint32_t table_flags,
               PageId root)
        : id(table),
          schema(std::move(table_schema)),
          flags(table_flags),
          settled(schema.time_column() == kNoTimeColumn),
          tree(pages, schema, table, root) {}
    bool dropped() const { return flags & kDroppedTableFlag; }
    bool system() const { return flags & kSystemTableFlag; }
    bool hidden() const { return flags & kHiddenTableFlag; }
};

class Catalog {
  public:
    Catalog(Pages& pages, PageId root);

    // Reads all rows. A missing page is named: bring it in, call again.
    Result<TreeAccess> load();

    TableEntry* find(TableId id);           // nullptr: none, or dropped; hidden ones too
    TableEntry* find(std::string_view name);  // hidden ones not
    // Dropped ones with pages left, too.
    TableEntry* find_with_pages(TableId id);
    std::size_t tables_with_pages() const { return tables_.size(); }
    TableEntry& catalog() { return *tables_.at(kCatalogTable.value); }
    TableEntry& sessions() { return *tables_.at(kSessionsTable.value); }
    Pages& pages() { return pages_; }
    TableId next_id() const;  // behind kLastTable: no id is left
    std::vector<TableEntry*> all();       // system and hidden tables included, dropped ones not
    std::vector<TableEntry*> dropping();  // dropped, with pages left

    // ---- in the open batch; room was secured ----
    void create(TableId id, const Schema& schema, std::uint32_t flags, std::uint64_t retain_us = 0);
    void set_retention(TableId id, std::uint64_t retain_us);
    void drop(TableId id);
    // The hidden table is loaded: everybody's from now on.
    void show(TableId id);
    // The dropped table's tree is empty: frees its root. There is no entry of it any more.
    void finish_drop(TableEntry& table);

  private:
    Status load_row(const CatalogRowView& row);
    void put_row(const TableEntry& table, PageId root);

    Pages& pages_;
    std::map<std::uint32_t, std::unique_ptr<TableEntry>> tables_;
    std::uint32_t last_id_ = kSessionsTable.value;  // the greatest that any table ever had
};

// As many bytes as the catalog's row of a table with this schema may have.
std::uint32_t catalog_row_bytes(const Schema& schema);

// The attributes in these bytes (none: the defaults); false when they make no sense for the schema.
bool attributes_of(std::span<const std::byte> bytes, const Schema& schema,
                   TableAttributes& attributes);

// The row of a table in the catalog, as key and value.
Status catalog_row(const TableEntry& table, PageId root, RowBuilder& builder);

}  // namespace bidstore
