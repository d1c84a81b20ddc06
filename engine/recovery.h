// Recovery: from files in whatever state a crash left them to a store that serves; and the making
// of new files. Everything here can be cut off at any point and done again.
//
//   1 sync all files; the valid superblock of highest sequence; make the other copy equal
//   2 file sizes against the superblock
//   3 a journal that the superblock names goes to its places; superblock: no journal; the journal
//     is made longer where a daemon's setting is
//   4 chunk directory, metadata, system tables, each against the CRC above it
//   5 the log from the superblock's position, batch by batch (engine/log_reader.h)
//   6 replay: effects, in the log's order; checkpoints in between when pages fill up
//     (engine/replay.h)
//   7 superblock: new epoch and salt; only now serve and write
//
// Images, places, directory and metadata are read and written many at a time
// (engine/recovery_io.h).
//
// Who:    the engine thread, before it serves.
// Errors: kCorruption names file, offset or page, and csn; kIoError, kNoSpace, kNotBidstore,
//         kVersionMismatch. Nothing of the log or the checkpoint is lost by a failed recovery.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/blocking_io.h"
#include "engine/engine.h"
#include "engine/recovery_io.h"
#include "engine/replay.h"
#include "engine/storage.h"
#include "engine/wal.h"
#include "shm/error.h"

namespace bidstore {

class Recovery {
  public:
    Recovery(Storage& storage, const EngineOptions& options);

    // Formats new files or recovers what is there. Fills in the start of the log's next life.
    Result<Engine::Recovery> run(WalStart& start);

    // Before run(): the journal of files that are there becomes as long as options.journal_bytes,
    // if it is shorter. Who only looks, or mends, leaves it as it is.
    void raise_journal() { raises_journal_ = true; }

    // ---- for engine/rebuild.h ----
    // Before run(): what of the log contradicts the trees, or comes behind a batch that is damaged,
    // is left out, and told. So are batches that were called durable.
    using LeftOut = Replay::LeftOut;
    void leave_out(LeftOut left_out) { left_out_ = std::move(left_out); }
    // Steps 1 to 3 by themselves.
    Status read_superblock(Superblock& superblock);
    Status check_superblock(const Superblock& superblock);
    Status check_sizes(const Superblock& superblock);
    Status write_copies(const Superblock& chosen);
    Status apply_journal(const Superblock& superblock);
    // Where the device did not answer in that: writes of it may still come to their places.
    bool stuck() const { return stuck_; }
    Status close_journal(Superblock& superblock);

  private:
    Status read_files(Engine::Recovery& found);
    Status put_images_in_place(const std::vector<JournalEntry>& entries, std::uint64_t images_at);
    Status put_images(const std::vector<JournalEntry>& entries, std::uint64_t images_at,
                      PlaceWriter& places);
    Status lengthen_journal(Superblock& superblock);
    Result<bool> is_new();
    Status format();
    Status read_chunks(const Superblock& superblock, ChunkDirectory& directory);
    Status read_directory(const Superblock& superblock, ChunkDirectory& directory);
    Status load_system_tables();
    Status begin_new_life(WalStart& start, Csn newest);
    std::uint64_t random() { return options_.random ? options_.random() : 0; }
    void say(int level, const std::string& line) const;
    void tell(const std::function<std::string()>& state);
    std::uint64_t lap();

    Storage& storage_;
    const EngineOptions& options_;
    LeftOut left_out_;
    bool raises_journal_ = false;
    bool stuck_ = false;
    BlockingIo io_;
    std::uint64_t told_ns_ = 0;  // when tell() last did
    std::uint64_t lap_ns_ = 0;   // when lap() was last asked
};

}  // namespace bidstore
