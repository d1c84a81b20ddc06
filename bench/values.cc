// The workload `values` of bench/run.sh: puts, reads, replacements and deletes of values of one
// size after another, each waited for, in bidstore or, beside it, in RocksDB with blob files and a
// synced log. One line of results for each size and operation:
//
//   STORE BYTES OPERATION COUNT SECONDS P50_US P99_US
//
// Read: in place in both (PinnableSlice), a byte of each cache line looked at; all that is read is
// in memory, in the pool and in RocksDB's blob cache. All rows have keys of 8 bytes.
#include <benchmark/benchmark.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "bench/client.h"
#include "bench/measure.h"
#include "clientlib/bidstore.h"

namespace bench {

struct Document {
    std::uint64_t id = 0;
    std::string_view body;
};

}  // namespace bench

template <>
struct bidstore::Describe<bench::Document> {
    static constexpr auto table =
        bidstore::table<bench::Document>("documents", keys(column<&bench::Document::id>("id")),
                                         values(column<&bench::Document::body>("body", bytes)));
};

namespace bench {
namespace {

constexpr std::size_t kSizes[] = {4u << 10, 16u << 10, 64u << 10, 256u << 10, 1u << 20};

struct Options {
    std::string store;
    std::string socket;
    std::string directory;
    std::string results;
    std::uint64_t mib = 128;  // of values of each size, at most kCountMost of them
};
constexpr std::uint64_t kCountMost = 4'000;

void look_at(const void* bytes, std::size_t length) {
    const auto* from = static_cast<const unsigned char*>(bytes);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < length; i += 64) sum += from[i];
    benchmark::DoNotOptimize(sum);
}

class ValueStore {
  public:
    virtual ~ValueStore() = default;
    virtual void put(std::uint64_t id, std::string_view value) = 0;
    virtual void read(std::uint64_t id, std::size_t length) = 0;
    virtual void erase(std::uint64_t id) = 0;
};

class OurStore final : public ValueStore {
  public:
    explicit OurStore(const Options& options)
        : store_(attach(options.socket, bidstore::Rights::kAdmin)),
          reader_(must(store_.reader())),
          table_(make_table(store_)) {}

    void put(std::uint64_t id, std::string_view value) override {
        bidstore::Transaction transaction;
        transaction.put(table_, {.id = id, .body = value});
        commit(transaction);
    }
    // A snapshot of 5 s at most, taken again when it expired: as bidders do.
    void read(std::uint64_t id, std::size_t length) override {
        for (;;) {
            const auto snapshot = must(reader_.snapshot(bidstore::in(kPatience)));
            const auto row = must(table_.peek(snapshot, id));
            if (!row) fail("a value is not there");
            const auto value = must(row->large<&Document::body>());
            if (value.size() != length) fail("a value has a wrong length");
            for (const auto& span : value.spans()) look_at(span.data(), span.size());
            if (snapshot.valid()) return;
        }
    }
    void erase(std::uint64_t id) override {
        bidstore::Transaction transaction;
        transaction.erase(table_, table_.key(id));
        commit(transaction);
    }

  private:
    static bidstore::Table<Document> make_table(bidstore::Store& store) {
        must(store.create_table<Document>(bidstore::in(kPatience)));
        return must(store.open<Document>(bidstore::in(kPatience)));
    }
    void commit(const bidstore::Transaction& transaction) {
        must(store_.commit(transaction, bidstore::in(kPatience)));
    }
    bidstore::Store store_;
    bidstore::Reader reader_;
    bidstore::Table<Document> table_;
};

void must_rocksdb(const rocksdb::Status& status) {
    if (!status.ok()) fail("RocksDB: " + status.ToString());
}

class RocksStore final : public ValueStore {
  public:
    explicit RocksStore(const Options& options) {
        rocksdb::Options database;
        database.create_if_missing = true;
        database.error_if_exists = true;
        database.compression = rocksdb::kNoCompression;
        database.enable_blob_files = true;
        database.min_blob_size = 512;
        database.enable_blob_garbage_collection = true;
        database.blob_cache = rocksdb::NewLRUCache(std::size_t{1} << 30);
        rocksdb::DB* opened = nullptr;
        must_rocksdb(rocksdb::DB::Open(database, options.directory, &opened));
        database_.reset(opened);
        synced_.sync = true;
    }

    void put(std::uint64_t id, std::string_view value) override {
        must_rocksdb(database_->Put(synced_, key(id), {value.data(), value.size()}));
    }
    void read(std::uint64_t id, std::size_t length) override {
        rocksdb::PinnableSlice value;
        must_rocksdb(database_->Get({}, database_->DefaultColumnFamily(), key(id), &value));
        if (value.size() != length) fail("a value has a wrong length");
        look_at(value.data(), value.size());
    }
    void erase(std::uint64_t id) override { must_rocksdb(database_->Delete(synced_, key(id))); }

  private:
    rocksdb::Slice key(std::uint64_t id) {
        id_ = __builtin_bswap64(id);
        return {static_cast<const char*>(static_cast<const void*>(&id_)), sizeof id_};
    }
    std::unique_ptr<rocksdb::DB> database_;
    rocksdb::WriteOptions synced_;
    std::uint64_t id_ = 0;
};

class Run {
  public:
    Run(const Options& options, ValueStore& store)
        : options_(options), store_(store), results_(options.results, std::ios::app) {}

    void size(std::size_t bytes) {
        const std::uint64_t count = std::min(kCountMost, (options_.mib << 20) / bytes);
        std::string value(bytes, '\0');
        const auto fill = [&](std::uint64_t id) {
            for (std::size_t i = 0; i + 8 <= bytes; i += 512) std::memcpy(&value[i], &id, 8);
        };
        Random random(bytes);
        const auto any = [&](std::uint64_t) { return random.below(count); };
        const auto next = [](std::uint64_t i) { return i; };
        const auto put = [&](std::uint64_t id) { store_.put(id, value); };
        const auto read = [&](std::uint64_t id) { store_.read(id, bytes); };
        measure(bytes, "put", count, next, fill, put);
        for (std::uint64_t id = 0; id < count; ++id) read(id);  // into memory
        measure(
            bytes, "read", count, any, [](auto) {}, read);
        measure(
            bytes, "replace", count, any, [&](auto id) { fill(id + 1); }, put);
        measure(
            bytes, "delete", count, next, [](auto) {}, [&](auto id) { store_.erase(id); });
    }

  private:
    template <class Pick, class Prepare, class Do>
    void measure(std::size_t bytes, const char* operation, std::uint64_t count, Pick pick,
                 Prepare prepare, Do work) {
        std::vector<std::uint32_t> samples;
        std::uint64_t total = 0;
        for (std::uint64_t i = 0; i < count; ++i) {
            const std::uint64_t id = pick(i);
            prepare(id);
            const std::uint64_t begin = now_ns();
            work(id);
            const std::uint64_t took = now_ns() - begin;
            total += took;
            samples.push_back(static_cast<std::uint32_t>(took));
        }
        results_ << options_.store << ' ' << bytes << ' ' << operation << ' ' << count << ' '
                 << static_cast<double>(total) / 1e9 << ' ' << quantile_us(samples, 0.5) << ' '
                 << quantile_us(samples, 0.99) << '\n';
        if (!results_.flush()) fail("--results " + options_.results + ": cannot be written");
    }

    const Options& options_;
    ValueStore& store_;
    std::ofstream results_;
};

}  // namespace
}  // namespace bench

int main(int argument_count, char** arguments) {
    bench::Options options;
    CLI::App app("Puts, reads, replaces and deletes values. See bench/README.md.");
    app.add_option("--store", options.store)
        ->required()
        ->check(CLI::IsMember({"bidstore", "rocksdb"}));
    app.add_option("--socket", options.socket, "of the daemon")->envname("BIDSTORE_SOCKET");
    app.add_option("--directory", options.directory, "of RocksDB's new database");
    app.add_option("--results", options.results, "file for the values measured")->required();
    app.add_option("--mib", options.mib, "of values of each size")->check(CLI::Range(1, 1024));
    CLI11_PARSE(app, argument_count, arguments);
    std::unique_ptr<bench::ValueStore> store;
    if (options.store == "bidstore")
        store = std::make_unique<bench::OurStore>(options);
    else
        store = std::make_unique<bench::RocksStore>(options);
    bench::Run run(options, *store);
    for (const std::size_t bytes : bench::kSizes) run.size(bytes);
    return EXIT_SUCCESS;
}
