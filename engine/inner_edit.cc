#include "engine/inner_edit.h"

#include <array>
#include <cstring>

#include "engine/page/schema.h"

namespace bidstore {

namespace {

// The three arrays of a node: where entry 0 is and how wide each entry is.
struct NodeArray {
    std::uint32_t offset;
    std::uint32_t width_bytes;
};

std::array<NodeArray, 3> arrays_of(const InnerLayout& layout) {
    return {
        {{kHeadsOffset, 8}, {layout.tails_offset, layout.tail_bytes}, {layout.children_offset, 4}}};
}

}  // namespace

void InnerEdit::init(std::uint32_t level) {
    CHECK_OP(level, >=, 1u);
    PageHeader& header = page_header(page_);
    header.type = PageType::kInner;
    header.level = static_cast<std::uint8_t>(level);
    header.count = 0;
    header.free_offset = 0;
    header.live_bytes = 0;
    header.time_shift = 0;
    header.time_min = 0;
    header.time_max = 0;
}

void InnerEdit::set_count(std::uint32_t count) {
    CHECK_OP(count, <=, layout_->capacity);
    page_header(page_).count = static_cast<std::uint16_t>(count);
}

void InnerEdit::insert(std::uint32_t index, const std::byte* key, PageId child) {
    CHECK(!full());
    CHECK_OP(index, <=, count());
    for (const auto& [offset, width] : arrays_of(*layout_)) {
        std::byte* at = page_ + offset + std::size_t{index} * width;
        std::memmove(at + width, at, std::size_t{count() - index} * width);
    }
    const std::uint64_t head = key_head(key, layout_->key_bytes);
    std::memcpy(page_ + kHeadsOffset + 8 * index, &head, sizeof head);
    if (layout_->tail_bytes > 0) {
        std::memcpy(page_ + layout_->tails_offset + std::size_t{index} * layout_->tail_bytes,
                    key + 8, layout_->tail_bytes);
    }
    std::memcpy(page_ + layout_->children_offset + 4 * index, &child.value, 4);
    set_count(count() + 1);
    refresh_samples(index);
}

void InnerEdit::set_child(std::uint32_t index, PageId child) {
    CHECK_OP(index, <, count());
    std::memcpy(page_ + layout_->children_offset + 4 * index, &child.value, 4);
}

void InnerEdit::erase(std::uint32_t first, std::uint32_t last) {
    CHECK_OP(first, <=, last);
    CHECK_OP(last, <=, count());
    for (const auto& [offset, width] : arrays_of(*layout_)) {
        std::byte* entries = page_ + offset;
        std::memmove(entries + std::size_t{first} * width, entries + std::size_t{last} * width,
                     std::size_t{count() - last} * width);
    }
    set_count(count() - (last - first));
    refresh_samples(first);
}

void InnerEdit::append(const InnerView& from, std::uint32_t first, const std::byte* key) {
    std::array<std::byte, kKeyBytesMax> copied;
    for (std::uint32_t i = first; i < from.count(); ++i) {
        from.copy_key(i, copied.data());
        const bool given = i == first && key != nullptr;
        insert(count(), given ? key : copied.data(), from.child(i));
    }
}

// The samples that stand for heads from `from` on.
void InnerEdit::refresh_samples(std::uint32_t from) {
    for (std::uint32_t i = from / kHeadsPerSample * kHeadsPerSample; i < count();
         i += kHeadsPerSample) {
        std::memcpy(page_ + kSamplesOffset + 8 * (i / kHeadsPerSample),
                    page_ + kHeadsOffset + 8 * i, 8);
    }
}

}  // namespace bidstore
