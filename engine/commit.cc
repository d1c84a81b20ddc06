#include "engine/commit.h"

#include <algorithm>

#include "shm/hot_path.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kIdleNs = 20'000'000;
// A write costs the engine and the device the same for one row as for a hundred, and a block of the
// log; nobody feels this wait but those who look for a row that was just accepted.
constexpr std::uint64_t kUnwaitedNs = 500'000;
constexpr std::uint32_t kSessionRecordBytes =
    Wal::record_bytes(sizeof(SessionId), Session::kRowBytesAtMost);

std::span<const std::byte> key_of(const SessionId& id) {
    return std::as_bytes(std::span(id.bytes));
}

}  // namespace

Commit::Commit(Pool& pool, Catalog& catalog, ClientPort& port, Disk& disk, Clock& clock,
               StatsWriter& stats, const WalStart& start, const CommitLimits& limits)
    : pool_(pool),
      catalog_(catalog),
      port_(port),
      clock_(clock),
      stats_(stats),
      limits_(limits),
      wal_(
          disk, start,
          [](void* context, const SealedBatch& sealed, const Status& status) {
              static_cast<Commit*>(context)->on_completed(sealed, status);
          },
          this),
      next_csn_(start.newest_csn.value + 1),
      durable_{pool.visible()},
      told_durable_{pool.visible()},
      published_end_(start.end),
      published_time_us_(start.newest_time_us) {}

bool Commit::open() {
    if (failed()) return false;
    if (wal_.is_open()) return true;
    wal_.begin();
    open_.csn = Csn{next_csn_++};
    open_.opened_ns = clock_.monotonic_ns();
    pool_.begin_batch(open_.csn);
    return true;
}

bool Commit::fits(std::uint32_t record_bytes) const {
    return wal_.fits(record_bytes + open_session_bytes_ + kSessionRecordBytes);
}

bool Commit::log_room(std::uint32_t record_bytes, std::uint64_t log_position) const {
    const std::uint32_t bytes = std::max<std::uint32_t>(wal_.bytes(), sizeof(BatchHeader)) +
                                record_bytes + open_session_bytes_ + kSessionRecordBytes;
    return bytes <= wal_.batch_bytes_max() && wal_.room_for(bytes, log_position);
}

void Commit::applied(Session& session, std::uint64_t number, const CallAddress& to,
                     const Executor& transaction, std::uint64_t taken_ns) {
    session.applied(number);
    session.open_number = number;
    if (!has_row(session)) {
        const auto row = session.row(number, clock_.wall_us(), arena_);
        CHECK(catalog_.sessions().tree.put(key_of(session.id()).data(), row).ok());
        session.open_row_bytes = row.size();
    }
    if (!session.in_open_batch) {
        session.in_open_batch = true;
        kept_push(open_sessions_, &session);
        open_session_bytes_ += kSessionRecordBytes;
    }
    ++open_.transactions;
    stats_.add(Counter::kTransactionsApplied);
    stats_.add(Counter::kOperations, transaction.operation_count());
    if (transaction.durability() == Durability::kRelaxed) {
        port_.answer(to, Error::kOk, open_.csn, kNoOperation, transaction.results());
        return;
    }
    Waiting waiting;
    waiting.to = to;
    waiting.first_result = static_cast<std::uint32_t>(open_.results.size());
    waiting.result_count = static_cast<std::uint32_t>(transaction.results().size());
    waiting.taken_ns = taken_ns;
    kept_reserve(open_.results, waiting.result_count);
    open_.results.insert(open_.results.end(), transaction.results().begin(),
                         transaction.results().end());
    kept_push(open_.waiting, waiting);
}

void Commit::answer_later(const CallAddress& to, Error error, std::uint32_t failed_operation) {
    if (error != Error::kOk) stats_.add(Counter::kTransactionsRefused);
    Waiting waiting;
    waiting.to = to;
    waiting.error = error;
    waiting.failed_operation = failed_operation;
    CHECK(!failed());  // the batch that it waits for would be gone
    if (has_content()) {
        kept_push(open_.waiting, waiting);
    } else if (!flying_.empty()) {
        kept_push(flying_.back().waiting, waiting);
    } else {
        port_.answer(to, error, Csn{}, failed_operation);
    }
}

std::uint64_t Commit::interval_ns() const {
    const std::uint64_t asked_ns = limits_.group_commit_interval_ns;
    return waited_for() ? asked_ns : std::max(asked_ns, kUnwaitedNs);
}

bool Commit::time_to_write(std::uint64_t now_ns) const {
    if (!has_content() || wal_.writes_in_flight() > 0) return false;
    if (hurry_ || wal_.bytes() >= limits_.group_commit_bytes) return true;
    if (delayed(now_ns)) return false;
    return now_ns - open_.opened_ns >= interval_ns();
}

std::uint64_t Commit::due_in_ns(std::uint64_t now_ns) const {
    if (!has_content()) return ~std::uint64_t{0};
    const std::uint64_t due =
        std::max(open_.opened_ns + interval_ns(), delay_.until_ns(open_.waiting.size()));
    return due > now_ns ? due - now_ns : 0;
}

bool Commit::pump() {
    if (failed() || !has_content() || wal_.writes_in_flight() > 0) return false;
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (!time_to_write(now_ns)) return false;
    seal_and_write(now_ns);
    return true;
}

// Tree and log need the last state of each alone. Its row is in the batch's version of the leaf
// since the first of its transactions, and is not longer now: no page is taken.
void Commit::log_sessions() {
    TableEntry& table = catalog_.sessions();
    for (Session* session : open_sessions_) {
        const auto row = session->row(session->open_number, clock_.wall_us(), arena_);
        CHECK_OP(row.size(), <=, session->open_row_bytes);
        const Change change = table.tree.put(key_of(session->id()).data(), row);
        CHECK(change.ok() && change.found);
        wal_.append(RecordType::kSession, table.id, key_of(session->id()), row);
        session->in_open_batch = false;
    }
    open_sessions_.clear();
    open_session_bytes_ = 0;
}

void Commit::seal(std::uint64_t now_ns) {
    const HotPath hot("seal a batch");
    log_sessions();
    const SealedBatch sealed = wal_.seal(open_.csn, durable_, clock_.wall_us());
    pool_.end_batch();
    open_.written_ns = now_ns;
    last_write_ns_ = now_ns;
    stats_.add(Counter::kLogWrites);
    stats_.add(Counter::kLogSyncs);
    stats_.add(Counter::kLogBytes, sealed.length_bytes);
    stats_.record(HistogramKind::kBatchTransactions, open_.transactions);
    delay_.went_out(open_.waiting.size());
    kept_push(flying_, std::move(open_));
    open_ = fresh_batch();
    open_touched_ = false;
    hurry_ = false;
    arena_.reset();
}

// The disk is behind a seam: what it does is not this path's.
void Commit::seal_and_write(std::uint64_t now_ns) {
    seal(now_ns);
    wal_.write();
}

Commit::Batch Commit::fresh_batch() {
    if (spare_batches_.empty()) return {};
    Batch batch = std::move(spare_batches_.back());
    spare_batches_.pop_back();
    batch.waiting.clear();
    batch.results.clear();
    batch.transactions = 0;
    return batch;
}

bool Commit::idle(std::uint64_t now_ns, std::uint64_t log_position) {
    if (failed() || !quiet() || told_durable_ == durable_) return false;
    if (now_ns - last_write_ns_ < kIdleNs) return false;
    // One may be open, and empty: of a write that was refused after all.
    if (!log_room(0, log_position) || !open()) return false;
    seal_and_write(now_ns);
    told_durable_ = flying_.back().csn;  // the empty batch itself needs no other one to say so
    return true;
}

void Commit::answer_all(const Batch& batch) {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    for (const Waiting& waiting : batch.waiting) {
        const std::span results(batch.results.data() + waiting.first_result, waiting.result_count);
        const Csn csn = waiting.error == Error::kOk && waiting.taken_ns != 0 ? batch.csn : Csn{};
        port_.answer(waiting.to, waiting.error, csn, waiting.failed_operation, results);
        if (waiting.taken_ns != 0) {
            stats_.record(HistogramKind::kCommitNs, now_ns - waiting.taken_ns);
        }
    }
}

void Commit::answer_unknown(Batch& batch) {
    for (const Waiting& waiting : batch.waiting) {
        port_.answer(waiting.to, Error::kUnknownOutcome);
    }
    batch.waiting.clear();
}

void Commit::answer_all_unknown() {
    answer_unknown(open_);
    for (Batch& batch : flying_) answer_unknown(batch);
}

void Commit::on_completed(const SealedBatch& sealed, const Status& status) {
    const HotPath hot("publish and answer a batch");
    Batch batch = std::move(flying_.front());
    flying_.erase(flying_.begin());
    CHECK(batch.csn == sealed.csn);
    if (!status) {
        const ColdPath cold;
        if (failure_.empty()) failure_ = status.failure().what;
        answer_unknown(batch);
        answer_unknown(open_);
        return;
    }
    durable_ = sealed.csn;
    published_end_ = sealed.end;
    published_time_us_ = sealed.time_us;
    pool_.publish();
    published_ = true;
    stats_.add(Counter::kBatches);
    stats_.set(Counter::kCsnVisible, pool_.visible());
    const std::uint64_t now_ns = clock_.monotonic_ns();
    stats_.record(HistogramKind::kLogWriteNs, now_ns - batch.written_ns);
    answer_all(batch);
    delay_.answered(batch.waiting.size(), open_.waiting.size(), now_ns - batch.written_ns, now_ns);
    kept_push(spare_batches_, std::move(batch));
}

bool Commit::take_published() {
    const bool published = published_;
    published_ = false;
    return published;
}

Csn Commit::eviction_csn(bool& of_its_own) {
    of_its_own = !pool_.has_unpublished();
    return of_its_own ? Csn{next_csn_++} : pool_.oldest_unpublished();
}

}  // namespace bidstore
