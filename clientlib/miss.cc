// Misses: asking the engine for pages, and waiting for them under the snapshot that needs them.

#include <array>
#include <cstring>
#include <thread>
#include <vector>

#include "clientlib/snapshot.h"
#include "shm/message.h"

namespace bidstore {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPause = std::chrono::microseconds(200);

// The record's bytes: as many as the pages need.
std::span<const std::byte> encode(PageRequest& request, std::span<const PageId> pages) {
    request.count = static_cast<std::uint32_t>(pages.size());
    for (std::size_t i = 0; i < pages.size(); ++i) request.page_id[i] = pages[i].value;
    return std::as_bytes(std::span(&request, 1))
        .first(offsetof(PageRequest, page_id) + 4 * pages.size());
}

// Pages asked for in one record, and the call that answers.
struct Asked {
    std::span<const PageId> pages;
    Call call;
};

class Miss {
  public:
    Miss(ReaderState& state, const TableInfo& table, const std::byte* near)
        : state_(state), table_(table), near_(near), connection_(*state.connection) {}

    ~Miss() {
        // Not waited for any more: the slots come back when their answers came.
        for (; taken_ < asked_.size(); ++taken_) connection_.forget_call(asked_[taken_].call);
    }

    Status ask(std::span<const PageId> pages) {
        while (!pages.empty()) {
            const auto some = pages.first(std::min<std::size_t>(pages.size(), kPagesPerRequest));
            if (Status posted = post(some); !posted.ok()) return posted;
            pages = pages.subspan(some.size());
        }
        return {};
    }

    // Takes all answers. The first failure is told, after the others have been waited for as well.
    Status take() {
        while (taken_ < asked_.size()) {
            if (Status came = take_oldest(); !came.ok()) return came;
        }
        return first_;
    }

  private:
    // Not ok: nothing more is to be waited for. What the answer means is in first_.
    Status take_oldest() {
        const Asked& asked = asked_[taken_];
        if (Status came = wait(asked); !came.ok()) return came;
        const Answer answer = connection_.answer(asked.call);
        connection_.release_call(asked.call);
        ++taken_;
        if (first_.ok()) first_ = judge(answer, asked.pages);
        return {};
    }

    Status post(std::span<const PageId> pages) {
        PageRequest request;
        const auto bytes = encode(request, pages);
        for (;;) {
            if (const std::optional<Call> call = connection_.claim_call()) {
                if (connection_.post(RecordKind::kPageRequest, bytes, *call, 0, 0)) {
                    asked_.push_back({pages, *call});
                    return {};
                }
                connection_.release_call(*call);
            }
            // What this read itself asked for may be what takes the room.
            const bool own = taken_ < asked_.size();
            if (Status room = own ? take_oldest() : pause(pages.front()); !room.ok()) return room;
        }
    }

    Status wait(const Asked& asked) {
        const Rest rest(state_);
        if (connection_.linger(asked.call)) return {};
        while (!connection_.wait_slice(asked.call, state_.deadline)) {
            if (Status there = still_there(); !there.ok()) return there;
            if (Clock::now() >= state_.deadline) return too_late(asked.pages.front());
        }
        return {};
    }

    // What an answer means for the read.
    Status judge(const Answer& answer, std::span<const PageId> pages) {
        const std::size_t index = answer.failed_operation < pages.size() ? answer.failed_operation
                                                                         : 0;
        switch (answer.error) {
            case Error::kOk: return {};
            // No room in the pool for now; the read looks again, and asks again.
            case Error::kBusy: return pause(pages[index]);
            case Error::kStopping:
            case Error::kFenced:
            case Error::kUnknownOutcome: return end_of_daemon();
            default: return {answer.error, what_failed(pages[index], answer.error)};
        }
    }

    std::string what_failed(PageId page, Error error) const {
        return "table " + table_.schema.name() + ": page " + std::to_string(page.value) + ", " +
               key_range_text(state_, table_, page, near_) + ": " +
               std::string(error_name(error)) + " (the daemon's log says more)";
    }

    Status pause(PageId page) {
        if (Clock::now() >= state_.deadline) return too_late(page);
        const Rest rest(state_);
        std::this_thread::sleep_for(kPause);
        return still_there();
    }

    Status too_late(PageId page) const {
        return {Error::kTimedOut, "table " + table_.schema.name() + ": page " +
                                      std::to_string(page.value) +
                                      " did not come into the pool before the deadline"};
    }

    // The pool of a daemon that is gone gets no page any more: the snapshot ends with it.
    Status still_there() {
        if (connection_.alive() && !connection_.hung_up()) return {};
        connection_.abandon();
        return expired_failure();
    }
    Status end_of_daemon() {
        if (!connection_.wait_for_hangup(state_.deadline)) {
            return {Error::kDisconnected, "bidstored at " + state_.store->options().socket +
                                              " is stopping: it brings no more pages in"};
        }
        return still_there();
    }

    ReaderState& state_;
    const TableInfo& table_;
    const std::byte* near_;
    Connection& connection_;
    std::vector<Asked> asked_;
    std::size_t taken_ = 0;
    Status first_;  // failure that an answer told of
};

}  // namespace

Status request_pages(ReaderState& state, const TableInfo& table, std::span<const PageId> pages,
                     const std::byte* near) {
    state.pages_asked_for += pages.size();
    Miss miss(state, table, near);
    state.touches->asked_for(pages);
    if (Status asked = miss.ask(pages); !asked.ok()) return asked;
    return miss.take();
}

void request_pages_ahead(ReaderState& state, std::span<const PageId> pages) {
    Connection& connection = *state.connection;
    const std::optional<Call> call = connection.claim_call();
    if (!call) return;
    PageRequest request;
    if (connection.post(RecordKind::kPageRequest, encode(request, pages), *call, 0, 0)) {
        connection.forget_call(*call);
        state.pages_asked_for += pages.size();
        state.touches->asked_for(pages);
    } else {
        connection.release_call(*call);
    }
}

}  // namespace bidstore
