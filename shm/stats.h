// The stats page: named 64-bit counters and latency histograms that any process can read.
//
// Who:    one thread of the daemon writes each counter and histogram: the engine thread, but for
//         those that kCounterNames gives to the second thread. A debug build checks it. Anyone
//         reads.
// Order:  none: values are independent of each other, each is right by itself, all accesses are
//         relaxed. A histogram read while it is written may miss the newest values.
// ABI:    the numbers of names never change; new names go to the end.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>

#include "shm/atom.h"
#include "shm/base.h"
#include "shm/layout.h"

namespace bidstore {

enum class Counter : std::uint32_t {
    kCsnVisible = 0,
    kBatches,
    kTransactionsApplied,
    kTransactionsRefused,
    kOperations,
    kRowsPut,
    kRowsDeleted,
    kLogBytes,
    kLogWrites,
    kLogSyncs,
    kPageReads,
    kPageReadErrors,
    kCorruptPages,
    kEvictions,
    kReclaimedVersions,
    kHeldVersions,
    kFreeFrames,
    kFrames,
    kChangedPages,
    kCheckpoints,
    kCheckpointPages,
    kJournalPages,
    kClients,
    kClientsRefused,
    kClientsDropped,
    kRevokedSnapshots,
    kHostileEvents,
    kSessions,
    kChunks,
    kFreePages,
    kDataFileBytes,
    kRecoveryBatches,
    kRecoveryNs,
    kRecoveryLogBytes,
    kFenced,
    kParkedTransactions,
    kCallsAnswered,
    kFloorsMoved,
    kPagesExpired,
    kMarksGathered,
    kPagesMoved,
    kCheckpointStep,
    kLogBehindBytes,
    kWritersSlowedNs,
    kTablesDropping,
    kHeavyTransactions,
    kCount  // not a counter
};

enum class CounterKind : std::uint8_t {
    kTotal,  // only grows during the life of a daemon
    kLevel,  // how many there are now
};

// Who writes a counter.
enum class StatsThread : std::uint8_t {
    kEngine,
    kServer,  // the second thread: connections
};

struct CounterName {
    std::string_view name;
    CounterKind kind;
    std::string_view help;
    StatsThread writer = StatsThread::kEngine;
};

inline constexpr auto kCounterNames = [] {
    using enum CounterKind;
    using enum StatsThread;
    return std::array{
        CounterName{"csn_visible", kLevel, "csn of the newest published batch"},
        CounterName{"batches", kTotal, "batches published"},
        CounterName{"transactions_applied", kTotal, "transactions applied"},
        CounterName{"transactions_refused", kTotal, "transactions answered with an error"},
        CounterName{"operations", kTotal, "operations of applied transactions"},
        CounterName{"rows_put", kTotal, "rows put, inserted, updated or added to"},
        CounterName{"rows_deleted", kTotal, "rows deleted"},
        CounterName{"log_bytes", kTotal, "bytes written to the log"},
        CounterName{"log_writes", kTotal, "writes to the log"},
        CounterName{"log_syncs", kTotal, "syncs of the log, those within a write included"},
        CounterName{"page_reads", kTotal, "pages read from the data file"},
        CounterName{"page_read_errors", kTotal, "page reads that the device refused"},
        CounterName{"corrupt_pages", kTotal, "pages read that failed their checks"},
        CounterName{"evictions", kTotal, "pages evicted from the pool"},
        CounterName{"reclaimed_versions", kTotal, "page versions reclaimed"},
        CounterName{"held_versions", kLevel, "replaced page versions not yet reclaimed"},
        CounterName{"free_frames", kLevel, "frames without a page"},
        CounterName{"frames", kLevel, "frames of the pool"},
        CounterName{"changed_pages", kLevel, "pages changed since the last checkpoint"},
        CounterName{"checkpoints", kTotal, "checkpoints finished"},
        CounterName{"checkpoint_pages", kTotal, "page images written by checkpoints"},
        CounterName{"journal_pages", kTotal, "page images that went through the journal"},
        CounterName{"clients", kLevel, "clients connected", kServer},
        CounterName{"clients_refused", kTotal, "connections refused", kServer},
        CounterName{"clients_dropped", kTotal, "clients cut off for breaking the protocol",
                    kServer},
        CounterName{"revoked_snapshots", kTotal, "snapshots revoked"},
        CounterName{"hostile_events", kTotal, "nonsense seen in client segments"},
        CounterName{"sessions", kLevel, "sessions of clients that are connected"},
        CounterName{"chunks", kLevel, "chunks of the data file"},
        CounterName{"free_pages", kLevel, "pages of the data file without content"},
        CounterName{"data_file_bytes", kLevel, "size of the data file"},
        CounterName{"recovery_batches", kLevel, "batches replayed at the last start"},
        CounterName{"recovery_ns", kLevel, "time that recovery took at the last start"},
        CounterName{"recovery_log_bytes", kLevel, "bytes of log replayed at the last start"},
        CounterName{"fenced", kLevel, "1: the log failed, the daemon is going down"},
        CounterName{"parked_transactions", kLevel, "transactions that wait for a page or for room"},
        CounterName{"calls_answered", kTotal, "calls answered"},
        CounterName{"floors_moved", kTotal, "times that a table's retention moved on"},
        CounterName{"pages_expired", kTotal, "pages that retention dropped"},
        CounterName{"marks_gathered", kTotal, "uses of pages that clients marked, as gathered"},
        CounterName{"pages_moved", kTotal, "pages that compaction moved"},
        CounterName{"checkpoint_step", kLevel,
                    "step of the checkpoint under way (engine/FORMAT.md), 0: none"},
        CounterName{"log_behind_bytes", kLevel, "bytes of log that a restart would replay"},
        CounterName{"writers_slowed_ns", kTotal,
                    "time in which writers were slowed so that a checkpoint stays ahead of them"},
        CounterName{"tables_dropping", kLevel, "dropped tables whose pages are not all free yet"},
        CounterName{"heavy_transactions", kTotal,
                    "transactions that took the engine much longer than is usual"},
    };
}();
static_assert(kCounterNames.size() == static_cast<std::size_t>(Counter::kCount),
              "a counter without a name, or a name without a counter");
static_assert(kCounterNames.size() <= kCounterCount);

enum class HistogramKind : std::uint32_t {
    kCommitNs = 0,       // a durable transaction: taken out of the ring to answered
    kLogWriteNs,         // a write of the log, sync included
    kBatchTransactions,  // transactions per batch
    kPageReadNs,         // a page from the data file
    kCheckpointNs,       // a whole checkpoint
    kCount               // not a histogram
};

inline constexpr std::array<std::string_view, 5> kHistogramNames{
    "commit_ns", "log_write_ns", "batch_transactions", "page_read_ns", "checkpoint_ns"};
static_assert(kHistogramNames.size() == static_cast<std::size_t>(HistogramKind::kCount));
static_assert(kHistogramNames.size() <= kHistogramCount);

// Buckets: four steps per power of two. Bucket 4 * p + q holds the values from (4 + q) * 2^p / 4 to
// just below the next bucket's first. Example: 1000 is 4 * 9 + 3, which holds 896 to 1023.
constexpr std::uint32_t histogram_bucket(std::uint64_t value) {
    if (value < 2) return 0;
    const auto power = static_cast<std::uint32_t>(std::bit_width(value)) - 1;
    const std::uint64_t quarter = power >= 2 ? value >> (power - 2) : value << (2 - power);
    return power * 4 + static_cast<std::uint32_t>(quarter & 3);
}
constexpr std::uint64_t histogram_bucket_first(std::uint32_t bucket) {
    if (bucket == 0) return 0;
    const std::uint32_t power = bucket / 4;
    const std::uint64_t quarter = 4 + bucket % 4;
    return power >= 2 ? quarter << (power - 2) : quarter >> (2 - power);
}
static_assert(histogram_bucket(1000) == 39 && histogram_bucket_first(39) == 896);
static_assert(histogram_bucket(~std::uint64_t{0}) == kHistogramBuckets - 1);

class StatsWriter {
  public:
    explicit StatsWriter(StatsPage& page, StatsThread thread = StatsThread::kEngine)
        : page_(&page), thread_(thread) {}

    // The one writer of the counter calls these: load and store, no locked instruction.
    void add(Counter counter, std::uint64_t amount = 1) { bump(at(counter), amount); }
    void subtract(Counter counter, std::uint64_t amount = 1) { bump(at(counter), 0 - amount); }
    void set(Counter counter, std::uint64_t value) {
        at(counter).store(value, std::memory_order_relaxed);
    }
    void record(HistogramKind kind, std::uint64_t value) {
        Histogram& histogram = page_->histogram[static_cast<std::uint32_t>(kind)];
        bump(histogram.bucket[histogram_bucket(value)], 1);
        bump(histogram.sum, value);
        bump(histogram.count, 1);
    }

  private:
    Atom<std::uint64_t>& at(Counter counter) {
        // A second writer would lose counts: neither of them locks.
        DCHECK(kCounterNames[static_cast<std::size_t>(counter)].writer == thread_);
        return page_->counter[static_cast<std::uint32_t>(counter)];
    }
    static void bump(Atom<std::uint64_t>& word, std::uint64_t amount) {
        word.store(word.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
    }
    StatsPage* page_;
    StatsThread thread_;
};

inline std::uint64_t counter_value(const StatsPage& page, Counter counter) {
    return page.counter[static_cast<std::uint32_t>(counter)].load(std::memory_order_relaxed);
}
inline const Histogram& histogram_of(const StatsPage& page, HistogramKind kind) {
    return page.histogram[static_cast<std::uint32_t>(kind)];
}

// The value below which a share (0 to 1) of the recorded values lies, interpolated within its
// bucket, so off by an eighth of it at most as a rule; 0 when nothing was recorded.
std::uint64_t histogram_quantile(const Histogram& histogram, double share);
// The mean of the recorded values; 0 when there are none.
double histogram_mean(const Histogram& histogram);

}  // namespace bidstore
