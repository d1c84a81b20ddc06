#include "engine/verify_files.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/dry_disk.h"
#include "engine/rebuild_journal.h"
#include "engine/rebuild_plan.h"
#include "engine/recovery.h"
#include "engine/superblock.h"
#include "engine/wal.h"

namespace bidstore {

void check_superblocks(Disk& disk, Clock& clock, const RuleSink& sink) {
    BlockingIo io(disk, clock);
    AlignedBuffer buffer(kBlockBytes);
    bool valid[kSuperblockCopies] = {};
    std::array<std::uint64_t, kSuperblockCopies> sequences{};
    Status read[kSuperblockCopies];
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        Superblock superblock{};
        const std::uint64_t offset = copy * std::uint64_t{kBlockBytes};
        read[copy] = io.read(StoreFile::kData, offset, buffer.data(), kBlockBytes);
        if (!read[copy]) continue;
        std::memcpy(&superblock, buffer.data(), sizeof superblock);
        valid[copy] = superblock_valid(superblock);
        sequences[copy] = superblock.sequence;
    }
    const std::string stale = valid[0] && valid[1] ? stale_copy(sequences) : "";
    if (!stale.empty()) {
        sink({Damage::kSpace, disk.path(StoreFile::kData) + ": " + stale +
                                  "; the next start of the daemon mends it"});
    }
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        if (valid[copy] || !valid[1 - copy]) continue;
        const std::string which = "superblock copy " + std::to_string(copy);
        if (!read[copy]) {
            sink({Damage::kUnread, which + ": " + read[copy].failure().what});
            continue;
        }
        sink({Damage::kSpace, disk.path(StoreFile::kData) + ": " + which +
                                  " is damaged; the other one is good, and the next start of the "
                                  "daemon mends it"});
    }
}

namespace {

// Recovery ends at the first broken rule; what else is lost a survey of all pages tells.
class Further {
  public:
    Further(DryDisk& disk, Clock& clock, Recovery& recovery, const VerifyProgress& progress) {
        const std::uint64_t unread = disk.unread().times();
        const Status looked = look(disk, clock, recovery, progress);
        // What follows from a read that failed, or was not answered, looks like damage.
        if (disk.unread().times() != unread || looked.error() == Error::kIoError) rules_.clear();
    }

    // The start's own words end with what to do about it.
    void tell(const BrokenRule& first, const RuleSink& sink) {
        const bool there = std::any_of(rules_.begin(), rules_.end(), [&](const BrokenRule& rule) {
            return first.what.starts_with(rule.what);
        });
        if (!there) rules_.insert(rules_.begin(), first);
        for (const BrokenRule& rule : rules_) sink(rule);
    }

  private:
    Status look(DryDisk& disk, Clock& clock, Recovery& recovery, const VerifyProgress& progress) {
        Superblock superblock{};
        if (Status read = recovery.read_superblock(superblock); !read) return read;
        if (Status fit = recovery.check_sizes(superblock); !fit) return fit;
        RebuildJournal journal(disk, clock, recovery);
        Status placed = journal.put_in_place(superblock, [&](const std::string& what, bool) {
            rules_.push_back({Damage::kData, disk.path(StoreFile::kJournal) + ": " + what});
            return Status();
        });
        if (!placed) return placed;
        RebuildPlan plan(disk, clock, superblock, [&](const RebuildNote& note) {
            if (note.kind == RebuildNote::Kind::kUnproven) return;
            if (note.kind == RebuildNote::Kind::kFreed) return;
            rules_.push_back({Damage::kData, note.what});
        });
        // Without the catalog nobody knows the other tables.
        return plan.run(progress);
    }

    std::vector<BrokenRule> rules_;
};

Result<FilesReport> verify_over(DryDisk& disk, Clock& clock, PoolSegment& pool,
                                const EngineOptions& options, const RuleSink& sink,
                                const VerifyProgress& progress) {
    FilesReport report;
    check_superblocks(disk, clock, sink);
    StatsWriter stats(pool.stats());
    Storage storage(disk, clock, pool, stats, [](PageId, Error, const std::string&, bool) {});
    WalStart start;
    Recovery recovery(storage, options);
    const Result<Engine::Recovery> found = recovery.run(start);
    // Of a recovery that ended early, reads ahead may be under way into what is about to go.
    drain(disk, clock, options.log);
    if (!found && found.error() != Error::kCorruption && found.error() != Error::kIoError) {
        return found.failure();
    }
    if (!found) {
        const bool unread = found.error() == Error::kIoError;
        const BrokenRule first{unread ? Damage::kUnread : Damage::kData, found.failure().what};
        Further(disk, clock, recovery, progress).tell(first, sink);
        return report;
    }
    if (found->created) {
        return {Error::kNotBidstore, disk.path(StoreFile::kData) + " is blank: there is no store"};
    }
    report.checkpoint_csn = found->checkpoint_csn;
    report.recovered_csn = found->recovered_csn;
    report.batches = found->batches;
    report.totals = verify_storage(storage, sink, progress);
    return report;
}

}  // namespace

Result<FilesReport> verify_files(Disk& disk, Clock& clock, PoolSegment& pool,
                                 const EngineOptions& options, const RuleSink& sink,
                                 const VerifyProgress& progress) {
    DryDisk dry(disk);
    VerifyTotals told;
    const auto tell = [&](const BrokenRule& rule) {
        told.count(rule.damage);
        if (rule.unread()) dry.unread().said(rule.what);
        sink(rule);
    };
    auto report = verify_over(dry, clock, pool, options, tell, progress);
    if (!report) dry.unread().said(report.failure().what);
    dry.unread().each_unsaid([&](const std::string& what) {
        told.count(Damage::kUnread);
        sink({Damage::kUnread, what});
    });
    if (!report) return report;
    report->totals.broken_data = told.broken_data;
    report->totals.broken_space = told.broken_space;
    report->totals.unread = told.unread;
    return report;
}

}  // namespace bidstore
