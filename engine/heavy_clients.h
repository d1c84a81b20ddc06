// Clients whose transactions take long, and when theirs are taken. A transaction of a few bytes may
// have the engine look at 200,000 rows, and be refused in the end: whoever sends these one behind
// the other would have all of the engine's time, a turn for a turn.
//
// A client whose transactions mostly take long is heavy. Long is eight times what those of the
// client take whose are shortest, 0.5 ms at least and 2 ms at most: so a slow host, or a build
// that looks at everything, makes nobody heavy; nor does a single one that had to make room for
// others. After a transaction of a heavy client comes a rest, twice as long as that took, in
// which none of any heavy client is taken: together they have a third of the time, however many
// they are. Without others there is no rest: only where one of theirs, or a page request, was
// taken not long before. Page requests of heavy clients are taken at all times.
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
    static constexpr std::uint64_t kHeavyNs = 500'000;
    static constexpr std::uint64_t kHeavyNsMost = 2'000'000;
    static constexpr std::uint64_t kHeavyTimes = 8;  // what is usual
    static constexpr std::uint64_t kRests = 2;       // times as long as it took
    static constexpr std::uint64_t kRememberedNs = 1'000'000'000;
    // Others are at work while not more than that, and so many times what the heavy one took, has
    // gone by since something of theirs was taken. Who writes one row after the other and reads in
    // between comes again in that time, also where heavy ones are still taken one behind the other:
    // one may be ahead of a write, two of its way to the log and back, one of the next.
    static constexpr std::uint64_t kAgainNs = 10'000'000;
    static constexpr std::uint64_t kAhead = 8;

    // Of one client, kept with it.
    struct Mark {
        std::uint32_t user = 0;
        std::uint64_t until_ns = 0;  // heavy until then, or until some that take no time
        std::uint64_t usual_ns = 0;  // what one of its transactions takes, a moving average
    };

    explicit HeavyClients(Clock& clock) : clock_(clock) {}

    // Of a new client. A user's new connections are as heavy as the last ones before them.
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
    // A transaction of the client was looked at from `began_ns` to `ended_ns`. True: it took long.
    bool took(Mark& mark, std::uint64_t began_ns, std::uint64_t ended_ns);
    // Something else of the client was looked at: a page request, or what needed no look at rows.
    void asked(const Mark& mark, std::uint64_t now_ns) {
        their_turn_ = !heavy(mark, now_ns);
        if (their_turn_) others_ns_ = now_ns;
    }

  private:
    // Reading what the thread ran for is a system call, so one reading serves that long.
    static constexpr std::uint64_t kReadingNs = 200'000;

    std::uint64_t heavy_ns() const;
    void learn(Mark& mark, std::uint64_t took_ns, std::uint64_t now_ns);
    std::uint64_t ran_ns(std::uint64_t began_ns, std::uint64_t ended_ns);

    Clock& clock_;
    std::unordered_map<std::uint32_t, Mark> users_;  // of heavy clients, only some seconds old
    std::uint64_t until_ns_ = 0;                     // of all; 0: nobody is
    std::uint64_t rest_until_ns_ = 0;
    std::uint64_t others_ns_ = 0;  // when something of the others was taken last
    bool their_turn_ = true;
    std::uint64_t usual_ns_ = 0;     // of the client whose are shortest,
    std::uint64_t usual_at_ns_ = 0;  // as of then
    std::uint64_t reading_ns_ = 0;   // by the clock
    std::uint64_t reading_ran_ns_ = 0;
};

}  // namespace bidstore
