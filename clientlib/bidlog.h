// Makes bid requests with the shape of a captured log of January 2012: two exchanges, the same JSON
// members, rates, id forms, repeats of users, lateness. All names and ids are made up.
//
//   rate      619 requests a second, at random times; 55 % dblclk_adx, 45 % context_web
//   id        a UUID whose first group lost its leading zeros in one row of 16
//   time      the writer gets requests up to 130 ms late: about 4 of 10 are older than one before
//   user      27 digits (AdX) or 22 (ContextWeb) of base64url; 7 in 100 come back; one id of 11
//             digits, shared by all who opted out, is 2.5 % of all rows; 3.7 % have none
//   url       missing in 6 % of the AdX rows; a few hosts are much more frequent than the rest
//
// Who:    bidstore-genlog and tests. One thread.
// Again:  the same seed gives the same lines on every machine.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bidstore {

struct BidLogOptions {
    std::uint64_t seed = 1;
    std::uint64_t start_us = 1326240000'000000;  // 2012-01-11 00:00:00 UTC
    double requests_per_second = 619;
};

class BidLog {
  public:
    explicit BidLog(const BidLogOptions& options);
    // One request as a line of JSON without its "\n"; valid until the next call.
    std::string_view next();

  private:
    enum class Exchange : std::uint8_t { kAdx, kContextWeb };

    std::uint64_t random();
    double uniform();                         // [0, 1)
    std::uint64_t below(std::uint64_t bound);  // [0, bound)
    bool chance(double share) { return uniform() < share; }
    double exponential(double mean);

    std::uint64_t stamp_us();
    std::string user(Exchange exchange);
    std::string new_user(Exchange exchange);
    std::string host();
    std::string url();
    std::string user_agent(Exchange exchange);
    std::string_view format();
    void append_location();
    void append_restrictions(Exchange exchange);
    void append_segments(Exchange exchange);
    void append_user_ids(Exchange exchange);
    void append_member(std::string_view name, std::string_view text);

    BidLogOptions options_;
    std::uint64_t state_;
    double now_us_ = 0;  // since the start
    // Users seen, once per time they were seen, so that frequent ones come back more often.
    std::array<std::vector<std::string>, 2> seen_;
    std::array<std::size_t, 2> oldest_{};
    std::string line_;
};

}  // namespace bidstore
