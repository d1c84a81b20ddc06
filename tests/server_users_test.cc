// Who is let in, and when, while the host's user database answers late, badly or never.
#include <gtest/gtest.h>

#include "tests/server_fixture.h"
#include "tests/slow_database.h"

namespace bidstore {
namespace {

// Whose user is a writer, and an admin only by the word of a user database.
class UserDatabaseTest : public ServerTest {
  protected:
    void SetUp() override {
        ServerTest::SetUp();
        config_.admins = {"@" + std::to_string(SlowDatabase::group_of(geteuid()))};
        config_.writers = {std::to_string(geteuid())};
        options_.user_database = database_.database();
        admin_.rights = static_cast<std::uint32_t>(Rights::kAdmin);
    }
    std::unique_ptr<RawClient> ask() {
        auto client = std::make_unique<RawClient>(options_.socket);
        client->send(admin_);
        return client;
    }
    // None of it waits for the user database.
    void expect_others_served() {
        RawClient writer(options_.socket);
        EXPECT_EQ(handshake(writer, good_hello()).error(), Error::kOk);
    }
    SlowDatabase database_;
    Hello admin_ = good_hello();
};

TEST_F(UserDatabaseTest, OneThatAnswersLateIsWaitedForWhileOthersAreServed) {
    database_.hang();
    start();
    auto admin = ask();
    auto second = ask();
    auto leaves = ask();
    auto talks = ask();
    ASSERT_TRUE(run_until([&] { return database_.asked().size() == 1; }));
    expect_others_served();
    talks->send(admin_);
    leaves->hang_up();
    ASSERT_TRUE(run_until([&] { return server_->connection_count() == 2; }));
    EXPECT_FALSE(admin->readable());
    database_.let_go();
    EXPECT_EQ(answer_to(*admin).error(), Error::kOk);
    EXPECT_EQ(answer_to(*second).error(), Error::kOk);
    EXPECT_EQ(engine_->seen().back().rights, Rights::kAdmin);
}

// It hung the thread that feeds the watchdog, and the daemon was killed for it.
TEST_F(UserDatabaseTest, OneThatHangsIsNamedAtTheDeadlineAndNoLongerWaitedFor) {
    database_.hang();
    options_.handshake_timeout_ns = 4'000'000'000;
    start();
    for (int i = 0; i < 2; ++i) {
        auto admin = ask();
        const Greeting answer = answer_to(*admin);
        EXPECT_EQ(answer.error(), Error::kTimedOut);
        const std::string message = answer.welcome.message;
        EXPECT_NE(message.find("user database"), std::string::npos) << message;
        EXPECT_TRUE(message.ends_with("in the daemon's config")) << message;
        expect_others_served();
    }
    // Nor by the end of the server.
    const std::uint64_t begin_ns = now_ns();
    engine_.reset();
    server_.reset();
    EXPECT_LT(now_ns() - begin_ns, 5'000'000'000u);
}

TEST_F(UserDatabaseTest, WhoWaitsForItMakesPlaceForOthers) {
    database_.hang();
    options_.handshake_timeout_ns = 60'000'000'000;
    start();
    std::vector<std::unique_ptr<RawClient>> waiting;
    for (int i = 0; i < 100; ++i) waiting.push_back(ask());
    expect_others_served();
    EXPECT_EQ(waiting.front()->receive().error(), Error::kTimedOut);
}

TEST_F(UserDatabaseTest, OneThatFailsIsNamed) {
    database_.fail();
    start();
    auto admin = ask();
    const Greeting answer = answer_to(*admin);
    EXPECT_EQ(answer.error(), Error::kIoError);
    EXPECT_STREQ(answer.welcome.message, "no server");
    expect_others_served();
}

}  // namespace
}  // namespace bidstore
