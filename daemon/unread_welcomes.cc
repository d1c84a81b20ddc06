#include "daemon/unread_welcomes.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <utility>

namespace bidstore {
namespace {

// Nothing is left of what was sent: it was read, or its reader closed its end.
bool was_read(const Descriptor& socket) {
    int bytes = 0;
    return ioctl(socket.number(), SIOCOUTQ, &bytes) != 0 || bytes == 0;
}

}  // namespace

UnreadWelcomes::~UnreadWelcomes() {
    for (Kept& kept : kept_) closer_.close(kept.user, std::move(kept.socket));
}

bool UnreadWelcomes::keep(uid_t user, Descriptor& socket) {
    close_read();
    if (was_read(socket)) return false;
    kept_.push_back({user, std::move(socket)});
    return true;
}

bool UnreadWelcomes::admits(uid_t user) {
    close_read();
    const auto own = static_cast<std::size_t>(std::count_if(
        kept_.begin(), kept_.end(), [user](const Kept& kept) { return kept.user == user; }));
    return own < kPerUser && (own == 0 || kept_.size() < kOfAll);
}

void UnreadWelcomes::close_read() {
    const auto read = std::stable_partition(
        kept_.begin(), kept_.end(), [](const Kept& kept) { return !was_read(kept.socket); });
    for (auto kept = read; kept != kept_.end(); ++kept) {
        closer_.close(kept->user, std::move(kept->socket));
    }
    kept_.erase(read, kept_.end());
}

}  // namespace bidstore
