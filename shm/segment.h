// The two kinds of shared segments: making, sealing, handing out and mapping them.
//
// Who:    the daemon creates both kinds; a client maps what it was handed. Accessors are for any
//         thread; what may be written through them is ruled by ABI.md.
// Owns:   descriptor and mapping; unmaps and closes at destruction. Movable, not copyable.
// Errors: kUnsupported, kIoError, kVersionMismatch, kNotBidstore, kInvalid; each names the segment,
//         the values found and expected, and the remedy.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "shm/error.h"
#include "shm/layout.h"

namespace boost::interprocess {
class mapped_region;
}

namespace bidstore {

enum class HugePages : std::uint8_t { kOff, kTry, kOn };

struct PoolShape {
    std::uint32_t frame_count = 0;  // usable frames + 1 (frame 0 is never used)
    std::uint32_t page_count = 0;   // largest file in pages
    std::uint32_t slot_count = 0;   // reader slots of all clients together
    std::uint8_t file_uuid[16] = {};
    std::uint64_t instance_id = 0;
    std::uint64_t max_snapshot_age_ns = 0;
    std::uint32_t catalog_root = 0;
    std::uint64_t directory_bytes = 0;  // of the key directory: two buckets at least
};

// A descriptor that closes itself.
class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
    Descriptor& operator=(Descriptor&& other) noexcept;
    ~Descriptor();
    int number() const { return number_; }
    int release();
    explicit operator bool() const { return number_ >= 0; }

  private:
    int number_ = -1;
};

// The daemon's pool segment.
class PoolSegment {
  public:
    // Makes the memfd (mode 0600, sealed against size changes), maps it, touches every page, fills
    // in the header but for the magic. `warning` gets a line when kTry falls back to small pages.
    // seal_writes adds F_SEAL_FUTURE_WRITE: no new writable mapping, not even by the same user.
    static Result<PoolSegment> create(const PoolShape& shape, HugePages huge_pages,
                                      bool seal_writes, std::string* warning = nullptr);
    PoolSegment(PoolSegment&&) noexcept;
    PoolSegment& operator=(PoolSegment&&) noexcept;
    ~PoolSegment();

    PoolHeader& header() { return *header_; }
    PageMapEntry* page_map() { return page_map_; }           // header().page_count entries
    FrameDescriptor* descriptors() { return descriptors_; }  // header().frame_count entries
    RevokedEntry* revoked() { return revoked_; }             // header().slot_count entries
    StatsPage& stats() { return *stats_; }
    DirectoryBucket* directory() { return directory_; }      // header().bucket_count entries
    std::byte* frame(FrameId frame) { return frames_ + std::size_t{frame.value} * kPageBytes; }
    bool huge_pages() const { return huge_pages_; }

    // A new read-only descriptor of the segment, for one client.
    Result<Descriptor> open_read_only() const;
    // Writes the magic: clients may map it from now on.
    void announce();

  private:
    PoolSegment() = default;
    Descriptor memfd_;
    std::unique_ptr<boost::interprocess::mapped_region> region_;
    PoolHeader* header_ = nullptr;
    PageMapEntry* page_map_ = nullptr;
    FrameDescriptor* descriptors_ = nullptr;
    RevokedEntry* revoked_ = nullptr;
    StatsPage* stats_ = nullptr;
    DirectoryBucket* directory_ = nullptr;
    std::byte* frames_ = nullptr;
    bool huge_pages_ = false;
};

// A client's read-only mapping of the pool segment. Offsets and counts were checked against the
// size of the segment when it was mapped, and copied: they do not change.
class PoolView {
  public:
    // Checks magic, version, fingerprint, size, in that order.
    static Result<PoolView> map(Descriptor descriptor);
    PoolView(PoolView&&) noexcept;
    PoolView& operator=(PoolView&&) noexcept;
    ~PoolView();

    const PoolHeader& header() const { return *header_; }
    const Published& published() const { return header_->published; }
    const PageMapEntry* page_map() const { return page_map_; }
    const FrameDescriptor* descriptors() const { return descriptors_; }
    const RevokedEntry* revoked() const { return revoked_; }
    const StatsPage& stats() const { return *stats_; }
    const DirectoryBucket* directory() const { return directory_; }
    // frame < frame_count(): the caller clamps.
    const std::byte* frame(std::uint32_t frame) const {
        return frames_ + std::size_t{frame} * kPageBytes;
    }
    std::uint32_t frame_count() const { return frame_count_; }
    std::uint32_t page_count() const { return page_count_; }
    std::uint32_t slot_count() const { return slot_count_; }
    std::uint64_t bucket_count() const { return bucket_count_; }

  private:
    PoolView() = default;
    std::unique_ptr<boost::interprocess::mapped_region> region_;
    const PoolHeader* header_ = nullptr;
    const PageMapEntry* page_map_ = nullptr;
    const FrameDescriptor* descriptors_ = nullptr;
    const RevokedEntry* revoked_ = nullptr;
    const StatsPage* stats_ = nullptr;
    const DirectoryBucket* directory_ = nullptr;
    const std::byte* frames_ = nullptr;
    std::uint32_t frame_count_ = 0;
    std::uint32_t page_count_ = 0;
    std::uint32_t slot_count_ = 0;
    std::uint64_t bucket_count_ = 0;
};

struct ClientShape {
    std::uint32_t slot_count = 128;
    std::uint32_t call_slot_count = 512;
    std::uint32_t ring_bytes = 1u << 20;  // power of two, at least 8 * the largest message
    std::uint32_t first_slot = 0;
    Rights rights = Rights::kReader;
    std::uint8_t session_id[16] = {};
    std::uint64_t instance_id = 0;
};

// A client segment: made by the daemon, mapped writable by daemon and client.
class ClientSegment {
  public:
    static Result<ClientSegment> create(const ClientShape& shape);
    // The client's side: checks magic, version, fingerprint, size; MADV_DONTFORK, so a forked child
    // must not destroy its copy: what it would unmap may be something else's there.
    static Result<ClientSegment> map(Descriptor descriptor);
    ClientSegment(ClientSegment&&) noexcept;
    ClientSegment& operator=(ClientSegment&&) noexcept;
    ~ClientSegment();

    int descriptor() const { return memfd_.number(); }
    std::byte* base() { return base_; }
    ClientHeader& header() { return *reinterpret_cast<ClientHeader*>(base_); }
    // The shape as made (daemon) or as read once and checked (client).
    std::uint32_t slot_count() const { return slot_count_; }
    std::uint32_t call_slot_count() const { return call_slot_count_; }
    std::uint32_t ring_bytes() const { return ring_bytes_; }
    std::uint32_t first_slot() const { return first_slot_; }
    ReaderSlot* slots() { return slots_; }
    TouchMarks* marks() { return marks_; }  // one a slot
    RingControl& ring_control() { return *ring_control_; }
    std::byte* ring() { return ring_; }
    CallSlot* calls() { return calls_; }
    // Writes last_number and the magic: the client may map it from now on.
    void announce(std::uint64_t last_number);
    // Gives its memory back to the host, but for the pages of header and ring control. A client may
    // keep descriptor or mapping for as long as it likes; it finds zeros there, and what it writes
    // is of its own account. The engine has let go of it.
    void give_back();

  private:
    ClientSegment() = default;
    Descriptor memfd_;
    std::unique_ptr<boost::interprocess::mapped_region> region_;
    std::byte* base_ = nullptr;
    ReaderSlot* slots_ = nullptr;
    TouchMarks* marks_ = nullptr;
    RingControl* ring_control_ = nullptr;
    std::byte* ring_ = nullptr;
    CallSlot* calls_ = nullptr;
    std::uint32_t slot_count_ = 0;
    std::uint32_t call_slot_count_ = 0;
    std::uint32_t ring_bytes_ = 0;
    std::uint32_t first_slot_ = 0;
};

}  // namespace bidstore
