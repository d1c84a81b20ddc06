// Rebuilds a damaged store from what is left of it: metadata, bitmaps and inner nodes from the
// pages that are there, without those that are lost. Afterwards all rules hold that verify knows.
//
//   1 both superblock copies, the data file's size, and the journal that it names, as recovery does
//     it; of a journal that is damaged as much as is there
//   2 a survey of all pages (engine/rebuild_survey.h)
//   3 each table's leaves (engine/rebuild_tree.h), catalog first; and their rows' large values
//   4 images of all that has to change: metadata, directory, inner nodes, leaves without the rows
//     whose large values are lost
//   5 these go through the journal, as a checkpoint's do: named by the superblock, then in their
//     places (engine/rebuild_journal.h)
//   6 sizes of journal and log; recovery, with the log. Records that contradict what is left have
//     no effect, and a log that is damaged ends there; then a checkpoint, so that no later start
//     meets them again
//   7 verify
//
// What is lost is lost before: nothing is written over but lost pages, free ones, and the pages
// that change; where metadata are lost, too, perhaps pages of tables that are given up. Cut off at
// any point it can be done again, and finds no less: steps 1, 5 and 6 are those of every recovery.
//
// A row of the catalog is what a table is: without it nobody can read the table's rows, though they
// are there. Its pages become free, its id stays out of use. That is a loss like any other.
//
// Who:    one thread; nobody else uses the disk or the pool. Over a DryDisk nothing is changed.
// Errors: kCorruption where nothing can be done: both superblocks are lost, or all leaves of the
//         catalog, or some while nobody knows which rows they had. kTooLarge: the log needs a
//         larger pool. kIoError: the device does not give the log, or not what it gave before. Else
//         as verify_files().
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/rebuild_tree.h"
#include "engine/verify_files.h"

namespace bidstore {

struct RebuildNote {
    enum class Kind : std::uint8_t {
        kFreed,     // pages that nobody has; no row is concerned
        kRestored,  // costs no row
        kUnproven,  // rows are there, but some of them may have been erased before
        kLost,      // rows are lost; `keys` of `table`, where it is a table's
        kPerhaps,   // rows of these keys may be lost: whose the lost page was is not known
    };
    Kind kind = Kind::kRestored;
    std::string what;     // is wrong, with page and table
    std::string outcome;  // what comes of it
    TableId table;        // 0 and kPerhaps: all tables
    KeySpan keys;
};
using RebuildSink = std::function<void(const RebuildNote&)>;

struct RebuildReport {
    std::uint64_t restored = 0;  // notes, of what costs no row
    std::uint64_t unproven = 0;
    std::uint64_t lost = 0;    // kLost and kPerhaps
    std::uint64_t images = 0;  // pages that were written
    bool changed() const { return restored + unproven + lost + images > 0; }
    FilesReport verified;  // the store as it is then
};

// What somebody said yes to: all that a dry run said.
struct RebuildAgreed {
    std::vector<RebuildNote> notes;
    std::uint64_t images = 0;
};

// With `agreed` nothing is written when a note that is not among these comes first, or there are
// more images: kIoError, since the files are the same, but not what could be read of them.
Result<RebuildReport> rebuild_files(Disk& disk, Clock& clock, PoolSegment& pool,
                                    const EngineOptions& options, const RebuildSink& sink,
                                    const RuleSink& broken,
                                    const VerifyProgress& progress = nullptr,
                                    const RebuildAgreed* agreed = nullptr);

}  // namespace bidstore
