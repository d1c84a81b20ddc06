#include "shm/call_slot.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <ctime>

namespace bidstore {
namespace {

static_assert(sizeof(Atom<std::uint32_t>) == sizeof(std::uint32_t));

timespec to_timespec(std::uint64_t time_ns) {
    timespec time{};
    time.tv_sec = static_cast<time_t>(time_ns / 1'000'000'000);
    time.tv_nsec = static_cast<long>(time_ns % 1'000'000'000);
    return time;
}

enum class Sleep { kWoken, kTimedOut };

// Sleeps while word == expected. The deadline is absolute, so that spurious wakes do not extend it.
Sleep futex_wait(Atom<std::uint32_t>& word, std::uint32_t expected, std::uint32_t bits,
                 std::uint64_t deadline_ns) {
    const timespec deadline = to_timespec(deadline_ns);
    const timespec* until = deadline_ns == kNoDeadline ? nullptr : &deadline;
    const long rc = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, expected, until, nullptr, bits);
    return rc != 0 && errno == ETIMEDOUT ? Sleep::kTimedOut : Sleep::kWoken;
}

std::uint64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

bool spin_for_answer(const RingControl& control, std::span<const AwaitedCall> calls,
                     std::uint64_t until_ns) {
    constexpr int kLooksBetweenClocks = 32;
    do {
        ::sched_yield();  // to whoever else wants this processor, the engine first of all
        if (control.waiters.load(std::memory_order_relaxed) != 0) return false;
        for (int look = 0; look < kLooksBetweenClocks; ++look) {
            if (any_answered(calls)) return true;
            __builtin_ia32_pause();
        }
    } while (now_ns() < until_ns);
    return false;
}

}  // namespace

bool wait_for_answer(RingControl& control, std::span<const AwaitedCall> calls,
                     std::uint64_t deadline_ns) {
    return wait_for_answer_by(
        control, calls,
        [deadline_ns](Atom<std::uint32_t>& word, std::uint32_t expected, std::uint32_t bits) {
            return futex_wait(word, expected, bits, deadline_ns) != Sleep::kTimedOut;
        });
}

bool Linger::for_answer(const RingControl& control, std::span<const AwaitedCall> calls,
                        std::uint64_t deadline_ns) {
    if (any_answered(calls)) return true;
    if (control.waiters.load(std::memory_order_relaxed) != 0) return false;
    if (taken_.test_and_set(std::memory_order_acquire)) return false;
    const bool brief = brief_ > 0;
    const std::uint64_t awake_ns = brief ? kBriefNsMax : kAwakeNsMax;
    const std::uint64_t until_ns = std::min(now_ns() + awake_ns, deadline_ns);
    const bool answered = spin_for_answer(control, calls, until_ns);
    if (brief) {
        --brief_;
    } else {
        brief_next_ = answered ? 1 : std::min(brief_next_ * 2, kBriefMax);
        if (!answered) brief_ = brief_next_;
    }
    taken_.clear(std::memory_order_release);
    return answered;
}

void futex_wake(Atom<std::uint32_t>& word, std::uint32_t bits) {
    // It fails only for a word that is not mapped, which would be our own mistake.
    const long rc = syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, INT_MAX, nullptr, nullptr, bits);
    CHECK(rc >= 0);
}

}  // namespace bidstore
