#include "engine/large_rows.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "shm/hot_path.h"

namespace bidstore {

void append_extents(const Schema& schema, TableId table, std::span<const std::byte> value,
                    std::vector<ExtentNeed>& needs) {
    if (!schema.has_variable()) return;
    const RowView row(schema, value);
    if (!row.wide()) return;
    const RowPlan plan = plan_row(schema, row);
    for (std::uint32_t i = 0; i < row.count(); ++i) {
        if (!plan.out.test(i)) continue;
        const auto length = static_cast<std::uint32_t>(row.content(i).bytes.size());
        kept_push(needs, ExtentNeed{table, extent_pages(length)});
    }
}

std::uint64_t extent_pages_at_most(const Schema& schema, RecordType type,
                                   std::span<const std::byte> body) {
    if (!schema.has_variable()) return 0;
    if (type == RecordType::kUpdateColumns) {
        const auto others =
            std::min<std::uint64_t>(schema.variable_columns(), kRowBytesMax / kReferenceBytesMax);
        return body.size() / kPageBytes + others;
    }
    if (type != RecordType::kPutRow) return 0;
    std::vector<ExtentNeed> needs;
    append_extents(schema, TableId{}, body, needs);
    std::uint64_t pages = 0;
    for (const ExtentNeed& need : needs) pages += need.pages;
    return pages;
}

std::size_t stored_bytes_at_most(const Schema& schema, std::span<const std::byte> value) {
    const RowView row(schema, value);
    if (!row.wide()) return value.size();
    const RowPlan plan = plan_row(schema, row);
    std::size_t bytes = schema.fixed_bytes() + std::size_t{2} * row.count();
    for (std::uint32_t i = 0; i < row.count(); ++i) {
        bytes += plan.out.test(i) ? kReferenceBytesMax : row.content(i).bytes.size();
    }
    return bytes;
}

std::uint32_t value_runs(const Schema& schema, std::span<const std::byte> value) {
    std::uint32_t runs = 0;
    RowView(schema, value).each_reference([&](std::uint32_t, const ValueReference& reference) {
        runs += reference.run_count;
    });
    return runs;
}

// 1. The row is sound, so the plan fits; its extents are reserved.
// 2. Each large column goes to its extent, and a reference stands where it was.
// 3. What is left fits a page, and goes into the leaf like any row.
std::span<const std::byte> store_wide_row(const Schema& schema, const std::byte* key,
                                          std::span<const std::byte> value,
                                          const PutValue& put_value, std::span<std::byte> to) {
    const RowView row(schema, value);
    const RowPlan plan = plan_row(schema, row);
    CHECK(plan.fits);
    std::array<ColumnContent, kColumnsMax> contents;
    std::array<std::byte, kRowBytesMax> references;
    std::size_t used = 0;
    const std::uint32_t newest = newest_of_row(schema, key, value);
    for (std::uint32_t i = 0; i < row.count(); ++i) {
        contents[i] = row.content(i);
        if (!plan.out.test(i)) continue;
        const ValueReference reference = put_value(contents[i].bytes, newest);
        CHECK_OP(used + reference.size_bytes(), <=, references.size());
        reference.store(references.data() + used);
        contents[i] = {std::span(references).subspan(used, reference.size_bytes()), true};
        used += reference.size_bytes();
    }
    const auto all = std::span<const ColumnContent>(contents).first(row.count());
    const std::uint64_t stored_bytes = row_value_bytes(schema, all);
    CHECK_OP(schema.key_bytes() + stored_bytes, <=, kRowBytesMax);
    write_row_value(to.data(), schema, value.first(schema.fixed_bytes()), all);
    return to.first(stored_bytes);
}

Change put_row(Tree& tree, Pages& pages, const Schema& schema, const std::byte* key,
               std::span<const std::byte> value, PageId leaf) {
    if (!schema.has_variable() || !RowView(schema, value).wide()) return tree.put(key, value, leaf);
    std::array<std::byte, kRowBytesMax> to;
    const auto put_value = [&](std::span<const std::byte> large, std::uint32_t newest) {
        return pages.allocate_extent(tree.table(), large, newest);
    };
    return tree.put(key, store_wide_row(schema, key, value, put_value, to), leaf);
}

std::span<const std::byte> moved_row(const Schema& schema, std::span<const std::byte> stored,
                                     const ValueReference& from, const ValueReference& moved,
                                     std::span<std::byte> to) {
    const RowView row(schema, stored);
    std::array<ColumnContent, kColumnsMax> contents;
    std::array<std::byte, kReferenceBytesMax> reference;
    moved.store(reference.data());
    for (std::uint32_t i = 0; i < row.count(); ++i) contents[i] = row.content(i);
    bool found = false;
    row.each_reference([&](std::uint32_t column, const ValueReference& other) {
        if (!(other == from)) return;
        contents[column] = {std::span(reference).first(moved.size_bytes()), true};
        found = true;
    });
    if (!found) return {};
    const auto all = std::span<const ColumnContent>(contents).first(row.count());
    const std::uint64_t bytes = row_value_bytes(schema, all);
    CHECK_OP(bytes, <=, to.size());
    write_row_value(to.data(), schema, stored.first(schema.fixed_bytes()), all);
    return to.first(bytes);
}

ValueComparison equals_large(Pages& pages, const ValueReference& reference,
                             std::span<const std::byte> expected) {
    ValueComparison comparison;
    if (reference.length_bytes != expected.size()) return comparison;
    if (reference.crc != crc32c(expected.data(), expected.size())) return comparison;
    // Equal checksums are no proof: the bytes are.
    for (const ExtentRun& run : reference.all_runs()) {
        for (std::uint32_t i = 0; i < run.pages; ++i) {
            const std::byte* page = pages.newest(PageId{run.first + i});
            if (page == nullptr) {
                comparison.missing = PageId{run.first + i};
                return comparison;
            }
            const std::size_t part = std::min(expected.size(), kPageBytes);
            if (std::memcmp(page, expected.data(), part) != 0) return comparison;
            expected = expected.subspan(part);
        }
    }
    comparison.equal = true;
    return comparison;
}

}  // namespace bidstore
