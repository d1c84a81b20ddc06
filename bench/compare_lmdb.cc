// LMDB 0.9, tuned:
//   - MDB_WRITEMAP: a commit changes pages in the map and copies none through write(); the file is
//     as large as it may grow, in page cache;
//   - MDB_NOTLS, one reader transaction a thread, reset and renewed for each operation: what a
//     snapshot costs it;
//   - no read-ahead, since all is in memory;
//   - it has no multi_get: keys one by one under one snapshot. One writer at a time is its nature;
//     a depth becomes one transaction of so many writes.
// With sync 0: MDB_NOSYNC and MDB_MAPASYNC, nothing waits for the disk.
#include <lmdb.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "bench/compare_engine.h"
#include "bench/measure.h"

namespace bench {
namespace {

void must(int code) {
    if (code != 0) fail(std::string("LMDB: ") + ::mdb_strerror(code));
}

MDB_val value_of(void* bytes, std::size_t size) { return {size, bytes}; }

struct LmdbHandles {
    MDB_env* environment = nullptr;
    MDB_dbi rows = 0;
    MDB_dbi counters = 0;
};

class LmdbSession : public GroupedSession {
  public:
    LmdbSession(LmdbHandles& handles, const SessionOptions& options)
        : GroupedSession(options.depth), handles_(handles) {
        must(::mdb_env_set_flags(handles.environment, MDB_NOSYNC | MDB_MAPASYNC,
                                 options.sync ? 0 : 1));
        must(::mdb_txn_begin(handles.environment, nullptr, MDB_RDONLY, &reader_));
        must(::mdb_cursor_open(reader_, handles.rows, &cursor_));
        ::mdb_txn_reset(reader_);
    }
    ~LmdbSession() override {
        ::mdb_cursor_close(cursor_);
        ::mdb_txn_abort(reader_);
    }

    Found get(const RowKey& key) override {
        const Snapshot snapshot(*this);
        return find(key);
    }

    Found multi_get(std::span<const RowKey> keys) override {
        const Snapshot snapshot(*this);
        Found all;
        for (const RowKey& key : keys) {
            const Found one = find(key);
            all.rows += one.rows;
            all.sum += one.sum;
        }
        return all;
    }

    Found scan_newest(std::uint64_t entity, std::uint64_t limit) override {
        const Snapshot snapshot(*this);
        must(::mdb_cursor_renew(reader_, cursor_));
        auto after = RowKey{entity + 1, 0}.bytes();
        MDB_val key = value_of(after.data(), after.size());
        MDB_val value{};
        int code = ::mdb_cursor_get(cursor_, &key, &value, MDB_SET_RANGE);
        code = ::mdb_cursor_get(cursor_, &key, &value, code == 0 ? MDB_PREV : MDB_LAST);
        const auto first = RowKey{entity, 0}.bytes();
        Found found;
        while (code == 0 && std::memcmp(key.mv_data, first.data(), 8) == 0) {
            add_row(key, value, found);
            if (found.rows == limit) return found;
            code = ::mdb_cursor_get(cursor_, &key, &value, MDB_PREV);
        }
        if (code != MDB_NOTFOUND) must(code);
        return found;
    }

    Found scan_from(const RowKey& from, std::uint64_t limit) override {
        const Snapshot snapshot(*this);
        must(::mdb_cursor_renew(reader_, cursor_));
        auto bytes = from.bytes();
        MDB_val key = value_of(bytes.data(), bytes.size());
        MDB_val value{};
        Found found;
        int code = ::mdb_cursor_get(cursor_, &key, &value, MDB_SET_RANGE);
        while (code == 0) {
            add_row(key, value, found);
            if (found.rows == limit) return found;
            code = ::mdb_cursor_get(cursor_, &key, &value, MDB_NEXT);
        }
        if (code != MDB_NOTFOUND) must(code);
        return found;
    }

    std::uint64_t counter(std::uint64_t number) override {
        const Snapshot snapshot(*this);
        return counter_in(reader_, number);
    }

  protected:
    void commit(std::span<const Write> group) override {
        MDB_txn* writer = nullptr;
        must(::mdb_txn_begin(handles_.environment, nullptr, 0, &writer));
        for (const Write& write : group) {
            auto bytes = write.key.bytes();
            MDB_val key = value_of(bytes.data(), bytes.size());
            if (write.kind == Write::Kind::kAdd) {
                std::uint64_t sum = counter_in(writer, write.key.entity) + write.word;
                MDB_val value = value_of(&sum, sizeof sum);
                must(::mdb_put(writer, handles_.counters, &key, &value, 0));
            } else {
                MDB_val value = value_of(nullptr, kValueBytes);
                must(::mdb_put(writer, handles_.rows, &key, &value, MDB_RESERVE));
                fill_value(value.mv_data, write.word);
            }
        }
        must(::mdb_txn_commit(writer));
    }

  private:
    struct Snapshot {
        explicit Snapshot(LmdbSession& session) : reader(session.reader_) {
            must(::mdb_txn_renew(reader));
        }
        ~Snapshot() { ::mdb_txn_reset(reader); }
        MDB_txn* reader;
    };

    Found find(const RowKey& wanted) {
        auto bytes = wanted.bytes();
        MDB_val key = value_of(bytes.data(), bytes.size());
        MDB_val value{};
        const int code = ::mdb_get(reader_, handles_.rows, &key, &value);
        if (code == MDB_NOTFOUND) return {};
        must(code);
        return {1, sum_of(value.mv_data)};
    }

    std::uint64_t counter_in(MDB_txn* transaction, std::uint64_t number) {
        auto bytes = RowKey{number, 0}.bytes();
        MDB_val key = value_of(bytes.data(), bytes.size());
        MDB_val value{};
        const int code = ::mdb_get(transaction, handles_.counters, &key, &value);
        if (code == MDB_NOTFOUND) return 0;
        must(code);
        std::uint64_t count = 0;
        std::memcpy(&count, value.mv_data, sizeof count);
        return count;
    }

    static void add_row(const MDB_val& key, const MDB_val& value, Found& found) {
        std::uint64_t time = 0;
        std::uint64_t word = 0;
        std::memcpy(&time, static_cast<const char*>(key.mv_data) + 8, sizeof time);
        std::memcpy(&word, value.mv_data, sizeof word);
        found.sum += __builtin_bswap64(time) + word;
        ++found.rows;
    }

    LmdbHandles& handles_;
    MDB_txn* reader_ = nullptr;
    MDB_cursor* cursor_ = nullptr;
};

class Lmdb : public Engine {
  public:
    explicit Lmdb(const EngineOptions& options) : Engine(options) {}
    ~Lmdb() override { disconnect(); }
    void start() override {}
    bool many_processes() const override { return true; }

    void connect() override {
        must(::mdb_env_create(&handles_.environment));
        must(::mdb_env_set_mapsize(handles_.environment, options().disk_bytes));
        must(::mdb_env_set_maxdbs(handles_.environment, 2));
        must(::mdb_env_set_maxreaders(handles_.environment, 512));
        const std::string path = options().directory + "/data";
        must(::mdb_env_open(handles_.environment, path.c_str(),
                            MDB_NOSUBDIR | MDB_WRITEMAP | MDB_NOTLS | MDB_NORDAHEAD, 0600));
        MDB_txn* writer = nullptr;
        must(::mdb_txn_begin(handles_.environment, nullptr, 0, &writer));
        must(::mdb_dbi_open(writer, "rows", MDB_CREATE, &handles_.rows));
        must(::mdb_dbi_open(writer, "counters", MDB_CREATE, &handles_.counters));
        must(::mdb_txn_commit(writer));
    }
    void disconnect() override {
        if (handles_.environment != nullptr) ::mdb_env_close(handles_.environment);
        handles_.environment = nullptr;
    }
    std::unique_ptr<Session> session(const SessionOptions& options) override {
        return std::make_unique<LmdbSession>(handles_, options);
    }
    void settle() override { must(::mdb_env_sync(handles_.environment, 1)); }

  private:
    LmdbHandles handles_;
};

}  // namespace

std::unique_ptr<Engine> make_lmdb(const EngineOptions& options) {
    return std::make_unique<Lmdb>(options);
}

}  // namespace bench
