// The atomic type of everything that two threads or processes touch at the same time, and its
// memory fences: those of the standard, by another name.
//
// Who:    shm/ and the page header. What belongs to one process alone uses std::atomic.
// Why:    tests/interleaving_test.cc is compiled, as a whole, with an Atom of its own, at whose
//         every access it chooses who goes on, and when a store is seen (tests/schedule.h).
#pragma once

#ifdef BIDSTORE_ATOM_HEADER
#include BIDSTORE_ATOM_HEADER
#else
#include <atomic>

namespace bidstore {

template <class T>
using Atom = std::atomic<T>;

template <std::memory_order order>
[[gnu::always_inline]] inline void memory_fence() {
    std::atomic_thread_fence(order);
}

}  // namespace bidstore
#endif
