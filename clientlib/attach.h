// One connection to one daemon: handshake, the mapped segments, and what of them is handed out.
//
//   attached ---- hangup seen ----> abandoned
//
// An abandoned connection stays mapped until the last reader has moved to the next one. Its mark
// is the magic of the client segment, set to 0: a word that every reader can look at without a
// lock, in a line that nobody else writes. Snapshots of it are no longer valid from then on.
//
// Who:    any thread of the process that attached; a forked child may only destroy it.
// Owns:   both mappings, socket and doorbell. The daemon knows a client's end by the socket's end,
//         so a forked child closes its copies at once.
// Errors: kDisconnected, kTimedOut, kDenied, kVersionMismatch, kProtocol, kBusy, each naming the
//         socket.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "clientlib/bidstore.h"
#include "shm/call_slot.h"
#include "shm/error.h"
#include "shm/ring.h"
#include "shm/segment.h"

namespace bidstore {

using SessionBytes = std::array<std::uint8_t, 16>;

// How often this process was forked off since its start, as its ancestors count: what was attached
// under another value belongs to the parent.
extern unsigned fork_count;  // written in a child alone, while it has one thread
inline unsigned fork_generation() { return fork_count; }
Failure forked_failure();

// Whether a refusal to connect may be over soon: the daemon is not there, goes, is full, or could
// not read what it has of the session.
bool passes(Error refusal);

// Between two looks where nothing wakes who waits for room: in the ring, call slots or the pool.
inline constexpr std::chrono::microseconds kRoomPause{200};

// steady_clock is CLOCK_MONOTONIC, the daemon's clock too.
std::uint64_t to_ns(Deadline deadline);

// A call slot that was claimed, and the generation that tells its answer from older ones.
struct Call {
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;
};

class Connection {
  public:
    // Neither socket nor doorbell is looked at: tests pass what they like.
    Connection(PoolView pool, ClientSegment segment, Descriptor doorbell, Descriptor socket);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    const PoolView& pool() const { return pool_; }
    ClientSegment& segment() { return segment_; }
    RingProducer& ring() { return ring_; }
    std::uint64_t instance_id() const { return instance_id_; }

    bool alive() { return segment_.header().magic.load() == kClientMagic; }
    void abandon() { segment_.header().magic.store(0); }
    // Whether the daemon's end of the socket is closed. One system call.
    bool hung_up() const;
    // Waits for that, at most until the deadline.
    bool wait_for_hangup(Deadline deadline) const;

    // A reader slot of this process, or nothing when all are taken.
    std::optional<std::uint32_t> claim_reader_slot();
    void release_reader_slot(std::uint32_t slot);

    // A call slot, or nothing. Slots whose callers gave up come back when their answer came.
    std::optional<Call> claim_call();
    void release_call(const Call& call);
    // The caller gave up: the slot is used again after its answer.
    void forget_call(const Call& call);

    bool answered(const Call& call);
    // Of a call that was answered. kUnknownOutcome: it went with the connection.
    Answer answer(const Call& call);
    // For those that wait for one of several calls.
    AwaitedCall awaited(const Call& call) {
        return {&segment_.calls()[call.slot], call.slot, call.generation};
    }
    // Waits until the deadline or a little longer than a moment, whichever is first: a daemon that
    // dies wakes nobody, so the caller looks at hung_up() between the slices.
    bool wait_slice(std::span<const AwaitedCall> calls, Deadline deadline);
    bool wait_slice(const Call& call, Deadline deadline) {
        return wait_slice(std::array{awaited(call)}, deadline);
    }
    // Waits awake for a moment, for an answer to a page request. False: there is none.
    bool linger(std::span<const AwaitedCall> calls, Deadline deadline) {
        return linger_.for_answer(segment_.ring_control(), calls, to_ns(deadline));
    }

    // Puts a record into the ring and rings. False: no room. A transaction's number must be the
    // one that the ring gives next: under another it would be taken for another write.
    bool post(RecordKind kind, std::span<const std::byte> payload, const Call& call,
              std::uint64_t write_number, std::uint64_t decided_below);

    // In a forked child, while it has one thread: lets the parent's end be the only one. What it
    // returns must never be destroyed.
    ClientSegment close_in_child();

  private:
    void collect_forgotten();  // lock_ held

    PoolView pool_;
    ClientSegment segment_;
    Descriptor doorbell_;
    Descriptor socket_;
    RingProducer ring_;
    std::uint64_t instance_id_;
    Linger linger_;

    std::mutex lock_;  // guards what follows; held for a few instructions
    std::vector<std::uint32_t> free_reader_slots_;
    std::vector<std::uint32_t> free_calls_;
    std::vector<std::uint32_t> generations_;  // newest of each call slot
    std::vector<Call> forgotten_;
};

// Connects, greets, receives the descriptors, maps, checks. A zero session asks for a new one; the
// client segment's header then says which. While nobody listens it tries again, if `retry`.
Result<std::shared_ptr<Connection>> connect_to_daemon(const AttachOptions& options,
                                                      const SessionBytes& session, bool retry,
                                                      Deadline deadline);

}  // namespace bidstore
