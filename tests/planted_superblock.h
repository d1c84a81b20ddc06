// Superblocks of a simulated disk, read and written past the engine.
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/superblock.h"
#include "tests/sim_disk.h"

namespace bidstore {

inline Superblock superblock_on(const SimDisk& disk, std::uint64_t copy) {
    Superblock superblock{};
    const auto bytes = disk.peek(StoreFile::kData, copy * kBlockBytes, sizeof superblock);
    std::memcpy(&superblock, bytes.data(), sizeof superblock);
    return superblock;
}

// As if the store had been made with such a journal; it names none now.
inline void plant_journal_bytes(SimDisk& disk, std::uint64_t bytes) {
    for (std::uint64_t copy = 0; copy < kSuperblockCopies; ++copy) {
        Superblock superblock = superblock_on(disk, copy);
        CHECK(superblock.journal_pages == 0);
        superblock.journal_bytes = bytes;
        seal_superblock(superblock);
        disk.poke(StoreFile::kData, copy * kBlockBytes, &superblock, sizeof superblock);
    }
}

}  // namespace bidstore
