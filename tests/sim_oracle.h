// The oracle of the simulation: what the shared tables (tests/model.h) hold in the serial order of
// all writers' transactions, and whether every answer, every read and every recovery fits it.
//
// The order is told by the witness: each transaction ends with an add of 1 to one shared row, and
// the sum is its place. What a reader saw is kept with the place of its snapshot and judged when
// everything up to there is known. After a crash the witness says how many transactions are left,
// the sessions say which write of each client was the last and which were refused, and the rows
// have to be those of one order of the unanswered ones that explains each of these refusals.
//
// Who: SimWriters tell it about answers, SimReaders about reads, SimWorld about recoveries.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/sessions.h"
#include "tests/model_maker.h"
#include "tests/sim_findings.h"

namespace bidstore {

using Operations = std::vector<Operation>;
using TableRows = std::map<Bytes, Bytes>;

// A write without an answer that the session counts as decided.
struct UnknownWrite {
    std::uint64_t number = 0;
    const Operations* operations = nullptr;
    std::optional<Refusal> refusal;  // that its session's row remembers; none: it was applied
};

class Oracle {
  public:
    Oracle(Findings& findings, const Excuses& excuses, std::uint32_t writers)
        : findings_(findings),
          excuses_(excuses),
          places_(writers),
          unseen_(writers),
          explained_(writers) {
        model_.bury_below(kRetained, Maker::kLongAgo);
    }

    // ---- answers ----
    // decided_before: as for Excuses::cover().
    void answered(std::uint32_t writer, std::uint64_t number, const Operations& operations,
                  bool durable, bool decided_before, const Answer& answer);
    // Nothing is in flight: every place is known, or finds its writer now; refusals are judged.
    void settle();
    // What is newest and certain to be durable.
    std::int64_t durable() const { return durable_; }
    std::int64_t newest() const { return model_.newest(); }

    // ---- reads ----
    // A snapshot shows the state of this place: what it shows is durable.
    void published(std::int64_t place) { durable_ = std::max(durable_, place); }
    void saw_row(std::int64_t place, std::uint32_t table, const Bytes& key, TableRows row);
    void saw_rows(std::int64_t place, std::uint32_t table, const Bytes& from, const Bytes& to,
                  TableRows rows);
    TableRows rows(std::uint32_t table) const { return rows(table, model_.newest()); }
    TableRows rows(std::uint32_t table, std::int64_t place) const {
        return model_.range(table, {}, {}, place);
    }
    // Whether the state of the place is known: between the last one that was known when the newest
    // recovery came and the last one that this found, writes without an answer may have come in
    // another order, which leads to the same rows.
    bool certain(std::int64_t place) const {
        return place <= uncertain_from_ || place >= uncertain_to_;
    }
    // The newest place that is in none of the newest so many batches with a place.
    std::int64_t place_before_batches(std::uint32_t batches) const {
        return model_.place_before_batches(batches);
    }

    // ---- recovery ----
    // After it: which of the unanswered writes were applied, and the rows are the recovered ones.
    // decided: by writer, the newest number that its session says was applied.
    void recovered(std::int64_t witness, const std::array<TableRows, kTables>& rows,
                   const std::vector<std::uint64_t>& decided,
                   const std::vector<std::deque<UnknownWrite>>& unknown);

  private:
    struct Applied {
        std::uint32_t writer = 0;
        std::uint64_t number = 0;
        Operations operations;
        std::vector<std::int64_t> results;
        bool seen = true;  // the answer had results
        std::uint64_t csn = 0;
    };
    struct Refused {
        std::uint32_t writer = 0;
        std::uint64_t number = 0;
        Operations operations;
        Error error = Error::kOk;
        std::uint32_t failed = 0;
    };
    struct Seen {
        std::int64_t place = 0;
        std::uint32_t table = 0;
        bool one = false;
        Bytes from;
        Bytes to;
        TableRows rows;
    };
    using Places = std::map<std::uint64_t, std::int64_t>;  // of a writer, by number
    class Order;  // the search for the order of unanswered writes

    void follow();
    bool apply(const Applied& applied);
    void place_unseen();
    bool waits_below(std::uint32_t writer, std::uint64_t number, std::int64_t place) const;
    std::string unexplained(const Refused& refused, const Places& places) const;
    void judge_reads();
    std::string unlike(const Seen& seen) const;
    void take_back(std::int64_t witness, const std::vector<std::uint64_t>& decided);

    Findings& findings_;
    const Excuses& excuses_;
    Model model_;
    std::int64_t durable_ = 0;
    std::int64_t uncertain_from_ = 0;  // and to: certain()
    std::int64_t uncertain_to_ = 0;
    std::map<std::int64_t, Applied> waiting_;  // behind a place that is not known yet
    std::vector<Places> places_;               // by writer
    std::vector<std::deque<Applied>> unseen_;  // applied, place unknown, in order of their numbers
    std::vector<Refused> refused_;
    std::vector<std::set<std::uint64_t>> explained_;  // refusals that a recovery found a state for
    std::vector<Seen> seen_;
};

}  // namespace bidstore
