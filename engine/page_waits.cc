#include "engine/page_waits.h"

#include <iterator>
#include <utility>

namespace bidstore {

std::uint32_t PageWaits::begin(const CallAddress& to, std::uint32_t count) {
    if (idle_requests_.empty()) {
        idle_requests_.push_back(static_cast<std::uint32_t>(requests_.size()));
        requests_.emplace_back();
    }
    const std::uint32_t request = idle_requests_.back();
    idle_requests_.pop_back();
    requests_[request] = {to, count, Error::kOk, kNoOperation};
    return request;
}

void PageWaits::wait_for(PageId page, std::uint32_t request, std::uint32_t position) {
    if (idle_waiter_ == kNobody) {
        idle_waiter_ = static_cast<std::uint32_t>(waiters_.size());
        waiters_.push_back({0, 0, kNobody});
    }
    const std::uint32_t waiter = idle_waiter_;
    idle_waiter_ = waiters_[waiter].next;
    const auto [first, alone] = first_of_.try_emplace(page.value, waiter);
    waiters_[waiter] = {request, position, alone ? kNobody : first->second};
    first->second = waiter;
}

void PageWaits::finish(std::uint32_t request, std::uint32_t position, Error error) {
    Request& wait = requests_[request];
    if (error != Error::kOk && wait.error == Error::kOk) {
        wait.error = error;
        wait.failed = position;
    }
    if (--wait.remaining > 0) return;
    port_.answer(wait.to, wait.error, Csn{}, wait.failed);
    idle_requests_.push_back(request);
}

void PageWaits::on_loaded(PageId page, Error error) {
    const auto found = first_of_.find(page.value);
    if (found == first_of_.end()) return;
    std::uint32_t waiter = found->second;
    first_of_.erase(found);
    while (waiter != kNobody) {
        const Waiter done = waiters_[waiter];
        waiters_[waiter].next = idle_waiter_;
        idle_waiter_ = waiter;
        finish(done.request, done.position, error);
        waiter = done.next;
    }
}

void PageWaits::forget(std::uint64_t client_id) {
    for (auto page = first_of_.begin(); page != first_of_.end();) {
        for (std::uint32_t* link = &page->second; *link != kNobody;) {
            Waiter& waiter = waiters_[*link];
            Request& request = requests_[waiter.request];
            if (request.to.client_id != client_id) {
                link = &waiter.next;
                continue;
            }
            if (--request.remaining == 0) idle_requests_.push_back(waiter.request);
            idle_waiter_ = std::exchange(*link, std::exchange(waiter.next, idle_waiter_));
        }
        page = page->second == kNobody ? first_of_.erase(page) : std::next(page);
    }
}

}  // namespace bidstore
