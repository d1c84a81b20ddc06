#include "daemon/log.h"

#include <unistd.h>

#include <string>

namespace bidstore {
namespace {

std::string prefix_of(int level, bool terminal) {
    if (!terminal) return "<" + std::to_string(level) + ">";
    if (level <= kLogError) return "error: ";
    return level == kLogWarning ? "warning: " : "";
}

}  // namespace

void log_line(int level, std::string_view text) {
    static const bool terminal = isatty(STDERR_FILENO) == 1;
    std::string line = prefix_of(level, terminal);
    line += text;
    // A line break inside would start a line without a level.
    for (char& letter : line) {
        if (letter == '\n') letter = ' ';
    }
    line += '\n';
    // Nothing can be done about a log that takes no lines.
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace bidstore
