// Only integers can be added to.
// expect-error: add works on integer value columns
#include "clientlib/bidstore.h"

struct Thing {
    std::uint64_t id = 0;
    double sum = 0;
};

template <>
struct bidstore::Describe<Thing> {
    static constexpr auto table = bidstore::table<Thing>(
        "rows", keys(column<&Thing::id>("id")), values(column<&Thing::sum>("sum")));
};

void add(bidstore::Transaction& transaction, const bidstore::Table<Thing>& rows) {
    transaction.add<&Thing::sum>(rows, rows.key(1u), 1);
}
