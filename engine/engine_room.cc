// Room for what is to come: frames, space in the file, in the log and in the journal, secured
// before the first byte of a change; and what is done when there is none.
#include <algorithm>
#include <array>
#include <vector>

#include "engine/engine_core.h"
#include "engine/extent_map.h"
#include "shm/hot_path.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kGrowthRetryNs = 1'000'000'000;
constexpr std::uint64_t kStarvedNs = 20'000'000;       // then whoever holds most frames pays
constexpr std::uint64_t kEvictAgainNs = 5'000'000;     // while readers see what was evicted last
constexpr std::uint64_t kReclaimRetryNs = 50'000;
constexpr std::uint64_t kEvictionRetryNs = 2'000'000;  // a search that found nothing is a long one
constexpr std::uint32_t kTouchesPerRound = 512;
constexpr std::uint32_t kChancesMost = 4;  // that a request in a full file has: checkpoints
constexpr std::uint64_t kSmallWritePages = 16;  // new ones: a store that takes these is serving

// New chunks that the extents may take at most: one is at least half used up before an extent needs
// the next, or has as many tables with extents in it as it may.
std::uint64_t chunks_of(std::span<const ExtentNeed> extents, std::uint64_t loads_max) {
    if (extents.empty()) return 0;
    const ColdPath cold;  // large values cost far more than this
    std::uint64_t pages = 0;
    std::vector<std::uint32_t> tables;
    for (const ExtentNeed& need : extents) {
        pages += need.pages;
        tables.push_back(need.table.value);
    }
    std::sort(tables.begin(), tables.end());
    const auto end = std::unique(tables.begin(), tables.end());
    // Tables that are being loaded count in every chunk.
    const std::uint64_t owners = kExtentOwners - loads_max;
    return Space::grow_frames(2 * pages) +
           static_cast<std::uint64_t>(end - tables.begin()) / owners;
}

std::uint64_t pages_of(std::span<const ExtentNeed> extents) {
    std::uint64_t pages = 0;
    for (const ExtentNeed& need : extents) pages += need.pages;
    return pages;
}

}  // namespace

// The most frames that one change may take: it also reads so many pages, which stay until it is
// made, and the metadata of all chunks stay always. The rest is for those who read meanwhile.
std::uint64_t Engine::Core::frames_at_most() const {
    const std::uint64_t frames = storage_.pool.frame_count();
    return (frames - std::min<std::uint64_t>(frames, storage_.space.chunk_count())) * 2 / 5;
}

// Without those of new chunks.
std::uint64_t Engine::Core::frames_of(const Room& room) const {
    // Each page taken or freed may change another chunk's metadata, and each run of an extent.
    const std::uint64_t metadata = std::min<std::uint64_t>(
        room.fresh + room.freed + room.value_runs, storage_.space.chunk_count());
    return room.changed + room.fresh + metadata + room.extent_pages;
}

// Of these, pages that the checkpoint knows: those of extents never need a place in the journal.
std::uint64_t Engine::Core::known_of(const Room& room) const {
    return frames_of(room) - room.fresh - room.extent_pages;
}

// Which limit the change passes, whatever there is room for now; kNoOperation: none.
std::uint32_t Engine::Core::limit_passed(const Room& room, std::uint64_t new_chunks) const {
    const Checkpointer& checkpointer = *storage_.checkpointer;
    const std::uint64_t need =
        checkpointer.journal_need(known_of(room), frames_of(room) + new_chunks);
    if (need > checkpointer.journal_capacity() / 2) return kLimitJournal;
    return frames_of(room) > frames_at_most() ? kLimitPool : kNoOperation;
}

// Everything that the change may need, before the first byte of it. What fits here alone is never
// held for ever: a checkpoint is made as soon as half of the journal is in use, and a batch goes
// out before it needs the other half.
Engine::Core::Wait Engine::Core::secure(const Room& room, std::uint32_t log_bytes, Refused& refused,
                                        std::uint64_t reserve,
                                        std::span<const ExtentNeed> extents) {
    const std::uint64_t pages = room.fresh + reserve;
    const std::uint64_t new_chunks =
        storage_.space.new_chunk_frames(pages, chunks_of(extents, kLoadsMax));
    const std::uint64_t frames = frames_of(room) + new_chunks;
    const std::uint64_t known = known_of(room);
    const Checkpointer& checkpointer = *storage_.checkpointer;
    const std::uint64_t journal_half = checkpointer.journal_capacity() / 2;
    const std::uint32_t limit = limit_passed(room, new_chunks);
    if (limit != kNoOperation) refused = {Error::kTooLarge, limit};
    if (log_bytes > commit_->wal().records_bytes_max() / 2) refused = {Error::kTooLarge, kLimitLog};
    if (refused.error != Error::kOk) return Wait::kNone;
    const std::uint64_t open = storage_.pool.open_versions();
    const bool batch_full =
        open > 0 && (open + frames > storage_.pool.frame_count() / 2 ||
                     checkpointer.journal_need(open + known, open + frames) > journal_half);
    if (batch_full || (commit_->is_open() && !commit_->fits(log_bytes))) {
        commit_->touch();
        commit_->hurry();
        return Wait::kRoom;
    }
    if (!commit_->log_room(log_bytes, checkpointer.log_start()) ||
        checkpointer.journal_use(known, frames) > checkpointer.journal_capacity()) {
        checkpoint_wanted_ = true;
        commit_->hurry();
        return Wait::kRoom;
    }
    if (!make_frames(frames, writes_starved_since_ns_)) return Wait::kRoom;
    if (!commit_->open()) return Wait::kRoom;
    [[maybe_unused]] const std::uint32_t chunks = storage_.space.chunk_count();
    const Wait wait = secure_space(pages, extents, refused.error);
    DCHECK(storage_.space.chunk_count() - chunks <= new_chunks);
    return wait;
}

// Chunks that are ready are taken into use as they are needed; a true shortage waits for growth,
// and only when there is none to be had is the store full.
Engine::Core::Wait Engine::Core::secure_space(std::uint64_t pages,
                                              std::span<const ExtentNeed> extents,
                                              Error& refusal) {
    Space& space = storage_.space;
    const std::uint64_t all_pages = pages + pages_of(extents);
    const std::uint32_t chunks = space.chunk_count();
    bool secured = space.reserve_extents(extents, kServingRunsMax);
    if (secured && !space.secure(static_cast<std::uint32_t>(pages))) {
        space.release_extents();
        secured = false;
    }
    if (space.chunk_count() != chunks) commit_->touch();
    if (secured) {
        serve_again();
        return Wait::kNone;
    }
    const ColdPath cold;
    // Pages enough, but in too many pieces for an extent: another chunk has it in one.
    const bool scattered = space.in_reach() >= all_pages;
    const std::uint64_t wanted_before = wanted_pages_;
    wanted_pages_ = std::max({wanted_pages_, all_pages, scattered ? space.in_reach() + 1 : 0});
    if (!space.growth().idle() || grow()) return Wait::kRoom;
    if (space.available() + space.quarantined() > all_pages && freed_pages_may_do()) {
        return Wait::kRoom;
    }
    if (give_up_for_room()) return Wait::kRoom;
    if (scattered || space.in_reach() >= kReservePages + kSmallWritePages) {  // others find room
        wanted_pages_ = wanted_before;
    } else if (mode_ == EngineMode::kServing) {
        set_mode(EngineMode::kReadOnly);
        say(3, "read-only: " + why_full());
    }
    refusal = Error::kNoSpace;
    return Wait::kNone;
}

// Freed pages come back with a checkpoint, when the snapshots that see them have ended: tried
// before "full" is said, some times. Beside writers there is always something freed, and perhaps
// always too little of it, or in too many pieces.
bool Engine::Core::freed_pages_may_do() {
    const Csn visible{storage_.pool.visible()};
    const Csn oldest = storage_.space.oldest_quarantined();
    Chances now;  // housekeeping begins anew each time
    Chances& chances = chances_ != nullptr ? *chances_ : now;
    if (!oldest || (oldest > chances.up_to && chances.taken == kChancesMost)) return false;
    if (oldest > chances.up_to) {
        chances.up_to = std::max(visible, storage_.pool.open_csn());
        ++chances.taken;
    }
    checkpoint_wanted_ |= chances.up_to > storage_.checkpointer->covered();
    if (chances.up_to > visible) {  // what the open batch freed counts, too
        commit_->touch();
        commit_->hurry();
    }
    return true;
}

std::string Engine::Core::why_full() const {
    const Space& space = storage_.space;
    if (!space.at_limit()) return growth_failure_;
    if (space.pool_chunks() < space.page_map_chunks()) {
        return "data file: the metadata of its " + std::to_string(space.chunk_count()) +
               " chunks (2 MiB each) fill half of the pool's " +
               std::to_string(storage_.pool.frame_count()) +
               " frames: raise pool_bytes or delete rows";
    }
    return "data file is at its limit of " + std::to_string(storage_.pool.page_count() / 256) +
           " MiB: raise max_data_bytes or delete rows";
}

// When what was refused would be taken now.
void Engine::Core::serve_again() {
    if (storage_.space.in_reach() < wanted_pages_) return;
    wanted_pages_ = 0;
    if (mode_ != EngineMode::kReadOnly) return;
    const ColdPath cold;
    set_mode(EngineMode::kServing);
    say(5, "there is room again: serving writes");
}

// Begins growth when the free space is below its mark; not at once again after a full file system.
bool Engine::Core::grow() {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (stopping_ || !storage_.space.growth().idle()) return false;
    if (growth_failed_ns_ != 0 && now_ns - growth_failed_ns_ < kGrowthRetryNs) return false;
    Space& space = storage_.space;
    if (space.wants_growth(wanted_pages_) && !space.at_limit()) space.reopen();
    return space.grow(wanted_pages_);
}

// Growth ahead of need, beside the commits; and what came of the last one.
bool Engine::Core::pump_growth() {
    Growth& growth = storage_.space.growth();
    if (stopping_) growth.wind_down();
    Status grown;
    const bool ended = storage_.space.take_growth(grown);
    if (ended) {
        growth_failed_ns_ = grown ? 0 : clock_.monotonic_ns();
        growth_failure_ = grown ? "" : grown.failure().what;
    }
    serve_again();
    return grow() || ended;
}

// Versions nobody needs, and pages whose quarantine is over, which are looked for when versions
// that a snapshot kept are, too. False: there may be more of either.
bool Engine::Core::reclaim(std::uint32_t kept_looks) {
    held_ = port_.scan();
    HeldSnapshots& all = held_;
    if (storage_.checkpointer->running()) {
        // It reads versions that changed since the last checkpoint, and none of these is evicted.
        const std::uint64_t csn = storage_.checkpointer->csn().value;
        all.csns.insert(std::lower_bound(all.csns.begin(), all.csns.end(), csn), csn);
    }
    storage_.reclaim(all, kept_looks);
    if (kept_looks == 0) return true;
    bool of_its_own = false;
    Csn csn;
    const std::size_t left = storage_.end_quarantine(
        all, kept_looks, [&] { return csn = commit_->eviction_csn(of_its_own); });
    if (of_its_own) {
        storage_.pool.advance_visible(csn);
    } else if (left > 0 && commit_->quiet()) {
        commit_->touch();  // of an open batch with nothing in it, which would never be published
    }
    return left < kept_looks;
}

// How many of these replaced versions are kept for readers, at least: a running checkpoint keeps at
// most one for each page that changed since it began.
std::uint64_t Engine::Core::of_readers(std::uint64_t versions) const {
    if (!storage_.checkpointer->running()) return versions;
    return versions - std::min(versions, storage_.space.known_changed());
}

// What a finished checkpoint sets free: versions that it alone held, pages in quarantine. A part in
// each round.
bool Engine::Core::sweep() {
    if (sweep_left_ == 0) return false;
    const bool quarantine_done = reclaim(kSweepLooks);
    sweep_left_ -= std::min(sweep_left_, kSweepLooks);
    if (!quarantine_done) sweep_left_ = std::max(sweep_left_, 1u);
    return true;
}

bool Engine::Core::after_publication() {
    if (!commit_->take_published()) return false;
    reclaim(0);
    return true;
}

// What readers marked since the last time, a bounded number of them; the hands come next.
void Engine::Core::gather_touches() {
    std::array<std::uint32_t, kTouchesPerRound> pages;
    const std::uint32_t count = port_.take_touches(pages);
    for (std::uint32_t i = 0; i < count; ++i) {
        const PageId page{pages[i]};
        if (storage_.pool.touched(page)) storage_.enter_rows_later(page);
    }
    stats_.add(Counter::kMarksGathered, count);
}

// Drops cold pages; their frames are free at once when no batch is unpublished, else with the next
// publication, and when no reader looks at them any more. A reader that was put aside for some
// milliseconds is made up for by evicting more; but where very many are still in some reader's
// sight, the next ones would be, too, and to go on at once would empty the pool for nothing.
bool Engine::Core::evict_and_reclaim(std::uint32_t count) {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    const std::uint32_t in_sight_max = std::max(count, storage_.pool.frame_count() / 8);
    if (storage_.pool.evicted() >= in_sight_max && now_ns - evicted_ns_ < kEvictAgainNs) {
        return reclaim_for_room();
    }
    if (now_ns < no_eviction_before_ns_) return false;
    gather_touches();
    const auto& pages = storage_.pool.eviction_candidates(
        count, storage_.checkpointer->covered(),
        [this](const PageHeader& leaf) { return storage_.recent(leaf); });
    if (pages.empty()) {
        no_eviction_before_ns_ = now_ns + kEvictionRetryNs;
        return false;
    }
    evicted_ns_ = now_ns;
    bool of_its_own = false;
    const Csn csn = commit_->eviction_csn(of_its_own);
    storage_.evict(pages, csn);
    if (of_its_own) {
        storage_.pool.advance_visible(csn);
        reclaim(0);
    } else {
        commit_->touch();
        commit_->hurry();
    }
    return true;
}

// Everything kept by snapshots is looked at again, which is a long list when they keep much: after
// a round for nothing not before some of them may have ended, however many requests wait for room.
bool Engine::Core::reclaim_for_room() {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (now_ns < no_reclaim_before_ns_) return false;
    const std::uint32_t before = storage_.pool.free_frames();
    reclaim(Storage::kAll);
    const std::uint64_t after_ns = clock_.monotonic_ns();
    if (storage_.pool.free_frames() > before) return true;
    no_reclaim_before_ns_ = after_ns + std::max(kReclaimRetryNs, 8 * (after_ns - now_ns));
    return false;
}

// Changed pages stay in the pool until a checkpoint wrote them; where these are what fills it, one
// helps. For a few of them it does not, unless nothing else helped for a while.
bool Engine::Core::checkpoint_helps(std::uint64_t missing_frames,
                                    std::uint64_t starved_since_ns) const {
    if (storage_.checkpointer->running()) return false;
    const std::uint64_t changed = storage_.pool.changed_count();
    if (changed >= std::min<std::uint64_t>(missing_frames, storage_.pool.frame_count() / 16)) {
        return changed > 0;
    }
    // Soon enough for the frames to be there before a snapshot has to pay.
    const bool starved = starved_since_ns != 0 &&
                         clock_.monotonic_ns() - starved_since_ns > kStarvedNs / 2;
    return starved && changed > 0;
}

bool Engine::Core::make_frames(std::uint64_t frames, std::uint64_t& starved_since_ns) {
    Pool& pool = storage_.pool;
    if (pool.free_frames() >= frames) {
        starved_since_ns = 0;
        return true;
    }
    const ColdPath cold;
    if (reclaim_for_room() && pool.free_frames() >= frames) return true;
    const auto missing = static_cast<std::uint32_t>(frames - pool.free_frames());
    const std::uint32_t ahead = std::min(pool.frame_count() / 64, Eviction::kStepMost);
    const bool evicted = evict_and_reclaim(missing + ahead);
    if (pool.free_frames() >= frames) return true;
    if (!evicted && checkpoint_helps(missing, starved_since_ns)) checkpoint_wanted_ = true;
    // Whatever is open may hold versions that its publication sets free.
    if (commit_->is_open()) {
        commit_->touch();
        commit_->hurry();
    }
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (starved_since_ns == 0) starved_since_ns = now_ns;
    if (now_ns - starved_since_ns > kStarvedNs && readers_hold_most()) {
        starved_since_ns = now_ns;
        if (port_.revoke_greediest(pool, 0)) {
            say(4, "a snapshot was revoked: the pool has no frames left but those readers hold");
        }
    }
    return false;
}

// Of the frames that may come back; what waits for a publication comes back with it. A checkpoint
// that gives back more is waited for: on a slow device that takes longer than anybody starves, and
// a snapshot that holds next to nothing would be gone for next to nothing. Of the pages that the
// checkpoint took, those with a version that is held stay.
bool Engine::Core::readers_hold_most() const {
    const Pool& pool = storage_.pool;
    const std::uint64_t held = of_readers(pool.kept());
    if (storage_.checkpointer->running() && pool.taken_count() > 2 * held) return false;
    return held > pool.retired() / 2;
}

// Keeps some frames free ahead of need, and starts the reads that waited for one.
bool Engine::Core::relieve_pool() {
    Pool& pool = storage_.pool;
    const std::uint32_t low = pool.low_frames();
    bool worked = storage_.loader.pump(low / 2);
    if (pool.free_frames() >= low) {
        reads_starved_since_ns_ = 0;
        return worked;
    }
    if (worked) poll_disk(0);  // the hands move while the device is at work
    // What failed to be read gave its frames back.
    if (failed() || pool.free_frames() >= low) return true;
    if (commit_->in_flight() && pool.retired() > low) return worked;  // they come with it
    worked |= evict_and_reclaim(Eviction::step(pool.free_frames(), low));
    if (pool.free_frames() < low && storage_.loader.waits_for_frames()) {
        make_frames(low, reads_starved_since_ns_);
    }
    return worked | storage_.loader.pump(low / 2);
}

}  // namespace bidstore
