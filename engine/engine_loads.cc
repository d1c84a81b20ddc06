// Bulk loads: what of them is the store's, from a hidden table to one that everybody sees. The
// pages themselves are BulkLoad's (engine/bulk_load.h, whose states these steps follow).
#include <algorithm>
#include <cstring>

#include "engine/engine_core.h"
#include "shm/message.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRecordsPerRound = 2;  // of one load: commits wait for no more
constexpr std::uint32_t kExtendChunksMax = 64;
constexpr std::uint32_t kChunksOfLargeLoad = 16;  // which asks for chunks ahead
constexpr std::uint64_t kChunksBeside = 64;      // versions that attaching needs besides,
constexpr std::uint64_t kChunksBesideShare = 8;  // or a share of what there may be
constexpr std::uint32_t kCopiesPerRound = 128;   // of bitmaps, ahead of attaching
constexpr std::uint64_t kNothingFreedNs = 60'000'000'000;  // while a load waits for freed pages

bool is_empty(const std::byte* root) {
    const PageHeader& header = page_header(root);
    return header.level == 0 && header.count == 0;
}

// To attach it: its bitmaps and the root.
Room room_to_attach(const BulkLoad& load) { return {load.chunks() + 1, 0, 0}; }

// By an eighth at most.
std::uint32_t extension(const Space& space) {
    return std::clamp(space.chunk_count() / 8, 1u, kExtendChunksMax);
}

}  // namespace

BulkLoad* Engine::Core::load_of(std::uint64_t client_id) {
    for (const auto& load : loads_) {
        if (load->client_id() == client_id && !load->abandoned()) return load.get();
    }
    return nullptr;
}

// ---- what clients say ----

Engine::Core::Wait Engine::Core::handle_load(const ClientRequest& request, PageId& page) {
    LoadRequest header{};
    if (request.payload.size() < sizeof header) {
        port_.hostile(request.from.client_id, "a malformed load request");
        return Wait::kNone;
    }
    std::memcpy(&header, request.payload.data(), sizeof header);
    // A ring may take longer records than a load has buffers for.
    if (request.payload.size() > load_bytes_max(header)) {
        port_.hostile(request.from.client_id, "a step of a load longer than it may be");
        return Wait::kNone;
    }
    const auto body = request.payload.subspan(sizeof header);
    if (request.rights < Rights::kAdmin) {
        port_.answer(request.from, Error::kDenied);
        return Wait::kNone;
    }
    switch (header.step) {
        case LoadStep::kBegin:
            return begin_load(request, body, page);
        case LoadStep::kRows:
            return load_rows(request, body, header.rows);
        case LoadStep::kFinish:
            finish_load(request, header.rows);
            return Wait::kNone;
    }
    port_.hostile(request.from.client_id, "a load step that does not exist");
    return Wait::kNone;
}

Engine::Core::Wait Engine::Core::refuse_load(const ClientRequest& request, Error error) {
    commit_->answer_later(request.from, error, kNoOperation);
    return Wait::kNone;
}

Engine::Core::Wait Engine::Core::begin_load(const ClientRequest& request,
                                            std::span<const std::byte> body, PageId& page) {
    if (BulkLoad* load = load_of(request.from.client_id)) {
        if (load->state() != BulkLoad::State::kFailed) return refuse_load(request, Error::kBusy);
        load->abandon();
    }
    const Result<Schema> schema = Schema::decode(body);
    if (!schema) return refuse_load(request, Error::kInvalid);
    BulkLoad* before = nullptr;
    if (waits_for_load(schema->name(), before)) return refuse_load(request, Error::kBusy);
    if (catalog_row_bytes(*schema) > kRowBytesMax) return refuse_load(request, Error::kTooLarge);
    const PagesInUse looked_at(storage_.pool);
    const Replaced old = replaced_by(*schema);
    page = old.missing;
    if (page) return Wait::kPage;
    if (old.error != Error::kOk) return refuse_load(request, old.error);
    const TableId id = storage_.catalog->next_id();
    if (id > kLastTable) return refuse_load(request, Error::kTooLarge);
    load_room_.reset();
    load_room_.add({0, 1, 0});  // its root
    page = add_catalog_row(id, catalog_row_bytes(*schema));
    if (page) return Wait::kPage;
    Refused refused;
    // The new table goes on with the retention of the one that it replaces.
    const TableAttributes attributes{old.table != nullptr ? old.table->retain_us : 0, 0};
    const auto key = std::as_bytes(std::span(&attributes, 1));
    const Wait wait = secure(load_room_.total(), Wal::record_bytes(key.size(), body.size()),
                             refused, kReservePages);
    if (refused.error != Error::kOk) return refuse_load(request, refused.error);
    if (wait != Wait::kNone) return wait;
    if (before != nullptr) {
        const bool same = before->name() == schema->name();
        give_up(*before, same ? "another load of it begins" : "another load has no place");
    }
    commit_->wal().append(RecordType::kBeginLoad, id, key, body);
    storage_.catalog->create(id, *schema, kHiddenTableFlag, attributes.retain_us);
    const LoadIdentity identity{id, storage_.pool.file_uuid(), storage_.checkpointer->covered()};
    loads_.push_back(
        std::make_unique<BulkLoad>(request.from, *schema, identity, storage_.space, disk_));
    loads_.back()->heard(clock_.monotonic_ns());
    commit_->answer_later(request.from, Error::kOk, kNoOperation);
    return Wait::kNone;
}

// As one of that name is under way, or as many as there may be. False with `before`: that one is
// silent, and is to be given up first.
bool Engine::Core::waits_for_load(std::string_view name, BulkLoad*& before) {
    std::size_t under_way = 0;
    for (const auto& load : loads_) {
        if (load->over()) continue;
        ++under_way;
        if (load->state() != BulkLoad::State::kFailed && load->name() == name) before = load.get();
    }
    if (before != nullptr) return !silent(*before);
    if (under_way < kLoadsMax) return false;
    before = silent_load(false);
    return before == nullptr;
}

// The table whose name the loaded one gets: none, or an empty one of the same schema.
Engine::Core::Replaced Engine::Core::replaced_by(const Schema& schema) {
    Replaced replaced;
    replaced.table = storage_.catalog->find(std::string_view(schema.name()));
    if (replaced.table == nullptr) return replaced;
    const std::byte* root = storage_.pool.newest(replaced.table->tree.root());
    if (replaced.table->system()) {
        replaced.error = Error::kDenied;
    } else if (replaced.table->schema.encode() != schema.encode()) {
        replaced.error = Error::kSchemaMismatch;
    } else if (root == nullptr) {
        replaced.missing = replaced.table->tree.root();
    } else if (!is_empty(root)) {
        replaced.error = Error::kTableExists;
    }
    return replaced;
}

// Counts a change of the table's row in the catalog, or names the page of the catalog that has to
// come in first. Longer by `row_bytes` than it is: 0 keeps its length.
PageId Engine::Core::add_catalog_row(TableId id, std::uint32_t row_bytes) {
    std::byte key[4];
    encode_key_integer(key, id.value, 4, false);
    const Tree& catalog = storage_.catalog->catalog().tree;
    const Lookup row = catalog.get(key);
    if (row.ok()) load_room_.put(catalog, key, row_bytes + row.value.size(), row);
    return row.missing;
}

Engine::Core::Wait Engine::Core::load_rows(const ClientRequest& request,
                                           std::span<const std::byte> body, std::uint64_t rows) {
    BulkLoad* load = load_of(request.from.client_id);
    if (load != nullptr && load->state() == BulkLoad::State::kFailed) {
        port_.answer(request.from, load->error());
        return Wait::kNone;
    }
    if (load == nullptr || load->state() != BulkLoad::State::kRows) {
        port_.answer(request.from, Error::kInvalid);
        return Wait::kNone;
    }
    load->heard(clock_.monotonic_ns());
    if (rows == 0 && body.empty()) {  // a sign of life, and no more
        port_.answer(request.from, Error::kOk);
        return Wait::kNone;
    }
    if (!load->ready()) return Wait::kTurn;
    std::uint32_t bad_row = 0;
    Error error = load->take(body, rows, bad_row);
    if (error == Error::kBusy) return Wait::kTurn;
    if (error == Error::kOk && touches_too_many(*load)) {
        error = Error::kTooLarge;
        bad_row = kNoOperation;
        fail_load(*load, error);
    }
    port_.answer(request.from, error, Csn{}, error == Error::kOk ? kNoOperation : bad_row);
    if (error != Error::kOk) orphans_ = true;
    if (!load->ready() || ++load_records_ >= kRecordsPerRound) {
        port_.pause(request.from.client_id, true);  // pump_loads() lets it go on
    }
    return Wait::kNone;
}

void Engine::Core::finish_load(const ClientRequest& request, std::uint64_t rows) {
    BulkLoad* load = load_of(request.from.client_id);
    if (load == nullptr) return port_.answer(request.from, Error::kInvalid);
    if (load->state() == BulkLoad::State::kRows && rows != load->builder().rows()) {
        fail_load(*load, Error::kProtocol);
    }
    if (load->state() == BulkLoad::State::kRows) return load->finish(request.from);
    const bool failed = load->state() == BulkLoad::State::kFailed;
    port_.answer(request.from, failed ? load->error() : Error::kInvalid);
    if (failed) load->abandon();
}

void Engine::Core::fail_load(BulkLoad& load, Error error) {
    const bool waits = load.finishing();
    load.fail(error);
    orphans_ = true;
    if (!waits) return;  // the next step that its client sends is told
    commit_->answer_later(load.client(), error, kNoOperation);
    load.abandon();
}

// ---- a little of each in every round ----

bool Engine::Core::pump_loads() {
    bool worked = false;
    load_records_ = 0;
    if (mode_ == EngineMode::kReadOnly) worked = give_up_for_room();
    for (const auto& load : loads_) {
        if (stopping_ && load->state() != BulkLoad::State::kFailed) {
            fail_load(*load, Error::kStopping);
        }
        const bool went_on = load->pump();
        worked |= went_on;
        if (!load->waits_for_rows()) load->heard(clock_.monotonic_ns());  // it waits for us
        if (went_on || !load->needs_pages()) load->set_waits_since(0);
        if (const std::string trouble = load->take_trouble(); !trouble.empty()) say(3, trouble);
        if (touches_too_many(*load)) {
            fail_load(*load, Error::kTooLarge);
            worked = true;
        } else if (load->needs_pages()) {
            worked |= find_pages(*load);
        } else {
            extend_ahead(*load);
        }
        worked |= advance(*load);
        if (load->state() == BulkLoad::State::kFailed) {
            orphans_ = true;
            // A write that failed: the answer waits for this place.
            if (load->finishing()) fail_load(*load, load->error());
            if (load->over()) load->release_buffers();
        }
        if (!parked_.contains(load->client_id())) {
            const bool waits = load->state() == BulkLoad::State::kRows && !load->ready();
            port_.pause(load->client_id(), waits);
        }
    }
    std::erase_if(loads_, [this](const auto& load) {
        const bool over = load->abandoned() || load->state() == BulkLoad::State::kDone || stopping_;
        return over && load->quiet();
    });
    return worked | drop_orphans();
}

// Some load keeps pages. One that failed gave them back; its client has not heard of it yet.
bool Engine::Core::loading() const {
    return std::any_of(loads_.begin(), loads_.end(),
                       [](const auto& load) { return !load->over(); });
}

bool Engine::Core::advance(BulkLoad& load) {
    switch (load.state()) {
        case BulkLoad::State::kAttach:
            return attach_load(load);
        case BulkLoad::State::kCover:
            if (storage_.checkpointer->covered() >= load.attached()) {
                load.covered();
                return true;
            }
            // Not cleared: others may wait for one, too.
            checkpoint_wanted_ |= storage_.pool.visible() >= load.attached().value;
            return false;
        case BulkLoad::State::kShow:
            return show_load(load);
        default:
            return false;
    }
}

// What attaching all of it takes has to fit pool and journal. Told while rows come, for those that
// came are in the way of that whatever follows.
bool Engine::Core::touches_too_many(const BulkLoad& load) const {
    using State = BulkLoad::State;
    if (load.state() != State::kRows && load.state() != State::kEnding) return false;
    const std::uint64_t versions =
        std::min<std::uint64_t>(frames_at_most(), storage_.checkpointer->journal_capacity() / 4);
    Room room = room_to_attach(load);
    // Leaves that are placed at the end alone, and the nodes above, are among these.
    if (load.state() == State::kRows) {
        room.changed += std::min(kChunksBeside, versions / kChunksBesideShare);
    }
    return limit_passed(room, 0) != kNoOperation;
}

// Room in the file for the load: more of it, then what is left in small pieces, then none.
bool Engine::Core::find_pages(BulkLoad& load) {
    // A compaction gives way, as it does to everybody in want of room.
    if (storage_.space.closed_chunks() > 0) {
        storage_.space.reopen();
        return true;
    }
    if (mode_ == EngineMode::kServing && !load.made_do()) {
        const Found found = find_chunks(load);
        if (found != Found::kNone) return found == Found::kSome;
    }
    if (!load.made_do()) {
        load.make_do();
        return true;
    }
    if (waits_for_freed_pages(load)) return false;
    if (give_up_for_room()) return true;
    say(4, "load of " + load.name() + " finds no room: " + why_no_pages(load));
    fail_load(load, Error::kNoSpace);
    return true;
}

// A load that waits for the file to be extended leaves the device without work; one that has grown
// large is not at its end yet, and asks for more while it writes what it has. What it does not need
// in the end is a quarter of what it needed, at most, and is anybody's.
void Engine::Core::extend_ahead(BulkLoad& load) {
    Space& space = storage_.space;
    if (load.state() != BulkLoad::State::kRows || load.chunks() < kChunksOfLargeLoad) return;
    if (mode_ != EngineMode::kServing || load.made_do() || growth_failed_ns_ != 0) return;
    if (!space.growth().idle() || space.closed_chunks() > 0 || space.any_punched()) return;
    const std::uint32_t chunks = std::min(extension(space), load.chunks() / 4);
    if (load.pages_left() < chunks * kChunkPages / 2) load.set_extended(space.extend(chunks));
}

// Chunks that are ready are taken into use; where there are none, growth makes some, beside
// everything else.
Engine::Core::Found Engine::Core::find_chunks(BulkLoad& load) {
    Space& space = storage_.space;
    const std::uint32_t chunks = extension(space);
    if (space.chunk_count() == space.growth().chunks()) {
        if (!space.growth().idle() || space.fill_punched()) return Found::kLater;
        if (load.extended() && growth_failed_ns_ != 0) return Found::kNone;
        load.set_extended(space.extend(chunks));
        return load.extended() ? Found::kLater : Found::kNone;
    }
    Refused refused;
    const Wait wait = secure({chunks, 0, 0}, 0, refused);
    if (refused.error != Error::kOk) return Found::kNone;
    if (wait != Wait::kNone) return Found::kLater;
    space.take_chunks(chunks);
    commit_->touch();
    load.set_extended(false);
    return Found::kSome;
}

// Freed pages come back with a checkpoint: tried before "full" is said, once. Beside writers there
// is always something freed, and always too little of it. Those of dropped tables are freed first,
// however long that takes, while it goes on.
bool Engine::Core::waits_for_freed_pages(BulkLoad& load) {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (load.waits_since_ns() == 0) load.set_waits_since(now_ns);
    const Csn covered = storage_.checkpointer->covered();
    if (pages_to_come()) {
        if (now_ns - std::max(load.waits_since_ns(), dropped_ns_) > kNothingFreedNs) return false;
        load.set_last_chance(Csn{});
        return true;
    }
    if (!load.last_chance()) load.set_last_chance(commit_->newest());
    const Csn oldest = storage_.space.oldest_quarantined();
    if (!oldest || oldest > load.last_chance()) return false;
    // Covered already: they come back in a moment, or when the snapshots that hold them end.
    checkpoint_wanted_ |= load.last_chance() > covered;
    return true;
}

std::string Engine::Core::why_no_pages(const BulkLoad& load) const {
    const bool waited = clock_.monotonic_ns() - load.waits_since_ns() > kNothingFreedNs;
    if (pages_to_come() || !storage_.catalog->dropping().empty()) {
        const std::string what = "the pages of dropped tables do not come back";
        return what + (waited ? ", none for 60 s" : "") +
               ": load again when tables_dropping is 0 (`bidstore stats`), or raise "
               "max_data_bytes; " +
               why_full();
    }
    // Without a reason of the file's, it is pool or journal that is short beside what is under way.
    const std::string why = why_full();
    return why.empty() ? "load again later, or raise pool_bytes and journal_bytes" : why;
}

// Only where the frames of the copies are few in the pool, which keeps as many for the change.
bool Engine::Core::copies_ahead(BulkLoad& load) {
    const Pool& pool = storage_.pool;
    const bool few = load.chunks() < pool.frame_count() / 16;
    if (!few || pool.free_frames() < 2 * kCopiesPerRound) return false;
    return !load.copy_bitmaps_ahead(kCopiesPerRound);
}

// True: the page cannot be had, and the load has failed.
bool Engine::Core::brings_in(BulkLoad& load, PageId page) {
    const Error error = bring_in(page);
    if (error != Error::kOk) fail_load(load, error);
    return error != Error::kOk;
}

bool Engine::Core::attach_load(BulkLoad& load) {
    const PageId root = storage_.catalog->find(load.table())->tree.root();
    const PagesInUse looked_at(storage_.pool);
    if (storage_.pool.newest(root) == nullptr) return brings_in(load, root);
    if (copies_ahead(load)) return true;
    Refused refused;
    const Wait wait = secure(room_to_attach(load), 0, refused);
    if (refused.error != Error::kOk) {
        fail_load(load, refused.error);
        return true;
    }
    if (wait != Wait::kNone) return false;
    load.attach(storage_.space.writable(root), storage_.pool.open_csn());
    commit_->touch();
    commit_->hurry();
    return true;
}

bool Engine::Core::show_load(BulkLoad& load) {
    TableEntry& table = *storage_.catalog->find(load.table());
    const PagesInUse looked_at(storage_.pool);
    const Replaced old = replaced_by(table.schema);
    load_room_.reset();
    PageId missing = old.missing ? old.missing : add_catalog_row(table.id, 0);
    if (!missing && old.table != nullptr) missing = add_catalog_row(old.table->id, 0);
    if (!missing && storage_.pool.newest(table.tree.root()) == nullptr) {
        missing = table.tree.root();  // for its floor
    }
    if (missing) return brings_in(load, missing);
    load_room_.add(kFloorRoom);
    Refused refused;
    refused.error = old.error;  // a table of that name was made meanwhile
    const std::uint32_t bytes = Wal::record_bytes(0, 0) +
                                Wal::record_bytes(0, sizeof(TableAttributes)) +
                                Wal::record_bytes(0, sizeof(LoggedLoad)) + kFloorLogBytes;
    Wait wait = Wait::kNone;
    if (refused.error == Error::kOk) wait = secure(load_room_.total(), bytes, refused);
    if (refused.error != Error::kOk) {
        fail_load(load, refused.error);
        return true;
    }
    if (wait != Wait::kNone) return false;
    if (old.table != nullptr) {
        if (table.retain_us != old.table->retain_us) {  // it was set while the load was under way
            const TableAttributes attributes{old.table->retain_us, 0};
            commit_->wal().append(RecordType::kSetTable, table.id, {},
                                  std::as_bytes(std::span(&attributes, 1)));
            storage_.catalog->set_retention(table.id, attributes.retain_us);
        }
        commit_->wal().append(RecordType::kDropTable, old.table->id, {}, {});
        storage_.catalog->drop(old.table->id);
    }
    const LoggedLoad logged{load.builder().rows(), load.builder().checksum(), 0};
    commit_->wal().append(RecordType::kFinishLoad, table.id, {},
                          std::as_bytes(std::span(&logged, 1)));
    storage_.catalog->show(table.id);
    // With the table, not after it: nobody sees its expired rows.
    if (const std::uint64_t floor = due_floor(table)) set_floor(table, floor);
    commit_->answer_later(load.client(), Error::kOk, kNoOperation);
    load.shown();
    return true;
}

// Hidden tables that nobody loads: of a load that failed, or of one that a crash cut off.
bool Engine::Core::drop_orphans() {
    if (!orphans_ || stopping_ || mode_ == EngineMode::kFenced) return false;
    bool left = false;
    for (TableEntry* table : storage_.catalog->all()) {
        const bool loading = std::any_of(loads_.begin(), loads_.end(), [&](const auto& load) {
            return load->table() == table->id && load->state() != BulkLoad::State::kFailed;
        });
        if (!table->hidden() || loading) continue;
        const PagesInUse looked_at(storage_.pool);
        load_room_.reset();
        if (const PageId missing = add_catalog_row(table->id, 0)) {
            if (bring_in(missing) == Error::kOk) return false;
            left = true;  // tried again
            continue;
        }
        Refused refused;
        const Wait wait = secure(load_room_.total(), Wal::record_bytes(0, 0), refused);
        if (wait != Wait::kNone || refused.error != Error::kOk) return false;
        commit_->wal().append(RecordType::kDropTable, table->id, {}, {});
        storage_.catalog->drop(table->id);
        return true;
    }
    orphans_ = left;
    return false;
}

}  // namespace bidstore
