// Texts of hex and base64 digits to bytes, a block of digits at a time.
//
// Who:    the decoders (import_decode.h), which see to what is left: tails, padding, errors. Pure
//         functions.
// Trust:  any text; each stops in front of the first block that has something else than digits.
// Writes: behind the bytes of its blocks up to kDigitRoomBytes more, which mean nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bidstore {

inline constexpr std::size_t kDigitRoomBytes = 4;

// By character: the number that a digit stands for, or kNoDigit.
using DigitTable = std::array<std::uint8_t, 256>;
inline constexpr std::uint8_t kNoDigit = 0xff;

constexpr DigitTable digit_table(std::string_view digits) {
    DigitTable table{};
    for (auto& entry : table) entry = kNoDigit;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        table[static_cast<unsigned char>(digits[i])] = static_cast<std::uint8_t>(i);
    }
    return table;
}
constexpr DigitTable hex_table() {
    DigitTable table = digit_table("0123456789abcdef");
    for (std::uint8_t i = 0; i < 6; ++i) table['A' + i] = static_cast<std::uint8_t>(10 + i);
    return table;
}

inline constexpr DigitTable kHexDigits = hex_table();
inline constexpr DigitTable kBase64Digits =
    digit_table("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
inline constexpr DigitTable kBase64UrlDigits =
    digit_table("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");

// How many of the `count` digits were decoded: a multiple of 16.
std::size_t decode_hex_blocks(const char* from, std::size_t count, char* to);
// With - and _, or with + and /.
std::size_t decode_base64_blocks(const char* from, std::size_t count, bool url, char* to);

}  // namespace bidstore
