#include "engine/wal.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "engine/blocking_io.h"
#include "engine/page/page.h"
#include "shm/base.h"

namespace bidstore {

Wal::Wal(Disk& disk, const WalStart& start, Completed completed, void* context)
    : disk_(disk),
      start_(start),
      completed_(completed),
      context_(context),
      end_(start.end),
      newest_csn_(start.newest_csn),
      newest_time_us_(start.newest_time_us) {
    CHECK(start.shape.segment_count >= 3);
    CHECK(start.shape.segment_bytes % kBlockBytes == 0);
    CHECK(start.end.position % kBlockBytes == 0);
    CHECK(start.batch_bytes_max % kBlockBytes == 0);
    CHECK_OP(start.batch_bytes_max, >=, kBlockBytes);
    CHECK_OP(start.batch_bytes_max, <=, kBatchBytesMax);
    CHECK_OP(start.batch_bytes_max, <=, start.shape.segment_bytes);
    CHECK_OP(start.replay_bytes_max / 4, >=, start.batch_bytes_max);
    static_assert(kBatchBytesMax <= kMaxTransferBytes);
    for (Batch& batch : batches_) batch.buffer = AlignedBuffer(start.batch_bytes_max);
}

Wal::~Wal() {
    // What is in flight is read by the device from these buffers.
    for (Batch& batch : batches_) {
        if (batch.request.in_flight) batch.buffer.leak();
    }
}

std::uint32_t Wal::padded(std::uint32_t bytes) const {
    return static_cast<std::uint32_t>(align_up(bytes, kBlockBytes));
}

std::uint32_t Wal::records_bytes_max() const {
    return start_.batch_bytes_max - static_cast<std::uint32_t>(sizeof(BatchHeader));
}

void Wal::begin() {
    CHECK(open_ == nullptr);
    CHECK(sealed_ == nullptr);
    Batch& batch = batches_[next_];
    CHECK(batch.state == BatchState::kFree);  // three batches, at most two of them in flight
    next_ = (next_ + 1) % kBatches;
    batch.state = BatchState::kOpen;
    batch.bytes = sizeof(BatchHeader);
    batch.record_count = 0;
    open_ = &batch;
}

bool Wal::fits(std::uint32_t record_bytes) const {
    CHECK(open_ != nullptr);
    return record_bytes <= start_.batch_bytes_max - open_->bytes;
}

void Wal::append(RecordType type, TableId table, std::span<const std::byte> key,
                 std::span<const std::byte> body) {
    CHECK(open_ != nullptr);
    CHECK_OP(key.size(), <=, std::numeric_limits<std::uint16_t>::max());
    const std::uint32_t padded_bytes = record_bytes(key.size(), body.size());
    CHECK(fits(padded_bytes));
    LogRecord record{};
    record.length_bytes = static_cast<std::uint32_t>(sizeof record + key.size() + body.size());
    record.type = type;
    record.key_bytes = static_cast<std::uint16_t>(key.size());
    record.table_id = table.value;
    record.body_bytes = static_cast<std::uint32_t>(body.size());

    std::byte* const to = open_->buffer.data() + open_->bytes;
    std::memset(to + padded_bytes - 8, 0, 8);  // the padding lies in here
    if (!key.empty()) std::memcpy(to + sizeof record, key.data(), key.size());
    if (!body.empty()) std::memcpy(to + sizeof record + key.size(), body.data(), body.size());
    std::memcpy(to, &record, sizeof record);
    record.crc = crc32c(to, record.length_bytes);
    std::memcpy(to, &record, sizeof record);
    open_->bytes += padded_bytes;
    ++open_->record_count;
}

Wal::Mark Wal::mark() const {
    CHECK(open_ != nullptr);
    return Mark{open_->bytes, open_->record_count};
}

void Wal::rewind(Mark mark) {
    CHECK(open_ != nullptr);
    CHECK_OP(mark.bytes, >=, sizeof(BatchHeader));
    CHECK_OP(mark.bytes, <=, open_->bytes);
    open_->bytes = mark.bytes;
    open_->record_count = mark.record_count;
}

std::uint32_t Wal::bytes() const { return open_ ? open_->bytes : 0; }

std::uint32_t Wal::record_count() const { return open_ ? open_->record_count : 0; }

bool Wal::room_for(std::uint32_t bytes, std::uint64_t log_position) const {
    CHECK_OP(bytes, <=, start_.batch_bytes_max);
    const std::uint64_t length = padded(bytes);
    const std::uint64_t end = start_.shape.place(end_.position, length) + length;
    return end <= start_.shape.limit(log_position) && end - log_position <= start_.replay_bytes_max;
}

std::uint64_t Wal::used_bytes(std::uint64_t log_position) const {
    CHECK_OP(log_position, <=, end_.position);
    return end_.position - start_.shape.segment_start(log_position);
}

SealedBatch Wal::seal(Csn csn, Csn durable_csn, std::uint64_t time_us) {
    CHECK(open_ != nullptr);
    CHECK_OP(csn.value, >, newest_csn_.value);
    CHECK_OP(durable_csn.value, <, csn.value);
    Batch& batch = *open_;
    const std::uint32_t length = padded(batch.bytes);
    std::memset(batch.buffer.data() + batch.bytes, 0, length - batch.bytes);

    BatchHeader header{};
    header.magic = kBatchMagic;
    std::memcpy(header.file_uuid, start_.file_uuid, sizeof header.file_uuid);
    header.epoch = start_.epoch;
    header.salt = start_.salt;
    header.position = start_.shape.place(end_.position, length);
    header.csn = csn.value;
    header.durable_csn = durable_csn.value;
    header.time_us = std::max(time_us, newest_time_us_);
    header.length_bytes = batch.bytes;
    header.record_count = batch.record_count;
    header.previous_crc = end_.previous_crc;
    std::memcpy(batch.buffer.data(), &header, sizeof header);
    header.crc = crc32c(batch.buffer.data(), batch.bytes);
    std::memcpy(batch.buffer.data(), &header, sizeof header);

    end_ = LogPoint{header.position + length, header.crc};
    newest_csn_ = csn;
    newest_time_us_ = header.time_us;
    batch.sealed =
        SealedBatch{csn, header.position, end_, header.time_us, length, batch.record_count};
    batch.state = BatchState::kSealed;
    sealed_ = &batch;
    open_ = nullptr;
    return batch.sealed;
}

void Wal::write() {
    CHECK(sealed_ != nullptr);
    CHECK(can_write());
    Batch& batch = *sealed_;
    sealed_ = nullptr;
    batch.state = BatchState::kWriting;
    ++in_flight_;
    DiskRequest& request = batch.request;
    request = DiskRequest{};
    request.kind = DiskRequest::Kind::kWrite;
    request.file = StoreFile::kLog;
    request.durable = true;
    request.offset_bytes = start_.shape.offset(batch.sealed.position);
    request.length_bytes = batch.sealed.length_bytes;
    request.buffer = batch.buffer.data();
    request.completed = &Wal::on_written;
    request.context = this;
    disk_.submit(request);
}

void Wal::on_written(DiskRequest& request, void* context) {
    Wal& wal = *static_cast<Wal*>(context);
    for (Batch& batch : wal.batches_) {
        if (&batch.request != &request) continue;
        CHECK(batch.state == BatchState::kWriting);
        batch.state = BatchState::kWritten;
    }
    if (request.result < 0) wal.failed_ = true;  // at once, though its report may have to wait
    wal.report();
}

// Reports from the oldest on, as far as writes are done: a batch whose predecessor is missing would
// not be found again.
void Wal::report() {
    while (batches_[oldest_].state == BatchState::kWritten) {
        Batch& batch = batches_[oldest_];
        oldest_ = (oldest_ + 1) % kBatches;
        if (failure_.ok() && batch.request.result < 0) {
            failure_ = Status(Error::kIoError, "the log failed with csn " +
                                                   std::to_string(batch.sealed.csn.value) + ": " +
                                                   io_failure(disk_, batch.request).what);
        }
        const SealedBatch sealed = batch.sealed;
        batch.state = BatchState::kFree;  // first: the completion may begin the next batch
        --in_flight_;
        completed_(context_, sealed, failure_);
    }
}

}  // namespace bidstore
