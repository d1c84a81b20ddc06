// Compaction: the last chunks of the file are emptied and cut off, while everything goes on.
//
//   first   what is in quarantine comes back, with a checkpoint
//   plan    as many of the last chunks as the others have free pages for, beyond what growth would
//           be due at; they give no pages from then on
//   move    their pages, a few at a step, to places further in front: a change to the trees that is
//           not logged (engine/btree_move.cc)
//   wait    for a checkpoint, and for the snapshots that still see the old places: the quarantine
//           of freed pages
//   retire  chunks with nothing in them leave the store; a checkpoint without them follows
//   cut     the file gives their blocks back (engine/growth.h)
//
// Each step is a request of the client, which sets the pace; when it goes away, the chunks that
// were being emptied are in use again as before. A crash finds the trees before or after a batch of
// moves, and a file that is as long as the last checkpoint needs, or longer.
//
// Roots keep their page for life, and extents theirs, so a chunk with one of them in it stays, and
// all before it.
#include <algorithm>
#include <cstring>

#include "engine/engine_core.h"
#include "shm/message.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kChunksAtATime = 32;
constexpr std::uint64_t kReservePages = 64;  // as for transactions
constexpr Room kMoveRoom{3, 1, 1};           // parent, page and left neighbour; the new place

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
    if (compaction_.client_id != 0 && compaction_.client_id != client) refused = Error::kBusy;
    if (request.rights < Rights::kAdmin) refused = Error::kDenied;
    if (refused != Error::kOk) {
        port_.answer(request.from, refused);
        return Wait::kNone;
    }
    if (compaction_.client_id == 0) compaction_.begun = commit_->newest();
    compaction_.client_id = client;
    compaction_.moved = 0;
    Wait wait = Wait::kNone;
    const CompactState state = compact(wanted.pages, wait, page);
    if (wait == Wait::kPage && compaction_.moved == 0) return wait;
    if (compaction_.damaged) {
        port_.answer(request.from, Error::kCorruption, Csn{}, compaction_.damaged.value);
        compaction_.damaged = PageId{};
        storage_.space.reopen();
        compaction_.chunks.clear();
        return Wait::kNone;
    }
    std::int64_t left = 0;
    for (const std::uint32_t chunk : compaction_.chunks) left += storage_.space.used_in(chunk);
    TableId table;
    const std::uint32_t last = storage_.space.chunk_count() - 1;
    const bool stays = static_cast<bool>(fixture_in(last, table));
    const std::int64_t results[kCompactResults] = {
        static_cast<std::int64_t>(state),
        static_cast<std::int64_t>(compaction_.moved),
        left,
        static_cast<std::int64_t>(compaction_.given_back_bytes),
        static_cast<std::int64_t>(storage_.space.growth().chunks() * kChunkBytes),
        stays ? std::int64_t{last} : -1,
        stays ? std::int64_t{table.value} : 0};
    port_.answer(request.from, Error::kOk, Csn{}, kNoOperation, results);
    return Wait::kNone;
}

void Engine::Core::end_compaction() {
    storage_.space.reopen();
    compaction_ = {};
}

CompactState Engine::Core::compact(std::uint32_t pages, Wait& wait, PageId& page) {
    Space& space = storage_.space;
    // A load takes whole chunks where it finds them: one thing after the other.
    if (space.growth().running() || !loads_.empty()) return CompactState::kWaiting;
    // Somebody was in want of room, and took the chunks back.
    if (!compaction_.chunks.empty() && space.closed_chunks() == 0) compaction_.chunks.clear();
    if (compaction_.chunks.empty()) {
        const Csn waits = space.oldest_quarantined();
        if (waits && waits <= compaction_.begun) {
            wait_for_checkpoint();
            return CompactState::kWaiting;
        }
        plan_compaction();
    }
    wait = move_pages(pages, page);
    if (compaction_.moved > 0) return CompactState::kMoving;
    if (wait != Wait::kNone || compaction_.damaged) return CompactState::kWaiting;
    if (retire_chunks()) return CompactState::kMoving;
    if (!compaction_.chunks.empty()) {
        wait_for_checkpoint();
        return CompactState::kWaiting;
    }
    if (storage_.superblock.chunk_count > space.chunk_count()) {
        wait_for_checkpoint();
        return CompactState::kWaiting;
    }
    if (storage_.checkpointer->running()) return CompactState::kWaiting;
    return cut_file() ? CompactState::kMoving : CompactState::kDone;
}

// ---- plan ----

// A page in this chunk that does not move, a table's root or the first of an extent, and whose.
PageId Engine::Core::fixture_in(std::uint32_t chunk, TableId& table) {
    for (const auto& tables : {storage_.catalog->all(), storage_.catalog->dropping()}) {
        for (const TableEntry* entry : tables) {
            if (chunk_of(entry->tree.root()) != chunk) continue;
            table = entry->id;
            return entry->tree.root();
        }
    }
    return storage_.space.extent_in(chunk, table);
}

// From the end of the file, as long as what is in a chunk fits the others' free pages.
void Engine::Core::plan_compaction() {
    Space& space = storage_.space;
    const std::uint64_t left_free = space.growth_mark() + kReservePages;
    std::uint64_t free = space.available();
    std::uint64_t to_move = 0;
    for (std::uint32_t chunk = space.chunk_count(); --chunk > 0;) {
        TableId table;
        if (compaction_.chunks.size() == kChunksAtATime || fixture_in(chunk, table)) break;
        free -= space.available_in(chunk);
        to_move += space.used_in(chunk);
        if (free < to_move + left_free) break;
        compaction_.chunks.push_back(chunk);
    }
    for (const std::uint32_t chunk : compaction_.chunks) space.close_chunk(chunk);
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

// ---- wait, retire, cut ----

void Engine::Core::wait_for_checkpoint() {
    if (storage_.checkpointer->running()) return;
    if (storage_.pool.visible() > storage_.checkpointer->covered().value) {
        checkpoint_wanted_ = true;
    }
}

bool Engine::Core::retire_chunks() {
    Space& space = storage_.space;
    if (storage_.checkpointer->running()) return false;
    bool retired = false;
    while (!compaction_.chunks.empty() &&
           compaction_.chunks.front() == space.chunk_count() - 1 &&
           space.retire_last_chunk(storage_.checkpointer->covered())) {
        bool of_its_own = false;
        const Csn csn = commit_->eviction_csn(of_its_own);
        storage_.pool.evict(meta_page(space.chunk_count()), csn);
        if (of_its_own) {
            storage_.pool.advance_visible(csn);
        } else {
            commit_->touch();
            commit_->hurry();
        }
        compaction_.chunks.erase(compaction_.chunks.begin());
        retired = true;
    }
    if (retired) wait_for_checkpoint();
    return retired;
}

// The checkpoint on disk is without the retired chunks, and its journal is done with.
bool Engine::Core::cut_file() {
    Space& space = storage_.space;
    const std::uint32_t keep = space.chunks_worth_keeping();
    const Result<std::uint64_t> file_bytes = disk_.size_bytes(StoreFile::kData);
    if (!file_bytes || *file_bytes <= keep * kChunkBytes) return false;
    compaction_.given_back_bytes += *file_bytes - keep * kChunkBytes;
    space.growth().cut(keep, *file_bytes);
    return true;
}

}  // namespace bidstore
