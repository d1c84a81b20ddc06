#include "tests/hostile_client.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "shm/call_slot.h"
#include "tests/sim.h"

namespace bidstore {

using namespace std::chrono_literals;

// ---- lives --------------------------------------------------------------------------------------

const std::vector<HostileClient::Harm>& HostileClient::harms() {
    using Self = HostileClient;
    using enum Counter;
    using enum Deed;
    // Nonsense anywhere may break any rule of the segment; a hangup may come before the welcome.
    static constexpr auto kAnyRule =
        "cut off: (record |padding |more (records|calls) |answer wanted |a (write|step|load) |"
        "a malformed |an episode |impossible )";
    static constexpr auto kRefused = "refused: |not welcomed: ";
    static const std::vector<Harm> all = {
        {"scribble everywhere", &Self::scribble_everywhere, kAnyRule, kClientsDropped},
        {"scribble under the engine", &Self::scribble_under_the_engine, kAnyRule, kClientsDropped},
        {"scribble each field", &Self::scribble_each_field, kAnyRule, kClientsDropped},
        {"scribble over all", &Self::scribble_over_all, kAnyRule, kClientsDropped},
        {"forge slots", &Self::forge_slots, "cut off: (an episode |impossible )", kClientsDropped},
        // Each turn is as short as an honest one.
        {"take turns in PIN_ALL", &Self::take_turns_in_pin_all, nullptr, {}},
        {"forge marks", &Self::forge_marks, nullptr, {}},  // which are only hints
        {"forge records", &Self::forge_records, kAnyRule, kHostileEvents},
        {"damage transactions", &Self::damage_transactions, nullptr, kTransactionsRefused},
        {"ask for any page", &Self::ask_for_any_page,
         "cut off: (a malformed page request|more calls )", kHostileEvents},
        // Where calls are answered as fast as they are taken, it breaks no rule. Under a sanitizer
        // the engine takes ten times as long for them, and the device no longer.
        {"flood", &Self::flood, "cut off: more calls than it has call slots", {}, kLetIn, 0.1},
        // Which breaks none at all.
        {"ask much for nothing", &Self::ask_much_for_nothing, nullptr, kHeavyTransactions},
        {"ring without end", &Self::ring_without_end, nullptr, {}},  // a bell is to be rung
        // Cut off, and there again: two cores are not enough for that and an honest round.
        {"give up without end", &Self::give_up_without_end, "cut off: more records at a time",
         kHostileEvents, kLetIn, 0.1},
        {"number backwards", &Self::number_backwards, nullptr, kTransactionsRefused},
        // Zeros are a ring without news, but where the engine has begun to read.
        {"punch holes", &Self::punch_holes, kAnyRule, {}},
        {"talk garbage", &Self::talk_garbage,
         "refused: |not welcomed: |cut off: it sent bytes after its handshake", kClientsDropped},
        {"pass descriptors", &Self::pass_descriptors, "(refused|cut off): it passes descriptors",
         kClientsRefused, kTried},
        {"hang up in the middle", &Self::hang_up_in_the_middle, kRefused, kClientsRefused,
         kTried},
        {"occupy all connections", &Self::occupy_all_connections, kRefused, kClientsRefused,
         kTried},
        {"leave welcomes unread", &Self::leave_welcomes_unread,
         "cut off: it sent bytes after its handshake|"
         "refused: user [0-9]+ has connections whose welcome",
         kClientsRefused, kTried},
        {"take a session", &Self::take_a_session,
         "refused: the engine refuses the client: Denied|cut off: its session was taken over|"
         "not welcomed: ",
         kClientsRefused, kDenied},
        {"fork and go on", &Self::fork_and_go_on, kAnyRule, kClientsDropped},
        // What it becomes may have all that it had.
        {"execute with all open", &Self::execute_with_all_open, nullptr, {}},
        {"die in the middle", &Self::die_in_the_middle, kAnyRule, kClientsDropped},
        {"administer", &Self::administer, "refused: user [0-9]+ may not be admin", kClientsRefused},
        {"write as reader", &Self::write_as_reader, nullptr, kTransactionsRefused},
    };
    return all;
}

std::uint64_t HostileClient::seed_of(std::uint64_t seed, std::uint64_t life) {
    return (seed * 1'000'003 + life) * 0x9e3779b97f4a7c15;
}

const char* HostileClient::name_of(std::uint64_t seed, std::uint64_t life) {
    // Each of them in turn, from another one on for each seed.
    return harms()[(seed + life) % harms().size()].name;
}

std::string HostileClient::live(std::uint64_t life) {
    return live(life, harms()[(seed_ + life) % harms().size()]);
}

std::string HostileClient::live(std::uint64_t life, const Harm& harm) {
    random_.seed(seed_of(seed_, life));
    harm_ = &harm;
    did(Deed::kTried);
    const std::string wrong = (this->*harm.inflict)();
    disconnect();
    return wrong;
}

void HostileClient::did(Deed deed) const {
    if (deed == harm_->deed) ++deeds_.of(*harm_);
}

bool HostileClient::connect(Rights rights) {
    disconnect();
    greeting_ = greet(target_.socket, good_hello(rights));
    if (greeting_.descriptors.size() != 3) return false;
    auto pool = PoolView::map(std::move(greeting_.descriptors[0]));
    auto segment = ClientSegment::map(std::move(greeting_.descriptors[1]));
    if (!pool.ok() || !segment.ok()) return false;
    pool_.emplace(std::move(*pool));
    segment_.emplace(std::move(*segment));
    position_ = 0;
    write_number_ = 0;
    generation_ = 0;
    did(Deed::kLetIn);
    return true;
}

bool HostileClient::connect_patiently(Rights rights) {
    return eventually([&] { return connect(rights); });
}

void HostileClient::disconnect() {
    segment_.reset();
    pool_.reset();
    greeting_ = {};
}

void HostileClient::ring() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written =
        ::write(greeting_.descriptors[2].number(), &one, sizeof one);
}

void HostileClient::pause(std::uint32_t most_us) {
    std::this_thread::sleep_for(std::chrono::microseconds(any(most_us) + 1));
}

// ---- nonsense -----------------------------------------------------------------------------------

// Half of a word may be a table's id: those of the honest clients do not occur.
std::uint64_t HostileClient::nonsense() {
    for (;;) {
        const std::uint64_t visible = pool_ ? pool_->published().visible.load() : 7;
        const std::uint64_t values[] = {0,
                                        1,
                                        ~std::uint64_t{0},
                                        random_(),
                                        any(4096),
                                        visible,
                                        visible + any(3),
                                        std::uint64_t{1} << 63,
                                        1u << any(32)};
        const std::uint64_t value = values[any(std::size(values))];
        const auto spared = [&](std::uint64_t half) {
            return std::find(target_.spared.begin(), target_.spared.end(), half) !=
                   target_.spared.end();
        };
        if (!spared(value >> 32) && !spared(value & 0xffffffff)) return value;
    }
}

HostileClient::Bytes HostileClient::garbage(std::size_t bytes) {
    Bytes all(bytes);
    for (std::byte& byte : all) byte = static_cast<std::byte>(random_());
    return all;
}

HostileClient::Bytes HostileClient::good_transaction() {
    TransactionBytes bytes(any(2) == 0 ? Durability::kDurable : Durability::kRelaxed);
    for (std::uint64_t i = 0; i <= any(4); ++i) {
        Bytes key(8);
        const std::uint64_t id = any(64);
        encode_key_integer(key.data(), id, 8, false);
        AddBody add{};
        add.column = 1;
        add.delta = 1;
        switch (any(5)) {
            case 0:
                bytes.operation(OperationKind::kPut, target_.own, key, Bytes(10));
                break;
            case 1:
                bytes.add(target_.own, key, add, kWantResult | kCreate);
                break;
            case 2:
                bytes.columns(OperationKind::kUpdate, target_.own, key, 2, Bytes(any(40)));
                break;
            case 3:
                bytes.operation(OperationKind::kDelete, target_.own, key, {}, kIfPresent);
                break;
            default:
                bytes.operation(OperationKind::kDeleteRange, target_.own, key, {});
                break;
        }
    }
    return bytes.bytes();
}

// With its own table for each that it keeps off, wherever an operation may begin.
HostileClient::Bytes HostileClient::spare(Bytes payload) const {
    for (std::size_t at = 0; at + 4 <= payload.size(); at += 4) {
        std::uint32_t id = 0;
        std::memcpy(&id, payload.data() + at, sizeof id);
        if (std::find(target_.spared.begin(), target_.spared.end(), id) == target_.spared.end()) {
            continue;
        }
        std::memcpy(payload.data() + at, &target_.own.value, sizeof id);
    }
    return payload;
}

HostileClient::Bytes HostileClient::page_request(std::uint32_t count) {
    PageRequest request{};
    request.count = count;
    for (std::uint32_t& page : request.page_id) {
        page = static_cast<std::uint32_t>(any(8) == 0 ? random_() : any(6000));
    }
    Bytes bytes = bytes_of(request);
    if (count <= kPagesPerRequest) bytes.resize(4 + 4 * std::size_t{count});
    return bytes;
}

// Puts the record where the engine reads next, as long as it takes all that was put there.
void HostileClient::plant(const Record& record) {
    const std::uint32_t needed =
        ring_units(sizeof(RecordHeader) + std::min<std::size_t>(record.payload.size(), 1u << 16));
    const std::uint32_t to_end = units() - position_ % units();
    if (needed > to_end) {
        Record padding;
        padding.kind = RecordKind::kPadding;
        padding.length_bytes = to_end * kRingUnitBytes;
        plant(padding);
        position_ += to_end - 1;
    }
    std::byte* at = segment_->ring() + std::size_t{position_ % units()} * kRingUnitBytes;
    record.write_to(at);
    position_ += needed;
    ring();
}

bool HostileClient::dropped() const {
    pollfd hangup{greeting_.socket.number(), POLLRDHUP, 0};
    return ::poll(&hangup, 1, 0) > 0;
}

std::optional<Error> HostileClient::ask(Record record, std::chrono::milliseconds patience) {
    record.call_generation = ++generation_;
    if (record.kind == RecordKind::kTransaction) record.write_number = ++write_number_;
    plant(record);
    const CallSlot& slot = segment_->calls()[record.call_slot];
    const auto over = [&] { return is_answered(slot, record.call_generation) || dropped(); };
    eventually(over, patience);
    if (!is_answered(slot, record.call_generation)) return std::nullopt;
    return read_answer(slot).error;
}

void HostileClient::store_word(std::byte* at, std::uint64_t value) {
    void* place = at;
    std::atomic_ref<std::uint64_t>(*static_cast<std::uint64_t*>(place))
        .store(value, std::memory_order_relaxed);
}

void HostileClient::scribble_once() {
    const auto place = [](auto& object) {
        void* at = &object;
        return static_cast<std::byte*>(at);
    };
    std::byte* const areas[] = {segment_->base(),          place(*segment_->slots()),
                                place(*segment_->marks()), place(segment_->ring_control()),
                                segment_->ring(),          place(*segment_->calls())};
    std::byte* at = areas[any(std::size(areas))] + 8 * any(64);
    if (any(4) == 0) {  // the record that is read next
        at = segment_->ring() + std::size_t{position_ % units()} * kRingUnitBytes + 8 * any(8);
    }
    if (any(8) == 0) at = segment_->base() + 8 * any(units() * std::size_t{kRingUnitBytes} / 8);
    store_word(at, nonsense());
}

}  // namespace bidstore
