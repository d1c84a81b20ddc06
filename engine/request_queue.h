// What the real disks share: requests in the order they came, and manners while spinning.
#pragma once

#include <sched.h>

#include <cstdint>
#include <utility>

#include "engine/disk.h"

namespace bidstore {

// Linked through DiskRequest::next.
struct RequestQueue {
    DiskRequest* first = nullptr;
    DiskRequest* last = nullptr;

    bool empty() const { return first == nullptr; }
    void push(DiskRequest& request) {
        request.next = nullptr;
        (last ? last->next : first) = &request;
        last = &request;
    }
    DiskRequest& pop() {
        DiskRequest& request = *first;
        first = request.next;
        if (!first) last = nullptr;
        request.next = nullptr;
        return request;
    }
};

// What a device read lies in memory, not in the cache, and is looked at from end to end (its CRC):
// it comes while the one before it is looked at.
inline void prefetch_read(const DiskRequest& request) {
    if (request.kind != DiskRequest::Kind::kRead || request.length_bytes > kPageBytes) return;
    prefetch_bytes(static_cast<const std::byte*>(request.buffer), request.length_bytes);
}

// Requests whose completions have not run. Devices answer in bursts, and a page that was read takes
// microseconds to check: whoever waits for the first of them goes on, and gives the device new
// work, before the last was looked at. So a poll() runs the completions of a few reads; of all else
// it runs what there is.
class DoneRequests {
  public:
    static constexpr int kReadsTogether = 4;

    bool empty() const { return reads_.empty() && others_.empty(); }
    void push(DiskRequest& request) {
        (request.kind == DiskRequest::Kind::kRead ? reads_ : others_).push(request);
    }
    // Runs completions, which may submit again: how many.
    int run(std::uint32_t& in_flight) {
        int run = 0;
        RequestQueue others;
        std::swap(others, others_);
        for (; !others.empty(); ++run) complete(others.pop(), in_flight);
        for (int reads = 0; !reads_.empty() && reads < kReadsTogether; ++reads, ++run) {
            DiskRequest& request = reads_.pop();
            if (!reads_.empty()) prefetch_read(*reads_.first);
            complete(request, in_flight);
        }
        return run;
    }
    // At the end of a disk: none of them is run.
    void drop() {
        while (!reads_.empty()) reads_.pop().in_flight = false;
        while (!others_.empty()) others_.pop().in_flight = false;
    }

  private:
    static void complete(DiskRequest& request, std::uint32_t& in_flight) {
        request.in_flight = false;
        --in_flight;
        request.completed(request, request.context);
    }

    RequestQueue reads_;
    RequestQueue others_;
};

// For a caller that spins on poll(0). The kernel finishes a durable write in a worker thread of the
// processor that the device interrupts; if that is ours, the worker waits until we give way, which
// the scheduler asks of us only after milliseconds. Measured on such a processor: 3.8 ms for a
// durable write without this, 0.12 ms with it.
class SpinManners {
  public:
    // After a poll that did not wait, with requests in flight.
    void polled(bool found_something) {
        empty_polls_ = found_something ? 0 : empty_polls_ + 1;
        if (empty_polls_ < kEmptyPollsMax) return;
        empty_polls_ = 0;
        ::sched_yield();
    }

  private:
    static constexpr std::uint32_t kEmptyPollsMax = 64;
    std::uint32_t empty_polls_ = 0;
};

}  // namespace bidstore
