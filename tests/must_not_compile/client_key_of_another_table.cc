// The key of one table is not the key of another.
// expect-error: a key part does not have its column's type
#include "clientlib/bidstore.h"

struct Thing {
    std::uint64_t id = 0;
};
struct Other {
    std::uint64_t id = 0;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>("rows", keys(column<&Thing::id>("id")));
};
template <>
struct bidstore::Describe<Other> {
    static constexpr auto table = bidstore::table<Other>("others", keys(column<&Other::id>("id")));
};

auto read(const bidstore::Table<Thing>& rows, const bidstore::Table<Other>& others,
          const bidstore::Snapshot& snapshot) {
    return rows.get(snapshot, others.key(1u));
}
