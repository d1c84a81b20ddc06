// Ranges in replay: the tree that a range is erased from may have far more leaves than the one that
// the client's operation was measured by.
//
// What is not logged makes the difference. Merges of leaves do, but these change pages, of which
// there are never more between two checkpoints than the journal holds: a small part of the pool.
// Leaves that retention drops change next to nothing, so that any number of them may have gone
// since the checkpoint that replay begins with. They go here as they went there, unread, before the
// range is looked at, as long as the journal has places for what that changes; what stays has to
// fit the pool. Serving sees to it that there are places for all that it drops
// (Engine::Core::enough_to_replay).
#include <algorithm>
#include <array>
#include <cstring>

#include "engine/replay.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kWalksMax = 16;  // over a range, until it is all in the pool
constexpr std::uint32_t kLeavesPerLook = 64;
constexpr std::uint64_t kAllRows = ~std::uint64_t{0} >> 1;

bool before_end(const std::array<std::byte, kKeyBytesMax>& key, const LogRecordView& range) {
    return range.body.empty() || std::memcmp(key.data(), range.body.data(), range.key.size()) < 0;
}

}  // namespace

Status Replay::range_effect(const LogRecordView& record, Tree& tree) {
    if (Status dropped = drop_dead_leaves(record, tree); !dropped) return dropped;
    if (Status read = bring_in_range(record, tree); !read) return read;
    if (Status free = secure_frames(kFramesPerBatch); !free) return free;
    // Making room may have cost a page of the range.
    return bring_in_range(record, tree);
}

// Those of the inner nodes that lead to the range. A leaf whose age only the leaf itself tells is
// read, and decided about by another look at its node, some times; then it is left to the range.
Status Replay::drop_dead_leaves(const LogRecordView& record, Tree& tree) {
    if (!storage_.pool.resident(tree.root())) {
        if (Status come = storage_.bring_in(tree.root()); !come) return come;
    }
    if (tree.floor() == 0) return {};
    std::array<std::byte, kKeyBytesMax> from;
    std::copy(record.key.begin(), record.key.end(), from.begin());
    std::uint64_t nodes_freed = 0;
    for (std::uint32_t looks = 0; before_end(from, record);) {
        if (!journal_has_room(nodes_freed)) return {};
        const std::uint64_t quarantined = storage_.space.quarantined();
        LeafDrop drop;
        const Status looked = storage_.complete([&] {
            drop = tree.drop_leaves(from.data(), kLeavesPerLook);
            return drop;
        });
        if (!looked) return looked;
        nodes_freed += storage_.space.quarantined() - quarantined - drop.leaves;
        for (const PageId leaf : drop.ask) {
            // One that cannot be read matters to the range alone, if it lies there.
            if (looks < kWalksMax && !storage_.bring_in(leaf).ok()) looks = kWalksMax;
        }
        if (drop.leaves == kLeavesPerLook) continue;
        if (!drop.ask.empty() && ++looks < kWalksMax) continue;
        if (drop.end) break;
        from = drop.next;
        looks = 0;
    }
    return {};
}

// For the next step. Nodes that were freed have no place there, though they changed.
bool Replay::journal_has_room(std::uint64_t nodes_freed) const {
    constexpr std::uint32_t kNodes = 2 * kDepthMax;
    const Checkpointer& checkpointer = *storage_.checkpointer;
    const std::uint64_t use = checkpointer.journal_use(kNodes, kNodes + kLeavesPerLook);
    return use <= checkpointer.journal_capacity() + nodes_freed;
}

// All pages of the range, at once. A walk goes on where it missed a page, since there may be very
// many; what came may have cost others, so there is another one until a walk misses nothing.
Status Replay::bring_in_range(const LogRecordView& record, const Tree& tree) {
    const std::byte* const high = key_bound(record.body);
    const std::uint64_t frames = storage_.pool.frame_count();
    std::array<std::byte, kKeyBytesMax> from;
    for (std::uint32_t walk = 0; walk < kWalksMax; ++walk) {
        std::copy(record.key.begin(), record.key.end(), from.begin());
        std::uint64_t brought = 0;
        for (; brought <= frames; ++brought) {
            const auto there = [&](const std::byte* key, std::span<const std::byte>) {
                std::copy_n(key, record.key.size(), from.begin());
                return true;
            };
            const TreeAccess access = tree.visit_range(from.data(), high, there);
            if (access.corrupt || !access.missing) break;
            if (Status come = storage_.bring_in(access.missing); !come) return come;
        }
        if (brought > frames) break;
        if (brought > 0) continue;
        return storage_.complete(
            [&] { return tree.range_cost(record.key.data(), high, kAllRows); });
    }
    return {Error::kTooLarge, "a range is deleted that has more pages than the " +
                                  std::to_string(frames) + " frames of the pool: raise pool_bytes"};
}

}  // namespace bidstore
