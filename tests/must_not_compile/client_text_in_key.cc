// Keys have a fixed width.
// expect-error: key columns have a fixed width
#include "clientlib/bidstore.h"

struct Thing {
    std::string_view name;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::name>("name")));
};

bidstore::Result<bidstore::Table<Thing>> open(bidstore::Store& store) {
    return store.open<Thing>(bidstore::Deadline{});
}
