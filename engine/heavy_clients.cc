#include "engine/heavy_clients.h"

#include <algorithm>

#include "shm/hot_path.h"

namespace bidstore {

HeavyClients::Mark HeavyClients::mark(std::uint32_t user, std::uint64_t now_ns) {
    std::erase_if(users_, [now_ns](const auto& known) { return known.second.until_ns <= now_ns; });
    const auto known = users_.find(user);
    return known == users_.end() ? Mark{user, 0, 0} : known->second;
}

void HeavyClients::begin(std::uint64_t now_ns) {
    if (now_ns >= until_ns_) until_ns_ = 0;
    if (reading_ns_ != 0 && now_ns - reading_ns_ < kReadingNs) return;
    reading_ns_ = now_ns;
    reading_ran_ns_ = clock_.thread_ns();
}

// All that the thread ran for since the reading, but for what went by until the transaction began.
std::uint64_t HeavyClients::ran_ns(std::uint64_t began_ns, std::uint64_t ended_ns) {
    const std::uint64_t ran = clock_.thread_ns() - reading_ran_ns_;
    const std::uint64_t before = began_ns - reading_ns_;
    return std::min(ran - std::min(ran, before), ended_ns - began_ns);
}

std::uint64_t HeavyClients::heavy_ns() const {
    return std::clamp(kHeavyTimes * usual_ns_, kHeavyNs, kHeavyNsMost);
}

void HeavyClients::learn(Mark& mark, std::uint64_t took_ns, std::uint64_t now_ns) {
    mark.usual_ns = mark.usual_ns == 0 ? took_ns : (7 * mark.usual_ns + took_ns) / 8;
    if (mark.usual_ns > usual_ns_ && now_ns - usual_at_ns_ < kRememberedNs) return;
    usual_ns_ = mark.usual_ns;
    usual_at_ns_ = now_ns;
}

bool HeavyClients::took(Mark& mark, std::uint64_t began_ns, std::uint64_t ended_ns) {
    std::uint64_t took_ns = ended_ns - began_ns;
    if (took_ns > kHeavyNs) took_ns = ran_ns(began_ns, ended_ns);
    learn(mark, took_ns, ended_ns);
    mark.until_ns = 0;
    if (mark.usual_ns > heavy_ns()) {
        const ColdPath cold;
        mark.until_ns = until_ns_ = ended_ns + kRememberedNs;
        users_[mark.user] = mark;
    }
    their_turn_ = mark.until_ns <= ended_ns;
    if (their_turn_) {
        others_ns_ = ended_ns;
    } else if (ended_ns - others_ns_ <= kAhead * took_ns + kAgainNs) {
        rest_until_ns_ = ended_ns + kRests * took_ns;
    }
    return took_ns > heavy_ns();
}

}  // namespace bidstore
