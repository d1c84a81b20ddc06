// The writers of the simulation: clients that send random transactions to the shared tables, with
// sessions that outlive connections and daemons.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "tests/model_maker.h"
#include "tests/sim_counts.h"
#include "tests/sim_life.h"
#include "tests/sim_oracle.h"
#include "tests/sim_session.h"

namespace bidstore {

class SimWriters {
  public:
    static constexpr std::uint32_t kWriters = 3;

    SimWriters(Random& random, Findings& findings, SimCounts& counts, Oracle& oracle,
               std::uint32_t keys);

    void use_tables(const std::array<TableId, kTables>& tables) { tables_ = tables; }
    const std::array<TableId, kTables>& tables() const { return tables_; }
    Maker& maker() { return maker_; }

    // False: somebody is not welcome.
    bool connect(SimLife& life);
    void send_again();
    void lose();
    std::vector<std::uint64_t> decided() const;
    // As the rows of their sessions say.
    std::vector<std::deque<UnknownWrite>> unknown(SimLife& life) const;

    // Rows `id` to `id` + `count` of every table.
    void fill(std::uint32_t id, std::uint32_t count);
    void submit();
    // With nothing but the witness, durable: what was accepted before is published with it.
    void submit_witness() { send(0, Maker::with_witness({}), Durability::kDurable); }
    void collect();
    bool idle() const;
    std::vector<std::vector<std::byte>> too_large() const;
    // Runs until all is answered. False: the daemon went down before.
    bool settle(SimLife& life);
    // One of them dies, or loses its connection to a new one of its own, and comes back.
    bool bury_one(SimLife& life, const Excuses& excuses);
    // One of their threads stops with a place in the ring claimed, for longer than any lease, and
    // goes on: everything is answered then, also what was sent behind it.
    bool stop_one(SimLife& life);

  private:
    struct Sent {
        Operations operations;
        bool durable = true;
    };
    struct Writer {
        SimSession session;
        std::map<std::uint64_t, Sent> sent;  // without an answer, or kept behind one
    };
    void send(std::uint32_t writer, Operations operations, Durability durability);
    void submit_by(std::uint32_t writer);
    void leave_unanswered(SimLife& life, Writer& writer);

    Random& random_;
    Findings& findings_;
    SimCounts& counts_;
    Oracle& oracle_;
    Maker maker_;
    std::array<TableId, kTables> tables_{};
    std::vector<Writer> writers_;
};

}  // namespace bidstore
