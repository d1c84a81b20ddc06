// The tables of the example bidder, as structs. `bids` and `users` are what
// clientlib/mappings/bidreq-20120111.toml makes and fills; the other two belong to the example.
#pragma once

#include <cstdint>
#include <string_view>

#include "clientlib/bidstore.h"

namespace example {

using Id = bidstore::Bytes<16>;

// A bid request.
struct Bid {
    std::uint64_t time = 0;
    Id auction;
    Id user;  // zeros: the request names none
    std::string_view exchange;
    std::string_view formats;
    std::string_view url;
    std::string_view request;  // as it came
};

struct User {
    Id id;
    std::uint64_t requests = 0;
    std::uint64_t wins = 0;
    std::uint64_t last_seen = 0;
    std::string_view last_host;
};

struct Advertiser {
    std::uint32_t id = 0;
    std::int64_t initial = 0;  // what the budget was at the start
    std::int64_t budget = 0;   // what is left of it; never below zero
    std::uint64_t wins = 0;
};

// A bid that was won: written in one transaction with the counters that it changes, so that they
// can be worked out again from these rows.
struct Win {
    std::uint32_t bidder = 0;
    std::uint64_t number = 0;  // of this bidder, from 1
    std::uint64_t time = 0;
    Id user;
    std::uint32_t advertiser = 0;
    std::uint32_t price = 0;
};

}  // namespace example

template <>
struct bidstore::Describe<example::Bid> {
    using Bid = example::Bid;
    static constexpr auto table = bidstore::table<Bid>(
        "bids", keys(column<&Bid::time>("time", timestamp), column<&Bid::auction>("auction")),
        values(column<&Bid::user>("user"), column<&Bid::exchange>("exchange"),
               column<&Bid::formats>("formats"), column<&Bid::url>("url"),
               column<&Bid::request>("request")),
        time_column("time"));
};

template <>
struct bidstore::Describe<example::User> {
    using User = example::User;
    static constexpr auto table = bidstore::table<User>(
        "users", keys(column<&User::id>("id")),
        values(column<&User::requests>("requests"), column<&User::wins>("wins"),
               column<&User::last_seen>("last_seen", timestamp),
               column<&User::last_host>("last_host")));
};

template <>
struct bidstore::Describe<example::Advertiser> {
    using Advertiser = example::Advertiser;
    static constexpr auto table = bidstore::table<Advertiser>(
        "advertisers", keys(column<&Advertiser::id>("id")),
        values(column<&Advertiser::initial>("initial"), column<&Advertiser::budget>("budget"),
               column<&Advertiser::wins>("wins")));
};

template <>
struct bidstore::Describe<example::Win> {
    using Win = example::Win;
    static constexpr auto table = bidstore::table<Win>(
        "wins", keys(column<&Win::bidder>("bidder"), column<&Win::number>("number")),
        values(column<&Win::time>("time", timestamp), column<&Win::user>("user"),
               column<&Win::advertiser>("advertiser"), column<&Win::price>("price")),
        time_column("time"));
};
