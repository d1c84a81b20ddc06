// A record in a client's ring as one might write it that does not use RingProducer.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "shm/ring.h"

namespace bidstore {

template <class T>
std::vector<std::byte> bytes_of(const T& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    return {bytes.begin(), bytes.end()};
}

struct PlantedRecord {
    std::uint32_t length_bytes = 0;  // 0: what the payload takes
    RecordKind kind = RecordKind::kTransaction;
    std::uint32_t call_slot = 0;
    std::uint32_t call_generation = 1;
    std::uint64_t write_number = 1;
    std::uint64_t decided_below = 0;
    std::vector<std::byte> payload;

    // Into the ring, from this unit on, and committed. Whether it fits is the caller's care.
    void write_to(std::byte* at) const {
        const auto put = [at](std::size_t offset, const auto& value) {
            std::memcpy(at + offset, &value, sizeof value);
        };
        put(offsetof(RecordHeader, kind), kind);
        put(offsetof(RecordHeader, call_slot), call_slot);
        put(offsetof(RecordHeader, call_generation), call_generation);
        put(offsetof(RecordHeader, write_number), write_number);
        put(offsetof(RecordHeader, decided_below), decided_below);
        std::copy(payload.begin(), payload.end(), at + sizeof(RecordHeader));
        const auto whole = static_cast<std::uint32_t>(sizeof(RecordHeader) + payload.size());
        void* word = at;
        std::atomic_ref<std::uint32_t>(*static_cast<std::uint32_t*>(word))
            .store(length_bytes != 0 ? length_bytes : whole, std::memory_order_release);
    }
};

}  // namespace bidstore
