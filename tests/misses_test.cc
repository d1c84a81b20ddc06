// Misses: reads of what is not in the pool, many at once, by readers that wait, die, or hold a
// snapshot over more pages than the pool has frames.
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <random>
#include <set>

#include "engine/engine_core.h"
#include "shm/stats.h"
#include "tests/sim.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kFrames = 300;
constexpr std::uint64_t kRows = 9'000;  // three to a page: ten times the pool

Schema wide_schema() {
    auto schema = Schema::make("wide",
                               {{"id", ColumnType::kU64, 0},
                                {"n", ColumnType::kU64, 0},
                                {"pad", ColumnType::kFixed, 1000}},
                               1);
    CHECK(schema.ok());
    return *schema;
}

std::vector<std::byte> key_of(std::uint64_t id) {
    std::vector<std::byte> key(8);
    encode_key_integer(key.data(), id, 8, false);
    return key;
}

class Misses : public ::testing::Test {
  protected:
    void SetUp() override {
        SimStoreOptions options = small_store();
        options.frames = kFrames;
        options.engine.max_snapshot_age_ns = 3'600'000'000'000;  // only what it holds ends a lease
        store = std::make_unique<SimStore>(options, std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store->open().ok());
        writer = &store->connect();
        table = store->create_table(*writer, wide_schema());
        for (std::uint64_t id = 0; id < kRows; id += 20) put(id, std::min(id + 20, kRows), 1);
        auto descriptor = store->pool->open_read_only();
        ASSERT_TRUE(descriptor.ok());
        auto mapped = PoolView::map(std::move(*descriptor));
        ASSERT_TRUE(mapped.ok());
        view.emplace(std::move(*mapped));
        shape.emplace(wide_schema(), table);
        reader = &store->connect(Rights::kReader);
    }
    void put(std::uint64_t first, std::uint64_t end, std::uint64_t n) {
        std::vector<std::byte> value(wide_schema().fixed_bytes());
        std::memcpy(value.data(), &n, sizeof n);
        TransactionBytes bytes;
        for (std::uint64_t id = first; id < end; ++id) {
            bytes.operation(OperationKind::kPut, table, key_of(id), value);
        }
        ASSERT_EQ(store->commit(*writer, bytes).error, Error::kOk) << first;
    }
    // n of a row, or nothing when the snapshot is gone.
    std::optional<std::uint64_t> read(SimSnapshot& snapshot, std::uint64_t id) {
        const auto found = snapshot.get(*shape, root(), key_of(id));
        EXPECT_EQ(snapshot.trouble(), "");
        if (!found || !*found) return std::nullopt;
        std::uint64_t n = 0;
        std::memcpy(&n, (*found)->data(), sizeof n);
        return n;
    }
    Engine::Core& core() { return store->engine->core(); }
    PageId root() { return core().storage().catalog->find(table)->tree.root(); }
    std::uint64_t counter(Counter which) {
        return store->pool->stats().counter[static_cast<std::size_t>(which)].load();
    }
    // Leaves of the table that are not in the pool.
    std::vector<PageId> absent_leaves(std::size_t count) {
        std::vector<PageId> absent;
        Pool& pool = core().storage().pool;
        for (std::uint32_t page = 0; page < pool.page_count() && absent.size() < count; ++page) {
            if (core().storage().space.allocated(PageId{page}) && !pool.resident(PageId{page})) {
                absent.push_back(PageId{page});
            }
        }
        EXPECT_EQ(absent.size(), count);
        return absent;
    }

    std::unique_ptr<SimStore> store;
    SimClient* writer = nullptr;
    SimClient* reader = nullptr;
    TableId table;
    std::optional<PoolView> view;
    std::optional<TreeShape> shape;
};

// A snapshot used to keep the frame of every page that was evicted while it was held: reading ten
// times the pool under one snapshot was the end of it.
TEST_F(Misses, AReaderThatLetsGoReadsTenTimesThePoolUnderOneSnapshot) {
    SimSnapshot snapshot(*store, *view, *reader, 0);
    for (std::uint64_t id = 0; id < kRows; ++id) {
        ASSERT_EQ(read(snapshot, id), 1u) << id;
        snapshot.renew();
    }
    EXPECT_TRUE(snapshot.valid());
    EXPECT_EQ(counter(Counter::kRevokedSnapshots), 0u);
    EXPECT_GT(counter(Counter::kPageReads), kRows / 3 - kFrames);
    core().storage().pool.check_invariants();
}

// What was replaced is not in the file: that is kept for the snapshot, however often it lets go.
TEST_F(Misses, AReaderThatLetsGoStillSeesItsSnapshot) {
    SimSnapshot snapshot(*store, *view, *reader, 0);
    for (std::uint64_t id = 0; id < 60; ++id) {
        put(id, id + 1, 2);
        snapshot.renew();
    }
    for (std::uint64_t id = 200; id < kRows; ++id) {
        ASSERT_EQ(read(snapshot, id), 1u) << id;
        snapshot.renew();
    }
    for (std::uint64_t id = 0; id < 60; ++id) EXPECT_EQ(read(snapshot, id), 1u) << id;
    EXPECT_TRUE(snapshot.valid());
    SimSnapshot later(*store, *view, *reader, 1);
    for (std::uint64_t id = 0; id < 60; ++id) EXPECT_EQ(read(later, id), 2u) << id;
}

// Frames of evicted pages that a reader still sees do not come back by evicting more: each round
// of the engine used to drop some, and the pool was empty before the reader had its pages.
TEST_F(Misses, WhatAReaderHoldsIsNotMadeUpForByEvictingTheRest) {
    {
        SimSnapshot warm(*store, *view, *reader, 1);
        for (std::uint64_t id = 0; id < kRows; ++id, warm.renew()) ASSERT_EQ(read(warm, id), 1u);
    }
    SimSnapshot holder(*store, *view, *reader, 0);
    ASSERT_EQ(read(holder, kRows - 1), 1u);
    SimSnapshot other(*store, *view, *reader, 1);
    const Pool& pool = core().storage().pool;
    for (std::uint64_t id = 0; pool.free_frames() > 15; id += 3) ASSERT_EQ(read(other, id), 1u);
    const std::uint64_t before = counter(Counter::kEvictions);
    store->run_until([] { return false; }, 50);
    EXPECT_GE(pool.free_frames() + pool.evicted(), 16u);
    EXPECT_LT(counter(Counter::kEvictions), before + kFrames / 4);
    EXPECT_TRUE(holder.valid());
}

TEST_F(Misses, AReaderThatKeepsAllItsFramesLosesItsSnapshotAndNobodyElseWaits) {
    SimSnapshot greedy(*store, *view, *reader, 0);
    std::uint64_t id = 0;
    while (id < kRows && read(greedy, id)) ++id;
    EXPECT_LT(id, kRows);
    EXPECT_FALSE(greedy.valid());
    SimSnapshot other(*store, *view, *reader, 1);
    EXPECT_EQ(read(other, 17), 1u);
}

// An older snapshot of another client, which held a frame or two, paid for it.
TEST_F(Misses, AReaderThatKeepsAllItsFramesIsNotPaidForByAnother) {
    SimSnapshot modest(*store, *view, *writer, 0);
    ASSERT_EQ(read(modest, kRows - 1), 1u);
    put(0, 1, 2);
    modest.rest();
    SimSnapshot greedy(*store, *view, *reader, 0);
    std::uint64_t id = 3;
    while (id < kRows && read(greedy, id)) ++id;
    modest.resume();
    EXPECT_FALSE(greedy.valid());
    EXPECT_TRUE(modest.valid());
    EXPECT_EQ(read(modest, 0), 1u);
}

// No checkpoint gives frames back that snapshots keep: 13 of them ran in two seconds all the same.
TEST_F(Misses, APoolThatReadersKeepIsNotCheckpointedInVain) {
    store->clock.advance_ns(31'000'000'000);  // the next one is due
    ASSERT_TRUE(store->run_until([&] {
        return core().storage().pool.changed_count() < 8 &&
               !core().storage().checkpointer->running();
    }));
    const std::uint64_t before = counter(Counter::kCheckpoints);
    SimSnapshot greedy(*store, *view, *reader, 0);
    std::uint64_t id = 0;
    while (id < kRows && read(greedy, id)) ++id;
    EXPECT_LE(counter(Counter::kCheckpoints), before + 2);
}

TEST_F(Misses, AClientThatDiesWhileItWaitsLeavesNothingBehind) {
    const std::vector<PageId> pages = absent_leaves(40);
    SimClient& dying = store->connect(Rights::kReader);
    const SlotOwner slot_of_the_dead = [&] {
        SlotOwner slot(dying.segment().slots()[0], view->published(),
                       view->revoked()[dying.segment().first_slot()]);
        slot.begin();
        return slot;
    }();
    ASSERT_TRUE(dying.request_pages(pages).has_value());
    store->round();
    EXPECT_EQ(core().page_waits().open(), 1u);
    EXPECT_GT(core().storage().loader.loading(), 0u);
    store->disconnect(dying);
    EXPECT_EQ(core().page_waits().open(), 0u);
    EXPECT_FALSE(core().storage().loader.waits_for_frames());
    EXPECT_TRUE(store->run_until([&] { return core().storage().loader.loading() == 0; }));
    EXPECT_FALSE(slot_of_the_dead.valid());
    // What it had asked for is as good as any other page, and so is every frame.
    for (const PageId page : pages) EXPECT_FALSE(core().storage().loader.on_its_way(page));
    SimSnapshot snapshot(*store, *view, *reader, 0);
    for (std::uint64_t id = 0; id < kRows; id += 7) {
        ASSERT_EQ(read(snapshot, id), 1u) << id;
        snapshot.renew();
    }
}

// What one client asked for was read before anything that another asked for later.
TEST_F(Misses, AClientWithManyMissesDoesNotKeepOthersWaiting) {
    const std::vector<PageId> pages = absent_leaves(2'001);
    SimClient& greedy = store->connect(Rights::kReader);
    std::vector<std::uint32_t> requests;
    for (std::size_t at = 0; at + 1 < pages.size(); at += 50) {
        const auto request = greedy.request_pages(std::span(pages).subspan(at, 50));
        ASSERT_TRUE(request.has_value());
        requests.push_back(*request);
    }
    store->round();
    const std::uint64_t before = counter(Counter::kPageReads);
    // One page that nobody else wants, and one that the greedy one waits for, too, as its last.
    const std::array modest{pages[2'000], pages[1'999]};
    const auto request = reader->request_pages(modest);
    ASSERT_TRUE(request.has_value());
    std::optional<Answer> answer;
    ASSERT_TRUE(store->run_until([&] { return (answer = reader->answer(*request)).has_value(); }));
    EXPECT_EQ(answer->error, Error::kOk);
    EXPECT_LT(counter(Counter::kPageReads) - before, 200u) << "what was being read, and a few";
    for (const std::uint32_t each : requests) {
        ASSERT_TRUE(store->run_until([&] { return (answer = greedy.answer(each)).has_value(); }));
        EXPECT_EQ(answer->error, Error::kOk);
    }
    EXPECT_FALSE(core().storage().loader.waits_for_frames());
}

// A client that asks, goes and comes again left its waits, and all its pages were read for nobody.
TEST_F(Misses, ClientsThatComeAskAndGoLeaveNoQueue) {
    const std::vector<PageId> pages = absent_leaves(2'000);
    const auto ask = [&](SimClient& client, std::size_t first, std::size_t end) {
        std::vector<std::uint32_t> requests;
        for (std::size_t at = first; at < end; at += 50) {
            const auto request = client.request_pages(std::span(pages).subspan(at, 50));
            EXPECT_TRUE(request.has_value());
            requests.push_back(request.value_or(0));
        }
        return requests;
    };
    // The last of these are not read yet when the first client goes that asked for them, too.
    const auto wanted = ask(*reader, 0, 400);
    for (int round = 0; round < 6; ++round) {
        SimClient& client = store->connect(Rights::kReader);
        ask(client, 0, pages.size());
        store->round();
        EXPECT_TRUE(core().storage().loader.waits_for_frames());
        store->disconnect(client);
        EXPECT_LE(core().page_waits().open(), wanted.size());
    }
    for (const std::uint32_t request : wanted) {
        std::optional<Answer> answer;
        ASSERT_TRUE(
            store->run_until([&] { return (answer = reader->answer(request)).has_value(); }));
        EXPECT_EQ(answer->error, Error::kOk) << "somebody waited for it all the time";
    }
    EXPECT_FALSE(core().storage().loader.waits_for_frames());
    EXPECT_EQ(core().page_waits().open(), 0u);
}

// A client that goes takes its entries out of the queues of pages, and none of another's: by a
// model of who asked for what, with pages that cannot be read, and are asked for anew.
TEST_F(Misses, WhatAClientAskedForIsForgottenWithItAndNothingElse) {
    PageLoader& loader = core().storage().loader;
    Pool& pool = core().storage().pool;
    const std::vector<PageId> pages = absent_leaves(40);
    std::mt19937_64 random(5);
    std::map<std::uint32_t, std::multiset<std::uint64_t>> asked;  // by page: clients
    store->disk->bad_range(StoreFile::kData, 0, std::uint64_t{1} << 40, EIO);
    for (int step = 0; step < 3'000 && !HasFailure(); ++step) {
        const PageId page = pages[random() % pages.size()];
        const std::uint64_t client = 1'001 + random() % 4;
        switch (random() % 12) {
            default:
                if (loader.want(page, client) == Error::kBusy) asked[page.value].insert(client);
                break;
            case 8:
            case 9:
                loader.forget(client);
                for (auto& [number, who] : asked) who.erase(client);
                std::erase_if(asked, [](const auto& entry) { return entry.second.empty(); });
                break;
            case 10: {  // a few are read, and fail
                const std::uint32_t free = pool.free_frames();
                loader.pump(free - std::min(free, 1 + static_cast<std::uint32_t>(random() % 3)));
                const std::size_t left = asked.size() - loader.loading();
                while (loader.loading() > 0) store->disk->poll(0);
                std::erase_if(asked, [&](const auto& entry) {
                    return !loader.on_its_way(PageId{entry.first});
                });
                EXPECT_EQ(asked.size(), left);
                break;
            }
            case 11:
                store->clock.advance_ns(200'000'000);  // then they may be asked for again
        }
        for (const PageId each : pages) {
            ASSERT_EQ(loader.on_its_way(each), asked.contains(each.value)) << step;
        }
    }
    for (std::uint64_t client = 1'001; client <= 1'004; ++client) loader.forget(client);
    EXPECT_FALSE(loader.waits_for_frames());
    for (const PageId page : pages) EXPECT_FALSE(loader.on_its_way(page));
}

TEST_F(Misses, AClientThatGoesCostsWhatItAskedForItself) {
    PageLoader& loader = core().storage().loader;
    const std::vector<PageId> pages = absent_leaves(2'000);
    for (std::uint64_t client = 1'001; client <= 1'050; ++client) {
        for (const PageId page : pages) loader.want(page, client);
    }
    for (int i = 0; i < 3; ++i) loader.want(pages[7], 7);
    EXPECT_EQ(loader.forget(7), 3u);
    EXPECT_TRUE(loader.on_its_way(pages[7]));
    for (std::uint64_t client = 1'001; client <= 1'050; ++client) loader.forget(client);
    EXPECT_FALSE(loader.on_its_way(pages[7]));
}

// Damage that no waiting mends: it was noted for the round in which the write was parked, and
// forgotten before the write was looked at again.
TEST_F(Misses, AWriteWhoseWayLeadsToAFreePageIsRefusedAndDoesNotWaitForEver) {
    Pool& pool = core().storage().pool;
    PageId free;
    for (std::uint32_t id = pool.page_count() - 1; !free; --id) {
        if (!core().storage().space.readable(PageId{id})) free = PageId{id};
    }
    std::vector<std::byte> key(8);
    std::uint32_t patched = 0;
    for (std::uint32_t id = 0; id < pool.page_count() && patched == 0; ++id) {
        const std::byte* bytes = pool.newest(PageId{id});
        if (bytes == nullptr || tree_level(bytes, table) != 1) continue;
        const InnerView node(bytes, shape->inner);
        const PageId child = node.child(1);
        if (pool.resident(child)) continue;
        node.copy_key(1, key.data());
        for (std::size_t at = kPageHeaderBytes; at + 4 <= kPageBytes; at += 4) {
            if (std::memcmp(bytes + at, &child.value, 4) != 0) continue;
            std::memcpy(const_cast<std::byte*>(bytes) + at, &free.value, 4);
            ++patched;
        }
    }
    ASSERT_EQ(patched, 1u);
    TransactionBytes bytes;
    bytes.operation(OperationKind::kCheckPresent, table, key, {});
    const auto token = writer->submit(bytes.bytes());
    ASSERT_TRUE(token.has_value());
    std::optional<Answer> answer;
    EXPECT_TRUE(
        store->run_until([&] { return (answer = writer->answer(*token)).has_value(); }, 2'000));
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->error, Error::kCorruption);
}

// All that a process asked for used to wait behind a write of its own that could not go on: its
// readers held what the write waited for, and lost their snapshots for it.
TEST_F(Misses, AClientsMissesDoNotWaitForItsParkedWrite) {
    const PageId resident = root();
    ASSERT_TRUE(core().storage().pool.resident(resident));
    const Tree& tree = core().storage().catalog->find(table)->tree;
    std::uint64_t id = 0;
    while (!tree.get(key_of(id).data()).missing) id += 3;
    TransactionBytes first;
    first.operation(OperationKind::kCheckPresent, table, key_of(id), {});
    TransactionBytes second;
    second.operation(OperationKind::kCheckAbsent, table, key_of(kRows), {});
    const auto parked = writer->submit(first.bytes());
    const auto behind = writer->submit(second.bytes());
    const auto miss = writer->request_pages({&resident, 1});
    ASSERT_TRUE(parked && behind && miss);
    store->round();
    const auto came = writer->answer(*miss);
    ASSERT_TRUE(came.has_value());
    EXPECT_EQ(came->error, Error::kOk);
    EXPECT_FALSE(writer->answer(*parked));
    EXPECT_FALSE(writer->answer(*behind));
    for (const auto write : {*parked, *behind}) {
        std::optional<Answer> answer;
        ASSERT_TRUE(store->run_until([&] { return (answer = writer->answer(write)).has_value(); }));
        EXPECT_EQ(answer->error, Error::kOk);
    }
    put(0, 1, 3);  // and the ring goes on
}

TEST_F(Misses, RequestsForOnePageShareOneReadAndAllAreAnswered) {
    const PageId page = absent_leaves(1).front();
    SimClient& other = store->connect(Rights::kReader);
    const std::uint64_t before = counter(Counter::kPageReads);
    const auto first = reader->request_pages({&page, 1});
    const auto second = reader->request_pages({&page, 1});
    const auto third = other.request_pages({&page, 1});
    ASSERT_TRUE(first && second && third);
    std::optional<Answer> answers[3];
    EXPECT_TRUE(store->run_until([&] {
        if (!answers[0]) answers[0] = reader->answer(*first);
        if (!answers[1]) answers[1] = reader->answer(*second);
        if (!answers[2]) answers[2] = other.answer(*third);
        return answers[0] && answers[1] && answers[2];
    }));
    for (const auto& answer : answers) EXPECT_EQ(answer->error, Error::kOk);
    EXPECT_EQ(counter(Counter::kPageReads), before + 1);
    EXPECT_EQ(core().page_waits().open(), 0u);
}

// Bursts of pages that come into the pool, and what the directory says of their rows.
class DirectoryOfMisses : public Misses {
  protected:
    void forget_all_entries() {
        const std::uint64_t buckets = store->pool->header().bucket_count;
        for (std::uint64_t bucket = 0; bucket < buckets; ++bucket) {
            for (auto& entry : store->pool->directory()[bucket].entry) entry.store(0);
        }
    }
    // How many of the pages the directory leads to.
    std::size_t led_to(const std::vector<PageId>& pages) {
        std::set<std::uint32_t> leaves;
        for (std::uint64_t id = 0; id < kRows; ++id) {
            const KeyDirectory directory(view->directory(), view->bucket_count());
            const auto key = key_of(id);
            leaves.insert(directory.find(directory.aim(table, key.data(), key.size())).leaf.value);
        }
        return std::count_if(pages.begin(), pages.end(),
                             [&](PageId page) { return leaves.contains(page.value); });
    }
    // Asks for so many absent pages at once; those of them that are leaves of the table.
    std::vector<PageId> bring_burst(std::size_t count) {
        std::vector<PageId> pages = absent_leaves(count);
        const auto asked = reader->request_pages(pages);
        EXPECT_TRUE(asked);
        std::optional<Answer> answer;
        EXPECT_TRUE(store->run_until([&] { return bool(answer = reader->answer(*asked)); }));
        EXPECT_EQ(answer->error, Error::kOk);
        std::erase_if(pages, [&](PageId page) {
            return !is_leaf_of(core().storage().pool.newest_of(page), table);
        });
        return pages;
    }
    void some_rounds() {
        store->run_until([] { return false; }, 50);
    }
    void mark(std::span<const PageId> pages) {
        TouchMarks& marks = reader->segment().marks()[0];
        for (const PageId page : pages) {
            const std::uint32_t written = marks.written.load();
            marks.page[written % kTouchMarks].store(page.value);
            marks.written.store(written + 1);
        }
        store->clock.advance_ns(20'000'000);  // of a tick, which gathers them
        some_rounds();
    }
};

// Not before it is answered: who waits for one page of a burst waits for no row of the others.
TEST_F(DirectoryOfMisses, IsToldOfAllLeavesOfABurstBehindTheirReaders) {
    core().storage().make_frames(kFrames / 2);  // room: what comes will stay
    forget_all_entries();
    const std::vector<PageId> leaves = bring_burst(64);
    EXPECT_GT(leaves.size(), 60u);
    EXPECT_LT(led_to(leaves), leaves.size());
    some_rounds();
    EXPECT_EQ(led_to(leaves), leaves.size());
}

// Most of these will have left before anybody asks for them again.
TEST_F(DirectoryOfMisses, IsToldOfLeavesThatOthersWentForWhenTheyAreUsedAgain) {
    forget_all_entries();
    const std::vector<PageId> leaves = bring_burst(64);
    EXPECT_GT(leaves.size(), 60u);
    some_rounds();
    EXPECT_EQ(led_to(leaves), 0u);
    const std::vector<PageId> again(leaves.begin(), leaves.begin() + 30);
    mark(again);
    EXPECT_EQ(led_to(again), again.size());
    EXPECT_EQ(led_to(leaves), again.size());
    // Once is enough: its entries follow it from version to version.
    forget_all_entries();
    mark(again);
    EXPECT_EQ(led_to(leaves), 0u);
    const LeafLayout layout = LeafLayout::of(wide_schema());
    const std::byte* const came = core().storage().pool.newest_of(again[0]);
    const std::uint64_t id = decode_key_integer(LeafView(came, layout).key(0), 8, false);
    put(id, id + 1, 2);
    ASSERT_NE(core().storage().pool.newest_of(again[0]), came);
    forget_all_entries();
    mark({&again[0], 1});
    EXPECT_EQ(led_to(leaves), 0u);
}

TEST_F(Misses, APointReadThroughResidentInnerNodesCostsOneRead) {
    SimSnapshot snapshot(*store, *view, *reader, 0);
    ASSERT_EQ(read(snapshot, 0), 1u);  // the nodes above it are there from now on
    const std::uint64_t before = counter(Counter::kPageReads);
    std::uint64_t read_rows = 0;
    for (std::uint64_t id = 30; id < 230; id += 20) {
        const std::uint64_t misses = snapshot.misses();
        ASSERT_EQ(read(snapshot, id), 1u);
        read_rows += snapshot.misses() > misses ? 1 : 0;
        snapshot.renew();
    }
    EXPECT_GT(read_rows, 0u);
    EXPECT_EQ(counter(Counter::kPageReads), before + read_rows);
}

// Each request was a read, and each of them a line for the operator.
TEST_F(Misses, AReaderThatAsksForABadPageAgainAndAgainCostsNoRead) {
    const PageId page = absent_leaves(1)[0];
    store->disk->bad_range(StoreFile::kData, page.value * kPageBytes, kPageBytes, EIO);
    const std::uint64_t reads = counter(Counter::kPageReads);
    const std::size_t lines = store->log_lines.size();
    const std::uint64_t began_ns = store->clock.monotonic_ns();
    for (int i = 0; i < 300; ++i) {
        const auto asked = reader->request_pages({&page, 1});
        ASSERT_TRUE(asked.has_value());
        std::optional<Answer> answer;
        const auto answered = [&] { return (answer = reader->answer(*asked)).has_value(); };
        ASSERT_TRUE(store->run_until(answered));
        EXPECT_EQ(answer->error, Error::kIoError);
    }
    const std::uint64_t tries = 1 + (store->clock.monotonic_ns() - began_ns) / 100'000'000;
    EXPECT_LE(counter(Counter::kPageReads) - reads, tries);
    EXPECT_EQ(store->log_lines.size() - lines, 1u);
    store->disk->clear_bad_ranges();
    store->clock.advance_ns(100'000'000);
    const auto asked = reader->request_pages({&page, 1});
    std::optional<Answer> answer;
    ASSERT_TRUE(store->run_until([&] { return (answer = reader->answer(*asked)).has_value(); }));
    EXPECT_EQ(answer->error, Error::kOk);
}

// A batch puts its sessions' rows when it is sealed, and cannot read then. While the log write
// before it was slow, readers of other pages could drive the way to these rows out of the pool, and
// the sealing would have ended the daemon.
TEST_F(Misses, TheWayToTheSessionsOfAnOpenBatchStays) {
    constexpr std::uint32_t kSessions = 200;
    ASSERT_TRUE(store->leave_sessions(kSessions, table, key_of(kRows)));
    const PageId way = core().storage().catalog->sessions().tree.root();
    Pool& pool = core().storage().pool;
    ASSERT_EQ(page_header(pool.newest(way)).type, PageType::kInner);
    // A checkpoint with all of it, so that it might go.
    const Csn all{pool.visible()};
    const auto written = [&] { return core().storage().checkpointer->covered() >= all; };
    store->clock.advance_ns(60'000'000'000);
    ASSERT_TRUE(store->run_until(written));

    SimClient& other = store->connect();
    put(0, 1, 2);
    store->disk->hold_back(StoreFile::kLog);
    const auto submit = [&](SimClient& client, std::uint64_t id) {
        TransactionBytes bytes;
        std::vector<std::byte> value(wide_schema().fixed_bytes());
        bytes.operation(OperationKind::kPut, table, key_of(id), value);
        const auto token = client.submit(bytes.bytes());
        store->run_until([] { return false; }, 20);
        return token;
    };
    const auto flying = submit(*writer, 0);
    const auto open = submit(other, 1);
    ASSERT_TRUE(flying && open);
    // Readers need all frames there are: what may go, goes, inner nodes last.
    for (bool more = true; more;) {
        const auto& pages = pool.eviction_candidates(kFrames, all, nullptr);
        more = !pages.empty();
        core().storage().evict(pages, pool.oldest_unpublished());
    }
    EXPECT_FALSE(pool.resident(root()));
    store->disk->release();
    std::optional<Answer> answer;
    ASSERT_TRUE(store->run_until([&] { return (answer = other.answer(*open)).has_value(); }));
    EXPECT_EQ(answer->error, Error::kOk);
    EXPECT_EQ(writer->answer(*flying)->error, Error::kOk);
}

}  // namespace
}  // namespace bidstore
