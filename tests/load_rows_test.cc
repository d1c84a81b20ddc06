// Files of binary rows whose length varies: what they hold comes back, and what is wrong with one
// is said by the row.
#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <random>

#include "engine/page/row.h"
#include "tests/load_rows_fixture.h"

namespace bidstore {
namespace {

constexpr std::size_t kHeader = sizeof(RowsHeader);
constexpr std::size_t kKey = 12;
constexpr std::size_t kFirstEnd = kHeader + 4 + kKey + 4;  // of the first row's text

std::vector<std::uint64_t> numbers(std::uint64_t count) {
    std::vector<std::uint64_t> all(count);
    std::iota(all.begin(), all.end(), 0);
    return all;
}

class RowsOfAnyLength : public testing::Test {
  protected:
    // What the reader says of the file, or the number of its rows.
    std::string read(const std::string& content) {
        std::ofstream(work_.file("rows"), std::ios::binary) << content;
        auto file = RowsFile::open(work_.file("rows"), need(Description<Event>::schema()));
        if (!file.ok()) return file.failure().what;
        std::uint64_t taken = 0;
        for (;;) {
            auto rows = file->next();
            if (!rows.ok()) return rows.failure().what;
            if (rows->empty()) break;
            for (auto left = *rows; !left.empty(); ++taken) rows_.push_back(copy(left));
        }
        EXPECT_EQ(taken, file->rows_read());
        EXPECT_EQ(file->bytes_read(), file->bytes_total());
        return std::to_string(taken);
    }
    std::string copy(std::span<const std::byte>& rows) {
        const PackedRow row = take_row(need(Description<Event>::schema()), rows);
        std::string bytes;
        const auto length = static_cast<std::uint32_t>(row.value.size());
        append_bytes(bytes, std::as_bytes(std::span(&length, 1)));
        append_bytes(bytes, row.key);
        append_bytes(bytes, row.value);
        return bytes;
    }

    WorkDirectory work_;
    std::vector<std::string> rows_;
};

TEST_F(RowsOfAnyLength, ComeBackAsTheyAre) {
    EXPECT_EQ(read(events_file({}, {0})), "0");
    // On both sides of what fits a page, and longer than what the reader reads at once.
    const std::string file = events_file(
        numbers(90), {0, 1, 70, 4'005, 4'006, 4'007, 4'096, 60'000, kLargeValueBytesMax});
    rows_.clear();
    ASSERT_EQ(read(file), "90");
    EXPECT_EQ(std::accumulate(rows_.begin(), rows_.end(), std::string{}), file.substr(kHeader));
}

TEST_F(RowsOfAnyLength, WhatIsWrongIsSaidByTheRow) {
    const std::vector<std::size_t> lengths{20, 5'000, 0};
    const std::string good = events_file(numbers(30), lengths);
    ASSERT_EQ(read(good), "30");
    const std::string body = good.substr(kHeader);
    const auto with = [&](std::size_t at, std::uint64_t value, std::size_t bytes) {
        std::string changed = good;
        std::memcpy(&changed[at], &value, bytes);
        return changed;
    };
    const auto wide_twenty = [&] {
        std::string changed = good;
        std::string value(4, '\x09');
        const std::uint32_t end = 20, length = 4 + 2 + 4 + 20;
        value += "\xff\xff";
        append_bytes(value, std::as_bytes(std::span(&end, 1)));
        value.append(20, 'a');
        changed.replace(kFirstEnd - 4, 4 + 2 + 20, value);
        std::memcpy(&changed[kHeader], &length, 4);
        return event_header(30, body.size() + 4) + changed.substr(kHeader);
    };
    struct Case {
        const char* name;
        std::string file;
        const char* words;
    };
    const Case cases[] = {
        {"no length that a row has", with(kHeader, 0xffff'ffff, 4), "row 1 of 30 has a value of 4"},
        {"a byte too many", with(kHeader, 27, 4), "row 1 of 30 has a value of 27 bytes that is"},
        {"a byte too few", with(kHeader, 25, 4), "row 1 of 30 has a value of 25 bytes that is"},
        {"no value at all", with(kHeader, 0, 4), "row 1 of 30 has a value of 0 bytes that is"},
        {"an end outside the row", with(kFirstEnd, 21, 2), "row 1 of 30 "},
        {"a reference", with(kFirstEnd, 0x8014, 2), "row 1 of 30 "},
        {"wide without need", wide_twenty(), "row 1 of 30 "},
        {"more rows promised", event_header(31, body.size()) + body, "row 31 of 31 goes on behind"},
        {"fewer rows promised", event_header(29, body.size()) + body, "more bytes of rows than"},
        {"more bytes promised", event_header(30, body.size() + 1) + body, "promises"},
        {"cut short", good.substr(0, good.size() - 1), "promises"},
        {"longer", good + "x", "promises"},
        {"cut in its last row", event_header(30, body.size() - 1) + body.substr(0, body.size() - 1),
         "row 30 of 30 goes on behind"},
        {"not zero", with(60, 1, 4), "zeros"},
        {"of the other kind", with(20, 5, 4), "columns, key or time column differ"},
    };
    for (const Case& bad : cases) {
        SCOPED_TRACE(bad.name);
        const std::string said = read(bad.file);
        EXPECT_NE(said.find(bad.words), std::string::npos) << said;
    }
}

// Whatever bytes there are: an error, or as many rows as the header says.
TEST_F(RowsOfAnyLength, FlippedBytesNeverLeadOutside) {
    const std::string good = events_file(numbers(40), {0, 30, 4'500, 3});
    std::mt19937_64 random(1);
    for (int round = 0; round < 400; ++round) {
        std::string bad = good;
        for (int flips = 0; flips < 3; ++flips) {
            bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
        }
        const std::string said = read(bad);
        if (said == "40") continue;
        EXPECT_NE(said.find("rows"), std::string::npos) << said;
    }
}

}  // namespace
}  // namespace bidstore
