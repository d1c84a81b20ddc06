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
      window_bytes_(std::min(kWindowBytes, start.shape.ring_bytes())),
      window_(AlignedBuffer::uninitialized(
          window_bytes_ + std::min<std::uint64_t>(kBatchBytesMax, start.shape.segment_bytes))),
      keep_(start.point.position),
      read_to_(keep_),
      ready_(keep_),
      end_(start.point),
      newest_csn_(start.checkpoint_csn) {
    CHECK(start.shape.segment_count > 0);
    CHECK(start.shape.segment_bytes > 0 && start.shape.segment_bytes % kBlockBytes == 0);
    CHECK(start.point.position % kBlockBytes == 0);
    for (auto& piece : pieces_) piece = std::make_unique<Piece>();
}

LogReader::~LogReader() {
    const std::uint64_t deadline_ns = clock_.monotonic_ns() + BlockingIo::kDeadlineNs;
    const auto in_flight = [this] {
        return std::any_of(pieces_.begin(), pieces_.end(),
                           [](const auto& piece) { return piece->request.in_flight; });
    };
    while (in_flight() && !stuck_) {
        disk_.poll(1'000'000);
        stuck_ = clock_.monotonic_ns() > deadline_ns;
    }
    if (!in_flight()) return;
    // The device may still write there.
    window_.leak();
    for (auto& piece : pieces_) static_cast<void>(piece.release());
}

Result<bool> LogReader::next(LogBatch& batch) {
    release(end_.position);
    const Result<bool> more = ahead(batch);
    if (!more || *more) return more;
    finished_ = true;
    const std::uint64_t waited_ns = waited_ns_;
    const std::uint64_t began_ns = clock_.monotonic_ns();
    if (const Status checked = check_end(); !checked) return checked.failure();
    rest_ns_ = clock_.monotonic_ns() - began_ns;
    waited_ns_ = waited_ns;
    report(start_.shape.limit(start_.point.position));
    return false;
}

// Two places: right behind the last batch, or, when the writer found no room there, at the start of
// the next segment.
Result<bool> LogReader::ahead(LogBatch& batch) {
    CHECK(!finished_);
    const LogShape& shape = start_.shape;
    const std::uint64_t behind = end_.position;
    const std::uint64_t next_segment = shape.segment_start(behind) + shape.segment_bytes;
    // No batch is so long that it would leave more of a segment free.
    const bool may_skip =
        shape.segment_start(behind) != behind && next_segment - behind < kBatchBytesMax;
    for (const std::uint64_t position : {behind, next_segment}) {
        if (position == next_segment && !may_skip) break;
        const Result<std::optional<Found>> found = batch_at(position);
        finished_ = !found.ok();
        if (!found) return found.failure();
        if (!*found || !continues((*found)->header)) continue;
        take(**found, position, batch);
        return true;
    }
    return false;
}

void LogReader::release(std::uint64_t position) { keep_ = std::max(keep_, position); }

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
        release(position);
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

// Nobody asks for bytes before keep_, nor across a segment's end, nor for more than a batch; and
// not further behind the batches held than a batch, which is what the end of a segment may leave
// free.
Result<const std::byte*> LogReader::bytes_at(std::uint64_t position, std::uint64_t length_bytes) {
    CHECK_OP(position, >=, keep_);
    CHECK_OP(position + length_bytes, <=, keep_ + window_bytes_);
    if (position + length_bytes > ready_) {
        if (const Status there = wait_until(position + length_bytes); !there) {
            return there.failure();
        }
        report(position);
    }
    const std::uint64_t at = position % window_bytes_;
    const std::uint64_t to_end = window_bytes_ - at;
    if (length_bytes > to_end) {
        std::memcpy(window_.data() + window_bytes_, window_.data(), length_bytes - to_end);
    }
    return static_cast<const std::byte*>(window_.data() + at);
}

// Sends the read of one piece more; false when there is no room, or nothing to read.
bool LogReader::start_read() {
    const std::uint64_t limit =
        std::min(keep_ + window_bytes_, start_.shape.limit(start_.point.position));
    if (piece_count_ == kPieces || !failure_.ok() || read_to_ >= limit) return false;
    const std::uint64_t offset = start_.shape.offset(read_to_);
    const std::uint64_t at = read_to_ % window_bytes_;
    const std::uint64_t length = std::min(
        {kPieceBytes, limit - read_to_, window_bytes_ - at, start_.shape.ring_bytes() - offset});
    // A short one only where that is all there will be before the next wait.
    if (length < kPieceBytes && piece_count_ > 0 && limit == keep_ + window_bytes_) return false;
    Piece& piece = *pieces_[(oldest_piece_ + piece_count_) % kPieces];
    piece.done = false;
    piece.end = read_to_ + length;
    piece.request = DiskRequest{};
    piece.request.file = StoreFile::kLog;
    piece.request.offset_bytes = offset;
    piece.request.length_bytes = static_cast<std::uint32_t>(length);
    piece.request.buffer = window_.data() + at;
    piece.request.context = &piece;
    piece.request.completed = [](DiskRequest&, void* context) {
        static_cast<Piece*>(context)->done = true;
    };
    ++piece_count_;
    read_to_ = piece.end;
    disk_.submit(piece.request);
    return true;
}

// Until all before `position` is there. What failed behind it is not this caller's failure.
Status LogReader::wait_until(std::uint64_t position) {
    const std::uint64_t began_ns = clock_.monotonic_ns();
    std::uint64_t deadline_ns = began_ns + BlockingIo::kDeadlineNs;
    Status status;
    while (ready_ < position && status.ok()) {
        while (start_read()) {
        }
        if (piece_count_ == 0) {
            status = failure_;
            CHECK(!status.ok());  // there is room for what may be asked for
            break;
        }
        Piece& piece = *pieces_[oldest_piece_];
        if (!piece.done) disk_.poll(deadline_ns - began_ns);
        if (!piece.done && clock_.monotonic_ns() > deadline_ns) {
            stuck_ = true;
            status = {Error::kIoError, "reading " + disk_.path(StoreFile::kLog) + " at offset " +
                                           std::to_string(piece.request.offset_bytes) +
                                           ": no answer in 30 s; look at the device"};
        }
        for (; piece_count_ > 0 && pieces_[oldest_piece_]->done; --piece_count_) {
            const Piece& first = *pieces_[oldest_piece_];
            if (failure_.ok() && first.request.result < 0) {
                failure_ = Status(io_failure(disk_, first.request));
            }
            if (failure_.ok()) ready_ = first.end;
            oldest_piece_ = (oldest_piece_ + 1) % kPieces;
            deadline_ns = clock_.monotonic_ns() + BlockingIo::kDeadlineNs;
        }
    }
    waited_ns_ += clock_.monotonic_ns() - began_ns;
    bool started = false;
    while (start_read()) started = true;
    if (started) disk_.poll(0);  // hands them over
    return status;
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
    if (crcs_ == Crcs::kCheck) {
        const std::uint32_t crc = std::exchange(header.crc, 0);
        std::uint32_t computed = crc32c(&header, sizeof header);
        computed = crc32c(bytes + sizeof header, length - sizeof header, computed);
        if (crc != computed) return corrupt("has a wrong CRC").failure();
    }
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
