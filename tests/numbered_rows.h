// Rows with a number for a key, a sum and a text: of the tests that send records by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/page/key.h"
#include "engine/page/schema.h"

namespace bidstore {

inline Schema rows_schema() {
    auto schema = Schema::make(
        "rows",
        {{"id", ColumnType::kU64, 0}, {"n", ColumnType::kI64, 0}, {"t", ColumnType::kText, 0}}, 1);
    CHECK(schema.ok());
    return *schema;
}

inline std::vector<std::byte> key_of(std::uint64_t id) {
    std::vector<std::byte> key(8);
    encode_key_integer(key.data(), id, 8, false);
    return key;
}

}  // namespace bidstore
