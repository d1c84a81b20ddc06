// Who waits for which pages: the page requests of clients that are not complete.
//
// A request names up to kPagesPerRequest pages and is answered once, when the last of them came, or
// failed. Many requests may wait for one page. What a request or a wait needs is taken from lists
// that only grow, so a steady load of misses allocates nothing.
//
//   page ──► wait ◄─► wait ◄─► wait          client ──► request ◄─► request
//              │                                           │ a place for a wait per page of it
//
// Who:   the engine thread alone.
// Crash: of a client that is gone nothing stays: forget().
// Cost:  of forget(), what the client itself has waiting: what the others wait for is not looked
// at.
#pragma once

#include <cstdint>
#include <memory_resource>
#include <unordered_map>
#include <vector>

#include "engine/client_port.h"
#include "shm/error.h"
#include "shm/message.h"

namespace bidstore {

class PageWaits {
  public:
    explicit PageWaits(ClientPort& port) : port_(port), first_of_(&nodes_), requests_of_(&nodes_) {}

    // A request of `count` pages; each of them is then either finished or waited for.
    std::uint32_t begin(const CallAddress& to, std::uint32_t count);
    // Page `position` of the request is on its way.
    void wait_for(PageId page, std::uint32_t request, std::uint32_t position);
    // Page `position` of the request is there, or cannot be had. The last one answers.
    void finish(std::uint32_t request, std::uint32_t position, Error error);
    // The page came, or failed: finishes it for everybody who waits for it.
    void on_loaded(PageId page, Error error);
    // The client is gone, and its requests with it. How many pages of requests it looked at.
    std::size_t forget(std::uint64_t client_id);

    // Requests without an answer.
    std::size_t open() const { return requests_.size() - idle_requests_.size(); }

  private:
    static constexpr std::uint32_t kNobody = ~std::uint32_t{0};
    struct Request {
        CallAddress to;
        std::uint32_t count = 0;
        std::uint32_t remaining = 0;
        Error error = Error::kOk;
        std::uint32_t failed = kNoOperation;  // position of the first page that failed
        std::uint32_t next = kNobody;         // of the same client
        std::uint32_t before = kNobody;
    };
    // Wait number `request * kPagesPerRequest + position`.
    struct Wait {
        PageId page;                   // none: it is over
        std::uint32_t next = kNobody;  // of those for this page
        std::uint32_t before = kNobody;
    };

    void unlink(std::uint32_t wait);
    void release(std::uint32_t request);

    ClientPort& port_;
    std::vector<Request> requests_;
    std::vector<std::uint32_t> idle_requests_;
    std::vector<Wait> waits_;  // kPagesPerRequest to each request
    std::pmr::unsynchronized_pool_resource nodes_;
    std::pmr::unordered_map<std::uint32_t, std::uint32_t> first_of_;     // page to its first wait
    std::pmr::unordered_map<std::uint64_t, std::uint32_t> requests_of_;  // client to its newest
};

}  // namespace bidstore
