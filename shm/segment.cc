#include "shm/segment.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/interprocess/mapped_region.hpp>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "shm/message.h"
#include "shm/ring.h"
#include "shm/stats.h"

namespace bidstore {
namespace {

using boost::interprocess::mapped_region;

constexpr std::uint64_t kHugePageBytes = 2u << 20;
constexpr std::uint32_t kReaderSlotsMax = 1u << 20;
constexpr std::uint32_t kCallSlotsMax = 1u << 16;

// What Boost.Interprocess wants to map: anything with a handle.
class MappedDescriptor {
  public:
    explicit MappedDescriptor(int number) : number_(number) {}
    boost::interprocess::mapping_handle_t get_mapping_handle() const {
        return boost::interprocess::ipcdetail::mapping_handle_from_file_handle(number_);
    }

  private:
    int number_;
};

std::string errno_text(int number) { return std::strerror(number); }

std::string two_values(std::string_view segment, std::string_view what, std::uint64_t found,
                       std::uint64_t expected, std::string_view remedy) {
    return std::string(segment) + ": " + std::string(what) + " is " + std::to_string(found) +
           ", expected " + std::to_string(expected) + "; " + std::string(remedy);
}

using RegionPointer = std::unique_ptr<mapped_region>;

// The only exceptions here are Boost's, and they end here.
Result<RegionPointer> map_region(std::string_view segment, int descriptor,
                                 boost::interprocess::mode_t mode, std::uint64_t size_bytes) {
    try {
        return std::make_unique<mapped_region>(MappedDescriptor{descriptor}, mode, 0, size_bytes);
    } catch (const boost::interprocess::interprocess_exception& error) {
        return {Error::kIoError, std::string(segment) + ": mapping " + std::to_string(size_bytes) +
                                     " bytes: " + errno_text(error.get_native_error())};
    }
}

// A memfd that only this user may open again, of a fixed size once seal() is done.
Result<Descriptor> make_memfd(const char* name, unsigned flags, std::uint64_t size_bytes) {
    const auto failure = [name](const char* step) {
        const int code = errno;
        return Failure{code == EINVAL || code == ENOSYS ? Error::kUnsupported : Error::kIoError,
                       std::string(name) + ": " + step + ": " + errno_text(code)};
    };
    Descriptor memfd{memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags)};
    if (!memfd) return failure("memfd_create");
    // Without this another user who holds a read-only descriptor could open it again, writable,
    // through /proc/self/fd.
    if (fchmod(memfd.number(), 0600) != 0) return failure("fchmod");
    if (ftruncate(memfd.number(), static_cast<off_t>(size_bytes)) != 0) return failure("ftruncate");
    return memfd;
}

// F_SEAL_SEAL goes with the last seals: after it none can be added.
Status seal(std::string_view segment, int descriptor, bool future_writes) {
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (future_writes) seals |= F_SEAL_FUTURE_WRITE;
    if (fcntl(descriptor, F_ADD_SEALS, seals) == 0) return {};
    return {Error::kUnsupported, std::string(segment) + ": sealing the memfd: " +
                                     errno_text(errno) + "; Linux 6.1 or newer is needed"};
}

// Brings all memory in now, and by an error rather than by SIGBUS when there is not enough.
Status touch(std::string_view segment, const mapped_region& region) {
    if (madvise(region.get_address(), region.get_size(), MADV_POPULATE_WRITE) == 0) return {};
    const int code = errno;
    return {code == EINVAL ? Error::kUnsupported : Error::kIoError,
            std::string(segment) + ": allocating " + std::to_string(region.get_size()) +
                " bytes of memory: " + errno_text(code) +
                (code == EINVAL ? "; Linux 6.1 or newer is needed"
                                : "; make the segment smaller or raise MemoryMax")};
}

struct Mapped {
    Descriptor memfd;
    RegionPointer region;
};

Result<Mapped> make_mapped(const char* name, unsigned flags, std::uint64_t size_bytes) {
    Result<Descriptor> memfd = make_memfd(name, flags, size_bytes);
    if (!memfd) return memfd.failure();
    Result<RegionPointer> region =
        map_region(name, memfd->number(), boost::interprocess::read_write, size_bytes);
    if (!region) return region.failure();
    // Small pages that lie together may still be huge underneath, where the administrator lets
    // shared memory have them; where not, this changes nothing.
    if (flags == 0 && size_bytes >= kHugePageBytes) {
        (void)madvise((*region)->get_address(), size_bytes, MADV_HUGEPAGE);
    }
    if (Status touched = touch(name, **region); !touched) return touched.failure();
    return Mapped{std::move(*memfd), std::move(*region)};
}

std::string huge_page_remedy(std::uint64_t size_bytes) {
    const std::string count = std::to_string(size_bytes / kHugePageBytes);
    return "set vm.nr_hugepages so that " + count +
           " huge pages of 2 MiB are free (sysctl -w vm.nr_hugepages=" + count +
           " when nothing else uses them), or set huge_pages = \"off\"";
}

constexpr const char* kPoolName = "bidstore-pool";
constexpr const char* kClientName = "bidstore-client";

// The memory of a pool, huge where wanted and possible; `huge` says which it became.
Result<Mapped> make_pool_memory(std::uint64_t size_bytes, HugePages huge_pages, bool& huge,
                                std::string* warning) {
    huge = false;
    if (huge_pages == HugePages::kOff) return make_mapped(kPoolName, 0, size_bytes);
    Result<Mapped> mapped = make_mapped(kPoolName, MFD_HUGETLB | MFD_HUGE_2MB, size_bytes);
    if (mapped) {
        huge = true;
        return mapped;
    }
    const std::string what = mapped.failure().what + "; " + huge_page_remedy(size_bytes);
    if (huge_pages == HugePages::kOn) return {Error::kUnsupported, "no huge pages: " + what};
    if (warning != nullptr) *warning = "pool falls back to small pages: " + what;
    return make_mapped(kPoolName, 0, size_bytes);
}

struct PoolOffsets {
    std::uint64_t page_map = 0;
    std::uint64_t descriptors = 0;
    std::uint64_t revoked = 0;
    std::uint64_t stats = 0;
    std::uint64_t directory = 0;
    std::uint64_t frames = 0;
    std::uint64_t end = 0;
};

// An even number: buckets are used in pairs.
std::uint64_t bucket_count(const PoolShape& shape) {
    return std::max<std::uint64_t>(shape.directory_bytes / (2 * sizeof(DirectoryBucket)), 1) * 2;
}

PoolOffsets pool_offsets(const PoolShape& shape) {
    const auto after = [](std::uint64_t offset, std::uint64_t count, std::uint64_t element_bytes) {
        return align_up(offset + count * element_bytes, kCacheLineBytes);
    };
    PoolOffsets offsets;
    offsets.page_map = sizeof(PoolHeader);
    offsets.descriptors = after(offsets.page_map, shape.page_count, sizeof(PageMapEntry));
    offsets.revoked = after(offsets.descriptors, shape.frame_count, sizeof(FrameDescriptor));
    offsets.stats = after(offsets.revoked, shape.slot_count, sizeof(RevokedEntry));
    offsets.directory = align_up(offsets.stats + sizeof(StatsPage), kPageBytes);
    // Whole huge pages, so that no frame shares one with the tables in front.
    offsets.frames = align_up(offsets.directory + bucket_count(shape) * sizeof(DirectoryBucket),
                              kHugePageBytes);
    offsets.end =
        align_up(offsets.frames + std::uint64_t{shape.frame_count} * kPageBytes, kHugePageBytes);
    return offsets;
}

Status check_shape(const PoolShape& shape) {
    const auto invalid = [](const char* what) {
        return Failure{Error::kInvalid, std::string("pool segment: ") + what};
    };
    if (shape.frame_count < 2) return invalid("frame_count is below 2: the pool is too small");
    if (shape.frame_count > kFrameMask) return invalid("frame_count is above 2^31 - 1");
    if (shape.page_count < 1) return invalid("page_count is 0: the file has no page");
    if (shape.slot_count < 1) return invalid("slot_count is 0: nobody could read");
    if (shape.instance_id == 0) return invalid("instance_id is 0");
    return {};
}

// One part of a segment, as its header describes it.
struct Part {
    const char* name;
    std::uint64_t offset;
    std::uint64_t count;
    std::uint64_t element_bytes;
    std::uint64_t alignment;
};

Status check_part(std::string_view segment, const Part& part, std::uint64_t segment_bytes) {
    const std::uint64_t room = part.offset <= segment_bytes ? segment_bytes - part.offset : 0;
    const bool aligned = part.offset % part.alignment == 0;
    const bool behind_header = part.offset >= sizeof(ClientHeader);
    if (aligned && behind_header && part.count != 0 && part.count <= room / part.element_bytes) {
        return {};
    }
    return {Error::kInvalid,
            std::string(segment) + ": " + part.name + " of " + std::to_string(part.count) +
                " times " + std::to_string(part.element_bytes) + " bytes at offset " +
                std::to_string(part.offset) + " does not fit a segment of " +
                std::to_string(segment_bytes) + " bytes; attach again, or restart the daemon"};
}

constexpr const char* kSameRelease = "install daemon and clients of the same release";

// What both headers have in common.
struct Identity {
    std::uint64_t magic;
    std::uint64_t abi_version;
    std::uint64_t fingerprint;
    std::uint64_t segment_bytes;
};

template <class Header>
Identity identity_of(const Header& header) {
    // Acquire: pairs with announce(); with the magic all of the header is there.
    return {header.magic.load(std::memory_order_acquire), header.abi_version, header.fingerprint,
            header.segment_bytes};
}

Status check_identity(std::string_view segment, const Identity& found, std::uint64_t magic,
                      std::uint64_t size_bytes) {
    if (found.magic != magic) {
        return {Error::kNotBidstore, two_values(segment, "magic", found.magic, magic,
                                                "this is no segment of a running bidstored")};
    }
    if (found.abi_version != kAbiVersion) {
        return {Error::kVersionMismatch,
                two_values(segment, "ABI version", found.abi_version, kAbiVersion, kSameRelease)};
    }
    if (found.fingerprint != kLayoutFingerprint) {
        return {Error::kVersionMismatch,
                two_values(segment, "layout fingerprint", found.fingerprint, kLayoutFingerprint,
                           kSameRelease)};
    }
    if (found.segment_bytes != size_bytes) {
        return {Error::kInvalid, two_values(segment, "size in the header", found.segment_bytes,
                                            size_bytes, "attach again, or restart the daemon")};
    }
    return {};
}

// The size of a segment that was handed over; an error when not even the header fits.
Result<std::uint64_t> segment_size(std::string_view segment, int descriptor,
                                   std::uint64_t header_bytes) {
    struct stat status {};
    if (fstat(descriptor, &status) != 0) {
        return {Error::kIoError, std::string(segment) + ": fstat: " + errno_text(errno)};
    }
    const auto size_bytes = static_cast<std::uint64_t>(status.st_size);
    if (size_bytes < header_bytes) {
        return {Error::kNotBidstore, two_values(segment, "size", size_bytes, header_bytes,
                                                "(at least) this is no segment of bidstored")};
    }
    return size_bytes;
}

Status check_pool_header(const PoolHeader& header, std::uint64_t size_bytes) {
    constexpr std::string_view kSegment = "pool segment";
    if (Status same = check_identity(kSegment, identity_of(header), kPoolMagic, size_bytes);
        !same) {
        return same;
    }
    if (header.page_bytes != kPageBytes) {
        return {Error::kVersionMismatch,
                two_values(kSegment, "page size", header.page_bytes, kPageBytes, kSameRelease)};
    }
    const Part parts[] = {
        {"page map", header.page_map_offset, header.page_count, sizeof(PageMapEntry),
         kCacheLineBytes},
        {"frame descriptors", header.descriptors_offset, header.frame_count,
         sizeof(FrameDescriptor), kCacheLineBytes},
        {"revoked episodes", header.revoked_offset, header.slot_count, sizeof(RevokedEntry),
         kCacheLineBytes},
        {"stats page", header.stats_offset, 1, sizeof(StatsPage), kCacheLineBytes},
        {"key directory", header.directory_offset, header.bucket_count, sizeof(DirectoryBucket),
         2 * sizeof(DirectoryBucket)},
        {"frames", header.frames_offset, header.frame_count, kPageBytes, kPageBytes},
    };
    for (const Part& part : parts) {
        if (Status fits = check_part(kSegment, part, size_bytes); !fits) return fits;
    }
    if (header.bucket_count % 2 == 0) return {};
    return {Error::kInvalid, two_values(kSegment, "bucket_count", header.bucket_count,
                                        header.bucket_count - 1,
                                        "an even number; attach again, or restart the daemon")};
}

std::uint64_t client_segment_bytes(const ClientHeader& header) {
    return align_up(header.calls_offset + std::uint64_t{header.call_slot_count} * sizeof(CallSlot),
                    kPageBytes);
}

Status check_ring_bytes(std::uint32_t ring_bytes) {
    // Carries transactions of half of it; values of kLargeValueBytesMax need 4 MiB.
    constexpr std::uint32_t kLeast = 1u << 20;
    if (is_power_of_two(ring_bytes) && ring_bytes >= kLeast) return {};
    return {Error::kInvalid, two_values("client segment", "ring size", ring_bytes, kLeast,
                                        "at least, and a power of two")};
}

Status check_shape(const ClientShape& shape) {
    const auto limit = [](const char* what, std::uint32_t count, std::uint32_t most) -> Status {
        if (count >= 1 && count <= most) return {};
        return {Error::kInvalid, std::string("client segment: ") + what + " is " +
                                     std::to_string(count) + ", allowed are 1 to " +
                                     std::to_string(most)};
    };
    if (Status slots = limit("slot_count", shape.slot_count, kReaderSlotsMax); !slots) return slots;
    if (Status calls = limit("call_slot_count", shape.call_slot_count, kCallSlotsMax); !calls) {
        return calls;
    }
    return check_ring_bytes(shape.ring_bytes);
}

Status check_client_header(const ClientHeader& header, std::uint64_t size_bytes) {
    constexpr std::string_view kSegment = "client segment";
    if (Status same = check_identity(kSegment, identity_of(header), kClientMagic, size_bytes);
        !same) {
        return same;
    }
    if (Status ring = check_ring_bytes(header.ring_bytes); !ring) return ring;
    const Part parts[] = {
        {"reader slots", header.slots_offset, header.slot_count, sizeof(ReaderSlot),
         kCacheLineBytes},
        {"touch marks", header.marks_offset, header.slot_count, sizeof(TouchMarks),
         kCacheLineBytes},
        {"ring control", header.ring_control_offset, 1, sizeof(RingControl), kCacheLineBytes},
        {"ring", header.ring_offset, header.ring_bytes, 1, kRingUnitBytes},
        {"call slots", header.calls_offset, header.call_slot_count, sizeof(CallSlot),
         kCacheLineBytes},
    };
    for (const Part& part : parts) {
        if (Status fits = check_part(kSegment, part, size_bytes); !fits) return fits;
    }
    return {};
}

template <class Type>
Type* at(std::byte* base, std::uint64_t offset) {
    return reinterpret_cast<Type*>(base + offset);
}
template <class Type>
const Type* at(const std::byte* base, std::uint64_t offset) {
    return reinterpret_cast<const Type*>(base + offset);
}

std::byte* base_of(const mapped_region& region) {
    return static_cast<std::byte*>(region.get_address());
}

}  // namespace

// ---- Descriptor ---------------------------------------------------------------------------------

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    if (this != &other) {
        if (number_ >= 0) close(number_);
        number_ = other.release();
    }
    return *this;
}

Descriptor::~Descriptor() {
    if (number_ >= 0) close(number_);
}

int Descriptor::release() {
    const int number = number_;
    number_ = -1;
    return number;
}

// ---- PoolSegment --------------------------------------------------------------------------------

PoolSegment::PoolSegment(PoolSegment&&) noexcept = default;
PoolSegment& PoolSegment::operator=(PoolSegment&&) noexcept = default;
PoolSegment::~PoolSegment() = default;

Result<PoolSegment> PoolSegment::create(const PoolShape& shape, HugePages huge_pages,
                                        bool seal_writes, std::string* warning) {
    if (Status valid = check_shape(shape); !valid) return valid.failure();
    const PoolOffsets offsets = pool_offsets(shape);
    PoolSegment segment;
    Result<Mapped> mapped = make_pool_memory(offsets.end, huge_pages, segment.huge_pages_, warning);
    if (!mapped) return mapped.failure();
    // After our own mapping, which stays writable when later ones may not be.
    if (Status sealed = seal(kPoolName, mapped->memfd.number(), seal_writes); !sealed) {
        return sealed.failure();
    }
    segment.memfd_ = std::move(mapped->memfd);
    segment.region_ = std::move(mapped->region);

    std::byte* base = base_of(*segment.region_);
    segment.header_ = at<PoolHeader>(base, 0);
    segment.page_map_ = at<PageMapEntry>(base, offsets.page_map);
    segment.descriptors_ = at<FrameDescriptor>(base, offsets.descriptors);
    segment.revoked_ = at<RevokedEntry>(base, offsets.revoked);
    segment.stats_ = at<StatsPage>(base, offsets.stats);
    segment.directory_ = at<DirectoryBucket>(base, offsets.directory);
    segment.frames_ = base + offsets.frames;

    PoolHeader& header = *segment.header_;
    header.abi_version = kAbiVersion;
    header.page_bytes = kPageBytes;
    header.fingerprint = kLayoutFingerprint;
    header.segment_bytes = offsets.end;
    header.instance_id = shape.instance_id;
    std::memcpy(header.file_uuid, shape.file_uuid, sizeof header.file_uuid);
    header.frame_count = shape.frame_count;
    header.page_count = shape.page_count;
    header.slot_count = shape.slot_count;
    header.catalog_root = shape.catalog_root;
    header.page_map_offset = offsets.page_map;
    header.descriptors_offset = offsets.descriptors;
    header.revoked_offset = offsets.revoked;
    header.stats_offset = offsets.stats;
    header.directory_offset = offsets.directory;
    header.bucket_count = bucket_count(shape);
    header.frames_offset = offsets.frames;
    header.max_snapshot_age_ns = shape.max_snapshot_age_ns;
    segment.stats_->stats_version = kStatsVersion;
    segment.stats_->counter_count = kCounterNames.size();
    segment.stats_->histogram_count = kHistogramNames.size();
    return segment;
}

Result<Descriptor> PoolSegment::open_read_only() const {
    const std::string path = "/proc/self/fd/" + std::to_string(memfd_.number());
    Descriptor descriptor{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!descriptor) {
        return {Error::kIoError, "pool segment: opening " + path + " read-only: " +
                                     errno_text(errno) + "; /proc must be mounted"};
    }
    return descriptor;
}

void PoolSegment::announce() {
    // Release: whoever sees the magic sees the header, and everything that it points to.
    header_->magic.store(kPoolMagic, std::memory_order_release);
}

// ---- PoolView -----------------------------------------------------------------------------------

PoolView::PoolView(PoolView&&) noexcept = default;
PoolView& PoolView::operator=(PoolView&&) noexcept = default;
PoolView::~PoolView() = default;

Result<PoolView> PoolView::map(Descriptor descriptor) {
    Result<std::uint64_t> size_bytes =
        segment_size("pool segment", descriptor.number(), sizeof(PoolHeader));
    if (!size_bytes) return size_bytes.failure();
    Result<RegionPointer> region = map_region("pool segment", descriptor.number(),
                                              boost::interprocess::read_only, *size_bytes);
    if (!region) return region.failure();
    const std::byte* base = base_of(**region);
    const PoolHeader& header = *at<PoolHeader>(base, 0);
    if (Status valid = check_pool_header(header, *size_bytes); !valid) return valid.failure();
    PoolView view;
    view.header_ = &header;
    view.page_map_ = at<PageMapEntry>(base, header.page_map_offset);
    view.descriptors_ = at<FrameDescriptor>(base, header.descriptors_offset);
    view.revoked_ = at<RevokedEntry>(base, header.revoked_offset);
    view.stats_ = at<StatsPage>(base, header.stats_offset);
    view.directory_ = at<DirectoryBucket>(base, header.directory_offset);
    view.frames_ = base + header.frames_offset;
    view.frame_count_ = header.frame_count;
    view.page_count_ = header.page_count;
    view.slot_count_ = header.slot_count;
    view.bucket_count_ = header.bucket_count;
    view.region_ = std::move(*region);
    // The mapping outlives the descriptor, which closes here.
    return view;
}

// ---- ClientSegment ------------------------------------------------------------------------------

ClientSegment::ClientSegment(ClientSegment&&) noexcept = default;
ClientSegment& ClientSegment::operator=(ClientSegment&&) noexcept = default;
ClientSegment::~ClientSegment() = default;

Result<ClientSegment> ClientSegment::create(const ClientShape& shape) {
    if (Status valid = check_shape(shape); !valid) return valid.failure();
    ClientHeader plan{};
    plan.slots_offset = sizeof(ClientHeader);
    plan.marks_offset = plan.slots_offset + std::uint64_t{shape.slot_count} * sizeof(ReaderSlot);
    plan.ring_control_offset =
        plan.marks_offset + std::uint64_t{shape.slot_count} * sizeof(TouchMarks);
    plan.ring_offset = align_up(plan.ring_control_offset + sizeof(RingControl), kPageBytes);
    plan.calls_offset = plan.ring_offset + shape.ring_bytes;
    plan.call_slot_count = shape.call_slot_count;
    plan.segment_bytes = client_segment_bytes(plan);

    Result<Mapped> mapped = make_mapped(kClientName, 0, plan.segment_bytes);
    if (!mapped) return mapped.failure();
    // The client holds a writable descriptor: were the size not sealed, it could cut the segment
    // short under the daemon, which would die of SIGBUS.
    if (Status sealed = seal(kClientName, mapped->memfd.number(), false); !sealed) {
        return sealed.failure();
    }
    ClientSegment segment;
    segment.memfd_ = std::move(mapped->memfd);
    segment.region_ = std::move(mapped->region);
    segment.base_ = base_of(*segment.region_);
    segment.slots_ = at<ReaderSlot>(segment.base_, plan.slots_offset);
    segment.marks_ = at<TouchMarks>(segment.base_, plan.marks_offset);
    segment.ring_control_ = at<RingControl>(segment.base_, plan.ring_control_offset);
    segment.ring_ = segment.base_ + plan.ring_offset;
    segment.calls_ = at<CallSlot>(segment.base_, plan.calls_offset);
    segment.slot_count_ = shape.slot_count;
    segment.call_slot_count_ = shape.call_slot_count;
    segment.ring_bytes_ = shape.ring_bytes;
    segment.first_slot_ = shape.first_slot;

    // New memory is zeros: slots idle with episode 0, ring empty, no call answered.
    ClientHeader& header = segment.header();
    header.abi_version = kAbiVersion;
    header.first_slot = shape.first_slot;
    header.fingerprint = kLayoutFingerprint;
    header.segment_bytes = plan.segment_bytes;
    header.instance_id = shape.instance_id;
    std::memcpy(header.session_id, shape.session_id, sizeof header.session_id);
    header.slot_count = shape.slot_count;
    header.call_slot_count = shape.call_slot_count;
    header.ring_bytes = shape.ring_bytes;
    header.rights = static_cast<std::uint32_t>(shape.rights);
    header.slots_offset = plan.slots_offset;
    header.marks_offset = plan.marks_offset;
    header.ring_control_offset = plan.ring_control_offset;
    header.ring_offset = plan.ring_offset;
    header.calls_offset = plan.calls_offset;
    return segment;
}

Result<ClientSegment> ClientSegment::map(Descriptor descriptor) {
    Result<std::uint64_t> size_bytes =
        segment_size("client segment", descriptor.number(), sizeof(ClientHeader));
    if (!size_bytes) return size_bytes.failure();
    Result<RegionPointer> region = map_region("client segment", descriptor.number(),
                                              boost::interprocess::read_write, *size_bytes);
    if (!region) return region.failure();
    std::byte* base = base_of(**region);
    const ClientHeader& header = *at<ClientHeader>(base, 0);
    if (Status valid = check_client_header(header, *size_bytes); !valid) return valid.failure();
    // A forked child has no client segment: it would write into its parent's slots and ring.
    if (madvise(base, *size_bytes, MADV_DONTFORK) != 0) {
        return {Error::kUnsupported, "client segment: MADV_DONTFORK: " + errno_text(errno)};
    }
    ClientSegment segment;
    segment.base_ = base;
    segment.slots_ = at<ReaderSlot>(base, header.slots_offset);
    segment.marks_ = at<TouchMarks>(base, header.marks_offset);
    segment.ring_control_ = at<RingControl>(base, header.ring_control_offset);
    segment.ring_ = base + header.ring_offset;
    segment.calls_ = at<CallSlot>(base, header.calls_offset);
    segment.slot_count_ = header.slot_count;
    segment.call_slot_count_ = header.call_slot_count;
    segment.ring_bytes_ = header.ring_bytes;
    segment.first_slot_ = header.first_slot;
    segment.memfd_ = std::move(descriptor);
    segment.region_ = std::move(*region);
    return segment;
}

void ClientSegment::announce(std::uint64_t last_number) {
    header().last_number = last_number;
    init_ring(*ring_control_, last_number);
    // Release: whoever sees the magic sees the rest.
    header().magic.store(kClientMagic, std::memory_order_release);
}

void ClientSegment::give_back() {
    const auto offset_of = [this](const void* part) {
        return static_cast<std::uint64_t>(static_cast<const std::byte*>(part) - base_);
    };
    const auto punch = [this](std::uint64_t from, std::uint64_t to) {
        if (from >= to) return;
        // Seals do not forbid it. Where it fails, all stays until the client lets go of it.
        (void)fallocate(memfd_.number(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(from), static_cast<off_t>(to - from));
    };
    // An honest client that has not noticed the end yet claims a place once more: by numbers that
    // stay.
    const std::uint64_t control = offset_of(ring_control_) / kPageBytes * kPageBytes;
    punch(align_up(sizeof(ClientHeader), kPageBytes), control);
    punch(offset_of(ring_), region_->get_size());
}

}  // namespace bidstore
