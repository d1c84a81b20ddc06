// SQLite 3.40, tuned:
//   - WITHOUT ROWID: a row is found in one tree by its key; WAL, so that readers and the writer do
//     not wait for each other;
//   - the file mapped as far as it allows (mmap_size, 2 GiB), pages of 4 KiB, a connection and its
//   prepared statements
//     for each thread, opened without SQLite's own locks (NOMUTEX);
//   - one lock around writers of a process: SQLite has one writer at a time and makes the others
//     sleep for milliseconds, which a lock does not;
//   - multi_get is one transaction of gets.
// With sync 1: synchronous=FULL, the WAL is on disk at each commit; with sync 0: synchronous=OFF.
#include <sqlite3.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include "bench/compare_engine.h"
#include "bench/measure.h"

namespace bench {
namespace {

class Connection {
  public:
    explicit Connection(const std::string& path) {
        const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
        must(::sqlite3_open_v2(path.c_str(), &raw_, flags, nullptr));
        must(::sqlite3_busy_timeout(raw_, 60'000));
    }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection() { ::sqlite3_close(raw_); }

    void must(int code) const {
        if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW) return;
        fail(std::string("SQLite: ") + ::sqlite3_errmsg(raw_));
    }
    void run(const std::string& statement) const {
        must(::sqlite3_exec(raw_, statement.c_str(), nullptr, nullptr, nullptr));
    }
    sqlite3* raw() const { return raw_; }

  private:
    sqlite3* raw_ = nullptr;
};

class Statement {
  public:
    Statement(const Connection& connection, const char* text) : connection_(connection) {
        connection.must(::sqlite3_prepare_v3(connection.raw(), text, -1, SQLITE_PREPARE_PERSISTENT,
                                             &raw_, nullptr));
    }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    ~Statement() { ::sqlite3_finalize(raw_); }

    Statement& bind(int at, const void* bytes, std::size_t size) {
        connection_.must(
            ::sqlite3_bind_blob(raw_, at, bytes, static_cast<int>(size), SQLITE_STATIC));
        return *this;
    }
    Statement& bind(int at, std::uint64_t number) {
        connection_.must(::sqlite3_bind_int64(raw_, at, static_cast<sqlite3_int64>(number)));
        return *this;
    }
    bool step() {
        const int code = ::sqlite3_step(raw_);
        connection_.must(code);
        return code == SQLITE_ROW;
    }
    void run() {
        step();
        reset();
    }
    void reset() { connection_.must(::sqlite3_reset(raw_)); }
    const char* blob(int at) { return static_cast<const char*>(::sqlite3_column_blob(raw_, at)); }
    std::uint64_t number(int at) {
        return static_cast<std::uint64_t>(::sqlite3_column_int64(raw_, at));
    }

  private:
    const Connection& connection_;
    sqlite3_stmt* raw_ = nullptr;
};

class SqliteSession : public GroupedSession {
  public:
    SqliteSession(const std::string& path, std::uint64_t map_bytes, std::mutex& writer_lock,
                  const SessionOptions& options)
        : GroupedSession(options.depth), writer_lock_(writer_lock), connection_(path) {
        connection_.run("PRAGMA mmap_size=" + std::to_string(map_bytes));
        connection_.run(options.sync ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF");
        connection_.run("PRAGMA temp_store=MEMORY");
    }

    Found get(const RowKey& key) override {
        const auto bytes = key.bytes();
        get_.bind(1, bytes.data(), bytes.size());
        Found found;
        if (get_.step()) found = {1, sum_of(get_.blob(0))};
        get_.reset();
        return found;
    }

    Found multi_get(std::span<const RowKey> keys) override {
        begin_read_.run();
        Found all;
        for (const RowKey& key : keys) {
            const Found one = get(key);
            all.rows += one.rows;
            all.sum += one.sum;
        }
        commit_.run();
        return all;
    }

    Found scan_newest(std::uint64_t entity, std::uint64_t limit) override {
        const auto first = RowKey{entity, 0}.bytes();
        const auto after = RowKey{entity + 1, 0}.bytes();
        newest_.bind(1, first.data(), first.size()).bind(2, after.data(), after.size());
        return sum_rows(newest_.bind(3, limit));
    }

    Found scan_from(const RowKey& key, std::uint64_t limit) override {
        const auto bytes = key.bytes();
        from_.bind(1, bytes.data(), bytes.size());
        return sum_rows(from_.bind(2, limit));
    }

    std::uint64_t counter(std::uint64_t number) override {
        counter_.bind(1, number);
        const std::uint64_t count = counter_.step() ? counter_.number(0) : 0;
        counter_.reset();
        return count;
    }

  protected:
    void commit(std::span<const Write> group) override {
        const std::scoped_lock lock(writer_lock_);
        begin_write_.run();
        for (const Write& write : group) {
            if (write.kind == Write::Kind::kAdd) {
                add_.bind(1, write.key.entity).bind(2, write.word).run();
                continue;
            }
            const auto bytes = write.key.bytes();
            fill_value(row_.data(), write.word);
            put_.bind(1, bytes.data(), bytes.size()).bind(2, row_.data(), row_.size()).run();
        }
        commit_.run();
    }

  private:
    static Found sum_rows(Statement& statement) {
        Found found;
        for (; statement.step(); ++found.rows) {
            std::uint64_t time = 0;
            std::uint64_t word = 0;
            std::memcpy(&time, statement.blob(0) + 8, sizeof time);
            std::memcpy(&word, statement.blob(1), sizeof word);
            found.sum += __builtin_bswap64(time) + word;
        }
        statement.reset();
        return found;
    }

    std::mutex& writer_lock_;
    Connection connection_;
    Statement get_{connection_, "SELECT v FROM rows WHERE k = ?1"};
    Statement newest_{connection_,
                      "SELECT k, v FROM rows WHERE k >= ?1 AND k < ?2 ORDER BY k DESC LIMIT ?3"};
    Statement from_{connection_, "SELECT k, v FROM rows WHERE k >= ?1 ORDER BY k LIMIT ?2"};
    Statement put_{connection_, "INSERT OR REPLACE INTO rows VALUES (?1, ?2)"};
    Statement counter_{connection_, "SELECT n FROM counters WHERE k = ?1"};
    Statement add_{connection_,
                   "INSERT INTO counters VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = n + ?2"};
    Statement begin_read_{connection_, "BEGIN"};
    Statement begin_write_{connection_, "BEGIN IMMEDIATE"};
    Statement commit_{connection_, "COMMIT"};
    std::array<char, kValueBytes> row_{};
};

class Sqlite : public Engine {
  public:
    explicit Sqlite(const EngineOptions& options)
        : Engine(options), path_(options.directory + "/data") {}
    bool many_processes() const override { return true; }

    void start() override {
        const Connection connection(path_);
        connection.run("PRAGMA page_size=4096");
        connection.run("PRAGMA journal_mode=WAL");
        connection.run("CREATE TABLE rows (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID");
        connection.run("CREATE TABLE counters (k INTEGER PRIMARY KEY, n INTEGER)");
    }
    void connect() override {}
    void disconnect() override {}
    std::unique_ptr<Session> session(const SessionOptions& options) override {
        return std::make_unique<SqliteSession>(path_, this->options().disk_bytes, writer_lock_,
                                               options);
    }
    void settle() override {
        const Connection connection(path_);
        connection.run("PRAGMA wal_checkpoint(TRUNCATE)");
    }

  private:
    std::string path_;
    std::mutex writer_lock_;
};

}  // namespace

std::unique_ptr<Engine> make_sqlite(const EngineOptions& options) {
    return std::make_unique<Sqlite>(options);
}

}  // namespace bench
