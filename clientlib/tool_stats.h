// `bidstore stats`: the daemon's counters and latencies.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "clientlib/tool_options.h"
#include "shm/layout.h"

namespace bidstore {

// watch_seconds 0: once.
int show_stats(const ToolOptions& options, double watch_seconds);

// The value below which a share (0 to 1) of what was recorded lies, interpolated in its bucket; 0
// when there is nothing.
double bucket_quantile(std::span<const std::uint64_t> buckets, double share);

std::string_view mode_name(EngineMode mode);

}  // namespace bidstore
