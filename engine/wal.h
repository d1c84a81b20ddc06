// The log: batches of records, one durable write each, in a ring of fixed segments.
//
//   position   bytes since the log began; never wraps. Its place in the file is position modulo the
//              ring. A batch starts on a block and never crosses a segment's end.
//
//   |.... segment 0 ....|.... segment 1 ....|.... segment 2 ....|     ring of 3
//          [batch][batch]  [batch][b]   ^ end: the next batch goes here, or to the next segment's
//          ^ superblock's log_position    start when it would cross
//
// Life of a batch:  begin ─► append, append, ... ─► seal ─► write ─► Completed, in log order
//                                                           two at most; a third fills
//
// Who:    the engine thread alone. Completions run inside Disk::poll().
// Order:  a batch is reported when it and all before it are durable. A failure is final: that batch
//         and all behind it are reported failed, and nothing is written any more.
// Bounds: the caller asks room_for() before it logs; the log itself never decides to wait.
// Crash:  engine/FORMAT.md says what may be in the file at each moment, and log_reader.h reads it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/aligned_buffer.h"
#include "engine/disk.h"
#include "engine/format.h"
#include "shm/error.h"

namespace bidstore {

// No batch is longer, padding included; the reader takes a longer one for garbage.
inline constexpr std::uint32_t kBatchBytesMax = 4u << 20;

// The ring, as the superblock has it.
struct LogShape {
    std::uint64_t segment_bytes = 0;
    std::uint32_t segment_count = 0;

    constexpr std::uint64_t ring_bytes() const { return segment_bytes * segment_count; }
    constexpr std::uint64_t offset(std::uint64_t position) const {
        return position % ring_bytes();
    }
    constexpr std::uint64_t segment_start(std::uint64_t position) const {
        return position / segment_bytes * segment_bytes;
    }
    // Where a batch of length_bytes (whole blocks) starts when the one before it ended at `end`.
    constexpr std::uint64_t place(std::uint64_t end, std::uint64_t length_bytes) const {
        const std::uint64_t next_segment = segment_start(end) + segment_bytes;
        return end + length_bytes <= next_segment ? end : next_segment;
    }
    // The first position that may not be written while the superblock starts the log at
    // log_position: one ring behind the start of its segment.
    constexpr std::uint64_t limit(std::uint64_t log_position) const {
        return segment_start(log_position) + ring_bytes();
    }
};

// Where a batch ends: what a checkpoint at its csn puts into the superblock.
struct LogPoint {
    std::uint64_t position = 0;
    std::uint32_t previous_crc = 0;  // crc of the batch that ends here; 0 for an empty log
};

// What a life of the log starts from. Epoch and salt are durable in both superblock copies before
// the first batch is written.
struct WalStart {
    LogShape shape;
    std::uint8_t file_uuid[16] = {};
    std::uint64_t epoch = 0;
    std::uint64_t salt = 0;
    LogPoint end;                    // behind the last batch kept
    Csn newest_csn;                  // every csn sealed here is above it
    std::uint64_t newest_time_us = 0;
    // The longest batch, padding included: whole blocks, at most a segment and kBatchBytesMax.
    std::uint32_t batch_bytes_max = 1u << 20;
    // No more log than that lies behind the superblock's log_position; four batches at least.
    std::uint64_t replay_bytes_max = ~std::uint64_t{0};
};

struct SealedBatch {
    Csn csn;
    std::uint64_t position = 0;      // where it starts
    LogPoint end;
    std::uint64_t time_us = 0;
    std::uint32_t length_bytes = 0;  // padding included
    std::uint32_t record_count = 0;
};

class Wal {
  public:
    // `status` is not ok: the log has failed for good (kIoError naming file, offset and errno).
    using Completed = void (*)(void* context, const SealedBatch& batch, const Status& status);

    Wal(Disk& disk, const WalStart& start, Completed completed, void* context);
    ~Wal();  // nothing is in flight, or the disk is destroyed first
    Wal(const Wal&) = delete;
    Wal& operator=(const Wal&) = delete;

    // ---- filling

    // Bytes that a record takes in a batch.
    static constexpr std::uint32_t record_bytes(std::size_t key_bytes, std::size_t body_bytes) {
        return static_cast<std::uint32_t>(align_up(sizeof(LogRecord) + key_bytes + body_bytes, 8));
    }
    // The longest run of records (a sum of record_bytes) that a batch takes.
    std::uint32_t records_bytes_max() const;

    std::uint32_t batch_bytes_max() const { return start_.batch_bytes_max; }

    // Opens the next batch; nothing is open, and nothing is sealed that write() did not take.
    void begin();
    bool is_open() const { return open_ != nullptr; }
    // Whether the open batch takes record_bytes more.
    bool fits(std::uint32_t record_bytes) const;
    // Adds a record, which fits().
    void append(RecordType type, TableId table, std::span<const std::byte> key,
                std::span<const std::byte> body);
    // A place to return to when a transaction is refused half-way.
    struct Mark {
        std::uint32_t bytes = 0;
        std::uint32_t record_count = 0;
    };
    Mark mark() const;
    void rewind(Mark mark);
    std::uint32_t bytes() const;         // of the open batch, header included
    std::uint32_t record_count() const;  // of the open batch

    // ---- writing

    // Whether a batch of so many bytes (header included, padding not) may be written without
    // touching what recovery from log_position needs, and without giving it too much to replay.
    // Where it goes depends on the end, so the
    // answer holds until the next seal().
    bool room_for(std::uint32_t bytes, std::uint64_t log_position) const;
    // Bytes of log that a restart would go through if the superblock starts the log there.
    std::uint64_t replay_bytes(std::uint64_t log_position) const {
        return end_.position - log_position;
    }
    // Bytes of ring that cannot be reused while the superblock starts the log at log_position.
    std::uint64_t used_bytes(std::uint64_t log_position) const;

    // Closes the open batch (an empty one is legal) and gives it its place. There is room_for() it.
    // durable_csn: the newest csn that Completed reported. A time below the last one's is raised.
    SealedBatch seal(Csn csn, Csn durable_csn, std::uint64_t time_us);
    bool can_write() const { return !failed_ && in_flight_ < kWritesMax; }
    // Sends the sealed batch: one durable write; can_write().
    void write();

    std::uint32_t writes_in_flight() const { return in_flight_; }
    bool failed() const { return failed_; }

    // Behind the newest sealed batch.
    LogPoint end() const { return end_; }
    Csn newest_csn() const { return newest_csn_; }
    const LogShape& shape() const { return start_.shape; }

  private:
    static constexpr std::uint32_t kWritesMax = 2;
    static constexpr std::uint32_t kBatches = kWritesMax + 1;  // and one that fills

    enum class BatchState : std::uint8_t {
        kFree,     // begin() takes it
        kOpen,     // append() fills it; seal() next
        kSealed,   // has its place and its crc; write() next
        kWriting,  // in flight; the disk reads its bytes
        kWritten,  // done, but one before it is not
    };
    struct Batch {
        BatchState state = BatchState::kFree;
        AlignedBuffer buffer;
        std::uint32_t bytes = 0;
        std::uint32_t record_count = 0;
        SealedBatch sealed;
        DiskRequest request;
    };

    static void on_written(DiskRequest& request, void* context);
    void report();
    std::uint32_t padded(std::uint32_t bytes) const;

    Disk& disk_;
    const WalStart start_;
    const Completed completed_;
    void* const context_;

    LogPoint end_;
    Csn newest_csn_;
    std::uint64_t newest_time_us_;

    std::array<Batch, kBatches> batches_;  // used in turn, so their order is the log's
    std::uint32_t next_ = 0;    // begin() takes this one
    std::uint32_t oldest_ = 0;  // the oldest that is not reported
    Batch* open_ = nullptr;
    Batch* sealed_ = nullptr;
    std::uint32_t in_flight_ = 0;  // written or writing, not reported
    bool failed_ = false;  // a write failed
    Status failure_;       // and its turn to be reported has come
};

}  // namespace bidstore
