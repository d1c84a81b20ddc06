#include "engine/growth.h"

#include <algorithm>

#include "engine/blocking_io.h"

namespace bidstore {

void Growth::set_chunks(std::uint32_t chunks) {
    CHECK(!running());
    chunks_ = chunks;
}

void Growth::start(std::uint32_t to_chunks) {
    CHECK(!running());
    CHECK_OP(to_chunks, >, chunks_);
    if (zeros_.size_bytes() == 0) zeros_ = AlignedBuffer(kPieceBytes);
    target_ = to_chunks;
    zeroed_bytes_ = chunks_ * kChunkBytes;
    status_ = Status();
    result_ = false;
    phase_ = Phase::kZeroing;
    write_piece();
}

// The blocks go in pieces, beside everything else that the device has to do; what is left for the
// cut itself, which stops the thread for its time, is a number.
void Growth::cut(std::uint32_t to_chunks, std::uint64_t file_bytes) {
    CHECK(!running());
    CHECK_OP(to_chunks, <=, chunks_);
    chunks_ = to_chunks;
    end_bytes_ = file_bytes / kPageBytes * kPageBytes;
    status_ = Status();
    result_ = false;
    phase_ = Phase::kPunching;
    punch_piece();
}

void Growth::punch_piece() {
    const std::uint64_t keep_bytes = chunks_ * kChunkBytes;
    const std::uint64_t left = end_bytes_ - std::min(end_bytes_, keep_bytes);
    request_ = DiskRequest{};
    request_.kind = DiskRequest::Kind::kPunch;
    request_.file = StoreFile::kData;
    request_.length_bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(left, kHoleBytes));
    if (request_.length_bytes == 0) {
        status_ = disk_.resize(StoreFile::kData, keep_bytes);
        return finish();
    }
    end_bytes_ -= request_.length_bytes;
    request_.offset_bytes = end_bytes_;
    request_.context = this;
    request_.completed = [](DiskRequest&, void* self) { static_cast<Growth*>(self)->on_punched(); };
    disk_.submit(request_);
}

// Where there are no holes, or punching failed, the cut gives the blocks back, too.
void Growth::on_punched() {
    if (request_.result < 0) end_bytes_ = 0;
    punch_piece();
}

void Growth::write_piece() {
    request_ = DiskRequest{};
    request_.kind = DiskRequest::Kind::kGrow;
    request_.file = StoreFile::kData;
    request_.offset_bytes = zeroed_bytes_;
    request_.length_bytes = kPieceBytes;
    request_.buffer = zeros_.data();
    request_.context = this;
    request_.completed = [](DiskRequest&, void* self) {
        static_cast<Growth*>(self)->on_completed();
    };
    disk_.submit(request_);
}

void Growth::sync() {
    phase_ = Phase::kSyncing;
    request_ = DiskRequest{};
    request_.kind = DiskRequest::Kind::kSync;
    request_.file = StoreFile::kData;
    request_.context = this;
    request_.completed = [](DiskRequest&, void* self) {
        static_cast<Growth*>(self)->on_completed();
    };
    disk_.submit(request_);
}

void Growth::on_completed() {
    if (request_.result < 0) status_ = io_failure(disk_, request_);
    if (phase_ == Phase::kSyncing) {
        // Final whatever it says, "full" too: the kernel tells a lost write to one sync, and it may
        // be a checkpoint's.
        if (request_.result < 0) status_ = Status(Error::kIoError, status_.failure().what);
        if (request_.result >= 0) chunks_ = static_cast<std::uint32_t>(zeroed_bytes_ / kChunkBytes);
        return finish();
    }
    if (request_.result >= 0) zeroed_bytes_ += kPieceBytes;
    const bool more = status_.ok() && zeroed_bytes_ < target_ * kChunkBytes;
    if (more) return write_piece();
    const bool some = zeroed_bytes_ / kChunkBytes > chunks_;
    const bool usable = status_.ok() || status_.error() == Error::kNoSpace;
    return some && usable ? sync() : finish();
}

void Growth::finish() {
    phase_ = Phase::kIdle;
    result_ = true;
}

bool Growth::take_result(Status& status) {
    if (!result_) return false;
    result_ = false;
    status = status_;
    return true;
}

}  // namespace bidstore
