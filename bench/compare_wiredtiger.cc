// WiredTiger 3.2, tuned for rows that all lie in memory:
//   - a cache of all memory, so that nothing is evicted; the process runs with
//     GLIBC_TUNABLES=glibc.malloc.hugetlb=1, so that its heap lies on pages of 2 MiB;
//   - the log on, preallocated, 64 MiB a file; a checkpoint every 60 s, as MongoDB has it;
//   - a session and its cursors for each thread, kept; reset after each operation;
//   - no multi_get: keys one by one. An add is a read and an update in one transaction, under the
//     counter's lock, which costs less than rollbacks on conflicts.
// Each write is a transaction of its own, with sync 1 its log record is on disk (fsync, group
// commit in its log slots); with sync 0 the log is written, not synced.
#include <wiredtiger.h>

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
    if (code != 0) fail(std::string("WiredTiger: ") + ::wiredtiger_strerror(code));
}

class WiredSession : public GroupedSession {
  public:
    WiredSession(WT_CONNECTION* connection, CounterLocks& counter_locks,
                 const SessionOptions& options)
        : GroupedSession(options.depth),
          counter_locks_(counter_locks),
          commit_(options.sync ? "sync=on" : "sync=off") {
        must(connection->open_session(connection, nullptr, nullptr, &session_));
        must(session_->open_cursor(session_, "table:rows", nullptr, "overwrite=true", &rows_));
        must(session_->open_cursor(session_, "table:counters", nullptr, "overwrite=true",
                                   &counters_));
    }
    ~WiredSession() override { session_->close(session_, nullptr); }

    Found get(const RowKey& key) override {
        const auto bytes = key.bytes();
        set_key(rows_, bytes);
        const int code = rows_->search(rows_);
        if (code == WT_NOTFOUND) return {};
        must(code);
        WT_ITEM value{};
        must(rows_->get_value(rows_, &value));
        const Found found{1, sum_of(value.data)};
        must(rows_->reset(rows_));
        return found;
    }

    Found multi_get(std::span<const RowKey> keys) override {
        Found all;
        for (const RowKey& key : keys) {
            const Found one = get(key);
            all.rows += one.rows;
            all.sum += one.sum;
        }
        return all;
    }

    Found scan_newest(std::uint64_t entity, std::uint64_t limit) override {
        const auto after = RowKey{entity + 1, 0}.bytes();
        const auto first = RowKey{entity, 0}.bytes();
        set_key(rows_, after);
        int where = 0;
        int code = rows_->search_near(rows_, &where);
        if (code == 0 && where >= 0) code = rows_->prev(rows_);
        Found found;
        while (code == 0) {
            WT_ITEM key{};
            must(rows_->get_key(rows_, &key));
            if (std::memcmp(key.data, first.data(), 8) != 0) break;
            add_row(key, found);
            if (found.rows == limit) break;
            code = rows_->prev(rows_);
        }
        if (code != WT_NOTFOUND) must(code);
        must(rows_->reset(rows_));
        return found;
    }

    Found scan_from(const RowKey& from, std::uint64_t limit) override {
        const auto bytes = from.bytes();
        set_key(rows_, bytes);
        int where = 0;
        int code = rows_->search_near(rows_, &where);
        if (code == 0 && where < 0) code = rows_->next(rows_);
        Found found;
        while (code == 0) {
            WT_ITEM key{};
            must(rows_->get_key(rows_, &key));
            add_row(key, found);
            if (found.rows == limit) break;
            code = rows_->next(rows_);
        }
        if (code != WT_NOTFOUND) must(code);
        must(rows_->reset(rows_));
        return found;
    }

    std::uint64_t counter(std::uint64_t number) override {
        const auto bytes = RowKey{number, 0}.bytes();
        set_key(counters_, bytes);
        const int code = counters_->search(counters_);
        if (code == WT_NOTFOUND) return 0;
        must(code);
        WT_ITEM value{};
        must(counters_->get_value(counters_, &value));
        std::uint64_t count = 0;
        std::memcpy(&count, value.data, sizeof count);
        must(counters_->reset(counters_));
        return count;
    }

  protected:
    void commit(std::span<const Write> group) override {
        if (group.front().kind == Write::Kind::kAdd) {
            const CounterLocks::Held held(counter_locks_, group);
            while (!try_commit(group)) {
            }
            return;
        }
        while (!try_commit(group)) {
        }
    }

  private:
    static void set_key(WT_CURSOR* cursor, const std::array<char, 16>& bytes) {
        WT_ITEM key{};
        key.data = bytes.data();
        key.size = bytes.size();
        cursor->set_key(cursor, &key);
    }

    // False when another thread's update of one of the rows, not yet committed, was in the way:
    // rows that YCSB updates are hot. Nothing is done then.
    bool try_commit(std::span<const Write> group) {
        must(session_->begin_transaction(session_, nullptr));
        for (const Write& write : group) {
            if (put(write)) continue;
            must(session_->rollback_transaction(session_, nullptr));
            return false;
        }
        must(session_->commit_transaction(session_, commit_));
        return true;
    }

    bool put(const Write& write) {
        const bool add = write.kind == Write::Kind::kAdd;
        WT_CURSOR* cursor = add ? counters_ : rows_;
        const std::uint64_t sum = add ? counter(write.key.entity) + write.word : 0;
        if (!add) fill_value(row_.data(), write.word);
        const auto bytes = write.key.bytes();
        WT_ITEM value{};
        value.data = add ? static_cast<const void*>(&sum) : row_.data();
        value.size = add ? sizeof sum : row_.size();
        set_key(cursor, bytes);
        cursor->set_value(cursor, &value);
        const int code = cursor->insert(cursor);
        if (code == WT_ROLLBACK) return false;
        must(code);
        return true;
    }

    void add_row(const WT_ITEM& key, Found& found) {
        WT_ITEM value{};
        must(rows_->get_value(rows_, &value));
        std::uint64_t time = 0;
        std::uint64_t word = 0;
        std::memcpy(&time, static_cast<const char*>(key.data) + 8, sizeof time);
        std::memcpy(&word, value.data, sizeof word);
        found.sum += __builtin_bswap64(time) + word;
        ++found.rows;
    }

    CounterLocks& counter_locks_;
    const char* commit_;
    WT_SESSION* session_ = nullptr;
    WT_CURSOR* rows_ = nullptr;
    WT_CURSOR* counters_ = nullptr;
    std::array<char, kValueBytes> row_{};
};

class Wired : public Engine {
  public:
    explicit Wired(const EngineOptions& options) : Engine(options) {}
    ~Wired() override { disconnect(); }
    void start() override {}

    void connect() override {
        const std::string config =
            "create,session_max=512,cache_size=" + std::to_string(options().memory_bytes >> 20) +
            "MB,eviction_dirty_target=95,eviction_dirty_trigger=99,"
            "log=(enabled=true,prealloc=true,file_max=64MB),checkpoint=(wait=60)";
        must(::wiredtiger_open(options().directory.c_str(), nullptr, config.c_str(), &connection_));
        WT_SESSION* session = nullptr;
        must(connection_->open_session(connection_, nullptr, nullptr, &session));
        // Pages of 32 KiB, its default, split in memory as they grow.
        must(session->create(session, "table:rows", "key_format=u,value_format=u"));
        must(session->create(session, "table:counters", "key_format=u,value_format=u"));
        must(session->close(session, nullptr));
    }
    void disconnect() override {
        if (connection_ == nullptr) return;
        must(connection_->close(connection_, "leak_memory=true"));
        connection_ = nullptr;
    }
    std::unique_ptr<Session> session(const SessionOptions& options) override {
        return std::make_unique<WiredSession>(connection_, counter_locks_, options);
    }
    void settle() override {
        WT_SESSION* session = nullptr;
        must(connection_->open_session(connection_, nullptr, nullptr, &session));
        must(session->checkpoint(session, nullptr));
        must(session->close(session, nullptr));
    }

  private:
    WT_CONNECTION* connection_ = nullptr;
    CounterLocks counter_locks_;
};

}  // namespace

std::unique_ptr<Engine> make_wiredtiger(const EngineOptions& options) {
    return std::make_unique<Wired>(options);
}

}  // namespace bench
