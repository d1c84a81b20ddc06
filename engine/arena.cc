#include "engine/arena.h"

#include <algorithm>

#include "shm/base.h"
#include "shm/hot_path.h"

namespace bidstore {

std::byte* Arena::take(std::size_t size_bytes) {
    size_bytes = align_up(size_bytes, 8);
    while (block_ < blocks_.size() && used_ + size_bytes > blocks_[block_].size()) {
        ++block_;
        used_ = 0;
    }
    if (block_ == blocks_.size()) {
        const ColdPath cold;
        blocks_.emplace_back(std::max(kBlockBytes, size_bytes));
        held_bytes_ += blocks_.back().size();
    }
    std::byte* place = blocks_[block_].data() + used_;
    used_ += size_bytes;
    taken_bytes_ += size_bytes;
    return place;
}

std::span<const std::byte> Arena::copy(std::span<const std::byte> bytes) {
    std::byte* to = take(bytes.size());
    std::copy(bytes.begin(), bytes.end(), to);
    return {to, bytes.size()};
}

// Blocks are passed over where they are too small for what is taken: who chooses the sizes would
// have ever more of them.
void Arena::reset() {
    block_ = 0;
    used_ = 0;
    taken_bytes_ = 0;
    if (held_bytes_ <= kKeptBytes) return;
    blocks_.clear();
    held_bytes_ = 0;
}

}  // namespace bidstore
