#include "engine/load_writer.h"

#include <utility>

#include "engine/format.h"

namespace bidstore {

LoadWriter::LoadWriter(Disk& disk, OnWritten on_written)
    : disk_(disk), on_written_(std::move(on_written)) {
    for (std::uint32_t i = 0; i < kBuffers; ++i) {
        buffers_.push_back(std::make_unique<Buffer>());
        buffers_.back()->owner = this;
        idle_.push_back(buffers_.back().get());
    }
}

const DiskRequest* LoadWriter::under_way() const {
    for (const auto& buffer : buffers_) {
        for (const DiskRequest& request : buffer->requests) {
            if (request.in_flight) return &request;
        }
    }
    return nullptr;
}

LoadWriter::Buffer& LoadWriter::take() {
    CHECK(!idle_.empty());  // the load asked before it took rows
    Buffer& buffer = *idle_.back();
    idle_.pop_back();
    return buffer;
}

void LoadWriter::give_back(Buffer& buffer) {
    buffer.count = buffer.placed = 0;
    idle_.push_back(&buffer);
}

void LoadWriter::write(Buffer& buffer, std::uint32_t count, PageId page) {
    DiskRequest& request = buffer.requests[buffer.placed];
    request = DiskRequest{};
    request.kind = DiskRequest::Kind::kWrite;
    request.file = StoreFile::kData;
    request.offset_bytes = page_offset_bytes(page);
    request.length_bytes = count * static_cast<std::uint32_t>(kPageBytes);
    request.buffer = buffer.page(buffer.placed);
    request.context = &buffer;
    request.completed = [](DiskRequest& done, void* context) {
        Buffer* written = static_cast<Buffer*>(context);
        written->owner->written(*written, done);
    };
    buffer.placed += count;
    CHECK_OP(buffer.placed, <=, buffer.count);
    ++buffer.in_flight;
    ++in_flight_;
    disk_.submit(request);
}

void LoadWriter::release() {
    CHECK(in_flight_ == 0);
    idle_.clear();
    buffers_.clear();
}

void LoadWriter::written(Buffer& buffer, const DiskRequest& request) {
    --in_flight_;
    --buffer.in_flight;
    if (buffer.in_flight == 0 && buffer.placed == buffer.count) give_back(buffer);
    on_written_(request);
}

}  // namespace bidstore
