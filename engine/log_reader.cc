#include "engine/log_reader.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "engine/page/page.h"
#include "shm/base.h"

namespace bidstore {

namespace {

bool known_type(RecordType type) {
    return type >= RecordType::kPutRow && type <= RecordType::kMoveFloor;
}

std::uint64_t padded_bytes(const BatchHeader& header) {
    return align_up(header.length_bytes, kBlockBytes);
}

bool all_zero(std::span<const std::uint8_t> bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

// The crc of the batch whose (checked) header this is.
std::uint32_t batch_crc(BatchHeader header, const std::byte* batch) {
    header.crc = 0;
    const std::uint32_t crc = crc32c(&header, sizeof header);
    return crc32c(batch + sizeof header, header.length_bytes - sizeof header, crc);
}

}  // namespace

LogReadStart log_read_start(const Superblock& superblock) {
    LogReadStart start;
    start.shape = {superblock.log_segment_bytes, superblock.log_segment_count};
    std::memcpy(start.file_uuid, superblock.file_uuid, sizeof start.file_uuid);
    start.epoch = superblock.epoch;
    start.salt = superblock.salt;
    start.point = {superblock.log_position, superblock.log_crc};
    start.checkpoint_csn = Csn{superblock.checkpoint_csn};
    start.durable_csn = Csn{superblock.durable_csn};
    return start;
}

LogReader::LogReader(Disk& disk, Clock& clock, const LogReadStart& start, Progress progress)
    : disk_(disk),
      clock_(clock),
      start_(start),
      progress_(std::move(progress)),
      io_(disk, clock),
      window_(std::min<std::uint64_t>(kBatchBytesMax, start.shape.segment_bytes)),
      end_(start.point),
      newest_csn_(start.checkpoint_csn) {
    CHECK(start.shape.segment_count > 0);
    CHECK(start.shape.segment_bytes > 0 && start.shape.segment_bytes % kBlockBytes == 0);
    CHECK(start.point.position % kBlockBytes == 0);
}

LogReader::~LogReader() {
    if (io_.stuck()) window_.leak();
}

// Two places: right behind the last batch, or, when the writer found no room there, at the start of
// the next segment.
Result<bool> LogReader::next(LogBatch& batch) {
    CHECK(!finished_);
    const LogShape& shape = start_.shape;
    const std::uint64_t behind = end_.position;
    const std::uint64_t next_segment = shape.segment_start(behind) + shape.segment_bytes;
    for (const std::uint64_t position : {behind, next_segment}) {
        if (position == next_segment && shape.segment_start(behind) == behind) break;
        const Result<std::optional<Found>> found = batch_at(position);
        finished_ = !found.ok();
        if (!found) return found.failure();
        if (!*found || !continues((*found)->header)) continue;
        take(**found, position, batch);
        return true;
    }
    finished_ = true;
    const std::uint64_t waited_ns = waited_ns_;
    const std::uint64_t began_ns = clock_.monotonic_ns();
    if (const Status checked = check_end(); !checked) return checked.failure();
    rest_ns_ = clock_.monotonic_ns() - began_ns;
    waited_ns_ = waited_ns;
    report(shape.limit(start_.point.position));
    return false;
}

void LogReader::take(const Found& found, std::uint64_t position, LogBatch& batch) {
    const BatchHeader& header = found.header;
    end_ = LogPoint{position + padded_bytes(header), header.crc};
    newest_csn_ = Csn{header.csn};
    newest_time_us_ = std::max(newest_time_us_, header.time_us);
    epoch_ = header.epoch;
    salt_ = header.salt;
    batch.csn = newest_csn_;
    batch.durable_csn = Csn{header.durable_csn};
    batch.position = position;
    batch.end = end_;
    batch.epoch = header.epoch;
    batch.time_us = header.time_us;
    batch.record_count = header.record_count;
    batch.records = {found.bytes + sizeof header, header.length_bytes - sizeof header};
}

Result<std::optional<LogReader::Found>> LogReader::batch_at(std::uint64_t position) {
    const std::optional<Found> none;
    if (position + kBlockBytes > start_.shape.limit(start_.point.position)) return none;
    const Result<const std::byte*> block = bytes_at(position, kBlockBytes);
    if (!block) return block.failure();
    Found found{};
    std::memcpy(&found.header, *block, sizeof found.header);
    if (!header_fits(found.header, position)) return none;
    const Result<const std::byte*> whole = bytes_at(position, padded_bytes(found.header));
    if (!whole) return whole.failure();
    found.bytes = *whole;
    if (batch_crc(found.header, found.bytes) != found.header.crc) return none;
    return std::optional<Found>(found);
}

bool LogReader::header_fits(const BatchHeader& header, std::uint64_t position) const {
    if (header.magic != kBatchMagic) return false;
    if (std::memcmp(header.file_uuid, start_.file_uuid, sizeof header.file_uuid) != 0) return false;
    if (header.position != position) return false;  // of an earlier lap, or misplaced
    if (header.length_bytes < sizeof header) return false;
    if (header.length_bytes > kBatchBytesMax) return false;
    if (!all_zero(header.reserved)) return false;
    const LogShape& shape = start_.shape;
    const std::uint64_t end = position + padded_bytes(header);
    return end <= shape.segment_start(position) + shape.segment_bytes &&
           end <= shape.limit(start_.point.position);
}

bool LogReader::continues(const BatchHeader& header) const {
    if (header.previous_crc != end_.previous_crc) return false;
    if (header.csn <= newest_csn_.value) return false;
    if (header.epoch < epoch_) return false;
    if (header.epoch > start_.epoch) return false;  // no such life has begun
    // Each life of the log has one salt.
    if (header.epoch == epoch_ && header.salt != salt_) return false;
    return header.epoch != start_.epoch || header.salt == start_.salt;
}

// Clients write row content and can read everything in a header but the salt: a row that looks like
// a batch must not be able to stop recovery. Lives between the last batch's and the
// superblock's, whose salts nobody knows any more, are covered by the superblock's durable csn:
// each recovery sets it to the newest csn that it kept.
bool LogReader::is_ours(const BatchHeader& header) const {
    if (header.epoch < epoch_) return false;
    return (header.epoch == start_.epoch && header.salt == start_.salt) ||
           (header.epoch == epoch_ && header.salt == salt_);
}

// A torn batch was never called durable. If somebody calls it so, it is not torn but lost.
Status LogReader::check_end() {
    const std::string where = "the log " + disk_.path(StoreFile::kLog) +
                              " has no valid batch after csn " + std::to_string(newest_csn_.value) +
                              " (offset " + std::to_string(start_.shape.offset(end_.position)) +
                              "), but ";
    const std::string remedy =
        ": acknowledged writes are missing; restore a backup, or start from a copy of the files";
    const std::uint64_t limit = start_.shape.limit(start_.point.position);
    for (std::uint64_t position = end_.position; position < limit; position += kBlockBytes) {
        const Result<std::optional<Found>> found = batch_at(position);
        if (!found) return found.failure();
        if (!*found) continue;
        const BatchHeader& header = (*found)->header;
        if (!is_ours(header) || header.durable_csn <= newest_csn_.value) continue;
        return {Error::kCorruption,
                where + "the batch of csn " + std::to_string(header.csn) + " at offset " +
                    std::to_string(start_.shape.offset(position)) + " calls csn " +
                    std::to_string(header.durable_csn) + " durable" + remedy};
    }
    if (newest_csn_ < start_.durable_csn) {
        return {Error::kCorruption, where + "the superblock calls csn " +
                                        std::to_string(start_.durable_csn.value) + " durable" +
                                        remedy};
    }
    return {};
}

// Reads a big piece from `position` on when what is asked for is not there yet. Nobody asks for
// bytes across a segment's end.
Result<const std::byte*> LogReader::bytes_at(std::uint64_t position, std::uint64_t length_bytes) {
    const bool there =
        position >= window_position_ && position + length_bytes <= window_position_ + window_bytes_;
    if (!there) {
        const std::uint64_t offset = start_.shape.offset(position);
        const std::uint64_t length =
            std::min<std::uint64_t>(window_.size_bytes(), start_.shape.ring_bytes() - offset);
        CHECK_OP(length_bytes, <=, length);
        window_bytes_ = 0;
        const std::uint64_t began_ns = clock_.monotonic_ns();
        const Status read = io_.read(StoreFile::kLog, offset, window_.data(), length);
        waited_ns_ += clock_.monotonic_ns() - began_ns;
        if (!read) return read.failure();
        window_position_ = position;
        window_bytes_ = length;
        report(position);
    }
    return static_cast<const std::byte*>(window_.data() + (position - window_position_));
}

void LogReader::report(std::uint64_t position) {
    if (!progress_) return;
    const std::uint64_t limit = start_.shape.limit(start_.point.position);
    const std::uint64_t from = start_.point.position;
    progress_(std::min(position, limit) - from, limit - from);
}

Status RecordReader::corrupt(const char* what) const {
    return {Error::kCorruption, "record " + std::to_string(index_) + " of the batch of csn " +
                                    std::to_string(batch_.csn.value) + " (log position " +
                                    std::to_string(batch_.position) + ") " + what};
}

Result<bool> RecordReader::next(LogRecordView& record) {
    const std::uint64_t left = batch_.records.size() - offset_;
    if (index_ == batch_.record_count) {
        if (left != 0) return corrupt("is one more than the batch counts").failure();
        return false;
    }
    LogRecord header;
    if (left < sizeof header) return corrupt("is cut off").failure();
    const std::byte* const bytes = batch_.records.data() + offset_;
    std::memcpy(&header, bytes, sizeof header);
    const std::uint64_t length =
        sizeof header + std::uint64_t{header.key_bytes} + header.body_bytes;
    if (header.length_bytes != length) return corrupt("has lengths that disagree").failure();
    if (align_up(length, 8) > left) return corrupt("is longer than its batch").failure();
    const std::uint32_t crc = std::exchange(header.crc, 0);
    std::uint32_t computed = crc32c(&header, sizeof header);
    computed = crc32c(bytes + sizeof header, length - sizeof header, computed);
    if (crc != computed) return corrupt("has a wrong CRC").failure();
    if (!known_type(header.type)) {
        return corrupt("is of a type that this version does not know").failure();
    }
    record.type = header.type;
    record.table = TableId{header.table_id};
    record.key = {bytes + sizeof header, header.key_bytes};
    record.body = {bytes + sizeof header + header.key_bytes, header.body_bytes};
    offset_ += align_up(length, 8);
    ++index_;
    return true;
}

}  // namespace bidstore
