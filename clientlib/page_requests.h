// The page requests of one read that are under way, and what their answers mean.
//
// Who:    the reading thread; it lives as long as one call of the API.
// Errors: after a failure nothing more is to be waited for. The end gives up what is still under
//         way: its call slots come back when their answers came.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "clientlib/snapshot.h"

namespace bidstore {

class PageRequests {
  public:
    PageRequests(ReaderState& state, const TableInfo& table);
    ~PageRequests();
    PageRequests(const PageRequests&) = delete;
    PageRequests& operator=(const PageRequests&) = delete;

    // Posts records of up to kPagesPerRequest pages. Without room in the ring or a call slot it
    // waits, and takes answers to what is under way; take() gives these out first. `near`: a key on
    // the way to the pages, for messages, which lives as long as this; nullptr: none is known.
    Status ask(std::span<const PageId> pages, const std::byte* near);

    // Which answer is worth a wake.
    enum class Want : std::uint8_t {
        kAny,   // there is more to ask for as soon as one came
        kLast,  // the newest, which most likely is the last
    };
    // Pages whose request was answered, waited for if need be; empty: nothing is under way. The
    // first failure that an answer told of stays in failure(), and the others are taken as well.
    Status take(Want want, std::vector<PageId>& pages);
    const Status& failure() const { return failure_; }
    void forget_failure() { failure_ = {}; }

    // Pages, without those that were answered.
    std::size_t under_way() const { return pages_under_way_; }

  private:
    // Pages asked for in one record, and the call that answers.
    struct Asked {
        std::vector<PageId> pages;
        const std::byte* near = nullptr;
        Call call;
    };

    Status post(std::span<const PageId> pages, const std::byte* near);
    Status wait(Want want);
    std::size_t find_answered();
    void settle(std::size_t index);
    Status judge(const Answer& answer, const Asked& asked);
    std::string what_failed(PageId page, const std::byte* near, Error error) const;
    Status pause(PageId page);
    Status too_late(PageId page) const;
    Status still_there();
    Status end_of_daemon();

    ReaderState& state_;
    const TableInfo& table_;
    Connection& connection_;
    std::vector<Asked> asked_;  // oldest first
    std::size_t pages_under_way_ = 0;
    std::vector<AwaitedCall> awaited_;
    std::vector<PageId> came_;  // answered, and not given out yet
    Status failure_;
};

}  // namespace bidstore
