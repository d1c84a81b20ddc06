#include "daemon/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace bidstore {
namespace {

// A configuration file that goes away with the test.
class ConfigTest : public testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/bidstore_config_XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        directory_ = name;
        file_ = directory_ + "/c.toml";
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }
    Result<Config> load(const std::string& text, const Overrides& overrides = {}) {
        std::ofstream(file_) << text;
        return load_config(file_, overrides);
    }
    // The message of the refusal, without the name of the file.
    std::string refusal(const std::string& text, const Overrides& overrides = {}) {
        const auto config = load(text, overrides);
        if (config.ok()) return "accepted";
        EXPECT_EQ(config.error(), Error::kInvalid);
        const std::string& what = config.failure().what;
        return what.starts_with(file_) ? what.substr(file_.size() + 1) : what;
    }
    std::string directory_;
    std::string file_;
};

const std::string kExample = std::string(BIDSTORE_SOURCE_DIR) + "/systemd/bidstored.toml";

TEST_F(ConfigTest, EmptyFileGivesTheDefaults) {
    const auto config = load("");
    ASSERT_TRUE(config.ok()) << config.failure().what;
    EXPECT_EQ(config->pool_bytes, 4ull << 30);
    EXPECT_EQ(config->journal_bytes, 256ull << 20);
    EXPECT_EQ(config->huge_pages, HugePages::kTry);
    EXPECT_EQ(config->admins, std::vector<std::string>{"root"});
}

// The example is the reference of the settings, so it has each of them, at its default.
TEST_F(ConfigTest, ExampleHasEverySettingAtItsDefault) {
    const auto example = load_config(kExample, {});
    ASSERT_TRUE(example.ok()) << example.failure().what;
    const auto defaults = load("");
    std::stringstream text;
    text << std::ifstream(kExample).rdbuf();
    for (const std::string& name : setting_names()) {
        EXPECT_NE(text.str().find("\n" + name + " = "), std::string::npos)
            << name << " is missing in systemd/bidstored.toml";
    }
    const EngineOptions a = engine_options(*example);
    const EngineOptions b = engine_options(*defaults);
    EXPECT_EQ(a.log_segment_bytes, b.log_segment_bytes);
    EXPECT_EQ(a.log_segment_count, b.log_segment_count);
    EXPECT_EQ(a.journal_bytes, b.journal_bytes);
    EXPECT_EQ(a.group_commit_bytes, b.group_commit_bytes);
    EXPECT_EQ(a.group_commit_interval_ns, b.group_commit_interval_ns);
    EXPECT_EQ(a.recovery_log_bytes, b.recovery_log_bytes);
    EXPECT_EQ(a.checkpoint_interval_ns, b.checkpoint_interval_ns);
    EXPECT_EQ(a.max_snapshot_age_ns, b.max_snapshot_age_ns);
    EXPECT_EQ(a.max_held_bytes, b.max_held_bytes);
    EXPECT_EQ(a.session_age_us, b.session_age_us);
    EXPECT_EQ(a.pin_recent_us, b.pin_recent_us);
    EXPECT_EQ(a.pin_recent_share, b.pin_recent_share);
    EXPECT_EQ(a.spin, b.spin);
    EXPECT_EQ(example->directory, defaults->directory);
    EXPECT_EQ(example->socket, defaults->socket);
    EXPECT_EQ(example->socket_mode, defaults->socket_mode);
    EXPECT_EQ(example->readers, defaults->readers);
    EXPECT_EQ(example->writers, defaults->writers);
    EXPECT_EQ(example->admins, defaults->admins);
    EXPECT_EQ(example->pool_bytes, defaults->pool_bytes);
    EXPECT_EQ(example->max_data_bytes, defaults->max_data_bytes);
    EXPECT_EQ(example->directory_bytes, defaults->directory_bytes);
    EXPECT_EQ(example->huge_pages, defaults->huge_pages);
    EXPECT_EQ(example->seal_pool_writes, defaults->seal_pool_writes);
    EXPECT_EQ(example->engine_cpu, defaults->engine_cpu);
    EXPECT_EQ(example->disk, defaults->disk);
    EXPECT_EQ(example->max_clients, defaults->max_clients);
    EXPECT_EQ(example->max_clients_per_user, defaults->max_clients_per_user);
    EXPECT_EQ(example->slots_per_client, defaults->slots_per_client);
    EXPECT_EQ(example->call_slots_per_client, defaults->call_slots_per_client);
    EXPECT_EQ(example->ring_bytes, defaults->ring_bytes);
    EXPECT_EQ(example->handshake_timeout_ns, defaults->handshake_timeout_ns);
    EXPECT_EQ(example->stop_timeout_ns, defaults->stop_timeout_ns);
}

TEST_F(ConfigTest, ReadsEveryKindOfSetting) {
    const auto config = load(
        "directory = '/srv/b'\nsocket_mode = '0640'\nreaders = ['alice', '@bidders', 1005]\n"
        "pool_bytes = '6GiB'\ngroup_commit_interval = '500us'\nengine_cpu = 3\n"
        "huge_pages = 'on'\nseal_pool_writes = true\nidle = 'spin'\ndisk = 'threads'\n");
    ASSERT_TRUE(config.ok()) << config.failure().what;
    EXPECT_EQ(config->directory, "/srv/b");
    EXPECT_EQ(config->socket_mode, 0640u);
    EXPECT_EQ(config->readers, (std::vector<std::string>{"alice", "@bidders", "1005"}));
    EXPECT_EQ(config->pool_bytes, 6ull << 30);
    EXPECT_EQ(config->group_commit_interval_ns, 500'000u);
    EXPECT_EQ(config->engine_cpu, 3);
    EXPECT_EQ(config->huge_pages, HugePages::kOn);
    EXPECT_TRUE(config->seal_pool_writes);
    EXPECT_TRUE(config->spin);
    EXPECT_EQ(config->disk, DiskKind::kThreads);
}

TEST_F(ConfigTest, UnknownSettingIsRefusedWithTheNearestKnownOne) {
    EXPECT_EQ(
        refusal("\npool_byte = '1GiB'\n"),
        "2: unknown setting \"pool_byte\"; the nearest known one is \"pool_bytes\" (all are in "
        "bidstored.toml, the example)");
    EXPECT_NE(refusal("chekpoint_intervall = '1s'").find("\"checkpoint_interval\""),
              std::string::npos);
}

TEST_F(ConfigTest, ImpossibleValuesAreRefusedWithTheRange) {
    EXPECT_EQ(refusal("pool_bytes = '1KiB'"),
              "1: pool_bytes = '1KiB': must be a size with B, KiB, MiB, GiB or TiB, from \"8MiB\" "
              "to \"4TiB\"");
    EXPECT_EQ(refusal("engine_cpu = -2"),
              "1: engine_cpu = -2: must be a whole number from -1 to 1023");
    EXPECT_EQ(refusal("huge_pages = 'maybe'"),
              "1: huge_pages = 'maybe': must be one of \"off\" \"try\" \"on\"");
    EXPECT_NE(refusal("max_snapshot_age = '5'").find("must be a duration"), std::string::npos);
    EXPECT_NE(refusal("max_snapshot_age = 5").find("must be a duration"), std::string::npos);
    EXPECT_NE(refusal("session_age = '59min'").find("from \"1h\""), std::string::npos);
    EXPECT_NE(refusal("pool_bytes = '1.5GiB'").find("must be a size"), std::string::npos);
    EXPECT_NE(refusal("pool_bytes = '99999999999TiB'").find("must be a size"), std::string::npos);
    EXPECT_NE(refusal("seal_pool_writes = 'yes'").find("true or false"), std::string::npos);
    EXPECT_NE(refusal("readers = 'alice'").find("a list of"), std::string::npos);
    EXPECT_NE(refusal("readers = ['']").find("a list of"), std::string::npos);
    EXPECT_NE(refusal("socket_mode = '0999'").find("octal"), std::string::npos);
    EXPECT_NE(refusal("socket_mode = 438").find("octal"), std::string::npos);
    EXPECT_NE(refusal("directory = ''").find("non-empty"), std::string::npos);
    EXPECT_NE(refusal("log_segment_count = 2").find("from 3 to 4096"), std::string::npos);
}

// What the least pool has unless it is told otherwise may also be set.
TEST_F(ConfigTest, LeastJournalIsThatOfTheLeastPool) {
    const auto config = load("pool_bytes = '8MiB'");
    ASSERT_TRUE(config.ok()) << config.failure().what;
    EXPECT_EQ(config->journal_bytes, 2ull << 20);
    EXPECT_TRUE(load("pool_bytes = '8MiB'\njournal_bytes = '2MiB'").ok());
    EXPECT_NE(refusal("journal_bytes = '1MiB'").find("from \"2MiB\""), std::string::npos);
}

TEST_F(ConfigTest, RelationsBetweenSettingsAreChecked) {
    EXPECT_NE(refusal("journal_bytes = '3GiB'").find("at most half of pool_bytes (4GiB)"),
              std::string::npos);
    EXPECT_NE(refusal("ring_bytes = '3MiB'").find("power of two"), std::string::npos);
    EXPECT_NE(refusal("pool_bytes = '10000001B'").find("multiple of a page"), std::string::npos);
    EXPECT_NE(refusal("group_commit_bytes = '8MiB'").find("log_segment_bytes (16MiB)"),
              std::string::npos);
    EXPECT_NE(refusal("recovery_log_bytes = '15MiB'").find("must be at least 16MiB"),
              std::string::npos);
    EXPECT_NE(refusal("log_segment_bytes = '2MiB'\nrecovery_log_bytes = '7MiB'").find("8MiB"),
              std::string::npos);
    EXPECT_NE(refusal("max_clients = 4096").find("= 524288: must be at most 65536"),
              std::string::npos);
    EXPECT_NE(refusal("checkpoint_interval = '10ms'\ngroup_commit_interval = '20ms'")
                  .find("must not be below group_commit_interval (20ms)"),
              std::string::npos);
    EXPECT_NE(refusal("socket = '/" + std::string(120, 'x') + "'").find("107 bytes"),
              std::string::npos);
}

TEST_F(ConfigTest, BrokenTomlIsRefusedWithItsLine) {
    EXPECT_EQ(refusal("engine_cpu = 1\npool_bytes = \n").find("2: not valid TOML"), 0u);
    EXPECT_EQ(refusal("engine_cpu = 1\nengine_cpu = 2\n").find("2: not valid TOML"), 0u);
}

TEST_F(ConfigTest, MissingFileIsNamed) {
    const auto config = load_config(directory_ + "/none.toml", {});
    ASSERT_FALSE(config.ok());
    EXPECT_EQ(config.failure().what.find(directory_ + "/none.toml: cannot be read: No such file"),
              0u);
}

TEST_F(ConfigTest, OverridesWinAndAreCheckedAlike) {
    const auto config =
        load("pool_bytes = '1GiB'\n",
             {"pool_bytes=512MiB", "engine_cpu=1", "readers=['a', 7]", "seal_pool_writes=true"});
    ASSERT_TRUE(config.ok()) << config.failure().what;
    EXPECT_EQ(config->pool_bytes, 512ull << 20);
    EXPECT_EQ(config->journal_bytes, 128ull << 20);
    EXPECT_EQ(config->engine_cpu, 1);
    EXPECT_EQ(config->readers, (std::vector<std::string>{"a", "7"}));
    EXPECT_TRUE(config->seal_pool_writes);
    EXPECT_EQ(refusal("", {"pool=1GiB"}).find("--set: unknown setting \"pool\""), 0u);
    EXPECT_NE(refusal("", {"engine_cpu=x"}).find("whole number"), std::string::npos);
    EXPECT_NE(refusal("", {"engine_cpu"}).find("must be key=value"), std::string::npos);
    EXPECT_NE(refusal("", {"=1"}).find("must be key=value"), std::string::npos);
    EXPECT_NE(refusal("", {"engine_cpu=1\nmax_clients=2"}), "accepted");
}

TEST_F(ConfigTest, DevKeepsEverythingInItsDirectory) {
    const auto config = dev_config("/tmp/x", {});
    ASSERT_TRUE(config.ok()) << config.failure().what;
    EXPECT_EQ(config->directory, "/tmp/x/data");
    EXPECT_EQ(config->socket, "/tmp/x/bidstore.sock");
    EXPECT_EQ(config->huge_pages, HugePages::kOff);
    EXPECT_TRUE(config->seal_pool_writes);
    EXPECT_EQ(config->pool_bytes, 256ull << 20);
    EXPECT_EQ(config->journal_bytes, 64ull << 20);
    const auto larger = dev_config("/tmp/x", {"pool_bytes=1GiB"});
    ASSERT_TRUE(larger.ok());
    EXPECT_EQ(larger->pool_bytes, 1ull << 30);
}

TEST_F(ConfigTest, PoolShapeCountsFramesPagesAndSlots) {
    const auto config =
        dev_config("/tmp/x", {"pool_bytes=16MiB", "max_data_bytes=64MiB", "max_clients=2"});
    ASSERT_TRUE(config.ok());
    const PoolShape shape = pool_shape(*config);
    EXPECT_EQ(shape.frame_count, 4097u);  // frame 0 is never used
    EXPECT_EQ(shape.page_count, 16384u);
    EXPECT_EQ(shape.slot_count, 256u);
    EXPECT_EQ(shape.directory_bytes, 1u << 20);  // a sixteenth of the pool
    const auto told = dev_config("/tmp/x", {"directory_bytes=8KiB"});
    ASSERT_TRUE(told.ok());
    EXPECT_EQ(pool_shape(*told).directory_bytes, 8u << 10);
}

}  // namespace
}  // namespace bidstore
