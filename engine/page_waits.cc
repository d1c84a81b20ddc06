#include "engine/page_waits.h"

#include <utility>

namespace bidstore {

std::uint32_t PageWaits::begin(const CallAddress& to, std::uint32_t count) {
    if (idle_requests_.empty()) {
        idle_requests_.push_back(static_cast<std::uint32_t>(requests_.size()));
        requests_.emplace_back();
        waits_.resize(waits_.size() + kPagesPerRequest);
    }
    const std::uint32_t request = idle_requests_.back();
    idle_requests_.pop_back();
    const auto [newest, alone] = requests_of_.try_emplace(to.client_id, request);
    const std::uint32_t next = alone ? kNobody : std::exchange(newest->second, request);
    if (next != kNobody) requests_[next].before = request;
    requests_[request] = {to, count, count, Error::kOk, kNoOperation, next, kNobody};
    return request;
}

void PageWaits::wait_for(PageId page, std::uint32_t request, std::uint32_t position) {
    const std::uint32_t wait = request * kPagesPerRequest + position;
    const auto [first, alone] = first_of_.try_emplace(page.value, wait);
    const std::uint32_t next = alone ? kNobody : std::exchange(first->second, wait);
    if (next != kNobody) waits_[next].before = wait;
    waits_[wait] = {page, next, kNobody};
}

void PageWaits::finish(std::uint32_t request, std::uint32_t position, Error error) {
    Request& asked = requests_[request];
    if (error != Error::kOk && asked.error == Error::kOk) {
        asked.error = error;
        asked.failed = position;
    }
    if (--asked.remaining > 0) return;
    port_.answer(asked.to, asked.error, Csn{}, asked.failed);
    release(request);
}

void PageWaits::on_loaded(PageId page, Error error) {
    const auto found = first_of_.find(page.value);
    if (found == first_of_.end()) return;
    std::uint32_t wait = found->second;
    first_of_.erase(found);
    while (wait != kNobody) {
        const std::uint32_t next = std::exchange(waits_[wait], Wait{}).next;
        finish(wait / kPagesPerRequest, wait % kPagesPerRequest, error);
        wait = next;
    }
}

std::size_t PageWaits::forget(std::uint64_t client_id) {
    const auto newest = requests_of_.find(client_id);
    if (newest == requests_of_.end()) return 0;
    std::size_t looked = 0;
    for (std::uint32_t request = newest->second; request != kNobody;) {
        const Request& own = requests_[request];
        for (std::uint32_t position = 0; position < own.count; ++position, ++looked) {
            unlink(request * kPagesPerRequest + position);
        }
        idle_requests_.push_back(request);
        request = own.next;
    }
    requests_of_.erase(newest);
    return looked;
}

// Takes a wait, if it is one, from those for its page.
void PageWaits::unlink(std::uint32_t wait) {
    const Wait over = std::exchange(waits_[wait], Wait{});
    if (!over.page) return;
    if (over.next != kNobody) waits_[over.next].before = over.before;
    if (over.before != kNobody) {
        waits_[over.before].next = over.next;
    } else if (over.next != kNobody) {
        first_of_.at(over.page.value) = over.next;
    } else {
        first_of_.erase(over.page.value);
    }
}

// The request was answered.
void PageWaits::release(std::uint32_t request) {
    const Request& over = requests_[request];
    if (over.next != kNobody) requests_[over.next].before = over.before;
    if (over.before != kNobody) {
        requests_[over.before].next = over.next;
    } else if (over.next != kNobody) {
        requests_of_.at(over.to.client_id) = over.next;
    } else {
        requests_of_.erase(over.to.client_id);
    }
    idle_requests_.push_back(request);
}

}  // namespace bidstore
