// A snapshot in a slot of a SimClient, read the way a client reads: page map, version chains,
// shared search, and page requests for what is not in the pool.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/page/search.h"
#include "shm/key_directory.h"
#include "shm/page_map.h"
#include "shm/reader_slot.h"
#include "tests/sim.h"
#include "tests/snapshot_view.h"
#include "tests/whole_row.h"

namespace bidstore {

// Taken when it is made, let go when it is destroyed. The engine is run while it waits for pages.
class SimSnapshot {
    auto source() {
        return [this](PageId page) { return see_page(view_, slot_, page).page; };
    }

  public:
    SimSnapshot(SimStore& store, const PoolView& view, SimClient& client, std::uint32_t slot)
        : store_(store),
          view_(view),
          client_(client),
          slot_index_(slot),
          slot_(client.segment().slots()[slot], view.published(),
                view.revoked()[client.segment().first_slot() + slot]) {
        slot_.begin();
    }
    ~SimSnapshot() {
        if (!died_) slot_.end();
    }
    SimSnapshot(const SimSnapshot&) = delete;
    SimSnapshot& operator=(const SimSnapshot&) = delete;

    std::uint64_t csn() const { return slot_.snapshot().value; }
    bool valid() const { return slot_.valid(); }
    // No frame is in use: what was evicted need not be kept for this reader.
    void renew() { renewals_ += slot_.renew(); }
    // Between the two no frame is in use at all, whatever is evicted.
    void rest() { slot_.rest(); }
    void resume() {
        slot_.resume();
        ++rests_;
    }
    // As the library reads: it rests while it waits for a page and uses no frame, and range() lets
    // go of each leaf before it goes on. What page() gave out may not be in use then.
    void read_modestly(bool modestly) { modest_ = modestly; }
    // Its process is gone: the slot stays as it is.
    void die() { died_ = true; }
    const SimClient& client() const { return client_; }
    std::uint32_t slot_index() const { return slot_index_; }
    std::uint64_t misses() const { return misses_; }
    std::uint64_t renewals() const { return renewals_; }
    std::uint64_t rests() const { return rests_; }
    const std::string& trouble() const { return trouble_; }
    // The daemon's answer to a request for a page that is the trouble. kOk: it is another one,
    // which no damage to files excuses.
    Error refusal() const { return refusal_; }

    // The row with its large values. Nothing when the lease ended, or with trouble() said.
    std::optional<std::vector<std::byte>> whole(const Schema& schema,
                                                const std::vector<std::byte>& stored) {
        auto row = whole_row(schema, stored, [this](PageId page) { return extent_page(page); });
        if (!row && valid() && trouble_.empty()) {
            trouble_ = "a row refers to nothing sensible";
        }
        if (!row || !valid()) return std::nullopt;
        return row;
    }
    std::optional<std::map<std::vector<std::byte>, std::vector<std::byte>>> whole(
        const Schema& schema, std::map<std::vector<std::byte>, std::vector<std::byte>> rows) {
        for (auto& [key, value] : rows) {
            auto row = whole(schema, value);
            if (!row) return std::nullopt;
            value = std::move(*row);
        }
        return rows;
    }

    // A page as it lies in its frame, for as long as the lease holds. Nothing: as for get().
    const std::byte* page(PageId id) {
        for (;;) {
            if (const std::byte* bytes = see_page(view_, slot_, id).page) return bytes;
            if (!bring_in(id)) return nullptr;
        }
    }

    // Nothing when the lease ended, or with trouble() said.
    std::optional<std::optional<std::vector<std::byte>>> get(const TreeShape& shape, PageId root,
                                                             const std::vector<std::byte>& key) {
        for (;;) {
            const Landing landing = descend(shape, root, key.data(), source());
            if (landing.state == Landed::kMissing) {
                if (!bring_in(landing.page)) return std::nullopt;
                continue;
            }
            if (!believe(landing)) return std::nullopt;
            const LeafView rows(landing.bytes, shape.leaf);
            const int row = rows.find(key.data());
            std::optional<std::vector<std::byte>> value;
            if (row >= 0) {
                const auto bytes = rows.value(static_cast<std::uint32_t>(row));
                value.emplace(bytes.begin(), bytes.end());
            }
            if (!valid()) return std::nullopt;
            return std::optional<std::optional<std::vector<std::byte>>>(std::in_place,
                                                                        std::move(value));
        }
    }

    // What a client finds by the key directory alone (clientlib/directory_probe.h): a row that is
    // there and alive, or nothing, which says nothing.
    std::optional<std::vector<std::byte>> by_directory(const Schema& schema, const TreeShape& shape,
                                                       PageId root,
                                                       const std::vector<std::byte>& key) {
        const KeyDirectory directory(view_.directory(), view_.bucket_count());
        const RowHint hint = directory.find(directory.aim(shape.table, key.data(), key.size()));
        const std::byte* top = see_page(view_, slot_, root).page;
        if (top == nullptr || tree_level(top, shape.table) < 1) return std::nullopt;
        const std::byte* bytes = see_page(view_, slot_, hint.leaf).page;
        if (!hint.leaf || bytes == nullptr || !is_leaf_of(bytes, shape.table)) return std::nullopt;
        const LeafView rows(bytes, shape.leaf);
        const int row = rows.find_near(key.data(), hint.row);
        if (row < 0) return std::nullopt;
        const auto value = rows.value(static_cast<std::uint32_t>(row));
        if (!schema.live(key.data(), value, floor_of(top))) return std::nullopt;
        return std::vector<std::byte>(value.begin(), value.end());
    }

    // The rows from `from` on, up to `to` (empty: all), leaf by leaf, as long as `between`, which
    // runs after each, says so.
    std::optional<std::map<std::vector<std::byte>, std::vector<std::byte>>> range(
        const TreeShape& shape, PageId root, const std::vector<std::byte>& from,
        const std::vector<std::byte>& to, const std::function<bool()>& between) {
        std::map<std::vector<std::byte>, std::vector<std::byte>> found;
        auto cursor = PathCursor(shape, root, source());
        std::vector<std::byte> next = from;
        bool stands = false;
        for (;;) {
            const Landing landing = stands ? cursor.next_leaf() : cursor.seek(next.data());
            if (landing.state == Landed::kMissing) {
                if (!bring_in(landing.page, stands)) return std::nullopt;
                continue;
            }
            if (landing.state == Landed::kEnd) break;
            if (!believe(landing)) return std::nullopt;
            if (!collect(cursor.leaf(), shape, from, to, found)) break;
            stands = !modest_ || !cursor.boundary(true, next.data());
            if (!valid()) return std::nullopt;  // a boundary of another page's leads anywhere
            if (!stands) renew();
            if (!between()) break;
        }
        if (!valid()) return std::nullopt;
        return found;
    }

    // All leaves backwards: the rows of the whole table.
    std::optional<std::map<std::vector<std::byte>, std::vector<std::byte>>> backwards(
        const TreeShape& shape, PageId root) {
        std::map<std::vector<std::byte>, std::vector<std::byte>> found;
        auto cursor = PathCursor(shape, root, source());
        bool begun = false;
        for (;;) {
            const Landing landing = begun ? cursor.previous_leaf() : cursor.seek_last();
            if (landing.state == Landed::kMissing) {
                if (!bring_in(landing.page, begun)) return std::nullopt;
                continue;
            }
            if (landing.state == Landed::kEnd) break;
            if (!believe(landing)) return std::nullopt;
            begun = true;
            collect(cursor.leaf(), shape, {}, {}, found);
        }
        if (!valid()) return std::nullopt;
        return found;
    }

  private:
    static bool collect(const LeafView& rows, const TreeShape& shape,
                        const std::vector<std::byte>& from, const std::vector<std::byte>& to,
                        std::map<std::vector<std::byte>, std::vector<std::byte>>& found) {
        for (std::uint32_t row = 0; row < rows.count(); ++row) {
            const std::vector<std::byte> key(rows.key(row), rows.key(row) + shape.leaf.key_bytes);
            if (key < from) continue;
            if (!to.empty() && key >= to) return false;
            const auto value = rows.value(row);
            found[key] = std::vector<std::byte>(value.begin(), value.end());
        }
        return true;
    }

    bool believe(const Landing& landing) {
        if (landing.state == Landed::kLeaf) return true;
        if (!valid()) return false;
        trouble_ = "page " + std::to_string(landing.page.value) + " looks corrupt";
        return false;
    }

    const std::byte* extent_page(PageId page) {
        for (;;) {
            const PageVersion found = bidstore::extent_page(view_, page);
            if (found.page != nullptr) return found.page;
            if (!valid() || !request(page)) return nullptr;
        }
    }

    // stands: frames are in use, of a cursor on its leaf.
    bool bring_in(PageId page, bool stands = false) {
        if (!valid()) return false;
        const SeenPage::State state = see_page(view_, slot_, page).state;
        if (state != SeenPage::State::kAbsent) {
            if (state == SeenPage::State::kFound) return true;
            if (valid()) trouble_ = "page " + std::to_string(page.value) + " has no version";
            return false;
        }
        return request(page, stands);
    }

    bool request(PageId page, bool stands = false) {
        ++misses_;
        const bool rests = modest_ && !stands;
        const auto token = client_.request_pages({&page, 1});
        CHECK(token.has_value());
        std::optional<Answer> answer;
        if (rests) rest();
        store_.run_until([&] { return (answer = client_.answer(*token)).has_value(); });
        if (rests) resume();
        if (!answer) {
            trouble_ = "no answer to a request for page " + std::to_string(page.value);
        } else if (answer->error != Error::kOk && valid()) {
            refusal_ = answer->error;
            trouble_ = "page " + std::to_string(page.value) + ": " +
                       std::string(error_name(answer->error));
        }
        return trouble_.empty() && valid();
    }

    SimStore& store_;
    const PoolView& view_;
    SimClient& client_;
    std::uint32_t slot_index_;
    SlotOwner slot_;
    std::uint64_t misses_ = 0;
    std::uint64_t renewals_ = 0;
    std::uint64_t rests_ = 0;
    bool modest_ = false;
    bool died_ = false;
    std::string trouble_;
    Error refusal_ = Error::kOk;
};

}  // namespace bidstore
