#include "daemon/verify_command.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/log.h"
#include "engine/clock.h"
#include "engine/dry_disk.h"
#include "engine/file_set.h"
#include "engine/rebuild.h"
#include "engine/thread_disk.h"
#include "engine/verify_files.h"
#include "engine/verify_online.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kProgressNs = 500'000'000;

ExitCode refuse(const Failure& failure) {
    log_line(kLogError, failure.what);
    return exit_code_of(failure.code);
}

// Opening would make files that are missing.
Status files_are_there(const std::string& directory) {
    for (std::uint32_t i = 0; i < kStoreFileCount; ++i) {
        const std::string path = directory + "/" + store_file_name(static_cast<StoreFile>(i));
        std::error_code error;
        if (std::filesystem::exists(path, error)) continue;
        return {Error::kNotBidstore, path + " is not there: " + directory + " holds no store"};
    }
    return {};
}

Result<PoolSegment> make_pool(const Config& config, std::uint64_t pool_bytes) {
    PoolShape shape = pool_shape(config);
    shape.frame_count = static_cast<std::uint32_t>(pool_bytes / kPageBytes + 1);
    // Half of a pool may be metadata, as with the daemon's own.
    shape.frame_count = std::max(shape.frame_count, 2 * (shape.page_count / kChunkPages) + 1024);
    shape.instance_id = 1;
    shape.directory_bytes = 0;  // nobody reads by it
    return PoolSegment::create(shape, HugePages::kOff, false);
}

class Progress {
  public:
    explicit Progress(Clock& clock) : clock_(clock), terminal_(::isatty(STDERR_FILENO) == 1) {}
    ~Progress() { clear(); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    void show(std::uint64_t pages) {
        const std::uint64_t now_ns = clock_.monotonic_ns();
        if (!terminal_ || now_ns < next_ns_) return;
        next_ns_ = now_ns + kProgressNs;
        shown_ = true;
        std::fprintf(stderr, "\r%" PRIu64 " pages verified\x1b[K", pages);
    }
    void clear() {
        if (shown_) std::fputs("\r\x1b[K", stderr);
        shown_ = false;
    }

  private:
    Clock& clock_;
    bool terminal_;
    bool shown_ = false;
    std::uint64_t next_ns_ = 0;
};

EngineOptions options_of(const Config& config) {
    EngineOptions options = engine_options(config);
    options.log = log_line;
    return options;
}

// With the least pool that the log's replay has enough of: a record may need very many pages at
// once, a range that was deleted, and what was enough for the daemon is its own pool. `pool_bytes`
// becomes what was enough.
template <class Report>
Result<Report> in_pool(const Config& config, std::uint64_t& pool_bytes, Progress& progress,
                       const std::function<Result<Report>(PoolSegment& pool)>& attempt) {
    for (;;) {
        pool_bytes = std::min(config.pool_bytes, pool_bytes);
        auto pool = make_pool(config, pool_bytes);
        if (!pool) return pool.failure();
        Result<Report> report = attempt(*pool);
        if (report || report.error() != Error::kTooLarge) return report;
        if (pool_bytes == config.pool_bytes) return report;
        pool_bytes *= 2;
        progress.clear();
        log_line(kLogInfo, "the log needs a larger pool than verify began with: again, with " +
                               std::to_string(std::min(config.pool_bytes, pool_bytes) >> 20) +
                               " MiB");
    }
}

void print_rule(const BrokenRule& rule) {
    constexpr const char* kWords[] = {"damaged", "space", "unread"};
    std::printf("%s: %s\n", kWords[static_cast<unsigned>(rule.damage)], rule.what.c_str());
}

const char* verdict(const VerifyTotals& totals) {
    if (totals.broken_data > 0) return "DAMAGED";
    if (totals.unread > 0) return "READS FAILED";
    return totals.broken_space > 0 ? "sound, but for space" : "sound";
}

void print_summary(const FilesReport& report) {
    const VerifyTotals& totals = report.totals;
    std::printf("%" PRIu64 " tables, %" PRIu64 " pages, %" PRIu64 " rows; csn %" PRIu64 ", %" PRIu64
                " batches behind the checkpoint; %s\n",
                totals.tables, totals.pages, totals.rows, report.recovered_csn, report.batches,
                verdict(totals));
    if (totals.early_pages == 0) return;
    std::printf("%" PRIu64
                " pages of large values belong to no row; retention gives them back at a time that "
                "is not over yet\n",
                totals.early_pages);
}

ExitCode exit_code_of(const VerifyTotals& totals) {
    if (totals.broken_data > 0) return ExitCode::kFenced;
    // Whether a row is concerned is not known.
    if (totals.unread > 0) return ExitCode::kEnvironment;
    return totals.broken_space > 0 ? ExitCode::kSpaceLost : ExitCode::kClean;
}

// Locked, so that no daemon has them, but for who only looks.
Result<std::unique_ptr<Disk>> open_files(const Config& config, bool look_only = false,
                                         const DiskOver& over = {}) {
    if (Status there = files_are_there(config.directory); !there) return there.failure();
    auto files =
        FileSet::open(config.directory, {.direct = true, .log = log_line, .look_only = look_only});
    if (!files) return files.failure();
    auto disk = ThreadDisk::open(std::move(*files));
    if (!disk) return disk.failure();
    std::unique_ptr<Disk> files_disk = std::move(*disk);
    return over ? over(std::move(files_disk)) : std::move(files_disk);
}

Result<FilesReport> verify_in_pool(const Config& config, std::uint64_t pool_bytes, Disk& disk,
                                   Progress& progress, Clock& clock) {
    EngineOptions options = options_of(config);
    options.random = [] { return std::uint64_t{1}; };  // nothing of it is kept
    // Another try tells the same again; what failed in any of them was told.
    std::set<std::string> told;
    std::uint64_t unread = 0;
    auto report = in_pool<FilesReport>(config, pool_bytes, progress, [&](PoolSegment& pool) {
        return verify_files(
            disk, clock, pool, options,
            [&](const BrokenRule& rule) {
                if (!told.insert(rule.what).second) return;
                unread += rule.unread();
                progress.clear();
                print_rule(rule);
            },
            [&](std::uint64_t pages) { progress.show(pages); });
    });
    if (report) report->totals.unread = unread;
    return report;
}

// ---- rebuild ----

const char* word_of(RebuildNote::Kind kind) {
    switch (kind) {
        case RebuildNote::Kind::kFreed:
            return "space";
        case RebuildNote::Kind::kRestored:
            return "restored";
        case RebuildNote::Kind::kUnproven:
            return "unproven";
        case RebuildNote::Kind::kLost:
            return "lost";
        case RebuildNote::Kind::kPerhaps:
            return "perhaps lost";
    }
    return "";
}

// Dry, what it finds is printed, and is all that is agreed to. Each attempt begins with the files.
Result<RebuildReport> rebuild_in_pool(const Config& config, std::uint64_t& pool_bytes, Disk& disk,
                                      Progress& progress, Clock& clock, bool is_dry,
                                      RebuildAgreed& agreed) {
    std::vector<RebuildNote> notes;
    std::vector<BrokenRule> rules;  // that are broken still
    auto report = in_pool<RebuildReport>(config, pool_bytes, progress, [&](PoolSegment& pool) {
        notes.clear();
        rules.clear();
        std::optional<DryDisk> dry;
        if (is_dry) dry.emplace(disk);
        Disk& used = is_dry ? static_cast<Disk&>(*dry) : disk;
        return rebuild_files(
            used, clock, pool, options_of(config),
            [&](const RebuildNote& note) { notes.push_back(note); },
            [&](const BrokenRule& rule) { rules.push_back(rule); },
            [&](std::uint64_t pages) { progress.show(pages); }, is_dry ? nullptr : &agreed);
    });
    progress.clear();
    if (is_dry) {
        for (const RebuildNote& note : notes) {
            std::printf("%s: %s; %s\n", word_of(note.kind), note.what.c_str(),
                        note.outcome.c_str());
        }
    }
    for (const BrokenRule& rule : rules) print_rule(rule);
    if (is_dry && report) agreed = {std::move(notes), report->images};
    return report;
}

}  // namespace

ExitCode run_verify(const Config& config, std::uint64_t pool_bytes, const DiskOver& over) {
    auto disk = open_files(config, false, over);
    if (!disk) return refuse(disk.failure());
    HostClock clock;
    Progress progress(clock);
    const auto report = verify_in_pool(config, pool_bytes, **disk, progress, clock);
    progress.clear();
    if (!report) return refuse(report.failure());
    print_summary(*report);
    return exit_code_of(report->totals);
}

ExitCode run_rebuild(const Config& config, RebuildChoice choice, std::uint64_t pool_bytes) {
    auto disk = open_files(config);
    if (!disk) return refuse(disk.failure());
    HostClock clock;
    Progress progress(clock);
    RebuildAgreed agreed;
    auto report = rebuild_in_pool(config, pool_bytes, **disk, progress, clock, true, agreed);
    if (!report) return refuse(report.failure());
    const bool loses = report->lost + report->unproven > 0;
    const ExitCode left = exit_code_of(report->verified.totals);
    if (!report->changed() || left != ExitCode::kClean) {
        print_summary(report->verified);
        std::puts(left == ExitCode::kClean
                      ? "there is nothing to rebuild"
                      : "this is not what a rebuild restores: nothing changed");
        return loses ? ExitCode::kFenced : left;
    }
    if (choice.dry_run || (loses && !choice.accept_loss)) {
        std::printf("%" PRIu64 " pages would be written; nothing was changed\n", report->images);
        if (!loses) return ExitCode::kSpaceLost;
        std::puts(
            "what is lost is lost already, or cannot be read: make a copy of the directory, then "
            "go on with --accept-loss, or restore a backup");
        return ExitCode::kFenced;
    }
    report = rebuild_in_pool(config, pool_bytes, **disk, progress, clock, false, agreed);
    if (!report) return refuse(report.failure());
    print_summary(report->verified);
    return exit_code_of(report->verified.totals);
}

namespace {

// Of processor and device this thread, and those that it starts, take what others leave.
void step_aside() {
    constexpr int kOfThisThread = 1;
    constexpr int kIdleClass = 3 << 13;
    // In vain it is slower for the others, at its rate.
    if (::nice(19) < 0) log_line(kLogInfo, "verify: no lower priority of the processor");
    if (::syscall(SYS_ioprio_set, kOfThisThread, 0, kIdleClass) != 0) {
        log_line(kLogInfo, "verify: no lower priority of the device");
    }
}

}  // namespace

ExitCode run_verify_online(const Config& config, OnlineChoice choice, const DiskOver& over) {
    step_aside();
    auto disk = open_files(config, true, over);
    if (!disk) return refuse(disk.failure());
    HostClock clock;
    Progress progress(clock);
    OnlineOptions options;
    options.bytes_per_second = choice.mib_per_second << 20;
    if (choice.deadline_seconds > 0) {
        options.deadline_ns = clock.monotonic_ns() + choice.deadline_seconds * 1'000'000'000;
    }
    options.pause = [](std::uint64_t pause_ns) {
        std::this_thread::sleep_for(std::chrono::nanoseconds(pause_ns));
    };
    bool damaged = false;
    const auto report = verify_online(
        **disk, clock, options,
        [&](const BrokenRule& rule) {
            progress.clear();
            print_rule(rule);
            damaged = damaged || rule.damage == Damage::kData;
        },
        [&](std::uint64_t pages) { progress.show(pages); });
    progress.clear();
    if (!report) {
        const ExitCode code = refuse(report.failure());
        return damaged ? ExitCode::kFenced : code;
    }
    const VerifyTotals& totals = report->totals;
    std::printf("%" PRIu64 " tables, %" PRIu64 " pages, %" PRIu64
                " rows of the checkpoint with csn %" PRIu64 "; %" PRIu64
                " checkpoints came meanwhile; %s\n",
                totals.tables, totals.pages, totals.rows, report->checkpoint_csn,
                report->checkpoints, verdict(totals));
    return exit_code_of(totals);
}

}  // namespace bidstore
