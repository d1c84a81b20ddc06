#include "tests/sim_online.h"

#include <cstring>
#include <utility>
#include <vector>

#include "engine/verify_online.h"

namespace bidstore {
namespace {

// Reads of a simulated disk that are none of its steps.
class PeekDisk final : public Disk {
  public:
    explicit PeekDisk(const SimDisk& below) : below_(below) {}
    void submit(DiskRequest& request) override {
        CHECK(request.kind == DiskRequest::Kind::kRead);
        const auto bytes = below_.peek(request.file, request.offset_bytes, request.length_bytes);
        std::memcpy(request.buffer, bytes.data(), bytes.size());
        request.result = request.length_bytes;
        request.in_flight = true;
        done_.push_back(&request);
    }
    int poll(std::uint64_t) override {
        const std::vector<DiskRequest*> done = std::exchange(done_, {});
        for (DiskRequest* request : done) {
            request->in_flight = false;
            request->completed(*request, request->context);
        }
        return static_cast<int>(done.size());
    }
    std::uint32_t in_flight() const override { return static_cast<std::uint32_t>(done_.size()); }
    void set_wake_descriptor(int) override {}
    Result<std::uint64_t> size_bytes(StoreFile) override { return {Error::kInvalid, "it reads"}; }
    Status resize(StoreFile, std::uint64_t) override { return {Error::kInvalid, "it reads"}; }
    Result<bool> backed(StoreFile, std::uint64_t, std::uint64_t) override { return true; }
    std::string path(StoreFile file) const override { return below_.path(file); }

  private:
    const SimDisk& below_;
    std::vector<DiskRequest*> done_;
};

}  // namespace

std::optional<std::string> verify_beside(const SimDisk& files) {
    PeekDisk disk(files);
    SimClock clock;
    OnlineOptions options;
    options.bytes_per_second = 1ull << 60;
    options.pause = [&](std::uint64_t pause_ns) { clock.advance_ns(pause_ns); };
    std::string broken;
    const auto report = verify_online(disk, clock, options, [&](const BrokenRule& rule) {
        if (broken.empty()) broken = rule.what;
    });
    if (report.error() == Error::kTimedOut) return std::nullopt;
    return report ? broken : report.failure().what;
}

}  // namespace bidstore
