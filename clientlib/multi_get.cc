// Many rows at once: looks into the key directory that overlap, descents that do, and one request
// for all pages that are missing.

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "clientlib/directory_probe.h"
#include "clientlib/large_value.h"
#include "clientlib/snapshot.h"
#include "engine/page/search_many.h"

namespace bidstore {
namespace {

// Pass by pass: each takes what is resident and notes the pages that are missing; these are asked
// for together, and the next pass takes the rest. When all is resident nothing is allocated.
class ManyRows {
  public:
    ManyRows(ReaderState& state, const TableInfo& table,
             std::span<const std::span<const std::byte>> keys,
             std::span<std::optional<RawRow>> rows)
        : state_(state),
          table_(table),
          keys_(keys),
          rows_(rows),
          source_(state, last_),
          obstacle_(state, table, nullptr) {}

    Status run() {
        if (Status known = know_root(); !known.ok()) return known;
        pass(keys_.size(), [](std::size_t i) { return i; });
        while (!open_.empty()) {
            if (Status cleared = clear_the_way(); !cleared.ok()) return cleared;
            const std::vector<std::size_t> open = std::exchange(open_, {});
            pass(open.size(), [&](std::size_t i) { return open[i]; });
        }
        return state_.valid() ? Status{} : Status{expired_failure()};
    }

  private:
    Status know_root() {
        if (state_.root(table_)) return {};
        return obstacle_.overcome({Landed::kCorrupt, PageId{}, nullptr}, PageLookup::kFound);
    }

    // The keys numbered index_of(0) to index_of(count - 1).
    template <class IndexOf>
    void pass(std::size_t count, IndexOf index_of) {
        const DirectoryUse use = DirectoryUse::of(state_, table_);
        std::array<std::size_t, kDescentsTogether> indexes;
        for (std::size_t from = 0; from < count; from += kDescentsTogether) {
            const std::size_t some = std::min(count - from, kDescentsTogether);
            for (std::size_t i = 0; i < some; ++i) indexes[i] = index_of(from + i);
            std::span<std::size_t> left = std::span(indexes).first(some);
            if (use.possible) left = by_directory(left, use.floor);
            if (!left.empty()) by_tree(left);
        }
    }

    // Returns those that were not found, in front of `indexes`.
    std::span<std::size_t> by_directory(std::span<std::size_t> indexes, std::uint64_t floor) {
        std::array<DirectoryProbe, kDescentsTogether> probes;
        const std::size_t count = indexes.size();
        for (std::size_t i = 0; i < count; ++i) probes[i].aim(state_, table_, key(indexes[i]));
        for (std::size_t i = 0; i < count; ++i) probes[i].look(state_);
        for (std::size_t i = 0; i < count; ++i) probes[i].approach(state_, table_);
        std::size_t left = 0;
        RawRow row;
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t index = indexes[i];
            if (probes[i].arrive(state_, table_, key(index), floor, row)) [[likely]] {
                rows_[index] = row;
                state_.rows_out = true;  // later passes wait, and must not let go of it
            } else {
                indexes[left++] = index;
            }
        }
        return indexes.first(left);
    }

    void by_tree(std::span<const std::size_t> indexes) {
        std::array<Descent, kDescentsTogether> descents;
        const std::span some = std::span(descents).first(indexes.size());
        for (std::size_t i = 0; i < some.size(); ++i) some[i].key = key(indexes[i]);
        descend_many(*table_.shape, state_.root(table_), some, source_);
        for (std::size_t i = 0; i < some.size(); ++i) settle(some[i].landing, indexes[i]);
    }

    void settle(const Landing& landing, std::size_t i) {
        if (landing.state == Landed::kLeaf) return take_row(landing, i);
        open_.push_back(i);
        last_ = PageLookup::kFound;
        if (landing.state == Landed::kMissing) {
            // Why, which another key's descent has overwritten; if it came meanwhile, all the
            // better.
            if (source_(landing.page) != nullptr) return;
            if (last_ == PageLookup::kAbsent) return missing_.push_back(landing.page);
        }
        if (!wrong_) wrong_ = {landing, last_};
    }

    void take_row(const Landing& landing, std::size_t i) {
        const LeafView leaf(landing.bytes, table_.shape->leaf);
        rows_[i].reset();
        const int found = leaf.find(key(i));
        if (found < 0) return;
        const auto at = static_cast<std::uint32_t>(found);
        if (!table_.schema.live(leaf.key(at), leaf.value(at), landing.floor)) return;
        rows_[i] = row_in(state_, table_, leaf, at);
        state_.rows_out = true;  // later passes wait, and must not let go of it
        const std::span<const std::byte> value = rows_[i]->value;
        if (value.empty()) return;
        prefetch_bytes(value.data(), std::min(value.size(), kValueBytesAhead));
    }

    // What kept keys open: pages, and the first thing that was wrong (a root that has gone is wrong
    // for many keys, and found again once).
    Status clear_the_way() {
        if (const auto wrong = std::exchange(wrong_, std::nullopt)) {
            Status cleared = obstacle_.overcome(wrong->first, wrong->second);
            if (!cleared.ok()) return cleared;
        }
        return bring_missing();
    }

    Status bring_missing() {
        if (!state_.valid()) return expired_failure();
        if (missing_.empty()) return {};
        std::vector<PageId> pages = std::exchange(missing_, {});
        std::sort(pages.begin(), pages.end());
        pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
        Status came = request_pages(state_, table_, pages, key(open_.front()));
        if (came.error() != Error::kNoSuchPage) return came;
        const Landing wrong{Landed::kCorrupt, pages.front(), nullptr};
        return obstacle_.overcome(wrong, PageLookup::kNoVersion);
    }

    const std::byte* key(std::size_t i) const { return keys_[i].data(); }

    ReaderState& state_;
    const TableInfo& table_;
    std::span<const std::span<const std::byte>> keys_;
    std::span<std::optional<RawRow>> rows_;
    PageLookup last_ = PageLookup::kFound;
    PageSource source_;
    Obstacle obstacle_;
    std::vector<std::size_t> open_;  // keys without an outcome
    std::vector<PageId> missing_;
    std::optional<std::pair<Landing, PageLookup>> wrong_;
};

}  // namespace

Status RawTable::peek_many(const Snapshot& snapshot,
                           std::span<const std::span<const std::byte>> keys,
                           std::span<std::optional<RawRow>> rows) const {
    Result<ReaderState*> state = ReaderState::live(snapshot);
    if (!state.ok()) return state.failure();
    if (rows.size() < keys.size()) {
        return {Error::kInvalid, "table " + name() + ": room for " + std::to_string(rows.size()) +
                                     " rows, asked for " + std::to_string(keys.size())};
    }
    for (const auto& key : keys) {
        if (key.size() != schema().key_bytes()) return wrong_key(*info_, key.size());
    }
    return ManyRows(**state, *info_, keys, rows).run();
}

Result<std::vector<std::optional<RawCopy>>> RawTable::multi_get(
    const Snapshot& snapshot, std::span<const std::span<const std::byte>> keys) const {
    Result<ReaderState*> state = ReaderState::live(snapshot);
    if (!state.ok()) return state.failure();
    const bool rows_out = (*state)->rows_out;
    std::vector<std::optional<RawRow>> rows(keys.size());
    if (Status found = peek_many(snapshot, keys, rows); !found.ok()) return found.failure();
    std::vector<std::optional<RawCopy>> copies(keys.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (!rows[i]) continue;
        auto copy = whole_row(*rows[i]);
        if (!copy.ok()) return copy.failure();
        copies[i] = std::move(*copy);
    }
    (*state)->rows_out = rows_out;  // copied: the frames are in use no more
    if (!snapshot.valid()) return expired_failure();
    return copies;
}

}  // namespace bidstore
