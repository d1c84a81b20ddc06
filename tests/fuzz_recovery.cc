// Recovery from files that were changed in any way: it opens, or says why not; what it opened
// answers, and stops. Nothing crashes and everything ends.
//
// The files are made once, by the program itself: of a store that lost power with a log to replay,
// and of one that died with a checkpoint's journal in place. Input: a byte that chooses files and
// whether what was changed gets its right checksums again (as rot has not, but a file that somebody
// wrote has); then changes: file, page, place, length, bytes.
#include <cstdio>
#include <memory>

#include "engine/format.h"
#include "engine/page/page.h"
#include "tests/fuzz.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 120;
constexpr std::uint32_t kChangesMax = 24;
constexpr std::uint32_t kRoundsMax = 3000;

using Bytes = std::vector<std::byte>;

SimStoreOptions options() {
    SimStoreOptions options = small_store();
    options.frames = 500;
    options.pages = 4 * kChunkPages;
    options.engine.checkpoint_interval_ns = 1ull << 60;  // at a stop alone
    return options;
}

Schema rows_schema() {
    return *Schema::make(
        "rows",
        {{"id", ColumnType::kU64, 0}, {"n", ColumnType::kI64, 0}, {"t", ColumnType::kText, 0}}, 1);
}

Bytes key_of(std::uint64_t id) {
    Bytes key(8);
    encode_key_integer(key.data(), id, 8, false);
    return key;
}

Superblock superblock_of(const SimDisk& disk, std::uint32_t copy) {
    Superblock superblock{};
    const Bytes bytes = disk.peek(StoreFile::kData, copy * kBlockBytes, kBlockBytes);
    std::memcpy(&superblock, bytes.data(), sizeof superblock);
    return superblock;
}

void write_some(SimStore& store, SimClient& client, TableId table, std::uint32_t round) {
    for (std::uint32_t id = 0; id < kRows; ++id) {
        TransactionBytes bytes;
        const std::size_t text = id % 40 == 7 ? 9000 : 300 + id;
        std::vector<ColumnContent> contents{{Bytes(text, std::byte{'t'}), false}};
        Bytes content(text, std::byte{'t'});
        contents[0].bytes = content;
        Bytes row(row_value_bytes(rows_schema(), contents));
        const std::uint64_t n = id + round;
        write_row_value(row.data(), rows_schema(), std::as_bytes(std::span(&n, 1)), contents);
        bytes.operation(OperationKind::kPut, table, key_of(id), row);
        if (id % 10 == round) bytes.operation(OperationKind::kDelete, table, key_of(id), {});
        CHECK(store.commit(client, bytes).error == Error::kOk);
    }
}

struct Made {
    Made() {
        SimStore first(options(), std::make_unique<SimDisk>(), 1);
        CHECK(first.open().ok());
        SimClient& client = first.connect();
        table = first.create_table(client, rows_schema());
        write_some(first, client, table, 1);
        CHECK(first.stop());
        SimStore second(options(), first.disk->clone(1), 2);
        CHECK(second.open().ok());
        SimClient& again = second.connect();
        write_some(second, again, table, 2);
        AddBody add{};
        add.column = 1;
        add.delta = 3;
        TransactionBytes more;
        more.add(table, key_of(5), add);
        more.columns(OperationKind::kUpdate, table, key_of(6), 2, Bytes(20));
        more.operation(OperationKind::kDeleteRange, table, key_of(90), key_of(95));
        CHECK(second.commit(again, more).error == Error::kOk);
        with_log = second.disk->process_crash(1);
        ClientCommand stop;
        stop.kind = ClientCommand::Kind::kStop;
        second.clients.commands.push_back(stop);
        for (int i = 0; i < 20'000 && !with_journal; ++i) {
            second.round();
            auto left = second.disk->process_crash(1);
            const bool named = superblock_of(*left, 0).journal_pages > 0 ||
                               superblock_of(*left, 1).journal_pages > 0;
            if (named) with_journal = std::move(left);
        }
        CHECK(with_journal != nullptr);
    }
    TableId table;
    std::unique_ptr<SimDisk> with_log;
    std::unique_ptr<SimDisk> with_journal;
};

// ---- checksums ----------------------------------------------------------------------------------

template <class T>
T peek(const SimDisk& disk, StoreFile file, std::uint64_t offset) {
    T value{};
    const Bytes bytes = disk.peek(file, offset, sizeof value);
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

void seal_superblock(SimDisk& disk, std::uint32_t copy) {
    Superblock superblock = superblock_of(disk, copy);
    superblock.crc = 0;
    superblock.crc = crc32c(&superblock, sizeof superblock);
    disk.poke(StoreFile::kData, copy * kBlockBytes, &superblock, sizeof superblock);
}

std::uint32_t seal(SimDisk& disk, PageId page) {
    Bytes bytes = disk.peek(StoreFile::kData, page.value * std::uint64_t{kPageBytes}, kPageBytes);
    seal_page(bytes.data());
    disk.poke(StoreFile::kData, page.value * std::uint64_t{kPageBytes}, bytes.data(), kPageBytes);
    return page_header(bytes.data()).crc;
}

// The page's checksum, and those of what remembers it: its chunk, the directory, both superblocks.
void seal_up(SimDisk& disk, std::uint32_t page) {
    const auto at = [](std::uint32_t number) { return number * std::uint64_t{kPageBytes}; };
    constexpr std::uint32_t kMetaOfFirst = 2;
    constexpr std::uint32_t kDirectory = 3;
    const std::uint32_t chunk = page / kChunkPages;
    const std::uint32_t meta = chunk == 0 ? kMetaOfFirst : chunk * kChunkPages;
    if (page != meta && page != kDirectory) {
        const std::uint32_t crc = seal(disk, PageId{page});
        disk.poke(
            StoreFile::kData,
            at(meta) + kPageHeaderBytes + offsetof(ChunkMeta, page_crc) + 4 * (page % kChunkPages),
            &crc, sizeof crc);
    }
    if (page != kDirectory) {
        const std::uint32_t crc = seal(disk, PageId{meta});
        disk.poke(StoreFile::kData,
                  at(kDirectory) + kPageHeaderBytes + chunk * sizeof(DirectoryEntry), &crc,
                  sizeof crc);
    }
    const std::uint32_t directory = seal(disk, PageId{kDirectory});
    const std::uint32_t root = crc32c(&directory, sizeof directory);
    for (std::uint32_t copy = 0; copy < 2; ++copy) {
        disk.poke(StoreFile::kData, copy * kBlockBytes + offsetof(Superblock, directory_crc), &root,
                  sizeof root);
        seal_superblock(disk, copy);
    }
}

// The batches from where replay begins, one behind the other.
void seal_log(SimDisk& disk) {
    const Superblock a = superblock_of(disk, 0);
    const Superblock b = superblock_of(disk, 1);
    const Superblock& newest = a.sequence > b.sequence ? a : b;
    const std::uint64_t size = *disk.size_bytes(StoreFile::kLog);
    if (size == 0) return;
    std::uint64_t position = newest.log_position;
    std::uint32_t previous = newest.log_crc;
    for (int i = 0; i < 2000; ++i) {
        const std::uint64_t offset = position % size;
        auto header = peek<BatchHeader>(disk, StoreFile::kLog, offset);
        if (header.magic != kBatchMagic || header.length_bytes < sizeof header ||
            header.length_bytes > size - offset) {
            return;
        }
        header.previous_crc = previous;
        header.crc = 0;
        Bytes batch = disk.peek(StoreFile::kLog, offset, header.length_bytes);
        std::memcpy(batch.data(), &header, sizeof header);
        for (std::size_t at = sizeof header; at + sizeof(LogRecord) <= batch.size();) {
            LogRecord record{};
            std::memcpy(&record, batch.data() + at, sizeof record);
            if (record.length_bytes < sizeof record || record.length_bytes > batch.size() - at) {
                break;
            }
            record.crc = 0;
            std::memcpy(batch.data() + at, &record, sizeof record);
            record.crc = crc32c(batch.data() + at, record.length_bytes);
            std::memcpy(batch.data() + at, &record, sizeof record);
            at += align_up(record.length_bytes, 8);
        }
        header.crc = crc32c(batch.data(), batch.size());
        std::memcpy(batch.data(), &header, sizeof header);
        disk.poke(StoreFile::kLog, offset, batch.data(), batch.size());
        previous = header.crc;
        position += align_up(header.length_bytes, kBlockBytes);
    }
}

void seal_journal(SimDisk& disk) {
    auto header = peek<JournalHeader>(disk, StoreFile::kJournal, 0);
    const std::uint64_t size = *disk.size_bytes(StoreFile::kJournal);
    const std::uint64_t list = sizeof header + header.page_count * sizeof(JournalEntry);
    if (header.magic != kJournalMagic || list > size) return;
    header.list_crc = 0;
    Bytes bytes = disk.peek(StoreFile::kJournal, 0, list);
    std::memcpy(bytes.data(), &header, sizeof header);
    header.list_crc = crc32c(bytes.data(), bytes.size());
    disk.poke(StoreFile::kJournal, 0, &header, sizeof header);
    for (std::uint32_t copy = 0; copy < 2; ++copy) {
        disk.poke(StoreFile::kData, copy * kBlockBytes + offsetof(Superblock, journal_list_crc),
                  &header.list_crc, sizeof header.list_crc);
        seal_superblock(disk, copy);
    }
}

// ---- a run --------------------------------------------------------------------------------------

void change(SimDisk& disk, FuzzInput& input, bool sealed) {
    const StoreFile file = static_cast<StoreFile>(input.take<std::uint8_t>() % 3);
    const std::uint64_t size = *disk.size_bytes(file);
    if (size < kPageBytes) return;
    const std::uint64_t pages = std::min<std::uint64_t>(size / kPageBytes, 400);
    const auto page = static_cast<std::uint32_t>(input.take<std::uint16_t>() % pages);
    const std::uint32_t place = input.take<std::uint16_t>() % kPageBytes;
    const auto bytes = input.take_bytes(
        std::min<std::size_t>(1 + input.take<std::uint8_t>() % 64, kPageBytes - place));
    if (bytes.empty()) return;
    disk.poke(file, page * std::uint64_t{kPageBytes} + place, bytes.data(), bytes.size());
    if (!sealed) return;
    if (file == StoreFile::kData && page < 2) seal_superblock(disk, page);
    if (file == StoreFile::kData && page >= 2) seal_up(disk, page);
    if (file == StoreFile::kLog) seal_log(disk);
    if (file == StoreFile::kJournal) seal_journal(disk);
}

void use(SimStore& store, TableId table) {
    static_cast<void>(store.verify());
    SimClient& client = store.connect();
    for (std::uint64_t id = 0; id < kRows; id += 7) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kCheckPresent, table, key_of(id), {});
        const auto token = client.submit(bytes.bytes());
        if (!token) break;
        store.run_until([&] { return client.answer(*token).has_value(); }, kRoundsMax);
    }
    store.stop();
}

}  // namespace
}  // namespace bidstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    static const Made* const made = new Made;
    FuzzInput input(data, size_bytes);
    const auto choice = input.take<std::uint8_t>();
    auto disk = (choice & 1 ? made->with_journal : made->with_log)->clone(1);
    for (std::uint32_t i = 0; i < kChangesMax && !input.empty(); ++i) {
        change(*disk, input, choice & 2);
    }
    SimStore store(options(), std::move(disk), 3);
    const Status opened = store.open();
    if (!opened.ok()) {
        CHECK(!opened.failure().what.empty());
        return 0;
    }
    use(store, made->table);
    return 0;
}
