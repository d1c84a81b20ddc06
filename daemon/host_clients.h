// The real half of the clients seam: two queues between the server thread and the engine thread,
// and the doorbells.
//
// Who:    the engine thread calls what Clients declares; the server thread the rest.
// Owns:   its descriptors; a client's doorbell belongs to its connection.
// Wakes:  the wake descriptor is an epoll set over all doorbells and one of the server's own, each
//         edge-triggered: a ring is seen once and no doorbell is ever read, so that a client that
//         reads or overfills its own has disturbed nobody else.
// Crash:  a client that stops in the middle of a ring has rung or has not.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "engine/clients.h"
#include "shm/error.h"
#include "shm/segment.h"

namespace bidstore {

// What the engine tells the server.
struct ClientEvent {
    enum class Kind : std::uint8_t { kAttached, kDetached, kCutOff };
    Kind kind = Kind::kAttached;
    std::uint64_t client_id = 0;
    Error error = Error::kOk;       // kAttached
    std::uint64_t last_number = 0;  // kAttached
    CutOff why = CutOff::kHostile;  // kCutOff
    std::string reason;             // kCutOff
};

class HostClients final : public Clients {
  public:
    // kIoError names the descriptor that could not be made.
    static Result<std::unique_ptr<HostClients>> create();

    // ---- engine thread ----
    bool take(ClientCommand& command) override;
    void attached(std::uint64_t client_id, Error error, std::uint64_t last_number) override;
    void detached(std::uint64_t client_id) override;
    void cut_off(std::uint64_t client_id, CutOff why, std::string_view reason) override;
    std::uint32_t wake(std::atomic<std::uint32_t>& word, std::uint32_t bits,
                       std::uint32_t waiters_max) override;
    void drain_doorbell() override;

    // For Disk::set_wake_descriptor: readable while a doorbell has rung.
    int wake_descriptor() const { return doorbells_.number(); }

    // ---- server thread ----
    // Queues the command and wakes the engine.
    void send(const ClientCommand& command);
    // The next event; false when there is none.
    bool take_event(ClientEvent& event);
    // Readable (level) while events may be waiting; emptied by clear_event_descriptor(), which
    // comes before the take_event() calls, so that none is missed.
    int event_descriptor() const { return event_bell_.number(); }
    void clear_event_descriptor();
    Status add_doorbell(int doorbell);
    // Before the last descriptor of ours is closed: the client may hold the same doorbell open.
    void remove_doorbell(int doorbell);

  private:
    HostClients() = default;
    void tell(ClientEvent event);

    Descriptor doorbells_;     // epoll
    Descriptor command_bell_;  // eventfd, in doorbells_
    Descriptor event_bell_;    // eventfd
    // Held for the time of a push or pop. One per queue: a take() that finds its lock taken relies
    // on the bell that whoever holds it is about to ring.
    std::mutex command_mutex_;
    std::deque<ClientCommand> commands_;
    std::mutex event_mutex_;
    std::deque<ClientEvent> events_;
};

}  // namespace bidstore
