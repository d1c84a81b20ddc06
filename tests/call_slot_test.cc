#include "shm/call_slot.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <thread>
#include <vector>

namespace bidstore {
namespace {

constexpr std::uint32_t kSlots = 64;

struct TestCalls {
    RingControl control{};
    std::vector<CallSlot> slots = std::vector<CallSlot>(kSlots);
    Answers answers;

    std::array<AwaitedCall, 1> awaited(std::uint32_t slot, std::uint32_t generation) {
        return {AwaitedCall{&slots[slot], slot, generation}};
    }
    bool wait(std::uint32_t slot, std::uint32_t generation, std::uint64_t deadline_ns) {
        return wait_for_answer(control, awaited(slot, generation), deadline_ns);
    }
    void finish_and_wake() {
        if (const std::uint32_t bits = answers.finish(control)) futex_wake(control.answered, bits);
    }
};

std::uint64_t after_ns(std::uint64_t duration_ns) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(std::chrono::nanoseconds{now}.count()) + duration_ns;
}

TEST(CallSlot, AnswerArrivesWhole) {
    TestCalls calls;
    EXPECT_FALSE(is_answered(calls.slots[3], 1));
    const std::int64_t results[] = {-5, 7};
    calls.answers.give(calls.slots.data(), 3, 1, Error::kBelowFloor, 99, 4, results);
    ASSERT_TRUE(is_answered(calls.slots[3], 1));
    const Answer answer = read_answer(calls.slots[3]);
    EXPECT_EQ(answer.error, Error::kBelowFloor);
    EXPECT_EQ(answer.csn, 99u);
    EXPECT_EQ(answer.failed_operation, 4u);
    ASSERT_EQ(answer.result_count, 2u);
    EXPECT_EQ(answer.result[0], -5);
    EXPECT_EQ(answer.result[1], 7);
}

TEST(CallSlot, AnswerOfAnotherGenerationIsNotOurs) {
    TestCalls calls;
    calls.answers.give(calls.slots.data(), 3, 1, Error::kOk);
    EXPECT_FALSE(is_answered(calls.slots[3], 2));
    EXPECT_FALSE(calls.wait(3, 2, after_ns(1'000'000)));
}

// Its memory may go between the look and the copy; zeros would read as "ok".
TEST(CallSlot, AnswerThatGoesWithTheSegmentIsNone) {
    TestCalls calls;
    CallSlot& slot = calls.slots[3];
    const std::int64_t results[] = {5};
    calls.answers.give(calls.slots.data(), 3, 1, Error::kBelowFloor, 99, 4, results);
    EXPECT_EQ(read_answer(slot, 1).error, Error::kBelowFloor);
    ASSERT_TRUE(is_answered(slot, 1));
    slot.error = slot.failed_operation = slot.result_count = 0;
    slot.answered_generation.store(0);
    EXPECT_EQ(read_answer(slot, 1).error, Error::kUnknownOutcome);
}

TEST(CallSlot, ALoneCallerLingersForItsAnswer) {
    TestCalls calls;
    Linger linger;
    EXPECT_FALSE(linger.for_answer(calls.control, calls.awaited(3, 1)));  // nobody answers
    calls.answers.give(calls.slots.data(), 3, 1, Error::kOk);
    EXPECT_TRUE(linger.for_answer(calls.control, calls.awaited(3, 1)));
    // After a time for nothing the next two calls wait briefly; the third waits awake again, and
    // here as long as it takes: a machine may put the answering thread aside.
    EXPECT_FALSE(linger.for_answer(calls.control, calls.awaited(3, 2)));
    EXPECT_FALSE(linger.for_answer(calls.control, calls.awaited(3, 2)));
    bool seen = false;
    for (std::uint32_t call = 2; call < 100'000 && !seen; ++call) {
        std::thread engine([&] { calls.answers.give(calls.slots.data(), 3, call, Error::kOk); });
        seen = !is_answered(calls.slots[3], call) &&
               linger.for_answer(calls.control, calls.awaited(3, call));
        engine.join();
    }
    EXPECT_TRUE(seen);
}

TEST(CallSlot, NobodyLingersBeyondTheDeadline) {
    TestCalls calls;
    for (int again = 0; again < 20; ++again) {
        Linger linger;
        const std::uint64_t begin = after_ns(0);
        EXPECT_FALSE(linger.for_answer(calls.control, calls.awaited(3, 1), begin));
        // A machine may put us aside, but not twenty times.
        if (after_ns(0) - begin < Linger::kAwakeNsMax) return;
    }
    FAIL();
}

TEST(CallSlot, NobodyLingersWhileOthersSleep) {
    TestCalls calls;
    Linger linger;
    calls.control.waiters = 1;
    const std::uint64_t begin = after_ns(0);
    for (std::uint32_t call = 1; call < 1'000; ++call) {
        EXPECT_FALSE(linger.for_answer(calls.control, calls.awaited(3, call)));
    }
    calls.control.waiters = 0;
    // None of them was held against the device: the next one lingers.
    EXPECT_FALSE(linger.for_answer(calls.control, calls.awaited(3, 1'000)));
    EXPECT_GE(after_ns(0) - begin, Linger::kAwakeNsMax);
}

// Another thread collected our answer and used the slot again before we came to look.
TEST(CallSlot, AnswerOfALaterCallEndsTheWaitForAnEarlierOne) {
    TestCalls calls;
    calls.answers.give(calls.slots.data(), 3, 2, Error::kOk);
    EXPECT_TRUE(calls.wait(3, 1, after_ns(1'000'000)));
    calls.answers.give(calls.slots.data(), 3, 1, Error::kOk);
    EXPECT_TRUE(calls.wait(3, ~0u, after_ns(1'000'000)));  // generations wrap
}

TEST(CallSlot, ResultsBeyondTheSlotAreCutOff) {
    TestCalls calls;
    const std::vector<std::int64_t> results(100, 1);
    calls.answers.give(calls.slots.data(), 3, 1, Error::kOk, 0, kNoOperation, results);
    EXPECT_EQ(read_answer(calls.slots[3]).result_count, kCallResults);
    calls.slots[3].result_count = ~0u;
    EXPECT_EQ(read_answer(calls.slots[3]).result_count, kCallResults);
}

// Who asks again as soon as anything came sleeps for all of its calls at once.
TEST(CallSlot, AnyOfSeveralAnswersEndsTheWait) {
    TestCalls calls;
    const std::array<AwaitedCall, 3> several = {calls.awaited(1, 1)[0], calls.awaited(2, 1)[0],
                                                calls.awaited(40, 1)[0]};
    EXPECT_FALSE(wait_for_answer(calls.control, several, after_ns(1'000'000)));
    for (const AwaitedCall& call : several) {
        std::thread waiter([&] {
            EXPECT_TRUE(wait_for_answer(calls.control, several, after_ns(60'000'000'000)));
        });
        while (calls.control.waiters.load() == 0) std::this_thread::yield();
        calls.answers.give(calls.slots.data(), call.slot_index, 1, Error::kOk);
        calls.finish_and_wake();
        waiter.join();
        calls.slots[call.slot_index].answered_generation.store(0);
    }
    EXPECT_EQ(calls.control.waiters.load(), 0u);
}

TEST(CallSlot, TimedOutWaitLeavesNoWaiter) {
    TestCalls calls;
    EXPECT_FALSE(calls.wait(0, 1, 0)) << "a deadline in the past";
    EXPECT_FALSE(calls.wait(0, 1, after_ns(2'000'000)));
    EXPECT_EQ(calls.control.waiters.load(), 0u);
    calls.answers.give(calls.slots.data(), 0, 1, Error::kOk);
    EXPECT_EQ(calls.answers.finish(calls.control), 0u) << "nobody sleeps, nobody is woken";
    EXPECT_TRUE(calls.wait(0, 1, 0)) << "an answer that is there needs no time";
}

TEST(CallSlot, RoundWithoutAnswersChangesNothing) {
    TestCalls calls;
    calls.control.waiters.store(1);
    EXPECT_FALSE(calls.answers.pending());
    EXPECT_EQ(calls.answers.finish(calls.control), 0u);
    EXPECT_EQ(calls.control.answered.load(), 0u);
}

TEST(CallSlot, RoundWakesOnceForAllItsAnswers) {
    TestCalls calls;
    calls.control.waiters.store(2);
    calls.answers.give(calls.slots.data(), 1, 1, Error::kOk);
    calls.answers.give(calls.slots.data(), 33, 1, Error::kOk);
    calls.answers.give(calls.slots.data(), 5, 1, Error::kOk);
    EXPECT_TRUE(calls.answers.pending());
    EXPECT_EQ(calls.answers.finish(calls.control), (1u << 1) | (1u << 5));
    EXPECT_EQ(calls.control.answered.load(), 1u);
    EXPECT_FALSE(calls.answers.pending());
}

TEST(CallSlot, SleeperIsWoken) {
    TestCalls calls;
    std::atomic<bool> woken{false};
    std::thread sleeper([&] { woken.store(calls.wait(40, 7, kNoDeadline)); });
    while (calls.control.waiters.load() == 0) std::this_thread::yield();
    calls.answers.give(calls.slots.data(), 40, 7, Error::kOk);
    calls.finish_and_wake();
    sleeper.join();
    EXPECT_TRUE(woken.load());
    EXPECT_EQ(calls.control.waiters.load(), 0u);
}

// A lost wake would leave a thread asleep: with no deadline it would sleep for ever, so a far one
// turns that into a failure.
TEST(CallSlot, NoWakeIsLostBetweenManyThreads) {
    constexpr std::uint32_t kThreads = 6;  // slots 0, 8, ..., 40: two of them share a bit
    constexpr std::uint32_t kCalls = 4'000;
    TestCalls calls;
    struct alignas(kCacheLineBytes) Asked {
        std::atomic<std::uint32_t> generation{0};
    };
    std::vector<Asked> asked(kThreads);
    std::atomic<std::uint32_t> lost{0};
    std::vector<std::thread> threads;
    for (std::uint32_t thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
            for (std::uint32_t generation = 1; generation <= kCalls; ++generation) {
                asked[thread].generation.store(generation, std::memory_order_release);
                if (!calls.wait(thread * 8, generation, after_ns(20'000'000'000)))
                    lost.fetch_add(1);
                if (read_answer(calls.slots[thread * 8]).csn != generation) lost.fetch_add(1);
            }
        });
    }
    std::vector<std::uint32_t> answered(kThreads, 0);
    for (std::uint32_t done = 0; done < kThreads * kCalls;) {
        for (std::uint32_t thread = 0; thread < kThreads; ++thread) {
            const std::uint32_t generation =
                asked[thread].generation.load(std::memory_order_acquire);
            if (generation == answered[thread]) continue;
            answered[thread] = generation;
            calls.answers.give(calls.slots.data(), thread * 8, generation, Error::kOk, generation);
            ++done;
        }
        calls.finish_and_wake();
        if (done % 7 == 0) std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(lost.load(), 0u);
    EXPECT_EQ(calls.control.waiters.load(), 0u);
}

}  // namespace
}  // namespace bidstore
