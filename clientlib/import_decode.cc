#include "clientlib/import_decode.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace bidstore {
namespace {

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

Failure invalid(std::string_view wanted, std::string_view text) {
    return {Error::kInvalid, "not " + std::string(wanted) + ": " + in_quotes(text)};
}

// The six bits of a base64 digit, or -1.
int base64_digit(char c, Base64Alphabet alphabet) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    const bool url = alphabet == Base64Alphabet::kUrl;
    if (c == (url ? '-' : '+')) return 62;
    if (c == (url ? '_' : '/')) return 63;
    return -1;
}

std::uint64_t ticks_per_second(TimeUnit unit) {
    return unit == TimeUnit::kMicroseconds ? 1'000'000 : 1'000'000'000;
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

Result<std::string> decode_hex(std::string_view text) {
    if (text.size() % 2 != 0) return invalid("hex (an odd number of digits)", text);
    std::string out;
    out.reserve(text.size() / 2);
    for (std::size_t i = 0; i < text.size(); i += 2) {
        const int high = hex_digit(text[i]);
        const int low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0) return invalid("hex", text);
        out += static_cast<char>(high * 16 + low);
    }
    return out;
}

Result<std::string> decode_base64(std::string_view text, Base64Alphabet alphabet) {
    const std::string_view wanted = alphabet == Base64Alphabet::kUrl ? "base64url" : "base64";
    std::string_view digits = text;
    while (digits.size() + 2 > text.size() && digits.ends_with('=')) digits.remove_suffix(1);
    const bool padded = digits.size() != text.size();
    if (digits.size() % 4 == 1 || (padded && text.size() % 4 != 0)) return invalid(wanted, text);
    std::string out;
    out.reserve(digits.size() * 3 / 4);
    std::uint32_t bits = 0;
    int bit_count = 0;
    for (const char c : digits) {
        const int digit = base64_digit(c, alphabet);
        if (digit < 0) return invalid(wanted, text);
        bits = (bits << 6 | static_cast<std::uint32_t>(digit)) & 0xffff;
        bit_count += 6;
        if (bit_count < 8) continue;
        bit_count -= 8;
        out += static_cast<char>(bits >> bit_count & 0xff);
    }
    if ((bits & ((1u << bit_count) - 1)) != 0) return invalid(wanted, text);
    return out;
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
    const bool round_up = keep >= 0 && keep < size &&
                          decimal.digits[static_cast<std::size_t>(keep)] >= '5';
    if (round_up && ++ticks == 0) return invalid("a time within 64 bits", text);
    return ticks;
}

Result<std::uint64_t> decode_ticks(std::string_view text, std::uint64_t per_second,
                                   TimeUnit unit) {
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
