#include "engine/checkpoint.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "engine/blocking_io.h"
#include "engine/extent_map.h"

namespace bidstore {
namespace {

// What the smaller steps cost, in units of work.
constexpr std::uint32_t kPagesPerUnit = 4;      // of images found
constexpr std::uint32_t kWordsPerUnit = 512;    // of the pool's list of changed pages
constexpr std::uint32_t kComposeWork = 4;       // a page of metadata
constexpr std::uint32_t kEntriesPerUnit = 128;  // of the journal's list
constexpr std::uint32_t kSettledPerUnit = 16;   // images

constexpr std::uint64_t kListBlocks = 4;  // of the journal's list, in a write

constexpr std::uint64_t kWriteCost = 10;  // of a write beside that of its pages, in pages

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
      covered_{superblock.checkpoint_csn},
      list_(journal_header_blocks(journal_capacity()) * kBlockBytes) {
    direct_.reserve(pool.frame_count());
    journaled_.reserve(journal_capacity());
    for (std::uint32_t i = 0; i < kTransfers; ++i) {
        transfers_.push_back(std::make_unique<Transfer>());
        transfers_.back()->owner = this;
    }
}

std::uint64_t Checkpointer::journal_capacity() const {
    std::uint64_t images = superblock_.journal_bytes / kPageBytes;
    while (images > 0 &&
           journal_header_blocks(images) + images > superblock_.journal_bytes / kPageBytes) {
        images -= std::min<std::uint64_t>(images, journal_header_blocks(images));
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
    return journal_need(space_.known_changed() + known, pool_.changed_count() + pages);
}

void Checkpointer::start(const CheckpointTarget& target) {
    CHECK(!running());
    CHECK(failure_.empty());
    CHECK(target.csn == Csn{pool_.visible()});
    target_ = target;
    space_.begin_checkpoint();
    chunks_ = std::min(superblock_.chunk_count, space_.chunk_count());
    const auto exists = [this](std::uint32_t chunk) {
        return pool_.version_at(meta_page(chunk), target_.csn) != nullptr;
    };
    while (chunks_ > 0 && !exists(chunks_ - 1)) --chunks_;
    while (chunks_ < space_.chunk_count() && exists(chunks_)) ++chunks_;
    images_written_ = 0;
    writes_done_ = 0;
    direct_runs_ = 0;
    journal_runs_ = 0;
    unsynced_ = space_.take_wrote_past_checkpoint();
    enter(Phase::kCollect);
}

std::uint64_t Checkpointer::images_expected() const {
    if (phase_ == Phase::kCollect) return 2 * pool_.taken_count() + 1;
    const std::uint64_t journal = std::max<std::uint64_t>(journal_images_, journaled_.size());
    return direct_.size() + 2 * journal + 1;
}

// The journal is written in long pieces; how long those of neighbours are in their places is known
// when all images are found.
std::uint64_t Checkpointer::writes_expected() const {
    if (phase_ == Phase::kCollect) return images_expected();
    const std::uint64_t metadata = touched_.size() + touched_groups_.size();
    return direct_runs_ + journaled_.size() / kTransferPages + journal_runs_ + metadata + 1;
}

double Checkpointer::progress() const {
    const std::uint64_t done = images_written_ + kWriteCost * writes_done_;
    const std::uint64_t all = images_expected() + kWriteCost * writes_expected();
    return std::min(static_cast<double>(done) / static_cast<double>(all), 1.0);
}

// False: not now, the slice is used up. A step begins when anything is left, so that each slice
// does something.
bool Checkpointer::spend(std::uint32_t work) {
    if (slice_.work == 0) return false;
    slice_.work -= std::min(slice_.work, work);
    return true;
}

// The images of C: every page allocated at C with a version in (last C, C], also when it changed
// since; and the chunks whose metadata changes with them. Found in the order of pages.
bool Checkpointer::collect() {
    const auto words = chunks_ * (kChunkPages / 64);
    std::uint32_t looked = 0;
    while (word_ == 0 && cursor_ < words && looked < kWordsPerUnit) {
        word_ = pool_.taken(static_cast<std::uint32_t>(cursor_++));
        ++looked;
    }
    for (std::uint32_t taken = 0; word_ != 0 && taken < kPagesPerUnit; ++taken) {
        const auto bit = static_cast<std::uint32_t>(std::countr_zero(word_));
        word_ &= word_ - 1;
        take(PageId{static_cast<std::uint32_t>((cursor_ - 1) * 64 + bit)});
    }
    if (word_ == 0 && cursor_ >= words) collected();
    return true;
}

void Checkpointer::take(PageId page) {
    const std::byte* version = pool_.version_at(page, target_.csn);
    if (version == nullptr || pool_.version_csn(page, target_.csn) <= covered_) return;
    enter_chunk(chunk_of(page));
    const std::uint32_t index = page.value % kChunkPages;
    const bool in_bitmap = (meta_bitmap(chunk_meta_)[index / 64] >> (index % 64)) & 1;
    if (Space::fixed(page) || !in_bitmap) return;
    const bool extent = space_.is_extent(page);
    CHECK(!(extent && space_.known(page)));  // written once per allocation
    const bool known = space_.known(page);
    std::vector<Image>& images = known ? journaled_ : direct_;
    const bool neighbour = !images.empty() && images.back().page + 1 == page.value;
    (known ? journal_runs_ : direct_runs_) += neighbour ? 0 : 1;
    images.push_back({page.value, 0, version, 0, extent});
}

void Checkpointer::enter_chunk(std::uint32_t chunk) {
    if (!touched_.empty() && touched_.back() == chunk) return;
    touched_.push_back(chunk);
    chunk_meta_ = pool_.version_at(meta_page(chunk), target_.csn);
    if (touched_groups_.empty() || touched_groups_.back() != group_of(chunk)) {
        touched_groups_.push_back(group_of(chunk));
    }
}

void Checkpointer::collected() {
    journal_data_ = journaled_.size();
    journal_images_ = journal_data_ + touched_.size() + touched_groups_.size();
    if (Status longer = lengthen_journal(); !longer) {
        failure_ = "checkpoint: its " + std::to_string(journal_images_) +
                   " pages need a longer journal, of " + std::to_string(journal_capacity()) + ": " +
                   longer.failure().what;
        return;
    }
    totals_.pages += direct_.size() + journaled_.size();
    enter(Phase::kDirect);
}

// Writers are held before there are that many. But leaves that were dropped, merged or moved since
// the last checkpoint, without a record, are back in replay, and a batch may change each of them.
// Until this checkpoint is named nobody needs the journal, and its name says how long it is.
Status Checkpointer::lengthen_journal() {
    if (journal_images_ <= journal_capacity()) return {};
    const std::uint64_t bytes =
        (journal_header_blocks(journal_images_) + journal_images_) * kPageBytes;
    if (Status longer = disk_.resize(StoreFile::kJournal, bytes); !longer) return longer;
    superblock_.journal_bytes = bytes;
    list_ = AlignedBuffer(journal_header_blocks(journal_images_) * kBlockBytes);
    journaled_.reserve(journal_images_);
    return {};
}

void Checkpointer::enter(Phase phase) {
    phase_ = phase;
    cursor_ = 0;
}

std::uint32_t Checkpointer::recipe_step() const {
    if (phase_ == Phase::kIdle) return 0;
    if (phase_ < Phase::kJournal) return 1;
    if (phase_ < Phase::kName) return 2;
    if (phase_ < Phase::kPlaces) return 3;
    return phase_ < Phase::kClose ? 4 : 5;
}

bool Checkpointer::pump(const CheckpointSlice& slice) {
    slice_ = slice;
    bool worked = false;
    while (running() && failure_.empty() && step()) worked = true;
    return worked;
}

// One move of the machine; false when it has to wait for the disk or for its next slice.
bool Checkpointer::step() {
    switch (phase_) {
        case Phase::kIdle:
            return false;
        case Phase::kCollect:
            return spend(1) && collect();
        case Phase::kDirect:
            if (cursor_ < direct_.size()) return submit_images(direct_, StoreFile::kData, true);
            if (in_flight_ > 0) return false;
            enter(Phase::kDirectSync);
            // A file that Growth::extend() made longer is so for good only with this sync.
            // So are the places that loads and moved extents were written to.
            if (direct_.empty() && chunks_ == superblock_.chunk_count && !unsynced_) return true;
            submit_sync(StoreFile::kData);
            return true;
        case Phase::kDirectSync:
            if (in_flight_ > 0) return false;
            enter(Phase::kJournal);
            return true;
        case Phase::kJournal:
            if (cursor_ < journal_data_) {
                return submit_images(journaled_, StoreFile::kJournal, false);
            }
            enter(Phase::kCompose);
            return true;
        case Phase::kCompose:
            return spend(kComposeWork) && compose();
        case Phase::kJournalRest:
            if (cursor_ < journaled_.size()) {
                return submit_images(journaled_, StoreFile::kJournal, false);
            }
            if (in_flight_ > 0) return false;
            enter(Phase::kJournalList);
            return true;
        case Phase::kJournalList:
            return spend(1) && make_list();
        case Phase::kJournalHeader:
            if (in_flight_ > 0) return false;
            if (cursor_ < journal_header_blocks(journaled_.size())) return submit_list();
            enter(Phase::kJournalSync);
            submit_sync(StoreFile::kJournal);
            return true;
        case Phase::kJournalSync:
            if (in_flight_ > 0 || !slice_.may_name) return false;
            enter(Phase::kName);
            submit_superblock();
            return true;
        case Phase::kName:
            if (in_flight_ > 0) return false;
            enter(Phase::kPlaces);
            return true;
        case Phase::kPlaces:
            if (cursor_ < journaled_.size()) {
                return submit_images(journaled_, StoreFile::kData, true);
            }
            if (in_flight_ > 0) return false;
            enter(Phase::kPlacesSync);
            submit_sync(StoreFile::kData);
            return true;
        case Phase::kPlacesSync:
            if (in_flight_ > 0 || !slice_.may_name) return false;
            enter(Phase::kClose);
            submit_superblock();
            return true;
        case Phase::kClose:
            if (in_flight_ > 0) return false;
            enter(Phase::kSettle);
            return true;
        case Phase::kSettle:
            return spend(1) && settle();
    }
    return false;
}

Checkpointer::Transfer* Checkpointer::idle_transfer() {
    for (auto& transfer : transfers_) {
        if (!transfer->request.in_flight) return transfer.get();
    }
    return nullptr;
}

// Of its copy. What went through the journal was summed up there; no page of an extent does.
void Checkpointer::sum_up(Image& image, std::byte* page) const {
    if (phase_ == Phase::kPlaces) {
        page_header(page).crc = image.crc;
        return;
    }
    if (!image.extent) seal_page(page);
    image.crc = image.extent ? crc32c(page, kPageBytes) : page_header(page).crc;
    if (!image.extent) image.newest = Space::newest_in(page);
}

// Copies the next run of images into a transfer, seals them and writes them: to their places (a run
// is then one of neighbours), or one behind the other into the journal.
bool Checkpointer::submit_images(std::vector<Image>& images, StoreFile file, bool in_place) {
    if (slice_.work == 0 || in_flight_ >= slice_.writes_in_flight) return false;
    Transfer* transfer = idle_transfer();
    if (transfer == nullptr) return false;
    const std::size_t first = cursor_;
    std::uint32_t count = 0;
    // The journal's data images stand before those that are composed from their CRCs.
    const std::size_t end = phase_ == Phase::kJournal ? journal_data_ : images.size();
    while (cursor_ < end && count < kTransferPages) {
        Image& image = images[cursor_];
        if (in_place && count > 0 && image.page != images[cursor_ - 1].page + 1) break;
        if (!spend(1)) break;
        std::byte* page = transfer->buffer.data() + std::size_t{count} * kPageBytes;
        std::memcpy(page, image.source, kPageBytes);
        sum_up(image, page);
        ++cursor_;
        ++count;
    }
    DiskRequest& request = transfer->request;
    request.kind = DiskRequest::Kind::kWrite;
    request.file = file;
    request.buffer = transfer->buffer.data();
    request.length_bytes = count * static_cast<std::uint32_t>(kPageBytes);
    const std::uint64_t journal_block = journal_header_blocks(journal_images_) + first;
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
    if (request.kind == DiskRequest::Kind::kWrite && &request != &single_) {
        images_written_ += request.length_bytes / kPageBytes;
        ++writes_done_;
    }
    if (request.result >= 0) return;
    if (!failure_.empty()) return;
    failure_ = "checkpoint: " + io_failure(disk_, request).what;
}

std::byte* Checkpointer::composed_page(PageId page, PageType type) {
    if (composed_count_ == composed_.size()) composed_.emplace_back(kPageBytes);
    std::byte* bytes = composed_[composed_count_++].data();
    PageHeader& header = page_header(bytes);
    VersionWriter::fill(bytes, target_.csn.value, nullptr);
    header.page_id = page.value;
    header.type = type;
    std::memcpy(&header.file_uuid, superblock_.file_uuid, sizeof header.file_uuid);
    return bytes;
}

// Metadata images of touched chunks: the bitmap of C, and the CRCs that the file will have then;
// and the directory above them. A page in each step.
bool Checkpointer::compose() {
    if (cursor_ < touched_.size()) {
        compose_chunk(touched_[cursor_++]);
        return true;
    }
    const std::size_t group = cursor_++ - touched_.size();
    if (group < touched_groups_.size()) {
        compose_directory(touched_groups_[group]);
        return true;
    }
    directory_.page_crcs.resize(groups_of(chunks_));  // fewer after a cut
    std::uint32_t crc = 0;
    for (const std::uint32_t page : directory_.page_crcs) crc = crc32c(&page, sizeof page, crc);
    directory_root_ = crc;
    direct_cursor_ = 0;
    journal_cursor_ = 0;
    enter(Phase::kJournalRest);
    cursor_ = journal_data_;
    return true;
}

// The image of the page, if this checkpoint has one. Asked in the order of pages.
const Checkpointer::Image* Checkpointer::image_of(PageId page) {
    while (direct_cursor_ < direct_.size() && direct_[direct_cursor_].page < page.value) {
        ++direct_cursor_;
    }
    while (journal_cursor_ < journal_data_ && journaled_[journal_cursor_].page < page.value) {
        ++journal_cursor_;
    }
    if (direct_cursor_ < direct_.size() && direct_[direct_cursor_].page == page.value) {
        return &direct_[direct_cursor_];
    }
    const bool here =
        journal_cursor_ < journal_data_ && journaled_[journal_cursor_].page == page.value;
    return here ? &journaled_[journal_cursor_] : nullptr;
}

void Checkpointer::compose_chunk(std::uint32_t chunk) {
    std::byte* bytes = composed_page(meta_page(chunk), PageType::kMeta);
    ChunkMeta meta{};
    const std::byte* version = pool_.version_at(meta_page(chunk), target_.csn);
    std::memcpy(meta.used, meta_bitmap(version), sizeof meta.used);
    std::memcpy(meta.extent, chunk_meta(version).extent, sizeof meta.extent);
    std::memcpy(meta.extent_owner, chunk_meta(version).extent_owner, sizeof meta.extent_owner);
    const ExtentMap extents(meta);
    std::uint32_t used_count = 0;
    std::array<std::uint32_t, kChunkPages> newest{};
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{chunk * kChunkPages + i};
        if (!((meta.used[i / 64] >> (i % 64)) & 1)) continue;
        ++used_count;
        const Image* image = image_of(page);
        meta.page_crc[i] = image != nullptr ? image->crc : space_.known_crc(page);
        if (Space::fixed(page)) continue;
        if (extents.in_extent(i)) {
            if (!extents.first_of_run(i)) continue;
            space_.lower_time(page);
            newest[i] = space_.extent_newest(page);
            continue;
        }
        newest[i] = image != nullptr ? image->newest : space_.newest_known(page);
    }
    Space::encode_newest(newest.data(), meta);
    std::memcpy(bytes + kPageHeaderBytes, &meta, sizeof meta);
    seal_page(bytes);
    directory_.entries.resize(chunks_);  // more, or after a cut fewer
    directory_.entries[chunk] = {page_header(bytes).crc, kChunkPages - used_count, meta.newest};
    journaled_.push_back({meta_page(chunk).value, 0, bytes, 0, false});
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
    journaled_.push_back({directory_page(group).value, 0, bytes, 0, false});
}

// The journal's list, some entries in each step, and its CRC with them; then all of it is written.
bool Checkpointer::make_list() {
    if (cursor_ == 0) {
        JournalHeader header{};
        header.magic = kJournalMagic;
        header.number = superblock_.journal_number + 1;
        std::memcpy(header.file_uuid, superblock_.file_uuid, sizeof header.file_uuid);
        header.checkpoint_csn = target_.csn.value;
        header.page_count = static_cast<std::uint32_t>(journaled_.size());
        std::memcpy(list_.data(), &header, sizeof header);
        journal_list_crc_ = crc32c(list_.data(), sizeof header);
    }
    std::byte* const from = list_.data() + sizeof(JournalHeader) + cursor_ * sizeof(JournalEntry);
    std::byte* entry = from;
    for (std::uint32_t i = 0; i < kEntriesPerUnit && cursor_ < journaled_.size(); ++i, ++cursor_) {
        const JournalEntry written{journaled_[cursor_].page, journaled_[cursor_].crc};
        std::memcpy(entry, &written, sizeof written);
        entry += sizeof written;
    }
    journal_list_crc_ = crc32c(from, static_cast<std::size_t>(entry - from), journal_list_crc_);
    if (cursor_ == journaled_.size()) end_list();
    return true;
}

void Checkpointer::end_list() {
    enter(Phase::kJournalHeader);
    const std::uint64_t bytes = journal_header_blocks(journaled_.size()) * kBlockBytes;
    const std::size_t used = sizeof(JournalHeader) + journaled_.size() * sizeof(JournalEntry);
    std::memset(list_.data() + used, 0, bytes - used);
    JournalHeader header{};
    std::memcpy(&header, list_.data(), sizeof header);
    header.list_crc = journal_list_crc_;
    std::memcpy(list_.data(), &header, sizeof header);
    totals_.journal_pages += journaled_.size();
}

// Header and list, a piece of some blocks at a time: as a whole they can be more than the disk
// takes in one request.
bool Checkpointer::submit_list() {
    const std::uint64_t left = journal_header_blocks(journaled_.size()) - cursor_;
    const std::uint64_t blocks = std::min<std::uint64_t>(left, kListBlocks);
    single_ = DiskRequest{};
    single_.kind = DiskRequest::Kind::kWrite;
    single_.file = StoreFile::kJournal;
    single_.offset_bytes = cursor_ * kBlockBytes;
    single_.length_bytes = static_cast<std::uint32_t>(blocks * kBlockBytes);
    single_.buffer = list_.data() + single_.offset_bytes;
    cursor_ += blocks;
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
    writer_.write(superblock_, [this](const Status& written) {
        --in_flight_;
        if (written) log_start_ = superblock_.log_position;
        if (!written) failure_ = "checkpoint: superblock: " + written.failure().what;
    });
}

// Step 5 is done: space learns what the file holds now, chunks first, and the pool which pages are
// as in the file. Neither makes use of it before finish(): no page that this checkpoint took is
// evicted, and none that it made free is given out.
bool Checkpointer::settle() {
    if (cursor_ < touched_.size()) {
        // The first composed pages are the metadata of touched chunks, one by one.
        space_.settle_chunk(touched_[cursor_], meta_bitmap(composed_[cursor_].data()));
        ++cursor_;
        return true;
    }
    std::size_t next = cursor_ - touched_.size();
    const std::size_t images = direct_.size() + journal_data_;
    for (std::uint32_t i = 0; i < kSettledPerUnit && next < images; ++i, ++next, ++cursor_) {
        const Image& image =
            next < direct_.size() ? direct_[next] : journaled_[next - direct_.size()];
        space_.settle_page(PageId{image.page}, image.crc, image.newest);
    }
    if (next < images) return true;
    const auto first = static_cast<std::uint32_t>(next - images);
    const std::uint32_t words = std::min(kWordsPerUnit, pool_.page_words() - first);
    pool_.settle(first, words);
    cursor_ += words;
    if (first + words == pool_.page_words()) finish();
    return true;
}

void Checkpointer::finish() {
    space_.end_checkpoint();
    covered_ = target_.csn;
    ++totals_.finished;
    direct_.clear();
    journaled_.clear();
    touched_.clear();
    touched_groups_.clear();
    composed_count_ = 0;
    journal_data_ = 0;
    journal_images_ = 0;
    phase_ = Phase::kIdle;
}

}  // namespace bidstore
