// A float has no order of bytes that people would expect, so it cannot be part of a key.
// expect-error: float and double cannot be key columns
#include "clientlib/bidstore.h"

struct Thing {
    double price = 0;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::price>("price")));
};

bidstore::Result<bidstore::Table<Thing>> open(bidstore::Store& store) {
    return store.open<Thing>(bidstore::Deadline{});
}
