#include "daemon/service.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "daemon/engine_thread.h"
#include "daemon/host_clients.h"
#include "daemon/log.h"
#include "daemon/server.h"
#include "engine/clock.h"
#include "engine/file_set.h"
#include "engine/thread_disk.h"
#include "engine/uring_disk.h"
#include "shm/stats.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kStatusIntervalNs = 5'000'000'000;
constexpr std::uint64_t kRoundNsMax = 1'000'000'000;

std::string milliseconds(std::uint64_t time_ns) {
    return std::to_string(time_ns / 1'000'000) + " ms";
}

// A descriptor that delivers SIGTERM and SIGINT, which no thread then gets otherwise.
Result<Descriptor> catch_stop_signals() {
    // A file that may not grow (RLIMIT_FSIZE) is a full one: an error of that write, no end.
    if (::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) {
        return {Error::kIoError, std::string("signals: ") + std::strerror(errno)};
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    Descriptor descriptor(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!descriptor) return {Error::kIoError, std::string("signals: ") + std::strerror(errno)};
    return descriptor;
}

// Three descriptors per client add up; what the host allows is asked for, and more is not needed.
void raise_descriptor_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

// 64 random bits, never 0: instance ids, uuids, salts.
std::uint64_t random_instance() {
    std::uint64_t instance = 0;
    while (instance == 0) {
        if (getrandom(&instance, sizeof instance, 0) < 0 && errno != EINTR) return 1;
    }
    return instance;
}

Result<std::unique_ptr<Disk>> open_disk(DiskKind kind, FileSet files) {
    if (kind == DiskKind::kThreads) return ThreadDisk::open(std::move(files));
    const Status usable = UringDisk::probe();
    if (usable || kind == DiskKind::kUring) return UringDisk::open(std::move(files));
    log_line(kLogWarning, usable.failure().what + ": goes on with disk = \"threads\"");
    return ThreadDisk::open(std::move(files));
}

// ---- the service --------------------------------------------------------------------------------

class Service {
  public:
    explicit Service(const Config& config) : config_(config) {}
    Status start(const DiskOver& over);
    ExitCode run();

  private:
    bool wait(std::uint64_t wait_ns);
    void on_stop_signal();
    void on_engine_report();
    Status open_server();
    void report_recovering(const std::string& state);
    void log_recovery(const Engine::Recovery& recovery);
    void report_status();
    void feed_watchdog();
    [[noreturn]] void give_up(const std::string& why);

    const Config& config_;
    HostClock clock_;
    Descriptor signals_;
    std::optional<AccessRules> rules_;
    std::optional<PoolSegment> pool_;  // the disk's requests lead into it
    std::unique_ptr<Disk> disk_;
    std::unique_ptr<HostClients> clients_;
    // Below what it uses: the thread is joined, and the server's segments go, before the rest.
    std::unique_ptr<Server> server_;
    std::unique_ptr<EngineThread> engine_;

    std::optional<ExitCode> exit_;
    std::uint64_t stop_deadline_ns_ = 0;  // 0: not stopping
    std::uint64_t next_status_ns_ = 0;
    std::uint64_t watchdog_ns_ = 0;  // 0: systemd does not watch
    std::uint64_t next_watchdog_ns_ = 0;
};

Status Service::start(const DiskOver& over) {
    raise_descriptor_limit();
    auto signals = catch_stop_signals();
    if (!signals) return signals.failure();
    signals_ = std::move(*signals);
    auto rules = AccessRules::resolve(config_);
    if (!rules) return rules.failure();
    rules_ = std::move(*rules);
    // Nothing that the daemon makes is for others, but for the socket, whose mode is a setting.
    umask(0077);
    auto files = FileSet::open(config_.directory, {.direct = true, .log = log_line});
    if (!files) return files.failure();
    auto disk = open_disk(config_.disk, std::move(*files));
    if (!disk) return disk.failure();
    disk_ = over ? over(std::move(*disk)) : std::move(*disk);

    PoolShape shape = pool_shape(config_);
    shape.instance_id = random_instance();
    std::string warning;
    auto pool = PoolSegment::create(shape, config_.huge_pages, config_.seal_pool_writes, &warning);
    if (!pool) return pool.failure();
    if (!warning.empty()) log_line(kLogWarning, warning);
    pool_.emplace(std::move(*pool));

    auto clients = HostClients::create();
    if (!clients) return clients.failure();
    clients_ = std::move(*clients);
    EngineOptions options = engine_options(config_);
    options.random = random_instance;
    options.log = log_line;
    auto engine = EngineThread::start(options, config_.engine_cpu, *disk_, *clients_, *pool_);
    if (!engine) return engine.failure();
    engine_ = std::move(*engine);
    return {};
}

ExitCode Service::run() {
    std::uint64_t watchdog_us = 0;
    if (sd_watchdog_enabled(0, &watchdog_us) > 0) watchdog_ns_ = watchdog_us * 1000;
    while (!exit_) {
        if (!wait(kRoundNsMax)) continue;
        if (stop_deadline_ns_ != 0 && clock_.monotonic_ns() >= stop_deadline_ns_) {
            give_up("the final checkpoint took longer than stop_timeout");
        }
        report_status();
        feed_watchdog();
    }
    engine_.reset();
    server_.reset();
    return *exit_;
}

// Waits for signals, the engine and clients, and serves them. False: nothing but that was due.
bool Service::wait(std::uint64_t wait_ns) {
    pollfd entries[3] = {
        {.fd = signals_.number(), .events = POLLIN, .revents = 0},
        {.fd = engine_->descriptor(), .events = POLLIN, .revents = 0},
        {.fd = server_ ? server_->descriptor() : -1, .events = POLLIN, .revents = 0}};
    if (watchdog_ns_ != 0) wait_ns = std::min(wait_ns, watchdog_ns_ / 4);
    if (server_) wait_ns = server_->wait_ns(std::min<std::uint64_t>(wait_ns, 100'000'000));
    poll(entries, 3, static_cast<int>((wait_ns + 999'999) / 1'000'000));
    if (entries[0].revents != 0) on_stop_signal();
    if (entries[1].revents != 0) on_engine_report();
    if (server_ && !exit_) server_->run_once(0);
    return !exit_;
}

void Service::on_stop_signal() {
    signalfd_siginfo signal{};
    if (read(signals_.number(), &signal, sizeof signal) != sizeof signal) return;
    if (stop_deadline_ns_ != 0) give_up("asked a second time to stop");
    if (!server_) give_up("asked to stop during recovery, which begins again at the next start");
    log_line(kLogInfo, "stopping: final checkpoint");
    sd_notify(0, "STOPPING=1\nSTATUS=stopping: final checkpoint");
    server_->stop_accepting();
    ClientCommand stop;
    stop.kind = ClientCommand::Kind::kStop;
    clients_->send(stop);
    stop_deadline_ns_ = clock_.monotonic_ns() + config_.stop_timeout_ns;
}

void Service::on_engine_report() {
    const EngineThread::Report report = engine_->report();
    switch (report.phase) {
        case EnginePhase::kRecovering:
            return report_recovering(report.recovering);
        case EnginePhase::kServing: {
            if (server_) return;
            log_recovery(report.recovery);
            const Status status = open_server();
            if (status) return;
            log_line(kLogError, status.failure().what);
            give_up("no socket, no clients");
        }
        case EnginePhase::kStopped:
            log_line(kLogInfo, "stopped: final checkpoint on disk");
            exit_ = ExitCode::kClean;
            return;
        case EnginePhase::kFailed:
            log_line(kLogError, report.failure.what);
            exit_ = exit_code_of(report.failure.code);
            return;
    }
}

// As long as recovery gets on it may take longer than the unit's TimeoutStartSec.
void Service::report_recovering(const std::string& state) {
    if (server_ || state.empty()) return;
    const std::string message =
        "EXTEND_TIMEOUT_USEC=" + std::to_string(kRecoveryStepNs / 1000) + "\nSTATUS=" + state;
    sd_notify(0, message.c_str());
}

void Service::log_recovery(const Engine::Recovery& recovery) {
    if (recovery.created) return log_line(kLogInfo, "new store in " + config_.directory);
    log_line(kLogInfo,
             "recovered " + config_.directory + " up to csn " +
                 std::to_string(recovery.recovered_csn) + ": " + std::to_string(recovery.batches) +
                 " batches, " + std::to_string(recovery.log_bytes) + " bytes of log in " +
                 milliseconds(recovery.elapsed_ns) + (recovery.clean ? " (clean stop)" : ""));
    const RecoveryTimes& times = recovery.times;
    log_line(kLogInfo,
             "recovery: files " + milliseconds(times.files_ns) + ", journal of " +
                 std::to_string(recovery.journal_pages) + " pages " +
                 milliseconds(times.journal_ns) + ", metadata " + milliseconds(times.metadata_ns) +
                 ", log reads " + milliseconds(times.read_ns) + ", replay of " +
                 std::to_string(recovery.records) + " records " + milliseconds(times.replay_ns) +
                 ", " + std::to_string(recovery.checkpoints) + " checkpoints in between " +
                 milliseconds(times.checkpoints_ns) + ", rest of the log " +
                 milliseconds(times.rest_ns) + ", end " + milliseconds(times.end_ns));
}

Status Service::open_server() {
    auto server = Server::open(server_options(config_), *rules_, *pool_, *clients_);
    if (!server) return server.failure();
    server_ = std::move(*server);
    log_line(kLogInfo, "serving on " + config_.socket);
    sd_notify(0, "READY=1\nSTATUS=serving");
    return {};
}

void Service::report_status() {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (!server_ || stop_deadline_ns_ != 0 || now_ns < next_status_ns_) return;
    next_status_ns_ = now_ns + kStatusIntervalNs;
    const std::string status = "STATUS=serving " + std::to_string(server_->client_count()) +
                               " clients, csn " +
                               std::to_string(counter_value(pool_->stats(), Counter::kCsnVisible));
    sd_notify(0, status.c_str());
}

// Tells systemd that the daemon is alive, as long as the engine's heart beats.
void Service::feed_watchdog() {
    if (watchdog_ns_ == 0 || !server_) return;
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (now_ns < next_watchdog_ns_) return;
    const std::uint64_t beat_ns = pool_->header().engine.heartbeat_ns.load();
    if (now_ns > beat_ns && now_ns - beat_ns > watchdog_ns_ / 2) return;
    next_watchdog_ns_ = now_ns + watchdog_ns_ / 4;
    sd_notify(0, "WATCHDOG=1");
}

// Ends the process without waiting for the engine. That is safe at any moment, as a crash is:
// what was acknowledged is in the log.
void Service::give_up(const std::string& why) {
    log_line(kLogWarning, why + ": exits; the next start recovers from the log");
    if (server_) server_->stop_accepting();
    std::_Exit(static_cast<int>(ExitCode::kEnvironment));
}

}  // namespace

ExitCode exit_code_of(Error error) {
    switch (error) {
        case Error::kOk:
            return ExitCode::kClean;
        case Error::kInvalid:
            return ExitCode::kConfig;
        case Error::kCorruption:
        case Error::kFenced:
            return ExitCode::kFenced;
        default:
            return ExitCode::kEnvironment;
    }
}

ExitCode run_service(const Config& config, const DiskOver& over) {
    Service service(config);
    if (Status status = service.start(over); !status) {
        log_line(kLogError, status.failure().what);
        return exit_code_of(status.error());
    }
    return service.run();
}

}  // namespace bidstore
