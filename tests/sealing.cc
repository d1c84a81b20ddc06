#include "tests/sealing.h"

#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "engine/page/catalog_schema.h"
#include "engine/page/leaf.h"
#include "engine/page/page.h"

namespace bidstore {
namespace {

using Bytes = std::vector<std::byte>;

std::uint64_t place_of(PageId page) { return page.value * std::uint64_t{kPageBytes}; }

template <class T>
T peek(const SimDisk& disk, StoreFile file, std::uint64_t offset) {
    T value{};
    const Bytes bytes = disk.peek(file, offset, sizeof value);
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

template <class T>
void poke(SimDisk& disk, StoreFile file, std::uint64_t offset, const T& value) {
    disk.poke(file, offset, &value, sizeof value);
}

// Where the bytes of a page are that a recovery ends with: in its image in the journal, of which
// there is an entry in the journal's list, or in its place.
struct PageBytes {
    StoreFile file = StoreFile::kData;
    std::uint64_t offset = 0;
    std::optional<std::uint64_t> entry_offset;
};

// The images of the journal, as its list has them.
std::map<std::uint32_t, PageBytes> images_in(SimDisk& disk) {
    const auto header = peek<JournalHeader>(disk, StoreFile::kJournal, 0);
    const std::uint64_t size = *disk.size_bytes(StoreFile::kJournal);
    const std::uint64_t images_at = journal_header_blocks(header.page_count) * kBlockBytes;
    std::map<std::uint32_t, PageBytes> images;
    if (header.magic != kJournalMagic || images_at > size) return images;
    for (std::uint64_t i = 0; i < header.page_count; ++i) {
        const std::uint64_t entry = sizeof header + i * sizeof(JournalEntry);
        const std::uint64_t image = images_at + i * kPageBytes;
        if (image + kPageBytes > size) break;
        const auto listed = peek<JournalEntry>(disk, StoreFile::kJournal, entry);
        images.try_emplace(listed.page_id, PageBytes{StoreFile::kJournal, image, entry});
    }
    return images;
}

// The pages of a store, with or without the images of its journal.
class Pages {
  public:
    Pages(SimDisk& disk, bool with_images) : disk_(disk) {
        if (with_images) images_ = images_in(disk);
    }

    // The page and what remembers it; returns the directory's checksum.
    std::uint32_t seal_up(PageId page) {
        const std::uint32_t chunk = chunk_of(page);
        const PageId meta = meta_page(chunk);
        const PageId directory = directory_page(0);
        if (page != meta && page != directory) {
            set(meta,
                offsetof(ChunkMeta, page_crc) + sizeof(std::uint32_t) * (page.value % kChunkPages),
                seal(page));
        }
        if (page != directory) set(directory, chunk * sizeof(DirectoryEntry), seal(meta));
        const std::uint32_t crc = seal(directory);
        return crc32c(&crc, sizeof crc);
    }
    // Pages of the file with an image whose checksum does not fit, or its entry's.
    std::vector<PageId> unsealed() const {
        std::vector<PageId> found;
        const std::uint64_t pages = *disk_.size_bytes(StoreFile::kData) / kPageBytes;
        for (const auto& [page, at] : images_) {
            const Bytes bytes = disk_.peek(at.file, at.offset, kPageBytes);
            const auto entry = peek<JournalEntry>(disk_, at.file, *at.entry_offset);
            const std::uint32_t crc = page_crc(bytes.data());
            const bool fits = page_header(bytes.data()).crc == crc && entry.page_crc == crc;
            if (!fits && page >= kSuperblockCopies && page < pages) found.push_back(PageId{page});
        }
        return found;
    }

  private:
    // Returns its checksum.
    std::uint32_t seal(PageId page) {
        const PageBytes at = find(page);
        Bytes bytes = disk_.peek(at.file, at.offset, kPageBytes);
        seal_page(bytes.data());
        disk_.poke(at.file, at.offset, bytes.data(), kPageBytes);
        const std::uint32_t crc = page_header(bytes.data()).crc;
        if (at.entry_offset) {
            poke(disk_, at.file, *at.entry_offset + offsetof(JournalEntry, page_crc), crc);
        }
        return crc;
    }
    // In its content.
    void set(PageId page, std::size_t offset, std::uint32_t crc) {
        const PageBytes at = find(page);
        poke(disk_, at.file, at.offset + kPageHeaderBytes + offset, crc);
    }
    PageBytes find(PageId page) const {
        const auto image = images_.find(page.value);
        if (image != images_.end()) return image->second;
        return {StoreFile::kData, place_of(page), std::nullopt};
    }

    SimDisk& disk_;
    std::map<std::uint32_t, PageBytes> images_;
};

// The journal's list, and the superblocks that name it.
void seal_list(SimDisk& disk) {
    auto header = peek<JournalHeader>(disk, StoreFile::kJournal, 0);
    const std::uint64_t size = *disk.size_bytes(StoreFile::kJournal);
    const std::uint64_t list = sizeof header + header.page_count * sizeof(JournalEntry);
    if (header.magic != kJournalMagic || list > size) return;
    header.list_crc = 0;
    Bytes bytes = disk.peek(StoreFile::kJournal, 0, list);
    std::memcpy(bytes.data(), &header, sizeof header);
    header.list_crc = crc32c(bytes.data(), bytes.size());
    poke(disk, StoreFile::kJournal, 0, header);
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        poke(disk, StoreFile::kData, copy * kBlockBytes + offsetof(Superblock, journal_list_crc),
             header.list_crc);
        seal_superblock(disk, copy);
    }
}

struct Batch {
    std::uint64_t offset = 0;
    BatchHeader header{};
};

// The batches from where replay begins, by what they say of their lengths.
template <class Visit>
void each_batch(SimDisk& disk, Visit visit) {
    constexpr int kBatchesMax = 2000;
    const Superblock a = superblock_of(disk, 0);
    const Superblock b = superblock_of(disk, 1);
    const std::uint64_t size = *disk.size_bytes(StoreFile::kLog);
    std::uint64_t position = a.sequence > b.sequence ? a.log_position : b.log_position;
    for (int i = 0; size > 0 && i < kBatchesMax; ++i) {
        const std::uint64_t offset = position % size;
        const Batch batch{offset, peek<BatchHeader>(disk, StoreFile::kLog, offset)};
        const std::uint32_t length = batch.header.length_bytes;
        if (batch.header.magic != kBatchMagic || length < sizeof batch.header ||
            length > size - offset) {
            return;
        }
        visit(batch);
        position += align_up(length, kBlockBytes);
    }
}

// The records in a batch's bytes, by what they say of their lengths.
template <class Visit>
void each_record(const Bytes& batch, Visit visit) {
    for (std::size_t at = sizeof(BatchHeader); at + sizeof(LogRecord) <= batch.size();) {
        LogRecord record{};
        std::memcpy(&record, batch.data() + at, sizeof record);
        if (record.length_bytes < sizeof record || record.length_bytes > batch.size() - at) return;
        visit(at, record);
        at += align_up(record.length_bytes, 8);
    }
}

}  // namespace

Superblock superblock_of(const SimDisk& disk, std::uint32_t copy) {
    return peek<Superblock>(disk, StoreFile::kData, copy * kBlockBytes);
}

void seal_superblock(SimDisk& disk, std::uint32_t copy) {
    Superblock superblock = superblock_of(disk, copy);
    superblock.crc = 0;
    superblock.crc = crc32c(&superblock, sizeof superblock);
    poke(disk, StoreFile::kData, copy * kBlockBytes, superblock);
}

// A superblock that names the journal, and the other one that may not, are each of other pages.
void seal_up(SimDisk& disk, PageId page) {
    bool named = false;
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        const bool names = superblock_of(disk, copy).journal_pages > 0;
        named |= names;
        const std::uint32_t root = Pages(disk, names).seal_up(page);
        poke(disk, StoreFile::kData, copy * kBlockBytes + offsetof(Superblock, directory_crc),
             root);
        seal_superblock(disk, copy);
    }
    if (named) seal_list(disk);
}

std::vector<std::uint64_t> log_records(SimDisk& disk) {
    std::vector<std::uint64_t> found;
    each_batch(disk, [&](const Batch& batch) {
        each_record(disk.peek(StoreFile::kLog, batch.offset, batch.header.length_bytes),
                    [&](std::size_t at, const LogRecord&) { found.push_back(batch.offset + at); });
    });
    return found;
}

void seal_log(SimDisk& disk) {
    const Superblock a = superblock_of(disk, 0);
    const Superblock b = superblock_of(disk, 1);
    std::uint32_t previous = a.sequence > b.sequence ? a.log_crc : b.log_crc;
    each_batch(disk, [&](Batch batch) {
        batch.header.previous_crc = previous;
        batch.header.crc = 0;
        Bytes bytes = disk.peek(StoreFile::kLog, batch.offset, batch.header.length_bytes);
        std::memcpy(bytes.data(), &batch.header, sizeof batch.header);
        each_record(bytes, [&](std::size_t at, LogRecord record) {
            record.crc = 0;
            std::memcpy(bytes.data() + at, &record, sizeof record);
            record.crc = crc32c(bytes.data() + at, record.length_bytes);
            std::memcpy(bytes.data() + at, &record, sizeof record);
        });
        previous = crc32c(bytes.data(), bytes.size());
        batch.header.crc = previous;
        std::memcpy(bytes.data(), &batch.header, sizeof batch.header);
        disk.poke(StoreFile::kLog, batch.offset, bytes.data(), bytes.size());
    });
}

std::size_t catalog_row(const std::byte* page, TableId table) {
    const LeafLayout layout = LeafLayout::of(catalog_schema());
    const LeafView rows(page, layout);
    std::array<std::byte, kKeyBytesMax> key{};  // the first four are used
    encode_key_integer(key.data(), table.value, 4, false);
    const int row = rows.find(key.data());
    CHECK_OP(row, >=, 0);
    return static_cast<std::size_t>(rows.value(static_cast<std::uint32_t>(row)).data() - page);
}

void seal_journal(SimDisk& disk) {
    const bool named = superblock_of(disk, 0).journal_pages > 0 ||
                       superblock_of(disk, 1).journal_pages > 0;
    if (!named) return seal_list(disk);
    for (const PageId page : Pages(disk, true).unsealed()) seal_up(disk, page);
    seal_list(disk);
}

}  // namespace bidstore
