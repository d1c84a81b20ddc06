// Nonsense under right checksums, up to the superblock, as rot cannot make it and a file that
// somebody wrote can: it is said, and the daemon neither ends nor writes beside a page. What is
// looked at, and what is not, is in tests/README.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/leaf_edit.h"
#include "engine/page/catalog_schema.h"
#include "tests/compaction_fixture.h"
#include "tests/sealing.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 600;
constexpr std::uint32_t kErasedFrom = 20;  // so that compaction has room in front
constexpr std::uint32_t kErasedTo = 540;

using Bytes = std::vector<std::byte>;

Schema rows_schema(const char* name) {
    auto schema = Schema::make(name,
                               {{"id", ColumnType::kU32, 0},
                                {"n", ColumnType::kI64, 0},
                                {"at", ColumnType::kTimestamp, 0},
                                {"text", ColumnType::kBytes, 0}},
                               1, 2);
    CHECK(schema.ok());
    return *schema;
}

// Every fourth has no large value.
std::size_t length_of(std::uint32_t id) { return id % 4 == 0 ? 1'500 : 9'000; }

Bytes row_of(std::uint32_t id, std::uint64_t at_us, std::size_t length) {
    const Schema schema = rows_schema("any");
    RowBuilder builder(schema);
    CHECK(builder.set_signed(1, id).ok());
    CHECK(builder.set_unsigned(2, at_us).ok());
    CHECK(builder.set_bytes(3, Bytes(length, static_cast<std::byte>(id))).ok());
    const auto value = builder.value();
    CHECK(value.ok());
    return {value->begin(), value->end()};
}

SimStoreOptions options() {
    SimStoreOptions options = small_store();
    options.frames = 1'200;
    options.pages = 8 * kChunkPages;
    options.engine.checkpoint_interval_ns = 1ull << 60;  // at a stop alone
    return options;
}

template <class T>
void set(std::byte* bytes, std::size_t offset, T value) {
    std::memcpy(bytes + offset, &value, sizeof value);
}

// A leaf's slot of the row.
std::size_t slot_of(std::uint32_t row) { return kPageHeaderBytes + row * kSlotBytes; }

struct Made {
    Made() {
        SimStore store(options(), std::make_unique<SimDisk>(), 1);
        CHECK(store.open().ok());
        wall_us = store.clock.wall_us();
        SimClient& client = store.connect(Rights::kAdmin, session());
        client.set_decided_below(1);
        other = store.create_table(client, rows_schema("other"));
        table = store.create_table(client, rows_schema("rows"));
        for (std::uint32_t id = 0; id < kRows; ++id) {
            for (const TableId each : {other, table}) {
                if (each == other && id >= 12) continue;
                TransactionBytes put;
                put.operation(OperationKind::kPut, each, row_key(id),
                              row_of(id, wall_us, length_of(id)));
                CHECK(store.commit(client, put).error == Error::kOk);
            }
        }
        CompactionRows none;
        CHECK(erase_rows(store, client, table, kErasedFrom, kErasedTo, none) == Error::kOk);
        for (int i = 0; i < 3; ++i) {  // refused, and then one that is not
            TransactionBytes absent;
            absent.operation(OperationKind::kDelete, table, row_key(kRows + 1), {});
            CHECK(store.commit(client, absent).error == Error::kNotFound);
        }
        TransactionBytes put;
        put.operation(OperationKind::kPut, other, row_key(0), row_of(0, wall_us, 300));
        CHECK(store.commit(client, put).error == Error::kOk);
        note(store);
        CHECK(store.stop());
        disk = store.disk->clone(1);
    }
    void note(SimStore& store) {
        Catalog& catalog = *store.engine->core().storage().catalog;
        const Tree& tree = catalog.find(table)->tree;
        root = tree.root();
        CHECK_OP(tree.depth(), ==, 2u);
        const Lookup large = tree.get(row_key(kRows - 1).data());
        leaf = large.leaf;
        value = *ValueReference::load(RowView(rows_schema("any"), large.value).content(0).bytes);
        const Lookup others = catalog.find(other)->tree.get(row_key(1).data());
        others_value =
            *ValueReference::load(RowView(rows_schema("any"), others.value).content(0).bytes);
        catalog_page = catalog.catalog().tree.root();
        sessions_page = catalog.sessions().tree.root();
    }
    static SessionId session() {
        SessionId id;
        id.bytes[0] = 77;
        return id;
    }

    std::unique_ptr<SimDisk> disk;
    std::uint64_t wall_us = 0;
    TableId table;
    TableId other;
    PageId root;
    PageId leaf;  // has the last row, which has a large value
    ValueReference value;
    ValueReference others_value;
    PageId catalog_page;
    PageId sessions_page;
};

const Made& made() {
    static const Made the_one;
    return the_one;
}

using Change = std::function<void(std::byte* page)>;

std::unique_ptr<SimDisk> with(PageId page, const Change& change,
                              const SimDisk& files = *made().disk) {
    auto disk = files.clone(1);
    Bytes bytes = disk->peek(StoreFile::kData, page.value * kPageBytes, kPageBytes);
    change(bytes.data());
    disk->poke(StoreFile::kData, page.value * kPageBytes, bytes.data(), kPageBytes);
    seal_up(*disk, page);
    return disk;
}

// What clients and the daemon itself do with a store, whatever comes of it.
class Use {
  public:
    explicit Use(std::unique_ptr<SimDisk> disk) : store_(options(), std::move(disk), 2) {
        opened_ = store_.open();
    }

    // What was said, one line behind the other.
    std::string all(bool changes_first) {
        if (!opened_) return opened_.failure().what;
        client_ = store_.attach(Rights::kAdmin, Made::session());
        if (client_ == nullptr) return "the session is not welcome\n" + log();
        client_->welcomed(store_.clients.attach_answers[client_->id()].second);
        look();
        said_ += "verify: " + store_.verify() + '\n';
        if (!changes_first) compact();
        change();
        if (changes_first) compact();
        look();
        EXPECT_EQ(store_.engine->fence_reason(), "");
        said_ += "verify at the end: " + store_.verify() + '\n';
        EXPECT_TRUE(store_.stop());
        return said_ + log();
    }

  private:
    std::string log() const {
        std::string lines;
        for (const std::string& line : store_.log_lines) lines += line + '\n';
        return lines;
    }
    void look() {
        for (std::uint32_t id = 0; id < kRows; ++id) {
            if (id == kErasedFrom) id = kErasedTo;
            const Bytes text(length_of(id), static_cast<std::byte>(id));
            TransactionBytes check;
            check.columns(OperationKind::kCheckEquals, made().table, row_key(id), 3, text);
            note(store_.commit(*client_, check).error, "check");
        }
    }
    void compact() {
        CompactClient compaction(*client_, 64);
        store_.run_until([&] { return compaction.advance(); });
        note(compaction.error(), "compaction");
    }
    // Rows that grow, shrink, go, come between others, and go in ranges.
    void change() {
        for (std::uint32_t id = 0; id < kRows; id += 3) {
            if (id > kErasedFrom) id = std::max(id, kErasedTo);
            TransactionBytes bytes;
            bytes.operation(OperationKind::kPut, made().table, row_key(id),
                            row_of(id, made().wall_us, id % 2 == 0 ? 2'500 : 20));
            note(store_.commit(*client_, bytes).error, "put");
            AddBody add{};
            add.column = 1;
            add.delta = 1;
            TransactionBytes more;
            more.add(made().table, row_key(id + 1), add, kCreate);
            more.columns(OperationKind::kUpdate, made().table, row_key(id + 1), 1,
                         std::as_bytes(std::span(&add.delta, 1)));
            note(store_.commit(*client_, more).error, "add");
            TransactionBytes erase;
            erase.operation(OperationKind::kDelete, made().table, row_key(id + 2), {}, kIfPresent);
            note(store_.commit(*client_, erase).error, "delete");
        }
        TransactionBytes range;
        range.operation(OperationKind::kDeleteRange, made().table, row_key(570), row_key(580));
        note(store_.commit(*client_, range).error, "range");
    }
    void note(Error error, const std::string& what) {
        if (error == Error::kOk || error == Error::kPrecondition) return;
        const std::string line = what + ": " + std::string(error_name(error)) + '\n';
        if (said_.find(line) == std::string::npos) said_ += line;
    }

    SimStore store_;
    Status opened_;
    SimClient* client_ = nullptr;
    std::string said_;
};

struct Nonsense {
    const char* name;
    PageId page;
    // In the log ("...; stop" the daemon), by the verifier, or as the reason not to open.
    const char* said;
    Change change;
};

// The leaf's last row, which has a large value.
struct LastRow {
    explicit LastRow(std::byte* page)
        : number(page_header(page).count - 1u),
          slot(slot_of(number)),
          place(LeafView(page, LeafLayout::of(rows_schema("any"))).place(number)),
          value(place.offset + 4u),
          ends(value + rows_schema("any").fixed_bytes()),
          run(ends + 2 + 8) {}
    std::uint32_t number;
    std::size_t slot;
    RowPlace place;
    std::size_t value;
    std::size_t ends;
    std::size_t run;  // the first one of its large value: page id, then pages
};

std::size_t child_place(std::uint32_t index) {
    return InnerLayout::of(4).children_offset + sizeof(std::uint32_t) * index;
}

std::vector<Nonsense> all_nonsense() {
    const Made& m = made();
    const auto header = [](std::size_t offset, auto value) {
        return [=](std::byte* page) { set(page, offset, value); };
    };
    const auto count = [&](std::uint16_t rows) {
        return header(offsetof(PageHeader, count), rows);
    };
    const std::uint8_t one = 1;
    const auto child = [](std::uint32_t id) {
        return [=](std::byte* page) { set(page, child_place(1), id); };
    };
    const auto run = [](std::uint32_t first, std::uint32_t pages) {
        return [=](std::byte* page) {
            set(page, LastRow(page).run, first);
            set(page, LastRow(page).run + 4, pages);
        };
    };
    const PageId meta = meta_page(chunk_of(PageId{m.value.runs[0].first}));
    const auto marks = kPageHeaderBytes + offsetof(ChunkMeta, extent);
    const auto used = kPageHeaderBytes + offsetof(ChunkMeta, used);
    const std::uint32_t in_chunk = m.value.runs[0].first % kChunkPages;
    const std::uint32_t last_page = superblock_of(*m.disk).chunk_count * kChunkPages - 1;
    return {
        {"rows", m.leaf, "has too many rows; stop", count(999)},
        {"free offset", m.leaf, "inside its slots or outside the page; stop",
         header(offsetof(PageHeader, free_offset), std::uint16_t{70})},
        {"live bytes", m.leaf, "live bytes are not its rows'; stop",
         header(offsetof(PageHeader, live_bytes), std::uint16_t{7})},
        {"type", m.leaf, "or its level is another type's; stop",
         header(offsetof(PageHeader, type), PageType::kFree)},
        {"level", m.leaf, "or its level is another type's; stop",
         header(offsetof(PageHeader, level), one)},
        {"slot", m.leaf, "a slot points outside the row content; stop",
         [](std::byte* page) { set(page, LastRow(page).slot, std::uint16_t{4'090}); }},
        {"overlap", m.leaf, "two rows overlap; stop",
         [](std::byte* page) {
             const std::size_t slot = LastRow(page).slot;
             std::memcpy(page + slot - kSlotBytes, page + slot, kSlotBytes);
         }},
        {"order", m.leaf, "keys of a leaf do not rise; stop",
         [](std::byte* page) { set(page, LastRow(page).place.offset, 0u); }},
        {"short row", m.leaf, "does not fit the schema; stop",
         [](std::byte* page) {
             const LastRow row(page);
             set(page, row.slot + 2, static_cast<std::uint16_t>(row.place.length_bytes - 10));
             const auto live_bytes =
                 static_cast<std::uint16_t>(page_header(page).live_bytes - 10);
             set(page, offsetof(PageHeader, live_bytes), live_bytes);
         }},
        {"ends", m.leaf, "does not fit the schema; stop",
         [](std::byte* page) { set(page, LastRow(page).ends, std::uint16_t{3'000}); }},
        {"wide", m.leaf, "not in the form of a leaf; stop",
         [](std::byte* page) { set(page, LastRow(page).ends, std::uint16_t{0xffff}); }},
        {"times", m.leaf, "outside the leaf's time bounds; stop",
         header(offsetof(PageHeader, time_max), std::uint64_t{1})},
        {"time shift", m.leaf, "a leaf's times have another unit; stop",
         header(offsetof(PageHeader, time_shift), std::uint8_t{200})},

        {"no children", m.root, "has no children; stop", count(0)},
        {"children", m.root, "too many children; stop", count(999)},
        {"node's order", m.root, "keys of an inner node do not rise; stop",
         [](std::byte* page) { set(page, kHeadsOffset + 8, ~std::uint64_t{0}); }},
        {"sample", m.root, "a sample is not the head it stands for; stop",
         [](std::byte* page) { set(page, kSamplesOffset, std::uint64_t{9}); }},
        {"child behind the file", m.root, "no page of a tree in use; stop", child(~0u)},
        {"child of a fixed place", m.root, "no page of a tree in use; stop", child(1)},
        {"child of a chunk's", m.root, "no page of a tree in use; stop", child(meta.value)},
        {"child that is free", m.root, "no page of a tree in use; stop",
         child(last_page)},
        {"child in a value", m.root, "no page of a tree in use; stop",
         child(m.value.runs[0].first)},
        {"child of another table", m.root, "that is another table's; stop",
         child(m.catalog_page.value)},
        {"child that is another table's root", m.root, "that is another table's; stop",
         child(m.sessions_page.value)},
        {"child twice", m.root, "the same child twice; stop",
         [](std::byte* page) {
             std::memcpy(page + child_place(1), page + child_place(0), sizeof(std::uint32_t));
         }},

        {"value behind the file", m.leaf, "is behind the end of the file", run(~0u - 8, 3)},
        {"value of another table", m.leaf, "not 3 of its own",
         run(m.others_value.runs[0].first, 3)},
        {"value of fixed pages", m.leaf, "begins no large value", run(1, 3)},
        {"value of a tree", m.leaf, "begins no large value", run(m.root.value, 3)},
        {"value's pages", m.leaf, "begins no large value", run(m.value.runs[0].first + 1, 3)},

        {"value that a row has twice", m.leaf, "to pages of a large value twice; stop",
         [](std::byte* page) {
             const Schema schema = rows_schema("any");
             const LeafLayout layout = LeafLayout::of(schema);
             const LastRow row(page);
             Bytes value(page + row.value, page + row.place.offset + row.place.length_bytes);
             const std::size_t first = row.run - row.value;
             value.resize(value.size() + sizeof(ExtentRun));  // two runs of a page each
             set(value.data(), row.ends - row.value, std::uint16_t{0x8000 | 24});
             set(value.data(), first - 8, 8'000u);
             set(value.data(), first + 4, 1u);
             std::memcpy(value.data() + first + 8, value.data() + first, sizeof(ExtentRun));
             LeafEdit(page, layout, schema).replace(row.number, value);
         }},

        {"metadata", meta, "it is of another type",
         header(offsetof(PageHeader, type), PageType::kLeaf)},
        {"value that is free", meta, "a page of a large value is not in use",
         [=](std::byte* page) {
             page[used + in_chunk / 8] &= ~(std::byte{1} << (in_chunk % 8));
         }},
        {"value without a beginning", meta, "a large value goes on that has not begun",
         [=](std::byte* page) {
             std::memset(page + marks, 0, kChunkPages / 2);
             page[marks + 255] = std::byte{kExtentGoesOn};  // of page 510
             page[used + 510 / 8] |= std::byte{1} << (510 % 8);
         }},
        {"value of nobody", meta, "a large value is no table's",
         [](std::byte* page) {
             std::memset(page + kPageHeaderBytes + offsetof(ChunkMeta, extent_owner), 0,
                         sizeof ChunkMeta::extent_owner);
         }},
        {"fixed place", meta, "a page with a fixed place is free",
         [=](std::byte* page) {
             page[used] &= ~std::byte{1};
         }},

        {"root behind the file", m.catalog_page, "is no page of a tree",
         [&m](std::byte* page) { set(page, catalog_row(page, m.table), 0xffff'0000u); }},
        {"root in a value", m.catalog_page, "is no page of a tree",
         [&m](std::byte* page) { set(page, catalog_row(page, m.table), m.value.runs[0].first); }},
        {"retention", m.catalog_page, "has an impossible retention",
         [&m](std::byte* page) { set(page, catalog_row(page, m.table) + 8, ~std::uint64_t{0}); }},
        {"system table", m.catalog_page, "is the system's by its mark",
         [&m](std::byte* page) { set(page, catalog_row(page, m.table) + 4, kSystemTableFlag); }},
        {"sessions", m.catalog_page, "is the system's by its mark",
         [](std::byte* page) { set(page, catalog_row(page, kSessionsTable) + 4, 0u); }},
        {"id", m.catalog_page, "an impossible id",
         [&m](std::byte* page) {
             std::memset(page + catalog_row(page, m.table) - 4, 0xff, 4);
         }},

        {"refusals", m.sessions_page, "the session is not welcome",
         [](std::byte* page) {
             const LeafLayout layout = LeafLayout::of(sessions_schema());
             const LeafView rows(page, layout);
             const auto value = rows.value(0);
             std::memset(page + (value.data() - page) + 22, 0xff, value.size() - 22);
         }},
    };
}

TEST(NonsenseTest, OfNoneNothingIsSaid) {
    for (const bool changes_first : {false, true}) {
        const std::string said = Use(made().disk->clone(1)).all(changes_first);
        EXPECT_NE(said.find("verify: \nverify at the end: \n"), std::string::npos) << said;
        EXPECT_EQ(said.find("corrupt"), std::string::npos) << said;
        EXPECT_EQ(said.find("compaction: "), std::string::npos) << said;
    }
}

TEST(NonsenseTest, IsSaidAndNothingEnds) {
    for (const Nonsense& nonsense : all_nonsense()) {
        for (const bool changes_first : {false, true}) {
            SCOPED_TRACE(nonsense.name);
            const std::string said =
                Use(with(nonsense.page, nonsense.change)).all(changes_first);
            EXPECT_NE(said.find(nonsense.said), std::string::npos) << said;
        }
    }
}

// Compaction comes to the row in the chunk that it empties.
TEST(NonsenseTest, ValueThatIsNoneIsNotMoved) {
    const std::uint32_t first = made().value.runs[0].first + 1;
    const auto change = [&](std::byte* page) { set(page, LastRow(page).run, first); };
    const std::string said = Use(with(made().leaf, change)).all(false);
    EXPECT_NE(said.find("compaction: Corruption"), std::string::npos) << said;
}

// Its pages go one after the other once the store is open.
TEST(NonsenseTest, OfADroppedTableIsSaid) {
    const auto drop = [](std::byte* page) {
        set(page, catalog_row(page, made().table) + 4, kDroppedTableFlag);
    };
    const auto dropped = with(made().catalog_page, drop);
    for (const auto& [child, said] :
         {std::pair{made().value.runs[0].first, "no page of a tree in use; stop"},
          std::pair{made().catalog_page.value, "that is another table's; stop"},
          std::pair{made().root.value, "is allocated, but nothing refers to it"}}) {
        const auto change = [to = child](std::byte* page) { set(page, child_place(1), to); };
        const std::string all = Use(with(made().root, change, *dropped)).all(false);
        EXPECT_NE(all.find(said), std::string::npos) << all;
    }
}

// Of a log with one record of each kind.
class NonsenseLogTest : public ::testing::Test {
  protected:
    void SetUp() override {
        SimStore store(options(), made().disk->clone(1), 3);
        ASSERT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        const TableId more = store.create_table(client, rows_schema("more"));
        TransactionBytes put;
        put.operation(OperationKind::kPut, made().table, row_key(1), row_of(1, 0, 9'000));
        put.operation(OperationKind::kDeleteRange, made().table, row_key(5), row_key(6));
        ASSERT_EQ(store.commit(client, put).error, Error::kOk);
        TransactionBytes drop;
        drop.operation(OperationKind::kDropTable, more, {}, {});
        ASSERT_EQ(store.commit(client, drop).error, Error::kOk);
        disk = store.disk->process_crash(1);
    }
    // With the record of this type changed: the header, or what is behind it.
    using RecordChange = std::function<void(LogRecord&, std::byte* behind)>;
    std::string said_with(RecordType type, const RecordChange& change) {
        const auto changed = disk->clone(1);
        for (const std::uint64_t at : log_records(*changed)) {
            Bytes bytes = changed->peek(StoreFile::kLog, at, sizeof(LogRecord));
            LogRecord record{};
            std::memcpy(&record, bytes.data(), sizeof record);
            if (record.type != type) continue;
            bytes = changed->peek(StoreFile::kLog, at, record.length_bytes);
            change(record, bytes.data() + sizeof record);
            std::memcpy(bytes.data(), &record, sizeof record);
            changed->poke(StoreFile::kLog, at, bytes.data(), bytes.size());
        }
        seal_log(*changed);
        return Use(changed->clone(1)).all(false);
    }
    std::string said_of_table(RecordType type, TableId table) {
        return said_with(type, [=](LogRecord& record, std::byte*) {
            record.table_id = table.value;
        });
    }

    std::unique_ptr<SimDisk> disk;
};

TEST_F(NonsenseLogTest, OfNoneNothingIsSaid) {
    const std::string said = said_with(RecordType::kPutRow, [](LogRecord&, std::byte*) {});
    EXPECT_NE(said.find("verify: \nverify at the end: \n"), std::string::npos) << said;
}

TEST_F(NonsenseLogTest, IsARefusedStart) {
    const auto expect = [](const std::string& said, const std::string& what) {
        EXPECT_NE(said.find(what), std::string::npos) << said;
        EXPECT_EQ(said.find("verify"), std::string::npos) << said;
    };
    for (const TableId table : {kCatalogTable, kSessionsTable, TableId{~0u}}) {
        expect(said_of_table(RecordType::kDropTable, table), "is none that can be dropped");
        expect(said_of_table(RecordType::kCreateTable, table), "is none that can be made");
    }
    expect(said_of_table(RecordType::kPutRow, kCatalogTable), "a record of another kind of table");
    expect(said_of_table(RecordType::kSession, made().table), "a key of wrong size");
    const auto narrow = [](LogRecord& record, std::byte* row) {
        const std::size_t ends = record.key_bytes + rows_schema("any").fixed_bytes();
        const std::size_t content = record.body_bytes - (ends - record.key_bytes) - 2;
        set(row, ends, static_cast<std::uint16_t>(content));
    };
    expect(said_with(RecordType::kPutRow, narrow), "a row that its schema does not allow");
    const auto to_a_short_key = [](LogRecord& record, std::byte*) {
        record.body_bytes -= 1;
        record.length_bytes -= 1;
    };
    expect(said_with(RecordType::kDeleteRange, to_a_short_key), "a key of wrong size");
}

// The catalog's own root stands in the superblock.
TEST(NonsenseTest, CatalogRootThatIsNoneIsSaid) {
    auto disk = made().disk->clone(1);
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        const std::uint32_t root = made().value.runs[0].first;
        disk->poke(StoreFile::kData, copy * kBlockBytes + offsetof(Superblock, catalog_root), &root,
                   sizeof root);
        seal_superblock(*disk, copy);
    }
    const std::string said = Use(std::move(disk)).all(false);
    EXPECT_NE(said.find("is no page of a tree"), std::string::npos) << said;
}

}  // namespace
}  // namespace bidstore
