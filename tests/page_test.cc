#include "engine/page/page.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace bidstore {
namespace {

constexpr std::uint64_t kUuid = 0x1122334455667788;

struct alignas(kPageBytes) Page {
    std::byte bytes[kPageBytes]{};
};

Page sealed_page() {
    Page page;
    for (std::size_t i = kPageHeaderBytes; i < kPageBytes; ++i) {
        page.bytes[i] = static_cast<std::byte>(i * 7);
    }
    PageHeader& header = page_header(page.bytes);
    header.csn.store(41);
    header.page_id = 9;
    header.file_uuid = kUuid;
    header.type = PageType::kLeaf;
    seal_page(page.bytes);
    return page;
}

const char* fault_of(const Page& page) { return page_fault(page.bytes, PageId{9}, kUuid, Csn{41}); }

TEST(Crc, IsTheStandardCrc32c) {
    EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u);
    EXPECT_EQ(crc32c("", 0), 0u);
    const std::string zeros(32, '\0');
    EXPECT_EQ(crc32c(zeros.data(), zeros.size()), 0x8a9136aau);  // RFC 3720, B.4
}

TEST(Crc, ChainsThroughItsSeed) {
    const std::string text = "the quick brown fox jumps over the lazy dog";
    const std::uint32_t whole = crc32c(text.data(), text.size());
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
        const std::uint32_t first = crc32c(text.data(), cut);
        EXPECT_EQ(crc32c(text.data() + cut, text.size() - cut, first), whole) << cut;
    }
}

TEST(Page, SealedPageHasNoFault) { EXPECT_EQ(fault_of(sealed_page()), nullptr); }

TEST(Page, CrcTakesItsOwnFieldAsZero) {
    Page page = sealed_page();
    const std::uint32_t crc = page_header(page.bytes).crc;
    page_header(page.bytes).crc = 0;
    EXPECT_EQ(page_crc(page.bytes), crc);
    EXPECT_EQ(crc32c(page.bytes, kPageBytes), crc);
}

TEST(Page, EveryFlippedBitIsAFault) {
    Page page = sealed_page();
    for (std::size_t bit = 0; bit < kPageBytes * 8; bit += bit < 512 ? 1 : 97) {
        const auto mask = static_cast<std::byte>(1u << (bit % 8));
        page.bytes[bit / 8] ^= mask;
        EXPECT_NE(fault_of(page), nullptr) << "bit " << bit;
        page.bytes[bit / 8] ^= mask;
    }
    EXPECT_EQ(fault_of(page), nullptr);
}

TEST(Page, MisplacedForeignAndFutureImagesAreFaults) {
    const Page page = sealed_page();
    EXPECT_STREQ(page_fault(page.bytes, PageId{10}, kUuid, Csn{41}),
                 "it carries the id of another page");
    EXPECT_STREQ(page_fault(page.bytes, PageId{9}, kUuid + 1, Csn{41}),
                 "it belongs to another file");
    EXPECT_STREQ(page_fault(page.bytes, PageId{9}, kUuid, Csn{40}),
                 "its csn is newer than the checkpoint");
    EXPECT_EQ(page_fault(page.bytes, PageId{9}, kUuid, Csn{1000}), nullptr);
}

TEST(Page, PageOfZerosIsAFault) {
    const Page page;
    EXPECT_NE(page_fault(page.bytes, PageId{0}, 0, Csn{41}), nullptr);
}

TEST(Page, CsnZeroIsAFaultEvenWithAGoodCrc) {
    Page page = sealed_page();
    page_header(page.bytes).csn.store(0);
    seal_page(page.bytes);
    EXPECT_STREQ(fault_of(page), "it carries csn 0, which is never used");
}

}  // namespace
}  // namespace bidstore
