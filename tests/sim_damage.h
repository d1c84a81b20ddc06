// What a start makes of damaged files, looked at beside the run, which goes on without the damage:
// a refusal that names what is damaged, or service. What can be read then is as it was at one
// moment of the run, the shared tables and the keeper's; what cannot, is an error that names a
// page.
//
// Who: SimWorld, when a recovery has told oracle and keeper what is there, or at the end.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim_counts.h"
#include "tests/sim_keeper.h"
#include "tests/sim_life.h"
#include "tests/sim_oracle.h"
#include "tests/sim_rot.h"
#include "tests/sim_writers.h"

namespace bidstore {

class SimDamage {
  public:
    SimDamage(Random& random, Findings& findings, SimCounts& counts, const Oracle& oracle,
              const SimWriters& writers, const SimKeeper& keeper)
        : random_(random),
          findings_(findings),
          counts_(counts),
          oracle_(oracle),
          writers_(writers),
          keeper_(keeper) {}

    // Of the next end of a life: files in which bits flipped, or of which an unsynced write went
    // elsewhere, and the same files without that.
    struct Files {
        std::unique_ptr<SimDisk> damaged;
        std::unique_ptr<SimDisk> sound;
        bool stray = false;
    };
    // No row is another one; what is damaged and in use is found.
    // recovered_csn: of the sound files.
    void look_at(Files files, std::uint64_t recovered_csn, const SimStoreOptions& options,
                 const SimClock& clock);
    // Files of a disk that lost and misplaced writes, of the log, too: so many blocks at once.
    void look_at_lies(std::unique_ptr<SimDisk> disk, std::uint32_t log_blocks,
                      const SimStoreOptions& options, const SimClock& clock);

  private:
    using Guests = std::vector<SimKeeper::GuestsPtr>;
    struct Read {
        TableRows rows;
        std::uint64_t floor = 0;
    };

    std::unique_ptr<SimLife> open(std::unique_ptr<SimDisk> disk, const SimStoreOptions& options,
                                  const SimClock& clock);
    std::uint32_t batches_lost(const SimRot& rot, bool stray, SimLife& life, SimLife& sound);
    void look_at_rows(SimLife& life, std::int64_t earliest, Guests guests);
    void look_at_shared(SimLife& life, SimClient& client, std::int64_t earliest);
    void look_at_guests(SimLife& life, SimClient& client, Guests guests);
    std::optional<Read> read(SimLife& life, SimClient& client, const TableEntry& table);
    void judge_error(const SimLife& life, const TableEntry& table, const std::string& trouble);

    Random& random_;
    Findings& findings_;
    SimCounts& counts_;
    const Oracle& oracle_;
    const SimWriters& writers_;
    const SimKeeper& keeper_;
};

}  // namespace bidstore
