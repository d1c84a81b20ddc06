// A place in the pool is not a place in the file: a FrameId is no PageId.
// expect-error: could not convert
#include "shm/base.h"

namespace bidstore {

std::uint64_t file_offset(PageId page) { return std::uint64_t{page.value} * kPageBytes; }

std::uint64_t wrong(FrameId frame) { return file_offset(frame); }

}  // namespace bidstore
