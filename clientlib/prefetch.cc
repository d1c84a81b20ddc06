// Pages on their way before they are wanted.

#include <algorithm>
#include <array>

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

}  // namespace

Status RawTable::prefetch(const Snapshot& snapshot,
                          std::span<const std::span<const std::byte>> keys) const {
    Result<ReaderState*> live = ReaderState::live(snapshot);
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
    while (!keys.empty()) {
        const auto some = keys.first(std::min(keys.size(), descents.size()));
        for (std::size_t i = 0; i < some.size(); ++i) descents[i].key = some[i].data();
        descend_many(*info_->shape, state.root(*info_), std::span(descents).first(some.size()),
                     source);
        MissingPages missing;
        for (std::size_t i = 0; i < some.size(); ++i) {
            const Landing& landing = descents[i].landing;
            if (landing.state != Landed::kMissing || source(landing.page) != nullptr) continue;
            if (last == PageLookup::kAbsent) missing.note(landing.page);
        }
        if (!state.valid()) return expired_failure();
        if (!missing.all().empty()) request_pages_ahead(state, missing.all());
        keys = keys.subspan(some.size());
    }
    return {};
}

}  // namespace bidstore
