#include "tests/sealing.h"

#include <cstring>
#include <vector>

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

// False: no batch begins there. `previous` becomes its checksum.
bool seal_batch(SimDisk& disk, std::uint64_t offset, std::uint64_t bytes_at_most,
                std::uint32_t& previous, std::uint32_t& length_bytes) {
    auto header = peek<BatchHeader>(disk, StoreFile::kLog, offset);
    if (header.magic != kBatchMagic || header.length_bytes < sizeof header ||
        header.length_bytes > bytes_at_most) {
        return false;
    }
    header.previous_crc = previous;
    header.crc = 0;
    Bytes batch = disk.peek(StoreFile::kLog, offset, header.length_bytes);
    std::memcpy(batch.data(), &header, sizeof header);
    for (std::size_t at = sizeof header; at + sizeof(LogRecord) <= batch.size();) {
        LogRecord record{};
        std::memcpy(&record, batch.data() + at, sizeof record);
        if (record.length_bytes < sizeof record || record.length_bytes > batch.size() - at) break;
        record.crc = 0;
        std::memcpy(batch.data() + at, &record, sizeof record);
        record.crc = crc32c(batch.data() + at, record.length_bytes);
        std::memcpy(batch.data() + at, &record, sizeof record);
        at += align_up(record.length_bytes, 8);
    }
    header.crc = crc32c(batch.data(), batch.size());
    std::memcpy(batch.data(), &header, sizeof header);
    disk.poke(StoreFile::kLog, offset, batch.data(), batch.size());
    previous = header.crc;
    length_bytes = header.length_bytes;
    return true;
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

void seal_log(SimDisk& disk) {
    constexpr int kBatchesMax = 2000;
    const Superblock a = superblock_of(disk, 0);
    const Superblock b = superblock_of(disk, 1);
    const Superblock& newest = a.sequence > b.sequence ? a : b;
    const std::uint64_t size = *disk.size_bytes(StoreFile::kLog);
    if (size == 0) return;
    std::uint64_t position = newest.log_position;
    std::uint32_t previous = newest.log_crc;
    for (int i = 0; i < kBatchesMax; ++i) {
        const std::uint64_t offset = position % size;
        std::uint32_t length_bytes = 0;
        if (!seal_batch(disk, offset, size - offset, previous, length_bytes)) return;
        position += align_up(length_bytes, kBlockBytes);
    }
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
