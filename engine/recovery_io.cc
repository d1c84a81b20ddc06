#include "engine/recovery_io.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bidstore {

// ---- PieceReader

PieceReader::PieceReader(Disk& disk, Clock& clock, Pieces pieces)
    : disk_(disk), clock_(clock), pieces_(std::move(pieces)) {
    const std::uint64_t transfers = std::min<std::uint64_t>(pieces_.at_once, pieces_.count);
    for (std::uint64_t i = 0; i < transfers; ++i) {
        transfers_.push_back(std::make_unique<Transfer>());
        transfers_.back()->buffer = AlignedBuffer(pieces_.bytes_max);
    }
}

PieceReader::~PieceReader() {
    const std::uint64_t deadline_ns = clock_.monotonic_ns() + BlockingIo::kDeadlineNs;
    for (auto& transfer : transfers_) {
        while (transfer->request.in_flight && !stuck_) {
            disk_.poll(1'000'000);
            stuck_ = clock_.monotonic_ns() > deadline_ns;
        }
        if (transfer->request.in_flight) static_cast<void>(transfer.release());
    }
}

void PieceReader::send_reads() {
    for (; sent_ < pieces_.count && sent_ < next_ + transfers_.size(); ++sent_) {
        Transfer& transfer = *transfers_[sent_ % transfers_.size()];
        const Piece piece = pieces_.at(sent_);
        CHECK_OP(piece.length_bytes, <=, pieces_.bytes_max);
        transfer.request = DiskRequest{};
        transfer.request.file = pieces_.file;
        transfer.request.offset_bytes = piece.offset_bytes;
        transfer.request.length_bytes = piece.length_bytes;
        transfer.request.buffer = transfer.buffer.data();
        transfer.request.completed = [](DiskRequest&, void*) {};
        disk_.submit(transfer.request);
    }
}

Result<const std::byte*> PieceReader::next() {
    CHECK_OP(next_, <, pieces_.count);
    Transfer& transfer = *transfers_[next_ % transfers_.size()];
    const DiskRequest& request = transfer.request;
    if (!stuck_) {
        send_reads();
        disk_.poll(0);  // hands them over
    }
    const std::uint64_t deadline_ns = clock_.monotonic_ns() + BlockingIo::kDeadlineNs;
    for (std::uint64_t now_ns = 0; request.in_flight && !stuck_;) {
        now_ns = clock_.monotonic_ns();
        stuck_ = now_ns >= deadline_ns;
        if (!stuck_) disk_.poll(deadline_ns - now_ns);
    }
    if (stuck_) return io_overdue(disk_, request, BlockingIo::kDeadlineNs);
    ++next_;
    if (request.result < 0) return io_failure(disk_, request);
    return static_cast<const std::byte*>(transfer.buffer.data());
}

// ---- PlaceWriter

PlaceWriter::Writes::Writes(Disk& disk)
    : writer(disk, [this, &disk](const DiskRequest& done) {
          ++completed;
          if (done.result < 0 && status) status = io_failure(disk, done);
      }) {}

PlaceWriter::PlaceWriter(Disk& disk, Clock& clock)
    : disk_(disk), clock_(clock), writes_(std::make_unique<Writes>(disk)) {
    pages_.reserve(LoadWriter::kBufferPages);
}

PlaceWriter::~PlaceWriter() {
    const auto quiet = [this] { return writes_->writer.in_flight() == 0; };
    if (stuck_ ? !quiet() : !wait_until(quiet)) static_cast<void>(writes_.release());
}

Status PlaceWriter::put(PageId page, const std::byte* image) {
    if (buffer_ == nullptr) {
        const Status there = wait_until([this] { return writes_->writer.idle() > 0; });
        if (!there) return there;
        buffer_ = &writes_->writer.take();
    }
    if (!writes_->status) return writes_->status;
    std::memcpy(buffer_->page(buffer_->count++), image, kPageBytes);
    pages_.push_back(page);
    if (buffer_->full()) send();
    return {};
}

Status PlaceWriter::finish() {
    if (writes_->status && buffer_ != nullptr) send();
    const Status there = wait_until([this] { return writes_->writer.in_flight() == 0; });
    return there ? writes_->status : there;
}

void PlaceWriter::send() {
    for (std::size_t first = 0, end = 0; first < pages_.size(); first = end) {
        for (end = first + 1; end < pages_.size(); ++end) {
            if (pages_[end].value != pages_[end - 1].value + 1) break;
        }
        writes_->writer.write(*buffer_, static_cast<std::uint32_t>(end - first), pages_[first]);
    }
    pages_.clear();
    buffer_ = nullptr;
    disk_.poll(0);  // hands them over
}

// Each answer is a new beginning: there may be a thousand writes under way.
Status PlaceWriter::wait_until(const std::function<bool()>& done) {
    std::uint64_t completed = writes_->completed;
    std::uint64_t deadline_ns = clock_.monotonic_ns() + BlockingIo::kDeadlineNs;
    while (!done()) {
        const std::uint64_t now_ns = clock_.monotonic_ns();
        if (std::exchange(completed, writes_->completed) != writes_->completed) {
            deadline_ns = now_ns + BlockingIo::kDeadlineNs;
        }
        if (now_ns >= deadline_ns) {
            stuck_ = true;
            const DiskRequest* late = writes_->writer.under_way();
            CHECK(late != nullptr);
            return io_overdue(disk_, *late, BlockingIo::kDeadlineNs);
        }
        disk_.poll(deadline_ns - now_ns);
    }
    return {};
}

}  // namespace bidstore
