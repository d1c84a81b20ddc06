// How many sessions of one user are remembered: a client that begins one after the other, each with
// a write of its own, must not fill the table of sessions.
//
// A walk over all rows (engine/engine_housekeeping.cc) counts those of each user, by age; the next
// one lets the oldest go of a user who has an eighth more than the bound. A walk begins as soon as
// so many are new. So a user never has many more than that for long, and where the rows of honest
// clients are among them, those that were used of late stay. Nothing of it is stored: the first
// walk of a life counts anew, and comes when clients of the life before had time to come back.
//
// Who:    the engine thread alone.
// Ages:   by quarters of powers of two: of two rows of about one age either may go first.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>

namespace bidstore {

class SessionBound {
  public:
    explicit SessionBound(std::uint32_t rows_max) : rows_max_(rows_max) {}

    // A session got its first row.
    void made() { ++made_; }
    bool walk_is_due() const { return made_ > slack() || !plans_.empty(); }

    void begin_walk(std::uint64_t now_us);
    // Of each row in turn: whether it goes, unless a client has it; then what became of it.
    bool goes(std::uint32_t uid, std::uint64_t seen_us) const;
    void gone(std::uint32_t uid, std::uint64_t seen_us);
    void stays(std::uint32_t uid, std::uint64_t seen_us);
    void end_walk();

    // Of a user who has too many: so many go in the next walk.
    struct Plan {
        std::uint32_t rows = 0;
        std::uint32_t age = 0;   // all that are older, by age_of(),
        std::uint32_t left = 0;  // and so many of this age
    };
    const std::unordered_map<std::uint32_t, Plan>& plans() const { return plans_; }
    std::uint32_t rows_max() const { return rows_max_; }

  private:
    static constexpr std::uint32_t kAges = 256;
    using Ages = std::array<std::uint32_t, kAges>;

    static std::uint32_t age_of(std::uint64_t seen_us, std::uint64_t now_us);
    std::uint32_t slack() const { return rows_max_ / 8; }

    const std::uint32_t rows_max_;
    std::uint64_t made_ = 0;                        // since the last walk began
    std::uint64_t now_us_ = 0;                      // when it began
    std::uint64_t plans_us_ = 0;                    // when the one before it began
    std::unordered_map<std::uint32_t, Ages> rows_;  // by user
    std::unordered_map<std::uint32_t, Plan> plans_;
};

}  // namespace bidstore
