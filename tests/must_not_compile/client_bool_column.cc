// A bool has no width in the schema.
// expect-error: bool is not (use std::uint8_t)
#include "clientlib/bidstore.h"

struct Thing {
    std::uint64_t id = 0;
    bool won = false;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::id>("id")), values(column<&Thing::won>("won")));
};

bidstore::Result<bidstore::Table<Thing>> open(bidstore::Store& store) {
    return store.open<Thing>(bidstore::Deadline{});
}
