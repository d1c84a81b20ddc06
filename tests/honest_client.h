// What a client that means no harm does beside those that do (tests/hostile_client.h), and the
// store that they share.
//
// Who: one thread, of the test or of a process that it forked.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/hostile_client.h"
#include "tests/real_store.h"

namespace bidstore {

// What the hostile ones may write.
struct Prey {
    std::uint64_t id = 0;
    std::int64_t n = 0;
    std::string_view t;
};

template <>
struct Describe<Prey> {
    static constexpr auto table =
        bidstore::table<Prey>("prey", keys(column<&Prey::id>("id")),
                              values(column<&Prey::n>("n"), column<&Prey::t>("t")));
};

inline constexpr std::uint64_t kFillers = 12'000;  // more of them than the pool has room for
inline constexpr std::uint64_t kRowsOfOne = 64;    // of the counted table, to each honest client
inline constexpr auto kSilenceMax = kPatience;     // of an honest client, on however busy a machine

inline std::string filler_text(std::uint64_t number) {
    return std::string(600 + number % 200, static_cast<char>('a' + number % 26));
}

inline constexpr const char* kSettingsForHarm[] = {
    "pool_bytes=8MiB", "max_clients=12", "handshake_timeout=300ms", "socket_mode=\"0666\""};

// Whom to harm, but for an honest client's session. Rows that nobody changes are in the store then.
inline HostileTarget make_store_for_harm(const RealDaemon& daemon, Store& store) {
    const auto events = make_table<Event>(store);
    const auto counted = make_table<Counted>(store);
    const auto prey = make_table<Prey>(store);
    for (std::uint64_t number = 0; number < kFillers;) {
        Transaction fill;
        std::vector<std::string> texts;
        for (int i = 0; i < 40; ++i) texts.push_back(filler_text(number + texts.size()));
        for (const std::string& text : texts) {
            fill.put(events, {.time = number++, .source = 0, .kind = 0, .text = text});
        }
        need(store.commit(fill, soon()));
    }
    HostileTarget target;
    target.socket = daemon.socket();
    target.own = prey.raw().id();
    target.spared = {events.raw().id().value, counted.raw().id().value};
    target.other_user = ::geteuid() == 0;
    return target;
}

// What an honest client has come to, where its test sees it.
struct Progress {
    void round(std::chrono::nanoseconds took) {
        const auto ns = static_cast<std::uint64_t>(took.count());
        longest_ns = std::max(longest_ns.load(), ns);
        ++rounds;
    }
    std::atomic<std::uint64_t> rounds{0};
    std::atomic<std::uint64_t> longest_ns{0};  // of a round, since somebody set it to 0
};

// Moves amounts between rows of its own, so that their sum stays 0 in every snapshot, remembers
// what it was answered, and reads it back; and reads rows that nobody changes.
class HonestClient {
  public:
    HonestClient(const RealDaemon& daemon, std::uint64_t number, std::uint64_t seed,
                 Progress& progress)
        : store_(attach(daemon, Rights::kWriter)),
          reader_(need(store_.reader())),
          counted_(need(store_.open<Counted>(soon()))),
          events_(need(store_.open<Event>(soon()))),
          first_(number * kRowsOfOne),
          random_(seed),
          progress_(progress) {}

    // Until told to stop. What was wrong; empty when nothing was.
    std::string run(const std::atomic<bool>& stop) {
        while (!stop && wrong_.empty()) {
            const auto began = std::chrono::steady_clock::now();
            write();
            if (wrong_.empty()) read_own();
            if (wrong_.empty()) read_all();
            progress_.round(std::chrono::steady_clock::now() - began);
        }
        if (store_.reconnects() != 0) wrong_ += "; it lost its connection";
        return wrong_;
    }
    std::array<std::uint8_t, 16> session() const { return store_.session_id(); }

  private:
    template <class Result>
    bool holds(const Result& result, const char* what) {
        if (!result.ok()) wrong_ = std::string(what) + ": " + result.failure().what;
        return result.ok();
    }
    void expect(bool right, const std::string& what) {
        if (!right) wrong_ = what;
    }
    std::uint64_t any_row() { return first_ + random_() % kRowsOfOne; }

    void write() {
        const std::uint64_t from = any_row();
        const std::uint64_t to = any_row();
        const auto amount = static_cast<std::int64_t>(random_() % 1000);
        Transaction move;
        move.add<&Counted::amount>(counted_, counted_.key(from), -amount, {.create = true});
        move.add<&Counted::amount>(counted_, counted_.key(to), amount, {.create = true});
        if (!holds(store_.commit(move, in(kSilenceMax)), "write")) return;
        amounts_[from] -= amount;
        amounts_[to] += amount;
    }
    void read_own() {
        const std::uint64_t id = any_row();
        const auto row = counted_.get(reader_, in(kSilenceMax), id);
        if (!holds(row, "read")) return;
        const std::int64_t amount = *row ? (*row)->amount : 0;
        const auto known = amounts_.find(id);
        expect(amount == (known == amounts_.end() ? 0 : known->second),
               "a row of its own is not what it wrote last");
        const std::uint64_t number = random_() % kFillers;
        const auto filler = events_.get(reader_, in(kSilenceMax), number, 0u);
        if (!holds(filler, "read of a row that nobody changes")) return;
        expect(filler->has_value(), "a row that nobody changes is gone");
        if (*filler) expect((*filler)->text == filler_text(number), "nobody changes that row");
    }
    void read_all() {
        const auto rows = read_once(reader_, in(kSilenceMax), [&](const Snapshot& snapshot) {
            return rows_between<Counted>(snapshot, counted_, {}, {});
        });
        if (!holds(rows, "scan")) return;
        std::int64_t sum = 0;
        for (const auto& row : *rows) sum += row.amount;
        expect(sum == 0, "a snapshot with a part of a transaction");
    }

    Store store_;
    Reader reader_;
    Table<Counted> counted_;
    Table<Event> events_;
    std::uint64_t first_;
    std::mt19937_64 random_;
    std::map<std::uint64_t, std::int64_t> amounts_;
    std::string wrong_;
    Progress& progress_;
};

}  // namespace bidstore
