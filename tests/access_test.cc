// Who gets which rights, and when the user database is asked for it.
#include "daemon/access.h"

#include <gtest/gtest.h>

namespace bidstore {
namespace {

constexpr uid_t kUser = 1'000'001;
constexpr gid_t kGroup = 1'000'002;

struct Case {
    std::vector<std::string> readers;
    std::vector<std::string> writers;
    std::vector<std::string> admins;
    std::optional<Rights> granted;
    bool asked;
};

// A database that hangs kept the thread that feeds the watchdog, for each new client, whatever the
// lists said; the daemon was killed for it, again and again.
TEST(AccessRules, DatabaseIsAskedOnlyWhenAGroupMayGiveMore) {
    const std::vector<std::string> user{"1000001"};
    const std::vector<std::string> own{"@1000002"};
    const std::vector<std::string> more{"@77"};
    const std::vector<std::string> strange{"@78"};
    const Case cases[] = {
        {{}, {}, {"root"}, std::nullopt, false},
        {user, {}, {"root"}, Rights::kReader, false},
        {more, user, {"root"}, Rights::kWriter, false},
        {more, own, {}, Rights::kWriter, false},
        {more, more, user, Rights::kAdmin, false},
        {more, {}, {"root"}, Rights::kReader, true},
        {user, more, {}, Rights::kWriter, true},
        {own, {}, strange, Rights::kReader, true},
        {{}, strange, {}, std::nullopt, true},
    };
    for (const Case& each : cases) {
        SCOPED_TRACE(&each - cases);
        Config config;
        config.readers = each.readers;
        config.writers = each.writers;
        config.admins = each.admins;
        const auto rules = AccessRules::resolve(config);
        ASSERT_TRUE(rules.ok()) << rules.failure().what;
        const auto known = rules->by_credentials(kUser, kGroup);
        EXPECT_EQ(known.groups_may_give_more, each.asked);
        // The user is in one more group.
        EXPECT_EQ(known.groups_may_give_more ? rules->granted(kUser, {kGroup, 77}) : known.rights,
                  each.granted);
    }
}

}  // namespace
}  // namespace bidstore
