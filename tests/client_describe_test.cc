// Descriptions: what a struct becomes as a table, checked at compile time where that is the
//               promise.

#include "clientlib/row_codec.h"

#include <gtest/gtest.h>

#include "clientlib/catalog_row.h"
#include "engine/page/catalog_schema.h"

namespace {

enum class Exchange : std::uint8_t { kAdx = 1, kContextWeb = 2 };

struct Bid {
    std::uint64_t time = 0;
    bidstore::Bytes<16> auction;
    std::uint32_t price = 0;
    std::int16_t shift = 0;
    Exchange exchange = Exchange::kAdx;
    double rate = 0;
    float share = 0;
    std::string_view url;
    std::string_view raw;
    int not_a_column = 7;
};

struct Cell {
    std::int32_t x = 0;
    std::int8_t y = 0;
    std::uint16_t z = 0;
    std::int64_t count = 0;
};

}  // namespace

template <>
struct bidstore::Describe<Bid> {
    static constexpr auto table = bidstore::table<Bid>(
        "bids", keys(column<&Bid::time>("time", timestamp), column<&Bid::auction>("auction")),
        values(column<&Bid::price>("price"), column<&Bid::shift>("shift"),
               column<&Bid::exchange>("exchange"), column<&Bid::rate>("rate"),
               column<&Bid::share>("share"), column<&Bid::url>("url"),
               column<&Bid::raw>("raw", bytes)),
        time_column("time"));
};

template <>
struct bidstore::Describe<Cell> {
    static constexpr auto table = bidstore::table<Cell>(
        "cells",
        keys(column<&Cell::x>("x"), column<&Cell::y>("y"), column<&Cell::z>("z")),
        values(column<&Cell::count>("count")));
};

namespace bidstore {
namespace {

static_assert(Description<Bid>::checked());
static_assert(Description<Bid>::kKeyBytes == 24);
static_assert(Description<Bid>::kFixedBytes == 4 + 2 + 1 + 8 + 4);
static_assert(Description<Bid>::kVariableColumns == 2);
static_assert(Description<Bid>::kTextOffset == 19 + 4);
static_assert(std::is_same_v<Copy<Cell>, Cell>);
static_assert(std::is_base_of_v<Bid, Copy<Bid>>);
static_assert(!std::is_copy_constructible_v<Copy<Bid>>);
static_assert(Description<Bid>::index<&Bid::url>() == 7);
static_assert(Description<Bid>::is_counter<&Bid::price>());
static_assert(!Description<Bid>::is_counter<&Bid::rate>());
static_assert(!Description<Bid>::is_counter<&Bid::time>());

std::string hex(std::span<const std::byte> from) {
    std::string text;
    for (std::byte b : from) {
        text += "0123456789abcdef"[std::to_integer<unsigned>(b) >> 4];
        text += "0123456789abcdef"[std::to_integer<unsigned>(b) & 15];
    }
    return text;
}

Bid example() {
    Bid bid;
    bid.time = 0x0102030405060708;
    for (std::uint8_t i = 0; i < 16; ++i) bid.auction.data[i] = i;
    bid.price = 0x11223344;
    bid.shift = -2;
    bid.exchange = Exchange::kContextWeb;
    bid.rate = 0.25;
    bid.share = 1.5f;
    bid.url = "ab";
    bid.raw = std::string_view("x\0z", 3);
    return bid;
}

TEST(Describe, KeysAreOrderPreserving) {
    EXPECT_EQ(hex(Key<Bid>::of(example()).span()),
              "0102030405060708000102030405060708090a0b0c0d0e0f");
    EXPECT_EQ(hex(Key<Cell>::from(-1, -128, 3).span()), "7fffffff000003");
    EXPECT_EQ(hex(Key<Cell>::from(1, 127, 0xabcd).span()), "80000001ffabcd");
}

TEST(Describe, ValuesAreLaidOutAsTheSchemaSays) {
    const EncodedRow<Bid> row(example());
    ASSERT_TRUE(row.fits());
    EXPECT_EQ(hex(row.value()),
              "44332211"          // price
              "feff"              // shift
              "02"                // exchange
              "000000000000d03f"  // rate
              "0000c03f"          // share
              "02000500"          // ends
              "6162"
              "78007a");
}

// The engine's own row builder and this one agree, byte for byte.
TEST(Describe, AgreesWithRowBuilder) {
    Result<Schema> schema = Description<Bid>::schema();
    ASSERT_TRUE(schema.ok()) << schema.failure().what;
    const Bid bid = example();
    RowBuilder builder(*schema);
    ASSERT_TRUE(builder.set_unsigned(0, bid.time).ok());
    ASSERT_TRUE(builder.set_bytes(1, std::as_bytes(std::span(bid.auction.data))).ok());
    ASSERT_TRUE(builder.set_unsigned(2, bid.price).ok());
    ASSERT_TRUE(builder.set_signed(3, bid.shift).ok());
    ASSERT_TRUE(builder.set_unsigned(4, 2).ok());
    ASSERT_TRUE(builder.set_float(5, bid.rate).ok());
    ASSERT_TRUE(builder.set_float(6, 1.5).ok());
    ASSERT_TRUE(builder.set_bytes(7, std::as_bytes(std::span(bid.url))).ok());
    ASSERT_TRUE(builder.set_bytes(8, std::as_bytes(std::span(bid.raw))).ok());
    const EncodedRow<Bid> row(bid);
    EXPECT_EQ(hex(builder.key()), hex(row.key()));
    auto value = builder.value();
    ASSERT_TRUE(value.ok());
    EXPECT_EQ(hex(*value), hex(row.value()));
    EXPECT_TRUE(schema->valid_value(row.value()));
}

TEST(Describe, RowsComeBackAsTheyWent) {
    const EncodedRow<Bid> row(example());
    Copy<Bid> copy = Description<Bid>::copy(row.key(), row.value());
    const Copy<Bid> moved = std::move(copy);
    EXPECT_EQ(moved.time, example().time);
    EXPECT_EQ(moved.auction, example().auction);
    EXPECT_EQ(moved.price, example().price);
    EXPECT_EQ(moved.shift, -2);
    EXPECT_EQ(moved.exchange, Exchange::kContextWeb);
    EXPECT_EQ(moved.rate, 0.25);
    EXPECT_EQ(moved.share, 1.5f);
    EXPECT_EQ(moved.url, "ab");
    EXPECT_EQ(moved.raw, std::string_view("x\0z", 3));
    EXPECT_EQ(moved.not_a_column, 7);

    const EncodedRow<Cell> cell(Cell{-5, -6, 7, -8});
    const Cell back = Description<Cell>::copy(cell.key(), cell.value());
    EXPECT_EQ(back.x, -5);
    EXPECT_EQ(back.y, -6);
    EXPECT_EQ(back.z, 7);
    EXPECT_EQ(back.count, -8);
}

// Rows are moved into a cache, and what they were moved from is read into again: it had its old
// capacity and no storage, and was written to at address 0.
TEST(Describe, WhatWasMovedFromTakesARowAgain) {
    const EncodedRow<Bid> row(example());
    Copy<Bid> used = Description<Bid>::copy(row.key(), row.value());
    const Copy<Bid> kept = std::move(used);
    Description<Bid>::copy_into(used, row.key(), row.value());
    EXPECT_EQ(used.url, "ab");
    Copy<Bid> other;
    other = std::move(used);
    Description<Bid>::copy_into(used, row.key(), row.value());
    EXPECT_EQ(used.url, "ab");
    EXPECT_EQ(other.url, "ab");
    EXPECT_EQ(kept.url, "ab");
}

TEST(Describe, SingleMembersAreRead) {
    const EncodedRow<Bid> row(example());
    EXPECT_EQ(Description<Bid>::member<&Bid::price>(row.key(), row.value()), 0x11223344u);
    EXPECT_EQ(Description<Bid>::member<&Bid::raw>(row.key(), row.value()),
              std::string_view("x\0z", 3));
    EXPECT_EQ(Description<Bid>::member<&Bid::time>(row.key(), row.value()), example().time);
}

// A value read under a dead lease may be anything, of any length.
TEST(Describe, GarbageNeverLeadsOutOfTheValue) {
    const EncodedRow<Bid> row(example());
    std::vector<std::byte> value(row.value().begin(), row.value().end());
    for (std::size_t length = 0; length <= value.size(); ++length) {
        const auto cut = std::span<const std::byte>(value).first(length);
        const Copy<Bid> copy = Description<Bid>::copy(row.key(), cut);
        EXPECT_LE(copy.url.size() + copy.raw.size(), length);
    }
    for (unsigned end = 0; end < 0x10000; end += 257) {
        value[19] = value[21] = std::byte(end & 255);
        value[20] = std::byte(end >> 8);
        value[22] = std::byte(255 - (end >> 8));
        const auto url = Description<Bid>::member<&Bid::url>(row.key(), value);
        const auto raw = Description<Bid>::member<&Bid::raw>(row.key(), value);
        EXPECT_LE(url.size(), 5u);
        EXPECT_LE(raw.size(), 5u);
    }
}

TEST(Describe, RowsBeyondAPageTakeTheWideFormUpToTheLargestValue) {
    std::string text(kRowBytesMax - 24 - Description<Bid>::kTextOffset, 'x');
    Bid bid = example();
    bid.raw = {};
    bid.url = text;
    EXPECT_TRUE(EncodedRow<Bid>(bid).fits());
    EXPECT_EQ(EncodedRow<Bid>(bid).value().size() + 24, kRowBytesMax);
    const Schema schema = *Description<Bid>::schema();
    EXPECT_TRUE(schema.valid_value(EncodedRow<Bid>(bid).value()));
    for (const std::size_t size : {text.size() + 1, std::size_t{kLargeValueBytesMax}}) {
        text.resize(size, 'x');
        bid.url = text;
        bid.raw = "abc";
        const EncodedRow<Bid> encoded(bid);
        ASSERT_TRUE(encoded.fits());
        EXPECT_TRUE(schema.valid_value(encoded.value()));
        const auto copy = Description<Bid>::copy(encoded.key(), encoded.value());
        EXPECT_TRUE(copy.url == text);
        EXPECT_EQ(copy.raw, "abc");
    }
    text += 'x';
    bid.url = text;
    EXPECT_FALSE(EncodedRow<Bid>(bid).fits());
}

TEST(Describe, SchemaNamesColumnsAndTypes) {
    Result<Schema> schema = Description<Bid>::schema();
    ASSERT_TRUE(schema.ok()) << schema.failure().what;
    EXPECT_EQ(schema->name(), "bids");
    EXPECT_EQ(schema->key_columns(), 2);
    EXPECT_EQ(schema->time_column(), 0);
    EXPECT_EQ(schema->columns()[0].type, ColumnType::kTimestamp);
    EXPECT_EQ(schema->columns()[1].type, ColumnType::kFixed);
    EXPECT_EQ(schema->columns()[1].width_bytes, 16);
    EXPECT_EQ(schema->columns()[4].type, ColumnType::kU8);
    EXPECT_EQ(schema->columns()[7].type, ColumnType::kText);
    EXPECT_EQ(schema->columns()[8].type, ColumnType::kBytes);
}

TEST(Describe, PrefixesAreTheFirstKeyColumns) {
    EXPECT_TRUE(Prefix<Cell>::from().span().empty());
    EXPECT_EQ(hex(Prefix<Cell>::from(1).span()), "80000001");
    EXPECT_EQ(hex(Prefix<Cell>::from(1, 2).span()), "8000000182");
    EXPECT_EQ(hex(Prefix<Cell>(Key<Cell>::from(1, 2, 3)).span()), "80000001820003");
}

// The library reads the catalog by its own description of it.
TEST(Describe, CatalogRowIsTheCatalogsSchema) {
    Result<Schema> mine = Description<CatalogRow>::schema();
    ASSERT_TRUE(mine.ok());
    EXPECT_EQ(catalog_schema().difference(*mine), "");
    EXPECT_EQ(sessions_schema().key_bytes(), 16u);
}

}  // namespace
}  // namespace bidstore
