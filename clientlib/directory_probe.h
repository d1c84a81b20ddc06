// Finding a row by the key directory, step by step, so that many can be on their way at once: each
// step looks at what the one before began to fetch, and begins to fetch what the next one looks at.
//
//     aim       hash the key                     -> its bucket
//     look      choose the entry                 -> the leaf's entry of the page map
//     approach  look at that entry               -> the leaf's header, the row's key and value
//               (of one of many rows: the value's first line; arrive: the rest)
//     arrive    the version, its checks, the key
//
// A step that finds nothing leaves nothing for the next one; arrive() says so. Only a row that is
// there and alive is an answer. Whatever else it was (no entry, a page that is not in the pool or
// has become something else, a row that moved, one that is dead), the tree says what it means.
//
// Why a row found like this is the one that the tree would find: the page's version of the snapshot
// is a leaf of the table, by its header. Every such leaf is in the table's tree, where each key has
// one place, but for leaves that were dropped unread (engine/pages.h: drop): with the whole table,
// whose root this reader does not know any more (ReaderState::root), or because all of their rows
// are dead.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "clientlib/snapshot.h"
#include "shm/key_directory.h"

namespace bidstore {

// Of a value, on its way to the cache before its row is found; hardware guesses the rest.
inline constexpr std::size_t kValueBytesAhead = 320;

// What all rows of a table have in common under a snapshot.
struct DirectoryUse {
    bool possible = false;    // a tree of one leaf is as quick, one without its root is none
    std::uint64_t floor = 0;  // of the table

    // Only of use after the root is known.
    static DirectoryUse of(ReaderState& state, const TableInfo& table) {
        const PageId root = state.root(table);
        if (!root) return {};
        const PageVersion top =
            version_at(state.connection->pool(), *state.slot, root, page_walk::NoPrefetch{});
        if (top.page == nullptr || tree_level(top.page, table.id) < 1) return {};
        return {true, floor_of(top.page)};
    }
};

class DirectoryProbe {
  public:
    [[gnu::always_inline]] void aim(const KeyDirectory& directory, const TableInfo& table,
                                    const std::byte* key) {
        place_ = directory.aim(table.id, key, table.shape->leaf.key_bytes);
    }
    [[gnu::always_inline]] void look(const KeyDirectory& directory, const PoolView& pool) {
        hint_ = directory.find(place_);
        if (hint_.leaf.value >= pool.page_count()) [[unlikely]]
            hint_ = {};
        prefetch_line(pool.page_map() + hint_.leaf.value);
    }
    // All lines of the row in one go, for a row alone: its page is where it waits, whatever the
    // number of lines.
    [[gnu::always_inline]] void approach(const PoolView& pool, const TableInfo& table) const {
        approach_for(pool, table, kValueBytesAhead);
    }
    // For one of many rows. The processor has some twenty lines on their way at a time, and rows
    // together wait for their number: what decides whether the row is the one comes first, and the
    // value while the others are looked at (prefetch_rest).
    [[gnu::always_inline]] void approach_with_others(const PoolView& pool,
                                                     const TableInfo& table) const {
        approach_for(pool, table, 1);
    }
    // What approach_with_others() left out.
    [[gnu::always_inline]] static void prefetch_rest(std::span<const std::byte> value) {
        const std::size_t bytes = std::min(value.size(), kValueBytesAhead);
        if (bytes <= kCacheLineBytes) return;
        prefetch_bytes(value.data() + kCacheLineBytes, bytes - kCacheLineBytes);
    }
    [[gnu::always_inline]] bool arrive(ReaderState& state, const TableInfo& table,
                                       const std::byte* key, std::uint64_t floor,
                                       RawRow& row) const {
        if (!hint_.leaf) return false;
        const PageVersion version =
            version_at(state.connection->pool(), *state.slot, hint_.leaf, page_walk::NoPrefetch{});
        if (version.page == nullptr || !is_leaf_of(version.page, table.id)) return false;
        const LeafView leaf(version.page, table.shape->leaf);
        const int found = leaf.find_near(key, hint_.row);
        if (found < 0) return false;
        const auto at = static_cast<std::uint32_t>(found);
        row = row_in(state, table, leaf, at);
        if (!table.schema.live(row.key.data(), row.value, floor)) return false;
        state.touches->note(hint_.leaf, version.entry);
        return true;
    }

    // The leaf that was found, not looked into yet; 0: none. To be read with what is on the way to
    // it, when neither is in the pool.
    PageId leaf() const { return hint_.leaf; }

  private:
    // With so many bytes of the value.
    [[gnu::always_inline]] void approach_for(const PoolView& pool, const TableInfo& table,
                                             std::size_t value_bytes) const {
        const std::byte* frame = newest_hint(pool, hint_.leaf);
        if (frame == nullptr) return;
        const LeafLayout& layout = table.shape->leaf;
        const std::uint32_t key_stride = layout.variable ? kSlotBytes : layout.key_bytes;
        prefetch_line(frame);
        prefetch_line(frame + kPageHeaderBytes + hint_.row * key_stride);
        const std::byte* value = frame + layout.values_offset + hint_.row * layout.value_bytes;
        const std::size_t bytes = std::min<std::size_t>(layout.value_bytes, value_bytes);
        if (bytes > 0) prefetch_bytes(value, bytes);
    }

    DirectoryPlace place_;
    RowHint hint_;
};

}  // namespace bidstore
