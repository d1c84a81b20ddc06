// Compaction: the last chunks of the file are emptied and given back, while everything goes on.
//
//   merge   leaves all over the file that are so sparse that two fit into one
//   first   what is in quarantine comes back, with a checkpoint
//   plan    as many of the last chunks as the others have free pages for, beyond what growth would
//           be due at; they give no pages from then on
//   move    their pages, a few at a step, to places further in front: a change to the trees that is
//           not logged (engine/btree_move.cc); and the large values that lie in them
//           (engine/engine_extent_moves.cc)
//   wait    for a checkpoint, and for the snapshots that still see the old places: the quarantine
//           of freed pages
//   retire  the last chunks, with nothing in them, leave the store; a checkpoint without them
//           follows
//   cut     the file gives their blocks back (engine/growth.h)
//   punch   chunks with nothing in them that have others behind them give their blocks back where
//           they stand; one of them is filled again when the file can then end sooner
//
// Each step is a request of the client, which sets the pace; only what has to happen between two
// checkpoints happens at the end of one, for a step that met one. When the client goes away, or is
// given up (engine/engine_silence.cc), the chunks that were being emptied are in use again as
// before. A crash finds the trees before or after a batch of moves, and a file that is as long as
// the last checkpoint needs, or longer.
//
// Roots keep their page for life, so a chunk with one of them stays, as room for others. To move
// them would take a change of the catalog that every client's cached root has to follow, and a mark
// in the page that tells a root from a leaf of the same table that came to lie there later; holes
// give back as much with neither.
#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/engine_core.h"
#include "shm/message.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kChunksAtATime = 128;
constexpr std::uint64_t kHolePages = kChunkPages - 2;  // of a chunk, at least
constexpr Room kMoveRoom{3, 1, 1};  // parent, page and left neighbour; the new place

}  // namespace

Engine::Core::Wait Engine::Core::handle_compact(const ClientRequest& request, PageId& page) {
    CompactRequest wanted{};
    if (request.payload.size() < sizeof wanted) {
        port_.hostile(request.from.client_id, "a malformed compaction request");
        return Wait::kNone;
    }
    std::memcpy(&wanted, request.payload.data(), sizeof wanted);
    const std::uint64_t client = request.from.client_id;
    Error refused = Error::kOk;
    if (wanted.pages == 0 || wanted.pages > kCompactPagesMax) refused = Error::kInvalid;
    if (std::erase(compactions_given_up_, client) > 0) refused = Error::kTimedOut;
    if (request.rights < Rights::kAdmin) refused = Error::kDenied;
    const bool others = compaction_.client_id != 0 && compaction_.client_id != client;
    if (refused == Error::kOk && others && !give_up_compaction("another one begins")) {
        refused = Error::kBusy;
    }
    if (refused != Error::kOk) {
        port_.answer(request.from, refused);
        return Wait::kNone;
    }
    if (compaction_.client_id == 0) begin_compaction(client);
    compaction_.heard_ns = clock_.monotonic_ns();
    compaction_.moved = compaction_.looked = 0;
    Wait wait = Wait::kNone;
    const CompactState state = compact(wanted.pages, wait, page);
    const bool goes_on = wait == Wait::kPage || wait == Wait::kCopy;
    if (goes_on && compaction_.moved + compaction_.looked == 0) return wait;
    if (compaction_.damaged) {
        port_.answer(request.from, compaction_.error, Csn{}, compaction_.damaged.value);
        end_compaction();
        return Wait::kNone;
    }
    std::int64_t left = 0;
    for (const std::uint32_t chunk : compaction_.chunks) left += storage_.space.used_in(chunk);
    TableId table;
    const std::uint32_t last = storage_.space.chunk_count() - 1;
    const bool stays = static_cast<bool>(root_in(last, table));
    const std::int64_t results[kCompactResults] = {
        static_cast<std::int64_t>(state),
        static_cast<std::int64_t>(compaction_.moved),
        left,
        static_cast<std::int64_t>(compaction_.given_back_bytes),
        static_cast<std::int64_t>(storage_.space.growth().chunks() * kChunkBytes),
        stays ? std::int64_t{last} : -1,
        stays ? std::int64_t{table.value} : 0,
        static_cast<std::int64_t>(compaction_.looked)};
    port_.answer(request.from, Error::kOk, Csn{}, kNoOperation, results);
    if (state == CompactState::kDone) end_compaction();
    return Wait::kNone;
}

void Engine::Core::begin_compaction(std::uint64_t client_id) {
    compaction_.client_id = client_id;
    for (const TableEntry* table : storage_.catalog->all()) {
        if (table->id != kCatalogTable) compaction_.sparse.push_back(table->id);
    }
}

void Engine::Core::end_compaction() {
    storage_.space.reopen();
    compaction_ = {};
}

CompactState Engine::Core::compact(std::uint32_t pages, Wait& wait, PageId& page) {
    Space& space = storage_.space;
    // A load takes whole chunks where it finds them: one thing after the other.
    while (BulkLoad* load = silent_load(false)) give_up(*load, "a compaction waits for its end");
    if (!space.growth().idle() || loading()) return CompactState::kWaiting;
    note_growth();
    if (!compaction_.sparse.empty()) {
        wait = merge_leaves(pages, page);
        const bool some = compaction_.moved + compaction_.looked > 0;
        const bool stuck = wait != Wait::kNone || compaction_.damaged;
        return some || !stuck ? CompactState::kMoving : CompactState::kWaiting;
    }
    // Somebody was in want of room, and took the chunks back.
    if (!compaction_.chunks.empty() && space.closed_chunks() == 0) compaction_.chunks.clear();
    if (compaction_.chunks.empty() && extent_move_.idle()) {
        const Csn waits = space.oldest_quarantined();
        if (waits && waits <= compaction_.begun) {
            wait_for_checkpoint();
            return CompactState::kWaiting;
        }
        plan_compaction();
        if (!space.growth().idle()) return CompactState::kWaiting;
    }
    wait = move_pages(pages, page);
    if (wait == Wait::kNone && !compaction_.damaged) wait = move_extents(page);
    // What it freed itself is room for the next plan.
    if (compaction_.moved > 0) wait_for_freed();
    if (compaction_.moved > 0) return CompactState::kMoving;
    if (wait != Wait::kNone || compaction_.damaged) return CompactState::kWaiting;
    if (compaction_.chunks.empty() && !retired_on_disk() && behind_file() == 0) {
        return CompactState::kDone;
    }
    if (!storage_.checkpointer->running()) return give_back();
    compaction_.waits_for_pause = true;
    return CompactState::kWaiting;
}

// ---- merge ----

// Looks at so many leaves, or merges so many.
Engine::Core::Wait Engine::Core::merge_leaves(std::uint32_t limit, PageId& missing) {
    while (!compaction_.sparse.empty() && compaction_.moved + compaction_.looked < limit) {
        const PagesInUse looked_at(storage_.pool);
        TableEntry* table = storage_.catalog->find(compaction_.sparse.back());
        const std::vector<std::byte>& from = compaction_.merged;
        Tree::SparseLeaves found;
        found.end = true;
        if (table != nullptr) {
            found = table->tree.find_sparse(key_bound(from), limit);
            compaction_.merged.assign(found.next.begin(),
                                      found.next.begin() + table->schema.key_bytes());
        }
        compaction_.looked += found.looked;
        if (found.corrupt) {
            compaction_.damaged = found.corrupt;
            return Wait::kNone;
        }
        if (found.missing) {
            missing = found.missing;
            storage_.loader.want(missing);
            for (std::uint32_t i = 0; i < found.ahead_count; ++i) {
                storage_.loader.want(found.ahead[i]);
            }
            return Wait::kPage;
        }
        if (found.found) {
            Refused refused;
            const Room room{table->tree.frames_needed(), 0, table->tree.depth() + 1};
            const Wait wait = secure(room, 0, refused);
            if (wait != Wait::kNone || refused.error != Error::kOk) return Wait::kRoom;
            if (!table->tree.merge_leaves(found)) {
                compaction_.damaged = found.parent;
                return Wait::kNone;
            }
            commit_->touch();
            ++compaction_.moved;
            stats_.add(Counter::kPagesMoved);
        }
        if (!found.end) continue;
        compaction_.sparse.pop_back();
        compaction_.merged.clear();
        wait_for_freed();
    }
    return Wait::kNone;
}

// What was freed up to now, in the open batch, too, comes back before the next plan.
void Engine::Core::wait_for_freed() {
    const Csn open = storage_.pool.open_csn();
    compaction_.begun = open ? open : commit_->newest();
}

// ---- plan ----

// A table's root in this chunk, and whose.
PageId Engine::Core::root_in(std::uint32_t chunk, TableId& table) {
    for (const auto& tables : {storage_.catalog->all(), storage_.catalog->dropping()}) {
        for (const TableEntry* entry : tables) {
            if (chunk_of(entry->tree.root()) != chunk) continue;
            table = entry->id;
            return entry->tree.root();
        }
    }
    return PageId{};
}

// From the end of the file, as long as what is in a chunk fits the others' free pages.
void Engine::Core::plan_compaction() {
    Space& space = storage_.space;
    const auto& kept = compaction_.kept;
    const std::uint64_t left_free = space.growth_mark() + kReservePages;
    std::uint64_t free = space.available();
    std::uint64_t to_move = 0;
    for (std::uint32_t chunk = space.chunk_count(); --chunk > 0;) {
        if (compaction_.chunks.size() == kChunksAtATime) break;
        if (space.punched(chunk)) continue;
        TableId table;
        if (root_in(chunk, table) || std::find(kept.begin(), kept.end(), chunk) != kept.end()) {
            if (space.growth().makes_holes()) continue;
            break;
        }
        free -= space.available_in(chunk);
        to_move += space.used_in(chunk);
        if (free < to_move + left_free) {
            // The last one's content has room in a hole, and the file can end before it.
            const bool last = compaction_.chunks.empty() && first_of_tail() == chunk + 1;
            const bool fits = free + kHolePages >= to_move + left_free;
            if (last && fits) compaction_.filling = space.fill_before(chunk);
            break;
        }
        compaction_.chunks.push_back(chunk);
    }
    compaction_.tables.clear();
    compaction_.walked.clear();
    for (const std::uint32_t chunk : compaction_.chunks) {
        space.close_chunk(chunk);
        for (const TableId table : space.extent_owners(chunk)) {
            auto& tables = compaction_.tables;
            const bool there = std::find(tables.begin(), tables.end(), table) != tables.end();
            if (!there) tables.push_back(table);
        }
    }
}

// It stays as it is until another compaction.
void Engine::Core::keep_chunk(std::uint32_t chunk) {
    storage_.space.open_chunk(chunk);
    std::erase(compaction_.chunks, chunk);
    compaction_.kept.push_back(chunk);
}

// ---- move ----

// Up to `limit` pages. What is not in the pool is asked for, all that a step may move at once.
Engine::Core::Wait Engine::Core::move_pages(std::uint32_t limit, PageId& missing) {
    Wait first = Wait::kNone;
    std::uint32_t looked = 0;
    for (const std::uint32_t chunk : compaction_.chunks) {
        PageId page{chunk * kChunkPages - 1};
        while (looked < limit && (page = storage_.space.next_used(chunk, page))) {
            ++looked;
            PageId absent;
            const Wait wait = move_page(page, absent);
            if (compaction_.damaged) return Wait::kNone;
            if (wait == Wait::kNone) continue;
            if (wait == Wait::kRoom) return wait;
            if (first == Wait::kNone) missing = absent;
            first = wait;
            const Error asked = storage_.loader.want(absent);
            if (asked != Error::kOk && asked != Error::kBusy) return wait;
        }
    }
    return first;
}

Engine::Core::Wait Engine::Core::move_page(PageId page, PageId& missing) {
    const PagesInUse looked_at(storage_.pool);
    missing = page;
    if (storage_.pool.newest(page) == nullptr) return Wait::kPage;
    TableEntry* table = owner_of(page);
    if (table == nullptr) {
        compaction_.damaged = page;  // in use, and nobody's: verify tells more
        return Wait::kNone;
    }
    const Tree::Place place = table->tree.place_of(page);
    missing = place.missing;
    if (missing) return Wait::kPage;
    if (place.corrupt) {
        compaction_.damaged = place.corrupt;
        return Wait::kNone;
    }
    Refused refused;
    const Wait wait = secure(kMoveRoom, 0, refused);
    if (wait != Wait::kNone || refused.error != Error::kOk) return Wait::kRoom;
    if (!storage_.space.closed(chunk_of(page))) return Wait::kRoom;  // taken back for its room
    table->tree.move_page(place);
    commit_->touch();
    ++compaction_.moved;
    stats_.add(Counter::kPagesMoved);
    return Wait::kNone;
}

TableEntry* Engine::Core::owner_of(PageId page) {
    const TableId id{page_header(storage_.pool.newest(page)).table_id};
    for (TableEntry* table : storage_.catalog->dropping()) {
        if (table->id == id) return table;
    }
    return storage_.catalog->find(id);
}

// ---- wait, retire, cut, punch ----

void Engine::Core::wait_for_checkpoint() {
    if (storage_.checkpointer->running()) return;
    if (storage_.pool.visible() > storage_.checkpointer->covered().value) {
        checkpoint_wanted_ = true;
    }
}

// Chunks and the end of the file go only while no checkpoint runs.
CompactState Engine::Core::give_back() {
    if (retire_chunks() || punch_chunks()) return CompactState::kMoving;
    if (!compaction_.chunks.empty() || retired_on_disk()) {
        wait_for_checkpoint();
        return CompactState::kWaiting;
    }
    return cut_file() ? CompactState::kMoving : CompactState::kDone;
}

// A checkpoint has ended. Beside writers at full speed the next one begins in the same round: a
// step that waits for a moment between two would never find one.
void Engine::Core::give_back_in_pause() {
    if (!std::exchange(compaction_.waits_for_pause, false)) return;
    if (storage_.space.growth().idle() && !loading()) give_back();
}

// The checkpoint on disk still has chunks that were retired.
bool Engine::Core::retired_on_disk() const {
    return storage_.superblock.chunk_count > storage_.space.chunk_count();
}

// Chunks from this one on are empty, or about to be.
std::uint32_t Engine::Core::first_of_tail() const {
    const auto& chunks = compaction_.chunks;
    std::uint32_t first = storage_.space.chunk_count();
    const auto goes = [&](std::uint32_t chunk) {
        return storage_.space.punched(chunk) ||
               std::find(chunks.begin(), chunks.end(), chunk) != chunks.end();
    };
    while (first > 1 && goes(first - 1)) --first;
    return first;
}

bool Engine::Core::retire_chunks() {
    Space& space = storage_.space;
    bool retired = false;
    while (first_of_tail() < space.chunk_count()) {
        const std::uint32_t last = space.chunk_count() - 1;
        const bool punched = space.punched(last);
        if (!space.retire_last_chunk(storage_.checkpointer->covered())) break;
        bool of_its_own = false;
        const Csn csn = commit_->eviction_csn(of_its_own);
        storage_.pool.evict(meta_page(last), csn);
        if (of_its_own) {
            storage_.pool.advance_visible(csn);
        } else {
            commit_->touch();
            commit_->hurry();
        }
        if (punched) compaction_.holes_bytes += Space::hole_bytes(last);
        std::erase(compaction_.chunks, last);
        retired = true;
    }
    if (retired) wait_for_checkpoint();
    return retired;
}

// One of those that are empty and not at the end; the rest wait for their turn.
bool Engine::Core::punch_chunks() {
    Space& space = storage_.space;
    const std::uint32_t tail = first_of_tail();
    for (const std::uint32_t chunk : compaction_.chunks) {
        if (chunk >= tail) continue;
        // It is wanted meanwhile, or would be at once again.
        if (!space.growth().makes_holes() || space.wants_growth(0)) {
            keep_chunk(chunk);
            return true;
        }
        if (!space.punch_chunk(chunk)) continue;
        std::erase(compaction_.chunks, chunk);
        compaction_.punching = chunk;
        return true;
    }
    return false;
}

// Growth is done with what it did for the compaction.
void Engine::Core::note_growth() {
    const Space& space = storage_.space;
    const std::uint32_t filled = std::exchange(compaction_.filling, 0);
    if (filled != 0 && !space.fill_refused()) {
        compaction_.holes_bytes += Space::hole_bytes(filled);
    }
    const std::uint32_t chunk = std::exchange(compaction_.punching, 0);
    if (chunk == 0 || !space.growth().makes_holes()) return;
    compaction_.given_back_bytes += Space::hole_bytes(chunk);
}

// The checkpoint on disk is without the retired chunks, and its journal is done with.
bool Engine::Core::cut_file() {
    const std::uint64_t behind = behind_file();
    if (behind == 0) return false;
    Space& space = storage_.space;
    const std::uint32_t keep = space.chunks_worth_keeping();
    const std::uint64_t holes = std::exchange(compaction_.holes_bytes, 0);
    compaction_.given_back_bytes += behind - std::min(behind, holes);
    space.cut(keep, keep * kChunkBytes + behind);
    return true;
}

// Bytes that the file has behind the chunks that are worth keeping.
std::uint64_t Engine::Core::behind_file() const {
    const std::uint64_t keep_bytes = storage_.space.chunks_worth_keeping() * kChunkBytes;
    const Result<std::uint64_t> file_bytes = storage_.disk.size_bytes(StoreFile::kData);
    return file_bytes.ok() ? *file_bytes - std::min(*file_bytes, keep_bytes) : 0;
}

}  // namespace bidstore
