#include "tests/sim_compactor.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kStepsMax = 60;
constexpr std::uint64_t kPause = 200;  // steps of the run, about, between two compactions
constexpr std::uint64_t kStop = 100;   // and behind a stop

SessionId compactor_session(Random& random) {
    SessionId id;
    for (std::uint8_t& byte : id.bytes) byte = static_cast<std::uint8_t>(random());
    return id;
}

}  // namespace

void SimCompaction::begin(SimClient& client, const SimCompaction& other) {
    ++counts_[SimCount::kCompactions];
    client_.emplace(client);
    claims_ = true;
    began_ = excuses_.times_over;
    contested_ = other.claims_;
    silent_ = false;
    others_before_ = other.begun_;
    ++begun_;
}

bool SimCompaction::pump(const SimCompaction& other) {
    contested_ |= contested(other);
    const bool done = client_->advance();
    if (!done && client_->steps() < kStepsMax) return false;
    // An answer may be under way: the call slot stays taken, of which there are enough.
    const Error error = client_->steps() > 0 ? client_->error() : Error::kOk;
    if (error == Error::kBusy && contested_) {
        ++counts_[SimCount::kCompactionsTurnedAway];
    } else if (error == Error::kTimedOut && silent_ && (contested_ || excuses_.full)) {
        ++counts_[SimCount::kCompactionsGivenUp];
    } else if (error != Error::kOk && !excuses_.cover_since(began_, error)) {
        findings_.report("a compaction failed with " + std::string(error_name(error)));
    }
    client_.reset();
    if (done) claims_ = false;
    return true;
}

void SimCompaction::lose() {
    client_.reset();
    claims_ = false;
}

bool SimCompactor::connect(SimLife& life) {
    client_ = life.store.attach(Rights::kAdmin, compactor_session(random_));
    if (client_ != nullptr) client_->welcomed(0);
    return client_ != nullptr;
}

void SimCompactor::lose() {
    client_ = nullptr;
    stopped_ = false;
    compaction_.lose();
}

void SimCompactor::act(SimLife& life, const SimCompaction& keeper, bool busy) {
    if (client_ == nullptr || life.store.disk->crashed()) return;
    if (stopped_ && random_() % kStop != 0) return;
    stopped_ = false;
    if (!compaction_.running()) {
        if (random_() % kPause != 0) return;
        compaction_.begin(*client_, keeper);
    }
    counts_[SimCount::kCompactionsBeside] += busy;
    if (!compaction_.pump(keeper)) return;
    // Who asks no more lets nobody else compact: it hangs up, as the tool does.
    if (compaction_.claims()) bury(life);
}

void SimCompactor::stop(SimLife& life, const SimCompaction& keeper) {
    if (client_ == nullptr || life.store.disk->crashed()) return;
    if (!compaction_.running()) {
        compaction_.begin(*client_, keeper);
        compaction_.pump(keeper);
    }
    compaction_.outlast();
    stopped_ = true;
}

void SimCompactor::bury(SimLife& life) {
    if (client_ == nullptr) return;
    counts_[SimCount::kDeathsInCompactions] += compaction_.running();
    SimClient& dead = *client_;
    lose();
    life.store.disconnect(dead);
    if (life.down() || connect(life)) return;
    life.turned_away("a compactor", excuses_, findings_);
}

bool SimCompactor::settle(SimLife& life, const SimCompaction& keeper) {
    if (client_ == nullptr || !compaction_.running()) return !life.down();
    stopped_ = false;
    life.run([&] { return compaction_.pump(keeper) || findings_.any(); });
    if (life.down() || findings_.any()) return false;
    if (compaction_.running()) {
        findings_.report("a compaction has no answer, after thousands of rounds");
        return false;
    }
    if (compaction_.claims()) bury(life);
    return !life.down() && !findings_.any();
}

}  // namespace bidstore
