// The extents of a bulk load: long columns go straight to their places in the data file, in the
// order of their rows, beside the leaves that refer to them.
//
//   reserve_extents()  all of a row's, before the first byte of it; else the row waits
//   put_value()        into a buffer; checksums and time are remembered as a checkpoint would
//   write_extents()    a full buffer, or the last one
//   attach_extents()   with the leaves, in the same batch: bitmap, runs and owner in the metadata
#include <algorithm>

#include "engine/bulk_load.h"
#include "shm/message.h"

namespace bidstore {

// Buffers are kept for the leaves of the record's rows besides, on which take() counts.
bool BulkLoad::reserve_extents(std::span<const ExtentNeed> needs) {
    static_assert(extent_pages(kTransactionBytesMax) + kColumnsMax <
                  (LoadWriter::kBuffers - kBuffersForLeaves - 4) * LoadWriter::kBufferPages);
    std::uint64_t pages = 0;
    for (const ExtentNeed& need : needs) pages += need.pages;
    if (writer_.idle() < kBuffersForLeaves + pages / LoadWriter::kBufferPages + 2) return false;
    row_needs_pages_ = space_.in_reach() <= pages_to_leave() + pages;
    for (auto need = needs.begin(); need != needs.end() && !row_needs_pages_; ++need) {
        std::vector<ExtentRun> runs = space_.reserve_runs(*need);
        row_needs_pages_ = runs.empty();
        if (!row_needs_pages_) next_values_.push_back(std::move(runs));
    }
    if (!row_needs_pages_) return true;
    for (const auto& runs : next_values_) {
        for (const ExtentRun& run : runs) space_.give_back({PageId{run.first}, run.pages});
    }
    next_values_.clear();
    return false;
}

ValueReference BulkLoad::put_value(std::span<const std::byte> value, std::uint32_t newest) {
    CHECK(!next_values_.empty());  // reserve_extents() went before
    ValueReference reference;
    reference.length_bytes = static_cast<std::uint32_t>(value.size());
    reference.crc = crc32c(value.data(), value.size());
    for (const ExtentRun& run : next_values_.front()) {
        reference.runs[reference.run_count++] = run;
        const PageId first{run.first};
        const bool follows =
            !extent_runs_.empty() && chunk_of(first) == chunk_of(extent_runs_.back().first) &&
            first.value == extent_runs_.back().first.value + extent_runs_.back().count;
        if (follows) {
            extent_runs_.back().count += run.pages;
        } else {
            extent_runs_.push_back({first, run.pages});
            touch(chunk_of(first));
        }
        for (std::uint32_t i = 0; i < run.pages; ++i) {
            const std::size_t bytes = std::min(value.size(), kPageBytes);
            std::byte* page = extent_page(PageId{run.first + i});
            std::copy_n(value.data(), bytes, page);
            std::fill_n(page + bytes, kPageBytes - bytes, std::byte{0});
            space_.written_extent(PageId{run.first + i}, page, i == 0, newest);
            value = value.subspan(bytes);
        }
    }
    next_values_.pop_front();
    return reference;
}

std::byte* BulkLoad::extent_page(PageId page) {
    if (extents_ != nullptr && extents_->full()) write_extents();
    if (extents_ == nullptr) extents_ = &writer_.take();
    extent_places_.push_back(page);
    return extents_->page(extents_->count++);
}

void BulkLoad::write_extents() {
    for (std::size_t i = 0; i < extent_places_.size();) {
        std::uint32_t count = 1;
        const PageId first = extent_places_[i];
        while (i + count < extent_places_.size() &&
               extent_places_[i + count].value == first.value + count) {
            ++count;
        }
        writer_.write(*extents_, count, first);
        i += count;
    }
    extent_places_.clear();
    extents_ = nullptr;
}

void BulkLoad::attach_extents() {
    for (const PageRun& run : extent_runs_) space_.attach_extents(table_, run);
    extent_runs_.clear();
    space_.end_extents(table_);
}

// Those of next_values_ belong to a row that take() did not put: there are none between two calls.
void BulkLoad::give_back_extents() {
    for (const PageRun& run : extent_runs_) space_.give_back(run);
    extent_runs_.clear();
    space_.end_extents(table_);
}

}  // namespace bidstore
