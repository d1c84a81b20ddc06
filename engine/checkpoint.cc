#include "engine/checkpoint.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace bidstore {
namespace {

std::uint64_t header_blocks(std::uint64_t images) {
    return (sizeof(JournalHeader) + images * sizeof(JournalEntry) + kBlockBytes - 1) / kBlockBytes;
}

std::uint32_t group_of(std::uint32_t chunk) { return chunk / kDirectoryChunks; }

std::uint32_t groups_of(std::uint32_t chunks) {
    return (chunks + kDirectoryChunks - 1) / kDirectoryChunks;
}

}  // namespace

Checkpointer::Checkpointer(Pool& pool, Space& space, Disk& disk, Superblock& superblock,
                           ChunkDirectory directory)
    : pool_(pool),
      space_(space),
      disk_(disk),
      superblock_(superblock),
      writer_(disk),
      directory_(std::move(directory)),
      log_start_(superblock.log_position),
      covered_{superblock.checkpoint_csn} {
    for (std::uint32_t i = 0; i < kTransfers; ++i) {
        transfers_.push_back(std::make_unique<Transfer>());
        transfers_.back()->owner = this;
    }
}

std::uint64_t Checkpointer::journal_capacity() const {
    std::uint64_t images = superblock_.journal_bytes / kPageBytes;
    while (images > 0 && header_blocks(images) + images > superblock_.journal_bytes / kPageBytes) {
        images -= std::min<std::uint64_t>(images, header_blocks(images));
    }
    return images;
}

std::uint64_t Checkpointer::journal_need(std::uint64_t known, std::uint64_t pages) const {
    const std::uint64_t chunks = space_.chunk_count() + Space::grow_frames(pages);
    const std::uint64_t metadata = std::min(pages, chunks);
    const std::uint64_t groups = groups_of(static_cast<std::uint32_t>(chunks));
    return known + metadata + std::min(metadata, groups);
}

std::uint64_t Checkpointer::journal_use(std::uint64_t known, std::uint64_t pages) const {
    return journal_need(space_.known_changed() + known, pool_.changed_pages().size() + pages);
}

void Checkpointer::start(const CheckpointTarget& target) {
    CHECK(!running());
    CHECK(failure_.empty());
    target_ = target;
    collect();
    composed_metadata_ = false;
    enter(Phase::kDirect);
}

bool Checkpointer::in_bitmap(PageId page) const {
    const std::byte* meta = pool_.version_at(meta_page(chunk_of(page)), target_.csn);
    if (meta == nullptr) return false;
    return (meta_bitmap(meta)[page.value % kChunkPages / 64] >> (page.value % 64)) & 1;
}

// The images of C: every page allocated at C with a version in (last C, C], also when it changed
// since; and the chunks whose metadata changes with them.
void Checkpointer::collect() {
    chunks_ = 0;
    while (chunks_ < space_.chunk_count() &&
           pool_.version_at(meta_page(chunks_), target_.csn) != nullptr) {
        ++chunks_;
    }
    std::vector<bool> touched(chunks_, false);
    std::uint64_t changed_since = 0;
    for (const std::uint32_t number : pool_.changed_pages()) {
        const PageId page{number};
        const std::byte* version = pool_.version_at(page, target_.csn);
        if (version == nullptr) continue;
        if (pool_.newest_csn(page) > target_.csn) ++changed_since;
        if (VersionWriter::csn_of(version) <= covered_.value) continue;
        touched[chunk_of(page)] = true;
        if (Space::fixed(page) || !in_bitmap(page)) continue;
        (space_.known(page) ? journaled_ : direct_).push_back({number, 0, version});
    }
    for (std::uint32_t chunk = 0; chunk < chunks_; ++chunk) {
        if (touched[chunk]) touched_.push_back(chunk);
    }
    const auto by_page = [](const Image& a, const Image& b) { return a.page < b.page; };
    std::sort(direct_.begin(), direct_.end(), by_page);
    std::sort(journaled_.begin(), journaled_.end(), by_page);
    space_.begin_checkpoint(target_.csn, changed_since);
    std::uint64_t groups = 0;
    for (std::size_t i = 0; i < touched_.size(); ++i) {
        if (i == 0 || group_of(touched_[i]) != group_of(touched_[i - 1])) ++groups;
    }
    journal_images_ = journaled_.size() + touched_.size() + groups;
    CHECK_OP(journal_images_, <=, journal_capacity());  // writers were held before
    totals_.pages += direct_.size() + journaled_.size();
}

void Checkpointer::enter(Phase phase) {
    phase_ = phase;
    cursor_ = 0;
}

bool Checkpointer::pump() {
    bool worked = false;
    while (running() && failure_.empty() && step()) worked = true;
    return worked;
}

// One move of the machine; false when it has to wait for the disk.
bool Checkpointer::step() {
    switch (phase_) {
        case Phase::kIdle:
            return false;
        case Phase::kDirect:
            if (submit_images(direct_, StoreFile::kData, true)) return true;
            if (in_flight_ > 0) return false;
            enter(Phase::kDirectSync);
            // A file that Disk::extend() made longer is so for good only with this sync.
            if (direct_.empty() && chunks_ == superblock_.chunk_count) return true;
            submit_sync(StoreFile::kData);
            return true;
        case Phase::kDirectSync:
            if (in_flight_ > 0) return false;
            enter(Phase::kJournal);
            return true;
        case Phase::kJournal:
            if (submit_images(journaled_, StoreFile::kJournal, false)) return true;
            if (composed_metadata_) {
                if (in_flight_ > 0) return false;
                enter(Phase::kJournalHeader);
                return submit_journal_header();
            }
            if (cursor_ < journaled_.size()) return false;
            compose_metadata();  // needs the CRCs of all images, which are known now
            return true;
        case Phase::kJournalHeader:
            if (in_flight_ > 0) return false;
            enter(Phase::kJournalSync);
            submit_sync(StoreFile::kJournal);
            return true;
        case Phase::kJournalSync:
            if (in_flight_ > 0) return false;
            enter(Phase::kName);
            submit_superblock();
            return true;
        case Phase::kName:
            if (in_flight_ > 0) return false;
            enter(Phase::kPlaces);
            return true;
        case Phase::kPlaces:
            if (submit_images(journaled_, StoreFile::kData, true)) return true;
            if (in_flight_ > 0 || cursor_ < journaled_.size()) return false;
            enter(Phase::kPlacesSync);
            submit_sync(StoreFile::kData);
            return true;
        case Phase::kPlacesSync:
            if (in_flight_ > 0) return false;
            enter(Phase::kClose);
            submit_superblock();
            return true;
        case Phase::kClose:
            if (in_flight_ > 0) return false;
            finish();
            return true;
    }
    return false;
}

Checkpointer::Transfer* Checkpointer::idle_transfer() {
    for (auto& transfer : transfers_) {
        if (!transfer->request.in_flight) return transfer.get();
    }
    return nullptr;
}

// Copies the next run of images into a transfer, seals them and writes them: to their places (a run
// is then one of neighbours), or one behind the other into the journal.
bool Checkpointer::submit_images(std::vector<Image>& images, StoreFile file, bool in_place) {
    if (cursor_ >= images.size()) return false;
    Transfer* transfer = idle_transfer();
    if (transfer == nullptr) return false;
    const std::size_t first = cursor_;
    std::uint32_t count = 0;
    while (cursor_ < images.size() && count < kTransferPages) {
        Image& image = images[cursor_];
        if (in_place && count > 0 && image.page != images[cursor_ - 1].page + 1) break;
        std::byte* page = transfer->buffer.data() + std::size_t{count} * kPageBytes;
        std::memcpy(page, image.source, kPageBytes);
        seal_page(page);
        image.crc = page_header(page).crc;
        image.newest = Space::newest_in(page);
        ++cursor_;
        ++count;
    }
    DiskRequest& request = transfer->request;
    request.kind = DiskRequest::Kind::kWrite;
    request.file = file;
    request.buffer = transfer->buffer.data();
    request.length_bytes = count * static_cast<std::uint32_t>(kPageBytes);
    const std::uint64_t journal_block = header_blocks(journal_images_) + first;
    request.offset_bytes = (in_place ? images[first].page : journal_block) * kPageBytes;
    request.context = this;
    request.completed = [](DiskRequest& done, void* context) {
        static_cast<Checkpointer*>(context)->on_completed(done);
    };
    ++in_flight_;
    disk_.submit(request);
    return true;
}

void Checkpointer::on_completed(DiskRequest& request) {
    --in_flight_;
    if (request.result >= 0) return;
    if (!failure_.empty()) return;
    failure_ = std::string("checkpoint: ") +
               (request.kind == DiskRequest::Kind::kSync ? "sync of " : "write to ") +
               disk_.path(request.file) + " at offset " + std::to_string(request.offset_bytes) +
               ": " + std::strerror(static_cast<int>(-request.result));
}

std::byte* Checkpointer::composed_page(PageId page, PageType type) {
    std::byte* bytes = composed_.emplace_back(kPageBytes).data();
    PageHeader& header = page_header(bytes);
    VersionWriter::fill(bytes, target_.csn.value, nullptr);
    header.page_id = page.value;
    header.type = type;
    std::memcpy(&header.file_uuid, superblock_.file_uuid, sizeof header.file_uuid);
    return bytes;
}

// Metadata images of touched chunks: the bitmap of C, and the CRCs that the file will have then.
void Checkpointer::compose_metadata() {
    std::vector<const Image*> images;
    for (const Image& image : direct_) images.push_back(&image);
    for (const Image& image : journaled_) images.push_back(&image);
    std::sort(images.begin(), images.end(),
              [](const Image* a, const Image* b) { return a->page < b->page; });
    auto next = images.begin();
    directory_.entries.resize(std::max<std::size_t>(directory_.entries.size(), chunks_));
    std::uint32_t last_group = ~0u;
    for (const std::uint32_t chunk : touched_) {
        std::byte* bytes = composed_page(meta_page(chunk), PageType::kMeta);
        ChunkMeta meta{};
        const std::byte* version = pool_.version_at(meta_page(chunk), target_.csn);
        std::memcpy(meta.used, meta_bitmap(version), sizeof meta.used);
        bitmaps_.insert(bitmaps_.end(), meta.used, meta.used + kChunkPages / 64);
        std::uint32_t used_count = 0;
        std::array<std::uint32_t, kChunkPages> newest{};
        for (std::uint32_t i = 0; i < kChunkPages; ++i) {
            const PageId page{chunk * kChunkPages + i};
            if (!((meta.used[i / 64] >> (i % 64)) & 1)) continue;
            ++used_count;
            while (next != images.end() && (*next)->page < page.value) ++next;
            const bool image = next != images.end() && (*next)->page == page.value;
            meta.page_crc[i] = image ? (*next)->crc : space_.known_crc(page);
            if (Space::fixed(page)) continue;
            newest[i] = image ? (*next)->newest : space_.newest_known(page);
        }
        Space::encode_newest(newest.data(), meta);
        std::memcpy(bytes + kPageHeaderBytes, &meta, sizeof meta);
        seal_page(bytes);
        directory_.entries[chunk] = {page_header(bytes).crc, kChunkPages - used_count,
                                      meta.newest};
        journaled_.push_back({meta_page(chunk).value, 0, bytes});
        if (group_of(chunk) != last_group) {
            last_group = group_of(chunk);
            touched_groups_.push_back(last_group);
        }
    }
    for (const std::uint32_t group : touched_groups_) compose_directory(group);
    std::uint32_t crc = 0;
    for (const std::uint32_t page : directory_.page_crcs) crc = crc32c(&page, sizeof page, crc);
    directory_root_ = crc;
    composed_metadata_ = true;
}

void Checkpointer::compose_directory(std::uint32_t group) {
    std::byte* bytes = composed_page(directory_page(group), PageType::kDirectory);
    DirectoryPage content{};
    const std::size_t first = std::size_t{group} * kDirectoryChunks;
    const std::size_t count = std::min<std::size_t>(kDirectoryChunks, chunks_ - first);
    std::copy_n(directory_.entries.begin() + static_cast<std::ptrdiff_t>(first), count,
                content.entry);
    std::memcpy(bytes + kPageHeaderBytes, &content, sizeof content);
    seal_page(bytes);
    if (directory_.page_crcs.size() <= group) directory_.page_crcs.resize(group + 1);
    directory_.page_crcs[group] = page_header(bytes).crc;
    journaled_.push_back({directory_page(group).value, 0, bytes});
}

bool Checkpointer::submit_journal_header() {
    const std::uint64_t blocks = header_blocks(journaled_.size());
    header_buffer_ = AlignedBuffer(blocks * kBlockBytes);
    JournalHeader header{};
    header.magic = kJournalMagic;
    header.number = superblock_.journal_number + 1;
    std::memcpy(header.file_uuid, superblock_.file_uuid, sizeof header.file_uuid);
    header.checkpoint_csn = target_.csn.value;
    header.page_count = static_cast<std::uint32_t>(journaled_.size());
    std::byte* entry = header_buffer_.data() + sizeof header;
    for (const Image& image : journaled_) {
        const JournalEntry written{image.page, image.crc};
        std::memcpy(entry, &written, sizeof written);
        entry += sizeof written;
    }
    std::memcpy(header_buffer_.data(), &header, sizeof header);
    const std::size_t list_bytes = sizeof header + journaled_.size() * sizeof(JournalEntry);
    header.list_crc = crc32c(header_buffer_.data(), list_bytes);
    std::memcpy(header_buffer_.data(), &header, sizeof header);
    journal_list_crc_ = header.list_crc;
    totals_.journal_pages += journaled_.size();
    single_ = DiskRequest{};
    single_.kind = DiskRequest::Kind::kWrite;
    single_.file = StoreFile::kJournal;
    single_.length_bytes = static_cast<std::uint32_t>(blocks * kBlockBytes);
    single_.buffer = header_buffer_.data();
    submit_single();
    return true;
}

void Checkpointer::submit_sync(StoreFile file) {
    single_ = DiskRequest{};
    single_.kind = DiskRequest::Kind::kSync;
    single_.file = file;
    submit_single();
}

void Checkpointer::submit_single() {
    single_.context = this;
    single_.completed = [](DiskRequest& done, void* context) {
        static_cast<Checkpointer*>(context)->on_completed(done);
    };
    ++in_flight_;
    disk_.submit(single_);
}

// kName: the superblock of C, which names the journal. kClose: the same without a journal.
void Checkpointer::submit_superblock() {
    if (phase_ == Phase::kName) {
        superblock_.checkpoint_csn = target_.csn.value;
        superblock_.log_position = target_.log_position;
        superblock_.log_crc = target_.log_crc;
        superblock_.newest_time_us = std::max(superblock_.newest_time_us, target_.time_us);
        superblock_.chunk_count = chunks_;
        superblock_.directory_crc = directory_root_;
        superblock_.journal_pages = static_cast<std::uint32_t>(journaled_.size());
        superblock_.journal_number += 1;
        superblock_.journal_list_crc = journal_list_crc_;
    } else {
        superblock_.journal_pages = 0;
        superblock_.journal_list_crc = 0;
    }
    superblock_.durable_csn = std::max(superblock_.durable_csn, target_.durable.value);
    ++in_flight_;
    writer_.write(superblock_, [this](std::int64_t error) {
        --in_flight_;
        if (error == 0) {
            log_start_ = superblock_.log_position;
            return;
        }
        failure_ = "checkpoint: superblock of " + disk_.path(StoreFile::kData) + ": " +
                   std::strerror(static_cast<int>(-error));
    });
}

void Checkpointer::finish() {
    for (std::size_t i = 0; i < touched_.size(); ++i) {
        space_.settle_chunk(touched_[i], &bitmaps_[i * (kChunkPages / 64)]);
    }
    for (const std::vector<Image>* images : {&direct_, &journaled_}) {
        for (const Image& image : *images) {
            if (!Space::fixed(PageId{image.page}))
                space_.settle_page(PageId{image.page}, image.crc, image.newest);
        }
    }
    pool_.settle(target_.csn);
    space_.end_checkpoint();
    covered_ = target_.csn;
    ++totals_.finished;
    direct_.clear();
    journaled_.clear();
    touched_.clear();
    touched_groups_.clear();
    composed_.clear();
    bitmaps_.clear();
    phase_ = Phase::kIdle;
}

}  // namespace bidstore
