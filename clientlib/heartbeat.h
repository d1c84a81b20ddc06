// Whether a daemon may be gone, asked without a system call: by its heartbeat and by what it says
// of itself. Both lie in the pool, which a dead daemon leaves as it was. Whoever hears "maybe" asks
// the socket (Connection::hung_up).
//
// Who: any thread that is attached, one at a time with each HeartbeatLook.
#pragma once

#include <cstdint>
#include <ctime>

#include "shm/layout.h"

namespace bidstore {

inline constexpr std::uint64_t kLookIntervalNs = 100'000'000;
inline constexpr std::uint64_t kHeartbeatAgeNsMax = 500'000'000;  // older: is the daemon there?

// A few nanoseconds, no system call; good to some milliseconds.
inline std::uint64_t coarse_now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

// What one looker saw last; all times by the coarse clock, but for the heartbeat itself.
class HeartbeatLook {
  public:
    bool due(std::uint64_t now_ns) const { return now_ns >= next_ns_; }
    // The next look is due at once.
    void hurry() { next_ns_ = 0; }
    // Whether the daemon may be gone. The next look is due after kLookIntervalNs.
    bool missed(const EngineState& engine, std::uint64_t now_ns) {
        next_ns_ = now_ns + kLookIntervalNs;
        const std::uint64_t heartbeat_ns = engine.heartbeat_ns.load();
        if (heartbeat_ns != seen_ns_) since_ns_ = now_ns;
        seen_ns_ = heartbeat_ns;
        // By its age where the clocks are the same one; in another time namespace the daemon's may
        // be ahead of ours for ever, and only that it stands still tells.
        const bool late =
            heartbeat_ns + kHeartbeatAgeNsMax < now_ns || since_ns_ + kHeartbeatAgeNsMax < now_ns;
        const EngineMode mode = engine.mode.load();
        return late || mode == EngineMode::kStopping || mode == EngineMode::kFenced;
    }

  private:
    std::uint64_t next_ns_ = 0;
    std::uint64_t seen_ns_ = 0;   // by the daemon's clock
    std::uint64_t since_ns_ = 0;  // since when it stands there
};

}  // namespace bidstore
