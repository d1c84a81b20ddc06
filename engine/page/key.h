// Comparing keys: byte strings of one length, 1 to kKeyBytesMax, ordered as bytes.
//
// Who:   the views (of pages that may be reused under them) and the tree. Words are loaded by
//        racy_copy, never by memcmp, so that the one exemption of the sanitizer covers them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/page/page.h"

namespace bidstore {

// Eight bytes as a number that orders as they do.
inline std::uint64_t load_big_endian(const std::byte* from) {
    std::uint64_t word = 0;
    racy_copy(&word, from, sizeof word);
    return __builtin_bswap64(word);
}

// The last `length_bytes` (1 to 7) bytes of a key in the same form, zero padded behind.
inline std::uint64_t load_short_big_endian(const std::byte* from, std::uint32_t length_bytes) {
    std::uint64_t word = 0;
    for (std::uint32_t i = 0; i < length_bytes; ++i) {
        std::uint8_t byte = 0;
        racy_copy(&byte, from + i, 1);
        word |= std::uint64_t{byte} << (56 - 8 * i);
    }
    return word;
}

// The first eight bytes of a key, zero padded: what inner nodes keep apart.
inline std::uint64_t key_head(const std::byte* key, std::uint32_t key_bytes) {
    return key_bytes >= 8 ? load_big_endian(key) : load_short_big_endian(key, key_bytes);
}

// Below, at or above zero as `left` is below, equal to or above `right`. Zero bytes are equal.
inline int compare_keys(const std::byte* left, const std::byte* right, std::uint32_t key_bytes) {
    while (key_bytes >= 8) {
        const std::uint64_t l = load_big_endian(left);
        const std::uint64_t r = load_big_endian(right);
        if (l != r) return l < r ? -1 : 1;
        left += 8;
        right += 8;
        key_bytes -= 8;
    }
    if (key_bytes == 0) return 0;
    const std::uint64_t l = load_short_big_endian(left, key_bytes);
    const std::uint64_t r = load_short_big_endian(right, key_bytes);
    return l == r ? 0 : (l < r ? -1 : 1);
}

inline bool keys_equal(const std::byte* left, const std::byte* right, std::uint32_t key_bytes) {
    const auto word = [](const std::byte* from) {
        std::uint64_t loaded = 0;
        racy_copy(&loaded, from, sizeof loaded);
        return loaded;
    };
    if (key_bytes == 16) [[likely]] {
        return ((word(left) ^ word(right)) | (word(left + 8) ^ word(right + 8))) == 0;
    }
    for (; key_bytes >= 8; key_bytes -= 8, left += 8, right += 8) {
        if (word(left) != word(right)) return false;
    }
    return key_bytes == 0 ||
           load_short_big_endian(left, key_bytes) == load_short_big_endian(right, key_bytes);
}

// A bound of a range in the form that searches take it: nullptr, as an empty key, is none.
inline const std::byte* key_bound(std::span<const std::byte> key) {
    return key.empty() ? nullptr : key.data();
}

// How many leading bytes two keys share.
inline std::uint32_t shared_prefix(const std::byte* left, const std::byte* right,
                                   std::uint32_t key_bytes) {
    std::uint32_t shared = 0;
    while (shared < key_bytes && left[shared] == right[shared]) ++shared;
    return shared;
}

// The first index in [0, count) for which `less` no longer holds, or count. The number of probes
// depends on count alone and no probe leaves the range, so a page of garbage ends it in time too.
template <class Less>
inline std::uint32_t first_not_less(std::uint32_t count, Less less) {
    std::uint32_t base = 0;
    std::uint32_t left = count;
    while (left > 1) {
        const std::uint32_t half = left / 2;
        base += less(base + half - 1) ? half : 0;
        left -= half;
    }
    return base + (left == 1 && less(base) ? 1 : 0);
}

}  // namespace bidstore
