#include "tests/sim.h"

#include "tests/whole_row.h"

#include <malloc.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "engine/verify.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kSlotsPerClient = 4;
constexpr std::uint32_t kReaderSlots = 256;

// Stores come and go by the thousand: each takes its large buffers from what those before it left,
// and not from fresh pages, which the kernel zeroes one at a time.
[[maybe_unused]] const bool kKeepsMemory =
    mallopt(M_MMAP_THRESHOLD, 64 << 20) != 0 && mallopt(M_TRIM_THRESHOLD, 256 << 20) != 0;

void append(std::vector<std::byte>& to, const void* from, std::size_t length) {
    const auto* bytes = static_cast<const std::byte*>(from);
    to.insert(to.end(), bytes, bytes + length);
}

}  // namespace

TransactionBytes::TransactionBytes(Durability durability) {
    const TransactionHeader header{0, durability};
    append(bytes_, &header, sizeof header);
}

TransactionBytes& TransactionBytes::operation(OperationKind kind, TableId table,
                                              std::span<const std::byte> key,
                                              std::span<const std::byte> body, std::uint8_t flags) {
    OperationHeader header{};
    header.kind = kind;
    header.flags = flags;
    header.key_bytes = static_cast<std::uint16_t>(key.size());
    header.table_id = table.value;
    header.body_bytes = static_cast<std::uint32_t>(body.size());
    append(bytes_, &header, sizeof header);
    append(bytes_, key.data(), key.size());
    append(bytes_, body.data(), body.size());
    bytes_.resize(align_up(bytes_.size(), 8));
    TransactionHeader count{};
    std::memcpy(&count, bytes_.data(), sizeof count);
    ++count.operation_count;
    std::memcpy(bytes_.data(), &count, sizeof count);
    return *this;
}

TransactionBytes& TransactionBytes::add(TableId table, std::span<const std::byte> key, AddBody body,
                                        std::uint8_t flags) {
    return operation(OperationKind::kAdd, table, key, std::as_bytes(std::span(&body, 1)), flags);
}

TransactionBytes& TransactionBytes::columns(OperationKind kind, TableId table,
                                            std::span<const std::byte> key, std::uint16_t column,
                                            std::span<const std::byte> content) {
    std::vector<std::byte> body;
    const ColumnValue header{column, 0, static_cast<std::uint32_t>(content.size())};
    append(body, &header, sizeof header);
    append(body, content.data(), content.size());
    body.resize(align_up(body.size(), 8));
    return operation(kind, table, key, body);
}

// ---- client ----

SimClient::SimClient(std::uint64_t id, std::uint32_t first_slot, const SessionId& session,
                     Rights rights, std::uint32_t call_slots, std::uint32_t ring_bytes,
                     SimMemory* memory)
    : id_(id), session_(session), rights_(rights), memory_(memory), segment_([&] {
          ClientShape shape;
          shape.slot_count = kSlotsPerClient;
          shape.call_slot_count = call_slots;
          shape.ring_bytes = ring_bytes;
          shape.first_slot = first_slot;
          shape.rights = rights;
          std::memcpy(shape.session_id, session.bytes, sizeof shape.session_id);
          shape.instance_id = 1;
          if (memory != nullptr) return memory->take(shape);
          auto made = ClientSegment::create(shape);
          CHECK(made.ok());
          return std::move(*made);
      }()) {
    generations_.resize(segment_.call_slot_count(), 0);
    busy_.resize(segment_.call_slot_count(), false);
    numbers_.resize(segment_.call_slot_count(), 0);
}

SimClient::~SimClient() {
    if (memory_ != nullptr) memory_->give_back(std::move(segment_));
}

ClientCommand SimClient::attach_command() {
    ClientCommand command;
    command.kind = ClientCommand::Kind::kAttach;
    command.client_id = id_;
    command.rights = rights_;
    command.session = session_;
    const ClientHeader& header = segment_.header();
    command.segment = {segment_.base(),       segment_.first_slot(),
                       segment_.slot_count(), segment_.call_slot_count(),
                       segment_.ring_bytes(), header.slots_offset,
                       header.marks_offset,   header.ring_control_offset,
                       header.ring_offset,    header.calls_offset};
    return command;
}

void SimClient::welcomed(std::uint64_t last_number) {
    last_number_ = last_number;
    producer_ = std::make_unique<RingProducer>(segment_.ring_control(), segment_.ring(),
                                               segment_.ring_bytes());
}

std::optional<std::uint32_t> SimClient::push(RecordKind kind, std::span<const std::byte> payload) {
    const auto slot = claim(kind, payload);
    if (slot) producer_->commit(claim_);
    return slot;
}

// Its call slot; what is written stands in claim_, and is not committed.
std::optional<std::uint32_t> SimClient::claim(RecordKind kind, std::span<const std::byte> payload) {
    const auto free = std::find(busy_.begin(), busy_.end(), false);
    if (free == busy_.end()) return std::nullopt;
    const auto slot = static_cast<std::uint32_t>(free - busy_.begin());
    ClaimRequest request;
    request.kind = kind;
    request.payload_bytes = static_cast<std::uint32_t>(payload.size());
    request.call_slot = slot;
    request.call_generation = ++generations_[slot];
    request.number_reference = last_number_;
    std::uint64_t oldest = last_number_ + 1;
    for (const std::uint64_t number : numbers_) {
        if (number != 0) oldest = std::min(oldest, number);
    }
    request.decided_below = decided_below_.value_or(oldest);
    claim_ = producer_->try_claim(request);
    if (!claim_) return std::nullopt;
    std::memcpy(claim_.payload, payload.data(), payload.size());
    if (kind == RecordKind::kTransaction) last_number_ = claim_.write_number;
    busy_[slot] = true;
    numbers_[slot] = claim_.write_number;
    return slot;
}

std::optional<std::uint32_t> SimClient::submit(std::span<const std::byte> transaction) {
    return push(RecordKind::kTransaction, transaction);
}

std::optional<std::uint32_t> SimClient::submit_load(std::span<const std::byte> load) {
    return push(RecordKind::kLoad, load);
}

std::optional<std::uint32_t> SimClient::submit_compact(std::uint32_t pages) {
    const CompactRequest request{pages, 0};
    return push(RecordKind::kCompact, std::as_bytes(std::span(&request, 1)));
}

std::optional<std::uint32_t> SimClient::request_pages(std::span<const PageId> pages) {
    PageRequest request{};
    request.count = static_cast<std::uint32_t>(pages.size());
    for (std::size_t i = 0; i < pages.size(); ++i) request.page_id[i] = pages[i].value;
    const auto bytes = std::as_bytes(std::span(&request, 1));
    return push(RecordKind::kPageRequest, bytes.first(4 + 4 * pages.size()));
}

bool SimClient::claim_and_stop() {
    const std::uint32_t request[2] = {1, 1};  // one page
    const auto slot = claim(RecordKind::kPageRequest, std::as_bytes(std::span(request)));
    if (!slot) return false;
    stopped_in_ = *slot;
    stopped_claim_ = claim_;
    return true;
}

void SimClient::claim_up_to_end(std::uint32_t left_bytes) {
    CHECK(ring_is_empty());
    // A record takes half of the ring at most.
    const std::uint32_t half = (segment_.ring_bytes() - left_bytes) / 2 / kRingUnitBytes;
    ClaimRequest request;
    request.kind = RecordKind::kPageRequest;
    request.payload_bytes =
        half * kRingUnitBytes - static_cast<std::uint32_t>(sizeof(RecordHeader));
    for (int i = 0; i < 2; ++i) {
        const RingClaim claim = producer_->try_claim(request);
        CHECK(claim);
        producer_->abort(claim);
    }
}

bool SimClient::ring_is_empty() {
    const RingControl& control = segment_.ring_control();
    return control.head.load() == static_cast<std::uint32_t>(control.claim.load());
}

std::uint64_t SimClient::ring_laps() {
    const auto claimed = static_cast<std::uint32_t>(segment_.ring_control().claim.load());
    return claimed / (segment_.ring_bytes() / kRingUnitBytes);
}

std::uint32_t SimClient::go_on() {
    producer_->commit(stopped_claim_);
    return stopped_in_;
}

std::optional<Answer> SimClient::answer(std::uint32_t token) {
    CHECK(busy_[token]);
    if (!is_answered(segment_.calls()[token], generations_[token])) return std::nullopt;
    busy_[token] = false;
    numbers_[token] = 0;
    return read_answer(segment_.calls()[token]);
}

// ---- store ----

SimStoreOptions small_store() {
    SimStoreOptions options;
    options.engine.log_segment_bytes = 1u << 20;
    options.engine.log_segment_count = 3;
    options.engine.journal_bytes = 4u << 20;
    return options;
}

PoolSegment verifier_pool(std::uint32_t frames, std::uint32_t pages) {
    PoolShape shape;
    shape.frame_count = frames;
    shape.page_count = pages;
    shape.slot_count = 4;
    shape.instance_id = 1;
    auto pool = PoolSegment::create(shape, HugePages::kOff, false);
    CHECK(pool.ok());
    return std::move(*pool);
}

SimStore::SimStore(const SimStoreOptions& options, std::unique_ptr<SimDisk> the_disk,
                   std::uint64_t seed)
    : disk(std::move(the_disk)), options_(options), random_(seed) {
    PoolShape shape;
    shape.frame_count = options.frames + 1;
    shape.page_count = options.pages;
    shape.slot_count = kReaderSlots;
    shape.instance_id = random_() | 1;
    shape.max_snapshot_age_ns = options.engine.max_snapshot_age_ns;
    shape.directory_bytes = options.directory_bytes;
    if (options.memory != nullptr) {
        pool.emplace(options.memory->take(shape));
    } else {
        auto made = PoolSegment::create(shape, HugePages::kOff, false);
        CHECK(made.ok());
        pool.emplace(std::move(*made));
    }
    options_.engine.random = [this] { return random_(); };
    options_.engine.log = [this](int, const std::string& line) { log_lines.push_back(line); };
}

// The disk goes first: it takes back what is in flight.
SimStore::~SimStore() {
    disk.reset();
    engine.reset();
    if (options_.memory != nullptr) options_.memory->give_back(std::move(*pool));
}

Status SimStore::open() {
    auto opened = Engine::open(options_.engine, *disk, clock, clients, *pool);
    if (!opened) return opened.failure();
    engine = std::move(*opened);
    return {};
}

EngineRound SimStore::round() {
    clock.advance_ns(1'000 + random_() % 20'000);
    return engine->run_once(1'000'000);
}

bool SimStore::run_until(const std::function<bool()>& done, std::uint32_t rounds) {
    for (std::uint32_t i = 0; i < rounds; ++i) {
        if (done()) return true;
        const EngineRound result = round();
        if (result == EngineRound::kFenced || result == EngineRound::kStopped) return done();
    }
    return done();
}

SimClient& SimStore::connect(Rights rights, std::optional<SessionId> session,
                             std::uint32_t call_slots, std::uint32_t ring_bytes) {
    SessionId id;
    for (std::uint8_t& byte : id.bytes) byte = static_cast<std::uint8_t>(random_());
    SimClient& client = add_client(rights, session.value_or(id), call_slots, ring_bytes);
    if (run_until([&] { return clients.attach_answers.contains(client.id()); })) {
        client.welcomed(clients.attach_answers.at(client.id()).second);
    }
    return client;
}

SimClient& SimStore::add_client(Rights rights, const SessionId& session, std::uint32_t call_slots,
                                std::uint32_t ring_bytes) {
    std::uint32_t slot = next_slot_;
    if (free_slots_.empty()) {
        next_slot_ += kSlotsPerClient;
        CHECK_OP(next_slot_, <=, kReaderSlots);
    } else {
        slot = free_slots_.back();
        free_slots_.pop_back();
    }
    sim_clients_.push_back(std::make_unique<SimClient>(next_client_++, slot, session, rights,
                                                       call_slots, ring_bytes, options_.memory));
    clients.commands.push_back(sim_clients_.back()->attach_command());
    return *sim_clients_.back();
}

SimClient* SimStore::attach(Rights rights, const SessionId& session) {
    SimClient& client = add_client(rights, session, 64, 1u << 20);
    std::set<std::uint64_t> hung_up;
    const bool answered = run_until([&] {
        for (const auto& [id, reason] : clients.cut_off_clients) {
            const bool known =
                std::find(clients.detached_clients.begin(), clients.detached_clients.end(), id) !=
                clients.detached_clients.end();
            if (known || !hung_up.insert(id).second) continue;
            ClientCommand command;
            command.kind = ClientCommand::Kind::kDetach;
            command.client_id = id;
            clients.commands.push_back(command);
        }
        return clients.attach_answers.contains(client.id());
    });
    if (!answered || clients.attach_answers.at(client.id()).first != Error::kOk) return nullptr;
    return &client;
}

Error SimStore::attach_error() const {
    const auto answer = clients.attach_answers.find(sim_clients_.back()->id());
    return answer == clients.attach_answers.end() ? Error::kOk : answer->second.first;
}

void SimStore::hang_up(const SimClient& client) {
    ClientCommand command;
    command.kind = ClientCommand::Kind::kDetach;
    command.client_id = client.id();
    clients.commands.push_back(command);
}

void SimStore::disconnect(SimClient& client) {
    const auto gone = [&] {
        const auto& all = clients.detached_clients;
        return std::find(all.begin(), all.end(), client.id()) != all.end();
    };
    if (gone()) return;
    hang_up(client);
    if (run_until(gone)) free_slots_.push_back(client.segment().first_slot());
}

void SimStore::disconnect_all() {
    for (const auto& client : sim_clients_) disconnect(*client);
}

bool SimStore::leave_sessions(std::uint32_t count, TableId table,
                              std::span<const std::byte> absent_key) {
    constexpr std::uint32_t kTogether = 32;
    TransactionBytes nothing;
    nothing.operation(OperationKind::kCheckAbsent, table, absent_key, {});
    for (std::uint32_t left = count; left > 0;) {
        std::vector<SimClient*> together;
        for (; left > 0 && together.size() < kTogether; --left) {
            together.push_back(&connect(Rights::kWriter, std::nullopt, 4));
            if (!together.back()->submit(nothing.bytes())) return false;
        }
        const bool applied = run_until([&] {
            return std::ranges::all_of(together, [](SimClient* client) {
                return is_answered(client->segment().calls()[0], 1);
            });
        });
        if (!applied) return false;
        for (SimClient* client : together) {
            if (client->answer(0)->error != Error::kOk) return false;
            disconnect(*client);
        }
        // Nobody else knows them.
        sim_clients_.resize(sim_clients_.size() - together.size());
    }
    return true;
}

std::optional<std::uint32_t> SimStore::silent_sessions(std::uint64_t before_us) {
    std::set<std::vector<std::byte>> there;
    for (const auto& client : sim_clients_) {
        const auto& gone = clients.detached_clients;
        if (std::find(gone.begin(), gone.end(), client->id()) != gone.end()) continue;
        const auto id = std::as_bytes(std::span(client->session().bytes));
        there.insert({id.begin(), id.end()});
    }
    Storage& storage = engine->core().storage();
    const TableEntry& table = storage.catalog->sessions();
    std::uint32_t count = 0;
    const TreeAccess seen = table.tree.visit_range(
        nullptr, nullptr, [&](const std::byte* key, std::span<const std::byte> value) {
            const std::uint64_t last = column_integer(table.schema, kSessionsSeen, key, value);
            count += last < before_us && !there.contains({key, key + sizeof(SessionId)});
            return true;
        });
    if (seen.missing) storage.loader.want(seen.missing);
    if (!seen.ok()) return std::nullopt;
    return count;
}

std::uint64_t SimStore::ring_laps() const {
    std::uint64_t laps = 0;
    for (const auto& client : sim_clients_) laps += client->ring_laps();
    return laps;
}

Answer SimStore::commit(SimClient& client, const TransactionBytes& transaction) {
    const auto token = client.submit(transaction.bytes());
    CHECK(token.has_value());
    std::optional<Answer> answer;
    run_until([&] { return (answer = client.answer(*token)).has_value(); });
    if (answer) return *answer;
    Answer none;
    none.error = Error::kTimedOut;
    return none;
}

TableId SimStore::create_table(SimClient& client, const Schema& schema) {
    const std::string encoded = schema.encode();
    TransactionBytes bytes;
    bytes.operation(OperationKind::kCreateTable, TableId{}, {},
                    std::as_bytes(std::span(encoded.data(), encoded.size())));
    const Answer answer = commit(client, bytes);
    CHECK_OP(static_cast<int>(answer.error), ==, 0);
    CHECK_OP(answer.result_count, ==, 1);
    return TableId{static_cast<std::uint32_t>(answer.result[0])};
}

std::map<std::vector<std::byte>, std::vector<std::byte>> SimStore::rows(TableId table) {
    std::map<std::vector<std::byte>, std::vector<std::byte>> found;
    TableEntry* entry = engine->core().storage().catalog->find(table);
    if (entry == nullptr) return found;
    // Some rows at a time, each with a pool's worth of pages; after a miss it goes on with the
    // last.
    constexpr int kTogether = 100;
    std::vector<std::byte> from;
    for (bool more = true; more;) {
        more = false;
        int seen = 0;
        const Status complete = engine->core().storage().complete([&] {
            const std::vector<std::byte> first = from;
            return entry->tree.visit_range(
                first.empty() ? nullptr : first.data(), nullptr,
                [&](const std::byte* key, std::span<const std::byte> value) {
                    from.assign(key, key + entry->schema.key_bytes());
                    if (entry->schema.live(key, value, entry->tree.floor())) {
                        found[from] = {value.begin(), value.end()};
                    }
                    more = ++seen > kTogether;
                    return !more;
                });
        });
        CHECK(complete.ok());
    }
    const ExtentSource source = [&](PageId page) {
        CHECK(engine->core().storage().bring_in(page).ok());
        return engine->core().storage().pool.newest(page);
    };
    for (auto& [key, value] : found) {
        auto whole = whole_row(entry->schema, value, source);
        CHECK(whole.has_value());
        value = std::move(*whole);
    }
    return found;
}

bool SimStore::stop() {
    ClientCommand command;
    command.kind = ClientCommand::Kind::kStop;
    clients.commands.push_back(command);
    for (int i = 0; i < 20'000; ++i) {
        if (i > 300) clock.advance_ns(500'000);  // it does not sleep now, however slow the disk is
        const EngineRound result = round();
        if (result == EngineRound::kStopped) return true;
        if (result == EngineRound::kFenced) return false;
    }
    return false;
}

std::string SimStore::verify() { return verify_storage(engine->core().storage()); }

std::uint64_t SimStore::early_pages() {
    return verify_storage(engine->core().storage(), [](const BrokenRule&) {}).early_pages;
}

}  // namespace bidstore
