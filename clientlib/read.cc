// The read path: a point read is find_row, by the directory or by the tree, and then valid().

#include "clientlib/read.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "clientlib/catalog_row.h"
#include "clientlib/directory_probe.h"
#include "clientlib/large_value.h"
#include "clientlib/snapshot.h"
#include "engine/page/catalog_schema.h"
#include "engine/page/row.h"
#include "shm/hot_path.h"

namespace bidstore {
namespace {

Failure corrupt_page(ReaderState& state, const TableInfo& table, PageId page,
                     const std::byte* near) {
    const ColdPath cold;
    return {Error::kCorruption, "table " + table.schema.name() + ": page " +
                                    std::to_string(page.value) + ", " +
                                    key_range_text(state, table, page, near) +
                                    ": not what the tree says it is; stop the daemon and verify "
                                    "the data file"};
}

}  // namespace

Failure wrong_key(const TableInfo& table, std::size_t size_bytes) {
    const ColdPath cold;
    return {Error::kInvalid, "table " + table.schema.name() + ": a key has " +
                                 std::to_string(table.schema.key_bytes()) + " bytes, not " +
                                 std::to_string(size_bytes)};
}

Failure expired_failure() {
    const ColdPath cold;
    return {Error::kSnapshotExpired,
            "the snapshot's lease ended (held too long, or the daemon went away): take a new one"};
}

// ---- snapshots ----------------------------------------------------------------------------------

ReaderState::~ReaderState() {
    // A forked child has no client segment mapped, and the parent's locks are not its own.
    if (generation != fork_generation()) {
        slot.reset();
        touches.reset();
        return;
    }
    if (holding()) end();
    if (connection) connection->release_reader_slot(slot_number);
}

Status ReaderState::move_to(std::shared_ptr<Connection> next) {
    const std::optional<std::uint32_t> number = next->claim_reader_slot();
    if (!number) {
        return {Error::kBusy, "all " + std::to_string(next->segment().slot_count()) +
                                  " reader slots of this process are taken: close a Reader, or "
                                  "raise the daemon's reader_slots"};
    }
    if (connection) connection->release_reader_slot(slot_number);
    // Of one that ended unnoticed every snapshot would be dead: the next begin goes on from it.
    if (next->hung_up()) next->abandon();
    connection = std::move(next);
    slot_number = *number;
    ClientSegment& segment = connection->segment();
    const PoolView& pool = connection->pool();
    slot.emplace(segment.slots()[slot_number], pool.published(),
                 pool.revoked()[segment.first_slot() + slot_number]);
    touches.emplace(segment.marks()[slot_number]);
    roots.clear();
    roots_since = 0;  // of another pool
    return {};
}

// The tree of a table that was dropped is taken apart step by step, under the root that it had. A
// reader's snapshots never go back: what no drop up to now touches, no drop that this snapshot sees
// does.
void ReaderState::forget_dropped_roots() {
    if (connection->pool().published().dropped.load() <= roots_since) [[likely]]
        return;
    roots.clear();
    roots_since = slot->snapshot().value;
}

void ReaderState::look_at_heartbeat(std::uint64_t now_ns) {
    const bool maybe = heartbeat.missed(connection->pool().header().engine, now_ns);
    // A daemon that is slow or stopped is still the one whose pool this is; only its end is an end.
    // A client that was cut off loses every snapshot, and finds out here.
    const bool asked = std::exchange(lost_a_snapshot, false) || maybe;
    if (asked && connection->hung_up()) connection->abandon();
}

Status ReaderState::look_around(Deadline until) {
    if (const std::uint64_t now_ns = coarse_now_ns(); heartbeat.due(now_ns)) {
        look_at_heartbeat(now_ns);
    }
    if (connection->alive()) [[likely]]
        return {};
    const ColdPath cold;
    auto live = store->live_connection(until);
    if (!live.ok()) return live.failure();
    return move_to(std::move(*live));
}

Status ReaderState::begin(Deadline until) {
    const HotPath hot("snapshot");
    if (generation != fork_generation()) [[unlikely]]
        return forked_failure();
    if (holding()) [[unlikely]] {
        const ColdPath cold;
        return {Error::kInvalid, "this Reader has a live snapshot: end it, or use another Reader"};
    }
    if (Status there = look_around(until); !there.ok()) [[unlikely]]
        return there;
    if (!assembled.empty()) assembled.clear();
    if (value_failed) value_failure = {};
    value_failed = false;
    slot->begin();
    forget_dropped_roots();
    held = ++snapshots;
    rows_out = false;
    standing_cursors = 0;
    deadline = until;
    return {};
}

void ReaderState::end() {
    held = 0;
    if (generation != fork_generation()) return;
    if (!slot->valid()) [[unlikely]] {
        lost_a_snapshot = true;
        heartbeat.hurry();
    }
    slot->end();
}

void ReaderState::set_root(const TableInfo& table, PageId page) {
    if (roots.size() <= table.index) roots.resize(table.index + 1);
    roots[table.index] = page;
}

Result<ReaderState*> ReaderState::live(const Snapshot& snapshot) {
    ReaderState* state = snapshot.state_;
    if (state == nullptr) [[unlikely]] {
        const ColdPath cold;
        return {Error::kInvalid, "this snapshot has ended: take a new one"};
    }
    if (state->generation != fork_generation()) [[unlikely]]
        return forked_failure();
    return state;
}

Result<ReaderState*> ReaderState::live(const Snapshot& snapshot, const TableInfo& table) {
    Result<ReaderState*> state = live(snapshot);
    if (state.ok() && (*state)->file != table.file && table.id != kCatalogId) [[unlikely]] {
        const ColdPath cold;
        return {Error::kInvalid, "table " + table.schema.name() +
                                     " was opened on another store than this snapshot is of: "
                                     "open it again"};
    }
    return state;
}

Csn Snapshot::csn() const { return state_ == nullptr ? Csn{} : state_->slot->snapshot(); }
Status Snapshot::status() const {
    if (state_ == nullptr) return {Error::kInvalid, "this snapshot has ended: take a new one"};
    if (state_->value_failed) return state_->value_failure;
    return state_->valid() ? Status{} : Status{expired_failure()};
}
bool Snapshot::valid() const { return state_ != nullptr && state_->valid(); }
Deadline Snapshot::deadline() const { return state_ == nullptr ? Deadline{} : state_->deadline; }
void Snapshot::end() {
    if (ReaderState* state = std::exchange(state_, nullptr)) state->end();
}
Snapshot& Snapshot::operator=(Snapshot&& other) noexcept {
    if (this != &other) {
        end();
        state_ = std::exchange(other.state_, nullptr);
    }
    return *this;
}

Reader::Reader(std::unique_ptr<ReaderState> state) : state_(std::move(state)) {}
Reader::Reader(Reader&&) noexcept = default;
Reader& Reader::operator=(Reader&&) noexcept = default;
Reader::~Reader() = default;

Result<Snapshot> Reader::snapshot(Deadline deadline) {
    if (Status begun = state_->begin(deadline); !begun.ok()) return begun.failure();
    return Snapshot(state_.get());
}

std::uint64_t Reader::pages_asked_for() const { return state_->pages_asked_for; }

// ---- one row ------------------------------------------------------------------------------------

namespace {

// The directory's line is on its way while the root, which is in the processor's cache, is looked
// at. No line is waited for that did not have to be: bucket, page map, leaf.
[[gnu::always_inline]] inline bool find_by_directory(ReaderState& state, const TableInfo& table,
                                                     const std::byte* key, DirectoryProbe& probe,
                                                     RawRow& row) {
    const KeyDirectory directory = state.directory();
    const PoolView& pool = state.connection->pool();
    probe.aim(directory, table, key);
    const DirectoryUse use = DirectoryUse::of(state, table);
    if (!use.possible) return false;
    probe.look(directory, pool);
    probe.approach(pool, table);
    return probe.arrive(state, table, key, use.floor, row);
}

// A page on the way is missing: the leaf that the directory names is asked for with it, if that is
// missing, too. One wait for the device, not one for each level. In a request of its own, since
// that there is no such page (any more) says nothing of the tree. Returns the leaf if it was asked
// for.
PageId read_leaf_ahead(ReaderState& state, DirectoryProbe& probe, PageId missing) {
    const PoolView& pool = state.connection->pool();
    probe.look(state.directory(), pool);
    const PageId leaf = probe.leaf();
    const bool no_need = !leaf || leaf == missing || newest_hint(pool, leaf) != nullptr;
    const ColdPath cold;
    const std::uint64_t before = state.pages_asked_for;
    if (!no_need) request_pages_ahead(state, {&leaf, 1});
    return state.pages_asked_for > before ? leaf : PageId{};
}

Result<bool> find_by_tree(ReaderState& state, const TableInfo& table, const std::byte* key,
                          DirectoryProbe& probe, RawRow& row) {
    const TreeShape& shape = *table.shape;
    PageLookup last = PageLookup::kFound;
    const PageSource source(state, last);
    Obstacle obstacle(state, table, key);
    PageId ahead;
    for (;;) {
        Landing landing{Landed::kCorrupt, PageId{}, nullptr};
        if (const PageId root = state.root(table)) landing = descend(shape, root, key, source);
        if (landing.state == Landed::kLeaf) [[likely]] {
            const LeafView leaf(landing.bytes, shape.leaf);
            const int found = leaf.find(key);
            if (found < 0) return false;
            const auto at = static_cast<std::uint32_t>(found);
            row = row_in(state, table, leaf, at);
            return table.schema.live(leaf.key(at), leaf.value(at), landing.floor);
        }
        if (landing.state == Landed::kMissing && last == PageLookup::kAbsent) {
            // On its way already: waited for, and not counted again.
            if (landing.page == ahead) --state.pages_asked_for;
            ahead = read_leaf_ahead(state, probe, landing.page);
        }
        if (Status cleared = obstacle.overcome(landing, last); !cleared.ok()) {
            return failure_of(cleared);
        }
        if (find_by_directory(state, table, key, probe, row)) return true;
    }
}

}  // namespace

Result<bool> find_row(ReaderState& state, const TableInfo& table, const std::byte* key,
                      RawRow& row) {
    const HotPath hot("get");
    DirectoryProbe probe;
    if (find_by_directory(state, table, key, probe, row)) [[likely]]
        return true;
    return find_by_tree(state, table, key, probe, row);
}

Status Obstacle::overcome(const Landing& landing, PageLookup last, std::span<const PageId> ahead) {
    const ColdPath cold;
    // Whatever it looked like, an expired snapshot concludes nothing from it.
    if (!state_.valid()) return expired_failure();
    if (landing.state != Landed::kMissing || last != PageLookup::kAbsent)
        return mismatch(landing.page);
    std::array<PageId, kPagesPerRequest> pages;
    pages[0] = landing.page;
    const std::size_t count = std::min(ahead.size(), pages.size() - 1);
    std::copy_n(ahead.begin(), count, pages.begin() + 1);
    Status came = request_pages(state_, table_, std::span(pages).first(count + 1), near_);
    if (came.error() == Error::kNoSuchPage) return mismatch(landing.page);
    return came;
}

// The way here began at a root seen earlier, which may have gone since: once more from the
// catalog. What is wrong then is wrong in the file.
Status Obstacle::mismatch(PageId page) {
    if (!state_.valid()) return expired_failure();
    if (root_is_fresh_ || table_.id == ReaderState::kCatalogId) {
        return corrupt_page(state_, table_, page, near_);
    }
    root_is_fresh_ = true;
    return find_root(state_, table_);
}

namespace {

// Whether the catalog's row is of the table that the handle was opened on. Ids are given once in a
// file's life; but an older copy of it that was put back may have given this one to another table.
Status check_same_table(const TableInfo& table, const Copy<CatalogRow>& row) {
    const std::string id = " (id " + std::to_string(table.id.value) + ")";
    if (row.name != table.schema.name()) {
        return {Error::kNoSuchTable, "table " + table.schema.name() + id +
                                         " is not there: its id is that of table " +
                                         std::string(row.name) + " now; open it again"};
    }
    const Result<Schema> schema = Schema::decode(std::as_bytes(std::span(row.schema)));
    if (!schema.ok()) {
        return {Error::kCorruption, "catalog: the schema of table " + std::string(row.name) +
                                        " cannot be read: " + schema.failure().what};
    }
    const std::string difference = schema->difference(table.schema);
    if (difference.empty()) return {};
    return {Error::kSchemaMismatch, "table " + table.schema.name() + id +
                                        " is another one than when it was opened: " + difference +
                                        "; open it again"};
}

}  // namespace

Status find_root(ReaderState& state, const TableInfo& table) {
    const Key<CatalogRow> key = Key<CatalogRow>::from(table.id.value);
    RawRow row;
    const Result<bool> found = find_row(state, catalog_info(), key.span().data(), row);
    if (!found.ok()) return found.failure();
    PageId root;
    bool there = *found;
    Status same;
    if (there) {
        const Result<RawCopy> whole = whole_row(row);
        if (!whole.ok()) return state.valid() ? whole.failure() : expired_failure();
        const auto copy = Description<CatalogRow>::copy(whole->key, whole->value);
        root.value = copy.root;
        there = (copy.flags & (kDroppedTableFlag | kHiddenTableFlag)) == 0;
        same = check_same_table(table, copy);
    }
    if (!state.valid()) return expired_failure();
    if (!there) {
        return {Error::kNoSuchTable, "table " + table.schema.name() + " (id " +
                                         std::to_string(table.id.value) +
                                         ") is not there in this snapshot: it was dropped, or made "
                                         "later; open it again"};
    }
    if (!same.ok()) return same;
    state.set_root(table, root);
    return {};
}

Result<std::optional<std::uint32_t>> RawTable::read(const Snapshot& snapshot,
                                                    std::span<const std::byte> key,
                                                    std::span<std::byte> value) const {
    const HotPath hot("read");
    Result<ReaderState*> state = ReaderState::live(snapshot, *info_);
    if (!state.ok()) [[unlikely]]
        return failure_of(state);
    if (key.size() != schema().key_bytes()) [[unlikely]]
        return wrong_key(*info_, key.size());
    RawRow row;
    const Result<bool> found = find_row(**state, *info_, key.data(), row);
    if (!found.ok()) [[unlikely]]
        return failure_of(found);
    const std::size_t size_bytes = *found ? row.value.size() : 0;
    const bool large =
        *found && schema().has_variable() && RowView(schema(), row.value).has_references();
    const bool fits = size_bytes <= value.size() && !large;
    if (fits && size_bytes != 0) racy_copy(value.data(), row.value.data(), size_bytes);
    if (!(*state)->valid()) [[unlikely]]
        return expired_failure();
    (*state)->renew();  // its frame is in use no more
    if (!*found) return std::optional<std::uint32_t>{};
    if (!fits) [[unlikely]] {
        const ColdPath cold;
        if (large) return {Error::kTooLarge, "table " + name() + ": a row with large values"};
        return {Error::kTooLarge, "table " + name() + ": a value of " + std::to_string(size_bytes) +
                                      " bytes does not fit " + std::to_string(value.size())};
    }
    return std::optional<std::uint32_t>{static_cast<std::uint32_t>(size_bytes)};
}

Result<std::optional<RawRow>> RawTable::peek(const Snapshot& snapshot,
                                             std::span<const std::byte> key) const {
    const HotPath hot("peek");
    Result<ReaderState*> state = ReaderState::live(snapshot, *info_);
    if (!state.ok()) [[unlikely]]
        return failure_of(state);
    if (key.size() != schema().key_bytes()) [[unlikely]]
        return wrong_key(*info_, key.size());
    RawRow row;
    const Result<bool> found = find_row(**state, *info_, key.data(), row);
    if (!found.ok()) return failure_of(found);
    // That there is no row is a conclusion, and is checked here; a row is the caller's to check.
    if (*found) {
        (*state)->rows_out = true;
        return std::optional<RawRow>{row};
    }
    if (!(*state)->valid()) return expired_failure();
    return std::optional<RawRow>{};
}

Result<std::optional<RawCopy>> RawTable::get(const Snapshot& snapshot,
                                             std::span<const std::byte> key) const {
    Result<ReaderState*> state = ReaderState::live(snapshot, *info_);
    if (!state.ok()) return state.failure();
    if (key.size() != schema().key_bytes()) return wrong_key(*info_, key.size());
    RawRow row;
    const Result<bool> found = find_row(**state, *info_, key.data(), row);
    if (!found.ok()) return found.failure();
    if (!*found) {
        if (!(*state)->valid()) return expired_failure();
        (*state)->renew();
        return std::optional<RawCopy>{};
    }
    auto copy = whole_row(row);
    if (!copy.ok()) return copy.failure();
    if (!(*state)->valid()) return expired_failure();
    (*state)->renew();
    return std::optional<RawCopy>{std::move(*copy)};
}

}  // namespace bidstore
