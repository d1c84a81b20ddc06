// The fields of a client segment by name, as layout_test holds them against the layout, and
// nonsense in them.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "shm/segment.h"
#include "tests/golden_dump.h"

namespace bidstore {

// A struct of the layout.
struct Struct {
    std::string name;
    std::size_t size;
    std::size_t alignment;
    std::vector<Field> fields;
};

// Those that a client segment is made of.
inline std::vector<Struct> client_structs() {
    return {
        {"ReaderSlot",
         sizeof(ReaderSlot),
         alignof(ReaderSlot),
         {FIELD(ReaderSlot, word), FIELD(ReaderSlot, episode), FIELD(ReaderSlot, looked),
          FIELD(ReaderSlot, reserved)}},
        {"TouchMarks",
         sizeof(TouchMarks),
         alignof(TouchMarks),
         {FIELD(TouchMarks, written), FIELD(TouchMarks, reserved), FIELD(TouchMarks, page)}},
        {"RingControl",
         sizeof(RingControl),
         alignof(RingControl),
         {FIELD(RingControl, claim), FIELD(RingControl, reserved0), FIELD(RingControl, head),
          FIELD(RingControl, reserved1), FIELD(RingControl, answered), FIELD(RingControl, waiters),
          FIELD(RingControl, reserved2)}},
        {"RecordHeader",
         sizeof(RecordHeader),
         alignof(RecordHeader),
         {FIELD(RecordHeader, length_bytes), FIELD(RecordHeader, kind),
          FIELD(RecordHeader, reserved), FIELD(RecordHeader, call_slot),
          FIELD(RecordHeader, call_generation), FIELD(RecordHeader, write_number),
          FIELD(RecordHeader, decided_below)}},
        {"CallSlot",
         sizeof(CallSlot),
         alignof(CallSlot),
         {FIELD(CallSlot, answered_generation), FIELD(CallSlot, error), FIELD(CallSlot, csn),
          FIELD(CallSlot, failed_operation), FIELD(CallSlot, result_count),
          FIELD(CallSlot, result)}},
        {"ClientHeader",
         sizeof(ClientHeader),
         alignof(ClientHeader),
         {FIELD(ClientHeader, magic), FIELD(ClientHeader, abi_version),
          FIELD(ClientHeader, first_slot), FIELD(ClientHeader, fingerprint),
          FIELD(ClientHeader, segment_bytes), FIELD(ClientHeader, instance_id),
          FIELD(ClientHeader, session_id), FIELD(ClientHeader, slot_count),
          FIELD(ClientHeader, call_slot_count), FIELD(ClientHeader, ring_bytes),
          FIELD(ClientHeader, rights), FIELD(ClientHeader, slots_offset),
          FIELD(ClientHeader, ring_control_offset), FIELD(ClientHeader, ring_offset),
          FIELD(ClientHeader, calls_offset), FIELD(ClientHeader, last_number),
          FIELD(ClientHeader, marks_offset), FIELD(ClientHeader, reserved)}},
    };
}

// One thing of a kind in a segment, and how many there are.
struct SegmentPart {
    std::byte* first;
    std::size_t stride_bytes;
    std::size_t count;
};

// Where the things of each kind are. All that is not here, nor in client_structs(), is what records
// carry, or fills up a page.
inline std::map<std::string, SegmentPart> parts_of(ClientSegment& segment) {
    const auto place = [](auto* object) {
        void* at = object;
        return static_cast<std::byte*>(at);
    };
    return {
        {"ClientHeader", {segment.base(), sizeof(ClientHeader), 1}},
        {"ReaderSlot", {place(segment.slots()), sizeof(ReaderSlot), segment.slot_count()}},
        {"TouchMarks", {place(segment.marks()), sizeof(TouchMarks), segment.slot_count()}},
        {"RingControl", {place(&segment.ring_control()), sizeof(RingControl), 1}},
        {"RecordHeader", {segment.ring(), kRingUnitBytes, segment.ring_bytes() / kRingUnitBytes}},
        {"CallSlot", {place(segment.calls()), sizeof(CallSlot), segment.call_slot_count()}},
    };
}

struct SegmentField {
    std::string name;
    std::byte* at;
    std::size_t size_bytes;
    const std::byte* neighbour;  // as many bytes of the same thing
};

// All fields of one thing of each kind: number `index`, modulo how many there are. A struct of the
// layout that has no place in parts_of() is an exception.
inline std::vector<SegmentField> fields_of(ClientSegment& segment, std::size_t index) {
    const auto parts = parts_of(segment);
    std::vector<SegmentField> all;
    for (const Struct& each : client_structs()) {
        const auto part = parts.find(each.name);
        if (part == parts.end()) throw std::logic_error("where is " + each.name + "?");
        const auto& [first, stride_bytes, count] = part->second;
        std::byte* const thing = first + index % count * stride_bytes;
        for (const Field& field : each.fields) {
            std::byte* const at = thing + field.offset;
            const bool last = field.offset + 2 * field.size_bytes > each.size;
            all.push_back({each.name + "." + field.name, at, field.size_bytes,
                           last ? thing : at + field.size_bytes});
        }
    }
    return all;
}

enum class Nonsense : std::uint8_t { kZero, kOne, kOnes, kRandom, kNeighbours, kCount };

// Into the whole field.
inline void write_nonsense(const SegmentField& field, Nonsense kind, std::mt19937_64& random) {
    std::vector<std::byte> bytes(field.size_bytes);
    if (kind == Nonsense::kOne) bytes[0] = std::byte{1};
    if (kind == Nonsense::kOnes) std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
    if (kind == Nonsense::kNeighbours) {
        std::memcpy(bytes.data(), field.neighbour, field.size_bytes);
    }
    if (kind == Nonsense::kRandom) {
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    }
    std::memcpy(field.at, bytes.data(), bytes.size());
}

}  // namespace bidstore
