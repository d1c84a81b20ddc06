// Scopes in which nobody asks the general allocator for memory, and the way out of them.
//
//   const HotPath hot("get");   until it ends, a malloc of this thread ends a debug build, with
//                               this name and the way there
//   const ColdPath cold;        inside of one: until it ends, malloc is allowed again
//
// May:    a hot path reads and writes the memory that it has, and calls what does only that. It may
//         take from memory that is kept from one use to the next (an arena, a vector that is
//         cleared, a list of spare objects). Where that is not enough it grows, off the path:
//         kept_push(), or a ColdPath. So a load that goes on allocates nothing; the first time, and
//         each time that more is needed than ever before, costs.
// Leaves: what is slow or rare anyway: a page that is missing, the text of a failure, a client that
//         is cut off, a device that is not the real one (a ColdPath each, where that begins).
// Free:   is not held to it: what a path frees it did not allocate, so somebody else pays for both.
// Who:    any thread; scopes end in the order opposite to that in which they began.
// Debug:  builds without NDEBUG alone. There shm/hot_path.cc puts itself before malloc, or, where a
//         sanitizer is there already, has that call it. In other builds nothing of it is left.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>
#include <vector>

namespace bidstore {

#ifndef NDEBUG

// Of one thread.
struct HotPathState {
    const char* hot = nullptr;       // the path that it is on
    bool left = false;               // it is on none because it left one
    std::uint64_t mallocs_left = 0;  // since it began, while it had left one
};
// Reached without a call, so that malloc can look at it.
extern thread_local HotPathState hot_path_state [[gnu::tls_model("initial-exec")]];

class HotPath {
  public:
    explicit HotPath(const char* name) : before_(std::exchange(hot_path_state.hot, name)) {}
    ~HotPath() { hot_path_state.hot = before_; }
    HotPath(const HotPath&) = delete;
    HotPath& operator=(const HotPath&) = delete;

  private:
    const char* const before_;
};

class ColdPath {
  public:
    ColdPath()
        : before_(std::exchange(hot_path_state.hot, nullptr)),
          left_before_(
              std::exchange(hot_path_state.left, hot_path_state.left || before_ != nullptr)) {}
    ~ColdPath() {
        hot_path_state.hot = before_;
        hot_path_state.left = left_before_;
    }
    ColdPath(const ColdPath&) = delete;
    ColdPath& operator=(const ColdPath&) = delete;

  private:
    const char* const before_;
    const bool left_before_;
};

#else

class HotPath {
  public:
    explicit HotPath(const char*) {}
    ~HotPath() {}
};

class ColdPath {
  public:
    ColdPath() {}
    ~ColdPath() {}
};

#endif

// Makes room in a vector whose memory is kept: when there is none for `more`, off the path.
template <class Vector>
void kept_reserve(Vector& kept, std::size_t more) {
    const std::size_t wanted = kept.size() + more;
    if (wanted <= kept.capacity()) [[likely]]
        return;
    const ColdPath cold;
    kept.reserve(std::max<std::size_t>({wanted, 2 * kept.capacity(), 16}));
}

template <class Vector, class Value>
void kept_push(Vector& kept, Value&& value) {
    kept_reserve(kept, 1);
    kept.push_back(std::forward<Value>(value));
}

// The failure of a result that has one, for the caller's caller: its text is copied off the path.
template <class Result>
auto failure_of(const Result& result) {
    const ColdPath cold;
    return result.failure();
}

// What a pool of nodes (std::pmr) that keeps them grows by: off the path.
std::pmr::memory_resource* kept_memory();

}  // namespace bidstore
