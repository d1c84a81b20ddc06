// The thread that opens, runs and ends the engine.
//
// Who:    the main thread makes it, reads its report and joins it; everything about the engine
//         itself happens on the thread, from recovery to destruction.
// Ends:   by a kStop command (final checkpoint), or because the engine failed or is fenced. It
//         cannot be cut off: a process that does not want to wait exits, and recovers later.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "daemon/host_clients.h"
#include "engine/disk.h"
#include "engine/engine.h"
#include "shm/segment.h"

namespace bidstore {

enum class EnginePhase : std::uint8_t {
    kRecovering,
    kServing,
    kStopped,  // final checkpoint on disk
    kFailed,   // the report's failure says why: it did not open, or it is fenced
};

class EngineThread {
  public:
    struct Report {
        EnginePhase phase = EnginePhase::kRecovering;
        Failure failure;
        Engine::Recovery recovery;
        std::string recovering;  // what it is doing, while that takes long
    };

    // cpu: the core it is pinned to, or -1. What is passed in outlives the thread.
    static Result<std::unique_ptr<EngineThread>> start(const EngineOptions& options, int cpu,
                                                       Disk& disk, HostClients& clients,
                                                       PoolSegment& pool);
    // Waits for the thread: it has ended, or was told to stop.
    ~EngineThread();

    // Readable after the report changed, until it was asked for.
    int descriptor() const { return bell_.number(); }
    Report report();

  private:
    EngineThread(const EngineOptions& options, int cpu, Disk& disk, HostClients& clients,
                 PoolSegment& pool)
        : options_(options), cpu_(cpu), disk_(disk), clients_(clients), pool_(pool) {}
    void run();
    Status pin() const;
    void tell_recovering(const std::string& state);
    void enter(EnginePhase phase, Failure failure = {});

    EngineOptions options_;
    int cpu_;
    Disk& disk_;
    HostClients& clients_;
    PoolSegment& pool_;
    Descriptor bell_;
    std::mutex mutex_;  // report_
    Report report_;
    std::thread thread_;
};

}  // namespace bidstore
