#include "engine/recovery.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "engine/blocking_io.h"
#include "engine/large_rows.h"
#include "engine/log_reader.h"
#include "engine/page/catalog_schema.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kCsnGap = std::uint64_t{1} << 20;  // between lives of the log
constexpr std::uint64_t kFramesPerRecord = 12;
constexpr std::uint64_t kFramesPerBatch = 64;
constexpr std::uint32_t kPagesAtLeast = 24;  // less than the reserve that serving leaves

bool blank(const std::byte* bytes, std::size_t length_bytes) {
    return std::all_of(bytes, bytes + length_bytes, [](std::byte b) { return b == std::byte{0}; });
}

Status corrupt(std::string what) { return {Error::kCorruption, std::move(what)}; }

}  // namespace

Recovery::Recovery(Storage& storage, const EngineOptions& options)
    : storage_(storage), options_(options), io_(storage.disk, storage.clock) {}

void Recovery::say(int level, const std::string& line) const {
    if (options_.log) options_.log(level, line);
}

Result<Engine::Recovery> Recovery::run(WalStart& start) {
    Engine::Recovery found;
    const std::uint64_t began_ns = storage_.clock.monotonic_ns();
    Result<bool> fresh = is_new();
    if (!fresh) return fresh.failure();
    found.created = *fresh;
    if (*fresh) {
        if (Status formatted = format(); !formatted) return formatted.failure();
    } else {
        if (Status read = read_files(); !read) return read.failure();
    }
    if (Status loaded = load_system_tables(); !loaded) return loaded.failure();
    if (Status replayed = replay(found, start); !replayed) return replayed.failure();
    if (Status begun = begin_new_life(start); !begun) return begun.failure();
    found.elapsed_ns = storage_.clock.monotonic_ns() - began_ns;
    return found;
}

// Steps 1 to 4: up to the checkpoint's trees.
Status Recovery::read_files() {
    Superblock superblock{};
    ChunkDirectory directory;
    if (Status read = read_superblock(superblock); !read) return read;
    if (Status fit = check_sizes(superblock); !fit) return fit;
    if (Status mended = mend_copies(superblock); !mended) return mended;
    if (Status applied = apply_journal(superblock); !applied) return applied;
    return read_chunks(superblock, directory);
}

// ---- step 1: superblock ----

// New: the data file is empty, or its making was cut off (the superblocks are written last).
Result<bool> Recovery::is_new() {
    const auto size = storage_.disk.size_bytes(StoreFile::kData);
    if (!size) return size.failure();
    if (*size > 0 && *size < kBlockBytes) return false;  // somebody's: ours has whole blocks
    const std::uint64_t blocks = std::min<std::uint64_t>(*size / kBlockBytes, kSuperblockCopies);
    AlignedBuffer copies(kSuperblockCopies * kBlockBytes);
    if (Status read = io_.read(StoreFile::kData, 0, copies.data(), blocks * kBlockBytes); !read) {
        return read.failure();
    }
    if (!blank(copies.data(), copies.size_bytes())) return false;
    // A store that ever committed has a batch at the log's start: then these are lost superblocks,
    // not an unfinished making.
    const auto log_size = storage_.disk.size_bytes(StoreFile::kLog);
    if (!log_size) return log_size.failure();
    if (*log_size < kBlockBytes) return true;
    AlignedBuffer first(kBlockBytes);
    if (Status read = io_.read(StoreFile::kLog, 0, first.data(), kBlockBytes); !read) {
        return read.failure();
    }
    if (blank(first.data(), kBlockBytes)) return true;
    return {Error::kCorruption, storage_.disk.path(StoreFile::kData) +
                                    ": both superblock copies are blank, but the log holds "
                                    "batches; restore a backup"};
}

Status Recovery::read_superblock(Superblock& superblock) {
    for (const StoreFile file : {StoreFile::kData, StoreFile::kLog, StoreFile::kJournal}) {
        // A dead process may have left writes in caches: what is read from here on must stay.
        if (Status synced = io_.sync(file); !synced) return synced;
    }
    const std::string path = storage_.disk.path(StoreFile::kData);
    AlignedBuffer buffer(kBlockBytes);
    bool any = false;
    bool ours = false;
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        Superblock candidate{};
        if (!io_.read(StoreFile::kData, copy * std::uint64_t{kBlockBytes}, buffer.data(),
                      kBlockBytes)) {
            say(4, path + ": superblock copy " + std::to_string(copy) + " cannot be read");
            continue;
        }
        std::memcpy(&candidate, buffer.data(), sizeof candidate);
        ours = ours || candidate.magic == kSuperblockMagic;
        if (superblock_of_other_version(candidate)) {
            return {Error::kVersionMismatch,
                    path + " has format version " + std::to_string(candidate.format_version) +
                        ", this program knows " + std::to_string(kFormatVersion)};
        }
        if (!superblock_valid(candidate)) continue;
        if (!any || candidate.sequence > superblock.sequence) superblock = candidate;
        any = true;
    }
    if (any) return {};
    if (ours) return corrupt(path + ": both superblock copies are damaged; restore a backup");
    return {Error::kNotBidstore, path + " is not a bidstore data file; name another directory"};
}

// A next write of one copy could tear; the other must then be this one, not an older one.
Status Recovery::mend_copies(const Superblock& chosen) {
    AlignedBuffer buffer(kBlockBytes);
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        const std::uint64_t offset = copy * std::uint64_t{kBlockBytes};
        const Status read = io_.read(StoreFile::kData, offset, buffer.data(), kBlockBytes);
        if (read && std::memcmp(buffer.data(), &chosen, sizeof chosen) == 0) continue;
        std::memcpy(buffer.data(), &chosen, sizeof chosen);
        if (Status written = io_.write(StoreFile::kData, offset, buffer.data(), kBlockBytes, true);
            !written) {
            return written;
        }
    }
    return {};
}

// ---- step 2: sizes ----

Status Recovery::check_sizes(const Superblock& superblock) {
    const std::uint64_t log_bytes = superblock.log_segment_bytes * superblock.log_segment_count;
    const std::pair<StoreFile, std::uint64_t> expected[] = {
        {StoreFile::kData, superblock.chunk_count * kChunkBytes},
        {StoreFile::kLog, log_bytes},
        {StoreFile::kJournal, superblock.journal_bytes}};
    for (const auto& [file, bytes] : expected) {
        const auto size = storage_.disk.size_bytes(file);
        if (!size) return size.failure();
        if (*size >= bytes) continue;  // longer: growth that was cut off, free
        return corrupt(storage_.disk.path(file) + " has " + std::to_string(*size) +
                       " bytes, its superblock needs " + std::to_string(bytes));
    }
    if (std::uint64_t{superblock.chunk_count} * kChunkPages > storage_.pool.page_count()) {
        return {Error::kInvalid, storage_.disk.path(StoreFile::kData) + " has " +
                                     std::to_string(superblock.chunk_count * 2) +
                                     " MiB of chunks: max_data_bytes is set lower than that"};
    }
    return {};
}

// ---- step 3: journal ----

Status Recovery::apply_journal(const Superblock& superblock) {
    if (superblock.journal_pages == 0) return {};
    const std::string path = storage_.disk.path(StoreFile::kJournal);
    const std::uint64_t list_bytes =
        sizeof(JournalHeader) + std::uint64_t{superblock.journal_pages} * sizeof(JournalEntry);
    AlignedBuffer list(list_bytes);
    if (list.size_bytes() > superblock.journal_bytes) return corrupt(path + ": impossible length");
    if (Status read = io_.read(StoreFile::kJournal, 0, list.data(), list.size_bytes()); !read) {
        return read;
    }
    JournalHeader header{};
    std::memcpy(&header, list.data(), sizeof header);
    JournalHeader unsealed = header;
    unsealed.list_crc = 0;
    std::memcpy(list.data(), &unsealed, sizeof unsealed);
    if (header.magic != kJournalMagic || header.number != superblock.journal_number ||
        header.page_count != superblock.journal_pages ||
        header.list_crc != superblock.journal_list_crc ||
        crc32c(list.data(), list_bytes) != header.list_crc) {
        return corrupt(path + ": its header is not the one that the superblock names");
    }
    AlignedBuffer page(kPageBytes);
    for (std::uint32_t i = 0; i < header.page_count; ++i) {
        JournalEntry entry{};
        std::memcpy(&entry, list.data() + sizeof header + i * sizeof entry, sizeof entry);
        const std::uint64_t place = std::uint64_t{entry.page_id} * kPageBytes;
        const std::uint64_t from = list.size_bytes() + std::uint64_t{i} * kPageBytes;
        const auto holds = [&](StoreFile file, std::uint64_t offset) {
            return io_.read(file, offset, page.data(), kPageBytes).ok() &&
                   page_header(page.data()).page_id == entry.page_id &&
                   page_header(page.data()).crc == entry.page_crc &&
                   page_crc(page.data()) == entry.page_crc;
        };
        if (holds(StoreFile::kJournal, from)) {
            if (Status written = io_.write(StoreFile::kData, place, page.data(), kPageBytes, false);
                !written) {
                return written;
            }
        } else if (!holds(StoreFile::kData, place)) {
            return corrupt(path + ": image of page " + std::to_string(entry.page_id) +
                           " is damaged, and the page in its place is another one");
        }
    }
    return io_.sync(StoreFile::kData);
}

// ---- step 4: directory, metadata, system tables ----

Status Recovery::read_directory(const Superblock& superblock, ChunkDirectory& directory) {
    const std::uint32_t groups = (superblock.chunk_count + kDirectoryChunks - 1) / kDirectoryChunks;
    AlignedBuffer page(kPageBytes);
    std::uint32_t root = 0;
    for (std::uint32_t group = 0; group < groups; ++group) {
        const PageId id = directory_page(group);
        if (Status read = io_.read(StoreFile::kData, std::uint64_t{id.value} * kPageBytes,
                                   page.data(), kPageBytes);
            !read) {
            return read;
        }
        const char* fault =
            page_fault(page.data(), id, storage_.pool.file_uuid(), Csn{superblock.checkpoint_csn});
        if (fault != nullptr) {
            return corrupt("chunk directory, page " + std::to_string(id.value) + ": " + fault);
        }
        const std::uint32_t crc = page_header(page.data()).crc;
        root = crc32c(&crc, sizeof crc, root);
        directory.page_crcs.push_back(crc);
        DirectoryPage content{};
        std::memcpy(&content, page.data() + kPageHeaderBytes, sizeof content);
        directory.entries.insert(directory.entries.end(), std::begin(content.entry),
                                 std::end(content.entry));
    }
    if (root != superblock.directory_crc) {
        return corrupt("chunk directory: its pages are not those of the last checkpoint");
    }
    directory.entries.resize(superblock.chunk_count);
    return {};
}

Status Recovery::read_chunks(const Superblock& superblock, ChunkDirectory& directory) {
    PoolHeader& header = storage_.segment.header();
    std::memcpy(header.file_uuid, superblock.file_uuid, sizeof header.file_uuid);
    header.catalog_root = superblock.catalog_root;
    if (Status read = read_directory(superblock, directory); !read) return read;
    for (std::uint32_t chunk = 0; chunk < superblock.chunk_count; ++chunk) {
        const PageId id = meta_page(chunk);
        const FrameId frame = storage_.pool.begin_load(id);
        std::byte* bytes = storage_.pool.frame_bytes(frame);
        if (Status read =
                io_.read(StoreFile::kData, std::uint64_t{id.value} * kPageBytes, bytes, kPageBytes);
            !read) {
            return read;
        }
        const char* fault =
            page_fault(bytes, id, storage_.pool.file_uuid(), Csn{superblock.checkpoint_csn});
        if (fault == nullptr && page_header(bytes).crc != directory.entries[chunk].meta_crc) {
            fault = "it is not the one of the last checkpoint";
        }
        if (fault != nullptr) {
            return corrupt("metadata of chunk " + std::to_string(chunk) + ", page " +
                           std::to_string(id.value) + ": " + fault);
        }
        storage_.pool.loaded(frame);
        ChunkMeta meta{};
        std::memcpy(&meta, bytes + kPageHeaderBytes, sizeof meta);
        storage_.space.adopt_chunk(chunk, meta);
    }
    storage_.pool.advance_visible(Csn{superblock.checkpoint_csn});
    storage_.adopt(superblock, std::move(directory));
    return {};
}

Status Recovery::load_system_tables() {
    Catalog& catalog = *storage_.catalog;
    Status failed;
    const Status complete = storage_.complete([&] {
        Result<TreeAccess> access = catalog.load();
        if (access) return *access;
        failed = access.failure();
        return TreeAccess{};
    });
    if (!complete) return {complete.error(), "catalog: " + complete.failure().what};
    return failed;
}

// ---- making new files ----

Status Recovery::format() {
    Disk& disk = storage_.disk;
    Superblock superblock{};
    for (std::uint8_t& byte : superblock.file_uuid) byte = static_cast<std::uint8_t>(random());
    superblock.epoch = 1;
    superblock.salt = random();
    superblock.catalog_root = kCatalogRootPage.value;
    superblock.log_segment_bytes = options_.log_segment_bytes;
    superblock.log_segment_count = options_.log_segment_count;
    superblock.journal_bytes = align_up(options_.journal_bytes, kPageBytes);
    const std::pair<StoreFile, std::uint64_t> sizes[] = {
        {StoreFile::kLog, options_.log_segment_bytes * options_.log_segment_count},
        {StoreFile::kJournal, superblock.journal_bytes},
        {StoreFile::kData, kChunkBytes}};
    say(6, "making a new store: " + disk.path(StoreFile::kData));
    for (const auto& [file, bytes] : sizes) {
        // From nothing, so that an earlier attempt leaves nothing behind.
        if (Status cut = disk.resize(file, 0); !cut) return cut;
        if (Status made = disk.resize(file, bytes); !made) return made;
    }
    PoolHeader& header = storage_.segment.header();
    std::memcpy(header.file_uuid, superblock.file_uuid, sizeof header.file_uuid);
    header.catalog_root = superblock.catalog_root;
    storage_.adopt(superblock, {});

    Pool& pool = storage_.pool;
    Space& space = storage_.space;
    pool.begin_batch(Csn{1});
    space.format_first_chunk();
    const PageId catalog = space.allocate(PageType::kLeaf, kCatalogTable, PageId{0});
    CHECK(catalog == kCatalogRootPage);
    Tree::init_root(space.writable(catalog), catalog_schema());
    storage_.catalog->create(kSessionsTable, sessions_schema(), kSystemTableFlag);
    CHECK(storage_.catalog->sessions().tree.root() == kSessionsRootPage);
    pool.end_batch();
    pool.publish();
    // Its superblocks are the last thing to become durable, so a crash before finds a blank file.
    return storage_.checkpoint({Csn{1}, 0, 0, 0, Csn{1}});
}

// ---- steps 5 and 6: log and replay ----

Status Recovery::replay(Engine::Recovery& found, WalStart& start) {
    const Superblock& superblock = storage_.superblock;
    found.checkpoint_csn = superblock.checkpoint_csn;
    replayed_ = {superblock.log_position, superblock.log_crc};
    replayed_csn_ = Csn{superblock.checkpoint_csn};
    std::uint64_t told_ns = storage_.clock.monotonic_ns();
    LogReader reader(storage_.disk, storage_.clock, log_read_start(superblock));
    for (;;) {
        LogBatch batch;
        const Result<bool> more = reader.next(batch);
        if (!more) return more.failure();
        if (!*more) break;
        if (Status applied = replay_batch(batch); !applied) return applied;
        ++found.batches;
        found.log_bytes += batch.end.position - batch.position;
        if (storage_.clock.monotonic_ns() - told_ns > 1'000'000'000) {
            told_ns = storage_.clock.monotonic_ns();
            say(6, "recovery: " + std::to_string(found.log_bytes >> 20) + " MiB of log replayed");
        }
    }
    found.recovered_csn = replayed_csn_.value;
    found.clean = found.batches == 0;
    start.end = reader.end();
    start.newest_csn = Csn{reader.newest_csn().value + kCsnGap};
    start.newest_time_us = std::max(reader.newest_time_us(), superblock.newest_time_us);
    return {};
}

// Frames and journal for what the batch may touch: eviction first, else a checkpoint in between.
Status Recovery::make_room(std::uint64_t frames, std::uint64_t extent_pages) {
    Pool& pool = storage_.pool;
    // A batch never needs more than half of the journal (Engine::Core::secure).
    const Checkpointer& checkpointer = *storage_.checkpointer;
    const auto journal_half_free = [&] {
        return checkpointer.journal_use(0, 0) <= checkpointer.journal_capacity() / 2;
    };
    frames += extent_pages;
    const auto short_of = [&] {
        return pool.free_frames() < frames || !journal_half_free() ||
               storage_.space.available() < kPagesAtLeast + extent_pages;
    };
    storage_.reclaim({}, Storage::kAll);
    if (!short_of()) return {};
    storage_.make_frames(frames);
    if (!short_of()) return {};
    if (replayed_csn_ > storage_.checkpointer->covered()) {
        const CheckpointTarget target{replayed_csn_, replayed_.position, 0, replayed_.previous_crc,
                                      replayed_csn_};
        if (Status done = storage_.checkpoint(target); !done) return done;
        storage_.end_quarantine({}, Storage::kAll, [&] { return Csn{pool.visible()}; });
        storage_.make_frames(frames);
    }
    // Without pages to spare the file may grow, or be full: the records say which.
    if (pool.free_frames() >= frames && journal_half_free()) return {};
    return {Error::kTooLarge,
            "recovery: the pool or the journal is too small for the log: raise "
            "pool_bytes or journal_bytes"};
}

std::uint64_t Recovery::extent_pages_of(const LogRecordView& record) const {
    const TableEntry* table = storage_.catalog->find(record.table);
    return table == nullptr ? 0 : extent_pages_at_most(table->schema, record.type, record.body);
}

std::uint64_t Recovery::extent_pages_of(const LogBatch& batch) const {
    const auto tables = storage_.catalog->all();
    const bool any = std::any_of(tables.begin(), tables.end(), [](const TableEntry* table) {
        return !table->system() && table->schema.has_variable();
    });
    if (!any) return 0;
    std::uint64_t pages = 0;
    RecordReader records(batch);
    LogRecordView record;
    for (;;) {
        const Result<bool> more = records.next(record);
        if (!more || !*more) return pages;  // what is wrong with it, replay says
        pages += extent_pages_of(record);
    }
}

Status Recovery::replay_batch(const LogBatch& batch) {
    // The batch had room when it was made, so half of everything is enough for it.
    const std::uint64_t frames = std::min({kFramesPerBatch + kFramesPerRecord * batch.record_count,
                                           std::uint64_t{storage_.pool.frame_count()} / 2});
    const std::uint64_t extent_pages =
        std::min<std::uint64_t>(extent_pages_of(batch), storage_.pool.frame_count() / 4);
    if (Status room = make_room(frames, extent_pages); !room) return room;
    batch_csn_ = batch.csn;
    storage_.pool.begin_batch(batch.csn);
    RecordReader records(batch);
    for (;;) {
        LogRecordView record;
        const Result<bool> more = records.next(record);
        if (!more) return more.failure();
        if (!*more) break;
        if (Status applied = replay_record(record); !applied) {
            return {applied.error(), "replay of the batch with csn " +
                                         std::to_string(batch.csn.value) + " at log position " +
                                         std::to_string(batch.position) + ": " +
                                         applied.failure().what};
        }
    }
    storage_.pool.end_batch();
    storage_.pool.publish();
    replayed_ = batch.end;
    replayed_csn_ = batch.csn;
    return {};
}

Status Recovery::replay_record(const LogRecordView& record) {
    arena_.reset();
    storage_.make_frames(kFramesPerBatch + extent_pages_of(record));
    const bool takes_pages = record.type != RecordType::kDeleteRow &&
                             record.type != RecordType::kDeleteRange &&
                             record.type != RecordType::kExpireSession &&
                             record.type != RecordType::kMoveFloor;
    if (takes_pages) {
        if (Status secured = storage_.secure_space(kPagesAtLeast); !secured) return secured;
    }
    Effect effect;
    effect.type = record.type;
    effect.table_id = record.table;
    effect.key = record.key;
    effect.body = record.body;
    if (Status made = effect_of(record, effect); !made) return made;
    std::vector<ExtentNeed> extents;
    if (effect.table != nullptr && !effect.value.empty()) {
        append_extents(effect.table->schema, effect.table->id, effect.value, extents);
    }
    if (!extents.empty()) {
        if (Status secured = storage_.secure_space(kPagesAtLeast, extents); !secured)
            return secured;
    }
    apply_effect(effect, *storage_.catalog);
    return {};
}

Status Recovery::effect_of(const LogRecordView& record, Effect& effect) {
    Catalog& catalog = *storage_.catalog;
    const bool makes =
        record.type == RecordType::kCreateTable || record.type == RecordType::kBeginLoad;
    if (record.type == RecordType::kFinishLoad) return loaded_table(record);
    if (makes || record.type == RecordType::kDropTable) {
        const bool exists = catalog.find(record.table) != nullptr;
        if (exists == makes) {
            return corrupt("table " + std::to_string(record.table.value) +
                           (exists ? " is made twice" : " is dropped, but not there"));
        }
        const Result<Schema> schema = Schema::decode(record.body);
        if (!exists && !schema) return corrupt("a table without a schema");
        TableAttributes attributes{};
        if (!exists && !attributes_of(record.key, *schema, attributes)) {
            return corrupt("a table with impossible attributes");
        }
        return catalog_place(record.table);
    }
    effect.table = catalog.find(record.table);
    if (effect.table == nullptr) {
        return corrupt("a record of table " + std::to_string(record.table.value) +
                       ", which is not there");
    }
    if (record.type == RecordType::kSetTable || record.type == RecordType::kMoveFloor) {
        return table_effect(record, *effect.table);
    }
    if (record.key.size() != effect.table->schema.key_bytes())
        return corrupt("a key of wrong size");
    if (record.type == RecordType::kDeleteRange) {
        const std::byte* high = record.body.empty() ? nullptr : record.body.data();
        RangeCost cost;
        const Status counted = storage_.complete([&] {
            cost = effect.table->tree.range_cost(record.key.data(), high, ~0ull >> 1);
            return cost;
        });
        storage_.make_frames(2 * cost.pages + kFramesPerBatch);
        // Making room may have cost a page of the range.
        return !counted ? counted : storage_.complete([&] {
            return effect.table->tree.range_cost(record.key.data(), high, ~0ull >> 1);
        });
    }
    return row_effect(record, effect);
}

// The checkpoint that this replay began with, or a later one, has to hold the loaded rows.
Status Recovery::loaded_table(const LogRecordView& record) {
    Catalog& catalog = *storage_.catalog;
    const std::string who = "table " + std::to_string(record.table.value);
    TableEntry* table = catalog.find(record.table);
    LoggedLoad load{};
    if (table == nullptr || !table->hidden() || record.body.size() != sizeof load) {
        return corrupt(who + " was not being loaded, but its load ends");
    }
    std::memcpy(&load, record.body.data(), sizeof load);
    bool empty = true;
    const Status looked = storage_.complete([&] {
        return table->tree.visit_range(nullptr, nullptr,
                                       [&](const std::byte*, std::span<const std::byte>) {
                                           empty = false;
                                           return false;
                                       });
    });
    if (!looked) return looked;
    if (empty != (load.rows == 0)) return corrupt(who + " was loaded, but has no rows");
    std::byte key[4];
    encode_key_integer(key, record.table.value, 4, false);
    return storage_.complete([&] { return catalog.catalog().tree.get(key); });
}

// Where the table's row of the catalog is comes into the pool.
Status Recovery::catalog_place(TableId table) {
    std::byte key[4];
    encode_key_integer(key, table.value, 4, false);
    return storage_.complete([&] { return storage_.catalog->catalog().tree.get(key); });
}

Status Recovery::table_effect(const LogRecordView& record, const TableEntry& table) {
    if (record.type == RecordType::kSetTable) {
        TableAttributes attributes{};
        if (record.body.empty() || !attributes_of(record.body, table.schema, attributes)) {
            return corrupt("impossible attributes of table " + table.schema.name());
        }
        return catalog_place(record.table);
    }
    std::uint64_t floor = 0;
    if (record.body.size() != sizeof floor) return corrupt("a floor of wrong size");
    std::memcpy(&floor, record.body.data(), sizeof floor);
    if (storage_.pool.newest(table.tree.root()) == nullptr) {
        if (Status come = storage_.bring_in(table.tree.root()); !come) return come;
    }
    if (floor < table.tree.floor()) return corrupt("a floor that falls");
    return {};
}

Status Recovery::row_effect(const LogRecordView& record, Effect& effect) {
    const Schema& schema = effect.table->schema;
    Lookup old;
    const Status found = storage_.complete([&] {
        old = effect.table->tree.get(record.key.data());
        return old;
    });
    if (!found) return found;
    const bool whole = record.type == RecordType::kPutRow || record.type == RecordType::kSession;
    if (!whole && !old.found) return corrupt("a change of a row that is not there");
    if (whole) {
        effect.value = record.body;
    } else if (record.type == RecordType::kUpdateColumns) {
        effect.value = patched_row(schema, old.value, record.body, arena_);
    } else if (record.type == RecordType::kAddColumn) {
        LoggedAdd logged{};
        if (record.body.size() != sizeof logged) return corrupt("an add of wrong size");
        std::memcpy(&logged, record.body.data(), sizeof logged);
        if (logged.column < schema.key_columns() || logged.column >= schema.columns().size() ||
            !is_integer(schema.columns()[logged.column].type)) {
            return corrupt("an add to a column that is no number");
        }
        const ColumnType type = schema.columns()[logged.column].type;
        const std::uint64_t before =
            column_integer(schema, logged.column, record.key.data(), old.value);
        const Result<std::uint64_t> sum = added(type, before, logged.delta);
        if (!sum || *sum != static_cast<std::uint64_t>(logged.result)) {
            return corrupt("an add whose old value and delta do not give its result");
        }
        effect.value = with_integer(schema, logged.column, old.value, *sum, arena_);
    } else {
        return {};  // a deletion
    }
    if (row_value_fault(schema, effect.value) != nullptr) {
        return corrupt("a row that its schema does not allow");
    }
    return {};
}

// ---- step 7 ----

Status Recovery::begin_new_life(WalStart& start) {
    Superblock& superblock = storage_.superblock;
    superblock.journal_pages = 0;
    superblock.journal_list_crc = 0;
    superblock.epoch += 1;
    superblock.salt = random();
    superblock.durable_csn = std::max(superblock.durable_csn, replayed_csn_.value);
    bool written = false;
    std::int64_t failed = 0;
    storage_.checkpointer->superblock_writer().write(superblock, [&](std::int64_t error) {
        written = true;
        failed = error;
    });
    const std::uint64_t deadline = storage_.clock.monotonic_ns() + BlockingIo::kDeadlineNs;
    while (!written && storage_.clock.monotonic_ns() < deadline) storage_.disk.poll(1'000'000);
    if (!written || failed != 0) {
        return {Error::kIoError,
                "superblock of " + storage_.disk.path(StoreFile::kData) + ": " +
                    std::strerror(written ? static_cast<int>(-failed) : ETIMEDOUT)};
    }
    start.shape = {superblock.log_segment_bytes, superblock.log_segment_count};
    std::memcpy(start.file_uuid, superblock.file_uuid, sizeof start.file_uuid);
    start.epoch = superblock.epoch;
    start.salt = superblock.salt;
    start.batch_bytes_max = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(kBatchBytesMax, superblock.log_segment_bytes));
    return {};
}

}  // namespace bidstore
