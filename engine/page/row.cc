#include "engine/page/row.h"

#include <algorithm>

namespace bidstore {
namespace {

constexpr std::uint32_t kNarrowFlag = 0x8000;
constexpr std::uint32_t kWideFlag = 0x8000'0000;
// No end of a narrow form, flagged or not, has all bits set: rows are shorter than that.
constexpr std::uint16_t kWideMark = 0xffff;
static_assert(kRowBytesMax < (kWideMark & ~kNarrowFlag));

template <class T>
T load(const std::byte* from) {
    T value;
    racy_copy(&value, from, sizeof value);
    return value;
}

std::size_t narrow_head(const Schema& schema) {
    return schema.fixed_bytes() + std::size_t{2} * schema.variable_columns();
}

std::size_t wide_head(const Schema& schema) {
    return schema.fixed_bytes() + 2 + std::size_t{4} * schema.variable_columns();
}

}  // namespace

// ---- references ----

void ValueReference::store(std::byte* to) const {
    std::memcpy(to, &length_bytes, 4);
    std::memcpy(to + 4, &crc, 4);
    std::memcpy(to + 8, runs.data(), sizeof(ExtentRun) * run_count);
}

std::optional<ValueReference> ValueReference::load(std::span<const std::byte> from) {
    if (from.size() < 16 || from.size() > kReferenceBytesMax || from.size() % 8 != 0) return {};
    ValueReference reference;
    reference.length_bytes = bidstore::load<std::uint32_t>(from.data());
    reference.crc = bidstore::load<std::uint32_t>(from.data() + 4);
    reference.run_count = static_cast<std::uint32_t>(from.size() / 8 - 1);
    racy_copy(reference.runs.data(), from.data() + 8, from.size() - 8);
    if (reference.length_bytes == 0 || reference.length_bytes > kLargeValueBytesMax) return {};
    std::uint64_t pages = 0;
    for (const ExtentRun& run : reference.all_runs()) {
        if (run.first == 0 || run.pages == 0) return {};
        pages += run.pages;
    }
    if (pages != extent_pages(reference.length_bytes)) return {};
    return reference;
}

// ---- forms ----

RowView::RowView(const Schema& schema, std::span<const std::byte> value)
    : count_(schema.variable_columns()) {
    if (count_ == 0 || value.size() < narrow_head(schema)) {
        count_ = 0;
        return;
    }
    const std::byte* ends = value.data() + schema.fixed_bytes();
    wide_ = load<std::uint16_t>(ends) == kWideMark;
    const std::size_t head = wide_ ? wide_head(schema) : narrow_head(schema);
    if (value.size() < head) {
        count_ = 0;
        return;
    }
    flag_ = wide_ ? kWideFlag : kNarrowFlag;
    const std::size_t first = schema.fixed_bytes() + (wide_ ? 2 : 0);
    ends_ = value.subspan(first, head - first);
    content_ = value.subspan(head);
}

std::uint32_t RowView::word(std::uint32_t index) const {
    if (wide_) return load<std::uint32_t>(ends_.data() + std::size_t{4} * index);
    return load<std::uint16_t>(ends_.data() + std::size_t{2} * index);
}

ColumnContent RowView::content(std::uint32_t index) const {
    if (index >= count_) return {};
    const std::uint32_t last = word(index);
    const std::size_t begin = index == 0 ? 0 : end(index - 1);
    const std::size_t stop = std::min<std::size_t>(last & ~flag_, content_.size());
    const bool is_reference = (last & flag_) != 0;
    if (begin >= stop) return {{}, is_reference};
    return {content_.subspan(begin, stop - begin), is_reference};
}

bool RowView::has_references() const {
    for (std::uint32_t i = 0; i < count_; ++i) {
        if ((word(i) & flag_) != 0) return true;
    }
    return false;
}

bool RowView::exact() const {
    std::uint32_t last = 0;
    for (std::uint32_t i = 0; i < count_; ++i) {
        if (end(i) < last) return false;
        last = end(i);
    }
    return count_ > 0 && last == content_.size();
}

namespace {

std::uint64_t content_bytes(std::span<const ColumnContent> contents) {
    std::uint64_t bytes = 0;
    for (const ColumnContent& content : contents) bytes += content.bytes.size();
    return bytes;
}

bool fits_narrow(const Schema& schema, std::uint64_t bytes_of_contents) {
    return schema.key_bytes() + narrow_head(schema) + bytes_of_contents <= kRowBytesMax;
}

template <class End>
void write_contents(std::byte* ends, std::span<const ColumnContent> contents, End flag) {
    std::byte* to = ends + sizeof(End) * contents.size();
    End end = 0;
    for (const ColumnContent& content : contents) {
        end = static_cast<End>(end + content.bytes.size());
        const End word = content.is_reference ? static_cast<End>(end | flag) : end;
        std::memcpy(ends, &word, sizeof word);
        ends += sizeof word;
        if (!content.bytes.empty()) std::memcpy(to, content.bytes.data(), content.bytes.size());
        to += content.bytes.size();
    }
}

}  // namespace

std::uint64_t row_value_bytes(const Schema& schema, std::span<const ColumnContent> contents) {
    const std::uint64_t bytes = content_bytes(contents);
    return bytes + (fits_narrow(schema, bytes) ? narrow_head(schema) : wide_head(schema));
}

void write_row_value(std::byte* to, const Schema& schema, std::span<const std::byte> fixed,
                     std::span<const ColumnContent> contents) {
    if (!fixed.empty()) std::memcpy(to, fixed.data(), fixed.size());
    to += fixed.size();
    if (fits_narrow(schema, content_bytes(contents))) {
        return write_contents<std::uint16_t>(to, contents, kNarrowFlag);
    }
    std::memcpy(to, &kWideMark, sizeof kWideMark);
    write_contents<std::uint32_t>(to + sizeof kWideMark, contents, kWideFlag);
}

// References count as long as they can get, so that a row which fits once fits always, whatever
// runs its values find.
RowPlan plan_row(const Schema& schema, const RowView& row) {
    RowPlan plan;
    std::array<std::uint32_t, kColumnsMax> sizes{};
    std::uint64_t bytes = schema.key_bytes() + narrow_head(schema);
    for (std::uint32_t i = 0; i < row.count(); ++i) {
        const ColumnContent content = row.content(i);
        sizes[i] = content.is_reference ? kReferenceBytesMax
                                        : static_cast<std::uint32_t>(content.bytes.size());
        bytes += sizes[i];
    }
    while (bytes > kRowBytesMax) {
        const auto longest = std::max_element(sizes.begin(), sizes.begin() + row.count());
        if (longest == sizes.begin() + row.count() || *longest <= kReferenceBytesMax) return plan;
        bytes -= *longest - kReferenceBytesMax;
        *longest = kReferenceBytesMax;
        plan.out.set(static_cast<std::size_t>(longest - sizes.begin()));
    }
    plan.fits = true;
    return plan;
}

const char* row_value_fault(const Schema& schema, std::span<const std::byte> value) {
    if (!schema.has_variable()) {
        return value.size() == schema.fixed_bytes() ? nullptr : "a row's value has a wrong size";
    }
    const RowView row(schema, value);
    if (!row.exact()) return "a row's value does not fit the schema";
    for (std::uint32_t i = 0; i < row.count(); ++i) {
        const ColumnContent content = row.content(i);
        if (content.is_reference && !ValueReference::load(content.bytes)) {
            return "a row's reference to a large value is malformed";
        }
        if (content.bytes.size() > kLargeValueBytesMax) return "a column is too long";
    }
    return plan_row(schema, row).fits ? nullptr : "a row is longer than a page";
}

const char* stored_value_fault(const Schema& schema, std::span<const std::byte> value) {
    if (schema.key_bytes() + value.size() > kRowBytesMax) return "a row is longer than a page";
    if (RowView(schema, value).wide()) return "a row is not in the form of a leaf";
    if (!schema.has_variable()) return row_value_fault(schema, value);
    const RowView row(schema, value);
    if (!row.exact()) return "a row's value does not fit the schema";
    std::array<std::uint32_t, kRowBytesMax / sizeof(ExtentRun)> runs;
    auto* end = runs.begin();
    for (std::uint32_t i = 0; i < row.count(); ++i) {
        const ColumnContent content = row.content(i);
        if (!content.is_reference) continue;
        const auto reference = ValueReference::load(content.bytes);
        if (!reference) return "a row's reference to a large value is malformed";
        for (const ExtentRun& run : reference->all_runs()) *end++ = run.first;
    }
    std::sort(runs.begin(), end);
    const bool twice = std::adjacent_find(runs.begin(), end) != end;
    return twice ? "a row refers to pages of a large value twice" : nullptr;
}

}  // namespace bidstore
