#include "tests/kill_plan.h"

#include <algorithm>

namespace bidstore {
namespace {

using namespace std::chrono_literals;

// Operations of a life in which a step is looked for at first, by step; the first ones belong to
// the life's recovery.
constexpr std::array<std::uint64_t, kDiskStepNames.size()> kMost{
    400,  // any
    300,  // log-write
    6,    // log-read
    2,    // log-sync
    30,   // journal-write
    6,    // journal-read
    6,    // journal-sync
    12,   // superblock
    60,   // page-write
    20,   // page-read
    14,   // data-sync
    2,    // grow
    2,    // punch
    2,    // cut
    2,    // resize
};
constexpr std::uint64_t kMissesMax = 6;

}  // namespace

Failpoint KillPlan::next() {
    if (left_.empty()) {
        for (std::size_t place = 0; place < places_.size(); ++place) {
            left_.push_back({static_cast<DiskStep>(place / kMoments), 0,
                             static_cast<DiskMoment>(place % kMoments)});
        }
        std::shuffle(left_.begin(), left_.end(), random_);
    }
    Failpoint failpoint = left_.back();
    left_.pop_back();
    const std::uint64_t most = kMost[static_cast<std::size_t>(failpoint.step)];
    const std::uint64_t misses = places_[place_of(failpoint)].missed;
    failpoint.number = 1 + random_() % std::max<std::uint64_t>(1, most >> misses);
    return failpoint;
}

std::chrono::milliseconds KillPlan::patience(const Failpoint& failpoint) const {
    return 600ms * (1 + places_[place_of(failpoint)].missed);
}

void KillPlan::reached(const Failpoint& failpoint) {
    Place& place = places_[place_of(failpoint)];
    ++place.times;
    place.missed = 0;
}

void KillPlan::missed(const Failpoint& failpoint) {
    Place& place = places_[place_of(failpoint)];
    place.missed = std::min(place.missed + 1, kMissesMax);
}

std::size_t KillPlan::steps_reached() const {
    std::size_t steps = 0;
    for (std::size_t step = 0; step < kSteps; ++step) {
        const auto first = places_.begin() + static_cast<std::ptrdiff_t>(step * kMoments);
        steps += std::any_of(first, first + kMoments, [](const Place& p) { return p.times > 0; });
    }
    return steps;
}

std::string KillPlan::table() const {
    std::string table;
    for (std::size_t place = 0; place < places_.size(); ++place) {
        if (place % kMoments == 0) {
            std::string name = "  " + std::string(kDiskStepNames[place / kMoments]);
            name.resize(16, ' ');
            table += name;
        }
        table += ' ' + std::string(kDiskMomentNames[place % kMoments]) + ' ' +
                 std::to_string(places_[place].times);
        if (place % kMoments == kMoments - 1) table += '\n';
    }
    return table;
}

std::string KillPlan::never() const {
    std::string never;
    for (std::size_t place = 0; place < places_.size(); ++place) {
        if (places_[place].times > 0) continue;
        never += std::string(never.empty() ? "" : ", ") +
                 std::string(kDiskStepNames[place / kMoments]) + ' ' +
                 std::string(kDiskMomentNames[place % kMoments]);
    }
    return never;
}

}  // namespace bidstore
