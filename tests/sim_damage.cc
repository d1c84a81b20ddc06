#include "tests/sim_damage.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "tests/sim_readers.h"

namespace bidstore {
namespace {

constexpr int kLeasesPerTable = 40;  // a slow disk may outlast some

// Of a log of which bits rot: the last two may be taken for a torn end (engine/FORMAT.md).
constexpr std::uint32_t kBatchesRotten = 2;

// Of one of which a write is missing, or others are written over by it, too. A batch that is there
// and was written when that one was called durable tells of it: so what is taken for a torn end is
// the lost one, those written over, and one between.
constexpr std::uint32_t batches_lost_with(std::uint32_t blocks) { return 2 + std::max(blocks, 1u); }

// The guests that a catalog has are these, apart from their rows.
bool same_tables(const std::vector<TableEntry*>& found, const SimKeeper::Guests& guests) {
    return found.size() == guests.size() &&
           std::ranges::all_of(found, [&](const TableEntry* table) {
               const auto guest = guests.find(table->schema.name());
               return guest != guests.end() && guest->second.retain_us == table->retain_us &&
                      guest->second.schema.encode() == table->schema.encode();
           });
}

std::int64_t witness_in(const TableRows& rows) {
    std::int64_t witness = 0;
    const auto row = rows.find(key_of(kOrder, 0));
    if (row != rows.end()) std::memcpy(&witness, row->second.data(), sizeof witness);
    return witness;
}

}  // namespace

std::unique_ptr<SimLife> SimDamage::open(std::unique_ptr<SimDisk> disk,
                                         const SimStoreOptions& options, const SimClock& clock) {
    return std::make_unique<SimLife>(options, std::move(disk), random_(), clock);
}

// Refused with a reason, or opened.
void SimDamage::look_at(Files files, std::uint64_t recovered_csn, const SimStoreOptions& options,
                        const SimClock& clock) {
    const SimRot rot(*files.damaged, *files.sound);
    const std::unique_ptr<SimLife> life = open(std::move(files.damaged), options, clock);
    const bool refused = !life->status().ok();
    std::unique_ptr<SimLife> sound;
    if (refused ||
        (rot.log_blocks() > 0 && life->store.engine->recovery().recovered_csn < recovered_csn)) {
        sound = open(std::move(files.sound), options, clock);
        if (!sound->status().ok()) {
            return findings_.report("sound files are refused: " + sound->status().failure().what);
        }
    }
    if (refused) {
        ++counts_[SimCount::kRefusedStarts];
        const std::string fault = rot.fault_of_refusal(*life, *sound);
        if (!fault.empty()) findings_.report(fault);
        return;
    }
    if (const std::uint32_t page = rot.page_in_use(*life); page != 0) {
        ++counts_[SimCount::kRotInUse];
        if (life->store.verify().empty()) {
            findings_.report("page " + std::to_string(page) +
                             " is in use and damaged, and the verifier finds nothing");
        }
    }
    const std::uint32_t lost = sound ? batches_lost(rot, files.stray, *life, *sound) : 0;
    Guests guests = keeper_.former(lost);
    guests.push_back(keeper_.recovered_guests());
    look_at_rows(*life, oracle_.place_before_batches(lost), std::move(guests));
}

// Of the newest ones. A stray write may have covered as many as it has blocks, beside its own.
std::uint32_t SimDamage::batches_lost(const SimRot& rot, bool stray, SimLife& life,
                                      SimLife& sound) {
    const std::uint32_t blocks = rot.log_blocks();
    const std::uint64_t found = life.store.engine->recovery().batches;
    const std::uint64_t batches = sound.store.engine->recovery().batches;
    if (found >= batches) return 0;
    const std::uint64_t most = stray ? batches_lost_with(blocks) : kBatchesRotten;
    if (batches - found > most) {
        findings_.report("damage to the log took " + std::to_string(batches - found) +
                         " batches without a word");
    }
    return static_cast<std::uint32_t>(batches - found);
}

void SimDamage::look_at_lies(std::unique_ptr<SimDisk> disk, std::uint32_t log_blocks,
                             const SimStoreOptions& options, const SimClock& clock) {
    const std::unique_ptr<SimLife> life = open(std::move(disk), options, clock);
    if (!life->status().ok()) {
        ++counts_[SimCount::kRefusedStarts];
        const std::string fault = SimRot::fault_of_error(*life);
        if (!fault.empty()) findings_.report(fault);
        return;
    }
    Guests guests = keeper_.guests();
    const std::uint32_t lost = batches_lost_with(log_blocks);
    for (SimKeeper::GuestsPtr& former : keeper_.former(lost)) guests.push_back(std::move(former));
    look_at_rows(*life, oracle_.place_before_batches(lost), std::move(guests));
}

void SimDamage::look_at_rows(SimLife& life, std::int64_t earliest, Guests guests) {
    SimClient* client = life.store.attach(Rights::kReader, SessionId{});
    if (client == nullptr) return;
    client->welcomed(0);
    look_at_shared(life, *client, earliest);
    if (!findings_.any()) look_at_guests(life, *client, std::move(guests));
}

// They are as they were at one place of the serial order, not before the earliest: the one that the
// witness tells, where it can be read.
void SimDamage::look_at_shared(SimLife& life, SimClient& client, std::int64_t earliest) {
    std::vector<std::int64_t> places;
    for (std::int64_t place = oracle_.newest(); place >= earliest; --place) {
        places.push_back(place);
    }
    bool certain = std::ranges::all_of(places, [&](auto each) { return oracle_.certain(each); });
    for (std::uint32_t i = 0; i < kTables && !findings_.any(); ++i) {
        const std::uint32_t table = (kOrder + i) % kTables;
        const TableEntry* entry =
            life.store.engine->core().storage().catalog->find(writers_.tables()[table]);
        if (entry == nullptr) return findings_.report("damage took a table away, without a word");
        const auto found = read(life, client, *entry);
        if (!found) continue;  // an error: that is an answer
        if (table == kOrder) {
            const std::int64_t witness = witness_in(found->rows);
            if (witness < earliest || witness > oracle_.newest()) {
                return findings_.report("damaged files are at place " + std::to_string(witness) +
                                        ", not " + std::to_string(earliest) + " to " +
                                        std::to_string(oracle_.newest()));
            }
            places = {witness};
            certain = oracle_.certain(witness);
        }
        std::string wrong;
        std::erase_if(places, [&](std::int64_t place) {
            const std::string unlike = difference(found->rows, oracle_.rows(table, place));
            if (!unlike.empty() && wrong.empty()) wrong = unlike;
            return !unlike.empty();
        });
        if (!places.empty()) continue;
        if (!certain) return;
        findings_.report("in damaged files, table " + std::to_string(table) + ": " + wrong);
    }
}

// All of them are what they were at once.
void SimDamage::look_at_guests(SimLife& life, SimClient& client, Guests guests) {
    std::vector<TableEntry*> tables = life.store.engine->core().storage().catalog->all();
    std::erase_if(tables, [](const TableEntry* table) {
        return table->hidden() || !table->schema.name().starts_with("guest");
    });
    std::erase_if(guests, [&](const auto& state) { return !same_tables(tables, *state); });
    if (guests.empty()) {
        return findings_.report("damaged files have other tables than there were");
    }
    for (const TableEntry* table : tables) {
        const auto found = read(life, client, *table);
        if (findings_.any()) return;
        if (!found) continue;
        ++counts_[SimCount::kDamagedGuests];
        std::string wrong;
        std::map<const SimKeeper::Rows*, std::string> judged;  // many states have the same
        std::erase_if(guests, [&](const auto& state) {
            const Guest& guest = state->at(table->schema.name());
            const auto [unlike, fresh] = judged.try_emplace(guest.rows.get());
            if (fresh && guest.schema.time_column() == kNoTimeColumn) {
                unlike->second = difference(found->rows, *guest.rows);
            } else if (fresh) {
                unlike->second =
                    difference(found->rows, SimKeeper::alive(guest, *guest.rows, found->floor));
            }
            if (wrong.empty()) wrong = unlike->second;
            return !unlike->second.empty();
        });
        if (!guests.empty()) continue;
        return findings_.report("in damaged files, " + table->schema.name() + ": " + wrong);
    }
}

// Nothing: there was an error.
std::optional<SimDamage::Read> SimDamage::read(SimLife& life, SimClient& client,
                                               const TableEntry& table) {
    const TreeShape shape(table.schema, table.id);
    const Bytes first(table.schema.key_bytes());
    for (int leases = 0; leases < kLeasesPerTable; ++leases) {
        SimSnapshot snapshot(life.store, *life.view, client, 0);
        snapshot.read_modestly(true);  // a table may be larger than the pool
        auto rows = snapshot.range(shape, table.tree.root(), first, {}, [] { return true; });
        const std::byte* root = rows ? snapshot.page(table.tree.root()) : nullptr;
        const std::uint64_t floor = root != nullptr ? floor_of(root) : 0;
        if (root != nullptr) {
            keep_alive(table.schema, floor, *rows);
            if (table.schema.has_variable()) rows = snapshot.whole(table.schema, std::move(*rows));
        }
        if (rows && root != nullptr && snapshot.valid()) return Read{std::move(*rows), floor};
        if (snapshot.trouble().empty()) continue;
        ++counts_[SimCount::kDamagedErrors];
        judge_error(life, table, snapshot.trouble());
        return std::nullopt;
    }
    findings_.report("nobody writes, and no lease lasts long enough to read " +
                     table.schema.name() + " of damaged files");
    return std::nullopt;
}

// What a reader finds wrong with a page, the daemon has to have found before it.
void SimDamage::judge_error(const SimLife& life, const TableEntry& table,
                            const std::string& trouble) {
    const std::size_t colon = trouble.find(": ");
    const std::string page = trouble.substr(0, colon);
    const bool refused = trouble == page + ": " + std::string(error_name(Error::kCorruption)) ||
                         trouble == page + ": " + std::string(error_name(Error::kIoError));
    const bool named = std::ranges::any_of(life.store.log_lines, [&](const std::string& line) {
        return line.find("sim:/data " + page + " at offset ") != std::string::npos;
    });
    if (refused && named) return;
    findings_.report("in damaged files, " + table.schema.name() + ": " + trouble +
                     (refused ? ", and the log does not name it" : ""));
}

}  // namespace bidstore
