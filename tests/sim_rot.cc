#include "tests/sim_rot.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <set>

#include "engine/format.h"
#include "engine/page/catalog_schema.h"

namespace bidstore {
namespace {

// "page 12" is in "page 12: ...", not in "page 123".
bool names(const std::string& text, const std::string& what) {
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
        const std::size_t end = at + what.size();
        if (end == text.size() || std::isdigit(static_cast<unsigned char>(text[end])) == 0) {
            return true;
        }
    }
    return false;
}

}  // namespace

SimRot::SimRot(const SimDisk& rotten, const SimDisk& sound) {
    for (const auto& [file, sector] : rotten.differences(sound)) {
        Place place;
        place.file = file;
        place.sector_bytes = sector * kSectorBytes;
        place.rotten = rotten.peek(file, place.sector_bytes, kSectorBytes);
        place.sound_page = sound.peek(file, std::uint64_t{place.page()} * kPageBytes, kPageBytes);
        places_.push_back(std::move(place));
    }
}

std::uint32_t SimRot::log_blocks() const {
    std::set<std::uint32_t> blocks;
    for (const Place& place : places_) {
        if (place.file == StoreFile::kLog) blocks.insert(place.page());
    }
    return static_cast<std::uint32_t>(blocks.size());
}

bool SimRot::is_named(const std::string& what) const {
    return std::any_of(places_.begin(), places_.end(), [&](const Place& place) {
        if (names(what, std::string("sim:/") + store_file_name(place.file))) return true;
        if (place.file != StoreFile::kData) return false;
        return names(what, "page " + std::to_string(place.page())) ||
               names(what, "chunk " + std::to_string(place.page() / kChunkPages));
    });
}

// A leaf that is no root, which nobody needs who does not ask for its rows.
bool SimRot::is_leaf_of_user(const Place& place, SimLife& sound) {
    const PageHeader& header = place.sound_header();
    if (place.file != StoreFile::kData || header.page_id != place.page()) return false;
    if (header.type != PageType::kLeaf || header.table_id < kFirstUserTable.value) return false;
    const auto is_root = [&](const TableEntry* table) {
        return table->tree.root() == PageId{place.page()};
    };
    Catalog& catalog = *sound.store.engine->core().storage().catalog;
    return std::ranges::none_of(catalog.all(), is_root) &&
           std::ranges::none_of(catalog.dropping(), is_root);
}

// What the checkpoint does not know, a journal that no superblock names, and what of the log is
// not replayed: a start has no business there.
bool SimRot::is_nobodys(const Place& place, SimLife& sound) {
    Storage& storage = sound.store.engine->core().storage();
    const Engine::Recovery& recovery = sound.store.engine->recovery();
    if (recovery.checkpoints > 0) return false;  // all of that is of another one than was found
    switch (place.file) {
        case StoreFile::kData: {
            const PageId page{place.page()};
            return chunk_of(page) >= storage.space.chunk_count() || !storage.space.known(page);
        }
        case StoreFile::kJournal:
            return recovery.journal_pages == 0;
        default: {
            const LogShape shape = sound.store.engine->core().commit().wal().shape();
            const std::uint64_t from = storage.superblock.log_position;
            const std::uint64_t ring_bytes = shape.ring_bytes();
            const std::uint64_t behind =
                (place.sector_bytes + ring_bytes - shape.offset(from)) % ring_bytes;
            return place.sector_bytes >= ring_bytes || behind >= sound.log_began - from;
        }
    }
}

std::string SimRot::fault_of_refusal(const SimLife& refused, SimLife& sound) const {
    const std::string& what = refused.status().failure().what;
    if (places_.empty()) return "files without damage are refused: " + what;
    if (const std::string fault = fault_of_error(refused); !fault.empty()) return fault;
    if (!is_named(what)) return "nothing that is damaged is named by the refusal: " + what;
    const bool replays = sound.store.engine->recovery().batches > 0;
    const bool needless = std::ranges::all_of(places_, [&](const Place& place) {
        return is_nobodys(place, sound) || (!replays && is_leaf_of_user(place, sound));
    });
    return needless ? "refused for what no start needs: " + what : "";
}

// Damage is called so, or the device's; files whose superblocks are overwritten are anybody's.
std::string SimRot::fault_of_error(const SimLife& refused) {
    const auto& [error, what] = refused.status().failure();
    const auto is_superblock = [&](std::uint64_t copy) {
        Superblock superblock{};
        const auto bytes =
            refused.store.disk->peek(StoreFile::kData, copy * kPageBytes, sizeof superblock);
        std::memcpy(&superblock, bytes.data(), sizeof superblock);
        return superblock.magic == kSuperblockMagic;
    };
    const bool anybodys = error == Error::kNotBidstore && !is_superblock(0) && !is_superblock(1);
    if (error != Error::kCorruption && error != Error::kIoError && !anybodys) {
        return "damaged files are refused with " + std::string(error_name(error)) + ": " + what;
    }
    const bool names_one = what.find("sim:/") != std::string::npos ||
                           what.find("page ") != std::string::npos ||
                           what.find("chunk ") != std::string::npos;
    return names_one ? "" : "a refusal names nothing: " + what;
}

std::uint32_t SimRot::page_in_use(SimLife& opened) const {
    Storage& storage = opened.store.engine->core().storage();
    for (const Place& place : places_) {
        const PageId page{place.page()};
        const PageType type = place.sound_header().type;
        const bool of_tree = place.file == StoreFile::kData &&
                             (type == PageType::kLeaf || type == PageType::kInner) &&
                             place.sound_header().page_id == page.value;
        if (!of_tree || chunk_of(page) >= storage.space.chunk_count()) continue;
        if (!storage.space.allocated(page) || storage.space.is_extent(page)) continue;
        if (storage.pool.resident(page)) continue;
        const bool still = opened.store.disk->peek(StoreFile::kData, place.sector_bytes,
                                                   kSectorBytes) == place.rotten;
        if (still) return page.value;
    }
    return 0;
}

}  // namespace bidstore
