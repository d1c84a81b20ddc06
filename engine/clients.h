// The clients seam: how clients come, go and are woken. The engine reads and writes their segments
// itself (engine/client_port); everything else about them is behind this.
//
// Who:    called by the engine thread alone. The real half (daemon/) hands commands over from the
//         second thread through a queue; the simulated one makes them up from its seed.
#pragma once

#include <cstdint>
#include <string_view>

#include "shm/atom.h"
#include "shm/error.h"
#include "shm/layout.h"

namespace bidstore {

struct SessionId {
    std::uint8_t bytes[16] = {};
    friend bool operator==(const SessionId&, const SessionId&) = default;
};

// A client segment, mapped writable in this process, with the shape that the daemon gave it: what
// the segment's own header says is the client's word and is not read again.
struct AttachedSegment {
    std::byte* base = nullptr;
    std::uint32_t first_slot = 0;
    std::uint32_t slot_count = 0;
    std::uint32_t call_slot_count = 0;
    std::uint32_t ring_bytes = 0;
    std::uint64_t slots_offset = 0;
    std::uint64_t marks_offset = 0;
    std::uint64_t ring_control_offset = 0;
    std::uint64_t ring_offset = 0;
    std::uint64_t calls_offset = 0;
};

struct ClientCommand {
    enum class Kind : std::uint8_t {
        kAttach,  // a new client: answered by attached()
        kDetach,  // it hung up or died: answered by detached(), after which its segment is not
                  // touched
        kStop,    // finish: final checkpoint, then Engine::run_once says so
    };
    Kind kind = Kind::kStop;
    std::uint64_t client_id = 0;  // the daemon's number for the connection; never reused
    Rights rights = Rights::kReader;
    std::uint32_t uid = 0;  // a session belongs to one user
    SessionId session;
    AttachedSegment segment;
};

// Why the engine wants a client gone.
enum class CutOff : std::uint8_t {
    kHostile,   // it broke the protocol
    kReplaced,  // a new connection took its session over
};

class Clients {
  public:
    virtual ~Clients() = default;

    // The next command, or false. Never blocks.
    virtual bool take(ClientCommand& command) = 0;

    // The client may be welcomed (kOk), or not. last_number: decided, so perhaps refused, or not on
    // disk yet. Slots of the segment start their episodes above revoked[] (already set up).
    virtual void attached(std::uint64_t client_id, Error error, std::uint64_t last_number) = 0;
    // The engine has let go of the segment.
    virtual void detached(std::uint64_t client_id) = 0;
    // Close the client's connection. kDetach follows.
    virtual void cut_off(std::uint64_t client_id, CutOff why, std::string_view reason) = 0;

    // Wakes threads that wait on `word` with a bit of `bits` (futex, shared mapping), so many at
    // most: how many. Anyone who has the word mapped may wait there with any number of threads, and
    // those with other bits cost time, too.
    virtual std::uint32_t wake(Atom<std::uint32_t>& word, std::uint32_t bits,
                               std::uint32_t waiters_max) = 0;

    // Empties the doorbell after a sleep.
    virtual void drain_doorbell() = 0;
};

}  // namespace bidstore
