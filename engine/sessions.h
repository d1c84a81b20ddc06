// Sessions: which write numbers of each client were decided, so that a write that is sent again
// after a lost connection is applied exactly once.
//
// A session numbers its writes 1, 2, 3, ...; number n is taken only when n-1 was decided. The
// newest number decided is a row of the system table `sessions`, changed in the same batch as the
// write, so it is durable and visible together with it. Numbers that were refused and whose answer
// may not have arrived ride along in the row (column `refused`), so that "sent again" gets the same
// answer:
//
//   refused   entries of 4 bytes, ascending by number; bits from the lowest:
//             12  n - number (n: the row's number)
//             12  operation, or the lowest bits of kLimitLog to kNoOperation
//             8   error
//
// A refusal alone changes no row: lost in a crash, the write is evaluated anew.
//
// Who:    the engine thread alone.
// Bounds: a client has at most kUndecidedWritesMax writes from the oldest without a confirmed
// answer
//         to its newest, so the row has a place for each refusal among them. A client that goes
//         further while a refusal of its own is that old is hostile.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/catalog.h"
#include "engine/clients.h"
#include "engine/executor.h"
#include "shm/call_slot.h"
#include "shm/message.h"

namespace bidstore {

struct StoredRefusal {
    std::uint32_t bits;

    static constexpr std::uint32_t kAgeMax = 4095;
    // From here on the lowest bits of kLimitLog to kNoOperation.
    static constexpr std::uint32_t kNotAnOperation = kLimitLog & 4095;
};
static_assert(sizeof(StoredRefusal) == 4);
static_assert(kUndecidedWritesMax <= StoredRefusal::kAgeMax);
static_assert(kOperationsMax < StoredRefusal::kNotAnOperation && kErrorCount <= 256);

struct Refusal {
    std::uint64_t number = 0;
    Error error = Error::kOk;
    std::uint32_t operation = 0;  // or kNoOperation
};

class Session {
  public:
    Session(const SessionId& id, std::uint32_t uid) : id_(id), uid_(uid) {}

    const SessionId& id() const { return id_; }
    std::uint32_t uid() const { return uid_; }  // of the user whose session it is
    std::uint64_t decided() const { return decided_; }

    // What to do with write `number`.
    enum class Verdict : std::uint8_t {
        kNew,      // evaluate it
        kApplied,  // seen before and applied: say so when it is durable
        kRefused,  // seen before and refused: refusal() says how
        kGap,      // a number was skipped
        kTooFar,   // too many writes behind a refusal without a confirmed answer
    };
    // decided_below: the client has all answers to smaller numbers.
    Verdict judge(std::uint64_t number, std::uint64_t decided_below);
    const Refusal& refusal() const { return refusal_; }

    void applied(std::uint64_t number) { decided_ = number; }
    void refused(std::uint64_t number, Error error, std::uint32_t operation);

    // The row as it should be after `number` was applied at `now_us`, in the arena: without what
    // was refused behind it.
    std::span<const std::byte> row(std::uint64_t number, std::uint64_t now_us, Arena& arena) const;
    std::size_t row_bytes() const {
        return 8 + 8 + 4 + 2 + refused_.size() * sizeof(StoredRefusal);
    }
    static constexpr std::uint32_t kRowBytesAtMost =
        8 + 8 + 4 + 2 + sizeof(StoredRefusal) * kUndecidedWritesMax;
    static_assert(sizeof(SessionId) + kRowBytesAtMost <= kRowBytesMax);
    // Takes number and refusals from a row. False: that is not what row() writes.
    bool load(const std::byte* key, std::span<const std::byte> value);

    // Connections, as the engine counts them; a session without one is kept no longer than it is
    // in the open batch.
    std::uint32_t clients = 0;
    // Bookkeeping of the open batch (engine/commit.h).
    bool in_open_batch = false;
    std::uint64_t open_number = 0;   // the newest write that was applied in it
    std::size_t open_row_bytes = 0;  // of its row in the batch's version of the tree

  private:
    SessionId id_;
    std::uint32_t uid_;
    std::uint64_t decided_ = 0;
    std::deque<Refusal> refused_;  // ascending by number
    Refusal refusal_;
};

}  // namespace bidstore
