// The journal of a rebuild: images that all take effect at once, when the superblock names them.
//
//   1 images, header and list go to the journal, which is made longer where it has to be; sync
//   2 both superblock copies name it: from here on the images are the file's
//   3 they go to their places, as recovery does it; sync
//   4 both copies name none
//
// A damaged journal that the superblock names is put in place as far as it is there. But for images
// that are sound, nothing of it is written before all that is missing was told.
//
// Who:    a rebuild. Cut off before 2 the file is as it was; after it, recovery goes on at 3.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/format.h"
#include "engine/recovery.h"

namespace bidstore {

using PageImages = std::map<std::uint32_t, AlignedBuffer>;  // by page id; sealed

// Hears what is missing from the journal; `loses`: it is not known from which pages, so that any
// may be older than the checkpoint. When it fails nothing is written.
using JournalTold = std::function<Status(const std::string& what, bool loses)>;

class RebuildJournal {
  public:
    RebuildJournal(Disk& disk, Clock& clock, Recovery& recovery)
        : disk_(disk), io_(disk, clock), recovery_(recovery) {}

    // All of the above; `superblock` has what else changes with the images.
    Status write(Superblock& superblock, const PageImages& images);
    // Step 3 for the journal that the superblock names.
    Status put_in_place(Superblock& superblock, const JournalTold& told);

  private:
    static constexpr std::uint64_t kZeros = 0;  // of Placement::from: the list is there
    struct Placement {
        std::uint64_t from = kZeros;  // in the journal
        std::uint64_t place = 0;      // in the data file
    };

    Status write_superblock(Superblock& superblock);
    Status salvage(const Superblock& superblock, const JournalTold& told);
    bool place_listed(const Superblock& superblock, const JournalEntry& entry, std::uint64_t from,
                      std::vector<Placement>& placements);
    bool place_unlisted(const Superblock& superblock, std::uint64_t from,
                        std::vector<Placement>& placements);
    // Page `id`, or whichever it says it is, into page_.
    bool sound(const Superblock& superblock, StoreFile file, std::uint64_t offset,
               const PageId* id);
    Status put(const std::vector<Placement>& placements);

    Disk& disk_;
    BlockingIo io_;
    Recovery& recovery_;
    AlignedBuffer page_{kPageBytes};
};

}  // namespace bidstore
