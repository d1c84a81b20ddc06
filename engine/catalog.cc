#include "engine/catalog.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace bidstore {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

Catalog::Catalog(Pages& pages, PageId root) : pages_(pages) {
    tables_[kCatalogTable.value] = std::make_unique<TableEntry>(
        pages, kCatalogTable, catalog_schema(), kSystemTableFlag, root);
}

Result<TreeAccess> Catalog::load() {
    Status decoded;
    const TreeAccess access = catalog().tree.visit_range(
        nullptr, nullptr, [&](const std::byte* key, std::span<const std::byte> value) {
            decoded = load_row(CatalogRowView(key, value));
            return decoded.ok();
        });
    if (!decoded) return decoded.failure();
    if (access.corrupt) {
        return {Error::kCorruption, "catalog: page " + std::to_string(access.corrupt.value) +
                                        " is not the page that its parent names"};
    }
    if (access.ok() && !tables_.contains(kSessionsTable.value)) {
        return {Error::kCorruption, "catalog: it has no table of sessions"};
    }
    return access;
}

Status Catalog::load_row(const CatalogRowView& row) {
    const TableId id = row.id();
    if (!is_table_id(id)) return {Error::kCorruption, "catalog: an impossible id"};
    last_id_ = std::max(last_id_, id.value);
    if (!row.has_tree()) return {};
    Result<Schema> schema = row.schema();
    if (!schema) return schema.failure();
    if (const char* fault = catalog_row_fault(row, *schema)) {
        return {Error::kCorruption, "catalog: table " + std::to_string(id.value) + ": " + fault};
    }
    auto table =
        std::make_unique<TableEntry>(pages_, id, std::move(*schema), row.flags(), row.root());
    table->retain_us = row.retain_us();
    tables_[id.value] = std::move(table);
    return {};
}

TableEntry* Catalog::find(TableId id) {
    const auto found = tables_.find(id.value);
    return found == tables_.end() || found->second->dropped() ? nullptr : found->second.get();
}

TableEntry* Catalog::find_with_pages(TableId id) {
    const auto found = tables_.find(id.value);
    return found == tables_.end() ? nullptr : found->second.get();
}

TableEntry* Catalog::find(std::string_view name) {
    for (TableEntry* table : all()) {
        if (!table->hidden() && table->schema.name() == name) return table;
    }
    return nullptr;
}

TableId Catalog::next_id() const { return TableId{std::max(last_id_ + 1, kFirstUserTable.value)}; }

std::vector<TableEntry*> Catalog::all() {
    std::vector<TableEntry*> tables;
    for (const auto& [id, table] : tables_) {
        if (!table->dropped()) tables.push_back(table.get());
    }
    return tables;
}

std::vector<TableEntry*> Catalog::dropping() {
    std::vector<TableEntry*> tables;
    for (const auto& [id, table] : tables_) {
        if (table->dropped()) tables.push_back(table.get());
    }
    return tables;
}

std::uint32_t catalog_row_bytes(const Schema& schema) {
    constexpr std::uint32_t kFixedColumns = 64;  // more than they take, the key included
    return static_cast<std::uint32_t>(schema.encode().size()) + kNameBytesMax + kFixedColumns;
}

bool attributes_of(std::span<const std::byte> bytes, const Schema& schema,
                   TableAttributes& attributes) {
    attributes = TableAttributes{};
    if (bytes.empty()) return true;
    if (bytes.size() != sizeof attributes) return false;
    std::memcpy(&attributes, bytes.data(), sizeof attributes);
    return attributes.reserved == 0 && may_retain(schema, attributes.retain_us);
}

Status catalog_row(const TableEntry& table, PageId root, RowBuilder& builder) {
    const std::string schema = table.schema.encode();
    builder.clear();
    for (const auto& [column, number] :
         {std::pair{kCatalogTableId, table.id.value}, std::pair{kCatalogRoot, root.value},
          std::pair{kCatalogFlags, table.flags}}) {
        if (Status set = builder.set_unsigned(column, number); !set) return set;
    }
    if (Status set = builder.set_unsigned(kCatalogRetain, table.retain_us); !set) return set;
    if (Status set = builder.set_bytes(kCatalogName, bytes_of(table.schema.name())); !set) {
        return set;
    }
    return builder.set_bytes(kCatalogSchema, bytes_of(schema));
}

void Catalog::put_row(const TableEntry& table, PageId root) {
    RowBuilder builder(catalog_schema());
    CHECK(catalog_row(table, root, builder).ok());
    const auto value = builder.value();
    CHECK(value.ok());  // the size was checked before the transaction was accepted
    CHECK(catalog().tree.put(builder.key().data(), *value).ok());
}

void Catalog::create(TableId id, const Schema& schema, std::uint32_t flags,
                     std::uint64_t retain_us) {
    const PageId root = pages_.allocate(PageType::kLeaf, id, catalog().tree.root());
    Tree::init_root(pages_.writable(root), schema);
    last_id_ = std::max(last_id_, id.value);
    tables_[id.value] = std::make_unique<TableEntry>(pages_, id, schema, flags, root);
    tables_[id.value]->retain_us = retain_us;
    put_row(*tables_[id.value], root);
}

void Catalog::set_retention(TableId id, std::uint64_t retain_us) {
    TableEntry& table = *tables_.at(id.value);
    table.retain_us = retain_us;
    table.settled = false;
    put_row(table, table.tree.root());
}

void Catalog::drop(TableId id) {
    TableEntry& table = *tables_.at(id.value);
    table.flags |= kDroppedTableFlag;
    put_row(table, table.tree.root());
    pages_.table_dropped();
}

void Catalog::show(TableId id) {
    TableEntry& table = *tables_.at(id.value);
    table.flags &= ~kHiddenTableFlag;
    put_row(table, table.tree.root());
}

void Catalog::finish_drop(TableEntry& table) {
    pages_.free(table.tree.root());
    put_row(table, PageId{});
    tables_.erase(table.id.value);
}

}  // namespace bidstore
