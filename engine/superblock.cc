#include "engine/superblock.h"

#include <cstring>
#include <utility>

#include "engine/blocking_io.h"

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
