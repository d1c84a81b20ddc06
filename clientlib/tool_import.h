// `bidstore import`: logs into tables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clientlib/tool_options.h"

namespace bidstore {

struct ImportCommand {
    std::vector<std::string> files;  // "-" is standard input
    std::string mapping;
    std::string format;            // "json", "csv", or empty: by the file's name
    std::string errors = "stop";   // "stop", "skip", or a file
    bool create = false;           // make tables that are missing
    bool progress = false;         // also when stderr is no terminal
    std::uint32_t in_flight = 16;  // transactions under way at a time
    double deadline_seconds = 0;   // for the whole import; 0: none
};

int import_files(const ToolOptions& options, const ImportCommand& command);

}  // namespace bidstore
