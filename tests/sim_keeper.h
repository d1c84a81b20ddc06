// The keeper of the simulation: an administrator that makes, fills, loads, changes and drops tables
// of its own, the guests, and compacts the file. It does one thing at a time, so the guests are at
// any moment what they were before that thing or what they are after it, all of it or nothing.
//
// Rows of guests with a retention die by a floor that the engine moves: what is compared is what is
// alive at the floor of the reader's snapshot.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "tests/load_fixture.h"
#include "tests/model_maker.h"
#include "tests/sim_compactor.h"
#include "tests/sim_counts.h"
#include "tests/sim_life.h"
#include "tests/sim_session.h"

namespace bidstore {

struct Guest {
    Schema schema;
    std::uint64_t retain_us = 0;
    std::uint64_t floor_most_us = 0;  // where retentions before this one may have moved the floor
    std::shared_ptr<const std::map<Bytes, Bytes>> rows;
    std::uint64_t serial = 0;  // of its making: names and ids come again
};

class SimKeeper {
  public:
    using Guests = std::map<std::string, Guest>;
    using GuestsPtr = std::shared_ptr<const Guests>;
    using Rows = std::map<Bytes, Bytes>;

    SimKeeper(Random& random, Findings& findings, const Excuses& excuses, SimCounts& counts);

    bool connect(SimLife& life);
    void send_again();
    void lose();
    // What the guests may be now: one, or two of them.
    std::vector<GuestsPtr> guests() const;
    // After a recovery, what it showed.
    const GuestsPtr& recovered_guests() const { return decided_ ? next_ : now_; }
    // What they were before the newest so many changes, each of which has a batch of its own, as
    // far back as it is kept.
    std::vector<GuestsPtr> former(std::uint32_t changes) const;
    // Goes on with what it does, or begins something. other: who compacts, too.
    void act(SimLife& life, const SimCompaction& other);
    // The same, but it loads tables where dropped ones were.
    void load(SimLife& life, const SimCompaction& other);
    void collect(SimLife& life);
    const std::vector<std::vector<std::byte>>& too_large() const { return session_.too_large(); }
    // Of a load that was refused so: its schema and rows.
    const std::optional<Guest>& load_too_large() const { return load_too_large_; }
    bool loads() const { return load_.has_value(); }
    bool idle() const { return !next_ && !load_ && !compaction_.running(); }
    // Tables are being made, filled, changed or dropped.
    bool changes() const { return next_ != nullptr; }
    bool changes_retention() const { return changes_retention_ && next_ != nullptr; }
    const SimCompaction& compaction() const { return compaction_; }
    bool settle(SimLife& life, const SimCompaction& other);
    // Its process dies, whatever it does, and comes back: a load is shown as a whole by then, or
    // never, and a compaction is over.
    void bury(SimLife& life, const std::function<void()>& meanwhile);
    // What the crash left has to be one or the other.
    void recovered(SimLife& life);

    // The shared tables are its, too: made first.
    bool create_shared(SimLife& life, std::array<TableId, kTables>& tables);
    // Rows of kRetained that are of long ago die, now and whenever there are any.
    bool retain_shared(SimLife& life, TableId table);

    // The rows of a guest that are alive at this floor.
    static Rows alive(const Guest& guest, const Rows& rows, std::uint64_t floor);
    // All rows are sent, and the load is not shown yet.
    bool load_ends() const { return load_ && load_->answered() + 1 >= load_->steps(); }

  private:
    bool go_on(SimLife& life, const SimCompaction& other);
    void begin_create(SimLife& life, const std::string& name);
    void begin_rows(SimLife& life, const std::string& name);
    void begin_drop(SimLife& life, const std::string& name);
    void begin_retention(SimLife& life, const std::string& name);
    void begin_load(const std::string& name);
    TableId id_of(SimLife& life, const std::string& name) const;
    void send(SimCount what, Guests next, const TransactionBytes& bytes);
    void become(GuestsPtr guests);
    void answered(SimLife& life, const SimSession::Write& write);
    void pump_load();
    void pump_compaction(SimLife& life, const SimCompaction& other);
    void look_for_orphan();
    void orphan_decided(SimLife& life, const SimSession::Write& write);
    Bytes key(const Schema& schema, std::uint64_t now_us, std::uint64_t retain_us);
    Bytes value(const Schema& schema, std::uint64_t now_us, std::uint64_t retain_us, bool large);
    std::uint64_t pick(std::uint64_t below) { return random_() % below; }

    Random& random_;
    Findings& findings_;
    const Excuses& excuses_;
    SimCounts& counts_;
    SimSession session_;
    std::uint64_t made_ = 0;
    GuestsPtr now_;
    std::deque<GuestsPtr> former_;    // what it was before that, newest first
    GuestsPtr next_;                  // when what is under way is done
    std::uint64_t number_ = 0;        // of the write under way
    bool changes_retention_ = false;  // the newest write
    bool decided_ = false;  // it is done, as a recovery showed; the answer is still to come
    std::optional<LoadClient> load_;
    std::optional<Guest> loading_;
    std::uint32_t load_began_ = 0;  // Excuses::times_over
    std::optional<Guest> load_too_large_;
    SimCompaction compaction_;
    TableId shared_;      // one of the shared tables
    std::string orphan_;  // what a load was of whose client died; decided by the write behind it
    std::uint64_t orphan_number_ = 0;  // of that
    std::vector<PageRun> held_;        // so that a new table's root lies at the end of the file
};

}  // namespace bidstore
