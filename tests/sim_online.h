// What the verifier beside a daemon says of a store in the middle of a run. Nothing moves while it
// looks, and it sees the files as another process does, with what is not synced yet: so it has
// before it whatever moment of a checkpoint, a load, a compaction or a retention it was.
#pragma once

#include <optional>
#include <string>

#include "tests/sim_disk.h"

namespace bidstore {

// The first broken rule, or an empty string; nothing when a checkpoint is being put in its places.
std::optional<std::string> verify_beside(const SimDisk& files);

}  // namespace bidstore
