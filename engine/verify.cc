#include "engine/verify.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/extent_map.h"
#include "engine/tree_check.h"
#include "engine/unread_places.h"

namespace bidstore {
namespace {

class Verifier {
  public:
    Verifier(Storage& storage, const RuleSink& sink, const VerifyProgress& progress)
        : storage_(storage),
          io_(storage.disk, storage.clock),
          owner_(std::size_t{storage.space.chunk_count()} * kChunkPages, 0),
          sink_(sink),
          progress_(progress) {}

    VerifyTotals run() {
        for (TableEntry* table : storage_.catalog->all()) check_table(*table);
        for (TableEntry* table : storage_.catalog->dropping()) check_table(*table);
        check_bitmaps();
        return totals_;
    }

  private:
    void report(const std::string& rule) {
        const Damage damage = rule.ends_with(kLeaked) ? Damage::kSpace : Damage::kData;
        totals_.count(damage);
        sink_({damage, rule});
    }
    void report_unread(const std::string& what) {
        if (!unread_.add(what)) return;
        totals_.count(Damage::kUnread);
        sink_({Damage::kUnread, what});
    }

    // The newest version; of a page that is not in the pool, a checked copy from the file.
    const std::byte* page(PageId id, BrokenRule& why) {
        if (id.value >= owner_.size()) return nullptr;
        if (const std::byte* resident = storage_.pool.newest(id)) return resident;
        std::byte* bytes = copy_.data();  // until the next page is asked for
        const Status read = io_.read(StoreFile::kData, page_offset_bytes(id), bytes, kPageBytes);
        if (!read) {
            why = {Damage::kUnread, read.failure().what};
            return nullptr;
        }
        const char* fault =
            page_fault(bytes, id, storage_.pool.file_uuid(), storage_.checkpointer->covered());
        if (fault == nullptr && page_header(bytes).crc != storage_.space.known_crc(id)) {
            fault = "its checksum is not the one its chunk remembers";
        }
        if (fault == nullptr) return bytes;
        why = {Damage::kData, fault};
        return nullptr;
    }

    // Of the table's tree; nullptr: why_ says why not, or it was told as unread.
    const std::byte* tree_page(const TableEntry& table, PageId id) {
        BrokenRule why;
        const std::byte* bytes = page(id, why);
        if (bytes != nullptr) check_newest(table.id, id, bytes);
        if (bytes != nullptr) return bytes;
        if (why.unread()) {
            ++unread_here_;
            report_unread(text_of(id, {table.id, true}) + ": " + why.what);
        }
        if (why_.size() < TreeReport::kBrokenMost && !why.what.empty()) why_[id.value] = why;
        return nullptr;
    }

    void check_table(const TableEntry& table) {
        unread_here_ = 0;
        // Asked for again when its tree may have left the pool.
        BrokenRule why;
        const std::byte* root = page(table.tree.root(), why);
        if (why.unread()) {
            report_unread(text_of(table.tree.root(), {table.id, true}) + ": " + why.what);
        }
        floors_[table.id.value] = root == nullptr ? 0 : floor_of(root);
        const TreeReport tree = check_tree(
            table.schema, table.id, table.tree.root(),
            [&](PageId id) { return tree_page(table, id); },
            [&](PageId id) { claim(id, table.id); },
            [&](const std::byte* key, const ValueReference& reference, std::uint32_t newest) {
                return value_fault(table, key, reference, newest);
            });
        std::uint64_t unread_more = unread_here_;
        for (const TreeReport::Broken& each : tree.all) {
            const auto known = each.missing ? why_.find(each.page.value) : why_.end();
            if (known != why_.end() && known->second.unread()) {
                --unread_more;
                continue;
            }
            report(text_of(each.page, {table.id, true}) + ": " +
                   (known != why_.end() ? known->second.what : each.rule));
        }
        if (tree.more > unread_more) {
            report("table " + std::to_string(table.id.value) + " (" + table.schema.name() +
                   "): and " + std::to_string(tree.more - unread_more) +
                   " more that are broken, not told here");
        }
        why_.clear();
        ++totals_.tables;
        totals_.rows += tree.rows;
    }

    // What drops a leaf one day is not its rows, but what its chunk's metadata says of them: "older
    // than they are" loses them.
    void check_newest(TableId table, PageId id, const std::byte* bytes) {
        const bool as_in_file =
            bytes == copy_.data() || storage_.pool.settled(id, storage_.checkpointer->covered());
        if (!as_in_file || storage_.space.newest_known(id) >= Space::newest_in(bytes)) return;
        report(text_of(id, {table, true}) +
               ": its chunk says that its rows are older than they are");
    }

    // A page of an extent: its bytes as they are in the pool, or a checked copy from the file.
    const std::byte* extent_page(PageId id, AlignedBuffer& copy, BrokenRule& fault) {
        if (const std::byte* resident = storage_.pool.newest(id)) return resident;
        const Status read =
            io_.read(StoreFile::kData, page_offset_bytes(id), copy.data(), kPageBytes);
        if (!read) {
            fault = {Damage::kUnread, read.failure().what};
        } else if (crc32c(copy.data(), kPageBytes) != storage_.space.known_crc(id)) {
            fault = {Damage::kData, "its checksum is not the one its chunk remembers"};
        }
        return copy.data();
    }

    // What frees the run one day is what its chunk's metadata says of it.
    std::string run_fault(TableId table, const ExtentRun& run, std::uint32_t newest) const {
        const PageId first{run.first};
        if (run.first >= owner_.size()) {
            return "page " + std::to_string(run.first) + " is behind the end of the file";
        }
        const ChunkMeta& meta = chunk_meta(storage_.pool.newest_of(meta_page(chunk_of(first))));
        return value_run_fault(meta, table, run, storage_.space.extent_newest(first), newest);
    }

    // A page of it that is unread is told, and is no fault: the others are looked at.
    std::string value_fault(const TableEntry& table, const std::byte* key,
                            const ValueReference& reference, std::uint32_t newest) {
        std::string fault;
        bool whole = true;
        std::uint32_t crc = 0;
        std::uint32_t left = reference.length_bytes;
        AlignedBuffer copy(kPageBytes);
        for (const ExtentRun& run : reference.all_runs()) {
            if (fault.empty()) fault = run_fault(table.id, run, newest);
            for (std::uint32_t i = 0; i < run.pages && fault.empty(); ++i) {
                const PageId id{run.first + i};
                claim(id, table.id);
                if (!storage_.space.is_extent(id) || id.value >= owner_.size()) {
                    fault = "page " + std::to_string(id.value) + " is no page of a large value";
                    break;
                }
                BrokenRule of_page;
                const std::byte* bytes = extent_page(id, copy, of_page);
                if (of_page.unread()) {
                    whole = false;
                    report_unread(text_of(id, {table.id, true}) + ": " + of_page.what);
                } else if (!of_page.what.empty()) {
                    fault = "page " + std::to_string(id.value) + ": " + of_page.what;
                }
                const std::uint32_t part = std::min(left, std::uint32_t{kPageBytes});
                crc = crc32c(bytes, part, crc);
                left -= part;
            }
        }
        if (whole && fault.empty() && crc != reference.crc) fault = "its checksum is not the row's";
        if (fault.empty()) return {};
        return "large value of key " + hex_of(key, table.schema.key_bytes()) + ": " + fault;
    }

    void claim(PageId id, TableId table) {
        count_page();
        if (id.value >= owner_.size() || Space::fixed(id)) {
            return report(text_of(id, {table, true}) + " cannot be part of a tree");
        }
        if (owner_[id.value] != 0) {
            return report("page " + std::to_string(id.value) + " belongs to tables " +
                          std::to_string(owner_[id.value]) + " and " + std::to_string(table.value));
        }
        owner_[id.value] = table.value;
    }

    // Below a page that is lost there may be many that only it refers to: what is leaked can be
    // told when all trees are whole; when not, these pages are read here, or nobody looks at them.
    void check_bitmaps() {
        const bool whole = totals_.broken_data == 0 && totals_.unread == 0;
        for (std::uint32_t chunk = 0; chunk < storage_.space.chunk_count(); ++chunk) {
            const std::byte* meta = storage_.pool.newest(meta_page(chunk));
            if (meta == nullptr)
                return report("chunk " + std::to_string(chunk) + " has no metadata");
            const ExtentMap extents(chunk_meta(meta));
            TableId extent;  // whose run of an extent the page belongs to; 0: to none
            auto unowned = Unowned::kLeaked;
            for (std::uint32_t i = 0; i < kChunkPages; ++i) {
                const PageId id{chunk * kChunkPages + i};
                const bool used = (meta_bitmap(meta)[i / 64] >> (i % 64)) & 1;
                const bool owned = Space::fixed(id) || owner_[id.value] != 0;
                if (!extents.in_extent(i)) extent = {};
                if (extents.first_of_run(i)) {
                    extent = extents.owner(i);
                    unowned = without_row(extent, id);
                }
                if (extent && !used) {
                    report(text_of(id, {extent, true}) + " of an extent is not allocated");
                }
                if (used == owned) continue;
                if (!used) {
                    report(text_of(id, {TableId{owner_[id.value]}, true}) +
                           ": is part of a tree, but not allocated");
                } else if (!whole) {
                    check_unowned(id, extent);
                } else if (extent && unowned != Unowned::kLeaked) {
                    totals_.early_pages += unowned == Unowned::kEarly;
                } else {
                    report(text_of(id, look_at(id, extent).owner) + kLeaked);
                }
            }
        }
        if (unowned_more_ == 0) return;
        report("and " + std::to_string(unowned_more_) +
               " more pages in use that are damaged, not told here");
    }

    struct Look {
        PageOwner owner;
        BrokenRule fault;
    };
    // At a page in use that nobody refers to. `extent`: whose large value it is of; 0: of none.
    Look look_at(PageId id, TableId extent) {
        Look found;
        if (extent) {
            found.owner = {extent, true};
            extent_page(id, copy_, found.fault);
        } else {
            const std::byte* const there = page(id, found.fault);
            const std::byte* const bytes = there != nullptr ? there : copy_.data();
            found.owner.table = table_in_header(bytes, id, storage_.pool.file_uuid());
            found.owner.sure = there != nullptr || page_crc(bytes) == page_header(bytes).crc;
        }
        return found;
    }

    void check_unowned(PageId id, TableId extent) {
        count_page();
        const Look found = look_at(id, extent);
        if (found.fault.what.empty()) return;
        const std::string what = text_of(id, found.owner) + ": " + found.fault.what;
        if (found.fault.unread()) return report_unread(what);
        if (unowned_told_ == TreeReport::kBrokenMost) {
            ++unowned_more_;
            return;
        }
        ++unowned_told_;
        report(what);
    }

    void count_page() {
        if (++totals_.pages % kProgressPages == 0 && progress_) progress_(totals_.pages);
    }

    std::string text_of(PageId id, const PageOwner& owner) const {
        const TableEntry* const entry = storage_.catalog->find_with_pages(owner.table);
        return page_text(id, owner, entry == nullptr ? "" : entry->schema.name());
    }

    // What becomes of a run of an extent that no row refers to.
    enum class Unowned : std::uint8_t {
        kLeaked,
        kExpires,  // its row is dead and went before it, or its table did
        kEarly,    // the same, or its row forgot it: metadata may say newer than it is
    };
    Unowned without_row(TableId table, PageId first) const {
        const TableEntry* owner = storage_.catalog->find_with_pages(table);
        if (owner == nullptr || owner->dropped()) return Unowned::kExpires;
        const std::uint64_t floor = floors_.at(table.value);
        const std::uint32_t newest = storage_.space.extent_newest(first);
        const bool lowers = storage_.space.extent_lowers(first);
        if (floor == 0 || (newest == kNewestUnknown && !lowers)) return Unowned::kLeaked;
        const bool due = lowers || extent_may_be_dead(owner->schema, newest, floor);
        return due ? Unowned::kExpires : Unowned::kEarly;
    }

    Storage& storage_;
    BlockingIo io_;
    std::vector<std::uint32_t> owner_;               // per page: the table that it belongs to
    std::map<std::uint32_t, std::uint64_t> floors_;  // by table id
    AlignedBuffer copy_{kPageBytes};
    static constexpr const char* kLeaked = " is allocated, but nothing refers to it";
    static constexpr std::uint64_t kProgressPages = 4'096;
    const RuleSink& sink_;
    const VerifyProgress& progress_;
    std::unordered_map<std::uint32_t, BrokenRule> why_;  // of the table's first such pages
    std::uint64_t unread_here_ = 0;                      // of the table's pages
    UnreadPlaces unread_;
    std::size_t unowned_told_ = 0;  // of pages in use below broken ones
    std::uint64_t unowned_more_ = 0;
    VerifyTotals totals_;
};

}  // namespace

std::string hex_of(const std::byte* bytes, std::size_t count) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (std::size_t i = 0; i < count; ++i) {
        text += kDigits[std::to_integer<unsigned>(bytes[i]) >> 4];
        text += kDigits[std::to_integer<unsigned>(bytes[i]) & 15];
    }
    return text;
}

TableId table_in_header(const std::byte* page, PageId id, std::uint64_t file_uuid) {
    const PageHeader& header = page_header(page);
    const bool tree = header.type == PageType::kLeaf || header.type == PageType::kInner;
    const bool own = header.page_id == id.value && header.file_uuid == file_uuid;
    return tree && own ? TableId{header.table_id} : TableId{};
}

std::string page_text(PageId page, const PageOwner& owner, const std::string& table_name) {
    std::string text = "page " + std::to_string(page.value);
    if (!owner.table || (!owner.sure && table_name.empty())) return text;
    std::string table = "table " + std::to_string(owner.table.value);
    if (!table_name.empty()) table += " (" + table_name + ")";
    return (owner.sure ? "" : "perhaps ") + table + ", " + text;
}

std::string value_run_fault(const ChunkMeta& meta, TableId table, const ExtentRun& run,
                            std::uint32_t known_newest, std::uint32_t newest) {
    const std::string page = "page " + std::to_string(run.first);
    const ExtentMap map(meta);
    const std::uint32_t index = run.first % kChunkPages;
    if (!map.first_of_run(index)) return page + " begins no large value, as its chunk says";
    if (map.has_run(table, index, run.pages)) {
        if (known_newest >= newest) return {};
        return "its chunk says that it is older than its row, at " + page;
    }
    return "its chunk has " + std::to_string(map.run_pages(index)) + " pages of table " +
           std::to_string(map.owner(index).value) + " at " + page + ", not " +
           std::to_string(run.pages) + " of its own";
}

bool extent_may_be_dead(const Schema& schema, std::uint32_t newest, std::uint64_t floor) {
    if (floor == 0 || newest == kNewestUnknown) return false;
    const std::uint32_t oldest = newest >> kExtentNewestShift << kExtentNewestShift;
    return oldest == 0 || newest_below(schema, oldest - 1, floor);
}

VerifyTotals verify_storage(Storage& storage, const RuleSink& sink,
                            const VerifyProgress& progress) {
    return Verifier(storage, sink, progress).run();
}

std::string verify_storage(Storage& storage) {
    std::string first;
    verify_storage(storage, [&](const BrokenRule& rule) {
        if (first.empty()) first = rule.what;
    });
    return first;
}

}  // namespace bidstore
