#include "tests/sim_rest.h"

#include <algorithm>
#include <utility>

#include "shm/stats.h"
#include "tests/load_fixture.h"

namespace bidstore {
namespace {

constexpr int kPacesMax = 600;
constexpr std::uint64_t kPaceNs = 500'000'000;
constexpr int kRoundsOfPace = 30;  // in which little time passes, for what came due with it

struct Stays {
    void add(std::uint64_t count, const char* what) {
        if (count == 0) return;
        if (kinds++ > 0) text += ", ";
        text += std::to_string(count) + ' ' + what;
    }
    int kinds = 0;
    std::string text;
};

// Pages that the newest bitmaps do not have and that nobody can have either. Those of a chunk that
// gave its blocks back are nobody's before it is filled.
std::uint64_t lost_pages(Storage& storage) {
    std::uint64_t lost = 0;
    for (std::uint32_t chunk = 0; chunk < storage.space.chunk_count(); ++chunk) {
        if (storage.space.punched(chunk)) continue;
        const std::uint64_t* bits = meta_bitmap(storage.pool.newest_of(meta_page(chunk)));
        std::uint64_t unused = 0;
        for (std::uint32_t i = 0; i < kChunkPages / 64; ++i) {
            unused += static_cast<std::uint64_t>(__builtin_popcountll(~bits[i]));
        }
        // More than there are, or fewer: neither may be.
        const std::uint64_t available = storage.space.available_in(chunk);
        lost += std::max(unused, available) - std::min(unused, available);
    }
    return lost;
}

std::uint64_t extents_of_nobody(Storage& storage) {
    std::uint64_t count = 0;
    for (std::uint32_t chunk = 0; chunk < storage.space.chunk_count(); ++chunk) {
        for (const TableId owner : storage.space.extent_owners(chunk)) {
            count += storage.catalog->find_with_pages(owner) == nullptr;
        }
    }
    return count;
}

// Loading, copied ahead, unpublished or retired.
std::uint64_t lost_frames(const Pool& pool) {
    std::uint64_t used = pool.free_frames();
    for (std::uint32_t page = 0; page < pool.page_count(); ++page) {
        used += pool.resident(PageId{page});
    }
    const std::uint64_t all = pool.frame_count();
    return std::max(all, used) - std::min(all, used);
}

// One that failed waits for the next step of its client, if there is one.
std::uint64_t loads_not_forgotten(Engine::Core& core) {
    return static_cast<std::uint64_t>(std::ranges::count_if(core.loads(), [&](const auto& load) {
        return load->state() != BulkLoad::State::kFailed || load->abandoned() ||
               !core.port().attached(load->client_id());
    }));
}

Stays what_stays(SimStore& store) {
    Engine::Core& core = store.engine->core();
    Storage& storage = core.storage();
    const Space& space = storage.space;
    const Pool& pool = storage.pool;
    const auto counted = [&](Counter which) { return counter_value(store.pool->stats(), which); };
    Stays stays;
    stays.add(unfinished_tables(store), "tables hidden or dropped");
    stays.add(loads_not_forgotten(core), "loads");
    stays.add(core.pages_to_come(), "sweep over what these had in extents");
    stays.add(counted(Counter::kTablesDropping), "in the counter of dropped tables");
    stays.add(space.quarantined(), "pages in quarantine");
    stays.add(space.closed_chunks(), "chunks closed");
    stays.add(!core.extent_move_is_over(), "large value on its way");
    stays.add(!space.growth().idle(), "growth");
    stays.add(!core.commit().quiet(), "batch unpublished");
    stays.add(pool.retired(), "versions kept");
    stays.add(core.page_waits().open(), "page requests open");
    stays.add(storage.loader.loading() + storage.loader.waits_for_frames(), "pages on their way");
    stays.add(counted(Counter::kParkedTransactions), "requests parked");
    const std::uint64_t clients = core.port().client_count();
    const std::uint64_t sessions = counted(Counter::kSessions);
    stays.add(sessions - std::min(sessions, clients), "sessions in memory without a client");
    stays.add(!core.port().scan().empty(), "snapshots that count");
    stays.add(extents_of_nobody(storage), "owners of extents without a table");
    stays.add(lost_pages(storage), "pages neither in use nor available");
    stays.add(lost_frames(pool), "frames neither free nor with a page");
    return stays;
}

}  // namespace

// What is due now and then (a floor, a checkpoint behind it) is there at one moment and not at the
// next: the moment with the fewest tells.
std::string come_to_rest(SimStore& store) {
    Stays fewest;
    for (int i = 0; i < kPacesMax * kRoundsOfPace; ++i) {
        Stays stays = what_stays(store);
        if (stays.kinds == 0) return {};
        if (i == 0 || stays.kinds <= fewest.kinds) fewest = std::move(stays);
        if (i % kRoundsOfPace == 0) store.clock.advance_ns(kPaceNs);
        const EngineRound round = store.round();
        if (round == EngineRound::kFenced) return "fenced: " + store.engine->fence_reason();
        if (round == EngineRound::kStopped) return "stopped";
    }
    return fewest.text;
}

}  // namespace bidstore
