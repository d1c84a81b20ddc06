#include "tests/sim_oracle.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

namespace bidstore {
namespace {

constexpr std::uint64_t kOrdersMax = 50'000;  // looked at before the search gives up
constexpr std::int64_t kNoPlace = std::numeric_limits<std::int64_t>::max();

std::string name_of(std::uint32_t writer, std::uint64_t number) {
    return "write " + std::to_string(number) + " of writer " + std::to_string(writer);
}

// A wide range, several large values, or many rows may need more frames than a small pool has.
bool may_be_too_large(const Operations& operations) {
    return operations.size() > 4 ||
           std::any_of(operations.begin(), operations.end(), [](const Operation& each) {
               return each.kind == OperationKind::kDeleteRange || each.body.size() > kRowBytesMax ||
                      each.content.size() > 2'000;
           });
}

}  // namespace

// ---- answers ----

void Oracle::answered(std::uint32_t writer, std::uint64_t number, const Operations& operations,
                      bool durable, bool decided_before, const Answer& answer) {
    auto& places = places_[writer];
    const auto known = places.find(number);
    if (answer.error != Error::kOk) {
        if (known != places.end()) {
            return findings_.report(name_of(writer, number) + " had been applied at place " +
                                    std::to_string(known->second) + " and was then refused with " +
                                    std::string(error_name(answer.error)));
        }
        if (excuses_.cover(answer.error, decided_before)) return;
        refused_.push_back({writer, number, operations, answer.error, answer.failed_operation});
        return;
    }
    if (answer.result_count == 0) {  // sent again: it had been applied
        if (known == places.end())
            unseen_[writer].push_back({writer, number, operations, {}, false});
        if (known != places.end()) durable_ = std::max(durable_, known->second);
        return;
    }
    if (known != places.end()) {
        return findings_.report(name_of(writer, number) + " was applied twice");
    }
    const std::int64_t place = answer.result[answer.result_count - 1];
    places[number] = place;
    if (durable) durable_ = std::max(durable_, place);
    Applied applied{writer,     number,
                    operations, {answer.result, answer.result + answer.result_count},
                    true,       answer.csn};
    if (place <= model_.newest() || !waiting_.emplace(place, std::move(applied)).second) {
        return findings_.report(name_of(writer, number) + " got place " + std::to_string(place) +
                                " of the serial order, which was taken");
    }
    follow();
}

bool Oracle::apply(const Applied& applied) {
    Evaluation evaluation = model_.evaluation(model_.newest());
    const Outcome expected = evaluation.run(applied.operations);
    const std::string name =
        name_of(applied.writer, applied.number) + ", place " + std::to_string(model_.newest() + 1);
    if (expected.error != Error::kOk) {
        findings_.report(name + ", was applied, and should have been refused with " +
                         std::string(error_name(expected.error)) + " at operation " +
                         std::to_string(expected.failed));
        return false;
    }
    if (applied.seen && applied.results != expected.results) {
        findings_.report(name + ", was answered with wrong results");
        return false;
    }
    if (applied.csn != 0 && applied.csn < model_.newest_csn()) {
        findings_.report(name + ", has a csn below that of the place before");
        return false;
    }
    model_.apply(evaluation, applied.csn != 0 ? std::optional(applied.csn) : std::nullopt);
    return true;
}

void Oracle::follow() {
    while (!waiting_.empty() && waiting_.begin()->first == model_.newest() + 1) {
        if (!apply(waiting_.begin()->second)) return;
        waiting_.erase(waiting_.begin());
    }
    judge_reads();
}

// What was sent again after its connection broke, and had been applied, has the places that are
// left; a writer's writes keep their order. Where several connections broke, the write with the
// least place that it must lie below comes first.
void Oracle::place_unseen() {
    const auto below = [this](std::uint32_t writer) {
        const auto next = places_[writer].upper_bound(unseen_[writer].front().number);
        return next == places_[writer].end() ? kNoPlace : next->second;
    };
    while (!findings_.any()) {
        follow();
        std::optional<std::uint32_t> first;
        for (std::uint32_t writer = 0; writer < unseen_.size(); ++writer) {
            if (unseen_[writer].empty()) continue;
            if (!first || below(writer) < below(*first)) first = writer;
        }
        if (!first) return;
        const Applied& write = unseen_[*first].front();
        places_[*first][write.number] = model_.newest() + 1;
        durable_ = std::max(durable_, model_.newest() + 1);
        if (!apply(write)) return;
        unseen_[*first].pop_front();
    }
}

void Oracle::settle() {
    place_unseen();
    if (findings_.any()) return;
    if (!waiting_.empty()) {
        return findings_.report("place " + std::to_string(model_.newest() + 1) +
                                " of the serial order is nobody's");
    }
    for (const Refused& refused : refused_) {
        const std::string wrong = unexplained(refused, places_[refused.writer]);
        if (!wrong.empty()) return findings_.report(wrong);
    }
    refused_.clear();
}

// Between its writer's transactions before and after it, which have these places, there is a state
// that refuses it so.
std::string Oracle::unexplained(const Refused& refused, const Places& places) const {
    if (refused.error == Error::kTooLarge && may_be_too_large(refused.operations)) return {};
    const auto after = places.upper_bound(refused.number);
    const std::int64_t high = after == places.end() ? model_.newest() : after->second - 1;
    const std::int64_t low = after == places.begin() ? 0 : std::prev(after)->second;
    for (std::int64_t place = high; place >= low; --place) {
        const Outcome outcome = model_.evaluation(place).run(refused.operations);
        if (outcome.error == refused.error && outcome.failed == refused.failed) return {};
    }
    return name_of(refused.writer, refused.number) + " was refused with " +
           std::string(error_name(refused.error)) + " at operation " +
           std::to_string(refused.failed) + ", which no state from " + std::to_string(low) +
           " to " + std::to_string(high) + " explains";
}

// ---- reads ----

void Oracle::saw_row(std::int64_t place, std::uint32_t table, const Bytes& key, TableRows row) {
    seen_.push_back({place, table, true, key, {}, std::move(row)});
    judge_reads();
}

void Oracle::saw_rows(std::int64_t place, std::uint32_t table, const Bytes& from, const Bytes& to,
                      TableRows rows) {
    seen_.push_back({place, table, false, from, to, std::move(rows)});
    judge_reads();
}

std::string Oracle::unlike(const Seen& seen) const {
    TableRows expected;
    if (seen.one) {
        if (const auto value = model_.get(seen.table, seen.from, seen.place)) {
            expected[seen.from] = *value;
        }
    } else {
        expected = model_.range(seen.table, seen.from, seen.to, seen.place);
    }
    return difference(seen.rows, expected);
}

void Oracle::judge_reads() {
    std::erase_if(seen_, [&](const Seen& seen) {
        if (seen.place > model_.newest()) return false;
        const std::string wrong = unlike(seen);
        if (!wrong.empty()) {
            findings_.report("a snapshot of place " + std::to_string(seen.place) + ", table " +
                             std::to_string(seen.table) + ": " + wrong);
        }
        return true;
    });
}

// ---- recovery ----

// One of the writer's smaller numbers has a place behind this one.
bool Oracle::waits_below(std::uint32_t writer, std::uint64_t number, std::int64_t place) const {
    const auto& places = places_[writer];
    const auto next = places.lower_bound(number);
    return next != places.begin() && std::prev(next)->second > place;
}

// Finds an order of the unanswered writes that gives the recovered rows.
class Oracle::Order {
  public:
    Order(Oracle& oracle, std::int64_t witness, const std::array<TableRows, kTables>& rows,
          const std::vector<std::deque<UnknownWrite>>& unknown)
        : oracle_(oracle),
          model_(oracle.model_),
          before_(oracle.model_.newest()),
          witness_(witness),
          rows_(rows),
          left_(unknown) {}

    bool find() {
        if (++looked_ > kOrdersMax) return false;
        const std::int64_t place = model_.newest();
        if (place == witness_ && done()) return fits();
        for (std::uint32_t writer = 0; writer < left_.size(); ++writer) {
            if (!left_[writer].empty() && try_next(writer)) return true;
            model_.truncate(place);
        }
        return place < witness_ && try_known();
    }
    bool gave_up() const { return looked_ > kOrdersMax; }
    const std::vector<std::pair<std::uint32_t, std::uint64_t>>& chosen() const { return chosen_; }
    const std::string& wrong() const { return wrong_; }

  private:
    bool done() const {
        return std::all_of(left_.begin(), left_.end(),
                           [](const auto& each) { return each.empty(); });
    }

    bool try_next(std::uint32_t writer) {
        const UnknownWrite write = left_[writer].front();
        // Those that it sent before come before it.
        if (oracle_.waits_below(writer, write.number, model_.newest())) return false;
        if (write.refusal) {
            if (!explained(writer, write)) return false;
            left_[writer].pop_front();
            if (find()) return true;
        } else {
            Evaluation evaluation = model_.evaluation(model_.newest());
            const bool applies = evaluation.run(*write.operations).error == Error::kOk;
            if (!applies || !next_place_is_free()) return false;
            left_[writer].pop_front();
            model_.apply(evaluation, std::nullopt);
            chosen_.emplace_back(writer, write.number);
            if (find()) return true;
            chosen_.pop_back();
        }
        left_[writer].push_front(write);
        return false;
    }

    // It was refused somewhere behind what its writer sent before it, perhaps before others' writes
    // whose places are known: these may have been answered, and it not.
    bool explained(std::uint32_t writer, const UnknownWrite& write) const {
        const std::int64_t low = place_below(writer, write.number);
        for (std::int64_t place = model_.newest(); place >= low; --place) {
            if (explains(model_.evaluation(place).run(*write.operations), write)) return true;
        }
        return false;
    }

    // Of the writer's last one before this number; 0: there is none.
    std::int64_t place_below(std::uint32_t writer, std::uint64_t number) const {
        for (std::size_t i = chosen_.size(); i > 0; --i) {
            if (chosen_[i - 1].first == writer) return before_ + static_cast<std::int64_t>(i);
        }
        const auto& places = oracle_.places_[writer];
        const auto next = places.lower_bound(number);
        return next == places.begin() ? 0 : std::prev(next)->second;
    }

    bool next_place_is_free() const {
        return model_.newest() < witness_ && !oracle_.waiting_.contains(model_.newest() + 1);
    }

    bool explains(const Outcome& outcome, const UnknownWrite& write) const {
        const Refusal& refusal = *write.refusal;
        if (outcome.error == refusal.error && outcome.failed == refusal.operation) return true;
        if (refusal.error == Error::kTooLarge && may_be_too_large(*write.operations)) return true;
        return oracle_.excuses_.cover(refusal.error, true);
    }

    bool try_known() {
        const std::int64_t place = model_.newest();
        const auto known = oracle_.waiting_.find(place + 1);
        if (known == oracle_.waiting_.end()) return false;
        // Those that its writer sent before it come before it.
        const auto& left = left_[known->second.writer];
        if (!left.empty() && left.front().number < known->second.number) return false;
        Evaluation evaluation = model_.evaluation(place);
        const Outcome outcome = evaluation.run(known->second.operations);
        if (outcome.error != Error::kOk || outcome.results != known->second.results) return false;
        model_.apply(evaluation, std::max(known->second.csn, model_.newest_csn()));
        chosen_.emplace_back(known->second.writer, known->second.number);
        if (find()) return true;
        chosen_.pop_back();
        model_.truncate(place);
        return false;
    }

    bool fits() {
        for (std::uint32_t table = 0; table < kTables; ++table) {
            const std::string unlike =
                difference(rows_[table], model_.range(table, {}, {}, witness_));
            if (unlike.empty()) continue;
            if (wrong_.empty()) wrong_ = "table " + std::to_string(table) + ": " + unlike;
            return false;
        }
        for (const Seen& seen : oracle_.seen_) {
            if (seen.place > witness_) continue;
            const std::string unlike = oracle_.unlike(seen);
            if (unlike.empty()) continue;
            if (wrong_.empty()) wrong_ = "what a snapshot saw before: " + unlike;
            return false;
        }
        for (const Refused& refused : oracle_.refused_) {
            const std::string unexplained =
                oracle_.unexplained(refused, places_with_chosen(refused.writer));
            if (unexplained.empty()) continue;
            if (wrong_.empty()) wrong_ = unexplained;
            return false;
        }
        return true;
    }

    Places places_with_chosen(std::uint32_t writer) const {
        Places places = oracle_.places_[writer];
        for (std::size_t i = 0; i < chosen_.size(); ++i) {
            if (chosen_[i].first != writer) continue;
            places[chosen_[i].second] = before_ + 1 + static_cast<std::int64_t>(i);
        }
        return places;
    }

    Oracle& oracle_;
    Model& model_;
    const std::int64_t before_;  // the newest place that is known
    std::int64_t witness_;
    const std::array<TableRows, kTables>& rows_;
    std::vector<std::deque<UnknownWrite>> left_;
    std::vector<std::pair<std::uint32_t, std::uint64_t>> chosen_;  // of the places that follow
    std::string wrong_;
    std::uint64_t looked_ = 0;
};

// What was accepted and never durable is gone; and a session's number goes with its writes.
void Oracle::take_back(std::int64_t witness, const std::vector<std::uint64_t>& decided) {
    for (std::uint32_t writer = 0; writer < places_.size(); ++writer) {
        for (const auto& [number, place] : places_[writer]) {
            if ((place <= witness) == (number <= decided[writer])) continue;
            return findings_.report(name_of(writer, number) + " has place " +
                                    std::to_string(place) + " of " + std::to_string(witness) +
                                    " recovered ones, but its session says that write " +
                                    std::to_string(decided[writer]) + " was the last");
        }
        std::erase_if(places_[writer], [&](const auto& entry) { return entry.second > witness; });
    }
    model_.truncate(witness);
    waiting_.erase(waiting_.upper_bound(witness), waiting_.end());
}

void Oracle::recovered(std::int64_t witness, const std::array<TableRows, kTables>& rows,
                       const std::vector<std::uint64_t>& decided,
                       const std::vector<std::deque<UnknownWrite>>& unknown) {
    if (witness < durable_) {
        return findings_.report("recovery kept " + std::to_string(witness) +
                                " transactions; place " + std::to_string(durable_) +
                                " was acknowledged as durable or seen by a reader");
    }
    // What refused them may be gone, and what they came after without an answer be decided anew,
    // behind them: they are judged by what was there, here or by the order that is found.
    std::erase_if(refused_, [&](const Refused& refused) {
        return unexplained(refused, places_[refused.writer]).empty();
    });
    take_back(witness, decided);
    if (findings_.any()) return;
    const std::int64_t before = model_.newest();
    std::vector<std::deque<UnknownWrite>> all = unknown;
    for (std::uint32_t writer = 0; writer < all.size(); ++writer) {
        // Placed or explained by the recovery before, and cut off again before it was answered.
        std::erase_if(all[writer], [&](const UnknownWrite& write) {
            return places_[writer].contains(write.number) ||
                   explained_[writer].contains(write.number);
        });
        // Refused before one that has its place: its answer is judged by the states before that.
        std::erase_if(all[writer], [&](const UnknownWrite& write) {
            const auto next = places_[writer].upper_bound(write.number);
            return write.refusal && next != places_[writer].end() && next->second <= before;
        });
        for (const Applied& unseen : unseen_[writer]) {
            all[writer].push_back({unseen.number, &unseen.operations, {}});
        }
        std::sort(all[writer].begin(), all[writer].end(),
                  [](const auto& a, const auto& b) { return a.number < b.number; });
    }
    Order order(*this, witness, rows, all);
    if (!order.find()) {
        if (order.gave_up()) return findings_.report("too many orders to look at");
        return findings_.report("after recovery the rows are those of no order of the " +
                                std::to_string(witness - before) + " transactions behind place " +
                                std::to_string(before) + ": " + order.wrong());
    }
    std::int64_t place = before;
    for (const auto& [writer, number] : order.chosen()) places_[writer][number] = ++place;
    for (std::uint32_t writer = 0; writer < all.size(); ++writer) {
        for (const UnknownWrite& write : all[writer]) {
            if (write.refusal) explained_[writer].insert(write.number);
        }
    }
    waiting_.clear();
    refused_.clear();
    for (auto& unseen : unseen_) unseen.clear();
    durable_ = uncertain_to_ = witness;
    uncertain_from_ = before;
    std::erase_if(seen_, [&](const Seen& seen) { return seen.place > witness; });
    judge_reads();
}

}  // namespace bidstore
