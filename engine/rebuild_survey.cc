#include "engine/rebuild_survey.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "engine/extent_map.h"
#include "engine/space.h"
#include "shm/version_writer.h"

namespace bidstore {

Survey::Survey(Disk& disk, Clock& clock, const Superblock& superblock)
    : superblock_(superblock),
      io_(disk, clock),
      chunks_(superblock.chunk_count),
      pages_(std::size_t{superblock.chunk_count} * kChunkPages) {
    std::memcpy(&uuid_, superblock.file_uuid, sizeof uuid_);
}

void Survey::run(const Progress& progress) {
    read_directory();
    for (std::uint32_t chunk = 0; chunk < chunk_count(); ++chunk) {
        read_metadata(chunk);
        read_chunk(chunk);
        if (progress) progress((chunk + std::uint64_t{1}) * kChunkPages);
    }
}

std::string Survey::fault_of(PageId page, PageType type, std::byte* bytes) {
    const Status there = read(page, bytes, kPageBytes);
    if (!there) return there.failure().what;
    const char* fault = page_fault(bytes, page, uuid_, Csn{superblock_.checkpoint_csn});
    if (fault != nullptr) return fault;
    return page_header(bytes).type == type ? "" : "it is a page of another type";
}

// When all its pages are whole, but not those that the superblock knows, nobody can say which of
// them are old: none is believed.
void Survey::read_directory() {
    const std::uint32_t groups = (chunk_count() + kDirectoryChunks - 1) / kDirectoryChunks;
    std::uint32_t root = 0;
    bool whole = true;
    for (std::uint32_t group = 0; group < groups; ++group) {
        directory_faults_.push_back(
            fault_of(directory_page(group), PageType::kDirectory, copy_.data()));
        whole = whole && directory_faults_.back().empty();
        const std::uint32_t crc = page_header(std::as_const(copy_).data()).crc;
        root = crc32c(&crc, sizeof crc, root);
        directory_.page_crcs.push_back(crc);
        DirectoryPage content{};
        std::memcpy(&content, copy_.data() + kPageHeaderBytes, sizeof content);
        directory_.entries.insert(directory_.entries.end(), std::begin(content.entry),
                                  std::end(content.entry));
    }
    directory_.entries.resize(chunk_count());
    if (!whole || root == superblock_.directory_crc) return;
    std::fill(directory_faults_.begin(), directory_faults_.end(),
              "it is not the one of the last checkpoint, or another page of the directory is not");
}

void Survey::read_metadata(std::uint32_t chunk) {
    ChunkFact& found = chunks_[chunk];
    found.fault = fault_of(meta_page(chunk), PageType::kMeta, copy_.data());
    const bool remembered = directory_faults_[chunk / kDirectoryChunks].empty();
    const std::uint32_t crc = page_header(std::as_const(copy_).data()).crc;
    if (found.whole() && remembered && crc != directory_.entries[chunk].meta_crc) {
        found.fault = "it is not the one of the last checkpoint";
    }
    found.crc = crc;
    ChunkMeta meta{};
    std::memcpy(&meta, copy_.data() + kPageHeaderBytes, sizeof meta);
    const char* nonsense = found.whole() ? Space::chunk_fault(chunk, meta) : nullptr;
    if (nonsense != nullptr) found.fault = nonsense;
    chunk_lost_ = chunk_lost_ || !found.whole();
    if (found.whole()) found.meta = meta;
}

// All of it at once; page by page where the device has lost some of it.
void Survey::read_chunk(std::uint32_t chunk) {
    const PageId first{chunk * kChunkPages};
    std::byte* const bytes = chunk_bytes_.data();
    const bool all = read(first, bytes, kChunkBytes).ok();
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        std::byte* const own = bytes + std::size_t{i} * kPageBytes;
        if (!all && !raw(PageId{first.value + i}, own)) std::memset(own, 0, kPageBytes);
    }
    if (chunks_[chunk].whole() && older_than_a_page(chunk)) {
        chunks_[chunk].meta = {};
        chunks_[chunk].fault = "it is older than a page of its chunk";
        chunk_lost_ = true;
    }
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{first.value + i};
        if (!Space::fixed(page)) look_at(page, bytes + std::size_t{i} * kPageBytes);
    }
}

// A checkpoint that writes a page in use writes its chunk's metadata with it. Metadata of an older
// one are found by the directory or, when that is lost or as old, by this.
bool Survey::older_than_a_page(std::uint32_t chunk) const {
    const std::byte* const bytes = chunk_bytes_.data();
    const ChunkFact& known = chunks_[chunk];
    const std::uint32_t at = meta_page(chunk).value % kChunkPages;
    const std::uint64_t csn = VersionWriter::csn_of(bytes + std::size_t{at} * kPageBytes);
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{chunk * kChunkPages + i};
        const std::byte* const own = bytes + std::size_t{i} * kPageBytes;
        const bool used = (known.meta.used[i / 64] >> (i % 64)) & 1;
        if (!used || Space::fixed(page) || ExtentMap(known.meta).in_extent(i)) continue;
        if (VersionWriter::csn_of(own) <= csn || page_header(own).crc == known.meta.page_crc[i]) {
            continue;
        }
        if (page_fault(own, page, uuid_, Csn{superblock_.checkpoint_csn}) == nullptr) return true;
    }
    return false;
}

void Survey::look_at(PageId page, const std::byte* bytes) {
    PageFact& fact = pages_[page.value];
    const ChunkFact& chunk = chunks_[chunk_of(page)];
    const std::uint32_t index = page.value % kChunkPages;
    if (chunk.whole()) {
        fact.in_use = (chunk.meta.used[index / 64] >> (index % 64)) & 1;
        fact.extent = ExtentMap(chunk.meta).in_extent(index);
        fact.crc = chunk.meta.page_crc[index];
        if (!fact.in_use) return;
    }
    if (fact.extent) {
        if (crc32c(bytes, kPageBytes) == fact.crc) fact.proof = Proof::kRemembered;
        return;
    }
    const PageHeader& header = page_header(bytes);
    const bool tree = header.type == PageType::kLeaf || header.type == PageType::kInner;
    if (!tree || page_fault(bytes, page, uuid_, Csn{superblock_.checkpoint_csn}) != nullptr) return;
    if (chunk.whole() && header.crc != fact.crc) return;
    fact.proof = chunk.whole() ? Proof::kRemembered : Proof::kOwnCrc;
    fact.crc = header.crc;
    fact.csn = VersionWriter::csn_of(bytes);
    fact.table = header.table_id;
    fact.type = header.type;
    fact.level = header.level;
    fact.newest = Space::newest_in(bytes);
}

Status Survey::read(PageId page, std::byte* to, std::uint64_t length_bytes) {
    Status there = io_.read(StoreFile::kData, page_offset_bytes(page), to, length_bytes);
    if (io_.stuck()) unread_ = there;
    return there;
}

bool Survey::raw(PageId page, std::byte* to) { return read(page, to, kPageBytes).ok(); }

const std::byte* Survey::page(PageId page) {
    if (page.value >= page_count() || fact(page).proof == Proof::kNothing) return nullptr;
    if (fact(page).extent) return nullptr;
    const Status there = read(page, copy_.data(), kPageBytes);
    const std::byte* const bytes = copy_.data();
    if (there && page_crc(bytes) == fact(page).crc) return bytes;
    not_again(page, there);
    return nullptr;
}

bool Survey::extent_page(PageId page, std::byte* to) {
    const Status there = read(page, to, kPageBytes);
    const PageFact& known = fact(page);
    const bool same = there && crc32c(to, kPageBytes) == known.crc;
    if (known.extent && known.proof != Proof::kNothing && !same) not_again(page, there);
    return there.ok();
}

void Survey::not_again(PageId page, const Status& there) {
    if (!unread_) return;
    unread_ = {Error::kIoError, "page " + std::to_string(page.value) +
                                    " was read, and cannot be read again: " +
                                    (there ? "its checksum is another one" : there.failure().what) +
                                    "; look at the device, and begin anew"};
}

}  // namespace bidstore
