// The fault model. A simulated disk may do what real ones do, and no more:
//
//   cache     A write that completed is seen by every read, and is lost with the power unless it
//             was durable, or a kSync of its file completed that was submitted after it.
//   clean     With SimDiskOptions::page_cache, a failed write, whole, or what a failed sync
//             covered, is taken for written, by a chance of one half: it is read for as long as
//             the machine is up, by the next process, too, and no sync makes it durable. So kernels
//             do with pages that they could not write; with O_DIRECT there are none.
//   power     power_loss(): every 512-byte sector is what was last made durable, or any value
//             written to it since, in any combination: writes are dropped, torn, reordered. A
//             sector is never half old and half new. A write in flight is like one that completed
//             unsynced; so is a durable one. Nothing that was durable changes.
//             misdirected_power_loss(): but for one unsynced write, which went elsewhere.
//   crash     process_crash(): the kernel lives. What completed stays in the cache, still unsynced;
//             each write in flight is done, not done, or done in part.
//   order     poll() delivers completions in any order, and late; a slow disk, later.
//   slow      serve_one_by_one(): each operation takes so long, one after the other, in order.
//             hold_back(): all operations of a file take until release().
//   resize    is durable when it returns; cut off, the file has the old size, the new one, or one
//             between (whole blocks), and what was added is zeros. kNoSpace beyond capacity_bytes.
//   grow      makes the file longer when it completes, and durably so with a kSync submitted after
//             that; before, power loss leaves any size between (whole blocks). Beyond
//             capacity_bytes it grows by what there is and fails with full_error.
//   punch     is a write of zeros: lost, torn and reordered as any. The room that it gives back has
//             others at once: a plain write into a hole fails with full_error. A growth fills it,
//             for good with a kSync submitted after that; before, power loss may make it a hole
//             again.
//   cut       is done when it completes, and durable as grow is: before the kSync, power loss
//             leaves any size between.
//   extend    is a growth, holes that it fills included, that writes nothing.
//   errors    fail_at(): one operation fails with an errno; a failed write may have happened in
//             part. bad_range(): reads there fail until they are told otherwise.
//   lies      lose_at(): a write reports success and does nothing. misdirect_at(): a write
//             reports success and went elsewhere. flip(): a bit rots, in cache and on disk; mend()
//             puts it right wherever it was not overwritten, as if it had never happened.
//   short     transfer_in_parts(): a read or write is done in several parts with other operations,
//             and the crash, in between: what a real disk makes of a short transfer.
//   beneath   The short transfers themselves and EINTR end in the real disks (short_transfers.h).
//
// Everything depends on the seed and the calls alone. Each submit, each completion and each half of
// a resize is one step, numbered from 1; a crash at step n happens before that operation has any
// effect. After a crash the disk is dead: what is in flight and whatever is submitted completes
// with -EIO, and power_loss() and process_crash() tell, as often as they are asked, what the next
// process may find.
//
// It also holds the caller to the contract: alignment, sizes, one flight per request, buffers of
// writes untouched; and buffers of reads hold garbage until they complete.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/disk.h"
#include "tests/sim_clock.h"

namespace bidstore {

inline constexpr std::uint32_t kSectorBytes = 512;

enum class SimStep : std::uint8_t { kSubmitRead, kSubmitWrite, kSubmitSync, kComplete, kResize };

struct SimDiskOptions {
    std::uint64_t seed = 1;
    SimClock* clock = nullptr;  // poll() moves it on; may be null
    bool reorder = true;        // false: completions in the order of submission, all at once
    std::uint64_t capacity_bytes = 1ull << 40;  // of all files together
    int full_error = 28;                        // ENOSPC: what a growth beyond it fails with
    bool page_cache = false;                    // the kernel's lies between: see clean
};

class SimDisk final : public Disk {
  public:
    explicit SimDisk(const SimDiskOptions& options = {});
    ~SimDisk() override;

    void submit(DiskRequest& request) override;
    int poll(std::uint64_t timeout_ns) override;
    std::uint32_t in_flight() const override;
    void set_wake_descriptor(int descriptor) override { wake_ = descriptor; }
    Result<std::uint64_t> size_bytes(StoreFile file) override;
    Status resize(StoreFile file, std::uint64_t size_bytes) override;
    Result<bool> backed(StoreFile file, std::uint64_t offset_bytes,
                        std::uint64_t length_bytes) override;
    std::string path(StoreFile file) const override;

    // ---- faults

    std::uint64_t steps() const { return step_; }  // taken so far
    // Called before each step with its number and kind; may set a fault for it.
    void observe(std::function<void(std::uint64_t step, SimStep kind)> observer);
    // For an observer: the request whose submission is the step; nullptr at other steps.
    const DiskRequest* submitting() const { return submitting_; }
    // From now on: a device that is busy with one operation for each_ns before the next has its
    // turn.
    void serve_one_by_one(SimClock& clock, std::uint64_t each_ns) {
        served_by_ = &clock;
        each_ns_ = each_ns;
    }
    void serve_at_once() { each_ns_ = 0; }
    void crash_at(std::uint64_t step) { crash_step_ = step; }
    void crash_now();
    bool crashed() const { return crashed_; }
    // The operation that is submitted at this step fails; at a completion, the completed one.
    void fail_at(std::uint64_t step, int error_number) { failures_[step] = error_number; }
    void lose_at(std::uint64_t step) { lost_.insert(step); }
    void misdirect_at(std::uint64_t step, std::uint64_t to_offset_bytes) {
        misdirected_[step] = to_offset_bytes;
    }
    void bad_range(StoreFile file, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                   int error_number);
    void clear_bad_ranges() { bad_ranges_.clear(); }
    void flip(StoreFile file, std::uint64_t offset_bytes, unsigned bit = 0);
    void mend();
    // Of so many polls that may come back with nothing, one brings something.
    void set_slowness(std::uint32_t polls) { slowness_ = polls; }
    // Of so many times that the end of a transfer is due, only a part of it is done once; 0: never.
    void transfer_in_parts(std::uint32_t one_in) { parts_one_in_ = one_in; }
    // Failures so far whose content is now taken for clean.
    std::uint64_t taken_for_clean() const { return taken_for_clean_; }
    std::uint64_t parts() const { return parts_; }  // done so far, without the last of each
    // Until release(): nothing of this file completes.
    void hold_back(StoreFile file) { held_back_ = file; }
    void release() { held_back_.reset(); }
    // From now on what was submitted first completes last.
    void serve_newest_first() { newest_first_ = true; }
    void set_capacity_bytes(std::uint64_t bytes) { options_.capacity_bytes = bytes; }

    // ---- what the next process finds

    // One of the outcomes that the fault model allows, chosen by `seed`: nothing kept, all kept,
    // each write kept or not, all but one, only one, a prefix, or sector by sector.
    std::unique_ptr<SimDisk> power_loss(std::uint64_t seed) const;
    // The same outcome, but for one unsynced write, which is at another place of its file and not
    // at its own. Null: there is no such write, or chance gave it its own.
    std::unique_ptr<SimDisk> misdirected_power_loss(std::uint64_t seed) const;
    // The outcome in which exactly the sectors that `newest` names have their newest value.
    using SectorChoice = std::function<bool(StoreFile file, std::uint64_t sector)>;
    std::unique_ptr<SimDisk> power_loss(std::uint64_t seed, const SectorChoice& newest) const;
    std::unique_ptr<SimDisk> process_crash(std::uint64_t seed) const;
    // The same disk with nothing in flight and no fault set; nothing may be in flight here.
    std::unique_ptr<SimDisk> clone(std::uint64_t seed) const;
    // Pages of the file without room of their own.
    std::uint64_t holes(StoreFile file) const { return file_of(file).holes.size(); }
    // Sectors that a read sees otherwise there than here.
    std::vector<std::pair<StoreFile, std::uint64_t>> differences(const SimDisk& other) const;
    // Sectors with a value that power loss may take back.
    std::uint64_t unsynced_sectors() const;

    // What a read would see, without a request; zeros behind the end. For tests that look or plant.
    std::vector<std::byte> peek(StoreFile file, std::uint64_t offset_bytes,
                                std::uint64_t length_bytes) const;
    // Puts bytes there, durable at once, as if they had always been there.
    void poke(StoreFile file, std::uint64_t offset_bytes, const void* bytes,
              std::uint64_t length_bytes);

  private:
    using Sector = std::array<std::byte, kSectorBytes>;
    using SectorPtr = std::shared_ptr<const Sector>;  // shared among clones; null: zeros
    struct Version {
        std::uint64_t order;  // of completion
        std::uint64_t write;  // which write
        SectorPtr value;
        bool clean = false;  // no sync writes it: with it are all before it
    };
    struct GrownSize {
        std::uint64_t order;  // of completion
        std::uint64_t size_bytes;
    };
    struct File {
        std::uint64_t size_bytes = 0;
        std::uint64_t durable_size_bytes = 0;
        std::vector<GrownSize> grown;   // since the size was last made durable
        GrownSize cut_from{};           // the longest size that power loss may bring back; 0: none
        std::set<std::uint64_t> holes;  // pages
        std::map<std::uint64_t, std::uint64_t> filled;  // page, and the order of its filling
        std::vector<SectorPtr> durable;
        // Completed since they were last made durable, oldest first; read sees the last.
        std::map<std::uint64_t, std::vector<Version>> cached;
    };
    struct Flight {
        DiskRequest* request = nullptr;
        std::uint64_t write = 0;  // number of the write, in order of submission
        StoreFile file = StoreFile::kData;
        // A part that is done is none of these any more.
        std::uint64_t first_sector = 0;
        std::uint64_t asked_sector = 0;  // the same, as the file system sees it: not misdirected
        std::vector<SectorPtr> values;   // of a write
        std::uint64_t done_sectors = 0;
        std::uint64_t grows_to_bytes = 0;                 // of a growth, else 0
        std::uint64_t cuts_to_bytes = ~std::uint64_t{0};  // of a cut
        bool punches = false;
        std::uint64_t order = 0;    // of a sync: completions up to here are covered
        std::uint64_t done_ns = 0;  // serve_one_by_one(): when it is
        int error_number = 0;
        bool lost = false;
    };
    struct BadRange {
        StoreFile file;
        std::uint64_t begin;
        std::uint64_t end;
        int error_number;
    };
    // All values that a sector may have after power loss; the durable one is not among them.
    struct Candidate {
        StoreFile file;
        std::uint64_t sector;
        std::vector<Version> versions;
    };

    File& file_of(StoreFile file) { return files_[static_cast<unsigned>(file)]; }
    const File& file_of(StoreFile file) const { return files_[static_cast<unsigned>(file)]; }
    std::uint64_t random(std::uint64_t below) { return random_() % below; }
    bool step(SimStep kind);
    void check_request(const DiskRequest& request) const;
    void capture(Flight& flight);
    bool deliver(std::size_t index);
    bool transfer_part(Flight& flight);
    int poll_served(std::uint64_t timeout_ns);
    std::int64_t effect(Flight& flight);
    bool grow(const Flight& flight);
    bool fill_holes(const Flight& flight, std::uint64_t room_bytes);
    bool writes_into_a_hole(const Flight& flight) const;
    std::uint64_t room_bytes() const;
    void cut(const Flight& flight);
    static void set_size(File& file, std::uint64_t bytes);
    void lose_unsynced_growth(SimDisk& next) const;
    std::int64_t read(const Flight& flight) const;
    void read_sectors(const Flight& flight, std::uint64_t sectors) const;
    void write_in_part(const Flight& flight);
    void apply_write(const Flight& flight, bool durable);
    void apply_sync(const Flight& flight);
    bool forgets();
    void take_for_clean(const Flight& flight);
    void store(File& file, std::uint64_t sector, SectorPtr value);
    void check_untouched(const Flight& flight) const;
    SectorPtr newest(const File& file, std::uint64_t sector) const;
    std::vector<Candidate> candidates() const;
    std::unique_ptr<SimDisk> power_loss(std::uint64_t seed, const std::vector<Candidate>& all,
                                        std::uint64_t elsewhere) const;
    std::unique_ptr<SimDisk> successor(std::uint64_t seed) const;
    void forget_cache();
    bool wake_is_readable() const;

    SimDiskOptions options_;
    std::mt19937_64 random_;
    std::array<File, kStoreFileCount> files_;
    std::vector<Flight> flights_;
    std::vector<Flight> cut_off_;  // were in flight at the crash
    const DiskRequest* submitting_ = nullptr;
    std::uint64_t step_ = 0;
    std::uint64_t order_ = 0;
    std::uint64_t writes_ = 0;
    std::uint64_t crash_step_ = 0;
    SimClock* served_by_ = nullptr;  // serve_one_by_one()
    std::uint64_t each_ns_ = 0;
    std::uint64_t busy_until_ns_ = 0;
    bool crashed_ = false;
    bool polling_ = false;
    int wake_ = -1;
    std::function<void(std::uint64_t, SimStep)> observer_;
    std::map<std::uint64_t, int> failures_;
    std::set<std::uint64_t> lost_;
    std::map<std::uint64_t, std::uint64_t> misdirected_;
    std::vector<BadRange> bad_ranges_;
    std::map<SectorPtr, SectorPtr> rotten_;  // what it was before
    std::uint32_t slowness_ = 1;
    std::uint32_t parts_one_in_ = 0;
    std::uint64_t parts_ = 0;
    std::uint64_t taken_for_clean_ = 0;
    bool newest_first_ = false;
    std::optional<StoreFile> held_back_;
};

}  // namespace bidstore
