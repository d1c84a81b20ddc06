#include "engine/commit_delay.h"

#include <algorithm>

namespace bidstore {

void CommitDelay::answered(std::uint64_t waiters, std::uint64_t waiting, std::uint64_t write_ns,
                           std::uint64_t now_ns) {
    write_ns_ = write_ns_ == 0 ? write_ns : (write_ns_ * 7 + write_ns) / 8;
    expected_ = 0;
    if (waiters == 0 || waiters + waiting == 1) return;  // who comes back alone has no company
    if (without_ > 0) {
        --without_;
        return;
    }
    expected_ = waiters + waiting;
    had_ = waiting;
    until_ns_ = now_ns + std::min(write_ns_ / kShareOfWrite, kMostNs);
}

void CommitDelay::went_out(std::uint64_t waiting) {
    if (expected_ == 0) return;
    const std::uint64_t came = waiting - std::min(waiting, had_);
    const bool worth_it = came >= (expected_ - had_ + 1) / 2;
    without_ = worth_it ? 0 : in_vain_;
    in_vain_ = worth_it ? 1 : std::min(in_vain_ * 2, kWithoutDelayMost);
    expected_ = 0;
}

}  // namespace bidstore
