#include "engine/superblock.h"

#include <cstring>
#include <utility>

#include "engine/blocking_io.h"
#include "engine/space.h"

namespace bidstore {
namespace {

std::uint32_t superblock_crc(const Superblock& superblock) {
    Superblock copy = superblock;
    copy.crc = 0;
    return crc32c(&copy, sizeof copy);
}

}  // namespace

void seal_superblock(Superblock& superblock) {
    superblock.magic = kSuperblockMagic;
    superblock.format_version = kFormatVersion;
    superblock.crc = superblock_crc(superblock);
}

bool superblock_valid(const Superblock& superblock) {
    return superblock.magic == kSuperblockMagic && superblock.format_version == kFormatVersion &&
           superblock.crc == superblock_crc(superblock);
}

bool superblock_of_other_version(const Superblock& superblock) {
    return superblock.magic == kSuperblockMagic && superblock.format_version != kFormatVersion &&
           superblock.crc == superblock_crc(superblock);
}

const char* superblock_fault(const Superblock& superblock) {
    constexpr std::uint64_t kSegmentBytesMax = std::uint64_t{1} << 32;
    constexpr std::uint32_t kSegmentsMax = 1u << 16;
    constexpr std::uint64_t kJournalBytesMax = std::uint64_t{1} << 44;
    // Of what grows all the time, and never comes there.
    constexpr std::uint64_t kGrownMax = ~std::uint64_t{0} >> 1;
    // What a column of nanoseconds can say: in the year 2262.
    constexpr std::uint64_t kTimeMaxUs = kGrownMax / 1'000;
    const auto whole = [](std::uint64_t bytes) { return bytes % kBlockBytes == 0; };
    const std::uint64_t segment = superblock.log_segment_bytes;
    if (segment == 0 || segment > kSegmentBytesMax || !whole(segment)) {
        return "impossible log_segment_bytes";
    }
    if (superblock.log_segment_count == 0 || superblock.log_segment_count > kSegmentsMax) {
        return "impossible log_segment_count";
    }
    if (!whole(superblock.log_position) || superblock.log_position > kGrownMax) {
        return "impossible log_position";
    }
    if (superblock.sequence > kGrownMax) return "impossible sequence";
    if (superblock.journal_bytes > kJournalBytesMax || !whole(superblock.journal_bytes)) {
        return "impossible journal_bytes";
    }
    if (superblock.checkpoint_csn > kGrownMax || superblock.durable_csn > kGrownMax) {
        return "impossible csn";
    }
    if (superblock.newest_time_us > kTimeMaxUs) return "impossible newest_time_us";
    if (superblock.chunk_count == 0) return "no chunk";
    const std::uint64_t pages = std::uint64_t{superblock.chunk_count} * kChunkPages;
    if (superblock.catalog_root >= pages || Space::fixed(PageId{superblock.catalog_root})) {
        return "impossible catalog_root";
    }
    return nullptr;
}

std::string stale_copy(const std::array<std::uint64_t, kSuperblockCopies>& sequences) {
    static_assert(kSuperblockCopies == 2);
    const std::uint32_t older = sequences[0] < sequences[1] ? 0 : 1;
    const std::uint64_t behind = sequences[1 - older] - sequences[older];
    if (behind <= 1) return "";
    return "superblock copy " + std::to_string(older) + " is " + std::to_string(behind) +
           " writes older than the other one: the last of them failed, or the device lost them";
}

SuperblockWriter::SuperblockWriter(Disk& disk) : disk_(disk) {
    request_.kind = DiskRequest::Kind::kWrite;
    request_.file = StoreFile::kData;
    request_.durable = true;
    request_.length_bytes = kBlockBytes;
    request_.buffer = buffer_.data();
    request_.context = this;
    request_.completed = [](DiskRequest&, void* context) {
        static_cast<SuperblockWriter*>(context)->on_written();
    };
}

void SuperblockWriter::write(Superblock& superblock, std::function<void(const Status&)> done) {
    CHECK(!busy_);
    ++superblock.sequence;
    seal_superblock(superblock);
    std::memcpy(buffer_.data(), &superblock, sizeof superblock);
    done_ = std::move(done);
    busy_ = true;
    submit(0);
}

void SuperblockWriter::submit(std::uint32_t copy) {
    copy_ = copy;
    request_.offset_bytes = std::uint64_t{copy} * kBlockBytes;
    disk_.submit(request_);
}

void SuperblockWriter::on_written() {
    if (request_.result >= 0 && copy_ + 1 < kSuperblockCopies) return submit(copy_ + 1);
    busy_ = false;
    const Status written = request_.result < 0 ? Status(io_failure(disk_, request_)) : Status();
    std::exchange(done_, nullptr)(written);
}

}  // namespace bidstore
