// How often a run of the simulation did what: operations, faults, and what the engine made of them.
// What is not counted here is not proven to be in it.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace bidstore {

enum class SimCount : std::uint8_t {
    kSteps,
    // ---- writes ----
    kApplied,
    kRefused,
    kTooLargeAgain,
    kRelaxed,
    kLargeValues,
    kSentAgain,
    // ---- reads ----
    kSnapshots,
    kRowReads,
    kRangeReads,
    kGuestReads,
    kMisses,
    kPagesAskedAhead,
    kLeasesEnded,
    // ---- tables ----
    kCreates,
    kRowChanges,
    kDrops,
    kRetentions,
    kLoads,
    kLoadsShown,
    kLargeLoads,
    kCompactions,
    // ---- clients ----
    kDeaths,
    kTakeOvers,
    kStopsInClaim,
    kStopsAnnounced,
    kStopsEnded,
    kStopsOutlastingLeases,
    // ---- lives ----
    kLives,
    kStops,
    kPowerLosses,
    kProcessDeaths,
    kRecoveryCrashes,
    kReplayCheckpoints,  // of these
    kRefusedStarts,
    kRotInUse,
    kFailedStarts,
    // ---- disk ----
    kWritesFailed,
    kTakenForClean,  // of these
    kReadsFailed,
    kFullDisks,
    kBitsFlipped,
    kWritesLost,
    kWritesMisdirected,
    kLogLies,
    kMisdirectedUnsynced,
    kSlowDisks,
    kPartsTransferred,
    // ---- the engine's own ----
    kCheckpoints,
    kJournalPages,
    kEvictions,
    kFloorsMoved,
    kPagesExpired,
    kPagesMoved,
    kHoles,  // pages, at the ends of lives
    kFences,
    kLogLaps,      // in lives whose end is a choice of the run, as all of these
    kRingLaps,     // of the clients of these
    kChunksGrown,  // from the start of a life to its end
    kCount  // not one of them
};

inline constexpr std::uint32_t kSimCounts = static_cast<std::uint32_t>(SimCount::kCount);

inline constexpr std::array<const char*, kSimCounts> kSimCountNames{
    "steps",
    "transactions applied",
    "transactions refused",
    "transactions too large, sent again to a roomy pool",
    "relaxed writes",
    "large values written",
    "writes sent again",
    "snapshots",
    "reads of rows",
    "scans of shared tables",
    "scans of coming and going tables",
    "page misses",
    "pages asked for without waiting",
    "leases ended",
    "tables made",
    "changes of rows in them",
    "tables dropped",
    "retentions changed",
    "bulk loads begun",
    "bulk loads shown",
    "bulk loads with large values",
    "compactions",
    "clients died",
    "sessions taken over by a new connection",
    "clients stopped in a ring claim",
    "clients stopped in an announcement",
    "clients stopped in a ring claim that went on",
    "readers that stood still beyond their lease and went on",
    "lives of the daemon",
    "clean stops",
    "power losses",
    "process deaths",
    "crashes of recoveries",
    "recoveries with a checkpoint in between, before they crashed",
    "starts refused for damage",
    "starts with a rotten page in use, which the verifier finds",
    "starts that a failing device ended",
    "writes and syncs failed",
    "of these, with content that a page cache then took for clean",
    "reads failed",
    "full disks",
    "bits flipped",
    "writes lost",
    "writes misdirected",
    "of these, of the log",
    "unsynced writes misdirected, as power was lost",
    "slow disks",
    "short transfers",
    "checkpoints",
    "pages through the journal",
    "pages evicted",
    "floors of retention moved",
    "pages expired",
    "pages moved by compaction",
    "pages of holes at the ends of lives",
    "daemons fenced",
    "laps of the log",
    "laps of rings",
    "chunks that the file grew by",
};

class SimCounts {
  public:
    std::uint64_t& operator[](SimCount which) { return of_[static_cast<std::uint32_t>(which)]; }
    std::uint64_t operator[](SimCount which) const {
        return of_[static_cast<std::uint32_t>(which)];
    }
    void add(const SimCounts& other) {
        for (std::uint32_t i = 0; i < kSimCounts; ++i) of_[i] += other.of_[i];
    }
    // A line each.
    std::string table() const {
        std::string text;
        for (std::uint32_t i = 0; i < kSimCounts; ++i) {
            text += std::to_string(of_[i]) + "  " + kSimCountNames[i] + "\n";
        }
        return text;
    }

  private:
    std::array<std::uint64_t, kSimCounts> of_{};
};

}  // namespace bidstore
