// Who gets which rights, and when the user database is asked for it.
#include "daemon/access.h"

#include <gtest/gtest.h>

namespace bidstore {
namespace {

constexpr uid_t kUser = 1'000'001;
constexpr gid_t kGroup = 1'000'002;

int asked = 0;

// A database in which the user is in one more group.
std::vector<gid_t> counted_groups(uid_t, gid_t primary) {
    ++asked;
    return {primary, 77};
}

struct Case {
    std::vector<std::string> readers;
    std::vector<std::string> writers;
    std::vector<std::string> admins;
    std::optional<Rights> granted;
    int asked;
};

// A database that hangs kept the thread that feeds the watchdog, for each new client, whatever the
// lists said; the daemon was killed for it, again and again.
TEST(AccessRules, DatabaseIsAskedOnlyWhenAGroupMayGiveMore) {
    const std::vector<std::string> user{"1000001"};
    const std::vector<std::string> own{"@1000002"};
    const std::vector<std::string> more{"@77"};
    const std::vector<std::string> strange{"@78"};
    const Case cases[] = {
        {{}, {}, {"root"}, std::nullopt, 0},
        {user, {}, {"root"}, Rights::kReader, 0},
        {more, user, {"root"}, Rights::kWriter, 0},
        {more, own, {}, Rights::kWriter, 0},
        {more, more, user, Rights::kAdmin, 0},
        {more, {}, {"root"}, Rights::kReader, 1},
        {user, more, {}, Rights::kWriter, 1},
        {own, {}, strange, Rights::kReader, 1},
        {{}, strange, {}, std::nullopt, 1},
    };
    for (const Case& each : cases) {
        SCOPED_TRACE(&each - cases);
        Config config;
        config.readers = each.readers;
        config.writers = each.writers;
        config.admins = each.admins;
        const auto rules = AccessRules::resolve(config);
        ASSERT_TRUE(rules.ok()) << rules.failure().what;
        asked = 0;
        EXPECT_EQ(rules->granted(kUser, kGroup, counted_groups), each.granted);
        EXPECT_EQ(asked, each.asked);
    }
}

}  // namespace
}  // namespace bidstore
