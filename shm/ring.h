// The ring of a client segment: many producing threads of one process, one consuming engine.
//
// Who:    any thread of the client claims and commits (RingProducer); the engine thread alone takes
//         (RingConsumer).
// Owns:   nothing; the segment outlives both.
// Order:  records are taken in the order in which they were claimed; but while the one at the head
//         has to wait, page requests behind it may be taken ahead. A record is visible after
//         commit() (release); take() acquires it. Bytes may be claimed again after publish_head().
// Crash:  a producer that stops between try_claim() and commit() stops its own ring only; the
//         engine drops the ring with the client.
// Trust:  the producer believes the engine; the consumer believes nothing: it copies, checks the
//         copy, and works on the copy.
// Bounds: ring_bytes is a power of two; a record with its header is at most half of it, so that
//         padding and record fit an empty ring wherever they begin.
//
//   position   counts units of 64 bytes modulo 2^32; its place is position modulo the ring's units
//
//      head                     claim
//        |                        |
//   0000 [rec.....][rec][....][pad]      at each unit of 0000 the first word is 0: what is not yet
//         committed      claimed,        committed reads as length 0, and there the consumer waits
//                        not committed
//
// A record never wraps. One that does not fit before the ring's end is claimed together with a
// padding record that fills the rest, in one exchange. Example, ring of 16 units, claim at 14, a
// record of 3 units: units 14 and 15 become padding, the record is at 0, claim moves to 19.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>

#include "shm/atom.h"
#include "shm/base.h"
#include "shm/layout.h"

namespace bidstore {

// The number closest to `reference` whose low half is `low`. The reference is any write number of
// the session less than 2^31 away; the newest decided one does.
constexpr std::uint64_t expand_number(std::uint64_t reference, std::uint32_t low) {
    const std::uint32_t distance = low - static_cast<std::uint32_t>(reference);
    return distance < (1u << 31) ? reference + distance : reference - (std::uint32_t{0} - distance);
}

// The longest record, header included, of a ring.
constexpr std::uint32_t ring_record_bytes_max(std::uint32_t ring_bytes) { return ring_bytes / 2; }

constexpr std::uint32_t ring_units(std::uint64_t bytes) {
    return static_cast<std::uint32_t>((bytes + kRingUnitBytes - 1) / kRingUnitBytes);
}

// A fresh ring: empty at `position`, the session's next write is last_number + 1. Its bytes are
// zeros already. Before anyone else can see the ring.
inline void init_ring(RingControl& control, std::uint64_t last_number, std::uint32_t position = 0) {
    control.claim.store(last_number << 32 | position, std::memory_order_relaxed);
    control.head.store(position, std::memory_order_relaxed);
    control.answered.store(0, std::memory_order_relaxed);
    control.waiters.store(0, std::memory_order_relaxed);
}

struct ClaimRequest {
    RecordKind kind = RecordKind::kTransaction;  // kTransaction takes the next write number
    std::uint32_t payload_bytes = 0;
    std::uint32_t call_slot = 0;
    std::uint32_t call_generation = 0;
    std::uint64_t number_reference = 0;  // for expand_number(); kTransaction only
    std::uint64_t decided_below = 0;     // all writes with smaller numbers were answered
};

// A place in the ring that is the caller's until commit() or abort(). False: the ring was full.
struct RingClaim {
    RecordHeader* header = nullptr;
    std::byte* payload = nullptr;
    std::uint32_t payload_bytes = 0;
    std::uint64_t write_number = 0;  // kTransaction, else 0
    explicit operator bool() const { return header != nullptr; }
};

class RingProducer {
  public:
    RingProducer(RingControl& control, std::byte* ring, std::uint32_t ring_bytes)
        : control_(&control), ring_(ring), ring_bytes_(ring_bytes) {
        CHECK(is_power_of_two(ring_bytes));
        CHECK_OP(ring_bytes, >=, 8 * kRingUnitBytes);
    }

    std::uint32_t record_bytes_max() const { return ring_record_bytes_max(ring_bytes_); }
    std::uint32_t payload_bytes_max() const {
        return record_bytes_max() - static_cast<std::uint32_t>(sizeof(RecordHeader));
    }

    // Never waits: without room the claim is false, and how long to try again is the caller's
    // choice. payload_bytes is at most payload_bytes_max().
    RingClaim try_claim(const ClaimRequest& request);

    // The engine may take the record from now on. Then ring the doorbell.
    void commit(const RingClaim& claim) {
        // Release: whoever sees the length sees header and payload.
        claim.header->length_bytes.store(record_bytes(claim), std::memory_order_release);
    }

    // Gives the place up; the engine skips it. A write has its number already, and numbers are
    // dense, so a write is always committed.
    void abort(const RingClaim& claim) {
        CHECK_OP(claim.write_number, ==, 0);
        claim.header->kind = RecordKind::kAborted;
        claim.header->length_bytes.store(record_bytes(claim), std::memory_order_release);
    }

  private:
    static std::uint32_t record_bytes(const RingClaim& claim) {
        return static_cast<std::uint32_t>(sizeof(RecordHeader)) + claim.payload_bytes;
    }
    RecordHeader* header_at(std::uint32_t position) const {
        const std::uint32_t unit = position & (ring_bytes_ / kRingUnitBytes - 1);
        return reinterpret_cast<RecordHeader*>(ring_ + std::size_t{unit} * kRingUnitBytes);
    }
    // Units that such a record leaves free. The writes of a process would take all there is while
    // the engine holds them back, and its reads wait for room; a record that fits in no other way
    // leaves none.
    static std::uint32_t spared(RecordKind kind, std::uint32_t units, std::uint32_t ring_size) {
        const std::uint32_t part = ring_size / 8;
        return kind == RecordKind::kPageRequest || units + part > ring_size ? 0 : part;
    }
    void write_padding(std::uint32_t position, std::uint32_t units);
    RingClaim fill(std::uint32_t position, std::uint64_t number, const ClaimRequest& request);

    RingControl* control_;
    std::byte* ring_;
    std::uint32_t ring_bytes_;
};

inline RingClaim RingProducer::try_claim(const ClaimRequest& request) {
    CHECK_OP(request.payload_bytes, <=, payload_bytes_max());
    const std::uint32_t ring_size = ring_bytes_ / kRingUnitBytes;
    const std::uint32_t units = ring_units(sizeof(RecordHeader) + request.payload_bytes);
    const std::uint64_t writes = request.kind == RecordKind::kTransaction ? 1 : 0;
    for (;;) {
        // Acquire: the zeros that the engine left are seen before the place is written to again.
        // Head before claim: a claim loaded later is never behind this head.
        const std::uint32_t head = control_->head.load(std::memory_order_acquire);
        std::uint64_t claimed = control_->claim.load(std::memory_order_relaxed);
        const auto position = static_cast<std::uint32_t>(claimed);
        const std::uint32_t to_end = ring_size - (position & (ring_size - 1));
        const std::uint32_t padding = units > to_end ? to_end : 0;
        const std::uint32_t spare = spared(request.kind, padding + units, ring_size);
        if (position - head + padding + units + spare > ring_size) return {};
        const std::uint64_t next =
            ((claimed >> 32) + writes) << 32 | std::uint32_t{position + padding + units};
        // Relaxed: the place becomes ours by the exchange itself; the bytes were acquired by head,
        // and go out by commit().
        if (!control_->claim.compare_exchange_weak(claimed, next, std::memory_order_relaxed)) {
            continue;
        }
        if (padding != 0) write_padding(position, padding);
        std::uint64_t number = 0;
        if (writes != 0) {
            number = expand_number(request.number_reference,
                                   static_cast<std::uint32_t>((claimed >> 32) + 1));
        }
        return fill(position + padding, number, request);
    }
}

inline void RingProducer::write_padding(std::uint32_t position, std::uint32_t units) {
    RecordHeader* header = header_at(position);
    header->kind = RecordKind::kPadding;
    header->reserved = 0;
    header->write_number = 0;
    header->length_bytes.store(units * kRingUnitBytes, std::memory_order_release);
}

inline RingClaim RingProducer::fill(std::uint32_t position, std::uint64_t number,
                                    const ClaimRequest& request) {
    RecordHeader* header = header_at(position);
    DCHECK(header->length_bytes.load(std::memory_order_relaxed) == 0);
    header->kind = request.kind;
    header->reserved = 0;
    header->call_slot = request.call_slot;
    header->call_generation = request.call_generation;
    header->write_number = number;
    header->decided_below = request.decided_below;
    return {header, reinterpret_cast<std::byte*>(header + 1), request.payload_bytes, number};
}

// A record as it was copied out. Its fields and bytes are a client's word, but they hold still.
struct TakenRecord {
    RecordKind kind = RecordKind::kPadding;  // kPageRequest, kTransaction, kLoad, kCompact
    std::uint32_t call_slot = 0;             // unchecked
    std::uint32_t call_generation = 0;
    std::uint64_t write_number = 0;
    std::uint64_t decided_below = 0;
    std::span<const std::byte> payload;  // into the buffer given to take()
};

enum class TakeResult : std::uint8_t {
    kEmpty,  // nothing committed at the head; or a run of skipped records was long: has_news()
    kRecord,
    kHostile,  // hostile_reason() says which rule was broken; the ring is not to be read again
};

class RingConsumer {
  public:
    // `position` as given to init_ring().
    RingConsumer(RingControl& control, std::byte* ring, std::uint32_t ring_bytes,
                 std::uint32_t position = 0)
        : control_(&control),
          ring_(ring),
          ring_bytes_(ring_bytes),
          position_(position),
          ahead_(position),
          published_(position) {
        CHECK(is_power_of_two(ring_bytes));
    }

    std::uint32_t record_bytes_max() const { return ring_record_bytes_max(ring_bytes_); }

    // Copies the next record into `buffer` (record_bytes_max() bytes at least).
    TakeResult take(std::span<std::byte> buffer, TakenRecord& record);

    // The same of the next page request, while the records before it have to wait: they stay where
    // they are, in their order, and take() passes over what was taken here.
    TakeResult take_page_request(std::span<std::byte> buffer, TakenRecord& record);

    // Gives the bytes of all taken records back to the producers. Once a round is enough.
    void publish_head() {
        if (position_ == published_) return;
        // Release: the zeros are out before the producers may claim the units again.
        control_->head.store(position_, std::memory_order_release);
        published_ = position_;
    }

    // Is there something to take? After EngineSleep::announce() this decides about the sleep.
    bool has_news() const { return committed_at(position_); }
    // The same for take_page_request(): is there a record that it has not looked at?
    bool has_news_ahead() const {
        return ahead() - position_ < ring_bytes_ / kRingUnitBytes && committed_at(ahead());
    }

    std::uint32_t position() const { return position_; }
    const char* hostile_reason() const { return hostile_reason_; }

  private:
    static constexpr std::uint32_t kSkipsMax = 256;

    // The bytes of a RecordHeader, without its length.
    struct HeaderCopy {
        RecordKind kind;
        std::uint16_t reserved;
        std::uint32_t call_slot;
        std::uint32_t call_generation;
        std::uint64_t write_number;
        std::uint64_t decided_below;
    };

    std::byte* unit_at(std::uint32_t position) const {
        const std::uint32_t unit = position & (ring_bytes_ / kRingUnitBytes - 1);
        return ring_ + std::size_t{unit} * kRingUnitBytes;
    }
    // The first word of a unit: a length when a record starts there.
    Atom<std::uint32_t>& word_at(std::uint32_t position) const {
        return *reinterpret_cast<Atom<std::uint32_t>*>(unit_at(position));
    }
    bool committed_at(std::uint32_t position) const {
        return word_at(position).load(std::memory_order_acquire) != 0;
    }
    // Where take_page_request() goes on: nowhere before the head.
    std::uint32_t ahead() const {
        const bool behind = position_ - ahead_ < std::uint32_t{1} << 31;
        return behind ? position_ : ahead_;
    }
    static HeaderCopy copy_header(const std::byte* unit);
    static bool says_nothing(RecordKind kind) {
        return kind == RecordKind::kPadding || kind == RecordKind::kAborted;
    }
    // Copies the header that stands there, of any kind.
    TakeResult look_at(std::uint32_t position, TakenRecord& record, std::uint32_t& length_bytes);
    void copy_payload(std::uint32_t position, std::uint32_t length_bytes,
                      std::span<std::byte> buffer, TakenRecord& record) const;
    const char* fault(std::uint32_t position, std::uint32_t length_bytes, RecordKind kind) const;
    void consume(std::uint32_t length_bytes, bool says_nothing);

    RingControl* control_;
    std::byte* ring_;
    std::uint32_t ring_bytes_;
    // Our own: the one in the segment is for the producers to read, and anyone's to overwrite.
    std::uint32_t position_;
    std::uint32_t ahead_;      // page requests before it are taken; see ahead()
    std::uint32_t published_;  // the head that producers were told
    const char* hostile_reason_ = nullptr;
};

inline RingConsumer::HeaderCopy RingConsumer::copy_header(const std::byte* unit) {
    HeaderCopy copy{};
    const auto field = [unit](auto& to, std::size_t offset) {
        std::memcpy(&to, unit + offset, sizeof to);
    };
    field(copy.kind, offsetof(RecordHeader, kind));
    field(copy.call_slot, offsetof(RecordHeader, call_slot));
    field(copy.call_generation, offsetof(RecordHeader, call_generation));
    field(copy.write_number, offsetof(RecordHeader, write_number));
    field(copy.decided_below, offsetof(RecordHeader, decided_below));
    // The compiler may not go back to the segment for a field after it was checked.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return copy;
}

// Which rule a record at this position breaks, or nullptr.
inline const char* RingConsumer::fault(std::uint32_t position, std::uint32_t length_bytes,
                                       RecordKind kind) const {
    const std::uint32_t ring_size = ring_bytes_ / kRingUnitBytes;
    const std::uint32_t to_end = (ring_size - (position & (ring_size - 1))) * kRingUnitBytes;
    if (length_bytes < sizeof(RecordHeader)) return "record shorter than its header";
    if (length_bytes > record_bytes_max()) return "record longer than half the ring";
    if (length_bytes > to_end) return "record beyond the end of the ring";
    // Producers claim no further. One that fills again what was consumed, before it was given back,
    // would have one look go on for as long as it does.
    if (position + ring_units(length_bytes) - published_ > ring_size) {
        return "more records at a time than the ring holds";
    }
    switch (kind) {
        case RecordKind::kPadding:
            return length_bytes == to_end ? nullptr : "padding that does not end with the ring";
        case RecordKind::kPageRequest:
        case RecordKind::kTransaction:
        case RecordKind::kAborted:
        case RecordKind::kLoad:
        case RecordKind::kCompact:
            return nullptr;
    }
    return "record of unknown kind";
}

inline TakeResult RingConsumer::look_at(std::uint32_t position, TakenRecord& record,
                                        std::uint32_t& length_bytes) {
    if (hostile_reason_ != nullptr) return TakeResult::kHostile;
    // Acquire: pairs with commit(). One load; from here on it is a number of ours.
    length_bytes = word_at(position).load(std::memory_order_acquire);
    if (length_bytes == 0) return TakeResult::kEmpty;
    const std::byte* unit = unit_at(position);
    const HeaderCopy header = copy_header(unit);
    hostile_reason_ = fault(position, length_bytes, header.kind);
    if (hostile_reason_ != nullptr) return TakeResult::kHostile;
    record = {header.kind,         header.call_slot,     header.call_generation,
              header.write_number, header.decided_below, {}};
    return TakeResult::kRecord;
}

inline void RingConsumer::copy_payload(std::uint32_t position, std::uint32_t length_bytes,
                                       std::span<std::byte> buffer, TakenRecord& record) const {
    const std::size_t payload_bytes = length_bytes - sizeof(RecordHeader);
    std::memcpy(buffer.data(), unit_at(position) + sizeof(RecordHeader), payload_bytes);
    record.payload = buffer.first(payload_bytes);
}

inline TakeResult RingConsumer::take(std::span<std::byte> buffer, TakenRecord& record) {
    CHECK_OP(buffer.size(), >=, record_bytes_max());
    for (std::uint32_t skips = 0; skips < kSkipsMax; ++skips) {
        std::uint32_t length_bytes = 0;
        const TakeResult result = look_at(position_, record, length_bytes);
        if (result != TakeResult::kRecord) return result;
        const bool skipped = says_nothing(record.kind);
        if (!skipped) copy_payload(position_, length_bytes, buffer, record);
        consume(length_bytes, skipped);
        if (!skipped) return TakeResult::kRecord;
    }
    return TakeResult::kEmpty;
}

// A record that is passed over is looked at again by take(), which believes nothing of this look: a
// client that changes it meanwhile has its own records taken wrong, twice or not at all.
inline TakeResult RingConsumer::take_page_request(std::span<std::byte> buffer,
                                                  TakenRecord& record) {
    CHECK_OP(buffer.size(), >=, record_bytes_max());
    ahead_ = ahead();
    for (std::uint32_t skips = 0; skips < kSkipsMax; ++skips) {
        // Once around the ring: what comes then was looked at.
        if (ahead_ - position_ >= ring_bytes_ / kRingUnitBytes) return TakeResult::kEmpty;
        const std::uint32_t at = ahead_;
        std::uint32_t length_bytes = 0;
        const TakeResult result = look_at(at, record, length_bytes);
        if (result != TakeResult::kRecord) return result;
        ahead_ += ring_units(length_bytes);
        const bool wanted = record.kind == RecordKind::kPageRequest;
        if (wanted) copy_payload(at, length_bytes, buffer, record);
        if (at == position_ && (wanted || says_nothing(record.kind))) {
            consume(length_bytes, !wanted);  // nothing waits before it: its place is free again
        } else if (wanted) {
            const auto taken = RecordKind::kAborted;
            std::memcpy(unit_at(at) + offsetof(RecordHeader, kind), &taken, sizeof taken);
        }
        if (wanted) return TakeResult::kRecord;
    }
    return TakeResult::kEmpty;
}

inline void RingConsumer::consume(std::uint32_t length_bytes, bool says_nothing) {
    // On the next lap a record may start at any of these units, and must read as not committed.
    // Relaxed: publish_head() releases them.
    const std::uint32_t units = ring_units(length_bytes);
    for (std::uint32_t i = 0; i < units; ++i) {
        Atom<std::uint32_t>& word = word_at(position_ + i);
        // What says nothing may be half a ring that nobody has written to: a line that is only read
        // costs a fraction of one that is written.
        if (says_nothing && word.load(std::memory_order_relaxed) == 0) continue;
        word.store(0, std::memory_order_relaxed);
    }
    position_ += units;
    ahead_ = ahead();  // never so far behind that it would seem to be in front
}

}  // namespace bidstore
