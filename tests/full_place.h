// What the last life of a kill campaign ends with: clients that take every place and slot there is.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/kill_oracle.h"
#include "tests/real_store.h"

namespace bidstore {

// In the last life. The store of the test, four processes, the keeper's second connection, and one
// that only looks at the pool; each has slots for the readers of the writers and of the audit.
inline constexpr std::size_t kPlaces = 7;
inline constexpr std::size_t kSlotsOfPlace = 8;
inline constexpr std::uint64_t kRowsOfPlace = 64;

// One of the clients that take all places of a daemon, with all slots that a client has. Their rows
// are behind those of all writers.
class FullPlace {
  public:
    explicit FullPlace(const RealDaemon& daemon)
        : store_(attach(daemon)), events_(need(store_.open<Event>(soon()))) {
        for (std::size_t i = 1; i < kSlotsOfPlace; ++i) {  // the store has one for its catalog
            readers_.push_back(need(store_.reader()));
            snapshots_.push_back(need(readers_.back().snapshot(soon())));
        }
        EXPECT_FALSE(store_.reader().ok()) << "it has more slots than were set";
    }

    static std::uint64_t first_time(std::size_t place) {
        return std::uint64_t{kWritersMax} * kSlots + place * kRowsOfPlace;
    }
    void write(std::size_t place) {
        const std::string text(1000, 'p');
        Transaction rows;
        for (std::uint64_t i = 0; i < kRowsOfPlace; ++i) {
            rows.put(events_,
                     {.time = first_time(place) + i, .source = 0, .kind = 0, .text = text});
        }
        need(store_.commit(rows, soon()));
    }
    // All have written, and nobody had when the snapshots were taken.
    void expect_rows(std::size_t count) {
        for (const Snapshot& snapshot : snapshots_) EXPECT_EQ(rows_in(snapshot), 0u);
        snapshots_.clear();
        for (Reader& reader : readers_) {
            EXPECT_EQ(rows_in(need(reader.snapshot(soon()))), count);
        }
    }

  private:
    std::size_t rows_in(const Snapshot& snapshot) const {
        return need(rows_between<Event>(snapshot, events_, events_.prefix(first_time(0)), {}))
            .size();
    }

    Store store_;
    Table<Event> events_;
    std::vector<Reader> readers_;
    std::vector<Snapshot> snapshots_;
};

}  // namespace bidstore
