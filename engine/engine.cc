#include "engine/engine.h"

#include <algorithm>

#include "engine/blocking_io.h"
#include "engine/engine_core.h"
#include "engine/recovery.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kTickNs = 10'000'000;
constexpr std::uint64_t kDeviceQuietNsMax = 5'000'000'000;
constexpr std::uint64_t kEndNs = 2'000'000'000;
constexpr std::uint64_t kLongGapNs = 1'000'000;  // a gap counts as so long at most
constexpr std::uint64_t kNapNs = 100'000;        // a sleep that no doorbell ends
constexpr std::uint64_t kGatherNapNs = 20'000;   // nor a device
// Whose rows the key directory is told of in a round: little beside what somebody waits for.
constexpr std::uint32_t kLeavesBeside = 1;
constexpr std::uint32_t kLeavesIdle = 4;

}  // namespace

// ---- the facade ----

Engine::Engine(std::unique_ptr<Core> core) : core_(std::move(core)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options, Disk& disk, Clock& clock,
                                             Clients& clients, PoolSegment& pool) {
    CHECK(options.random != nullptr);
    auto core = std::make_unique<Core>(options, disk, clock, clients, pool);
    if (Status opened = core->open(); !opened) {
        end(std::unique_ptr<Engine>(new Engine(std::move(core))));
        return opened.failure();
    }
    return std::unique_ptr<Engine>(new Engine(std::move(core)));
}

// Requests and their buffers are the core's: it stays when the device may still write there.
void Engine::end(std::unique_ptr<Engine> engine) {
    if (!engine->core_->end_requests()) static_cast<void>(engine->core_.release());
}

EngineRound Engine::run_once(std::uint64_t max_sleep_ns) { return core_->run_once(max_sleep_ns); }
const Engine::Recovery& Engine::recovery() const { return core_->recovery(); }
std::string Engine::fence_reason() const { return core_->fence_reason(); }
Engine::Core& Engine::core() { return *core_; }

// ---- opening ----

Engine::Core::Core(const EngineOptions& options, Disk& disk, Clock& clock, Clients& clients,
                   PoolSegment& pool)
    : options_(options),
      disk_(disk, [this] { return !failure().empty(); }),
      clock_(clock),
      clients_(clients),
      pool_segment_(pool),
      stats_(pool.stats()),
      storage_(disk_, clock, pool, stats_,
               [this](PageId page, Error error, const std::string& message, bool news) {
                   on_loaded(page, error, message, news);
               }),
      port_(clients, pool, clock, stats_, {options.max_snapshot_age_ns, options.max_pin_all_ns}),
      page_waits_(port_),
      pace_(options.checkpoint_slice),
      sleep_(pool.header().engine),
      extent_move_(storage_.space, storage_.pool, disk_) {
    storage_.pin_recent_us = options.pin_recent_us;
    storage_.pool.eviction().set_recent_share(options.pin_recent_share);
}

Status Engine::Core::open() {
    // Fewer steps for each page read, where locked memory may be as much as the pool.
    const std::uint64_t frame_bytes =
        pool_segment_.header().frame_count * std::uint64_t{kPageBytes};
    const auto known = disk_.register_memory(pool_segment_.frame(FrameId{0}), frame_bytes);
    if (!known) say(5, "each page read costs more than it need: " + known.failure().what);
    if (known && *known) say(6, "pages are read into buffers that the kernel knows");
    WalStart start;
    bidstore::Recovery recovery(storage_, options_);
    recovery.raise_journal();
    Result<Engine::Recovery> found = recovery.run(start);
    if (!found) return found.failure();
    recovery_ = *found;
    commit_ = std::make_unique<Commit>(
        storage_.pool, *storage_.catalog, port_, disk_, clock_, stats_, start,
        CommitLimits{options_.group_commit_bytes, options_.group_commit_interval_ns});
    transaction_ = std::make_unique<Executor>(*storage_.catalog);
    stats_.set(Counter::kRecoveryBatches, recovery_.batches);
    stats_.set(Counter::kRecoveryNs, recovery_.elapsed_ns);
    stats_.set(Counter::kRecoveryLogBytes, recovery_.log_bytes);
    stats_.set(Counter::kFrames, storage_.pool.frame_count());
    stats_.set(Counter::kCsnVisible, storage_.pool.visible());
    last_checkpoint_ns_ = clock_.monotonic_ns();
    if (Status moved = move_floors_before_service(); !moved) return moved;
    storage_.recovering = false;
    tick();
    set_mode(EngineMode::kServing);
    pool_segment_.announce();
    return {};
}

// Reads ahead, or a checkpoint's writes, may be under way. False: they still are. What they would
// be followed by is not begun any more.
bool Engine::Core::end_requests() {
    disk_.close();
    // Of one that has served, clients and the next daemon wait for the end.
    const bool served = mode_ == EngineMode::kFenced || stopping_;
    const std::uint64_t deadline_ns =
        clock_.monotonic_ns() + (served ? kEndNs : BlockingIo::kDeadlineNs);
    while (disk_.in_flight() > 0 && clock_.monotonic_ns() < deadline_ns) disk_.poll(kTickNs);
    return disk_.in_flight() == 0;
}

void Engine::Core::set_mode(EngineMode mode) {
    mode_ = mode;
    pool_segment_.header().engine.mode.store(mode);
}

void Engine::Core::say(int level, const std::string& line) const {
    if (options_.log) options_.log(level, line);
}

// After a failed write nothing is known about the device: no answer, no publication, no further
// write (engine/gated_disk.h). The process exits, and recovery decides.
void Engine::Core::fence(const std::string& reason) {
    if (mode_ == EngineMode::kFenced) return;
    fence_reason_ = reason;
    set_mode(EngineMode::kFenced);
    stats_.set(Counter::kFenced, 1);
    say(2, "fenced: " + reason);
    if (commit_) commit_->answer_all_unknown();
    port_.flush();
}

// ---- the loop ----

// Whatever fails ends the round: the steps behind it would write, or answer, as if it had not.
EngineRound Engine::Core::run_once(std::uint64_t max_sleep_ns) {
    // Drops come early: an open batch that writers filled has no room for a step of theirs.
    constexpr bool (Core::*kSteps[])() = {&Core::take_commands,   &Core::drop_tables,
                                          &Core::retry_parked,    &Core::pump_loads,
                                          &Core::take_requests,   &Core::relieve_pool,
                                          &Core::pump_growth,     &Core::pump_compaction,
                                          &Core::retain,          &Core::expire_sessions,
                                          &Core::pump_commit,     &Core::after_publication,
                                          &Core::pump_checkpoint, &Core::sweep};
    if (mode_ == EngineMode::kFenced) return EngineRound::kFenced;
    bool worked = poll_disk(0);
    pace_writers();
    excuse_standstill();
    for (const auto step : kSteps) {
        if (failed()) return EngineRound::kFenced;
        worked |= (this->*step)();
    }
    if (failed()) return EngineRound::kFenced;
    port_.flush();
    worked |= storage_.enter_rows(worked ? kLeavesBeside : kLeavesIdle);
    tick();
    if (stopped()) return EngineRound::kStopped;
    if (lingers(worked)) return worked ? EngineRound::kWorked : EngineRound::kIdle;
    if (worked) return EngineRound::kWorked;
    storage_.pool.directory().settle();
    sleep(max_sleep_ns);
    return EngineRound::kIdle;
}

// What failed of all that has to hold: from then on no file changes any more. Empty: nothing did.
std::string Engine::Core::failure() const {
    if (commit_ && commit_->failed()) return commit_->failure();
    const Checkpointer* checkpointer = storage_.checkpointer.get();
    if (checkpointer != nullptr && !checkpointer->failure().empty()) {
        return checkpointer->failure();
    }
    return storage_.space.growth().failure();
}

// The engine is fenced, or is now.
bool Engine::Core::failed() {
    if (const std::string reason = failure(); !reason.empty()) fence(reason);
    return mode_ == EngineMode::kFenced;
}

bool Engine::Core::poll_disk(std::uint64_t timeout_ns) {
    const bool answered = disk_.poll(timeout_ns) > 0;
    device_answered_ |= answered;
    return answered;
}

// A device that hangs keeps its requests, and what they write to: there is nothing to be done here
// but to name it. Writers wait, each until its own deadline; what is in the pool is still read.
void Engine::Core::watch_device(std::uint64_t now_ns) {
    const bool waits = disk_.in_flight() > 0 && !std::exchange(device_answered_, false);
    if (!waits) {
        if (device_named_) say(4, "the device answers again");
        device_named_ = false;
        device_quiet_since_ns_ = 0;
        return;
    }
    if (device_quiet_since_ns_ == 0) device_quiet_since_ns_ = now_ns;
    if (device_named_ || now_ns - device_quiet_since_ns_ < kDeviceQuietNsMax) return;
    device_named_ = true;
    say(2, "the device has answered none of " + std::to_string(disk_.in_flight()) +
               " requests to " + disk_.path(StoreFile::kData) + ", log and journal for " +
               std::to_string(kDeviceQuietNsMax / 1'000'000'000) +
               " s: writes and reads of what is not in memory wait; look at the kernel's log and "
               "at the device");
}

// With a log write under way its completion is the next event that matters, and it is near: the
// doorbell (a system call of the client) is not worth it. Nor is it for each of the relaxed writes
// that come one after the other while a batch of them is gathered; a durable one, or a page
// request, that comes then waits for a nap, so they are short.
void Engine::Core::sleep(std::uint64_t max_sleep_ns) {
    if (options_.spin || max_sleep_ns == 0) return;
    if (commit_->in_flight()) {
        // One that rings all the same would end all naps of this write, and an engine that is awake
        // keeps a processor from the kernel's thread that ends it.
        if (!poll_disk(std::min(max_sleep_ns, kNapNs))) clients_.drain_doorbell();
        return;
    }
    max_sleep_ns = std::min(max_sleep_ns, commit_->due_in_ns(clock_.monotonic_ns()));
    if (commit_->gathers()) {
        poll_disk(std::min(max_sleep_ns, kGatherNapNs));
        clients_.drain_doorbell();  // one that rang late would end all further naps
        return;
    }
    // Frames come back when a reader ends, which rings no bell.
    const bool starved = !parked_.empty() || !loads_.empty() || storage_.loader.waits_for_frames();
    const bool paced = storage_.checkpointer->running();  // its next piece is due soon
    if (starved || paced) max_sleep_ns = std::min(max_sleep_ns, kTickNs / 10);
    if (const std::uint64_t rest_ns = port_.rest_ns(); rest_ns > 0) {
        max_sleep_ns = std::min(max_sleep_ns, rest_ns);
    }
    sleep_.announce();
    if (!port_.any_news()) poll_disk(max_sleep_ns);
    sleep_.cancel();
    clients_.drain_doorbell();
}

// Whether to look again at once rather than sleep. To sleep and to be woken costs some ten
// microseconds on either side, about as much as a fast device takes to read a page: while there are
// misses, short gaps between them are waited out awake. Where gaps are long (a slow device) this
// does not begin; where they become long it ends after options_.linger_ns, once. The moment for
// which a batch is kept back is waited out awake, too.
bool Engine::Core::lingers(bool worked) {
    if (options_.linger_ns == 0) return false;
    if (!worked && commit_->delayed(clock_.monotonic_ns())) return true;
    if (worked && idle_since_ns_ == 0) return false;  // no clock is read in a busy stretch
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (worked) {
        const std::uint64_t gap_ns = std::min(now_ns - idle_since_ns_, kLongGapNs);
        idle_gap_ns_ = (idle_gap_ns_ * 7 + gap_ns) / 8;
        idle_since_ns_ = 0;
        return false;
    }
    if (idle_since_ns_ == 0) idle_since_ns_ = now_ns;
    const std::uint64_t quiet_ns = now_ns - storage_.loader.last_read_ns();
    const bool misses = storage_.loader.loading() > 0 || quiet_ns < options_.linger_ns;
    return misses && idle_gap_ns_ < options_.linger_ns &&
           now_ns - idle_since_ns_ < options_.linger_ns;
}

void Engine::Core::tick() {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    // The final checkpoint calls all durable: a batch behind it would be left for the next start.
    const bool may_go_idle = commit_ && !stopping_;
    if (may_go_idle && commit_->idle(now_ns, storage_.checkpointer->log_start())) return;
    if (last_tick_ns_ != 0 && now_ns - last_tick_ns_ < kTickNs) return;
    last_tick_ns_ = now_ns;
    pool_segment_.header().engine.heartbeat_ns.store(now_ns);
    watch_device(now_ns);
    if (commit_) reclaim(kSweepLooks);  // ends leases, too
    if (commit_) gather_touches();
    const std::uint64_t held_max = options_.max_held_bytes / kPageBytes;
    const bool all_looked_at = sweep_left_ == 0;
    const std::uint64_t held = of_readers(storage_.pool.retired());
    if (held > held_max && all_looked_at && now_ns >= no_counting_before_ns_) {
        const std::uint64_t began_ns = clock_.thread_ns();
        if (port_.revoke_greediest(storage_.pool, held_max)) {
            sweep_left_ = storage_.pool.kept();
            say(4,
                "a snapshot was revoked: the versions kept for its client passed "
                "max_held_bytes");
        }
        // With very many clients within their budgets this is most of a tick. Time in which the
        // thread was put aside is none of it: budgets would be passed for eight times as long.
        const std::uint64_t took_ns = clock_.thread_ns() - began_ns;
        no_counting_before_ns_ = clock_.monotonic_ns() + 8 * took_ns;
    }
    std::erase_if(sessions_, [](const auto& session) {
        return !session->in_open_batch && session->clients == 0;
    });
    update_stats();
}

void Engine::Core::update_stats() {
    const Pool& pool = storage_.pool;
    stats_.set(Counter::kFreeFrames, pool.free_frames());
    stats_.set(Counter::kHeldVersions, pool.retired());
    stats_.set(Counter::kChangedPages, pool.changed_count());
    stats_.set(Counter::kSessions, sessions_.size());
    stats_.set(Counter::kChunks, storage_.space.chunk_count());
    stats_.set(Counter::kFreePages, storage_.space.available() + storage_.space.quarantined());
    stats_.set(Counter::kDataFileBytes, storage_.space.chunk_count() * kChunkBytes);
    stats_.set(Counter::kParkedTransactions, parked_.size());
    stats_.set(Counter::kLogBehindBytes, log_behind_bytes());
    stats_.set(Counter::kTablesDropping, storage_.catalog->dropping().size() + unswept_drops_);
    const CheckpointTotals& totals = storage_.checkpointer->totals();
    stats_.set(Counter::kCheckpoints, totals.finished);
    stats_.set(Counter::kCheckpointPages, totals.pages);
    stats_.set(Counter::kJournalPages, totals.journal_pages);
}

// ---- clients ----

bool Engine::Core::take_commands() {
    bool worked = false;
    ClientCommand command;
    while (clients_.take(command)) {
        worked = true;
        switch (command.kind) {
            case ClientCommand::Kind::kAttach:
                attaching_.push_back(command);
                break;
            case ClientCommand::Kind::kDetach:
                detach(command.client_id);
                break;
            case ClientCommand::Kind::kStop:
                stopping_ = true;
                set_mode(EngineMode::kStopping);
                break;
        }
    }
    std::erase_if(attaching_, [this](const ClientCommand& waiting) { return try_attach(waiting); });
    return worked;
}

// False: the session's row is on its way, or its former connection is still being let go.
bool Engine::Core::try_attach(const ClientCommand& command) {
    if (stopping_) {
        clients_.attached(command.client_id, Error::kStopping, 0);
        return true;
    }
    for (const auto& [client_id, session] : session_of_client_) {
        if (session->id() != command.session) continue;
        if (session->uid() != command.uid) {
            clients_.attached(command.client_id, Error::kDenied, 0);
            return true;
        }
        port_.cut_off(client_id, CutOff::kReplaced,
                      "its session was taken over by a new connection");
        return false;
    }
    const auto key = std::as_bytes(std::span(command.session.bytes));
    const Lookup row = storage_.catalog->sessions().tree.get(key.data());
    Error error = row.ok() ? Error::kOk : Error::kCorruption;
    if (row.missing) {
        // Of a read that failed the client is told so, and asks again: it is no damage.
        const auto failed = failed_pages_.find(row.missing.value);
        error = failed != failed_pages_.end() ? failed->second : bring_in(row.missing);
        if (error == Error::kOk) return false;
    }
    if (row.ok() && row.found &&
        column_integer(sessions_schema(), kSessionsUid, key.data(), row.value) != command.uid) {
        clients_.attached(command.client_id, Error::kDenied, 0);
        return true;
    }
    if (error != Error::kOk) {
        clients_.attached(command.client_id, error, 0);
        return true;
    }
    auto session = std::make_unique<Session>(command.session, command.uid);
    const auto known = std::find_if(sessions_.begin(), sessions_.end(), [&](const auto& other) {
        return other->id() == command.session;
    });
    // One that has applied nothing yet has no row.
    if (known != sessions_.end() && (*known)->uid() != command.uid) {
        clients_.attached(command.client_id, Error::kDenied, 0);
        return true;
    }
    Session* owner = known != sessions_.end() ? known->get() : session.get();
    if (owner == session.get()) {
        if (row.found && !owner->load(key.data(), row.value)) {
            say(4, "a session of user " + std::to_string(command.uid) +
                       " is refused: its row in the table of sessions is not one that we write");
            clients_.attached(command.client_id, Error::kCorruption, 0);
            return true;
        }
        sessions_.push_back(std::move(session));
    }
    session_of_client_[command.client_id] = owner;
    ++owner->clients;
    port_.attach(command, owner->decided());
    clients_.attached(command.client_id, Error::kOk, owner->decided());
    return true;
}

void Engine::Core::detach(std::uint64_t client_id) {
    std::erase_if(attaching_, [&](const auto& waiting) { return waiting.client_id == client_id; });
    parked_.erase(client_id);
    if (BulkLoad* load = load_of(client_id)) {
        load->abandon();
        orphans_ = true;
    }
    if (compaction_.client_id == client_id) end_compaction();
    std::erase(compactions_given_up_, client_id);
    if (Session* session = session_of(client_id)) --session->clients;
    session_of_client_.erase(client_id);
    page_waits_.forget(client_id);
    storage_.loader.forget(client_id);
    port_.detach(client_id);
    clients_.detached(client_id);
}

Session* Engine::Core::session_of(std::uint64_t client_id) {
    const auto found = session_of_client_.find(client_id);
    return found == session_of_client_.end() ? nullptr : found->second;
}

// ---- stopping ----

// Everything published, then a checkpoint of it: the next start has nothing to replay.
bool Engine::Core::stopped() {
    if (!stopping_) return false;
    commit_->hurry();
    Checkpointer& checkpointer = *storage_.checkpointer;
    if (!commit_->quiet() || checkpointer.running()) return false;
    if (!storage_.space.growth().idle() || !loads_.empty() || !extent_move_.quiet()) return false;
    const bool covered = storage_.superblock.log_position == commit_->published_end().position;
    if (covered && storage_.pool.changed_count() == 0) return true;
    if (final_checkpoint_done_) return true;
    final_checkpoint_done_ = true;
    if (storage_.pool.visible() <= checkpointer.covered().value) return true;
    start_checkpoint();
    return false;
}

}  // namespace bidstore
