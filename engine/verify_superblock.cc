#include "engine/verify_superblock.h"

#include <cstring>
#include <string>

#include "engine/superblock.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kCopyPauseNs = 10'000'000;  // while a copy is written
// A copy is damaged when it is so for longer than any write of it takes.
constexpr std::uint64_t kCopyNs = BlockingIo::kDeadlineNs + 5'000'000'000;

}  // namespace

// Both copies are damaged at once also for who reads one before it is written, and the other while
// it is.
Status SuperblockLook::newest(Superblock& superblock) {
    const std::uint64_t begin_ns = clock_.monotonic_ns();
    for (;;) {
        Status there = read_copies(superblock);
        if (there.error() != Error::kCorruption) return there;
        if (clock_.monotonic_ns() > options_.deadline_ns) return past_deadline();
        if (clock_.monotonic_ns() - begin_ns > kCopyNs) return there;
        options_.pause(kCopyPauseNs);
    }
}

Status SuperblockLook::read_copies(Superblock& superblock) {
    bool any = false;
    Status unread;
    for (std::uint64_t copy = 0; copy < kSuperblockCopies; ++copy) {
        const Status there =
            io_.read(StoreFile::kData, copy * kBlockBytes, block_.data(), kBlockBytes);
        if (!there) {
            unread_.add(there.failure().what);
            unread = there;
            continue;
        }
        Superblock candidate{};
        std::memcpy(&candidate, block_.data(), sizeof candidate);
        if (superblock_of_other_version(candidate)) {
            return {Error::kVersionMismatch, disk_.path(StoreFile::kData) + " has format version " +
                                                 std::to_string(candidate.format_version) +
                                                 ", this program knows " +
                                                 std::to_string(kFormatVersion)};
        }
        if (!superblock_valid(candidate)) continue;
        if (!any || candidate.sequence > superblock.sequence) superblock = candidate;
        any = true;
    }
    if (const char* fault = any ? superblock_fault(superblock) : nullptr) {
        return {Error::kCorruption, disk_.path(StoreFile::kData) + ": superblock with " +
                                        std::string(fault) +
                                        ", which the next start refuses; restore a backup"};
    }
    if (any) return {};
    if (!unread) return unread;
    return {Error::kCorruption, disk_.path(StoreFile::kData) +
                                    ": both superblock copies are damaged; restore a backup"};
}

// Copy 0 is written first: where it is read first, too, copy 1 was as new as it but for one write.
// An older copy 0 is read again: both may have been written many times before copy 1 was read.
Status SuperblockLook::check_copies(const RuleSink& sink) {
    Result<Sequence> first = sequence_of(0, sink);
    if (!first) return first.failure();
    const Result<Sequence> second = sequence_of(1, sink);
    if (!second) return second.failure();
    if (!*first || !*second) return {};
    if (**first < **second) {
        first = sequence_of(0, sink);
        if (!first) return first.failure();
        if (!*first || **first >= **second) return {};
    }
    const std::string stale = stale_copy({**first, **second});
    if (!stale.empty()) {
        sink({Damage::kSpace,
              disk_.path(StoreFile::kData) + ": " + stale + "; the next checkpoint mends it"});
    }
    return {};
}

// One that is being written may look damaged for a moment. One that is unread is not waited for.
Result<SuperblockLook::Sequence> SuperblockLook::sequence_of(std::uint64_t copy,
                                                             const RuleSink& sink) {
    const std::uint64_t begin_ns = clock_.monotonic_ns();
    for (;;) {
        Superblock found{};
        const Status there =
            io_.read(StoreFile::kData, copy * kBlockBytes, block_.data(), kBlockBytes);
        if (!there) {
            unread_.add(there.failure().what);
            return Sequence{};
        }
        std::memcpy(&found, block_.data(), sizeof found);
        if (superblock_valid(found)) return Sequence{found.sequence};
        if (clock_.monotonic_ns() > options_.deadline_ns) return past_deadline().failure();
        if (clock_.monotonic_ns() - begin_ns > kCopyNs) {
            sink({Damage::kSpace, disk_.path(StoreFile::kData) + ": superblock copy " +
                                      std::to_string(copy) +
                                      " is damaged; the next checkpoint mends it"});
            return Sequence{};
        }
        options_.pause(kCopyNs / 16);
    }
}

}  // namespace bidstore
