// A disk that is only looked at: what is written to it stays in memory, over what is read.
//
// Recovery over it finds and replays what the next start of the daemon would, and the files stay as
// they are. Memory: what recovery writes, at most about the journal and the checkpoints that replay
// makes in between.
//
// Who:    as Disk; the disk beneath is used by nobody else meanwhile, and outlives it.
// Errors: reads fail as those beneath, and are remembered; nothing else does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/disk.h"
#include "engine/page/page.h"
#include "engine/unread_places.h"

namespace bidstore {

class DryDisk final : public Disk {
  public:
    explicit DryDisk(Disk& below) : below_(below) {}
    ~DryDisk() override;

    void submit(DiskRequest& request) override;
    int poll(std::uint64_t timeout_ns) override;
    std::uint32_t in_flight() const override {
        return static_cast<std::uint32_t>(reads_.size() + done_.size());
    }
    void set_wake_descriptor(int descriptor) override { below_.set_wake_descriptor(descriptor); }
    Result<std::uint64_t> size_bytes(StoreFile file) override;
    Status resize(StoreFile file, std::uint64_t size_bytes) override;
    // What would be written takes no room.
    Result<bool> backed(StoreFile, std::uint64_t, std::uint64_t) override { return true; }
    std::string path(StoreFile file) const override { return below_.path(file); }

    // What could not be read beneath, whatever became of it. None is a read behind the end that the
    // file had when it was asked for first.
    UnreadPlaces& unread() { return unread_; }

  private:
    using Page = std::array<std::byte, kPageBytes>;
    struct File {
        bool known = false;             // its sizes were asked for
        std::uint64_t size_bytes = 0;   // as it would be
        std::uint64_t below_bytes = 0;  // up to here, what was not written is what lies beneath
        std::unordered_map<std::uint64_t, std::unique_ptr<Page>> written;  // by number of the page
    };
    struct Read {
        DiskRequest beneath;
        DiskRequest* request = nullptr;
        DryDisk* owner = nullptr;
    };

    File& file_of(StoreFile file);
    void write(DiskRequest& request);
    void start_read(DiskRequest& request);
    void end_read(Read& read);
    void complete(DiskRequest& request, std::int64_t result);

    Disk& below_;
    std::array<File, kStoreFileCount> files_;
    std::vector<std::unique_ptr<Read>> reads_;
    std::vector<DiskRequest*> done_;  // their completions have not run
    UnreadPlaces unread_;
};

}  // namespace bidstore
