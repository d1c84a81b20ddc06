// `bidstored --verify`: looks through the files of a store that no daemon uses.
//
// Who: main, instead of the service. It takes the same lock as a daemon.
#pragma once

#include "daemon/config.h"
#include "daemon/service.h"

namespace bidstore {

// Prints each broken rule to standard output, and a summary. kClean: nothing is broken.
// kSpaceLost: no row is concerned. kFenced: rows are. Else as at a start of the daemon.
ExitCode run_verify(const Config& config);

}  // namespace bidstore
