#include "daemon/verify_command.h"

#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "daemon/log.h"
#include "engine/clock.h"
#include "engine/file_set.h"
#include "engine/thread_disk.h"
#include "engine/verify_files.h"

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

// With the least pool that the log's replay has enough of: a record may need very many pages at
// once, a range that was deleted, and what was enough for the daemon is its own pool.
Result<FilesReport> verify_in_pool(const Config& config, std::uint64_t pool_bytes, Disk& disk,
                                   Progress& progress, Clock& clock) {
    EngineOptions options = engine_options(config);
    options.random = [] { return std::uint64_t{1}; };  // nothing of it is kept
    options.log = log_line;
    std::uint64_t told = 0;  // of what is broken; another try begins with the same
    for (;;) {
        pool_bytes = std::min(config.pool_bytes, pool_bytes);
        auto pool = make_pool(config, pool_bytes);
        if (!pool) return pool.failure();
        std::uint64_t found = 0;
        auto report = verify_files(
            disk, clock, *pool, options,
            [&](const BrokenRule& rule) {
                if (++found <= told) return;
                told = found;
                progress.clear();
                std::printf("%s: %s\n", rule.damage == Damage::kData ? "damaged" : "space",
                            rule.what.c_str());
            },
            [&](std::uint64_t pages) { progress.show(pages); });
        if (report || report.error() != Error::kTooLarge) return report;
        if (pool_bytes == config.pool_bytes) return report;
        pool_bytes *= 2;
        progress.clear();
        log_line(kLogInfo, "the log needs a larger pool than verify began with: again, with " +
                               std::to_string(std::min(config.pool_bytes, pool_bytes) >> 20) +
                               " MiB");
    }
}

}  // namespace

ExitCode run_verify(const Config& config, std::uint64_t pool_bytes) {
    if (Status there = files_are_there(config.directory); !there) return refuse(there.failure());
    auto files = FileSet::open(config.directory, {.direct = true, .log = log_line});
    if (!files) return refuse(files.failure());
    auto disk = ThreadDisk::open(std::move(*files));
    if (!disk) return refuse(disk.failure());
    HostClock clock;
    Progress progress(clock);
    const auto report = verify_in_pool(config, pool_bytes, **disk, progress, clock);
    progress.clear();
    if (!report) return refuse(report.failure());
    const VerifyTotals& totals = report->totals;
    std::printf("%" PRIu64 " tables, %" PRIu64 " pages, %" PRIu64 " rows; csn %" PRIu64 ", %" PRIu64
                " batches behind the checkpoint; %s\n",
                totals.tables, totals.pages, totals.rows, report->recovered_csn, report->batches,
                totals.broken_data > 0    ? "DAMAGED"
                : totals.broken_space > 0 ? "sound, but for space"
                                          : "sound");
    if (totals.broken_data > 0) return ExitCode::kFenced;
    return totals.broken_space > 0 ? ExitCode::kSpaceLost : ExitCode::kClean;
}

}  // namespace bidstore
