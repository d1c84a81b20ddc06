// `bidstore load`: a new table with all rows of its inputs, past the log, all or nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "clientlib/tool_options.h"

namespace bidstore {

struct LoadCommand {
    std::string table;
    std::vector<std::string> files;  // "-" is standard input (not for binary rows)
    std::string mapping;             // of JSON lines and CSV
    std::string format;              // "rows", "json", "csv"; empty: by the file, or its name
    std::string errors = "stop";     // "stop", "skip", or a file
    bool create = false;             // make the table, retention and all, when it is missing
    bool sorted = false;             // keys rise through all files: nothing is sorted
    bool last_wins = false;
    bool progress = false;
    unsigned threads = 0;            // of JSON lines and CSV; 0: as many as there are cores
    std::uint64_t memory_mib = 256;  // for sorting
    std::chrono::seconds sign_of_life{30};  // to the daemon, while no rows are sent
    std::string temp_dir;            // for sorting; empty: $TMPDIR or /var/tmp
};

int load_files(const ToolOptions& options, const LoadCommand& command);

}  // namespace bidstore
