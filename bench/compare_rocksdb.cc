// RocksDB 7.8, tuned for rows that all lie in memory:
//   - bloom filters of 10 bits, no compression, a hash index in each block: a get looks into one
//     block and searches it little;
//   - HyperClockCache of all memory: its look-ups take no lock, and all blocks stay; index and
//     filter blocks lie outside of it, looked up without it;
//   - compacted fully before the run; memtables of 64 MiB, two background jobs for two cores;
//   - gets into a PinnableSlice (no copy), multi_get by MultiGet, one iterator a thread, refreshed
//     for each scan, which is cheaper than a new one;
//   - counters by its uint64add merge operator: an add reads nothing.
// With sync 0 the log is written, not synced.
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bench/compare_engine.h"
#include "bench/measure.h"

namespace bench {
namespace {

void must(const rocksdb::Status& status) {
    if (!status.ok()) fail("RocksDB: " + status.ToString());
}

rocksdb::Slice slice(const std::array<char, 16>& bytes) { return {bytes.data(), bytes.size()}; }

// The sum of two little-endian words; a missing one is 0.
class AddOperator : public rocksdb::AssociativeMergeOperator {
  public:
    bool Merge(const rocksdb::Slice&, const rocksdb::Slice* before, const rocksdb::Slice& added,
               std::string* after, rocksdb::Logger*) const override {
        std::uint64_t sum = 0;
        std::uint64_t more = 0;
        if (before != nullptr && before->size() == sizeof sum) {
            std::memcpy(&sum, before->data(), sizeof sum);
        }
        if (added.size() != sizeof more) return false;
        std::memcpy(&more, added.data(), sizeof more);
        sum += more;
        after->assign(reinterpret_cast<const char*>(&sum), sizeof sum);
        return true;
    }
    const char* Name() const override { return "bench.Add"; }
};

struct RocksHandles {
    std::unique_ptr<rocksdb::DB> database;
    rocksdb::ColumnFamilyHandle* rows = nullptr;
    rocksdb::ColumnFamilyHandle* counters = nullptr;
};

class RocksSession : public GroupedSession {
  public:
    RocksSession(RocksHandles& handles, const SessionOptions& options)
        : GroupedSession(options.depth), handles_(handles) {
        write_options_.sync = options.sync;
        iterator_.reset(handles_.database->NewIterator(read_options_, handles_.rows));
    }

    Found get(const RowKey& key) override {
        value_.Reset();
        const auto status =
            handles_.database->Get(read_options_, handles_.rows, slice(key.bytes()), &value_);
        if (status.IsNotFound()) return {};
        must(status);
        return {1, sum_of(value_.data())};
    }

    Found multi_get(std::span<const RowKey> keys) override {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys_[i] = keys[i].bytes();
            slices_[i] = slice(keys_[i]);
            values_[i].Reset();
        }
        handles_.database->MultiGet(read_options_, handles_.rows, keys.size(), slices_.data(),
                                    values_.data(), statuses_.data());
        Found all;
        for (std::size_t i = 0; i < keys.size(); ++i) {
            if (statuses_[i].IsNotFound()) continue;
            must(statuses_[i]);
            ++all.rows;
            all.sum += sum_of(values_[i].data());
        }
        return all;
    }

    Found scan_newest(std::uint64_t entity, std::uint64_t limit) override {
        must(iterator_->Refresh());
        const auto last = RowKey{entity, ~std::uint64_t{0}}.bytes();
        Found found;
        for (iterator_->SeekForPrev(slice(last)); found.rows < limit && iterator_->Valid();
             iterator_->Prev()) {
            if (std::memcmp(iterator_->key().data(), last.data(), 8) != 0) break;
            add_row(found);
        }
        must(iterator_->status());
        return found;
    }

    Found scan_from(const RowKey& key, std::uint64_t limit) override {
        must(iterator_->Refresh());
        Found found;
        for (iterator_->Seek(slice(key.bytes())); found.rows < limit && iterator_->Valid();
             iterator_->Next()) {
            add_row(found);
        }
        must(iterator_->status());
        return found;
    }

    std::uint64_t counter(std::uint64_t number) override {
        std::string value;
        must(handles_.database->Get(read_options_, handles_.counters,
                                    slice(RowKey{number, 0}.bytes()), &value));
        std::uint64_t count = 0;
        std::memcpy(&count, value.data(), sizeof count);
        return count;
    }

  protected:
    void commit(std::span<const Write> group) override {
        batch_.Clear();
        for (const Write& write : group) {
            const auto key = write.key.bytes();
            if (write.kind == Write::Kind::kAdd) {
                const rocksdb::Slice added(reinterpret_cast<const char*>(&write.word),
                                           sizeof write.word);
                must(batch_.Merge(handles_.counters, slice(key), added));
            } else {
                fill_value(row_.data(), write.word);
                must(batch_.Put(handles_.rows, slice(key), {row_.data(), row_.size()}));
            }
        }
        must(handles_.database->Write(write_options_, &batch_));
    }

  private:
    void add_row(Found& found) {
        std::uint64_t time = 0;
        std::uint64_t word = 0;
        std::memcpy(&time, iterator_->key().data() + 8, sizeof time);
        std::memcpy(&word, iterator_->value().data(), sizeof word);
        found.sum += __builtin_bswap64(time) + word;
        ++found.rows;
    }

    RocksHandles& handles_;
    rocksdb::ReadOptions read_options_;
    rocksdb::WriteOptions write_options_;
    rocksdb::WriteBatch batch_;
    rocksdb::PinnableSlice value_;
    std::unique_ptr<rocksdb::Iterator> iterator_;
    std::array<char, kValueBytes> row_{};
    std::array<std::array<char, 16>, kKeysTogether> keys_{};
    std::array<rocksdb::Slice, kKeysTogether> slices_;
    std::array<rocksdb::PinnableSlice, kKeysTogether> values_;
    std::array<rocksdb::Status, kKeysTogether> statuses_;
};

class Rocks : public Engine {
  public:
    explicit Rocks(const EngineOptions& options) : Engine(options) {}
    ~Rocks() override { disconnect(); }
    void start() override {}

    void connect() override {
        rocksdb::BlockBasedTableOptions table;
        table.block_cache =
            rocksdb::HyperClockCacheOptions(options().memory_bytes, table.block_size)
                .MakeSharedCache();
        table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
        table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
        rocksdb::DBOptions database;
        database.create_if_missing = true;
        database.create_missing_column_families = true;
        database.max_background_jobs = 2;
        database.max_open_files = -1;
        rocksdb::ColumnFamilyOptions family;
        family.compression = rocksdb::kNoCompression;
        family.write_buffer_size = std::size_t{64} << 20;
        family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
        rocksdb::ColumnFamilyOptions counters = family;
        counters.merge_operator = std::make_shared<AddOperator>();
        std::vector<rocksdb::ColumnFamilyHandle*> opened;
        rocksdb::DB* raw = nullptr;
        must(rocksdb::DB::Open(
            database, options().directory + "/db",
            {{rocksdb::kDefaultColumnFamilyName, family}, {"counters", counters}}, &opened, &raw));
        handles_ = {std::unique_ptr<rocksdb::DB>(raw), opened[0], opened[1]};
    }
    void disconnect() override {
        if (!handles_.database) return;
        must(handles_.database->DestroyColumnFamilyHandle(handles_.rows));
        must(handles_.database->DestroyColumnFamilyHandle(handles_.counters));
        must(handles_.database->Close());
        handles_.database.reset();
    }
    std::unique_ptr<Session> session(const SessionOptions& options) override {
        return std::make_unique<RocksSession>(handles_, options);
    }
    void settle() override {
        must(handles_.database->Flush(rocksdb::FlushOptions(), {handles_.rows, handles_.counters}));
        must(handles_.database->CompactRange({}, handles_.rows, nullptr, nullptr));
    }

  private:
    RocksHandles handles_;
};

}  // namespace

std::unique_ptr<Engine> make_rocksdb(const EngineOptions& options) {
    return std::make_unique<Rocks>(options);
}

}  // namespace bench
