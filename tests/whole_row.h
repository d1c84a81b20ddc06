// Rows as leaves store them, made whole again: large values fetched page by page.
//
// Who: simulation tests. Shares the reference and the view of a row with the product, nothing else.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <vector>

#include "engine/page/row.h"
#include "engine/page/schema.h"

namespace bidstore {

// A page of an extent: kPageBytes, or nullptr when it cannot be had.
using ExtentSource = std::function<const std::byte*(PageId page)>;

inline std::optional<std::vector<std::byte>> large_value(const ValueReference& reference,
                                                         const ExtentSource& source) {
    std::vector<std::byte> value;
    for (const ExtentRun& run : reference.all_runs()) {
        for (std::uint32_t i = 0; i < run.pages; ++i) {
            const std::byte* page = source(PageId{run.first + i});
            if (page == nullptr) return std::nullopt;
            const std::size_t part =
                std::min<std::size_t>(kPageBytes, reference.length_bytes - value.size());
            value.insert(value.end(), page, page + part);
        }
    }
    return value;
}

// Nothing when a page could not be had; garbage stays garbage.
inline std::optional<std::vector<std::byte>> whole_row(const Schema& schema,
                                                       std::span<const std::byte> stored,
                                                       const ExtentSource& source) {
    const RowView row(schema, stored);
    if (!row.has_references()) return std::vector<std::byte>(stored.begin(), stored.end());
    std::vector<std::vector<std::byte>> kept(row.count());
    std::vector<ColumnContent> contents(row.count());
    for (std::uint32_t i = 0; i < row.count(); ++i) {
        contents[i] = row.content(i);
        if (!contents[i].is_reference) continue;
        const auto reference = ValueReference::load(contents[i].bytes);
        if (!reference) return std::nullopt;
        auto value = large_value(*reference, source);
        if (!value) return std::nullopt;
        kept[i] = std::move(*value);
        contents[i] = {kept[i], false};
    }
    std::vector<std::byte> whole(row_value_bytes(schema, contents));
    write_row_value(whole.data(), schema, stored.first(schema.fixed_bytes()), contents);
    return whole;
}

}  // namespace bidstore
