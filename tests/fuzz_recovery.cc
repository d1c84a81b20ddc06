// Recovery from files that were changed in any way: it opens, or says why not; what it opened
// answers, takes writes, and stops. Nothing crashes and everything ends. Where no checksum was made
// right for what was changed, each row is what it was, or an error, before the writes and after.
//
// The files are made once, by the program itself: of a store that lost power with a log to replay,
// and of one that died with a checkpoint's journal in place. Input: a byte that chooses files and
// whether what was changed gets its right checksums again (as rot has not, but a file that somebody
// wrote has); then changes: file, page, place, length, bytes. Or (kInPlaceOf): a byte that chooses
// a file, and all that this file is, as long as it is.
#include <cstdio>
#include <memory>

#include "engine/format.h"
#include "engine/page/page.h"
#include "tests/fuzz.h"
#include "tests/sealing.h"
#include "tests/sim.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 120;
constexpr std::uint32_t kChangesMax = 24;
constexpr std::uint32_t kRoundsMax = 3000;
// Bits of the input's first byte.
constexpr std::uint8_t kWithJournal = 1;
constexpr std::uint8_t kSealed = 2;
constexpr std::uint8_t kWhatIsMeant = 0x1c;  // changes, but for one value:
constexpr std::uint8_t kInPlaceOf = 0x08;
// Damage to the end of the log may pass for a torn one: of the batches that it hit and of one more,
// since two are in flight at a time (engine/FORMAT.md).
constexpr std::size_t kBatchesBeside = 1;

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

struct Row {
    std::uint64_t n = 0;
    std::size_t text_bytes = 0;
    std::byte text{'t'};
    Bytes value() const {
        const Bytes content(text_bytes, text);
        const std::vector<ColumnContent> contents{{content, false}};
        Bytes row(row_value_bytes(rows_schema(), contents));
        write_row_value(row.data(), rows_schema(), std::as_bytes(std::span(&n, 1)), contents);
        return row;
    }
};
using Rows = std::map<std::uint64_t, Row>;  // by id

// What the rows were after each of the transactions, each of which was a batch.
class History {
  public:
    Rows& next() { return states_.emplace_back(states_.empty() ? Rows() : states_.back()); }
    std::vector<Rows> newest(std::size_t count) const {
        const std::size_t first = states_.size() - std::min(count, states_.size());
        return {states_.begin() + static_cast<std::ptrdiff_t>(first), states_.end()};
    }

  private:
    std::vector<Rows> states_;
};

void write_some(SimStore& store, SimClient& client, TableId table, std::uint32_t round,
                History& history) {
    for (std::uint32_t id = 0; id < kRows; ++id) {
        Rows& rows = history.next();
        const Row row{id + round, id % 40 == 7 ? 9000 : 300 + id};
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, key_of(id), row.value());
        rows[id] = row;
        if (id % 10 == round) {
            bytes.operation(OperationKind::kDelete, table, key_of(id), {});
            rows.erase(id);
        }
        CHECK(store.commit(client, bytes).error == Error::kOk);
    }
}

struct Made {
    Made() {
        SimStore first(options(), std::make_unique<SimDisk>(), 1);
        CHECK(first.open().ok());
        SimClient& client = first.connect();
        table = first.create_table(client, rows_schema());
        write_some(first, client, table, 1, history);
        CHECK(first.stop());
        SimStore second(options(), first.disk->clone(1), 2);
        CHECK(second.open().ok());
        SimClient& again = second.connect();
        write_some(second, again, table, 2, history);
        AddBody add{};
        add.column = 1;
        add.delta = 3;
        TransactionBytes more;
        more.add(table, key_of(5), add);
        more.columns(OperationKind::kUpdate, table, key_of(6), 2, Bytes(20));
        more.operation(OperationKind::kDeleteRange, table, key_of(90), key_of(95));
        CHECK(second.commit(again, more).error == Error::kOk);
        Rows& rows = history.next();
        rows.at(5).n += 3;
        rows.at(6) = {rows.at(6).n, 20, std::byte{0}};
        rows.erase(rows.lower_bound(90), rows.lower_bound(95));
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
    History history;
    std::unique_ptr<SimDisk> with_log;
    std::unique_ptr<SimDisk> with_journal;
};

// ---- a run --------------------------------------------------------------------------------------

// The file that was changed; nothing when all is as it was.
std::optional<StoreFile> change(SimDisk& disk, FuzzInput& input, bool sealed) {
    const StoreFile file = static_cast<StoreFile>(input.take<std::uint8_t>() % 3);
    const std::uint64_t size = *disk.size_bytes(file);
    if (size < kPageBytes) return std::nullopt;
    const std::uint64_t pages = std::min<std::uint64_t>(size / kPageBytes, 400);
    const auto page = static_cast<std::uint32_t>(input.take<std::uint16_t>() % pages);
    const std::uint32_t place = input.take<std::uint16_t>() % kPageBytes;
    const auto bytes = input.take_bytes(
        std::min<std::size_t>(1 + input.take<std::uint8_t>() % 64, kPageBytes - place));
    if (bytes.empty()) return std::nullopt;
    disk.poke(file, page * std::uint64_t{kPageBytes} + place, bytes.data(), bytes.size());
    if (!sealed) return file;
    if (file == StoreFile::kData && page < 2) seal_superblock(disk, page);
    if (file == StoreFile::kData && page >= 2) seal_up(disk, PageId{page});
    if (file == StoreFile::kLog) seal_log(disk);
    if (file == StoreFile::kJournal) seal_journal(disk);
    return file;
}

// The rest of the input is the file.
void put_in_place(SimDisk& disk, FuzzInput& input, bool sealed) {
    const StoreFile file = static_cast<StoreFile>(input.take<std::uint8_t>() % 3);
    const std::uint64_t size = align_up(input.rest().size(), kPageBytes);
    CHECK(disk.resize(file, 0).ok());
    CHECK(disk.resize(file, size).ok());
    disk.poke(file, 0, input.rest().data(), input.rest().size());
    if (!sealed) return;
    for (std::uint32_t copy = 0; file == StoreFile::kData && copy < size / kBlockBytes; ++copy) {
        if (copy < 2) seal_superblock(disk, copy);
    }
    if (file == StoreFile::kLog) seal_log(disk);
    if (file == StoreFile::kJournal) seal_journal(disk);
}

// What is done with a store that was opened.
class Use {
  public:
    // may_be: what the rows may be; none: anything.
    Use(SimStore& store, TableId table, std::vector<Rows> may_be, bool changed)
        : store_(store),
          table_(table),
          may_be_(std::move(may_be)),
          checked_(!may_be_.empty()),
          changed_(changed),
          view_(must(PoolView::map(must(store.pool->open_read_only())))),
          client_(store.connect()) {}

    void run() {
        const std::string broken = store_.verify();
        if (!changed_) CHECK(broken.empty());
        look();
        if (write()) look();
        store_.stop();
    }

  private:
    enum class Answered : std::uint8_t { kRow, kError, kNothing };  // kNothing: it serves no more

    // `row` is nothing where there is none.
    Answered read(std::uint64_t id, std::optional<Bytes>& row) {
        TableEntry* entry = store_.engine->core().storage().catalog->find(table_);
        CHECK(entry != nullptr || !checked_);
        if (entry == nullptr) return Answered::kNothing;
        SimSnapshot snapshot(store_, view_, client_, 0);
        const auto found =
            snapshot.get(TreeShape(entry->schema, table_), entry->tree.root(), key_of(id));
        row.reset();
        if (found && *found) row = snapshot.whole(entry->schema, **found);
        const bool answered = found && (row || !*found);
        if (answered) return Answered::kRow;
        CHECK(changed_);
        return snapshot.trouble().starts_with("no answer") ? Answered::kNothing : Answered::kError;
    }
    void look() {
        for (std::uint64_t id = 0; id < kRows; ++id) {
            std::optional<Bytes> row;
            const Answered answered = read(id, row);
            if (answered == Answered::kNothing) return;
            if (answered == Answered::kError || !checked_) continue;
            std::erase_if(may_be_, [&](const Rows& rows) {
                const auto known = rows.find(id);
                if (known == rows.end()) return row.has_value();
                return !row || *row != known->second.value();
            });
            CHECK(!may_be_.empty());  // a row that never was, or rows of two different times
        }
    }
    // False when there is one without an answer, which may be in or not.
    bool write() {
        for (std::uint64_t id = 0; id < kRows; id += 7) {
            const Row row{id + 1000, id % 3 == 0 ? 12'000 : 100 + id, std::byte{'n'}};
            const bool erases = id % 2 == 0;
            TransactionBytes bytes;
            bytes.operation(OperationKind::kPut, table_, key_of(id), row.value());
            if (erases) {
                bytes.operation(OperationKind::kDelete, table_, key_of(id + 1), {}, kIfPresent);
            }
            const auto token = client_.submit(bytes.bytes());
            if (!token) return false;
            std::optional<Answer> answer;
            store_.run_until([&] { return (answer = client_.answer(*token)).has_value(); },
                             kRoundsMax);
            CHECK(changed_ || (answer && answer->error == Error::kOk));
            if (!answer) return false;
            if (answer->error != Error::kOk) continue;
            for (Rows& rows : may_be_) {
                rows[id] = row;
                if (erases) rows.erase(id + 1);
            }
        }
        return true;
    }

    SimStore& store_;
    TableId table_;
    std::vector<Rows> may_be_;
    bool checked_;
    bool changed_;
    PoolView view_;
    SimClient& client_;
};

}  // namespace
}  // namespace bidstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    static const Made* const made = new Made;
    FuzzInput input(data, size_bytes);
    const auto choice = input.take<std::uint8_t>();
    const bool sealed = choice & kSealed;
    auto disk = (choice & kWithJournal ? made->with_journal : made->with_log)->clone(1);
    std::uint32_t changes = 0;
    std::size_t of_log = 0;
    if ((choice & kWhatIsMeant) == kInPlaceOf) {
        put_in_place(*disk, input, sealed);
        changes = kChangesMax;
    }
    for (std::uint32_t i = changes; i < kChangesMax && !input.empty(); ++i) {
        const auto file = change(*disk, input, sealed);
        changes += file.has_value();
        of_log += file == StoreFile::kLog;
    }
    const bool any_rows = sealed && changes > 0;
    const std::size_t lost_most = of_log == 0 ? 0 : of_log + kBatchesBeside;
    SimStore store(options(), std::move(disk), 3);
    const Status opened = store.open();
    if (!opened.ok()) {
        CHECK(changes > 0 && !opened.failure().what.empty());
        return 0;
    }
    Use(store, made->table, any_rows ? std::vector<Rows>() : made->history.newest(1 + lost_most),
        changes > 0)
        .run();
    return 0;
}
