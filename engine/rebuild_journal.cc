#include "engine/rebuild_journal.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "engine/superblock.h"
#include "shm/version_writer.h"

namespace bidstore {

// The superblock as it is, with the next sequence.
Status RebuildJournal::write_superblock(Superblock& superblock) {
    ++superblock.sequence;
    seal_superblock(superblock);
    return recovery_.write_copies(superblock);
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
    return put_in_place(superblock, [](const std::string&, bool) { return Status(); });
}

Status RebuildJournal::put_in_place(Superblock& superblock, const JournalTold& told) {
    if (superblock.journal_pages == 0) return {};
    Status placed = recovery_.apply_journal(superblock);
    if (recovery_.stuck()) return placed;  // a late write would come over what is put there next
    if (placed.error() == Error::kCorruption || placed.error() == Error::kIoError) {
        placed = salvage(superblock, told);
    }
    return placed ? recovery_.close_journal(superblock) : placed;
}

// What is in the place of an image that is lost is an older version of the page, at best: with the
// list it is known which page that is, and it is wiped, so that nobody ever takes it for the
// newest. Without the list it is not, and all that the checkpoint changed may be as it was before.
Status RebuildJournal::salvage(const Superblock& superblock, const JournalTold& told) {
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
    std::vector<Placement> placements;
    std::uint32_t missing = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        JournalEntry entry{};
        std::memcpy(&entry, list.data() + sizeof header + i * sizeof entry, sizeof entry);
        const std::uint64_t from = list.size_bytes() + i * std::uint64_t{kPageBytes};
        const bool found = listed ? place_listed(superblock, entry, from, placements)
                                  : place_unlisted(superblock, from, placements);
        if (found) continue;
        ++missing;
        if (!listed) continue;
        const Status heard = told(
            "the journal's image of page " + std::to_string(entry.page_id) + " is lost", false);
        if (!heard) return heard;
    }
    if (!listed) {
        std::string what = "the journal's list is lost";
        if (missing > 0) {
            what += ", and of its " + std::to_string(count) + " images " + std::to_string(missing) +
                    ", of which pages is not known";
        }
        if (Status heard = told(what, missing > 0); !heard) return heard;
    }
    return put(placements);
}

bool RebuildJournal::sound(const Superblock& superblock, StoreFile file, std::uint64_t offset,
                           const PageId* id) {
    std::uint64_t uuid = 0;
    std::memcpy(&uuid, superblock.file_uuid, sizeof uuid);
    if (!io_.read(file, offset, page_.data(), kPageBytes)) return false;
    const PageId own{page_header(std::as_const(page_).data()).page_id};
    return page_fault(page_.data(), id != nullptr ? *id : own, uuid,
                      Csn{superblock.checkpoint_csn}) == nullptr;
}

// False: the image is lost, and so is what is in its place.
bool RebuildJournal::place_listed(const Superblock& superblock, const JournalEntry& entry,
                                  std::uint64_t from, std::vector<Placement>& placements) {
    const PageId id{entry.page_id};
    const std::uint64_t place = std::uint64_t{entry.page_id} * kPageBytes;
    const auto holds = [&](StoreFile file, std::uint64_t offset) {
        return sound(superblock, file, offset, &id) &&
               page_header(std::as_const(page_).data()).crc == entry.page_crc;
    };
    const bool whole = holds(StoreFile::kJournal, from);
    if (!whole && holds(StoreFile::kData, place)) return true;
    if (place >= kSuperblockCopies * kPageBytes && place < superblock.chunk_count * kChunkBytes) {
        placements.push_back({whole ? from : kZeros, place});
    }
    return whole;
}

// An image says itself whose it is. One that is older than what is in its place is of an older
// journal. False: there is none of this one.
bool RebuildJournal::place_unlisted(const Superblock& superblock, std::uint64_t from,
                                    std::vector<Placement>& placements) {
    if (!sound(superblock, StoreFile::kJournal, from, nullptr)) return false;
    const PageId id{page_header(std::as_const(page_).data()).page_id};
    const std::uint64_t csn = VersionWriter::csn_of(page_.data());
    const std::uint64_t place = page_offset_bytes(id);
    if (place < kSuperblockCopies * kPageBytes || place >= superblock.chunk_count * kChunkBytes) {
        return false;
    }
    if (sound(superblock, StoreFile::kData, place, &id) &&
        VersionWriter::csn_of(page_.data()) > csn) {
        return false;
    }
    placements.push_back({from, place});
    return true;
}

Status RebuildJournal::put(const std::vector<Placement>& placements) {
    for (const Placement& placement : placements) {
        std::memset(page_.data(), 0, kPageBytes);
        if (placement.from != kZeros) {
            const Status read =
                io_.read(StoreFile::kJournal, placement.from, page_.data(), kPageBytes);
            if (!read) return read;
        }
        const Status written =
            io_.write(StoreFile::kData, placement.place, page_.data(), kPageBytes, false);
        if (!written) return written;
    }
    return io_.sync(StoreFile::kData);
}

}  // namespace bidstore
