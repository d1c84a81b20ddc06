// What a run of the simulation found wrong, and what the faults of the run excuse.
#pragma once

#include <string>

#include "shm/error.h"

namespace bidstore {

// The first thing counts; what follows from it does not.
class Findings {
  public:
    void report(const std::string& what) {
        if (first_.empty()) first_ = what;
    }
    bool any() const { return !first_.empty(); }
    const std::string& first() const { return first_; }

  private:
    std::string first_;
};

// An error is an answer as well, where there is a reason for it. A wrong row never is.
struct Excuses {
    bool damage = false;         // pages may be unreadable, or read back wrong
    bool damage_before = false;  // the same, under a daemon that is gone
    bool full = false;           // there may be no room in the file

    // `sent_before`: an earlier daemon may have refused it, and a refusal is for good.
    bool cover(Error error, bool sent_before = false) const {
        if (error == Error::kCorruption || error == Error::kIoError) {
            return damage || (sent_before && damage_before);
        }
        return full && (error == Error::kNoSpace || error == Error::kReadOnly);
    }
    // The device is well again, and a new daemon has never seen it otherwise.
    void end_damage() {
        damage_before |= damage;
        damage = false;
    }
};

}  // namespace bidstore
