// The journal of a rebuild: images that all take effect at once, when the superblock names them.
//
//   1 images, header and list go to the journal, which is made longer where it has to be; sync
//   2 both superblock copies name it: from here on the images are the file's
//   3 they go to their places, as recovery does it; sync
//   4 both copies name none
//
// A damaged journal that the superblock names is put in place as far as it is there.
//
// Who:    a rebuild. Cut off before 2 the file is as it was; after it, recovery goes on at 3.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/format.h"
#include "engine/recovery.h"

namespace bidstore {

using PageImages = std::map<std::uint32_t, AlignedBuffer>;  // by page id; sealed

class RebuildJournal {
  public:
    RebuildJournal(Disk& disk, Clock& clock, Recovery& recovery)
        : disk_(disk), io_(disk, clock), recovery_(recovery) {}

    // Writes the superblock as it is, with the next sequence.
    Status write_superblock(Superblock& superblock);
    // All of the above; `superblock` has what else changes with the images.
    Status write(Superblock& superblock, const PageImages& images);
    // Step 3 for the journal that the superblock names. `told` hears what is missing from it.
    Status put_in_place(Superblock& superblock,
                        const std::function<void(const std::string& what)>& told);

  private:
    Status salvage(const Superblock& superblock,
                   const std::function<void(const std::string& what)>& told);

    Disk& disk_;
    BlockingIo io_;
    Recovery& recovery_;
};

}  // namespace bidstore
