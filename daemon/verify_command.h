// `bidstored --verify`: looks through the files of a store that no daemon uses.
//
// Who: main, instead of the service. It takes the same lock as a daemon.
#pragma once

#include <cstdint>

#include "daemon/config.h"
#include "daemon/service.h"

namespace bidstore {

// Prints each broken rule to standard output, and a summary. kClean: nothing is broken.
// kSpaceLost: no row is concerned. kFenced: rows are. Else as at a start of the daemon.
// Begins with a pool of `pool_bytes`, which nearly always will do, since what is not in it is read
// again, and goes up to the daemon's own where replay of the log needs more.
ExitCode run_verify(const Config& config, std::uint64_t pool_bytes = 1ull << 30);

}  // namespace bidstore
