// What the import understands: decoders, schemas written as text, mapping files.

#include "clientlib/import_decode.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <sstream>
#include <string>

#include "clientlib/import_mapping.h"
#include "clientlib/import_schema.h"

namespace bidstore {
namespace {

std::string hex(std::string_view bytes) {
    std::ostringstream out;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        out << "0123456789abcdef"[byte >> 4] << "0123456789abcdef"[byte & 15];
    }
    return out.str();
}

std::string why(const std::string& mapping_text) {
    auto mapping = parse_mapping(mapping_text, "test.toml");
    return mapping.ok() ? "" : mapping.failure().what;
}

// ---- decoders -----------------------------------------------------------------------------------

TEST(Decode, UuidGetsItsDroppedZerosBack) {
    EXPECT_EQ(hex(*decode_uuid("22451750-35b6-4001-15e8-a82bbc185161")),
              "2245175035b6400115e8a82bbc185161");
    EXPECT_EQ(hex(*decode_uuid("2245175-5b6-1-5e8-82bbc185161")),
              "0224517505b6000105e8082bbc185161");
    EXPECT_EQ(hex(*decode_uuid("2245175035B6400115E8A82BBC185161")),
              "2245175035b6400115e8a82bbc185161");
}

TEST(Decode, UuidRefusesWhatIsNotOne) {
    for (const char* bad :
         {"", "-", "22451750-35b6-4001-15e8", "----", "22451750-35b6-4001-15e8-",
          "022451750-35b6-4001-15e8-a82bbc185161", "22451750-35b6-4001-15e8-a82bbc185161-1",
          "g2451750-35b6-4001-15e8-a82bbc185161", "22451750"}) {
        auto decoded = decode_uuid(bad);
        EXPECT_FALSE(decoded.ok()) << bad;
        if (decoded.ok()) continue;
        EXPECT_NE(decoded.failure().what.find("not a uuid"), std::string::npos);
    }
}

TEST(Decode, HexReadsTwoDigitsAByte) {
    EXPECT_EQ(*decode_hex("00fFa1"), std::string("\x00\xff\xa1", 3));
    EXPECT_EQ(*decode_hex(""), "");
    EXPECT_FALSE(decode_hex("abc").ok());
    EXPECT_FALSE(decode_hex("zz").ok());
}

TEST(Decode, Base64UrlReadsUserIdsOfBothExchanges) {
    auto adx = decode_base64("CAESEJVMegBpczMZuvnCfitlMi4", Base64Alphabet::kUrl);
    ASSERT_TRUE(adx.ok());
    EXPECT_EQ(hex(*adx), "08011210954c7a0069733319baf9c27e2b65322e");
    auto context_web = decode_base64("xyLBT0a_fX9rVRQdq49Aug", Base64Alphabet::kUrl);
    ASSERT_TRUE(context_web.ok());
    EXPECT_EQ(context_web->size(), 16u);
    EXPECT_EQ(decode_base64("VoE2kuuFV04", Base64Alphabet::kUrl)->size(), 8u);
}

TEST(Decode, Base64KeepsAlphabetsApartAndChecksPadding) {
    EXPECT_EQ(*decode_base64("YWI=", Base64Alphabet::kStandard), "ab");
    EXPECT_EQ(*decode_base64("YWI", Base64Alphabet::kStandard), "ab");
    EXPECT_EQ(*decode_base64("YQ==", Base64Alphabet::kUrl), "a");
    EXPECT_EQ(*decode_base64("", Base64Alphabet::kUrl), "");
    EXPECT_EQ(*decode_base64("-_8", Base64Alphabet::kUrl), "\xfb\xff");
    EXPECT_EQ(*decode_base64("+/8", Base64Alphabet::kStandard), "\xfb\xff");
    EXPECT_FALSE(decode_base64("+/8", Base64Alphabet::kUrl).ok());
    EXPECT_FALSE(decode_base64("-_8", Base64Alphabet::kStandard).ok());
    for (const char* bad : {"Y", "YQ=", "YQ===", "Y=Q=", "YWI=YWI=", "=", "YW I"}) {
        EXPECT_FALSE(decode_base64(bad, Base64Alphabet::kStandard).ok()) << bad;
    }
}

TEST(Decode, Base64RefusesSpareBitsThatWouldMakeTwoTextsOneValue) {
    EXPECT_TRUE(decode_base64("YQ", Base64Alphabet::kUrl).ok());
    EXPECT_FALSE(decode_base64("YR", Base64Alphabet::kUrl).ok());
}

// Each character in each place of a text: digits give one text each, anything else is refused.
// `text` is shorter than a block of digits, or has blocks of 32 and of 16 and digits behind them.
template <class Decoder>
void expect_only_digits(const std::string& text, std::string_view digits, Decoder decode) {
    for (std::size_t place = 0; place < text.size(); ++place) {
        std::string changed = text;
        std::set<std::string> seen;
        for (int c = 0; c < 256; ++c) {
            changed[place] = static_cast<char>(c);
            const auto bytes = decode(changed);
            const bool digit = c != 0 && digits.find(static_cast<char>(c)) != digits.npos;
            ASSERT_EQ(bytes.ok(), digit) << place << ", " << c;
            if (bytes.ok()) seen.insert(*bytes);
        }
        EXPECT_EQ(seen.size(), digits.size() == 22 ? 16u : digits.size());
    }
}

TEST(Decode, EveryCharacterIsADigitOrRefused) {
    const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const auto standard = [](auto& text) { return decode_base64(text, Base64Alphabet::kStandard); };
    const auto url = [](auto& text) { return decode_base64(text, Base64Alphabet::kUrl); };
    const auto bare_hex = [](auto& text) { return decode_hex(text); };
    expect_only_digits("0123abCD", "0123456789abcdefABCDEF", bare_hex);
    expect_only_digits("0123456789abcdefABCDEF0987654321fe", "0123456789abcdefABCDEF", bare_hex);
    for (const std::size_t length : {8, 60}) {
        expect_only_digits(letters.substr(0, length), letters + "+/", standard);
        expect_only_digits(letters.substr(0, length), letters + "-_", url);
    }
}

// Blocks, and what is left of them, give what the definition gives: six bits a digit.
TEST(Decode, Base64OfAnyLengthIsSixBitsADigit) {
    for (const bool is_url : {false, true}) {
        const std::string digits =
            std::string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwx") + "yz0123456789" +
            (is_url ? "-_" : "+/");
        std::uint64_t random = 1;
        for (std::size_t bytes = 0; bytes < 200; ++bytes) {
            std::string wanted, text;
            std::uint32_t bits = 0, count = 0;
            for (std::size_t i = 0; i < bytes; ++i) {
                random = random * 6364136223846793005 + 1442695040888963407;
                wanted += static_cast<char>(random >> 56);
                bits = bits << 8 | (static_cast<std::uint32_t>(random >> 56) & 0xff);
                for (count += 8; count >= 6; count -= 6) text += digits[bits >> (count - 6) & 63];
            }
            if (count > 0) text += digits[bits << (6 - count) & 63];
            const auto alphabet = is_url ? Base64Alphabet::kUrl : Base64Alphabet::kStandard;
            const auto decoded = decode_base64(text, alphabet);
            ASSERT_TRUE(decoded.ok()) << bytes;
            EXPECT_EQ(*decoded, wanted) << bytes;
        }
    }
}

TEST(Decode, SecondsKeepEveryDigit) {
    EXPECT_EQ(*decode_seconds("1326240000.064709", TimeUnit::kMicroseconds), 1326240000064709u);
    EXPECT_EQ(*decode_seconds("1326240000.0647", TimeUnit::kMicroseconds), 1326240000064700u);
    EXPECT_EQ(*decode_seconds("1326240000", TimeUnit::kMicroseconds), 1326240000000000u);
    // A double has no room for these nanoseconds: it would give ...065.
    EXPECT_EQ(*decode_seconds("1326240000.064709123", TimeUnit::kNanoseconds),
              1326240000064709123u);
    EXPECT_EQ(*decode_seconds("1.326240000064709e9", TimeUnit::kMicroseconds), 1326240000064709u);
    EXPECT_EQ(*decode_seconds("1326240000064709E-6", TimeUnit::kMicroseconds), 1326240000064709u);
    EXPECT_EQ(*decode_seconds("0.0000005", TimeUnit::kMicroseconds), 1u);
    EXPECT_EQ(*decode_seconds("0.0000004", TimeUnit::kMicroseconds), 0u);
    EXPECT_EQ(*decode_seconds("5e-7", TimeUnit::kMicroseconds), 1u);
    EXPECT_EQ(*decode_seconds("1e-20", TimeUnit::kMicroseconds), 0u);
    EXPECT_EQ(*decode_seconds("18446744073709.551615", TimeUnit::kMicroseconds), ~0ull);
}

TEST(Decode, SecondsRefuseWhatIsNoTime) {
    for (const char* bad : {"", ".", "-1", "1.2.3", "1e", "e9", "1e999999", "nan", "1 ",
                            "18446744073709.551616", "99999999999999999999"}) {
        EXPECT_FALSE(decode_seconds(bad, TimeUnit::kMicroseconds).ok()) << bad;
    }
}

TEST(Decode, TicksScaleToTheUnitOrOverflow) {
    EXPECT_EQ(*decode_ticks("1480544698821", 1'000, TimeUnit::kMicroseconds), 1480544698821000u);
    EXPECT_EQ(*decode_ticks("7", 1'000'000, TimeUnit::kNanoseconds), 7000u);
    EXPECT_FALSE(decode_ticks("18446744073709551615", 1'000, TimeUnit::kMicroseconds).ok());
    EXPECT_FALSE(decode_ticks("1.5", 1'000, TimeUnit::kMicroseconds).ok());
}

TEST(Decode, HostIsTheNameAlone) {
    EXPECT_EQ(decode_host("http://WWW.Example.com:8080/a?b#c"), "www.example.com");
    EXPECT_EQ(decode_host("https://user:word@example.org?q"), "example.org");
    EXPECT_EQ(decode_host("example.net/path"), "example.net");
    EXPECT_EQ(decode_host("http://[2001:db8::1]:80/"), "[2001:db8::1]");
    EXPECT_EQ(decode_host("http://a.b"), "a.b");
    EXPECT_EQ(decode_host("file:///C:/Documents%20and%20Settings/a.html"), "");
    EXPECT_EQ(decode_host(""), "");
}

TEST(Decode, NumbersAreWholeTexts) {
    EXPECT_EQ(*decode_unsigned("18446744073709551615"), ~0ull);
    EXPECT_EQ(*decode_signed("-9223372036854775808"), INT64_MIN);
    EXPECT_EQ(*decode_float("2.5"), 2.5);
    for (const char* bad : {"", "1x", " 1", "18446744073709551616", "+-1"}) {
        EXPECT_FALSE(decode_unsigned(bad).ok()) << bad;
    }
    EXPECT_FALSE(decode_float("inf").ok());
}

// ---- schemas and mapping files ------------------------------------------------------------------

TEST(TableText, ColumnsAreOrderedAsThePageFormatNeedsThem) {
    TableText text{"t", {}, {"b", "a"}, "when", ""};
    for (const char* column : {"note:text", "a:u32", "when:timestamp", "b:fixed(16)", "n:i8"}) {
        auto parsed = parse_column(column);
        ASSERT_TRUE(parsed.ok()) << parsed.failure().what;
        text.columns.push_back(*parsed);
    }
    auto schema = make_schema(text);
    ASSERT_TRUE(schema.ok()) << schema.failure().what;
    std::string order;
    for (const Column& column : schema->columns()) {
        order.append(column.name).append(":").append(type_text(column)).append(" ");
    }
    EXPECT_EQ(order, "b:fixed(16) a:u32 when:timestamp n:i8 note:text ");
    EXPECT_EQ(schema->time_column(), 2);
    EXPECT_EQ(schema->key_columns(), 2);
}

TEST(TableText, MistakesNameTheColumn) {
    EXPECT_NE(parse_column("price").failure().what.find("price"), std::string::npos);
    EXPECT_NE(parse_column("price:money").failure().what.find("money"), std::string::npos);
    EXPECT_FALSE(parse_column("x:fixed(0)").ok());
    EXPECT_FALSE(parse_column("x:fixed(70000)").ok());
    TableText text{"t", {*parse_column("a:u8")}, {"b"}, "", ""};
    EXPECT_NE(make_schema(text).failure().what.find("key column b"), std::string::npos);
    text.key = {"a"};
    text.time = "c";
    EXPECT_NE(make_schema(text).failure().what.find("time column c"), std::string::npos);
}

TEST(Mapping, MistakesNameFileLineAndKey) {
    EXPECT_EQ(why("[[table]]\nname = 't'\ncolor = 'red'\ncolumns = [ { name = 'a', path = 'a' } ]"),
              "test.toml:3: unknown key \"color\" of a table");
    EXPECT_EQ(why("[[table]]\nname = 't'\ncolumns = [\n { name = 'a', path = 'a', deode = 'x' } ]"),
              "test.toml:4: unknown key \"deode\" of a column");
    EXPECT_NE(why("[[table]]\nname = 't'\ncolumns = [\n { name = 'a', path = 'a', decode = 'x' } ]")
                  .find("test.toml:4: decode must be one of \"text\""),
              std::string::npos);
    EXPECT_NE(why("[[table]\n").find("test.toml:1"), std::string::npos);
    EXPECT_EQ(why("a = 1"),
              "test.toml:1: unknown key \"a\"; a mapping file is made of [[table]] blocks");
    EXPECT_NE(why("").find("no [[table]] block"), std::string::npos);
}

TEST(Mapping, ContradictionsAreRefused) {
    const auto column = [](const std::string& keys) {
        return why("[[table]]\nname = 't'\ncolumns = [ { name = 'a'" + keys + " } ]");
    };
    EXPECT_NE(column("").find("needs a path"), std::string::npos);
    EXPECT_NE(column(", path = 'x', constant = 1").find("exclude"), std::string::npos);
    EXPECT_NE(column(", path = 'x', too_long = 'truncate'").find("max_bytes"), std::string::npos);
    EXPECT_NE(column(", add = 1").find("mode = \"add\""), std::string::npos);
    EXPECT_NE(column(", path = 'x', on_missing = 'keep'").find("mode"), std::string::npos);
    EXPECT_NE(column(", path = 'x', length = 0").find("1 to 65535"), std::string::npos);
    EXPECT_NE(column(", path = 7").find("path must be a string"), std::string::npos);
    EXPECT_NE(column(", path = 'x', skip_prefix = 'xyz'").find("skip_prefix"), std::string::npos);
    EXPECT_EQ(column(", path = 'x'"), "");
}

}  // namespace
}  // namespace bidstore
