// A session in the simulation, as the client library keeps one: numbered writes, kept until they
// are answered, sent again over the next connection when the last one was lost.
//
// Who: SimWriters and SimKeeper. Whoever calls connect() calls send_again() before the next write.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "tests/sim.h"
#include "tests/sim_findings.h"

namespace bidstore {

class SimSession {
  public:
    struct Write {
        std::uint64_t number = 0;
        std::vector<std::byte> bytes;
        bool decided_before = false;  // over an earlier connection, perhaps by an earlier daemon
        bool answered = false;
        Answer answer;  // without results: it had been applied over an earlier connection
        std::optional<std::uint32_t> token;
    };

    SimSession(Findings& findings, const SessionId& id, Rights rights)
        : findings_(findings), id_(id), rights_(rights) {}

    // A new connection, which takes over from a former one if there is one. False: not welcome.
    bool connect(SimStore& store);
    // The connection is gone with its store.
    void lose();
    // The process dies, or hangs up: its ring and all answers in its segment are gone.
    void die(SimStore& store);
    void send_again();

    const SessionId& id() const { return id_; }
    bool connected() const { return client_ != nullptr; }
    // The power is gone, though the process has not noticed: what it says of its disk is nobody's.
    bool dying() const { return store_ != nullptr && store_->disk->crashed(); }
    SimClient& client() { return *client_; }
    // The newest number that the engine had applied when connect() asked.
    std::uint64_t applied() const { return applied_; }
    const std::deque<Write>& kept() const { return kept_; }
    // The first ones that were refused with kTooLarge.
    const std::vector<std::vector<std::byte>>& too_large() const { return too_large_; }
    bool idle() const { return kept_.empty() && again_.empty() && !went_on_; }
    std::uint64_t last_number() const { return next_number_ - 1; }

    // Its number; 0 when there is no room for it now.
    std::uint64_t submit(std::vector<std::byte> bytes);
    // Takes the answers that are there.
    void collect(const std::function<void(const Write&)>& on_answer);
    // A thread claims a place in the ring and stops before it is committed: nothing behind it is
    // taken until it goes on. False: no room.
    bool stop_in_claim();
    void go_on() { went_on_ = client_->go_on(); }

  private:
    struct Again {  // answered before, sent again for its number alone
        std::uint32_t token = 0;
        std::uint64_t number = 0;
        bool applied = false;
    };
    bool send(Write& write);
    void drop_decided();

    Findings& findings_;
    SessionId id_;
    Rights rights_;
    SimStore* store_ = nullptr;
    SimClient* client_ = nullptr;
    std::uint64_t applied_ = 0;
    std::uint64_t next_number_ = 1;
    std::deque<Write> kept_;
    std::vector<Again> again_;
    std::vector<std::vector<std::byte>> too_large_;
    std::optional<std::uint32_t> went_on_;  // the call of a thread that had stopped
};

}  // namespace bidstore
