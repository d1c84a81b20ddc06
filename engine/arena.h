// Memory that is given back all at once, and kept: more is taken from the general allocator only
// when a use wants more than those before it.
//
// Who:    its owner; not shared.
// Bounds: what is kept from one use to the next, kKeptBytes.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace bidstore {

class Arena {
  public:
    std::byte* take(std::size_t size_bytes);
    std::span<const std::byte> copy(std::span<const std::byte> bytes);
    void reset();

    std::size_t taken_bytes() const { return taken_bytes_; }  // since the last reset
    std::size_t held_bytes() const { return held_bytes_; }

    static constexpr std::size_t kKeptBytes = 4u << 20;  // from one use to the next

  private:
    static constexpr std::size_t kBlockBytes = 256u << 10;
    std::vector<std::vector<std::byte>> blocks_;
    std::size_t block_ = 0;
    std::size_t used_ = 0;
    std::size_t taken_bytes_ = 0;
    std::size_t held_bytes_ = 0;
};

}  // namespace bidstore
