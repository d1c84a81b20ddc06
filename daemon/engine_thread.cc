#include "daemon/engine_thread.h"

#include <pthread.h>
#include <sched.h>

#include <cstring>
#include <string>
#include <utility>

#include "engine/clock.h"
#include "shm/doorbell.h"

namespace bidstore {
namespace {

// The longest sleep of an idle engine: its heartbeat is not older than this and a little.
constexpr std::uint64_t kSleepNsMax = 100'000'000;

}  // namespace

Result<std::unique_ptr<EngineThread>> EngineThread::start(const EngineOptions& options, int cpu,
                                                          Disk& disk, HostClients& clients,
                                                          PoolSegment& pool) {
    Result<Descriptor> bell = make_doorbell();
    if (!bell) return bell.failure();
    std::unique_ptr<EngineThread> engine(new EngineThread(options, cpu, disk, clients, pool));
    engine->bell_ = std::move(*bell);
    engine->thread_ = std::thread([self = engine.get()] { self->run(); });
    return engine;
}

EngineThread::~EngineThread() {
    if (thread_.joinable()) thread_.join();
}

EngineThread::Report EngineThread::report() {
    drain_doorbell(bell_.number());
    const std::lock_guard lock(mutex_);
    return report_;
}

void EngineThread::run() {
    pthread_setname_np(pthread_self(), "engine");
    if (Status status = pin(); !status) return enter(EnginePhase::kFailed, status.failure());
    // On this thread, because the disk belongs to the thread that calls it first.
    disk_.set_wake_descriptor(clients_.wake_descriptor());
    HostClock clock;
    options_.progress = [this](const std::string& state) { tell_recovering(state); };
    auto engine = Engine::open(options_, disk_, clock, clients_, pool_);
    if (!engine) return enter(EnginePhase::kFailed, engine.failure());
    {
        const std::lock_guard lock(mutex_);
        report_.recovery = (*engine)->recovery();
    }
    enter(EnginePhase::kServing);
    EngineRound round = EngineRound::kIdle;
    while (round == EngineRound::kIdle || round == EngineRound::kWorked) {
        round = (*engine)->run_once(kSleepNsMax);
        // Awake for what may come in a moment: to whoever wants this processor meanwhile.
        if (round == EngineRound::kIdle) ::sched_yield();
    }
    if (round == EngineRound::kStopped) {
        enter(EnginePhase::kStopped);
    } else {
        enter(EnginePhase::kFailed, {Error::kFenced, (*engine)->fence_reason()});
    }
    Engine::end(std::move(*engine));
}

Status EngineThread::pin() const {
    if (cpu_ < 0) return {};
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<std::size_t>(cpu_), &cpus);
    const int error = pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    if (error == 0) return {};
    return {Error::kUnsupported, "engine_cpu = " + std::to_string(cpu_) + ": " +
                                     std::strerror(error) +
                                     " (the host has no such core, or the service's AllowedCPUs "
                                     "leave it out; -1 pins to none)"};
}

void EngineThread::tell_recovering(const std::string& state) {
    {
        const std::lock_guard lock(mutex_);
        report_.recovering = state;
    }
    ring_doorbell(bell_.number());
}

void EngineThread::enter(EnginePhase phase, Failure failure) {
    {
        const std::lock_guard lock(mutex_);
        report_.phase = phase;
        report_.failure = std::move(failure);
    }
    ring_doorbell(bell_.number());
}

}  // namespace bidstore
