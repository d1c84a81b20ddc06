// The hostile border: the only code of the daemon that reads client segments. It copies, then
// checks, then passes plain values inwards; nothing behind it has ever seen a client's length or
// position.
//
// Who:    the engine thread alone.
// Trust:  a client may write anything anywhere in its segment, at any time. It can make its own
//         calls fail and have itself cut off; it cannot make this code read outside the segment,
//         wait, or touch another client.
// Leases: a slot's snapshot is honoured until its episode ends or is revoked: too old, too long in
//         PIN_ALL, an impossible word, or its client gone. Then it no longer counts.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/clients.h"
#include "engine/clock.h"
#include "engine/heavy_clients.h"
#include "engine/pool.h"
#include "shm/call_slot.h"
#include "shm/reader_slot.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/stats.h"
#include "shm/touch_marks.h"

namespace bidstore {

// Where an answer goes. Of a client that is gone: nowhere.
struct CallAddress {
    std::uint64_t client_id = 0;
    std::uint32_t call_slot = 0;
    std::uint32_t generation = 0;
};

// A request as taken out of a ring: copied, and checked as far as this border can.
struct ClientRequest {
    RecordKind kind = RecordKind::kTransaction;
    CallAddress from;
    Rights rights = Rights::kReader;
    std::uint64_t write_number = 0;
    std::uint64_t decided_below = 0;
    std::span<const std::byte> payload;  // valid until the next take()
};

struct LeaseLimits {
    std::uint64_t max_snapshot_age_ns = 0;
    std::uint64_t max_pin_all_ns = 0;
};

class ClientPort {
  public:
    ClientPort(Clients& clients, PoolSegment& pool, Clock& clock, StatsWriter& stats,
               const LeaseLimits& limits);
    ~ClientPort();

    // Prepares the segment's slots and ring and begins to honour them. last_number: newest decided
    // write of the session (engine/clients.h).
    void attach(const ClientCommand& command, std::uint64_t last_number);
    // Revokes what the client announced and forgets its segment.
    void detach(std::uint64_t client_id);
    bool attached(std::uint64_t client_id) const { return find(client_id) != nullptr; }
    std::size_t client_count() const { return clients_.size(); }

    // The next request, fairly among clients (engine/heavy_clients.h); false when none is there. Of
    // a client whose request waits (pause), or that has to rest, page requests alone: its readers
    // do not wait for its writes, and what a write waits for may be frames that such a reader
    // holds.
    bool take(ClientRequest& request);
    void pause(std::uint64_t client_id, bool paused);
    // Requests are about to be taken, or tried again.
    void begin_taking(std::uint64_t now_ns) { heavy_.begin(now_ns); }
    // A transaction was evaluated from `began_ns` to `ended_ns`.
    void evaluated(std::uint64_t client_id, std::uint64_t began_ns, std::uint64_t ended_ns);
    // Any other request was looked at.
    void looked_at(std::uint64_t client_id, std::uint64_t now_ns);
    // Whether one of the client that waits is not to be tried now. If so, it is tried before any of
    // heavy clients is taken: begin_trying() comes first.
    bool rests(std::uint64_t client_id);
    void begin_trying() { heavy_waits_ = false; }
    // So long those have to rest that have to; 0: nobody has.
    std::uint64_t rest_ns() const;
    // Whether there is something to take; asked between announcing a sleep and sleeping.
    bool any_news() const;

    void answer(const CallAddress& to, Error error, Csn csn = Csn{},
                std::uint32_t failed_operation = kNoOperation,
                std::span<const std::int64_t> results = {});
    // Has the connection closed; nothing more is taken from its ring.
    void cut_off(std::uint64_t client_id, CutOff why, std::string_view reason);
    // The client broke a rule that only the engine could check.
    void hostile(std::uint64_t client_id, std::string_view reason);
    // Ends a round: gives ring space back and wakes the clients that were answered. One with
    // more sleepers than calls is cut off when that shows in the time of its wakes.
    void flush();

    // Looks at all slots after a publication (or at any time) and ends leases that are over.
    const HeldSnapshots& scan();
    // Copies pages that clients marked as used into `room` and returns how many: page numbers, not
    // checked at all. Each client gets an equal part of the room, whatever it marked, so that none
    // crowds out the others; what it marked beyond that is passed over.
    std::uint32_t take_touches(std::span<std::uint32_t> room);
    // Revokes the oldest snapshot of the client for which most versions are kept, if these are more
    // than `versions_max`; false when they are not. With slots in PIN_ALL all that are as old as
    // the oldest of these: they could take its place in turns.
    bool revoke_greediest(const Pool& pool, std::uint64_t versions_max);

  private:
    struct SlotState {
        std::uint64_t episode = 0;
        std::uint64_t word = kSlotIdle;     // the csn that this episode showed; kSlotIdle: none yet
        std::uint64_t since_ns = 0;         // when this episode was first seen holding something
        std::uint64_t pinned_since_ns = 0;  // when it was first seen in PIN_ALL; 0: it is not
        std::uint64_t lowest = 0;           // visible at the last scan before it appeared
    };
    struct Client {
        std::uint64_t id = 0;
        Rights rights = Rights::kReader;
        AttachedSegment segment;
        std::unique_ptr<RingConsumer> ring;
        RingControl* control = nullptr;
        ReaderSlot* slots = nullptr;
        TouchMarks* marks = nullptr;
        std::vector<std::uint32_t> marks_seen;  // by slot
        std::uint32_t next_marks = 0;           // the slot to be gathered from next
        CallSlot* calls = nullptr;
        Answers answers;
        std::vector<SlotState> slot_states;
        std::uint64_t attached_ns = 0;
        std::vector<std::uint64_t> episodes_before;  // by slot: those of its former owners
        std::uint32_t offences = 0;
        std::uint32_t unanswered = 0;  // records taken; a client has a call slot for each
        std::uint32_t slow_wakes = 0;  // kSlowWake for each, less one for each that was not
        bool paused = false;
        bool cut_off = false;
        HeavyClients::Mark heavy;
    };
    struct Holder {  // a slot that counts
        std::uint32_t slot = 0;
        std::uint64_t episode = 0;
        std::uint64_t from = 0;  // its snapshot, or what that is not below
    };
    struct Holding {  // of one client
        HeldSnapshots held;
        std::vector<Holder> holders;
    };
    static constexpr std::uint32_t kOffencesMax = 3;
    static constexpr std::uint32_t kLooksMax = 64;
    static constexpr std::uint32_t kMarkedSlotsMax = 512;  // looked at in one take_touches()
    // What a wake may take: for itself, for each thread that an honest client may have asleep
    // there, and for each that it wakes. Measured: 3.4 us, 43 ns and some microseconds.
    static constexpr std::uint64_t kWakeNs = 50'000;
    static constexpr std::uint64_t kSleeperNs = 50;
    static constexpr std::uint64_t kWokenNs = 10'000;
    // One slow wake weighs as much as so many others; the eighth in a row has its sleepers counted.
    static constexpr std::uint32_t kSlowWake = 8;
    static constexpr std::uint32_t kSlowWakesMax = 8 * kSlowWake - 7;
    // No thread begins more than one episode in a nanosecond. What it began since the clock was
    // read, however long the engine was kept from going on, is far less than this.
    static constexpr std::uint64_t kEpisodesAhead = 1u << 24;
    // Of a process that lives on without its connection, until its library notices. Numbers last
    // for 2^30 detaches of a slot.
    static constexpr std::uint64_t kEpisodesAfterDetach = std::uint64_t{1} << 34;

    // Whose requests are taken.
    enum class Which : std::uint8_t { kAll, kHeavy, kOthers };

    Client* find(std::uint64_t client_id) const;
    bool take_of(Which which, std::uint64_t now_ns, ClientRequest& request);
    bool take_from(Client& client, bool page_requests, ClientRequest& request);
    void look_at(Client& client, std::uint32_t slot, std::uint64_t now_ns);
    bool lease_over(const SlotState& state, const SlotSighting& seen, std::uint64_t now_ns) const;
    bool impossible(const SlotState& state, const SlotSighting& seen) const;
    std::uint64_t not_below(const SlotState& state, const SlotSighting& seen) const;
    std::uint32_t take_touches(Client& client, std::uint32_t slots_max,
                               std::span<std::uint32_t> room);
    void wake(Client& client, std::uint32_t bits);
    void offend(Client& client, const char* reason);
    std::uint64_t episodes_at_most(const Client& client, std::uint32_t slot,
                                   std::uint64_t now_ns) const;
    void revoke(Client& client, std::uint32_t slot, std::uint64_t episode);
    Holding holding_of(const Client& client, std::uint64_t now_ns) const;
    SlotSighting settle_pin_all(const ReaderSlot& slot, SlotSighting seen) const;

    Clients& seam_;
    PoolSegment& pool_;
    Clock& clock_;
    StatsWriter& stats_;
    LeaseLimits limits_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::unordered_map<std::uint64_t, Client*> by_id_;
    std::array<std::size_t, 2> next_client_{};  // of all or the others; of the heavy ones
    std::size_t next_marked_client_ = 0;
    HeavyClients heavy_;
    bool heavy_waits_ = false;  // one of theirs waited for the rest to end
    std::vector<std::byte> buffer_;
    HeldSnapshots held_;
    std::uint64_t held_visible_ = 0;       // visible when the scan under way began
    std::uint64_t last_scan_visible_ = 0;  // and the one before
};

}  // namespace bidstore
