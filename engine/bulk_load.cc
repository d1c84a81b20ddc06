#include "engine/bulk_load.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/blocking_io.h"
#include "shm/message.h"

namespace bidstore {

BulkLoad::BulkLoad(const CallAddress& client, const Schema& schema, const LoadIdentity& identity,
                   Space& space, Disk& disk)
    : client_(client),
      table_(identity.table),
      name_(schema.name()),
      space_(space),
      disk_(disk),
      writer_(disk, [this](const DiskRequest& done) { on_written(done); }),
      builder_(schema, identity,
               {[this] { return next_page(); },
                [this](std::span<const ExtentNeed> needs) { return reserve_extents(needs); },
                [this](std::span<const std::byte> value, std::uint32_t newest) {
                    return put_value(value, newest);
                }}) {}

// ---- rows ----

bool BulkLoad::ready() const {
    return state_ == State::kRows && writer_.idle() > kBuffersForLeaves;
}

// Page after page of the buffer that is being filled. A full one waits to be sealed.
std::byte* BulkLoad::next_page() {
    if (filling_ != nullptr && filling_->full()) {
        full_.push_back(filling_);
        filling_ = nullptr;
    }
    if (filling_ == nullptr) filling_ = &writer_.take();
    return filling_->page(filling_->count++);
}

Error BulkLoad::take(std::span<const std::byte> packed, std::uint64_t rows,
                     std::uint32_t& bad_row) {
    static_assert(LoadBuilder::pages_per_take(kLoadBytesMax) <=
                  kBuffersForLeaves * LoadWriter::kBufferPages);
    CHECK(ready());
    const Error error = builder_.take(packed, rows, progress_);
    bad_row = progress_.row;
    if (error == Error::kBusy) return error;
    progress_ = {};
    if (error != Error::kOk) fail(error);
    return error;
}

void BulkLoad::finish(const CallAddress& from) {
    client_ = from;
    finishing_ = true;
    builder_.end_rows();
    if (builder_.leaves() == 1) {  // it becomes the root's content and has no place of its own
        writer_.give_back(*filling_);
        filling_ = nullptr;
    }
    write_extents();
    state_ = State::kEnding;
}

// ---- placing and writing ----

// To commits, and to growth, which begins before they have none. In a full file, too: writers need
// room for the worst case of each transaction, and were refused beside a load that does not fit.
std::uint64_t BulkLoad::pages_to_leave() const { return space_.growth_mark() + kLeave; }

std::uint64_t BulkLoad::pages_left() const {
    return space_.in_reach() - std::min(space_.in_reach(), pages_to_leave());
}

void BulkLoad::touch(std::uint32_t chunk) {
    if (touched_.size() <= chunk) touched_.resize(chunk + 1, false);
    chunks_ += touched_[chunk] ? 0 : 1;
    touched_[chunk] = true;
}

// Pages for one buffer at least, unless the file has to grow first.
bool BulkLoad::reserve() {
    while (rest_.count == 0) {
        const std::uint64_t spare = pages_left();
        if (spare == 0) return false;
        const auto pages = static_cast<std::uint32_t>(std::min<std::uint64_t>(spare, kChunkPages));
        rest_ = space_.reserve(pages, at_least_);
        if (rest_.count == 0) return false;
        runs_.push_back(rest_);
        touch(chunk_of(rest_.first));
    }
    return true;
}

// The pages of the buffer get their ids, in order, and are written, a run of neighbours at a time.
// False: pages of the file are wanting; what was placed stays placed.
bool BulkLoad::seal(Buffer& buffer) {
    while (buffer.placed < buffer.count) {
        if (!reserve()) return false;
        const std::uint32_t count = std::min(rest_.count, buffer.count - buffer.placed);
        const PageId first = rest_.first;
        for (std::uint32_t i = 0; i < count; ++i) {
            std::byte* page = buffer.page(buffer.placed + i);
            const PageId id{first.value + i};
            builder_.placed(page, id);
            space_.written(id, page);
        }
        rest_ = {PageId{first.value + count}, rest_.count - count};
        writer_.write(buffer, count, first);
    }
    return true;
}

void BulkLoad::on_written(const DiskRequest& done) {
    if (done.result < 0) {
        if (trouble_.empty()) trouble_ = "load of " + name_ + ": " + io_failure(disk_, done).what;
        fail(Error::kIoError);
    }
    if (state_ == State::kFailed && quiet()) give_back();
}

bool BulkLoad::pump() {
    const bool row_needs_pages = std::exchange(row_needs_pages_, false);
    needs_pages_ = false;
    if (state_ != State::kRows && state_ != State::kEnding) return false;
    needs_pages_ = row_needs_pages;
    bool worked = false;
    for (std::uint32_t sealed = 0; !full_.empty() && sealed < kSealedPerPump; ++sealed) {
        Buffer& buffer = *full_.front();
        const std::uint32_t before = buffer.placed;
        if (!seal(buffer)) {
            needs_pages_ = true;
            return worked || buffer.placed != before;
        }
        worked = true;
        full_.pop_front();
    }
    if (state_ == State::kEnding && full_.empty()) worked = pump_end() || worked;
    return worked;
}

// What is left in the buffer that was being filled, then level after level up to the root.
bool BulkLoad::pump_end() {
    if (filling_ != nullptr) {
        full_.push_back(filling_);
        filling_ = nullptr;
        return true;
    }
    if (writer_.idle() == 0) return false;
    if (builder_.end_level()) return true;
    if (!quiet()) return false;
    state_ = State::kAttach;
    return true;
}

// ---- the end ----

bool BulkLoad::copy_bitmaps_ahead(std::uint32_t most) {
    for (; copied_chunks_ < touched_.size() && most > 0; ++copied_chunks_) {
        if (!touched_[copied_chunks_]) continue;
        space_.copy_bitmap_ahead(copied_chunks_);
        --most;
    }
    return copied_chunks_ == touched_.size();
}

void BulkLoad::attach(std::byte* root, Csn batch) {
    builder_.fill_root(root);
    if (rest_.count > 0) {  // the end of the last run was not needed
        runs_.back().count -= rest_.count;
        space_.give_back(rest_);
        rest_ = {};
    }
    for (const PageRun& run : runs_) {
        if (run.count > 0) space_.attach(run);
    }
    runs_.clear();
    attach_extents();
    space_.forget_copies();
    space_.wrote_past_checkpoint();
    attached_ = batch;
    state_ = State::kCover;
}

void BulkLoad::fail(Error error) {
    if (error_ == Error::kOk) error_ = error;
    state_ = State::kFailed;
    if (quiet()) give_back();
}

void BulkLoad::release_buffers() {
    CHECK(over());
    full_.clear();
    filling_ = extents_ = nullptr;
    writer_.release();
}

void BulkLoad::abandon() {
    abandoned_ = true;
    fail(Error::kDisconnected);
}

// Not attached, and nothing writes to them any more.
void BulkLoad::give_back() {
    for (const PageRun& run : runs_) space_.give_back(run);
    runs_.clear();
    give_back_extents();
    if (copied_chunks_ > 0) space_.forget_copies();
    rest_ = {};
}

}  // namespace bidstore
