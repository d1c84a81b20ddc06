// Scans: one leaf after another under a snapshot, rows in place.

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "clientlib/large_value.h"
#include "clientlib/snapshot.h"
#include "shm/hot_path.h"

namespace bidstore {
namespace {

// Leaves asked for together with one that is missing: twice as many each time, up to so many (and
// pages_ahead_max()). The next ones are asked for when half of them are behind the scan.
constexpr std::uint32_t kReadAheadMin = 4;
constexpr std::uint32_t kReadAheadMax = kPagesPerRequest - 1;
// A streaming scan lets go of what it came through after so many leaves.
constexpr std::uint32_t kLeavesKept = 16;
// Rows of a leaf whose values are prefetched, and of all leaves in front together.
constexpr std::uint32_t kValuesAhead = 16;
constexpr std::uint64_t kValuesAheadMax = 64;
constexpr std::uint64_t kNoLimit = ScanOptions{}.limit;

// A bound as long as a key: zeros behind a prefix make it the least key that begins with it.
struct Bound {
    std::array<std::byte, kKeyBytesMax> key{};
    bool given = false;

    const std::byte* or_none() const { return given ? key.data() : nullptr; }
    void set(std::span<const std::byte> prefix) {
        key.fill(std::byte{0});
        given = !prefix.empty();
        if (given) std::memcpy(key.data(), prefix.data(), prefix.size());
    }
    // To the least key above all that begin with `prefix`; no bound when there is none.
    void set_behind(std::span<const std::byte> prefix) {
        std::size_t length = prefix.size();
        while (length > 0 && prefix[length - 1] == std::byte{0xff}) --length;
        set(prefix.first(length));
        if (given) key[length - 1] = std::byte(std::to_integer<unsigned>(key[length - 1]) + 1);
    }
    // To the next key of so many bytes; false: it is the last one.
    bool step_up(std::size_t key_bytes) {
        std::size_t at = key_bytes;
        while (at > 0 && key[at - 1] == std::byte{0xff}) key[--at] = std::byte{0};
        if (at == 0) return false;
        key[at - 1] = std::byte(std::to_integer<unsigned>(key[at - 1]) + 1);
        return true;
    }
};

}  // namespace

// Kept by the reader between scans, so that a scan allocates nothing.
struct RawCursor::State {
    ReaderState* reader = nullptr;
    std::uint64_t snapshot = 0;  // number of the reader's: the cursor ends with it
    std::shared_ptr<const TableInfo> table;
    PageLookup last = PageLookup::kFound;
    std::optional<PathCursor<PageSource>> path;
    Bound lower;
    Bound upper;
    bool reverse = false;
    bool on_leaf = false;
    bool ended = false;
    std::uint64_t left = 0;  // rows of the limit
    // Rows of the leaf that lie within the bounds and were not visited: from begin, inclusive, to
    // end, exclusive. `more`: the bounds reach beyond this leaf.
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    bool more = false;
    std::optional<LeafView> leaf;  // that they are in
    // What is on its way to the processor's cache, in leaves behind this one. Each is fetched
    // twice: its beginning, and, once that is there and says how many rows the leaf has, their
    // values.
    std::uint32_t leaves_ahead = 0;
    std::uint32_t values_ahead = 0;
    std::uint64_t rows_ahead = 0;  // in the leaves whose values are
    bool streaming = false;
    bool standing = false;           // one of the reader's standing cursors
    std::uint32_t since_let_go = 0;  // leaves it came to
    std::uint32_t window = 0;        // leaves to read ahead; 0 until one was missing
    std::uint32_t asked_ahead = 0;   // of the leaves in front, how many were looked after
    std::uint64_t table_floor = 0;   // the same in the whole snapshot
    std::uint64_t floor = 0;  // rows of this leaf whose time is below it are dead; 0: none is
    RawCopy kept;             // the row, when its leaf was let go of
    Status status;

    // An empty scan of everything; the caller sets bounds.
    void start(ReaderState& its_reader, std::shared_ptr<const TableInfo> its_table,
               const ScanOptions& options);
    // The snapshot that the cursor was made under is still the reader's.
    bool usable() const {
        return reader->generation == fork_generation() && reader->held == snapshot;
    }
    bool fail(Failure failure);
    bool finish();
    bool to_leaf_with_rows();
    Landing go();
    Landing seek();
    void find_bounds(bool first);
    void enter_leaf();
    std::uint32_t leaves_sought() const;
    void prefetch_values(const LeafView& of, std::uint32_t from, std::uint32_t to,
                         std::uint64_t most) const;
    void prefetch_next();
    void stand();
    void step_off();
    bool let_go();
    void let_go_behind(RawRow& row);
    std::size_t widen(std::span<PageId> pages, std::uint32_t skip);
    std::size_t only_absent(std::span<PageId> pages, PageId but) const;
    void read_ahead();
    bool dead(const RawRow& row) const {
        return !table->schema.live(row.key.data(), row.value, floor);
    }
    void take_row(RawRow& row);
    void take_run(Run& run);
    std::uint64_t count_leaf();
};

bool RawCursor::State::fail(Failure failure) {
    status = std::move(failure);
    return finish();
}

bool RawCursor::State::finish() {
    ended = true;
    step_off();
    return false;
}

void RawCursor::State::stand() {
    if (!std::exchange(standing, true)) ++reader->standing_cursors;
}

void RawCursor::State::step_off() {
    // Under another snapshot the reader counts anew.
    if (std::exchange(standing, false) && usable()) --reader->standing_cursors;
}

// Leaves the leaf, and goes on from the key behind it: then no frame is in use, and those of
// evicted pages are not kept for this scan. False: the way goes on from the leaf.
bool RawCursor::State::let_go() {
    if (!streaming || reader->rows_out || reader->standing_cursors != 1) return false;
    std::array<std::byte, kKeyBytesMax> key;
    if (!path->boundary(!reverse, key.data())) return false;
    (reverse ? upper : lower).set(std::span(key).first(table->shape->leaf.key_bytes));
    on_leaf = false;
    since_let_go = 0;
    leaves_ahead = values_ahead = 0;
    rows_ahead = 0;
    step_off();
    reader->renew();
    return true;
}

// The same in the middle of a leaf, for a wait of the row that was taken last: it is the cursor's
// own until the next one, and the scan goes on behind it.
void RawCursor::State::let_go_behind(RawRow& row) {
    if (!streaming || !standing || reader->rows_out || reader->standing_cursors != 1) return;
    kept = stored_row(row);
    row.key = kept.key;
    row.value = kept.value;
    Bound& from = reverse ? upper : lower;
    from.set(row.key);
    begin = end = 0;
    if (reverse || from.step_up(row.key.size())) {
        on_leaf = false;
        since_let_go = 0;
        leaves_ahead = values_ahead = 0;
        rows_ahead = 0;
        if (window > 0) ++asked_ahead;  // it comes to this leaf once more
    } else {
        more = false;
    }
    step_off();
    reader->renew();
}

Landing RawCursor::State::seek() {
    const PathCursor<PageSource>::Ahead ahead{!reverse, leaves_sought(),
                                              reverse ? lower.or_none() : upper.or_none()};
    if (!reverse && lower.given) return path->seek(lower.key.data(), ahead);
    if (!reverse) return path->seek_first(ahead);
    if (!upper.given) return path->seek_last(ahead);
    // The greatest key below the bound.
    std::array<std::byte, kKeyBytesMax> below = upper.key;
    std::size_t at = table->shape->leaf.key_bytes;
    while (at > 0 && below[at - 1] == std::byte{0}) below[--at] = std::byte{0xff};
    if (at == 0) return path->seek_first(ahead);
    below[at - 1] = std::byte(std::to_integer<unsigned>(below[at - 1]) - 1);
    return path->seek(below.data(), ahead);
}

Landing RawCursor::State::go() {
    if (on_leaf) return reverse ? path->previous_leaf() : path->next_leaf();
    const PageId root = reader->root(*table);
    if (!root) return {Landed::kCorrupt, PageId{}, nullptr};
    path.emplace(*table->shape, root, PageSource(*reader, last));
    const Landing landing = seek();
    leaves_ahead = path->sought_ahead();
    values_ahead = 0;
    rows_ahead = 0;
    return landing;
}

// The leaves that the limit needs besides the one that the scan begins in, before that is known: as
// if half of its rows were within the bounds, and the others were three quarters full.
std::uint32_t RawCursor::State::leaves_sought() const {
    using Path = PathCursor<PageSource>;
    const std::uint64_t full = table->shape->leaf.capacity;
    if (left == kNoLimit) return Path::kLeavesAhead;
    if (left <= full / 2) return 0;
    const std::uint64_t rows = std::min(left - full / 2, full * Path::kLeavesAheadMax);
    const std::uint64_t leaves = rows * 4 / (full * 3) + 1;
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(leaves, Path::kLeavesAheadMax));
}

// The rows come one after another, each in cache lines of its own: all of them are on their way
// before the first is looked at. Of rows [from, to) the `most` that the scan comes to first.
[[gnu::always_inline]] inline void RawCursor::State::prefetch_values(const LeafView& of,
                                                                     std::uint32_t from,
                                                                     std::uint32_t to,
                                                                     std::uint64_t most) const {
    if (table->shape->leaf.variable || from == to) return;
    most = std::min<std::uint64_t>(most, kValuesAhead);
    const auto rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(most, to - from));
    const std::size_t stride = table->shape->leaf.value_bytes;
    const std::byte* at = of.value(reverse ? to - rows : from).data();
    for (std::uint32_t i = 0; i < rows; ++i) prefetch_line(at + i * stride);
}

// The values in the leaves whose beginnings are there by now, and the beginnings of those that the
// limit needs besides, should they have as many rows as this one.
void RawCursor::State::prefetch_next() {
    using Path = PathCursor<PageSource>;
    std::uint64_t rows = end - begin;
    if (!more || left <= rows + rows_ahead) return;
    std::uint32_t wanted = Path::kLeavesAhead;
    if (left != kNoLimit) {
        const std::uint64_t leaves = (left - rows - 1) / std::max(leaf->count(), 1u) + 1;
        wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(leaves, Path::kLeavesAheadMax));
    }
    wanted = std::max(wanted, leaves_ahead);
    if (values_ahead >= wanted) return;
    std::array<PageId, Path::kLeavesAheadMax> pages;
    const std::uint32_t count = path->upcoming(!reverse, std::span(pages).first(wanted));
    const PageSource source(*reader, last);
    for (std::uint32_t i = leaves_ahead; i < count; ++i) source.prefetch_entry(pages[i]);
    for (std::uint32_t i = 0; i < std::min(leaves_ahead, count); ++i) {
        if (rows >= std::min(left, kValuesAheadMax)) break;
        const std::byte* bytes = source.hint(pages[i]);
        if (bytes == nullptr) break;
        const LeafView following(bytes, table->shape->leaf);
        if (i >= values_ahead) {
            prefetch_values(following, 0, following.count(), left - rows);
            values_ahead = i + 1;
            rows_ahead += following.count();
        }
        rows += following.count();
    }
    for (std::uint32_t i = leaves_ahead; i < count; ++i) source.prefetch(pages[i]);
    leaves_ahead = std::max(leaves_ahead, count);
}

// The bound that the scan comes from was looked for in its first leaf: all rows of later ones lie
// behind it. The bound that it goes to lies beyond most leaves, as one comparison says.
void RawCursor::State::find_bounds(bool first) {
    const std::uint32_t count = leaf->count();
    const std::uint32_t key_bytes = table->shape->leaf.key_bytes;
    const auto below = [&](std::uint32_t row, const Bound& bound) {
        return compare_keys(leaf->key(row), bound.key.data(), key_bytes) < 0;
    };
    begin = 0;
    end = count;
    if (count != 0 && lower.given && (first || reverse) && below(0, lower)) {
        begin = leaf->lower_bound(lower.key.data());
    }
    if (count != 0 && upper.given && (first || !reverse) && !below(count - 1, upper)) {
        end = leaf->lower_bound(upper.key.data());
    }
    more = reverse ? begin == 0 : end == count;
    if (begin > end) begin = end;
}

void RawCursor::State::enter_leaf() {
    leaf.emplace(path->leaf());
    const bool first = !std::exchange(on_leaf, true);
    if (first) table_floor = path->floor();  // while the way down is surely what it was
    find_bounds(first);
    // A leaf whose oldest row is alive needs no look at its rows; one that is all dead, neither.
    floor = table_floor;
    if (leaf->time_min() >= floor) floor = 0;
    if (leaf->time_max() < floor) begin = end;
    stand();
    ++since_let_go;
    if (begin < end && !streaming) reader->rows_out = true;
    if (values_ahead == 0) prefetch_values(*leaf, begin, end, left);
    if (!first && values_ahead > 0) {
        --values_ahead;
        rows_ahead -= std::min<std::uint64_t>(rows_ahead, leaf->count());
        if (values_ahead == 0) rows_ahead = 0;  // a leaf may have changed since
    }
    if (!first && leaves_ahead > 0) --leaves_ahead;
    prefetch_next();
    if (more && window > 0) read_ahead();
}

std::size_t RawCursor::State::only_absent(std::span<PageId> pages, PageId but) const {
    const auto no_need = [&](PageId page) {
        return page == but || reader->version(page).lookup != PageLookup::kAbsent;
    };
    return static_cast<std::size_t>(std::remove_if(pages.begin(), pages.end(), no_need) -
                                    pages.begin());
}

// The next leaves, without the first `skip`, of a window twice as wide as the last one; not more
// than bounds and limit let the scan come to.
std::size_t RawCursor::State::widen(std::span<PageId> pages, std::uint32_t skip) {
    const std::uint32_t most = reader->pages_ahead_max();
    window = std::clamp(2 * window, kReadAheadMin, std::clamp(most, kReadAheadMin, kReadAheadMax));
    const std::uint64_t rows = std::max<std::uint32_t>(path->leaf().count(), 1);
    const std::uint64_t needed = left / rows + 1;
    const auto wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(needed, window));
    const std::byte* bound = reverse ? lower.or_none() : upper.or_none();
    const std::uint32_t count = path->upcoming(!reverse, pages.first(wanted), bound);
    asked_ahead = std::max(count, skip);
    if (count <= skip) return 0;
    std::copy(pages.begin() + skip, pages.begin() + count, pages.begin());
    return count - skip;
}

// Keeps the device busy with the leaves in front while those behind them are looked at.
void RawCursor::State::read_ahead() {
    if (asked_ahead > 0) --asked_ahead;
    if (asked_ahead > window / 2) return;
    std::array<PageId, kReadAheadMax> pages;
    const std::size_t next = widen(pages, asked_ahead);
    const std::size_t absent = only_absent(std::span(pages).first(next), PageId{});
    const ColdPath cold;
    if (absent > 0) request_pages_ahead(*reader, std::span(pages).first(absent));
}

// To a leaf that has rows within the bounds; false at the end and after a failure.
bool RawCursor::State::to_leaf_with_rows() {
    Obstacle obstacle(*reader, *table, (reverse ? upper : lower).key.data());
    while (begin == end) {
        if (on_leaf && !more) return finish();
        if (on_leaf && since_let_go >= kLeavesKept && reader->slot->behind()) let_go();
        const Landing landing = go();
        if (landing.state == Landed::kEnd) return finish();
        if (landing.state == Landed::kLeaf) {
            enter_leaf();
            continue;
        }
        const PageLookup why = last;
        std::array<PageId, kReadAheadMax> ahead;
        std::size_t count = 0;
        if (on_leaf && landing.state == Landed::kMissing) {
            count = widen(ahead, 0);
            count = only_absent(std::span(ahead).first(count), landing.page);
            // Whoever waits for a frame keeps none, also of those evicted during the wait.
            let_go();
        }
        if (Status cleared = obstacle.overcome(landing, why, std::span(ahead).first(count));
            !cleared.ok()) {
            return fail(failure_of(cleared));
        }
    }
    return true;
}

// The next row of this leaf. Under a dead lease the leaf may have shrunk meanwhile; the views are
// inside the page anyway.
[[gnu::always_inline]] inline void RawCursor::State::take_row(RawRow& row) {
    const std::uint32_t at = reverse ? --end : begin++;
    row = row_in(*reader, *table, *leaf, at);
}

// The rows of this leaf behind the one that was taken, if nothing has to be asked of each.
[[gnu::always_inline]] inline void RawCursor::State::take_run(Run& run) {
    if (floor != 0 || table->shape->leaf.variable) return;
    const auto rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(end - begin, left));
    run.rows = rows;
    left -= rows;
    (reverse ? end : begin) += reverse ? 0 - rows : rows;
    const auto key_bytes = static_cast<std::ptrdiff_t>(table->shape->leaf.key_bytes);
    const auto value_bytes = static_cast<std::ptrdiff_t>(table->shape->leaf.value_bytes);
    run.key_step = reverse ? -key_bytes : key_bytes;
    run.value_step = reverse ? -value_bytes : value_bytes;
    run.snapshot = snapshot;
    run.held = &reader->held;
}

// Leaves the leaf. The rows themselves are looked at only where some may be dead.
std::uint64_t RawCursor::State::count_leaf() {
    std::uint64_t rows = floor == 0 ? end - begin : 0;
    if (floor == 0) begin = end;
    RawRow row;
    while (begin < end) {
        take_row(row);
        rows += !dead(row);
    }
    return rows;
}

void RawCursor::DeleteState::operator()(State* state) const { delete state; }

RawCursor::RawCursor(StatePointer state) : state_(std::move(state)) {}

RawCursor::RawCursor(RawCursor&& other) noexcept = default;

RawCursor& RawCursor::operator=(RawCursor&& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(row_, other.row_);
    std::swap(run_, other.run_);
    return *this;
}

RawCursor::~RawCursor() {
    if (!state_ || state_->reader == nullptr) return;
    const HotPath hot("scan, its end");
    state_->step_off();
    kept_push(state_->reader->spare_cursors, std::move(state_));
}

bool RawCursor::next_run() {
    const HotPath hot("scan");
    State& state = *state_;
    run_.rows = 0;
    if (state.ended) return false;
    if (!state.usable()) {
        const ColdPath cold;
        return state.fail({Error::kInvalid, "the snapshot of this scan has ended"});
    }
    if (state.left == 0) return state.finish();
    do {
        if (state.begin == state.end && !state.to_leaf_with_rows()) return false;
        state.take_row(row_);
    } while (state.dead(row_));
    --state.left;
    state.take_run(run_);
    return true;
}

Status RawCursor::status() const {
    if (!state_->status.ok()) return state_->status;
    if (!state_->usable()) return {Error::kInvalid, "the snapshot of this scan has ended"};
    if (state_->reader->value_failed) return state_->reader->value_failure;
    if (!state_->reader->valid()) return expired_failure();
    return {};
}

Result<RawCopy> RawCursor::copy() {
    if (Status good = status(); !good.ok()) return good.failure();
    auto copy = whole_row(row_, [this] { state_->let_go_behind(row_); });
    if (!copy.ok()) return copy;
    if (Status good = status(); !good.ok()) return good.failure();
    return copy;
}

void RawCursor::State::start(ReaderState& its_reader, std::shared_ptr<const TableInfo> its_table,
                             const ScanOptions& options) {
    reader = &its_reader;
    snapshot = its_reader.snapshots;
    table = std::move(its_table);
    lower.given = upper.given = false;
    reverse = options.reverse;
    left = options.limit;
    on_leaf = false;
    begin = end = 0;
    leaves_ahead = values_ahead = 0;
    rows_ahead = 0;
    streaming = options.streaming;
    standing = false;
    since_let_go = window = asked_ahead = 0;
    reader->renew();
}

// A cursor whose bounds, of these sizes, are still to be set, or one that has failed.
RawCursor RawTable::start_scan(const Snapshot& snapshot, std::size_t bound_bytes,
                               const ScanOptions& options) const {
    const HotPath hot("scan, its begin");
    Result<ReaderState*> reader = ReaderState::live(snapshot, *info_);
    RawCursor::StatePointer state;
    if (reader.ok() && !(*reader)->spare_cursors.empty()) {
        state = std::move((*reader)->spare_cursors.back());
        (*reader)->spare_cursors.pop_back();
    } else {
        const ColdPath cold;
        state.reset(new RawCursor::State);
    }
    state->ended = false;
    state->status = {};
    if (!reader.ok()) {
        state->fail(failure_of(reader));
        return RawCursor(std::move(state));
    }
    state->start(**reader, info_, options);
    if (bound_bytes > schema().key_bytes()) {
        const ColdPath cold;
        state->fail({Error::kInvalid, "table " + name() + ": a bound has at most " +
                                          std::to_string(schema().key_bytes()) + " bytes"});
    }
    return RawCursor(std::move(state));
}

RawCursor RawTable::scan(const Snapshot& snapshot, std::span<const std::byte> lower,
                         std::span<const std::byte> upper, ScanOptions options) const {
    RawCursor cursor = start_scan(snapshot, std::max(lower.size(), upper.size()), options);
    if (cursor.state_->ended) return cursor;
    cursor.state_->lower.set(lower);
    cursor.state_->upper.set(upper);
    return cursor;
}

RawCursor RawTable::newest(const Snapshot& snapshot, std::uint64_t n,
                           std::span<const std::byte> prefix) const {
    RawCursor cursor = start_scan(snapshot, prefix.size(), {.limit = n, .reverse = true});
    if (cursor.state_->ended) return cursor;
    cursor.state_->lower.set(prefix);
    cursor.state_->upper.set_behind(prefix);
    return cursor;
}

Result<std::uint64_t> RawTable::count(const Snapshot& snapshot, std::span<const std::byte> lower,
                                      std::span<const std::byte> upper) const {
    RawCursor cursor = scan(snapshot, lower, upper, {.streaming = true});
    RawCursor::State& state = *cursor.state_;
    std::uint64_t rows = 0;
    while (!state.ended && state.to_leaf_with_rows()) rows += state.count_leaf();
    if (Status whole = cursor.status(); !whole.ok()) return whole.failure();
    return rows;
}

std::vector<std::byte> prefix_end(std::span<const std::byte> prefix) {
    std::vector<std::byte> end(prefix.begin(), prefix.end());
    while (!end.empty() && end.back() == std::byte{0xff}) end.pop_back();
    if (!end.empty()) end.back() = std::byte(std::to_integer<unsigned>(end.back()) + 1);
    return end;
}

}  // namespace bidstore
