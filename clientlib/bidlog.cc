#include "clientlib/bidlog.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace bidstore {
namespace {

constexpr std::string_view kOptedOut = "VoE2kuuFV04";
constexpr std::size_t kSeenMax = 1'000'000;  // older users do not come back
constexpr std::uint64_t kLateUsMax = 130'000;
constexpr std::uint64_t kHosts = 12'000;

struct Share {
    std::string_view name;
    double share;
};
constexpr std::array<Share, 9> kFormats{{{"300x250", 0.389},
                                         {"728x90", 0.362},
                                         {"160x600", 0.197},
                                         {"336x280", 0.018},
                                         {"468x60", 0.017},
                                         {"120x600", 0.010},
                                         {"250x250", 0.004},
                                         {"200x200", 0.002},
                                         {"120x240", 0.001}}};
constexpr std::array<std::string_view, 16> kSyllables{"ba", "ne", "lo", "ti", "ra", "mu",
                                                      "se", "ko", "vi", "da", "po", "le",
                                                      "su", "mi", "go", "fa"};
constexpr std::array<std::string_view, 8> kPlaces{"Springfield", "Riverside", "Fairview",
                                                  "Franklin",    "Greenville", "Bristol",
                                                  "Clinton",     "Salem"};
constexpr std::array<std::string_view, 6> kBrowsers{
    "Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1; WOW64; Trident/5.0)",
    "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0; SLCC2; .NET CLR 2.0.50727; "
    ".NET CLR 3.5.30729; .NET CLR 3.0.30729; Media Center PC 6.0)",
    "Mozilla/5.0 (Windows NT 6.1; WOW64; rv:9.0.1) Gecko/20100101 Firefox/9.0.1",
    "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/535.7 (KHTML, like Gecko) Chrome/16.0.912.75 "
    "Safari/535.7",
    "Mozilla/5.0 (iPad; CPU OS 5_0_1 like Mac OS X) AppleWebKit/534.46 (KHTML, like Gecko) "
    "Version/5.1 Mobile/9A405 Safari/7534.48.3",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_6_8) AppleWebKit/534.52.7 (KHTML, like Gecko) "
    "Version/5.1.2 Safari/534.52.7"};

std::string base64url(const std::string& bytes) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::string out;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char c : bytes) {
        bits = (bits << 8 | static_cast<unsigned char>(c)) & 0xffff;
        for (count += 8; count >= 6; count -= 6) out += kDigits[bits >> (count - 6) & 63];
    }
    if (count > 0) out += kDigits[bits << (6 - count) & 63];
    return out;
}

template <class... Values>
std::string print(const char* format, Values... values) {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), format, values...);
    return text.data();
}

// A made-up name that depends on the number alone.
std::string name_of(std::uint64_t number) {
    std::string name;
    for (std::uint64_t rest = number + 16; rest > 0; rest /= 16) name += kSyllables[rest % 16];
    return name;
}

// Microseconds as seconds with the zeros at the end dropped, as the captured log has them.
std::string seconds(std::uint64_t us) {
    std::string text = print("%llu.%06llu", static_cast<unsigned long long>(us / 1'000'000),
                             static_cast<unsigned long long>(us % 1'000'000));
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
    return text;
}

}  // namespace

BidLog::BidLog(const BidLogOptions& options) : options_(options), state_(options.seed) {}

// splitmix64: the standard library's distributions differ from one to the next.
std::uint64_t BidLog::random() {
    std::uint64_t mixed = (state_ += 0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
}

double BidLog::uniform() { return static_cast<double>(random() >> 11) * 0x1p-53; }

std::uint64_t BidLog::below(std::uint64_t bound) { return random() % bound; }

double BidLog::exponential(double mean) { return -mean * std::log(1 - uniform()); }

// Requests reach the writer at random times; each says when it was made, a while before.
std::uint64_t BidLog::stamp_us() {
    now_us_ += exponential(1e6 / options_.requests_per_second);
    const double usual = exponential(3'000);
    const double late = chance(0.009) ? exponential(18'000) : 0;
    const auto delay = std::min(static_cast<std::uint64_t>(usual + late), kLateUsMax);
    const auto since_start = static_cast<std::uint64_t>(now_us_);
    return options_.start_us + kLateUsMax + since_start - delay;
}

std::string BidLog::new_user(Exchange exchange) {
    std::string bytes = exchange == Exchange::kAdx ? "\x08\x01\x12\x10" : "";
    for (int i = 0; i < 16; ++i) bytes += static_cast<char>(random() & 0xff);
    return base64url(bytes);
}

// Empty: the request has no user id.
std::string BidLog::user(Exchange exchange) {
    if (exchange == Exchange::kAdx && chance(0.0683)) return {};
    if (exchange == Exchange::kContextWeb && chance(0.0552)) return std::string(kOptedOut);
    const auto index = static_cast<std::size_t>(exchange);
    std::vector<std::string>& seen = seen_[index];
    const bool back = !seen.empty() && chance(0.071);
    std::string id = back ? seen[below(seen.size())] : new_user(exchange);
    if (seen.size() < kSeenMax) {
        seen.push_back(id);
    } else {
        seen[oldest_[index]++ % kSeenMax] = id;
    }
    return id;
}

// The n-th host is about as frequent as 1/n.
std::string BidLog::host() {
    const double rank = std::exp(uniform() * std::log(static_cast<double>(kHosts)));
    return "www." + name_of(static_cast<std::uint64_t>(rank)) + ".example";
}

std::string BidLog::url() {
    std::string text = "http://" + host() + "/";
    if (chance(0.35)) return text;
    text += name_of(below(200));
    for (std::uint64_t more = below(4); more > 0; --more) {
        text.append("/").append(name_of(below(5'000)));
    }
    if (chance(0.2)) text += "?id=" + std::to_string(below(1'000'000));
    return text;
}

std::string BidLog::user_agent(Exchange exchange) {
    std::string text(kBrowsers[below(kBrowsers.size())]);
    if (chance(0.2)) text.append(" ").append(name_of(below(4'000)));
    return exchange == Exchange::kAdx ? text + ",gzip(gfe)" : text;
}

std::string_view BidLog::format() {
    double rest = uniform();
    for (const Share& entry : kFormats) {
        rest -= entry.share;
        if (rest < 0) return entry.name;
    }
    return kFormats.front().name;
}

void BidLog::append_member(std::string_view name, std::string_view text) {
    line_.append(",\"").append(name).append("\":\"").append(text).append("\"");
}

void BidLog::append_location() {
    if (chance(0.002)) {
        line_ += ",\"location\":null";
        return;
    }
    const bool canada = chance(0.127);
    line_ += ",\"location\":{\"cityName\":\"";
    line_ += kPlaces[below(kPlaces.size())];
    line_ += canada ? "\",\"countryCode\":\"CA\",\"dma\":0" : "\",\"countryCode\":\"US\",\"dma\":";
    if (!canada) line_ += std::to_string(500 + below(380));
    line_ += ",\"postalCode\":\"" + std::to_string(100 + below(900)) + "\",\"regionCode\":\"";
    line_ += canada ? "ON" : "WI";
    line_ += "\",\"timezoneOffsetMinutes\":-" + std::to_string(240 + 60 * below(4)) + "}";
}

void BidLog::append_restrictions(Exchange exchange) {
    const bool adx = exchange == Exchange::kAdx;
    if (!adx && chance(0.134)) return;
    line_ += ",\"restrictions\":{";
    if (chance(adx ? 0.849 : 0.886)) {
        line_ += "\"clickUrl\":[";
        for (std::uint64_t more = 1 + below(adx ? 25 : 14); more > 0; --more) {
            line_.append("\"").append(name_of(below(3'000)));
            line_ += more > 1 ? ".example\"," : ".example\"";
        }
        line_ += "],";
    }
    line_ += "\"creativeAttribute\":[";
    const std::uint64_t first = 1 + below(8);
    const std::uint64_t count = adx ? 1 + below(13) : 1;
    for (std::uint64_t i = 0; i < count; ++i) {
        line_ += std::to_string(first + i) + (i + 1 < count ? "," : "");
    }
    line_ += "]}";
}

void BidLog::append_segments(Exchange exchange) {
    line_ += ",\"segments\":{\"adgear\":";
    line_ += chance(0.009) ? print("[%u]", static_cast<unsigned>(below(900))) : "null";
    if (exchange == Exchange::kAdx) {
        line_ += ",\"adxVerticals\":[";
        const std::uint64_t count = below(6);
        for (std::uint64_t i = 0; i < count; ++i) {
            const auto vertical = static_cast<unsigned>(1 + below(1'500));
            line_ += print("[%u,%.16f]", vertical, uniform());
            line_ += i + 1 < count ? "," : "";
        }
        line_ += "]";
    }
    line_ += "}";
}

void BidLog::append_user_ids(Exchange exchange) {
    const std::string id = user(exchange);
    if (id.empty()) return;
    const bool adx = exchange == Exchange::kAdx;
    std::string partner;
    if (chance(0.018)) {
        partner = print("%08x-f5e2-11e0-bcbc-68b599c88614", static_cast<unsigned>(random()));
    }
    line_ += ",\"userIds\":{\"";
    if (adx) line_ += "adx\":\"" + id + "\"";
    if (adx && !partner.empty()) line_ += ",\"ag\":\"" + partner + "\"";
    if (!adx && !partner.empty()) line_ += "ag\":\"" + partner + "\",\"";
    if (!adx) line_ += "cweb\":\"" + id + "\"";
    if (!partner.empty()) append_member("prov", partner);
    append_member("xchg", id);
    line_ += "}";
}

std::string_view BidLog::next() {
    const Exchange exchange = chance(0.5495) ? Exchange::kAdx : Exchange::kContextWeb;
    const bool adx = exchange == Exchange::kAdx;
    const auto high = static_cast<unsigned>(random());
    const auto low = static_cast<unsigned long long>(random() & 0x0fffffffffff);
    line_ = "{\"!!CV\":\"0.1\"";
    append_member("exchange", adx ? "dblclk_adx" : "context_web");
    append_member("id", print("%x-35b6-4001-15e8-a%011llx", high, low));
    if (adx || chance(0.669)) append_member("language", chance(0.991) ? "en" : "fr");
    append_location();
    line_ += ",\"protocolVersion\":\"0.2\",\"provider\":\"AdGear\"";
    append_restrictions(exchange);
    append_segments(exchange);
    line_.append(",\"spots\":[{\"formats\":[\"").append(format());
    line_ += "\"],\"id\":\"1\",\"position\":\"NONE\",\"reservePrice\":0}],\"timestamp\":";
    line_ += seconds(stamp_us());
    if (!adx || !chance(0.0618)) append_member("url", url());
    append_member("userAgent", user_agent(exchange));
    append_user_ids(exchange);
    line_ += "}";
    return line_;
}

}  // namespace bidstore
