// A point read needs the whole key.
// expect-error: a key has as many parts as the table has key columns
#include "clientlib/bidstore.h"

struct Thing {
    std::uint64_t id = 0;
    std::uint64_t time = 0;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::id>("id"), column<&Thing::time>("time")));
};

auto read(const bidstore::Table<Thing>& rows, const bidstore::Snapshot& snapshot) {
    return rows.get(snapshot, 1u);
}
