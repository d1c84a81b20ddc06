#include "tests/sim_session.h"

#include <algorithm>

namespace bidstore {
namespace {

constexpr std::uint32_t kUnitsBeforeEnd = 500;
constexpr std::size_t kTooLargeKept = 8;

// Of a daemon on its way out: the write counts as not answered.
bool says_farewell(Error error) {
    return error == Error::kStopping || error == Error::kFenced ||
           error == Error::kUnknownOutcome || error == Error::kSessionGap;
}

// Refused whatever there is, for the sake of its number.
std::vector<std::byte> refused_transaction() {
    TransactionBytes bytes(Durability::kRelaxed);
    const std::vector<std::byte> key(8);
    bytes.operation(OperationKind::kCheckPresent, TableId{~std::uint32_t{0}}, key, {});
    return bytes.bytes();
}

}  // namespace

bool SimSession::connect(SimStore& store) {
    client_ = store.attach(rights_, id_);
    store_ = &store;
    again_.clear();
    went_on_.reset();
    if (client_ == nullptr) return false;
    applied_ = store.clients.attach_answers.at(client_->id()).second;
    if (applied_ >= next_number_) {
        findings_.report("the store knows of write " + std::to_string(applied_) +
                         " of a session that sent " + std::to_string(next_number_ - 1));
        return false;
    }
    const std::uint64_t first = kept_.empty() ? next_number_ : kept_.front().number;
    init_ring(client_->segment().ring_control(), first - 1);
    client_->welcomed(first - 1);
    // A life is short for a ring: every other one begins near its end.
    if (kept_.empty() && next_number_ % 2 == 0) {
        const auto units = static_cast<std::uint32_t>(1 + next_number_ * 37 % kUnitsBeforeEnd);
        client_->claim_up_to_end(units * 2 * kRingUnitBytes);
        store.run_until([&] { return client_->ring_is_empty(); });
    }
    for (Write& write : kept_) {
        write.token.reset();
        // Accepted, never durable, and lost: as if it had never been sent.
        if (write.answered && write.answer.error == Error::kOk && write.number > applied_) {
            write.answered = false;
        }
    }
    return true;
}

void SimSession::lose() {
    store_ = nullptr;
    client_ = nullptr;
    again_.clear();
    went_on_.reset();
    for (Write& write : kept_) write.token.reset();
}

void SimSession::die(SimStore& store) {
    store.hang_up(*client_);
    lose();
}

bool SimSession::send(Write& write) {
    // What it has the answers to, whether it still keeps them or not.
    const bool front = kept_.empty() || kept_.front().number >= write.number;
    client_->set_decided_below(front ? write.number : kept_.front().number);
    const bool again = write.answered;
    const bool applied = again && write.answer.error == Error::kOk;
    const auto token = client_->submit(again && !applied ? refused_transaction() : write.bytes);
    if (!token) return false;
    CHECK_OP(client_->last_number(), ==, write.number);
    if (again) {
        again_.push_back({*token, write.number, applied});
    } else {
        write.token = token;
    }
    return true;
}

void SimSession::send_again() {
    for (Write& write : kept_) {
        write.decided_before |= write.number <= applied_;
        CHECK(send(write));  // few are kept, and the ring is new
    }
}

std::uint64_t SimSession::submit(std::vector<std::byte> bytes) {
    Write write;
    write.number = next_number_;
    write.bytes = std::move(bytes);
    if (!send(write)) return 0;
    ++next_number_;
    kept_.push_back(std::move(write));
    return next_number_ - 1;
}

void SimSession::collect(const std::function<void(const Write&)>& on_answer) {
    if (client_ == nullptr) return;
    for (Write& write : kept_) {
        if (!write.token) continue;
        const auto answer = client_->answer(*write.token);
        if (!answer) continue;
        write.token.reset();
        if (says_farewell(answer->error)) continue;
        if (dying() && answer->error == Error::kIoError) continue;
        write.answered = true;
        write.answer = *answer;
        const bool too_large = answer->error == Error::kTooLarge;
        if (too_large && too_large_.size() < kTooLargeKept) too_large_.push_back(write.bytes);
        on_answer(write);
    }
    if (went_on_ && client_->answer(*went_on_)) went_on_.reset();
    std::erase_if(again_, [&](const Again& again) {
        const auto answer = client_->answer(again.token);
        if (!answer) return false;
        const bool twice = answer->error == Error::kOk && answer->result_count > 0;
        const bool forgotten =
            answer->error == Error::kSessionGap || (again.applied && answer->error != Error::kOk &&
                                                    !says_farewell(answer->error) && !dying());
        if (twice || forgotten) {
            findings_.report("write " + std::to_string(again.number) +
                             ", answered before and sent again, was answered with " +
                             std::string(error_name(answer->error)) +
                             (twice ? " and results: applied twice" : ""));
        }
        return true;
    });
    drop_decided();
}

void SimSession::drop_decided() {
    while (!kept_.empty() && kept_.front().answered) kept_.pop_front();
}

bool SimSession::stop_in_claim() { return client_->claim_and_stop(); }

}  // namespace bidstore
