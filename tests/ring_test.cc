#include "shm/ring.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <thread>
#include <vector>

namespace bidstore {
namespace {

constexpr std::uint32_t kSmallRing = 4096;  // 64 units, records up to 512 bytes
constexpr std::uint32_t kUnits = kSmallRing / kRingUnitBytes;

// A ring on plain memory, with both sides and a hand to poke states in.
struct TestRing {
    explicit TestRing(std::uint64_t last_number = 0, std::uint32_t position = 0)
        : producer(control, bytes.data(), kSmallRing),
          consumer(control, bytes.data(), kSmallRing, position) {
        init_ring(control, last_number, position);
    }

    RecordHeader& header_at(std::uint32_t unit) {
        return *reinterpret_cast<RecordHeader*>(bytes.data() + unit * kRingUnitBytes);
    }
    RingClaim claim(RecordKind kind, std::uint32_t payload_bytes, std::uint64_t reference = 0) {
        return producer.try_claim({.kind = kind,
                                   .payload_bytes = payload_bytes,
                                   .call_slot = 7,
                                   .call_generation = 9,
                                   .number_reference = reference,
                                   .decided_below = 3});
    }
    // Claims and commits a record whose payload is `fill`, over and over.
    bool put(RecordKind kind, std::uint32_t payload_bytes, int fill) {
        const RingClaim place = claim(kind, payload_bytes);
        if (!place) return false;
        std::memset(place.payload, fill, payload_bytes);
        producer.commit(place);
        return true;
    }
    TakeResult take() { return consumer.take(buffer, taken); }
    std::uint32_t claimed() { return static_cast<std::uint32_t>(control.claim.load()); }

    RingControl control{};
    alignas(kCacheLineBytes) std::array<std::byte, kSmallRing> bytes{};
    std::array<std::byte, ring_record_bytes_max(kSmallRing)> buffer{};
    TakenRecord taken;
    RingProducer producer;
    RingConsumer consumer;
};

TEST(Ring, GivesBackWhatWasPutIntoIt) {
    TestRing ring;
    EXPECT_EQ(ring.take(), TakeResult::kEmpty);
    EXPECT_FALSE(ring.consumer.has_news());
    ASSERT_TRUE(ring.put(RecordKind::kTransaction, 100, 0x5a));
    EXPECT_TRUE(ring.consumer.has_news());
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.kind, RecordKind::kTransaction);
    EXPECT_EQ(ring.taken.call_slot, 7u);
    EXPECT_EQ(ring.taken.call_generation, 9u);
    EXPECT_EQ(ring.taken.write_number, 1u);
    EXPECT_EQ(ring.taken.decided_below, 3u);
    ASSERT_EQ(ring.taken.payload.size(), 100u);
    for (std::byte byte : ring.taken.payload) EXPECT_EQ(byte, std::byte{0x5a});
    EXPECT_EQ(ring.take(), TakeResult::kEmpty);
}

TEST(Ring, PayloadIsCopiedSoThatLaterChangesDoNotReachIt) {
    TestRing ring;
    const RingClaim place = ring.claim(RecordKind::kTransaction, 40);
    std::memset(place.payload, 1, 40);
    ring.producer.commit(place);
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    std::memset(place.payload, 2, 40);
    EXPECT_EQ(ring.taken.payload[39], std::byte{1});
    EXPECT_EQ(ring.taken.payload.data(), ring.buffer.data());
}

TEST(Ring, OnlyTransactionsTakeWriteNumbers) {
    TestRing ring{41};
    EXPECT_EQ(ring.claim(RecordKind::kPageRequest, 8).write_number, 0u);
    EXPECT_EQ(ring.claim(RecordKind::kTransaction, 8, 41).write_number, 42u);
    EXPECT_EQ(ring.claim(RecordKind::kPageRequest, 8).write_number, 0u);
    EXPECT_EQ(ring.claim(RecordKind::kTransaction, 8, 41).write_number, 43u);
}

TEST(Ring, WriteNumbersGoOnBeyondTheirLowHalf) {
    const std::uint64_t last = (std::uint64_t{5} << 32) - 2;
    TestRing ring{last};
    EXPECT_EQ(ring.claim(RecordKind::kTransaction, 8, last).write_number, last + 1);
    EXPECT_EQ(ring.claim(RecordKind::kTransaction, 8, last).write_number, last + 2);
    EXPECT_EQ(ring.claim(RecordKind::kTransaction, 8, last).write_number, last + 3);
    EXPECT_EQ(ring.claimed(), 3u) << "the carry of the count stays out of the position";
}

TEST(Ring, ExpandsANumberToTheClosestToTheReference) {
    EXPECT_EQ(expand_number(0, 1), 1u);
    EXPECT_EQ(expand_number(0xffffffff, 0), 0x100000000u);
    EXPECT_EQ(expand_number(0x100000000, 0xffffffff), 0xffffffffu);
    EXPECT_EQ(expand_number(0x500000005, 5), 0x500000005u);
    EXPECT_EQ(expand_number(0x500000000, 0x7fffffff), 0x57fffffffu);
    EXPECT_EQ(expand_number(0x500000000, 0x80000001), 0x480000001u);
}

TEST(Ring, ConsumerStopsAtUncommittedClaim) {
    TestRing ring;
    const RingClaim first = ring.claim(RecordKind::kTransaction, 8);
    ASSERT_TRUE(ring.put(RecordKind::kTransaction, 8, 2));
    EXPECT_EQ(ring.take(), TakeResult::kEmpty);
    ring.producer.commit(first);
    EXPECT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.write_number, 1u);
    EXPECT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.write_number, 2u);
}

TEST(Ring, AbortedClaimsAreSkipped) {
    TestRing ring;
    ring.producer.abort(ring.claim(RecordKind::kPageRequest, 200));
    ASSERT_TRUE(ring.put(RecordKind::kPageRequest, 8, 2));
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.payload.size(), 8u);
}

// A read of a process used to wait behind the write that the engine could not take yet.
TEST(Ring, PageRequestsAreTakenAheadOfRecordsThatWait) {
    TestRing ring;
    const auto ahead = [&] { return ring.consumer.take_page_request(ring.buffer, ring.taken); };
    ASSERT_TRUE(ring.put(RecordKind::kTransaction, 100, 1));
    EXPECT_EQ(ahead(), TakeResult::kEmpty);
    EXPECT_FALSE(ring.consumer.has_news_ahead()) << "it was looked at, and waits";
    EXPECT_TRUE(ring.consumer.has_news());
    ASSERT_TRUE(ring.put(RecordKind::kPageRequest, 10, 2));
    ASSERT_TRUE(ring.put(RecordKind::kTransaction, 20, 3));
    ASSERT_TRUE(ring.put(RecordKind::kPageRequest, 30, 4));
    EXPECT_TRUE(ring.consumer.has_news_ahead());
    for (const int fill : {2, 4}) {
        ASSERT_EQ(ahead(), TakeResult::kRecord);
        EXPECT_EQ(ring.taken.kind, RecordKind::kPageRequest);
        EXPECT_EQ(ring.taken.call_slot, 7u);
        EXPECT_EQ(ring.taken.payload[0], std::byte(fill));
    }
    EXPECT_EQ(ahead(), TakeResult::kEmpty);
    EXPECT_EQ(ring.consumer.position(), 0u) << "nothing was consumed";
    for (const int fill : {1, 3}) {
        ASSERT_EQ(ring.take(), TakeResult::kRecord);
        EXPECT_EQ(ring.taken.kind, RecordKind::kTransaction);
        EXPECT_EQ(ring.taken.payload[0], std::byte(fill));
    }
    EXPECT_EQ(ring.take(), TakeResult::kEmpty);
    // From here on the head is ahead.
    ASSERT_TRUE(ring.put(RecordKind::kPageRequest, 10, 5));
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    ASSERT_TRUE(ring.put(RecordKind::kPageRequest, 10, 6));
    ASSERT_EQ(ahead(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.payload[0], std::byte{6});
    EXPECT_EQ(ring.take(), TakeResult::kEmpty);
    EXPECT_EQ(ring.consumer.position(), ring.claimed());
}

TEST(Ring, PageRequestsGoOnForeverWhileTheWriteBeforeThemWaits) {
    TestRing ring;
    ASSERT_TRUE(ring.put(RecordKind::kTransaction, 100, 1));
    ASSERT_EQ(ring.take(), TakeResult::kRecord);  // taken, and it waits: the ring is paused
    for (std::uint32_t i = 0; i < 4 * kUnits; ++i) {
        ASSERT_TRUE(ring.put(RecordKind::kPageRequest, 10, 2)) << i;
        ASSERT_EQ(ring.consumer.take_page_request(ring.buffer, ring.taken), TakeResult::kRecord);
        ring.consumer.publish_head();
    }
    EXPECT_EQ(ring.take(), TakeResult::kEmpty);
}

TEST(Ring, WritesLeaveRoomForPageRequests) {
    TestRing ring;
    while (ring.put(RecordKind::kTransaction, 10, 1)) {
    }
    ASSERT_TRUE(ring.put(RecordKind::kPageRequest, 10, 2));
    EXPECT_EQ(ring.consumer.take_page_request(ring.buffer, ring.taken), TakeResult::kRecord);
    // The largest record fits all the same, wherever the ring stands.
    while (ring.take() == TakeResult::kRecord) {
    }
    ring.consumer.publish_head();
    for (int i = 0; i < 20; ++i) {
        ASSERT_TRUE(ring.put(RecordKind::kTransaction, 10, 1));
        ASSERT_EQ(ring.take(), TakeResult::kRecord);
        ring.consumer.publish_head();
        ASSERT_TRUE(ring.put(RecordKind::kTransaction, ring.producer.payload_bytes_max(), 1));
        ASSERT_EQ(ring.take(), TakeResult::kRecord);
        ring.consumer.publish_head();
    }
}

TEST(Ring, LooksOnceAroundAFullRingOfRecordsThatWait) {
    TestRing ring;
    while (ring.put(RecordKind::kTransaction, 10, 1)) {
    }
    for (int round = 0; round < 3; ++round) {
        EXPECT_EQ(ring.consumer.take_page_request(ring.buffer, ring.taken), TakeResult::kEmpty);
    }
    EXPECT_FALSE(ring.consumer.has_news_ahead());
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    ring.consumer.publish_head();
    ASSERT_TRUE(ring.put(RecordKind::kPageRequest, 10, 2));
    EXPECT_TRUE(ring.consumer.has_news_ahead());
    ASSERT_EQ(ring.consumer.take_page_request(ring.buffer, ring.taken), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.payload[0], std::byte{2});
}

// Changed after it was looked at, so that looking ahead and taking disagree about where records
// begin: the client harms its own ring alone.
TEST(Ring, ARecordThatChangesBehindTheLookAheadEndsTheRingAtWorst) {
    for (std::uint32_t length = 0; length <= kSmallRing; ++length) {
        TestRing ring;
        ASSERT_TRUE(ring.put(RecordKind::kTransaction, 100, 1));
        ASSERT_TRUE(ring.put(RecordKind::kTransaction, 200, 0x33));
        ASSERT_EQ(ring.consumer.take_page_request(ring.buffer, ring.taken), TakeResult::kEmpty);
        ring.header_at(0).length_bytes.store(length);
        for (int i = 0; i < 70; ++i) {
            ring.take();
            ring.consumer.take_page_request(ring.buffer, ring.taken);
        }
        ASSERT_LE(ring.consumer.position(), 2 * kUnits) << length;
    }
}

TEST(RingDeathTest, WriteIsNeverAborted) {
    TestRing ring;
    const RingClaim place = ring.claim(RecordKind::kTransaction, 8);
    EXPECT_DEATH(ring.producer.abort(place), "write_number");
}

TEST(Ring, RefusesAClaimWithoutRoomAndLeavesTheRingAsItIs) {
    TestRing ring;
    int records = 0;
    while (ring.put(RecordKind::kPageRequest, 100, 1)) ++records;
    EXPECT_EQ(records, static_cast<int>(kUnits) / 3);
    const std::uint64_t before = ring.control.claim.load();
    EXPECT_FALSE(ring.claim(RecordKind::kPageRequest, 100));
    EXPECT_EQ(ring.control.claim.load(), before);
}

TEST(Ring, RoomComesBackWithTheHeadOnly) {
    TestRing ring;
    while (ring.put(RecordKind::kPageRequest, 32, 1)) {
    }
    EXPECT_EQ(ring.claimed(), kUnits) << "these fill it to the last unit";
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_FALSE(ring.put(RecordKind::kPageRequest, 32, 1)) << "taken, but not given back";
    ring.consumer.publish_head();
    EXPECT_TRUE(ring.put(RecordKind::kPageRequest, 32, 1));
    EXPECT_FALSE(ring.put(RecordKind::kPageRequest, 32, 1));
}

TEST(Ring, RecordThatDoesNotFitBeforeTheEndIsPrecededByPadding) {
    TestRing ring{0, kUnits - 2};
    const RingClaim place = ring.claim(RecordKind::kTransaction, 130);  // 3 units
    ASSERT_TRUE(place);
    EXPECT_EQ(place.header, &ring.header_at(0));
    EXPECT_EQ(ring.header_at(kUnits - 2).kind, RecordKind::kPadding);
    EXPECT_EQ(ring.header_at(kUnits - 2).length_bytes.load(), 2 * kRingUnitBytes);
    EXPECT_EQ(ring.claimed(), kUnits + 3);
    EXPECT_EQ(ring.take(), TakeResult::kEmpty);
    ring.producer.commit(place);
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.payload.size(), 130u);
    EXPECT_EQ(ring.consumer.position(), kUnits + 3);
}

TEST(Ring, RecordThatEndsWithTheRingNeedsNoPadding) {
    TestRing ring{0, kUnits - 3};
    const RingClaim place = ring.claim(RecordKind::kTransaction, 130);
    EXPECT_EQ(place.header, &ring.header_at(kUnits - 3));
    ring.producer.commit(place);
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.consumer.position(), kUnits);
}

TEST(Ring, PaddingCountsAsRoomTaken) {
    TestRing ring{0, kUnits - 2};
    ring.control.head.store(3 - 2);  // 1: units from kUnits - 2 to kUnits and 0 are free
    EXPECT_FALSE(ring.claim(RecordKind::kPageRequest, 130));
    EXPECT_TRUE(ring.claim(RecordKind::kPageRequest, 60));
}

TEST(Ring, PositionsGoOnBeyond32Bits) {
    TestRing ring{0, 0u - 5};
    for (int i = 0; i < 20; ++i) {
        ASSERT_TRUE(ring.put(RecordKind::kTransaction, 100, i)) << i;
        ASSERT_EQ(ring.take(), TakeResult::kRecord) << i;
        EXPECT_EQ(ring.taken.write_number, static_cast<std::uint64_t>(i) + 1);
        EXPECT_EQ(ring.taken.payload[99], static_cast<std::byte>(i));
        ring.consumer.publish_head();
    }
    EXPECT_LT(ring.consumer.position(), 100u);
}

// On the second lap each unit may be the start of a record, whatever lay there on the first.
TEST(Ring, NextLapReadsNothingOfTheLast) {
    TestRing ring;
    for (std::uint32_t lap = 0; lap < 50; ++lap) {
        const std::uint32_t payload_bytes = 1 + (lap * 37) % ring.producer.payload_bytes_max();
        ASSERT_TRUE(ring.put(RecordKind::kTransaction, payload_bytes, 0xff));
        ASSERT_EQ(ring.take(), TakeResult::kRecord);
        ring.consumer.publish_head();
        for (std::uint32_t unit = 0; unit < kUnits; ++unit) {
            ASSERT_EQ(ring.header_at(unit).length_bytes.load(), 0u) << "lap " << lap;
        }
    }
}

TEST(Ring, TakesTheLargestRecordAndRefusesALargerOne) {
    TestRing ring;
    ASSERT_TRUE(ring.put(RecordKind::kTransaction, ring.producer.payload_bytes_max(), 1));
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.payload.size(), ring_record_bytes_max(kSmallRing) - sizeof(RecordHeader));
    EXPECT_DEATH((void)ring.claim(RecordKind::kTransaction, ring.producer.payload_bytes_max() + 1),
                 "payload_bytes");
}

// ---- a hostile client ---------------------------------------------------------------------------

struct Hostile {
    const char* what;
    std::uint32_t unit;
    std::uint32_t length_bytes;
    std::uint16_t kind;
};

TEST(Ring, NonsenseIsHostileAndMovesNothing) {
    const auto transaction = static_cast<std::uint16_t>(RecordKind::kTransaction);
    const auto padding = static_cast<std::uint16_t>(RecordKind::kPadding);
    const Hostile cases[] = {
        {"length 1", 0, 1, transaction},
        {"length one below a header", 0, 31, transaction},
        {"length one above half", 0, ring_record_bytes_max(kSmallRing) + 1, transaction},
        {"length of the whole ring", 0, kSmallRing, transaction},
        {"greatest length", 0, ~0u, transaction},
        {"negative length", 0, 0x80000000u, transaction},
        {"across the end", kUnits - 1, 65, transaction},
        {"padding across the end", kUnits - 1, 128, padding},
        {"padding in the middle", 0, 64, padding},
        {"padding that ends early", kUnits - 2, 64, padding},
        {"kind 0", 0, 64, 0},
        {"kind 7", 0, 64, 7},
        {"kind 65535", 0, 64, 0xffff},
    };
    for (const Hostile& each : cases) {
        TestRing ring{0, each.unit};
        ring.header_at(each.unit).kind = static_cast<RecordKind>(each.kind);
        ring.header_at(each.unit).length_bytes.store(each.length_bytes);
        EXPECT_EQ(ring.take(), TakeResult::kHostile) << each.what;
        EXPECT_NE(ring.consumer.hostile_reason(), nullptr) << each.what;
        EXPECT_EQ(ring.consumer.position(), each.unit) << each.what;
        // Once hostile, always: the client cannot take it back.
        ring.header_at(each.unit).length_bytes.store(0);
        EXPECT_EQ(ring.take(), TakeResult::kHostile) << each.what;
    }
}

TEST(Ring, EveryLengthIsEitherTakenWithinBoundsOrHostile) {
    for (std::uint32_t unit : {0u, 1u, kUnits - 9, kUnits - 8, kUnits - 1}) {
        for (std::uint32_t length = 1; length < kSmallRing + 200; ++length) {
            TestRing ring{0, unit};
            ring.header_at(unit).kind = RecordKind::kTransaction;
            ring.header_at(unit).length_bytes.store(length);
            const bool fits = length >= 32 && length <= ring_record_bytes_max(kSmallRing) &&
                              length <= (kUnits - unit) * kRingUnitBytes;
            ASSERT_EQ(ring.take(), fits ? TakeResult::kRecord : TakeResult::kHostile)
                << "unit " << unit << " length " << length;
        }
    }
}

TEST(Ring, HeaderFieldsOfAnyContentArriveAsTheyAre) {
    TestRing ring;
    const RingClaim place = ring.claim(RecordKind::kPageRequest, 4);
    std::memset(reinterpret_cast<std::byte*>(place.header) + 8, 0xee, 24);
    ring.producer.commit(place);
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.call_slot, 0xeeeeeeeeu);
    EXPECT_EQ(ring.taken.call_generation, 0xeeeeeeeeu);
    EXPECT_EQ(ring.taken.write_number, 0xeeeeeeeeeeeeeeeeu);
    EXPECT_EQ(ring.taken.decided_below, 0xeeeeeeeeeeeeeeeeu);
}

// A client that fills its ring with aborted records, and refills it while the engine skips them,
// does not keep the engine busy.
TEST(Ring, SkippingIsBoundedPerTake) {
    constexpr std::uint32_t kBytes = 1u << 20;
    std::vector<std::byte> memory(kBytes + kCacheLineBytes);
    const auto misplaced = reinterpret_cast<std::uintptr_t>(memory.data()) % kCacheLineBytes;
    std::byte* bytes = memory.data() + (kCacheLineBytes - misplaced) % kCacheLineBytes;
    RingControl control{};
    init_ring(control, 0);
    RingConsumer consumer{control, bytes, kBytes};
    for (std::uint32_t unit = 0; unit < kBytes / kRingUnitBytes; ++unit) {
        auto* header = reinterpret_cast<RecordHeader*>(bytes + unit * kRingUnitBytes);
        header->kind = RecordKind::kAborted;
        header->length_bytes.store(32);
    }
    std::vector<std::byte> buffer(ring_record_bytes_max(kBytes));
    TakenRecord record;
    EXPECT_EQ(consumer.take(buffer, record), TakeResult::kEmpty);
    EXPECT_TRUE(consumer.has_news());
    EXPECT_LT(consumer.position(), 1000u);
    EXPECT_GT(consumer.position(), 0u);
}

// Two records of half a ring that stand there again as soon as they were skipped kept the engine
// at one ring: skips were bounded by their number, each of them 2 MiB of lines to zero.
TEST(Ring, NoMoreThanTheRingHoldsIsTakenBeforeTheHeadMoves) {
    for (const bool ahead : {false, true}) {
        TestRing ring;
        const auto look = [&] {
            return ahead ? ring.consumer.take_page_request(ring.buffer, ring.taken) : ring.take();
        };
        const auto fill = [&] {
            for (const std::uint32_t unit : {0u, kUnits / 2}) {
                ring.header_at(unit).kind = RecordKind::kAborted;
                ring.header_at(unit).length_bytes.store(kSmallRing / 2);
            }
        };
        for (std::uint32_t lap = 1; lap <= 3; ++lap) {
            fill();
            EXPECT_EQ(look(), TakeResult::kEmpty);
            EXPECT_EQ(ring.consumer.position(), lap * kUnits);
            ring.consumer.publish_head();
        }
        fill();
        EXPECT_EQ(look(), TakeResult::kEmpty);
        fill();
        EXPECT_EQ(look(), TakeResult::kHostile) << ahead;
        EXPECT_EQ(ring.consumer.position(), 4 * kUnits);
    }
}

TEST(Ring, ConsumerKeepsItsOwnHead) {
    TestRing ring;
    ASSERT_TRUE(ring.put(RecordKind::kTransaction, 8, 1));
    ASSERT_TRUE(ring.put(RecordKind::kTransaction, 8, 2));
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    ring.control.head.store(0x12345678);
    ring.control.claim.store(~std::uint64_t{0});
    ASSERT_EQ(ring.take(), TakeResult::kRecord);
    EXPECT_EQ(ring.taken.payload[0], std::byte{2});
    ring.consumer.publish_head();
    EXPECT_EQ(ring.control.head.load(), ring.consumer.position());
}

// ---- threads ------------------------------------------------------------------------------------

// Payload bytes that tell producer, number in it, and length, and are checkable as a whole.
void fill_pattern(std::byte* payload, std::uint32_t bytes, std::uint32_t seed) {
    std::memcpy(payload, &seed, sizeof seed);
    for (std::uint32_t i = sizeof seed; i < bytes; ++i) {
        payload[i] = static_cast<std::byte>(seed * 31 + i);
    }
}
bool is_pattern(std::span<const std::byte> payload, std::uint32_t& seed) {
    std::memcpy(&seed, payload.data(), sizeof seed);
    for (std::uint32_t i = sizeof seed; i < payload.size(); ++i) {
        if (payload[i] != static_cast<std::byte>(seed * 31 + i)) return false;
    }
    return true;
}

constexpr std::uint32_t kProducers = 4;
constexpr std::uint32_t kRecordsEach = 20'000;

// Every fourth record is a page request, and half of these are aborted.
void produce(RingProducer& producer, std::uint32_t thread, std::uint64_t reference) {
    for (std::uint32_t i = 0; i < kRecordsEach; ++i) {
        const bool write = i % 4 != 3;
        const std::uint32_t seed = thread * kRecordsEach + i;
        ClaimRequest request{.payload_bytes = 4 + (seed * 7) % (producer.payload_bytes_max() - 3),
                             .call_slot = thread,
                             .call_generation = i,
                             .number_reference = reference};
        request.kind = write ? RecordKind::kTransaction : RecordKind::kPageRequest;
        RingClaim place;
        while (!(place = producer.try_claim(request))) std::this_thread::yield();
        fill_pattern(place.payload, place.payload_bytes, seed);
        if (!write && i % 8 == 3) {
            producer.abort(place);
        } else {
            producer.commit(place);
        }
    }
}

TEST(Ring, WriteNumbersOfManyThreadsAreInRingOrder) {
    const std::uint64_t last = (std::uint64_t{1} << 32) - 1000;  // crosses the low half
    TestRing ring{last, 0u - 1000};                              // and so does the position
    std::vector<std::thread> threads;
    for (std::uint32_t thread = 0; thread < kProducers; ++thread) {
        threads.emplace_back([&ring, thread] { produce(ring.producer, thread, last); });
    }
    std::uint64_t expected = last;
    std::uint32_t requests = 0;
    std::array<std::int64_t, kProducers> newest;
    newest.fill(-1);
    bool good = true;
    const std::uint64_t writes = kProducers * kRecordsEach / 4 * 3;
    const std::uint32_t requests_sent = kProducers * kRecordsEach / 8;
    while (good && (expected - last < writes || requests < requests_sent)) {
        const TakeResult result = ring.take();
        if (result == TakeResult::kEmpty) {
            ring.consumer.publish_head();
            std::this_thread::yield();
            continue;
        }
        std::uint32_t seed = 0;
        good = result == TakeResult::kRecord && is_pattern(ring.taken.payload, seed);
        const std::uint32_t thread = ring.taken.call_slot;
        good = good && thread == seed / kRecordsEach && newest[thread] < seed;
        newest[thread] = seed;
        if (ring.taken.kind == RecordKind::kTransaction) {
            good = good && ring.taken.write_number == ++expected;
        } else {
            good = good && ring.taken.write_number == 0;
            ++requests;
        }
    }
    // Producers that wait for room would wait for ever after a failure: make room.
    while (!good && ring.control.claim.load() >> 32 != ((last + writes) & 0xffffffff)) {
        ring.control.head.store(ring.claimed());
        std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(good) << "write " << expected << ", hostile: "
                      << (ring.consumer.hostile_reason() ? ring.consumer.hostile_reason() : "no");
    EXPECT_EQ(expected - last, writes);
    EXPECT_EQ(requests, requests_sent);
}

}  // namespace
}  // namespace bidstore
