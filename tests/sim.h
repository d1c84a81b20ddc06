// The simulated half of the clients seam, clients in the same thread, and a whole store made of the
// simulated disk and clock: one seed, one thread, no system call that matters.
//
// A SimClient writes its requests into a real client segment through the real ring, and looks for
// its answers in the real call slots; it never waits, the test runs the engine in between.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/clients.h"
#include "engine/engine.h"
#include "engine/engine_core.h"
#include "engine/page/schema.h"
#include "shm/call_slot.h"
#include "shm/doorbell.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "tests/sim_clock.h"
#include "tests/sim_disk.h"
#include "tests/sim_memory.h"

namespace bidstore {

class SimClients final : public Clients {
  public:
    bool take(ClientCommand& command) override {
        if (commands.empty()) return false;
        command = commands.front();
        commands.pop_front();
        return true;
    }
    void attached(std::uint64_t client_id, Error error, std::uint64_t last_number) override {
        attach_answers[client_id] = {error, last_number};
    }
    void detached(std::uint64_t client_id) override { detached_clients.push_back(client_id); }
    void cut_off(std::uint64_t client_id, CutOff why, std::string_view reason) override {
        cut_off_clients[client_id] = std::string(reason);
        hostile_clients += why == CutOff::kHostile;
    }
    std::uint32_t wake(std::atomic<std::uint32_t>&, std::uint32_t bits,
                       std::uint32_t waiters_max) override {
        ++wakes;
        return on_wake ? on_wake(bits, waiters_max) : 0;
    }
    void drain_doorbell() override {
        if (bell >= 0) bidstore::drain_doorbell(bell);
    }

    int bell = -1;  // a doorbell of the test's, for all that there would be
    std::deque<ClientCommand> commands;
    std::map<std::uint64_t, std::pair<Error, std::uint64_t>> attach_answers;
    std::vector<std::uint64_t> detached_clients;
    std::map<std::uint64_t, std::string> cut_off_clients;
    std::uint64_t hostile_clients = 0;  // of cut_off_clients
    std::uint64_t wakes = 0;
    // How many it woke, of so many at most.
    std::function<std::uint32_t(std::uint32_t bits, std::uint32_t waiters_max)> on_wake;
};

// Puts a transaction together as bytes (shm/message.h).
class TransactionBytes {
  public:
    explicit TransactionBytes(Durability durability = Durability::kDurable);
    TransactionBytes& operation(OperationKind kind, TableId table, std::span<const std::byte> key,
                                std::span<const std::byte> body, std::uint8_t flags = 0);
    TransactionBytes& add(TableId table, std::span<const std::byte> key, AddBody body,
                          std::uint8_t flags = kWantResult);
    TransactionBytes& columns(OperationKind kind, TableId table, std::span<const std::byte> key,
                              std::uint16_t column, std::span<const std::byte> content);
    const std::vector<std::byte>& bytes() const { return bytes_; }

  private:
    std::vector<std::byte> bytes_;
};

class SimClient {
  public:
    SimClient(std::uint64_t id, std::uint32_t first_slot, const SessionId& session, Rights rights,
              std::uint32_t call_slots = 64, std::uint32_t ring_bytes = 1u << 20,
              SimMemory* memory = nullptr);
    ~SimClient();
    SimClient(const SimClient&) = delete;
    SimClient& operator=(const SimClient&) = delete;

    ClientCommand attach_command();
    std::uint64_t id() const { return id_; }
    const SessionId& session() const { return session_; }
    ClientSegment& segment() { return segment_; }
    // The engine welcomed it: the session's numbers go on behind last_number.
    void welcomed(std::uint64_t last_number);

    // Submits; the token finds the answer. Nothing when ring or call slots are full.
    std::optional<std::uint32_t> submit(std::span<const std::byte> transaction);
    std::optional<std::uint32_t> submit_load(std::span<const std::byte> load);
    std::optional<std::uint32_t> submit_compact(std::uint32_t pages);
    std::optional<std::uint32_t> request_pages(std::span<const PageId> pages);
    // Claims a place in the ring for a page request and does not commit it, as a thread does that
    // is stopped there: the engine takes nothing behind it. False: no room.
    bool claim_and_stop();
    // Claims and gives up places, as threads do that change their minds, until so many bytes are
    // left before the ring's end. The ring is new.
    void claim_up_to_end(std::uint32_t left_bytes);
    bool ring_is_empty();
    // Times that claims went past the ring's end.
    std::uint64_t ring_laps();
    // The thread goes on. The answer's token.
    std::uint32_t go_on();
    // The answer, once; frees the call slot.
    std::optional<Answer> answer(std::uint32_t token);
    std::uint64_t last_number() const { return last_number_; }
    // Until it is called, all answers that answer() gave out count as decided.
    void set_decided_below(std::uint64_t number) { decided_below_ = number; }

  private:
    std::optional<std::uint32_t> push(RecordKind kind, std::span<const std::byte> payload);
    std::optional<std::uint32_t> claim(RecordKind kind, std::span<const std::byte> payload);
    std::uint64_t id_;
    SessionId session_;
    Rights rights_;
    SimMemory* memory_;
    ClientSegment segment_;
    std::unique_ptr<RingProducer> producer_;
    std::vector<std::uint32_t> generations_;
    std::vector<bool> busy_;
    std::vector<std::uint64_t> numbers_;  // by call slot; 0: no write
    RingClaim claim_;
    std::uint32_t stopped_in_ = 0;  // call slot of the thread that stopped, with its claim
    RingClaim stopped_claim_;
    std::uint64_t last_number_ = 0;
    std::optional<std::uint64_t> decided_below_;
};

struct SimStoreOptions {
    std::uint32_t frames = 2048;
    std::uint32_t pages = 64 * 512;
    std::uint64_t directory_bytes = 16'384;
    SimMemory* memory = nullptr;  // where segments come from, or fresh ones
    EngineOptions engine;
};

// Small files, so that everything wraps, fills and grows within a short test.
SimStoreOptions small_store();
// A pool for what looks through the files of a store that no daemon has.
PoolSegment verifier_pool(std::uint32_t frames, std::uint32_t pages);

// Disk, clock, clients, pool and engine. The engine is opened by open().
class SimStore {
  public:
    SimStore(const SimStoreOptions& options, std::unique_ptr<SimDisk> disk, std::uint64_t seed);

    ~SimStore();

    Status open();
    // A round; moves the clock on a little.
    EngineRound round();
    // Rounds until `done` or the limit; false at the limit (or when the engine stopped or fenced).
    bool run_until(const std::function<bool()>& done, std::uint32_t rounds = 20'000);
    SimClient& connect(Rights rights = Rights::kAdmin,
                       std::optional<SessionId> session = std::nullopt,
                       std::uint32_t call_slots = 64, std::uint32_t ring_bytes = 1u << 20);
    // As connect(), but the engine may refuse: nullptr. It is not welcomed yet. A former connection
    // of the session, which the engine cuts off then, is hung up.
    SimClient* attach(Rights rights, const SessionId& session);
    // Of the last client that came, whether it was refused or not answered: then kOk.
    Error attach_error() const;
    void disconnect(SimClient& client);
    void disconnect_all();
    // Its process is gone. Does not wait.
    void hang_up(const SimClient& client);

    // Submits and runs until the answer is there.
    Answer commit(SimClient& client, const TransactionBytes& transaction);
    TableId create_table(SimClient& client, const Schema& schema);
    // All rows of a table at the newest state, through the engine's trees; large values whole.
    std::map<std::vector<std::byte>, std::vector<std::byte>> rows(TableId table);
    // So many sessions of one write each, which changes no row of the table; their clients are
    // gone.
    bool leave_sessions(std::uint32_t count, TableId table, std::span<const std::byte> absent_key);
    // Sessions that were last heard of before that, by their rows, and of which no client is there.
    // Nothing: a page of theirs is asked for, and comes with the next rounds.
    std::optional<std::uint32_t> silent_sessions(std::uint64_t before_us);
    // Of all clients.
    std::uint64_t ring_laps() const;
    bool stop();  // clean stop
    // Walks everything; the first broken rule, or an empty string.
    std::string verify();
    std::uint64_t early_pages();  // VerifyTotals, of a store without a crash in mid-change: none

    SimClock clock;
    std::unique_ptr<SimDisk> disk;
    SimClients clients;
    std::optional<PoolSegment> pool;
    std::unique_ptr<Engine> engine;
    std::vector<std::string> log_lines;

  private:
    SimStoreOptions options_;
    std::mt19937_64 random_;
    SimClient& add_client(Rights rights, const SessionId& session, std::uint32_t call_slots,
                          std::uint32_t ring_bytes);

    std::uint64_t next_client_ = 1;
    std::uint32_t next_slot_ = 0;
    std::vector<std::uint32_t> free_slots_;  // the first ones of clients that were disconnected
    std::vector<std::unique_ptr<SimClient>> sim_clients_;
};

}  // namespace bidstore
