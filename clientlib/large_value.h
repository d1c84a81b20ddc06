// A variable-length column in its pages: large values lie in extents, page by page, and the pool
// has their pages side by side or in pieces.
//
//   auto body = row.large<&Document::body>();                // Result<LargeValue>
//   std::vector<std::byte> buffer;
//   auto bytes = body->span_or_copy(buffer);                 // always works
//   for (auto span : body->spans()) hash.update(span);       // never copies
//   if (!snapshot.valid()) … ;                               // only now are the bytes to be
//   believed
//
// Who:    the thread that holds the snapshot, as long as it holds it.
// Trust:  as with everything read in place: check snapshot.valid() after use, of the snapshot that
//         the row was read under. A row kept beyond it is refused (kInvalid) while its Reader holds
//         none; while it holds a newer one nobody notices, and that one's valid() says nothing of
//         the row: get it again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "clientlib/read.h"

namespace bidstore {

class LargeValue {
  public:
    std::uint32_t size() const { return size_bytes_; }
    // All bytes in order; one span when they lie side by side, none when there are no bytes.
    std::span<const std::span<const std::byte>> spans() const { return spans_; }
    bool contiguous() const { return spans_.size() <= 1; }
    // In place when they lie side by side, else copied into `buffer`.
    std::span<const std::byte> span_or_copy(std::vector<std::byte>& buffer) const;
    // `to` has room for size() bytes.
    void copy_to(std::byte* to) const;
    // Whether the bytes have the checksum that the row remembers; a short value has none of its
    // own, its page's was checked. Each page was checked when it came into the pool.
    bool intact() const;

  private:
    friend class LargeReader;
    std::vector<std::span<const std::byte>> spans_;
    std::uint32_t size_bytes_ = 0;
    std::optional<std::uint32_t> crc_;
};

// Brings all pages of a variable-length column in. Not an error: a short column; it gives one span.
Result<LargeValue> large_value(const RawRow& row, std::uint32_t column);
// The row with all its values, whole, checked against their checksums; believe it after valid().
// Where pages are missing, values are copied as these come, some at a time, so that nothing of them
// is in use during a wait. `before_wait`: what the caller does then, to let go of more; the row's
// own page is in use no more.
Result<RawCopy> whole_row(const RawRow& row, const std::function<void()>& before_wait = {});
// A copy of the row as its leaf has it: references, not values.
RawCopy stored_row(const RawRow& row);
// Appends those pages of the row's large values that are not in the pool, for who asks for them
// together with others: nothing to believe, whole_row() looks again.
void note_absent_pages(const RawRow& row, std::vector<PageId>& pages);

// The same for calls that cannot return a failure: an empty view then, and the snapshot is no
// longer valid; Snapshot::status() says why. The view lives as long as the snapshot.
std::span<const std::byte> large_view(const RawRow& row, std::uint32_t column);
// A row of zeros and empty columns then.
RawCopy whole_or_fail(const RawRow& row);

}  // namespace bidstore
