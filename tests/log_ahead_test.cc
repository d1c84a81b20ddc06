// Reading a log that is longer than what is kept of it in memory: batches that are held while the
// reader goes on, and reads that are under way when something goes wrong.
#include <gtest/gtest.h>

#include <deque>
#include <string>

#include "engine/log_reader.h"
#include "tests/wal_fixture.h"

namespace bidstore {
namespace {

constexpr LogShape kLongShape{14u << 20, 3};  // a ring of 42 MiB

class LongLogTest : public testing::Test {
  protected:
    LongLogTest() {
        SimDiskOptions options;
        options.clock = &clock_;
        disk_ = std::make_unique<SimDisk>(options);
        EXPECT_TRUE(disk_->resize(StoreFile::kLog, kLongShape.ring_bytes()).ok());
        life_ = new_life(kEpoch, kSalt, {}, Csn{10});
        life_.shape = kLongShape;
        life_.batch_bytes_max = kBatchBytesMax;
        Wal wal(
            *disk_, life_, [](void*, const SealedBatch&, const Status&) {}, nullptr);
        for (std::uint64_t csn = 11; csn < 11 + kBatches; ++csn) {
            wal.begin();
            const std::string body = body_of(csn);
            for (std::size_t at = 0; at < body.size(); at += kPartBytes) {
                wal.append(RecordType::kPutRow, TableId{5}, bytes_of("key"),
                           bytes_of(body.substr(at, kPartBytes)));
            }
            sealed_.push_back(wal.seal(Csn{csn}, Csn{csn - 1}, clock_.wall_us()));
            wal.write();
            while (disk_->in_flight() > 0) disk_->poll(1'000'000);
        }
    }
    // Of 1 to 3.5 MiB, none like another.
    static std::string body_of(std::uint64_t csn) {
        std::string body((1 + csn % 6) * (600u << 10) + csn * 7'000, ' ');
        for (std::size_t i = 0; i < body.size(); ++i) {
            body[i] = static_cast<char>('a' + (i / 100 + csn) % 26);
        }
        return body;
    }
    static std::string content_of(const LogBatch& batch) {
        std::string content;
        RecordReader records(batch);
        LogRecordView record;
        while (*records.next(record)) content += text_of(record.body);
        return content;
    }

    static constexpr std::size_t kPartBytes = 30'000;
    static constexpr std::uint64_t kBatches = 15;
    SimClock clock_;
    std::unique_ptr<SimDisk> disk_;
    WalStart life_;
    std::vector<SealedBatch> sealed_;
};

TEST_F(LongLogTest, HeldBatchesStayWholeWhileTheReaderGoesOn) {
    ASSERT_GT(sealed_.back().end.position, std::uint64_t{28} << 20);  // around the window, too
    LogReader reader(*disk_, clock_, read_start(life_));
    std::deque<LogBatch> held;
    std::uint64_t next = 11;
    const auto give_back = [&] {
        EXPECT_EQ(held.front().csn, Csn{next});
        EXPECT_EQ(content_of(held.front()), body_of(next)) << next;
        ++next;
        reader.release(held.front().end.position);
        held.pop_front();
    };
    for (;;) {
        while (!held.empty() &&
               held.back().end.position - held.front().position >= LogReader::kHeldBytesMax) {
            give_back();
        }
        LogBatch batch;
        const Result<bool> more = reader.ahead(batch);
        ASSERT_TRUE(more.ok()) << more.failure().what;
        if (!*more) break;
        held.push_back(batch);
        EXPECT_LE(disk_->in_flight(), 8u);
    }
    while (!held.empty()) give_back();
    EXPECT_EQ(next, 11 + kBatches);
    LogBatch none;
    EXPECT_FALSE(*reader.next(none));
}

TEST_F(LongLogTest, DamageInTheMiddleIsNamedWhenAllBeforeItWasGivenOut) {
    const SealedBatch& damaged = sealed_[8];
    disk_->flip(StoreFile::kLog, kLongShape.offset(damaged.position) + 100'000);
    LogReader reader(*disk_, clock_, read_start(life_));
    LogBatch batch;
    for (std::uint64_t csn = 11; csn < damaged.csn.value; ++csn) {
        ASSERT_TRUE(*reader.ahead(batch));
        EXPECT_EQ(batch.csn, Csn{csn});
        reader.release(batch.end.position);
    }
    EXPECT_FALSE(*reader.ahead(batch));
    const Result<bool> end = reader.next(batch);
    ASSERT_EQ(end.error(), Error::kCorruption);
    const std::string offset = std::to_string(kLongShape.offset(damaged.position));
    EXPECT_NE(end.failure().what.find("offset " + offset), std::string::npos);
}

TEST_F(LongLogTest, UnreadablePieceFailsWhoeverNeedsItAndNobodyBefore) {
    const SealedBatch& bad = sealed_[9];
    disk_->bad_range(StoreFile::kLog, kLongShape.offset(bad.position) + (1u << 20), 1, EIO);
    LogReader reader(*disk_, clock_, read_start(life_));
    LogBatch batch;
    std::uint64_t read = 0;
    Result<bool> more = reader.next(batch);
    for (; more.ok(); more = reader.next(batch)) ++read;
    EXPECT_EQ(more.error(), Error::kIoError);
    EXPECT_GE(read, 8u);
    EXPECT_LE(read, 9u);
}

TEST_F(LongLogTest, ReaderThatIsGivenUpLeavesNoReadBehind) {
    {
        LogReader reader(*disk_, clock_, read_start(life_));
        LogBatch batch;
        ASSERT_TRUE(*reader.next(batch));
        EXPECT_GT(disk_->in_flight(), 0u);  // it reads ahead
    }
    EXPECT_EQ(disk_->in_flight(), 0u);
    {
        LogReader reader(*disk_, clock_, read_start(life_));
        LogBatch batch;
        ASSERT_TRUE(*reader.next(batch));
        disk_->crash_now();
        Result<bool> more = reader.next(batch);
        while (more.ok() && *more) more = reader.next(batch);
        EXPECT_EQ(more.error(), Error::kIoError);
    }
    EXPECT_EQ(disk_->in_flight(), 0u);
}

}  // namespace
}  // namespace bidstore
