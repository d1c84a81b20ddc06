#include "engine/recovery.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/blocking_io.h"
#include "engine/page/catalog_schema.h"
#include "engine/recovery_io.h"
#include "engine/replay.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kTellNs = 1'000'000'000;
constexpr std::uint64_t kLengthenBytes = std::uint64_t{1} << 30;  // of the journal, at once
constexpr std::uint32_t kJournalPiecePages = 256;
constexpr std::uint32_t kJournalPieces = 8;  // under way at a time
constexpr std::uint32_t kMetadataPages = 64;

bool blank(const std::byte* bytes, std::size_t length_bytes) {
    return std::all_of(bytes, bytes + length_bytes, [](std::byte b) { return b == std::byte{0}; });
}

std::string of(std::uint64_t some, std::uint64_t all) {
    return std::to_string(some) + " of " + std::to_string(all);
}

bool is_image(const std::byte* bytes, const JournalEntry& entry) {
    return page_header(bytes).page_id == entry.page_id &&
           page_header(bytes).crc == entry.page_crc && page_crc(bytes) == entry.page_crc;
}

// The images come to their places in any order, so none may come to that of another; and only to
// places that a checkpoint of so many chunks has.
const char* list_fault(const std::vector<JournalEntry>& entries, std::uint32_t chunk_count) {
    std::vector<bool> named(std::size_t{chunk_count} * kChunkPages);
    for (const JournalEntry& entry : entries) {
        if (entry.page_id < kSuperblockCopies || entry.page_id >= named.size()) {
            return ": its list names a page that the file does not have";
        }
        if (named[entry.page_id]) return ": its list names a page twice";
        named[entry.page_id] = true;
    }
    return nullptr;
}

// Of the data file: one for each chunk, or each group of chunks.
PieceReader::Pieces pages_of(std::uint32_t count, PageId (*page)(std::uint32_t)) {
    return {.file = StoreFile::kData,
            .count = count,
            .at_once = kMetadataPages,
            .bytes_max = kPageBytes,
            .at = [page](std::uint64_t index) {
                const PageId id = page(static_cast<std::uint32_t>(index));
                return PieceReader::Piece{page_offset_bytes(id), kPageBytes};
            }};
}

// Of what a rebuild makes anew.
constexpr const char* kRebuild = "; run bidstored --verify, then --verify --rebuild";

}  // namespace

Recovery::Recovery(Storage& storage, const EngineOptions& options)
    : storage_(storage), options_(options), io_(storage.disk, storage.clock) {}

void Recovery::say(int level, const std::string& line) const {
    if (options_.log) options_.log(level, line);
}

// What is being done, at most once a second.
void Recovery::tell(const std::function<std::string()>& state) {
    const std::uint64_t now_ns = storage_.clock.monotonic_ns();
    if (now_ns - told_ns_ < kTellNs) return;
    told_ns_ = now_ns;
    const std::string line = "recovery: " + state();
    say(6, line);
    if (options_.progress) options_.progress(line);
}

// The time since it was asked last.
std::uint64_t Recovery::lap() {
    const std::uint64_t now_ns = storage_.clock.monotonic_ns();
    return now_ns - std::exchange(lap_ns_, now_ns);
}

Result<Engine::Recovery> Recovery::run(WalStart& start) {
    Engine::Recovery found;
    const std::uint64_t began_ns = storage_.clock.monotonic_ns();
    told_ns_ = lap_ns_ = began_ns;
    Result<bool> fresh = is_new();
    if (!fresh) return fresh.failure();
    found.created = *fresh;
    if (*fresh) {
        if (Status formatted = format(); !formatted) return formatted.failure();
    } else {
        if (Status read = read_files(found); !read) return read.failure();
    }
    storage_.pool.change_in_place(true);
    if (Status loaded = load_system_tables(); !loaded) return loaded.failure();
    found.times.metadata_ns += lap();
    Replay replay(
        storage_, [this](const auto& state) { tell(state); }, left_out_);
    if (Status replayed = replay.run(found, start); !replayed) return replayed.failure();
    lap();
    if (Status begun = begin_new_life(start, replay.newest_csn()); !begun) return begun.failure();
    storage_.pool.change_in_place(false);
    found.times.end_ns = lap();
    found.elapsed_ns = storage_.clock.monotonic_ns() - began_ns;
    return found;
}

// Steps 1 to 4: up to the checkpoint's trees.
Status Recovery::read_files(Engine::Recovery& found) {
    RecoveryTimes& times = found.times;
    Superblock superblock{};
    ChunkDirectory directory;
    if (Status read = read_superblock(superblock); !read) return read;
    if (Status fit = check_sizes(superblock); !fit) return fit;
    if (Status written = write_copies(superblock); !written) return written;
    times.files_ns = lap();
    found.journal_pages = superblock.journal_pages;
    if (Status applied = apply_journal(superblock); !applied) return applied;
    if (Status closed = close_journal(superblock); !closed) return closed;
    if (Status longer = lengthen_journal(superblock); !longer) return longer;
    times.journal_ns = lap();
    const Status read = read_chunks(superblock, directory);
    times.metadata_ns = lap();
    return read;
}

// ---- step 1: superblock ----

// New: the data file is empty, or its making was cut off (the superblocks are written last).
Result<bool> Recovery::is_new() {
    const auto size = storage_.disk.size_bytes(StoreFile::kData);
    if (!size) return size.failure();
    if (*size > 0 && *size < kBlockBytes) return false;  // somebody's: ours has whole blocks
    const std::uint64_t blocks = std::min<std::uint64_t>(*size / kBlockBytes, kSuperblockCopies);
    AlignedBuffer copy(kBlockBytes);
    Status unread;
    for (std::uint64_t i = 0; i < blocks; ++i) {
        Status read = io_.read(StoreFile::kData, i * kBlockBytes, copy.data(), kBlockBytes);
        if (read && !blank(copy.data(), kBlockBytes)) return false;
        if (read) continue;
        say(4, "superblock copy " + std::to_string(i) + ": " + read.failure().what);
        unread = std::move(read);
    }
    if (!unread) return unread.failure();  // it may be a superblock
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
    bool read_one = false;
    Status unread;
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        Superblock candidate{};
        if (Status read = io_.read(StoreFile::kData, copy * std::uint64_t{kBlockBytes},
                                   buffer.data(), kBlockBytes);
            !read) {
            say(4, "superblock copy " + std::to_string(copy) + ": " + read.failure().what);
            unread = std::move(read);
            continue;
        }
        read_one = true;
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
    // What cannot be read is neither damaged nor somebody else's, but a short file of another kind
    // has one copy to be judged by.
    if (!unread && (ours || !read_one)) return unread;
    if (ours) return corrupt(path + ": both superblock copies are damaged; restore a backup");
    return {Error::kNotBidstore, path + " is not a bidstore data file; name another directory"};
}

// Copies that are not this one, one after the other. A next write of one copy could tear; the other
// must then be this one, not an older one.
Status Recovery::write_copies(const Superblock& chosen) {
    AlignedBuffer buffer(kBlockBytes);
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        const std::uint64_t offset = copy * std::uint64_t{kBlockBytes};
        const Status read = io_.read(StoreFile::kData, offset, buffer.data(), kBlockBytes);
        if (read && std::memcmp(buffer.data(), &chosen, sizeof chosen) == 0) continue;
        if (!read) say(4, "superblock, written anew: " + read.failure().what);
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
    if (Status fit = check_superblock(superblock); !fit) return fit;
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
    return {};
}

// Whether it can be right, and the pool has room for a file of that size.
Status Recovery::check_superblock(const Superblock& superblock) {
    if (const char* fault = superblock_fault(superblock)) {
        return corrupt(storage_.disk.path(StoreFile::kData) + ": superblock with " +
                       std::string(fault) + "; restore a backup");
    }
    if (std::uint64_t{superblock.chunk_count} * kChunkPages > storage_.pool.page_count()) {
        return {Error::kInvalid, storage_.disk.path(StoreFile::kData) + " has " +
                                     std::to_string(superblock.chunk_count * 2) +
                                     " MiB of chunks: max_data_bytes is set lower than that"};
    }
    // The metadata of all chunks stay in the pool, and half of it is for what they are about.
    const std::uint64_t frames = 2 * std::uint64_t{superblock.chunk_count};
    if (frames > storage_.pool.frame_count()) {
        return {Error::kInvalid,
                storage_.disk.path(StoreFile::kData) + " has " +
                    std::to_string(superblock.chunk_count) +
                    " chunks (2 MiB each), whose metadata take half of a pool of " +
                    std::to_string(frames) + " frames: set pool_bytes to " +
                    std::to_string(frames * kPageBytes) + " at least, it has " +
                    std::to_string(storage_.pool.frame_count() * std::uint64_t{kPageBytes})};
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
    std::vector<JournalEntry> entries(header.page_count);
    std::memcpy(entries.data(), list.data() + sizeof header, entries.size() * sizeof entries[0]);
    if (const char* fault = list_fault(entries, superblock.chunk_count)) {
        return corrupt(path + fault);
    }
    return put_images_in_place(entries, list.size_bytes());
}

Status Recovery::put_images_in_place(const std::vector<JournalEntry>& entries,
                                     std::uint64_t images_at) {
    PlaceWriter places(storage_.disk, storage_.clock);
    const Status put = put_images(entries, images_at, places);
    const Status finished = places.finish();
    stuck_ = places.stuck();
    if (!put) return put;
    if (!finished) return finished;
    return io_.sync(StoreFile::kData);
}

// Large pieces of the journal are read ahead, and what was in them is written, while images are
// looked at.
Status Recovery::put_images(const std::vector<JournalEntry>& entries, std::uint64_t images_at,
                            PlaceWriter& places) {
    const auto count = static_cast<std::uint32_t>(entries.size());
    const auto image_at = [&](std::uint64_t i) { return images_at + i * kPageBytes; };
    PieceReader pieces(storage_.disk, storage_.clock,
                       {.file = StoreFile::kJournal,
                        .count = (count + kJournalPiecePages - 1) / kJournalPiecePages,
                        .at_once = kJournalPieces,
                        .bytes_max = kJournalPiecePages * kPageBytes,
                        .at = [&](std::uint64_t piece) {
                            const std::uint64_t first = piece * kJournalPiecePages;
                            const auto pages =
                                std::min<std::uint64_t>(kJournalPiecePages, count - first);
                            return PieceReader::Piece{
                                image_at(first), static_cast<std::uint32_t>(pages * kPageBytes)};
                        }});
    AlignedBuffer page(kPageBytes);
    const std::byte* piece = nullptr;  // none: it cannot be read in one
    for (std::uint32_t i = 0; i < count; ++i) {
        tell([&] { return "page " + of(i, count) + " of the journal put in place"; });
        const std::uint32_t at = i % kJournalPiecePages;
        if (at == 0) {
            const Result<const std::byte*> read = pieces.next();
            if (pieces.stuck()) return read.failure();
            if (!read) say(4, "journal, now page by page: " + read.failure().what);
            piece = read ? *read : nullptr;
        }
        const JournalEntry& entry = entries[i];
        Status unread;
        const auto holds = [&](StoreFile file, std::uint64_t offset) {
            const Status read = io_.read(file, offset, page.data(), kPageBytes);
            if (!read) say(4, "a page of the journal: " + read.failure().what);
            if (!read) unread = read;
            return read && is_image(page.data(), entry);
        };
        const std::byte* image = page.data();
        if (piece != nullptr) image = piece + std::size_t{at} * kPageBytes;
        if (piece != nullptr ? is_image(image, entry) : holds(StoreFile::kJournal, image_at(i))) {
            if (Status put = places.put(PageId{entry.page_id}, image); !put) return put;
        } else if (!holds(StoreFile::kData, page_offset_bytes(PageId{entry.page_id}))) {
            if (!unread) return unread;  // not damaged, for all that is known
            return corrupt(storage_.disk.path(StoreFile::kJournal) + ": image of page " +
                           std::to_string(entry.page_id) +
                           " is damaged, and the page in its place is another one");
        }
    }
    return {};
}

// A checkpoint in replay writes over the journal: by then no superblock may need it any more.
// Until both copies are durable it is as it was, and can be put in place again.
Status Recovery::close_journal(Superblock& superblock) {
    if (superblock.journal_pages == 0) return {};
    superblock.journal_pages = 0;
    superblock.journal_list_crc = 0;
    ++superblock.sequence;
    seal_superblock(superblock);
    return write_copies(superblock);
}

// A journal that nobody names is free, so the file comes first, and then the superblock says how
// long it is: stopped in between, the file is longer than it need be. It is never cut: a batch of
// the log may need half of the journal that it was made with.
Status Recovery::lengthen_journal(Superblock& superblock) {
    const std::uint64_t had = superblock.journal_bytes;
    const std::uint64_t wanted = align_up(options_.journal_bytes, kPageBytes);
    if (!raises_journal_ || wanted == had) return {};
    const std::string path = storage_.disk.path(StoreFile::kJournal);
    const std::string sizes = path + " has " + std::to_string(had) + " bytes, journal_bytes is " +
                              std::to_string(wanted) + ": ";
    if (wanted < had) {
        say(6, sizes + "it is not made shorter");
        return {};
    }
    auto size = storage_.disk.size_bytes(StoreFile::kJournal);
    if (!size) return size.failure();
    while (*size < wanted) {
        tell([&] { return path + " made longer, " + of(*size >> 20, wanted >> 20) + " MiB"; });
        *size = std::min(align_up(*size, kPageBytes) + kLengthenBytes, wanted);
        Status longer = storage_.disk.resize(StoreFile::kJournal, *size);
        if (longer.error() == Error::kNoSpace) {
            say(4, sizes + "it stays as it is, for want of room: " + longer.failure().what);
            return storage_.disk.resize(StoreFile::kJournal, had);
        }
        if (!longer) return longer;
    }
    superblock.journal_bytes = wanted;
    ++superblock.sequence;
    seal_superblock(superblock);
    if (Status written = write_copies(superblock); !written) return written;
    say(5, sizes + "it was made longer");
    return {};
}

// ---- step 4: directory, metadata, system tables ----

Status Recovery::read_directory(const Superblock& superblock, ChunkDirectory& directory) {
    const std::uint32_t groups = (superblock.chunk_count + kDirectoryChunks - 1) / kDirectoryChunks;
    PieceReader pages(storage_.disk, storage_.clock, pages_of(groups, directory_page));
    std::uint32_t root = 0;
    for (std::uint32_t group = 0; group < groups; ++group) {
        const PageId id = directory_page(group);
        const Result<const std::byte*> page = pages.next();
        if (!page) return page.failure();
        const char* fault =
            page_fault(*page, id, storage_.pool.file_uuid(), Csn{superblock.checkpoint_csn});
        if (fault != nullptr) {
            return corrupt("chunk directory, page " + std::to_string(id.value) + ": " + fault +
                           kRebuild);
        }
        const std::uint32_t crc = page_header(*page).crc;
        root = crc32c(&crc, sizeof crc, root);
        directory.page_crcs.push_back(crc);
        DirectoryPage content{};
        std::memcpy(&content, *page + kPageHeaderBytes, sizeof content);
        directory.entries.insert(directory.entries.end(), std::begin(content.entry),
                                 std::end(content.entry));
    }
    if (root != superblock.directory_crc) {
        return corrupt(
            std::string("chunk directory: its pages are not those of the last checkpoint") +
            kRebuild);
    }
    directory.entries.resize(superblock.chunk_count);
    return {};
}

Status Recovery::read_chunks(const Superblock& superblock, ChunkDirectory& directory) {
    PoolHeader& header = storage_.segment.header();
    std::memcpy(header.file_uuid, superblock.file_uuid, sizeof header.file_uuid);
    header.catalog_root = superblock.catalog_root;
    if (Status read = read_directory(superblock, directory); !read) return read;
    PieceReader pages(storage_.disk, storage_.clock, pages_of(superblock.chunk_count, meta_page));
    for (std::uint32_t chunk = 0; chunk < superblock.chunk_count; ++chunk) {
        tell([&] { return "metadata of chunk " + of(chunk, superblock.chunk_count) + " read"; });
        const PageId id = meta_page(chunk);
        const Result<const std::byte*> page = pages.next();
        if (!page) return page.failure();
        // By copy: a device that does not answer must not have a frame to write into.
        const FrameId frame = storage_.pool.begin_load(id);
        std::byte* bytes = storage_.pool.frame_bytes(frame);
        std::memcpy(bytes, *page, kPageBytes);
        const char* fault =
            page_fault(bytes, id, storage_.pool.file_uuid(), Csn{superblock.checkpoint_csn});
        if (fault == nullptr && page_header(bytes).crc != directory.entries[chunk].meta_crc) {
            fault = "it is not the one of the last checkpoint";
        }
        if (fault == nullptr && page_header(bytes).type != PageType::kMeta) {
            fault = "it is of another type";
        }
        const std::string where =
            "metadata of chunk " + std::to_string(chunk) + ", page " + std::to_string(id.value);
        if (fault != nullptr) return corrupt(where + ": " + fault + kRebuild);
        storage_.pool.loaded(frame);
        ChunkMeta meta{};
        std::memcpy(&meta, bytes + kPageHeaderBytes, sizeof meta);
        const Status adopted = storage_.space.adopt_chunk(chunk, meta);
        if (adopted.error() == Error::kCorruption) {
            return corrupt(where + ": " + adopted.failure().what + kRebuild);
        }
        if (!adopted) return adopted;
    }
    storage_.pool.advance_visible(Csn{superblock.checkpoint_csn});
    storage_.adopt(superblock, std::move(directory));
    return {};
}

Status Recovery::load_system_tables() {
    Catalog& catalog = *storage_.catalog;
    const auto root_fault = [&](const TableEntry& table) -> Status {
        const PageId root = table.tree.root();
        if (storage_.space.may_be_in_tree(root)) return {};
        return corrupt("catalog: the root of table " + std::to_string(table.id.value) + ", page " +
                       std::to_string(root.value) + ", is no page of a tree");
    };
    if (Status fault = root_fault(catalog.catalog()); !fault) return fault;
    Status failed;
    const Status complete = storage_.complete([&] {
        Result<TreeAccess> access = catalog.load();
        if (access) return *access;
        failed = access.failure();
        return TreeAccess{};
    });
    if (!complete) return {complete.error(), "catalog: " + complete.failure().what};
    if (!failed) return failed;
    for (const auto& tables : {catalog.all(), catalog.dropping()}) {
        for (const TableEntry* table : tables) {
            if (Status fault = root_fault(*table); !fault) return fault;
        }
    }
    return {};
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

// ---- step 7 ----

Status Recovery::begin_new_life(WalStart& start, Csn newest) {
    Superblock& superblock = storage_.superblock;
    superblock.epoch += 1;
    superblock.salt = random();
    superblock.durable_csn = std::max(superblock.durable_csn, newest.value);
    // Shared: the device may come back to it when this has given up.
    const auto written = std::make_shared<std::optional<Status>>();
    storage_.checkpointer->superblock_writer().write(
        superblock, [written](const Status& status) { *written = status; });
    const std::uint64_t deadline = storage_.clock.monotonic_ns() + BlockingIo::kDeadlineNs;
    while (!*written && storage_.clock.monotonic_ns() < deadline) storage_.disk.poll(1'000'000);
    if (!*written) {
        return {Error::kIoError, "superblock of " + storage_.disk.path(StoreFile::kData) +
                                     " at offset 0: not written in 30 s"};
    }
    if (const Status& status = **written; !status) {
        return {status.error(), "superblock: " + status.failure().what};
    }
    start.shape = {superblock.log_segment_bytes, superblock.log_segment_count};
    std::memcpy(start.file_uuid, superblock.file_uuid, sizeof start.file_uuid);
    start.epoch = superblock.epoch;
    start.salt = superblock.salt;
    start.batch_bytes_max = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(kBatchBytesMax, superblock.log_segment_bytes));
    // The segments are those of the files: a setting made for smaller ones does not stop the log.
    start.replay_bytes_max =
        std::max(options_.recovery_log_bytes, std::uint64_t{4} * start.batch_bytes_max);
    return {};
}

}  // namespace bidstore
