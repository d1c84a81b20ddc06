// Bits of a simulated store's files that are flipped, and what an engine owes whoever starts it on
// them: a refusal that names one of them, or service; and a verifier that sees what is in use.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim_faults.h"
#include "tests/sim_life.h"

namespace bidstore {

class SimRot {
  public:
    // `flips` that are still to be seen: the rotten files differ there from what they would be.
    SimRot(const std::vector<SimFaults::Flip>& flips, const SimDisk& rotten, const SimDisk& sound);

    // What is wrong with the refusal of a start, or an empty string. `sound`: the same files
    // without the rot, opened; `batches` had to be replayed.
    std::string fault_of_refusal(const std::string& what, SimLife& sound,
                                 std::uint64_t batches) const;
    // A flipped page of a tree that is in use, and not in the pool: 0, if there is none. Not for
    // stores that did anything since they were opened.
    std::uint32_t page_in_use(SimLife& opened) const;

  private:
    struct Place {
        StoreFile file = StoreFile::kData;
        std::uint64_t sector_bytes = 0;  // where it begins
        std::vector<std::byte> rotten;
        std::vector<std::byte> sound_page;

        std::uint32_t page() const { return static_cast<std::uint32_t>(sector_bytes / kPageBytes); }
        const PageHeader& sound_header() const { return page_header(sound_page.data()); }
    };
    bool is_named(const std::string& what) const;
    static bool is_leaf_of_user(const Place& place, SimLife& sound);

    std::vector<Place> places_;
};

}  // namespace bidstore
