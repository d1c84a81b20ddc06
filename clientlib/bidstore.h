// bidstore's C++ API: attach to the daemon, read rows in place, write transactions.
//
//   struct User {                                     // a plain struct …
//       bidstore::Bytes<16> id;
//       std::uint64_t wins;
//       std::uint64_t seen;
//       std::string_view host;                        // variable-length: comes last
//   };
//   template <>                                       // … and what its table looks like
//   struct bidstore::Describe<User> {
//       static constexpr auto table = bidstore::table<User>(
//           "users", keys(column<&User::id>("id")),
//           values(column<&User::wins>("wins"), column<&User::seen>("seen", timestamp),
//                  column<&User::host>("host")),
//           time_column("seen"));
//   };
//
//   auto store = bidstore::Store::attach({.rights = bidstore::Rights::kWriter}, in(1s));
//   auto users = store->open<User>(in(1s));           // checked against the catalog
//   auto reader = store->reader();                    // one per thread
//   auto user = users->get(*reader, in(5ms), id);     // Result<std::optional<Copy<User>>>
//   if (user.ok() && *user) use((*user)->wins);
//
//   bidstore::Transaction win;                        // all or nothing
//   win.add<&User::wins>(*users, users->key(id), 1, {.create = true});
//   win.add<&Advertiser::budget>(*advertisers, advertisers->key(who), -price, {.floor = 0});
//   auto committed = store->commit(win, in(50ms));    // on disk when ok
//
// Who:    Store, Table and RawTable may be shared by threads. A Reader and what comes from it
//         belong to one thread. A Transaction belongs to whoever builds it.
// Waits:  only until the deadline that was passed. A read of rows that are in the pool makes no
//         system call, takes no lock, allocates nothing (but for Copy<T> of variable columns).
// Daemon: when it goes away, calls wait for its return until their deadline, then fail: reads with
//         kDisconnected, writes under way with kTimedOut. Writes without an answer go to the next
//         one again, each is applied exactly once; if its file is another one: kNotBidstore, and
//         kUnknownOutcome of writes under way (sent if the one of before comes back in time).
// Fork:   a child gets kInvalid from everything that its parent attached; it attaches anew.
//         The library starts no threads, installs no signal handlers, throws nothing.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clientlib/describe.h"
#include "clientlib/large_value.h"
#include "clientlib/read.h"
#include "clientlib/row_codec.h"
#include "clientlib/write.h"
#include "engine/page/schema.h"
#include "shm/error.h"
#include "shm/layout.h"
#include "shm/message.h"

namespace bidstore {

// A deadline that far from now; in(std::chrono::nanoseconds::max()) is none.
inline Deadline in(std::chrono::nanoseconds duration) {
    const Deadline now = std::chrono::steady_clock::now();
    return duration < Deadline::max() - now ? now + duration : Deadline::max();
}

struct ReaderState;

// ---- snapshots ----------------------------------------------------------------------------------

// Everything committed up to one moment, in all tables, for as long as it is held: at most the
// daemon's max_snapshot_age (5 s unless configured), after which reads give kSnapshotExpired.
// Hold it for one auction, not longer. Ends with its destructor; not later than its Reader.
class Snapshot {
  public:
    Snapshot(Snapshot&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    Snapshot& operator=(Snapshot&& other) noexcept;
    ~Snapshot() { end(); }

    Csn csn() const;
    // Whether what was read so far can be believed. Copying reads have asked already; after reads
    // in place, ask after the last use of the bytes.
    bool valid() const;
    // The same with the reason: kSnapshotExpired, or the failure of a large value that was read in
    // place (Row::get), which makes the snapshot invalid as well.
    Status status() const;
    // Where waits for pages that are not in the pool end.
    Deadline deadline() const;
    // Lets go before the destructor does. Nothing may be read any more.
    void end();

  private:
    friend class Reader;
    friend struct ReaderState;
    explicit Snapshot(ReaderState* state) : state_(state) {}
    ReaderState* state_;  // of a Reader, which outlives this
};

// A thread's place for snapshots. Make one per thread and keep it.
class Reader {
  public:
    Reader(Reader&&) noexcept;
    Reader& operator=(Reader&&) noexcept;
    ~Reader();  // no snapshot of it may be left

    // All reads under it share its deadline. One at a time: kInvalid while another is live.
    // kDisconnected when the daemon is away and did not come back in time.
    Result<Snapshot> snapshot(Deadline deadline);
    // How many pages its reads have asked the daemon for so far, since they were not in the pool;
    // those that scans asked for ahead of need included.
    std::uint64_t pages_asked_for() const;

  private:
    friend class Store;
    friend class StoreState;
    explicit Reader(std::unique_ptr<ReaderState> state);
    std::unique_ptr<ReaderState> state_;
};

// Runs `read(snapshot)`, which gives a Result, under a snapshot of its own, and begins again when
// that one expired, until the deadline.
template <class Read>
auto read_once(Reader& reader, Deadline deadline, Read&& read)
    -> decltype(read(std::declval<const Snapshot&>())) {
    for (;;) {
        Result<Snapshot> snapshot = reader.snapshot(deadline);
        if (!snapshot.ok()) return snapshot.failure();
        auto result = read(std::as_const(*snapshot));
        const bool expired = !result.ok() && result.error() == Error::kSnapshotExpired;
        if (!expired || std::chrono::steady_clock::now() >= deadline) return result;
    }
}

// ---- typed tables -------------------------------------------------------------------------------

// A row in its page. Every get() reads the page: check snapshot.valid() after the last one, then
// believe. A std::string_view from it points into the pool (or, of a large value whose pages do not
// lie side by side there, to a copy) and lives as long as the snapshot.
template <class T>
class Row {
  public:
    explicit Row(const RawRow& raw) : raw_(raw) {}
    // row.get<&Bid::price>()
    // A large value may have to be waited for, until the snapshot's deadline; when it cannot be
    // had, the view is empty, and the snapshot is no longer valid: status() says why.
    template <auto Member>
    auto get() const {
        if constexpr (Description<T>::template is_variable<Member>()) {
            if (Description<T>::refers(raw_.value)) [[unlikely]] {
                const auto bytes = large_view(raw_, Description<T>::template index<Member>());
                return std::string_view(
                    static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size());
            }
        }
        return Description<T>::template member<Member>(raw_.key, raw_.value);
    }
    // A variable-length column as spans in the pool, whatever its size: row.large<&Bid::page>()
    template <auto Member>
    Result<LargeValue> large() const {
        static_assert(Description<T>::template is_variable<Member>(),
                      "bidstore: large() is for std::string_view columns");
        return large_value(raw_, Description<T>::template index<Member>());
    }
    // Check snapshot.valid() after it.
    Copy<T> copy() const {
        if (Description<T>::refers(raw_.value)) [[unlikely]] {
            auto whole = whole_or_fail(raw_);
            return Description<T>::copy(whole.key, whole.value);
        }
        return Description<T>::copy(raw_.key, raw_.value);
    }
    const RawRow& raw() const { return raw_; }

  private:
    RawRow raw_;
};

// Rows between two bounds. Belongs to its snapshot.
//
//   for (auto cursor = bids.scan(snapshot, bids.prefix(t0), bids.prefix(t1)); cursor.next();)
//       sum += cursor.row().template get<&Bid::price>();
//   if (!cursor.status().ok()) … ;   // only after this is `sum` to be believed
template <class T>
class Cursor {
  public:
    explicit Cursor(RawCursor raw) : raw_(std::move(raw)) {}
    // Goes to the first or next row; false at the end and after a failure.
    bool next() { return raw_.next(); }
    // In place: believe it after status() or snapshot.valid().
    Row<T> row() const { return Row<T>(raw_.row()); }
    // A copy that was checked.
    Result<Copy<T>> copy() {
        if (Description<T>::refers(raw_.row().value)) [[unlikely]] {
            auto whole = raw_.copy();
            if (!whole.ok()) return whole.failure();
            return Description<T>::copy(whole->key, whole->value);
        }
        Copy<T> row = Description<T>::copy(raw_.row().key, raw_.row().value);
        if (Status status = raw_.status(); !status.ok()) return status.failure();
        return row;
    }
    // Ok while the scan got to where it is, or to its end, under a valid snapshot.
    Status status() const { return raw_.status(); }

  private:
    RawCursor raw_;
};

// A table whose rows are T. Cheap to copy. It is of the file that its store was attached to: of
// another one it is refused (kInvalid), by snapshots and by commit().
template <class T>
class Table {
  public:
    static_assert(Description<T>::checked());
    using row_type = T;

    // A whole key from its parts, in the order of keys(...): users.key(id).
    template <class... Parts>
    Key<T> key(const Parts&... parts) const {
        return Key<T>::from(parts...);
    }
    // The first parts of a key, for bounds: bids.prefix(from_time). No part at all: no bound.
    template <class... Parts>
    Prefix<T> prefix(const Parts&... parts) const {
        return Prefix<T>::from(parts...);
    }

    // The row, or nothing when there is none at this snapshot.
    template <class... Parts>
    Result<std::optional<Copy<T>>> get(const Snapshot& snapshot, const Parts&... parts) const {
        const Key<T> wanted = Key<T>::from(parts...);
        std::array<std::byte, Description<T>::kValueBytesMax> value;
        auto found = raw_.read(snapshot, wanted.span(), value);
        if (found.error() == Error::kTooLarge) [[unlikely]]
            return get_large(snapshot, wanted);
        if (!found.ok()) return found.failure();
        if (!*found) return std::optional<Copy<T>>{};
        return std::optional<Copy<T>>{
            Description<T>::copy(wanted.span(), std::span(value).first(**found))};
    }
    // The same under a snapshot of its own; begins again by itself when that expired.
    template <class... Parts>
    Result<std::optional<Copy<T>>> get(Reader& reader, Deadline deadline,
                                       const Parts&... parts) const {
        return read_once(reader, deadline,
                         [&](const Snapshot& snapshot) { return get(snapshot, parts...); });
    }
    // As get, into storage that is used again: after warming up, no allocation. False: no such row.
    template <class... Parts>
    Result<bool> get_into(Copy<T>& row, const Snapshot& snapshot, const Parts&... parts) const {
        const Key<T> wanted = Key<T>::from(parts...);
        std::array<std::byte, Description<T>::kValueBytesMax> value;
        auto found = raw_.read(snapshot, wanted.span(), value);
        if (found.error() == Error::kTooLarge) [[unlikely]] {
            auto large = raw_.get(snapshot, wanted.span());
            if (!large.ok()) return large.failure();
            if (!*large) return false;
            Description<T>::copy_into(row, (*large)->key, (*large)->value);
            return true;
        }
        if (!found.ok()) return found.failure();
        if (!*found) return false;
        Description<T>::copy_into(row, wanted.span(), std::span(value).first(**found));
        return true;
    }
    // The row in its page, nothing copied: check snapshot.valid() after use.
    template <class... Parts>
    Result<std::optional<Row<T>>> peek(const Snapshot& snapshot, const Parts&... parts) const {
        auto found = raw_.peek(snapshot, Key<T>::from(parts...).span());
        if (!found.ok()) return found.failure();
        if (!*found) return std::optional<Row<T>>{};
        return std::optional<Row<T>>{Row<T>(**found)};
    }
    // As peek, for many keys at a fraction of the time a key. One entry of `rows`, which has room
    // for them, a key, in order. Pages that are not in the pool are asked for together, those of
    // kKeysTogether keys at a time. Check snapshot.valid() after use.
    static constexpr std::size_t kKeysTogether = 64;
    Status peek_many(const Snapshot& snapshot, std::span<const Key<T>> keys,
                     std::span<std::optional<Row<T>>> rows) const {
        std::array<std::span<const std::byte>, kKeysTogether> spans;
        std::array<std::optional<RawRow>, kKeysTogether> found;
        if (rows.size() < keys.size()) {
            return {Error::kInvalid, "peek_many: there are fewer rows than keys"};
        }
        for (std::size_t from = 0; from < keys.size(); from += kKeysTogether) {
            const std::size_t some = std::min(keys.size() - from, kKeysTogether);
            for (std::size_t i = 0; i < some; ++i) spans[i] = keys[from + i].span();
            if (Status status = raw_.peek_many(snapshot, std::span(spans).first(some), found);
                !status.ok()) {
                return status;
            }
            for (std::size_t i = 0; i < some; ++i) {
                rows[from + i].reset();
                if (found[i]) rows[from + i].emplace(*found[i]);
            }
        }
        return {};
    }
    // One entry a key, in order. Of pages that are not in the pool `pages_under_way`, 1 or more,
    // are asked for at a time, the next ones as these come, in whatever order.
    Result<std::vector<std::optional<Copy<T>>>> multi_get(
        const Snapshot& snapshot, std::span<const Key<T>> keys,
        std::size_t pages_under_way = kPagesUnderWay) const {
        std::vector<std::span<const std::byte>> spans;
        spans.reserve(keys.size());
        for (const Key<T>& key : keys) spans.push_back(key.span());
        auto found = raw_.multi_get(snapshot, spans, pages_under_way);
        if (!found.ok()) return found.failure();
        std::vector<std::optional<Copy<T>>> rows(keys.size());
        for (std::size_t i = 0; i < keys.size(); ++i) {
            if (!(*found)[i]) continue;
            rows[i] = Description<T>::copy((*found)[i]->key, (*found)[i]->value);
        }
        return rows;
    }
    Result<std::vector<std::optional<Copy<T>>>> multi_get(Reader& reader, Deadline deadline,
                                                          std::span<const Key<T>> keys) const {
        return read_once(reader, deadline,
                         [&](const Snapshot& snapshot) { return multi_get(snapshot, keys); });
    }
    // Asks for the pages of these keys that are not in the pool, and does not wait for them: for
    // what an auction will read after what it reads now. See RawTable::prefetch.
    Status prefetch(const Snapshot& snapshot, std::span<const Key<T>> keys) const {
        std::array<std::span<const std::byte>, 32> spans;
        while (!keys.empty()) {
            const std::size_t count = std::min(keys.size(), spans.size());
            for (std::size_t i = 0; i < count; ++i) spans[i] = keys[i].span();
            Status asked = raw_.prefetch(snapshot, std::span(spans).first(count));
            if (!asked.ok()) return asked;
            keys = keys.subspan(count);
        }
        return {};
    }
    // Rows with lower <= key < upper; a default Prefix is no bound.
    Cursor<T> scan(const Snapshot& snapshot, const Prefix<T>& lower = {},
                   const Prefix<T>& upper = {}, ScanOptions options = {}) const {
        return Cursor<T>(raw_.scan(snapshot, lower.span(), upper.span(), options));
    }
    // The last n rows whose key begins with these parts, last one first.
    template <class... Parts>
    Cursor<T> newest(const Snapshot& snapshot, std::uint64_t n, const Parts&... parts) const {
        return Cursor<T>(raw_.newest(snapshot, n, Prefix<T>::from(parts...).span()));
    }
    // The number of rows with lower <= key < upper.
    Result<std::uint64_t> count(const Snapshot& snapshot, const Prefix<T>& lower = {},
                                const Prefix<T>& upper = {}) const {
        return raw_.count(snapshot, lower.span(), upper.span());
    }
    Result<std::uint64_t> count(Reader& reader, Deadline deadline, const Prefix<T>& lower = {},
                                const Prefix<T>& upper = {}) const {
        return read_once(reader, deadline, [&](const Snapshot& snapshot) {
            return raw_.count(snapshot, lower.span(), upper.span());
        });
    }

    const RawTable& raw() const { return raw_; }

  private:
    friend class Store;
    explicit Table(RawTable raw) : raw_(std::move(raw)) {}
    Result<std::optional<Copy<T>>> get_large(const Snapshot& snapshot, const Key<T>& key) const {
        auto found = raw_.get(snapshot, key.span());
        if (!found.ok()) return found.failure();
        if (!*found) return std::optional<Copy<T>>{};
        return std::optional<Copy<T>>{Description<T>::copy((*found)->key, (*found)->value)};
    }
    RawTable raw_;
};

// ---- writing ------------------------------------------------------------------------------------

// A new value for a column: set<&User::seen>(now).
template <auto Member>
struct Set {
    MemberType<Member> value;
};
template <auto Member>
Set<Member> set(MemberType<Member> value) {
    return Set<Member>{value};
}

// A list of preconditions and operations, applied all or not at all, in order; each sees those
// before it. Building does no I/O; a mistake made here comes back from commit().
class Transaction : public RawTransaction {
  public:
    using RawTransaction::add;
    using RawTransaction::erase;
    using RawTransaction::erase_range;
    using RawTransaction::insert;
    using RawTransaction::put;
    using RawTransaction::require_absent;
    using RawTransaction::require_equals;
    using RawTransaction::require_present;
    using RawTransaction::update;

    // Otherwise the transaction fails with kPrecondition.
    template <class T>
    Transaction& require_present(const Table<T>& table, const Key<T>& key) {
        RawTransaction::require_present(table.raw(), key.span());
        return *this;
    }
    template <class T>
    Transaction& require_absent(const Table<T>& table, const Key<T>& key) {
        RawTransaction::require_absent(table.raw(), key.span());
        return *this;
    }
    template <auto Member, class T>
    Transaction& require_equals(const Table<T>& table, const Key<T>& key,
                                const std::type_identity_t<MemberType<Member>>& value) {
        const auto bytes = Description<T>::template value_bytes<Member>(value);
        RawTransaction::require_equals(table.raw(), key.span(),
                                       Description<T>::template index<Member>(), bytes.span());
        return *this;
    }

    // The row is now this, whether it was there or not.
    template <class T>
    Transaction& put(const Table<T>& table, const std::type_identity_t<T>& row) {
        const EncodedRow<T> encoded(row);
        if (!encoded.fits()) return too_large(table.raw());
        RawTransaction::put(table.raw(), encoded.key(), encoded.value());
        return *this;
    }
    // The row must not be there: kExists.
    template <class T>
    Transaction& insert(const Table<T>& table, const std::type_identity_t<T>& row) {
        const EncodedRow<T> encoded(row);
        if (!encoded.fits()) return too_large(table.raw());
        RawTransaction::insert(table.raw(), encoded.key(), encoded.value());
        return *this;
    }
    // tx.update(users, users.key(id), set<&User::seen>(now), …); kNotFound when there is no row.
    template <class T, auto... Members>
    Transaction& update(const Table<T>& table, const Key<T>& key, const Set<Members>&... columns) {
        (update_one<Members>(table, key, columns.value), ...);
        return *this;
    }
    // tx.add<&User::wins>(users, users.key(id), 1, {.floor = 0, .create = true})
    template <auto Member, class T>
    Transaction& add(const Table<T>& table, const Key<T>& key, std::int64_t delta,
                     const AddOptions& options = {}) {
        static_assert(Description<T>::template is_counter<Member>(),
                      "bidstore: add works on integer value columns");
        RawTransaction::add(table.raw(), key.span(), Description<T>::template index<Member>(),
                            delta, options);
        return *this;
    }
    // kNotFound when there is no row, unless if_present.
    template <class T>
    Transaction& erase(const Table<T>& table, const Key<T>& key, bool if_present = false) {
        RawTransaction::erase(table.raw(), key.span(), if_present);
        return *this;
    }
    // All rows with lower <= key < upper; a default Prefix is no bound.
    template <class T>
    Transaction& erase_range(const Table<T>& table, const Prefix<T>& lower, const Prefix<T>& upper,
                             bool want_result = false) {
        RawTransaction::erase_range(table.raw(), lower.span(), upper.span(), want_result);
        return *this;
    }

  private:
    template <auto Member, class T>
    void update_one(const Table<T>& table, const Key<T>& key, const MemberType<Member>& value) {
        const auto bytes = Description<T>::template value_bytes<Member>(value);
        RawTransaction::update(table.raw(), key.span(), Description<T>::template index<Member>(),
                               bytes.span());
    }
    Transaction& too_large(const RawTable& table);
};

// ---- the store ----------------------------------------------------------------------------------

struct AttachOptions {
    std::string socket = "/run/bidstore/bidstore.sock";
    Rights rights = Rights::kReader;  // asked for; kDenied when the daemon's config gives less
    bool wait_for_daemon = false;     // when there is none yet: until the deadline
};

// The daemon's counters at one moment; their names are in shm/stats.h.
struct Stats {
    struct Histogram {
        std::uint64_t count = 0;
        std::uint64_t sum = 0;
        std::array<std::uint64_t, kHistogramBuckets> bucket{};
    };
    std::uint32_t counter_count = 0;    // how many of counter have a name
    std::uint32_t histogram_count = 0;  // how many of histogram have a name
    std::array<std::uint64_t, kCounterCount> counter{};
    std::array<Histogram, kHistogramCount> histogram{};
    std::uint64_t instance_id = 0;
    std::uint64_t visible_csn = 0;
    std::uint64_t heartbeat_age_ns = 0;
    EngineMode mode = EngineMode::kStarting;
};

// A connection to the daemon of this host: one per process, kept for life. Survives the daemon.
class Store {
  public:
    // kDisconnected (nobody listens: names the socket), kDenied, kVersionMismatch, kTimedOut;
    // kBusy: the daemon was too busy until the deadline.
    static Result<Store> attach(const AttachOptions& options, Deadline deadline);
    Store(Store&&) noexcept;
    Store& operator=(Store&&) noexcept;
    ~Store();

    // For this thread. kBusy when all reader slots of the process are taken.
    Result<Reader> reader();

    // The table that Describe<T> names. kNoSuchTable, or kSchemaMismatch naming the column.
    template <class T>
    Result<Table<T>> open(Deadline deadline) {
        Result<Schema> expected = Description<T>::schema();
        if (!expected.ok()) return expected.failure();
        Result<RawTable> raw = open_checked(*expected, deadline);
        if (!raw.ok()) return raw.failure();
        return Table<T>(std::move(*raw));
    }
    // Any table, by the catalog's schema.
    Result<RawTable> open_raw(std::string_view name, Deadline deadline);
    // All tables but, unless asked for, the system's own; by id.
    Result<std::vector<RawTable>> tables(Deadline deadline, bool with_system = false);

    // kTableExists when a table of that name is there (open() then says whether it fits).
    template <class T>
    Status create_table(Deadline deadline, const TableAttributes& attributes = {}) {
        Result<Schema> schema = Description<T>::schema();
        if (!schema.ok()) return schema.failure();
        return create_table(*schema, deadline, attributes);
    }
    // Retention (attributes.retain_us) needs a time column: kInvalid without one.
    Status create_table(const Schema& schema, Deadline deadline,
                        const TableAttributes& attributes = {});
    // From now on. A longer retention does not bring back what is gone.
    Status set_table(std::string_view name, const TableAttributes& attributes, Deadline deadline);
    Status drop_table(std::string_view name, Deadline deadline);

    // Waits for the answer. A failure names the operation that failed, counted from 0.
    // kTimedOut: no answer yet, the write may still be applied (once).
    // kBusy: there was no room to send it before the deadline; it was not applied.
    Result<Committed> commit(const RawTransaction& transaction, Deadline deadline,
                             Durability durability = Durability::kDurable);
    // Sends it and returns; the deadline is for room in the ring, and for the daemon's return: that
    // it went away is noticed within half a second or so.
    Result<Pending> submit(const RawTransaction& transaction, Deadline deadline,
                           Durability durability = Durability::kDurable);

    Result<Stats> stats(Deadline deadline);
    // Of this process's writes, kept across daemons.
    std::array<std::uint8_t, 16> session_id() const;
    // How often the connection was made anew.
    std::uint64_t reconnects() const;

  private:
    explicit Store(std::shared_ptr<StoreState> state);
    Result<RawTable> open_checked(const Schema& expected, Deadline deadline);
    std::shared_ptr<StoreState> state_;
};

}  // namespace bidstore
