// Loads that no rows come for any more, and compactions that no step is asked for: their client is
// stopped, or waits for its own input. What else its connection carries does not count; a load says
// with an empty kRows that rows are still to come (one that sorts them first). Who pauses in
// nobody's way may pause for as long as it likes. Beyond kSilentNs it is given up as soon as
// somebody meets what it keeps:
//
//   a load         another one of its name begins; or any other, when there are as many as there
//                  may be; a step of a compaction, which waits for the end of all loads; writers,
//                  or another load, that find no room beside the pages that it reserved
//   a compaction   another one begins; or no room beside the copy that it had begun
//
// It ends as when the connection does, but for the answer: its client's next step is told
// kTimedOut. What the engine itself has yet to do for it (a request that is parked, writes under
// way, the end of a load after its last row) is no silence of the client, and is never cut short.
// Nor is time in which the engine did not run: its clients may have been stopped with it, or lie
// in their rings with what they sent.
#include "engine/engine_core.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kSilentNs = 600'000'000'000;
constexpr std::uint64_t kStandstillNs = 60'000'000'000;  // no round is as long, and no sleep

}  // namespace

// Once a round, before anybody is looked at. After a standstill all begin anew: they are heard then
// at the latest.
void Engine::Core::excuse_standstill() {
    if (loads_.empty() && compaction_.client_id == 0) {
        last_round_ns_ = 0;
        return;
    }
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (last_round_ns_ != 0 && now_ns - last_round_ns_ > kStandstillNs) {
        for (const auto& load : loads_) load->heard(now_ns);
        compaction_.heard_ns = now_ns;
    }
    last_round_ns_ = now_ns;
}

bool Engine::Core::silent(std::uint64_t client_id, std::uint64_t heard_ns) const {
    const std::uint64_t now_ns = clock_.monotonic_ns();
    if (now_ns - last_round_ns_ > kStandstillNs) return false;  // one in the middle of this round
    return !parked_.contains(client_id) && now_ns - heard_ns > kSilentNs;
}

// Quiet, so that what it keeps comes back at once.
bool Engine::Core::silent(const BulkLoad& load) const {
    return load.waits_for_rows() && load.quiet() && silent(load.client_id(), load.heard_ns());
}

// The load that has been silent for longest, of all or of those that keep pages; nullptr: none is.
BulkLoad* Engine::Core::silent_load(bool with_pages) {
    BulkLoad* longest = nullptr;
    for (const auto& load : loads_) {
        if (!silent(*load) || (with_pages && load->chunks() == 0)) continue;
        if (longest == nullptr || load->heard_ns() < longest->heard_ns()) longest = load.get();
    }
    return longest;
}

void Engine::Core::give_up(BulkLoad& load, std::string_view why) {
    say(4, "load of " + load.name() + " is given up: no rows came for ten minutes, and " +
               std::string(why));
    fail_load(load, Error::kTimedOut);
}

// False: it is not silent, or there is none.
bool Engine::Core::give_up_compaction(std::string_view why) {
    const std::uint64_t client_id = compaction_.client_id;
    const bool stays = client_id == 0 || !silent(client_id, compaction_.heard_ns);
    if (stays || !extent_move_.quiet()) return false;
    say(4, "compaction is given up: its client asked for no step for ten minutes, and " +
               std::string(why));
    end_compaction();
    pump_compaction();
    compactions_given_up_.push_back(client_id);
    return true;
}

// One thing at a time: it may be enough. True: there is room that was not there before.
bool Engine::Core::give_up_for_room() {
    if (BulkLoad* load = silent_load(true)) {
        give_up(*load, "others find no room beside its pages");
        return true;
    }
    if (extent_move_.idle()) return false;
    return give_up_compaction("others find no room beside the value that it copies");
}

}  // namespace bidstore
