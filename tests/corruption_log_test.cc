// Nonsense in journal and log, where recovery is what reads them: a torn tail is cut, a durable
// batch that is missing is said, and no row is ever wrong.
#include <random>

#include "tests/corruption_fixture.h"

namespace bidstore {
namespace {

// ---- journal ------------------------------------------------------------------------------------

// The files as a power loss leaves them between the naming of the journal and its close.
class JournalTest : public CorruptionTest {
  protected:
    void SetUp() override {
        CorruptionTest::SetUp();
        ASSERT_TRUE(open(made->clone(2)).ok());
        SimClient& client = store->connect();
        for (std::uint64_t id = 0; id < kRows; id += 3) {
            put(*store, client, left, id);
            put(*store, client, right, id);
        }
        SimDisk& disk = *store->disk;
        disk.observe([&](std::uint64_t, SimStep) {
            if (superblock_of(disk, 1).journal_pages == 0 || disk.crashed()) return;
            const auto writes_go = [](StoreFile, std::uint64_t) { return false; };
            named = disk.power_loss(3, writes_go);
            disk.crash_now();
        });
        EXPECT_FALSE(store->stop());
        ASSERT_NE(named, nullptr);
        superblock = superblock_of(*named);
        ASSERT_GT(superblock.journal_pages, 3u);
        images = align_up(sizeof(JournalHeader) + superblock.journal_pages * sizeof(JournalEntry),
                          kBlockBytes);
    }
    JournalEntry entry(std::uint32_t index) {
        JournalEntry found{};
        const Bytes bytes = named->peek(StoreFile::kJournal,
                                        sizeof(JournalHeader) + index * sizeof found, sizeof found);
        std::memcpy(&found, bytes.data(), sizeof found);
        return found;
    }
    std::unique_ptr<SimDisk> named;
    Superblock superblock{};
    std::uint64_t images = 0;  // where they begin
};

TEST_F(JournalTest, NamedJournalIsPutInPlace) {
    expect_whole(named->clone(4), "nothing");
    EXPECT_EQ(superblock_of(*store->disk).journal_pages, 0u);
}

TEST_F(JournalTest, DamagedListIsSaid) {
    for (const Field& field : kJournalFields) {
        auto disk = named->clone(4);
        spoil(*disk, StoreFile::kJournal, 0, field);
        expect_refused(std::move(disk), {Error::kCorruption}, named->path(StoreFile::kJournal),
                       field.name);
    }
    auto unreadable = named->clone(4);
    unreadable->bad_range(StoreFile::kJournal, 0, kBlockBytes, EIO);
    expect_refused(std::move(unreadable), {Error::kIoError}, named->path(StoreFile::kJournal),
                   "unreadable");
}

TEST_F(JournalTest, DamagedImageIsSaidUnlessThePageIsInPlace) {
    for (std::uint32_t i = 0; i < superblock.journal_pages; ++i) {
        const JournalEntry listed = entry(i);
        const std::string what = "page " + std::to_string(listed.page_id);
        const std::uint64_t place = std::uint64_t{listed.page_id} * kPageBytes;
        const std::uint64_t image = images + i * kPageBytes;
        const Bytes good = named->peek(StoreFile::kJournal, image, kPageBytes);
        for (const Field& field :
             {kPageFields[0], kPageFields[1], kPageFields[2], kPageFields[16]}) {
            auto disk = named->clone(4);
            spoil(*disk, StoreFile::kJournal, image, field);
            expect_refused(std::move(disk), {Error::kCorruption}, what, what + " " + field.name);
        }
        auto in_place = named->clone(4);
        in_place->poke(StoreFile::kData, place, good.data(), good.size());
        spoil(*in_place, StoreFile::kJournal, image, kPageBytes);
        expect_whole(std::move(in_place), what + " in place");
        auto torn_place = named->clone(4);
        spoil(*torn_place, StoreFile::kData, place, 512);
        expect_whole(std::move(torn_place), what + " torn in its place");
    }
}

TEST_F(JournalTest, EverySingleBitCounts) {
    std::mt19937_64 random(4);
    const std::uint64_t listed =
        sizeof(JournalHeader) + superblock.journal_pages * sizeof(JournalEntry);
    for (int i = 0; i < 60; ++i) {
        const std::uint64_t at =
            i % 2 == 0 ? random() % listed
                       : images + random() % (superblock.journal_pages * kPageBytes);
        auto disk = named->clone(4);
        disk->flip(StoreFile::kJournal, at, static_cast<unsigned>(random() % 8));
        expect_refused(std::move(disk), {Error::kCorruption}, named->path(StoreFile::kJournal),
                       "byte " + std::to_string(at));
    }
}

TEST_F(JournalTest, ExchangedImagesAreSaid) {
    auto disk = named->clone(4);
    const Bytes first = disk->peek(StoreFile::kJournal, images, kPageBytes);
    const Bytes second = disk->peek(StoreFile::kJournal, images + kPageBytes, kPageBytes);
    disk->poke(StoreFile::kJournal, images, second.data(), second.size());
    disk->poke(StoreFile::kJournal, images + kPageBytes, first.data(), first.size());
    expect_refused(std::move(disk), {Error::kCorruption}, named->path(StoreFile::kJournal),
                   "exchanged");
}

TEST_F(JournalTest, JournalThatNobodyNamesIsIgnored) {
    auto disk = made->clone(4);
    const std::uint64_t size = *disk->size_bytes(StoreFile::kJournal);
    spoil(*disk, StoreFile::kJournal, 0, std::min<std::uint64_t>(size, 1u << 20));
    expect_whole(std::move(disk), "unnamed journal");
}

// ---- log ----------------------------------------------------------------------------------------

// A crash with a log of one batch a row of the table left, and the place of each.
class LogTest : public CorruptionTest {
  protected:
    static constexpr std::uint64_t kNew = 12;  // rows kRows, kRows + 1, ...
    struct Batch {
        std::uint64_t offset;
        std::uint64_t length_bytes;
        std::uint64_t csn;
        std::uint64_t durable_csn;
    };
    void SetUp() override {
        CorruptionTest::SetUp();
        ASSERT_TRUE(open(made->clone(2)).ok());
        SimClient& client = store->connect();
        for (std::uint64_t id = kRows; id < kRows + kNew; ++id) put(*store, client, left, id);
        const auto keep = [](StoreFile, std::uint64_t) { return true; };
        crashed = store->disk->power_loss(3, keep);
        const Superblock superblock = superblock_of(*crashed);
        // Exactly the batches of the rows: the newest ones, one after the other.
        std::uint64_t position = superblock.log_position;
        for (;;) {
            BatchHeader header{};
            const std::uint64_t ring = superblock.log_segment_bytes * superblock.log_segment_count;
            const Bytes bytes = crashed->peek(StoreFile::kLog, position % ring, sizeof header);
            std::memcpy(&header, bytes.data(), sizeof header);
            if (header.magic != kBatchMagic || header.position != position) break;
            batches.push_back(
                {position % ring, header.length_bytes, header.csn, header.durable_csn});
            position += align_up(header.length_bytes, kBlockBytes);
        }
        ASSERT_EQ(batches.size(), kNew);
        store.reset();
    }
    // Opens; the rows of the first `kept` batches are there, no others.
    void expect_cut(std::unique_ptr<SimDisk> disk, std::uint64_t kept, const std::string& what) {
        const Status opened = open(std::move(disk));
        ASSERT_TRUE(opened.ok()) << what << ": " << opened.failure().what;
        EXPECT_EQ(store->verify(), "") << what;
        const auto rows = store->rows(left);
        EXPECT_EQ(rows.size(), kRows + kept) << what;
        for (std::uint64_t id = 0; id < kRows + kept; ++id) {
            const auto row = rows.find(key_of(id));
            ASSERT_NE(row, rows.end()) << what;
            EXPECT_EQ(row->second, row_of(static_cast<std::int64_t>(id))) << what;
        }
        SimClient& client = store->connect();
        put(*store, client, left, kRows + kept);
        EXPECT_EQ(store->rows(left).size(), kRows + kept + 1);
    }
    std::unique_ptr<SimDisk> crashed;
    std::vector<Batch> batches;
};

TEST_F(LogTest, WholeLogIsReplayed) { expect_cut(crashed->clone(4), kNew, "nothing"); }

TEST_F(LogTest, DamagedLastBatchIsATornTail) {
    for (const Field& field : kBatchFields) {
        auto disk = crashed->clone(4);
        spoil(*disk, StoreFile::kLog, batches.back().offset, field);
        expect_cut(std::move(disk), kNew - 1, field.name);
    }
}

TEST_F(LogTest, BatchThatALaterOneCallsDurableIsCorruption) {
    for (std::size_t i = 0; i + 1 < batches.size(); i += 3) {
        ASSERT_GE(batches.back().durable_csn, batches[i].csn);
        for (const Field& field : kBatchFields) {
            auto disk = crashed->clone(4);
            spoil(*disk, StoreFile::kLog, batches[i].offset, field);
            expect_refused(std::move(disk), {Error::kCorruption},
                           "offset " + std::to_string(batches[i].offset),
                           std::string(field.name) + " of batch " + std::to_string(i));
        }
    }
}

TEST_F(LogTest, EverySingleBitOfWhatIsCalledDurableCounts) {
    std::mt19937_64 random(4);
    for (int i = 0; i < 60; ++i) {
        const Batch& batch = batches[random() % (kNew - 2)];
        const std::uint64_t at = random() % batch.length_bytes;
        auto disk = crashed->clone(4);
        disk->flip(StoreFile::kLog, batch.offset + at, static_cast<unsigned>(random() % 8));
        expect_refused(std::move(disk), {Error::kCorruption}, crashed->path(StoreFile::kLog),
                       "byte " + std::to_string(at) + " of a batch");
    }
}

TEST_F(LogTest, MissingMisplacedAndOldBatchesAreCorruption) {
    const Bytes zeros(kBlockBytes);
    const std::string path = crashed->path(StoreFile::kLog);
    auto blank = crashed->clone(4);
    blank->poke(StoreFile::kLog, batches[4].offset, zeros.data(), zeros.size());
    expect_refused(std::move(blank), {Error::kCorruption}, path, "blank");
    auto misplaced = crashed->clone(4);
    const Bytes other = misplaced->peek(StoreFile::kLog, batches[2].offset, kBlockBytes);
    misplaced->poke(StoreFile::kLog, batches[4].offset, other.data(), other.size());
    expect_refused(std::move(misplaced), {Error::kCorruption}, path, "misplaced");
}

TEST_F(LogTest, UnreadableLogIsNeverTakenForItsEnd) {
    for (const std::size_t i : {std::size_t{0}, batches.size() / 2, batches.size() - 1}) {
        auto disk = crashed->clone(4);
        disk->bad_range(StoreFile::kLog, batches[i].offset, kBlockBytes, EIO);
        expect_refused(std::move(disk), {Error::kIoError}, crashed->path(StoreFile::kLog),
                       "batch " + std::to_string(i));
    }
}

// The last two of a busy log may be lost together: nothing in the files calls them durable.
TEST_F(LogTest, NothingIsKeptBehindATornBatch) {
    auto disk = crashed->clone(4);
    spoil(*disk, StoreFile::kLog, batches[kNew - 1].offset, kBatchFields[0]);
    spoil(*disk, StoreFile::kLog, batches[kNew - 2].offset, kBatchFields[11]);
    expect_cut(std::move(disk), kNew - 2, "two at the end");
}

TEST_F(LogTest, NonsenseAfterTheEndIsIgnored) {
    std::mt19937_64 random(8);
    for (int round = 0; round < 5; ++round) {
        auto disk = crashed->clone(4);
        Bytes nonsense(8 * kBlockBytes);
        for (std::byte& byte : nonsense) byte = static_cast<std::byte>(random());
        std::memcpy(nonsense.data(), &kBatchMagic, sizeof kBatchMagic);
        const std::uint64_t end =
            batches.back().offset + align_up(batches.back().length_bytes, kBlockBytes);
        disk->poke(StoreFile::kLog, end, nonsense.data(), nonsense.size());
        expect_cut(std::move(disk), kNew, "nonsense behind");
    }
}

// ---- anything anywhere --------------------------------------------------------------------------

// Some blocks of some file become something else: the store does not open, or says so, or is right.
TEST_F(LogTest, NonsenseAnywhereIsNeverAWrongRow) {
    std::uint32_t refused = 0;
    for (std::uint64_t seed = 1; seed <= 80; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::mt19937_64 random(seed);
        auto disk = random() % 2 ? crashed->clone(seed) : made->clone(seed);
        for (std::uint64_t i = 0; i <= random() % 3; ++i) {
            const StoreFile file = kFiles[random() % 2];
            const std::uint64_t near = file == StoreFile::kData ? 60 : 100;
            const std::uint64_t offset = random() % near * kBlockBytes;
            Bytes block =
                disk->peek(kFiles[random() % 2], random() % near * kBlockBytes, kBlockBytes);
            const std::uint64_t way = random() % 4;
            if (way == 0) std::fill(block.begin(), block.end(), std::byte{0});
            if (way == 1) {
                for (std::byte& byte : block) byte = static_cast<std::byte>(random());
            }
            const std::uint64_t from = way == 2 ? 512 * (random() % 8) : 0;
            disk->poke(file, offset + from, block.data(), kBlockBytes - from);
        }
        const Status opened = open(std::move(disk));
        if (!opened.ok()) {
            ++refused;
            EXPECT_TRUE(opened.error() == Error::kCorruption ||
                        opened.error() == Error::kNotBidstore)
                << opened.failure().what;
            continue;
        }
        SimClient& client = store->connect();
        if (store->clients.attach_answers.at(client.id()).first != Error::kOk) continue;
        for (const TableId table : {left, right}) {
            for (std::uint64_t id = 0; id < kRows; ++id) {
                const Error error = look_up(client, table, id);
                EXPECT_TRUE(error == Error::kOk || error == Error::kCorruption)
                    << "row " << id << ": " << error_name(error);
            }
        }
    }
    EXPECT_GT(refused, 5u);
}

}  // namespace
}  // namespace bidstore
