// Scans: one leaf after another under a snapshot, rows in place.

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "clientlib/snapshot.h"

namespace bidstore {
namespace {

// Leaves asked for together with one that is missing.
constexpr std::size_t kReadAhead = 16;
// Rows of a leaf whose values are prefetched when the scan comes to it.
constexpr std::uint32_t kValuesAhead = 16;

// A bound as long as a key: zeros behind a prefix make it the least key that begins with it.
struct Bound {
    std::array<std::byte, kKeyBytesMax> key{};
    bool given = false;

    void set(std::span<const std::byte> prefix) {
        key.fill(std::byte{0});
        given = !prefix.empty();
        if (given) std::memcpy(key.data(), prefix.data(), prefix.size());
    }
};

}  // namespace

// Kept by the reader between scans, so that a scan allocates nothing.
struct RawCursor::State {
    ReaderState* reader = nullptr;
    std::uint64_t episode = 0;  // of the snapshot: the cursor ends with it
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
    Status status;

    bool usable();
    bool fail(Failure failure);
    bool finish();
    bool to_leaf_with_rows();
    Landing go();
    Landing seek();
    void enter_leaf();
    void prefetch_values(const LeafView& leaf) const;
    std::size_t missing_ahead(PageId missing, std::span<PageId> pages);
};

// The snapshot that the cursor was made under is still the reader's.
bool RawCursor::State::usable() {
    return reader->generation == fork_generation() && reader->holding &&
           reader->slot->episode() == episode;
}

bool RawCursor::State::fail(Failure failure) {
    status = std::move(failure);
    return finish();
}

bool RawCursor::State::finish() {
    ended = true;
    return false;
}

Landing RawCursor::State::seek() {
    if (!reverse && lower.given) return path->seek(lower.key.data());
    if (!reverse) return path->seek_first();
    if (upper.given) return path->seek(upper.key.data());
    return path->seek_last();
}

Landing RawCursor::State::go() {
    if (on_leaf) return reverse ? path->previous_leaf() : path->next_leaf();
    const PageId root = reader->root(*table);
    if (!root) return {Landed::kCorrupt, PageId{}, nullptr};
    path.emplace(*table->shape, root, PageSource(*reader, last));
    return seek();
}

// The rows come one after another, each in cache lines of its own: all of them are on their way
// before the first is looked at.
void RawCursor::State::prefetch_values(const LeafView& leaf) const {
    if (table->shape->leaf.variable) return;
    const std::uint64_t rows = std::min<std::uint64_t>(left, end - begin);
    for (std::uint32_t i = 0; i < std::min<std::uint64_t>(rows, kValuesAhead); ++i) {
        __builtin_prefetch(leaf.value(reverse ? end - 1 - i : begin + i).data());
    }
}

void RawCursor::State::enter_leaf() {
    on_leaf = true;
    const LeafView leaf = path->leaf();
    begin = lower.given ? leaf.lower_bound(lower.key.data()) : 0;
    end = upper.given ? leaf.lower_bound(upper.key.data()) : leaf.count();
    more = reverse ? begin == 0 : end == leaf.count();
    if (begin > end) begin = end;
    prefetch_values(leaf);
    if (more) path->prefetch(!reverse);
}

// The leaves behind a missing page that are missing too.
std::size_t RawCursor::State::missing_ahead(PageId missing, std::span<PageId> pages) {
    if (!on_leaf) return 0;
    const std::uint32_t count = path->upcoming(!reverse, pages);
    const auto no_need = [&](PageId page) {
        return page == missing || reader->version(page).lookup != PageLookup::kAbsent;
    };
    const auto kept = std::remove_if(pages.begin(), pages.begin() + count, no_need);
    return static_cast<std::size_t>(kept - pages.begin());
}

// To a leaf that has rows within the bounds; false at the end and after a failure.
bool RawCursor::State::to_leaf_with_rows() {
    Obstacle obstacle(*reader, *table);
    while (begin == end) {
        if (on_leaf && !more) return finish();
        const Landing landing = go();
        if (landing.state == Landed::kEnd) return finish();
        if (landing.state == Landed::kLeaf) {
            enter_leaf();
            continue;
        }
        const PageLookup why = last;
        std::array<PageId, kReadAhead> ahead;
        const std::size_t count =
            landing.state == Landed::kMissing ? missing_ahead(landing.page, ahead) : 0;
        if (Status cleared = obstacle.overcome(landing, why, std::span(ahead).first(count));
            !cleared.ok()) {
            return fail(cleared.failure());
        }
    }
    return true;
}

void RawCursor::DeleteState::operator()(State* state) const { delete state; }

RawCursor::RawCursor(StatePointer state) : state_(std::move(state)) {}

RawCursor::RawCursor(RawCursor&& other) noexcept = default;

RawCursor& RawCursor::operator=(RawCursor&& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(row_, other.row_);
    return *this;
}

RawCursor::~RawCursor() {
    if (!state_ || state_->reader == nullptr) return;
    auto& spare = state_->reader->spare_cursors;
    spare.push_back(std::move(state_));
}

bool RawCursor::next() {
    State& state = *state_;
    if (state.ended) return false;
    if (!state.usable()) {
        return state.fail({Error::kInvalid, "the snapshot of this scan has ended"});
    }
    if (state.left == 0) return state.finish();
    if (state.begin == state.end && !state.to_leaf_with_rows()) return false;
    --state.left;
    const LeafView leaf = state.path->leaf();
    const std::uint32_t row = state.reverse ? --state.end : state.begin++;
    // Under a dead lease the leaf may have shrunk meanwhile; the views are inside the page anyway.
    row_.key = {leaf.key(row), state.table->shape->leaf.key_bytes};
    row_.value = leaf.value(row);
    return true;
}

Status RawCursor::status() const {
    if (!state_->status.ok()) return state_->status;
    if (!state_->usable()) return {Error::kInvalid, "the snapshot of this scan has ended"};
    if (!state_->reader->valid()) return expired_failure();
    return {};
}

RawCursor RawTable::scan(const Snapshot& snapshot, std::span<const std::byte> lower,
                         std::span<const std::byte> upper, ScanOptions options) const {
    Result<ReaderState*> reader = ReaderState::live(snapshot);
    RawCursor::StatePointer state;
    if (reader.ok() && !(*reader)->spare_cursors.empty()) {
        state = std::move((*reader)->spare_cursors.back());
        (*reader)->spare_cursors.pop_back();
    } else {
        state.reset(new RawCursor::State);
    }
    state->ended = false;
    state->status = {};
    state->table = info_;
    if (!reader.ok()) {
        state->fail(reader.failure());
        return RawCursor(std::move(state));
    }
    state->reader = *reader;
    state->episode = (*reader)->slot->episode();
    state->reverse = options.reverse;
    state->left = options.limit;
    state->on_leaf = false;
    state->begin = state->end = 0;
    if (lower.size() > schema().key_bytes() || upper.size() > schema().key_bytes()) {
        state->fail({Error::kInvalid, "table " + name() + ": a bound has at most " +
                                          std::to_string(schema().key_bytes()) + " bytes"});
        return RawCursor(std::move(state));
    }
    state->lower.set(lower);
    state->upper.set(upper);
    return RawCursor(std::move(state));
}

RawCursor RawTable::newest(const Snapshot& snapshot, std::uint64_t n,
                           std::span<const std::byte> prefix) const {
    return scan(snapshot, prefix, prefix_end(prefix), {.limit = n, .reverse = true});
}

Result<std::uint64_t> RawTable::count(const Snapshot& snapshot, std::span<const std::byte> lower,
                                      std::span<const std::byte> upper) const {
    RawCursor cursor = scan(snapshot, lower, upper);
    RawCursor::State& state = *cursor.state_;
    std::uint64_t rows = 0;
    // Leaf by leaf: the rows themselves are not looked at.
    while (!state.ended && state.to_leaf_with_rows()) {
        rows += state.end - state.begin;
        state.begin = state.end;
    }
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
