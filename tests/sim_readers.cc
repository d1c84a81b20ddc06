#include "tests/sim_readers.h"

#include <algorithm>
#include <utility>

#include "engine/page/catalog_schema.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kClients = 2;
constexpr std::size_t kOpenMax = 4;
constexpr std::size_t kAskedMax = 16;  // of the call slots of two clients
constexpr std::uint64_t kLeaseSlackNs = 100'000'000;
constexpr std::uint64_t kLateUs = 50'000;  // some rounds
constexpr int kLeasesPerRead = 40;         // in the last look: a slow disk may outlast some

SessionId reader_session(Random& random) {
    SessionId id;
    for (std::uint8_t& byte : id.bytes) byte = static_cast<std::uint8_t>(random());
    return id;
}

// How often the engine said that it took a snapshot from a reader to have its frames.
std::uint64_t revoked_for_room(const SimLife& life) {
    return static_cast<std::uint64_t>(std::ranges::count_if(
        life.store.log_lines,
        [](const std::string& line) { return line.starts_with("a snapshot was revoked: "); }));
}

// From `from` to `last`, both inclusive; to the end when that is empty.
SimKeeper::Rows between(const SimKeeper::Rows& rows, const Bytes& from, const Bytes& last) {
    return {rows.lower_bound(from), last.empty() ? rows.end() : rows.upper_bound(last)};
}

}  // namespace

SimReaders::SimReaders(Random& random, Findings& findings, const Excuses& excuses,
                       SimCounts& counts, Oracle& oracle, SimKeeper& keeper,
                       const std::array<TableId, kTables>& tables, std::uint32_t keys)
    : random_(random),
      findings_(findings),
      excuses_(excuses),
      counts_(counts),
      oracle_(oracle),
      keeper_(keeper),
      tables_(tables),
      maker_(random, keys) {}

SimClient* SimReaders::welcome(SimLife& life) {
    SimClient* client = life.store.attach(Rights::kReader, reader_session(random_));
    if (client != nullptr) client->welcomed(0);
    return client;
}

bool SimReaders::connect(SimLife& life) {
    clients_.clear();
    newest_place_ = 0;
    for (auto& [table, seen] : floors_) seen.first = 0;  // csns begin anew
    for (std::uint32_t i = 0; i < kClients; ++i) {
        SimClient* client = welcome(life);
        if (client == nullptr) return false;
        clients_.push_back(client);
    }
    return true;
}

void SimReaders::lose() {
    open_.clear();
    asked_.clear();
    clients_.clear();
}

void SimReaders::recovered(SimLife& life) {
    const SimKeeper::GuestsPtr guests = keeper_.guests().front();
    for (const auto& [table, seen] : floors_) {
        const auto& [name, serial] = table;
        const auto guest = guests->find(name);
        if (serial != 0 && (guest == guests->end() || guest->second.serial != serial)) continue;
        Storage& storage = life.store.engine->core().storage();
        const TableEntry* entry = storage.catalog->find(std::string_view(name));
        const bool in_sight = entry != nullptr && storage.bring_in(entry->tree.root()).ok();
        if (in_sight && entry->tree.floor() >= seen.second) continue;
        findings_.report("after recovery the floor of " + name +
                         " is below one that a snapshot had seen");
    }
}

std::unique_ptr<SimSnapshot> SimReaders::take(SimLife& life) {
    SimClient& client = *clients_[random_() % clients_.size()];
    for (std::uint32_t slot = 1; slot < client.segment().slot_count(); ++slot) {
        const bool used = std::any_of(open_.begin(), open_.end(), [&](const Open& open) {
            return &open.snapshot->client() == &client && open.snapshot->slot_index() == slot;
        });
        if (!used) return std::make_unique<SimSnapshot>(life.store, *life.view, client, slot);
    }
    return nullptr;
}

// Whether the snapshot came to an end that needs no explanation.
bool SimReaders::lost(SimLife& life, const Open& open, const std::string& doing) {
    const std::string& trouble = open.snapshot->trouble();
    if (life.down()) return true;
    if (!trouble.empty() && !excuses_.cover_read(open.snapshot->refusal())) {
        findings_.report("a snapshot of csn " + std::to_string(open.snapshot->csn()) + ", " +
                         doing + ": " + trouble);
    }
    if (trouble.empty() && open.snapshot->valid()) {
        findings_.report("a valid snapshot found nothing, " + doing);
    }
    judge_loss(life, open, doing);
    return true;
}

// A lease ends with its age by the daemon's clock, which sees it later than we do; and where
// readers hold the frames that the pool is in want of, which the engine says. Nothing else ends it.
void SimReaders::judge_loss(SimLife& life, const Open& open, const std::string& doing) {
    if (life.down() || open.snapshot->valid()) return;
    ++counts_[SimCount::kLeasesEnded];
    const std::uint64_t age_ns = life.store.clock.monotonic_ns() - open.began_ns;
    if (age_ns > life.view->header().max_snapshot_age_ns) return;
    ++counts_[SimCount::kLeasesForRoom];
    if (revoked_for_room(life) > open.revoked_before) return;
    findings_.report("a lease ended after " + std::to_string(age_ns / 1'000) + " us of " +
                     std::to_string(life.view->header().max_snapshot_age_ns / 1'000) + ", " +
                     doing + ", and there is no reason for it");
}

void SimReaders::begin(SimLife& life) {
    if (open_.size() >= kOpenMax) return;
    Open fresh;
    fresh.snapshot = take(life);
    if (!fresh.snapshot) return;
    ++counts_[SimCount::kSnapshots];
    if (open(life, fresh)) open_.push_back(std::move(fresh));
}

bool SimReaders::open(SimLife& life, Open& open) {
    const std::int64_t durable = oracle_.durable();
    open.guests = keeper_.guests();
    open.began_ns = life.store.clock.monotonic_ns();
    open.began_us = life.store.clock.wall_us();
    open.revoked_before = revoked_for_room(life);
    if (!read_catalog(life, open)) return false;
    const TreeShape shape(schemas()[kOrder], tables_[kOrder]);
    const auto table = open.tables.find("witness");
    if (table == open.tables.end()) return false;
    const auto row = open.snapshot->get(shape, table->second.root, key_of(kOrder, 0));
    if (!row) return !lost(life, open, "looking at the witness");
    if (*row) std::memcpy(&open.place, (*row)->data(), sizeof open.place);
    if (!open.snapshot->valid()) return !lost(life, open, "having seen the witness");
    if (open.place < durable || open.place < newest_place_) {
        findings_.report("a snapshot begins with place " + std::to_string(open.place) + "; place " +
                         std::to_string(std::max(durable, newest_place_)) +
                         " had been acknowledged or seen before");
        return false;
    }
    newest_place_ = open.place;
    oracle_.published(open.place);
    open.held = open.snapshot->page(table->second.root);
    if (open.held != nullptr) open.held_bytes.assign(open.held, open.held + kPageBytes);
    return !findings_.any();
}

bool SimReaders::read_catalog(SimLife& life, Open& open) {
    const TreeShape shape(catalog_schema(), kCatalogTable);
    const PageId root{life.view->header().catalog_root};
    const auto rows = open.snapshot->range(shape, root, Bytes(4), {}, [] { return true; });
    if (!rows) return !lost(life, open, "reading the catalog");
    for (const auto& [key, value] : *rows) {
        const auto number = [&, &row_key = key, &row_value = value](std::uint32_t column) {
            return column_integer(catalog_schema(), column, row_key.data(), row_value);
        };
        const std::uint64_t flags = number(kCatalogFlags);
        if (flags & (kSystemTableFlag | kDroppedTableFlag | kHiddenTableFlag)) continue;
        const auto name = column_bytes(catalog_schema(), kCatalogName, key.data(), value);
        Table table;
        table.id = TableId{static_cast<std::uint32_t>(number(kCatalogTableId))};
        table.root = PageId{static_cast<std::uint32_t>(number(kCatalogRoot))};
        table.retain_us = number(kCatalogRetain);
        open.tables[{reinterpret_cast<const char*>(name.data()), name.size()}] = table;
    }
    std::erase_if(open.guests, [&](const SimKeeper::GuestsPtr& guests) {
        const bool all = std::all_of(guests->begin(), guests->end(), [&](const auto& guest) {
            const auto table = open.tables.find(guest.first);
            return table != open.tables.end() && table->second.retain_us == guest.second.retain_us;
        });
        return !all || guests->size() + kTables != open.tables.size();
    });
    if (open.guests.empty()) {
        findings_.report(
            "a snapshot sees other tables than there were before or after what the "
            "keeper does");
    }
    return !findings_.any();
}

// A lease ends in time, and a page in sight of a valid snapshot stays what it is.
bool SimReaders::check_held(SimLife& life, Open& open) {
    const bool same = open.held == nullptr ||
                      std::memcmp(open.held, open.held_bytes.data(), open.held_bytes.size()) == 0;
    if (!open.snapshot->valid()) return !lost(life, open, "between two reads");
    if (!same) {
        const auto differs =
            std::mismatch(open.held_bytes.begin(), open.held_bytes.end(), open.held);
        findings_.report("a page changed in the sight of a valid snapshot, from byte " +
                         std::to_string(differs.first - open.held_bytes.begin()) + " on");
        return false;
    }
    const std::uint64_t age = life.store.clock.monotonic_ns() - open.began_ns;
    const std::uint64_t most = life.view->header().max_snapshot_age_ns;
    // The engine may not have seen it before the clock's last step.
    if (age > 3 * most + kLeaseSlackNs && open.began_ns != 0) {
        for (int look = 0; look < 2 && open.snapshot->valid() && !life.down(); ++look) {
            life.store.round();
            life.store.clock.advance_ns(most + kLeaseSlackNs);
            life.store.round();
        }
        if (open.snapshot->valid() && !life.down()) {
            findings_.report("a lease does not end");
        }
        return false;
    }
    return true;
}

// Between two reads no frame is in use, and the reader may say so, or rest for a while: then what
// is evicted is not kept for it.
void SimReaders::let_go(SimLife& life, Open& open, const std::function<void()>& meanwhile) {
    open.held = nullptr;
    if (random_() % 2 == 0) return open.snapshot->renew();
    open.snapshot->rest();
    for (std::uint64_t i = random_() % 4; i > 0 && !life.down(); --i) meanwhile();
    open.snapshot->resume();
}

// The page is looked up anew, perhaps after it was read from the file again: it is the same.
bool SimReaders::hold_again(SimLife& life, Open& open) {
    if (open.held_bytes.empty()) return true;
    open.held = open.snapshot->page(open.tables.at("witness").root);
    if (open.held == nullptr) return !lost(life, open, "looking at a page again");
    // Set when the page is written to the file, and meaningless in the pool.
    constexpr std::size_t kCrc = offsetof(PageHeader, crc);
    std::memcpy(open.held_bytes.data() + kCrc, open.held + kCrc, sizeof PageHeader::crc);
    return check_held(life, open);
}

void SimReaders::read(SimLife& life, const std::function<void()>& meanwhile) {
    if (open_.empty()) return;
    const std::size_t index = random_() % open_.size();
    Open& open = open_[index];
    const bool modestly = random_() % 2 == 0;
    bool goes_on = check_held(life, open);
    open.snapshot->read_modestly(modestly);
    if (goes_on && modestly) let_go(life, open, meanwhile);
    if (goes_on) goes_on = read_something(life, open, meanwhile);
    if (life.down()) return;
    if (goes_on && modestly) goes_on = hold_again(life, open);
    if (!goes_on && !life.down()) forget(index);
}

bool SimReaders::read_something(SimLife& life, Open& open, const std::function<void()>& meanwhile) {
    const auto table = static_cast<std::uint32_t>(random_() % 3);
    switch (random_() % 4) {
        case 0:
            ++counts_[SimCount::kRangeReads];
            return read_range(life, open, table, meanwhile);
        case 1:
            ++counts_[SimCount::kGuestReads];
            return read_guest(life, open);
        default:
            ++counts_[SimCount::kRowReads];
            return read_rows(life, open, table);
    }
}

void SimReaders::forget(std::size_t index) {
    const SimSnapshot& snapshot = *open_[index].snapshot;
    counts_[SimCount::kMisses] += snapshot.misses();
    counts_[SimCount::kRenewals] += snapshot.renewals();
    counts_[SimCount::kRests] += snapshot.rests();
    open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(index));
}

void SimReaders::end_one() {
    if (!open_.empty()) forget(random_() % open_.size());
}

void SimReaders::stop_announced(SimLife& life) {
    SimClient& client = *clients_[random_() % clients_.size()];
    SlotOwner slot(client.segment().slots()[0], life.view->published(),
                   life.view->revoked()[client.segment().first_slot()]);
    slot.begin();
    slot.pin_all();
    ++counts_[SimCount::kStopsAnnounced];
}

// What it held is let go, in the middle of whatever it did, and never believed again.
void SimReaders::bury_one(SimLife& life) {
    SimClient*& client = clients_[random_() % clients_.size()];
    if (random_() % 2 == 0) ask_ahead(life);
    std::vector<Open> dead;
    for (Open& open : open_) {
        if (&open.snapshot->client() != client) continue;
        if (random_() % 3 == 0) open.snapshot->rest();
        open.snapshot->die();
        dead.push_back(std::move(open));
    }
    std::erase_if(open_, [](const Open& open) { return open.snapshot == nullptr; });
    std::erase_if(asked_, [&](const auto& call) { return call.first == client; });
    ++counts_[SimCount::kReaderDeaths];
    counts_[SimCount::kSnapshotsOfTheDead] += dead.size();
    life.store.disconnect(*client);
    if (life.down()) return;
    for (const Open& open : dead) {
        if (open.snapshot->valid()) findings_.report("a process that is gone has a snapshot still");
    }
    client = welcome(life);
    if (client == nullptr) life.turned_away("a reader", excuses_, findings_);
}

void SimReaders::ask_ahead(SimLife& life) {
    std::erase_if(asked_, [](const auto& call) { return call.first->answer(call.second); });
    SimClient& client = *clients_[random_() % clients_.size()];
    const Space& space = life.store.engine->core().storage().space;
    const std::uint32_t pages = space.chunk_count() * kChunkPages;
    for (int i = 0; i < 4 && asked_.size() < kAskedMax; ++i) {
        std::array<PageId, kPagesPerRequest> wanted;
        for (PageId& page : wanted) page = PageId{static_cast<std::uint32_t>(random_() % pages)};
        const auto token = client.request_pages(wanted);
        if (!token) return;
        asked_.emplace_back(&client, *token);
        counts_[SimCount::kPagesAskedAhead] += kPagesPerRequest;
    }
}

// The directory leads to the row that the tree has, or to none.
void SimReaders::check_direct(const Open& open, const std::optional<Bytes>& direct,
                              const std::optional<Bytes>& row, const std::string& name) {
    if (!direct || !open.snapshot->valid()) return;
    ++counts_[SimCount::kDirectReads];
    if (direct == row) return;
    findings_.report("in " + name + " the key directory leads to a row that the tree has " +
                     (row ? "otherwise" : "not"));
}

bool SimReaders::read_rows(SimLife& life, Open& open, std::uint32_t table) {
    const TreeShape shape(schemas()[table], tables_[table]);
    const PageId root = open.tables.at(schemas()[table].name()).root;
    for (int i = 0; i < 3; ++i) {
        const Bytes key = maker_.some_key(table);
        const auto direct = open.snapshot->by_directory(schemas()[table], shape, root, key);
        const auto value = open.snapshot->get(shape, root, key);
        if (value) check_direct(open, direct, *value, schemas()[table].name());
        TableRows found;
        if (value && *value) found[key] = **value;
        if (!value || !bury(open, table, found)) {
            return !lost(life, open, "reading a row of table " + std::to_string(table));
        }
        if (!open.snapshot->valid()) return !lost(life, open, "having read a row");
        oracle_.saw_row(open.place, table, key, std::move(found));
    }
    return true;
}

// In the middle of a read, while the others go on: for longer than its lease.
void SimReaders::stand_still(SimLife& life, const Open& open,
                             const std::function<void()>& meanwhile) {
    const std::uint64_t most = life.view->header().max_snapshot_age_ns;
    for (int i = 0; i < 10 && !life.down(); ++i) {
        life.store.clock.advance_ns((3 * most + kLeaseSlackNs) / 10);
        meanwhile();
        life.store.round();  // a lease begins when the engine sees the slot
    }
    life.store.run_until([&] { return !open.snapshot->valid() || life.down(); }, 200);
    ++counts_[SimCount::kStopsOutlastingLeases];
}

bool SimReaders::read_range(SimLife& life, Open& open, std::uint32_t table,
                            const std::function<void()>& meanwhile) {
    const TreeShape shape(schemas()[table], tables_[table]);
    const PageId root = open.tables.at(schemas()[table].name()).root;
    const bool whole = random_() % 4 == 0;
    const Bytes from = whole ? key_of(table, 0) : maker_.some_key(table);
    Bytes to = whole ? Bytes{} : maker_.some_key(table);
    if (!to.empty() && to < from) to = {};
    bool stops = random_() % 16 == 0;
    bool stopped = false;
    const auto between = [&] {
        if (random_() % 3 == 0) meanwhile();
        if (stops) stand_still(life, open, meanwhile);
        stopped |= stops;
        stops = false;
        return true;
    };
    auto found = whole && random_() % 2 == 0 ? open.snapshot->backwards(shape, root)
                                             : open.snapshot->range(shape, root, from, to, between);
    if (stopped && !life.down() && open.snapshot->valid()) {
        findings_.report("a reader that stood still goes on with a lease that should be over");
        return false;
    }
    if (!found || !bury(open, table, *found)) {
        return !lost(life, open, "reading a range of table " + std::to_string(table));
    }
    if (!open.snapshot->valid()) return !lost(life, open, "having read a range");
    oracle_.saw_rows(open.place, table, from, to, std::move(*found));
    return true;
}

// The floor follows the clock, no further than any retention, and never falls, also when the clock
// is set back.
void SimReaders::check_floor(SimLife& life, const Open& open, const std::string& name,
                             std::uint64_t floor) {
    const std::uint64_t now_us = life.store.clock.wall_most_us();
    std::uint64_t most = 0;
    for (const SimKeeper::GuestsPtr& guests : open.guests) {
        const Guest& guest = guests->at(name);
        most = std::max(most, guest.floor_most_us);
        if (guest.retain_us != 0) most = std::max(most, now_us - guest.retain_us);
    }
    if (floor > most) findings_.report("the floor of " + name + " is ahead of its retention");
    check_fall(open, name, open.guests.front()->at(name).serial, floor);
}

// Rows are gone at most a 256th of the retention, or 1 s, after their time, for snapshots that
// begin then, however far the clock was set ahead.
void SimReaders::check_late(const Open& open, const Guest& guest, const TableRows& rows) {
    if (!floors_follow_ || guest.retain_us == 0) return;
    const std::uint64_t late_us =
        guest.retain_us + std::min<std::uint64_t>(guest.retain_us / 256 + 1'000, 1'000'000);
    for (const auto& [key, value] : rows) {
        if (guest.schema.live(key.data(), value, open.began_us - late_us - kLateUs)) continue;
        return findings_.report("a row of " + guest.schema.name() +
                                " is served beyond its retention");
    }
}

void SimReaders::check_fall(const Open& open, const std::string& name, std::uint64_t serial,
                            std::uint64_t floor) {
    auto& [csn, last] = floors_[{name, serial}];
    const std::uint64_t own = open.snapshot->csn();
    if (own >= csn ? floor < last : floor > last) {
        findings_.report("the floor of " + name + " fell");
    }
    if (own >= csn) {
        csn = own;
        last = floor;
    }
}

// What is left of rows as they are stored: the dead ones go, and large values come. False: as for
// SimSnapshot::whole().
bool SimReaders::bury(Open& open, std::uint32_t table, TableRows& rows) {
    const Schema& schema = schemas()[table];
    const std::byte* root = open.snapshot->page(open.tables.at(schema.name()).root);
    if (root == nullptr) return false;
    const std::uint64_t floor = floor_of(root);
    if (!open.snapshot->valid()) return false;
    check_fall(open, schema.name(), 0, floor);
    keep_alive(schema, floor, rows);
    auto whole = open.snapshot->whole(schema, std::move(rows));
    if (whole) rows = std::move(*whole);
    return whole.has_value();
}

// Keys of one of the states that the keeper's table may be in, as the directory has them: pages of
// tables that were dropped, and of rows that died, are there still.
void SimReaders::check_directory(Open& open, const TreeShape& shape, const std::string& name,
                                 const Bytes& from, const Bytes& last, const TableRows& found) {
    const Guest& guest = open.guests.back()->at(name);
    const SimKeeper::Rows rows = between(*guest.rows, from, last);
    for (int i = 0; i < 4 && !rows.empty() && !found.empty(); ++i) {
        const SimKeeper::Rows& some = i % 2 == 0 ? rows : found;
        const auto at = static_cast<std::ptrdiff_t>(random_() % some.size());
        const Bytes& key = std::next(some.begin(), at)->first;
        const auto direct =
            open.snapshot->by_directory(guest.schema, shape, open.tables.at(name).root, key);
        const auto row = found.find(key);
        check_direct(open, direct, row == found.end() ? std::nullopt : std::optional(row->second),
                     name);
    }
}

bool SimReaders::read_guest(SimLife& life, Open& open) {
    std::vector<std::string> names;
    for (const auto& [name, table] : open.tables) {
        if (name.starts_with("guest")) names.push_back(name);
    }
    if (names.empty()) return true;
    const std::string name = names[random_() % names.size()];
    const Table table = open.tables.at(name);
    const Schema schema = open.guests.front()->at(name).schema;
    const TreeShape shape(schema, table.id);
    const std::byte* root = open.snapshot->page(table.root);
    if (root == nullptr) return !lost(life, open, "looking for the root of " + name);
    const std::uint64_t floor = floor_of(root);
    // Of a large one some leaves: a snapshot holds all that it has seen, and the pool is small.
    Bytes from(schema.key_bytes());
    const SimKeeper::Rows& rows = *open.guests.front()->at(name).rows;
    if (!rows.empty() && random_() % 2 == 0) {
        from = std::next(rows.begin(), static_cast<std::ptrdiff_t>(random_() % rows.size()))->first;
    }
    int leaves = 0;
    auto found = open.snapshot->range(shape, table.root, from, {}, [&] { return ++leaves < 10; });
    if (found && found->empty() && leaves >= 10) return true;
    const Bytes last = found && leaves >= 10 ? found->rbegin()->first : Bytes{};
    if (found) {
        keep_alive(schema, floor, *found);
        if (open.snapshot->valid()) check_late(open, open.guests.front()->at(name), *found);
        check_directory(open, shape, name, from, last, *found);
        found = open.snapshot->whole(schema, std::move(*found));
    }
    if (!found) return !lost(life, open, "reading " + name);
    if (!open.snapshot->valid()) return !lost(life, open, "having read " + name);
    check_floor(life, open, name, floor);
    std::string wrong;
    std::erase_if(open.guests, [&](const SimKeeper::GuestsPtr& guests) {
        const Guest& guest = guests->at(name);
        const std::string unlike =
            difference(*found, SimKeeper::alive(guest, between(*guest.rows, from, last), floor));
        if (!unlike.empty()) wrong = unlike;
        return !unlike.empty();
    });
    if (open.guests.empty()) findings_.report("a snapshot of " + name + ": " + wrong);
    return !findings_.any();
}

// Some leaves at a time: a snapshot holds all that it has seen.
void SimReaders::read_all_of(SimLife& life, std::uint32_t table) {
    const TreeShape shape(schemas()[table], tables_[table]);
    TableRows all;
    Bytes from = key_of(table, 0);
    for (int leases = 0; !findings_.any() && !life.down();) {
        if (++leases > kLeasesPerRead) {
            return findings_.report("nobody writes, and no lease lasts long enough to read table " +
                                    std::to_string(table));
        }
        int leaves = 0;
        Open open;
        open.snapshot = take(life);
        if (!this->open(life, open)) continue;
        const PageId root = open.tables.at(schemas()[table].name()).root;
        auto found = open.snapshot->range(shape, root, from, {}, [&] { return ++leaves < 6; });
        const Bytes last = found && !found->empty() ? found->rbegin()->first : from;
        if (!found || !bury(open, table, *found)) {
            lost(life, open, "reading everything");
            continue;
        }
        leases = 0;
        all.insert(found->begin(), found->end());
        if (leaves >= 6) {
            from = last;
            continue;
        }
        const std::string wrong = difference(all, oracle_.rows(table));
        if (!wrong.empty()) {
            findings_.report("at the end, table " + std::to_string(table) + ": " + wrong);
        }
        return;
    }
}

void SimReaders::read_everything(SimLife& life) {
    for (std::uint32_t table = 0; table < kTables; ++table) read_all_of(life, table);
    for (int i = 0; i < 100 && !life.down(); ++i) {
        life.store.clock.advance_ns(2'000'000);
        life.store.round();
    }
    floors_follow_ = true;
    for (int i = 0; i < 4 && !findings_.any() && !life.down(); ++i) {
        Open open;
        open.snapshot = take(life);
        if (this->open(life, open)) static_cast<void>(read_guest(life, open));
    }
}

}  // namespace bidstore
