// What has to change in a damaged data file, as images of pages: steps 2 to 4 of a rebuild
// (engine/rebuild.h). It reads the file, and writes nothing.
//
// Who:    one thread, over files that nobody writes meanwhile; the journal is in place.
// Memory: the survey's, and the images: metadata and inner nodes, and leaves that lose rows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/catalog_row.h"
#include "engine/rebuild.h"
#include "engine/rebuild_journal.h"
#include "engine/rebuild_survey.h"
#include "engine/rebuild_tree.h"

namespace bidstore {

class RebuildPlan {
  public:
    RebuildPlan(Disk& disk, Clock& clock, const Superblock& superblock, RebuildSink sink);

    // kCorruption: nobody can say which rows the catalog has lost, or it has none left. kNoSpace:
    // no page for what is made anew. kIoError: pages that were there cannot be read again; what was
    // told does not hold.
    Status run(const VerifyProgress& progress);
    const PageImages& images() const { return images_; }
    std::uint32_t directory_crc() const { return directory_crc_; }

  private:
    struct Salvaged {
        std::unique_ptr<TableSalvage> tree;
        std::uint64_t retain_us = 0;
        bool dropped = false;
        bool damaged = false;  // its tree is to be made anew
    };
    struct CatalogRow {  // of a table with a tree
        TableId id;
        PageId root;
        bool dropped;
        std::uint64_t retain_us;
        Schema schema;
    };
    struct NewRun {  // of an extent, in a chunk whose metadata are lost
        TableId table;
        std::uint32_t first = 0;
        std::uint32_t pages = 0;
        std::uint32_t newest = 0;
    };

    // ---- tables ----
    Status make();
    Salvaged& salvage(const Schema& schema, TableId table, PageId root);
    void restore_floor(Salvaged& table) const;
    void check_values(Salvaged& table, bool proven);
    bool check_leaf_values(Salvaged& table, PageId leaf);
    std::string take_value(const TableSalvage& table, const ValueReference& reference,
                           std::uint32_t newest);
    std::string run_fault(TableId table, const ExtentRun& run) const;
    void take_run(TableId table, const ExtentRun& run, std::uint32_t newest);
    bool room_for_owner(std::uint32_t chunk, TableId table) const;
    Status build(Salvaged& table);
    PageId take_page(TableId table);
    std::byte* image(PageId page);
    const std::byte* current(PageId page);

    // ---- the catalog (engine/rebuild_catalog.cc) ----
    Status find_tables();
    Status read_catalog(const TableSalvage& catalog, std::vector<CatalogRow>& rows);
    const char* fault_of(const CatalogRowView& row, const Schema& schema) const;
    const LostPage* lost_row(TableId table) const;
    void find_lost_tables();
    void tell_lost_tables();
    Status replace_catalog_rows();
    Status add_catalog_row(TableId id, PageId root, std::uint32_t flags, const Schema* schema);

    // ---- what is said ----
    void tell(RebuildNote::Kind kind, std::string what, std::string outcome, TableId table = {},
              KeySpan keys = {});
    void tell_metadata();
    void tell_losses(const Salvaged& table, const std::vector<PageId>& nobodys);
    void tell_gap(const Salvaged& table, const LostPage& gap, const std::string& what,
                  const std::vector<PageId>& nobodys);
    void tell_free_pages();
    std::vector<PageId> nobodys_pages() const;

    // ---- metadata (engine/rebuild_metadata.cc) ----
    void compose_metadata();
    bool compose_chunk(std::uint32_t chunk, DirectoryEntry& entry);
    bool settle_page(PageId page, ChunkMeta& meta, std::uint32_t* newest) const;
    bool free_runs(std::uint32_t chunk, ChunkMeta& meta, std::uint32_t* newest);
    void add_runs(std::uint32_t chunk, ChunkMeta& meta, std::uint32_t* newest) const;
    bool expiring(TableId table, std::uint32_t newest) const;
    void compose_page(PageId page, PageType type, const void* content);

    const Superblock superblock_;
    const RebuildSink sink_;
    Survey survey_;
    std::map<std::uint32_t, Salvaged> tables_;  // by id
    std::set<std::uint32_t> named_;             // ids that rows of the catalog have
    // Pages of tables whose rows of the catalog are lost, by id: free again.
    std::map<std::uint32_t, std::uint32_t> lost_tables_;
    std::vector<std::uint32_t> owner_;  // per page: table that has it; 0: nobody
    std::vector<PageId> spare_;         // inner nodes of trees that are made anew
    std::uint32_t next_free_ = 0;
    PageImages images_;
    std::map<std::uint32_t, std::vector<NewRun>> new_runs_;        // by chunk
    std::unordered_map<std::uint32_t, std::uint32_t> extent_crc_;  // of their pages
    // Newest time of the row that has it, by first page of a run.
    std::unordered_map<std::uint32_t, std::uint32_t> row_newest_;
    std::uint32_t directory_crc_;
};

}  // namespace bidstore
