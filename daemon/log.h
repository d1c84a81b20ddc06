// Lines for the operator, on stderr, as journald reads them: "<6>text", the number being the level.
//
// Who: any thread; a line is one write, so lines of two threads do not mix.
#pragma once

#include <string_view>

namespace bidstore {

// As in syslog.
inline constexpr int kLogError = 3;
inline constexpr int kLogWarning = 4;
inline constexpr int kLogInfo = 6;

// On a terminal the level is left out but for errors and warnings, which are named.
void log_line(int level, std::string_view text);

}  // namespace bidstore
