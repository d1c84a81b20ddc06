// Of each chunk, an upper bound of how many neighbours among its pages are available: who looks for
// a run passes by the chunks that cannot have it, without a look at their bitmaps. A file whose
// free pages lie in pieces has thousands of such chunks.
//
// A bound rises with the pages that become available, exactly, and falls when less is known to be
// there: by a look that found less, or by the number of pages that are left. So a look in vain
// comes at most once for each time that pages made a run long enough, and were taken. Chunks that
// are not looked at for another reason keep their bound.
//
// Who:    Space, on the engine thread.
// Memory: 2 bytes a chunk.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace bidstore {

class RunBounds {
  public:
    void reserve(std::uint32_t chunks) {
        chunks_.reserve(chunks);
        groups_.reserve(groups_of(chunks));
    }
    void resize(std::uint32_t chunks) {
        chunks_.resize(chunks, 0);
        groups_.resize(groups_of(chunks), 0);
    }

    void raise(std::uint32_t chunk, std::uint32_t pages) {
        const auto bound = static_cast<std::uint16_t>(pages);
        chunks_[chunk] = std::max(chunks_[chunk], bound);
        groups_[chunk / kGroup] = std::max(groups_[chunk / kGroup], bound);
    }
    void lower(std::uint32_t chunk, std::uint32_t pages) {
        chunks_[chunk] = std::min(chunks_[chunk], static_cast<std::uint16_t>(pages));
    }

    // The first chunk of [from, to) that may have a run of more than so many pages; `to`: none.
    std::uint32_t next(std::uint32_t from, std::uint32_t to, std::uint32_t pages) {
        while (from < to) {
            const std::uint32_t group = from / kGroup;
            const std::uint32_t first = group * kGroup;
            const auto end = std::min<std::uint32_t>(first + kGroup, size());
            const std::uint32_t stop = std::min(end, to);
            if (groups_[group] > pages) {
                std::uint16_t most = 0;
                for (std::uint32_t chunk = from; chunk < stop; ++chunk) {
                    if (chunks_[chunk] > pages) return chunk;
                    most = std::max(most, chunks_[chunk]);
                }
                if (from == first && stop == end) groups_[group] = most;
            }
            from = stop;
        }
        return to;
    }

  private:
    static constexpr std::uint32_t kGroup = 256;
    static std::size_t groups_of(std::uint32_t chunks) { return (chunks + kGroup - 1) / kGroup; }
    std::uint32_t size() const { return static_cast<std::uint32_t>(chunks_.size()); }

    std::vector<std::uint16_t> chunks_;
    std::vector<std::uint16_t> groups_;  // of so many chunks each: at least the greatest of theirs
};

}  // namespace bidstore
