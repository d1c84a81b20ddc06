// The buffers of a bulk load, or of the pages that recovery puts in place, and the writes out of
// them.
//
//   take() ──► filled by its owner ──► write(), write(), ... from the front ──► idle again, by
//   itself
//
// Who:    the engine thread; writes complete in Disk::poll().
// Owns:   the buffers. No write is under way when it goes (in_flight()).
// Bounds: kBuffers * kBufferBytes of memory, whatever is loaded.
// Errors: a failed write is told to `on_written`, which comes after each one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/disk.h"
#include "engine/page/page.h"

namespace bidstore {

class LoadWriter {
  public:
    static constexpr std::uint32_t kBufferPages = 64;
    static constexpr std::uint32_t kBuffers = 16;

    struct Buffer {
        std::byte* page(std::uint32_t index) {
            return pages.data() + std::size_t{index} * kPageBytes;
        }
        bool full() const { return count == kBufferPages; }

        AlignedBuffer pages{std::size_t{kBufferPages} * kPageBytes};
        std::uint32_t count = 0;
        std::uint32_t placed = 0;  // of them, from the front: written, or on their way
        std::uint32_t in_flight = 0;
        std::vector<DiskRequest> requests{kBufferPages};  // one per run of neighbours
        LoadWriter* owner = nullptr;
    };

    using OnWritten = std::function<void(const DiskRequest& done)>;
    LoadWriter(Disk& disk, OnWritten on_written);

    std::size_t idle() const { return idle_.size(); }
    std::uint32_t in_flight() const { return in_flight_; }
    // Any of these, to be named; nullptr: none.
    const DiskRequest* under_way() const;
    // An idle buffer; there is one.
    Buffer& take();
    // One whose pages go nowhere.
    void give_back(Buffer& buffer);
    // The next `count` pages that are not placed go to `page` and its neighbours. With its last
    // page placed the buffer belongs to the writer again.
    void write(Buffer& buffer, std::uint32_t count, PageId page);
    // Their memory, for good. No write is under way.
    void release();
    bool released() const { return buffers_.empty(); }

  private:
    void written(Buffer& buffer, const DiskRequest& request);

    Disk& disk_;
    const OnWritten on_written_;
    std::vector<std::unique_ptr<Buffer>> buffers_;
    std::vector<Buffer*> idle_;
    std::uint32_t in_flight_ = 0;
};

}  // namespace bidstore
