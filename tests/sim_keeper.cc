#include "tests/sim_keeper.h"

#include <algorithm>
#include <array>
#include <utility>

namespace bidstore {
namespace {

// More than are lost of the newest batches of a log at once: two, and as many as the longest of its
// writes that goes elsewhere has blocks (tests/sim_damage.cc). In 1,200 seeds that was 10 at most.
constexpr std::size_t kFormerMax = 16;
constexpr std::uint64_t kRetentionsUs[] = {2'000'000, 8'000'000, 60'000'000};

SessionId keeper_session() {
    SessionId id;
    id.bytes[0] = 1;
    return id;
}

enum Kind : std::uint32_t { kFixed, kMixed, kTimed, kByTime, kKinds };

Schema schema_of(Kind kind, const std::string& name) {
    switch (kind) {
        case kFixed:
            return made(Schema::make(name,
                                     {{"id", ColumnType::kU32, 0},
                                      {"n", ColumnType::kI64, 0},
                                      {"pad", ColumnType::kFixed, 300}},
                                     1));
        case kMixed:
            return made(Schema::make(name,
                                     {{"id", ColumnType::kU32, 0},
                                      {"n", ColumnType::kI32, 0},
                                      {"text", ColumnType::kText, 0},
                                      {"data", ColumnType::kBytes, 0}},
                                     1));
        case kTimed:
            return made(Schema::make(name,
                                     {{"id", ColumnType::kU32, 0},
                                      {"at", ColumnType::kTimestamp, 0},
                                      {"text", ColumnType::kText, 0}},
                                     1, 1));
        default:
            return made(Schema::make(name,
                                     {{"at", ColumnType::kTimestamp, 0},
                                      {"id", ColumnType::kU32, 0},
                                      {"pad", ColumnType::kFixed, 200}},
                                     2, 0));
    }
}

}  // namespace

SimKeeper::SimKeeper(Random& random, Findings& findings, const Excuses& excuses, SimCounts& counts)
    : random_(random),
      findings_(findings),
      excuses_(excuses),
      counts_(counts),
      session_(findings, keeper_session(), Rights::kAdmin),
      now_(std::make_shared<Guests>()),
      compaction_(findings, excuses, counts) {}

bool SimKeeper::connect(SimLife& life) { return session_.connect(life.store); }
void SimKeeper::send_again() { session_.send_again(); }
void SimKeeper::lose() {
    session_.lose();
    compaction_.lose();
    held_.clear();
}

std::vector<SimKeeper::GuestsPtr> SimKeeper::guests() const {
    if (next_ && !decided_) return {now_, next_};
    return {decided_ ? next_ : now_};
}

std::vector<SimKeeper::GuestsPtr> SimKeeper::former(std::uint32_t changes) const {
    std::vector<GuestsPtr> states(former_.begin(), former_.end());
    if (decided_) states.insert(states.begin(), now_);
    states.resize(std::min<std::size_t>(changes, states.size()));
    return states;
}

void SimKeeper::become(GuestsPtr guests) {
    if (guests == now_) return;
    former_.push_front(std::exchange(now_, std::move(guests)));
    if (former_.size() > kFormerMax) former_.pop_back();
}

SimKeeper::Rows SimKeeper::alive(const Guest& guest, const Rows& rows, std::uint64_t floor) {
    Rows alive = rows;
    std::erase_if(alive, [&](const auto& row) {
        return !guest.schema.live(row.first.data(), row.second, floor);
    });
    return alive;
}

bool SimKeeper::create_shared(SimLife& life, std::array<TableId, kTables>& tables) {
    for (std::uint32_t i = 0; i < kTables; ++i) {
        const std::string encoded = schemas()[i].encode();
        TransactionBytes bytes;
        bytes.operation(OperationKind::kCreateTable, TableId{}, {},
                        std::as_bytes(std::span(encoded)));
        session_.submit(bytes.bytes());
        bool made = false;
        life.store.run_until([&] {
            session_.collect([&](const SimSession::Write& write) {
                made = write.answer.error == Error::kOk && write.answer.result_count == 1;
                tables[i] = TableId{static_cast<std::uint32_t>(write.answer.result[0])};
            });
            return session_.idle();
        });
        if (!made) return false;
    }
    shared_ = tables[0];
    return true;
}

bool SimKeeper::retain_shared(SimLife& life, TableId table) {
    const TableAttributes attributes{kRetentionsUs[pick(3)], 0};
    TransactionBytes bytes;
    bytes.operation(OperationKind::kSetTable, table, {}, std::as_bytes(std::span(&attributes, 1)));
    session_.submit(bytes.bytes());
    const auto moved = [&] {
        session_.collect([](const SimSession::Write&) {});
        const TableEntry* entry = life.store.engine->core().storage().catalog->find(table);
        return session_.idle() && entry->tree.floor() > Maker::kLongAgo;
    };
    return life.store.run_until(moved, 2'000);
}

// ---- rows ----

Bytes SimKeeper::key(const Schema& schema, std::uint64_t now_us, std::uint64_t retain_us) {
    Bytes key(schema.key_bytes());
    if (schema.time_column() == 0) {
        encode_key_integer(key.data(), now_us - pick(retain_us + 1'000'000), 8, false);
        encode_key_integer(key.data() + 8, pick(1'000), 4, false);
    } else {
        encode_key_integer(key.data(), pick(120), 4, false);
    }
    return key;
}

Bytes SimKeeper::value(const Schema& schema, std::uint64_t now_us, std::uint64_t retain_us,
                       bool large) {
    Parts parts;
    parts.fixed.assign(schema.fixed_bytes(), static_cast<std::byte>('A' + pick(26)));
    if (schema.time_column() == 1) {
        const std::uint64_t at = now_us - pick(retain_us + 1'000'000);
        std::memcpy(parts.fixed.data() + schema.offset_bytes(1), &at, sizeof at);
    }
    for (std::uint32_t i = 0; i < schema.variable_columns(); ++i) {
        const std::uint64_t most = large && pick(12) == 0 ? 12'000 : pick(4) == 0 ? 1'500 : 200;
        parts.variable.emplace_back(pick(most), static_cast<std::byte>('a' + pick(26)));
    }
    return join(schema, parts);
}

// ---- what it does ----

void SimKeeper::send(SimCount what, Guests next, const TransactionBytes& bytes) {
    number_ = session_.submit(bytes.bytes());
    if (number_ == 0) return;
    ++counts_[what];
    changes_retention_ = what == SimCount::kRetentions;
    next_ = std::make_shared<Guests>(std::move(next));
    decided_ = false;
}

TableId SimKeeper::id_of(SimLife& life, const std::string& name) const {
    const TableEntry* table = table_named(life.store, name);
    return table == nullptr ? TableId{} : table->id;
}

void SimKeeper::begin_create(SimLife& life, const std::string& name) {
    Guests next = *now_;
    const auto kind = static_cast<Kind>(pick(kKinds));
    Guest guest{schema_of(kind, name), 0, 0, std::make_shared<Rows>(), ++made_};
    const bool timed = kind == kTimed || kind == kByTime;
    if (timed && pick(4) != 0) guest.retain_us = kRetentionsUs[pick(3)];
    const TableAttributes attributes{guest.retain_us, 0};
    const std::string encoded = guest.schema.encode();
    next.emplace(name, std::move(guest));
    TransactionBytes bytes;
    bytes.operation(OperationKind::kCreateTable, TableId{},
                    std::as_bytes(std::span(&attributes, 1)), std::as_bytes(std::span(encoded)));
    // In a chunk of its own, or the last one: compaction makes holes before it.
    Space& space = life.store.engine->core().storage().space;
    const std::uint32_t chunks = space.chunk_count();
    if (pick(3) == 0) held_ = hold_pages_before(space, chunks < 4 ? chunks : chunks - 1);
    send(SimCount::kCreates, std::move(next), bytes);
    if (number_ == 0) give_back(space, held_);
}

void SimKeeper::begin_rows(SimLife& life, const std::string& name) {
    Guests next = *now_;
    Guest& guest = next.at(name);
    const TableId id = id_of(life, name);
    const std::uint64_t now_us = life.store.clock.wall_us();
    Rows rows = *guest.rows;
    TransactionBytes bytes;
    for (std::uint64_t count = 1 + pick(14); count > 0; --count) {
        if (!rows.empty() && pick(5) == 0) {
            auto row = rows.begin();
            std::advance(row, static_cast<std::ptrdiff_t>(pick(rows.size())));
            bytes.operation(OperationKind::kDelete, id, row->first, {}, kIfPresent);
            rows.erase(row);
            continue;
        }
        const Bytes new_key = key(guest.schema, now_us, guest.retain_us);
        rows[new_key] = value(guest.schema, now_us, guest.retain_us, true);
        bytes.operation(OperationKind::kPut, id, new_key, rows[new_key]);
    }
    if (!rows.empty() && pick(6) == 0) {
        auto from = rows.begin();
        std::advance(from, static_cast<std::ptrdiff_t>(pick(rows.size())));
        auto to = from;
        for (std::uint64_t i = pick(30); i > 0 && to != rows.end(); --i) ++to;
        const Bytes end = to == rows.end() ? Bytes{} : to->first;
        bytes.operation(OperationKind::kDeleteRange, id, from->first, end);
        rows.erase(from, to);
    }
    guest.rows = std::make_shared<Rows>(std::move(rows));
    send(SimCount::kRowChanges, std::move(next), bytes);
}

void SimKeeper::begin_drop(SimLife& life, const std::string& name) {
    Guests next = *now_;
    next.erase(name);
    TransactionBytes bytes;
    bytes.operation(OperationKind::kDropTable, id_of(life, name), {}, {});
    send(SimCount::kDrops, std::move(next), bytes);
}

void SimKeeper::begin_retention(SimLife& life, const std::string& name) {
    Guests next = *now_;
    Guest& guest = next.at(name);
    if (guest.schema.time_column() == kNoTimeColumn) return;
    if (guest.retain_us != 0) {
        const std::uint64_t most_us = life.store.clock.wall_most_us() + 10'000'000;
        guest.floor_most_us = std::max(guest.floor_most_us, most_us - guest.retain_us);
    }
    guest.retain_us = pick(4) == 0 ? 0 : kRetentionsUs[pick(3)];
    const TableAttributes attributes{guest.retain_us, 0};
    TransactionBytes bytes;
    bytes.operation(OperationKind::kSetTable, id_of(life, name), {},
                    std::as_bytes(std::span(&attributes, 1)));
    send(SimCount::kRetentions, std::move(next), bytes);
}

// Mostly small; now and then more than a chunk has room for, so that there is something to compact
// when it is dropped.
void SimKeeper::begin_load(const std::string& name) {
    Guests next = *now_;
    const bool big = pick(3) == 0;
    const Kind kind = big ? kFixed : static_cast<Kind>(pick(kKinds));
    Guest guest{schema_of(kind, name), 0, 0, nullptr, ++made_};
    Rows rows;
    const bool large = kind == kMixed || kind == kTimed;  // values that go to extents
    const std::uint64_t ids = big ? 8'000 : 2'000;
    for (std::uint64_t count = big ? 3'000 + pick(4'000) : pick(100); count > 0; --count) {
        Bytes row_key(4);
        if (kind == kByTime) {
            row_key = key(guest.schema, 1ull << 40, 1 << 30);
        } else {
            encode_key_integer(row_key.data(), pick(ids), 4, false);
        }
        rows[row_key] = value(guest.schema, 1ull << 40, 1 << 30, large);
    }
    guest.rows = std::make_shared<Rows>(rows);
    next.insert_or_assign(name, guest);
    next_ = std::make_shared<Guests>(std::move(next));
    number_ = 0;
    decided_ = false;
    ++counts_[SimCount::kLoads];
    counts_[SimCount::kLargeLoads] += large;
    load_.emplace(session_.client(), guest.schema, rows);
    load_began_ = excuses_.times_over;
    loading_ = guest;
}

// True: something is under way.
bool SimKeeper::go_on(SimLife& life, const SimCompaction& other) {
    if (!session_.connected()) return true;
    if (!orphan_.empty()) {
        look_for_orphan();
    } else if (load_) {
        pump_load();
    } else if (compaction_.running()) {
        pump_compaction(life, other);
    } else {
        return !session_.idle() || next_;
    }
    return true;
}

void SimKeeper::load(SimLife& life, const SimCompaction& other) {
    if (go_on(life, other)) return;
    const std::string name = "guest" + std::to_string(pick(4));
    now_->contains(name) ? begin_drop(life, name) : begin_load(name);
}

void SimKeeper::act(SimLife& life, const SimCompaction& other) {
    if (go_on(life, other)) return;
    const std::string name = "guest" + std::to_string(pick(4));
    const bool there = now_->contains(name);
    const std::uint64_t choice = pick(100);
    if (choice < 8) {
        compaction_.begin(session_.client(), other);
    } else if (!there) {
        choice < 35 ? begin_load(name) : begin_create(life, name);
    } else if (choice < 18) {
        begin_drop(life, name);
    } else if (choice < 25) {
        begin_retention(life, name);
    } else {
        begin_rows(life, name);
    }
}

// ---- answers ----

void SimKeeper::answered(SimLife& life, const SimSession::Write& write) {
    give_back(life.store.engine->core().storage().space, held_);
    const Error error = write.answer.error;
    if (error == Error::kOk) {
        become(next_);
    } else if (decided_) {
        findings_.report(
            "a change of the keeper's was there after recovery, and was then refused "
            "with " +
            std::string(error_name(error)));
    } else if (!excuses_.cover(error, write.decided_before) &&
               error != Error::kTooLarge) {  // for the smallest pools
        findings_.report("a change of the keeper's was refused with " +
                         std::string(error_name(error)) + ", and there is no reason for it");
    }
    next_.reset();
    decided_ = false;
}

void SimKeeper::collect(SimLife& life) {
    session_.collect([&](const SimSession::Write& write) {
        if (write.number == orphan_number_) return orphan_decided(life, write);
        if (write.number == number_ && next_) answered(life, write);
    });
}

void SimKeeper::pump_load() {
    if (session_.dying() || !load_->step()) return;
    // Of a daemon on its way out: recovery tells.
    if (load_->error() == Error::kUnknownOutcome) return;
    if (load_->loaded()) {
        become(next_);
        ++counts_[SimCount::kLoadsShown];
    } else if (!excuses_.cover_since(load_began_, load_->error()) &&
               load_->error() != Error::kTooLarge) {
        findings_.report("a load failed with " + std::string(error_name(load_->error())) +
                         ", and there is no reason for it");
    }
    if (load_->error() == Error::kTooLarge) load_too_large_ = loading_;
    next_.reset();
    load_.reset();
}

void SimKeeper::pump_compaction(SimLife& life, const SimCompaction& other) {
    if (session_.dying() || !compaction_.pump(other)) return;
    // Who asks no more lets nobody else compact: it hangs up, as the tool does.
    if (compaction_.claims()) bury(life, [] {});
}

// ---- death ----

void SimKeeper::bury(SimLife& life, const std::function<void()>& meanwhile) {
    if (!session_.connected()) return;
    ++counts_[SimCount::kKeeperDeaths];
    counts_[SimCount::kDeathsInLoads] += load_.has_value();
    counts_[SimCount::kDeathsInCompactions] += compaction_.running();
    if (load_) {
        for (const auto& [name, guest] : *next_) {
            if (!now_->contains(name)) orphan_ = name;
        }
    }
    load_.reset();
    compaction_.lose();
    session_.die(life.store);
    for (std::uint64_t i = pick(10); i > 0 && !life.down(); --i) meanwhile();
    if (life.down()) return;
    if (session_.connect(life.store)) return session_.send_again();
    life.turned_away("a keeper", excuses_, findings_);
}

// A durable write comes behind whatever became of the load.
void SimKeeper::look_for_orphan() {
    if (!session_.connected() || orphan_number_ != 0 || !session_.idle()) return;
    TransactionBytes nothing;
    nothing.operation(OperationKind::kCheckAbsent, shared_, key_of(0, ~std::uint32_t{0}), {});
    orphan_number_ = session_.submit(nothing.bytes());
}

void SimKeeper::orphan_decided(SimLife& life, const SimSession::Write& write) {
    orphan_number_ = 0;
    const Error error = write.answer.error;
    if (error != Error::kOk) {  // once more
        if (excuses_.cover(error, write.decided_before)) return;
        return findings_.report("a write that changes nothing was refused with " +
                                std::string(error_name(error)));
    }
    const TableEntry* table = table_named(life.store, orphan_);
    if (table != nullptr && !table->hidden()) {
        become(next_);
        ++counts_[SimCount::kLoadsShown];
    }
    next_.reset();
    orphan_.clear();
}

bool SimKeeper::settle(SimLife& life, const SimCompaction& other) {
    life.run([&] {
        collect(life);
        if (load_) pump_load();
        if (compaction_.running()) pump_compaction(life, other);
        if (!orphan_.empty()) look_for_orphan();
        return (idle() && session_.idle()) || findings_.any();
    });
    if (life.down() || findings_.any()) return false;
    if (!idle()) findings_.report("the keeper has no answer, after thousands of rounds");
    return !findings_.any();
}

// ---- recovery ----

void SimKeeper::recovered(SimLife& life) {
    load_.reset();
    orphan_.clear();
    orphan_number_ = 0;
    std::string wrong;
    GuestsPtr found;
    // Of a write, its session knows whether it was applied.
    if (next_ && number_ != 0) decided_ = session_.applied() >= number_;
    const std::vector<GuestsPtr> candidates =
        next_ && number_ != 0 ? std::vector<GuestsPtr>{decided_ ? next_ : now_} : guests();
    for (const GuestsPtr& candidate : candidates) {
        std::string unlike;
        std::size_t tables = 0;
        for (TableEntry* table : life.store.engine->core().storage().catalog->all()) {
            if (table->hidden() || !table->schema.name().starts_with("guest")) continue;
            ++tables;
            const auto guest = candidate->find(table->schema.name());
            if (guest == candidate->end()) {
                unlike = "table " + table->schema.name() + " is there";
                break;
            }
            const Rows rows = life.store.rows(table->id);
            // The large values may have taken its place in a small pool, and the floor is in it.
            CHECK(life.store.engine->core().storage().bring_in(table->tree.root()).ok());
            const Rows expected = alive(guest->second, *guest->second.rows, table->tree.floor());
            unlike = difference(rows, expected);
            if (table->retain_us != guest->second.retain_us) unlike = "another retention";
            if (!unlike.empty()) {
                unlike = "table " + table->schema.name() + ": " + unlike;
                break;
            }
        }
        if (unlike.empty() && tables != candidate->size()) unlike = "a table is missing";
        if (unlike.empty()) found = candidate;
        if (!unlike.empty()) wrong = unlike;
    }
    if (!found) return findings_.report("after recovery the keeper's tables are wrong: " + wrong);
    if (!next_ || number_ != 0) return;
    become(found);  // a load: there or not, it is over
    next_.reset();
}

}  // namespace bidstore
