// What the store must hold, kept outside of it: in memory that the test shares with the processes
// that write.
//
// Every write of a writer has a number and follows from both alone, and a writer's writes are
// applied in the order of their numbers. So what a store holds follows from how many writes of each
// writer are in it, which a counter of that writer says; all else has to fit.
//
// Who:    writers note what they do in KillNotes, and whoever reads, what he saw; the test alone
//         compares the two, but for a reader, which compares its looks with each other.
// Bounds: a writer has kSlots rows, whatever it has written.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/real_store.h"

namespace bidstore {

// Rows that a load brings, all of one generation.
struct Loaded {
    std::uint64_t id = 0;
    std::uint64_t generation = 0;
    Bytes<100> pad{};
};

// Rows that die of age soon, and some with a time far ahead, that must not.
struct Aging {
    std::uint64_t time = 0;
    std::string_view text;
};

template <>
struct Describe<Loaded> {
    static constexpr auto table = bidstore::table<Loaded>(
        "loaded", keys(column<&Loaded::id>("id")),
        values(column<&Loaded::generation>("generation"), column<&Loaded::pad>("pad")));
};

template <>
struct Describe<Aging> {
    static constexpr auto table =
        bidstore::table<Aging>("aging", keys(column<&Aging::time>("time", timestamp)),
                               values(column<&Aging::text>("text")), time_column("time"));
};

inline constexpr std::uint32_t kSlots = 64;
inline constexpr std::uint32_t kAccounts = 16;
inline constexpr std::uint32_t kWritersMax = 4096;
inline constexpr std::uint64_t kLoadedRows = 3000;
inline constexpr std::uint64_t kKeptRowsMost = 4000;  // with their large values a fifth of the pool
inline constexpr std::uint64_t kAgingRetainedUs = 500'000;
// From now: rows that do not die share chunks of the file with those that do, whose pages go
// without being read as long as all rows of a chunk are of the same 194 days.
inline constexpr std::uint64_t kKeptAheadUs = 100ull * 24 * 3600 * 1'000'000;
// Ids in "counted": a writer's own counter has the writer's number.
inline constexpr std::uint64_t kRelaxedIds = 1'000'000;  // a writer's row of relaxed writes
inline constexpr std::uint64_t kAccountIds = 2'000'000;

// What the client that loads and drops is about.
enum class KeeperPhase : std::uint8_t { kLoad, kAge, kDrop, kCompact, kAttach };
inline constexpr std::size_t kKeeperPhases = 4;  // again and again, behind the attach

// Each note of a beginning is made before, each of an end after.
struct KillNotes {
    struct Writer {
        std::atomic<std::uint64_t> submitted{0};     // numbers below it were, perhaps
        std::atomic<std::uint64_t> acknowledged{0};  // numbers below it were
        std::atomic<std::uint64_t> relaxed{0};       // numbers up to it were submitted, perhaps
        std::atomic<std::uint64_t> seen{0};          // numbers below it were, in a valid snapshot
        std::atomic<std::uint64_t> relaxed_seen{0};  // numbers up to it were
    };
    std::array<Writer, kWritersMax> writers;
    std::atomic<std::uint64_t> load_begun{0};  // generations
    std::atomic<std::uint64_t> load_done{0};
    std::atomic<std::uint64_t> drop_begun{0};
    std::atomic<std::uint64_t> drop_done{0};
    // Of the rows that do not die: the time of number 0, which is not there; and numbers up to it
    // were acknowledged.
    std::atomic<std::uint64_t> kept_from{0};
    std::atomic<std::uint64_t> kept{0};
    std::atomic<KeeperPhase> keeper{KeeperPhase::kLoad};
    std::atomic<std::uint64_t> refused{0};
    std::atomic<std::uint64_t> compactions{0};
    std::atomic<std::uint64_t> lives{0};  // that began to serve
    std::atomic<std::uint64_t> looks{0};
    std::atomic<bool> stops_in_look{false};  // the reader, by itself
    std::atomic<bool> stop{false};
};

struct KillTables {
    explicit KillTables(Store& store)
        : counted(need(store.open<Counted>(soon()))),
          events(need(store.open<Event>(soon()))),
          aging(need(store.open<Aging>(soon()))) {}
    Table<Counted> counted;
    Table<Event> events;
    Table<Aging> aging;
};

// What "counted" holds in one snapshot: how far each writer has come, and what lies on the
// accounts.
struct Counters {
    std::vector<std::uint64_t> counts;   // by writer
    std::vector<std::uint64_t> relaxed;  // by writer
    std::array<std::int64_t, kAccounts> accounts{};
};
// Of so many writers; kCorruption when there is a row of none of them.
Result<Counters> counters_in(const Snapshot& snapshot, const Table<Counted>& counted,
                             std::uint32_t writers);
// Of a snapshot that was valid.
void note_seen(KillNotes& notes, const Counters& counters);
// What of the one look is missing in the later one, or an empty string.
std::string lost_between(const Counters& before, const Counters& after);

// What a snapshot that is taken from now on has to hold: what was acknowledged, and what anybody
// saw, in this life or in an earlier one, since nothing is visible before it is durable. The latter
// goes for relaxed writes as well, which become both with their batch.
class Promised {
  public:
    Promised(const KillNotes& notes, std::uint32_t writers);
    void expect_in(const Counters& found) const;

  private:
    std::vector<std::uint64_t> acknowledged_;
    Counters seen_;
};

// The write with that number.
Transaction numbered_write(const KillTables& tables, std::uint32_t writer, std::uint64_t number);
// One that has to be refused, as long as the writer's first write is in; it would leave a row that
// is nobody's.
Transaction refused_write(const KillTables& tables, std::uint32_t writer);
// The text of a row, from a few bytes to some pages.
std::string row_text(std::uint32_t writer, std::uint64_t number);
Bytes<100> loaded_pad(std::uint64_t generation, std::uint64_t id);
std::string aging_text(std::uint64_t time);
// Of the row that does not die.
std::string kept_text(std::uint64_t number);
std::uint64_t wall_us();

// What the writes 0 to count of one writer leave.
class WriterModel {
  public:
    explicit WriterModel(std::uint32_t writer) : writer_(writer) {}
    void advance_to(std::uint64_t count);
    void forget_rows() { rows_.clear(); }

    std::uint64_t count() const { return count_; }
    const std::map<std::uint32_t, std::uint64_t>& rows() const { return rows_; }  // number by slot
    const std::array<std::int64_t, kAccounts>& moved() const { return moved_; }

  private:
    std::uint32_t writer_;
    std::uint64_t count_ = 0;
    std::map<std::uint32_t, std::uint64_t> rows_;
    std::array<std::int64_t, kAccounts> moved_{};
};

// Compares a store with the notes; what does not fit is a failure of the test.
class KillAudit {
  public:
    KillAudit(Store& store, KillNotes& notes)
        : store_(store), notes_(notes), reader_(need(store.reader())), tables_(store) {}

    // complete: nobody writes, and everything submitted was acknowledged.
    void run(std::uint32_t writers, bool complete);
    // Nothing of what was promised is missing. To be asked before the writers go on: they send
    // again what they have no answer to, and what was seen and lost would be back. False: the store
    // could not be read until the deadline, as it went away.
    bool look_back(std::uint32_t writers, Deadline deadline);
    // The writer is dead, and was audited since: its rows go, and nothing else of it changes.
    void bury(std::uint32_t writer);
    // Nobody writes any more: the rows that die are awaited, and the others stay without a
    // retention. With one a store has no rest: the bound moves on, a page each time.
    void end_aging();

  private:
    struct Seen {
        Counters counters;
        std::map<std::uint64_t, std::uint64_t> rows;  // number by place
    };
    Result<Seen> look(const Snapshot& snapshot, std::uint32_t writers) const;
    void compare(const Seen& seen, bool complete);
    void check_loaded();
    void check_aging();
    std::vector<Copy<Aging>> look_at_aging();
    // At once, of the times of all rows that a snapshot has, which was taken after `kept` was read.
    void expect_ages(const std::vector<std::uint64_t>& times, std::uint64_t kept);

    Store& store_;
    KillNotes& notes_;
    Reader reader_;
    KillTables tables_;
    std::vector<WriterModel> models_;
    std::vector<bool> buried_;
    std::vector<std::uint64_t> aging_;  // times of the rows that die, as they were seen last
    std::uint64_t expired_ = 0;         // a time: rows up to it had gone
    std::uint64_t kept_seen_ = 0;
};

}  // namespace bidstore
