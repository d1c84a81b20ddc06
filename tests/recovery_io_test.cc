// What recovery does many at a time: the journal's images to their places, the metadata of chunks.
#include "engine/recovery_io.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/planted_superblock.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr TableId kRows{16};
constexpr std::uint32_t kRowCount = 5'000;
constexpr std::uint32_t kRowsOfTwoLeaves = 26;
using Rows = std::map<std::vector<std::byte>, std::vector<std::byte>>;

Schema rows_schema() {
    return *Schema::make(
        "rows",
        {{"id", ColumnType::kU32, 0}, {"n", ColumnType::kI64, 0}, {"t", ColumnType::kText, 0}}, 1);
}

std::vector<std::byte> key_of(std::uint64_t id) {
    std::vector<std::byte> key(4);
    encode_key_integer(key.data(), id, 4, false);
    return key;
}

void put(TransactionBytes& bytes, std::uint32_t id, std::size_t length, char content) {
    const std::string text(length, content);
    const Schema schema = rows_schema();
    RowBuilder row(schema);
    EXPECT_TRUE(row.set_bytes(2, std::as_bytes(std::span(text.data(), text.size()))).ok());
    bytes.operation(OperationKind::kPut, kRows, key_of(id), *row.value());
}

SimStoreOptions quiet_store() {
    SimStoreOptions options = small_store();
    options.engine.checkpoint_interval_ns = 3'600'000'000'000;
    return options;
}

// A crash when the superblock names a journal of which nothing is in place: of leaves that are not
// neighbours, more of them than a piece of the journal has pages.
std::unique_ptr<SimDisk> named_journal(Rows& expected) {
    SimStoreOptions options = quiet_store();
    options.engine.checkpoint_slice = 1;
    auto disk = std::make_unique<SimDisk>();
    {
        SimStore store(options, std::move(disk), 1);
        EXPECT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        EXPECT_EQ(store.create_table(client, rows_schema()), kRows);
        for (std::uint32_t first = 0; first < kRowCount; first += 50) {
            TransactionBytes bytes;
            for (std::uint32_t id = first; id < first + 50; ++id) put(bytes, id, 270, 'a');
            EXPECT_EQ(store.commit(client, bytes).error, Error::kOk);
        }
        EXPECT_TRUE(store.stop());
        disk = store.disk->clone(2);
    }
    SimStore store(options, std::move(disk), 3);
    EXPECT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    for (std::uint32_t first = 0; first < kRowCount; first += 50 * kRowsOfTwoLeaves) {
        TransactionBytes bytes;
        for (std::uint32_t i = 0; i < 50 && first + i * kRowsOfTwoLeaves < kRowCount; ++i) {
            put(bytes, first + i * kRowsOfTwoLeaves, 270, 'b');
        }
        EXPECT_EQ(store.commit(client, bytes).error, Error::kOk);
    }
    expected = store.rows(kRows);
    store.clock.advance_ns(options.engine.checkpoint_interval_ns);
    const Checkpointer& checkpointer = *store.engine->core().storage().checkpointer;
    EXPECT_TRUE(store.run_until([&] { return checkpointer.recipe_step() == 4; }));
    const auto synced_alone = [](StoreFile, std::uint64_t) { return false; };
    return store.disk->power_loss(3, synced_alone);
}

struct Image {
    std::uint64_t at = 0;     // in the journal
    std::uint64_t place = 0;  // in the data file
};

Image image_of(const SimDisk& disk, std::uint32_t index) {
    JournalEntry entry{};
    const auto list =
        disk.peek(StoreFile::kJournal, sizeof(JournalHeader) + index * sizeof entry, sizeof entry);
    std::memcpy(&entry, list.data(), sizeof entry);
    const std::uint64_t blocks = journal_header_blocks(superblock_on(disk, 0).journal_pages);
    return {(blocks + index) * kPageBytes, entry.page_id * kPageBytes};
}

bool in_place(const SimDisk& disk, const Image& image) {
    return disk.peek(StoreFile::kJournal, image.at, kPageBytes) ==
           disk.peek(StoreFile::kData, image.place, kPageBytes);
}

TEST(RecoveryIo, ImagesOfTheJournalGoToTheirPlacesManyAtATime) {
    Rows expected;
    SimStore store(quiet_store(), named_journal(expected), 5);
    const std::uint32_t images = superblock_on(*store.disk, 0).journal_pages;
    ASSERT_GT(images, 180u);
    std::uint32_t reads = 0;
    std::uint32_t most = 0;  // writes
    store.disk->observe([&](std::uint64_t, SimStep kind) {
        const DiskRequest* request = store.disk->submitting();
        if (request == nullptr) return;
        if (kind == SimStep::kSubmitRead && request->file == StoreFile::kJournal) ++reads;
        if (kind == SimStep::kSubmitWrite && request->file == StoreFile::kData) {
            most = std::max(most, store.disk->in_flight() + 1);
        }
    });
    const Status opened = store.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    EXPECT_EQ(store.engine->recovery().journal_pages, images);
    EXPECT_LE(reads, 2 + images / 256);  // the list, and the pieces
    EXPECT_GE(most, 32u);
    EXPECT_EQ(store.rows(kRows), expected);
    EXPECT_EQ(store.verify(), "");
}

// Each image is there, or the place has it: whatever of the writes a crash left.
TEST(RecoveryIo, CutOffWhileImagesGoToTheirPlacesItIsDoneAgain) {
    Rows expected;
    auto disk = named_journal(expected);
    std::vector<std::uint64_t> steps;
    {
        SimStore whole(quiet_store(), disk->clone(1), 5);
        const std::uint32_t images = superblock_on(*whole.disk, 0).journal_pages;
        whole.disk->observe([&](std::uint64_t step, SimStep) {
            const std::uint64_t named = superblock_on(*whole.disk, 0).journal_pages;
            if (named == images && step % 40 == 0) steps.push_back(step);
        });
        ASSERT_TRUE(whole.open().ok());
    }
    ASSERT_GT(steps.size(), 5u);
    for (const std::uint64_t step : steps) {
        SCOPED_TRACE("crash at step " + std::to_string(step));
        SimStore cut(quiet_store(), disk->clone(1), 5);
        cut.disk->crash_at(step);
        ASSERT_FALSE(cut.open().ok());
        for (const bool power : {false, true}) {
            SimStore store(quiet_store(),
                           power ? cut.disk->power_loss(step) : cut.disk->process_crash(step), 7);
            const Status opened = store.open();
            ASSERT_TRUE(opened.ok()) << opened.failure().what;
            ASSERT_EQ(store.rows(kRows), expected);
        }
    }
}

// One block of it fails every read that it is in, and there are others in that read.
TEST(RecoveryIo, APieceThatCannotBeReadIsReadPageByPage) {
    Rows expected;
    auto disk = named_journal(expected);
    std::uint32_t index = 0;
    while (in_place(*disk, image_of(*disk, index))) ++index;
    const Image image = image_of(*disk, index);
    for (const bool whole : {false, true}) {
        SimStore store(quiet_store(), disk->clone(1), 5);
        if (whole) {
            const auto bytes = disk->peek(StoreFile::kJournal, image.at, kPageBytes);
            store.disk->poke(StoreFile::kData, image.place, bytes.data(), bytes.size());
        }
        store.disk->bad_range(StoreFile::kJournal, image.at, kPageBytes, EIO);
        const Status opened = store.open();
        ASSERT_EQ(opened.ok(), whole);
        EXPECT_EQ(store.disk->in_flight(), 0u);
        if (whole) {
            EXPECT_EQ(store.rows(kRows), expected);
            continue;
        }
        EXPECT_EQ(opened.error(), Error::kIoError);
        const std::string where = "at offset " + std::to_string(image.at) + " (4096 bytes)";
        EXPECT_NE(opened.failure().what.find(where), std::string::npos) << opened.failure().what;
    }
}

// Nothing follows a write that failed, and the files are as a crash leaves them.
TEST(RecoveryIo, AFailedWriteOfAnImageIsTheEnd) {
    Rows expected;
    auto disk = named_journal(expected);
    const Image image = image_of(*disk, 3);
    SimStore store(quiet_store(), disk->clone(1), 5);
    bool failed = false;
    std::uint32_t later = 0;
    store.disk->observe([&](std::uint64_t step, SimStep kind) {
        const DiskRequest* request = store.disk->submitting();
        if (kind == SimStep::kSubmitSync && failed) ++later;
        if (kind != SimStep::kSubmitWrite || request->file != StoreFile::kData) return;
        if (request->offset_bytes == image.place) {
            store.disk->fail_at(step, EIO);
            failed = true;
        }
        later += request->offset_bytes < kSuperblockCopies * kPageBytes && failed;
    });
    const Status opened = store.open();
    ASSERT_TRUE(failed);
    EXPECT_EQ(opened.error(), Error::kIoError);
    const std::string where = "at offset " + std::to_string(image.place);
    EXPECT_NE(opened.failure().what.find(where), std::string::npos) << opened.failure().what;
    EXPECT_EQ(later, 0u);
    EXPECT_EQ(store.disk->in_flight(), 0u);
    SimStore again(quiet_store(), store.disk->process_crash(2), 7);
    ASSERT_TRUE(again.open().ok());
    EXPECT_EQ(again.rows(kRows), expected);
}

// Writes that are under way together have no order.
TEST(RecoveryIo, AJournalThatNamesAPageTwiceIsRefused) {
    Rows expected;
    auto disk = named_journal(expected);
    const std::uint32_t images = superblock_on(*disk, 0).journal_pages;
    const std::uint32_t outside = superblock_on(*disk, 0).chunk_count * kChunkPages;
    for (const bool twice : {true, false}) {
        auto planted = disk->clone(1);
        const std::uint64_t list_bytes = sizeof(JournalHeader) + images * sizeof(JournalEntry);
        auto list = planted->peek(StoreFile::kJournal, 0, list_bytes);
        std::byte* const entries = list.data() + sizeof(JournalHeader);
        if (twice) std::memcpy(entries + 7 * sizeof(JournalEntry), entries, sizeof(JournalEntry));
        if (!twice) std::memcpy(entries, &outside, sizeof outside);
        JournalHeader header{};
        std::memcpy(&header, list.data(), sizeof header);
        header.list_crc = 0;
        std::memcpy(list.data(), &header, sizeof header);
        header.list_crc = crc32c(list.data(), list.size());
        std::memcpy(list.data(), &header, sizeof header);
        planted->poke(StoreFile::kJournal, 0, list.data(), list.size());
        for (std::uint64_t copy = 0; copy < kSuperblockCopies; ++copy) {
            Superblock superblock = superblock_on(*planted, copy);
            superblock.journal_list_crc = header.list_crc;
            seal_superblock(superblock);
            planted->poke(StoreFile::kData, copy * kBlockBytes, &superblock, sizeof superblock);
        }
        SimStore store(quiet_store(), std::move(planted), 5);
        const Status opened = store.open();
        EXPECT_EQ(opened.error(), Error::kCorruption);
        const std::string why =
            twice ? "its list names a page twice" : "its list names a page that the file does not";
        EXPECT_NE(opened.failure().what.find(why), std::string::npos) << opened.failure().what;
    }
}

TEST(RecoveryIo, MetadataOfChunksComeManyAtATime) {
    SimStoreOptions options = quiet_store();
    options.pages = 128 * kChunkPages;
    options.frames = 8'192;
    options.engine.log_segment_bytes = 4u << 20;
    std::unique_ptr<SimDisk> disk;
    {
        SimStore store(options, std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store.open().ok());
        SimClient& client = store.connect(Rights::kAdmin, std::nullopt, 64, 16u << 20);
        ASSERT_EQ(store.create_table(client, rows_schema()), kRows);
        for (std::uint32_t id = 0; id < 84; ++id) {
            TransactionBytes bytes;
            put(bytes, id, 1'000'000, 'a');
            ASSERT_EQ(store.commit(client, bytes).error, Error::kOk);
        }
        ASSERT_TRUE(store.stop());
        disk = store.disk->clone(2);
    }
    ASSERT_GT(superblock_on(*disk, 0).chunk_count, 40u);
    SimStore store(options, std::move(disk), 3);
    std::uint32_t most = 0;
    store.disk->observe([&](std::uint64_t, SimStep kind) {
        const DiskRequest* request = store.disk->submitting();
        if (kind != SimStep::kSubmitRead || request->file != StoreFile::kData) return;
        most = std::max(most, store.disk->in_flight() + 1);
    });
    ASSERT_TRUE(store.open().ok());
    EXPECT_GE(most, 32u);
    EXPECT_EQ(store.verify(), "");
}

// ---- a device that does not answer

TEST(RecoveryIo, ReadsAndWritesThatAreNotAnsweredHaveADeadline) {
    // For good: the disk knows of the memory that it was left, so the leak checker does.
    static SimClock& clock = *new SimClock;
    SimDiskOptions options;
    options.clock = &clock;
    static SimDisk& disk = *new SimDisk(options);
    ASSERT_TRUE(disk.resize(StoreFile::kData, 64 * kPageBytes).ok());
    disk.hold_back(StoreFile::kData);
    {
        PieceReader reader(disk, clock,
                           {.file = StoreFile::kData,
                            .count = 3,
                            .at_once = 2,
                            .bytes_max = kPageBytes,
                            .at = [](std::uint64_t i) {
                                return PieceReader::Piece{(9 + i) * kPageBytes, 4096};
                            }});
        const auto read = reader.next();
        EXPECT_EQ(read.error(), Error::kIoError);
        EXPECT_NE(read.failure().what.find("at offset 36864 (4096 bytes): no answer in 30000 ms"),
                  std::string::npos)
            << read.failure().what;
        EXPECT_TRUE(reader.stuck());
        EXPECT_EQ(reader.next().error(), Error::kIoError);

        PlaceWriter writer(disk, clock);
        const std::vector<std::byte> page(kPageBytes, std::byte{1});
        EXPECT_TRUE(writer.put(PageId{7}, page.data()).ok());
        const Status written = writer.finish();
        EXPECT_EQ(written.error(), Error::kIoError);
        EXPECT_NE(
            written.failure().what.find("at offset 28672 (4096 bytes): no answer in 30000 ms"),
            std::string::npos)
            << written.failure().what;
        EXPECT_TRUE(writer.stuck());
    }
}

}  // namespace
}  // namespace bidstore
