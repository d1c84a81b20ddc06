#include "clientlib/import_digits.h"

#include <immintrin.h>

// A character's upper half tells its row among the 16 characters that share it, and all digits of a
// row but one are as far from their numbers. So two lookups of 16 entries decode a digit, and two
// more say whether it is one: each row has a bit of its own, which its entry among the upper halves
// has, and those of the lower halves with which the row has no digit.
//
// Source: Wojciech Muła's base64 decoders look up halves so; here the tables follow from the
// alphabet.

namespace bidstore {
namespace {

struct alignas(16) DigitRows {
    std::array<std::uint8_t, 16> row_bit{};   // by upper half
    std::array<std::uint8_t, 16> no_digit{};  // by lower half: bits of the rows without such a one
    std::array<std::uint8_t, 16> distance{};  // by upper half: to add to the character
    char odd = 0;                             // the digit whose distance is another one
    char to_row_1 = 0;                        // from its upper half to that entry, which is its own
};

constexpr DigitRows digit_rows(const DigitTable& digits, char odd) {
    constexpr std::uint8_t kNever = 0x80;
    DigitRows rows;
    rows.odd = odd;
    for (unsigned upper = 0; upper < 16; ++upper) {
        const bool has_digits = upper >= 2 && upper <= 7;
        rows.row_bit[upper] = has_digits ? static_cast<std::uint8_t>(1u << upper >> 2) : kNever;
        for (unsigned lower = 0; lower < 16; ++lower) {
            const unsigned character = upper << 4 | lower;
            if (digits[character] == kNoDigit || !has_digits) {
                rows.no_digit[lower] |= rows.row_bit[upper];
            } else if (character != static_cast<unsigned char>(odd)) {
                rows.distance[upper] = static_cast<std::uint8_t>(digits[character] - character);
            }
        }
    }
    if (odd == 0) return rows;
    rows.to_row_1 = static_cast<char>(1 - (odd >> 4));
    rows.distance[1] = static_cast<std::uint8_t>(digits[static_cast<unsigned char>(odd)] - odd);
    return rows;
}

constexpr DigitRows kHexRows = digit_rows(kHexDigits, 0);
constexpr DigitRows kBase64Rows = digit_rows(kBase64Digits, '/');
constexpr DigitRows kBase64UrlRows = digit_rows(kBase64UrlDigits, '_');

__m128i load16(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
void store16(void* to, __m128i bytes) { _mm_storeu_si128(static_cast<__m128i*>(to), bytes); }

class Lookup {
  public:
    explicit Lookup(const DigitRows& rows)
        : row_bit_(load16(rows.row_bit.data())),
          no_digit_(load16(rows.no_digit.data())),
          distance_(load16(rows.distance.data())),
          odd_(_mm_set1_epi8(rows.odd)),
          to_row_1_(_mm_set1_epi8(rows.to_row_1)) {}

    // False: one of the 16 is no digit.
    bool numbers(const char* from, __m128i& out) const {
        const __m128i half = _mm_set1_epi8(0x0f);
        const __m128i digits = load16(from);
        const __m128i upper = _mm_and_si128(_mm_srli_epi16(digits, 4), half);
        const __m128i lower = _mm_and_si128(digits, half);
        const __m128i row_bit = _mm_shuffle_epi8(row_bit_, upper);
        if (!_mm_testz_si128(row_bit, _mm_shuffle_epi8(no_digit_, lower))) return false;
        const __m128i is_odd = _mm_cmpeq_epi8(digits, odd_);
        const __m128i row = _mm_add_epi8(upper, _mm_and_si128(is_odd, to_row_1_));
        out = _mm_add_epi8(digits, _mm_shuffle_epi8(distance_, row));
        return true;
    }

  private:
    const __m128i row_bit_, no_digit_, distance_, odd_, to_row_1_;
};

// Numbers of 6 bits join in pairs to 12 bits, these to 24, whose bytes come into order.
std::size_t base64_by_16(const DigitRows& rows, const char* from, std::size_t count, char* to) {
    const Lookup lookup(rows);
    const __m128i order = _mm_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    std::size_t done = 0;
    __m128i numbers;
    for (; done + 16 <= count && lookup.numbers(from + done, numbers); done += 16, to += 12) {
        const __m128i twelve = _mm_maddubs_epi16(numbers, _mm_set1_epi32(0x01400140));
        const __m128i bits = _mm_madd_epi16(twelve, _mm_set1_epi32(0x00011000));
        store16(to, _mm_shuffle_epi8(bits, order));
    }
    return done;
}

// The same, 32 digits at a time, for processors that have AVX2.
__attribute__((target("avx2"))) std::size_t base64_by_32(const DigitRows& rows, const char* from,
                                                         std::size_t count, char* to) {
    const __m256i row_bits = _mm256_broadcastsi128_si256(load16(rows.row_bit.data()));
    const __m256i no_digit = _mm256_broadcastsi128_si256(load16(rows.no_digit.data()));
    const __m256i distance = _mm256_broadcastsi128_si256(load16(rows.distance.data()));
    const __m256i odd = _mm256_set1_epi8(rows.odd);
    const __m256i to_row_1 = _mm256_set1_epi8(rows.to_row_1);
    const __m256i half = _mm256_set1_epi8(0x0f);
    const __m256i order =
        _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1,  //
                         2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    std::size_t done = 0;
    for (; done + 32 <= count; done += 32, to += 24) {
        const __m256i digits =
            _mm256_loadu_si256(static_cast<const __m256i*>(static_cast<const void*>(from + done)));
        const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(digits, 4), half);
        const __m256i lower = _mm256_and_si256(digits, half);
        const __m256i row_bit = _mm256_shuffle_epi8(row_bits, upper);
        if (!_mm256_testz_si256(row_bit, _mm256_shuffle_epi8(no_digit, lower))) break;
        const __m256i is_odd = _mm256_cmpeq_epi8(digits, odd);
        const __m256i row = _mm256_add_epi8(upper, _mm256_and_si256(is_odd, to_row_1));
        const __m256i numbers = _mm256_add_epi8(digits, _mm256_shuffle_epi8(distance, row));
        const __m256i twelve = _mm256_maddubs_epi16(numbers, _mm256_set1_epi32(0x01400140));
        const __m256i bits = _mm256_madd_epi16(twelve, _mm256_set1_epi32(0x00011000));
        const __m256i bytes = _mm256_shuffle_epi8(bits, order);
        store16(to, _mm256_castsi256_si128(bytes));
        store16(to + 12, _mm256_extracti128_si256(bytes, 1));
    }
    return done;
}

}  // namespace

std::size_t decode_hex_blocks(const char* from, std::size_t count, char* to) {
    const Lookup lookup(kHexRows);
    std::size_t done = 0;
    __m128i numbers;
    for (; done + 16 <= count && lookup.numbers(from + done, numbers); done += 16, to += 8) {
        const __m128i bytes = _mm_maddubs_epi16(numbers, _mm_set1_epi16(0x0110));
        _mm_storel_epi64(static_cast<__m128i*>(static_cast<void*>(to)),
                         _mm_packus_epi16(bytes, bytes));
    }
    return done;
}

std::size_t decode_base64_blocks(const char* from, std::size_t count, bool url, char* to) {
    static const bool kHasAvx2 = __builtin_cpu_supports("avx2") != 0;
    const DigitRows& rows = url ? kBase64UrlRows : kBase64Rows;
    const std::size_t done = kHasAvx2 ? base64_by_32(rows, from, count, to) : 0;
    return done + base64_by_16(rows, from + done, count - done, to + done / 4 * 3);
}

}  // namespace bidstore
