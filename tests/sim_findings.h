// What a run of the simulation found wrong, and what the faults of the run excuse.
#pragma once

#include <cstdint>
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
    bool unreadable = false;         // reads or writes fail: what is read is right
    bool damage = false;             // pages may read back wrong
    bool unreadable_before = false;  // it was so, and is over
    bool damage_before = false;      // the same, under a daemon that is gone
    bool full = false;               // there may be no room in the file
    std::uint32_t times_over = 0;    // that `unreadable` was

    // `decided_before`: it may have been refused then, and a refusal is for good.
    bool cover(Error error, bool decided_before = false) const {
        switch (error) {
            case Error::kIoError:
                return unreadable || (decided_before && unreadable_before);
            case Error::kCorruption:
                return damage || (decided_before && damage_before);
            case Error::kNoSpace:
            case Error::kReadOnly:
                return full;
            default:
                return false;
        }
    }
    // Who only reads needs no room in the file.
    bool cover_read(Error error) const {
        return error != Error::kNoSpace && error != Error::kReadOnly && cover(error);
    }
    // Of what takes many steps, and began when times_over was so many.
    bool cover_since(std::uint32_t began, Error error) const {
        return cover(error, error == Error::kIoError && began != times_over);
    }
    // Reads do not fail any more, and nobody remembers that they did.
    void end_unreadable() {
        times_over += unreadable;
        unreadable_before |= unreadable;
        unreadable = false;
    }
    // The device is well again, and a new daemon has never seen it otherwise.
    void end_damage() {
        end_unreadable();
        damage_before |= damage;
        damage = false;
    }
};

}  // namespace bidstore
