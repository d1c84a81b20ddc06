#include "tests/sim_faults.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>

#include "engine/failed_reads.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 40;
// Of the log, between two that are lies: so one of the newest is at most (engine/FORMAT.md).
constexpr std::uint32_t kLogWritesTrue = 8;
constexpr std::uint32_t kStepsToTell = 4;

std::uint64_t used_bytes(SimDisk& disk) {
    std::uint64_t bytes = 0;
    for (const StoreFile file : {StoreFile::kData, StoreFile::kLog, StoreFile::kJournal}) {
        const auto size = disk.size_bytes(file);
        if (size) bytes += *size - disk.holes(file) * kPageBytes;
    }
    return bytes;
}

bool is_blank(const SimDisk& disk, StoreFile file, std::uint64_t offset) {
    const std::uint64_t sector = offset / kSectorBytes * kSectorBytes;
    const std::vector<std::byte> bytes = disk.peek(file, sector, kSectorBytes);
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

const char* fault_name(FaultKind kind) {
    constexpr std::array<const char*, kFaultKinds> kNames{
        "no faults", "crashes", "write errors", "read errors", "full disk", "rot", "lies", "all"};
    return kNames[static_cast<unsigned>(kind)];
}

void SimFaults::watch(SimStore& store) {
    SimDisk& disk = *store.disk;
    crash_at_ = 0;
    const bool slow = pick(3) == 0;
    disk.set_slowness(slow ? static_cast<std::uint32_t>(2 + pick(30)) : 1);
    counts_[SimCount::kSlowDisks] += slow;
    const bool busy = pick(6) == 0;
    constexpr std::uint64_t kEachNs[] = {50'000, 500'000, 5'000'000};
    disk.serve_one_by_one(store.clock, busy ? kEachNs[pick(std::size(kEachNs))] : 0);
    counts_[SimCount::kBusyDisks] += busy;
    disk.transfer_in_parts(pick(3) == 0 ? static_cast<std::uint32_t>(1 + pick(6)) : 0);
    // A file system that is full stays so when the daemon starts anew.
    if (!full_) disk.set_capacity_bytes(kNoLimit);
    disk.observe([this, &disk](std::uint64_t step, SimStep kind) {
        if (!armed_) return;
        const bool writes = kind == SimStep::kSubmitWrite || kind == SimStep::kSubmitSync;
        const bool breaks = kind_ == FaultKind::kWriteErrors || kind_ == FaultKind::kAll;
        if (writes && breaks && pick((kind_ == FaultKind::kAll ? 1'200 : 300) * rarer_) == 0) {
            excuses_.unreadable = true;  // a load that it was of fails
            disk.fail_at(step, EIO);
            ++counts_[SimCount::kWritesFailed];
            ++writes_failed_;
        }
        if (kind == SimStep::kSubmitRead && reads_fail_ != 0 && pick(reads_fail_) == 0) {
            disk.fail_at(step, EIO);
            ++counts_[SimCount::kReadsFailed];
        }
        if (kind != SimStep::kSubmitWrite || !lies_) return;
        const DiskRequest& request = *disk.submitting();
        if (request.buffer == nullptr) return;  // a hole and a cut miss nothing
        if (request.file == StoreFile::kLog && ++log_writes_ < kLogWritesTrue) return;
        const bool lost = pick(20) == 0;
        const bool misdirected = pick(20) == 0;
        if (lost) disk.lose_at(step);
        if (misdirected) disk.misdirect_at(step, pick(1'000) * 4'096);
        counts_[SimCount::kWritesLost] += lost;
        counts_[SimCount::kWritesMisdirected] += misdirected;
        if (request.file != StoreFile::kLog || !(lost || misdirected)) return;
        log_writes_ = 0;
        ++counts_[SimCount::kLogLies];
        const auto blocks = static_cast<std::uint32_t>(request.length_bytes / kPageBytes);
        if (misdirected && !lost) log_blocks_astray_ = std::max(log_blocks_astray_, blocks);
    });
}

void SimFaults::fail_start(SimDisk& disk, std::uint64_t nth) {
    start_failed_ = false;
    disk.observe(
        [this, &disk, nth, lasting = pick(2) == 0](std::uint64_t step, SimStep kind) mutable {
            const bool reads = kind == SimStep::kSubmitRead;
            const bool other =
                reads ? kind_ == FaultKind::kWriteErrors : kind_ == FaultKind::kReadErrors;
            if (kind == SimStep::kComplete || other) return;
            if (nth > 0) --nth;
            if (nth != 0 || (start_failed_ && !lasting)) return;
            start_failed_ = true;
            disk.fail_at(step, EIO);
            ++counts_[reads ? SimCount::kReadsFailed : SimCount::kWritesFailed];
        });
}

void SimFaults::crash_soon(SimDisk& disk, std::uint64_t steps) {
    crash_at_ = disk.steps() + 1 + pick(steps);
    disk.crash_at(crash_at_);
}

void SimFaults::plan(SimLife& life, bool delicate) {
    if (!armed_) return;
    SimDisk& disk = *life.store.disk;
    const std::uint64_t one_in = delicate ? 8 : (kind_ == FaultKind::kAll ? 90 : 60) * rarer_;
    if (crashes() && crash_at_ <= disk.steps() && pick(one_in) == 0) crash_soon(disk, 80);
    if (kind_ == FaultKind::kReadErrors || kind_ == FaultKind::kAll) plan_reads(life);
    if (kind_ == FaultKind::kFullDisk || kind_ == FaultKind::kAll) plan_room(disk);
    if (kind_ == FaultKind::kRot) plan_rot(disk);
}

void SimFaults::plan_reads(SimLife& life) {
    if (reads_fail_ == 0 && pick(60) == 0) {
        reads_fail_ = 1 + pick(10);
        excuses_.unreadable = true;
    } else if (reads_fail_ != 0 && pick(20) == 0) {
        reads_fail_ = 0;
    }
    forget_reads(life);
}

// The daemon remembers no more that a read failed, and whoever heard of it had some steps to say
// so. An answer waits for the batch before it, however long. After a write that failed there is
// nothing to wait for but the end.
void SimFaults::forget_reads(SimLife& life) {
    if (!excuses_.unreadable || reads_fail_ != 0 || writes_failed_ != 0) {
        well_since_ns_ = 0;
        well_steps_ = 0;
        return;
    }
    const std::uint64_t now_ns = life.store.clock.monotonic_ns();
    const bool quiet =
        life.store.disk->in_flight() == 0 && life.store.engine->core().commit().quiet();
    if (well_since_ns_ == 0 && quiet) well_since_ns_ = now_ns;
    if (well_since_ns_ == 0 || ++well_steps_ < kStepsToTell || !quiet) return;
    if (now_ns - well_since_ns_ <= 2 * FailedReads::kRememberedNs) return;
    excuses_.end_unreadable();
    ++counts_[SimCount::kReadsForgotten];
}

void SimFaults::plan_room(SimDisk& disk) {
    if (!full_ && pick(50) == 0) {
        full_ = excuses_.full = true;
        ++counts_[SimCount::kFullDisks];
        disk.set_capacity_bytes(used_bytes(disk) + pick(64) * 4'096);
    } else if (full_ && pick(60) == 0) {
        full_ = false;
        disk.set_capacity_bytes(kNoLimit);
    }
}

void SimFaults::mend(SimDisk& disk) {
    disk.mend();
    reads_fail_ = 0;
    rotten_ = false;
}

void SimFaults::plan_rot(SimDisk& disk) {
    if (rotten_ && pick(30) == 0) {
        mend(disk);
    } else if (!rotten_ && pick(30) == 0) {
        rotten_ = excuses_.damage = true;
        for (std::uint64_t bits = 1 + pick(6); bits > 0; --bits) flip(disk);
    }
}

// Somewhere; more often where much depends on a bit.
void SimFaults::flip(SimDisk& disk) {
    constexpr std::uint64_t kHead = 16'384;  // superblocks, metadata, directory; a journal's list
    constexpr StoreFile kFiles[] = {StoreFile::kData, StoreFile::kData, StoreFile::kData,
                                    StoreFile::kJournal, StoreFile::kLog};
    const StoreFile file = kFiles[pick(std::size(kFiles))];
    const auto size = disk.size_bytes(file);
    if (!size || *size < kHead) return;
    const std::uint64_t within = pick(3) == 0 ? kHead : *size;
    std::uint64_t offset = pick(within);
    // Most of the file is free: rather a page that something was written to.
    for (int i = 0; i < 20 && within == *size && is_blank(disk, file, offset); ++i) {
        offset = pick(within);
    }
    disk.flip(file, offset, static_cast<unsigned>(pick(8)));
    ++counts_[SimCount::kBitsFlipped];
}

void SimFaults::begin_lies() { lies_ = excuses_.damage = true; }

void SimFaults::end(SimDisk& disk) {
    armed_ = lies_ = full_ = false;
    mend(disk);
    disk.crash_at(0);
    disk.set_capacity_bytes(kNoLimit);
    disk.set_slowness(1);
    disk.serve_at_once();
}

}  // namespace bidstore
