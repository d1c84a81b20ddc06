#include "tests/snapshot_view.h"

#include "shm/page_map.h"

namespace bidstore {

SeenPage see_page(const PoolView& pool, SlotOwner& slot, PageId page) {
    const PageVersion version = version_at(pool, slot, page);
    switch (version.lookup) {
        case PageLookup::kFound:
            return {SeenPage::State::kFound, version.page};
        case PageLookup::kAbsent:
            return {SeenPage::State::kAbsent, nullptr};
        case PageLookup::kNoVersion:
            return {SeenPage::State::kNoVersion, nullptr};
        case PageLookup::kExpired:
            break;
    }
    return {SeenPage::State::kExpired, nullptr};
}

}  // namespace bidstore
