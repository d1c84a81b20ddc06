// Dropping a table: its leaves go as expired ones do, by metadata alone, so that a table of many
// gigabytes is not read once more to be forgotten. The inner nodes are read, one in some hundred
// pages. What its rows had in extents is found by the sweep behind it (engine/engine_retention.cc).
// Physical change, which is not logged but rides in a batch, a little in each round.
#include <algorithm>
#include <utility>

#include "engine/engine_core.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kDroppedPerStep = 512;  // leaves
constexpr std::uint32_t kSmallStep = 8;  // so many times less, where others come first, and then
constexpr std::uint64_t kSmallStepNs = 20'000'000;  // so long between two,
constexpr std::uint64_t kTryAgainNs = 1'000'000;    // or, when a step found no room, till the next

}  // namespace

// What a step takes, frames and places of the journal, is what others wait for, perhaps always.
bool Engine::Core::others_come_first() const {
    if (anyone_waits()) return true;
    return slowed_since_ns_ != 0 && pace_fill().share[PaceFill::kJournal] > CheckpointPace::kBegin;
}

bool Engine::Core::drop_tables() {
    if (stopping_) return false;
    const auto dropping = storage_.catalog->dropping();
    if (dropping.empty()) return false;
    const bool small = others_come_first();
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (small && now_ns < next_small_drop_ns_) return false;
    for (TableEntry* table : dropping) {
        next_small_drop_ns_ = now_ns + kSmallStepNs;
        table->drop_stuck = false;
        switch (drop_leaves_of(*table, small)) {
            case Drop::kStep:
                dropped_ns_ = now_ns;
                return true;
            case Drop::kWaits:
                next_small_drop_ns_ = now_ns + kTryAgainNs;
                return false;
            case Drop::kStuck:
                table->drop_stuck = true;
        }
    }
    return false;
}

bool Engine::Core::pages_to_come() const {
    if (extent_sweep_.done < unswept_mark_) return true;
    const auto dropping = storage_.catalog->dropping();
    return std::any_of(dropping.begin(), dropping.end(),
                       [](const TableEntry* table) { return !table->drop_stuck; });
}

// So many pages may wait for a checkpoint and for the last snapshot that needs them: the list of
// them is in memory.
bool Engine::Core::quarantine_is_full() {
    if (storage_.space.quarantined() < options_.quarantine_pages_max) return false;
    // What is covered waits for snapshots, which no checkpoint ends.
    const Csn covered = storage_.checkpointer->covered();
    checkpoint_wanted_ = checkpoint_wanted_ || storage_.space.oldest_quarantined() > covered;
    return true;
}

// A step: some leaves of the first inner node, and the node with its last one; at the end the root.
Engine::Core::Drop Engine::Core::drop_leaves_of(TableEntry& table, bool small) {
    if (quarantine_is_full()) return Drop::kWaits;
    const PagesInUse looked_at(storage_.pool);
    const Tree& catalog = storage_.catalog->catalog().tree;
    std::byte key[4];
    encode_key_integer(key, table.id.value, 4, false);
    const Lookup row = catalog.get(key);
    const TreeAccess first = table.tree.first_leaves();
    for (const PageId missing : {first.missing, row.missing}) {
        if (missing) return bring_in(missing) == Error::kOk ? Drop::kWaits : Drop::kStuck;
    }
    // Verify tells; its pages stay as they are.
    if (first.corrupt || row.corrupt) return Drop::kStuck;
    // Each of them may change another chunk's metadata: a frame, and places in the journal.
    const auto most = static_cast<std::uint32_t>(
        std::min<std::uint64_t>({kDroppedPerStep, storage_.pool.frame_count() / 16,
                                 storage_.checkpointer->journal_capacity() / 8}));
    const std::uint32_t leaves = std::max(small ? most / kSmallStep : most, 1u);
    housekeeping_room_.reset();
    housekeeping_room_.put(catalog, key, row.value.size(), row);
    housekeeping_room_.add({table.tree.frames_needed() + 1, 0, leaves + table.tree.depth() + 1});
    Refused refused;
    const std::uint64_t starved_since_ns = writes_starved_since_ns_;  // of those who wait
    const Wait wait = secure(housekeeping_room_.total(), 0, refused);
    if (small) writes_starved_since_ns_ = starved_since_ns;
    if (refused.error == Error::kTooLarge && !small) return drop_leaves_of(table, true);
    if (refused.error == Error::kTooLarge) {
        tell_of_stuck_drop(table);
        return Drop::kStuck;
    }
    if (wait != Wait::kNone || refused.error != Error::kOk) return Drop::kWaits;
    const LeafDrop drop = table.tree.drop_first_leaves(leaves);
    for (const PageId next : drop.ask) storage_.loader.want(next);
    if (drop.end) finish_drop(table);
    commit_->touch();
    return Drop::kStep;
}

// What it has in extents is found by a sweep over the file, which comes at once.
void Engine::Core::finish_drop(TableEntry& table) {
    const bool extents = table.schema.has_variable();
    retention_walks_.erase(table.id.value);
    storage_.catalog->finish_drop(table);
    ++expiries_;
    if (!extents) return;
    ++unswept_drops_;
    unswept_mark_ = expiries_;
    if (extent_sweep_.chunk == 0) extent_sweep_.next_ns = 0;
}

// Once in a life: the journal and the pool stay what they are until the next start.
void Engine::Core::tell_of_stuck_drop(const TableEntry& table) {
    if (std::exchange(stuck_drop_told_, true)) return;
    say(4, "the pages of dropped tables, those of " + table.schema.name() +
               " among them, do not come back: a step of that takes more than half of the journal, "
               "or two fifths of the pool: raise journal_bytes or pool_bytes, and start anew");
}

}  // namespace bidstore
