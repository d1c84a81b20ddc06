// Columns of variable length come last.
// expect-error: std::string_view columns come after all others
#include "clientlib/bidstore.h"

struct Thing {
    std::uint64_t id = 0;
    std::string_view name;
    std::uint32_t count = 0;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::id>("id")),
        values(column<&Thing::name>("name"), column<&Thing::count>("count")));
};

bidstore::Result<bidstore::Table<Thing>> open(bidstore::Store& store) {
    return store.open<Thing>(bidstore::Deadline{});
}
