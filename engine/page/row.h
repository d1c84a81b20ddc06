// Row values: the forms in which the variable-length columns of a row come.
//
//   narrow   fixed | u16 end [n] | bytes            a row that fits a page: leaves, ring, log,
//   copies wide     fixed | ff ff | u32 end [n] | bytes    one that does not: ring, log, copies; no
//   leaf stored   narrow, where the bytes of a large column are a reference to the extent that has
//   them,
//            and the top bit of its end is set: leaves, and what readers see of them in place
//
// A row has one whole form (narrow if it fits, else wide). How it is stored follows from it: while
// it does not fit, the longest column goes to an extent. A reference is
//
//   u32 length of the value | u32 CRC-32C of the value | runs of {u32 first page, u32 pages}
//
// The pages of an extent hold nothing but the value, in order, and zeros behind its end.
//
// Who:    client library, tool and engine; views are made on the spot.
// Trust:  the bytes may lie in a page that is being reused: everything is loaded once and clamped,
//         and nothing leads outside the value. Garbage gives short contents, and references that
//         name possible numbers of possible pages.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "engine/page/schema.h"

namespace bidstore {

inline constexpr std::uint32_t kValueRunsMax = 8;

struct ExtentRun {
    std::uint32_t first;
    std::uint32_t pages;
    friend bool operator==(const ExtentRun&, const ExtentRun&) = default;
};

// Where a large value is.
struct ValueReference {
    std::uint32_t length_bytes = 0;
    std::uint32_t crc = 0;
    std::uint32_t run_count = 0;
    std::array<ExtentRun, kValueRunsMax> runs{};

    std::span<const ExtentRun> all_runs() const { return std::span(runs).first(run_count); }
    friend bool operator==(const ValueReference&, const ValueReference&) = default;
    // As bytes in a row.
    std::uint32_t size_bytes() const { return 8 + 8 * run_count; }
    void store(std::byte* to) const;
    // Nothing when the bytes are no reference: wrong size, impossible length, runs that do not add
    // up to it. Page ids may still be any but 0.
    static std::optional<ValueReference> load(std::span<const std::byte> from);
};
inline constexpr std::uint32_t kReferenceBytesMax = 8 + 8 * kValueRunsMax;

constexpr std::uint32_t extent_pages(std::uint32_t length_bytes) {
    return (length_bytes + static_cast<std::uint32_t>(kPageBytes) - 1) /
           static_cast<std::uint32_t>(kPageBytes);
}

// A variable-length column as a form of the row has it.
struct ColumnContent {
    std::span<const std::byte> bytes;
    bool is_reference = false;
};

class RowView {
  public:
    RowView(const Schema& schema, std::span<const std::byte> value);

    bool wide() const { return wide_; }
    std::uint32_t count() const { return count_; }
    // `index` counts the variable-length columns.
    ColumnContent content(std::uint32_t index) const;
    bool has_references() const;
    // Whether the ends rise and the last one is where the value ends.
    bool exact() const;
    // Calls visit(index, ValueReference) for each column that is a well-formed reference.
    template <class Visit>
    void each_reference(Visit visit) const {
        for (std::uint32_t i = 0; i < count_; ++i) {
            const ColumnContent found = content(i);
            if (!found.is_reference) continue;
            if (const auto reference = ValueReference::load(found.bytes)) visit(i, *reference);
        }
    }

  private:
    std::uint32_t word(std::uint32_t index) const;  // an end as it is stored
    std::uint32_t end(std::uint32_t index) const { return word(index) & ~flag_; }

    std::span<const std::byte> ends_;
    std::span<const std::byte> content_;
    std::uint32_t count_ = 0;
    std::uint32_t flag_ = 0;
    bool wide_ = false;
};

// What a form of a row takes, and writing it: narrow when key and value fit a page then, else wide.
// contents has one entry a variable-length column.
std::uint64_t row_value_bytes(const Schema& schema, std::span<const ColumnContent> contents);
void write_row_value(std::byte* to, const Schema& schema, std::span<const std::byte> fixed,
                     std::span<const ColumnContent> contents);

// Which columns of a row go to extents so that the rest fits a page.
struct RowPlan {
    bool fits = false;  // false: even references to all of them do not fit
    std::bitset<kColumnsMax> out;
};
RowPlan plan_row(const Schema& schema, const RowView& row);

// What is wrong with a value that may be narrow or wide and have references, or nullptr: between a
// client's operation and the leaf, rows keep the references to what the operation left alone.
const char* row_value_fault(const Schema& schema, std::span<const std::byte> value);
// What is wrong with a value as leaves have it, or nullptr.
const char* stored_value_fault(const Schema& schema, std::span<const std::byte> value);

}  // namespace bidstore
