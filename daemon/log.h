// Lines for the operator, on stderr, as journald reads them: "<6>text", the number being the level.
//
// Who:    any thread; a line is one write, so lines of two threads do not mix.
// Crash:  a reader of the log that stands still holds nobody up: lines that find no room in its
//         pipe are counted and left out, errors after a second.
// Bounds: a line has kLogLineBytesMax bytes; what is longer is cut off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace bidstore {

// As in syslog.
inline constexpr int kLogError = 3;
inline constexpr int kLogWarning = 4;
inline constexpr int kLogInfo = 6;

// On a terminal the level is left out but for errors and warnings, which are named.
void log_line(int level, std::string_view text);
inline constexpr std::size_t kLogLineBytesMax = 4096;

// Warnings that a peer can bring about as often as it likes: kLinesPerUser a second of each user
// and kLinesOfAll of all of them together, so that neither the log nor what else it has to say
// drowns. The next line of the user says how many were left out.
//
// Who: one thread.
class PeerLog {
  public:
    static constexpr std::uint32_t kLinesPerUser = 8;
    static constexpr std::uint32_t kLinesOfAll = 64;

    void warn(std::uint32_t user, std::string text, std::uint64_t now_ns);

  private:
    static constexpr std::size_t kUsersMax = 1024;
    struct Second {
        std::uint64_t begin_ns = 0;
        std::uint32_t lines = 0;
        std::uint64_t left_out = 0;  // of any second, until it is said
        bool full(std::uint32_t lines_max, std::uint64_t now_ns);
    };
    Second all_;
    std::unordered_map<std::uint32_t, Second> users_;
};

}  // namespace bidstore
