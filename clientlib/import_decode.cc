#include "clientlib/import_decode.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "clientlib/import_digits.h"

namespace bidstore {
namespace {

std::uint32_t digit_of(const DigitTable& table, char c) {
    return table[static_cast<unsigned char>(c)];
}

Failure invalid(std::string_view wanted, std::string_view text) {
    return {Error::kInvalid, "not " + std::string(wanted) + ": " + in_quotes(text)};
}

// A decimal number taken apart: all digits in one string, and how many of them are in front of the
// point (more than there are, or negative, after an exponent).
struct Decimal {
    std::string digits;
    std::int64_t point = 0;
};

bool split_decimal(std::string_view text, Decimal& out) {
    std::size_t at = 0;
    bool point_seen = false;
    for (; at < text.size(); ++at) {
        const char c = text[at];
        if (c == '.' && !point_seen) {
            point_seen = true;
        } else if (c >= '0' && c <= '9') {
            out.digits += c;
            out.point += point_seen ? 0 : 1;
        } else {
            break;
        }
    }
    if (out.digits.empty() || out.digits.size() > 400) return false;
    if (at == text.size()) return true;
    if (text[at] != 'e' && text[at] != 'E') return false;
    std::string_view exponent = text.substr(at + 1);
    if (!exponent.empty() && exponent.front() == '+') exponent.remove_prefix(1);
    int power = 0;
    const auto [end, error] =
        std::from_chars(exponent.data(), exponent.data() + exponent.size(), power);
    if (error != std::errc() || end != exponent.data() + exponent.size()) return false;
    if (power < -400 || power > 400) return false;
    out.point += power;
    return true;
}

// digits * 10 + digit, or false when that is beyond 64 bits.
bool append_digit(std::uint64_t& value, char digit) {
    const auto add = static_cast<std::uint64_t>(digit - '0');
    return !__builtin_mul_overflow(value, 10, &value) &&
           !__builtin_add_overflow(value, add, &value);
}

template <class T>
bool parse_whole(std::string_view text, T& value) {
    if (!text.empty() && text.front() == '+') text.remove_prefix(1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

}  // namespace

std::string in_quotes(std::string_view text) {
    constexpr std::size_t kShown = 60;
    std::string out = "\"";
    for (const char c : text.substr(0, kShown)) {
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '.' : c;
    }
    return out + (text.size() > kShown ? "...\"" : "\"");
}

Result<std::string> decode_uuid(std::string_view text) {
    static constexpr std::array<std::size_t, 5> kGroups{8, 4, 4, 4, 12};
    std::string digits;
    if (text.find('-') == std::string_view::npos) {
        if (text.size() != 32) return invalid("a uuid", text);
        digits = text;
    } else {
        std::string_view rest = text;
        for (std::size_t group = 0; group < kGroups.size(); ++group) {
            const std::size_t width = kGroups[group];
            const std::size_t end = std::min(rest.find('-'), rest.size());
            const bool last = group + 1 == kGroups.size();
            if (end == 0 || end > width || last != (end == rest.size())) {
                return invalid("a uuid", text);
            }
            digits.append(width - end, '0').append(rest.substr(0, end));
            rest.remove_prefix(last ? end : end + 1);
        }
    }
    auto bytes = decode_hex(digits);
    if (!bytes) return invalid("a uuid", text);
    return bytes;
}

namespace {

// Room for so many bytes and what blocks write behind them.
char* room_for(std::size_t bytes, std::string& room) {
    if (room.size() < bytes + kDigitRoomBytes) room.resize(bytes + kDigitRoomBytes);
    return room.data();
}

}  // namespace

Result<std::string> decode_hex(std::string_view text) {
    std::string room;
    std::string_view bytes;
    if (Status decoded = decode_hex(text, room, bytes); !decoded) return decoded.failure();
    return std::string(bytes);
}

Status decode_hex(std::string_view text, std::string& room, std::string_view& bytes) {
    if (text.size() % 2 != 0) return invalid("hex (an odd number of digits)", text);
    const std::size_t count = text.size() / 2;
    char* const out = room_for(count, room);
    std::uint32_t all = 0;  // of the digits: above 15 when one is none
    for (std::size_t i = decode_hex_blocks(text.data(), text.size(), out) / 2; i < count; ++i) {
        const std::uint32_t high = digit_of(kHexDigits, text[2 * i]);
        const std::uint32_t low = digit_of(kHexDigits, text[2 * i + 1]);
        all |= high | low;
        out[i] = static_cast<char>(high << 4 | low);
    }
    if (all > 15) return invalid("hex", text);
    bytes = {out, count};
    return {};
}

Result<std::string> decode_base64(std::string_view text, Base64Alphabet alphabet) {
    std::string room;
    std::string_view bytes;
    Status decoded = decode_base64(text, alphabet, room, bytes);
    if (!decoded) return decoded.failure();
    return std::string(bytes);
}

Status decode_base64(std::string_view text, Base64Alphabet alphabet, std::string& room,
                     std::string_view& bytes) {
    const std::string_view wanted = alphabet == Base64Alphabet::kUrl ? "base64url" : "base64";
    std::string_view digits = text;
    while (digits.size() + 2 > text.size() && digits.ends_with('=')) digits.remove_suffix(1);
    const bool padded = digits.size() != text.size();
    if (digits.size() % 4 == 1 || (padded && text.size() % 4 != 0)) return invalid(wanted, text);
    const bool url = alphabet == Base64Alphabet::kUrl;
    const DigitTable& table = url ? kBase64UrlDigits : kBase64Digits;
    const std::size_t count = digits.size() * 3 / 4;
    char* const out = room_for(count, room);
    const std::size_t whole = decode_base64_blocks(digits.data(), digits.size(), url, out);
    char* to = out + whole / 4 * 3;
    std::uint32_t all = 0;  // of the digits: above 63 when one is none
    const auto take = [&](char c) {
        const std::uint32_t digit = digit_of(table, c);
        all |= digit;
        return digit;
    };
    const char* from = digits.data() + whole;
    const char* const end_of_fours = digits.data() + digits.size() / 4 * 4;
    for (; from != end_of_fours; from += 4, to += 3) {
        const std::uint32_t bits =
            take(from[0]) << 18 | take(from[1]) << 12 | take(from[2]) << 6 | take(from[3]);
        to[0] = static_cast<char>(bits >> 16);
        to[1] = static_cast<char>(bits >> 8);
        to[2] = static_cast<char>(bits);
    }
    // Two or three digits are left, or none.
    std::uint32_t bits = 0;
    const std::size_t left = digits.size() % 4;
    for (std::size_t i = 0; i < left; ++i) bits |= take(from[i]) << (18 - 6 * i);
    if (left >= 2) *to++ = static_cast<char>(bits >> 16);
    if (left == 3) *to++ = static_cast<char>(bits >> 8);
    const std::uint32_t rest = left == 3 ? 0xff : left == 2 ? 0xffff : 0;
    if (all > 63 || (bits & rest) != 0) return invalid(wanted, text);
    bytes = {out, count};
    return {};
}

Result<std::uint64_t> decode_seconds(std::string_view text, TimeUnit unit) {
    Decimal decimal;
    if (!split_decimal(text, decimal)) return invalid("seconds since the epoch", text);
    const std::int64_t keep = decimal.point + (unit == TimeUnit::kMicroseconds ? 6 : 9);
    const auto size = static_cast<std::int64_t>(decimal.digits.size());
    std::uint64_t ticks = 0;
    for (std::int64_t i = 0; i < keep; ++i) {
        const char digit = i < size ? decimal.digits[static_cast<std::size_t>(i)] : '0';
        if (!append_digit(ticks, digit)) return invalid("a time within 64 bits", text);
    }
    const bool round_up =
        keep >= 0 && keep < size && decimal.digits[static_cast<std::size_t>(keep)] >= '5';
    if (round_up && ++ticks == 0) return invalid("a time within 64 bits", text);
    return ticks;
}

Result<std::uint64_t> decode_ticks(std::string_view text, std::uint64_t per_second, TimeUnit unit) {
    std::uint64_t ticks = 0;
    if (!parse_whole(text, ticks)) return invalid("a whole number of time units", text);
    const std::uint64_t factor = ticks_per_second(unit) / per_second;
    if (__builtin_mul_overflow(ticks, factor, &ticks)) {
        return invalid("a time within 64 bits", text);
    }
    return ticks;
}

std::string decode_host(std::string_view url) {
    std::string_view host = url;
    if (const std::size_t scheme = host.find("://"); scheme != std::string_view::npos) {
        host.remove_prefix(scheme + 3);
    }
    host = host.substr(0, host.find_first_of("/?#"));
    if (const std::size_t user = host.rfind('@'); user != std::string_view::npos) {
        host.remove_prefix(user + 1);
    }
    const bool bracketed = host.starts_with('[');  // an IPv6 address keeps its colons
    const std::size_t port = bracketed ? host.find("]:") : host.find(':');
    if (port != std::string_view::npos) host = host.substr(0, bracketed ? port + 1 : port);
    std::string out(host);
    for (char& c : out) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return out;
}

Result<std::uint64_t> decode_unsigned(std::string_view text) {
    std::uint64_t value = 0;
    if (!parse_whole(text, value)) return invalid("an integer from 0 to 2^64-1", text);
    return value;
}

Result<std::int64_t> decode_signed(std::string_view text) {
    std::int64_t value = 0;
    if (!parse_whole(text, value)) return invalid("an integer from -2^63 to 2^63-1", text);
    return value;
}

Result<double> decode_float(std::string_view text) {
    double value = 0;
    if (!parse_whole(text, value) || !std::isfinite(value)) return invalid("a number", text);
    return value;
}

}  // namespace bidstore
