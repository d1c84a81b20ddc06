// What a Store is made of: the connection of the moment, the writes without an answer, the tables
// that were opened. Survives the daemon.
//
//   a write    unsent --> sent --> answered       A connection that goes away, or an answer that
//                 ^         |                     says so (kStopping, kFenced, kUnknownOutcome),
//                 +---------+                     makes it unsent: the next one gets it again.
//
// Exactly once: numbers are dense and given under one lock, in the order in which records go into
// the ring. kept_ holds every write from the lowest unanswered one on. A new connection's ring
// starts at the number of the first of them, and all of them go in, in order, before any new one;
// the daemon answers those that it has applied with kOk and csn 0. Among them may be writes that
// were answered, behind one that was not (relaxed ones, or refusals): the first are sent as they
// were, which at worst applies one that the crash had lost; a refused one must not be applied now,
// so a write that is refused in any case takes its number. The ring counts for itself (shm/ring.h):
// a write that was not yet sent on this connection stays kept, answered or not, until it was, or
// the ring would give its number to another.
//
// Who:    any thread of the process that attached.
// Locks:  lock_ guards the members below it, for a few microseconds; reconnect_turn_ is held by
//         the one thread that connects anew, and comes first; catalog_turn_ comes before both.
// Bounds: a write without an answer that was sent holds a call slot; answered ones behind it gave
//         theirs back. All of them are kUndecidedWritesMax at most, which may be more than there
//         are call slots: a new connection then gets them bit by bit, as answers come, and what is
//         unsent waits in front of new ones.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <string>
#include <vector>

#include "clientlib/attach.h"
#include "clientlib/bidstore.h"
#include "clientlib/heartbeat.h"
#include "shm/hot_path.h"
#include "shm/message.h"

namespace bidstore {

// Guarded by StoreState::lock_, but for bytes and number, which do not change once it is kept.
struct KeptWrite {
    std::vector<std::byte> bytes;
    std::uint64_t number = 0;
    bool sent = false;      // on `connection`, with `call`
    bool answered = false;  // `answer` is final
    std::shared_ptr<Connection> connection;
    Call call;
    Answer answer;
};

// What one thread does at a time while others wait for it, each until its own deadline. (A
// condition rather than a timed mutex, which the thread sanitizer does not follow.)
class Turn {
  public:
    // Of a thread that got the turn; gives it back.
    class Holder {
      public:
        explicit Holder(Turn* turn) : turn_(turn) {}
        Holder(Holder&& other) noexcept : turn_(std::exchange(other.turn_, nullptr)) {}
        ~Holder() {
            if (turn_ != nullptr) turn_->give_back();
        }
        explicit operator bool() const { return turn_ != nullptr; }

      private:
        Turn* turn_;
    };

    // Empty when the deadline passed first.
    Holder take(Deadline deadline) {
        std::unique_lock hold(lock_);
        if (!free_again_.wait_until(hold, deadline, [this] { return !taken_; })) {
            return Holder(nullptr);
        }
        taken_ = true;
        return Holder(this);
    }

  private:
    void give_back() {
        const std::lock_guard hold(lock_);
        taken_ = false;
        free_again_.notify_one();
    }
    std::mutex lock_;
    std::condition_variable free_again_;
    bool taken_ = false;
};

class StoreState {
  public:
    StoreState(AttachOptions options, std::shared_ptr<Connection> connection);

    bool forked() const { return fork_generation_ != fork_generation(); }
    const AttachOptions& options() const { return options_; }
    const SessionBytes& session() const { return session_; }
    const FileUuid& file() const { return file_; }
    std::uint64_t reconnects() const;

    // A connection that is not abandoned: the one of the moment, or a new one made before the
    // deadline. One thread connects, the others wait for it.
    Result<std::shared_ptr<Connection>> live_connection(Deadline deadline);

    // Keeps the write and puts it into the ring, or does neither.
    Result<std::shared_ptr<KeptWrite>> submit(const RawTransaction& transaction,
                                              Durability durability, Deadline deadline);
    Result<Committed> wait(KeptWrite& write, Deadline deadline);
    bool done(KeptWrite& write);
    // Whoever got the write from submit() is through with it: its memory is used again.
    void give_back(std::shared_ptr<KeptWrite> write);

    // The reader with which the store itself looks into the catalog, one thread at a time.
    Result<Reader> make_reader(std::shared_ptr<StoreState> itself);
    template <class Read>
    auto with_catalog(Deadline deadline, Read&& read)
        -> decltype(read(std::declval<const Snapshot&>())) {
        if (forked()) return forked_failure();
        const Turn::Holder turn = catalog_turn_.take(deadline);
        if (!turn) {
            return Failure{Error::kTimedOut, "the catalog was in use by other threads until the "
                                             "deadline"};
        }
        if (!catalog_reader_) {
            // Not owning: the store owns this reader.
            Result<Reader> made =
                make_reader(std::shared_ptr<StoreState>(std::shared_ptr<void>{}, this));
            if (!made.ok()) return made.failure();
            catalog_reader_.emplace(std::move(*made));
        }
        return read_once(*catalog_reader_, deadline, read);
    }
    // The table as the catalog describes it, with its place among this store's tables. Handles made
    // before keep what they were opened with, also where an older copy of the file, put back, has
    // another table under the id.
    std::shared_ptr<const TableInfo> table_info(TableId id, bool system, Schema schema);
    std::string table_name(TableId id);

  private:
    // All of these with lock_ held.
    void look_for_daemon();
    bool try_send_new(const std::shared_ptr<KeptWrite>& write);
    bool send_unsent();
    bool send(KeptWrite& write);
    bool send_again(KeptWrite& write);
    bool ring_carries(const KeptWrite& write) const;
    void collect(KeptWrite& write);
    void collect_all();
    void drop_decided();
    std::shared_ptr<KeptWrite> spare_write();
    void keep_spare(std::shared_ptr<KeptWrite> write);
    void adopt(std::shared_ptr<Connection> connection);

    Status check_same_file(const Connection& connection) const;
    // Of a write that was not sent: until it may be tried again.
    Status wait_for_room(const KeptWrite& write, Deadline deadline);
    Status wait_for_progress(KeptWrite& write, Deadline deadline);
    Status come_back(const std::shared_ptr<Connection>& connection, Deadline deadline);
    Result<Committed> outcome(const KeptWrite& write);  // of an answered one, without lock_

    const AttachOptions options_;
    const unsigned fork_generation_;
    SessionBytes session_;
    const FileUuid file_;  // the store's; another one has other tables under the same ids

    Turn catalog_turn_;
    std::optional<Reader> catalog_reader_;

    Turn reconnect_turn_;

    mutable std::mutex lock_;
    std::shared_ptr<Connection> connection_;
    bool leaving_ = false;  // the daemon of connection_ said that it goes: it gets nothing more
    std::pmr::unsynchronized_pool_resource nodes_{kept_memory()};
    std::pmr::deque<std::shared_ptr<KeptWrite>> kept_{&nodes_};  // dense, up to next_number_
    // Nobody else's, so that submitting allocates nothing when as many are under way as before.
    std::vector<std::shared_ptr<KeptWrite>> spare_writes_;
    std::size_t unsent_ = 0;  // of kept_, on connection_
    std::uint64_t next_number_ = 1;
    std::uint64_t reconnects_ = 0;
    HeartbeatLook heartbeat_;
    std::uint64_t looked_at_number_ = 0;  // next_number_ at the last look
    std::multimap<std::uint32_t, std::shared_ptr<const TableInfo>> tables_;  // by id
};

}  // namespace bidstore
