// Clients read the pool and never write to it: the bytes of a frame are constant.
// expect-error: read-only location
#include "shm/segment.h"

namespace bidstore {

void wrong(const PoolView& pool) { pool.frame(1)[0] = std::byte{1}; }

}  // namespace bidstore
