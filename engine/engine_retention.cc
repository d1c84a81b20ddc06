// Retention: tables whose rows live for a time. Three steps that nobody waits for:
//
//   floor  a logged record says from which time on rows are alive; it follows the clock in small
//          strides and never falls. Readers, transactions and replay all go by the floor of their
//          snapshot, never by a clock of their own. Without room for the record it moves later.
//   drop   leaves that are wholly below it leave the tree, found by what metadata remembers: they
//          are neither read nor written, but for those so much older than their chunk's newest
//          that the metadata do not tell (kNewestAgeUnknown): these are read once, and decided
//          about by a later walk. Physical change: it rides in a batch, and is not logged.
//   sweep  extents of dead rows, and what is left of dropped tables' ones, are freed, found in the
//          chunks' metadata, which say whose they are and how old. The rows need not be there any
//          more.
//
// A table that has a retention no more has its floor still, and what is below it goes as before;
// then nothing of the table is looked at any more.
//
// Where the key begins with the time, dead leaves are the first ones, and a step looks no further
// than the first that is not dead. For any other key the inner nodes are walked through, again and
// again, at a pace that follows from the retention.
#include <algorithm>
#include <utility>

#include "engine/engine_core.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kStrideUsMin = 1'000;
constexpr std::uint64_t kStrideUsMax = 1'000'000;
constexpr std::uint64_t kStrides = 256;            // of the floor, in a short retention
constexpr std::uint32_t kExpiredPerStep = 64;      // leaves in a batch, at most
constexpr std::uint64_t kStepNs = 1'000'000;       // the least time between two steps
constexpr std::uint64_t kWalks = 32;               // over a whole table, per retention
constexpr std::uint64_t kAgainNs = 1'000'000'000;  // from the first leaf on, when it was read
constexpr std::uint64_t kWalkPauseNsMax = 3'600'000'000'000;
constexpr std::uint32_t kChunksLookedAt = 256;  // in a step over the chunks
constexpr std::uint32_t kChunksSwept = 16;      // of them, those that have extents
constexpr std::uint64_t kSweepPauseNsMax = 10'000'000'000;

std::uint64_t stride_us(std::uint64_t retain_us) {
    return std::clamp(retain_us / kStrides, kStrideUsMin, kStrideUsMax);
}

std::uint64_t in_unit(const Schema& schema, std::uint64_t us) {
    return schema.time_unit() == TimeUnit::kNanoseconds ? us * 1000 : us;
}

bool key_begins_with_time(const Schema& schema) { return schema.time_column() == 0; }

}  // namespace

bool Engine::Core::retain() {
    if (stopping_) return false;
    bool worked = false;
    // Each in turn: one alone may take all that replay has places for.
    auto tables = storage_.catalog->all();
    std::rotate(tables.begin(),
                std::find_if(tables.begin(), tables.end(),
                             [this](const TableEntry* table) { return table->id > expired_last_; }),
                tables.end());
    for (TableEntry* table : tables) {
        if (table->settled || table->hidden()) continue;
        worked |= move_floor(*table);
        worked |= drop_expired(*table);
    }
    return worked | sweep_extents();
}

// Where the floor should be now; 0: where it is, at most a stride behind the clock, or there is
// nothing in the table. The root is in the pool.
std::uint64_t Engine::Core::due_floor(const TableEntry& table) const {
    const std::uint64_t now_us = clock_.wall_us();
    if (table.retain_us == 0 || now_us <= table.retain_us) return 0;
    const std::uint64_t floor = in_unit(table.schema, now_us - table.retain_us);
    const std::uint64_t stride = in_unit(table.schema, stride_us(table.retain_us));
    if (floor < table.tree.floor() + stride) return 0;
    return table.tree.empty() || table.tree.least_time() >= floor ? 0 : floor;
}

// In the open batch, for which kFloorRoom and kFloorLogBytes were secured.
void Engine::Core::set_floor(TableEntry& table, std::uint64_t floor) {
    commit_->wal().append(RecordType::kMoveFloor, table.id, {},
                          std::as_bytes(std::span(&floor, 1)));
    table.tree.set_floor(floor);
    ++expiries_;
    stats_.add(Counter::kFloorsMoved);
}

bool Engine::Core::move_floor(TableEntry& table) {
    const PagesInUse looked_at(storage_.pool);
    if (storage_.pool.newest(table.tree.root()) == nullptr) {
        storage_.loader.want(table.tree.root());
        return false;
    }
    const std::uint64_t floor = due_floor(table);
    if (floor == 0) return false;
    Refused refused;
    const Wait wait = secure(kFloorRoom, kFloorLogBytes, refused);
    if (wait != Wait::kNone || refused.error != Error::kOk) return false;
    set_floor(table, floor);
    return true;
}

// What expired while the store was down is not served again: the floors follow the clock before the
// first reader comes. A table whose root cannot be read has no rows to give out. Where log, journal
// or pool are full, checkpoints make room first, for as long as a restart may take for a step.
Status Engine::Core::move_floors_before_service() {
    std::vector<TableEntry*> due;
    for (TableEntry* table : storage_.catalog->all()) {
        if (table->retain_us == 0 || table->hidden()) continue;
        if (storage_.bring_in(table->tree.root()) && due_floor(*table) != 0) due.push_back(table);
    }
    const std::uint64_t deadline_ns = clock_.monotonic_ns() + kRecoveryStepNs / 2;
    while (!due.empty() || !commit_->quiet()) {
        std::erase_if(due, [this](TableEntry* table) { return move_floor(*table); });
        commit_->hurry();
        commit_->pump();
        after_publication();
        if (!due.empty()) pump_checkpoint();  // another one may wait: readers do
        sweep();
        storage_.loader.pump(0);
        if (const std::string what = failure(); !what.empty()) return {Error::kIoError, what};
        if (clock_.monotonic_ns() > deadline_ns) {
            say(4,
                "no room in 30 s for the floors of tables with a retention: expired rows are "
                "served until there is");
            break;
        }
        disk_.poll(1'000'000);
    }
    return {};
}

std::uint32_t Engine::Core::leaves_of_step() const {
    const std::uint64_t share = storage_.checkpointer->journal_capacity() / 8;
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(share, 1, kExpiredPerStep));
}

// Where the log erases a range, replay drops these leaves once more, all in one batch, since the
// tree that it begins with has them: what they change from the last finished checkpoint on, their
// chunks and an inner node in each step, takes a quarter of the journal, where Replay::make_room()
// leaves them as much.
bool Engine::Core::enough_to_replay() {
    const Checkpointer& checkpointer = *storage_.checkpointer;
    const std::uint64_t step = std::min(leaves_of_step(), storage_.space.chunk_count()) + 1;
    const bool room = expiry_pages_ + step <= checkpointer.journal_capacity() / 4;
    if (room || expiry_pages_ == 0) return false;
    checkpoint_wanted_ = checkpoint_wanted_ || !checkpointer.running();
    return true;
}

void Engine::Core::note_expiry(TableId table, std::uint64_t pages) {
    expired_last_ = table;
    expiry_steps_.push_back({storage_.pool.open_csn(), pages});
    expiry_pages_ += pages;
}

// The checkpoint that begins has what is published, and no step of a batch on its way.
void Engine::Core::split_expiry_steps() {
    const Csn visible{storage_.pool.visible()};
    std::erase_if(expiry_steps_, [&](const ExpiryStep& step) {
        if (step.batch > visible) return false;
        covered_expiry_ += step.pages;
        return true;
    });
}

// One inner node of the table, or none when it is not time for that.
bool Engine::Core::drop_expired(TableEntry& table) {
    const PagesInUse looked_at(storage_.pool);
    if (storage_.pool.newest(table.tree.root()) == nullptr) return false;  // move_floor() wants it
    const std::uint64_t floor = table.tree.floor();
    RetentionWalk* const begun = floor == 0 ? nullptr : &retention_walks_[table.id.value];
    if (begun == nullptr || (begun->from.empty() && floor == begun->done_floor)) {
        table.settled = table.retain_us == 0;
        return false;
    }
    RetentionWalk& walk = *begun;
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (now_ns < walk.next_ns || quarantine_is_full() || enough_to_replay()) return false;
    Refused refused;
    const std::uint32_t leaves = leaves_of_step();
    const Room room{table.tree.frames_needed(), 0, leaves + table.tree.depth()};
    const Wait wait = secure(room, 0, refused);
    if (wait != Wait::kNone || refused.error != Error::kOk) return false;
    if (walk.from.empty()) walk.floor = floor;
    const LeafDrop drop = table.tree.drop_leaves(key_bound(walk.from), leaves);
    if (drop.missing) {
        storage_.loader.want(drop.missing);
        return false;
    }
    for (const PageId leaf : drop.ask) storage_.loader.want(leaf);  // the next walk decides
    walk.asked |= !drop.ask.empty();
    if (drop.leaves > 0) commit_->touch();
    if (drop.leaves > 0) note_expiry(table.id, drop.chunks + 1);
    if (drop.leaves > 0 || (drop.end && !drop.kept)) ++expiries_;
    stats_.add(Counter::kPagesExpired, drop.leaves);
    walk.next_ns = now_ns + kStepNs * std::max<std::uint64_t>(1, drop.ask.size());
    if (drop.leaves == leaves) return true;  // perhaps more of the same node
    const bool over = drop.corrupt || drop.end || (key_begins_with_time(table.schema) && drop.kept);
    if (!over) {
        walk.from.assign(drop.next.begin(), drop.next.begin() + table.schema.key_bytes());
        return drop.leaves > 0;
    }
    walk.from.clear();
    const bool again = std::exchange(walk.asked, false);
    walk.done_floor = again || drop.corrupt ? 0 : walk.floor;
    if (again) walk.next_ns = now_ns + kAgainNs;
    if (!key_begins_with_time(table.schema) || drop.corrupt) {
        const std::uint64_t retain_us = table.retain_us == 0 ? kRetainMaxUs : table.retain_us;
        walk.next_ns = now_ns + std::min(retain_us * 1000 / kWalks, kWalkPauseNsMax);
    }
    return drop.leaves > 0;
}

// ---- extents ----

// Of a row below its table's floor, or of a table that is gone. The floor of a table without rows
// stands still; what it has of extents its dead rows left.
bool Engine::Core::dead_extent(TableId table, std::uint32_t newest) {
    const TableEntry* owner = storage_.catalog->find_with_pages(table);
    if (owner == nullptr) return true;
    if (storage_.pool.newest(owner->tree.root()) == nullptr) {
        if (owner->settled && !retention_walks_.contains(table.value)) return false;  // no floor
        storage_.loader.want(owner->tree.root());
        ++expiries_;  // decided about by the next sweep
        return false;
    }
    return owner->tree.empty() || newest_below(owner->schema, newest, owner->tree.floor());
}

std::uint64_t Engine::Core::sweep_pause_ns() const {
    std::uint64_t pause = kSweepPauseNsMax;
    for (const TableEntry* table : storage_.catalog->all()) {
        if (table->retain_us != 0) pause = std::min(pause, table->retain_us * 1000 / kWalks);
    }
    return std::max(pause, kStepNs);
}

// Some chunks further, if there is reason for a sweep; the next one begins after a pause.
bool Engine::Core::sweep_extents() {
    ExtentSweep& sweep = extent_sweep_;
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (now_ns < sweep.next_ns) return false;
    if (sweep.chunk == 0) sweep.mark = expiries_;
    if (sweep.mark == sweep.done || quarantine_is_full()) return false;
    const Space& space = storage_.space;
    const std::uint32_t end = std::min(space.chunk_count(), sweep.chunk + kChunksLookedAt);
    std::uint32_t with_extents = 0;
    std::uint32_t to = sweep.chunk;
    for (; to < end && with_extents < kChunksSwept; ++to) with_extents += space.has_extents(to);
    if (with_extents > 0) {
        Refused refused;
        const Wait wait = secure({with_extents, 0, 0}, 0, refused);
        if (wait != Wait::kNone || refused.error != Error::kOk) return false;
    }
    std::uint64_t pages = 0;
    for (; sweep.chunk < to; ++sweep.chunk) {
        pages += storage_.space.free_dead_extents(
            sweep.chunk,
            [this](TableId table, std::uint32_t newest) { return dead_extent(table, newest); });
    }
    if (pages > 0) commit_->touch();
    stats_.add(Counter::kPagesExpired, pages);
    sweep.next_ns = now_ns + kStepNs;
    if (sweep.done < unswept_mark_) dropped_ns_ = now_ns;
    if (to < space.chunk_count()) return pages > 0;
    sweep.chunk = 0;
    sweep.done = sweep.mark;
    if (sweep.done >= unswept_mark_) unswept_drops_ = 0;
    if (unswept_drops_ == 0) sweep.next_ns = now_ns + sweep_pause_ns();
    return pages > 0;
}

}  // namespace bidstore
