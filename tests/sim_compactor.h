// A second administrator of the simulation, who does nothing but compact the file: beside what the
// keeper makes, loads, drops and compacts. One of the two at a time is let; the other is told so.
#pragma once

#include <cstdint>
#include <optional>

#include "tests/compaction_fixture.h"
#include "tests/model_maker.h"
#include "tests/sim_counts.h"
#include "tests/sim_life.h"

namespace bidstore {

// One client's compaction, a step after the other, and what it may be answered.
class SimCompaction {
  public:
    SimCompaction(Findings& findings, const Excuses& excuses, SimCounts& counts)
        : findings_(findings), excuses_(excuses), counts_(counts) {}

    void begin(SimClient& client, const SimCompaction& other);
    // Goes on; true when it is over, or too long.
    bool pump(const SimCompaction& other);
    bool running() const { return client_.has_value(); }
    // Its client is the one whose compaction the daemon goes on with, for all we know: also when
    // it asks no more.
    bool claims() const { return claims_; }
    // The connection is gone.
    void lose();
    // Its client asked for nothing for so long that others may have it given up.
    void outlast() { silent_ = true; }

  private:
    bool contested(const SimCompaction& other) const {
        return other.claims_ || other.begun_ != others_before_;
    }

    Findings& findings_;
    const Excuses& excuses_;
    SimCounts& counts_;
    std::optional<CompactClient> client_;
    bool claims_ = false;
    std::uint64_t begun_ = 0;
    std::uint32_t began_ = 0;          // Excuses::times_over
    std::uint64_t others_before_ = 0;  // begun by the other, when this one began
    bool contested_ = false;
    bool silent_ = false;
};

class SimCompactor {
  public:
    SimCompactor(Random& random, Findings& findings, const Excuses& excuses, SimCounts& counts)
        : random_(random),
          findings_(findings),
          excuses_(excuses),
          counts_(counts),
          compaction_(findings, excuses, counts) {}

    bool connect(SimLife& life);
    void lose();
    // busy: the keeper has something under way that is not a compaction.
    void act(SimLife& life, const SimCompaction& keeper, bool busy);
    // Its process is stopped in the middle of a compaction, for longer than others wait for it.
    void stop(SimLife& life, const SimCompaction& keeper);
    // Its process dies, and another one comes.
    void bury(SimLife& life);
    bool settle(SimLife& life, const SimCompaction& keeper);
    const SimCompaction& compaction() const { return compaction_; }

  private:
    Random& random_;
    Findings& findings_;
    const Excuses& excuses_;
    SimCounts& counts_;
    SimClient* client_ = nullptr;
    bool stopped_ = false;
    SimCompaction compaction_;
};

}  // namespace bidstore
