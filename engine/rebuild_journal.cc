#include "engine/rebuild_journal.h"

#include <algorithm>
#include <cstring>

#include "engine/superblock.h"

namespace bidstore {

Status RebuildJournal::write_superblock(Superblock& superblock) {
    ++superblock.sequence;
    seal_superblock(superblock);
    AlignedBuffer block(kBlockBytes);
    std::memcpy(block.data(), &superblock, sizeof superblock);
    for (std::uint64_t copy = 0; copy < kSuperblockCopies; ++copy) {
        const Status written =
            io_.write(StoreFile::kData, copy * kBlockBytes, block.data(), kBlockBytes, true);
        if (!written) return written;
    }
    return {};
}

Status RebuildJournal::write(Superblock& superblock, const PageImages& images) {
    const auto count = static_cast<std::uint32_t>(images.size());
    AlignedBuffer list(journal_header_blocks(count) * kBlockBytes);
    const std::uint64_t bytes = list.size_bytes() + count * std::uint64_t{kPageBytes};
    const auto size = disk_.size_bytes(StoreFile::kJournal);
    if (!size) return size.failure();
    if (*size < bytes) {
        if (Status longer = disk_.resize(StoreFile::kJournal, bytes); !longer) return longer;
    }
    JournalHeader header{};
    header.magic = kJournalMagic;
    header.number = superblock.journal_number + 1;
    std::memcpy(header.file_uuid, superblock.file_uuid, sizeof header.file_uuid);
    header.checkpoint_csn = superblock.checkpoint_csn;
    header.page_count = count;
    std::memcpy(list.data(), &header, sizeof header);
    std::uint64_t at = list.size_bytes();
    std::byte* entry = list.data() + sizeof header;
    for (const auto& [page, image] : images) {
        const JournalEntry named{page, page_header(image.data()).crc};
        std::memcpy(entry, &named, sizeof named);
        entry += sizeof named;
        const Status written = io_.write(StoreFile::kJournal, at, image.data(), kPageBytes, false);
        if (!written) return written;
        at += kPageBytes;
    }
    header.list_crc = crc32c(list.data(), sizeof header + count * sizeof(JournalEntry));
    std::memcpy(list.data(), &header, sizeof header);
    const Status written = io_.write(StoreFile::kJournal, 0, list.data(), list.size_bytes(), false);
    if (!written) return written;
    if (Status synced = io_.sync(StoreFile::kJournal); !synced) return synced;
    superblock.journal_bytes = std::max(superblock.journal_bytes, bytes);
    superblock.journal_pages = count;
    superblock.journal_number += 1;
    superblock.journal_list_crc = header.list_crc;
    if (Status named = write_superblock(superblock); !named) return named;
    return put_in_place(superblock, [](const std::string&) {});
}

Status RebuildJournal::put_in_place(Superblock& superblock,
                                    const std::function<void(const std::string& what)>& told) {
    if (superblock.journal_pages == 0) return {};
    Status placed = recovery_.apply_journal(superblock);
    if (placed.error() == Error::kCorruption || placed.error() == Error::kIoError) {
        placed = salvage(superblock, told);
    }
    if (!placed) return placed;
    superblock.journal_pages = 0;
    superblock.journal_list_crc = 0;
    return write_superblock(superblock);
}

// Images say themselves whose they are, and lie where the journal was synced before it was named.
// What is in the place of one that is lost is an older version of the page, at best: with the list
// it is known which that is, and it is wiped, so that nobody ever takes it for the newest.
Status RebuildJournal::salvage(const Superblock& superblock,
                               const std::function<void(const std::string& what)>& told) {
    const std::uint32_t count = superblock.journal_pages;
    const std::uint64_t list_bytes = sizeof(JournalHeader) + count * sizeof(JournalEntry);
    AlignedBuffer list(journal_header_blocks(count) * kBlockBytes);
    const Status read = io_.read(StoreFile::kJournal, 0, list.data(), list.size_bytes());
    JournalHeader header{};
    std::memcpy(&header, list.data(), sizeof header);
    header.list_crc = 0;
    std::memcpy(list.data(), &header, sizeof header);
    const bool listed = read && header.number == superblock.journal_number &&
                        crc32c(list.data(), list_bytes) == superblock.journal_list_crc;
    if (!listed) told("the journal's list is lost; its images are used as far as they are there");
    std::uint64_t uuid = 0;
    std::memcpy(&uuid, superblock.file_uuid, sizeof uuid);
    AlignedBuffer page(kPageBytes);
    const PageHeader& image = page_header(std::as_const(page).data());
    for (std::uint32_t i = 0; i < count; ++i) {
        JournalEntry entry{};
        std::memcpy(&entry, list.data() + sizeof header + i * sizeof entry, sizeof entry);
        const auto holds = [&](StoreFile file, std::uint64_t offset) {
            if (!io_.read(file, offset, page.data(), kPageBytes)) return false;
            const PageId own{listed ? entry.page_id : image.page_id};
            return page_fault(page.data(), own, uuid, Csn{superblock.checkpoint_csn}) == nullptr &&
                   (!listed || image.crc == entry.page_crc);
        };
        const bool whole = holds(StoreFile::kJournal, list.size_bytes() + i * kPageBytes);
        std::uint64_t place = (listed ? entry.page_id : image.page_id) * std::uint64_t{kPageBytes};
        if (!whole) {
            if (!listed || holds(StoreFile::kData, place)) continue;
            told("the journal's image of page " + std::to_string(entry.page_id) + " is lost");
            std::memset(page.data(), 0, kPageBytes);
        }
        if (place < kSuperblockCopies * kPageBytes ||
            place >= superblock.chunk_count * kChunkBytes) {
            continue;
        }
        const Status written = io_.write(StoreFile::kData, place, page.data(), kPageBytes, false);
        if (!written) return written;
    }
    return io_.sync(StoreFile::kData);
}

}  // namespace bidstore
