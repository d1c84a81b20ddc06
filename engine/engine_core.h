// The engine's inside: its parts, and one round of its loop as a list of small steps.
//
// A request that cannot go on is parked, one per client, and until it went on nothing is taken from
// its client's ring but page requests: so the order of a session's writes is the order of its ring.
//
// Who:    the engine thread alone; tests and verify look at the parts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/bulk_load.h"
#include "engine/checkpoint_pace.h"
#include "engine/client_port.h"
#include "engine/commit.h"
#include "engine/engine.h"
#include "engine/executor.h"
#include "engine/extent_move.h"
#include "engine/gated_disk.h"
#include "engine/page_waits.h"
#include "engine/session_bound.h"
#include "engine/sessions.h"
#include "engine/storage.h"
#include "shm/doorbell.h"
#include "shm/message.h"
#include "shm/stats.h"

namespace bidstore {

class Engine::Core {
  public:
    Core(const EngineOptions& options, Disk& disk, Clock& clock, Clients& clients,
         PoolSegment& pool);

    Status open();
    // False: the device did not answer in time, and may still write to what this has.
    bool end_requests();
    EngineRound run_once(std::uint64_t max_sleep_ns);

    const Engine::Recovery& recovery() const { return recovery_; }
    const std::string& fence_reason() const { return fence_reason_; }
    Storage& storage() { return storage_; }
    Commit& commit() { return *commit_; }
    const PageWaits& page_waits() const { return page_waits_; }
    ClientPort& port() { return port_; }
    // Pages that dropped tables have yet to give back. Of those that are stuck none come.
    bool pages_to_come() const;
    bool extent_move_is_over() const { return extent_move_.idle(); }
    const std::vector<std::unique_ptr<BulkLoad>>& loads() const { return loads_; }

  private:
    // Why a request waits.
    enum class Wait : std::uint8_t {
        kNone,  // it is done
        kPage,  // for a page to come into the pool
        kRoom,  // for frames, log, journal or space
        kTurn,  // while writers are slowed, or for the load that it belongs to
        kCopy,  // for its own reads and writes: in want of nothing
    };
    // Pages that are freed up to here may still be enough; then those up to another csn, and so on.
    struct Chances {
        Csn up_to;
        std::uint32_t taken = 0;
    };
    struct Parked {
        ClientRequest request;
        std::vector<std::byte> payload;
        Wait wait = Wait::kNone;
        PageId page;
        std::uint64_t taken_ns = 0;
        Chances chances;
    };

    struct RetentionWalk {            // over a table's inner nodes
        std::vector<std::byte> from;  // where it goes on; empty: at the beginning
        std::uint64_t next_ns = 0;
        std::uint64_t floor = 0;       // where it began: what it looked at first was held to that
        bool asked = false;            // it has leaves that the next walk decides about
        std::uint64_t done_floor = 0;  // of the last whole walk, when it decided about all leaves
    };

    struct Compaction {                     // the one that is under way
        std::uint64_t client_id = 0;        // whose; 0: nobody's
        std::uint64_t heard_ns = 0;         // when it asked for a step the last time
        Csn begun;                          // what was freed up to here comes back first
        std::vector<TableId> sparse;        // tables whose leaves were not all looked at
        std::vector<std::byte> merged;      // of the last one, up to here
        std::uint64_t looked = 0;           // leaves, by the step under way
        std::vector<std::uint32_t> chunks;  // being emptied, the last of the file first
        std::vector<std::uint32_t> kept;    // that something keeps from being emptied
        std::vector<TableId> tables;        // with extents in them; rows are looked through
        std::vector<std::byte> walked;      // of the last one, up to here
        bool waits_for_pause = false;       // give_back() comes when no checkpoint runs
        std::uint32_t punching = 0;         // the chunk that growth punches
        std::uint32_t filling = 0;          // the one that it fills, so that the file ends sooner
        std::uint64_t holes_bytes = 0;      // that a cut gives back, and that were no blocks
        std::uint64_t given_back_bytes = 0;
        std::uint64_t moved = 0;           // by the step under way
        PageId damaged;                    // what stopped it
        Error error = Error::kCorruption;  // and how
    };

    struct ExtentSweep {  // over the chunks, for extents of dead rows
        std::uint32_t chunk = 0;
        std::uint64_t next_ns = 0;
        std::uint64_t mark = 0;  // expiries_ when it began
        std::uint64_t done = 0;  // mark of the last whole sweep
    };

    // ---- the steps of a round ----
    bool take_commands();
    bool take_requests();
    bool retry_parked();
    bool anyone_waits() const;
    bool pump_commit() { return commit_->pump(); }
    bool pump_checkpoint();
    bool after_publication();
    bool relieve_pool();
    bool pump_growth();
    bool drop_tables();
    void finish_drop(TableEntry& table);
    enum class Drop : std::uint8_t {
        kStep,   // some of it went
        kWaits,  // for a page, or for room
        kStuck,  // damage is in its way, or a journal or pool that is too small
    };
    bool others_come_first() const;
    Drop drop_leaves_of(TableEntry& table, bool small);
    void tell_of_stuck_drop(const TableEntry& table);
    bool retain();
    bool expire_sessions();
    bool poll_disk(std::uint64_t timeout_ns);
    void watch_device(std::uint64_t now_ns);
    void tick();
    void sleep(std::uint64_t max_sleep_ns);
    bool lingers(bool worked);
    bool stopped();

    // ---- clients ----
    void attach(const ClientCommand& command);
    bool try_attach(const ClientCommand& command);
    void detach(std::uint64_t client_id);
    Session* session_of(std::uint64_t client_id);

    bool in_use(const std::vector<std::byte>& session_key) const;
    bool expire_session(TableEntry& table, const std::vector<std::byte>& key);

    // ---- requests ----
    void handle(const ClientRequest& request, std::uint64_t taken_ns);
    void count_time(std::uint64_t client_id, std::uint64_t began_ns, std::uint64_t ended_ns);
    Wait attempt(const ClientRequest& request, std::uint64_t taken_ns, PageId& page);
    Wait handle_transaction(const ClientRequest& request, std::uint64_t taken_ns, PageId& page);
    Wait apply(const ClientRequest& request, Session& session, std::uint64_t taken_ns,
               PageId& page);
    void refuse(const ClientRequest& request, Session& session, Error error,
                std::uint32_t operation);
    // Why a change cannot be made, now or ever.
    struct Refused {
        Error error = Error::kOk;
        std::uint32_t limit = kNoOperation;  // kTooLarge: kLimitPool, ...
    };
    // reserve: pages of the file that have to be left behind. extents: pages of each one that the
    // change takes; they are reserved when the answer is kNone without a refusal.
    Wait secure(const Room& room, std::uint32_t log_bytes, Refused& refused,
                std::uint64_t reserve = 0, std::span<const ExtentNeed> extents = {});
    Wait secure_space(std::uint64_t pages, std::span<const ExtentNeed> extents, Error& refusal);
    bool freed_pages_may_do();
    std::string why_full() const;
    void serve_again();
    bool grow();
    std::uint64_t frames_of(const Room& room) const;
    std::uint64_t known_of(const Room& room) const;
    std::uint32_t limit_passed(const Room& room, std::uint64_t new_chunks) const;
    std::uint64_t frames_at_most() const;
    Parked& park(const ClientRequest& request, Wait wait, PageId page, std::uint64_t taken_ns);
    void handle_page_request(const ClientRequest& request);
    void on_loaded(PageId page, Error error, const std::string& message, bool news);
    Error bring_in(PageId page);

    // ---- bulk loads ----
    struct Replaced {
        TableEntry* table = nullptr;
        PageId missing;
        Error error = Error::kOk;  // it cannot be replaced
    };
    Wait handle_load(const ClientRequest& request, PageId& page);
    Wait begin_load(const ClientRequest& request, std::span<const std::byte> body, PageId& page);
    Wait load_rows(const ClientRequest& request, std::span<const std::byte> body,
                   std::uint64_t rows);
    void finish_load(const ClientRequest& request, std::uint64_t rows);
    Wait refuse_load(const ClientRequest& request, Error error);
    void fail_load(BulkLoad& load, Error error);
    BulkLoad* load_of(std::uint64_t client_id);
    Replaced replaced_by(const Schema& schema);
    PageId add_catalog_row(TableId id, std::uint32_t row_bytes);
    bool pump_loads();
    bool waits_for_load(std::string_view name, BulkLoad*& before);
    bool loading() const;
    bool advance(BulkLoad& load);
    enum class Found : std::uint8_t { kSome, kLater, kNone };
    bool touches_too_many(const BulkLoad& load) const;
    bool find_pages(BulkLoad& load);
    void extend_ahead(BulkLoad& load);
    Found find_chunks(BulkLoad& load);
    bool waits_for_freed_pages(BulkLoad& load);
    std::string why_no_pages(const BulkLoad& load) const;
    bool copies_ahead(BulkLoad& load);
    bool brings_in(BulkLoad& load, PageId page);
    bool attach_load(BulkLoad& load);
    bool show_load(BulkLoad& load);
    bool drop_orphans();
    // ---- compaction ----
    Wait handle_compact(const ClientRequest& request, PageId& page);
    CompactState compact(std::uint32_t pages, Wait& wait, PageId& page);
    void begin_compaction(std::uint64_t client_id);
    Wait merge_leaves(std::uint32_t limit, PageId& missing);
    void plan_compaction();
    PageId root_in(std::uint32_t chunk, TableId& table);
    void keep_chunk(std::uint32_t chunk);
    Wait move_pages(std::uint32_t limit, PageId& missing);
    Wait move_page(PageId page, PageId& missing);
    TableEntry* owner_of(PageId page);
    Wait move_extents(PageId& missing);
    Wait next_extent(PageId& missing);
    struct MovingValue : TreeAccess {
        bool found = false;
        bool end = false;  // of the table
        ValueReference reference;
    };
    MovingValue find_moving(const TableEntry& table);
    Wait attach_copy(PageId& missing);
    Wait leave_copy();
    bool pump_compaction();
    CompactState give_back();
    void give_back_in_pause();
    bool retired_on_disk() const;
    bool retire_chunks();
    std::uint32_t first_of_tail() const;
    bool punch_chunks();
    void note_growth();
    bool cut_file();
    std::uint64_t behind_file() const;
    void wait_for_checkpoint();
    void wait_for_freed();
    void end_compaction();

    // ---- clients that say nothing any more ----
    void excuse_standstill();
    bool silent(std::uint64_t client_id, std::uint64_t heard_ns) const;
    bool silent(const BulkLoad& load) const;
    BulkLoad* silent_load(bool with_pages);
    void give_up(BulkLoad& load, std::string_view why);
    bool give_up_compaction(std::string_view why);
    bool give_up_for_room();

    // ---- retention ----
    static constexpr Room kFloorRoom{1, 0, 0};
    static constexpr std::uint32_t kFloorLogBytes = Wal::record_bytes(0, sizeof(std::uint64_t));
    std::uint64_t due_floor(const TableEntry& table) const;
    void set_floor(TableEntry& table, std::uint64_t floor);
    bool move_floor(TableEntry& table);
    Status move_floors_before_service();
    bool drop_expired(TableEntry& table);
    std::uint32_t leaves_of_step() const;
    bool enough_to_replay();
    void note_expiry(TableId table, std::uint64_t pages);
    void split_expiry_steps();
    bool sweep_extents();
    bool quarantine_is_full();
    bool dead_extent(TableId table, std::uint32_t newest);
    std::uint64_t sweep_pause_ns() const;

    // ---- room ----
    // False: not now. `starved_since_ns` is the caller's: since when it is so, 0 when it is not.
    bool make_frames(std::uint64_t frames, std::uint64_t& starved_since_ns);
    bool reclaim_for_room();
    bool checkpoint_helps(std::uint64_t missing_frames, std::uint64_t starved_since_ns) const;
    bool evict_and_reclaim(std::uint32_t count);
    void gather_touches();
    bool reclaim(std::uint32_t kept_looks);
    bool sweep();
    std::uint64_t of_readers(std::uint64_t versions) const;
    bool readers_hold_most() const;
    // ---- checkpoints ----
    std::uint64_t log_behind_bytes() const;
    PaceFill pace_fill() const;
    bool checkpoint_due() const;
    void start_checkpoint();
    bool waited_for() const;
    CheckpointSlice checkpoint_slice() const;
    void pace_writers();
    bool let_in();

    void set_mode(EngineMode mode);
    std::string failure() const;
    bool failed();
    void fence(const std::string& reason);
    void update_stats();
    void say(int level, const std::string& line) const;

    // Left in a full file for deletes, recovery, and the longest cascade of splits.
    static constexpr std::uint64_t kReservePages = 64;
    static constexpr std::size_t kLoadsMax = 4;        // at once: each has buffers of its own
    static constexpr std::uint32_t kSweepLooks = 512;  // in a round: some tens of microseconds

    EngineOptions options_;
    GatedDisk disk_;
    Clock& clock_;
    Clients& clients_;
    PoolSegment& pool_segment_;
    StatsWriter stats_;
    Storage storage_;
    ClientPort port_;
    PageWaits page_waits_;
    CheckpointPace pace_;
    std::unique_ptr<Commit> commit_;  // after open()
    std::unique_ptr<Executor> transaction_;
    RoomEstimate housekeeping_room_;
    RoomEstimate load_room_;
    EngineSleep sleep_;
    Engine::Recovery recovery_;
    EngineMode mode_ = EngineMode::kStarting;

    std::vector<ClientCommand> attaching_;
    HeldSnapshots held_;  // by reclaim(), kept for its memory
    std::unordered_map<std::uint64_t, Session*> session_of_client_;
    std::vector<std::unique_ptr<Session>> sessions_;
    std::unordered_map<std::uint64_t, Parked> parked_;  // by client
    Chances* chances_ = nullptr;                        // of the request that is attempted
    std::vector<std::unique_ptr<BulkLoad>> loads_;
    std::uint32_t load_records_ = 0;  // taken in this round
    bool orphans_ = true;             // there may be hidden tables that nobody loads
    std::unordered_map<std::uint32_t, Error> failed_pages_;  // not told to the parked yet

    Compaction compaction_;
    std::vector<std::uint64_t> compactions_given_up_;  // whose clients were not told yet
    ExtentMove extent_move_;  // of the compaction, or, when that has ended, on its way back
    std::unordered_map<std::uint32_t, RetentionWalk> retention_walks_;  // by table id
    ExtentSweep extent_sweep_;
    std::uint32_t unswept_drops_ = 0;  // tables that are gone, but for what they had in extents
    std::uint64_t unswept_mark_ = 1;   // expiries_ at the last of them, or at the start
    struct ExpiryStep {                // one that dropped leaves
        Csn batch;
        std::uint64_t pages;  // that replay changes for it
    };
    std::vector<ExpiryStep> expiry_steps_;  // newer than the checkpoint that began last
    std::uint64_t expiry_pages_ = 0;        // of all that no finished checkpoint has
    std::uint64_t covered_expiry_ = 0;      // of these, what the running one has
    TableId expired_last_;                  // of the newest step
    std::uint64_t expiries_ = 1;            // floors that moved and tables that went, and the start
    std::uint64_t extents_lowered_ = 0;     // Space::lowered() at the last checkpoint
    std::uint64_t next_expiry_ns_ = 0;
    std::uint64_t last_expiry_ns_ = 0;      // the last step of it
    bool evaluated_ = false;                // the request that is handled
    std::vector<std::byte> expiry_cursor_;  // where the walk over the sessions goes on
    bool expiry_walked_ = false;            // once at least
    SessionBound session_bound_{options_.session_rows_max};
    bool stuck_drop_told_ = false;
    std::uint64_t next_small_drop_ns_ = 0;  // while others come first
    std::uint64_t dropped_ns_ = 0;          // the last time that a drop went on
    bool checkpoint_wanted_ = false;        // the next one is waited for
    bool checkpoint_hurries_ = false;       // so is the one that runs
    std::uint32_t writers_let_in_ = ~0u;    // requests that write, that this round still takes
    std::uint64_t slowed_since_ns_ = 0;     // and counted up to; 0: they are not slowed
    std::uint64_t let_in_ns_ = 0;           // the last time that slowed writers were
    std::uint32_t sweep_left_ = 0;  // looks at kept versions that the last checkpoint asks for
    std::uint64_t checkpoint_began_ns_ = 0;
    std::uint64_t last_checkpoint_ns_ = 0;
    std::uint64_t no_counting_before_ns_ = 0;  // of versions that clients hold
    std::uint64_t last_tick_ns_ = 0;
    std::uint64_t last_round_ns_ = 0;          // of those with a load or a compaction; else 0
    std::uint64_t device_quiet_since_ns_ = 0;  // 0: it owes no answer, or gave one
    bool device_answered_ = false;             // since the last tick
    bool device_named_ = false;                // in the log, as one that does not answer
    std::uint64_t growth_failed_ns_ = 0;  // the file system was full; 0 when the last one succeeded
    std::string growth_failure_;
    std::uint64_t wanted_pages_ = 0;  // the greatest need that was not met since the last growth
    std::uint64_t no_eviction_before_ns_ = 0;
    std::uint64_t no_reclaim_before_ns_ = 0;  // for room: the last one freed nothing
    std::uint64_t idle_since_ns_ = 0;         // 0: something was done in the last round
    std::uint64_t idle_gap_ns_ = 0;           // how long such idleness lasts, a moving average
    std::uint64_t evicted_ns_ = 0;            // the last time that pages were
    // No frame could be had since then, for a transaction and for a page.
    std::uint64_t writes_starved_since_ns_ = 0;
    std::uint64_t reads_starved_since_ns_ = 0;
    bool stopping_ = false;
    bool final_checkpoint_done_ = false;
    std::string fence_reason_;
};

}  // namespace bidstore
