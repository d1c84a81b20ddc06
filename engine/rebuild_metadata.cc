// A rebuild's metadata: bitmaps, remembered checksums, times and extents of each chunk, from the
// trees; and the directory above them. What is right already stays.
#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/extent_map.h"
#include "engine/rebuild_plan.h"
#include "engine/space.h"
#include "engine/verify.h"
#include "shm/version_writer.h"

namespace bidstore {
namespace {

void set_used(ChunkMeta& meta, std::uint32_t index, bool used) {
    const std::uint64_t mask = std::uint64_t{1} << (index % 64);
    meta.used[index / 64] = used ? meta.used[index / 64] | mask : meta.used[index / 64] & ~mask;
}

}  // namespace

void RebuildPlan::compose_metadata() {
    for (auto& [page, bytes] : images_) seal_page(bytes.data());
    ChunkDirectory directory = survey_.directory();
    std::vector<bool> touched(directory.page_crcs.size());
    for (std::uint32_t group = 0; group < touched.size(); ++group) {
        touched[group] = !survey_.directory_faults()[group].empty();
    }
    for (std::uint32_t chunk = 0; chunk < survey_.chunk_count(); ++chunk) {
        const std::uint32_t group = chunk / kDirectoryChunks;
        DirectoryEntry entry = directory.entries[chunk];
        const bool changed = compose_chunk(chunk, entry);
        if (changed || touched[group]) directory.entries[chunk] = entry;
        touched[group] = touched[group] || changed;
    }
    std::uint32_t root = 0;
    for (std::uint32_t group = 0; group < touched.size(); ++group) {
        if (touched[group]) {
            DirectoryPage content{};
            const std::size_t first = std::size_t{group} * kDirectoryChunks;
            const std::size_t last =
                std::min<std::size_t>(first + kDirectoryChunks, directory.entries.size());
            std::copy(directory.entries.begin() + static_cast<std::ptrdiff_t>(first),
                      directory.entries.begin() + static_cast<std::ptrdiff_t>(last), content.entry);
            compose_page(directory_page(group), PageType::kDirectory, &content);
            directory.page_crcs[group] =
                page_header(images_.at(directory_page(group).value).data()).crc;
        }
        root = crc32c(&directory.page_crcs[group], sizeof(std::uint32_t), root);
    }
    directory_crc_ = root;
}

void RebuildPlan::compose_page(PageId page, PageType type, const void* content) {
    std::byte* const bytes = image(page);
    PageHeader& header = page_header(bytes);
    VersionWriter::stamp(bytes, superblock_.checkpoint_csn);
    header.page_id = page.value;
    header.type = type;
    header.file_uuid = survey_.file_uuid();
    std::memcpy(bytes + kPageHeaderBytes, content, kPayloadBytes);
    seal_page(bytes);
}

// Whether they are other ones than before. `entry`: the directory's, which is known then, and when
// the metadata page stays.
bool RebuildPlan::compose_chunk(std::uint32_t chunk, DirectoryEntry& entry) {
    const ChunkFact& known = survey_.chunk(chunk);
    ChunkMeta meta = known.meta;
    std::vector<std::uint32_t> newest(kChunkPages, 0);
    if (known.whole()) Space::decode_newest(meta, newest.data());
    bool changed = !known.whole();
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        changed |= settle_page(PageId{chunk * kChunkPages + i}, meta, newest.data());
    }
    if (known.whole()) {
        changed |= free_runs(chunk, meta, newest.data());
    } else {
        add_runs(chunk, meta, newest.data());
    }
    std::uint32_t used = 0;
    for (const std::uint64_t word : meta.used)
        used += static_cast<std::uint32_t>(std::popcount(word));
    if (!changed) {
        entry = {known.crc, kChunkPages - used, meta.newest};
        return false;
    }
    const ExtentMap extents(meta);
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const bool in_use = (meta.used[i / 64] >> (i % 64)) & 1;
        const bool goes_on = extents.in_extent(i) && !extents.first_of_run(i);
        if (!in_use || goes_on || Space::fixed(PageId{chunk * kChunkPages + i})) newest[i] = 0;
    }
    Space::encode_newest(newest.data(), meta);
    compose_page(meta_page(chunk), PageType::kMeta, &meta);
    entry = {page_header(images_.at(meta_page(chunk).value).data()).crc, kChunkPages - used,
             meta.newest};
    return true;
}

// A page of a tree, or none; and pages of extents in chunks whose metadata are lost.
bool RebuildPlan::settle_page(PageId page, ChunkMeta& meta, std::uint32_t* newest) const {
    const PageFact& fact = survey_.fact(page);
    const std::uint32_t index = page.value % kChunkPages;
    const bool owned = owner_[page.value] != 0;
    if (Space::fixed(page)) {
        set_used(meta, index, true);
        return false;
    }
    if (fact.extent) return false;
    std::uint32_t crc = owned ? fact.crc : 0;
    std::uint32_t time = owned ? fact.newest : 0;
    const auto image = images_.find(page.value);
    if (image != images_.end()) {
        crc = page_header(image->second.data()).crc;
        time = Space::newest_in(image->second.data());
    } else if (const auto extent = extent_crc_.find(page.value);
               owned && extent != extent_crc_.end()) {
        crc = extent->second;
        time = 0;
    }
    const bool same =
        fact.in_use == owned && meta.page_crc[index] == crc && (!owned || newest[index] >= time);
    if (same) return false;
    set_used(meta, index, owned);
    meta.page_crc[index] = crc;
    newest[index] = time;
    return true;
}

// Runs that no row has and that nobody will free; and times that are too old.
bool RebuildPlan::free_runs(std::uint32_t chunk, ChunkMeta& meta, std::uint32_t* newest) {
    bool changed = false;
    const ExtentMap map(meta);
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        if (!map.first_of_run(i)) continue;
        const std::uint32_t first = chunk * kChunkPages + i;
        if (owner_[first] != 0) {
            const std::uint32_t row = row_newest_.at(first);
            if (newest[i] >= row) continue;
            tell(RebuildNote::Kind::kRestored,
                 "large value at page " + std::to_string(first) +
                     ": its chunk says that it is older than its row",
                 "it has its row's time");
            newest[i] = row;
            changed = true;
            continue;
        }
        const bool told = lost_tables_.contains(map.owner(i).value);  // with its table
        if (!told && expiring(map.owner(i), newest[i])) continue;
        changed = true;
        const std::uint32_t pages = map.run_pages(i);
        if (!told) {
            tell(RebuildNote::Kind::kFreed,
                 "page " + std::to_string(first) + " begins a large value, but no row has it",
                 "free again");
        }
        ExtentMapEdit(meta).give_back(i);
        for (std::uint32_t page = i; page < i + pages; ++page) {
            set_used(meta, page, false);
            meta.page_crc[page] = 0;
        }
    }
    return changed;
}

void RebuildPlan::add_runs(std::uint32_t chunk, ChunkMeta& meta, std::uint32_t* newest) const {
    const auto runs = new_runs_.find(chunk);
    if (runs == new_runs_.end()) return;
    for (const NewRun& run : runs->second) {
        ExtentMapEdit(meta).take(run.table, run.first % kChunkPages, run.pages);
        newest[run.first % kChunkPages] = run.newest;
    }
}

// Whether retention, or the table's drop, will free the run that no row has (engine/verify.cc).
bool RebuildPlan::expiring(TableId table, std::uint32_t newest) const {
    const auto owner = tables_.find(table.value);
    if (owner == tables_.end() || owner->second.dropped) return true;
    const auto& tree = *owner->second.tree;
    return extent_may_be_dead(tree.schema(), newest, tree.floor());
}

}  // namespace bidstore
