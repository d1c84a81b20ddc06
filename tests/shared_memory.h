// What a test and the processes that it forks see together, whichever of them dies.
#pragma once

#include <sys/mman.h>

#include <new>

namespace bidstore {

template <class T>
class SharedMemory {
  public:
    SharedMemory()
        : memory_(::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                         0)) {
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
        shared_ = new (memory_) T{};
    }
    ~SharedMemory() { ::munmap(memory_, sizeof(T)); }
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;
    T* operator->() const { return shared_; }
    T& operator*() const { return *shared_; }

  private:
    void* memory_;
    T* shared_ = nullptr;
};

}  // namespace bidstore
