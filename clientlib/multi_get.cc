// Many rows at once: looks into the key directory that overlap, descents that do, and requests for
// the pages that are missing.

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "clientlib/directory_probe.h"
#include "clientlib/large_value.h"
#include "clientlib/page_requests.h"
#include "clientlib/snapshot.h"
#include "engine/page/search_many.h"
#include "shm/hot_path.h"

namespace bidstore {
namespace {

// In one record, while there are more keys than may be under way.
constexpr std::size_t kPagesTogether = 8;

// Each key is looked up; where that meets a page that is missing the page is asked for, and the
// key looked up again when it came. A bounded number of pages is under way at a time, and is
// kept up as they come, in whatever order. When all is resident nothing is allocated.
class ManyRows {
  public:
    ManyRows(ReaderState& state, const TableInfo& table,
             std::span<const std::span<const std::byte>> keys,
             std::span<std::optional<RawRow>> rows, std::span<std::optional<RawCopy>> copies,
             std::size_t pages_under_way)
        : state_(state),
          table_(table),
          keys_(keys),
          rows_(rows),
          copies_(copies),
          pages_most_(pages_under_way),
          source_(state, last_),
          obstacle_(state, table, nullptr),
          requests_(state, table) {}

    Status run() {
        const HotPath hot("multi_get");
        if (Status known = know_root(); !known.ok()) return known;
        for (;;) {
            if (Status begun = begin_keys(); !begun.ok()) return begun;
            if (Status asked = ask(); !asked.ok()) return asked;
            if (requests_.under_way() > 0) {
                const bool more = begun_ < keys_.size() || !again_.empty();
                const auto want = more ? PageRequests::Want::kAny : PageRequests::Want::kLast;
                if (Status came = take(want); !came.ok()) return came;
            }
            if (again_.empty() && waiting_.empty() && begun_ == keys_.size()) break;
            if (Status cleared = clear_the_way(); !cleared.ok()) return cleared;
            const std::vector<std::size_t> again = std::exchange(again_, {});
            Status passed = pass(again.size(), [&](std::size_t i) { return again[i]; });
            if (!passed.ok()) return passed;
        }
        return state_.valid() ? Status{} : Status{expired_failure()};
    }

  private:
    struct Waiting {
        PageId page;
        std::size_t key;
    };

    Status know_root() {
        if (state_.root(table_)) return {};
        return obstacle_.overcome({Landed::kCorrupt, PageId{}, nullptr}, PageLookup::kFound);
    }

    // Descends for keys that were not, as many as there is room for if all of them miss.
    Status begin_keys() {
        while (begun_ < keys_.size()) {
            const std::size_t on_their_way = requests_.under_way() + missing_.size();
            if (on_their_way >= pages_most_) break;
            const std::size_t some =
                std::min({keys_.size() - begun_, kDescentsTogether, pages_most_ - on_their_way});
            Status passed = pass(some, [&](std::size_t i) { return begun_ + i; });
            if (!passed.ok()) return passed;
            begun_ += some;
        }
        return {};
    }

    // The keys numbered index_of(0) to index_of(count - 1).
    template <class IndexOf>
    Status pass(std::size_t count, IndexOf index_of) {
        const DirectoryUse use = DirectoryUse::of(state_, table_);
        std::array<std::size_t, kDescentsTogether> indexes;
        for (std::size_t from = 0; from < count; from += kDescentsTogether) {
            const std::size_t some = std::min(count - from, kDescentsTogether);
            for (std::size_t i = 0; i < some; ++i) indexes[i] = index_of(from + i);
            const bool rows_out = state_.rows_out;
            std::span<std::size_t> left = std::span(indexes).first(some);
            if (use.possible) left = by_directory(left, use.floor);
            if (!left.empty()) by_tree(left);
            if (copies_.empty()) continue;
            for (std::size_t i = 0; i < some; ++i) indexes[i] = index_of(from + i);
            copy_stored_rows(std::span(indexes).first(some));
            state_.rows_out = rows_out;  // the frames are in use no more, however many are to come
            if (!state_.valid()) return expired_failure();
            state_.renew();
            if (!table_.schema.has_variable()) continue;
            Status copied = copy_values(std::span(indexes).first(some));
            if (!copied.ok()) return copied;
            if (!state_.valid()) return expired_failure();
            state_.renew();
        }
        return {};
    }

    // Returns those that were not found, in front of `indexes`.
    std::span<std::size_t> by_directory(std::span<std::size_t> indexes, std::uint64_t floor) {
        std::array<DirectoryProbe, kDescentsTogether> probes;
        const std::size_t count = indexes.size();
        const KeyDirectory directory = state_.directory();
        const PoolView& pool = state_.connection->pool();
        for (std::size_t i = 0; i < count; ++i) probes[i].aim(directory, table_, key(indexes[i]));
        for (std::size_t i = 0; i < count; ++i) probes[i].look(directory, pool);
        for (std::size_t i = 0; i < count; ++i) probes[i].approach_with_others(pool, table_);
        std::size_t left = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t index = indexes[i];
            RawRow& row = rows_[index].emplace();
            if (probes[i].arrive(state_, table_, key(index), floor, row)) [[likely]] {
                DirectoryProbe::prefetch_rest(row.value);
                continue;
            }
            rows_[index].reset();
            indexes[left++] = index;
        }
        // Later passes wait, and must not let go of the rows.
        if (left < count) state_.rows_out = true;
        return indexes.first(left);
    }

    void by_tree(std::span<const std::size_t> indexes) {
        std::array<Descent, kDescentsTogether> descents;
        const std::span some = std::span(descents).first(indexes.size());
        for (std::size_t i = 0; i < some.size(); ++i) some[i].key = key(indexes[i]);
        descend_many(*table_.shape, state_.root(table_), some, source_);
        for (std::size_t i = 0; i < some.size(); ++i) settle(some[i].landing, indexes[i]);
    }

    // What is left in rows_ then lacks its large values.
    void copy_stored_rows(std::span<const std::size_t> indexes) {
        const ColdPath cold;  // the copies are the caller's
        for (const std::size_t i : indexes) {
            if (!rows_[i]) continue;
            const RawCopy& copy = copies_[i].emplace(stored_row(*rows_[i]));
            if (RowView(table_.schema, copy.value).has_references()) {
                rows_[i]->key = copy.key;
                rows_[i]->value = copy.value;
            } else {
                rows_[i].reset();
            }
        }
    }

    // The pages of large values are asked for rows ahead of the one that waits for its own, while
    // so many may be under way.
    Status copy_values(std::span<const std::size_t> indexes) {
        const ColdPath cold;
        PageRequests values(state_, table_);
        std::size_t asked = 0;
        for (std::size_t at = 0; at < indexes.size(); ++at) {
            while (asked < indexes.size() && (asked <= at || values.under_way() < pages_most_)) {
                if (Status ask = ask_for_values(values, indexes[asked++]); !ask.ok()) return ask;
            }
            while (values.under_way() > 0 && lacks_values(indexes[at])) {
                if (Status came = values.take(PageRequests::Want::kAny, came_); !came.ok())
                    return came;
            }
            // What an answer said of a page is found out again for the row whose it is.
            if (Status copied = copy_value(indexes[at]); !copied.ok()) return copied;
        }
        return {};
    }

    bool lacks_values(std::size_t i) {
        value_pages_.clear();
        if (rows_[i]) note_absent_pages(*rows_[i], value_pages_);
        return !value_pages_.empty();
    }

    Status ask_for_values(PageRequests& values, std::size_t i) {
        if (!lacks_values(i)) return {};
        if (!state_.valid()) return expired_failure();
        return values.ask(value_pages_, key(i));
    }

    Status copy_value(std::size_t i) {
        if (!rows_[i]) return {};
        auto copy = whole_row(*rows_[i]);
        if (!copy.ok()) return copy.failure();
        copies_[i] = std::move(*copy);
        rows_[i].reset();
        return {};
    }

    void settle(const Landing& landing, std::size_t i) {
        if (landing.state == Landed::kLeaf) return take_row(landing, i);
        const ColdPath cold;
        last_ = PageLookup::kFound;
        if (landing.state == Landed::kMissing) {
            // Why, which another key's descent has overwritten; if it came meanwhile, all the
            // better.
            if (source_(landing.page) != nullptr) return again_.push_back(i);
            if (last_ == PageLookup::kAbsent) return miss(landing.page, i);
        }
        again_.push_back(i);
        if (!wrong_) wrong_ = {landing, last_};
    }

    void miss(PageId page, std::size_t key) {
        const bool known = std::any_of(waiting_.begin(), waiting_.end(),
                                       [&](const Waiting& other) { return other.page == page; });
        if (!known) missing_.push_back(page);
        waiting_.push_back({page, key});
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

    // Together what comes last; else some at a time, so that the next ones go out as these come.
    Status ask() {
        if (missing_.empty()) return {};
        const ColdPath cold;
        if (!state_.valid()) return expired_failure();
        const bool all = begun_ == keys_.size();
        const std::size_t together =
            all ? missing_.size() : std::clamp<std::size_t>(pages_most_ / 32, 1, kPagesTogether);
        for (std::span<const PageId> rest = missing_; !rest.empty();) {
            const auto some = rest.first(std::min(rest.size(), together));
            if (Status asked = requests_.ask(some, key_for(some.front())); !asked.ok())
                return asked;
            rest = rest.subspan(some.size());
        }
        missing_.clear();
        return {};
    }

    const std::byte* key_for(PageId page) const {
        const auto waiting = std::find_if(waiting_.begin(), waiting_.end(),
                                          [&](const Waiting& wait) { return wait.page == page; });
        return waiting == waiting_.end() ? nullptr : key(waiting->key);
    }

    // The keys that waited for what came are descended for again.
    Status take(PageRequests::Want want) {
        const ColdPath cold;
        if (Status came = requests_.take(want, came_); !came.ok()) return came;
        std::sort(came_.begin(), came_.end());
        std::erase_if(waiting_, [&](const Waiting& wait) {
            const bool here = std::binary_search(came_.begin(), came_.end(), wait.page);
            if (here) again_.push_back(wait.key);
            return here;
        });
        const Status& failure = requests_.failure();
        if (failure.ok()) return {};
        if (failure.error() != Error::kNoSuchPage) return failure;
        if (!wrong_) {
            wrong_ = {{Landed::kCorrupt, came_.front(), nullptr}, PageLookup::kNoVersion};
        }
        return {};
    }

    // The first thing that was wrong: a root that has gone is wrong for many keys, and found again
    // once, after all that was asked for by the old one was answered.
    Status clear_the_way() {
        if (!wrong_) return {};
        while (requests_.under_way() > 0) {
            if (Status came = take(PageRequests::Want::kLast); !came.ok()) return came;
        }
        requests_.forget_failure();
        const auto wrong = std::exchange(wrong_, std::nullopt);
        return obstacle_.overcome(wrong->first, wrong->second);
    }

    const std::byte* key(std::size_t i) const { return keys_[i].data(); }

    ReaderState& state_;
    const TableInfo& table_;
    std::span<const std::span<const std::byte>> keys_;
    std::span<std::optional<RawRow>> rows_;
    std::span<std::optional<RawCopy>> copies_;  // of them; none: they are given out in place
    const std::size_t pages_most_;
    PageLookup last_ = PageLookup::kFound;
    PageSource source_;
    Obstacle obstacle_;
    std::size_t begun_ = 0;           // keys before it were descended for
    std::vector<std::size_t> again_;  // keys to be descended for once more
    std::vector<PageId> missing_;     // to be asked for
    std::vector<Waiting> waiting_;    // keys, for pages asked for or about to be
    std::vector<PageId> came_;
    std::vector<PageId> value_pages_;  // that one row lacks
    PageRequests requests_;
    std::optional<std::pair<Landing, PageLookup>> wrong_;
};

Status fit(const TableInfo& table, std::span<const std::span<const std::byte>> keys,
           std::size_t pages_under_way) {
    if (pages_under_way == 0) {
        return {Error::kInvalid,
                "table " + table.schema.name() + ": no page may be under way: allow at least 1"};
    }
    for (const auto& key : keys) {
        if (key.size() != table.schema.key_bytes()) return wrong_key(table, key.size());
    }
    return {};
}

}  // namespace

Status RawTable::peek_many(const Snapshot& snapshot,
                           std::span<const std::span<const std::byte>> keys,
                           std::span<std::optional<RawRow>> rows,
                           std::size_t pages_under_way) const {
    Result<ReaderState*> state = ReaderState::live(snapshot, *info_);
    if (!state.ok()) return state.failure();
    if (rows.size() < keys.size()) {
        return {Error::kInvalid, "table " + name() + ": room for " + std::to_string(rows.size()) +
                                     " rows, asked for " + std::to_string(keys.size())};
    }
    if (Status sized = fit(*info_, keys, pages_under_way); !sized.ok()) return sized;
    return ManyRows(**state, *info_, keys, rows, {}, pages_under_way).run();
}

Result<std::vector<std::optional<RawCopy>>> RawTable::multi_get(
    const Snapshot& snapshot, std::span<const std::span<const std::byte>> keys,
    std::size_t pages_under_way) const {
    Result<ReaderState*> state = ReaderState::live(snapshot, *info_);
    if (!state.ok()) return state.failure();
    if (Status sized = fit(*info_, keys, pages_under_way); !sized.ok()) return sized.failure();
    std::vector<std::optional<RawRow>> rows(keys.size());
    std::vector<std::optional<RawCopy>> copies(keys.size());
    Status found = ManyRows(**state, *info_, keys, rows, copies, pages_under_way).run();
    if (!found.ok()) return found.failure();
    return copies;
}

}  // namespace bidstore
