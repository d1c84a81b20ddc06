#include "engine/dry_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/blocking_io.h"
#include "shm/base.h"

namespace bidstore {

DryDisk::~DryDisk() {
    while (!reads_.empty()) below_.poll(1'000'000);
    for (DiskRequest* request : done_) request->in_flight = false;
}

DryDisk::File& DryDisk::file_of(StoreFile name) {
    File& file = files_[static_cast<std::size_t>(name)];
    if (file.known) return file;
    const Result<std::uint64_t> size = below_.size_bytes(name);
    file.known = true;
    file.size_bytes = file.below_bytes = size ? *size / kPageBytes * kPageBytes : 0;
    return file;
}

Result<std::uint64_t> DryDisk::size_bytes(StoreFile file) { return file_of(file).size_bytes; }

Status DryDisk::resize(StoreFile name, std::uint64_t size_bytes) {
    File& file = file_of(name);
    file.size_bytes = size_bytes;
    file.below_bytes = std::min(file.below_bytes, size_bytes);
    std::erase_if(file.written,
                  [&](const auto& page) { return page.first * kPageBytes >= size_bytes; });
    return {};
}

void DryDisk::submit(DiskRequest& request) {
    CHECK(!request.in_flight);
    request.in_flight = true;
    switch (request.kind) {
        case DiskRequest::Kind::kRead:
            return start_read(request);
        case DiskRequest::Kind::kSync:
            return complete(request, 0);
        case DiskRequest::Kind::kWrite:
        case DiskRequest::Kind::kGrow:
        case DiskRequest::Kind::kPunch:
            write(request);
            return complete(request, request.length_bytes);
        case DiskRequest::Kind::kExtend: {
            File& file = file_of(request.file);
            const std::uint64_t end = request.offset_bytes + request.length_bytes;
            file.size_bytes = std::max(file.size_bytes, end);
            return complete(request, request.length_bytes);
        }
        case DiskRequest::Kind::kCut:
            static_cast<void>(resize(request.file, request.offset_bytes));
            return complete(request, 0);
    }
}

// A hole is a write of zeros.
void DryDisk::write(DiskRequest& request) {
    File& file = file_of(request.file);
    const auto* bytes = static_cast<const std::byte*>(request.buffer);
    for (std::uint32_t at = 0; at < request.length_bytes; at += kPageBytes) {
        auto& page = file.written[(request.offset_bytes + at) / kPageBytes];
        if (!page) page = std::make_unique<Page>();
        if (bytes != nullptr) {
            std::memcpy(page->data(), bytes + at, kPageBytes);
        } else {
            page->fill(std::byte{0});
        }
    }
    file.size_bytes = std::max(file.size_bytes, request.offset_bytes + request.length_bytes);
}

void DryDisk::start_read(DiskRequest& request) {
    const File& file = file_of(request.file);
    if (request.offset_bytes + request.length_bytes > file.size_bytes) {
        return complete(request, -ENODATA);
    }
    auto read = std::make_unique<Read>();
    read->request = &request;
    read->owner = this;
    const std::uint64_t beneath =
        file.below_bytes - std::min(file.below_bytes, request.offset_bytes);
    DiskRequest& from = read->beneath;
    from.file = request.file;
    from.offset_bytes = request.offset_bytes;
    from.length_bytes =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(beneath, request.length_bytes));
    from.buffer = request.buffer;
    from.context = read.get();
    from.completed = [](DiskRequest&, void* context) {
        Read* ended = static_cast<Read*>(context);
        ended->owner->end_read(*ended);
    };
    Read& started = *read;
    reads_.push_back(std::move(read));
    if (from.length_bytes == 0) return end_read(started);
    below_.submit(started.beneath);
}

// What was written lies over what was read.
void DryDisk::end_read(Read& read) {
    DiskRequest& request = *read.request;
    const File& file = file_of(request.file);
    auto* bytes = static_cast<std::byte*>(request.buffer);
    std::int64_t result = read.beneath.result;
    if (result >= 0) {
        std::memset(bytes + result, 0, request.length_bytes - static_cast<std::uint64_t>(result));
        result = request.length_bytes;
    }
    for (std::uint32_t at = 0; result >= 0 && at < request.length_bytes; at += kPageBytes) {
        const auto page = file.written.find((request.offset_bytes + at) / kPageBytes);
        if (page != file.written.end()) {
            std::memcpy(bytes + at, page->second->data(), kPageBytes);
        }
    }
    std::erase_if(reads_, [&](const auto& each) { return each.get() == &read; });
    complete(request, result);
    if (result < 0) unread_.add(io_failure(*this, request).what);
}

void DryDisk::complete(DiskRequest& request, std::int64_t result) {
    request.result = result;
    done_.push_back(&request);
}

int DryDisk::poll(std::uint64_t timeout_ns) {
    below_.poll(done_.empty() ? timeout_ns : 0);
    const std::vector<DiskRequest*> done = std::move(done_);
    done_.clear();
    for (DiskRequest* request : done) request->in_flight = false;
    for (DiskRequest* request : done) request->completed(*request, request->context);
    return static_cast<int>(done.size());
}

}  // namespace bidstore
