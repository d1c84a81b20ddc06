// What a run of the simulation found wrong, and what the faults of the run excuse.
#pragma once

#include <string>
#include <utility>

#include "shm/error.h"

namespace bidstore {

// The first thing counts; what follows from it does not.
class Findings {
  public:
    void report(std::string what) {
        if (first_.empty()) first_ = std::move(what);
    }
    bool any() const { return !first_.empty(); }
    const std::string& first() const { return first_; }

  private:
    std::string first_;
};

// An error is an answer as well, where there is a reason for it. A wrong row never is.
struct Excuses {
    bool damage = false;  // pages may be unreadable, or read back wrong
    bool full = false;    // there may be no room in the file

    bool cover(Error error) const {
        if (error == Error::kCorruption || error == Error::kIoError) return damage;
        return full && (error == Error::kNoSpace || error == Error::kReadOnly);
    }
};

}  // namespace bidstore
