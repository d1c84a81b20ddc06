// Where a simulated store's files are damaged, by bits that flipped or by a write that went
// elsewhere, and what an engine owes whoever starts it on them: a refusal that names one of these
// places, or service; and a verifier that sees what is in use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim_life.h"

namespace bidstore {

class SimRot {
  public:
    // The places are where the rotten files differ from what they would be.
    SimRot(const SimDisk& rotten, const SimDisk& sound);

    // What is wrong with a start that was refused, or an empty string. `sound`: the same files
    // without the damage, opened, and nothing more.
    std::string fault_of_refusal(const SimLife& refused, SimLife& sound) const;
    // The same, where it is not known what is damaged.
    static std::string fault_of_error(const SimLife& refused);
    // A damaged page of a tree that is in use, and not in the pool: 0, if there is none. Not for
    // stores that did anything since they were opened.
    std::uint32_t page_in_use(SimLife& opened) const;
    // Blocks of the log that are damaged.
    std::uint32_t log_blocks() const;

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
    static bool is_nobodys(const Place& place, SimLife& sound);

    std::vector<Place> places_;
};

}  // namespace bidstore
