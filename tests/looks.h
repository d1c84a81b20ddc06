// Every kind of read of a table whose writers put rounds over each other, and whether it gave what
// its snapshot had: each byte says of which row and round it is, so a frame that was used again
// under a reader shows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/real_store.h"

namespace bidstore {

struct Filler {
    std::uint64_t id = 0;
    std::string_view text;
};
template <>
struct Describe<Filler> {
    static constexpr auto table = bidstore::table<Filler>("filler", keys(column<&Filler::id>("id")),
                                                          values(column<&Filler::text>("text")));
};

// More than the pool holds: it takes every frame.
inline void write_fillers(Store& store, const Table<Filler>& fillers, std::uint64_t pool_bytes) {
    const std::string text(60'000, '.');
    for (std::uint64_t id = 0; id < pool_bytes / text.size() + 20;) {
        Transaction write;
        for (int i = 0; i < 5; ++i, ++id) write.put(fillers, {.id = id, .text = text});
        need(store.commit(write, soon()));
    }
}

// Rows that one Looks reads: from any row of the table on. Of each 21 one is large, of three pages,
// and four of the others fit a leaf.
constexpr std::uint64_t kWindow = 210;
constexpr std::uint64_t kLargeInWindow = 10;
constexpr bool is_large(std::uint64_t time) { return time % 21 == 20; }

inline std::string text_of(std::uint64_t time, std::uint32_t round) {
    const std::string token = std::to_string(time) + "." + std::to_string(round) + "|";
    const std::size_t length = is_large(time) ? 9'000 : 900;
    std::string text;
    text.reserve(length + token.size());
    while (text.size() < length) text += token;
    text.resize(length);
    return text;
}

// Every `step`th row is of the newest round, in one transaction, and all others are of the first.
struct Rounds {
    static constexpr std::uint64_t kRowsTogether = kWindow / 2;  // at first: pools may be small
    std::uint64_t rows = kWindow;
    std::uint64_t step = 1;

    std::uint32_t round_of(std::uint64_t time, std::uint32_t newest) const {
        return time % step == 0 ? newest : 1;
    }
    void write(Store& store, const Table<Event>& events, std::uint32_t round) const {
        const std::uint64_t stride = round == 1 ? 1 : step;
        Transaction write;
        for (std::uint64_t time = 0; time < rows; time += stride) {
            const std::string text = text_of(time, round);
            write.put(events, {.time = time, .source = 0, .kind = round, .text = text});
            if (round == 1 && time % kRowsTogether == kRowsTogether - 1) {
                need(store.commit(std::exchange(write, {}), soon()));
            }
        }
        if (round > 1) need(store.commit(write, soon()));
    }
    // That of the snapshot, if it is valid.
    static std::optional<std::uint32_t> under(const Table<Event>& events,
                                              const Snapshot& snapshot) {
        const auto row = events.get(snapshot, std::uint64_t{0}, 0u);
        if (!row.ok() || !*row) return std::nullopt;
        return (*row)->kind;
    }
};

// Reads under one snapshot. Each gives kOk, and then all that it read was the snapshot's; or the
// error that the reader was given.
class Looks {
  public:
    using Read = Error (Looks::*)();
    struct Kind {
        const char* name;
        Read read;
    };
    static const std::vector<Kind>& kinds() {
        static const std::vector<Kind> all = {
            {"get", &Looks::get},
            {"get of encoded bytes", &Looks::get_encoded},
            {"get of a large value", &Looks::get_large},
            {"get of no row", &Looks::get_nothing},
            {"get_into", &Looks::get_into},
            {"multi_get", &Looks::multi_get},
            {"multi_get with few pages under way", &Looks::multi_get_by_few},
            {"multi_get of large values", &Looks::multi_get_large},
            {"peek", &Looks::peek},
            {"peek_many", &Looks::peek_many},
            {"copy of a peeked row", &Looks::copy_of_peeked},
            {"spans of a large value", &Looks::spans_of_large},
            {"scan", &Looks::scan},
            {"scan backwards", &Looks::scan_backwards},
            {"scan of copies", &Looks::scan_copies},
            {"streaming scan", &Looks::scan_streaming},
            {"streaming scan backwards", &Looks::scan_streaming_backwards},
            {"streaming scan of copies", &Looks::scan_streaming_copies},
            {"streaming scan of copies backwards", &Looks::scan_streaming_copies_backwards},
            {"newest", &Looks::newest},
            {"count", &Looks::count},
            {"prefetch", &Looks::prefetch},
        };
        return all;
    }

    // The round is the newest under the snapshot. `from`: the window's first row.
    Looks(const Table<Event>& events, const Snapshot& snapshot, std::uint32_t round,
          Rounds rounds = {}, std::uint64_t from = 0)
        : events_(events), snapshot_(snapshot), round_(round), rounds_(rounds), from_(from) {}
    bool wrong() const { return wrong_; }

  private:
    static constexpr bool kWithLarge = true;

    std::uint64_t small(std::uint64_t number) const {
        return from_ + number + (is_large(from_ + number) ? 1 : 0);
    }
    std::uint64_t large(std::uint64_t number) const {
        const std::uint64_t time = from_ + number;
        return time + 20 - time % 21;
    }
    bool is_row(std::uint64_t time, std::uint32_t kind, std::string_view text) const {
        const std::uint32_t round = rounds_.round_of(time, round_);
        return kind == round && text == text_of(time, round);
    }
    // Of what was copied and checked by the library.
    template <class Row>
    void check(std::uint64_t time, const Row& row) {
        wrong_ = wrong_ || row.time != time || !is_row(time, row.kind, row.text);
    }
    // Of what was read in place: believed if the snapshot is valid after it.
    Error believe(bool right) {
        const Status status = snapshot_.status();
        if (!status.ok()) return status.error();
        wrong_ = wrong_ || !right;
        return Error::kOk;
    }
    bool is_right(std::uint64_t time, const Row<Event>& row, bool with_large = kWithLarge) const {
        if (row.get<&Event::time>() != time) return false;
        const std::uint32_t kind = row.get<&Event::kind>();
        if (is_large(time) && !with_large) return kind == rounds_.round_of(time, round_);
        return is_row(time, kind, row.get<&Event::text>());
    }
    std::vector<std::uint64_t> some_times() const {
        std::vector<std::uint64_t> times;
        for (std::uint64_t i = 1; i < kWindow; i += 10) times.push_back(from_ + i);
        times.push_back(large(0));
        return times;
    }
    std::vector<std::uint64_t> large_times() const {
        std::vector<std::uint64_t> times;
        for (std::uint64_t i = 0; i < kLargeInWindow; ++i) times.push_back(large(i * 21));
        return times;
    }
    std::vector<Key<Event>> keys_of(const std::vector<std::uint64_t>& times) const {
        std::vector<Key<Event>> keys;
        keys.reserve(times.size());
        for (const std::uint64_t time : times) keys.push_back(events_.key(time, 0u));
        return keys;
    }
    Error get_at(std::uint64_t time) {
        const auto row = events_.get(snapshot_, time, 0u);
        if (!row.ok()) return row.error();
        if (*row) check(time, **row);
        wrong_ = wrong_ || !*row;
        return Error::kOk;
    }
    Error multi_get_of(const std::vector<std::uint64_t>& times, std::size_t pages_under_way) {
        const auto rows = events_.multi_get(snapshot_, keys_of(times), pages_under_way);
        if (!rows.ok()) return rows.error();
        for (std::size_t i = 0; i < times.size(); ++i) {
            if ((*rows)[i]) check(times[i], *(*rows)[i]);
            wrong_ = wrong_ || !(*rows)[i];
        }
        return Error::kOk;
    }
    Cursor<Event> scan_from(std::uint64_t number, const ScanOptions& options) const {
        return events_.scan(snapshot_, events_.prefix(from_ + number),
                            events_.prefix(from_ + kWindow), options);
    }
    // Rows from the first to the last, or from the last to the first.
    Error walk(Cursor<Event> cursor, std::uint64_t first, std::uint64_t last,
               bool with_large = kWithLarge) {
        std::uint64_t time = first;
        bool right = true;
        bool ended = false;
        while (cursor.next()) {
            right = right && !ended && is_right(time, cursor.row(), with_large);
            ended = time == last;
            time = first < last ? time + 1 : time - 1;
        }
        if (!cursor.status().ok()) return cursor.status().error();
        return believe(right && ended);
    }
    // The row in place is the cursor's as before when its copy was made.
    Error copy_all(Cursor<Event> cursor, std::uint64_t first, std::uint64_t last) {
        std::uint64_t time = first;
        bool right = true;
        bool ended = false;
        while (cursor.next()) {
            const auto row = cursor.copy();
            if (!row.ok()) return row.error();
            check(time, *row);
            right = right && !ended && is_right(time, cursor.row(), !kWithLarge);
            ended = time == last;
            time = first < last ? time + 1 : time - 1;
        }
        if (!cursor.status().ok()) return cursor.status().error();
        return believe(right && ended);
    }

    Error get() { return get_at(small(37)); }
    Error get_encoded() {
        const std::uint64_t time = small(53);
        const auto row = events_.raw().get(snapshot_, events_.key(time, 0u).span());
        if (!row.ok()) return row.error();
        if (*row) check(time, Description<Event>::copy((*row)->key, (*row)->value));
        wrong_ = wrong_ || !*row;
        return Error::kOk;
    }
    Error get_large() { return get_at(large(30)); }
    Error get_nothing() {
        const auto row = events_.get(snapshot_, from_ + 45, 7u);
        if (row.ok()) wrong_ = wrong_ || row->has_value();
        return row.error();
    }
    Error get_into() {
        Copy<Event> row;
        const auto found = events_.get_into(row, snapshot_, small(33), 0u);
        if (!found.ok()) return found.error();
        check(small(33), row);
        return Error::kOk;
    }
    Error multi_get() { return multi_get_of(some_times(), kPagesUnderWay); }
    Error multi_get_by_few() { return multi_get_of(some_times(), 2); }
    Error multi_get_large() { return multi_get_of(large_times(), kPagesUnderWay); }
    Error peek() {
        const auto row = events_.peek(snapshot_, small(99), 0u);
        if (!row.ok()) return row.error();
        return believe(*row && is_right(small(99), **row));
    }
    Error peek_many() {
        const auto times = some_times();
        std::vector<std::optional<Row<Event>>> rows(times.size());
        const Status status = events_.peek_many(snapshot_, keys_of(times), rows);
        if (!status.ok()) return status.error();
        bool right = true;
        for (std::size_t i = 0; i < times.size(); ++i) {
            right = right && rows[i] && is_right(times[i], *rows[i]);
        }
        return believe(right);
    }
    Error copy_of_peeked() {
        const std::uint64_t time = large(105);
        const auto row = events_.peek(snapshot_, time, 0u);
        if (!row.ok()) return row.error();
        if (!*row) return believe(false);
        const auto copy = (**row).copy();
        return believe(copy.time == time && is_row(time, copy.kind, copy.text));
    }
    Error spans_of_large() {
        const std::uint64_t time = large(130);
        const auto row = events_.peek(snapshot_, time, 0u);
        if (!row.ok()) return row.error();
        if (!*row) return believe(false);
        const auto value = (**row).large<&Event::text>();
        if (!value.ok()) return value.error();
        std::string text(value->size(), ' ');
        value->copy_to(std::as_writable_bytes(std::span(text)).data());
        return believe(is_row(time, (**row).get<&Event::kind>(), text));
    }
    Error scan() { return walk(scan_from(0, {}), from_, last()); }
    Error scan_backwards() { return walk(scan_from(0, {.reverse = true}), last(), from_); }
    Error scan_copies() { return copy_all(scan_from(150, {}), from_ + 150, last()); }
    // Large values are left alone: in place they are the caller's until the snapshot ends, and then
    // a scan lets go of nothing.
    Error scan_streaming() {
        return walk(scan_from(0, {.streaming = true}), from_, last(), !kWithLarge);
    }
    Error scan_streaming_backwards() {
        return walk(scan_from(0, {.reverse = true, .streaming = true}), last(), from_, !kWithLarge);
    }
    Error scan_streaming_copies() {
        return copy_all(scan_from(0, {.streaming = true}), from_, last());
    }
    Error scan_streaming_copies_backwards() {
        return copy_all(scan_from(0, {.reverse = true, .streaming = true}), last(), from_);
    }
    Error newest() {
        return walk(events_.newest(snapshot_, 30), rounds_.rows - 1, rounds_.rows - 30);
    }
    Error count() {
        const auto rows =
            events_.count(snapshot_, events_.prefix(from_ + 10), events_.prefix(from_ + kWindow));
        if (!rows.ok()) return rows.error();
        wrong_ = wrong_ || *rows != kWindow - 10;
        return Error::kOk;
    }
    Error prefetch() { return events_.prefetch(snapshot_, keys_of(some_times())).error(); }
    std::uint64_t last() const { return from_ + kWindow - 1; }

    const Table<Event>& events_;
    const Snapshot& snapshot_;
    const std::uint32_t round_;
    const Rounds rounds_;
    const std::uint64_t from_;
    bool wrong_ = false;
};

}  // namespace bidstore
