// `bidstored --verify`: looks through the files of a store that no daemon uses; with --rebuild it
// makes of damaged ones a store that serves.
//
// Who: main, instead of the service. It takes the same lock as a daemon.
#pragma once

#include <cstdint>

#include "daemon/config.h"
#include "daemon/service.h"

namespace bidstore {

// Prints each broken rule to standard output, and a summary. kClean: nothing is broken.
// kSpaceLost: no row is concerned. kFenced: rows are. kEnvironment: reads failed, which are printed
// too, and none of these is known: look at the device. Else as at a start of the daemon.
// Begins with a pool of `pool_bytes`, which nearly always will do, since what is not in it is read
// again, and goes up to the daemon's own where replay of the log needs more.
ExitCode run_verify(const Config& config, std::uint64_t pool_bytes = 1ull << 30,
                    const DiskOver& over = {});

struct RebuildChoice {
    bool dry_run = false;      // says what would be done
    bool accept_loss = false;  // goes on when rows are lost
};

// engine/rebuild.h, over the files: first dry, so that nothing is changed where rows are lost and
// that is not accepted. kClean: the store is sound, now or before. kSpaceLost: dry, there is
// something to do, and no row is lost. kFenced: rows are lost, and nothing was changed, or nothing
// can be done. Else as run_verify().
ExitCode run_rebuild(const Config& config, RebuildChoice choice,
                     std::uint64_t pool_bytes = 1ull << 30);

struct OnlineChoice {
    std::uint64_t mib_per_second = 64;
    std::uint64_t deadline_seconds = 0;  // 0: none
};

// engine/verify_online.h, beside a daemon that has the files, at the lowest priority. Exit codes as
// run_verify(); kEnvironment also when the deadline came first.
ExitCode run_verify_online(const Config& config, OnlineChoice choice, const DiskOver& over = {});

}  // namespace bidstore
