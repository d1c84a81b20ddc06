#include "tests/sim_memory.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "shm/ring.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kFramesMade = 400;  // at least: any of the simulation's pools will do

void wipe(void* from, const void* end) {
    std::memset(from, 0,
                static_cast<std::size_t>(static_cast<const std::byte*>(end) -
                                         static_cast<const std::byte*>(from)));
}

bool will_do(PoolSegment& pool, const PoolShape& shape) {
    const PoolHeader& header = pool.header();
    const std::uint64_t frames = (header.segment_bytes - header.frames_offset) / kPageBytes;
    const std::uint64_t directory_bytes = header.bucket_count * sizeof(DirectoryBucket);
    return shape.frame_count <= frames && header.page_count == shape.page_count &&
           header.slot_count == shape.slot_count && directory_bytes == shape.directory_bytes;
}

// Takes one out of those that will do.
template <class Segment, class Test>
std::optional<Segment> take_one(std::vector<Segment>& kept, Test will_do) {
    const auto found = std::find_if(kept.begin(), kept.end(), will_do);
    if (found == kept.end()) return std::nullopt;
    std::optional<Segment> segment(std::move(*found));
    kept.erase(found);
    return segment;
}

// As create() leaves it, with fewer frames than there is room for.
void make_new(PoolSegment& pool, const PoolShape& shape) {
    PoolHeader& header = pool.header();
    header.magic.store(0);
    header.instance_id = shape.instance_id;
    std::memcpy(header.file_uuid, shape.file_uuid, sizeof header.file_uuid);
    header.frame_count = shape.frame_count;
    header.catalog_root = shape.catalog_root;
    header.max_snapshot_age_ns = shape.max_snapshot_age_ns;
    wipe(&header.published, pool.page_map());
    wipe(pool.page_map(), &pool.stats());
    wipe(&pool.stats().counter, &pool.stats() + 1);
    wipe(pool.directory(), pool.directory() + header.bucket_count);
    wipe(pool.frame(FrameId{0}), pool.frame(FrameId{shape.frame_count}));
}

void make_new(ClientSegment& client, const ClientShape& shape) {
    ClientHeader& header = client.header();
    header.magic.store(0);
    header.last_number = 0;
    header.instance_id = shape.instance_id;
    header.rights = static_cast<std::uint32_t>(shape.rights);
    std::memcpy(header.session_id, shape.session_id, sizeof header.session_id);
    const auto claimed = static_cast<std::uint32_t>(client.ring_control().claim.load());
    const std::uint64_t used_bytes =
        std::min<std::uint64_t>(client.ring_bytes(), std::uint64_t{claimed} * kRingUnitBytes);
    wipe(client.ring(), client.ring() + used_bytes);
    wipe(client.slots(), &client.ring_control() + 1);
    wipe(client.calls(), client.calls() + client.call_slot_count());
}

}  // namespace

SimMemory* SimMemory::of_process() {
    static SimMemory memory;
    return &memory;
}

PoolSegment SimMemory::take(const PoolShape& shape) {
    auto kept = take_one(pools_, [&](PoolSegment& pool) { return will_do(pool, shape); });
    if (!kept) {
        PoolShape larger = shape;
        larger.frame_count = std::max(shape.frame_count, kFramesMade);
        auto made = PoolSegment::create(larger, HugePages::kOff, false);
        CHECK(made.ok());
        kept.emplace(std::move(*made));
    }
    make_new(*kept, shape);
    return std::move(*kept);
}

void SimMemory::give_back(PoolSegment pool) { pools_.push_back(std::move(pool)); }

ClientSegment SimMemory::take(const ClientShape& shape) {
    auto kept = take_one(clients_, [&](const ClientSegment& client) {
        return client.first_slot() == shape.first_slot && client.slot_count() == shape.slot_count &&
               client.call_slot_count() == shape.call_slot_count &&
               client.ring_bytes() == shape.ring_bytes;
    });
    if (!kept) {
        auto made = ClientSegment::create(shape);
        CHECK(made.ok());
        return std::move(*made);
    }
    make_new(*kept, shape);
    return std::move(*kept);
}

void SimMemory::give_back(ClientSegment client) { clients_.push_back(std::move(client)); }

}  // namespace bidstore
