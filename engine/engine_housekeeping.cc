// Work that nobody waits for, a little in each round: pages of dropped tables go back, sessions
// that were not heard of for long are forgotten.
#include <algorithm>

#include "engine/engine_core.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kDropRowsPerRound = 2'000;
constexpr std::uint32_t kDropFrames = 4'096;  // free ones that a round wants before it starts
constexpr std::uint32_t kSessionsPerRound = 64;
constexpr std::uint64_t kExpiryPauseNs = 600'000'000'000;  // between two walks over all sessions

}  // namespace

// A dropped table's pages go back a few at a time: physical change, which is not logged but rides
// in a batch, at its own pace.
bool Engine::Core::drop_tables() {
    if (stopping_ || !parked_.empty()) return false;
    const auto dropping = storage_.catalog->dropping();
    if (dropping.empty()) return false;
    if (!dropping.front()->schema.has_variable()) return drop_leaves_of(*dropping.front());
    // A pool is full of pages most of the time: cold ones make room for those that go.
    const std::uint32_t frames = std::min(storage_.pool.frame_count() / 4, kDropFrames);
    if (storage_.pool.free_frames() < frames) {
        return evict_and_reclaim(frames - storage_.pool.free_frames());
    }
    // Of the longest rows, one fills a page: what a small pool has room for counts, too.
    const std::uint32_t most = std::min(kDropRowsPerRound, storage_.pool.frame_count() / 16);
    TableEntry& table = *dropping.front();
    const PagesInUse looked_at(storage_.pool);
    std::uint32_t rows = 0;
    std::vector<std::byte> end;
    const TreeAccess seen = table.tree.visit_range(
        nullptr, nullptr, [&](const std::byte* key, std::span<const std::byte>) {
            if (++rows <= most) return true;
            end.assign(key, key + table.schema.key_bytes());
            return false;
        });
    const std::byte* bound = end.empty() ? nullptr : end.data();
    RangeCost cost;
    if (seen.ok()) cost = table.tree.range_cost(nullptr, bound, most);
    const Tree& catalog = storage_.catalog->catalog().tree;
    std::byte key[4];
    encode_key_integer(key, table.id.value, 4, false);
    const Lookup row = catalog.get(key);
    for (const PageId missing : {seen.missing, cost.missing, row.missing}) {
        if (!missing) continue;
        storage_.loader.want(missing);
        return false;
    }
    // verify tells; its pages stay as they are
    if (seen.corrupt || cost.corrupt || row.corrupt) return false;
    housekeeping_room_.reset();
    housekeeping_room_.erase_range(table.tree, cost);
    housekeeping_room_.put(catalog, key, row.value.size(), row);
    housekeeping_room_.add({1, 0, 1});  // its root
    Refused refused;
    const Wait wait = secure(housekeeping_room_.total(), 0, refused);
    if (wait != Wait::kNone || refused.error != Error::kOk) return false;
    CHECK(table.tree.erase_range(nullptr, bound).ok());
    if (bound == nullptr) storage_.catalog->finish_drop(table);
    commit_->touch();
    return true;
}

// Forgets sessions by a logged record each. One whose client is connected stays, however long it
// has been silent.
bool Engine::Core::expire_sessions() {
    if (stopping_ || !parked_.empty() || clock_.monotonic_ns() < next_expiry_ns_) return false;
    TableEntry& table = storage_.catalog->sessions();
    const PagesInUse looked_at(storage_.pool);
    const std::uint64_t now_us = clock_.wall_us();
    std::vector<std::vector<std::byte>> expired;
    std::uint32_t looked = 0;
    std::vector<std::byte> reached;
    const std::byte* from = expiry_cursor_.empty() ? nullptr : expiry_cursor_.data();
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
    if (done) next_expiry_ns_ = clock_.monotonic_ns() + kExpiryPauseNs;
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
