#include "engine/session_bound.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace bidstore {

std::uint32_t SessionBound::age_of(std::uint64_t seen_us, std::uint64_t now_us) {
    const std::uint64_t age_us = seen_us < now_us ? now_us - seen_us : 0;  // clocks go back
    if (age_us < 4) return static_cast<std::uint32_t>(age_us);
    const auto width = static_cast<std::uint32_t>(std::bit_width(age_us));
    return 4 * (width - 2) + static_cast<std::uint32_t>((age_us >> (width - 3)) & 3);
}

void SessionBound::begin_walk(std::uint64_t now_us) {
    made_ = 0;
    plans_us_ = now_us_;
    now_us_ = now_us;
    rows_.clear();
}

bool SessionBound::goes(std::uint32_t uid, std::uint64_t seen_us) const {
    const auto plan = plans_.find(uid);
    if (plan == plans_.end()) return false;
    const std::uint32_t age = age_of(seen_us, plans_us_);
    return age > plan->second.age || (age == plan->second.age && plan->second.left > 0);
}

void SessionBound::gone(std::uint32_t uid, std::uint64_t seen_us) {
    const auto plan = plans_.find(uid);
    if (plan == plans_.end() || age_of(seen_us, plans_us_) != plan->second.age) return;
    if (plan->second.left > 0) --plan->second.left;
}

void SessionBound::stays(std::uint32_t uid, std::uint64_t seen_us) {
    ++rows_[uid][age_of(seen_us, now_us_)];
}

void SessionBound::end_walk() {
    plans_.clear();
    for (const auto& [uid, ages] : rows_) {
        const auto rows = std::accumulate(ages.begin(), ages.end(), std::uint32_t{0});
        if (rows <= rows_max_ + slack()) continue;
        Plan plan{rows - rows_max_, kAges - 1, rows - rows_max_};
        for (; plan.left > ages[plan.age]; --plan.age) plan.left -= ages[plan.age];
        plans_.emplace(uid, plan);
    }
    rows_.clear();
}

}  // namespace bidstore
