#include "engine/page/schema.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace bidstore {
namespace {

std::span<const std::byte> as_bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

std::string as_text(std::span<const std::byte> bytes) {
    std::string text(bytes.size(), '\0');
    if (!bytes.empty()) std::memcpy(text.data(), bytes.data(), bytes.size());
    return text;
}

Column column(std::string name, ColumnType type, std::uint16_t width = 0) {
    return Column{std::move(name), type, width};
}

Schema bids() {
    auto schema =
        Schema::make("bids",
                     {column("at", ColumnType::kTimestamp),
                      column("auction", ColumnType::kFixed, 16), column("price", ColumnType::kU32),
                      column("delta", ColumnType::kI16), column("score", ColumnType::kF64),
                      column("url", ColumnType::kText), column("raw", ColumnType::kBytes)},
                     2, 0);
    EXPECT_TRUE(schema.ok()) << schema.failure().what;
    return *schema;
}

void expect_refused(const Result<Schema>& schema, const std::string& words) {
    ASSERT_FALSE(schema.ok()) << "expected: " << words;
    EXPECT_EQ(schema.error(), Error::kInvalid);
    EXPECT_NE(schema.failure().what.find(words), std::string::npos) << schema.failure().what;
}

TEST(Schema, LaysKeyAndValueOutWithoutPadding) {
    const Schema schema = bids();
    EXPECT_EQ(schema.key_bytes(), 24u);
    EXPECT_EQ(schema.offset_bytes(0), 0u);
    EXPECT_EQ(schema.offset_bytes(1), 8u);
    EXPECT_EQ(schema.fixed_bytes(), 14u);
    EXPECT_EQ(schema.offset_bytes(2), 0u);
    EXPECT_EQ(schema.offset_bytes(3), 4u);
    EXPECT_EQ(schema.offset_bytes(4), 6u);
    EXPECT_EQ(schema.variable_columns(), 2u);
    EXPECT_EQ(schema.variable_index(5), 0u);
    EXPECT_EQ(schema.variable_index(6), 1u);
    EXPECT_EQ(schema.columns()[2].width_bytes, 4u);
    EXPECT_EQ(schema.find("url"), 5);
    EXPECT_EQ(schema.find("nothing"), -1);
}

TEST(Schema, BadDescriptionsAreRefusedByName) {
    const auto u64 = ColumnType::kU64;
    const auto make = [](std::vector<Column> columns, std::uint16_t keys = 1,
                         std::uint16_t time = kNoTimeColumn) {
        return Schema::make("t", std::move(columns), keys, time);
    };
    expect_refused(Schema::make("Users", {column("id", u64)}, 1), "table \"Users\"");
    expect_refused(Schema::make("", {column("id", u64)}, 1), "a name is");
    expect_refused(Schema::make(std::string(65, 'a'), {column("id", u64)}, 1), "a name is");
    expect_refused(make({}), "1 to 256 columns");
    expect_refused(make(std::vector<Column>(257, column("id", u64))), "1 to 256 columns");
    expect_refused(make({column("id", u64)}, 0), "key");
    expect_refused(make({column("id", u64)}, 2), "key");
    expect_refused(make({column("1d", u64)}), "column \"1d\"");
    expect_refused(make({column("id\n", u64)}), "column \"id?\"");
    expect_refused(make({column("id", u64), column("id", u64)}), "\"id\" is there twice");
    expect_refused(make({column("id", static_cast<ColumnType>(0))}), "unknown type");
    expect_refused(make({column("id", static_cast<ColumnType>(99))}), "unknown type");
    expect_refused(make({column("id", u64, 4)}), "u64 is 8 bytes wide, not 4");
    expect_refused(make({column("id", ColumnType::kFixed)}), "1 to 2048 wide, not 0");
    expect_refused(make({column("id", ColumnType::kFixed, 2049)}), "not 2049");
    expect_refused(make({column("id", ColumnType::kF32)}), "f32 cannot be part of a key");
    expect_refused(make({column("id", ColumnType::kText)}), "text cannot be part of a key");
    expect_refused(make({column("id", ColumnType::kFixed, 65)}), "at most 64");
    expect_refused(make({column("id", u64), column("a", ColumnType::kText), column("b", u64)}),
                   "column \"b\" has a fixed width");
    expect_refused(make({column("id", u64), column("a", ColumnType::kU32)}, 1, 1), "column \"a\"");
    expect_refused(make({column("id", u64)}, 1, 1), "time column");
    expect_refused(make({column("id", u64), column("a", ColumnType::kFixed, 2048),
                         column("b", ColumnType::kFixed, 2048)}),
                   "at least 4104 bytes");
}

TEST(Schema, EncodingComesBackEqual) {
    const Schema schema = bids();
    const auto again = Schema::decode(as_bytes(schema.encode()));
    ASSERT_TRUE(again.ok()) << again.failure().what;
    EXPECT_EQ(again->name(), "bids");
    EXPECT_EQ(again->columns(), schema.columns());
    EXPECT_EQ(again->key_columns(), 2);
    EXPECT_EQ(again->time_column(), 0);
    EXPECT_EQ(again->difference(schema), "");
    EXPECT_EQ(again->encode(), schema.encode());
}

TEST(Schema, CutAndExtendedEncodingsAreRefused) {
    const std::string whole = bids().encode();
    for (std::size_t length = 0; length < whole.size(); ++length) {
        EXPECT_FALSE(Schema::decode(as_bytes(whole.substr(0, length))).ok()) << length;
    }
    expect_refused(Schema::decode(as_bytes(whole + "x")), "left behind");
    std::string newer = whole;
    newer[0] = 2;
    expect_refused(Schema::decode(as_bytes(newer)), "version 2");
}

TEST(Schema, EncodingsOfNonsenseNeverCrash) {
    std::mt19937 random(7);
    const std::string whole = bids().encode();
    for (int i = 0; i < 20000; ++i) {
        std::string damaged = whole;
        for (int flips = 0; flips < 3; ++flips) {
            damaged[random() % damaged.size()] = static_cast<char>(random());
        }
        const auto schema = Schema::decode(as_bytes(damaged));
        if (!schema.ok()) continue;
        EXPECT_LE(schema->key_bytes(), kKeyBytesMax);
        EXPECT_EQ(schema->encode(), damaged);
    }
}

TEST(Schema, DifferenceNamesTheColumn) {
    const auto make = [](std::vector<Column> columns, std::uint16_t keys = 1,
                         std::uint16_t time = kNoTimeColumn,
                         TimeUnit unit = TimeUnit::kMicroseconds) {
        return *Schema::make("t", std::move(columns), keys, time, unit);
    };
    const Column id = column("id", ColumnType::kU64);
    const Column at = column("at", ColumnType::kU64);
    const Schema table = make({id, at});
    EXPECT_EQ(table.difference(make({id, at})), "");
    EXPECT_EQ(table.difference(*Schema::make("other", {id, at}, 1)), "");
    EXPECT_EQ(table.difference(make({id, column("on", ColumnType::kU64)})),
              "column 2 is \"at\" in the table, \"on\" in the program");
    EXPECT_EQ(table.difference(make({id, column("at", ColumnType::kFixed, 9)})),
              "column 2 \"at\" is u64 in the table, fixed(9) in the program");
    EXPECT_EQ(table.difference(make({id})), "column 2 \"at\" is only in the table");
    EXPECT_EQ(make({id}).difference(table), "column 2 \"at\" is only in the program");
    EXPECT_EQ(table.difference(make({id, at}, 2)),
              "column 2 \"at\" is part of the key only in the program");
    EXPECT_EQ(table.difference(make({id, at}, 1, 1)),
              "the time column is none in the table, \"at\" in the program");
    EXPECT_EQ(make({id, at}, 1, 1).difference(make({id, at}, 1, 1, TimeUnit::kNanoseconds)),
              "times are microseconds in the table, nanoseconds in the program");
}

TEST(Schema, KeyIntegersOrderAsBytes) {
    const std::int64_t values[] = {
        std::numeric_limits<std::int64_t>::min(), -300, -2, -1, 0, 1, 255, 256,
        std::numeric_limits<std::int64_t>::max()};
    std::string last;
    for (std::int64_t value : values) {
        std::byte key[8];
        encode_key_integer(key, static_cast<std::uint64_t>(value), 8, true);
        EXPECT_EQ(static_cast<std::int64_t>(decode_key_integer(key, 8, true)), value);
        const std::string text = as_text(key);
        EXPECT_LT(last, text) << value;
        last = text;
    }
}

TEST(Schema, KeyIntegersOfEveryWidthComeBack) {
    for (std::uint32_t width = 1; width <= 8; ++width) {
        const std::uint64_t mask = ~std::uint64_t{0} >> (64 - 8 * width);
        for (std::uint64_t value : {std::uint64_t{0}, std::uint64_t{0x80}, mask >> 1, mask}) {
            std::byte key[8];
            encode_key_integer(key, value & mask, width, false);
            EXPECT_EQ(decode_key_integer(key, width, false), value & mask);
        }
        for (std::int64_t value : {-128, -1, 0, 127}) {
            std::byte key[8];
            encode_key_integer(key, static_cast<std::uint64_t>(value), width, true);
            EXPECT_EQ(static_cast<std::int64_t>(decode_key_integer(key, width, true)), value);
        }
    }
}

TEST(Schema, BuiltRowComesApartAgain) {
    const Schema schema = bids();
    RowBuilder row(schema);
    ASSERT_TRUE(row.set_unsigned(0, 1'700'000'000'000'000).ok());
    ASSERT_TRUE(row.set_bytes(1, as_bytes("0123456789abcdef")).ok());
    ASSERT_TRUE(row.set_unsigned(2, 77).ok());
    ASSERT_TRUE(row.set_signed(3, -5).ok());
    ASSERT_TRUE(row.set_float(4, 2.5).ok());
    ASSERT_TRUE(row.set_bytes(5, as_bytes("ab")).ok());
    ASSERT_TRUE(row.set_bytes(6, as_bytes("xyz")).ok());
    const auto value = row.value();
    ASSERT_TRUE(value.ok());
    const std::byte* key = row.key().data();
    EXPECT_TRUE(schema.valid_value(*value));
    EXPECT_EQ(value->size(), 14u + 4 + 5);
    EXPECT_EQ(as_text(value->subspan(14)), std::string("\x02\x00\x05\x00"
                                                       "abxyz",
                                                       9));
    EXPECT_EQ(column_integer(schema, 0, key, *value), 1'700'000'000'000'000u);
    EXPECT_EQ(schema.time_of(key, *value), 1'700'000'000'000'000u);
    EXPECT_EQ(column_integer(schema, 2, key, *value), 77u);
    EXPECT_EQ(static_cast<std::int64_t>(column_integer(schema, 3, key, *value)), -5);
    EXPECT_EQ(as_text(column_bytes(schema, 1, key, *value)), "0123456789abcdef");
    EXPECT_EQ(as_text(column_bytes(schema, 5, key, *value)), "ab");
    EXPECT_EQ(as_text(column_bytes(schema, 6, key, *value)), "xyz");
    double score = 0;
    std::memcpy(&score, column_bytes(schema, 4, key, *value).data(), sizeof score);
    EXPECT_EQ(score, 2.5);
}

TEST(Schema, ClearedRowIsZerosAndEmpty) {
    const auto schema =
        *Schema::make("t",
                      {column("id", ColumnType::kI32), column("n", ColumnType::kI64),
                       column("s", ColumnType::kText)},
                      1);
    RowBuilder row(schema);
    ASSERT_TRUE(row.set_signed(0, -9).ok());
    ASSERT_TRUE(row.set_signed(1, -9).ok());
    ASSERT_TRUE(row.set_bytes(2, as_bytes("text")).ok());
    row.clear();
    const auto value = *row.value();
    EXPECT_EQ(column_integer(schema, 0, row.key().data(), value), 0u);
    EXPECT_EQ(column_integer(schema, 1, row.key().data(), value), 0u);
    EXPECT_TRUE(column_bytes(schema, 2, row.key().data(), value).empty());
    EXPECT_TRUE(schema.valid_value(value));
}

TEST(Schema, ValuesThatDoNotFitAreRefusedByName) {
    const auto schema =
        *Schema::make("t",
                      {column("id", ColumnType::kU8), column("a", ColumnType::kI8),
                       column("b", ColumnType::kU64), column("f", ColumnType::kF32),
                       column("x", ColumnType::kFixed, 3), column("s", ColumnType::kText)},
                      1);
    RowBuilder row(schema);
    EXPECT_TRUE(row.set_unsigned(0, 255).ok());
    EXPECT_EQ(row.set_unsigned(0, 256).error(), Error::kOutOfRange);
    EXPECT_EQ(row.set_signed(0, -1).error(), Error::kOutOfRange);
    EXPECT_TRUE(row.set_signed(1, -128).ok());
    EXPECT_EQ(row.set_signed(1, -129).error(), Error::kOutOfRange);
    EXPECT_EQ(row.set_signed(1, 128).error(), Error::kOutOfRange);
    EXPECT_EQ(row.set_unsigned(1, 128).error(), Error::kOutOfRange);
    EXPECT_TRUE(row.set_unsigned(2, ~0ull).ok());
    EXPECT_EQ(row.set_float(3, 1e300).error(), Error::kOutOfRange);
    EXPECT_TRUE(row.set_float(3, std::numeric_limits<double>::infinity()).ok());
    EXPECT_EQ(row.set_float(2, 1).error(), Error::kInvalid);
    EXPECT_EQ(row.set_unsigned(3, 1).error(), Error::kInvalid);
    EXPECT_EQ(row.set_bytes(4, as_bytes("ab")).error(), Error::kInvalid);
    EXPECT_EQ(row.set_bytes(2, as_bytes("ab")).error(), Error::kInvalid);
    EXPECT_EQ(row.set_unsigned(0, 256).failure().what, "column \"id\": 256 does not fit u8");
    const Status large = row.set_bytes(5, as_bytes(std::string(kLargeValueBytesMax + 1, 'x')));
    EXPECT_EQ(large.error(), Error::kTooLarge);
    EXPECT_NE(large.failure().what.find("1048576"), std::string::npos) << large.failure().what;
}

TEST(Schema, RowsOfAllSizesAreValidUpToTheLargestValue) {
    const auto schema =
        *Schema::make("t", {column("id", ColumnType::kU64), column("s", ColumnType::kText)}, 1);
    RowBuilder row(schema);
    const std::size_t longest = kRowBytesMax - 8 - 2;
    ASSERT_TRUE(row.set_bytes(1, as_bytes(std::string(longest, 'x'))).ok());
    ASSERT_TRUE(row.value().ok());
    EXPECT_TRUE(schema.valid_value(*row.value()));
    EXPECT_EQ(row.value()->size(), longest + 2);
    for (const std::size_t size : {longest + 1, std::size_t{70'000}, std::size_t{1} << 20}) {
        const std::string text(size, 'x');
        ASSERT_TRUE(row.set_bytes(1, as_bytes(text)).ok());
        ASSERT_TRUE(row.value().ok());
        EXPECT_TRUE(schema.valid_value(*row.value()));
        const auto found = column_bytes(schema, 1, row.key().data(), *row.value());
        EXPECT_TRUE(std::ranges::equal(found, as_bytes(text)));
    }
}

// References to all large columns have to fit the page.
TEST(Schema, RowOfVeryManyLargeColumnsIsRefused) {
    std::vector<Column> columns{column("id", ColumnType::kU64)};
    for (int i = 0; i < 60; ++i)
        columns.push_back(column("s" + std::to_string(i), ColumnType::kText));
    const auto schema = *Schema::make("t", columns, 1);
    RowBuilder row(schema);
    const std::string text(5'000, 'x');
    for (std::uint32_t i = 1; i <= 54; ++i) ASSERT_TRUE(row.set_bytes(i, as_bytes(text)).ok());
    EXPECT_TRUE(row.value().ok());
    ASSERT_TRUE(row.set_bytes(55, as_bytes(text)).ok());
    EXPECT_EQ(row.value().error(), Error::kTooLarge);
}

TEST(Schema, WrongValuesAreFoundOut) {
    const Schema schema = bids();
    std::string value(14, '\0');
    EXPECT_FALSE(schema.valid_value(as_bytes(value)));
    value += std::string(
        "\x02\x00\x05\x00"
        "abxyz",
        9);
    EXPECT_TRUE(schema.valid_value(as_bytes(value)));
    EXPECT_FALSE(schema.valid_value(as_bytes(value + "!")));
    EXPECT_FALSE(schema.valid_value(as_bytes(value.substr(0, value.size() - 1))));
    std::string falling = value;
    falling[14] = 6;
    EXPECT_FALSE(schema.valid_value(as_bytes(falling)));
    const auto fixed = *Schema::make("t", {column("id", ColumnType::kU64)}, 1);
    EXPECT_TRUE(fixed.valid_value({}));
    EXPECT_FALSE(fixed.valid_value(as_bytes("x")));
}

TEST(Schema, ColumnsOfGarbageStayInsideTheValue) {
    const Schema schema = bids();
    std::mt19937 random(11);
    const std::vector<std::byte> key(24);
    for (int i = 0; i < 20000; ++i) {
        std::vector<std::byte> value(random() % 40);
        for (std::byte& byte : value) byte = static_cast<std::byte>(random() % 48);
        for (std::uint32_t column = 2; column < schema.columns().size(); ++column) {
            const auto bytes = column_bytes(schema, column, key.data(), value);
            if (bytes.empty()) continue;
            EXPECT_GE(bytes.data(), value.data());
            EXPECT_LE(bytes.data() + bytes.size(), value.data() + value.size());
            column_integer(schema, column, key.data(), value);
        }
    }
}

}  // namespace
}  // namespace bidstore
