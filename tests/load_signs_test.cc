// Signs of life of a load that sends no rows for long: from the tool while it reads and sorts, from
// others by TableLoad::keep_alive(). What the engine makes of them is silent_client_test's.
#include <gtest/gtest.h>

#include <fstream>

#include "clientlib/load.h"
#include "clientlib/load_rows.h"
#include "clientlib/tool_load.h"
#include "tests/client_fixture.h"

namespace bidstore {
namespace {

class LoadSigns : public ClientFixture {
  protected:
    static Schema schema() { return *Description<Item>::schema(); }
    // `count` rows of items, their keys falling.
    std::string rows_file(std::uint32_t count) {
        const auto header = rows_header(schema(), count, false);
        CHECK(header.ok());
        std::ofstream out(directory_.file("rows"), std::ios::binary);
        const auto append = [&](const void* bytes, std::size_t length) {
            out.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(length));
        };
        append(&*header, sizeof *header);
        for (std::uint32_t i = count; i > 0; --i) {
            const EncodedRow<Item> row(item(i));
            append(row.key().data(), row.key().size());
            append(row.value().data(), row.value().size());
        }
        return directory_.file("rows");
    }
    // Of the steps that came, those with rows, and those without any, before the first with some
    // and behind it.
    struct Steps {
        int signs_before = 0;
        int signs_behind = 0;
        int rows = 0;
    };
    Steps steps() {
        Steps seen;
        for (const LoadRequest& step : daemon_.load_steps()) {
            if (step.step != LoadStep::kRows) continue;
            if (step.rows > 0) {
                ++seen.rows;
            } else {
                ++(seen.rows == 0 ? seen.signs_before : seen.signs_behind);
            }
        }
        return seen;
    }
};

// Rows are sorted before the first of them is sent, and that may take longer than the ten minutes
// after which a load is given up for others.
TEST_F(LoadSigns, TheToolGivesThemWhileItSorts) {
    ToolOptions options;
    options.socket = socket_;
    LoadCommand command;
    command.table = "items";
    command.files = {rows_file(100)};
    command.temp_dir = "/var/tmp";
    ASSERT_LE(command.sign_of_life, std::chrono::minutes(1));
    ASSERT_EQ(load_files(options, command), 0);
    EXPECT_EQ(steps().signs_before, 0) << "of a load that takes no time";
    EXPECT_EQ(steps().rows, 1);
    command.sign_of_life = std::chrono::seconds(0);
    ASSERT_EQ(load_files(options, command), 0);
    EXPECT_EQ(steps().rows, 2);
    EXPECT_GT(steps().signs_behind, 0) << "behind those of the first load";
}

// One is under way at a time, however often it is called; and what is answered is told.
TEST_F(LoadSigns, OneIsUnderWayAtATime) {
    auto load = TableLoad::begin({.socket = socket_}, schema(), in(5s));
    ASSERT_TRUE(load.ok()) << load.failure().what;
    daemon_.answer_load(LoadStep::kRows, Error::kTimedOut);  // not at all
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(load->keep_alive(in(5s)).ok());
    EXPECT_LE(steps().signs_before, 1);
    daemon_.stop();
    Status status;
    const Deadline end = in(20s);
    while ((status = load->keep_alive(in(5s))).ok() && std::chrono::steady_clock::now() < end) {
        std::this_thread::yield();
    }
    EXPECT_EQ(status.error(), Error::kDisconnected);
}

TEST_F(LoadSigns, WhatBecameOfTheLoadIsTold) {
    auto load = TableLoad::begin({.socket = socket_}, schema(), in(5s));
    ASSERT_TRUE(load.ok()) << load.failure().what;
    daemon_.answer_load(LoadStep::kRows, Error::kNoSpace);
    Status status;
    const Deadline end = in(20s);
    while ((status = load->keep_alive(in(5s))).ok() && std::chrono::steady_clock::now() < end) {
        std::this_thread::yield();
    }
    EXPECT_EQ(status.error(), Error::kNoSpace);
}

}  // namespace
}  // namespace bidstore
