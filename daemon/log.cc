#include "daemon/log.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <mutex>
#include <utility>

namespace bidstore {
namespace {

constexpr int kErrorPatienceMs = 1000;

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
    line.resize(std::min(line.size(), kLogLineBytesMax - 1));
    line += '\n';
    // A pipe that is ready takes this much without waiting; the lock keeps another thread's line
    // from filling it in between.
    static_assert(kLogLineBytesMax <= PIPE_BUF);
    static std::mutex mutex;
    static std::uint64_t lost = 0;
    const std::lock_guard lock(mutex);
    pollfd log{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
    // What is wrong with the daemon itself is worth a wait: often it is the last that it says.
    const int patience_ms = level <= kLogError ? kErrorPatienceMs : 0;
    if (poll(&log, 1, patience_ms) != 1 || (log.revents & POLLOUT) == 0) {
        ++lost;
        return;
    }
    if (lost > 0) {
        line.insert(line.find('\n'), " (" + std::to_string(lost) + " lines before found no room)");
        line.resize(std::min(line.size(), kLogLineBytesMax - 1));
        if (line.back() != '\n') line += '\n';
        lost = 0;
    }
    // Nothing can be done about a log that takes no lines.
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

bool PeerLog::Second::full(std::uint32_t lines_max, std::uint64_t now_ns) {
    if (now_ns - begin_ns >= 1'000'000'000) {
        begin_ns = now_ns;
        lines = 0;
    }
    return lines >= lines_max;
}

void PeerLog::warn(std::uint32_t user, std::string text, std::uint64_t now_ns) {
    if (users_.size() >= kUsersMax && !users_.contains(user)) users_.clear();
    Second& own = users_[user];
    if (own.full(kLinesPerUser, now_ns) || all_.full(kLinesOfAll, now_ns)) {
        ++own.left_out;
        return;
    }
    ++own.lines;
    ++all_.lines;
    if (const std::uint64_t more = std::exchange(own.left_out, 0); more > 0) {
        text += " (and " + std::to_string(more) + " more of user " + std::to_string(user) +
                " before it)";
    }
    log_line(kLogWarning, text);
}

}  // namespace bidstore
