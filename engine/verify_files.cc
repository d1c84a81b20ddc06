#include "engine/verify_files.h"

#include <algorithm>
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

bool check_superblocks(Disk& disk, Clock& clock, const RuleSink& sink) {
    BlockingIo io(disk, clock);
    AlignedBuffer buffer(kBlockBytes);
    bool valid[kSuperblockCopies] = {};
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        Superblock superblock{};
        const std::uint64_t offset = copy * std::uint64_t{kBlockBytes};
        if (!io.read(StoreFile::kData, offset, buffer.data(), kBlockBytes)) continue;
        std::memcpy(&superblock, buffer.data(), sizeof superblock);
        valid[copy] = superblock_valid(superblock);
    }
    for (std::uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
        if (valid[copy] || !valid[1 - copy]) continue;
        sink({Damage::kSpace, disk.path(StoreFile::kData) + ": superblock copy " +
                                  std::to_string(copy) +
                                  " is damaged; the other one is good, and the next start of the "
                                  "daemon mends it"});
    }
    return valid[0] || valid[1];
}

namespace {

// Recovery ends at the first broken rule; what else is lost a survey of all pages tells.
class Further {
  public:
    Further(Disk& disk, Clock& clock, Recovery& recovery, const VerifyProgress& progress) {
        Superblock superblock{};
        if (!recovery.read_superblock(superblock) || !recovery.check_sizes(superblock)) return;
        RebuildJournal journal(disk, clock, recovery);
        const Status placed = journal.put_in_place(superblock, [&](const std::string& what, bool) {
            rules_.push_back({Damage::kData, disk.path(StoreFile::kJournal) + ": " + what});
            return Status();
        });
        if (!placed) return;
        RebuildPlan plan(disk, clock, superblock, [&](const RebuildNote& note) {
            if (note.kind == RebuildNote::Kind::kUnproven) return;
            if (note.kind == RebuildNote::Kind::kFreed) return;
            rules_.push_back({Damage::kData, note.what});
        });
        // Without the catalog nobody knows the other tables.
        static_cast<void>(plan.run(progress));
    }

    // The start's own words end with what to do about it.
    void tell(const std::string& first, FilesReport& report, const RuleSink& sink) {
        const bool there =
            std::any_of(rules_.begin(), rules_.end(),
                        [&](const BrokenRule& rule) { return first.starts_with(rule.what); });
        if (!there) rules_.insert(rules_.begin(), {Damage::kData, first});
        for (const BrokenRule& rule : rules_) {
            ++report.totals.broken_data;
            sink(rule);
        }
    }

  private:
    std::vector<BrokenRule> rules_;
};

}  // namespace

Result<FilesReport> verify_files(Disk& disk, Clock& clock, PoolSegment& pool,
                                 const EngineOptions& options, const RuleSink& sink,
                                 const VerifyProgress& progress) {
    FilesReport report;
    const bool superblock = check_superblocks(disk, clock, [&](const BrokenRule& rule) {
        ++report.totals.broken_space;
        sink(rule);
    });
    DryDisk dry(disk);
    StatsWriter stats(pool.stats());
    Storage storage(dry, clock, pool, stats, [](PageId, Error, const std::string&, bool) {});
    WalStart start;
    Recovery recovery(storage, options);
    const Result<Engine::Recovery> found = recovery.run(start);
    // Of a recovery that ended early, reads ahead may be under way into what is about to go.
    drain(dry, clock, options.log);
    if (!found && found.error() != Error::kCorruption && found.error() != Error::kIoError) {
        return found.failure();
    }
    if (!found) {
        Further(dry, clock, recovery, progress).tell(found.failure().what, report, sink);
        return report;
    }
    if (found->created || !superblock) {
        return {Error::kNotBidstore, disk.path(StoreFile::kData) + " is blank: there is no store"};
    }
    report.checkpoint_csn = found->checkpoint_csn;
    report.recovered_csn = found->recovered_csn;
    report.batches = found->batches;
    const VerifyTotals totals = verify_storage(storage, sink, progress);
    report.totals.tables = totals.tables;
    report.totals.pages = totals.pages;
    report.totals.rows = totals.rows;
    report.totals.broken_data += totals.broken_data;
    report.totals.broken_space += totals.broken_space;
    report.totals.early_pages = totals.early_pages;
    return report;
}

}  // namespace bidstore
