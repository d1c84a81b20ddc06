#include "engine/page_loader.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "engine/blocking_io.h"
#include "shm/message.h"

namespace bidstore {

PageLoader::PageLoader(Pool& pool, Space& space, Disk& disk, Clock& clock, StatsWriter& stats,
                       Fault fault, Done done)
    : pool_(pool),
      space_(space),
      disk_(disk),
      clock_(clock),
      stats_(stats),
      fault_(std::move(fault)),
      done_(std::move(done)),
      asked_(&nodes_),
      reading_(pool.page_count(), false) {
    for (std::uint32_t i = 0; i < kLoadsMax; ++i) {
        loads_.push_back(std::make_unique<Load>());
        loads_.back()->owner = this;
        idle_loads_.push_back(loads_.back().get());
    }
}

Error PageLoader::want(PageId page, std::uint64_t client_id) {
    if (page.value == 0 || page.value >= pool_.page_count()) return Error::kNoSuchPage;
    if (pool_.resident(page)) return pool_.published(page) ? Error::kOk : Error::kNoSuchPage;
    if (reading_[page.value]) return Error::kBusy;
    auto asked = asked_.find(page.value);
    const bool fresh = asked == asked_.end();
    if (fresh && !space_.readable(page)) return Error::kNoSuchPage;
    if (fresh && !failed_.empty()) {
        const Error error = failed_.error_of(page, space_.known_crc(page), clock_.monotonic_ns());
        if (error != Error::kOk) return error;
    }
    Queue& queue = queues_[client_id];
    // A few pages, asked for in every round. A client's requests are bounded by its call slots.
    const bool again = !fresh && client_id == kEngine &&
                       std::any_of(queue.begin(), queue.end(), [&](const Entry& entry) {
                           return entry.page == page && entry.number == asked->second.number;
                       });
    if (again) return Error::kBusy;
    if (fresh) asked = asked_.try_emplace(page.value, Asked{++asked_number_, 0}).first;
    ++asked->second.standing;
    queue.push_back({page, asked->second.number});
    ++queued_;
    return Error::kBusy;
}

std::size_t PageLoader::forget(std::uint64_t client_id) {
    const auto found = queues_.find(client_id);
    if (found == queues_.end()) return 0;
    for (const Entry& entry : found->second) {
        const auto asked = asked_.find(entry.page.value);
        if (!stands(entry) || --asked->second.standing > 0) continue;
        asked_.erase(asked);
    }
    const std::size_t looked = found->second.size();
    queued_ -= looked;
    queues_.erase(found);
    return looked;
}

// False: the page was read, or is being read, for another one who asked for it.
bool PageLoader::stands(const Entry& entry) const {
    const auto asked = asked_.find(entry.page.value);
    return asked != asked_.end() && asked->second.number == entry.number;
}

// A turn is a page, or the pages of an extent that lie side by side, which get frames side by side.
// Entries that mean nothing any more are no turn: they go when they are met. None: no page is left.
PageId PageLoader::next() {
    auto turn = queues_.find(turn_);
    const bool goes_on =
        turn != queues_.end() && !turn->second.empty() && run_ < kPagesPerRequest &&
        turn->second.front().page.value == last_.value + 1 && stands(turn->second.front()) &&
        space_.is_extent(turn->second.front().page);
    run_ = goes_on ? run_ + 1 : 1;
    if (!goes_on) turn = queues_.upper_bound(turn_);
    for (; queued_ > 0; ++turn) {
        if (turn == queues_.end()) turn = queues_.begin();
        Queue& queue = turn->second;
        for (; !queue.empty() && !stands(queue.front()); --queued_) queue.pop_front();
        if (queue.empty()) continue;
        turn_ = turn->first;
        last_ = queue.front().page;
        queue.pop_front();
        --queued_;
        return last_;
    }
    return {};
}

bool PageLoader::pump(std::uint32_t reserve) {
    bool started = false;
    while (loading_ < kLoadsMax && pool_.free_frames() > reserve) {
        const PageId page = next();
        if (!page) break;
        begin(page);
        started = true;
    }
    return started;
}

void PageLoader::start_now(PageId page) {
    if (!asked_.contains(page.value) || loading_ == kLoadsMax || pool_.free_frames() == 0) return;
    turn_ = kEngine;
    begin(page);
}

void PageLoader::begin(PageId page) {
    asked_.erase(page.value);
    reading_[page.value] = true;
    start(page);
}

// How many pages right behind this one wait next in its queue, in order.
std::uint32_t PageLoader::followers(PageId page) const {
    const Queue& queue = queues_.at(turn_);
    std::uint32_t count = 0;
    while (count < queue.size() && queue[count].page.value == page.value + 1 + count) ++count;
    return count;
}

void PageLoader::start(PageId page) {
    CHECK(!idle_loads_.empty());
    Load* const load = idle_loads_.back();
    idle_loads_.pop_back();
    load->page = page;
    const bool extent = space_.is_extent(page);
    load->frame = pool_.begin_load(page, extent, extent ? followers(page) : 0);
    load->started_ns = last_read_ns_ = clock_.monotonic_ns();
    load->request = DiskRequest{};
    load->request.kind = DiskRequest::Kind::kRead;
    load->request.file = StoreFile::kData;
    load->request.offset_bytes = page_offset_bytes(page);
    load->request.length_bytes = kPageBytes;
    load->request.buffer = pool_.frame_bytes(load->frame);
    load->request.context = load;
    load->request.completed = [](DiskRequest&, void* context) {
        Load* done = static_cast<Load*>(context);
        done->owner->on_read(*done);
    };
    ++loading_;
    disk_.submit(load->request);
}

Error PageLoader::check(const Load& load, std::string& message) {
    if (load.request.result < 0) {
        stats_.add(Counter::kPageReadErrors);
        message = io_failure(disk_, load.request).what;
        return Error::kIoError;
    }
    const std::byte* bytes = pool_.frame_bytes(load.frame);
    const bool extent = space_.is_extent(load.page);
    const char* fault =
        extent ? nullptr : page_fault(bytes, load.page, pool_.file_uuid(), covered_);
    if (extent && crc32c(bytes, kPageBytes) != space_.known_crc(load.page)) {
        fault = "a page of a large value whose CRC is not the one its chunk remembers";
    }
    if (!extent && fault == nullptr && page_header(bytes).crc != space_.known_crc(load.page)) {
        fault = "an older or misplaced page: its checksum is not the one its chunk remembers";
    }
    if (!extent && fault == nullptr) fault = fault_(bytes);
    if (fault == nullptr) return Error::kOk;
    stats_.add(Counter::kCorruptPages);
    message = disk_.path(StoreFile::kData) + " page " + std::to_string(load.page.value) +
              " at offset " + std::to_string(load.request.offset_bytes) + ": " + fault +
              "; stop the daemon and run bidstored --verify, then --verify --rebuild, or restore "
              "the files from a backup";
    return Error::kCorruption;
}

void PageLoader::on_read(Load& load) {
    stats_.add(Counter::kPageReads);
    last_read_ns_ = clock_.monotonic_ns();
    stats_.record(HistogramKind::kPageReadNs, last_read_ns_ - load.started_ns);
    std::string message;
    const Error error = check(load, message);
    const PageId page = load.page;
    bool news = false;
    if (error == Error::kOk) {
        pool_.loaded(load.frame);
    } else {
        pool_.load_failed(load.frame);
        news = failed_.remember(page, space_.known_crc(page), error, message, last_read_ns_);
    }
    idle_loads_.push_back(&load);
    --loading_;
    reading_[page.value] = false;
    done_(page, error, message, news);
}

}  // namespace bidstore
