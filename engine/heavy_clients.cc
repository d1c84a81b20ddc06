#include "engine/heavy_clients.h"

#include <algorithm>

#include "shm/hot_path.h"

namespace bidstore {

HeavyClients::Mark HeavyClients::mark(std::uint32_t user, std::uint64_t now_ns) {
    std::erase_if(users_, [now_ns](const auto& known) { return known.second <= now_ns; });
    const auto known = users_.find(user);
    return {user, known == users_.end() ? 0 : known->second};
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

bool HeavyClients::took(Mark& mark, std::uint64_t began_ns, std::uint64_t ended_ns) {
    std::uint64_t took_ns = ended_ns - began_ns;
    if (took_ns > kHeavyNs) took_ns = ran_ns(began_ns, ended_ns);
    const bool heavy = took_ns > kHeavyNs;
    if (heavy) {
        const ColdPath cold;
        mark.until_ns = until_ns_ = ended_ns + kRememberedNs;
        users_[mark.user] = until_ns_;
    }
    their_turn_ = mark.until_ns <= ended_ns;
    if (their_turn_) {
        others_ns_ = ended_ns;
    } else if (ended_ns - others_ns_ <= took_ns + kAgainNs) {
        rest_until_ns_ = ended_ns + kRests * took_ns;
    }
    return heavy;
}

}  // namespace bidstore
