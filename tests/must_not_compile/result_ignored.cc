// A failure is not ignored by accident: a Result that nobody looks at is refused.
// expect-error: nodiscard
#include "shm/error.h"

namespace bidstore {

Status attempt();

void wrong() { attempt(); }

}  // namespace bidstore
