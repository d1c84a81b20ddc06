// Call slots: where the answer to one record of the ring comes back, and how its thread sleeps.
//
// Who:    client threads wait and read; the engine thread answers. Which slots are free is the
//         client's own, process-local knowledge.
// Owns:   nothing; the segment outlives the views.
// Order:  an answer is visible once answered_generation shows the call's generation (release by the
//         engine, acquire by the client).
// Crash:  a waiting thread that dies leaves `waiters` too high: wakes for nobody, nothing worse.
// Rule:   a slot is used again only after its answer came. The engine may answer a call late, after
//         its client gave up waiting, and would overwrite the answer of the slot's next call.
//
// Generations are 32 bits, never 0, and grow (wrapping) from call to call in one slot.
//
// Why no wake is lost, from both sides (one word `answered` per client, so that a round of many
// answers costs one system call):
//
//   client thread                             engine, once a round and client
//   C1  a = answered                          E1  answered_generation = g, of each answer
//   C2  waiters += 1                          E2  answered += 1
//   C3  fence(seq_cst)                        E3  fence(seq_cst)
//   C4  answered_generation == g? done        E4  waiters != 0? wake the bits of the round
//   C5  sleep while answered == a
//   C6  waiters -= 1, however the sleep ended
//
//   C3 before E3: E4 sees the waiter and wakes. A thread between C4 and C5 then is not asleep, but
//   C5 compares `answered` with a value read before E2, and does not fall asleep. E3 before C3: C4
//   sees E1.
//   Each waiter sleeps on the bit slot % 32; waiters that share a bit look again and go back to
//   sleep.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>

#include "shm/atom.h"
#include "shm/base.h"
#include "shm/error.h"
#include "shm/layout.h"

namespace bidstore {

inline constexpr std::uint64_t kNoDeadline = ~std::uint64_t{0};
inline constexpr std::uint32_t kNoOperation = ~std::uint32_t{0};
// In its place with kTooLarge: which limit of the store the transaction as a whole passes.
inline constexpr std::uint32_t kLimitPool = kNoOperation - 1;
inline constexpr std::uint32_t kLimitJournal = kNoOperation - 2;
inline constexpr std::uint32_t kLimitLog = kNoOperation - 3;

constexpr std::uint32_t call_bit(std::uint32_t slot_index) { return 1u << (slot_index % 32); }

// ---- client ----

// Whether this call, or a later one in its slot, was answered: another thread may have collected
// the answer and used the slot again before a thread that waits for it comes to look.
inline bool is_answered(const CallSlot& slot, std::uint32_t generation) {
    const std::uint32_t newest = slot.answered_generation.load(std::memory_order_acquire);
    return newest != 0 && newest - generation < (1u << 31);
}

// A call that somebody waits for.
struct AwaitedCall {
    const CallSlot* slot = nullptr;
    std::uint32_t slot_index = 0;
    std::uint32_t generation = 0;
};

inline bool any_answered(std::span<const AwaitedCall> calls) {
    return std::any_of(calls.begin(), calls.end(), [](const AwaitedCall& call) {
        return is_answered(*call.slot, call.generation);
    });
}

// C1 to C6. `sleep` sleeps while the word has the value, until it is woken with one of the bits,
// and returns false when its deadline passed.
template <class Sleep>
bool wait_for_answer_by(RingControl& control, std::span<const AwaitedCall> calls, Sleep sleep) {
    if (any_answered(calls)) return true;
    std::uint32_t bits = 0;
    for (const AwaitedCall& call : calls) bits |= call_bit(call.slot_index);
    for (;;) {
        const std::uint32_t answered = control.answered.load(std::memory_order_acquire);  // C1
        control.waiters.fetch_add(1, std::memory_order_relaxed);                          // C2
        memory_fence<std::memory_order_seq_cst>();                                        // C3
        const bool slept = any_answered(calls) ||                                         // C4
                           sleep(control.answered, answered, bits);                       // C5
        control.waiters.fetch_sub(1, std::memory_order_relaxed);                          // C6
        if (any_answered(calls)) return true;
        if (!slept) return false;
    }
}

// True when one of the answers is there, false when the deadline (CLOCK_MONOTONIC, ns) passed
// first. A daemon that dies wakes nobody: whoever must notice that waits in slices and looks in
// between.
bool wait_for_answer(RingControl& control, std::span<const AwaitedCall> calls,
                     std::uint64_t deadline_ns);

// Waiting awake for an answer that a fast device brings about as soon as a thread can be woken: to
// sleep and to be woken costs some ten microseconds (more on a virtual machine), which a lone
// reader's miss would pay in full, and behind which a device that answers in bursts has nothing to
// do. `kAwakeNsMax` at most, giving way to whoever wants the processor, and only while no other
// thread of the process waits: with several, the processor is of more use to them. Where that was
// not enough, the next calls wait `kBriefNsMax`, as long as answers of a burst are apart; more of
// them each time.
// Thread-safe; the object belongs to one connection of the client.
class Linger {
  public:
    static constexpr std::uint64_t kAwakeNsMax = 1'000'000;
    static constexpr std::uint64_t kBriefNsMax = 40'000;

    // True: one of the answers is there. False: sleep for it (wait_for_answer), or the deadline
    // (CLOCK_MONOTONIC, ns) passed.
    bool for_answer(const RingControl& control, std::span<const AwaitedCall> calls,
                    std::uint64_t deadline_ns = kNoDeadline);

  private:
    static constexpr std::uint32_t kBriefMax = 64;

    std::atomic_flag taken_;
    // What follows belongs to whoever has taken it.
    std::uint32_t brief_ = 0;  // calls still that wait briefly
    std::uint32_t brief_next_ = 1;
};

// A copy of an answer, made after is_answered().
struct Answer {
    Error error = Error::kOk;
    std::uint64_t csn = 0;
    std::uint32_t failed_operation = kNoOperation;
    std::uint32_t result_count = 0;  // at most kCallResults
    std::int64_t result[kCallResults] = {};
};

inline Answer read_answer(const CallSlot& slot) {
    Answer answer;
    answer.error = static_cast<Error>(slot.error);
    answer.csn = slot.csn;
    answer.failed_operation = slot.failed_operation;
    answer.result_count = std::min(slot.result_count, kCallResults);
    std::copy_n(slot.result, answer.result_count, answer.result);
    return answer;
}

// The same for a client, whose daemon takes a segment's memory back when it has let go of it: what
// turns to zeros while it is copied is no answer, and its outcome is not known.
static_assert(kPageBytes % sizeof(CallSlot) == 0);  // all of a slot goes at one time
inline Answer read_answer(const CallSlot& slot, std::uint32_t generation) {
    const Answer answer = read_answer(slot);
    // Acquire: the generation is loaded behind all that was copied.
    memory_fence<std::memory_order_acquire>();
    if (is_answered(slot, generation)) return answer;
    Answer gone;
    gone.error = Error::kUnknownOutcome;
    return gone;
}

// ---- engine ----

// The answers of one round to one client. Engine thread only.
class Answers {
  public:
    // slots[slot_index] is within the client's call slots: the caller checked the client's word.
    // Results beyond kCallResults are not sent.
    void give(CallSlot* slots, std::uint32_t slot_index, std::uint32_t generation, Error error,
              std::uint64_t csn = 0, std::uint32_t failed_operation = kNoOperation,
              std::span<const std::int64_t> results = {}) {
        CallSlot& slot = slots[slot_index];
        slot.error = static_cast<std::uint32_t>(error);
        slot.csn = csn;
        slot.failed_operation = failed_operation;
        const std::size_t count = std::min<std::size_t>(results.size(), kCallResults);
        slot.result_count = static_cast<std::uint32_t>(count);
        std::copy_n(results.data(), count, slot.result);
        slot.answered_generation.store(generation, std::memory_order_release);  // E1
        bits_ |= call_bit(slot_index);
    }

    // Ends the round. The bits to wake on control.answered (Clients::wake), 0 when nobody sleeps.
    std::uint32_t finish(RingControl& control) {
        if (bits_ == 0) return 0;
        const std::uint32_t bits = bits_;
        bits_ = 0;
        control.answered.fetch_add(1, std::memory_order_release);  // E2
        memory_fence<std::memory_order_seq_cst>();                 // E3
        // Relaxed: the fence decides.
        return control.waiters.load(std::memory_order_relaxed) != 0 ? bits : 0;  // E4
    }

    bool pending() const { return bits_ != 0; }

  private:
    std::uint32_t bits_ = 0;
};

// Wakes all that sleep on `word` (in a shared mapping) with a bit of `bits`.
void futex_wake(Atom<std::uint32_t>& word, std::uint32_t bits);

}  // namespace bidstore
