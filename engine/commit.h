// Group commit: the life of a batch, from its first transaction to the answers.
//
//   open ──seal, one durable write──► in flight ──completed──► published, answered
//
//   1 fill     transactions change the open batch's private page versions and append records
//   2 seal     the sessions' rows get their last state, and join the records; the batch gets its
//              place in the log and its CRC
//   3 write    one durable write; the next batch fills meanwhile
//              crash before 4: the batch is there whole or not at all; nobody was told
//   4 publish  page map entries, then visible (release): readers see all of it
//   5 answer   call slots, one wake per client
//
// A batch goes out as soon as no other one is in flight; interval and bytes bound the wait. One
// that nobody waits for (relaxed writes alone) is given half a millisecond, or until it has those
// bytes. Those who were just answered are given a moment to come back (engine/commit_delay.h).
// Results computed from unpublished batches, refusals included, wait for those batches.
//
// Who:    the engine thread alone.
// Errors: a failed log write is final: failed(); pending answers become kUnknownOutcome.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/client_port.h"
#include "engine/clock.h"
#include "engine/commit_delay.h"
#include "engine/pool.h"
#include "engine/sessions.h"
#include "engine/space.h"
#include "engine/wal.h"
#include "shm/stats.h"

namespace bidstore {

struct CommitLimits {
    std::uint64_t group_commit_bytes = 64u << 10;
    std::uint64_t group_commit_interval_ns = 0;
};

class Commit {
  public:
    Commit(Pool& pool, Catalog& catalog, ClientPort& port, Disk& disk, Clock& clock,
           StatsWriter& stats, const WalStart& start, const CommitLimits& limits);

    // ---- the open batch ----
    // Opens one if none is open; false while none can be (the log is behind).
    bool open();
    bool is_open() const { return wal_.is_open(); }
    // Whether a transaction of so many record bytes still goes into the open batch, its session's
    // row counted, and the log has room for it behind log_position.
    bool fits(std::uint32_t record_bytes) const;
    bool log_room(std::uint32_t record_bytes, std::uint64_t log_position) const;
    Wal& wal() { return wal_; }
    // Whether the session's row is in the open batch and need not grow: applied() changes no page
    // then, and sealing puts the last state where the row is.
    bool has_row(const Session& session) const {
        return session.in_open_batch && session.row_bytes() <= session.open_row_bytes;
    }
    // The transaction was applied: its session's row follows, its answer waits (or, relaxed, goes
    // out now).
    void applied(Session& session, std::uint64_t number, const CallAddress& to,
                 const Executor& transaction, std::uint64_t taken_ns);
    // An answer that depends on what is not published yet: goes out with it, or at once.
    void answer_later(const CallAddress& to, Error error, std::uint32_t failed_operation);
    // Something physical rides in the open batch, which is to be written also without a record.
    void touch() { open_touched_ = true; }

    // ---- moving on ----
    // Seals and writes the open batch if it is time; true if it did.
    bool pump();
    // How long the open batch still waits for company; ~0 when none does.
    std::uint64_t due_in_ns(std::uint64_t now_ns) const;
    // The engine is fenced: whoever waits is told that the outcome is unknown.
    void answer_all_unknown();
    // Do not wait for company: the next pump() writes what there is.
    void hurry() { hurry_ = true; }
    // An empty batch that calls the newest one durable, once the log is idle.
    bool idle(std::uint64_t now_ns, std::uint64_t log_position);
    bool in_flight() const { return wal_.writes_in_flight() > 0; }
    bool quiet() const { return !in_flight() && !has_content(); }
    // The open batch has records, and is given time because nobody waits for it.
    bool gathers() const { return has_content() && !waited_for(); }
    // The next batch is kept back for those who were just answered.
    bool delayed(std::uint64_t now_ns) const {
        return !in_flight() && now_ns < delay_.until_ns(open_.waiting.size());
    }
    bool failed() const { return !failure_.empty(); }
    const std::string& failure() const { return failure_; }
    // A batch was published since the last call.
    bool take_published();

    // ---- csns ----
    Csn durable() const { return durable_; }
    std::uint64_t published_time_us() const { return published_time_us_; }
    // Csn that an eviction round of this moment gets: that of the next publication, or a csn of its
    // own, which the caller then makes visible with Pool::advance_visible().
    Csn eviction_csn(bool& of_its_own);
    // The newest csn there is, that of the open batch counted.
    Csn newest() const { return Csn{next_csn_ - 1}; }
    // Where a checkpoint of everything published starts the log.
    LogPoint published_end() const { return published_end_; }

  private:
    struct Waiting {
        CallAddress to;
        Error error = Error::kOk;
        std::uint32_t failed_operation = kNoOperation;
        std::uint32_t first_result = 0;
        std::uint32_t result_count = 0;
        std::uint64_t taken_ns = 0;
    };
    struct Batch {
        Csn csn;
        std::vector<Waiting> waiting;
        std::vector<std::int64_t> results;
        std::uint64_t opened_ns = 0;
        std::uint64_t written_ns = 0;
        std::uint64_t transactions = 0;
    };

    bool has_content() const {
        return wal_.is_open() &&
               (wal_.record_count() > 0 || !open_sessions_.empty() || open_touched_);
    }
    // For an answer of the open batch, or for what its publication sets free.
    bool waited_for() const { return hurry_ || open_touched_ || !open_.waiting.empty(); }
    std::uint64_t interval_ns() const;
    bool time_to_write(std::uint64_t now_ns) const;
    void seal(std::uint64_t now_ns);
    void seal_and_write(std::uint64_t now_ns);
    void log_sessions();
    Batch fresh_batch();
    void on_completed(const SealedBatch& sealed, const Status& status);
    void answer_all(const Batch& batch);
    void answer_unknown(Batch& batch);

    Pool& pool_;
    Catalog& catalog_;
    ClientPort& port_;
    Clock& clock_;
    StatsWriter& stats_;
    CommitLimits limits_;
    Wal wal_;
    std::uint64_t next_csn_;
    Csn durable_;
    Csn told_durable_;  // newest csn that a batch in the log calls durable
    LogPoint published_end_;
    std::uint64_t published_time_us_;  // of the newest batch, at first that of a former life
    Batch open_;
    std::vector<Batch> flying_;         // oldest first; as many as the log writes at a time
    std::vector<Batch> spare_batches_;  // their memory, for the next ones
    std::vector<Session*> open_sessions_;
    std::uint32_t open_session_bytes_ = 0;
    bool open_touched_ = false;
    bool hurry_ = false;
    bool published_ = false;
    std::uint64_t last_write_ns_ = 0;
    CommitDelay delay_;
    std::string failure_;
    Arena arena_;
};

}  // namespace bidstore
