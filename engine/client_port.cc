#include "engine/client_port.h"

#include <algorithm>

#include "shm/hot_path.h"

namespace bidstore {
namespace {

// Adds what a slot that counts holds. Of one in PIN_ALL the snapshot is not below `from`.
void hold(HeldSnapshots& held, const SlotSighting& seen, std::uint64_t from) {
    if (seen.pins_all()) {
        held.pinned_from = std::min(held.pinned_from, from);
        return;
    }
    kept_push(held.csns, seen.word);
    kept_push(held.looked, std::max(seen.word, seen.looked));
}

}  // namespace

ClientPort::ClientPort(Clients& clients, PoolSegment& pool, Clock& clock, StatsWriter& stats,
                       const LeaseLimits& limits)
    : seam_(clients), pool_(pool), clock_(clock), stats_(stats), limits_(limits), heavy_(clock) {}

ClientPort::~ClientPort() = default;

ClientPort::Client* ClientPort::find(std::uint64_t client_id) const {
    const auto found = by_id_.find(client_id);
    return found == by_id_.end() ? nullptr : found->second;
}

void ClientPort::attach(const ClientCommand& command, std::uint64_t last_number) {
    auto client = std::make_unique<Client>();
    const AttachedSegment& segment = command.segment;
    client->id = command.client_id;
    client->rights = command.rights;
    client->segment = segment;
    client->control = reinterpret_cast<RingControl*>(segment.base + segment.ring_control_offset);
    client->slots = reinterpret_cast<ReaderSlot*>(segment.base + segment.slots_offset);
    client->marks = reinterpret_cast<TouchMarks*>(segment.base + segment.marks_offset);
    client->marks_seen.resize(segment.slot_count);
    client->calls = reinterpret_cast<CallSlot*>(segment.base + segment.calls_offset);
    init_ring(*client->control, last_number);
    client->ring = std::make_unique<RingConsumer>(
        *client->control, segment.base + segment.ring_offset, segment.ring_bytes);
    client->slot_states.resize(segment.slot_count);
    client->attached_ns = clock_.monotonic_ns();
    client->heavy = heavy_.mark(command.uid, client->attached_ns);
    client->episodes_before.resize(segment.slot_count);
    for (std::uint32_t slot = 0; slot < segment.slot_count; ++slot) {
        RevokedEntry& revoked = pool_.revoked()[segment.first_slot + slot];
        SlotWatcher::prepare(client->slots[slot], revoked);
        client->episodes_before[slot] = revoked.load();
        client->slot_states[slot].episode = revoked.load();
    }
    buffer_.resize(std::max<std::size_t>(buffer_.size(), client->ring->record_bytes_max()));
    by_id_[client->id] = client.get();
    clients_.push_back(std::move(client));
}

// The next owner's episodes start above what is revoked, so a hostile number must not use them all
// up; but what is not revoked is believed by its reader.
std::uint64_t ClientPort::episodes_at_most(const Client& client, std::uint32_t slot,
                                           std::uint64_t now_ns) const {
    return client.episodes_before[slot] + kEpisodesAhead + (now_ns - client.attached_ns);
}

// `episode` is one that a reader can have reached.
void ClientPort::revoke(Client& client, std::uint32_t slot, std::uint64_t episode) {
    SlotWatcher::revoke(pool_.revoked()[client.segment.first_slot + slot], episode);
}

void ClientPort::detach(std::uint64_t client_id) {
    Client* client = find(client_id);
    if (client == nullptr) return;
    const std::uint64_t now_ns = clock_.monotonic_ns();
    for (std::uint32_t slot = 0; slot < client->segment.slot_count; ++slot) {
        const std::uint64_t newest = std::min(SlotWatcher::look(client->slots[slot]).episode,
                                              episodes_at_most(*client, slot, now_ns));
        const std::uint64_t revoked = pool_.revoked()[client->segment.first_slot + slot].load();
        // All that it may begin from now on, too: the process may live on without a connection.
        revoke(*client, slot, std::max(newest, revoked) + kEpisodesAfterDetach);
    }
    by_id_.erase(client_id);
    const auto place = std::find_if(clients_.begin(), clients_.end(),
                                    [&](const auto& other) { return other.get() == client; });
    // Whose turn it is stays so: clients that come and go give none to the first of all.
    for (std::size_t& next : next_client_) {
        if (place - clients_.begin() < static_cast<std::ptrdiff_t>(next)) --next;
    }
    clients_.erase(place);
    for (std::size_t& next : next_client_) {
        if (next >= clients_.size()) next = 0;
    }
}

void ClientPort::pause(std::uint64_t client_id, bool paused) {
    if (Client* client = find(client_id)) client->paused = paused;
}

void ClientPort::evaluated(std::uint64_t client_id, std::uint64_t began_ns,
                           std::uint64_t ended_ns) {
    Client* client = find(client_id);
    if (client == nullptr) return;
    if (heavy_.took(client->heavy, began_ns, ended_ns)) stats_.add(Counter::kHeavyTransactions);
}

void ClientPort::looked_at(std::uint64_t client_id, std::uint64_t now_ns) {
    const Client* client = find(client_id);
    if (client != nullptr) heavy_.asked(client->heavy, now_ns);
}

std::uint64_t ClientPort::rest_ns() const {
    return heavy_.any() ? heavy_.rest_ns(clock_.monotonic_ns()) : 0;
}

bool ClientPort::rests(std::uint64_t client_id) {
    if (!heavy_.any()) return false;
    const std::uint64_t now_ns = clock_.monotonic_ns();
    const Client* client = find(client_id);
    const bool rests = client != nullptr && heavy_.rest_ns(now_ns) != 0 &&
                       HeavyClients::heavy(client->heavy, now_ns);
    heavy_waits_ |= rests;
    return rests;
}

bool ClientPort::any_news() const {
    const std::uint64_t now_ns = heavy_.any() ? clock_.monotonic_ns() : 0;
    const bool rest = heavy_.any() && heavy_.rest_ns(now_ns) != 0;
    return std::any_of(clients_.begin(), clients_.end(), [&](const auto& client) {
        const RingConsumer& ring = *client->ring;
        const bool waits = client->paused || (rest && HeavyClients::heavy(client->heavy, now_ns));
        return !client->cut_off && (waits ? ring.has_news_ahead() : ring.has_news());
    });
}

bool ClientPort::take(ClientRequest& request) {
    const HotPath hot("take a request");
    if (!heavy_.any()) return take_of(Which::kAll, 0, request);
    const std::uint64_t now_ns = clock_.monotonic_ns();
    const bool heavy_first = heavy_.their_turn() && heavy_.rest_ns(now_ns) == 0;
    return take_of(heavy_first ? Which::kHeavy : Which::kOthers, now_ns, request) ||
           take_of(heavy_first ? Which::kOthers : Which::kHeavy, now_ns, request);
}

bool ClientPort::take_of(Which which, std::uint64_t now_ns, ClientRequest& request) {
    const bool rest = which == Which::kHeavy && (heavy_waits_ || heavy_.rest_ns(now_ns) != 0);
    std::size_t& next = next_client_[which == Which::kHeavy ? 1 : 0];
    for (std::size_t looked = 0; looked < clients_.size(); ++looked) {
        Client& client = *clients_[next];
        next = (next + 1) % clients_.size();
        if (client.cut_off) continue;
        const bool heavy = which != Which::kAll && HeavyClients::heavy(client.heavy, now_ns);
        if (heavy != (which == Which::kHeavy)) continue;
        if (take_from(client, client.paused || rest, request)) return true;
    }
    return false;
}

bool ClientPort::take_from(Client& client, bool page_requests, ClientRequest& request) {
    TakenRecord record;
    const TakeResult result = page_requests ? client.ring->take_page_request(buffer_, record)
                                            : client.ring->take(buffer_, record);
    if (result == TakeResult::kEmpty) return false;
    if (result == TakeResult::kHostile) {
        hostile(client.id, client.ring->hostile_reason());
        return false;
    }
    if (record.call_slot >= client.segment.call_slot_count) {
        hostile(client.id, "answer wanted in a call slot that does not exist");
        return false;
    }
    if (++client.unanswered > client.segment.call_slot_count) {
        hostile(client.id, "more calls than it has call slots");
        return false;
    }
    request.kind = record.kind;
    request.from = {client.id, record.call_slot, record.call_generation};
    request.rights = client.rights;
    request.write_number = record.write_number;
    request.decided_below = record.decided_below;
    request.payload = record.payload;
    return true;
}

void ClientPort::answer(const CallAddress& to, Error error, Csn csn, std::uint32_t failed_operation,
                        std::span<const std::int64_t> results) {
    Client* client = find(to.client_id);
    if (client == nullptr) return;
    if (client->unanswered > 0) --client->unanswered;
    client->answers.give(client->calls, to.call_slot, to.generation, error, csn.value,
                         failed_operation, results);
    stats_.add(Counter::kCallsAnswered);
}

void ClientPort::hostile(std::uint64_t client_id, std::string_view reason) {
    stats_.add(Counter::kHostileEvents);
    cut_off(client_id, CutOff::kHostile, reason);
}

void ClientPort::cut_off(std::uint64_t client_id, CutOff why, std::string_view reason) {
    const ColdPath cold;
    Client* client = find(client_id);
    if (client == nullptr || client->cut_off) return;
    client->cut_off = true;
    seam_.cut_off(client_id, why, reason);
}

void ClientPort::offend(Client& client, const char* reason) {
    if (++client.offences > kOffencesMax) hostile(client.id, reason);
}

void ClientPort::flush() {
    const HotPath hot("wake who was answered");
    for (const auto& client : clients_) {
        client->ring->publish_head();
        const std::uint32_t bits = client->answers.finish(*client->control);
        if (bits != 0) wake(*client, bits);
    }
}

// The kernel walks past all who sleep there, whatever bits they sleep with, and nobody else runs
// meanwhile. One wake that took long may have been put aside in the middle: the next ones are
// measured by what this thread ran for. That is a suspicion only, since sleepers on other words may
// share the kernel's list, and a host may be slow: then all are woken once, and counted.
void ClientPort::wake(Client& client, std::uint32_t bits) {
    // Threads with a call in each slot, and as many that wait for one; more look again by
    // themselves.
    const std::uint32_t sleepers_max = 2 * client.segment.call_slot_count;
    const bool suspected = client.slow_wakes > 0;
    const auto time_ns = [&] { return suspected ? clock_.thread_ns() : clock_.monotonic_ns(); };
    const std::uint64_t began_ns = time_ns();
    const std::uint64_t woken = seam_.wake(client.control->answered, bits, sleepers_max);
    const std::uint64_t allowed_ns = kWakeNs + sleepers_max * kSleeperNs + woken * kWokenNs;
    if (time_ns() - began_ns <= allowed_ns) {
        if (suspected) --client.slow_wakes;
        return;
    }
    client.slow_wakes += kSlowWake;
    if (client.slow_wakes < kSlowWakesMax) return;
    client.slow_wakes = 0;
    constexpr std::uint32_t kAnyBits = ~0u;
    if (seam_.wake(client.control->answered, kAnyBits, sleepers_max + 1) > sleepers_max) {
        hostile(client.id, "more threads sleep on its answers than it has calls");
    }
}

// A beginning snapshot shows PIN_ALL for some nanoseconds: worth a few more looks.
SlotSighting ClientPort::settle_pin_all(const ReaderSlot& slot, SlotSighting seen) const {
    for (std::uint32_t looks = 0; looks < kLooksMax && seen.pins_all(); ++looks) {
        seen = SlotWatcher::look_again(slot, seen);
    }
    return seen;
}

bool ClientPort::lease_over(const SlotState& state, const SlotSighting& seen,
                            std::uint64_t now_ns) const {
    if (now_ns - state.since_ns > limits_.max_snapshot_age_ns) return true;
    return seen.pins_all() && now_ns - state.pinned_since_ns > limits_.max_pin_all_ns;
}

// A snapshot is a csn that was visible at some time between the last scan before its episode
// appeared and now, and stays the same for the episode.
bool ClientPort::impossible(const SlotState& state, const SlotSighting& seen) const {
    if (seen.pins_all()) return false;
    if (seen.word > held_visible_ || seen.word < state.lowest) return true;
    if (seen.looked > held_visible_ && seen.looked != kLookedNothing) return true;
    return state.word != kSlotIdle && state.word != seen.word;
}

// What the slot's snapshot, known or not, is not below (shm/reader_slot.h). Of an episode that no
// scan has seen yet: what was visible at the last one.
std::uint64_t ClientPort::not_below(const SlotState& state, const SlotSighting& seen) const {
    if (state.episode != seen.episode) return last_scan_visible_;
    return state.word == kSlotIdle ? state.lowest : state.word;
}

void ClientPort::look_at(Client& client, std::uint32_t slot, std::uint64_t now_ns) {
    const std::uint64_t revoked = pool_.revoked()[client.segment.first_slot + slot].load();
    SlotState& state = client.slot_states[slot];
    SlotSighting seen = SlotWatcher::look(client.slots[slot]);
    if (!seen.counts(revoked)) return;
    const bool fresh = state.episode != seen.episode;
    // Of an episode not seen before, the word may still be that of the one before it: it was loaded
    // first. A second look that finds the same episode has its word.
    if (fresh) seen = SlotWatcher::look_again(client.slots[slot], seen);
    if (seen.pins_all()) seen = settle_pin_all(client.slots[slot], seen);
    if (!seen.counts(revoked)) return;
    if (seen.episode > episodes_at_most(client, slot, now_ns)) {
        return hostile(client.id, "an episode that no reader can have reached");
    }
    if (fresh) state = {seen.episode, kSlotIdle, now_ns, 0, last_scan_visible_};
    if (!seen.pins_all()) state.pinned_since_ns = 0;
    if (seen.pins_all() && state.pinned_since_ns == 0) state.pinned_since_ns = now_ns;
    if (impossible(state, seen)) {
        revoke(client, slot, seen.episode);
        stats_.add(Counter::kHostileEvents);
        stats_.add(Counter::kRevokedSnapshots);
        offend(client, "impossible snapshots announced");
        return;
    }
    if (lease_over(state, seen, now_ns)) {
        revoke(client, slot, seen.episode);
        stats_.add(Counter::kRevokedSnapshots);
        return;
    }
    if (!seen.pins_all()) state.word = seen.word;
    hold(held_, seen, not_below(state, seen));
}

const HeldSnapshots& ClientPort::scan() {
    const HotPath hot("scan the readers");
    held_.clear();
    SlotWatcher::begin_scan();
    held_visible_ = pool_.header().published.visible.load();
    const std::uint64_t now_ns = clock_.monotonic_ns();
    for (const auto& client : clients_) {
        for (std::uint32_t slot = 0; slot < client->segment.slot_count; ++slot) {
            look_at(*client, slot, now_ns);
        }
    }
    last_scan_visible_ = held_visible_;
    held_.sort();
    return held_;
}

std::uint32_t ClientPort::take_touches(Client& client, std::uint32_t slots_max,
                                       std::span<std::uint32_t> room) {
    std::uint32_t taken = 0;
    const std::uint32_t slots = std::min(client.segment.slot_count, slots_max);
    for (std::uint32_t looked = 0; looked < slots && taken < room.size(); ++looked) {
        const std::uint32_t slot = client.next_marks;
        client.next_marks = (slot + 1) % client.segment.slot_count;
        taken +=
            TouchWatcher::take(client.marks[slot], client.marks_seen[slot], room.subspan(taken));
    }
    return taken;
}

std::uint32_t ClientPort::take_touches(std::span<std::uint32_t> room) {
    if (clients_.empty()) return 0;
    const auto clients = static_cast<std::uint32_t>(clients_.size());
    const std::size_t part = std::max<std::size_t>(1, room.size() / clients);
    std::uint32_t taken = 0;
    for (std::uint32_t looked = 0; looked < clients && taken < room.size(); ++looked) {
        Client& client = *clients_[next_marked_client_ % clients];
        next_marked_client_ = (next_marked_client_ + 1) % clients;
        if (client.cut_off) continue;
        const auto own = room.subspan(taken, std::min(part, room.size() - taken));
        taken += take_touches(client, std::max(4u, kMarkedSlotsMax / clients), own);
    }
    return taken;
}

ClientPort::Holding ClientPort::holding_of(const Client& client, std::uint64_t now_ns) const {
    Holding holding;
    for (std::uint32_t slot = 0; slot < client.segment.slot_count; ++slot) {
        const ReaderSlot& line = client.slots[slot];
        const SlotSighting seen = settle_pin_all(line, SlotWatcher::look(line));
        if (!seen.counts(pool_.revoked()[client.segment.first_slot + slot].load())) continue;
        if (seen.episode > episodes_at_most(client, slot, now_ns)) continue;  // scan() ends it
        const std::uint64_t from = not_below(client.slot_states[slot], seen);
        hold(holding.held, seen, from);
        holding.holders.push_back({slot, seen.episode, seen.pins_all() ? from : seen.word});
    }
    holding.held.sort();
    return holding;
}

bool ClientPort::revoke_greediest(const Pool& pool, std::uint64_t versions_max) {
    Client* greediest = nullptr;
    Holding holding;
    const std::uint64_t now_ns = clock_.monotonic_ns();
    for (const auto& client : clients_) {
        Holding its = holding_of(*client, now_ns);
        const std::uint64_t versions = pool.kept_for(its.held);
        if (versions <= versions_max) continue;
        versions_max = versions;
        greediest = client.get();
        holding = std::move(its);
    }
    if (greediest == nullptr) return false;
    const bool pinned = holding.held.pinned_from != HeldSnapshots::kNobody;
    const auto oldest = std::min_element(
        holding.holders.begin(), holding.holders.end(),
        [](const Holder& left, const Holder& right) { return left.from < right.from; });
    for (const Holder& holder : holding.holders) {
        const bool as_old = pinned && holder.from <= holding.held.pinned_from;
        if (&holder != &*oldest && !as_old) continue;
        revoke(*greediest, holder.slot, holder.episode);
        stats_.add(Counter::kRevokedSnapshots);
    }
    return true;
}

}  // namespace bidstore
