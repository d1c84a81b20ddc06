#include "clientlib/tool_compact.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>

#include "clientlib/compact.h"
#include "clientlib/import.h"
#include "clientlib/tool_output.h"

namespace bidstore {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr Seconds kWaitPause{0.02};

std::string mib(std::uint64_t bytes) { return grouped(bytes >> 20) + " MiB"; }

// Writes the state over itself, a few times a second.
class CompactionProgress {
  public:
    explicit CompactionProgress(bool forced)
        : terminal_(::isatty(STDERR_FILENO) == 1), forced_(forced) {}
    ~CompactionProgress() {
        if (shown_ && terminal_) std::fputs("\r\x1b[K", stderr);
    }
    CompactionProgress(const CompactionProgress&) = delete;
    CompactionProgress& operator=(const CompactionProgress&) = delete;

    void show(std::uint64_t moved, const CompactionStep& step) {
        const double elapsed = seconds_since(start_);
        if ((!terminal_ && !forced_) || elapsed < next_) return;
        next_ = elapsed + (terminal_ ? 0.2 : 2.0);
        shown_ = true;
        const std::string line =
            grouped(moved) + " pages moved, " + grouped(step.left) + " left of these chunks, " +
            mib(step.given_back) + " given back, file " + mib(step.file_bytes) +
            (step.state == CompactState::kWaiting ? ", waiting for snapshots and checkpoint" : "");
        std::fprintf(stderr, terminal_ ? "\rcompact: %s\x1b[K" : "compact: %s\n", line.c_str());
    }

  private:
    bool terminal_;
    bool forced_;
    bool shown_ = false;
    double next_ = 0.2;
    SteadyClock::time_point start_ = SteadyClock::now();
};

struct Totals {
    std::uint64_t moved = 0;
    CompactionStep last;
    double seconds = 0;
    bool in_time = true;
};

void print_totals(const ToolOptions& options, const Totals& totals) {
    if (options.json) {
        JsonLine line;
        line.number("pages_moved", totals.moved).number("given_back", totals.last.given_back);
        line.number("file_bytes", totals.last.file_bytes);
        line.raw("done", totals.in_time ? "true" : "false");
        if (totals.last.stays) line.number("stays_for_table", totals.last.table.value);
        line.raw("seconds", std::to_string(totals.seconds));
        std::printf("%s\n", line.str().c_str());
        return;
    }
    std::printf("%s given back (%s bytes), %s pages moved in %.1f s; the data file has %s\n",
                mib(totals.last.given_back).c_str(), grouped(totals.last.given_back).c_str(),
                grouped(totals.moved).c_str(), totals.seconds,
                mib(totals.last.file_bytes).c_str());
    if (totals.last.stays && totals.in_time && totals.last.table.value > 2) {
        std::printf(
            "it ends with the root of table %u; free chunks before that, if any, are holes in it\n",
            totals.last.table.value);
    }
}

// So many pages at a step that steps come some fifty times a second.
std::uint32_t pages_a_step(double pages_per_second) {
    return static_cast<std::uint32_t>(
        std::clamp(pages_per_second / 50, 1.0, double{kCompactPagesMax}));
}

}  // namespace

int compact_store(const ToolOptions& options, const CompactCommand& command) {
    AttachOptions attach;
    attach.socket = options.socket;
    auto compaction = Compaction::begin(attach, options.deadline());
    if (!compaction) return options.fail(compaction.failure());
    const auto start = SteadyClock::now();
    const std::uint32_t pages = pages_a_step(command.pages_per_second);
    CompactionProgress progress(command.progress);
    Totals totals;
    do {
        totals.seconds = seconds_since(start);
        if (command.deadline_seconds > 0 && totals.seconds > command.deadline_seconds) {
            totals.in_time = false;
            break;
        }
        auto step = compaction->step(pages, options.deadline());
        if (!step) return options.fail(step.failure());
        totals.last = *step;
        totals.moved += step->moved;
        progress.show(totals.moved, *step);
        // At its pace over the whole run, and no faster for having waited.
        const auto pages_seen = static_cast<double>(step->moved + step->looked);
        const Seconds pause(pages_seen / command.pages_per_second);
        std::this_thread::sleep_for(step->state == CompactState::kWaiting ? kWaitPause : pause);
    } while (totals.last.state != CompactState::kDone);
    totals.seconds = seconds_since(start);
    print_totals(options, totals);
    return totals.in_time ? kExitOk : kExitUnreachable;
}

}  // namespace bidstore
