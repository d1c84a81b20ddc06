// Files with something wrong in them, and what may come of it: shared by the tests of damaged data
// files and of damaged journals and logs.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/format.h"
#include "tests/golden_dump.h"
#include "tests/sealing.h"
#include "tests/sim.h"

namespace bidstore {

using Bytes = std::vector<std::byte>;

inline constexpr std::uint32_t kRows = 60;
inline constexpr StoreFile kFiles[] = {StoreFile::kData, StoreFile::kLog, StoreFile::kJournal};

inline Schema schema_of(const std::string& name) {
    auto schema = Schema::make(
        name,
        {{"id", ColumnType::kU64, 0}, {"n", ColumnType::kI64, 0}, {"text", ColumnType::kText, 0}},
        1);
    CHECK(schema.ok());
    return *schema;
}

inline Bytes key_of(std::uint64_t id) {
    Bytes key(8);
    encode_key_integer(key.data(), id, 8, false);
    return key;
}

inline Bytes row_of(std::int64_t n) {
    Bytes row(8 + 2 + 600, static_cast<std::byte>('t'));
    const std::uint16_t end = 600;
    std::memcpy(row.data(), &n, sizeof n);
    std::memcpy(row.data() + 8, &end, sizeof end);
    return row;
}

inline const Field kSuperblockFields[] = {FIELD(Superblock, magic),
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
                                          FIELD(Superblock, reserved)};
inline const Field kPageFields[] = {
    FIELD(PageHeader, csn),       FIELD(PageHeader, page_id),   FIELD(PageHeader, crc),
    FIELD(PageHeader, file_uuid), FIELD(PageHeader, count),     FIELD(PageHeader, free_offset),
    FIELD(PageHeader, type),      FIELD(PageHeader, level),     FIELD(PageHeader, live_bytes),
    FIELD(PageHeader, table_id),  FIELD(PageHeader, time_shift), FIELD(PageHeader, time_min),
    FIELD(PageHeader, time_max),  FIELD(PageHeader, floor),     FIELD(PageHeader, reserved0),
    {"first row", 64, 8},         {"middle", 2048, 1},          {"last byte", 4095, 1}};
inline const Field kBatchFields[] = {FIELD(BatchHeader, magic),
                                     FIELD(BatchHeader, file_uuid),
                                     FIELD(BatchHeader, epoch),
                                     FIELD(BatchHeader, salt),
                                     FIELD(BatchHeader, position),
                                     FIELD(BatchHeader, csn),
                                     FIELD(BatchHeader, durable_csn),
                                     FIELD(BatchHeader, time_us),
                                     FIELD(BatchHeader, length_bytes),
                                     FIELD(BatchHeader, record_count),
                                     FIELD(BatchHeader, previous_crc),
                                     FIELD(BatchHeader, crc),
                                     FIELD(BatchHeader, reserved),
                                     {"first record", sizeof(BatchHeader), 24},
                                     {"a row", 400, 1}};
inline const Field kJournalFields[] = {FIELD(JournalHeader, magic),
                                       FIELD(JournalHeader, number),
                                       FIELD(JournalHeader, file_uuid),
                                       FIELD(JournalHeader, checkpoint_csn),
                                       FIELD(JournalHeader, page_count),
                                       FIELD(JournalHeader, list_crc),
                                       {"first entry's page", sizeof(JournalHeader), 4},
                                       {"first entry's crc", sizeof(JournalHeader) + 4, 4}};

#undef FIELD

// Every bit of it becomes another one.
inline void spoil(SimDisk& disk, StoreFile file, std::uint64_t offset, std::uint64_t length_bytes) {
    Bytes bytes = disk.peek(file, offset, length_bytes);
    for (std::byte& byte : bytes) byte = ~byte;
    disk.poke(file, offset, bytes.data(), bytes.size());
}
inline void spoil(SimDisk& disk, StoreFile file, std::uint64_t base, const Field& field) {
    spoil(disk, file, base + field.offset, field.size_bytes);
}
inline void copy_page(SimDisk& disk, PageId from, PageId to) {
    const Bytes bytes = disk.peek(StoreFile::kData, from.value * kPageBytes, kPageBytes);
    disk.poke(StoreFile::kData, to.value * kPageBytes, bytes.data(), bytes.size());
}
inline bool names(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

inline SimStoreOptions quiet_store() {
    SimStoreOptions options = small_store();
    options.frames = 500;
    options.pages = 4 * kChunkPages;
    options.engine.checkpoint_interval_ns = 1ull << 60;  // at a stop alone
    return options;
}

// A store with two tables of kRows rows each, row n holding n, that was stopped.
class CorruptionTest : public ::testing::Test {
  protected:
    void SetUp() override {
        SimStore first(quiet_store(), std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(first.open().ok());
        SimClient& client = first.connect(Rights::kAdmin, session());
        left = first.create_table(client, schema_of("left"));
        right = first.create_table(client, schema_of("right"));
        for (std::uint64_t id = 0; id < kRows; ++id) {
            for (const TableId table : {left, right}) put(first, client, table, id);
        }
        if (HasFatalFailure()) return;
        pages = pages_of(first, left);
        right_pages = pages_of(first, right);
        ASSERT_GT(pages.size(), 5u);
        ASSERT_TRUE(first.stop());
        made = first.disk->clone(1);
    }

    static SessionId session() {
        SessionId id;
        id.bytes[0] = 77;
        return id;
    }
    static void put(SimStore& to, SimClient& client, TableId table, std::uint64_t id) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, key_of(id),
                        row_of(static_cast<std::int64_t>(id)));
        ASSERT_EQ(to.commit(client, bytes).error, Error::kOk);
    }
    // Leaves first, the root last.
    static std::vector<PageId> pages_of(SimStore& of, TableId table) {
        std::vector<PageId> found;
        const auto& tree = of.engine->core().storage().catalog->find(table)->tree;
        EXPECT_TRUE(tree.visit_pages([&](PageId page) { found.push_back(page); }).ok());
        return found;
    }

    // Opens a copy of the files with something wrong in them.
    Status open(std::unique_ptr<SimDisk> disk) {
        store = std::make_unique<SimStore>(quiet_store(), std::move(disk), 9);
        return store->open();
    }
    void expect_refused(std::unique_ptr<SimDisk> disk, const std::set<Error>& errors,
                        const std::string& named, const std::string& what,
                        const std::string& remedy = "") {
        const Status opened = open(std::move(disk));
        ASSERT_FALSE(opened.ok()) << what << " was not seen";
        EXPECT_TRUE(errors.contains(opened.error())) << what << ": " << opened.failure().what;
        EXPECT_TRUE(names(opened.failure().what, named)) << what << ": " << opened.failure().what;
        EXPECT_TRUE(names(opened.failure().what, remedy)) << what << ": " << opened.failure().what;
    }
    void expect_whole(std::unique_ptr<SimDisk> disk, const std::string& what) {
        const Status opened = open(std::move(disk));
        ASSERT_TRUE(opened.ok()) << what << ": " << opened.failure().what;
        EXPECT_EQ(store->verify(), "") << what;
        EXPECT_EQ(store->rows(left).size(), kRows) << what;
        EXPECT_EQ(store->rows(right).size(), kRows) << what;
        SimClient& client = store->connect();
        expect_rows(client, right);
    }

    // kOk: the row is there and holds what it should. kPrecondition would be a wrong row.
    Error look_up(SimClient& client, TableId table, std::uint64_t id) {
        TransactionBytes bytes;
        const auto n = static_cast<std::int64_t>(id);
        bytes.columns(OperationKind::kCheckEquals, table, key_of(id), 1,
                      std::as_bytes(std::span(&n, 1)));
        return store->commit(client, bytes).error;
    }
    void expect_rows(SimClient& client, TableId table) {
        for (std::uint64_t id = 0; id < kRows; ++id) {
            ASSERT_EQ(look_up(client, table, id), Error::kOk) << id;
        }
    }
    Error request(SimClient& client, PageId page) {
        const auto token = client.request_pages({&page, 1});
        CHECK(token.has_value());
        std::optional<Answer> answer;
        store->run_until([&] { return (answer = client.answer(*token)).has_value(); });
        return answer ? answer->error : Error::kTimedOut;
    }

    // The page is bad: its readers hear of it, all others go on.
    void expect_bad_page(std::unique_ptr<SimDisk> disk, PageId page, const std::string& what,
                         Error expected = Error::kCorruption) {
        const Status opened = open(std::move(disk));
        ASSERT_TRUE(opened.ok()) << what << ": " << opened.failure().what;
        SimClient& client = store->connect();
        EXPECT_EQ(request(client, page), expected) << what;
        std::uint32_t bad = 0;
        for (std::uint64_t id = 0; id < kRows; ++id) {
            const Error error = look_up(client, left, id);
            EXPECT_TRUE(error == Error::kOk || error == expected) << what << ", row " << id;
            bad += error == expected;
        }
        const bool root = page == pages.back();
        EXPECT_GT(bad, 0u) << what;
        EXPECT_TRUE(root ? bad == kRows : bad < kRows / 2) << what;
        expect_rows(client, right);
        const bool damaged = expected == Error::kCorruption;
        EXPECT_TRUE(std::any_of(store->log_lines.begin(), store->log_lines.end(), [&](auto& line) {
            if (damaged && (!names(line, kRemedy) || !names(line, "backup"))) return false;
            return names(line, "page " + std::to_string(page.value)) ||
                   names(line, "offset " + std::to_string(page.value * kPageBytes));
        })) << what;
        EXPECT_FALSE(store->clients.cut_off_clients.contains(client.id()));
        put(*store, client, right, 5);
        EXPECT_NE(store->verify(), "") << what;
        EXPECT_TRUE(store->stop()) << what;
    }

    static constexpr const char* kRemedy = "run bidstored --verify, then --verify --rebuild";
    std::unique_ptr<SimDisk> made;
    std::unique_ptr<SimStore> store;
    TableId left;
    TableId right;
    std::vector<PageId> pages;
    std::vector<PageId> right_pages;
};

}  // namespace bidstore
