// The log: order of reports, places in the ring, failures, and a power cut at every step.
#include "engine/wal.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/wal_fixture.h"

namespace bidstore {
namespace {

TEST_F(WalTest, RecordsAreReadBackAsTheyWereAppended) {
    wal_->begin();
    const std::string row(5000, 'r');
    wal_->append(RecordType::kPutRow, TableId{3}, bytes_of("key"), bytes_of(row));
    wal_->append(RecordType::kDeleteRow, TableId{4}, bytes_of("gone"), {});
    wal_->append(RecordType::kDropTable, TableId{9}, {}, {});
    const SealedBatch sealed = wal_->seal(Csn{12}, Csn{10}, 1234);
    wal_->write();
    drain();
    EXPECT_EQ(sealed.length_bytes, 8192u);
    EXPECT_EQ(sealed.record_count, 3u);

    LogReader reader(*disk_, clock_, read_start(life_));
    LogBatch batch;
    ASSERT_TRUE(*reader.next(batch));
    EXPECT_EQ(batch.csn, Csn{12});
    EXPECT_EQ(batch.durable_csn, Csn{10});
    EXPECT_EQ(batch.time_us, 1234u);
    EXPECT_EQ(batch.epoch, kEpoch);
    EXPECT_EQ(batch.position, sealed.position);
    EXPECT_EQ(batch.end.position, sealed.end.position);
    EXPECT_EQ(batch.end.previous_crc, sealed.end.previous_crc);
    RecordReader records(batch);
    LogRecordView record;
    ASSERT_TRUE(*records.next(record));
    EXPECT_EQ(record.type, RecordType::kPutRow);
    EXPECT_EQ(record.table, TableId{3});
    EXPECT_EQ(text_of(record.key), "key");
    EXPECT_EQ(text_of(record.body), row);
    ASSERT_TRUE(*records.next(record));
    EXPECT_EQ(record.type, RecordType::kDeleteRow);
    EXPECT_EQ(text_of(record.key), "gone");
    EXPECT_TRUE(record.body.empty());
    ASSERT_TRUE(*records.next(record));
    EXPECT_EQ(record.type, RecordType::kDropTable);
    EXPECT_FALSE(*records.next(record));
    EXPECT_FALSE(*reader.next(batch));
    EXPECT_EQ(reader.newest_csn(), Csn{12});
    EXPECT_EQ(reader.newest_time_us(), 1234u);
}

TEST_F(WalTest, EmptyLogAndEmptyBatchAreLegal) {
    EXPECT_EQ(read().csns, Csns{});
    EXPECT_TRUE(read().status.ok());
    put(Csn{11});
    EXPECT_EQ(read().csns, Csns{11});
}

TEST_F(WalTest, RewindTakesARefusedTransactionBack) {
    wal_->begin();
    wal_->append(RecordType::kPutRow, TableId{1}, bytes_of("a"), bytes_of("kept"));
    const Wal::Mark mark = wal_->mark();
    wal_->append(RecordType::kPutRow, TableId{1}, bytes_of("b"), bytes_of("refused"));
    wal_->rewind(mark);
    EXPECT_EQ(wal_->record_count(), 1u);
    wal_->seal(Csn{11}, Csn{10}, 0);
    wal_->write();
    drain();
    EXPECT_EQ(read().bodies, std::vector<std::string>{"kept"});
}

TEST_F(WalTest, TimeNeverFalls) {
    clock_.set_wall_us(2000);
    EXPECT_EQ(put(Csn{11}).time_us, 2000u);
    clock_.set_wall_us(1000);
    EXPECT_EQ(put(Csn{12}).time_us, 2000u);
}

TEST_F(WalTest, BatchThatWouldCrossASegmentStartsInTheNext) {
    const SealedBatch first = put(Csn{11}, std::string(40u << 10, 'a'));
    const SealedBatch second = put(Csn{12}, std::string(40u << 10, 'b'));
    EXPECT_EQ(second.position, kShape.segment_bytes);
    EXPECT_LT(first.end.position, second.position);
    EXPECT_EQ(read().csns, (Csns{11, 12}));
}

TEST_F(WalTest, BatchMayFillASegmentExactly) {
    wal_->begin();
    const std::size_t body = wal_->records_bytes_max() - sizeof(LogRecord);
    EXPECT_TRUE(wal_->fits(Wal::record_bytes(0, body)));
    EXPECT_FALSE(wal_->fits(Wal::record_bytes(0, body + 1)));
    wal_->append(RecordType::kPutRow, TableId{1}, {}, bytes_of(std::string(body, 'f')));
    EXPECT_FALSE(wal_->fits(8));
    const SealedBatch full = wal_->seal(Csn{11}, Csn{10}, 0);
    wal_->write();
    drain();
    EXPECT_EQ(full.length_bytes, kShape.segment_bytes);
    EXPECT_EQ(put(Csn{12}).position, kShape.segment_bytes);
    EXPECT_EQ(read().csns, (Csns{11, 12}));
}

TEST_F(WalTest, RoomEndsOneRingBehindTheSegmentOfTheLogPosition) {
    const std::uint32_t most = 60u << 10;
    std::uint64_t csn = 11;
    while (wal_->room_for(most, 0)) put(Csn{csn++}, std::string(most - 256, 'x'));
    EXPECT_EQ(wal_->end().position, 4 * kShape.segment_bytes - 4096);
    EXPECT_TRUE(wal_->room_for(4096, 0));
    EXPECT_FALSE(wal_->room_for(4097, 0));
    // A log position inside the first segment keeps all of that segment.
    EXPECT_FALSE(wal_->room_for(most, kShape.segment_bytes - 4096));
    EXPECT_TRUE(wal_->room_for(most, kShape.segment_bytes));
    EXPECT_EQ(wal_->used_bytes(kShape.segment_bytes + 4096), 3 * kShape.segment_bytes - 4096);
}

TEST_F(WalTest, RingIsReusedLapAfterLap) {
    LogReadStart start = read_start(life_);
    std::vector<SealedBatch> kept;
    for (std::uint64_t csn = 11; csn < 400; ++csn) {
        const std::string body(1 + csn * 97 % 9000, static_cast<char>('a' + csn % 26));
        kept.push_back(send(Csn{csn}, body));
        drain();
        // The superblock moves on only now and then, and never further than needed.
        while (!wal_->room_for(16u << 10, start.point.position)) {
            start.point = kept.front().end;
            start.checkpoint_csn = kept.front().csn;
            kept.erase(kept.begin());
        }
        if (csn % 16 != 0) continue;
        const ReadBack found = read_back(*disk_, start);
        ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
        ASSERT_EQ(found.csns.size(), kept.size());
        EXPECT_EQ(found.csns.back(), csn);
        EXPECT_EQ(found.end.position, wal_->end().position);
    }
    EXPECT_GT(wal_->end().position, 5 * kShape.ring_bytes());
}

TEST_F(WalTest, BatchIsReportedAfterAllBeforeIt) {
    for (std::uint64_t csn = 11; csn < 60; ++csn) {
        while (!wal_->can_write()) disk_->poll(1'000'000);
        send(Csn{csn}, "x");
    }
    drain();
    ASSERT_EQ(reported_.size(), 49u);
    for (std::size_t i = 0; i < reported_.size(); ++i) {
        EXPECT_EQ(reported_[i].batch.csn.value, 11 + i);
        EXPECT_EQ(reported_[i].error, Error::kOk);
    }
}

TEST_F(WalTest, ThirdBatchFillsWhileTwoAreInFlight) {
    send(Csn{11}, "a");
    send(Csn{12}, "b");
    EXPECT_FALSE(wal_->can_write());
    wal_->begin();
    wal_->append(RecordType::kPutRow, TableId{1}, {}, bytes_of("c"));
    drain();
    EXPECT_TRUE(wal_->can_write());
    wal_->seal(Csn{13}, Csn{12}, 0);
    wal_->write();
    drain();
    EXPECT_EQ(read().bodies, (std::vector<std::string>{"a", "b", "c"}));
}

TEST_F(WalTest, FailedWriteIsFinalForItAndAllBehind) {
    put(Csn{11}, "good");
    disk_->fail_at(disk_->steps() + 1, EIO);
    send(Csn{12}, "bad");
    send(Csn{13}, "behind");
    drain();
    ASSERT_EQ(reported_.size(), 3u);
    EXPECT_EQ(reported_[0].error, Error::kOk);
    EXPECT_EQ(reported_[1].error, Error::kIoError);
    EXPECT_EQ(reported_[2].error, Error::kIoError);
    EXPECT_TRUE(wal_->failed());
    EXPECT_FALSE(wal_->can_write());
}

TEST_F(WalTest, FailureOfTheSecondLeavesTheFirstDurable) {
    send(Csn{11}, "good");
    disk_->fail_at(disk_->steps() + 1, ENOSPC);
    send(Csn{12}, "bad");
    drain();
    ASSERT_EQ(reported_.size(), 2u);
    EXPECT_EQ(reported_[0].error, Error::kOk);
    EXPECT_EQ(reported_[1].error, Error::kIoError);
    EXPECT_EQ(durable_, Csn{11});
}

// ---- a power cut at every step

class WalCrashTest : public WalTest, public testing::WithParamInterface<std::uint64_t> {
  protected:
    WalCrashTest() : WalTest(GetParam()) {}

    static std::string body(std::uint64_t csn) {
        return std::string(1 + csn * 7919 % 20'000, static_cast<char>('a' + csn % 26));
    }
    // Writes with two in flight until the crash or the end. Returns how many were sent.
    std::uint64_t work(std::uint64_t count) {
        std::uint64_t sent = 0;
        while (sent < count && !wal_->failed()) {
            if (wal_->can_write()) {
                const std::uint64_t csn = 11 + sent++;
                send(Csn{csn}, body(csn));
            }
            disk_->poll(0);
        }
        drain();
        return sent;
    }
};

TEST_P(WalCrashTest, EveryReportedBatchIsThereAndNothingElse) {
    const auto pristine = disk_->clone(GetParam());
    work(12);
    const std::uint64_t steps = disk_->steps();
    for (std::uint64_t crash = 1; crash <= steps; ++crash) {
        disk_ = pristine->clone(GetParam());
        disk_->crash_at(crash);
        durable_ = Csn{10};
        begin_life(life_);
        const std::uint64_t sent = work(12);
        for (std::uint64_t outcome = 0; outcome < 8; ++outcome) {
            const auto after = outcome < 7 ? disk_->power_loss(outcome)
                                           : disk_->process_crash(outcome);
            LogReadStart start = read_start(life_);
            start.durable_csn = durable_;
            const ReadBack found = read_back(*after, start);
            ASSERT_TRUE(found.status.ok()) << found.status.failure().what;
            const std::size_t kept = found.csns.size();
            EXPECT_GE(kept + 10, durable_.value);
            EXPECT_LE(kept, sent);
            for (std::size_t i = 0; i < kept; ++i) {
                ASSERT_EQ(found.csns[i], 11 + i);
                ASSERT_EQ(found.bodies[i], body(11 + i));
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, WalCrashTest, testing::Range<std::uint64_t>(1, 7));

}  // namespace
}  // namespace bidstore
