#include "engine/verify_online.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/catalog_row.h"
#include "engine/extent_map.h"
#include "engine/format.h"
#include "engine/page/catalog_schema.h"
#include "engine/page/search.h"
#include "engine/space.h"
#include "engine/tree_check.h"
#include "engine/unread_places.h"
#include "engine/verify_superblock.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kPauseNs = 10'000'000;  // while a checkpoint puts pages in their places
// A daemon that puts the pages of one checkpoint in their places for longer does nothing any more:
// so long at least, and half of what a checkpoint writes in a second when nothing hurries it.
constexpr std::uint64_t kPlacingNs = 30'000'000'000;
constexpr std::uint64_t kPlacingPerSecond = 2'048;
// Chunks whose metadata are kept from step to step, while they are those of the same checkpoint.
constexpr std::size_t kMetadataMost = 4'096;

using KeyBytes = std::vector<std::byte>;

struct Table {
    TableId id;
    Schema schema;
    TreeShape shape;
    Table(TableId table, Schema table_schema)
        : id(table), schema(std::move(table_schema)), shape(schema, table) {}
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;
    Table(Table&& other) noexcept : Table(other.id, other.schema) {}
};

bool is_used(const ChunkMeta& meta, std::uint32_t index) {
    return (meta.used[index / 64] >> (index % 64)) & 1;
}

struct Metadata {
    ChunkMeta chunk{};
    std::array<std::uint32_t, kChunkPages> newest{};  // of its pages
};

struct PageFault {
    PageOwner owner;
    BrokenRule rule;  // but for the page's name
};

// Where the walk over a tree goes on.
struct Place {
    KeyBytes from;  // empty: at the lowest key
    bool done = false;
};

class OnlineVerifier {
  public:
    OnlineVerifier(Disk& disk, Clock& clock, const OnlineOptions& options, const RuleSink& sink,
                   const VerifyProgress& progress)
        : disk_(disk),
          clock_(clock),
          options_(options),
          io_(disk, clock),
          superblocks_(disk, clock, options, unread_),
          sink_(sink),
          progress_(progress) {}

    Result<OnlineReport> run();

  private:
    Status look_at_all();
    // ---- steps ----
    Status step(const std::function<void()>& look);
    Status await_places();
    void broken(std::string what, Damage damage = Damage::kData) {
        found_.push_back({damage, std::move(what)});
    }
    void tell(const BrokenRule& rule);
    void settle();
    void forget_checkpoint() {
        metadata_.clear();
        claimed_.clear();
    }
    bool read(PageId page, std::byte* to, BrokenRule& fault, std::uint64_t bytes = kPageBytes);
    BrokenRule fault_of(PageId page, std::byte* to);

    // ---- chunks ----
    void check_directory();
    void check_chunk(std::uint32_t chunk);
    bool read_metadata(std::uint32_t chunk, ChunkMeta& meta);
    const Metadata* metadata_of(PageId page);
    std::string page_fault_of(PageId page, const ChunkMeta& meta, const std::byte* bytes) const;
    PageOwner owner_of(PageId page, const std::byte* bytes) const;
    std::string text_of(PageId page, const PageOwner& owner) const;

    // ---- trees ----
    std::vector<Table> tables();
    PageId root_of(const Table& table);
    void walk(const Table& table, Place& place);
    const std::byte* node(const Table& table, PageId page, int level);
    std::string node_fault(const Table& table, PageId page, const std::byte* bytes, int level);
    std::string value_fault(const Table& table, const std::byte* key,
                            const ValueReference& reference, std::uint32_t newest);
    bool claim(PageId first);
    void check_leaves(const Table& table, const std::byte* inner, KeyBytes low,
                      const KeyBytes& high, Place& place);
    void check_leaf(const Table& table, PageId page, const std::byte* bytes, const KeyBytes& low,
                    const KeyBytes& high, bool root);
    void broken(const Table& table, PageId page, const std::string& fault,
                Damage damage = Damage::kData);

    Disk& disk_;
    Clock& clock_;
    const OnlineOptions& options_;
    BlockingIo io_;
    UnreadPlaces unread_;
    SuperblockLook superblocks_;
    const RuleSink& sink_;
    const VerifyProgress& progress_;
    Superblock superblock_{};
    std::uint64_t uuid_ = 0;
    std::uint64_t placing_ = 0;  // sequence of the superblock that named a journal
    std::uint64_t placing_since_ns_ = 0;
    OnlineReport report_;
    // Of the step that is under way.
    std::vector<BrokenRule> found_;
    std::map<std::uint32_t, PageFault> pages_found_;
    UnreadPlaces unread_found_;         // counts as little: the file may have become shorter
    std::vector<std::uint32_t> named_;  // of faults_, told with their table
    std::set<std::pair<std::uint32_t, Damage>> chunks_found_;
    std::uint64_t floor_ = 0;  // of the tree that is walked
    std::uint64_t bytes_read_ = 0;
    std::uint64_t pages_ = 0;
    std::uint64_t rows_ = 0;
    // A step that checkpoints come into again and again gets shorter.
    std::uint32_t leaves_most_ = kFanOutMax;
    // Pages that are not what their chunk remembers; the trees tell whose they are, or, of those
    // below a broken node, the pages themselves.
    std::map<std::uint32_t, PageFault> faults_;
    std::map<std::uint32_t, std::string> names_;  // of tables, by id
    // Of the checkpoint whose superblock has this sequence, by chunk; nothing: they are damaged.
    std::unordered_map<std::uint32_t, std::optional<Metadata>> metadata_;
    std::uint64_t metadata_sequence_ = 0;
    // Of the same checkpoint, by page: whether it begins a run of a large value that a row has. A
    // walk comes to each row once, so who finds it set is another one.
    std::vector<bool> claimed_;
    std::set<std::pair<std::uint32_t, Damage>> chunks_told_;  // whose metadata are lost or unread
    AlignedBuffer page_{kPageBytes};
    AlignedBuffer meta_page_{kPageBytes};
    AlignedBuffer chunk_{kChunkBytes};
};

// ---- steps ----

// While a checkpoint puts its pages in their places. A daemon that died then, or is fenced, never
// ends it.
Status OnlineVerifier::await_places() {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (placing_ != superblock_.sequence) {
        placing_ = superblock_.sequence;
        placing_since_ns_ = now_ns;
    }
    const std::uint64_t longest_ns =
        kPlacingNs + superblock_.journal_pages * 1'000'000'000ull / kPlacingPerSecond;
    if (now_ns - placing_since_ns_ > longest_ns) {
        return {Error::kTimedOut,
                disk_.path(StoreFile::kData) +
                    ": the checkpoint that is put in its places has not ended in " +
                    std::to_string(longest_ns / 1'000'000'000) +
                    " s: the daemon is gone or fenced; start it anew, or stop it and use --verify "
                    "without --online"};
    }
    options_.pause(kPauseNs);
    return {};
}

Status OnlineVerifier::step(const std::function<void()>& look) {
    for (;;) {
        if (clock_.monotonic_ns() > options_.deadline_ns) return superblocks_.past_deadline();
        const std::uint64_t before = superblock_.checkpoint_csn;
        if (Status there = superblocks_.newest(superblock_); !there) return there;
        report_.checkpoints += before != 0 && superblock_.checkpoint_csn != before;
        std::memcpy(&uuid_, superblock_.file_uuid, sizeof uuid_);
        if (superblock_.journal_pages != 0) {
            if (Status waited = await_places(); !waited) return waited;
            continue;
        }
        if (metadata_sequence_ != superblock_.sequence) forget_checkpoint();
        metadata_sequence_ = superblock_.sequence;
        found_.clear();
        chunks_found_.clear();
        pages_found_.clear();
        named_.clear();
        bytes_read_ = pages_ = rows_ = 0;
        unread_found_ = {};
        look();
        Superblock after{};
        if (Status there = superblocks_.newest(after); !there) return there;
        options_.pause(bytes_read_ * 1'000'000'000 / options_.bytes_per_second);
        if (after.sequence != superblock_.sequence) {
            ++report_.again;
            forget_checkpoint();
            leaves_most_ = std::max(leaves_most_ / 2, 1u);
            continue;
        }
        settle();
        return {};
    }
}

// What the step found counts.
void OnlineVerifier::settle() {
    report_.checkpoint_csn = superblock_.checkpoint_csn;
    report_.totals.rows += rows_;
    report_.totals.pages += pages_;
    leaves_most_ = std::min(2 * leaves_most_, kFanOutMax);
    for (const std::uint32_t page : named_) faults_.erase(page);
    faults_.merge(pages_found_);
    chunks_told_.merge(chunks_found_);
    unread_.add(unread_found_);
    for (const BrokenRule& rule : found_) tell(rule);
    if (progress_) progress_(report_.totals.pages);
}

void OnlineVerifier::tell(const BrokenRule& rule) {
    report_.totals.count(rule.damage);
    if (rule.unread()) unread_.said(rule.what);
    sink_(rule);
}

// From this page on.
bool OnlineVerifier::read(PageId page, std::byte* to, BrokenRule& fault, std::uint64_t bytes) {
    const Status there = io_.read(StoreFile::kData, page_offset_bytes(page), to, bytes);
    bytes_read_ += bytes;
    if (there) return true;
    fault = {Damage::kUnread, there.failure().what};
    unread_found_.add(fault.what);
    return false;
}

// Without words: it was read, and is a sound page of the checkpoint.
BrokenRule OnlineVerifier::fault_of(PageId page, std::byte* to) {
    BrokenRule fault;
    if (!read(page, to, fault)) return fault;
    const char* const wrong = page_fault(to, page, uuid_, Csn{superblock_.checkpoint_csn});
    if (wrong != nullptr) fault.what = wrong;
    return fault;
}

// What was found is told, also when it does not come to the end.
Result<OnlineReport> OnlineVerifier::run() {
    Status looked = look_at_all();
    for (const auto& [page, fault] : faults_) {
        tell({fault.rule.damage, text_of(PageId{page}, fault.owner) + ": " + fault.rule.what});
    }
    if (looked) {
        looked = superblocks_.check_copies([this](const BrokenRule& rule) { tell(rule); });
    }
    if (!looked) unread_.said(looked.failure().what);
    unread_.each_unsaid([this](const std::string& what) { tell({Damage::kUnread, what}); });
    if (!looked) return looked.failure();
    return report_;
}

Status OnlineVerifier::look_at_all() {
    if (Status done = step([this] { check_directory(); }); !done) return done;
    for (std::uint32_t chunk = 0; chunk < superblock_.chunk_count; ++chunk) {
        const auto look = [this, chunk] {
            if (chunk < superblock_.chunk_count) check_chunk(chunk);
        };
        if (Status done = step(look); !done) return done;
    }
    std::vector<Table> all;
    if (Status done = step([&] { all = tables(); }); !done) return done;
    for (const Table& table : all) names_[table.id.value] = table.schema.name();
    for (const Table& table : all) {
        for (Place place; !place.done;) {
            Place next;
            const auto look = [&] {
                next = place;
                walk(table, next);
            };
            if (Status done = step(look); !done) return done;
            place = next;
        }
        ++report_.totals.tables;
    }
    return {};
}

// ---- chunks ----

void OnlineVerifier::check_directory() {
    const std::uint32_t groups =
        (superblock_.chunk_count + kDirectoryChunks - 1) / kDirectoryChunks;
    std::uint32_t root = 0;
    bool whole = true;
    for (std::uint32_t group = 0; group < groups; ++group) {
        const PageId id = directory_page(group);
        const BrokenRule fault = fault_of(id, page_.data());
        if (!fault.what.empty()) {
            broken("chunk directory, page " + std::to_string(id.value) + ": " + fault.what,
                   fault.damage);
            whole = false;
        }
        const std::uint32_t crc = page_header(std::as_const(page_).data()).crc;
        root = crc32c(&crc, sizeof crc, root);
    }
    if (whole && root != superblock_.directory_crc) {
        broken("chunk directory: its pages are not those of the last checkpoint");
    }
}

// That they are damaged is told once.
bool OnlineVerifier::read_metadata(std::uint32_t chunk, ChunkMeta& meta) {
    DirectoryEntry entry{};
    std::byte* const bytes = meta_page_.data();
    const bool known = fault_of(directory_page(chunk / kDirectoryChunks), bytes).what.empty();
    std::memcpy(&entry, bytes + kPageHeaderBytes + sizeof entry * (chunk % kDirectoryChunks),
                sizeof entry);
    const PageId id = meta_page(chunk);
    BrokenRule fault = fault_of(id, bytes);
    const bool same = page_header(std::as_const(meta_page_).data()).crc == entry.meta_crc;
    if (fault.what.empty() && known && !same) {
        fault.what = "it is not the one of the last checkpoint";
    }
    std::memcpy(&meta, bytes + kPageHeaderBytes, sizeof meta);
    if (fault.what.empty()) return true;
    const std::pair told{chunk, fault.damage};
    if (chunks_told_.contains(told) || !chunks_found_.insert(told).second) return false;
    broken("metadata of chunk " + std::to_string(chunk) + ", page " + std::to_string(id.value) +
               ": " + fault.what,
           fault.damage);
    return false;
}

// Of the chunk of the page, which is one of the checkpoint's, until the next call; nullptr: they
// are damaged or unread.
const Metadata* OnlineVerifier::metadata_of(PageId page) {
    const std::uint32_t chunk = chunk_of(page);
    auto kept = metadata_.find(chunk);
    if (kept == metadata_.end()) {
        if (metadata_.size() >= kMetadataMost) metadata_.clear();
        kept = metadata_.try_emplace(chunk, Metadata{}).first;
        Metadata& found = *kept->second;
        if (read_metadata(chunk, found.chunk)) {
            Space::decode_newest(found.chunk, found.newest.data());
        } else {
            kept->second.reset();
        }
    }
    return kept->second ? &*kept->second : nullptr;
}

std::string OnlineVerifier::page_fault_of(PageId page, const ChunkMeta& meta,
                                          const std::byte* bytes) const {
    const std::uint32_t index = page.value % kChunkPages;
    constexpr const char* kOther = "its checksum is not the one its chunk remembers";
    if (ExtentMap(meta).in_extent(index)) {
        return crc32c(bytes, kPageBytes) == meta.page_crc[index] ? "" : kOther;
    }
    const char* const fault = page_fault(bytes, page, uuid_, Csn{superblock_.checkpoint_csn});
    if (fault != nullptr) return fault;
    return page_header(bytes).crc == meta.page_crc[index] ? "" : kOther;
}

void OnlineVerifier::check_chunk(std::uint32_t chunk) {
    ChunkMeta meta{};
    if (!read_metadata(chunk, meta)) return;
    const ExtentMap extents(meta);
    TableId extent;  // whose run of an extent the page belongs to; 0: to none
    const PageId first{chunk * kChunkPages};
    BrokenRule of_chunk;
    const bool all = read(first, chunk_.data(), of_chunk, kChunkBytes);
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{first.value + i};
        const bool used = is_used(meta, i);
        if (!extents.in_extent(i)) extent = {};
        if (extents.first_of_run(i)) extent = extents.owner(i);
        if (!used && extents.in_extent(i)) {
            broken(text_of(page, {extent, true}) + " of an extent is not allocated");
        }
        if (!used || Space::fixed(page)) continue;
        ++pages_;
        std::byte* const bytes = chunk_.data() + std::size_t{i} * kPageBytes;
        BrokenRule fault;
        if (all || read(page, bytes, fault)) fault.what = page_fault_of(page, meta, bytes);
        if (fault.what.empty()) continue;
        pages_found_[page.value] = {extent ? PageOwner{extent, true} : owner_of(page, bytes),
                                    fault};
    }
}

// Of a page that is not as it should be.
PageOwner OnlineVerifier::owner_of(PageId page, const std::byte* bytes) const {
    return {table_in_header(bytes, page, uuid_), page_crc(bytes) == page_header(bytes).crc};
}

std::string OnlineVerifier::text_of(PageId page, const PageOwner& owner) const {
    const auto name = names_.find(owner.table.value);
    return page_text(page, owner, name == names_.end() ? "" : name->second);
}

// ---- trees ----

void OnlineVerifier::broken(const Table& table, PageId page, const std::string& fault,
                            Damage damage) {
    const auto known = faults_.find(page.value);
    if (known != faults_.end()) named_.push_back(page.value);
    const bool before = known != faults_.end() && !known->second.rule.unread();
    broken(page_text(page, {table.id, true}, table.schema.name()) + ": " +
               (before ? known->second.rule.what : fault),
           before ? Damage::kData : damage);
}

// By the metadata of the same checkpoint: what these do not have in use is given out one day, and
// written over.
std::string OnlineVerifier::node_fault(const Table& table, PageId page, const std::byte* bytes,
                                       int level) {
    const std::uint32_t index = page.value % kChunkPages;
    std::string fault;
    const Metadata* const meta = metadata_of(page);
    if (meta == nullptr) {
        const char* const wrong = page_fault(bytes, page, uuid_, Csn{superblock_.checkpoint_csn});
        if (wrong != nullptr) fault = wrong;
    } else if (!is_used(meta->chunk, index)) {
        fault = "is part of a tree, but not allocated";
    } else if (ExtentMap(meta->chunk).in_extent(index)) {
        fault = "is part of a tree, and a large value's";
    } else {
        fault = page_fault_of(page, meta->chunk, bytes);
    }
    if (!fault.empty()) return fault;
    const int own = tree_level(bytes, table.shape.table);
    if (own >= 0 && (level < 0 || own == level)) return {};
    return "type, table or level is not what its parent says";
}

// A page of the tree of that level (-1: of any), until the next call; nullptr when it is broken.
const std::byte* OnlineVerifier::node(const Table& table, PageId page, int level) {
    BrokenRule fault;
    const bool there = page.value < superblock_.chunk_count * kChunkPages && !Space::fixed(page);
    if (!there) fault.what = "no page of a tree can be there";
    const std::byte* const bytes = page_.data();
    if (there && read(page, page_.data(), fault)) {
        fault.what = node_fault(table, page, bytes, level);
    }
    const auto known = faults_.find(page.value);
    const bool damaged = known != faults_.end() && !known->second.rule.unread();
    if (fault.what.empty() && !damaged) return bytes;
    broken(table, page, fault.what, fault.damage);
    return nullptr;
}

void OnlineVerifier::check_leaf(const Table& table, PageId page, const std::byte* bytes,
                                const KeyBytes& low, const KeyBytes& high, bool root) {
    const std::string fault = leaf_fault(
        table.schema, table.id, page, bytes, key_bound(low), key_bound(high), root,
        [&](const std::byte* key, const ValueReference& reference, std::uint32_t newest) {
            return value_fault(table, key, reference, newest);
        },
        floor_);
    if (!fault.empty()) return broken(table, page, fault);
    rows_ += LeafView(bytes, table.shape.leaf).count();
    const Metadata* const meta = metadata_of(page);
    if (meta == nullptr) return;
    if (meta->newest[page.value % kChunkPages] >= Space::newest_in(bytes)) return;
    broken(table, page, "its chunk says that its rows are older than they are");
}

// Whether metadata of the same checkpoint have the pages that the row refers to as those of a large
// value of its table, allocated, and no older than it is.
std::string OnlineVerifier::value_fault(const Table& table, const std::byte* key,
                                        const ValueReference& reference, std::uint32_t newest) {
    std::string fault;
    for (const ExtentRun& run : reference.all_runs()) {
        const PageId first{run.first};
        if (first.value >= superblock_.chunk_count * kChunkPages) {
            fault = "page " + std::to_string(first.value) + " is behind the end of the file";
            break;
        }
        const Metadata* const meta = metadata_of(first);
        if (meta == nullptr) continue;
        const std::uint32_t index = first.value % kChunkPages;
        fault = value_run_fault(meta->chunk, table.id, run, meta->newest[index], newest);
        for (std::uint32_t i = 0; i < run.pages && fault.empty(); ++i) {
            if (is_used(meta->chunk, index + i)) continue;
            fault = "page " + std::to_string(first.value + i) + " of it is not allocated";
        }
        if (fault.empty() && !claim(first)) {
            fault =
                "another one has its pages from page " + std::to_string(first.value) + " on, too";
        }
        if (!fault.empty()) break;
    }
    if (fault.empty()) return {};
    return "large value of key " + hex_of(key, table.schema.key_bytes()) + ": " + fault;
}

// False: another row had the run before, in the same checkpoint.
bool OnlineVerifier::claim(PageId first) {
    if (claimed_.empty()) claimed_.resize(std::size_t{superblock_.chunk_count} * kChunkPages);
    if (claimed_[first.value]) return false;
    claimed_[first.value] = true;
    return true;
}

// From `place` on; where it ends is the next place.
void OnlineVerifier::check_leaves(const Table& table, const std::byte* inner, KeyBytes low,
                                  const KeyBytes& high, Place& place) {
    const InnerView children(inner, table.shape.inner);
    const auto key = [&](std::uint32_t at) {
        KeyBytes bytes(table.shape.leaf.key_bytes);
        children.copy_key(at, bytes.data());
        return bytes;
    };
    std::uint32_t at = place.from.empty() ? 0 : children.index_for(place.from.data());
    if (at > 0) low = key(at);
    for (std::uint32_t looked = 0; at < children.count() && looked < leaves_most_; ++looked) {
        const KeyBytes to = at + 1 < children.count() ? key(at + 1) : high;
        const PageId leaf = children.child(at);
        const std::byte* const bytes = node(table, leaf, 0);
        if (bytes != nullptr) check_leaf(table, leaf, bytes, low, to, false);
        low = to;
        ++at;
    }
    place.from = low;
    place.done = low.empty();
}

// From the root down to the next inner node above leaves, and these leaves.
void OnlineVerifier::walk(const Table& table, Place& place) {
    PageId page = root_of(table);
    place.done = true;
    if (!page) return;  // dropped since
    KeyBytes low;
    KeyBytes high;
    for (int level = -1;;) {
        const std::byte* const bytes = node(table, page, level);
        if (bytes == nullptr) break;
        if (level < 0) floor_ = floor_of(bytes);
        level = tree_level(bytes, table.shape.table);
        if (level == 0) return check_leaf(table, page, bytes, low, high, true);
        const std::vector<std::byte> inner(bytes, bytes + kPageBytes);
        const char* const fault =
            inner_node_fault(inner.data(), table.shape.inner, key_bound(low), key_bound(high));
        if (fault != nullptr) {
            broken(table, page, fault);
            break;
        }
        if (level == 1) {
            return check_leaves(table, inner.data(), low, high, place);
        }
        const InnerView children(inner.data(), table.shape.inner);
        const std::uint32_t index = place.from.empty() ? 0 : children.index_for(place.from.data());
        const auto key = [&](std::uint32_t at) {
            KeyBytes bytes_of(table.shape.leaf.key_bytes);
            children.copy_key(at, bytes_of.data());
            return bytes_of;
        };
        if (index > 0) low = key(index);
        if (index + 1 < children.count()) high = key(index + 1);
        page = children.child(index);
        --level;
    }
    place.done = high.empty();
    place.from = high;
}

// As the same checkpoint's catalog has it; 0: it has no such table.
PageId OnlineVerifier::root_of(const Table& table) {
    if (table.id == kCatalogTable) return PageId{superblock_.catalog_root};
    const TreeShape shape(catalog_schema(), kCatalogTable);
    std::array<std::byte, kKeyBytesMax> key{};
    encode_key_integer(key.data(), table.id.value, 4, false);
    AlignedBuffer copy(kPageBytes);
    const Landing landing =
        descend(shape, PageId{superblock_.catalog_root}, key.data(), [&](PageId page) {
            const bool sound = page.value < superblock_.chunk_count * kChunkPages &&
                               fault_of(page, copy.data()).what.empty();
            return sound ? std::as_const(copy).data() : nullptr;
        });
    if (landing.state != Landed::kLeaf) return {};  // told with the catalog
    const LeafView rows(landing.bytes, shape.leaf);
    const int row = rows.find(key.data());
    if (row < 0) return {};
    const auto at = static_cast<std::uint32_t>(row);
    const CatalogRowView found(rows.key(at), rows.value(at));
    return found.dropped() ? PageId{} : found.root();
}

// The catalog's rows, without a word on what is broken in it: it is walked as the others are.
std::vector<Table> OnlineVerifier::tables() {
    std::vector<Table> found;
    found.emplace_back(kCatalogTable, catalog_schema());
    const TreeShape shape(catalog_schema(), kCatalogTable);
    std::vector<PageId> pages{PageId{superblock_.catalog_root}};
    AlignedBuffer copy(kPageBytes);
    for (std::size_t i = 0; i < pages.size() && i < superblock_.chunk_count * kChunkPages; ++i) {
        const std::byte* const bytes = copy.data();
        if (pages[i].value >= superblock_.chunk_count * kChunkPages) continue;
        if (!fault_of(pages[i], copy.data()).what.empty()) continue;
        const int level = tree_level(bytes, kCatalogTable);
        const InnerView children(bytes, shape.inner);
        for (std::uint32_t child = 0; level > 0 && child < children.count(); ++child) {
            pages.push_back(children.child(child));
        }
        const LeafView rows(bytes, shape.leaf);
        for (std::uint32_t row = 0; level == 0 && row < rows.count(); ++row) {
            const CatalogRowView of_table(rows.key(row), rows.value(row));
            if (!of_table.has_tree() || of_table.dropped()) continue;
            Result<Schema> schema = of_table.schema();
            if (!schema) {
                broken(schema.failure().what);
                continue;
            }
            found.emplace_back(of_table.id(), std::move(*schema));
        }
    }
    return found;
}

}  // namespace

Result<OnlineReport> verify_online(Disk& disk, Clock& clock, const OnlineOptions& options,
                                   const RuleSink& sink, const VerifyProgress& progress) {
    return OnlineVerifier(disk, clock, options, sink, progress).run();
}

}  // namespace bidstore
