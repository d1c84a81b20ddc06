#include "daemon/access.h"

#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <charconv>

namespace bidstore {
namespace {

std::optional<std::uint32_t> as_number(const std::string& text) {
    std::uint32_t number = 0;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || rest != end) return std::nullopt;
    return number;
}

std::optional<uid_t> find_user(const std::string& name) {
    if (const auto number = as_number(name)) return number;
    const passwd* entry = getpwnam(name.c_str());
    if (entry == nullptr) return std::nullopt;
    return entry->pw_uid;
}

std::optional<gid_t> find_group(const std::string& name) {
    if (const auto number = as_number(name)) return number;
    const group* entry = getgrnam(name.c_str());
    if (entry == nullptr) return std::nullopt;
    return entry->gr_gid;
}

}  // namespace

Result<AccessRules::List> AccessRules::resolve_list(const char* setting,
                                                    const std::vector<std::string>& names) {
    List list;
    for (const std::string& name : names) {
        const bool is_group = name.starts_with('@');
        if (is_group) {
            const auto found = find_group(name.substr(1));
            if (found) list.groups.push_back(*found);
            if (found) continue;
        } else if (const auto found = find_user(name)) {
            list.users.push_back(*found);
            continue;
        }
        return {Error::kInvalid, std::string(setting) + ": this host has no " +
                                     (is_group ? "group" : "user") + " \"" + name +
                                     "\": make it, or take it out of the list"};
    }
    return list;
}

Result<AccessRules> AccessRules::resolve(const Config& config) {
    AccessRules rules;
    auto readers = resolve_list("readers", config.readers);
    if (!readers) return readers.failure();
    auto writers = resolve_list("writers", config.writers);
    if (!writers) return writers.failure();
    auto admins = resolve_list("admins", config.admins);
    if (!admins) return admins.failure();
    rules.readers_ = *readers;
    rules.writers_ = *writers;
    rules.admins_ = *admins;
    return rules;
}

bool AccessRules::contains(const List& list, uid_t user, const std::vector<gid_t>& groups) {
    if (std::find(list.users.begin(), list.users.end(), user) != list.users.end()) return true;
    return std::find_first_of(list.groups.begin(), list.groups.end(), groups.begin(),
                              groups.end()) != list.groups.end();
}

std::optional<Rights> AccessRules::granted(uid_t user, const std::vector<gid_t>& groups) const {
    if (contains(admins_, user, groups)) return Rights::kAdmin;
    if (contains(writers_, user, groups)) return Rights::kWriter;
    if (contains(readers_, user, groups)) return Rights::kReader;
    return std::nullopt;
}

bool AccessRules::groups_may_give_more(std::optional<Rights> known, gid_t group) const {
    const auto names_others = [&](const List& list, Rights rights) {
        return (!known || *known < rights) &&
               std::any_of(list.groups.begin(), list.groups.end(),
                           [&](gid_t named) { return named != group; });
    };
    return names_others(admins_, Rights::kAdmin) || names_others(writers_, Rights::kWriter) ||
           names_others(readers_, Rights::kReader);
}

AccessRules::Grant AccessRules::by_credentials(uid_t user, gid_t group) const {
    const auto rights = granted(user, {group});
    return {rights, groups_may_give_more(rights, group)};
}

}  // namespace bidstore
