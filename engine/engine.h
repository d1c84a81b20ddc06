// The engine: one thread that owns tables, trees, pool, log, space and checkpoints, behind three
// seams (Disk, Clock, Clients). One event loop over completions, rings and timers; no locks.
//
// Who:    one thread constructs, opens, runs and destroys it; a debug build checks the thread.
// Owns:   nothing of what it is given; disk, clock, clients and segment outlive it.
// Errors: open() fails with what is wrong with the files and changes nothing then; a failed write
//         or sync of the log, of a checkpoint or of growth fences the engine (mode kFenced), and
//         run_once() returns kFenced: nothing that changes a file is begun any more
//         (engine/gated_disk.h), the process exits, and recovery is the next start.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/clients.h"
#include "engine/clock.h"
#include "engine/disk.h"
#include "shm/error.h"
#include "shm/segment.h"

namespace bidstore {

struct EngineOptions {
    std::uint64_t log_segment_bytes = 16u << 20;   // multiple of 4 KiB, at least 1 MiB
    std::uint32_t log_segment_count = 8;           // at least 3
    std::uint64_t journal_bytes = 256u << 20;      // bounds the pages that a checkpoint rewrites
    std::uint64_t group_commit_bytes = 64u << 10;  // a batch goes out at this size at the latest
    std::uint64_t group_commit_interval_ns = 0;    // how long a batch waits for company
    // As much log as a restart may have to replay; four segments, or 16 MiB, at least.
    std::uint64_t recovery_log_bytes = 1u << 30;
    std::uint64_t checkpoint_interval_ns = 30'000'000'000;  // begins at the latest so long after
    std::uint32_t checkpoint_slice = 16;  // pages copied for it in a round, 1 to 2 µs each
    std::uint64_t max_snapshot_age_ns = 5'000'000'000;
    std::uint64_t max_pin_all_ns = 20'000'000;             // how long a slot may stay in PIN_ALL
    std::uint64_t max_held_bytes = 256u << 20;             // old versions that one client may hold
    std::uint64_t session_age_us = 7ull * 86'400'000'000;  // a session unused so long is forgotten
    std::uint32_t session_rows_max = 65'536;  // of a user; those unused for longest are forgotten
    std::uint64_t pin_recent_us = 60'000'000;              // leaves with younger rows stay
    double pin_recent_share = 0.5;                         // of the pool, as long as they are less
    // Freed pages that wait until they may be used again, before drops of tables and of expired
    // leaves wait for them: they are listed in memory.
    std::uint64_t quarantine_pages_max = 1u << 18;
    bool spin = false;            // idle = "spin": never sleep
    std::uint64_t linger_ns = 0;  // awake through gaps between misses that are shorter than this
    // 64 random bits, for uuids and salts; must be given (a seeded one in simulation).
    std::function<std::uint64_t()> random;
    // One line for the operator at a time: level as in syslog (3 error, 4 warning, 6 info).
    std::function<void(int level, const std::string& line)> log;
    // What a recovery that takes longer is doing, about once a second; never more than
    // kRecoveryStepNs apart, since a device that does not answer for half of that ends it.
    std::function<void(const std::string& state)> progress;
};
inline constexpr std::uint64_t kRecoveryStepNs = 60'000'000'000;

// Where a recovery's time went.
struct RecoveryTimes {
    std::uint64_t files_ns = 0;     // syncing what a dead process left in caches, superblocks
    std::uint64_t journal_ns = 0;   // an unfinished checkpoint, put in place
    std::uint64_t metadata_ns = 0;  // of all chunks, and the system tables
    std::uint64_t read_ns = 0;      // waiting for the log
    std::uint64_t replay_ns = 0;
    std::uint64_t checkpoints_ns = 0;  // in between, when pool or journal filled up
    std::uint64_t rest_ns = 0;         // of the ring, looked through for what would be missing
    std::uint64_t end_ns = 0;          // the superblock of the new life
};

// What run_once() found.
enum class EngineRound : std::uint8_t {
    kWorked,   // something was done
    kIdle,     // nothing to do; it slept up to the time it was allowed
    kStopped,  // kStop is done: final checkpoint on disk
    kFenced,   // the log failed; answer nothing more, exit
};

class Engine {
  public:
    // What recovery found and did, for log and stats.
    struct Recovery {
        bool created = false;             // the files were new
        std::uint32_t journal_pages = 0;  // of an unfinished checkpoint, put in place
        std::uint64_t checkpoint_csn = 0;
        std::uint64_t recovered_csn = 0;  // newest csn kept
        std::uint64_t batches = 0;        // replayed
        std::uint64_t log_bytes = 0;      // replayed
        std::uint64_t records = 0;        // replayed
        std::uint64_t checkpoints = 0;    // made in between
        std::uint64_t elapsed_ns = 0;
        RecoveryTimes times;
        bool clean = false;  // the last stop was clean: nothing to replay
    };

    // Makes the files when all of them are empty, else recovers. Leaves the pool announced (magic
    // written) and the mode kServing.
    static Result<std::unique_ptr<Engine>> open(const EngineOptions& options, Disk& disk,
                                                Clock& clock, Clients& clients, PoolSegment& pool);
    ~Engine();

    // Destroys it. Nothing more is written, but the device may still be at work on buffers of its
    // own: that is waited for, 30 s at most, and what has not come back then is never freed.
    static void end(std::unique_ptr<Engine> engine);

    // One round of the loop; sleeps at most max_sleep_ns when there is nothing to do.
    EngineRound run_once(std::uint64_t max_sleep_ns);

    const Recovery& recovery() const;
    // Why the engine is fenced, naming file, offset and errno; empty otherwise.
    std::string fence_reason() const;

    class Core;
    Core& core();  // for tests and verify: the parts

  private:
    explicit Engine(std::unique_ptr<Core> core);
    std::unique_ptr<Core> core_;
};

}  // namespace bidstore
