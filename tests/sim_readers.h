// The readers of the simulation: snapshots that are held across everything else, read in place the
// way a client reads, and checked by the oracle; and threads that stop in the middle.
//
// A snapshot begins with a look at the witness: from then on its place in the serial order is
// known. The catalog and the pages that were looked at must stay what they are, byte by byte, for
// as long as the lease holds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/model_maker.h"
#include "tests/sim_counts.h"
#include "tests/sim_keeper.h"
#include "tests/sim_life.h"
#include "tests/sim_oracle.h"
#include "tests/snapshot_reader.h"

namespace bidstore {

// Takes out what is below the floor.
inline void keep_alive(const Schema& schema, std::uint64_t floor, TableRows& rows) {
    std::erase_if(
        rows, [&](const auto& row) { return !schema.live(row.first.data(), row.second, floor); });
}

class SimReaders {
  public:
    SimReaders(Random& random, Findings& findings, const Excuses& excuses, SimCounts& counts,
               Oracle& oracle, SimKeeper& keeper, const std::array<TableId, kTables>& tables,
               std::uint32_t keys);

    bool connect(SimLife& life);
    void lose();
    // A floor that a snapshot has seen is durable.
    void recovered(SimLife& life);

    void begin(SimLife& life);
    void read(SimLife& life, const std::function<void()>& meanwhile);
    void end_one();
    void end_all() { open_.clear(); }
    // A thread stops between announcing its snapshot and taking it.
    void stop_announced(SimLife& life);
    // A process of them dies, with snapshots in hand, and another one gets its slots.
    void bury_one(SimLife& life);
    // Asks for pages all over the file and waits for none, so that others have to go.
    void ask_ahead(SimLife& life);
    // All rows of all tables as one snapshot after another sees them, with nobody writing.
    void read_everything(SimLife& life);

  private:
    struct Table {
        TableId id;
        PageId root;
        std::uint64_t retain_us = 0;
    };
    struct Open {
        std::unique_ptr<SimSnapshot> snapshot;
        std::int64_t place = 0;
        std::uint64_t began_ns = 0;
        std::uint64_t began_us = 0;        // by the wall clock
        std::uint64_t revoked_before = 0;  // as revoked_for_room() said
        std::map<std::string, Table> tables;
        std::vector<SimKeeper::GuestsPtr> guests;  // what the keeper's tables may be here
        const std::byte* held = nullptr;           // a page, in place
        std::vector<std::byte> held_bytes;
    };

    SimClient* welcome(SimLife& life);
    std::unique_ptr<SimSnapshot> take(SimLife& life);
    bool open(SimLife& life, Open& open);
    bool read_catalog(SimLife& life, Open& open);
    bool lost(SimLife& life, const Open& open, const std::string& doing);
    void judge_loss(SimLife& life, const Open& open, const std::string& doing);
    bool check_held(SimLife& life, Open& open);
    void let_go(SimLife& life, Open& open, const std::function<void()>& meanwhile);
    bool hold_again(SimLife& life, Open& open);
    bool read_something(SimLife& life, Open& open, const std::function<void()>& meanwhile);
    void forget(std::size_t index);
    void check_direct(const Open& open, const std::optional<Bytes>& direct,
                      const std::optional<Bytes>& row, const std::string& name);
    bool read_rows(SimLife& life, Open& open, std::uint32_t table);
    bool read_range(SimLife& life, Open& open, std::uint32_t table,
                    const std::function<void()>& meanwhile);
    bool read_guest(SimLife& life, Open& open);
    void read_all_of(SimLife& life, std::uint32_t table);
    void check_directory(Open& open, const TreeShape& shape, const std::string& name,
                         const Bytes& from, const Bytes& last, const TableRows& found);
    void stand_still(SimLife& life, const Open& open, const std::function<void()>& meanwhile);
    void check_floor(SimLife& life, const Open& open, const std::string& name, std::uint64_t floor);
    bool bury(Open& open, std::uint32_t table, TableRows& rows);
    void check_late(const Open& open, const Guest& guest, const TableRows& rows);
    void check_fall(const Open& open, const std::string& name, std::uint64_t serial,
                    std::uint64_t floor);

    Random& random_;
    Findings& findings_;
    const Excuses& excuses_;
    SimCounts& counts_;
    Oracle& oracle_;
    SimKeeper& keeper_;
    const std::array<TableId, kTables>& tables_;
    Maker maker_;
    std::vector<SimClient*> clients_;
    std::vector<Open> open_;
    std::vector<std::pair<SimClient*, std::uint32_t>> asked_;  // and the call's token
    bool floors_follow_ = false;     // nothing is in the way of the floors of retention
    std::int64_t newest_place_ = 0;  // that a snapshot of this life began with
    // Csn and floor, by name and serial of the table; of the shared tables that is 0.
    using TableName = std::pair<std::string, std::uint64_t>;
    std::map<TableName, std::pair<std::uint64_t, std::uint64_t>> floors_;
};

}  // namespace bidstore
