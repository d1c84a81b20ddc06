// How fast a checkpoint goes, and how much writers are slowed so that it stays ahead of them.
//
// What a checkpoint sets free, writers fill: log, journal, frames. Each is looked at as a share of
// what there is, and the fullest one counts.
//
//   1 |- - - - - - - - - - - - - - - -.- full: writers are held
//     |                        .  ´  /
//     |              .   ´        /     · · ·  the line: writers above it are slowed, the more the
//     |    .   ´               / goal          higher, and held a tenth above it
//     | ´                   /           ////   the goal: where the checkpoint should be by now,
//     from |                  /                     how full it is, so that kDone is reached
//     together
//     |- - - - - - - -/                        with its end
//   begin
//     0 ----------- progress ----------► 1
//
// Below its goal a checkpoint goes on, in small writes with few of them in flight, the more the
// further it is behind; ahead of it, it rests. So its writes are spread over the time that it has,
// and the log's own are never far behind in the device's queue. Where the device cannot follow,
// the line moves with the progress made: what the writers get is what the checkpoint sets free.
// Their rate falls smoothly to that; it never stops until nothing is left at all.
//
// Numbers alone: no clock, no I/O.
//
// Who:    the engine thread alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/checkpoint.h"

namespace bidstore {

// Shares of what there is, from 0; above 1 where it is more than full.
struct PaceFill {
    static constexpr std::size_t kRooms = 4;
    enum Room : std::size_t {
        kReplay,   // log behind the last checkpoint, of what a restart may have to replay
        kRing,     // log that cannot be overwritten, of its ring
        kJournal,  // places that the changed pages take
        kFrames,   // frames that come back with a checkpoint alone
    };
    std::array<double, kRooms> share{};
};

// How requests that write are let in.
struct WriterPace {
    bool held = false;           // not at all now
    std::uint64_t pause_ns = 0;  // kAtOnce of them after each such pause; 0: as they come
    static constexpr std::uint32_t kAtOnce = 16;
    bool operator==(const WriterPace&) const = default;
};

class CheckpointPace {
  public:
    // `slice`: units of work in a round, for a checkpoint that is about where it should be.
    explicit CheckpointPace(std::uint32_t slice) : slice_(slice) {}

    // Whether one is to begin for what is in use. kBegin of anything, so that it may take until
    // kDone: twice kBegin, what fills up meanwhile included, is less than there is.
    static bool due(const PaceFill& fill);

    // One has begun; `fill` is what is in use right behind its beginning. It is to take half of
    // `interval_ns` at most, unless there is so little to write that it makes no difference.
    void begin(const PaceFill& fill, std::uint64_t now_ns, std::uint64_t interval_ns);

    // Where the checkpoint should be, 0 to 1. `images`: how many it writes.
    double goal(const PaceFill& fill, std::uint64_t images, std::uint64_t now_ns) const;
    // What a round gives it. `hurry`: somebody waits for its end.
    CheckpointSlice slice(double progress, double goal, bool hurry) const;
    // While it runs.
    WriterPace writers(const PaceFill& fill, double progress) const;

    static constexpr double kBegin = 0.45;
    static constexpr double kDone = 0.8;
    static constexpr std::uint64_t kPauseNsMost = 2'000'000;
    static constexpr std::uint32_t kWritesMost = 8;  // in flight

  private:
    static constexpr double kHead = 0.1;  // from the line to where writers are held
    // Writing as slowly as that is not noticed: 16 MiB/s.
    static constexpr std::uint64_t kImagesPerSecondLeast = 4096;

    std::uint32_t slice_;
    PaceFill begun_;
    std::uint64_t begun_ns_ = 0;
    std::uint64_t interval_ns_ = 0;
};

}  // namespace bidstore
