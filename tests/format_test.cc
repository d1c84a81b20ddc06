// The on-disk format, field by field and as bytes, against tests/golden/format.txt: a change of the
// format is a visible difference in review. BIDSTORE_UPDATE_GOLDEN=1 writes the file anew; then
// bump kFormatVersion when old files mean something else now, and bring engine/FORMAT.md up to
// date.
#include "engine/format.h"

#include <gtest/gtest.h>

#include <cstring>
#include <iomanip>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "engine/wal.h"
#include "tests/golden_dump.h"
#include "tests/sim_disk.h"

namespace bidstore {
namespace {

struct Struct {
    std::string name;
    std::size_t size;
    std::vector<Field> fields;
};

std::vector<Struct> data_structs() {
    return {
        {"PageHeader",
         sizeof(PageHeader),
         {FIELD(PageHeader, csn), FIELD(PageHeader, page_id), FIELD(PageHeader, crc),
          FIELD(PageHeader, file_uuid), FIELD(PageHeader, count), FIELD(PageHeader, free_offset),
          FIELD(PageHeader, type), FIELD(PageHeader, level), FIELD(PageHeader, live_bytes),
          FIELD(PageHeader, table_id), FIELD(PageHeader, time_shift), FIELD(PageHeader, reserved0),
          FIELD(PageHeader, time_min), FIELD(PageHeader, time_max), FIELD(PageHeader, floor)}},
        {"Superblock",
         sizeof(Superblock),
         {FIELD(Superblock, magic),
          FIELD(Superblock, format_version),
          FIELD(Superblock, crc),
          FIELD(Superblock, sequence),
          FIELD(Superblock, file_uuid),
          FIELD(Superblock, epoch),
          FIELD(Superblock, salt),
          FIELD(Superblock, checkpoint_csn),
          FIELD(Superblock, log_position),
          FIELD(Superblock, durable_csn),
          FIELD(Superblock, log_crc),
          FIELD(Superblock, chunk_count),
          FIELD(Superblock, directory_crc),
          FIELD(Superblock, catalog_root),
          FIELD(Superblock, log_segment_bytes),
          FIELD(Superblock, log_segment_count),
          FIELD(Superblock, journal_pages),
          FIELD(Superblock, journal_number),
          FIELD(Superblock, journal_list_crc),
          FIELD(Superblock, reserved0),
          FIELD(Superblock, journal_bytes),
          FIELD(Superblock, newest_time_us),
          FIELD(Superblock, reserved)}},
        {"ChunkMeta",
         sizeof(ChunkMeta),
         {FIELD(ChunkMeta, used), FIELD(ChunkMeta, page_crc), FIELD(ChunkMeta, newest),
          FIELD(ChunkMeta, newest_age), FIELD(ChunkMeta, extent_owner), FIELD(ChunkMeta, extent),
          FIELD(ChunkMeta, reserved)}},
        {"DirectoryEntry",
         sizeof(DirectoryEntry),
         {FIELD(DirectoryEntry, meta_crc), FIELD(DirectoryEntry, free_count),
          FIELD(DirectoryEntry, newest_time)}},
        {"DirectoryPage",
         sizeof(DirectoryPage),
         {FIELD(DirectoryPage, entry), FIELD(DirectoryPage, reserved)}},
    };
}

std::vector<Struct> log_structs() {
    return {
        {"JournalHeader",
         sizeof(JournalHeader),
         {FIELD(JournalHeader, magic), FIELD(JournalHeader, number),
          FIELD(JournalHeader, file_uuid), FIELD(JournalHeader, checkpoint_csn),
          FIELD(JournalHeader, page_count), FIELD(JournalHeader, list_crc)}},
        {"JournalEntry",
         sizeof(JournalEntry),
         {FIELD(JournalEntry, page_id), FIELD(JournalEntry, page_crc)}},
        {"BatchHeader",
         sizeof(BatchHeader),
         {FIELD(BatchHeader, magic), FIELD(BatchHeader, file_uuid), FIELD(BatchHeader, epoch),
          FIELD(BatchHeader, salt), FIELD(BatchHeader, position), FIELD(BatchHeader, csn),
          FIELD(BatchHeader, durable_csn), FIELD(BatchHeader, time_us),
          FIELD(BatchHeader, length_bytes), FIELD(BatchHeader, record_count),
          FIELD(BatchHeader, previous_crc), FIELD(BatchHeader, crc), FIELD(BatchHeader, reserved)}},
        {"LogRecord",
         sizeof(LogRecord),
         {FIELD(LogRecord, length_bytes), FIELD(LogRecord, type), FIELD(LogRecord, key_bytes),
          FIELD(LogRecord, table_id), FIELD(LogRecord, body_bytes), FIELD(LogRecord, crc),
          FIELD(LogRecord, reserved)}},
        {"LoggedAdd",
         sizeof(LoggedAdd),
         {FIELD(LoggedAdd, column), FIELD(LoggedAdd, reserved0), FIELD(LoggedAdd, reserved1),
          FIELD(LoggedAdd, delta), FIELD(LoggedAdd, result)}},
        {"LoggedLoad",
         sizeof(LoggedLoad),
         {FIELD(LoggedLoad, rows), FIELD(LoggedLoad, checksum), FIELD(LoggedLoad, reserved)}},
    };
}

std::vector<Struct> all_structs() {
    std::vector<Struct> all = data_structs();
    for (Struct& each : log_structs()) all.push_back(std::move(each));
    return all;
}

struct Constant {
    const char* name;
    std::uint64_t value;
};

#define CONSTANT(name) \
    Constant { #name, static_cast < std::uint64_t>(name) }
#define PLACE(page) \
    Constant { #page, (page).value }

std::vector<Constant> constants() {
    return {
        CONSTANT(kFormatVersion),
        CONSTANT(kBlockBytes),
        CONSTANT(kPageBytes),
        CONSTANT(kSuperblockMagic),
        CONSTANT(kSuperblockCopies),
        CONSTANT(kJournalMagic),
        CONSTANT(kBatchMagic),
        CONSTANT(kBatchBytesMax),
        CONSTANT(kChunkPages),
        CONSTANT(kChunkBytes),
        CONSTANT(kDirectoryChunks),
        PLACE(meta_page(0)),
        PLACE(meta_page(1)),
        PLACE(meta_page(128)),
        PLACE(directory_page(0)),
        PLACE(directory_page(1)),
        PLACE(kCatalogRootPage),
        PLACE(kSessionsRootPage),
        CONSTANT(PageType::kNone),
        CONSTANT(PageType::kFree),
        CONSTANT(PageType::kLeaf),
        CONSTANT(PageType::kInner),
        CONSTANT(PageType::kMeta),
        CONSTANT(PageType::kDirectory),
        CONSTANT(RecordType::kPutRow),
        CONSTANT(RecordType::kUpdateColumns),
        CONSTANT(RecordType::kAddColumn),
        CONSTANT(RecordType::kDeleteRow),
        CONSTANT(RecordType::kDeleteRange),
        CONSTANT(RecordType::kCreateTable),
        CONSTANT(RecordType::kDropTable),
        CONSTANT(RecordType::kSession),
        CONSTANT(RecordType::kExpireSession),
        CONSTANT(RecordType::kBeginLoad),
        CONSTANT(RecordType::kFinishLoad),
        CONSTANT(RecordType::kSetTable),
        CONSTANT(RecordType::kMoveFloor),
    };
}

std::string hex(const std::byte* bytes, std::size_t length) {
    std::ostringstream out;
    out << std::hex << std::setfill('0');
    for (std::size_t i = 0; i < length; ++i) {
        out << (i % 32 == 0 ? "  " : "") << std::setw(2) << static_cast<unsigned>(bytes[i])
            << (i % 32 == 31 || i + 1 == length ? "\n" : "");
    }
    return out.str();
}

// Three batches as Wal writes them: one with records, one empty, one in the next segment.
std::string log_image() {
    SimDisk disk;
    WalStart start;
    start.shape = {16384, 3};
    for (std::uint8_t i = 0; i < 16; ++i) start.file_uuid[i] = static_cast<std::uint8_t>(0xf0 + i);
    start.epoch = 3;
    start.salt = 0x0123456789abcdef;
    start.newest_csn = Csn{40};
    start.batch_bytes_max = 16384;
    EXPECT_TRUE(disk.resize(StoreFile::kLog, start.shape.ring_bytes()).ok());
    Wal wal(
        disk, start, [](void*, const SealedBatch&, const Status&) {}, nullptr);
    const auto write = [&](std::uint64_t csn) {
        wal.seal(Csn{csn}, Csn{40}, 1'000'000 + csn);
        wal.write();
        while (disk.in_flight() > 0) disk.poll(1);
    };
    const std::byte key[5] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}, std::byte{5}};
    const std::vector<std::byte> body(9000, std::byte{0xbb});
    wal.begin();
    wal.append(RecordType::kPutRow, TableId{17}, key, std::span(body).first(10));
    wal.append(RecordType::kDeleteRow, TableId{18}, key, {});
    write(41);
    wal.begin();
    write(42);
    wal.begin();
    wal.append(RecordType::kPutRow, TableId{17}, key, body);
    write(43);
    std::string text;
    for (const auto& [position, length] : {std::pair{0u, 192u}, {4096u, 96u}, {16384u, 160u}}) {
        text += "batch at " + std::to_string(position) + "\n" +
                hex(disk.peek(StoreFile::kLog, position, length).data(), length);
    }
    return text;
}

std::string dump() {
    std::ostringstream out;
    for (const Constant& each : constants()) {
        out << each.name << " = 0x" << std::hex << each.value << std::dec << "\n";
    }
    for (const Struct& each : all_structs()) {
        out << "\n" << each.name << " size " << each.size << "\n";
        out << dump_fields(each.fields);
    }
    out << "\n" << log_image();
    return out.str();
}

TEST(Format, IsThatOfTheGoldenFile) { expect_golden("format.txt", dump()); }

// A struct or record type that is not in the dump could change unseen.
TEST(Format, DumpNamesEveryStructAndRecordTypeOfTheHeader) {
    const std::string printed = dump();
    const std::string text = read_text(kSourceRoot + "/engine/format.h");
    const std::regex structs("\nstruct ([A-Za-z]+) \\{");
    std::size_t found = 0;
    for (std::sregex_iterator it(text.begin(), text.end(), structs), end; it != end; ++it) {
        EXPECT_NE(printed.find("\n" + (*it)[1].str() + " size "), std::string::npos) << (*it)[1];
        ++found;
    }
    EXPECT_GT(found, 7u);
    const std::size_t types = text.find("enum class RecordType");
    ASSERT_NE(types, std::string::npos);
    const std::string list = text.substr(types, text.find("};", types) - types);
    const std::regex type("\n    (k[A-Za-z]+) =");
    for (std::sregex_iterator it(list.begin(), list.end(), type), end; it != end; ++it) {
        EXPECT_NE(printed.find("RecordType::" + (*it)[1].str() + " "), std::string::npos)
            << (*it)[1];
    }
}

TEST(Format, FieldsFollowEachOtherWithoutGaps) {
    for (const Struct& each : all_structs()) {
        EXPECT_EQ(end_without_gaps(each.name, each.fields), each.size) << each.name;
    }
}

TEST(Format, FixedPagesDoNotCollide) {
    EXPECT_EQ(meta_page(0).value, kSuperblockCopies);
    EXPECT_EQ(directory_page(0).value, meta_page(0).value + 1);
    EXPECT_EQ(kCatalogRootPage.value, directory_page(0).value + 1);
    for (std::uint32_t chunk = 0; chunk < 3 * kDirectoryChunks; ++chunk) {
        EXPECT_EQ(chunk_of(meta_page(chunk)), chunk);
        if (chunk % kDirectoryChunks != 0) continue;
        EXPECT_EQ(chunk_of(directory_page(chunk / kDirectoryChunks)), chunk);
    }
}

}  // namespace
}  // namespace bidstore
