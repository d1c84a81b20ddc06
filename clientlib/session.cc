#include "clientlib/session.h"

#include <cstring>
#include <thread>

#include "engine/page/search.h"

namespace bidstore {
namespace {

using Clock = std::chrono::steady_clock;

// What a spare write keeps for the next one; longer ones are rare, and copying them costs more.
constexpr std::size_t kSpareBytesMax = 4096;

// Answers of a daemon that is on its way out, or of one that refused an earlier write for that
// reason (a gap): the write counts as not answered.
bool says_farewell(Error error) {
    return error == Error::kStopping || error == Error::kFenced ||
           error == Error::kUnknownOutcome || error == Error::kSessionGap;
}

// A transaction that is refused whatever there is: its table has no row, ever.
std::vector<std::byte> refused_transaction() {
    constexpr std::uint32_t kNoTable = ~std::uint32_t{0};
    const TransactionHeader header{1, Durability::kRelaxed};
    OperationHeader operation{};
    operation.kind = OperationKind::kCheckPresent;
    operation.key_bytes = 8;
    operation.table_id = kNoTable;
    std::vector<std::byte> bytes(sizeof header + sizeof operation + operation.key_bytes);
    std::memcpy(bytes.data(), &header, sizeof header);
    std::memcpy(bytes.data() + sizeof header, &operation, sizeof operation);
    return bytes;
}

SessionBytes session_of(Connection& connection) {
    SessionBytes session{};
    std::memcpy(session.data(), connection.segment().header().session_id, session.size());
    return session;
}

FileUuid file_of(const Connection& connection) {
    FileUuid file;
    static_assert(sizeof file == sizeof connection.pool().header().file_uuid);
    std::memcpy(&file, connection.pool().header().file_uuid, sizeof file);
    return file;
}

}  // namespace

StoreState::StoreState(AttachOptions options, std::shared_ptr<Connection> connection)
    : options_(std::move(options)),
      fork_generation_(fork_generation()),
      session_(session_of(*connection)),
      file_(file_of(*connection)),
      connection_(std::move(connection)),
      next_number_(connection_->segment().header().last_number + 1) {}

std::uint64_t StoreState::reconnects() const {
    if (forked()) return 0;
    const std::lock_guard hold(lock_);
    return reconnects_;
}

// ---- connections --------------------------------------------------------------------------------

Result<std::shared_ptr<Connection>> StoreState::live_connection(Deadline deadline) {
    const auto current = [this]() -> std::shared_ptr<Connection> {
        const std::lock_guard hold(lock_);
        return connection_->alive() ? connection_ : nullptr;
    };
    if (auto connection = current()) return connection;
    const Turn::Holder turn = reconnect_turn_.take(deadline);
    if (!turn) {
        return {Error::kDisconnected, "bidstored at " + options_.socket +
                                          " is away, and did not come back before the deadline"};
    }
    if (auto connection = current()) return connection;
    auto made = connect_to_daemon(options_, session_, true, deadline);
    if (!made.ok()) return made;
    if (Status same = check_same_file(**made); !same.ok()) return same.failure();
    const std::lock_guard hold(lock_);
    adopt(*made);
    return connection_;
}

// Ids, schemas and write numbers of one file mean nothing in another.
Status StoreState::check_same_file(const Connection& connection) const {
    if (file_of(connection) == file_) return {};
    return {Error::kNotBidstore,
            "bidstored at " + options_.socket +
                " serves another store now than the one that this program attached to: start the "
                "daemon on the directory of before, or restart the program (or attach anew)"};
}

void StoreState::adopt(std::shared_ptr<Connection> connection) {
    // What the old daemon said before it went counts.
    for (const auto& write : kept_) {
        collect(*write);
        write->sent = false;
        write->connection.reset();
    }
    // Sent or not: the new ring's numbers begin behind them.
    while (!kept_.empty() && kept_.front()->answered) kept_.pop_front();
    connection_ = std::move(connection);
    leaving_ = false;
    unsent_ = kept_.size();
    ++reconnects_;
    const std::uint64_t applied = connection_->segment().header().last_number;
    if (kept_.empty() && next_number_ <= applied) next_number_ = applied + 1;
    const std::uint64_t first = kept_.empty() ? next_number_ : kept_.front()->number;
    // Nobody has used this ring yet: the connection becomes known with the release of lock_.
    init_ring(connection_->segment().ring_control(), first - 1);
    send_unsent();
}

// The connection is not what it should be: waits for its end and for a new one.
Status StoreState::come_back(const std::shared_ptr<Connection>& connection, Deadline deadline) {
    if (connection->alive()) {
        if (!connection->wait_for_hangup(deadline)) {
            return {Error::kDisconnected, "bidstored at " + options_.socket +
                                              " is stopping, and was not back before the deadline"};
        }
        connection->abandon();
    }
    auto live = live_connection(deadline);
    if (!live.ok()) return live.failure();
    return {};
}

// ---- sending ------------------------------------------------------------------------------------

bool StoreState::send(KeptWrite& write) {
    const std::optional<Call> call = connection_->claim_call();
    if (!call) return false;
    const std::uint64_t decided_below = kept_.empty() ? write.number : kept_.front()->number;
    if (!connection_->post(RecordKind::kTransaction, write.bytes, *call, write.number,
                           decided_below)) {
        connection_->release_call(*call);
        return false;
    }
    write.sent = true;
    write.connection = connection_;
    write.call = *call;
    return true;
}

bool StoreState::ring_carries(const KeptWrite& write) const {
    return write.bytes.size() <= connection_->ring().payload_bytes_max();
}

// A write that was answered, but has an unanswered one before it: only its number matters. One that
// the daemon, back with a smaller ring, cannot take is lost if the crash had lost it.
bool StoreState::send_again(KeptWrite& write) {
    KeptWrite again;
    again.number = write.number;
    const bool as_it_was = write.answer.error == Error::kOk && ring_carries(write);
    again.bytes = as_it_was ? write.bytes : refused_transaction();
    if (!send(again)) return false;
    connection_->forget_call(again.call);
    write.sent = true;
    return true;
}

bool StoreState::send_unsent() {
    if (unsent_ == 0) return true;
    // A write that got a farewell has had its number in this ring, which gives no number twice.
    if (leaving_) return false;
    const ColdPath cold;
    for (const auto& write : kept_) {
        if (write->sent) continue;
        if (!write->answered && !ring_carries(*write)) {
            // The daemon came back with a smaller ring. An earlier one may have applied the write.
            write->answered = true;
            write->answer = Answer{};
            write->answer.error = Error::kUnknownOutcome;
        }
        const bool sent = write->answered ? send_again(*write) : send(*write);
        if (!sent) return false;
        --unsent_;
    }
    return true;
}

// Of those that only write nobody else looks: what they put into a dead daemon's ring went in well,
// until it was full. A client that was cut off finds out by its oldest write, which nobody answers.
void StoreState::look_for_daemon() {
    const std::uint64_t now_ns = coarse_now_ns();
    if (!heartbeat_.due(now_ns)) [[likely]]
        return;
    const bool maybe = heartbeat_.missed(connection_->pool().header().engine, now_ns);
    const std::uint64_t looked_at = std::exchange(looked_at_number_, next_number_);
    const bool stuck = !kept_.empty() && kept_.front()->number <= looked_at;
    if (!maybe && !stuck) return;
    const ColdPath cold;
    if (connection_->hung_up()) connection_->abandon();
}

bool StoreState::try_send_new(const std::shared_ptr<KeptWrite>& write) {
    look_for_daemon();
    if (!connection_->alive() || leaving_ || !ring_carries(*write)) return false;
    // Answers whose callers gave up: the next number in line frees all behind it.
    if (!kept_.empty()) collect(*kept_.front());
    drop_decided();
    if (!send_unsent()) return false;
    // So many answers the daemon remembers, and no more: the oldest has to come first.
    if (kept_.size() >= kUndecidedWritesMax) {
        collect_all();
        if (leaving_ || kept_.size() >= kUndecidedWritesMax) return false;
    }
    write->number = next_number_;
    if (!send(*write)) {
        collect_all();
        if (leaving_ || !send(*write)) return false;
    }
    ++next_number_;
    kept_.push_back(write);
    return true;
}

Result<std::shared_ptr<KeptWrite>> StoreState::submit(const RawTransaction& transaction,
                                                      Durability durability, Deadline deadline) {
    if (forked()) return forked_failure();
    if (!transaction.status().ok()) return transaction.status().failure();
    if (transaction.empty()) return {Error::kInvalid, "a transaction without operations"};
    if (!transaction.fits_file(file_)) {
        return {Error::kInvalid,
                "a transaction on tables that were opened on another store: open them again"};
    }
    const HotPath hot("submit");
    std::shared_ptr<KeptWrite> write;
    {
        const std::lock_guard hold(lock_);
        write = spare_write();
    }
    write->bytes.clear();
    kept_reserve(write->bytes, transaction.bytes().size());
    write->bytes.assign(transaction.bytes().begin(), transaction.bytes().end());
    std::memcpy(write->bytes.data() + offsetof(TransactionHeader, durability), &durability,
                sizeof durability);
    for (;;) {
        {
            const std::lock_guard hold(lock_);
            if (try_send_new(write)) return write;
        }
        const ColdPath cold;
        if (Status room = wait_for_room(*write, deadline); !room.ok()) {
            give_back(std::move(write));
            return room.failure();
        }
    }
}

Status StoreState::wait_for_room(const KeptWrite& write, Deadline deadline) {
    std::shared_ptr<Connection> connection;
    bool leaving = false;
    bool carried = true;
    std::optional<Call> oldest;
    {
        const std::lock_guard hold(lock_);
        connection = connection_;
        leaving = leaving_;
        carried = ring_carries(write);
        if (!kept_.empty() && kept_.front()->sent && !kept_.front()->answered) {
            oldest = kept_.front()->call;
        }
    }
    if (leaving || !connection->alive() || connection->hung_up()) {
        if (!leaving && connection->alive()) connection->abandon();
        return come_back(connection, deadline);
    }
    // Judged by a ring that is served: the daemon may have come back with a larger one.
    if (!carried) {
        return {Error::kTooLarge,
                "a transaction of " + std::to_string(write.bytes.size()) +
                    " bytes: the ring of this connection carries " +
                    std::to_string(connection->ring().payload_bytes_max()) +
                    "; raise the daemon's ring_bytes (4MiB carries every value)"};
    }
    if (Clock::now() >= deadline) {
        return {Error::kBusy,
                "the ring, the call slots or the " + std::to_string(kUndecidedWritesMax) +
                    " places for undecided writes of this process were full until the deadline; "
                    "the transaction was not sent"};
    }
    if (oldest) {
        connection->wait_slice(*oldest, deadline);
    } else {
        std::this_thread::sleep_for(kRoomPause);
    }
    return {};
}

// ---- answers ------------------------------------------------------------------------------------

void StoreState::collect(KeptWrite& write) {
    if (!write.sent || write.answered || !write.connection->answered(write.call)) return;
    const Answer answer = write.connection->answer(write.call);
    write.connection->release_call(write.call);
    if (says_farewell(answer.error)) {
        leaving_ = leaving_ || write.connection == connection_;
        write.sent = false;
        write.connection.reset();
        ++unsent_;
        return;
    }
    write.answered = true;
    write.answer = answer;
    write.connection.reset();
}

void StoreState::collect_all() {
    for (const auto& write : kept_) collect(*write);
    drop_decided();
}

void StoreState::drop_decided() {
    while (!kept_.empty() && kept_.front()->answered && kept_.front()->sent) {
        std::shared_ptr<KeptWrite> decided = std::move(kept_.front());
        kept_.pop_front();
        keep_spare(std::move(decided));
    }
}

// ---- memory of writes ---------------------------------------------------------------------------

std::shared_ptr<KeptWrite> StoreState::spare_write() {
    if (spare_writes_.empty()) {
        const ColdPath cold;
        return std::make_shared<KeptWrite>();
    }
    std::shared_ptr<KeptWrite> write = std::move(spare_writes_.back());
    spare_writes_.pop_back();
    return write;
}

// The last who holds it: kept_ and the Pending let go of it under lock_, in whatever order.
void StoreState::keep_spare(std::shared_ptr<KeptWrite> write) {
    if (write.use_count() != 1 || spare_writes_.size() >= kUndecidedWritesMax) return;
    if (write->bytes.capacity() > kSpareBytesMax) return;
    write->number = 0;
    write->sent = false;
    write->answered = false;
    write->connection.reset();
    write->call = {};
    write->answer = {};
    kept_push(spare_writes_, std::move(write));
}

void StoreState::give_back(std::shared_ptr<KeptWrite> write) {
    if (!write || forked()) return;  // in a child the lock may be held by nobody who is there
    const HotPath hot("giving a write back");
    const std::lock_guard hold(lock_);
    keep_spare(std::move(write));
}

bool StoreState::done(KeptWrite& write) {
    if (forked()) return true;
    const HotPath hot("is a write done");
    const std::lock_guard hold(lock_);
    collect(write);
    drop_decided();
    if (write.answered) return true;
    look_for_daemon();
    // What a new connection had no room for; who only polls is told of nothing else.
    if (unsent_ != 0 && connection_->alive()) {
        collect_all();
        send_unsent();
    }
    return write.answered;
}

Result<Committed> StoreState::wait(KeptWrite& write, Deadline deadline) {
    while (!done(write)) {
        const bool late = Clock::now() >= deadline;
        Status progress = late ? Status{} : wait_for_progress(write, deadline);
        if (!late && progress.ok()) continue;
        std::string what = "write " + std::to_string(write.number) +
                           " had no answer before the deadline: it may still be applied, once";
        if (!progress.ok()) what += " (" + progress.failure().what + ")";
        // A daemon that is there and refuses us for good will not answer later either.
        const bool open = late || progress.error() == Error::kTimedOut || passes(progress.error());
        return {open ? Error::kTimedOut : Error::kUnknownOutcome, std::move(what)};
    }
    if (forked()) return forked_failure();
    return outcome(write);
}

// Sleeps until there may be something new about the write.
Status StoreState::wait_for_progress(KeptWrite& write, Deadline deadline) {
    std::shared_ptr<Connection> connection;
    Call call;
    bool sent = false;
    bool leaving = false;
    {
        const std::lock_guard hold(lock_);
        if (write.answered) return {};
        sent = write.sent;
        call = write.call;
        leaving = leaving_;
        connection = sent ? write.connection : connection_;
    }
    if (sent && connection->alive()) {
        if (connection->wait_slice(call, deadline)) return {};
        if (connection->hung_up()) connection->abandon();
        return {};
    }
    if (leaving || !connection->alive()) return come_back(connection, deadline);
    // There is a new connection, but no room yet for all that was kept (done() tries); or it
    // ended, too.
    if (connection->hung_up()) {
        connection->abandon();
        return {};
    }
    std::this_thread::sleep_for(kRoomPause);
    return {};
}

// ---- tables -------------------------------------------------------------------------------------

std::shared_ptr<const TableInfo> StoreState::table_info(TableId id, bool system, Schema schema) {
    const std::lock_guard hold(lock_);
    const auto [first, last] = tables_.equal_range(id.value);
    for (auto known = first; known != last; ++known) {
        if (known->second->schema.encode() == schema.encode()) return known->second;
    }
    auto shape = std::make_shared<const TreeShape>(schema, id);
    const auto index = static_cast<std::uint32_t>(tables_.size());
    auto made = std::make_shared<const TableInfo>(
        TableInfo{id, index, file_, system, std::move(schema), std::move(shape)});
    tables_.emplace(id.value, made);
    return made;
}

std::string StoreState::table_name(TableId id) {
    const std::lock_guard hold(lock_);
    const auto found = tables_.find(id.value);
    if (found == tables_.end()) return "table " + std::to_string(id.value);
    return found->second->schema.name();
}

}  // namespace bidstore
