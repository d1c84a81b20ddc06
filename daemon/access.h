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

    // The most that a peer with these credentials may have, or nothing. The supplementary groups
    // are those of the user database at this moment, so a change there needs no restart.
    std::optional<Rights> granted(uid_t user, gid_t group) const;

  private:
    struct List {
        std::vector<uid_t> users;
        std::vector<gid_t> groups;
    };
    static Result<List> resolve_list(const char* setting, const std::vector<std::string>& names);
    static bool contains(const List& list, uid_t user, const std::vector<gid_t>& groups);

    List readers_;
    List writers_;
    List admins_;
};

}  // namespace bidstore
