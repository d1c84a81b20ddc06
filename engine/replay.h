// Steps 5 and 6 of recovery (engine/recovery.h): reads the log behind the checkpoint, and applies
// what it says to the trees in the pool.
//
// A record holds effects, so that replay decides nothing: rows get the values that are logged, in
// the order of the log. Pages may come out with other numbers than before the crash, and the same
// log gives the same pages each time.
//
// Nobody reads meanwhile, so no page has two versions: it is changed where it is, by all batches
// between two checkpoints as if they were one. It then has the csn of the first of them, which is
// above the one checkpoint and not above the next: that is all that a page's csn has to say.
//
// Records are looked at some MiB before they are replayed, so that the pages of their rows come
// from the file many at a time, and into the processor's cache before they are used. That only ever
// saves time: it takes no frames but those of pages that can be read again, and none when these
// are few.
//
// Who:    Recovery, on the engine thread, before anybody reads the pool.
// Errors: kCorruption for a log that misses a durable batch, or contradicts the trees, naming csn,
//         position and record; kIoError; kNoSpace; kTooLarge when the pool is too small.
//         The files still hold checkpoint and log then.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/executor.h"
#include "engine/log_reader.h"
#include "engine/storage.h"
#include "engine/wal.h"
#include "shm/error.h"

namespace bidstore {

// Files that contradict themselves or each other: which one, and where.
inline Status corrupt(std::string what) { return {Error::kCorruption, std::move(what)}; }

class Replay {
  public:
    // Hears now and then what is being done.
    using Progress = std::function<void(const std::function<std::string()>& state)>;

    // Hears what of a damaged log is left out. A failure ends the replay: nobody agreed to that.
    using LeftOut = std::function<Status(const std::string& what, bool costs_rows)>;

    // Without `left_out` a damaged log, and a record that contradicts the trees, are kCorruption;
    // with it the log ends before the damage, and the record has no effect.
    Replay(Storage& storage, Progress progress, LeftOut left_out = nullptr);

    // All of the log. Fills in what was found, and where the log's next life starts.
    Status run(Engine::Recovery& found, WalStart& start);
    // Of the newest batch that was replayed.
    Csn newest_csn() const { return replayed_csn_; }

  private:
    static constexpr const char* kPoolTooSmall =
        "recovery: the pool is too small for the log: raise pool_bytes";
    static constexpr std::uint64_t kFramesPerBatch = 64;
    static constexpr int kRowUnknown = -1;
    static constexpr int kNoRow = -2;
    struct Next {
        LogRecordView record;
        // Where its row is: the leaf that the look ahead found, 0 when nobody looked it up, and the
        // row in there, if it was there yet: at first what the key directory thinks.
        PageId leaf;
        int row = kRowUnknown;
    };
    // A batch that was looked at, so that the pages of its rows are on their way.
    struct Ahead {
        LogBatch batch;
        std::vector<Next> records;
        Status fault;                // of the record behind them
        std::uint32_t wanted = 0;    // pages that it had read
        bool erases_ranges = false;  // a record of which may change very many pages
    };
    // What table_of() found, by the id's lower bits.
    struct Known {
        TableId id;
        TableEntry* table = nullptr;
    };
    // A batch that was replayed.
    struct Kept {
        Csn csn;
        std::uint64_t position = 0;
        std::uint64_t length_bytes = 0;
    };
    // A place in ahead_, and the number of its record.
    struct Place {
        std::size_t batch = 0;
        std::size_t record = 0;
        std::uint64_t number = 0;
    };

    // ---- ahead (engine/replay_ahead.cc) ----
    Status look_ahead(LogReader& reader);
    bool far_enough() const;
    void look_at(Ahead& ahead);
    void decode(Ahead& ahead);
    void find_leaves(Ahead& ahead, std::vector<PageId>& missing);
    void look_up(std::vector<Next*>& records) const;
    void descend(const Tree& tree, std::span<Next* const> records, Ahead& ahead,
                 std::vector<PageId>& missing);
    const Tree* tree_ahead(const LogRecordView& record);
    bool come(const std::vector<PageId>& pages);
    void want(PageId page, Ahead& ahead);
    void keep_reading();
    template <class Each>
    void go_on(Place& place, std::uint64_t number, Each each);
    void fetch_near();
    void find_row(Next& next);
    void drop_front();

    // ---- batches ----
    Status replay_all(LogReader& reader, Engine::Recovery& found);
    Status replay_batch(const Ahead& ahead);
    void note_kept(const LogBatch& batch);
    Status write_kept_again();
    Status left_out(const Status& fault, const std::string& what, bool costs_rows = true);
    void open_pages(Csn csn);
    void close_pages();
    Status checkpoint();
    std::uint64_t frames_in_reach() const;
    bool frames_to_spare() const;
    Status make_room(std::uint64_t frames, std::uint64_t extent_pages, bool drops_leaves);
    Status secure_frames(std::uint64_t frames);
    bool may_drop_leaves(const Ahead& ahead);
    Result<bool> pages_in_reach(std::uint64_t pages);

    // ---- records ----
    Status replay_record(const Next& next);
    Status replay_row(const Next& next, TableEntry& table, bool& done);
    Status put_whole(const Next& next, TableEntry& table, bool& done);
    Status add_in_place(const Next& next, TableEntry& table, bool& done);
    Status update_in_place(const Next& next, TableEntry& table, bool& done);
    const std::byte* leaf_of(const Next& next, const TableEntry& table) const;
    std::span<std::byte> value_in(const Next& next, const TableEntry& table);
    Status find_value(const Next& next, TableEntry& table, std::span<std::byte>& value);
    Status effect_of(const LogRecordView& record, Effect& effect);
    // Of ranges: engine/replay_range.cc.
    Status range_effect(const LogRecordView& record, Tree& tree);
    Status drop_dead_leaves(const LogRecordView& record, Tree& tree);
    bool journal_has_room(std::uint64_t nodes_freed) const;
    Status bring_in_range(const LogRecordView& record, const Tree& tree);
    Status loaded_table(const LogRecordView& record);
    Status catalog_place(TableId table);
    Status table_effect(const LogRecordView& record, const TableEntry& table);
    Status row_effect(const LogRecordView& record, Effect& effect);
    TableEntry* table_of(TableId id);
    std::uint64_t extent_pages_of(const LogRecordView& record);
    std::uint64_t extent_pages_of(const Ahead& ahead);

    Storage& storage_;
    const Progress progress_;
    const LeftOut left_out_;
    Arena arena_;
    std::vector<Kept> kept_;  // that no batch behind them calls durable
    LogPoint replayed_;  // behind the last batch that was replayed whole
    Csn replayed_csn_;
    std::uint64_t replayed_time_us_ = 0;
    Csn replaying_;  // the batch that is
    std::deque<Ahead> ahead_;
    std::vector<Next*> unknown_;  // of find_leaves()
    std::uint64_t replayed_records_ = 0;
    Place fetched_;  // up to here the leaves of records are in the processor's cache, or on the way
    Place found_;    // and up to here, before that, their rows
    std::uint64_t ahead_wanted_ = 0;  // pages, of all of them
    bool log_ended_ = false;
    std::array<Known, 8> known_{};
    std::uint64_t checkpoints_ = 0;
    std::uint64_t checkpoints_ns_ = 0;
};

}  // namespace bidstore
