// A segment has one owner: it is moved and never copied.
// expect-error: deleted function
#include "shm/segment.h"

namespace bidstore {

PoolSegment wrong(PoolSegment& pool) { return pool; }

}  // namespace bidstore
