// A log on a simulated disk, written by a Wal and read back: what the tests of both share.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/log_reader.h"
#include "engine/page/page.h"
#include "engine/wal.h"
#include "tests/sim_disk.h"

namespace bidstore {

inline constexpr LogShape kShape{64u << 10, 4};
inline constexpr std::uint64_t kEpoch = 7;
inline constexpr std::uint64_t kSalt = 0x5a17;

inline std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span<const char>(text.data(), text.size()));
}
inline std::string text_of(std::span<const std::byte> bytes) {
    std::string text(bytes.size(), '\0');
    for (std::size_t i = 0; i < bytes.size(); ++i) text[i] = static_cast<char>(bytes[i]);
    return text;
}

struct Reported {
    SealedBatch batch;
    Error error;
};

inline WalStart new_life(std::uint64_t epoch, std::uint64_t salt, LogPoint end, Csn newest) {
    WalStart start;
    start.shape = kShape;
    for (std::uint8_t i = 0; i < 16; ++i) start.file_uuid[i] = i;
    start.epoch = epoch;
    start.salt = salt;
    start.end = end;
    start.newest_csn = newest;
    start.batch_bytes_max = kShape.segment_bytes;
    return start;
}

inline LogReadStart read_start(const WalStart& life) {
    LogReadStart start;
    start.shape = life.shape;
    std::memcpy(start.file_uuid, life.file_uuid, sizeof start.file_uuid);
    start.epoch = life.epoch;
    start.salt = life.salt;
    start.point = life.end;
    start.checkpoint_csn = life.newest_csn;
    return start;
}

// What a reader found: the csns, and how it ended.
struct ReadBack {
    std::vector<std::uint64_t> csns;
    std::vector<std::string> bodies;  // of the first record of each batch, "" if none
    LogPoint end;
    Status status;
};

inline ReadBack read_back(Disk& disk, const LogReadStart& start) {
    SimClock clock;
    LogReader reader(disk, clock, start);
    ReadBack found;
    LogBatch batch;
    while (true) {
        const Result<bool> more = reader.next(batch);
        if (!more) found.status = more.failure();
        if (!more || !*more) break;
        found.csns.push_back(batch.csn.value);
        found.bodies.emplace_back();
        RecordReader records(batch);
        LogRecordView record;
        for (bool first = true;; first = false) {
            const Result<bool> another = records.next(record);
            EXPECT_TRUE(another.ok()) << another.failure().what;
            if (!another || !*another) break;
            if (first) found.bodies.back() = text_of(record.body);
        }
    }
    found.end = reader.end();
    return found;
}

using Csns = std::vector<std::uint64_t>;

class WalTest : public testing::Test {
  protected:
    explicit WalTest(std::uint64_t seed = 1) {
        SimDiskOptions options;
        options.seed = seed;
        options.clock = &clock_;
        disk_ = std::make_unique<SimDisk>(options);
        EXPECT_TRUE(disk_->resize(StoreFile::kLog, kShape.ring_bytes()).ok());
        begin_life(new_life(kEpoch, kSalt, {}, Csn{10}));
    }

    void begin_life(const WalStart& life) {
        life_ = life;
        wal_ = std::make_unique<Wal>(*disk_, life, &WalTest::on_completed, this);
    }
    static void on_completed(void* context, const SealedBatch& batch, const Status& status) {
        WalTest& self = *static_cast<WalTest*>(context);
        self.reported_.push_back({batch, status.error()});
        if (status.ok()) self.durable_ = batch.csn;
    }

    // A batch with one record of so many bytes (none for an empty body), not waited for.
    SealedBatch send(Csn csn, const std::string& body = "") {
        wal_->begin();
        if (!body.empty()) {
            wal_->append(RecordType::kPutRow, TableId{5}, bytes_of("key"), bytes_of(body));
        }
        const SealedBatch batch = wal_->seal(csn, durable_, clock_.wall_us());
        wal_->write();
        return batch;
    }
    void drain() {
        while (disk_->in_flight() > 0) disk_->poll(1'000'000);
    }
    SealedBatch put(Csn csn, const std::string& body = "") {
        const SealedBatch batch = send(csn, body);
        drain();
        return batch;
    }
    ReadBack read() { return read_back(*disk_, read_start(life_)); }

    BatchHeader header_at(std::uint64_t position) const {
        BatchHeader header;
        const auto bytes = disk_->peek(StoreFile::kLog, kShape.offset(position), sizeof header);
        std::memcpy(&header, bytes.data(), sizeof header);
        return header;
    }
    // Changes the header of the batch at `from` and writes it to `to` with a CRC that fits.
    void forge(std::uint64_t from, std::uint64_t to,
               const std::function<void(BatchHeader&)>& change) {
        BatchHeader header = header_at(from);
        const std::uint32_t length = header.length_bytes;
        auto bytes = disk_->peek(StoreFile::kLog, kShape.offset(from), length);
        change(header);
        header.crc = 0;
        std::memcpy(bytes.data(), &header, sizeof header);
        header.crc = crc32c(bytes.data(), length);
        std::memcpy(bytes.data(), &header, sizeof header);
        disk_->poke(StoreFile::kLog, kShape.offset(to), bytes.data(), bytes.size());
    }
    void wipe(const SealedBatch& batch) {
        const std::vector<std::byte> zeros(batch.length_bytes);
        disk_->poke(StoreFile::kLog, kShape.offset(batch.position), zeros.data(), zeros.size());
    }

    SimClock clock_;
    std::unique_ptr<SimDisk> disk_;
    std::unique_ptr<Wal> wal_;
    WalStart life_;
    std::vector<Reported> reported_;
    Csn durable_{10};
};

}  // namespace bidstore
