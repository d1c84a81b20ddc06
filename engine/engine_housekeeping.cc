// Work that nobody waits for, a little in each round: sessions that were not heard of for long are
// forgotten.
#include <algorithm>
#include <utility>

#include "engine/engine_core.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kSessionsPerRound = 64;
constexpr std::uint64_t kExpiryHeldNs = 100'000'000;       // a step, by those who wait
constexpr std::uint64_t kExpiryPauseNs = 600'000'000'000;  // before each walk over all sessions

}  // namespace

// Forgets sessions by a logged record each: those that were silent for long, and the oldest of a
// user who has too many (engine/session_bound.h). One whose client is connected stays, however long
// it has been silent. So the first walk of a life waits, too: clients of the life before come back
// and send again what had no answer, and a wall clock that stepped forward meanwhile must not make
// their sessions old, or what was applied would be applied again.
bool Engine::Core::expire_sessions() {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (next_expiry_ns_ == 0) next_expiry_ns_ = now_ns + kExpiryPauseNs;
    if (expiry_walked_ && session_bound_.walk_is_due()) next_expiry_ns_ = now_ns;
    if (stopping_ || now_ns < next_expiry_ns_) return false;
    if (anyone_waits() && now_ns - last_expiry_ns_ < kExpiryHeldNs) return false;
    last_expiry_ns_ = now_ns;
    TableEntry& table = storage_.catalog->sessions();
    const PagesInUse looked_at(storage_.pool);
    const std::uint64_t now_us = clock_.wall_us();
    struct Row {
        std::vector<std::byte> key;
        std::uint64_t seen_us;
        std::uint32_t uid;
    };
    std::vector<Row> rows;
    std::vector<std::byte> next;
    const std::byte* from = key_bound(expiry_cursor_);
    const TreeAccess seen = table.tree.visit_range(
        from, nullptr, [&](const std::byte* key, std::span<const std::byte> value) {
            next.assign(key, key + sizeof(SessionId));
            if (rows.size() == kSessionsPerRound) return false;
            const auto integer = [&](std::uint32_t column) {
                return column_integer(table.schema, column, key, value);
            };
            rows.push_back({std::exchange(next, {}), integer(kSessionsSeen),
                            static_cast<std::uint32_t>(integer(kSessionsUid))});
            return true;
        });
    if (seen.missing) storage_.loader.want(seen.missing);
    if (!seen.ok()) return false;
    if (expiry_cursor_.empty()) session_bound_.begin_walk(now_us);
    bool worked = false;
    for (const Row& row : rows) {
        const bool goes = row.seen_us + options_.session_age_us < now_us ||
                          session_bound_.goes(row.uid, row.seen_us);
        if (!goes || in_use(row.key)) {
            session_bound_.stays(row.uid, row.seen_us);
            continue;
        }
        expiry_cursor_ = row.key;
        if (!expire_session(table, row.key)) return worked;
        session_bound_.gone(row.uid, row.seen_us);
        worked = true;
    }
    expiry_cursor_ = next;
    if (!next.empty()) return worked;
    session_bound_.end_walk();
    expiry_walked_ = true;
    next_expiry_ns_ = now_ns + kExpiryPauseNs;
    for (const auto& [uid, plan] : session_bound_.plans()) {
        say(4, "user " + std::to_string(uid) + " has more than " +
                   std::to_string(session_bound_.rows_max()) + " sessions: the " +
                   std::to_string(plan.rows) + " that were not used for longest are forgotten");
    }
    return worked;
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
