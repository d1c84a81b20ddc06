// Reading the log back: what is torn is cut, what is missing is said, what is foreign is ignored.
#include "engine/log_reader.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/wal_fixture.h"

namespace bidstore {
namespace {

// ---- the end of the log

TEST_F(WalTest, TornLastBatchIsCutAtEverySector) {
    put(Csn{11}, "first");
    const SealedBatch last = send(Csn{12}, std::string(9000, 'l'));
    disk_->crash_now();
    drain();
    const std::uint64_t begin = kShape.offset(last.position) / kSectorBytes;
    const std::uint64_t sectors = last.length_bytes / kSectorBytes;
    const std::uint64_t used = (sizeof(BatchHeader) + Wal::record_bytes(3, 9000) + 511) / 512;
    for (std::uint64_t torn = 0; torn < sectors; ++torn) {
        const auto prefix = disk_->power_loss(
            1, [&](StoreFile, std::uint64_t sector) { return sector < begin + torn; });
        const auto hole = disk_->power_loss(
            1, [&](StoreFile, std::uint64_t sector) { return sector != begin + torn; });
        // Behind the last record there is only padding.
        const Csns cut = torn < used ? Csns{11} : Csns{11, 12};
        for (SimDisk* disk : {prefix.get(), hole.get()}) {
            const ReadBack found = read_back(*disk, read_start(life_));
            EXPECT_TRUE(found.status.ok()) << found.status.failure().what;
            EXPECT_EQ(found.csns, cut) << torn;
        }
    }
}

TEST_F(WalTest, LostBatchUnderALaterDurableOneIsCorruption) {
    put(Csn{11}, "a");
    const SealedBatch lost = put(Csn{12}, "b");
    put(Csn{13}, "c");
    const SealedBatch witness = put(Csn{14}, "d");
    wipe(lost);
    const ReadBack found = read();
    EXPECT_EQ(found.csns, Csns{11});
    ASSERT_EQ(found.status.error(), Error::kCorruption);
    const std::string& what = found.status.failure().what;
    EXPECT_NE(what.find("after csn 11"), std::string::npos) << what;
    EXPECT_NE(what.find("offset " + std::to_string(lost.position)), std::string::npos) << what;
    static_cast<void>(witness);
}

TEST_F(WalTest, LastTwoBatchesAreATailThatNobodyCalledDurable) {
    put(Csn{11}, "a");
    const SealedBatch lost = send(Csn{12}, "b");
    send(Csn{13}, "c");  // sealed before 12 was durable
    drain();
    wipe(lost);
    const ReadBack found = read();
    EXPECT_TRUE(found.status.ok()) << found.status.failure().what;
    EXPECT_EQ(found.csns, Csns{11});
}

TEST_F(WalTest, LogThatEndsBeforeTheSuperblocksDurableCsnIsCorruption) {
    put(Csn{11}, "a");
    const SealedBatch lost = put(Csn{12}, "b");
    wipe(lost);
    LogReadStart start = read_start(life_);
    start.durable_csn = Csn{11};
    EXPECT_TRUE(read_back(*disk_, start).status.ok());
    start.durable_csn = Csn{12};
    const ReadBack found = read_back(*disk_, start);
    ASSERT_EQ(found.status.error(), Error::kCorruption);
    EXPECT_NE(found.status.failure().what.find("superblock calls csn 12"), std::string::npos);
}

TEST_F(WalTest, FlippedBitAnywhereInTheLastBatchCutsItAndInOneBeforeIsCorruption) {
    put(Csn{11}, "a");
    const SealedBatch middle = put(Csn{12}, "b");
    put(Csn{13}, "c");
    const SealedBatch last = put(Csn{14}, "d");
    const std::uint32_t length = header_at(last.position).length_bytes;
    for (std::uint32_t byte = 0; byte < length; ++byte) {
        const unsigned bit = byte % 8;
        const auto tail = disk_->clone(1);
        tail->flip(StoreFile::kLog, kShape.offset(last.position) + byte, bit);
        const ReadBack cut = read_back(*tail, read_start(life_));
        EXPECT_TRUE(cut.status.ok()) << byte;
        EXPECT_EQ(cut.csns, (Csns{11, 12, 13})) << byte;
        const auto hole = disk_->clone(1);
        hole->flip(StoreFile::kLog, kShape.offset(middle.position) + byte, bit);
        const ReadBack found = read_back(*hole, read_start(life_));
        EXPECT_EQ(found.csns, Csns{11}) << byte;
        EXPECT_EQ(found.status.error(), Error::kCorruption) << byte;
    }
    disk_->flip(StoreFile::kLog, kShape.offset(last.position) + length);  // padding
    EXPECT_EQ(read().csns, (Csns{11, 12, 13, 14}));
}

TEST_F(WalTest, ReadErrorIsNeverTheEnd) {
    put(Csn{11}, "a");
    const SealedBatch bad = put(Csn{12}, "b");
    disk_->bad_range(StoreFile::kLog, bad.position, 1, EIO);
    const ReadBack found = read();
    EXPECT_EQ(found.status.error(), Error::kIoError);
    disk_->clear_bad_ranges();
    // Also far behind the end, where a later batch might be.
    disk_->bad_range(StoreFile::kLog, 3 * kShape.segment_bytes, 1, EIO);
    EXPECT_EQ(read().status.error(), Error::kIoError);
}

TEST_F(WalTest, ProgressRisesToTheTotal) {
    put(Csn{11}, "a");
    std::uint64_t newest = 0;
    std::uint64_t all = 0;
    const auto progress = [&](std::uint64_t done, std::uint64_t total) {
        EXPECT_LE(done, total);
        newest = done;
        all = total;
    };
    LogReader reader(*disk_, clock_, read_start(life_), progress);
    LogBatch batch;
    EXPECT_TRUE(*reader.next(batch));
    EXPECT_FALSE(*reader.next(batch));
    EXPECT_EQ(newest, all);
    EXPECT_EQ(all, kShape.ring_bytes());
}

// ---- what is no batch of this log, however well its CRC fits

TEST_F(WalTest, BatchOfAnotherFilePlaceLifeOrHistoryIsNoBatch) {
    const SealedBatch first = put(Csn{11}, "a");
    const SealedBatch last = put(Csn{12}, "b");
    const BatchHeader good = header_at(last.position);
    const std::vector<std::function<void(BatchHeader&)>> wrongs = {
        [](BatchHeader& header) { header.magic ^= 1; },
        [](BatchHeader& header) { header.file_uuid[15] ^= 1; },
        [](BatchHeader& header) { header.epoch -= 1; },
        [](BatchHeader& header) { header.epoch += 1; },  // which never began
        [](BatchHeader& header) { header.salt ^= 1; },
        [](BatchHeader& header) { header.position -= kShape.ring_bytes(); },
        [](BatchHeader& header) { header.position += kBlockBytes; },
        [](BatchHeader& header) { header.csn = 11; },
        [](BatchHeader& header) { header.previous_crc ^= 1; },
        [](BatchHeader& header) { header.reserved[7] = 1; },
    };
    for (std::size_t i = 0; i < wrongs.size(); ++i) {
        forge(last.position, last.position, wrongs[i]);
        const ReadBack found = read();
        EXPECT_TRUE(found.status.ok()) << i;
        EXPECT_EQ(found.csns, Csns{11}) << i;
        forge(last.position, last.position, [&](BatchHeader& header) { header = good; });
    }
    EXPECT_EQ(read().csns, (Csns{11, 12}));
    EXPECT_EQ(first.end.position, last.position);
}

// Each life of the log has one salt, also where the superblock is of a later life.
TEST_F(WalTest, BatchWithAnotherSaltThanItsLifesIsNoBatchBeforeALaterLife) {
    put(Csn{11}, "a");
    const SealedBatch last = put(Csn{12}, "b");
    LogReadStart start = read_start(life_);
    start.epoch = kEpoch + 5;  // recoveries that wrote nothing
    start.salt = 0x1234;
    EXPECT_EQ(read_back(*disk_, start).csns, (Csns{11, 12}));
    forge(last.position, last.position, [](BatchHeader& header) { header.salt ^= 1; });
    const ReadBack found = read_back(*disk_, start);
    EXPECT_TRUE(found.status.ok());
    EXPECT_EQ(found.csns, Csns{11});
}

TEST_F(WalTest, FirstBatchWithAnotherSaltThanTheSuperblocksIsNoBatch) {
    const SealedBatch first = put(Csn{11}, "a");
    forge(first.position, first.position, [](BatchHeader& header) { header.salt ^= 1; });
    const ReadBack found = read();
    EXPECT_TRUE(found.status.ok());
    EXPECT_EQ(found.csns, Csns{});
}

TEST_F(WalTest, LengthsThatMakeNoSenseAreNoBatch) {
    const SealedBatch only = put(Csn{11}, "a");
    for (const std::uint32_t length : {0u, 1u, 95u, 65u << 10, 5u << 20, 0xffffffffu}) {
        BatchHeader header = header_at(only.position);
        header.length_bytes = length;
        disk_->poke(StoreFile::kLog, only.position, &header, sizeof header);
        const ReadBack found = read();
        EXPECT_TRUE(found.status.ok()) << length;
        EXPECT_EQ(found.csns, Csns{}) << length;
    }
}

TEST_F(WalTest, LeftOversOfAnEarlierLifeAreIgnored) {
    const SealedBatch kept = put(Csn{11}, "kept");
    const SealedBatch torn = send(Csn{12}, std::string(9000, 't'));
    send(Csn{13}, "left over");
    drain();
    disk_->flip(StoreFile::kLog, torn.position);
    begin_life(new_life(kEpoch + 1, kSalt + 1, kept.end, Csn{1'000'011}));
    durable_ = Csn{11};
    LogReadStart start = read_start(life_);
    start.point = {};
    start.checkpoint_csn = Csn{10};
    EXPECT_EQ(read_back(*disk_, start).csns, Csns{11});
    put(Csn{1'000'012}, "next life");  // shorter than what was torn: its rest and csn 13 stay
    const ReadBack found = read_back(*disk_, start);
    EXPECT_TRUE(found.status.ok()) << found.status.failure().what;
    EXPECT_EQ(found.csns, (Csns{11, 1'000'012}));
    put(Csn{1'000'013}, std::string(5000, 'n'));
    put(Csn{1'000'014}, "covers the left-over");
    EXPECT_EQ(read_back(*disk_, start).csns, (Csns{11, 1'000'012, 1'000'013, 1'000'014}));
}

// A client may write rows that look like batches; only the salt is not known to it.
TEST_F(WalTest, RowThatLooksLikeALaterBatchCannotStopRecovery) {
    const SealedBatch real = put(Csn{11}, "a");
    for (const std::uint64_t epoch : {kEpoch, kEpoch + 1, ~std::uint64_t{0}}) {
        const std::uint64_t place = 2 * kShape.segment_bytes;
        forge(real.position, place, [&](BatchHeader& header) {
            header.position = place;
            header.epoch = epoch;
            header.salt = 0x0bad;
            header.csn = 1u << 30;
            header.durable_csn = 1u << 29;
        });
        const ReadBack found = read();
        EXPECT_TRUE(found.status.ok()) << found.status.failure().what;
        EXPECT_EQ(found.csns, Csns{11});
    }
}

TEST_F(WalTest, WitnessOfTheLastBatchsLifeCountsAlsoWhenTheSuperblockIsOfALaterOne) {
    put(Csn{11}, "a");
    const SealedBatch lost = put(Csn{12}, "b");
    put(Csn{13}, "c");
    wipe(lost);
    LogReadStart start = read_start(life_);
    start.epoch = kEpoch + 5;  // recoveries that wrote nothing
    start.salt = 0x1234;
    EXPECT_EQ(read_back(*disk_, start).status.error(), Error::kCorruption);
}

// ---- records

class RecordTest : public WalTest {
  protected:
    RecordTest() { sealed_ = put(Csn{11}, "body"); }

    // Changes the record, makes all CRCs fit but the record's own where asked, and reads.
    Status read_changed(const std::function<void(LogRecord&)>& change, bool fix_crc = true) {
        const std::uint64_t at = sealed_.position + sizeof(BatchHeader);
        auto bytes = disk_->peek(StoreFile::kLog, at, Wal::record_bytes(3, 4));
        LogRecord record;
        std::memcpy(&record, bytes.data(), sizeof record);
        const std::uint32_t length = record.length_bytes;
        change(record);
        if (fix_crc) {
            record.crc = 0;
            std::memcpy(bytes.data(), &record, sizeof record);
            record.crc = crc32c(bytes.data(), length);
        }
        disk_->poke(StoreFile::kLog, at, &record, sizeof record);
        forge(sealed_.position, sealed_.position, [this](BatchHeader& header) {
            if (record_count_) header.record_count = *record_count_;
        });
        LogReader reader(*disk_, clock_, read_start(life_));
        LogBatch batch;
        const Result<bool> there = reader.next(batch);
        EXPECT_TRUE(there.ok() && *there);
        RecordReader records(batch);
        LogRecordView view;
        while (true) {
            const Result<bool> more = records.next(view);
            if (!more) return more.failure();
            if (!*more) return {};
        }
    }

    SealedBatch sealed_;
    std::optional<std::uint32_t> record_count_;
};

TEST_F(RecordTest, UnchangedRecordIsRead) { EXPECT_TRUE(read_changed([](LogRecord&) {}).ok()); }

TEST_F(RecordTest, RecordThatContradictsItselfIsCorruption) {
    const std::vector<std::function<void(LogRecord&)>> wrongs = {
        [](LogRecord& record) { record.length_bytes += 1; },
        [](LogRecord& record) { record.key_bytes += 1; },
        [](LogRecord& record) { record.body_bytes = 0xffffffff; },
        [](LogRecord& record) { record.body_bytes += 4096, record.length_bytes += 4096; },
        [](LogRecord& record) { record.type = RecordType{0}; },
        [](LogRecord& record) { record.type = RecordType{14}; },
    };
    for (std::size_t i = 0; i < wrongs.size(); ++i) {
        const auto pristine = disk_->clone(1);
        const Status status = read_changed(wrongs[i]);
        EXPECT_EQ(status.error(), Error::kCorruption) << i;
        EXPECT_NE(status.failure().what.find("csn 11"), std::string::npos);
        disk_ = pristine->clone(2);
    }
}

TEST_F(RecordTest, WrongCrcOfARecordIsCorruption) {
    EXPECT_EQ(read_changed([](LogRecord& record) { record.table_id ^= 1; }, false).error(),
              Error::kCorruption);
}

TEST_F(RecordTest, WrongRecordCountIsCorruption) {
    record_count_ = 0;
    EXPECT_EQ(read_changed([](LogRecord&) {}).error(), Error::kCorruption);
    record_count_ = 2;
    EXPECT_EQ(read_changed([](LogRecord&) {}).error(), Error::kCorruption);
}

}  // namespace
}  // namespace bidstore
