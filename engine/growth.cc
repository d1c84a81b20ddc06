#include "engine/growth.h"

#include <algorithm>
#include <cerrno>

#include "engine/blocking_io.h"

namespace bidstore {

void Growth::set_chunks(std::uint32_t chunks) {
    CHECK(!running());
    chunks_ = chunks;
}

void Growth::begin(Job job) {
    CHECK(idle());
    job_ = job;
    phase_ = Phase::kPieces;
    status_ = Status();
    next_piece();
}

void Growth::start(std::uint32_t to_chunks) {
    CHECK_OP(to_chunks, >, chunks_);
    target_ = to_chunks;
    zeroed_bytes_ = chunks_ * kChunkBytes;
    begin(Job::kGrow);
}

void Growth::extend(std::uint32_t to_chunks) {
    CHECK_OP(to_chunks, >, chunks_);
    target_ = to_chunks;
    zeroed_bytes_ = chunks_ * kChunkBytes;
    extend_bytes_ = kExtendBytes;
    begin(Job::kExtend);
}

// The blocks go in pieces, beside everything else that the device has to do; what is left for the
// cut itself is a number.
void Growth::cut(std::uint32_t to_chunks, std::uint64_t file_bytes) {
    CHECK_OP(to_chunks, <=, chunks_);
    CHECK(!running());
    chunks_ = to_chunks;
    keep_bytes_ = to_chunks * kChunkBytes;
    end_bytes_ = file_bytes / kPageBytes * kPageBytes;
    begin(Job::kCut);
}

void Growth::punch(std::uint64_t from_bytes, std::uint64_t to_bytes) {
    keep_bytes_ = from_bytes;
    end_bytes_ = to_bytes;
    begin(Job::kPunch);
}

void Growth::fill(std::uint64_t from_bytes, std::uint64_t to_bytes) {
    zeroed_bytes_ = from_bytes;
    end_bytes_ = to_bytes;
    begin(Job::kFill);
}

void Growth::next_piece() {
    if (job_ == Job::kGrow || job_ == Job::kFill) return write_piece();
    if (job_ == Job::kExtend) return extend_piece();
    punch_piece();
}

void Growth::punch_piece() {
    const std::uint64_t left = end_bytes_ - std::min(end_bytes_, keep_bytes_);
    const std::uint64_t length = std::min<std::uint64_t>(left, kHoleBytes);
    if (length > 0) {
        end_bytes_ -= length;
        return submit(DiskRequest::Kind::kPunch, end_bytes_, length);
    }
    if (job_ == Job::kPunch) return finish();
    phase_ = Phase::kCutting;
    submit(DiskRequest::Kind::kCut, keep_bytes_, 0);
}

void Growth::write_piece() {
    if (zeros_.size_bytes() == 0) zeros_ = AlignedBuffer(kPieceBytes);
    submit(DiskRequest::Kind::kGrow, zeroed_bytes_,
           std::min<std::uint64_t>(kPieceBytes, end_of_pieces() - zeroed_bytes_));
}

void Growth::extend_piece() {
    submit(DiskRequest::Kind::kExtend, zeroed_bytes_,
           std::min(extend_bytes_, end_of_pieces() - zeroed_bytes_));
}

void Growth::submit(DiskRequest::Kind kind, std::uint64_t offset_bytes,
                    std::uint64_t length_bytes) {
    request_ = DiskRequest{};
    request_.kind = kind;
    request_.file = StoreFile::kData;
    request_.offset_bytes = offset_bytes;
    request_.length_bytes = static_cast<std::uint32_t>(length_bytes);
    if (kind == DiskRequest::Kind::kGrow) request_.buffer = zeros_.data();
    request_.context = this;
    request_.completed = [](DiskRequest&, void* self) {
        static_cast<Growth*>(self)->on_completed();
    };
    disk_.submit(request_);
}

void Growth::on_completed() {
    if (phase_ == Phase::kSyncing) return on_synced();
    if (request_.result < 0) status_ = io_failure(disk_, request_);
    if (phase_ == Phase::kPieces) return on_piece();
    if (!status_.ok()) return finish();
    phase_ = Phase::kSyncing;
    submit(DiskRequest::Kind::kSync, 0, 0);
}

void Growth::on_piece() {
    if (request_.kind == DiskRequest::Kind::kPunch) {
        // Where there are no holes, the cut gives the blocks back, too.
        if (!status_.ok()) end_bytes_ = 0;
        makes_holes_ = makes_holes_ && status_.ok();
        status_ = Status();
        return punch_piece();
    }
    if (status_.ok()) zeroed_bytes_ += request_.length_bytes;
    if (job_ == Job::kExtend) return on_extended();
    if (status_.ok() && zeroed_bytes_ < end_of_pieces()) return write_piece();
    const bool some = job_ == Job::kFill ? status_.ok() : zeroed_bytes_ / kChunkBytes > chunks_;
    const bool usable = status_.ok() || status_.error() == Error::kNoSpace;
    if (!some || !usable) return finish();
    phase_ = Phase::kSyncing;
    submit(DiskRequest::Kind::kSync, 0, 0);
}

// In a file system that is nearly full there may be room for less.
void Growth::on_extended() {
    if (request_.result == -EOPNOTSUPP || request_.result == -ENOSYS) {
        status_ = Status();
        job_ = Job::kGrow;
    } else if (status_.error() == Error::kNoSpace && request_.length_bytes > kChunkBytes) {
        status_ = Status();
        extend_bytes_ = request_.length_bytes / 2 / kChunkBytes * kChunkBytes;
    }
    chunks_ = static_cast<std::uint32_t>(zeroed_bytes_ / kChunkBytes);
    if (!status_.ok() || zeroed_bytes_ >= end_of_pieces()) return finish();
    next_piece();
}

// Final whatever it says, "full" too: the kernel tells a lost write to one sync, and it may be a
// checkpoint's.
void Growth::on_synced() {
    const bool synced = request_.result >= 0;
    if (!synced) status_ = Status(Error::kIoError, io_failure(disk_, request_).what);
    if (synced && job_ == Job::kGrow) {
        chunks_ = static_cast<std::uint32_t>(zeroed_bytes_ / kChunkBytes);
    }
    finish();
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
