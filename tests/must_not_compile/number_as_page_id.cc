// A bare number is not compared with a page id.
// expect-error: no match for
#include "shm/base.h"

namespace bidstore {

bool wrong(PageId page) { return page == 3u; }

}  // namespace bidstore
