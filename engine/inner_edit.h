// The writing side of inner nodes (read engine/page/inner.h first).
//
// Who:   the engine thread, on a version that no reader can reach yet.
// Owns:  nothing; page and layout outlive the editor, which is made on the spot.
// Rules: count, heads, tails, children and samples are right after every call. Key 0 is kept as it
//        was given, but means minus infinity.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/page/inner.h"

namespace bidstore {

class InnerEdit {
  public:
    InnerEdit(std::byte* page, const InnerLayout& layout) : page_(page), layout_(&layout) {}

    // Makes the page an inner node of no children; it must not stay so.
    void init(std::uint32_t level);

    InnerView view() const { return InnerView(page_, *layout_); }
    std::uint32_t count() const { return page_header(page_).count; }
    bool full() const { return count() == layout_->capacity; }

    // The child becomes number `index`, covering what is from `key` on.
    void insert(std::uint32_t index, const std::byte* key, PageId child);
    // Child `index` is to be found there from now on.
    void set_child(std::uint32_t index, PageId child);
    // Takes children [first, last) out; the child before them covers their keys then.
    void erase(std::uint32_t first, std::uint32_t last);
    // Takes children [first, count) of another node behind the last of this one. The first of them
    // is given `key`, the bound that the parent knows, unless it is nullptr.
    void append(const InnerView& from, std::uint32_t first, const std::byte* key);

  private:
    void set_count(std::uint32_t count);
    void refresh_samples(std::uint32_t from);

    std::byte* page_;
    const InnerLayout* layout_;
};

}  // namespace bidstore
