// A disk that ends its process at one of its operations, fails, or holds operations back: every
// operation of the engine on its files is a failpoint, without a line for it in the engine.
//
// Three files in the directory of the daemon say what happens:
//
//   failpoint   read at the start: "log-write 7 half" ends the process, by SIGKILL, half through
//               its seventh write to the log. Recovery's operations count as well.
//   fail        as long as it is there, operations of the kind that it names fail, with nothing of
//               them done: "log-write 5" is errno 5. "page-read 5 3": only the third from now on;
//               "page-read 5 3 on": that one and all later ones. The first that fails makes the
//               file "failed". Not changes of a file's size (kResize).
//   hold        as long as it is there, operations of the kind that it names are not begun; the
//               first that waits makes the file "held".
//
// Who:    as Disk; the one below is used by nobody else.
// Errors: those of the disk below, and those that "fail" asks for.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/disk.h"

namespace bidstore {

// What an operation is to the store. Synchronous ones, which make files longer, are kResize.
enum class DiskStep : std::uint8_t {
    kAny,
    kLogWrite,
    kLogRead,
    kLogSync,
    kJournalWrite,
    kJournalRead,
    kJournalSync,
    kSuperblockWrite,
    kPageWrite,
    kPageRead,
    kDataSync,
    kGrow,
    kPunch,
    kCut,
    kResize,
};
inline constexpr std::array<std::string_view, 15> kDiskStepNames{
    "any",          "log-write",    "log-read",   "log-sync",   "journal-write",
    "journal-read", "journal-sync", "superblock", "page-write", "page-read",
    "data-sync",    "grow",         "punch",      "cut",        "resize"};

enum class DiskMoment : std::uint8_t {
    kBefore,  // nothing of it is done
    kHalf,    // of a write, the first half of its pages; of anything else, nothing
    kDone,    // done, and the engine does not know yet
    kTaken,   // the engine took notice: of a batch, it is visible, and not acknowledged yet
    kRound,   // what follows from it was done: of a batch, it is acknowledged
};
inline constexpr std::array<std::string_view, 5> kDiskMomentNames{"before", "half", "done", "taken",
                                                                  "round"};

struct Failpoint {
    DiskStep step = DiskStep::kAny;
    std::uint64_t number = 0;  // of the operations of that kind, from 1; 0: none
    DiskMoment moment = DiskMoment::kBefore;

    std::string text() const;
    static Failpoint parse(const std::string& text);
};

class FailpointDisk final : public Disk {
  public:
    FailpointDisk(std::unique_ptr<Disk> below, std::string directory);

    void submit(DiskRequest& request) override;
    int poll(std::uint64_t timeout_ns) override;
    std::uint32_t in_flight() const override {
        return below_->in_flight() + static_cast<std::uint32_t>(held_.size() + failed_.size());
    }
    void set_wake_descriptor(int descriptor) override { below_->set_wake_descriptor(descriptor); }
    Result<std::uint64_t> size_bytes(StoreFile file) override { return below_->size_bytes(file); }
    Status resize(StoreFile file, std::uint64_t size_bytes) override;
    Result<bool> backed(StoreFile file, std::uint64_t offset_bytes,
                        std::uint64_t length_bytes) override {
        return below_->backed(file, offset_bytes, length_bytes);
    }
    std::string path(StoreFile file) const override { return below_->path(file); }
    Result<bool> register_memory(std::byte* base, std::uint64_t size_bytes) override {
        return below_->register_memory(base, size_bytes);
    }

  private:
    bool hit(DiskStep step);
    bool is_held(DiskStep step);
    int error_of(DiskStep step);
    int run_failed();
    void submit_last(DiskRequest& request);
    void on_last(DiskRequest& request);

    std::unique_ptr<Disk> below_;
    std::string directory_;
    Failpoint failpoint_;
    std::array<std::uint64_t, kDiskStepNames.size()> counted_{};
    std::string fail_;                  // the line of that file
    std::uint64_t fail_counted_ = 0;    // operations of its kind since it was there
    std::vector<DiskRequest*> held_;
    std::vector<DiskRequest*> failed_;  // for the next poll() to tell

    // The request at the failpoint, with the completion that it came with; or its half.
    DiskRequest half_;
    void (*completed_)(DiskRequest& request, void* context) = nullptr;
    void* context_ = nullptr;
    bool last_round_ = false;
};

}  // namespace bidstore
