// Column values as people type and read them.
//
//   integers, floats   decimal
//   timestamp          2012-01-11T00:00:00.064709Z, now, now-30s (us, ms, s, m, h, d), or a number
//                      in the table's time unit; printed in the first form, in JSON as number
//   fixed, bytes       hex; a uuid for fixed(16); text:abc for the bytes of abc
//   text               as it is
//
// Errors: kInvalid naming the column and what it wants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/page/schema.h"
#include "shm/error.h"

namespace bidstore {

// "column=value".
struct Assignment {
    std::uint32_t column = 0;
    std::string value;
};
Result<std::vector<Assignment>> parse_assignments(const Schema& schema,
                                                  std::span<const std::string> texts);

Status set_value(RowBuilder& row, const Schema& schema, const Assignment& assignment);

// All key columns, and no other, set in any order.
Result<std::vector<std::byte>> encode_key(const Schema& schema,
                                          std::span<const std::string> texts);
// "a=1,b=2": the first key columns, in any order; empty gives an empty prefix.
Result<std::vector<std::byte>> encode_prefix(const Schema& schema, std::string_view text);

// For people.
std::string value_text(const Schema& schema, std::uint32_t column, std::span<const std::byte> key,
                       std::span<const std::byte> value);
// A JSON number or string.
std::string value_json(const Schema& schema, std::uint32_t column, std::span<const std::byte> key,
                       std::span<const std::byte> value);
// The whole row as a JSON object.
std::string row_json(const Schema& schema, std::span<const std::byte> key,
                     std::span<const std::byte> value);

std::string time_text(std::uint64_t ticks, TimeUnit unit);
// `now_us`: microseconds since the epoch.
Result<std::uint64_t> parse_time(std::string_view text, TimeUnit unit, std::uint64_t now_us);

}  // namespace bidstore
