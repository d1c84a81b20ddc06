// Clients read the page map and never store to it.
// expect-error: discards qualifiers
#include "shm/segment.h"

namespace bidstore {

void wrong(const PoolView& pool) { pool.page_map()[1].store(2, std::memory_order_release); }

}  // namespace bidstore
