// Column names are unique.
// expect-error: two columns have the same name
#include "clientlib/bidstore.h"

struct Thing {
    std::uint64_t id = 0;
    std::uint32_t count = 0;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::id>("id")), values(column<&Thing::count>("id")));
};

bidstore::Result<bidstore::Table<Thing>> open(bidstore::Store& store) {
    return store.open<Thing>(bidstore::Deadline{});
}
