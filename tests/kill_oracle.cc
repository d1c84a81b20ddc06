#include "tests/kill_oracle.h"

#include <algorithm>
#include <chrono>
#include <optional>

namespace bidstore {
namespace {

constexpr std::uint32_t kRangeSlots = 8;

std::uint64_t mix(std::uint64_t value) {
    value = (value ^ value >> 31) * 0x9e3779b97f4a7c15;
    return (value ^ value >> 29) * 0xbf58476d1ce4e5b9 >> 3;
}
std::uint64_t hash_of(std::uint32_t writer, std::uint64_t number) {
    return mix(mix(writer + 1) + number);
}

std::uint64_t place_of(std::uint32_t writer, std::uint32_t slot) {
    return std::uint64_t{writer} * kSlots + slot;
}

// What a write does; the counter of its writer rises in any case.
struct Deed {
    bool put = false;
    bool move = false;
    bool erase = false;
    bool erase_range = false;
    std::uint32_t slot = 0;        // of the row that is put
    std::uint32_t erase_slot = 0;  // or the first of the range
    std::uint32_t from = 0;
    std::uint32_t to = 0;
    std::int64_t amount = 0;
};

Deed deed_of(std::uint32_t writer, std::uint64_t number) {
    const std::uint64_t hash = hash_of(writer, number);
    const std::uint64_t kind = hash % 8;  // 0: a single operation, the counter's
    Deed deed;
    deed.put = kind >= 3;
    deed.move = kind == 1 || kind >= 6;
    deed.erase = kind == 2 || kind == 7;
    deed.erase_range = kind == 5;
    deed.slot = static_cast<std::uint32_t>(number % kSlots);
    deed.erase_slot = static_cast<std::uint32_t>((hash >> 8) % (kSlots - kRangeSlots));
    deed.from = static_cast<std::uint32_t>((hash >> 16) % kAccounts);
    deed.to = static_cast<std::uint32_t>((hash >> 24) % kAccounts);
    deed.amount = static_cast<std::int64_t>((hash >> 32) % 1000);
    return deed;
}

// A reader and the test note at the same time.
void raise(std::atomic<std::uint64_t>& note, std::uint64_t number) {
    std::uint64_t before = note;
    while (before < number && !note.compare_exchange_weak(before, number)) {
    }
}

}  // namespace

std::string row_text(std::uint32_t writer, std::uint64_t number) {
    const std::uint64_t hash = hash_of(writer, number);
    const std::uint64_t length = hash / 8 % 16 == 0 ? 4200 + hash % 14'000 : hash % 400;
    const std::string token = std::to_string(writer) + "/" + std::to_string(number) + " ";
    std::string text;
    while (text.size() < length) text += token;
    text.resize(length);
    return text;
}

Bytes<100> loaded_pad(std::uint64_t generation, std::uint64_t id) {
    Bytes<100> pad;
    pad.data.fill(static_cast<std::uint8_t>(mix(generation * kLoadedRows + id)));
    return pad;
}

std::string aging_text(std::uint64_t time) {
    // The long ones fill the log, so that checkpoints have to keep a recovery short.
    return std::string(time % 8 == 0 ? 60'000 : 1000 + time % 500,
                       static_cast<char>('a' + time % 26));
}

std::string kept_text(std::uint64_t number) {
    // Some are large, and their pages lie beside those of values that die.
    return std::string(number % 16 == 0 ? 9'000 : 50, static_cast<char>('a' + number % 26));
}

std::uint64_t wall_us() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

Transaction numbered_write(const KillTables& tables, std::uint32_t writer, std::uint64_t number) {
    const Deed deed = deed_of(writer, number);
    const Table<Counted>& counted = tables.counted;
    const Table<Event>& events = tables.events;
    Transaction write;
    if (deed.erase) {
        write.erase(events, events.key(place_of(writer, deed.erase_slot), 0u), true);
    }
    if (deed.erase_range) {
        const std::uint64_t first = place_of(writer, deed.erase_slot);
        write.erase_range(events, events.prefix(first), events.prefix(first + kRangeSlots));
    }
    if (deed.put) {
        const std::string text = row_text(writer, number);
        write.put(events, {.time = place_of(writer, deed.slot),
                           .source = 0,
                           .kind = static_cast<std::uint32_t>(number),
                           .text = text});
    }
    if (deed.move) {
        const AddOptions create{.create = true};
        write.add<&Counted::amount>(counted, counted.key(kAccountIds + deed.from), -deed.amount,
                                    create);
        write.add<&Counted::amount>(counted, counted.key(kAccountIds + deed.to), deed.amount,
                                    create);
    }
    write.add<&Counted::amount>(counted, counted.key(writer), 1, {.create = true});
    return write;
}

Transaction refused_write(const KillTables& tables, std::uint32_t writer) {
    Transaction write;
    write.put(tables.events, {.time = place_of(writer, 0), .source = 1, .kind = 0, .text = "no"});
    write.require_absent(tables.counted, tables.counted.key(writer));
    return write;
}

void WriterModel::advance_to(std::uint64_t count) {
    for (; count_ < count; ++count_) {
        const Deed deed = deed_of(writer_, count_);
        if (deed.erase) rows_.erase(deed.erase_slot);
        if (deed.erase_range) {
            rows_.erase(rows_.lower_bound(deed.erase_slot),
                        rows_.lower_bound(deed.erase_slot + kRangeSlots));
        }
        if (deed.put) rows_[deed.slot] = count_;
        if (deed.move) {
            moved_[deed.from] -= deed.amount;
            moved_[deed.to] += deed.amount;
        }
    }
}

// ---- counters -----------------------------------------------------------------------------------

Result<Counters> counters_in(const Snapshot& snapshot, const Table<Counted>& counted,
                             std::uint32_t writers) {
    Counters found;
    found.counts.resize(writers);
    found.relaxed.resize(writers);
    auto cursor = counted.scan(snapshot);
    while (cursor.next()) {
        const auto row = cursor.copy();
        if (!row.ok()) return row.failure();
        const auto amount = static_cast<std::uint64_t>(row->amount);
        if (row->id >= kAccountIds && row->id < kAccountIds + kAccounts) {
            found.accounts[row->id - kAccountIds] = row->amount;
        } else if (row->id < writers) {
            found.counts[row->id] = amount;
        } else if (row->id >= kRelaxedIds && row->id < kRelaxedIds + writers &&
                   amount == row->round) {
            found.relaxed[row->id - kRelaxedIds] = amount;
        } else {
            return {Error::kCorruption, "a row that nobody wrote: " + std::to_string(row->id)};
        }
    }
    if (Status status = cursor.status(); !status.ok()) return status.failure();
    return found;
}

void note_seen(KillNotes& notes, const Counters& counters) {
    for (std::size_t writer = 0; writer < counters.counts.size(); ++writer) {
        raise(notes.writers[writer].seen, counters.counts[writer]);
        raise(notes.writers[writer].relaxed_seen, counters.relaxed[writer]);
    }
}

std::string lost_between(const Counters& before, const Counters& after) {
    for (std::size_t writer = 0; writer < before.counts.size(); ++writer) {
        if (after.counts[writer] >= before.counts[writer] &&
            after.relaxed[writer] >= before.relaxed[writer]) {
            continue;
        }
        const auto told = [&](const Counters& of) {
            return std::to_string(of.counts[writer]) + " and, relaxed, " +
                   std::to_string(of.relaxed[writer]);
        };
        return "of writer " + std::to_string(writer) + ' ' + told(before) + " were seen, now " +
               told(after);
    }
    return "";
}

Promised::Promised(const KillNotes& notes, std::uint32_t writers) {
    for (std::uint32_t writer = 0; writer < writers; ++writer) {
        const KillNotes::Writer& of = notes.writers[writer];
        acknowledged_.push_back(of.acknowledged);
        seen_.counts.push_back(of.seen);
        seen_.relaxed.push_back(of.relaxed_seen);
    }
}

void Promised::expect_in(const Counters& found) const {
    for (std::size_t writer = 0; writer < acknowledged_.size(); ++writer) {
        EXPECT_GE(found.counts[writer], acknowledged_[writer])
            << "writer " << writer << ": acknowledged and lost";
    }
    EXPECT_EQ(lost_between(seen_, found), "");
}

// ---- audit --------------------------------------------------------------------------------------

namespace {

// What a scan found of the counters, by get and by multi_get; says what is not the same.
Result<std::string> point_reads(const Snapshot& snapshot, const Table<Counted>& counted,
                                const Counters& scanned) {
    std::map<std::uint64_t, std::int64_t> amounts;  // 0: no row, but for accounts
    for (std::uint64_t writer = 0; writer < scanned.counts.size(); ++writer) {
        amounts[writer] = static_cast<std::int64_t>(scanned.counts[writer]);
        amounts[kRelaxedIds + writer] = static_cast<std::int64_t>(scanned.relaxed[writer]);
    }
    for (std::uint32_t i = 0; i < kAccounts; ++i) amounts[kAccountIds + i] = scanned.accounts[i];
    std::vector<Key<Counted>> keys;
    for (const auto& [id, amount] : amounts) keys.push_back(counted.key(id));
    const auto together = counted.multi_get(snapshot, keys);
    if (!together.ok()) return together.failure();
    std::string wrong;
    auto of_many = together->begin();
    for (const auto& [id, amount] : amounts) {
        const auto alone = counted.get(snapshot, id);
        if (!alone.ok()) return alone.failure();
        const auto& many = *of_many++;
        const std::int64_t got = *alone ? (*alone)->amount : 0;
        const std::int64_t got_of_many = many ? many->amount : 0;
        if (got == amount && got_of_many == amount) continue;
        wrong += "counter " + std::to_string(id) + ": scan " + std::to_string(amount) + ", get " +
                 std::to_string(got) + ", multi_get " + std::to_string(got_of_many) + '\n';
    }
    return wrong;
}

Result<std::vector<std::uint64_t>> times_in(const Snapshot& snapshot, const Table<Aging>& aging) {
    std::vector<std::uint64_t> times;
    auto cursor = aging.scan(snapshot);
    while (cursor.next()) times.push_back(cursor.row().get<&Aging::time>());
    if (Status status = cursor.status(); !status.ok()) return status.failure();
    if (Status status = snapshot.status(); !status.ok()) return status.failure();
    return times;
}

}  // namespace

void KillAudit::run(std::uint32_t writers, bool complete) {
    while (models_.size() < writers) {
        models_.emplace_back(static_cast<std::uint32_t>(models_.size()));
        buried_.push_back(false);
    }
    const Promised promised(notes_, writers);
    // Readers go on reading the pool of a daemon that was killed until they notice, a little later;
    // asked for statistics, the store looks at once.
    need(store_.stats(soon()));
    const Seen seen = need(read_once(
        reader_, soon(), [&](const Snapshot& snapshot) { return look(snapshot, writers); }));
    promised.expect_in(seen.counters);
    note_seen(notes_, seen.counters);
    for (std::uint32_t writer = 0; writer < writers; ++writer) {
        const std::uint64_t count = seen.counters.counts[writer];
        EXPECT_LE(count, notes_.writers[writer].submitted) << "writer " << writer << ": twice";
        EXPECT_LE(seen.counters.relaxed[writer], notes_.writers[writer].relaxed) << writer;
        if (buried_[writer]) {
            EXPECT_EQ(count, models_[writer].count()) << writer << " is dead";
        }
    }
    compare(seen, complete);
    check_loaded();
    check_aging();
}

bool KillAudit::look_back(std::uint32_t writers, Deadline deadline) {
    const Promised promised(notes_, writers);
    const std::uint64_t kept = notes_.kept;
    if (!store_.stats(deadline).ok()) return false;  // as in run()
    std::string wrong;
    std::vector<std::uint64_t> times;
    const auto found =
        read_once(reader_, deadline, [&](const Snapshot& snapshot) -> Result<Counters> {
            auto counters = counters_in(snapshot, tables_.counted, writers);
            if (!counters.ok()) return counters;
            auto points = point_reads(snapshot, tables_.counted, *counters);
            if (!points.ok()) return points.failure();
            auto aging = times_in(snapshot, tables_.aging);
            if (!aging.ok()) return aging.failure();
            wrong = std::move(*points);
            times = std::move(*aging);
            return counters;
        });
    if (!found.ok()) return false;
    promised.expect_in(*found);
    EXPECT_EQ(wrong, "");
    expect_ages(times, kept);
    note_seen(notes_, *found);
    return true;
}

Result<KillAudit::Seen> KillAudit::look(const Snapshot& snapshot, std::uint32_t writers) const {
    auto counters = counters_in(snapshot, tables_.counted, writers);
    if (!counters.ok()) return counters.failure();
    Seen seen{std::move(*counters), {}};
    auto events = tables_.events.scan(snapshot);
    while (events.next()) {
        const auto row = events.copy();
        if (!row.ok()) return row.failure();
        EXPECT_EQ(row->source, 0u) << "a refused write was applied";
        const auto writer = static_cast<std::uint32_t>(row->time / kSlots);
        EXPECT_EQ(row->text, row_text(writer, row->kind)) << "writer " << writer;
        seen.rows[row->time] = row->kind;
    }
    if (Status status = events.status(); !status.ok()) return status.failure();
    return seen;
}

void KillAudit::compare(const Seen& seen, bool complete) {
    std::map<std::uint64_t, std::uint64_t> rows;
    std::array<std::int64_t, kAccounts> accounts{};
    for (std::uint32_t writer = 0; writer < models_.size(); ++writer) {
        WriterModel& model = models_[writer];
        model.advance_to(seen.counters.counts[writer]);
        for (const auto& [slot, number] : model.rows()) rows[place_of(writer, slot)] = number;
        for (std::uint32_t i = 0; i < kAccounts; ++i) accounts[i] += model.moved()[i];
        if (complete && !buried_[writer]) {
            EXPECT_EQ(seen.counters.counts[writer], notes_.writers[writer].acknowledged) << writer;
        }
    }
    EXPECT_EQ(seen.counters.accounts, accounts) << "a transaction is half there";
    EXPECT_EQ(seen.rows.size(), rows.size());
    EXPECT_TRUE(seen.rows == rows) << "a transaction is half there";
}

void KillAudit::bury(std::uint32_t writer) {
    const Table<Event>& events = tables_.events;
    Transaction erase;
    erase.erase_range(events, events.prefix(place_of(writer, 0)),
                      events.prefix(place_of(writer + 1, 0)));
    need(store_.commit(erase, soon()));
    models_[writer].forget_rows();
    buried_[writer] = true;
}

// All rows of one generation, or no table.
void KillAudit::check_loaded() {
    const std::uint64_t done = notes_.load_done;
    const std::uint64_t dropped = notes_.drop_done;
    std::optional<std::uint64_t> generation;
    const auto table = store_.open<Loaded>(soon());
    if (table.ok()) {
        const auto rows = read_once(reader_, soon(), [&](const Snapshot& snapshot) {
            return rows_between<Loaded>(snapshot, *table, {}, {});
        });
        if (!rows.ok()) {
            EXPECT_EQ(rows.error(), Error::kNoSuchTable) << rows.failure().what;
        } else {
            EXPECT_EQ(rows->size(), kLoadedRows) << "half of a load";
            if (!rows->empty()) generation = rows->front().generation;
            for (const Loaded& row : *rows) {
                EXPECT_EQ(row.generation, *generation);
                EXPECT_EQ(row.pad, loaded_pad(row.generation, row.id));
            }
        }
    } else {
        EXPECT_EQ(table.error(), Error::kNoSuchTable) << table.failure().what;
    }
    if (generation) {
        EXPECT_GT(*generation, dropped) << "it was dropped";
        EXPECT_LE(*generation, notes_.load_begun);
    } else {
        EXPECT_LE(done, notes_.drop_begun) << "a load that was done is lost";
    }
}

void KillAudit::expect_ages(const std::vector<std::uint64_t>& times, std::uint64_t kept) {
    const std::uint64_t from = notes_.kept_from;
    const auto first_kept = std::lower_bound(times.begin(), times.end(), from);
    // By one bound, that never falls, goes what is too old, and nothing else.
    std::vector<std::uint64_t> aging(times.begin(), first_kept);
    for (const std::uint64_t time : aging_) {
        if (!std::binary_search(aging.begin(), aging.end(), time)) {
            expired_ = std::max(expired_, time);
        }
    }
    EXPECT_LE(expired_ + kAgingRetainedUs, wall_us()) << "a row is lost before its time";
    if (!aging.empty()) {
        EXPECT_GT(aging.front(), expired_) << "it came back, or one after it is lost";
    }
    aging_ = std::move(aging);
    // Their numbers follow each other; the next one may be there without an answer.
    const auto found = static_cast<std::uint64_t>(times.end() - first_kept);
    EXPECT_GE(found, std::max(kept, kept_seen_)) << "a row that does not expire is lost";
    EXPECT_LE(found, notes_.kept + 1) << "twice";
    for (std::uint64_t number = 1; number <= found; ++number) {
        const std::uint64_t time = *(first_kept + static_cast<std::ptrdiff_t>(number) - 1);
        ASSERT_EQ(time, from + number) << "another row that does not expire is lost";
    }
    kept_seen_ = std::max(kept_seen_, found);
}

std::vector<Copy<Aging>> KillAudit::look_at_aging() {
    const std::uint64_t kept = notes_.kept;
    auto rows = need(read_once(reader_, soon(), [&](const Snapshot& snapshot) {
        return rows_between<Aging>(snapshot, tables_.aging, {}, {});
    }));
    std::vector<std::uint64_t> times;
    for (const auto& row : rows) times.push_back(row.time);
    expect_ages(times, kept);
    return rows;
}

void KillAudit::check_aging() {
    // Asked again, since the engine may stand still on a busy host.
    const std::uint64_t dead = wall_us() - kAgingRetainedUs - 2'000'000;
    std::vector<Copy<Aging>> rows;
    EXPECT_TRUE(eventually([&] {
        rows = look_at_aging();
        return rows.empty() || rows.front().time >= dead;
    })) << "rows do not expire";
    for (const auto& row : rows) {
        const bool dies = row.time < notes_.kept_from;
        EXPECT_EQ(row.text, dies ? aging_text(row.time) : kept_text(row.time - notes_.kept_from));
    }
}

void KillAudit::end_aging() {
    EXPECT_TRUE(eventually([&] {
        const auto rows = look_at_aging();
        return rows.empty() || rows.front().time >= notes_.kept_from;
    })) << "rows do not expire";
    need(store_.set_table("aging", {0, 0}, soon()));
}

}  // namespace bidstore
