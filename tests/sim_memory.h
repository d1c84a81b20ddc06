// Segments that the stores of a simulation use one after the other: fresh ones, whose pages the
// kernel maps and zeroes one at a time, are most of what a short life costs.
//
// Who:  one thread; it outlives the stores that use it.
// Rule: a store cannot tell a segment that was used before from a fresh one. Not for stores whose
//       clients write where no producer does (tests/fuzz_request.cc): that is not found again.
#pragma once

#include <vector>

#include "shm/segment.h"

namespace bidstore {

class SimMemory {
  public:
    // Of tests that make stores by the thousand.
    static SimMemory* of_process();

    PoolSegment take(const PoolShape& shape);
    void give_back(PoolSegment pool);
    ClientSegment take(const ClientShape& shape);
    void give_back(ClientSegment client);

  private:
    std::vector<PoolSegment> pools_;
    std::vector<ClientSegment> clients_;
};

}  // namespace bidstore
