#include "engine/blocking_io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "shm/base.h"

namespace bidstore {

namespace {

const char* operation_name(DiskRequest::Kind kind) {
    switch (kind) {
        case DiskRequest::Kind::kRead:
            return "reading ";
        case DiskRequest::Kind::kWrite:
            return "writing ";
        case DiskRequest::Kind::kSync:
            return "syncing ";
        case DiskRequest::Kind::kGrow:
        case DiskRequest::Kind::kExtend:
            return "growing ";
        case DiskRequest::Kind::kPunch:
            return "punching ";
        case DiskRequest::Kind::kCut:
            return "cutting ";
    }
    return "";
}

std::string describe(const Disk& disk, const DiskRequest& request) {
    std::string text = operation_name(request.kind) + disk.path(request.file);
    if (request.kind != DiskRequest::Kind::kSync) {
        text += " at offset " + std::to_string(request.offset_bytes) + " (" +
                std::to_string(request.length_bytes) + " bytes)";
    }
    return text;
}

}  // namespace

Failure io_failure(const Disk& disk, const DiskRequest& request) {
    const int number = static_cast<int>(-request.result);
    // EFBIG of a growth: the process's limit on the size of files, or the file system's.
    const bool grows =
        request.kind == DiskRequest::Kind::kGrow || request.kind == DiskRequest::Kind::kExtend;
    const bool too_big = number == EFBIG && grows;
    const bool full = number == ENOSPC || number == EDQUOT || too_big;
    const std::string reason =
        number == ENODATA ? "the file ends before that" : std::generic_category().message(number);
    return Failure{
        full ? Error::kNoSpace : Error::kIoError,
        describe(disk, request) + ": " + reason + " (errno " + std::to_string(number) + ")"};
}

Failure io_overdue(const Disk& disk, const DiskRequest& request, std::uint64_t deadline_ns) {
    return Failure{Error::kIoError, describe(disk, request) + ": no answer in " +
                                        std::to_string(deadline_ns / 1'000'000) +
                                        " ms; look at the device"};
}

BlockingIo::BlockingIo(Disk& disk, Clock& clock, std::uint64_t deadline_ns)
    : disk_(disk), clock_(clock), deadline_ns_(deadline_ns), request_(new DiskRequest) {}

BlockingIo::~BlockingIo() {
    // The disk still holds a request that never came back, so its memory stays.
    if (!stuck_) return;
    static_cast<void>(request_.release());
    buffer_.leak();
}

Status BlockingIo::read(StoreFile file, std::uint64_t offset_bytes, void* to,
                        std::uint64_t length_bytes) {
    return transfer(DiskRequest::Kind::kRead, file, offset_bytes, static_cast<std::byte*>(to),
                    length_bytes, false);
}

Status BlockingIo::write(StoreFile file, std::uint64_t offset_bytes, const void* from,
                         std::uint64_t length_bytes, bool durable) {
    // One pointer for both directions; a write leaves the bytes untouched.
    auto* bytes = static_cast<std::byte*>(const_cast<void*>(from));
    return transfer(DiskRequest::Kind::kWrite, file, offset_bytes, bytes, length_bytes, durable);
}

Status BlockingIo::sync(StoreFile file) {
    if (stuck_) return run();
    *request_ = DiskRequest{};
    request_->kind = DiskRequest::Kind::kSync;
    request_->file = file;
    return run();
}

Status BlockingIo::transfer(DiskRequest::Kind kind, StoreFile file, std::uint64_t offset_bytes,
                            std::byte* bytes, std::uint64_t length_bytes, bool durable) {
    for (std::uint64_t done = 0; done < length_bytes;) {
        if (stuck_) return run();
        const std::uint64_t part = std::min<std::uint64_t>(length_bytes - done, kMaxTransferBytes);
        if (buffer_.size_bytes() < part) buffer_ = AlignedBuffer(part);
        if (kind == DiskRequest::Kind::kWrite) std::memcpy(buffer_.data(), bytes + done, part);
        *request_ = DiskRequest{};
        request_->kind = kind;
        request_->file = file;
        request_->durable = durable;
        request_->offset_bytes = offset_bytes + done;
        request_->length_bytes = static_cast<std::uint32_t>(part);
        request_->buffer = buffer_.data();
        if (const Status status = run(); !status) return status;
        if (kind == DiskRequest::Kind::kRead) std::memcpy(bytes + done, buffer_.data(), part);
        done += part;
    }
    return {};
}

Status BlockingIo::run() {
    DiskRequest& request = *request_;
    if (stuck_) return io_overdue(disk_, request, deadline_ns_);
    bool done = false;
    request.context = &done;
    request.completed = [](DiskRequest&, void* context) { *static_cast<bool*>(context) = true; };
    const std::uint64_t start_ns = clock_.monotonic_ns();
    disk_.submit(request);
    while (!done) {
        const std::uint64_t waited_ns = clock_.monotonic_ns() - start_ns;
        if (waited_ns >= deadline_ns_) {
            stuck_ = true;
            request.completed = [](DiskRequest&, void*) {};  // `done` is gone by then
            return io_overdue(disk_, request, deadline_ns_);
        }
        disk_.poll(deadline_ns_ - waited_ns);
    }
    if (request.result < 0) return io_failure(disk_, request);
    return {};
}

void drain(Disk& disk, Clock& clock,
           const std::function<void(int level, const std::string& line)>& log) {
    const std::uint64_t begin_ns = clock.monotonic_ns();
    bool said = !log;
    while (disk.in_flight() > 0) {
        disk.poll(1'000'000);
        if (said || clock.monotonic_ns() - begin_ns < BlockingIo::kDeadlineNs) continue;
        said = true;
        log(3, disk.path(StoreFile::kData) + ": the device owes " +
                   std::to_string(disk.in_flight()) +
                   " answers, which are waited for: look at it, or end this process");
    }
}

}  // namespace bidstore
