#include "engine/rebuild_plan.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/btree.h"
#include "engine/extent_map.h"
#include "engine/leaf_edit.h"
#include "engine/space.h"
#include "shm/version_writer.h"

namespace bidstore {
namespace {

using Kind = RebuildNote::Kind;

std::string page_text(PageId page) { return "page " + std::to_string(page.value); }

std::string key_text(const KeyBytes& key) { return hex_of(key.data(), key.size()); }

std::string span_text(const KeySpan& keys) {
    if (keys.low.empty() && keys.high.empty()) return "all keys";
    if (keys.low.empty()) return "keys below " + key_text(keys.high);
    if (keys.high.empty()) return "keys from " + key_text(keys.low) + " on";
    return "keys from " + key_text(keys.low) + " to below " + key_text(keys.high);
}

std::string table_text(const TableSalvage& table) {
    return "table " + std::to_string(table.table().value) + " (" + table.schema().name() + ")";
}

}  // namespace

RebuildPlan::RebuildPlan(Disk& disk, Clock& clock, const Superblock& superblock, RebuildSink sink)
    : superblock_(superblock),
      sink_(std::move(sink)),
      survey_(disk, clock, superblock),
      owner_(survey_.page_count(), 0),
      directory_crc_(superblock.directory_crc) {}

Status RebuildPlan::run(const VerifyProgress& progress) {
    survey_.run(progress);
    if (Status there = survey_.unread(); !there) return there;
    const Status made = make();
    if (Status there = survey_.unread(); !there) return there;
    return made;
}

Status RebuildPlan::make() {
    tell_metadata();
    if (Status found = find_tables(); !found) return found;
    // What is proven has the first word: a leaf that was freed may refer to pages of others.
    for (const bool proven : {true, false}) {
        for (auto& [id, table] : tables_) check_values(table, proven);
    }
    const std::vector<PageId> nobodys = nobodys_pages();
    const std::vector<LostPage> gaps = tables_.at(kCatalogTable.value).tree->gaps();
    if (!gaps.empty() && (survey_.any_chunk_lost() || !nobodys.empty())) {
        return {Error::kCorruption, "catalog, " + page_text(gaps[0].page) +
                                        ": a leaf below it may be lost, or an old one, and with "
                                        "it what tables there are; restore a backup"};
    }
    find_lost_tables();
    for (const auto& [id, table] : tables_) tell_losses(table, nobodys);
    tell_lost_tables();
    tell_free_pages();
    for (auto& [id, table] : tables_) {
        if (!table.damaged) continue;
        std::uint32_t& root_owner = owner_[table.tree->root().value];
        if (root_owner != 0 && root_owner != id) {
            return {Error::kCorruption, table_text(*table.tree) + ", " +
                                            page_text(table.tree->root()) +
                                            ": its root belongs to table " +
                                            std::to_string(root_owner) + ", too; restore a backup"};
        }
        for (const PageId page : table.tree->inner_nodes()) {
            owner_[page.value] = 0;
            if (page != table.tree->root()) spare_.push_back(page);
        }
        root_owner = id;
    }
    if (Status replaced = replace_catalog_rows(); !replaced) return replaced;
    for (auto& [id, table] : tables_) {
        if (Status built = build(table); !built) return built;
    }
    compose_metadata();
    return {};
}

// ---- tables ----

RebuildPlan::Salvaged& RebuildPlan::salvage(const Schema& schema, TableId table, PageId root) {
    Salvaged& found = tables_[table.value];
    const TableSalvage::Owners owners{
        [this](PageId page) { return owner_[page.value] == 0; },
        [this, table](PageId page) { owner_[page.value] = table.value; }};
    found.tree = std::make_unique<TableSalvage>(survey_, schema, table, root, owners);
    found.tree->run();
    found.damaged = !found.tree->lost().empty();
    return found;
}

// A lost root had the floor, too. No floor is above this one but of a retention that was shorter
// before, or taken away, and the next start of the daemon, which reads its clock later, moves it at
// least here.
void RebuildPlan::restore_floor(Salvaged& table) const {
    if (!table.tree->root_lost() || table.retain_us == 0) return;
    if (superblock_.newest_time_us <= table.retain_us) return;
    const bool nanoseconds = table.tree->schema().time_unit() == TimeUnit::kNanoseconds;
    table.tree->set_floor((superblock_.newest_time_us - table.retain_us) *
                          (nanoseconds ? 1'000 : 1));
}

// ---- large values ----

void RebuildPlan::check_values(Salvaged& table, bool proven) {
    if (!table.tree->schema().has_variable()) return;
    std::erase_if(table.tree->leaves(), [&](const FoundLeaf& leaf) {
        if (leaf.proven != proven || check_leaf_values(table, leaf.page)) return false;
        if (leaf.page == table.tree->root()) return false;
        table.damaged = true;
        owner_[leaf.page.value] = 0;
        images_.erase(leaf.page.value);
        return true;
    });
}

// False: none of its rows is left.
bool RebuildPlan::check_leaf_values(Salvaged& table, PageId leaf) {
    const TableSalvage& tree = *table.tree;
    const std::byte* const bytes = current(leaf);
    if (bytes == nullptr) return true;  // nothing of the plan holds
    const std::vector<std::byte> copy(bytes, bytes + kPageBytes);
    const LeafView rows(copy.data(), tree.shape().leaf);
    for (std::uint32_t row = rows.count(); row > 0; --row) {
        const std::byte* const key = rows.key(row - 1);
        const auto value = rows.value(row - 1);
        if (!tree.schema().live(key, value, tree.floor())) continue;
        std::string fault;
        const std::uint32_t newest = newest_of_row(tree.schema(), key, value);
        RowView(tree.schema(), value)
            .each_reference([&](std::uint32_t, const ValueReference& reference) {
                if (fault.empty()) fault = take_value(tree, reference, newest);
            });
        if (fault.empty()) continue;
        const KeyBytes lost(key, key + tree.shape().leaf.key_bytes);
        tell(Kind::kLost,
             table_text(tree) + ", " + page_text(leaf) + ": large value of key " + key_text(lost) +
                 ": " + fault,
             "its row is lost with it", tree.table(), {lost, key_after(lost)});
        std::byte* const edited = image(leaf);
        if (page_header(edited).type == PageType::kNone) {
            std::memcpy(edited, copy.data(), kPageBytes);
            VersionWriter::stamp(edited, superblock_.checkpoint_csn);
        }
        LeafEdit(edited, tree.shape().leaf, tree.schema()).erase(row - 1, row);
    }
    const auto edited = images_.find(leaf.value);
    return edited == images_.end() || page_header(edited->second.data()).count > 0;
}

// What is wrong with it; else its pages belong to the table from now on.
std::string RebuildPlan::take_value(const TableSalvage& table, const ValueReference& reference,
                                    std::uint32_t newest) {
    std::uint32_t crc = 0;
    std::uint32_t left = reference.length_bytes;
    AlignedBuffer page(kPageBytes);
    std::vector<std::pair<std::uint32_t, std::uint32_t>> crcs;
    for (const ExtentRun& run : reference.all_runs()) {
        if (std::string fault = run_fault(table.table(), run); !fault.empty()) return fault;
        for (std::uint32_t i = 0; i < run.pages; ++i) {
            const PageId id{run.first + i};
            if (!survey_.extent_page(id, page.data())) return page_text(id) + " cannot be read";
            const std::uint32_t part = std::min(left, std::uint32_t{kPageBytes});
            crc = crc32c(page.data(), part, crc);
            left -= part;
            if (survey_.chunk(chunk_of(id)).whole()) continue;
            crcs.emplace_back(id.value, crc32c(page.data(), kPageBytes));
        }
    }
    if (crc != reference.crc) return "its checksum is not the row's";
    for (const ExtentRun& run : reference.all_runs()) take_run(table.table(), run, newest);
    for (const auto& [id, page_crc] : crcs) extent_crc_[id] = page_crc;
    return {};
}

std::string RebuildPlan::run_fault(TableId table, const ExtentRun& run) const {
    const PageId first{run.first};
    if (run.pages == 0 || run.first >= owner_.size()) return page_text(first) + " is not there";
    const std::uint32_t chunk = chunk_of(first);
    const std::uint32_t index = run.first % kChunkPages;
    if (index + run.pages > kChunkPages) return page_text(first) + ": it leaves its chunk";
    const ChunkFact& known = survey_.chunk(chunk);
    const ExtentMap map(known.meta);
    if (known.whole() && (!map.first_of_run(index) || map.owner(index) != table ||
                          map.run_pages(index) != run.pages)) {
        return page_text(first) + " is not its place, as its chunk says";
    }
    if (!known.whole() && !room_for_owner(chunk, table)) {
        return "its chunk has large values of too many tables";
    }
    for (std::uint32_t i = 0; i < run.pages; ++i) {
        const PageId page{run.first + i};
        if (Space::fixed(page) || owner_[page.value] != 0) {
            return page_text(page) + " is somebody else's";
        }
        if (known.whole() && survey_.fact(page).proof == Proof::kNothing) {
            return page_text(page) + ": its checksum is not the one its chunk remembers";
        }
    }
    return {};
}

bool RebuildPlan::room_for_owner(std::uint32_t chunk, TableId table) const {
    std::set<std::uint32_t> owners{table.value};
    const auto runs = new_runs_.find(chunk);
    if (runs == new_runs_.end()) return true;
    for (const NewRun& run : runs->second) owners.insert(run.table.value);
    return owners.size() <= kExtentOwners;
}

void RebuildPlan::take_run(TableId table, const ExtentRun& run, std::uint32_t newest) {
    for (std::uint32_t i = 0; i < run.pages; ++i) owner_[run.first + i] = table.value;
    row_newest_[run.first] = newest;
    const std::uint32_t chunk = chunk_of(PageId{run.first});
    if (survey_.chunk(chunk).whole()) return;
    new_runs_[chunk].push_back({table, run.first, run.pages, newest});
}

// ---- images ----

std::byte* RebuildPlan::image(PageId page) {
    return images_.try_emplace(page.value, kPageBytes).first->second.data();
}

const std::byte* RebuildPlan::current(PageId page) {
    const auto found = images_.find(page.value);
    return found == images_.end() ? survey_.page(page) : found->second.data();
}

// One that nobody has, nor the file's metadata; 0: there is none.
PageId RebuildPlan::take_page(TableId table) {
    PageId page;
    if (!spare_.empty()) {
        page = spare_.back();
        spare_.pop_back();
    }
    for (; !page && next_free_ < owner_.size(); ++next_free_) {
        const PageId next{next_free_};
        if (Space::fixed(next) || owner_[next_free_] != 0 || survey_.fact(next).in_use) continue;
        page = next;
    }
    if (page) owner_[page.value] = table.value;
    return page;
}

Status RebuildPlan::build(Salvaged& table) {
    if (!table.damaged) return {};
    const TableSalvage& tree = *table.tree;
    bool full = false;
    AlignedBuffer nowhere(kPageBytes);
    tree.build({[&] {
                    const PageId page = take_page(tree.table());
                    full = full || !page;
                    return page;
                },
                [&](PageId page) {
                    owner_[page.value] = 0;
                    images_.erase(page.value);
                },
                [&](PageId page) {
                    std::byte* const bytes = page ? image(page) : nowhere.data();
                    std::memset(bytes, 0, kPageBytes);
                    return bytes;
                },
                [&](PageId page) {
                    const std::byte* const bytes = current(page);
                    return bytes != nullptr ? bytes : nowhere.data();  // nothing of the plan holds
                }},
               Csn{superblock_.checkpoint_csn});
    if (!full) return {};
    return {Error::kNoSpace,
            table_text(tree) + ": no page of the data file is free for its new inner nodes"};
}

// ---- what is said ----

void RebuildPlan::tell(Kind kind, std::string what, std::string outcome, TableId table,
                       KeySpan keys) {
    sink_({kind, std::move(what), std::move(outcome), table, std::move(keys)});
}

void RebuildPlan::tell_metadata() {
    for (std::uint32_t group = 0; group < survey_.directory_faults().size(); ++group) {
        const std::string& fault = survey_.directory_faults()[group];
        if (fault.empty()) continue;
        tell(Kind::kRestored, "chunk directory, " + page_text(directory_page(group)) + ": " + fault,
             "made anew from the chunks' metadata");
    }
    for (std::uint32_t chunk = 0; chunk < survey_.chunk_count(); ++chunk) {
        if (survey_.chunk(chunk).whole()) continue;
        tell(Kind::kRestored,
             "metadata of chunk " + std::to_string(chunk) + ", " + page_text(meta_page(chunk)) +
                 ": " + survey_.chunk(chunk).fault,
             "made anew from the trees");
    }
}

// Pages in use that are lost, and that nothing refers to any more: whose they were is lost, too.
std::vector<PageId> RebuildPlan::nobodys_pages() const {
    std::set<PageId> lost;
    for (const auto& [id, table] : tables_) {
        for (const LostPage& page : table.tree->lost()) lost.insert(page.page);
    }
    std::vector<PageId> pages;
    for (PageId page{0}; page.value < owner_.size(); ++page.value) {
        const PageFact& fact = survey_.fact(page);
        if (!fact.in_use || fact.extent || fact.proof != Proof::kNothing) continue;
        if (!Space::fixed(page) && !lost.contains(page)) pages.push_back(page);
    }
    return pages;
}

void RebuildPlan::tell_losses(const Salvaged& table, const std::vector<PageId>& nobodys) {
    const TableSalvage& tree = *table.tree;
    for (const LostPage& page : tree.lost()) {
        const std::string what = table_text(tree) + ", " + page_text(page.page) + ": " + page.why;
        const bool gap = page.level > 0 || (page.root && !tree.leaves().empty());
        if (gap) {
            tell_gap(table, page, what, nobodys);
        } else {
            const bool of_tables = tree.table() == kCatalogTable;
            tell(Kind::kLost, what,
                 "its rows are lost: " + span_text(page.keys) +
                     (of_tables ? ": what the tables with these ids were" : ""),
                 tree.table(), page.keys);
        }
    }
    const bool timed = tree.schema().time_column() != kNoTimeColumn;
    if (tree.root_lost() && timed && !table.dropped) {
        tell(Kind::kUnproven,
             table_text(tree) + ", " + page_text(tree.root()) + ": its floor is lost with it",
             table.retain_us != 0
                 ? "the newest time less the retention is taken: rows may be back that expired by "
                   "a retention that was shorter before: all keys"
                 : "none is taken: rows may be back that expired by a retention that it had "
                   "before: all keys",
             tree.table());
    }
    for (const FoundLeaf& leaf : tree.left_out()) {
        const KeySpan keys{leaf.first, key_after(leaf.last)};
        tell(Kind::kPerhaps,
             table_text(tree) + ", " + page_text(leaf.page) +
                 ": nothing is left that proves that it is in use, and another leaf has some of "
                 "its keys, too",
             "left out: its rows are lost if it was in use: " + span_text(keys), tree.table(),
             keys);
    }
    for (const FoundLeaf& leaf : tree.leaves()) {
        if (leaf.proven) continue;
        const KeySpan keys{leaf.first, key_after(leaf.last)};
        tell(Kind::kUnproven,
             table_text(tree) + ", " + page_text(leaf.page) +
                 ": nothing is left that proves that it is in use",
             "taken for a leaf of the table: it may have rows that were erased, " + span_text(keys),
             tree.table(), keys);
    }
}

// What is below a lost inner node is found again, but for what is lost itself.
void RebuildPlan::tell_gap(const Salvaged& table, const LostPage& gap, const std::string& what,
                           const std::vector<PageId>& nobodys) {
    if (nobodys.empty() && !survey_.any_chunk_lost()) {
        return tell(Kind::kRestored, what, "made anew from its leaves, which are all there");
    }
    std::string lost = "a leaf of a chunk whose metadata are lost";
    if (!nobodys.empty()) lost = page_text(nobodys[0]);
    if (nobodys.size() > 1) lost += " and " + std::to_string(nobodys.size() - 1) + " others";
    tell(Kind::kPerhaps, what,
         "made anew from the leaves that are there; rows may be lost, if " + lost +
             " had them: " + span_text(gap.keys),
         table.tree->table(), gap.keys);
}

void RebuildPlan::tell_free_pages() {
    for (PageId page{0}; page.value < owner_.size(); ++page.value) {
        const PageFact& fact = survey_.fact(page);
        if (!fact.in_use || fact.extent || owner_[page.value] != 0 || Space::fixed(page)) continue;
        const auto table = tables_.find(fact.table);
        if (table != tables_.end() && table->second.damaged) continue;
        if (fact.proof == Proof::kNothing) continue;      // told as what is lost
        if (lost_tables_.contains(fact.table)) continue;  // told with its table
        tell(Kind::kFreed, page_text(page) + " is allocated, but nothing refers to it",
             "free again");
    }
}

}  // namespace bidstore
