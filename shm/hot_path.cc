#include "shm/hot_path.h"

namespace bidstore {
namespace {

class KeptMemory final : public std::pmr::memory_resource {
    void* do_allocate(std::size_t size_bytes, std::size_t alignment) override {
        const ColdPath cold;
        return std::pmr::new_delete_resource()->allocate(size_bytes, alignment);
    }
    void do_deallocate(void* memory, std::size_t size_bytes, std::size_t alignment) override {
        std::pmr::new_delete_resource()->deallocate(memory, size_bytes, alignment);
    }
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
        return this == &other;
    }
};

}  // namespace

std::pmr::memory_resource* kept_memory() {
    static KeptMemory memory;
    return &memory;
}

}  // namespace bidstore

#ifndef NDEBUG

#include <execinfo.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#if defined(__has_feature)
#define BIDSTORE_HAS_FEATURE(feature) __has_feature(feature)
#else
#define BIDSTORE_HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    BIDSTORE_HAS_FEATURE(address_sanitizer) || BIDSTORE_HAS_FEATURE(thread_sanitizer)
#define BIDSTORE_SANITIZED 1
#else
#define BIDSTORE_SANITIZED 0
#endif

namespace bidstore {

thread_local HotPathState hot_path_state;

namespace {

[[noreturn]] void trap(const char* path, std::size_t size_bytes) {
    hot_path_state.hot = nullptr;  // what says so may allocate
    std::fprintf(stderr,
                 "<2>malloc of %zu bytes on the hot path \"%s\": keep the memory from one use to "
                 "the next, or leave the path first (shm/hot_path.h); the way there:\n",
                 size_bytes, path);
    void* frames[32];
    ::backtrace_symbols_fd(frames, ::backtrace(frames, 32), STDERR_FILENO);
    std::abort();
}

inline void on_malloc(std::size_t size_bytes) {
    HotPathState& state = hot_path_state;
    if (state.hot != nullptr) [[unlikely]]
        trap(state.hot, size_bytes);
    if (state.left) ++state.mallocs_left;
}

}  // namespace
}  // namespace bidstore

#if BIDSTORE_SANITIZED

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const void*,
                                                                           std::size_t),
                                                         void (*on_free)(const void*));

namespace {

[[maybe_unused]] const int hooks = __sanitizer_install_malloc_and_free_hooks(
    [](const void*, std::size_t size_bytes) { bidstore::on_malloc(size_bytes); },
    [](const void*) {});

}  // namespace

#else

// glibc's own, under the names by which it lets others stand before them; free() is left alone.
extern "C" {
void* __libc_malloc(std::size_t size_bytes);
void* __libc_calloc(std::size_t count, std::size_t size_bytes);
void* __libc_realloc(void* memory, std::size_t size_bytes);
void* __libc_memalign(std::size_t alignment, std::size_t size_bytes);

void* malloc(std::size_t size_bytes) noexcept {
    bidstore::on_malloc(size_bytes);
    return __libc_malloc(size_bytes);
}

void* calloc(std::size_t count, std::size_t size_bytes) noexcept {
    bidstore::on_malloc(count * size_bytes);
    return __libc_calloc(count, size_bytes);
}

void* realloc(void* memory, std::size_t size_bytes) noexcept {
    bidstore::on_malloc(size_bytes);
    return __libc_realloc(memory, size_bytes);
}

void* memalign(std::size_t alignment, std::size_t size_bytes) noexcept {
    bidstore::on_malloc(size_bytes);
    return __libc_memalign(alignment, size_bytes);
}

void* aligned_alloc(std::size_t alignment, std::size_t size_bytes) noexcept {
    return memalign(alignment, size_bytes);
}

int posix_memalign(void** memory, std::size_t alignment, std::size_t size_bytes) noexcept {
    const bool power = alignment != 0 && (alignment & (alignment - 1)) == 0;
    if (!power || alignment % sizeof(void*) != 0) return EINVAL;
    void* const made = memalign(alignment, size_bytes);
    if (made == nullptr) return ENOMEM;
    *memory = made;
    return 0;
}
}

#endif

#endif
