// Checkpoints in the engine's rounds: when one begins, what each round gives it, and how writers
// are let in meanwhile (engine/checkpoint_pace.h).
#include <algorithm>
#include <utility>

#include "engine/engine_core.h"

namespace bidstore {
namespace {

// A checkpoint keeps a frame for each page that it takes and, where that changes meanwhile, for the
// version behind it; a ninth of the pool is left to those who read.
constexpr double kFramesShare = 8.0 / 9;

double share(std::uint64_t used, std::uint64_t most) {
    return static_cast<double>(used) / static_cast<double>(std::max<std::uint64_t>(most, 1));
}

}  // namespace

// What a restart would have to replay.
std::uint64_t Engine::Core::log_behind_bytes() const {
    return commit_->wal().replay_bytes(storage_.checkpointer->log_start());
}

PaceFill Engine::Core::pace_fill() const {
    const Pool& pool = storage_.pool;
    const Checkpointer& checkpointer = *storage_.checkpointer;
    const Wal& wal = commit_->wal();
    std::uint64_t frames = pool.changed_count();
    if (checkpointer.running()) {
        frames += pool.taken_count() +
                  std::min<std::uint64_t>(pool.retired(), storage_.space.known_changed());
    }
    PaceFill fill;
    fill.share[PaceFill::kReplay] = share(log_behind_bytes(), options_.recovery_log_bytes);
    fill.share[PaceFill::kRing] =
        share(wal.used_bytes(checkpointer.log_start()), wal.shape().ring_bytes());
    fill.share[PaceFill::kJournal] =
        share(checkpointer.journal_use(0, 0), checkpointer.journal_capacity());
    fill.share[PaceFill::kFrames] = share(frames, pool.frame_count()) / kFramesShare;
    return fill;
}

bool Engine::Core::checkpoint_due() const {
    const Pool& pool = storage_.pool;
    if (pool.visible() <= storage_.checkpointer->covered().value) return false;
    if (checkpoint_wanted_) return true;
    const PaceFill fill = pace_fill();
    if (fill.share[PaceFill::kReplay] > CheckpointPace::kBegin) return true;
    if (fill.share[PaceFill::kRing] > CheckpointPace::kBegin) return true;
    if (pool.changed_count() == 0) return false;
    if (CheckpointPace::due(fill)) return true;
    return clock_.monotonic_ns() - last_checkpoint_ns_ > options_.checkpoint_interval_ns;
}

void Engine::Core::start_checkpoint() {
    const LogPoint end = commit_->published_end();
    checkpoint_began_ns_ = clock_.monotonic_ns();
    checkpoint_hurries_ = checkpoint_wanted_ || stopping_;
    checkpoint_wanted_ = false;
    split_expiry_steps();
    next_small_drop_ns_ = 0;  // the journal has its places for what changes from here on
    storage_.checkpointer->start({Csn{storage_.pool.visible()}, end.position,
                                  commit_->published_time_us(), end.previous_crc,
                                  commit_->durable()});
    pace_.begin(pace_fill(), checkpoint_began_ns_, options_.checkpoint_interval_ns);
}

// Whether somebody waits for what the checkpoint sets free: a write, a load, a read that finds no
// frame, or, in a full file, all writes.
bool Engine::Core::waited_for() const {
    if (storage_.loader.waits_for_frames() || mode_ == EngineMode::kReadOnly) return true;
    return std::any_of(parked_.begin(), parked_.end(), [](const auto& parked) {
        return parked.second.wait == Wait::kRoom || parked.second.wait == Wait::kTurn;
    });
}

// What one round gives to the checkpoint.
CheckpointSlice Engine::Core::checkpoint_slice() const {
    const bool hurry = stopping_ || checkpoint_hurries_ || checkpoint_wanted_ || waited_for();
    const double goal =
        pace_.goal(pace_fill(), storage_.checkpointer->images_expected(), clock_.monotonic_ns());
    CheckpointSlice slice = pace_.slice(storage_.checkpointer->progress(), goal, hurry);
    slice.may_name = !storage_.space.growth().syncing();
    return slice;
}

bool Engine::Core::pump_checkpoint() {
    Checkpointer& checkpointer = *storage_.checkpointer;
    if (!checkpointer.running()) {
        if (stopping_ || !checkpoint_due()) return false;
        start_checkpoint();
    }
    const bool worked = checkpointer.pump(checkpoint_slice());
    stats_.set(Counter::kCheckpointStep, checkpointer.recipe_step());
    if (checkpointer.running()) return worked;
    expiry_pages_ -= std::exchange(covered_expiry_, 0);
    last_checkpoint_ns_ = checkpoint_began_ns_;  // what changed since then waits for the next one
    stats_.record(HistogramKind::kCheckpointNs, clock_.monotonic_ns() - checkpoint_began_ns_);
    storage_.loader.set_covered(checkpointer.covered());
    no_eviction_before_ns_ = 0;
    if (storage_.space.lowered() != extents_lowered_) {
        extents_lowered_ = storage_.space.lowered();
        ++expiries_;  // some of them may be dead by that
    }
    sweep_left_ = std::max(storage_.pool.kept(), 1u);
    give_back_in_pause();
    return true;
}

// How many requests that write this round lets in. What is slowed is the intake, not the batches:
// a batch that waits would only grow.
void Engine::Core::pace_writers() {
    writers_let_in_ = ~0u;
    WriterPace pace;
    const Checkpointer& checkpointer = *storage_.checkpointer;
    if (checkpointer.running()) pace = pace_.writers(pace_fill(), checkpointer.progress());
    if (pace == WriterPace{}) {
        slowed_since_ns_ = 0;
        return;
    }
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (slowed_since_ns_ != 0) stats_.add(Counter::kWritersSlowedNs, now_ns - slowed_since_ns_);
    slowed_since_ns_ = now_ns;
    const bool again = !pace.held && now_ns - let_in_ns_ >= pace.pause_ns;
    writers_let_in_ = again ? WriterPace::kAtOnce : 0;
    if (again) let_in_ns_ = now_ns;
}

// False: not in this round.
bool Engine::Core::let_in() {
    if (writers_let_in_ == 0) return false;
    --writers_let_in_;
    return true;
}

}  // namespace bidstore
