// Verifies the data file of a store while a daemon serves it: the state of its last finished
// checkpoint, past the daemon, from the file alone.
//
//   superblock copies, chunk directory, metadata, each against the CRC above it; every page in use
//   against the CRC that its chunk remembers, with id and csn; catalog; every tree: levels, order,
//   fences, rows; its pages, and those that its live rows refer to, against the metadata of the
//   same checkpoint: allocated, of this table, no older than their rows. A page that is in a tree
//   twice, or in two, breaks a fence or is of another table; a large value that two rows have is
//   found when no checkpoint comes between these
//
// It works in short steps, each between two looks at the superblock. A place that the checkpoint
// knows is written in step 4 of the next one only (FORMAT.md): when the superblock names no journal
// before, and has the same sequence after, nothing that the step read was being written. Else the
// step counts for nothing and is made again. So it never takes a write for damage.
//
// Not looked at: what only a file at rest can tell (engine/verify_files.h). That is
//   - the log;
//   - which of the allocated pages nobody refers to;
//   - large values against their rows' own checksums (the CRC of each of their pages is), and,
//     where a checkpoint came between two rows, whether both refer to the same one: pages change
//     hands with it, so who had one before says nothing;
//   - pages of chunks that came since the last one was looked at, but for those of trees;
//   - trees of tables that are being dropped; what is below a broken inner node, but for the CRC of
//     each page.
//
// Unread: each read that failed in a step that counts, or of a superblock copy, is told, also one
//         that a second one made good: then nobody may say that the checkpoint is sound. Below a
//         node that cannot be read it looks at the checksums alone, and of a chunk whose metadata
//         cannot be read, at pages of trees alone.
//
// Memory: metadata of 4,096 chunks at most, 24 MiB; a bit per page of the file; what is damaged.
// Who:    one thread of any process that may read the files; it writes nothing.
// Errors: kTimedOut at the deadline, or when one checkpoint takes longer to be put in its places
//         than any does, as where the daemon is gone; kCorruption when both superblock copies stay
//         damaged, or say what the next start refuses; kVersionMismatch; kIoError when not even a
//         superblock can be read. What was found by then is told.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/clock.h"
#include "engine/disk.h"
#include "engine/verify.h"
#include "shm/error.h"

namespace bidstore {

struct OnlineOptions {
    std::uint64_t bytes_per_second = 64u << 20;         // read from the file, at most
    std::uint64_t deadline_ns = ~std::uint64_t{0};      // by the clock
    std::function<void(std::uint64_t pause_ns)> pause;  // sleeps
};

struct OnlineReport {
    VerifyTotals totals;               // pages: all in use
    std::uint64_t checkpoint_csn = 0;  // of the last step
    std::uint64_t checkpoints = 0;     // that ended meanwhile
    std::uint64_t again = 0;           // steps that a checkpoint came into
};

Result<OnlineReport> verify_online(Disk& disk, Clock& clock, const OnlineOptions& options,
                                   const RuleSink& sink, const VerifyProgress& progress = nullptr);

}  // namespace bidstore
