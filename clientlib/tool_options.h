// What all commands of the tool share: where the daemon is, how to print, how a command ends.
//
// Who: tool.cc fills it from the command line; every tool_*.cc gets it.
#pragma once

#include <chrono>
#include <string>

#include "clientlib/bidstore.h"
#include "shm/error.h"

namespace bidstore {

// The tool's exit codes, also in its --help.
enum ToolExit : int {
    kExitOk = 0,
    kExitNotFound = 1,     // no such row or table, or a check failed
    kExitUsage = 2,        // the command line or a mapping makes no sense
    kExitUnreachable = 3,  // no daemon, or no answer in time
    kExitRefused = 4,      // rights, schema, precondition, limits, bad input lines
    kExitIo = 5,           // I/O error or corruption
};
ToolExit exit_code(Error error);

struct ToolOptions {
    std::string socket;
    bool json = false;
    double timeout_seconds = 10;

    Deadline deadline() const {
        return in(std::chrono::duration_cast<std::chrono::nanoseconds>(
            std::chrono::duration<double>(timeout_seconds)));
    }
    Result<Store> attach(Rights rights) const;
    // Prints the failure to stderr, as text or as a JSON object, and gives the exit code.
    int fail(const Failure& failure) const;
};

}  // namespace bidstore
