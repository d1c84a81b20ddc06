#include "tests/sim_disk.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "shm/atom.h"
#include "shm/base.h"

namespace bidstore {

namespace {

constexpr std::byte kGarbage{0xa5};
constexpr std::uint64_t kLatencyNs = 40'000;

// Puts a sector where a device would. In a frame of the pool its first word may be looked at
// meanwhile, by a reader whose walk is stale (shm/version_writer.h): one store, so that the thread
// sanitizer has nothing to say to it.
void land(std::byte* to, std::span<const std::byte> sector) {
    std::uint64_t first = 0;
    std::memcpy(&first, sector.data(), sizeof first);
    reinterpret_cast<Atom<std::uint64_t>*>(to)->store(first, std::memory_order_relaxed);
    std::memcpy(to + sizeof first, sector.data() + sizeof first, sector.size() - sizeof first);
}

}  // namespace

SimDisk::SimDisk(const SimDiskOptions& options) : options_(options), random_(options.seed) {}

SimDisk::~SimDisk() {
    for (Flight& flight : flights_) flight.request->in_flight = false;
}

std::string SimDisk::path(StoreFile file) const {
    return std::string("sim:/") + store_file_name(file);
}

void SimDisk::observe(std::function<void(std::uint64_t, SimStep)> observer) {
    observer_ = std::move(observer);
}

// Counts; false when the disk is dead, now or since before.
bool SimDisk::step(SimStep kind) {
    if (crashed_) return false;
    ++step_;
    if (observer_) observer_(step_, kind);
    if (step_ == crash_step_) crash_now();
    return !crashed_;
}

void SimDisk::crash_now() {
    if (!crashed_) cut_off_ = flights_;
    crashed_ = true;
}

// ---- requests

void SimDisk::check_request(const DiskRequest& request) const {
    CHECK(!request.in_flight);
    CHECK(request.completed != nullptr);
    CHECK(request.offset_bytes % kPageBytes == 0);
    CHECK(request.length_bytes % kPageBytes == 0);
    if (request.buffer != nullptr) CHECK_OP(request.length_bytes, <=, kMaxTransferBytes);
    const bool sync = request.kind == DiskRequest::Kind::kSync;
    const bool cut = request.kind == DiskRequest::Kind::kCut;
    CHECK((sync || cut) == (request.length_bytes == 0));
    if (sync) return;
    if (cut) {
        if (!crashed_) CHECK_OP(request.offset_bytes, <=, file_of(request.file).size_bytes);
        return;
    }
    const std::uint64_t end = request.offset_bytes + request.length_bytes;
    if (request.kind == DiskRequest::Kind::kPunch) {
        CHECK(request.buffer == nullptr);
        if (!crashed_) CHECK_OP(end, <=, file_of(request.file).size_bytes);
        return;
    }
    if (request.kind == DiskRequest::Kind::kExtend) {
        CHECK(request.buffer == nullptr);
        if (!crashed_) CHECK_OP(request.offset_bytes, <=, file_of(request.file).size_bytes);
        return;
    }
    void* aligned = request.buffer;
    std::size_t space = kPageBytes;
    CHECK(std::align(kPageBytes, 1, aligned, space) == request.buffer);
    // Growth is kGrow, without a gap; a plain write behind the end is a mistake of ours.
    const bool write = request.kind == DiskRequest::Kind::kWrite;
    if (write && !crashed_) CHECK_OP(end, <=, file_of(request.file).size_bytes);
    if (request.kind != DiskRequest::Kind::kGrow || crashed_) return;
    CHECK_OP(request.offset_bytes, <=, file_of(request.file).size_bytes);
    const auto* bytes = static_cast<const std::byte*>(request.buffer);
    CHECK(std::all_of(bytes, bytes + request.length_bytes,
                      [](std::byte byte) { return byte == std::byte{0}; }));
}

void SimDisk::submit(DiskRequest& request) {
    check_request(request);
    const bool writes =
        request.kind != DiskRequest::Kind::kRead && request.kind != DiskRequest::Kind::kSync;
    const SimStep kind = request.kind == DiskRequest::Kind::kRead ? SimStep::kSubmitRead
                         : writes                                 ? SimStep::kSubmitWrite
                                                                  : SimStep::kSubmitSync;
    submitting_ = &request;
    const bool alive = step(kind);
    submitting_ = nullptr;
    request.in_flight = true;
    Flight flight;
    flight.request = &request;
    flight.file = request.file;
    flight.order = order_;
    if (writes) capture(flight);
    if (request.kind == DiskRequest::Kind::kRead) {
        static const std::vector<std::byte> garbage(kSectorBytes, kGarbage);
        auto* to = static_cast<std::byte*>(request.buffer);
        for (std::uint32_t at = 0; at < request.length_bytes; at += kSectorBytes) {
            land(to + at, garbage);
        }
    }
    if (const auto failure = failures_.find(step_); alive && failure != failures_.end()) {
        flight.error_number = failure->second;
    }
    if (each_ns_ != 0) {
        busy_until_ns_ = std::max(busy_until_ns_, served_by_->monotonic_ns()) + each_ns_;
        flight.done_ns = busy_until_ns_;
    }
    flights_.push_back(std::move(flight));
}

void SimDisk::capture(Flight& flight) {
    const DiskRequest& request = *flight.request;
    if (request.kind == DiskRequest::Kind::kCut) {
        flight.cuts_to_bytes = request.offset_bytes;
        return;
    }
    flight.punches = request.kind == DiskRequest::Kind::kPunch;
    flight.write = ++writes_;
    flight.first_sector = flight.asked_sector = request.offset_bytes / kSectorBytes;
    flight.lost = lost_.contains(step_);
    if (const auto place = misdirected_.find(step_); place != misdirected_.end()) {
        flight.first_sector = place->second / kSectorBytes;
    }
    const auto* bytes = static_cast<const std::byte*>(request.buffer);
    static const auto zeros = std::make_shared<Sector>();  // of growth and holes, one for all
    const bool extends = request.kind == DiskRequest::Kind::kExtend;
    if (extends || request.kind == DiskRequest::Kind::kGrow) {
        flight.grows_to_bytes = request.offset_bytes + request.length_bytes;
    }
    if (extends) return;
    for (std::uint32_t at = 0; at < request.length_bytes; at += kSectorBytes) {
        if (request.kind != DiskRequest::Kind::kWrite) {
            flight.values.push_back(zeros);
            continue;
        }
        auto sector = std::make_shared<Sector>();
        std::memcpy(sector->data(), bytes + at, kSectorBytes);
        flight.values.push_back(std::move(sector));
    }
}

std::uint32_t SimDisk::in_flight() const { return static_cast<std::uint32_t>(flights_.size()); }

bool SimDisk::wake_is_readable() const {
    if (wake_ < 0) return false;
    pollfd source{wake_, POLLIN, 0};
    return ::poll(&source, 1, 0) > 0;
}

int SimDisk::poll(std::uint64_t timeout_ns) {
    CHECK(!polling_);
    if (flights_.empty()) {
        const bool sleeps = timeout_ns > 0 && !wake_is_readable();
        if (sleeps && options_.clock) options_.clock->advance_ns(timeout_ns);
        return 0;
    }
    if (each_ns_ != 0 && !crashed_) return poll_served(timeout_ns);
    polling_ = true;
    std::size_t count = flights_.size();
    if (options_.reorder && !crashed_) {
        if (options_.clock) options_.clock->advance_ns(random(kLatencyNs));
        const std::size_t least = timeout_ns > 0 ? 1 : 0;  // else it may find none
        if (least == 0 && slowness_ > 1 && random(slowness_) != 0) count = 0;
        if (count > 0) count = least + random(count + 1 - least);
    }
    int completed = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t any = options_.reorder ? random(flights_.size()) : 0;
        completed += deliver(newest_first_ ? flights_.size() - 1 : any);
    }
    polling_ = false;
    return completed;
}

int SimDisk::poll_served(std::uint64_t timeout_ns) {
    const std::uint64_t now_ns = served_by_->monotonic_ns();
    const std::uint64_t next_ns = flights_.front().done_ns;
    if (next_ns > now_ns && timeout_ns > 0) {
        served_by_->advance_ns(std::min(timeout_ns, next_ns - now_ns));
    }
    polling_ = true;
    int count = 0;
    // A completion may submit: what comes then has its turn later.
    while (!flights_.empty() && flights_.front().done_ns <= served_by_->monotonic_ns()) {
        count += deliver(0);
    }
    polling_ = false;
    return count;
}

// False: a part of it was done, or none, and it goes on.
bool SimDisk::deliver(std::size_t index) {
    if (held_back_ == flights_[index].file && !crashed_) return false;
    const bool alive = step(SimStep::kComplete);
    const auto at = flights_.begin() + static_cast<std::ptrdiff_t>(index);
    if (alive && transfer_part(*at)) return false;
    Flight flight = std::move(*at);
    flights_.erase(at);
    if (const auto failure = failures_.find(step_); alive && failure != failures_.end()) {
        flight.error_number = failure->second;
    }
    DiskRequest& request = *flight.request;
    request.result = alive ? effect(flight) : -EIO;
    request.in_flight = false;
    request.completed(request, request.context);
    return true;
}

// ---- effects

// Does some of a transfer that nothing keeps from ending; the rest stays in flight.
bool SimDisk::transfer_part(Flight& flight) {
    const DiskRequest& request = *flight.request;
    const bool reads = request.kind == DiskRequest::Kind::kRead;
    if (parts_one_in_ == 0 || (!reads && request.kind != DiskRequest::Kind::kWrite)) return false;
    const std::uint64_t left = request.length_bytes / kSectorBytes - flight.done_sectors;
    if (left < 2 || random(parts_one_in_) != 0) return false;
    if (flight.error_number != 0 || flight.lost || failures_.contains(step_)) return false;
    if (reads ? read(flight) < 0 : writes_into_a_hole(flight)) return false;
    const std::uint64_t sectors = 1 + random(left - 1);
    if (reads) {
        read_sectors(flight, sectors);
    } else {
        check_untouched(flight);
        const auto end = flight.values.begin() + static_cast<std::ptrdiff_t>(sectors);
        Flight part = flight;
        part.values.assign(flight.values.begin(), end);
        apply_write(part, request.durable);
        flight.values.erase(flight.values.begin(), end);
    }
    flight.first_sector += sectors;
    flight.asked_sector += sectors;
    flight.done_sectors += sectors;
    ++parts_;
    return true;
}

std::int64_t SimDisk::effect(Flight& flight) {
    const DiskRequest& request = *flight.request;
    if (request.kind == DiskRequest::Kind::kRead) {
        const std::int64_t result = read(flight);
        if (result > 0) {
            read_sectors(flight, request.length_bytes / kSectorBytes - flight.done_sectors);
        }
        return result;
    }
    if (request.kind == DiskRequest::Kind::kSync) {
        if (flight.error_number != 0) {
            if (forgets()) take_for_clean(flight);
            return -flight.error_number;
        }
        apply_sync(flight);
        return 0;
    }
    if (request.kind == DiskRequest::Kind::kCut) {
        if (flight.error_number != 0) return -flight.error_number;
        cut(flight);
        return 0;
    }
    check_untouched(flight);
    if (flight.error_number != 0) {
        if (!forgets()) {
            write_in_part(flight);
        } else {
            apply_write(flight, false);  // it had come into the cache, and no further
            take_for_clean(flight);
        }
        return -flight.error_number;
    }
    if (writes_into_a_hole(flight)) return -options_.full_error;
    if (!grow(flight)) return -options_.full_error;
    if (!flight.lost) apply_write(flight, request.durable);
    return request.length_bytes;
}

std::uint64_t SimDisk::room_bytes() const {
    std::uint64_t used = 0;
    for (const File& file : files_) used += file.size_bytes - file.holes.size() * kPageBytes;
    return options_.capacity_bytes - std::min(options_.capacity_bytes, used);
}

bool SimDisk::writes_into_a_hole(const Flight& flight) const {
    if (flight.request->kind != DiskRequest::Kind::kWrite) return false;
    const File& file = file_of(flight.file);
    const std::uint64_t first = flight.asked_sector * kSectorBytes / kPageBytes;
    const auto hole = file.holes.lower_bound(first);
    const std::uint64_t end = first + flight.values.size() * kSectorBytes / kPageBytes;
    return hole != file.holes.end() && *hole < end;
}

// Makes the file as long as a growth needs; false when the disk is full before that.
bool SimDisk::grow(const Flight& flight) {
    File& file = file_of(flight.file);
    const std::uint64_t end = flight.grows_to_bytes;
    if (end == 0) return true;
    if (!fill_holes(flight, room_bytes())) return false;
    if (end <= file.size_bytes) return true;
    const std::uint64_t room_blocks = room_bytes() / kPageBytes * kPageBytes;
    file.size_bytes = std::min(end, file.size_bytes + room_blocks);
    file.grown.push_back({++order_, file.size_bytes});
    return file.size_bytes == end;
}

bool SimDisk::fill_holes(const Flight& flight, std::uint64_t room) {
    File& file = file_of(flight.file);
    const std::uint64_t end = flight.grows_to_bytes / kPageBytes;
    for (auto hole = file.holes.lower_bound(flight.asked_sector * kSectorBytes / kPageBytes);
         hole != file.holes.end() && *hole < end; hole = file.holes.erase(hole)) {
        if (room < kPageBytes) return false;
        room -= kPageBytes;
        file.filled[*hole] = ++order_;
    }
    return true;
}

void SimDisk::cut(const Flight& flight) {
    File& file = file_of(flight.file);
    const std::uint64_t old_bytes = std::max(file.size_bytes, file.cut_from.size_bytes);
    set_size(file, std::min(file.size_bytes, flight.cuts_to_bytes));
    file.cut_from = {++order_, old_bytes};
}

void SimDisk::set_size(File& file, std::uint64_t bytes) {
    file.size_bytes = file.durable_size_bytes = bytes;
    file.grown.clear();
    file.cut_from = {};
    file.holes.erase(file.holes.lower_bound(bytes / kPageBytes), file.holes.end());
    file.filled.erase(file.filled.lower_bound(bytes / kPageBytes), file.filled.end());
    const std::uint64_t sectors = bytes / kSectorBytes;
    if (file.durable.size() > sectors) file.durable.resize(sectors);
    file.cached.erase(file.cached.lower_bound(sectors), file.cached.end());
}

// After power loss a file has a size between the durable one and the newest; a cut may not have
// happened, and holes may be there again.
void SimDisk::lose_unsynced_growth(SimDisk& next) const {
    for (const Flight& flight : crashed_ ? cut_off_ : flights_) {
        const bool cuts = flight.cuts_to_bytes != ~std::uint64_t{0};
        if (cuts && next.random(2) == 0) next.cut(flight);
    }
    for (File& file : next.files_) {
        for (const auto& [page, order] : file.filled) {
            if (next.random(2) == 0) file.holes.insert(page);
        }
        file.filled.clear();
        if (file.cut_from.size_bytes > file.size_bytes) {
            const std::uint64_t blocks = (file.cut_from.size_bytes - file.size_bytes) / kPageBytes;
            set_size(file, file.size_bytes + next.random(blocks + 1) * kPageBytes);
        }
        if (file.grown.empty()) continue;
        const std::uint64_t blocks = (file.size_bytes - file.durable_size_bytes) / kPageBytes;
        set_size(file, file.durable_size_bytes + next.random(blocks + 1) * kPageBytes);
    }
}

// How a read ends.
std::int64_t SimDisk::read(const Flight& flight) const {
    const DiskRequest& request = *flight.request;
    if (flight.error_number != 0) return -flight.error_number;
    const std::uint64_t begin = request.offset_bytes;
    const std::uint64_t end = begin + request.length_bytes;
    for (const BadRange& bad : bad_ranges_) {
        if (bad.file == request.file && begin < bad.end && bad.begin < end) {
            return -bad.error_number;
        }
    }
    if (end > file_of(request.file).size_bytes) return -ENODATA;
    return request.length_bytes;
}

void SimDisk::read_sectors(const Flight& flight, std::uint64_t sectors) const {
    const DiskRequest& request = *flight.request;
    const std::uint64_t done_bytes = flight.done_sectors * kSectorBytes;
    const std::vector<std::byte> bytes =
        peek(request.file, request.offset_bytes + done_bytes, sectors * kSectorBytes);
    auto* to = static_cast<std::byte*>(request.buffer) + done_bytes;
    for (std::uint64_t at = 0; at < bytes.size(); at += kSectorBytes) {
        land(to + at, std::span(bytes).subspan(at, kSectorBytes));
    }
}

void SimDisk::check_untouched(const Flight& flight) const {
    if (flight.request->buffer == nullptr) return;  // a hole
    const auto* bytes =
        static_cast<const std::byte*>(flight.request->buffer) + flight.done_sectors * kSectorBytes;
    for (std::size_t i = 0; i < flight.values.size(); ++i) {
        const bool same =
            std::memcmp(flight.values[i]->data(), bytes + i * kSectorBytes, kSectorBytes) == 0;
        CHECK(same);  // the caller changed a buffer that was being written
    }
}

void SimDisk::apply_write(const Flight& flight, bool durable) {
    File& file = file_of(flight.file);
    ++order_;
    for (std::size_t i = 0; flight.punches && i < flight.values.size(); ++i) {
        file.holes.insert((flight.first_sector + i) * kSectorBytes / kPageBytes);
    }
    for (std::size_t i = 0; i < flight.values.size(); ++i) {
        const std::uint64_t sector = flight.first_sector + i;
        if (sector * kSectorBytes >= file.size_bytes) continue;  // misdirected, or cut meanwhile
        if (durable) {
            store(file, sector, flight.values[i]);
            file.cached.erase(sector);  // all older
        } else {
            file.cached[sector].push_back({order_, flight.write, flight.values[i], false});
        }
    }
}

void SimDisk::write_in_part(const Flight& flight) {
    Flight part = flight;
    part.values.resize(random(part.values.size() + 1));
    apply_write(part, false);
}

void SimDisk::apply_sync(const Flight& flight) {
    File& file = file_of(flight.file);
    std::erase_if(file.grown, [&](const GrownSize& grown) {
        if (grown.order > flight.order) return false;
        file.durable_size_bytes = std::max(file.durable_size_bytes, grown.size_bytes);
        return true;
    });
    if (file.cut_from.order <= flight.order) file.cut_from = {};
    std::erase_if(file.filled, [&](const auto& fill) { return fill.second <= flight.order; });
    for (auto at = file.cached.begin(); at != file.cached.end();) {
        std::vector<Version>& versions = at->second;
        const auto later = std::find_if(versions.begin(), versions.end(),
                                        [&](const Version& v) { return v.order > flight.order; });
        if (later != versions.begin() && !std::prev(later)->clean) {
            store(file, at->first, std::prev(later)->value);
            versions.erase(versions.begin(), later);
        }
        at = versions.empty() ? file.cached.erase(at) : std::next(at);
    }
}

// Whether what a write or a sync that failed left in the page cache is never written.
bool SimDisk::forgets() { return options_.page_cache && random(2) == 0; }

void SimDisk::take_for_clean(const Flight& flight) {
    ++taken_for_clean_;
    for (auto& [sector, versions] : file_of(flight.file).cached) {
        const auto covered = [&](const Version& version) {
            return flight.write != 0 ? version.write == flight.write
                                     : version.order <= flight.order;
        };
        const auto last = std::find_if(versions.rbegin(), versions.rend(), covered);
        for (auto at = last; at != versions.rend(); ++at) at->clean = true;
    }
}

void SimDisk::store(File& file, std::uint64_t sector, SectorPtr value) {
    if (file.durable.size() <= sector) file.durable.resize(sector + 1);
    file.durable[sector] = std::move(value);
}

SimDisk::SectorPtr SimDisk::newest(const File& file, std::uint64_t sector) const {
    const auto cached = file.cached.find(sector);
    if (cached != file.cached.end()) return cached->second.back().value;
    return sector < file.durable.size() ? file.durable[sector] : nullptr;
}

// ---- sizes

Result<std::uint64_t> SimDisk::size_bytes(StoreFile file) {
    if (crashed_) return {Error::kIoError, path(file) + ": the disk is dead"};
    return file_of(file).size_bytes;
}

Result<bool> SimDisk::backed(StoreFile name, std::uint64_t offset_bytes,
                             std::uint64_t length_bytes) {
    const File& file = file_of(name);
    if (crashed_) return {Error::kIoError, path(name) + ": the disk is dead"};
    const auto hole = file.holes.lower_bound(offset_bytes / kPageBytes);
    const std::uint64_t end = offset_bytes + length_bytes;
    return end <= file.size_bytes && (hole == file.holes.end() || *hole * kPageBytes >= end);
}

Status SimDisk::resize(StoreFile name, std::uint64_t size_bytes) {
    CHECK(size_bytes % kPageBytes == 0);
    File& file = file_of(name);
    const Status dead(Error::kIoError, path(name) + ": the disk is dead");
    if (!step(SimStep::kResize)) return dead;
    if (const auto failure = failures_.find(step_); failure != failures_.end()) {
        const bool full = failure->second == ENOSPC;
        return {full ? Error::kNoSpace : Error::kIoError,
                "resizing " + path(name) + ": errno " + std::to_string(failure->second)};
    }
    if (size_bytes > file.size_bytes && size_bytes - file.size_bytes > room_bytes()) {
        return {Error::kNoSpace, "growing " + path(name) + ": no space left on device"};
    }
    const std::uint64_t old = file.size_bytes;
    const std::uint64_t low = std::min(old, size_bytes);
    const std::uint64_t blocks = (std::max(old, size_bytes) - low) / kPageBytes;
    set_size(file, low + random(blocks + 1) * kPageBytes);
    if (!step(SimStep::kResize)) return dead;
    set_size(file, size_bytes);
    return {};
}

// ---- planting and looking

std::vector<std::byte> SimDisk::peek(StoreFile name, std::uint64_t offset_bytes,
                                     std::uint64_t length_bytes) const {
    const File& file = file_of(name);
    std::vector<std::byte> bytes(length_bytes);
    for (std::uint64_t done = 0; done < length_bytes;) {
        const std::uint64_t at = offset_bytes + done;
        const std::uint64_t within = at % kSectorBytes;
        const std::uint64_t part = std::min(length_bytes - done, kSectorBytes - within);
        const SectorPtr sector = newest(file, at / kSectorBytes);
        if (sector) std::memcpy(bytes.data() + done, sector->data() + within, part);
        done += part;
    }
    return bytes;
}

void SimDisk::poke(StoreFile name, std::uint64_t offset_bytes, const void* bytes,
                   std::uint64_t length_bytes) {
    File& file = file_of(name);
    CHECK_OP(offset_bytes + length_bytes, <=, file.size_bytes);
    const auto* from = static_cast<const std::byte*>(bytes);
    for (std::uint64_t done = 0; done < length_bytes;) {
        const std::uint64_t at = offset_bytes + done;
        const std::uint64_t within = at % kSectorBytes;
        const std::uint64_t part = std::min(length_bytes - done, kSectorBytes - within);
        const SectorPtr old = newest(file, at / kSectorBytes);
        auto sector = old ? std::make_shared<Sector>(*old) : std::make_shared<Sector>();
        std::memcpy(sector->data() + within, from + done, part);
        store(file, at / kSectorBytes, std::move(sector));
        file.cached.erase(at / kSectorBytes);
        done += part;
    }
}

void SimDisk::flip(StoreFile name, std::uint64_t offset_bytes, unsigned bit) {
    const auto flipped = [&](const SectorPtr& old) {
        auto sector = old ? std::make_shared<Sector>(*old) : std::make_shared<Sector>();
        (*sector)[offset_bytes % kSectorBytes] ^= std::byte{1} << bit;
        const auto before = rotten_.find(old);
        rotten_[sector] = before == rotten_.end() ? old : before->second;
        return sector;
    };
    File& file = file_of(name);
    const std::uint64_t at = offset_bytes / kSectorBytes;
    CHECK_OP(offset_bytes, <, file.size_bytes);
    store(file, at, flipped(at < file.durable.size() ? file.durable[at] : nullptr));
    const auto cached = file.cached.find(at);
    if (cached == file.cached.end()) return;
    for (Version& version : cached->second) version.value = flipped(version.value);
}

void SimDisk::mend() {
    const auto mended = [&](SectorPtr& sector) {
        const auto rotten = rotten_.find(sector);
        if (rotten != rotten_.end()) sector = rotten->second;
    };
    for (File& file : files_) {
        for (SectorPtr& sector : file.durable) mended(sector);
        for (auto& [at, versions] : file.cached) {
            for (Version& version : versions) mended(version.value);
        }
    }
    rotten_.clear();
}

void SimDisk::bad_range(StoreFile file, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                        int error_number) {
    bad_ranges_.push_back({file, offset_bytes, offset_bytes + length_bytes, error_number});
}

// ---- after the end

std::unique_ptr<SimDisk> SimDisk::successor(std::uint64_t seed) const {
    SimDiskOptions options = options_;
    options.seed = seed;
    auto disk = std::make_unique<SimDisk>(options);
    disk->files_ = files_;
    disk->order_ = order_;
    disk->writes_ = writes_;
    disk->bad_ranges_ = bad_ranges_;
    disk->rotten_ = rotten_;
    disk->parts_one_in_ = parts_one_in_;
    return disk;
}

std::unique_ptr<SimDisk> SimDisk::clone(std::uint64_t seed) const {
    CHECK(flights_.empty());
    return successor(seed);
}

void SimDisk::forget_cache() {
    for (File& file : files_) file.cached.clear();
}

std::vector<SimDisk::Candidate> SimDisk::candidates() const {
    std::array<std::map<std::uint64_t, std::vector<Version>>, kStoreFileCount> values;
    for (std::uint32_t i = 0; i < kStoreFileCount; ++i) values[i] = files_[i].cached;
    for (const Flight& flight : crashed_ ? cut_off_ : flights_) {
        if (flight.lost) continue;
        for (std::size_t i = 0; i < flight.values.size(); ++i) {
            const std::uint64_t sector = flight.first_sector + i;
            if (sector * kSectorBytes >= file_of(flight.file).size_bytes) continue;
            values[static_cast<unsigned>(flight.file)][sector].push_back(
                {order_ + 1, flight.write, flight.values[i], false});
        }
    }
    std::vector<Candidate> all;
    for (std::uint32_t i = 0; i < kStoreFileCount; ++i) {
        for (auto& [sector, versions] : values[i]) {
            all.push_back({static_cast<StoreFile>(i), sector, std::move(versions)});
        }
    }
    return all;
}

std::uint64_t SimDisk::unsynced_sectors() const { return candidates().size(); }

std::vector<std::pair<StoreFile, std::uint64_t>> SimDisk::differences(const SimDisk& other) const {
    static const Sector kZeros{};
    const auto content = [](const SectorPtr& sector) {
        return sector ? sector->data() : kZeros.data();
    };
    std::vector<std::pair<StoreFile, std::uint64_t>> places;
    for (std::uint32_t i = 0; i < kStoreFileCount; ++i) {
        const std::uint64_t bytes = std::max(files_[i].size_bytes, other.files_[i].size_bytes);
        for (std::uint64_t at = 0; at < bytes / kSectorBytes; ++at) {
            const SectorPtr here = newest(files_[i], at);
            const SectorPtr there = newest(other.files_[i], at);
            if (here == there) continue;
            if (std::memcmp(content(here), content(there), kSectorBytes) == 0) continue;
            places.emplace_back(static_cast<StoreFile>(i), at);
        }
    }
    return places;
}

std::unique_ptr<SimDisk> SimDisk::power_loss(std::uint64_t seed) const {
    return power_loss(seed, candidates(), 0);
}

std::unique_ptr<SimDisk> SimDisk::misdirected_power_loss(std::uint64_t seed) const {
    const std::vector<Candidate> all = candidates();
    std::vector<std::pair<std::uint64_t, StoreFile>> writes;
    for (const Candidate& candidate : all) {
        for (const Version& each : candidate.versions) {
            writes.emplace_back(each.write, candidate.file);
        }
    }
    if (writes.empty()) return nullptr;
    std::mt19937_64 random(~seed);  // of its own: all else is as power_loss() has it
    const auto [write, file] = writes[random() % writes.size()];
    auto disk = power_loss(seed, all, write);
    File& there = disk->file_of(file);
    const std::uint64_t to = random() % (there.size_bytes / kPageBytes) * kPageBytes / kSectorBytes;
    std::vector<std::pair<std::uint64_t, SectorPtr>> written;
    for (const Candidate& candidate : all) {
        for (const Version& each : candidate.versions) {
            if (each.write == write) written.emplace_back(candidate.sector, each.value);
        }
    }
    const std::uint64_t own = written.front().first;
    if (to == own) return nullptr;
    for (const auto& [from, value] : written) {
        const std::uint64_t sector = to + from - own;
        if (sector * kSectorBytes < there.size_bytes) disk->store(there, sector, value);
    }
    return disk;
}

// `elsewhere`: a write that is not at its place, whatever else is kept; 0: none.
std::unique_ptr<SimDisk> SimDisk::power_loss(std::uint64_t seed, const std::vector<Candidate>& all,
                                             std::uint64_t elsewhere) const {
    auto disk = successor(seed);
    std::mt19937_64& random = disk->random_;
    std::set<std::uint64_t> writes;
    for (const Candidate& candidate : all) {
        for (const Version& version : candidate.versions) writes.insert(version.write);
    }
    enum Mode { kNothing, kAll, kEachWrite, kAllButOne, kOnlyOne, kPrefix, kSectors, kModes };
    const auto mode = static_cast<Mode>(random() % kModes);
    std::uint64_t special = 0;
    if (!writes.empty()) {
        auto at = writes.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(random() % writes.size()));
        special = *at;
    }
    const std::uint64_t often = 1 + random() % 7;  // of eight sectors, so many are changed
    std::map<std::uint64_t, bool> kept;
    for (const std::uint64_t write : writes) {
        switch (mode) {
            case kNothing:
                kept[write] = false;
                break;
            case kEachWrite:
                kept[write] = random() % 2 == 0;
                break;
            case kAllButOne:
                kept[write] = write != special;
                break;
            case kOnlyOne:
                kept[write] = write == special;
                break;
            case kPrefix:
                kept[write] = write <= special;
                break;
            default:
                kept[write] = true;
                break;
        }
    }
    disk->forget_cache();
    kept[elsewhere] = false;
    for (const Candidate& candidate : all) {
        File& file = disk->file_of(candidate.file);
        if (mode == kSectors) {
            if (random() % 8 >= often) continue;
            const Version& any = candidate.versions[random() % candidate.versions.size()];
            if (any.write != elsewhere) disk->store(file, candidate.sector, any.value);
            continue;
        }
        for (const Version& version : candidate.versions) {
            if (kept[version.write]) disk->store(file, candidate.sector, version.value);
        }
    }
    lose_unsynced_growth(*disk);
    return disk;
}

std::unique_ptr<SimDisk> SimDisk::power_loss(std::uint64_t seed, const SectorChoice& newest) const {
    auto disk = successor(seed);
    disk->forget_cache();
    for (const Candidate& candidate : candidates()) {
        if (!newest(candidate.file, candidate.sector)) continue;
        disk->store(disk->file_of(candidate.file), candidate.sector,
                    candidate.versions.back().value);
    }
    lose_unsynced_growth(*disk);
    return disk;
}

std::unique_ptr<SimDisk> SimDisk::process_crash(std::uint64_t seed) const {
    auto disk = successor(seed);
    for (const Flight& flight : crashed_ ? cut_off_ : flights_) {
        const bool cuts = flight.cuts_to_bytes != ~std::uint64_t{0};
        if (cuts && disk->random(2) == 0) disk->cut(flight);
        if (flight.values.empty() || flight.lost) continue;
        const std::uint64_t fate = disk->random(3);
        if (fate > 0) static_cast<void>(disk->grow(flight));
        if (fate == 1) disk->apply_write(flight, false);
        if (fate == 2) disk->write_in_part(flight);
    }
    return disk;
}

}  // namespace bidstore
