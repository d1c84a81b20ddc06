#include "engine/bulk_load.h"

#include <algorithm>
#include <cstring>

#include "shm/message.h"

namespace bidstore {

BulkLoad::BulkLoad(const CallAddress& client, const Schema& schema, const LoadIdentity& identity,
                   Space& space, Disk& disk)
    : client_(client),
      table_(identity.table),
      name_(schema.name()),
      space_(space),
      disk_(disk),
      builder_(schema, identity, [this] { return next_page(); }) {
    for (std::uint32_t i = 0; i < kBuffers; ++i) {
        buffers_.push_back(std::make_unique<Buffer>());
        buffers_.back()->owner = this;
        buffers_.back()->requests.resize(kBufferPages);
        idle_.push_back(buffers_.back().get());
    }
}

// ---- rows ----

bool BulkLoad::ready() const {
    return state_ == State::kRows && idle_.size() > 2;
}

// Page after page of the buffer that is being filled. A full one waits to be sealed.
std::byte* BulkLoad::next_page() {
    if (filling_ != nullptr && filling_->count == kBufferPages) {
        full_.push_back(filling_);
        filling_ = nullptr;
    }
    if (filling_ == nullptr) {
        CHECK(!idle_.empty());  // ready() was asked
        filling_ = idle_.back();
        idle_.pop_back();
    }
    return filling_->pages.data() + std::size_t{filling_->count++} * kPageBytes;
}

Error BulkLoad::take(std::span<const std::byte> packed, std::uint64_t rows,
                     std::uint32_t& bad_row) {
    static_assert(LoadBuilder::pages_per_take(kLoadBytesMax) <= 2 * kBufferPages);
    CHECK(ready());
    const Error error = builder_.take(packed, rows, bad_row);
    if (error != Error::kOk) fail(error);
    return error;
}

void BulkLoad::finish(const CallAddress& from) {
    client_ = from;
    finishing_ = true;
    builder_.end_rows();
    if (builder_.leaves() == 1) {  // it becomes the root's content and has no place of its own
        idle_.push_back(filling_);
        filling_->count = 0;
        filling_ = nullptr;
    }
    state_ = State::kEnding;
}

// ---- placing and writing ----

// Pages for one buffer at least, unless the file has to grow first.
bool BulkLoad::reserve() {
    while (rest_.count == 0) {
        const std::uint64_t leave = made_do() ? leave_ : space_.growth_mark() + leave_;
        if (space_.in_reach() <= leave) return false;
        const std::uint64_t spare = space_.in_reach() - leave;
        const auto pages = static_cast<std::uint32_t>(std::min<std::uint64_t>(spare, kChunkPages));
        rest_ = space_.reserve(pages, at_least_);
        if (rest_.count == 0) return false;
        runs_.push_back(rest_);
        const std::uint32_t chunk = chunk_of(rest_.first);
        if (touched_.size() <= chunk) touched_.resize(chunk + 1, false);
        chunks_ += touched_[chunk] ? 0 : 1;
        touched_[chunk] = true;
    }
    return true;
}

void BulkLoad::make_do(std::uint64_t left) {
    at_least_ = 1;
    leave_ = left;
}

// The pages of the buffer get their ids, in order, and are written, a run of neighbours at a time.
// False: pages of the file are wanting; what was placed stays placed.
bool BulkLoad::seal(Buffer& buffer) {
    std::uint32_t& placed = buffer.placed;
    while (placed < buffer.count) {
        if (!reserve()) return false;
        const std::uint32_t count = std::min(rest_.count, buffer.count - placed);
        for (std::uint32_t i = 0; i < count; ++i) {
            std::byte* page = buffer.pages.data() + std::size_t{placed + i} * kPageBytes;
            const PageId id{rest_.first.value + i};
            builder_.placed(page, id);
            space_.written(id, page);
        }
        write_run(buffer, placed, count, rest_.first);
        rest_ = {PageId{rest_.first.value + count}, rest_.count - count};
        placed += count;
    }
    return true;
}

void BulkLoad::write_run(Buffer& buffer, std::uint32_t first, std::uint32_t count, PageId page) {
    DiskRequest& request = buffer.requests[first];
    request = DiskRequest{};
    request.kind = DiskRequest::Kind::kWrite;
    request.file = StoreFile::kData;
    request.offset_bytes = std::uint64_t{page.value} * kPageBytes;
    request.length_bytes = count * static_cast<std::uint32_t>(kPageBytes);
    request.buffer = buffer.pages.data() + std::size_t{first} * kPageBytes;
    request.context = &buffer;
    request.completed = [](DiskRequest& done, void* context) {
        Buffer* written = static_cast<Buffer*>(context);
        written->owner->on_written(*written, done);
    };
    ++buffer.in_flight;
    ++in_flight_;
    disk_.submit(request);
}

void BulkLoad::on_written(Buffer& buffer, const DiskRequest& request) {
    --in_flight_;
    --buffer.in_flight;
    if (request.result < 0) fail(Error::kIoError);
    if (buffer.in_flight == 0 && buffer.placed == buffer.count) {
        buffer.count = buffer.placed = 0;
        idle_.push_back(&buffer);
    }
    if (state_ == State::kFailed && in_flight_ == 0) give_back();
}

bool BulkLoad::pump() {
    needs_pages_ = false;
    if (state_ != State::kRows && state_ != State::kEnding) return false;
    bool worked = false;
    for (std::uint32_t sealed = 0; !full_.empty() && sealed < kSealedPerPump; ++sealed) {
        Buffer& buffer = *full_.front();
        const std::uint32_t before = buffer.placed;
        needs_pages_ = !seal(buffer);
        worked = worked || buffer.placed != before;
        if (needs_pages_) return worked;
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
    if (idle_.empty()) return false;
    if (builder_.end_level()) return true;
    if (in_flight_ > 0) return false;
    state_ = State::kSync;
    if (runs_.empty()) {
        state_ = State::kAttach;
    } else {
        submit_sync();
    }
    return true;
}

void BulkLoad::submit_sync() {
    sync_ = DiskRequest{};
    sync_.kind = DiskRequest::Kind::kSync;
    sync_.file = StoreFile::kData;
    sync_.context = this;
    sync_.completed = [](DiskRequest& done, void* context) {
        BulkLoad* load = static_cast<BulkLoad*>(context);
        --load->in_flight_;
        if (done.result < 0) {
            load->fatal_ = "bulk load: sync of " + load->disk_.path(StoreFile::kData) + ": " +
                           std::strerror(static_cast<int>(-done.result));
        } else if (load->state_ == State::kSync) {
            load->state_ = State::kAttach;
        }
        if (load->state_ == State::kFailed) load->give_back();
    };
    ++in_flight_;
    disk_.submit(sync_);
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
    space_.forget_copies();
    attached_ = batch;
    state_ = State::kCover;
}

void BulkLoad::fail(Error error) {
    if (error_ == Error::kOk) error_ = error;
    state_ = State::kFailed;
    if (in_flight_ == 0) give_back();
}

void BulkLoad::abandon() {
    abandoned_ = true;
    fail(Error::kDisconnected);
}

// Not attached, and nothing writes to them any more.
void BulkLoad::give_back() {
    for (const PageRun& run : runs_) space_.give_back(run);
    runs_.clear();
    if (copied_chunks_ > 0) space_.forget_copies();
    rest_ = {};
}

}  // namespace bidstore
