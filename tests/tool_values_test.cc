// Values as people type them at the tool, and what it prints.

#include "clientlib/tool_values.h"

#include <gtest/gtest.h>

#include "clientlib/import_schema.h"
#include "clientlib/tool_options.h"
#include "clientlib/tool_output.h"
#include "clientlib/tool_stats.h"
#include "shm/stats.h"

namespace bidstore {
namespace {

Schema schema_of(const std::vector<std::string>& columns, const std::vector<std::string>& key,
                 const std::string& unit = "us") {
    TableText text{"t", {}, key, "", unit};
    for (const std::string& column : columns) {
        auto parsed = parse_column(column);
        EXPECT_TRUE(parsed.ok()) << parsed.failure().what;
        text.columns.push_back(*parsed);
    }
    auto schema = make_schema(text);
    EXPECT_TRUE(schema.ok()) << schema.failure().what;
    return *schema;
}

// The row that these assignments make, as JSON, or the error.
std::string row_of(const Schema& schema, const std::vector<std::string>& texts) {
    auto assignments = parse_assignments(schema, texts);
    if (!assignments) return assignments.failure().what;
    RowBuilder row(schema);
    row.clear();
    for (const Assignment& assignment : *assignments) {
        if (Status set = set_value(row, schema, assignment); !set) return set.failure().what;
    }
    auto value = row.value();
    return value.ok() ? row_json(schema, row.key(), *value) : value.failure().what;
}

TEST(ToolValues, EveryTypeComesBackAsItWasTyped) {
    const Schema schema = schema_of({"a:u8", "b:i16", "c:u64", "d:f32", "e:f64", "f:fixed(2)",
                                     "g:timestamp", "h:bytes", "i:text"},
                                    {"a", "b"});
    EXPECT_EQ(row_of(schema, {"a=255", "b=-32768", "c=18446744073709551615", "d=0.1", "e=-2.5e10",
                              "f=0aFF", "g=1326240000064709", "h=text:hi", "i=x=\"y\""}),
              "{\"a\":255,\"b\":-32768,\"c\":18446744073709551615,\"d\":0.1,\"e\":-2.5e+10,"
              "\"f\":\"0aff\",\"g\":1326240000064709,\"h\":\"6869\",\"i\":\"x=\\\"y\\\"\"}");
}

TEST(ToolValues, MistakesNameTheColumnAndWhatItWants) {
    const Schema schema = schema_of({"id:fixed(16)", "n:u8", "t:text"}, {"id"});
    EXPECT_NE(row_of(schema, {"nn=1"}).find("has no column nn"), std::string::npos);
    EXPECT_NE(row_of(schema, {"n"}).find("write column=value"), std::string::npos);
    EXPECT_NE(row_of(schema, {"n=1", "n=2"}).find("column n is given twice"), std::string::npos);
    EXPECT_NE(row_of(schema, {"n=256"}).find("n"), std::string::npos);
    EXPECT_NE(row_of(schema, {"n=x"}).find("column n (u8): not an integer"), std::string::npos);
    EXPECT_NE(row_of(schema, {"id=xyz"}).find("column id (fixed(16)): not hex"), std::string::npos);
    EXPECT_NE(row_of(schema, {"t=\xff"}).find("not UTF-8"), std::string::npos);
    EXPECT_NE(row_of(schema, {"id=22451750-35b6-4001-15e8-a82bbc185161"})
                  .find("2245175035b6400115e8a82bbc185161"),
              std::string::npos);
}

TEST(ToolValues, TimesAreReadInEveryFormAndPrintedInOne) {
    const auto us = TimeUnit::kMicroseconds;
    EXPECT_EQ(*parse_time("2012-01-11T00:00:00.064709Z", us, 0), 1326240000064709u);
    EXPECT_EQ(*parse_time("2012-01-11 00:00:00", us, 0), 1326240000000000u);
    EXPECT_EQ(*parse_time("2012-01-11", TimeUnit::kNanoseconds, 0), 1326240000000000000u);
    EXPECT_EQ(*parse_time("42", us, 0), 42u);
    EXPECT_EQ(*parse_time("now", us, 90'000'000), 90'000'000u);
    EXPECT_EQ(*parse_time("now-30s", us, 90'000'000), 60'000'000u);
    EXPECT_EQ(*parse_time("now-1m", TimeUnit::kNanoseconds, 90'000'000), 30'000'000'000u);
    for (const char* bad : {"now-", "now+1s", "now-1y", "now-99999999d", "2012-13-45", "noon",
                            "2012-01-11T00:00:00x"}) {
        EXPECT_FALSE(parse_time(bad, us, 90'000'000).ok()) << bad;
    }
    EXPECT_EQ(time_text(1326240000064709u, us), "2012-01-11T00:00:00.064709Z");
    EXPECT_EQ(time_text(1326240000064709001u, TimeUnit::kNanoseconds),
              "2012-01-11T00:00:00.064709001Z");
}

TEST(ToolValues, BoundsNameTheFirstKeyColumns) {
    const Schema schema = schema_of({"a:u16", "b:u8", "c:u32"}, {"a", "b"});
    auto one = encode_prefix(schema, "a=258");
    ASSERT_TRUE(one.ok()) << one.failure().what;
    EXPECT_EQ(*one, (std::vector<std::byte>{std::byte{1}, std::byte{2}}));
    auto two = encode_prefix(schema, "b=3,a=258");
    ASSERT_TRUE(two.ok()) << two.failure().what;
    EXPECT_EQ(two->size(), 3u);
    EXPECT_TRUE(encode_prefix(schema, "")->empty());
    EXPECT_FALSE(encode_prefix(schema, "b=3").ok());
    EXPECT_FALSE(encode_prefix(schema, "a=1,b=1,c=1").ok());
    const std::vector<std::string> part{"a=1"};
    const std::vector<std::string> more{"a=1", "b=2", "c=3"};
    EXPECT_NE(encode_key(schema, part).failure().what.find("key column b is missing"),
              std::string::npos);
    EXPECT_NE(encode_key(schema, more).failure().what.find("c is not part of the key"),
              std::string::npos);
}

TEST(ToolOutput, JsonIsEscapedAndAlwaysUtf8) {
    EXPECT_EQ(json_string("a\"b\\c\n\x01\xc3\xa9"), "\"a\\\"b\\\\c\\u000a\\u0001\xc3\xa9\"");
    EXPECT_EQ(json_string("a\xff"), "\"a\\ufffd\"");
    JsonLine line;
    EXPECT_EQ(line.text("a", "b").number("c", 7).raw("d", "[1]").str(),
              "{\"a\":\"b\",\"c\":7,\"d\":[1]}");
}

TEST(ToolOutput, TablesLineUpByCharacters) {
    TextTable table({"name", ">n"});
    table.add({"\xc3\xa9", "1"});
    table.add({"abcdef", "1000"});
    EXPECT_EQ(table.str(true), "name       n\n\xc3\xa9          1\nabcdef  1000\n");
    EXPECT_EQ(clipped("abcdef", 6), "abcdef");
    EXPECT_EQ(clipped("abcdefg", 6), "abcde…");
    EXPECT_EQ(clipped("\xc3\xa9\xc3\xa9\xc3\xa9", 2), "\xc3\xa9…");
    EXPECT_EQ(clipped("a\nb", 9), "a.b");
}

TEST(ToolStats, QuantilesLieInTheRightBucket) {
    std::vector<std::uint64_t> buckets(kHistogramBuckets);
    EXPECT_EQ(bucket_quantile(buckets, 0.5), 0);
    buckets[histogram_bucket(1000)] = 99;
    buckets[histogram_bucket(1'000'000)] = 1;
    EXPECT_GE(bucket_quantile(buckets, 0.5), 896);
    EXPECT_LE(bucket_quantile(buckets, 0.5), 1024);
    EXPECT_GT(bucket_quantile(buckets, 0.999), 900'000);
}

TEST(ToolExitCodes, TellWhatKindOfFailureItWas) {
    EXPECT_EQ(exit_code(Error::kNotFound), 1);
    EXPECT_EQ(exit_code(Error::kNoSuchTable), 1);
    EXPECT_EQ(exit_code(Error::kInvalid), 2);
    EXPECT_EQ(exit_code(Error::kDisconnected), 3);
    EXPECT_EQ(exit_code(Error::kDenied), 4);
    EXPECT_EQ(exit_code(Error::kSchemaMismatch), 4);
    EXPECT_EQ(exit_code(Error::kCorruption), 5);
    // Every error has an exit code that says failure.
    for (std::uint32_t i = 1; i < kErrorCount; ++i) {
        EXPECT_NE(exit_code(static_cast<Error>(i)), 0) << error_name(static_cast<Error>(i));
    }
}

}  // namespace
}  // namespace bidstore
