// Bytes that are not the bytes written: nonsense in every field of every kind of block, pages that
// went elsewhere or never came, files that are cut, lost or somebody else's. Each is said, by a
// clear error that names the place; what is not touched goes on; never a wrong row.
#include "engine/failed_reads.h"
#include "engine/superblock.h"
#include "tests/corruption_fixture.h"

namespace bidstore {
namespace {

// ---- superblock ---------------------------------------------------------------------------------

TEST_F(CorruptionTest, UntouchedFilesOpen) { expect_whole(made->clone(2), "nothing"); }

TEST_F(CorruptionTest, OneDamagedSuperblockCopyIsMended) {
    for (const Field& field : kSuperblockFields) {
        for (const std::uint32_t copy : {0u, 1u}) {
            auto disk = made->clone(2);
            spoil(*disk, StoreFile::kData, copy * kBlockBytes, field);
            expect_whole(std::move(disk), field.name);
            const Superblock first = superblock_of(*store->disk, 0);
            const Superblock second = superblock_of(*store->disk, 1);
            EXPECT_TRUE(superblock_valid(first));
            EXPECT_EQ(std::memcmp(&first, &second, sizeof first), 0) << field.name;
        }
    }
}

TEST_F(CorruptionTest, TwoDamagedSuperblockCopiesAreSaid) {
    for (const Field& field : kSuperblockFields) {
        auto disk = made->clone(2);
        for (const std::uint32_t copy : {0u, 1u}) {
            spoil(*disk, StoreFile::kData, copy * kBlockBytes, field);
        }
        const std::string path = disk->path(StoreFile::kData);
        expect_refused(std::move(disk), {Error::kCorruption, Error::kNotBidstore}, path,
                       field.name);
    }
}

TEST_F(CorruptionTest, LostSuperblocksAreNoReasonToBeginAnew) {
    auto disk = made->clone(2);
    const Bytes zeros(2 * kBlockBytes);
    disk->poke(StoreFile::kData, 0, zeros.data(), zeros.size());
    const Bytes log = disk->peek(StoreFile::kLog, 0, 1u << 16);
    const std::string path = disk->path(StoreFile::kData);
    expect_refused(std::move(disk), {Error::kCorruption}, path, "both blank");
    EXPECT_EQ(store->disk->peek(StoreFile::kLog, 0, 1u << 16), log);
    EXPECT_EQ(superblock_of(*made).magic, kSuperblockMagic);
}

TEST_F(CorruptionTest, UnreadableSuperblocksAreSaid) {
    // One is written anew, which is what makes a device replace a bad sector.
    for (const std::uint32_t copy : {0u, 1u}) {
        auto one = made->clone(2);
        const std::uint64_t at = copy * std::uint64_t{kBlockBytes};
        const Bytes nonsense(kBlockBytes, std::byte{0x5a});
        one->poke(StoreFile::kData, at, nonsense.data(), nonsense.size());
        one->bad_range(StoreFile::kData, at, kBlockBytes, EIO);
        expect_whole(std::move(one), "one unreadable");
        const Superblock first = superblock_of(*store->disk, 0);
        const Superblock second = superblock_of(*store->disk, 1);
        EXPECT_TRUE(superblock_valid(first));
        EXPECT_EQ(std::memcmp(&first, &second, sizeof first), 0) << copy;
    }
    auto both = made->clone(2);
    both->bad_range(StoreFile::kData, 0, 2 * kBlockBytes, EIO);
    expect_refused(std::move(both), {Error::kIoError, Error::kNotBidstore, Error::kCorruption},
                   made->path(StoreFile::kData), "both unreadable");
}

TEST_F(CorruptionTest, OtherFormatVersionIsSaidAsSuch) {
    auto disk = made->clone(2);
    Superblock superblock = superblock_of(*disk);
    superblock.format_version = kFormatVersion + 1;
    superblock.crc = 0;
    superblock.crc = crc32c(&superblock, sizeof superblock);
    for (const std::uint32_t copy : {0u, 1u}) {
        disk->poke(StoreFile::kData, copy * kBlockBytes, &superblock, sizeof superblock);
    }
    expect_refused(std::move(disk), {Error::kVersionMismatch}, std::to_string(kFormatVersion + 1),
                   "version");
}

TEST_F(CorruptionTest, FilesOfAnotherKindAreLeftAlone) {
    Bytes text(64 * kBlockBytes, static_cast<std::byte>('#'));
    for (const std::uint64_t blocks : {1u, 2u, 64u}) {
        auto disk = std::make_unique<SimDisk>();
        ASSERT_TRUE(disk->resize(StoreFile::kData, blocks * kBlockBytes).ok());
        disk->poke(StoreFile::kData, 0, text.data(), blocks * kBlockBytes);
        const std::string path = disk->path(StoreFile::kData);
        expect_refused(std::move(disk), {Error::kNotBidstore}, path, "a file of text");
        EXPECT_EQ(
            store->disk->peek(StoreFile::kData, 0, blocks * kBlockBytes),
            Bytes(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(blocks * kBlockBytes)));
    }
}

// ---- sizes --------------------------------------------------------------------------------------

TEST_F(CorruptionTest, CutFilesAreSaid) {
    for (const StoreFile file : kFiles) {
        const std::uint64_t size = *made->size_bytes(file);
        for (const std::uint64_t left_bytes :
             {std::uint64_t{0}, std::uint64_t{kBlockBytes}, size / 2, size - kBlockBytes}) {
            auto disk = made->clone(2);
            ASSERT_TRUE(disk->resize(file, left_bytes).ok());
            expect_refused(std::move(disk), {Error::kCorruption}, made->path(file),
                           made->path(file) + " cut to " + std::to_string(left_bytes));
        }
    }
}

TEST_F(CorruptionTest, LongerFilesAreFine) {
    for (const StoreFile file : kFiles) {
        auto disk = made->clone(2);
        ASSERT_TRUE(disk->resize(file, *disk->size_bytes(file) + 5 * kBlockBytes).ok());
        expect_whole(std::move(disk), made->path(file));
    }
}

// ---- pages --------------------------------------------------------------------------------------

TEST_F(CorruptionTest, DamagedTablePageIsSaidToItsReadersAlone) {
    for (const Field& field : kPageFields) {
        for (const PageId page : {pages[1], pages.back()}) {
            auto disk = made->clone(2);
            spoil(*disk, StoreFile::kData, page.value * kPageBytes, field);
            expect_bad_page(std::move(disk), page, field.name);
        }
    }
}

// Leaves of rows of fixed and of variable length, and inner nodes.
TEST_F(CorruptionTest, EverySingleBitCounts) {
    auto fixed = Schema::make(
        "fixed", {{"id", ColumnType::kU64, 0}, {"pad", ColumnType::kFixed, 700}}, 1);
    ASSERT_TRUE(fixed.ok());
    ASSERT_TRUE(open(made->clone(2)).ok());
    SimClient& writer = store->connect();
    const TableId table = store->create_table(writer, *fixed);
    for (std::uint64_t id = 0; id < kRows; ++id) {
        TransactionBytes put;
        put.operation(OperationKind::kPut, table, key_of(id), Bytes(700, std::byte{7}));
        ASSERT_EQ(store->commit(writer, put).error, Error::kOk);
    }
    const std::vector<PageId> fixed_pages = pages_of(*store, table);
    ASSERT_TRUE(store->stop());
    ASSERT_TRUE(open(store->disk->clone(3)).ok());
    SimClient& client = store->connect();
    std::mt19937_64 random(5);
    for (const PageId page : {pages[2], pages.back(), fixed_pages[2], fixed_pages.back()}) {
        for (int i = 0; i < 100; ++i) {
            const std::uint64_t offset = page.value * kPageBytes + random() % kPageBytes;
            const auto bit = static_cast<unsigned>(random() % 8);
            store->disk->flip(StoreFile::kData, offset, bit);
            ASSERT_EQ(request(client, page), Error::kCorruption) << "offset " << offset;
            store->disk->flip(StoreFile::kData, offset, bit);
        }
    }
    expect_rows(client, right);
    // Nothing is remembered of it for long: with the bits back the pages are fine.
    store->clock.advance_ns(200'000'000);
    EXPECT_EQ(request(client, pages[2]), Error::kOk);
    EXPECT_EQ(request(client, fixed_pages[2]), Error::kOk);
}

TEST_F(CorruptionTest, EverySingleBitOfSystemPagesCounts) {
    struct Page {
        PageId id;
        std::string named;
        std::uint64_t bytes = kPageBytes;
    };
    std::mt19937_64 random(6);
    for (const Page& page : {Page{kCatalogRootPage, "catalog"},
                             Page{meta_page(0), "metadata of chunk 0"},
                             Page{directory_page(0), "directory"}}) {
        for (int i = 0; i < 40; ++i) {
            const std::uint64_t at = random() % page.bytes;
            auto disk = made->clone(2);
            disk->flip(StoreFile::kData, page.id.value * kPageBytes + at,
                       static_cast<unsigned>(random() % 8));
            expect_refused(std::move(disk), {Error::kCorruption}, page.named,
                           page.named + ", byte " + std::to_string(at));
        }
    }
    for (int i = 0; i < 40; ++i) {
        const std::uint64_t at = random() % sizeof(Superblock);
        auto one = made->clone(2);
        one->flip(StoreFile::kData, (random() % 2) * kBlockBytes + at);
        expect_whole(std::move(one), "a superblock's byte " + std::to_string(at));
        auto both = made->clone(2);
        both->flip(StoreFile::kData, at);
        both->flip(StoreFile::kData, kBlockBytes + at);
        expect_refused(std::move(both),
                       {Error::kCorruption, Error::kNotBidstore, Error::kVersionMismatch},
                       made->path(StoreFile::kData), "both at byte " + std::to_string(at));
    }
}

TEST_F(CorruptionTest, MisdirectedPageIsNotTakenForTheOneItLiesOn) {
    for (const PageId other : {pages[2], right_pages[1], kCatalogRootPage, PageId{2}}) {
        auto disk = made->clone(2);
        copy_page(*disk, other, pages[1]);
        expect_bad_page(std::move(disk), pages[1], "page " + std::to_string(other.value));
    }
}

TEST_F(CorruptionTest, OldImageOfAPageIsALostWrite) {
    ASSERT_TRUE(open(made->clone(2)).ok());
    SimClient& client = store->connect();
    for (std::uint64_t id = 0; id < kRows; ++id) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, left, key_of(id), row_of(1000));
        ASSERT_EQ(store->commit(client, bytes).error, Error::kOk);
        bytes = TransactionBytes{};
        bytes.operation(OperationKind::kPut, left, key_of(id),
                        row_of(static_cast<std::int64_t>(id)));
        ASSERT_EQ(store->commit(client, bytes).error, Error::kOk);
    }
    ASSERT_TRUE(store->stop());
    auto disk = store->disk->clone(3);
    const Bytes old = made->peek(StoreFile::kData, pages[1].value * kPageBytes, kPageBytes);
    disk->poke(StoreFile::kData, pages[1].value * kPageBytes, old.data(), old.size());
    expect_bad_page(std::move(disk), pages[1], "old image");
}

TEST_F(CorruptionTest, UnreadablePageIsAnIoErrorOfItsReadersAlone) {
    auto disk = made->clone(2);
    disk->bad_range(StoreFile::kData, pages[1].value * kPageBytes, kPageBytes, EIO);
    expect_bad_page(std::move(disk), pages[1], "unreadable", Error::kIoError);
}

// Range deletions and drops walk over many pages; they are refused, or leave the table as it is.
TEST_F(CorruptionTest, RangesOverADamagedPageAreRefused) {
    auto disk = made->clone(2);
    spoil(*disk, StoreFile::kData, pages[3].value * kPageBytes, kPageFields[0]);
    ASSERT_TRUE(open(std::move(disk)).ok());
    SimClient& client = store->connect();
    TransactionBytes range;
    range.operation(OperationKind::kDeleteRange, left, key_of(0), {}, kWantResult);
    EXPECT_EQ(store->commit(client, range).error, Error::kCorruption);
    EXPECT_EQ(look_up(client, left, 0), Error::kOk);
    TransactionBytes drop;
    drop.operation(OperationKind::kDropTable, left, {}, {});
    EXPECT_EQ(store->commit(client, drop).error, Error::kOk);
    store->run_until([] { return false; }, 500);
    EXPECT_LT(store->log_lines.size(), 200u) << "the same page over and over";
    expect_rows(client, right);
    EXPECT_TRUE(store->stop());
}

TEST_F(CorruptionTest, DamagedSessionsAreSaidToWhoeverConnects) {
    auto disk = made->clone(2);
    spoil(*disk, StoreFile::kData, kSessionsRootPage.value * kPageBytes, kPageFields[4]);
    const Status opened = open(std::move(disk));
    if (!opened.ok()) {
        EXPECT_EQ(opened.error(), Error::kCorruption);
        return;
    }
    SimClient& client = store->connect(Rights::kAdmin, session());
    ASSERT_TRUE(store->clients.attach_answers.contains(client.id())) << "never answered";
    EXPECT_EQ(store->clients.attach_answers.at(client.id()).first, Error::kCorruption);
}

// A read error was called damage, and a client with writes under way did not come back for it.
TEST_F(CorruptionTest, AReadErrorOnTheWayToASessionIsToldAsOne) {
    ASSERT_TRUE(open(made->clone(2)).ok());
    ASSERT_TRUE(store->leave_sessions(200, left, key_of(kRows)));
    const Tree& sessions = store->engine->core().storage().catalog->sessions().tree;
    const SessionId id = session();
    const PageId leaf = sessions.get(std::as_bytes(std::span(id.bytes)).data()).leaf;
    ASSERT_NE(leaf, sessions.root());
    ASSERT_TRUE(store->stop());
    const std::unique_ptr<SimDisk> disk = store->disk->clone(3);
    const std::uint64_t at = leaf.value * kPageBytes;
    const auto attach = [&] {
        SimClient& client = store->connect(Rights::kAdmin, session());
        return store->clients.attach_answers.at(client.id()).first;
    };

    auto unreadable = disk->clone(4);
    unreadable->bad_range(StoreFile::kData, at, kPageBytes, EIO);
    ASSERT_TRUE(open(std::move(unreadable)).ok());
    EXPECT_EQ(attach(), Error::kIoError);
    EXPECT_EQ(attach(), Error::kIoError) << "from what the daemon remembers";
    store->disk->clear_bad_ranges();
    store->clock.advance_ns(FailedReads::kRememberedNs);
    EXPECT_EQ(attach(), Error::kOk);

    auto damaged = disk->clone(5);
    spoil(*damaged, StoreFile::kData, at, kPageFields[4]);
    ASSERT_TRUE(open(std::move(damaged)).ok());
    EXPECT_EQ(attach(), Error::kCorruption);
    EXPECT_EQ(attach(), Error::kCorruption) << "from what the daemon remembers";
}

TEST_F(CorruptionTest, DamagedSystemPagesAreSaidAtTheStart) {
    struct Page {
        PageId id;
        std::string named;
    };
    const Page system[] = {{kCatalogRootPage, "catalog"},
                           {meta_page(0), "metadata of chunk 0"},
                           {directory_page(0), "directory"}};
    for (const Page& page : system) {
        for (const Field& field : kPageFields) {
            auto disk = made->clone(2);
            spoil(*disk, StoreFile::kData, page.id.value * kPageBytes, field);
            expect_refused(std::move(disk), {Error::kCorruption}, page.named,
                           page.named + ", " + field.name, kRemedy);
        }
        auto misdirected = made->clone(2);
        copy_page(*misdirected, pages[1], page.id);
        expect_refused(std::move(misdirected), {Error::kCorruption}, page.named, "misdirected");
        auto unreadable = made->clone(2);
        unreadable->bad_range(StoreFile::kData, page.id.value * kPageBytes, kPageBytes, EIO);
        expect_refused(std::move(unreadable), {Error::kIoError}, made->path(StoreFile::kData),
                       "unreadable");
    }
}

TEST_F(CorruptionTest, OldImagesOfSystemPagesAreLostWrites) {
    ASSERT_TRUE(open(made->clone(2)).ok());
    SimClient& client = store->connect();
    store->create_table(client, schema_of("third"));
    ASSERT_TRUE(store->stop());
    auto newer = store->disk->clone(3);
    for (const PageId page : {kCatalogRootPage, meta_page(0), directory_page(0)}) {
        auto disk = newer->clone(4);
        const Bytes old = made->peek(StoreFile::kData, page.value * kPageBytes, kPageBytes);
        disk->poke(StoreFile::kData, page.value * kPageBytes, old.data(), old.size());
        expect_refused(std::move(disk), {Error::kCorruption}, "",
                       "old " + std::to_string(page.value));
    }
    // All of them together are a consistent old state, but not that of the superblock.
    auto disk = newer->clone(4);
    for (std::uint32_t page = 2; page < kChunkPages; ++page) {
        copy_page(*disk, PageId{page}, PageId{page});
        const Bytes old = made->peek(StoreFile::kData, page * kPageBytes, kPageBytes);
        disk->poke(StoreFile::kData, page * kPageBytes, old.data(), old.size());
    }
    expect_refused(std::move(disk), {Error::kCorruption}, "directory", "all old");
}

}  // namespace
}  // namespace bidstore
