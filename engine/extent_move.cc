#include "engine/extent_move.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/blocking_io.h"

namespace bidstore {
namespace {

// Page number `index` of the value.
PageId page_at(const ValueReference& reference, std::uint32_t index) {
    for (const ExtentRun& run : reference.all_runs()) {
        if (index < run.pages) return PageId{run.first + index};
        index -= run.pages;
    }
    return PageId{};
}

}  // namespace

ExtentMove::ExtentMove(Space& space, Pool& pool, Disk& disk)
    : space_(space), pool_(pool), disk_(disk), from_file_(kPiecePages, false) {
    requests_.reserve(kPiecePages);
}

bool ExtentMove::begin(TableId table, std::span<const std::byte> key, const ValueReference& from,
                       std::uint32_t runs_max) {
    CHECK(idle());
    pages_ = extent_pages(from.length_bytes);
    if (!space_.reserve_copy({table, pages_}, runs_max, runs_)) return false;
    table_ = table;
    key_.assign(key.begin(), key.end());
    from_ = from;
    to_ = ValueReference{};
    to_.length_bytes = from.length_bytes;
    to_.crc = from.crc;
    for (const ExtentRun& run : runs_) to_.runs[to_.run_count++] = run;
    done_ = told_ = piece_ = crc_ = 0;
    failure_ = {};
    bad_page_ = PageId{};
    state_ = State::kReading;
    return true;
}

std::uint32_t ExtentMove::pump() {
    if (quiet() && state_ == State::kReading) read_piece();
    return done_ - std::exchange(told_, done_);
}

// What is in the pool is taken from there: the file may not have it yet.
void ExtentMove::read_piece() {
    piece_ = std::min(kPiecePages, pages_ - done_);
    requests_.clear();
    std::uint32_t first = 0;  // of the neighbours that are read together
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < piece_; ++i) {
        const PageId page = page_at(from_, done_ + i);
        from_file_[i] = !pool_.resident(page);
        if (!from_file_[i]) {
            std::memcpy(buffer_.data() + i * kPageBytes, pool_.newest_of(page), kPageBytes);
            continue;
        }
        const bool follows = count > 0 && first + count == i &&
                             page.value == page_at(from_, done_ + first).value + count;
        if (!follows) {
            if (count > 0)
                submit(DiskRequest::Kind::kRead, page_at(from_, done_ + first), first, count);
            first = i;
            count = 0;
        }
        ++count;
    }
    if (count > 0) submit(DiskRequest::Kind::kRead, page_at(from_, done_ + first), first, count);
    if (quiet()) write_piece();
}

void ExtentMove::submit(DiskRequest::Kind kind, PageId page, std::uint32_t first,
                        std::uint32_t pages) {
    DiskRequest& request = requests_.emplace_back();
    request.kind = kind;
    request.file = StoreFile::kData;
    request.offset_bytes = page_offset_bytes(page);
    request.length_bytes = pages * static_cast<std::uint32_t>(kPageBytes);
    request.buffer = buffer_.data() + first * kPageBytes;
    request.context = this;
    request.completed = [](DiskRequest& done, void* self) {
        static_cast<ExtentMove*>(self)->on_completed(done);
    };
    ++in_flight_;
    disk_.submit(request);
}

void ExtentMove::on_completed(const DiskRequest& request) {
    --in_flight_;
    if (request.result < 0) {
        const bool read = request.kind == DiskRequest::Kind::kRead;
        const std::uint64_t page = request.offset_bytes / kPageBytes;
        fail(io_failure(disk_, request),
             read ? PageId{static_cast<std::uint32_t>(page)} : PageId{from_.runs[0].first});
    }
    if (!quiet() || state_ == State::kFailed) return;
    if (state_ == State::kReading) return write_piece();
    done_ += piece_;
    state_ = done_ < pages_ ? State::kReading : State::kCopied;
}

// Nothing is copied that is not what its chunk, and at the end what its row, remembers.
bool ExtentMove::check_piece() {
    for (std::uint32_t i = 0; i < piece_; ++i) {
        const std::byte* bytes = buffer_.data() + i * kPageBytes;
        const PageId old = page_at(from_, done_ + i);
        const std::uint32_t crc = crc32c(bytes, kPageBytes);
        if (from_file_[i] && crc != space_.known_crc(old)) {
            fail({Error::kCorruption, name_of(old) + ": its checksum is not its chunk's"}, old);
            return false;
        }
        space_.copied(page_at(to_, done_ + i), crc);
        const std::size_t before = std::size_t{done_ + i} * kPageBytes;
        crc_ = crc32c(bytes, std::min(kPageBytes, from_.length_bytes - before), crc_);
    }
    if (done_ + piece_ < pages_ || crc_ == from_.crc) return true;
    const PageId page{from_.runs[0].first};
    fail({Error::kCorruption, name_of(page) + ": the value's checksum is not its row's"}, page);
    return false;
}

void ExtentMove::write_piece() {
    if (!check_piece()) return;
    state_ = State::kWriting;
    requests_.clear();
    std::uint32_t first = 0;
    for (std::uint32_t i = 1; i <= piece_; ++i) {
        const PageId begin = page_at(to_, done_ + first);
        const bool follows =
            i < piece_ && page_at(to_, done_ + i).value == begin.value + (i - first);
        if (follows) continue;
        submit(DiskRequest::Kind::kWrite, begin, first, i - first);
        first = i;
    }
}

std::string ExtentMove::name_of(PageId page) const {
    return disk_.path(StoreFile::kData) + " page " + std::to_string(page.value);
}

void ExtentMove::fail(Failure failure, PageId page) {
    if (!bad_page_) {
        failure_ = std::move(failure);
        bad_page_ = page;
    }
    state_ = State::kFailed;
}

void ExtentMove::end(bool attached) {
    CHECK(quiet());
    CHECK(!idle());
    if (!attached) space_.give_back_copy(runs_);
    runs_.clear();
    state_ = State::kIdle;
}

}  // namespace bidstore
