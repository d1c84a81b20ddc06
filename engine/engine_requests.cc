// What clients ask for: transactions and pages, from a ring's record to an answer or a wait.
#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/engine_core.h"
#include "shm/hot_path.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRequestsPerRound = 256;
constexpr std::uint32_t kRequestsPerPoll = 16;
// Nobody is answered before the round is over.
constexpr std::uint64_t kRequestsNs = 1'000'000;

}  // namespace

// ---- transactions ----

bool Engine::Core::take_requests() {
    if (stopping_) return false;
    ClientRequest request;
    if (!port_.take(request)) return false;
    std::uint64_t taken_ns = clock_.monotonic_ns();
    const std::uint64_t until_ns = taken_ns + kRequestsNs;
    port_.begin_taking(taken_ns);
    for (std::uint32_t taken = 1;; ++taken) {
        handle(request, taken_ns);
        const std::uint64_t ended_ns = clock_.monotonic_ns();
        count_time(request.from.client_id, taken_ns, ended_ns);
        taken_ns = ended_ns;
        if (taken == kRequestsPerRound || taken_ns > until_ns) return true;
        // A round of many requests is long: pages that were read meanwhile are waited for, too.
        if (taken % kRequestsPerPoll == 0) {
            poll_disk(0);
            if (commit_->failed()) return true;
            taken_ns = clock_.monotonic_ns();
        }
        if (!port_.take(request)) return true;
    }
}

// Of the request that was just handled. One that was not evaluated, since it has its answer or
// another one's turn had come, says nothing of how long its client's take.
void Engine::Core::count_time(std::uint64_t client_id, std::uint64_t began_ns,
                              std::uint64_t ended_ns) {
    if (std::exchange(evaluated_, false)) return port_.evaluated(client_id, began_ns, ended_ns);
    port_.looked_at(client_id, ended_ns);
}

void Engine::Core::handle(const ClientRequest& request, std::uint64_t taken_ns) {
    if (request.kind == RecordKind::kPageRequest) return handle_page_request(request);
    PageId page;
    Chances chances;
    chances_ = &chances;
    const Wait wait = attempt(request, taken_ns, page);
    chances_ = nullptr;
    if (wait == Wait::kNone) return;
    park(request, wait, page, taken_ns).chances = chances;
}

Engine::Core::Wait Engine::Core::attempt(const ClientRequest& request, std::uint64_t taken_ns,
                                         PageId& page) {
    if (request.kind == RecordKind::kLoad) return handle_load(request, page);
    if (request.kind == RecordKind::kCompact) return handle_compact(request, page);
    return handle_transaction(request, taken_ns, page);
}

Engine::Core::Parked& Engine::Core::park(const ClientRequest& request, Wait wait, PageId page,
                                         std::uint64_t taken_ns) {
    Parked& parked = parked_[request.from.client_id];
    // A request that is parked again already lies here.
    if (parked.payload.data() != request.payload.data()) {
        parked.payload.assign(request.payload.begin(), request.payload.end());
    }
    parked.request = request;
    parked.request.payload = parked.payload;
    parked.wait = wait;
    parked.page = page;
    parked.taken_ns = taken_ns;
    port_.pause(request.from.client_id, true);
    const Error error = wait == Wait::kPage ? bring_in(page) : Error::kOk;
    if (error != Error::kOk) failed_pages_[page.value] = error;
    return parked;
}

// Asks for a page of a tree. kOk: it is there, or on its way.
Error Engine::Core::bring_in(PageId page) {
    const Error error = storage_.loader.want(page);
    if (error == Error::kBusy) return Error::kOk;
    // A tree that leads to a page that is free: damage, which no waiting mends.
    return error == Error::kNoSuchPage ? Error::kCorruption : error;
}

// For a page or for room: then housekeeping takes neither from them.
bool Engine::Core::anyone_waits() const {
    return std::any_of(parked_.begin(), parked_.end(), [](const auto& parked) {
        return parked.second.wait == Wait::kPage || parked.second.wait == Wait::kRoom;
    });
}

bool Engine::Core::retry_parked() {
    // Without an answer they are sent again, to the next daemon; here they would wait for nothing.
    if (stopping_) return false;
    // What is found out from here on is for the requests that are parked from here on.
    auto failed_pages = std::exchange(failed_pages_, {});
    bool worked = false;
    std::vector<std::uint64_t> ready;
    port_.begin_trying();
    for (const auto& [client_id, parked] : parked_) {
        const bool waits = parked.wait == Wait::kPage && !storage_.pool.resident(parked.page) &&
                           !failed_pages.contains(parked.page.value);
        // Again, since it may have come and have been evicted before its turn.
        const Error error = waits ? bring_in(parked.page) : Error::kOk;
        if (error != Error::kOk) failed_pages[parked.page.value] = error;
        if (!waits || error != Error::kOk) ready.push_back(client_id);
    }
    // Whoever waits longest comes first: what there is room for may not be enough for all.
    std::sort(ready.begin(), ready.end(), [this](std::uint64_t left, std::uint64_t right) {
        return parked_.at(left).taken_ns < parked_.at(right).taken_ns;
    });
    for (const std::uint64_t client_id : ready) {
        Parked& parked = parked_.at(client_id);
        const bool transaction = parked.request.kind == RecordKind::kTransaction;
        if (transaction && port_.rests(client_id)) continue;
        PageId page;
        const auto failed = failed_pages.find(parked.page.value);
        Wait wait = Wait::kNone;
        if (parked.wait == Wait::kPage && failed != failed_pages.end() && !transaction) {
            const bool of_a_page = parked.request.kind == RecordKind::kCompact;
            port_.answer(parked.request.from, failed->second, Csn{},
                         of_a_page ? parked.page.value : kNoOperation);
            if (of_a_page) end_compaction();
        } else if (parked.wait == Wait::kPage && failed != failed_pages.end()) {
            refuse(parked.request, *session_of(client_id), failed->second, 0);
        } else {
            const std::uint64_t began_ns = clock_.monotonic_ns();
            port_.begin_taking(began_ns);
            chances_ = &parked.chances;
            wait = attempt(parked.request, parked.taken_ns, page);
            chances_ = nullptr;
            if (transaction) count_time(client_id, began_ns, clock_.monotonic_ns());
        }
        if (wait != Wait::kNone) {
            park(parked.request, wait, page, parked.taken_ns);
            continue;
        }
        parked_.erase(client_id);
        port_.pause(client_id, false);
        worked = true;
    }
    return worked;
}

void Engine::Core::refuse(const ClientRequest& request, Session& session, Error error,
                          std::uint32_t operation) {
    const ColdPath cold;
    session.refused(request.write_number, error, operation);
    commit_->answer_later(request.from, error, operation);
}

Engine::Core::Wait Engine::Core::handle_transaction(const ClientRequest& request,
                                                    std::uint64_t taken_ns, PageId& page) {
    const HotPath hot("take a transaction and apply it");
    Session* session = session_of(request.from.client_id);
    CHECK(session != nullptr);
    switch (session->judge(request.write_number, request.decided_below)) {
        case Session::Verdict::kGap:
            port_.hostile(request.from.client_id, "a write number was skipped");
            return Wait::kNone;
        case Session::Verdict::kTooFar:
            port_.hostile(request.from.client_id,
                          "more writes without a confirmed answer than a session remembers");
            return Wait::kNone;
        case Session::Verdict::kApplied:
            commit_->answer_later(request.from, Error::kOk, kNoOperation);
            return Wait::kNone;
        case Session::Verdict::kRefused:
            commit_->answer_later(request.from, session->refusal().error,
                                  session->refusal().operation);
            return Wait::kNone;
        case Session::Verdict::kNew:
            break;
    }
    // Before it takes a turn of those who may write.
    if (request.rights < Rights::kWriter) {
        refuse(request, *session, Error::kDenied, 0);
        return Wait::kNone;
    }
    if (!let_in()) return Wait::kTurn;
    const PagesInUse looked_at(storage_.pool);  // making room must not evict what was looked at
    evaluated_ = true;
    switch (transaction_->evaluate(request.payload, request.rights)) {
        case Executor::State::kMissing:
            // What it reads has to be in the pool at one time: else it would never be.
            if (storage_.pool.looked_at() > frames_at_most()) {
                refuse(request, *session, Error::kTooLarge, kLimitPool);
                return Wait::kNone;
            }
            page = transaction_->missing();
            return Wait::kPage;
        case Executor::State::kRefused:
            refuse(request, *session, transaction_->error(), transaction_->failed_operation());
            return Wait::kNone;
        case Executor::State::kReady:
            break;
    }
    return apply(request, *session, taken_ns, page);
}

Engine::Core::Wait Engine::Core::apply(const ClientRequest& request, Session& session,
                                       std::uint64_t taken_ns, PageId& page) {
    bool first_row = false;
    if (!commit_->has_row(session)) {
        const Tree& sessions = storage_.catalog->sessions().tree;
        const std::byte* const key = std::as_bytes(std::span(session.id().bytes)).data();
        const Lookup row = sessions.get(key);
        page = row.missing;
        if (row.missing) return Wait::kPage;
        transaction_->room().put(sessions, key, session.row_bytes(), row);
        first_row = !row.found;
    }
    const Room room = transaction_->room().total();
    Refused refused;
    const std::uint64_t reserve = transaction_->only_deletes() ? 0 : kReservePages;
    const Wait wait =
        secure(room, transaction_->log_bytes(), refused, reserve, transaction_->extents_needed());
    if (refused.error != Error::kOk) {
        refuse(request, session, refused.error, refused.limit);
        return Wait::kNone;
    }
    if (wait != Wait::kNone) return wait;
    [[maybe_unused]] const std::uint64_t versions = storage_.pool.open_versions();
    [[maybe_unused]] const std::uint64_t available = storage_.space.available();
    const EffectCounts counts = transaction_->apply(commit_->wal());
    storage_.space.release_extents();
    stats_.add(Counter::kRowsPut, counts.rows_put);
    stats_.add(Counter::kRowsDeleted, counts.rows_deleted);
    commit_->applied(session, request.write_number, request.from, *transaction_, taken_ns);
    if (first_row) session_bound_.made();
    DCHECK(storage_.pool.open_versions() - versions <= frames_of(room));
    DCHECK(available - storage_.space.available() <= room.fresh);
    return Wait::kNone;
}

// ---- page requests ----

void Engine::Core::handle_page_request(const ClientRequest& request) {
    PageRequest wanted{};
    const std::size_t bytes = std::min(request.payload.size(), sizeof wanted);
    std::memcpy(&wanted, request.payload.data(), bytes);
    if (bytes < 4 || wanted.count == 0 || wanted.count > kPagesPerRequest ||
        bytes < 4 + 4 * std::size_t{wanted.count}) {
        return port_.hostile(request.from.client_id, "a malformed page request");
    }
    const std::uint32_t waiting = page_waits_.begin(request.from, wanted.count);
    for (std::uint32_t i = 0; i < wanted.count; ++i) {
        const PageId page{wanted.page_id[i]};
        const Error error = storage_.loader.want(page, request.from.client_id);
        if (error == Error::kBusy) {
            page_waits_.wait_for(page, waiting, i);
        } else {
            page_waits_.finish(waiting, i, error);
        }
    }
}

void Engine::Core::on_loaded(PageId page, Error error, const std::string& message, bool news) {
    if (error != Error::kOk) failed_pages_[page.value] = error;
    if (news) say(3, message);
    page_waits_.on_loaded(page, error);
}

}  // namespace bidstore
