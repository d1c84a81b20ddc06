// Compaction from outside: asks the daemon for one step after the other (shm/message.h).
//
// It has a connection of its own, whose end ends the compaction; what was moved stays moved.
//
// Who:    one thread per compaction; rights kAdmin.
// Errors: kBusy (another client compacts), kDenied, kCorruption with the page that stood in the
//         way, kTimedOut (also: no step was asked for in ten minutes, and it was given up for
//         others), kDisconnected. After one of them nothing but destroying it makes sense.
#pragma once

#include <cstdint>
#include <memory>

#include "clientlib/bidstore.h"
#include "shm/error.h"
#include "shm/message.h"

namespace bidstore {

class Connection;

struct CompactionStep {
    CompactState state = CompactState::kMoving;
    std::uint64_t moved = 0;       // pages, by this step
    std::uint64_t looked = 0;      // leaves, by this step, for neighbours to merge
    std::uint64_t left = 0;        // pages of the chunks that are being emptied
    std::uint64_t given_back = 0;  // bytes, so far
    std::uint64_t file_bytes = 0;
    bool stays = false;  // the file ends with a chunk that has the root of `table`
    TableId table;
};

class Compaction {
  public:
    // AttachOptions::rights is not looked at.
    static Result<Compaction> begin(const AttachOptions& options, Deadline deadline);
    Compaction(Compaction&&) noexcept;
    Compaction& operator=(Compaction&&) noexcept;
    ~Compaction();

    // At most kCompactPagesMax pages.
    Result<CompactionStep> step(std::uint32_t pages, Deadline deadline);

  private:
    explicit Compaction(std::shared_ptr<Connection> connection);
    std::shared_ptr<Connection> connection_;
};

}  // namespace bidstore
