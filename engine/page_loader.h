// Brings pages from the file into the pool: one read per page however many wait for it, checked
// before it is published.
//
// Pages wait in a queue of each client that asked for them, and the clients take turns, so that
// none waits behind all that another one asked for.
//
// Who:    the engine thread alone; completions run in Disk::poll().
// Errors: kNoSuchPage for an id that is free or not published; kIoError and kCorruption (of its
//         checksum, or of what a page of a tree says, engine/tree_check.h) for this one page:
//         remembered for a moment, then the next request reads again (engine/failed_reads.h).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <memory_resource>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/clock.h"
#include "engine/disk.h"
#include "engine/failed_reads.h"
#include "engine/pool.h"
#include "engine/space.h"
#include "shm/error.h"
#include "shm/stats.h"

namespace bidstore {

class PageLoader {
  public:
    // A load came to its end. `message` names file, offset and reason when it failed; `news`: the
    // operator has not been told of this page lately.
    using Done =
        std::function<void(PageId page, Error error, const std::string& message, bool news)>;

    // What is wrong with a page whose checksum is right, in words, or nullptr.
    using Fault = std::function<const char*(const std::byte* page)>;

    PageLoader(Pool& pool, Space& space, Disk& disk, Clock& clock, StatsWriter& stats, Fault fault,
               Done done);

    // kOk: the page is in the pool. kBusy: it is on its way, done() will tell. Else: it cannot be
    // had, now or for some time. The engine may ask again as long as it waits.
    Error want(PageId page, std::uint64_t client_id = kEngine);
    // Why, of a page that want() just answered kIoError or kCorruption for: file, offset, reason.
    const std::string& failure_of(PageId page) const { return failed_.what_of(page); }
    // The client is gone: what it alone waits for is not read any more, unless it is already. How
    // many entries of queues it looked at: those of the client.
    std::size_t forget(std::uint64_t client_id);
    // Starts what waits for a frame, as long as more than `reserve` are free. True if it did.
    bool pump(std::uint32_t reserve);
    // Starts the read of a page that the engine asked for before all others, if any frame is free.
    void start_now(PageId page);
    bool waits_for_frames() const { return queued_ > 0; }
    // Queued or being read.
    bool on_its_way(PageId page) const {
        return asked_.contains(page.value) || reading_[page.value];
    }
    std::uint32_t loading() const { return loading_; }
    // When the newest read began or ended (Clock::monotonic_ns).
    std::uint64_t last_read_ns() const { return last_read_ns_; }
    // Newest csn that a page in the file may carry: that of the last finished checkpoint.
    void set_covered(Csn covered) { covered_ = covered; }

  private:
    struct Load {
        DiskRequest request;
        PageId page;
        FrameId frame;
        std::uint64_t started_ns = 0;
        PageLoader* owner = nullptr;
    };
    // A page that somebody asked for and that is not being read yet.
    struct Asked {
        std::uint64_t number = 0;    // of this asking
        std::uint32_t standing = 0;  // entries of queues for it
    };
    struct Entry {
        PageId page;
        std::uint64_t number = 0;  // of the asking that it stands for
    };
    using Queue = std::deque<Entry>;
    static constexpr std::uint32_t kLoadsMax = 128;
    static constexpr std::uint64_t kEngine = 0;  // no client's id

    bool stands(const Entry& entry) const;
    PageId next();
    void begin(PageId page);
    void start(PageId page);
    void on_read(Load& load);
    std::uint32_t followers(PageId page) const;
    Error check(const Load& load, std::string& message);

    Pool& pool_;
    Space& space_;
    Disk& disk_;
    Clock& clock_;
    StatsWriter& stats_;
    Fault fault_;
    Done done_;
    Csn covered_;
    FailedReads failed_;
    std::vector<std::unique_ptr<Load>> loads_;
    std::vector<Load*> idle_loads_;  // of them, those without a read; the latest used is the last
    // By client. A page that several ask for stands in the queue of each until its turn there; it
    // is read at the first of them, and then the other entries for this asking mean nothing.
    std::map<std::uint64_t, Queue> queues_;
    std::pmr::unsynchronized_pool_resource nodes_;
    std::pmr::unordered_map<std::uint32_t, Asked> asked_;  // by page
    std::uint64_t asked_number_ = 0;
    std::size_t queued_ = 0;     // in all of them
    std::uint64_t turn_ = 0;     // whose the last turn was
    std::uint32_t run_ = 0;      // pages of it so far
    PageId last_;                // of them, the last one
    std::vector<bool> reading_;  // per page: being read
    std::uint32_t loading_ = 0;
    std::uint64_t last_read_ns_ = 0;
};

}  // namespace bidstore
