// Which user of the host gets which rights: the readers, writers and admins of the config, looked
// up once, and compared with the credentials that the kernel gives for a connection.
//
// Who:    the server thread; constant after resolve(), which asks the user database at the start.
// Errors: kInvalid names the setting and the user or group that this host does not have.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "daemon/config.h"
#include "shm/error.h"
#include "shm/layout.h"

namespace bidstore {

class AccessRules {
  public:
    static Result<AccessRules> resolve(const Config& config);

    struct Grant {
        std::optional<Rights> rights;
        // A list that gives more names another group: the user database could tell whether the user
        // is in it (daemon/user_lookup.h).
        bool groups_may_give_more = false;
    };
    // The most that a peer with these credentials may have by them alone, or nothing.
    Grant by_credentials(uid_t user, gid_t group) const;
    // The same with all groups of the user.
    std::optional<Rights> granted(uid_t user, const std::vector<gid_t>& groups) const;

  private:
    struct List {
        std::vector<uid_t> users;
        std::vector<gid_t> groups;
    };
    static Result<List> resolve_list(const char* setting, const std::vector<std::string>& names);
    static bool contains(const List& list, uid_t user, const std::vector<gid_t>& groups);
    // Whether a list that gives more than `known` names a group besides `group`.
    bool groups_may_give_more(std::optional<Rights> known, gid_t group) const;

    List readers_;
    List writers_;
    List admins_;
};

}  // namespace bidstore
