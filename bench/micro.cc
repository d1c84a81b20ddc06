// The hot pieces one by one, by Google Benchmark, so that a slower get or commit has an address.
//
//   bench_micro [--benchmark_filter=Leaf]
//
// `near`: on one page or some buckets, in the processor's cache: the instructions. `far`: on pages
// or buckets picked at random out of 256 MiB: the cache misses.
#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "bench/measure.h"
#include "bench/rows.h"
#include "engine/inner_edit.h"
#include "engine/leaf_edit.h"
#include "engine/page/inner.h"
#include "engine/page/leaf.h"
#include "engine/page/page.h"
#include "engine/page/schema.h"
#include "shm/key_directory.h"
#include "shm/layout.h"
#include "shm/reader_slot.h"
#include "shm/ring.h"

namespace bench {
namespace {

using bidstore::kPageBytes;

constexpr std::size_t kKeyBytes = 16;
constexpr std::size_t kFarPages = (std::size_t{256} << 20) / kPageBytes;

std::array<std::byte, kKeyBytes> key_of(std::uint64_t high, std::uint64_t low) {
    const std::uint64_t words[2] = {__builtin_bswap64(high), __builtin_bswap64(low)};
    std::array<std::byte, kKeyBytes> key;
    std::memcpy(key.data(), words, sizeof words);
    return key;
}

// Equal pages one after another: one of them, or more than the cache holds.
class Pages {
  public:
    Pages(std::size_t count, const std::byte* page)
        : count_(count),
          bytes_(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, count * kPageBytes))) {
        if (bytes_ == nullptr) fail("no memory for the pages");
        for (std::size_t i = 0; i < count; ++i) std::memcpy(at(i), page, kPageBytes);
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    ~Pages() { std::free(bytes_); }
    std::byte* at(std::size_t index) { return bytes_ + index * kPageBytes; }
    std::byte* any(Random& random) { return at(random.below(count_)); }

  private:
    std::size_t count_;
    std::byte* bytes_;
};

struct alignas(kPageBytes) Page {
    std::byte bytes[kPageBytes]{};
};

std::size_t pages_of(const benchmark::State& state) { return state.range(0) == 0 ? 1 : kFarPages; }

bidstore::Schema schema() {
    using bidstore::ColumnType;
    auto made = bidstore::Schema::make(
        "t", {{"k", ColumnType::kFixed, kKeyBytes}, {"v", ColumnType::kFixed, kValueBytes}}, 1);
    if (!made.ok()) fail(made.failure().what);
    return *made;
}

// ---- reading ------------------------------------------------------------------------------------

void announce(benchmark::State& state) {
    bidstore::ReaderSlot slot{};
    bidstore::Published published{};
    bidstore::RevokedEntry revoked{};
    published.visible.store(1);
    bidstore::SlotOwner owner(slot, published, revoked);
    for (auto _ : state) {
        benchmark::DoNotOptimize(owner.begin());
        benchmark::DoNotOptimize(owner.valid());
        owner.end();
    }
}
BENCHMARK(announce);

// Buckets two thirds full, as those of a pool that is sized for its rows.
class Directory {
  public:
    explicit Directory(std::uint64_t bucket_count)
        : keys_(bucket_count * bidstore::kBucketEntries * 2 / 3),
          buckets_(std::make_unique<bidstore::DirectoryBucket[]>(bucket_count)),
          view_(buckets_.get(), bucket_count) {
        bidstore::KeyDirectoryWriter writer(buckets_.get(), bucket_count, nullptr, 0);
        for (std::uint64_t i = 0; i < keys_; ++i) {
            writer.enter(kTable, key_of(i, i).data(), kKeyBytes, leaf_of(i), 0);
        }
        writer.settle();
    }
    // Whether the leaf of a key at random is found: nearly always.
    bool probe(Random& random) const {
        const std::uint64_t i = random.below(keys_);
        const auto place = view_.aim(kTable, key_of(i, i).data(), kKeyBytes);
        return view_.find(place).leaf == leaf_of(i);
    }

  private:
    static constexpr bidstore::TableId kTable{7};
    static bidstore::PageId leaf_of(std::uint64_t key) {
        return bidstore::PageId{static_cast<std::uint32_t>(key / 14 + 1)};
    }

    std::uint64_t keys_;
    std::unique_ptr<bidstore::DirectoryBucket[]> buckets_;
    bidstore::KeyDirectory view_;
};

void directory_probe(benchmark::State& state) {
    const std::uint64_t far = (std::uint64_t{256} << 20) / sizeof(bidstore::DirectoryBucket);
    const Directory directory(state.range(0) == 0 ? 64 : far);
    Random random(1);
    std::int64_t found = 0;
    for (auto _ : state) found += directory.probe(random) ? 1 : 0;
    if (found < state.iterations() / 10 * 9) fail("the directory lost keys");
}
BENCHMARK(directory_probe)->ArgName("far")->Arg(0)->Arg(1);

void leaf_search(benchmark::State& state) {
    const bidstore::Schema table = schema();
    const auto layout = bidstore::LeafLayout::of(table);
    Page page;
    bidstore::LeafEdit edit(page.bytes, layout, table);
    edit.init();
    const std::array<std::byte, kValueBytes> value{};
    std::uint32_t rows = 0;
    for (; edit.fits(kValueBytes); ++rows) edit.insert(rows, key_of(7, rows * 2).data(), value);
    Pages pages(pages_of(state), page.bytes);
    Random random(1);
    for (auto _ : state) {
        const bidstore::LeafView leaf(pages.any(random), layout);
        const int row = leaf.find(key_of(7, random.below(rows) * 2).data());
        benchmark::DoNotOptimize(sum_of(leaf.value(static_cast<std::uint32_t>(row)).data()));
    }
}
BENCHMARK(leaf_search)->ArgName("far")->Arg(0)->Arg(1);

void inner_search(benchmark::State& state) {
    const auto layout = bidstore::InnerLayout::of(kKeyBytes);
    Page page;
    bidstore::InnerEdit edit(page.bytes, layout);
    edit.init(1);
    std::uint32_t children = 0;
    for (; !edit.full(); ++children) {
        edit.insert(children, key_of(children / 4, children).data(),
                    bidstore::PageId{children + 10});
    }
    Pages pages(pages_of(state), page.bytes);
    Random random(1);
    for (auto _ : state) {
        const bidstore::InnerView node(pages.any(random), layout);
        const std::uint64_t child = random.below(children);
        benchmark::DoNotOptimize(node.child_for(key_of(child / 4, child).data()));
    }
}
BENCHMARK(inner_search)->ArgName("far")->Arg(0)->Arg(1);

// ---- writing ------------------------------------------------------------------------------------

void page_crc(benchmark::State& state) {
    const Page page;
    Pages pages(pages_of(state), page.bytes);
    Random random(1);
    for (auto _ : state) benchmark::DoNotOptimize(bidstore::page_crc(pages.any(random)));
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * kPageBytes));
}
BENCHMARK(page_crc)->ArgName("far")->Arg(0)->Arg(1);

// A page into another frame: what a commit pays for the first change of a page.
void page_copy(benchmark::State& state) {
    const Page page;
    Pages pages(kFarPages, page.bytes);
    Random random(1);
    for (auto _ : state) {
        std::byte* to = pages.any(random);
        std::memcpy(to, pages.any(random), kPageBytes);
        benchmark::DoNotOptimize(*to);
    }
}
BENCHMARK(page_copy);

// A row of 16 + 256 bytes, by one thread and without a wake: claim, copy, commit, take.
void ring(benchmark::State& state) {
    constexpr std::uint32_t kRingBytes = 1 << 20;
    bidstore::RingControl control{};
    std::vector<std::byte> memory(kRingBytes + 64);
    void* at = memory.data();
    std::size_t room = memory.size();
    auto* bytes = static_cast<std::byte*>(std::align(64, kRingBytes, at, room));
    bidstore::init_ring(control, 0);
    bidstore::RingProducer producer(control, bytes, kRingBytes);
    bidstore::RingConsumer consumer(control, bytes, kRingBytes);
    std::vector<std::byte> buffer(consumer.record_bytes_max());
    const std::array<std::byte, 304> row{};
    std::uint64_t number = 0;
    for (auto _ : state) {
        const auto claim =
            producer.try_claim({.payload_bytes = row.size(), .number_reference = number});
        std::memcpy(claim.payload, row.data(), row.size());
        producer.commit(claim);
        number = claim.write_number;
        bidstore::TakenRecord record;
        if (consumer.take(buffer, record) != bidstore::TakeResult::kRecord) fail("no record");
        benchmark::DoNotOptimize(record);
        consumer.publish_head();
    }
}
BENCHMARK(ring);

void leaf_insert(benchmark::State& state) {
    const bidstore::Schema table = schema();
    const auto layout = bidstore::LeafLayout::of(table);
    Page page;
    bidstore::LeafEdit edit(page.bytes, layout, table);
    edit.init();
    const std::array<std::byte, kValueBytes> value{};
    std::uint32_t rows = 0;
    for (auto _ : state) {
        if (!edit.fits(kValueBytes)) {
            edit.init();
            rows = 0;
        }
        edit.insert(rows, key_of(7, rows).data(), value);
        ++rows;
    }
}
BENCHMARK(leaf_insert);

}  // namespace
}  // namespace bench

BENCHMARK_MAIN();
