// Who waits for which pages: the page requests of clients that are not complete.
//
// A request names up to kPagesPerRequest pages and is answered once, when the last of them came, or
// failed. Many requests may wait for one page. What a request or a wait needs is taken from lists
// that only grow, so a steady load of misses allocates nothing.
//
// Who:   the engine thread alone.
// Crash: of a client that is gone nothing stays: forget().
#pragma once

#include <cstdint>
#include <memory_resource>
#include <unordered_map>
#include <vector>

#include "engine/client_port.h"
#include "shm/error.h"

namespace bidstore {

class PageWaits {
  public:
    explicit PageWaits(ClientPort& port) : port_(port), first_of_(&nodes_) {}

    // A request of `count` pages; each of them is then either finished or waited for.
    std::uint32_t begin(const CallAddress& to, std::uint32_t count);
    // Page `position` of the request is on its way.
    void wait_for(PageId page, std::uint32_t request, std::uint32_t position);
    // Page `position` of the request is there, or cannot be had. The last one answers.
    void finish(std::uint32_t request, std::uint32_t position, Error error);
    // The page came, or failed: finishes it for everybody who waits for it.
    void on_loaded(PageId page, Error error);
    // The client is gone, and its requests with it.
    void forget(std::uint64_t client_id);

    // Requests without an answer.
    std::size_t open() const { return requests_.size() - idle_requests_.size(); }

  private:
    struct Request {
        CallAddress to;
        std::uint32_t remaining = 0;
        Error error = Error::kOk;
        std::uint32_t failed = kNoOperation;  // position of the first page that failed
    };
    struct Waiter {
        std::uint32_t request;
        std::uint32_t position;
        std::uint32_t next;  // who else waits for this page, or kNobody
    };
    static constexpr std::uint32_t kNobody = ~std::uint32_t{0};

    ClientPort& port_;
    std::vector<Request> requests_;
    std::vector<std::uint32_t> idle_requests_;
    std::vector<Waiter> waiters_;
    std::uint32_t idle_waiter_ = kNobody;
    std::pmr::unsynchronized_pool_resource nodes_;
    std::pmr::unordered_map<std::uint32_t, std::uint32_t> first_of_;  // page to its first waiter
};

}  // namespace bidstore
