// A client's walk from a page id to the version that a snapshot sees, as a call, for tests of the
// engine.
//
// Who: tests, for the slots of SimClients.
#pragma once

#include <cstdint>

#include "shm/reader_slot.h"
#include "shm/segment.h"

namespace bidstore {

struct SeenPage {
    enum class State : std::uint8_t {
        kFound,
        kAbsent,     // not in the pool: ask for it
        kNoVersion,  // none at or below the snapshot, or no such page id
        kExpired,    // the lease is gone
    };
    State state = State::kAbsent;
    const std::byte* page = nullptr;  // kFound: kPageBytes
};

// What version_at() of shm/page_map.h says.
SeenPage see_page(const PoolView& pool, SlotOwner& slot, PageId page);

}  // namespace bidstore
