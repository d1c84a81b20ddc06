// Steps 5 and 6 of recovery (engine/recovery.h): reads the log behind the checkpoint, and applies
// what it says to the trees in the pool.
//
// A record holds effects, so that replay decides nothing: rows get the values that are logged, in
// the order of the log. Pages may come out with other numbers than before the crash, and the same
// log gives the same pages each time.
//
// Who:    Recovery, on the engine thread, before anybody reads the pool.
// Errors: kCorruption for a log that misses a durable batch, or contradicts the trees, naming csn,
//         position and record; kIoError; kNoSpace; kTooLarge when pool or journal are too small.
//         The files still hold checkpoint and log then.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "engine/engine.h"
#include "engine/executor.h"
#include "engine/log_reader.h"
#include "engine/storage.h"
#include "engine/wal.h"
#include "shm/error.h"

namespace bidstore {

class Replay {
  public:
    // Hears now and then what is being done.
    using Progress = std::function<void(const std::function<std::string()>& state)>;

    Replay(Storage& storage, Progress progress);

    // All of the log. Fills in what was found, and where the log's next life starts.
    Status run(Engine::Recovery& found, WalStart& start);
    // Of the newest batch that was replayed.
    Csn newest_csn() const { return replayed_csn_; }

  private:
    Status replay_batch(const LogBatch& batch);
    Status replay_record(const LogRecordView& record);
    Status effect_of(const LogRecordView& record, Effect& effect);
    Status loaded_table(const LogRecordView& record);
    Status catalog_place(TableId table);
    Status table_effect(const LogRecordView& record, const TableEntry& table);
    Status row_effect(const LogRecordView& record, Effect& effect);
    std::uint64_t extent_pages_of(const LogRecordView& record) const;
    std::uint64_t extent_pages_of(const LogBatch& batch) const;
    Status checkpoint(const CheckpointTarget& target);
    Status make_room(std::uint64_t frames, std::uint64_t extent_pages);

    Storage& storage_;
    const Progress progress_;
    Arena arena_;
    LogPoint replayed_;  // behind the last batch that was replayed whole
    Csn replayed_csn_;
    std::uint64_t checkpoints_ = 0;
    std::uint64_t checkpoints_ns_ = 0;
};

}  // namespace bidstore
