#include "tests/sealing.h"

#include <array>
#include <cstring>
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

// Of one page; returns its checksum.
std::uint32_t seal(SimDisk& disk, PageId page) {
    Bytes bytes = disk.peek(StoreFile::kData, place_of(page), kPageBytes);
    seal_page(bytes.data());
    disk.poke(StoreFile::kData, place_of(page), bytes.data(), kPageBytes);
    return page_header(bytes.data()).crc;
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

void seal_up(SimDisk& disk, PageId page) {
    const std::uint32_t chunk = chunk_of(page);
    const PageId meta = meta_page(chunk);
    const PageId directory = directory_page(0);
    if (page != meta && page != directory) {
        poke(disk, StoreFile::kData,
             place_of(meta) + kPageHeaderBytes + offsetof(ChunkMeta, page_crc) +
                 sizeof(std::uint32_t) * (page.value % kChunkPages),
             seal(disk, page));
    }
    if (page != directory) {
        poke(disk, StoreFile::kData,
             place_of(directory) + kPageHeaderBytes + chunk * sizeof(DirectoryEntry),
             seal(disk, meta));
    }
    const std::uint32_t crc = seal(disk, directory);
    const std::uint32_t root = crc32c(&crc, sizeof crc);
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        poke(disk, StoreFile::kData, copy * kBlockBytes + offsetof(Superblock, directory_crc),
             root);
        seal_superblock(disk, copy);
    }
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

}  // namespace bidstore
