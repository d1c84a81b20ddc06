// A key has at most 64 bytes.
// expect-error: the key columns together are at most 64 bytes
#include "clientlib/bidstore.h"

struct Thing {
    bidstore::Bytes<60> id;
    std::uint64_t time = 0;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::id>("id"), column<&Thing::time>("time")));
};

bidstore::Result<bidstore::Table<Thing>> open(bidstore::Store& store) {
    return store.open<Thing>(bidstore::Deadline{});
}
