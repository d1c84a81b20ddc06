#include "shm/segment.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "shm/ring.h"
#include "shm/stats.h"

namespace bidstore {
namespace {

PoolShape small_shape() {
    PoolShape shape;
    shape.frame_count = 16;
    shape.page_count = 100;
    shape.slot_count = 8;
    shape.instance_id = 77;
    shape.max_snapshot_age_ns = 5;
    shape.catalog_root = 4;
    shape.file_uuid[15] = 9;
    shape.directory_bytes = 500;
    return shape;
}

PoolSegment make_pool(bool seal_writes = false) {
    Result<PoolSegment> pool = PoolSegment::create(small_shape(), HugePages::kOff, seal_writes);
    EXPECT_TRUE(pool.ok()) << pool.failure().what;
    return std::move(*pool);
}

ClientSegment make_client() {
    ClientShape shape;
    shape.slot_count = 4;
    shape.call_slot_count = 16;
    shape.first_slot = 12;
    shape.rights = Rights::kWriter;
    shape.instance_id = 77;
    Result<ClientSegment> client = ClientSegment::create(shape);
    EXPECT_TRUE(client.ok()) << client.failure().what;
    return std::move(*client);
}

Descriptor read_only(const PoolSegment& pool) {
    Result<Descriptor> descriptor = pool.open_read_only();
    EXPECT_TRUE(descriptor.ok());
    return std::move(*descriptor);
}

std::string proc_path(int descriptor) { return "/proc/self/fd/" + std::to_string(descriptor); }

// ---- the pool segment ---------------------------------------------------------------------------

TEST(Segment, PoolViewSeesWhatTheDaemonWrites) {
    PoolSegment pool = make_pool();
    pool.announce();
    Result<PoolView> view = PoolView::map(read_only(pool));
    ASSERT_TRUE(view.ok()) << view.failure().what;
    EXPECT_EQ(view->frame_count(), 16u);
    EXPECT_EQ(view->page_count(), 100u);
    EXPECT_EQ(view->slot_count(), 8u);
    EXPECT_EQ(view->bucket_count(), 6u) << "an even number, and no more than the bytes hold";
    EXPECT_EQ(view->header().instance_id, 77u);
    EXPECT_EQ(view->header().catalog_root, 4u);
    EXPECT_EQ(view->header().max_snapshot_age_ns, 5u);
    EXPECT_EQ(view->header().file_uuid[15], 9);
    EXPECT_EQ(view->stats().counter_count, kCounterNames.size());
    EXPECT_EQ(view->stats().histogram_count, kHistogramNames.size());
    pool.page_map()[99].store(15);
    pool.descriptors()[15].older.store(3);
    pool.revoked()[7].store(11);
    pool.directory()[5].entry[7].store(99);
    pool.frame(FrameId{15})[4095] = std::byte{0xab};
    pool.header().published.visible.store(1234);
    StatsWriter{pool.stats()}.add(Counter::kBatches, 5);
    EXPECT_EQ(view->page_map()[99].load(), 15u);
    EXPECT_EQ(view->descriptors()[15].older.load(), 3u);
    EXPECT_EQ(view->revoked()[7].load(), 11u);
    EXPECT_EQ(view->directory()[5].entry[7].load(), 99u);
    EXPECT_EQ(view->frame(15)[4095], std::byte{0xab});
    EXPECT_EQ(view->published().visible.load(), 1234u);
    EXPECT_EQ(counter_value(view->stats(), Counter::kBatches), 5u);
}

TEST(Segment, FramesStartOnAHugePage) {
    PoolSegment pool = make_pool();
    EXPECT_EQ(pool.header().frames_offset % (2u << 20), 0u);
    EXPECT_EQ(pool.header().segment_bytes % (2u << 20), 0u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool.frame(FrameId{1})) % kPageBytes, 0u);
}

TEST(Segment, SurvivesBeingMoved) {
    PoolSegment first = make_pool();
    PoolSegment second = std::move(first);
    second = make_pool();
    second.announce();
    EXPECT_TRUE(PoolView::map(read_only(second)).ok());
}

TEST(Segment, ImpossiblePoolShapesAreRefusedByName) {
    const auto refused = [](std::function<void(PoolShape&)> spoil, const char* word) {
        PoolShape shape = small_shape();
        spoil(shape);
        const Result<PoolSegment> pool = PoolSegment::create(shape, HugePages::kOff, false);
        EXPECT_EQ(pool.error(), Error::kInvalid) << word;
        EXPECT_NE(pool.failure().what.find(word), std::string::npos) << pool.failure().what;
    };
    refused([](PoolShape& shape) { shape.frame_count = 1; }, "frame_count");
    refused([](PoolShape& shape) { shape.page_count = 0; }, "page_count");
    refused([](PoolShape& shape) { shape.slot_count = 0; }, "slot_count");
    refused([](PoolShape& shape) { shape.instance_id = 0; }, "instance_id");
}

TEST(Segment, PoolThatIsNotAnnouncedIsNotMapped) {
    PoolSegment pool = make_pool();
    EXPECT_EQ(PoolView::map(read_only(pool)).error(), Error::kNotBidstore);
}

struct Spoil {
    const char* word;  // of the message
    Error error;
    std::function<void(PoolHeader&)> spoil;
};

TEST(Segment, SpoiledPoolHeaderIsRefusedWithBothValues) {
    const auto past = [](std::uint64_t& offset) { offset = std::uint64_t{1} << 60; };
    const Spoil cases[] = {
        {"magic", Error::kNotBidstore, [](PoolHeader& h) { h.magic.store(kClientMagic); }},
        {"ABI version is 99, expected 1", Error::kVersionMismatch,
         [](PoolHeader& h) { h.abi_version = 99; }},
        {"layout fingerprint is 5, expected ", Error::kVersionMismatch,
         [](PoolHeader& h) { h.fingerprint = 5; }},
        {"page size is 8192, expected 4096", Error::kVersionMismatch,
         [](PoolHeader& h) { h.page_bytes = 8192; }},
        {"size in the header", Error::kInvalid, [](PoolHeader& h) { h.segment_bytes += 4096; }},
        {"page map", Error::kInvalid, [&](PoolHeader& h) { past(h.page_map_offset); }},
        {"page map", Error::kInvalid, [](PoolHeader& h) { h.page_count = ~0u; }},
        {"page map", Error::kInvalid, [](PoolHeader& h) { h.page_count = 0; }},
        {"page map", Error::kInvalid, [](PoolHeader& h) { h.page_map_offset = 0; }},
        {"page map", Error::kInvalid, [](PoolHeader& h) { h.page_map_offset += 1; }},
        {"frame descriptors", Error::kInvalid, [&](PoolHeader& h) { past(h.descriptors_offset); }},
        {"revoked", Error::kInvalid, [&](PoolHeader& h) { past(h.revoked_offset); }},
        {"revoked", Error::kInvalid, [](PoolHeader& h) { h.slot_count = ~0u; }},
        {"stats page", Error::kInvalid,
         [](PoolHeader& h) { h.stats_offset = h.segment_bytes - 64; }},
        {"frames", Error::kInvalid, [&](PoolHeader& h) { past(h.frames_offset); }},
        {"frames", Error::kInvalid, [](PoolHeader& h) { h.frames_offset += kCacheLineBytes; }},
        {"frames", Error::kInvalid, [](PoolHeader& h) { h.frame_count = 10'000; }},
        {"frames", Error::kInvalid, [](PoolHeader& h) { h.frames_offset = ~std::uint64_t{4095}; }},
    };
    for (const Spoil& each : cases) {
        PoolSegment pool = make_pool();
        pool.announce();
        each.spoil(pool.header());
        const Result<PoolView> view = PoolView::map(read_only(pool));
        EXPECT_EQ(view.error(), each.error) << each.word;
        EXPECT_NE(view.failure().what.find(each.word), std::string::npos) << view.failure().what;
    }
}

TEST(Segment, SomethingElseIsRefused) {
    Descriptor empty{memfd_create("empty", MFD_CLOEXEC)};
    EXPECT_EQ(PoolView::map(std::move(empty)).error(), Error::kNotBidstore);
    Descriptor zeros{memfd_create("zeros", MFD_CLOEXEC)};
    ASSERT_EQ(ftruncate(zeros.number(), 1 << 20), 0);
    EXPECT_EQ(PoolView::map(std::move(zeros)).error(), Error::kNotBidstore);
    EXPECT_EQ(PoolView::map(Descriptor{}).error(), Error::kIoError);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    EXPECT_FALSE(ClientSegment::map(Descriptor{ends[0]}).ok());
    close(ends[1]);
    PoolSegment pool = make_pool();
    pool.announce();
    EXPECT_FALSE(ClientSegment::map(read_only(pool)).ok()) << "a pool is no client segment";
}

// ---- what a holder of the pool's descriptor cannot do
// --------------------------------------------

TEST(Segment, ReadOnlyDescriptorCannotBeMappedWritable) {
    PoolSegment pool = make_pool();
    const Descriptor descriptor = read_only(pool);
    EXPECT_EQ(mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.number(), 0),
              MAP_FAILED);
    EXPECT_EQ(errno, EACCES);
    void* mapped = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, descriptor.number(), 0);
    ASSERT_NE(mapped, MAP_FAILED);
    EXPECT_NE(mprotect(mapped, kPageBytes, PROT_READ | PROT_WRITE), 0);
    munmap(mapped, kPageBytes);
    const char byte = 1;
    EXPECT_EQ(pwrite(descriptor.number(), &byte, 1, 0), -1);
    EXPECT_NE(
        fallocate(descriptor.number(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPageBytes),
        0);
    EXPECT_NE(ftruncate(descriptor.number(), 0), 0);
}

TEST(Segment, SealsHoldTheSizeAndThemselves) {
    PoolSegment pool = make_pool();
    const Descriptor descriptor = read_only(pool);
    const int seals = fcntl(descriptor.number(), F_GET_SEALS);
    EXPECT_EQ(seals, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    Descriptor writable{open(proc_path(descriptor.number()).c_str(), O_RDWR | O_CLOEXEC)};
    ASSERT_TRUE(writable) << "the same user may, unless writes are sealed";
    EXPECT_NE(ftruncate(writable.number(), kPageBytes), 0);
    EXPECT_NE(ftruncate(writable.number(), 1 << 30), 0);
    EXPECT_NE(fcntl(writable.number(), F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(Segment, SealedWritesKeepEvenTheSameUserFromWriting) {
    PoolSegment pool = make_pool(true);
    const Descriptor descriptor = read_only(pool);
    EXPECT_NE(fcntl(descriptor.number(), F_GET_SEALS) & F_SEAL_FUTURE_WRITE, 0);
    Descriptor writable{open(proc_path(descriptor.number()).c_str(), O_RDWR | O_CLOEXEC)};
    ASSERT_TRUE(writable);
    EXPECT_EQ(mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, writable.number(), 0),
              MAP_FAILED);
    const char byte = 1;
    EXPECT_EQ(pwrite(writable.number(), &byte, 1, 0), -1);
    EXPECT_NE(
        fallocate(writable.number(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPageBytes), 0);
    pool.frame(FrameId{1})[0] = std::byte{1};  // the daemon's own mapping stays writable
    pool.announce();
    EXPECT_TRUE(PoolView::map(read_only(pool)).ok());
}

// Runs `attempt` in a child of another user, with /proc/self in reach; true when it returns true.
bool as_another_user(const std::function<bool()>& attempt) {
    const pid_t child = fork();
    if (child == 0) {
        const bool changed = setgroups(0, nullptr) == 0 && setresgid(65534, 65534, 65534) == 0 &&
                             setresuid(65534, 65534, 65534) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0;
        _exit(changed ? (attempt() ? 0 : 1) : 2);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_NE(WEXITSTATUS(status), 2) << "the child could not become another user";
    return WEXITSTATUS(status) == 0;
}

TEST(Segment, AnotherUserCannotOpenThePoolAgain) {
    if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
    PoolSegment pool = make_pool();
    const Descriptor descriptor = read_only(pool);
    // Made like the pool but for the mode, it can be opened: the mode is what holds.
    const Descriptor open_to_all{memfd_create("open", MFD_CLOEXEC)};
    ASSERT_EQ(fchmod(open_to_all.number(), 0666), 0);
    EXPECT_TRUE(as_another_user(
        [&] { return open(proc_path(open_to_all.number()).c_str(), O_RDWR | O_CLOEXEC) >= 0; }));
    EXPECT_FALSE(as_another_user(
        [&] { return open(proc_path(descriptor.number()).c_str(), O_RDWR | O_CLOEXEC) >= 0; }));
    EXPECT_FALSE(as_another_user([&] { return fchmod(descriptor.number(), 0666) == 0; }));
    EXPECT_TRUE(as_another_user([&] {
        return mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, descriptor.number(), 0) !=
               MAP_FAILED;
    })) << "reading is what it was handed out for";
}

// ---- huge pages ---------------------------------------------------------------------------------

std::uint64_t free_huge_pages() {
    std::uint64_t count = 0;
    std::ifstream{"/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"} >> count;
    return count;
}

TEST(Segment, WithoutHugePagesTryFallsBackAndSaysWhatToSet) {
    if (free_huge_pages() >= 2) GTEST_SKIP() << "this host has huge pages to spare";
    std::string warning;
    Result<PoolSegment> pool = PoolSegment::create(small_shape(), HugePages::kTry, false, &warning);
    ASSERT_TRUE(pool.ok()) << pool.failure().what;
    EXPECT_FALSE(pool->huge_pages());
    EXPECT_NE(warning.find("vm.nr_hugepages=2"), std::string::npos) << warning;
    EXPECT_EQ(warning.find('\n'), std::string::npos);
}

TEST(Segment, WithoutHugePagesOnIsRefusedAndSaysWhatToSet) {
    if (free_huge_pages() >= 2) GTEST_SKIP() << "this host has huge pages to spare";
    const Result<PoolSegment> pool = PoolSegment::create(small_shape(), HugePages::kOn, false);
    EXPECT_EQ(pool.error(), Error::kUnsupported);
    EXPECT_NE(pool.failure().what.find("vm.nr_hugepages=2"), std::string::npos)
        << pool.failure().what;
}

TEST(Segment, HugePagesCarryAPoolWithAllItsSeals) {
    if (free_huge_pages() < 2) GTEST_SKIP() << "no free huge pages: set vm.nr_hugepages=2";
    std::string warning;
    Result<PoolSegment> pool = PoolSegment::create(small_shape(), HugePages::kTry, true, &warning);
    ASSERT_TRUE(pool.ok()) << pool.failure().what;
    EXPECT_TRUE(pool->huge_pages());
    EXPECT_EQ(warning, "");
    pool->frame(FrameId{15})[0] = std::byte{7};
    pool->announce();
    Result<PoolView> view = PoolView::map(read_only(*pool));
    ASSERT_TRUE(view.ok()) << view.failure().what;
    EXPECT_EQ(view->frame(15)[0], std::byte{7});
}

TEST(Segment, AllMemoryIsThereFromTheStart) {
    PoolSegment pool = make_pool();
    struct stat status {};
    ASSERT_EQ(fstat(read_only(pool).number(), &status), 0);
    EXPECT_EQ(static_cast<std::uint64_t>(status.st_blocks) * 512, pool.header().segment_bytes);
}

// ---- the client segment -------------------------------------------------------------------------

Descriptor duplicate(const ClientSegment& segment) {
    return Descriptor{fcntl(segment.descriptor(), F_DUPFD_CLOEXEC, 0)};
}

TEST(Segment, BothSidesOfAClientSegmentSeeTheSame) {
    ClientSegment daemon = make_client();
    daemon.announce(41);
    Result<ClientSegment> client = ClientSegment::map(duplicate(daemon));
    ASSERT_TRUE(client.ok()) << client.failure().what;
    EXPECT_NE(client->base(), daemon.base());
    EXPECT_EQ(client->slot_count(), 4u);
    EXPECT_EQ(client->call_slot_count(), 16u);
    EXPECT_EQ(client->first_slot(), 12u);
    EXPECT_EQ(client->ring_bytes(), 1u << 20);
    EXPECT_EQ(client->header().rights, static_cast<std::uint32_t>(Rights::kWriter));
    EXPECT_EQ(client->header().last_number, 41u);
    for (std::uint32_t i = 0; i < 4; ++i) {
        EXPECT_EQ(client->slots()[i].word.load(), kSlotIdle);
        EXPECT_EQ(client->slots()[i].episode.load(), 0u);
    }
    client->slots()[3].word.store(5);
    client->calls()[15].csn = 6;
    EXPECT_EQ(daemon.slots()[3].word.load(), 5u);
    EXPECT_EQ(daemon.calls()[15].csn, 6u);

    RingProducer producer{client->ring_control(), client->ring(), client->ring_bytes()};
    RingConsumer consumer{daemon.ring_control(), daemon.ring(), daemon.ring_bytes()};
    const RingClaim claim = producer.try_claim({.payload_bytes = 5, .number_reference = 41});
    EXPECT_EQ(claim.write_number, 42u) << "numbers go on behind those of the session";
    std::memcpy(claim.payload, "hello", 5);
    producer.commit(claim);
    std::vector<std::byte> buffer(consumer.record_bytes_max());
    TakenRecord record;
    ASSERT_EQ(consumer.take(buffer, record), TakeResult::kRecord);
    EXPECT_EQ(std::memcmp(record.payload.data(), "hello", 5), 0);
}

TEST(Segment, ClientCannotCutItsSegmentShortUnderTheDaemon) {
    ClientSegment daemon = make_client();
    EXPECT_NE(ftruncate(daemon.descriptor(), 0), 0);
    EXPECT_NE(ftruncate(daemon.descriptor(), 1 << 30), 0);
    EXPECT_NE(fcntl(daemon.descriptor(), F_ADD_SEALS, F_SEAL_WRITE), 0);
    // It may punch a hole; the daemon then reads zeros, and lives.
    ASSERT_EQ(
        fallocate(daemon.descriptor(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPageBytes),
        0);
    EXPECT_EQ(daemon.header().magic.load(), 0u);
}

TEST(Segment, ImpossibleClientShapesAreRefusedByName) {
    const auto refused = [](std::function<void(ClientShape&)> spoil, const char* word) {
        ClientShape shape;
        spoil(shape);
        const Result<ClientSegment> segment = ClientSegment::create(shape);
        EXPECT_EQ(segment.error(), Error::kInvalid) << word;
        EXPECT_NE(segment.failure().what.find(word), std::string::npos) << segment.failure().what;
    };
    refused([](ClientShape& shape) { shape.slot_count = 0; }, "slot_count");
    refused([](ClientShape& shape) { shape.call_slot_count = 0; }, "call_slot_count");
    refused([](ClientShape& shape) { shape.ring_bytes = 1u << 16; }, "ring size is 65536");
    refused([](ClientShape& shape) { shape.ring_bytes = 1'100'000; }, "power of two");
}

struct SpoilClient {
    const char* word;
    Error error;
    std::function<void(ClientHeader&)> spoil;
};

TEST(Segment, SpoiledClientHeaderIsRefusedWithBothValues) {
    const SpoilClient cases[] = {
        {"magic", Error::kNotBidstore, [](ClientHeader& h) { h.magic.store(0); }},
        {"ABI version is 2, expected 1", Error::kVersionMismatch,
         [](ClientHeader& h) { h.abi_version = 2; }},
        {"layout fingerprint is 5", Error::kVersionMismatch,
         [](ClientHeader& h) { h.fingerprint = 5; }},
        {"size in the header", Error::kInvalid, [](ClientHeader& h) { h.segment_bytes = 1; }},
        {"ring size is 1024", Error::kInvalid, [](ClientHeader& h) { h.ring_bytes = 1024; }},
        {"ring of", Error::kInvalid, [](ClientHeader& h) { h.ring_bytes = 1u << 31; }},
        {"ring of", Error::kInvalid, [](ClientHeader& h) { h.ring_offset = ~std::uint64_t{63}; }},
        {"ring control", Error::kInvalid,
         [](ClientHeader& h) { h.ring_control_offset = h.segment_bytes; }},
        {"reader slots", Error::kInvalid, [](ClientHeader& h) { h.slot_count = ~0u; }},
        {"reader slots", Error::kInvalid, [](ClientHeader& h) { h.slots_offset = 1; }},
        {"touch marks", Error::kInvalid, [](ClientHeader& h) { h.marks_offset = 1; }},
        {"call slots", Error::kInvalid, [](ClientHeader& h) { h.call_slot_count = ~0u; }},
        {"call slots", Error::kInvalid, [](ClientHeader& h) { h.calls_offset = 0; }},
    };
    for (const SpoilClient& each : cases) {
        ClientSegment daemon = make_client();
        daemon.announce(0);
        each.spoil(daemon.header());
        const Result<ClientSegment> client = ClientSegment::map(duplicate(daemon));
        EXPECT_EQ(client.error(), each.error) << each.word;
        EXPECT_NE(client.failure().what.find(each.word), std::string::npos)
            << client.failure().what;
    }
}

// How many mappings of client segments this process has.
int client_mappings() {
    std::ifstream maps{"/proc/self/maps"};
    int count = 0;
    for (std::string line; std::getline(maps, line);) {
        if (line.find("memfd:bidstore-client") != std::string::npos) ++count;
    }
    return count;
}

TEST(Segment, ForkedChildHasNoClientSegment) {
    ClientSegment daemon = make_client();
    daemon.announce(0);
    Result<ClientSegment> client = ClientSegment::map(duplicate(daemon));
    ASSERT_TRUE(client.ok());
    ASSERT_EQ(client_mappings(), 2);
    const pid_t child = fork();
    if (child == 0) _exit(client_mappings() == 1 ? 0 : 1);  // the daemon's, not the client's
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Segment, DescriptorsCloseThemselvesAndAreNotInherited) {
    int number = -1;
    {
        PoolSegment pool = make_pool();
        Descriptor first = read_only(pool);
        number = first.number();
        EXPECT_NE(fcntl(number, F_GETFD) & FD_CLOEXEC, 0);
        Descriptor second = std::move(first);
        EXPECT_FALSE(first);
        EXPECT_EQ(second.number(), number);
    }
    EXPECT_EQ(fcntl(number, F_GETFD), -1);
}

}  // namespace
}  // namespace bidstore
