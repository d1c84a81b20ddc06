#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/client_fields.h"
#include "tests/hostile_client.h"
#include "tests/sim.h"

// What a hostile client does, a life each.
namespace bidstore {
namespace {

void send_bytes(const Descriptor& socket, std::span<const std::byte> bytes) {
    ::send(socket.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

// ---- in its segment -----------------------------------------------------------------------------

std::string HostileClient::scribble_everywhere() {
    if (!connect(any(2) == 0 ? Rights::kReader : Rights::kWriter)) return "";
    for (std::uint64_t step = 0; step < 200; ++step) {
        scribble_once();
        if (any(10) == 0) ring();
        if (any(20) == 0) pause(500);
    }
    pause(2000);
    return "";
}

// The engine copies, then checks: what changes in between must not matter.
std::string HostileClient::scribble_under_the_engine() {
    if (!connect(Rights::kWriter)) return "";
    std::atomic<bool> done{false};
    std::byte* const ring_begin = segment_->ring();
    const std::uint64_t seed = random_();
    std::thread scribbler([&] {
        std::mt19937_64 random(seed);
        const std::uint32_t lengths[] = {0, 32, 40, 64, 96, 4096, 1u << 19, ~0u};
        while (!done) {
            std::byte* unit = ring_begin + (random() % 512) * kRingUnitBytes;
            // Length and kind, in one word.
            const std::uint64_t length = lengths[random() % std::size(lengths)];
            store_word(unit, length | (random() % 7) << 32);
            store_word(unit + 32 + 8 * (random() % 4), random() & 0xff000000ff);
        }
    });
    for (int i = 0; i < 60; ++i) {
        Record record;
        record.kind = any(2) == 0 ? RecordKind::kPageRequest : RecordKind::kTransaction;
        record.call_slot = static_cast<std::uint32_t>(any(8));
        record.write_number = ++write_number_;
        record.payload = record.kind == RecordKind::kPageRequest
                             ? page_request(static_cast<std::uint32_t>(any(64) + 1))
                             : good_transaction();
        plant(record);
        if (any(4) == 0) pause(1000);
    }
    done = true;
    scribbler.join();
    return "";
}

// So many requests, taken while a thread writes nonsense again and again.
void HostileClient::work_beside(const std::function<void(std::mt19937_64&)>& scribble,
                                int requests) {
    std::atomic<bool> done{false};
    std::thread scribbler([&, seed = random_()] {
        std::mt19937_64 random(seed);
        while (!done) scribble(random);
    });
    for (int i = 0; i < requests; ++i) {
        Record record;
        record.kind = any(2) == 0 ? RecordKind::kPageRequest : RecordKind::kTransaction;
        record.call_slot = static_cast<std::uint32_t>(i);
        record.write_number =
            record.kind == RecordKind::kTransaction ? ++write_number_ : std::uint64_t{0};
        record.payload =
            record.kind == RecordKind::kPageRequest ? page_request(3) : good_transaction();
        plant(record);
        pause(300);
    }
    done = true;
    scribbler.join();
}

// Each by itself: of the first record in the ring, and of any slot.
std::string HostileClient::scribble_each_field() {
    for (std::size_t number = 0;; ++number) {
        if (!connect(Rights::kWriter)) return "";
        const auto fields = fields_of(*segment_, any(4) == 0 ? any(units()) : 0);
        if (number == fields.size()) return "";
        const auto kind = static_cast<Nonsense>(any(static_cast<std::uint64_t>(Nonsense::kCount)));
        work_beside([&](std::mt19937_64& random) { write_nonsense(fields[number], kind, random); },
                    4);
    }
}

std::string HostileClient::scribble_over_all() {
    for (int again = 0; again < 4; ++again) {
        if (!connect(Rights::kWriter)) return "";
        const std::uint64_t words = segment_->header().segment_bytes / sizeof(std::uint64_t);
        std::vector<std::uint64_t> values(61);
        for (std::uint64_t& value : values) value = nonsense();
        std::uint64_t at = 0;
        work_beside(
            [&](std::mt19937_64&) {
                // A lap takes longer than the requests: begun where the last one ended.
                for (int i = 0; i < 10'000; ++i, ++at) {
                    store_word(segment_->base() + at % words * sizeof(std::uint64_t),
                               values[at % values.size()]);
                }
            },
            40);
    }
    return "";
}

std::string HostileClient::forge_slots() {
    if (!connect(Rights::kReader)) return "";
    for (int step = 0; step < 60; ++step) {
        ReaderSlot& slot = segment_->slots()[any(segment_->slot_count())];
        const std::uint64_t episode = slot.episode.load();
        const std::uint64_t episodes[] = {episode, episode + 1, episode + any(1000), nonsense()};
        // Most of them such as an honest reader might show, or it would be over at once.
        slot.episode.store(episodes[any(any(8) == 0 ? 4 : 3)]);
        const std::uint64_t visible = pool_->published().visible.load();
        const std::uint64_t words[] = {visible, kSlotPinAll, visible - 1, visible + 1, nonsense()};
        slot.word.store(words[any(any(8) == 0 ? 5 : 2)]);
        if (any(4) == 0) slot.looked.store(any(4) == 0 ? nonsense() : visible);
        pause(3000);
    }
    return "";
}

// New episodes one after the other, so that each scan finds one, and none of them stays for long.
std::string HostileClient::take_turns_in_pin_all() {
    if (!connect(Rights::kReader)) return "";
    ReaderSlot* last = nullptr;
    for (std::uint32_t turn = 0; turn < 300; ++turn) {
        ReaderSlot& slot = segment_->slots()[turn % segment_->slot_count()];
        slot.episode.store(slot.episode.load() + 1);
        slot.word.store(kSlotPinAll);
        if (last != nullptr) last->word.store(kSlotIdle);
        last = &slot;
        pause(1000);
    }
    return "";
}

std::string HostileClient::forge_marks() {
    if (!connect(Rights::kReader)) return "";
    for (int step = 0; step < 200; ++step) {
        TouchMarks& marks = segment_->marks()[any(segment_->slot_count())];
        for (int i = 0; i < 64; ++i) {
            marks.page[any(kTouchMarks)].store(static_cast<std::uint32_t>(nonsense()));
        }
        marks.written.store(static_cast<std::uint32_t>(nonsense()));
        pause(500);
    }
    return "";
}

// One field each: a record with several wrong ones says little about the others.
std::string HostileClient::forge_records() {
    for (int attempt = 0; attempt < 12; ++attempt) {
        if (!connect(any(4) == 0 ? Rights::kReader : Rights::kWriter)) return "";
        for (int i = 0; i < 4; ++i) {
            Record record;
            if (any(2) == 0) record.kind = RecordKind::kPageRequest;
            const bool pages = record.kind == RecordKind::kPageRequest;
            record.payload = pages ? page_request(3) : good_transaction();
            record.call_slot = static_cast<std::uint32_t>(i);
            if (!pages) record.write_number = ++write_number_;
            forge(record);
            plant(record);
        }
        pause(3000);
    }
    return "";
}

void HostileClient::forge(Record& record) {
    const auto word = static_cast<std::uint32_t>(nonsense());
    switch (any(7)) {
        case 0:
            record.kind = static_cast<RecordKind>(any(2) == 0 ? word : any(8));
            break;
        case 1:
            record.length_bytes = word;
            break;
        case 2:
            record.call_slot = any(2) == 0 ? word : segment_->call_slot_count() + word % 2;
            break;
        case 3:
            record.call_generation = word;
            break;
        case 4:
            record.write_number = nonsense();
            break;
        case 5:
            record.decided_below = nonsense();
            break;
        default:
            record.payload = spare(garbage(any(600)));
    }
}

std::string HostileClient::damage_transactions() {
    if (!connect(Rights::kWriter)) return "";
    for (int i = 0; i < 150; ++i) {
        Record record;
        record.payload = good_transaction();
        for (std::uint64_t change = 0; change <= any(3); ++change) {
            std::byte& byte = record.payload[any(record.payload.size())];
            byte = any(2) == 0 ? static_cast<std::byte>(random_())
                               : byte ^ static_cast<std::byte>(1u << any(8));
        }
        if (any(8) == 0) record.payload.resize(any(record.payload.size()));
        if (any(8) == 0) record.payload.resize(any(1u << 16));
        record.payload = spare(std::move(record.payload));
        record.call_slot = static_cast<std::uint32_t>(any(8));
        const auto error = ask(record);
        if (!error) return "";
        if (static_cast<std::uint32_t>(*error) >= kErrorCount) return "an error without a name";
    }
    return "";
}

std::string HostileClient::ask_for_any_page() {
    if (!connect(Rights::kReader)) return "";
    const std::uint32_t slots = segment_->call_slot_count();
    for (std::uint32_t i = 0; i < slots + any(40); ++i) {
        Record record;
        record.kind = RecordKind::kPageRequest;
        record.call_slot = i % slots;
        record.call_generation = i / slots + 1;
        const std::uint64_t sizes[] = {1, 64, any(64) + 1, any(20) == 0 ? nonsense() : 2};
        record.payload = page_request(static_cast<std::uint32_t>(sizes[any(4)]));
        plant(record);
    }
    pause(20'000);
    return "";
}

// As fast as the ring takes them, without a look at the answers.
std::string HostileClient::flood() {
    if (!connect(Rights::kWriter)) return "";
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(50 + any(200));
    std::uint32_t planted = 0;
    while (std::chrono::steady_clock::now() < end) {
        if (position_ - segment_->ring_control().head.load() > units() / 2) {
            std::this_thread::yield();
            continue;
        }
        Record record;
        const bool pages = any(2) == 0;
        record.kind = pages ? RecordKind::kPageRequest : RecordKind::kTransaction;
        record.call_slot = planted++ % segment_->call_slot_count();
        record.call_generation = planted;
        record.write_number = pages ? 0 : ++write_number_;
        record.decided_below = write_number_;
        record.payload = pages ? page_request(64) : good_transaction();
        plant(record);
    }
    return "";
}

// Each check is compared with all ranges before it, which takes the engine long; and since the last
// one fails nothing changes, and the same can be sent again at once.
std::string HostileClient::ask_much_for_nothing() {
    if (!connect(Rights::kWriter)) return "";
    constexpr std::uint64_t kRanges = 400;
    TransactionBytes bytes;
    Bytes key(8);
    Bytes behind(8);
    for (std::uint64_t i = 0; i < kRanges; ++i) {
        encode_key_integer(key.data(), (1ull << 62) + i, 8, false);
        encode_key_integer(behind.data(), (1ull << 62) + i + 1, 8, false);
        bytes.operation(OperationKind::kDeleteRange, target_.own, key, behind);
    }
    for (std::uint64_t i = kRanges; i + 1 < kOperationsMax; ++i) {
        bytes.operation(OperationKind::kCheckAbsent, target_.own, behind, {});
    }
    bytes.operation(OperationKind::kCheckPresent, target_.own, behind, {});
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(50 + any(200));
    const std::uint32_t calls = segment_->call_slot_count();
    std::uint32_t sent = 0;
    std::uint32_t answered = 0;
    while (std::chrono::steady_clock::now() < end) {
        const CallSlot& oldest = segment_->calls()[answered % calls];
        if (answered < sent && is_answered(oldest, answered / calls + 1)) {
            ++answered;
            continue;
        }
        const bool room = position_ - segment_->ring_control().head.load() < units() / 2;
        if (!room || sent - answered == calls / 2) {
            std::this_thread::sleep_for(std::chrono::microseconds(200));
            continue;
        }
        Record record;
        record.call_slot = sent % calls;
        record.call_generation = sent / calls + 1;
        record.write_number = ++write_number_;
        record.decided_below = write_number_ - (sent - answered);
        record.payload = bytes.bytes();
        plant(record);
        ++sent;
    }
    return dropped() ? "it cut off whoever breaks no rule" : "";
}

std::string HostileClient::ring_without_end() {
    if (!connect(Rights::kReader)) return "";
    const int bell = greeting_.descriptors[2].number();
    const bool blocking = any(2) == 0;
    // The flag is that of the description that the daemon has, too.
    if (blocking) ::fcntl(bell, F_SETFL, 0);
    const std::uint64_t most = ~std::uint64_t{0} - 1;
    for (int i = 0; i < 20'000; ++i) {
        const std::uint64_t rings = !blocking && any(64) == 0 ? most : 1;
        [[maybe_unused]] const ssize_t written = ::write(bell, &rings, sizeof rings);
        std::uint64_t heard = 0;
        // Written just before, so that it does not wait.
        if (any(2) == 0 || i % 64 == 0) {
            ::fcntl(bell, F_SETFL, O_NONBLOCK);
            [[maybe_unused]] const ssize_t got = ::read(bell, &heard, sizeof heard);
            if (blocking) ::fcntl(bell, F_SETFL, 0);
        }
    }
    return "";
}

// Given-up records of half the ring, again as soon as they are zeroed.
std::string HostileClient::give_up_without_end() {
    if (!connect(Rights::kReader)) return "";
    Record record;
    record.kind = RecordKind::kAborted;
    record.length_bytes = segment_->ring_bytes() / 2;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(50 + any(200));
    while (std::chrono::steady_clock::now() < end && !dropped()) {
        for (const std::uint32_t unit : {0u, units() / 2}) {
            record.write_to(segment_->ring() + std::size_t{unit} * kRingUnitBytes);
        }
        ring();
    }
    return "";
}

// The greatest number and a small one in turns, all of them called decided.
std::string HostileClient::number_backwards() {
    if (!connect(any(2) == 0 ? Rights::kReader : Rights::kWriter)) return "";
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(50 + any(200));
    for (int i = 0; std::chrono::steady_clock::now() < end; ++i) {
        Record record;
        record.decided_below = i % 2 == 0 ? ~std::uint64_t{0} : 1 + any(8);
        write_number_ = record.decided_below - 1;
        if (any(8) == 0) record.payload = good_transaction();
        if (!ask(record)) return "";
    }
    return "";
}

std::string HostileClient::punch_holes() {
    if (!connect(Rights::kWriter)) return "";
    const auto size = static_cast<off_t>(segment_->header().segment_bytes);
    for (int i = 0; i < 40; ++i) {
        const auto page = static_cast<off_t>(any(static_cast<std::uint64_t>(size) / kPageBytes));
        const off_t length = any(4) == 0 ? size : off_t{kPageBytes};
        ::fallocate(segment_->descriptor(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    any(4) == 0 ? 0 : page * off_t{kPageBytes}, length);
        Record record;
        record.write_number = ++write_number_;
        record.payload = good_transaction();
        plant(record);
        pause(1000);
    }
    return "";
}

// ---- on the socket ------------------------------------------------------------------------------

std::string HostileClient::talk_garbage() {
    for (int i = 0; i < 10; ++i) {
        const Descriptor socket = raw_connect(target_.socket);
        if (!socket) continue;
        Bytes hello = bytes_of(good_hello(Rights::kReader));
        if (any(2) == 0) {
            hello[any(hello.size())] = static_cast<std::byte>(random_());
            if (any(3) == 0) hello.resize(any(hello.size() + 1));
        } else {
            hello = garbage(any(9000));
        }
        for (std::uint64_t again = 0; again <= any(4); ++again) send_bytes(socket, hello);
        if (any(4) == 0) ::shutdown(socket.number(), static_cast<int>(any(3)));
        pause(500);
    }
    // And after a handshake that was right.
    if (!connect(Rights::kReader)) return "";
    send_bytes(greeting_.socket, garbage(any(4) == 0 ? 0 : any(200)));
    char byte = 0;
    timeval patience{5, 0};
    ::setsockopt(greeting_.socket.number(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const ssize_t got = ::recv(greeting_.socket.number(), &byte, 1, 0);
    return got == 0 || (got < 0 && errno == ECONNRESET) ? "" : "talking after the handshake";
}

// Of all kinds, its own end of the connection among them, with and without a hello.
std::string HostileClient::pass_descriptors() {
    for (int i = 0; i < 10; ++i) {
        const Descriptor socket = raw_connect(target_.socket);
        if (!socket) continue;
        const Descriptor nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
        int pipe[2] = {-1, -1};
        if (::pipe2(pipe, O_CLOEXEC) != 0) return "";
        const Descriptor reads(pipe[0]);
        const Descriptor writes(pipe[1]);
        const int kinds[] = {socket.number(), nothing.number(), reads.number(), writes.number()};
        std::vector<int> numbers(any(3) == 0 ? 253 : any(4) + 1);
        for (int& number : numbers) number = kinds[any(4)];
        Bytes hello = bytes_of(good_hello(Rights::kReader));
        if (any(2) == 0) hello = garbage(any(80) + 1);
        send_descriptors(socket, hello, numbers);
        if (any(2) == 0) send_descriptors(socket, hello, numbers);
        pause(1000);
    }
    return "";
}

std::string HostileClient::hang_up_in_the_middle() {
    for (int i = 0; i < 20; ++i) {
        const Descriptor socket = raw_connect(target_.socket);
        if (!socket) continue;
        const Bytes hello = bytes_of(good_hello(Rights::kWriter));
        const std::size_t part = any(3) == 0 ? any(hello.size()) : hello.size();
        send_bytes(socket, std::span(hello).first(part));
        if (any(2) == 0) pause(400);
    }
    return "";
}

std::string HostileClient::occupy_all_connections() {
    std::vector<Descriptor> silent;
    std::vector<RawGreeting> served;
    for (int i = 0; i < 100; ++i) {
        silent.push_back(raw_connect(target_.socket));
        if (!silent.back()) break;
        if (any(2) == 0) send_bytes(silent.back(), bytes_of(good_hello(Rights::kReader)));
    }
    pause(100'000);
    return "";
}

// With the descriptors in them, by connections that are over.
std::string HostileClient::leave_welcomes_unread() {
    std::vector<Descriptor> held;
    for (int i = 0; i < 24; ++i) {
        held.push_back(raw_connect(target_.socket));
        if (!held.back()) continue;
        pollfd answer{held.back().number(), POLLIN, 0};
        send_bytes(held.back(), bytes_of(good_hello(Rights::kReader)));
        ::poll(&answer, 1, 1000);
        send_bytes(held.back(), garbage(1));  // for which it is cut off
    }
    pause(2000);
    return "";
}

// Who knows another's session may answer for its writes, unless the daemon looks who asks.
std::string HostileClient::take_a_session() {
    Hello hello = good_hello(Rights::kWriter);
    if (target_.other_user) {
        std::copy(target_.session.begin(), target_.session.end(), hello.session_id);
        const RawGreeting stolen = greet_patiently(target_.socket, hello);
        if (!stolen.descriptors.empty()) return "taking the session of another user";
        if (!stolen.answered) return "asking for the session of another user was not answered";
        // Where all places are taken nobody looks whose session it is.
        const auto error = static_cast<Error>(stolen.welcome.error);
        if (error == Error::kDenied) {
            did(Deed::kDenied);
        } else if (error != Error::kTooManyClients) {
            return "taking the session of another user was answered " +
                   std::string(error_name(error)) + ", not denied";
        }
    } else {
        did(Deed::kDenied);  // there is nobody to deny it
    }
    // Its own, by several connections at a time.
    for (std::uint8_t& byte : hello.session_id) byte = static_cast<std::uint8_t>(random_());
    std::vector<Descriptor> sockets;
    for (int i = 0; i < 6; ++i) {
        sockets.push_back(raw_connect(target_.socket));
        if (sockets.back()) send_bytes(sockets.back(), bytes_of(hello));
        if (any(2) == 0) pause(1000);
    }
    pause(5000);
    return "";
}

// ---- as a process -------------------------------------------------------------------------------

// Its child has the connection and the segment's descriptor; the segment itself it has to map.
std::string HostileClient::fork_and_go_on() {
    if (!connect(Rights::kWriter)) return "";
    const pid_t child = ::fork();
    if (child == 0) {
        // What is not mapped here any more must not be unmapped: something else may lie there.
        const auto* lost = new ClientSegment(std::move(*segment_));
        auto again = ClientSegment::map(Descriptor(::dup(lost->descriptor())));
        if (!again.ok()) ::_exit(0);
        segment_.emplace(std::move(*again));
        for (int i = 0; i < 100; ++i) {
            scribble_once();
            if (i % 10 == 0) pause(2000);
        }
        ::_exit(0);
    }
    if (any(2) == 0) disconnect();
    pause(10'000);
    if (child > 0) ::waitpid(child, nullptr, 0);
    return "";
}

std::string HostileClient::execute_with_all_open() {
    if (!connect(Rights::kWriter)) return "";
    const pid_t child = ::fork();
    if (child == 0) {
        for (const int number : {greeting_.socket.number(), segment_->descriptor(),
                                 greeting_.descriptors[2].number()}) {
            ::fcntl(number, F_SETFD, 0);
        }
        ::execl("/bin/sleep", "sleep", "0.05", nullptr);
        ::_exit(1);
    }
    disconnect();
    if (child > 0) ::waitpid(child, nullptr, 0);
    return "";
}

// Once it has been let in, that is: on a busy host that alone takes as long as its life, and it
// would harm nobody, life after life.
std::string HostileClient::die_in_the_middle() {
    int pipe[2] = {-1, -1};
    if (::pipe2(pipe, O_CLOEXEC) != 0) return "";
    const Descriptor reads(pipe[0]);
    Descriptor writes(pipe[1]);
    const pid_t child = ::fork();
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // it has no other end
        if (!connect(Rights::kWriter)) ::_exit(0);
        writes = Descriptor();
        for (std::uint32_t call = 0;; ++call) {
            Record record;
            record.call_slot = call % segment_->call_slot_count();
            record.call_generation = call + 1;
            record.write_number = ++write_number_;
            record.payload = good_transaction();
            plant(record);
            if (any(4) == 0) scribble_once();
            pause(300);
        }
    }
    writes = Descriptor();
    if (child <= 0) return "";
    pollfd let_in{reads.number(), POLLIN, 0};
    ::poll(&let_in, 1, 1000);
    pause(40'000);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return "";
}

// ---- beyond its rights --------------------------------------------------------------------------

// Others may take all places for a while, and keep the daemon busy. But once it is let in, nobody
// else can cut it off or take its call slots, and like an honest client it has an answer in time.
std::string HostileClient::must_be_denied(const char* what, Record record) {
    const auto error = ask(std::move(record), kPatience);
    if (error == Error::kDenied) return "";
    const std::string asked = std::string(what) + " was ";
    if (error) return asked + "answered " + std::string(error_name(*error)) + ", not denied; ";
    return asked + (dropped() ? "cut off, not denied; " : "not answered; ");
}

std::string HostileClient::administer() {
    if (target_.other_user) {
        const RawGreeting greeting = greet_patiently(target_.socket, good_hello(Rights::kAdmin));
        if (static_cast<Error>(greeting.welcome.error) != Error::kDenied) {
            return "another user was not denied to be admin";
        }
    }
    if (!connect_patiently(Rights::kWriter)) return "a writer was not let in";
    segment_->header().rights = static_cast<std::uint32_t>(Rights::kAdmin);
    const TableAttributes attributes{1, 0};
    const Bytes attributes_bytes = bytes_of(attributes);
    const auto record = [](RecordKind kind, const Bytes& payload) {
        Record made;
        made.kind = kind;
        made.payload = payload;
        return made;
    };
    std::string wrong;
    for (const OperationKind kind :
         {OperationKind::kCreateTable, OperationKind::kDropTable, OperationKind::kSetTable}) {
        TransactionBytes bytes;
        bytes.operation(kind, target_.own, {}, attributes_bytes);
        wrong +=
            must_be_denied("a change of a table", record(RecordKind::kTransaction, bytes.bytes()));
    }
    for (const LoadStep step : {LoadStep::kBegin, LoadStep::kRows, LoadStep::kFinish}) {
        const LoadRequest request{step, 0, 0};
        wrong += must_be_denied("a load", record(RecordKind::kLoad, bytes_of(request)));
    }
    const CompactRequest compact{1, 0};
    return wrong + must_be_denied("a compaction", record(RecordKind::kCompact, bytes_of(compact)));
}

std::string HostileClient::write_as_reader() {
    if (!connect_patiently(Rights::kReader)) return "a reader was not let in";
    segment_->header().rights = static_cast<std::uint32_t>(Rights::kAdmin);
    std::string wrong;
    for (int i = 0; i < 10; ++i) {
        Record record;
        record.payload = good_transaction();
        wrong += must_be_denied("a write", std::move(record));
    }
    return wrong;
}

}  // namespace bidstore
