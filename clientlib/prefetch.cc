// Pages on their way before they are wanted.

#include <algorithm>
#include <array>
#include <vector>

#include "clientlib/large_value.h"
#include "clientlib/snapshot.h"
#include "engine/page/search_many.h"

namespace bidstore {
namespace {

// Page by page that is absent, at most as many as there are keys.
class MissingPages {
  public:
    void note(PageId page) {
        const auto end = pages_.begin() + static_cast<std::ptrdiff_t>(count_);
        if (std::find(pages_.begin(), end, page) == end) pages_[count_++] = page;
    }
    std::span<const PageId> all() const { return std::span(pages_).first(count_); }

  private:
    std::array<PageId, kDescentsTogether> pages_;
    std::size_t count_ = 0;
};

constexpr std::size_t kValuePagesMax = 1024;  // of one call

// The large values of rows whose leaves are resident.
class MissingValues {
  public:
    MissingValues(ReaderState& state, const TableInfo& table)
        : state_(state),
          table_(table),
          room_(std::min<std::size_t>(kValuePagesMax, state.pages_ahead_max())) {}

    void note(const Landing& landing, const std::byte* key) {
        if (!table_.schema.has_variable() || pages_.size() >= room_) return;
        const LeafView leaf(landing.bytes, table_.shape->leaf);
        const int found = leaf.find(key);
        if (found < 0) return;
        const auto at = static_cast<std::uint32_t>(found);
        if (!table_.schema.live(leaf.key(at), leaf.value(at), landing.floor)) return;
        note_absent_pages(row_in(state_, table_, leaf, at), pages_);
    }
    void ask() {
        room_ -= std::min(room_, pages_.size());
        for (std::span<const PageId> rest = pages_; !rest.empty();) {
            const auto some = rest.first(std::min<std::size_t>(rest.size(), kPagesPerRequest));
            request_pages_ahead(state_, some);
            rest = rest.subspan(some.size());
        }
        pages_.clear();
    }

  private:
    ReaderState& state_;
    const TableInfo& table_;
    std::size_t room_;
    std::vector<PageId> pages_;
};

}  // namespace

Status RawTable::prefetch(const Snapshot& snapshot,
                          std::span<const std::span<const std::byte>> keys) const {
    Result<ReaderState*> live = ReaderState::live(snapshot, *info_);
    if (!live.ok()) return live.failure();
    ReaderState& state = **live;
    for (const auto& key : keys) {
        if (key.size() != schema().key_bytes()) return wrong_key(*info_, key.size());
    }
    if (!state.root(*info_)) {
        if (Status found = find_root(state, *info_); !found.ok()) return found;
    }
    PageLookup last = PageLookup::kFound;
    PageSource source(state, last);
    std::array<Descent, kDescentsTogether> descents;
    MissingValues values(state, *info_);
    while (!keys.empty()) {
        const auto some = keys.first(std::min(keys.size(), descents.size()));
        for (std::size_t i = 0; i < some.size(); ++i) descents[i].key = some[i].data();
        descend_many(*info_->shape, state.root(*info_), std::span(descents).first(some.size()),
                     source);
        MissingPages missing;
        for (std::size_t i = 0; i < some.size(); ++i) {
            const Landing& landing = descents[i].landing;
            if (landing.state == Landed::kLeaf) values.note(landing, some[i].data());
            if (landing.state != Landed::kMissing || source(landing.page) != nullptr) continue;
            if (last == PageLookup::kAbsent) missing.note(landing.page);
        }
        if (!state.valid()) return expired_failure();
        if (!missing.all().empty()) request_pages_ahead(state, missing.all());
        values.ask();
        keys = keys.subspan(some.size());
    }
    return {};
}

}  // namespace bidstore
