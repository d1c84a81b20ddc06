#include "engine/page/page.h"

#include <isa-l/crc.h>

#include <limits>

namespace bidstore {

namespace {

constexpr std::size_t kCrcOffset = offsetof(PageHeader, crc);
constexpr std::size_t kBehindCrc = kCrcOffset + sizeof(PageHeader::crc);

}  // namespace

std::uint32_t crc32c(const void* bytes, std::size_t length_bytes, std::uint32_t seed) {
    CHECK_OP(length_bytes, <=, std::size_t{std::numeric_limits<int>::max()});
    // ISA-L leaves both inversions to its caller, and takes a non-const pointer that it only reads.
    auto* from = static_cast<unsigned char*>(const_cast<void*>(bytes));
    return ~crc32_iscsi(from, static_cast<int>(length_bytes), ~seed);
}

std::uint32_t page_crc(const std::byte* page) {
    const std::uint32_t zero = 0;
    std::uint32_t crc = crc32c(page, kCrcOffset);
    crc = crc32c(&zero, sizeof zero, crc);
    return crc32c(page + kBehindCrc, kPageBytes - kBehindCrc, crc);
}

void seal_page(std::byte* page) { page_header(page).crc = page_crc(page); }

const char* page_fault(const std::byte* page, PageId expected_id, std::uint64_t file_uuid,
                       Csn newest_csn) {
    const PageHeader& header = page_header(page);
    const std::uint64_t csn = header.csn.load(std::memory_order_relaxed);  // nobody writes it now
    if (header.crc != page_crc(page)) return "its CRC does not fit its content";
    if (header.page_id != expected_id.value) return "it carries the id of another page";
    if (header.file_uuid != file_uuid) return "it belongs to another file";
    if (csn == 0) return "it carries csn 0, which is never used";
    if (csn > newest_csn.value) return "its csn is newer than the checkpoint";
    return nullptr;
}

}  // namespace bidstore
