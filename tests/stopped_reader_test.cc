// What a reader costs that stands still with a snapshot in hand, and what it gets when it goes on.
//
// Writers put rounds over each other, and each byte says of which row and round it is: a frame that
// was used again under a reader shows.

#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/real_store.h"
#include "tests/shared_memory.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

// What takes every frame of the pool.
struct Filler {
    std::uint64_t id = 0;
    std::string_view text;
};

}  // namespace

template <>
struct Describe<Filler> {
    static constexpr auto table = bidstore::table<Filler>("filler", keys(column<&Filler::id>("id")),
                                                          values(column<&Filler::text>("text")));
};

namespace {

constexpr std::uint64_t kPoolBytes = 16u << 20;
constexpr std::uint64_t kRows = 200;  // four to a leaf
constexpr std::uint64_t kLarge = 10;  // behind them, of three pages
constexpr std::uint64_t kAll = kRows + kLarge;

std::string text_of(std::uint64_t time, std::uint32_t round) {
    const std::string token = std::to_string(time) + "." + std::to_string(round) + "|";
    const std::size_t length = time < kRows ? 900 : 9'000;
    std::string text;
    text.reserve(length + token.size());
    while (text.size() < length) text += token;
    text.resize(length);
    return text;
}

Transaction round_of_all(const Table<Event>& events, std::uint32_t round) {
    Transaction write;
    for (std::uint64_t time = 0; time < kAll; ++time) {
        const std::string text = text_of(time, round);
        write.put(events, {.time = time, .source = 0, .kind = round, .text = text});
    }
    return write;
}

// ---- every kind of read -------------------------------------------------------------------------

// Reads under one snapshot. Each gives kOk, and then all that it read was the snapshot's; or the
// error that the reader was given.
class Looks {
  public:
    using Read = Error (Looks::*)();
    struct Kind {
        const char* name;
        Read read;
    };
    static const std::vector<Kind>& kinds();

    // The round is that of all rows under the snapshot.
    Looks(const Table<Event>& events, const Snapshot& snapshot, std::uint32_t round)
        : events_(events), snapshot_(snapshot), round_(round) {}
    bool wrong() const { return wrong_; }
    bool is_row(std::uint64_t time, std::uint32_t kind, std::string_view text) const {
        return time < kAll && kind == round_ && text == text_of(time, round_);
    }

  private:
    // Of what was copied and checked by the library.
    template <class Row>
    void check(const Row& row) {
        wrong_ = wrong_ || !is_row(row.time, row.kind, row.text);
    }
    // Of what was read in place: believed if the snapshot is valid after it.
    Error believe(bool right) {
        const Status status = snapshot_.status();
        if (!status.ok()) return status.error();
        wrong_ = wrong_ || !right;
        return Error::kOk;
    }
    bool is_right(const bidstore::Row<Event>& row) const {
        return is_row(row.get<&Event::time>(), row.get<&Event::kind>(), row.get<&Event::text>());
    }
    std::vector<Key<Event>> some_keys() const {
        std::vector<Key<Event>> keys;
        for (std::uint64_t time = 1; time < kAll; time += 10) keys.push_back(events_.key(time, 0u));
        keys.push_back(events_.key(kRows + 1, 0u));
        return keys;
    }
    Error get_at(std::uint64_t time) {
        const auto row = events_.get(snapshot_, time, 0u);
        if (!row.ok()) return row.error();
        if (*row) check(**row);
        wrong_ = wrong_ || !*row;
        return Error::kOk;
    }
    Error walk(Cursor<Event> cursor, std::uint64_t expected) {
        std::uint64_t rows = 0;
        bool right = true;
        for (; cursor.next(); ++rows) right = right && is_right(cursor.row());
        if (!cursor.status().ok()) return cursor.status().error();
        return believe(right && rows == expected);
    }
    Error copy_all(Cursor<Event> cursor) {
        while (cursor.next()) {
            const auto row = cursor.copy();
            if (!row.ok()) return row.error();
            check(*row);
        }
        return cursor.status().error();
    }

    Error get() { return get_at(37); }
    Error get_large() { return get_at(kRows + 3); }
    Error get_nothing() {
        const auto row = events_.get(snapshot_, kAll + 5, 0u);
        if (row.ok()) wrong_ = wrong_ || row->has_value();
        return row.error();
    }
    Error get_into() {
        Copy<Event> row;
        const auto found = events_.get_into(row, snapshot_, std::uint64_t{41}, 0u);
        if (!found.ok()) return found.error();
        check(row);
        return Error::kOk;
    }
    Error multi_get() {
        const auto keys = some_keys();
        const auto rows = events_.multi_get(snapshot_, keys);
        if (!rows.ok()) return rows.error();
        for (const auto& row : *rows) {
            if (row) check(*row);
            wrong_ = wrong_ || !row;
        }
        return Error::kOk;
    }
    Error peek() {
        const auto row = events_.peek(snapshot_, std::uint64_t{99}, 0u);
        if (!row.ok()) return row.error();
        return believe(*row && is_right(**row));
    }
    Error peek_many() {
        const auto keys = some_keys();
        std::vector<std::optional<bidstore::Row<Event>>> rows(keys.size());
        const Status status = events_.peek_many(snapshot_, keys, rows);
        if (!status.ok()) return status.error();
        bool right = true;
        for (const auto& row : rows) right = right && row && is_right(*row);
        return believe(right);
    }
    Error copy_of_peeked() {
        const auto row = events_.peek(snapshot_, kRows + 7, 0u);
        if (!row.ok()) return row.error();
        if (!*row) return believe(false);
        const auto copy = (**row).copy();
        return believe(is_row(copy.time, copy.kind, copy.text));
    }
    Error spans_of_large() {
        const auto row = events_.peek(snapshot_, kRows + 9, 0u);
        if (!row.ok()) return row.error();
        if (!*row) return believe(false);
        const auto value = (**row).large<&Event::text>();
        if (!value.ok()) return value.error();
        std::string text(value->size(), ' ');
        value->copy_to(std::as_writable_bytes(std::span(text)).data());
        return believe(is_row(kRows + 9, round_, text));
    }
    Error scan() { return walk(events_.scan(snapshot_), kAll); }
    Error scan_backwards() {
        return walk(events_.scan(snapshot_, {}, {}, {.reverse = true}), kAll);
    }
    Error scan_copies() { return copy_all(events_.scan(snapshot_, events_.prefix(kRows - 40))); }
    Error newest() { return walk(events_.newest(snapshot_, kLarge + 20), kLarge + 20); }
    Error count() {
        const auto rows = events_.count(snapshot_, events_.prefix(std::uint64_t{10}));
        if (!rows.ok()) return rows.error();
        wrong_ = wrong_ || *rows != kAll - 10;
        return Error::kOk;
    }
    Error prefetch() { return events_.prefetch(snapshot_, some_keys()).error(); }

    const Table<Event>& events_;
    const Snapshot& snapshot_;
    std::uint32_t round_;
    bool wrong_ = false;
};

const std::vector<Looks::Kind>& Looks::kinds() {
    static const std::vector<Kind> all = {
        {"get", &Looks::get},
        {"get of a large value", &Looks::get_large},
        {"get of no row", &Looks::get_nothing},
        {"get_into", &Looks::get_into},
        {"multi_get", &Looks::multi_get},
        {"peek", &Looks::peek},
        {"peek_many", &Looks::peek_many},
        {"copy of a peeked row", &Looks::copy_of_peeked},
        {"spans of a large value", &Looks::spans_of_large},
        {"scan", &Looks::scan},
        {"scan backwards", &Looks::scan_backwards},
        {"scan of copies", &Looks::scan_copies},
        {"newest", &Looks::newest},
        {"count", &Looks::count},
        {"prefetch", &Looks::prefetch},
    };
    return all;
}
constexpr std::size_t kKindsMax = 16;

// ---- processes ----------------------------------------------------------------------------------

struct Shared {
    std::atomic<bool> stop{false};
    std::atomic<std::uint32_t> reused{0};  // of what was in hand
    std::array<std::atomic<std::uint64_t>, kKindsMax> right{};
    std::array<std::atomic<std::uint64_t>, kKindsMax> expired{};
};

std::optional<std::uint32_t> round_under(const Table<Event>& events, const Snapshot& snapshot) {
    const auto row = events.get(snapshot, std::uint64_t{0}, 0u);
    if (!row.ok() || !*row) return std::nullopt;
    return (*row)->kind;
}

int complain(const char* what) {
    ::dprintf(2, "the reader: %s\n", what);
    return 1;
}

// Each kind of read, under snapshots of its own, until each was right once.
int read_everything(const Table<Event>& events, Reader& reader) {
    for (const Looks::Kind& kind : Looks::kinds()) {
        for (Error error = Error::kSnapshotExpired; error == Error::kSnapshotExpired;) {
            const Snapshot snapshot = need(reader.snapshot(soon()));
            const auto round = round_under(events, snapshot);
            if (!round) continue;
            Looks looks(events, snapshot, *round);
            error = (looks.*kind.read)();
            if (looks.wrong()) return complain(kind.name);
            if (error != Error::kOk && error != Error::kSnapshotExpired) return complain(kind.name);
        }
    }
    return 0;
}

// Views into the pool and what they showed.
struct InHand {
    std::vector<std::pair<std::string_view, std::string>> views;
    void take(std::string_view view) { views.emplace_back(view, view); }
    void take(const LargeValue& value) {
        for (const auto& span : value.spans()) {
            const void* at = span.data();
            take(std::string_view(static_cast<const char*>(at), span.size()));
        }
    }
};

// Stands still with rows, spans and cursors in hand, and says what it got afterwards.
int stop_with_all_in_hand(const AttachOptions& options, Shared& shared) {
    Store store = need(Store::attach(options, soon()));
    Reader reader = need(store.reader());
    const auto events = need(store.open<Event>(soon()));
    {
        const Snapshot snapshot = need(reader.snapshot(soon()));
        const auto round = round_under(events, snapshot);
        if (!round) return complain("there is no round");
        Looks looks(events, snapshot, *round);
        InHand hand;
        for (std::uint64_t time = 0; time < kAll; time += 7) {
            const auto row = need(events.peek(snapshot, time, 0u));
            if (time < kRows)
                hand.take(row->get<&Event::text>());
            else
                hand.take(need(row->large<&Event::text>()));
        }
        auto forwards = events.scan(snapshot);
        auto backwards = events.scan(snapshot, {}, {}, {.reverse = true});
        for (std::uint64_t i = 0; i < kRows / 2; ++i) {
            if (!forwards.next() || !backwards.next()) return complain("a scan ends early");
        }
        if (!snapshot.valid()) return complain("it expired too soon");
        ::raise(SIGSTOP);

        for (const auto& [view, before] : hand.views) shared.reused += view != before;
        if (snapshot.valid()) return complain("valid() after its end");
        if (snapshot.status().error() != Error::kSnapshotExpired) return complain("status()");
        for (auto* cursor : {&forwards, &backwards}) {
            if (cursor->copy().error() != Error::kSnapshotExpired) return complain("Cursor::copy");
            while (cursor->next()) {
            }
            if (cursor->status().error() != Error::kSnapshotExpired) return complain("a cursor");
        }
        for (const Looks::Kind& kind : Looks::kinds()) {
            const Error error = (looks.*kind.read)();
            if (error != Error::kSnapshotExpired) return complain(kind.name);
        }
    }
    return read_everything(events, reader);
}

// Reads in all ways, and may be stopped anywhere.
int read_on(const AttachOptions& options, Shared& shared) {
    Store store = need(Store::attach(options, soon()));
    Reader reader = need(store.reader());
    const auto events = need(store.open<Event>(soon()));
    std::mt19937_64 random(static_cast<std::uint64_t>(::getpid()));
    while (!shared.stop) {
        const Snapshot snapshot = need(reader.snapshot(soon()));
        const auto round = round_under(events, snapshot);
        if (!round) continue;
        Looks looks(events, snapshot, *round);
        for (Error error = Error::kOk; error == Error::kOk && !shared.stop;) {
            const std::size_t at = random() % Looks::kinds().size();
            error = (looks.*Looks::kinds()[at].read)();
            if (looks.wrong()) return complain(Looks::kinds()[at].name);
            if (error == Error::kOk)
                ++shared.right[at];
            else if (error == Error::kSnapshotExpired)
                ++shared.expired[at];
            else
                return complain(Looks::kinds()[at].name);
            if (random() % 4 == 0) break;  // a snapshot of its own for the next ones
        }
    }
    return 0;
}

class StoppedReader : public testing::Test {
  protected:
    void begin(const std::vector<std::string>& settings) {
        daemon_.set("pool_bytes=" + std::to_string(kPoolBytes) + "B");
        daemon_.set("log_segment_bytes=4MiB");
        for (const std::string& setting : settings) daemon_.set(setting);
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        events_.emplace(make_table<Event>(*store_));
        write_round();
    }
    void TearDown() override {
        if (HasFailure()) std::printf("the daemon says:\n%s\n", daemon_.log().c_str());
    }
    AttachOptions options() const { return {.socket = daemon_.socket()}; }

    void write_round() { need(store_->commit(round_of_all(*events_, ++round_), soon())); }
    // More than the pool holds.
    void take_every_frame() {
        const auto fillers = make_table<Filler>(*store_);
        const std::string text(60'000, '.');
        for (std::uint64_t id = 0; id < kPoolBytes / text.size() + 20;) {
            Transaction write;
            for (int i = 0; i < 5; ++i, ++id) write.put(fillers, {.id = id, .text = text});
            need(store_->commit(write, soon()));
        }
    }
    std::uint64_t count_of(Counter which) { return counter(*store_, which); }
    void expect_rest() {
        bidstore::expect_rest(*store_, daemon_);
        EXPECT_EQ(count_of(Counter::kCorruptPages), 0u);
    }

    SharedMemory<Shared> shared_;
    RealDaemon daemon_;
    std::optional<Store> store_;
    std::optional<Table<Event>> events_;
    std::uint32_t round_ = 0;
};

TEST_F(StoppedReader, GetsExpiredFromEveryKindOfReadAndNeverAWrongByte) {
    begin({"max_snapshot_age=1s"});
    Process reader = Process::fork([&] { return stop_with_all_in_hand(options(), *shared_); });
    ASSERT_TRUE(reader.wait_until_stopped());
    EXPECT_TRUE(eventually([&] {
        write_round();
        return count_of(Counter::kRevokedSnapshots) >= 1;
    }));
    for (int i = 0; i < 5; ++i) write_round();
    take_every_frame();
    EXPECT_TRUE(eventually([&] { return count_of(Counter::kHeldVersions) == 0; }))
        << "while it stands still";
    reader.signal(SIGCONT);
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_GT(shared_->reused, 10u) << "hardly anything that it had in hand was used again";
    expect_rest();
}

TEST_F(StoppedReader, SeesNoWrongByteWhereverItIsStopped) {
    begin({"max_snapshot_age=100ms"});
    std::vector<Process> readers;
    for (int i = 0; i < 2; ++i) {
        readers.push_back(Process::fork([&] { return read_on(options(), *shared_); }));
    }
    const auto all_kinds = [&](const auto& counts) {
        for (std::size_t i = 0; i < Looks::kinds().size(); ++i) {
            if (counts[i] == 0) return false;
        }
        return true;
    };
    const auto sum = [&](const auto& counts) {
        std::uint64_t all = 0;
        for (const auto& count : counts) all += count;
        return all;
    };
    ASSERT_TRUE(eventually([&] { return all_kinds(shared_->right); }));
    const std::uint64_t seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    for (int i = 0; i < 25; ++i) {
        Process& reader = readers[random() % readers.size()];
        reader.signal(SIGSTOP);
        const std::uint64_t revoked = count_of(Counter::kRevokedSnapshots);
        // It had a snapshot at that moment, or it had not.
        eventually(
            [&] {
                write_round();
                return count_of(Counter::kRevokedSnapshots) > revoked;
            },
            200ms);
        for (int more = 0; more < 3; ++more) write_round();
        reader.signal(SIGCONT);
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 10));
    }
    EXPECT_GT(sum(shared_->expired), 5u);
    const std::uint64_t right = sum(shared_->right);
    EXPECT_TRUE(eventually([&] { return sum(shared_->right) > right + 20; }));
    shared_->stop = true;
    for (Process& reader : readers) EXPECT_EQ(reader.wait(), 0);
    expect_rest();
}

// Long before its lease is over.
TEST_F(StoppedReader, CostsTheOthersNoMoreThanItsBudget) {
    constexpr std::uint64_t kBudgetPages = (1u << 20) / kPageBytes;
    constexpr std::uint64_t kMore = 2'000;  // rows on about 500 leaves, all of which it sees
    begin({"max_snapshot_age=1h", "max_held_bytes=1MiB", "checkpoint_interval=1h"});
    std::uint64_t most = 0;
    const auto overwrite = [&](std::uint32_t round, std::chrono::milliseconds pause) {
        for (std::uint64_t time = kAll; time < kAll + kMore; time += 20) {
            Transaction write;
            for (std::uint64_t t = time; t < time + 20; ++t) {
                const std::string text = text_of(t % kRows, round);
                write.put(*events_, {.time = t, .source = 0, .kind = round, .text = text});
            }
            need(store_->commit(write, soon()));
            std::this_thread::sleep_for(pause);
            most = std::max(most, count_of(Counter::kHeldVersions));
            EXPECT_TRUE(eventually([&] {
                return count_of(Counter::kHeldVersions) <= kBudgetPages;
            })) << "it is over its budget, and keeps its snapshot";
        }
    };
    overwrite(1, 0ms);
    EXPECT_TRUE(eventually([&] { return count_of(Counter::kHeldVersions) == 0; }));
    Process reader = Process::fork([&] {
        Store store = need(Store::attach(options(), soon()));
        Reader its = need(store.reader());
        const Snapshot snapshot = need(its.snapshot(soon()));
        ::raise(SIGSTOP);
        return snapshot.valid() ? 1 : 0;
    });
    ASSERT_TRUE(reader.wait_until_stopped());
    // The engine counts every hundredth of a second, and ends a snapshot some of these later. What
    // is written before the count shows comes on top: some transactions of six pages each.
    most = 0;
    overwrite(2, 12ms);
    EXPECT_GT(most, kBudgetPages / 2) << "it held nothing";
    EXPECT_LT(most, kBudgetPages + kBudgetPages / 4);
    EXPECT_EQ(count_of(Counter::kRevokedSnapshots), 1u);
    reader.signal(SIGCONT);
    EXPECT_EQ(reader.wait(), 0);
    expect_rest();
}

}  // namespace
}  // namespace bidstore
