// The doorbell: one eventfd per client that wakes the engine after a ring has news. It carries no
// data, and it is rung only when the engine says that it sleeps.
//
// Who:    any client thread rings, after RingProducer::commit(); the engine thread sleeps.
// Crash:  a client that stops between commit and ring leaves its record to the engine's next round;
//         the engine's sleeps are bounded.
// Trust:  the descriptor is shared with the client, who may empty it or make it blocking: draining
//         never blocks and an empty doorbell is fine.
//
// Why no news is slept over, from both sides:
//
//   client thread                             engine
//   C1  commit(): length.store(release)       E1  sleeping.store(1)
//   C2  fence(seq_cst)                        E2  fence(seq_cst)
//   C3  sleeping.load() != 0? write eventfd   E3  has_news() of each ring? cancel; else sleep
//
//   Either C2 comes before E2, and E3 sees the record; or E2 before C2, and C3 sees the sleeper.
//   Behind a log write, and while it gathers relaxed writes, the engine naps without E1: nobody
//   rings, and a nap ends by itself within 100 us.
#pragma once

#include <cstdint>

#include "shm/atom.h"
#include "shm/error.h"
#include "shm/layout.h"
#include "shm/segment.h"

namespace bidstore {

// The daemon's: a new doorbell, for one client.
Result<Descriptor> make_doorbell();

// Rings unconditionally.
void ring_doorbell(int descriptor);

// Client, after commit(): rings when the engine sleeps.
inline void ring_if_sleeping(const EngineState& engine, int descriptor) {
    memory_fence<std::memory_order_seq_cst>();  // C2
    // Relaxed: the fence decides.
    if (engine.sleeping.load(std::memory_order_relaxed) != 0) [[unlikely]] {
        ring_doorbell(descriptor);  // C3
    }
}

// Daemon, after a sleep: empties the doorbell without ever blocking.
void drain_doorbell(int descriptor);

// The engine's word about its sleep. Between announce() and the sleep itself the engine looks at
// all its rings once more; then it sleeps or cancels.
class EngineSleep {
  public:
    explicit EngineSleep(EngineState& engine) : engine_(&engine) {}
    void announce() {
        engine_->sleeping.store(1, std::memory_order_relaxed);  // E1
        memory_fence<std::memory_order_seq_cst>();              // E2
    }
    // After the sleep, or instead of it. Relaxed: a client that sees it late rings for nothing.
    void cancel() { engine_->sleeping.store(0, std::memory_order_relaxed); }

  private:
    EngineState* engine_;
};

}  // namespace bidstore
