// Files of binary rows with a column of variable length, made of events.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "clientlib/load_rows.h"
#include "tests/real_store.h"

namespace bidstore {

inline void append_bytes(std::string& to, std::span<const std::byte> bytes) {
    to.append(static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size());
}

// As engine/page/row.h lays it out, behind its length and its key.
inline void append_event(std::string& to, const Event& event) {
    const EncodedRow<Event> row(event);
    CHECK(row.fits());
    const auto length = static_cast<std::uint32_t>(row.value().size());
    append_bytes(to, std::as_bytes(std::span(&length, 1)));
    append_bytes(to, row.key());
    append_bytes(to, row.value());
}

inline std::string event_header(std::uint64_t rows, std::uint64_t rows_bytes) {
    const auto header = rows_header(need(Description<Event>::schema()), rows, false, rows_bytes);
    CHECK(header.ok());
    std::string bytes;
    append_bytes(bytes, std::as_bytes(std::span(&*header, 1)));
    return bytes;
}

// Events of texts with these lengths, their times in the order of `times`.
inline std::string events_file(const std::vector<std::uint64_t>& times,
                               const std::vector<std::size_t>& lengths) {
    std::string rows;
    for (const std::uint64_t time : times) {
        const std::string text(lengths[time % lengths.size()], static_cast<char>('a' + time % 26));
        append_event(rows, {.time = time, .source = 7, .kind = 9, .text = text});
    }
    return event_header(times.size(), rows.size()) + rows;
}

}  // namespace bidstore
