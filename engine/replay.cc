#include "engine/replay.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/large_rows.h"
#include "engine/page/catalog_schema.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kCsnGap = std::uint64_t{1} << 20;  // between lives of the log
constexpr std::uint64_t kFramesPerRecord = 12;
constexpr std::uint64_t kFramesPerBatch = 64;
constexpr std::uint32_t kPagesAtLeast = 24;  // less than the reserve that serving leaves

Status corrupt(std::string what) { return {Error::kCorruption, std::move(what)}; }

std::string mib(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

Replay::Replay(Storage& storage, Progress progress)
    : storage_(storage), progress_(std::move(progress)) {}

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
    for (;;) {
        LogBatch batch;
        const Result<bool> more = reader.next(batch);
        if (!more) return more.failure();
        if (!*more) break;
        if (Status applied = replay_batch(batch); !applied) return applied;
        ++found.batches;
        found.log_bytes += batch.end.position - batch.position;
        found.records += batch.record_count;
    }
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

Status Replay::checkpoint(const CheckpointTarget& target) {
    const std::uint64_t began_ns = storage_.clock.monotonic_ns();
    storage_.at_work = [this] {
        progress_([this] {
            return "checkpoint in between, " +
                   std::to_string(storage_.checkpointer->images_written()) + " of about " +
                   std::to_string(storage_.checkpointer->images_expected()) + " pages written";
        });
    };
    const Status done = storage_.checkpoint(target);
    storage_.at_work = [] {};
    checkpoints_ns_ += storage_.clock.monotonic_ns() - began_ns;
    ++checkpoints_;
    return done;
}

// Frames and journal for what the batch may touch: eviction first, else a checkpoint in between.
Status Replay::make_room(std::uint64_t frames, std::uint64_t extent_pages) {
    Pool& pool = storage_.pool;
    // A batch never needs more than half of the journal (Engine::Core::secure).
    const Checkpointer& checkpointer = *storage_.checkpointer;
    const auto journal_half_free = [&] {
        return checkpointer.journal_use(0, 0) <= checkpointer.journal_capacity() / 2;
    };
    frames += extent_pages;
    const auto short_of = [&] {
        return pool.free_frames() < frames || !journal_half_free() ||
               storage_.space.available() < kPagesAtLeast + extent_pages;
    };
    storage_.reclaim({}, Storage::kAll);
    if (!short_of()) return {};
    storage_.make_frames(frames);
    if (!short_of()) return {};
    if (replayed_csn_ > storage_.checkpointer->covered()) {
        const CheckpointTarget target{replayed_csn_, replayed_.position, 0, replayed_.previous_crc,
                                      replayed_csn_};
        if (Status done = checkpoint(target); !done) return done;
        storage_.end_quarantine({}, Storage::kAll, [&] { return Csn{pool.visible()}; });
        storage_.make_frames(frames);
    }
    // Without pages to spare the file may grow, or be full: the records say which.
    if (pool.free_frames() >= frames && journal_half_free()) return {};
    return {Error::kTooLarge,
            "recovery: the pool or the journal is too small for the log: raise "
            "pool_bytes or journal_bytes"};
}

std::uint64_t Replay::extent_pages_of(const LogRecordView& record) const {
    const TableEntry* table = storage_.catalog->find(record.table);
    return table == nullptr ? 0 : extent_pages_at_most(table->schema, record.type, record.body);
}

std::uint64_t Replay::extent_pages_of(const LogBatch& batch) const {
    const auto tables = storage_.catalog->all();
    const bool any = std::any_of(tables.begin(), tables.end(), [](const TableEntry* table) {
        return !table->system() && table->schema.has_variable();
    });
    if (!any) return 0;
    std::uint64_t pages = 0;
    RecordReader records(batch);
    LogRecordView record;
    for (;;) {
        const Result<bool> more = records.next(record);
        if (!more || !*more) return pages;  // what is wrong with it, replay says
        pages += extent_pages_of(record);
    }
}

Status Replay::replay_batch(const LogBatch& batch) {
    // The batch had room when it was made, so half of everything is enough for it.
    const std::uint64_t frames = std::min({kFramesPerBatch + kFramesPerRecord * batch.record_count,
                                           std::uint64_t{storage_.pool.frame_count()} / 2});
    const std::uint64_t extent_pages =
        std::min<std::uint64_t>(extent_pages_of(batch), storage_.pool.frame_count() / 4);
    if (Status room = make_room(frames, extent_pages); !room) return room;
    storage_.pool.begin_batch(batch.csn);
    RecordReader records(batch);
    for (;;) {
        LogRecordView record;
        const Result<bool> more = records.next(record);
        if (!more) return more.failure();
        if (!*more) break;
        if (Status applied = replay_record(record); !applied) {
            return {applied.error(), "replay of the batch with csn " +
                                         std::to_string(batch.csn.value) + " at log position " +
                                         std::to_string(batch.position) + ": " +
                                         applied.failure().what};
        }
    }
    storage_.pool.end_batch();
    storage_.pool.publish();
    replayed_ = batch.end;
    replayed_csn_ = batch.csn;
    return {};
}

Status Replay::replay_record(const LogRecordView& record) {
    arena_.reset();
    storage_.make_frames(kFramesPerBatch + extent_pages_of(record));
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
    if (Status made = effect_of(record, effect); !made) return made;
    std::vector<ExtentNeed> extents;
    if (effect.table != nullptr && !effect.value.empty()) {
        append_extents(effect.table->schema, effect.table->id, effect.value, extents);
    }
    if (!extents.empty()) {
        if (Status secured = storage_.secure_space(kPagesAtLeast, extents); !secured)
            return secured;
    }
    apply_effect(effect, *storage_.catalog);
    return {};
}

Status Replay::effect_of(const LogRecordView& record, Effect& effect) {
    Catalog& catalog = *storage_.catalog;
    const bool makes =
        record.type == RecordType::kCreateTable || record.type == RecordType::kBeginLoad;
    if (record.type == RecordType::kFinishLoad) return loaded_table(record);
    if (makes || record.type == RecordType::kDropTable) {
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
    if (record.key.size() != effect.table->schema.key_bytes())
        return corrupt("a key of wrong size");
    if (record.type == RecordType::kDeleteRange) {
        const std::byte* high = record.body.empty() ? nullptr : record.body.data();
        RangeCost cost;
        const Status counted = storage_.complete([&] {
            cost = effect.table->tree.range_cost(record.key.data(), high, ~0ull >> 1);
            return cost;
        });
        storage_.make_frames(2 * cost.pages + kFramesPerBatch);
        // Making room may have cost a page of the range.
        return !counted ? counted : storage_.complete([&] {
            return effect.table->tree.range_cost(record.key.data(), high, ~0ull >> 1);
        });
    }
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
    if (row_value_fault(schema, effect.value) != nullptr) {
        return corrupt("a row that its schema does not allow");
    }
    return {};
}

}  // namespace bidstore
