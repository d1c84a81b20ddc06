// A rebuild's catalog: which tables there are, and what becomes of those whose rows are lost with a
// leaf of it. Where a table is and what its columns are nothing else has: its pages are free again,
// and its id stays out of use. The sessions are the exception, since each store has them alike.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "engine/extent_map.h"
#include "engine/leaf_edit.h"
#include "engine/rebuild_plan.h"
#include "engine/space.h"

namespace bidstore {
namespace {

using Kind = RebuildNote::Kind;

// More than a leaf of the catalog has rows, so more ids than went with one: those of a leaf follow
// each other. Rows of dropped tables stay, leaves are not merged (engine/btree_merge.cc), and what
// a rebuild puts behind ids that it lost begins a leaf of its own.
constexpr std::uint32_t kIdsOfALeaf = kPageBytes / 32;

bool is_lost_leaf(const LostPage& page) { return page.level == 0 && !page.root; }

KeyBytes catalog_key(TableId table) {
    KeyBytes key(4);
    encode_key_integer(key.data(), table.value, 4, false);
    return key;
}

std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

const char* RebuildPlan::fault_of(const CatalogRowView& row, const Schema& schema) const {
    if (!is_table_id(row.id())) return "an impossible id";
    if (row.root().value >= survey_.page_count() || Space::fixed(row.root())) {
        return "its root can be no page of a tree";
    }
    return catalog_row_fault(row, schema);
}

// Which rows went with a leaf its parent says. Without the parent nobody does.
Status RebuildPlan::find_tables() {
    Salvaged& catalog = salvage(catalog_schema(), kCatalogTable, PageId{superblock_.catalog_root});
    const std::vector<LostPage>& lost = catalog.tree->lost();
    const bool leaf_lost = std::any_of(lost.begin(), lost.end(), is_lost_leaf);
    // A lost root may have been an inner node, whose leaves are there.
    if (catalog.tree->leaves().empty() || (leaf_lost && !catalog.tree->gaps().empty())) {
        const PageId page = lost.empty() ? catalog.tree->root() : lost[0].page;
        return {Error::kCorruption, "catalog, page " + std::to_string(page.value) +
                                        ": rows are lost, and with them what tables there are; "
                                        "restore a backup"};
    }
    std::vector<CatalogRow> rows;
    if (Status read = read_catalog(*catalog.tree, rows); !read) return read;
    if (lost_row(kSessionsTable) != nullptr) {
        rows.push_back({kSessionsTable, kSessionsRootPage, false, 0, sessions_schema()});
    }
    for (const CatalogRow& row : rows) {
        Salvaged& table = salvage(row.schema, row.id, row.root);
        table.retain_us = row.retain_us;
        table.dropped = row.dropped;
        restore_floor(table);
    }
    return {};
}

Status RebuildPlan::read_catalog(const TableSalvage& catalog, std::vector<CatalogRow>& rows) {
    for (const FoundLeaf& leaf : catalog.leaves()) {
        const std::byte* const bytes = survey_.page(leaf.page);
        if (bytes == nullptr) {
            return {Error::kIoError, "catalog, page " + std::to_string(leaf.page.value)};
        }
        const LeafView view(bytes, catalog.shape().leaf);
        for (std::uint32_t i = 0; i < view.count(); ++i) {
            const CatalogRowView row(view.key(i), view.value(i));
            named_.insert(row.id().value);
            if (!row.has_tree()) continue;
            Result<Schema> schema = row.schema();
            if (!schema) return schema.failure();
            if (const char* fault = fault_of(row, *schema)) {
                return {Error::kCorruption, "catalog: table " + std::to_string(row.id().value) +
                                                ": " + fault + "; restore a backup"};
            }
            rows.push_back(
                {row.id(), row.root(), row.dropped(), row.retain_us(), std::move(*schema)});
        }
    }
    return {};
}

// The leaf of the catalog that had the table's row, when that is lost.
const LostPage* RebuildPlan::lost_row(TableId table) const {
    if (named_.contains(table.value)) return nullptr;
    const KeyBytes key = catalog_key(table);
    const std::vector<LostPage>& lost = tables_.at(kCatalogTable.value).tree->lost();
    const auto found = std::find_if(lost.begin(), lost.end(), [&](const LostPage& page) {
        return is_lost_leaf(page) && key >= page.keys.low &&
               (page.keys.high.empty() || key < page.keys.high);
    });
    return found == lost.end() ? nullptr : &*found;
}

// Of those that are there the pages that nobody else has.
void RebuildPlan::find_lost_tables() {
    TableId of_run;
    for (PageId page{0}; page.value < owner_.size(); ++page.value) {
        const PageFact& fact = survey_.fact(page);
        TableId table{fact.proof == Proof::kNothing ? 0 : fact.table};
        if (fact.extent) {
            const ExtentMap extents(survey_.chunk(chunk_of(page)).meta);
            const std::uint32_t index = page.value % kChunkPages;
            if (extents.first_of_run(index)) of_run = extents.owner(index);
            table = of_run;
        }
        if (owner_[page.value] != 0 || !is_table_id(table) || table == kSessionsTable) continue;
        if (lost_row(table) != nullptr) ++lost_tables_[table.value];
    }
}

void RebuildPlan::tell_lost_tables() {
    if (const LostPage* leaf = lost_row(kSessionsTable)) {
        tell(Kind::kRestored,
             "table " + std::to_string(kSessionsTable.value) +
                 " (sessions): its row is lost with page " + std::to_string(leaf->page.value) +
                 " of the catalog",
             "made anew: it is the same in each store", kSessionsTable);
    }
    for (const auto& [id, pages] : lost_tables_) {
        tell(Kind::kLost,
             "table id " + std::to_string(id) + ", " + std::to_string(pages) +
                 (pages == 1 ? " page" : " pages") +
                 (survey_.any_chunk_lost() ? " (some may have been free before)" : "") +
                 ": its name and columns are lost with page " +
                 std::to_string(lost_row(TableId{id})->page.value) + " of the catalog",
             "its pages are free again: without the catalog nobody can read their rows; keep a "
             "copy of the files",
             TableId{id});
    }
}

// In the place of lost ones: of the sessions, and of the last id that may have been a table's,
// which keeps it and all below it from use. The others need none.
Status RebuildPlan::replace_catalog_rows() {
    if (lost_row(kSessionsTable) != nullptr) {
        const Status added = add_catalog_row(kSessionsTable, kSessionsRootPage, kSystemTableFlag,
                                             &sessions_schema());
        if (!added) return added;
    }
    for (const LostPage& page : tables_.at(kCatalogTable.value).tree->lost()) {
        if (!is_lost_leaf(page) || !page.keys.high.empty() || page.keys.low.empty()) continue;
        std::uint64_t last = decode_key_integer(page.keys.low.data(), 4, false) + kIdsOfALeaf;
        if (!lost_tables_.empty()) {
            last = std::max<std::uint64_t>(last, lost_tables_.rbegin()->first);
        }
        last = std::min<std::uint64_t>(last, kLastTable.value);
        const TableId id{static_cast<std::uint32_t>(last)};
        return add_catalog_row(id, PageId{}, kDroppedTableFlag, nullptr);
    }
    return {};
}

// On a leaf of its own, which has the place of the lost one in the order of keys.
Status RebuildPlan::add_catalog_row(TableId id, PageId root, std::uint32_t flags,
                                    const Schema* schema) {
    TableSalvage& catalog = *tables_.at(kCatalogTable.value).tree;
    const PageId page = take_page(kCatalogTable);
    if (!page) return {Error::kNoSpace, "catalog: no page of the data file is free for a new leaf"};
    RowBuilder row(catalog.schema());
    CHECK(row.set_unsigned(kCatalogTableId, id.value).ok());
    CHECK(row.set_unsigned(kCatalogRoot, root.value).ok());
    CHECK(row.set_unsigned(kCatalogFlags, flags).ok());
    if (schema != nullptr) {
        CHECK(row.set_bytes(kCatalogName, bytes_of(schema->name())).ok());
        CHECK(row.set_bytes(kCatalogSchema, bytes_of(schema->encode())).ok());
    }
    const auto value = row.value();
    CHECK(value.ok());
    std::byte* const bytes = image(page);
    std::memset(bytes, 0, kPageBytes);
    catalog.start_page(bytes, page, Csn{superblock_.checkpoint_csn});
    LeafEdit leaf(bytes, catalog.shape().leaf, catalog.schema());
    leaf.init();
    leaf.insert(0, row.key().data(), *value);
    const KeyBytes key = catalog_key(id);
    std::vector<FoundLeaf>& leaves = catalog.leaves();
    const auto next = std::find_if(leaves.begin(), leaves.end(),
                                   [&](const FoundLeaf& other) { return key < other.first; });
    leaves.insert(next, {page, key, true, {}});
    return {};
}

}  // namespace bidstore
