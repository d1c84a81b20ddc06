// Reads the log back: recovery, verify, tests. What counts as a batch, where the log ends, and when
// its end is corruption, are decided here and nowhere else.
//
// It reads ahead: some large reads are under way while batches are looked at.
//
// Who:    before a Wal writes to the file; one reader reads once, from front to end.
// Bounds: kWindowBytes of the log in memory, and a batch more.
// Errors: kCorruption (naming offset and csn) when a durable batch is missing; kIoError when a read
//         failed, which is never taken for the end of the log. After either the reader is finished.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/clock.h"
#include "engine/disk.h"
#include "engine/format.h"
#include "engine/wal.h"
#include "shm/error.h"

namespace bidstore {

// What the superblock says about the log.
struct LogReadStart {
    LogShape shape;
    std::uint8_t file_uuid[16] = {};
    std::uint64_t epoch = 0;
    std::uint64_t salt = 0;
    LogPoint point;      // log_position, log_crc
    Csn checkpoint_csn;  // batches are above it
    Csn durable_csn;     // the log must reach it
};
LogReadStart log_read_start(const Superblock& superblock);

struct LogBatch {
    Csn csn;
    Csn durable_csn;
    std::uint64_t position = 0;
    LogPoint end;
    std::uint64_t epoch = 0;
    std::uint64_t time_us = 0;
    std::uint32_t record_count = 0;
    std::span<const std::byte> records;  // valid until the reader has it back
};

class LogReader {
  public:
    // Called now and then with the bytes of ring looked at so far and all that there are.
    using Progress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

    LogReader(Disk& disk, Clock& clock, const LogReadStart& start, Progress progress = {});
    ~LogReader();
    LogReader(const LogReader&) = delete;
    LogReader& operator=(const LogReader&) = delete;

    // The next batch; those before it are given back. False: the log ends here, the rest of the
    // ring was looked at, and nothing durable is missing.
    Result<bool> next(LogBatch& batch);

    // The same for who looks at batches ahead of using them: those before it stay in memory until
    // release(). False says nothing: release all, and ask next(). The batches held, from the first
    // one's start to the last one's end, are less than kHeldBytesMax before each call.
    Result<bool> ahead(LogBatch& batch);
    static constexpr std::uint64_t kHeldBytesMax = 8u << 20;
    // Batches that begin before `position` are not looked at any more.
    void release(std::uint64_t position);

    // Behind the last batch given out, and its csn (checkpoint_csn if none) and time (0 if none).
    LogPoint end() const { return end_; }
    Csn newest_csn() const { return newest_csn_; }
    std::uint64_t newest_time_us() const { return newest_time_us_; }

    // Time spent waiting for reads so far, and what was needed to look through the rest of the
    // ring.
    std::uint64_t waited_ns() const { return waited_ns_; }
    std::uint64_t rest_ns() const { return rest_ns_; }

  private:
    struct Found {
        BatchHeader header;
        const std::byte* bytes;
    };
    // The batch at `position` when all that a batch says about itself fits, or nothing.
    Result<std::optional<Found>> batch_at(std::uint64_t position);
    bool header_fits(const BatchHeader& header, std::uint64_t position) const;
    bool continues(const BatchHeader& header) const;
    // Whether the batch was sealed in a life of this log whose salt is known.
    bool is_ours(const BatchHeader& header) const;
    void take(const Found& found, std::uint64_t position, LogBatch& batch);
    Status check_end();
    Result<const std::byte*> bytes_at(std::uint64_t position, std::uint64_t length_bytes);
    bool start_read();
    Status wait_until(std::uint64_t position);
    void report(std::uint64_t position);

    // The window: the log from keep_ on, position modulo its size, as far as it was read. Behind it
    // is room for the rest of a batch that goes over its end.
    //
    //   keep_          ready                      read_to_        keep_ + window
    //     |  held, read  |  pieces under way, in order  |  to be read   |
    static constexpr std::uint64_t kWindowBytes = 24u << 20;
    static constexpr std::uint64_t kPieceBytes = 1u << 20;
    static constexpr std::uint32_t kPieces = 8;
    static_assert(kWindowBytes >= kHeldBytesMax + 3 * kBatchBytesMax);  // see bytes_at()
    struct Piece {
        DiskRequest request;
        std::uint64_t end = 0;  // position
        bool done = false;
    };

    Disk& disk_;
    Clock& clock_;
    const LogReadStart start_;
    const Progress progress_;
    const std::uint64_t window_bytes_;
    AlignedBuffer window_;
    std::uint64_t keep_;
    std::uint64_t read_to_;
    std::array<std::unique_ptr<Piece>, kPieces> pieces_;  // used in turn
    std::uint32_t oldest_piece_ = 0;
    std::uint32_t piece_count_ = 0;  // not taken in yet
    std::uint64_t ready_;
    Status failure_;  // of what follows ready_
    bool stuck_ = false;

    LogPoint end_;
    Csn newest_csn_;
    std::uint64_t newest_time_us_ = 0;
    std::uint64_t epoch_ = 0;  // of the last batch given out
    std::uint64_t salt_ = 0;
    bool finished_ = false;
    std::uint64_t waited_ns_ = 0;
    std::uint64_t rest_ns_ = 0;
};

struct LogRecordView {
    RecordType type = RecordType::kPutRow;
    TableId table;
    std::span<const std::byte> key;
    std::span<const std::byte> body;
};

// The records of a batch, one after another. The batch's CRC fitted, so a record that does not fit
// was written wrong: kCorruption, naming csn and record.
class RecordReader {
  public:
    // The batch's CRC covers its records, too: theirs are for who has a record without its batch.
    enum class Crcs : std::uint8_t { kCheck, kCovered };
    explicit RecordReader(const LogBatch& batch, Crcs crcs = Crcs::kCheck)
        : batch_(batch), crcs_(crcs) {}

    // False: that was the last one, and nothing is left over.
    Result<bool> next(LogRecordView& record);

  private:
    Status corrupt(const char* what) const;

    const LogBatch batch_;
    const Crcs crcs_;
    std::uint64_t offset_ = 0;
    std::uint32_t index_ = 0;
};

}  // namespace bidstore
