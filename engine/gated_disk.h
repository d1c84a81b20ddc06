// The disk as the engine has it: a gate before the one that it was given. Once something failed
// that has to hold (a write or sync of the log, of a checkpoint, of growth), nothing that changes a
// file goes through any more, whoever asks: recipes whose completions submit their next request
// stop where they are, and the files stay as a crash of that moment would have left them.
//
// Reads go through as before, and what is in flight completes. A request that is turned away is
// never begun and never completes, as if the crash had come before it: nobody is told of a failure
// that is none, and the first one stays the reason. So whoever waits looks for failures, too.
//
// Who:    as Disk; the one below outlives it.
// Errors: those of the disk below, and none of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "engine/disk.h"

namespace bidstore {

class GatedDisk final : public Disk {
  public:
    // `failed` is asked before each request that changes a file: completions that one poll() runs
    // come before anybody else hears of the failure.
    GatedDisk(Disk& below, std::function<bool()> failed)
        : below_(below), failed_(std::move(failed)) {}

    // For good.
    void close() { closed_ = true; }

    void submit(DiskRequest& request) override {
        if (request.kind != DiskRequest::Kind::kRead && closed()) return;
        below_.submit(request);
    }
    int poll(std::uint64_t timeout_ns) override { return below_.poll(timeout_ns); }
    std::uint32_t in_flight() const override { return below_.in_flight(); }
    void set_wake_descriptor(int descriptor) override { below_.set_wake_descriptor(descriptor); }
    Result<std::uint64_t> size_bytes(StoreFile file) override { return below_.size_bytes(file); }
    // Open's alone, which ends with the first failure.
    Status resize(StoreFile file, std::uint64_t size_bytes) override {
        return below_.resize(file, size_bytes);
    }
    Result<bool> backed(StoreFile file, std::uint64_t offset_bytes,
                        std::uint64_t length_bytes) override {
        return below_.backed(file, offset_bytes, length_bytes);
    }
    std::string path(StoreFile file) const override { return below_.path(file); }
    Result<bool> register_memory(std::byte* base, std::uint64_t size_bytes) override {
        return below_.register_memory(base, size_bytes);
    }

  private:
    bool closed() { return closed_ = closed_ || failed_(); }

    Disk& below_;
    const std::function<bool()> failed_;
    bool closed_ = false;
};

}  // namespace bidstore
