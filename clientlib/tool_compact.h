// `bidstore compact`: gives free space of the data file back to the file system.
#pragma once

#include "clientlib/tool_options.h"

namespace bidstore {

struct CompactCommand {
    bool online = false;
    bool progress = false;
    double pages_per_second = 5'000;
    double deadline_seconds = 0;  // 0: none
};

int compact_store(const ToolOptions& options, const CompactCommand& command);

}  // namespace bidstore
