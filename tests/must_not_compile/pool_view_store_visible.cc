// Clients read the published state; only the daemon's segment can change it.
// expect-error: discards qualifiers
#include "shm/segment.h"

namespace bidstore {

void wrong(const PoolView& pool) { pool.published().visible.store(7); }

}  // namespace bidstore
