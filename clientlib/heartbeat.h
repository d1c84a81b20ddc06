// Whether a daemon may be gone, asked without a system call: by its heartbeat and by what it says
// of itself. Both lie in the pool, which a dead daemon leaves as it was. Whoever hears "maybe" asks
// the socket (Connection::hung_up).
//
// Who: any thread that is attached; each looker keeps for itself what it saw, and looks again after
//      kLookIntervalNs.
#pragma once

#include <cstdint>
#include <ctime>
#include <utility>

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

// seen_ns is the newest heartbeat that the looker saw, by the daemon's clock; since_ns, since when
// it stands there, by the coarse one. Both are 0 before the first look.
inline bool daemon_may_be_gone(const EngineState& engine, std::uint64_t now_ns,
                               std::uint64_t& seen_ns, std::uint64_t& since_ns) {
    const std::uint64_t heartbeat_ns = engine.heartbeat_ns.load();
    if (std::exchange(seen_ns, heartbeat_ns) != heartbeat_ns) since_ns = now_ns;
    // By its age where the clocks are the same one; in another time namespace the daemon's may be
    // ahead of ours for ever, and only that it stands still tells.
    const bool late =
        heartbeat_ns + kHeartbeatAgeNsMax < now_ns || since_ns + kHeartbeatAgeNsMax < now_ns;
    const EngineMode mode = engine.mode.load();
    return late || mode == EngineMode::kStopping || mode == EngineMode::kFenced;
}

}  // namespace bidstore
