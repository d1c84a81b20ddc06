// Right checksums for what a test changed in the files of a store, all the way up to the
// superblock: as rot cannot have them, and a file that somebody wrote can.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/format.h"
#include "tests/sim_disk.h"

namespace bidstore {

Superblock superblock_of(const SimDisk& disk, std::uint32_t copy = 0);
void seal_superblock(SimDisk& disk, std::uint32_t copy);
// The page's checksum, and those of what remembers it: its chunk, the directory (of one page), both
// superblocks. Of pages with an image in the journal that these name, it is the image, since a
// recovery puts it in place of the page, and the journal's list remembers it, too.
void seal_up(SimDisk& disk, PageId page);
// Where records begin in the log, of the batches from where replay begins.
std::vector<std::uint64_t> log_records(SimDisk& disk);
// These batches and their records, one behind the other.
void seal_log(SimDisk& disk);
// The journal's images, what remembers them, its list, and the superblocks that name it.
void seal_journal(SimDisk& disk);

// Where the value of a table's row begins in the leaf of the catalog that has it.
std::size_t catalog_row(const std::byte* page, TableId table);

}  // namespace bidstore
