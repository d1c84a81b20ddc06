#include "engine/replay.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/blocking_io.h"
#include "engine/large_rows.h"
#include "engine/page/catalog_schema.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kCsnGap = std::uint64_t{1} << 20;  // between lives of the log
constexpr std::uint64_t kFramesPerRecord = 12;
constexpr const char* kImpossibleRow = "a row that its schema does not allow";
constexpr std::uint32_t kPagesAtLeast = 24;  // less than the reserve that serving leaves
constexpr std::uint64_t kSpareShare = 4;     // of the pool, for pages that did not change

// A value column that may be changed where it is: the time of a row is also in its leaf's bounds.
bool plain_column(const Schema& schema, std::uint32_t column) {
    return column >= schema.key_columns() && column < schema.columns().size() &&
           column != schema.time_column();
}

// Whether the leaf's bounds stay what they are when the rest of a row changes.
bool plain_time(const Schema& schema) {
    return schema.time_column() == kNoTimeColumn || schema.time_column() < schema.key_columns();
}

std::string mib(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// Sessions have records of their own, the catalog none of rows.
bool has_such_records(const TableEntry& table, RecordType type) {
    const bool of_session = type == RecordType::kSession || type == RecordType::kExpireSession;
    return of_session ? table.id == kSessionsTable : !table.system();
}

}  // namespace

Replay::Replay(Storage& storage, Progress progress, LeftOut left_out)
    : storage_(storage), progress_(std::move(progress)), left_out_(std::move(left_out)) {}

Status Replay::run(Engine::Recovery& found, WalStart& start) {
    const Superblock& superblock = storage_.superblock;
    found.checkpoint_csn = superblock.checkpoint_csn;
    replayed_ = {superblock.log_position, superblock.log_crc};
    replayed_csn_ = Csn{superblock.checkpoint_csn};
    const std::uint64_t from = superblock.log_position;
    const std::uint64_t began_ns = storage_.clock.monotonic_ns();
    const auto looked_through = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
        progress_([&] {
            return mib(replayed_.position - from) + " of log replayed, " + mib(done_bytes) +
                   " of at most " + mib(total_bytes) + " read";
        });
    };
    LogReader reader(storage_.disk, storage_.clock, log_read_start(superblock), looked_through);
    if (Status replayed = replay_all(reader, found); !replayed) return replayed;
    RecoveryTimes& times = found.times;
    times.read_ns = reader.waited_ns();
    times.rest_ns = reader.rest_ns();
    times.checkpoints_ns = checkpoints_ns_;
    times.replay_ns = storage_.clock.monotonic_ns() - began_ns - times.read_ns - times.rest_ns -
                      times.checkpoints_ns;
    found.checkpoints = checkpoints_;
    found.recovered_csn = replayed_csn_.value;
    found.clean = found.batches == 0;
    start.end = reader.end();
    start.newest_csn = Csn{reader.newest_csn().value + kCsnGap};
    start.newest_time_us = std::max(reader.newest_time_us(), superblock.newest_time_us);
    return {};
}

Status Replay::replay_all(LogReader& reader, Engine::Recovery& found) {
    for (;;) {
        if (Status looked = look_ahead(reader); !looked) return looked;
        if (ahead_.empty()) break;
        const Ahead& next = ahead_.front();
        if (Status applied = replay_batch(next); !applied) return applied;
        ++found.batches;
        found.log_bytes += next.batch.end.position - next.batch.position;
        found.records += next.batch.record_count;
        reader.release(next.batch.end.position);
        drop_front();
    }
    // The last batch may have changed more than the journal has places for; while the engine serves
    // it is not made longer.
    const Checkpointer& checkpointer = *storage_.checkpointer;
    if (checkpointer.journal_use(0, 0) > checkpointer.journal_capacity()) {
        if (Status done = checkpoint(); !done) return done;
    }
    close_pages();
    storage_.reserved_frames = 0;
    LogBatch none;
    const Result<bool> more = reader.next(none);  // whether something durable is missing
    if (more) CHECK(!*more);
    if (Status whole = left_out(more ? Status() : more.failure(), "the log ends there"); !whole) {
        return whole;
    }
    return write_kept_again();
}

// A batch with one behind it that calls it durable is so.
void Replay::note_kept(const LogBatch& batch) {
    std::erase_if(kept_, [&](const Kept& kept) { return kept.csn <= batch.durable_csn; });
    kept_.push_back({batch.csn, batch.position, batch.end.position - batch.position});
}

// Of the others nobody was told, perhaps because their write failed. A kernel may have taken what
// it could not write for clean: it is read, no sync writes it, and it goes with the power. So they
// are written before anybody is told; where they are durable, to the same bytes.
Status Replay::write_kept_again() {
    const Superblock& superblock = storage_.superblock;
    const LogShape shape = log_read_start(superblock).shape;
    BlockingIo io(storage_.disk, storage_.clock);
    for (const Kept& kept : kept_) {
        if (kept.csn.value <= superblock.durable_csn) continue;
        const std::uint64_t offset = shape.offset(kept.position);
        AlignedBuffer bytes(kept.length_bytes);
        Status done = io.read(StoreFile::kLog, offset, bytes.data(), kept.length_bytes);
        if (done) done = io.write(StoreFile::kLog, offset, bytes.data(), kept.length_bytes, true);
        if (!done) return done;
    }
    return {};
}

// Whether that is an error: not of a damaged log that is to be used as far as it goes.
Status Replay::left_out(const Status& fault, const std::string& what, bool costs_rows) {
    if (fault || fault.error() != Error::kCorruption || !left_out_) return fault;
    return left_out_(fault.failure().what + ": " + what, costs_rows);
}

// ---- batches ----

void Replay::open_pages(Csn csn) {
    if (storage_.pool.open_csn() == Csn{}) storage_.pool.begin_batch(csn);
}

// All that was replayed is what the pool shows.
void Replay::close_pages() {
    Pool& pool = storage_.pool;
    if (pool.open_csn() == Csn{}) return;
    pool.end_batch();
    pool.publish();
    if (Csn{pool.visible()} < replayed_csn_) pool.advance_visible(replayed_csn_);
}

Status Replay::checkpoint() {
    const std::uint64_t began_ns = storage_.clock.monotonic_ns();
    close_pages();
    storage_.at_work = [this] {
        progress_([this] {
            return "checkpoint in between, " +
                   std::to_string(storage_.checkpointer->images_written()) + " of about " +
                   std::to_string(storage_.checkpointer->images_expected()) + " pages written";
        });
    };
    const Status done = storage_.checkpoint(
        {replayed_csn_, replayed_.position, replayed_time_us_, replayed_.previous_crc,
         replayed_csn_});
    storage_.at_work = [] {};
    if (done) {
        storage_.reclaim({}, Storage::kAll);  // frames of large values that came and went
        storage_.end_quarantine({}, Storage::kAll, [&] { return Csn{storage_.pool.visible()}; });
    }
    checkpoints_ns_ += storage_.clock.monotonic_ns() - began_ns;
    ++checkpoints_;
    return done;
}

// A range is erased of a table that may have had dead leaves.
bool Replay::may_drop_leaves(const Ahead& ahead) {
    if (!ahead.erases_ranges) return false;
    return std::any_of(ahead.records.begin(), ahead.records.end(), [this](const Next& next) {
        if (next.record.type != RecordType::kDeleteRange) return false;
        const TableEntry* table = table_of(next.record.table);
        return table != nullptr && table->schema.time_column() != kNoTimeColumn;
    });
}

// A file that is full, or at its limit, gets pages back that were freed: by a checkpoint.
Result<bool> Replay::pages_in_reach(std::uint64_t pages) {
    Space& space = storage_.space;
    if (space.in_reach() >= pages || space.quarantined() == 0) return true;
    if (!space.extend(Space::grow_frames(pages - space.in_reach()))) return false;
    const Status grown = storage_.await_growth();
    if (!grown && grown.error() != Error::kNoSpace) return grown.failure();
    return space.in_reach() >= pages;
}

// Frames that are free, or that others give up for the asking: changed pages stay until a
// checkpoint has them, and the metadata of chunks always does. The same in each replay of a log.
std::uint64_t Replay::frames_in_reach() const {
    const std::uint64_t frames = storage_.pool.frame_count();
    const std::uint64_t held = storage_.pool.changed_count() + storage_.space.chunk_count();
    return frames - std::min(frames, held);
}

bool Replay::frames_to_spare() const {
    return frames_in_reach() > storage_.pool.frame_count() / kSpareShare;
}

// Frames and journal for what the batch may touch, by a checkpoint in between where they are short;
// that comes early enough for the look ahead to have frames.
Status Replay::make_room(std::uint64_t frames, std::uint64_t extent_pages, bool drops_leaves) {
    const Pool& pool = storage_.pool;
    const Checkpointer& checkpointer = *storage_.checkpointer;
    const auto enough = [&] {
        // A batch never needed more than half of the journal (Engine::Core::secure), nor what it
        // drops of dead leaves more than a quarter (Engine::Core::enough_to_replay). It may here,
        // beside old leaves: then the checkpoint behind it makes the journal longer.
        return frames_in_reach() >= frames + extent_pages &&
               checkpointer.journal_use(0, 0) <=
                   checkpointer.journal_capacity() / (drops_leaves ? 4 : 2);
    };
    const bool crowded = !frames_to_spare() && pool.changed_count() > pool.frame_count() / 8;
    const Result<bool> in_reach = pages_in_reach(kPagesAtLeast + extent_pages);
    if (!in_reach) return in_reach.failure();
    if ((!enough() || crowded || !*in_reach) && replayed_csn_ > checkpointer.covered()) {
        if (Status done = checkpoint(); !done) return done;
    }
    // When that was not enough for the worst, each record says whether it finds what it does take:
    // frames, and pages of a file that may grow, or be full.
    return {};
}

// That many frames are free now. What is on its way into others may be evicted when it is there.
Status Replay::secure_frames(std::uint64_t frames) {
    const Pool& pool = storage_.pool;
    storage_.reserved_frames = static_cast<std::uint32_t>(frames);
    if (pool.free_frames() >= frames) return {};
    const std::uint64_t deadline_ns = storage_.clock.monotonic_ns() + BlockingIo::kDeadlineNs;
    for (;;) {
        storage_.make_frames(frames);
        if (pool.free_frames() >= frames || storage_.loader.loading() == 0) break;
        storage_.disk.poll(BlockingIo::kDeadlineNs);
        if (storage_.clock.monotonic_ns() > deadline_ns) {
            return {Error::kIoError, "no answer from " + storage_.disk.path(StoreFile::kData) +
                                         " in 30 s; look at the device"};
        }
    }
    if (pool.free_frames() >= std::min(frames, kFramesPerRecord)) return {};
    return {Error::kTooLarge, kPoolTooSmall};
}

// A record's table; most are of one of a few.
TableEntry* Replay::table_of(TableId id) {
    Known& known = known_[id.value % known_.size()];
    if (known.table == nullptr || known.id != id) known = {id, storage_.catalog->find(id)};
    return known.table;
}

std::uint64_t Replay::extent_pages_of(const LogRecordView& record) {
    const TableEntry* table = table_of(record.table);
    return table == nullptr ? 0 : extent_pages_at_most(table->schema, record.type, record.body);
}

std::uint64_t Replay::extent_pages_of(const Ahead& ahead) {
    const auto tables = storage_.catalog->all();
    const bool any = std::any_of(tables.begin(), tables.end(), [](const TableEntry* table) {
        return !table->system() && table->schema.has_variable();
    });
    if (!any) return 0;
    std::uint64_t pages = 0;
    for (const Next& next : ahead.records) pages += extent_pages_of(next.record);
    return pages;
}

Status Replay::replay_batch(const Ahead& ahead) {
    const LogBatch& batch = ahead.batch;
    // The batch had room when it was made, so half of everything is enough for it.
    std::uint64_t frames = storage_.pool.frame_count() / 2;
    if (!ahead.erases_ranges) {
        frames = std::min(frames, kFramesPerBatch + kFramesPerRecord * batch.record_count);
    }
    const std::uint64_t extent_pages =
        std::min<std::uint64_t>(extent_pages_of(ahead), storage_.pool.frame_count() / 4);
    if (Status room = make_room(frames, extent_pages, may_drop_leaves(ahead)); !room) return room;
    open_pages(batch.csn);
    replaying_ = batch.csn;
    for (const Next& next : ahead.records) {
        fetch_near();
        if (Status applied = replay_record(next); !applied) {
            return {applied.error(), "replay of the batch with csn " +
                                         std::to_string(batch.csn.value) + " at log position " +
                                         std::to_string(batch.position) + ": " +
                                         applied.failure().what};
        }
        ++replayed_records_;
    }
    if (Status whole = left_out(ahead.fault, "its other records are left out"); !whole)
        return whole;
    replayed_ = batch.end;
    replayed_csn_ = batch.csn;
    note_kept(batch);
    replayed_time_us_ = batch.time_us;
    return {};
}

// ---- records ----

Status Replay::replay_record(const Next& next) {
    const LogRecordView& record = next.record;
    const bool of_row =
        record.type <= RecordType::kAddColumn || record.type == RecordType::kSession;
    if (of_row) {
        TableEntry* const table = table_of(record.table);
        bool done = false;
        const bool fits = table != nullptr && has_such_records(*table, record.type) &&
                          record.key.size() == table->schema.key_bytes();
        if (fits) {
            const Status status = replay_row(next, *table, done);
            if (!status || done) return status;
        }
    } else {
        known_ = {};  // it may be made or dropped
    }
    arena_.reset();
    if (Status free = secure_frames(kFramesPerBatch + extent_pages_of(record)); !free) return free;
    const bool takes_pages =
        record.type != RecordType::kDeleteRow && record.type != RecordType::kDeleteRange &&
        record.type != RecordType::kExpireSession && record.type != RecordType::kMoveFloor;
    if (takes_pages) {
        if (Status secured = storage_.secure_space(kPagesAtLeast); !secured) return secured;
    }
    Effect effect;
    effect.type = record.type;
    effect.table_id = record.table;
    effect.key = record.key;
    effect.body = record.body;
    if (Status made = effect_of(record, effect); !made) {
        // A rebuild's floor may be above the one that is logged.
        const bool costs_rows = record.type != RecordType::kMoveFloor;
        return left_out(made,
                        "record of table " + std::to_string(record.table.value) + " with csn " +
                            std::to_string(replaying_.value) + " is left out",
                        costs_rows);
    }
    std::vector<ExtentNeed> extents;
    if (effect.table != nullptr && !effect.value.empty()) {
        append_extents(effect.table->schema, effect.table->id, effect.value, extents);
    }
    if (!extents.empty()) {
        std::uint64_t frames = kFramesPerRecord;
        for (const ExtentNeed& need : extents) frames += need.pages;
        if (storage_.pool.free_frames() < frames) return {Error::kTooLarge, kPoolTooSmall};
        if (Status secured = storage_.secure_space(kPagesAtLeast, extents); !secured)
            return secured;
    }
    apply_effect(effect, *storage_.catalog);
    if (!of_row) known_ = {};
    return {};
}

// Where the look ahead found the row's place: a leaf of the table, or nullptr. It may have been
// freed since; not used again as part of a large value, whose bytes may look like anything.
const std::byte* Replay::leaf_of(const Next& next, const TableEntry& table) const {
    const Pool& pool = storage_.pool;
    if (!next.leaf || table.schema.has_variable() || !pool.resident(next.leaf)) return nullptr;
    if (storage_.space.is_extent(next.leaf)) return nullptr;
    const std::byte* bytes = pool.newest_of(next.leaf);
    const PageHeader& header = page_header(bytes);
    const bool leaf = header.type == PageType::kLeaf && header.table_id == table.id.value;
    return leaf ? bytes : nullptr;
}

// The row's value where the look ahead found its place, to be changed there; nothing when it is not
// there any more, or was not. A leaf of the table that is in use and has the key is its place: no
// other one has it. Rows of a table with a floor may be dead: they are left to the tree.
std::span<std::byte> Replay::value_in(const Next& next, const TableEntry& table) {
    if (next.row == kNoRow) return {};
    const std::byte* bytes = leaf_of(next, table);
    if (bytes == nullptr || !storage_.space.allocated(next.leaf)) return {};
    if (table.tree.floor() != 0) return {};
    const LeafView rows(bytes, table.tree.shape().leaf);
    const std::byte* key = next.record.key.data();
    const int row = next.row == kRowUnknown
                        ? rows.find(key)
                        : rows.find_near(key, static_cast<std::uint32_t>(next.row));
    if (row < 0) return {};
    std::byte* page = storage_.space.writable(next.leaf);
    const auto value =
        LeafView(page, table.tree.shape().leaf).value(static_cast<std::uint32_t>(row));
    return {page + (value.data() - page), value.size()};
}

// Empty: there is no such row.
Status Replay::find_value(const Next& next, TableEntry& table, std::span<std::byte>& value) {
    value = value_in(next, table);
    if (!value.empty()) return {};
    MutableLookup row;
    const Status found = storage_.complete([&] {
        row = table.tree.mutable_value(next.record.key.data());
        return row;
    });
    if (row.found) value = row.value;
    return found;
}

// The plain cases, which are nearly all, with one way down the tree. What is not one of them, or is
// wrong with the record, is left to the general way: `done` stays false, and nothing was changed.
Status Replay::replay_row(const Next& next, TableEntry& table, bool& done) {
    const RecordType type = next.record.type;
    if (type == RecordType::kAddColumn) return add_in_place(next, table, done);
    if (type == RecordType::kUpdateColumns) return update_in_place(next, table, done);
    return put_whole(next, table, done);
}

Status Replay::put_whole(const Next& next, TableEntry& table, bool& done) {
    const LogRecordView& record = next.record;
    const Schema& schema = table.schema;
    if (!schema.valid_value(record.body)) return {};
    if (schema.has_variable() && RowView(schema, record.body).wide()) return {};
    const auto there = plain_time(schema) ? value_in(next, table) : std::span<std::byte>();
    if (there.size() == record.body.size() && !there.empty()) {
        std::copy(record.body.begin(), record.body.end(), there.begin());
        done = true;
        return {};
    }
    if (Status free = secure_frames(kFramesPerBatch); !free) return free;
    if (storage_.space.available() < kPagesAtLeast) {
        if (Status secured = storage_.secure_space(kPagesAtLeast); !secured) return secured;
    }
    done = true;
    return storage_.complete([&] { return table.tree.put(record.key.data(), record.body); });
}

Status Replay::add_in_place(const Next& next, TableEntry& table, bool& done) {
    const LogRecordView& record = next.record;
    const Schema& schema = table.schema;
    LoggedAdd logged{};
    if (schema.has_variable() || record.body.size() != sizeof logged) return {};
    std::memcpy(&logged, record.body.data(), sizeof logged);
    if (!plain_column(schema, logged.column)) return {};
    const Column& column = schema.columns()[logged.column];
    if (!is_integer(column.type)) return {};
    std::span<std::byte> value;
    const Status found = find_value(next, table, value);
    if (!found || value.empty()) return found;
    const std::uint64_t old = column_integer(schema, logged.column, record.key.data(), value);
    const Result<std::uint64_t> sum = added(column.type, old, logged.delta);
    if (!sum || *sum != static_cast<std::uint64_t>(logged.result)) return {};
    std::memcpy(value.data() + schema.offset_bytes(logged.column), &*sum, column.width_bytes);
    done = true;
    return {};
}

Status Replay::update_in_place(const Next& next, TableEntry& table, bool& done) {
    const LogRecordView& record = next.record;
    const Schema& schema = table.schema;
    if (schema.has_variable()) return {};
    const bool plain = each_column(record.body, [&](std::uint16_t column, auto content) {
        return plain_column(schema, column) &&
               content.size() == schema.columns()[column].width_bytes;
    });
    if (!plain) return {};
    std::span<std::byte> value;
    const Status found = find_value(next, table, value);
    if (!found || value.empty()) return found;
    each_column(record.body, [&](std::uint16_t column, auto content) {
        std::copy(content.begin(), content.end(), value.data() + schema.offset_bytes(column));
        return true;
    });
    done = true;
    return {};
}

Status Replay::effect_of(const LogRecordView& record, Effect& effect) {
    Catalog& catalog = *storage_.catalog;
    const bool makes =
        record.type == RecordType::kCreateTable || record.type == RecordType::kBeginLoad;
    if (record.type == RecordType::kFinishLoad) return loaded_table(record);
    if (makes || record.type == RecordType::kDropTable) {
        if (record.table < kFirstUserTable || record.table > kLastTable) {
            return corrupt("table " + std::to_string(record.table.value) + " is none that can be " +
                           (makes ? "made" : "dropped"));
        }
        const bool exists = catalog.find(record.table) != nullptr;
        if (exists == makes) {
            return corrupt("table " + std::to_string(record.table.value) +
                           (exists ? " is made twice" : " is dropped, but not there"));
        }
        const Result<Schema> schema = Schema::decode(record.body);
        if (!exists && !schema) return corrupt("a table without a schema");
        TableAttributes attributes{};
        if (!exists && !attributes_of(record.key, *schema, attributes)) {
            return corrupt("a table with impossible attributes");
        }
        if (!exists && catalog_row_bytes(*schema) > kRowBytesMax) {
            return corrupt("a table whose row is too long for the catalog");
        }
        return catalog_place(record.table);
    }
    effect.table = catalog.find(record.table);
    if (effect.table == nullptr) {
        return corrupt("a record of table " + std::to_string(record.table.value) +
                       ", which is not there");
    }
    if (record.type == RecordType::kSetTable || record.type == RecordType::kMoveFloor) {
        return table_effect(record, *effect.table);
    }
    const std::size_t key_bytes = effect.table->schema.key_bytes();
    const bool range = record.type == RecordType::kDeleteRange;
    if (record.key.size() != key_bytes ||
        (range && !record.body.empty() && record.body.size() != key_bytes)) {
        return corrupt("a key of wrong size");
    }
    if (!has_such_records(*effect.table, record.type)) {
        return corrupt("a record of another kind of table");
    }
    if (range) return range_effect(record, effect.table->tree);
    return row_effect(record, effect);
}

// The checkpoint that this replay began with, or a later one, has to hold the loaded rows.
Status Replay::loaded_table(const LogRecordView& record) {
    Catalog& catalog = *storage_.catalog;
    const std::string who = "table " + std::to_string(record.table.value);
    TableEntry* table = catalog.find(record.table);
    LoggedLoad load{};
    if (table == nullptr || !table->hidden() || record.body.size() != sizeof load) {
        return corrupt(who + " was not being loaded, but its load ends");
    }
    std::memcpy(&load, record.body.data(), sizeof load);
    bool empty = true;
    const Status looked = storage_.complete([&] {
        return table->tree.visit_range(nullptr, nullptr,
                                       [&](const std::byte*, std::span<const std::byte>) {
                                           empty = false;
                                           return false;
                                       });
    });
    if (!looked) return looked;
    if (empty != (load.rows == 0)) return corrupt(who + " was loaded, but has no rows");
    std::byte key[4];
    encode_key_integer(key, record.table.value, 4, false);
    return storage_.complete([&] { return catalog.catalog().tree.get(key); });
}

// Where the table's row of the catalog is comes into the pool.
Status Replay::catalog_place(TableId table) {
    std::byte key[4];
    encode_key_integer(key, table.value, 4, false);
    return storage_.complete([&] { return storage_.catalog->catalog().tree.get(key); });
}

Status Replay::table_effect(const LogRecordView& record, const TableEntry& table) {
    if (record.type == RecordType::kSetTable) {
        TableAttributes attributes{};
        if (record.body.empty() || !attributes_of(record.body, table.schema, attributes)) {
            return corrupt("impossible attributes of table " + table.schema.name());
        }
        return catalog_place(record.table);
    }
    std::uint64_t floor = 0;
    if (record.body.size() != sizeof floor) return corrupt("a floor of wrong size");
    if (table.schema.time_column() == kNoTimeColumn) {
        return corrupt("a floor of table " + table.schema.name() + ", which has no times");
    }
    std::memcpy(&floor, record.body.data(), sizeof floor);
    if (storage_.pool.newest(table.tree.root()) == nullptr) {
        if (Status come = storage_.bring_in(table.tree.root()); !come) return come;
    }
    if (floor < table.tree.floor()) return corrupt("a floor that falls");
    return {};
}

Status Replay::row_effect(const LogRecordView& record, Effect& effect) {
    const Schema& schema = effect.table->schema;
    Lookup old;
    const Status found = storage_.complete([&] {
        old = effect.table->tree.get(record.key.data());
        return old;
    });
    if (!found) return found;
    const bool whole = record.type == RecordType::kPutRow || record.type == RecordType::kSession;
    if (!whole && !old.found) return corrupt("a change of a row that is not there");
    if (whole) {
        if (!schema.valid_value(record.body)) return corrupt(kImpossibleRow);
        effect.value = record.body;
    } else if (record.type == RecordType::kUpdateColumns) {
        effect.value = patched_row(schema, old.value, record.body, arena_);
    } else if (record.type == RecordType::kAddColumn) {
        LoggedAdd logged{};
        if (record.body.size() != sizeof logged) return corrupt("an add of wrong size");
        std::memcpy(&logged, record.body.data(), sizeof logged);
        if (logged.column < schema.key_columns() || logged.column >= schema.columns().size() ||
            !is_integer(schema.columns()[logged.column].type)) {
            return corrupt("an add to a column that is no number");
        }
        const ColumnType type = schema.columns()[logged.column].type;
        const std::uint64_t before =
            column_integer(schema, logged.column, record.key.data(), old.value);
        const Result<std::uint64_t> sum = added(type, before, logged.delta);
        if (!sum || *sum != static_cast<std::uint64_t>(logged.result)) {
            return corrupt("an add whose old value and delta do not give its result");
        }
        effect.value = with_integer(schema, logged.column, old.value, *sum, arena_);
    } else {
        return {};  // a deletion
    }
    if (!whole && row_value_fault(schema, effect.value) != nullptr) {
        return corrupt(kImpossibleRow);
    }
    return {};
}

}  // namespace bidstore
