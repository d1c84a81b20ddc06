// Verifies a store at rest: what the next start of the daemon would recover, with the log replayed,
// without a change to its files.
//
// Who:    one thread; nobody else uses the disk or the pool.
// Errors: what keeps a daemon from starting is a broken rule, too (of both superblock copies, the
//         chunk directory, metadata, the catalog, the log); a Failure is something else: files that
//         are no store's, or of another version, or too large for this pool.
// Unread: each read that failed is told, also one that recovery did not need, or that a second one
//         made good: then nobody may say that the store is sound. When recovery ends, a survey of
//         all pages tells what else is lost; where a read fails in that, it tells nothing but what
//         is unread, since what follows from it would look like damage.
#pragma once

#include <cstdint>

#include "engine/clock.h"
#include "engine/disk.h"
#include "engine/engine.h"
#include "engine/verify.h"
#include "shm/segment.h"

namespace bidstore {

struct FilesReport {
    VerifyTotals totals;
    std::uint64_t checkpoint_csn = 0;
    std::uint64_t recovered_csn = 0;
    std::uint64_t batches = 0;  // of the log, behind the checkpoint
};

// Tells of a superblock copy that is damaged, unread or stale while the other is valid: recovery
// mends it without a word.
void check_superblocks(Disk& disk, Clock& clock, const RuleSink& sink);

// `options`: random and log are used, and the sizes of a journal and log, should a file be blank.
Result<FilesReport> verify_files(Disk& disk, Clock& clock, PoolSegment& pool,
                                 const EngineOptions& options, const RuleSink& sink,
                                 const VerifyProgress& progress = nullptr);

}  // namespace bidstore
