// The parts of the example bidder: one function per mode of the program.
//
// Errors: each prints what went wrong and gives the program's exit code.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "clientlib/example_tables.h"

namespace example {

struct Options {
    std::string socket;
    std::string directory = ".";  // for journals and measurements
    double seconds = 60;
    std::uint32_t bidder = 1;       // which of the bidders this is
    std::uint32_t advertisers = 40;
    double speed = 1;               // of the ingester: 1 is as fast as the log came
};

// How long a call may wait for a daemon that is on its way back.
constexpr std::chrono::seconds kPatience{30};

int prepare(const Options& options);
int bid(const Options& options);
int ingest(const Options& options);
int audit(const Options& options);

int fail(const bidstore::Failure& failure);
bidstore::Result<bidstore::Store> attach(const Options& options, bidstore::Rights rights);
struct Tables {
    bidstore::Table<Bid> bids;
    bidstore::Table<User> users;
    bidstore::Table<Advertiser> advertisers;
    bidstore::Table<Win> wins;
};
bidstore::Result<Tables> open_tables(bidstore::Store& store);
std::uint64_t now_us();  // of the wall clock
std::uint64_t now_ns();  // for measuring

// splitmix64.
struct Random {
    std::uint64_t state = 0;
    std::uint64_t next();
    std::uint64_t below(std::uint64_t bound) { return next() % bound; }
};
// A state that no other process has.
Random seeded();

}  // namespace example
