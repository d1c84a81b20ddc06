// A reading thread's state: its slot, its snapshot, and where it has seen the roots of tables.
//
// Who:    one thread. It is not shared, not even its cache lines.
// Begin:  forked? abandoned? time to look at the daemon's heartbeat? then the slot protocol of
//         shm/reader_slot.h. The looks cost a few loads of lines that hardly ever change.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clientlib/attach.h"
#include "clientlib/bidstore.h"
#include "clientlib/heartbeat.h"
#include "clientlib/session.h"
#include "engine/page/search.h"
#include "shm/key_directory.h"
#include "shm/page_map.h"
#include "shm/reader_slot.h"
#include "shm/touch_marks.h"

namespace bidstore {

struct ReaderState {
    explicit ReaderState(std::shared_ptr<StoreState> its_store)
        : store(std::move(its_store)), file(store->file()) {}
    ~ReaderState();
    ReaderState(const ReaderState&) = delete;
    ReaderState& operator=(const ReaderState&) = delete;

    // Takes a slot of the connection, and gives back the one of the connection before.
    Status move_to(std::shared_ptr<Connection> next);
    // Takes a snapshot; none is live.
    Status begin(Deadline until);
    void end();

    // Data are used, then this is asked, then they are believed.
    bool valid() const {
        return generation == fork_generation() && slot->valid() && connection->alive() &&
               !value_failed;
    }
    // A value could not be read by a call that cannot say so: nothing more is believed.
    void fail_value(Failure failure) {
        if (!value_failed) value_failure = std::move(failure);
        value_failed = true;
    }
    PageVersion version(PageId page) { return version_at(connection->pool(), *slot, page); }
    KeyDirectory directory() const {
        const PoolView& pool = connection->pool();
        return {pool.directory(), pool.bucket_count()};
    }

    // Lets go of all frames that were looked up under the snapshot, unless somebody may still use
    // one: a row that was given out in place, or a cursor that stands on its leaf. What is evicted
    // meanwhile is not kept for this reader then (shm/reader_slot.h).
    void renew() {
        if (uses_nothing()) slot->renew();
    }
    bool holding() const { return held != 0; }
    bool uses_nothing() const { return !rows_out && standing_cursors == 0; }

    // The root of a table as this reader saw it, and where it still is; 0: look in the catalog.
    PageId root(const TableInfo& table) const {
        if (table.id == kCatalogId) return PageId{connection->pool().header().catalog_root};
        return table.index < roots.size() ? roots[table.index] : PageId{};
    }
    void set_root(const TableInfo& table, PageId page);

    // What a call asks for before it is needed: a small share of the pool, for what comes takes the
    // place of something.
    std::uint32_t pages_ahead_max() const { return connection->pool().header().frame_count / 16; }

    static ReaderState& of(const Snapshot& snapshot) { return *snapshot.state_; }
    // No read may begin without it: kInvalid after end() or in a forked child.
    static Result<ReaderState*> live(const Snapshot& snapshot);
    // Nor of a table without this: kInvalid when it is another file's. The catalog is everyone's.
    static Result<ReaderState*> live(const Snapshot& snapshot, const TableInfo& table);

    static constexpr TableId kCatalogId{1};

    std::shared_ptr<StoreState> store;
    std::shared_ptr<Connection> connection;
    std::uint32_t slot_number = 0;
    std::optional<SlotOwner> slot;
    std::optional<TouchMarker> touches;  // with the slot
    std::uint64_t snapshots = 0;         // taken, with this one; unlike episodes, on any connection
    std::uint64_t held = 0;              // the number of the one that is live; 0: none
    bool rows_out = false;  // rows in their pages were given out under it: theirs until it ends
    std::uint32_t standing_cursors = 0;  // that have a way to a leaf under it
    bool value_failed = false;
    Status value_failure;  // with value_failed
    Deadline deadline;     // of the snapshot
    unsigned generation = fork_generation();
    const FileUuid file;  // the store's
    HeartbeatLook heartbeat;
    std::uint64_t pages_asked_for = 0;     // of the daemon, ever
    bool lost_a_snapshot = false;          // perhaps because the daemon let go of this client
    std::vector<PageId> roots;             // by TableInfo::index
    std::uint64_t roots_since = 0;  // csn of a snapshot: all of them were seen in it or later
    // Cursors that were used and will be again, so that scans allocate nothing after the first.
    std::vector<RawCursor::StatePointer> spare_cursors;
    // Large values that the pool has in pieces, put together for views of this snapshot.
    std::deque<std::vector<std::byte>> assembled;

  private:
    void forget_dropped_roots();
    Status look_around(Deadline until);
    void look_at_heartbeat(std::uint64_t now_ns);
};

// While it lives the reader waits and uses no frame, unless somebody may still use one.
class Rest {
  public:
    explicit Rest(ReaderState& state) : state_(state), rests_(state.uses_nothing()) {
        if (rests_) state_.slot->rest();
    }
    ~Rest() {
        if (rests_) state_.slot->resume();
    }
    Rest(const Rest&) = delete;
    Rest& operator=(const Rest&) = delete;

  private:
    ReaderState& state_;
    const bool rests_;
};

// A source of page versions for engine/page/search.h: what the snapshot sees, and why not.
class PageSource {
  public:
    PageSource(ReaderState& state, PageLookup& last) : state_(&state), last_(&last) {}
    const std::byte* operator()(PageId page) const {
        const PageVersion version = state_->version(page);
        *last_ = version.lookup;
        if (version.page != nullptr) state_->touches->note(page, version.entry);
        return version.page;
    }
    [[gnu::always_inline]] void prefetch(PageId page) const {
        prefetch_newest(state_->connection->pool(), page);
    }
    // The same of what prefetch() itself waits for.
    [[gnu::always_inline]] void prefetch_entry(PageId page) const {
        const PoolView& pool = state_->connection->pool();
        if (page.value < pool.page_count()) prefetch_line(pool.page_map() + page.value);
    }
    // Bytes to prefetch by, never to believe; nullptr when the page is not in the pool.
    const std::byte* hint(PageId page) const {
        return newest_hint(state_->connection->pool(), page);
    }

  private:
    ReaderState* state_;
    PageLookup* last_;  // outcome of the newest call
};

// What to do about a landing that is no leaf, under a snapshot: brings pages in, or finds the
// table's root again. Ok: descend once more. One per descent.
class Obstacle {
  public:
    // `near`: a key on the way, for messages; nullptr: none is known.
    Obstacle(ReaderState& state, const TableInfo& table, const std::byte* near)
        : state_(state), table_(table), near_(near) {}
    // `ahead`: pages that may be asked for in the same go.
    Status overcome(const Landing& landing, PageLookup last, std::span<const PageId> ahead = {});

  private:
    Status mismatch(PageId page);
    ReaderState& state_;
    const TableInfo& table_;
    const std::byte* near_;
    bool root_is_fresh_ = false;
};

Failure expired_failure();
Failure wrong_key(const TableInfo& table, std::size_t size_bytes);

// Looks the table's root up in the catalog, as the snapshot sees it.
Status find_root(ReaderState& state, const TableInfo& table);

// Row `at` of a leaf of the table, in place.
inline RawRow row_in(ReaderState& state, const TableInfo& table, const LeafView& leaf,
                     std::uint32_t at) {
    return {{leaf.key(at), table.shape->leaf.key_bytes}, leaf.value(at), &state, &table};
}

// A row by its key: in place, nothing validated, a row that is not there included. `key` has the
// table's key_bytes.
Result<bool> find_row(ReaderState& state, const TableInfo& table, const std::byte* key,
                      RawRow& row);

// The range of the encoded keys of a page of the table's tree, as text for a message. `near`: a key
// that is in it or not far, or nullptr.
std::string key_range_text(ReaderState& state, const TableInfo& table, PageId page,
                           const std::byte* near);

// Asks the engine for pages and waits until they are in the pool. `near`: a key on the way to them,
// or nullptr. kNoSuchPage: the tree that led
// here is not (any more) what the snapshot sees. kSnapshotExpired: the daemon is gone.
Status request_pages(ReaderState& state, const TableInfo& table, std::span<const PageId> pages,
                     const std::byte* near);

// Asks for pages that will be wanted soon, and does not wait: without room in the ring or a call
// slot nothing is asked for. At most kPagesPerRequest pages.
void request_pages_ahead(ReaderState& state, std::span<const PageId> pages);

}  // namespace bidstore
