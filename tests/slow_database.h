// A user database for tests: it hangs, fails and answers as it is told.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "daemon/user_lookup.h"

namespace bidstore {

// A thread that hangs in it may outlive it, and goes on then.
class SlowDatabase {
  public:
    // The one that it says a user is in.
    static gid_t group_of(uid_t user) { return user + 1'000'000'000; }
    ~SlowDatabase() { let_go(); }
    UserLookup::Database database() {
        return [shared = state_](uid_t user) { return shared->answer(user); };
    }
    void hang() { set(state_->hangs, true); }
    void let_go() { set(state_->hangs, false); }
    void fail() { set(state_->fails, true); }
    std::vector<uid_t> asked() const {
        const std::lock_guard lock(state_->mutex);
        return state_->asked;
    }
    std::weak_ptr<void> life() const { return state_; }

  private:
    struct State {
        Result<UserLookup::Groups> answer(uid_t user) {
            std::unique_lock lock(mutex);
            asked.push_back(user);
            changed.wait(lock, [this] { return !hangs; });
            if (fails) return {Error::kIoError, "no server"};
            return UserLookup::Groups{group_of(user)};
        }
        std::mutex mutex;
        std::condition_variable changed;
        std::vector<uid_t> asked;
        bool hangs = false;
        bool fails = false;
    };
    void set(bool& what, bool value) {
        const std::lock_guard lock(state_->mutex);
        what = value;
        state_->changed.notify_all();
    }
    std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace bidstore
