#include "daemon/unread_welcomes.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <utility>

namespace bidstore {

// It was read, or its reader closed its end.
bool UnreadWelcomes::was_read(int socket) {
    int bytes = 0;
    return ioctl(socket, SIOCOUTQ, &bytes) != 0 || bytes == 0;
}

UnreadWelcomes::~UnreadWelcomes() {
    for (auto& [key, sent] : sent_) {
        if (sent.kept) closer_.close(key.user, std::move(sent.kept));
    }
}

void UnreadWelcomes::sent(uid_t user, std::uint64_t connection, int socket, std::uint64_t now_ns) {
    sent_[{user, connection}] = {.socket = socket, .since_ns = now_ns, .kept = Descriptor()};
}

bool UnreadWelcomes::keep(uid_t user, std::uint64_t connection, Descriptor& socket) {
    Place at = sent_.find({user, connection});
    if (at == sent_.end() || !stays(at)) return false;
    at->second.kept = std::move(socket);
    ++over_count_;
    return true;
}

bool UnreadWelcomes::admits(uid_t user, std::uint64_t now_ns) {
    look_at_others();
    std::size_t own = 0;
    for (Place at = sent_.lower_bound({user, 0}); at != sent_.end() && at->first.user == user;) {
        const bool slow = at->second.kept || now_ns - at->second.since_ns >= slow_ns_;
        if (slow && !stays(at)) continue;
        own += slow;
        if (own == kPerUser) return false;
        ++at;
    }
    return own == 0 || over_count_ < kOfAll;
}

bool UnreadWelcomes::stays(Place& at) {
    Sent& sent = at->second;
    if (!look_(sent.socket)) return true;
    if (sent.kept) {
        --over_count_;
        closer_.close(at->first.user, std::move(sent.kept));
    }
    at = sent_.erase(at);
    return false;
}

void UnreadWelcomes::look_at_others() {
    Place at = sent_.lower_bound(next_);
    for (std::size_t looks = std::min(kOfOthers, sent_.size()); looks > 0; --looks) {
        if (at == sent_.end()) at = sent_.begin();
        if (stays(at)) ++at;
    }
    next_ = at == sent_.end() ? Key{} : at->first;
}

}  // namespace bidstore
