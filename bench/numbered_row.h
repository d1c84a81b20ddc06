// The row of benchmarks that need no more of it than a number and 256 bytes.
//
// Who: the benchmarks alone.
#pragma once

#include <cstdint>

#include "clientlib/bidstore.h"

namespace bench {

struct Row {
    std::uint64_t number = 0;
    bidstore::Bytes<256> value;
};

}  // namespace bench

template <>
struct bidstore::Describe<bench::Row> {
    using Row = bench::Row;
    static constexpr auto table = bidstore::table<Row>("rows", keys(column<&Row::number>("number")),
                                                       values(column<&Row::value>("value")));
};
