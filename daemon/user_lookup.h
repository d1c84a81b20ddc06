// Which groups a user is in, from the host's user database, asked on a thread of its own.
//
// Such a database may be a network away (LDAP, sssd): an answer takes as long as that likes, or
// never comes. So no thread that others wait for asks it.
//
// Who:     the server thread asks here; one thread asks the database and does nothing else.
// Waits:   nobody for it, not even the destructor: an answer that is on its way then is lost, and
//          the thread ends with it, or with the process. Who asked waits no longer than it likes.
// Fair:    a question of each user at most, in the order in which they were first asked. One that
//          nobody has asked again for forget_ns is not passed on.
// Bounds:  an answer is given out for kKeptNs, a failure as well; of kUsersMax users at most, those
//          who wait included. With so many waiting nobody else is asked for.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shm/error.h"
#include "shm/segment.h"

namespace bidstore {

class UserLookup {
  public:
    static constexpr std::uint64_t kKeptNs = 1'000'000'000;
    static constexpr std::size_t kUsersMax = 1024;

    using Groups = std::vector<gid_t>;
    using Database = std::function<Result<Groups>(uid_t user)>;
    // The host's. A user that it does not know is in no group; kIoError: it cannot say.
    static Result<Groups> host_database(uid_t user);

    // What one is told who waited in vain.
    static std::string late(uid_t user);

    // kIoError: the host gives no thread, or no descriptor. `forget_ns` is how long one who asked
    // waits at most.
    static Result<std::unique_ptr<UserLookup>> start(Database database, std::uint64_t forget_ns);
    ~UserLookup();
    UserLookup(const UserLookup&) = delete;
    UserLookup& operator=(const UserLookup&) = delete;

    // Nothing while the database is being asked: whoever waits asks again when there are answers.
    std::optional<Result<Groups>> groups_of(uid_t user);
    // Readable once an answer came; emptied by clear_descriptor(), before it is asked for.
    int descriptor() const;
    void clear_descriptor();

  private:
    struct State;
    explicit UserLookup(std::shared_ptr<State> state);
    std::shared_ptr<State> state_;
};

}  // namespace bidstore
