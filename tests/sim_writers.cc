#include "tests/sim_writers.h"

#include <algorithm>
#include <utility>

namespace bidstore {
namespace {

constexpr std::size_t kKeptMax = 4;  // by a writer: few, so that few orders are possible

SessionId random_session(Random& random) {
    SessionId id;
    for (std::uint8_t& byte : id.bytes) byte = static_cast<std::uint8_t>(random());
    return id;
}

}  // namespace

SimWriters::SimWriters(Random& random, Findings& findings, SimCounts& counts, Oracle& oracle,
                       std::uint32_t keys)
    : random_(random), findings_(findings), counts_(counts), oracle_(oracle), maker_(random, keys) {
    for (std::uint32_t i = 0; i < kWriters; ++i) {
        writers_.push_back({SimSession(findings, random_session(random), Rights::kWriter), {}});
    }
}

bool SimWriters::connect(SimLife& life) {
    return std::all_of(writers_.begin(), writers_.end(),
                       [&](Writer& writer) { return writer.session.connect(life.store); });
}

void SimWriters::send_again() {
    for (Writer& writer : writers_) {
        counts_[SimCount::kSentAgain] += writer.session.kept().size();
        writer.session.send_again();
    }
}

void SimWriters::lose() {
    for (Writer& writer : writers_) writer.session.lose();
}

std::vector<std::uint64_t> SimWriters::decided() const {
    std::vector<std::uint64_t> decided;
    for (const Writer& writer : writers_) decided.push_back(writer.session.applied());
    return decided;
}

std::vector<std::deque<UnknownWrite>> SimWriters::unknown(SimLife& life) const {
    const TableId sessions = life.store.engine->core().storage().catalog->sessions().id;
    const TableRows rows = life.store.rows(sessions);
    std::vector<std::deque<UnknownWrite>> all;
    for (const Writer& writer : writers_) {
        std::deque<UnknownWrite>& unknown = all.emplace_back();
        const auto id = std::as_bytes(std::span(writer.session.id().bytes));
        const auto row = rows.find({id.begin(), id.end()});
        if (row == rows.end()) continue;
        Session session(writer.session.id(), 0);
        CHECK(session.load(row->first.data(), row->second));  // what was written is what is taken
        for (const SimSession::Write& write : writer.session.kept()) {
            if (write.answered || write.number > writer.session.applied()) continue;
            const bool refused = session.judge(write.number, 0) == Session::Verdict::kRefused;
            unknown.push_back({write.number, &writer.sent.at(write.number).operations,
                               refused ? std::optional(session.refusal()) : std::nullopt});
        }
    }
    return all;
}

void SimWriters::send(std::uint32_t writer, Operations operations, Durability durability) {
    SimSession& session = writers_[writer].session;
    if (!session.connected() || session.kept().size() >= kKeptMax) return;
    const std::uint64_t number = session.submit(encode(operations, tables_, durability).bytes());
    if (number == 0) return;
    counts_[SimCount::kRelaxed] += durability == Durability::kRelaxed;
    for (const Operation& each : operations) {
        counts_[SimCount::kLargeValues] += each.body.size() > kRowBytesMax;
    }
    writers_[writer].sent[number] = {std::move(operations), durability == Durability::kDurable};
}

void SimWriters::fill(std::uint32_t id, std::uint32_t count) {
    Operations all;
    for (std::uint32_t i = id; i < id + count; ++i) {
        Operations rows = maker_.rows(i);
        rows.pop_back();  // one witness is enough
        for (Operation& operation : rows) {
            if (operation.body.size() <= kRowBytesMax) all.push_back(std::move(operation));
        }
    }
    send(id % kWriters, Maker::with_witness(std::move(all)), Durability::kDurable);
}

void SimWriters::submit() {
    submit_by(static_cast<std::uint32_t>(random_() % kWriters));
}

void SimWriters::submit_by(std::uint32_t writer) {
    const Durability durability = random_() % 4 == 0 ? Durability::kRelaxed : Durability::kDurable;
    send(writer, maker_.transaction(), durability);
}

void SimWriters::collect() {
    for (std::uint32_t i = 0; i < kWriters; ++i) {
        Writer& writer = writers_[i];
        writer.session.collect([&](const SimSession::Write& write) {
            const Sent& sent = writer.sent.at(write.number);
            ++counts_[write.answer.error == Error::kOk ? SimCount::kApplied : SimCount::kRefused];
            oracle_.answered(i, write.number, sent.operations, sent.durable, write.decided_before,
                             write.answer);
        });
        const auto& kept = writer.session.kept();
        const std::uint64_t first =
            kept.empty() ? writer.session.last_number() + 1 : kept.front().number;
        writer.sent.erase(writer.sent.begin(), writer.sent.lower_bound(first));
    }
}

bool SimWriters::idle() const {
    return std::all_of(writers_.begin(), writers_.end(),
                       [](const Writer& writer) { return writer.session.idle(); });
}

std::vector<std::vector<std::byte>> SimWriters::too_large() const {
    std::vector<std::vector<std::byte>> all;
    for (const Writer& writer : writers_) {
        const auto& some = writer.session.too_large();
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

bool SimWriters::settle(SimLife& life) {
    life.run([&] {
        collect();
        return idle() || findings_.any();
    });
    if (life.down() || findings_.any()) return false;
    if (!idle()) {
        findings_.report("writes have no answer, after thousands of rounds");
        return false;
    }
    oracle_.settle();
    return !findings_.any();
}

bool SimWriters::stop_one(SimLife& life) {
    SimSession& session = writers_[random_() % kWriters].session;
    if (!session.connected() || !session.stop_in_claim()) return true;
    const std::uint64_t nap_ns = life.view->header().max_snapshot_age_ns / 4;
    for (int i = 0; i < 10 && !life.down(); ++i) {
        submit();
        life.store.clock.advance_ns(random_() % nap_ns);
        life.store.round();
        collect();
    }
    ++counts_[SimCount::kStopsEnded];
    session.go_on();
    return settle(life);
}

// Writes of which some are applied, durable or not, some under way, and none answered to it.
void SimWriters::leave_unanswered(SimLife& life, Writer& writer) {
    const auto index = static_cast<std::uint32_t>(&writer - writers_.data());
    for (std::uint64_t i = random_() % (kKeptMax + 1); i > 0; --i) {
        submit_by(index);
        for (std::uint64_t rounds = random_() % 3; rounds > 0; --rounds) life.store.round();
    }
}

bool SimWriters::bury_one(SimLife& life, const Excuses& excuses) {
    Writer& writer = writers_[random_() % kWriters];
    const bool takes_over = random_() % 3 == 0;
    const bool in_claim = !takes_over && random_() % 2 == 0;
    ++counts_[takes_over ? SimCount::kTakeOvers : SimCount::kDeaths];
    counts_[SimCount::kStopsInClaim] += in_claim;
    leave_unanswered(life, writer);
    if (in_claim) static_cast<void>(writer.session.stop_in_claim());
    if (!takes_over) writer.session.die(life.store);
    if (takes_over) writer.session.lose();
    // The others go on meanwhile, and come to an end, so that its writes alone have no known place.
    for (std::uint64_t i = random_() % 30; i > 0; --i) {
        submit();
        life.store.round();
        collect();
    }
    const auto others_idle = [&] {
        collect();
        return std::all_of(writers_.begin(), writers_.end(), [&](const Writer& other) {
            return &other == &writer || other.session.idle();
        });
    };
    life.run([&] { return others_idle() || findings_.any(); });
    if (life.down() || findings_.any()) return false;
    if (!writer.session.connect(life.store)) {
        life.turned_away("a writer", excuses, findings_);
        return false;
    }
    for (const SimSession::Write& write : writer.session.kept()) {
        ++counts_[SimCount::kSentAgainInLife];
        counts_[SimCount::kDecidedBeforeAgain] += write.number <= writer.session.applied();
    }
    counts_[SimCount::kSentAgain] += writer.session.kept().size();
    writer.session.send_again();
    return settle(life);
}

}  // namespace bidstore
