// Which user of the host gets which rights: the readers, writers and admins of the config, looked
// up once, and compared with the credentials that the kernel gives for a connection.
//
// Who:    the server thread; constant after resolve().
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

    using GroupsOf = std::vector<gid_t>(uid_t user, gid_t primary);
    // The connection's group, and the user's groups in the database; as long as that takes.
    static GroupsOf database_groups;

    // The most that a peer with these credentials may have, or nothing. The supplementary groups
    // are those of the user database at this moment, so a change there needs no restart. It is
    // asked only when a group is named that could give more than the credentials alone do: it may
    // hang, and with it the thread that feeds the watchdog.
    std::optional<Rights> granted(uid_t user, gid_t group,
                                  GroupsOf groups_of = database_groups) const;

  private:
    struct List {
        std::vector<uid_t> users;
        std::vector<gid_t> groups;
    };
    static Result<List> resolve_list(const char* setting, const std::vector<std::string>& names);
    static bool contains(const List& list, uid_t user, const std::vector<gid_t>& groups);
    std::optional<Rights> most(uid_t user, const std::vector<gid_t>& groups) const;
    // Whether a list that gives more than `known` names a group besides `group`.
    bool groups_may_give_more(std::optional<Rights> known, gid_t group) const;

    List readers_;
    List writers_;
    List admins_;
};

}  // namespace bidstore
