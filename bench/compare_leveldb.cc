// LevelDB 1.23, tuned for rows that all lie in memory:
//   - bloom filters of 10 bits, no compression, tables of 32 MiB: fewer than the 1,000 that it maps
//     into memory, so that a read copies nothing and needs no block cache (which has 8 MiB for what
//     is not mapped);
//   - compacted fully before the run; memtables of 64 MiB;
//   - it has no multi_get and no merge: keys one by one, and an add is a get and a put under the
//     counter's lock.
// With sync 0 the log is written, not synced.
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/filter_policy.h>
#include <leveldb/options.h>
#include <leveldb/slice.h>
#include <leveldb/write_batch.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "bench/compare_engine.h"
#include "bench/measure.h"

namespace bench {
namespace {

void must(const leveldb::Status& status) {
    if (!status.ok()) fail("LevelDB: " + status.ToString());
}

leveldb::Slice slice(const std::array<char, 16>& bytes) { return {bytes.data(), bytes.size()}; }

struct LevelHandles {
    std::unique_ptr<leveldb::DB> rows;
    std::unique_ptr<leveldb::DB> counters;
    CounterLocks counter_locks;
};

class LevelSession : public GroupedSession {
  public:
    LevelSession(LevelHandles& handles, const SessionOptions& options)
        : GroupedSession(options.depth), handles_(handles) {
        write_options_.sync = options.sync;
    }

    Found get(const RowKey& key) override {
        const auto status = handles_.rows->Get({}, slice(key.bytes()), &value_);
        if (status.IsNotFound()) return {};
        must(status);
        return {1, sum_of(value_.data())};
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
        const std::unique_ptr<leveldb::Iterator> iterator(handles_.rows->NewIterator({}));
        const auto after = RowKey{entity + 1, 0}.bytes();
        const auto first = RowKey{entity, 0}.bytes();
        iterator->Seek(slice(after));
        if (iterator->Valid()) {
            iterator->Prev();
        } else {
            iterator->SeekToLast();
        }
        Found found;
        for (; found.rows < limit && iterator->Valid(); iterator->Prev()) {
            if (std::memcmp(iterator->key().data(), first.data(), 8) != 0) break;
            add_row(*iterator, found);
        }
        must(iterator->status());
        return found;
    }

    Found scan_from(const RowKey& key, std::uint64_t limit) override {
        const std::unique_ptr<leveldb::Iterator> iterator(handles_.rows->NewIterator({}));
        Found found;
        for (iterator->Seek(slice(key.bytes())); found.rows < limit && iterator->Valid();
             iterator->Next()) {
            add_row(*iterator, found);
        }
        must(iterator->status());
        return found;
    }

    std::uint64_t counter(std::uint64_t number) override {
        const auto status = handles_.counters->Get({}, slice(RowKey{number, 0}.bytes()), &value_);
        if (status.IsNotFound()) return 0;
        must(status);
        std::uint64_t count = 0;
        std::memcpy(&count, value_.data(), sizeof count);
        return count;
    }

  protected:
    void commit(std::span<const Write> group) override {
        if (group.front().kind == Write::Kind::kAdd) return commit_adds(group);
        batch_.Clear();
        for (const Write& write : group) {
            fill_value(row_.data(), write.word);
            batch_.Put(slice(write.key.bytes()), {row_.data(), row_.size()});
        }
        must(handles_.rows->Write(write_options_, &batch_));
    }

  private:
    void commit_adds(std::span<const Write> group) {
        const CounterLocks::Held held(handles_.counter_locks, group);
        std::map<std::uint64_t, std::uint64_t> sums;
        for (const Write& write : group) {
            const auto [at, is_new] = sums.try_emplace(write.key.entity, 0);
            if (is_new) at->second = counter(write.key.entity);
            at->second += write.word;
        }
        batch_.Clear();
        for (const auto& [number, sum] : sums) {
            batch_.Put(slice(RowKey{number, 0}.bytes()),
                       {reinterpret_cast<const char*>(&sum), sizeof sum});
        }
        must(handles_.counters->Write(write_options_, &batch_));
    }

    static void add_row(const leveldb::Iterator& iterator, Found& found) {
        std::uint64_t time = 0;
        std::uint64_t word = 0;
        std::memcpy(&time, iterator.key().data() + 8, sizeof time);
        std::memcpy(&word, iterator.value().data(), sizeof word);
        found.sum += __builtin_bswap64(time) + word;
        ++found.rows;
    }

    LevelHandles& handles_;
    leveldb::WriteOptions write_options_;
    leveldb::WriteBatch batch_;
    std::string value_;
    std::array<char, kValueBytes> row_{};
};

class Level : public Engine {
  public:
    explicit Level(const EngineOptions& options)
        : Engine(options), filter_(leveldb::NewBloomFilterPolicy(10)) {}
    ~Level() override { disconnect(); }
    void start() override {}

    void connect() override {
        leveldb::Options wanted;
        wanted.create_if_missing = true;
        wanted.compression = leveldb::kNoCompression;
        wanted.filter_policy = filter_.get();
        wanted.write_buffer_size = std::size_t{64} << 20;
        wanted.max_file_size = std::size_t{32} << 20;
        wanted.max_open_files = 5'000;
        handles_.rows = open(wanted, "/rows");
        handles_.counters = open(wanted, "/counters");
    }
    void disconnect() override {
        handles_.rows.reset();
        handles_.counters.reset();
    }
    std::unique_ptr<Session> session(const SessionOptions& options) override {
        return std::make_unique<LevelSession>(handles_, options);
    }
    void settle() override { handles_.rows->CompactRange(nullptr, nullptr); }

  private:
    std::unique_ptr<leveldb::DB> open(const leveldb::Options& wanted, const char* name) {
        leveldb::DB* raw = nullptr;
        must(leveldb::DB::Open(wanted, options().directory + name, &raw));
        return std::unique_ptr<leveldb::DB>(raw);
    }
    std::unique_ptr<const leveldb::FilterPolicy> filter_;
    LevelHandles handles_;
};

}  // namespace

std::unique_ptr<Engine> make_leveldb(const EngineOptions& options) {
    return std::make_unique<Level>(options);
}

}  // namespace bench
