#include "engine/page/leaf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/leaf_edit.h"
#include "engine/page/schema.h"
#include "engine/page/search.h"

namespace bidstore {
namespace {

struct alignas(kPageBytes) Page {
    std::byte bytes[kPageBytes]{};
};

std::span<const std::byte> as_bytes(const std::string& text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

std::string as_text(const std::byte* from, std::size_t length) {
    std::string text(length, '\0');
    if (length > 0) std::memcpy(text.data(), from, length);
    return text;
}

std::string as_text(std::span<const std::byte> bytes) {
    return as_text(bytes.data(), bytes.size());
}

// Key and value of one table: `value_bytes` in fixed columns, or variable-length bytes.
Schema make_schema(std::uint32_t key_bytes, std::uint32_t value_bytes, bool variable) {
    std::vector<Column> columns{{"k", ColumnType::kFixed, static_cast<std::uint16_t>(key_bytes)}};
    for (std::uint32_t left = value_bytes, i = 0; left > 0; ++i) {
        const std::uint32_t width = std::min(left, 2048u);
        columns.push_back(
            {"v" + std::to_string(i), ColumnType::kFixed, static_cast<std::uint16_t>(width)});
        left -= width;
    }
    if (variable) columns.push_back({"text", ColumnType::kText, 0});
    auto schema = Schema::make("t", columns, 1);
    EXPECT_TRUE(schema.ok()) << schema.failure().what;
    return *schema;
}

struct Leaf {
    explicit Leaf(const Schema& table_schema)
        : schema(table_schema), layout(LeafLayout::of(schema)) {
        edit().init();
    }
    LeafEdit edit() { return LeafEdit(page->bytes, layout, schema); }
    LeafView view() const { return LeafView(page->bytes, layout); }

    Schema schema;
    LeafLayout layout;
    std::unique_ptr<Page> page = std::make_unique<Page>();
};

std::string random_text(std::mt19937& random, std::size_t length, unsigned letters = 256) {
    std::string text(length, '\0');
    for (char& c : text) c = static_cast<char>(random() % letters);
    return text;
}

void expect_equal(const Leaf& leaf, const std::map<std::string, std::string>& model) {
    const LeafView view = leaf.view();
    ASSERT_EQ(view.count(), model.size());
    std::uint32_t row = 0;
    for (const auto& [key, value] : model) {
        ASSERT_EQ(as_text(view.key(row), key.size()), key);
        ASSERT_EQ(as_text(view.value(row)), value);
        ASSERT_EQ(view.find(as_bytes(key).data()), static_cast<int>(row));
        ++row;
    }
}

TEST(LeafLayout, PacksRowsOfSixteenAndTwoHundredFiftySixBytes) {
    const LeafLayout layout = LeafLayout::of(make_schema(16, 256, false));
    EXPECT_EQ(layout.capacity, 14u);
    EXPECT_EQ(layout.values_offset, 64u + 14 * 16);
}

TEST(LeafLayout, EveryWidthHasAtLeastOneRowAndStaysInThePage) {
    for (std::uint32_t key = 1; key <= kKeyBytesMax; ++key) {
        for (std::uint32_t value = 0; key + value <= kRowBytesMax; value += value < 40 ? 1 : 61) {
            const LeafLayout layout = LeafLayout::fixed(key, value);
            ASSERT_GE(layout.capacity, 1u);
            ASSERT_EQ(layout.values_offset % 8, 0u);
            ASSERT_GE(layout.values_offset, kPageHeaderBytes + layout.capacity * key);
            ASSERT_LE(layout.values_offset + layout.capacity * value, kPageBytes);
            // One more row would not fit.
            const std::uint64_t more = layout.capacity + 1;
            ASSERT_GT(align_up(more * key, 8) + more * value, kPayloadBytes);
        }
        ASSERT_EQ(LeafLayout::fixed(key, kRowBytesMax - key).capacity, 1u);
        ASSERT_GE(LeafLayout::variable_length(key).capacity, 59u);
    }
}

class LeafModel : public ::testing::TestWithParam<std::tuple<int, int, bool>> {};

TEST_P(LeafModel, RandomEditsMatchAMap) {
    const auto [key_bytes, value_bytes, variable] = GetParam();
    std::mt19937 random(20240 + static_cast<unsigned>(key_bytes));
    Leaf leaf(make_schema(static_cast<std::uint32_t>(key_bytes),
                          static_cast<std::uint32_t>(value_bytes), variable));
    std::map<std::string, std::string> model;
    const auto fresh_value = [&random, size = static_cast<std::size_t>(value_bytes),
                              longer = variable] {
        return random_text(random, longer ? size + random() % 600 : size);
    };
    for (int round = 0; round < 4000; ++round) {
        const std::string key = random_text(random, static_cast<std::size_t>(key_bytes), 6);
        const std::byte* key_at = as_bytes(key).data();
        LeafEdit edit = leaf.edit();
        const std::uint32_t row = leaf.view().lower_bound(key_at);
        ASSERT_EQ(row,
                  static_cast<std::uint32_t>(std::distance(model.begin(), model.lower_bound(key))));
        const bool found = model.contains(key);
        ASSERT_EQ(leaf.view().find(key_at) >= 0, found);
        const std::string value = fresh_value();
        if (found && random() % 2 == 0) {
            edit.erase(row, row + 1);
            model.erase(key);
        } else if (found && edit.fits_replacing(row, value.size())) {
            edit.replace(row, as_bytes(value));
            model[key] = value;
        } else if (!found && edit.fits(value.size())) {
            edit.insert(row, key_at, as_bytes(value));
            model[key] = value;
        } else if (!found && random() % 8 == 0) {
            const auto first = static_cast<std::uint32_t>(random() % (edit.count() + 1));
            const auto last =
                first + static_cast<std::uint32_t>(random() % (edit.count() + 1 - first));
            edit.erase(first, last);
            model.erase(std::next(model.begin(), first), std::next(model.begin(), last));
        }
        ASSERT_EQ(leaf_layout_fault(leaf.page->bytes, leaf.layout), nullptr) << "round " << round;
        if (round % 32 == 0) {
            ASSERT_NO_FATAL_FAILURE(expect_equal(leaf, model)) << "round " << round;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Widths, LeafModel,
                         ::testing::Values(std::tuple{1, 0, false}, std::tuple{4, 8, false},
                                           std::tuple{8, 40, false}, std::tuple{16, 256, false},
                                           std::tuple{17, 3, false}, std::tuple{64, 100, false},
                                           std::tuple{8, 1900, false}, std::tuple{16, 4008, false},
                                           std::tuple{1, 0, true}, std::tuple{8, 12, true},
                                           std::tuple{16, 0, true}, std::tuple{64, 0, true}));

TEST(Leaf, LongestRowFitsAnEmptyLeafOfEitherKind) {
    Leaf variable(make_schema(16, 0, true));
    const std::string value(kRowBytesMax - 16, 'x');
    const std::string key(16, 'k');
    ASSERT_TRUE(variable.edit().fits(value.size()));
    variable.edit().insert(0, as_bytes(key).data(), as_bytes(value));
    EXPECT_EQ(as_text(variable.view().value(0)), value);
    EXPECT_FALSE(variable.edit().fits(0));
    Leaf fixed(make_schema(16, kRowBytesMax - 16, false));
    ASSERT_TRUE(fixed.edit().fits(value.size()));
    fixed.edit().insert(0, as_bytes(key).data(), as_bytes(value));
    EXPECT_EQ(as_text(fixed.view().value(0)), value);
    EXPECT_FALSE(fixed.edit().fits(value.size()));
}

TEST(Leaf, HolesOfErasedRowsAreUsedAgain) {
    Leaf leaf(make_schema(4, 0, true));
    const std::string value(900, 'v');
    for (char c = 'a'; c < 'e'; ++c) {
        const std::string key(4, c);
        leaf.edit().insert(leaf.view().count(), as_bytes(key).data(), as_bytes(value));
    }
    EXPECT_FALSE(leaf.edit().fits(900));
    leaf.edit().erase(1, 3);
    // Neither hole is large enough alone.
    const std::string longer(1700, 'w');
    ASSERT_TRUE(leaf.edit().fits(longer.size()));
    leaf.edit().insert(1, as_bytes("bbbb").data(), as_bytes(longer));
    expect_equal(leaf, {{"aaaa", value}, {"bbbb", longer}, {"dddd", value}});
}

Schema timed_schema() {
    return *Schema::make("t", {{"k", ColumnType::kU64, 0}, {"at", ColumnType::kTimestamp, 0}}, 1,
                         1);
}

void insert_timed(Leaf& leaf, std::uint64_t id, std::uint64_t time) {
    RowBuilder row(leaf.schema);
    ASSERT_TRUE(row.set_unsigned(0, id).ok());
    ASSERT_TRUE(row.set_unsigned(1, time).ok());
    const auto value = *row.value();
    const std::uint32_t at = leaf.view().lower_bound(row.key().data());
    if (leaf.view().find(row.key().data()) >= 0) return leaf.edit().replace(at, value);
    leaf.edit().insert(at, row.key().data(), value);
}

TEST(Leaf, TimeBoundsFollowInsertsReplacementsAndMoves) {
    Leaf leaf(timed_schema());
    EXPECT_EQ(leaf.view().time_max(), 0u);
    insert_timed(leaf, 1, 500);
    EXPECT_EQ(leaf.view().time_min(), 500u);
    EXPECT_EQ(leaf.view().time_max(), 500u);
    insert_timed(leaf, 2, 700);
    insert_timed(leaf, 3, 300);
    insert_timed(leaf, 1, 900);
    EXPECT_EQ(leaf.view().time_min(), 300u);
    EXPECT_EQ(leaf.view().time_max(), 900u);
    leaf.edit().erase(0, 1);
    EXPECT_EQ(leaf.view().time_max(), 900u);  // may be wider than the rows that are left
    leaf.edit().refresh_times();
    EXPECT_EQ(leaf.view().time_max(), 700u);
    Leaf other(timed_schema());
    other.edit().append(leaf.view(), 1, 2);
    EXPECT_EQ(other.view().time_min(), 300u);
    EXPECT_EQ(other.view().time_max(), 300u);
    leaf.edit().erase(0, 2);
    EXPECT_EQ(leaf.view().time_min(), 0u);
    EXPECT_EQ(leaf.view().time_max(), 0u);
}

// ---- splits -------------------------------------------------------------------------------------

using Place = LeafSplit::Place;

LeafSplit split_of(const Leaf& leaf, const std::string& key, std::size_t value_bytes) {
    const std::byte* at = as_bytes(key).data();
    return plan_split(leaf.view(), leaf.layout, leaf.view().lower_bound(at), at, value_bytes);
}

void fill(Leaf& leaf, const std::vector<std::string>& keys, std::size_t value_bytes) {
    const std::string value(value_bytes, 'v');
    for (const std::string& key : keys) {
        const std::byte* at = as_bytes(key).data();
        leaf.edit().insert(leaf.view().lower_bound(at), at, as_bytes(value));
    }
}

TEST(LeafSplit, InsertAtTheEndGoesRightAlone) {
    Leaf leaf(make_schema(1, 400, false));
    fill(leaf, {"b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}, 400);
    const LeafSplit split = split_of(leaf, "x", 400);
    EXPECT_EQ(split.first_right, 10u);
    EXPECT_EQ(split.place, Place::kRight);
}

TEST(LeafSplit, InsertAtTheBeginningStaysLeftAlone) {
    Leaf leaf(make_schema(1, 400, false));
    fill(leaf, {"b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}, 400);
    const LeafSplit split = split_of(leaf, "a", 400);
    EXPECT_EQ(split.first_right, 0u);
    EXPECT_EQ(split.place, Place::kLeft);
}

TEST(LeafSplit, InsertElsewhereCutsInTheMiddle) {
    Leaf leaf(make_schema(1, 400, false));
    fill(leaf, {"b", "d", "f", "h", "j", "l", "n", "p", "r", "t"}, 400);
    EXPECT_EQ(split_of(leaf, "c", 400).first_right, 4u);
    EXPECT_EQ(split_of(leaf, "c", 400).place, Place::kLeft);
    EXPECT_EQ(split_of(leaf, "s", 400).first_right, 5u);
    EXPECT_EQ(split_of(leaf, "s", 400).place, Place::kRight);
}

TEST(LeafSplit, CutsBehindTheEndOfAnEntitysRun) {
    Leaf leaf(make_schema(8, 400, false));
    fill(leaf,
         {"aaaa0001", "aaaa0002", "aaaa0003", "aaaa0004", "bbbb0001", "bbbb0002", "bbbb0003",
          "bbbb0004", "bbbb0005"},
         400);
    const LeafSplit split = split_of(leaf, "aaaa0005", 400);
    EXPECT_EQ(split.first_right, 4u);
    EXPECT_EQ(split.place, Place::kLeft);
}

TEST(LeafSplit, LongRowBetweenLongRowsGetsALeafOfItsOwn) {
    Leaf leaf(make_schema(1, 0, true));
    fill(leaf, {"a", "c"}, 1990);
    const LeafSplit split = split_of(leaf, "b", 4000);
    EXPECT_EQ(split.first_right, 1u);
    EXPECT_EQ(split.place, Place::kBetween);
}

// ---- garbage ------------------------------------------------------------------------------------

void read_everything(const std::byte* page, const LeafLayout& layout, std::mt19937& random) {
    const LeafView view(page, layout);
    ASSERT_LE(view.count(), layout.capacity);
    const std::string key = random_text(random, layout.key_bytes);
    ASSERT_LE(view.lower_bound(as_bytes(key).data()), view.count());
    ASSERT_LT(view.find(as_bytes(key).data()), static_cast<int>(view.count()));
    unsigned sum = 0;
    for (std::uint32_t row = 0; row < view.count(); ++row) {
        const std::byte* at = view.key(row);
        ASSERT_GE(at, page);
        ASSERT_LE(at + layout.key_bytes, page + kPageBytes);
        const auto value = view.value(row);
        ASSERT_GE(value.data(), page);
        ASSERT_LE(value.data() + value.size(), page + kPageBytes);
        for (std::byte byte : value) sum += std::to_integer<unsigned>(byte);
    }
    tree_level(page, TableId{sum});
}

// A page between others, as frames lie in the pool.
struct Among {
    static constexpr std::size_t kBeside = 1u << 16;  // as far as a u16 may lead
    static constexpr std::byte kUntouched{0x5a};

    void become(const std::byte* page) { std::memcpy(this->page(), page, kPageBytes); }
    std::byte* page() { return bytes.data() + kBeside; }
    // By memcmp: a loop over 128 KiB would be most of the test, without an optimizer.
    bool only_the_page_changed() const {
        return std::memcmp(bytes.data(), untouched.data(), kBeside) == 0 &&
               std::memcmp(bytes.data() + kBeside + kPageBytes, untouched.data(), kBeside) == 0;
    }

    std::vector<std::byte> bytes = std::vector(kBeside + kPageBytes + kBeside, kUntouched);
    const std::vector<std::byte> untouched = std::vector(kBeside, kUntouched);
};

// One change as a tree makes it, of a row with that key.
void change(LeafEdit& edit, const LeafLayout& layout, const Schema& schema,
            const std::string& key, const std::string& value) {
    const std::byte* key_at = as_bytes(key).data();
    const std::uint32_t row = edit.view().lower_bound(key_at);
    const bool found = edit.view().find(key_at) >= 0;
    if (found && edit.fits_replacing(row, value.size())) {
        return edit.replace(row, as_bytes(value));
    }
    if (found) edit.erase(row, row + 1);
    if (edit.fits(value.size())) return edit.insert(row, key_at, as_bytes(value));
    const LeafSplit split = plan_split(edit.view(), layout, row, key_at, value.size());
    Page right_page;
    LeafEdit right(right_page.bytes, layout, schema);
    right.init();
    right.append(edit.view(), split.first_right, edit.count());
    edit.erase(split.first_right, edit.count());
    edit.refresh_times();
}

// The fuzzer of recoveries found a slot of nonsense, under a right checksum, that ended the daemon
// in the middle of a split. A free offset of nonsense had a row written beside its page.
TEST(LeafLayoutFault, WhatHasNoneIsChangedWithinItsPage) {
    std::mt19937 random(5);
    for (const bool variable : {true, false}) {
        std::uint32_t without = 0;
        Leaf leaf(make_schema(8, variable ? 0 : 12, variable));
        for (std::uint32_t i = 0; i < 40; ++i) {
            const std::string key = random_text(random, 8);
            leaf.edit().insert(leaf.view().lower_bound(as_bytes(key).data()),
                               as_bytes(key).data(),
                               as_bytes(random_text(random, variable ? random() % 90 : 12)));
        }
        Among among;
        for (int round = 0; round < 20'000; ++round) {
            among.become(leaf.page->bytes);
            for (auto flips = 1 + random() % 3; flips > 0; --flips) {
                const std::size_t near = random() % 2 == 0 ? 24 : kPageHeaderBytes;
                among.page()[near + random() % 24] = static_cast<std::byte>(random() % 256);
            }
            if (leaf_layout_fault(among.page(), leaf.layout) != nullptr) continue;
            ++without;
            LeafEdit edit(among.page(), leaf.layout, leaf.schema);
            for (int i = 0; i < 8; ++i) {
                const std::size_t length = variable ? random() % 1500 : 12;
                change(edit, leaf.layout, leaf.schema, random_text(random, 8),
                       random_text(random, length));
            }
            ASSERT_TRUE(among.only_the_page_changed()) << "round " << round;
        }
        EXPECT_GT(without, 1000u);
    }
}

TEST(LeafLayoutFault, NamesWhatIsWrong) {
    Leaf leaf(make_schema(8, 0, true));
    for (const std::string key : {"aaaaaaaa", "bbbbbbbb", "cccccccc"}) {
        leaf.edit().insert(leaf.view().count(), as_bytes(key).data(),
                           as_bytes(std::string(100, 'v')));
    }
    const auto fault_with = [&](std::size_t offset, std::uint16_t value) {
        Page page = *leaf.page;
        std::memcpy(page.bytes + offset, &value, sizeof value);
        const char* fault = leaf_layout_fault(page.bytes, leaf.layout);
        return std::string(fault == nullptr ? "" : fault);
    };
    const std::size_t count = offsetof(PageHeader, count);
    const std::size_t free_offset = offsetof(PageHeader, free_offset);
    const std::size_t slot = kPageHeaderBytes;  // offset, then length
    const std::uint16_t slots_end = kPageHeaderBytes + 3 * kSlotBytes;
    EXPECT_EQ(fault_with(count, 3), "");
    EXPECT_EQ(fault_with(count, 0xffff), "a leaf has too many rows");
    EXPECT_EQ(fault_with(free_offset, slots_end - 1),
              "a leaf's free offset is inside its slots or outside the page");
    EXPECT_EQ(fault_with(free_offset, kPageBytes + 1),
              "a leaf's free offset is inside its slots or outside the page");
    EXPECT_EQ(fault_with(slot, slots_end), "a slot points outside the row content");
    EXPECT_EQ(fault_with(slot, kPageBytes - 107), "a slot points outside the row content");
    EXPECT_EQ(fault_with(slot + 2, 7), "a slot points outside the row content");
    EXPECT_EQ(fault_with(slot + 2, 107), "a leaf's live bytes are not its rows'");
    EXPECT_EQ(fault_with(slot + kSlotBytes + 2, 109), "two rows overlap");
    EXPECT_EQ(fault_with(offsetof(PageHeader, live_bytes), 0),
              "a leaf's live bytes are not its rows'");
}

TEST(Leaf, ViewsOfRandomBytesStayInsideThePage) {
    std::mt19937 random(3);
    const LeafLayout layouts[] = {LeafLayout::fixed(1, 0),        LeafLayout::fixed(16, 256),
                                  LeafLayout::fixed(17, 3),       LeafLayout::fixed(64, 3960),
                                  LeafLayout::variable_length(1), LeafLayout::variable_length(16),
                                  LeafLayout::variable_length(64)};
    auto page = std::make_unique<Page>();
    for (int round = 0; round < 150; ++round) {
        for (std::byte& byte : page->bytes) byte = static_cast<std::byte>(random());
        if (round % 3 == 1) std::memset(page->bytes, 0xff, kPageBytes);
        if (round % 3 == 2) std::memset(page->bytes + kPageHeaderBytes, 0, kPayloadBytes);
        for (const LeafLayout& layout : layouts) {
            ASSERT_NO_FATAL_FAILURE(read_everything(page->bytes, layout, random));
        }
    }
}

TEST(Leaf, EveryHeaderFieldOfNonsenseIsHarmless) {
    std::mt19937 random(4);
    Leaf leaf(make_schema(8, 12, true));
    while (leaf.edit().fits(40)) {
        const std::string key = random_text(random, 8);
        const std::byte* at = as_bytes(key).data();
        if (leaf.view().find(at) >= 0) continue;
        leaf.edit().insert(leaf.view().lower_bound(at), at, as_bytes(std::string(40, 'v')));
    }
    for (std::size_t offset = 0; offset + 2 <= kPageHeaderBytes + 64; offset += 2) {
        for (int value : {0, 1, 0x7fff, 0x8000, 0xffff, 4095, 4096, 4097}) {
            const auto nonsense = static_cast<std::uint16_t>(value);
            std::uint16_t kept = 0;
            std::memcpy(&kept, leaf.page->bytes + offset, 2);
            std::memcpy(leaf.page->bytes + offset, &nonsense, 2);
            ASSERT_NO_FATAL_FAILURE(read_everything(leaf.page->bytes, leaf.layout, random));
            std::memcpy(leaf.page->bytes + offset, &kept, 2);
        }
    }
}

}  // namespace
}  // namespace bidstore
