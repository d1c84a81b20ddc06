// A client that means harm, by seed: it speaks to a real daemon without our library, and writes
// what it likes wherever it can.
//
// Who:    a process of its own, forked by the test; it may be of another user than the others.
// Order:  what a life does follows from seed and number of the life alone; when it happens does
//         not.
// Bounds: a life ends within some hundreds of milliseconds, unless the daemon keeps it waiting.
//
// Rights are no harm: who may write may write every table. It keeps off the tables of the honest
// clients, so that what they read is their own, to the byte.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "shm/message.h"
#include "shm/stats.h"
#include "tests/planted_record.h"
#include "tests/processes.h"

namespace bidstore {

struct HostileTarget {
    std::string socket;
    TableId own;                             // which it may write: id u64; n i64, t text
    std::vector<std::uint32_t> spared;       // ids of the tables that it keeps off
    std::array<std::uint8_t, 16> session{};  // of an honest client
    bool other_user = false;                 // than the honest ones, and no admin
};

class HostileClient {
  public:
    struct Deeds;
    // Which it adds to; in shared memory they are seen by others, too, and its children add theirs.
    HostileClient(HostileTarget target, std::uint64_t seed, Deeds& deeds)
        : target_(std::move(target)), seed_(seed), deeds_(deeds) {}

    // What a harm has to come to, or it was none.
    enum class Deed {
        kLetIn,   // the daemon took it as a client
        kDenied,  // what it asks for, and not because it was late or one too many
        kTried,   // nothing: the harm comes before it is let in, or it is refused for it
    };
    struct Harm {
        const char* name;
        std::string (HostileClient::*inflict)();
        // A regular expression that all fits what the log says of who does so; nothing: it says
        // nothing, since no rule is broken for which one is dropped.
        const char* reason;
        // Of the stats page, which rises sooner or later; the log speaks then, too, if there is a
        // reason. None: it need not be noticed, since it may harm nobody.
        std::optional<Counter> counter;
        Deed deed = Deed::kLetIn;
        // Of its rounds, what an honest client keeps beside it at least (tests/README.md).
        double share = 0.25;
    };
    static const std::vector<Harm>& harms();
    // Of each harm, how often a client that was given these came to that.
    struct Deeds {
        std::atomic<std::uint64_t>& of(const Harm& harm) {
            return count.at(static_cast<std::size_t>(&harm - harms().data()));
        }
        std::array<std::atomic<std::uint64_t>, 64> count{};
    };

    // One connection, or an attempt at some. Empty, or what the daemon did and should not have.
    std::string live(std::uint64_t life);
    // The same, with that harm alone.
    std::string live(std::uint64_t life, const Harm& harm);
    // What that life does.
    static const char* name_of(std::uint64_t seed, std::uint64_t life);

  private:
    using Bytes = std::vector<std::byte>;
    using Record = PlantedRecord;
    static std::uint64_t seed_of(std::uint64_t seed, std::uint64_t life);

    // In its segment.
    std::string scribble_everywhere();
    std::string scribble_under_the_engine();
    std::string scribble_each_field();
    std::string scribble_over_all();
    std::string forge_slots();
    std::string take_turns_in_pin_all();
    std::string forge_marks();
    std::string forge_records();
    std::string damage_transactions();
    std::string ask_for_any_page();
    std::string flood();
    std::string ask_much_for_nothing();
    std::string ring_without_end();
    std::string give_up_without_end();
    std::string number_backwards();
    std::string punch_holes();
    // On the socket.
    std::string talk_garbage();
    std::string pass_descriptors();
    std::string hang_up_in_the_middle();
    std::string occupy_all_connections();
    std::string leave_welcomes_unread();
    std::string take_a_session();
    // As a process.
    std::string fork_and_go_on();
    std::string execute_with_all_open();
    std::string die_in_the_middle();
    // Beyond its rights.
    std::string administer();
    std::string write_as_reader();

    void did(Deed deed) const;
    bool connect(Rights rights);
    // Again until it is let in. False: not within kPatience.
    bool connect_patiently(Rights rights);
    void disconnect();
    static void store_word(std::byte* at, std::uint64_t value);
    void scribble_once();
    void forge(Record& record);
    void work_beside(const std::function<void(std::mt19937_64&)>& scribble, int requests);
    void plant(const Record& record);
    void ring() const;
    void pause(std::uint32_t most_us);
    bool dropped() const;  // by the daemon
    // The error it was answered with; nothing when it was cut off, or after so long.
    std::optional<Error> ask(Record record,
                             std::chrono::milliseconds patience = std::chrono::seconds(5));
    std::string must_be_denied(const char* what, Record record);

    std::uint64_t any(std::uint64_t below) { return random_() % below; }
    std::uint64_t nonsense();
    Bytes garbage(std::size_t bytes);
    Bytes good_transaction();
    Bytes spare(Bytes payload) const;
    Bytes page_request(std::uint32_t count);
    std::uint32_t units() const { return segment_->ring_bytes() / kRingUnitBytes; }

    HostileTarget target_;
    std::uint64_t seed_;
    Deeds& deeds_;
    const Harm* harm_ = nullptr;  // that it does
    std::mt19937_64 random_;
    RawGreeting greeting_;
    std::optional<ClientSegment> segment_;
    std::optional<PoolView> pool_;
    std::uint32_t position_ = 0;  // in the ring
    std::uint64_t write_number_ = 0;
    std::uint32_t generation_ = 0;
};

}  // namespace bidstore
