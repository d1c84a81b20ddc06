// Memory for O_DIRECT: whole blocks, aligned to a block. Zeros at first, but for uninitialized().
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "shm/base.h"

namespace bidstore {

class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t size_bytes) : AlignedBuffer(uninitialized(size_bytes)) {
        std::memset(bytes_.get(), 0, size_bytes_);
    }
    // For who writes every byte before reading it: of a large one only what is used costs memory.
    static AlignedBuffer uninitialized(std::size_t size_bytes) {
        AlignedBuffer buffer;
        buffer.size_bytes_ = static_cast<std::size_t>(align_up(size_bytes, kPageBytes));
        buffer.bytes_.reset(
            static_cast<std::byte*>(std::aligned_alloc(kPageBytes, buffer.size_bytes_)));
        CHECK(buffer.bytes_ != nullptr);
        return buffer;
    }

    std::byte* data() { return bytes_.get(); }
    const std::byte* data() const { return bytes_.get(); }
    std::size_t size_bytes() const { return size_bytes_; }

    // Gives the memory away for good: for a transfer that never came back, whose device may still
    // write into it.
    void leak() { static_cast<void>(bytes_.release()); }

  private:
    struct Free {
        void operator()(std::byte* bytes) const { std::free(bytes); }
    };
    std::size_t size_bytes_ = 0;
    std::unique_ptr<std::byte, Free> bytes_;
};

}  // namespace bidstore
