// One daemon's life: the parts built in order, connected, run until told to stop.
//
//   files (locked) ─► disk ─► pool segment ─► engine thread: recovery ─► socket ─► ready
//   SIGTERM ─► no new clients ─► engine: final checkpoint ─► end
//
// Who: main, once.
#pragma once

#include <functional>
#include <memory>

#include "daemon/config.h"
#include "engine/disk.h"

namespace bidstore {

// What the process ends with; systemd's unit and the operator's scripts go by it.
enum class ExitCode : int {
    kClean = 0,        // stopped as asked, final checkpoint on disk
    kConfig = 1,       // a setting is wrong: starting again does not help
    kEnvironment = 2,  // locked, missing rights, no disk, no memory: look at the host;
                       // --verify: reads failed
    kFenced = 3,       // the log failed, or the files are damaged: the message says which
    kSpaceLost = 4,    // --verify: damage that no row is concerned by
};

// What stands between the engine and the disk of its files; that of a test, which ends the process
// at an operation of its choice.
using DiskOver = std::function<std::unique_ptr<Disk>(std::unique_ptr<Disk>)>;

// Runs the daemon in the calling thread, plus one for the engine and some that close connections
// (daemon/closer.h). Errors are logged.
ExitCode run_service(const Config& config, const DiskOver& over = {});

// How a failure at start is answered for.
ExitCode exit_code_of(Error error);

}  // namespace bidstore
