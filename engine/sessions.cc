#include "engine/sessions.h"

#include <algorithm>
#include <cstring>

#include "shm/call_slot.h"

namespace bidstore {
namespace {

StoredRefusal packed(const Refusal& refusal, std::uint64_t row_number) {
    const std::uint64_t age = row_number - refusal.number;
    CHECK_OP(age, <, kUndecidedWritesMax);  // judge() went before
    const std::uint32_t operation = refusal.operation & 4095;
    return {static_cast<std::uint32_t>(age) | operation << 12 |
            static_cast<std::uint32_t>(refusal.error) << 24};
}

Refusal unpacked(const StoredRefusal& stored, std::uint64_t row_number) {
    std::uint32_t operation = (stored.bits >> 12) & 4095;
    if (operation >= StoredRefusal::kNotAnOperation) operation |= ~std::uint32_t{4095};
    return {row_number - (stored.bits & 4095), static_cast<Error>(stored.bits >> 24), operation};
}

}  // namespace

Session::Verdict Session::judge(std::uint64_t number, std::uint64_t decided_below) {
    // Nothing is added to a number that may be the greatest there is: decided_ must never fall.
    if (number == 0) return Verdict::kGap;
    // What the client has the answer to, it will not send again: also where the refusal of the
    // newest number was lost in a crash.
    if (decided_below != 0) decided_ = std::max(decided_, std::min(decided_below, number) - 1);
    while (!refused_.empty() && refused_.front().number < decided_below) refused_.pop_front();
    if (number - 1 > decided_) return Verdict::kGap;
    if (number - 1 == decided_) {
        const bool old =
            !refused_.empty() && number - refused_.front().number >= kUndecidedWritesMax;
        return old ? Verdict::kTooFar : Verdict::kNew;
    }
    const auto found = std::find_if(refused_.begin(), refused_.end(), [&](const Refusal& refusal) {
        return refusal.number == number;
    });
    if (found == refused_.end()) return Verdict::kApplied;
    refusal_ = *found;
    return Verdict::kRefused;
}

void Session::refused(std::uint64_t number, Error error, std::uint32_t operation) {
    decided_ = number;
    refused_.push_back({number, error, operation});
    CHECK_OP(refused_.size(), <=, kUndecidedWritesMax);
}

std::span<const std::byte> Session::row(std::uint64_t number, std::uint64_t now_us,
                                        Arena& arena) const {
    const auto behind = [number](const Refusal& refusal) { return refusal.number > number; };
    const auto last = std::find_if(refused_.begin(), refused_.end(), behind);
    const auto count = static_cast<std::size_t>(last - refused_.begin());
    const std::size_t refused_bytes = count * sizeof(StoredRefusal);
    const std::size_t length = row_bytes() - (refused_.size() - count) * sizeof(StoredRefusal);
    std::byte* row = arena.take(length);
    std::memset(row, 0, length);
    std::memcpy(row, &number, 8);
    std::memcpy(row + 8, &now_us, 8);
    std::memcpy(row + 16, &uid_, 4);
    const auto end = static_cast<std::uint16_t>(refused_bytes);
    std::memcpy(row + 20, &end, 2);
    std::byte* to = row + 22;
    for (auto refusal = refused_.begin(); refusal != last; ++refusal) {
        const StoredRefusal stored = packed(*refusal, number);
        std::memcpy(to, &stored, sizeof stored);
        to += sizeof stored;
    }
    return {row, length};
}

bool Session::load(const std::byte* key, std::span<const std::byte> value) {
    const Schema& schema = sessions_schema();
    decided_ = column_integer(schema, kSessionsNumber, key, value);
    refused_.clear();
    auto stored_bytes = column_bytes(schema, kSessionsRefused, key, value);
    if (stored_bytes.size() % sizeof(StoredRefusal) != 0) return false;
    while (!stored_bytes.empty()) {
        StoredRefusal stored;
        std::memcpy(&stored, stored_bytes.data(), sizeof stored);
        stored_bytes = stored_bytes.subspan(sizeof stored);
        const Refusal refusal = unpacked(stored, decided_);
        const std::uint64_t age = decided_ - refusal.number;
        const bool rises = refused_.empty() || refused_.back().number < refusal.number;
        const auto error = static_cast<std::size_t>(refusal.error);
        if (age >= std::min<std::uint64_t>(decided_, kUndecidedWritesMax) || !rises) return false;
        if (error == 0 || error >= kErrorCount) return false;
        refused_.push_back(refusal);
    }
    return true;
}

}  // namespace bidstore
