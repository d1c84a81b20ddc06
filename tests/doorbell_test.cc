#include "shm/doorbell.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

#include "shm/ring.h"

namespace bidstore {
namespace {

bool is_rung(int descriptor, int wait_ms = 0) {
    pollfd entry{descriptor, POLLIN, 0};
    return poll(&entry, 1, wait_ms) == 1;
}

Descriptor doorbell() {
    Result<Descriptor> made = make_doorbell();
    EXPECT_TRUE(made.ok());
    return std::move(*made);
}

TEST(Doorbell, IsRungOnlyWhenTheEngineSleeps) {
    const Descriptor bell = doorbell();
    EngineState engine{};
    EngineSleep sleep{engine};
    ring_if_sleeping(engine, bell.number());
    EXPECT_FALSE(is_rung(bell.number()));
    sleep.announce();
    ring_if_sleeping(engine, bell.number());
    EXPECT_TRUE(is_rung(bell.number()));
    sleep.cancel();
    drain_doorbell(bell.number());
    EXPECT_FALSE(is_rung(bell.number()));
    ring_if_sleeping(engine, bell.number());
    EXPECT_FALSE(is_rung(bell.number()));
}

TEST(Doorbell, ManyRingsAreDrainedAtOnce) {
    const Descriptor bell = doorbell();
    for (int i = 0; i < 100; ++i) ring_doorbell(bell.number());
    drain_doorbell(bell.number());
    EXPECT_FALSE(is_rung(bell.number()));
}

// The client shares the descriptor: it may empty it first, and it may make it blocking.
TEST(Doorbell, DrainingNeverBlocksWhateverTheClientDoes) {
    const Descriptor bell = doorbell();
    const int flags = fcntl(bell.number(), F_GETFL);
    ASSERT_EQ(fcntl(bell.number(), F_SETFL, flags & ~O_NONBLOCK), 0);
    drain_doorbell(bell.number());
    ring_doorbell(bell.number());
    drain_doorbell(bell.number());
    EXPECT_FALSE(is_rung(bell.number()));
}

TEST(Doorbell, RingingAClosedDoorbellIsHarmless) {
    ring_doorbell(-1);
    drain_doorbell(-1);
}

// The engine sleeps after each record; were news slept over, its wait would time out.
TEST(Doorbell, NoNewsIsSleptOver) {
    constexpr std::uint32_t kRecords = 5'000;
    constexpr std::uint32_t kBytes = 4096;
    const Descriptor bell = doorbell();
    EngineState engine{};
    RingControl control{};
    alignas(kCacheLineBytes) std::byte bytes[kBytes] = {};
    init_ring(control, 0);
    std::atomic<std::uint32_t> taken_count{0};
    std::thread client([&] {
        RingProducer producer{control, bytes, kBytes};
        for (std::uint32_t i = 0; i < kRecords; ++i) {
            producer.commit(producer.try_claim({.payload_bytes = 8, .number_reference = i}));
            ring_if_sleeping(engine, bell.number());
            // One record at a time: nothing but this ring would wake the engine.
            while (taken_count.load(std::memory_order_acquire) <= i) std::this_thread::yield();
        }
    });
    RingConsumer consumer{control, bytes, kBytes};
    EngineSleep sleep{engine};
    std::byte buffer[ring_record_bytes_max(kBytes)];
    TakenRecord record;
    std::uint32_t slept_over = 0;
    for (std::uint32_t taken = 0; taken < kRecords;) {
        if (consumer.take(buffer, record) == TakeResult::kRecord) {
            consumer.publish_head();
            taken_count.store(++taken, std::memory_order_release);
            continue;
        }
        sleep.announce();
        if (!consumer.has_news() && !is_rung(bell.number(), 10'000)) ++slept_over;
        sleep.cancel();
        drain_doorbell(bell.number());
    }
    client.join();
    EXPECT_EQ(slept_over, 0u);
}

}  // namespace
}  // namespace bidstore
