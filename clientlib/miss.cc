// Misses: asking the engine for pages, and waiting for them under the snapshot that needs them.

#include <cstring>
#include <thread>
#include <vector>

#include "clientlib/page_requests.h"
#include "clientlib/snapshot.h"
#include "shm/message.h"

namespace bidstore {
namespace {

using Clock = std::chrono::steady_clock;

// The record's bytes: as many as the pages need.
std::span<const std::byte> encode(PageRequest& request, std::span<const PageId> pages) {
    request.count = static_cast<std::uint32_t>(pages.size());
    for (std::size_t i = 0; i < pages.size(); ++i) request.page_id[i] = pages[i].value;
    return std::as_bytes(std::span(&request, 1))
        .first(offsetof(PageRequest, page_id) + 4 * pages.size());
}

}  // namespace

PageRequests::PageRequests(ReaderState& state, const TableInfo& table)
    : state_(state), table_(table), connection_(*state.connection) {}

PageRequests::~PageRequests() {
    for (const Asked& asked : asked_) connection_.forget_call(asked.call);
}

Status PageRequests::ask(std::span<const PageId> pages, const std::byte* near) {
    state_.pages_asked_for += pages.size();
    state_.touches->asked_for(pages);
    while (!pages.empty()) {
        const auto some = pages.first(std::min<std::size_t>(pages.size(), kPagesPerRequest));
        if (Status posted = post(some, near); !posted.ok()) return posted;
        pages = pages.subspan(some.size());
    }
    return {};
}

Status PageRequests::post(std::span<const PageId> pages, const std::byte* near) {
    PageRequest request;
    const auto bytes = encode(request, pages);
    for (;;) {
        if (const std::optional<Call> call = connection_.claim_call()) {
            if (connection_.post(RecordKind::kPageRequest, bytes, *call, 0, 0)) {
                asked_.push_back({{pages.begin(), pages.end()}, near, *call});
                pages_under_way_ += pages.size();
                return {};
            }
            connection_.release_call(*call);
        }
        // What this read itself asked for may be what takes the room.
        const bool own = !asked_.empty();
        if (Status room = own ? wait(Want::kAny) : pause(pages.front()); !room.ok()) return room;
        if (const std::size_t index = find_answered(); index < asked_.size()) settle(index);
    }
}

Status PageRequests::take(Want want, std::vector<PageId>& pages) {
    pages.clear();
    if (came_.empty() && !asked_.empty()) {
        if (Status came = wait(want); !came.ok()) return came;
    }
    for (std::size_t index = 0; (index = find_answered()) < asked_.size();) settle(index);
    std::swap(pages, came_);
    return {};
}

// The oldest that was answered, or the end.
std::size_t PageRequests::find_answered() {
    std::size_t index = 0;
    while (index < asked_.size() && !connection_.answered(asked_[index].call)) ++index;
    return index;
}

void PageRequests::settle(std::size_t index) {
    const Asked asked = std::move(asked_[index]);
    asked_.erase(asked_.begin() + static_cast<std::ptrdiff_t>(index));
    pages_under_way_ -= asked.pages.size();
    const Answer answer = connection_.answer(asked.call);
    connection_.release_call(asked.call);
    if (failure_.ok()) failure_ = judge(answer, asked);
    came_.insert(came_.end(), asked.pages.begin(), asked.pages.end());
}

Status PageRequests::wait(Want want) {
    awaited_.clear();
    if (want == Want::kLast) {
        awaited_.push_back(connection_.awaited(asked_.back().call));
    } else {
        for (const Asked& asked : asked_) awaited_.push_back(connection_.awaited(asked.call));
    }
    if (any_answered(awaited_)) return {};
    const Rest rest(state_);
    if (connection_.linger(awaited_, state_.deadline)) return {};
    while (!connection_.wait_slice(awaited_, state_.deadline)) {
        if (Status there = still_there(); !there.ok()) return there;
        if (Clock::now() >= state_.deadline) return too_late(asked_.front().pages.front());
    }
    return {};
}

// What an answer means for the read.
Status PageRequests::judge(const Answer& answer, const Asked& asked) {
    const bool named = answer.failed_operation < asked.pages.size();
    const PageId page = asked.pages[named ? answer.failed_operation : 0];
    switch (answer.error) {
        case Error::kOk:
            return {};
        // No room in the pool for now; the read looks again, and asks again.
        case Error::kBusy:
            return pause(page);
        case Error::kStopping:
        case Error::kFenced:
        case Error::kUnknownOutcome:
            return end_of_daemon();
        default:
            return {answer.error, what_failed(page, asked.near, answer.error)};
    }
}

std::string PageRequests::what_failed(PageId page, const std::byte* near, Error error) const {
    return "table " + table_.schema.name() + ": page " + std::to_string(page.value) + ", " +
           key_range_text(state_, table_, page, near) + ": " + std::string(error_name(error)) +
           " (the daemon's log says more)";
}

Status PageRequests::pause(PageId page) {
    if (Clock::now() >= state_.deadline) return too_late(page);
    const Rest rest(state_);
    std::this_thread::sleep_for(kRoomPause);
    return still_there();
}

Status PageRequests::too_late(PageId page) const {
    return {Error::kTimedOut, "table " + table_.schema.name() + ": page " +
                                  std::to_string(page.value) +
                                  " did not come into the pool before the deadline"};
}

// The pool of a daemon that is gone gets no page any more: the snapshot ends with it.
Status PageRequests::still_there() {
    if (connection_.alive() && !connection_.hung_up()) return {};
    connection_.abandon();
    return expired_failure();
}

Status PageRequests::end_of_daemon() {
    if (!connection_.wait_for_hangup(state_.deadline)) {
        return {Error::kDisconnected, "bidstored at " + state_.store->options().socket +
                                          " is stopping: it brings no more pages in"};
    }
    return still_there();
}

Status request_pages(ReaderState& state, const TableInfo& table, std::span<const PageId> pages,
                     const std::byte* near) {
    PageRequests requests(state, table);
    if (Status asked = requests.ask(pages, near); !asked.ok()) return asked;
    std::vector<PageId> came;
    do {
        if (Status taken = requests.take(PageRequests::Want::kLast, came); !taken.ok()) {
            return taken;
        }
    } while (!came.empty());
    return requests.failure();
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
