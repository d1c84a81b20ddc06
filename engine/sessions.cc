#include "engine/sessions.h"

#include <algorithm>
#include <cstring>

namespace bidstore {
namespace {

struct StoredRefusal {
    std::uint32_t below;  // the row's number minus this one
    std::uint16_t error;
    std::uint16_t operation;
};
static_assert(sizeof(StoredRefusal) == 8);

}  // namespace

Session::Verdict Session::judge(std::uint64_t number, std::uint64_t decided_below) {
    if (number == 0) return Verdict::kGap;
    // What the client has the answer to, it will not send again: also where the refusal of the
    // newest number was lost in a crash.
    if (decided_below > decided_ + 1 && number > decided_ + 1) {
        decided_ = std::min(decided_below, number) - 1;
    }
    while (!refused_.empty() && refused_.front().number < decided_below) refused_.pop_front();
    if (number > decided_ + 1) return Verdict::kGap;
    if (number == decided_ + 1) return Verdict::kNew;
    const auto found = std::find_if(refused_.begin(), refused_.end(), [&](const Refusal& refusal) {
        return refusal.number == number;
    });
    if (found == refused_.end()) return Verdict::kApplied;
    refusal_ = *found;
    return Verdict::kRefused;
}

void Session::refused(std::uint64_t number, Error error, std::uint32_t operation) {
    decided_ = number;
    refused_.push_back({number, error, static_cast<std::uint16_t>(operation)});
    if (refused_.size() > kRefusedMax) refused_.pop_front();
}

std::span<const std::byte> Session::row(std::uint64_t number, std::uint64_t now_us,
                                        Arena& arena) const {
    const std::size_t refused_bytes = refused_.size() * sizeof(StoredRefusal);
    const std::size_t length = 8 + 8 + 4 + 2 + refused_bytes;
    std::byte* row = arena.take(length);
    std::memset(row, 0, length);
    std::memcpy(row, &number, 8);
    std::memcpy(row + 8, &now_us, 8);
    std::memcpy(row + 16, &uid_, 4);
    const auto end = static_cast<std::uint16_t>(refused_bytes);
    std::memcpy(row + 20, &end, 2);
    std::byte* to = row + 22;
    for (const Refusal& refusal : refused_) {
        const StoredRefusal stored{static_cast<std::uint32_t>(number - refusal.number),
                                   static_cast<std::uint16_t>(refusal.error), refusal.operation};
        std::memcpy(to, &stored, sizeof stored);
        to += sizeof stored;
    }
    return {row, length};
}

void Session::load(const std::byte* key, std::span<const std::byte> value) {
    const Schema& schema = sessions_schema();
    decided_ = column_integer(schema, kSessionsNumber, key, value);
    refused_.clear();
    auto stored_bytes = column_bytes(schema, kSessionsRefused, key, value);
    while (stored_bytes.size() >= sizeof(StoredRefusal)) {
        StoredRefusal stored;
        std::memcpy(&stored, stored_bytes.data(), sizeof stored);
        stored_bytes = stored_bytes.subspan(sizeof stored);
        refused_.push_back(
            {decided_ - stored.below, static_cast<Error>(stored.error), stored.operation});
    }
}

}  // namespace bidstore
