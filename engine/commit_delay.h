// How long a batch is kept back for writers who were just answered.
//
// Each of them who waits for his writes comes back at once. A batch that goes out without delay
// takes those along who came while the one before was in flight, half of them, and the two halves
// take turns at the device from then on: each writer waits for two log writes, not for one.
//
//   answered() ──► kept back until as many wait as could ──► went_out()
//                  or for a share of a log write's time
//
// Writers who think for a while are not worth waiting for: when less than half of those who were
// expected come, the next batches go out without delay, twice as many each time.
//
// Numbers alone: no clock, no I/O.
//
// Who:    the engine thread alone.
// Source: PostgreSQL's commit_delay and commit_siblings are the same idea with fixed numbers.
#pragma once

#include <cstdint>

namespace bidstore {

class CommitDelay {
  public:
    // A batch with so many waiters was answered, `write_ns` after it went out; `waiting` have come
    // into the next one meanwhile.
    void answered(std::uint64_t waiters, std::uint64_t waiting, std::uint64_t write_ns,
                  std::uint64_t now_ns);
    // Until when a batch with so many waiters is kept back; 0: it is not.
    std::uint64_t until_ns(std::uint64_t waiting) const {
        return waiting < expected_ ? until_ns_ : 0;
    }
    // The batch behind that one goes out.
    void went_out(std::uint64_t waiting);

    static constexpr std::uint64_t kMostNs = 100'000;
    static constexpr std::uint64_t kShareOfWrite = 2;       // that part of a log write's time
    static constexpr std::uint32_t kWithoutDelayMost = 64;  // batches, before it is tried again

  private:
    std::uint64_t write_ns_ = 0;  // averaged
    std::uint64_t expected_ = 0;  // waiters of the next batch, if all come back; 0: no delay
    std::uint64_t had_ = 0;       // of them, when the delay began
    std::uint64_t until_ns_ = 0;
    std::uint32_t without_ = 0;  // so many batches more have no delay
    std::uint32_t in_vain_ = 1;  // without_ after the next delay in vain
};

}  // namespace bidstore
