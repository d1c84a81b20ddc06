// Large values that lie in chunks which a compaction empties move to free runs further in front.
//
//   walk    the rows of the tables that have extents in these chunks, in the order of keys, some
//           rows in a round
//   copy    a value that has a page there, a piece at a time (engine/extent_move.h)
//   attach  one batch: the row refers to the copy, and the old extent is freed as with a
//           replacement, so snapshots below the batch go on reading it. Not logged, as moves of
//           pages are not: replay has the old place, or puts the value anew.
//
// A value that comes meanwhile does not come to lie in a closed chunk, so one walk finds all. What
// it leaves there are dead rows', which the sweep of retention frees: such a chunk stays for now.
#include <algorithm>
#include <array>

#include "engine/engine_core.h"
#include "engine/large_rows.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRowsLookedAt = 512;  // in a round
constexpr std::uint32_t kMovedRunsMax = kValueRunsMax / 2;

}  // namespace

Engine::Core::Wait Engine::Core::move_extents(PageId& missing) {
    if (extent_move_.idle()) return next_extent(missing);
    compaction_.moved += extent_move_.pump();
    if (extent_move_.copied() || extent_move_.failed()) return attach_copy(missing);
    return Wait::kCopy;
}

Engine::Core::Wait Engine::Core::next_extent(PageId& missing) {
    while (!compaction_.tables.empty()) {
        const PagesInUse looked_at(storage_.pool);
        const TableEntry* table = storage_.catalog->find(compaction_.tables.back());
        const MovingValue value = table != nullptr ? find_moving(*table) : MovingValue{};
        if (value.missing) {
            missing = value.missing;
            storage_.loader.want(missing);
            return Wait::kPage;
        }
        if (value.corrupt) {
            compaction_.damaged = value.corrupt;
            return Wait::kNone;
        }
        if (value.found) {
            if (extent_move_.begin(table->id, compaction_.walked, value.reference, kMovedRunsMax)) {
                extent_move_.pump();
                return Wait::kCopy;
            }
            // The free pages lie in too many pieces.
            for (const ExtentRun& run : value.reference.all_runs()) {
                const std::uint32_t chunk = chunk_of(PageId{run.first});
                if (storage_.space.closed(chunk)) keep_chunk(chunk);
            }
            return Wait::kCopy;
        }
        if (table != nullptr && !value.end) {
            return Wait::kCopy;
        }
        compaction_.tables.pop_back();
        compaction_.walked.clear();
    }
    const std::vector<std::uint32_t> chunks = compaction_.chunks;
    for (const std::uint32_t chunk : chunks) {
        if (storage_.space.has_extents(chunk)) keep_chunk(chunk);
    }
    return Wait::kNone;
}

// From the row that the walk came to; it goes on there.
Engine::Core::MovingValue Engine::Core::find_moving(const TableEntry& table) {
    MovingValue value;
    if (storage_.pool.newest(table.tree.root()) == nullptr) {
        value.missing = table.tree.root();
        return value;
    }
    const std::uint64_t floor = table.tree.floor();
    const std::uint32_t key_bytes = table.schema.key_bytes();
    std::vector<std::byte>& walked = compaction_.walked;
    const std::vector<std::byte> from = walked;
    std::uint32_t rows = 0;
    bool nonsense = false;  // what the row refers to is not the table's
    const TreeAccess access = table.tree.visit_range(
        key_bound(from), nullptr, [&](const std::byte* key, std::span<const std::byte> row) {
            walked.assign(key, key + key_bytes);
            if (++rows > kRowsLookedAt) return false;
            if (!table.schema.live(key, row, floor)) return true;
            RowView(table.schema, row)
                .each_reference([&](std::uint32_t, const ValueReference& reference) {
                    for (const ExtentRun& run : reference.all_runs()) {
                        if (value.found || !storage_.space.closed(chunk_of(PageId{run.first}))) {
                            continue;
                        }
                        value.found = true;
                        value.reference = reference;
                        nonsense = !storage_.space.has_extent(table.id, reference);
                    }
                });
            return !value.found;
        });
    static_cast<TreeAccess&>(value) = access;
    if (value.found) value.missing = value.corrupt = PageId{};
    if (value.found && nonsense) {
        const PageId leaf = table.tree.get(walked.data()).leaf;
        value.corrupt = leaf ? leaf : table.tree.root();
    }
    value.end = access.ok() && !value.found && rows <= kRowsLookedAt;
    return value;
}

// The row may have changed, or gone, while its value was copied: then the copy is for nothing, and
// what was wrong with the copying is, too.
Engine::Core::Wait Engine::Core::attach_copy(PageId& missing) {
    ExtentMove& move = extent_move_;
    if (!move.quiet()) return Wait::kCopy;
    const PagesInUse looked_at(storage_.pool);
    TableEntry* table = storage_.catalog->find(move.table());
    Lookup row;
    if (table != nullptr) row = table->tree.get(move.key().data());
    if (row.missing) {
        missing = row.missing;
        storage_.loader.want(missing);
        return Wait::kPage;
    }
    // In more pieces the value's reference is longer, and the row fills its page.
    const std::uint64_t row_bytes = table == nullptr
                                        ? 0
                                        : table->schema.key_bytes() + row.value.size() +
                                              sizeof(ExtentRun) * move.to().run_count;
    if (!move.failed() && row_bytes > kRowBytesMax + sizeof(ExtentRun) * move.from().run_count) {
        return leave_copy();
    }
    std::array<std::byte, kRowBytesMax> bytes;
    std::span<const std::byte> moved;
    if (row.found) moved = moved_row(table->schema, row.value, move.from(), move.to(), bytes);
    if (row.corrupt) compaction_.damaged = row.corrupt;
    if (!moved.empty() && move.failed()) {
        compaction_.damaged = move.bad_page();
        compaction_.error = move.failure().code;
        say(3, "compaction: " + move.failure().what);
    }
    if (moved.empty() || move.failed()) {
        move.end(false);
        return Wait::kNone;
    }
    const std::byte* key = move.key().data();
    housekeeping_room_.reset();
    housekeeping_room_.put(table->tree, key, moved.size(), row);
    Room runs;
    // Those of the row's other extents, too: a change of the row may stamp them (stamp_extent).
    runs.value_runs = value_runs(table->schema, row.value) + move.to().run_count;
    housekeeping_room_.add(runs);
    Refused refused;
    const Wait wait = secure(housekeeping_room_.total(), 0, refused);
    if (wait != Wait::kNone) return Wait::kRoom;
    if (refused.error != Error::kOk) return leave_copy();
    storage_.space.attach_copy(table->id, move.to().all_runs(),
                               newest_of_row(table->schema, key, row.value));
    CHECK(table->tree.put(key, moved).ok());
    move.end(true);
    commit_->touch();
    return Wait::kNone;
}

// The value stays where it is.
Engine::Core::Wait Engine::Core::leave_copy() {
    for (const ExtentRun& run : extent_move_.from().all_runs()) {
        keep_chunk(chunk_of(PageId{run.first}));
    }
    extent_move_.end(false);
    return Wait::kNone;
}

// Of a compaction that has ended.
bool Engine::Core::pump_compaction() {
    if (compaction_.client_id != 0 || extent_move_.idle() || !extent_move_.quiet()) return false;
    extent_move_.end(false);
    return true;
}

}  // namespace bidstore
