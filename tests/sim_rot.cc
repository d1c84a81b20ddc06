#include "tests/sim_rot.h"

#include <algorithm>
#include <cctype>

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

SimRot::SimRot(const std::vector<SimFaults::Flip>& flips, const SimDisk& rotten,
               const SimDisk& sound) {
    for (const SimFaults::Flip& flip : flips) {
        Place place;
        place.file = flip.file;
        place.sector_bytes = flip.offset_bytes / kSectorBytes * kSectorBytes;
        place.rotten = rotten.peek(flip.file, place.sector_bytes, kSectorBytes);
        if (place.rotten == sound.peek(flip.file, place.sector_bytes, kSectorBytes)) continue;
        place.sound_page =
            sound.peek(flip.file, std::uint64_t{place.page()} * kPageBytes, kPageBytes);
        places_.push_back(std::move(place));
    }
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

std::string SimRot::fault_of_refusal(const std::string& what, SimLife& sound,
                                     std::uint64_t batches) const {
    if (places_.empty()) return "files without rot are refused: " + what;
    if (!is_named(what)) return "nothing that is rotten is named by the refusal: " + what;
    const bool needless = batches == 0 && std::ranges::all_of(places_, [&](const Place& place) {
                              return is_leaf_of_user(place, sound);
                          });
    return needless ? "refused for a leaf that no start needs: " + what : "";
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
