// Page traces: made here, taken from a bid log, or read from a file.
//
// Who: bench/evict_replay.cc alone, one thread. The same options give the same trace each time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shm/error.h"

namespace bench {

enum class AccessKind : std::uint8_t {
    kRead,     // by a client, in place: the engine hears of one in 16
    kHotRead,  // the same, of the hot set
    kWrite,    // by the engine itself
    kBorn,     // the engine made the page: nothing is read, nothing is missed
    kScan,     // by the one scan of the whole table that a trace may have: not counted
};

struct Trace {
    std::string name;
    std::string what;
    std::uint32_t page_count = 0;  // pages are numbered below it
    std::uint32_t data_pages = 0;  // what pool sizes are shares of
    std::vector<std::uint32_t> pages;
    std::vector<AccessKind> kinds;  // of each access; empty: all are reads
    std::size_t counted_from = 0;   // what comes before fills the pool

    // Traces with time: of each access, and each page's newest row at the end. In milliseconds.
    std::vector<std::uint32_t> now_ms;
    std::vector<std::uint32_t> newest_ms;
    std::vector<bool> inner;  // by page; empty: none is an inner node

    AccessKind kind(std::size_t access) const {
        return kinds.empty() ? AccessKind::kRead : kinds[access];
    }
};

// The seed workload: one hour of rows, 14 to a leaf, `leaves` of them; 80 % point reads (87 % of
// them of the newest five minutes, the rest of everything), 15 % scans of 50 rows of the newest 30
// seconds, 5 % inserts at the head of time. In the order of time; `by_entity`: in the order of
// entity and time, scans of an entity's newest 50 rows. `scan`: the whole table is read once, a
// leaf between two operations.
struct SeedOptions {
    std::uint32_t leaves = 100'000;
    std::uint32_t operations = 2'000'000;
    bool by_entity = false;
    bool scan = false;
};
Trace seed_trace(const SeedOptions& options);

// What comes with the tool: zipf, loop and their kin.
std::vector<Trace> general_traces();

// A log of bid requests (JSON lines, gzip or not), as a bidder works on it: look up the user, look
// at the caps of user and site, note the auction; `path` empty: a log made up here.
bidstore::Result<Trace> bid_log_trace(const std::string& path);

// One page number a line.
bidstore::Result<Trace> file_trace(const std::string& path);

}  // namespace bench
