#include "engine/checkpoint_pace.h"

#include <algorithm>

namespace bidstore {

bool CheckpointPace::due(const PaceFill& fill) {
    return std::any_of(fill.share.begin(), fill.share.end(),
                       [](double share) { return share > kBegin; });
}

void CheckpointPace::begin(const PaceFill& fill, std::uint64_t now_ns, std::uint64_t interval_ns) {
    begun_ = fill;
    begun_ns_ = now_ns;
    interval_ns_ = interval_ns;
}

double CheckpointPace::goal(const PaceFill& fill, std::uint64_t images,
                            std::uint64_t now_ns) const {
    const auto elapsed_ns = static_cast<double>(now_ns - begun_ns_);
    const double by_interval = elapsed_ns * 2 / static_cast<double>(interval_ns_ + 1);
    const double by_least = elapsed_ns * kImagesPerSecondLeast / 1e9 / static_cast<double>(images);
    double goal = std::max(by_interval, by_least);
    for (std::size_t room = 0; room < PaceFill::kRooms; ++room) {
        const double used = fill.share[room] - begun_.share[room];
        const double free = kDone - begun_.share[room];
        if (used > 0) goal = std::max(goal, free > 0 ? used / free : 1.0);
    }
    return std::min(goal, 1.0);
}

CheckpointSlice CheckpointPace::slice(double progress, double goal, bool hurry) const {
    constexpr double kFullSpeed = 0.05;  // so far behind
    if (hurry) return {4 * slice_, kWritesMost};
    if (progress > goal) return {0, 2};
    const double behind = std::min((goal - progress) / kFullSpeed, 1.0);
    return {slice_ + static_cast<std::uint32_t>(3 * behind * slice_),
            2 + static_cast<std::uint32_t>(behind * (kWritesMost - 2))};
}

WriterPace CheckpointPace::writers(const PaceFill& fill, double progress) const {
    WriterPace pace;
    for (std::size_t room = 0; room < PaceFill::kRooms; ++room) {
        const double top = 1 - kHead;
        const double begin = std::min(begun_.share[room] + kHead, top);
        const double line = begin + (top - begin) * std::clamp(progress, 0.0, 1.0);
        const double above = (fill.share[room] - line) / kHead;
        if (above <= 0) continue;
        if (above > 0.999) pace.held = true;
        const double slowed = std::min(above, 1.0);
        pace.pause_ns =
            std::max(pace.pause_ns, static_cast<std::uint64_t>(slowed * slowed * kPauseNsMost));
    }
    return pace;
}

}  // namespace bidstore
