// A row fits a page.
// expect-error: the fixed columns of a row must fit a page
#include "clientlib/bidstore.h"

struct Thing {
    std::uint64_t id = 0;
    bidstore::Bytes<2048> first;
    bidstore::Bytes<2048> second;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::id>("id")),
        values(column<&Thing::first>("first"), column<&Thing::second>("second")));
};

bidstore::Result<bidstore::Table<Thing>> open(bidstore::Store& store) {
    return store.open<Thing>(bidstore::Deadline{});
}
