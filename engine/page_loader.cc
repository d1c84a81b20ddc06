#include "engine/page_loader.h"

#include <cstring>

#include "engine/blocking_io.h"

namespace bidstore {

PageLoader::PageLoader(Pool& pool, Space& space, Disk& disk, Clock& clock, StatsWriter& stats,
                       Done done)
    : pool_(pool),
      space_(space),
      disk_(disk),
      clock_(clock),
      stats_(stats),
      done_(std::move(done)),
      under_way_(pool.page_count(), false) {
    for (std::uint32_t i = 0; i < kLoadsMax; ++i) {
        loads_.push_back(std::make_unique<Load>());
        loads_.back()->owner = this;
        idle_loads_.push_back(loads_.back().get());
    }
}

Error PageLoader::want(PageId page) {
    if (page.value == 0 || page.value >= pool_.page_count()) return Error::kNoSuchPage;
    if (pool_.resident(page)) return pool_.published(page) ? Error::kOk : Error::kNoSuchPage;
    if (on_its_way(page)) return Error::kBusy;
    if (!space_.readable(page)) return Error::kNoSuchPage;
    if (!failed_.empty()) {
        const Error error =
            failed_.error_of(page, space_.known_crc(page), clock_.monotonic_ns());
        if (error != Error::kOk) return error;
    }
    under_way_[page.value] = true;
    queued_.push_back(page);
    return Error::kBusy;
}

bool PageLoader::pump(std::uint32_t reserve) {
    bool started = false;
    while (!queued_.empty() && loading_ < kLoadsMax && pool_.free_frames() > reserve) {
        const PageId page = queued_.front();
        queued_.pop_front();
        start(page);
        started = true;
    }
    return started;
}

// How many pages right behind this one wait next, in order.
std::uint32_t PageLoader::followers(PageId page) const {
    std::uint32_t count = 0;
    while (count < queued_.size() && queued_[count].value == page.value + 1 + count) ++count;
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
    load->request.offset_bytes = std::uint64_t{page.value} * kPageBytes;
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
    if (fault == nullptr) return Error::kOk;
    stats_.add(Counter::kCorruptPages);
    message = disk_.path(StoreFile::kData) + " page " + std::to_string(load.page.value) +
              " at offset " + std::to_string(load.request.offset_bytes) + ": " + fault +
              "; restore the file from a backup";
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
        news = failed_.remember(page, space_.known_crc(page), error, last_read_ns_);
    }
    idle_loads_.push_back(&load);
    --loading_;
    under_way_[page.value] = false;
    done_(page, error, message, news);
}

}  // namespace bidstore
