// Fuzz targets: tests/fuzz_*.cc, each a program of one entry that takes any bytes at all.
//
// Who:    libFuzzer, where BIDSTORE_FUZZ says so (clang); else tests/fuzz_replay.cc, which gives it
//         the files of its corpus, tests/corpus/<target>/, under whatever sanitizer the build has.
// Errors: a target that finds something aborts (CHECK), or the sanitizer does.
// Rule:   what an entry does follows from its bytes alone. What it makes once for all inputs stays
//         what it is.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "shm/base.h"
#include "shm/error.h"
#include "shm/segment.h"

// The name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes);

namespace bidstore {

// Takes values off the front of an input. Behind its end there are zeros.
class FuzzInput {
  public:
    FuzzInput(const std::uint8_t* data, std::size_t size_bytes)
        : rest_(std::as_bytes(std::span(data, size_bytes))) {}

    template <class T>
    T take() {
        T value{};
        const auto bytes = take_bytes(sizeof value);
        std::ranges::copy(bytes, std::as_writable_bytes(std::span(&value, 1)).begin());
        return value;
    }
    std::span<const std::byte> take_bytes(std::size_t most) {
        const auto taken = rest_.first(std::min(most, rest_.size()));
        rest_ = rest_.subspan(taken.size());
        return taken;
    }
    // The next bytes, as an input of their own.
    FuzzInput part(std::size_t most) {
        FuzzInput taken(nullptr, 0);
        taken.rest_ = take_bytes(most);
        return taken;
    }
    std::span<const std::byte> rest() const { return rest_; }
    std::string_view text() const {
        const void* bytes = rest_.data();
        return {static_cast<const char*>(bytes), rest_.size()};
    }
    bool empty() const { return rest_.empty(); }

  private:
    std::span<const std::byte> rest_;
};

// What nobody wants to know, the compiler need not load. This wants to.
inline void know(std::uint64_t value) {
    static std::atomic<std::uint64_t> known = 0;
    known.store(value, std::memory_order_relaxed);
}

// Of what a target makes for itself.
template <class T>
T must(Result<T> result) {
    if (!result.ok()) std::fprintf(stderr, "%s\n", result.failure().what.c_str());
    CHECK(result.ok());
    return std::move(*result);
}

// For what reads files: the bytes under a path, in memory alone.
class InputFile {
  public:
    explicit InputFile(std::span<const std::byte> bytes)
        : memfd_(::memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
        CHECK(::write(memfd_.number(), bytes.data(), bytes.size()) ==
              static_cast<ssize_t>(bytes.size()));
    }
    std::string path() const { return "/proc/self/fd/" + std::to_string(memfd_.number()); }
    Descriptor duplicate() const { return Descriptor(::dup(memfd_.number())); }

  private:
    Descriptor memfd_;
};

}  // namespace bidstore
