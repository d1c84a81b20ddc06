// Pages that another thread changes while they are read, as frames that are reused under a reader
// whose lease is gone: also between two loads of one function, where fuzz_pages, whose pages change
// only between its calls, does not come. No seed repeats a run of it.
//
// Around each page lies memory that nobody may read. Which leaf a reader comes to and what it finds
// there means nothing: it stays within the pages, and each move of a cursor is one onward.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <chrono>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "engine/page/row.h"
#include "engine/page/search.h"
#include "engine/page/search_many.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr TableId kTable{7};
constexpr std::uint32_t kNodes = 4;  // the root, and those below it
constexpr std::uint32_t kPages = 8;  // with the leaves

class Frames {
  public:
    Frames() : memory_(::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
        CHECK(memory_ != MAP_FAILED);
        for (std::uint32_t i = 0; i < kPages; ++i) {
            CHECK(::mprotect(page(i), kPageBytes, PROT_READ | PROT_WRITE) == 0);
        }
    }
    ~Frames() { ::munmap(memory_, kBytes); }
    Frames(const Frames&) = delete;
    Frames& operator=(const Frames&) = delete;
    std::byte* page(std::uint32_t i) const {
        return static_cast<std::byte*>(memory_) + (2 * i + 1) * kPageBytes;
    }

  private:
    static constexpr std::size_t kBytes = (2 * kPages + 1) * kPageBytes;
    void* memory_;
};

struct Source {
    const Frames* frames;
    const std::byte* operator()(PageId page) const { return frames->page(page.value % kPages); }
    void prefetch_entry(PageId) const {}
    void prefetch(PageId) const {}
};

void make_tree(const Frames& frames, const TreeShape& shape) {
    for (std::uint32_t i = 0; i < kPages; ++i) {
        PageHeader& header = page_header(frames.page(i));
        header.table_id = kTable.value;
        header.level = i == 0 ? 2 : i < kNodes ? 1 : 0;
        header.type = i < kNodes ? PageType::kInner : PageType::kLeaf;
        std::byte* children = frames.page(i) + shape.inner.children_offset;
        for (std::uint32_t child = 0; i < kNodes && child < shape.inner.capacity; ++child) {
            const std::uint32_t below =
                i == 0 ? 1 + child % (kNodes - 1) : kNodes + child % (kPages - kNodes);
            std::memcpy(children + 4 * child, &below, sizeof below);
        }
    }
}

// Counts, and words in front of the children, mostly to zero: equal keys are looked at longest.
void change_words(const Frames& frames, const TreeShape& shape, const std::atomic<bool>& stop) {
    std::minstd_rand random(1);
    const std::size_t words = (shape.inner.children_offset - kPageHeaderBytes) / 2;
    const auto put = [](std::byte* to, std::uint32_t value) {
        void* any = to;
        __atomic_store_n(static_cast<std::uint16_t*>(any), static_cast<std::uint16_t>(value),
                         __ATOMIC_RELAXED);
    };
    while (!stop) {
        std::byte* page = frames.page(static_cast<std::uint32_t>(random()) % kPages);
        const std::array<std::uint32_t, 5> counts{0, 1, 2, shape.inner.capacity, 0xffff};
        put(page + offsetof(PageHeader, count), counts[random() % counts.size()]);
        const auto value = static_cast<std::uint32_t>(random());
        put(page + kPageHeaderBytes + random() % words * 2, random() % 8 == 0 ? value >> 8 : 0);
    }
}

std::uint64_t sum_of(std::span<const std::byte> bytes) {
    std::uint64_t sum = 0;
    for (const std::byte byte : bytes) sum += std::to_integer<unsigned>(byte);
    return sum;
}

std::uint64_t read_leaf(const LeafView& leaf, const TreeShape& shape, const Schema& schema,
                        const std::byte* key, std::uint32_t guess) {
    EXPECT_LT(leaf.find(key), static_cast<int>(leaf.count()));
    EXPECT_LT(leaf.find_near(key, guess), static_cast<int>(leaf.count()));
    std::uint64_t sum = 0;
    for (std::uint32_t at = guess % 16; at < leaf.count(); at += 16) {
        sum += sum_of({leaf.key(at), shape.leaf.key_bytes}) + sum_of(leaf.value(at));
        const RowView row(schema, leaf.value(at));
        for (std::uint32_t i = 0; i < row.count(); ++i) sum += sum_of(row.content(i).bytes);
    }
    return sum;
}

using Way = std::vector<std::uint32_t>;

Way way_of(const PathCursor<Source>& cursor) {
    Way way;
    for (std::uint32_t i = 0; i < cursor.depth(); ++i) way.push_back(cursor.step(i).index);
    return way;
}

void walk(const TreeShape& shape, const Source& source, const std::byte* key, bool forward) {
    PathCursor cursor(shape, PageId{0}, source);
    Landing landing = cursor.seek(key, {forward, 8, nullptr});
    for (int moves = 0; moves < 50 && landing.state == Landed::kLeaf; ++moves) {
        std::array<PageId, 8> next;
        ASSERT_LE(cursor.upcoming(forward, next, key), next.size());
        std::array<std::byte, kKeyBytesMax> between;
        cursor.boundary(forward, between.data());
        const Way before = way_of(cursor);
        landing = forward ? cursor.next_leaf() : cursor.previous_leaf();
        if (landing.state != Landed::kLeaf) break;
        const Way after = way_of(cursor);
        ASSERT_TRUE(forward ? before < after : after < before);
    }
}

class ChangingPages : public testing::TestWithParam<std::uint32_t> {};

TEST_P(ChangingPages, LeadNobodyOutOrBack) {
    const std::uint32_t key_bytes = GetParam();
    const Schema schema =
        *Schema::make("rows",
                      {{"id", ColumnType::kFixed, static_cast<std::uint16_t>(key_bytes)},
                       {"t", ColumnType::kText, 0},
                       {"b", ColumnType::kBytes, 0}},
                      1);
    const TreeShape shape(schema, kTable);
    const Frames frames;
    make_tree(frames, shape);
    std::atomic<bool> stop = false;
    std::thread changer([&] { change_words(frames, shape, stop); });
    const Source source{&frames};
    std::mt19937 random(1);
    std::uint64_t sum = 0;
    std::uint32_t leaves = 0;
    const auto until = Clock::now() + 300ms;
    for (std::uint32_t round = 0; Clock::now() < until; ++round) {
        std::array<std::byte, kKeyBytesMax> key{};
        if (round % 4 == 0) key[random() % key_bytes] = std::byte(random());
        std::array<Descent, kDescentsTogether> together;
        for (Descent& descent : together) descent.key = key.data();
        descend_many(shape, PageId{0}, together, source);
        for (const Descent& descent : together) {
            if (descent.landing.state != Landed::kLeaf) continue;
            ++leaves;
            const LeafView leaf(descent.landing.bytes, shape.leaf);
            sum += read_leaf(leaf, shape, schema, key.data(), leaves % 64);
        }
        descend(shape, PageId{0}, key.data(), source);
        walk(shape, source, key.data(), round % 2 == 0);
        if (HasFatalFailure()) break;
    }
    stop = true;
    changer.join();
    EXPECT_GT(leaves, 0u);
    RecordProperty("sum", std::to_string(sum));  // used, so that it is made
}

INSTANTIATE_TEST_SUITE_P(KeyBytes, ChangingPages, testing::Values(1u, 8u, 16u, 24u, 64u));

}  // namespace
}  // namespace bidstore
