// What a user database that hangs, fails or is slow does to those who ask it, and to nobody else.
#include "daemon/user_lookup.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pwd.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/processes.h"
#include "tests/slow_database.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kLongNs = 600'000'000'000;

class UserLookupTest : public testing::Test {
  protected:
    void start(std::uint64_t forget_ns = kLongNs) {
        auto started = UserLookup::start(database_.database(), forget_ns);
        ASSERT_TRUE(started.ok()) << started.failure().what;
        lookup_ = std::move(*started);
    }
    bool eventually_asked(std::size_t times) {
        return eventually([&] { return database_.asked().size() >= times; });
    }
    bool told(int wait_ms) {
        pollfd entry{.fd = lookup_->descriptor(), .events = POLLIN, .revents = 0};
        return poll(&entry, 1, wait_ms) == 1;
    }
    // As the server waits.
    std::optional<Result<UserLookup::Groups>> wait_for(uid_t user) {
        for (;;) {
            auto groups = lookup_->groups_of(user);
            if (groups || !told(30'000)) return groups;
            lookup_->clear_descriptor();
        }
    }

    SlowDatabase database_;
    std::unique_ptr<UserLookup> lookup_;
};

TEST_F(UserLookupTest, AnswersAreToldOfAndGivenOutForASecond) {
    start();
    EXPECT_FALSE(lookup_->groups_of(5));
    EXPECT_TRUE(told(30'000));
    const auto groups = lookup_->groups_of(5);
    ASSERT_TRUE(groups && groups->ok());
    EXPECT_EQ(**groups, UserLookup::Groups{SlowDatabase::group_of(5)});
    lookup_->clear_descriptor();
    EXPECT_FALSE(told(0));
    std::this_thread::sleep_for(std::chrono::nanoseconds(UserLookup::kKeptNs));
    EXPECT_FALSE(lookup_->groups_of(5));
    EXPECT_TRUE(wait_for(5));
    EXPECT_EQ(database_.asked().size(), 2u);
}

TEST_F(UserLookupTest, AFailureIsAnAnswer) {
    start();
    database_.fail();
    const auto groups = wait_for(1);
    ASSERT_TRUE(groups);
    EXPECT_EQ(groups->error(), Error::kIoError);
}

TEST_F(UserLookupTest, EachUserIsAskedForOnceAndInTurn) {
    database_.hang();
    start();
    for (int round = 0; round < 3; ++round) {
        for (uid_t user = 10; user < 110; ++user) EXPECT_FALSE(lookup_->groups_of(user));
    }
    database_.let_go();
    for (uid_t user = 10; user < 110; ++user) {
        const auto groups = wait_for(user);
        ASSERT_TRUE(groups && groups->ok()) << user;
        EXPECT_EQ((*groups)->front(), SlowDatabase::group_of(user));
    }
    const auto asked = database_.asked();
    ASSERT_GE(asked.size(), 100u);
    for (uid_t user = 10; user < 110; ++user) EXPECT_EQ(asked[user - 10], user);
}

TEST_F(UserLookupTest, WhileItHangsQuestionsAreBoundedAndThoseNobodyWaitsForAreNotAsked) {
    database_.hang();
    start(4'000'000'000);
    EXPECT_FALSE(lookup_->groups_of(1));
    ASSERT_TRUE(eventually_asked(1));
    const auto users = static_cast<uid_t>(3 * UserLookup::kUsersMax);
    for (uid_t user = 1; user <= users; ++user) EXPECT_FALSE(lookup_->groups_of(user));
    std::this_thread::sleep_for(std::chrono::milliseconds(4'100));
    EXPECT_FALSE(lookup_->groups_of(3));          // somebody still waits for this one
    EXPECT_FALSE(lookup_->groups_of(users - 1));  // and for this, which found no place
    database_.let_go();
    EXPECT_TRUE(wait_for(3));
    EXPECT_TRUE(wait_for(users));
    EXPECT_EQ(database_.asked(), (std::vector<uid_t>{1, 3, users}));
}

TEST_F(UserLookupTest, AnswersThatAreKeptAreBounded) {
    start();
    const auto users = static_cast<uid_t>(UserLookup::kUsersMax + 10);
    for (uid_t user = 8; user < 8 + users; ++user) ASSERT_TRUE(wait_for(user)) << user;
}

TEST_F(UserLookupTest, ItsEndWaitsForNothingAndItsThreadEndsWithTheAnswer) {
    database_.hang();
    start();
    EXPECT_FALSE(lookup_->groups_of(1));
    EXPECT_FALSE(lookup_->groups_of(2));
    ASSERT_TRUE(eventually_asked(1));
    const auto begin = std::chrono::steady_clock::now();
    lookup_.reset();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
    std::weak_ptr<void> life = database_.life();
    EXPECT_EQ(life.use_count(), 2);
    database_.let_go();
    EXPECT_TRUE(eventually([&] { return life.use_count() == 1; }));
    EXPECT_EQ(database_.asked().size(), 1u);
}

TEST(HostDatabase, KnowsTheGroupsOfAUserAndNoneOfOneThatIsNotThere) {
    const passwd* root = getpwuid(0);
    ASSERT_NE(root, nullptr);
    gid_t expected[256];
    int count = 256;
    ASSERT_GE(getgrouplist(root->pw_name, 4'000'000'000, expected, &count), 0);
    const auto groups = UserLookup::host_database(0);
    ASSERT_TRUE(groups.ok()) << groups.failure().what;
    EXPECT_EQ(*groups, UserLookup::Groups(expected + 1, expected + count));
    const auto none = UserLookup::host_database(3'999'999'999);
    ASSERT_TRUE(none.ok()) << none.failure().what;
    EXPECT_TRUE(none->empty());
}

}  // namespace
}  // namespace bidstore
