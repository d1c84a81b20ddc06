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
    kSentAgainInLife,     // of these, to the daemon that they had been sent to
    kDecidedBeforeAgain,  // of these
    // ---- reads ----
    kSnapshots,
    kRowReads,
    kRangeReads,
    kGuestReads,
    kDirectReads,
    kMisses,
    kRenewals,
    kRests,
    kPagesAskedAhead,
    kLeasesEnded,
    kLeasesForRoom,  // of these
    // ---- tables ----
    kCreates,
    kRowChanges,
    kDrops,
    kRetentions,
    kLoads,
    kLoadsShown,
    kLargeLoads,
    kCompactions,
    kCompactionsBeside,
    kCompactionsTurnedAway,
    kCompactionsGivenUp,
    // ---- clients ----
    kDeaths,
    kTakeOvers,
    kReaderDeaths,
    kSnapshotsOfTheDead,
    kKeeperDeaths,
    kDeathsInLoads,        // of these
    kDeathsInCompactions,  // of these
    kStopsInClaim,
    kStopsAnnounced,
    kStopsEnded,
    kStopsOutlastingLeases,
    // ---- the wall clock ----
    kClockAhead,
    kClockBack,
    kClockAWeekAhead,  // or more, of these
    kSessionsForgotten,
    kSessionsOutlasted,
    // ---- lives ----
    kLives,
    kStops,
    kPowerLosses,
    kProcessDeaths,
    kRecoveryCrashes,
    kReplayCheckpoints,  // of these
    kRefusedStarts,
    kRotInUse,
    kDamagedGuests,
    kDamagedErrors,
    kLooksBeside,
    kFailedStarts,
    // ---- disk ----
    kWritesFailed,
    kTakenForClean,  // of these
    kReadsFailed,
    kReadsForgotten,
    kFullDisks,
    kReadOnly,
    kBitsFlipped,
    kWritesLost,
    kWritesMisdirected,
    kLogLies,
    kLiesInLoads,
    kLiesInCompactions,
    kMisdirectedUnsynced,
    kSlowDisks,
    kBusyDisks,
    kLivesWithSlowedWriters,
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
    "of these, to the same daemon by another connection",
    "of these, decided before that",
    "snapshots",
    "reads of rows",
    "scans of shared tables",
    "scans of coming and going tables",
    "rows found by the key directory",
    "page misses",
    "snapshots that let go of the frames so far",
    "waits in which a reader used no frame",
    "pages asked for without waiting",
    "leases ended",
    "of these, before their time, for want of frames",
    "tables made",
    "changes of rows in them",
    "tables dropped",
    "retentions changed",
    "bulk loads begun",
    "bulk loads shown",
    "bulk loads with large values",
    "compactions",
    "steps of the run in which one went on beside loads and changes of tables",
    "compactions turned away, as another one was under way",
    "compactions given up, of a client that was silent",
    "clients died",
    "sessions taken over by a new connection",
    "processes of readers died",
    "snapshots that these held",
    "keepers died",
    "of these, in a load",
    "of these, in a compaction",
    "clients stopped in a ring claim",
    "clients stopped in an announcement",
    "clients stopped in a ring claim that went on",
    "readers that stood still beyond their lease and went on",
    "times the clock was set ahead",
    "times the clock was set back",
    "times it was set ahead by more than a session lives",
    "sessions forgotten",
    "times that all were gone that were too old",
    "lives of the daemon",
    "clean stops",
    "power losses",
    "process deaths",
    "crashes of recoveries",
    "recoveries with a checkpoint in between, before they crashed",
    "starts refused for damage",
    "starts with a damaged page in use, which the verifier finds",
    "coming and going tables read in damaged files",
    "tables of damaged files that end in an error",
    "looks of the verifier beside the daemon",
    "starts that a failing device ended",
    "writes and syncs failed",
    "of these, with content that a page cache then took for clean",
    "reads failed",
    "times that reads were well again, and none of their errors was an answer any more",
    "full disks",
    "times a full store became read-only",
    "bits flipped",
    "writes lost",
    "writes misdirected",
    "of these, of the log",
    "of these, while a load went on",
    "of these, while a compaction went on",
    "unsynced writes misdirected, as power was lost",
    "slow disks",
    "disks that serve one request after the other",
    "lives in which writers were slowed",
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
