// What a store has to do to be measured by bidstore-bench: bidstore and its peers, one
// compare_<engine>.cc each.
//
// Who:    the runner of one engine (compare_run.h), in a process of its own. An Engine belongs to
//         the process that made it; a Session to one thread.
// Errors: whatever fails ends the process with the engine's own words.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/rows.h"

namespace bench {

struct RowKey {
    std::uint64_t entity;
    std::uint64_t time;

    // Big-endian, so that engines that compare bytes have them in this order.
    std::array<char, 16> bytes() const {
        const std::uint64_t words[2] = {__builtin_bswap64(entity), __builtin_bswap64(time)};
        std::array<char, 16> bytes;
        std::memcpy(bytes.data(), words, sizeof words);
        return bytes;
    }
};

// A row whose value is this word again and again, or an add to a counter.
struct Write {
    enum class Kind { kRow, kAdd };
    Kind kind;
    RowKey key;          // of a counter: its number, 0
    std::uint64_t word;  // of a counter: what is added
};

struct Found {
    std::uint64_t rows = 0;
    std::uint64_t sum = 0;
};

struct SessionOptions {
    bool sync;            // a write is acknowledged when it is on disk
    std::uint32_t depth;  // writes that may be under way without their acknowledgement
};

// One thread's use of an engine. What is read is summed: of a get every word of the value, of a
// scan the time and the value's first word of every row.
class Session {
  public:
    virtual ~Session() = default;
    virtual Found get(const RowKey& key) = 0;
    virtual Found multi_get(std::span<const RowKey> keys) = 0;
    virtual Found scan_newest(std::uint64_t entity, std::uint64_t limit) = 0;
    virtual Found scan_from(const RowKey& key, std::uint64_t limit) = 0;
    virtual std::uint64_t counter(std::uint64_t number) = 0;
    // Hands it over. With a depth of 1 it is acknowledged when this returns.
    virtual void submit(const Write& write) = 0;
    // How many writes, the oldest first, were acknowledged since it was asked last; with `wait` at
    // least one, if any is under way.
    virtual std::size_t acknowledged(bool wait) = 0;
};

// Of an engine without asynchronous writes: so many of them as may be under way are one transaction
// of its own, its only way to profit from a caller who does not wait for each.
class GroupedSession : public Session {
  public:
    explicit GroupedSession(std::uint32_t depth) : depth_(depth) { group_.reserve(depth); }
    void submit(const Write& write) final {
        group_.push_back(write);
        if (group_.size() >= depth_) flush();
    }
    std::size_t acknowledged(bool wait) final {
        if (wait && acknowledged_ == 0 && !group_.empty()) flush();
        return std::exchange(acknowledged_, 0);
    }

  protected:
    virtual void commit(std::span<const Write> group) = 0;

  private:
    void flush() {
        commit(group_);
        acknowledged_ += group_.size();
        group_.clear();
    }
    std::uint32_t depth_;
    std::vector<Write> group_;
    std::size_t acknowledged_ = 0;
};

inline constexpr std::uint64_t kCounters = 1'000;

// For engines that cannot add: a thread holds the counters of its group while it reads and writes
// them, until they are durable. In the order of their numbers, so that nobody waits in a circle.
class CounterLocks {
  public:
    class Held {
      public:
        Held(CounterLocks& locks, std::span<const Write> group) {
            std::vector<std::uint64_t> numbers;
            for (const Write& write : group) numbers.push_back(write.key.entity);
            std::sort(numbers.begin(), numbers.end());
            numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
            for (const std::uint64_t number : numbers) {
                locks_.emplace_back(locks.locks_[number % kCounters]);
            }
        }

      private:
        std::vector<std::unique_lock<std::mutex>> locks_;
    };

  private:
    std::array<std::mutex, kCounters> locks_;
};

struct EngineOptions {
    std::string directory;       // of its own, empty
    std::string binaries;        // where bidstored is
    Shape shape;                 // of what is loaded
    std::uint64_t memory_bytes;  // for caches, pools and maps: all rows stay in memory
    std::uint64_t disk_bytes;    // the file may grow to
};

class Engine {
  public:
    virtual ~Engine() = default;
    // A server, where there is one, and the empty store.
    virtual void start() = 0;
    // Processes that work for it, and whose time and memory count.
    virtual std::vector<pid_t> servers() const { return {}; }
    // Whether several processes may use it at once.
    virtual bool many_processes() const { return false; }
    // In each process that makes sessions; disconnect ends all that a fork must not copy.
    virtual void connect() = 0;
    virtual void disconnect() = 0;
    virtual std::unique_ptr<Session> session(const SessionOptions& options) = 0;
    // All rows of the shape, in the order of their keys unless the engine has a better way (copying
    // a page for each row, LMDB takes minutes for them in the order of time); the counters at 0.
    virtual void load();
    // What the engine recommends after a load: compaction, a checkpoint.
    virtual void settle() {}

  protected:
    explicit Engine(EngineOptions options) : options_(std::move(options)) {}
    const EngineOptions& options() const { return options_; }

  private:
    EngineOptions options_;
};

// By the names of --engines.
std::unique_ptr<Engine> make_bidstore(const EngineOptions& options);
std::unique_ptr<Engine> make_leveldb(const EngineOptions& options);
std::unique_ptr<Engine> make_lmdb(const EngineOptions& options);
std::unique_ptr<Engine> make_redis(const EngineOptions& options);
std::unique_ptr<Engine> make_rocksdb(const EngineOptions& options);
std::unique_ptr<Engine> make_sqlite(const EngineOptions& options);
std::unique_ptr<Engine> make_wiredtiger(const EngineOptions& options);

// Starts a program that dies with this process, its output in `log`.
pid_t start_server(const std::vector<std::string>& command, const std::string& log);
// Ends it, waits until it is gone.
void end_server(pid_t server);

}  // namespace bench
