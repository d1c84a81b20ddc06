// Clients whose transactions take long, and when theirs are taken. A transaction of a few bytes may
// have the engine look at 200,000 rows, and be refused in the end: whoever sends these one behind
// the other would have all of the engine's time, a turn for a turn.
//
// Who sent one that took longer than kHeavyNs is heavy for a second. After a transaction of a heavy
// client comes a rest, twice as long as that took, in which none of any heavy client is taken:
// together they have a third of the time, however many they are. Without others there is no rest:
// only where one of theirs was taken just before. Their page requests are taken at all times.
//
// What counts is the time that the engine's thread ran: one that was put aside in the middle of a
// transaction makes nobody heavy.
//
// Who:    the engine thread alone.
// Source: rests in proportion to what was used, as a scheduler with bandwidth limits has them.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "engine/clock.h"

namespace bidstore {

class HeavyClients {
  public:
    static constexpr std::uint64_t kHeavyNs = 200'000;
    static constexpr std::uint64_t kRests = 2;  // times as long as it took
    static constexpr std::uint64_t kRememberedNs = 1'000'000'000;
    // One that writes again as soon as it has its answer does so within that time.
    static constexpr std::uint64_t kAgainNs = 1'000'000;

    // Of one client, kept with it.
    struct Mark {
        std::uint32_t user = 0;
        std::uint64_t until_ns = 0;  // heavy until then
    };

    explicit HeavyClients(Clock& clock) : clock_(clock) {}

    // Of a new client. A user's new connections are as heavy as the ones before them.
    Mark mark(std::uint32_t user, std::uint64_t now_ns);
    // Whether there may be a heavy one; if not, nobody need look at the clock.
    bool any() const { return until_ns_ != 0; }
    static bool heavy(const Mark& mark, std::uint64_t now_ns) { return mark.until_ns > now_ns; }
    // None of heavy clients is taken for so long; 0: there is no rest.
    std::uint64_t rest_ns(std::uint64_t now_ns) const {
        return now_ns < rest_until_ns_ ? rest_until_ns_ - now_ns : 0;
    }
    // Whose turn it is where heavy clients and others have something.
    bool their_turn() const { return their_turn_; }

    // Requests are about to be taken, at that time.
    void begin(std::uint64_t now_ns);
    // A transaction of the client was looked at from `began_ns` to `ended_ns`. True: it was a heavy
    // one.
    bool took(Mark& mark, std::uint64_t began_ns, std::uint64_t ended_ns);

  private:
    // Reading what the thread ran for is a system call, so one reading serves that long.
    static constexpr std::uint64_t kReadingNs = 200'000;

    std::uint64_t ran_ns(std::uint64_t began_ns, std::uint64_t ended_ns);

    Clock& clock_;
    std::unordered_map<std::uint32_t, std::uint64_t> users_;  // heavy until; only some seconds old
    std::uint64_t until_ns_ = 0;                              // of all; 0: nobody is
    std::uint64_t rest_until_ns_ = 0;
    std::uint64_t others_ns_ = 0;  // when one of the others was taken last
    bool their_turn_ = true;
    std::uint64_t reading_ns_ = 0;  // by the clock
    std::uint64_t reading_ran_ns_ = 0;
};

}  // namespace bidstore
