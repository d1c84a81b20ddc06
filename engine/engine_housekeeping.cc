// Work that nobody waits for, a little in each round: sessions that were not heard of for long are
// forgotten.
#include <algorithm>

#include "engine/engine_core.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kSessionsPerRound = 64;
constexpr std::uint64_t kExpiryPauseNs = 600'000'000'000;  // before each walk over all sessions

}  // namespace

// Forgets sessions by a logged record each. One whose client is connected stays, however long it
// has been silent. So the first walk of a life waits, too: clients of the life before come back
// and send again what had no answer, and a wall clock that stepped forward meanwhile must not make
// their sessions old, or what was applied would be applied again.
bool Engine::Core::expire_sessions() {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (next_expiry_ns_ == 0) next_expiry_ns_ = now_ns + kExpiryPauseNs;
    if (stopping_ || anyone_waits() || now_ns < next_expiry_ns_) return false;
    TableEntry& table = storage_.catalog->sessions();
    const PagesInUse looked_at(storage_.pool);
    const std::uint64_t now_us = clock_.wall_us();
    std::vector<std::vector<std::byte>> expired;
    std::uint32_t looked = 0;
    std::vector<std::byte> reached;
    const std::byte* from = key_bound(expiry_cursor_);
    const TreeAccess seen = table.tree.visit_range(
        from, nullptr, [&](const std::byte* key, std::span<const std::byte> value) {
            reached.assign(key, key + sizeof(SessionId));
            if (++looked > kSessionsPerRound) return false;
            const std::uint64_t last = column_integer(table.schema, kSessionsSeen, key, value);
            if (last + options_.session_age_us < now_us && !in_use(reached)) {
                expired.push_back(reached);
            }
            return true;
        });
    if (seen.missing) storage_.loader.want(seen.missing);
    if (!seen.ok()) return false;
    for (const auto& key : expired) {
        if (!expire_session(table, key)) return false;
    }
    const bool done = looked <= kSessionsPerRound;
    expiry_cursor_ = done ? std::vector<std::byte>{} : reached;
    if (done) next_expiry_ns_ = now_ns + kExpiryPauseNs;
    return !expired.empty();
}

bool Engine::Core::in_use(const std::vector<std::byte>& session_key) const {
    for (const auto& session : sessions_) {
        const auto id = std::as_bytes(std::span(session->id().bytes));
        if (std::equal(id.begin(), id.end(), session_key.begin())) return true;
    }
    return false;
}

bool Engine::Core::expire_session(TableEntry& table, const std::vector<std::byte>& key) {
    const Lookup stored = table.tree.get(key.data());
    if (!stored.ok()) return false;
    housekeeping_room_.reset();
    housekeeping_room_.erase(table.tree, key.data(), stored);
    Refused refused;
    const std::uint32_t log_bytes = Wal::record_bytes(key.size(), 0);
    const Wait wait = secure(housekeeping_room_.total(), log_bytes, refused);
    if (wait != Wait::kNone || refused.error != Error::kOk) return false;
    commit_->wal().append(RecordType::kExpireSession, table.id, key, {});
    CHECK(table.tree.erase(key.data()).ok());
    return true;
}

}  // namespace bidstore
