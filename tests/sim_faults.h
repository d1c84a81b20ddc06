// The faults of a simulated run: which, and when. What they may be is said in tests/sim_disk.h.
#pragma once

#include <cstdint>
#include <random>
#include <utility>

#include "tests/sim_counts.h"
#include "tests/sim_disk.h"
#include "tests/sim_findings.h"
#include "tests/sim_life.h"

namespace bidstore {

enum class FaultKind : std::uint8_t {
    kNone,         // clean restarts alone
    kCrashes,      // power loss, process death, also in the middle of a recovery
    kWriteErrors,  // a write or a sync fails: the daemon goes down and comes back
    kReadErrors,   // for a while, of some reads
    kFullDisk,     // and room again
    kRot,          // bits of the files flip, and flip back
    kLies,         // writes are lost, or go elsewhere, and report success
    kAll,          // crashes, write errors, read errors, full disk
};
inline constexpr std::uint32_t kFaultKinds = 8;
const char* fault_name(FaultKind kind);

class SimFaults {
  public:
    // What ends a life is `rarer` by that factor.
    SimFaults(std::mt19937_64& random, Excuses& excuses, SimCounts& counts, FaultKind kind,
              std::uint64_t rarer)
        : random_(random), excuses_(excuses), counts_(counts), kind_(kind), rarer_(rarer) {}

    FaultKind kind() const { return kind_; }
    bool rotten() const { return rotten_; }
    bool crashes() const { return kind_ == FaultKind::kCrashes || kind_ == FaultKind::kAll; }
    // The disk of a new life: slow now and then.
    void watch(SimStore& store);
    // Called before each step of the run: sets what is to happen, or ends it. A crash comes more
    // often in a delicate moment.
    void plan(SimLife& life, bool delicate);
    // Writes and syncs of the life so far; from here on, of the next one.
    std::uint32_t take_writes_failed() { return std::exchange(writes_failed_, 0); }
    // From here on the disk is not to be trusted; what follows can be detected, not undone.
    void begin_lies();
    // Of the log, by the longest write that went elsewhere since then.
    std::uint32_t log_blocks_astray() const { return log_blocks_astray_; }
    // For a start: reads do not fail (a daemon that cannot read its files does not start), and what
    // was rotten is well.
    void mend(SimDisk& disk);
    bool fails_starts() const {
        return kind_ == FaultKind::kWriteErrors || kind_ == FaultKind::kReadErrors ||
               kind_ == FaultKind::kAll;
    }
    // The n-th of the operations of a start that this run lets fail does, perhaps with all that
    // follow. The disk that the next process finds is well.
    void fail_start(SimDisk& disk, std::uint64_t nth);
    // One did, at the last of these.
    bool start_failed() const { return start_failed_; }
    // Nothing happens any more, and what can be mended is mended.
    void end(SimDisk& disk);
    // A crash within the next `steps` disk operations.
    void crash_soon(SimDisk& disk, std::uint64_t steps);

  private:
    void plan_reads(SimLife& life);
    void forget_reads(SimLife& life);
    void plan_room(SimDisk& disk);
    void plan_rot(SimDisk& disk);
    void flip(SimDisk& disk);
    std::uint64_t pick(std::uint64_t below) { return random_() % below; }

    std::mt19937_64& random_;
    Excuses& excuses_;
    SimCounts& counts_;
    FaultKind kind_;
    std::uint64_t rarer_;
    bool armed_ = true;
    std::uint64_t reads_fail_ = 0;     // one in so many; 0: none
    std::uint64_t well_since_ns_ = 0;  // no read fails, and none that did is under way
    std::uint32_t well_steps_ = 0;     // since then
    std::uint32_t writes_failed_ = 0;
    bool start_failed_ = false;
    bool full_ = false;
    bool lies_ = false;
    bool rotten_ = false;
    std::uint64_t crash_at_ = 0;
    std::uint32_t log_blocks_astray_ = 0;
    std::uint32_t log_writes_ = 0;  // since one that was a lie, or since they began
};

}  // namespace bidstore
