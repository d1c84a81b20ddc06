// Looks at the superblock of a store past the daemon that writes it.
//
// Who:    one thread of any process that may read the files; it writes nothing.
// Errors: kTimedOut at the deadline; kCorruption when both copies stay damaged, or the newest says
//         what the next start refuses; kVersionMismatch; kIoError when no copy can be read.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/aligned_buffer.h"
#include "engine/blocking_io.h"
#include "engine/clock.h"
#include "engine/disk.h"
#include "engine/format.h"
#include "engine/unread_places.h"
#include "engine/verify.h"
#include "engine/verify_online.h"
#include "shm/error.h"

namespace bidstore {

class SuperblockLook {
  public:
    // `unread` hears of each copy that cannot be read, also where the other one does.
    SuperblockLook(Disk& disk, Clock& clock, const OnlineOptions& options, UnreadPlaces& unread)
        : disk_(disk), clock_(clock), options_(options), unread_(unread), io_(disk, clock) {}

    // The newest copy of those that are whole.
    Status newest(Superblock& superblock);
    // Tells of each copy that stays damaged, or is stale, not of one that cannot be read.
    Status check_copies(const RuleSink& sink);
    Status past_deadline() const {
        return {Error::kTimedOut, "the deadline came before all was verified"};
    }

  private:
    using Sequence = std::optional<std::uint64_t>;

    Status read_copies(Superblock& superblock);
    // None: it cannot be read, or stays damaged, which is told.
    Result<Sequence> sequence_of(std::uint64_t copy, const RuleSink& sink);

    Disk& disk_;
    Clock& clock_;
    const OnlineOptions& options_;
    UnreadPlaces& unread_;
    BlockingIo io_;
    AlignedBuffer block_{kBlockBytes};
};

}  // namespace bidstore
